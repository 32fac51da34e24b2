//! What the measurements say: medians over rounds with their spread, ratios of medians, and whether targets were met. Pure.

use serde::Serialize;

use super::rounds::Measurements;
use super::suite::{Suite, SystemName, Target};
use crate::percentile::{Percentiles, histogram};
use crate::workload::Rate;

/// A figure over rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// No single round had samples enough: it is of all rounds' samples together.
    pub of_all_rounds: bool,
}

impl Figure {
    fn of(mut values: Vec<f64>) -> Option<Figure> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Figure { median, least, most, of_all_rounds: false })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    Met,
    Missed,
    NotMeasured,
}

/// A target and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    pub row: String,
    /// How the value came about, in words.
    pub figure: String,
    pub value: Option<f64>,
    pub limit: String,
    pub judgement: Judgement,
}

impl Measurements {
    /// A metric of a case on a system, or with `start.` before its name one of the system's starts.
    pub fn figure(&self, case: &str, system: SystemName, metric: &str) -> Option<Figure> {
        if let Some(name) = metric.strip_prefix("start.") {
            let values = self.starts.get(&system)?.iter().filter_map(|start| start.metric(name)).collect();
            return Figure::of(values);
        }
        let rounds = self.cases.get(&(case.to_string(), system))?;
        let values: Vec<f64> = rounds.iter().filter_map(|measured| measured.outcome.metric(metric)).collect();
        if values.len() == rounds.len() {
            // The worst of all rounds is the worst there was.
            return Figure::of(values)
                .map(|figure| if metric.ends_with(".max") { Figure { median: figure.most, ..figure } } else { figure });
        }
        // Too few samples in a round may be enough in all of them.
        let (latency, percentile) = metric.split_once('.')?;
        let mut together = histogram();
        for measured in rounds {
            together.add(&measured.outcome.latency(latency)?.histogram).ok()?;
        }
        let value = Percentiles::of(&together).get(percentile)?;
        Some(Figure { median: value, least: value, most: value, of_all_rounds: true })
    }

    /// One system's median over another's; the spread is that of the ratios round by round.
    pub fn ratio(&self, case: &str, metric: &str, over: SystemName, under: SystemName) -> Option<Figure> {
        let (mine, theirs) = (self.figure(case, over, metric)?, self.figure(case, under, metric)?);
        if theirs.median <= 0.0 {
            return None;
        }
        let by_round = |system| {
            let rounds = self.cases.get(&(case.to_string(), system)).map(Vec::as_slice).unwrap_or_default();
            rounds.iter().filter_map(|measured| Some((measured.round, measured.outcome.metric(metric)?))).collect::<Vec<_>>()
        };
        let (mine_by_round, theirs_by_round) = (by_round(over), by_round(under));
        let ratios = mine_by_round.iter().filter_map(|(round, value)| {
            let (_, other) = theirs_by_round.iter().find(|(other, _)| other == round)?;
            (*other > 0.0).then_some(value / other)
        });
        let median = mine.median / theirs.median;
        let spread = Figure::of(ratios.collect()).unwrap_or(Figure { median, least: median, most: median, of_all_rounds: true });
        Some(Figure { median, least: spread.least, most: spread.most, of_all_rounds: mine.of_all_rounds || theirs.of_all_rounds })
    }

    /// The original free on all cores or on one: the one that does better, by the case's own measure.
    pub fn better_kafka(&self, suite: &Suite, case: &str) -> Option<SystemName> {
        let saturates = suite.cases.iter().any(|known| known.name == case && known.settings.rate == Rate::Max);
        // The higher the better.
        let score = |system| match saturates {
            true => self.figure(case, system, "rate").map(|rate| rate.median),
            false => {
                let latency = ["committed.p99", "committed.p50", "acknowledged.p99", "acknowledged.p50"]
                    .iter()
                    .find_map(|metric| self.figure(case, system, metric));
                latency.map(|latency| -latency.median).or_else(|| self.figure(case, system, "rate").map(|rate| rate.median))
            }
        };
        let there = [SystemName::Kafka, SystemName::KafkaPinned].into_iter().filter_map(|system| Some((system, score(system)?)));
        there.max_by(|one, other| one.1.total_cmp(&other.1)).map(|(system, _)| system)
    }

    /// In `times = "kafka"`, the better of the two.
    fn meant(&self, suite: &Suite, case: &str, system: SystemName) -> SystemName {
        if system == SystemName::Kafka { self.better_kafka(suite, case).unwrap_or(system) } else { system }
    }

    pub fn judge(&self, suite: &Suite, target: &Target) -> Judged {
        let system = target.system.unwrap_or(SystemName::Corelane);
        let mut figure = format!("{} of {} in {}", target.metric, system.name(), target.case);
        let mut value = self.figure(&target.case, system, &target.metric).map(|figure| figure.median);
        if let Some(other) = &target.minus_case {
            figure += &format!(" minus in {other}");
            value = value.and_then(|value| Some(value - self.figure(other, system, &target.metric)?.median));
        }
        if let Some(base) = target.times {
            let base = self.meant(suite, &target.case, base);
            figure += &format!(", times {}'s", base.name());
            value = self.ratio(&target.case, &target.metric, system, base).map(|ratio| ratio.median);
        }
        let limit = match (target.at_least, target.at_most) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => "none".to_string(),
        };
        let judgement = match value {
            None => Judgement::NotMeasured,
            Some(value) if target.at_most.is_some_and(|most| value > most) || target.at_least.is_some_and(|least| value < least) => {
                Judgement::Missed
            }
            Some(_) => Judgement::Met,
        };
        Judged { row: target.row.clone(), figure, value, limit, judgement }
    }

    pub fn judge_all(&self, suite: &Suite) -> Vec<Judged> {
        suite.targets.iter().map(|target| self.judge(suite, target)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::samples::{measurements, suite};

    fn close(value: f64, wanted: f64) -> bool {
        (value / wanted - 1.0).abs() < 0.002
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_spread_is_of_rounds() {
        let ratio = measurements().ratio("one", "acknowledged.p50", SystemName::Corelane, SystemName::Kafka).expect("both were measured");
        assert!(close(ratio.median, 0.25) && close(ratio.least, 250.0 / 1_500.0) && close(ratio.most, 300.0 / 900.0), "{ratio:?}");
    }

    #[test]
    fn rounds_together_have_the_samples_that_one_lacks() {
        let measurements = measurements();
        let p99_9 = measurements.figure("one", SystemName::Corelane, "acknowledged.p99.9").expect("60,000 samples");
        assert!(p99_9.of_all_rounds && close(p99_9.median, 300.0), "{p99_9:?}");
        assert_eq!(measurements.figure("one", SystemName::Corelane, "acknowledged.p99.99"), None);
        assert_eq!(measurements.figure("one", SystemName::Floor, "rate"), None);
    }

    #[test]
    fn the_better_of_two_ways_to_run_the_original_counts() {
        let measurements = measurements();
        assert_eq!(measurements.better_kafka(&suite(), "one"), Some(SystemName::Kafka));
        assert_eq!(measurements.better_kafka(&suite(), "most"), Some(SystemName::KafkaPinned));
    }

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let (measurements, suite) = (measurements(), suite());
        let target = |times, at_most| Target {
            row: "r".to_string(),
            case: "one".to_string(),
            metric: "acknowledged.p50".to_string(),
            times,
            at_most: Some(at_most),
            ..Target::default()
        };
        let judge = |target: &Target| measurements.judge(&suite, target).judgement;
        assert_eq!(judge(&target(Some(SystemName::Kafka), 0.26)), Judgement::Met);
        assert_eq!(judge(&target(Some(SystemName::Kafka), 0.24)), Judgement::Missed);
        assert_eq!(judge(&target(Some(SystemName::Floor), 1.5)), Judgement::NotMeasured);
        assert_eq!(judge(&target(None, 251.0)), Judgement::Met);
        let least = Target { at_most: None, at_least: Some(300.0), ..target(None, 0.0) };
        assert_eq!(judge(&least), Judgement::Missed);
    }
}
