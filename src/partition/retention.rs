//! Letting go: a log's start moves forward, by DeleteRecords or because segments have served their time, and the files below it go.
//!
//! The order is what makes a crash harmless: the new start is durable in the journal before a reader sees it, a segment leaves the books before its files get their new names
//! (`*.deleted`), and these go only after `file.delete.delay.ms`. A start that finds files of segments below the log's start knows that they are not wanted. One task of a shard looks
//! at one partition after the other every `log.retention.check.interval.ms`.

use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use super::Partition;
use super::partitions::Partitions;
use super::upkeep::UpkeepError;
use crate::config::TopicSettings;
use crate::disk::directories::DirectoryError;
use crate::disk::graveyard::Grave;
use crate::disk::journal::{EntryHeader, JournalError};
use crate::log::compaction::CompactionRules;
use crate::log::file_names::{CLEANED_SUFFIX, DELETED_SUFFIX, LogFileKind, SWAP_SUFFIX};
use crate::log::retention::{self, RetentionRules, RetentionView};
use crate::log::{Log, SegmentBook};
use crate::rt;
use crate::rt::file::{list_directory_blocking, rename_blocking};

/// When a shard looks at its partitions for what may go.
#[derive(Clone, Copy, Debug)]
pub struct RetentionTimes {
    /// `log.retention.check.interval.ms`.
    pub interval: Duration,
    /// `log.initial.task.delay.ms`: before the first look.
    pub initial_delay: Duration,
}

impl Default for RetentionTimes {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), initial_delay: Duration::from_secs(30) }
    }
}

/// What a topic's settings say about keeping and letting go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    pub retention: RetentionRules,
    pub compaction: CompactionRules,
    /// `file.delete.delay.ms`
    pub delete_delay: Duration,
}

impl Keeping {
    pub fn new(settings: &TopicSettings) -> Self {
        let retention = RetentionRules {
            deletes: settings.cleanup_policy.delete,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
        };
        let compaction = CompactionRules {
            compacts: settings.cleanup_policy.compact,
            min_dirty_ratio: settings.min_cleanable_dirty_ratio,
            min_lag_ms: settings.min_compaction_lag_ms,
            max_lag_ms: settings.max_compaction_lag_ms,
            delete_retention_ms: settings.delete_retention_ms,
        };
        Self { retention, compaction, delete_delay: Duration::from_millis(settings.file_delete_delay_ms.max(0) as u64) }
    }
}

/// The task of a shard that lets go of old segments, as long as there are partitions.
pub(super) async fn run(partitions: Weak<Partitions>, times: RetentionTimes) {
    rt::sleep(times.initial_delay).await;
    while let Some(partitions) = partitions.upgrade().filter(|partitions| !partitions.is_stopping()) {
        partitions.let_go(rt::wall_clock_ms()).await;
        drop(partitions);
        rt::sleep(times.interval).await;
    }
}

impl Partitions {
    /// Looks at every partition for segments that have served their time.
    pub async fn let_go(&self, now_ms: i64) {
        for partition in self.all() {
            if self.is_stopping() {
                return;
            }
            if let Err(error) = partition.let_go(now_ms).await
                && !partition.is_deleted.get()
            {
                tracing::warn!(topic = %partition.topic, partition = partition.id.partition, %error, "old segments stay for now");
            }
            rt::yield_now().await;
        }
    }
}

impl Partition {
    /// Lets go of the segments that have served their time at `now_ms`. Their files go soon after.
    pub(super) async fn let_go(&self, now_ms: i64) -> Result<(), UpkeepError> {
        if self.is_deleted.get() || self.failure.borrow().is_some() {
            return Ok(());
        }
        self.sweep_once().await?;
        let modified = self.modification_times().await;
        let modified_ms = |book: &SegmentBook| modified.iter().find(|(base, _)| *base == book.base_offset).map(|(_, time_ms)| *time_ms);
        let rules = self.keeping.get().retention;
        let found = {
            let log = self.log.borrow();
            retention::expired(&self.retention_view(&log), &rules, now_ms, modified_ms)
        };
        let Some(expired) = found else { return Ok(()) };
        if expired.rolls && !self.roll(expired.log_start_offset, now_ms).await? {
            // Records have come meanwhile: the active segment is young again.
            return Ok(());
        }
        self.raise_log_start(expired.log_start_offset).await?;
        tracing::info!(
            topic = %self.topic,
            partition = self.id.partition,
            log_start_offset = expired.log_start_offset,
            segments = expired.segments,
            bytes = expired.size_bytes,
            by_size = expired.by_size,
            "retention let go of old segments"
        );
        Ok(())
    }

    fn retention_view<'log>(&self, log: &'log Log) -> RetentionView<'log> {
        RetentionView {
            segments: log.segments(),
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.log_end_offset(),
            high_watermark: self.high_watermark(),
        }
    }

    /// When the files of segments without timestamps were last written to. What is not in its file yet has just been appended.
    async fn modification_times(&self) -> Vec<(i64, i64)> {
        let bases = {
            let log = self.log.borrow();
            let placed_base = self.placed.get().segment_base;
            let mut bases = retention::without_timestamps(&self.retention_view(&log), &self.keeping.get().retention);
            bases.retain(|base| *base <= placed_base && self.placed.get().end_offset == log.log_end_offset());
            bases
        };
        if bases.is_empty() {
            return Vec::new();
        }
        let directory = self.directory().to_path_buf();
        rt::blocking(move || {
            let modified_ms = |base: i64| Some((base, modified_ms_blocking(&directory.join(LogFileKind::Log.name(base)))?));
            bases.into_iter().filter_map(modified_ms).collect()
        })
        .await
    }

    /// When a segment's file was last written to.
    pub(super) async fn modified_ms(&self, base_offset: i64) -> Option<i64> {
        let path = self.directory().join(LogFileKind::Log.name(base_offset));
        rt::blocking(move || modified_ms_blocking(&path)).await
    }

    /// Begins a segment at `end_offset`, if the log still ends there.
    async fn roll(&self, end_offset: i64, now_ms: i64) -> Result<bool, JournalError> {
        let still_ends_there = || {
            let log = self.log.borrow();
            log.log_end_offset() == end_offset && log.segments().active().base_offset < end_offset
        };
        let roll = || {
            let roll = self.log.borrow_mut().roll(end_offset, now_ms);
            self.segment_closed(roll, end_offset);
            self.is_changed.set(true);
        };
        Ok(self.environment.append_entry_if(EntryHeader::roll(self.id, end_offset), &[], still_ends_there, roll).await?.is_some())
    }

    /// The log begins at `log_start_offset` from now on, or later if somebody else has moved it further. Durable, and seen by readers, when this returns.
    pub(super) async fn raise_log_start(&self, log_start_offset: i64) -> Result<(), JournalError> {
        // The log's own books move with the entry, so that a checkpoint tells of both or of neither; readers see the move when it is durable.
        let sequence = self
            .environment
            .append_entry(EntryHeader::log_start(self.id, log_start_offset), &[], || {
                self.log.borrow_mut().raise_log_start(log_start_offset);
                self.is_changed.set(true);
            })
            .await?;
        self.environment.journal.wait_durable(sequence).await?;
        if log_start_offset > self.log_start_offset.get() {
            self.log_start_offset.set(log_start_offset);
            self.tell_waiters();
            self.note_upkeep();
        }
        Ok(())
    }

    pub(super) fn oldest_is_removable(&self, log: &Log) -> bool {
        let second = log.segments().iter().nth(1);
        second.is_some_and(|second| second.base_offset <= self.removable_below())
    }

    /// Segments that end at or below this may go: below the log's start for every reader, and in no way of placement.
    fn removable_below(&self) -> i64 {
        self.log_start_offset.get().min(self.placed.get().segment_base).min(self.oldest_unwritten_segment())
    }

    /// Removes the segments that lie wholly below the log's start: first from the books, then their files. A restart that finds them in an older checkpoint does not miss them, as
    /// it knows of the log's start from the journal.
    pub(super) async fn remove_old_segments(&self) -> Result<(), UpkeepError> {
        let removed = self.log.borrow_mut().segments_mut().remove_below(self.removable_below());
        let bases: Vec<i64> = removed.iter().map(|book| book.base_offset).collect();
        bases.iter().for_each(|base| self.environment.reader.forget(&self.id, Some(*base)));
        self.bury_files(bases.into_iter().flat_map(|base| LogFileKind::ALL.map(|kind| kind.name(base))).collect()).await
    }

    /// Gives files the names of deleted ones, and lets them go after the topic's delay.
    pub(super) async fn bury_files(&self, names: Vec<String>) -> Result<(), UpkeepError> {
        if names.is_empty() {
            return Ok(());
        }
        let directory = self.directory().to_path_buf();
        let buried = rt::blocking(move || {
            let mut buried = Vec::new();
            for name in names {
                let deleted = directory.join(format!("{name}{DELETED_SUFFIX}"));
                match rename_blocking(directory.join(name), &deleted) {
                    Ok(()) => buried.push(Grave::File(deleted)),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(UpkeepError::from(DirectoryError::from(error))),
                }
            }
            Ok(buried)
        });
        self.environment.graveyard.bury(buried.await?, self.keeping.get().delete_delay);
        Ok(())
    }

    /// What an earlier life has left in the directory goes, at the first look of this one: files that were deleted, compaction's unfinished work, and files of segments that are
    /// not in the books any more.
    pub(super) async fn sweep_once(&self) -> Result<(), UpkeepError> {
        if self.is_swept.get() {
            return Ok(());
        }
        let _turn = self.upkeep.turn.acquire(1).await;
        let directory = self.directory().to_path_buf();
        let names = rt::blocking(move || list_directory_blocking(&directory)).await.map_err(DirectoryError::from)?;
        // Asked after the list was made: a file gets its name when its segment is in the books already.
        let first_base = self.log.borrow().segments().iter().next().expect("a log has a segment").base_offset;
        let has_suffix = |name: &str| [DELETED_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX].iter().any(|suffix| name.ends_with(suffix));
        let (leftovers, old): (Vec<String>, Vec<String>) = names
            .into_iter()
            .filter(|name| has_suffix(name) || matches!(LogFileKind::parse(name), Some((_, base)) if base < first_base))
            .partition(|name| has_suffix(name));
        let leftovers: Vec<PathBuf> = leftovers.into_iter().map(|name| self.directory().join(name)).collect();
        self.environment.graveyard.bury(leftovers.into_iter().map(Grave::File), Duration::ZERO);
        self.bury_files(old).await?;
        self.is_swept.set(true);
        Ok(())
    }
}

impl From<JournalError> for UpkeepError {
    fn from(error: JournalError) -> Self {
        UpkeepError::Journal(error)
    }
}

fn modified_ms_blocking(path: &Path) -> Option<i64> {
    let since = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_millis() as i64)
}

/// Starts the task of a shard.
pub(super) fn start(partitions: &Rc<Partitions>, times: RetentionTimes) {
    rt::spawn_background(run(Rc::downgrade(partitions), times)).detach();
}
