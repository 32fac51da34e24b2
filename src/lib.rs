//! Corelane, a drop-in Apache Kafka broker: thread per core, io_uring, direct I/O.
//!
//! A request walks through the driving rooms in this order: `net`, `api`, `shard`, `drive`, `partition`, `disk`, `rt`. Each may call those after it, never those before it, and all of
//! them may call the pure rooms. ARCHITECTURE.md tells the whole way; `tests/architecture.rs` keeps it so.

// Driving rooms: they may await.
pub mod api;
pub mod disk;
pub mod drive;
pub mod net;
pub mod partition;
pub mod rt;
pub mod shard;

// Pure rooms: synchronous, time and randomness are arguments, no I/O.
pub mod cluster;
pub mod config;
pub mod group;
pub mod log;
pub mod txn;

// The log of the process, no room of the flow: events of all rooms become lines in it.
pub mod logging;

pub use corelane_wire as wire;
