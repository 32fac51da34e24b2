//! The result of a comparison in Markdown: readable on a terminal, and as it is in a file.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::judge::{Figure, Judgement};
use super::rounds::{Measured, Measurements};
use super::suite::{Case, Suite, SystemName};
use super::systems::Place;
use crate::machine::Machine;
use crate::table::{grouped, microseconds};
use crate::workload::{Class, Rate, Scenario};

/// Latencies that a table shows, where a scenario has them.
const SHOWN: [&str; 7] = ["acknowledged", "end to end", "connected", "fetched", "committed", "ended", "heartbeat"];

pub struct Tables<'a> {
    pub suite: &'a Suite,
    pub place: &'a Place,
    pub machine: &'a Machine,
    pub measurements: &'a Measurements,
}

impl Tables<'_> {
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.lost(&mut text);
        self.head(&mut text);
        for class in [Some(Class::B), Some(Class::A), None] {
            self.class(&mut text, class);
        }
        self.starts(&mut text);
        self.targets(&mut text);
        self.foot(&mut text);
        text
    }

    /// A broker that loses a record has no number.
    fn lost(&self, text: &mut String) {
        for ((case, system), rounds) in &self.measurements.cases {
            for measured in rounds {
                if let Some(verdict) = measured.outcome.verdict.filter(|verdict| !verdict.is_whole()) {
                    let _ = writeln!(
                        text,
                        "**READ BACK FAILED: {} in {case}, round {}: {}**\n",
                        system.name(),
                        measured.round,
                        verdict.describe()
                    );
                }
            }
        }
    }

    fn head(&self, text: &mut String) {
        let (suite, place) = (self.suite, self.place);
        let _ = writeln!(text, "## {}\n\n{}\n", suite.name, suite.description);
        for line in &self.machine.lines {
            let _ = writeln!(text, "- {line}");
        }
        match (&self.machine.disk_probe, &self.machine.disk_probe_missing) {
            (Some(probe), _) => {
                let verdict = probe.get("verdict").map_or_else(|| "in the JSON and the HTML page".to_string(), verdict_line);
                let _ = writeln!(text, "- disk probe: {verdict}");
            }
            (None, why) => {
                let _ = writeln!(text, "- no disk probe: {}", why.as_deref().unwrap_or("not asked for"));
            }
        }
        let _ = writeln!(
            text,
            "- brokers on core {} (the disk's interrupts), the client spinning on core {}; {} on both sides; {} rounds in {:.1} minutes, order rotated, fresh data each",
            place.broker_core, place.client_core, place.congestion_control, self.measurements.rounds, self.measurements.minutes
        );
        if let Some(check) = &self.machine.floor_check {
            let us = |name: &str| check[name].as_f64().unwrap_or(0.0);
            let _ = writeln!(
                text,
                "- the floor holds: p50 {:.0} us at 1,000 a second; a durable write by itself takes {:.0}, an exchange over TCP {:.0}",
                us("floor_p50_us"),
                us("disk_p50_us"),
                us("net_p50_us")
            );
        }
        let (void, disturbed) = self.noise();
        let _ = writeln!(
            text,
            "- the control saw {void} disturbed measurements, which were made again; {disturbed} stayed disturbed and are marked *"
        );
        let _ = writeln!(
            text,
            "- latency counts from the scheduled time; medians over rounds; a figure in parentheses is of all rounds' samples together"
        );
        for line in &suite.leaves_out {
            let _ = writeln!(text, "- left out: {line}");
        }
        let _ = writeln!(text);
    }

    fn noise(&self) -> (usize, usize) {
        let all: Vec<&Measured> = self.measurements.cases.values().flatten().collect();
        (all.iter().map(|measured| measured.repeats).sum(), all.iter().filter(|measured| !measured.quietness.is_quiet()).count())
    }

    fn class(&self, text: &mut String, class: Option<Class>) {
        let cases: Vec<&Case> = self.suite.cases.iter().filter(|case| case.settings.class == class && self.is_measured(case)).collect();
        if cases.is_empty() {
            return;
        }
        let _ = writeln!(text, "### {}\n", class.map_or("no class: each as it is configured", Class::describe));
        let _ = writeln!(
            text,
            "| case | system | records/s | held | p50 us | p90 | p99 | p99.9 | max | p50 / floor's | CPU-s per million | MB resident, most | written per byte |"
        );
        let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        cases.iter().for_each(|case| self.case(text, case));
        let _ = writeln!(text, "\nCases:\n");
        for case in &cases {
            let _ = writeln!(text, "- {}: {}{}", case.name, case.settings.describe(), self.share(case));
        }
        self.own_figures(text, &cases);
        self.ratios(text, &cases);
    }

    /// What coordinators are asked that is neither a latency nor a rate.
    fn own_figures(&self, text: &mut String, cases: &[&Case]) {
        let mut rows = Vec::new();
        for case in cases.iter().filter(|case| has_own_figures(case)) {
            for system in self.suite.systems_of(case) {
                let rounds = self.measurements.cases.get(&(case.name.clone(), *system));
                let names: BTreeSet<&String> = rounds.into_iter().flatten().flat_map(|measured| measured.outcome.more.keys()).collect();
                for name in names {
                    let Some(figure) = self.measurements.figure(&case.name, *system, name) else { continue };
                    rows.push(format!(
                        "| {} | {} | {name} | {:.1} | {:.1} to {:.1} |",
                        case.name,
                        system.name(),
                        figure.median,
                        figure.least,
                        figure.most
                    ));
                }
            }
        }
        if !rows.is_empty() {
            let _ = writeln!(text, "\n| case | system | figure | median | round by round |\n|---|---|---|---|---|\n{}", rows.join("\n"));
        }
    }

    fn share(&self, case: &Case) -> String {
        let most = case.share_of.as_ref().and_then(|of| self.measurements.maxima.get(of));
        match (case.settings.rate, most) {
            (Rate::ShareOfMax(share), Some(most)) => {
                format!(" (of {} records/s: {})", grouped(*most as u64), grouped((most * f64::from(share) / 100.0) as u64))
            }
            _ => String::new(),
        }
    }

    fn is_measured(&self, case: &Case) -> bool {
        self.measurements.cases.keys().any(|(name, _)| *name == case.name)
    }

    fn case(&self, text: &mut String, case: &Case) {
        for latency in SHOWN {
            for system in self.suite.systems_of(case) {
                let Some(rounds) = self.measurements.cases.get(&(case.name.clone(), *system)) else { continue };
                let has = rounds
                    .iter()
                    .any(|measured| measured.outcome.latency(latency).is_some_and(|latencies| latencies.percentiles.samples > 0));
                if has && (latency != "fetched" || case.settings.scenario == Scenario::Consume) {
                    self.row(text, case, *system, latency, rounds);
                }
            }
        }
    }

    fn row(&self, text: &mut String, case: &Case, system: SystemName, latency: &str, rounds: &[Measured]) {
        let figure = |metric: &str| self.measurements.figure(&case.name, system, metric);
        let number = |metric: &str, digits: usize| figure(metric).map_or("-".to_string(), |figure| format!("{:.digits$}", figure.median));
        let percentile = |name: &str| {
            figure(&format!("{latency}.{name}")).map_or("-".to_string(), |figure| bracketed(figure, microseconds(figure.median)))
        };
        let label = if latency == "acknowledged" { case.name.clone() } else { format!("{} ({latency})", case.name) };
        let disturbed = if rounds.iter().any(|measured| !measured.quietness.is_quiet()) { "*" } else { "" };
        let held = figure("held").map_or("-".to_string(), |held| format!("{:.0} %", held.median * 100.0));
        let floor = self.measurements.ratio(&case.name, &format!("{latency}.p50"), system, SystemName::Floor);
        let floor = floor.filter(|_| system != SystemName::Floor).map_or("-".to_string(), |ratio| format!("{:.2}", ratio.median));
        let rate = figure("rate").map_or("-".to_string(), |rate| grouped(rate.median as u64));
        let _ = writeln!(
            text,
            "| {label} | {}{disturbed} | {rate} | {held} | {} | {} | {} | {} | {} | {floor} | {} | {} | {} |",
            system.name(),
            percentile("p50"),
            percentile("p90"),
            percentile("p99"),
            percentile("p99.9"),
            percentile("max"),
            number("cpu_per_million", 2),
            number("resident_max_mb", 0),
            number("written_per_byte", 2)
        );
    }

    fn ratios(&self, text: &mut String, cases: &[&Case]) {
        let mut rows = Vec::new();
        for case in cases {
            let kafka = self.measurements.better_kafka(self.suite, &case.name);
            for beside in kafka.into_iter().chain([SystemName::Other]) {
                for metric in shown_ratios(case) {
                    if let Some(ratio) = self.measurements.ratio(&case.name, metric, SystemName::Corelane, beside) {
                        rows.push(format!(
                            "| {} | {metric} | {} | {} | {} |",
                            case.name,
                            beside.name(),
                            times(ratio.median),
                            spread(ratio)
                        ));
                    }
                }
            }
        }
        if !rows.is_empty() {
            let _ = writeln!(
                text,
                "\nCorelane's figure over the other's (of the original in the better of its two ways to run), ratio of medians:\n\n| case | figure | beside | ratio | round by round |"
            );
            let _ = writeln!(text, "|---|---|---|---|---|\n{}", rows.join("\n"));
        }
        let _ = writeln!(text);
    }

    fn starts(&self, text: &mut String) {
        if self.measurements.starts.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "### Start and rest\n\n| system | takes connections, ms | first durable acknowledgement, ms | MB resident after it | idle, % of a core |"
        );
        let _ = writeln!(text, "|---|---|---|---|---|");
        for system in self.measurements.starts.keys() {
            let figure = |name: &str| self.measurements.figure("", *system, &format!("start.{name}")).map_or(0.0, |figure| figure.median);
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.0} | {:.2} |",
                system.name(),
                figure("listening_ms"),
                figure("first_ack_ms"),
                figure("resident_mb"),
                figure("idle_cpu") * 100.0
            );
        }
        let _ = writeln!(text, "\nFrom exec, on an empty directory, with a topic made in between.\n");
    }

    fn targets(&self, text: &mut String) {
        if self.suite.targets.is_empty() {
            return;
        }
        let _ = writeln!(text, "### Targets\n\n| target | figure | is | wanted | |\n|---|---|---|---|---|");
        for judged in self.measurements.judge_all(self.suite) {
            let value = judged
                .value
                .map_or("-".to_string(), |value| if value.abs() < 10.0 { format!("{value:.3}") } else { format!("{value:.0}") });
            let judgement = match judged.judgement {
                Judgement::Met => "met",
                Judgement::Missed => "**missed**",
                Judgement::NotMeasured => "not measured",
            };
            let _ = writeln!(text, "| {} | {} | {value} | {} | {judgement} |", judged.row, judged.figure, judged.limit);
        }
        let _ = writeln!(text);
    }

    fn foot(&self, text: &mut String) {
        let _ = writeln!(text, "### Commands\n");
        for (system, command) in &self.measurements.commands {
            let _ = writeln!(text, "- {}: `{command}`", system.name());
        }
        if !self.measurements.failures.is_empty() {
            let _ = writeln!(text, "\n### What went wrong\n");
            for why in &self.measurements.failures {
                let _ = writeln!(text, "- {why}");
            }
        }
    }
}

/// What a case is about: how much, where it saturates; how long, where it has a schedule.
fn shown_ratios(case: &Case) -> &'static [&'static str] {
    match (case.settings.scenario, case.settings.rate) {
        (Scenario::Consume, _) => &["rate", "cpu_per_million"],
        (Scenario::Groups, _) => &[
            "forming_ms",
            "rebalance_settled_ms",
            "rebalance_cpu_ms",
            "heartbeat.p50",
            "heartbeat.p99",
            "committed.p50",
            "committed.p99",
            "cpu_per_million",
        ],
        (Scenario::Transactions, Rate::Max) => &["transactions_per_second", "records_per_cpu_second"],
        (Scenario::Transactions, _) => &["committed.p50", "committed.p99", "ended.p50", "ended.p99", "cpu_per_million"],
        (Scenario::Offsets, _) => &["restart_to_loaded_ms", "listening_to_loaded_ms", "commit_seconds"],
        (_, Rate::Max) => &["rate", "cpu_per_million", "records_per_cpu_second"],
        _ => &["acknowledged.p50", "acknowledged.p99", "acknowledged.p99.9", "end to end.p50", "end to end.p99", "cpu_per_million"],
    }
}

fn has_own_figures(case: &Case) -> bool {
    matches!(case.settings.scenario, Scenario::Groups | Scenario::Transactions | Scenario::Offsets)
}

fn verdict_line(verdict: &serde_json::Value) -> String {
    match verdict {
        serde_json::Value::String(line) => line.clone(),
        serde_json::Value::Array(lines) => lines.iter().filter_map(|line| line.as_str()).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

fn bracketed(figure: Figure, text: String) -> String {
    if figure.of_all_rounds { format!("({text})") } else { text }
}

/// A ratio below one reads better as a fraction.
fn times(ratio: f64) -> String {
    if ratio >= 1.0 || ratio <= 0.0 { format!("{ratio:.2}") } else { format!("1/{:.2}", 1.0 / ratio) }
}

fn spread(ratio: Figure) -> String {
    if ratio.of_all_rounds { "all rounds together".to_string() } else { format!("{} to {}", times(ratio.least), times(ratio.most)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::samples::{machine, measured, measurements, place, suite};
    use crate::verify::Verdict;
    use crate::workload::Workload;

    fn markdown(suite: &Suite, measurements: &Measurements) -> String {
        Tables { suite, place: &place(), machine: &machine(), measurements }.markdown()
    }

    #[test]
    fn every_latency_shows_its_distance_to_the_floor_and_classes_never_share_a_table() {
        let mut suite = suite();
        suite.leaves_out.push("most of it".to_string());
        suite.cases[0].settings = Workload { class: Some(Class::B), ..suite.cases[0].settings.clone() };
        suite.cases[1].settings = Workload { class: Some(Class::A), ..suite.cases[1].settings.clone() };
        let mut measurements = measurements();
        let floor = (1..=3).map(|round| measured(round, 20_000, 100)).collect();
        measurements.cases.insert(("one".to_string(), SystemName::Floor), floor);
        let text = markdown(&suite, &measurements);
        let (b, a) = (text.find("### class (b)").expect("a table"), text.find("### class (a)").expect("a table"));
        assert!(b < text.find("| one | corelane |").expect("a row") && text.find("| most | kafka |").expect("a row") > a, "{text}");
        // 250 us over 100, three rounds of 20,000 samples together for what one lacks, and a quarter of the original's.
        assert!(text.contains("| one | corelane | 20,000 | - | 250 | 250 | 250 | (300) | 300 | 2.50 |"), "{text}");
        assert!(text.contains("| one | acknowledged.p50 | kafka | 1/4.00 | 1/6.00 to 1/3.00 |"), "{text}");
        assert!(text.contains("- left out: most of it") && text.contains("- no disk probe: there is none in a test"), "{text}");
    }

    #[test]
    fn what_was_lost_comes_before_anything_else_and_what_was_disturbed_is_marked() {
        let mut measurements = measurements();
        let rounds = measurements.cases.get_mut(&("one".to_string(), SystemName::Kafka)).expect("measured");
        rounds[1].outcome.verdict = Some(Verdict { acknowledged: 9, missing: 1, ..Verdict::default() });
        rounds[2].quietness.late_gaps = 5;
        let text = markdown(&suite(), &measurements);
        assert!(text.starts_with("**READ BACK FAILED: kafka in one, round 2: 1 missing"), "{text}");
        assert!(text.contains("| one | kafka* |") && text.contains("| one | corelane |"), "{text}");
    }
}
