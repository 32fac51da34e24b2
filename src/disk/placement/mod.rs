//! Placement: what the journal holds is written into segment files, so that the ring's space can be taken again.
//!
//! A round takes all durable changes, keeps in the journal what their first blocks hold already (so that a torn rewrite of a block loses nothing), writes and flushes the segment
//! files, writes a checkpoint, and only then frees the ring's space. Rounds run when the ring has filled to a part, every few seconds while there is anything to place, and at a
//! clean stop. All of it is upkeep: it runs in the background queue of its shard, and clients go first.
//!
//! Placement creates a segment's `.log` file when it first writes into it and cuts it to its last byte once a later segment follows; nobody else writes `.log` files of a
//! partition that is registered with the journal. Until `PlacementTarget::placed` says so, bytes are in memory only (and in the ring).

pub mod backlog;
pub mod plan;
pub mod segment;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use self::backlog::{CHANGES_AT_ONCE, PlacementWork, Waiting};
use self::plan::{Extent, Step, plan};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::slot::{CheckpointWriter, Slot};
use crate::disk::checkpoint::{PartitionFacts, PartitionRecord, PlacedEnd};
use crate::disk::journal::entry::ENTRY_HEADER_BYTES;
use crate::disk::journal::group::BLOCK_BYTES;
use crate::disk::journal::{EntryHeader, GroupSequence, Journal, JournalError, JournalStart};
use crate::rt::file::FileError;
use crate::rt::sync::{Budget, Permit};
use crate::rt::{self, Pause};

/// What waits this long is placed even if the ring has room: it leaves memory, and a restart has less to replay. Not shorter, because a partition with little traffic pays a block
/// read, kept and rewritten for each round that it takes part in.
const IDLE_DELAY: Duration = Duration::from_secs(10);

/// A round that found nothing to free in a ring that is filling is repeated after this: what has just been appended is durable by then.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// After a failure or on a full disk there is no hurry.
const TROUBLE_DELAY: Duration = Duration::from_millis(250);

/// After so many rounds in a row that could do nothing at all for a full ring, none ever will.
const HOPELESS_ROUNDS: u32 = 8;

/// Partitions whose files are read, written or flushed at once.
const PARTITIONS_AT_ONCE: usize = 8;

/// Partitions whose facts are taken for a checkpoint between two looks at what else the shard has to do.
const FACTS_AT_ONCE: usize = 16;

/// What planning a partition's part costs beside its changes, counted in changes.
const CHANGES_A_PARTITION_COSTS: usize = 10;

/// What placement and checkpoints ask of a partition on their shard. All calls are synchronous and short; none may append to the journal.
pub trait PlacementTarget {
    /// The partition as of every entry that it has appended to the journal so far, durable or not.
    fn facts(&self) -> PartitionFacts;

    /// The segment files now hold the log up to here, flushed. What lies below may leave memory and be read from the files.
    fn placed(&self, end: PlacedEnd);

    /// Writing or flushing this partition's files failed: it takes no more appends until a restart has recovered it. What is durable in the journal stays readable from memory.
    fn failed(&self, error: &JournalError);

    /// There is no room for this partition's files at present.
    fn ran_full(&self) {}
}

/// Where a shard's checkpoints go, and which one comes next.
#[derive(Clone, Debug)]
pub struct CheckpointTurn {
    pub journal_directory: PathBuf,
    pub shard: u16,
    /// Number and slot of the next checkpoint.
    pub number: u64,
    pub slot: Slot,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacementStatistics {
    pub rounds: u64,
    pub checkpoints: u64,
    /// Bytes of batches that were brought into segment files.
    pub placed_bytes: u64,
    /// Rounds that a full disk has stopped.
    pub no_space: u64,
}

/// Placement of one shard.
pub struct Placement {
    journal: Rc<Journal>,
    turn: RefCell<CheckpointTurn>,
    direct: bool,
    /// One round at a time.
    rounds: Budget,
    is_stopped: Cell<bool>,
    /// What the journal holds of partitions' logs in full. A round that finds a block there, after trouble say, has nothing more to keep.
    held: RefCell<HashMap<TopicIdPartition, Held>>,
    last_kept: Cell<GroupSequence>,
    /// Bytes of the ring's reserve that no checkpoint has freed yet.
    upkeep_bytes: Cell<u64>,
    /// Entries that the last checkpoint tells of, and where its replay begins: where both have stayed, there is nothing to write down.
    entries_told: Cell<u64>,
    start_told: Cell<GroupSequence>,
    /// Data directories in which there was no room. What is to be placed there does not hold up the others.
    full: RefCell<HashMap<PathBuf, FullDirectory>>,
    /// Those in which a write of the round under way found none.
    lacking: RefCell<HashSet<PathBuf>>,
    /// There was no room for the last checkpoint.
    lacks_checkpoint: Cell<bool>,
    /// The last round has left something durable for the next.
    has_more: Cell<bool>,
    statistics: Cell<PlacementStatistics>,
}

/// From where on the journal holds all bytes of a partition's log, be they appended or kept.
#[derive(Clone, Copy)]
struct Held {
    /// Segment and block.
    from: (i64, u64),
    /// Up to where the files held the log then.
    placed: PlacedEnd,
    /// The group with what was kept of the first block, if anything had to be.
    kept: Option<GroupSequence>,
}

/// A data directory without room, as far as placement knows.
#[derive(Clone, Copy)]
struct FullDirectory {
    /// Nothing is tried before.
    try_again: Instant,
    /// One partition shows whether there is room now, and only then the others follow.
    is_probed: bool,
}

/// What a round tries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tries {
    Everything,
    /// Not what has found no room a moment ago.
    WhatMayWork,
}

/// A partition's part of a round.
struct Job {
    work: PlacementWork,
    steps: Vec<Step>,
    end: PlacedEnd,
}

impl Held {
    /// Together with what another round has found before the next checkpoint. The earlier end stands: a partition that moved on is looked at anew behind the checkpoint.
    fn and(self, later: Held) -> Held {
        Held { from: self.from.min(later.from), placed: self.placed, kept: self.kept.or(later.kept) }
    }
}

impl Placement {
    /// Starts placement on this shard. `direct`: whether the data directories' filesystem takes direct writes.
    pub fn start(journal: Rc<Journal>, turn: CheckpointTurn, direct: bool) -> Rc<Self> {
        let placement = Rc::new(Self {
            journal,
            turn: RefCell::new(turn),
            direct,
            rounds: Budget::new(1),
            is_stopped: Cell::new(false),
            held: RefCell::default(),
            last_kept: Cell::default(),
            upkeep_bytes: Cell::new(0),
            entries_told: Cell::new(0),
            start_told: Cell::new(GroupSequence(0)),
            full: RefCell::default(),
            lacking: RefCell::default(),
            lacks_checkpoint: Cell::new(false),
            has_more: Cell::new(false),
            statistics: Cell::default(),
        });
        rt::spawn_background(placement.clone().run()).detach();
        placement
    }

    pub fn statistics(&self) -> PlacementStatistics {
        self.statistics.get()
    }

    /// One round now, whatever the ring's use: everything that is durable at this moment is placed, unless a full disk or a failure keeps it.
    pub async fn place_now(&self) -> Result<(), JournalError> {
        let _permit = self.rounds.acquire(1).await;
        loop {
            let before = self.statistics().placed_bytes;
            self.round(Tries::Everything).await?;
            if !self.has_more.get() || self.statistics().placed_bytes == before {
                return Ok(());
            }
        }
    }

    async fn take_turn(&self) -> Result<(), JournalError> {
        let _permit = self.rounds.acquire(1).await;
        self.round(Tries::WhatMayWork).await
    }

    /// Waits until no round is under way: what was unregistered before is not written to any more.
    pub async fn settled(&self) {
        self.hold().await;
    }

    /// Waits until no round is under way, and keeps the next from beginning until the permit is dropped: no file is written to and no checkpoint made meanwhile.
    pub async fn hold(&self) -> Permit {
        self.rounds.acquire(1).await
    }

    /// The clean stop of a shard whose partitions take no more appends: everything is placed, live files are cut to their last byte, the last checkpoint says so, and the journal
    /// closes. An error means that something stayed in the ring; the next start finds it there.
    pub async fn shut_down(&self) -> Result<(), JournalError> {
        self.is_stopped.set(true);
        let _permit = self.rounds.acquire(1).await;
        self.journal.wait_durable(self.journal.last_sequence()).await?;
        while self.journal.waiting_count() > 0 {
            let before = self.journal.waiting_count();
            self.round(Tries::Everything).await?;
            if self.journal.waiting_count() == before {
                return Err(self.stuck());
            }
        }
        self.cut_live_files().await?;
        self.checkpoint().await?;
        self.journal.close();
        Ok(())
    }

    async fn run(self: Rc<Self>) {
        let mut hopeless_rounds = 0;
        while !self.is_over() {
            let pressed = self.journal.pressure().notified();
            if !self.journal.is_under_pressure() && !self.has_more.get() {
                // Where there was no room, it is looked for again soon.
                let lacks_room = self.lacks_checkpoint.get() || !self.full.borrow().is_empty();
                let _ = rt::timeout(if lacks_room { TROUBLE_DELAY } else { IDLE_DELAY }, pressed).await;
            }
            if self.is_over() {
                return;
            }
            let (oldest, placed_bytes) = (self.journal.replay_start().sequence, self.statistics().placed_bytes);
            let result = self.take_turn().await;
            let has_moved = self.journal.replay_start().sequence > oldest;
            let is_idle = !has_moved && self.statistics().placed_bytes == placed_bytes && !self.journal.has_others_waiting();
            let is_hopeless = is_idle && self.is_hopeless();
            hopeless_rounds = if is_hopeless { hopeless_rounds + 1 } else { 0 };
            if hopeless_rounds == HOPELESS_ROUNDS {
                self.journal.fail(self.stuck());
            }
            if result.is_err() || self.lacks_checkpoint.get() || (is_idle && self.is_in_trouble()) {
                rt::sleep(TROUBLE_DELAY).await;
            } else if (self.journal.is_under_pressure() || self.has_more.get()) && !has_moved {
                rt::sleep(RETRY_DELAY).await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_stopped.get() || self.journal.failure().is_some()
    }

    fn is_in_trouble(&self) -> bool {
        !self.full.borrow().is_empty() || self.journal.partition_failure().is_some()
    }

    /// Partitions that failed hold their part of the ring. Should that be so much that what is in their way cannot be carried forward, the others are told rather than left to wait for ever.
    fn is_hopeless(&self) -> bool {
        let may_clear = self.lacks_checkpoint.get() || !self.full.borrow().is_empty();
        !may_clear && self.journal.partition_failure().is_some() && self.journal.is_full()
    }

    fn stuck(&self) -> JournalError {
        let no_room = || JournalError::Failed { path: self.journal.path().into(), cause: "no room to place what it holds".into() };
        self.journal.partition_failure().unwrap_or_else(no_room)
    }

    async fn round(&self, tries: Tries) -> Result<(), JournalError> {
        self.count(|statistics| statistics.rounds += 1);
        // Only what is durable is placed, and what is placed frees the ring.
        self.journal.flush_written().await?;
        let jobs = self.choose_jobs(tries).await;
        let tried = self.full_directories_of(&jobs);
        let jobs = self.keep_prefixes(jobs).await?;
        self.in_parallel(jobs, Self::place).await;
        self.note_full(tried);
        // What waits for files that take nothing must not keep the room from others.
        self.journal.note_stuck(|directory| self.full.borrow().contains_key(data_directory_of(directory)));
        self.journal.carry_forward().await;
        if self.journal.has_unwritten_pins() {
            // A checkpoint would let go of what is kept of their blocks.
            return Ok(());
        }
        // What an earlier checkpoint knew, but had to leave in the ring, is placed now: only another one frees its room.
        let has_moved = self.journal.replay_start().sequence > self.start_told.get();
        if has_moved || self.journal.statistics().entries > self.entries_told.get() {
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Those of the directories without room in which something is tried.
    fn full_directories_of(&self, jobs: &[Job]) -> Vec<PathBuf> {
        let is_tried = |directory: &&PathBuf| jobs.iter().any(|job| data_directory_of(&job.work.directory) == **directory);
        self.full.borrow().keys().filter(is_tried).cloned().collect()
    }

    /// A directory without room is left alone for a while, then one partition tries again, and if that has found room, all do.
    fn note_full(&self, tried: Vec<PathBuf>) {
        let mut full = self.full.borrow_mut();
        let lacking = self.lacking.take();
        if full.is_empty() && !lacking.is_empty() {
            tracing::warn!(journal = %self.journal.path().display(), "what the journal holds finds no room in its place: tried again until it does");
        }
        full.retain(|directory, state| {
            let has_found_room = tried.contains(directory) && !lacking.contains(directory);
            let stays = !has_found_room || state.is_probed;
            if has_found_room {
                *state = FullDirectory { try_again: Instant::now(), is_probed: false };
            }
            stays
        });
        let try_again = Instant::now() + TROUBLE_DELAY;
        full.extend(lacking.into_iter().map(|directory| (directory, FullDirectory { try_again, is_probed: true })));
    }

    /// What waits longest comes first. What the journal has to keep of half-filled blocks until the next checkpoint is bounded by the room that it has for that; the rest comes in
    /// the next round.
    async fn choose_jobs(&self, tries: Tries) -> Vec<Job> {
        let mut upkeep_bytes_left = self.journal.upkeep_bytes_max().saturating_sub(self.upkeep_bytes.get());
        let mut jobs = Vec::new();
        let mut changes_in_one_go = 0;
        self.has_more.set(false);
        for waiting in self.choose_partitions(tries) {
            // Some may have gone since.
            let Some(mut work) = self.journal.durable_work(&waiting.partition) else { continue };
            self.has_more.set(self.has_more.get() || work.has_more);
            changes_in_one_go += work.changes.len() + CHANGES_A_PARTITION_COSTS;
            if changes_in_one_go > CHANGES_AT_ONCE {
                changes_in_one_go = 0;
                rt::yield_now().await;
            }
            let (steps, end) = plan(work.placed, std::mem::take(&mut work.changes));
            let job = Job { work, steps, end };
            let upkeep_bytes = self.prefixes_to_keep(&job).count() as u64 * UPKEEP_ENTRY_BYTES;
            let Some(left) = upkeep_bytes_left.checked_sub(upkeep_bytes) else { continue };
            upkeep_bytes_left = left;
            jobs.push(job);
        }
        jobs
    }

    fn choose_partitions(&self, tries: Tries) -> Vec<Waiting> {
        let mut partitions = self.journal.durable_waiting();
        let mut full = self.full.borrow_mut();
        // Where nothing waits any more, nothing would ever find out that there is room.
        full.retain(|directory, _| partitions.iter().any(|waiting| data_directory_of(&waiting.directory) == directory));
        if tries == Tries::WhatMayWork && !full.is_empty() {
            let now = Instant::now();
            let mut probed = HashSet::new();
            partitions.retain(|waiting| {
                let directory = data_directory_of(&waiting.directory);
                full.get(directory)
                    .is_none_or(|state| state.try_again <= now && (!state.is_probed || probed.insert(directory.to_path_buf())))
            });
        }
        partitions
    }

    /// Extents whose first block's earlier bytes the journal does not hold yet.
    fn prefixes_to_keep<'a>(&self, job: &'a Job) -> impl Iterator<Item = &'a Extent> + use<'a> {
        let held = self.held.borrow().get(&job.work.partition).copied();
        let is_held = move |extent: &Extent| held.is_some_and(|held| held.from <= extent.first_block());
        extents(&job.steps).filter(move |extent| extent.prefix_bytes() > 0 && !is_held(extent))
    }

    /// Reads what the first block of each extent holds, and makes it durable in the journal before anything is rewritten. Returns the jobs that can go on.
    async fn keep_prefixes(&self, jobs: Vec<Job>) -> Result<Vec<Job>, JournalError> {
        let jobs = self.in_parallel(jobs, Self::read_prefixes).await;
        let mut ready = Vec::with_capacity(jobs.len());
        for job in jobs {
            match self.keep_prefixes_of(&job) {
                Ok(()) => ready.push(job),
                // Not even the reserve has room. What needs none goes on, and makes some.
                Err(JournalError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        // Also what an earlier round has kept before it came to grief.
        self.journal.wait_durable(self.last_kept.get()).await?;
        Ok(ready)
    }

    fn keep_prefixes_of(&self, job: &Job) -> Result<(), JournalError> {
        let mut kept = None;
        for extent in self.prefixes_to_keep(job) {
            let header = EntryHeader::block_prefix(job.work.partition, extent.segment_base, extent.block_position() as u32);
            let written = self.journal.append_upkeep(&header, &[&extent.prefix])?;
            kept.get_or_insert(written.sequence);
            self.last_kept.set(written.sequence);
            self.upkeep_bytes.set(self.upkeep_bytes.get() + UPKEEP_ENTRY_BYTES);
        }
        if let Some(from) = extents(&job.steps).map(Extent::first_block).min() {
            let now = Held { from, placed: job.work.placed, kept };
            self.held.borrow_mut().entry(job.work.partition).and_modify(|held| *held = held.and(now)).or_insert(now);
        }
        Ok(())
    }

    /// What a checkpoint whose replay begins at `start` leaves of what is held: where nothing was placed since, because the disk is full say, replay finds both what was kept and what was
    /// appended behind it. Without this, every round in trouble would use up more of the reserve.
    fn let_go_of_held(&self, start: GroupSequence) {
        let mut kept_entries = 0;
        self.held.borrow_mut().retain(|partition, held| {
            let is_unplaced = self.journal.site(partition).is_some_and(|(_, placed, _)| placed == held.placed);
            let is_replayed = held.kept.is_none_or(|kept| kept >= start);
            let stays = is_unplaced && is_replayed;
            kept_entries += u64::from(stays && held.kept.is_some());
            stays
        });
        self.upkeep_bytes.set(kept_entries * UPKEEP_ENTRY_BYTES);
    }

    async fn read_prefixes(&self, mut job: Job) -> Option<Job> {
        for step in &mut job.steps {
            let Step::Write(extent) = step else { continue };
            if extent.prefix_bytes() == 0 {
                continue;
            }
            match segment::read_prefix(&job.work.directory, extent, self.direct).await {
                Ok(prefix) => extent.prefix = prefix,
                Err(error) => {
                    self.partition_failed(&job.work, &error, Vec::new());
                    return None;
                }
            }
        }
        Some(job)
    }

    async fn place(&self, mut job: Job) -> Option<()> {
        let placed_bytes: u64 = extents(&job.steps).map(|extent| extent.length).sum();
        let steps = std::mem::take(&mut job.steps);
        let kept = |extent: &Extent| {
            (EntryHeader::block_prefix(job.work.partition, extent.segment_base, extent.block_position() as u32), extent.prefix.clone())
        };
        let torn = extents(&steps).filter(|extent| extent.prefix_bytes() > 0).map(kept).collect();
        match segment::carry_out(&job.work.directory, steps, self.direct).await {
            Ok(()) => {
                self.journal.strike_off(&job.work.partition, job.work.last_number, job.end);
                self.count(|statistics| statistics.placed_bytes += placed_bytes);
                Some(())
            }
            Err(error) => {
                self.partition_failed(&job.work, &error, torn);
                None
            }
        }
    }

    /// A full disk clears itself: nothing was struck off, and the same blocks are written again later. Anything else is final for the partition. `torn` is what was in the blocks that
    /// were being written again.
    fn partition_failed(&self, work: &PlacementWork, error: &FileError, torn: Vec<(EntryHeader, Bytes)>) {
        let partition = &work.partition;
        // Deleted while its files were being written.
        let Some((target, ..)) = self.journal.site(partition) else { return };
        if error.is_no_space() {
            target.ran_full();
            self.lacking.borrow_mut().insert(data_directory_of(&work.directory).to_path_buf());
            return self.count(|statistics| statistics.no_space += 1);
        }
        tracing::error!(%partition, %error, "segment files take no more writes until a restart");
        let failure = JournalError::Failed { path: error.path.clone(), cause: error.to_string() };
        self.journal.fail_torn_partition(partition, &failure, torn);
    }

    /// Runs `step` for every job, a few at a time; returns what came out.
    async fn in_parallel<T: 'static>(&self, jobs: Vec<Job>, step: impl AsyncFn(&Self, Job) -> Option<T>) -> Vec<T> {
        let queue = RefCell::new(VecDeque::from(jobs));
        let results = RefCell::new(Vec::new());
        let worker = async || {
            loop {
                let Some(job) = queue.borrow_mut().pop_front() else { return };
                let result = step(self, job).await;
                results.borrow_mut().extend(result);
            }
        };
        rt::sync::join_all((0..PARTITIONS_AT_ONCE).map(|_| worker())).await;
        results.into_inner()
    }

    /// Writes down every partition as it is now, makes that count once all of it is durable, and frees the ring up to where a replay would begin.
    async fn checkpoint(&self) -> Result<(), JournalError> {
        let entries = self.journal.statistics().entries;
        // Asked before the first partition is looked at: whatever is appended meanwhile comes later in the ring.
        let start = self.journal.replay_start();
        let turn = self.turn.borrow().clone();
        let path = turn.slot.path(&turn.journal_directory, turn.shard);
        let written = self.write_checkpoint(path, &turn, start).await;
        match written {
            Ok(()) => self.lacks_checkpoint.set(false),
            Err(CheckpointError::File(error)) if error.is_no_space() => {
                if !self.lacks_checkpoint.replace(true) {
                    tracing::warn!(journal = %self.journal.path().display(), "a checkpoint finds no room: tried again until it does");
                }
                self.count(|statistics| statistics.no_space += 1);
                return Ok(());
            }
            Err(CheckpointError::File(error)) => {
                let failure = JournalError::Failed { path: error.path.clone(), cause: error.to_string() };
                self.journal.fail(failure.clone());
                return Err(failure);
            }
            Err(CheckpointError::Journal(error)) => return Err(error),
        }
        *self.turn.borrow_mut() = CheckpointTurn { number: turn.number + 1, slot: turn.slot.other(), ..turn };
        self.let_go_of_held(start.sequence);
        self.journal.checkpointed(start);
        self.entries_told.set(entries);
        self.start_told.set(start.sequence);
        self.count(|statistics| statistics.checkpoints += 1);
        Ok(())
    }

    async fn write_checkpoint(&self, path: PathBuf, turn: &CheckpointTurn, start: JournalStart) -> Result<(), CheckpointError> {
        let mut writer = CheckpointWriter::begin(path, self.direct).await?;
        let mut pause = Pause::every(FACTS_AT_ONCE);
        for partition in self.journal.partitions() {
            pause.step().await;
            let Some((target, placed, next_entry)) = self.journal.site(&partition) else { continue };
            writer.add(&PartitionRecord { facts: target.facts(), placed, next_entry }).await?;
        }
        // The facts tell of entries that may still be on their way: a crash now must not find a checkpoint that promises them.
        self.journal.wait_durable(self.journal.last_sequence()).await?;
        writer.finish(turn.number, self.journal.journal_id(), start).await?;
        Ok(())
    }

    /// Zeros behind a live log's last byte are ours alone to understand; after a clean stop others read the files.
    async fn cut_live_files(&self) -> Result<(), JournalError> {
        let ends = self.journal.padded_ends();
        let queue = RefCell::new(VecDeque::from(ends));
        let failure = RefCell::new(None);
        let worker = async || {
            loop {
                let Some((directory, end)) = queue.borrow_mut().pop_front() else { return };
                let result = segment::cut_file(&directory, end.segment_base, end.size_bytes).await;
                if let Err(error) = result {
                    failure.borrow_mut().get_or_insert(error);
                }
            }
        };
        rt::sync::join_all((0..PARTITIONS_AT_ONCE).map(|_| worker())).await;
        match failure.into_inner() {
            Some(error) => Err(JournalError::Failed { path: error.path.clone(), cause: error.to_string() }),
            None => Ok(()),
        }
    }

    fn count(&self, change: impl FnOnce(&mut PlacementStatistics)) {
        let mut statistics = self.statistics.get();
        change(&mut statistics);
        self.statistics.set(statistics);
    }
}

/// The most that one half-filled block takes of the ring's reserve.
const UPKEEP_ENTRY_BYTES: u64 = (ENTRY_HEADER_BYTES + BLOCK_BYTES) as u64;

/// The data directory in which a partition's lies.
fn data_directory_of(partition_directory: &Path) -> &Path {
    partition_directory.parent().unwrap_or(partition_directory)
}

fn extents(steps: &[Step]) -> impl Iterator<Item = &Extent> {
    steps.iter().filter_map(|step| if let Step::Write(extent) = step { Some(extent) } else { None })
}

enum CheckpointError {
    File(FileError),
    Journal(JournalError),
}

impl From<FileError> for CheckpointError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<JournalError> for CheckpointError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}
