//! Starting: what keeps a broker from it is said in words, and one that started is soon ready and then at rest.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use corelane_wire::Str;
use corelane_wire::messages::FindCoordinatorRequest;
use harness::broker::{Broker, BrokerOptions, free_port};
use harness::differences;
use harness::own_broker_cases;
use harness::places::{self, Target};
use harness::raw::{Connection, code};
use harness::suite::OwnBrokerCase;
use harness::wait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::{CANNOT_START, Process, corelane, run};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    second_broker_on_the_port_names_the_address,
    second_broker_on_the_data_is_refused,
    wrong_settings_are_named,
    directories_that_are_not_served_are_named,
    a_lost_metadata_log_is_named,
    a_check_looks_hosts_up,
    unknown_settings_get_the_nearest_name,
    properties_of_a_kafka_node_work_unchanged,
    exits_when_ready_if_asked,
    ready_soon,
    at_rest_when_idle,
    what_is_made_on_demand_is_told_when_it_is_there,
    many_idle_connections_cost_little,
];

fn second_broker_on_the_port_names_the_address() {
    let first = Broker::start(BrokerOptions::default());
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let second = run(corelane(folder.path(), &["--data-dir", "data", "--set", &format!("listeners=PLAINTEXT://{}", first.address())]));
    assert!(!second.status.success());
    assert!(second.said.contains(&first.address().to_string()), "{}", second.said);
}

fn second_broker_on_the_data_is_refused() {
    let first = Broker::start(BrokerOptions::default());
    let data = first.data().to_str().expect("a path in UTF-8");
    let second = run(corelane(first.data(), &["--data-dir", data, "--set", &format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port())]));
    assert_eq!(second.status.code(), Some(CANNOT_START), "{}", second.said);
    assert!(second.said.contains(data), "{}", second.said);
    assert_eq!(Connection::to(&first).metadata(9, &[]).brokers.len(), 1, "the first goes on");
}

fn wrong_settings_are_named() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    for (key, value) in
        [("num.partitions", "many"), ("num.partitions", "0"), ("listeners", "PLAINTEXT://127.0.0.1"), ("log.segment.bytes", "1")]
    {
        let refused = run(corelane(folder.path(), &["--data-dir", "data", "--set", &format!("{key}={value}")]));
        assert!(!refused.status.success(), "{key}={value} was taken");
        assert!(refused.said.contains(key) && refused.said.contains(value), "{key}={value}: {}", refused.said);
        assert!(!folder.path().join("data").exists(), "{key}={value}: nothing is written");
    }
}

/// What a start passes over of the data directory is said, so that nobody believes it to be served.
fn directories_that_are_not_served_are_named() {
    let mut broker = Broker::start(BrokerOptions::default());
    assert!(broker.terminate(Duration::from_secs(60)).success());
    fs::create_dir(broker.data().join("mytopic-0")).expect("a folder");
    fs::write(broker.data().join("mytopic-0/00000000000000000000.log"), "junk").expect("a file");
    broker.restart();
    let said = broker.log().lines().filter(|line| line.contains("mytopic-0") && line.contains("left alone")).count();
    assert_eq!(said, 1, "{}", broker.log());
}

/// Without it nobody knows the topics, so it is not begun anew.
fn a_lost_metadata_log_is_named() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port());
    let start = || run(corelane(folder.path(), &["--data-dir", "data", "--exit-when-ready", "--set", &listeners]));
    assert!(start().status.success());
    let log = folder.path().join("data/__cluster_metadata-0/00000000000000000000.log");
    let kept = folder.path().join("kept");
    fs::rename(&log, &kept).expect("the log is there after a clean stop");
    for _ in 0..2 {
        let refused = start();
        assert_eq!(refused.status.code(), Some(CANNOT_START), "{}", refused.said);
        for told in ["__cluster_metadata-0/00000000000000000000.log", "is missing", "put it back"] {
            assert!(refused.said.contains(told), "{told}: {}", refused.said);
        }
    }
    fs::rename(&kept, &log).expect("a file of ours");
    let started = start();
    assert!(started.status.success(), "{}", started.said);
}

/// `config check` says what a start would say of a listener's host.
fn a_check_looks_hosts_up() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let file = folder.path().join("server.properties");
    for (host, is_known) in [("nohost.invalid", false), ("127.0.0.1", true)] {
        fs::write(&file, format!("listeners=PLAINTEXT://{host}:29192\n")).expect("a file");
        let checked = run(corelane(folder.path(), &["config", "check", file.to_str().expect("a path in UTF-8")]));
        assert_eq!(checked.status.success(), is_known, "{}", checked.said);
        assert_eq!(checked.said.contains("cannot resolve host nohost.invalid"), !is_known, "{}", checked.said);
    }
}

/// A key that nobody knows does not stop the start: server.properties files hold settings of plug-ins.
fn unknown_settings_get_the_nearest_name() {
    let broker = Broker::start(BrokerOptions::default().set("num.partition", 3));
    wait::until("the warning", wait::PATIENCE, || {
        (broker.log().contains("num.partition") && broker.log().contains("num.partitions")).then_some(())
    });
}

fn properties_of_a_kafka_node_work_unchanged() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let (port, controller_port) = (free_port(), free_port());
    let properties = format!(
        "# A single node, as Kafka's own example has it\nprocess.roles=broker,controller\nnode.id=7\ncontroller.quorum.voters=7@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\ninter.broker.listener.name=PLAINTEXT\n\
         num.network.threads=3\nnum.io.threads=8\nlog.dirs={}\nnum.partitions=2\nlog.retention.hours=168\noffsets.topic.replication.factor=1\n",
        folder.path().join("data").display()
    );
    let file = folder.path().join("server.properties");
    fs::write(&file, properties).expect("a file");
    let mut process = Process::start(corelane(folder.path(), &["--config", file.to_str().expect("a path in UTF-8")]));
    let mut connection = wait::until("the broker", wait::PATIENCE, || {
        if let Some(ended) = process.ended() {
            panic!("it ended with {ended}");
        }
        Connection::open(([127, 0, 0, 1], port).into()).ok()
    });
    let brokers = connection.metadata(9, &[]).brokers;
    assert_eq!((brokers[0].node_id, brokers[0].port), (7, i32::from(port)));
}

fn exits_when_ready_if_asked() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port());
    let ended = run(corelane(folder.path(), &["--data-dir", "data", "--exit-when-ready", "--set", &listeners]));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.said);
    assert!(ended.said.contains("ready"), "{}", ended.said);
}

/// The aim is 1 s for the first start, which makes the journals, and 100 ms for any other; the bound allows for a machine that others use.
fn ready_soon() {
    let started = Instant::now();
    let mut broker = Broker::start(BrokerOptions::default());
    let first = started.elapsed();
    broker.terminate(Duration::from_secs(60));
    let started = Instant::now();
    broker.restart();
    let second = started.elapsed();
    println!("ready after {first:?} at the first start, {second:?} at the second");
    assert!(first < Duration::from_secs(10) && second < Duration::from_secs(3), "{first:?}, {second:?}");
}

/// Under 64 MB with two shards. The aim is under 1 % of a core for each; the bound allows for a machine that others use.
fn at_rest_when_idle() {
    let broker = Broker::start(BrokerOptions::default().set("shards", 2));
    Connection::to(&broker).create_topic("idle", 10);
    thread::sleep(Duration::from_secs(1));
    let (before, period) = (broker.cpu_time(), Duration::from_secs(5));
    thread::sleep(period);
    let share = (broker.cpu_time() - before).as_secs_f64() / period.as_secs_f64();
    println!("idle: {:.2} % of a core, {} MiB resident", share * 100.0, broker.resident_bytes() >> 20);
    assert!(share < 0.06, "{:.2} % of a core", share * 100.0);
    let most = if broker.target() == Target::Kafka { 1 << 30 } else { 64_000_000 };
    assert!(broker.resident_bytes() < most, "{} MiB resident", broker.resident_bytes() >> 20);
}

/// The first who asks for a coordinator, or for a topic that is not there, has it made.
fn what_is_made_on_demand_is_told_when_it_is_there() {
    let broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    let request = FindCoordinatorRequest { coordinator_keys: vec![Str::from("a-group")], ..Default::default() };
    let coordinator = code(connection.call(4, &request).coordinators[0].error_code);
    assert_eq!(coordinator.name(), differences::expected("coordinator-made-on-demand"));
    let topic = code(connection.metadata(3, &["made-on-demand"]).topics[0].error_code);
    assert_eq!(topic.name(), differences::expected("topic-made-on-demand"));
    connection.wait_for_coordinator("a-group");
    connection.wait_for_leaders("made-on-demand", 1);
}

/// As many as the limit on descriptors allows, 10,000 at most: each takes one here and one in the broker.
fn many_idle_connections_cost_little() {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).expect("up to the hard limit is allowed");
    let count = limits.maximum.map_or(10_000, |descriptors| (descriptors.saturating_sub(1_000) as usize).min(10_000));
    let broker = Broker::start(BrokerOptions::default());
    let before = broker.resident_bytes();
    let mut connections: Vec<Connection> = (0..count).map(|_| Connection::to(&broker)).collect();
    for connection in &mut connections {
        assert_eq!(connection.metadata(9, &[]).brokers.len(), 1);
    }
    let more = broker.resident_bytes().saturating_sub(before) as usize;
    println!("{count} connections: {} KiB each", more / count / 1024);
    assert!(more < count * 20_000, "{} MiB for {count} connections", more >> 20);
    let cpu = broker.cpu_time();
    thread::sleep(Duration::from_secs(3));
    let share = (broker.cpu_time() - cpu).as_secs_f64() / 3.0;
    assert!(share < 0.1, "{:.2} % of a core for connections that say nothing", share * 100.0);
}
