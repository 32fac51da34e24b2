//! A small broker's storage for tests: partitions that only append, journals and placements of several shards on one thread, a memory of everything that was appended, and lives that
//! end by a clean stop or by being dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use uuid::Uuid;

use super::checkpoint::facts::encode_segment;
use super::checkpoint::{PartitionFacts, PartitionHome, PlacedEnd};
use super::compacted_segment::swap_segments_blocking;
use super::directories::DataDirectory;
use super::journal::{EntryHeader, GroupSequence, Journal, JournalError};
use super::placement::segment::segment_path;
use super::placement::{Placement, PlacementTarget};
use super::recovery::data_directory;
use super::recovery::{Recovered, RecoveredPartition, RecoveryError, RecoveryOptions, mark_clean_blocking, recover_blocking};
use crate::cluster::TopicIdPartition;
use crate::log::directory_files::encode_partition_metadata;
use crate::log::file_names::{LogFileKind, PARTITION_METADATA};
use crate::log::offset_index::OffsetIndexTail;
use crate::log::segment_scan::tests::encoded;
use crate::log::state::ActiveIndexes;
use crate::log::time_index::TimeIndexTail;
use crate::log::{BatchInfo, LeaderEpochs, Log, LogStart, Origin, ProducerStates, RollRules, Segments, ValidatedBatch};
use crate::rt;
use crate::rt::file::sync_directory_blocking;

/// Everything that a partition was given, batch by batch, and how much of it was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub batches: Vec<Bytes>,
    /// End offsets of the batches.
    pub ends: Vec<i64>,
    /// Everything below was waited for.
    pub acknowledged: i64,
    pub log_start_offset: i64,
    pub is_deleted: bool,
}

/// Whose entries are placed, where no checkpoint is made.
pub struct Nobody;

impl PlacementTarget for Nobody {
    fn facts(&self) -> PartitionFacts {
        unreachable!("no checkpoint here")
    }
    fn placed(&self, _: PlacedEnd) {}
    fn failed(&self, _: &JournalError) {}
}

/// The directories of a broker, and what they must hold.
pub struct World {
    pub parent: tempfile::TempDir,
    pub journal_bytes: u64,
    pub segment_bytes: i32,
    pub memory: BTreeMap<i32, Memory>,
}

/// One life of the broker, on one thread.
pub struct Broker {
    pub data_directory: DataDirectory,
    pub journal_directory: PathBuf,
    pub shards: Vec<(Rc<Journal>, Rc<Placement>)>,
    pub partitions: RefCell<BTreeMap<i32, Rc<FakePartition>>>,
    segment_bytes: i32,
}

pub struct FakePartition {
    pub key: TopicIdPartition,
    home: PartitionHome,
    pub directory: PathBuf,
    pub journal: Rc<Journal>,
    pub log: RefCell<Log>,
    pub placed: Cell<PlacedEnd>,
    pub failed: Cell<bool>,
    pub memory: RefCell<Memory>,
}

pub fn key(number: i32) -> TopicIdPartition {
    TopicIdPartition::new(Uuid::from_u128(0x70), number)
}

impl PlacementTarget for FakePartition {
    fn facts(&self) -> PartitionFacts {
        let log = self.log.borrow();
        PartitionFacts {
            partition: self.key,
            home: self.home.clone(),
            log_start_offset: log.log_start_offset(),
            end_offset: log.log_end_offset(),
            high_watermark: log.log_start_offset(),
            segments: log.segments().iter().copied().collect(),
            leader_epochs: log.leader_epochs().entries().to_vec(),
            producers: log.producers().producers().clone(),
            aborted: Vec::new(),
            cleaned_to: None,
        }
    }

    fn placed(&self, end: PlacedEnd) {
        self.placed.set(end);
    }

    fn failed(&self, _: &JournalError) {
        self.failed.set(true);
    }
}

impl FakePartition {
    /// Appends a batch of `count` records of an idempotent producer, if there is room.
    pub fn append(&self, count: i32, payload_bytes: usize) -> Result<GroupSequence, JournalError> {
        let mut log = self.log.borrow_mut();
        let base_offset = log.log_end_offset();
        let bytes = with_producer(encoded(base_offset, 1, count, payload_bytes), base_offset);
        let batch = ValidatedBatch {
            info: BatchInfo::decode(&bytes).expect("a whole batch"),
            bytes: Bytes::from(bytes),
            end_marker: None,
            log_append_time_ms: -1,
        };
        let placed = log.place(&batch, Origin::INTERNAL, 0);
        let epoch = batch.info.leader_epoch;
        let header = EntryHeader::append(self.key, placed.segment_base, placed.position, placed.base_offset, placed.last_offset, epoch);
        let written = self.journal.append(&header, &[&batch.bytes])?;
        log.append(&batch, &placed, epoch, 0);
        let mut memory = self.memory.borrow_mut();
        memory.batches.push(batch.bytes);
        memory.ends.push(placed.last_offset + 1);
        Ok(written.sequence)
    }

    /// As `append`, waiting for room where there is none.
    pub async fn append_patiently(&self, count: i32, payload_bytes: usize) -> GroupSequence {
        match self.append(count, payload_bytes) {
            Err(JournalError::Full) => {
                let mut room = self.journal.wait_for_room(&self.key, payload_bytes + 100).await.expect("the journal works");
                loop {
                    // Placement may have taken what was there.
                    match room.enter(|| self.append(count, payload_bytes)) {
                        Err(JournalError::Full) => {
                            room = self.journal.wait_longer(room, payload_bytes + 100).await.expect("the journal works");
                        }
                        result => return result.expect("the journal works"),
                    }
                }
            }
            result => result.expect("the journal works"),
        }
    }

    pub async fn append_durably(&self, count: i32, payload_bytes: usize) {
        let sequence = self.append_patiently(count, payload_bytes).await;
        let end = self.log.borrow().log_end_offset();
        self.journal.wait_durable(sequence).await.expect("the journal works");
        let mut memory = self.memory.borrow_mut();
        memory.acknowledged = memory.acknowledged.max(end);
    }

    pub async fn raise_log_start(&self, offset: i64) {
        assert!(self.log.borrow_mut().raise_log_start(offset));
        let written = self.journal.append(&EntryHeader::log_start(self.key, offset), &[]).expect("there is room");
        self.journal.wait_durable(written.sequence).await.expect("the journal works");
        self.memory.borrow_mut().log_start_offset = offset;
    }

    /// Lets go of every record, as retention does: a new segment begins, then the log starts there. Files that placement is done with go.
    pub async fn expire(&self, removes_files: bool) {
        let end_offset = self.log.borrow().log_end_offset();
        if self.log.borrow().segments().active().size_bytes > 0 {
            self.journal.append(&EntryHeader::roll(self.key, end_offset), &[]).expect("there is room");
            self.log.borrow_mut().roll(end_offset, 0);
        }
        if self.log.borrow().log_start_offset() < end_offset {
            self.raise_log_start(end_offset).await;
        }
        if removes_files && self.placed.get().segment_base == end_offset {
            for book in self.log.borrow_mut().segments_mut().remove_below(end_offset) {
                // An earlier life may have removed it without a checkpoint that says so.
                let _ = std::fs::remove_file(segment_path(&self.directory, book.base_offset));
            }
        }
    }

    /// Puts the first `count` segments into one file, as compaction does that finds nothing to remove. `steps` of its five steps are done; a crash takes the rest.
    pub async fn merge_segments(&self, count: usize, steps: usize) {
        let books: Vec<_> = {
            let log = self.log.borrow();
            let placed = self.placed.get().segment_base;
            log.segments().iter().take_while(|book| book.base_offset < placed).take(count).copied().collect()
        };
        let Some(last) = books.last() else { return };
        let end_base = self.log.borrow().segments().after(last.base_offset).expect("the last one is closed").base_offset;
        let mut book = books[0];
        let mut bytes = Vec::new();
        for (index, merged) in books.iter().enumerate() {
            let segment = std::fs::read(segment_path(&self.directory, merged.base_offset)).unwrap();
            bytes.extend_from_slice(&segment[..merged.size_bytes as usize]);
            if index > 0 {
                book.size_bytes += merged.size_bytes;
            }
        }
        let name = |kind: LogFileKind| self.directory.join(format!("{}.swap", kind.name(book.base_offset)));
        std::fs::write(name(LogFileKind::OffsetIndex), b"").unwrap();
        std::fs::write(name(LogFileKind::Log), bytes).unwrap();
        if steps == 1 {
            return;
        }
        let header = EntryHeader::swap(self.key, book.base_offset, end_base);
        let written = self.journal.append(&header, &[&encode_segment(&book)]).expect("there is room");
        self.log.borrow_mut().segments_mut().replace(end_base, book);
        self.journal.wait_durable(written.sequence).await.expect("the journal works");
        if steps == 2 {
            return;
        }
        if steps == 3 {
            // Half of the files are exchanged.
            std::fs::rename(name(LogFileKind::OffsetIndex), self.directory.join(LogFileKind::OffsetIndex.name(book.base_offset))).unwrap();
            if let Some(second) = books.get(1) {
                std::fs::remove_file(segment_path(&self.directory, second.base_offset)).unwrap();
            }
            return;
        }
        swap_segments_blocking(&self.directory, book.base_offset..end_base).unwrap();
        if steps == 4 {
            return;
        }
        let swapped = self.journal.append(&EntryHeader::swapped(self.key, book.base_offset), &[]).expect("there is room");
        self.journal.wait_durable(swapped.sequence).await.expect("the journal works");
        self.journal.let_go_of(&self.key, written.sequence);
    }

    /// Cuts the log to its first `batches` batches, as a follower does.
    pub async fn truncate(&self, batches: usize) {
        let (segment_base, position, end_offset) = {
            let memory = self.memory.borrow();
            let end_offset = if batches == 0 { 0 } else { memory.ends[batches - 1] };
            let log = self.log.borrow();
            let segment = *log.segments().containing(end_offset.saturating_sub(1).max(0)).expect("the log reaches there");
            let first = memory.ends.iter().position(|end| *end > segment.base_offset).expect("the segment has a batch");
            let position: usize = memory.batches[first..batches.max(first)].iter().map(Bytes::len).sum();
            (segment.base_offset, position as u32, end_offset)
        };
        let header = EntryHeader::truncate(self.key, segment_base, position, end_offset);
        let written = self.journal.append(&header, &[]).expect("there is room");
        self.cut_log(segment_base, position, end_offset);
        {
            let mut memory = self.memory.borrow_mut();
            memory.batches.truncate(batches);
            memory.ends.truncate(batches);
            memory.acknowledged = memory.acknowledged.min(end_offset);
        }
        self.journal.wait_durable(written.sequence).await.expect("the journal works");
    }

    /// The log machine's books, made again for a log that ends earlier: producers from its remaining batches.
    fn cut_log(&self, segment_base: i64, position: u32, end_offset: i64) {
        let mut log = self.log.borrow_mut();
        let mut books: Vec<_> = log.segments().iter().copied().filter(|book| book.base_offset <= segment_base).collect();
        books.last_mut().expect("the segment is there").size_bytes = position;
        let mut producers = ProducerStates::new(0);
        for bytes in &self.memory.borrow().batches {
            let info = BatchInfo::decode(bytes).expect("a whole batch");
            if info.last_offset() < end_offset {
                producers.apply(&info, None, info.max_timestamp);
            }
        }
        let mut leader_epochs = log.leader_epochs().clone();
        leader_epochs.truncate_from_end(end_offset);
        let start = LogStart {
            log_start_offset: log.log_start_offset(),
            log_end_offset: end_offset,
            segments: Segments::new(books, 0),
            indexes: ActiveIndexes::new(OffsetIndexTail::new(segment_base, 0), TimeIndexTail::new(segment_base, 0, None)),
            leader_epochs,
            producers,
        };
        let rules = *log.rules();
        *log = Log::new(start, rules);
    }

    fn open(recovered: RecoveredPartition, journal: Rc<Journal>, segment_bytes: i32, memory: Memory) -> Rc<Self> {
        let facts = recovered.facts;
        let active = facts.segments.last().expect("a log has a segment").base_offset;
        let start = LogStart {
            log_start_offset: facts.log_start_offset,
            log_end_offset: facts.end_offset,
            segments: Segments::new(facts.segments, 0),
            indexes: ActiveIndexes::new(OffsetIndexTail::new(active, 0), TimeIndexTail::new(active, 0, None)),
            leader_epochs: LeaderEpochs::from_entries(facts.leader_epochs),
            producers: ProducerStates::of(facts.producers, facts.end_offset),
        };
        let partition = Rc::new(Self {
            key: facts.partition,
            home: facts.home,
            directory: recovered.directory,
            journal,
            log: RefCell::new(Log::new(start, rules(segment_bytes))),
            placed: Cell::new(recovered.placed),
            failed: Cell::new(false),
            memory: RefCell::new(memory),
        });
        partition.journal.register(partition.key, partition.clone(), Rc::from(&*partition.directory), recovered.placed);
        partition
    }
}

fn rules(segment_bytes: i32) -> RollRules {
    RollRules { segment_bytes, ..RollRules::default() }
}

/// Producer 7 counts its records with the offsets, so that its state tells where the log ends.
fn with_producer(mut bytes: Vec<u8>, base_offset: i64) -> Vec<u8> {
    bytes[43..51].copy_from_slice(&7i64.to_be_bytes());
    bytes[51..53].copy_from_slice(&0i16.to_be_bytes());
    bytes[53..57].copy_from_slice(&(base_offset as i32).to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

impl World {
    pub fn new(journal_bytes: u64, segment_bytes: i32) -> Self {
        Self { parent: tempfile::tempdir().unwrap(), journal_bytes, segment_bytes, memory: BTreeMap::new() }
    }

    pub fn journal_directory(&self) -> PathBuf {
        self.parent.path().join("journal")
    }

    pub fn data_path(&self) -> PathBuf {
        self.parent.path().join("data")
    }

    pub fn recover(&self, shards: u16) -> Result<(DataDirectory, Recovered), RecoveryError> {
        let (_, mut directories) = data_directory::open_blocking(&[self.data_path()], 1, None)?;
        let owner = move |partition: &TopicIdPartition| (partition.partition as u16) % shards;
        let recovered = recover_blocking(&RecoveryOptions {
            data_directories: &directories,
            journal_directory: &self.journal_directory(),
            journal_bytes: self.journal_bytes,
            shards,
            owner: &owner,
            direct: true,
            now_ms: 0,
        })?;
        Ok((directories.remove(0), recovered))
    }

    /// Recovers, compares what came back with what was appended, runs `script`, and takes its memory along. The life ends as the script leaves it: without `Broker::stop` it crashes.
    pub fn live<L: Future<Output = ()> + 'static>(
        &mut self,
        shards: u16,
        script: impl FnOnce(Rc<Broker>) -> L + Send + 'static,
    ) -> Recovered {
        let (data_directory, recovered) = self.recover(shards).unwrap_or_else(|error| panic!("{error}"));
        self.compare(&recovered);
        let starts = recovered.shards.clone();
        let (memory, journal_directory, segment_bytes) = (std::mem::take(&mut self.memory), self.journal_directory(), self.segment_bytes);
        self.memory = rt::run(move || async move {
            let mut shards = Vec::new();
            let mut partitions = BTreeMap::new();
            for start in starts {
                let (journal, placement) = start.begin();
                for recovered in start.partitions {
                    let number = recovered.facts.partition.partition;
                    let partition = FakePartition::open(recovered, journal.clone(), segment_bytes, memory[&number].clone());
                    partitions.insert(number, partition);
                }
                shards.push((journal, placement));
            }
            let gone: Vec<_> = memory
                .iter()
                .filter(|(number, _)| !partitions.contains_key(number))
                .map(|(number, memory)| (*number, memory.clone()))
                .collect();
            let broker = Rc::new(Broker { data_directory, journal_directory, shards, partitions: RefCell::new(partitions), segment_bytes });
            script(broker.clone()).await;
            let mut memory: BTreeMap<i32, Memory> = gone.into_iter().collect();
            for (number, partition) in broker.partitions.borrow().iter() {
                memory.insert(*number, partition.memory.borrow().clone());
            }
            memory
        });
        recovered
    }

    /// What was acknowledged is there; what is there was appended, in order, byte for byte; files end with their last byte. What was never acknowledged and did not survive is forgotten.
    pub fn compare(&mut self, recovered: &Recovered) {
        let mut found: BTreeMap<i32, &RecoveredPartition> = BTreeMap::new();
        for partition in recovered.shards.iter().flat_map(|shard| &shard.partitions) {
            found.insert(partition.facts.partition.partition, partition);
        }
        for (number, memory) in &mut self.memory {
            let Some(partition) = found.remove(number) else {
                assert!(memory.is_deleted || memory.acknowledged == 0, "partition {number} is gone");
                continue;
            };
            assert!(!memory.is_deleted, "partition {number} was deleted");
            compare_partition(memory, partition);
        }
        self.memory.retain(|_, memory| !memory.is_deleted);
        assert!(found.is_empty(), "partitions from nowhere: {found:?}");
    }
}

pub fn compare_partition(memory: &mut Memory, partition: &RecoveredPartition) {
    let facts = &partition.facts;
    let name = &facts.home.name;
    assert!(facts.end_offset >= memory.acknowledged, "{name} ends at {}, {} were acknowledged", facts.end_offset, memory.acknowledged);
    let count = memory.ends.partition_point(|end| *end <= facts.end_offset);
    let end = if count == 0 { 0 } else { memory.ends[count - 1] };
    assert_eq!(facts.end_offset, end, "{name} ends with a batch that was appended");
    memory.batches.truncate(count);
    memory.ends.truncate(count);
    assert_eq!(facts.log_start_offset, memory.log_start_offset, "{name} starts where it was told to");

    let mut expected: BTreeMap<i64, Vec<u8>> = facts.segments.iter().map(|book| (book.base_offset, Vec::new())).collect();
    for (index, batch) in memory.batches.iter().enumerate() {
        let base = if index == 0 { 0 } else { memory.ends[index - 1] };
        if let Some((_, bytes)) = expected.range_mut(..=base).next_back() {
            bytes.extend_from_slice(batch);
        }
    }
    for (index, book) in facts.segments.iter().enumerate() {
        let path = segment_path(&partition.directory, book.base_offset);
        let is_below_start = facts.segments.get(index + 1).is_some_and(|next| next.base_offset <= facts.log_start_offset);
        if is_below_start && !path.exists() {
            // It went after the last checkpoint.
            continue;
        }
        let bytes = std::fs::read(path).unwrap_or_default();
        let size = book.size_bytes as usize;
        assert_eq!(size, expected[&book.base_offset].len(), "{name}, size of segment {}", book.base_offset);
        assert!(bytes[..size] == expected[&book.base_offset][..], "{name}, bytes of segment {}", book.base_offset);
        let tail = &bytes[size..];
        assert!(tail.len() < 4096 && tail.iter().all(|byte| *byte == 0), "{name}, what lies behind segment {}", book.base_offset);
    }
    if let Some(last) = memory.batches.last() {
        let info = BatchInfo::decode(last).expect("a whole batch");
        let producer = facts.producers.get(&7).expect("its producer is known");
        assert_eq!(producer.last_sequence(), info.last_sequence(), "{name}, the producer's last sequence");
        assert_eq!(producer.batches.last().map(|batch| batch.last_offset), Some(info.last_offset()), "{name}, the producer's last offset");
    } else {
        assert!(facts.producers.is_empty(), "{name} knows a producer of nothing");
    }
}

impl Broker {
    /// Makes a new partition, as a partition room does: directory and metadata first, then the journal knows it.
    pub fn create(&self, number: i32) -> Rc<FakePartition> {
        let name = format!("orders-{number}");
        let directory = self.data_directory.path.join(&name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(PARTITION_METADATA), encode_partition_metadata(key(number).topic_id)).unwrap();
        sync_directory_blocking(&directory).unwrap();
        sync_directory_blocking(&self.data_directory.path).unwrap();
        let home = PartitionHome { directory_id: self.data_directory.id, name };
        let journal = self.shards[number as usize % self.shards.len()].0.clone();
        let placed = PlacedEnd { segment_base: 0, size_bytes: 0, end_offset: 0 };
        let partition = Rc::new(FakePartition {
            key: key(number),
            home: home.clone(),
            directory,
            journal: journal.clone(),
            log: RefCell::new(Log::new(LogStart::empty(0, 0, 0), rules(self.segment_bytes))),
            placed: Cell::new(placed),
            failed: Cell::new(false),
            memory: RefCell::default(),
        });
        journal.register(partition.key, partition.clone(), Rc::from(&*partition.directory), placed);
        journal.append(&EntryHeader::opened(partition.key, 0), &[&home.encode()]).expect("there is room");
        self.partitions.borrow_mut().insert(number, partition.clone());
        partition
    }

    pub async fn delete(&self, number: i32) {
        let partition = self.partitions.borrow()[&number].clone();
        let written = partition.journal.append(&EntryHeader::deleted(partition.key), &[]).expect("there is room");
        partition.journal.wait_durable(written.sequence).await.expect("the journal works");
        partition.memory.borrow_mut().is_deleted = true;
        std::fs::remove_dir_all(&partition.directory).unwrap();
    }

    pub fn partition(&self, number: i32) -> Rc<FakePartition> {
        self.partitions.borrow()[&number].clone()
    }

    pub fn memory(&self) -> BTreeMap<i32, Memory> {
        self.partitions.borrow().iter().map(|(number, partition)| (*number, partition.memory.borrow().clone())).collect()
    }

    pub async fn place_all(&self) {
        for (journal, placement) in &self.shards {
            journal.wait_durable(journal.last_sequence()).await.unwrap();
            placement.place_now().await.unwrap();
        }
    }

    /// The clean stop.
    pub async fn stop(&self) {
        for (_, placement) in &self.shards {
            placement.shut_down().await.unwrap();
        }
        for partition in self.partitions.borrow().values() {
            let mut memory = partition.memory.borrow_mut();
            memory.acknowledged = partition.log.borrow().log_end_offset();
        }
        mark_clean_blocking(&self.journal_directory, std::slice::from_ref(&self.data_directory), -1).unwrap();
    }
}

/// Small, fast and the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
