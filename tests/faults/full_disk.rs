//! A disk that is really full: a filesystem in a file, mounted for the test, with nothing left. Needs root to mount; elsewhere the cases say so and pass.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use corelane_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use corelane_wire::messages::delete_topics_request::DeleteTopicState;
use corelane_wire::messages::{DeleteRecordsRequest, DeleteTopicsRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places;
use harness::raw::{Connection, code, produce_request};
use harness::suite::OwnBrokerCase;
use harness::wait;

pub const CASES: &[OwnBrokerCase] =
    own_broker_cases![producing_is_refused_until_there_is_room, placement_that_finds_no_room_goes_on_when_there_is_some];

const TOPIC: &str = "full";
const DISK_BYTES: u64 = 160 << 20;

/// The broker itself sees the end coming: it refuses before a byte is submitted, what was acknowledged stays, and when a topic goes producing goes on.
fn producing_is_refused_until_there_is_room() {
    let Some(disk) = Disk::mounted() else { return };
    let broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    connection.create_topic_with("large", 1, &[("file.delete.delay.ms", "100"), ("segment.bytes", "4194304")]);
    let large = fill(&mut connection, "large");
    assert!(large > 20, "{large} batches found room");
    assert_eq!(connection.read_all("large", 0, 0).len(), large);
    assert_eq!(outcome(&mut connection, TOPIC), ErrorCode::KafkaStorageError);

    let names = vec![DeleteTopicState { name: Some(Str::from("large")), ..Default::default() }];
    let deleted = connection.call(6, &DeleteTopicsRequest { topics: names, timeout_ms: 30_000, ..Default::default() });
    assert_eq!(code(deleted.responses[0].error_code), ErrorCode::None);
    wait::until("producing to go on", Duration::from_secs(60), || outcome(&mut connection, TOPIC).is_none().then_some(()));
    assert!(!broker.log().contains("until a restart"), "{}", broker.log());
}

/// Somebody else takes the last block while records still wait in the journal: placement meets the full disk, and asks for no restart.
fn placement_that_finds_no_room_goes_on_when_there_is_some() {
    let Some(disk) = Disk::mounted() else { return };
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
    // Placement has had its tries by now.
    std::thread::sleep(Duration::from_secs(1));
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

fn start(disk: &Disk) -> Broker {
    let options = BrokerOptions::default().set("journal.bytes", 16 << 20).set("shards", 1).set("log.retention.check.interval.ms", 1_000);
    Broker::start_on(options, &disk.path.join("data"))
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
    fn mounted() -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            println!("left out: mounting a filesystem needs root");
            return None;
        }
        let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let (image, path) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("an image");
        std::fs::create_dir(&path).expect("a folder");
        let done = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
        if !done {
            println!("left out: a filesystem cannot be mounted here");
            return None;
        }
        Some(Disk { path, _folder: folder })
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
        run(Command::new("umount").arg("-l").arg(&self.path));
    }
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
