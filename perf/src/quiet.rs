//! Waiting for a machine that others use too: a round counts only if foreign processes took hardly any user time while it ran. (System time is not held against the machine: the kernel's own threads
//! finish our writes.)

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use corelane::rt;

/// Share of all cores that foreign processes may take.
const FOREIGN_SHARE_MAX: f64 = 0.04;
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait for quiet in all, and how it went.
pub struct Quiet {
    deadline: Instant,
    quiet_rounds: Cell<usize>,
    disturbed_rounds: Cell<usize>,
    discarded_rounds: Cell<usize>,
}

/// A moment before a round.
pub struct Mark {
    at: Instant,
    foreign_ticks: u64,
}

impl Quiet {
    pub fn new(patience: Duration) -> Self {
        Self {
            deadline: Instant::now() + patience,
            quiet_rounds: Cell::new(0),
            disturbed_rounds: Cell::new(0),
            discarded_rounds: Cell::new(0),
        }
    }

    /// Resolves when the machine has been quiet for a moment, or patience is over.
    pub async fn wait(&self) -> Mark {
        loop {
            let mark = Mark { at: Instant::now(), foreign_ticks: foreign_user_ticks() };
            rt::sleep(LOOK).await;
            if foreign_share(&mark) <= FOREIGN_SHARE_MAX || Instant::now() > self.deadline {
                return Mark { at: Instant::now(), foreign_ticks: foreign_user_ticks() };
            }
        }
    }

    /// Whether the round since the mark counts. Once patience is over every round does.
    pub fn accepts(&self, mark: &Mark) -> bool {
        let counter = match (foreign_share(mark) <= FOREIGN_SHARE_MAX, Instant::now() > self.deadline) {
            (true, _) => &self.quiet_rounds,
            (false, true) => &self.disturbed_rounds,
            (false, false) => &self.discarded_rounds,
        };
        counter.set(counter.get() + 1);
        !std::ptr::eq(counter, &self.discarded_rounds)
    }

    pub fn report(&self) -> String {
        let (quiet, disturbed, discarded) = (self.quiet_rounds.get(), self.disturbed_rounds.get(), self.discarded_rounds.get());
        format!(
            "{quiet} rounds were quiet (foreign user time at most {:.0} % of the cores), {disturbed} were not but counted because patience was over, {discarded} were repeated",
            FOREIGN_SHARE_MAX * 100.0
        )
    }
}

fn foreign_share(mark: &Mark) -> f64 {
    // The kernel counts in hundredths of a second: less than two are chance.
    let ticks = (foreign_user_ticks() - mark.foreign_ticks).saturating_sub(1) as f64;
    ticks / 100.0 / mark.at.elapsed().as_secs_f64() / rt::allowed_cores().len() as f64
}

/// User time of all processes but this one since the machine's start, in hundredths of a second.
fn foreign_user_ticks() -> u64 {
    let all = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all: u64 = all.split_whitespace().skip(1).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the name in parentheses; user time is the twelfth of them.
    let own: u64 = own.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(11)?.parse().ok()).unwrap_or(0);
    all - own
}
