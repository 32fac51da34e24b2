//! Doing something at times that are fixed ahead. Latency counts from the scheduled time, so that a stall is charged to all that it delays.

use std::io;
use std::thread;
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
        self.moments()
            .map(|scheduled| {
                while Instant::now() < scheduled {
                    std::hint::spin_loop();
                }
                once()?;
                Ok(scheduled.elapsed())
            })
            .collect()
    }

    /// Sleeps until each moment, as a server does until somebody asks: its core has gone to sleep with it, and everything is slower at first. Counts from the waking, because the
    /// timer's lateness is not what is measured.
    pub fn run_asleep(&self, mut once: impl FnMut() -> io::Result<()>) -> io::Result<Vec<Duration>> {
        self.moments()
            .map(|scheduled| {
                thread::sleep(scheduled.saturating_duration_since(Instant::now()));
                let awake = Instant::now();
                once()?;
                Ok(awake.elapsed())
            })
            .collect()
    }

    fn moments(&self) -> impl Iterator<Item = Instant> + use<> {
        let (begun, interval) = (Instant::now() + self.interval, self.interval);
        (0..self.count).map(move |number| begun + interval * number)
    }
}
