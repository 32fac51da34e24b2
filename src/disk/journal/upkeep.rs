//! The journal as placement and checkpoints see it: what waits to be placed, what they append themselves, and up to where the ring's space is free again.

use std::path::Path;
use std::rc::Rc;

use super::{Appender, EntryHeader, GroupSequence, Journal, JournalError, JournalStart, Written};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::PlacedEnd;
use crate::disk::placement::PlacementTarget;
use crate::disk::placement::backlog::{Change, PlacementWork};
use crate::rt::sync::Notify;

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

    /// Whether somebody waits for room.
    pub fn is_room_awaited(&self) -> bool {
        self.state.borrow().room_queue.is_waiting()
    }

    /// Whether others wait for room, or may soon: what only fills the ring has to make way.
    pub fn is_short_of_room(&self) -> bool {
        let state = self.state.borrow();
        state.room_queue.is_waiting() || state.ring.used_bytes() >= state.ring.capacity_bytes() / 2
    }

    /// Durable changes that wait for placement, the oldest first.
    pub fn durable_work(&self) -> Vec<PlacementWork> {
        let state = self.state.borrow();
        state.backlog.durable_work(state.durable)
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
    }

    /// A partition's files are in another directory from now on. No round of placement is under way, see `Placement::hold`.
    pub fn relocate(&self, partition: &TopicIdPartition, directory: Rc<Path>) {
        if let Some(site) = self.state.borrow_mut().backlog.get_mut(partition) {
            site.directory = directory;
        }
    }

    /// What a `Swap` or `Moved` entry of that group asks for is done: a restart need not see it again.
    pub fn let_go_of(&self, sequence: GroupSequence) {
        self.state.borrow_mut().ring.count_placed(sequence);
    }

    /// A partition's files failed: it is told, and what waits for it stays in the ring.
    pub fn fail_partition(&self, partition: &TopicIdPartition, error: &JournalError) {
        let target = {
            let mut state = self.state.borrow_mut();
            let Some(site) = state.backlog.get_mut(partition) else { return };
            site.is_failed = true;
            site.target.clone()
        };
        target.failed(error);
    }

    /// Writes what waits for files that failed into the ring once more, the oldest first, as much as upkeep may take at once: so it stays for the next start, and the room in which it
    /// was can be used by others. The checkpoint that follows knows these entries; redone, they put bytes in their places and nothing else.
    pub fn carry_failed_forward(&self) {
        let oldest = self.state.borrow().backlog.oldest_failed(self.upkeep_bytes_max());
        for (partition, number, change) in oldest {
            let Change::Write { segment_base, position, bytes, .. } = change else { return };
            let Ok(written) = self.append_upkeep(&EntryHeader::block_prefix(partition, segment_base, position), &[&bytes]) else { return };
            let mut state = self.state.borrow_mut();
            state.ring.count_unplaced();
            if let Some(before) = state.backlog.carried(&partition, number, written.sequence, written.bytes) {
                state.ring.count_placed(before);
            }
        }
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
