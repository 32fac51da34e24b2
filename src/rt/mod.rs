//! The runtime of a shard: executor, ring, sockets, files, timers, queues between cores. The only room that names glommio, io_uring or libc, and the only one with unsafe.
//!
//! A shard is one pinned thread with a glommio executor and a private io_uring. Everything here is meant for a shard's own thread unless its description says otherwise; what may cross threads is `Send`.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub mod buffer;
mod cores;
pub mod file;
pub mod sync;

pub use cores::{allowed_cores, random_bytes, random_uuid};

/// Number of a shard, from 0 on without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Runs a blocking call on a helper thread and resolves to what it returned. Dropping the future does not stop the call.
pub async fn blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(call).await
}

/// Lets the shard's other tasks run.
pub async fn yield_now() {
    glommio::yield_if_needed().await
}

/// Resolves after `duration`.
pub async fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration).await
}

/// Resolves at `deadline`, at once if it has passed.
pub async fn sleep_until(deadline: Instant) {
    glommio::timer::sleep(deadline.saturating_duration_since(Instant::now())).await
}

/// Starts a task of this shard.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> glommio::Task<T> {
    glommio::spawn_local(future)
}

/// Milliseconds since 1970, as Kafka's timestamps count them. May step when the machine's clock is set.
pub fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
