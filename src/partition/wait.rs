//! Waiting for a partition to have more to read: how a long poll sleeps without looking at partitions that nothing happens to.
//!
//! A `FetchWaiter` is one fetch that waits. It can stand in the lists of many partitions of its shard, and may also be fired by hand, when the reply of another shard arrives or a
//! session ends. It fires when the bytes that it still lacked have become readable, or at anything that changes what a fetch would answer: log start, leader epoch, deletion.
//! Dropped, it leaves the lists by itself.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use super::Partition;

/// One waiting fetch. Clones are the same waiter.
#[derive(Clone, Debug)]
pub struct FetchWaiter {
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    /// Readable bytes that are still missing.
    missing_bytes: Cell<u64>,
    has_fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl FetchWaiter {
    /// Fires once `missing_bytes` more are readable in the partitions where it stands, all together.
    pub fn new(missing_bytes: u64) -> Self {
        Self { state: Rc::new(State { missing_bytes: Cell::new(missing_bytes), has_fired: Cell::new(false), waker: RefCell::default() }) }
    }

    pub fn fire(&self) {
        self.state.fire();
    }

    pub fn has_fired(&self) -> bool {
        self.state.has_fired.get()
    }

    /// Resolves when it has fired. One task waits for it at a time.
    pub fn fired(&self) -> impl Future<Output = ()> + use<> {
        let state = self.state.clone();
        std::future::poll_fn(move |context| {
            if state.has_fired.get() {
                return Poll::Ready(());
            }
            *state.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

impl State {
    fn fire(&self) {
        self.has_fired.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn credit(&self, bytes: u64) {
        self.missing_bytes.set(self.missing_bytes.get().saturating_sub(bytes));
        if self.missing_bytes.get() == 0 {
            self.fire();
        }
    }
}

/// Who waits at a partition.
#[derive(Debug)]
pub(super) struct WaitList {
    waiters: RefCell<Vec<Weak<State>>>,
    /// At this length those that are gone are swept out. On an idle partition polls come and go without an event that would clear the list.
    sweep_at: Cell<usize>,
}

const SWEEP_AT_MIN: usize = 16;

impl Default for WaitList {
    fn default() -> Self {
        Self { waiters: RefCell::default(), sweep_at: Cell::new(SWEEP_AT_MIN) }
    }
}

impl WaitList {
    pub fn add(&self, waiter: &FetchWaiter) {
        let mut waiters = self.waiters.borrow_mut();
        if waiters.len() >= self.sweep_at.get() {
            waiters.retain(is_waiting);
            self.sweep_at.set((waiters.len() * 2).max(SWEEP_AT_MIN));
        }
        waiters.push(Rc::downgrade(&waiter.state));
    }

    /// So many more bytes have become readable here.
    pub fn credit(&self, bytes: u64) {
        self.waiters.borrow_mut().retain(|waiter| {
            let Some(state) = waiter.upgrade() else { return false };
            state.credit(bytes);
            !state.has_fired.get()
        });
    }

    pub fn fire_all(&self) {
        for waiter in self.waiters.take() {
            if let Some(state) = waiter.upgrade() {
                state.fire();
            }
        }
    }
}

/// What a reader was told of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The end of what it may see: the high watermark, or the last stable offset if `read_committed`.
    pub visible_end: i64,
    pub log_start_offset: i64,
    pub leader_epoch: i32,
    pub read_committed: bool,
}

impl Partition {
    /// Lets `waiter` stand here until the partition has more to tell than `seen`; fires it at once if it has already.
    pub fn watch(&self, waiter: &FetchWaiter, seen: &Seen) {
        if self.sees(seen.read_committed) == *seen && self.is_leader() {
            self.waiters.add(waiter);
        } else {
            waiter.fire();
        }
    }

    /// What a reader would be told now.
    pub fn sees(&self, read_committed: bool) -> Seen {
        Seen {
            visible_end: if read_committed { self.last_stable_offset() } else { self.high_watermark() },
            log_start_offset: self.log_start_offset(),
            leader_epoch: self.leader_epoch(),
            read_committed,
        }
    }
}

fn is_waiting(waiter: &Weak<State>) -> bool {
    waiter.upgrade().is_some_and(|state| !state.has_fired.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_fires_when_all_its_partitions_together_have_enough() {
        let (left, right) = (WaitList::default(), WaitList::default());
        let waiter = FetchWaiter::new(100);
        left.add(&waiter);
        right.add(&waiter);
        left.credit(60);
        assert!(!waiter.has_fired());
        right.credit(40);
        assert!(waiter.has_fired());
        left.credit(1);
        assert!(left.waiters.borrow().is_empty(), "who has fired leaves at the next event");
    }

    #[test]
    fn those_that_gave_up_are_swept_out() {
        let list = WaitList::default();
        let patient = FetchWaiter::new(1);
        list.add(&patient);
        for _ in 0..1_000 {
            list.add(&FetchWaiter::new(1));
        }
        assert!(list.waiters.borrow().len() <= SWEEP_AT_MIN);
        list.fire_all();
        assert!(patient.has_fired());
    }
}
