//! Carries out the steps of a round on a partition's segment files: direct writes of whole blocks, then a flush.
//!
//! Nothing here is on the way of an acknowledgement; copies are cut into slices with a yield between, so that the shard's clients do not wait for them.

use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::backlog::Cut;
use super::plan::{Extent, Step};
use crate::disk::journal::group::BLOCK_BYTES;
use crate::disk::slow;
use crate::log::file_names::LogFileKind;
use crate::rt;
use crate::rt::buffer::AlignedBuffer;
use crate::rt::file::{
    Durability, File, FileError, FileErrorCause, OpenMode, Operation, list_directory_blocking, remove_blocking, sync_directory,
    sync_directory_blocking,
};
use crate::rt::plant::{Plant, is_planted};

/// Largest single write into a segment.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Bytes copied between two looks at what else the shard has to do.
const COPY_BYTES: usize = 64 << 10;

/// Reads what an extent's first block holds before the extent.
pub async fn read_prefix(directory: &Path, extent: &Extent, direct: bool) -> Result<Bytes, FileError> {
    let path = segment_path(directory, extent.segment_base);
    let file = File::open(path, OpenMode::READ.direct(direct)).await?;
    let block = file.read_at(BLOCK_BYTES, extent.block_position()).await?;
    if block.len() < extent.prefix_bytes() {
        // Somebody has cut the file behind our back.
        let cause = FileErrorCause::Short { expected: extent.prefix_bytes(), actual: block.len() };
        return Err(FileError { operation: Operation::Read, path: file.path().into(), position: Some(extent.block_position()), cause });
    }
    Ok(block.freeze().slice(..extent.prefix_bytes()))
}

/// All steps of a partition, in order. When it returns, everything is flushed.
pub async fn carry_out(directory: &Path, steps: Vec<Step>, direct: bool) -> Result<(), FileError> {
    for step in steps {
        match step {
            Step::Write(extent) => write_extent(directory, extent, direct).await?,
            Step::Finish { segment_base, size_bytes } => cut_file(directory, segment_base, size_bytes).await?,
            Step::Begin { segment_base } => {
                File::open(segment_path(directory, segment_base), OpenMode::CREATE).await?;
                sync_directory(directory).await?;
            }
            Step::Cut(cut) => cut_log(directory, cut).await?,
        }
    }
    Ok(())
}

async fn write_extent(directory: &Path, mut extent: Extent, direct: bool) -> Result<(), FileError> {
    let path = segment_path(directory, extent.segment_base);
    let file = File::open(path, OpenMode::CREATE.direct(direct)).await?;
    let mut position = extent.block_position();
    let mut left = extent.prefix.len() as u64 + extent.length;
    // One write that is durable by itself costs less than a write and a flush.
    let is_flushed = !is_planted(Plant::EarlyRelease);
    let durability = if left <= WRITE_BYTES_MAX as u64 && is_flushed { Durability::Dsync } else { Durability::None };
    let mut head = std::mem::take(&mut extent.prefix);
    while left > 0 {
        let length = left.min(WRITE_BYTES_MAX as u64) as usize;
        let blocks = next_blocks(&mut head, &mut extent, length).await;
        slow::timed(&file, "write to a segment", file.write_growing_at(blocks, position, durability)).await?;
        position += length as u64;
        left -= length as u64;
    }
    if durability == Durability::None && is_flushed {
        slow::timed(&file, "flush of a segment", file.sync_data()).await?;
    }
    if extent.position == 0 {
        // The file may be new: its name has to last as long as its bytes.
        sync_directory(directory).await?;
    }
    Ok(())
}

/// The next `length` bytes, copied together, with zeros up to the next block.
async fn next_blocks(head: &mut Bytes, extent: &mut Extent, length: usize) -> Bytes {
    let mut blocks = AlignedBuffer::with_capacity(length);
    blocks.extend_from_slice(head);
    head.clear();
    while blocks.len() < length {
        let piece = extent.pieces.front_mut().expect("pieces add up to the extent's length");
        let count = piece.len().min(length - blocks.len()).min(COPY_BYTES);
        blocks.extend_from_slice(&piece[..count]);
        piece.advance(count);
        if piece.is_empty() {
            extent.pieces.pop_front();
        }
        if blocks.len() % COPY_BYTES < count {
            rt::yield_now().await;
        }
    }
    blocks.pad_to(BLOCK_BYTES);
    blocks.freeze()
}

/// Cuts a segment's file to its last byte, flushed. A segment that never had a byte may have no file.
pub async fn cut_file(directory: &Path, segment_base: i64, size_bytes: u32) -> Result<(), FileError> {
    let path = segment_path(directory, segment_base);
    rt::blocking(move || {
        let mode = OpenMode { create: size_bytes == 0, ..OpenMode::READ_WRITE };
        let file = File::open_blocking(path, mode)?;
        if file.length()? == u64::from(size_bytes) {
            // Its bytes were flushed when they were written.
            return Ok(());
        }
        file.set_len_blocking(u64::from(size_bytes))?;
        file.sync_data_blocking()
    })
    .await
}

/// The log ends earlier than it did: later segments go, the one that now holds the end is cut.
async fn cut_log(directory: &Path, cut: Cut) -> Result<(), FileError> {
    let later = directory.to_path_buf();
    rt::blocking(move || remove_later_segments_blocking(&later, cut.segment_base)).await?;
    cut_file(directory, cut.segment_base, cut.position).await
}

/// Removes every file of segments that begin after `segment_base`, the last segment first, so that a crash between leaves no gap.
pub fn remove_later_segments_blocking(directory: &Path, segment_base: i64) -> Result<(), FileError> {
    let mut later: Vec<(i64, LogFileKind, PathBuf)> = list_directory_blocking(directory)?
        .into_iter()
        .filter_map(|name| LogFileKind::parse(&name).map(|(kind, base)| (base, kind, directory.join(name))))
        .filter(|(base, ..)| *base > segment_base)
        .collect();
    if later.is_empty() {
        return Ok(());
    }
    later.sort_unstable_by_key(|(base, kind, _)| (std::cmp::Reverse(*base), *kind));
    for (_, _, path) in later {
        remove_blocking(path)?;
    }
    sync_directory_blocking(directory)
}

/// The file with a segment's batches.
pub fn segment_path(directory: &Path, segment_base: i64) -> PathBuf {
    directory.join(LogFileKind::Log.name(segment_base))
}
