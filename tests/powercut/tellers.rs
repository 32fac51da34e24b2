//! Producers of transactions who keep what they were told: each transfer goes into some partitions, is ended one way or the other, by either version of the protocol, and sometimes
//! takes its group's position with it. A cut leaves a transfer some of whose ends nobody has heard of; `transfers` compares.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use corelane_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use corelane_wire::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, TxnOffsetCommitRequest,
};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{ATTRIBUTE_TRANSACTIONAL, Batch, record};
use harness::random::Random;
use harness::raw::{Connection, code};

use crate::load::Round;

pub const TOPIC: &str = "transfers";
pub const PARTITIONS: i32 = 3;

/// Longer than any round: nothing is aborted behind a teller's back.
const TIMEOUT_MS: i32 = 60_000;

/// What is known of a transfer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Committed,
    /// Aborted, or never ended: its teller's next instance aborts it.
    Aborted,
    /// The commit was asked for and not answered.
    Unknown,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub told: Told,
    /// How many records it has in each partition.
    pub records: [u64; PARTITIONS as usize],
}

pub struct Teller {
    pub number: u64,
    /// By transaction version 2 (KIP-890), or 1.
    is_version_2: bool,
    pub transfers: Vec<Transfer>,
    /// What the group's position may be: as the last transfer left it that was committed for sure, or one since whose answer was lost.
    pub positions: Vec<i64>,
}

impl Teller {
    pub fn new(number: u64) -> Teller {
        Teller { number, is_version_2: number.is_multiple_of(2), transfers: Vec::new(), positions: vec![-1] }
    }

    pub fn id(&self) -> String {
        format!("teller-{}", self.number)
    }

    /// The group whose position goes with some of the transfers.
    pub fn group(&self) -> String {
        format!("tellers-{}", self.number)
    }
}

/// A new instance of the teller: what was open is aborted, what was decided complete, before it may begin.
pub fn end_what_is_open(teller: &Mutex<Teller>, connection: &mut Connection) -> Result<(), Trouble> {
    Session::begin(teller, connection).map(drop)
}

/// Transfers until the round is over.
pub fn run(round: &Round, teller: &Mutex<Teller>, mut random: Random) {
    while let Some(mut connection) = round.connect() {
        // The end of a connection is the end of this attempt only; what is open then is aborted by the next instance.
        if let Err(Trouble::Refused(error, what)) = run_on(round, teller, &mut connection, &mut random)
            && !is_passing(round, error)
        {
            let id = lock(teller).id();
            return round.refuse(error, &format!("{id}, {what}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn run_on(round: &Round, teller: &Mutex<Teller>, connection: &mut Connection, random: &mut Random) -> Result<(), Trouble> {
    let mut session = Session::begin(teller, connection)?;
    while !round.is_over() {
        session.transfer(random)?;
    }
    Ok(())
}

/// Besides what passes for every client: a transaction that its producer has to give up, and what a partition says when the coordinator cannot vouch for one.
fn is_passing(round: &Round, error: ErrorCode) -> bool {
    use ErrorCode::{CoordinatorNotAvailable, NotCoordinator, NotEnoughReplicas, TransactionAbortable};
    round.is_passing(error) || matches!(error, CoordinatorNotAvailable | NotCoordinator | NotEnoughReplicas | TransactionAbortable)
}

/// Why an instance does not go on.
#[derive(Debug)]
pub enum Trouble {
    Gone(io::Error),
    /// With what was asked for.
    Refused(ErrorCode, &'static str),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Gone(error)
    }
}

/// An instance of a teller.
struct Session<'a> {
    teller: &'a Mutex<Teller>,
    connection: &'a mut Connection,
    id: Str,
    is_version_2: bool,
    producer_id: i64,
    epoch: i16,
    /// The next one, by partition.
    sequences: HashMap<i32, i32>,
}

impl Session<'_> {
    fn begin<'a>(teller: &'a Mutex<Teller>, connection: &'a mut Connection) -> Result<Session<'a>, Trouble> {
        let (id, is_version_2) = {
            let teller = lock(teller);
            (Str::from(teller.id().as_str()), teller.is_version_2)
        };
        let mut session = Session { teller, connection, id, is_version_2, producer_id: -1, epoch: -1, sequences: HashMap::new() };
        session.initialise()?;
        Ok(session)
    }

    fn initialise(&mut self) -> Result<(), Trouble> {
        let request = InitProducerIdRequest {
            transactional_id: Some(self.id.clone()),
            transaction_timeout_ms: TIMEOUT_MS,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let find = FindCoordinatorRequest { key: self.id.clone(), key_type: 1, ..Default::default() };
        let response = self.patiently("a new epoch", |connection| {
            // The first to ask makes the topic of the coordinators.
            connection.try_call(2, &find)?;
            let response = connection.try_call(4, &request)?;
            Ok((response.error_code, response))
        })?;
        (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
        self.sequences.clear();
        Ok(())
    }

    fn transfer(&mut self, random: &mut Random) -> Result<(), Trouble> {
        let mut records: [u64; PARTITIONS as usize] = std::array::from_fn(|_| random.below(4));
        // At least one, which tells later how the transfer ended.
        records[random.below(PARTITIONS as u64) as usize] += 1;
        let number = {
            let mut teller = lock(self.teller);
            teller.transfers.push(Transfer { told: Told::Aborted, records });
            teller.transfers.len() - 1
        };
        for (partition, count) in (0..).zip(records).filter(|(_, count)| *count > 0) {
            self.write(partition, number, count, random)?;
        }
        let with_position = self.is_version_2 && random.is_below_percent(30);
        if with_position {
            self.commit_position(number as i64)?;
        }
        match random.below(10) {
            // Left open: the next transfer is by a new epoch, which aborts this one.
            0 => self.initialise(),
            1..=2 => self.end(false),
            _ => self.commit(number, with_position),
        }
    }

    fn commit(&mut self, number: usize, with_position: bool) -> Result<(), Trouble> {
        {
            let mut teller = lock(self.teller);
            teller.transfers[number].told = Told::Unknown;
            if with_position {
                teller.positions.push(number as i64);
            }
        }
        self.end(true)?;
        let mut teller = lock(self.teller);
        teller.transfers[number].told = Told::Committed;
        if with_position {
            teller.positions = vec![number as i64];
        }
        Ok(())
    }

    /// The records of a transfer in one partition, in one batch or several.
    fn write(&mut self, partition: i32, number: usize, count: u64, random: &mut Random) -> Result<(), Trouble> {
        if !self.is_version_2 {
            self.join(partition)?;
        }
        let mut index = 0;
        while index < count {
            let end = index + 1 + random.below(count - index);
            let padding = ".".repeat(random.below(3_000) as usize);
            let records = (index..end).map(|index| record(&self.id, format!("{number} {index} {padding}"))).collect();
            self.produce(partition, records)?;
            index = end;
        }
        Ok(())
    }

    fn join(&mut self, partition: i32) -> Result<(), Trouble> {
        let topic = AddPartitionsToTxnTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.clone(),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        self.patiently("a partition to join", |connection| {
            let response = connection.try_call(3, &request)?;
            Ok((response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, ()))
        })
    }

    fn produce(&mut self, partition: i32, records: Vec<harness::batch::Record>) -> Result<(), Trouble> {
        let sequence = self.sequences.entry(partition).or_default();
        let batch = Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(records) };
        let batch = batch.producer(self.producer_id, self.epoch, *sequence);
        *sequence += batch.records.len() as i32;
        let data = PartitionProduceData { index: partition, records: Some(Records::from(batch.encode())), ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(self.id.clone()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData { name: Str::from(TOPIC), partition_data: vec![data], ..Default::default() }],
            ..Default::default()
        };
        let version = if self.is_version_2 { 12 } else { 11 };
        self.patiently("records", |connection| {
            let response = connection.try_call(version, &request)?;
            Ok((response.responses[0].partition_responses[0].error_code, ()))
        })
    }

    fn commit_position(&mut self, position: i64) -> Result<(), Trouble> {
        let partition = TxnOffsetCommitRequestPartition { partition_index: 0, committed_offset: position, ..Default::default() };
        let topic = TxnOffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = TxnOffsetCommitRequest {
            transactional_id: self.id.clone(),
            group_id: Str::from(lock(self.teller).group()),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            topics: vec![topic],
            ..Default::default()
        };
        self.patiently("a position", |connection| {
            let response = connection.try_call(5, &request)?;
            Ok((response.topics[0].partitions[0].error_code, ()))
        })
    }

    fn end(&mut self, is_commit: bool) -> Result<(), Trouble> {
        let request = EndTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: is_commit,
            ..Default::default()
        };
        let version = if self.is_version_2 { 5 } else { 4 };
        let response = self.patiently("the end", |connection| {
            let response = connection.try_call(version, &request)?;
            Ok((response.error_code, response))
        })?;
        if self.is_version_2 {
            (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
            self.sequences.clear();
        }
        Ok(())
    }

    /// Asks again as long as the answer is to ask again.
    fn patiently<T>(&mut self, what: &'static str, ask: impl Fn(&mut Connection) -> io::Result<(i16, T)>) -> Result<T, Trouble> {
        loop {
            let (error, answer) = ask(self.connection)?;
            match code(error) {
                ErrorCode::None => return Ok(answer),
                ErrorCode::ConcurrentTransactions | ErrorCode::CoordinatorLoadInProgress => thread::sleep(Duration::from_millis(2)),
                error => return Err(Trouble::Refused(error, what)),
            }
        }
    }
}

pub fn lock(teller: &Mutex<Teller>) -> MutexGuard<'_, Teller> {
    teller.lock().expect("no panic while it is held")
}
