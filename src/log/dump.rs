//! Files of a partition as text, line by line as Kafka's kafka-dump-log prints them, so that whoever reads its output reads ours.
//!
//! Batches and records of a segment, entries of the indexes, producers of a snapshot. What a record of one of Kafka's own topics says is printed decoded where a `Decoder` is chosen.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use super::offset_index::OffsetIndex;
use super::producer_snapshot::{self, SnapshotError};
use super::producer_state::ProducerState;
use super::time_index::TimeIndex;
use super::transaction_index;
use crate::wire::batch::{
    BatchHeader, DecompressError, HEADER_BYTES, NO_SEQUENCE, RecordError, RecordIterator, RecordRef, TimestampType, decompress_all,
};
use crate::wire::describe::{self, Records};

/// Which of Kafka's own topics the records are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    Coordinator(Records),
    ClusterMetadata,
}

/// What is printed of a segment besides its batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions {
    /// One line for each record.
    pub records: bool,
    /// Its key and value too.
    pub payload: bool,
    /// Key and value only.
    pub skip_metadata: bool,
    pub decoder: Option<Decoder>,
}

/// Decompressed bytes of one batch: as many as an array of Kafka's may hold.
const RECORD_BYTES_MAX: usize = i32::MAX as usize;

/// Why the records of a batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnreadableBatch {
    Compression(DecompressError),
    Record(RecordError),
    /// Neither none nor one of the four codecs.
    UnknownCompression,
}

/// The line of a batch. `is_valid`: its checksum holds.
pub fn batch_line(header: &BatchHeader, position: u64, is_valid: bool) -> String {
    let attributes = header.attributes;
    let horizon = optional(attributes.has_delete_horizon().then_some(header.base_timestamp));
    let codec = header.compression().map_or("unknown", |compression| compression.name());
    format!(
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} partitionLeaderEpoch: {} \
         isTransactional: {} isControl: {} deleteHorizonMs: {horizon} position: {position} {}: {} size: {} magic: 2 compresscodec: {codec} \
         crc: {} isvalid: {is_valid}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.partition_leader_epoch,
        attributes.is_transactional(),
        attributes.is_control(),
        timestamp_name(header),
        header.max_timestamp,
        header.size_bytes(),
        header.crc,
    )
}

/// The lines of a batch's records.
pub fn record_lines(header: &BatchHeader, batch: &Bytes, options: &DumpOptions) -> Result<Vec<String>, UnreadableBatch> {
    let compression = header.compression().map_err(|_| UnreadableBatch::UnknownCompression)?;
    let records = decompress_all(compression, batch.slice(HEADER_BYTES..), RECORD_BYTES_MAX).map_err(UnreadableBatch::Compression)?;
    let mut lines = Vec::new();
    for record in RecordIterator::new(&records, header.record_count) {
        let record = record.map_err(UnreadableBatch::Record)?;
        if options.skip_metadata {
            if !header.attributes.is_control() {
                lines.push(content(&record, options).trim_start().to_owned());
            }
        } else {
            lines.push(record_line(header, &record, options));
        }
    }
    Ok(lines)
}

fn record_line(header: &BatchHeader, record: &RecordRef<'_>, options: &DumpOptions) -> String {
    let sequence = match header.base_sequence {
        NO_SEQUENCE => NO_SEQUENCE,
        base => base.wrapping_add(record.offset_delta) & i32::MAX,
    };
    let timestamp = match header.attributes.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(record.timestamp_delta),
    };
    let size = |part: Option<&[u8]>| part.map_or(-1, |part| part.len() as i64);
    let names: Vec<_> = record.headers().map(|header| String::from_utf8_lossy(header.key).into_owned()).collect();
    let mut line = format!(
        "| offset: {} {}: {timestamp} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]",
        header.base_offset.wrapping_add(i64::from(record.offset_delta)),
        timestamp_name(header),
        size(record.key),
        size(record.value),
        names.join(","),
    );
    if header.attributes.is_control() {
        line += &control(record);
    } else if options.payload {
        line += &content(record, options);
    }
    line
}

fn content(record: &RecordRef<'_>, options: &DumpOptions) -> String {
    let owned = |part: &[u8]| Bytes::copy_from_slice(part);
    let decoded = match (options.decoder, record.key, record.value) {
        (Some(Decoder::Coordinator(records)), Some(key), value) => {
            describe::coordinator_record(records, owned(key), value.map(owned)).ok().flatten().map(|(key, value)| (Some(key), Some(value)))
        }
        (Some(Decoder::ClusterMetadata), _, Some(value)) => describe::metadata_record(owned(value)).ok().map(|value| (None, Some(value))),
        _ => None,
    };
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let (key, value) = decoded.unwrap_or_else(|| (record.key.map(text), record.value.map(text)));
    let mut line = String::new();
    if let Some(key) = key {
        let _ = write!(line, " key: {key}");
    }
    if let Some(value) = value {
        let _ = write!(line, " payload: {value}");
    }
    line
}

/// Control records: the key is version and type, the value what the type says (KIP-98, KIP-595, KIP-630, KIP-853).
fn control(record: &RecordRef<'_>) -> String {
    let control_type = match record.key {
        Some([_, _, high, low, ..]) => i16::from_be_bytes([*high, *low]),
        _ => return " controlType: UNKNOWN(-1)".to_owned(),
    };
    let value = record.value.unwrap_or_default();
    let version = value.get(..2).map_or(0, |version| i16::from_be_bytes([version[0], version[1]]));
    let decoded = |label: &str, name: &str| {
        let text = describe::message(name, version, Bytes::copy_from_slice(value)).unwrap_or_else(|error| format!("<{error}>"));
        format!(" {label} {text}")
    };
    match control_type {
        0 | 1 => {
            let epoch = value.get(2..6).map_or(-1, |epoch| i32::from_be_bytes(epoch.try_into().expect("four bytes")));
            format!(" endTxnMarker: {} coordinatorEpoch: {epoch}", if control_type == 1 { "COMMIT" } else { "ABORT" })
        }
        2 => decoded("LeaderChange:", "LeaderChangeMessage"),
        3 => decoded("SnapshotHeader", "SnapshotHeaderRecord"),
        4 => decoded("SnapshotFooter", "SnapshotFooterRecord"),
        5 => decoded("KRaftVersion", "KRaftVersionRecord"),
        6 => decoded("KRaftVoters", "VotersRecord"),
        other => format!(" controlType: UNKNOWN({other})"),
    }
}

/// The entries of an offset index.
pub fn offset_index_lines(base_offset: i64, bytes: &[u8]) -> Vec<String> {
    let index = OffsetIndex::new(base_offset, bytes);
    (0..index.len())
        .map(|number| index.entry(number))
        .map(|entry| format!("offset: {} position: {}", entry.offset, entry.position))
        .collect()
}

/// The entries of a time index.
pub fn time_index_lines(base_offset: i64, bytes: &[u8]) -> Vec<String> {
    let index = TimeIndex::new(base_offset, bytes);
    (0..index.len())
        .map(|number| index.entry(number))
        .map(|entry| format!("timestamp: {} offset: {}", entry.timestamp, entry.offset))
        .collect()
}

/// The entries of a transaction index.
pub fn transaction_index_lines(bytes: &[u8]) -> Vec<String> {
    let line = |entry: &transaction_index::AbortedTransaction| {
        format!(
            "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
            entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset
        )
    };
    transaction_index::decode(bytes).iter().map(line).collect()
}

/// The producers of a snapshot, by id.
pub fn snapshot_lines(bytes: &[u8]) -> Result<Vec<String>, SnapshotError> {
    let producers = producer_snapshot::decode(bytes)?;
    let line = |(producer_id, state): (&i64, &Arc<ProducerState>)| {
        let mut line = format!(
            "producerId: {producer_id} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {} lastTimestamp: {} ",
            state.epoch,
            state.coordinator_epoch,
            optional(state.transaction_first_offset),
            state.last_timestamp,
        );
        if let Some(batch) = state.batches.last() {
            let _ = write!(
                line,
                "firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
                batch.first_sequence(),
                batch.last_sequence,
                batch.last_offset,
                batch.offset_delta,
                batch.timestamp
            );
        }
        line
    };
    Ok(producers.iter().map(line).collect())
}

/// As Java prints an OptionalLong.
fn optional(number: Option<i64>) -> String {
    number.map_or("OptionalLong.empty".to_owned(), |number| format!("OptionalLong[{number}]"))
}

fn timestamp_name(header: &BatchHeader) -> &'static str {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

impl std::fmt::Display for UnreadableBatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UnreadableBatch::Compression(error) => write!(formatter, "its records do not decompress: {error}"),
            UnreadableBatch::Record(error) => write!(formatter, "its records are damaged: {error}"),
            UnreadableBatch::UnknownCompression => write!(formatter, "it names no codec that there is"),
        }
    }
}

impl std::error::Error for UnreadableBatch {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::{BatchBuilder, BatchOptions, Compression};

    /// Lines that Kafka's tool has printed for such a batch.
    #[test]
    fn a_batch_and_its_records_are_kafkas_lines() {
        let options =
            BatchOptions { producer_id: 0, producer_epoch: 0, base_sequence: 2, compression: Compression::Lz4, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.push(Some(b"k1"), Some(b"one"), 1795279004750, &[("h", Some(b"v")), ("n", None)]);
        builder.push(Some(b"k2"), None, 1795279004751, &[]);
        let batch = builder.build().unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let line = batch_line(&header, 92, true);
        assert!(
            line.starts_with("baseOffset: 0 lastOffset: 1 count: 2 baseSequence: 2 lastSequence: 3 producerId: 0 producerEpoch: 0 "),
            "{line}"
        );
        assert!(
            line.contains(
                "isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty position: 92 CreateTime: 1795279004751 size: "
            ),
            "{line}"
        );
        assert!(line.contains(" magic: 2 compresscodec: lz4 crc: ") && line.ends_with(" isvalid: true"), "{line}");
        let options = DumpOptions { records: true, payload: true, ..DumpOptions::default() };
        assert_eq!(
            record_lines(&header, &batch, &options).unwrap(),
            [
                "| offset: 0 CreateTime: 1795279004750 keySize: 2 valueSize: 3 sequence: 2 headerKeys: [h,n] key: k1 payload: one",
                "| offset: 1 CreateTime: 1795279004751 keySize: 2 valueSize: -1 sequence: 3 headerKeys: [] key: k2",
            ]
        );
        let options = DumpOptions { skip_metadata: true, ..options };
        assert_eq!(record_lines(&header, &batch, &options).unwrap(), ["key: k1 payload: one", "key: k2"]);
    }

    #[test]
    fn index_entries_are_kafkas_lines() {
        let offsets = [0, 0, 0, 28, 0, 0, 0x10, 0x49];
        assert_eq!(offset_index_lines(100, &offsets), ["offset: 128 position: 4169"]);
        let mut times = 1795278777821i64.to_be_bytes().to_vec();
        times.extend(2i32.to_be_bytes());
        assert_eq!(time_index_lines(0, &times), ["timestamp: 1795278777821 offset: 2"]);
    }
}
