//! `trace`: the table of what a broker wrote to `latency.trace.file`. Stages of each request add up to its whole, so the means of the stages add up to the mean of the whole, and likewise among any choice
//! of requests: those around the median, which show an ordinary acknowledgement, and the slowest hundredth, which show where a tail comes from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::tally::{heading, row};

pub struct Plan {
    /// As in the setting; every shard's file is read.
    pub file: PathBuf,
    /// Requests at the beginning that are left out: a warm-up.
    pub skip: usize,
    /// What the client saw: the result of `corelane-bench produce --json`.
    pub client: Option<PathBuf>,
    /// The same of the floor under the same load.
    pub floor: Option<PathBuf>,
    pub json: bool,
}

struct Trace {
    names: Vec<String>,
    /// A row for each request: nanoseconds of each stage.
    requests: Vec<Vec<u64>>,
}

/// What one choice of requests took on average, in microseconds.
struct Column {
    stages: Vec<f64>,
    whole: f64,
}

pub fn print(plan: &Plan) -> io::Result<()> {
    let trace = Trace::read(&plan.file, plan.skip)?;
    if trace.requests.len() < 100 {
        return Err(io::Error::other(format!("{} requests are too few for a table", trace.requests.len())));
    }
    let wholes = trace.sorted_wholes();
    let at = |quantile: f64| wholes[((wholes.len() - 1) as f64 * quantile) as usize];
    let all = trace.mean_of(|_| true);
    let ordinary = trace.mean_of(|whole| (at(0.45)..=at(0.55)).contains(&whole));
    let slowest = trace.mean_of(|whole| whole >= at(0.99));
    let client = plan.client.as_deref().map(client_latency).transpose()?;
    let floor = plan.floor.as_deref().map(client_latency).transpose()?;
    if plan.json {
        let column = |column: &Column| {
            let stages = trace.names.iter().zip(&column.stages).map(|(name, stage)| (name.clone(), json!(stage)));
            json!({"stages_us": stages.collect::<serde_json::Map<_, _>>(), "whole_us": column.whole})
        };
        println!(
            "{}",
            json!({
                "requests": trace.requests.len(), "ordinary": column(&ordinary), "all": column(&all), "slowest_hundredth": column(&slowest),
                "whole_p50_us": micros(at(0.5)), "whole_p99_us": micros(at(0.99)), "client": client, "floor": floor,
            })
        );
        return Ok(());
    }
    println!("{} requests; us\n", trace.requests.len());
    heading(&[
        "stage",
        "an ordinary request",
        "share",
        "mean of all",
        "mean of the slowest hundredth",
        "p50 of the stage",
        "p99 of the stage",
    ]);
    for (index, name) in trace.names.iter().enumerate() {
        let stage = trace.sorted_stage(index);
        let at = |quantile: f64| micros(stage[((stage.len() - 1) as f64 * quantile) as usize]);
        row(&[
            name.clone(),
            format!("{:.1}", ordinary.stages[index]),
            format!("{:.1} %", 100.0 * ordinary.stages[index] / ordinary.whole),
            format!("{:.1}", all.stages[index]),
            format!("{:.1}", slowest.stages[index]),
            format!("{:.1}", at(0.5)),
            format!("{:.1}", at(0.99)),
        ]);
    }
    let sum = |column: &Column| column.stages.iter().sum::<f64>();
    row(&[
        "all stages".to_string(),
        format!("{:.1}", sum(&ordinary)),
        "100 %".to_string(),
        format!("{:.1}", sum(&all)),
        format!("{:.1}", sum(&slowest)),
        "-".to_string(),
        "-".to_string(),
    ]);
    row(&[
        "the whole, first byte read to last byte sent".to_string(),
        format!("{:.1}", ordinary.whole),
        format!("{:+.1} %", 100.0 * (sum(&ordinary) / ordinary.whole - 1.0)),
        format!("{:.1}", all.whole),
        format!("{:.1}", slowest.whole),
        format!("{:.1}", micros(at(0.5))),
        format!("{:.1}", micros(at(0.99))),
    ]);
    let told = |figure: &Value| format!("p50 {} us, p99 {} us", figure["p50"], figure["p99"]);
    if let Some(client) = client {
        println!("\nThe client's figure, from the scheduled time to the answer in hand: {}.", told(&client));
    }
    if let Some(floor) = floor {
        println!("Of the floor, under the same load: {}.", told(&floor));
    }
    Ok(())
}

impl Trace {
    fn read(file: &Path, skip: usize) -> io::Result<Self> {
        let mut trace = Self { names: Vec::new(), requests: Vec::new() };
        for shard in 0.. {
            let path = PathBuf::from(format!("{}-{shard}", file.display()));
            if shard > 0 && !path.exists() {
                break;
            }
            let text = fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            let mut lines = text.lines();
            trace.names = lines.next().unwrap_or_default().split(',').map(str::to_string).collect();
            let rows = lines.skip(skip).map(|line| line.split(',').map(|field| field.parse().unwrap_or(0)).collect());
            trace.requests.extend(rows.filter(|row: &Vec<u64>| row.len() == trace.names.len()));
        }
        Ok(trace)
    }

    fn sorted_wholes(&self) -> Vec<u64> {
        let mut wholes: Vec<u64> = self.requests.iter().map(|stages| stages.iter().sum()).collect();
        wholes.sort_unstable();
        wholes
    }

    fn sorted_stage(&self, index: usize) -> Vec<u64> {
        let mut times: Vec<u64> = self.requests.iter().map(|stages| stages[index]).collect();
        times.sort_unstable();
        times
    }

    fn mean_of(&self, is_chosen: impl Fn(u64) -> bool) -> Column {
        let (mut sums, mut whole, mut count) = (vec![0; self.names.len()], 0, 0);
        for stages in &self.requests {
            let request: u64 = stages.iter().sum();
            if is_chosen(request) {
                sums.iter_mut().zip(stages).for_each(|(sum, stage)| *sum += stage);
                whole += request;
                count += 1;
            }
        }
        let mean = |sum: u64| micros(sum) / f64::from(count.max(1));
        Column { stages: sums.into_iter().map(mean).collect(), whole: mean(whole) }
    }
}

fn client_latency(path: &Path) -> io::Result<Value> {
    let result: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let acknowledged = result["latencies"].as_array().and_then(|all| all.iter().find(|latencies| latencies["name"] == "acknowledged"));
    let acknowledged = acknowledged.ok_or_else(|| io::Error::other(format!("{}: no latencies of acknowledgements", path.display())))?;
    Ok(json!({"p50": acknowledged["p50"], "p90": acknowledged["p90"], "p99": acknowledged["p99"], "p99.9": acknowledged["p99.9"]}))
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_stages_add_up() {
        let trace = Trace { names: vec!["a".to_string(), "b".to_string()], requests: vec![vec![1000, 2000], vec![3000, 4000], vec![1, 1]] };
        let column = trace.mean_of(|whole| whole > 2);
        assert_eq!((column.stages, column.whole), (vec![2.0, 3.0], 5.0));
    }
}
