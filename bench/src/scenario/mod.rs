//! The scenarios: each prepares its topic, runs its parts in one thread that spins, and reads back what was acknowledged.

mod connections;
mod consume;
mod consumer_groups;
mod drive;
mod groups;
pub mod offsets;
mod rebalances;
mod transactions;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use corelane_wire::ApiKey;

use crate::client::admin::Admin;
use crate::clock::{Clock, seconds_ns};
use crate::cost::Watched;
use crate::failure::Failure;
use crate::load::{Load, Setup, Until};
use crate::outcome::{ClientFacts, Outcome};
use crate::payload::Payload;
use crate::progress::{Counters, Monitor};
use crate::readers::{CatchUp, Tail, read_back};
use crate::recorder::Window;
use crate::verify::{Ledger, Verdict};
use crate::workload::{ClientKind, GroupProtocol, Rate, Scenario, Workload};

use self::connections::Connections;
use self::drive::Parts;

/// Between the making of the connections and the first due time.
const HEAD_START_NS: u64 = 20_000_000;

/// The broker of a run and what is around it.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub congestion_control: Option<String>,
    /// Processes whose cost is looked at.
    pub watched: Vec<Watched>,
    /// The core that the client spins on.
    pub core: Option<usize>,
    /// A path without ending: latencies are kept beside it.
    pub keep: Option<PathBuf>,
    /// A line a second on the terminal.
    pub speak: bool,
    /// Not so for a floor, which is no broker and writes over its own records.
    pub reads_back: bool,
}

impl Target {
    /// With nothing around it.
    pub fn new(address: SocketAddr) -> Target {
        Target { address, congestion_control: None, watched: Vec::new(), core: None, keep: None, speak: false, reads_back: true }
    }
}

/// Runs the workload. An error means that nothing was measured; what goes wrong later is in the outcome.
pub fn run(workload: &Workload, target: &Target) -> Result<Outcome, Failure> {
    workload.check()?;
    if let Rate::ShareOfMax(share) = workload.rate {
        return Err(Failure::Settings(format!("rate = \"{share}%\": a share of the maximum is known only within `compare`")));
    }
    if workload.scenario == Scenario::Offsets {
        return Err(Failure::Settings("offsets: a broker is started again, which is done only within `compare`".to_string()));
    }
    if workload.client == ClientKind::Rdkafka {
        return crate::rdkafka_client::run(workload, target);
    }
    if let Some(core) = target.core {
        crate::cores::pin_this_thread(&[core])?;
    }
    let mut admin = Admin::connect(target.address, target.congestion_control.as_deref())?;
    let topic = topic_of(workload);
    admin.prepare_topic(workload, &topic)?;
    let setup = Setup {
        workload,
        address: target.address,
        topic: &topic,
        clock: Clock::start(),
        congestion_control: target.congestion_control.as_deref(),
        payload: Payload::new(workload.record_bytes),
        counters: Counters::new(),
        first_producer: 0,
    };
    match workload.scenario {
        Scenario::Consume => consume::run(setup, admin, target),
        Scenario::Groups if workload.group_protocol == GroupProtocol::Consumer => consumer_groups::run(&setup, target),
        Scenario::Groups => groups::run(&setup, target),
        Scenario::Transactions => transactions::run(&setup, admin, target),
        _ => produce(setup, admin, target),
    }
}

pub fn topic_of(workload: &Workload) -> String {
    let unique = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        format!("bench-{}-{}-{since}", workload.scenario.name(), std::process::id())
    };
    workload.topic.clone().unwrap_or_else(unique)
}

/// All scenarios whose measured work is producing, with what each has beside it.
fn produce(mut setup: Setup<'_>, mut admin: Admin, target: &Target) -> Result<Outcome, Failure> {
    let workload = setup.workload;
    let began = SystemTime::now();
    let starts = admin.end_offsets(setup.topic, workload.partitions)?;
    let mut backlog = None;
    if workload.scenario == Scenario::Mixed {
        backlog = Some(preload(&setup)?);
        setup.first_producer = backlog.as_ref().map_or(0, Ledger::producers);
    }
    let tail_starts = admin.end_offsets(setup.topic, workload.partitions)?;
    let connections = (workload.scenario == Scenario::Connections).then(|| Connections::open(&setup, target)).transpose()?;

    let start_ns = setup.clock.now_ns() + HEAD_START_NS;
    let window_start_ns = start_ns + seconds_ns(workload.warm_up_seconds);
    let window = Window { start_ns: window_start_ns, end_ns: window_start_ns + seconds_ns(workload.duration_seconds) };
    let mut parts = Parts {
        clock: setup.clock,
        load: Load::connect(&setup, start_ns, window, Until::WindowEnd)?,
        tail: None,
        catch_up: Vec::new(),
        connections,
        parks: workload.parks,
    };
    if matches!(workload.scenario, Scenario::E2e | Scenario::Mixed) && workload.subscriptions > 0 {
        let producers = setup.first_producer + workload.producers;
        parts.tail = Some(Tail::connect(&setup, producers, window, &tail_starts, None)?);
    }
    if workload.scenario == Scenario::Mixed {
        let readers = (0..workload.catch_up_readers).map(|_| CatchUp::connect(&setup, &starts, &tail_starts));
        parts.catch_up = readers.collect::<Result<_, _>>()?;
    }
    let monitor = Monitor::start(setup.clock, &setup.counters, target.watched.clone(), Some(window), target);
    let stopped = parts.run(start_ns, window).err();
    let seconds = if stopped.is_some() {
        (setup.clock.now_ns().min(window.end_ns).saturating_sub(window.start_ns)) as f64 / 1e9
    } else {
        window.seconds()
    };
    let too_slow = parts.load.close();
    let costs = monitor.finish();

    let mut outcome = Outcome {
        workload: workload.clone(),
        client: facts(target),
        seconds,
        records: parts.load.counts.arrived,
        bytes: parts.load.counts.arrived_bytes,
        counts: parts.load.counts.clone(),
        client_lag: parts.load.client_lag,
        latencies: Vec::new(),
        costs,
        more: parts.figures(seconds),
        verdict: None,
        not_read_back: None,
        partial: stopped.is_some(),
        failure: stopped.or(too_slow).or_else(|| parts.load.refused()),
    };
    let tail = parts.tail.iter().flat_map(|tail| [&tail.end_to_end, &tail.fetched]);
    let connected = parts.connections.iter().map(|connections| &connections.connected);
    for recorder in [&parts.load.acknowledged, &parts.load.answered].into_iter().chain(tail).chain(connected) {
        outcome.latencies.push(recorder.finish());
        if let Some(path) = &target.keep {
            recorder.keep(path, began).map_err(|error| Failure::Machine(error.to_string()))?;
        }
    }
    let mut verdict = parts.tail.as_ref().map(|tail| tail.verdict(&parts.load.ledger));
    if verdict.is_none() || workload.scenario == Scenario::Mixed {
        let mut ledger = parts.load.ledger.clone();
        if let Some(backlog) = &backlog {
            ledger.merge(backlog);
        }
        match read_all(&setup, &mut admin, target, &starts, &ledger) {
            Ok(read) => verdict.get_or_insert_default().add(&read),
            Err(why) => outcome.not_read_back = Some(why),
        }
    }
    Ok(conclude(outcome, verdict))
}

/// Why it could not be, if it could not.
fn read_all(setup: &Setup<'_>, admin: &mut Admin, target: &Target, starts: &[i64], ledger: &Ledger) -> Result<Verdict, String> {
    if !target.reads_back {
        return Err("a floor is no broker: it writes over its records".to_string());
    }
    if !admin.speaks(ApiKey::Fetch) {
        return Err("this system keeps no records to read".to_string());
    }
    read_back(setup, admin, starts, ledger).map_err(|failure| failure.to_string())
}

/// Puts the verdict first: a run that lost a record has no other news.
fn conclude(mut outcome: Outcome, verdict: Option<Verdict>) -> Outcome {
    outcome.verdict = verdict;
    if let Some(verdict) = verdict.filter(|verdict| !verdict.is_whole()) {
        outcome.failure = Some(Failure::NotReadBack(verdict.describe()));
    }
    outcome
}

/// Fills the topic with the backlog, as fast as it goes.
fn preload(setup: &Setup<'_>) -> Result<Ledger, Failure> {
    let records = (setup.workload.backlog_mib * 1024 * 1024).div_ceil(setup.workload.record_bytes as u64);
    let batch_records = (128 * 1024 / setup.workload.record_bytes).clamp(1, 1_000);
    let workload = Workload {
        scenario: Scenario::Produce,
        producers: 4,
        in_flight: 5,
        batch_records,
        rate: Rate::Max,
        idempotent: false,
        linger_ms: None,
        ..setup.workload.clone()
    };
    let setup = Setup { workload: &workload, payload: setup.payload.clone(), counters: Counters::new(), topic: setup.topic, ..*setup };
    let window = Window { start_ns: 0, end_ns: 1 };
    let load = Load::connect(&setup, 0, window, Until::Records(records))?;
    let mut parts = Parts { clock: setup.clock, load, tail: None, catch_up: Vec::new(), connections: None, parks: false };
    parts.run(0, window)?;
    match parts.load.refused() {
        Some(failure) => Err(failure),
        None => Ok(parts.load.ledger),
    }
}

fn facts(target: &Target) -> ClientFacts {
    ClientFacts {
        name: "raw".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        core: target.core,
        congestion_control: target.congestion_control.clone(),
    }
}
