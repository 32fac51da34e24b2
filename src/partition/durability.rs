//! From appended to durable to visible: the high watermark follows what the journal has on stable storage.
//!
//! The journal tells its shard once for each advance; only partitions that had something in the groups concerned are touched. The watermark moves, and waiting readers are told,
//! before any of the producers that wait for the same group goes on: whoever has an answer finds its record visible.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::Partition;
use crate::log::AppendError;
use crate::rt::stages::Stages;

pub use crate::disk::journal::GroupSequence;

/// What a partition has in one group of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingGroup {
    sequence: GroupSequence,
    /// The offset after its last record in the group.
    end_offset: i64,
    size_bytes: u64,
}

/// The partitions of a shard that have something in groups that are not durable yet, oldest group first.
#[derive(Debug, Default)]
pub(super) struct Touched {
    groups: RefCell<VecDeque<(GroupSequence, Vec<Rc<Partition>>)>>,
}

impl Touched {
    fn add(&self, sequence: GroupSequence, partition: Rc<Partition>) {
        let mut groups = self.groups.borrow_mut();
        match groups.back_mut() {
            Some((last, partitions)) if *last == sequence => partitions.push(partition),
            _ => groups.push_back((sequence, vec![partition])),
        }
    }

    /// Everything up to `durable` is on stable storage.
    pub fn durable(&self, durable: GroupSequence) {
        loop {
            let next = {
                let mut groups = self.groups.borrow_mut();
                match groups.front() {
                    Some((sequence, _)) if *sequence <= durable => groups.pop_front(),
                    _ => None,
                }
            };
            let Some((_, partitions)) = next else { return };
            partitions.iter().for_each(|partition| partition.durable_up_to(durable));
        }
    }
}

impl Partition {
    /// Waits until the group is durable and what it holds is visible.
    pub async fn wait_durable(&self, sequence: GroupSequence) -> Result<(), AppendError> {
        self.environment.journal.wait_durable(sequence).await.map_err(|_| AppendError::Storage)
    }

    /// Notes on the way of a traced request when the group went to the kernel and came back.
    pub fn mark_group(&self, sequence: GroupSequence, stages: &Stages) {
        if stages.is_traced() {
            self.environment.journal.mark_group(sequence, stages);
        }
    }

    /// Notes that what was just appended, up to `end_offset`, is durable when `sequence` is.
    pub(super) fn become_durable_with(&self, sequence: GroupSequence, end_offset: i64, size_bytes: usize) {
        let mut pending = self.pending.borrow_mut();
        if let Some(last) = pending.back_mut().filter(|last| last.sequence == sequence) {
            last.end_offset = end_offset;
            last.size_bytes += size_bytes as u64;
            return;
        }
        pending.push_back(PendingGroup { sequence, end_offset, size_bytes: size_bytes as u64 });
        if let Some(partition) = self.this.upgrade() {
            self.environment.touched.add(sequence, partition);
        }
    }

    /// The group with which the record at `last_offset` becomes durable; one that is durable long since, if it is.
    pub(super) fn sequence_of(&self, last_offset: i64) -> GroupSequence {
        let pending = self.pending.borrow();
        let group = pending.iter().find(|group| group.end_offset > last_offset);
        group.map_or(GroupSequence(0), |group| group.sequence)
    }

    fn durable_up_to(&self, durable: GroupSequence) {
        let (mut high_watermark, mut size_bytes) = (self.high_watermark.get(), 0);
        {
            let mut pending = self.pending.borrow_mut();
            while let Some(group) = pending.front().filter(|group| group.sequence <= durable) {
                high_watermark = high_watermark.max(group.end_offset);
                size_bytes += group.size_bytes;
                pending.pop_front();
            }
        }
        if high_watermark > self.high_watermark.get() {
            let (stable_before, was_held_back) = (self.last_stable_offset(), self.last_stable_offset() < self.high_watermark.get());
            self.high_watermark.set(high_watermark);
            self.log.borrow_mut().high_watermark_moved(high_watermark);
            // The end of a transaction shows more to a read_committed reader than the bytes of its marker.
            if was_held_back && self.last_stable_offset() > stable_before {
                self.waiters.fire_all();
            } else {
                self.waiters.credit(size_bytes);
            }
        }
    }
}
