//! The result of a run as a table or as JSON, with the settings that it was made with.

use std::io;
use std::io::Write;

use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::json;

use crate::ProduceArguments;
use crate::cost::Cost;
use crate::produce::Window;
use crate::read_back::Verdict;

/// A percentile and the samples without which it says nothing.
const PERCENTILES: [(&str, f64, u64); 5] =
    [("p50", 50.0, 100), ("p90", 90.0, 1_000), ("p99", 99.0, 5_000), ("p99.9", 99.9, 50_000), ("p99.99", 99.99, 500_000)];

pub struct Summary<'a> {
    pub arguments: &'a ProduceArguments,
    pub window: &'a Window,
    pub cost: Option<&'a Cost>,
    pub verdict: &'a Verdict,
}

impl Summary<'_> {
    pub fn print(&self) -> io::Result<()> {
        if !self.verdict.is_whole() {
            println!(
                "READ BACK FAILED: {} missing, {} changed, {} misplaced",
                self.verdict.missing, self.verdict.changed, self.verdict.misplaced
            );
        }
        self.keep()?;
        if self.arguments.json {
            self.print_json()
        } else {
            self.print_table()
        }
        Ok(())
    }

    fn percentiles(&self) -> Vec<(&'static str, Option<f64>)> {
        let samples = self.window.latency.len();
        let value = |percentile| self.window.latency.value_at_percentile(percentile) as f64 / 1_000.0;
        let mut rows: Vec<(&str, Option<f64>)> =
            PERCENTILES.iter().map(|(name, percentile, needed)| (*name, (samples >= *needed).then(|| value(*percentile)))).collect();
        rows.push(("max", Some(self.window.latency.max() as f64 / 1_000.0)));
        rows
    }

    fn print_table(&self) {
        let arguments = self.arguments;
        let window = self.window;
        let load = if arguments.rate == 0 {
            format!("saturating (closed loop, {} requests in flight)", arguments.in_flight)
        } else {
            format!("{} records/s (open loop)", arguments.rate)
        };
        println!(
            "produce {load}, {} B x {} per request, {} partitions, acks {}, topic settings [{}]",
            arguments.record_bytes,
            arguments.records_per_request,
            arguments.partitions,
            arguments.acks,
            arguments.topic_configs.join(" ")
        );
        println!(
            "  {:.0} records/s, {:.1} MB/s acknowledged in {:.1} s; {} failed; {} read back",
            self.rate(),
            self.megabytes(),
            window.seconds,
            window.failed,
            self.verdict.read
        );
        let row: Vec<String> = self
            .percentiles()
            .into_iter()
            .map(|(name, value)| value.map_or(format!("{name} (too few samples)"), |value| format!("{name} {value:.0} us")))
            .collect();
        println!("  latency: {}", row.join("  "));
        if let Some(cost) = self.cost {
            println!(
                "  cost: {:.2} CPU-s per million records, {:.0} MB resident, {:.2} B written per byte, {} context switches",
                cost.cpu_seconds * 1e6 / window.records.max(1) as f64,
                cost.resident_bytes as f64 / 1e6,
                cost.written_bytes as f64 / window.bytes.max(1) as f64,
                cost.context_switches
            );
        }
    }

    fn print_json(&self) {
        let percentiles: serde_json::Map<String, serde_json::Value> =
            self.percentiles().into_iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        let cost = self.cost.map(|cost| {
            json!({"cpu_seconds": cost.cpu_seconds, "resident_bytes": cost.resident_bytes, "written_bytes": cost.written_bytes, "context_switches": cost.context_switches})
        });
        let arguments = self.arguments;
        println!(
            "{}",
            json!({
                "rate": arguments.rate, "record_bytes": arguments.record_bytes, "records_per_request": arguments.records_per_request,
                "partitions": arguments.partitions, "acks": arguments.acks, "topic_configs": arguments.topic_configs,
                "records": self.window.records, "seconds": self.window.seconds, "records_per_second": self.rate(), "failed": self.window.failed,
                "latency_us": percentiles, "cost": cost, "read_back": self.verdict.read, "whole": self.verdict.is_whole(),
            })
        );
    }

    fn rate(&self) -> f64 {
        self.window.records as f64 / self.window.seconds
    }

    fn megabytes(&self) -> f64 {
        self.window.bytes as f64 / 1e6 / self.window.seconds
    }

    fn keep(&self) -> io::Result<()> {
        let Some(path) = &self.arguments.keep else { return Ok(()) };
        let mut log = std::fs::File::create(path.with_extension("hlog"))?;
        let mut encoded = Vec::new();
        V2DeflateSerializer::new().serialize(&self.window.latency, &mut encoded).map_err(|error| io::Error::other(format!("{error:?}")))?;
        log.write_all(&encoded)?;
        let mut percentiles = std::fs::File::create(path.with_extension("hgrm"))?;
        writeln!(percentiles, "       Value     Percentile TotalCount 1/(1-Percentile)\n")?;
        let total = self.window.latency.len();
        for value in self.window.latency.iter_quantiles(5) {
            let quantile = value.quantile_iterated_to();
            let count = (quantile * total as f64).round() as u64;
            writeln!(
                percentiles,
                "{:12.3} {quantile:14.12} {count:10} {:14.2}",
                value.value_iterated_to() as f64 / 1_000.0,
                1.0 / (1.0 - quantile).max(1e-12)
            )?;
        }
        Ok(())
    }
}
