//! Faults without end: for a minute in the suite, for as long as `scripts/soak VERB --minutes N` says elsewhere.

mod copiers;
mod groups;
mod observer;
mod owners;
mod proxy;
mod transactions;

use std::thread;
use std::time::{Duration, Instant};

use harness::broker::Broker;
use harness::own_broker_cases;
use harness::suite::OwnBrokerCase;
use rustix::process::Signal;

use self::copiers::copies_hold_every_record_once;
use self::groups::every_record_reaches_every_group;
use self::owners::two_owners_are_noticed;
use self::transactions::every_transaction_is_whole_or_nothing;
use crate::rounds;
use crate::writer::mix;

pub const GROUPS: &[OwnBrokerCase] = own_broker_cases![every_record_reaches_every_group, two_owners_are_noticed];
pub const TRANSACTIONS: &[OwnBrokerCase] = own_broker_cases![every_transaction_is_whole_or_nothing, copies_hold_every_record_once];

/// Chances and time of one run.
struct Run {
    began: Instant,
    length: Duration,
    random: u64,
}

impl Run {
    /// As long as CORELANE_SOAK_MINUTES says, else a minute.
    fn begin() -> Run {
        let (minutes, seed) = (rounds::minutes().unwrap_or(1), rounds::seed());
        println!("{minutes} minutes, CORELANE_CRASH_SEED={seed}");
        Run { began: Instant::now(), length: Duration::from_secs(60 * minutes), random: seed }
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= self.length
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = mix(self.random);
        self.random % bound
    }

    /// Lets the others work for a while.
    fn rest(&mut self, from_ms: u64, to_ms: u64) {
        thread::sleep(Duration::from_millis(from_ms + self.below(to_ms - from_ms)));
    }
}

/// `kill -9`, and another life.
fn kill_and_restart(broker: &mut Broker) {
    broker.kill();
    broker.restart();
}

/// The broker stands still for a while, as on a host that has something better to do.
fn pause(broker: &Broker, duration: Duration) {
    broker.signal(Signal::STOP);
    thread::sleep(duration);
    broker.signal(Signal::CONT);
}
