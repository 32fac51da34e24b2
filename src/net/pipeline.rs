//! The answers that one connection still owes, in request order.
//!
//! The reading half pushes, the writing half pops. Both stop for the bounds of `limits`: a client that does not read its answers soon finds that its requests are not read either.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::limits::Limits;
use crate::api::Answer;
use crate::rt::sync::Notify;

/// An answer that is being worked out.
pub type PendingAnswer = Pin<Box<dyn Future<Output = Answer>>>;

/// The queue between the two halves of a connection.
#[derive(Default)]
pub struct Pipeline {
    owed: RefCell<VecDeque<Owed>>,
    requests: Cell<usize>,
    bytes: Cell<usize>,
    no_more: Cell<bool>,
    changed: Notify,
}

struct Owed {
    answer: PendingAnswer,
    request_bytes: usize,
    /// It waits for nothing but its turn.
    is_worked_out: bool,
}

impl Pipeline {
    /// An empty queue.
    pub fn new() -> Rc<Pipeline> {
        Rc::default()
    }

    /// Waits until another request of `request_bytes` may begin beside those under way.
    pub async fn room(&self, request_bytes: usize, limits: &Limits) {
        let full = |requests: usize, bytes: usize| {
            requests >= limits.overlapping_requests_max || (requests > 0 && bytes + request_bytes > limits.overlapping_bytes_max)
        };
        while full(self.requests.get(), self.bytes.get()) {
            self.changed.notified().await;
        }
    }

    /// Waits until every answer has been handed to the socket.
    pub async fn drained(&self) {
        while self.requests.get() > 0 {
            self.changed.notified().await;
        }
    }

    /// Puts an answer behind all others.
    pub fn push(&self, answer: PendingAnswer, request_bytes: usize) {
        self.requests.set(self.requests.get() + 1);
        self.bytes.set(self.bytes.get() + request_bytes);
        self.owed.borrow_mut().push_back(Owed { answer, request_bytes, is_worked_out: false });
        self.changed.notify_all();
    }

    /// Says that nothing more will be pushed.
    pub fn close(&self) {
        self.no_more.set(true);
        self.changed.notify_all();
    }

    /// The next answer to wait for, with the size of its request; `None` once closed and empty.
    pub async fn next(&self) -> Option<(PendingAnswer, usize)> {
        loop {
            if let Some(owed) = self.owed.borrow_mut().pop_front() {
                return Some((owed.answer, owed.request_bytes));
            }
            if self.no_more.get() {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// The next answer if it waits already for nothing; polls it once.
    pub fn next_if_ready(&self) -> Option<(Answer, usize)> {
        let mut owed = self.owed.borrow_mut().pop_front()?;
        let mut context = Context::from_waker(Waker::noop());
        match owed.answer.as_mut().poll(&mut context) {
            Poll::Ready(answer) => Some((answer, owed.request_bytes)),
            Poll::Pending => {
                self.owed.borrow_mut().push_front(owed);
                None
            }
        }
    }

    /// Works on answers whose turn to be sent has not come, also on those that are pushed meanwhile, so that their requests let go of what they hold. Goes on until it is dropped: for while a
    /// send waits for the client to read.
    pub async fn work_on_owed(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            poll_fn(|context| {
                for owed in self.owed.borrow_mut().iter_mut().filter(|owed| !owed.is_worked_out) {
                    if let Poll::Ready(answer) = owed.answer.as_mut().poll(context) {
                        *owed = Owed { answer: Box::pin(ready(answer)), is_worked_out: true, ..*owed };
                    }
                }
                changed.as_mut().poll(context)
            })
            .await;
        }
    }

    /// Says that the answer to a request of `request_bytes` has been handed to the socket.
    pub fn sent(&self, request_bytes: usize) {
        self.requests.set(self.requests.get() - 1);
        self.bytes.set(self.bytes.get() - request_bytes);
        self.changed.notify_all();
    }
}
