//! The producers of a run: they send what is due and take acknowledgements, a step at a time, in the thread of the run.
//!
//! A producer that may not send, because too many of its requests are without an answer or its socket is full, is held by the broker; its records keep their due times, so the wait is
//! in their latency. A request that goes out late although nothing held it is late by the client's own fault, and counted apart ([`ClientLag`]).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use corelane_wire::ErrorCode;

use crate::client::admin::{Admin, error_name};
use crate::client::answer::{correlation_id, read_produce};
use crate::client::connection::Connection;
use crate::client::template::{ProducerState, Template};
use crate::clock::{Clock, wall_ms};
use crate::failure::Failure;
use crate::payload::{KEY_BYTES, Keys, Payload, RecordId};
use crate::progress::Counters;
use crate::recorder::{LoopKind, Recorder, Window};
use crate::schedule::Schedule;
use crate::verify::Ledger;
use crate::workload::{Scenario, Workload};

/// So many refusals one after another, and the run ends: a full disk does not get better by itself.
const REFUSALS_MAX: u64 = 100;

/// With so many partitions or fewer each has its own latency.
const FEW_PARTITIONS: i32 = 4;

/// What one producer may have sent without an answer.
const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A request that leaves later than this after its time, with nothing in its way, left late.
const CLIENT_LATE_NS: u64 = 1_000_000;

/// The client may send so long after the window's end what was due before it.
const CLIENT_GRACE_NS: u64 = 500_000_000;

/// Share of late requests above which the figures are the client's and not the broker's.
const CLIENT_LATE_SHARE_MAX: f64 = 0.01;

/// What happened besides latencies, all within the window.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Records due in the window.
    pub scheduled: u64,
    /// Of these.
    pub acknowledged: u64,
    /// Acknowledgements that came in the window, of whatever was due: the rate of a system that falls behind is in these.
    pub arrived: u64,
    pub arrived_bytes: u64,
    pub requests: u64,
    /// Answered with an error.
    pub failed: u64,
    pub first_error: Option<String>,
    /// Requests that waited because the broker held them.
    pub held: u64,
    /// Records due in the window that were not sent in it, or not answered in time.
    pub unfinished: u64,
}

/// How late requests left that nothing held.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct ClientLag {
    pub requests: u64,
    pub late: u64,
    pub max_us: f64,
}

struct Pending {
    correlation_id: i32,
    partition: i32,
    first_number: u64,
    sent_ns: u64,
}

struct Producer {
    connection: Connection,
    pending: VecDeque<Pending>,
    next_number: u64,
    requests: u64,
    /// Something held it, and it has not caught up with its schedule since.
    held: bool,
    next_correlation_id: i32,
    state: Option<ProducerState>,
    /// By partition.
    sequences: Vec<i32>,
}

/// How far producers go.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// The end of the window.
    WindowEnd,
    /// So many records, as fast as they go.
    Records(u64),
}

pub struct Load {
    clock: Clock,
    window: Window,
    until: Until,
    schedule: Option<Schedule>,
    in_flight: usize,
    fanout: bool,
    partitions: i32,
    /// Ids of this load's records begin with this producer's.
    first_producer: usize,
    template: Template,
    payload: Payload,
    keys: Option<Keys>,
    counters: Arc<Counters>,
    producers: Vec<Producer>,
    refusals_in_row: u64,
    sent_records: u64,
    last_answer_ns: u64,
    pub ledger: Ledger,
    pub counts: Counts,
    pub client_lag: ClientLag,
    /// From the time when a record was due (of a closed loop: was sent) to its acknowledgement.
    pub acknowledged: Recorder,
    /// From the sending of a request to its answer: what is left without the schedule.
    pub answered: Recorder,
    /// The same as `acknowledged` by partition, where there are a few: what another shard's partition costs.
    by_partition: Vec<Recorder>,
}

impl Load {
    /// Connects all producers. Their schedule begins at `start_ns`.
    pub fn connect(setup: &Setup<'_>, start_ns: u64, window: Window, until: Until) -> Result<Load, Failure> {
        let workload = setup.workload;
        let schedule = if matches!(until, Until::Records(_)) { None } else { workload.schedule(start_ns) };
        let records_per_batch = schedule
            .as_ref()
            .filter(|_| workload.scenario != Scenario::Fanout)
            .map_or(workload.batch_records, Schedule::records_per_request);
        let template = Template::new(workload, setup.topic, records_per_batch).map_err(|error| Failure::Settings(error.to_string()))?;
        let loop_kind = if schedule.is_some() { LoopKind::Open } else { LoopKind::Closed };
        let mut admin = workload.idempotent.then(|| Admin::connect(setup.address, setup.congestion_control)).transpose()?;
        let mut producers = Vec::with_capacity(workload.producers);
        for _ in 0..workload.producers {
            producers.push(Producer {
                connection: setup.connect()?,
                pending: VecDeque::with_capacity(workload.in_flight.min(10_000)),
                next_number: 0,
                requests: 0,
                held: false,
                next_correlation_id: 0,
                state: admin.as_mut().map(Admin::producer_state).transpose()?,
                sequences: vec![0; workload.partitions as usize],
            });
        }
        let few = 0..if (2..=FEW_PARTITIONS).contains(&workload.partitions) { workload.partitions } else { 0 };
        let mut ledger = Ledger::new(setup.first_producer + workload.producers, workload.partitions);
        ledger.expect(workload.expected());
        let request_bytes = workload.partitions_per_request() * records_per_batch * workload.record_bytes;
        Ok(Load {
            clock: setup.clock,
            window,
            until,
            schedule,
            // A bound on memory as much as on requests: what is in flight lies in sockets and in the broker.
            in_flight: workload.in_flight.min((IN_FLIGHT_BYTES_MAX / request_bytes).max(1)),
            fanout: workload.scenario == Scenario::Fanout,
            partitions: workload.partitions,
            first_producer: setup.first_producer,
            template,
            payload: setup.payload.clone(),
            keys: (workload.keys > 0).then(|| Keys::new(workload.keys, workload.partitions)),
            counters: setup.counters.clone(),
            producers,
            refusals_in_row: 0,
            sent_records: 0,
            last_answer_ns: 0,
            ledger,
            counts: Counts::default(),
            client_lag: ClientLag::default(),
            acknowledged: Recorder::new("acknowledged", loop_kind, window),
            answered: Recorder::new("answered", LoopKind::Closed, window),
            by_partition: few.map(|_| Recorder::new("partition", loop_kind, window)).collect(),
        })
    }

    pub fn connections(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.producers.iter().map(|producer| producer.connection.as_fd())
    }

    /// Sends all that is due, a request of each producer at a time.
    pub fn send_due(&mut self) -> Result<(), Failure> {
        for place in 0..self.producers.len() {
            let now_ns = self.clock.now_ns();
            // Also when nothing more is due: the rest of a request must go.
            self.producers[place].connection.flush().map_err(|error| gone(&error))?;
            let Some(due_ns) = self.due_ns(place, now_ns) else { continue };
            let producer = &mut self.producers[place];
            if now_ns < due_ns {
                producer.held = false;
                continue;
            }
            if producer.pending.len() >= self.in_flight || producer.connection.has_unsent() {
                self.counts.held += u64::from(!producer.held && self.window.contains(due_ns));
                producer.held = true;
                continue;
            }
            if self.schedule.is_some() {
                self.client_lag.count(now_ns - due_ns, producer.held);
            }
            self.send(place, now_ns)?;
        }
        Ok(())
    }

    /// When the producer's next request is to go out; none if there is no next one.
    fn due_ns(&self, place: usize, now_ns: u64) -> Option<u64> {
        match (self.until, &self.schedule) {
            (Until::Records(records), _) => (self.sent_records < records).then_some(now_ns),
            (Until::WindowEnd, Some(schedule)) => {
                let producer = &self.producers[place];
                let due_ns = self.request_due_ns(schedule, place, producer.next_number);
                // What the broker held until the end stays unsent; what the client has not come to yet still goes.
                let over = now_ns >= self.window.end_ns + if producer.held { 0 } else { CLIENT_GRACE_NS };
                (due_ns < self.window.end_ns && !over).then_some(due_ns)
            }
            (Until::WindowEnd, None) if now_ns >= self.window.end_ns => None,
            (Until::WindowEnd, None) => Some(now_ns),
        }
    }

    /// Of a fanout the schedule counts requests.
    fn request_due_ns(&self, schedule: &Schedule, place: usize, first_number: u64) -> u64 {
        if self.fanout {
            schedule.record_due_ns(place, first_number / self.records_per_request())
        } else {
            schedule.request_due_ns(place, first_number)
        }
    }

    fn records_per_request(&self) -> u64 {
        self.template.records_per_batch() as u64 * if self.fanout { self.partitions as u64 } else { 1 }
    }

    fn send(&mut self, place: usize, now_ns: u64) -> Result<(), Failure> {
        let per_batch = self.template.records_per_batch() as u64;
        let batches = if self.fanout { self.partitions } else { 1 };
        let producer = &mut self.producers[place];
        let first_number = producer.next_number;
        // Each producer begins at another partition, so that all are busy from the first request on.
        let partition = ((place as u64 + producer.requests) % self.partitions as u64) as i32;
        let timestamp_ms = wall_ms();
        for batch in 0..batches {
            let partition = if self.fanout { batch } else { partition };
            let batch_first = first_number + batch as u64 * per_batch;
            let state = producer.state.map(|state| ProducerState { sequence: producer.sequences[partition as usize], ..state });
            let (payload, keys, schedule, fanout, first_producer) =
                (&self.payload, &self.keys, &self.schedule, self.fanout, self.first_producer);
            self.template.fill_batch(batch as usize, partition, timestamp_ms, state, |number, key, value| {
                let number = batch_first + number as u64;
                let due_ns = match schedule {
                    Some(schedule) if fanout => schedule.record_due_ns(place, producer.requests),
                    Some(schedule) => schedule.record_due_ns(place, number),
                    None => now_ns,
                };
                payload.write(value, RecordId::new(first_producer + place, number), due_ns);
                if let Some(keys) = keys {
                    key.copy_from_slice(&keys.key(partition, number / per_batch));
                    debug_assert_eq!(key.len(), KEY_BYTES);
                }
            });
            producer.sequences[partition as usize] = (producer.sequences[partition as usize] + per_batch as i32) & i32::MAX;
        }
        let correlation_id = producer.next_correlation_id;
        producer.next_correlation_id = (correlation_id + 1) & i32::MAX;
        let frame = self.template.frame(correlation_id).map_err(|error| Failure::Settings(error.to_string()))?;
        producer.connection.send(frame).map_err(|error| gone(&error))?;
        producer.pending.push_back(Pending { correlation_id, partition, first_number, sent_ns: now_ns });
        producer.requests += 1;
        let records = per_batch * batches as u64;
        producer.next_number += records;
        self.sent_records += records;
        Ok(())
    }

    /// Takes what has come for the producer; one `read`, then all whole answers in it.
    pub fn receive(&mut self, place: usize) -> Result<(), Failure> {
        if !self.producers[place].connection.receive().map_err(|error| gone(&error))? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        self.last_answer_ns = now_ns;
        let per_batch = self.template.records_per_batch() as u64;
        let mut refused = false;
        let producer = &mut self.producers[place];
        while let Some(frame) = producer.connection.next_frame() {
            let answered = correlation_id(frame).map_err(|error| gone(&error))?;
            let pending = producer.pending.pop_front().filter(|pending| pending.correlation_id == answered);
            let pending = pending.ok_or_else(|| Failure::BrokerGone(format!("it answered request {answered} out of order")))?;
            let mut error_code = ErrorCode::None.code();
            read_produce(frame, |answer| {
                if answer.error_code != ErrorCode::None.code() {
                    error_code = answer.error_code;
                    return;
                }
                let first = pending.first_number + if self.fanout { answer.partition as u64 * per_batch } else { 0 };
                self.ledger.acknowledge(answer.partition, answer.base_offset, RecordId::new(self.first_producer + place, first), per_batch);
            })
            .map_err(|error| gone(&error))?;
            let in_window = self.window.contains(match &self.schedule {
                Some(schedule) if self.fanout => schedule.record_due_ns(place, pending.first_number / (per_batch * self.partitions as u64)),
                Some(schedule) => schedule.record_due_ns(place, pending.first_number),
                None => pending.sent_ns,
            });
            let records = per_batch * if self.fanout { self.partitions as u64 } else { 1 };
            if error_code != ErrorCode::None.code() {
                self.refusals_in_row += 1;
                self.counts.failed += records;
                self.counts.first_error.get_or_insert_with(|| format!("{} for partition {}", error_name(error_code), pending.partition));
                refused |= error_code == ErrorCode::KafkaStorageError.code() || self.refusals_in_row >= REFUSALS_MAX;
                continue;
            }
            self.refusals_in_row = 0;
            self.answered.record(pending.sent_ns, now_ns - pending.sent_ns);
            let first_due_ns = match &self.schedule {
                // One sample a request: its records share one fate.
                Some(schedule) if self.fanout => {
                    let due_ns = schedule.record_due_ns(place, pending.first_number / records);
                    self.acknowledged.record(due_ns, now_ns.saturating_sub(due_ns));
                    due_ns
                }
                Some(schedule) => {
                    for number in pending.first_number..pending.first_number + records {
                        let due_ns = schedule.record_due_ns(place, number);
                        self.acknowledged.record(due_ns, now_ns.saturating_sub(due_ns));
                        if let Some(recorder) = self.by_partition.get_mut(pending.partition as usize) {
                            recorder.record(due_ns, now_ns.saturating_sub(due_ns));
                        }
                    }
                    schedule.record_due_ns(place, pending.first_number)
                }
                None => {
                    (0..records).for_each(|_| self.acknowledged.record(pending.sent_ns, now_ns - pending.sent_ns));
                    pending.sent_ns
                }
            };
            self.counters.count(records, records * self.payload.record_bytes() as u64, now_ns.saturating_sub(first_due_ns));
            if in_window {
                self.counts.requests += 1;
                self.counts.acknowledged += records;
            }
            if self.window.contains(now_ns) {
                self.counts.arrived += records;
                self.counts.arrived_bytes += records * self.payload.record_bytes() as u64;
            }
        }
        if refused { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> Failure {
        let error = self.counts.first_error.as_deref().unwrap_or("an error");
        Failure::Refused(format!("{} records were answered with an error, first {error}", self.counts.failed))
    }

    /// When the next request of any producer is to go out that the broker does not hold; `now_ns` if one is due.
    pub fn next_due_ns(&self) -> Option<u64> {
        let now_ns = self.clock.now_ns();
        (0..self.producers.len()).filter(|place| !self.producers[*place].held).filter_map(|place| self.due_ns(place, now_ns)).min()
    }

    /// Nothing more is to be sent, and nothing is without an answer.
    pub fn is_done(&self) -> bool {
        self.is_sent() && self.producers.iter().all(|producer| producer.pending.is_empty())
    }

    pub fn is_sent(&self) -> bool {
        let now_ns = self.clock.now_ns();
        (0..self.producers.len()).all(|place| self.due_ns(place, now_ns).is_none())
    }

    /// When the last bytes came; 0 before the first.
    pub fn last_answer_ns(&self) -> u64 {
        self.last_answer_ns
    }

    /// Whether it ends with the window.
    pub fn is_paced(&self) -> bool {
        matches!(self.until, Until::WindowEnd)
    }

    /// Charges what was due and has not come back with the time that has passed, and says whose fault a missed rate is.
    pub fn close(&mut self) -> Option<Failure> {
        let now_ns = self.clock.now_ns();
        let schedule = self.schedule.clone()?;
        let records = self.records_per_request();
        let mut unsent_by_client = 0;
        for place in 0..self.producers.len() {
            let producer = &self.producers[place];
            let mut unfinished: Vec<u64> = producer.pending.iter().map(|pending| pending.first_number).collect();
            let mut first_number = producer.next_number;
            while self.request_due_ns(&schedule, place, first_number) < self.window.end_ns {
                unsent_by_client += if producer.held { 0 } else { records };
                unfinished.push(first_number);
                first_number += records;
            }
            let samples = if self.fanout { 1 } else { records };
            for first_number in unfinished {
                for sample in 0..samples {
                    let due_ns = if self.fanout {
                        schedule.record_due_ns(place, first_number / records)
                    } else {
                        schedule.record_due_ns(place, first_number + sample)
                    };
                    self.acknowledged.record_unfinished(due_ns, now_ns.saturating_sub(due_ns));
                    self.counts.unfinished += u64::from(self.window.contains(due_ns)) * records / samples;
                }
            }
        }
        self.counts.scheduled = self.counts.acknowledged + self.counts.unfinished + self.counts.failed;
        self.verdict_on_client(unsent_by_client)
    }

    fn verdict_on_client(&self, unsent_records: u64) -> Option<Failure> {
        let late_share = self.client_lag.late as f64 / self.client_lag.requests.max(1) as f64;
        let unsent_share = unsent_records as f64 / self.counts.scheduled.max(1) as f64;
        (late_share > CLIENT_LATE_SHARE_MAX || unsent_share > CLIENT_LATE_SHARE_MAX).then(|| {
            Failure::ClientTooSlow(format!(
                "{:.1} % of its requests left more than a millisecond late with nothing in their way (up to {:.0} us), {unsent_records} records were not sent at all",
                late_share * 100.0,
                self.client_lag.max_us
            ))
        })
    }

    /// Between the medians of the fastest partition and of the slowest, in microseconds.
    pub fn partition_spread_us(&self) -> Option<f64> {
        let medians: Vec<f64> = self.by_partition.iter().map(|recorder| recorder.finish().percentiles.p50).collect::<Option<_>>()?;
        let most = medians.iter().copied().reduce(f64::max)?;
        Some(most - medians.iter().copied().reduce(f64::min)?)
    }

    /// An error for a run that went to its end, though not everything was accepted.
    pub fn refused(&self) -> Option<Failure> {
        (self.counts.failed > 0).then(|| self.refusal())
    }
}

impl ClientLag {
    fn count(&mut self, lag_ns: u64, held: bool) {
        if held {
            return;
        }
        self.requests += 1;
        self.late += u64::from(lag_ns > CLIENT_LATE_NS);
        self.max_us = self.max_us.max(lag_ns as f64 / 1e3);
    }
}

/// What all parts of a run need to know.
pub struct Setup<'a> {
    pub workload: &'a Workload,
    pub address: SocketAddr,
    pub topic: &'a str,
    pub clock: Clock,
    pub congestion_control: Option<&'a str>,
    pub payload: Payload,
    pub counters: Arc<Counters>,
    /// Producers that have records in the topic already.
    pub first_producer: usize,
}

impl Setup<'_> {
    /// Another connection to the broker.
    pub fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(self.address, self.congestion_control).map_err(|error| Failure::Unreachable(error.to_string()))
    }
}

pub fn gone(error: &io::Error) -> Failure {
    Failure::BrokerGone(error.to_string())
}
