//! A producer that knows afterwards what it was promised: every record of its own partition can be told from its index, and every acknowledgement is kept.
//!
//! It keeps five batches in flight on one connection, as the official clients do. An idempotent writer sends again, with the same sequences, what was unanswered when its
//! connection ended; a plain one gives it up as uncertain.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use corelane_wire::ErrorCode;
use corelane_wire::messages::ProduceRequest;
use harness::batch::{Batch, Codec, Record, now_ms};
pub use harness::random::mix;
use harness::raw::{Connection, code, produce_request};

const IN_FLIGHT_MAX: usize = 5;

/// What writers share with the test that watches them.
#[derive(Default)]
pub struct Progress {
    pub stop: AtomicBool,
    /// Batches acknowledged by all writers together.
    pub acknowledged: AtomicU64,
}

/// Tells threads to stop at the end of the scope that waits for them, however that end comes: a failed assertion would otherwise wait for ever.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Idempotent,
    /// With these acks.
    Plain(i16),
}

pub struct Writer {
    pub topic: String,
    pub partition: i32,
    kind: Kind,
    producer_id: i64,
    /// Of record 0; the others follow by the millisecond. It must be near now: producers are forgotten, and records deleted, by the time that their batches carry.
    base_timestamp: i64,
    /// Index of the next record to be written for the first time.
    next: u64,
    /// How long it rests after each answer.
    rest: Duration,
    in_flight: VecDeque<Sent>,
    /// Answered batches, as (first index, count, offset of the first).
    promised: Vec<(u64, u64, i64)>,
    verified: Verified,
}

/// How far the partition was compared with the promises.
#[derive(Clone, Copy, Default)]
struct Verified {
    end: i64,
    last_index: Option<u64>,
    promises: usize,
}

struct Sent {
    first: u64,
    count: u64,
    bytes: Bytes,
    correlation_id: i32,
}

impl Writer {
    pub fn new(topic: &str, partition: i32, kind: Kind, producer_id: i64) -> Writer {
        Writer {
            topic: topic.to_string(),
            partition,
            kind,
            producer_id,
            base_timestamp: now_ms(),
            next: 0,
            rest: Duration::ZERO,
            in_flight: VecDeque::new(),
            promised: Vec::new(),
            verified: Verified::default(),
        }
    }

    /// The same, at a pace that leaves the machine to others.
    pub fn resting(self, rest: Duration) -> Writer {
        Writer { rest, ..self }
    }

    pub fn promised(&self) -> u64 {
        self.promised.iter().map(|(_, count, _)| count).sum()
    }

    /// Writes until told to stop; connections that end are made anew. On stopping, waits for the answers that are due, if they come.
    pub fn run(&mut self, address: SocketAddr, progress: &Arc<Progress>) {
        while !progress.stop.load(Ordering::Relaxed) {
            if let Ok(mut connection) = Connection::open(address) {
                // An error is the end of this connection only; what it leaves is told apart by `give_up_or_keep`.
                let _ = self.run_connection(&mut connection, progress);
            }
            self.give_up_or_keep();
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn run_connection(&mut self, connection: &mut Connection, progress: &Arc<Progress>) -> std::io::Result<()> {
        for sent in &mut self.in_flight {
            sent.correlation_id =
                connection.send(9, &produce_request(&self.topic, self.partition, self.kind.acks(), sent.bytes.clone()))?;
        }
        loop {
            let stopping = progress.stop.load(Ordering::Relaxed);
            while !stopping && self.in_flight.len() < IN_FLIGHT_MAX {
                let sent = self.send_next(connection)?;
                self.in_flight.push_back(sent);
            }
            let Some(oldest) = self.in_flight.front() else { return Ok(()) };
            let answer = connection.receive::<ProduceRequest>(9, oldest.correlation_id)?;
            let partition = &answer.responses[0].partition_responses[0];
            match code(partition.error_code) {
                ErrorCode::None => {
                    self.promised.push((oldest.first, oldest.count, partition.base_offset));
                    self.in_flight.pop_front();
                    progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(self.rest);
                }
                // A broker that has only just started, or is about to stop: from the start again, as clients do after they looked for the leader.
                ErrorCode::NotLeaderOrFollower
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::RequestTimedOut => return Ok(()),
                error => {
                    panic!("{}-{}: {} for the batch that begins with record {}", self.topic, self.partition, error.name(), oldest.first)
                }
            }
        }
    }

    fn send_next(&mut self, connection: &mut Connection) -> std::io::Result<Sent> {
        let (first, count) = (self.next, 1 + mix(self.next ^ 0x5eed) % 8);
        let mut batch = Batch::of((first..first + count).map(|index| self.record(index)).collect()).codec(codec(first));
        if self.kind == Kind::Idempotent {
            batch = batch.producer(self.producer_id, 0, first as i32);
        }
        let bytes = batch.encode();
        self.next += count;
        let sent = connection.send(9, &produce_request(&self.topic, self.partition, self.kind.acks(), bytes.clone()));
        match sent {
            Ok(correlation_id) => Ok(Sent { first, count, bytes, correlation_id }),
            Err(error) => {
                // Some of it may have arrived: it is in flight like the others.
                self.in_flight.push_back(Sent { first, count, bytes, correlation_id: 0 });
                Err(error)
            }
        }
    }

    /// The record with this index: small ones mostly, now and then one of some ten KiB, half of it noise.
    fn record(&self, index: u64) -> Record {
        let random = mix(index ^ (self.partition as u64) << 48);
        let length = if random.is_multiple_of(50) { 20_000 + random % 40_000 } else { random % 400 };
        let value = (0..length).map(|position| if position % 2 == 0 { b'.' } else { mix(random ^ position) as u8 }).collect();
        Record {
            key: Some(index.to_string().into_bytes()),
            value: Some(value),
            headers: Vec::new(),
            timestamp: self.base_timestamp + index as i64,
        }
    }

    fn give_up_or_keep(&mut self) {
        if self.kind != Kind::Idempotent {
            self.in_flight.clear();
        }
    }

    /// Checks the partition against what was promised: everything acknowledged is there once, at its offset, with its content, in order; nothing is there that was not sent,
    /// or twice; and of an idempotent writer nothing is missing in between.
    pub fn verify(&mut self, connection: &mut Connection) {
        self.verified = Verified::default();
        self.verify_further(connection);
    }

    /// The same for what was not there at the last check; over hundreds of rounds, reading everything each time would take longer than the load.
    pub fn verify_further(&mut self, connection: &mut Connection) {
        let place = format!("{}-{}", self.topic, self.partition);
        let Verified { end, mut last_index, promises } = self.verified;
        let log_end = connection.end_offset(&self.topic, self.partition);
        assert!(log_end >= end, "{place}: what was read before is gone; the log ended at {end} and ends now at {log_end}");
        let read = connection.read_all(&self.topic, self.partition, end);
        for (position, (offset, found)) in read.iter().enumerate() {
            assert_eq!(*offset, end + position as i64, "{place}: offsets count up");
            let index = index_of(found);
            assert!(index < self.next, "{place}: record {index} was never sent");
            assert!(last_index.is_none_or(|last| index > last), "{place}: record {index} at offset {offset} after record {last_index:?}");
            assert!(
                self.kind != Kind::Idempotent || index as i64 == *offset,
                "{place}: record {index} at offset {offset} of an idempotent writer"
            );
            assert!(*found == self.record(index), "{place}: record {index} at offset {offset} has another content");
            last_index = Some(index);
        }
        let new_end = end + read.len() as i64;
        for (first, count, base_offset) in &self.promised[promises..] {
            for step in 0..*count {
                let (index, offset) = (first + step, base_offset + step as i64);
                if offset < end {
                    // It was there before its acknowledgement, which only the repetition after a restart brought; an idempotent writer's offsets are its indexes.
                    assert_eq!((self.kind, index as i64), (Kind::Idempotent, offset), "{place}: acknowledged anew");
                    continue;
                }
                let found = usize::try_from(offset - end).ok().and_then(|position| read.get(position));
                let (_, found) = found.unwrap_or_else(|| {
                    panic!("{place}: acknowledged record {index} at offset {offset} is lost; the log ends at {new_end}")
                });
                assert_eq!(index_of(found), index, "{place}: offset {offset}");
            }
        }
        self.verified = Verified { end: new_end, last_index, promises: self.promised.len() };
    }
}

impl Kind {
    fn acks(self) -> i16 {
        match self {
            Kind::Idempotent => -1,
            Kind::Plain(acks) => acks,
        }
    }
}

fn index_of(record: &Record) -> u64 {
    let key = record.key.as_deref().expect("a key");
    std::str::from_utf8(key).expect("digits").parse().expect("an index")
}

fn codec(first: u64) -> Codec {
    Codec::ALL[(mix(first) % 12).min(5) as usize % 6]
}
