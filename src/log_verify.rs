//! `corelane log verify`: reads everything in data directories and names what is damaged, changing nothing.
//!
//! Segments: every batch whole, its checksum right, its records readable and as many as it says, offsets counting on, leader epochs not falling. Indexes, which are only hints:
//! entries in order and pointing at batches. Producer snapshots: their checksum.
//!
//! With `--repair`, for a broker that does not run: indexes and producer snapshots that are damaged, or indexes that are missing, are made again from the batches, as long as these are
//! whole. A transaction index also where it lacks an aborted transaction whose marker the segment holds, and only where all segments before are whole too: its transactions begin there.
//! A damaged segment stays as it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corelane::log::dump::{self, DumpOptions};
use corelane::log::file_names::{LogFileKind, PartitionDirectory};
use corelane::log::offset_index::OffsetIndex;
use corelane::log::producer_snapshot::{self, Encoder};
use corelane::log::state::ActiveIndexes;
use corelane::log::time_index::TimeIndex;
use corelane::log::transaction_index::{self, ABORTED_TRANSACTION_BYTES, AbortedTransaction};
use corelane::log::{BatchInfo, EndMarker, ProducerStates, SegmentBook};
use corelane::rt::preflight::lock_if_there;

use crate::log_dump::{Batches, Next};
use crate::output;

/// Bytes of one entry of an offset index and of a time index.
const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 12;

/// Entries of indexes that are made again are as far apart as `index.interval.bytes` has them by default.
const INDEX_INTERVAL_BYTES: i32 = 4096;

/// Verifies data directories, or directories of single partitions. Exit code 1 where anything is damaged, and not repaired.
pub fn run(directories: &[PathBuf], repairs: bool) -> ExitCode {
    let mut verification = Verification { repairs, ..Verification::default() };
    for directory in directories {
        let _lock = match lock(directory, repairs) {
            Ok(lock) => lock,
            Err(problem) => return output::refuse(&problem),
        };
        if let Err(error) = verification.directory(directory) {
            return output::refuse(&format!("{}: {error}", directory.display()));
        }
    }
    verification.finish()
}

/// What is repaired is nobody else's meanwhile.
fn lock(directory: &Path, repairs: bool) -> Result<Option<OwnedFd>, String> {
    let data_directory = if is_partition(directory) { directory.parent().unwrap_or(directory) } else { directory };
    if repairs { lock_if_there(data_directory).map_err(|problem| format!("{}: {}", problem.cause, problem.remedy)) } else { Ok(None) }
}

#[derive(Default)]
struct Verification {
    repairs: bool,
    repaired: u64,
    partitions: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    damages: u64,
}

/// The log of a partition while its segments are read in their order.
struct Reading {
    next_offset: i64,
    leader_epoch: i32,
    /// As of `next_offset`.
    producers: ProducerStates,
    /// All that was read so far is sound.
    is_whole: bool,
}

/// What a segment's batches say of the files beside it.
struct Hints {
    /// Position and last offset of each batch.
    positions: Vec<(u64, i64)>,
    book: SegmentBook,
    indexes: ActiveIndexes,
    /// The aborted transactions whose markers lie here, if producers were followed.
    aborted: Vec<AbortedTransaction>,
    /// All that is in the file is sound.
    is_whole: bool,
    /// And all that is in the files before it.
    is_log_whole: bool,
}

impl Hints {
    fn new(base_offset: i64) -> Hints {
        let (book, indexes) = (SegmentBook::empty(base_offset, 0), ActiveIndexes::empty(base_offset));
        Hints { positions: Vec::new(), book, indexes, aborted: Vec::new(), is_whole: true, is_log_whole: true }
    }

    fn add(&mut self, info: &BatchInfo, position: u64) {
        self.book.add(info);
        self.indexes.add(info, position as u32, &self.book, INDEX_INTERVAL_BYTES);
        self.positions.push((position, info.last_offset()));
    }

    /// The content of an index that is made from the batches; none for what is no index, or where they do not tell.
    fn content(&self, kind: LogFileKind) -> Option<Vec<u8>> {
        if !self.is_whole || self.positions.is_empty() {
            return None;
        }
        match kind {
            LogFileKind::OffsetIndex => Some(self.indexes.offset_index.unwritten().to_vec()),
            LogFileKind::TimeIndex => {
                let mut times = self.indexes.time_index.clone();
                if let Some(max_timestamp) = self.book.max_timestamp {
                    times.push_if_later(max_timestamp);
                }
                Some(times.unwritten().to_vec())
            }
            LogFileKind::TransactionIndex if self.is_log_whole => {
                let mut bytes = Vec::new();
                self.aborted.iter().for_each(|entry| entry.encode(&mut bytes));
                Some(bytes)
            }
            LogFileKind::Log | LogFileKind::TransactionIndex | LogFileKind::ProducerSnapshot => None,
        }
    }
}

impl Verification {
    /// A data directory, or a partition's own.
    fn directory(&mut self, directory: &Path) -> io::Result<()> {
        if is_partition(directory) {
            return self.partition(directory);
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() && is_partition(&path) {
                found.push(path);
            }
        }
        found.sort();
        found.iter().try_for_each(|partition| self.partition(partition))
    }

    fn partition(&mut self, directory: &Path) -> io::Result<()> {
        self.partitions += 1;
        let mut files: BTreeMap<i64, Vec<(LogFileKind, PathBuf)>> = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((kind, base_offset)) = LogFileKind::parse(&name) {
                files.entry(base_offset).or_default().push((kind, path));
            }
        }
        let segments: Vec<i64> =
            files.iter().filter(|(_, files)| files.iter().any(|(kind, _)| *kind == LogFileKind::Log)).map(|(base, _)| *base).collect();
        let first = segments.first().copied().unwrap_or(0);
        let mut reading = Reading { next_offset: first, leader_epoch: 0, producers: producers_at(directory, first), is_whole: true };
        for (base_offset, files) in &files {
            for (_, path) in files.iter().filter(|(kind, _)| *kind == LogFileKind::ProducerSnapshot) {
                self.snapshot(path, *base_offset, &reading)?;
            }
            let mut hints = Hints::new(*base_offset);
            if let Some((_, path)) = files.iter().find(|(kind, _)| *kind == LogFileKind::Log) {
                hints = self.segment(path, *base_offset, &mut reading, segments.last() == Some(base_offset))?;
                self.add_missing(directory, *base_offset, files, &hints)?;
            }
            for (kind, path) in files {
                self.beside(*kind, path, *base_offset, &hints)?;
            }
            self.progress();
        }
        Ok(())
    }

    /// Reads a segment.
    fn segment(&mut self, path: &Path, base_offset: i64, reading: &mut Reading, is_last: bool) -> io::Result<Hints> {
        self.segments += 1;
        let damages = self.damages;
        if base_offset < reading.next_offset {
            self.damage(path, 0, &format!("the segment before it ends at offset {}", reading.next_offset));
        }
        reading.next_offset = base_offset;
        let mut hints = Hints::new(base_offset);
        let mut batches = Batches::open(path)?;
        loop {
            let position = batches.position;
            let (header, batch) = match batches.read_next()? {
                Next::Batch(header, batch) => (header, batch),
                Next::End { bytes_left, reason, is_prepared } => {
                    if bytes_left > 0 && !(is_last && is_prepared) {
                        self.damage(path, position, &format!("{bytes_left} bytes are no batches: {reason}"));
                    }
                    hints.is_whole = self.damages == damages;
                    reading.is_whole &= hints.is_whole;
                    hints.is_log_whole = reading.is_whole;
                    return Ok(hints);
                }
            };
            self.batches += 1;
            self.bytes += batch.len() as u64;
            if let Err(error) = header.check_crc(&batch) {
                self.damage(path, position, &format!("batch of offset {}: {error}", header.base_offset));
            } else {
                match dump::record_lines(&header, &batch, &DumpOptions::default()) {
                    Ok(records) => self.records += records.len() as u64,
                    Err(error) => self.damage(path, position, &format!("batch of offset {}: {error}", header.base_offset)),
                }
            }
            if header.base_offset < reading.next_offset {
                self.damage(path, position, &format!("offset {} after offset {}", header.base_offset, reading.next_offset - 1));
            }
            if header.partition_leader_epoch < reading.leader_epoch {
                self.damage(path, position, &format!("leader epoch {} after {}", header.partition_leader_epoch, reading.leader_epoch));
            }
            reading.next_offset = header.last_offset() + 1;
            reading.leader_epoch = reading.leader_epoch.max(header.partition_leader_epoch);
            if let Some(info) = BatchInfo::from_header(&header) {
                hints.add(&info, position);
                if self.repairs && info.last_offset() >= reading.producers.end_offset() {
                    let end_marker = if info.is_control { EndMarker::decode(&batch) } else { None };
                    let completed = reading.producers.apply(&info, end_marker.as_ref(), info.max_timestamp);
                    hints.aborted.extend(completed.as_ref().and_then(AbortedTransaction::from_completed));
                }
            }
        }
    }

    fn beside(&mut self, kind: LogFileKind, path: &Path, base_offset: i64, hints: &Hints) -> io::Result<()> {
        let damage = match kind {
            LogFileKind::OffsetIndex => offset_index(base_offset, &fs::read(path)?, &hints.positions),
            LogFileKind::TimeIndex => time_index(base_offset, &fs::read(path)?),
            LogFileKind::TransactionIndex => transaction_index(&fs::read(path)?, &hints.aborted),
            LogFileKind::Log | LogFileKind::ProducerSnapshot => None,
        };
        let Some((position, what)) = damage else { return Ok(()) };
        self.damage(path, position, &what);
        match hints.content(kind) {
            Some(content) => self.repair(path, &content),
            None => Ok(()),
        }
    }

    /// A producer snapshot tells of what lies before its offset.
    fn snapshot(&mut self, path: &Path, offset: i64, reading: &Reading) -> io::Result<()> {
        let Err(error) = producer_snapshot::decode(&fs::read(path)?) else { return Ok(()) };
        self.damage(path, 0, &error.to_string());
        // The log's end has one too, with no segment of its own.
        if reading.producers.end_offset() > offset {
            return Ok(());
        }
        let mut encoder = Encoder::kafka(reading.producers.producers().clone());
        while encoder.step() {}
        self.repair(path, &encoder.finish().to_vec())
    }

    /// Indexes that a segment with batches should have, that of transactions only where one was aborted.
    fn add_missing(&mut self, directory: &Path, base_offset: i64, files: &[(LogFileKind, PathBuf)], hints: &Hints) -> io::Result<()> {
        for kind in [LogFileKind::OffsetIndex, LogFileKind::TimeIndex, LogFileKind::TransactionIndex] {
            let is_there = files.iter().any(|(known, _)| *known == kind);
            let is_needless = kind == LogFileKind::TransactionIndex && hints.aborted.is_empty();
            if !self.repairs || is_there || is_needless {
                continue;
            }
            if let Some(content) = hints.content(kind) {
                let path = directory.join(kind.name(base_offset));
                self.damage(&path, 0, "it is missing");
                self.repair(&path, &content)?;
            }
        }
        Ok(())
    }

    /// Puts the file's content in its place in one step, flushed.
    fn repair(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        if !self.repairs {
            return Ok(());
        }
        let temporary = PathBuf::from(format!("{}.tmp", path.display()));
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()?;
        self.repaired += 1;
        println!("{}: made again", path.display());
        Ok(())
    }

    fn damage(&mut self, path: &Path, position: u64, what: &str) {
        self.damages += 1;
        println!("{}: position {position}: {what}", path.display());
    }

    /// A line that is written over, where somebody looks.
    fn progress(&self) {
        if io::stderr().is_terminal() {
            eprint!("\r{} partitions, {} segments, {} MiB", self.partitions, self.segments, self.bytes >> 20);
            let _nobody_looks = io::stderr().flush();
        }
    }

    fn finish(&self) -> ExitCode {
        if io::stderr().is_terminal() {
            eprintln!();
        }
        let Verification { partitions, segments, batches, records, bytes, damages, repairs, repaired } = self;
        let repaired_too = if *repairs { format!(", {repaired} files made again") } else { String::new() };
        println!(
            "{partitions} partitions, {segments} segments, {batches} batches, {records} records, {bytes} bytes: {damages} damaged places{repaired_too}"
        );
        if damages == repaired { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn is_partition(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    matches!(PartitionDirectory::parse(&name), Some(PartitionDirectory::Live { .. }))
}

/// The producers before the log's first segment, if a snapshot tells of them.
fn producers_at(directory: &Path, offset: i64) -> ProducerStates {
    let snapshot = fs::read(directory.join(LogFileKind::ProducerSnapshot.name(offset))).ok();
    let known = snapshot.and_then(|bytes| producer_snapshot::decode(&bytes).ok());
    ProducerStates::of(known.unwrap_or_default(), offset)
}

/// Where and how an offset index is damaged.
fn offset_index(base_offset: i64, bytes: &[u8], positions: &[(u64, i64)]) -> Option<(u64, String)> {
    if !bytes.len().is_multiple_of(OFFSET_ENTRY_BYTES) {
        return Some((0, "its length is no multiple of an entry's".to_owned()));
    }
    let index = OffsetIndex::new(base_offset, bytes);
    for number in 0..index.len() {
        let entry = index.entry(number);
        let batch = positions.binary_search_by_key(&u64::from(entry.position), |(position, _)| *position);
        let points_well = batch.is_ok_and(|batch| positions[batch].1 >= entry.offset && entry.offset >= base_offset);
        if !points_well {
            let position = (number * OFFSET_ENTRY_BYTES) as u64;
            return Some((position, format!("no batch with offset {} lies at position {}", entry.offset, entry.position)));
        }
    }
    None
}

/// `aborted` are the transactions that it must name, as far as that is known.
fn transaction_index(bytes: &[u8], aborted: &[AbortedTransaction]) -> Option<(u64, String)> {
    let entries = transaction_index::decode(bytes);
    let whole_bytes = entries.len() * ABORTED_TRANSACTION_BYTES;
    if whole_bytes != bytes.len() {
        return Some((whole_bytes as u64, "entries are cut or out of order".to_owned()));
    }
    let names = |aborted: &AbortedTransaction| {
        let named = entries.binary_search_by_key(&aborted.last_offset, |entry| entry.last_offset).map(|index| entries[index]);
        named.is_ok_and(|named| named.producer_id == aborted.producer_id && named.first_offset <= aborted.first_offset)
    };
    let unnamed = aborted.iter().find(|aborted| !names(aborted))?;
    Some((0, format!("the transaction that was aborted at offset {} is not in it", unnamed.last_offset)))
}

fn time_index(base_offset: i64, bytes: &[u8]) -> Option<(u64, String)> {
    if !bytes.len().is_multiple_of(TIME_ENTRY_BYTES) {
        return Some((0, "its length is no multiple of an entry's".to_owned()));
    }
    let index = TimeIndex::new(base_offset, bytes);
    let is_falling = |number: &usize| {
        let (before, entry) = (index.entry(*number - 1), index.entry(*number));
        entry.timestamp < before.timestamp || entry.offset < before.offset
    };
    let number = (1..index.len()).find(is_falling)?;
    Some(((number * TIME_ENTRY_BYTES) as u64, "entries are out of order".to_owned()))
}
