//! The one clock of a run: nanoseconds since the run began, by CLOCK_MONOTONIC.
//!
//! It is read in three places, and every latency is the difference of two of them: the schedule (a record's due time is computed, not read), just before a request
//! is written over and handed to the kernel, and the return of the `read` that brought the last byte of a response. What the client does with a response afterwards counts for nobody.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { base: Instant::now() }
    }

    pub fn now_ns(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    /// Sleeps until then; for threads beside the client.
    pub fn sleep_until(&self, at_ns: u64) {
        let left = at_ns.saturating_sub(self.now_ns());
        std::thread::sleep(Duration::from_nanos(left));
    }
}

/// Wall clock in Kafka's milliseconds, for the timestamps in batches.
pub fn wall_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

pub fn seconds_ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
