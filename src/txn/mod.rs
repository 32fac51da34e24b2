//! Transaction coordinators as pure machines: a decision returns a record and a reply, and only replaying a record changes the state (KIP-98, KIP-360, KIP-890).
//!
//! A `Coordinator` is the state of one partition of `__transaction_state`: the transactional ids that hash to it. It lives on the shard that owns the partition, where
//! `drive::transactions` loads it, appends what it decides, writes the markers of what is decided, and carries its replies. Everything is synchronous; time and fresh producer
//! ids come in with each call.
//!
//! Two protocols meet here. Under version 1 a producer registers partitions itself and keeps its epoch from one transaction to the next. Under version 2 (KIP-890) brokers
//! register them with the first append, and the end of every transaction raises the epoch, so that nothing late can touch the next one.

mod call;
mod coordinator;
mod record;
mod transaction;

#[cfg(test)]
mod tests;

pub use call::{Call, Listed, Reply};
pub use coordinator::{Completion, Coordinator, NeedsProducerId, Step, TransactionConfig};
pub use record::{RecordError, TransactionRecord};
pub use transaction::{State, Transaction};

/// The topic that holds the states of transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// From this level of `transaction.version` on the end of a transaction raises the producer's epoch.
pub const EPOCH_BUMP_VERSION: i16 = 2;

/// A producer in one of its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

/// A partition by the name of its topic: how transactions remember what they have touched.
pub type TopicPartition = (crate::wire::Str, i32);
