//! Reading back: every acknowledged record, once, at its offset, with its content.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::batch::{BatchIterator, RecordIterator};
use corelane_wire::messages::FetchRequest;
use corelane_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use corelane_wire::{ErrorCode, Str};

use crate::ProduceArguments;
use crate::connection::{Connection, invalid};

const FETCH_VERSION: i16 = 11;
const FETCH_BYTES_MAX: i32 = 8 * 1024 * 1024;
const NO_PROGRESS_MAX: Duration = Duration::from_secs(30);

/// The value of record `number`: the number, then bytes that follow from their place.
pub fn value_of(number: u64, bytes: usize) -> Vec<u8> {
    let mut value: Vec<u8> = (0..bytes.max(8)).map(|place| (place as u8).wrapping_mul(31).wrapping_add(7)).collect();
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// What the broker has acknowledged: for each partition, which record lies at which offset.
pub struct Acknowledged {
    partitions: Vec<Vec<(i64, u64)>>,
}

impl Acknowledged {
    pub fn new(partitions: i32) -> Acknowledged {
        Acknowledged { partitions: vec![Vec::new(); partitions as usize] }
    }

    pub fn add(&mut self, partition: i32, offset: i64, number: u64) {
        self.partitions[partition as usize].push((offset, number));
    }
}

/// What reading back found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub read: u64,
    pub missing: u64,
    pub changed: u64,
    pub misplaced: u64,
}

impl Verdict {
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.changed == 0 && self.misplaced == 0
    }
}

pub fn read_back(connection: &mut Connection, arguments: &ProduceArguments, acknowledged: &Acknowledged) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    for (partition, expected) in acknowledged.partitions.iter().enumerate() {
        read_partition(connection, arguments, partition as i32, expected, &mut verdict)?;
    }
    Ok(verdict)
}

fn read_partition(
    connection: &mut Connection,
    arguments: &ProduceArguments,
    partition: i32,
    expected: &[(i64, u64)],
    verdict: &mut Verdict,
) -> io::Result<()> {
    let template = value_of(0, arguments.record_bytes);
    let mut expected = expected.iter().peekable();
    let mut offset = expected.peek().map_or(0, |(offset, _)| *offset);
    let mut last_progress = Instant::now();
    while expected.peek().is_some() {
        let records = fetch(connection, &arguments.topic, partition, offset)?;
        if records.is_empty() {
            if last_progress.elapsed() > NO_PROGRESS_MAX {
                verdict.missing += expected.by_ref().count() as u64;
                return Ok(());
            }
            continue;
        }
        last_progress = Instant::now();
        for batch in BatchIterator::new(records) {
            // The last batch of an answer may be cut.
            let Ok((header, bytes)) = batch else { break };
            for record in RecordIterator::new(&bytes[corelane_wire::batch::HEADER_BYTES..], header.record_count) {
                let record = record.map_err(|error| invalid(format!("{error:?}")))?;
                let at = header.base_offset + i64::from(record.offset_delta);
                if at < offset {
                    continue;
                }
                offset = at + 1;
                while expected.peek().is_some_and(|(wanted, _)| *wanted < at) {
                    verdict.missing += 1;
                    expected.next();
                }
                if let Some((_, number)) = expected.next_if(|(wanted, _)| *wanted == at) {
                    verdict.read += 1;
                    let value = record.value.unwrap_or_default();
                    let sent = value.len() >= 8 && value[8..] == template[8..];
                    if !sent {
                        verdict.changed += 1;
                    } else if value[..8] != number.to_le_bytes() {
                        verdict.misplaced += 1;
                    }
                }
            }
        }
    }
    Ok(())
}

fn fetch(connection: &mut Connection, topic: &str, partition: i32, offset: i64) -> io::Result<Bytes> {
    let wanted = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: FETCH_BYTES_MAX,
        current_leader_epoch: -1,
        ..Default::default()
    };
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: FETCH_BYTES_MAX,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: Str::from(topic), partitions: vec![wanted], ..Default::default() }],
        ..Default::default()
    };
    let response = connection.ask(FETCH_VERSION, &request)?;
    let data = response.responses.first().and_then(|topic| topic.partitions.first()).ok_or_else(|| invalid("Fetch answered nothing"))?;
    if data.error_code != 0 {
        let name = ErrorCode::try_from(data.error_code).map_or("unknown error", |code| code.name());
        return Err(io::Error::other(format!("reading back {topic}-{partition} from {offset}: {name}")));
    }
    Ok(data.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default())
}
