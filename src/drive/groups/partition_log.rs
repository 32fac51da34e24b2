//! A partition of `__consumer_offsets` as the log of its coordinator.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::log::OffsetsLog;
use crate::disk::journal::Journal;
use crate::log::{Origin, ValidatedBatch, VerificationGuard};
use crate::partition::{GroupSequence, Partition, TryAppendError};
use crate::rt;
use crate::wire::ErrorCode;

/// How long a coordinator waits for room in the journal before it refuses, so that clients hear of it in time to ask again. On a full disk there may be none for long.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

pub(in crate::drive) struct PartitionLog {
    pub(in crate::drive) partition: Rc<Partition>,
    pub(in crate::drive) journal: Rc<Journal>,
    /// `max.message.bytes` of the topic, as it is now.
    pub(in crate::drive) batch_bytes_max: Rc<Cell<usize>>,
    /// How much is read at a time while loading.
    pub(in crate::drive) read_bytes: usize,
    /// `offsets.commit.timeout.ms`
    pub(in crate::drive) commit_timeout: Duration,
}

impl OffsetsLog for PartitionLog {
    type Mark = GroupSequence;

    fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max.get()
    }

    async fn with_room<T>(&self, bytes: usize, decide: impl FnOnce() -> T) -> T {
        let partition = self.partition.id();
        if bytes == 0 || self.journal.check_room(&partition, bytes).is_ok() {
            return decide();
        }
        match rt::timeout(self.commit_timeout.min(ROOM_PATIENCE), self.journal.wait_for_room(&partition, bytes)).await {
            Ok(Ok(room)) => room.enter(decide),
            // Room for so much will never be, or there has been none for too long: the append says so.
            Ok(Err(_)) | Err(rt::Elapsed) => decide(),
        }
    }

    fn append(&self, batch: Bytes) -> Result<(i64, GroupSequence), ErrorCode> {
        match self.partition.try_append(&ValidatedBatch::internal(batch), Origin::INTERNAL) {
            Ok(appending) => Ok((appending.base_offset, appending.sequence)),
            // More was to be written than room had been asked for, or there was none for too long. It clears itself, as a late replica does.
            Err(TryAppendError::Full) => Err(ErrorCode::RequestTimedOut),
            Err(TryAppendError::Refused(error)) => Err(error.error_code()),
        }
    }

    fn append_in_transaction(&self, batch: Bytes, guard: Option<VerificationGuard>) -> Result<(i64, GroupSequence), ErrorCode> {
        match self.partition.try_append_verified(&ValidatedBatch::internal(batch), Origin::INTERNAL, guard) {
            Ok(appending) => Ok((appending.base_offset, appending.sequence)),
            Err(TryAppendError::Full) => Err(ErrorCode::RequestTimedOut),
            Err(TryAppendError::Refused(error)) => Err(error.error_code()),
        }
    }

    fn append_marker(&self, marker: &ValidatedBatch, transaction_version: i16) -> Result<GroupSequence, ErrorCode> {
        match self.partition.try_append(marker, Origin::Coordinator { transaction_version }) {
            Ok(appending) => Ok(appending.sequence),
            Err(TryAppendError::Full) => Err(ErrorCode::RequestTimedOut),
            Err(TryAppendError::Refused(error)) => Err(error.error_code()),
        }
    }

    async fn committed(&self, mark: GroupSequence) -> Result<(), ErrorCode> {
        match rt::timeout(self.commit_timeout, self.partition.wait_durable(mark)).await {
            Ok(outcome) => outcome.map_err(|error| error.error_code()),
            Err(rt::Elapsed) => Err(ErrorCode::RequestTimedOut),
        }
    }

    async fn read(&self, offset: i64) -> Result<Vec<Bytes>, ErrorCode> {
        let from = offset.max(self.partition.log_start_offset());
        let batches = self.partition.read_batches(from, self.read_bytes).await.map_err(|refusal| refusal.error_code())?;
        Ok(batches.into_iter().map(|(_, batch)| batch).collect())
    }
}
