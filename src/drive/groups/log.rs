//! What a coordinator's driver needs of the log under it, and how coordinator records lie in that log.

use bytes::Bytes;

use crate::drive::coordinators::RECORDS_PER_PAUSE;
use crate::group::{Coordinator, CoordinatorRecord, Now, RecordError, Step};
use crate::log::{ValidatedBatch, VerificationGuard};
use crate::wire::ErrorCode;
use crate::wire::batch::{
    self, BatchBuilder, BatchError, BatchHeader, BatchOptions, Compression, DecompressError, Decompressor, HEADER_BYTES, NO_PRODUCER_ID,
    Progress, RecordIterator,
};

/// One partition of `__consumer_offsets`, as its coordinator writes and reads it.
pub(in crate::drive) trait OffsetsLog {
    /// Stands for everything that was appended up to some moment.
    type Mark: Copy + 'static;

    /// The largest batch that the topic takes.
    fn batch_bytes_max(&self) -> usize;

    /// Runs `decide` once there is room for so many bytes, behind those who asked before, or when there has been none for too long. Only then, or if it appends more, is what it appends
    /// refused for want of room.
    async fn with_room<T>(&self, bytes: usize, decide: impl FnOnce() -> T) -> T;

    /// Appends a batch in this moment, behind everything appended before. Gives the offset of its first record; an error means that nothing of it was appended.
    fn append(&self, batch: Bytes) -> Result<(i64, Self::Mark), ErrorCode>;

    /// As `append`, for a batch that is part of a transaction.
    fn append_in_transaction(&self, batch: Bytes, guard: Option<VerificationGuard>) -> Result<(i64, Self::Mark), ErrorCode>;

    /// As `append`, for the marker that ends a transaction.
    fn append_marker(&self, marker: &ValidatedBatch, transaction_version: i16) -> Result<Self::Mark, ErrorCode>;

    /// Resolves when everything up to `mark` is committed, or will never be as far as anyone can tell.
    async fn committed(&self, mark: Self::Mark) -> Result<(), ErrorCode>;

    /// The next committed batches from the one with `offset` on, each whole; none at the end.
    async fn read(&self, offset: i64) -> Result<Vec<Bytes>, ErrorCode>;
}

/// Records packed into as few batches as `batch_bytes_max` allows, each with the range of records that it holds.
pub(super) struct Batches {
    pub(super) batches: Vec<(std::ops::Range<usize>, Bytes)>,
}

impl Batches {
    /// Packs a step's records, stamped `wall_ms`. Those that are not divisible fit into one batch or not at all.
    pub(super) fn pack(step: &Step, batch_bytes_max: usize, wall_ms: i64) -> Result<Batches, ErrorCode> {
        let Step { records, divisible, transaction, .. } = step;
        let divisible = *divisible;
        let options = transaction.map_or_else(BatchOptions::default, |transaction| BatchOptions {
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            transactional: true,
            ..BatchOptions::default()
        });
        let mut batches = Vec::with_capacity(1);
        let (mut start, mut builder) = (0, BatchBuilder::new(options));
        for (index, record) in records.iter().enumerate() {
            let (key, value) = record.encode();
            let value = value.as_deref();
            // The fields around key and value take some bytes, too; a bound that is a little low splits a little early.
            let record_bytes = key.len() + value.map_or(0, <[u8]>::len) + RECORD_OVERHEAD_BYTES_MAX;
            if divisible && !builder.is_empty() && builder.size_bytes() + record_bytes > batch_bytes_max {
                let full = std::mem::replace(&mut builder, BatchBuilder::new(options));
                batches.push((start..index, finish(full, batch_bytes_max)?));
                start = index;
            }
            builder.push(Some(&key), value, wall_ms, &[]);
        }
        if !builder.is_empty() {
            batches.push((start..records.len(), finish(builder, batch_bytes_max)?));
        }
        Ok(Batches { batches })
    }
}

/// Length, attributes, timestamp, offset, the lengths of key and value, header count: none of the seven varints takes more than 10 bytes.
const RECORD_OVERHEAD_BYTES_MAX: usize = 70;

fn finish(builder: BatchBuilder, batch_bytes_max: usize) -> Result<Bytes, ErrorCode> {
    if builder.size_bytes() > batch_bytes_max {
        return Err(ErrorCode::MessageTooLarge);
    }
    Ok(builder.build().expect("nothing is compressed here"))
}

/// Why a coordinator could not be loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    Read(ErrorCode),
    Batch { offset: i64, error: BatchError },
    Decompress { offset: i64, error: DecompressError },
    Records { offset: i64, error: batch::RecordError },
    Record { offset: i64, error: RecordError },
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Read(error) => write!(f, "the log cannot be read: {}", error.name()),
            LoadError::Batch { offset, error } => write!(f, "the batch at or after offset {offset} is damaged: {error}"),
            LoadError::Decompress { offset, error } => write!(f, "the batch at offset {offset} does not decompress: {error}"),
            LoadError::Records { offset, error } => write!(f, "the records of the batch at offset {offset} are damaged: {error}"),
            LoadError::Record { offset, error } => write!(f, "offset {offset}: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<ErrorCode> for LoadError {
    fn from(error: ErrorCode) -> LoadError {
        LoadError::Read(error)
    }
}

/// How much a compressed batch of coordinator records may grow. Brokers write them uncompressed unless told otherwise, and never larger than a batch may be.
const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Replays one batch of the log, which is at or after `offset`, and gives the offset behind it. `pause` lets others run now and then.
pub(super) async fn replay_batch(
    coordinator: &mut Coordinator,
    now: Now,
    offset: i64,
    batch: &Bytes,
    pause: &impl AsyncFn(),
) -> Result<i64, LoadError> {
    let header = BatchHeader::parse(batch).map_err(|error| LoadError::Batch { offset, error })?;
    let offset = header.base_offset;
    header.check_crc(batch).map_err(|error| LoadError::Batch { offset, error })?;
    let compression = header.compression().map_err(|error| LoadError::Batch { offset, error })?;
    let records =
        decompress(compression, batch.slice(HEADER_BYTES..), pause).await.map_err(|error| LoadError::Decompress { offset, error })?;
    let producer_id = if header.attributes.is_transactional() { header.producer_id } else { NO_PRODUCER_ID };

    for (index, record) in RecordIterator::new(&records, header.record_count).enumerate() {
        if index % RECORDS_PER_PAUSE == RECORDS_PER_PAUSE - 1 {
            pause().await;
        }
        let record = record.map_err(|error| LoadError::Records { offset, error })?;
        let key = record.key.map(|key| records.slice_ref(key));
        if header.attributes.is_control() {
            if let Some(is_committed) = key.as_deref().and_then(end_of_transaction) {
                coordinator.replay_end_transaction(header.producer_id, is_committed);
            }
            continue;
        }
        let offset = offset + i64::from(record.offset_delta);
        let value = record.value.map(|value| records.slice_ref(value));
        let record = CoordinatorRecord::decode(key.as_ref(), value.as_ref()).map_err(|error| LoadError::Record { offset, error })?;
        if let Some(record) = record {
            coordinator.replay(now, offset, producer_id, &record);
        }
    }
    Ok(header.last_offset() + 1)
}

async fn decompress(compression: Compression, records: Bytes, pause: &impl AsyncFn()) -> Result<Bytes, DecompressError> {
    if compression == Compression::None {
        return Ok(records);
    }
    let mut decompressor = Decompressor::new(compression, records, DECOMPRESSED_BYTES_MAX)?;
    let (mut slice, mut output) = (Vec::new(), Vec::new());
    loop {
        let progress = decompressor.step(&mut slice)?;
        output.extend_from_slice(&slice);
        if progress == Progress::Done {
            return Ok(Bytes::from(output));
        }
        pause().await;
    }
}

/// Whether a control record's key (version, type) ends a transaction, and how.
fn end_of_transaction(key: &[u8]) -> Option<bool> {
    const ABORT: i16 = 0;
    const COMMIT: i16 = 1;
    let (_version, record_type) = (key.first_chunk::<2>()?, key.get(2..4)?.first_chunk::<2>()?);
    match i16::from_be_bytes(*record_type) {
        ABORT => Some(false),
        COMMIT => Some(true),
        _ => None,
    }
}
