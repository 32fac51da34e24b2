//! Workload files of the OpenMessaging Benchmark: the fields that say what is asked of a broker become a workload of ours, those that cannot are named. What its driver files say (batches,
//! acknowledgements) is as in its Kafka driver, and told.

use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use crate::failure::Failure;
use crate::workload::{Rate, Scenario, Workload};

/// Of its Kafka driver: a batch holds so much, and waits so long.
const BATCH_BYTES: usize = 128 * 1024;
const LINGER_MS: f64 = 1.0;

/// A workload, and what a reader of the result should know of how it came about.
#[derive(Debug)]
pub struct Converted {
    pub workload: Workload,
    pub notes: Vec<String>,
}

pub fn read(path: &Path) -> Result<Converted, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::Settings(format!("{}: {error}", path.display())))?;
    convert(&text).map_err(|why| Failure::Settings(format!("{}: {why}", path.display())))
}

/// From the text of a file.
pub fn convert(text: &str) -> Result<Converted, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let fields = documents.first().and_then(Yaml::as_hash).ok_or("it holds no fields")?;
    let mut shape = Shape::default();
    let mut workload = Workload { scenario: Scenario::E2e, linger_ms: Some(LINGER_MS), in_flight: 5, ..Workload::default() };
    let mut notes = Vec::new();
    for (key, value) in fields {
        let key = key.as_str().ok_or("a field's name is no text")?;
        let number = || value.as_f64().or(value.as_i64().map(|number| number as f64)).filter(|number| *number >= 0.0);
        let wanted = |number: Option<f64>| number.ok_or_else(|| format!("{key}: a number is wanted, not {value:?}"));
        match key {
            "name" => workload.name = value.as_str().unwrap_or_default().to_string(),
            "topics" => shape.topics = wanted(number())? as usize,
            "partitionsPerTopic" => shape.partitions = wanted(number())? as usize,
            "producersPerTopic" => shape.producers = wanted(number())? as usize,
            "consumerPerSubscription" => shape.consumers = wanted(number())? as usize,
            "subscriptionsPerTopic" => workload.subscriptions = wanted(number())? as usize,
            "messageSize" => workload.record_bytes = wanted(number())? as usize,
            "producerRate" => workload.rate = rate(wanted(number())?),
            "testDurationMinutes" => workload.duration_seconds = wanted(number())? * 60.0,
            "warmupDurationMinutes" => workload.warm_up_seconds = wanted(number())? * 60.0,
            "consumerBacklogSizeGB" => workload.backlog_mib = (wanted(number())? * 1e9 / (1024.0 * 1024.0)) as u64,
            "keyDistributor" => workload.keys = keys(value)?,
            "payloadFile" | "useRandomizedPayloads" | "randomBytesRatio" | "randomizedPayloadPoolSize" => {
                notes.push(format!("{key}: values hold text of our own, by which they are known again"));
            }
            unknown => return Err(format!("the field {unknown} is not known here")),
        }
    }
    shape.put_into(&mut workload, &mut notes);
    workload.batch_records = (BATCH_BYTES / workload.record_bytes.max(1)).max(1);
    notes.push(format!(
        "as OMB's Kafka driver: a linger of {LINGER_MS} ms, batches of at most {BATCH_BYTES} bytes, 5 requests in flight, acks -1"
    ));
    workload.check().map_err(|failure| failure.to_string())?;
    Ok(Converted { workload, notes })
}

struct Shape {
    topics: usize,
    partitions: usize,
    producers: usize,
    consumers: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { topics: 1, partitions: 1, producers: 1, consumers: 1 }
    }
}

impl Shape {
    fn put_into(&self, workload: &mut Workload, notes: &mut Vec<String>) {
        let topics = self.topics.max(1);
        workload.partitions = (topics * self.partitions) as i32;
        workload.producers = topics * self.producers;
        workload.consumers = (topics * self.consumers).clamp(1, workload.partitions.max(1) as usize);
        if topics > 1 {
            notes.push(format!("{topics} topics of {} partitions become one of {}", self.partitions, workload.partitions));
        }
        if workload.subscriptions == 0 {
            workload.scenario = Scenario::Produce;
        } else if workload.backlog_mib > 0 && workload.backlog_mib != Workload::default().backlog_mib {
            workload.scenario = Scenario::Mixed;
        }
    }
}

/// 0 asks OMB to look for the highest rate that lasts.
fn rate(number: f64) -> Rate {
    if number == 0.0 { Rate::Max } else { Rate::PerSecond(number as u64) }
}

fn keys(value: &Yaml) -> Result<u32, String> {
    match value.as_str() {
        Some("NO_KEY") => Ok(0),
        Some("KEY_ROUND_ROBIN" | "RANDOM_NANO") => Ok(10_000),
        _ => Err(format!("keyDistributor: {value:?} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
name: 1 topic / 16 partition / 1kb
# a comment
topics: 1
partitionsPerTopic: 16
keyDistributor: \"NO_KEY\"
messageSize: 1024
payloadFile: \"payload/payload-1Kb.data\"
subscriptionsPerTopic: 1
consumerPerSubscription: 4
producersPerTopic: 2
producerRate: 50000
consumerBacklogSizeGB: 0
testDurationMinutes: 15
";

    #[test]
    fn the_common_fields_are_read() {
        let Converted { workload, notes } = convert(FILE).expect("valid");
        assert_eq!((workload.scenario, workload.rate, workload.partitions), (Scenario::E2e, Rate::PerSecond(50_000), 16));
        assert_eq!((workload.producers, workload.consumers, workload.subscriptions), (2, 4, 1));
        assert_eq!((workload.duration_seconds, workload.batch_records, workload.keys), (900.0, 128, 0));
        assert!(notes.iter().any(|note| note.starts_with("payloadFile")));
    }

    #[test]
    fn an_unknown_field_is_named() {
        let why = convert(&FILE.replace("producerRate", "producerSpeed")).expect_err("unknown");
        assert!(why.contains("producerSpeed"), "{why}");
        let why = convert(&FILE.replace("50000", "fast")).expect_err("no number");
        assert!(why.contains("producerRate"), "{why}");
        assert!(convert("").is_err() && convert("- a\n- b").is_err());
    }

    #[test]
    fn several_topics_become_one_and_a_rate_of_zero_saturates() {
        let text = FILE.replace("topics: 1", "topics: 3").replace("50000", "0").replace("SizeGB: 0", "SizeGB: 2");
        let Converted { workload, notes } = convert(&text).expect("valid");
        assert_eq!((workload.partitions, workload.producers, workload.consumers, workload.rate), (48, 6, 12, Rate::Max));
        assert_eq!((workload.scenario, workload.backlog_mib), (Scenario::Mixed, 1_907));
        assert!(notes.iter().any(|note| note.contains("3 topics")));
    }
}
