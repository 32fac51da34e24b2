//! What compaction leaves of a batch: some of its records, or none, under its old header. Offsets, sequence numbers and the batch's last offset never change.

use bytes::Bytes;

use super::checksum::crc32c;
use super::compress::{CompressError, Compressor};
use super::header::{BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, NO_TIMESTAMP, TimestampType, set_crc};
use super::record::RecordRef;
use super::varint::{varlong_bytes, write_varint, write_varlong};

/// Collects the records that stay, in their order, and gives the batch that takes the place of the old one.
#[derive(Debug)]
pub struct BatchRewriter {
    original: BatchHeader,
    /// Time from which tombstones and markers of the batch may go (KIP-534); it stands in the place of the base timestamp.
    delete_horizon_ms: Option<i64>,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    record_count: i32,
    records: Vec<u8>,
}

impl BatchRewriter {
    pub fn new(original: BatchHeader, delete_horizon_ms: Option<i64>) -> BatchRewriter {
        let base_timestamp = delete_horizon_ms;
        BatchRewriter { original, delete_horizon_ms, base_timestamp, max_timestamp: NO_TIMESTAMP, record_count: 0, records: Vec::new() }
    }

    /// Adds a record of the original batch.
    pub fn push(&mut self, record: &RecordRef) {
        let timestamp = match self.original.attributes.timestamp_type() {
            TimestampType::LogAppendTime => self.original.max_timestamp,
            TimestampType::CreateTime => self.original.base_timestamp.wrapping_add(record.timestamp_delta),
        };
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(*self.base_timestamp.get_or_insert(timestamp));
        let length = 1
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(i64::from(record.offset_delta))
            + nullable_bytes(record.key)
            + nullable_bytes(record.value)
            + varlong_bytes(i64::from(record.header_count))
            + record.headers.len();
        write_varint(length as i32, &mut self.records);
        self.records.push(0);
        write_varlong(timestamp_delta, &mut self.records);
        write_varint(record.offset_delta, &mut self.records);
        write_nullable(record.key, &mut self.records);
        write_nullable(record.value, &mut self.records);
        write_varint(record.header_count, &mut self.records);
        self.records.extend_from_slice(record.headers);
        self.record_count += 1;
    }

    /// Bytes of records so far, before compression.
    pub fn records_bytes(&self) -> usize {
        self.records.len()
    }

    /// The batch, compressed as the original was.
    pub fn finish(self) -> Result<Bytes, CompressError> {
        let mut bytes = vec![0; HEADER_BYTES];
        match self.original.compression() {
            Ok(Compression::None) | Err(_) => bytes.extend_from_slice(&self.records),
            Ok(compression) => {
                let mut compressor = Compressor::new(compression, None, bytes)?;
                for slice in self.records.chunks(super::SLICE_BYTES) {
                    compressor.write(slice)?;
                }
                bytes = compressor.finish()?;
            }
        }
        let header = BatchHeader {
            attributes: self.original.attributes.with_delete_horizon(self.delete_horizon_ms.is_some()),
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP),
            max_timestamp: self.max_timestamp,
            record_count: self.record_count,
            ..self.original
        };
        Ok(seal(header, bytes))
    }
}

/// A batch without records that keeps the place of `original`: what its producer sent last, or where a log ends.
pub fn emptied_batch(original: &BatchHeader) -> Bytes {
    let attributes = original.attributes.with_compression(Compression::None).with_delete_horizon(false);
    seal(BatchHeader { attributes, base_timestamp: NO_TIMESTAMP, record_count: 0, ..*original }, vec![0; HEADER_BYTES])
}

fn seal(header: BatchHeader, mut bytes: Vec<u8>) -> Bytes {
    let header = BatchHeader { batch_length: (bytes.len() - LOG_OVERHEAD_BYTES) as i32, ..header };
    header.write(&mut bytes[..HEADER_BYTES]);
    let crc = crc32c(&bytes[header.crc_range()]);
    set_crc(&mut bytes, crc);
    Bytes::from(bytes)
}

fn nullable_bytes(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varlong_bytes(value.len() as i64) + value.len())
}

fn write_nullable(value: Option<&[u8]>, out: &mut Vec<u8>) {
    write_varint(value.map_or(-1, |value| value.len() as i32), out);
    out.extend_from_slice(value.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, BatchOptions, RecordIterator, decompress_all};
    use super::*;

    #[test]
    fn some_records_stay_with_offsets_times_headers_and_producer() {
        for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let options =
                BatchOptions { base_offset: 40, compression, producer_id: 7, producer_epoch: 2, base_sequence: 9, ..Default::default() };
            let mut builder = BatchBuilder::new(options);
            for (number, value) in [Some(b"a"), None, Some(b"c")].into_iter().enumerate() {
                builder.push(Some(b"k"), value.map(|value| &value[..]), 1_000 + number as i64, &[("h", None), ("i", Some(b"x"))]);
            }
            let original = builder.build().unwrap();
            let header = BatchHeader::parse(&original).unwrap();
            let unpacked = |batch: &Bytes| decompress_all(compression, batch.slice(HEADER_BYTES..), 1 << 20).unwrap();
            let records = unpacked(&original);

            for horizon in [None, Some(77_000)] {
                let mut rewriter = BatchRewriter::new(header, horizon);
                RecordIterator::new(&records, 3).skip(1).for_each(|record| rewriter.push(&record.unwrap()));
                let rewritten = rewriter.finish().unwrap();
                let left = BatchHeader::parse(&rewritten).unwrap();
                left.check_crc(&rewritten).unwrap();
                assert_eq!((left.record_count, left.last_offset(), left.base_sequence, left.producer_id), (2, 42, 9, 7));
                assert_eq!((left.base_timestamp, left.max_timestamp), (horizon.unwrap_or(1_001), 1_002));
                assert_eq!(left.attributes.has_delete_horizon(), horizon.is_some());
                let records = unpacked(&rewritten);
                let read: Vec<_> = RecordIterator::new(&records, 2)
                    .map(|record| record.unwrap())
                    .map(|record| {
                        (record.offset_delta, left.base_timestamp + record.timestamp_delta, record.value, record.headers().count())
                    })
                    .collect();
                assert_eq!(read, [(1, 1_001, None, 2), (2, 1_002, Some(&b"c"[..]), 2)]);
            }
            let empty = emptied_batch(&header);
            let left = BatchHeader::parse(&empty).unwrap();
            left.check_crc(&empty).unwrap();
            assert_eq!((left.record_count, left.last_offset(), left.max_timestamp, empty.len()), (0, 42, 1_002, HEADER_BYTES));
            assert_eq!((left.base_sequence, left.compression().unwrap()), (9, Compression::None));
        }
    }
}
