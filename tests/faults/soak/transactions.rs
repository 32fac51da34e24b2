//! Concurrent transactions while the broker is paused, killed and cut off; readers of committed records watch all the time.
//!
//! In the end the whole history is compared with what the tellers were told, and what every watcher has read, in the order in which he read it, with the history: nobody saw a record
//! that was not committed, missed one that was, saw one twice, or went back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use harness::broker::{Broker, BrokerOptions};
use harness::committed::CommittedReader;
use harness::raw::Connection;

use super::proxy::Proxy;
use super::{Run, kill_and_restart, pause};
use crate::transactions::history::{History, Seen, check, check_watched, committed};
use crate::transactions::teller::{GROUP, PARTITIONS, TOPIC, Teller, Told, check_positions, end_what_is_open};
use crate::writer::{Progress, StopAtEnd};

const TELLERS: u64 = 6;
const WATCHERS: usize = 2;

/// Less than this in a minute is not the load that is meant; on a machine with two busy cores it is some thousands.
const COMMITTED_MIN: usize = 100;

/// What was done to the broker.
#[derive(Debug, Default)]
struct Faults {
    kills: u64,
    pauses: u64,
    /// Connections that were cut.
    cuts: usize,
}

impl Faults {
    /// Those that have not come yet come first; then by chance.
    fn next(&self, run: &mut Run) -> Fault {
        match (self.cuts, self.pauses, self.kills, run.below(4)) {
            (0, ..) => Fault::Cut,
            (_, 0, ..) => Fault::Pause,
            (_, _, 0, _) | (.., 0) => Fault::Kill,
            (.., 1) => Fault::Pause,
            _ => Fault::Cut,
        }
    }
}

enum Fault {
    Kill,
    Pause,
    Cut,
}

pub fn every_transaction_is_whole_or_nothing() {
    let mut run = Run::begin();
    let seed = run.random;
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1));
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")]);
    connection.wait_for_coordinator(GROUP);
    let mut tellers: Vec<Teller> = (0..TELLERS).map(Teller::new).collect();
    let mut watched: Vec<Vec<Watched>> = (0..WATCHERS).map(|_| (0..PARTITIONS).map(Watched::new).collect()).collect();
    let proxy = Proxy::to(broker.address());
    let (faults, address) = (&mut Faults::default(), proxy.address());
    let progress = Progress::default();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        for teller in &mut tellers {
            scope.spawn(|| transfer(teller, address, &progress, seed));
        }
        for partitions in &mut watched {
            scope.spawn(|| watch(partitions, address, &progress.stop));
        }
        while !run.is_over() {
            run.rest(200, 2_000);
            disturb(&mut run, &mut broker, &proxy, faults);
        }
    });
    let histories = histories(&broker, &mut tellers);
    check(&tellers, |teller, number| teller.records_of(seed, number), &histories).unwrap_or_else(|anomaly| panic!("{anomaly}"));
    for (watcher, partitions) in watched.iter_mut().enumerate() {
        compare_watched(&broker, watcher, partitions, &histories);
    }
    check_positions(&mut Connection::to(&broker), &mut tellers);
    report(faults, &tellers, &histories);
}

fn transfer(teller: &mut Teller, address: SocketAddr, progress: &Progress, seed: u64) {
    while !progress.stop.load(Ordering::Relaxed) {
        teller.run(address, progress, seed);
        thread::sleep(Duration::from_millis(20));
    }
}

fn disturb(run: &mut Run, broker: &mut Broker, proxy: &Proxy, faults: &mut Faults) {
    match faults.next(run) {
        Fault::Kill => {
            kill_and_restart(broker);
            faults.kills += 1;
        }
        Fault::Pause => {
            pause(broker, Duration::from_millis(50 + run.below(2_000)));
            faults.pauses += 1;
        }
        Fault::Cut => faults.cuts += proxy.cut(),
    }
}

/// What one watcher has read of one partition.
struct Watched {
    reader: CommittedReader,
    seen: Vec<Seen>,
}

impl Watched {
    fn new(partition: i32) -> Watched {
        Watched { reader: CommittedReader::new(TOPIC, partition), seen: Vec::new() }
    }

    fn poll(&mut self, connection: &mut Connection) -> std::io::Result<()> {
        let poll = self.reader.poll(connection)?;
        self.seen.extend(poll.records.iter().map(|(offset, record)| Seen::of(*offset, record)));
        Ok(())
    }
}

fn watch(partitions: &mut [Watched], address: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut connection) = Connection::open(address) {
            let mut watching = || partitions.iter_mut().try_for_each(|partition| partition.poll(&mut connection));
            while !stop.load(Ordering::Relaxed) && watching().is_ok() {}
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn histories(broker: &Broker, tellers: &mut [Teller]) -> Vec<History> {
    let mut connection = Connection::to(broker);
    connection.wait_for_leaders(TOPIC, PARTITIONS);
    end_what_is_open(broker, tellers);
    (0..PARTITIONS).map(|partition| committed(&mut connection, partition)).collect()
}

/// Each watcher reads on to the end first.
fn compare_watched(broker: &Broker, watcher: usize, partitions: &mut [Watched], histories: &[History]) {
    let mut connection = Connection::to(broker);
    for (index, (partition, history)) in partitions.iter_mut().zip(histories).enumerate() {
        let live = partition.seen.len();
        while partition.seen.len() < history.len() {
            let before = partition.reader.next_offset();
            partition.poll(&mut connection).expect("the broker is there");
            assert!(partition.reader.next_offset() > before, "watcher {watcher} comes to no end at {before} of partition {index}");
        }
        assert!(live > 0, "watcher {watcher} has read nothing of partition {index} while it happened");
        check_watched(&partition.seen, history).unwrap_or_else(|anomaly| panic!("watcher {watcher}, partition {index}: {anomaly}"));
        println!("watcher {watcher}, partition {index}: {live} records read while it happened, {} in all", history.len());
    }
}

fn report(faults: &Faults, tellers: &[Teller], histories: &[History]) {
    assert!(faults.kills > 0 && faults.pauses > 0 && faults.cuts > 0, "{faults:?}");
    let count = |told: Told| tellers.iter().flat_map(|teller| &teller.transfers).filter(|one| **one == told).count();
    println!(
        "{faults:?}: {} transfers committed, {} aborted, {} without an answer; {} committed records, each transaction whole or not there",
        count(Told::Committed),
        count(Told::Aborted),
        count(Told::Unknown),
        histories.iter().map(Vec::len).sum::<usize>()
    );
    assert!(count(Told::Committed) >= COMMITTED_MIN && count(Told::Aborted) > 0);
}
