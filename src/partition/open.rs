//! How a partition comes into being: from what a restart has found, or new and empty.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::cleaning::CleaningState;
use super::durability::DurabilityClass;
use super::partitions::Environment;
use super::retention::Keeping;
use super::upkeep::UpkeepState;
use super::{Leadership, Partition, Site};
use crate::cluster::TopicIdPartition;
use crate::config::TopicSettings;
use crate::disk::checkpoint::{PartitionFacts, PartitionHome, PlacedEnd};
use crate::disk::recovery::RecoveredPartition;
use crate::disk::tail::Tail;
use crate::disk::trace;
use crate::log::offset_index::OffsetIndexTail;
use crate::log::state::ActiveIndexes;
use crate::log::time_index::TimeIndexTail;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{LeaderEpochs, Log, LogStart, ProducerStates, RollRules, SegmentBook, Segments};
use crate::rt;

/// What a partition is made of, however it comes into being.
struct Parts {
    id: TopicIdPartition,
    topic: Arc<str>,
    home: PartitionHome,
    directory: Rc<Path>,
    start: LogStart,
    high_watermark: i64,
    placed: PlacedEnd,
    aborted: Vec<(i64, AbortedTransaction)>,
    is_changed: bool,
    upkeep: UpkeepState,
    is_new: bool,
    cleaned_to: Option<i64>,
}

impl Partition {
    /// A partition without a record, in a directory that has just been made.
    pub(super) fn new_empty(
        environment: &Rc<Environment>,
        id: TopicIdPartition,
        topic: Arc<str>,
        home: PartitionHome,
        directory: Rc<Path>,
        settings: &TopicSettings,
    ) -> Rc<Self> {
        let parts = Parts {
            id,
            topic,
            home,
            directory,
            start: LogStart::empty(0, rt::wall_clock_ms(), random_seed()),
            high_watermark: 0,
            placed: PlacedEnd { segment_base: 0, size_bytes: 0, end_offset: 0 },
            aborted: Vec::new(),
            is_changed: true,
            upkeep: UpkeepState::fresh(),
            is_new: true,
            cleaned_to: None,
        };
        Self::assemble(environment, parts, settings)
    }

    /// A partition as recovery hands it over: everything is in its segment files, so all of it is durable and visible.
    pub(super) fn from_recovered(
        environment: &Rc<Environment>,
        recovered: RecoveredPartition,
        topic: Arc<str>,
        settings: &TopicSettings,
    ) -> Rc<Self> {
        let RecoveredPartition { mut facts, directory, placed, .. } = recovered;
        trace::recovered(facts.partition, facts.end_offset);
        let rules = roll_rules(settings);
        // Segments wholly below the log's start: their files may be gone since the checkpoint that names them. Those that are left go with the next files.
        let first_kept = facts.segments.partition_point(|book| book.base_offset <= facts.log_start_offset).saturating_sub(1);
        facts.segments.drain(..first_kept);
        let closed = facts.segments[..facts.segments.len() - 1].to_vec();
        let parts = Parts {
            id: facts.partition,
            topic,
            home: facts.home.clone(),
            directory: Rc::from(directory),
            high_watermark: facts.end_offset,
            placed,
            is_changed: !environment.files_are_whole || first_kept > 0 || !facts.aborted.is_empty(),
            aborted: std::mem::take(&mut facts.aborted),
            upkeep: UpkeepState::found(if environment.files_are_whole { Vec::new() } else { closed }),
            is_new: false,
            cleaned_to: facts.cleaned_to,
            start: log_start(facts, &rules),
        };
        Self::assemble(environment, parts, settings)
    }

    fn assemble(environment: &Rc<Environment>, parts: Parts, settings: &TopicSettings) -> Rc<Self> {
        let mut log = Log::new(parts.start, roll_rules(settings));
        log.high_watermark_moved(parts.high_watermark);
        let durability = DurabilityClass::new(settings, &parts.topic);
        let disk = environment.disks.of(parts.home.directory_id, &parts.directory);
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            id: parts.id,
            topic: parts.topic,
            site: RefCell::new(Site { home: parts.home, directory: parts.directory, disk }),
            moving: RefCell::default(),
            environment: environment.clone(),
            log_start_offset: Cell::new(log.log_start_offset()),
            log: RefCell::new(log),
            leadership: Cell::new(Leadership::NONE),
            high_watermark: Cell::new(parts.high_watermark),
            pending: RefCell::default(),
            tail: Rc::new(Tail::new(parts.placed.end_offset)),
            placed: Cell::new(parts.placed),
            waiters: Default::default(),
            failure: RefCell::default(),
            is_deleted: Cell::new(false),
            is_changed: Cell::new(parts.is_changed),
            aborted: RefCell::new(parts.aborted),
            closed: RefCell::default(),
            upkeep: parts.upkeep,
            keeping: Cell::new(Keeping::new(settings)),
            durability: Cell::new(durability),
            unflushed: Default::default(),
            layout: Cell::new(0),
            cleaning: CleaningState::new(parts.cleaned_to),
            is_swept: Cell::new(parts.is_new),
        })
    }
}

/// The log as the facts tell it.
fn log_start(facts: PartitionFacts, rules: &RollRules) -> LogStart {
    let active = *facts.segments.last().expect("facts name at least one segment");
    LogStart {
        log_start_offset: facts.log_start_offset,
        log_end_offset: facts.end_offset,
        segments: Segments::new(facts.segments, random_seed()),
        indexes: found_indexes(&active, rules),
        leader_epochs: LeaderEpochs::from_entries(facts.leader_epochs),
        producers: ProducerStates::of(facts.producers, facts.end_offset),
    }
}

/// The index files are looked at when there is something to write into them. Until then they count as full as they can be, and nothing in them as younger than the segment.
fn found_indexes(active: &SegmentBook, rules: &RollRules) -> ActiveIndexes {
    let entries_max = active.size_bytes / rules.index_interval_bytes.max(1) as u32;
    let offset_index = OffsetIndexTail::new(active.base_offset, entries_max);
    let time_index = TimeIndexTail::new(active.base_offset, entries_max, active.max_timestamp);
    ActiveIndexes::new(offset_index, time_index)
}

/// When segments of a topic roll.
pub(super) fn roll_rules(settings: &TopicSettings) -> RollRules {
    let segment_ms =
        if settings.cleanup_policy.compact { settings.segment_ms.min(settings.max_compaction_lag_ms) } else { settings.segment_ms };
    RollRules {
        segment_bytes: settings.internal_segment_bytes.unwrap_or(settings.segment_bytes),
        segment_ms,
        segment_jitter_ms: settings.segment_jitter_ms,
        segment_index_bytes: settings.segment_index_bytes,
        index_interval_bytes: settings.index_interval_bytes,
    }
}

fn random_seed() -> u64 {
    rt::random_uuid().as_u64_pair().0
}
