//! The same scenarios through librdkafka, as what users run: its threads, its queues, its batching. Only `produce` and `e2e`.
//!
//! The schedule is the raw client's. A record is handed to the library when it is due, and its acknowledgement is timed when the library's delivery report runs; so what the library itself
//! costs is in the figures, as it is for its users. Its own threads run on the client's core, so this one does not spin beside them: between two looks it sleeps for a moment ([`PAUSE`],
//! which becomes some 70 us), and figures are that coarse.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::admin::Admin;
use crate::clock::{Clock, seconds_ns};
use crate::cores;
use crate::failure::Failure;
use crate::load::{ClientLag, Counts, Setup};
use crate::outcome::{ClientFacts, Outcome};
use crate::payload::{Keys, Payload, RecordId};
use crate::progress::{Counters, Monitor};
use crate::readers::read_back;
use crate::recorder::{LoopKind, Recorder, Window};
use crate::scenario::{Target, topic_of};
use crate::schedule::Schedule;
use crate::verify::{Checker, Ledger, Verdict};
use crate::workload::{Codec, Scenario, Workload};

const HEAD_START_NS: u64 = 200_000_000;
const CLIENT_GRACE_NS: u64 = 500_000_000;
const LAST_ANSWER_MAX_NS: u64 = 30_000_000_000;
const LAST_RECORD_MAX_NS: u64 = 10_000_000_000;

/// A thread that spun here would take the core from the library's own.
const PAUSE: Duration = Duration::from_micros(20);

/// Records handed to one producer before others, and reports, have their turn.
const SENDS_MAX: usize = 200;

/// Reports taken from one consumer before others have their turn.
const POLLS_MAX: usize = 100;

/// What delivery reports write; one for all producers.
struct Reports {
    clock: Clock,
    window: Window,
    payload: Payload,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    acknowledged: Recorder,
    counts: Counts,
    reported: u64,
}

struct Context(Arc<Reports>);

impl ClientContext for Context {
    // What the library finds worth logging shows in the figures, or as a refused record.
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let now_ns = self.0.clock.now_ns();
        let mut state = self.0.lock();
        state.reported += 1;
        match result {
            Ok(message) => {
                let known = message.payload().and_then(|value| self.0.payload.check(value));
                let (id, due_ns) = known.expect("the library reports what it was given");
                let latency_ns = now_ns.saturating_sub(due_ns);
                state.ledger.acknowledge(message.partition(), message.offset(), id, 1);
                state.acknowledged.record(due_ns, latency_ns);
                if self.0.window.contains(due_ns) {
                    state.counts.acknowledged += 1;
                }
                if self.0.window.contains(now_ns) {
                    state.counts.arrived += 1;
                    state.counts.arrived_bytes += self.0.payload.record_bytes() as u64;
                }
                drop(state);
                self.0.counters.count(1, self.0.payload.record_bytes() as u64, latency_ns);
            }
            Err((error, _)) => {
                state.counts.failed += 1;
                state.counts.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a report does not panic")
    }
}

pub fn run(workload: &Workload, target: &Target) -> Result<Outcome, Failure> {
    if !matches!(workload.scenario, Scenario::Produce | Scenario::E2e) {
        return Err(Failure::Settings(format!("client = rdkafka runs produce and e2e; {} needs the raw client", workload.scenario.name())));
    }
    if let Some(core) = target.core {
        cores::pin_this_thread(&[core])?;
    }
    let mut admin = Admin::connect(target.address, None)?;
    let topic = topic_of(workload);
    admin.prepare_topic(workload, &topic)?;
    let starts = admin.end_offsets(&topic, workload.partitions)?;
    let clock = Clock::start();
    let start_ns = clock.now_ns() + HEAD_START_NS;
    let window_start_ns = start_ns + seconds_ns(workload.warm_up_seconds);
    let window = Window { start_ns: window_start_ns, end_ns: window_start_ns + seconds_ns(workload.duration_seconds) };
    let began = SystemTime::now();
    let mut parts = Parts::connect(workload, target, &topic, &starts, clock, start_ns, window)?;
    let counters = parts.reports.counters.clone();
    let monitor = Monitor::start(clock, &counters, target.watched.clone(), Some(window), target);
    let stopped = parts.run(start_ns, window).err();
    let costs = monitor.finish();
    parts.close();

    let recorders = parts.recorders();
    let mut verdict = parts.verdict();
    let mut not_read_back = None;
    let state = parts.reports.lock();
    if !target.reads_back {
        not_read_back = Some("a floor is no broker: it writes over its records".to_string());
    } else if verdict.is_none() {
        let setup = Setup {
            workload,
            address: target.address,
            topic: &topic,
            clock,
            congestion_control: None,
            payload: parts.reports.payload.clone(),
            counters: Counters::new(),
            first_producer: 0,
        };
        match read_back(&setup, &mut admin, &starts, &state.ledger) {
            Ok(read) => verdict = Some(read),
            Err(failure) => not_read_back = Some(failure.to_string()),
        }
    }
    let mut latencies = vec![state.acknowledged.finish()];
    latencies.extend(recorders.iter().map(|recorder| recorder.finish()));
    if let Some(path) = &target.keep {
        for recorder in [&state.acknowledged].into_iter().chain(recorders) {
            recorder.keep(path, began).map_err(|error| Failure::Machine(error.to_string()))?;
        }
    }
    let refused = state.counts.first_error.as_ref().map(|error| Failure::Refused(format!("{} records: {error}", state.counts.failed)));
    let lost = verdict.filter(|verdict| !verdict.is_whole()).map(|verdict| Failure::NotReadBack(verdict.describe()));
    let (_, version) = rdkafka::util::get_rdkafka_version();
    Ok(Outcome {
        workload: workload.clone(),
        client: ClientFacts { name: "librdkafka".to_string(), version, core: target.core, congestion_control: None },
        seconds: window.seconds(),
        records: state.counts.arrived,
        bytes: state.counts.arrived_bytes,
        counts: state.counts.clone(),
        client_lag: ClientLag::default(),
        latencies,
        costs,
        more: Default::default(),
        verdict,
        not_read_back,
        partial: stopped.is_some(),
        failure: lost.or(stopped).or(refused),
    })
}

struct Parts {
    clock: Clock,
    topic: String,
    schedule: Option<Schedule>,
    partitions: i32,
    keys: Option<Keys>,
    window: Window,
    producers: Vec<(BaseProducer<Context>, u64)>,
    reports: Arc<Reports>,
    value: Vec<u8>,
    /// Of `e2e`: subscription and consumer.
    consumers: Vec<(usize, BaseConsumer)>,
    checkers: Vec<Checker>,
    end_to_end: Recorder,
}

impl Parts {
    fn connect(
        workload: &Workload,
        target: &Target,
        topic: &str,
        starts: &[i64],
        clock: Clock,
        start_ns: u64,
        window: Window,
    ) -> Result<Parts, Failure> {
        let settings = |error: KafkaError| Failure::Settings(format!("librdkafka: {error}"));
        // The library makes the batches: the schedule is of single records.
        let schedule = Workload { batch_records: 1, linger_ms: None, ..workload.clone() }.schedule(start_ns);
        let loop_kind = if schedule.is_some() { LoopKind::Open } else { LoopKind::Closed };
        let payload = Payload::new(workload.record_bytes);
        let state = State {
            ledger: Ledger::new(workload.producers, workload.partitions),
            acknowledged: Recorder::new("acknowledged", loop_kind, window),
            counts: Counts::default(),
            reported: 0,
        };
        let reports = Arc::new(Reports { clock, window, payload: payload.clone(), counters: Counters::new(), state: Mutex::new(state) });
        let mut producers = Vec::new();
        for _ in 0..workload.producers {
            let producer = producer_config(workload, target).create_with_context(Context(reports.clone())).map_err(settings)?;
            producers.push((producer, 0));
        }
        let mut consumers = Vec::new();
        let subscriptions = if workload.scenario == Scenario::E2e { workload.subscriptions } else { 0 };
        for subscription in 0..subscriptions {
            for member in 0..workload.consumers {
                let consumer: BaseConsumer = consumer_config(workload, target).create().map_err(settings)?;
                let mut assigned = TopicPartitionList::new();
                for (index, offset) in starts.iter().enumerate().skip(member).step_by(workload.consumers) {
                    assigned.add_partition_offset(topic, index as i32, Offset::Offset(*offset)).map_err(settings)?;
                }
                consumer.assign(&assigned).map_err(settings)?;
                consumers.push((subscription, consumer));
            }
        }
        Ok(Parts {
            clock,
            topic: topic.to_string(),
            schedule,
            partitions: workload.partitions,
            keys: (workload.keys > 0).then(|| Keys::new(workload.keys, workload.partitions)),
            window,
            producers,
            reports,
            value: vec![0; workload.record_bytes],
            consumers,
            checkers: (0..subscriptions).map(|_| Checker::new(&payload, workload.producers, workload.partitions)).collect(),
            end_to_end: Recorder::new("end to end", loop_kind, window),
        })
    }

    fn run(&mut self, start_ns: u64, window: Window) -> Result<(), Failure> {
        self.clock.sleep_until(start_ns - 1_000_000);
        loop {
            let now_ns = self.clock.now_ns();
            // What was due in the window still goes when this thread comes to it late.
            let within = now_ns < window.end_ns || (now_ns < window.end_ns + CLIENT_GRACE_NS && self.owes());
            let has_sent = within && self.send_due(now_ns)?;
            self.producers.iter().for_each(|(producer, _)| producer.poll(Duration::ZERO));
            self.consume()?;
            if within {
                if self.schedule.is_some() || !has_sent {
                    std::thread::sleep(PAUSE);
                }
                continue;
            }
            let sent: u64 = self.producers.iter().map(|(_, sent)| sent).sum();
            let (reported, ledger_records) = {
                let state = self.reports.lock();
                (state.reported, state.ledger.records())
            };
            if reported < sent {
                if now_ns > window.end_ns + LAST_ANSWER_MAX_NS {
                    return Err(Failure::BrokerGone(format!("{} acknowledgements are missing 30 s after the window", sent - reported)));
                }
                continue;
            }
            let all = self.checkers.iter().all(|checker| checker.distinct_records() >= ledger_records);
            if all || now_ns > window.end_ns + LAST_ANSWER_MAX_NS + LAST_RECORD_MAX_NS {
                return Ok(());
            }
        }
    }

    /// Whether anything was; without a schedule at most a batch of each producer, so that reports are taken in between.
    fn send_due(&mut self, now_ns: u64) -> Result<bool, Failure> {
        let mut has_sent = false;
        for place in 0..self.producers.len() {
            for _ in 0..SENDS_MAX {
                let number = self.producers[place].1;
                let due_ns = self.schedule.as_ref().map_or(now_ns, |schedule| schedule.record_due_ns(place, number));
                if due_ns > now_ns || due_ns >= self.window.end_ns || !self.send(place, number, due_ns)? {
                    break;
                }
                has_sent = true;
            }
        }
        Ok(has_sent)
    }

    fn owes(&self) -> bool {
        let Some(schedule) = &self.schedule else { return false };
        self.producers.iter().enumerate().any(|(place, (_, sent))| schedule.record_due_ns(place, *sent) < self.window.end_ns)
    }

    /// False if the library's queue is full: the record stays due.
    fn send(&mut self, place: usize, number: u64, due_ns: u64) -> Result<bool, Failure> {
        let partition = ((place as u64 + number) % self.partitions as u64) as i32;
        self.reports.payload.write(&mut self.value, RecordId::new(place, number), due_ns);
        let key = self.keys.as_ref().map(|keys| keys.key(partition, number));
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).partition(partition).payload(&self.value);
        if let Some(key) = &key {
            record = record.key(&key[..]);
        }
        match self.producers[place].0.send(record) {
            Ok(()) => {
                self.producers[place].1 += 1;
                Ok(true)
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(Failure::Refused(error.to_string())),
        }
    }

    fn consume(&mut self) -> Result<(), Failure> {
        for (subscription, consumer) in &self.consumers {
            for _ in 0..POLLS_MAX {
                match consumer.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        let now_ns = self.clock.now_ns();
                        let due_ns =
                            self.checkers[*subscription].see(message.partition(), message.offset(), message.payload().unwrap_or_default());
                        if let Some(due_ns) = due_ns {
                            self.end_to_end.record(due_ns, now_ns.saturating_sub(due_ns));
                        }
                    }
                    // The library goes on by itself after an error of the transport.
                    Some(Err(KafkaError::MessageConsumption(
                        RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                    ))) => break,
                    Some(Err(error)) => return Err(Failure::Refused(error.to_string())),
                }
            }
        }
        Ok(())
    }

    /// Charges what was due in the window and is without an answer.
    fn close(&mut self) {
        let now_ns = self.clock.now_ns();
        let Some(schedule) = &self.schedule else { return };
        let mut state = self.reports.lock();
        for (place, (producer, sent)) in self.producers.iter().enumerate() {
            let first = sent.saturating_sub(producer.in_flight_count().max(0) as u64);
            for number in first.. {
                let due_ns = schedule.record_due_ns(place, number);
                if due_ns >= self.window.end_ns {
                    break;
                }
                state.acknowledged.record_unfinished(due_ns, now_ns.saturating_sub(due_ns));
                state.counts.unfinished += u64::from(self.window.contains(due_ns));
            }
        }
        state.counts.scheduled = state.counts.acknowledged + state.counts.unfinished + state.counts.failed;
    }

    fn recorders(&self) -> Vec<&Recorder> {
        if self.consumers.is_empty() { Vec::new() } else { vec![&self.end_to_end] }
    }

    fn verdict(&self) -> Option<Verdict> {
        let state = self.reports.lock();
        let mut sum: Option<Verdict> = None;
        self.checkers.iter().for_each(|checker| sum.get_or_insert_default().add(&checker.verdict(&state.ledger)));
        sum
    }
}

fn producer_config(workload: &Workload, target: &Target) -> ClientConfig {
    let compression = match workload.compression {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    };
    let queued = (workload.in_flight * workload.batch_records).clamp(1_000, 1_000_000);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", target.address.to_string())
        .set("acks", workload.acks.to_string())
        .set("enable.idempotence", workload.idempotent.to_string())
        .set("linger.ms", workload.linger_ms.unwrap_or(0.0).to_string())
        .set("batch.num.messages", workload.batch_records.to_string())
        .set("compression.type", compression)
        .set("max.in.flight.requests.per.connection", workload.in_flight.min(1_000).to_string())
        .set("queue.buffering.max.messages", queued.to_string())
        .set("queue.buffering.max.kbytes", (1024 * 1024).to_string())
        .set("message.max.bytes", (workload.record_bytes.max(1_000_000) + 100_000).to_string());
    config
}

fn consumer_config(workload: &Workload, target: &Target) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", target.address.to_string())
        .set("group.id", "corelane-bench")
        .set("enable.auto.commit", "false")
        .set("fetch.min.bytes", workload.fetch_min_bytes.to_string())
        .set("fetch.wait.max.ms", workload.fetch_max_wait_ms.to_string())
        .set("fetch.message.max.bytes", workload.fetch_max_bytes.to_string());
    config
}
