//! Durable state: what the log says. Nothing else changes a group or an offset.

use super::Coordinator;
use crate::group::Now;
use crate::group::any::Group;
use crate::group::classic::ClassicGroup;
use crate::group::consumer::ConsumerGroup;
use crate::group::record::CoordinatorRecord;
use crate::wire::Str;

impl Coordinator {
    /// Takes in one record that stands at `record_offset` of the log; `producer_id` is that of the transaction it belongs to, or -1.
    pub fn replay(&mut self, now: Now, record_offset: i64, producer_id: i64, record: &CoordinatorRecord) {
        match record {
            CoordinatorRecord::OffsetCommit { key, value } => {
                if value.is_some() && !self.groups.contains_key(&key.group) {
                    // Offsets without members make a simple group.
                    self.add_classic(&key.group, now);
                }
                self.offsets.replay(record_offset, producer_id, key, value.as_ref());
            }
            CoordinatorRecord::GroupMetadata { key, value: Some(value) } => {
                if !matches!(self.groups.get(&key.group), Some(Group::Classic(_))) {
                    self.groups.remove(&key.group);
                    self.add_classic(&key.group, now);
                }
                let Some(Group::Classic(group)) = self.groups.get_mut(&key.group) else { unreachable!("it was just added") };
                group.replay(value);
            }
            CoordinatorRecord::GroupMetadata { key, value: None } => {
                // Of a classic group; one of another type that took its place stays.
                if let Some(Group::Classic(_)) = self.groups.get(&key.group) {
                    self.groups.remove(&key.group);
                }
            }
            CoordinatorRecord::ConsumerGroupMetadata { key, value: Some(value) } => self.consumer(&key.group_id).replay_epoch(value),
            CoordinatorRecord::ConsumerGroupMetadata { key, value: None } => {
                if let Some(Group::Consumer(_)) = self.groups.get(&key.group_id) {
                    self.groups.remove(&key.group_id);
                }
            }
            CoordinatorRecord::ConsumerGroupPartitionMetadata { key, value } => {
                self.of_consumer(&key.group_id, value.is_some(), |group| group.replay_partition_metadata(value.is_some()));
            }
            CoordinatorRecord::ConsumerGroupMemberMetadata { key, value } => {
                self.of_consumer(&key.group_id, value.is_some(), |group| group.replay_member(&key.member_id, value.as_ref()));
            }
            CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata { key, value } => {
                self.of_consumer(&key.group_id, value.is_some(), |group| group.replay_target_epoch(value.as_ref()));
            }
            CoordinatorRecord::ConsumerGroupTargetAssignmentMember { key, value } => {
                self.of_consumer(&key.group_id, value.is_some(), |group| group.replay_target(&key.member_id, value.as_ref()));
            }
            CoordinatorRecord::ConsumerGroupCurrentMemberAssignment { key, value } => {
                self.of_consumer(&key.group_id, value.is_some(), |group| group.replay_assignment(&key.member_id, value.as_ref()));
            }
            CoordinatorRecord::ConsumerGroupRegularExpression { key, value } => {
                self.of_consumer(&key.group_id, value.is_some(), |group| group.replay_regex(&key.regular_expression, value.as_ref()));
            }
        }
    }

    /// The consumer group of this id, made if there is none. It takes the place of a group that only held offsets, and of any other whose tombstone compaction has taken away.
    fn consumer(&mut self, group_id: &Str) -> &mut ConsumerGroup {
        if !matches!(self.groups.get(group_id), Some(Group::Consumer(_))) {
            self.groups.insert(group_id.detached(), Group::Consumer(Box::new(ConsumerGroup::new(group_id))));
        }
        match self.groups.get_mut(group_id) {
            Some(Group::Consumer(group)) => group,
            _ => unreachable!("it was just added"),
        }
    }

    /// Lets the consumer group of this id take something in. A tombstone makes none.
    fn of_consumer(&mut self, group_id: &Str, makes_one: bool, replay: impl FnOnce(&mut ConsumerGroup)) {
        let is_there = matches!(self.groups.get(group_id), Some(Group::Consumer(_)));
        if is_there || makes_one {
            replay(self.consumer(group_id));
        }
    }

    /// Takes in the marker that ends a producer's transaction.
    pub fn replay_end_transaction(&mut self, producer_id: i64, is_committed: bool) {
        self.offsets.replay_end_transaction(producer_id, is_committed);
    }

    pub(super) fn add_classic(&mut self, group_id: &Str, now: Now) {
        let group = Group::Classic(Box::new(ClassicGroup::new(group_id, now.wall_ms)));
        self.groups.entry(group_id.detached()).or_insert(group);
    }
}
