//! The leader epochs of a log: at which offset each began. Consumers and followers ask it where an epoch ended, and so find the point at which two logs part (KIP-101, KIP-320).
//!
//! Kept in memory in full (an epoch is a few bytes and there is one for each change of leadership), on disk in the text file `leader-epoch-checkpoint`.

use super::{NO_LEADER_EPOCH, NO_OFFSET};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: i32,
    pub start_offset: i64,
}

/// Epochs and start offsets, both strictly rising from entry to entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    /// Takes entries in any order and state, as a file may hold them; a later one removes those that contradict it.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> Self {
        let mut epochs = Self::default();
        for entry in entries {
            epochs.assign(entry.epoch, entry.start_offset);
        }
        epochs
    }

    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    pub fn earliest(&self) -> Option<EpochEntry> {
        self.entries.first().copied()
    }

    /// Notes that `epoch` begins at `start_offset`. Returns whether that was news.
    ///
    /// Entries with an equal or later epoch or offset were never written to under the new leader's history; they go. Example: [2 @ 10, 3 @ 20] and then (4, 20) becomes
    /// [2 @ 10, 4 @ 20], as epoch 3 left no record.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || start_offset < 0 {
            return false;
        }
        if self.latest().is_some_and(|latest| latest.epoch == epoch && latest.start_offset <= start_offset) {
            return false;
        }
        while self.latest().is_some_and(|latest| latest.epoch >= epoch || latest.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The largest known epoch that is not above `requested`, and the offset at which it ended (exclusive). (-1, -1) if that cannot be said.
    ///
    /// The latest epoch ends at the log's end. An epoch below all known ones ended, as far as this log can tell, where the first known one begins.
    pub fn end_offset_for(&self, requested: i32, log_end_offset: i64) -> (i32, i64) {
        const UNKNOWN: (i32, i64) = (NO_LEADER_EPOCH, NO_OFFSET);
        if requested < 0 {
            return UNKNOWN;
        }
        if self.latest().is_some_and(|latest| latest.epoch == requested) {
            return (requested, log_end_offset);
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= requested);
        match self.entries.get(next) {
            None => UNKNOWN,
            Some(higher) if next == 0 => (requested, higher.start_offset),
            Some(higher) => (self.entries[next - 1].epoch, higher.start_offset),
        }
    }

    /// The epoch under which the record at `offset` was written, if known.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let next = self.entries.partition_point(|entry| entry.start_offset <= offset);
        next.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// The log now begins at `start_offset`: epochs that ended before are forgotten, the one that reaches into it begins there.
    pub fn truncate_from_start(&mut self, start_offset: i64) {
        let next = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if next > 0 {
            self.entries.drain(..next - 1);
            self.entries[0].start_offset = start_offset;
        }
    }

    /// The log now ends at `end_offset`: epochs that begin there or later are forgotten.
    pub fn truncate_from_end(&mut self, end_offset: i64) {
        let keep = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        self.entries.truncate(keep);
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs::from_entries(entries.iter().map(|&(epoch, start_offset)| EpochEntry { epoch, start_offset }))
    }

    #[test]
    fn end_of_an_epoch_is_the_start_of_the_next_known_one() {
        let cache = epochs(&[(2, 10), (3, 20), (7, 50)]);
        assert_eq!(cache.end_offset_for(7, 80), (7, 80));
        assert_eq!(cache.end_offset_for(3, 80), (3, 50));
        assert_eq!(cache.end_offset_for(5, 80), (3, 50), "an unknown epoch between two known ones falls back to the earlier");
        assert_eq!(cache.end_offset_for(1, 80), (1, 10), "below all known ones: where the first begins");
        assert_eq!(cache.end_offset_for(8, 80), (-1, -1), "above all known ones: not ours to say");
        assert_eq!(cache.end_offset_for(-1, 80), (-1, -1));
        assert_eq!(epochs(&[]).end_offset_for(0, 80), (-1, -1));
    }

    #[test]
    fn an_epoch_without_records_leaves_no_trace() {
        let mut cache = epochs(&[(2, 10), (3, 20)]);
        assert!(cache.assign(4, 20));
        assert_eq!(cache, epochs(&[(2, 10), (4, 20)]));
        assert!(!cache.assign(4, 25), "an epoch begins once");
        assert!(cache.assign(5, 5), "a start below others contradicts them");
        assert_eq!(cache, epochs(&[(5, 5)]));
    }

    #[test]
    fn truncation_cuts_both_ends() {
        let mut cache = epochs(&[(2, 10), (3, 20), (7, 50)]);
        cache.truncate_from_start(30);
        assert_eq!(cache, epochs(&[(3, 30), (7, 50)]));
        cache.truncate_from_end(50);
        assert_eq!(cache, epochs(&[(3, 30)]));
        assert_eq!(cache.epoch_at(29), None);
        assert_eq!(cache.epoch_at(30), Some(3));
    }
}
