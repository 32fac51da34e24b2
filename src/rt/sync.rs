//! What tasks of one shard use to wait for each other. Nothing here crosses cores (see `mesh` for that), so nothing here is atomic.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// One value from one task to another. The receiver is a future of `Some(value)`, or of `None` when the sender was dropped without sending.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Rc::new(RefCell::new(Slot { value: None, waker: None, closed: false }));
    (Sender { slot: slot.clone() }, Receiver { slot })
}

/// The sending half of [`oneshot`].
pub struct Sender<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

/// The receiving half of [`oneshot`].
pub struct Receiver<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
    closed: bool,
}

impl<T> Sender<T> {
    /// Hands the value over; gives it back when nobody waits for it any more.
    pub fn send(self, value: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(value);
        }
        self.slot.borrow_mut().value = Some(value);
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.slot.borrow().closed
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = self.slot.borrow_mut();
            slot.closed = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.slot.borrow_mut();
        match slot.value.take() {
            Some(value) => Poll::Ready(Some(value)),
            None if slot.closed => Poll::Ready(None),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut slot = self.slot.borrow_mut();
        slot.closed = true;
        slot.waker = None;
    }
}

/// "Something changed, look again": wakes all who wait. Cheap to clone; clones are the same bell.
///
/// A waiter hears every notification after its call of [`Notify::notified`], whether it has been polled by then or not: take the future first, then look at the condition, then await.
#[derive(Clone, Default)]
pub struct Notify {
    bell: Rc<Bell>,
}

#[derive(Default)]
struct Bell {
    rung: Cell<u64>,
    waiters: RefCell<Slab<Waker>>,
}

impl Notify {
    /// A bell that nobody has rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes every task that waits now.
    pub fn notify_all(&self) {
        self.bell.rung.set(self.bell.rung.get() + 1);
        let waiters = self.bell.waiters.take();
        for (_, waiter) in waiters {
            waiter.wake();
        }
    }

    /// Resolves at the next notification after this call.
    pub fn notified(&self) -> Notified {
        Notified { bell: self.bell.clone(), heard: self.bell.rung.get(), place: None }
    }

    /// Resolves when `holds` does: it is asked now and at every notification.
    pub async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let notified = self.notified();
            if holds() {
                return;
            }
            notified.await;
        }
    }
}

/// The future of [`Notify::notified`]. Dropped early it leaves nothing behind.
pub struct Notified {
    bell: Rc<Bell>,
    heard: u64,
    /// Where its waker is, for as long as the bell has not been rung.
    place: Option<usize>,
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.bell.rung.get() != self.heard {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match self.place {
            None => {
                let place = self.bell.waiters.borrow_mut().insert(waker);
                self.place = Some(place);
            }
            Some(place) => {
                let former = std::mem::replace(&mut self.bell.waiters.borrow_mut()[place], waker);
                drop(former);
            }
        }
        Poll::Pending
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && self.bell.rung.get() == self.heard
        {
            // Out of the borrow first: the waker may be the last hold on a task.
            let waker = self.bell.waiters.borrow_mut().remove(place);
            drop(waker);
        }
    }
}

/// A bound on something that is held for a while (bytes in flight, requests under way). First come, first served: a large request at the head is not overtaken by small ones behind it.
#[derive(Clone)]
pub struct Budget {
    account: Rc<Account>,
}

struct Account {
    total: usize,
    available: Cell<usize>,
    queue: RefCell<VecDeque<Rc<Claim>>>,
}

struct Claim {
    amount: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A part of a [`Budget`]; goes back when dropped.
pub struct Permit {
    account: Weak<Account>,
    amount: usize,
}

impl Budget {
    /// A budget of `total` units, all of them free.
    pub fn new(total: usize) -> Self {
        Self { account: Rc::new(Account { total, available: Cell::new(total), queue: RefCell::default() }) }
    }

    /// Units that nobody holds.
    pub fn available(&self) -> usize {
        self.account.available.get()
    }

    /// Waits until `amount` units are free and takes them. More than the whole budget counts as the whole budget, so that one oversized claim runs alone instead of never.
    pub async fn acquire(&self, amount: usize) -> Permit {
        if let Some(permit) = self.try_acquire(amount) {
            return permit;
        }
        let claim = Rc::new(Claim { amount: amount.min(self.account.total), granted: Cell::new(false), waker: RefCell::default() });
        self.account.queue.borrow_mut().push_back(claim.clone());
        let mut waiting = Waiting { account: self.account.clone(), claim: Some(claim) };
        poll_fn(|context| waiting.poll(context)).await
    }

    /// Takes `amount` units if they are free and nobody waits for his turn.
    pub fn try_acquire(&self, amount: usize) -> Option<Permit> {
        let amount = amount.min(self.account.total);
        let free = self.account.available.get();
        if free < amount || !self.account.queue.borrow().is_empty() {
            return None;
        }
        self.account.available.set(free - amount);
        Some(Permit { account: Rc::downgrade(&self.account), amount })
    }
}

impl Permit {
    /// How many units this permit holds.
    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(account) = self.account.upgrade() {
            account.give_back(self.amount);
        }
    }
}

impl Account {
    fn give_back(&self, amount: usize) {
        self.available.set(self.available.get() + amount);
        assert!(self.available.get() <= self.total, "more was given back than was taken");
        self.grant_in_order();
    }

    fn grant_in_order(&self) {
        loop {
            let next = match self.queue.borrow().front() {
                Some(claim) if claim.amount <= self.available.get() => claim.clone(),
                _ => return,
            };
            self.queue.borrow_mut().pop_front();
            self.available.set(self.available.get() - next.amount);
            next.granted.set(true);
            if let Some(waker) = next.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A claim in the queue. Dropped before its grant it leaves the queue; dropped between grant and poll it gives the units back.
struct Waiting {
    account: Rc<Account>,
    claim: Option<Rc<Claim>>,
}

impl Waiting {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Permit> {
        let claim = self.claim.as_ref().expect("polled after it was ready");
        if !claim.granted.get() {
            *claim.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let amount = claim.amount;
        self.claim = None;
        Poll::Ready(Permit { account: Rc::downgrade(&self.account), amount })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        if claim.granted.get() {
            self.account.give_back(claim.amount);
        } else {
            self.account.queue.borrow_mut().retain(|queued| !Rc::ptr_eq(queued, &claim));
            self.account.grant_in_order();
        }
    }
}

/// Runs a handful of futures beside each other in one task and gives their outputs in their order. Each wake looks at all of them, so it is meant for a few.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in running.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A value arrives, a dropped sender says so, a dropped receiver gives the value back.
    #[test]
    fn oneshot_tells_each_side_about_the_other() {
        let (sender, receiver) = oneshot();
        let mut receiver = pin!(receiver);
        assert!(poll_once(receiver.as_mut()).is_pending());
        sender.send(7).unwrap();
        assert_eq!(poll_once(receiver), Poll::Ready(Some(7)));

        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(poll_once(pin!(receiver)), Poll::Ready(None));

        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(1));
    }

    /// A notification between taking the future and its first poll is not lost; one before is not heard.
    #[test]
    fn notify_is_heard_from_the_call_on() {
        let notify = Notify::new();
        notify.notify_all();
        let mut waiting = pin!(notify.notified());
        assert!(poll_once(waiting.as_mut()).is_pending());
        let unpolled = notify.notified();
        notify.notify_all();
        assert!(poll_once(waiting).is_ready());
        assert!(poll_once(pin!(unpolled)).is_ready());

        let mut given_up = Box::pin(notify.notified());
        assert!(poll_once(given_up.as_mut()).is_pending());
        drop(given_up);
        assert!(notify.bell.waiters.borrow().is_empty());
    }

    /// Units are granted in the order of the claims, and a claim that is dropped lets those behind it go.
    #[test]
    fn budget_is_first_come_first_served() {
        let budget = Budget::new(10);
        let first = budget.try_acquire(8).unwrap();
        let mut large = Box::pin(budget.acquire(99));
        let mut small = Box::pin(budget.acquire(1));
        assert!(poll_once(large.as_mut()).is_pending());
        assert!(poll_once(small.as_mut()).is_pending(), "does not overtake");
        drop(large);
        let Poll::Ready(second) = poll_once(small.as_mut()) else { panic!("nothing before it any more") };
        assert_eq!((first.amount(), second.amount(), budget.available()), (8, 1, 1));
        drop((first, second));
        assert_eq!(budget.available(), 10);

        // Granted but never polled again: the units come back.
        let held = budget.try_acquire(10).unwrap();
        let mut waiting = Box::pin(budget.acquire(4));
        assert!(poll_once(waiting.as_mut()).is_pending());
        drop(held);
        assert_eq!(budget.available(), 6);
        drop(waiting);
        assert_eq!(budget.available(), 10);
    }

    /// Futures that end out of order give their outputs in order.
    #[test]
    fn join_all_waits_for_the_last() {
        let (first, second) = (oneshot(), oneshot());
        let mut joined = Box::pin(join_all([first.1, second.1]));
        second.0.send(2).unwrap();
        assert!(poll_once(joined.as_mut()).is_pending());
        first.0.send(1).unwrap();
        assert_eq!(poll_once(joined.as_mut()), Poll::Ready(vec![Some(1), Some(2)]));
    }
}
