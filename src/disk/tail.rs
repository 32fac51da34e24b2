//! The tail cache: the newest batches of a shard's partitions, as slices of the journal's own memory, so that a consumer at the end of a log never touches a file.
//!
//! What is not placed in segment files yet is always here, because it is nowhere else to be read. The rest stays while there is room: whole journal groups go, the oldest first, as
//! only then their memory is free. So each partition's tail is a run of batches without a gap that ends with the log's end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use crate::disk::journal::GroupSequence;
use crate::disk::journal::group::BLOCK_BYTES;

/// One batch in memory, as it lies in its segment.
#[derive(Clone, Debug)]
pub struct TailBatch {
    pub base_offset: i64,
    pub last_offset: i64,
    pub segment_base: i64,
    pub position: u32,
    pub sequence: GroupSequence,
    pub bytes: Bytes,
}

/// The batches of one partition, oldest first.
#[derive(Debug, Default)]
pub struct Tail {
    batches: RefCell<VecDeque<TailBatch>>,
    /// Offsets below are in segment files, flushed.
    placed_end_offset: Cell<i64>,
}

impl Tail {
    pub fn new(placed_end_offset: i64) -> Self {
        Self { batches: RefCell::default(), placed_end_offset: Cell::new(placed_end_offset) }
    }

    /// Where memory begins: the first batch that is here. None if nothing is.
    pub fn first(&self) -> Option<(i64, i64, u32)> {
        self.batches.borrow().front().map(|batch| (batch.base_offset, batch.segment_base, batch.position))
    }

    /// Passes the batches from the one that contains or follows `offset` on to `visit`, until it says false. Must not be called for an offset that lies before `first`.
    pub fn visit_from(&self, offset: i64, mut visit: impl FnMut(&TailBatch) -> bool) {
        let batches = self.batches.borrow();
        let first = batches.partition_point(|batch| batch.last_offset < offset);
        for batch in batches.range(first..) {
            if !visit(batch) {
                return;
            }
        }
    }

    pub fn placed_end_offset(&self) -> i64 {
        self.placed_end_offset.get()
    }

    /// The log was cut: what lies at or above `end_offset` is gone.
    pub fn truncate(&self, end_offset: i64) {
        let mut batches = self.batches.borrow_mut();
        let kept = batches.partition_point(|batch| batch.last_offset < end_offset);
        batches.truncate(kept);
        self.placed_end_offset.set(self.placed_end_offset.get().min(end_offset));
    }

    /// Batches below are not what their segments hold any more: compaction has been there. They are placed, so nobody needs them here; their memory goes with their groups.
    pub fn drop_below(&self, offset: i64) {
        let mut batches = self.batches.borrow_mut();
        let count = batches.partition_point(|batch| batch.last_offset < offset);
        batches.drain(..count);
    }

    fn clear(&self) {
        self.batches.borrow_mut().clear();
    }

    fn last_offset_of_group(&self, sequence: GroupSequence) -> Option<i64> {
        let batches = self.batches.borrow();
        let count = batches.partition_point(|batch| batch.sequence <= sequence);
        count.checked_sub(1).map(|index| batches[index].last_offset)
    }

    fn drop_through(&self, sequence: GroupSequence) {
        let mut batches = self.batches.borrow_mut();
        let count = batches.partition_point(|batch| batch.sequence <= sequence);
        batches.drain(..count);
    }
}

/// The memory of all tails of a shard, group by group.
#[derive(Debug)]
pub struct TailCache {
    bytes_max: usize,
    bytes: Cell<usize>,
    groups: RefCell<VecDeque<Group>>,
    /// The oldest group is not placed yet; set until more has been placed.
    is_blocked: Cell<bool>,
}

#[derive(Debug)]
struct Group {
    sequence: GroupSequence,
    payload_bytes: usize,
    members: Vec<Rc<Tail>>,
}

impl Group {
    /// A group takes whole blocks of memory.
    fn memory_bytes(&self) -> usize {
        self.payload_bytes.next_multiple_of(BLOCK_BYTES)
    }

    fn is_placed(&self) -> bool {
        self.members.iter().all(|tail| tail.last_offset_of_group(self.sequence).is_none_or(|last| last < tail.placed_end_offset.get()))
    }
}

impl TailCache {
    /// Keeps `bytes_max` of memory, more only while so much waits for placement.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: Cell::new(0), groups: RefCell::default(), is_blocked: Cell::new(false) }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Adds the next batch of a partition. Batches come in the order of their groups.
    pub fn push(&self, tail: &Rc<Tail>, batch: TailBatch) {
        self.count(tail, batch.sequence, batch.bytes.len());
        tail.batches.borrow_mut().push_back(batch);
        self.make_room();
    }

    fn count(&self, tail: &Rc<Tail>, sequence: GroupSequence, payload_bytes: usize) {
        let mut groups = self.groups.borrow_mut();
        if groups.back().is_none_or(|group| group.sequence != sequence) {
            debug_assert!(groups.back().is_none_or(|group| group.sequence < sequence), "groups come in order");
            groups.push_back(Group { sequence, payload_bytes: 0, members: Vec::new() });
        }
        let group = groups.back_mut().expect("just made");
        let before = group.memory_bytes();
        group.payload_bytes += payload_bytes;
        self.bytes.set(self.bytes.get() + group.memory_bytes() - before);
        // A partition whose last batch is of this group is a member already.
        let is_member = tail.batches.borrow().back().is_some_and(|last| last.sequence == sequence);
        if !is_member {
            group.members.push(tail.clone());
        }
    }

    /// A partition's files hold the log up to here.
    pub fn placed(&self, tail: &Tail, end_offset: i64) {
        tail.placed_end_offset.set(end_offset);
        self.is_blocked.set(false);
        self.make_room();
    }

    /// The partition is gone, and its batches with it.
    pub fn remove(&self, tail: &Tail) {
        tail.clear();
        self.is_blocked.set(false);
        self.make_room();
    }

    fn make_room(&self) {
        while self.bytes.get() > self.bytes_max && !self.is_blocked.get() {
            let mut groups = self.groups.borrow_mut();
            let Some(oldest) = groups.front() else { return };
            if !oldest.is_placed() {
                self.is_blocked.set(true);
                return;
            }
            let oldest = groups.pop_front().expect("looked at");
            self.bytes.set(self.bytes.get() - oldest.memory_bytes());
            oldest.members.iter().for_each(|tail| tail.drop_through(oldest.sequence));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of one record and one block in group `sequence`.
    fn batch(offset: i64, sequence: u64) -> TailBatch {
        TailBatch {
            base_offset: offset,
            last_offset: offset,
            segment_base: 0,
            position: offset as u32 * 4096,
            sequence: GroupSequence(sequence),
            bytes: Bytes::from(vec![0; 4096]),
        }
    }

    fn offsets(tail: &Tail, from: i64) -> Vec<i64> {
        let mut offsets = Vec::new();
        tail.visit_from(from, |batch| {
            offsets.push(batch.base_offset);
            true
        });
        offsets
    }

    #[test]
    fn only_what_is_placed_goes_and_the_oldest_first() {
        let cache = TailCache::new(3 * 4096);
        let (left, right) = (Rc::new(Tail::new(0)), Rc::new(Tail::new(0)));
        cache.push(&left, batch(0, 1));
        cache.push(&right, batch(0, 2));
        cache.push(&left, batch(1, 3));
        cache.push(&left, batch(2, 4));
        cache.push(&left, batch(3, 5));
        assert_eq!((offsets(&left, 0), cache.bytes()), (vec![0, 1, 2, 3], 5 * 4096), "nothing is placed, so nothing goes");

        cache.placed(&left, 2);
        assert_eq!(offsets(&left, 0), vec![1, 2, 3], "the next group belongs to a partition that is not placed");
        cache.placed(&right, 1);
        assert_eq!((offsets(&right, 0), cache.bytes()), (vec![], 3 * 4096));
        cache.placed(&left, 4);
        assert_eq!(offsets(&left, 2), vec![2, 3], "within the bound everything stays");
        assert_eq!(left.first(), Some((1, 0, 4096)));
    }

    #[test]
    fn a_group_goes_as_a_whole() {
        let cache = TailCache::new(4096);
        let (left, right) = (Rc::new(Tail::new(0)), Rc::new(Tail::new(0)));
        cache.push(&left, batch(0, 1));
        cache.push(&right, batch(0, 1));
        cache.push(&left, batch(1, 1));
        cache.placed(&left, 2);
        assert_eq!(offsets(&left, 0), vec![0, 1]);
        cache.placed(&right, 1);
        assert_eq!((offsets(&left, 0), offsets(&right, 0), cache.bytes()), (vec![], vec![], 0));
    }

    #[test]
    fn a_partition_that_is_gone_holds_nothing_back() {
        let cache = TailCache::new(0);
        let (left, right) = (Rc::new(Tail::new(0)), Rc::new(Tail::new(0)));
        cache.push(&left, batch(0, 1));
        cache.push(&right, batch(0, 2));
        cache.placed(&right, 1);
        assert_eq!(cache.bytes(), 2 * 4096);
        cache.remove(&left);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_cut_log_has_a_shorter_tail() {
        let cache = TailCache::new(1 << 20);
        let tail = Rc::new(Tail::new(0));
        (0..4).for_each(|offset| cache.push(&tail, batch(offset, 1)));
        tail.truncate(2);
        assert_eq!(offsets(&tail, 0), vec![0, 1]);
    }
}
