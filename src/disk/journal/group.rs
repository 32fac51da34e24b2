//! A group: all entries that one write makes durable, from a fresh block of the ring on.
//!
//! Header, entries, zeros up to the next block. The header's own checksum covers the checksum of the body, so nothing of a group is believed unless all of it is there. Layout,
//! little-endian:
//!
//! | position | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `CLJG` |
//! | 4 | 4 | format version |
//! | 8 | 16 | journal id: drawn anew at every start, so nothing of an earlier life is taken for ours |
//! | 24 | 8 | sequence: one more than that of the group before it; an old lap has a lower one |
//! | 32 | 8 | number of the first entry, counted since the start of this life |
//! | 40 | 8 | durable before: every group up to this sequence was durable when this one was closed |
//! | 48 | 8 | skipped from: where the ring was left to go on at its start; zero where nothing was skipped |
//! | 56 | 4 | entry count |
//! | 60 | 4 | body bytes |
//! | 64 | 4 | CRC-32C of the body |
//! | 68 | 4 | CRC-32C of this header up to here |

use std::fmt;

use uuid::Uuid;

/// Groups start on blocks of this size; so do direct writes anywhere in this room. No filesystem of ours has larger blocks, no page cache smaller ones.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes of a group before its first entry.
pub const GROUP_HEADER_BYTES: usize = 72;

const MAGIC: [u8; 4] = *b"CLJG";
const VERSION: u32 = 1;

/// The place of a group in the life of its journal; the first is 1. A record is durable when the group that holds it is, and groups become durable in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSequence(pub u64);

impl GroupSequence {
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for GroupSequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub journal_id: Uuid,
    pub sequence: GroupSequence,
    pub first_entry: u64,
    pub durable_before: GroupSequence,
    /// Position in the file that the writer left for the ring's start; 0 where it went straight on (block 0 is the ring's own header, no group ends there).
    pub skipped_from: u64,
    pub entry_count: u32,
    pub body_bytes: u32,
    pub body_crc: u32,
}

impl GroupHeader {
    pub fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..24].copy_from_slice(self.journal_id.as_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_entry.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.durable_before.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.skipped_from.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.entry_count.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..68]);
        bytes[68..72].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`; none where there is no whole header of ours. Says nothing yet about the body.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let int = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[0..4] != MAGIC || int(4) != VERSION || int(68) != crc32c::crc32c(&bytes[..68]) {
            return None;
        }
        Some(Self {
            journal_id: Uuid::from_slice(&bytes[8..24]).expect("sixteen bytes"),
            sequence: GroupSequence(long(24)),
            first_entry: long(32),
            durable_before: GroupSequence(long(40)),
            skipped_from: long(48),
            entry_count: int(56),
            body_bytes: int(60),
            body_crc: int(64),
        })
    }

    /// Bytes of the ring that the group takes: header and body, up to the next block.
    pub fn ring_bytes(&self) -> u64 {
        round_up_to_block(GROUP_HEADER_BYTES as u64 + u64::from(self.body_bytes))
    }
}

pub const fn round_up_to_block(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

pub const fn round_down_to_block(bytes: u64) -> u64 {
    bytes - bytes % BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> GroupHeader {
        GroupHeader {
            journal_id: Uuid::from_u128(1),
            sequence: GroupSequence(9),
            first_entry: 100,
            durable_before: GroupSequence(5),
            skipped_from: 8192,
            entry_count: 3,
            body_bytes: 5000,
            body_crc: 0xabcd,
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        assert_eq!(GroupHeader::decode(&sample().encode()), Some(sample()));
        assert_eq!(sample().ring_bytes(), 8192);
    }

    proptest! {
        /// One flipped bit anywhere in a header makes it no header.
        #[test]
        fn a_flipped_bit_is_seen(bit in 0..GROUP_HEADER_BYTES * 8) {
            let mut bytes = sample().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(GroupHeader::decode(&bytes), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            GroupHeader::decode(&bytes);
        }
    }
}
