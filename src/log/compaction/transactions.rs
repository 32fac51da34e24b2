//! Which transactions a walk over a log is in: what belongs to an aborted one may go, and a marker may go once nothing of its transaction is left (Kafka's
//! CleanedTransactionMetadata).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::{HashMap, HashSet};

use crate::log::transaction_index::AbortedTransaction;
use crate::log::{BatchInfo, EndMarker};

#[derive(Debug, Default)]
pub struct TransactionTracker {
    /// Aborted ones that the walk has not reached: first offset, and the entry's place in `entries`.
    ahead: BinaryHeap<Reverse<(i64, usize)>>,
    entries: Vec<AbortedTransaction>,
    /// Producers whose aborted transaction the walk is in.
    aborted: HashMap<i64, Aborted>,
    /// Producers of whose transactions, none of them known to be aborted, the walk has seen a batch.
    committed: HashSet<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Aborted {
    entry: AbortedTransaction,
    /// A batch of it was there.
    is_seen: bool,
}

/// What becomes of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerFate {
    /// Nothing of its transaction is left, so that it may go when its time has come.
    pub is_discardable: bool,
    /// It stays, and so does this entry of the transaction index.
    pub kept_entry: Option<AbortedTransaction>,
}

impl TransactionTracker {
    /// Aborted transactions that the walk is going to meet; one that is told twice does no harm as long as the walk has not passed its marker.
    pub fn add(&mut self, aborted: &[AbortedTransaction]) {
        for entry in aborted {
            self.ahead.push(Reverse((entry.first_offset, self.entries.len())));
            self.entries.push(*entry);
        }
    }

    /// The walk meets a batch of records. Whether they belong to an aborted transaction.
    pub fn on_batch(&mut self, info: &BatchInfo) -> bool {
        self.advance(info.last_offset());
        if !info.is_transactional {
            return false;
        }
        match self.aborted.get_mut(&info.producer_id) {
            Some(aborted) => {
                aborted.is_seen = true;
                true
            }
            None => {
                self.committed.insert(info.producer_id);
                false
            }
        }
    }

    /// The walk meets a control batch; `marker` is what it says, if it ends a transaction.
    pub fn on_control(&mut self, info: &BatchInfo, marker: Option<EndMarker>) -> MarkerFate {
        self.advance(info.last_offset());
        let discardable = |is_discardable| MarkerFate { is_discardable, kept_entry: None };
        match marker {
            // Its record went in an earlier round.
            None if info.record_count == 0 => discardable(true),
            // A control record of another kind.
            None => discardable(false),
            Some(EndMarker { is_commit: true, .. }) => discardable(!self.committed.remove(&info.producer_id)),
            Some(EndMarker { is_commit: false, .. }) => match self.aborted.remove(&info.producer_id) {
                Some(aborted) if aborted.is_seen => MarkerFate { is_discardable: false, kept_entry: Some(aborted.entry) },
                _ => discardable(true),
            },
        }
    }

    fn advance(&mut self, offset: i64) {
        while let Some(Reverse((first_offset, index))) = self.ahead.peek().copied() {
            if first_offset > offset {
                return;
            }
            self.ahead.pop();
            let entry = self.entries[index];
            self.aborted.entry(entry.producer_id).or_insert(Aborted { entry, is_seen: false });
        }
    }
}
