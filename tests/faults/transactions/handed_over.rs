//! Directories with a transaction in every state that there is, from one broker's implementation to the other's: what is decided is brought to its end as it was decided, what is open is
//! as open as it was, and nothing else changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use corelane_wire::messages::EndTxnRequest;
use harness::batch::{read_batches, record};
use harness::broker::{Broker, BrokerOptions};
use harness::committed::CommittedReader;
use harness::places::Target;
use harness::raw::Connection;
use harness::wait;

use super::by_hand::{Producer, ends, state_of};

const TOPIC: &str = "every-state";
/// One for each transaction, and so many for those that are decided at the end: the more partitions, the longer they are on their way.
const PARTITIONS: i32 = 20;
const DECIDED: usize = 8;

/// A kill that comes too late to find a decided transaction on its way is not what is to be shown; another broker is killed then.
const ATTEMPTS: usize = 8;

/// As records of `__transaction_state` number them.
const PREPARED: [i8; 2] = [2, 3];

pub fn every_state_of_apache_kafka_opens_in_place() {
    for attempt in 1..=ATTEMPTS {
        let mut original = Broker::start(BrokerOptions::default().target(Target::Kafka));
        let mut open = begin(&original);
        // Decided and answered at the same moment; the kill comes with the first answer.
        let mut decided: Vec<Producer> = (0..DECIDED).map(|number| Producer::new(&original, &format!("decided-{number}"))).collect();
        for (number, producer) in decided.iter_mut().enumerate() {
            (0..PARTITIONS).for_each(|partition| producer.write(12, TOPIC, partition, record("decided", number.to_string())));
        }
        let asked: Vec<i32> = decided
            .iter_mut()
            .enumerate()
            .map(|(number, producer)| {
                let request = producer.end_request(number.is_multiple_of(2));
                producer.connection.send(5, &request).expect("the broker is there")
            })
            .collect();
        decided[0].connection.receive::<EndTxnRequest>(5, asked[0]).expect("an answer");
        original.kill();
        let left = states_left(original.data());
        println!("attempt {attempt}: {left:?}");
        let prepared: Vec<String> = left.iter().filter(|(_, state)| PREPARED.contains(state)).map(|(id, _)| id.clone()).collect();
        let both_kinds = PREPARED.iter().all(|kind| left.values().any(|state| state == kind));
        if !both_kinds && attempt < ATTEMPTS {
            continue;
        }
        assert!(!prepared.is_empty(), "no kill in {ATTEMPTS} came in time");
        let ours = Broker::start_on(BrokerOptions::default().target(Target::Corelane), original.data());
        let mut connection = Connection::to(&ours);
        connection.wait_for_leaders(TOPIC, PARTITIONS);
        for (id, state) in &left {
            let end = match state {
                2 | 4 => "CompleteCommit",
                3 | 5 => "CompleteAbort",
                1 => "Ongoing",
                _ => "Empty",
            };
            wait::until(&format!("{id} to be {end}"), wait::PATIENCE, || {
                (state_of(&mut connection, id).as_deref() == Some(end)).then_some(())
            });
        }
        let committed: Vec<&String> = left.iter().filter(|(_, state)| matches!(state, 2 | 4)).map(|(id, _)| id).collect();
        // Those that were not decided yet are what their producers' next instances find open.
        for number in 0..DECIDED {
            Producer::new(&ours, &format!("decided-{number}"));
        }
        finish(&ours, &mut open);
        for partition in 0..PARTITIONS {
            let found = committed_values(&mut connection, partition, "decided");
            let expected: Vec<String> =
                (0..DECIDED).map(|number| number.to_string()).filter(|number| committed.contains(&&format!("decided-{number}"))).collect();
            assert_eq!(found, expected, "partition {partition}");
        }
        return;
    }
}

pub fn every_state_opens_in_apache_kafka_after_a_clean_stop() {
    let mut ours = Broker::start(BrokerOptions::default().target(Target::Corelane));
    let mut open = begin(&ours);
    ours.terminate(Duration::from_secs(60));
    let left = states_left(ours.data());
    assert_eq!(left, [("aborted", 5), ("committed", 4), ("idle", 0), ("open", 1)].map(|(id, state)| (id.to_string(), state)).into());
    let original = Broker::start_on(BrokerOptions::default().target(Target::Kafka), ours.data());
    let mut connection = Connection::to(&original);
    connection.wait_for_leaders(TOPIC, PARTITIONS);
    for (id, expected) in [("aborted", "CompleteAbort"), ("committed", "CompleteCommit"), ("idle", "Empty"), ("open", "Ongoing")] {
        wait::until(&format!("{id} to be {expected}"), wait::PATIENCE, || {
            (state_of(&mut connection, id).as_deref() == Some(expected)).then_some(())
        });
    }
    finish(&original, &mut open);
}

/// Leaves an idle id, a committed transaction, an aborted one and one that is open; the latter's producer.
fn begin(broker: &Broker) -> Producer {
    Connection::to(broker).create_topic(TOPIC, PARTITIONS);
    Producer::new(broker, "idle");
    for (id, is_commit) in [("committed", true), ("aborted", false)] {
        let mut producer = Producer::new(broker, id);
        (0..PARTITIONS).for_each(|partition| producer.write(12, TOPIC, partition, record("ended", id)));
        producer.end(is_commit);
    }
    let mut open = Producer::new(broker, "open");
    open.write(12, TOPIC, 0, record("open", "open"));
    open
}

/// The open transaction is as it was: readers of committed records wait before it, and its producer goes on with it and commits.
fn finish(broker: &Broker, open: &mut Producer) {
    open.connection = Connection::to(broker);
    let (end, stable_end) = ends(&mut open.connection, TOPIC, 0);
    assert!(stable_end < end, "{stable_end} of {end}");
    assert_eq!(committed_values(&mut open.connection, 0, "open"), Vec::<String>::new());
    open.write(12, TOPIC, 1, record("open", "open"));
    open.end(true);
    for partition in 0..PARTITIONS {
        let expected: &[&str] = if partition < 2 { &["open"] } else { &[] };
        assert_eq!(committed_values(&mut open.connection, partition, "open"), expected, "partition {partition}");
        assert_eq!(committed_values(&mut open.connection, partition, "ended"), ["committed"], "partition {partition}");
    }
}

/// Values of the committed records with this key.
fn committed_values(connection: &mut Connection, partition: i32, key: &str) -> Vec<String> {
    let mut reader = CommittedReader::new(TOPIC, partition);
    let mut values = Vec::new();
    loop {
        let before = reader.next_offset();
        let poll = reader.poll(connection).expect("the broker is there");
        let with_key = poll.records.into_iter().filter(|(_, record)| record.key.as_deref() == Some(key.as_bytes()));
        values.extend(with_key.map(|(_, record)| String::from_utf8(record.value.expect("a value")).expect("text")));
        if reader.next_offset() == before {
            values.sort();
            return values;
        }
    }
}

/// The last state of each transactional id in the logs of `__transaction_state`, by its number.
fn states_left(data: &Path) -> BTreeMap<String, i8> {
    let mut states = BTreeMap::new();
    for folder in fs::read_dir(data).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let log = folder.join("00000000000000000000.log");
        if !name.starts_with("__transaction_state-") || !log.exists() {
            continue;
        }
        let bytes = bytes::Bytes::from(fs::read(log).expect("a file"));
        for (_, record) in read_batches(&bytes).into_iter().flat_map(|batch| batch.records) {
            // A type and the id; a version, producer id, epoch and timeout before the state.
            let (key, value) = (record.key.expect("a key"), record.value.expect("no id expires here"));
            let id = String::from_utf8(key[4..].to_vec()).expect("text");
            states.insert(id, value[16] as i8);
        }
    }
    states
}
