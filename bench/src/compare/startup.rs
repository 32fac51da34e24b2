//! How long a system takes from exec to the first acknowledgement: asked for as a user would, without knowing when it will be there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::batch::{BatchBuilder, BatchOptions};
use corelane_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::{CreateTopicsRequest, ProduceRequest};
use corelane_wire::{Records, Str};
use serde::Serialize;

use crate::client::connection::Connection;
use crate::client::{CREATE_TOPICS_VERSION, PRODUCE_VERSION};
use crate::clock::wall_ms;
use crate::failure::Failure;

const START_MAX: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_micros(500);
const TOPIC: &str = "first-acknowledgement";

/// What a start took, and what it left.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StartUp {
    /// From exec to the first connection that was taken.
    pub listening_ms: f64,
    /// From exec to the acknowledgement of one durable record in a new topic.
    pub first_ack_ms: f64,
    /// Right after it.
    pub resident_mb: f64,
    /// Of one core, with nothing to do.
    pub idle_cpu: f64,
}

impl StartUp {
    pub fn metric(&self, name: &str) -> Option<f64> {
        match name {
            "listening_ms" => Some(self.listening_ms),
            "first_ack_ms" => Some(self.first_ack_ms),
            "resident_mb" => Some(self.resident_mb),
            "idle_cpu" => Some(self.idle_cpu),
            _ => None,
        }
    }
}

/// Asks until one record is acknowledged; gives the times since `exec`. `is_alive` ends the waiting for a process that has ended.
pub fn first_acknowledgement(
    address: SocketAddr,
    exec: Instant,
    mut is_alive: impl FnMut() -> bool,
) -> Result<(Duration, Duration), Failure> {
    let mut listening = None;
    let mut topic_made = false;
    while exec.elapsed() < START_MAX {
        if !is_alive() {
            return Err(Failure::Unreachable("it ended before it was ready".to_string()));
        }
        let Ok(mut connection) = Connection::open(address, None) else {
            std::thread::sleep(AGAIN);
            continue;
        };
        listening.get_or_insert_with(|| exec.elapsed());
        while exec.elapsed() < START_MAX {
            topic_made = topic_made || make_topic(&mut connection).unwrap_or(false);
            match topic_made.then(|| produce(&mut connection)) {
                Some(Ok(true)) => return Ok((listening.unwrap_or_default(), exec.elapsed())),
                // It takes connections before it takes requests.
                Some(Err(_)) => break,
                Some(Ok(false)) | None => std::thread::sleep(AGAIN),
            }
            if !is_alive() {
                break;
            }
        }
    }
    Err(Failure::Unreachable(format!("no acknowledgement in {} s", START_MAX.as_secs())))
}

fn make_topic(connection: &mut Connection) -> std::io::Result<bool> {
    let flush = CreatableTopicConfig { name: "flush.messages".into(), value: Some("1".into()), ..Default::default() };
    let topic =
        CreatableTopic { name: Str::from(TOPIC), num_partitions: 1, replication_factor: 1, configs: vec![flush], ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let response = connection.ask(CREATE_TOPICS_VERSION, &request)?;
    // 36: it exists, since an earlier answer was lost.
    Ok(response.topics.first().is_some_and(|topic| matches!(topic.error_code, 0 | 36)))
}

fn produce(connection: &mut Connection) -> std::io::Result<bool> {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.push(None, Some(b"first"), wall_ms(), &[]);
    let records = batch.build().unwrap_or_else(|_| Bytes::new());
    let data = PartitionProduceData { index: 0, records: Some(Records::from(records)), ..Default::default() };
    let topic = TopicProduceData { name: Str::from(TOPIC), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() };
    let response = connection.ask(PRODUCE_VERSION, &request)?;
    Ok(response.responses.iter().flat_map(|topic| &topic.partition_responses).all(|partition| partition.error_code == 0))
}
