//! The watcher: the task of a shard that looks for what has arrived, once per round of ready tasks, and that puts the thread to sleep when nothing is left to do.
//!
//! The thread sleeps in our own ring, not in glommio: one system call submits, waits and carries out completions, where the way through glommio's park and an eventfd takes six (measured beside
//! each other, see perf/results: half the CPU of a message that finds the shard asleep). glommio does not tell whether tasks are ready, so the watcher finds out by itself. Tasks wait in
//! line in two queues, clients' and background. The watcher goes to the end of its own line and sends a sentinel to the end of the other. When both have come to the front and no task ran or was dropped
//! meanwhile, none was ready: only tasks and the watcher wake tasks. (Hence the rule that no glommio waker goes to another thread; what other threads have to say comes by the doorbell.)
//!
//! glommio itself parks only by its own mistake (with an expired preempt timer it overlooks ready tasks); its heartbeat timer ends that after 10 ms. See `start`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::reactor::Reactor;

/// Longest sleep. Nothing depends on it.
const SLEEP_MAX: Duration = Duration::from_secs(1);

thread_local! {
    /// How many times tasks of this thread were polled or dropped.
    static ACTIVITY: Cell<u64> = const { Cell::new(0) };
}

/// A task's future that is counted: each poll, and the drop.
pub(super) struct Counted<F>(F);

pub(super) fn counted<F: Future>(future: F) -> Counted<F> {
    Counted(future)
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        count_activity();
        // SAFETY: the future is never moved out of the pinned wrapper, whose drop does not touch it. An async block around it would have room for it twice, before and after it is pinned.
        let future = unsafe { self.map_unchecked_mut(|counted| &mut counted.0) };
        future.poll(context)
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        count_activity();
    }
}

/// Runs until it is dropped.
pub(super) async fn watch(reactor: Rc<Reactor>) {
    let sentinel = Rc::new(Sentinel::default());
    let in_background = sentinel.clone();
    let _sentinel = glommio::spawn_local_into(poll_fn(move |context| in_background.poll(context.waker())), reactor.background)
        .expect("the background queue lives as long as the shard");
    let mut quiet_since = None;
    loop {
        if reactor.look() {
            quiet_since = None;
            glommio::executor().yield_task_queue_now().await;
            continue;
        }
        let activity = ACTIVITY.get();
        if !wait_for_a_quiet_round(&reactor, &sentinel).await || ACTIVITY.get() != activity {
            quiet_since = None;
            continue;
        }
        let is_polling = !reactor.idle_poll.is_zero() && quiet_since.get_or_insert_with(Instant::now).elapsed() < reactor.idle_poll;
        if !is_polling {
            reactor.sleep(SLEEP_MAX);
            quiet_since = None;
        }
    }
}

/// Waits until every task that was ready has run. False if something was queued for the ring meanwhile, which must not wait so long.
async fn wait_for_a_quiet_round(reactor: &Reactor, sentinel: &Sentinel) -> bool {
    reactor.ring.clear_call();
    sentinel.send();
    poll_fn(|context| {
        if sentinel.has_passed.get() {
            return Poll::Ready(true);
        }
        if reactor.ring.was_called() {
            return Poll::Ready(false);
        }
        reactor.ring.set_watcher(context.waker());
        *sentinel.watcher.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    })
    .await
}

/// A task in the background queue that tells when it came to the front of the line.
#[derive(Default)]
struct Sentinel {
    waker: RefCell<Option<Waker>>,
    watcher: RefCell<Option<Waker>>,
    is_in_line: Cell<bool>,
    /// It was sent again while it stood in line: those who came after it count too, so it goes to the end once more.
    was_sent_again: Cell<bool>,
    has_passed: Cell<bool>,
}

impl Sentinel {
    fn send(&self) {
        self.has_passed.set(false);
        if self.is_in_line.replace(true) {
            self.was_sent_again.set(true);
        } else if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<()> {
        if self.was_sent_again.replace(false) {
            waker.wake_by_ref();
            return Poll::Pending;
        }
        *self.waker.borrow_mut() = Some(waker.clone());
        if self.is_in_line.replace(false) {
            self.has_passed.set(true);
            if let Some(watcher) = self.watcher.take() {
                watcher.wake();
            }
        }
        Poll::Pending
    }
}

fn count_activity() {
    ACTIVITY.set(ACTIVITY.get().wrapping_add(1));
}
