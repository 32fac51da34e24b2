//! Where entries are collected until their group is written: memory that is laid out as the ring will be, block for block.
//!
//! Groups follow each other in arenas of about a megabyte, each from a fresh block on. So a group of one small record costs one block of memory as it costs one block of the
//! ring, and everything that shares the memory (tail cache, placement, sends) keeps at most an arena alive.

use bytes::Bytes;
use uuid::Uuid;

use super::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use super::group::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupSequence};
use super::ring::GroupPlace;
use crate::rt::buffer::AppendBuffer;

/// Memory taken at once. Large enough that the last group of an arena, which ends early, costs little; small enough that one cached batch does not pin much.
const ARENA_BYTES: usize = 1 << 20;

pub struct Collector {
    journal_id: Uuid,
    arena: AppendBuffer,
    open: Option<OpenGroup>,
    /// Number of the next entry of this life.
    next_entry: u64,
}

struct OpenGroup {
    place: GroupPlace,
    /// Where it begins in the arena.
    start: usize,
    first_entry: u64,
    entry_count: u32,
    body_crc: u32,
    is_strong: bool,
}

/// A group that takes no more entries: ready to be written but for its header, which says what was durable when it was submitted.
pub struct SealedGroup {
    pub sequence: GroupSequence,
    pub position: u64,
    /// Whole blocks, header included.
    pub bytes: Bytes,
    /// It holds an entry that must be durable, not only written.
    pub is_strong: bool,
}

impl Collector {
    pub fn new(journal_id: Uuid) -> Self {
        Self { journal_id, arena: AppendBuffer::with_capacity(ARENA_BYTES), open: None, next_entry: 0 }
    }

    pub fn next_entry(&self) -> u64 {
        self.next_entry
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes of the open group, header included, without padding.
    pub fn open_bytes(&self) -> u64 {
        let open = self.open.as_ref().expect("a group is open");
        (self.arena.len() - open.start) as u64
    }

    /// Whether that many more bytes fit behind the open group.
    pub fn has_memory_to_grow(&self, bytes: usize) -> bool {
        bytes <= self.arena.remaining()
    }

    /// Opens a group in which an entry of that size will find room.
    pub fn begin(&mut self, place: GroupPlace, entry_bytes: usize) {
        assert!(self.open.is_none(), "one group is open at a time");
        let needed = GROUP_HEADER_BYTES + entry_bytes;
        if needed > self.arena.remaining() {
            self.arena = AppendBuffer::with_capacity(needed.max(ARENA_BYTES));
        }
        let start = self.arena.len();
        self.arena.append_hole(GROUP_HEADER_BYTES);
        self.open = Some(OpenGroup { place, start, first_entry: self.next_entry, entry_count: 0, body_crc: 0, is_strong: false });
    }

    /// Copies an entry into the open group and gives its payload back as shared memory. `is_strong`: it must be durable, not only written.
    pub fn add(&mut self, header: &EntryHeader, payload: &[&[u8]], is_strong: bool) -> Bytes {
        let open = self.open.as_mut().expect("a group is open");
        let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
        let header = header.encode(payload_bytes);
        self.arena.append(&header);
        open.body_crc = crc32c::crc32c_append(open.body_crc, &header);
        for part in payload {
            self.arena.append(part);
            open.body_crc = crc32c::crc32c_append(open.body_crc, part);
        }
        open.entry_count += 1;
        open.is_strong |= is_strong;
        self.next_entry += 1;
        let end = self.arena.len();
        self.arena.share(end - payload_bytes..end)
    }

    /// The header of the open group as if it ended here. `durable` is what is durable now.
    pub fn open_header(&self, durable: GroupSequence) -> GroupHeader {
        let open = self.open.as_ref().expect("a group is open");
        let body_bytes = self.arena.len() - open.start - GROUP_HEADER_BYTES;
        GroupHeader {
            journal_id: self.journal_id,
            sequence: open.place.sequence,
            first_entry: open.first_entry,
            durable_before: durable,
            skipped_from: open.place.skipped_from,
            entry_count: open.entry_count,
            body_bytes: u32::try_from(body_bytes).expect("a group is smaller than 4 GiB"),
            body_crc: open.body_crc,
        }
    }

    /// The entries of the open group from that byte of its body on.
    pub fn open_body_from(&self, body_position: usize) -> &[u8] {
        let open = self.open.as_ref().expect("a group is open");
        self.arena.get(open.start + GROUP_HEADER_BYTES + body_position..self.arena.len())
    }

    /// Closes the open group. `durable` is what is durable now.
    pub fn seal(&mut self, durable: GroupSequence) -> SealedGroup {
        let header = self.open_header(durable);
        let open = self.open.take().expect("a group is open");
        self.arena.fill_hole(&header.encode());
        self.arena.pad_to(BLOCK_BYTES);
        let bytes = self.arena.share(open.start..self.arena.len());
        SealedGroup { sequence: open.place.sequence, position: open.place.position, bytes, is_strong: open.is_strong }
    }
}

/// Bytes that an entry with such a payload takes in a group.
pub const fn entry_bytes(payload_bytes: usize) -> usize {
    ENTRY_HEADER_BYTES + payload_bytes
}
