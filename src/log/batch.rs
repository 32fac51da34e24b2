//! What the log has to know about one record batch: the facts of its header, and the bytes that carry them.
//!
//! A `ValidatedBatch` is made on the connection's core (log::validation for clients, a batch builder for coordinators) and handed to the owner's core, where the log
//! assigns its offset. The log itself never looks into the bytes.

use bytes::{Buf, Bytes};

use super::{NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP};
use crate::wire::batch::{BatchBuilder, BatchHeader, BatchOptions, HEADER_BYTES, RecordIterator, TimestampType};

/// The bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = HEADER_BYTES;

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

/// The facts of a batch's header, in the words of the record format. Copied out once, so that admission touches no bytes.
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
    /// The broker stamped it: then all its records have the largest timestamp.
    pub is_log_append_time: bool,
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
    /// The facts of the batch whose header `bytes` begin with; None where no batch can begin so. Looks at the header only: whether the rest is there and sound is
    /// `is_intact`'s to say.
    pub fn decode(bytes: &[u8]) -> Option<BatchInfo> {
        BatchInfo::from_header(&BatchHeader::parse(bytes).ok()?)
    }

    /// None for counts that no batch in a log has.
    pub fn from_header(header: &BatchHeader) -> Option<BatchInfo> {
        let possible = header.base_offset >= 0
            && header.last_offset_delta >= 0
            && header.record_count >= 0
            && header.base_offset.checked_add(i64::from(header.last_offset_delta)).is_some();
        possible.then(|| BatchInfo {
            base_offset: header.base_offset,
            leader_epoch: header.partition_leader_epoch,
            size_bytes: header.size_bytes() as u32,
            last_offset_delta: header.last_offset_delta,
            max_timestamp: header.max_timestamp,
            is_log_append_time: header.attributes.timestamp_type() == TimestampType::LogAppendTime,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            is_transactional: header.attributes.is_transactional(),
            is_control: header.attributes.is_control(),
            record_count: header.record_count,
        })
    }

    /// Whether `bytes`, which begin with this batch, hold all of it with the checksum that it carries. For large batches that a shard's clients send see log::validation.
    pub fn is_intact(&self, bytes: &[u8]) -> bool {
        BatchHeader::parse(bytes).is_ok_and(|header| header.check_crc(bytes).is_ok())
    }

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

    /// The sequence number of its last record; -1 if it has none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }
}

/// A transaction's end as its control record says it: the batch's header carries producer id and epoch, the record the outcome and the coordinator's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    pub is_commit: bool,
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// The marker in the bytes of a control batch; None if its record is of another type or gone. A control record is never compressed: its key is a
    /// version and a type (0 abort, 1 commit), its value a version and the coordinator's epoch.
    pub fn decode(batch: &[u8]) -> Option<EndMarker> {
        let record = RecordIterator::new(batch.get(BATCH_HEADER_BYTES..)?, 1).next()?.ok()?;
        let (mut key, mut value) = (record.key?, record.value?);
        let (_version, kind) = (key.try_get_i16().ok()?, key.try_get_i16().ok()?);
        let is_commit = match kind {
            0 => false,
            1 => true,
            _ => return None,
        };
        let (_version, coordinator_epoch) = (value.try_get_i16().ok()?, value.try_get_i32().ok()?);
        Some(EndMarker { is_commit, coordinator_epoch })
    }

    /// The control batch that ends the transaction of a producer, as Kafka writes it: key (version 0, type), value (version 0, the coordinator's epoch).
    pub fn build(&self, producer_id: i64, producer_epoch: i16, timestamp_ms: i64) -> Bytes {
        let options = BatchOptions { producer_id, producer_epoch, transactional: true, control: true, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        let epoch = self.coordinator_epoch.to_be_bytes();
        builder.push(Some(&[0, 0, 0, u8::from(self.is_commit)]), Some(&[0, 0, epoch[0], epoch[1], epoch[2], epoch[3]]), timestamp_ms, &[]);
        builder.build().expect("nothing is compressed here")
    }
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

impl ValidatedBatch {
    /// A batch that this broker has built itself: one whole batch, which is not looked at further.
    pub fn internal(bytes: Bytes) -> Self {
        let info = BatchInfo::decode(&bytes).expect("a batch of our own has a sound header");
        assert_eq!(info.size_bytes as usize, bytes.len(), "one batch and nothing behind it");
        let end_marker = if info.is_control && info.has_producer_id() { EndMarker::decode(&bytes) } else { None };
        Self { info, bytes, end_marker, log_append_time_ms: NO_TIMESTAMP }
    }
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
    fn a_marker_is_read_from_its_record() {
        let record = |kind: u8, epoch: u8| [32u8, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, epoch, 0];
        let batch = |kind, epoch| [&[0; BATCH_HEADER_BYTES][..], &record(kind, epoch)].concat();
        assert_eq!(EndMarker::decode(&batch(1, 9)), Some(EndMarker { is_commit: true, coordinator_epoch: 9 }));
        assert_eq!(EndMarker::decode(&batch(0, 9)), Some(EndMarker { is_commit: false, coordinator_epoch: 9 }));
        assert_eq!(EndMarker::decode(&batch(2, 9)), None, "a leader change is no end of a transaction");
        assert_eq!(EndMarker::decode(&[0; BATCH_HEADER_BYTES]), None);
    }

    #[test]
    fn a_marker_of_ours_reads_back() {
        for is_commit in [false, true] {
            let marker = EndMarker { is_commit, coordinator_epoch: 0x0102_0304 };
            let batch = ValidatedBatch::internal(marker.build(7, 3, 1_000));
            assert_eq!(batch.end_marker, Some(marker));
            assert_eq!((batch.info.producer_id, batch.info.producer_epoch, batch.info.is_transactional), (7, 3, true));
            assert!(batch.info.is_intact(&batch.bytes));
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_minus(1, 3), i32::MAX - 1);
        assert_eq!(sequence_minus(5, 5), 0);
    }
}
