//! A disk that is really full: a filesystem in a file, mounted for the test, with nothing left. Needs root to mount; elsewhere the cases are left out and say why.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use corelane_wire::messages::create_topics_request::CreatableTopic;
use corelane_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use corelane_wire::messages::delete_topics_request::DeleteTopicState;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::{CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, OffsetCommitRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places;
use harness::raw::{Connection, code, produce_request};
use harness::suite::{OwnBrokerCase, own_broker_trials};
use harness::wait;
use libtest_mimic::Trial;

const CASES: &[OwnBrokerCase] = own_broker_cases![
    producing_is_refused_until_there_is_room,
    a_broker_that_was_killed_on_a_full_disk_starts_there_again,
    placement_that_finds_no_room_goes_on_when_there_is_some,
    topics_are_answered_for_when_disk_and_journal_are_full,
];

const TOPIC: &str = "full";
const GROUP: &str = "full-group";
const DISK_BYTES: u64 = 160 << 20;

/// Metadata of a committed position, in bytes: the most that the protocol's strings take, nearly.
const COMMENT_BYTES: usize = 32_000;

/// A commit that is not answered for so long waits for room.
const SILENCE: Duration = Duration::from_secs(5);

/// More than any answer takes that does not wait for room.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The cases, ignored where a filesystem cannot be mounted.
pub fn trials() -> Vec<Trial> {
    let trials = own_broker_trials("full_disk", CASES);
    match Disk::mount() {
        Ok(_mounted) => trials,
        Err(reason) => {
            println!("the cases of full_disk are not run: {reason}");
            trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect()
        }
    }
}

/// The broker itself sees the end coming: it refuses before a byte is submitted, what was acknowledged stays, and when a topic goes producing goes on.
fn producing_is_refused_until_there_is_room() {
    let disk = Disk::mount().expect("it could be mounted before");
    let broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    connection.create_topic_with("large", 1, &[("file.delete.delay.ms", "100"), ("segment.bytes", "4194304")]);
    let large = fill(&mut connection, "large");
    assert!(large > 20, "{large} batches found room");
    assert_eq!(connection.read_all("large", 0, 0).len(), large);
    assert_eq!(outcome(&mut connection, TOPIC), ErrorCode::KafkaStorageError);

    delete(&mut connection, "large");
    wait::until("producing to go on", Duration::from_secs(60), || outcome(&mut connection, TOPIC).is_none().then_some(()));
    assert!(!broker.log().contains("until a restart"), "{}", broker.log());
}

/// Otherwise nothing could ever be let go of. Everything that was acknowledged is there, and when a topic goes producing goes on.
fn a_broker_that_was_killed_on_a_full_disk_starts_there_again() {
    let disk = Disk::mount().expect("it could be mounted before");
    let mut broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    connection.create_topic_with("large", 1, &[("file.delete.delay.ms", "100"), ("segment.bytes", "4194304")]);
    let large = fill(&mut connection, "large");
    for _ in 0..3 {
        broker.kill();
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_leaders("large", 1);
        assert_eq!(connection.read_all("large", 0, 0).len(), large);
    }
    assert!(broker.log().contains("as good as full"), "{}", broker.log());
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, 1);
    delete(&mut connection, "large");
    wait::until("producing to go on", Duration::from_secs(60), || outcome(&mut connection, TOPIC).is_none().then_some(()));
}

/// Somebody else takes the last block while records still wait in the journal: placement meets the full disk, and asks for no restart.
fn placement_that_finds_no_room_goes_on_when_there_is_some() {
    let disk = Disk::mount().expect("it could be mounted before");
    let mut broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(TOPIC, 1, &[("segment.bytes", "4194304")]);
    connection.create_topic("other", 1);
    connection.append("other", 0, vec![record("k", "v")]);
    // More than a quarter of the ring: placement is at work, and always behind.
    let mut taken = 0;
    for _ in 0..6 {
        connection.append(TOPIC, 0, vec![record("k", vec![b'v'; 900_000])]);
        taken += 1;
    }
    // Whatever of them has its place by now, this has not.
    connection.append("other", 0, vec![record("k", "v")]);
    let filler = disk.take_all();
    let mut refused = 0;
    wait::until("producers to be refused", Duration::from_secs(60), || {
        match outcome_of(&mut connection, TOPIC, 900_000) {
            ErrorCode::None => taken += 1,
            ErrorCode::KafkaStorageError => refused += 1,
            other => panic!("{}", other.name()),
        }
        (refused > 3).then_some(())
    });
    wait::until("placement to find no room", wait::PATIENCE, || broker.log().contains("finds no room in its place").then_some(()));
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), taken);
    let partition = DeleteRecordsPartition { partition_index: 0, offset: 1, ..Default::default() };
    let topic = DeleteRecordsTopic { name: Str::from("other"), partitions: vec![partition], ..Default::default() };
    let deleted = connection.call(2, &DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() });
    assert_eq!(code(deleted.topics[0].partitions[0].error_code), ErrorCode::None);

    std::fs::remove_file(filler).expect("the filler can be removed");
    wait::until("producing to go on", Duration::from_secs(60), || outcome(&mut connection, TOPIC).is_none().then_some(()));
    taken += 1;
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), taken);
    assert!(!broker.log().contains("until a restart"), "{}", broker.log());
    assert!(broker.terminate(Duration::from_secs(60)).success(), "everything has found its place");
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, 1);
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), taken);
}

/// Committed positions, which may have what is left, fill the journal on a full disk. Who asks for a topic then is refused and does not wait, nor does who deletes one behind him; and
/// when that has made room, everything goes on.
fn topics_are_answered_for_when_disk_and_journal_are_full() {
    let disk = Disk::mount().expect("it could be mounted before");
    let broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 16);
    connection.create_topic_with("large", 1, &[("file.delete.delay.ms", "100"), ("segment.bytes", "4194304")]);
    connection.wait_for_coordinator(GROUP);
    for _ in 0..80 {
        connection.append("large", 0, vec![record("k", vec![b'v'; 900_000])]);
    }
    let filler = disk.take_all();
    let taken = commit_until_full(&broker);
    assert!(taken > 3, "{taken} commits were taken");

    connection.stream().set_read_timeout(Some(ANSWER_LIMIT)).expect("above zero");
    assert_eq!(creation(&mut connection, "refused"), ErrorCode::KafkaStorageError);
    assert_eq!(outcome(&mut connection, TOPIC), ErrorCode::KafkaStorageError);
    delete(&mut connection, "large");
    wait::until("topics to be made again", Duration::from_secs(60), || creation(&mut connection, "made").is_none().then_some(()));
    connection.wait_for_leaders("made", 1);
    std::fs::remove_file(filler).expect("the filler can be removed");
    wait::until("producing to go on", Duration::from_secs(60), || outcome(&mut connection, "made").is_none().then_some(()));
    assert!(!broker.log().contains("until a restart"), "{}", broker.log());
}

/// Commits long metadata until it is not taken any more; how often it was.
fn commit_until_full(broker: &Broker) -> usize {
    let mut connection = Connection::to(broker);
    connection.stream().set_read_timeout(Some(SILENCE)).expect("above zero");
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 0,
        committed_metadata: Some(Str::from("v".repeat(COMMENT_BYTES))),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: (0..16).map(partition).collect(), ..Default::default() };
    let request = OffsetCommitRequest { group_id: Str::from(GROUP), topics: vec![topic], ..Default::default() };
    // More than the journal holds, several times.
    for taken in 0..400 {
        match connection.try_call(7, &request) {
            Ok(answer) if answer.topics[0].partitions[0].error_code == 0 => {}
            Ok(_) | Err(_) => return taken,
        }
    }
    panic!("the journal does not become full");
}

fn creation(connection: &mut Connection, name: &str) -> ErrorCode {
    let topic = CreatableTopic { name: Str::from(name), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    code(connection.call(5, &request).topics[0].error_code)
}

fn delete(connection: &mut Connection, name: &str) {
    let names = vec![DeleteTopicState { name: Some(Str::from(name)), ..Default::default() }];
    let deleted = connection.call(6, &DeleteTopicsRequest { topics: names, timeout_ms: 30_000, ..Default::default() });
    assert_eq!(code(deleted.responses[0].error_code), ErrorCode::None);
}

fn start(disk: &Disk) -> Broker {
    let options = BrokerOptions::default().set("journal.bytes", 16 << 20).set("shards", 1).set("log.retention.check.interval.ms", 1_000);
    Broker::start_on(options.set("offset.metadata.max.bytes", COMMENT_BYTES), &disk.path.join("data"))
}

/// Produces until it is refused; the number of batches that were taken.
fn fill(connection: &mut Connection, topic: &str) -> usize {
    for taken in 0.. {
        match outcome_of(connection, topic, 900_000) {
            ErrorCode::None => {}
            ErrorCode::KafkaStorageError => return taken,
            other => panic!("{}", other.name()),
        }
    }
    unreachable!("a disk has an end")
}

fn outcome(connection: &mut Connection, topic: &str) -> ErrorCode {
    outcome_of(connection, topic, 10)
}

fn outcome_of(connection: &mut Connection, topic: &str, value_bytes: usize) -> ErrorCode {
    let records = Batch::of(vec![record("k", vec![b'v'; value_bytes])]).encode();
    code(connection.call(9, &produce_request(topic, 0, -1, records)).responses[0].partition_responses[0].error_code)
}

/// A small ext4 on a loop device.
struct Disk {
    path: PathBuf,
    /// Goes after the filesystem in it.
    _folder: tempfile::TempDir,
}

impl Disk {
    /// An error says why there is none here.
    fn mount() -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting a filesystem is for root".to_string());
        }
        let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let (image, path) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("an image");
        std::fs::create_dir(&path).expect("a folder");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))?;
        Ok(Disk { path, _folder: folder })
    }

    /// Leaves no block to others.
    fn take_all(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let file = File::create(&filler).expect("a file");
        let mut bytes = 64 << 20;
        let mut length = 0;
        while bytes >= 1024 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, bytes) {
                Ok(()) => length += bytes,
                Err(_) => bytes /= 2,
            }
        }
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The broker has ended before: it was made after the disk.
        let _still_mounted = run(Command::new("umount").arg("-l").arg(&self.path));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}
