//! Whether the machine was quiet: a thread on each core that only sleeps and looks at the clock, and what processes that are none of ours spent meanwhile.
//!
//! The threads come before all others where that is allowed, so that the load under test does not make them late: what they see is stolen time, interrupts and a kernel that does not let
//! go. Foreign processes, which they would push aside too, are seen by the time that they spend.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cores;

const GAP: Duration = Duration::from_millis(2);
const LATE: Duration = Duration::from_millis(1);

/// A round in which more of its gaps than this were late is void.
const LATE_SHARE_MAX: f64 = 0.001;

/// And one in which foreign processes took more than this of the machine's user time.
const FOREIGN_SHARE_MAX: f64 = 0.05;

/// What the control saw of one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quietness {
    pub gaps: u64,
    pub late_gaps: u64,
    pub latest_us: f64,
    /// Of all cores, of the processes that are neither ours nor under test.
    pub foreign_share: f64,
    /// Whether the threads came before ordinary ones.
    pub came_first: bool,
}

impl Quietness {
    pub fn is_quiet(&self) -> bool {
        self.late_share() <= LATE_SHARE_MAX && self.foreign_share <= FOREIGN_SHARE_MAX
    }

    fn late_share(&self) -> f64 {
        self.late_gaps as f64 / self.gaps.max(1) as f64
    }

    pub fn describe(&self) -> String {
        format!(
            "{:.2} % of {} gaps were a millisecond late (at most {:.2} %; the latest {:.0} us), foreign processes took {:.1} % of the cores (at most {:.0} %)",
            self.late_share() * 100.0,
            self.gaps,
            LATE_SHARE_MAX * 100.0,
            self.latest_us,
            self.foreign_share * 100.0,
            FOREIGN_SHARE_MAX * 100.0
        )
    }
}

pub struct Control {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Quietness>>,
    began: Instant,
    ours: Vec<u32>,
    foreign_ticks: u64,
}

impl Control {
    /// Beside a round in which `ours`, and this process, are what runs.
    pub fn start(ours: &[u32]) -> Control {
        let over = Arc::new(AtomicBool::new(false));
        let threads = cores::of_process().iter().map(|core| {
            let (core, over) = (*core, over.clone());
            std::thread::spawn(move || watch(core, &over))
        });
        let threads = threads.collect();
        let ours: Vec<u32> = ours.iter().copied().chain([std::process::id()]).collect();
        Control { over, threads, began: Instant::now(), foreign_ticks: foreign_ticks(&ours), ours }
    }

    pub fn finish(self) -> Quietness {
        let ticks = foreign_ticks(&self.ours).saturating_sub(self.foreign_ticks);
        self.over.store(true, Ordering::Relaxed);
        let mut sum = Quietness { came_first: true, ..Quietness::default() };
        for thread in self.threads {
            let seen = thread.join().expect("a control thread does not panic");
            sum.gaps += seen.gaps;
            sum.late_gaps += seen.late_gaps;
            sum.latest_us = sum.latest_us.max(seen.latest_us);
            sum.came_first &= seen.came_first;
        }
        // The kernel counts in hundredths of a second.
        sum.foreign_share = ticks as f64 / 100.0 / self.began.elapsed().as_secs_f64() / cores::of_process().len().max(1) as f64;
        sum
    }
}

fn watch(core: usize, over: &AtomicBool) -> Quietness {
    // A core that may not be chosen is watched from another.
    let _ = cores::pin_this_thread(&[core]);
    let mut seen = Quietness { came_first: cores::run_first(), ..Quietness::default() };
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        std::thread::sleep(GAP);
        let late = began.elapsed().saturating_sub(GAP);
        seen.gaps += 1;
        seen.late_gaps += u64::from(late >= LATE);
        seen.latest_us = seen.latest_us.max(late.as_secs_f64() * 1e6);
    }
    seen
}

/// User time of all processes but ours since the machine's start, in hundredths of a second. System time is not held against the machine: the kernel's own threads finish our writes.
fn foreign_ticks(ours: &[u32]) -> u64 {
    let all = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all: u64 = all.split_whitespace().skip(1).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    all.saturating_sub(ours.iter().map(|pid| user_ticks(*pid)).sum())
}

fn user_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The fields behind the name in parentheses; user time is the twelfth of them.
    stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(11)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_void_from_more_than_a_late_gap_in_a_thousand() {
        let seen = |late_gaps, foreign_share| Quietness { gaps: 10_000, late_gaps, foreign_share, ..Quietness::default() };
        assert!(seen(10, 0.05).is_quiet());
        assert!(!seen(11, 0.0).is_quiet());
        assert!(!seen(0, 0.06).is_quiet());
    }

    #[test]
    fn gaps_are_counted_on_every_core() {
        let control = Control::start(&[]);
        std::thread::sleep(Duration::from_millis(100));
        let seen = control.finish();
        assert!(seen.gaps >= 2 && seen.gaps <= 60 * cores::of_process().len() as u64, "{seen:?}");
        assert!(seen.describe().contains("gaps"));
    }
}
