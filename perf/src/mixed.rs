//! The third question of `probe journal`: a model of the shard's journal under two kinds of traffic. Small records come at a fixed rate whatever happens (latency counts from the scheduled time);
//! bulk always has 4 MiB waiting, as producers that send without a pause. All that waits when a place is free goes into one group of at most the limit; acknowledgements leave in order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane::rt;
use corelane::rt::buffer::AlignedBuffer;

use crate::journal::{BLOCK_BYTES, RECORD_BYTES, Ring, Rounds, filled, grown};
use crate::machine::Punts;
use crate::quiet::Quiet;
use crate::tally::{Tally, heading, row, size};

const LIMITS: [usize; 5] = [64 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20];
const DEPTHS: [usize; 4] = [1, 2, 4, 8];
const BULK_ENTRY_BYTES: usize = 64 << 10;
const BULK_WAITING_BYTES: usize = 4 << 20;

/// Who goes into a group first.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Arrival,
    SmallFirst,
}

#[derive(Clone, Copy)]
struct Case {
    small_per_second: u64,
    bulk: bool,
    order: Order,
    limit_bytes: usize,
    depth: usize,
}

pub async fn measure(ring: &Rc<Ring>, rounds: Rounds, punts: &Punts, quiet: &Quiet) {
    println!(
        "\nSmall records alone at a rate, group limit 512 KiB; us from the scheduled time to the acknowledgement. The shard looks without a pause.\n"
    );
    let alone = [1_000, 10_000, 50_000, 200_000];
    let cases = alone.iter().flat_map(|rate| {
        DEPTHS.iter().map(|depth| Case {
            small_per_second: *rate,
            bulk: false,
            order: Order::Arrival,
            limit_bytes: 512 << 10,
            depth: *depth,
        })
    });
    let tallies = run_cases(ring, cases.collect(), rounds, punts, quiet).await;
    heading(&["records a second", "in flight", "p50", "p99", "p99.9", "punts"]);
    for (case, tally) in &tallies {
        row(&[
            case.small_per_second.to_string(),
            case.depth.to_string(),
            tally.p50(),
            tally.quantile(0.99),
            tally.quantile(0.999),
            tally.punts.to_string(),
        ]);
    }

    println!(
        "\nSmall records (1,000 a second) beside bulk (4 MiB in 64 KiB batches always waiting); us of a small record, MB/s of bulk.\n"
    );
    let pairs: Vec<(usize, usize)> = LIMITS.iter().flat_map(|limit| DEPTHS.iter().map(|depth| (*limit, *depth))).collect();
    let case_of = |order| {
        pairs.iter().map(move |(limit_bytes, depth)| Case {
            small_per_second: 1_000,
            bulk: true,
            order,
            limit_bytes: *limit_bytes,
            depth: *depth,
        })
    };
    let cases = case_of(Order::Arrival).chain(case_of(Order::SmallFirst)).collect();
    let tallies = run_cases(ring, cases, rounds, punts, quiet).await;
    let (by_arrival, small_first) = tallies.split_at(pairs.len());
    heading(&[
        "limit",
        "in flight",
        "in order of arrival: p50",
        "p99",
        "p99.9",
        "MB/s",
        "small ones first: p50",
        "p99",
        "p99.9",
        "MB/s",
        "punts",
    ]);
    for ((case, arrival), (_, small)) in by_arrival.iter().zip(small_first) {
        let cells = |tally: &Tally| [tally.p50(), tally.quantile(0.99), tally.quantile(0.999), format!("{:.0}", tally.rate())];
        let punts = (arrival.punts + small.punts).to_string();
        row(&[vec![size(case.limit_bytes), case.depth.to_string()], cells(arrival).to_vec(), cells(small).to_vec(), vec![punts]].concat());
    }
}

async fn run_cases(ring: &Rc<Ring>, cases: Vec<Case>, rounds: Rounds, punts: &Punts, quiet: &Quiet) -> Vec<(Case, Tally)> {
    let mut tallies: Vec<(Case, Tally)> = cases.into_iter().map(|case| (case, Tally::new())).collect();
    for _ in 0..rounds.count {
        for (case, tally) in &mut tallies {
            loop {
                let mark = quiet.wait().await;
                let before = punts.count();
                let journal = Journal::new(ring.clone(), *case);
                let begun = Instant::now();
                offer(&journal, rounds.case).await;
                let elapsed = begun.elapsed();
                journal.drain().await;
                if quiet.accepts(&mark) {
                    let state = journal.state.borrow();
                    state.small_latencies.iter().for_each(|latency| tally.record(*latency));
                    tally.rates.push(state.bulk_bytes_durable as f64 / elapsed.as_secs_f64() / 1e6);
                    tally.punts += grown(before, punts.count());
                    break;
                }
            }
            tally.end_round();
        }
    }
    tallies
}

/// Hands small records over at their scheduled times for the time of a case. Looks all the time, so that no timer blurs the schedule.
async fn offer(journal: &Rc<Journal>, time: Duration) {
    let interval = Duration::from_secs(1) / journal.case.small_per_second as u32;
    let begun = Instant::now();
    let mut scheduled = begun;
    journal.refill_bulk();
    while begun.elapsed() < time {
        while scheduled <= Instant::now() {
            journal.append(Entry { scheduled, bytes: journal.small.clone(), is_small: true });
            scheduled += interval;
        }
        rt::yield_now().await;
    }
    journal.state.borrow_mut().is_closing = true;
}

struct Journal {
    ring: Rc<Ring>,
    case: Case,
    small: Bytes,
    bulk: Bytes,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Entry>,
    waiting_small: VecDeque<Entry>,
    /// Groups handed to the kernel and not acknowledged, oldest first; none once durable.
    groups: VecDeque<Group>,
    first_group: u64,
    in_flight: usize,
    bulk_bytes_waiting: usize,
    bulk_bytes_durable: usize,
    small_latencies: Vec<Duration>,
    is_closing: bool,
}

struct Entry {
    scheduled: Instant,
    bytes: Bytes,
    is_small: bool,
}

struct Group {
    small: Vec<Instant>,
    bulk_bytes: usize,
    is_durable: bool,
}

impl Journal {
    fn new(ring: Rc<Ring>, case: Case) -> Rc<Self> {
        Rc::new(Self { ring, case, small: filled(RECORD_BYTES), bulk: filled(BULK_ENTRY_BYTES), state: RefCell::default() })
    }

    fn append(self: &Rc<Self>, entry: Entry) {
        let mut state = self.state.borrow_mut();
        match entry.is_small && self.case.order == Order::SmallFirst {
            true => state.waiting_small.push_back(entry),
            false => state.waiting.push_back(entry),
        }
        drop(state);
        self.write_groups();
    }

    /// Whatever waits goes out as long as there is a place.
    fn write_groups(self: &Rc<Self>) {
        while let Some((number, bytes)) = self.next_group() {
            let journal = self.clone();
            rt::spawn(async move {
                journal.ring.write(bytes).await;
                journal.complete(number);
            })
            .detach();
        }
    }

    fn next_group(&self) -> Option<(u64, Bytes)> {
        let mut state = self.state.borrow_mut();
        if state.in_flight == self.case.depth || (state.waiting.is_empty() && state.waiting_small.is_empty()) {
            return None;
        }
        let mut group = Group { small: Vec::new(), bulk_bytes: 0, is_durable: false };
        let mut buffer = AlignedBuffer::with_capacity(self.case.limit_bytes);
        while let Some(entry) = state.waiting_small.front().or(state.waiting.front()) {
            if !buffer.is_empty() && buffer.len() + entry.bytes.len() > self.case.limit_bytes {
                break;
            }
            buffer.extend_from_slice(&entry.bytes);
            if entry.is_small {
                group.small.push(entry.scheduled);
            } else {
                group.bulk_bytes += entry.bytes.len();
            }
            if state.waiting_small.pop_front().is_none() {
                state.waiting.pop_front();
            }
        }
        buffer.pad_to(BLOCK_BYTES);
        state.bulk_bytes_waiting -= group.bulk_bytes;
        state.in_flight += 1;
        state.groups.push_back(group);
        Some((state.first_group + state.groups.len() as u64 - 1, buffer.freeze()))
    }

    /// Acknowledges all groups up to the first that is not durable.
    fn complete(self: &Rc<Self>, number: u64) {
        let mut state = self.state.borrow_mut();
        let place = (number - state.first_group) as usize;
        state.groups[place].is_durable = true;
        state.in_flight -= 1;
        let now = Instant::now();
        while state.groups.front().is_some_and(|group| group.is_durable) {
            let group = state.groups.pop_front().expect("there is a first one");
            state.first_group += 1;
            state.small_latencies.extend(group.small.iter().map(|scheduled| now - *scheduled));
            if !state.is_closing {
                state.bulk_bytes_durable += group.bulk_bytes;
            }
        }
        drop(state);
        self.refill_bulk();
        self.write_groups();
    }

    fn refill_bulk(self: &Rc<Self>) {
        if !self.case.bulk {
            return;
        }
        loop {
            let mut state = self.state.borrow_mut();
            if state.is_closing || state.bulk_bytes_waiting >= BULK_WAITING_BYTES {
                return;
            }
            state.bulk_bytes_waiting += BULK_ENTRY_BYTES;
            drop(state);
            self.append(Entry { scheduled: Instant::now(), bytes: self.bulk.clone(), is_small: false });
        }
    }

    async fn drain(&self) {
        while self.state.borrow().in_flight > 0 {
            rt::sleep(Duration::from_micros(500)).await;
        }
    }
}
