//! Building batches of our own: coordinator records, metadata, control records, and whatever a test wants to send.

use bytes::Bytes;

use super::checksum::crc32c;
use super::compress::{CompressError, Compressor};
use super::header::{
    Attributes, BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
    set_crc,
};
use super::varint::{varlong_bytes, write_varint, write_varlong};

/// What a batch says of itself besides its records. The default is a plain batch: uncompressed, create time, no producer.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    pub base_offset: i64,
    pub partition_leader_epoch: i32,
    pub compression: Compression,
    /// Of the codec; `None` is its default.
    pub compression_level: Option<i32>,
    pub timestamp_type: TimestampType,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
    pub control: bool,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions {
            base_offset: 0,
            partition_leader_epoch: -1,
            compression: Compression::None,
            compression_level: None,
            timestamp_type: TimestampType::CreateTime,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
        }
    }
}

/// Collects records and gives a batch. Offsets run from the base offset without gaps; the first record's timestamp is the base.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> BatchBuilder {
        BatchBuilder { options, bytes: vec![0; HEADER_BYTES], record_count: 0, base_timestamp: NO_TIMESTAMP, max_timestamp: NO_TIMESTAMP }
    }

    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Bytes of the batch so far, before compression.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record. `timestamp` is in milliseconds since 1970, or [`NO_TIMESTAMP`]; `value` is `None` for a tombstone.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64, headers: &[(&str, Option<&[u8]>)]) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp - self.base_timestamp;
        let offset_delta = self.record_count;

        let header_bytes = |&(key, value): &(&str, Option<&[u8]>)| nullable_bytes(Some(key.as_bytes())) + nullable_bytes(value);
        let length = 1
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(i64::from(offset_delta))
            + nullable_bytes(key)
            + nullable_bytes(value)
            + varlong_bytes(headers.len() as i64)
            + headers.iter().map(header_bytes).sum::<usize>();
        write_varint(length as i32, &mut self.bytes);
        self.bytes.push(0);
        write_varlong(timestamp_delta, &mut self.bytes);
        write_varint(offset_delta, &mut self.bytes);
        write_nullable(key, &mut self.bytes);
        write_nullable(value, &mut self.bytes);
        write_varint(headers.len() as i32, &mut self.bytes);
        for (key, value) in headers {
            write_nullable(Some(key.as_bytes()), &mut self.bytes);
            write_nullable(*value, &mut self.bytes);
        }
        self.record_count += 1;
    }

    /// The batch. An empty one is possible, and what a compacted log holds; no producer sends it.
    pub fn build(self) -> Result<Bytes, CompressError> {
        let options = self.options;
        let mut bytes = match options.compression {
            Compression::None => self.bytes,
            compression => {
                let mut compressor = Compressor::new(compression, options.compression_level, vec![0; HEADER_BYTES])?;
                compressor.write(&self.bytes[HEADER_BYTES..])?;
                compressor.finish()?
            }
        };
        let attributes = Attributes::default()
            .with_compression(options.compression)
            .with_timestamp_type(options.timestamp_type)
            .with_transactional(options.transactional)
            .with_control(options.control);
        let header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: (bytes.len() - LOG_OVERHEAD_BYTES) as i32,
            partition_leader_epoch: options.partition_leader_epoch,
            crc: 0,
            attributes,
            last_offset_delta: (self.record_count - 1).max(0),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: self.record_count,
        };
        header.write(&mut bytes[..HEADER_BYTES]);
        let crc = crc32c(&bytes[header.crc_range()]);
        set_crc(&mut bytes, crc);
        Ok(Bytes::from(bytes))
    }
}

fn nullable_bytes(value: Option<&[u8]>) -> usize {
    match value {
        None => 1,
        Some(value) => varlong_bytes(value.len() as i64) + value.len(),
    }
}

fn write_nullable(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => write_varint(-1, out),
        Some(value) => {
            write_varint(value.len() as i32, out);
            out.extend_from_slice(value);
        }
    }
}
