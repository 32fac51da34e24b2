//! The header of a record batch, and the few fields of it that a broker writes.
//!
//! | position | field | | position | field |
//! |---|---|---|---|---|
//! | 0 | base offset, int64 | | 27 | base timestamp, int64 |
//! | 8 | batch length, int32: the bytes behind it | | 35 | maximum timestamp, int64 |
//! | 12 | partition leader epoch, int32 | | 43 | producer id, int64 |
//! | 16 | magic, int8 | | 51 | producer epoch, int16 |
//! | 17 | CRC-32C of everything behind it, uint32 | | 53 | base sequence, int32 |
//! | 21 | attributes, int16 | | 57 | record count, int32 |
//! | 23 | last offset delta, int32 | | 61 | records |

use std::fmt;

use bytes::{Buf, Bytes};

use super::checksum::crc32c;

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;

/// Base offset and batch length, which the batch length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;

/// A record without a timestamp, and the maximum of a batch of such.
pub const NO_TIMESTAMP: i64 = -1;
/// A batch whose producer is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_SEQUENCE: i32 = -1;

const MAGIC: i8 = 2;

const BASE_OFFSET: usize = 0;
const PARTITION_LEADER_EPOCH: usize = 12;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;

/// How the records of a batch are compressed: bits 0 to 2 of the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    /// Kafka's name, as in `compression.type` (where `none` is called `uncompressed`).
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Who set the timestamps: bit 3 of the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The bits that say how to read a batch. Bits without a meaning are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    pub fn compression(self) -> Result<Compression, BatchError> {
        match self.0 & Self::COMPRESSION {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            unknown => Err(BatchError::UnknownCompression(unknown as u8)),
        }
    }

    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// The base timestamp is the time from which the batch's tombstones may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    pub fn with_compression(self, compression: Compression) -> Attributes {
        Attributes(self.0 & !Self::COMPRESSION | compression as i16)
    }

    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        self.with(Self::LOG_APPEND_TIME, timestamp_type == TimestampType::LogAppendTime)
    }

    pub fn with_transactional(self, transactional: bool) -> Attributes {
        self.with(Self::TRANSACTIONAL, transactional)
    }

    pub fn with_control(self, control: bool) -> Attributes {
        self.with(Self::CONTROL, control)
    }

    pub fn with_delete_horizon(self, has_delete_horizon: bool) -> Attributes {
        self.with(Self::DELETE_HORIZON, has_delete_horizon)
    }

    fn with(self, bit: i16, set: bool) -> Attributes {
        Attributes(if set { self.0 | bit } else { self.0 & !bit })
    }
}

/// The header of a batch as read. Its numbers are a stranger's: only magic and batch length were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes behind this field; at least those of the header.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; the records need not be there.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // Magic has the same place in every format, so an old message set is told from a torn batch.
        let magic = bytes.get(16).ok_or(BatchError::Truncated { needed: HEADER_BYTES, present: bytes.len() })?;
        if *magic as i8 != MAGIC {
            return Err(BatchError::UnsupportedMagic(*magic as i8));
        }
        let Some(mut rest) = bytes.get(..HEADER_BYTES) else {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, present: bytes.len() });
        };
        let base_offset = rest.get_i64();
        let batch_length = rest.get_i32();
        let partition_leader_epoch = rest.get_i32();
        rest.advance(1);
        let header = BatchHeader {
            base_offset,
            batch_length,
            partition_leader_epoch,
            crc: rest.get_u32(),
            attributes: Attributes(rest.get_i16()),
            last_offset_delta: rest.get_i32(),
            base_timestamp: rest.get_i64(),
            max_timestamp: rest.get_i64(),
            producer_id: rest.get_i64(),
            producer_epoch: rest.get_i16(),
            base_sequence: rest.get_i32(),
            record_count: rest.get_i32(),
        };
        if batch_length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::InvalidLength(batch_length));
        }
        Ok(header)
    }

    /// Bytes of the whole batch.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + self.batch_length as usize
    }

    /// The offset of the last record, present or compacted away.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        self.attributes.compression()
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The sequence number of the last record. Sequence numbers go from 0 to 2^31 - 1 and start again.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        (self.base_sequence.wrapping_add(self.last_offset_delta)) & i32::MAX
    }

    /// Compares the checksum with the batch, in one go: for large batches use [`super::Crc32c`] over the slices of [`BatchHeader::crc_range`].
    pub fn check_crc(&self, batch: &[u8]) -> Result<(), BatchError> {
        let covered = batch.get(self.crc_range()).ok_or(BatchError::Truncated { needed: self.size_bytes(), present: batch.len() })?;
        self.compare_crc(crc32c(covered))
    }

    pub fn compare_crc(&self, computed: u32) -> Result<(), BatchError> {
        if computed == self.crc { Ok(()) } else { Err(BatchError::CrcMismatch { stored: self.crc, computed }) }
    }

    /// The bytes that the checksum covers: from the attributes on, so that a broker may set base offset and leader epoch without touching it.
    pub fn crc_range(&self) -> std::ops::Range<usize> {
        ATTRIBUTES..self.size_bytes()
    }

    /// Writes the header over the first [`HEADER_BYTES`] of `out`.
    pub fn write(&self, out: &mut [u8]) {
        out[BASE_OFFSET..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = MAGIC as u8;
        out[CRC..21].copy_from_slice(&self.crc.to_be_bytes());
        out[ATTRIBUTES..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[MAX_TIMESTAMP..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }
}

/// Sets the base offset of the batch at the front of `batch`. The checksum does not cover it.
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) {
    batch[BASE_OFFSET..BASE_OFFSET + 8].copy_from_slice(&base_offset.to_be_bytes());
}

/// Sets the partition leader epoch. The checksum does not cover it.
pub fn set_partition_leader_epoch(batch: &mut [u8], epoch: i32) {
    batch[PARTITION_LEADER_EPOCH..PARTITION_LEADER_EPOCH + 4].copy_from_slice(&epoch.to_be_bytes());
}

/// Sets the timestamp type and the maximum timestamp. The checksum covers both: it is wrong until [`set_crc`].
pub fn set_max_timestamp(batch: &mut [u8], timestamp_type: TimestampType, max_timestamp: i64) {
    let attributes = Attributes(i16::from_be_bytes([batch[ATTRIBUTES], batch[ATTRIBUTES + 1]])).with_timestamp_type(timestamp_type);
    batch[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&attributes.0.to_be_bytes());
    batch[MAX_TIMESTAMP..MAX_TIMESTAMP + 8].copy_from_slice(&max_timestamp.to_be_bytes());
}

/// Stores a checksum that was computed over [`BatchHeader::crc_range`].
pub fn set_crc(batch: &mut [u8], crc: u32) {
    batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// The batches that lie one behind another in `bytes`: each header with the bytes of its batch. Ends after the first error; a batch that is cut off at the end is one.
#[derive(Debug)]
pub struct BatchIterator {
    rest: Bytes,
}

impl BatchIterator {
    pub fn new(bytes: Bytes) -> BatchIterator {
        BatchIterator { rest: bytes }
    }
}

impl Iterator for BatchIterator {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchHeader::parse(&self.rest).and_then(|header| match self.rest.len() {
            present if present < header.size_bytes() => Err(BatchError::Truncated { needed: header.size_bytes(), present }),
            _ => Ok(header),
        });
        match parsed {
            Ok(header) => Some(Ok((header, self.rest.split_to(header.size_bytes())))),
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

/// Why bytes are no batch that we can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError {
    Truncated {
        needed: usize,
        present: usize,
    },
    UnsupportedMagic(i8),
    /// The batch length does not even cover the header.
    InvalidLength(i32),
    CrcMismatch {
        stored: u32,
        computed: u32,
    },
    UnknownCompression(u8),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::Truncated { needed, present } => write!(f, "batch needs {needed} bytes, {present} are there"),
            BatchError::UnsupportedMagic(magic) => write!(f, "magic {magic} is not supported"),
            BatchError::InvalidLength(length) => write!(f, "batch length {length} is too small"),
            BatchError::CrcMismatch { stored, computed } => write!(f, "stored checksum {stored:#010x}, computed {computed:#010x}"),
            BatchError::UnknownCompression(codec) => write!(f, "unknown compression {codec}"),
        }
    }
}

impl std::error::Error for BatchError {}
