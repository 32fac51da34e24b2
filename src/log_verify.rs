//! `corelane log verify`: reads everything in data directories and names what is damaged, changing nothing.
//!
//! Segments: every batch whole, its checksum right, its records readable and as many as it says, offsets counting on, leader epochs not falling. Indexes, which are only hints:
//! entries in order and pointing at batches. Producer snapshots: their checksum.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corelane::log::dump::{self, DumpOptions};
use corelane::log::file_names::{LogFileKind, PartitionDirectory};
use corelane::log::offset_index::OffsetIndex;
use corelane::log::producer_snapshot;
use corelane::log::time_index::TimeIndex;
use corelane::log::transaction_index::{self, ABORTED_TRANSACTION_BYTES};

use crate::log_dump::{Batches, Next};
use crate::output;

/// Bytes of one entry of an offset index and of a time index.
const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 12;

/// Verifies data directories, or directories of single partitions. Exit code 1 where anything is damaged.
pub fn run(directories: &[PathBuf]) -> ExitCode {
    let mut verification = Verification::default();
    for directory in directories {
        if let Err(error) = verification.directory(directory) {
            return output::refuse(&format!("{}: {error}", directory.display()));
        }
    }
    verification.finish()
}

#[derive(Default)]
struct Verification {
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
}

impl Verification {
    /// A data directory, or a partition's own.
    fn directory(&mut self, directory: &Path) -> io::Result<()> {
        if is_partition(directory) {
            return self.partition(directory);
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
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
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((kind, base_offset)) = LogFileKind::parse(&name) {
                files.entry(base_offset).or_default().push((kind, path));
            }
        }
        let segments: Vec<i64> =
            files.iter().filter(|(_, files)| files.iter().any(|(kind, _)| *kind == LogFileKind::Log)).map(|(base, _)| *base).collect();
        let mut reading = Reading { next_offset: segments.first().copied().unwrap_or(0), leader_epoch: 0 };
        for (base_offset, files) in &files {
            let mut positions = Vec::new();
            if let Some((_, path)) = files.iter().find(|(kind, _)| *kind == LogFileKind::Log) {
                positions = self.segment(path, *base_offset, &mut reading, segments.last() == Some(base_offset))?;
            }
            for (kind, path) in files {
                self.beside(*kind, path, *base_offset, &positions)?;
            }
            self.progress();
        }
        Ok(())
    }

    /// Reads a segment; gives position and last offset of its batches.
    fn segment(&mut self, path: &Path, base_offset: i64, reading: &mut Reading, is_last: bool) -> io::Result<Vec<(u64, i64)>> {
        self.segments += 1;
        if base_offset < reading.next_offset {
            self.damage(path, 0, &format!("the segment before it ends at offset {}", reading.next_offset));
        }
        reading.next_offset = base_offset;
        let mut positions = Vec::new();
        let mut batches = Batches::open(path)?;
        loop {
            let position = batches.position;
            let (header, batch) = match batches.read_next()? {
                Next::Batch(header, batch) => (header, batch),
                Next::End { bytes_left, reason } => {
                    // Less than a block of zeros may follow the last batch of a log that is not closed.
                    let is_prepared = is_last && reason.starts_with("zeros");
                    if bytes_left > 0 && !is_prepared {
                        self.damage(path, position, &format!("{bytes_left} bytes are no batches: {reason}"));
                    }
                    return Ok(positions);
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
            positions.push((position, header.last_offset()));
        }
    }

    fn beside(&mut self, kind: LogFileKind, path: &Path, base_offset: i64, positions: &[(u64, i64)]) -> io::Result<()> {
        match kind {
            LogFileKind::OffsetIndex => self.offset_index(path, base_offset, &std::fs::read(path)?, positions),
            LogFileKind::TimeIndex => self.time_index(path, base_offset, &std::fs::read(path)?),
            LogFileKind::TransactionIndex => {
                let bytes = std::fs::read(path)?;
                if transaction_index::decode(&bytes).len() * ABORTED_TRANSACTION_BYTES != bytes.len() {
                    self.damage(path, 0, "entries are cut or out of order");
                }
            }
            LogFileKind::ProducerSnapshot => {
                if let Err(error) = producer_snapshot::decode(&std::fs::read(path)?) {
                    self.damage(path, 0, &error.to_string());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn offset_index(&mut self, path: &Path, base_offset: i64, bytes: &[u8], positions: &[(u64, i64)]) {
        if !bytes.len().is_multiple_of(OFFSET_ENTRY_BYTES) {
            return self.damage(path, 0, "its length is no multiple of an entry's");
        }
        let index = OffsetIndex::new(base_offset, bytes);
        for number in 0..index.len() {
            let entry = index.entry(number);
            let batch = positions.binary_search_by_key(&u64::from(entry.position), |(position, _)| *position);
            let points_well = batch.is_ok_and(|batch| positions[batch].1 >= entry.offset && entry.offset >= base_offset);
            if !points_well {
                let position = (number * OFFSET_ENTRY_BYTES) as u64;
                return self.damage(path, position, &format!("no batch with offset {} lies at position {}", entry.offset, entry.position));
            }
        }
    }

    fn time_index(&mut self, path: &Path, base_offset: i64, bytes: &[u8]) {
        if !bytes.len().is_multiple_of(TIME_ENTRY_BYTES) {
            return self.damage(path, 0, "its length is no multiple of an entry's");
        }
        let index = TimeIndex::new(base_offset, bytes);
        let is_falling = |number: &usize| {
            let (before, entry) = (index.entry(*number - 1), index.entry(*number));
            entry.timestamp < before.timestamp || entry.offset < before.offset
        };
        if let Some(number) = (1..index.len()).find(is_falling) {
            self.damage(path, (number * TIME_ENTRY_BYTES) as u64, "entries are out of order");
        }
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
        let Verification { partitions, segments, batches, records, bytes, damages } = self;
        println!(
            "{partitions} partitions, {segments} segments, {batches} batches, {records} records, {bytes} bytes: {damages} damaged places"
        );
        if *damages == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn is_partition(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    matches!(PartitionDirectory::parse(&name), Some(PartitionDirectory::Live { .. }))
}
