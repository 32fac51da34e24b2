//! The broker's own witness, compiled in by the feature `trace`: no response tells of records that no completed durable write covers.
//!
//! A killed process loses nothing that the kernel already has, so a crash test alone cannot see whether writes were durable. Here the journal reports what it collects, how each
//! group's write came back and what a flush has covered, and whoever queues a response reports what it acknowledges; a range that is not covered ends the process at once, with its
//! name. Records count as covered in the order of the groups, because recovery reads up to the first group that is missing. Records of a topic in a weaker class of durability are
//! judged by what that class promises, which is settled when they are appended, whatever the topic's settings say by the time of the answer.
//!
//! `CORELANE_PLANT=no-flush` takes the flag away from the journal's writes, to show that the witness speaks up; `CORELANE_WITNESS=off` silences it, to leave the finding to others.
//! Without the feature everything here is empty.

use crate::cluster::TopicIdPartition;
use crate::disk::journal::{EntryHeader, GroupSequence};
use crate::rt::file::Durability;
use uuid::Uuid;

/// What an acknowledgement says of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// They are on stable storage.
    Durable,
    /// Their write has completed, or a copy has been made in the page cache: they survive this process.
    Written,
    /// They are in memory.
    InMemory,
}

#[cfg(not(feature = "trace"))]
mod hooks {
    use super::*;

    pub fn journal_durability() -> Durability {
        Durability::Dsync
    }
    pub fn appended(_: Uuid, _: GroupSequence, _: &EntryHeader) {}
    pub fn promised(_: TopicIdPartition, _: i64, _: i64, _: Promise) {}
    pub fn shadowed(_: Uuid, _: GroupSequence) {}
    pub fn written(_: Uuid, _: GroupSequence, _: Durability) {}
    pub fn flushed(_: Uuid, _: GroupSequence) {}
    pub fn recovered(_: TopicIdPartition, _: i64) {}
    pub fn acknowledged(_: TopicIdPartition, _: i64, _: i64) {}
}

#[cfg(feature = "trace")]
mod hooks {
    use std::sync::{LazyLock, Mutex, MutexGuard};

    use super::witness::Witness;
    use super::*;
    use crate::rt::plant::{Plant, is_planted};

    static WITNESS: LazyLock<Mutex<Witness>> = LazyLock::new(Mutex::default);
    static IS_SILENT: LazyLock<bool> = LazyLock::new(|| std::env::var("CORELANE_WITNESS").as_deref() == Ok("off"));

    fn witness() -> MutexGuard<'static, Witness> {
        WITNESS.lock().expect("the witness ends the process when it panics")
    }

    pub fn journal_durability() -> Durability {
        if is_planted(Plant::NoFlush) { Durability::None } else { Durability::Dsync }
    }

    pub fn appended(journal_id: Uuid, sequence: GroupSequence, header: &EntryHeader) {
        witness().appended(journal_id, sequence, header);
    }

    pub fn promised(partition: TopicIdPartition, base_offset: i64, last_offset: i64, promise: Promise) {
        witness().promised(partition, base_offset, last_offset, promise);
    }

    pub fn shadowed(journal_id: Uuid, sequence: GroupSequence) {
        witness().shadowed(journal_id, sequence);
    }

    pub fn written(journal_id: Uuid, sequence: GroupSequence, durability: Durability) {
        witness().written(journal_id, sequence, durability);
    }

    pub fn flushed(journal_id: Uuid, target: GroupSequence) {
        if !is_planted(Plant::NoFlush) {
            witness().flushed(journal_id, target);
        }
    }

    pub fn recovered(partition: TopicIdPartition, end_offset: i64) {
        witness().recovered(partition, end_offset);
    }

    pub fn acknowledged(partition: TopicIdPartition, base_offset: i64, last_offset: i64) {
        let (promise, is_kept) = witness().judge(partition, base_offset, last_offset);
        let missing = if promise == Promise::Durable { "durable write" } else { "write" };
        assert!(
            is_kept || *IS_SILENT,
            "trace: offsets {base_offset} to {last_offset} of {partition} are acknowledged, and no completed {missing} covers them"
        );
    }
}

/// What the journal writes with: durable writes, unless a test takes the flag away.
pub use hooks::journal_durability;

/// An entry was taken into a group.
pub use hooks::appended;

/// Records were appended of which an acknowledgement will promise this.
pub use hooks::promised;

/// All groups up to this one, as far as they are filled, have a copy that survives the process.
pub use hooks::shadowed;

/// A group's write has completed.
pub use hooks::written;

/// A flush has covered every group up to this one whose write had completed before it began.
pub use hooks::flushed;

/// A partition was found on stable storage up to this offset.
pub use hooks::recovered;

/// A response that tells of these records, the last one included, is about to be queued. Panics if what their class promises does not hold.
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
        partitions: HashMap<TopicIdPartition, PartitionTrace>,
    }

    #[derive(Default)]
    struct JournalTrace {
        /// Groups up to here have been written, and up to there are on stable storage.
        written: u64,
        durable: u64,
        groups: BTreeMap<u64, GroupTrace>,
    }

    #[derive(Default)]
    struct GroupTrace {
        changes: Vec<Change>,
        is_written: bool,
        is_durable: bool,
    }

    #[derive(Clone, Copy)]
    enum Change {
        Covers(TopicIdPartition, i64, i64),
        Cuts(TopicIdPartition, i64),
    }

    #[derive(Default)]
    struct PartitionTrace {
        written: Ranges,
        durable: Ranges,
        /// Of which records less than stable storage is promised; the others are durable.
        promised_written: Ranges,
        promised_in_memory: Ranges,
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

        pub fn promised(&mut self, partition: TopicIdPartition, base_offset: i64, last_offset: i64, promise: Promise) {
            let trace = self.partitions.entry(partition).or_default();
            match promise {
                Promise::Durable => {}
                Promise::Written => trace.promised_written.add(base_offset, last_offset + 1),
                Promise::InMemory => trace.promised_in_memory.add(base_offset, last_offset + 1),
            }
        }

        pub fn shadowed(&mut self, journal_id: Uuid, sequence: GroupSequence) {
            let journal = self.journals.entry(journal_id).or_default();
            let unwritten = journal.groups.range(journal.written + 1..=sequence.0);
            let changes: Vec<Change> = unwritten.flat_map(|(_, group)| group.changes.iter().copied()).collect();
            for change in changes {
                self.change(change, |trace| &mut trace.written);
            }
        }

        pub fn written(&mut self, journal_id: Uuid, sequence: GroupSequence, durability: Durability) {
            let group = self.journals.entry(journal_id).or_default().groups.entry(sequence.0).or_default();
            group.is_written = true;
            group.is_durable = durability == Durability::Dsync;
            self.advance(journal_id);
        }

        pub fn flushed(&mut self, journal_id: Uuid, target: GroupSequence) {
            let groups = &mut self.journals.entry(journal_id).or_default().groups;
            groups.range_mut(..=target.0).for_each(|(_, group)| group.is_durable |= group.is_written);
            self.advance(journal_id);
        }

        pub fn recovered(&mut self, partition: TopicIdPartition, end_offset: i64) {
            let found = || Ranges(BTreeMap::from([(i64::MIN, end_offset)]));
            self.partitions.insert(partition, PartitionTrace { written: found(), durable: found(), ..PartitionTrace::default() });
        }

        /// What an acknowledgement of these records promises, and whether that holds.
        pub fn judge(&self, partition: TopicIdPartition, base_offset: i64, last_offset: i64) -> (Promise, bool) {
            let Some(trace) = self.partitions.get(&partition) else { return (Promise::Durable, false) };
            if trace.promised_in_memory.contain(base_offset, last_offset) {
                (Promise::InMemory, true)
            } else if trace.promised_written.contain(base_offset, last_offset) {
                (Promise::Written, trace.written.contain(base_offset, last_offset))
            } else {
                (Promise::Durable, trace.durable.contain(base_offset, last_offset))
            }
        }

        /// Takes over what groups say that are written, or durable, with all before them.
        fn advance(&mut self, journal_id: Uuid) {
            let journal = self.journals.entry(journal_id).or_default();
            let (mut written, mut durable) = (Vec::new(), Vec::new());
            while let Some(group) = journal.groups.get(&(journal.written + 1)).filter(|group| group.is_written) {
                journal.written += 1;
                written.extend_from_slice(&group.changes);
            }
            while journal.groups.get(&(journal.durable + 1)).is_some_and(|group| group.is_durable) {
                journal.durable += 1;
                durable.extend(journal.groups.remove(&journal.durable).expect("it was just there").changes);
            }
            for change in written {
                self.change(change, |trace| &mut trace.written);
            }
            for change in durable {
                self.change(change, |trace| &mut trace.durable);
            }
        }

        fn change(&mut self, change: Change, ranges: impl Fn(&mut PartitionTrace) -> &mut Ranges) {
            match change {
                Change::Covers(partition, base_offset, end_offset) => {
                    ranges(self.partitions.entry(partition).or_default()).add(base_offset, end_offset)
                }
                Change::Cuts(partition, end_offset) => ranges(self.partitions.entry(partition).or_default()).cut(end_offset),
            }
        }
    }

    /// Offsets: base offset to end offset, apart from each other.
    #[derive(Default)]
    struct Ranges(BTreeMap<i64, i64>);

    impl Ranges {
        fn add(&mut self, base_offset: i64, end_offset: i64) {
            match self.0.range_mut(..=base_offset).next_back() {
                Some((_, end)) if *end >= base_offset => *end = end_offset.max(*end),
                _ => {
                    self.0.insert(base_offset, end_offset);
                }
            }
        }

        fn cut(&mut self, end_offset: i64) {
            self.0.retain(|base, _| *base < end_offset);
            if let Some((_, end)) = self.0.iter_mut().next_back() {
                *end = end_offset.min(*end);
            }
        }

        fn contain(&self, base_offset: i64, last_offset: i64) -> bool {
            self.0.range(..=base_offset).next_back().is_some_and(|(_, end_offset)| last_offset < *end_offset)
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

        fn is_kept(witness: &Witness, base_offset: i64, last_offset: i64) -> bool {
            witness.judge(PARTITION, base_offset, last_offset).1
        }

        #[test]
        fn records_are_covered_when_all_groups_up_to_theirs_were_written_durably() {
            let mut witness = Witness::default();
            append(&mut witness, 1, 0, 4);
            append(&mut witness, 2, 5, 9);
            assert!(!is_kept(&witness, 0, 4));
            witness.written(JOURNAL, GroupSequence(2), Durability::Dsync);
            assert!(!is_kept(&witness, 5, 9), "a crash would lose group 1, and recovery end there");
            witness.written(JOURNAL, GroupSequence(1), Durability::Dsync);
            assert!(is_kept(&witness, 0, 9));
            assert!(!is_kept(&witness, 5, 10));
        }

        #[test]
        fn without_the_flag_nothing_is_covered() {
            let mut witness = Witness::default();
            append(&mut witness, 1, 0, 4);
            witness.written(JOURNAL, GroupSequence(1), Durability::None);
            assert!(!is_kept(&witness, 0, 4));
        }

        #[test]
        fn a_start_covers_what_it_found_and_a_cut_takes_back() {
            let mut witness = Witness::default();
            witness.recovered(PARTITION, 100);
            assert!(is_kept(&witness, 3, 99));
            append(&mut witness, 1, 100, 109);
            witness.appended(JOURNAL, GroupSequence(2), &EntryHeader::truncate(PARTITION, 0, 0, 50));
            witness.written(JOURNAL, GroupSequence(1), Durability::Dsync);
            assert!(is_kept(&witness, 90, 109));
            witness.written(JOURNAL, GroupSequence(2), Durability::Dsync);
            assert!(!is_kept(&witness, 90, 109));
            assert!(is_kept(&witness, 3, 49));
        }

        #[test]
        fn a_copy_in_the_page_cache_covers_what_need_not_be_durable() {
            let mut witness = Witness::default();
            append(&mut witness, 1, 0, 4);
            append(&mut witness, 2, 5, 9);
            witness.promised(PARTITION, 5, 9, Promise::Written);
            witness.shadowed(JOURNAL, GroupSequence(2));
            append(&mut witness, 2, 10, 14);
            witness.promised(PARTITION, 10, 14, Promise::Written);
            assert_eq!(witness.judge(PARTITION, 5, 9), (Promise::Written, true));
            assert_eq!(witness.judge(PARTITION, 10, 14), (Promise::Written, false), "the copy was made before");
            assert_eq!(witness.judge(PARTITION, 0, 4), (Promise::Durable, false));
        }

        #[test]
        fn a_weaker_class_is_judged_by_what_it_promises() {
            let mut witness = Witness::default();
            append(&mut witness, 1, 0, 4);
            witness.promised(PARTITION, 0, 4, Promise::Written);
            append(&mut witness, 2, 5, 9);
            witness.promised(PARTITION, 5, 9, Promise::InMemory);
            append(&mut witness, 3, 10, 14);
            assert_eq!(witness.judge(PARTITION, 0, 4), (Promise::Written, false));
            assert_eq!(witness.judge(PARTITION, 5, 9), (Promise::InMemory, true));
            witness.written(JOURNAL, GroupSequence(1), Durability::None);
            assert_eq!(witness.judge(PARTITION, 0, 4), (Promise::Written, true));
            // The class is stronger again: its group is durable by itself, and counts only when a flush has covered what lies before it.
            witness.written(JOURNAL, GroupSequence(3), Durability::Dsync);
            witness.written(JOURNAL, GroupSequence(2), Durability::None);
            assert_eq!(witness.judge(PARTITION, 10, 14), (Promise::Durable, false));
            witness.flushed(JOURNAL, GroupSequence(1));
            assert_eq!(witness.judge(PARTITION, 10, 14), (Promise::Durable, false));
            witness.flushed(JOURNAL, GroupSequence(2));
            assert_eq!(witness.judge(PARTITION, 10, 14), (Promise::Durable, true));
        }
    }
}
