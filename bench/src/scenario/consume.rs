//! `consume`: a backlog is written, then read as fast as consumers can; every record is checked on the way.

use std::time::{Duration, Instant, SystemTime};

use super::{Target, conclude, facts, preload};
use crate::client::admin::Admin;
use crate::client::readiness::Readiness;
use crate::failure::Failure;
use crate::load::{ClientLag, Counts, Setup};
use crate::outcome::Outcome;
use crate::progress::Monitor;
use crate::readers::Tail;
use crate::recorder::Window;

/// Readers that get nothing new for so long do not get the rest.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(10);

/// Latencies of fetches are kept for so long; reading may take longer.
const RECORDED_NS: u64 = 120_000_000_000;

pub fn run(setup: Setup<'_>, mut admin: Admin, target: &Target) -> Result<Outcome, Failure> {
    let workload = setup.workload;
    let began = SystemTime::now();
    let starts = admin.end_offsets(setup.topic, workload.partitions)?;
    let ledger = preload(&setup)?;
    if workload.cold_cache {
        forget_page_cache()?;
    }
    let start_ns = setup.clock.now_ns();
    let window = Window { start_ns, end_ns: start_ns + RECORDED_NS };
    let mut tail = Tail::connect(&setup, ledger.producers(), window, &starts, Some(setup.counters.clone()))?;
    let monitor = Monitor::start(setup.clock, &setup.counters, target.watched.clone(), None, target);
    let start_ns = setup.clock.now_ns();
    let stopped = read(&mut tail, ledger.records() * workload.subscriptions as u64).err();
    let seconds = (setup.clock.now_ns() - start_ns) as f64 / 1e9;
    let costs = monitor.finish();
    if let Some(path) = &target.keep {
        tail.fetched.keep(path, began).map_err(|error| Failure::Machine(error.to_string()))?;
    }
    let mut fetched = tail.fetched.finish();
    while fetched.over_time.last().is_some_and(|interval| interval.samples == 0) {
        fetched.over_time.pop();
    }
    let outcome = Outcome {
        workload: workload.clone(),
        client: facts(target),
        seconds,
        records: tail.records,
        bytes: tail.bytes,
        counts: Counts::default(),
        client_lag: ClientLag::default(),
        latencies: vec![fetched],
        costs,
        more: Default::default(),
        verdict: None,
        not_read_back: None,
        partial: stopped.is_some(),
        failure: stopped,
    };
    let verdict = tail.verdict(&ledger);
    Ok(conclude(outcome, Some(verdict)))
}

/// Until so many records have come.
fn read(tail: &mut Tail, records: u64) -> Result<(), Failure> {
    let connections: Vec<_> = tail.connections().collect();
    let mut readiness = Readiness::of(connections.into_iter()).map_err(Failure::machine("epoll"))?;
    (0..tail.count()).try_for_each(|place| tail.receive(place))?;
    let mut last_progress = (Instant::now(), 0);
    while tail.records < records {
        for place in readiness.look().map_err(Failure::machine("epoll"))? {
            tail.receive(*place)?;
        }
        if tail.records > last_progress.1 {
            last_progress = (Instant::now(), tail.records);
        } else if last_progress.0.elapsed() > NO_PROGRESS_MAX {
            return Ok(());
        }
    }
    Ok(())
}

fn forget_page_cache() -> Result<(), Failure> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "1").map_err(Failure::machine("cold_cache: /proc/sys/vm/drop_caches"))
}
