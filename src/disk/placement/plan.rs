//! What a round does to the segment files of one partition: its changes, joined into as few steps as possible. Plain values, no I/O.

use std::collections::VecDeque;

use bytes::Bytes;

use super::backlog::{Change, Cut};
use crate::disk::checkpoint::PlacedEnd;
use crate::disk::journal::group::{BLOCK_BYTES, round_down_to_block};

/// Steps are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Write(Extent),
    /// A later segment follows: the file is cut to its last byte and flushed before anything is written there.
    Finish {
        segment_base: i64,
        size_bytes: u32,
    },
    /// A segment that has no byte yet gets its file.
    Begin {
        segment_base: i64,
    },
    Cut(Cut),
}

/// Bytes that follow each other in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub segment_base: i64,
    /// Position of the first byte.
    pub position: u32,
    pub pieces: VecDeque<Bytes>,
    pub length: u64,
    /// The first block's bytes before `position`: read back from the file, and kept in the journal until the round's checkpoint. Empty where the extent begins with its block.
    pub prefix: Bytes,
}

impl Extent {
    /// Where the first block begins.
    pub fn block_position(&self) -> u64 {
        round_down_to_block(u64::from(self.position))
    }

    /// Segment and position of the first block: extents compare by it as the log's bytes follow each other.
    pub fn first_block(&self) -> (i64, u64) {
        (self.segment_base, self.block_position())
    }

    pub fn prefix_bytes(&self) -> usize {
        self.position as usize % BLOCK_BYTES
    }
}

/// The steps of a partition's changes, and where its log's files end afterwards.
pub fn plan(placed: PlacedEnd, changes: impl IntoIterator<Item = Change>) -> (Vec<Step>, PlacedEnd) {
    let mut steps = Vec::new();
    let mut end = placed;
    for change in changes {
        match change {
            Change::Write { segment_base, position, end_offset, bytes } => {
                if segment_base != end.segment_base {
                    assert!(segment_base > end.segment_base && position == 0, "a later segment begins at its first byte");
                    steps.push(Step::Finish { segment_base: end.segment_base, size_bytes: end.size_bytes });
                } else {
                    assert_eq!(position, end.size_bytes, "bytes follow each other in a segment");
                }
                let length = u32::try_from(bytes.len()).expect("a segment is smaller than 4 GiB");
                let size_bytes = position.checked_add(length).expect("a segment is smaller than 4 GiB");
                end = PlacedEnd { segment_base, size_bytes, end_offset };
                add_bytes(&mut steps, segment_base, position, bytes);
            }
            Change::Roll { segment_base } => {
                assert!(segment_base > end.segment_base, "a later segment begins");
                steps.push(Step::Finish { segment_base: end.segment_base, size_bytes: end.size_bytes });
                steps.push(Step::Begin { segment_base });
                end = PlacedEnd { segment_base, size_bytes: 0, end_offset: segment_base };
            }
            Change::Cut(cut) => {
                end = PlacedEnd { segment_base: cut.segment_base, size_bytes: cut.position, end_offset: cut.end_offset };
                steps.push(Step::Cut(cut));
            }
        }
    }
    (steps, end)
}

fn add_bytes(steps: &mut Vec<Step>, segment_base: i64, position: u32, bytes: Bytes) {
    let length = bytes.len() as u64;
    if let Some(Step::Write(extent)) = steps.last_mut() {
        // A step of another segment or a cut would lie between.
        extent.pieces.push_back(bytes);
        extent.length += length;
        return;
    }
    steps.push(Step::Write(Extent { segment_base, position, pieces: VecDeque::from([bytes]), length, prefix: Bytes::new() }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(segment_base: i64, position: u32, end_offset: i64, bytes: &'static [u8]) -> Change {
        Change::Write { segment_base, position, end_offset, bytes: Bytes::from_static(bytes) }
    }

    fn extent(segment_base: i64, position: u32, pieces: &[&'static [u8]]) -> Step {
        let pieces: VecDeque<_> = pieces.iter().map(|piece| Bytes::from_static(piece)).collect();
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Step::Write(Extent { segment_base, position, pieces, length, prefix: Bytes::new() })
    }

    const PLACED: PlacedEnd = PlacedEnd { segment_base: 0, size_bytes: 5000, end_offset: 10 };

    #[test]
    fn batches_become_one_extent_and_a_roll_finishes_the_segment_before() {
        let changes = [write(0, 5000, 11, b"ab"), write(0, 5002, 12, b"c"), write(12, 0, 13, b"d")];
        let (steps, end) = plan(PLACED, changes);
        assert_eq!(steps, [extent(0, 5000, &[b"ab", b"c"]), Step::Finish { segment_base: 0, size_bytes: 5003 }, extent(12, 0, &[b"d"])]);
        assert_eq!(end, PlacedEnd { segment_base: 12, size_bytes: 1, end_offset: 13 });
        let Step::Write(first) = &steps[0] else { unreachable!() };
        assert_eq!((first.block_position(), first.prefix_bytes()), (4096, 904));
    }

    #[test]
    fn a_segment_may_begin_without_a_byte() {
        let (steps, end) = plan(PLACED, [write(0, 5000, 11, b"ab"), Change::Roll { segment_base: 11 }, write(11, 0, 12, b"c")]);
        let finish = Step::Finish { segment_base: 0, size_bytes: 5002 };
        assert_eq!(steps, [extent(0, 5000, &[b"ab"]), finish, Step::Begin { segment_base: 11 }, extent(11, 0, &[b"c"])]);
        assert_eq!(end, PlacedEnd { segment_base: 11, size_bytes: 1, end_offset: 12 });
    }

    #[test]
    fn a_cut_stands_between_what_was_and_what_follows() {
        let cut = Cut { segment_base: 0, position: 100, end_offset: 3 };
        let (steps, end) = plan(PLACED, [Change::Cut(cut), write(0, 100, 4, b"x")]);
        assert_eq!(steps, [Step::Cut(cut), extent(0, 100, &[b"x"])]);
        assert_eq!(end, PlacedEnd { segment_base: 0, size_bytes: 101, end_offset: 4 });
    }

    #[test]
    #[should_panic(expected = "bytes follow each other")]
    fn a_gap_is_a_defect() {
        plan(PLACED, [write(0, 6000, 11, b"ab")]);
    }
}
