//! Doing something at times that are fixed ahead. Latency counts from the scheduled time, so that a stall is charged to all that it delays.

use std::io;
use std::time::{Duration, Instant};

pub struct Pace {
    interval: Duration,
    count: u32,
}

impl Pace {
    /// `rate` times a second for `time`.
    pub fn new(rate: u64, time: Duration) -> Self {
        Self { interval: Duration::from_nanos(1_000_000_000 / rate), count: (time.as_secs_f64() * rate as f64) as u32 }
    }

    /// Waits for each moment without sleeping, so that no timer blurs it.
    pub fn run(&self, mut once: impl FnMut() -> io::Result<()>) -> io::Result<Vec<Duration>> {
        let begun = Instant::now() + self.interval;
        (0..self.count)
            .map(|number| {
                let scheduled = begun + self.interval * number;
                while Instant::now() < scheduled {
                    std::hint::spin_loop();
                }
                once()?;
                Ok(scheduled.elapsed())
            })
            .collect()
    }
}
