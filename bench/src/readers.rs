//! Those who read: consumers at the tail, readers of a backlog, and the reading back of everything after a run.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::admin::Admin;
use crate::client::consumer::{Consumer, FetchSettings};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::load::{Setup, gone};
use crate::progress::Counters;
use crate::recorder::{LoopKind, Recorder, Window};
use crate::verify::{Checker, Ledger, Verdict};
use crate::workload::Scenario;

/// A reader that gets nothing new for so long has got all there is.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(15);

/// Reading back asks for so much at a time.
const READ_BACK_BYTES: i32 = 8 * 1024 * 1024;

/// Consumers of all subscriptions; each subscription sees every record, and checks it.
pub struct Tail {
    clock: Clock,
    consumers: Vec<(usize, Consumer)>,
    checkers: Vec<Checker>,
    /// From the time when a record was due to its arrival at a consumer.
    pub end_to_end: Recorder,
    /// From the sending of a fetch to the last byte of its answer.
    pub fetched: Recorder,
    pub records: u64,
    pub bytes: u64,
    /// Where reading is the measured work, it is what the progress tells.
    counters: Option<Arc<Counters>>,
}

impl Tail {
    /// `starts` are the offsets to read from, by partition; `producers` those whose records may come.
    pub fn connect(
        setup: &Setup<'_>,
        producers: usize,
        window: Window,
        starts: &[i64],
        counters: Option<Arc<Counters>>,
    ) -> Result<Tail, Failure> {
        let workload = setup.workload;
        let settings = FetchSettings::of(workload);
        let mut consumers = Vec::new();
        for subscription in 0..workload.subscriptions {
            for member in 0..workload.consumers {
                let positions: Vec<(i32, i64)> = starts
                    .iter()
                    .enumerate()
                    .skip(member)
                    .step_by(workload.consumers)
                    .map(|(index, offset)| (index as i32, *offset))
                    .collect();
                let consumer = Consumer::connect(setup.address, setup.congestion_control, setup.topic, &positions, settings)
                    .map_err(|error| Failure::Unreachable(error.to_string()))?;
                consumers.push((subscription, consumer));
            }
        }
        let mut checkers: Vec<Checker> =
            (0..workload.subscriptions).map(|_| Checker::new(&setup.payload, producers, workload.partitions)).collect();
        checkers.iter_mut().for_each(|checker| checker.expect(workload.expected()));
        let loop_kind = if workload.schedule(0).is_some() { LoopKind::Open } else { LoopKind::Closed };
        Ok(Tail {
            clock: setup.clock,
            consumers,
            checkers,
            end_to_end: Recorder::new("end to end", loop_kind, window),
            fetched: Recorder::new("fetched", LoopKind::Closed, window),
            records: 0,
            bytes: 0,
            counters,
        })
    }

    pub fn connections(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.consumers.iter().map(|(_, consumer)| consumer.as_fd())
    }

    pub fn count(&self) -> usize {
        self.consumers.len()
    }

    /// Takes what has come for the consumer, all of it, and asks for more.
    pub fn receive(&mut self, place: usize) -> Result<(), Failure> {
        let (subscription, consumer) = &mut self.consumers[place];
        let checker = &mut self.checkers[*subscription];
        loop {
            let (clock, end_to_end, bytes, records) = (self.clock, &mut self.end_to_end, &mut self.bytes, &mut self.records);
            let before = *records;
            let step = consumer.step(
                || clock.now_ns(),
                |partition, offset, arrived_ns, value| {
                    let Some(value) = value else { return checker.see_damage() };
                    *records += 1;
                    *bytes += value.len() as u64;
                    if let Some(due_ns) = checker.see(partition, offset, value) {
                        end_to_end.record(due_ns, arrived_ns.saturating_sub(due_ns));
                    }
                },
            );
            let step = step.map_err(|error| gone(&error))?;
            if let Some((latency_ns, _)) = step.fetch {
                self.fetched.record(self.clock.now_ns() - latency_ns, latency_ns);
            }
            if let Some(counters) = self.counters.as_ref().filter(|_| *records > before) {
                counters.count(*records - before, 0, step.fetch.map_or(0, |(latency_ns, _)| latency_ns));
            }
            if !step.busy {
                return Ok(());
            }
        }
    }

    pub fn has_all_of(&self, ledger: &Ledger) -> bool {
        let records = ledger.records();
        self.checkers.iter().all(|checker| checker.distinct_records() >= records && checker.has_all_of(ledger))
    }

    /// Of all subscriptions together.
    pub fn verdict(&self, ledger: &Ledger) -> Verdict {
        let mut sum = Verdict::default();
        self.checkers.iter().for_each(|checker| sum.add(&checker.verdict(ledger)));
        sum
    }
}

/// One that reads a backlog from its beginning to its end, again and again, one small step at a time.
pub struct CatchUp {
    clock: Clock,
    setup: (std::net::SocketAddr, Option<String>, String, FetchSettings),
    starts: Vec<i64>,
    ends: Vec<i64>,
    consumer: Consumer,
    pub bytes: u64,
    pub records: u64,
    pub passes: u64,
    /// Bytes that were no records: the reading back names what is wrong, this only counts.
    pub damaged: u64,
}

impl CatchUp {
    pub fn connect(setup: &Setup<'_>, starts: &[i64], ends: &[i64]) -> Result<CatchUp, Failure> {
        let settings = FetchSettings::of(setup.workload);
        let consumer = reader(setup, starts, settings)?;
        Ok(CatchUp {
            clock: setup.clock,
            setup: (setup.address, setup.congestion_control.map(str::to_string), setup.topic.to_string(), settings),
            starts: starts.to_vec(),
            ends: ends.to_vec(),
            consumer,
            bytes: 0,
            records: 0,
            passes: 0,
            damaged: 0,
        })
    }

    /// What was read before the window does not count.
    pub fn begin_window(&mut self) {
        (self.bytes, self.records, self.passes) = (0, 0, 0);
    }

    pub fn step(&mut self) -> Result<(), Failure> {
        let (clock, bytes, records, damaged) = (self.clock, &mut self.bytes, &mut self.records, &mut self.damaged);
        let step = self.consumer.step(
            || clock.now_ns(),
            |_, _, _, value| match value {
                Some(value) => (*bytes, *records) = (*bytes + value.len() as u64, *records + 1),
                None => *damaged += 1,
            },
        );
        step.map_err(|error| gone(&error))?;
        if self.consumer.positions().all(|(index, offset)| offset >= self.ends[index as usize]) {
            let positions: Vec<(i32, i64)> = self.starts.iter().enumerate().map(|(index, offset)| (index as i32, *offset)).collect();
            let (address, congestion_control, topic, settings) = &self.setup;
            self.consumer =
                Consumer::connect(*address, congestion_control.as_deref(), topic, &positions, *settings).map_err(|error| gone(&error))?;
            self.passes += 1;
        }
        Ok(())
    }
}

fn reader(setup: &Setup<'_>, starts: &[i64], settings: FetchSettings) -> Result<Consumer, Failure> {
    let positions: Vec<(i32, i64)> = starts.iter().enumerate().map(|(index, offset)| (index as i32, *offset)).collect();
    Consumer::connect(setup.address, setup.congestion_control, setup.topic, &positions, settings).map_err(|error| gone(&error))
}

/// Reads everything from `starts` to the log's ends and compares it with what was acknowledged.
pub fn read_back(setup: &Setup<'_>, admin: &mut Admin, starts: &[i64], ledger: &Ledger) -> Result<Verdict, Failure> {
    let ends = admin.end_offsets(setup.topic, setup.workload.partitions)?;
    let committed_only = setup.workload.scenario == Scenario::Transactions;
    let settings = FetchSettings { max_bytes: READ_BACK_BYTES, min_bytes: 1, max_wait_ms: 100, committed_only };
    let mut consumer = reader(setup, starts, settings)?;
    let mut checker = Checker::new(&setup.payload, ledger.producers(), setup.workload.partitions);
    let clock = setup.clock;
    let mut last_progress = Instant::now();
    while consumer.positions().any(|(index, offset)| offset < ends[index as usize]) && last_progress.elapsed() < NO_PROGRESS_MAX {
        let mut progress = false;
        let step = consumer.step(
            || clock.now_ns(),
            |partition, offset, _, value| {
                progress = true;
                match value {
                    Some(value) => drop(checker.see(partition, offset, value)),
                    None => checker.see_damage(),
                }
            },
        );
        if !step.map_err(|error| gone(&error))?.busy {
            std::thread::sleep(Duration::from_micros(50));
        }
        if progress {
            last_progress = Instant::now();
        }
    }
    Ok(checker.verdict(ledger))
}
