//! The committed offsets of a coordinator's groups, and those that wait for the end of a transaction.
//!
//! Everything here changes by replaying an OffsetCommit record or the end of a transaction; the decisions (which records a commit, a deletion or the retention writes) only read.

use super::GroupConfig;
use super::call::Step;
use super::classic::RetentionBase;
use super::record::CoordinatorRecord;
use crate::wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use crate::wire::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics};
use crate::wire::messages::{OffsetCommitRequest, OffsetCommitResponse};
use crate::wire::records::{OffsetCommitKey, OffsetCommitValue};
use crate::wire::{ErrorCode, Str};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// No expiry of its own; no offset.
const NONE: i64 = -1;

/// The offset of a record outside any transaction is replayed with this producer id.
pub(crate) const NO_PRODUCER_ID: i64 = -1;

/// One committed offset. Kept small: there may be millions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommittedOffset {
    /// Where the commit stands in the log. A transaction's commit does not undo a later one.
    record_offset: i64,
    offset: i64,
    /// -1 when the committer did not know it.
    leader_epoch: i32,
    metadata: Box<str>,
    committed_at_ms: i64,
    /// Asked for by OffsetCommit v2-4; `NONE` leaves it to the general retention.
    expires_at_ms: i64,
    /// Zero when the record predates topic ids.
    topic_id: Uuid,
}

/// How long a group's offsets are kept, but for those with an expiry of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) now_ms: i64,
    pub(crate) kept_ms: i64,
    pub(crate) base: RetentionBase,
}

type ByPartition = BTreeMap<i32, CommittedOffset>;
type ByTopic = BTreeMap<Str, ByPartition>;

/// The topic and partition of a pending offset.
type TopicPartition = (Str, i32);

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_group: HashMap<Str, ByTopic, foldhash::fast::RandomState>,
    /// Offsets in open transactions, by producer id.
    pending: HashMap<i64, BTreeMap<(Str, Str, i32), CommittedOffset>>,
    /// Which producers have such offsets, by group.
    open: HashMap<Str, BTreeMap<TopicPartition, BTreeSet<i64>>>,
    /// Every topic that offsets were committed for, so that the deletion of any other need not be looked at. The zero id stands for offsets that predate topic ids.
    topics: HashMap<Uuid, Str, foldhash::fast::RandomState>,
}

impl Offsets {
    // Decisions

    /// The records and the reply of a commit whose group and member have been found to be in order.
    pub(crate) fn commit(config: &GroupConfig, now_ms: i64, request: &OffsetCommitRequest, step: &mut Step) -> OffsetCommitResponse {
        let expire_timestamp = if request.retention_time_ms == NONE { NONE } else { now_ms.saturating_add(request.retention_time_ms) };
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let metadata = partition.committed_metadata.clone().unwrap_or_default();
                let is_too_large = metadata.encode_utf16().count() > config.offset_metadata_units_max;
                let error = if is_too_large { ErrorCode::OffsetMetadataTooLarge } else { ErrorCode::None };
                partitions.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                    ..Default::default()
                });
                if is_too_large {
                    continue;
                }
                step.records.push(CoordinatorRecord::OffsetCommit {
                    key: commit_key(&request.group_id, &topic.name, partition.partition_index),
                    value: Some(OffsetCommitValue {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata,
                        commit_timestamp: now_ms,
                        expire_timestamp,
                        topic_id: topic.topic_id,
                        ..Default::default()
                    }),
                });
            }
            topics.push(OffsetCommitResponseTopic { name: topic.name.clone(), topic_id: topic.topic_id, partitions, ..Default::default() });
        }
        OffsetCommitResponse { topics, ..Default::default() }
    }

    /// What the records of a commit take at most; each has `overhead` bytes beside its strings.
    pub(crate) fn commit_bytes(request: &OffsetCommitRequest, overhead: usize) -> usize {
        let of_topic = |topic: &OffsetCommitRequestTopic| {
            let metadata =
                topic.partitions.iter().map(|partition| partition.committed_metadata.as_ref().map_or(0, |metadata| metadata.len()));
            topic.partitions.len() * (overhead + request.group_id.len() + topic.name.len()) + metadata.sum::<usize>()
        };
        request.topics.iter().map(of_topic).sum()
    }

    /// The offsets asked for; all of the group's when no topics are named. What is not there is told as offset -1, not as an error.
    pub(crate) fn fetch(&self, request: &OffsetFetchRequestGroup, is_known: bool, require_stable: bool) -> OffsetFetchResponseGroup {
        let none = BTreeMap::new();
        let committed = self.by_group.get(&request.group_id).filter(|_| is_known).unwrap_or(&none);
        let open = self.open.get(&request.group_id).filter(|_| require_stable);
        let is_unstable = |topic: &Str, index: i32| open.is_some_and(|open| open.contains_key(&(topic.clone(), index)));
        let partition_of = |topic: &Str, index: i32, committed: Option<&CommittedOffset>| {
            if is_unstable(topic, index) {
                absent_partition(index, ErrorCode::UnstableOffsetCommit)
            } else {
                committed.map_or_else(|| absent_partition(index, ErrorCode::None), |committed| committed.respond(index))
            }
        };

        let topics = match &request.topics {
            None => committed
                .iter()
                .map(|(name, partitions)| OffsetFetchResponseTopics {
                    name: name.clone(),
                    partitions: partitions.iter().map(|(index, committed)| partition_of(name, *index, Some(committed))).collect(),
                    ..Default::default()
                })
                .collect(),
            Some(topics) => topics
                .iter()
                .map(|topic| {
                    let partitions = committed.get(&topic.name).unwrap_or(const { &ByPartition::new() });
                    let committed = |index: &i32| partitions.get(index).filter(|committed| committed.is_of_topic(topic.topic_id));
                    OffsetFetchResponseTopics {
                        name: topic.name.clone(),
                        topic_id: topic.topic_id,
                        partitions: topic
                            .partition_indexes
                            .iter()
                            .map(|index| partition_of(&topic.name, *index, committed(index)))
                            .collect(),
                        ..Default::default()
                    }
                })
                .collect(),
        };
        OffsetFetchResponseGroup { group_id: request.group_id.clone(), topics, ..Default::default() }
    }

    /// The tombstones and the reply for one topic of an OffsetDelete.
    pub(crate) fn delete_of_topic(
        &self,
        group_id: &Str,
        topic: &OffsetDeleteRequestTopic,
        is_subscribed: bool,
        step: &mut Step,
    ) -> OffsetDeleteResponseTopic {
        let error = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            partitions.push(OffsetDeleteResponsePartition { partition_index: index, error_code: error.code(), ..Default::default() });
            let is_there = self.committed(group_id, &topic.name, index).is_some() || self.is_open(group_id, &topic.name, index);
            if is_there && !is_subscribed {
                step.records.push(tombstone(group_id, &topic.name, index));
            }
        }
        OffsetDeleteResponseTopic { name: topic.name.clone(), partitions, ..Default::default() }
    }

    /// The tombstones that take away everything a group has committed.
    pub(crate) fn delete_of_group(&self, group_id: &Str, step: &mut Step) {
        for (topic, partitions) in self.by_group.get(group_id).into_iter().flatten() {
            step.records.extend(partitions.keys().map(|index| tombstone(group_id, topic, *index)));
        }
        for (topic, index) in self.open.get(group_id).into_iter().flat_map(BTreeMap::keys) {
            if self.committed(group_id, topic, *index).is_none() {
                step.records.push(tombstone(group_id, topic, *index));
            }
        }
    }

    /// The tombstones for one group's offsets of a topic that has been deleted, `records_max` of them at a time. Another topic under the same name keeps its own.
    pub(crate) fn delete_of_deleted_topic(&self, group_id: &Str, topic: &str, topic_id: Uuid, records_max: usize, step: &mut Step) {
        let is_of_topic = |committed: &CommittedOffset| committed.topic_id.is_nil() || committed.topic_id == topic_id;
        if let Some((topic, partitions)) = self.by_group.get(group_id).and_then(|topics| topics.get_key_value(topic)) {
            let gone = partitions.iter().filter(|(_, committed)| is_of_topic(committed));
            step.records.extend(gone.take(records_max).map(|(index, _)| tombstone(group_id, topic, *index)));
        }
        for (open_topic, index) in self.open.get(group_id).into_iter().flat_map(BTreeMap::keys) {
            if **open_topic == *topic && self.committed(group_id, topic, *index).is_none() {
                step.records.push(tombstone(group_id, open_topic, *index));
            }
        }
    }

    /// The tombstones for a group's offsets that are kept no longer, `records_max` of them at a time. True when none of the group's are left after that.
    pub(crate) fn expire(
        &self,
        group_id: &Str,
        retention: Retention,
        is_subscribed_to: impl Fn(&str) -> bool,
        records_max: usize,
        step: &mut Step,
    ) -> bool {
        let is_in_transaction = self.open.contains_key(group_id);
        let Some(topics) = self.by_group.get(group_id) else { return !is_in_transaction };
        if retention.base == RetentionBase::Forever {
            return false;
        }
        let mut all_expired = true;
        for (topic, partitions) in topics {
            let is_kept = is_subscribed_to(topic);
            for (index, committed) in partitions {
                if is_kept || !committed.is_expired(retention) || self.is_open(group_id, topic, *index) {
                    all_expired = false;
                } else if step.records.len() < records_max {
                    step.records.push(tombstone(group_id, topic, *index));
                } else {
                    return false;
                }
            }
        }
        all_expired && !is_in_transaction
    }

    /// How many offsets a sweep over the group looks at.
    pub(crate) fn count_of_group(&self, group_id: &str) -> usize {
        self.by_group.get(group_id).into_iter().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    pub(crate) fn group_ids(&self) -> impl Iterator<Item = &Str> {
        self.by_group.keys().chain(self.open.keys())
    }

    pub(crate) fn may_hold_topic(&self, id: Uuid) -> bool {
        self.topics.contains_key(&id) || self.topics.contains_key(&Uuid::nil())
    }

    pub(crate) fn topics_unless(&self, exists: impl Fn(Uuid) -> bool) -> Vec<(Uuid, Str)> {
        let gone = self.topics.iter().filter(|(id, _)| !id.is_nil() && !exists(**id));
        gone.map(|(id, name)| (*id, name.clone())).collect()
    }

    /// Nothing of this topic is left.
    pub(crate) fn forget_topic(&mut self, id: Uuid) {
        self.topics.remove(&id);
    }

    fn committed(&self, group_id: &str, topic: &str, index: i32) -> Option<&CommittedOffset> {
        self.by_group.get(group_id)?.get(topic)?.get(&index)
    }

    fn is_open(&self, group_id: &str, topic: &Str, index: i32) -> bool {
        self.open.get(group_id).is_some_and(|open| open.contains_key(&(topic.clone(), index)))
    }

    // State

    /// Takes in one OffsetCommit record that stands at `record_offset` of the log.
    pub(crate) fn replay(&mut self, record_offset: i64, producer_id: i64, key: &OffsetCommitKey, value: Option<&OffsetCommitValue>) {
        if let Some(value) = value
            && !self.topics.contains_key(&value.topic_id)
        {
            self.topics.insert(value.topic_id, key.topic.detached());
        }
        match value {
            None => self.remove(key),
            Some(value) if producer_id == NO_PRODUCER_ID => {
                self.put(&key.group, &key.topic, key.partition, CommittedOffset::recorded(record_offset, value));
            }
            Some(value) => {
                let (group_id, topic) = (key.group.detached(), key.topic.detached());
                let committed = CommittedOffset::recorded(record_offset, value);
                let producers = self.open.entry(group_id.clone()).or_default().entry((topic.clone(), key.partition)).or_default();
                producers.insert(producer_id);
                self.pending.entry(producer_id).or_default().insert((group_id, topic, key.partition), committed);
            }
        }
    }

    /// The producer's transaction ended: its offsets count now, or never.
    pub(crate) fn replay_end_transaction(&mut self, producer_id: i64, is_committed: bool) {
        for ((group_id, topic, index), committed) in self.pending.remove(&producer_id).unwrap_or_default() {
            self.close(&group_id, &(topic.clone(), index), producer_id);
            // A commit outside the transaction may have come after this one; without this, the order of the log would not be kept.
            let is_newest =
                self.committed(&group_id, &topic, index).is_none_or(|standing| standing.record_offset < committed.record_offset);
            if is_committed && is_newest {
                self.put(&group_id, &topic, index, committed);
            }
        }
    }

    fn put(&mut self, group_id: &Str, topic: &Str, index: i32, committed: CommittedOffset) {
        // Keys are copied on their first use only: the same few names come with every commit.
        let topics = match self.by_group.get_mut(group_id) {
            Some(topics) => topics,
            None => self.by_group.entry(group_id.detached()).or_default(),
        };
        let partitions = match topics.get_mut(topic) {
            Some(partitions) => partitions,
            None => topics.entry(topic.detached()).or_default(),
        };
        partitions.insert(index, committed);
    }

    /// A tombstone also takes away what is pending in transactions.
    fn remove(&mut self, key: &OffsetCommitKey) {
        if let Some(topics) = self.by_group.get_mut(&key.group)
            && let Some(partitions) = topics.get_mut(&key.topic)
        {
            partitions.remove(&key.partition);
            if partitions.is_empty() {
                topics.remove(&key.topic);
            }
            if topics.is_empty() {
                self.by_group.remove(&key.group);
            }
        }
        let topic_partition = (key.topic.clone(), key.partition);
        let producers = self.open.get(&key.group).and_then(|open| open.get(&topic_partition)).cloned();
        for producer_id in producers.unwrap_or_default() {
            if let Some(pending) = self.pending.get_mut(&producer_id) {
                pending.remove(&(key.group.clone(), key.topic.clone(), key.partition));
            }
            self.close(&key.group, &topic_partition, producer_id);
        }
    }

    fn close(&mut self, group_id: &Str, topic_partition: &TopicPartition, producer_id: i64) {
        let Some(open) = self.open.get_mut(group_id) else { return };
        if let Some(producers) = open.get_mut(topic_partition) {
            producers.remove(&producer_id);
            if producers.is_empty() {
                open.remove(topic_partition);
            }
        }
        if open.is_empty() {
            self.open.remove(group_id);
        }
    }
}

impl CommittedOffset {
    fn recorded(record_offset: i64, value: &OffsetCommitValue) -> CommittedOffset {
        CommittedOffset {
            record_offset,
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: Box::from(&*value.metadata),
            committed_at_ms: value.commit_timestamp,
            expires_at_ms: value.expire_timestamp,
            topic_id: value.topic_id,
        }
    }

    fn respond(&self, index: i32) -> OffsetFetchResponsePartitions {
        OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: self.offset,
            committed_leader_epoch: self.leader_epoch,
            metadata: Some(Str::from(&*self.metadata)),
            ..Default::default()
        }
    }

    /// A topic that was deleted and made again has another id; its predecessor's offsets mean nothing to it.
    fn is_of_topic(&self, topic_id: Uuid) -> bool {
        self.topic_id.is_nil() || topic_id.is_nil() || self.topic_id == topic_id
    }

    fn is_expired(&self, retention: Retention) -> bool {
        if self.expires_at_ms != NONE {
            return retention.now_ms >= self.expires_at_ms;
        }
        let since_ms = match retention.base {
            RetentionBase::Since(since_ms) => since_ms,
            RetentionBase::Commit => self.committed_at_ms,
            RetentionBase::Forever => return false,
        };
        retention.now_ms.saturating_sub(since_ms) >= retention.kept_ms
    }
}

fn absent_partition(index: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: NONE,
        committed_leader_epoch: -1,
        metadata: Some(Str::default()),
        error_code: error.code(),
        ..Default::default()
    }
}

fn tombstone(group_id: &Str, topic: &Str, index: i32) -> CoordinatorRecord {
    CoordinatorRecord::OffsetCommit { key: commit_key(group_id, topic, index), value: None }
}

fn commit_key(group_id: &Str, topic: &Str, index: i32) -> OffsetCommitKey {
    OffsetCommitKey { group: group_id.clone(), topic: topic.clone(), partition: index, ..Default::default() }
}
