//! Writing the index files of a segment, and making again what a crash has kept from them.
//!
//! Indexes can always be made from the batches, so nothing here is flushed; a reader looks only at the part that makes sense (`OffsetIndex::checked`) and verifies what it uses.
//! Entries are written only for batches that are placed: what a file says was durable when it was said.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::disk::directories::DirectoryError;
use crate::disk::reader::{ReadError, Reader, SegmentView};
use crate::log::file_names::LogFileKind;
use crate::log::offset_index::{OFFSET_ENTRY_BYTES, OffsetEntry, OffsetIndex, OffsetIndexTail};
use crate::log::time_index::{TIME_ENTRY_BYTES, TimeEntry, TimeIndex, TimeIndexTail};
use crate::log::transaction_index::{self, ABORTED_TRANSACTION_BYTES, AbortedTransaction};
use crate::log::{BatchInfo, NO_TIMESTAMP};
use crate::rt;
use crate::rt::file::{Durability, File, FileError, OpenMode, sync_directory_blocking};

/// What the files of a segment's two indexes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFilesState {
    pub offset_entries: u32,
    pub time_entries: u32,
    /// The last entries.
    pub last_offset_entry: Option<OffsetEntry>,
    pub last_time_entry: Option<TimeEntry>,
}

/// Opens the index files of a segment that was found at a start: cuts them to what makes sense and is not beyond `size_bytes`, and says what that is. Missing files are empty.
pub async fn open(directory: &Path, base_offset: i64, size_bytes: u32) -> Result<IndexFilesState, FileError> {
    let directory = directory.to_path_buf();
    rt::blocking(move || {
        let mut state = IndexFilesState::default();
        cut_to(&directory.join(LogFileKind::OffsetIndex.name(base_offset)), |bytes| {
            let index = OffsetIndex::checked(base_offset, bytes, size_bytes);
            state.offset_entries = index.len() as u32;
            state.last_offset_entry = index.len().checked_sub(1).map(|last| index.entry(last));
            index.bytes().len()
        })?;
        cut_to(&directory.join(LogFileKind::TimeIndex.name(base_offset)), |bytes| {
            let index = TimeIndex::checked(base_offset, bytes);
            state.time_entries = index.len() as u32;
            state.last_time_entry = index.last();
            index.bytes().len()
        })?;
        Ok(state)
    })
    .await
}

fn cut_to(path: &Path, mut valid_bytes: impl FnMut(&[u8]) -> usize) -> Result<(), FileError> {
    let file = match File::open_blocking(path, OpenMode::READ_WRITE) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.length()?;
    let valid = valid_bytes(&file.read_at_blocking(length as usize, 0)?) as u64;
    if valid < length { file.set_len_blocking(valid) } else { Ok(()) }
}

/// What is to be appended to the index files of a segment.
#[derive(Clone, Debug)]
pub struct IndexAppend {
    pub directory: PathBuf,
    pub base_offset: i64,
    /// Entries that the files hold.
    pub offset_entries: u32,
    pub time_entries: u32,
    pub offset_bytes: Bytes,
    pub time_bytes: Bytes,
    pub aborted: Vec<AbortedTransaction>,
    /// The segment takes no more batches: files are made even if they are empty, as Kafka expects them, and cut to their last entry.
    pub is_final: bool,
}

impl IndexAppend {
    pub fn offset_entries_after(&self) -> u32 {
        self.offset_entries + (self.offset_bytes.len() / OFFSET_ENTRY_BYTES) as u32
    }

    pub fn time_entries_after(&self) -> u32 {
        self.time_entries + (self.time_bytes.len() / TIME_ENTRY_BYTES) as u32
    }

    /// On a helper thread or before the shards start.
    pub fn write_blocking(&self) -> Result<(), DirectoryError> {
        self.append(LogFileKind::OffsetIndex, self.offset_entries as usize * OFFSET_ENTRY_BYTES, &self.offset_bytes)?;
        self.append(LogFileKind::TimeIndex, self.time_entries as usize * TIME_ENTRY_BYTES, &self.time_bytes)?;
        self.append_aborted()
    }

    fn append(&self, kind: LogFileKind, position: usize, bytes: &[u8]) -> Result<(), FileError> {
        if bytes.is_empty() && !self.is_final {
            return Ok(());
        }
        let file = File::open_blocking(self.directory.join(kind.name(self.base_offset)), OpenMode::CREATE)?;
        file.write_at_blocking(bytes, position as u64, Durability::None)?;
        let end = (position + bytes.len()) as u64;
        if self.is_final && file.length()? != end { file.set_len_blocking(end) } else { Ok(()) }
    }

    /// Behind the last sound entry, and flushed: unlike the other indexes this one changes what a reader is told, and the entries leave memory when they are here.
    fn append_aborted(&self) -> Result<(), DirectoryError> {
        if self.aborted.is_empty() {
            return Ok(());
        }
        let name = LogFileKind::TransactionIndex.name(self.base_offset);
        let file = File::open_blocking(self.directory.join(&name), OpenMode::CREATE)?;
        let is_new = file.length()? == 0;
        let entries = transaction_index::decode(&file.read_at_blocking(file.length()? as usize, 0)?);
        let last_offset = entries.last().map_or(-1, |last| last.last_offset);
        let mut bytes = Vec::new();
        self.aborted.iter().filter(|entry| entry.last_offset > last_offset).for_each(|entry| entry.encode(&mut bytes));
        let position = (entries.len() * ABORTED_TRANSACTION_BYTES) as u64;
        file.write_at_blocking(&bytes, position, Durability::None)?;
        file.set_len_blocking(position + bytes.len() as u64)?;
        file.sync_all_blocking()?;
        if is_new {
            sync_directory_blocking(&self.directory)?;
        }
        Ok(())
    }
}

/// Takes entries out of a segment's transaction index whose markers lie at or above `end_offset`: the log was cut there.
pub fn cut_aborted_blocking(directory: &Path, base_offset: i64, end_offset: i64) -> Result<(), FileError> {
    cut_to(&directory.join(LogFileKind::TransactionIndex.name(base_offset)), |bytes| {
        let entries = transaction_index::decode(bytes);
        entries.iter().take_while(|entry| entry.last_offset < end_offset).count() * ABORTED_TRANSACTION_BYTES
    })
}

/// Entries for the batches of a segment from the last one that its files speak of up to `view.size_bytes`: what a crash has kept from them. The same ones that the log would
/// have written, but for their exact places.
pub async fn missing_entries(
    reader: &Reader,
    view: &SegmentView,
    state: &IndexFilesState,
    interval_bytes: u32,
) -> Result<(OffsetIndexTail, TimeIndexTail), ReadError> {
    let mut offsets = OffsetIndexTail::new(view.base_offset, state.offset_entries);
    let mut times = TimeIndexTail::new(view.base_offset, state.time_entries, state.last_time_entry);
    // An entry whose batch is not there is not the end of a sound index: then everything is made again.
    let last = match state.last_offset_entry {
        Some(entry) if reader.batch_at(view, entry.position).await?.is_some_and(|batch| batch.last_offset() == entry.offset) => Some(entry),
        Some(_) => {
            offsets = OffsetIndexTail::new(view.base_offset, 0);
            times = TimeIndexTail::new(view.base_offset, 0, None);
            None
        }
        None => None,
    };
    let from = last.map_or(0, |entry| entry.position);
    let mut max_timestamp: Option<TimeEntry> = times.last();
    let mut bytes_since_entry = 0;
    reader
        .walk_headers(view, from, |position, info: &BatchInfo| {
            if info.max_timestamp > max_timestamp.map_or(NO_TIMESTAMP, |max| max.timestamp) {
                max_timestamp = Some(TimeEntry { timestamp: info.max_timestamp, offset: info.last_offset() });
            }
            let is_noted = last.is_some_and(|last| position <= last.position);
            if bytes_since_entry > interval_bytes && !is_noted {
                offsets.push(OffsetEntry { offset: info.last_offset(), position });
                if let Some(max_timestamp) = max_timestamp {
                    times.push_if_later(max_timestamp);
                }
                bytes_since_entry = 0;
            }
            bytes_since_entry = bytes_since_entry.saturating_add(info.size_bytes);
        })
        .await?;
    Ok((offsets, times))
}
