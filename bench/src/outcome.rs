//! What a run has found: everything that tables, JSON and the HTML page are made from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cost::Cost;
use crate::failure::Failure;
use crate::load::{ClientLag, Counts};
use crate::recorder::Latencies;
use crate::verify::Verdict;
use crate::workload::Workload;

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub workload: Workload,
    pub client: ClientFacts,
    pub seconds: f64,
    /// Whose acknowledgement came in the window; of `consume`, read.
    pub records: u64,
    pub bytes: u64,
    pub counts: Counts,
    pub client_lag: ClientLag,
    pub latencies: Vec<Latencies>,
    pub costs: Vec<Cost>,
    /// What only some scenarios have: name with unit, value.
    pub more: BTreeMap<String, f64>,
    pub verdict: Option<Verdict>,
    /// Why nothing was read back.
    pub not_read_back: Option<String>,
    /// What went wrong; the figures are of the part before it.
    #[serde(serialize_with = "as_line")]
    pub failure: Option<Failure>,
    /// Whether the run ended before its time.
    pub partial: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct ClientFacts {
    pub name: String,
    pub version: String,
    pub core: Option<usize>,
    pub congestion_control: Option<String>,
}

fn as_line<S: serde::Serializer>(failure: &Option<Failure>, serializer: S) -> Result<S::Ok, S::Error> {
    failure.as_ref().map(Failure::to_string).serialize(serializer)
}

impl Outcome {
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds.max(1e-9)
    }

    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds.max(1e-9)
    }

    pub fn latency(&self, name: &str) -> Option<&Latencies> {
        self.latencies.iter().find(|latencies| latencies.name == name)
    }

    /// Whether all that was due was acknowledged in its window.
    pub fn held_rate(&self) -> bool {
        self.counts.scheduled > 0 && self.counts.acknowledged as f64 >= 0.999 * self.counts.scheduled as f64
    }

    /// A figure by the name that suites and tables use: `rate`, `mb_per_second`, `held`, `cpu_per_million`, `records_per_cpu_second`, `resident_mb`, `resident_max_mb`,
    /// `written_per_byte`, `LATENCY.PERCENTILE` in microseconds, or one of the scenario's own.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let cost = self.costs.first();
        match name {
            "rate" => Some(self.records_per_second()),
            "mb_per_second" => Some(self.megabytes_per_second()),
            "held" => (self.counts.scheduled > 0).then(|| self.counts.acknowledged as f64 / self.counts.scheduled as f64),
            "cpu_per_million" => cost?.cpu_seconds_per_million_records,
            "records_per_cpu_second" => cost?.cpu_seconds_per_million_records.filter(|cpu| *cpu > 0.0).map(|cpu| 1e6 / cpu),
            "resident_mb" => Some(cost?.resident_bytes as f64 / 1e6),
            "resident_max_mb" => Some(cost?.resident_bytes_max as f64 / 1e6),
            "written_per_byte" => cost?.written_per_byte,
            "settled_seconds" => self.settled_seconds(),
            "context_switches_per_record" => (self.records > 0).then_some(cost?.context_switches as f64 / self.records as f64),
            _ => match name.split_once('.').and_then(|(latency, percentile)| Some((self.latency(latency)?, percentile))) {
                Some((latencies, percentile)) => latencies.percentiles.get(percentile),
                None => self.more.get(name).copied(),
            },
        }
    }

    /// Seconds of the window after which the median of every second was about what it is in the second half.
    fn settled_seconds(&self) -> Option<f64> {
        let medians: Vec<f64> = self.latency("acknowledged")?.over_time.iter().map(|interval| interval.p50).collect::<Option<_>>()?;
        let mut later = medians[medians.len() / 2..].to_vec();
        later.sort_by(f64::total_cmp);
        let settled = *later.get(later.len() / 2)? * 1.15;
        Some(medians.iter().rposition(|median| *median > settled).map_or(0.0, |last| last as f64 + 1.0))
    }

    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).expect("an outcome is a tree of values");
        json["records_per_second"] = self.records_per_second().into();
        json["held_rate"] = self.held_rate().into();
        // The run's main figure, for those who want no other.
        json["latency_us"] =
            serde_json::to_value(self.latencies.first().map(|latencies| &latencies.percentiles)).expect("percentiles are numbers");
        json
    }
}
