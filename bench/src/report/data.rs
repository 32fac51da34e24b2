//! From measurements to what the page shows.

use serde_json::json;

use super::{CaseData, LatencyData, Page, Series};
use crate::compare::rounds::{Measured, Measurements};
use crate::compare::suite::{Case, Suite, SystemName};
use crate::compare::systems::Place;
use crate::machine::Machine;
use crate::outcome::Outcome;
use crate::percentile::{curve, histogram};
use crate::workload::{Class, Rate, Workload};

/// Figures of the page's tables besides percentiles.
const FIGURES: [&str; 8] =
    ["rate", "mb_per_second", "held", "cpu_per_million", "resident_max_mb", "written_per_byte", "context_switches_per_record", "floor"];
const PERCENTILES: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

pub fn of_comparison(suite: &Suite, place: &Place, machine: &Machine, measurements: &Measurements) -> Page {
    let mut facts = machine.lines.clone();
    facts.push(format!(
        "{} rounds in {:.1} minutes; order rotated, fresh data each round; brokers on core {}, the client spinning on core {}; {} on both sides",
        measurements.rounds, measurements.minutes, place.broker_core, place.client_core, place.congestion_control
    ));
    if let Some(check) = &machine.floor_check {
        let us = |name: &str| check[name].as_f64().unwrap_or(0.0);
        let (floor, disk, net) = (us("floor_p50_us"), us("disk_p50_us"), us("net_p50_us"));
        facts.push(format!(
            "the floor holds: p50 {floor:.0} us at 1,000 a second; a durable write by itself takes {disk:.0}, an exchange over TCP {net:.0}"
        ));
    }
    if let Some(why) = &machine.disk_probe_missing {
        facts.push(format!("no disk probe: {why}"));
    }
    let starts = measurements.starts.keys().map(|system| {
        let figure = |name: &str| measurements.figure("", *system, &format!("start.{name}")).map(|figure| figure.median);
        json!({
            "system": system.name(), "listening_ms": figure("listening_ms"), "first_ack_ms": figure("first_ack_ms"),
            "resident_mb": figure("resident_mb"), "idle_percent": figure("idle_cpu").map(|share| share * 100.0),
        })
    });
    Page {
        title: format!("corelane-bench: {}", suite.name),
        description: suite.description.clone(),
        facts,
        leaves_out: suite.leaves_out.clone(),
        failures: measurements.failures.clone(),
        targets: measurements.judge_all(suite),
        cases: suite.cases.iter().filter_map(|case| of_case(suite, case, measurements)).collect(),
        starts: starts.collect(),
        commands: measurements.commands.iter().map(|(system, command)| (system.name().to_string(), command.clone())).collect(),
        disk_probe: machine.disk_probe.clone(),
    }
}

fn of_case(suite: &Suite, case: &Case, measurements: &Measurements) -> Option<CaseData> {
    let series: Vec<Series> = suite
        .systems_of(case)
        .iter()
        .filter_map(|system| {
            let rounds = measurements.cases.get(&(case.name.clone(), *system))?;
            let figure = |metric: &str| measurements.figure(&case.name, *system, metric).map(|figure| figure.median);
            let floor = |latency: &str| {
                let ratio = measurements.ratio(&case.name, &format!("{latency}.p50"), *system, SystemName::Floor);
                ratio.filter(|_| *system != SystemName::Floor).map(|ratio| ratio.median)
            };
            Some(series(system.name(), rounds, figure, floor))
        })
        .collect();
    // A share of the maximum has become a number only when it ran.
    let ran = measurements.cases.iter().find(|((name, _), _)| *name == case.name).and_then(|(_, rounds)| rounds.first());
    let workload = ran.map_or(&case.settings, |measured| &measured.outcome.workload);
    (!series.is_empty()).then(|| case_data(&case.name, workload, series))
}

/// A page of one run.
pub fn of_run(outcome: &Outcome, machine: &Machine) -> Page {
    let workload = &outcome.workload;
    let measured = Measured { round: 1, outcome: outcome.clone(), quietness: Default::default(), repeats: 0 };
    let series = series("broker", std::slice::from_ref(&measured), |metric| outcome.metric(metric), |_| None);
    let name = if workload.name.is_empty() { workload.scenario.name() } else { &workload.name };
    Page {
        title: format!("corelane-bench: {name}"),
        description: workload.description.clone(),
        facts: machine.lines.clone(),
        leaves_out: vec!["one run beside nothing: compare systems with `corelane-bench compare`".to_string()],
        failures: outcome.failure.iter().map(ToString::to_string).collect(),
        targets: Vec::new(),
        cases: vec![case_data(name, workload, vec![series])],
        starts: Vec::new(),
        commands: Vec::new(),
        disk_probe: None,
    }
}

fn case_data(name: &str, workload: &Workload, series: Vec<Series>) -> CaseData {
    CaseData {
        name: name.to_string(),
        class: workload.class.map_or("no class: as configured", Class::describe).to_string(),
        describe: workload.describe(),
        settings: serde_json::to_value(workload).expect("a workload is a tree of values"),
        rate: match workload.rate {
            Rate::PerSecond(rate) => Some(rate),
            Rate::Max | Rate::ShareOfMax(_) => None,
        },
        series,
    }
}

fn series(system: &str, rounds: &[Measured], figure: impl Fn(&str) -> Option<f64>, floor: impl Fn(&str) -> Option<f64>) -> Series {
    let middle = &rounds[rounds.len() / 2].outcome;
    let mut figures: Vec<(String, Option<f64>)> = Vec::new();
    let main = middle.latencies.first().map_or("acknowledged", |latencies| latencies.name.as_str());
    for name in FIGURES {
        figures.push((name.to_string(), if name == "floor" { floor(main) } else { figure(name) }));
    }
    let mut latencies = Vec::new();
    for latency in middle.latencies.iter().filter(|latencies| latencies.percentiles.samples > 0) {
        for percentile in PERCENTILES {
            let metric = format!("{}.{percentile}", latency.name);
            let value = figure(&metric);
            figures.push((metric, value));
        }
        let mut together = histogram();
        for measured in rounds {
            if let Some(latencies) = measured.outcome.latency(&latency.name) {
                together.add(&latencies.histogram).expect("all have the same bounds");
            }
        }
        latencies.push(LatencyData {
            name: latency.name.clone(),
            closed_loop: latency.loop_kind == crate::recorder::LoopKind::Closed,
            curve: curve(&together),
            over_time: latency.over_time.clone(),
        });
    }
    Series {
        system: system.to_string(),
        client: format!("{} {}", middle.client.name, middle.client.version),
        disturbed: rounds.iter().any(|measured| !measured.quietness.is_quiet())
            && rounds.iter().any(|measured| measured.quietness.gaps > 0),
        figures,
        latencies,
    }
}
