//! What settings of a broker mean for its groups: how large one may be, which way it may change its protocol, how long offsets are kept.

use bytes::Bytes;
use corelane_wire::messages::leave_group_request::MemberIdentity;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, SyncGroupRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::broker::{Broker, BrokerOptions};
use harness::raw::{Connection, code};
use harness::wait;

use super::classic::join_request;
use super::{TOPIC, committed, prepare};

/// Who comes beyond the largest size is turned away; who is in stays.
pub fn groups_have_a_largest_size() {
    let broker = Broker::start(BrokerOptions::default().set("group.max.size", 2).set("group.consumer.max.size", 2));
    let mut connection = prepare(&broker);
    connection.wait_for_coordinator("full");
    let first = join(&mut connection, "full", "");
    assert_eq!(sync(&mut connection, "full", &first), ErrorCode::None);
    let mut other = Connection::to(&broker);
    let second = other.send(3, &join_request("full", "")).expect("the broker is there");
    wait::until("the rebalance", wait::PATIENCE, || {
        (beat(&mut connection, "full", &first) == ErrorCode::RebalanceInProgress).then_some(())
    });
    let first = join(&mut connection, "full", &first.member_id);
    let second = other.receive::<JoinGroupRequest>(3, second).expect("an answer");
    assert_eq!((first.members.len(), code(second.error_code)), (2, ErrorCode::None));
    assert_eq!(sync(&mut connection, "full", &first), ErrorCode::None);
    for version in [3, 9] {
        let third = Connection::to(&broker).call(version, &join_request("full", ""));
        assert_eq!(code(third.error_code), ErrorCode::GroupMaxSizeReached, "JoinGroup {version}");
    }
    assert_eq!(beat(&mut connection, "full", &first), ErrorCode::None, "nobody else was disturbed");

    connection.wait_for_coordinator("full-too");
    for (member, expected) in
        [("a", ErrorCode::None), ("b", ErrorCode::None), ("c", ErrorCode::GroupMaxSizeReached), ("b", ErrorCode::None)]
    {
        assert_eq!(code(connection.call(1, &heartbeat("full-too", member, 0)).error_code), expected, "{member}");
    }
    assert_eq!(code(connection.call(1, &heartbeat("full-too", "a", -1)).error_code), ErrorCode::None);
    assert_eq!(code(connection.call(1, &heartbeat("full-too", "c", 0)).error_code), ErrorCode::None, "there is room again");
}

/// Up: a member of the consumer protocol comes to a group of classic ones. Down: it leaves them.
pub fn policies_say_which_way_groups_may_go() {
    for (policy, goes_up, goes_down) in
        [("disabled", false, false), ("upgrade", true, false), ("downgrade", false, true), ("bidirectional", true, true)]
    {
        let broker = Broker::start(BrokerOptions::default().set("group.consumer.migration.policy", policy));
        let mut connection = prepare(&broker);
        let group = "migrating";
        connection.wait_for_coordinator(group);
        let classic = join(&mut connection, group, "");
        assert_eq!(sync(&mut connection, group, &classic), ErrorCode::None);
        let came = code(connection.call(1, &heartbeat(group, "modern", 0)).error_code);
        assert_eq!(came, if goes_up { ErrorCode::None } else { ErrorCode::GroupIdNotFound }, "{policy}");
        assert_eq!(group_type(&mut connection, group), if goes_up { "consumer" } else { "classic" }, "{policy}");
        let leave = LeaveGroupRequest {
            group_id: Str::from(group),
            members: vec![MemberIdentity { member_id: classic.member_id.clone(), ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(code(connection.call(4, &leave).members[0].error_code), ErrorCode::None, "{policy}");
        if goes_up {
            assert_eq!(code(connection.call(1, &heartbeat(group, "modern", -1)).error_code), ErrorCode::None, "{policy}");
        }

        // The other way round: a classic member comes to a group of the consumer protocol, whose own one leaves.
        let group = "migrating-back";
        connection.wait_for_coordinator(group);
        assert_eq!(code(connection.call(1, &heartbeat(group, "modern", 0)).error_code), ErrorCode::None, "{policy}");
        let classic = connection.call(3, &join_request(group, ""));
        let takes_classic_members = policy != "disabled";
        let expected = if takes_classic_members { ErrorCode::None } else { ErrorCode::InconsistentGroupProtocol };
        assert_eq!(code(classic.error_code), expected, "{policy}");
        assert_eq!(group_type(&mut connection, group), "consumer", "{policy}");
        assert_eq!(code(connection.call(1, &heartbeat(group, "modern", -1)).error_code), ErrorCode::None, "{policy}");
        if takes_classic_members {
            assert_eq!(group_type(&mut connection, group), if goes_down { "classic" } else { "consumer" }, "{policy}");
        }
    }
}

/// Offsets with an expiry of their own, which old clients ask for: in a group without members they go, and the group with the last of them; in one that reads the topic they stay.
pub fn offsets_expire_by_what_their_group_does() {
    let broker = Broker::start(BrokerOptions::default().set("offsets.retention.check.interval.ms", 500));
    let mut connection = prepare(&broker);
    connection.create_topic("left-behind", 1);
    for group in ["simple", "kept", "reading"] {
        connection.wait_for_coordinator(group);
    }
    let reader = join(&mut connection, "reading", "");
    assert_eq!(sync(&mut connection, "reading", &reader), ErrorCode::None);
    let short_ms = 1_500;
    assert_eq!(commit(&mut connection, "simple", None, TOPIC, short_ms), ErrorCode::None);
    assert_eq!(commit(&mut connection, "kept", None, TOPIC, -1), ErrorCode::None);
    for topic in [TOPIC, "left-behind"] {
        assert_eq!(commit(&mut connection, "reading", Some(&reader), topic, short_ms), ErrorCode::None);
    }
    wait::until("the groups", wait::PATIENCE, || (listed(&mut connection) == ["kept", "reading", "simple"]).then_some(()));
    wait::until("the simple group to go with its offset", wait::PATIENCE, || {
        assert_eq!(beat(&mut connection, "reading", &reader), ErrorCode::None);
        (listed(&mut connection) == ["kept", "reading"]).then_some(())
    });
    wait::until("what nobody reads", wait::PATIENCE, || {
        assert_eq!(beat(&mut connection, "reading", &reader), ErrorCode::None);
        (committed_of(&mut connection, "reading", "left-behind") == -1).then_some(())
    });
    assert_eq!((committed(&mut connection, "reading"), committed(&mut connection, "kept")), (Some(1), Some(1)));
}

pub fn the_consumer_protocol_can_be_switched_off() {
    let broker = Broker::start(BrokerOptions::default().set("group.coordinator.rebalance.protocols", "classic"));
    let mut connection = prepare(&broker);
    assert_eq!(code(connection.call(1, &heartbeat("g", "a", 0)).error_code), ErrorCode::UnsupportedVersion);
    let describe = ConsumerGroupDescribeRequest { group_ids: vec![Str::from("g")], ..Default::default() };
    assert_eq!(code(connection.call(1, &describe).groups[0].error_code), ErrorCode::UnsupportedVersion);
    connection.wait_for_coordinator("g");
    let classic = join(&mut connection, "g", "");
    assert_eq!(sync(&mut connection, "g", &classic), ErrorCode::None);
}

fn heartbeat(group: &str, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    let joins = epoch == 0;
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from(group),
        member_id: Str::from(member),
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: joins.then(|| vec![Str::from(TOPIC)]),
        topic_partitions: joins.then(Vec::new),
        ..Default::default()
    }
}

/// By version 3, which lets a new member in without a second request.
fn join(connection: &mut Connection, group: &str, member: &str) -> JoinGroupResponse {
    let joined = connection.call(3, &join_request(group, member));
    assert_eq!(code(joined.error_code), ErrorCode::None, "{group}");
    joined
}

fn sync(connection: &mut Connection, group: &str, joined: &JoinGroupResponse) -> ErrorCode {
    let request = SyncGroupRequest {
        group_id: Str::from(group),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    let synced = connection.call(3, &request);
    assert_eq!(synced.assignment, Bytes::new(), "whom nobody assigns anything has nothing");
    code(synced.error_code)
}

fn beat(connection: &mut Connection, group: &str, joined: &JoinGroupResponse) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: Str::from(group),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    code(connection.call(3, &request).error_code)
}

fn group_type(connection: &mut Connection, group: &str) -> String {
    let listed = connection.call(5, &ListGroupsRequest::default()).groups;
    listed.into_iter().find(|listed| *listed.group_id == *group).expect("the group").group_type.to_string()
}

fn listed(connection: &mut Connection) -> Vec<String> {
    let answer = connection.call(5, &ListGroupsRequest::default());
    let mut groups: Vec<String> = answer.groups.iter().map(|listed| listed.group_id.to_string()).collect();
    groups.sort();
    groups
}

/// Commits offset 1 of partition 0, to be kept for so long; -1 leaves that to the broker.
fn commit(connection: &mut Connection, group: &str, member: Option<&JoinGroupResponse>, topic: &str, retention_time_ms: i64) -> ErrorCode {
    let partition = OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: member.map_or(-1, |member| member.generation_id),
        member_id: member.map(|member| member.member_id.clone()).unwrap_or_default(),
        retention_time_ms,
        topics: vec![OffsetCommitRequestTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    code(connection.call(4, &request).topics[0].partitions[0].error_code)
}

fn committed_of(connection: &mut Connection, group: &str, topic: &str) -> i64 {
    use corelane_wire::messages::OffsetFetchRequest;
    use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
    let place = OffsetFetchRequestTopic { name: Str::from(topic), partition_indexes: vec![0], ..Default::default() };
    let request = OffsetFetchRequest { group_id: Str::from(group), topics: Some(vec![place]), ..Default::default() };
    connection.call(5, &request).topics[0].partitions[0].committed_offset
}
