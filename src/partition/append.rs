//! Append: admission, the journal, the log's books, the tail cache; in one go without an await, so that offsets are given in the order of arrival.
//!
//! What is appended is neither durable nor visible when `append` returns. Whoever answers a client waits for `Appending::sequence` first, also for a duplicate: its original may
//! still be on its way to the disk.

use super::Partition;
use super::durability::{Counts, GroupSequence};
use crate::cluster::METADATA_PARTITION;
use crate::disk::journal::{EntryHeader, JournalError, Written};
use crate::disk::tail::TailBatch;
use crate::disk::trace;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{Admission, AppendError, Appended, Origin, Placed, ValidatedBatch, VerificationGuard};
use crate::rt;
use crate::rt::plant::{Plant, is_planted};

/// An append that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appending {
    pub base_offset: i64,
    pub last_offset: i64,
    /// What the answer says as LogAppendTime: the broker's stamp, -1 for producers' timestamps, and the original's timestamp for a duplicate.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// The batch was in the log already and was not appended again.
    pub is_duplicate: bool,
    /// The append is durable when this group is.
    pub sequence: GroupSequence,
    /// When it may be answered, and is visible.
    pub counts: Counts,
}

/// Why nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryAppendError {
    /// The journal has no room at present, or others wait for it.
    Full,
    Refused(AppendError),
}

impl From<AppendError> for TryAppendError {
    fn from(error: AppendError) -> Self {
        TryAppendError::Refused(error)
    }
}

impl Partition {
    /// Appends a batch. Waits only while the journal is full, behind those who came before.
    pub async fn append(&self, batch: &ValidatedBatch, origin: Origin) -> Result<Appending, AppendError> {
        self.append_with_room(batch, || self.try_append(batch, origin)).await
    }

    /// Calls `append` until there is room, or until it is refused: also while it waits, when the data directory has become full or has failed.
    async fn append_with_room(
        &self,
        batch: &ValidatedBatch,
        append: impl Fn() -> Result<Appending, TryAppendError>,
    ) -> Result<Appending, AppendError> {
        let is_full = |error: &TryAppendError| *error == TryAppendError::Full;
        let disk = self.disk();
        match self.environment.with_room(&self.id, batch.bytes.len(), disk.refuses(), append, is_full).await {
            Ok(Ok(appending)) => Ok(appending),
            Ok(Err(TryAppendError::Refused(error))) => Err(error),
            Ok(Err(TryAppendError::Full)) => unreachable!("the wait ends with room"),
            Err(error) => Err(self.refusal(&error, batch)),
        }
    }

    /// Appends a batch if the journal has room now.
    pub fn try_append(&self, batch: &ValidatedBatch, origin: Origin) -> Result<Appending, TryAppendError> {
        self.check_writable(origin)?;
        let now_ms = rt::wall_clock_ms();
        let admission = self.log.borrow().check(batch, origin)?;
        if let Admission::Duplicate { base_offset, last_offset, timestamp } = admission {
            return Ok(self.duplicate(base_offset, last_offset, timestamp));
        }
        let placed = self.log.borrow().place(batch, origin, now_ms);
        let leader_epoch = if origin == Origin::Replication { batch.info.leader_epoch } else { self.leadership.get().epoch };
        let counts = self.counts();
        let written = self.write(batch, &placed, leader_epoch, counts)?;
        trace::promised(self.id, placed.base_offset, placed.last_offset, counts.promise());
        let appended = self.log.borrow_mut().append(batch, &placed, leader_epoch, now_ms);
        self.is_changed.set(true);
        self.remember(&appended, &written);
        let counts = if written.is_shadowed { counts.when_shadowed() } else { counts };
        self.count_with(written.sequence, counts, placed.last_offset + 1, batch.bytes.len());
        if counts != Counts::Durable {
            self.flush_in_time(written.sequence, batch.info.record_count);
        }
        if matches!(origin, Origin::Client { .. }) {
            self.disk().took(batch.bytes.len());
        }
        self.follow_up(appended);
        Ok(Appending {
            base_offset: placed.base_offset,
            last_offset: placed.last_offset,
            log_append_time_ms: batch.log_append_time_ms,
            log_start_offset: self.log_start_offset(),
            is_duplicate: false,
            sequence: if is_planted(Plant::EarlyRoll) && placed.position == 0 { GroupSequence(0) } else { written.sequence },
            counts,
        })
    }

    /// As `append`, for a client's batch that must belong to a transaction whose coordinator was asked under `guard`; see `VerificationGuard`.
    pub async fn append_verified(
        &self,
        batch: &ValidatedBatch,
        origin: Origin,
        guard: Option<VerificationGuard>,
    ) -> Result<Appending, AppendError> {
        self.append_with_room(batch, || self.try_append_verified(batch, origin, guard)).await
    }

    /// As `try_append`, under a guard.
    pub fn try_append_verified(
        &self,
        batch: &ValidatedBatch,
        origin: Origin,
        guard: Option<VerificationGuard>,
    ) -> Result<Appending, TryAppendError> {
        self.check_writable(origin)?;
        self.log.borrow().producers().check_guard(&batch.info, guard)?;
        self.try_append(batch, origin)
    }

    /// Resolves when the journal has room for more, which an append straight after it will most likely find.
    pub async fn wait_for_room(&self, size_bytes: usize) -> Result<(), AppendError> {
        if self.environment.journal.check_room(&self.id, size_bytes).is_ok() {
            return Ok(());
        }
        self.environment.journal.wait_for_room(&self.id, size_bytes).await.map(drop).map_err(|_| AppendError::Storage)
    }

    fn check_writable(&self, origin: Origin) -> Result<(), AppendError> {
        if self.is_deleted.get() || self.environment.is_stopping.get() {
            return Err(AppendError::NotLeader);
        }
        let is_client = matches!(origin, Origin::Client { .. });
        let disk = self.disk();
        if self.failure.borrow().is_some() || disk.has_failed() || (is_client && !disk.takes_records()) {
            return Err(AppendError::Storage);
        }
        let must_lead = origin != Origin::Replication;
        if must_lead && !self.is_leader() { Err(AppendError::NotLeader) } else { Ok(()) }
    }

    fn duplicate(&self, base_offset: i64, last_offset: i64, timestamp: i64) -> Appending {
        let (sequence, counts) =
            if is_planted(Plant::EarlyDuplicate) { (GroupSequence(0), Counts::Durable) } else { self.sequence_of(last_offset) };
        Appending {
            base_offset,
            last_offset,
            log_append_time_ms: timestamp,
            log_start_offset: self.log_start_offset(),
            is_duplicate: true,
            sequence,
            counts,
        }
    }

    /// Copies the batch into the journal's open group, with the offset and the epoch that it has from now on. The checksum covers neither.
    fn write(&self, batch: &ValidatedBatch, placed: &Placed, leader_epoch: i32, counts: Counts) -> Result<Written, TryAppendError> {
        let header =
            EntryHeader::append(self.id, placed.segment_base, placed.position, placed.base_offset, placed.last_offset, leader_epoch);
        let bytes = &batch.bytes;
        let payload = [&placed.base_offset.to_be_bytes()[..], &bytes[8..12], &leader_epoch.to_be_bytes()[..], &bytes[16..]];
        let journal = &self.environment.journal;
        let written = match counts {
            Counts::Durable => journal.append(&header, &payload),
            Counts::Written | Counts::InMemory => journal.append_weak(&header, &payload),
        };
        // The deletion of a topic begins in the metadata: it must not wait for the room that it makes.
        let written = match written {
            Err(JournalError::Full) if self.id == METADATA_PARTITION => journal.append_release(&header, &payload),
            written => written,
        };
        written.map_err(|error| match error {
            JournalError::Full => TryAppendError::Full,
            other => TryAppendError::Refused(self.refusal(&other, batch)),
        })
    }

    fn refusal(&self, error: &JournalError, batch: &ValidatedBatch) -> AppendError {
        match error {
            JournalError::TooLarge { payload_bytes_max, .. } => {
                AppendError::BatchLargerThanJournal { size_bytes: batch.info.size_bytes, size_bytes_max: *payload_bytes_max }
            }
            JournalError::Full | JournalError::Failed { .. } => AppendError::Storage,
        }
    }

    fn remember(&self, appended: &Appended, written: &Written) {
        let batch = TailBatch {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            segment_base: appended.segment_base,
            position: appended.position,
            sequence: written.sequence,
            bytes: written.bytes.clone(),
        };
        self.environment.tail_cache.push(&self.tail, batch);
    }

    fn follow_up(&self, appended: Appended) {
        if let Some(aborted) = appended.completed_transaction.as_ref().and_then(AbortedTransaction::from_completed) {
            self.aborted.borrow_mut().push((appended.segment_base, aborted));
        }
        if let Some(roll) = appended.roll {
            self.segment_closed(roll, appended.base_offset);
        }
    }
}
