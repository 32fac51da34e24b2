//! One partition's way from its last checkpoint to the end of the journal: entries are taken in order, then the bytes go into the segment files and the result is flushed.
//!
//! Every entry's bytes are put where they belong, whether they are there already or not; a torn block is whole again afterwards. Only entries after the checkpoint's facts count
//! for offsets, epochs and producer state, because the facts tell of the earlier ones.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use super::{RecoveredPartition, RecoveryError, scan};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::facts::decode_segment;
use crate::disk::checkpoint::{PartitionFacts, PartitionHome, PartitionRecord, PlacedEnd, ReplicaMove};
use crate::disk::compacted_segment::swap_segments_blocking;
use crate::disk::index_files;
use crate::disk::journal::{Entry, EntryHeader, EntryKind};
use crate::disk::placement::segment::segment_path;
use crate::log::file_names::LogFileKind;
use crate::log::offset_index::OffsetIndexTail;
use crate::log::state::ActiveIndexes;
use crate::log::time_index::TimeIndexTail;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{BatchInfo, EndMarker, LeaderEpochs, Log, LogStart, ProducerStates, RollRules, SegmentBook, Segments};
use crate::rt::file::{Durability, File, OpenMode, list_directory_blocking, remove_blocking, sync_directory_blocking};
use crate::rt::plant::{Plant, is_planted};

/// What replay knows of a partition so far.
pub struct Redo {
    partition: TopicIdPartition,
    home: PartitionHome,
    high_watermark: i64,
    log: Log,
    /// Up to where the segment files held the log at the checkpoint.
    checkpointed: PlacedEnd,
    /// Entries before this one are in the facts already.
    next_entry: u64,
    puts: Vec<Put>,
    /// The lowest place at which the log was cut since the checkpoint.
    cut: Option<(i64, u32)>,
    /// Aborted transactions that the segments' own indexes may lack, with the segments of their markers.
    aborted: Vec<(i64, AbortedTransaction)>,
    /// Data directories that the replica has changed since the replay's beginning.
    moves: Vec<ReplicaMove>,
    /// Segments whose place compaction was about to give to one new one.
    swaps: Vec<std::ops::Range<i64>>,
    cleaned_to: Option<i64>,
    /// Producers are to be found again by reading the log: a cut has taken batches away that the checkpoint's state contains.
    producers_lost: bool,
}

/// Bytes that belong at a place.
struct Put {
    segment_base: i64,
    position: u32,
    bytes: Bytes,
}

impl Put {
    fn place(&self) -> (i64, u32) {
        (self.segment_base, self.position)
    }
}

/// Why an entry cannot be redone: what the journal says does not follow from what is there.
pub type Mismatch = String;

impl Redo {
    /// From a checkpoint's record on.
    pub fn from_record(record: PartitionRecord) -> Result<Self, Mismatch> {
        let PartitionRecord { facts, placed, next_entry } = record;
        let active = *facts.segments.last().ok_or("its checkpoint names no segment")?;
        let start = LogStart {
            log_start_offset: facts.log_start_offset,
            log_end_offset: facts.end_offset,
            segments: Segments::new(facts.segments, 0),
            indexes: no_indexes(active.base_offset),
            leader_epochs: LeaderEpochs::from_entries(facts.leader_epochs),
            producers: ProducerStates::of(facts.producers, facts.end_offset),
        };
        Ok(Self {
            partition: facts.partition,
            home: facts.home,
            high_watermark: facts.high_watermark,
            log: Log::new(start, RollRules::default()),
            checkpointed: placed,
            next_entry,
            puts: Vec::new(),
            cut: None,
            aborted: facts.aborted,
            moves: Vec::new(),
            swaps: Vec::new(),
            cleaned_to: facts.cleaned_to,
            producers_lost: false,
        })
    }

    /// A partition that was opened since the last checkpoint; `header` is its `Opened` entry.
    pub fn opened(header: &EntryHeader, home: PartitionHome, now_ms: i64) -> Self {
        let offset = header.base_offset;
        Self {
            partition: header.partition,
            home,
            high_watermark: offset,
            log: Log::new(LogStart::empty(offset, now_ms, 0), RollRules::default()),
            checkpointed: PlacedEnd { segment_base: offset, size_bytes: 0, end_offset: offset },
            next_entry: 0,
            puts: Vec::new(),
            cut: None,
            aborted: Vec::new(),
            moves: Vec::new(),
            swaps: Vec::new(),
            cleaned_to: None,
            producers_lost: false,
        }
    }

    pub fn home(&self) -> &PartitionHome {
        &self.home
    }

    pub fn partition(&self) -> &TopicIdPartition {
        &self.partition
    }

    /// What may be left to do of the replica's moves, oldest first.
    pub fn moves(&self) -> &[ReplicaMove] {
        &self.moves
    }

    /// Takes the next entry of this partition; `number` is its number in the journal's life.
    pub fn take(&mut self, number: u64, entry: Entry) -> Result<(), Mismatch> {
        let is_news = number >= self.next_entry;
        let header = entry.header;
        match header.kind {
            EntryKind::Append => {
                if is_news {
                    self.append(&header, &entry.payload)?;
                }
                self.puts.push(Put { segment_base: header.segment_base, position: header.position, bytes: entry.payload });
            }
            EntryKind::BlockPrefix => {
                self.puts.push(Put { segment_base: header.segment_base, position: header.position, bytes: entry.payload })
            }
            EntryKind::Truncate => {
                self.cut_puts((header.segment_base, header.position));
                if is_news {
                    self.truncate(&header)?;
                }
            }
            EntryKind::LogStart if is_news => {
                if header.base_offset > self.log.log_end_offset() {
                    return Err(format!("its start moves to {}, behind its end {}", header.base_offset, self.log.log_end_offset()));
                }
                self.log.raise_log_start(header.base_offset);
            }
            EntryKind::Roll if is_news => self.roll(header.base_offset)?,
            EntryKind::Swap => self.swap(&header, entry.payload, is_news)?,
            EntryKind::Moved => {
                let moved = ReplicaMove::decode(entry.payload).map_err(|_| "an entry names a move that cannot be read")?;
                if is_news {
                    self.home = moved.to.clone();
                }
                self.moves.push(moved);
            }
            EntryKind::CutBefore => {
                let cut = (header.segment_base, header.position);
                self.cut = Some(self.cut.map_or(cut, |earlier| earlier.min(cut)));
            }
            EntryKind::Swapped => self.swaps.retain(|replaced| replaced.start != header.segment_base),
            // A deletion ends the partition's redo, see its caller; the rest changes nothing.
            EntryKind::LogStart | EntryKind::Roll | EntryKind::Deleted | EntryKind::Opened => {}
        }
        Ok(())
    }

    /// One new segment takes the place of some; what the journal holds of these is not wanted any more.
    fn swap(&mut self, header: &EntryHeader, payload: Bytes, is_news: bool) -> Result<(), Mismatch> {
        let replaced = header.segment_base..header.base_offset;
        if is_news {
            let book = decode_segment(payload).map_err(|_| "an entry names a segment that cannot be read")?;
            let segments = self.log.segments();
            if segments.get(replaced.start).is_none() || segments.get(replaced.end).is_none() || book.base_offset != replaced.start {
                return Err(format!("segments {} to {} were compacted, but they are not there", replaced.start, replaced.end));
            }
            self.log.segments_mut().replace(replaced.end, book);
        }
        self.puts.retain(|put| !replaced.contains(&put.segment_base));
        self.swaps.push(replaced);
        Ok(())
    }

    fn roll(&mut self, segment_base: i64) -> Result<(), Mismatch> {
        let active = *self.log.segments().active();
        if segment_base != self.log.log_end_offset() || segment_base <= active.base_offset {
            return Err(format!("a segment begins at {segment_base}, but the log ends at {}", self.log.log_end_offset()));
        }
        self.log.roll(segment_base, active.max_timestamp.map_or(active.created_ms, |max| max.timestamp));
        Ok(())
    }

    /// Each batch of the payload continues the log: the next place, and no offset that is there already.
    fn append(&mut self, header: &EntryHeader, payload: &Bytes) -> Result<(), Mismatch> {
        let mut at = 0;
        while at < payload.len() {
            let batch = &payload[at..];
            let info = BatchInfo::decode(batch).ok_or("an entry holds bytes that are no batch")?;
            if info.size_bytes as usize > batch.len() || !info.is_intact(batch) {
                return Err(format!("the batch with base offset {} is damaged", info.base_offset));
            }
            let position = header.position + at as u32;
            self.check_continues(&info, header.segment_base, position)?;
            let end_marker = if info.is_control { EndMarker::decode(batch) } else { None };
            let appended = self.log.replay(&info, end_marker.as_ref(), header.segment_base, position);
            let aborted = appended.completed_transaction.as_ref().and_then(AbortedTransaction::from_completed);
            self.aborted.extend(aborted.map(|aborted| (header.segment_base, aborted)));
            at += info.size_bytes as usize;
        }
        Ok(())
    }

    fn check_continues(&self, info: &BatchInfo, segment_base: i64, position: u32) -> Result<(), Mismatch> {
        let active = self.log.segments().active();
        let is_next_place = if segment_base == active.base_offset {
            position == active.size_bytes
        } else {
            position == 0 && segment_base > active.base_offset
        };
        let is_next_offset = info.base_offset >= self.log.log_end_offset() || self.log.log_start_offset() == self.log.log_end_offset();
        let latest_epoch = self.log.leader_epochs().latest().map_or(-1, |latest| latest.epoch);
        if is_next_place && is_next_offset && info.leader_epoch >= latest_epoch {
            return Ok(());
        }
        Err(format!(
            "a batch with base offset {} and epoch {} at byte {position} of segment {segment_base} does not follow offset {}, epoch {latest_epoch}, byte {} of segment {}",
            info.base_offset,
            info.leader_epoch,
            self.log.log_end_offset(),
            active.size_bytes,
            active.base_offset,
        ))
    }

    fn cut_puts(&mut self, cut: (i64, u32)) {
        self.cut = Some(self.cut.map_or(cut, |earlier| earlier.min(cut)));
        self.puts.retain_mut(|put| {
            if put.segment_base == cut.0 && put.position < cut.1 {
                put.bytes.truncate((cut.1 - put.position) as usize);
            }
            put.place() < cut
        });
    }

    /// The facts of a log that ends earlier. Largest timestamps may be those of batches that are gone; they only keep a segment longer.
    fn truncate(&mut self, header: &EntryHeader) -> Result<(), Mismatch> {
        let end_offset = header.base_offset;
        let mut books: Vec<SegmentBook> =
            self.log.segments().iter().copied().filter(|book| book.base_offset <= header.segment_base).collect();
        let active = books.last_mut().filter(|book| book.base_offset == header.segment_base);
        let active = active.ok_or_else(|| format!("it is cut in segment {}, which is not there", header.segment_base))?;
        active.size_bytes = header.position;
        let mut leader_epochs = self.log.leader_epochs().clone();
        leader_epochs.truncate_from_end(end_offset);
        let start = LogStart {
            log_start_offset: self.log.log_start_offset().min(end_offset),
            log_end_offset: end_offset,
            segments: Segments::new(books, 0),
            indexes: no_indexes(header.segment_base),
            leader_epochs,
            producers: ProducerStates::new(end_offset),
        };
        self.log = Log::new(start, RollRules::default());
        self.high_watermark = self.high_watermark.min(end_offset);
        self.aborted.retain(|(_, aborted)| aborted.last_offset < end_offset);
        self.producers_lost = true;
        Ok(())
    }

    /// Brings the bytes into the segment files of `directory`, flushes them, and says where the log stands now.
    pub fn finish_blocking(mut self, directory: &Path) -> Result<RecoveredPartition, RecoveryError> {
        for replaced in std::mem::take(&mut self.swaps) {
            swap_segments_blocking(directory, replaced)?;
        }
        self.leave_out_removed_segments(directory);
        self.write_puts(directory)?;
        self.cut_segments(directory)?;
        if let Some((cut_base, _)) = self.cut {
            self.remove_unknown_segments(directory)?;
            index_files::cut_aborted_blocking(directory, cut_base, self.log.log_end_offset())?;
        }
        sync_directory_blocking(directory)?;
        if self.producers_lost {
            let (producers, aborted) = scan::producers_blocking(directory, self.log.segments(), self.log.log_end_offset())?;
            *self.log.producers_mut() = producers;
            self.aborted.extend(aborted);
            self.aborted.sort_unstable_by_key(|(_, aborted)| aborted.last_offset);
            self.aborted.dedup_by_key(|(_, aborted)| aborted.last_offset);
        }
        Ok(self.recovered(directory))
    }

    /// Retention removes files of segments below the log's start whenever it likes; what replay would put there is not wanted any more.
    fn leave_out_removed_segments(&mut self, directory: &Path) {
        let log_start_offset = self.log.log_start_offset();
        let bases: Vec<i64> = self.log.segments().iter().map(|book| book.base_offset).collect();
        let removed: BTreeSet<i64> = bases
            .windows(2)
            .filter(|pair| pair[1] <= log_start_offset && !segment_path(directory, pair[0]).exists())
            .map(|pair| pair[0])
            .collect();
        if !removed.is_empty() {
            let kept = self.log.segments().iter().copied().filter(|book| !removed.contains(&book.base_offset)).collect();
            *self.log.segments_mut() = Segments::new(kept, 0);
        }
        let segments = self.log.segments();
        self.puts.retain(|put| segments.get(put.segment_base).is_some());
    }

    fn write_puts(&self, directory: &Path) -> Result<(), RecoveryError> {
        for puts in self.puts.chunk_by(|left, right| left.segment_base == right.segment_base) {
            let file = File::open_blocking(segment_path(directory, puts[0].segment_base), OpenMode::CREATE)?;
            for put in puts {
                file.write_at_blocking(&put.bytes, u64::from(put.position), Durability::None)?;
            }
        }
        Ok(())
    }

    /// Every segment from the checkpoint's on ends with its last byte, flushed: bytes behind it were never acknowledged, or are zeros.
    fn cut_segments(&self, directory: &Path) -> Result<(), RecoveryError> {
        let first = self.cut.map_or(self.checkpointed.segment_base, |cut| cut.0.min(self.checkpointed.segment_base));
        for book in self.log.segments().iter().filter(|book| book.base_offset >= first) {
            let path = segment_path(directory, book.base_offset);
            let mode = OpenMode { create: book.size_bytes == 0, ..OpenMode::READ_WRITE };
            let file = File::open_blocking(&path, mode)?;
            let (expected, actual) = (u64::from(book.size_bytes), file.length()?);
            if actual < expected {
                return Err(RecoveryError::SegmentShort { path, expected, actual });
            }
            if !is_planted(Plant::NoCut) {
                file.set_len_blocking(expected)?;
            }
            file.sync_all_blocking()?;
        }
        Ok(())
    }

    /// After a cut, files of segments that the log does not have any more.
    fn remove_unknown_segments(&self, directory: &Path) -> Result<(), RecoveryError> {
        let (cut_base, _) = self.cut.expect("the log was cut");
        for name in list_directory_blocking(directory)? {
            let Some((kind, base)) = LogFileKind::parse(&name) else { continue };
            let is_unknown = base > cut_base && self.log.segments().get(base).is_none() && kind != LogFileKind::ProducerSnapshot;
            let is_future_snapshot = kind == LogFileKind::ProducerSnapshot && base > self.log.log_end_offset();
            if is_unknown || is_future_snapshot {
                remove_blocking(directory.join(name))?;
            }
        }
        Ok(())
    }

    fn recovered(self, directory: &Path) -> RecoveredPartition {
        let active = self.log.segments().active();
        let placed = PlacedEnd { segment_base: active.base_offset, size_bytes: active.size_bytes, end_offset: self.log.log_end_offset() };
        let cut = self.cut.map(|(segment_base, size_bytes)| PlacedEnd { segment_base, size_bytes, ..self.checkpointed });
        let indexed_to = cut.map_or(self.checkpointed, |cut| earlier(cut, self.checkpointed));
        let facts = PartitionFacts {
            partition: self.partition,
            home: self.home,
            log_start_offset: self.log.log_start_offset(),
            end_offset: self.log.log_end_offset(),
            high_watermark: self.high_watermark.min(self.log.log_end_offset()),
            segments: self.log.segments().iter().copied().collect(),
            leader_epochs: self.log.leader_epochs().entries().to_vec(),
            producers: self.log.producers().producers().clone(),
            aborted: self.aborted,
            cleaned_to: self.cleaned_to,
        };
        let indexed_to = (indexed_to.segment_base, indexed_to.size_bytes);
        RecoveredPartition { facts, directory: directory.to_path_buf(), placed, indexed_to, moving_to: None }
    }
}

fn earlier(left: PlacedEnd, right: PlacedEnd) -> PlacedEnd {
    if (left.segment_base, left.size_bytes) <= (right.segment_base, right.size_bytes) { left } else { right }
}

/// Replay asks no index; the partition makes its own when it opens.
fn no_indexes(base_offset: i64) -> ActiveIndexes {
    ActiveIndexes::new(OffsetIndexTail::new(base_offset, 0), TimeIndexTail::new(base_offset, 0, None))
}
