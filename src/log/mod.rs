//! The log of one partition without I/O: offsets, segments, producer state, leader epochs, indexes and Kafka's file formats.
//!
//! `state` is the machine that a partition drives: it admits a batch (`Log::check`), says where it goes (`Log::append`) and keeps every book that a reader or a restart asks
//! for. Below it each file guards one noun. Nothing here reads a clock or a file: time is an argument, bytes come in and go out. Kafka's classes of the same names
//! (storage/internals/log) are the original.

pub mod batch;
pub mod checkpoint_file;
pub mod compaction;
pub mod directory_files;
pub mod dump;
pub mod error;
pub mod file_names;
pub mod leader_epoch;
pub mod offset_index;
pub mod producer_snapshot;
pub mod producer_state;
pub mod retention;
pub mod segment_scan;
pub mod segments;
pub mod state;
pub mod time_index;
pub mod time_lookup;
pub mod transaction_index;
pub mod validation;

pub use batch::{BATCH_HEADER_BYTES, BatchInfo, EndMarker, Origin, ValidatedBatch};
pub use error::AppendError;
pub use leader_epoch::{EpochEntry, LeaderEpochs};
pub use producer_state::{ProducerStates, ProducerView, Producers, VerificationGuard, view_some};
pub use segments::{RollRules, SegmentBook, Segments};
pub use state::{Admission, Appended, Log, LogStart, Placed, Roll};

/// The value of a timestamp, a sequence number, an epoch or a producer id that is not there (Kafka's RecordBatch.NO_*).
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;
pub const NO_LEADER_EPOCH: i32 = -1;
pub const NO_OFFSET: i64 = -1;
