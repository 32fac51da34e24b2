//! What a run tells others while it goes on, and the thread that listens: one line a second on the terminal, and looks at the processes under test at both ends of the window.
//!
//! The client thread only adds to counters that it alone writes; everything that takes time happens here, in a thread that sleeps between looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::cores;
use crate::cost::{Cost, Spent, Watched, resident_bytes};
use crate::recorder::Window;
use crate::scenario::Target;

/// Eight steps for each doubling, from 1 us on.
const STEPS: usize = 8;
const BUCKETS: usize = 27 * STEPS;

/// The look before the window comes so much earlier, so that it disturbs nothing that counts.
const EARLIER_NS: u64 = 40_000_000;

pub struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    latency: [AtomicU32; BUCKETS],
    over: AtomicBool,
}

impl Counters {
    pub fn new() -> Arc<Counters> {
        Arc::new(Counters {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latency: [const { AtomicU32::new(0) }; BUCKETS],
            over: AtomicBool::new(false),
        })
    }

    /// Only one thread writes, so a load and a store do.
    pub fn count(&self, records: u64, bytes: u64, latency_ns: u64) {
        add(&self.records, records);
        add(&self.bytes, bytes);
        let bucket = &self.latency[bucket_of(latency_ns)];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(records as u32), Ordering::Relaxed);
    }

    fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// About, within a twelfth.
    fn percentile_us(&self, share: f64) -> Option<f64> {
        let counts: Vec<u64> = self.latency.iter().map(|bucket| u64::from(bucket.load(Ordering::Relaxed))).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share) as u64;
        let mut sum = 0;
        let bucket = counts.iter().position(|count| {
            sum += count;
            sum > wanted
        })?;
        Some(2f64.powf((bucket + 1) as f64 / STEPS as f64))
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

fn bucket_of(latency_ns: u64) -> usize {
    let us = (latency_ns / 1_000).max(1);
    let doubling = us.ilog2() as usize;
    let step = ((us - (1 << doubling)) * STEPS as u64) >> doubling;
    (doubling * STEPS + step as usize).min(BUCKETS - 1)
}

/// The thread beside a run.
pub struct Monitor {
    counters: Arc<Counters>,
    thread: JoinHandle<Vec<Cost>>,
}

impl Monitor {
    /// Looks at `watched` at both ends of the window; without a window now and at the end.
    pub fn start(clock: Clock, counters: &Arc<Counters>, watched: Vec<Watched>, window: Option<Window>, target: &Target) -> Monitor {
        let listening = Listening { clock, counters: counters.clone(), watched, window, speak: target.speak, client_core: target.core };
        Monitor { counters: counters.clone(), thread: std::thread::spawn(move || listening.run()) }
    }

    /// What the processes have cost; one that has ended costs nothing that we can know.
    pub fn finish(self) -> Vec<Cost> {
        self.counters.over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("the monitor does not panic")
    }
}

struct Listening {
    clock: Clock,
    counters: Arc<Counters>,
    watched: Vec<Watched>,
    window: Option<Window>,
    speak: bool,
    client_core: Option<usize>,
}

/// All processes at one moment, and how far the run was.
struct Look {
    at_ns: u64,
    records: u64,
    bytes: u64,
    spent: Vec<Option<Spent>>,
}

impl Listening {
    fn run(self) -> Vec<Cost> {
        // Nothing here may hold up the client or a broker.
        let _ = rustix::process::nice(10);
        cores::keep_off(self.client_core);
        let begin_ns = self.window.map_or(self.clock.now_ns(), |window| window.start_ns.saturating_sub(EARLIER_NS));
        let end_ns = self.window.map_or(u64::MAX, |window| window.end_ns);
        self.pass_until(begin_ns, &mut Vec::new());
        let before = self.look();
        let mut resident_max = vec![0; self.watched.len()];
        self.pass_until(end_ns, &mut resident_max);
        let after = self.look();
        self.pass_until(u64::MAX, &mut Vec::new());
        let seconds = (after.at_ns - before.at_ns) as f64 / 1e9;
        let costs = self.watched.iter().enumerate().filter_map(|(place, watched)| {
            let (spent_before, spent_after) = (before.spent[place].as_ref()?, after.spent[place].as_ref()?);
            let (records, bytes) = (after.records - before.records, after.bytes - before.bytes);
            Some(Cost::between(watched, spent_before, spent_after, seconds, resident_max[place], records, bytes))
        });
        costs.collect()
    }

    fn look(&self) -> Look {
        Look {
            at_ns: self.clock.now_ns(),
            records: self.counters.records(),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            spent: self.watched.iter().map(|watched| Spent::of(watched.pid).ok()).collect(),
        }
    }

    /// Sleeps until then or until the run is over, speaking every second.
    fn pass_until(&self, until_ns: u64, resident_max: &mut [u64]) {
        let mut records_before = self.counters.records();
        loop {
            let began_ns = self.clock.now_ns();
            if began_ns >= until_ns || self.counters.over.load(Ordering::Relaxed) {
                return;
            }
            std::thread::park_timeout(Duration::from_nanos((until_ns - began_ns).min(1_000_000_000)));
            for (most, watched) in resident_max.iter_mut().zip(&self.watched) {
                *most = resident_bytes(watched.pid).unwrap_or(0).max(*most);
            }
            let seconds = (self.clock.now_ns() - began_ns) as f64 / 1e9;
            let records = self.counters.records();
            if self.speak && seconds > 0.5 {
                let rate = (records - records_before) as f64 / seconds;
                let so_far = self.counters.percentile_us(0.99).map_or(String::new(), |p99| format!(", p99 so far about {p99:.0} us"));
                eprintln!("  {:5.1} s  {rate:9.0} records/s{so_far}", self.clock.now_ns() as f64 / 1e9);
            }
            records_before = records;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_meanwhile_is_about_right() {
        let counters = Counters::new();
        assert_eq!(counters.percentile_us(0.99), None);
        (1..=1_000).for_each(|us| counters.count(1, 100, us * 1_000));
        let (p50, p99) = (counters.percentile_us(0.5).expect("samples"), counters.percentile_us(0.99).expect("samples"));
        assert!((450.0..600.0).contains(&p50) && (900.0..1_100.0).contains(&p99), "{p50} {p99}");
    }

    #[test]
    fn costs_are_of_the_window_only() {
        let clock = Clock::start();
        let counters = Counters::new();
        counters.count(1_000, 0, 1_000);
        let window = Window { start_ns: 60_000_000, end_ns: 200_000_000 };
        let watched =
            vec![Watched { name: "me".to_string(), pid: std::process::id() }, Watched { name: "gone".to_string(), pid: u32::MAX }];
        let monitor = Monitor::start(clock, &counters, watched, Some(window), &Target::new(([127, 0, 0, 1], 1).into()));
        clock.sleep_until(100_000_000);
        counters.count(10, 0, 1_000);
        clock.sleep_until(230_000_000);
        counters.count(500, 0, 1_000);
        let costs = monitor.finish();
        assert_eq!(costs.len(), 1, "a process that is not there has no cost");
        // From 20 to 200 ms; on a busy machine either look may come late.
        assert!((0.05..5.0).contains(&costs[0].seconds), "{costs:?}");
    }
}
