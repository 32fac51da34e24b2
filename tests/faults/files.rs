//! What `corelane log` says of the files of a stopped broker, beside what Kafka's own tool says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::batch::{Batch, Codec, record};
use harness::broker::{Broker, BrokerOptions, java_with};
use harness::own_broker_cases;
use harness::places;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![dumps_are_those_of_kafkas_tool, damage_is_named];

const TOPIC: &str = "dumped";

/// Batches of every codec over several segments, a group's offset, a transaction.
fn written() -> Broker {
    let mut broker = Broker::start(BrokerOptions::default().set("log.segment.bytes", 1_048_576).set("log.index.interval.bytes", 1_024));
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(TOPIC, 1, &[("segment.bytes", "1048576")]);
    connection.wait_for_coordinator("dumped-group");
    let producer_id = connection.producer_id();
    for (number, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().cycle().take(40).enumerate() {
        let value: Vec<u8> = (0..60_000).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8 % 26 + b'a').collect();
        let records = vec![record(&format!("key-{number}"), "short"), record("long", value)];
        let batch = Batch::of(records).codec(codec).producer(producer_id, 0, 2 * number as i32);
        assert_eq!(connection.produce(TOPIC, 0, &batch).error_code, 0);
    }
    broker.terminate(Duration::from_secs(30));
    broker
}

fn dumps_are_those_of_kafkas_tool() {
    let broker = written();
    let mut compared = 0;
    for (directory, options) in [
        (format!("{TOPIC}-0"), vec!["--print-data-log"]),
        (format!("{TOPIC}-0"), vec!["--deep-iteration"]),
        ("__cluster_metadata-0".to_owned(), vec!["--cluster-metadata-decoder"]),
    ] {
        let files = files_of(&broker.data().join(directory));
        let named: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let named = named.join(",");
        let arguments: Vec<&str> = options.into_iter().chain(["--files", &named]).collect();
        let ours = Command::new(places::corelane_binary()).args(["log", "dump"]).args(&arguments).output().expect("the binary runs");
        let theirs = java_with("tools").arg("org.apache.kafka.tools.DumpLogSegments").args(&arguments).output().expect("java");
        assert!(ours.status.success(), "{}", text(&ours.stderr));
        assert!(theirs.status.success(), "{}", text(&theirs.stderr));
        for (number, (ours, theirs)) in text(&ours.stdout).lines().zip(text(&theirs.stdout).lines()).enumerate() {
            assert_eq!(ours.trim_end(), theirs.trim_end(), "line {}", number + 1);
            compared += 1;
        }
        assert_eq!(text(&ours.stdout).lines().count(), text(&theirs.stdout).lines().count());
    }
    println!("{compared} lines compared");
    assert!(compared > 150);
}

fn damage_is_named() {
    let broker = written();
    let whole = verify(broker.data());
    assert!(whole.status.success(), "{}", text(&whole.stdout));
    let segment = broker.data().join(format!("{TOPIC}-0/00000000000000000000.log"));
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[5_000] ^= 1;
    fs::write(&segment, &bytes).expect("a segment");
    let damaged = verify(broker.data());
    assert_eq!(damaged.status.code(), Some(1));
    let said = text(&damaged.stdout);
    let line = said.lines().next().expect("a line");
    assert!(line.contains(&segment.display().to_string()) && line.contains("position 0: batch of offset 0:"), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.ends_with("1 damaged places")), "{said}");
}

fn verify(directory: &Path) -> Output {
    Command::new(places::corelane_binary()).args(["log", "verify"]).arg(directory).output().expect("the binary runs")
}

/// Everything that the tool reads, in the order of the names.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let known = ["log", "index", "timeindex", "txnindex", "snapshot", "checkpoint"];
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| known.iter().any(|known| *known == extension)))
        .collect();
    files.sort();
    files
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
