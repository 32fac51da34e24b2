//! Rings as crashes, old laps and bad disks leave them: what was whole and in order is read, nothing else, and nothing panics.

use proptest::prelude::*;
use uuid::Uuid;

use super::super::entry::{EntryHeader, EntryKind};
use super::super::group::round_up_to_block;
use super::super::ring::Ring;
use super::*;
use crate::cluster::TopicIdPartition;

const BLOCK: usize = BLOCK_BYTES;
const LIFE: Uuid = Uuid::from_u128(0xabc);

/// A ring file and the writer's own book over it.
struct Writer {
    file: Vec<u8>,
    ring: Ring,
    journal_id: Uuid,
    next_entry: u64,
    /// Sequence, position and entries' marks of every group that was written.
    written: Vec<(u64, u64, Vec<i64>)>,
    /// How many groups may be under way at once: a group vouches for those this far before it.
    depth: u64,
}

impl Writer {
    fn new(blocks: usize, journal_id: Uuid) -> Self {
        let file = vec![0; blocks * BLOCK];
        Self { ring: Ring::new(file.len() as u64), file, journal_id, next_entry: 0, written: Vec::new(), depth: 4 }
    }

    /// Another life in the same file: everything of the earlier one is still there as old bytes.
    fn reborn(self, journal_id: Uuid) -> Self {
        Self { file: self.file, ..Self::new(3, journal_id) }.with_ring()
    }

    fn with_ring(mut self) -> Self {
        self.ring = Ring::new(self.file.len() as u64);
        self
    }

    /// A group with one entry for each payload size; makes room by releasing the oldest groups.
    fn put(&mut self, payloads: &[usize]) {
        let mut body = Vec::new();
        let mut marks = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let mark = (self.next_entry + index as u64) as i64;
            let header = EntryHeader::append(TopicIdPartition::new(Uuid::from_u128(1), 0), 0, 0, mark, mark, 0);
            body.extend_from_slice(&header.encode(*payload));
            body.extend(std::iter::repeat_n(mark as u8, *payload));
            marks.push(mark);
        }
        let bytes = round_up_to_block((GROUP_HEADER_BYTES + body.len()) as u64);
        let mut oldest = self.ring.oldest_unplaced();
        while !self.ring.has_room_for_group(bytes, 0) {
            oldest = GroupSequence(self.oldest_live().0 + 1).min(oldest);
            self.ring.release_before(oldest);
            oldest = self.ring.oldest_unplaced();
        }
        let place = self.ring.begin(bytes);
        self.ring.seal();
        let header = GroupHeader {
            journal_id: self.journal_id,
            sequence: place.sequence,
            first_entry: self.next_entry,
            durable_before: GroupSequence(place.sequence.0.saturating_sub(self.depth)),
            skipped_from: place.skipped_from,
            entry_count: payloads.len() as u32,
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(&body),
        };
        let at = place.position as usize;
        self.file[at..at + bytes as usize].fill(0);
        self.file[at..at + GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
        self.file[at + GROUP_HEADER_BYTES..at + GROUP_HEADER_BYTES + body.len()].copy_from_slice(&body);
        self.next_entry += payloads.len() as u64;
        self.written.push((place.sequence.0, place.position, marks));
    }

    fn oldest_live(&self) -> GroupSequence {
        let live_from = self.ring.open_sequence().0 - self.ring.live_count();
        GroupSequence(live_from)
    }

    /// What a checkpoint that keeps all live groups would say.
    fn start(&self) -> ReplayStart {
        let sequence = self.oldest_live();
        ReplayStart { journal_id: self.journal_id, sequence, position: self.ring.position_of(sequence) }
    }

    fn live_marks(&self) -> Vec<i64> {
        let oldest = self.oldest_live().0;
        self.written.iter().filter(|group| group.0 >= oldest).flat_map(|group| group.2.clone()).collect()
    }

    fn read(&self) -> Result<Vec<i64>, ReplayError> {
        marks(&self.file, self.start())
    }
}

fn marks(file: &[u8], start: ReplayStart) -> Result<Vec<i64>, ReplayError> {
    let mut found = Vec::new();
    for group in read_groups(&Bytes::copy_from_slice(file), &ShadowContent::default(), start)? {
        for (number, entry) in group.entries()? {
            assert_eq!(entry.header.kind, EntryKind::Append);
            assert_eq!(entry.header.base_offset, number as i64);
            assert!(entry.payload.iter().all(|byte| *byte == entry.header.base_offset as u8));
            found.push(entry.header.base_offset);
        }
    }
    Ok(found)
}

#[test]
fn every_lap_reads_back_what_it_holds() {
    let mut writer = Writer::new(12, LIFE);
    for round in 0..200 {
        writer.put(&[round * 37 % 5000, round % 300]);
        assert_eq!(writer.read().unwrap(), writer.live_marks());
    }
}

#[test]
fn a_life_never_reads_groups_of_an_earlier_one() {
    let mut earlier = Writer::new(12, LIFE);
    for _ in 0..5 {
        earlier.put(&[100]);
    }
    let mut later = earlier.reborn(Uuid::from_u128(0xdef));
    assert_eq!(later.read().unwrap(), Vec::<i64>::new());
    // Group 1 of the new life ends exactly where group 2 of the earlier one still lies, whole and with the sequence that comes next.
    later.put(&[100]);
    assert_eq!(later.read().unwrap(), vec![0]);
}

#[test]
fn a_torn_last_group_is_not_there() {
    let mut writer = Writer::new(12, LIFE);
    writer.put(&[100]);
    writer.put(&[6000]);
    let (_, position, _) = writer.written[1];
    let torn = position as usize + BLOCK;
    writer.file[torn..torn + 512].fill(0);
    assert_eq!(writer.read().unwrap(), vec![0]);
}

#[test]
fn a_hole_before_unacknowledged_groups_ends_the_ring() {
    let mut writer = Writer::new(12, LIFE);
    for _ in 0..5 {
        writer.put(&[100]);
    }
    // Group 2 was under way together with 3, 4 and 5; none of them vouches for it.
    let position = writer.written[1].1 as usize;
    writer.file[position..position + BLOCK].fill(0xee);
    assert_eq!(writer.read().unwrap(), vec![0]);
}

#[test]
fn a_hole_that_was_acknowledged_is_named() {
    let mut writer = Writer::new(12, LIFE);
    for _ in 0..6 {
        writer.put(&[100]);
    }
    let position = writer.written[1].1;
    writer.file[position as usize + 80] ^= 1;
    let witness_position = writer.written[5].1;
    assert_eq!(writer.read(), Err(ReplayError::Lost { sequence: GroupSequence(2), position, witness_position }));
}

#[test]
fn a_checkpoint_whose_groups_were_overwritten_is_named() {
    let mut writer = Writer::new(12, LIFE);
    writer.put(&[100]);
    let stale = writer.start();
    for _ in 0..40 {
        writer.put(&[100, 5000]);
    }
    assert!(matches!(marks(&writer.file, stale), Err(ReplayError::Lost { sequence: GroupSequence(1), .. })));
}

#[test]
fn an_entry_taken_for_the_next_must_have_the_next_sequence() {
    // An old lap: same life, same place, whole, yet written a lap before. Only the sequence tells.
    let mut writer = Writer::new(5, LIFE);
    for _ in 0..6 {
        writer.put(&[100]);
    }
    // Four blocks: groups 1 to 4 in the first lap; 5 and 6 lie over 1 and 2; 3 and 4 are old and follow 6 in place.
    assert_eq!(marks(&writer.file, ReplayStart { journal_id: LIFE, sequence: GroupSequence(5), position: RING_START }), Ok(vec![4, 5]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However a ring is cut or garbled, reading gives a prefix of what was written, or names a loss; it never panics and never gives anything else.
    #[test]
    fn damage_gives_a_prefix_or_a_named_loss(
        groups in proptest::collection::vec(proptest::collection::vec(0usize..6000, 1..4), 1..30),
        damage in proptest::collection::vec((0usize..20 * BLOCK, 1usize..600, any::<u8>()), 1..6),
    ) {
        let mut writer = Writer::new(20, LIFE);
        for payloads in &groups {
            writer.put(payloads);
        }
        let whole = writer.live_marks();
        for (at, length, value) in damage {
            let end = (at + length).min(writer.file.len());
            writer.file[at..end].fill(value);
        }
        match writer.read() {
            Ok(found) => prop_assert_eq!(&found[..], &whole[..found.len()]),
            Err(error) => {
                let named = matches!(error, ReplayError::Lost { .. });
                prop_assert!(named);
            }
        }
    }

    /// A cut of the last writes, as a crash makes it: what an acknowledgement could rest on is always read.
    #[test]
    fn what_a_later_group_vouches_for_survives_any_cut(
        groups in proptest::collection::vec(1usize..6000, 5..40),
        lost in proptest::collection::vec(any::<bool>(), 4),
        keep_blocks in 0usize..3,
    ) {
        let mut writer = Writer::new(30, LIFE);
        for payload in &groups {
            writer.put(&[*payload]);
        }
        let whole = writer.live_marks();
        let count = writer.written.len();
        let mut first_lost = whole.len();
        // Of the last four groups, which may all be under way at once, some are missing behind their first blocks.
        for (back, lost) in lost.iter().enumerate().filter(|(back, _)| *back < count.min(whole.len())) {
            if *lost {
                let (_, position, _) = writer.written[count - 1 - back];
                let bytes = round_up_to_block((GROUP_HEADER_BYTES + 64 + groups[count - 1 - back]) as u64) as usize;
                let from = position as usize + (keep_blocks * BLOCK).min(bytes - BLOCK);
                writer.file[from..position as usize + bytes].fill(0);
                first_lost = whole.len() - 1 - back;
            }
        }
        prop_assert_eq!(writer.read().unwrap(), &whole[..first_lost]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 3 * BLOCK..4 * BLOCK), position in 0u64..20_000) {
        let start = ReplayStart { journal_id: LIFE, sequence: GroupSequence(1), position };
        prop_assert!(read_groups(&Bytes::from(bytes), &ShadowContent::default(), start).unwrap().is_empty());
    }
}
