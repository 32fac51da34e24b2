//! Moving a replica from one data directory of the broker to another, beside live traffic (KIP-113).
//!
//! What placement has brought into the segment files is copied, slice by slice, into a directory of its own in the other data directory (`<topic>-<partition>.<unique>-future`, as
//! Kafka names it), while appends, reads and retention go on: what is newer lies in the journal and in memory, whatever directory it will be placed in. When little is left, placement
//! is held for a moment, the rest is copied and flushed, and the replica changes its place.
//!
//! The order makes a crash harmless: the copy is flushed, the journal's `Moved` entry is durable, and from then on the new place counts; the future directory gets its name, the
//! partition goes on there, and only then the old directory is put aside. A start that finds the entry does what is left of that (disk::recovery::moves); one that finds a future
//! directory alone begins the copy anew. One move at a time on each shard. Compaction lets a log in peace that moves, because it would exchange what has been copied.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use uuid::Uuid;

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
use crate::log::SegmentBook;
use crate::log::file_names::{LEADER_EPOCH_CHECKPOINT, LogFileKind, future_directory};
use crate::rt;
use crate::rt::file::{
    Durability, File, FileError, FileErrorCause, OpenMode, Operation, list_directory_blocking, rename_blocking, sync_directory,
    sync_directory_blocking,
};
use crate::rt::sync::Notify;

/// Bytes read and written at once, fewer where the rate is low.
const SLICE_BYTES_MAX: u64 = 1 << 20;
const SLICE_BYTES_MIN: u64 = 64 << 10;
/// With no more than this left, placement is held for the rest.
const REST_BYTES: u64 = 1 << 20;
/// Passes over what has been placed meanwhile, before placement is held whatever is left.
const PASSES_MAX: u32 = 20;
/// A ring that has no room for the entry has it soon.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Files beside a segment's batches.
const INDEX_KINDS: [LogFileKind; 4] =
    [LogFileKind::OffsetIndex, LogFileKind::TimeIndex, LogFileKind::TransactionIndex, LogFileKind::ProducerSnapshot];

/// Why a replica does not begin to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveRefusal {
    /// The partition is not on this shard.
    NotHere,
    /// One of the two data directories does not work.
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
#[derive(Debug)]
pub(super) struct Move {
    to: FutureDirectory,
    is_cancelled: Cell<bool>,
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
#[derive(Default)]
pub(super) struct MoveQueue {
    waiting: RefCell<VecDeque<(Rc<Partition>, Rc<Move>)>>,
    bell: Notify,
}

/// Why a move ended early.
#[derive(Debug)]
enum MoveError {
    /// It is not wanted any more, or the broker stops.
    Stopped,
    /// The journal has no room for the entry at present.
    NoRoomYet,
    /// The other data directory has a directory of that name.
    Occupied(PathBuf),
    File(FileError),
    Journal(JournalError),
}

impl std::fmt::Display for MoveError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MoveError::Stopped => formatter.write_str("it is not wanted any more"),
            MoveError::NoRoomYet => formatter.write_str("the journal has no room"),
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
            JournalError::Full => MoveError::NoRoomYet,
            error => MoveError::Journal(error),
        }
    }
}

type Result<T> = std::result::Result<T, MoveError>;

impl Move {
    fn new(to: FutureDirectory) -> Rc<Self> {
        Rc::new(Self { to, is_cancelled: Cell::new(false), copied: RefCell::default(), end_offset: Cell::new(0) })
    }

    /// The directory of the copy.
    #[cfg(test)]
    pub fn copy_path(&self) -> &Path {
        &self.to.path
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
}

impl Partitions {
    /// Begins to move a partition to that data directory; a move elsewhere that is under way ends. Nothing happens if it is there already, or on its way there.
    pub async fn move_replica(&self, id: &TopicIdPartition, target: &DataDirectory) -> std::result::Result<(), MoveRefusal> {
        let partition = self.get(id).ok_or(MoveRefusal::NotHere)?;
        if partition.moving.borrow().as_ref().is_some_and(|moving| moving.to.directory_id == target.id) {
            return Ok(());
        }
        partition.stop_moving();
        let path = target.path.join(future_directory(&partition.topic, id.partition, rt::random_uuid()));
        if partition.disk().has_failed() || self.disk_of(target.id, &path).has_failed() {
            return Err(MoveRefusal::Storage);
        }
        if partition.home().directory_id == target.id {
            return Ok(());
        }
        let to = FutureDirectory { directory_id: target.id, path: path.clone() };
        let topic_id = id.topic_id;
        if let Err(error) = rt::blocking(move || prepare_blocking(&path, topic_id)).await {
            tracing::error!(topic = %partition.topic, partition = id.partition, %error, "a replica cannot begin to move");
            return Err(MoveRefusal::Storage);
        }
        // Another request, or the topic's deletion, may have come meanwhile; the later one counts, and a copy that is not wanted goes when its turn comes.
        partition.stop_moving();
        let moving = Move::new(to);
        if partition.is_deleted.get() {
            moving.is_cancelled.set(true);
        } else {
            partition.moving.replace(Some(moving.clone()));
        }
        self.moves().push(partition, moving);
        Ok(())
    }

    /// Goes on with a move that an earlier life has begun.
    pub(super) fn resume_move(&self, partition: &Rc<Partition>, to: FutureDirectory) {
        let moving = Move::new(to);
        partition.moving.replace(Some(moving.clone()));
        self.moves().push(partition.clone(), moving);
    }

    async fn carry_out(&self, partition: &Rc<Partition>, moving: &Rc<Move>) {
        let _turn = self.move_turn().acquire(1).await;
        // A round of compaction that is under way ends first; later ones pass over a log that moves.
        drop(self.cleaner_turn().acquire(1).await);
        let outcome = partition.move_away(moving, self.move_bytes_per_second()).await;
        partition.end_move(moving);
        let Err(error) = outcome else { return };
        if !matches!(error, MoveError::Stopped) {
            tracing::error!(topic = %partition.topic, partition = partition.id.partition, to = %moving.to.path.display(), %error, "the replica stays where it is");
        }
        let goes_on_later = self.is_stopping() && partition.is_wanted_elsewhere(moving);
        let (path, topic_id) = (moving.to.path.clone(), partition.id.topic_id);
        let cleared = if goes_on_later {
            // The next start, of whatever broker, begins anew.
            rt::blocking(move || prepare_blocking(&path, topic_id)).await
        } else {
            rt::file::remove_directory(path).await.map_err(DirectoryError::from)
        };
        if let Err(error) = cleared {
            tracing::warn!(%error, "what was copied of a replica stays until the next start");
        }
    }
}

/// Its own directory in the other data directory, empty but for the file that says whose it is.
fn prepare_blocking(path: &Path, topic_id: Uuid) -> std::result::Result<(), DirectoryError> {
    rt::file::create_directory_blocking(path)?;
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

    /// A move that is under way is not wanted any more.
    pub(super) fn stop_moving(&self) {
        if let Some(moving) = self.moving.take() {
            moving.is_cancelled.set(true);
        }
    }

    fn end_move(&self, moving: &Rc<Move>) {
        let mut current = self.moving.borrow_mut();
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, moving)) {
            *current = None;
        }
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
        let (path, topic_id) = (moving.to.path.clone(), self.id.topic_id);
        rt::blocking(move || prepare_blocking(&path, topic_id)).await.map_err(file_error)?;
        let mut pace = Pace::new(bytes_per_second);
        let slice_bytes = round_up_to_block((bytes_per_second / 4.0).clamp(SLICE_BYTES_MIN as f64, SLICE_BYTES_MAX as f64) as u64);
        for _ in 0..PASSES_MAX {
            self.copy_placed(moving, slice_bytes, &mut pace).await?;
            if self.left_bytes(moving) <= REST_BYTES {
                break;
            }
        }
        while let Err(error) = self.change_place(moving).await {
            if !matches!(error, MoveError::NoRoomYet) {
                return Err(error);
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
            let mut bytes = source.read_at(round_up_to_block(expected as u64) as usize, position).await?;
            if bytes.len() < expected {
                let cause = FileErrorCause::Short { expected, actual: bytes.len() };
                return Err(FileError { operation: Operation::Read, path: source.path().into(), position: Some(position), cause }.into());
            }
            bytes.pad_to(BLOCK_BYTES);
            target.write_growing_at(bytes.freeze(), position, Durability::None).await?;
            position += expected as u64;
            moving.note(book.base_offset, |copied| copied.size_bytes = position as u32);
            pace.spend(expected).await;
        }
        target.set_len(size).await?;
        target.sync_all().await?;
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
        Ok(rt::blocking(move || names.iter().try_for_each(|name| copy_file_blocking(&from.join(name), &to.join(name)))).await?)
    }

    /// The last step, with placement and upkeep held.
    async fn change_place(&self, moving: &Move) -> Result<()> {
        let turn = self.upkeep.turn.acquire(1).await;
        let held = self.environment.placement.hold().await;
        self.copy_placed(moving, SLICE_BYTES_MAX, &mut Pace::new(f64::MAX)).await?;
        self.complete_copy(moving).await?;

        let left = self.home();
        let home = PartitionHome { directory_id: moving.to.directory_id, name: left.name.clone() };
        let directory = moving.to.path.with_file_name(&home.name);
        if directory.exists() {
            return Err(MoveError::Occupied(directory));
        }
        self.check_wanted(moving)?;
        let name = moving.to.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let payload = ReplicaMove { from: left.directory_id, future_name: name, to: home.clone() }.encode();
        // From its reserve: placement, which would make room, is held.
        let moved = self.environment.journal.append_upkeep(&EntryHeader::moved(self.id), &[&payload])?;
        self.environment.journal.wait_durable(moved.sequence).await?;
        let (from, to) = (moving.to.path.clone(), directory.clone());
        if let Err(error) = rt::blocking(move || name_blocking(&from, &to)).await {
            // The entry counts, so the next start does it.
            let failure = JournalError::Failed { path: error.path.clone(), cause: error.to_string() };
            self.environment.journal.fail_partition(&self.id, &failure);
            return Err(error.into());
        }
        let former = self.go_on_in(home, Rc::from(directory));
        drop((held, turn));
        self.put_aside(&former).await;
        self.environment.journal.let_go_of(moved.sequence);
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

/// Gives a directory its name, flushed.
fn name_blocking(from: &Path, to: &Path) -> std::result::Result<(), FileError> {
    rename_blocking(from, to)?;
    sync_directory_blocking(to.parent().expect("it lies in a data directory"))
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
