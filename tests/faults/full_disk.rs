//! A disk that is really full: a filesystem in a file, mounted for the test, with nothing left. Needs root to mount; elsewhere the cases are left out and say why.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use corelane_wire::messages::create_topics_request::CreatableTopic;
use corelane_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use corelane_wire::messages::delete_topics_request::DeleteTopicState;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FindCoordinatorRequest, InitProducerIdRequest, OffsetCommitRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, Record, record};
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
    a_disk_that_stays_full_does_not_fill_the_journal,
    a_full_directory_holds_back_nothing_of_the_others,
    a_failed_directory_stops_its_own_partitions_alone,
    a_failed_journal_refuses_records_and_ends_nothing,
    topics_are_answered_for_when_disk_and_journal_are_full,
];

const TOPIC: &str = "full";
const GROUP: &str = "full-group";
const DISK_BYTES: u64 = 160 << 20;
/// No XFS is smaller.
const XFS_BYTES_MIN: u64 = 300 << 20;

/// Metadata of a committed position, in bytes: the most that the protocol's strings take, nearly.
const COMMENT_BYTES: usize = 32_000;

/// More than any answer takes, whether there is room or not.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Partitions whose half-filled blocks, kept once more at each try, would use up the journal's reserve in two seconds.
const MANY_PARTITIONS: i32 = 64;

/// Batches of 900 kB that go round the ring several times.
const LAPS: usize = 70;

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
    goes_on(&broker, &mut connection, TOPIC, 0);
}

/// Otherwise nothing could ever be let go of. Everything that was acknowledged is there, and when a topic goes producing goes on.
fn a_broker_that_was_killed_on_a_full_disk_starts_there_again() {
    let disk = Disk::mount().expect("it could be mounted before");
    let mut broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    connection.create_topic_with("large", 1, &[("file.delete.delay.ms", "100"), ("segment.bytes", "4194304")]);
    // Producers that come fast are refused for a moment while there is some room left.
    let mut large = 0;
    while disk.free_bytes() >= 30 << 20 {
        large += fill(&mut connection, "large");
    }
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
    delete_first_records(&mut connection, "other", 1);

    std::fs::remove_file(filler).expect("the filler can be removed");
    goes_on(&broker, &mut connection, TOPIC, 0);
    taken += 1;
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), taken);
    assert!(broker.terminate(Duration::from_secs(60)).success(), "everything has found its place");
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, 1);
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), taken);
}

/// Every partition's placement meets the full disk again and again. The journal's reserve stays what it is: records can still be deleted after a while, and with room everything is
/// placed.
fn a_disk_that_stays_full_does_not_fill_the_journal() {
    let disk = Disk::mount().expect("it could be mounted before");
    // On another disk, so that there always is room for checkpoints, and small.
    let journal = disk.beside();
    let options = BrokerOptions::default().set("journal.bytes", 4 << 20).set("journal.dir", journal.display()).set("shards", 1);
    let mut broker = Broker::start_on(options, &disk.path.join("data"));
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, MANY_PARTITIONS);
    let small = || vec![record("k", vec![b'v'; 3_000])];
    for partition in 0..MANY_PARTITIONS {
        connection.append(TOPIC, partition, small());
    }
    let segment = |partition: i32| disk.path.join(format!("data/{TOPIC}-{partition}/00000000000000000000.log"));
    let is_placed = |partition| std::fs::metadata(segment(partition)).is_ok_and(|file| file.len() >= 3_000);
    wait::until("the first records to be in their places", Duration::from_secs(60), || (0..MANY_PARTITIONS).all(is_placed).then_some(()));
    // The next ones begin in a block that is there, and end in one that is not.
    for partition in 0..MANY_PARTITIONS {
        connection.append(TOPIC, partition, small());
    }
    let filler = disk.take_all();
    wait::until("placement to find no room", wait::PATIENCE, || broker.log().contains("finds no room in its place").then_some(()));
    // Long enough for dozens of its tries; eight of them would have used up the reserve.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        assert_eq!(outcome(&mut connection, TOPIC), ErrorCode::KafkaStorageError);
        std::thread::sleep(Duration::from_millis(100));
    }
    connection.stream().set_read_timeout(Some(ANSWER_LIMIT)).expect("above zero");
    delete_first_records(&mut connection, TOPIC, MANY_PARTITIONS);

    std::fs::remove_file(filler).expect("the filler can be removed");
    goes_on(&broker, &mut connection, TOPIC, 0);
    assert!(broker.terminate(Duration::from_secs(60)).success(), "everything has found its place");
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, MANY_PARTITIONS);
    for partition in 1..MANY_PARTITIONS {
        assert_eq!(connection.read_all(TOPIC, partition, 1).len(), 1, "partition {partition}");
    }
}

/// One of two directories is full while records wait for it. The other's partitions fill the ring several times over and new ones are made there, as if it were alone; what waits finds its
/// place when there is room.
fn a_full_directory_holds_back_nothing_of_the_others() {
    let disk = Disk::mount().expect("it could be mounted before");
    let Spread { mut broker, mut connection, on_disk, beside } = spread(&disk);
    let mut taken = 3;
    let filler = disk.take_all();
    for _ in 0..LAPS {
        connection.append(TOPIC, beside, large_record());
    }
    assert!(broker.log().contains("finds no room in its place"), "{}", broker.log());
    wait::until("producing to the full directory to be refused", wait::PATIENCE, || {
        let outcome = outcome_in(&mut connection, TOPIC, on_disk, 10);
        taken += usize::from(outcome.is_none());
        (outcome == ErrorCode::KafkaStorageError).then_some(())
    });
    connection.create_topic("elsewhere", 4);
    for partition in 0..4 {
        assert!(!disk.path.join(format!("elsewhere-{partition}")).exists(), "a new partition on the full disk");
        connection.append("elsewhere", partition, vec![record("k", "v")]);
    }
    assert_eq!(connection.read_all(TOPIC, on_disk, 0).len(), taken, "reads go on");

    std::fs::remove_file(filler).expect("the filler can be removed");
    goes_on(&broker, &mut connection, TOPIC, on_disk);
    taken += 1;
    assert!(broker.terminate(Duration::from_secs(60)).success(), "everything has found its place");
    broker.restart();
    check_both(&broker, (on_disk, taken), (beside, LAPS));
}

/// The filesystem of one of two directories takes no more writes while records wait for it: the same for the others, and after a restart on the mended one everything is there.
fn a_failed_directory_stops_its_own_partitions_alone() {
    let disk = Disk::mount().expect("it could be mounted before");
    let Spread { mut broker, mut connection, on_disk, beside } = spread(&disk);
    disk.fail();
    for _ in 0..LAPS {
        connection.append(TOPIC, beside, large_record());
    }
    assert_eq!(outcome_in(&mut connection, TOPIC, on_disk, 10), ErrorCode::KafkaStorageError);
    assert_eq!(connection.read_all(TOPIC, on_disk, 0).len(), 3, "what is durable is served from memory");
    connection.create_topic("elsewhere", 4);
    for partition in 0..4 {
        connection.append("elsewhere", partition, vec![record("k", "v")]);
    }
    assert!(!broker.terminate(Duration::from_secs(60)).success(), "something has not found its place");

    disk.mend();
    broker.restart();
    check_both(&broker, (on_disk, 3), (beside, LAPS));
    let mut connection = Connection::to(&broker);
    connection.append(TOPIC, on_disk, large_record());
    assert!(broker.terminate(Duration::from_secs(60)).success());
}

/// The filesystem of the journal has no page for a write any more, which the kernel tells a process by the end of it: producing is refused, what was acknowledged is read, and after a restart on the mended one what was flushed
/// is there.
fn a_failed_journal_refuses_records_and_ends_nothing() {
    const FLUSHED: usize = 20;
    let disk = Disk::mount_as(Filesystem::Xfs).expect("where there is an ext4 there is an XFS");
    let journal = disk.path.join("journal");
    let options = BrokerOptions::default().set("journal.bytes", 16 << 20).set("journal.dir", journal.display()).set("shards", 1);
    let mut broker = Broker::start_on(options, &disk.beside());
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(TOPIC, 1, &[("flush.messages", "1000000")]);
    for _ in 0..FLUSHED {
        connection.append(TOPIC, 0, vec![record("k", "v")]);
    }
    // What is in the page cache is on the disk then: the next store into it has to ask the filesystem.
    run(Command::new("sync").arg("-f").arg(&disk.path)).expect("the filesystem can be flushed");
    disk.fail();
    let mut taken = FLUSHED;
    wait::until("producing to be refused", wait::PATIENCE, || {
        let outcome = outcome(&mut connection, TOPIC);
        taken += usize::from(outcome.is_none());
        (outcome == ErrorCode::KafkaStorageError).then_some(())
    });
    assert_eq!(connection.read_all(TOPIC, 0, 0).len(), taken);
    assert!(!broker.terminate(Duration::from_secs(60)).success(), "what the journal holds has not found its place");

    disk.mend();
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, 1);
    assert!(connection.read_all(TOPIC, 0, 0).len() >= FLUSHED);
    connection.append(TOPIC, 0, large_record());
    assert!(broker.terminate(Duration::from_secs(60)).success());
}

/// A broker with two directories, and the topic's two partitions, one in each. Three large records are in the one on the disk.
struct Spread {
    broker: Broker,
    connection: Connection,
    on_disk: i32,
    beside: i32,
}

fn spread(disk: &Disk) -> Spread {
    let broker = start_beside(disk);
    let mut connection = Connection::to(&broker);
    // The metadata log is in the first directory: now there is one in each.
    connection.create_topic("first", 1);
    connection.create_topic(TOPIC, 2);
    let is_on_disk = |partition: &i32| disk.path.join(format!("{TOPIC}-{partition}")).exists();
    let on_disk = (0..2).find(is_on_disk).expect("new partitions are spread over the directories");
    assert!(!is_on_disk(&(1 - on_disk)), "one of them each");
    for _ in 0..3 {
        connection.append(TOPIC, on_disk, large_record());
    }
    Spread { broker, connection, on_disk, beside: 1 - on_disk }
}

fn check_both(broker: &Broker, left: (i32, usize), right: (i32, usize)) {
    let mut connection = Connection::to(broker);
    connection.wait_for_leaders(TOPIC, 2);
    for (partition, records) in [left, right] {
        assert_eq!(connection.read_all(TOPIC, partition, 0).len(), records, "partition {partition}");
    }
}

/// Committed positions, which may have what is left, fill the journal on a full disk. From then on coordinators answer that they are not available, which clients ask again; who asks for a topic is
/// refused and does not wait, nor does who deletes one behind him; and when that has made room, everything goes on.
fn topics_are_answered_for_when_disk_and_journal_are_full() {
    let disk = Disk::mount().expect("it could be mounted before");
    let broker = start(&disk);
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 16);
    connection.create_topic_with("large", 1, &[("file.delete.delay.ms", "100"), ("segment.bytes", "4194304")]);
    connection.wait_for_coordinator(GROUP);
    wait::until("a transaction coordinator", wait::PATIENCE, || initialised(&mut connection).is_none().then_some(()));
    let (records, record_bytes) = (80, 900_000);
    for _ in 0..records {
        connection.append("large", 0, vec![record("k", vec![b'v'; record_bytes])]);
    }
    // What is not placed by then would keep its room in the journal, and leave little of it for commits.
    wait::until("the records to be in their files", wait::PATIENCE, || {
        (bytes_of_logs(&broker.data().join("large-0")) >= (records * record_bytes) as u64).then_some(())
    });
    let filler = disk.take_all();
    let taken = commit_until_full(&broker);
    println!("{taken} commits were taken");
    assert!(taken > 3, "{taken} commits were taken");

    connection.stream().set_read_timeout(Some(ANSWER_LIMIT)).expect("above zero");
    // What is too little for a commit is enough for many of these.
    wait::until("the last of the room to be taken", Duration::from_secs(60), || {
        let outcome = initialised(&mut connection);
        assert!(matches!(outcome, ErrorCode::None | ErrorCode::CoordinatorNotAvailable), "{}", outcome.name());
        (!outcome.is_none()).then_some(())
    });
    assert_eq!(creation(&mut connection, "refused"), ErrorCode::KafkaStorageError);
    assert_eq!(outcome(&mut connection, TOPIC), ErrorCode::KafkaStorageError);
    delete(&mut connection, "large");
    wait::until("topics to be made again", Duration::from_secs(60), || creation(&mut connection, "made").is_none().then_some(()));
    connection.wait_for_leaders("made", 1);
    std::fs::remove_file(filler).expect("the filler can be removed");
    goes_on(&broker, &mut connection, "made", 0);
    assert_eq!(commit(&mut connection), ErrorCode::None);
    assert_eq!(initialised(&mut connection), ErrorCode::None);
}

fn bytes_of_logs(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a partition's directory").map(|entry| entry.expect("an entry"));
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.map(|log| log.metadata().expect("a file of a log").len()).sum()
}

/// Commits long metadata until it is not taken any more; how often it was.
fn commit_until_full(broker: &Broker) -> usize {
    let mut connection = Connection::to(broker);
    connection.stream().set_read_timeout(Some(ANSWER_LIMIT)).expect("above zero");
    // More than the journal holds, several times.
    for taken in 0..400 {
        match commit(&mut connection) {
            ErrorCode::None => {}
            ErrorCode::CoordinatorNotAvailable => return taken,
            other => panic!("{}", other.name()),
        }
    }
    panic!("the journal does not become full");
}

fn commit(connection: &mut Connection) -> ErrorCode {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 0,
        committed_metadata: Some(Str::from("v".repeat(COMMENT_BYTES))),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: (0..16).map(partition).collect(), ..Default::default() };
    let request = OffsetCommitRequest { group_id: Str::from(GROUP), topics: vec![topic], ..Default::default() };
    code(connection.call(7, &request).topics[0].partitions[0].error_code)
}

/// Asks for the producer id of a transactional id, a new epoch of which the coordinator has to note down.
fn initialised(connection: &mut Connection) -> ErrorCode {
    let id = Str::from("full-transactions");
    connection.call(2, &FindCoordinatorRequest { key: id.clone(), key_type: 1, ..Default::default() });
    let request = InitProducerIdRequest {
        transactional_id: Some(id),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    code(connection.call(4, &request).error_code)
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

/// As `start`, with the disk as the second of two data directories; the journal is in the first.
fn start_beside(disk: &Disk) -> Broker {
    let options = BrokerOptions { more_directories: 1, ..BrokerOptions::default() };
    Broker::start_on(options.set("journal.bytes", 16 << 20).set("shards", 1), &disk.beside())
}

/// There is room again: producing goes on, and nothing asks for a restart.
fn goes_on(broker: &Broker, connection: &mut Connection, topic: &str, partition: i32) {
    let is_taken = || outcome_in(connection, topic, partition, 10).is_none().then_some(());
    wait::until("producing to go on", Duration::from_secs(60), is_taken);
    assert!(!broker.log().contains("until a restart"), "{}", broker.log());
}

/// Deletes the first record of each partition.
fn delete_first_records(connection: &mut Connection, topic: &str, partitions: i32) {
    let partition = |partition_index| DeleteRecordsPartition { partition_index, offset: 1, ..Default::default() };
    let topic = DeleteRecordsTopic { name: Str::from(topic), partitions: (0..partitions).map(partition).collect(), ..Default::default() };
    let deleted = connection.call(2, &DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() });
    assert!(deleted.topics[0].partitions.iter().all(|partition| partition.error_code == 0), "{deleted:?}");
}

fn large_record() -> Vec<Record> {
    vec![record("k", vec![b'v'; 900_000])]
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
    outcome_in(connection, topic, 0, value_bytes)
}

fn outcome_in(connection: &mut Connection, topic: &str, partition: i32, value_bytes: usize) -> ErrorCode {
    let records = Batch::of(vec![record("k", vec![b'v'; value_bytes])]).encode();
    code(connection.call(9, &produce_request(topic, partition, -1, records)).responses[0].partition_responses[0].error_code)
}

/// A small filesystem on a loop device.
struct Disk {
    filesystem: Filesystem,
    path: PathBuf,
    /// Goes after the filesystem in it.
    folder: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Filesystem {
    Ext4,
    Xfs,
}

impl Disk {
    /// An ext4; an error says why there is none here.
    fn mount() -> Result<Disk, String> {
        Disk::mount_as(Filesystem::Ext4)
    }

    fn mount_as(filesystem: Filesystem) -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting a filesystem is for root".to_string());
        }
        let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let (image, path) = (folder.path().join("image"), folder.path().join("data-1"));
        let size_bytes = if filesystem == Filesystem::Ext4 { DISK_BYTES } else { XFS_BYTES_MIN };
        File::create(&image).and_then(|file| file.set_len(size_bytes)).expect("an image");
        std::fs::create_dir(&path).expect("a folder");
        match filesystem {
            Filesystem::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?,
            Filesystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&image))?,
        }
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))?;
        Ok(Disk { filesystem, path, folder })
    }

    /// A data directory on the machine's own filesystem, to which this disk is the second.
    fn beside(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// From now on every write fails, as ext4 has it when it has lost its journal; in XFS every access does.
    fn fail(&self) {
        let failed = match self.filesystem {
            Filesystem::Ext4 => run(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.path)),
            Filesystem::Xfs => run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.path)),
        };
        failed.expect("the filesystem can be made to fail");
    }

    /// What was flushed is there again. Nobody uses the disk at present.
    fn mend(&self) {
        let image = self.folder.path().join("image");
        run(Command::new("umount").arg(&self.path)).expect("nobody uses the disk");
        // XFS mends itself when it is mounted.
        if self.filesystem == Filesystem::Ext4 {
            // Says by its exit code that it has mended something.
            let _has_mended = run(Command::new("e2fsck").args(["-f", "-y"]).arg(&image));
        }
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&self.path)).expect("the disk can be mounted");
    }

    fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.path).expect("it is mounted");
        space.f_bavail * space.f_frsize
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
