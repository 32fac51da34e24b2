//! A segment that compaction writes: its batches go out in large direct writes, its indexes are kept in memory until it is whole. And how its files take the place of others.
//!
//! The steps and names are Kafka's (LogSegment, LocalLog.replaceSegments): files are written as `*.cleaned`, flushed, and renamed to `*.swap`, from which moment on they are whole.
//! Then, once the journal holds the exchange, the replaced segments' files go and `.swap` is taken from the names. A crash before the entry is durable leaves files that nobody
//! wants; after it, a restart carries out what is left (`swap_segments_blocking`, which may be repeated).

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use crate::disk::journal::group::BLOCK_BYTES;
use crate::log::file_names::{CLEANED_SUFFIX, LogFileKind, SWAP_SUFFIX};
use crate::log::state::ActiveIndexes;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{BatchInfo, SegmentBook};
use crate::rt;
use crate::rt::buffer::AlignedBuffer;
use crate::rt::file::{
    Durability, File, FileError, OpenMode, list_directory_blocking, remove_blocking, rename_blocking, sync_directory_blocking,
};

/// Bytes written at once.
const WRITE_BYTES: usize = 512 << 10;
/// Bytes copied between two looks at what else the shard has to do.
const COPY_BYTES: usize = 64 << 10;

/// The files that change places; producer snapshots belong to offsets, not to what is in a segment.
const KINDS: [LogFileKind; 4] = [LogFileKind::OffsetIndex, LogFileKind::TimeIndex, LogFileKind::TransactionIndex, LogFileKind::Log];

/// A segment that is being written.
pub struct CompactedSegment {
    directory: Rc<Path>,
    file: File,
    book: SegmentBook,
    indexes: ActiveIndexes,
    index_interval_bytes: i32,
    aborted: Vec<AbortedTransaction>,
    /// What is not in the file yet; it begins at `position`, a multiple of the block.
    buffer: AlignedBuffer,
    position: u64,
}

impl CompactedSegment {
    /// Begins a segment in `directory` whose name is that of the first segment it replaces.
    pub async fn begin(
        directory: Rc<Path>,
        base_offset: i64,
        created_ms: i64,
        index_interval_bytes: i32,
        direct: bool,
    ) -> Result<Self, FileError> {
        let path = directory.join(format!("{}{CLEANED_SUFFIX}", LogFileKind::Log.name(base_offset)));
        let file = File::open(path, OpenMode { truncate: true, ..OpenMode::CREATE }.direct(direct)).await?;
        Ok(Self {
            directory,
            file,
            book: SegmentBook::empty(base_offset, created_ms),
            indexes: ActiveIndexes::empty(base_offset),
            index_interval_bytes,
            aborted: Vec::new(),
            buffer: AlignedBuffer::with_capacity(WRITE_BYTES),
            position: 0,
        })
    }

    /// The next batch.
    pub async fn append(&mut self, info: &BatchInfo, mut batch: Bytes) -> Result<(), FileError> {
        let position = self.book.size_bytes;
        self.book.add(info);
        self.indexes.add(info, position, &self.book, self.index_interval_bytes);
        while !batch.is_empty() {
            let piece = batch.split_to(batch.len().min(COPY_BYTES).min(WRITE_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(&piece);
            if self.buffer.len() == WRITE_BYTES {
                self.write_buffer().await?;
            } else if !batch.is_empty() {
                rt::yield_now().await;
            }
        }
        Ok(())
    }

    /// An aborted transaction whose marker the segment holds.
    pub fn add_aborted(&mut self, entry: AbortedTransaction) {
        self.aborted.push(entry);
    }

    async fn write_buffer(&mut self) -> Result<(), FileError> {
        let mut full = std::mem::replace(&mut self.buffer, AlignedBuffer::with_capacity(WRITE_BYTES));
        let length = full.len() as u64;
        full.pad_to(BLOCK_BYTES);
        self.file.write_at(full.freeze(), self.position, Durability::None).await?;
        self.position += length;
        Ok(())
    }

    /// Writes the rest and the indexes, flushes everything, and gives the files the names of those that are about to take their place. `modified_ms` is the time that the file is to
    /// bear: for records without timestamps it tells how old they are.
    pub async fn finish(mut self, modified_ms: Option<i64>) -> Result<SegmentBook, FileError> {
        if !self.buffer.is_empty() {
            self.write_buffer().await?;
        }
        if let Some(max_timestamp) = self.book.max_timestamp {
            self.indexes.time_index.push_if_later(max_timestamp);
        }
        let (book, directory) = (self.book, self.directory.to_path_buf());
        let offsets = self.indexes.offset_index.unwritten().to_vec();
        let times = self.indexes.time_index.unwritten().to_vec();
        let mut aborted = Vec::new();
        self.aborted.iter().for_each(|entry| entry.encode(&mut aborted));
        self.file.set_len(u64::from(book.size_bytes)).await?;
        self.file.sync_all().await?;
        rt::blocking(move || {
            let contents = [(LogFileKind::OffsetIndex, offsets), (LogFileKind::TimeIndex, times), (LogFileKind::TransactionIndex, aborted)];
            for (kind, content) in contents {
                let path = with_suffix(&directory, kind, book.base_offset, CLEANED_SUFFIX);
                let file = File::open_blocking(path, OpenMode { truncate: true, ..OpenMode::CREATE })?;
                file.write_at_blocking(&content, 0, Durability::None)?;
                file.sync_all_blocking()?;
            }
            if let Some(modified_ms) = modified_ms.and_then(|modified_ms| u64::try_from(modified_ms).ok()) {
                let path = with_suffix(&directory, LogFileKind::Log, book.base_offset, CLEANED_SUFFIX);
                let modified = std::time::UNIX_EPOCH + std::time::Duration::from_millis(modified_ms);
                // A hint for retention; a filesystem that does not take it costs nothing but age.
                let _ = std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(modified));
            }
            for kind in KINDS {
                let to = with_suffix(&directory, kind, book.base_offset, SWAP_SUFFIX);
                rename_blocking(with_suffix(&directory, kind, book.base_offset, CLEANED_SUFFIX), to)?;
            }
            sync_directory_blocking(&directory)?;
            Ok(book)
        })
        .await
    }

    /// The round is given up: what was written of it goes.
    pub async fn abandon(self) {
        let path = self.file.path().to_path_buf();
        // What cannot be removed now the next start removes.
        let _ = rt::file::remove(path).await;
    }
}

/// Takes back what `finish` has left when it failed.
pub fn discard_unfinished_blocking(directory: &Path, base_offset: i64) {
    for kind in KINDS {
        let _ = remove_blocking(with_suffix(directory, kind, base_offset, CLEANED_SUFFIX));
    }
    discard_swap_blocking(directory, base_offset);
}

/// Takes `.swap` files back that will not be swapped in.
pub fn discard_swap_blocking(directory: &Path, base_offset: i64) {
    for kind in KINDS {
        let _ = remove_blocking(with_suffix(directory, kind, base_offset, SWAP_SUFFIX));
    }
}

/// Gives the `.swap` files of `replaced.start` their names, after the files of the other replaced segments have gone. The log's file comes last: as long as it is there, the rest may
/// be missing. Flushed when it returns.
pub fn swap_segments_blocking(directory: &Path, replaced: Range<i64>) -> Result<(), FileError> {
    for name in list_directory_blocking(directory)? {
        if matches!(LogFileKind::parse(&name), Some((_, base)) if base > replaced.start && base < replaced.end) {
            remove_blocking(directory.join(name))?;
        }
    }
    for kind in KINDS {
        let to = directory.join(kind.name(replaced.start));
        match rename_blocking(with_suffix(directory, kind, replaced.start, SWAP_SUFFIX), &to) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        // A segment without aborted transactions has no index of them.
        if kind == LogFileKind::TransactionIndex && std::fs::metadata(&to).is_ok_and(|metadata| metadata.len() == 0) {
            remove_blocking(to)?;
        }
    }
    sync_directory_blocking(directory)
}

fn with_suffix(directory: &Path, kind: LogFileKind, base_offset: i64, suffix: &str) -> PathBuf {
    directory.join(format!("{}{suffix}", kind.name(base_offset)))
}
