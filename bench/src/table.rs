//! The result of one run, for people.

use std::fmt::Write;

use crate::outcome::Outcome;
use crate::percentile::RULES;
use crate::recorder::{Latencies, LoopKind};

/// The whole summary. What was lost comes first.
pub fn summary(outcome: &Outcome) -> String {
    let mut text = String::new();
    if let Some(verdict) = outcome.verdict.filter(|verdict| !verdict.is_whole()) {
        let _ = writeln!(text, "READ BACK FAILED: {}", verdict.describe());
    }
    if outcome.partial {
        let _ = writeln!(text, "PARTIAL: the run ended before its time; the figures are of what came before");
    }
    let _ = writeln!(text, "{}", outcome.workload.describe());
    let client = &outcome.client;
    let core = client.core.map_or("not pinned".to_string(), |core| format!("spinning on core {core}"));
    let _ = writeln!(
        text,
        "  client    {} {}, {core}, congestion control {}",
        client.name,
        client.version,
        client.congestion_control.as_deref().unwrap_or("as the system's")
    );
    let _ = writeln!(text, "  rate      {}", rate(outcome));
    outcome.latencies.iter().filter(|latencies| latencies.percentiles.samples > 0).for_each(|latencies| {
        let _ = writeln!(text, "  {}", latency(latencies));
    });
    for cost in &outcome.costs {
        let per_million = cost.cpu_seconds_per_million_records.map_or(String::new(), |cpu| format!(" ({cpu:.2} per million records)"));
        let per_byte = cost.written_per_byte.map_or(String::new(), |bytes| format!(" ({bytes:.2} per byte received)"));
        let _ = writeln!(
            text,
            "  {:9} {:.2} CPU-s{per_million}, {:.0} MB resident (at most {:.0}), {:.1} MB written{per_byte}, {} context switches in {:.1} s",
            cost.name,
            cost.cpu_seconds,
            cost.resident_bytes as f64 / 1e6,
            cost.resident_bytes_max as f64 / 1e6,
            cost.written_bytes as f64 / 1e6,
            cost.context_switches,
            cost.seconds
        );
    }
    for (name, value) in &outcome.more {
        let _ = writeln!(text, "  {name} = {value:.1}");
    }
    let _ = writeln!(text, "  read back {}", read_back(outcome));
    text
}

fn rate(outcome: &Outcome) -> String {
    let counts = &outcome.counts;
    let mut text =
        format!("{:.0} records/s, {:.1} MB/s in {:.1} s", outcome.records_per_second(), outcome.megabytes_per_second(), outcome.seconds);
    if counts.scheduled > 0 {
        let share = counts.acknowledged as f64 * 100.0 / counts.scheduled as f64;
        let verdict = if outcome.held_rate() { "held" } else { "FELL BEHIND" };
        let _ = write!(text, "; {verdict}: {share:.1} % of what was due was acknowledged, {} requests were held up", counts.held);
    }
    if counts.failed > 0 {
        let _ = write!(text, "; {} refused ({})", counts.failed, counts.first_error.as_deref().unwrap_or("?"));
    }
    if outcome.client_lag.late > 0 {
        let lag = &outcome.client_lag;
        let _ = write!(
            text,
            "; the client itself sent {} of {} requests more than 1 ms late (up to {:.0} us)",
            lag.late, lag.requests, lag.max_us
        );
    }
    text
}

fn latency(latencies: &Latencies) -> String {
    let loop_kind = match latencies.loop_kind {
        LoopKind::Open => "open loop",
        LoopKind::Closed => "closed loop",
    };
    let mut text = format!("{:12}", latencies.name);
    for (name, value) in latencies.percentiles.rows() {
        let _ = value.map(|us| write!(text, " {name} {}", microseconds(us)));
    }
    let _ = write!(text, "  us; {loop_kind}, {} samples", latencies.percentiles.samples);
    if let Some(rule) = RULES.iter().find(|rule| latencies.percentiles.samples < rule.samples_min) {
        let _ = write!(text, " ({} needs {})", rule.name, grouped(rule.samples_min));
    }
    if latencies.at_least > 0 {
        let _ = write!(text, ", {} of them only \"at least\": they never came back", latencies.at_least);
    }
    text
}

/// Three digits are all that there are.
pub fn microseconds(us: f64) -> String {
    if us < 10.0 {
        format!("{us:.2}")
    } else if us < 100.0 {
        format!("{us:.1}")
    } else {
        grouped(us.round() as u64)
    }
}

/// With a comma before every third digit.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn read_back(outcome: &Outcome) -> String {
    match (&outcome.verdict, &outcome.not_read_back) {
        (Some(verdict), _) if verdict.is_whole() => {
            format!("whole: {} acknowledged, each read once, unchanged, in order", grouped(verdict.acknowledged))
        }
        (Some(verdict), _) => verdict.describe(),
        (None, Some(why)) => format!("not done: {why}"),
        (None, None) => "not done".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(
            [microseconds(1.23456), microseconds(12.3456), microseconds(123.456), microseconds(12_345.6)],
            ["1.23", "12.3", "123", "12,346"]
        );
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
