//! The shadow: a copy, in the page cache, of what has been taken into groups and not been written yet, for entries that need not be durable.
//!
//! A topic with `flush.messages` above 1 promises what Kafka does with its page cache: an acknowledged record survives the process, not a power failure. A write past the page cache
//! takes as long as the device, flush or no flush; a store into a mapped file takes as long as a copy. So the open group, as far as it is filled, is copied into a small mapped file
//! with every such entry, and the entry counts at once if all groups before it are written or copied as well. The write into the ring follows as for any group, and replay looks here
//! only for a group that is not whole in the ring. Nothing here is waited for or flushed: where an entry finds no room (groups of bulk, many groups waiting to be written, a
//! filesystem without shared mappings) it counts when its write has completed.
//!
//! The file is `SLOTS` slots; a group's is its sequence modulo their number, so a slot is taken again only when its group is written. A slot is a block with two copies of the group's
//! header and then the body: entries are only added, so a header stays true of what it covers while the next one, in the other place, is stored.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use super::collector::Collector;
use super::group::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupSequence};
use super::replay::ReadGroup;
use super::ring::RING_START;
use crate::rt::buffer::AlignedBuffer;
use crate::rt::file::{Durability, File, OpenMode, Result};
use crate::rt::mapping::SharedMapping;

/// Groups that may be here at once. With one small group being written at a time, more than a few wait only beside bulk.
const SLOTS: u64 = 8;

/// Larger groups are bulk: the copy would cost them more than the wait.
const BODY_BYTES_MAX: usize = 64 << 10;

const SLOT_BYTES: usize = BLOCK_BYTES + BODY_BYTES_MAX;
const FILE_BYTES: usize = SLOTS as usize * SLOT_BYTES;

/// Distance of the two headers: they share no cache line.
const HEADER_STRIDE_BYTES: usize = 128;

/// A group of durable entries is copied too, for those behind it, if an entry that need not be durable came no longer ago than this.
const GROUPS_IN_USE: u64 = 64;

/// The shadow of a shard in `journal.dir`.
pub fn shadow_path(journal_directory: &Path, shard: u16) -> PathBuf {
    journal_directory.join(format!("corelane-shadow-{shard}"))
}

/// The file for a new life, made if it is not there; what it held of the former life is needed no longer. Every block is written, also of a file that is there, which a copying tool may
/// have given holes: a full disk is met here, and no store waits for a page to be read.
pub fn make_shadow_blocking(path: &Path) -> Result<File> {
    let file = File::open_blocking(path, OpenMode::CREATE)?;
    let is_new = file.length()? != FILE_BYTES as u64;
    if is_new {
        file.set_len_blocking(0)?;
    }
    file.write_at_blocking(&AlignedBuffer::zeroed(FILE_BYTES), 0, Durability::None)?;
    if is_new {
        file.sync_all_blocking()?;
    }
    Ok(file)
}

/// The writing side. Lives on its shard.
#[derive(Debug)]
pub struct Shadow {
    mapping: SharedMapping,
    /// The group that was copied into last.
    last: Copied,
    /// All groups up to this one are written or are here as a whole.
    whole: GroupSequence,
    last_weak: GroupSequence,
    /// The file takes no more: everything counts when it is written, until the next start.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    sequence: GroupSequence,
    body_bytes: usize,
    /// Which of the two headers is the newer one.
    header: usize,
}

impl Shadow {
    /// Fails where the filesystem shares no mappings.
    pub fn new(file: &File) -> Result<Self> {
        let mapping = SharedMapping::new(file)?;
        Ok(Self { mapping, last: Copied::default(), whole: GroupSequence(0), last_weak: GroupSequence(0), is_lost: false })
    }

    /// Copies what the open group has gained, after an entry that need not be durable. Returns whether a restart after the process' end would find all of it: everything up to
    /// `written` is in the ring, everything between is here. `durable` goes into the header, as in the ring.
    pub fn keep(&mut self, collector: &Collector, durable: GroupSequence, written: GroupSequence) -> bool {
        let header = collector.open_header(durable);
        self.last_weak = header.sequence;
        self.copy(collector, &header, written)
    }

    /// The open group takes no more entries. Those of the next group that need not be durable wait for nothing only if all of this one is here too.
    pub fn seal(&mut self, collector: &Collector, durable: GroupSequence, written: GroupSequence) {
        let header = collector.open_header(durable);
        let is_in_use = self.last_weak.0 > 0 && self.last_weak.0 + GROUPS_IN_USE > header.sequence.0;
        if is_in_use && self.copy(collector, &header, written) {
            self.whole = header.sequence;
        }
    }

    fn copy(&mut self, collector: &Collector, header: &GroupHeader, written: GroupSequence) -> bool {
        let sequence = header.sequence;
        let body_bytes = header.body_bytes as usize;
        let has_room = body_bytes <= BODY_BYTES_MAX && sequence.0 - written.0 <= SLOTS;
        if self.is_lost || !has_room || self.whole.max(written).next() < sequence {
            return false;
        }
        let copied = if self.last.sequence == sequence { self.last } else { Copied { sequence, ..Copied::default() } };
        if copied.body_bytes < body_bytes {
            match self.store(collector, header, copied) {
                Ok(()) => self.last = Copied { sequence, body_bytes, header: 1 - copied.header },
                Err(error) => {
                    tracing::warn!(%error, "what need not be durable waits for its write from now on, until a restart");
                    self.is_lost = true;
                }
            }
        }
        !self.is_lost
    }

    /// What the open group has gained since `copied`: first the entries, then the header that covers them.
    fn store(&mut self, collector: &Collector, header: &GroupHeader, copied: Copied) -> Result<()> {
        let slot = slot_position(header.sequence);
        self.mapping.store(collector.open_body_from(copied.body_bytes), slot + BLOCK_BYTES + copied.body_bytes)?;
        self.mapping.store(&header.encode(), slot + (1 - copied.header) * HEADER_STRIDE_BYTES)
    }
}

/// What a former life has left in its shadow.
#[derive(Clone, Debug, Default)]
pub struct ShadowContent {
    /// The file's bytes; empty where there is none, or one of another version.
    file: Bytes,
}

impl ShadowContent {
    pub fn read_blocking(path: &Path) -> Result<Self> {
        let file = match File::open_blocking(path, OpenMode::READ) {
            Err(error) if error.is_not_found() => return Ok(Self::default()),
            file => file?,
        };
        let file = file.read_at_blocking(FILE_BYTES, 0)?.freeze();
        Ok(if file.len() == FILE_BYTES { Self { file } } else { Self::default() })
    }

    /// As much of that group as is here; `position` is where it begins in the ring unless it says that it went on at the ring's start.
    pub fn group(&self, journal_id: Uuid, sequence: GroupSequence, position: u64) -> Option<ReadGroup> {
        let start = slot_position(sequence);
        let slot = (!self.file.is_empty()).then(|| self.file.slice(start..start + SLOT_BYTES))?;
        let copies = [0, 1].into_iter().filter_map(|place| {
            let header = GroupHeader::decode(&slot[place * HEADER_STRIDE_BYTES..][..GROUP_HEADER_BYTES])?;
            let is_wanted = header.journal_id == journal_id && header.sequence == sequence && header.body_bytes as usize <= BODY_BYTES_MAX;
            let body = is_wanted.then(|| slot.slice(BLOCK_BYTES..BLOCK_BYTES + header.body_bytes as usize))?;
            let position = if header.skipped_from == 0 { position } else { RING_START };
            (crc32c::crc32c(&body) == header.body_crc).then_some(ReadGroup { header, position, body })
        });
        copies.max_by_key(|group| group.header.body_bytes)
    }
}

fn slot_position(sequence: GroupSequence) -> usize {
    (sequence.0 % SLOTS) as usize * SLOT_BYTES
}

#[cfg(test)]
mod tests {
    use super::super::entry::{EntryHeader, EntryKind};
    use super::super::ring::GroupPlace;
    use super::*;
    use crate::cluster::TopicIdPartition;

    const LIFE: Uuid = Uuid::from_u128(42);
    const PARTITION: TopicIdPartition = TopicIdPartition::new(Uuid::from_u128(9), 0);

    /// A collector and a shadow without the rest of a journal.
    struct Place {
        directory: tempfile::TempDir,
        collector: Collector,
        shadow: Shadow,
        next: i64,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let file = make_shadow_blocking(&shadow_path(directory.path(), 0)).unwrap();
            Self { directory, collector: Collector::new(LIFE), shadow: Shadow::new(&file).unwrap(), next: 0 }
        }

        fn begin(&mut self, sequence: u64) {
            let place = GroupPlace { sequence: GroupSequence(sequence), position: RING_START, skipped_from: 0 };
            self.collector.begin(place, BODY_BYTES_MAX + 4096);
        }

        fn add(&mut self, bytes: usize) {
            let header = EntryHeader::append(PARTITION, 0, 0, self.next, self.next, 0);
            self.collector.add(&header, &[&vec![self.next as u8; bytes]], false);
            self.next += 1;
        }

        fn keep(&mut self, written: u64) -> bool {
            self.shadow.keep(&self.collector, GroupSequence(0), GroupSequence(written))
        }

        fn seal(&mut self, written: u64) {
            self.shadow.seal(&self.collector, GroupSequence(0), GroupSequence(written));
            self.collector.seal(GroupSequence(0));
        }

        /// Offsets that a restart finds of a group.
        fn found(&self, sequence: u64) -> Vec<i64> {
            let content = ShadowContent::read_blocking(&shadow_path(self.directory.path(), 0)).unwrap();
            let group = content.group(LIFE, GroupSequence(sequence), 8192);
            let entries = group.map_or(Vec::new(), |group| group.entries().unwrap());
            entries
                .into_iter()
                .map(|(_, entry)| {
                    assert_eq!(entry.header.kind, EntryKind::Append);
                    assert!(entry.payload.iter().all(|byte| *byte == entry.header.base_offset as u8));
                    entry.header.base_offset
                })
                .collect()
        }
    }

    #[test]
    fn an_open_group_is_there_as_far_as_it_is_filled() {
        let mut place = Place::new();
        place.begin(1);
        for filled in 0..20 {
            place.add(1000);
            assert_eq!(place.found(1).len(), filled as usize, "what is not copied is not there");
            assert!(place.keep(0));
            assert_eq!(place.found(1), (0..=filled).collect::<Vec<i64>>());
        }
        place.seal(0);
        place.begin(2);
        place.add(100);
        assert!(place.keep(0));
        assert_eq!((place.found(1).len(), place.found(2)), (20, vec![20]));
    }

    #[test]
    fn nothing_counts_before_what_lies_before_it() {
        let mut place = Place::new();
        // A group of durable entries while nothing else comes: not copied.
        place.begin(1);
        place.add(100);
        place.seal(0);
        place.begin(2);
        place.add(100);
        assert!(!place.keep(0), "the first group is neither written nor here");
        assert!(place.keep(1), "it is written");
        place.seal(1);
        // From now on groups of durable entries are copied as well.
        place.begin(3);
        place.add(100);
        place.seal(1);
        place.begin(4);
        place.add(100);
        assert!(place.keep(1));
        assert_eq!([1, 2, 3, 4].map(|sequence| place.found(sequence)), [vec![], vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn bulk_and_a_long_queue_wait_for_their_writes() {
        let mut place = Place::new();
        place.begin(1);
        place.add(BODY_BYTES_MAX);
        assert!(!place.keep(0), "with its header it is too large");
        place.seal(0);
        for sequence in 2..2 + SLOTS {
            place.begin(sequence);
            place.add(10);
            assert!(place.keep(1), "group {sequence}");
            place.seal(1);
        }
        place.begin(2 + SLOTS);
        place.add(10);
        assert!(!place.keep(1), "its slot holds a group that is not written");
        assert_eq!(place.found(2), vec![1]);
        assert!(place.keep(2));
        assert_eq!((place.found(2), place.found(2 + SLOTS)), (vec![], vec![1 + SLOTS as i64]));
    }

    /// A filesystem that has failed has no page any more; a file that was cut says the same.
    #[test]
    fn where_the_file_has_gone_everything_waits_for_its_write() {
        let mut place = Place::new();
        place.begin(1);
        place.add(100);
        assert!(place.keep(0));
        let file = File::open_blocking(shadow_path(place.directory.path(), 0), OpenMode::CREATE).unwrap();
        file.set_len_blocking(0).unwrap();
        place.add(100);
        assert!(!place.keep(0));
        place.seal(0);
        file.set_len_blocking(FILE_BYTES as u64).unwrap();
        place.begin(2);
        place.add(100);
        assert!(!place.keep(1), "nobody relies on it again");
    }

    /// What a tool has copied without its zeros has its blocks again before the first store, and nothing of the former life.
    #[test]
    fn a_file_that_is_there_is_written_anew() {
        let mut place = Place::new();
        place.begin(1);
        place.add(100);
        assert!(place.keep(0));
        let path = shadow_path(place.directory.path(), 0);
        let file = File::open_blocking(&path, OpenMode::CREATE).unwrap();
        file.set_len_blocking(SLOT_BYTES as u64).unwrap();
        file.set_len_blocking(FILE_BYTES as u64).unwrap();
        let bytes_on_disk = |file: &File| {
            file.sync_all_blocking().unwrap();
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512
        };
        assert!(bytes_on_disk(&file) < FILE_BYTES as u64);
        let file = make_shadow_blocking(&path).unwrap();
        assert!(bytes_on_disk(&file) >= FILE_BYTES as u64);
        assert_eq!(place.found(1), Vec::<i64>::new());
    }

    #[test]
    fn a_header_that_is_half_stored_leaves_the_one_before() {
        let mut place = Place::new();
        place.begin(1);
        place.add(100);
        assert!(place.keep(0));
        place.add(100);
        assert!(place.keep(0));
        assert_eq!(place.found(1), vec![0, 1]);
        let newest = slot_position(GroupSequence(1)) + place.shadow.last.header * HEADER_STRIDE_BYTES;
        place.shadow.mapping.store(&[0xff; GROUP_HEADER_BYTES / 2], newest).unwrap();
        assert_eq!(place.found(1), vec![0]);
    }
}
