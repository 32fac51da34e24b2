//! Helper threads for the calls that may block and that the ring does not carry: open, rename, unlink, directories, lengths. They run on cores without a shard where there are any.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::panic::{self, OnPanic};
use super::reactor::{Reactor, current};
use super::{cores, time};

/// Threads of one pool. Filesystem calls mostly wait for the disk, so a few share a core well.
const HELPERS: usize = 4;
/// Calls that may wait for a helper; a shard that finds the queue full tries again a millisecond later.
const WAITING_CALLS_MAX: usize = 4096;

type Call = Box<dyn FnOnce() + Send>;

/// The helper threads of all shards of one `start`. They end when the last shard lets go of them.
pub(super) struct Helpers {
    calls: Sender<Call>,
}

impl Helpers {
    /// Starts the threads, each allowed on `cores` (anywhere if none).
    pub fn start(cores: &[usize], on_panic: OnPanic) -> io::Result<Arc<Self>> {
        let (sender, receiver) = bounded::<Call>(WAITING_CALLS_MAX);
        for number in 0..HELPERS {
            let (receiver, cores) = (receiver.clone(), cores.to_vec());
            thread::Builder::new().name(format!("helper-{number}")).spawn(move || help(receiver, &cores, on_panic))?;
        }
        Ok(Arc::new(Self { calls: sender }))
    }
}

fn help(calls: Receiver<Call>, cores: &[usize], on_panic: OnPanic) {
    panic::set_policy("a helper thread", on_panic);
    if !cores.is_empty() {
        // Where the mask is refused (the container's changed meanwhile) a helper runs where it may.
        let _ = cores::pin_to(cores);
    }
    for call in calls {
        call();
    }
}

/// Runs a call that may block on a helper thread and resolves to what it returned. Dropping the future does not stop the call.
///
/// # Panics
/// If the call panicked, in tests; a broker ends at once.
pub async fn blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    let reactor = current();
    let key = reactor.await_result();
    let result = Pending { reactor: reactor.clone(), key, finished: false };
    let doorbell = reactor.doorbell().clone();
    let mut work: Call = Box::new(move || {
        let returned = catch_unwind(AssertUnwindSafe(call));
        doorbell.results.push((key, Box::new(returned)));
        doorbell.ring_if_asleep();
    });
    loop {
        match reactor.helpers.calls.try_send(work) {
            Ok(()) => break,
            Err(TrySendError::Full(returned)) => work = returned,
            Err(TrySendError::Disconnected(_)) => unreachable!("the shard holds the helpers"),
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    let returned = result.await.downcast::<thread::Result<R>>().expect("a result has the type of its call");
    returned.unwrap_or_else(|panic| resume_unwind(panic))
}

struct Pending {
    reactor: Rc<Reactor>,
    key: usize,
    finished: bool,
}

impl Future for Pending {
    type Output = Box<dyn Any + Send>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = self.reactor.poll_result(self.key, context.waker());
        self.finished = result.is_ready();
        result
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.finished {
            self.reactor.abandon_result(self.key);
        }
    }
}
