//! The room of a ring: where the next group goes, which groups are still needed, how much is free. Plain values, no I/O.
//!
//! Positions are counted without end (`Spot`), as if the ring went on for ever; the file position follows from them. A group lies in one piece: where it would cross the ring's
//! end it starts at the ring's beginning instead, and says in its header from where it skipped.

use std::collections::VecDeque;

use super::group::{BLOCK_BYTES, GroupSequence};

/// Block 0 of the file is the ring's own header; groups lie behind it.
pub const RING_START: u64 = BLOCK_BYTES as u64;

/// A place in the ring, counted since the start of this life.
type Spot = u64;

#[derive(Debug)]
pub struct Ring {
    /// Bytes that groups may take: the file without its header block.
    capacity_bytes: u64,
    /// Behind the last group, open one included.
    head: Spot,
    /// Start of the oldest group that is still needed; `head` where none is.
    tail: Spot,
    /// Groups from the oldest needed to the newest sealed; without holes in their sequences.
    groups: VecDeque<LiveGroup>,
    open: Option<OpenSpan>,
    next_sequence: GroupSequence,
}

#[derive(Debug)]
struct LiveGroup {
    start: Spot,
    /// Entries whose bytes are not in their segment files yet.
    unplaced: u32,
}

#[derive(Debug)]
struct OpenSpan {
    start: Spot,
    bytes: u64,
    unplaced: u32,
}

/// Where a group was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPlace {
    pub sequence: GroupSequence,
    /// Position in the file.
    pub position: u64,
    /// See `GroupHeader::skipped_from`.
    pub skipped_from: u64,
}

impl Ring {
    /// An empty ring in a file of that size, in a new life: the first group is 1, right behind the ring's header.
    pub fn new(file_bytes: u64) -> Self {
        assert!(file_bytes.is_multiple_of(BLOCK_BYTES as u64) && file_bytes > 2 * RING_START, "a ring is made of whole blocks");
        let capacity_bytes = file_bytes - RING_START;
        Self { capacity_bytes, head: 0, tail: 0, groups: VecDeque::new(), open: None, next_sequence: GroupSequence(1) }
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub fn used_bytes(&self) -> u64 {
        self.head - self.tail
    }

    /// Sealed groups that are still needed.
    pub fn live_count(&self) -> u64 {
        self.groups.len() as u64
    }

    /// The group that takes entries now, or would be begun by the next one.
    pub fn open_sequence(&self) -> GroupSequence {
        self.next_sequence
    }

    /// Whether a fresh group of that many bytes finds room with `reserve_bytes` left over.
    pub fn has_room_for_group(&self, group_bytes: u64, reserve_bytes: u64) -> bool {
        let start = self.fresh_start(group_bytes);
        // An empty ring has nothing to keep: what is skipped to reach its beginning is not lost.
        let tail = if self.used_bytes() == 0 { start } else { self.tail };
        start + group_bytes + reserve_bytes <= tail + self.capacity_bytes
    }

    /// Whether the open group may grow to that many bytes where it lies, with `reserve_bytes` left over.
    pub fn has_room_to_grow(&self, group_bytes: u64, reserve_bytes: u64) -> bool {
        let open = self.open.as_ref().expect("a group is open");
        self.offset_in_lap(open.start) + group_bytes <= self.capacity_bytes
            && open.start + group_bytes + reserve_bytes <= self.tail + self.capacity_bytes
    }

    /// Whether the open group could grow to that size before the ring's end, however full the ring is.
    pub fn can_grow_in_lap(&self, group_bytes: u64) -> bool {
        let open = self.open.as_ref().expect("a group is open");
        self.offset_in_lap(open.start) + group_bytes <= self.capacity_bytes
    }

    /// Opens a group of that many bytes. The caller has asked for room.
    pub fn begin(&mut self, group_bytes: u64) -> GroupPlace {
        assert!(self.open.is_none(), "one group is open at a time");
        assert!(self.has_room_for_group(group_bytes, 0), "room was asked for first");
        let start = self.fresh_start(group_bytes);
        // From the very end the next lap begins straight on; only a place before the end is left for it by a skip.
        let skipped_from = if start == self.head { 0 } else { self.position(self.head) };
        if self.used_bytes() == 0 {
            self.tail = start;
        }
        self.head = start + group_bytes;
        self.open = Some(OpenSpan { start, bytes: group_bytes, unplaced: 0 });
        GroupPlace { sequence: self.next_sequence, position: self.position(start), skipped_from }
    }

    /// The open group has grown.
    pub fn grow(&mut self, group_bytes: u64) {
        assert!(self.has_room_to_grow(group_bytes, 0), "room was asked for first");
        let open = self.open.as_mut().expect("a group is open");
        assert!(group_bytes >= open.bytes);
        open.bytes = group_bytes;
        self.head = open.start + group_bytes;
    }

    /// The open group takes no more entries.
    pub fn seal(&mut self) {
        let open = self.open.take().expect("a group is open");
        self.groups.push_back(LiveGroup { start: open.start, unplaced: open.unplaced });
        self.next_sequence = self.next_sequence.next();
    }

    /// An entry of the open group holds bytes that are not in a segment file yet.
    pub fn count_unplaced(&mut self) {
        self.open.as_mut().expect("a group is open").unplaced += 1;
    }

    /// One such entry of that group is in its segment file now, or is not wanted any more.
    pub fn count_placed(&mut self, sequence: GroupSequence) {
        let unplaced = if sequence == self.next_sequence {
            &mut self.open.as_mut().expect("a group is open").unplaced
        } else {
            let oldest = self.next_sequence.0 - self.live_count();
            &mut self.groups[(sequence.0 - oldest) as usize].unplaced
        };
        *unplaced = unplaced.checked_sub(1).expect("no entry is placed twice");
    }

    /// The oldest group that holds an entry not yet placed; where there is none, the one that the next entry goes to. A checkpoint that begins now starts its replay there.
    pub fn oldest_unplaced(&self) -> GroupSequence {
        let oldest = self.next_sequence.0 - self.live_count();
        let index = self.groups.iter().position(|group| group.unplaced > 0).unwrap_or(self.groups.len());
        GroupSequence(oldest + index as u64)
    }

    /// The first group that is not among the oldest `bytes` of what is needed; the oldest group always is.
    pub fn behind_oldest(&self, bytes: u64) -> GroupSequence {
        let oldest = self.next_sequence.0 - self.live_count();
        let count = self.groups.partition_point(|group| group.start < self.tail + bytes).max(1).min(self.groups.len());
        GroupSequence(oldest + count as u64)
    }

    /// File position of a group that is still needed, or of where the next one would be begun.
    pub fn position_of(&self, sequence: GroupSequence) -> u64 {
        self.position(self.spot_of(sequence))
    }

    /// Groups before this one are not needed any more: a checkpoint that does without them is on stable storage.
    pub fn release_before(&mut self, sequence: GroupSequence) {
        let oldest = self.next_sequence.0 - self.live_count();
        assert!(sequence <= self.next_sequence, "a group that does not exist cannot be the oldest needed");
        let count = sequence.0.saturating_sub(oldest) as usize;
        let tail = self.spot_of(GroupSequence(sequence.0.max(oldest)));
        for group in self.groups.drain(..count) {
            assert_eq!(group.unplaced, 0, "the ring's space is not taken again before its entries are placed");
        }
        self.tail = tail;
    }

    fn spot_of(&self, sequence: GroupSequence) -> Spot {
        let oldest = self.next_sequence.0 - self.live_count();
        if sequence == self.next_sequence {
            return self.open.as_ref().map_or(self.head, |open| open.start);
        }
        self.groups[(sequence.0 - oldest) as usize].start
    }

    fn fresh_start(&self, group_bytes: u64) -> Spot {
        let offset = self.offset_in_lap(self.head);
        if offset + group_bytes <= self.capacity_bytes { self.head } else { self.head - offset + self.capacity_bytes }
    }

    fn offset_in_lap(&self, spot: Spot) -> u64 {
        spot % self.capacity_bytes
    }

    fn position(&self, spot: Spot) -> u64 {
        RING_START + self.offset_in_lap(spot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    /// A ring with room for eight blocks of groups.
    fn small() -> Ring {
        Ring::new(9 * BLOCK)
    }

    fn put(ring: &mut Ring, blocks: u64) -> GroupPlace {
        let place = ring.begin(blocks * BLOCK);
        ring.seal();
        place
    }

    #[test]
    fn groups_follow_each_other_and_skip_the_end_in_one_piece() {
        let mut ring = small();
        assert_eq!(put(&mut ring, 3), GroupPlace { sequence: GroupSequence(1), position: BLOCK, skipped_from: 0 });
        assert_eq!(put(&mut ring, 3), GroupPlace { sequence: GroupSequence(2), position: 4 * BLOCK, skipped_from: 0 });
        // Two blocks are left before the end; three do not fit, and the beginning is still needed.
        assert!(!ring.has_room_for_group(3 * BLOCK, 0));
        ring.release_before(GroupSequence(2));
        assert_eq!(put(&mut ring, 3), GroupPlace { sequence: GroupSequence(3), position: BLOCK, skipped_from: 7 * BLOCK });
        assert!(!ring.has_room_for_group(BLOCK, 0));
        ring.release_before(GroupSequence(3));
        assert_eq!(ring.used_bytes(), 3 * BLOCK);
    }

    #[test]
    fn a_group_that_ends_with_the_ring_is_followed_by_one_at_its_start_without_a_skip() {
        let mut ring = small();
        put(&mut ring, 8);
        ring.release_before(GroupSequence(2));
        assert_eq!(ring.used_bytes(), 0);
        assert_eq!(put(&mut ring, 8), GroupPlace { sequence: GroupSequence(2), position: BLOCK, skipped_from: 0 });
    }

    #[test]
    fn an_empty_ring_takes_a_group_of_its_whole_size_from_anywhere() {
        let mut ring = small();
        put(&mut ring, 5);
        ring.release_before(GroupSequence(2));
        assert!(ring.has_room_for_group(8 * BLOCK, 0));
        assert_eq!(put(&mut ring, 8), GroupPlace { sequence: GroupSequence(2), position: BLOCK, skipped_from: 6 * BLOCK });
        assert_eq!(ring.used_bytes(), 8 * BLOCK);
    }

    #[test]
    fn the_oldest_unplaced_group_holds_the_ring() {
        let mut ring = small();
        for _ in 0..3 {
            ring.begin(BLOCK);
            ring.count_unplaced();
            ring.seal();
        }
        ring.count_placed(GroupSequence(2));
        assert_eq!(ring.oldest_unplaced(), GroupSequence(1));
        ring.count_placed(GroupSequence(1));
        assert_eq!(ring.oldest_unplaced(), GroupSequence(3));
        ring.count_placed(GroupSequence(3));
        assert_eq!(ring.oldest_unplaced(), GroupSequence(4));
        assert_eq!(ring.position_of(GroupSequence(4)), 4 * BLOCK);
    }

    #[test]
    fn the_oldest_bytes_are_told_in_whole_groups() {
        let mut ring = small();
        assert_eq!(ring.behind_oldest(BLOCK), GroupSequence(1));
        for blocks in [3, 1, 1] {
            put(&mut ring, blocks);
        }
        let behind = [1, 3, 4, 5, 99].map(|blocks| ring.behind_oldest(blocks * BLOCK).0);
        assert_eq!((ring.behind_oldest(0).0, behind), (2, [2, 2, 3, 4, 4]));
    }

    #[test]
    #[should_panic(expected = "not taken again before its entries are placed")]
    fn releasing_an_unplaced_entry_is_a_defect() {
        let mut ring = small();
        ring.begin(BLOCK);
        ring.count_unplaced();
        ring.seal();
        ring.release_before(GroupSequence(2));
    }

    proptest! {
        /// Whatever is put and released: live groups never overlap in the file, and used bytes never exceed the capacity.
        #[test]
        fn live_groups_never_overlap(steps in proptest::collection::vec((1u64..5, 0u64..6), 1..200)) {
            let mut ring = small();
            let mut live: VecDeque<(u64, u64, u64)> = VecDeque::new();
            for (blocks, release) in steps {
                if ring.has_room_for_group(blocks * BLOCK, 0) {
                    let place = put(&mut ring, blocks);
                    for (_, start, length) in &live {
                        let apart = place.position >= start + length || place.position + blocks * BLOCK <= *start;
                        prop_assert!(apart);
                    }
                    prop_assert!(place.position + blocks * BLOCK <= 9 * BLOCK);
                    live.push_back((place.sequence.0, place.position, blocks * BLOCK));
                }
                let target = live.front().map_or(ring.open_sequence().0, |group| group.0 + release).min(ring.open_sequence().0);
                ring.release_before(GroupSequence(target));
                while live.front().is_some_and(|group| group.0 < target) {
                    live.pop_front();
                }
                prop_assert!(ring.used_bytes() <= ring.capacity_bytes());
            }
        }
    }
}
