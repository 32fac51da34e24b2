//! Recovery: before any shard starts, what journals, checkpoints and segment files hold becomes one recovered state for each partition. Blocking, on threads of its own.
//!
//! `recover_blocking` tells the steps. What the last life left is read (`former`), each partition that the journals hold more of is brought up to date in its own files
//! (`redo`), directories that no checkpoint knows are read from their files (`scan`), and then one file is replaced (`life`): from that moment on the old journals are nobody's and
//! the new ones begin empty. Until then nothing that the old life needs has been changed, so a recovery that is cut short is done again from the start. Any number of shards may
//! follow on any other: journals are read by partition, and no partition's files name a core.

mod clean_stop;
pub mod data_directory;
mod error;
mod former;
mod leftovers;
pub mod life;
mod lost_life;
mod moves;
mod redo;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::data_directory::Inventory;
use self::former::Former;
use self::life::{Life, LifeJournal};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::slot::{self, Slot};
use crate::disk::checkpoint::{PartitionFacts, PartitionRecord, PlacedEnd};
use crate::disk::directories::{DataDirectory, forget_clean_shutdown_blocking, remove_file_blocking};
use crate::disk::journal::file::ring_path;
use crate::disk::journal::ring::RING_START;
use crate::disk::journal::shadow::{Shadow, make_shadow_blocking, shadow_path};
use crate::disk::journal::{GroupSequence, Journal, JournalStart, RingFile};
use crate::disk::placement::{CheckpointTurn, Placement};
use crate::disk::trace;
use crate::log::checkpoint_file::{OffsetCheckpoint, decode_offsets};
use crate::log::directory_files::decode_partition_metadata;
use crate::log::file_names::{
    CLEANER_CHECKPOINT, LOG_START_CHECKPOINT, PARTITION_METADATA, RECOVERY_POINT_CHECKPOINT, REPLICATION_CHECKPOINT,
};
use crate::rt;
use crate::rt::file::{File, FileError, OpenMode, create_directory_blocking, sync_directory_blocking};

pub use self::clean_stop::mark_clean_blocking;
pub use self::error::RecoveryError;
pub use self::moves::FutureDirectory;

/// The directory of the metadata log.
const METADATA_DIRECTORY: &str = "__cluster_metadata-0";

/// What follows where a journal has no shadow.
const WITHOUT_SHADOW: &str = "what need not be durable waits for its write";

/// Threads that bring partitions up to date: mostly they wait for flushes.
const THREADS: usize = 8;

/// What a start says to recovery.
pub struct RecoveryOptions<'a> {
    pub data_directories: &'a [DataDirectory],
    pub journal_directory: &'a Path,
    /// Size of each ring; one of another size is made anew.
    pub journal_bytes: u64,
    pub shards: u16,
    /// Which shard a partition lives on from now on.
    pub owner: &'a (dyn Fn(&TopicIdPartition) -> u16 + Sync),
    /// Whether journal and data directories take direct writes.
    pub direct: bool,
    pub now_ms: i64,
}

/// A partition as a restart finds it: everything in its segment files, flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// As of the log's end: offsets, all segments, epochs and producer state.
    pub facts: PartitionFacts,
    /// Full path of the partition's directory.
    pub directory: PathBuf,
    /// Where placement goes on: the log's end.
    pub placed: PlacedEnd,
    /// Segment and position up to where index files can be whole. Entries of what lies behind may be missing, or be of bytes that never became durable: they are to be dropped,
    /// and can be made again by walking the batches.
    pub indexed_to: (i64, u32),
    /// It was on its way to another data directory, and is to begin that anew.
    pub moving_to: Option<FutureDirectory>,
}

/// What a shard needs to begin: handed to its thread.
#[derive(Clone, Debug)]
pub struct ShardStart {
    ring_file: RingFile,
    /// None where there was no room for it.
    shadow_file: Option<File>,
    journal_id: Uuid,
    turn: CheckpointTurn,
    /// Whether journal and data directories take direct writes.
    pub direct: bool,
    /// All index files and snapshots of the partitions are as a clean stop of ours has left them.
    pub files_are_whole: bool,
    pub partitions: Vec<RecoveredPartition>,
}

/// A broker's storage, ready for its shards.
#[derive(Debug)]
pub struct Recovered {
    /// By shard.
    pub shards: Vec<ShardStart>,
    pub report: RecoveryReport,
}

/// What was found and done, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub was_clean: bool,
    pub partitions: usize,
    /// Entries that the journals held.
    pub entries: usize,
    /// Partitions that were brought up to date from them.
    pub redone: usize,
    /// Partitions that no checkpoint knew.
    pub scanned: usize,
    /// Files whose content did not follow from the log before them, under their new names.
    pub set_aside: Vec<PathBuf>,
    /// Directories that hold no partition of ours and were left alone.
    pub left_alone: Vec<LeftAlone>,
    /// The file that says which journals count was gone, and nothing that they held was needed.
    pub life_lost: Option<PathBuf>,
    /// Directories of deleted partitions, to be removed at leisure.
    pub deleted: Vec<PathBuf>,
    pub duration: Duration,
}

/// A directory in a data directory of which nothing is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    pub path: PathBuf,
    pub why: &'static str,
}

/// Everything from the last stop, clean or not, to storage on which shards can start. An error leaves all as it was, to be tried again.
pub fn recover_blocking(options: &RecoveryOptions) -> Result<Recovered, RecoveryError> {
    let begun = Instant::now();
    create_directory_blocking(options.journal_directory)?;
    let life = Life::read_blocking(options.journal_directory)?;
    check_links(options, life.as_ref())?;
    let foreign = foreign_directories(options, life.as_ref())?;
    let inventories = options.data_directories.iter().map(DataDirectory::inventory_blocking).collect::<Result<Vec<_>, _>>()?;

    let mut recovery = Recovery { options, inventories, foreign, partitions: BTreeMap::new(), report: RecoveryReport::default() };
    recovery.report.was_clean = life.as_ref().is_none_or(|life| life.is_clean);
    let turns = match &life {
        Some(life) => recovery.take_over(life)?,
        None => {
            let is_lost = lost_life::are_journals_spent_blocking(options)?;
            recovery.report.life_lost = is_lost.then(|| Life::path(options.journal_directory));
            Vec::new()
        }
    };
    recovery.scan_unknown_directories()?;
    let shards = recovery.begin_life(life, turns)?;
    let mut report = recovery.report;
    report.duration = begun.elapsed();
    Ok(Recovered { shards, report })
}

impl ShardStart {
    /// Begins the shard's journal and placement, on its thread. The partitions are registered next, before anything is appended.
    pub fn begin(&self) -> (Rc<Journal>, Rc<Placement>) {
        let journal = Journal::start(self.ring_file.clone(), self.journal_id, trace::journal_durability());
        match self.shadow_file.as_ref().map(Shadow::new) {
            Some(Ok(shadow)) => journal.shadow_in(shadow),
            Some(Err(error)) => tracing::warn!(%error, "{WITHOUT_SHADOW}"),
            None => {}
        }
        let placement = Placement::start(journal.clone(), self.turn.clone(), self.direct);
        (journal, placement)
    }
}

/// A recovery under way.
struct Recovery<'a> {
    options: &'a RecoveryOptions<'a>,
    /// By data directory.
    inventories: Vec<Inventory>,
    /// Data directories that another broker has worked on since our clean stop: checkpoints say nothing about them any more.
    foreign: BTreeSet<Uuid>,
    partitions: BTreeMap<TopicIdPartition, RecoveredPartition>,
    report: RecoveryReport,
}

/// A data directory that names other journals than these must have been stopped cleanly: otherwise those hold what it lacks.
fn check_links(options: &RecoveryOptions, life: Option<&Life>) -> Result<(), RecoveryError> {
    for directory in options.data_directories {
        let Some((set_id, journal_directory)) = directory.journal_link_blocking()? else { continue };
        if life.is_none() && journal_directory == options.journal_directory {
            let cause = format!("{} was not stopped cleanly: its latest records are in the journals beside it", directory.path.display());
            return Err(RecoveryError::LifeMissing { path: Life::path(&journal_directory), cause });
        }
        if life.is_none_or(|life| life.set_id != set_id) {
            let data_directory = directory.path.clone();
            let searched = options.journal_directory.to_path_buf();
            return Err(RecoveryError::JournalsElsewhere { data_directory, journal_directory, searched });
        }
    }
    Ok(())
}

/// Directories whose clean marker is not the one that we left.
fn foreign_directories(options: &RecoveryOptions, life: Option<&Life>) -> Result<BTreeSet<Uuid>, RecoveryError> {
    let Some(life) = life else { return Ok(BTreeSet::new()) };
    let mut foreign = BTreeSet::new();
    for directory in options.data_directories {
        let (ours, there) = (life.marker_of(directory.id), directory.marker_blocking());
        if life.is_clean && ours != there {
            foreign.insert(directory.id);
        }
        // An unclean life begins by removing its own marker; a crash just before leaves it there.
        if !life.is_clean && there.is_some() && there != ours {
            return Err(RecoveryError::UsedByAnother { path: directory.path.clone() });
        }
    }
    Ok(foreign)
}

impl Recovery<'_> {
    /// Everything that the last life left. Returns the checkpoint turns of its shards.
    fn take_over(&mut self, life: &Life) -> Result<Vec<CheckpointTurn>, RecoveryError> {
        let mut turns = Vec::new();
        for (shard, journal) in life.journals.iter().enumerate() {
            // One ring in memory at a time.
            let former = Former::read_blocking(self.options, shard as u16, journal, life.is_clean)?;
            turns.push(former.next_turn.clone());
            self.redo(former)?;
        }
        Ok(turns)
    }

    /// Brings every partition of one former shard to the end of its journal.
    fn redo(&mut self, former: Former) -> Result<(), RecoveryError> {
        self.report.entries += former.entries.len();
        let foreign = std::mem::take(&mut self.foreign);
        let (touched, untouched) = former.by_partition(self.options.now_ms, &|record| foreign.contains(&record.facts.home.directory_id))?;
        self.foreign = foreign;
        for record in untouched {
            let directory = self.directory_of(&record.facts.partition, &record.facts.home.directory_id, &record.facts.home.name)?;
            let indexed_to = (record.placed.segment_base, record.placed.size_bytes);
            let recovered = RecoveredPartition { facts: record.facts, directory, placed: record.placed, indexed_to, moving_to: None };
            self.partitions.insert(recovered.facts.partition, recovered);
        }
        let mut work = Vec::new();
        for (partition, redo) in touched {
            self.finish_moves(&redo)?;
            let directory = self.directory_of(&partition, &redo.home().directory_id, &redo.home().name)?;
            work.push((redo, directory));
        }
        self.report.redone += work.len();
        for recovered in in_threads(work, |(redo, directory)| redo.finish_blocking(&directory))? {
            self.partitions.insert(recovered.facts.partition, recovered);
        }
        Ok(())
    }

    fn directory_of(&self, partition: &TopicIdPartition, directory_id: &Uuid, name: &str) -> Result<PathBuf, RecoveryError> {
        let index = self.options.data_directories.iter().position(|directory| directory.id == *directory_id);
        let index = index.filter(|index| self.inventories[*index].partitions.contains(name));
        let missing = RecoveryError::DirectoryMissing { partition: *partition, name: name.to_owned(), directory_id: *directory_id };
        index.map(|index| self.options.data_directories[index].path.join(name)).ok_or(missing)
    }

    /// Partitions that lie in the data directories and that no checkpoint has told of.
    fn scan_unknown_directories(&mut self) -> Result<(), RecoveryError> {
        let future = self.take_future_directories();
        let known: BTreeSet<PathBuf> = self.partitions.values().map(|partition| partition.directory.clone()).collect();
        let mut unknown: BTreeMap<TopicIdPartition, scan::Found> = BTreeMap::new();
        for (directory, inventory) in self.options.data_directories.iter().zip(std::mem::take(&mut self.inventories)) {
            self.report.deleted.extend(inventory.deleted);
            let others: Vec<PathBuf> = inventory.others.into_iter().filter(|path| !self.is_expected(path)).collect();
            self.report.left_alone.extend(others.into_iter().map(|path| LeftAlone { path, why: "its name is not that of a partition" }));
            let is_unknown = |name: &String| !known.contains(&directory.path.join(name));
            let names: Vec<String> = inventory.partitions.into_iter().filter(is_unknown).collect();
            for found in found_in(directory, names, &mut self.report.left_alone)? {
                // The same partition in two places, as a move between directories leaves it: what the checkpoint knows counts, then what comes first.
                if self.partitions.contains_key(&found.partition) || unknown.contains_key(&found.partition) {
                    self.report
                        .left_alone
                        .push(LeftAlone { path: found.directory, why: "the same partition lies in another data directory, too" });
                } else {
                    unknown.insert(found.partition, found);
                }
            }
        }
        self.report.scanned = unknown.len();
        let now_ms = self.options.now_ms;
        for scanned in in_threads(unknown.into_values().collect(), |found| scan::scan_blocking(found, now_ms))? {
            self.report.set_aside.extend(scanned.set_aside);
            self.partitions.insert(scanned.partition.facts.partition, scanned.partition);
        }
        self.resume_moves(future);
        Ok(())
    }

    /// What lies in a data directory though it is no partition: journals that were put there, and what mkfs leaves at the root of a filesystem.
    fn is_expected(&self, path: &Path) -> bool {
        path == self.options.journal_directory || path.file_name().is_some_and(|name| name == "lost+found")
    }

    /// Writes what the new life begins with, and begins it.
    fn begin_life(&mut self, former: Option<Life>, mut turns: Vec<CheckpointTurn>) -> Result<Vec<ShardStart>, RecoveryError> {
        let options = self.options;
        let former_shards = turns.len() as u16;
        for shard in former_shards..options.shards {
            turns.push(CheckpointTurn { journal_directory: options.journal_directory.into(), shard, number: 1, slot: Slot::A });
        }
        turns.truncate(usize::from(options.shards));
        self.report.partitions = self.partitions.len();
        let mut partitions: Vec<Vec<RecoveredPartition>> = turns.iter().map(|_| Vec::new()).collect();
        for (partition, recovered) in std::mem::take(&mut self.partitions) {
            partitions[usize::from((options.owner)(&partition))].push(recovered);
        }
        let journal_ids: Vec<Uuid> = turns.iter().map(|_| rt::random_uuid()).collect();
        let checkpoints = turns.iter().zip(&journal_ids).zip(&partitions).collect();
        in_threads(checkpoints, |((turn, journal_id), partitions)| write_first_checkpoint(turn, *journal_id, partitions))?;
        sync_directory_blocking(options.journal_directory)?;

        let (set_id, markers) = former.as_ref().map_or_else(|| (rt::random_uuid(), Vec::new()), |life| (life.set_id, life.markers.clone()));
        let rings = self.rings(former, set_id, &journal_ids, former_shards)?;
        let journals = rings.iter().zip(&journal_ids).map(|(ring, id)| LifeJournal { ring_id: ring.ring_id, journal_id: *id }).collect();
        Life { set_id, is_clean: false, journals, markers }.replace_blocking(options.journal_directory)?;
        for directory in options.data_directories {
            directory.link_journals_blocking(set_id, options.journal_directory)?;
            forget_clean_shutdown_blocking(&directory.path)?;
        }
        let shadow = |shard| {
            // A full disk is no reason not to start.
            let made = make_shadow_blocking(&shadow_path(options.journal_directory, shard));
            made.inspect_err(|error| tracing::warn!(%error, "{WITHOUT_SHADOW}")).ok()
        };
        let shadows = (0..options.shards).map(shadow);
        let starts = turns.into_iter().zip(rings.into_iter().zip(shadows)).zip(journal_ids).zip(partitions);
        let next = |turn: CheckpointTurn| CheckpointTurn { number: turn.number + 1, slot: turn.slot.other(), ..turn };
        Ok(starts
            .map(|(((turn, (ring_file, shadow_file)), journal_id), partitions)| ShardStart {
                ring_file,
                shadow_file,
                journal_id,
                turn: next(turn),
                direct: options.direct,
                files_are_whole: self.report.was_clean && self.report.scanned == 0,
                partitions,
            })
            .collect())
    }

    /// The rings of the new life. Where one has to be made or goes, the old life ends first: it would miss it.
    fn rings(&self, former: Option<Life>, set_id: Uuid, journal_ids: &[Uuid], former_shards: u16) -> Result<Vec<RingFile>, RecoveryError> {
        let options = self.options;
        let former_rings = former.map_or_else(Vec::new, |life| life.journals);
        let existing: Vec<Option<RingFile>> =
            (0..options.shards).map(|shard| self.usable_ring(shard, former_rings.get(usize::from(shard)))).collect();
        if existing.iter().all(Option::is_some) && former_shards <= options.shards {
            return Ok(existing.into_iter().flatten().collect());
        }
        let journals = journal_ids.iter().map(|id| LifeJournal { ring_id: Uuid::nil(), journal_id: *id }).collect();
        // Clean, for nothing is in its journals; to be believed it names the markers that are there, ours or not.
        let markers = options.data_directories.iter().filter_map(DataDirectory::marker_blocking).collect();
        Life { set_id, is_clean: true, journals, markers }.replace_blocking(options.journal_directory)?;
        for shard in options.shards..former_shards {
            remove_file_blocking(&ring_path(options.journal_directory, shard))?;
            remove_file_blocking(&shadow_path(options.journal_directory, shard))?;
            for slot in Slot::BOTH {
                remove_file_blocking(&slot.path(options.journal_directory, shard))?;
            }
        }
        let wanted: Vec<(u16, Option<RingFile>)> = (0..options.shards).zip(existing).collect();
        in_threads(wanted, |(shard, ring)| match ring {
            Some(ring) => Ok(ring),
            None => {
                let path = ring_path(options.journal_directory, shard);
                Ok(RingFile::create_blocking(&path, options.journal_bytes, options.direct)?)
            }
        })
    }

    fn usable_ring(&self, shard: u16, former: Option<&LifeJournal>) -> Option<RingFile> {
        let former = former?;
        let ring = RingFile::open_blocking(&ring_path(self.options.journal_directory, shard), self.options.direct).ok()?;
        (ring.ring_id == former.ring_id && ring.size_bytes == self.options.journal_bytes).then_some(ring)
    }
}

/// The other file is made too, if it is not there: the next checkpoint frees room in the ring, so its name must not be lost in a power failure when nobody has flushed the directory since.
fn write_first_checkpoint(turn: &CheckpointTurn, journal_id: Uuid, partitions: &[RecoveredPartition]) -> Result<(), RecoveryError> {
    File::open_blocking(turn.slot.other().path(&turn.journal_directory, turn.shard), OpenMode::CREATE)?;
    let path = turn.slot.path(&turn.journal_directory, turn.shard);
    let records: Vec<PartitionRecord> = partitions
        .iter()
        .map(|recovered| PartitionRecord { facts: recovered.facts.clone(), placed: recovered.placed, next_entry: 0 })
        .collect();
    let start = JournalStart { sequence: GroupSequence(1), position: RING_START };
    Ok(slot::write_blocking(&path, turn.number, journal_id, start, &records)?)
}

/// What Kafka's files say of directories that we do not know.
fn found_in(directory: &DataDirectory, names: Vec<String>, left_alone: &mut Vec<LeftAlone>) -> Result<Vec<scan::Found>, RecoveryError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let offsets = |name: &str| -> Result<OffsetCheckpoint, RecoveryError> {
        let path = directory.path.join(name);
        let text = read_text_blocking(&path)?.unwrap_or_default();
        decode_offsets(&text).map_err(|line| RecoveryError::MetaProperties { path, cause: line.to_string() })
    };
    let (starts, points, marks) = (offsets(LOG_START_CHECKPOINT)?, offsets(RECOVERY_POINT_CHECKPOINT)?, offsets(REPLICATION_CHECKPOINT)?);
    let cleaned = offsets(CLEANER_CHECKPOINT)?;
    let is_clean = directory.marker_blocking().is_some();
    let mut found = Vec::new();
    for name in names {
        let path = directory.path.join(&name);
        let metadata_path = path.join(PARTITION_METADATA);
        let Some(metadata) = read_text_blocking(&metadata_path)? else {
            // A formatter leaves the directory of the metadata log without one.
            if name != METADATA_DIRECTORY {
                left_alone.push(LeftAlone { path, why: "it has no partition.metadata, which says whose it is" });
            }
            continue;
        };
        let topic_id = decode_partition_metadata(&metadata)
            .map_err(|cause| RecoveryError::MetaProperties { path: metadata_path, cause: cause.to_string() })?;
        let (topic, number) = name.rsplit_once('-').expect("the inventory holds names of partitions");
        let number: i32 = number.parse().expect("the inventory holds names of partitions");
        let key = (topic.to_owned(), number);
        found.push(scan::Found {
            partition: TopicIdPartition::new(topic_id, number),
            home: crate::disk::checkpoint::PartitionHome { directory_id: directory.id, name },
            directory: path,
            log_start_offset: starts.get(&key).copied(),
            recovery_point: points.get(&key).copied().unwrap_or(0),
            high_watermark: marks.get(&key).copied(),
            cleaned_to: cleaned.get(&key).copied(),
            is_clean,
        });
    }
    Ok(found)
}

/// A small text file whole; none where it does not exist. Bytes that are not UTF-8 become replacement characters, which no parser of ours takes.
fn read_text_blocking(path: &Path) -> Result<Option<String>, FileError> {
    let file = match File::open_blocking(path, OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.read_at_blocking(file.length()? as usize, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Runs `step` on every item, a few threads at a time; the first error counts. Outputs are in the order of the items.
fn in_threads<T: Send, R: Send>(items: Vec<T>, step: impl Fn(T) -> Result<R, RecoveryError> + Sync) -> Result<Vec<R>, RecoveryError> {
    if items.len() <= 1 {
        return items.into_iter().map(step).collect();
    }
    let threads = THREADS.min(items.len());
    let outputs: Mutex<Vec<Option<Result<R, RecoveryError>>>> = Mutex::new(items.iter().map(|_| None).collect());
    let queue = Mutex::new(items.into_iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((index, item)) = queue.lock().expect("no thread panics with the lock").next() else { return };
                    let output = step(item);
                    outputs.lock().expect("no thread panics with the lock")[index] = Some(output);
                }
            });
        }
    });
    let outputs = outputs.into_inner().expect("no thread panics with the lock");
    outputs.into_iter().map(|output| output.expect("every item was taken")).collect()
}
