//! What compaction leaves of a batch: some of its records, or none, under its old header. Offsets, sequence numbers and the batch's last offset never change.

use bytes::Bytes;

use super::compress::{CompressError, Compressor};
use super::header::{BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, NO_TIMESTAMP, TimestampType};
use super::record::RecordRef;
use super::seal::Sealing;
use super::varint::{varlong_bytes, write_varint, write_varlong};
use super::{Progress, SLICE_BYTES};

/// Bytes that are compressed in one step. A slice of 64 KiB takes gzip a millisecond.
const PACKED_BYTES: usize = 16 * 1024;

const _: () = assert!(PACKED_BYTES <= SLICE_BYTES);

/// Takes the records that stay, in their order, and gives the batch that takes the place of the old one. Packs them in steps: whoever pushes packs now and then, until nothing is left to
/// be packed, and then seals.
#[derive(Debug)]
pub struct BatchRewriter {
    original: BatchHeader,
    /// Time from which tombstones and markers of the batch may go (KIP-534); it stands in the place of the base timestamp.
    delete_horizon_ms: Option<i64>,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    record_count: i32,
    /// What was pushed; packed up to there.
    records: Vec<u8>,
    packed_to: usize,
    compressor: Compressor,
}

impl BatchRewriter {
    /// The batch will be compressed as the original was.
    pub fn new(original: BatchHeader, delete_horizon_ms: Option<i64>) -> Result<BatchRewriter, CompressError> {
        let compression = original.compression().unwrap_or(Compression::None);
        Ok(BatchRewriter {
            original,
            delete_horizon_ms,
            base_timestamp: delete_horizon_ms,
            max_timestamp: NO_TIMESTAMP,
            record_count: 0,
            records: Vec::new(),
            packed_to: 0,
            compressor: Compressor::new(compression, None, vec![0; HEADER_BYTES])?,
        })
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

    /// Whether as much waits to be packed as one step takes.
    pub fn has_a_step(&self) -> bool {
        self.records.len() - self.packed_to >= PACKED_BYTES
    }

    /// Packs some of what was pushed.
    pub fn pack(&mut self) -> Result<Progress, CompressError> {
        let end = self.records.len().min(self.packed_to + PACKED_BYTES);
        self.compressor.write(&self.records[self.packed_to..end])?;
        self.packed_to = end;
        if end < self.records.len() {
            return Ok(Progress::More);
        }
        self.records.clear();
        self.packed_to = 0;
        Ok(Progress::Done)
    }

    /// All records are pushed and packed: the batch, but for its checksum.
    pub fn seal(self) -> Result<Sealing, CompressError> {
        assert!(self.records.is_empty(), "everything is packed before the batch is sealed");
        let bytes = self.compressor.finish()?;
        let header = BatchHeader {
            batch_length: (bytes.len() - LOG_OVERHEAD_BYTES) as i32,
            attributes: self.original.attributes.with_delete_horizon(self.delete_horizon_ms.is_some()),
            base_timestamp: self.base_timestamp.unwrap_or(NO_TIMESTAMP),
            max_timestamp: self.max_timestamp,
            record_count: self.record_count,
            ..self.original
        };
        Ok(Sealing::new(header, bytes, Bytes::new()))
    }
}

/// A batch without records that keeps the place of `original`: what its producer sent last, or where a log ends.
pub fn emptied_batch(original: &BatchHeader) -> Bytes {
    let attributes = original.attributes.with_compression(Compression::None).with_delete_horizon(false);
    let batch_length = (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32;
    let header = BatchHeader { batch_length, attributes, base_timestamp: NO_TIMESTAMP, record_count: 0, ..*original };
    Sealing::new(header, vec![0; HEADER_BYTES], Bytes::new()).run()
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
                let mut rewriter = BatchRewriter::new(header, horizon).unwrap();
                RecordIterator::new(&records, 3).skip(1).for_each(|record| rewriter.push(&record.unwrap()));
                assert_eq!(rewriter.pack().unwrap(), Progress::Done);
                let rewritten = rewriter.seal().unwrap().run();
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

    /// However much is pushed, and however large a record is: a step packs a bounded part of it.
    #[test]
    fn what_was_pushed_is_packed_in_bounded_steps() {
        let value = vec![b'v'; 1 << 20];
        for compression in [Compression::None, Compression::Gzip] {
            let mut builder = BatchBuilder::new(BatchOptions { compression, ..Default::default() });
            builder.push(Some(b"k"), Some(&value), 1_000, &[]);
            let original = builder.build().unwrap();
            let header = BatchHeader::parse(&original).unwrap();
            let records = decompress_all(compression, original.slice(HEADER_BYTES..), 2 << 20).unwrap();
            let mut rewriter = BatchRewriter::new(header, None).unwrap();
            rewriter.push(&RecordIterator::new(&records, 1).next().unwrap().unwrap());
            let mut left_bytes = records.len();
            while rewriter.has_a_step() {
                rewriter.pack().unwrap();
                let packed_bytes = left_bytes - (rewriter.records.len() - rewriter.packed_to);
                assert!(packed_bytes > 0 && packed_bytes <= PACKED_BYTES);
                left_bytes -= packed_bytes;
            }
            assert_eq!(rewriter.pack().unwrap(), Progress::Done);
            let rewritten = rewriter.seal().unwrap().run();
            assert_eq!(decompress_all(compression, rewritten.slice(HEADER_BYTES..), 2 << 20).unwrap(), records);
        }
    }
}
