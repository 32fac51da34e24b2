//! Two shards: a connection that asks for the partitions of one shard is moved to it while requests are on their way, and nothing of what it sends or is answered is lost or changes its place.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use corelane_wire::ErrorCode;
use corelane_wire::messages::ProduceRequest;
use harness::batch::{Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::raw::{Connection, code, produce_request};
use harness::suite::OwnBrokerCase;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    a_one_sided_connection_moves_and_loses_nothing,
    a_connection_to_the_partitions_of_both_shards_stays,
    connections_are_held_where_they_are
];

const PRODUCE_VERSION: i16 = 9;
/// Requests that are on their way at any time.
const IN_FLIGHT: usize = 5;
const PARTITIONS: i32 = 16;
/// Longer than the second within which a one-sided connection moves.
const LOAD: Duration = Duration::from_millis(1800);

/// New connections go round the shards, so of two that write to one partition one is at home already, and the other has to move.
fn a_one_sided_connection_moves_and_loses_nothing() {
    let Some(broker) = start(true) else { return };
    Connection::to(&broker).create_topic("one-sided", 1);
    let sent = send_from_two_connections(&broker, "one-sided", |_| 0);
    assert_eq!(moves(&broker), 1);

    let read = Connection::to(&broker).read_all("one-sided", 0, 0);
    assert_eq!(read.len(), sent);
    for writer in ["first", "second"] {
        let numbers: Vec<usize> = read
            .iter()
            .filter_map(|(_, record)| String::from_utf8(record.value.clone()?).ok()?.strip_prefix(writer)?.parse().ok())
            .collect();
        assert!(
            numbers.len() > IN_FLIGHT && numbers.iter().enumerate().all(|(place, number)| place == *number),
            "{writer}'s records are in its order"
        );
    }
}

fn a_connection_to_the_partitions_of_both_shards_stays() {
    let Some(broker) = start(true) else { return };
    Connection::to(&broker).create_topic("mixed", PARTITIONS);
    send_from_two_connections(&broker, "mixed", |number| (number % PARTITIONS as usize) as i32);
    assert_eq!(moves(&broker), 0);
}

fn connections_are_held_where_they_are() {
    let Some(broker) = start(false) else { return };
    Connection::to(&broker).create_topic("held", 1);
    send_from_two_connections(&broker, "held", |_| 0);
    assert_eq!(moves(&broker), 0);
}

/// None where there are not two cores to have a shard each, or the broker is not ours.
pub fn start(may_move: bool) -> Option<Broker> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = BrokerOptions::default().set("shards", 2).set("log.level", "debug").set("connection.move.enable", may_move);
    (cores > 1 && options.target == harness::places::Target::Corelane).then(|| Broker::start(options))
}

/// How many connections have moved.
pub fn moves(broker: &Broker) -> usize {
    broker.log().matches("the connection moves to the shard of its partitions").count()
}

/// Two connections send for a while, each with several requests on their way, and check that every answer comes in its turn. The number of records.
fn send_from_two_connections(broker: &Broker, topic: &str, partition_of: impl Fn(usize) -> i32 + Sync) -> usize {
    let partition_of = &partition_of;
    std::thread::scope(|scope| {
        let writers = ["first", "second"].map(|writer| {
            let connection = Connection::to(broker);
            scope.spawn(move || send(connection, topic, writer, partition_of))
        });
        writers.into_iter().map(|writer| writer.join().expect("the writer's checks held")).sum()
    })
}

/// Sends for a while, with several requests on their way, and checks that every answer comes in its turn. The number of records.
pub fn send(mut connection: Connection, topic: &str, writer: &str, partition_of: impl Fn(usize) -> i32) -> usize {
    let (begun, mut sent, mut on_their_way) = (Instant::now(), 0, VecDeque::new());
    let mut last_offsets = vec![-1; PARTITIONS as usize];
    loop {
        let is_over = begun.elapsed() > LOAD;
        if is_over && on_their_way.is_empty() {
            return sent;
        }
        while !is_over && on_their_way.len() < IN_FLIGHT {
            let batch = Batch::of(vec![record("key", format!("{writer}{sent}"))]);
            let request = produce_request(topic, partition_of(sent), -1, batch.encode());
            let correlation_id = connection.send(PRODUCE_VERSION, &request).expect("the connection lives");
            on_their_way.push_back((correlation_id, partition_of(sent)));
            sent += 1;
        }
        let (correlation_id, partition) = on_their_way.pop_front().expect("one was sent");
        let response = connection.receive::<ProduceRequest>(PRODUCE_VERSION, correlation_id).expect("an answer in its turn");
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert!(answer.base_offset > last_offsets[partition as usize], "offsets rise with the order of the requests");
        last_offsets[partition as usize] = answer.base_offset;
    }
}
