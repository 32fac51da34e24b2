//! `kill -9` at any moment: what was acknowledged is there, once, in order, with its content.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::{OffsetCommitRequest, OffsetFetchRequest};
use corelane_wire::{ErrorCode, Str};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::raw::{Connection, code};
use harness::suite::OwnBrokerCase;
use harness::wait;

use crate::writer::{Kind, Progress, StopAtEnd, Writer, mix};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![killed_under_load_round_after_round];

const TOPIC: &str = "crash";
const GROUP: &str = "crash-group";

/// Rounds in the suite; `scripts/soak` asks for more with CORELANE_CRASH_ROUNDS.
const ROUNDS: u64 = 10;

/// Every so many rounds, and after the last, all that was ever written is read again; in between only what is new.
const WHOLE_CHECK_INTERVAL: u64 = 20;

/// Rounds of load, kill and restart. Writers of both kinds, over small segments that roll all the time; beside them, each round makes a topic and commits an offset, which are
/// promises as well. After each restart what the writers' partitions hold is compared with what was promised.
fn killed_under_load_round_after_round() {
    let rounds =
        std::env::var("CORELANE_CRASH_ROUNDS").ok().map_or(ROUNDS, |rounds| rounds.parse().expect("CORELANE_CRASH_ROUNDS is a number"));
    let seed = std::env::var("CORELANE_CRASH_SEED")
        .ok()
        .map_or_else(|| u64::from(std::process::id()), |seed| seed.parse().expect("CORELANE_CRASH_SEED is a number"));
    println!("{rounds} rounds, CORELANE_CRASH_SEED={seed}");
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1));
    let mut writers = writers(&broker);
    let mut kept = Kept::default();
    for round in 0..rounds {
        let enough = 20 + mix(seed ^ round) % 800;
        load_until_killed(&mut broker, &mut writers, enough, &mut kept, round);
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_leaders(TOPIC, writers.len() as i32);
        for writer in &mut writers {
            let whole = round % WHOLE_CHECK_INTERVAL == 0 || round + 1 == rounds;
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
