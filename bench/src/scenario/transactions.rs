//! `transactions`: each producer goes through one transaction after another, which is all that the protocol allows it; a transaction is due on a schedule, and its latency ends with the
//! answer that it is committed. What was committed is read back as a consumer of committed records sees it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use corelane_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use corelane_wire::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, FindCoordinatorRequest, InitProducerIdRequest,
};
use corelane_wire::{ApiKey, Decoder, ErrorCode, Message, Str, read_response_header};

use super::{Target, conclude, facts, read_all};
use crate::client::INIT_PRODUCER_ID_VERSION;
use crate::client::admin::{Admin, error_name};
use crate::client::answer::read_produce;
use crate::client::connection::{Connection, frame_of, invalid};
use crate::client::readiness::Readiness;
use crate::client::template::{ProducerState, Template};
use crate::clock::{Clock, seconds_ns, wall_ms};
use crate::failure::Failure;
use crate::load::{ClientLag, Counts, Setup, gone};
use crate::outcome::Outcome;
use crate::payload::{Payload, RecordId};
use crate::progress::Monitor;
use crate::recorder::{LoopKind, Recorder, Window};
use crate::schedule::Schedule;
use crate::verify::Ledger;
use crate::workload::Rate;

const ADD_PARTITIONS_VERSION: i16 = 3;
const END_TXN_VERSION: i16 = 3;
const FIND_COORDINATOR_VERSION: i16 = 2;
const TRANSACTION_COORDINATOR: i8 = 1;

/// The coordinator may still be busy with the markers of the transaction before.
const AGAIN_NS: u64 = 1_000_000;
const LAST_ANSWER_MAX_NS: u64 = 15_000_000_000;

pub fn run(setup: &Setup<'_>, mut admin: Admin, target: &Target) -> Result<Outcome, Failure> {
    let workload = setup.workload;
    let began = SystemTime::now();
    let starts = admin.end_offsets(setup.topic, workload.partitions)?;
    let mut producers = Vec::with_capacity(workload.producers);
    for place in 0..workload.producers {
        producers.push(Producer::connect(setup, place)?);
    }
    admin.prepare_coordinators("__transaction_state", workload.class)?;
    let start_ns = setup.clock.now_ns() + 10_000_000;
    let window_start_ns = start_ns + seconds_ns(workload.warm_up_seconds);
    let window = Window { start_ns: window_start_ns, end_ns: window_start_ns + seconds_ns(workload.duration_seconds) };
    let schedule = match workload.rate {
        Rate::PerSecond(rate) => Some(Schedule::new(start_ns, rate, workload.producers, 1, None)),
        _ => None,
    };
    let loop_kind = if schedule.is_some() { LoopKind::Open } else { LoopKind::Closed };
    let mut parts = Parts {
        clock: setup.clock,
        window,
        schedule,
        topic: Str::from(setup.topic),
        partitions: workload.partitions,
        written_to: workload.transaction_partitions,
        records: (workload.batch_records / workload.transaction_partitions) as u64,
        payload: setup.payload.clone(),
        readiness: Readiness::of(producers.iter().map(|producer| producer.connection.as_fd())).map_err(Failure::machine("epoll"))?,
        producers,
        ledger: Ledger::new(workload.producers, workload.partitions),
        counts: Counts::default(),
        committed: Recorder::new("committed", loop_kind, window),
        acknowledged: Recorder::new("acknowledged", LoopKind::Closed, window),
        ended: Recorder::new("ended", LoopKind::Closed, window),
    };
    let monitor = Monitor::start(setup.clock, &setup.counters, target.watched.clone(), Some(window), target);
    let stopped = parts.run(setup).err();
    let costs = monitor.finish();
    parts.close();
    let recorders = [&parts.committed, &parts.acknowledged, &parts.ended];
    if let Some(path) = &target.keep {
        for recorder in recorders {
            recorder.keep(path, began).map_err(|error| Failure::Machine(error.to_string()))?;
        }
    }
    let (verdict, not_read_back) = match read_all(setup, &mut admin, target, &starts, &parts.ledger) {
        Ok(verdict) => (Some(verdict), None),
        Err(why) => (None, Some(why)),
    };
    // Those that were committed within the window, whenever they were due.
    let transactions = parts.counts.arrived as f64 / workload.batch_records as f64 / window.seconds();
    let outcome = Outcome {
        workload: workload.clone(),
        client: facts(target),
        seconds: window.seconds(),
        records: parts.counts.arrived,
        bytes: parts.counts.arrived_bytes,
        counts: parts.counts.clone(),
        client_lag: ClientLag::default(),
        latencies: recorders.iter().map(|recorder| recorder.finish()).collect(),
        costs,
        more: [("transactions_per_second".to_string(), transactions)].into(),
        verdict: None,
        not_read_back,
        partial: stopped.is_some(),
        failure: stopped,
    };
    Ok(conclude(outcome, verdict))
}

/// Where a producer is in its transaction.
#[derive(Clone, Copy)]
enum Step {
    Idle,
    /// The partitions are being added, or are to be from then on.
    Adding {
        due_ns: u64,
    },
    AddingAgain {
        due_ns: u64,
        at_ns: u64,
    },
    Producing {
        due_ns: u64,
        sent_ns: u64,
    },
    Ending {
        due_ns: u64,
        sent_ns: u64,
    },
    EndingAgain {
        due_ns: u64,
        /// When it was asked to end for the first time.
        sent_ns: u64,
        at_ns: u64,
    },
}

struct Producer {
    connection: Connection,
    transactional_id: Str,
    state: ProducerState,
    template: Template,
    sequences: Vec<i32>,
    transactions: u64,
    /// Where the records of the transaction begin, as they were acknowledged, by partition.
    base_offsets: Vec<(i32, i64)>,
    step: Step,
}

impl Producer {
    fn connect(setup: &Setup<'_>, place: usize) -> Result<Producer, Failure> {
        let mut connection = setup.connect()?;
        let transactional_id = format!("{}-{place}", setup.topic);
        let state = Producer::init(&mut connection, &transactional_id)?;
        let template = Template::transactional(setup.workload, setup.topic, &transactional_id)
            .map_err(|error| Failure::Settings(error.to_string()))?;
        Ok(Producer {
            connection,
            transactional_id: Str::from(transactional_id.as_str()),
            state,
            template,
            sequences: vec![0; setup.workload.partitions as usize],
            transactions: 0,
            base_offsets: Vec::new(),
            step: Step::Idle,
        })
    }

    /// Finds its coordinator and gets its id, both as often as it takes: a broker makes the topic of transactions when it is first asked.
    fn init(connection: &mut Connection, transactional_id: &str) -> Result<ProducerState, Failure> {
        let mut code = 0;
        for _ in 0..300 {
            let find = FindCoordinatorRequest { key: Str::from(transactional_id), key_type: TRANSACTION_COORDINATOR, ..Default::default() };
            code = connection.ask(FIND_COORDINATOR_VERSION, &find).map_err(|error| gone(&error))?.error_code;
            if code == 0 {
                let request = InitProducerIdRequest {
                    transactional_id: Some(Str::from(transactional_id)),
                    transaction_timeout_ms: 60_000,
                    ..Default::default()
                };
                let response = connection.ask(INIT_PRODUCER_ID_VERSION, &request).map_err(|error| gone(&error))?;
                code = response.error_code;
                if code == 0 {
                    return Ok(ProducerState { id: response.producer_id, epoch: response.producer_epoch, sequence: 0 });
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Failure::Refused(format!("no producer id for {transactional_id}: {}", error_name(code))))
    }
}

struct Parts {
    clock: Clock,
    window: Window,
    schedule: Option<Schedule>,
    topic: Str,
    partitions: i32,
    /// How many partitions a transaction writes to.
    written_to: usize,
    /// Into each of them.
    records: u64,
    payload: Payload,
    producers: Vec<Producer>,
    readiness: Readiness,
    ledger: Ledger,
    counts: Counts,
    /// From the time when a transaction was due to the answer that it is committed.
    committed: Recorder,
    /// Of the records inside: from sending to acknowledgement.
    acknowledged: Recorder,
    /// From the question to end the transaction to the answer that it is committed.
    ended: Recorder,
}

impl Parts {
    fn run(&mut self, setup: &Setup<'_>) -> Result<(), Failure> {
        loop {
            let now_ns = self.clock.now_ns();
            let is_over = now_ns >= self.window.end_ns;
            for place in 0..self.producers.len() {
                self.go_on(place, now_ns, is_over).map_err(|error| gone(&error))?;
            }
            let ready: Vec<usize> = self.readiness.look().map_err(Failure::machine("epoll"))?.to_vec();
            for place in ready {
                self.receive(place, setup)?;
            }
            let is_idle = |producer: &Producer| matches!(producer.step, Step::Idle);
            if is_over && (self.producers.iter().all(is_idle) || now_ns > self.window.end_ns + LAST_ANSWER_MAX_NS) {
                return Ok(());
            }
        }
    }

    /// Begins what is due, and asks again what had to wait.
    fn go_on(&mut self, place: usize, now_ns: u64, is_over: bool) -> io::Result<()> {
        self.producers[place].connection.flush()?;
        match self.producers[place].step {
            Step::Idle if !is_over => {
                let producer = &self.producers[place];
                let due_ns = self.schedule.as_ref().map_or(now_ns, |schedule| schedule.record_due_ns(place, producer.transactions));
                if due_ns <= now_ns && due_ns < self.window.end_ns { self.add_partitions(place, due_ns) } else { Ok(()) }
            }
            Step::AddingAgain { due_ns, at_ns } if now_ns >= at_ns => self.add_partitions(place, due_ns),
            Step::EndingAgain { due_ns, sent_ns, at_ns } if now_ns >= at_ns => self.end(place, due_ns, sent_ns),
            _ => Ok(()),
        }
    }

    /// Of the transaction that is under way, or comes next.
    fn partitions(&self, place: usize) -> impl Iterator<Item = i32> + use<> {
        let first = place as u64 + self.producers[place].transactions * self.written_to as u64;
        let partitions = self.partitions as u64;
        (0..self.written_to as u64).map(move |number| ((first + number) % partitions) as i32)
    }

    /// The first record that it writes to the partition at that place.
    fn first_record(&self, place: usize, number: usize) -> u64 {
        (self.producers[place].transactions * self.written_to as u64 + number as u64) * self.records
    }

    fn add_partitions(&mut self, place: usize, due_ns: u64) -> io::Result<()> {
        let partitions = self.partitions(place).collect();
        let producer = &mut self.producers[place];
        let topic = AddPartitionsToTxnTopic { name: self.topic.clone(), partitions, ..Default::default() };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: producer.transactional_id.clone(),
            v3_and_below_producer_id: producer.state.id,
            v3_and_below_producer_epoch: producer.state.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        producer.step = Step::Adding { due_ns };
        producer.connection.send(&frame_of(ADD_PARTITIONS_VERSION, 1, &request)?)
    }

    fn produce(&mut self, place: usize, due_ns: u64) -> io::Result<()> {
        let records = self.records;
        for (number, partition) in self.partitions(place).enumerate() {
            let (first, payload) = (self.first_record(place, number), &self.payload);
            let producer = &mut self.producers[place];
            let state = ProducerState { sequence: producer.sequences[partition as usize], ..producer.state };
            producer.template.fill_batch(number, partition, wall_ms(), Some(state), |index, _, value| {
                payload.write(value, RecordId::new(place, first + index as u64), due_ns);
            });
            producer.sequences[partition as usize] += records as i32;
        }
        let producer = &mut self.producers[place];
        producer.step = Step::Producing { due_ns, sent_ns: self.clock.now_ns() };
        let frame = producer.template.frame(1)?;
        producer.connection.send(frame)
    }

    fn end(&mut self, place: usize, due_ns: u64, sent_ns: u64) -> io::Result<()> {
        let producer = &mut self.producers[place];
        let request = EndTxnRequest {
            transactional_id: producer.transactional_id.clone(),
            producer_id: producer.state.id,
            producer_epoch: producer.state.epoch,
            committed: true,
            ..Default::default()
        };
        producer.step = Step::Ending { due_ns, sent_ns };
        producer.connection.send(&frame_of(END_TXN_VERSION, 1, &request)?)
    }

    fn receive(&mut self, place: usize, setup: &Setup<'_>) -> Result<(), Failure> {
        let producer = &mut self.producers[place];
        if !producer.connection.receive().map_err(|error| gone(&error))? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        // One question at a time, so one answer.
        let Some(frame) = producer.connection.next_frame().map(Bytes::copy_from_slice) else { return Ok(()) };
        self.on_answer(place, frame, now_ns, setup)
    }

    fn on_answer(&mut self, place: usize, frame: Bytes, now_ns: u64, setup: &Setup<'_>) -> Result<(), Failure> {
        match self.producers[place].step {
            Step::Adding { due_ns } => {
                let response: AddPartitionsToTxnResponse =
                    read(frame, ApiKey::AddPartitionsToTxn, ADD_PARTITIONS_VERSION).map_err(|error| gone(&error))?;
                let partitions = response.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
                match partitions.map(|partition| partition.partition_error_code).find(|code| *code != 0) {
                    None => self.produce(place, due_ns).map_err(|error| gone(&error)),
                    Some(code) if is_passing(code) => {
                        self.producers[place].step = Step::AddingAgain { due_ns, at_ns: now_ns + AGAIN_NS };
                        Ok(())
                    }
                    Some(code) => Err(self.refused("AddPartitionsToTxn", code)),
                }
            }
            Step::Producing { due_ns, sent_ns } => {
                let (mut refused, base_offsets) = (None, &mut self.producers[place].base_offsets);
                base_offsets.clear();
                read_produce(&frame, |answer| match answer.error_code {
                    0 => base_offsets.push((answer.partition, answer.base_offset)),
                    code => refused = Some(code),
                })
                .map_err(|error| gone(&error))?;
                if let Some(code) = refused {
                    return Err(self.refused("Produce", code));
                }
                self.acknowledged.record(sent_ns, now_ns - sent_ns);
                self.end(place, due_ns, now_ns).map_err(|error| gone(&error))
            }
            Step::Ending { due_ns, sent_ns } => {
                let response: EndTxnResponse = read(frame, ApiKey::EndTxn, END_TXN_VERSION).map_err(|error| gone(&error))?;
                match response.error_code {
                    0 => {
                        self.ended.record(sent_ns, now_ns - sent_ns);
                        self.on_committed(place, due_ns, now_ns, setup);
                    }
                    code if is_passing(code) => {
                        self.producers[place].step = Step::EndingAgain { due_ns, sent_ns, at_ns: now_ns + AGAIN_NS };
                    }
                    code => return Err(self.refused("EndTxn", code)),
                }
                Ok(())
            }
            Step::Idle | Step::AddingAgain { .. } | Step::EndingAgain { .. } => {
                Err(Failure::BrokerGone("it answered what nobody had asked".to_string()))
            }
        }
    }

    fn on_committed(&mut self, place: usize, due_ns: u64, now_ns: u64, setup: &Setup<'_>) {
        for (number, partition) in self.partitions(place).enumerate() {
            let first = RecordId::new(place, self.first_record(place, number));
            // One that is not in the answer was not acknowledged, and will be missed when the records are read.
            let base_offset = self.producers[place].base_offsets.iter().find(|(of, _)| *of == partition).map_or(-1, |(_, offset)| *offset);
            self.ledger.acknowledge(partition, base_offset, first, self.records);
        }
        let records = self.records * self.written_to as u64;
        let latency_ns = now_ns.saturating_sub(due_ns);
        self.committed.record(due_ns, latency_ns);
        let bytes = records * self.payload.record_bytes() as u64;
        setup.counters.count(records, bytes, latency_ns);
        if self.window.contains(due_ns) {
            self.counts.acknowledged += records;
        }
        if self.window.contains(now_ns) {
            self.counts.arrived += records;
            self.counts.arrived_bytes += bytes;
        }
        let producer = &mut self.producers[place];
        producer.transactions += 1;
        producer.step = Step::Idle;
    }

    fn refused(&mut self, what: &str, code: i16) -> Failure {
        let error = format!("{what}: {}", error_name(code));
        self.counts.failed += self.records * self.written_to as u64;
        self.counts.first_error.get_or_insert_with(|| error.clone());
        Failure::Refused(error)
    }

    /// Charges transactions that were due and are not committed.
    fn close(&mut self) {
        let now_ns = self.clock.now_ns();
        if let Some(schedule) = &self.schedule {
            for (place, producer) in self.producers.iter().enumerate() {
                for number in producer.transactions.. {
                    let due_ns = schedule.record_due_ns(place, number);
                    if due_ns >= self.window.end_ns {
                        break;
                    }
                    self.committed.record_unfinished(due_ns, now_ns.saturating_sub(due_ns));
                    self.counts.unfinished += u64::from(self.window.contains(due_ns)) * self.records * self.written_to as u64;
                }
            }
            self.counts.scheduled = self.counts.acknowledged + self.counts.failed + self.counts.unfinished;
        }
    }
}

fn is_passing(code: i16) -> bool {
    [ErrorCode::ConcurrentTransactions, ErrorCode::CoordinatorLoadInProgress, ErrorCode::CoordinatorNotAvailable, ErrorCode::NotCoordinator]
        .iter()
        .any(|passing| passing.code() == code)
}

fn read<M: Message>(frame: Bytes, api_key: ApiKey, version: i16) -> io::Result<M> {
    let mut decoder = Decoder::new(frame);
    read_response_header(&mut decoder, api_key, version).map_err(invalid)?;
    M::decode(&mut decoder, version).map_err(invalid)
}
