//! One round of compaction of one log: keys into the map, segments written anew, files exchanged.
//!
//! Nothing of the log is held while the round reads and writes: the segments that it works on are closed and placed, so nobody writes to them, and before they are exchanged it
//! looks whether they are still the log's (retention or a deletion may have come). The exchange itself holds the turn of those who write files of the partition.

use std::cell::Cell;
use std::hash::RandomState;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;

use super::Partition;
use super::cleaner::CleanerOptions;
use super::pace::Pace;
use super::upkeep::UpkeepError;
use crate::disk::checkpoint::facts::encode_segment;
use crate::disk::compacted_segment::{CompactedSegment, discard_swap_blocking, discard_unfinished_blocking, swap_segments_blocking};
use crate::disk::journal::{EntryHeader, JournalError};
use crate::disk::reader::{ReadError, SegmentView};
use crate::log::compaction::choice::groups;
use crate::log::compaction::{BatchFilter, Choice, OffsetMap, Rewriting, Step, TransactionTracker};
use crate::log::offset_index::OFFSET_ENTRY_BYTES;
use crate::log::{BATCH_HEADER_BYTES, BatchInfo, EndMarker, SegmentBook};
use crate::rt;
use crate::rt::file::FileError;
use crate::wire::batch::{BatchHeader, Compression, Crc32c, Decompressor, Progress, RecordIterator, SLICE_BYTES};

/// Bytes of a segment read at once.
const READ_BYTES: u32 = 256 << 10;
/// Records between two looks at the clock.
const RECORDS_PER_LOOK: usize = 64;
/// What a batch unpacks to was checked when it was produced.
const DECOMPRESSED_BYTES_MAX: usize = i32::MAX as usize;

/// What compaction remembers of a partition.
pub(super) struct CleaningState {
    pub cleaned_to: Cell<Option<i64>>,
    /// A round has failed: no other is tried before this time.
    pub not_before_ms: Cell<i64>,
    /// The partition's files are on their way to another data directory: no round begins.
    pub is_held: Cell<bool>,
}

impl CleaningState {
    pub fn new(cleaned_to: Option<i64>) -> Self {
        Self { cleaned_to: Cell::new(cleaned_to), not_before_ms: Cell::new(i64::MIN), is_held: Cell::new(false) }
    }
}

/// Why a round ended early.
#[derive(Debug)]
pub(super) enum CleaningError {
    /// The broker stops, or the segments are not the log's any more.
    Stopped,
    Read(ReadError),
    File(FileError),
    Journal(JournalError),
    /// What an earlier life has left in the directory could not be cleared away.
    Leftovers(UpkeepError),
    /// The first batch alone has more keys than the map takes.
    MapTooSmall {
        map_bytes: usize,
    },
    /// A batch whose checksum or records do not hold.
    Damaged {
        base_offset: i64,
        cause: String,
    },
}

impl std::fmt::Display for CleaningError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CleaningError::Stopped => formatter.write_str("stopped"),
            CleaningError::Read(error) => error.fmt(formatter),
            CleaningError::File(error) => error.fmt(formatter),
            CleaningError::Journal(error) => error.fmt(formatter),
            CleaningError::Leftovers(error) => error.fmt(formatter),
            CleaningError::MapTooSmall { map_bytes } => {
                write!(formatter, "{map_bytes} bytes hold fewer keys than a batch has; log.cleaner.dedupe.buffer.size says how many")
            }
            CleaningError::Damaged { base_offset, cause } => write!(formatter, "the batch at offset {base_offset} is damaged: {cause}"),
        }
    }
}

impl CleaningError {
    /// Whether the log itself is the reason, so that another round would end in the same way.
    pub fn is_damage(&self) -> bool {
        match self {
            CleaningError::Damaged { .. } | CleaningError::Read(ReadError::Damaged { .. }) => true,
            CleaningError::Stopped
            | CleaningError::Read(ReadError::File(_))
            | CleaningError::File(_)
            | CleaningError::Journal(_)
            | CleaningError::Leftovers(_)
            | CleaningError::MapTooSmall { .. } => false,
        }
    }
}

impl From<ReadError> for CleaningError {
    fn from(error: ReadError) -> Self {
        CleaningError::Read(error)
    }
}

impl From<FileError> for CleaningError {
    fn from(error: FileError) -> Self {
        CleaningError::File(error)
    }
}

impl From<JournalError> for CleaningError {
    fn from(error: JournalError) -> Self {
        CleaningError::Journal(error)
    }
}

type Result<T> = std::result::Result<T, CleaningError>;

/// What a round has done, for the log.
#[derive(Clone, Copy, Debug, Default)]
struct RoundReport {
    bytes_before: u64,
    bytes_after: u64,
    segments_before: usize,
    segments_after: usize,
}

impl Partition {
    /// One round, as `choice` says.
    pub(super) async fn compact(&self, choice: &Choice, options: &CleanerOptions, now_ms: i64) -> Result<()> {
        self.sweep_once().await.map_err(CleaningError::Leftovers)?;
        let begun = Instant::now();
        let mut pace = Pace::new(options.io_bytes_per_second);
        let map = self.note_keys(choice, options, &mut pace).await?;
        let end_offset = map.latest_offset() + 1;
        if end_offset <= choice.first_dirty {
            return Err(CleaningError::MapTooSmall { map_bytes: map.memory_bytes() });
        }
        let rules = *self.log.borrow().rules();
        let interval_bytes = u64::from(rules.index_interval_bytes.max(BATCH_HEADER_BYTES as i32) as u32);
        // More entries than this no index of such a segment can hold.
        let index_bytes = |book: &SegmentBook| u64::from(book.size_bytes) / interval_bytes * OFFSET_ENTRY_BYTES as u64;
        let groups = groups(
            self.log.borrow().segments(),
            end_offset,
            choice.first_uncleanable,
            rules.segment_bytes as u64,
            index_bytes,
            rules.segment_index_bytes as u64,
        );
        let mut transactions = TransactionTracker::default();
        let mut report = RoundReport::default();
        let filter = BatchFilter {
            map: &map,
            producers: self.log.borrow().producers().producers().clone(),
            round_end: choice.first_uncleanable,
            now_ms,
            delete_retention_ms: self.keeping.get().compaction.delete_retention_ms,
        };
        for group in groups {
            let book = self.clean_group(&group, choice.first_uncleanable, &filter, &mut transactions, &mut pace).await?;
            report.segments_before += group.len();
            report.segments_after += 1;
            report.bytes_before += group.iter().map(|book| u64::from(book.size_bytes)).sum::<u64>();
            report.bytes_after += u64::from(book.size_bytes);
        }
        self.cleaning.cleaned_to.set(Some(end_offset));
        tracing::info!(
            topic = %self.topic,
            partition = self.id.partition,
            from = choice.first_dirty,
            to = end_offset,
            keys = map.count(),
            bytes_before = report.bytes_before,
            bytes_after = report.bytes_after,
            segments_before = report.segments_before,
            segments_after = report.segments_after,
            milliseconds = begun.elapsed().as_millis() as u64,
            "compacted"
        );
        Ok(())
    }

    fn may_be_compacted(&self) -> bool {
        !self.is_deleted.get() && !self.environment.is_stopping.get()
    }

    /// The last offset of each key in the part that has not been compacted, as far as the map takes it.
    async fn note_keys(&self, choice: &Choice, options: &CleanerOptions, pace: &mut Pace) -> Result<OffsetMap> {
        let records_max = usize::try_from(choice.first_uncleanable - choice.first_dirty).unwrap_or(usize::MAX);
        let hashers = [RandomState::new(), RandomState::new()];
        let mut map = OffsetMap::new(options.map_bytes, options.map_load_factor, records_max, hashers);
        let mut transactions = TransactionTracker::default();
        transactions.add(&self.aborted_between(choice.first_dirty, choice.first_uncleanable).await?);
        let dirty: Vec<SegmentBook> = {
            let log = self.log.borrow();
            let first = log.segments().containing(choice.first_dirty).map_or(i64::MIN, |book| book.base_offset);
            log.segments().iter().filter(|book| book.base_offset >= first && book.base_offset < choice.first_uncleanable).copied().collect()
        };
        for book in &dirty {
            if !self.note_segment(book, choice.first_dirty, &mut map, &mut transactions, pace).await? {
                return Ok(map);
            }
            let log = self.log.borrow();
            map.reached(log.segments().end_offset(book.base_offset, choice.first_uncleanable).min(choice.first_uncleanable) - 1);
        }
        Ok(map)
    }

    /// Returns whether all of the segment is in the map.
    async fn note_segment(
        &self,
        book: &SegmentBook,
        from: i64,
        map: &mut OffsetMap,
        transactions: &mut TransactionTracker,
        pace: &mut Pace,
    ) -> Result<bool> {
        let view = self.segment_view(book, book.size_bytes);
        let first = self.environment.reader.find_batch(&view, None, from).await?;
        let mut walk = BatchWalk::new(view, first.map_or(book.size_bytes, |batch| batch.position));
        while let Some((info, batch)) = walk.next(self, pace).await? {
            if info.is_control {
                transactions.on_control(&info, EndMarker::decode(&batch));
            } else if !transactions.on_batch(&info) {
                let header = parse(&info, &batch, pace).await?;
                let records = unpack(&info, &header, &batch, pace).await?;
                for (index, record) in RecordIterator::new(&records, header.record_count).enumerate() {
                    let record = record.map_err(|error| damaged(&info, error))?;
                    let offset = info.base_offset + i64::from(record.offset_delta);
                    if let Some(key) = record.key.filter(|_| offset >= from)
                        && !map.put(key, offset)
                    {
                        return Ok(false);
                    }
                    if index % RECORDS_PER_LOOK == RECORDS_PER_LOOK - 1 {
                        pace.breathe().await;
                    }
                }
            }
            if info.last_offset() >= from {
                map.reached(info.last_offset());
            }
        }
        Ok(true)
    }

    /// Writes a group of segments as one, and puts that in their place.
    async fn clean_group(
        &self,
        group: &[SegmentBook],
        first_uncleanable: i64,
        filter: &BatchFilter<'_>,
        transactions: &mut TransactionTracker,
        pace: &mut Pace,
    ) -> Result<SegmentBook> {
        let interval_bytes = self.log.borrow().rules().index_interval_bytes;
        let last = group.last().expect("a group has a segment");
        let direct = self.environment.reader.is_direct();
        let directory = self.directory();
        let mut cleaned = CompactedSegment::begin(directory.clone(), group[0].base_offset, last.created_ms, interval_bytes, direct).await?;
        for book in group {
            let end = self.log.borrow().segments().end_offset(book.base_offset, first_uncleanable);
            transactions.add(&self.aborted_between(book.base_offset, end).await?);
            if let Err(error) = self.clean_segment(book, &mut cleaned, filter, transactions, pace).await {
                cleaned.abandon().await;
                return Err(error);
            }
        }
        let finished = cleaned.finish(self.modified_ms(last.base_offset).await).await;
        if finished.is_err() {
            let (path, base_offset) = (directory.to_path_buf(), group[0].base_offset);
            rt::blocking(move || discard_unfinished_blocking(&path, base_offset)).await;
        }
        let book = finished?;
        self.swap(group, book, &directory).await?;
        Ok(book)
    }

    async fn clean_segment(
        &self,
        book: &SegmentBook,
        cleaned: &mut CompactedSegment,
        filter: &BatchFilter<'_>,
        transactions: &mut TransactionTracker,
        pace: &mut Pace,
    ) -> Result<()> {
        let mut walk = BatchWalk::new(self.segment_view(book, book.size_bytes), 0);
        while let Some((info, batch)) = walk.next(self, pace).await? {
            let header = parse(&info, &batch, pace).await?;
            let marker = if info.is_control { EndMarker::decode(&batch) } else { None };
            let retention = filter.judge(&info, &header, marker, transactions);
            if let Some(entry) = retention.kept_entry {
                cleaned.add_aborted(entry);
            }
            let records = if retention.discards_records() { Bytes::new() } else { unpack(&info, &header, &batch, pace).await? };
            // As large as it may become: to grow it would copy it.
            let mut kept = Vec::with_capacity(records.len().min(header.record_count.max(0) as usize));
            if !retention.discards_records() {
                for (index, record) in RecordIterator::new(&records, header.record_count).enumerate() {
                    let record = record.map_err(|error| damaged(&info, error))?;
                    if filter.keeps(&info, &header, &record) {
                        kept.push(record);
                    }
                    if index % RECORDS_PER_LOOK == RECORDS_PER_LOOK - 1 {
                        pace.breathe().await;
                    }
                }
            }
            let rewriting = filter.rewrite(&batch, &header, &retention, &kept).map_err(|error| damaged(&info, error))?;
            if let Some(left) = carry_out(&info, rewriting, pace).await? {
                let info = BatchInfo::decode(&left).expect("a batch of our own has a sound header");
                pace.spend(left.len(), || self.may_be_compacted()).await;
                cleaned.append(&info, left).await?;
            }
        }
        Ok(())
    }

    /// The new segment, written into `directory`, takes the place of the group's, if that is still the log's and still there.
    async fn swap(&self, group: &[SegmentBook], book: SegmentBook, directory: &Path) -> Result<()> {
        let _turn = self.upkeep.turn.acquire(1).await;
        let replaced = {
            let log = self.log.borrow();
            let last = group.last().expect("a group has a segment");
            book.base_offset..log.segments().after(last.base_offset).map_or(i64::MIN, |next| next.base_offset)
        };
        let is_wanted = || {
            let log = self.log.borrow();
            let still_there = group.iter().all(|book| log.segments().get(book.base_offset) == Some(book));
            still_there && *self.directory() == *directory && self.may_be_compacted() && replaced.end > replaced.start
        };
        let switch = || {
            self.log.borrow_mut().segments_mut().replace(replaced.end, book);
            self.layout.set(self.layout.get() + 1);
            self.tail.drop_below(replaced.end);
            self.environment.reader.begin_swap(&self.id, book.base_offset);
        };
        let header = EntryHeader::swap(self.id, replaced.start, replaced.end);
        let appended = self.environment.append_entry_if(header, &encode_segment(&book), is_wanted, switch).await?;
        let directory = directory.to_path_buf();
        let Some(sequence) = appended else {
            rt::blocking(move || discard_swap_blocking(&directory, book.base_offset)).await;
            return Err(CleaningError::Stopped);
        };
        self.environment.journal.wait_durable(sequence).await?;
        let names = replaced.clone();
        let exchanged = rt::blocking(move || swap_segments_blocking(&directory, names)).await;
        if let Err(error) = exchanged {
            // The journal keeps the exchange for the next start; until then the partition cannot be trusted with more.
            let failure = JournalError::Failed { path: error.path.clone(), cause: error.to_string() };
            self.environment.journal.fail_partition(&self.id, &failure);
            return Err(error.into());
        }
        self.environment.reader.end_swap(&self.id, book.base_offset);
        let swapped = self.environment.append_entry(EntryHeader::swapped(self.id, book.base_offset), &[], || {}).await?;
        self.environment.journal.wait_durable(swapped).await?;
        self.environment.journal.let_go_of(&self.id, sequence);
        Ok(())
    }
}

/// Reads the batches of a closed segment one after the other.
struct BatchWalk {
    view: SegmentView,
    position: u32,
    window: Bytes,
}

impl BatchWalk {
    fn new(view: SegmentView, position: u32) -> Self {
        Self { view, position, window: Bytes::new() }
    }

    async fn next(&mut self, partition: &Partition, pace: &mut Pace) -> Result<Option<(BatchInfo, Bytes)>> {
        if self.position >= self.view.size_bytes {
            return Ok(None);
        }
        let mut wanted = BATCH_HEADER_BYTES as u32;
        loop {
            if self.window.len() < wanted as usize {
                if !partition.may_be_compacted() {
                    return Err(CleaningError::Stopped);
                }
                self.window = partition.environment.reader.read(&self.view, self.position, wanted.max(READ_BYTES)).await?;
                pace.spend(self.window.len(), || partition.may_be_compacted()).await;
            }
            let info = BatchInfo::decode(&self.window).filter(|_| self.window.len() >= wanted as usize);
            let info = info.ok_or_else(|| ReadError::Damaged {
                directory: self.view.directory.to_path_buf(),
                base_offset: self.view.base_offset,
                position: self.position,
            })?;
            if self.window.len() >= info.size_bytes as usize {
                let batch = self.window.split_to(info.size_bytes as usize);
                self.position += info.size_bytes;
                pace.breathe().await;
                return Ok(Some((info, batch)));
            }
            wanted = info.size_bytes;
        }
    }
}

/// The header of a batch whose checksum holds: what is written anew gets a checksum of its own, and must not hide damage.
async fn parse(info: &BatchInfo, batch: &Bytes, pace: &mut Pace) -> Result<BatchHeader> {
    let header = BatchHeader::parse(batch).map_err(|error| damaged(info, error))?;
    let mut crc = Crc32c::new();
    for slice in batch[header.crc_range()].chunks(SLICE_BYTES) {
        crc.update(slice);
        pace.breathe().await;
    }
    header.compare_crc(crc.value()).map_err(|error| damaged(info, error))?;
    Ok(header)
}

/// The records of a batch as they lie one behind the other when they are not compressed.
async fn unpack(info: &BatchInfo, header: &BatchHeader, batch: &Bytes, pace: &mut Pace) -> Result<Bytes> {
    let packed = batch.slice(BATCH_HEADER_BYTES..);
    let compression = header.compression().map_err(|error| damaged(info, error))?;
    if compression == Compression::None || packed.is_empty() {
        return Ok(packed);
    }
    let mut decompressor = Decompressor::new(compression, packed, DECOMPRESSED_BYTES_MAX).map_err(|error| damaged(info, error))?;
    let mut records = Vec::new();
    let mut slice = Vec::new();
    loop {
        let progress = decompressor.step(&mut slice).map_err(|error| damaged(info, error))?;
        records.extend_from_slice(&slice);
        if progress == Progress::Done {
            return Ok(Bytes::from(records));
        }
        pace.breathe().await;
    }
}

/// What takes the place of a batch, made a slice at a time.
async fn carry_out(info: &BatchInfo, mut rewriting: Rewriting<'_>, pace: &mut Pace) -> Result<Option<Bytes>> {
    loop {
        match rewriting.step().map_err(|error| damaged(info, error))? {
            Step::More => pace.breathe().await,
            Step::Done(left) => return Ok(left),
        }
    }
}

fn damaged(info: &BatchInfo, cause: impl std::fmt::Display) -> CleaningError {
    CleaningError::Damaged { base_offset: info.base_offset, cause: cause.to_string() }
}
