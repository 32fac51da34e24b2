//! All partitions of a shard: opened after a start, made, found, removed, and closed at a clean stop.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hashbrown::HashMap;
use uuid::Uuid;

use super::Partition;
use super::cleaner::{self, CleanerOptions};
use super::disks::{self, Disk, Disks};
use super::durability::Touched;
use super::moving::{self, MoveQueue};
use super::retention::{self, RetentionTimes};
use super::upkeep::UpkeepQueue;
use crate::cluster::TopicIdPartition;
use crate::config::TopicSettings;
use crate::disk::checkpoint::{PartitionHome, PlacedEnd};
use crate::disk::directories::{self, DataDirectory, DirectoryError};
use crate::disk::graveyard::{Grave, Graveyard};
use crate::disk::journal::{EntryHeader, GroupSequence, Journal, JournalError, Room};
use crate::disk::placement::Placement;
use crate::disk::reader::Reader;
use crate::disk::recovery::RecoveredPartition;
use crate::disk::tail::TailCache;
use crate::log::file_names::partition_directory;
use crate::rt;
use crate::rt::Task;
use crate::rt::sync::{Budget, Notify};

/// Partitions whose files are closed at once at a clean stop: they mostly wait for helper threads.
const CLOSE_AT_ONCE: usize = 8;

/// How much of a shard's resources its partitions may hold.
#[derive(Clone, Copy, Debug)]
pub struct PartitionsOptions {
    /// Memory of the tail cache; more only while so much waits for placement.
    pub tail_bytes_max: usize,
    /// Memory of index files.
    pub index_bytes_max: usize,
    /// Files of segments that are kept open for readers.
    pub files_open_max: usize,
    /// Whether the data directories' filesystems read past the page cache.
    pub direct: bool,
    /// When old segments are looked for.
    pub retention: RetentionTimes,
    /// Index files and snapshots of the partitions that are opened are whole, as a clean stop has left them.
    pub files_are_whole: bool,
    /// What compaction may use.
    pub cleaner: CleanerOptions,
    /// How fast a replica is copied to another data directory.
    pub move_bytes_per_second: f64,
}

impl Default for PartitionsOptions {
    fn default() -> Self {
        Self {
            tail_bytes_max: 64 << 20,
            index_bytes_max: 16 << 20,
            files_open_max: 1024,
            direct: true,
            retention: RetentionTimes::default(),
            files_are_whole: false,
            cleaner: CleanerOptions::default(),
            move_bytes_per_second: f64::MAX,
        }
    }
}

/// A partition to be made.
#[derive(Clone, Debug)]
pub struct NewPartition {
    pub id: TopicIdPartition,
    pub topic: Arc<str>,
    /// The data directory it is to lie in, and the id of that.
    pub data_directory: PathBuf,
    pub directory_id: Uuid,
}

/// What all partitions of a shard share.
pub(super) struct Environment {
    pub journal: Rc<Journal>,
    pub placement: Rc<Placement>,
    pub reader: Reader,
    pub tail_cache: TailCache,
    pub touched: Touched,
    /// Those whose records count when they are written.
    pub touched_when_written: Touched,
    pub upkeep: Rc<UpkeepQueue>,
    pub graveyard: Rc<Graveyard>,
    pub disks: Rc<Disks>,
    /// Whether the files of partitions that are opened are whole.
    pub files_are_whole: bool,
    /// The shard takes no more appends.
    pub is_stopping: Cell<bool>,
}

impl Environment {
    /// Calls `append` until it is not refused for want of room, waiting behind those who came before. Whenever `bell` rings, who waits asks out of turn, as it may be refused for
    /// another reason by then. The outer error is the journal's, when it takes nothing any more.
    pub async fn with_room<T, E>(
        &self,
        partition: &TopicIdPartition,
        size_bytes: usize,
        bell: &Notify,
        append: impl Fn() -> Result<T, E>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<Result<T, E>, JournalError> {
        let ask = || Some(append()).filter(|appended| !appended.as_ref().is_err_and(&is_full));
        if let Some(appended) = ask() {
            return Ok(appended);
        }
        let mut waited = wait_unless_answered(self.journal.wait_for_room(partition, size_bytes), bell, ask).await?;
        loop {
            let room = match waited {
                Waited::Answer(appended) => {
                    // Who comes next in line may fit.
                    self.journal.grant_room();
                    return Ok(appended);
                }
                Waited::Room(room) => room,
            };
            let appended = room.enter(&append);
            if !appended.as_ref().is_err_and(&is_full) {
                return Ok(appended);
            }
            waited = wait_unless_answered(self.journal.wait_longer(room, size_bytes), bell, ask).await?;
        }
    }

    /// Appends an entry of the partition's own, waiting for room behind those who came before. `and_then` goes with it: nothing comes between the two.
    pub async fn append_entry(&self, header: EntryHeader, payload: &[u8], and_then: impl Fn()) -> Result<GroupSequence, JournalError> {
        let appended = self.append_entry_if(header, payload, || true, and_then).await?;
        Ok(appended.expect("it was wanted"))
    }

    /// As `append_entry`, unless `is_wanted` says when there is room that it is not wanted any more.
    pub async fn append_entry_if(
        &self,
        header: EntryHeader,
        payload: &[u8],
        is_wanted: impl Fn() -> bool,
        and_then: impl Fn(),
    ) -> Result<Option<GroupSequence>, JournalError> {
        let append = || {
            if !is_wanted() {
                return Ok(None);
            }
            let written = match self.journal.append(&header, &[payload]) {
                Err(JournalError::Full) if header.kind.is_urgent() => self.journal.append_release(&header, &[payload])?,
                written => written?,
            };
            and_then();
            Ok(Some(written.sequence))
        };
        self.with_room(&header.partition, payload.len(), &Notify::new(), append, |error| *error == JournalError::Full).await?
    }
}

/// How a wait for room has ended.
enum Waited<T> {
    Room(Room),
    Answer(T),
}

/// Waits for `room`, but no longer than until `ask` has an answer when `bell` rings.
async fn wait_unless_answered<T>(
    room: impl Future<Output = Result<Room, JournalError>>,
    bell: &Notify,
    ask: impl Fn() -> Option<T>,
) -> Result<Waited<T>, JournalError> {
    let mut room = pin!(room);
    let mut rung = bell.notified();
    std::future::poll_fn(|context| {
        if let Poll::Ready(room) = room.as_mut().poll(context) {
            return Poll::Ready(room.map(Waited::Room));
        }
        while Pin::new(&mut rung).poll(context).is_ready() {
            rung = bell.notified();
            if let Some(answer) = ask() {
                return Poll::Ready(Ok(Waited::Answer(answer)));
            }
        }
        Poll::Pending
    })
    .await
}

/// The partitions that a shard owns.
pub struct Partitions {
    environment: Rc<Environment>,
    partitions: RefCell<HashMap<TopicIdPartition, Rc<Partition>, foldhash::fast::RandomState>>,
    /// The task of upkeep, until a clean stop.
    upkeep: RefCell<Option<Task<()>>>,
    cleaner: Cell<CleanerOptions>,
    /// One round of compaction at a time.
    cleaner_turn: Budget,
    moves: MoveQueue,
    /// One move at a time.
    move_turn: Budget,
    move_bytes_per_second: Cell<f64>,
}

impl Partitions {
    /// Begins without a partition, on a journal that has just been started; its task of upkeep runs from now on.
    pub fn new(journal: Rc<Journal>, placement: Rc<Placement>, options: PartitionsOptions) -> Rc<Self> {
        let environment = Rc::new(Environment {
            journal: journal.clone(),
            placement,
            reader: Reader::new(options.files_open_max, options.index_bytes_max, options.direct),
            tail_cache: TailCache::new(options.tail_bytes_max),
            touched: Touched::default(),
            touched_when_written: Touched::default(),
            upkeep: Rc::default(),
            graveyard: Rc::default(),
            disks: Rc::default(),
            files_are_whole: options.files_are_whole,
            is_stopping: Cell::new(false),
        });
        let told = Rc::downgrade(&environment);
        journal.on_durable(Box::new(move |durable| {
            if let Some(environment) = told.upgrade() {
                environment.touched.reached(durable);
            }
        }));
        let told = Rc::downgrade(&environment);
        journal.on_written(Box::new(move |written| {
            if let Some(environment) = told.upgrade() {
                environment.touched_when_written.reached(written);
            }
        }));
        let upkeep = RefCell::new(Some(rt::spawn_background(environment.upkeep.clone().run())));
        rt::spawn_background(environment.graveyard.clone().run()).detach();
        rt::spawn_background(disks::watch(Rc::downgrade(&environment.disks), Rc::downgrade(&journal))).detach();
        let cleaner = Cell::new(options.cleaner);
        let partitions = Rc::new(Self {
            environment,
            partitions: RefCell::default(),
            upkeep,
            cleaner,
            cleaner_turn: Budget::new(1),
            moves: MoveQueue::default(),
            move_turn: Budget::new(1),
            move_bytes_per_second: Cell::new(options.move_bytes_per_second),
        });
        retention::start(&partitions, options.retention);
        cleaner::start(&partitions);
        moving::start(&partitions);
        partitions
    }

    /// Takes over a partition as recovery has left it. Reads no file.
    pub fn open(&self, recovered: RecoveredPartition, topic: Arc<str>, settings: &TopicSettings) -> Rc<Partition> {
        let (placed, moving_to) = (recovered.placed, recovered.moving_to.clone());
        let partition = Partition::from_recovered(&self.environment, recovered, topic, settings);
        self.register(&partition, placed);
        if let Some(to) = moving_to {
            self.resume_move(&partition, to);
        }
        partition
    }

    /// Makes a partition: its directory first, then the journal knows of it. One that exists is given back as it is.
    pub async fn create(&self, new: NewPartition, settings: &TopicSettings) -> Result<Rc<Partition>, CreateError> {
        if let Some(existing) = self.get(&new.id) {
            return Ok(existing);
        }
        let NewPartition { id, topic, data_directory, directory_id } = new;
        let name = topic.clone();
        let directory =
            rt::blocking(move || directories::create_partition_blocking(&data_directory, &name, id.partition, id.topic_id)).await?;
        if let Some(existing) = self.get(&id) {
            return Ok(existing);
        }
        let home = PartitionHome { directory_id, name: partition_directory(&topic, id.partition) };
        let payload = home.encode();
        let partition = Partition::new_empty(&self.environment, id, topic, home, Rc::from(directory), settings);
        self.register(&partition, PlacedEnd { segment_base: 0, size_bytes: 0, end_offset: 0 });
        // Whatever is appended to it comes after this in the journal, so nobody has to wait until it is durable.
        self.environment.append_entry(EntryHeader::opened(id, 0), &payload, || {}).await?;
        Ok(partition)
    }

    fn register(&self, partition: &Rc<Partition>, placed: PlacedEnd) {
        self.environment.journal.register(partition.id, partition.clone(), partition.directory(), placed);
        let previous = self.partitions.borrow_mut().insert(partition.id, partition.clone());
        assert!(previous.is_none(), "partition {} is opened once", partition.id);
    }

    pub fn get(&self, id: &TopicIdPartition) -> Option<Rc<Partition>> {
        self.partitions.borrow().get(id).cloned()
    }

    /// All of them, in no particular order.
    pub fn all(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.partitions.borrow().len()
    }

    /// Removes a partition with all its records. When this returns, its directory has a name that marks it as deleted, and the topic's name is free again; the files go in the
    /// background.
    pub async fn delete(&self, id: &TopicIdPartition) -> Result<(), CreateError> {
        let Some(partition) = self.partitions.borrow_mut().remove(id) else { return Ok(()) };
        partition.is_deleted.set(true);
        partition.stop_moving().await;
        partition.waiters.fire_all();
        let deleted = self.environment.append_entry(EntryHeader::deleted(*id), &[], || {}).await?;
        // A power failure must not find the directory under its new name while the journal still counts on the old one: the next start would miss it and refuse.
        self.environment.journal.wait_durable(deleted).await?;
        // Nobody may write into the directory any more when it gets its new name: another partition may soon bear the old one.
        self.environment.placement.settled().await;
        let _turn = partition.upkeep.turn.acquire(1).await;
        self.environment.tail_cache.remove(&partition.tail);
        self.environment.reader.forget(id, None);
        let (directory, topic, number) = (partition.directory().to_path_buf(), partition.topic.clone(), id.partition);
        let retired = rt::blocking(move || directories::retire_partition_blocking(&directory, &topic, number)).await?;
        self.environment.graveyard.bury([Grave::Directory(retired)], partition.keeping.get().delete_delay);
        // To let go of a million producers takes a while; nobody on this core waits for it.
        let producers = std::mem::take(partition.log.borrow_mut().producers_mut());
        rt::blocking(move || drop(producers)).await;
        Ok(())
    }

    /// Removes directories of partitions that an earlier life has deleted.
    pub fn remove_directories(&self, directories: Vec<PathBuf>) {
        self.environment.graveyard.bury(directories.into_iter().map(Grave::Directory), Duration::ZERO);
    }

    /// Settings of the compactor have changed.
    pub fn set_cleaner(&self, options: CleanerOptions) {
        self.cleaner.set(options);
    }

    /// The rate of moves between data directories has changed; it counts from the next move on.
    pub fn set_move_rate(&self, bytes_per_second: f64) {
        self.move_bytes_per_second.set(bytes_per_second);
    }

    pub(super) fn moves(&self) -> &MoveQueue {
        &self.moves
    }

    pub(super) fn move_turn(&self) -> &Budget {
        &self.move_turn
    }

    pub(super) fn move_bytes_per_second(&self) -> f64 {
        self.move_bytes_per_second.get()
    }

    /// From now on it is known whether there is room in that data directory, also while no partition lies there.
    pub fn look_after(&self, directory: &DataDirectory) {
        self.disk_of(directory.id, &directory.path.join("any"));
    }

    /// Whether what lies in that data directory takes records: there is room, and it works.
    pub fn takes_records_in(&self, directory: &DataDirectory) -> bool {
        self.disk_of(directory.id, &directory.path.join("any")).takes_records()
    }

    /// The state of a data directory; `directory` lies in it.
    pub(super) fn disk_of(&self, id: Uuid, directory: &Path) -> Rc<Disk> {
        self.environment.disks.of(id, directory)
    }

    pub(super) fn cleaner_options(&self) -> CleanerOptions {
        self.cleaner.get()
    }

    pub(super) fn cleaner_turn(&self) -> &Budget {
        &self.cleaner_turn
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.environment.is_stopping.get()
    }

    /// The end of a clean stop: no more appends, everything placed and flushed, all files as Kafka leaves them. What readers have planned stays readable.
    pub async fn shut_down(&self) -> Result<(), JournalError> {
        self.environment.is_stopping.set(true);
        // A round of compaction ends soon, and leaves no exchange of files half done; so does a move.
        let _cleaner = self.cleaner_turn.acquire(1).await;
        self.moves.wake();
        let _move = self.move_turn.acquire(1).await;
        self.put_off_moves().await;
        // Upkeep removes segments: none may go between the last checkpoint, which names them, and the end.
        self.environment.upkeep.end();
        self.environment.graveyard.end();
        let upkeep = self.upkeep.take();
        if let Some(upkeep) = upkeep {
            upkeep.await;
        }
        self.environment.placement.shut_down().await?;
        let waiting = RefCell::new(self.all());
        let close = async || {
            loop {
                let Some(partition) = waiting.borrow_mut().pop() else { return };
                if let Err(error) = partition.close_files().await {
                    tracing::warn!(topic = %partition.topic, partition = partition.id.partition, %error, "indexes are not complete");
                }
            }
        };
        rt::sync::join_all((0..CLOSE_AT_ONCE).map(|_| close())).await;
        Ok(())
    }

    /// The journal's durable door, for those who wait for appends to several partitions at once.
    pub fn journal(&self) -> &Rc<Journal> {
        &self.environment.journal
    }

    /// Bytes of batches in memory.
    pub fn tail_bytes(&self) -> usize {
        self.environment.tail_cache.bytes()
    }
}

/// Why a partition could not be made or removed.
#[derive(Debug)]
pub enum CreateError {
    Directory(DirectoryError),
    Journal(JournalError),
}

impl From<DirectoryError> for CreateError {
    fn from(error: DirectoryError) -> Self {
        CreateError::Directory(error)
    }
}

impl From<JournalError> for CreateError {
    fn from(error: JournalError) -> Self {
        CreateError::Journal(error)
    }
}

impl std::fmt::Display for CreateError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CreateError::Directory(error) => error.fmt(formatter),
            CreateError::Journal(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for CreateError {}
