//! The broker's own witness, compiled in by the feature `trace`: no response tells of records that no completed durable write covers.
//!
//! A killed process loses nothing that the kernel already has, so a crash test alone cannot see whether writes were durable. Here the journal reports what it collects and how each
//! group's write came back, and whoever queues a response reports what it acknowledges; a range that is not covered ends the process at once, with its name. Records count as
//! covered in the order of the groups, because recovery reads up to the first group that is missing.
//!
//! `CORELANE_PLANT=no-flush` takes the flag away from the journal's writes, to show that the witness speaks up. Without the feature everything here is empty.

use crate::cluster::TopicIdPartition;
use crate::disk::journal::{EntryHeader, GroupSequence};
use crate::rt::file::Durability;
use uuid::Uuid;

#[cfg(not(feature = "trace"))]
mod hooks {
    use super::*;

    pub fn journal_durability() -> Durability {
        Durability::Dsync
    }
    pub fn appended(_: Uuid, _: GroupSequence, _: &EntryHeader) {}
    pub fn written(_: Uuid, _: GroupSequence, _: Durability) {}
    pub fn recovered(_: TopicIdPartition, _: i64) {}
    pub fn acknowledged(_: TopicIdPartition, _: i64, _: i64) {}
}

#[cfg(feature = "trace")]
mod hooks {
    use std::sync::{LazyLock, Mutex, MutexGuard};

    use super::witness::Witness;
    use super::*;

    static WITNESS: LazyLock<Mutex<Witness>> = LazyLock::new(Mutex::default);

    fn witness() -> MutexGuard<'static, Witness> {
        WITNESS.lock().expect("the witness ends the process when it panics")
    }

    pub fn journal_durability() -> Durability {
        match std::env::var("CORELANE_PLANT").as_deref() {
            Ok("no-flush") => Durability::None,
            _ => Durability::Dsync,
        }
    }

    pub fn appended(journal_id: Uuid, sequence: GroupSequence, header: &EntryHeader) {
        witness().appended(journal_id, sequence, header);
    }

    pub fn written(journal_id: Uuid, sequence: GroupSequence, durability: Durability) {
        witness().written(journal_id, sequence, durability);
    }

    pub fn recovered(partition: TopicIdPartition, end_offset: i64) {
        witness().recovered(partition, end_offset);
    }

    pub fn acknowledged(partition: TopicIdPartition, base_offset: i64, last_offset: i64) {
        let is_covered = witness().is_covered(partition, base_offset, last_offset);
        assert!(
            is_covered,
            "trace: offsets {base_offset} to {last_offset} of {partition} are acknowledged, and no completed durable write covers them"
        );
    }
}

/// What the journal writes with: durable writes, unless a test takes the flag away.
pub use hooks::journal_durability;

/// An entry was taken into a group.
pub use hooks::appended;

/// A group's write has completed.
pub use hooks::written;

/// A partition was found on stable storage up to this offset.
pub use hooks::recovered;

/// A response that tells of these records, the last one included, is about to be queued. Panics if they are not on stable storage.
pub use hooks::acknowledged;

#[cfg(any(test, feature = "trace"))]
mod witness {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use crate::disk::journal::EntryKind;

    /// What is known of all journals of the process.
    #[derive(Default)]
    pub struct Witness {
        journals: HashMap<Uuid, JournalTrace>,
        /// By partition: covered ranges, base offset to end offset, apart from each other.
        covered: HashMap<TopicIdPartition, BTreeMap<i64, i64>>,
    }

    #[derive(Default)]
    struct JournalTrace {
        /// Groups up to here are on stable storage.
        durable: u64,
        groups: BTreeMap<u64, GroupTrace>,
    }

    #[derive(Default)]
    struct GroupTrace {
        changes: Vec<Change>,
        is_durable: bool,
    }

    enum Change {
        Covers(TopicIdPartition, i64, i64),
        Cuts(TopicIdPartition, i64),
    }

    impl Witness {
        pub fn appended(&mut self, journal_id: Uuid, sequence: GroupSequence, header: &EntryHeader) {
            let change = match header.kind {
                EntryKind::Append => Change::Covers(header.partition, header.base_offset, header.last_offset + 1),
                EntryKind::Truncate => Change::Cuts(header.partition, header.base_offset),
                _ => return,
            };
            let group = self.journals.entry(journal_id).or_default().groups.entry(sequence.0).or_default();
            group.changes.push(change);
        }

        pub fn written(&mut self, journal_id: Uuid, sequence: GroupSequence, durability: Durability) {
            let journal = self.journals.entry(journal_id).or_default();
            journal.groups.entry(sequence.0).or_default().is_durable = durability == Durability::Dsync;
            let mut changes = Vec::new();
            while journal.groups.get(&(journal.durable + 1)).is_some_and(|group| group.is_durable) {
                journal.durable += 1;
                changes.extend(journal.groups.remove(&journal.durable).expect("it was just there").changes);
            }
            for change in changes {
                match change {
                    Change::Covers(partition, base_offset, end_offset) => self.cover(partition, base_offset, end_offset),
                    Change::Cuts(partition, end_offset) => self.cut(partition, end_offset),
                }
            }
        }

        pub fn recovered(&mut self, partition: TopicIdPartition, end_offset: i64) {
            self.covered.insert(partition, BTreeMap::from([(i64::MIN, end_offset)]));
        }

        pub fn is_covered(&self, partition: TopicIdPartition, base_offset: i64, last_offset: i64) -> bool {
            let range = self.covered.get(&partition).and_then(|ranges| ranges.range(..=base_offset).next_back());
            range.is_some_and(|(_, end_offset)| last_offset < *end_offset)
        }

        fn cover(&mut self, partition: TopicIdPartition, base_offset: i64, end_offset: i64) {
            let ranges = self.covered.entry(partition).or_default();
            match ranges.range_mut(..=base_offset).next_back() {
                Some((_, end)) if *end >= base_offset => *end = end_offset.max(*end),
                _ => {
                    ranges.insert(base_offset, end_offset);
                }
            }
        }

        fn cut(&mut self, partition: TopicIdPartition, end_offset: i64) {
            let ranges = self.covered.entry(partition).or_default();
            ranges.retain(|base, _| *base < end_offset);
            if let Some((_, end)) = ranges.iter_mut().next_back() {
                *end = end_offset.min(*end);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const JOURNAL: Uuid = Uuid::from_u128(1);
        const PARTITION: TopicIdPartition = TopicIdPartition::new(Uuid::from_u128(2), 0);

        fn append(witness: &mut Witness, sequence: u64, base_offset: i64, last_offset: i64) {
            witness.appended(JOURNAL, GroupSequence(sequence), &EntryHeader::append(PARTITION, 0, 0, base_offset, last_offset, 0));
        }

        #[test]
        fn records_are_covered_when_all_groups_up_to_theirs_were_written_durably() {
            let mut witness = Witness::default();
            append(&mut witness, 1, 0, 4);
            append(&mut witness, 2, 5, 9);
            assert!(!witness.is_covered(PARTITION, 0, 4));
            witness.written(JOURNAL, GroupSequence(2), Durability::Dsync);
            assert!(!witness.is_covered(PARTITION, 5, 9), "a crash would lose group 1, and recovery end there");
            witness.written(JOURNAL, GroupSequence(1), Durability::Dsync);
            assert!(witness.is_covered(PARTITION, 0, 9));
            assert!(!witness.is_covered(PARTITION, 5, 10));
        }

        #[test]
        fn without_the_flag_nothing_is_covered() {
            let mut witness = Witness::default();
            append(&mut witness, 1, 0, 4);
            witness.written(JOURNAL, GroupSequence(1), Durability::None);
            assert!(!witness.is_covered(PARTITION, 0, 4));
        }

        #[test]
        fn a_start_covers_what_it_found_and_a_cut_takes_back() {
            let mut witness = Witness::default();
            witness.recovered(PARTITION, 100);
            assert!(witness.is_covered(PARTITION, 3, 99));
            append(&mut witness, 1, 100, 109);
            witness.appended(JOURNAL, GroupSequence(2), &EntryHeader::truncate(PARTITION, 0, 0, 50));
            witness.written(JOURNAL, GroupSequence(1), Durability::Dsync);
            assert!(witness.is_covered(PARTITION, 90, 109));
            witness.written(JOURNAL, GroupSequence(2), Durability::Dsync);
            assert!(!witness.is_covered(PARTITION, 90, 109));
            assert!(witness.is_covered(PARTITION, 3, 49));
        }
    }
}
