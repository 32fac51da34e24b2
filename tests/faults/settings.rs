//! Settings of the broker itself, altered while it runs: what they rule follows at once, without a restart, and after one too.

use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelane_wire::messages::{ApiVersionsRequest, IncrementalAlterConfigsRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::raw::{Connection, code};
use harness::suite::OwnBrokerCase;
use harness::wait;

pub const CASES: &[OwnBrokerCase] =
    own_broker_cases![the_default_of_a_topic_setting_is_altered, connections_of_an_address_are_limited, exceptions_for_an_address_count];

const BROKER: i8 = 4;
const SET: i8 = 0;
const REMOVE: i8 = 1;

fn the_default_of_a_topic_setting_is_altered() {
    let mut broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.create_topic("follows", 1);
    connection.create_topic_with("has-its-own", 1, &[("max.message.bytes", "100000")]);
    let large = Batch::of(vec![record("key", vec![7; 5_000])]);
    assert_eq!(code(connection.produce("follows", 0, &large).error_code), ErrorCode::None);

    alter(&mut connection, "message.max.bytes", Some("1000"));
    wait::until("the altered default to count", wait::PATIENCE, || {
        (code(connection.produce("follows", 0, &large).error_code) == ErrorCode::MessageTooLarge).then_some(())
    });
    assert_eq!(code(connection.produce("has-its-own", 0, &large).error_code), ErrorCode::None);

    broker.kill();
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders("follows", 1);
    wait::until("the altered default to count after a restart", wait::PATIENCE, || {
        (code(connection.produce("follows", 0, &large).error_code) == ErrorCode::MessageTooLarge).then_some(())
    });

    alter(&mut connection, "message.max.bytes", None);
    wait::until("the default to come back", wait::PATIENCE, || {
        (code(connection.produce("follows", 0, &large).error_code) == ErrorCode::None).then_some(())
    });
}

fn connections_of_an_address_are_limited() {
    let broker = Broker::start(BrokerOptions::default());
    let mut first = Connection::to(&broker);
    alter(&mut first, "max.connections.per.ip", Some("2"));
    let mut second = wait::until("a third connection to be refused", wait::PATIENCE, || {
        let second = Connection::open(broker.address()).ok()?;
        (!answers(Connection::open(broker.address()).ok()?)).then_some(second)
    });
    // Those that are there are served as before.
    first.call(0, &ApiVersionsRequest::default());
    second.call(0, &ApiVersionsRequest::default());

    alter(&mut first, "max.connections.per.ip", Some("100"));
    wait::until("a third connection to be served", wait::PATIENCE, || answers(Connection::open(broker.address()).ok()?).then_some(()));
}

fn exceptions_for_an_address_count() {
    let options =
        BrokerOptions::default().set("max.connections.per.ip", 100).set("max.connections.per.ip.overrides", "127.0.0.1:1,10.0.0.1:7");
    let broker = Broker::start(options);
    // The probe that waited for the broker may still be counted.
    let mut only = wait::until("a connection", wait::PATIENCE, || {
        let mut connection = Connection::open(broker.address()).ok()?;
        connection.try_call(0, &ApiVersionsRequest::default()).is_ok().then_some(connection)
    });
    assert!(!answers(Connection::open(broker.address()).expect("the kernel accepts")), "a second connection was served");
    only.call(0, &ApiVersionsRequest::default());
}

/// Whether the broker serves a connection, rather than closing it.
fn answers(mut connection: Connection) -> bool {
    connection.try_call(0, &ApiVersionsRequest::default()).is_ok()
}

/// Alters a setting for all brokers, or removes the alteration.
fn alter(connection: &mut Connection, name: &str, value: Option<&str>) {
    let operation = if value.is_some() { SET } else { REMOVE };
    let change = AlterableConfig { name: Str::from(name), config_operation: operation, value: value.map(Str::from), ..Default::default() };
    let resource =
        AlterConfigsResource { resource_type: BROKER, resource_name: Str::from(""), configs: vec![change], ..Default::default() };
    let answer = connection.call(1, &IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() });
    let outcome = &answer.responses[0];
    assert_eq!(code(outcome.error_code), ErrorCode::None, "{name}: {:?}", outcome.error_message);
}
