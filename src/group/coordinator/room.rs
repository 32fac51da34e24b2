//! How much a decision may append: room in the journal is asked for before it is made.

use super::Coordinator;
use crate::group::any::Group;
use crate::group::call::Call;
use crate::group::offsets::Offsets;
use crate::wire::Str;
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::{ConsumerGroupHeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

/// The bytes of an OffsetCommit or GroupMetadata record beside its strings and its members, with some to spare.
const RECORD_BYTES: usize = 200;

impl Coordinator {
    /// How many bytes the step of this call may append, about: an upper bound unless the group changes in between. 0 for calls that never append.
    pub fn room_for(&self, call: &Call) -> usize {
        match call {
            Call::Join(request) => RECORD_BYTES + request.group_id.len() + self.join_bytes(request),
            Call::Sync(request) => self.sync_bytes(request),
            Call::Leave(request) => RECORD_BYTES + request.group_id.len() + self.leave_bytes(request),
            Call::CommitOffsets(request) | Call::CommitOffsetsInTransaction { request, .. } => Offsets::commit_bytes(request, RECORD_BYTES),
            Call::DeleteOffsets(request) => {
                let of_topic =
                    |topic: &OffsetDeleteRequestTopic| topic.partitions.len() * (RECORD_BYTES + topic.name.len() + request.group_id.len());
                request.topics.iter().map(of_topic).sum()
            }
            Call::DeleteGroups(group_ids) => {
                let of_group = |group_id: &Str| (1 + self.offsets.count_of_group(group_id)) * (RECORD_BYTES + group_id.len());
                group_ids.iter().map(of_group).sum()
            }
            Call::ConsumerHeartbeat(request) => self.heartbeat_bytes(request),
            Call::Heartbeat(_)
            | Call::FetchOffsets { .. }
            | Call::DescribeGroups(_)
            | Call::DescribeConsumerGroups(_)
            | Call::ListGroups { .. } => 0,
        }
    }

    /// In a classic group only a static member that is back has the whole group recorded: what all say before they are assigned is not. A look at every member with every join would be
    /// most of the work in a large group.
    fn join_bytes(&self, request: &JoinGroupRequest) -> usize {
        let may_come_back = request.group_instance_id.is_some() && request.member_id.is_empty();
        match self.groups.get(&request.group_id) {
            Some(Group::Classic(_)) if !may_come_back => 0,
            _ => self.group_bytes(&request.group_id),
        }
    }

    /// Only the leader's assignment is recorded.
    fn sync_bytes(&self, request: &SyncGroupRequest) -> usize {
        match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) if group.is_leader(&request.member_id) => {
                let assignments = request.assignments.iter().map(|assigned| assigned.assignment.len());
                RECORD_BYTES + request.group_id.len() + self.group_bytes(&request.group_id) + assignments.sum::<usize>()
            }
            _ => 0,
        }
    }

    /// Members of the classic protocol that leave a consumer group are taken out of it one by one, and it may become a classic group then.
    fn leave_bytes(&self, request: &LeaveGroupRequest) -> usize {
        match self.groups.get(&request.group_id) {
            Some(Group::Consumer(group)) => 3 * RECORD_BYTES * request.members.len() + 2 * group.recorded_bytes(RECORD_BYTES),
            _ => 0,
        }
    }

    fn group_bytes(&self, group_id: &str) -> usize {
        self.groups.get(group_id).map_or(0, |group| group.recorded_bytes(RECORD_BYTES))
    }

    /// A heartbeat that says nothing new appends at most what its member may have come to.
    fn heartbeat_bytes(&self, request: &ConsumerGroupHeartbeatRequest) -> usize {
        let names: usize = request.subscribed_topic_names.iter().flatten().map(|name| name.len()).sum();
        let may_assign = match self.groups.get(&request.group_id) {
            Some(Group::Consumer(group)) => request.member_epoch <= 0 || names > 0 || group.awaits_target(),
            _ => true,
        };
        let whole = if may_assign { 2 * self.group_bytes(&request.group_id) } else { 0 };
        4 * RECORD_BYTES + names + whole
    }
}
