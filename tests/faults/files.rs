//! What `corelane log` says of the files of a stopped broker, beside what Kafka's own tool says of them.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use corelane_wire::messages::{ProduceRequest, ShareGroupHeartbeatRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, Codec, record};
use harness::broker::{Broker, BrokerOptions, java_with};
use harness::own_broker_cases;
use harness::places;
use harness::raw::{Connection, code, frame_of, produce_request};
use harness::suite::OwnBrokerCase;
use harness::wait;

use crate::transactions;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    dumps_are_those_of_kafkas_tool,
    damage_is_named,
    hints_are_made_again,
    transaction_indexes_are_made_again,
    a_journal_is_dumped,
    requests_in_flight_share_groups_of_the_journal,
    what_opens_of_a_directory_of_kafka_is_told,
];

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

/// Two indexes damaged, one missing, every producer snapshot damaged: named, made again, and whole from then on; the batches stay as they are. Not while the broker runs.
fn hints_are_made_again() {
    let mut broker = written();
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, 1);
    for _ in 0..40 {
        connection.append(TOPIC, 0, vec![record("more", vec![b'v'; 60_000])]);
    }
    broker.terminate(Duration::from_secs(30));
    let directory = broker.data().join(format!("{TOPIC}-0"));
    let segments: Vec<(PathBuf, Vec<u8>)> =
        of_kind(&directory, "log").into_iter().map(|path| (path.clone(), fs::read(path).expect("a segment"))).collect();
    let (indexes, times) = (of_kind(&directory, "index"), of_kind(&directory, "timeindex"));
    assert!(indexes.len() >= 2 && times.len() >= 2);
    overwrite(&indexes[0], |bytes| bytes[5] ^= 0xff);
    overwrite(&times[0], |bytes| bytes.push(7));
    fs::remove_file(&indexes[1]).expect("an index");
    let snapshots = of_kind(&directory, "snapshot");
    assert!(!snapshots.is_empty(), "an idempotent producer has written, and segments have rolled since");
    snapshots.iter().for_each(|snapshot| overwrite(snapshot, |bytes| bytes[12] ^= 1));
    let damaged: Vec<&PathBuf> = snapshots.iter().chain([&indexes[0], &times[0]]).collect();
    let named = verify(broker.data());
    assert_eq!(named.status.code(), Some(1), "{}", text(&named.stdout));
    assert_eq!(unnamed(&named, &damaged), [""; 0], "{}", text(&named.stdout));
    let repaired = log_command(&["verify", "--repair"], broker.data());
    assert_eq!(unnamed(&repaired, &damaged), [""; 0], "{}", text(&repaired.stdout));
    assert!(repaired.status.success(), "{}{}", text(&repaired.stdout), text(&repaired.stderr));
    let again = verify(broker.data());
    assert!(again.status.success() && text(&again.stdout).contains(": 0 damaged places"), "{}", text(&again.stdout));
    for snapshot in &snapshots {
        let output = java_with("tools").arg("org.apache.kafka.tools.DumpLogSegments").arg("--files").arg(snapshot).output().expect("java");
        let said = text(&output.stdout);
        assert!(output.status.success() && said.contains("producerId: "), "{}: {said}{}", snapshot.display(), text(&output.stderr));
    }
    assert!(indexes[1].exists() && segments.iter().all(|(path, bytes)| fs::read(path).expect("a segment") == *bytes));

    broker.restart();
    let refused = log_command(&["verify", "--repair"], broker.data());
    assert!(!refused.status.success() && text(&refused.stderr).contains("is in use"), "{}", text(&refused.stderr));
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, 1);
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), 120);
}

/// Transaction indexes of every partition: damaged, cut by an entry, gone. Each is named, and made again to the byte as the broker had written it.
fn transaction_indexes_are_made_again() {
    let mut broker = Broker::start(BrokerOptions::default());
    transactions::some(&mut broker, 80);
    let topic = |index: i32| broker.data().join(format!("{}-{index}", transactions::teller::TOPIC));
    let indexes: Vec<PathBuf> = (0..transactions::teller::PARTITIONS).flat_map(|index| of_kind(&topic(index), "txnindex")).collect();
    let written: Vec<Vec<u8>> = indexes.iter().map(|path| fs::read(path).expect("an index")).collect();
    assert!(
        written.len() >= 2 && written.iter().all(|bytes| bytes.len() >= 3 * 34),
        "aborted transactions in every partition: {indexes:?}"
    );
    for (case, path) in indexes.iter().enumerate() {
        match case % 3 {
            0 => overwrite(path, |bytes| bytes[35] ^= 1),
            1 => overwrite(path, |bytes| bytes.truncate(bytes.len() - 34)),
            _ => fs::remove_file(path).expect("an index"),
        }
    }
    let repaired = log_command(&["verify", "--repair"], broker.data());
    assert_eq!(unnamed(&repaired, &indexes.iter().collect::<Vec<_>>()), [""; 0], "{}", text(&repaired.stdout));
    assert!(repaired.status.success(), "{}{}", text(&repaired.stdout), text(&repaired.stderr));
    for (path, bytes) in indexes.iter().zip(&written) {
        assert!(fs::read(path).expect("an index") == *bytes, "{} is as it was", path.display());
    }
    let again = log_command(&["verify", "--repair"], broker.data());
    assert!(again.status.success() && text(&again.stdout).contains(": 0 damaged places, 0 files made again"), "{}", text(&again.stdout));
    broker.restart();
}

/// What a killed broker had acknowledged and not placed stands in its journals, batch by batch.
fn a_journal_is_dumped() {
    let mut broker = Broker::start(BrokerOptions::default().set("shards", 1));
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    for number in 0..5 {
        connection.append(TOPIC, 0, vec![record("key", format!("value-{number}"))]);
    }
    broker.kill();
    let journal = broker.data().join("corelane-journal-0");
    let dumped = log_command(&["dump", "--print-data-log"], &journal);
    assert!(dumped.status.success(), "{}", text(&dumped.stderr));
    let said = text(&dumped.stdout);
    for number in 0..5 {
        assert!(said.contains(&format!("key: key payload: value-{number}")), "value {number} in\n{said}");
    }
    assert!(said.contains(&format!("name: {TOPIC}-0")) && !said.contains("isvalid: false"), "{said}");
}

/// Five requests of one connection that arrive together do not wait for each other's write: the first may have one to itself, the others share.
fn requests_in_flight_share_groups_of_the_journal() {
    const ROUNDS: usize = 20;
    const IN_FLIGHT: usize = 5;
    let mut broker = Broker::start(BrokerOptions::default().set("shards", 1));
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    for _ in 0..ROUNDS {
        let request = produce_request(TOPIC, 0, -1, Batch::of(vec![record("key", "in-flight")]).encode());
        let frames: Vec<u8> = (0..IN_FLIGHT as i32).flat_map(|number| frame_of(9, number, None, &request)).collect();
        connection.send_bytes(&frames);
        for number in 0..IN_FLIGHT as i32 {
            let response = connection.receive::<ProduceRequest>(9, number).expect("an answer in its turn");
            assert_eq!(code(response.responses[0].partition_responses[0].error_code), ErrorCode::None);
        }
    }
    broker.kill();
    let dumped = log_command(&["dump", "--print-data-log"], &broker.data().join("corelane-journal-0"));
    let said = text(&dumped.stdout);
    let in_groups: Vec<usize> =
        said.split("\ngroup: ").map(|group| group.matches("payload: in-flight").count()).filter(|count| *count > 0).collect();
    assert_eq!(in_groups.iter().sum::<usize>(), ROUNDS * IN_FLIGHT, "{said}");
    assert!(in_groups.len() * 2 <= ROUNDS * IN_FLIGHT, "records of each group: {in_groups:?}");
}

/// A directory as Kafka formats it by default opens, and one with a share group does not; neither is changed, not even by a start.
fn what_opens_of_a_directory_of_kafka_is_told() {
    for opens in [true, false] {
        let mut broker = Broker::start(BrokerOptions::default().target(places::Target::Kafka));
        let mut connection = Connection::to(&broker);
        connection.create_topic(TOPIC, 2);
        connection.append(TOPIC, 1, vec![record("key", "value")]);
        if !opens {
            join_share_group(&mut connection, "sharers");
        }
        broker.terminate(Duration::from_secs(60));
        let before = tree(broker.data());
        let told = log_command(&["import", "--dry-run"], broker.data());
        let said = text(&told.stdout);
        assert_eq!(told.status.success(), opens, "{said}{}", text(&told.stderr));
        assert!(said.contains(&format!("topic {TOPIC} (")) && said.contains(": 2 of 2 partitions here, "), "{said}");
        assert!(said.contains("stopped cleanly") && said.contains("finalised features: "), "{said}");
        assert_eq!(said.contains("refused: "), !opens, "{said}");
        let reason = "feature share.version is finalised at 2 and group sharers needs it";
        assert_eq!(said.contains(reason), !opens, "{said}");
        assert_eq!(tree(broker.data()), before, "something was changed");
        start_on_a_directory_of_kafka(&broker, opens, reason);
        let is_content = |(path, ..): &(PathBuf, u64, std::time::SystemTime)| path.is_file() && !path.ends_with(".lock");
        let content = |tree: Vec<(PathBuf, u64, std::time::SystemTime)>| tree.into_iter().filter(is_content).collect::<Vec<_>>();
        assert!(opens || content(tree(broker.data())) == content(before), "a start that was refused has changed something");
    }
}

fn join_share_group(connection: &mut Connection, group: &str) {
    connection.wait_for_coordinator(group);
    let request = ShareGroupHeartbeatRequest {
        group_id: Str::from(group),
        member_id: Str::from("AAAAAAAAAAAAAAAAAAAAAQ"),
        subscribed_topic_names: Some(vec![Str::from(TOPIC)]),
        ..Default::default()
    };
    wait::until("the share group", wait::PATIENCE, || (connection.call(1, &request).error_code == 0).then_some(()));
}

fn start_on_a_directory_of_kafka(broker: &Broker, opens: bool, reason: &str) {
    let mut ours = Broker::prepare_on(BrokerOptions::default().target(places::Target::Corelane), broker.data());
    ours.begin();
    if opens {
        wait::until("it to be ready", wait::PATIENCE, || ours.is_ready().then_some(()));
        assert_eq!(Connection::to(&ours).end_offset(TOPIC, 1), 1);
    } else {
        let ended = ours.wait_for_end(wait::PATIENCE);
        assert!(!ended.success() && ours.log().contains(reason), "{ended}: {}", ours.log());
    }
}

/// Every file with its length and time.
fn tree(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = fs::metadata(&path).expect("metadata");
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
        found.push((path, metadata.len(), metadata.modified().expect("a time")));
    }
    found.sort();
    found
}

fn of_kind(directory: &Path, extension: &str) -> Vec<PathBuf> {
    files_of(directory).into_iter().filter(|path| path.extension().is_some_and(|known| known == extension)).collect()
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("a file");
}

fn log_command(arguments: &[&str], path: &Path) -> Output {
    Command::new(places::corelane_binary()).arg("log").args(arguments).arg(path).output().expect("the binary runs")
}

fn verify(directory: &Path) -> Output {
    Command::new(places::corelane_binary()).args(["log", "verify"]).arg(directory).output().expect("the binary runs")
}

/// Those of the files that no line begins with.
fn unnamed<'paths>(output: &Output, paths: &[&'paths PathBuf]) -> Vec<Cow<'paths, str>> {
    let said = text(&output.stdout);
    let is_named = |path: &str| said.lines().any(|line| line.strip_prefix(path).is_some_and(|rest| rest.starts_with(": ")));
    paths.iter().map(|path| path.to_string_lossy()).filter(|path| !is_named(path)).collect()
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
