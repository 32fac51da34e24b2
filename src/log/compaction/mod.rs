//! Compaction: a log keeps the last record of each key. Kafka's cleaner (storage/internals/log: Cleaner, LogCleanerManager, SkimpyOffsetMap), without its I/O.
//!
//! A round reads the part of a log that has not been through it (`choice` says which log and how far), notes the last offset of each key in a map of bounded size (`offset_map`),
//! and then writes the segments from the first one on anew, several small ones into one (`choice::groups`). `transactions` follows which transactions were aborted while it goes
//! along; `filter` decides what stays of each batch. Offsets never change, a batch keeps its last offset whatever goes out of it, and the last batch of a producer stays, if only
//! empty, because it tells which sequence number comes next.

pub mod choice;
pub mod filter;
pub mod offset_map;
pub mod transactions;

pub use choice::{Choice, CompactionRules, CompactionView};
pub use filter::{BatchFilter, Retention, Rewriting, Step};
pub use offset_map::OffsetMap;
pub use transactions::TransactionTracker;

#[cfg(test)]
mod tests;
