//! The compactor of a shard: it looks which log needs a round most, and carries out one round at a time (`cleaning`).
//!
//! Kafka's LogCleaner with one thread for each shard: the log with the largest part that has not been compacted comes first, if that part is larger than
//! `min.cleanable.dirty.ratio` or holds a record that has waited for longer than `max.compaction.lag.ms`. When no log needs it, it rests for `log.cleaner.backoff.ms`. It runs in the
//! background queue and gives way every fraction of a millisecond.

use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Partition;
use super::cleaning::CleaningError;
use super::partitions::Partitions;
use crate::config::Config;
use crate::log::compaction::{Choice, CompactionView};
use crate::rt;

/// A round that failed is tried again after this.
const RETRY_DELAY_MS: i64 = 60_000;

/// What compaction may use on one shard.
#[derive(Clone, Copy, Debug)]
pub struct CleanerOptions {
    /// `log.cleaner.enable`, and `log.cleaner.threads` is not 0.
    pub is_enabled: bool,
    /// `log.cleaner.backoff.ms`
    pub backoff: Duration,
    /// This shard's part of `log.cleaner.dedupe.buffer.size`.
    pub map_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`
    pub map_load_factor: f64,
    /// This shard's part of `log.cleaner.io.max.bytes.per.second`.
    pub io_bytes_per_second: f64,
}

impl CleanerOptions {
    /// By the broker's settings, on each of `shards`.
    pub fn new(config: &Config, shards: u16) -> Self {
        Self {
            is_enabled: config.log_cleaner_enable() && config.log_cleaner_threads() > 0,
            backoff: Duration::from_millis(config.log_cleaner_backoff_ms() as u64),
            map_bytes: (config.log_cleaner_dedupe_buffer_size().max(0) as usize) / usize::from(shards),
            map_load_factor: config.log_cleaner_io_buffer_load_factor(),
            io_bytes_per_second: config.log_cleaner_io_max_bytes_per_second() / f64::from(shards),
        }
    }
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self {
            is_enabled: true,
            backoff: Duration::from_secs(15),
            map_bytes: 128 << 20,
            map_load_factor: 0.9,
            io_bytes_per_second: f64::MAX,
        }
    }
}

/// Starts the task of a shard.
pub(super) fn start(partitions: &Rc<Partitions>) {
    rt::spawn_background(run(Rc::downgrade(partitions))).detach();
}

async fn run(partitions: Weak<Partitions>) {
    loop {
        let Some(living) = partitions.upgrade().filter(|partitions| !partitions.is_stopping()) else { return };
        let has_cleaned = living.compact_one(rt::wall_clock_ms()).await;
        let backoff = living.cleaner_options().backoff;
        drop(living);
        if !has_cleaned {
            rt::sleep(backoff).await;
        }
    }
}

impl Partitions {
    /// Compacts the log that needs it most. Returns whether there was one.
    pub async fn compact_one(&self, now_ms: i64) -> bool {
        let options = self.cleaner_options();
        if !options.is_enabled {
            return false;
        }
        let _turn = self.cleaner_turn().acquire(1).await;
        let Some((partition, choice)) = self.filthiest(now_ms) else { return false };
        match partition.compact(&choice, &options, now_ms).await {
            Ok(()) => true,
            Err(CleaningError::Stopped) => false,
            Err(error) => {
                partition.compaction_failed(&error, now_ms);
                true
            }
        }
    }

    fn filthiest(&self, now_ms: i64) -> Option<(Rc<Partition>, Choice)> {
        let mut filthiest: Option<(Rc<Partition>, Choice)> = None;
        for partition in self.all() {
            let Some(choice) = partition.cleaning_due(now_ms) else { continue };
            if filthiest.as_ref().is_none_or(|(_, other)| choice.dirty_ratio() > other.dirty_ratio()) {
                filthiest = Some((partition, choice));
            }
        }
        filthiest
    }
}

impl Partition {
    /// What damage keeps from being compacted stays as it is until a restart; what a disk or a full one has kept is tried again. Nothing is lost either way: segments change their places
    /// only when the new one is whole.
    fn compaction_failed(&self, error: &CleaningError, now_ms: i64) {
        let again = !error.is_damage();
        self.cleaning.not_before_ms.set(if again { now_ms.saturating_add(RETRY_DELAY_MS) } else { i64::MAX });
        if self.is_deleted.get() {
            return;
        }
        let (topic, partition) = (&self.topic, self.id().partition);
        if again {
            tracing::warn!(%topic, partition, %error, "a round of compaction has failed and is tried again in a minute");
        } else {
            tracing::error!(%topic, partition, %error, "the log is not compacted any more until a restart");
        }
    }

    /// What a round would do, if one is due.
    fn cleaning_due(&self, now_ms: i64) -> Option<Choice> {
        let rules = self.keeping.get().compaction;
        let is_held = self.is_deleted.get() || self.failure.borrow().is_some() || now_ms < self.cleaning.not_before_ms.get();
        if !rules.compacts || is_held || self.cleaning.is_held.get() {
            return None;
        }
        let log = self.log.borrow();
        let view = CompactionView {
            segments: log.segments(),
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.log_end_offset(),
            last_stable_offset: log.last_stable_offset(self.high_watermark()),
            cleaned_to: self.cleaning.cleaned_to.get(),
            unsettled_from: self.oldest_unsettled_segment(),
        };
        let choice = Choice::of(&view, &rules, now_ms);
        choice.is_due(&rules).then_some(choice)
    }

    /// The first segment of which something is still to be written: batches, indexes, aborted transactions.
    fn oldest_unsettled_segment(&self) -> i64 {
        let aborted = self.aborted.borrow().iter().map(|(base, _)| *base).min().unwrap_or(i64::MAX);
        self.placed.get().segment_base.min(self.oldest_unwritten_segment()).min(aborted)
    }
}
