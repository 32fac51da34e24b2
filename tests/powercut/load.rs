//! The load that a power cut meets: producers with several requests in flight, repetitions of what is not answered yet, readers, commits, topics that come and go.
//!
//! Every thread ends when its connection does: the broker is dead by then. A promise that is broken before the cut ends the round at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use corelane_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::{DeleteRecordsRequest, FetchRequest, ListOffsetsRequest, ProduceRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch;
use harness::random::Random;
use harness::raw::{Connection, EARLIEST, code, fetch_request, produce_request, records_of};

use crate::failure::{Failure, comparing};
use crate::history::{Broken, History, Kind};

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 11;
const DELETE_RECORDS_VERSION: i16 = 2;

/// What all threads of a round share.
pub struct Round<'a> {
    pub address: SocketAddr,
    pub stop: &'a AtomicBool,
    pub failures: &'a Mutex<Vec<Failure>>,
    /// The disk fails or is full: whoever asks may be refused.
    pub is_troubled: bool,
}

impl Round<'_> {
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn check(&self, outcome: Result<(), Broken>) {
        if let Err(broken) = outcome {
            self.fail(Failure::Broken(broken));
        }
    }

    /// An answer that nobody expects. That the disk has failed is no promise broken.
    pub fn refuse(&self, error: ErrorCode, what: &str) {
        let words = format!("{what}: {}", error.name());
        self.fail(if error == ErrorCode::KafkaStorageError { Failure::Other(words) } else { Failure::Broken(words) });
    }

    pub fn fail(&self, failure: Failure) {
        self.failures.lock().expect("no panic while it is held").push(failure);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What a refusal is when the broker is about to stop, has only just begun, or has trouble with its disk: come again.
    pub fn is_passing(&self, error: ErrorCode) -> bool {
        let is_passing = matches!(
            error,
            ErrorCode::NotLeaderOrFollower
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::RequestTimedOut
        );
        is_passing || (self.is_troubled && error == ErrorCode::KafkaStorageError)
    }

    pub fn connect(&self) -> Option<Connection> {
        while !self.is_over() {
            if let Ok(connection) = Connection::open(self.address) {
                return Some(connection);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

/// Produces until the round is over.
pub fn write(round: &Round, history: &Mutex<History>, pause: Duration) {
    while let Some(mut connection) = round.connect() {
        // The end of a connection is the end of this attempt only; what it leaves in flight is for the next.
        let _ = write_on(round, &mut connection, history, pause);
        lock(history).give_up();
        thread::sleep(Duration::from_millis(5));
    }
}

fn write_on(round: &Round, connection: &mut Connection, history: &Mutex<History>, pause: Duration) -> std::io::Result<()> {
    let mut waiting = VecDeque::new();
    let again: Vec<_> = lock(history).in_flight().cloned().collect();
    for sent in again {
        waiting.push_back((send(connection, history, &sent.bytes)?, sent));
    }
    loop {
        while !round.is_over() && lock(history).may_begin() {
            let sent = lock(history).begin_batch();
            waiting.push_back((send(connection, history, &sent.bytes)?, sent));
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        let Some((correlation_id, sent)) = waiting.pop_front() else { return Ok(()) };
        let answer = connection.receive::<ProduceRequest>(PRODUCE_VERSION, correlation_id)?;
        let partition = &answer.responses[0].partition_responses[0];
        match code(partition.error_code) {
            ErrorCode::None => round.check(lock(history).hear(&sent, partition.base_offset)),
            error if round.is_passing(error) => return Ok(()),
            error => {
                let said = partition.error_message.as_deref().unwrap_or_default();
                let history = lock(history);
                round.refuse(error, &format!("{}, the batch of record {} ({said})", history.place(), sent.first));
            }
        }
    }
}

fn send(connection: &mut Connection, history: &Mutex<History>, bytes: &bytes::Bytes) -> std::io::Result<i32> {
    let (topic, partition) = place_of(history);
    connection.send(PRODUCE_VERSION, &produce_request(&topic, partition, -1, bytes.clone()))
}

/// Sends again what an idempotent producer has in flight, on another connection: as a client does that has lost patience. Whatever the answer is, it is a promise.
pub fn repeat(round: &Round, history: &Mutex<History>, mut random: Random) {
    let Some(mut connection) = round.connect() else { return };
    while !round.is_over() {
        let in_flight = {
            let history = lock(history);
            // A producer that is not known yet may begin with any sequence: the first batch must be the first.
            let count = if history.acknowledged == 0 { 0 } else { history.in_flight().len() };
            history.in_flight().nth(random.below(count.max(1) as u64) as usize).filter(|_| count > 0).cloned()
        };
        if let Some(sent) = in_flight {
            let (topic, partition) = place_of(history);
            let request = produce_request(&topic, partition, -1, sent.bytes.clone());
            let Ok(answer) = connection.try_call(PRODUCE_VERSION, &request) else { return };
            let partition = &answer.responses[0].partition_responses[0];
            // It may have come too early or too late; only what was taken counts.
            if code(partition.error_code).is_none() {
                round.check(lock(history).acknowledge(&sent, partition.base_offset));
            }
        }
        thread::sleep(Duration::from_micros(random.below(2_000)));
    }
}

/// Deletes records from the start on, now and then.
pub fn trim(round: &Round, history: &Mutex<History>, mut random: Random) {
    let Some(mut connection) = round.connect() else { return };
    while !round.is_over() {
        thread::sleep(Duration::from_micros(random.below(60_000)));
        let (topic, partition) = place_of(history);
        let offset = lock(history).ask_for_start(random.draw());
        let partition = DeleteRecordsPartition { partition_index: partition, offset, ..Default::default() };
        let topic = DeleteRecordsTopic { name: Str::from(topic.as_str()), partitions: vec![partition], ..Default::default() };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let Ok(answer) = connection.try_call(DELETE_RECORDS_VERSION, &request) else { return };
        let partition = &answer.topics[0].partitions[0];
        if code(partition.error_code).is_none() {
            lock(history).see_start(partition.low_watermark);
        }
    }
}

/// Reads every partition's end, over and over.
pub fn read(round: &Round, histories: &[Mutex<History>]) {
    let Some(mut connection) = round.connect() else { return };
    let mut positions: Vec<i64> = histories.iter().map(|history| lock(history).known_end()).collect();
    while !round.is_over() {
        for (history, position) in histories.iter().zip(&mut positions) {
            if read_on(round, &mut connection, history, position).is_err() {
                return;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn read_on(round: &Round, connection: &mut Connection, history: &Mutex<History>, position: &mut i64) -> std::io::Result<()> {
    let (topic, partition) = place_of(history);
    let request = FetchRequest { max_wait_ms: 0, ..fetch_request(&[(&topic, partition, *position)]) };
    let mut answer = connection.try_call(FETCH_VERSION, &request)?;
    let data = answer.responses.remove(0).partitions.remove(0);
    match code(data.error_code) {
        ErrorCode::None => {}
        ErrorCode::OffsetOutOfRange if matches!(lock(history).kind, Kind::Expiring | Kind::Trimmed) => {
            *position = try_offset(connection, &topic, partition, EARLIEST)?.unwrap_or(*position);
            return Ok(());
        }
        error if round.is_passing(error) => return Ok(()),
        error => {
            round.refuse(error, &format!("{topic}-{partition}: fetching at {position}"));
            return Ok(());
        }
    }
    let batches = match comparing(|| batch::read_batches(&records_of(&data))) {
        Ok(batches) => batches,
        Err(words) => {
            round.check(Err(format!("{topic}-{partition}: what is fetched at {position} cannot be read: {words}")));
            return Ok(());
        }
    };
    for batch in batches {
        for (offset, record) in batch.records.iter().filter(|(offset, _)| *offset >= *position) {
            round.check(lock(history).see(*offset, record));
        }
        *position = batch.last_offset() + 1;
    }
    Ok(())
}

/// An offset by timestamp; None while the partition does not say.
pub fn try_offset(connection: &mut Connection, topic: &str, partition: i32, timestamp: i64) -> std::io::Result<Option<i64>> {
    let partition = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp, ..Default::default() };
    let topic = ListOffsetsTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
    let answer = connection.try_call(7, &ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() })?;
    let partition = &answer.topics[0].partitions[0];
    Ok((partition.error_code == 0).then_some(partition.offset))
}

pub fn place_of(history: &Mutex<History>) -> (String, i32) {
    let history = lock(history);
    (history.topic.clone(), history.partition)
}

pub fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().expect("no panic while it is held")
}
