//! `corelane-bench compare`: from arguments to tables, JSON and a page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use corelane_bench::compare::judge::Judgement;
use corelane_bench::compare::locate;
use corelane_bench::compare::rounds::{Measurements, Rounds};
use corelane_bench::compare::suite::{Suite, SystemName};
use corelane_bench::compare::systems::Place;
use corelane_bench::compare::tables::Tables;
use corelane_bench::cores;
use corelane_bench::failure::Failure;
use corelane_bench::machine::{CongestionControl, Machine, check_floor};
use corelane_bench::report;
use corelane_bench::workload::{Class, ClientKind, Scenario};
use serde_json::json;

use crate::arguments::resolve;

#[derive(Args)]
pub struct CompareArguments {
    /// `quick`, `full`, `targets`, or a file.
    #[arg(long, default_value = "full", conflicts_with = "quick")]
    suite: String,
    /// Under five minutes; the same as `--suite quick`.
    #[arg(long)]
    quick: bool,
    /// Only these cases.
    #[arg(long = "case", value_delimiter = ',')]
    cases: Vec<String>,
    /// Only cases of this class.
    #[arg(long)]
    class: Option<Class>,
    /// Only these systems.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<SystemName>,
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each window.
    #[arg(long)]
    duration: Option<f64>,
    #[arg(long)]
    minutes: Option<f64>,
    /// How often a disturbed measurement is made again, at most.
    #[arg(long)]
    repeats: Option<usize>,
    /// `rdkafka` measures what its users see; cases that only the raw client can run are left out.
    #[arg(long)]
    client: Option<ClientKind>,
    /// Where data goes, on the disk that is to be measured; folders in it are made and removed.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Corelane's binary; without it the one beside this program, or one is built.
    #[arg(long)]
    corelane: Option<PathBuf>,
    /// A setting for Corelane in every case; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    corelane_set: Vec<String>,
    /// A folder with Kafka's jars; without it they are fetched by Maven.
    #[arg(long)]
    kafka: Option<PathBuf>,
    /// As in Kafka's own start script.
    #[arg(long, default_value = "1g")]
    kafka_heap: String,
    /// `corelane-perf`, for the floor and the disk's probe; without it the one beside this program.
    #[arg(long)]
    perf: Option<PathBuf>,
    /// Another broker that is already running, as a further system.
    #[arg(long, value_name = "HOST:PORT")]
    against: Option<String>,
    /// Its process, for what it costs.
    #[arg(long, requires = "against")]
    against_pid: Option<u32>,
    /// Without it the one that takes the disk's interrupts.
    #[arg(long)]
    broker_core: Option<usize>,
    /// Without it another one.
    #[arg(long)]
    client_core: Option<usize>,
    /// On both sides.
    #[arg(long, default_value = "cubic")]
    congestion_control: String,
    /// Take the floor for one without comparing it with its parts, which takes some ten seconds.
    #[arg(long)]
    trust_floor: bool,
    /// Keep latencies of every measurement in this folder, as CASE-SYSTEM-ROUND-NAME.hlog and .hgrm.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Write everything here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page here.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the tables here, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Exit with 11 if a target was missed.
    #[arg(long)]
    fail_on_missed: bool,
}

pub fn run(arguments: &CompareArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let mut suite = arguments.suite()?;
    if cfg!(debug_assertions) {
        suite.leaves_out.push("speed of the client: this is a development build of corelane-bench".to_string());
    }
    let place = arguments.place(&suite)?;
    let say = |line: &str| eprintln!("[{:5.1} min] {line}", began.elapsed().as_secs_f64() / 60.0);
    let _congestion_control = match CongestionControl::set(&place.congestion_control) {
        Ok(set) => Some(set),
        Err(why) => {
            suite.leaves_out.push(format!("one congestion control on both sides ({why}): the original has the system's"));
            None
        }
    };
    let mut machine = Machine::look(&place.directory, place.perf.as_deref());
    let mut systems = present(&mut suite, &place);
    if let Some(perf) = place.perf.as_ref().filter(|_| systems.contains(&SystemName::Floor) && !arguments.trust_floor) {
        match check_floor(perf, &place.directory, place.broker_core) {
            Ok(check) => machine.floor_check = Some(check),
            Err(why) => {
                suite.leaves_out.push(format!("the floor: {why}"));
                systems.retain(|system| *system != SystemName::Floor);
                suite.restrict(&systems);
            }
        }
    }
    let measurements = Rounds { suite: &suite, place: &place, systems, say: &say, began, measurements: Measurements::default() }.run();
    let tables = Tables { suite: &suite, place: &place, machine: &machine, measurements: &measurements }.markdown();
    println!("{tables}");
    arguments.write(&suite, &place, &machine, &measurements, &tables)?;
    verdict(&suite, &measurements, arguments.fail_on_missed)
}

/// The systems of the suite that can be started; a reader is told of the others.
fn present(suite: &mut Suite, place: &Place) -> Vec<SystemName> {
    let mut all = suite.systems.clone();
    all.extend(suite.cases.iter().filter_map(|case| case.systems.clone()).flatten());
    all.sort();
    all.dedup();
    let mut there = Vec::new();
    for system in all {
        match place.has(system) {
            Ok(()) => there.push(system),
            Err(why) => suite.leaves_out.push(format!("{}: {why}", system.name())),
        }
    }
    suite.restrict(&there);
    there
}

fn verdict(suite: &Suite, measurements: &Measurements, fail_on_missed: bool) -> Result<(), Failure> {
    let lost = measurements.cases.iter().find_map(|((case, system), rounds)| {
        let verdict = rounds.iter().filter_map(|measured| measured.outcome.verdict).find(|verdict| !verdict.is_whole())?;
        Some(Failure::NotReadBack(format!("{} in {case}: {}", system.name(), verdict.describe())))
    });
    if let Some(failure) = lost {
        return Err(failure);
    }
    if measurements.cases.is_empty() {
        return Err(Failure::Machine(measurements.failures.first().cloned().unwrap_or_else(|| "nothing was measured".to_string())));
    }
    let all: Vec<_> = measurements.cases.values().flatten().collect();
    let disturbed = all.iter().filter(|measured| !measured.quietness.is_quiet()).count();
    if 2 * disturbed > all.len() {
        return Err(Failure::Disturbed(format!("{disturbed} of {} measurements, however often they were made", all.len())));
    }
    let missed = measurements.judge_all(suite).into_iter().filter(|judged| judged.judgement == Judgement::Missed).count();
    if fail_on_missed && missed > 0 {
        return Err(Failure::TargetMissed(format!("{missed} of {}", suite.targets.len())));
    }
    Ok(())
}

impl CompareArguments {
    fn suite(&self) -> Result<Suite, Failure> {
        let mut suite = Suite::load(if self.quick { "quick" } else { &self.suite })?;
        suite.rounds = self.rounds.unwrap_or(suite.rounds).max(1);
        suite.repeats = self.repeats.unwrap_or(suite.repeats);
        suite.minutes = self.minutes.unwrap_or(suite.minutes);
        if self.against.is_some() {
            suite.systems.push(SystemName::Other);
            suite.cases.iter_mut().filter_map(|case| case.systems.as_mut()).for_each(|systems| systems.push(SystemName::Other));
        }
        if !self.systems.is_empty() {
            suite.restrict(&self.systems);
        }
        let wanted = |name: &String| self.cases.is_empty() || self.cases.contains(name);
        // A share's maximum comes with it.
        let kept: Vec<String> = suite
            .cases
            .iter()
            .filter(|case| wanted(&case.name))
            .flat_map(|case| [Some(case.name.clone()), case.share_of.clone()])
            .flatten()
            .collect();
        suite.cases.retain(|case| kept.contains(&case.name) && self.class.is_none_or(|class| case.settings.class == Some(class)));
        if let Some(client) = self.client {
            suite.cases.retain(|case| client == ClientKind::Raw || matches!(case.settings.scenario, Scenario::Produce | Scenario::E2e));
            suite.cases.iter_mut().for_each(|case| case.settings.client = client);
        }
        if let Some(seconds) = self.duration {
            suite.cases.iter_mut().for_each(|case| case.settings.duration_seconds = seconds);
        }
        let names: Vec<String> = suite.cases.iter().map(|case| case.name.clone()).collect();
        suite.targets.retain(|target| names.contains(&target.case));
        if suite.cases.is_empty() || suite.systems.is_empty() {
            return Err(Failure::Settings("no case of the suite is left".to_string()));
        }
        suite.cases.iter().try_for_each(|case| case.settings.check())?;
        Ok(suite)
    }

    fn place(&self, suite: &Suite) -> Result<Place, Failure> {
        let wants = |names: &[SystemName]| {
            let mut all = suite.systems.iter().chain(suite.cases.iter().filter_map(|case| case.systems.as_ref()).flatten());
            all.any(|system| names.contains(system))
        };
        let broker_core = self.broker_core.unwrap_or_else(cores::disk_interrupt_core);
        let other_core = cores::of_process().iter().copied().find(|core| *core != broker_core).unwrap_or(broker_core);
        if let Some(folder) = &self.keep {
            std::fs::create_dir_all(folder).map_err(Failure::machine(folder.display()))?;
        }
        std::fs::create_dir_all(&self.directory).map_err(Failure::machine(self.directory.display()))?;
        Ok(Place {
            directory: self.directory.canonicalize().map_err(Failure::machine(self.directory.display()))?,
            broker_core,
            client_core: self.client_core.unwrap_or(other_core),
            corelane: wants(&[SystemName::Corelane]).then(|| locate::corelane(self.corelane.as_deref())).transpose()?,
            corelane_settings: self.corelane_settings()?,
            kafka: wants(&[SystemName::Kafka, SystemName::KafkaPinned]).then(|| locate::kafka(self.kafka.as_deref())).transpose()?,
            kafka_heap: self.kafka_heap.clone(),
            perf: locate::perf(self.perf.as_deref())?,
            other: self.against.as_deref().map(resolve).transpose()?,
            other_pid: self.against_pid,
            congestion_control: self.congestion_control.clone(),
            keep: self.keep.clone(),
        })
    }

    fn corelane_settings(&self) -> Result<BTreeMap<String, String>, Failure> {
        let pair = |pair: &String| {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| Failure::Settings(format!("--corelane-set {pair}: KEY=VALUE is wanted")))?;
            Ok((key.to_string(), value.to_string()))
        };
        self.corelane_set.iter().map(pair).collect()
    }

    fn write(&self, suite: &Suite, place: &Place, machine: &Machine, measurements: &Measurements, tables: &str) -> Result<(), Failure> {
        let write = |path: &Path, text: &str| std::fs::write(path, text).map_err(Failure::machine(path.display()));
        if let Some(path) = &self.markdown {
            write(path, tables)?;
        }
        if let Some(path) = &self.html {
            write(path, &report::of_comparison(suite, place, machine, measurements).html())?;
        }
        if let Some(path) = &self.json {
            let cases: Vec<_> = measurements
                .cases
                .iter()
                .map(|((case, system), rounds)| {
                    let rounds: Vec<_> = rounds
                        .iter()
                        .map(|measured| {
                            json!({
                                "round": measured.round, "repeats": measured.repeats, "quietness": measured.quietness,
                                "outcome": measured.outcome.to_json(),
                            })
                        })
                        .collect();
                    json!({"case": case, "system": system, "rounds": rounds})
                })
                .collect();
            let all = json!({
                "suite": suite, "place": place, "machine": machine, "rounds": measurements.rounds, "minutes": measurements.minutes,
                "maxima": measurements.maxima, "starts": measurements.starts, "commands": measurements.commands,
                "failures": measurements.failures, "targets": measurements.judge_all(suite), "cases": cases,
            });
            write(path, &all.to_string())?;
        }
        Ok(())
    }
}
