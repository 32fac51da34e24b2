//! Who waits for the journal: for a group to become durable, and for room in the ring.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{GroupSequence, Journal};
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

/// Those who wait for room, first in, first out. One is let in at a time and appends; then the next.
#[derive(Default)]
pub struct RoomQueue {
    waiters: VecDeque<(usize, Sender<Room>)>,
    is_granted: bool,
    /// Set while the one who was let in appends.
    pub is_turn: bool,
}

impl RoomQueue {
    pub fn push(&mut self, payload_bytes: usize) -> Receiver<Room> {
        let (sender, receiver) = oneshot();
        self.waiters.push_back((payload_bytes, sender));
        receiver
    }

    /// Before all who wait: for the one who was let in and has to wait on.
    pub fn push_first(&mut self, payload_bytes: usize) -> Receiver<Room> {
        let (sender, receiver) = oneshot();
        self.waiters.push_front((payload_bytes, sender));
        receiver
    }

    pub fn is_waiting(&self) -> bool {
        self.is_granted || self.waiters.iter().any(|waiter| !waiter.1.is_closed())
    }

    /// Payload size of the first who still waits, if nobody is let in at present.
    pub fn next_in_line(&mut self) -> Option<usize> {
        while self.waiters.front().is_some_and(|waiter| waiter.1.is_closed()) {
            self.waiters.pop_front();
        }
        if self.is_granted { None } else { self.waiters.front().map(|waiter| waiter.0) }
    }

    pub fn grant(&mut self) -> Sender<Room> {
        self.is_granted = true;
        self.waiters.pop_front().expect("somebody is first in line").1
    }

    pub fn left(&mut self) {
        self.is_granted = false;
    }
}

/// The right to append next. Others wait until it is used or dropped, so it is used at once.
pub struct Room {
    journal: Rc<Journal>,
}

impl Room {
    pub(super) fn new(journal: Rc<Journal>) -> Self {
        Self { journal }
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
