//! What a partition holds, as a reader gets it.

use std::time::Instant;

use corelane_wire::ErrorCode;
use harness::batch::{self, Record};
use harness::raw::{Connection, EARLIEST, code, records_of};
use harness::wait;

use crate::history::Found;

/// The whole partition, as a reader gets it. Retention may take the first of it meanwhile; then again.
pub fn found_in(connection: &mut Connection, topic: &str, partition: i32) -> Found {
    loop {
        let start = connection.list_offset(topic, partition, EARLIEST).offset;
        let end = connection.end_offset(topic, partition);
        if let Some(records) = read_between(connection, topic, partition, start, end) {
            return Found { start, end, leader_epoch: leader_epoch_of(connection, topic, partition), records };
        }
    }
}

fn leader_epoch_of(connection: &mut Connection, topic: &str, partition: i32) -> i32 {
    let described = connection.metadata(12, &[topic]).topics.remove(0);
    let described = described.partitions.into_iter().find(|described| described.partition_index == partition);
    described.unwrap_or_else(|| panic!("{topic}-{partition} is not there any more")).leader_epoch
}

fn read_between(connection: &mut Connection, topic: &str, partition: i32, start: i64, end: i64) -> Option<Vec<(i64, Record)>> {
    let (mut records, mut next) = (Vec::new(), start);
    let mut moved = Instant::now();
    while next < end {
        assert!(moved.elapsed() < wait::PATIENCE, "fetching {topic}-{partition} at {next} gives nothing, and its end is {end}");
        let data = connection.fetch(topic, partition, next);
        match code(data.error_code) {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => return None,
            error => panic!("fetching {topic}-{partition} at {next}: {}", error.name()),
        }
        for batch in batch::read_batches(&records_of(&data)) {
            records.extend(batch.records.iter().filter(|(offset, _)| *offset >= next).cloned());
            (next, moved) = (batch.last_offset() + 1, Instant::now());
        }
    }
    Some(records)
}
