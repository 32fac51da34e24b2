//! Requests about groups: membership, committed offsets, and what operators ask about groups.
//!
//! Each is handed to the coordinator of its group, on the shard that owns the group's partition of `__consumer_offsets`. What belongs to a version of a request (shapes, older
//! ways to say an error) is settled here; the coordinator knows one shape of each.

mod consumer;
mod offsets;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use uuid::Uuid;

pub use self::consumer::{handle_consumer_group_describe, handle_consumer_group_heartbeat};
pub(super) use self::offsets::commit_in_transaction;
pub use self::offsets::{handle_offset_commit, handle_offset_delete, handle_offset_fetch};
use super::RequestContext;
use crate::cluster::TopicIdPartition;
use crate::drive::groups::{Coordinators, GroupReply, GroupRequest};
use crate::group::{Call, Caller, OFFSETS_TOPIC, partition_for};
use crate::rt::{self, ShardId};
use crate::shard::message::{Reply, Request};
use crate::wire::messages::leave_group_request::MemberIdentity;
use crate::wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};

/// From here on a group without a protocol is told by null instead of "".
const NULLABLE_PROTOCOL_VERSION: i16 = 7;
/// From here on SyncGroup has to say which protocol the member believes in (KIP-559).
const SYNC_NAMES_PROTOCOL_VERSION: i16 = 5;
/// From here on several members leave at once (KIP-345).
const LEAVE_TOGETHER_VERSION: i16 = 3;
/// From here on DescribeGroups can tell what the caller may do.
const DESCRIBE_OPERATIONS_VERSION: i16 = 3;

/// What may be done with a group, as a bit set of ACL operations: READ 3, DELETE 6, DESCRIBE 8, DESCRIBE_CONFIGS 10, ALTER_CONFIGS 11. Without an authorizer everybody may.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub async fn handle_join_group(context: &RequestContext, request: JoinGroupRequest, version: i16) -> JoinGroupResponse {
    let group_id = request.group_id.clone();
    let caller = Caller { fresh_id: rt::random_uuid(), ..caller(context) };
    let GroupReply::Join(mut response) = ask(context, &group_id, caller, Call::Join(request)).await else { unreachable!() };
    let protocol_name = response.protocol_name.take().filter(|name| !name.is_empty());
    response.protocol_name = if version < NULLABLE_PROTOCOL_VERSION { Some(protocol_name.unwrap_or_default()) } else { protocol_name };
    response
}

pub async fn handle_sync_group(context: &RequestContext, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if version >= SYNC_NAMES_PROTOCOL_VERSION && !names_protocol {
        return SyncGroupResponse { error_code: ErrorCode::InconsistentGroupProtocol.code(), ..Default::default() };
    }
    let group_id = request.group_id.clone();
    let GroupReply::Sync(response) = ask(context, &group_id, caller(context), Call::Sync(request)).await else { unreachable!() };
    response
}

pub async fn handle_heartbeat(context: &RequestContext, request: HeartbeatRequest, _version: i16) -> HeartbeatResponse {
    let group_id = request.group_id.clone();
    let GroupReply::Heartbeat(response) = ask(context, &group_id, caller(context), Call::Heartbeat(request)).await else { unreachable!() };
    response
}

pub async fn handle_leave_group(context: &RequestContext, mut request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let leaves_alone = version < LEAVE_TOGETHER_VERSION;
    if leaves_alone {
        request.members = vec![MemberIdentity { member_id: std::mem::take(&mut request.member_id), ..Default::default() }];
    }
    let group_id = request.group_id.clone();
    let GroupReply::Leave(response) = ask(context, &group_id, caller(context), Call::Leave(request)).await else { unreachable!() };
    if leaves_alone { response_to_one(&response) } else { response }
}

/// Before members left together, the one's error was the response's.
fn response_to_one(response: &LeaveGroupResponse) -> LeaveGroupResponse {
    let of_member = response.members.first().map_or(0, |member| member.error_code);
    let error_code = if response.error_code == 0 { of_member } else { response.error_code };
    LeaveGroupResponse { error_code, ..Default::default() }
}

/// Lists the groups of every coordinator of this broker. While one of them loads, the list would lack groups that are there.
pub async fn handle_list_groups(context: &RequestContext, request: ListGroupsRequest, _version: i16) -> ListGroupsResponse {
    let call = Call::ListGroups { states: request.states_filter, types: request.types_filter };
    let ask_shard = |shard| {
        let request = GroupRequest { to: Coordinators::All, caller: caller(context), call: call.clone() };
        context.shard.call(ShardId(shard), Request::Group(request))
    };
    let calls: Vec<_> = (0..context.shard.shards()).map(ask_shard).collect();
    let mut response = ListGroupsResponse::default();
    for call in calls {
        match reply_of(call.await) {
            GroupReply::ListGroups(Ok(groups)) => response.groups.extend(groups),
            GroupReply::ListGroups(Err(error)) => return ListGroupsResponse { error_code: error.code(), ..Default::default() },
            other => unreachable!("ListGroups is answered by its own reply, not {other:?}"),
        }
    }
    response
}

pub async fn handle_describe_groups(context: &RequestContext, request: DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
    let tells_operations = version >= DESCRIBE_OPERATIONS_VERSION && request.include_authorized_operations;
    let mut groups = Vec::with_capacity(request.groups.len());
    for reply in ask_each_coordinator(context, request.groups, Call::DescribeGroups).await {
        let GroupReply::DescribeGroups(described) = reply else { unreachable!() };
        groups.extend(described);
    }
    for group in groups.iter_mut().filter(|group| tells_operations && group.error_code == 0) {
        group.authorized_operations = GROUP_OPERATIONS;
    }
    DescribeGroupsResponse { groups, ..Default::default() }
}

pub async fn handle_delete_groups(context: &RequestContext, request: DeleteGroupsRequest, _version: i16) -> DeleteGroupsResponse {
    let mut group_ids = request.groups_names;
    let mut named = HashSet::new();
    group_ids.retain(|group_id| named.insert(group_id.clone()));
    let mut results = Vec::with_capacity(group_ids.len());
    for reply in ask_each_coordinator(context, group_ids, Call::DeleteGroups).await {
        let GroupReply::DeleteGroups(deleted) = reply else { unreachable!() };
        results.extend(deleted);
    }
    DeleteGroupsResponse { results, ..Default::default() }
}

// The way to the coordinators

/// Asks the coordinator of one group.
async fn ask(context: &RequestContext, group_id: &str, caller: Caller, call: Call) -> GroupReply {
    match coordinator_of(context, group_id) {
        Ok(partition) => reply_of(begin(context, partition, caller, call).await),
        Err(error) => call.refuse(error),
    }
}

/// Sends the call; the answer is on its way.
fn begin(context: &RequestContext, partition: TopicIdPartition, caller: Caller, call: Call) -> crate::shard::Call {
    let request = GroupRequest { to: Coordinators::Of(partition), caller, call };
    context.shard.call(context.shard.owner(&partition), Request::Group(request))
}

fn reply_of(reply: Reply) -> GroupReply {
    match reply {
        Reply::Group(reply) => reply,
        other => unreachable!("a group coordinator answers with its own reply, not {other:?}"),
    }
}

/// Asks every coordinator that one of these groups belongs to, all at the same time.
async fn ask_each_coordinator(context: &RequestContext, group_ids: Vec<Str>, call: impl Fn(Vec<Str>) -> Call) -> Vec<GroupReply> {
    let mut by_partition: BTreeMap<TopicIdPartition, Vec<Str>> = BTreeMap::new();
    let mut replies = Vec::new();
    for group_id in group_ids {
        match coordinator_of(context, &group_id) {
            Ok(partition) => by_partition.entry(partition).or_default().push(group_id),
            Err(error) => replies.push(call(vec![group_id]).refuse(error)),
        }
    }
    let asked: Vec<_> =
        by_partition.into_iter().map(|(partition, group_ids)| begin(context, partition, caller(context), call(group_ids))).collect();
    for answer in asked {
        replies.push(reply_of(answer.await));
    }
    replies
}

/// The partition of the offsets topic that a group belongs to, if this broker leads it.
fn coordinator_of(context: &RequestContext, group_id: &str) -> Result<TopicIdPartition, ErrorCode> {
    let image = context.shard.image();
    let topic = image.topic(OFFSETS_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
    let index = partition_for(group_id, topic.partition_count());
    let is_led_here = topic.partition(index).is_some_and(|partition| partition.leader == context.shard.config().node_id());
    if is_led_here { Ok(TopicIdPartition { topic_id: topic.id, partition: index }) } else { Err(ErrorCode::NotCoordinator) }
}

fn caller(context: &RequestContext) -> Caller {
    Caller {
        version: context.api_version,
        client_id: context.client_id.clone().unwrap_or_default(),
        client_host: Str::from(host_as_kafka_prints_it(context.connection.peer_address.ip())),
        fresh_id: Uuid::nil(),
    }
}

/// Java's `InetAddress.toString` without a host name: a slash and the address, IPv6 in full.
fn host_as_kafka_prints_it(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let groups: Vec<String> = address.segments().iter().map(|segment| format!("{segment:x}")).collect();
            format!("/{}", groups.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_printed_as_java_prints_them() {
        assert_eq!(host_as_kafka_prints_it("127.0.0.1".parse().unwrap()), "/127.0.0.1");
        assert_eq!(host_as_kafka_prints_it("::1".parse().unwrap()), "/0:0:0:0:0:0:0:1");
        assert_eq!(host_as_kafka_prints_it("::ffff:192.0.2.1".parse().unwrap()), "/192.0.2.1");
    }

    #[test]
    fn one_member_that_leaves_hears_its_error_at_the_top() {
        use crate::wire::messages::leave_group_response::MemberResponse;
        let unknown = ErrorCode::UnknownMemberId.code();
        let members = vec![MemberResponse { error_code: unknown, ..Default::default() }];
        let response = response_to_one(&LeaveGroupResponse { members, ..Default::default() });
        assert_eq!((response.error_code, response.members.len()), (unknown, 0));
    }
}
