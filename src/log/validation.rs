//! What a broker checks of a client's records before they may become part of a log (Kafka's LogValidator, and the checks of ProduceRequest and UnifiedLog before it).
//!
//! Runs on the connection's core, as a machine: it is given the bytes once and then stepped, each step doing at most 64 KiB of work, so that a large or bomb-like batch
//! delays nobody else. Memory is constant but for a batch that has to be rewritten (another codec, or the broker's time), which is bounded by `max.message.bytes`.
//! Sequence numbers, offsets and the size of a segment are the log's own business (`Log::check`).

use bytes::Bytes;

use super::batch::{BatchInfo, ValidatedBatch};
use crate::config::{CompressionType, TimestampType, TopicSettings};
use crate::wire::batch::{
    self, BatchHeader, Compression, Compressor, Crc32c, Decompressor, HEADER_BYTES, LOG_OVERHEAD_BYTES, NO_TIMESTAMP, Progress,
    RecordError, RecordFacts, RecordScanner, SLICE_BYTES, Sealing,
};
use crate::wire::{ErrorCode, Str};

/// The first Produce version that may carry zstd (KIP-110).
const ZSTD_PRODUCE_VERSION_MIN: i16 = 7;

/// Kafka takes a size below this (the overhead of the oldest format) for garbage, and one that merely exceeds the bytes for an unfinished batch.
const BATCH_LENGTH_MIN: i32 = 14;

/// Bad records that are listed one by one. Kafka lists all; a bomb of a billion keyless records must not become a billion messages.
const RECORD_ERRORS_MAX: usize = 10_000;

/// Decompressed bytes of a batch. Kafka bounds each record (`max.decompressed.message.bytes`) but not their sum; no position in a batch can go beyond an int32 anywhere else.
const DECOMPRESSED_BYTES_MAX: usize = i32::MAX as usize;

/// What a step of the decompressor counts for that gave little or nothing, such as the start of another gzip member.
const EMPTY_STEP_WORK_BYTES: usize = 4096;

/// What the topic and the request ask of a batch.
#[derive(Clone, Debug)]
pub struct ValidationRules {
    pub produce_version: i16,
    /// `max.message.bytes`: of the whole batch, as it came and as it would be stored.
    pub max_message_bytes: i32,
    /// `max.decompressed.message.bytes`: of a single record of a compressed batch.
    pub max_decompressed_message_bytes: i32,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// Compacted topics need a key in every record.
    pub compacted: bool,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_zstd_level: i32,
}

impl ValidationRules {
    pub fn new(topic: &TopicSettings, produce_version: i16) -> ValidationRules {
        ValidationRules {
            produce_version,
            max_message_bytes: topic.max_message_bytes,
            max_decompressed_message_bytes: topic.max_decompressed_message_bytes,
            timestamp_type: topic.message_timestamp_type,
            timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
            timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
            compacted: topic.cleanup_policy.compact,
            compression_type: topic.compression_type,
            compression_gzip_level: topic.compression_gzip_level,
            compression_zstd_level: topic.compression_zstd_level,
        }
    }

    /// The codec in which a batch of codec `source` is stored.
    fn target_compression(&self, source: Compression) -> Compression {
        match self.compression_type {
            CompressionType::Producer => source,
            CompressionType::Uncompressed => Compression::None,
            CompressionType::Gzip => Compression::Gzip,
            CompressionType::Snappy => Compression::Snappy,
            CompressionType::Lz4 => Compression::Lz4,
            CompressionType::Zstd => Compression::Zstd,
        }
    }

    fn compression_level(&self, compression: Compression) -> Option<i32> {
        match compression {
            // -1 is zlib's own default, for which the codec wants no number.
            Compression::Gzip => Some(self.compression_gzip_level).filter(|level| *level >= 0),
            Compression::Zstd => Some(self.compression_zstd_level),
            Compression::None | Compression::Snappy | Compression::Lz4 => None,
        }
    }
}

/// Why a batch is not taken: a partition's part of the Produce response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub error: ErrorCode,
    /// Goes out from Produce 8 on (KIP-467), as do the record errors.
    pub message: Option<Str>,
    /// Index in the batch, and what is wrong with the record.
    pub record_errors: Vec<(i32, Option<Str>)>,
}

impl Rejected {
    fn new(error: ErrorCode, message: impl Into<Str>) -> Rejected {
        Rejected { error, message: Some(message.into()), record_errors: Vec::new() }
    }

    fn invalid_record(message: impl Into<Str>) -> Rejected {
        Rejected::new(ErrorCode::InvalidRecord, message)
    }
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    More,
    Done(Box<Result<ValidatedBatch, Rejected>>),
}

/// What the validation of `records` may hold at a time: the bytes as they are and as they may have to be rewritten, and what the codec asks for.
pub fn memory_bytes(records: &[u8]) -> usize {
    let compression = BatchHeader::parse(records).ok().and_then(|header| header.attributes.compression().ok());
    2 * records.len() + compression.map_or(0, |compression| batch::working_memory_bytes(compression, &records[HEADER_BYTES..]))
}

/// The validation of one batch under way.
pub struct Validation {
    rules: ValidationRules,
    now_ms: i64,
    phase: Phase,
}

enum Phase {
    /// Nothing was looked at.
    Start(Bytes),
    Checksum(Checked, Crc32c, usize),
    Records(Checked, Box<Records>),
    /// It cannot stay as it came: its header is new, its records may be.
    Rewrite(Sealing),
    Finished,
}

impl Validation {
    /// `records` is the whole records field of the partition, which holds exactly one batch if all is well.
    pub fn new(records: Bytes, rules: ValidationRules, now_ms: i64) -> Validation {
        Validation { rules, now_ms, phase: Phase::Start(records) }
    }

    /// Does at most a slice of work. Not to be called again after `Done`.
    pub fn step(&mut self) -> Step {
        let mut work_bytes = SLICE_BYTES;
        while work_bytes > 0 {
            let phase = std::mem::replace(&mut self.phase, Phase::Finished);
            match self.advance(phase, &mut work_bytes) {
                Ok(Advanced::To(phase)) => self.phase = phase,
                Ok(Advanced::Done(batch)) => return Step::Done(Box::new(Ok(*batch))),
                Err(rejected) => return Step::Done(Box::new(Err(rejected))),
            }
        }
        Step::More
    }

    /// All steps at once, where nobody waits: tests.
    pub fn run(mut self) -> Result<ValidatedBatch, Rejected> {
        loop {
            if let Step::Done(result) = self.step() {
                return *result;
            }
        }
    }

    /// One phase, or as much of it as there is work left.
    fn advance(&self, phase: Phase, work_bytes: &mut usize) -> Result<Advanced, Rejected> {
        match phase {
            Phase::Start(records) => {
                let checked = check_request(records, &self.rules)?;
                check_size(&checked, &self.rules)?;
                Ok(Advanced::To(Phase::Checksum(checked, Crc32c::new(), 0)))
            }
            Phase::Checksum(checked, mut crc, position) => {
                let covered = &checked.bytes[checked.header.crc_range()];
                let end = covered.len().min(position + *work_bytes);
                crc.update(&covered[position..end]);
                *work_bytes -= end - position;
                if end < covered.len() {
                    return Ok(Advanced::To(Phase::Checksum(checked, crc, end)));
                }
                checked.header.compare_crc(crc.value()).map_err(|error| Rejected::new(ErrorCode::CorruptMessage, error.to_string()))?;
                check_header(&checked.header)?;
                let records = Records::new(&checked, &self.rules, self.now_ms)?;
                Ok(Advanced::To(Phase::Records(checked, Box::new(records))))
            }
            Phase::Records(checked, mut records) => match records.step(work_bytes)? {
                Progress::More => Ok(Advanced::To(Phase::Records(checked, records))),
                Progress::Done => self.decide(checked, *records),
            },
            Phase::Rewrite(mut rewrite) => match rewrite.step(work_bytes) {
                Progress::More => Ok(Advanced::To(Phase::Rewrite(rewrite))),
                Progress::Done => Ok(Advanced::Done(Box::new(self.validated(rewrite.finish())))),
            },
            Phase::Finished => panic!("a validation was stepped after its end"),
        }
    }

    /// The walk is over. A good batch is stored as it is unless its codec, its timestamp type or its maximum timestamp is not what it should be.
    fn decide(&self, checked: Checked, records: Records) -> Result<Advanced, Rejected> {
        let max_timestamp_found = records.findings.judge()?;
        let (timestamp_type, max_timestamp) = match self.rules.timestamp_type {
            TimestampType::CreateTime => (batch::TimestampType::CreateTime, max_timestamp_found),
            TimestampType::LogAppendTime => (batch::TimestampType::LogAppendTime, self.now_ms),
        };
        let mut header = checked.header;
        let timestamps_agree = header.attributes.timestamp_type() == timestamp_type && header.max_timestamp == max_timestamp;
        header.attributes = header.attributes.with_timestamp_type(timestamp_type);
        header.max_timestamp = max_timestamp;
        let bytes = match records.rewriting {
            Rewriting::No if timestamps_agree => return Ok(Advanced::Done(Box::new(self.validated(checked.bytes)))),
            Rewriting::No => {
                let mut copy = Vec::with_capacity(checked.bytes.len());
                copy.extend_from_slice(&checked.bytes[..HEADER_BYTES]);
                copy
            }
            Rewriting::To(compression, compressor) => {
                let compressed = compressor.finish().map_err(cannot_compress)?;
                if compressed.len() > self.rules.max_message_bytes as usize {
                    return Err(too_large(&self.rules));
                }
                header.attributes = header.attributes.with_compression(compression);
                header.batch_length = (compressed.len() - LOG_OVERHEAD_BYTES) as i32;
                compressed
            }
            Rewriting::TooLarge => return Err(too_large(&self.rules)),
        };
        Ok(Advanced::To(Phase::Rewrite(Sealing::new(header, bytes, checked.bytes))))
    }

    fn validated(&self, bytes: Bytes) -> ValidatedBatch {
        let log_append_time_ms = match self.rules.timestamp_type {
            TimestampType::CreateTime => NO_TIMESTAMP,
            TimestampType::LogAppendTime => self.now_ms,
        };
        let info = BatchInfo::decode(&bytes).expect("the header was checked");
        ValidatedBatch { info, bytes, end_marker: None, log_append_time_ms }
    }
}

enum Advanced {
    To(Phase),
    Done(Box<ValidatedBatch>),
}

/// One whole batch and its header.
struct Checked {
    bytes: Bytes,
    header: BatchHeader,
    compression: Compression,
}

/// What Kafka checks while it reads the request: exactly one whole batch of magic 2, and no zstd for old versions. What follows it and is no whole batch is cut off.
fn check_request(records: Bytes, rules: &ValidationRules) -> Result<Checked, Rejected> {
    let Some(size_bytes) = whole_batch_bytes(&records)? else {
        return Err(Rejected::invalid_record("The request holds no whole record batch for the partition"));
    };
    if records[16] != 2 {
        return Err(Rejected::invalid_record("Record batches of magic 2 only are accepted"));
    }
    if size_bytes < HEADER_BYTES {
        return Err(Rejected::new(ErrorCode::CorruptMessage, "The record batch is smaller than its header"));
    }
    let bytes = records.slice(..size_bytes);
    let header = BatchHeader::parse(&bytes).map_err(|error| Rejected::new(ErrorCode::CorruptMessage, error.to_string()))?;
    let compression =
        header.compression().map_err(|error| Rejected::new(ErrorCode::UnsupportedCompressionType, format!("Record batch: {error}")))?;
    if compression == Compression::Zstd && rules.produce_version < ZSTD_PRODUCE_VERSION_MIN {
        let message = format!("Produce version {} may not use zstd", rules.produce_version);
        return Err(Rejected::new(ErrorCode::UnsupportedCompressionType, message));
    }
    if whole_batch_bytes(&records[size_bytes..])?.is_some() {
        return Err(Rejected::invalid_record("The request holds more than one record batch for the partition"));
    }
    Ok(Checked { bytes, header, compression })
}

/// The size of the batch at the front of `bytes` if all of it is there.
fn whole_batch_bytes(bytes: &[u8]) -> Result<Option<usize>, Rejected> {
    let Some(length) = bytes.get(8..LOG_OVERHEAD_BYTES) else { return Ok(None) };
    let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    if length < BATCH_LENGTH_MIN {
        return Err(Rejected::new(ErrorCode::CorruptMessage, format!("A record batch cannot have the length {length}")));
    }
    let Some(magic) = bytes.get(16) else { return Ok(None) };
    if *magic > 2 {
        return Err(Rejected::new(ErrorCode::CorruptMessage, format!("A record batch cannot have magic {}", *magic as i8)));
    }
    let size_bytes = LOG_OVERHEAD_BYTES + length as usize;
    Ok((size_bytes <= bytes.len()).then_some(size_bytes))
}

fn check_size(checked: &Checked, rules: &ValidationRules) -> Result<(), Rejected> {
    if checked.header.base_offset != 0 {
        return Err(Rejected::invalid_record(format!(
            "The base offset of the record batch is {} instead of 0",
            checked.header.base_offset
        )));
    }
    if checked.bytes.len() > rules.max_message_bytes.max(0) as usize {
        return Err(too_large(rules));
    }
    Ok(())
}

fn too_large(rules: &ValidationRules) -> Rejected {
    Rejected::new(ErrorCode::MessageTooLarge, format!("The record batch is larger than the allowed {} bytes", rules.max_message_bytes))
}

/// What the header claims, once the checksum says that the client means it.
fn check_header(header: &BatchHeader) -> Result<(), Rejected> {
    let BatchHeader { record_count, last_offset_delta, base_sequence, producer_id, .. } = *header;
    if last_offset_delta < 0 {
        return Err(Rejected::invalid_record(format!("The last offset delta of the record batch is {last_offset_delta}")));
    }
    if record_count <= 0 {
        return Err(Rejected::invalid_record(format!("The record batch announces {record_count} records")));
    }
    if i64::from(last_offset_delta) + 1 != i64::from(record_count) {
        let message = format!("The record batch announces {record_count} records but a last offset delta of {last_offset_delta}");
        return Err(Rejected::invalid_record(message));
    }
    if header.attributes.is_control() {
        return Err(Rejected::invalid_record("Clients may not write control records"));
    }
    if header.has_producer_id() && base_sequence < 0 {
        return Err(Rejected::invalid_record(format!("Producer {producer_id} sent the sequence number {base_sequence}")));
    }
    Ok(())
}

/// The walk over the records: out of the decompressor if there is one, past the scanner, into the compressor if the codec changes.
struct Records {
    source: Source,
    scanner: RecordScanner,
    findings: Findings,
    rewriting: Rewriting,
    rewritten_bytes_max: usize,
}

enum Source {
    Plain(Bytes),
    Compressed { decompressor: Box<Decompressor>, slice: Vec<u8> },
}

enum Rewriting {
    No,
    To(Compression, Box<Compressor>),
    /// What was written exceeds `max.message.bytes` already; the walk goes on because a bad record is the better reason.
    TooLarge,
}

impl Records {
    fn new(checked: &Checked, rules: &ValidationRules, now_ms: i64) -> Result<Records, Rejected> {
        let body = checked.bytes.slice(HEADER_BYTES..);
        let scanner = RecordScanner::new(checked.header.record_count);
        let (source, scanner) = match checked.compression {
            Compression::None => (Source::Plain(body), scanner),
            compression => {
                let decompressor = Decompressor::new(compression, body, DECOMPRESSED_BYTES_MAX).map_err(cannot_decompress)?;
                let record_bytes_max = rules.max_decompressed_message_bytes.max(0) as usize;
                let source = Source::Compressed { decompressor: Box::new(decompressor), slice: Vec::new() };
                (source, scanner.with_record_bytes_max(record_bytes_max))
            }
        };
        let target = rules.target_compression(checked.compression);
        let rewriting = if target == checked.compression {
            Rewriting::No
        } else {
            let compressor = Compressor::new(target, rules.compression_level(target), vec![0; HEADER_BYTES]).map_err(cannot_compress)?;
            Rewriting::To(target, Box::new(compressor))
        };
        let findings = Findings::new(checked, rules, now_ms);
        Ok(Records { source, scanner, findings, rewriting, rewritten_bytes_max: rules.max_message_bytes.max(0) as usize })
    }

    fn step(&mut self, work_bytes: &mut usize) -> Result<Progress, Rejected> {
        let Records { source, scanner, findings, rewriting, .. } = self;
        let mut visit = |record| findings.look_at(record);
        let progress = match source {
            Source::Plain(rest) => {
                let slice = rest.split_to(rest.len().min(*work_bytes));
                *work_bytes -= slice.len();
                scanner.scan(&slice, &mut visit).map_err(invalid_records)?;
                rewriting.write(&slice, self.rewritten_bytes_max)?;
                if rest.is_empty() { Progress::Done } else { Progress::More }
            }
            Source::Compressed { decompressor, slice } => {
                let progress = decompressor.step(slice).map_err(cannot_decompress)?;
                *work_bytes = work_bytes.saturating_sub(slice.len().max(EMPTY_STEP_WORK_BYTES));
                scanner.scan(slice, &mut visit).map_err(invalid_records)?;
                rewriting.write(slice, self.rewritten_bytes_max)?;
                progress
            }
        };
        if progress == Progress::Done {
            self.scanner.finish().map_err(invalid_records)?;
        }
        Ok(progress)
    }
}

impl Rewriting {
    fn write(&mut self, slice: &[u8], bytes_max: usize) -> Result<(), Rejected> {
        if let Rewriting::To(_, compressor) = self {
            compressor.write(slice).map_err(cannot_compress)?;
            if compressor.output_bytes() > bytes_max {
                *self = Rewriting::TooLarge;
            }
        }
        Ok(())
    }
}

fn invalid_records(error: RecordError) -> Rejected {
    Rejected::invalid_record(format!("The records of the batch are invalid: {error}"))
}

fn cannot_decompress(error: batch::DecompressError) -> Rejected {
    Rejected::invalid_record(format!("The records of the batch do not decompress: {error}"))
}

fn cannot_compress(error: batch::CompressError) -> Rejected {
    Rejected::new(ErrorCode::UnknownServerError, error.to_string())
}

/// What the walk over the records found out.
struct Findings {
    base_timestamp: i64,
    /// In a batch of log append time every record has the batch's maximum timestamp.
    timestamp_of_all: Option<i64>,
    creates_time: bool,
    now_ms: i64,
    timestamp_before_max_ms: i64,
    timestamp_after_max_ms: i64,
    compacted: bool,
    max_timestamp: i64,
    record_errors: Vec<(i32, Option<Str>)>,
    bad_records: u64,
    bad_timestamps: bool,
    out_of_order: Option<RecordFacts>,
}

impl Findings {
    fn new(checked: &Checked, rules: &ValidationRules, now_ms: i64) -> Findings {
        let is_log_append_time = checked.header.attributes.timestamp_type() == batch::TimestampType::LogAppendTime;
        Findings {
            base_timestamp: checked.header.base_timestamp,
            timestamp_of_all: is_log_append_time.then_some(checked.header.max_timestamp),
            creates_time: rules.timestamp_type == TimestampType::CreateTime,
            now_ms,
            timestamp_before_max_ms: rules.timestamp_before_max_ms,
            timestamp_after_max_ms: rules.timestamp_after_max_ms,
            compacted: rules.compacted,
            max_timestamp: NO_TIMESTAMP,
            record_errors: Vec::new(),
            bad_records: 0,
            bad_timestamps: false,
            out_of_order: None,
        }
    }

    fn look_at(&mut self, record: RecordFacts) {
        let timestamp = self.timestamp_of_all.unwrap_or_else(|| self.base_timestamp.wrapping_add(record.timestamp_delta));
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if record.offset_delta != record.index && self.out_of_order.is_none() {
            self.out_of_order = Some(record);
        }
        if self.compacted && !record.has_key {
            self.add(record.index, || Str::from_static("A compacted topic takes no record without a key"));
            return;
        }
        if self.creates_time && timestamp != NO_TIMESTAMP {
            let age_ms = self.now_ms.wrapping_sub(timestamp);
            if age_ms > self.timestamp_before_max_ms || age_ms.wrapping_neg() > self.timestamp_after_max_ms {
                self.bad_timestamps = true;
                let earliest = self.now_ms.saturating_sub(self.timestamp_before_max_ms);
                let latest = self.now_ms.saturating_add(self.timestamp_after_max_ms);
                self.add(record.index, || Str::from(format!("The timestamp {timestamp} is not within [{earliest}, {latest}]")));
            }
        } else if self.timestamp_of_all.is_some() {
            self.bad_timestamps = true;
            self.add(record.index, || Str::from_static("A producer may not set the timestamp type to LogAppendTime"));
        }
    }

    fn add(&mut self, index: i32, message: impl FnOnce() -> Str) {
        self.bad_records += 1;
        if self.record_errors.len() < RECORD_ERRORS_MAX {
            self.record_errors.push((index, Some(message())));
        }
    }

    /// The largest timestamp, if all records are good. One bad record rejects the batch; if any timestamp is among the reasons, that is the partition's error (KIP-467).
    fn judge(self) -> Result<i64, Rejected> {
        if self.bad_records > 0 {
            let (error, what) = match self.bad_timestamps {
                true => (ErrorCode::InvalidTimestamp, "timestamps out of range or of the wrong type"),
                false => (ErrorCode::InvalidRecord, "invalid records"),
            };
            let message = format!("The record batch was rejected because of {what}: {} records", self.bad_records);
            return Err(Rejected { error, message: Some(Str::from(message)), record_errors: self.record_errors });
        }
        // Kafka numbers such records anew, but only if they are compressed: a courtesy to clients of the formats before this one.
        if let Some(record) = self.out_of_order {
            let message = format!("Record {} of the batch has the offset delta {}", record.index, record.offset_delta);
            return Err(Rejected::invalid_record(message));
        }
        Ok(self.max_timestamp)
    }
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
