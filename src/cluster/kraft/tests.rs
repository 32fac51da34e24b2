//! Logs and snapshots written by Kafka 4.4.0 are read, ours are written as Kafka writes them, and damage is named.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::cluster::METADATA_VERSION_LATEST;
use crate::cluster::decide::start::{Registration, abort_record, bootstrap_records, registration_records};
use crate::cluster::image::{Image, NO_LEADER};
use crate::cluster::record::MetadataRecord;
use crate::wire::Str;
use crate::wire::batch::{BatchIterator, set_base_offset};
use crate::wire::records::{BeginTransactionRecord, EndTransactionRecord, TopicRecord};

use super::batches::{BatchPlace, LogRecord, control_batch, metadata_batch, read_batch};
use super::control::{ControlRecord, Voter, VoterEndpoint};
use super::replay::{Replay, ReplayError, Replayed};
use super::snapshot::{QuorumFacts, SnapshotContent, SnapshotError, SnapshotId, bootstrap_snapshot, read_snapshot, snapshot_batches};

const FORMATTED: &[u8] = include_bytes!("testdata/formatted.checkpoint");
const STANDALONE_LOG: &[u8] = include_bytes!("testdata/standalone.log");
const STANDALONE_SNAPSHOT: &[u8] = include_bytes!("testdata/standalone-43-1.checkpoint");

fn replay_log(log: &'static [u8]) -> Replayed {
    let mut replay = Replay::from_start();
    replay.read(Bytes::from_static(log)).expect("the log is read");
    replay.finish().expect("the log is whole")
}

/// What the formatter leaves: its records in order, and our encoding of the same content gives the same bytes but for times and checksums.
#[test]
fn the_formatters_snapshot_is_read_and_written() {
    let content = read_snapshot(Bytes::from_static(FORMATTED)).expect("read");
    let names: Vec<String> = content
        .records
        .iter()
        .map(|record| match record {
            MetadataRecord::FeatureLevel(record) => format!("{}={}", record.name, record.feature_level),
            other => other.name().to_owned(),
        })
        .collect();
    let expected = [
        "metadata.version=33",
        "eligible.leader.replicas.version=1",
        "group.version=1",
        "share.version=2",
        "streams.version=1",
        "transaction.version=2",
    ];
    assert_eq!(names, expected);
    assert_eq!(content.facts, QuorumFacts::default());
    let ours = bootstrap_snapshot(&content.records, METADATA_VERSION_LATEST, &content.facts, 1).expect("written");
    assert_eq!(ours.len(), FORMATTED.len());
    let kinds = |bytes: Bytes| -> Vec<_> {
        BatchIterator::new(bytes)
            .map(|batch| {
                let (header, batch) = batch.expect("a batch");
                let records = read_batch(&header, &batch).expect("readable").into_iter().map(|(offset, record)| match record {
                    LogRecord::Control(ControlRecord::SnapshotHeader { .. }) => (offset, None),
                    other => (offset, Some(other)),
                });
                (header.attributes, header.partition_leader_epoch, header.producer_id, header.base_sequence, records.collect::<Vec<_>>())
            })
            .collect()
    };
    assert_eq!(kinds(ours), kinds(Bytes::from_static(FORMATTED)));
}

/// Two lives of a Kafka node, read from the first record on: the topic that was made, grown, altered, and handed back at the second stop.
#[test]
fn kafkas_log_is_read() {
    let replayed = replay_log(STANDALONE_LOG);
    assert_eq!((replayed.end_offset, replayed.epoch, replayed.transaction_is_open), (61, 2, false));
    assert_eq!(replayed.facts.kraft_version, 1);
    let voters = replayed.facts.voters.expect("named in the log");
    assert_eq!((voters.len(), voters[0].id, voters[0].kraft_versions), (1, 1, (0, 1)));
    let image = replayed.image;
    assert_eq!((image.offset(), image.epoch()), (60, 2));
    assert_eq!(image.features().collect::<Vec<_>>(), [("eligible.leader.replicas.version", 1), ("metadata.version", 33)]);
    assert_eq!(image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["alpha"]);
    let alpha = image.topic("alpha").expect("made");
    assert_eq!(alpha.partition_count(), 4);
    for partition in &alpha.partitions {
        assert_eq!((partition.leader, partition.leader_epoch), (NO_LEADER, 3));
        assert_eq!((&partition.isr[..], &partition.eligible_leader_replicas[..]), (&[][..], &[1][..]));
        assert_eq!(partition.directories[..], [voters[0].directory_id]);
    }
    assert_eq!(image.topic_overrides("alpha").collect::<Vec<_>>(), [("retention.ms", "777")]);
    let broker = image.broker(1).expect("registered");
    assert_eq!((broker.fenced, broker.in_controlled_shutdown, broker.epoch), (true, true, 46));
    assert_eq!(broker.endpoint("PLAINTEXT").expect("named").port, 29192);
}

/// Kafka's snapshot and the rest of the log give the same picture as the whole log.
#[test]
fn kafkas_snapshot_stands_for_the_log_before_it() {
    let id = SnapshotId::from_file_name("00000000000000000043-0000000001.checkpoint").expect("a snapshot's name");
    let content = read_snapshot(Bytes::from_static(STANDALONE_SNAPSHOT)).expect("read");
    let mut replay = Replay::from_snapshot(id, content).expect("applied");
    assert_eq!(replay.next_offset(), 43);
    replay.read(Bytes::from_static(STANDALONE_LOG)).expect("the log is read");
    let from_snapshot = replay.finish().expect("whole");
    let whole = replay_log(STANDALONE_LOG);
    assert_eq!(from_snapshot.image, whole.image);
    assert_eq!(from_snapshot.facts, whole.facts);
    assert_eq!((from_snapshot.end_offset, from_snapshot.epoch), (whole.end_offset, whole.epoch));
}

/// Our snapshot of a picture reads back as that picture, in more than one batch.
#[test]
fn our_snapshots_are_read() {
    let mut image = replay_log(STANDALONE_LOG).image;
    for number in 0..1500u128 {
        let topic_id = Uuid::from_u128(1000 + number);
        let topic = TopicRecord { name: Str::from(format!("topic{number}")), topic_id, ..Default::default() };
        image.apply(&topic.into()).expect("applies");
        let partition = image.topic("alpha").expect("there").partitions[0].to_record(topic_id, 0, METADATA_VERSION_LATEST);
        image.apply(&partition.into()).expect("applies");
    }
    let voter = Voter {
        id: 1,
        directory_id: Uuid::from_u128(9),
        endpoints: vec![VoterEndpoint { name: Str::from("CONTROLLER"), host: Str::from("h"), port: 1 }],
        kraft_versions: (0, 1),
    };
    let facts = QuorumFacts { kraft_version: 1, voters: Some(vec![voter]) };
    let batches: Vec<Bytes> = snapshot_batches(&image, 2, &facts, 77, 78).collect::<Result<_, _>>().expect("written");
    assert_eq!(batches.len(), 5, "header, three times up to 1024 records, footer");
    let id = SnapshotId { end_offset: 61, epoch: 2 };
    let content = read_snapshot(Bytes::from(batches.concat())).expect("read");
    assert_eq!((content.last_contained_timestamp_ms, &content.facts), (77, &facts));
    let replayed = Replay::from_snapshot(id, content).and_then(Replay::finish).expect("whole");
    assert_eq!(replayed.image, image);
}

/// A snapshot without its footer, without its header, or with a flipped bit is not used.
#[test]
fn damaged_snapshots_are_refused() {
    let whole = Bytes::from_static(STANDALONE_SNAPSHOT);
    let batches: Vec<Bytes> = BatchIterator::new(whole.clone()).map(|batch| batch.expect("a batch").1).collect();
    let footer_bytes = batches.last().expect("a footer").len();
    assert_eq!(read_snapshot(whole.slice(..whole.len() - footer_bytes)), Err(SnapshotError::NoFooter));
    assert_eq!(read_snapshot(Bytes::new()), Err(SnapshotError::NoHeader));
    assert_eq!(read_snapshot(batches[1].clone()), Err(SnapshotError::NoHeader));
    assert!(matches!(read_snapshot(whole.slice(..whole.len() - 1)), Err(SnapshotError::Unreadable { .. })));
    let mut flipped = BytesMut::from(&whole[..]);
    flipped[300] ^= 1;
    assert!(matches!(read_snapshot(flipped.freeze()), Err(SnapshotError::Unreadable { position: 166, .. })));
    let behind = [&whole[..], &batches[1][..]].concat();
    assert_eq!(read_snapshot(Bytes::from(behind)), Err(SnapshotError::BehindFooter { position: whole.len() as u64 }));
}

#[test]
fn snapshot_names() {
    let id = SnapshotId { end_offset: 43, epoch: 1 };
    assert_eq!(id.file_name(), "00000000000000000043-0000000001.checkpoint");
    assert_eq!(SnapshotId::from_file_name(&id.file_name()), Some(id));
    for other in ["00000000000000000043.log", "43-1.checkpoint", &id.partial_file_name(), "0000000000000000004x-0000000001.checkpoint"] {
        assert_eq!(SnapshotId::from_file_name(other), None, "{other}");
    }
}

fn place(base_offset: i64, epoch: i32) -> BatchPlace {
    BatchPlace { base_offset, epoch, timestamp_ms: 1 }
}

fn batch(base_offset: i64, epoch: i32, records: &[MetadataRecord]) -> Bytes {
    metadata_batch(records, METADATA_VERSION_LATEST, place(base_offset, epoch)).expect("encodes")
}

fn begin() -> MetadataRecord {
    BeginTransactionRecord::default().into()
}

fn end() -> MetadataRecord {
    EndTransactionRecord::default().into()
}

fn topic(name: &str, id: u128) -> Vec<MetadataRecord> {
    let topic_id = Uuid::from_u128(id);
    let partition =
        crate::wire::records::PartitionRecord { topic_id, partition_id: 0, leader_epoch: 0, partition_epoch: 0, ..Default::default() };
    vec![TopicRecord { name: Str::from(name), topic_id, ..Default::default() }.into(), partition.into()]
}

/// The leader change is Kafka's, byte for byte: the first batch of a log, taken apart and put together again.
#[test]
fn the_leader_change_is_kafkas() {
    let (header, theirs) = BatchIterator::new(Bytes::from_static(STANDALONE_LOG))
        .find_map(|batch| batch.ok().filter(|(header, _)| header.base_offset == 43))
        .expect("the second life's first batch");
    let change = ControlRecord::LeaderChange { leader_id: 1, voters: vec![1], granting_voters: vec![1] };
    let ours = control_batch(&[change], BatchPlace { base_offset: 43, epoch: 2, timestamp_ms: header.max_timestamp }).expect("encodes");
    assert_eq!(ours, theirs);
}

/// Records of a transaction count from its end on; an aborted or open one leaves the picture as it was.
#[test]
fn transactions_are_all_or_nothing() {
    let mut replay = Replay::from_start();
    replay.read(batch(0, 1, &[vec![begin()], topic("a", 1), vec![end(), begin()], topic("b", 2)].concat())).expect("read");
    replay.read(batch(7, 1, &[abort_record()])).expect("read");
    replay.read(batch(8, 2, &[vec![begin()], topic("c", 3)].concat())).expect("read");
    let replayed = replay.finish().expect("whole");
    assert!(replayed.transaction_is_open);
    assert_eq!(replayed.image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(), ["a"]);
    assert_eq!((replayed.end_offset, replayed.epoch, replayed.image.offset()), (11, 2, 10));
}

/// What does not follow is named with its offset.
#[test]
fn damaged_logs_are_refused() {
    let read = |batches: &[Bytes]| {
        let mut replay = Replay::from_start();
        replay.read(Bytes::from(batches.concat())).and_then(|()| replay.finish().map(drop))
    };
    let first = || batch(0, 2, &topic("a", 1));
    assert_eq!(read(&[first(), batch(3, 2, &topic("b", 2))]), Err(ReplayError::Gap { expected: 2, found: 3 }));
    assert_eq!(read(&[first(), batch(2, 1, &topic("b", 2))]), Err(ReplayError::EpochFell { offset: 2, from: 2, to: 1 }));
    let again = read(&[first(), batch(2, 2, &topic("a", 1))]);
    assert!(matches!(again, Err(ReplayError::DoesNotFit { offset: 2, record: "TopicRecord", .. })), "{again:?}");
    let mut flipped = BytesMut::from(&first()[..]);
    flipped[70] ^= 1;
    assert!(matches!(read(&[flipped.freeze()]), Err(ReplayError::Unreadable { offset: 0, .. })));
    assert_eq!(read(&[batch(0, 1, &[end()])]), Err(ReplayError::Transaction { offset: 0, what: "ends without a beginning" }));
    assert_eq!(read(&[batch(0, 1, &topic("a", 1)[..1])]), Ok(()), "a topic without partitions is refused where it is served");
    let mut moved = BytesMut::from(&first()[..]);
    set_base_offset(&mut moved, 1);
    assert_eq!(read(&[moved.freeze()]), Err(ReplayError::Gap { expected: 0, found: 1 }));
}

/// A first start of ours, written into a log and read again, is the picture that the start had.
#[test]
fn a_first_start_reads_back() {
    let registration = Registration {
        node_id: 1,
        incarnation_id: Uuid::from_u128(5),
        endpoints: Vec::new(),
        controller_endpoints: Vec::new(),
        rack: None,
        directories: vec![Uuid::from_u128(0xd1)],
    };
    let change = ControlRecord::LeaderChange { leader_id: 1, voters: vec![1], granting_voters: vec![1] };
    let bootstrap = bootstrap_records(&[], 1);
    let mut image = Image::empty();
    bootstrap.iter().for_each(|record| image.apply(record).expect("applies"));
    let next_offset = 1 + bootstrap.len() as i64;
    let registered = registration_records(&image, &registration, next_offset);
    registered.iter().for_each(|record| image.apply(record).expect("applies"));
    image.advance(next_offset + registered.len() as i64 - 1, 1);

    let mut replay = Replay::from_start();
    replay.read(control_batch(&[change], place(0, 1)).expect("encodes")).expect("read");
    replay.read(batch(1, 1, &bootstrap)).expect("read");
    replay.read(batch(next_offset, 1, &registered)).expect("read");
    assert_eq!(replay.finish().expect("whole").image, image);
    let nothing = Replay::from_snapshot(SnapshotId::BOOTSTRAP, SnapshotContent { records: bootstrap, ..Default::default() });
    assert_eq!(nothing.and_then(Replay::finish).expect("whole").image, Image::empty(), "the formatter's records are not in the log yet");
}
