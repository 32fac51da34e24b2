//! What a partition writes besides its batches, later and in the background: index files, producer snapshots, the leader epoch checkpoint.
//!
//! All of it can be made again from the log, so nothing is flushed and a failure costs a warning. Index entries of the active segment go to its file in blocks, once their batches
//! are placed; those of a closed segment when all of it is placed. One task for each shard does one partition after the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::Partition;
use crate::disk::directories::{self, DirectoryError};
use crate::disk::index_files::{self, IndexAppend, IndexFilesState};
use crate::disk::journal::JournalError;
use crate::disk::producers;
use crate::disk::reader::ReadError;
use crate::log::checkpoint_file;
use crate::log::file_names::{LEADER_EPOCH_CHECKPOINT, LogFileKind};
use crate::log::offset_index::OffsetIndexTail;
use crate::log::producer_snapshot::Encoded;
use crate::log::time_index::TimeIndexTail;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{Log, Producers, Roll, SegmentBook};
use crate::rt;
use crate::rt::file::{list_directory_blocking, remove_blocking};
use crate::rt::sync::{Budget, Notify};

/// Index entries leave memory when there is a block of them.
const INDEX_BYTES_MIN: usize = 4096;
/// So do aborted transactions, as every checkpoint carries those that are in memory.
const ABORTED_COUNT_MIN: usize = 256;

/// A segment that was rolled: what is still to be written about it.
#[derive(Debug)]
pub(super) struct ClosedSegment {
    roll: Roll,
    /// Whether the counts of entries in its files are known; otherwise the files were found at a start and not looked at yet.
    files_are_open: bool,
    /// As of the segment's end.
    producers: Producers,
    end_offset: i64,
}

/// What upkeep remembers of a partition.
pub(super) struct UpkeepState {
    is_queued: Cell<bool>,
    /// Held by whoever writes files of the partition.
    pub turn: Budget,
    /// Whether the counts of entries in the active segment's index files are known.
    files_are_open: Cell<bool>,
    /// Segments that are closed and may have been closed shortly before a crash: their files are looked at once.
    unchecked: RefCell<Vec<SegmentBook>>,
}

impl UpkeepState {
    /// A partition whose files are as this process has written them.
    pub fn fresh() -> Self {
        Self { is_queued: Cell::new(false), turn: Budget::new(1), files_are_open: Cell::new(true), unchecked: RefCell::default() }
    }

    /// A partition that was found at a start.
    pub fn found(closed: Vec<SegmentBook>) -> Self {
        Self { files_are_open: Cell::new(false), unchecked: RefCell::new(closed), ..Self::fresh() }
    }
}

/// The partitions of a shard that have something to write.
#[derive(Default)]
pub(super) struct UpkeepQueue {
    waiting: RefCell<VecDeque<Rc<Partition>>>,
    bell: Notify,
    is_over: Cell<bool>,
}

impl UpkeepQueue {
    fn push(&self, partition: Rc<Partition>) {
        self.waiting.borrow_mut().push_back(partition);
        self.bell.notify_all();
    }

    /// Ends the task that works on the queue, when it has finished with the partition at hand.
    pub fn end(&self) {
        self.is_over.set(true);
        self.bell.notify_all();
    }

    /// The task of a shard that does what is due.
    pub async fn run(self: Rc<Self>) {
        while !self.is_over.get() {
            let rung = self.bell.notified();
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(partition) => {
                    partition.upkeep.is_queued.set(false);
                    partition.keep_up().await;
                }
                None => rung.await,
            }
        }
    }
}

impl Partition {
    /// The active segment has been rolled; `end_offset` is where the next one begins.
    pub(super) fn segment_closed(&self, roll: Roll, end_offset: i64) {
        let producers = self.log.borrow().producers().producers().clone();
        let files_are_open = self.upkeep.files_are_open.replace(true);
        self.closed.borrow_mut().push_back(ClosedSegment { roll, files_are_open, producers, end_offset });
    }

    /// Puts the partition into the queue if there is anything to write.
    pub(super) fn note_upkeep(&self) {
        if self.upkeep.is_queued.get() || self.is_deleted.get() || !self.has_upkeep() {
            return;
        }
        self.upkeep.is_queued.set(true);
        self.environment.upkeep.push(self.this.upgrade().expect("a partition is reached through its Rc"));
    }

    fn has_upkeep(&self) -> bool {
        let closed_is_placed = self.next_closed_is_placed();
        let log = self.log.borrow();
        let indexes = log.indexes();
        let has_entries =
            indexes.offset_index.unwritten().len() >= INDEX_BYTES_MIN || indexes.time_index.unwritten().len() >= INDEX_BYTES_MIN;
        let is_unchecked = !self.upkeep.unchecked.borrow().is_empty();
        let has_aborted = self.aborted.borrow().len() >= ABORTED_COUNT_MIN;
        closed_is_placed || has_entries || has_aborted || is_unchecked || self.oldest_is_removable(&log)
    }

    /// Whether there are segments of an earlier life whose indexes have not been looked at.
    pub(super) fn has_unchecked_segments(&self) -> bool {
        !self.upkeep.unchecked.borrow().is_empty()
    }

    fn next_closed_is_placed(&self) -> bool {
        let closed = self.closed.borrow();
        closed.front().is_some_and(|segment| segment.roll.previous_base < self.placed.get().segment_base)
    }

    /// The base of the oldest segment that was rolled and is not written out yet; nothing from there on may go or be replaced.
    pub(super) fn oldest_unwritten_segment(&self) -> i64 {
        self.closed.borrow().front().map_or(i64::MAX, |segment| segment.roll.previous_base)
    }

    /// Does what is due now. Failures are told and do not come back: it is tried again with the next piece of work.
    async fn keep_up(&self) {
        let _turn = self.upkeep.turn.acquire(1).await;
        if self.is_deleted.get() {
            return;
        }
        let done = self.write_what_is_due().await;
        if let Err(error) = done
            && !self.is_deleted.get()
        {
            tracing::warn!(topic = %self.topic, partition = self.id.partition, %error, "indexes could not be written; reads will take longer");
        }
    }

    async fn write_what_is_due(&self) -> Result<(), UpkeepError> {
        // First: files of what is no longer wanted may be gone already.
        self.remove_old_segments().await?;
        self.write_closed_segments().await?;
        self.write_active_indexes(false).await?;
        self.remove_old_segments().await
    }

    async fn write_closed_segments(&self) -> Result<(), UpkeepError> {
        self.check_closed_segments().await?;
        self.write_found_aborted().await?;
        while self.next_closed_is_placed() {
            self.write_closed_segment().await?;
        }
        Ok(())
    }

    /// Entries of the active segment that are in memory, or of one that was closed and is not written out yet; None if all are in the file.
    pub(super) fn recent_offset_index(&self, log: &Log, segment_base: i64) -> Option<OffsetIndexTail> {
        if log.segments().active().base_offset == segment_base {
            return Some(log.indexes().offset_index.clone());
        }
        let closed = self.closed.borrow();
        closed.iter().find(|segment| segment.roll.previous_base == segment_base).map(|segment| segment.roll.offset_index.clone())
    }

    pub(super) fn recent_time_index(&self, log: &Log, segment_base: i64) -> Option<TimeIndexTail> {
        if log.segments().active().base_offset == segment_base {
            return Some(log.indexes().time_index.clone());
        }
        let closed = self.closed.borrow();
        closed.iter().find(|segment| segment.roll.previous_base == segment_base).map(|segment| segment.roll.time_index.clone())
    }

    /// Writes the rest of the oldest closed segment's indexes, the producer state at its end, and the leader epochs so far.
    async fn write_closed_segment(&self) -> Result<(), UpkeepError> {
        let (roll, files_are_open, producers, end_offset, book) = {
            let closed = self.closed.borrow();
            let segment = closed.front().expect("there is one");
            let book = self.log.borrow().segments().get(segment.roll.previous_base).copied();
            (segment.roll.clone(), segment.files_are_open, segment.producers.clone(), segment.end_offset, book)
        };
        let previous_base = roll.previous_base;
        if let Some(book) = book {
            let (mut offset_index, mut time_index) = (roll.offset_index, roll.time_index);
            if !files_are_open {
                let files = self.open_index_files(&book).await?;
                offset_index.written(0, files.offset_entries);
                time_index.file_opened(files.time_entries, files.last_time_entry);
                if let Some(max_timestamp) = book.max_timestamp {
                    time_index.push_if_later(max_timestamp);
                }
            }
            let append = IndexAppend {
                directory: self.directory().to_path_buf(),
                base_offset: book.base_offset,
                offset_entries: offset_index.file_entries(),
                time_entries: time_index.file_entries(),
                offset_bytes: Bytes::copy_from_slice(offset_index.unwritten()),
                time_bytes: Bytes::copy_from_slice(time_index.unwritten()),
                aborted: self.aborted_of(book.base_offset),
                is_final: true,
            };
            let snapshot = producers::encode_kafka(producers).await;
            self.write_files(append, Some((end_offset, snapshot))).await?;
        }
        self.aborted.borrow_mut().retain(|(base, _)| *base != previous_base);
        self.closed.borrow_mut().pop_front();
        self.environment.reader.index_changed(&self.id, previous_base);
        Ok(())
    }

    /// Writes the active segment's entries as far as their batches are placed; all of them, and the one that closes the time index, if the log is being closed.
    async fn write_active_indexes(&self, is_final: bool) -> Result<(), UpkeepError> {
        let book = *self.log.borrow().segments().active();
        let is_due = is_final || {
            let log = self.log.borrow();
            log.indexes().offset_index.unwritten().len().max(log.indexes().time_index.unwritten().len()) >= INDEX_BYTES_MIN
                || self.aborted.borrow().len() >= ABORTED_COUNT_MIN
        };
        if !is_due {
            return Ok(());
        }
        if !self.upkeep.files_are_open.get() {
            let files = self.open_index_files(&book).await?;
            let mut log = self.log.borrow_mut();
            if log.segments().active().base_offset != book.base_offset {
                // Rolled meanwhile: the files are opened again with the closed segment.
                return Ok(());
            }
            let indexes = log.indexes_mut();
            indexes.offset_index.written(0, files.offset_entries);
            indexes.time_index.file_opened(files.time_entries, files.last_time_entry);
            self.upkeep.files_are_open.set(true);
        }
        let append = self.active_append(&book, is_final);
        let (offset_bytes, time_bytes) = (append.offset_bytes.len(), append.time_bytes.len());
        let (offset_entries, time_entries) = (append.offset_entries_after(), append.time_entries_after());
        let (base_offset, last_aborted) = (append.base_offset, append.aborted.last().map_or(-1, |entry| entry.last_offset));
        self.write_files(append, None).await?;

        let mut log = self.log.borrow_mut();
        if log.segments().active().base_offset == base_offset {
            let indexes = log.indexes_mut();
            indexes.offset_index.written(offset_bytes, offset_entries);
            indexes.time_index.written(time_bytes, time_entries);
        }
        self.aborted.borrow_mut().retain(|(base, entry)| *base != base_offset || entry.last_offset > last_aborted);
        self.environment.reader.index_changed(&self.id, base_offset);
        Ok(())
    }

    fn active_append(&self, book: &SegmentBook, is_final: bool) -> IndexAppend {
        let placed = self.placed.get();
        let mut log = self.log.borrow_mut();
        let indexes = log.indexes_mut();
        if let Some(max_timestamp) = book.max_timestamp.filter(|_| is_final) {
            indexes.time_index.push_if_later(max_timestamp);
        }
        let placed_bytes = if placed.segment_base == book.base_offset { placed.size_bytes } else { 0 };
        let offset_bytes = indexes.offset_index.bytes_before(placed_bytes);
        let time_bytes = indexes.time_index.bytes_before(placed.end_offset);
        let aborted = self.aborted_of(book.base_offset).into_iter().filter(|entry| entry.last_offset < placed.end_offset).collect();
        IndexAppend {
            directory: self.directory().to_path_buf(),
            base_offset: book.base_offset,
            offset_entries: indexes.offset_index.file_entries(),
            time_entries: indexes.time_index.file_entries(),
            offset_bytes: Bytes::copy_from_slice(&indexes.offset_index.unwritten()[..offset_bytes]),
            time_bytes: Bytes::copy_from_slice(&indexes.time_index.unwritten()[..time_bytes]),
            aborted,
            is_final,
        }
    }

    /// Aborted transactions of a segment that its index file may lack.
    pub(super) fn aborted_of(&self, segment_base: i64) -> Vec<AbortedTransaction> {
        self.aborted.borrow().iter().filter(|(base, _)| *base == segment_base).map(|(_, entry)| *entry).collect()
    }

    /// Looks at index files that an earlier life has written, and adds what a crash has kept from them.
    async fn open_index_files(&self, book: &SegmentBook) -> Result<IndexFilesState, UpkeepError> {
        // Entries in memory begin where this life began: the files are completed up to there.
        let found_bytes = self.first_recent_position(book);
        let state = index_files::open(&self.directory(), book.base_offset, found_bytes).await.map_err(DirectoryError::from)?;
        let interval_bytes = self.log.borrow().rules().index_interval_bytes.max(0) as u32;
        let view = self.segment_view(book, found_bytes);
        let (offsets, times) = index_files::missing_entries(&self.environment.reader, &view, &state, interval_bytes).await?;
        let append = IndexAppend {
            directory: self.directory().to_path_buf(),
            base_offset: book.base_offset,
            offset_entries: offsets.file_entries(),
            time_entries: times.file_entries(),
            offset_bytes: Bytes::copy_from_slice(offsets.unwritten()),
            time_bytes: Bytes::copy_from_slice(times.unwritten()),
            aborted: Vec::new(),
            is_final: false,
        };
        self.write_files(append, None).await?;
        self.environment.reader.index_changed(&self.id, book.base_offset);
        Ok(IndexFilesState {
            offset_entries: offsets.len(),
            time_entries: times.len(),
            last_time_entry: times.last(),
            ..IndexFilesState::default()
        })
    }

    /// The position of the first batch of the segment that this life has appended, as far as index entries tell; the segment's end if there is none.
    fn first_recent_position(&self, book: &SegmentBook) -> u32 {
        let log = self.log.borrow();
        let recent = self.recent_offset_index(&log, book.base_offset);
        let first = recent.as_ref().filter(|recent| !recent.unwritten().is_empty()).map(|recent| recent.view().entry(0).position);
        // Nothing beyond what is placed is read from the file.
        let placed = self.placed.get();
        let placed_bytes = if placed.segment_base == book.base_offset { placed.size_bytes } else { book.size_bytes };
        first.unwrap_or(book.size_bytes).min(placed_bytes)
    }

    /// Segments that were closed before the start: the last entry of a whole time index names the largest timestamp. Where it does not, a crash came before the indexes were written.
    /// They are written in the order of the segments, here too, so a segment is only behind if all after it are.
    async fn check_closed_segments(&self) -> Result<(), UpkeepError> {
        let unchecked = self.upkeep.unchecked.borrow().clone();
        let mut behind = Vec::new();
        for book in unchecked.iter().rev() {
            // One that was let go of meanwhile needs no index, nor do those before it.
            let is_kept = self.log.borrow().segments().get(book.base_offset) == Some(book);
            if !is_kept || self.has_whole_time_index(book).await? {
                break;
            }
            behind.push(*book);
        }
        while let Some(book) = behind.pop() {
            self.rebuild_closed_segment(&book).await?;
        }
        self.upkeep.unchecked.borrow_mut().clear();
        Ok(())
    }

    async fn has_whole_time_index(&self, book: &SegmentBook) -> Result<bool, UpkeepError> {
        let view = self.segment_view(book, book.size_bytes);
        let last = self.environment.reader.time_entry(&view, |index| index.last()).await?;
        Ok(last.is_some() && last.map(|last| last.timestamp) == book.max_timestamp.map(|max| max.timestamp))
    }

    /// Aborted transactions that recovery has found in the log and whose segment was closed before the start.
    async fn write_found_aborted(&self) -> Result<(), UpkeepError> {
        loop {
            let found = {
                let active = self.log.borrow().segments().active().base_offset;
                let closed = self.closed.borrow();
                let is_waiting = |base: i64| base == active || closed.iter().any(|segment| segment.roll.previous_base == base);
                self.aborted.borrow().iter().map(|(base, _)| *base).find(|base| !is_waiting(*base))
            };
            let Some(base_offset) = found else { return Ok(()) };
            if self.log.borrow().segments().get(base_offset).is_some() {
                let append = IndexAppend {
                    directory: self.directory().to_path_buf(),
                    base_offset,
                    offset_entries: 0,
                    time_entries: 0,
                    offset_bytes: Bytes::new(),
                    time_bytes: Bytes::new(),
                    aborted: self.aborted_of(base_offset),
                    is_final: false,
                };
                self.write_files(append, None).await?;
                self.environment.reader.index_changed(&self.id, base_offset);
            }
            self.aborted.borrow_mut().retain(|(base, _)| *base != base_offset);
        }
    }

    async fn rebuild_closed_segment(&self, book: &SegmentBook) -> Result<(), UpkeepError> {
        let files = self.open_index_files(book).await?;
        let mut closing = TimeIndexTail::new(book.base_offset, files.time_entries, files.last_time_entry);
        if let Some(max_timestamp) = book.max_timestamp {
            closing.push_if_later(max_timestamp);
        }
        let append = IndexAppend {
            directory: self.directory().to_path_buf(),
            base_offset: book.base_offset,
            offset_entries: files.offset_entries,
            time_entries: files.time_entries,
            offset_bytes: Bytes::new(),
            time_bytes: Bytes::copy_from_slice(closing.unwritten()),
            aborted: Vec::new(),
            is_final: true,
        };
        self.write_files(append, None).await?;
        self.environment.reader.index_changed(&self.id, book.base_offset);
        Ok(())
    }

    async fn write_files(&self, append: IndexAppend, snapshot: Option<(i64, Encoded)>) -> Result<(), UpkeepError> {
        let epochs = snapshot.is_some().then(|| checkpoint_file::encode_leader_epochs(self.log.borrow().leader_epochs()));
        rt::blocking(move || {
            append.write_blocking()?;
            if let Some((offset, content)) = snapshot {
                directories::write_hint_blocking(&append.directory, &LogFileKind::ProducerSnapshot.name(offset), &content.to_vec())?;
            }
            if let Some(epochs) = epochs {
                directories::write_hint_blocking(&append.directory, LEADER_EPOCH_CHECKPOINT, epochs.as_bytes())?;
            }
            Ok(())
        })
        .await
    }

    /// Removes the files that `is_meant`.
    async fn in_directory(&self, is_meant: impl Fn(&str) -> bool + Send + 'static) -> Result<(), UpkeepError> {
        let directory = self.directory().to_path_buf();
        rt::blocking(move || {
            for name in list_directory_blocking(&directory).map_err(DirectoryError::from)? {
                if is_meant(&name) {
                    remove_blocking(directory.join(name)).map_err(DirectoryError::from)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The last step of a clean stop, when everything is placed and the last checkpoint is written: all files are as Kafka leaves them. No segment goes any more, as the checkpoint
    /// names it.
    pub(super) async fn close_files(&self) -> Result<(), UpkeepError> {
        if !self.is_changed.get() {
            return Ok(());
        }
        let _turn = self.upkeep.turn.acquire(1).await;
        self.write_closed_segments().await?;
        let (is_used, end_offset, first_base) = {
            let log = self.log.borrow();
            let segments = log.segments();
            let is_used = segments.count() > 1 || segments.active().size_bytes > 0;
            (is_used, log.log_end_offset(), segments.iter().next().map_or(0, |book| book.base_offset))
        };
        if !is_used {
            return Ok(());
        }
        self.write_active_indexes(true).await?;
        let (producers, epochs, bases) = {
            let log = self.log.borrow();
            let bases: Vec<i64> = log.segments().iter().map(|book| book.base_offset).collect();
            (log.producers().producers().clone(), checkpoint_file::encode_leader_epochs(log.leader_epochs()), bases)
        };
        let snapshot = producers::encode_kafka(producers).await;
        let directory = self.directory().to_path_buf();
        rt::blocking(move || {
            directories::write_hint_blocking(&directory, &LogFileKind::ProducerSnapshot.name(end_offset), &snapshot.to_vec())?;
            directories::write_hint_blocking(&directory, LEADER_EPOCH_CHECKPOINT, epochs.as_bytes())
        })
        .await?;
        self.in_directory(move |name| match LogFileKind::parse(name) {
            // Snapshots of other offsets are left over from earlier stops.
            Some((LogFileKind::ProducerSnapshot, offset)) => offset != end_offset && bases.binary_search(&offset).is_err(),
            Some((_, offset)) => offset < first_base,
            None => false,
        })
        .await
    }
}

/// Why something was not written.
#[derive(Debug)]
pub(super) enum UpkeepError {
    Directory(DirectoryError),
    Read(ReadError),
    Journal(JournalError),
}

impl From<DirectoryError> for UpkeepError {
    fn from(error: DirectoryError) -> Self {
        UpkeepError::Directory(error)
    }
}

impl From<ReadError> for UpkeepError {
    fn from(error: ReadError) -> Self {
        UpkeepError::Read(error)
    }
}

impl std::fmt::Display for UpkeepError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UpkeepError::Directory(error) => error.fmt(formatter),
            UpkeepError::Read(error) => error.fmt(formatter),
            UpkeepError::Journal(error) => error.fmt(formatter),
        }
    }
}
