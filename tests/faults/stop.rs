//! What asks a broker to end, and what the next start finds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelane_wire::Str;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::{OffsetCommitRequest, OffsetFetchRequest};
use harness::batch::{Batch, Codec, Record, record};
use harness::broker::{Broker, BrokerOptions, free_port};
use harness::own_broker_cases;
use harness::places::{self, Target};
use harness::raw::{Connection, code};
use harness::samples;
use harness::suite::OwnBrokerCase;
use harness::wait;
use rustix::process::Signal;
use signal_hook::consts::SIGHUP;
use signal_hook::flag::register_conditional_default;

use crate::process::{Process, corelane_by};
use crate::writer::{Kind, Progress, StopAtEnd, Writer};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    everything_is_there_after_a_stop,
    every_wish_to_end_is_a_clean_stop,
    who_ignores_a_lost_terminal_goes_on_without_it,
    the_directory_opens_in_apache_kafka,
    stopped_under_load_it_ends_in_time_and_keeps_its_word,
    another_number_of_shards_finds_the_same,
    leader_epochs_rise_with_every_start,
    frozen_and_thawed_it_goes_on,
    many_partitions_stop_in_time,
];

const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Records, topic ids, settings, committed offsets and producer states, after a clean stop.
fn everything_is_there_after_a_stop() {
    let mut broker = Broker::start(BrokerOptions::default());
    let left = Left::behind(&mut Connection::to(&broker));
    assert_eq!(broker.terminate(STOP_LIMIT).code(), Some(stopped_code(&broker)));
    broker.restart();
    left.verify(&mut Connection::to(&broker));
}

/// Somebody at the keyboard, and a terminal that is closed, get what SIGTERM gets.
fn every_wish_to_end_is_a_clean_stop() {
    // Whoever runs the tests may ignore the end of a terminal (nohup), and what is started would inherit that. A handler is not inherited.
    register_conditional_default(SIGHUP, Arc::new(AtomicBool::new(true))).expect("a signal that can be caught");
    let mut broker = Broker::start(BrokerOptions::default());
    let left = Left::behind(&mut Connection::to(&broker));
    for signal in [Signal::INT, Signal::HUP] {
        broker.signal(signal);
        let code = if broker.target() == Target::Kafka { 128 + signal.as_raw() } else { 0 };
        assert_eq!(broker.wait_for_end(STOP_LIMIT).code(), Some(code), "{signal:?}");
        assert!(broker.data().join(".kafka_cleanshutdown").exists(), "{signal:?}");
        broker.restart();
        left.verify(&mut Connection::to(&broker));
    }
}

fn who_ignores_a_lost_terminal_goes_on_without_it() {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let port = free_port();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{port}");
    let mut broker = Process::ready(corelane_by(&["nohup"], folder.path(), &["--data-dir", "data", "--set", &listeners]));
    broker.signal(Signal::HUP);
    let mut connection = Connection::open(([127, 0, 0, 1], port).into()).expect("it listens there");
    connection.create_topic("after-the-terminal", 1);
    assert_eq!(connection.append("after-the-terminal", 0, vec![record("key", "value")]), 0);
    assert!(broker.terminate().success());
}

/// The original, started on the directory that we left, shows the same records and offsets.
fn the_directory_opens_in_apache_kafka() {
    let mut broker = Broker::start(BrokerOptions::default());
    let left = Left::behind(&mut Connection::to(&broker));
    assert_eq!(broker.terminate(STOP_LIMIT).code(), Some(stopped_code(&broker)));
    assert!(has_no_partial_blocks(broker.data()), "every log ends with its last batch");
    let original = Broker::start_on(BrokerOptions::default().target(Target::Kafka), broker.data());
    left.verify(&mut Connection::to(&original));
}

fn stopped_under_load_it_ends_in_time_and_keeps_its_word() {
    let mut broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.create_topic("stop-load", 2);
    let mut writers: Vec<Writer> =
        (0..2).map(|partition| Writer::new("stop-load", partition, Kind::Idempotent, connection.producer_id())).collect();
    let progress = Arc::new(Progress::default());
    let address = broker.address();
    let ended = thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        let _ending = StopAtEnd(&progress.stop);
        for writer in writers.iter_mut() {
            scope.spawn(|| writer.run(address, &progress));
        }
        wait::until("acknowledged batches", wait::PATIENCE, || (progress.acknowledged.load(Ordering::Relaxed) >= 200).then_some(()));
        broker.terminate(STOP_LIMIT)
    });
    assert_eq!(ended.code(), Some(stopped_code(&broker)), "{ended}");
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders("stop-load", 2);
    writers.iter_mut().for_each(|writer| writer.verify(&mut connection));
}

/// A partition's directory names no core: one shard finds what two wrote, and the other way round, also after a kill.
fn another_number_of_shards_finds_the_same() {
    let shards = |count: &str| BrokerOptions { arguments: vec!["--shards".into(), count.into()], ..BrokerOptions::default() };
    let mut two = Broker::start(shards("2"));
    let left = Left::behind(&mut Connection::to(&two));
    two.kill();
    let mut one = Broker::start_on(shards("1"), two.data());
    left.verify(&mut Connection::to(&one));
    one.kill();
    let again = Broker::start_on(shards("2"), two.data());
    left.verify(&mut Connection::to(&again));
}

/// So that a consumer notices a tail that a weaker durability class lost.
fn leader_epochs_rise_with_every_start() {
    let mut broker = Broker::start(BrokerOptions::default());
    Connection::to(&broker).create_topic("epochs", 1);
    let epoch = |broker: &Broker| Connection::to(broker).metadata(9, &["epochs"]).topics[0].partitions[0].leader_epoch;
    let mut last = epoch(&broker);
    for clean in [true, false] {
        if clean {
            broker.terminate(STOP_LIMIT);
        } else {
            broker.kill();
        }
        broker.restart();
        assert!(epoch(&broker) > last, "epoch {} after {last}", epoch(&broker));
        last = epoch(&broker);
    }
}

/// The aim is 10 s at 10,000 partitions, each with a record that has yet to be placed. `CORELANE_TEST_STOP_PARTITIONS` says how many; the bound allows for a machine that others use, and for a
/// binary without optimization.
fn many_partitions_stop_in_time() {
    const PARTITIONS_PER_TOPIC: usize = 100;
    let wanted = std::env::var("CORELANE_TEST_STOP_PARTITIONS").map_or(300, |count| count.parse::<usize>().expect("a number"));
    let mut broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    let topics: Vec<String> = (0..wanted.div_ceil(PARTITIONS_PER_TOPIC)).map(|number| format!("many-{number}")).collect();
    for topic in &topics {
        connection.create_topic(topic, PARTITIONS_PER_TOPIC as i32);
        for partition in 0..PARTITIONS_PER_TOPIC {
            connection.append(topic, partition as i32, vec![record("key", "value")]);
        }
    }
    let begun = Instant::now();
    let ended = broker.terminate(STOP_LIMIT);
    println!("stopped after {:?} with {} partitions", begun.elapsed(), topics.len() * PARTITIONS_PER_TOPIC);
    assert_eq!(ended.code(), Some(stopped_code(&broker)), "{ended}");
    broker.restart();
    let mut connection = Connection::to(&broker);
    for topic in &topics {
        connection.wait_for_leaders(topic, PARTITIONS_PER_TOPIC as i32);
        assert!((0..PARTITIONS_PER_TOPIC as i32).all(|partition| connection.end_offset(topic, partition) == 1), "{topic}");
    }
}

/// A virtual machine that is paused, or a debugger: the clock jumps, and everything goes on.
fn frozen_and_thawed_it_goes_on() {
    let broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.create_topic("frozen", 1);
    let mut writer = Writer::new("frozen", 0, Kind::Idempotent, connection.producer_id());
    let progress = Arc::new(Progress::default());
    let address = broker.address();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        scope.spawn(|| writer.run(address, &progress));
        for round in 1..=5 {
            let enough = progress.acknowledged.load(Ordering::Relaxed) + 50;
            wait::until(&format!("batches before freeze {round}"), wait::PATIENCE, || {
                (progress.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
            });
            broker.signal(Signal::STOP);
            thread::sleep(Duration::from_millis(300));
            broker.signal(Signal::CONT);
        }
        let enough = progress.acknowledged.load(Ordering::Relaxed) + 50;
        wait::until("batches after the last thaw", wait::PATIENCE, || {
            (progress.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        });
    });
    writer.verify(&mut connection);
}

/// A JVM that is terminated ends with the signal's number; we end with success.
fn stopped_code(broker: &Broker) -> i32 {
    match broker.target() {
        Target::Corelane => 0,
        Target::Kafka => 143,
    }
}

/// What a test left in a broker: topics with records in every codec, a setting, an offset, an idempotent producer.
struct Left {
    records: Vec<Record>,
    topic_id: uuid::Uuid,
    producer_id: i64,
}

impl Left {
    const TOPIC: &str = "left-behind";
    const GROUP: &str = "left-behind-group";

    fn behind(connection: &mut Connection) -> Left {
        connection.create_topic_with(Self::TOPIC, 3, &[("segment.bytes", "1048576"), ("retention.ms", "987654321")]);
        let producer_id = connection.producer_id();
        let records = samples::records(200);
        for partition in 0..3 {
            for (index, part) in records.chunks(20).enumerate() {
                let batch =
                    Batch::of(part.to_vec()).codec(Codec::ALL[index % Codec::ALL.len()]).producer(producer_id, 0, index as i32 * 20);
                assert_eq!(connection.produce(Self::TOPIC, partition, &batch).error_code, 0);
            }
        }
        connection.wait_for_coordinator(Self::GROUP);
        let partition = OffsetCommitRequestPartition {
            partition_index: 1,
            committed_offset: 77,
            committed_metadata: Some(Str::from("note")),
            ..Default::default()
        };
        let topic = OffsetCommitRequestTopic { name: Str::from(Self::TOPIC), partitions: vec![partition], ..Default::default() };
        let committed =
            connection.call(7, &OffsetCommitRequest { group_id: Str::from(Self::GROUP), topics: vec![topic], ..Default::default() });
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        Left { records, topic_id: connection.topic_id(Self::TOPIC), producer_id }
    }

    fn verify(&self, connection: &mut Connection) {
        connection.wait_for_leaders(Self::TOPIC, 3);
        assert_eq!(connection.topic_id(Self::TOPIC), self.topic_id);
        for partition in 0..3 {
            let read: Vec<Record> = connection.read_all(Self::TOPIC, partition, 0).into_iter().map(|(_, record)| record).collect();
            samples::assert_same(&read, &self.records);
            let last = self.records.chunks(20).last().expect("records");
            let again = Batch::of(last.to_vec()).producer(self.producer_id, 0, 180);
            let answer = connection.produce(Self::TOPIC, partition, &again);
            assert_eq!((code(answer.error_code).name(), answer.base_offset), ("NONE", 180), "a duplicate from before the stop is known");
        }
        connection.wait_for_coordinator(Self::GROUP);
        let place = OffsetFetchRequestTopic { name: Str::from(Self::TOPIC), partition_indexes: vec![1], ..Default::default() };
        let answer =
            connection.call(5, &OffsetFetchRequest { group_id: Str::from(Self::GROUP), topics: Some(vec![place]), ..Default::default() });
        let found = &answer.topics[0].partitions[0];
        assert_eq!((found.committed_offset, found.metadata.as_deref()), (77, Some("note")));
    }
}

/// A live log may end in zeros up to a block; one that was closed ends with its last batch.
fn has_no_partial_blocks(data: &Path) -> bool {
    let folders =
        std::fs::read_dir(data).expect("a data directory").map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir());
    let mut logs = folders
        .flat_map(|folder| std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>());
    logs.all(|path| {
        if path.extension().is_none_or(|extension| extension != "log") {
            return true;
        }
        let bytes = std::fs::read(&path).expect("a readable log");
        bytes.is_empty() || bytes.iter().rev().take(64).any(|byte| *byte != 0)
    })
}
