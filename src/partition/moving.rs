//! Moving a replica from one data directory of the broker to another, beside live traffic (KIP-113).
//!
//! What placement has brought into the segment files is copied, slice by slice, into a directory of its own in the other data directory (`<topic>-<partition>.<unique>-future`, as
//! Kafka names it), while appends, reads and retention go on: what is newer lies in the journal and in memory, whatever directory it will be placed in. When little is left, placement
//! is held for a moment, the rest is copied and flushed, and the replica changes its place.
//!
//! The order makes a crash harmless: the copy is flushed, the journal's `Moved` entry is durable, and from then on the new place counts; the future directory gets its name, the
//! partition goes on there, and only then the old directory is put aside. A start that finds the entry does what is left of that (disk::recovery::moves); one that finds a future
//! directory alone begins the copy anew. So a move that is not wanted any more loses its future directory before anybody is told so, and one whose entry is in the journal is never undone.
//! One move at a time on each shard. Compaction lets a log in peace whose turn it is, because it would exchange what has been copied.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use uuid::Uuid;

use super::disks::RESERVE_BYTES;
use super::pace::Pace;
use super::partitions::Partitions;
use super::{Partition, Site};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::{PartitionHome, ReplicaMove};
use crate::disk::directories::{self, DataDirectory, DirectoryError};
use crate::disk::graveyard::Grave;
use crate::disk::journal::group::{BLOCK_BYTES, round_down_to_block, round_up_to_block};
use crate::disk::journal::{EntryHeader, JournalError};
use crate::disk::recovery::FutureDirectory;
use crate::disk::slow;
use crate::log::SegmentBook;
use crate::log::file_names::{LEADER_EPOCH_CHECKPOINT, LogFileKind, future_directory};
use crate::rt;
use crate::rt::file::{
    Durability, File, FileError, FileErrorCause, OpenMode, Operation, list_directory_blocking, rename_blocking, sync_directory,
    sync_directory_blocking,
};
use crate::rt::sync::{Budget, Notify};

/// Bytes read and written at once, fewer where the rate is low.
const SLICE_BYTES_MAX: u64 = 1 << 20;
const SLICE_BYTES_MIN: u64 = 64 << 10;
/// With no more than this left, placement is to be held for the rest.
const REST_BYTES: u64 = 8 << 20;
/// The round of placement that ends first may add to it. With more than this the copy goes on beside placement: nobody waits for gigabytes.
const REST_BYTES_MAX: u64 = 64 << 20;
/// Segments whose indexes are copied while placement is held.
const REST_SEGMENTS_MAX: usize = 8;
/// A ring that has no room for the entry has it soon, and indexes are written soon.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Files beside a segment's batches.
const INDEX_KINDS: [LogFileKind; 4] =
    [LogFileKind::OffsetIndex, LogFileKind::TimeIndex, LogFileKind::TransactionIndex, LogFileKind::ProducerSnapshot];

/// Why a replica does not begin to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveRefusal {
    /// The partition is not on this shard.
    NotHere,
    /// One of the two data directories does not work, or the new one lacks the room.
    Storage,
}

/// The copy of a replica that moves, as DescribeLogDirs tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureReplica {
    pub directory_id: Uuid,
    pub size_bytes: u64,
    /// Offsets that it is behind.
    pub offset_lag: i64,
}

/// A move under way.
pub(super) struct Move {
    to: FutureDirectory,
    /// Nothing lies in the future directory but the file that says whose it is; otherwise what an earlier life has copied.
    begins_empty: bool,
    is_cancelled: Cell<bool>,
    /// The journal's entry says that the new place counts: from now on nothing stops the move, and the copy stays whatever happens.
    counts: Cell<bool>,
    /// Rung when it has ended.
    ended: Notify,
    /// By segment.
    copied: RefCell<BTreeMap<i64, Copied>>,
    /// The copy holds the log up to here.
    end_offset: Cell<i64>,
}

/// What is in the new place of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    size_bytes: u32,
    has_indexes: bool,
}

/// The moves of a shard that wait for their turn.
pub(super) struct MoveQueue {
    waiting: RefCell<VecDeque<(Rc<Partition>, Rc<Move>)>>,
    bell: Notify,
    /// Requests are looked at one after the other, so that the later one counts.
    requests: Budget,
}

impl Default for MoveQueue {
    fn default() -> Self {
        Self { waiting: RefCell::default(), bell: Notify::default(), requests: Budget::new(1) }
    }
}

/// Why a move ended early.
#[derive(Debug)]
enum MoveError {
    /// It is not wanted any more, or the broker stops.
    Stopped,
    /// Not the moment for the last step: too much has been placed meanwhile, or the journal has no room for the entry.
    NotYet,
    /// The other data directory cannot take what is left.
    NoSpace {
        needed_bytes: u64,
        usable_bytes: u64,
    },
    /// The other data directory has a directory of that name.
    Occupied(PathBuf),
    File(FileError),
    Journal(JournalError),
}

impl std::fmt::Display for MoveError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MoveError::Stopped => formatter.write_str("it is not wanted any more"),
            MoveError::NotYet => formatter.write_str("it is to be tried again"),
            MoveError::NoSpace { needed_bytes, usable_bytes } => {
                write!(formatter, "the other data directory has room for {usable_bytes} bytes, and {needed_bytes} are needed")
            }
            MoveError::Occupied(path) => write!(formatter, "{} is there already", path.display()),
            MoveError::File(error) => error.fmt(formatter),
            MoveError::Journal(error) => error.fmt(formatter),
        }
    }
}

impl From<FileError> for MoveError {
    fn from(error: FileError) -> Self {
        MoveError::File(error)
    }
}

impl From<JournalError> for MoveError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Full => MoveError::NotYet,
            error => MoveError::Journal(error),
        }
    }
}

type Result<T> = std::result::Result<T, MoveError>;

impl Move {
    fn new(to: FutureDirectory, begins_empty: bool) -> Rc<Self> {
        Rc::new(Self {
            to,
            begins_empty,
            is_cancelled: Cell::new(false),
            counts: Cell::new(false),
            ended: Notify::default(),
            copied: RefCell::default(),
            end_offset: Cell::new(0),
        })
    }

    /// The directory of the copy.
    #[cfg(test)]
    pub fn copy_path(&self) -> &Path {
        &self.to.path
    }

    #[cfg(test)]
    pub fn counts(&self) -> bool {
        self.counts.get()
    }

    fn copied(&self, base_offset: i64) -> Copied {
        self.copied.borrow().get(&base_offset).copied().unwrap_or_default()
    }

    fn note(&self, base_offset: i64, change: impl FnOnce(&mut Copied)) {
        change(self.copied.borrow_mut().entry(base_offset).or_default());
    }

    fn size_bytes(&self) -> u64 {
        self.copied.borrow().values().map(|copied| u64::from(copied.size_bytes)).sum()
    }
}

/// Starts the task of a shard.
pub(super) fn start(partitions: &Rc<Partitions>) {
    rt::spawn_background(run(Rc::downgrade(partitions))).detach();
}

async fn run(partitions: Weak<Partitions>) {
    loop {
        let Some(living) = partitions.upgrade().filter(|partitions| !partitions.is_stopping()) else { return };
        let rung = living.moves().bell.notified();
        let next = living.moves().waiting.borrow_mut().pop_front();
        match next {
            Some((partition, moving)) => living.carry_out(&partition, &moving).await,
            None => {
                drop(living);
                rung.await;
            }
        }
    }
}

impl MoveQueue {
    fn push(&self, partition: Rc<Partition>, moving: Rc<Move>) {
        self.waiting.borrow_mut().push_back((partition, moving));
        self.bell.notify_all();
    }

    /// The task looks whether it is to end.
    pub fn wake(&self) {
        self.bell.notify_all();
    }

    fn drop_cancelled(&self) {
        self.waiting.borrow_mut().retain(|(_, moving)| !moving.is_cancelled.get());
    }
}

impl Partitions {
    /// Begins to move a partition to that data directory; a move elsewhere that is under way ends. Nothing happens if it is there already, or on its way there.
    pub async fn move_replica(&self, id: &TopicIdPartition, target: &DataDirectory) -> std::result::Result<(), MoveRefusal> {
        let _turn = self.moves().requests.acquire(1).await;
        let partition = self.get(id).ok_or(MoveRefusal::NotHere)?;
        if partition.moving.borrow().as_ref().is_some_and(|moving| moving.to.directory_id == target.id) {
            return Ok(());
        }
        let is_stopped = partition.stop_moving().await;
        self.moves().drop_cancelled();
        let path = target.path.join(future_directory(&partition.topic, id.partition, rt::random_uuid()));
        if !is_stopped || partition.disk().has_failed() || self.disk_of(target.id, &path).has_failed() {
            return Err(MoveRefusal::Storage);
        }
        if partition.directory_id() == target.id {
            return Ok(());
        }
        self.begin_move(partition, FutureDirectory { directory_id: target.id, path }).await
    }

    async fn begin_move(&self, partition: Rc<Partition>, to: FutureDirectory) -> std::result::Result<(), MoveRefusal> {
        let (path, topic_id) = (to.path.clone(), partition.id.topic_id);
        let begun = async {
            partition.check_space(&to.path, partition.size_bytes()).await?;
            rt::blocking(move || prepare_blocking(&path, topic_id)).await.map_err(file_error)
        };
        if let Err(error) = begun.await {
            tracing::error!(topic = %partition.topic, partition = partition.id.partition, to = %to.path.display(), %error, "a replica cannot begin to move");
            return Err(MoveRefusal::Storage);
        }
        // The topic's deletion may have come meanwhile.
        if partition.is_deleted.get() {
            partition.discard_copy(&to.path).await;
            return Err(MoveRefusal::NotHere);
        }
        let moving = Move::new(to, true);
        partition.moving.replace(Some(moving.clone()));
        self.moves().push(partition, moving);
        Ok(())
    }

    /// Goes on with a move that an earlier life has begun.
    pub(super) fn resume_move(&self, partition: &Rc<Partition>, to: FutureDirectory) {
        let moving = Move::new(to, false);
        partition.moving.replace(Some(moving.clone()));
        self.moves().push(partition.clone(), moving);
    }

    /// At a clean stop: copies that still wait for their turn are left empty, because the next start, of whatever broker, begins anew.
    pub(super) async fn put_off_moves(&self) {
        loop {
            let next = self.moves().waiting.borrow_mut().pop_front();
            let Some((partition, moving)) = next else { return };
            if partition.is_wanted_elsewhere(&moving) && !moving.begins_empty {
                tell_if_it_stays(partition.empty_copy(&moving).await);
            }
        }
    }

    async fn carry_out(&self, partition: &Rc<Partition>, moving: &Rc<Move>) {
        let _turn = self.move_turn().acquire(1).await;
        if partition.is_wanted_elsewhere(moving) {
            // A round of compaction that is under way ends first; later ones pass over the log until its files are where they stay.
            let _cleaner = self.cleaner_turn().acquire(1).await;
            partition.cleaning.is_held.set(true);
        }
        let outcome = partition.move_away(moving, self.move_bytes_per_second()).await;
        partition.end_move(moving);
        if let Err(error) = outcome {
            self.clear_up(partition, moving, error).await;
        }
        partition.cleaning.is_held.set(false);
    }

    /// What becomes of the copy of a move that has ended early.
    async fn clear_up(&self, partition: &Rc<Partition>, moving: &Move, error: MoveError) {
        let (topic, number, to) = (&partition.topic, partition.id.partition, moving.to.path.display());
        if moving.counts.get() {
            tracing::error!(%topic, partition = number, %to, %error, "the next start brings the replica's move to its end");
            return;
        }
        // Whoever did not want it any more has seen to the copy.
        if !partition.is_wanted_elsewhere(moving) {
            return;
        }
        if !matches!(error, MoveError::Stopped) {
            tracing::error!(%topic, partition = number, %to, %error, "the replica stays where it is");
        }
        tell_if_it_stays(if self.is_stopping() {
            partition.empty_copy(moving).await
        } else {
            rt::file::remove_directory(moving.to.path.clone()).await.map_err(DirectoryError::from)
        });
    }
}

fn tell_if_it_stays(cleared: std::result::Result<(), DirectoryError>) {
    if let Err(error) = cleared {
        tracing::warn!(%error, "what was copied of a replica stays until the next start");
    }
}

/// Its own directory in the other data directory, empty but for the file that says whose it is.
fn prepare_blocking(path: &Path, topic_id: Uuid) -> std::result::Result<(), DirectoryError> {
    rt::file::create_directory_blocking(path)?;
    empty_blocking(path, topic_id)
}

/// Never makes the directory: it may have been put aside this very moment.
fn empty_blocking(path: &Path, topic_id: Uuid) -> std::result::Result<(), DirectoryError> {
    for name in list_directory_blocking(path)? {
        directories::remove_file_blocking(&path.join(name))?;
    }
    directories::write_partition_metadata_blocking(path, topic_id)?;
    Ok(sync_directory_blocking(path.parent().expect("it lies in a data directory"))?)
}

impl Partition {
    /// Its copy in another data directory, if it is on its way there.
    pub fn future_replica(&self) -> Option<FutureReplica> {
        let moving = self.moving.borrow().clone()?;
        let offset_lag = (self.log_end_offset() - moving.end_offset.get()).max(0);
        Some(FutureReplica { directory_id: moving.to.directory_id, size_bytes: moving.size_bytes(), offset_lag })
    }

    /// A move that is under way is not wanted any more: when this returns, no later life finds its copy. One that counts already comes to its end first. False where the copy cannot be
    /// put aside.
    pub(super) async fn stop_moving(&self) -> bool {
        let Some(moving) = self.moving.borrow().clone() else { return true };
        if moving.counts.get() {
            let rung = moving.ended.notified();
            if self.moving.borrow().is_some() {
                rung.await;
            }
            return true;
        }
        moving.is_cancelled.set(true);
        self.end_move(&moving);
        self.discard_copy(&moving.to.path).await
    }

    /// The directory gets the name of something deleted at once and goes in the background.
    async fn discard_copy(&self, path: &Path) -> bool {
        let (copy, topic, number) = (path.to_path_buf(), self.topic.clone(), self.id.partition);
        match rt::blocking(move || directories::retire_partition_blocking(&copy, &topic, number)).await {
            Ok(retired) => {
                self.environment.graveyard.bury([Grave::Directory(retired)], Duration::ZERO);
                true
            }
            Err(error) => {
                tracing::error!(copy = %path.display(), %error, "the copy of a replica that does not move any more stays; remove it before the next start");
                false
            }
        }
    }

    async fn empty_copy(&self, moving: &Move) -> std::result::Result<(), DirectoryError> {
        let (path, topic_id) = (moving.to.path.clone(), self.id.topic_id);
        rt::blocking(move || empty_blocking(&path, topic_id)).await
    }

    fn end_move(&self, moving: &Rc<Move>) {
        let mut current = self.moving.borrow_mut();
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, moving)) {
            *current = None;
        }
        moving.ended.notify_all();
    }

    /// Whether the data directory of `path` can take so much more, beside what the journal still has to place there.
    async fn check_space(&self, path: &Path, bytes: u64) -> Result<()> {
        let directory = path.parent().expect("it lies in a data directory").to_path_buf();
        let waiting_bytes = self.environment.journal.waiting_bytes_in(&directory);
        let usable_bytes = rt::file::space(directory).await?.usable_bytes;
        let needed_bytes = bytes + waiting_bytes + RESERVE_BYTES;
        if usable_bytes < needed_bytes { Err(MoveError::NoSpace { needed_bytes, usable_bytes }) } else { Ok(()) }
    }

    fn is_wanted_elsewhere(&self, moving: &Move) -> bool {
        !moving.is_cancelled.get() && !self.is_deleted.get()
    }

    fn check_wanted(&self, moving: &Move) -> Result<()> {
        let has_failed = self.failure.borrow().is_some();
        let goes_on = self.is_wanted_elsewhere(moving) && !has_failed && !self.environment.is_stopping.get();
        if goes_on { Ok(()) } else { Err(MoveError::Stopped) }
    }

    /// The whole move.
    async fn move_away(&self, moving: &Move, bytes_per_second: f64) -> Result<()> {
        let begun = std::time::Instant::now();
        self.check_wanted(moving)?;
        if !moving.begins_empty {
            self.empty_copy(moving).await.map_err(file_error)?;
        }
        let mut pace = Pace::new(bytes_per_second);
        let slice_bytes = round_up_to_block((bytes_per_second / 4.0).clamp(SLICE_BYTES_MIN as f64, SLICE_BYTES_MAX as f64) as u64);
        // As often as it takes: the pass over what has been placed meanwhile is never forced to be the last.
        loop {
            self.copy_placed(moving, slice_bytes, &mut pace).await?;
            if self.left_bytes(moving) > REST_BYTES {
                continue;
            }
            if self.segments_without_indexes(moving) <= REST_SEGMENTS_MAX {
                match self.change_place(moving).await {
                    Err(MoveError::NotYet) => {}
                    outcome => break outcome?,
                }
            }
            rt::sleep(RETRY_DELAY).await;
        }
        tracing::info!(
            topic = %self.topic,
            partition = self.id.partition,
            directory = %self.directory().display(),
            bytes = moving.size_bytes(),
            milliseconds = begun.elapsed().as_millis() as u64,
            "the replica has moved"
        );
        Ok(())
    }

    /// The segments of the log with what is placed of each, oldest first, and the offset at which the placed part ends.
    fn placed_segments(&self) -> (Vec<(SegmentBook, u32)>, i64) {
        let placed = self.placed.get();
        let log = self.log.borrow();
        let books = log.segments().iter().take_while(|book| book.base_offset <= placed.segment_base);
        let size_bytes = |book: &SegmentBook| if book.base_offset == placed.segment_base { placed.size_bytes } else { book.size_bytes };
        (books.map(|book| (*book, size_bytes(book))).collect(), placed.end_offset)
    }

    fn left_bytes(&self, moving: &Move) -> u64 {
        let left =
            |(book, size_bytes): &(SegmentBook, u32)| u64::from(size_bytes.saturating_sub(moving.copied(book.base_offset).size_bytes));
        self.placed_segments().0.iter().map(left).sum()
    }

    fn segments_without_indexes(&self, moving: &Move) -> usize {
        self.placed_segments().0.iter().filter(|(book, _)| !moving.copied(book.base_offset).has_indexes).count()
    }

    /// One pass: everything that is placed now and not copied yet.
    async fn copy_placed(&self, moving: &Move, slice_bytes: u64, pace: &mut Pace) -> Result<()> {
        let (segments, end_offset) = self.placed_segments();
        for (index, (book, size_bytes)) in segments.iter().enumerate() {
            self.check_wanted(moving)?;
            if moving.copied(book.base_offset).size_bytes < *size_bytes {
                self.copy_log(moving, book, *size_bytes, slice_bytes, pace).await?;
            }
            if self.has_final_indexes(book.base_offset) && !moving.copied(book.base_offset).has_indexes {
                self.copy_indexes(moving, book.base_offset).await?;
            }
            moving.end_offset.set(segments.get(index + 1).map_or(end_offset, |(next, _)| next.base_offset));
        }
        Ok(())
    }

    /// Nobody writes beside that segment any more.
    fn has_final_indexes(&self, base_offset: i64) -> bool {
        let unsettled = self.placed.get().segment_base.min(self.oldest_unwritten_segment());
        let has_aborted = self.aborted.borrow().iter().any(|(base, _)| *base == base_offset);
        base_offset < unsettled && !has_aborted && !self.has_unchecked_segments()
    }

    /// Copies the batches of a segment from where the copy ends up to `size_bytes`, flushed. A segment that retention has let go of meanwhile is left out.
    async fn copy_log(&self, moving: &Move, book: &SegmentBook, size_bytes: u32, slice_bytes: u64, pace: &mut Pace) -> Result<()> {
        let left_bytes = size_bytes.saturating_sub(moving.copied(book.base_offset).size_bytes);
        self.check_space(&moving.to.path, u64::from(left_bytes)).await?;
        let direct = self.environment.reader.is_direct();
        let name = LogFileKind::Log.name(book.base_offset);
        let source = match File::open(self.directory().join(&name), OpenMode::READ.direct(direct)).await {
            Err(error) if error.is_not_found() && self.log.borrow().segments().get(book.base_offset).is_none() => return Ok(()),
            source => source?,
        };
        let target = File::open(moving.to.path.join(&name), OpenMode::CREATE.direct(direct)).await?;
        let size = u64::from(size_bytes);
        // Whole blocks: the last of them is written again when more is copied.
        let mut position = round_down_to_block(u64::from(moving.copied(book.base_offset).size_bytes));
        while position < size {
            self.check_wanted(moving)?;
            let expected = slice_bytes.min(size - position) as usize;
            let reading = source.read_at(round_up_to_block(expected as u64) as usize, position);
            let mut bytes = slow::timed(&source, "read of a replica that moves", reading).await?;
            if bytes.len() < expected {
                let cause = FileErrorCause::Short { expected, actual: bytes.len() };
                return Err(FileError { operation: Operation::Read, path: source.path().into(), position: Some(position), cause }.into());
            }
            bytes.pad_to(BLOCK_BYTES);
            let writing = target.write_growing_at(bytes.freeze(), position, Durability::None);
            slow::timed(&target, "write of a replica that moves", writing).await?;
            position += expected as u64;
            moving.note(book.base_offset, |copied| copied.size_bytes = position as u32);
            pace.spend(expected, || self.check_wanted(moving).is_ok()).await;
        }
        target.set_len(size).await?;
        slow::timed(&target, "flush of a replica that moves", target.sync_all()).await?;
        keep_modification_time(source, target).await;
        Ok(())
    }

    /// Copies what lies beside a segment.
    async fn copy_indexes(&self, moving: &Move, base_offset: i64) -> Result<()> {
        self.copy_small_files(moving, INDEX_KINDS.map(|kind| kind.name(base_offset)).to_vec()).await?;
        moving.note(base_offset, |copied| copied.has_indexes = true);
        Ok(())
    }

    /// Those that exist.
    async fn copy_small_files(&self, moving: &Move, names: Vec<String>) -> Result<()> {
        let (from, to) = (self.directory(), moving.to.path.clone());
        let from = from.to_path_buf();
        let copying = rt::blocking(move || names.iter().try_for_each(|name| copy_file_blocking(&from.join(name), &to.join(name))));
        Ok(slow::timed_in(&moving.to.path, "copy of the indexes of a replica that moves", copying).await?)
    }

    /// The last step, with placement and upkeep held.
    async fn change_place(&self, moving: &Move) -> Result<()> {
        let turn = self.upkeep.turn.acquire(1).await;
        let held = self.environment.placement.hold().await;
        if self.left_bytes(moving) > REST_BYTES_MAX {
            return Err(MoveError::NotYet);
        }
        self.copy_placed(moving, SLICE_BYTES_MAX, &mut Pace::new(f64::MAX)).await?;
        self.complete_copy(moving).await?;

        let left = self.home();
        let home = PartitionHome { directory_id: moving.to.directory_id, name: left.name.clone() };
        let directory = moving.to.path.with_file_name(&home.name);
        let place = directory.clone();
        if rt::blocking(move || place.exists()).await {
            return Err(MoveError::Occupied(directory));
        }
        self.check_wanted(moving)?;
        let name = moving.to.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let payload = ReplicaMove { from: left.directory_id, future_name: name, to: home.clone() }.encode();
        // From its reserve: placement, which would make room, is held.
        let moved = self.environment.journal.append_upkeep(&EntryHeader::moved(self.id), &[&payload])?;
        moving.counts.set(true);
        self.environment.journal.wait_durable(moved.sequence).await?;
        let copy = moving.to.path.clone();
        let (place, named) = rt::blocking(move || name_blocking(copy, directory)).await;
        let former = self.go_on_in(home, Rc::from(place));
        if let Err(error) = named {
            // The next start does it. Until then the partition, and the disk that it is on by now, cannot be trusted with more.
            let failure = JournalError::Failed { path: error.path.clone(), cause: error.to_string() };
            self.environment.journal.fail_partition(&self.id, &failure);
            return Err(error.into());
        }
        drop((held, turn));
        self.put_aside(&former).await;
        self.environment.journal.let_go_of(&self.id, moved.sequence);
        Ok(())
    }

    /// What is still missing in the copy: the indexes that were being written, snapshots, leader epochs. And what is too much goes: segments that the log has let go of.
    async fn complete_copy(&self, moving: &Move) -> Result<()> {
        let (segments, _) = self.placed_segments();
        for (book, _) in &segments {
            if !moving.copied(book.base_offset).has_indexes {
                self.copy_small_files(moving, INDEX_KINDS.map(|kind| kind.name(book.base_offset)).to_vec()).await?;
            }
        }
        let (from, to) = (self.directory().to_path_buf(), moving.to.path.clone());
        let bases: Vec<i64> = segments.iter().map(|(book, _)| book.base_offset).collect();
        rt::blocking(move || {
            for name in list_directory_blocking(&from)? {
                let is_snapshot = matches!(LogFileKind::parse(&name), Some((LogFileKind::ProducerSnapshot, _)));
                if name == LEADER_EPOCH_CHECKPOINT || (is_snapshot && !to.join(&name).exists()) {
                    copy_file_blocking(&from.join(&name), &to.join(&name))?;
                }
            }
            for name in list_directory_blocking(&to)? {
                if matches!(LogFileKind::parse(&name), Some((kind, base)) if kind != LogFileKind::ProducerSnapshot && !bases.contains(&base)) {
                    rt::file::remove_blocking(to.join(name))?;
                }
            }
            Ok::<(), FileError>(())
        })
        .await?;
        Ok(sync_directory(moving.to.path.clone()).await?)
    }

    /// From now on the partition is in its new place. Returns the old one.
    fn go_on_in(&self, home: PartitionHome, directory: Rc<Path>) -> Rc<Path> {
        let disk = self.environment.disks.of(home.directory_id, &directory);
        self.environment.journal.relocate(&self.id, directory.clone());
        let former = self.site.replace(Site { home, directory, disk });
        // Plans that were made in the old place are made again, and files are opened in the new one.
        self.layout.set(self.layout.get() + 1);
        self.environment.reader.forget(&self.id, None);
        self.is_changed.set(true);
        former.directory
    }

    async fn put_aside(&self, directory: &Path) {
        let (path, topic, number) = (directory.to_path_buf(), self.topic.clone(), self.id.partition);
        match rt::blocking(move || directories::retire_partition_blocking(&path, &topic, number)).await {
            Ok(retired) => self.environment.graveyard.bury([Grave::Directory(retired)], self.keeping.get().delete_delay),
            Err(error) => {
                tracing::error!(directory = %directory.display(), %error, "the directory that a replica has left stays; remove it before the next start")
            }
        }
    }
}

/// Gives the copy its name, flushed. Tells where it is, even if that fails.
fn name_blocking(copy: PathBuf, name: PathBuf) -> (PathBuf, std::result::Result<(), FileError>) {
    if let Err(error) = rename_blocking(&copy, &name) {
        return (copy, Err(error));
    }
    let synced = sync_directory_blocking(name.parent().expect("it lies in a data directory"));
    (name, synced)
}

/// Copies a small file and flushes it; one that does not exist is left out.
fn copy_file_blocking(from: &Path, to: &Path) -> std::result::Result<(), FileError> {
    let source = match File::open_blocking(from, OpenMode::READ) {
        Err(error) if error.is_not_found() => return Ok(()),
        source => source?,
    };
    let bytes = source.read_at_blocking(source.length()? as usize, 0)?;
    let target = File::open_blocking(to, OpenMode { truncate: true, ..OpenMode::CREATE })?;
    target.write_at_blocking(&bytes, 0, Durability::None)?;
    target.sync_all_blocking()
}

/// Of records without timestamps it tells how old they are.
async fn keep_modification_time(source: File, target: File) {
    let modified = move || std::fs::metadata(source.path())?.modified();
    let set = move |time| std::fs::File::options().write(true).open(target.path())?.set_modified(time);
    // A hint for retention; a filesystem that does not take it costs nothing but age.
    let _ = rt::blocking(move || modified().and_then(set)).await;
}

fn file_error(error: DirectoryError) -> MoveError {
    match error {
        DirectoryError::File(error) => MoveError::File(error),
        DirectoryError::Content { path, .. } | DirectoryError::OtherTopic { path, .. } => MoveError::Occupied(path),
    }
}
