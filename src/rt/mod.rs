//! The runtime of a shard: executor, ring, sockets, files, timers, queues between cores. The only room that names glommio, io_uring or libc, and the only one with unsafe.
//!
//! A shard is one pinned thread with a glommio executor and a private io_uring. Everything here is meant for a shard's own thread unless its description says otherwise; what may cross threads is
//! `Send`. From below: `ring` owns the io_uring and all memory that the kernel may touch, `doorbell` is how other threads reach a shard, `reactor` takes in whatever arrives and wakes tasks, `watcher` does so while tasks run and then sleeps,
//! `start` makes shards. On top of these stand `file`, `mapping`, `net`, `mesh`, `blocking` and `time`; `stages` is where a request notes its way when that is traced.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub mod bare_ring;
mod blocking;
pub mod buffer;
mod cores;
mod doorbell;
pub mod file;
pub mod mapping;
pub mod mesh;
pub mod net;
mod panic;
mod pause;
pub mod plant;
pub mod preflight;
mod reactor;
mod ring;
pub mod signal;
pub mod stages;
mod start;
pub mod sync;
mod time;
mod watcher;
mod wheel;

#[cfg(test)]
mod tests;

pub use blocking::blocking;
pub use cores::{allowed_cores, random_bytes, random_uuid};
pub use pause::Pause;

pub use start::{Options, Shards, StartError, run, start};
pub use time::{Elapsed, Sleep, sleep, sleep_until, timeout, wall_clock_ms};

/// Number of a shard, from 0 on without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The shard that runs on this thread.
pub fn current_shard() -> ShardId {
    reactor::current().shard
}

/// Starts a task on this shard. It runs for the first time at the end of the present round of tasks, never inside this call. Dropping the [`Task`] ends it.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    spawn_into(future, glommio::TaskQueueHandle::default())
}

/// Starts a task of upkeep: while clients' tasks have work it gets about a twentieth of the core, otherwise all of it. It has to call [`yield_now`] at least every few hundred microseconds.
pub fn spawn_background<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    spawn_into(future, reactor::current().background)
}

fn spawn_into<T: 'static>(future: impl Future<Output = T> + 'static, queue: glommio::TaskQueueHandle) -> Task<T> {
    Task(glommio::spawn_local_into(watcher::counted(future), queue).expect("the queues of a shard live as long as it does"))
}

/// A task and its output. Dropped, it ends the task at its next await; see [`Task::detach`].
#[must_use = "dropping a task ends it: detach it, or keep it"]
pub struct Task<T>(glommio::Task<T>);

impl<T> Task<T> {
    /// Lets the task run on by itself.
    pub fn detach(self) {
        drop(self.0.detach());
    }

    /// Ends the task and waits until it is gone; its output if it had finished.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Takes in what has arrived at the shard (completions, messages of other shards, due timers), then lets the other tasks run. Whatever runs for more than a few hundred microseconds calls this
/// between its slices: beside a task that never does, nothing else on the shard makes headway.
pub async fn yield_now() {
    reactor::current().look();
    glommio::executor().yield_task_queue_now().await;
}

/// What a shard has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Looks at ring, inbox and timers.
    pub looks: u64,
    /// Times the shard had nothing to do and slept.
    pub sleeps: u64,
    /// Looks that first let the kernel's threads run, because a durable write was under way.
    pub gave_way: u64,
    /// System calls into the ring.
    pub ring_enters: u64,
    /// Operations that the ring completed.
    pub ring_completions: u64,
    /// Timers that are set now.
    pub timers: usize,
}

/// This shard's [`Statistics`].
pub fn statistics() -> Statistics {
    reactor::current().statistics()
}
