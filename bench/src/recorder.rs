//! Latencies of one kind in a run: a histogram for each second of the window, all reserved before the first record, so that recording only counts.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;

use crate::percentile::{Percentiles, curve, histogram};

/// A run longer than so many seconds has longer intervals.
const INTERVALS_MAX: u64 = 120;

/// What counts as one run's window: records due in `start_ns..end_ns`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub fn contains(&self, due_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&due_ns)
    }

    pub fn seconds(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / 1e9
    }
}

pub struct Recorder {
    pub name: &'static str,
    pub loop_kind: LoopKind,
    window: Window,
    interval_ns: u64,
    intervals: Vec<Histogram<u64>>,
    /// Records that never came back; each is counted with the time that had passed, which is the least it can have been.
    at_least: u64,
}

/// Whether a stall is charged to every record that it delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopKind {
    /// From the scheduled time.
    Open,
    /// From the actual sending.
    Closed,
}

impl Recorder {
    pub fn new(name: &'static str, loop_kind: LoopKind, window: Window) -> Recorder {
        let window_ns = (window.end_ns - window.start_ns).max(1);
        let interval_ns = window_ns.div_ceil(INTERVALS_MAX).max(1_000_000_000);
        let mut intervals: Vec<Histogram<u64>> = (0..window_ns.div_ceil(interval_ns)).map(|_| histogram()).collect();
        // Writes every count once: the first touch of a page costs more than a microsecond, and is not to fall on a record.
        intervals.iter_mut().for_each(Histogram::reset);
        Recorder { name, loop_kind, window, interval_ns, intervals, at_least: 0 }
    }

    /// Counts it if it was due within the window.
    pub fn record(&mut self, due_ns: u64, latency_ns: u64) {
        if self.window.contains(due_ns) {
            let interval = (due_ns - self.window.start_ns) / self.interval_ns;
            self.intervals[interval as usize].saturating_record(latency_ns);
        }
    }

    /// Counts one that had not come back after `latency_ns`.
    pub fn record_unfinished(&mut self, due_ns: u64, latency_ns: u64) {
        if self.window.contains(due_ns) {
            self.at_least += 1;
            self.record(due_ns, latency_ns);
        }
    }

    pub fn finish(&self) -> Latencies {
        let total = self.total();
        let over_time = self.intervals.iter().enumerate().map(|(place, interval)| Interval {
            second: place as f64 * self.interval_ns as f64 / 1e9,
            samples: interval.len(),
            p50: (!interval.is_empty()).then(|| interval.value_at_percentile(50.0) as f64 / 1e3),
            p99: (interval.len() >= 100).then(|| interval.value_at_percentile(99.0) as f64 / 1e3),
            max: (!interval.is_empty()).then(|| interval.max() as f64 / 1e3),
        });
        Latencies {
            name: self.name.to_string(),
            loop_kind: self.loop_kind,
            percentiles: Percentiles::of(&total),
            at_least: self.at_least,
            curve: curve(&total),
            over_time: over_time.collect(),
            histogram: total,
        }
    }

    fn total(&self) -> Histogram<u64> {
        let mut total = histogram();
        self.intervals.iter().for_each(|interval| total.add(interval).expect("all have the same bounds"));
        total
    }

    /// Writes `PATH-NAME.hlog`, a line for each interval, and `PATH-NAME.hgrm`, percentiles in microseconds.
    pub fn keep(&self, path: &Path, began: SystemTime) -> io::Result<()> {
        let file = |ending: &str| {
            let name = format!("{}-{}.{ending}", path.display(), self.name.replace(' ', "-"));
            File::create(&name).map(BufWriter::new).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
        };
        self.write_log(&mut file("hlog")?, began)?;
        self.write_percentiles(&mut file("hgrm")?)
    }

    fn write_log(&self, out: &mut impl Write, began: SystemTime) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("corelane-bench: nanoseconds").with_base_time(began).with_max_value_divisor(1e6);
        let mut log = builder.begin_log_with(out, &mut serializer)?;
        for (place, interval) in self.intervals.iter().enumerate() {
            let start = Duration::from_nanos(self.window.start_ns + place as u64 * self.interval_ns);
            let tag = self.name.replace(' ', "-");
            log.write_histogram(interval, start, Duration::from_nanos(self.interval_ns), Tag::new(&tag))
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
        Ok(())
    }

    fn write_percentiles(&self, out: &mut impl Write) -> io::Result<()> {
        let total = self.total();
        writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
        for value in total.iter_quantiles(5) {
            let quantile = value.quantile_iterated_to();
            let count = total.count_between(0, value.value_iterated_to());
            let beyond = if quantile < 1.0 { format!("{:14.2}", 1.0 / (1.0 - quantile)) } else { "inf".to_string() };
            writeln!(out, "{:12.3} {quantile:14.12} {count:10} {beyond}", value.value_iterated_to() as f64 / 1e3)?;
        }
        writeln!(out, "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]", total.mean() / 1e3, total.stdev() / 1e3)?;
        writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", total.max() as f64 / 1e3, total.len())
    }
}

/// What a recorder has found, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latencies {
    pub name: String,
    #[serde(rename = "loop")]
    pub loop_kind: LoopKind,
    #[serde(flatten)]
    pub percentiles: Percentiles,
    /// Samples among them that are only a lower bound.
    pub at_least: u64,
    pub curve: Vec<(f64, f64)>,
    pub over_time: Vec<Interval>,
    /// For taking rounds together.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Interval {
    pub second: f64,
    pub samples: u64,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_record_counts_in_the_second_in_which_it_was_due() {
        let mut recorder = Recorder::new("acknowledged", LoopKind::Open, Window { start_ns: SECOND, end_ns: 4 * SECOND });
        recorder.record(SECOND - 1, 5_000);
        recorder.record(SECOND, 10_000);
        // Late by two seconds, and still of the first second.
        recorder.record(2 * SECOND - 1, 2 * SECOND);
        recorder.record(4 * SECOND - 1, 20_000);
        recorder.record(4 * SECOND, 5_000);
        recorder.record_unfinished(3 * SECOND, 7 * SECOND);
        let latencies = recorder.finish();
        assert_eq!(latencies.over_time.iter().map(|interval| interval.samples).collect::<Vec<_>>(), [2, 0, 2]);
        assert_eq!((latencies.percentiles.samples, latencies.at_least), (4, 1));
    }

    #[test]
    fn what_is_kept_can_be_read_by_others() {
        let mut recorder = Recorder::new("end to end", LoopKind::Open, Window { start_ns: 0, end_ns: 2 * SECOND });
        (1..=1_000u64).for_each(|value| recorder.record(value * 1_000_000, value * 1_000));
        let folder = tempfile::tempdir().expect("a folder");
        recorder.keep(&folder.path().join("run"), SystemTime::now()).expect("kept");
        let log = std::fs::read_to_string(folder.path().join("run-end-to-end.hlog")).expect("the log");
        let entries = hdrhistogram::serialization::interval_log::IntervalLogIterator::new(log.as_bytes());
        assert_eq!(
            entries.filter(|entry| matches!(entry, Ok(hdrhistogram::serialization::interval_log::LogEntry::Interval(_)))).count(),
            2
        );
        let percentiles = std::fs::read_to_string(folder.path().join("run-end-to-end.hgrm")).expect("the percentiles");
        assert!(percentiles.contains("Percentile") && percentiles.contains("Total count    =         1000"), "{percentiles}");
    }
}
