//! The coordinator of one partition of `__transaction_state`.
//!
//! Life: made empty, fed the partition's log through `replay`, told `on_loaded`; from then on `handle`, `abort_timed_out`, `complete` and `expire` decide. Whoever drives it appends
//! the record of a decision, replays it, and lets the reply go when everything appended so far is durable. So a decision always rests on all decisions before it, and there is no
//! time in which a transition is pending: where Kafka answers CONCURRENT_TRANSACTIONS because a record is still being written, the reply here just waits for both.
//!
//! A prepared transaction is decided. Its record must be durable before the first marker is written, and every marker before `complete`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::call::{Call, Listed, Reply};
use super::record::TransactionRecord;
use super::transaction::{State, Transaction};
use super::{EPOCH_BUMP_VERSION, Producer, TopicPartition};
use crate::log::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID};
use crate::wire::messages::describe_transactions_response::{TopicData, TransactionState};
use crate::wire::{ErrorCode, Str};

/// The limits that a coordinator keeps, from the broker's settings.
#[derive(Debug, Clone)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
}

/// What is to be appended, if anything, and what to answer once everything appended so far is durable.
#[derive(Debug, PartialEq)]
#[must_use]
pub struct Step {
    pub record: Option<TransactionRecord>,
    pub reply: Reply,
}

/// A decided transaction whose markers are to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// With the epoch that the markers carry.
    pub producer: Producer,
    pub is_commit: bool,
    /// The level of `transaction.version` by whose rules the markers are checked.
    pub version: i16,
    pub partitions: Vec<TopicPartition>,
}

#[derive(Debug)]
pub struct Coordinator {
    config: TransactionConfig,
    transactions: BTreeMap<Str, Transaction>,
    /// The ids that may run out of time, so that looking for them does not look at all.
    ongoing: BTreeSet<Str>,
    is_loading: bool,
}

impl Coordinator {
    /// An empty coordinator that waits for its log.
    pub fn new(config: TransactionConfig) -> Coordinator {
        Coordinator { config, transactions: BTreeMap::new(), ongoing: BTreeSet::new(), is_loading: true }
    }

    // Durable state: what the log says

    /// Takes in one record of the log.
    pub fn replay(&mut self, record: &TransactionRecord) {
        let id = &record.transactional_id;
        self.ongoing.remove(id);
        match &record.transaction {
            None => {
                self.transactions.remove(id);
            }
            Some(transaction) => {
                let id = self.transactions.get_key_value(id).map_or_else(|| id.detached(), |(known, _)| known.clone());
                if transaction.state == State::Ongoing {
                    self.ongoing.insert(id.clone());
                }
                self.transactions.insert(id, transaction.clone());
            }
        }
    }

    /// The log has been read to its end. Gives the transactions that were decided and not brought to their end.
    pub fn on_loaded(&mut self) -> Vec<Str> {
        assert!(self.is_loading);
        self.is_loading = false;
        let prepared = self.transactions.iter().filter(|(_, transaction)| transaction.state.is_prepared());
        prepared.map(|(id, _)| id.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.transactions.len()
    }

    pub fn get(&self, transactional_id: &str) -> Option<&Transaction> {
        self.transactions.get(transactional_id)
    }

    // Decisions

    /// Decides about one call. `server_version` is the finalised level of transaction.version, `fresh_producer_id` an id to be given out should one be needed.
    pub fn handle(&self, now_ms: i64, server_version: i16, fresh_producer_id: Option<i64>, call: &Call) -> Result<Step, NeedsProducerId> {
        assert!(!self.is_loading, "a coordinator that has not read its log knows nothing");
        let turn = Turn { now_ms, server_version, fresh_producer_id };
        match call {
            Call::Initialise { transactional_id, timeout_ms, expected } => {
                decided(transactional_id, self.initialise(&turn, transactional_id, *timeout_ms, *expected), Reply::Producer)
            }
            Call::AddPartitions { transactional_id, producer, partitions, client_version } => {
                let added = self.add_partitions(&turn, transactional_id, *producer, partitions, *client_version);
                decided(transactional_id, added, Reply::Added)
            }
            Call::Verify { transactional_id, producer, partitions } => {
                answer(Reply::Verified(self.verify(transactional_id, *producer, partitions)))
            }
            Call::End { transactional_id, producer, is_commit, client_version } => {
                let ended = if *client_version >= EPOCH_BUMP_VERSION {
                    self.end(&turn, transactional_id, *producer, *is_commit, *client_version)
                } else {
                    self.end_version_1(&turn, transactional_id, *producer, *is_commit)
                };
                decided(transactional_id, ended, Reply::Producer)
            }
            Call::Describe { transactional_id } => answer(Reply::Described(self.describe(transactional_id))),
            Call::List { states, producer_ids, duration_ms } => {
                answer(Reply::Listed(Ok(self.list(now_ms, states, producer_ids, *duration_ms))))
            }
        }
    }

    fn initialise(&self, turn: &Turn, id: &Str, timeout_ms: i32, expected: Option<Producer>) -> Outcome<Producer> {
        if id.is_empty() {
            return Err(Refused::Error(ErrorCode::InvalidRequest));
        }
        if timeout_ms <= 0 || timeout_ms > self.config.timeout_ms_max {
            return Err(Refused::Error(ErrorCode::InvalidTransactionTimeout));
        }
        let Some(known) = self.transactions.get(&**id) else {
            let fresh = Transaction::new(turn.fresh_producer_id()?);
            // Whoever comes back to an id that has expired may begin anew: there is nothing that it could interfere with.
            let last_epoch = NO_PRODUCER_EPOCH;
            return initialised(&fresh, Producer { epoch: 0, ..fresh.producer }, last_epoch, timeout_ms, turn.now_ms);
        };
        let is_valid = |expected: Producer| expected.id == known.producer.id || known.is_predecessor(expected);
        if !known.state.is_prepared() && !expected.is_none_or(is_valid) {
            return Err(Refused::Error(ErrorCode::ProducerFenced));
        }
        match known.state {
            // The client comes again until the end is reached.
            State::PrepareCommit | State::PrepareAbort => Err(Refused::Error(ErrorCode::ConcurrentTransactions)),
            // Its producer is fenced and its transaction aborted first; the epoch of that is never given to anybody.
            State::Ongoing => {
                let aborted = self.fence(turn, known)?;
                Ok(Settled { transaction: Some(aborted), answer: Err(ErrorCode::ConcurrentTransactions) })
            }
            State::Empty | State::CompleteCommit | State::CompleteAbort => raise_epoch(turn, known, expected, timeout_ms),
        }
    }

    fn add_partitions(&self, turn: &Turn, id: &Str, producer: Producer, partitions: &[TopicPartition], client_version: i16) -> Outcome<()> {
        let known = self.of_producer(id, producer)?;
        if known.producer.epoch != producer.epoch {
            return Err(Refused::Error(ErrorCode::ProducerFenced));
        }
        if known.state.is_prepared() {
            return Err(Refused::Error(ErrorCode::ConcurrentTransactions));
        }
        if known.state == State::Ongoing && partitions.iter().all(|partition| known.partitions.contains(partition)) {
            return Ok(Settled { transaction: None, answer: Ok(()) });
        }
        Ok(Settled { transaction: Some(known.with_partitions(partitions, client_version, turn.now_ms)), answer: Ok(()) })
    }

    fn verify(&self, id: &Str, producer: Producer, partitions: &[TopicPartition]) -> Result<Vec<ErrorCode>, ErrorCode> {
        let known = self.of_producer(id, producer).map_err(Refused::error)?;
        if known.producer.epoch != producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        if known.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let code = |partition| if known.partitions.contains(partition) { ErrorCode::None } else { ErrorCode::TransactionAbortable };
        Ok(partitions.iter().map(code).collect())
    }

    /// EndTxn from version 5 on. A request whose epoch is one below ours is the same request again: its first copy has raised the epoch.
    fn end(&self, turn: &Turn, id: &Str, producer: Producer, is_commit: bool, client_version: i16) -> Outcome<Producer> {
        let is_predecessor = |known: &Transaction| known.is_predecessor(producer) && known.producer.epoch == 0;
        let known = match self.transactions.get(&**id) {
            Some(known) if is_predecessor(known) => known,
            _ => self.of_producer(id, producer)?,
        };
        let is_current = producer == known.producer;
        let is_retry =
            is_predecessor(known) || (producer.id == known.producer.id && producer.epoch.checked_add(1) == Some(known.producer.epoch));
        let fenced = Err(Refused::Error(ErrorCode::ProducerFenced));
        let illegal = Err(Refused::Error(ErrorCode::InvalidTxnState));
        match known.state {
            // The same request again, or the next transaction's: both come again when the end is reached.
            State::PrepareCommit | State::PrepareAbort if is_current => Err(Refused::Error(ErrorCode::ConcurrentTransactions)),
            State::PrepareCommit | State::PrepareAbort if !is_retry => fenced,
            State::PrepareCommit if is_commit => Err(Refused::Error(ErrorCode::ConcurrentTransactions)),
            State::PrepareAbort if !is_commit => Err(Refused::Error(ErrorCode::ConcurrentTransactions)),
            State::PrepareCommit | State::PrepareAbort => illegal,

            State::Empty | State::Ongoing if !is_current => fenced,
            State::CompleteCommit | State::CompleteAbort if !is_current && !is_retry => fenced,
            State::CompleteCommit if is_retry && is_commit => Ok(Settled { transaction: None, answer: Ok(known.producer) }),
            State::CompleteAbort if is_retry && !is_commit => Ok(Settled { transaction: None, answer: Ok(known.producer) }),
            // Only the coordinator itself can have aborted what the producer wants to commit (KAFKA-20785).
            State::CompleteAbort if is_retry => fenced,
            State::CompleteCommit if is_retry => illegal,
            State::Empty | State::CompleteCommit | State::CompleteAbort if is_commit => illegal,
            // An abort without a partition: only the epoch rises.
            State::Ongoing | State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let next_producer_id = turn.id_behind(known, client_version)?;
                let prepared = known.prepared(is_commit, client_version, next_producer_id, turn.now_ms);
                let answer = Ok(prepared.next_producer());
                Ok(Settled { transaction: Some(prepared), answer })
            }
        }
    }

    /// EndTxn up to version 4.
    fn end_version_1(&self, turn: &Turn, id: &Str, producer: Producer, is_commit: bool) -> Outcome<Producer> {
        let known = self.of_producer(id, producer)?;
        if known.producer.epoch != producer.epoch {
            return Err(Refused::Error(ErrorCode::ProducerFenced));
        }
        match known.state {
            State::Ongoing => {
                let prepared = known.prepared(is_commit, 0, NO_PRODUCER_ID, turn.now_ms);
                Ok(Settled { transaction: Some(prepared), answer: Ok(producer) })
            }
            State::CompleteCommit if is_commit => Ok(Settled { transaction: None, answer: Ok(producer) }),
            State::CompleteAbort if !is_commit => Ok(Settled { transaction: None, answer: Ok(producer) }),
            State::PrepareCommit if is_commit => Err(Refused::Error(ErrorCode::ConcurrentTransactions)),
            State::PrepareAbort if !is_commit => Err(Refused::Error(ErrorCode::ConcurrentTransactions)),
            State::Empty | State::CompleteCommit | State::CompleteAbort | State::PrepareCommit | State::PrepareAbort => {
                Err(Refused::Error(ErrorCode::InvalidTxnState))
            }
        }
    }

    fn describe(&self, id: &Str) -> TransactionState {
        let refuse = |error: ErrorCode| TransactionState { error_code: error.code(), transactional_id: id.clone(), ..Default::default() };
        if id.is_empty() {
            return refuse(ErrorCode::InvalidRequest);
        }
        let Some(known) = self.transactions.get(&**id) else { return refuse(ErrorCode::TransactionalIdNotFound) };
        let mut topics: Vec<TopicData> = Vec::new();
        for (topic, partition) in &known.partitions {
            match topics.last_mut() {
                Some(last) if last.topic == *topic => last.partitions.push(*partition),
                _ => topics.push(TopicData { topic: topic.clone(), partitions: vec![*partition], ..Default::default() }),
            }
        }
        TransactionState {
            transactional_id: id.clone(),
            transaction_state: Str::from_static(known.state.name()),
            transaction_timeout_ms: known.timeout_ms,
            transaction_start_time_ms: known.started_ms,
            producer_id: known.producer.id,
            producer_epoch: known.producer.epoch,
            topics,
            ..Default::default()
        }
    }

    fn list(&self, now_ms: i64, states: &[State], producer_ids: &[i64], duration_ms: i64) -> Vec<Listed> {
        let passes = |known: &Transaction| {
            (states.is_empty() || states.contains(&known.state))
                && (producer_ids.is_empty() || producer_ids.contains(&known.producer.id))
                && (duration_ms < 0 || now_ms.saturating_sub(known.started_ms) > duration_ms)
        };
        let listed = self.transactions.iter().filter(|(_, known)| passes(known));
        listed.map(|(id, known)| Listed { transactional_id: id.clone(), producer_id: known.producer.id, state: known.state }).collect()
    }

    // The end of a decided transaction

    /// What is to be written into the partitions of a prepared transaction; None if it is not prepared any more.
    pub fn completion(&self, transactional_id: &str) -> Option<Completion> {
        let known = self.transactions.get(transactional_id).filter(|known| known.state.is_prepared())?;
        Some(Completion {
            producer: known.producer,
            is_commit: known.state == State::PrepareCommit,
            version: known.client_version,
            partitions: known.partitions.iter().cloned().collect(),
        })
    }

    /// The record that ends a transaction whose markers are durable. None if it has come to its end already.
    pub fn complete(&self, now_ms: i64, transactional_id: &str, completion: &Completion) -> Option<TransactionRecord> {
        let (id, known) = self.transactions.get_key_value(transactional_id)?;
        let is_this_one = known.state.is_prepared() && known.producer == completion.producer;
        is_this_one.then(|| TransactionRecord { transactional_id: id.clone(), transaction: Some(known.completed(now_ms)) })
    }

    // Time

    /// The transactions that have taken longer than their producers said.
    pub fn timed_out(&self, now_ms: i64) -> Vec<Str> {
        self.ongoing.iter().filter(|id| self.transactions[&**id].is_timed_out(now_ms)).cloned().collect()
    }

    /// The abort of a transaction that has run out of time, which fences its producer. None if it has not, or not any more.
    pub fn abort_timed_out(
        &self,
        now_ms: i64,
        server_version: i16,
        fresh_producer_id: Option<i64>,
        transactional_id: &Str,
    ) -> Option<Result<TransactionRecord, NeedsProducerId>> {
        let known = self.transactions.get(&**transactional_id).filter(|known| known.is_timed_out(now_ms))?;
        let turn = Turn { now_ms, server_version, fresh_producer_id };
        let record = |aborted| TransactionRecord { transactional_id: transactional_id.clone(), transaction: Some(aborted) };
        Some(self.fence(&turn, known).map(record).map_err(|_| NeedsProducerId))
    }

    /// Tombstones for ids that nobody has used for long, among `looks_max` of them behind `after`; and where to go on, None at the end.
    pub fn expire(&self, now_ms: i64, after: Option<&Str>, looks_max: usize) -> (Vec<TransactionRecord>, Option<Str>) {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(&**after));
        let mut looked = self.transactions.range::<str, _>((from, Bound::Unbounded));
        let (mut records, mut last) = (Vec::new(), None);
        for (id, known) in looked.by_ref().take(looks_max) {
            last = Some(id.clone());
            if known.is_expired(now_ms, self.config.id_expiration_ms) {
                records.push(TransactionRecord { transactional_id: id.clone(), transaction: None });
            }
        }
        let goes_on = looked.next().is_some();
        (records, last.filter(|_| goes_on))
    }

    // Below the decisions

    fn fence(&self, turn: &Turn, known: &Transaction) -> Result<Transaction, Refused> {
        let next_producer_id = turn.id_behind(known, turn.server_version)?;
        Ok(known.fenced(turn.server_version, next_producer_id, turn.now_ms))
    }

    /// The id's state, if it belongs to the producer.
    fn of_producer(&self, id: &Str, producer: Producer) -> Result<&Transaction, Refused> {
        if id.is_empty() {
            return Err(Refused::Error(ErrorCode::InvalidRequest));
        }
        match self.transactions.get(&**id) {
            // Told of the id that follows, and asked with it before the end is reached.
            Some(known) if known.state.is_prepared() && known.next_producer() == producer && known.producer != producer => {
                Err(Refused::Error(ErrorCode::ConcurrentTransactions))
            }
            Some(known) if known.producer.id == producer.id => Ok(known),
            _ => Err(Refused::Error(ErrorCode::InvalidProducerIdMapping)),
        }
    }
}

/// Nothing is decided, because a producer id would have to be given out: the call is to be made again with one that nobody has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsProducerId;

/// What a decision may look at besides the state.
struct Turn {
    now_ms: i64,
    server_version: i16,
    fresh_producer_id: Option<i64>,
}

impl Turn {
    fn fresh_producer_id(&self) -> Result<i64, Refused> {
        self.fresh_producer_id.ok_or(Refused::NeedsProducerId)
    }

    /// The id behind a transaction's end, where that uses up the last epoch of the present one (KIP-890).
    fn id_behind(&self, known: &Transaction, version: i16) -> Result<i64, Refused> {
        if version >= EPOCH_BUMP_VERSION && known.is_epoch_exhausted() { self.fresh_producer_id() } else { Ok(NO_PRODUCER_ID) }
    }
}

/// The state that a decision leads to, if another one, and the answer.
struct Settled<T> {
    transaction: Option<Transaction>,
    answer: Result<T, ErrorCode>,
}

enum Refused {
    Error(ErrorCode),
    NeedsProducerId,
}

impl Refused {
    fn error(self) -> ErrorCode {
        match self {
            Refused::Error(error) => error,
            Refused::NeedsProducerId => unreachable!("no id is given out here"),
        }
    }
}

type Outcome<T> = Result<Settled<T>, Refused>;

fn decided<T>(id: &Str, outcome: Outcome<T>, reply: impl Fn(Result<T, ErrorCode>) -> Reply) -> Result<Step, NeedsProducerId> {
    match outcome {
        Ok(Settled { transaction, answer }) => {
            let record = transaction.map(|transaction| TransactionRecord { transactional_id: id.clone(), transaction: Some(transaction) });
            Ok(Step { record, reply: reply(answer) })
        }
        Err(Refused::Error(error)) => answer(reply(Err(error))),
        Err(Refused::NeedsProducerId) => Err(NeedsProducerId),
    }
}

fn answer(reply: Reply) -> Result<Step, NeedsProducerId> {
    Ok(Step { record: None, reply })
}

fn initialised(known: &Transaction, producer: Producer, last_epoch: i16, timeout_ms: i32, now_ms: i64) -> Outcome<Producer> {
    let transaction = known.initialised(producer, last_epoch, timeout_ms, now_ms);
    Ok(Settled { transaction: Some(transaction), answer: Ok(producer) })
}

/// The next epoch of an idle id, or of a new id if there is none. A producer that says who it believes to be gets the next epoch only from its own, and the present one from the
/// one before: then the answer to the same request was lost (KIP-360).
fn raise_epoch(turn: &Turn, known: &Transaction, expected: Option<Producer>, timeout_ms: i32) -> Outcome<Producer> {
    let current = known.producer;
    match expected {
        Some(expected) if expected != current => {
            let is_retry = expected.epoch != NO_PRODUCER_EPOCH && expected.epoch == known.last_producer_epoch;
            if !is_retry {
                return Err(Refused::Error(ErrorCode::ProducerFenced));
            }
            initialised(known, current, known.last_producer_epoch, timeout_ms, turn.now_ms)
        }
        _ => {
            let last_epoch = if expected.is_some() { current.epoch } else { NO_PRODUCER_EPOCH };
            let next = if known.is_epoch_exhausted() {
                Producer { id: turn.fresh_producer_id()?, epoch: 0 }
            } else {
                Producer { epoch: current.epoch + 1, ..current }
            };
            initialised(known, next, last_epoch, timeout_ms, turn.now_ms)
        }
    }
}
