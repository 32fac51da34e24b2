//! One member of a consumer group, and how its two records say it: what it subscribes to, and where it stands on its way to its target assignment.

use crate::group::classic::Protocol;
use crate::group::detached;
use crate::group::record::CoordinatorRecord;
use crate::wire::Str;
use crate::wire::records::group_coordinator::consumer_group_current_member_assignment_value::TopicPartitions;
use crate::wire::records::group_coordinator::consumer_group_member_metadata_value::{ClassicMemberMetadata, ClassicProtocol};
use crate::wire::records::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The epoch of a member that has left.
pub(crate) const LEFT_EPOCH: i32 = -1;
/// The epoch of a static member that has left for a while; its partitions are kept for it.
pub(crate) const LEFT_FOR_A_WHILE_EPOCH: i32 = -2;

/// Partitions by topic, each with the epoch in which the member got it.
pub(crate) type Assigned = BTreeMap<Uuid, BTreeMap<i32, i32>>;
/// Partitions by topic.
pub(crate) type Assignment = BTreeMap<Uuid, BTreeSet<i32>>;

/// Where a member stands on its way to the target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has all that it is to have in its epoch.
    Stable,
    /// It was told to give partitions up and still has them.
    UnrevokedPartitions,
    /// It waits for partitions that others still have.
    UnreleasedPartitions,
    /// Read from a record of a newer broker.
    Unknown,
}

impl MemberState {
    fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    fn from_code(code: i8) -> MemberState {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// What makes a member one of the classic protocol, on its way to the consumer protocol or back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicSide {
    pub(crate) session_timeout_ms: i32,
    pub(crate) protocols: Vec<Protocol>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// Set for a static member.
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) topic_names: BTreeSet<Str>,
    /// Some members say "" for none.
    pub(crate) topic_regex: Option<Str>,
    /// The server-side assignor that it wishes for.
    pub(crate) assignor: Option<Str>,
    /// Set for a member that speaks the classic protocol.
    pub(crate) classic: Option<ClassicSide>,

    pub(crate) epoch: i32,
    /// The epoch before: a member whose reply got lost still speaks of it.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Assigned,
    /// What it was told to give up and may still have.
    pub(crate) revoking: Assigned,
}

impl Member {
    pub(crate) fn new(id: &Str) -> Member {
        Member {
            id: id.detached(),
            instance_id: None,
            rack_id: None,
            client_id: Str::default(),
            client_host: Str::default(),
            rebalance_timeout_ms: -1,
            topic_names: BTreeSet::new(),
            topic_regex: Some(Str::default()),
            assignor: None,
            classic: None,
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Assigned::new(),
            revoking: Assigned::new(),
        }
    }

    pub(crate) fn uses_classic_protocol(&self) -> bool {
        self.classic.is_some()
    }

    pub(crate) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// The regular expression that it subscribes by, if any.
    pub(crate) fn regex(&self) -> Option<&Str> {
        self.topic_regex.as_ref().filter(|regex| !regex.is_empty())
    }

    /// Since which epoch it has this partition, one that it is to give up included.
    pub(crate) fn assignment_epoch(&self, topic_id: &Uuid, partition: i32) -> Option<i32> {
        let of = |assigned: &Assigned| assigned.get(topic_id).and_then(|partitions| partitions.get(&partition)).copied();
        of(&self.assigned).or_else(|| of(&self.revoking))
    }

    /// Every partition that it may have.
    pub(crate) fn held(&self) -> impl Iterator<Item = (Uuid, i32)> {
        let each = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| {
            let topic_id = *topic_id;
            partitions.keys().map(move |partition| (topic_id, *partition)).collect::<Vec<_>>()
        };
        self.assigned.iter().chain(&self.revoking).flat_map(each)
    }

    /// The bytes of what varies in its records, about.
    pub(crate) fn recorded_bytes(&self) -> usize {
        let names: usize = self.topic_names.iter().map(|name| name.len() + 2).sum();
        let partitions: usize = self.assigned.values().chain(self.revoking.values()).map(|partitions| 20 + 8 * partitions.len()).sum();
        let protocols: usize =
            self.classic.iter().flat_map(|classic| &classic.protocols).map(|protocol| protocol.name.len() + protocol.metadata.len()).sum();
        self.id.len() + self.client_id.len() + self.client_host.len() + names + partitions + protocols
    }

    // The record of its subscription

    pub(crate) fn metadata_record(&self, group_id: &Str) -> CoordinatorRecord {
        let classic_member_metadata = self.classic.as_ref().map(|classic| ClassicMemberMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            supported_protocols: classic
                .protocols
                .iter()
                .map(|protocol| ClassicProtocol { name: protocol.name.clone(), metadata: protocol.metadata.clone(), ..Default::default() })
                .collect(),
            ..Default::default()
        });
        CoordinatorRecord::ConsumerGroupMemberMetadata {
            key: metadata_key(group_id, &self.id),
            value: Some(ConsumerGroupMemberMetadataValue {
                instance_id: self.instance_id.clone(),
                rack_id: self.rack_id.clone(),
                client_id: self.client_id.clone(),
                client_host: self.client_host.clone(),
                subscribed_topic_names: self.topic_names.iter().cloned().collect(),
                subscribed_topic_regex: self.topic_regex.clone(),
                rebalance_timeout_ms: self.rebalance_timeout_ms,
                server_assignor: self.assignor.clone(),
                classic_member_metadata,
                ..Default::default()
            }),
        }
    }

    pub(crate) fn replay_metadata(&mut self, value: &ConsumerGroupMemberMetadataValue) {
        let detached_option = |text: &Option<Str>| text.as_ref().map(Str::detached);
        self.instance_id = detached_option(&value.instance_id);
        self.rack_id = detached_option(&value.rack_id);
        self.client_id = value.client_id.detached();
        self.client_host = value.client_host.detached();
        self.topic_names = value.subscribed_topic_names.iter().map(Str::detached).collect();
        self.topic_regex = detached_option(&value.subscribed_topic_regex);
        self.rebalance_timeout_ms = value.rebalance_timeout_ms;
        self.assignor = detached_option(&value.server_assignor);
        self.classic = value.classic_member_metadata.as_ref().map(|classic| ClassicSide {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic
                .supported_protocols
                .iter()
                .map(|protocol| Protocol { name: protocol.name.detached(), metadata: detached(&protocol.metadata) })
                .collect(),
        });
    }

    // The record of its current assignment

    pub(crate) fn assignment_record(&self, group_id: &Str) -> CoordinatorRecord {
        CoordinatorRecord::ConsumerGroupCurrentMemberAssignment {
            key: assignment_key(group_id, &self.id),
            value: Some(ConsumerGroupCurrentMemberAssignmentValue {
                member_epoch: self.epoch,
                previous_member_epoch: self.previous_epoch,
                state: self.state.code(),
                assigned_partitions: recorded(&self.assigned),
                partitions_pending_revocation: recorded(&self.revoking),
                ..Default::default()
            }),
        }
    }

    pub(crate) fn replay_assignment(&mut self, value: &ConsumerGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = MemberState::from_code(value.state);
        self.assigned = read(&value.assigned_partitions, value.member_epoch);
        self.revoking = read(&value.partitions_pending_revocation, value.member_epoch);
    }

    /// Its assignment was taken away: it is about to go.
    pub(crate) fn replay_assignment_gone(&mut self) {
        (self.epoch, self.previous_epoch) = (LEFT_EPOCH, LEFT_EPOCH);
        self.assigned.clear();
        self.revoking.clear();
    }
}

pub(crate) fn metadata_key(group_id: &Str, member_id: &Str) -> ConsumerGroupMemberMetadataKey {
    ConsumerGroupMemberMetadataKey { group_id: group_id.clone(), member_id: member_id.clone(), ..Default::default() }
}

pub(crate) fn assignment_key(group_id: &Str, member_id: &Str) -> ConsumerGroupCurrentMemberAssignmentKey {
    ConsumerGroupCurrentMemberAssignmentKey { group_id: group_id.clone(), member_id: member_id.clone(), ..Default::default() }
}

fn recorded(assigned: &Assigned) -> Vec<TopicPartitions> {
    let topic = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..Default::default()
    };
    assigned.iter().map(topic).collect()
}

/// Records of Kafka before 4.2 do not say the epochs; there, all were assigned in the member's.
fn read(topics: &[TopicPartitions], member_epoch: i32) -> Assigned {
    let topic = |topic: &TopicPartitions| {
        let said = topic.assignment_epochs.as_ref().filter(|epochs| epochs.len() == topic.partitions.len());
        let epoch_at = |index: usize| said.map_or(member_epoch.max(0), |epochs| epochs[index]);
        let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| (*partition, epoch_at(index)));
        (topic.topic_id, partitions.collect())
    };
    topics.iter().map(topic).collect()
}
