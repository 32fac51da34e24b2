//! Why an append is refused, and Kafka's code for it.

use std::fmt;

use crate::wire::ErrorCode;

/// One variant for each reason; the text goes to the client as the partition's error message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// This replica does not lead the partition (any more).
    NotLeader,
    /// The batch alone is larger than a segment may be (`segment.bytes`).
    BatchLargerThanSegment { size_bytes: u32, segment_bytes: i32 },
    /// The batch does not fit into the journal, however empty that is (`journal.bytes`).
    BatchLargerThanJournal { size_bytes: u32, size_bytes_max: usize },
    /// The sequence number does not follow the producer's last one.
    OutOfOrderSequence { producer_id: i64, sequence: i32, last_sequence: i32 },
    /// A new producer epoch, or a producer unknown to this log under transaction version 2, must begin with sequence 0.
    SequenceMustBeginAtZero { producer_id: i64, sequence: i32 },
    /// The producer's epoch is older than the newest that this log has seen.
    StaleProducerEpoch { producer_id: i64, epoch: i16, current_epoch: i16 },
    /// A batch outside a transaction while the producer's transaction is open here.
    ExpectedTransactionalBatch { producer_id: i64 },
    /// A batch of a transaction that has ended, or that its coordinator was not asked about.
    NotInTransaction { producer_id: i64 },
    /// A transaction marker from a coordinator that has been replaced.
    StaleCoordinator { producer_id: i64, coordinator_epoch: i32, current_epoch: i32 },
    /// Replicated bytes that do not begin at the log's end.
    UnexpectedOffset { base_offset: i64, log_end_offset: i64 },
    /// The partition takes no writes: a write or flush that it depends on has failed, or its directory is offline.
    Storage,
}

impl AppendError {
    pub fn error_code(&self) -> ErrorCode {
        match self {
            AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
            AppendError::BatchLargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            AppendError::BatchLargerThanJournal { .. } => ErrorCode::MessageTooLarge,
            AppendError::OutOfOrderSequence { .. } | AppendError::SequenceMustBeginAtZero { .. } => ErrorCode::OutOfOrderSequenceNumber,
            // 47, not PRODUCER_FENCED (90): the latter would be fatal to the producer, which may abort and go on (KIP-588).
            AppendError::StaleProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            AppendError::ExpectedTransactionalBatch { .. } | AppendError::NotInTransaction { .. } => ErrorCode::InvalidTxnState,
            AppendError::StaleCoordinator { .. } => ErrorCode::TransactionCoordinatorFenced,
            AppendError::UnexpectedOffset { .. } => ErrorCode::UnknownServerError,
            AppendError::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::NotLeader => write!(formatter, "this broker does not lead the partition"),
            AppendError::BatchLargerThanSegment { size_bytes, segment_bytes } => {
                write!(formatter, "the batch has {size_bytes} bytes, more than a segment may have ({segment_bytes})")
            }
            AppendError::BatchLargerThanJournal { size_bytes, size_bytes_max } => {
                write!(formatter, "the batch has {size_bytes} bytes, more than the journal takes at once ({size_bytes_max})")
            }
            AppendError::OutOfOrderSequence { producer_id, sequence, last_sequence } => {
                write!(formatter, "producer {producer_id} sent sequence {sequence} after {last_sequence}")
            }
            AppendError::SequenceMustBeginAtZero { producer_id, sequence } => {
                write!(formatter, "producer {producer_id} begins with sequence {sequence} where 0 is expected")
            }
            AppendError::StaleProducerEpoch { producer_id, epoch, current_epoch } => {
                write!(formatter, "producer {producer_id} has epoch {epoch}, the last seen one is {current_epoch}")
            }
            AppendError::ExpectedTransactionalBatch { producer_id } => {
                write!(formatter, "producer {producer_id} has a transaction open here and sent a batch outside of it")
            }
            AppendError::NotInTransaction { producer_id } => {
                write!(formatter, "the batch of producer {producer_id} is not part of an open transaction")
            }
            AppendError::StaleCoordinator { producer_id, coordinator_epoch, current_epoch } => {
                write!(
                    formatter,
                    "marker for producer {producer_id} from coordinator epoch {coordinator_epoch}, the current one is {current_epoch}"
                )
            }
            AppendError::UnexpectedOffset { base_offset, log_end_offset } => {
                write!(formatter, "replicated batch begins at offset {base_offset}, the log ends at {log_end_offset}")
            }
            AppendError::Storage => write!(formatter, "the partition takes no writes after a failure of its storage"),
        }
    }
}

impl std::error::Error for AppendError {}
