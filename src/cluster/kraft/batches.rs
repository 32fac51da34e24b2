//! The batches of the metadata log: written uncompressed, with the epoch of the leader that wrote them, one batch for the records of one decision.

use std::fmt;

use bytes::Bytes;

use crate::cluster::features::MetadataVersion;
use crate::cluster::record::{MetadataRecord, RecordError};
use crate::wire::batch::{
    BatchBuilder, BatchError, BatchHeader, BatchOptions, DecompressError, HEADER_BYTES, RecordIterator, decompress_all,
};
use crate::wire::{DecodeError, EncodeError};

use super::control::ControlRecord;

/// What a batch of the metadata log may hold at most; Kafka's bound is 8 MiB.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    pub base_offset: i64,
    pub epoch: i32,
    /// The time of all its records.
    pub timestamp_ms: i64,
}

/// A batch of metadata records.
pub fn metadata_batch(records: &[MetadataRecord], level: MetadataVersion, place: BatchPlace) -> Result<Bytes, EncodeError> {
    let mut builder = BatchBuilder::new(options(place, false));
    for record in records {
        builder.push(None, Some(&record.encode(level)?), place.timestamp_ms, &[]);
    }
    Ok(builder.build().expect("an uncompressed batch is built without a codec"))
}

/// A batch of control records.
pub fn control_batch(records: &[ControlRecord], place: BatchPlace) -> Result<Bytes, EncodeError> {
    let mut builder = BatchBuilder::new(options(place, true));
    for record in records {
        let (key, value) = record.encode()?;
        builder.push(Some(&key), Some(&value), place.timestamp_ms, &[]);
    }
    Ok(builder.build().expect("an uncompressed batch is built without a codec"))
}

fn options(place: BatchPlace, control: bool) -> BatchOptions {
    BatchOptions { base_offset: place.base_offset, partition_leader_epoch: place.epoch, control, ..Default::default() }
}

/// A record of the metadata log, either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    Metadata(MetadataRecord),
    Control(ControlRecord),
}

/// The records of a batch with their offsets, in order. The checksum is compared first. Nothing returned holds on to `batch`: a picture outlives the log that it was read from.
pub fn read_batch(header: &BatchHeader, batch: &Bytes) -> Result<Vec<(i64, LogRecord)>, BatchReadError> {
    header.check_crc(batch)?;
    let records = decompress_all(header.compression()?, batch.slice(HEADER_BYTES..), BATCH_BYTES_MAX)?;
    let is_control = header.attributes.is_control();
    RecordIterator::new(&records, header.record_count)
        .map(|record| {
            let record = record.map_err(|error| BatchReadError::Records(error.to_string()))?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let value = record.value.unwrap_or_default();
            let decoded = if is_control {
                LogRecord::Control(ControlRecord::decode(record.key.unwrap_or_default(), value)?)
            } else {
                LogRecord::Metadata(MetadataRecord::decode(Bytes::copy_from_slice(value))?)
            };
            Ok((offset, decoded))
        })
        .collect()
}

/// A batch that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchReadError {
    /// Not a batch, or its checksum does not match.
    Batch(BatchError),
    Decompress(DecompressError),
    /// The records do not fill the batch as its header says.
    Records(String),
    /// A control record whose key or value cannot be read.
    Control(DecodeError),
    Metadata(RecordError),
}

impl From<BatchError> for BatchReadError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<DecompressError> for BatchReadError {
    fn from(error: DecompressError) -> Self {
        Self::Decompress(error)
    }
}

impl From<DecodeError> for BatchReadError {
    fn from(error: DecodeError) -> Self {
        Self::Control(error)
    }
}

impl From<RecordError> for BatchReadError {
    fn from(error: RecordError) -> Self {
        Self::Metadata(error)
    }
}

impl fmt::Display for BatchReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(error) => write!(formatter, "{error}"),
            Self::Decompress(error) => write!(formatter, "{error}"),
            Self::Records(error) => write!(formatter, "{error}"),
            Self::Control(error) => write!(formatter, "control record cannot be read: {error}"),
            Self::Metadata(error) => write!(formatter, "{error}"),
        }
    }
}

impl std::error::Error for BatchReadError {}
