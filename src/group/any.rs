//! A group of any type, and the questions that its coordinator asks whatever the type.

use super::GroupType;
use super::call::Caller;
use super::classic::{ClassicGroup, RetentionBase};
use super::consumer::ConsumerGroup;
use super::coordinator::Turn;
use super::record::CoordinatorRecord;
use crate::wire::messages::OffsetCommitRequest;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::{ErrorCode, Str};
use uuid::Uuid;

/// From here on TxnOffsetCommit knows the error of a member epoch that is not the member's (KIP-1319).
const TRANSACTION_STALE_EPOCH_VERSION: i16 = 6;

#[derive(Debug)]
pub(crate) enum Group {
    Classic(Box<ClassicGroup>),
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    pub(crate) fn group_type(&self) -> GroupType {
        match self {
            Group::Classic(_) => GroupType::Classic,
            Group::Consumer(_) => GroupType::Consumer,
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self {
            Group::Classic(group) => group.state().name(),
            Group::Consumer(group) => group.state().name(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    pub(crate) fn retention_base(&self) -> RetentionBase {
        match self {
            Group::Classic(group) => group.retention_base(),
            Group::Consumer(_) => RetentionBase::Commit,
        }
    }

    /// Whether offsets may be committed as this request asks, outside any transaction.
    pub(crate) fn validate_commit(&mut self, turn: &mut Turn<'_>, caller: &Caller, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let epoch = request.generation_id_or_member_epoch;
        match self {
            Group::Classic(group) => group.validate_commit(turn, &request.member_id, request.group_instance_id.as_deref(), epoch),
            Group::Consumer(group) => group.validate_commit(&request.member_id, epoch, false, caller.version, partitions_of(request)),
        }
    }

    /// The same, in a transaction.
    pub(crate) fn validate_commit_in_transaction(&self, caller: &Caller, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let epoch = request.generation_id_or_member_epoch;
        match self {
            Group::Classic(group) => group.validate_commit_in_transaction(&request.member_id, request.group_instance_id.as_deref(), epoch),
            Group::Consumer(group) => {
                let verdict = group.validate_commit(&request.member_id, epoch, true, caller.version, partitions_of(request));
                verdict.map_err(|error| match error {
                    ErrorCode::StaleMemberEpoch if caller.version < TRANSACTION_STALE_EPOCH_VERSION => ErrorCode::IllegalGeneration,
                    error => error,
                })
            }
        }
    }

    /// Whether the asker may read the group's offsets.
    pub(crate) fn validate_fetch(&self, request: &OffsetFetchRequestGroup) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(_) => Ok(()),
            Group::Consumer(group) => group.validate_fetch(request.member_id.as_deref(), request.member_epoch),
        }
    }

    pub(crate) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.validate_offset_delete(),
            Group::Consumer(_) => Ok(()),
        }
    }

    pub(crate) fn validate_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    pub(crate) fn list(&self) -> ListedGroup {
        match self {
            Group::Classic(group) => group.list(),
            Group::Consumer(group) => group.list(),
        }
    }

    /// What takes an empty group out of the log.
    pub(crate) fn tombstones(&self) -> Vec<CoordinatorRecord> {
        match self {
            Group::Classic(group) => vec![group.tombstone()],
            Group::Consumer(group) => group.all_tombstones(),
        }
    }

    /// What a record of the whole group takes, about.
    pub(crate) fn recorded_bytes(&self, overhead: usize) -> usize {
        match self {
            Group::Classic(group) => group.members_bytes(overhead),
            Group::Consumer(group) => group.recorded_bytes(overhead),
        }
    }

    pub(crate) fn on_loaded(&mut self, turn: &mut Turn<'_>) {
        match self {
            Group::Classic(group) => group.on_loaded(turn),
            Group::Consumer(group) => group.on_loaded(turn),
        }
    }

    /// Answers everybody who waits.
    pub(crate) fn dismiss(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        match self {
            Group::Classic(group) => group.dismiss(turn, error),
            // Every call of a consumer group is answered at once.
            Group::Consumer(_) => {}
        }
    }

    pub(crate) fn id(&self) -> &Str {
        match self {
            Group::Classic(group) => group.id(),
            Group::Consumer(group) => &group.id,
        }
    }
}

fn partitions_of(request: &OffsetCommitRequest) -> impl Iterator<Item = (Uuid, i32)> {
    let of_topic = |topic: &OffsetCommitRequestTopic| {
        let topic_id = topic.topic_id;
        topic.partitions.iter().map(move |partition| (topic_id, partition.partition_index)).collect::<Vec<_>>()
    };
    request.topics.iter().flat_map(of_topic)
}
