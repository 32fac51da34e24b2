//! A suite of cases over one shared broker, reported as cargo's own tests are.
//!
//! Starting the original takes seconds of both cores, so the cases of a suite share one broker and keep apart by the names of their topics and groups. The broker starts when
//! the first case asks for it and ends after the last; its folder is kept when a case failed.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::broker::{Broker, BrokerOptions};
use crate::{differences, places};

/// A test that talks to the suite's broker.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Broker),
}

/// Lists functions as cases; one that is not listed is reported by the compiler as unused.
#[macro_export]
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        &[$($crate::suite::Case { name: stringify!($case), run: $case }),*]
    };
}

/// The broker of a suite, started by whoever needs it first.
#[derive(Clone)]
pub struct SharedBroker {
    options: BrokerOptions,
    broker: Arc<Mutex<Option<Arc<Broker>>>>,
}

impl SharedBroker {
    pub fn new(options: BrokerOptions) -> SharedBroker {
        SharedBroker { options, broker: Arc::new(Mutex::new(None)) }
    }

    pub fn get(&self) -> Arc<Broker> {
        let mut broker = self.broker.lock().expect("the broker could not be started; the first case says why");
        broker.get_or_insert_with(|| Arc::new(Broker::start(self.options.clone()))).clone()
    }

    fn end(&self, failed: bool) {
        let Some(broker) = self.broker.lock().ok().and_then(|mut broker| broker.take()) else { return };
        if let Some(mut broker) = Arc::into_inner(broker).filter(|_| failed) {
            broker.keep_folder();
        }
    }
}

/// Cases of one module as trials named `module::case`.
pub fn trials(module: &str, cases: &'static [Case], shared: &SharedBroker) -> Vec<Trial> {
    let one = |case: &'static Case| {
        let run = |broker: &Broker| {
            (case.run)(broker);
            Ok(())
        };
        trial(format!("{module}::{}", case.name), shared, run)
    };
    cases.iter().map(one).collect()
}

/// One trial on the shared broker, left out with its reason if `differences.toml` says so.
pub fn trial(name: String, shared: &SharedBroker, run: impl FnOnce(&Broker) -> Result<(), Failed> + Send + 'static) -> Trial {
    let left_out = left_out(&name);
    let shared = shared.clone();
    Trial::test(name, move || run(&shared.get())).with_ignored_flag(left_out)
}

/// A test that starts its own brokers: it kills or stops them, or measures one that nobody else uses.
pub struct OwnBrokerCase {
    pub name: &'static str,
    pub run: fn(),
}

/// Lists functions without arguments as cases with brokers of their own.
#[macro_export]
macro_rules! own_broker_cases {
    ($($case:ident),* $(,)?) => {
        &[$($crate::suite::OwnBrokerCase { name: stringify!($case), run: $case }),*]
    };
}

pub fn own_broker_trials(module: &str, cases: &'static [OwnBrokerCase]) -> Vec<Trial> {
    let one = |case: &'static OwnBrokerCase| {
        let name = format!("{module}::{}", case.name);
        let left_out = left_out(&name);
        let body = || {
            (case.run)();
            Ok(())
        };
        Trial::test(name, body).with_ignored_flag(left_out)
    };
    cases.iter().map(one).collect()
}

/// Runs trials one after the other, in their order: each wants the machine for itself.
pub fn main_one_by_one(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    println!("against {:?}", places::target());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs trials that keep apart, so many beside each other unless the command line says otherwise; begun in their order.
pub fn main_side_by_side(trials: Vec<Trial>, jobs: usize) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(jobs));
    println!("against {:?}", places::target());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether `differences.toml` leaves this case out against the broker at hand; prints the reason.
fn left_out(name: &str) -> bool {
    let reason = differences::not_run(name);
    if let Some(reason) = reason {
        println!("{name} is not run against {:?}: {reason}", places::target());
    }
    reason.is_some()
}

/// Runs the trials as `cargo test` would, then ends the shared brokers.
pub fn main(mut trials: Vec<Trial>, shared: &[SharedBroker]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most cases wait for the broker or for a client's timer, so more of them run at once than there are cores.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    trials.sort_by(|left, right| left.name().cmp(right.name()));
    println!("against {:?}", places::target());
    let conclusion = libtest_mimic::run(&arguments, trials);
    shared.iter().for_each(|shared| shared.end(conclusion.has_failed()));
    conclusion.exit_code()
}
