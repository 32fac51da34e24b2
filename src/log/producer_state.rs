//! What a log remembers of its producers, so that a retried batch is stored once and a transaction ends where it must (KIP-98, KIP-890).
//!
//! `check` decides and changes nothing; `apply` takes a batch that the log has accepted, or one that it finds again after a restart. So both ways of filling the state are
//! the same one, and a refused append leaves no trace. The state is written down by log::producer_snapshot.
//!
//! Kafka remembers a producer until its last *record's* timestamp is `producer.id.expiration.ms` old; here the time of its last append counts where it is known, so that a
//! producer of old records is not forgotten between two of its batches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use super::batch::{BatchInfo, EndMarker, Origin, sequence_minus};
use super::{AppendError, NO_OFFSET, NO_PRODUCER_EPOCH, NO_SEQUENCE, NO_TIMESTAMP};

/// The batches of a producer that are recognised when they come again: a client keeps at most five requests in flight to a partition.
pub const BATCHES_REMEMBERED: usize = 5;
/// Kept within the state itself; most producers of a large number have sent little, and their memory is what counts.
const BATCHES_INLINE: usize = 1;

/// One remembered batch. Its first sequence and first offset follow from its last ones and the delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedBatch {
    pub last_sequence: i32,
    pub last_offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl RememberedBatch {
    pub fn first_sequence(&self) -> i32 {
        sequence_minus(self.last_sequence, self.offset_delta)
    }

    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer as this log has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: i16,
    /// Of the coordinator that wrote the last marker, -1 before any.
    pub coordinator_epoch: i32,
    /// The largest timestamp of the last batch, or of the last marker.
    pub last_timestamp: i64,
    /// When the last batch was appended; the last timestamp where only the log was there to tell.
    pub last_append_ms: i64,
    /// The first offset of the open transaction.
    pub transaction_first_offset: Option<i64>,
    /// Oldest first, all of the current epoch.
    pub batches: SmallVec<[RememberedBatch; BATCHES_INLINE]>,
    /// The last offset, of a batch or a marker, that changed this state.
    pub last_change_offset: i64,
    /// The last marker that this process has seen; see `VerificationGuard`. Not written down: no guard outlives the process.
    pub last_marker_offset: i64,
}

/// Shows that no transaction of a producer has ended in this log since the guard was taken (KIP-890).
///
/// Whoever wants to append the first batch of a transaction takes a guard, asks the coordinator whether the partition belongs to the transaction, and appends with the guard.
/// A marker that slips in between makes the guard worthless; without it, the late batch would open a transaction that nobody ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard {
    last_marker_offset: i64,
}

impl ProducerState {
    fn empty() -> Self {
        Self {
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: NO_TIMESTAMP,
            last_append_ms: NO_TIMESTAMP,
            transaction_first_offset: None,
            batches: SmallVec::new(),
            last_change_offset: NO_OFFSET,
            last_marker_offset: NO_OFFSET,
        }
    }

    pub fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn duplicate_of(&self, info: &BatchInfo) -> Option<RememberedBatch> {
        if info.producer_epoch != self.epoch {
            return None;
        }
        let last_sequence = info.last_sequence();
        self.batches.iter().find(|batch| batch.last_sequence == last_sequence && batch.first_sequence() == info.base_sequence).copied()
    }

    /// A new epoch starts a new sequence: what the old one sent can no longer be a duplicate.
    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }

    fn remember(&mut self, batch: RememberedBatch) {
        if self.batches.len() == BATCHES_REMEMBERED {
            self.batches.remove(0);
        }
        self.batches.push(batch);
    }

    fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.transaction_first_offset.is_none() && now_ms - self.last_append_ms >= expiration_ms
    }
}

/// What admission says of a batch's producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerCheck {
    Accept,
    /// It is in the log already, as this batch.
    Duplicate(RememberedBatch),
}

/// A transaction that a marker has ended in this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The marker's own offset.
    pub last_offset: i64,
    pub is_aborted: bool,
    /// The first offset that is still undecided after it: what the transaction index notes beside an abort.
    pub last_stable_offset: i64,
}

/// One line of DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerView {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    /// -1 without an open transaction.
    pub transaction_first_offset: i64,
}

/// Producers by id. The map is persistent (imbl): a copy costs nothing and stays as it is, so that the producers of one moment can be written down a few at a time while the log
/// goes on; and it grows without ever being copied as a whole.
pub type Producers = imbl::OrdMap<i64, Arc<ProducerState>>;

/// Producers that one step of a longer work looks at, so that it takes a fraction of a millisecond, however many there are.
pub const PRODUCERS_PER_STEP: usize = 500;

/// Some of the producers, those with the lowest ids above `after`.
pub fn some_producers(producers: &Producers, after: Option<i64>) -> impl Iterator<Item = (i64, &ProducerState)> {
    let above = after.map_or(Bound::Unbounded, Bound::Excluded);
    producers.range((above, Bound::Unbounded)).take(PRODUCERS_PER_STEP).map(|(producer_id, state)| (*producer_id, &**state))
}

/// All producers of one log, its open transactions, and those that are decided but whose marker is not below the high watermark yet.
#[derive(Clone, Debug, Default)]
pub struct ProducerStates {
    producers: Producers,
    /// First offset to producer id.
    open_transactions: BTreeMap<i64, i64>,
    /// First offset to the marker's offset.
    unreplicated_transactions: BTreeMap<i64, i64>,
    /// The state holds everything below this offset.
    end_offset: i64,
}

impl ProducerStates {
    pub fn new(end_offset: i64) -> Self {
        Self { end_offset, ..Self::default() }
    }

    /// The state as of `end_offset`, from the producers of that moment.
    pub fn of(producers: Producers, end_offset: i64) -> Self {
        let open = |(id, state): (&i64, &Arc<ProducerState>)| state.transaction_first_offset.map(|first_offset| (first_offset, *id));
        let open_transactions = producers.iter().filter_map(open).collect();
        Self { producers, open_transactions, unreplicated_transactions: BTreeMap::new(), end_offset }
    }

    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    pub fn get(&self, producer_id: i64) -> Option<&ProducerState> {
        self.producers.get(&producer_id).map(|state| &**state)
    }

    /// The producers of this moment.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    fn change(&mut self, producer_id: i64) -> &mut ProducerState {
        Arc::make_mut(self.producers.entry(producer_id).or_insert_with(|| Arc::new(ProducerState::empty())))
    }

    /// Whether `info` may follow what its producer sent before. Says Accept of any batch without a producer id.
    pub fn check(&self, info: &BatchInfo, end_marker: Option<&EndMarker>, origin: Origin) -> Result<ProducerCheck, AppendError> {
        if !info.has_producer_id() || origin == Origin::Replication {
            return Ok(ProducerCheck::Accept);
        }
        let state = self.get(info.producer_id);
        if let (Some(marker), Origin::Coordinator { transaction_version }) = (end_marker, origin) {
            check_marker(info, marker, state, transaction_version)?;
            return Ok(ProducerCheck::Accept);
        }
        if let Origin::Client { transaction_version } = origin {
            if let Some(duplicate) = state.and_then(|state| state.duplicate_of(info)) {
                return Ok(ProducerCheck::Duplicate(duplicate));
            }
            check_epoch(info, state)?;
            check_sequence(info, state, transaction_version)?;
        } else {
            check_epoch(info, state)?;
        }
        if !info.is_transactional && state.is_some_and(|state| state.transaction_first_offset.is_some()) {
            return Err(AppendError::ExpectedTransactionalBatch { producer_id: info.producer_id });
        }
        Ok(ProducerCheck::Accept)
    }

    /// Takes a batch that is in the log, at the offset that `info` carries. `appended_ms` is now, or the batch's own timestamp where the log is read again.
    /// Returns the transaction that it ends, if it ends one that has records here.
    pub fn apply(&mut self, info: &BatchInfo, end_marker: Option<&EndMarker>, appended_ms: i64) -> Option<CompletedTransaction> {
        debug_assert!(info.base_offset >= self.end_offset, "batches are applied in the order of the log");
        self.end_offset = info.last_offset() + 1;
        if !info.has_producer_id() {
            return None;
        }
        match end_marker {
            Some(marker) => self.apply_marker(info, marker, appended_ms),
            // A control batch without a record is what compaction leaves of a marker whose transaction is gone.
            None if info.is_control => None,
            None => {
                self.apply_data(info, appended_ms);
                None
            }
        }
    }

    fn apply_data(&mut self, info: &BatchInfo, appended_ms: i64) {
        let last_offset = info.last_offset();
        let state = self.change(info.producer_id);
        state.set_epoch(info.producer_epoch);
        state.remember(RememberedBatch {
            last_sequence: info.last_sequence(),
            last_offset,
            offset_delta: info.last_offset_delta,
            timestamp: info.max_timestamp,
        });
        state.last_timestamp = info.max_timestamp;
        state.last_append_ms = appended_ms;
        state.last_change_offset = last_offset;
        if info.is_transactional && state.transaction_first_offset.is_none() {
            state.transaction_first_offset = Some(info.base_offset);
            self.open_transactions.insert(info.base_offset, info.producer_id);
        }
    }

    fn apply_marker(&mut self, info: &BatchInfo, marker: &EndMarker, appended_ms: i64) -> Option<CompletedTransaction> {
        let last_offset = info.last_offset();
        let state = self.change(info.producer_id);
        let first_offset = state.transaction_first_offset.take();
        state.set_epoch(info.producer_epoch);
        state.last_marker_offset = last_offset;
        state.coordinator_epoch = marker.coordinator_epoch;
        state.last_timestamp = info.max_timestamp;
        state.last_append_ms = appended_ms;
        state.last_change_offset = last_offset;

        // A marker without a record of its transaction here decides nothing.
        let first_offset = first_offset?;
        self.open_transactions.remove(&first_offset);
        self.unreplicated_transactions.insert(first_offset, last_offset);
        let last_stable_offset = self.open_transactions.keys().next().copied().unwrap_or(last_offset + 1);
        Some(CompletedTransaction {
            producer_id: info.producer_id,
            first_offset,
            last_offset,
            is_aborted: !marker.is_commit,
            last_stable_offset,
        })
    }

    /// Whether the producer's open transaction here is of this epoch: then its records need no further verification (KIP-890).
    pub fn has_open_transaction(&self, producer_id: i64, producer_epoch: i16) -> bool {
        self.producers.get(&producer_id).is_some_and(|state| state.epoch == producer_epoch && state.transaction_first_offset.is_some())
    }

    /// A guard for the first batch of a transaction; None if the transaction is open here, so that its coordinator need not be asked.
    pub fn guard(&self, producer_id: i64, producer_epoch: i16) -> Option<VerificationGuard> {
        let is_open = self.has_open_transaction(producer_id, producer_epoch);
        (!is_open).then(|| VerificationGuard { last_marker_offset: self.last_marker_offset(producer_id) })
    }

    /// Whether a transactional batch may be appended under `guard`, None being the answer of one who found the transaction open.
    pub fn check_guard(&self, info: &BatchInfo, guard: Option<VerificationGuard>) -> Result<(), AppendError> {
        let is_valid = guard.is_some_and(|guard| guard.last_marker_offset == self.last_marker_offset(info.producer_id));
        if is_valid || self.has_open_transaction(info.producer_id, info.producer_epoch) {
            return Ok(());
        }
        Err(AppendError::NotInTransaction { producer_id: info.producer_id })
    }

    fn last_marker_offset(&self, producer_id: i64) -> i64 {
        self.producers.get(&producer_id).map_or(NO_OFFSET, |state| state.last_marker_offset)
    }

    /// The first offset that is undecided, or decided by a marker at or above the high watermark. The last stable offset does not pass it.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let open = self.open_transactions.keys().next();
        let unreplicated = self.unreplicated_transactions.keys().next();
        open.into_iter().chain(unreplicated).min().copied()
    }

    pub fn high_watermark_moved(&mut self, high_watermark: i64) {
        if !self.unreplicated_transactions.is_empty() {
            self.unreplicated_transactions.retain(|_, marker_offset| *marker_offset >= high_watermark);
        }
    }

    /// Records below `log_start_offset` are gone; producers are remembered all the same, as Kafka does, until they expire.
    pub fn log_start_moved(&mut self, log_start_offset: i64) {
        self.unreplicated_transactions.retain(|_, marker_offset| *marker_offset >= log_start_offset);
        self.end_offset = self.end_offset.max(log_start_offset);
    }

    /// Looks at some producers, those with the lowest ids above `after`, and forgets the ones that have been idle for `expiration_ms`, never one with an open transaction. Gives the id
    /// to go on after; None when all have been looked at.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64, after: Option<i64>) -> Option<i64> {
        let (mut looks, mut last, mut expired) = (0, None, Vec::new());
        for (producer_id, state) in some_producers(&self.producers, after) {
            (looks, last) = (looks + 1, Some(producer_id));
            if state.is_expired(now_ms, expiration_ms) {
                expired.push(producer_id);
            }
        }
        for producer_id in expired {
            self.producers.remove(&producer_id);
        }
        last.filter(|_| looks == PRODUCERS_PER_STEP)
    }
}

/// Looks at some of the producers, those with the lowest ids above `after`, and adds what a client may see of them to `views`: nothing that a batch at or above `high_watermark` brought.
/// Gives the id to go on after; None when all have been looked at.
pub fn view_some(producers: &Producers, high_watermark: i64, after: Option<i64>, views: &mut Vec<ProducerView>) -> Option<i64> {
    let (mut looks, mut last) = (0, None);
    for (producer_id, state) in some_producers(producers, after) {
        (looks, last) = (looks + 1, Some(producer_id));
        views.extend(view(producer_id, state, high_watermark));
    }
    last.filter(|_| looks == PRODUCERS_PER_STEP)
}

fn check_epoch(info: &BatchInfo, state: Option<&ProducerState>) -> Result<(), AppendError> {
    match state {
        Some(state) if info.producer_epoch < state.epoch => Err(stale_epoch(info, state)),
        _ => Ok(()),
    }
}

fn check_sequence(info: &BatchInfo, state: Option<&ProducerState>, transaction_version: i16) -> Result<(), AppendError> {
    let (producer_id, sequence) = (info.producer_id, info.base_sequence);
    let nothing_remembered = state.is_none_or(|state| state.batches.is_empty());
    if info.is_transactional && transaction_version >= 2 && nothing_remembered && sequence != 0 {
        return Err(AppendError::SequenceMustBeginAtZero { producer_id, sequence });
    }
    // A producer that this log does not know may have been forgotten: any sequence is as good as another.
    let Some(state) = state.filter(|state| state.epoch != NO_PRODUCER_EPOCH) else { return Ok(()) };
    if info.producer_epoch != state.epoch {
        if sequence != 0 {
            return Err(AppendError::SequenceMustBeginAtZero { producer_id, sequence });
        }
        return Ok(());
    }
    let last_sequence = state.last_sequence();
    let follows = i64::from(sequence) == i64::from(last_sequence) + 1 || (sequence == 0 && last_sequence == i32::MAX);
    if follows { Ok(()) } else { Err(AppendError::OutOfOrderSequence { producer_id, sequence, last_sequence }) }
}

fn check_marker(info: &BatchInfo, marker: &EndMarker, state: Option<&ProducerState>, transaction_version: i16) -> Result<(), AppendError> {
    let Some(state) = state else { return Ok(()) };
    if transaction_version >= 2 {
        // Under version 2 the coordinator raises the epoch with each marker, so an equal one is late, unless it is the same marker again: its transaction has ended here
        // and only the answer was lost (KAFKA-19999). An exhausted epoch cannot be raised and is let through.
        let repeated = info.producer_epoch == state.epoch && (state.transaction_first_offset.is_none() || state.epoch == i16::MAX);
        if info.producer_epoch <= state.epoch && !repeated {
            return Err(stale_epoch(info, state));
        }
    } else if info.producer_epoch < state.epoch {
        return Err(stale_epoch(info, state));
    }
    if marker.coordinator_epoch < state.coordinator_epoch {
        return Err(AppendError::StaleCoordinator {
            producer_id: info.producer_id,
            coordinator_epoch: marker.coordinator_epoch,
            current_epoch: state.coordinator_epoch,
        });
    }
    Ok(())
}

fn stale_epoch(info: &BatchInfo, state: &ProducerState) -> AppendError {
    AppendError::StaleProducerEpoch { producer_id: info.producer_id, epoch: info.producer_epoch, current_epoch: state.epoch }
}

fn view(producer_id: i64, state: &ProducerState, high_watermark: i64) -> Option<ProducerView> {
    let visible = |last_sequence, last_timestamp| ProducerView {
        producer_id,
        producer_epoch: state.epoch,
        last_sequence,
        last_timestamp,
        coordinator_epoch: state.coordinator_epoch,
        transaction_first_offset: state.transaction_first_offset.filter(|&first| first < high_watermark).unwrap_or(NO_OFFSET),
    };
    if state.last_change_offset < high_watermark {
        return Some(visible(state.last_sequence(), state.last_timestamp));
    }
    let last = state.batches.iter().rev().find(|batch| batch.last_offset < high_watermark)?;
    Some(visible(last.last_sequence, last.timestamp))
}

#[cfg(test)]
#[path = "producer_state_tests.rs"]
mod tests;
