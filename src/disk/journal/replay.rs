//! Reading a ring back: the groups of one life, in order, from where its checkpoint says to the last one that is whole. Plain bytes in, groups out.
//!
//! The last groups before a crash may be torn or missing: either the shadow has what counted of them, or they were never acknowledged, and reading ends there. A group that was acknowledged and cannot be read is another
//! matter: every group says up to where all before it were durable when it was closed, so a hole below that is damage, and it is named rather than passed over.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use super::entry::{Entry, EntryError};
use super::group::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupSequence};
use super::ring::RING_START;
use super::shadow::ShadowContent;
use crate::rt::plant::{Plant, is_planted};

/// A group that was wholly written.
#[derive(Clone, Debug)]
pub struct ReadGroup {
    pub header: GroupHeader,
    /// Position in the ring's file.
    pub position: u64,
    pub(super) body: Bytes,
}

/// Where reading begins: what the checkpoint says of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayStart {
    pub journal_id: Uuid,
    pub sequence: GroupSequence,
    pub position: u64,
}

/// The ring lacks what it must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// Group `sequence`, expected at `position`, is damaged or overwritten, though the group at `witness_position` says that it was durable.
    Lost { sequence: GroupSequence, position: u64, witness_position: u64 },
    /// A sound group holds an entry that this version cannot read.
    Entry { sequence: GroupSequence, position: u64, cause: EntryError },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { sequence, position, witness_position } => write!(
                formatter,
                "group {sequence} at byte {position} cannot be read, though the group at byte {witness_position} says that it was acknowledged"
            ),
            Self::Entry { sequence, position, cause } => {
                write!(formatter, "group {sequence} at byte {position} holds an entry of another version: {cause:?}")
            }
        }
    }
}

/// All whole groups of the life that `start` names, in order; of a group that is not whole in the ring, what the shadow has. `file` is the whole ring file, its header block
/// included.
pub fn read_groups(file: &Bytes, shadow: &ShadowContent, start: ReplayStart) -> Result<Vec<ReadGroup>, ReplayError> {
    let mut groups = Vec::new();
    let mut position = start.position;
    let mut sequence = start.sequence;
    let mut next_entry = None;
    // The last group, if it is from the shadow: whether that has all of it is known only by one that follows.
    let mut maybe_a_part = None;
    // A group of which the shadow has only a part is the last one: the next does not begin with the entry that is expected.
    let follows = |group: &ReadGroup, next_entry: Option<u64>| {
        next_entry.is_none_or(|number| number == group.header.first_entry) || is_planted(Plant::NoSequence)
    };
    loop {
        let in_ring = next_group(file, start.journal_id, sequence, position);
        let is_in_ring = in_ring.is_some();
        let place = if position == file.len() as u64 { RING_START } else { position };
        let group = in_ring.or_else(|| shadow.group(start.journal_id, sequence, place));
        let Some(group) = group.filter(|group| follows(group, next_entry)) else { break };
        maybe_a_part = (!is_in_ring).then_some((sequence, position));
        position = group.position + group.header.ring_bytes();
        sequence = sequence.next();
        next_entry = Some(group.header.first_entry + u64::from(group.header.entry_count));
        groups.push(group);
    }
    let (sequence, position) = maybe_a_part.unwrap_or((sequence, position));
    match witness_of(file, start.journal_id, sequence) {
        Some(witness_position) => Err(ReplayError::Lost { sequence, position, witness_position }),
        None => Ok(groups),
    }
}

impl ReadGroup {
    /// The entries with their numbers.
    pub fn entries(&self) -> Result<Vec<(u64, Entry)>, ReplayError> {
        let mut body = self.body.clone();
        (0..u64::from(self.header.entry_count))
            .map(|index| {
                let entry = Entry::decode(&mut body).map_err(|cause| ReplayError::Entry {
                    sequence: self.header.sequence,
                    position: self.position,
                    cause,
                })?;
                Ok((self.header.first_entry + index, entry))
            })
            .collect()
    }
}

/// The group with that sequence: where the one before it ended, or at the ring's start if that was reached or the group says that it skipped from there.
fn next_group(file: &Bytes, journal_id: Uuid, sequence: GroupSequence, position: u64) -> Option<ReadGroup> {
    let is_next =
        |group: &ReadGroup| group.header.journal_id == journal_id && (group.header.sequence == sequence || is_planted(Plant::NoSequence));
    let straight_on = whole_group(file, if position == file.len() as u64 { RING_START } else { position });
    // A group found where it was expected may say that it skipped: a checkpoint that begins with it names its own place, not the one that it skipped from.
    straight_on
        .filter(is_next)
        .or_else(|| whole_group(file, RING_START).filter(|group| is_next(group) && group.header.skipped_from == position))
}

/// The group at that position if header and body are sound.
fn whole_group(file: &Bytes, position: u64) -> Option<ReadGroup> {
    let start = usize::try_from(position).ok().filter(|start| *start < file.len())?;
    let header = GroupHeader::decode(&file[start..])?;
    let body_start = start + GROUP_HEADER_BYTES;
    let body_end = body_start.checked_add(header.body_bytes as usize).filter(|end| *end <= file.len())?;
    let body = file.slice(body_start..body_end);
    (crc32c::crc32c(&body) == header.body_crc || is_planted(Plant::NoCut)).then_some(ReadGroup { header, position, body })
}

/// Position of a group which says that the group `sequence` was durable before it was closed itself. Its header alone is believed: it has a checksum of its own, and it was
/// not written before the other was complete.
fn witness_of(file: &Bytes, journal_id: Uuid, sequence: GroupSequence) -> Option<u64> {
    (RING_START as usize..file.len()).step_by(BLOCK_BYTES).map(|at| at as u64).find(|position| {
        GroupHeader::decode(&file[*position as usize..])
            .is_some_and(|header| header.journal_id == journal_id && header.durable_before >= sequence)
    })
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
