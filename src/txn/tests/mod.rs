//! Tests of the transaction coordinator's machine: every state and error, both protocols, and a model that replays its records.

mod end;
mod initialise;
mod model;
mod partitions;
mod time;

use super::*;
use crate::wire::{ErrorCode, Str};

const TV1: i16 = 0;
const TV2: i16 = 2;

/// One coordinator that is driven by hand: what it decides is replayed at once.
struct World {
    coordinator: Coordinator,
    now_ms: i64,
    server_version: i16,
    next_producer_id: i64,
    log: Vec<TransactionRecord>,
}

fn config() -> TransactionConfig {
    TransactionConfig { timeout_ms_max: 900_000, id_expiration_ms: 604_800_000 }
}

impl World {
    fn new() -> World {
        let mut coordinator = Coordinator::new(config());
        assert!(coordinator.on_loaded().is_empty());
        World { coordinator, now_ms: 1_000_000, server_version: TV2, next_producer_id: 1_000, log: Vec::new() }
    }

    fn call(&mut self, call: Call) -> Reply {
        let decision = match self.coordinator.handle(self.now_ms, self.server_version, None, &call) {
            Err(NeedsProducerId) => {
                self.next_producer_id += 1;
                self.coordinator.handle(self.now_ms, self.server_version, Some(self.next_producer_id - 1), &call)
            }
            decision => decision,
        };
        let Step { record, reply } = decision.expect("an id was given");
        if let Some(record) = record {
            self.replay(record);
        }
        reply
    }

    fn replay(&mut self, record: TransactionRecord) {
        self.coordinator.replay(&record);
        self.log.push(record);
    }

    /// Loses everything but the log, as it reads back from its bytes.
    fn restart(&mut self) -> Vec<Str> {
        self.coordinator = Coordinator::new(config());
        for record in &self.log {
            let (key, value) = record.encode(self.server_version);
            let read = TransactionRecord::decode(Some(&key), value.as_ref()).unwrap().unwrap();
            self.coordinator.replay(&read);
        }
        self.coordinator.on_loaded()
    }

    fn initialise(&mut self, id: &str) -> Result<Producer, ErrorCode> {
        self.initialise_as(id, None)
    }

    fn initialise_as(&mut self, id: &str, expected: Option<Producer>) -> Result<Producer, ErrorCode> {
        producer_of(self.call(Call::Initialise { transactional_id: Str::from(id), timeout_ms: 60_000, expected }))
    }

    fn add(&mut self, id: &str, producer: Producer, partitions: &[i32], client_version: i16) -> Result<(), ErrorCode> {
        let partitions = partitions.iter().map(|partition| (Str::from("t"), *partition)).collect();
        match self.call(Call::AddPartitions { transactional_id: Str::from(id), producer, partitions, client_version }) {
            Reply::Added(added) => added,
            other => panic!("{other:?}"),
        }
    }

    fn verify(&mut self, id: &str, producer: Producer, partitions: &[i32]) -> Result<Vec<ErrorCode>, ErrorCode> {
        let partitions = partitions.iter().map(|partition| (Str::from("t"), *partition)).collect();
        match self.call(Call::Verify { transactional_id: Str::from(id), producer, partitions }) {
            Reply::Verified(verified) => verified,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, id: &str, producer: Producer, is_commit: bool, client_version: i16) -> Result<Producer, ErrorCode> {
        producer_of(self.call(Call::End { transactional_id: Str::from(id), producer, is_commit, client_version }))
    }

    /// The markers are written.
    fn complete(&mut self, id: &str) {
        let completion = self.coordinator.completion(id).expect("a prepared transaction");
        let record = self.coordinator.complete(self.now_ms, id, &completion).expect("it is still prepared");
        self.replay(record);
    }

    fn state(&self, id: &str) -> State {
        self.coordinator.get(id).expect("a known id").state
    }

    /// A world whose id "a" is in `state` by the protocol of `version`, and its producer: for the prepared and complete states the one that ended the transaction.
    fn in_state(state: State, version: i16) -> (World, Producer) {
        let mut world = World::new();
        let producer = world.initialise("a").unwrap();
        if state != State::Empty {
            world.add("a", producer, &[0], version).unwrap();
        }
        if !matches!(state, State::Empty | State::Ongoing) {
            let is_commit = matches!(state, State::PrepareCommit | State::CompleteCommit);
            world.end("a", producer, is_commit, version).unwrap();
        }
        if matches!(state, State::CompleteCommit | State::CompleteAbort) {
            world.complete("a");
        }
        assert_eq!(world.state("a"), state);
        (world, producer)
    }

    /// Sets the epoch of "a" as 32,000 transactions would.
    fn set_epoch(&mut self, epoch: i16) -> Producer {
        let mut transaction = self.coordinator.get("a").unwrap().clone();
        transaction.producer.epoch = epoch;
        let producer = transaction.producer;
        self.replay(TransactionRecord { transactional_id: Str::from("a"), transaction: Some(transaction) });
        producer
    }
}

fn producer_of(reply: Reply) -> Result<Producer, ErrorCode> {
    match reply {
        Reply::Producer(producer) => producer,
        other => panic!("{other:?}"),
    }
}

fn next_epoch(producer: Producer) -> Producer {
    Producer { epoch: producer.epoch + 1, ..producer }
}
