//! Which percentiles may be printed. One that rests on a handful of samples is chance, so each has a least number of samples, below which its place says so.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies up to a minute, three digits, from 100 ns on.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("constant bounds are valid")
}

/// A percentile and the samples without which it says nothing: fifty beyond it, and for the median a hundred in all.
pub struct Rule {
    pub name: &'static str,
    pub percentile: f64,
    pub samples_min: u64,
}

pub const RULES: [Rule; 5] = [
    Rule { name: "p50", percentile: 50.0, samples_min: 100 },
    Rule { name: "p90", percentile: 90.0, samples_min: 500 },
    Rule { name: "p99", percentile: 99.0, samples_min: 5_000 },
    Rule { name: "p99.9", percentile: 99.9, samples_min: 50_000 },
    Rule { name: "p99.99", percentile: 99.99, samples_min: 500_000 },
];

/// The percentiles of a distribution in microseconds; `None` where the samples do not suffice.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Percentiles {
    pub samples: u64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    #[serde(rename = "p99.9")]
    pub p99_9: Option<f64>,
    #[serde(rename = "p99.99")]
    pub p99_99: Option<f64>,
    pub max: Option<f64>,
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        let samples = histogram.len();
        let [p50, p90, p99, p99_9, p99_99] =
            RULES.map(|rule| (samples >= rule.samples_min).then(|| us(histogram.value_at_percentile(rule.percentile))));
        Percentiles { samples, p50, p90, p99, p99_9, p99_99, max: (samples > 0).then(|| us(histogram.max())) }
    }

    /// By the name that tables and suites use.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.rows().into_iter().find(|(known, _)| *known == name).and_then(|(_, value)| value)
    }

    pub fn rows(&self) -> [(&'static str, Option<f64>); 6] {
        [("p50", self.p50), ("p90", self.p90), ("p99", self.p99), ("p99.9", self.p99_9), ("p99.99", self.p99_99), ("max", self.max)]
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

/// The distribution as points (quantile, microseconds) for the log scale that HdrHistogram's readers know: closer together the nearer they are to 1. It ends where fewer than
/// two samples lie beyond.
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for value in histogram.iter_quantiles(5) {
        let quantile = value.quantile_iterated_to();
        if quantile >= 1.0 {
            break;
        }
        points.push((quantile, us(value.value_iterated_to())));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_samples(count: u64) -> Percentiles {
        let mut histogram = histogram();
        for value in 1..=count {
            histogram.record(value * 1_000).expect("within bounds");
        }
        Percentiles::of(&histogram)
    }

    #[test]
    fn a_percentile_is_there_only_when_its_samples_suffice() {
        assert!(of_samples(99).p50.is_none() && of_samples(100).p50.is_some());
        assert!(of_samples(499).p90.is_none() && of_samples(500).p90.is_some());
        assert!(of_samples(4_999).p99.is_none() && of_samples(5_000).p99.is_some());
        assert!(of_samples(49_999).p99_9.is_none() && of_samples(50_000).p99_9.is_some());
        let most = of_samples(500_000);
        assert!(most.p99_99.is_some() && of_samples(499_999).p99_99.is_none());
        assert_eq!(most.samples, 500_000);
    }

    #[test]
    fn nothing_is_said_of_no_samples() {
        let none = Percentiles::of(&histogram());
        assert!(none.rows().iter().all(|(_, value)| value.is_none()));
    }

    #[test]
    fn values_are_within_a_thousandth() {
        let percentiles = of_samples(50_000);
        for (name, exact) in [("p50", 25_000.0), ("p99", 49_500.0), ("p99.9", 49_950.0), ("max", 50_000.0)] {
            let value = percentiles.get(name).expect(name);
            assert!((value / exact - 1.0).abs() < 0.001, "{name}: {value} instead of {exact}");
        }
        assert_eq!(percentiles.get("p75"), None);
    }

    #[test]
    fn a_curve_climbs_towards_one_and_stops_before() {
        let mut histogram = histogram();
        (1..=10_000u64).for_each(|value| histogram.record(value * 1_000).expect("within bounds"));
        let curve = curve(&histogram);
        assert!(curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
        assert!(curve.last().is_some_and(|(quantile, _)| *quantile > 0.999 && *quantile < 1.0));
    }
}
