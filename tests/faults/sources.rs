//! Where the settings of a real start come from, strongest first: `--set`, the environment (CORELANE_... before KAFKA_...), the file of `--config`, and what counts when nobody says anything.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use harness::broker::free_port;
use harness::own_broker_cases;
use harness::places;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;
use tempfile::TempDir;

use crate::process::{Process, corelane, run};

pub const CASES: &[OwnBrokerCase] =
    own_broker_cases![the_strongest_source_wins, variables_mean_settings, defaults_without_any_argument, effective_names_the_sources];

/// Each source wants another number of partitions for a topic that its first use makes; the topic tells whose word counted.
fn the_strongest_source_wins() {
    let folder = folder_with_properties("num.partitions=2\n");
    for (has_set, variables, partitions) in [
        (false, &[][..], 2),
        (false, &["KAFKA_NUM_PARTITIONS"][..], 3),
        (false, &["KAFKA_NUM_PARTITIONS", "CORELANE_NUM_PARTITIONS"][..], 4),
        (true, &["KAFKA_NUM_PARTITIONS", "CORELANE_NUM_PARTITIONS"][..], 5),
    ] {
        let port = free_port();
        let mut command = corelane(folder.path(), &["--config", "server.properties", "--data-dir", &format!("data-{partitions}")]);
        command.args(["--set", &format!("listeners=PLAINTEXT://127.0.0.1:{port}")]);
        if has_set {
            command.args(["--set", "num.partitions=5"]);
        }
        for (value, variable) in (3..).zip(variables) {
            command.env(variable, value.to_string());
        }
        let _broker = Process::ready(command);
        assert_eq!(partitions_made_by_first_use(port), partitions, "--set: {has_set}, environment: {variables:?}");
    }
}

/// A broker with nothing but variables, as a container is started: an underscore is a dot.
fn variables_mean_settings() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let (port, data) = (free_port(), folder.path().join("from-the-environment"));
    let mut command = corelane(folder.path(), &[]);
    command.env("KAFKA_LISTENERS", format!("PLAINTEXT://127.0.0.1:{port}")).env("KAFKA_LOG_DIRS", &data).env("KAFKA_NODE_ID", "9");
    command.env("CORELANE_NUM_PARTITIONS", "6").env("KAFKA_HEAP_OPTS", "-Xmx1g");
    let broker = Process::ready(command);
    assert_eq!(Connection::open(([127, 0, 0, 1], port).into()).expect("it listens there").metadata(9, &[]).brokers[0].node_id, 9);
    assert_eq!(partitions_made_by_first_use(port), 6);
    assert!(data.join("meta.properties").exists(), "its data lies where the variable says");
    assert!(!broker.said().contains("heap.opts"), "what Kafka's scripts read for themselves is no setting: {}", broker.said());
}

/// Data in ./corelane-data, 127.0.0.1:9092, replication factors 1.
fn defaults_without_any_argument() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let effective = effective(corelane(folder.path(), &["config", "effective"]));
    for line in [
        "listeners=PLAINTEXT://127.0.0.1:9092",
        "log.dirs=./corelane-data",
        "process.roles=broker,controller",
        "offsets.topic.replication.factor=1",
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=1",
        "share.coordinator.state.topic.replication.factor=1",
        "default.replication.factor=1",
    ] {
        assert!(effective.lines().any(|told| told == line), "{line} is not among them:\n{effective}");
    }
    assert!(is_empty(folder.path()), "telling settings writes nothing");
    if TcpListener::bind("127.0.0.1:9092").is_err() {
        println!("not started: somebody else listens on 127.0.0.1:9092");
        return;
    }
    let mut broker = Process::ready(corelane(folder.path(), &[]));
    let mut connection = Connection::open(([127, 0, 0, 1], 9092).into()).expect("it listens there");
    connection.create_topic("here", 1);
    assert!(folder.path().join("corelane-data/here-0").is_dir(), "topics lie directly in the data directory");
    assert!(broker.terminate().success());
}

/// Under each source what it gave, and what lost does not appear.
fn effective_names_the_sources() {
    let folder = folder_with_properties("num.partitions=2\nlog.retention.hours=5\n");
    let mut command =
        corelane(folder.path(), &["--config", "server.properties", "--set", "log.segment.bytes=1048576", "config", "effective"]);
    command.env("KAFKA_NUM_PARTITIONS", "3");
    let effective = effective(command);
    let of_source = |heading: &str| effective.split("\n\n").find(|part| part.starts_with(&format!("# {heading}\n"))).map(str::to_owned);
    assert!(of_source("command line").is_some_and(|part| part.contains("\nlog.segment.bytes=1048576")), "{effective}");
    assert!(of_source("environment").is_some_and(|part| part.contains("\nnum.partitions=3")), "{effective}");
    let file = of_source("server.properties").unwrap_or_default();
    assert!(file.contains("\nlog.retention.hours=5") && !file.contains("num.partitions"), "{effective}");
}

fn folder_with_properties(properties: &str) -> TempDir {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    std::fs::write(folder.path().join("server.properties"), properties).expect("a file");
    folder
}

fn partitions_made_by_first_use(port: u16) -> usize {
    let mut connection = Connection::open(([127, 0, 0, 1], port).into()).expect("the broker accepts connections");
    connection.metadata(3, &["first-use"]).topics[0].partitions.len()
}

fn effective(command: Command) -> String {
    let ended = run(command);
    assert!(ended.status.success(), "{}", ended.said);
    ended.said
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("a folder").next().is_none()
}
