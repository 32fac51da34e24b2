//! What the log has to know about one record batch: the facts of its header, and the bytes that carry them.
//!
//! A `ValidatedBatch` is made on the connection's core (log::validation for clients, a batch builder for coordinators) and handed to the owner's core, where the log
//! assigns its offset. The log itself never looks into the bytes.

use bytes::Bytes;

use super::NO_PRODUCER_ID;

/// Where an append comes from; it says how much of it is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's Produce. `transaction_version` is 2 for Produce v12 and above (KIP-890), otherwise 0; it matters only to transactional batches.
    Client { transaction_version: i16 },
    /// A coordinator of this broker: no sequence numbers, transaction markers by the rules of `transaction_version`.
    Coordinator { transaction_version: i16 },
    /// Bytes that a leader has checked already, with the offsets that it gave.
    Replication,
}

impl Origin {
    /// The ordinary origin of the broker's own records that belong to no transaction.
    pub const INTERNAL: Origin = Origin::Coordinator { transaction_version: 0 };
}

/// The facts of a batch's header, in the words of the record format (semantics.md section 17). Copied out once, so that admission touches no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// As found in the bytes: 0 from a client, the true offset from a leader or a segment.
    pub base_offset: i64,
    /// As found in the bytes: -1 until the log stamps its own.
    pub leader_epoch: i32,
    /// The whole batch in bytes, its first 12 included.
    pub size_bytes: u32,
    pub last_offset_delta: i32,
    /// Of all its records, -1 if none has one.
    pub max_timestamp: i64,
    /// -1 where the producer is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub is_transactional: bool,
    pub is_control: bool,
    /// The records that it holds; compaction can leave fewer than its offsets span.
    pub record_count: i32,
}

impl BatchInfo {
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The offset of its last record, should its first have `base_offset`.
    pub fn last_offset_from(&self, base_offset: i64) -> i64 {
        base_offset + i64::from(self.last_offset_delta)
    }

    pub fn last_offset(&self) -> i64 {
        self.last_offset_from(self.base_offset)
    }

    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }
}

/// A transaction's end as its control record says it: the batch's header carries producer id and epoch, the record the outcome and the coordinator's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    pub is_commit: bool,
    pub coordinator_epoch: i32,
}

/// A batch that has passed every check that does not need the log: its CRC, sizes, counts, records, timestamps.
///
/// `bytes` hold exactly `info.size_bytes`. Base offset and leader epoch are patched when they are copied into the journal; the CRC covers neither.
#[derive(Clone, Debug)]
pub struct ValidatedBatch {
    pub info: BatchInfo,
    pub bytes: Bytes,
    /// Present exactly in a transaction marker.
    pub end_marker: Option<EndMarker>,
    /// The broker's time, where the topic stamps it (`message.timestamp.type=LogAppendTime`); otherwise -1. It goes into the answer.
    pub log_append_time_ms: i64,
}

/// Sequence numbers run from 0 to 2^31-1 and begin again at 0.
pub fn sequence_plus(sequence: i32, increment: i32) -> i32 {
    debug_assert!(increment >= 0);
    let sum = i64::from(sequence) + i64::from(increment);
    if sum > i64::from(i32::MAX) { (sum - (1 << 31)) as i32 } else { sum as i32 }
}

/// The inverse of `sequence_plus`.
pub fn sequence_minus(sequence: i32, decrement: i32) -> i32 {
    debug_assert!(decrement >= 0);
    let difference = i64::from(sequence) - i64::from(decrement);
    if difference < 0 && sequence >= 0 { (difference + (1 << 31)) as i32 } else { difference as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_minus(1, 3), i32::MAX - 1);
        assert_eq!(sequence_minus(5, 5), 0);
    }
}
