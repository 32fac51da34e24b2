//! Who waits for the journal: for a group to become durable, and for room in the ring.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{GroupSequence, Journal};
use crate::disk::placement::backlog::DirectoryIndex;
use crate::rt::sync::{Receiver, Sender, oneshot};

/// Those who wait for groups, in the order of the groups.
#[derive(Default)]
pub struct DurableQueue {
    waiters: VecDeque<(GroupSequence, Sender<()>)>,
}

impl DurableQueue {
    pub fn push(&mut self, sequence: GroupSequence) -> Receiver<()> {
        let (sender, receiver) = oneshot();
        // Nearly always at the end: who waits has just appended.
        let index = self.waiters.iter().rposition(|waiter| waiter.0 <= sequence).map_or(0, |before| before + 1);
        self.waiters.insert(index, (sequence, sender));
        receiver
    }

    /// The oldest group that anybody waits for.
    pub fn first(&self) -> Option<GroupSequence> {
        self.waiters.iter().find(|waiter| !waiter.1.is_closed()).map(|waiter| waiter.0)
    }

    pub fn take_through(&mut self, durable: GroupSequence) -> Vec<Sender<()>> {
        let count = self.waiters.iter().take_while(|waiter| waiter.0 <= durable).count();
        self.waiters.drain(..count).map(|waiter| waiter.1).collect()
    }
}

/// Those who wait for room, first in, first out, in a line for each data directory: one that has its share of the ring already waits without holding up the others. One is let in at a time and
/// appends; then the next.
#[derive(Default)]
pub struct RoomQueue {
    lines: Vec<VecDeque<RoomWaiter>>,
    next_number: u64,
    is_granted: bool,
    /// Set while the one who was let in appends.
    pub is_turn: bool,
}

struct RoomWaiter {
    /// Counts those who come, over all lines.
    number: u64,
    payload_bytes: usize,
    sender: Sender<Room>,
}

impl RoomQueue {
    pub fn push(&mut self, directory: DirectoryIndex, payload_bytes: usize) -> Receiver<Room> {
        let (sender, receiver) = oneshot();
        self.next_number += 1;
        let number = self.next_number;
        let line = self.line(directory);
        // A line in which nobody is let in for long does not grow by those who have given up.
        line.retain(|waiter| !waiter.sender.is_closed());
        line.push_back(RoomWaiter { number, payload_bytes, sender });
        receiver
    }

    /// Before all who wait: for the one who was let in and has to wait on.
    pub fn push_first(&mut self, directory: DirectoryIndex, payload_bytes: usize) -> Receiver<Room> {
        let (sender, receiver) = oneshot();
        self.line(directory).push_front(RoomWaiter { number: 0, payload_bytes, sender });
        receiver
    }

    pub fn is_waiting(&self) -> bool {
        self.is_granted || self.heads().next().is_some()
    }

    /// Whether who comes for that directory has somebody before him: in his own line, or in another in which nobody waits for a share. `has_share` says it of a directory and a payload.
    pub fn is_waiting_before(&self, directory: DirectoryIndex, has_share: impl Fn(DirectoryIndex, usize) -> bool) -> bool {
        self.is_granted || self.heads().any(|(line, waiter)| line == directory || has_share(line, waiter.payload_bytes))
    }

    /// Line and payload size of the first who still waits for room and not for a share, if nobody is let in at present.
    pub fn next_in_line(&self, has_share: impl Fn(DirectoryIndex, usize) -> bool) -> Option<(DirectoryIndex, usize)> {
        if self.is_granted {
            return None;
        }
        let waiting = self.heads().filter(|(line, waiter)| has_share(*line, waiter.payload_bytes));
        waiting.min_by_key(|(_, waiter)| waiter.number).map(|(line, waiter)| (line, waiter.payload_bytes))
    }

    /// Lets the first of that line in.
    pub fn grant(&mut self, directory: DirectoryIndex) -> Sender<Room> {
        self.is_granted = true;
        let line = self.line(directory);
        while line.front().is_some_and(|waiter| waiter.sender.is_closed()) {
            line.pop_front();
        }
        line.pop_front().expect("somebody is first in line").sender
    }

    pub fn left(&mut self) {
        self.is_granted = false;
    }

    /// The first of each line who still waits.
    fn heads(&self) -> impl Iterator<Item = (DirectoryIndex, &RoomWaiter)> {
        let first = |line: &'_ VecDeque<RoomWaiter>| line.iter().position(|waiter| !waiter.sender.is_closed());
        let heads = self.lines.iter().enumerate();
        heads.filter_map(move |(index, line)| first(line).map(|first| (DirectoryIndex(index), &line[first])))
    }

    fn line(&mut self, directory: DirectoryIndex) -> &mut VecDeque<RoomWaiter> {
        if self.lines.len() <= directory.0 {
            self.lines.resize_with(directory.0 + 1, VecDeque::new);
        }
        &mut self.lines[directory.0]
    }
}

/// The right to append next. Others wait until it is used or dropped, so it is used at once.
pub struct Room {
    journal: Rc<Journal>,
    pub(super) directory: DirectoryIndex,
}

impl Room {
    pub(super) fn new(journal: Rc<Journal>, directory: DirectoryIndex) -> Self {
        Self { journal, directory }
    }

    /// Runs `append`, whose appends to the journal pass those who wait. It can still find the ring full, if it appends more than was asked for, or if the room has gone meanwhile:
    /// placement has taken some, or the group that had it was closed. Then `Journal::wait_longer`.
    pub fn enter<T>(&self, append: impl FnOnce() -> T) -> T {
        self.journal.set_turn(true);
        let result = append();
        self.journal.set_turn(false);
        result
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.journal.room_left();
    }
}
