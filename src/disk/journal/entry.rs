//! One entry of the journal: a change of durable state of one partition, as bytes that a restart can redo.
//!
//! Entries are physical: an append says which bytes belong at which position of which segment file, so that replaying an entry twice, or one whose bytes are in place already,
//! changes nothing. Entries lie one behind the other in a group; the group's checksum covers them (see `group`).
//!
//! Layout of an entry, all integers little-endian:
//!
//! | position | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length of the whole entry, this header and the payload |
//! | 4 | 1 | kind |
//! | 5 | 3 | zero |
//! | 8 | 16 | topic id |
//! | 24 | 4 | partition |
//! | 28 | 4 | leader epoch |
//! | 32 | 8 | segment base offset |
//! | 40 | 8 | base offset |
//! | 48 | 8 | last offset |
//! | 56 | 4 | position in the segment |
//! | 60 | 4 | zero |
//! | 64 | .. | payload |

use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::cluster::TopicIdPartition;

/// Bytes of an entry before its payload.
pub const ENTRY_HEADER_BYTES: usize = 64;

/// What an entry changes. The numbers are on disk: a kind is never renumbered, new ones are added at the end. There is no 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The payload (whole record batches, offsets assigned) belongs at `position` of the segment. Carries base and last offset and the leader epoch.
    Append = 1,
    /// The payload is what a block of the segment, starting at `position`, held before placement rewrites it with more bytes behind them; so a torn rewrite loses nothing.
    BlockPrefix = 2,
    /// The log ends at `position` of the segment; the next offset is `base_offset`. Later bytes and segments are gone.
    Truncate = 3,
    /// The log starts at `base_offset`. Whole segments below it may be gone.
    LogStart = 4,
    /// The partition is gone; earlier entries of it are not replayed.
    Deleted = 5,
    /// The partition exists, empty or not, in the directory that the payload names (`PartitionHome`); first entry of a partition that no checkpoint knows.
    Opened = 6,
    /// The log's next segment begins at `base_offset`, with nothing in it yet: retention is about to let go of all that came before.
    Roll = 8,
    /// Compaction puts one file, with the segment's name and `.swap` behind it, in the place of the segments from `segment_base` up to, not with, `base_offset`. The payload is the
    /// new segment's book. What the files still lack of it a restart does, unless a `Swapped` follows.
    Swap = 9,
    /// The files of the `Swap` before it are as it says.
    Swapped = 10,
    /// The replica's files are in another data directory from here on, as the payload says (`ReplicaMove`). Until the old directory has been put aside the entry stays in the ring, so that
    /// a start does what is left of it.
    Moved = 11,
    /// The log was cut before at `position` of the segment, or further in front, and the files may still hold what was behind: a `Truncate` whose files failed, so that it has to stay in
    /// the ring. It takes away nothing of what the journal holds.
    CutBefore = 12,
}

impl EntryKind {
    /// Whether the entry must not wait for room as clients do: it lets go of something, so that only it and its like make room; or the controller waits for it, and behind the
    /// controller the deletions do.
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::LogStart | Self::Deleted | Self::Roll | Self::Swapped | Self::Opened)
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Append,
            2 => Self::BlockPrefix,
            3 => Self::Truncate,
            4 => Self::LogStart,
            5 => Self::Deleted,
            6 => Self::Opened,
            8 => Self::Roll,
            9 => Self::Swap,
            10 => Self::Swapped,
            11 => Self::Moved,
            12 => Self::CutBefore,
            _ => return None,
        })
    }
}

/// Everything of an entry but its payload. Fields that a kind does not use are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub kind: EntryKind,
    pub partition: TopicIdPartition,
    pub leader_epoch: i32,
    /// Names the segment: the base offset of its first batch, as in its file name.
    pub segment_base: i64,
    pub base_offset: i64,
    pub last_offset: i64,
    /// Byte position in the segment file.
    pub position: u32,
}

impl EntryHeader {
    /// Batches at the end of a log.
    pub fn append(
        partition: TopicIdPartition,
        segment_base: i64,
        position: u32,
        base_offset: i64,
        last_offset: i64,
        leader_epoch: i32,
    ) -> Self {
        Self { kind: EntryKind::Append, partition, leader_epoch, segment_base, base_offset, last_offset, position }
    }

    /// The earlier bytes of a block that placement will rewrite.
    pub fn block_prefix(partition: TopicIdPartition, segment_base: i64, position: u32) -> Self {
        Self { segment_base, position, ..Self::empty(EntryKind::BlockPrefix, partition) }
    }

    /// The log now ends before `end_offset`, at `position` of the segment.
    pub fn truncate(partition: TopicIdPartition, segment_base: i64, position: u32, end_offset: i64) -> Self {
        Self { segment_base, position, base_offset: end_offset, ..Self::empty(EntryKind::Truncate, partition) }
    }

    /// The files may hold what was cut away there.
    pub fn cut_before(partition: TopicIdPartition, segment_base: i64, position: u32) -> Self {
        Self { segment_base, position, ..Self::empty(EntryKind::CutBefore, partition) }
    }

    pub fn log_start(partition: TopicIdPartition, log_start_offset: i64) -> Self {
        Self { base_offset: log_start_offset, ..Self::empty(EntryKind::LogStart, partition) }
    }

    /// A segment that begins at the log's end.
    pub fn roll(partition: TopicIdPartition, segment_base: i64) -> Self {
        Self { base_offset: segment_base, ..Self::empty(EntryKind::Roll, partition) }
    }

    /// Compacted segments change places with one new one.
    pub fn swap(partition: TopicIdPartition, segment_base: i64, end_base: i64) -> Self {
        Self { segment_base, base_offset: end_base, ..Self::empty(EntryKind::Swap, partition) }
    }

    pub fn swapped(partition: TopicIdPartition, segment_base: i64) -> Self {
        Self { segment_base, ..Self::empty(EntryKind::Swapped, partition) }
    }

    pub fn moved(partition: TopicIdPartition) -> Self {
        Self::empty(EntryKind::Moved, partition)
    }

    pub fn deleted(partition: TopicIdPartition) -> Self {
        Self::empty(EntryKind::Deleted, partition)
    }

    pub fn opened(partition: TopicIdPartition, log_start_offset: i64) -> Self {
        Self { base_offset: log_start_offset, ..Self::empty(EntryKind::Opened, partition) }
    }

    fn empty(kind: EntryKind, partition: TopicIdPartition) -> Self {
        Self { kind, partition, leader_epoch: 0, segment_base: 0, base_offset: 0, last_offset: 0, position: 0 }
    }

    /// The header's bytes for a payload of that length. The caller keeps an entry below 4 GiB.
    pub fn encode(&self, payload_bytes: usize) -> [u8; ENTRY_HEADER_BYTES] {
        let entry_bytes = u32::try_from(ENTRY_HEADER_BYTES + payload_bytes).expect("an entry is smaller than 4 GiB");
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&entry_bytes.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[8..24].copy_from_slice(self.partition.topic_id.as_bytes());
        bytes[24..28].copy_from_slice(&self.partition.partition.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.leader_epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment_base.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base_offset.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.last_offset.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.position.to_le_bytes());
        bytes
    }
}

/// An entry as replay meets it; the payload shares the memory of the ring that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub header: EntryHeader,
    pub payload: Bytes,
}

/// The bytes of a group are sound by its checksum, yet not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// The entry claims more bytes than its group has left, or less than its own header.
    Length { claimed: u32, left: usize },
    /// A newer version wrote an entry that this one cannot redo.
    UnknownKind(u8),
}

impl Entry {
    /// Takes the next entry off the front of a group's body.
    pub fn decode(body: &mut Bytes) -> Result<Self, EntryError> {
        let left = body.len();
        let claimed = if left < 4 { 0 } else { u32::from_le_bytes([body[0], body[1], body[2], body[3]]) };
        if (claimed as usize) < ENTRY_HEADER_BYTES || claimed as usize > left {
            return Err(EntryError::Length { claimed, left });
        }
        let kind = EntryKind::from_number(body[4]).ok_or(EntryError::UnknownKind(body[4]))?;
        let mut entry = body.split_to(claimed as usize);
        let payload = entry.split_off(ENTRY_HEADER_BYTES);
        entry.advance(8);
        let mut topic_id = [0; 16];
        entry.copy_to_slice(&mut topic_id);
        let partition = TopicIdPartition::new(Uuid::from_bytes(topic_id), entry.get_i32_le());
        let leader_epoch = entry.get_i32_le();
        let segment_base = entry.get_i64_le();
        let base_offset = entry.get_i64_le();
        let last_offset = entry.get_i64_le();
        let position = entry.get_u32_le();
        let header = EntryHeader { kind, partition, leader_epoch, segment_base, base_offset, last_offset, position };
        Ok(Self { header, payload })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> EntryHeader {
        EntryHeader::append(TopicIdPartition::new(Uuid::from_u128(7), 3), 100, 4096, 120, 129, 5)
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        let mut bytes = sample().encode(5).to_vec();
        bytes.extend_from_slice(b"hello rest");
        let mut body = Bytes::from(bytes);
        let entry = Entry::decode(&mut body).unwrap();
        assert_eq!(entry, Entry { header: sample(), payload: Bytes::from_static(b"hello") });
        assert_eq!(&body[..], b" rest");
    }

    #[test]
    fn a_kind_from_a_newer_version_is_named() {
        let mut bytes = sample().encode(0);
        bytes[4] = 99;
        assert_eq!(Entry::decode(&mut Bytes::copy_from_slice(&bytes)), Err(EntryError::UnknownKind(99)));
    }

    proptest! {
        /// Any bytes are an entry within their bounds or an error, never a panic.
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut body = Bytes::from(bytes.clone());
            if let Ok(entry) = Entry::decode(&mut body) {
                prop_assert_eq!(entry.payload.len() + ENTRY_HEADER_BYTES + body.len(), bytes.len());
            }
        }
    }
}
