//! What a read of a partition comes to: owned pieces, either bytes that lie in memory or a range of a segment file. Nothing in a plan borrows from the partition.

use bytes::Bytes;

use crate::rt::file::File;

/// A part of the records that a fetch is answered with.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Whole batches in memory, shared with the tail cache.
    Memory(Bytes),
    /// A range of a segment file; its last batch may be cut, as in Kafka's own answers.
    File(FileRange),
}

impl Piece {
    /// Bytes on the wire.
    pub fn length(&self) -> usize {
        match self {
            Piece::Memory(bytes) => bytes.len(),
            Piece::File(range) => range.length as usize,
        }
    }
}

/// Bytes of a segment file that are placed, flushed and never written again.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// Opened for reading through the page cache.
    pub file: File,
    /// First byte.
    pub position: u64,
    /// How many.
    pub length: u32,
}
