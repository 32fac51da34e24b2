//! Producers of transactions who keep what they were told: each transfer goes into several partitions and is ended one way or the other, by transaction version 1 or 2.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use corelane_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use corelane_wire::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, OffsetFetchRequest, ProduceRequest,
    TxnOffsetCommitRequest,
};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{ATTRIBUTE_TRANSACTIONAL, Batch, record};
use harness::broker::Broker;
use harness::raw::{Connection, code};
use harness::wait;

use crate::writer::{Progress, mix};

pub const TOPIC: &str = "transfers";
pub const GROUP: &str = "tellers";
pub const PARTITIONS: i32 = 3;

/// What a teller knows of one of its transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Committed,
    /// Aborted, or never ended by its teller.
    Aborted,
    /// The end was asked for and not answered.
    Unknown,
}

pub struct Teller {
    id: String,
    pub number: u64,
    /// By transaction version 2, or 1.
    is_version_2: bool,
    pub transfers: Vec<Told>,
    /// What the group's position may be: as the last transfer left it that was committed for sure, or one since whose answer was lost.
    positions: Vec<i64>,
}

/// One life of a teller's connection.
struct Session<'a> {
    teller: &'a mut Teller,
    connection: Connection,
    producer_id: i64,
    epoch: i16,
    sequences: HashMap<i32, i32>,
}

impl Teller {
    pub fn new(number: u64) -> Teller {
        Teller {
            id: format!("teller-{number}"),
            number,
            is_version_2: number.is_multiple_of(2),
            transfers: Vec::new(),
            positions: vec![-1],
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Transfers until the broker goes away or the test has seen enough.
    pub fn run(&mut self, address: SocketAddr, progress: &Progress, seed: u64) {
        let Ok(connection) = Connection::open(address) else { return };
        let mut session = Session { teller: self, connection, producer_id: -1, epoch: -1, sequences: HashMap::new() };
        let Ok(()) = session.initialise() else { return };
        while !progress.stop.load(Ordering::Relaxed) {
            let number = session.teller.transfers.len() as u64;
            let random = session.teller.random(seed, number);
            session.teller.transfers.push(Told::Aborted);
            let Ok(told) = session.transfer(number, random) else { return };
            *session.teller.transfers.last_mut().expect("just begun") = told;
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many records one of its transfers has in each partition.
    pub fn records_of(&self, seed: u64, number: u64) -> u64 {
        record_count(self.random(seed, number))
    }

    fn random(&self, seed: u64, number: u64) -> u64 {
        mix(seed ^ (self.number << 32) ^ number)
    }

    fn group(&self) -> String {
        format!("{GROUP}-{}", self.number)
    }
}

fn record_count(random: u64) -> u64 {
    1 + random % 3
}

/// The broker has gone, or the connection to it.
type Gone = std::io::Error;

impl Session<'_> {
    fn initialise(&mut self) -> Result<(), Gone> {
        let id = Str::from(self.teller.id.as_str());
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        loop {
            self.connection.try_call(2, &FindCoordinatorRequest { key: id.clone(), key_type: 1, ..Default::default() })?;
            let response = self.connection.try_call(4, &request)?;
            match code(response.error_code) {
                ErrorCode::None => {
                    (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
                    self.sequences.clear();
                    return Ok(());
                }
                error => pause(error),
            }
        }
    }

    fn transfer(&mut self, number: u64, random: u64) -> Result<Told, Gone> {
        let with_position = self.teller.is_version_2 && random.is_multiple_of(4);
        for partition in 0..PARTITIONS {
            if !self.teller.is_version_2 {
                self.join(partition)?;
            }
            for index in 0..record_count(random) {
                self.write(partition, number, index)?;
            }
        }
        if with_position {
            self.commit_position(number as i64)?;
        }
        match random % 10 {
            // Left open: the next transfer is by a new epoch, which aborts this one.
            0 => self.initialise().map(|()| Told::Aborted),
            1..=2 => self.end(false).map(|()| Told::Aborted),
            _ => {
                *self.teller.transfers.last_mut().expect("just begun") = Told::Unknown;
                if with_position {
                    self.teller.positions.push(number as i64);
                }
                self.end(true)?;
                if with_position {
                    self.teller.positions = vec![number as i64];
                }
                Ok(Told::Committed)
            }
        }
    }

    fn join(&mut self, partition: i32) -> Result<(), Gone> {
        let topic = AddPartitionsToTxnTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Str::from(self.teller.id.as_str()),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        loop {
            let response = self.connection.try_call(3, &request)?;
            match code(response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code) {
                ErrorCode::None => return Ok(()),
                error => pause(error),
            }
        }
    }

    fn write(&mut self, partition: i32, number: u64, index: u64) -> Result<(), Gone> {
        let sequence = self.sequences.entry(partition).or_default();
        let value = record(&self.teller.id, format!("{number} {index}"));
        let batch =
            Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(vec![value]) }.producer(self.producer_id, self.epoch, *sequence);
        *sequence += 1;
        let data = PartitionProduceData { index: partition, records: Some(Records::from(batch.encode())), ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(Str::from(self.teller.id.as_str())),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData { name: Str::from(TOPIC), partition_data: vec![data], ..Default::default() }],
            ..Default::default()
        };
        let version = if self.teller.is_version_2 { 12 } else { 11 };
        loop {
            let response = self.connection.try_call(version, &request)?;
            match code(response.responses[0].partition_responses[0].error_code) {
                ErrorCode::None => return Ok(()),
                error => pause(error),
            }
        }
    }

    fn commit_position(&mut self, position: i64) -> Result<(), Gone> {
        let partition = TxnOffsetCommitRequestPartition {
            partition_index: self.teller.number as i32 % PARTITIONS,
            committed_offset: position,
            ..Default::default()
        };
        let topic = TxnOffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = TxnOffsetCommitRequest {
            transactional_id: Str::from(self.teller.id.as_str()),
            group_id: Str::from(self.teller.group()),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            topics: vec![topic],
            ..Default::default()
        };
        loop {
            let response = self.connection.try_call(5, &request)?;
            match code(response.topics[0].partitions[0].error_code) {
                ErrorCode::None => return Ok(()),
                error => pause(error),
            }
        }
    }

    fn end(&mut self, is_commit: bool) -> Result<(), Gone> {
        let request = EndTxnRequest {
            transactional_id: Str::from(self.teller.id.as_str()),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: is_commit,
            ..Default::default()
        };
        loop {
            let response = self.connection.try_call(if self.teller.is_version_2 { 5 } else { 4 }, &request)?;
            match code(response.error_code) {
                ErrorCode::None => {
                    if self.teller.is_version_2 {
                        (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
                        self.sequences.clear();
                    }
                    return Ok(());
                }
                error => pause(error),
            }
        }
    }
}

/// Errors that only ask for patience; any other is a failure of the test.
fn pause(error: ErrorCode) {
    use ErrorCode::*;
    let is_patience = matches!(
        error,
        ConcurrentTransactions
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | NotCoordinator
            | NotEnoughReplicas
            | NotLeaderOrFollower
    );
    assert!(is_patience, "{}", error.name());
    thread::sleep(Duration::from_millis(5));
}

/// A new instance of each teller: what was open is aborted, what was decided complete, before it may begin.
pub fn end_what_is_open(broker: &Broker, tellers: &mut [Teller]) {
    for teller in tellers {
        let connection = Connection::to(broker);
        Session { teller, connection, producer_id: -1, epoch: -1, sequences: HashMap::new() }.initialise().expect("the broker is there");
    }
}

/// The position that each teller's group has is one that the teller may have left.
pub fn check_positions(connection: &mut Connection, tellers: &mut [Teller]) {
    for teller in tellers.iter_mut().filter(|teller| teller.is_version_2) {
        let partition = teller.number as i32 % PARTITIONS;
        let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![partition], ..Default::default() };
        let request = OffsetFetchRequest {
            group_id: Str::from(teller.group()),
            topics: Some(vec![topic]),
            require_stable: true,
            ..Default::default()
        };
        let position = wait::until("a stable position", wait::PATIENCE, || {
            let response = connection.call(7, &request);
            let answer = response.topics.first()?.partitions.first()?;
            (response.error_code == 0 && answer.error_code == 0).then_some(answer.committed_offset)
        });
        assert!(teller.positions.contains(&position), "position of {}: {position}, none of {:?}", teller.id, teller.positions);
        teller.positions = vec![position];
    }
}
