//! The rounds: every system in turn, in an order that rotates, each on fresh data; beside every measurement a control that says whether it counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::startup::StartUp;
use super::suite::{Case, Suite, SystemName};
use super::systems::{Place, Running, Shape};
use crate::control::{Control, Quietness};
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::scenario::offsets::{Again, Committed};
use crate::scenario::{self, Target};
use crate::workload::{Class, Rate, Scenario, Workload};

/// One measurement of a case on a system.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub round: usize,
    pub outcome: Outcome,
    pub quietness: Quietness,
    /// How often it had been made before, in vain.
    pub repeats: usize,
}

impl Measured {
    /// Whether a disturbed machine is reason enough for the failure: the client cannot be in time on a core that others take.
    fn excuses(&self, failure: &Failure) -> bool {
        matches!(failure, Failure::ClientTooSlow(_)) && !self.quietness.is_quiet()
    }
}

/// Everything that was measured.
#[derive(Default)]
pub struct Measurements {
    /// By case and system.
    pub cases: BTreeMap<(String, SystemName), Vec<Measured>>,
    pub starts: BTreeMap<SystemName, Vec<StartUp>>,
    /// The command that started each.
    pub commands: BTreeMap<SystemName, String>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
    pub rounds: usize,
    pub minutes: f64,
    /// The rate that a share of the maximum came to, by case.
    pub maxima: BTreeMap<String, f64>,
}

pub struct Rounds<'a> {
    pub suite: &'a Suite,
    pub place: &'a Place,
    pub systems: Vec<SystemName>,
    pub say: &'a dyn Fn(&str),
    pub began: Instant,
    pub measurements: Measurements,
}

impl Rounds<'_> {
    /// All rounds, as far as time allows.
    pub fn run(mut self) -> Measurements {
        self.find_maxima();
        let mut slowest = Duration::ZERO;
        for round in 1..=self.suite.rounds {
            if round > 1 && self.began.elapsed() + slowest > self.limit() {
                (self.say)(&format!("round {round} and later are left out: {:.0} minutes would be over", self.suite.minutes));
                break;
            }
            let round_began = Instant::now();
            (self.say)(&format!("round {round} of {}", self.suite.rounds));
            let cases: Vec<&Case> = self.suite.cases.iter().collect();
            for place in 0..self.systems.len() {
                let system = self.systems[(place + round - 1) % self.systems.len()];
                self.measure_system(round, system, &cases);
            }
            self.measurements.rounds = round;
            slowest = slowest.max(round_began.elapsed());
        }
        self.measurements.minutes = self.began.elapsed().as_secs_f64() / 60.0;
        self.measurements
    }

    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.suite.minutes * 60.0)
    }

    /// The saturating cases that shares refer to, once on every system, before the rounds: a share is of the slower one's maximum.
    fn find_maxima(&mut self) {
        let wanted: Vec<&Case> = self
            .suite
            .cases
            .iter()
            .filter(|case| self.suite.cases.iter().any(|other| other.share_of.as_deref() == Some(&case.name)))
            .collect();
        if wanted.is_empty() {
            return;
        }
        (self.say)("maxima, for the cases at a share of them");
        for system in self.systems.clone().into_iter().filter(|system| *system != SystemName::Floor) {
            self.measure_system(0, system, &wanted);
        }
        for case in wanted {
            let of_case = |(key, measured): (&(String, SystemName), &Vec<Measured>)| {
                let rate = measured.first()?.outcome.records_per_second();
                (key.0 == case.name && rate > 0.0).then_some(rate)
            };
            let slower = self.measurements.cases.iter().filter_map(of_case).fold(f64::INFINITY, f64::min);
            if slower.is_finite() {
                self.measurements.maxima.insert(case.name.clone(), slower);
            }
        }
        self.measurements.cases.clear();
        self.measurements.starts.clear();
    }

    /// One system's part of a round: started as often as its cases need different starts.
    fn measure_system(&mut self, round: usize, system: SystemName, cases: &[&Case]) {
        let mut groups: Vec<(Shape, Vec<&Case>)> = Vec::new();
        for case in cases.iter().filter(|case| self.suite.systems_of(case).contains(&system)) {
            let shape = shape_of(system, case);
            match groups.iter_mut().find(|(known, _)| *known == shape) {
                Some((_, same)) => same.push(case),
                None => groups.push((shape, vec![case])),
            }
        }
        for (shape, cases) in groups {
            match self.place.start(&shape, Duration::from_secs_f64(self.suite.idle_seconds)) {
                Ok(running) => self.measure_cases(round, running, &cases),
                Err(failure) => self.fail(format!("{}, round {round}: {failure}", system.name())),
            }
        }
    }

    fn measure_cases(&mut self, round: usize, mut running: Running, cases: &[&Case]) {
        let system = running.shape.system;
        self.measurements.commands.entry(system).or_insert_with(|| running.command.clone());
        if let Some(start_up) = running.start_up {
            self.measurements.starts.entry(system).or_default().push(start_up);
        }
        if let Err(failure) = self.warm_up(&running) {
            self.fail(format!("{}, warm-up: {failure}", system.name()));
        }
        for case in cases {
            if !running.is_alive() {
                self.fail(format!("{} ended before case {}", system.name(), case.name));
                break;
            }
            // What one case left in the page cache is not the next one's burden.
            rustix::fs::sync();
            match self.measure(round, &mut running, case) {
                Ok(measured) => {
                    (self.say)(&format!("  {:12} {:24} {}", system.name(), case.name, line(&measured)));
                    if let Some(failure) = measured.outcome.failure.as_ref().filter(|failure| !measured.excuses(failure)) {
                        self.fail(format!("{}, case {}, round {round}: {failure}", system.name(), case.name));
                    }
                    self.measurements.cases.entry((case.name.clone(), system)).or_default().push(measured);
                }
                Err(failure) => self.fail(format!("{}, case {}, round {round}: {failure}", system.name(), case.name)),
            }
        }
        running.stop();
    }

    /// A JVM compiles what is hot: it gets its time, with the loads that follow.
    fn warm_up(&self, running: &Running) -> Result<(), Failure> {
        let is_jvm = matches!(running.shape.system, SystemName::Kafka | SystemName::KafkaPinned | SystemName::Other);
        let seconds = self.suite.jvm_warm_up_seconds / 3.0;
        if !is_jvm || seconds <= 0.0 {
            return Ok(());
        }
        let bulk = Workload {
            rate: Rate::Max,
            producers: 4,
            in_flight: 5,
            batch_records: 100,
            partitions: 4,
            class: Some(Class::A),
            ..Workload::default()
        };
        let single = Workload { rate: Rate::Max, in_flight: 5, class: Some(Class::B), ..Workload::default() };
        let tail = Workload { scenario: Scenario::E2e, rate: Rate::PerSecond(1_000), class: Some(Class::A), ..Workload::default() };
        for workload in [bulk, single, tail] {
            let workload = Workload { warm_up_seconds: 0.0, duration_seconds: seconds, ..workload };
            self.run_client(&workload, running, None)?;
        }
        Ok(())
    }

    fn measure(&self, round: usize, running: &mut Running, case: &Case) -> Result<Measured, Failure> {
        let workload = self.workload_of(case)?;
        let mut best: Option<Measured> = None;
        for repeats in 0..=self.suite.repeats {
            let watched: Vec<u32> = running.watched().iter().map(|watched| watched.pid).collect();
            let control = Control::start(&watched);
            let kept_as = format!("{}-{}-{round}", case.name, running.shape.system.name());
            let outcome = match workload.scenario {
                Scenario::Offsets => self.load_offsets(&workload, running),
                _ => self.run_client(&workload, running, Some(&kept_as)),
            };
            let quietness = control.finish();
            let measured = Measured { round, outcome: outcome?, quietness, repeats };
            // A client that was late on a quiet machine may have been unlucky, too.
            let is_quiet = measured.quietness.is_quiet() && !matches!(measured.outcome.failure, Some(Failure::ClientTooSlow(_)));
            // A lost record is news on any machine.
            let is_lost = matches!(measured.outcome.failure, Some(Failure::NotReadBack(_)));
            // Once more, and there would be twice as many offsets.
            let is_final = is_quiet
                || is_lost
                || workload.scenario == Scenario::Offsets
                || self.began.elapsed() > self.limit().mul_f64(round as f64 / self.suite.rounds as f64);
            if best.as_ref().is_none_or(|best| {
                measured.quietness.late_gaps * best.quietness.gaps <= best.quietness.late_gaps * measured.quietness.gaps || is_final
            }) {
                best = Some(measured);
            }
            if is_final {
                break;
            }
        }
        Ok(best.expect("measured at least once"))
    }

    fn workload_of(&self, case: &Case) -> Result<Workload, Failure> {
        let mut workload = case.settings.clone();
        if let Rate::ShareOfMax(share) = workload.rate {
            let most = case.share_of.as_ref().and_then(|of| self.measurements.maxima.get(of));
            let most = most.ok_or_else(|| Failure::Settings("the maximum that its rate is a share of was not measured".to_string()))?;
            workload.rate = Rate::PerSecond(((most * f64::from(share) / 100.0) as u64).max(1));
        }
        Ok(workload)
    }

    /// Offsets are committed, the broker goes and comes, and has to know them again.
    fn load_offsets(&self, workload: &Workload, running: &mut Running) -> Result<Outcome, Failure> {
        let before = self.target(running, None);
        let committed = Committed::commit(workload, &before)?;
        let exec = self.place.restart(running)?;
        committed.load(&Again { exec, target: self.target(running, None) })
    }

    fn target(&self, running: &Running, kept_as: Option<&str>) -> Target {
        Target {
            congestion_control: Some(self.place.congestion_control.clone()),
            watched: running.watched(),
            core: Some(self.place.client_core),
            keep: kept_as.and_then(|name| Some(self.place.keep.as_ref()?.join(name))),
            reads_back: running.shape.system != SystemName::Floor,
            ..Target::new(running.address)
        }
    }

    /// In a thread of its own, so that its core stays its own.
    fn run_client(&self, workload: &Workload, running: &Running, kept_as: Option<&str>) -> Result<Outcome, Failure> {
        let target = self.target(running, kept_as);
        std::thread::scope(|scope| scope.spawn(|| scenario::run(workload, &target)).join().expect("the client does not panic"))
    }

    fn fail(&mut self, why: String) {
        (self.say)(&format!("  ! {why}"));
        self.measurements.failures.push(why);
    }
}

fn shape_of(system: SystemName, case: &Case) -> Shape {
    let is_corelane = system == SystemName::Corelane;
    Shape {
        system,
        shards: if is_corelane { case.shards.unwrap_or(1) } else { 1 },
        settings: if is_corelane { case.corelane.clone() } else { BTreeMap::new() },
        class: (system == SystemName::Floor).then_some(case.settings.class.unwrap_or(Class::B)),
        alone: (case.settings.scenario == Scenario::Offsets).then(|| case.name.clone()),
        spins: system == SystemName::Floor && case.corelane.get("poll.idle.us").is_some_and(|us| us != "0"),
    }
}

fn line(measured: &Measured) -> String {
    let outcome = &measured.outcome;
    let latency = outcome.latency("acknowledged").or(outcome.latencies.first());
    let p50 = latency.and_then(|latency| latency.percentiles.p50).map_or(String::new(), |us| format!(", p50 {us:.0} us"));
    let p99 = latency.and_then(|latency| latency.percentiles.p99).map_or(String::new(), |us| format!(", p99 {us:.0} us"));
    let behind = if outcome.counts.scheduled > 0 && !outcome.held_rate() { ", fell behind" } else { "" };
    let noise = match (measured.quietness.is_quiet(), measured.repeats) {
        (true, 0) => String::new(),
        (true, repeats) => format!(" (made again {repeats} times)"),
        (false, _) => format!(" DISTURBED: {}", measured.quietness.describe()),
    };
    let more: String = outcome.more.iter().map(|(name, value)| format!(", {name} {value:.0}")).collect();
    format!("{:9.0} records/s{p50}{p99}{behind}{more}{noise}", outcome.records_per_second())
}
