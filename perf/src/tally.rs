//! Measurements of one case over several rounds, and how they are printed.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

/// Latencies of one case: a median for each round, so that a disturbed round shows, and all samples together for the tail.
pub struct Tally {
    all: Histogram<u64>,
    round: Histogram<u64>,
    medians: Vec<u64>,
    /// Whatever is counted beside: a figure for each round.
    pub rates: Vec<f64>,
    pub punts: u64,
}

impl Tally {
    pub fn new() -> Self {
        Self { all: histogram(), round: histogram(), medians: Vec::new(), rates: Vec::new(), punts: 0 }
    }

    pub fn record(&mut self, latency: Duration) {
        self.round.saturating_record(latency.as_nanos() as u64);
    }

    pub fn end_round(&mut self) {
        if !self.round.is_empty() {
            self.medians.push(self.round.value_at_quantile(0.5));
            self.all.add(&self.round).expect("both histograms have the same bounds");
            self.round.reset();
        }
    }

    /// Forgets the round: something else ran on the machine.
    pub fn discard_round(&mut self) {
        self.round.reset();
    }

    pub fn samples(&self) -> u64 {
        self.all.len()
    }

    /// Median of the rounds' medians; zero where nothing was measured.
    pub fn median(&self) -> Duration {
        let mut medians = self.medians.clone();
        medians.sort_unstable();
        Duration::from_nanos(medians.get(medians.len() / 2).copied().unwrap_or(0))
    }

    /// [`Tally::median`] in microseconds.
    pub fn p50(&self) -> String {
        if self.medians.is_empty() { "-".to_string() } else { micros(self.median().as_nanos() as u64) }
    }

    /// A quantile of all samples; none where fewer than ten lie beyond it.
    pub fn quantile(&self, quantile: f64) -> String {
        let beyond = self.all.len() as f64 * (1.0 - quantile);
        if beyond < 10.0 { "-".to_string() } else { micros(self.all.value_at_quantile(quantile)) }
    }

    /// Percentiles in microseconds, those that have samples enough, and how many samples there are.
    pub fn json(&self) -> serde_json::Value {
        let known = |quantile: f64| self.quantile(quantile).parse::<f64>().ok();
        json!({"p50": self.p50().parse::<f64>().ok(), "p90": known(0.9), "p99": known(0.99), "p99.9": known(0.999), "samples": self.samples()})
    }

    pub fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }
}

/// `4 KiB`, `1 MiB`.
pub fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

/// A row of a Markdown table.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Heading of a Markdown table.
pub fn heading(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
    println!("|{}", "---|".repeat(cells.len()));
}

fn micros(nanos: u64) -> String {
    let micros = nanos as f64 / 1000.0;
    if micros < 10.0 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are fine")
}
