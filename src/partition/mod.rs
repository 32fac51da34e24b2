//! One replica on its core: it appends, becomes durable, is read, and is waited for. A narrator over the pure log (crate::log) and what reaches storage (crate::disk).
//!
//! A `Partition` lives on the shard that owns it, and on no other; what leaves it is owned (`Bytes`, file ranges, plain values). Where to begin:
//! `append` (admission, offsets, journal), `durability` (the high watermark follows the journal), `read` (plans), `wait` (long polls), `offsets` (look-ups and DeleteRecords),
//! `retention` (the log's start moves, old segments go), `cleaner` (compaction), `moving` (from one data directory to another).
//! `partitions` holds all of a shard's, makes, opens and removes them; `upkeep` writes what can be made again from the log: indexes, producer snapshots, epoch checkpoints.
//!
//! One rule holds everywhere: what is not durable is not visible. The log's end runs ahead of the high watermark, and nothing that a client sees goes beyond the latter.

mod append;
mod cleaner;
mod cleaning;
mod disks;
mod durability;
mod moving;
mod offsets;
mod open;
mod pace;
mod partitions;
mod plan;
mod read;
mod retention;
mod upkeep;
mod wait;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use uuid::Uuid;

use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::{PartitionFacts, PartitionHome, PlacedEnd};
use crate::disk::journal::JournalError;
use crate::disk::placement::PlacementTarget;
use crate::disk::tail::Tail;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{Log, NO_LEADER_EPOCH, ProducerView, VerificationGuard, view_some};
use crate::rt;

pub use append::{Appending, TryAppendError};
pub use cleaner::CleanerOptions;
pub use durability::{Counts, GroupSequence};
pub use moving::{FutureReplica, MoveRefusal};
pub use offsets::{EpochEnd, FoundOffset, OffsetTarget};
pub use partitions::{NewPartition, Partitions, PartitionsOptions};
pub use plan::{FileRange, Piece};
pub use read::{Isolation, ReadPlan, ReadRequest, Refusal};
pub use retention::RetentionTimes;
pub use wait::{FetchWaiter, Seen};

use cleaning::CleaningState;
use disks::Disk;
use durability::{DurabilityClass, PendingGroup, Unflushed};
use moving::Move;
use partitions::Environment;
use retention::Keeping;
use upkeep::ClosedSegment;
use wait::WaitList;

/// One replica of one partition.
pub struct Partition {
    this: Weak<Partition>,
    id: TopicIdPartition,
    topic: Arc<str>,
    site: RefCell<Site>,
    /// Its way to another data directory, if it is on one.
    moving: RefCell<Option<Rc<Move>>>,
    environment: Rc<Environment>,
    log: RefCell<Log>,
    leadership: Cell<Leadership>,
    /// Everything below is durable, and in a cluster on all in-sync replicas. Never falls within a leader epoch.
    high_watermark: Cell<i64>,
    /// Where readers may begin. The log's own start runs ahead of it while a DeleteRecords becomes durable.
    log_start_offset: Cell<i64>,
    /// Appended, not durable yet, oldest first.
    pending: RefCell<VecDeque<PendingGroup>>,
    tail: Rc<Tail>,
    placed: Cell<PlacedEnd>,
    waiters: WaitList,
    /// Why it takes no more appends; what is durable stays readable.
    failure: RefCell<Option<JournalError>>,
    is_deleted: Cell<bool>,
    /// Whether its files differ from what the last clean stop left.
    is_changed: Cell<bool>,
    /// Aborted transactions whose index entries are in memory only, with the segment of their markers.
    aborted: RefCell<Vec<(i64, AbortedTransaction)>>,
    /// Segments that were rolled and whose indexes are still to be written, oldest first.
    closed: RefCell<VecDeque<ClosedSegment>>,
    upkeep: upkeep::UpkeepState,
    keeping: Cell<Keeping>,
    durability: Cell<DurabilityClass>,
    unflushed: Unflushed,
    /// Rises whenever compaction exchanges segments.
    layout: Cell<u32>,
    cleaning: CleaningState,
    /// The directory holds nothing of an earlier life that should not be there.
    is_swept: Cell<bool>,
}

/// Where a partition's files are; a move to another data directory changes it.
#[derive(Clone)]
struct Site {
    home: PartitionHome,
    directory: Rc<Path>,
    disk: Rc<Disk>,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leadership {
    epoch: i32,
    is_leader: bool,
    /// The log's end when the epoch began here.
    start_offset: i64,
}

impl Leadership {
    const NONE: Leadership = Leadership { epoch: NO_LEADER_EPOCH, is_leader: false, start_offset: 0 };
}

impl Partition {
    pub fn id(&self) -> TopicIdPartition {
        self.id
    }

    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub fn directory(&self) -> Rc<Path> {
        self.site.borrow().directory.clone()
    }

    /// The data directory that it lies in, and its name there.
    pub fn home(&self) -> PartitionHome {
        self.site.borrow().home.clone()
    }

    /// The data directory alone.
    pub fn directory_id(&self) -> Uuid {
        self.site.borrow().home.directory_id
    }

    /// Whether there is room in that directory for more than what it must take.
    pub fn has_disk_room(&self) -> bool {
        self.disk().has_room()
    }

    fn disk(&self) -> Rc<Disk> {
        self.site.borrow().disk.clone()
    }

    /// Takes the lead in `epoch`, which begins at the log's end. A start of the broker raises the epoch of each partition, so that consumers notice a tail that is lost.
    pub fn become_leader(&self, epoch: i32) {
        let current = self.leadership.get();
        assert!(epoch >= current.epoch, "leader epochs do not fall: {} after {}", epoch, current.epoch);
        if current.is_leader && current.epoch == epoch {
            return;
        }
        let start_offset = {
            let mut log = self.log.borrow_mut();
            log.begin_leader_epoch(epoch);
            log.log_end_offset()
        };
        self.leadership.set(Leadership { epoch, is_leader: true, start_offset });
        self.waiters.fire_all();
    }

    /// Another replica leads from `epoch` on, or none: clients are sent away.
    pub fn resign(&self, epoch: i32) {
        let current = self.leadership.get();
        self.leadership.set(Leadership { epoch: epoch.max(current.epoch), is_leader: false, ..current });
        self.waiters.fire_all();
    }

    pub fn is_leader(&self) -> bool {
        self.leadership.get().is_leader && !self.is_deleted.get()
    }

    /// -1 before the metadata has named one.
    pub fn leader_epoch(&self) -> i32 {
        self.leadership.get().epoch
    }

    /// The epoch of the last record in the log, or of the leader that has not written yet; -1 in an empty log. A new leader's epoch is above it.
    pub fn latest_epoch(&self) -> i32 {
        self.log.borrow().leader_epochs().latest().map_or(NO_LEADER_EPOCH, |latest| latest.epoch)
    }

    /// The end of what is visible (exclusive): durable, and in a cluster replicated.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.get()
    }

    /// The end of what read_committed may see: the high watermark, or the beginning of the first undecided transaction before it.
    pub fn last_stable_offset(&self) -> i64 {
        self.log.borrow().last_stable_offset(self.high_watermark.get())
    }

    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset.get()
    }

    /// The offset of the next record to be appended; not for clients' eyes.
    pub fn log_end_offset(&self) -> i64 {
        self.log.borrow().log_end_offset()
    }

    /// Bytes of all its segments (DescribeLogDirs).
    pub fn size_bytes(&self) -> u64 {
        self.log.borrow().segments().size_bytes()
    }

    /// The producers as a client may see them (DescribeProducers): up to the high watermark, as it is now. Others have their turns between.
    pub async fn producers(&self) -> Vec<ProducerView> {
        // A copy costs nothing and stays as it is.
        let (producers, high_watermark) = (self.log.borrow().producers().producers().clone(), self.high_watermark.get());
        // Made as large as it becomes: to grow it would copy it.
        let mut views = Vec::with_capacity(producers.len());
        let mut after = view_some(&producers, high_watermark, None, &mut views);
        while after.is_some() {
            rt::yield_now().await;
            after = view_some(&producers, high_watermark, after, &mut views);
        }
        views
    }

    /// A guard for the first batch of a producer's transaction; None if the transaction is open here.
    pub fn verification_guard(&self, producer_id: i64, producer_epoch: i16) -> Option<VerificationGuard> {
        self.log.borrow().producers().guard(producer_id, producer_epoch)
    }

    /// The topic's settings have changed.
    pub fn apply_settings(&self, settings: &crate::config::TopicSettings) {
        self.log.borrow_mut().set_rules(open::roll_rules(settings));
        self.keeping.set(Keeping::new(settings));
        self.durability.set(DurabilityClass::new(settings, &self.topic));
    }

    /// Looks at some producers, those above the id `after`, and forgets the ones that have been idle for `expiration_ms` (`producer.id.expiration.ms`). Gives the id to go on after; None
    /// when all have been looked at. To be called now and then.
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64, after: Option<i64>) -> Option<i64> {
        self.log.borrow_mut().producers_mut().expire(now_ms, expiration_ms, after)
    }

    /// Something other than new records has changed what a reader sees.
    fn tell_waiters(&self) {
        self.waiters.fire_all();
    }
}

impl PlacementTarget for Partition {
    fn facts(&self) -> PartitionFacts {
        let log = self.log.borrow();
        PartitionFacts {
            partition: self.id,
            home: self.home(),
            log_start_offset: log.log_start_offset(),
            end_offset: log.log_end_offset(),
            high_watermark: self.high_watermark.get(),
            segments: log.segments().iter().copied().collect(),
            leader_epochs: log.leader_epochs().entries().to_vec(),
            producers: log.producers().producers().clone(),
            aborted: self.aborted.borrow().clone(),
            cleaned_to: self.cleaning.cleaned_to.get(),
        }
    }

    fn placed(&self, end: PlacedEnd) {
        self.placed.set(end);
        self.environment.tail_cache.placed(&self.tail, end.end_offset);
        self.note_upkeep();
    }

    fn failed(&self, error: &JournalError) {
        self.failure.borrow_mut().get_or_insert_with(|| error.clone());
        self.disk().fail(error);
    }

    fn ran_full(&self) {
        self.disk().ran_full();
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Partition").field("topic", &self.topic).field("id", &self.id).finish_non_exhaustive()
    }
}
