//! `kill -9` at any moment: what was acknowledged is there, once, in order, with its content.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::{IncrementalAlterConfigsRequest, OffsetCommitRequest, OffsetFetchRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::raw::{Connection, code, produce_request};
use harness::suite::OwnBrokerCase;
use harness::wait;

use crate::rounds::{self, Rounds};
use crate::writer::{Kind, Progress, StopAtEnd, Writer, mix};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    killed_under_load_round_after_round,
    written_records_survive_the_process,
    a_loss_is_noticed,
    no_answer_tells_of_what_is_not_on_stable_storage,
    the_witness_speaks_up_when_the_flag_is_taken_away,
    the_witness_judges_weaker_classes_by_what_they_promise,
];

const TOPIC: &str = "crash";
const GROUP: &str = "crash-group";

/// Rounds in the suite; `scripts/soak` asks for more with CORELANE_CRASH_ROUNDS.
const ROUNDS: u64 = 10;

/// Every so many rounds, and after the last, all that was ever written is read again; in between only what is new.
const WHOLE_CHECK_INTERVAL: u64 = 20;

/// Rounds in which the broker watches itself.
const TRACED_ROUNDS: u64 = 3;

/// Rounds of load, kill and restart. Writers of both kinds, over small segments that roll all the time; beside them, each round makes a topic and commits an offset, which are
/// promises as well. After each restart what the writers' partitions hold is compared with what was promised.
fn killed_under_load_round_after_round() {
    kill_round_after_round(BrokerOptions::default(), &Rounds::or(ROUNDS));
}

/// A topic that is flushed now and then: what was acknowledged outlives the process, though it is killed with the very last answer, large records and small. The class changes while
/// it runs.
fn written_records_survive_the_process() {
    let topic = "crash-written";
    let mut broker = Broker::start(BrokerOptions::default().traced());
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(topic, 2, &[("flush.messages", "1000000")]);
    let mut written = [const { Vec::new() }; 2];
    for round in 0..10 {
        // Now and then one that is bulk to the journal, and a change to the stronger class and back.
        for number in 0..40 + round {
            let value = if number % 13 == 12 { "bulk ".repeat(30_000) } else { format!("{round} {number}") };
            connection.append(topic, number % 2, vec![record("k", value.clone())]);
            written[number as usize % 2].push(value);
            if number % 20 == 0 {
                let wanted = if number % 40 == 0 { "1" } else { "1000000" };
                alter_topic(&mut connection, topic, "flush.messages", wanted);
            }
        }
        broker.kill();
        broker.restart();
        connection = Connection::to(&broker);
        connection.wait_for_leaders(topic, 2);
        for (partition, written) in written.iter().enumerate() {
            let found = connection.read_all(topic, partition as i32, 0);
            let found: Vec<_> =
                found.into_iter().map(|(_, record)| String::from_utf8(record.value.expect("a value").to_vec()).expect("text")).collect();
            assert!(found == *written, "round {round}: partition {partition} holds {} of {} records", found.len(), written.len());
        }
    }
}

/// The same on a broker with a witness of its own, which ends the process at once if an answer tells of records that no completed durable write covers: what a kill cannot show,
/// because the kernel keeps what it was given.
fn no_answer_tells_of_what_is_not_on_stable_storage() {
    kill_round_after_round(BrokerOptions::default().traced(), &Rounds { count: TRACED_ROUNDS, seed: rounds::seed() });
}

fn the_witness_speaks_up_when_the_flag_is_taken_away() {
    let mut broker = Broker::start(durable(BrokerOptions::default()).traced().environment("CORELANE_PLANT", "no-flush"));
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 1);
    let records = Batch::of(vec![record("key", "never flushed")]).encode();
    let answer = connection.try_call(9, &produce_request(TOPIC, 0, -1, records));
    assert!(answer.is_err(), "the record was acknowledged: {answer:?}");
    assert!(!broker.wait_for_end(Duration::from_secs(30)).success());
    let log = broker.log();
    assert!(log.contains("no completed durable write covers them"), "the last words were others:\n{log}");
}

/// Topics of all three classes beside each other, one of which changes its class, under the witness: nobody is accused who keeps his promise. With the flag taken away the weaker
/// classes still keep theirs, and the strong one does not.
fn the_witness_judges_weaker_classes_by_what_they_promise() {
    let written = ("crash-written", [("flush.messages", "1000000")]);
    let in_memory = ("crash-in-memory", [("write.caching", "true")]);
    for is_planted in [false, true] {
        let options = durable(BrokerOptions::default()).traced();
        let mut broker = Broker::start(if is_planted { options.environment("CORELANE_PLANT", "no-flush") } else { options });
        let mut connection = Connection::to(&broker);
        for (topic, settings) in [&written, &in_memory] {
            connection.create_topic_with(topic, 2, settings);
        }
        connection.create_topic(TOPIC, 1);
        for number in 0..50 {
            connection.append(written.0, number % 2, vec![record("k", number.to_string())]);
            connection.append(in_memory.0, number % 2, vec![record("k", number.to_string())]);
            if !is_planted {
                connection.append(TOPIC, 0, vec![record("k", number.to_string())]);
            }
        }
        if is_planted {
            let records = Batch::of(vec![record("key", "never flushed")]).encode();
            assert!(connection.try_call(9, &produce_request(TOPIC, 0, -1, records)).is_err(), "the record was acknowledged");
            assert!(!broker.wait_for_end(Duration::from_secs(30)).success());
            continue;
        }
        alter_topic(&mut connection, written.0, "flush.messages", "1");
        alter_topic(&mut connection, in_memory.0, "write.caching", "false");
        for number in 0..20 {
            connection.append(written.0, number % 2, vec![record("k", "durable now")]);
            connection.append(in_memory.0, number % 2, vec![record("k", "durable now")]);
        }
        assert!(broker.terminate(Duration::from_secs(60)).success());
    }
}

fn alter_topic(connection: &mut Connection, topic: &str, key: &str, value: &str) {
    let config = AlterableConfig { name: Str::from(key), value: Some(Str::from(value)), ..Default::default() };
    let resource = AlterConfigsResource { resource_type: 2, resource_name: Str::from(topic), configs: vec![config], ..Default::default() };
    let altered = connection.call(1, &IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() });
    assert_eq!(altered.responses[0].error_code, 0);
}

/// The first test finds what is lost: here the end of the journal is wiped between kill and restart.
fn a_loss_is_noticed() {
    let mut broker = Broker::start(durable(BrokerOptions::default()));
    let mut writers = writers(&broker);
    load_until_killed(&mut broker, &mut writers, 200, &mut Kept::default(), 0);
    wipe_last_quarter(&broker.data().join("corelane-journal-0"));
    broker.restart();
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(TOPIC, writers.len() as i32);
    let found = |writer: &mut Writer| std::panic::catch_unwind(AssertUnwindSafe(|| writer.verify(&mut connection))).is_err();
    let noticed = writers.iter_mut().map(found).filter(|is_noticed| *is_noticed).count();
    assert!(noticed > 0, "nobody missed what was acknowledged and wiped");
}

/// Of a ring in its first lap, zeros over the last quarter of what was written.
fn wipe_last_quarter(ring: &Path) {
    const BLOCK_BYTES: usize = 4096;
    let mut bytes = fs::read(ring).expect("the journal can be read");
    let written = bytes.chunks(BLOCK_BYTES).rposition(|block| block.iter().any(|byte| *byte != 0)).expect("the ring has a header") + 1;
    bytes[written * 3 / 4 * BLOCK_BYTES..written * BLOCK_BYTES].fill(0);
    fs::write(ring, bytes).expect("the journal can be written");
}

/// Acknowledged when on stable storage, whichever broker it is.
fn durable(options: BrokerOptions) -> BrokerOptions {
    options.set("log.flush.interval.messages", 1)
}

fn kill_round_after_round(options: BrokerOptions, rounds: &Rounds) {
    let mut broker = Broker::start(durable(options));
    let mut writers = writers(&broker);
    let mut kept = Kept::default();
    for round in 0..rounds.count {
        let enough = 20 + mix(rounds.seed ^ round) % 800;
        load_until_killed(&mut broker, &mut writers, enough, &mut kept, round);
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_leaders(TOPIC, writers.len() as i32);
        for writer in &mut writers {
            let whole = round % WHOLE_CHECK_INTERVAL == 0 || round + 1 == rounds.count;
            if whole { writer.verify(&mut connection) } else { writer.verify_further(&mut connection) }
        }
        kept.verify(&mut connection);
        let promised: u64 = writers.iter().map(Writer::promised).sum();
        println!("round {round}: killed after {enough} more batches; {promised} records promised so far, all there");
    }
}

fn writers(broker: &Broker) -> Vec<Writer> {
    let kinds = [Kind::Idempotent, Kind::Plain(-1), Kind::Plain(1), Kind::Idempotent];
    let mut connection = Connection::to(broker);
    connection.create_topic_with(TOPIC, kinds.len() as i32, &[("segment.bytes", "1048576")]);
    connection.wait_for_coordinator(GROUP);
    kinds.into_iter().enumerate().map(|(partition, kind)| Writer::new(TOPIC, partition as i32, kind, connection.producer_id())).collect()
}

fn load_until_killed(broker: &mut Broker, writers: &mut [Writer], enough: u64, kept: &mut Kept, round: u64) {
    let progress = Arc::new(Progress::default());
    let address = broker.address();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        for writer in writers.iter_mut() {
            scope.spawn(|| writer.run(address, &progress));
        }
        kept.promise_more(&mut Connection::to(broker), round);
        wait::until("acknowledged batches", Duration::from_secs(120), || {
            (progress.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        });
        broker.kill();
    });
}

/// Promises other than records: topics that were made, an offset that was committed.
#[derive(Default)]
struct Kept {
    topics: Vec<(String, uuid::Uuid)>,
    committed: i64,
}

impl Kept {
    fn promise_more(&mut self, connection: &mut Connection, round: u64) {
        let name = format!("crash-made-{round}");
        connection.create_topic(&name, 2);
        self.topics.push((name.clone(), connection.topic_id(&name)));
        let committed_offset = round as i64 + 1;
        let partition =
            OffsetCommitRequestPartition { partition_index: 0, committed_offset, committed_metadata: None, ..Default::default() };
        let topic = OffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest { group_id: Str::from(GROUP), topics: vec![topic], ..Default::default() };
        // A broker that has only just started is still reading its offsets.
        wait::until("the commit", wait::PATIENCE, || {
            let outcome = code(connection.call(7, &request).topics[0].partitions[0].error_code);
            let loading =
                matches!(outcome, ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable);
            assert!(loading || outcome.is_none(), "committing: {}", outcome.name());
            outcome.is_none().then_some(())
        });
        self.committed = committed_offset;
    }

    fn verify(&self, connection: &mut Connection) {
        for (name, id) in &self.topics {
            assert_eq!(connection.topic_id(name), *id, "the topic {name}, which was made before the kill");
        }
        connection.wait_for_coordinator(GROUP);
        let place = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![0], ..Default::default() };
        let answer =
            connection.call(5, &OffsetFetchRequest { group_id: Str::from(GROUP), topics: Some(vec![place]), ..Default::default() });
        assert_eq!(answer.topics[0].partitions[0].committed_offset, self.committed, "the offset that was committed before the kill");
    }
}
