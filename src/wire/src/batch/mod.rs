//! Record batches of magic 2, by hand: what producers send, what lies in segments, what consumers get, byte for byte the same.
//!
//! A batch is a header of 61 bytes ([`BatchHeader`]) and its records. The records of an uncompressed batch are walked in place ([`RecordIterator`]); compressed ones come out
//! of a [`Decompressor`] in slices of at most [`SLICE_BYTES`], and a [`RecordScanner`] takes the facts of each record from such slices without ever holding the whole. All
//! work on large batches can be cut this way, so that a shard does something else between two slices.

mod builder;
mod checksum;
mod compress;
mod decompress;
mod header;
mod record;
mod rewrite;
mod scanner;
mod seal;
mod snappy;
mod varint;

pub use builder::{BatchBuilder, BatchOptions};
pub use checksum::{Crc32c, crc32c};
pub use compress::{CompressError, Compressor};
pub use decompress::{DecompressError, Decompressor, decompress_all, working_memory_bytes};
pub use header::{
    Attributes, BatchError, BatchHeader, BatchIterator, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP, TimestampType, set_base_offset, set_crc, set_max_timestamp, set_partition_leader_epoch,
};
pub use record::{HeaderIterator, RecordError, RecordHeader, RecordIterator, RecordRef};
pub use rewrite::{BatchRewriter, emptied_batch};
pub use scanner::{RecordFacts, RecordScanner};
pub use seal::Sealing;

/// The most that one step of decompression, compression, checking or scanning works on, in bytes.
pub const SLICE_BYTES: usize = 64 * 1024;

/// Whether work in slices has to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Done,
}

#[cfg(test)]
mod tests;
