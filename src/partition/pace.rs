//! The pace of long works in the background (compaction, moves): a slice of the shard at a time, and no more of the disk than they were given.

use std::time::{Duration, Instant};

use crate::rt;

/// Work between two looks at what else the shard has to do.
const SLICE: Duration = Duration::from_micros(200);

/// Keeps a work from holding the shard, or the disk, for longer than it may.
pub(super) struct Pace {
    bytes_per_second: f64,
    slice_begun: Instant,
    /// What the disk has been asked for since `since`.
    bytes: f64,
    since: Instant,
}

impl Pace {
    pub fn new(bytes_per_second: f64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1.0), slice_begun: Instant::now(), bytes: 0.0, since: Instant::now() }
    }

    /// Lets others run if it is time.
    pub async fn breathe(&mut self) {
        if self.slice_begun.elapsed() > SLICE {
            rt::yield_now().await;
            self.slice_begun = Instant::now();
        }
    }

    /// Waits until so many more bytes are within what it may read and write.
    pub async fn spend(&mut self, bytes: usize) {
        self.bytes += bytes as f64;
        let due = self.bytes / self.bytes_per_second;
        let elapsed = self.since.elapsed().as_secs_f64();
        if due > elapsed + 0.001 {
            rt::sleep(Duration::from_secs_f64((due - elapsed).min(1.0))).await;
        }
        self.slice_begun = Instant::now();
    }
}
