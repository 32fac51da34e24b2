//! From appended to durable to visible: the high watermark follows what counts in the topic's class of durability.
//!
//! All classes go through the journal, in one order. By default (`flush.messages=1`) a record counts when it is on stable storage; with a larger `flush.messages` when it
//! survives the process, as its write has completed or a copy lies in the page cache, and the journal is flushed after so many records or `flush.ms`; with `write.caching` as soon as it
//! is in memory, and the write follows.
//! Coordinators wait for stable storage in any topic.
//!
//! The journal tells its shard once for each advance; only partitions that had something in the groups concerned are touched. The watermark moves, and waiting readers are told,
//! before any of the producers that wait for the same group goes on: whoever has an answer finds its record visible.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::{Appending, Partition};
use crate::cluster::{METADATA_TOPIC, is_internal_topic};
use crate::config::TopicSettings;
use crate::disk::journal::JournalError;
use crate::disk::trace::Promise;
use crate::log::AppendError;
use crate::rt;
use crate::rt::stages::Stages;

pub use crate::disk::journal::GroupSequence;

/// What a partition has in one group of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingGroup {
    sequence: GroupSequence,
    /// The offset after its last record in the group.
    end_offset: i64,
    size_bytes: u64,
    counts: Counts,
}

/// When a record counts: it may be acknowledged then, and seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// When it is on stable storage.
    Durable,
    /// When it survives the process: its write has completed, or the journal has made a copy of it that does.
    Written,
    /// At once.
    InMemory,
}

impl Counts {
    /// The same for a record of which the journal has made such a copy.
    pub(super) fn when_shadowed(self) -> Self {
        match self {
            Counts::Written => Counts::InMemory,
            other => other,
        }
    }

    /// What an acknowledgement says of such records.
    pub(super) fn promise(self) -> Promise {
        match self {
            Counts::Durable => Promise::Durable,
            Counts::Written => Promise::Written,
            Counts::InMemory => Promise::InMemory,
        }
    }
}

/// A topic's class of durability, by its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DurabilityClass {
    pub counts: Counts,
    /// `flush.messages`
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
}

impl DurabilityClass {
    /// Internal topics and the metadata log are durable whatever their settings say.
    pub fn new(settings: &TopicSettings, topic: &str) -> Self {
        let counts = match () {
            _ if is_internal_topic(topic) || topic == METADATA_TOPIC => Counts::Durable,
            _ if settings.write_caching => Counts::InMemory,
            _ if settings.flush_messages > 1 => Counts::Written,
            _ => Counts::Durable,
        };
        Self { counts, flush_messages: settings.flush_messages, flush_ms: settings.flush_ms }
    }
}

/// What a partition has appended since it last asked for a flush.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    records: Cell<i64>,
    /// A flush by time is on its way.
    is_timed: Cell<bool>,
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

    /// Everything up to `durable` counts for those who are here.
    pub fn reached(&self, durable: GroupSequence) {
        loop {
            let next = {
                let mut groups = self.groups.borrow_mut();
                match groups.front() {
                    Some((sequence, _)) if *sequence <= durable => groups.pop_front(),
                    _ => None,
                }
            };
            let Some((_, partitions)) = next else { return };
            partitions.iter().for_each(|partition| partition.show_what_counts());
        }
    }
}

impl Partition {
    /// Waits until the group is durable and what it holds is visible.
    pub async fn wait_durable(&self, sequence: GroupSequence) -> Result<(), AppendError> {
        self.environment.journal.wait_durable(sequence).await.map_err(|_| AppendError::Storage)
    }

    /// Waits until an append may be answered: it is visible then.
    pub async fn wait_acknowledged(&self, appending: &Appending) -> Result<(), AppendError> {
        let journal = &self.environment.journal;
        let waited = match appending.counts {
            Counts::Durable => journal.wait_durable(appending.sequence).await,
            Counts::Written => journal.wait_written(appending.sequence).await,
            Counts::InMemory => self.wait_for_those_before(appending.last_offset).await,
        };
        waited.map_err(|_| AppendError::Storage)
    }

    /// Waits until nothing before a record that counts at once hides it: what was appended while the topic's class was a stronger one.
    async fn wait_for_those_before(&self, last_offset: i64) -> Result<(), JournalError> {
        while self.high_watermark() <= last_offset {
            let Some(first) = self.pending.borrow().front().copied() else { return Ok(()) };
            match first.counts {
                Counts::Durable => self.environment.journal.wait_durable(first.sequence).await?,
                Counts::Written => self.environment.journal.wait_written(first.sequence).await?,
                Counts::InMemory => return Ok(()),
            }
        }
        Ok(())
    }

    /// When what is appended now counts.
    pub(super) fn counts(&self) -> Counts {
        self.durability.get().counts
    }

    /// Notes on the way of a traced request when the group went to the kernel and came back.
    pub fn mark_group(&self, sequence: GroupSequence, stages: &Stages) {
        if stages.is_traced() {
            self.environment.journal.mark_group(sequence, stages);
        }
    }

    /// Notes that what was just appended, up to `end_offset`, lies in the group `sequence`, and shows it once it counts.
    pub(super) fn count_with(&self, sequence: GroupSequence, counts: Counts, end_offset: i64, size_bytes: usize) {
        let size_bytes = size_bytes as u64;
        let mut pending = self.pending.borrow_mut();
        match pending.back_mut().filter(|last| last.sequence == sequence && last.counts == counts) {
            Some(last) => {
                last.end_offset = end_offset;
                last.size_bytes += size_bytes;
            }
            None => {
                pending.push_back(PendingGroup { sequence, end_offset, size_bytes, counts });
                if let Some(partition) = self.this.upgrade() {
                    match counts {
                        Counts::Durable => self.environment.touched.add(sequence, partition),
                        Counts::Written => self.environment.touched_when_written.add(sequence, partition),
                        Counts::InMemory => {}
                    }
                }
            }
        }
        drop(pending);
        if counts == Counts::InMemory {
            self.show_what_counts();
        }
    }

    /// Asks for a flush after `flush.messages` records, or `flush.ms` after the first that is not flushed.
    pub(super) fn flush_in_time(&self, sequence: GroupSequence, records: i32) {
        let class = self.durability.get();
        let unflushed = self.unflushed.records.get() + i64::from(records);
        self.unflushed.records.set(unflushed);
        if unflushed >= class.flush_messages {
            self.unflushed.records.set(0);
            return self.environment.journal.request_flush(sequence);
        }
        if class.flush_ms == i64::MAX || self.unflushed.is_timed.replace(true) {
            return;
        }
        let this = self.this.clone();
        rt::spawn_background(async move {
            rt::sleep(Duration::from_millis(class.flush_ms.max(0) as u64)).await;
            if let Some(partition) = this.upgrade() {
                partition.unflushed.is_timed.set(false);
                partition.unflushed.records.set(0);
                let journal = &partition.environment.journal;
                journal.request_flush(journal.last_sequence());
            }
        })
        .detach();
    }

    /// The group with which the record at `last_offset` counts, and when that is; one that is durable long since, if it counts already.
    pub(super) fn sequence_of(&self, last_offset: i64) -> (GroupSequence, Counts) {
        let pending = self.pending.borrow();
        let group = pending.iter().find(|group| group.end_offset > last_offset);
        group.map_or((GroupSequence(0), Counts::Durable), |group| (group.sequence, group.counts))
    }

    /// Moves the high watermark over everything that counts by now, in the order of offsets.
    fn show_what_counts(&self) {
        let (durable, written) = (self.environment.journal.durable_sequence(), self.environment.journal.written_sequence());
        let counts = |group: &&PendingGroup| match group.counts {
            Counts::Durable => group.sequence <= durable,
            Counts::Written => group.sequence <= written,
            Counts::InMemory => true,
        };
        let (mut high_watermark, mut size_bytes) = (self.high_watermark.get(), 0);
        {
            let mut pending = self.pending.borrow_mut();
            while let Some(group) = pending.front().filter(counts) {
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
