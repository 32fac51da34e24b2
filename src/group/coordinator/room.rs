//! How much a decision may append: room in the journal is asked for before it is made.

use super::Coordinator;
use crate::group::any::Group;
use crate::group::call::Call;
use crate::group::offsets::Offsets;
use crate::wire::Str;
use crate::wire::messages::ConsumerGroupHeartbeatRequest;
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;

/// The bytes of an OffsetCommit or GroupMetadata record beside its strings and its members, with some to spare.
const RECORD_BYTES: usize = 200;

impl Coordinator {
    /// How many bytes the step of this call may append, about: an upper bound unless the group changes in between. 0 for calls that never append.
    pub fn room_for(&self, call: &Call) -> usize {
        match call {
            Call::Join(request) => RECORD_BYTES + request.group_id.len() + self.group_bytes(&request.group_id),
            Call::Sync(request) => {
                let assignments = request.assignments.iter().map(|assigned| assigned.assignment.len());
                RECORD_BYTES + request.group_id.len() + self.group_bytes(&request.group_id) + assignments.sum::<usize>()
            }
            Call::Leave(request) => RECORD_BYTES + request.group_id.len(),
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
