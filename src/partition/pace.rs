//! The pace of long works in the background (compaction, moves): a slice of the shard at a time, and no more of the disk than they were given.

use std::time::{Duration, Instant};

use crate::rt;

/// Work between two looks at what else the shard has to do.
const SLICE: Duration = Duration::from_micros(200);
/// What is shorter is made good with the next bytes.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Between two looks whether the work is still wanted.
const WAIT_MAX: Duration = Duration::from_secs(1);

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

    /// Waits until so many more bytes are within what it may read and write, or until the work is not wanted any more.
    pub async fn spend(&mut self, bytes: usize, is_wanted: impl Fn() -> bool) {
        self.bytes += bytes as f64;
        let due = Duration::try_from_secs_f64(self.bytes / self.bytes_per_second).unwrap_or(Duration::MAX);
        loop {
            let left = due.saturating_sub(self.since.elapsed());
            if left < WAIT_MIN || !is_wanted() {
                break;
            }
            rt::sleep(left.min(WAIT_MAX)).await;
        }
        self.slice_begun = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rate so low that a slice takes longer than the longest wait is kept nevertheless, unless nobody wants the work any more.
    #[test]
    fn low_rates_are_kept() {
        rt::run(|| async {
            let begun = Instant::now();
            Pace::new(1_000.0).spend(1_300, || true).await;
            assert!(begun.elapsed() >= Duration::from_millis(1_290));
            let begun = Instant::now();
            Pace::new(1.0).spend(1_000_000, || false).await;
            assert!(begun.elapsed() < Duration::from_millis(500));
        });
    }
}
