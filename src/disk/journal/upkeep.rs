//! The journal as placement and checkpoints see it: what waits to be placed, what they append themselves, and up to where the ring's space is free again.

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::collector::entry_bytes;
use super::group::BLOCK_BYTES;
use super::{Appender, EntryHeader, GroupSequence, Journal, JournalError, JournalStart, State, Written};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::PlacedEnd;
use crate::disk::placement::PlacementTarget;
use crate::disk::placement::backlog::{Carry, DirectoryIndex, Gone, PlacementWork, Waiting};
use crate::rt;
use crate::rt::sync::Notify;

/// Bytes of one entry with which something is written into the ring once more; then others have a turn.
const CARRY_BYTES: usize = 64 << 10;

/// What an entry costs beside its bytes, as a number of bytes that are copied in the same time.
const ENTRY_COST_BYTES: usize = 1 << 10;

/// A change that is larger than this part of the ring is no reason to keep room for carrying it before there is trouble.
const CARRIED_SHARE: u64 = 4;

/// Changes that are looked at, or carried where they need no writing, before others have a turn.
const CHANGES_AT_ONCE: usize = 1_000;

impl Journal {
    /// A partition that is going to append: its bytes wait for placement from `placed` on.
    pub fn register(&self, partition: TopicIdPartition, target: Rc<dyn PlacementTarget>, directory: Rc<Path>, placed: PlacedEnd) {
        self.state.borrow_mut().backlog.register(partition, target, directory, placed);
    }

    /// Takes an entry that does not wait behind those of clients, because it lets go of records, is metadata that says so, or keeps the controller waiting: on a full disk
    /// with a full ring, nothing else makes room.
    pub fn append_release(&self, header: &EntryHeader, payload: &[&[u8]]) -> Result<Written, JournalError> {
        self.append_as(Appender::Release, header, payload, true)
    }

    /// Takes an entry of placement's own, which may use the reserve.
    pub fn append_upkeep(&self, header: &EntryHeader, payload: &[&[u8]]) -> Result<Written, JournalError> {
        self.append_as(Appender::Upkeep, header, payload, true)
    }

    /// Bytes that placement's own entries may take at once; half of what clients leave, so that a round always finds its room.
    pub fn upkeep_bytes_max(&self) -> u64 {
        self.state.borrow().reserve_bytes() / 2
    }

    /// Rung when the ring has filled so far that placement should begin.
    pub fn pressure(&self) -> Notify {
        self.pressure.clone()
    }

    /// Whether the ring has filled so far that placement should begin.
    pub fn is_under_pressure(&self) -> bool {
        self.state.borrow().is_under_pressure()
    }

    /// Partitions with durable changes that wait for placement, the oldest first.
    pub fn durable_waiting(&self) -> Vec<Waiting> {
        let state = self.state.borrow();
        state.backlog.durable(state.durable)
    }

    /// Durable changes of a partition, as many as a round takes.
    pub fn durable_work(&self, partition: &TopicIdPartition) -> Option<PlacementWork> {
        let state = self.state.borrow();
        state.backlog.durable_work(partition, state.durable)
    }

    /// Changes that wait for placement, durable or not.
    pub fn waiting_count(&self) -> usize {
        self.state.borrow().backlog.waiting_count()
    }

    /// Up to and with the change of that number, a partition's changes are in its segment files and flushed.
    pub fn strike_off(&self, partition: &TopicIdPartition, last_number: u64, placed: PlacedEnd) {
        let (target, readable) = {
            let mut state = self.state.borrow_mut();
            let groups = state.backlog.strike_off(partition, last_number, placed);
            state.count_placed(groups);
            let Some(site) = state.backlog.get(partition) else { return };
            (site.target.clone(), site.readable())
        };
        target.placed(readable);
        self.grant_room();
    }

    /// A partition's files are in another directory from now on. No round of placement is under way, see `Placement::hold`.
    pub fn relocate(&self, partition: &TopicIdPartition, directory: Rc<Path>) {
        self.state.borrow_mut().backlog.relocate(partition, directory);
        self.grant_room();
    }

    /// What a `Swap` or `Moved` entry of a partition asks for, which was entered in that group, is done: a restart need not see it again.
    pub fn let_go_of(&self, partition: &TopicIdPartition, entered: GroupSequence) {
        {
            let mut state = self.state.borrow_mut();
            let kept_by = state.backlog.unpin(partition, entered);
            state.count_placed(kept_by);
        }
        self.grant_room();
    }

    /// Bytes that wait to be brought into a data directory.
    pub fn waiting_bytes_in(&self, data_directory: &Path) -> u64 {
        self.state.borrow().backlog.waiting_bytes_in(data_directory)
    }

    /// A partition's files failed: it is told, and what waits for it stays in the ring.
    pub fn fail_partition(&self, partition: &TopicIdPartition, error: &JournalError) {
        self.fail_torn_partition(partition, error, Vec::new());
    }

    /// As `fail_partition`, after a write that may have destroyed what was placed before: `torn` are the `BlockPrefix` entries that hold it, to be kept until the next start.
    pub fn fail_torn_partition(&self, partition: &TopicIdPartition, error: &JournalError, torn: Vec<(EntryHeader, Bytes)>) {
        let target = self.state.borrow_mut().backlog.fail(partition, error, torn);
        if let Some(target) = target {
            target.failed(error);
        }
    }

    /// Looks which partitions' files take nothing at present: those that failed, and those in directories that `is_full` names.
    pub fn note_stuck(&self, is_full: impl Fn(&Path) -> bool) {
        self.state.borrow_mut().backlog.note_stuck(is_full);
    }

    /// Why the files of a partition take nothing any more, if there is such a one.
    pub fn partition_failure(&self) -> Option<JournalError> {
        self.state.borrow().backlog.failure()
    }

    /// Whether there is no room for anything of clients.
    pub fn is_full(&self) -> bool {
        let state = self.state.borrow();
        !state.has_room(Appender::Client, 0)
    }

    /// Whether anything waits for files that take what is written to them.
    pub fn has_others_waiting(&self) -> bool {
        self.state.borrow().backlog.has_others_waiting()
    }

    /// Whether something that a restart has to see is still to be written into the ring: no checkpoint may let go of anything before.
    pub fn has_unwritten_pins(&self) -> bool {
        self.state.borrow().backlog.has_unwritten_pins()
    }

    /// Writes what waits for files that take nothing at present into the ring once more, as far as it lies in the ring's oldest part: so it stays for the next start, and once a checkpoint
    /// follows, which knows these entries, others can have the room in which it was. Redone, they put bytes in their places and change nothing else. Ends early where there is no room.
    pub async fn carry_forward(&self) {
        let Some(end) = self.end_of_carriage() else { return };
        let partitions = self.state.borrow().backlog.stuck();
        let mut bytes_left = CARRY_BYTES;
        for partition in partitions {
            let mut next = Some(0);
            while let Some(from) = next {
                let mut carries = Vec::new();
                next = self.state.borrow().backlog.to_carry(&partition, end, from, CHANGES_AT_ONCE, &mut carries);
                for carry in carries {
                    if self.carry(carry, &mut bytes_left).await.is_err() {
                        return;
                    }
                }
                rt::yield_now().await;
            }
        }
    }

    /// Up to where in the ring it is worth while: not at all where little else is in the ring than what would be written again.
    fn end_of_carriage(&self) -> Option<GroupSequence> {
        let state = self.state.borrow();
        let bytes_max = state.reserve_bytes() / 2;
        let gained_bytes = state.ring.used_bytes().saturating_sub(state.backlog.stuck_bytes());
        let is_worth_while = state.is_under_pressure() && gained_bytes >= bytes_max;
        if is_worth_while {
            // What is not durable yet may not have to be kept at all.
            return Some(state.ring.behind_oldest(bytes_max).min(GroupSequence(state.durable.0 + 1)));
        }
        state.backlog.has_unwritten_pins().then_some(GroupSequence(0))
    }

    /// In pieces, with a turn for others between. The first piece keeps the group that it is in, and with it all that follow.
    async fn carry(&self, carry: Carry, bytes_left: &mut usize) -> Result<(), JournalError> {
        let Carry { partition, keeper, entry } = carry;
        let mut first = None;
        if let Some((mut header, mut payload)) = entry {
            if !self.state.borrow().has_room_to_carry(payload.len()) {
                return Err(JournalError::Full);
            }
            loop {
                if !self.state.borrow().backlog.is_kept(&partition, keeper) {
                    break;
                }
                let piece = payload.split_to(payload.len().min(CARRY_BYTES));
                match self.append_as(Appender::Carry, &header, &[&piece], true) {
                    Ok(written) if first.is_none() => {
                        self.state.borrow_mut().ring.count_unplaced();
                        first = Some(written.sequence);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.state.borrow_mut().count_placed(first);
                        return Err(error);
                    }
                }
                *bytes_left = bytes_left.saturating_sub(ENTRY_COST_BYTES + piece.len());
                if *bytes_left == 0 {
                    *bytes_left = CARRY_BYTES;
                    rt::yield_now().await;
                }
                if payload.is_empty() {
                    break;
                }
                header.position += piece.len() as u32;
            }
        }
        let mut state = self.state.borrow_mut();
        match state.backlog.carried(&partition, keeper, first) {
            Ok(before) => state.count_placed(before),
            Err(Gone) => state.count_placed(first),
        }
        Ok(())
    }

    /// Directories and ends of the live files behind whose last byte zeros may lie.
    pub fn padded_ends(&self) -> Vec<(Rc<Path>, PlacedEnd)> {
        self.state.borrow().backlog.padded_ends()
    }

    /// All partitions that are registered.
    pub fn partitions(&self) -> Vec<TopicIdPartition> {
        self.state.borrow().backlog.partitions()
    }

    /// A partition's target, up to where its files hold the log, and the number of the next entry; none if it is gone.
    pub fn site(&self, partition: &TopicIdPartition) -> Option<(Rc<dyn PlacementTarget>, PlacedEnd, u64)> {
        let state = self.state.borrow();
        let site = state.backlog.get(partition)?;
        Some((site.target.clone(), site.placed, state.collector.next_entry()))
    }

    /// Where replay would have to begin now. A checkpoint asks before it looks at the first partition.
    pub fn replay_start(&self) -> JournalStart {
        let state = self.state.borrow();
        let sequence = state.ring.oldest_unplaced();
        JournalStart { sequence, position: state.ring.position_of(sequence) }
    }

    /// A checkpoint that begins its replay at `start` is on stable storage: the space before is free again.
    pub fn checkpointed(&self, start: JournalStart) {
        self.state.borrow_mut().ring.release_before(start.sequence);
        self.grant_room();
    }
}

impl State {
    /// Whether pieces of so many bytes find room, with what is lost where the ring begins anew. Without that it is not begun: half of it would fill the ring and free nothing.
    fn has_room_to_carry(&self, bytes: usize) -> bool {
        self.ring.used_bytes() + bytes_to_carry(bytes) <= self.ring.capacity_bytes()
    }

    /// What clients leave free for the largest change that may have to be carried, and what lies before it: one that waits for files in trouble; where the ring is shared by several data
    /// directories, any, the one of so many bytes that is to be appended included, because a directory can fail at any moment.
    pub(super) fn bytes_kept_for_carrying(&self, payload_bytes: usize) -> u64 {
        let capacity_bytes = self.ring.capacity_bytes();
        let prudent_bytes = capacity_bytes / CARRIED_SHARE;
        let bytes = match payload_bytes as u64 {
            // So large that the ring may have no room for it but when it is empty.
            payload_bytes if !self.backlog.is_shared() || payload_bytes > prudent_bytes => self.backlog.stuck_change_bytes_max(),
            _ => {
                let change_bytes = self.backlog.change_bytes_max().max(entry_bytes(payload_bytes) as u64).min(prudent_bytes);
                change_bytes.max(self.backlog.stuck_change_bytes_max())
            }
        };
        match bytes {
            0 => 0,
            bytes => (bytes_to_carry(bytes as usize) + self.reserve_bytes() / 2).min(capacity_bytes / 2),
        }
    }

    /// Whether a data directory may have so much more of the ring. Each has half of what clients may use, where there are several: one that is slow, full or failed leaves the rest to the
    /// others, and with it what it takes to carry forward what lies in their way. A directory for which nothing waits is never turned away.
    pub(super) fn has_share(&self, directory: DirectoryIndex, payload_bytes: usize) -> bool {
        let waiting_bytes = self.backlog.waiting_bytes(directory);
        if !self.backlog.is_shared() || waiting_bytes == 0 {
            return true;
        }
        let kept_bytes = self.reserve_bytes() + self.bytes_kept_for_carrying(payload_bytes);
        waiting_bytes + entry_bytes(payload_bytes) as u64 <= self.ring.capacity_bytes().saturating_sub(kept_bytes) / 2
    }
}

/// Room for a change that is carried in pieces, with blocks that are filled in part and what is lost where the ring begins anew.
fn bytes_to_carry(bytes: usize) -> u64 {
    let pieces = bytes.div_ceil(CARRY_BYTES) as u64 + 1;
    bytes as u64 + pieces * 2 * BLOCK_BYTES as u64 + CARRY_BYTES as u64
}
