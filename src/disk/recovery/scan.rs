//! Reading a partition's segment files without a checkpoint of ours: directories that Apache Kafka wrote, or that were copied from another machine.
//!
//! After a clean stop (a clean marker of Kafka's) only the last segment is walked, from its last index entry on, to find the log's end. After an unclean one everything from the
//! recovery point on is checked batch by batch; the log ends before the first batch that does not hold, its file is cut there, and what stood behind it, in this file and in later
//! ones, is set aside under names that no broker reads.

use std::path::{Path, PathBuf};

use super::{RecoveredPartition, RecoveryError, leftovers, read_text_blocking};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::{PartitionFacts, PartitionHome, PlacedEnd};
use crate::disk::index_files;
use crate::disk::placement::segment::segment_path;
use crate::log::checkpoint_file::decode_leader_epochs;
use crate::log::file_names::{LEADER_EPOCH_CHECKPOINT, LogFileKind};
use crate::log::offset_index::OffsetIndex;
use crate::log::producer_state::CompletedTransaction;
use crate::log::segment_scan::{ScanEnd, ScanStep, SegmentScan};
use crate::log::time_index::TimeIndex;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{BatchInfo, EndMarker, LeaderEpochs, NO_LEADER_EPOCH, ProducerStates, SegmentBook, Segments, producer_snapshot};
use crate::rt::file::{Durability, File, FileError, OpenMode, list_directory_blocking, rename_blocking, sync_directory_blocking};

/// Bytes read from a segment at once.
const READ_BYTES: usize = 1 << 20;

/// What is known of a directory from outside of it.
pub struct Found {
    pub partition: TopicIdPartition,
    pub home: PartitionHome,
    pub directory: PathBuf,
    /// From Kafka's log-start-offset-checkpoint.
    pub log_start_offset: Option<i64>,
    /// From Kafka's recovery-point-offset-checkpoint: what is below was flushed.
    pub recovery_point: i64,
    /// From Kafka's replication-offset-checkpoint.
    pub high_watermark: Option<i64>,
    /// From Kafka's cleaner-offset-checkpoint.
    pub cleaned_to: Option<i64>,
    /// A clean marker vouches for the directory.
    pub is_clean: bool,
}

/// A partition that was read from its files, and what was put aside on the way.
pub struct Scanned {
    pub partition: RecoveredPartition,
    pub set_aside: Vec<PathBuf>,
}

/// Finds out where the log stands, cuts what does not belong to it, and flushes.
pub fn scan_blocking(found: Found, now_ms: i64) -> Result<Scanned, RecoveryError> {
    leftovers::settle_blocking(&found.directory)?;
    let mut books = segment_books(&found.directory, now_ms)?;
    let first_offset = books[0].base_offset;
    let mut epochs = leader_epochs(&found.directory)?;
    let from = first_to_check(&books, &found);
    let snapshot = newest_snapshot(&found.directory, i64::MAX)?;
    // Producers are known as of the snapshot; batches behind it are applied again.
    let (mut producers, replay_from) = snapshot.unwrap_or_else(|| (ProducerStates::new(first_offset), first_offset));
    let read_from = from.min(segment_index(&books, replay_from));

    let mut set_aside = Vec::new();
    let mut aborted = Vec::new();
    let mut end = (books[read_from].base_offset, NO_LEADER_EPOCH);
    for index in read_from..books.len() {
        let is_last = index + 1 == books.len();
        let mut walk = Walk::open(&found.directory, &books[index], end)?;
        let mut book = SegmentBook { size_bytes: 0, max_timestamp: None, first_timestamp: None, ..books[index] };
        if found.is_clean && is_last && walk.skip_to_last_entry(&found.directory, &books[index], replay_from)? {
            book = books[index];
        }
        while let Some((info, end_marker)) = walk.next()? {
            book.add(&info);
            epochs.assign(info.leader_epoch, info.base_offset);
            if info.base_offset >= replay_from {
                let completed = producers.apply(&info, end_marker.as_ref(), info.max_timestamp);
                aborted.extend(aborted_in(books[index].base_offset, completed));
            }
        }
        end = (walk.scan.next_offset(), walk.scan.leader_epoch());
        let is_whole = walk.scan.position() == books[index].size_bytes;
        books[index] = SegmentBook { size_bytes: walk.scan.position(), ..book };
        if !is_whole {
            set_aside.extend(set_aside_tail(&walk)?);
            set_aside.extend(set_aside_later(&found.directory, &books[index + 1..])?);
            books.truncate(index + 1);
            break;
        }
    }
    let log_end_offset = end.0;
    epochs.truncate_from_end(log_end_offset);
    let log_start_offset = found.log_start_offset.unwrap_or(first_offset).clamp(first_offset, log_end_offset.max(first_offset));
    if producers.end_offset() > log_end_offset {
        let segments = Segments::new(books.clone(), 0);
        (producers, aborted) = producers_blocking(&found.directory, &segments, log_end_offset)?;
    }
    let active = *books.last().expect("a log has a segment");
    index_files::cut_aborted_blocking(&found.directory, active.base_offset, log_end_offset)?;
    let placed = PlacedEnd { segment_base: active.base_offset, size_bytes: active.size_bytes, end_offset: log_end_offset };
    let facts = PartitionFacts {
        partition: found.partition,
        home: found.home,
        log_start_offset,
        end_offset: log_end_offset,
        high_watermark: found.high_watermark.unwrap_or(log_end_offset).clamp(log_start_offset, log_end_offset),
        segments: books,
        leader_epochs: epochs.entries().to_vec(),
        producers: producers.producers().clone(),
        aborted,
        cleaned_to: found.cleaned_to,
    };
    let indexed_to = (placed.segment_base, placed.size_bytes);
    Ok(Scanned { partition: RecoveredPartition { facts, directory: found.directory, placed, indexed_to, moving_to: None }, set_aside })
}

/// A transaction that a marker in the segment has aborted.
fn aborted_in(segment_base: i64, completed: Option<CompletedTransaction>) -> Option<(i64, AbortedTransaction)> {
    Some((segment_base, AbortedTransaction::from_completed(&completed?)?))
}

/// Producer state at the end of a log that is known to be sound, from its newest snapshot and the batches behind it; and the transactions that were aborted in these.
pub fn producers_blocking(
    directory: &Path,
    segments: &Segments,
    end_offset: i64,
) -> Result<(ProducerStates, Vec<(i64, AbortedTransaction)>), RecoveryError> {
    let first = segments.iter().next().expect("a log has a segment").base_offset;
    let (mut producers, replay_from) = newest_snapshot(directory, end_offset)?.unwrap_or_else(|| (ProducerStates::new(first), first));
    let books: Vec<SegmentBook> = segments.iter().copied().collect();
    let mut aborted = Vec::new();
    for book in &books[segment_index(&books, replay_from)..] {
        let mut walk = Walk::open(directory, book, (book.base_offset, NO_LEADER_EPOCH))?;
        while let Some((info, end_marker)) = walk.next()? {
            if info.base_offset >= replay_from && info.base_offset < end_offset {
                let completed = producers.apply(&info, end_marker.as_ref(), info.max_timestamp);
                aborted.extend(aborted_in(book.base_offset, completed));
            }
        }
    }
    Ok((producers, aborted))
}

/// All segments by their files: sizes, and timestamps as far as time indexes tell.
fn segment_books(directory: &Path, now_ms: i64) -> Result<Vec<SegmentBook>, RecoveryError> {
    let names = list_directory_blocking(directory)?;
    let mut bases: Vec<i64> = names
        .iter()
        .filter_map(|name| LogFileKind::parse(name))
        .filter(|(kind, _)| *kind == LogFileKind::Log)
        .map(|(_, base)| base)
        .collect();
    bases.sort_unstable();
    if bases.is_empty() {
        File::open_blocking(segment_path(directory, 0), OpenMode::CREATE)?;
        sync_directory_blocking(directory)?;
        bases.push(0);
    }
    bases.into_iter().map(|base| segment_book(directory, base, now_ms)).collect()
}

fn segment_book(directory: &Path, base_offset: i64, now_ms: i64) -> Result<SegmentBook, RecoveryError> {
    let path = segment_path(directory, base_offset);
    let file = File::open_blocking(&path, OpenMode::READ)?;
    let length = file.length()?;
    let size_bytes = u32::try_from(length).map_err(|_| RecoveryError::SegmentLong { path, actual: length })?;
    let time_index = read_whole(directory, LogFileKind::TimeIndex, base_offset)?;
    let max_timestamp = TimeIndex::checked(base_offset, &time_index).last();
    let header = file.read_at_blocking(crate::log::BATCH_HEADER_BYTES, 0)?;
    let first_timestamp = BatchInfo::decode(&header).map(|info| info.max_timestamp);
    Ok(SegmentBook { base_offset, size_bytes, max_timestamp, first_timestamp, created_ms: now_ms })
}

fn read_whole(directory: &Path, kind: LogFileKind, base_offset: i64) -> Result<Vec<u8>, FileError> {
    let file = match File::open_blocking(directory.join(kind.name(base_offset)), OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(file.read_at_blocking(file.length()? as usize, 0)?.to_vec())
}

/// The epochs that the directory's own file names; batches say the rest.
fn leader_epochs(directory: &Path) -> Result<LeaderEpochs, RecoveryError> {
    let path = directory.join(LEADER_EPOCH_CHECKPOINT);
    let text = read_text_blocking(&path)?.unwrap_or_default();
    decode_leader_epochs(&text).map_err(|line| RecoveryError::MetaProperties { path, cause: line.to_string() })
}

/// The newest snapshot at or below `end_offset` that reads back whole, and its offset; a damaged one is passed over for an older one.
fn newest_snapshot(directory: &Path, end_offset: i64) -> Result<Option<(ProducerStates, i64)>, RecoveryError> {
    let mut offsets: Vec<i64> = list_directory_blocking(directory)?
        .iter()
        .filter_map(|name| LogFileKind::parse(name))
        .filter(|(kind, offset)| *kind == LogFileKind::ProducerSnapshot && *offset <= end_offset)
        .map(|(_, offset)| offset)
        .collect();
    offsets.sort_unstable_by_key(|offset| std::cmp::Reverse(*offset));
    for offset in offsets {
        let bytes = read_whole(directory, LogFileKind::ProducerSnapshot, offset)?;
        if let Ok(producers) = producer_snapshot::decode(&bytes) {
            return Ok(Some((ProducerStates::of(producers, offset), offset)));
        }
    }
    Ok(None)
}

/// Index of the first segment whose batches are looked at: the last one after a clean stop, otherwise the one with the recovery point.
fn first_to_check(books: &[SegmentBook], found: &Found) -> usize {
    if found.is_clean { books.len() - 1 } else { segment_index(books, found.recovery_point) }
}

/// Index of the segment in which `offset` lies or would lie; the first one for what is below all.
fn segment_index(books: &[SegmentBook], offset: i64) -> usize {
    books.partition_point(|book| book.base_offset <= offset).saturating_sub(1)
}

/// Cuts a segment where its sound batches end. What stood behind is kept under a name that no broker reads, unless it is zeros or one batch that a crash has torn.
fn set_aside_tail(walk: &Walk) -> Result<Option<PathBuf>, RecoveryError> {
    let position = u64::from(walk.scan.position());
    let is_worth_keeping = matches!(walk.ended, Some(ScanEnd::Damaged | ScanEnd::OutOfOrder { .. }));
    let mut aside = None;
    if is_worth_keeping {
        let mut path = walk.file.path().as_os_str().to_owned();
        path.push(format!(".from-{position}.set-aside"));
        let copy = File::open_blocking(&path, OpenMode { truncate: true, ..OpenMode::CREATE })?;
        let mut at = position;
        while at < walk.length {
            let bytes = walk.file.read_at_blocking(READ_BYTES, at)?;
            copy.write_at_blocking(&bytes, at - position, Durability::None)?;
            at += bytes.len().max(1) as u64;
        }
        copy.sync_all_blocking()?;
        sync_directory_blocking(copy.path().parent().expect("a file lies in a directory"))?;
        aside = Some(copy.path().to_path_buf());
    }
    let file = File::open_blocking(walk.file.path(), OpenMode::READ_WRITE)?;
    file.set_len_blocking(position)?;
    file.sync_all_blocking()?;
    Ok(aside)
}

/// Later segments do not follow from what is left of the log. They keep their bytes under a name that no broker reads.
fn set_aside_later(directory: &Path, later: &[SegmentBook]) -> Result<Vec<PathBuf>, RecoveryError> {
    let mut set_aside = Vec::new();
    for book in later.iter().rev() {
        for kind in LogFileKind::ALL {
            let path = directory.join(kind.name(book.base_offset));
            if !path.exists() || kind == LogFileKind::ProducerSnapshot {
                continue;
            }
            let aside = directory.join(format!("{}.set-aside", kind.name(book.base_offset)));
            rename_blocking(&path, &aside)?;
            set_aside.push(aside);
        }
    }
    if !set_aside.is_empty() {
        sync_directory_blocking(directory)?;
    }
    Ok(set_aside)
}

/// Reads a segment's batches in order.
struct Walk {
    file: File,
    length: u64,
    scan: SegmentScan,
    /// Why it ended, once it has.
    ended: Option<ScanEnd>,
    /// What was read last, and where it lies in the file.
    window: Vec<u8>,
    window_start: u64,
}

impl Walk {
    /// From the first byte of a segment; `end` is offset and leader epoch of what lies before it.
    fn open(directory: &Path, book: &SegmentBook, end: (i64, i32)) -> Result<Self, RecoveryError> {
        let file = File::open_blocking(segment_path(directory, book.base_offset), OpenMode::READ)?;
        let length = file.length()?;
        // Another broker may have compacted the log, or copied one that was.
        let scan = SegmentScan::new(0, book.base_offset.max(end.0), end.1, true);
        Ok(Self { file, length, scan, ended: None, window: Vec::new(), window_start: 0 })
    }

    /// A clean marker vouches for what is indexed: reading begins at the last entry that is not above `offset`. Returns whether there is one.
    fn skip_to_last_entry(&mut self, directory: &Path, book: &SegmentBook, offset: i64) -> Result<bool, RecoveryError> {
        let bytes = read_whole(directory, LogFileKind::OffsetIndex, book.base_offset)?;
        let index = OffsetIndex::checked(book.base_offset, &bytes, book.size_bytes);
        let Some(entry) = index.floor_by_offset(offset) else { return Ok(false) };
        self.scan = SegmentScan::new(entry.position, book.base_offset, NO_LEADER_EPOCH, true);
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<(BatchInfo, Option<EndMarker>)>, RecoveryError> {
        loop {
            let position = u64::from(self.scan.position());
            let in_window = (position - self.window_start).min(self.window.len() as u64) as usize;
            let bytes = &self.window[in_window..];
            match self.scan.step(bytes, self.length - position) {
                ScanStep::Batch(info) => {
                    let end_marker = if info.is_control { EndMarker::decode(bytes) } else { None };
                    return Ok(Some((info, end_marker)));
                }
                ScanStep::NeedBytes(needed) => {
                    self.window = self.file.read_at_blocking(needed.max(READ_BYTES), position)?.to_vec();
                    self.window_start = position;
                    if self.window.len() < needed {
                        // The file is shorter than it was a moment ago.
                        return Ok(None);
                    }
                }
                ScanStep::End(end) => {
                    self.ended = Some(end);
                    return Ok(None);
                }
            }
        }
    }
}
