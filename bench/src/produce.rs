//! `produce`: one thread sends requests at times fixed ahead and takes the acknowledgements; it spins, so pin it to a core that the broker does not need.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::batch::{BatchBuilder, BatchOptions};
use corelane_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::{CreateTopicsRequest, MetadataRequest, ProduceRequest, ProduceResponse};
use corelane_wire::{ApiKey, ErrorCode, Message, Records, Str};
use hdrhistogram::Histogram;

use crate::ProduceArguments;
use crate::connection::{Connection, frame_of, invalid, read_response};
use crate::cost::Cost;
use crate::read_back::{Acknowledged, read_back};
use crate::summary::Summary;

const PRODUCE_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;
const METADATA_VERSION: i16 = 9;

/// Acknowledgements that are still out when the window ends are waited for so long.
const LAST_ACKNOWLEDGEMENT_MAX: Duration = Duration::from_secs(30);

/// Latencies up to a minute, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are valid")
}

pub fn run(arguments: &ProduceArguments) -> io::Result<()> {
    if let Some(core) = arguments.core {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set)?;
    }
    let mut connection = Connection::open(arguments.bootstrap)?;
    create_topic(&mut connection, arguments)?;
    let mut run = Run::new(arguments, connection);
    let warm_up = run.window(Duration::from_secs(arguments.warm_up))?;
    let before = arguments.pid.map(Cost::of).transpose()?;
    let window = run.window(Duration::from_secs(arguments.duration))?;
    let cost = match (arguments.pid, before) {
        (Some(pid), Some(before)) => Some(Cost::of(pid)?.since(&before)),
        _ => None,
    };
    drop(warm_up);
    let verdict = read_back(&mut run.connection, arguments, &run.acknowledged)?;
    Summary { arguments, window: &window, cost: cost.as_ref(), verdict: &verdict }.print()?;
    if verdict.is_whole() { Ok(()) } else { Err(io::Error::other("acknowledged records were not read back as they were sent")) }
}

/// What was measured between two moments.
pub struct Window {
    pub latency: Histogram<u64>,
    pub records: u64,
    pub bytes: u64,
    pub failed: u64,
    pub late_sends: u64,
    pub seconds: f64,
}

struct Pending {
    correlation_id: i32,
    partition: i32,
    first_record: u64,
    first_due: Instant,
}

struct Run<'a> {
    arguments: &'a ProduceArguments,
    connection: Connection,
    pending: std::collections::VecDeque<Pending>,
    next_correlation_id: i32,
    next_record: u64,
    filler: Vec<u8>,
    acknowledged: Acknowledged,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a ProduceArguments, connection: Connection) -> Run<'a> {
        Run {
            arguments,
            connection,
            pending: std::collections::VecDeque::with_capacity(arguments.in_flight),
            next_correlation_id: 0,
            next_record: 0,
            filler: crate::read_back::value_of(0, arguments.record_bytes),
            acknowledged: Acknowledged::new(arguments.partitions),
        }
    }

    fn window(&mut self, length: Duration) -> io::Result<Window> {
        let mut window = Window { latency: histogram(), records: 0, bytes: 0, failed: 0, late_sends: 0, seconds: 0.0 };
        let start = Instant::now();
        let per_request = self.arguments.records_per_request as u64;
        let mut sent = 0;
        loop {
            let now = Instant::now();
            let due = self.due(start, sent);
            let within = due.duration_since(start) < length && now.duration_since(start) < length + LAST_ACKNOWLEDGEMENT_MAX;
            if !within && self.pending.is_empty() {
                break;
            }
            if now.duration_since(start) > length + LAST_ACKNOWLEDGEMENT_MAX {
                return Err(io::Error::other("acknowledgements are missing 30 s after the end of the window"));
            }
            if within && now >= due {
                if self.pending.len() < self.arguments.in_flight {
                    let first_due = if self.arguments.rate == 0 { now } else { self.first_due(start, sent) };
                    self.send(first_due)?;
                    sent += per_request;
                } else {
                    window.late_sends += 1;
                }
            }
            self.connection.flush()?;
            while let Some(frame) = self.connection.receive()? {
                self.acknowledge(frame, &mut window)?;
            }
        }
        window.seconds = start.elapsed().as_secs_f64();
        Ok(window)
    }

    /// When the request goes out whose first record is the `sent`-th of the window: when its last record is there.
    fn due(&self, start: Instant, sent: u64) -> Instant {
        if self.arguments.rate == 0 {
            return Instant::now().max(start);
        }
        start + self.time_of(sent + self.arguments.records_per_request as u64 - 1)
    }

    fn first_due(&self, start: Instant, sent: u64) -> Instant {
        start + self.time_of(sent)
    }

    fn time_of(&self, record: u64) -> Duration {
        Duration::from_nanos((u128::from(record) * 1_000_000_000 / u128::from(self.arguments.rate)) as u64)
    }

    fn send(&mut self, first_due: Instant) -> io::Result<()> {
        let partition = (self.next_record / self.arguments.records_per_request as u64 % self.arguments.partitions as u64) as i32;
        let first_record = self.next_record;
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for _ in 0..self.arguments.records_per_request {
            self.filler[..8].copy_from_slice(&self.next_record.to_le_bytes());
            batch.push(None, Some(&self.filler), now_ms(), &[]);
            self.next_record += 1;
        }
        let records = batch.build().map_err(|error| invalid(format!("{error:?}")))?;
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = (self.next_correlation_id + 1) & i32::MAX;
        let frame = produce_frame(&self.arguments.topic, partition, self.arguments.acks, correlation_id, records)?;
        self.pending.push_back(Pending { correlation_id, partition, first_record, first_due });
        self.connection.send(&frame)
    }

    fn acknowledge(&mut self, frame: Bytes, window: &mut Window) -> io::Result<()> {
        let now = Instant::now();
        let (correlation_id, mut body) = read_response(frame, ApiKey::Produce, PRODUCE_VERSION)?;
        let pending = self.pending.pop_front().ok_or_else(|| invalid("an answer to nothing"))?;
        if pending.correlation_id != correlation_id {
            return Err(invalid("answers out of order"));
        }
        let response = ProduceResponse::decode(&mut body, PRODUCE_VERSION).map_err(invalid)?;
        let partition = &response.responses[0].partition_responses[0];
        let count = self.arguments.records_per_request as u64;
        if partition.error_code != ErrorCode::None.code() {
            window.failed += count;
            return Ok(());
        }
        for index in 0..count {
            let due = if self.arguments.rate == 0 { pending.first_due } else { pending.first_due + self.time_of(index) };
            let latency = now.saturating_duration_since(due);
            window.latency.saturating_record(latency.as_nanos() as u64);
            self.acknowledged.add(pending.partition, partition.base_offset + index as i64, pending.first_record + index);
        }
        window.records += count;
        window.bytes += count * self.arguments.record_bytes as u64;
        Ok(())
    }
}

fn produce_frame(topic: &str, partition: i32, acks: i16, correlation_id: i32, records: Bytes) -> io::Result<Vec<u8>> {
    let data = PartitionProduceData { index: partition, records: Some(Records::from(records)), ..Default::default() };
    let topic = TopicProduceData { name: Str::from(topic), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    frame_of(PRODUCE_VERSION, correlation_id, &request)
}

fn create_topic(connection: &mut Connection, arguments: &ProduceArguments) -> io::Result<()> {
    let mut configs = Vec::new();
    for pair in &arguments.topic_configs {
        let (name, value) = pair.split_once('=').ok_or_else(|| invalid(format!("--topic-config {pair}: key=value is wanted")))?;
        configs.push(CreatableTopicConfig { name: name.into(), value: Some(value.into()), ..Default::default() });
    }
    let topic = CreatableTopic {
        name: Str::from(arguments.topic.as_str()),
        num_partitions: arguments.partitions,
        replication_factor: 1,
        configs,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let response = connection.ask(CREATE_TOPICS_VERSION, &request)?;
    let result = response.topics.first().ok_or_else(|| invalid("CreateTopics answered nothing"))?;
    if result.error_code != 0 {
        let name = ErrorCode::try_from(result.error_code).map_or("unknown error", |code| code.name());
        return Err(io::Error::other(format!(
            "cannot make topic {}: {name} {}",
            arguments.topic,
            result.error_message.as_deref().unwrap_or("")
        )));
    }
    wait_for_leaders(connection, arguments)
}

fn wait_for_leaders(connection: &mut Connection, arguments: &ProduceArguments) -> io::Result<()> {
    use corelane_wire::messages::metadata_request::MetadataRequestTopic;
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let topic = MetadataRequestTopic { name: Some(Str::from(arguments.topic.as_str())), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: false, ..Default::default() };
        let response = connection.ask(METADATA_VERSION, &request)?;
        let ready = response.topics.iter().any(|topic| {
            topic.error_code == 0
                && topic.partitions.len() == arguments.partitions as usize
                && topic.partitions.iter().all(|partition| partition.leader_id >= 0)
        });
        if ready {
            // Apache Kafka names a leader before its replica takes writes.
            std::thread::sleep(Duration::from_millis(500));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other("the topic got no leaders in 30 s"))
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
