//! Reading segments: where the batch with an offset begins, where a piece of so many bytes ends, and the bytes themselves.
//!
//! Positions come from the offset index (the entries in memory, then those in the file, which are kept in a cache) and from walking over batch headers from there. An entry is
//! a hint: the batch it points at must bear the offset it names, otherwise the walk begins at the segment's beginning.
//!
//! Blocks that placement will still write (the last, partly filled one of an active segment) are read past the page cache: a cached page would make the next direct write to it
//! slow, see ARCHITECTURE.md. Everything before is read through the cache, which sendfile then shares.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::cluster::TopicIdPartition;
use crate::disk::journal::group::{round_down_to_block, round_up_to_block};
use crate::disk::segment_files::{SegmentFileKey, SegmentFiles};
use crate::disk::slow;
use crate::log::batch::{BATCH_HEADER_BYTES, BatchInfo};
use crate::log::file_names::{LogFileKind, SWAP_SUFFIX};
use crate::log::offset_index::{OffsetEntry, OffsetIndex};
use crate::log::segment_scan::{Walk, first_reaching};
use crate::log::time_index::{TimeEntry, TimeIndex};
use crate::log::transaction_index::{self, AbortedTransaction};
use crate::rt;
use crate::rt::file::{File, FileError, OpenMode};

/// The first read of a walk: an index entry is about this far from the batch that is looked for.
const WALK_BYTES_MIN: usize = 8 << 10;
/// A long walk (an index with a gap) reads this much at once.
const WALK_BYTES_MAX: usize = 256 << 10;

/// A segment as far as its file may be read.
#[derive(Clone, Debug)]
pub struct SegmentView {
    pub partition: TopicIdPartition,
    pub directory: Rc<Path>,
    pub base_offset: i64,
    /// Bytes of whole batches that the file holds.
    pub size_bytes: u32,
    /// Bytes from the beginning whose blocks nobody will write again.
    pub settled_bytes: u32,
    /// Counts how often the partition's files have changed places (compaction): what was opened or cached under an earlier layout is not what this view means.
    pub layout: u32,
}

impl SegmentView {
    /// `is_active`: placement may still append to the file.
    pub fn new(partition: TopicIdPartition, directory: Rc<Path>, base_offset: i64, size_bytes: u32, is_active: bool) -> Self {
        let settled_bytes = if is_active { round_down_to_block(u64::from(size_bytes)) as u32 } else { size_bytes };
        Self { partition, directory, base_offset, size_bytes, settled_bytes, layout: 0 }
    }
}

/// Why a segment could not be read.
#[derive(Clone, Debug)]
pub enum ReadError {
    File(FileError),
    /// Where a batch should begin there is none.
    Damaged {
        directory: PathBuf,
        base_offset: i64,
        position: u32,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::File(error) => error.fmt(formatter),
            ReadError::Damaged { directory, base_offset, position } => {
                let file = LogFileKind::Log.name(*base_offset);
                write!(formatter, "no batch begins at byte {position} of {}", directory.join(file).display())
            }
        }
    }
}

impl std::error::Error for ReadError {}

impl From<FileError> for ReadError {
    fn from(error: FileError) -> Self {
        ReadError::File(error)
    }
}

type Result<T> = std::result::Result<T, ReadError>;

/// A batch that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBatch {
    pub position: u32,
    pub info: BatchInfo,
}

/// Reads the segments of a shard's partitions.
#[derive(Debug)]
pub struct Reader {
    files: SegmentFiles,
    indexes: IndexCache,
    /// Whether the filesystem reads past the page cache.
    direct: bool,
}

impl Reader {
    /// Keeps `files_open_max` files open and `index_bytes_max` bytes of indexes in memory.
    pub fn new(files_open_max: usize, index_bytes_max: usize, direct: bool) -> Self {
        Self { files: SegmentFiles::new(files_open_max), indexes: IndexCache::new(index_bytes_max), direct }
    }

    /// The first batch of the segment whose last offset is not below `offset`. `recent` are the index entries that the file does not hold yet. None if the segment ends before.
    pub async fn find_batch(&self, segment: &SegmentView, recent: Option<OffsetIndex<'_>>, offset: i64) -> Result<Option<FoundBatch>> {
        if segment.size_bytes == 0 {
            return Ok(None);
        }
        let known = recent.and_then(|recent| recent.floor_by_offset(offset));
        let entry = match known {
            Some(entry) => Some(entry),
            None => self.offset_entry(segment, |index| index.floor_by_offset(offset)).await?,
        };
        if let Some(entry) = entry.filter(|entry| entry.position < segment.size_bytes)
            && let Some(first) = self.batch_at(segment, entry.position).await?
            && first.last_offset() == entry.offset
        {
            return self.walk(segment, entry.position, offset).await;
        }
        self.walk(segment, 0, offset).await
    }

    /// Where the last whole batch ends that fits before `limit`; `start` is where one begins. `start` itself if the first does not fit.
    pub async fn find_end(&self, segment: &SegmentView, recent: Option<OffsetIndex<'_>>, start: u32, limit: u32) -> Result<u32> {
        if limit >= segment.size_bytes {
            return Ok(segment.size_bytes);
        }
        let known = recent.and_then(|recent| recent.floor_by_position(limit));
        let entry = match known {
            Some(entry) => Some(entry),
            None => self.offset_entry(segment, |index| index.floor_by_position(limit)).await?,
        };
        let mut position = start;
        if let Some(entry) = entry.filter(|entry| entry.position > start)
            && self.batch_at(segment, entry.position).await?.is_some_and(|batch| batch.last_offset() == entry.offset)
        {
            position = entry.position;
        }
        self.walk_to(segment, position, limit).await
    }

    /// The batch that begins at `position`; None if none does.
    pub async fn batch_at(&self, segment: &SegmentView, position: u32) -> Result<Option<BatchInfo>> {
        let header = self.read(segment, position, BATCH_HEADER_BYTES as u32).await?;
        Ok(BatchInfo::decode(&header).filter(|info| info.base_offset >= segment.base_offset))
    }

    /// Bytes of the segment, fewer only where it ends.
    pub async fn read(&self, segment: &SegmentView, position: u32, length: u32) -> Result<Bytes> {
        let end = position.saturating_add(length).min(segment.size_bytes);
        if position >= end {
            return Ok(Bytes::new());
        }
        if end <= segment.settled_bytes || !self.direct {
            let file = self.open(segment, false).await?;
            let read = file.read_at((end - position) as usize, u64::from(position));
            return Ok(slow::timed(&file, "read from a segment", read).await?.freeze());
        }
        let file = self.open(segment, true).await?;
        let first = round_down_to_block(u64::from(position));
        let last = round_up_to_block(u64::from(end));
        let read = file.read_at((last - first) as usize, first);
        let blocks = slow::timed(&file, "read from a segment", read).await?.freeze();
        let skip = (u64::from(position) - first) as usize;
        let available = blocks.len().min(skip + (end - position) as usize);
        Ok(blocks.slice(skip.min(available)..available))
    }

    /// Whether it reads past the page cache where it should.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The segment's file, for sending ranges below `settled_bytes` of it.
    pub async fn log_file(&self, segment: &SegmentView) -> Result<File> {
        Ok(self.open(segment, false).await?)
    }

    /// The entry of the segment's time index that `choose` picks from those in the file.
    pub async fn time_entry(
        &self,
        segment: &SegmentView,
        choose: impl Fn(TimeIndex<'_>) -> Option<TimeEntry>,
    ) -> Result<Option<TimeEntry>> {
        let content = self.index_content(segment, LogFileKind::TimeIndex).await?;
        Ok(choose(TimeIndex::new(segment.base_offset, &content)))
    }

    /// The aborted transactions whose markers lie in the segment.
    pub async fn aborted_transactions(&self, segment: &SegmentView) -> Result<Vec<AbortedTransaction>> {
        let content = self.index_content(segment, LogFileKind::TransactionIndex).await?;
        Ok(transaction_index::decode(&content))
    }

    /// An index file has changed: what is kept of it in memory is read again when it is needed.
    pub fn index_changed(&self, partition: &TopicIdPartition, base_offset: i64) {
        self.indexes.forget(partition, Some(base_offset));
    }

    /// From now on the segment's files are those with `.swap` behind their names, until these have lost it.
    pub fn begin_swap(&self, partition: &TopicIdPartition, base_offset: i64) {
        self.files.begin_swap(partition, base_offset);
        self.forget(partition, None);
    }

    pub fn end_swap(&self, partition: &TopicIdPartition, base_offset: i64) {
        self.files.end_swap(partition, base_offset);
    }

    /// Closes what belongs to a partition, or to one segment of it.
    pub fn forget(&self, partition: &TopicIdPartition, base_offset: Option<i64>) {
        self.files.forget(partition, base_offset);
        self.indexes.forget(partition, base_offset);
    }

    async fn open(&self, segment: &SegmentView, direct: bool) -> std::result::Result<File, FileError> {
        let key = SegmentFileKey { partition: segment.partition, base_offset: segment.base_offset, layout: segment.layout, direct };
        self.files.open(key, &segment.directory).await
    }

    async fn walk(&self, segment: &SegmentView, from: u32, offset: i64) -> Result<Option<FoundBatch>> {
        let mut found = None;
        self.visit_headers(segment, from, |bytes| match first_reaching(bytes, offset) {
            Walk::Found { at, info } => {
                found = Some((at, info));
                Visit::Stop
            }
            Walk::Beyond { length_bytes } => Visit::Skip(length_bytes),
            Walk::NoBatch { at } => Visit::Damaged(at),
        })
        .await
        .map(|position| found.map(|(at, info)| FoundBatch { position: position + at as u32, info }))
    }

    /// Passes every batch from the one that begins at `from` on to `visit`, with its position.
    pub async fn walk_headers(&self, segment: &SegmentView, from: u32, mut visit: impl FnMut(u32, &BatchInfo)) -> Result<()> {
        let mut position = from;
        self.walk_while(segment, from, |info| {
            visit(position, info);
            position = position.saturating_add(info.size_bytes);
            true
        })
        .await
    }

    async fn walk_to(&self, segment: &SegmentView, from: u32, limit: u32) -> Result<u32> {
        let mut end = from;
        let is_before_limit = |info: &BatchInfo| {
            let next = u64::from(end) + u64::from(info.size_bytes);
            let is_before = next <= u64::from(limit);
            if is_before {
                end = next as u32;
            }
            is_before
        };
        self.walk_while(segment, from, is_before_limit).await.map(|()| end)
    }

    /// Passes every batch from the one that begins at `from` on to `goes_on`, until that is false.
    async fn walk_while(&self, segment: &SegmentView, from: u32, mut goes_on: impl FnMut(&BatchInfo) -> bool) -> Result<()> {
        let walked = self.visit_headers(segment, from, |bytes| {
            let mut at = 0;
            loop {
                let rest = &bytes[at.min(bytes.len())..];
                if rest.len() < BATCH_HEADER_BYTES {
                    return Visit::Skip(at as u64);
                }
                let Some(info) = BatchInfo::decode(rest) else { return Visit::Damaged(at) };
                if !goes_on(&info) {
                    return Visit::Stop;
                }
                at += info.size_bytes as usize;
            }
        });
        walked.await.map(|_| ())
    }

    /// Passes pieces of the segment to `visit`, each beginning with a batch. Returns the position of the last piece.
    async fn visit_headers(&self, segment: &SegmentView, from: u32, mut visit: impl FnMut(&[u8]) -> Visit) -> Result<u32> {
        let mut position = from;
        let mut length = WALK_BYTES_MIN;
        while position < segment.size_bytes {
            let bytes = self.read(segment, position, length as u32).await?;
            let damaged = |at: usize| ReadError::Damaged {
                directory: segment.directory.to_path_buf(),
                base_offset: segment.base_offset,
                position: position + at as u32,
            };
            if bytes.len() < BATCH_HEADER_BYTES {
                return Err(damaged(0));
            }
            match visit(&bytes) {
                Visit::Stop => return Ok(position),
                Visit::Damaged(at) => return Err(damaged(at)),
                Visit::Skip(skip) => {
                    // A batch that is larger than what was read is passed over; after many small ones more is read at once.
                    length = if skip > bytes.len() as u64 { WALK_BYTES_MIN } else { (length * 2).min(WALK_BYTES_MAX) };
                    position = u32::try_from(u64::from(position) + skip).map_err(|_| damaged(0))?;
                }
            }
        }
        Ok(position)
    }

    async fn offset_entry(
        &self,
        segment: &SegmentView,
        choose: impl Fn(OffsetIndex<'_>) -> Option<OffsetEntry>,
    ) -> Result<Option<OffsetEntry>> {
        let content = self.index_content(segment, LogFileKind::OffsetIndex).await?;
        Ok(choose(OffsetIndex::new(segment.base_offset, &content)))
    }

    /// The checked content of an index file; empty if there is none.
    async fn index_content(&self, segment: &SegmentView, kind: LogFileKind) -> Result<Rc<Vec<u8>>> {
        let key = IndexKey { partition: segment.partition, base_offset: segment.base_offset, layout: segment.layout, kind };
        if let Some(content) = self.indexes.get(&key) {
            return Ok(content);
        }
        let reading = self.indexes.begin_read(key);
        let name = kind.name(segment.base_offset);
        let mut paths = vec![segment.directory.join(&name)];
        if self.files.is_swapping(&segment.partition, segment.base_offset) {
            paths.insert(0, segment.directory.join(format!("{name}{SWAP_SUFFIX}")));
        }
        let bytes = rt::blocking(move || read_first_blocking(paths)).await?;
        let checked = match kind {
            // The segment may have grown beyond this view when the content is used again; whoever looks up compares positions with its own.
            LogFileKind::OffsetIndex => OffsetIndex::checked(segment.base_offset, &bytes, u32::MAX).bytes(),
            LogFileKind::TimeIndex => TimeIndex::checked(segment.base_offset, &bytes).bytes(),
            LogFileKind::Log | LogFileKind::TransactionIndex | LogFileKind::ProducerSnapshot => &bytes,
        };
        let content = Rc::new(checked.to_vec());
        reading.finish(content.clone());
        Ok(content)
    }
}

/// The content of the first index file of these that exists; where none does it is empty, and is remembered so until somebody says that it has changed. Its content is kept, so the
/// file is not kept open.
fn read_first_blocking(paths: Vec<PathBuf>) -> std::result::Result<Bytes, FileError> {
    for path in paths {
        match File::open_blocking(path, OpenMode::READ) {
            Ok(file) => return Ok(file.read_at_blocking(file.length()? as usize, 0)?.freeze()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bytes::new())
}

/// What a look at a piece of a segment says.
enum Visit {
    /// Go on so many bytes behind the beginning of the piece.
    Skip(u64),
    Stop,
    /// No batch begins at this place of the piece.
    Damaged(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct IndexKey {
    partition: TopicIdPartition,
    base_offset: i64,
    layout: u32,
    kind: LogFileKind,
}

/// Contents of index files, bounded in bytes; those that were not used for the longest time go first.
///
/// A file may change while somebody reads it. What was read is only kept if nobody has said so since the read began: whoever writes an index lets go of its entries in memory and
/// tells the cache in one step, and content from before would hide them for as long as it stays.
#[derive(Debug)]
struct IndexCache {
    bytes_max: usize,
    bytes: Cell<usize>,
    contents: RefCell<HashMap<IndexKey, CachedIndex, foldhash::fast::RandomState>>,
    /// Reads under way whose file has not changed since they began, by the clock's reading then.
    reads: RefCell<HashMap<u64, IndexKey, foldhash::fast::RandomState>>,
    clock: Cell<u64>,
}

/// A read of an index file, from before the file is opened until its content is there or nobody waits for it any more.
struct IndexRead<'a> {
    cache: &'a IndexCache,
    key: IndexKey,
    begun: u64,
}

impl IndexRead<'_> {
    /// Keeps the content, unless the file has changed meanwhile.
    fn finish(self, content: Rc<Vec<u8>>) {
        let is_current = self.cache.reads.borrow().contains_key(&self.begun);
        if is_current {
            self.cache.insert(self.key, content);
        }
    }
}

impl Drop for IndexRead<'_> {
    fn drop(&mut self) {
        self.cache.reads.borrow_mut().remove(&self.begun);
    }
}

#[derive(Debug)]
struct CachedIndex {
    content: Rc<Vec<u8>>,
    used: u64,
}

impl CachedIndex {
    /// An empty index costs its place too.
    fn memory_bytes(&self) -> usize {
        self.content.len() + size_of::<(IndexKey, CachedIndex)>()
    }
}

impl IndexCache {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: Cell::new(0), contents: RefCell::default(), reads: RefCell::default(), clock: Cell::new(0) }
    }

    fn get(&self, key: &IndexKey) -> Option<Rc<Vec<u8>>> {
        let mut contents = self.contents.borrow_mut();
        let cached = contents.get_mut(key)?;
        cached.used = self.tick();
        Some(cached.content.clone())
    }

    fn begin_read(&self, key: IndexKey) -> IndexRead<'_> {
        let begun = self.tick();
        self.reads.borrow_mut().insert(begun, key);
        IndexRead { cache: self, key, begun }
    }

    fn insert(&self, key: IndexKey, content: Rc<Vec<u8>>) {
        let cached = CachedIndex { content, used: self.tick() };
        let mut contents = self.contents.borrow_mut();
        self.bytes.set(self.bytes.get() + cached.memory_bytes());
        if let Some(previous) = contents.insert(key, cached) {
            self.bytes.set(self.bytes.get() - previous.memory_bytes());
        }
        while self.bytes.get() > self.bytes_max && contents.len() > 1 {
            let oldest = contents.iter().min_by_key(|(_, cached)| cached.used).map(|(key, _)| *key).expect("not empty");
            let removed = contents.remove(&oldest).expect("just found");
            self.bytes.set(self.bytes.get() - removed.memory_bytes());
        }
    }

    fn forget(&self, partition: &TopicIdPartition, base_offset: Option<i64>) {
        let is_meant = |key: &IndexKey| key.partition == *partition && base_offset.is_none_or(|base_offset| key.base_offset == base_offset);
        self.reads.borrow_mut().retain(|_, key| !is_meant(key));
        self.contents.borrow_mut().retain(|key, cached| {
            let goes = is_meant(key);
            if goes {
                self.bytes.set(self.bytes.get() - cached.memory_bytes());
            }
            !goes
        });
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
