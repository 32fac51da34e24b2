//! Classic consumer groups by hand: joining, leading, syncing, leaving, and offsets.

use std::time::Duration;

use bytes::Bytes;
use corelane_wire::messages::join_group_request::JoinGroupRequestProtocol;
use corelane_wire::messages::leave_group_request::MemberIdentity;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use corelane_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use corelane_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use corelane_wire::messages::{
    ConsumerProtocolSubscription, DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    SyncGroupRequest, SyncGroupResponse,
};
use corelane_wire::{ErrorCode, Str, encode_versioned};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, code};
use harness::suite::Case;
use harness::wait;

pub const CASES: &[Case] = cases![
    a_group_of_one_in_every_version,
    new_members_are_given_an_id_first,
    join_requests_are_checked,
    a_second_member_causes_a_rebalance,
    protocols_must_have_one_in_common,
    the_protocol_is_chosen_by_vote,
    generations_and_members_are_checked,
    a_leader_that_rejoins_causes_a_rebalance,
    leaving_causes_a_rebalance_at_once,
    leaving_names_each_member,
    a_silent_member_is_dropped,
    static_members_come_back_without_a_rebalance,
    a_replaced_static_member_is_fenced,
    offsets_are_kept_in_every_version,
    offsets_of_simple_groups,
    commits_are_checked,
    large_metadata_is_refused_for_its_partition,
    offsets_are_fetched_by_group,
    offsets_are_deleted,
    offsets_of_a_topic_in_use_are_kept,
    offsets_go_with_their_topic,
    groups_of_other_types_than_consumers,
    groups_are_listed_and_described,
    groups_are_deleted_when_empty,
];

fn a_group_of_one_in_every_version(broker: &Broker) {
    for version in 0..=9 {
        let mut member = Member::new(broker, &format!("groups-version-{version}"));
        member.version = version;
        let joined = member.join();
        assert_eq!(code(joined.error_code), ErrorCode::None, "version {version}");
        assert_eq!((joined.generation_id, joined.protocol_name.as_deref()), (1, Some("range")), "version {version}");
        assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1), "version {version}");
        assert_eq!(joined.members[0].metadata, Bytes::from_static(b"subscription"));
        assert!(version < 7 || joined.protocol_type.as_deref() == Some("consumer"), "version {version}");
        let synced = member.sync(&[(&joined.member_id, b"mine")]);
        assert_eq!((code(synced.error_code), synced.assignment), (ErrorCode::None, Bytes::from_static(b"mine")), "version {version}");
        assert_eq!(member.heartbeat(), ErrorCode::None, "version {version}");
        assert_eq!(member.leave(), ErrorCode::None, "version {version}");
    }
}

/// KIP-394: so that a client which lost the answer does not leave a member behind. Its id begins with the client's name.
fn new_members_are_given_an_id_first(broker: &Broker) {
    let mut member = Member::new(broker, "groups-member-id");
    let first = member.join_once();
    assert_eq!(code(first.error_code), ErrorCode::MemberIdRequired);
    assert!(first.member_id.starts_with("black-box-"), "{}", first.member_id.as_str());
    assert_eq!(first.generation_id, -1);
    member.id = first.member_id;
    assert_eq!(code(member.join_once().error_code), ErrorCode::None);
    let mut stranger = Member::new(broker, "groups-member-id");
    stranger.id = Str::from("black-box-nobody");
    assert_eq!(code(stranger.join_once().error_code), ErrorCode::UnknownMemberId);
}

fn join_requests_are_checked(broker: &Broker) {
    let mut member = Member::new(broker, "groups-checks");
    member.group = Str::from("");
    assert_eq!(code(member.join_once().error_code), ErrorCode::InvalidGroupId);
    let mut member = Member::new(broker, "groups-checks");
    for session_timeout_ms in [1, 5_999, 1_800_001] {
        member.session_timeout_ms = session_timeout_ms;
        assert_eq!(code(member.join_once().error_code), ErrorCode::InvalidSessionTimeout, "{session_timeout_ms} ms");
    }
    member.session_timeout_ms = 10_000;
    member.protocols = Vec::new();
    assert_eq!(code(member.join_once().error_code), ErrorCode::InconsistentGroupProtocol);
    member.protocols = vec!["range"];
    member.protocol_type = Str::from("");
    assert_eq!(code(member.join_once().error_code), ErrorCode::InconsistentGroupProtocol);
}

fn a_second_member_causes_a_rebalance(broker: &Broker) {
    let mut first = Member::new(broker, "groups-two");
    first.lead_alone();
    let mut second = Member::new(broker, "groups-two");
    let joining = second.start_to_join();
    wait::until("the first to hear of it", wait::PATIENCE, || (first.heartbeat() == ErrorCode::RebalanceInProgress).then_some(()));
    let led = first.join();
    assert_eq!((code(led.error_code), led.generation_id, led.members.len()), (ErrorCode::None, 2, 2));
    let followed = second.finish_to_join(joining);
    assert_eq!((code(followed.error_code), followed.generation_id, followed.members.len()), (ErrorCode::None, 2, 0));
    assert_eq!(followed.leader, first.id);
    // The follower's sync waits for the leader's assignment.
    let syncing = second.start_to_sync(&[]);
    second.connection.assert_silent(Duration::from_millis(200));
    let synced = first.sync(&[(&first.id.clone(), b"one"), (&second.id.clone(), b"two")]);
    assert_eq!(synced.assignment, Bytes::from_static(b"one"));
    assert_eq!(second.finish_to_sync(syncing).assignment, Bytes::from_static(b"two"));
    assert_eq!(second.sync(&[]).assignment, Bytes::from_static(b"two"), "and it may be asked for again");
    assert_eq!((first.heartbeat(), second.heartbeat()), (ErrorCode::None, ErrorCode::None));
}

fn protocols_must_have_one_in_common(broker: &Broker) {
    let mut first = Member::new(broker, "groups-protocols");
    first.lead_alone();
    let mut second = Member::new(broker, "groups-protocols");
    second.protocols = vec!["another"];
    assert_eq!(code(second.join_once().error_code), ErrorCode::InconsistentGroupProtocol);
    second.protocols = vec!["range"];
    second.protocol_type = Str::from("connect");
    assert_eq!(code(second.join_once().error_code), ErrorCode::InconsistentGroupProtocol);
}

/// Of those that all know, the one that most like best.
fn the_protocol_is_chosen_by_vote(broker: &Broker) {
    let mut first = Member::new(broker, "groups-vote");
    first.protocols = vec!["range", "sticky"];
    first.lead_alone();
    let mut others: Vec<Member> = (0..2).map(|_| Member::new(broker, "groups-vote")).collect();
    let mut joining = Vec::new();
    for other in &mut others {
        other.protocols = vec!["unknown-to-the-first", "sticky", "range"];
        joining.push(other.start_to_join());
    }
    wait::until("the first to hear of it", wait::PATIENCE, || (first.heartbeat() == ErrorCode::RebalanceInProgress).then_some(()));
    let led = first.join();
    assert_eq!((led.members.len(), led.protocol_name.as_deref()), (3, Some("sticky")));
    for (other, joining) in others.iter_mut().zip(joining) {
        assert_eq!(other.finish_to_join(joining).protocol_name.as_deref(), Some("sticky"));
    }
}

fn generations_and_members_are_checked(broker: &Broker) {
    let mut member = Member::new(broker, "groups-generations");
    member.lead_alone();
    let (id, generation) = (member.id.clone(), member.generation);
    for (id, generation, expected) in [
        (id.clone(), generation + 1, ErrorCode::IllegalGeneration),
        (Str::from("nobody"), generation, ErrorCode::UnknownMemberId),
        (id, generation, ErrorCode::None),
    ] {
        (member.id, member.generation) = (id, generation);
        assert_eq!(member.heartbeat(), expected);
        assert_eq!(code(member.sync(&[]).error_code), expected);
    }
    let mut nobody = Member::new(broker, "groups-no-such-group");
    nobody.id = Str::from("nobody");
    assert_eq!(nobody.heartbeat(), ErrorCode::UnknownMemberId);
    assert_eq!(code(nobody.sync(&[]).error_code), ErrorCode::UnknownMemberId);
    let request = SyncGroupRequest {
        group_id: member.group.clone(),
        generation_id: member.generation,
        member_id: member.id.clone(),
        protocol_type: Some(Str::from("consumer")),
        protocol_name: Some(Str::from("sticky")),
        ..Default::default()
    };
    assert_eq!(code(member.connection.call(5, &request).error_code), ErrorCode::InconsistentGroupProtocol);
}

fn a_leader_that_rejoins_causes_a_rebalance(broker: &Broker) {
    let mut leader = Member::new(broker, "groups-rejoin");
    leader.lead_alone();
    assert_eq!(leader.join().generation_id, 2);
    assert_eq!(code(leader.sync(&[(&leader.id.clone(), b"again")]).error_code), ErrorCode::None);
    assert_eq!(leader.heartbeat(), ErrorCode::None);
}

fn leaving_causes_a_rebalance_at_once(broker: &Broker) {
    let (mut first, mut second) = two_members(broker, "groups-leave");
    assert_eq!(second.leave(), ErrorCode::None);
    assert_eq!(first.heartbeat(), ErrorCode::RebalanceInProgress);
    let alone = first.join();
    assert_eq!((alone.generation_id, alone.members.len()), (3, 1));
    assert_eq!(second.heartbeat(), ErrorCode::UnknownMemberId);
}

fn leaving_names_each_member(broker: &Broker) {
    let (mut first, second) = two_members(broker, "groups-leave-many");
    let identity = |id: &Str| MemberIdentity { member_id: id.clone(), ..Default::default() };
    let members = vec![identity(&second.id), identity(&Str::from("nobody"))];
    let answer = first.connection.call(4, &LeaveGroupRequest { group_id: first.group.clone(), members, ..Default::default() });
    assert_eq!(code(answer.error_code), ErrorCode::None);
    let each: Vec<_> = answer.members.iter().map(|member| (member.member_id.to_string(), code(member.error_code))).collect();
    assert_eq!(each, [(second.id.to_string(), ErrorCode::None), ("nobody".to_string(), ErrorCode::UnknownMemberId)]);
}

/// Its session ends; the one that stays is told to join again.
fn a_silent_member_is_dropped(broker: &Broker) {
    let (mut first, second) = two_members(broker, "groups-silent");
    drop(second);
    wait::until("the session's end", wait::PATIENCE, || (first.heartbeat() == ErrorCode::RebalanceInProgress).then_some(()));
    assert_eq!(first.join().members.len(), 1);
}

fn static_members_come_back_without_a_rebalance(broker: &Broker) {
    let mut member = Member::new(broker, "groups-static");
    member.instance = Some(Str::from("instance-1"));
    let joined = member.join();
    assert_eq!((code(joined.error_code), joined.generation_id), (ErrorCode::None, 1), "a static member needs no id first");
    assert_eq!(joined.members[0].group_instance_id.as_deref(), Some("instance-1"));
    member.sync(&[(&member.id.clone(), b"mine")]);
    let mut again = Member::new(broker, "groups-static");
    again.instance = member.instance.clone();
    let rejoined = again.join();
    assert_eq!((code(rejoined.error_code), rejoined.generation_id, rejoined.skip_assignment), (ErrorCode::None, 1, true));
    assert_ne!(again.id, member.id);
    assert_eq!(again.sync(&[]).assignment, Bytes::from_static(b"mine"));
}

fn a_replaced_static_member_is_fenced(broker: &Broker) {
    let mut old = Member::new(broker, "groups-fenced");
    old.instance = Some(Str::from("instance-1"));
    old.lead_alone();
    let mut new = Member::new(broker, "groups-fenced");
    new.instance = old.instance.clone();
    assert_eq!(code(new.join().error_code), ErrorCode::None);
    assert_eq!(old.heartbeat(), ErrorCode::FencedInstanceId);
    assert_eq!(code(old.sync(&[]).error_code), ErrorCode::FencedInstanceId);
    assert_eq!(code(old.join_once().error_code), ErrorCode::FencedInstanceId);
    assert_eq!(new.heartbeat(), ErrorCode::None);
}

fn offsets_are_kept_in_every_version(broker: &Broker) {
    let topic = "groups-offsets";
    let mut member = Member::new(broker, "groups-offsets");
    member.connection.create_topic(topic, 2);
    member.lead_alone();
    for version in 2..=9 {
        assert_eq!(member.commit_in(version, topic, 0, i64::from(version) * 10, "note"), ErrorCode::None, "version {version}");
        for fetch_version in 1..=7 {
            let places = vec![OffsetFetchRequestTopic { name: Str::from(topic), partition_indexes: vec![0, 1], ..Default::default() }];
            let request = OffsetFetchRequest { group_id: member.group.clone(), topics: Some(places), ..Default::default() };
            let answer = member.connection.call(fetch_version, &request);
            let found: Vec<_> = answer.topics[0]
                .partitions
                .iter()
                .map(|found| (found.committed_offset, found.metadata.as_deref().map(str::to_string), found.error_code))
                .collect();
            assert_eq!(
                found,
                [(i64::from(version) * 10, Some("note".to_string()), 0), (-1, Some(String::new()), 0)],
                "committed in {version}, fetched in {fetch_version}"
            );
        }
    }
}

/// Without members, offsets may be kept by anyone who names no generation.
fn offsets_of_simple_groups(broker: &Broker) {
    let topic = "groups-simple";
    let mut member = Member::new(broker, "groups-simple");
    member.connection.create_topic(topic, 1);
    member.generation = -1;
    assert_eq!(member.commit(topic, 0, 5), ErrorCode::None);
    assert_eq!(member.committed(topic, 0), 5);
    let described = member.connection.call(5, &DescribeGroupsRequest { groups: vec![member.group.clone()], ..Default::default() });
    assert_eq!((described.groups[0].group_state.as_str(), described.groups[0].protocol_type.as_str()), ("Empty", ""));
    // Once there are members, only they may.
    let mut active = Member::new(broker, "groups-simple");
    active.lead_alone();
    assert_eq!(member.commit(topic, 0, 6), ErrorCode::UnknownMemberId);
    assert_eq!(active.commit(topic, 0, 7), ErrorCode::None);
    assert_eq!(active.committed(topic, 0), 7);
}

fn commits_are_checked(broker: &Broker) {
    let topic = "groups-commit-checks";
    let mut member = Member::new(broker, "groups-commit-checks");
    member.connection.create_topic(topic, 1);
    member.lead_alone();
    assert_eq!(member.commit("groups-no-such-topic", 0, 1), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(member.commit(topic, 9, 1), ErrorCode::UnknownTopicOrPartition);
    member.generation += 1;
    assert_eq!(member.commit(topic, 0, 1), ErrorCode::IllegalGeneration);
    member.generation -= 1;
    let id = std::mem::replace(&mut member.id, Str::from("nobody"));
    assert_eq!(member.commit(topic, 0, 1), ErrorCode::UnknownMemberId);
    member.id = id;
    assert_eq!(member.commit(topic, 0, 1), ErrorCode::None);
    let mut stranger = Member::new(broker, "groups-commit-unknown");
    (stranger.id, stranger.generation) = (Str::from("nobody"), 4);
    assert_eq!(stranger.commit_in(8, topic, 0, 1, ""), ErrorCode::IllegalGeneration);
    assert_eq!(stranger.commit_in(9, topic, 0, 1, ""), ErrorCode::GroupIdNotFound);
}

fn large_metadata_is_refused_for_its_partition(broker: &Broker) {
    let topic = "groups-metadata";
    let mut member = Member::new(broker, "groups-metadata");
    member.connection.create_topic(topic, 1);
    member.lead_alone();
    assert_eq!(member.commit_in(7, topic, 0, 1, &"x".repeat(4096)), ErrorCode::None);
    assert_eq!(member.commit_in(7, topic, 0, 2, &"x".repeat(4097)), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(member.committed(topic, 0), 1);
}

/// Version 8 asks for several groups at once; null topics mean all that the group has.
fn offsets_are_fetched_by_group(broker: &Broker) {
    let topic = "groups-batched";
    let mut first = Member::new(broker, "groups-batched-1");
    first.connection.create_topic(topic, 3);
    first.lead_alone();
    assert_eq!(first.commit(topic, 2, 42), ErrorCode::None);
    let group = |name: &str, topics| OffsetFetchRequestGroup { group_id: Str::from(name), topics, ..Default::default() };
    let named = OffsetFetchRequestTopics { name: Str::from(topic), partition_indexes: vec![2], ..Default::default() };
    let groups = vec![group("groups-batched-1", None), group("groups-batched-none", Some(vec![named]))];
    for version in [8, 9] {
        let answer = first.connection.call(version, &OffsetFetchRequest { groups: groups.clone(), ..Default::default() });
        let found: Vec<_> = answer
            .groups
            .iter()
            .map(|group| {
                (
                    group.group_id.to_string(),
                    code(group.error_code),
                    group.topics[0].partitions.iter().map(|found| (found.partition_index, found.committed_offset)).collect::<Vec<_>>(),
                )
            })
            .collect();
        let expected = [
            ("groups-batched-1".to_string(), ErrorCode::None, vec![(2, 42)]),
            ("groups-batched-none".to_string(), ErrorCode::None, vec![(2, -1)]),
        ];
        assert_eq!(found, expected, "version {version}");
    }
    // Version 10 speaks of topics by id.
    let topic_id = first.connection.topic_id(topic);
    let by_id = OffsetFetchRequestTopics { topic_id, partition_indexes: vec![2], ..Default::default() };
    let unknown = OffsetFetchRequestTopics { topic_id: uuid::Uuid::from_u128(5), partition_indexes: vec![2], ..Default::default() };
    let answer = first
        .connection
        .call(10, &OffsetFetchRequest { groups: vec![group("groups-batched-1", Some(vec![by_id, unknown]))], ..Default::default() });
    let mut found: Vec<_> =
        answer.groups[0].topics.iter().map(|topic| (code(topic.partitions[0].error_code), topic.partitions[0].committed_offset)).collect();
    found.sort_by_key(|(error, _)| error.code());
    assert_eq!(found, [(ErrorCode::None, 42), (ErrorCode::UnknownTopicId, -1)]);
}

fn offsets_are_deleted(broker: &Broker) {
    let topic = "groups-offset-delete";
    let mut member = Member::new(broker, "groups-offset-delete");
    member.connection.create_topic(topic, 2);
    member.generation = -1;
    assert_eq!((member.commit(topic, 0, 5), member.commit(topic, 1, 6)), (ErrorCode::None, ErrorCode::None));
    let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0, ..Default::default() }];
    let topics = vec![OffsetDeleteRequestTopic { name: Str::from(topic), partitions, ..Default::default() }];
    let request = OffsetDeleteRequest { group_id: member.group.clone(), topics, ..Default::default() };
    let answer = member.connection.call(0, &request);
    assert_eq!((code(answer.error_code), code(answer.topics[0].partitions[0].error_code)), (ErrorCode::None, ErrorCode::None));
    assert_eq!((member.committed(topic, 0), member.committed(topic, 1)), (-1, 6));
    let absent = member.connection.call(0, &OffsetDeleteRequest { group_id: Str::from("groups-nowhere"), ..request });
    assert_eq!(code(absent.error_code), ErrorCode::GroupIdNotFound);
}

/// What a member reads is not forgotten under it; a group of members whose subscriptions nobody can read is left alone as a whole.
fn offsets_of_a_topic_in_use_are_kept(broker: &Broker) {
    let topic = "groups-in-use";
    let mut member = Member::new(broker, "groups-in-use");
    member.connection.create_topic(topic, 1);
    member.connection.create_topic("groups-not-in-use", 1);
    let subscription = ConsumerProtocolSubscription { topics: vec![Str::from(topic)], ..Default::default() };
    member.metadata = encode_versioned(1, &subscription).expect("valid");
    member.lead_alone();
    assert_eq!((member.commit(topic, 0, 5), member.commit("groups-not-in-use", 0, 6)), (ErrorCode::None, ErrorCode::None));
    let delete = |member: &mut Member, topic: &str| {
        let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0, ..Default::default() }];
        let topics = vec![OffsetDeleteRequestTopic { name: Str::from(topic), partitions, ..Default::default() }];
        let answer = member.connection.call(0, &OffsetDeleteRequest { group_id: member.group.clone(), topics, ..Default::default() });
        (code(answer.error_code), answer.topics.first().map(|topic| code(topic.partitions[0].error_code)))
    };
    assert_eq!(delete(&mut member, topic), (ErrorCode::None, Some(ErrorCode::GroupSubscribedToTopic)));
    assert_eq!(delete(&mut member, "groups-not-in-use"), (ErrorCode::None, Some(ErrorCode::None)));
    assert_eq!((member.committed(topic, 0), member.committed("groups-not-in-use", 0)), (5, -1));

    let mut worker = Member::new(broker, "groups-in-use-connect");
    worker.protocol_type = Str::from("connect");
    worker.lead_alone();
    assert_eq!(worker.commit(topic, 0, 7), ErrorCode::None);
    assert_eq!(delete(&mut worker, topic).0, ErrorCode::NonEmptyGroup);
}

/// A topic of the same name is another one: nobody goes on in it where he was in the old one.
fn offsets_go_with_their_topic(broker: &Broker) {
    let topic = "groups-made-again";
    let mut member = Member::new(broker, "groups-made-again");
    member.connection.create_topic(topic, 1);
    member.lead_alone();
    assert_eq!(member.commit(topic, 0, 5), ErrorCode::None);
    let request = DeleteTopicsRequest { topic_names: vec![Str::from(topic)], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(code(member.connection.call(3, &request).responses[0].error_code), ErrorCode::None);
    wait::until("the topic to be gone", wait::PATIENCE, || {
        (code(member.connection.metadata(9, &[topic]).topics[0].error_code) == ErrorCode::UnknownTopicOrPartition).then_some(())
    });
    member.connection.create_topic(topic, 1);
    wait::until("the offset to be gone", wait::PATIENCE, || (member.committed(topic, 0) == -1).then_some(()));
    assert_eq!(member.commit(topic, 0, 1), ErrorCode::None);
    assert_eq!(member.committed(topic, 0), 1);
}

/// Workers of Connect and, once, Streams share their work out by the same protocol: what they say to each other is theirs, and is carried as it is.
fn groups_of_other_types_than_consumers(broker: &Broker) {
    for (kind, protocols, chosen) in
        [("connect", vec!["sessioned", "compatible", "default"], "sessioned"), ("stream", vec!["tasks"], "tasks")]
    {
        let group = format!("groups-of-{kind}");
        let mut leader = Member::new(broker, &group);
        (leader.protocol_type, leader.protocols) = (Str::from(kind), protocols.clone());
        leader.metadata = Bytes::from_static(b"\0\x01\xff whatever");
        leader.lead_alone();
        let mut worker = Member::new(broker, &group);
        (worker.protocol_type, worker.protocols) = (Str::from(kind), protocols);
        let joining = worker.start_to_join();
        wait::until("the first to hear of it", wait::PATIENCE, || (leader.heartbeat() == ErrorCode::RebalanceInProgress).then_some(()));
        let led = leader.join();
        assert_eq!((led.members.len(), led.protocol_name.as_deref()), (2, Some(chosen)));
        let said = led.members.iter().find(|member| member.member_id == leader.id).map(|member| member.metadata.clone());
        assert_eq!(said, Some(leader.metadata.clone()));
        assert_eq!(code(worker.finish_to_join(joining).error_code), ErrorCode::None);
        leader.sync(&[(&leader.id.clone(), b"\0one"), (&worker.id.clone(), b"\0two")]);
        assert_eq!(worker.sync(&[]).assignment, Bytes::from_static(b"\0two"));
        let described = leader.connection.call(5, &DescribeGroupsRequest { groups: vec![leader.group.clone()], ..Default::default() });
        let described = &described.groups[0];
        assert_eq!((&*described.protocol_type, &*described.protocol_data, &*described.group_state), (kind, chosen, "Stable"));
        let listed = leader.connection.call(5, &ListGroupsRequest { types_filter: vec![Str::from("classic")], ..Default::default() });
        let listed = listed.groups.into_iter().find(|listed| listed.group_id == leader.group).expect("the group");
        assert_eq!((&*listed.protocol_type, &*listed.group_type), (kind, "classic"));
    }
}

fn groups_are_listed_and_described(broker: &Broker) {
    let mut member = Member::new(broker, "groups-listed");
    member.lead_alone();
    let group = member.group.clone();
    let mut listed = |version, states: &[&str], types: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|name| Str::from(*name)).collect();
        let answer = member
            .connection
            .call(version, &ListGroupsRequest { states_filter: all(states), types_filter: all(types), ..Default::default() });
        let found = answer.groups.into_iter().find(|listed| listed.group_id == group)?;
        Some((found.protocol_type.to_string(), found.group_state.to_string(), found.group_type.to_string()))
    };
    let told = |kind: &str, state: &str, group_type: &str| Some((kind.to_string(), state.to_string(), group_type.to_string()));
    assert_eq!(listed(3, &[], &[]), told("consumer", "", ""));
    assert_eq!(listed(4, &[], &[]), told("consumer", "Stable", ""));
    assert_eq!(listed(5, &["stable"], &["Classic"]), told("consumer", "Stable", "classic"));
    assert_eq!(listed(5, &["Empty"], &[]), None);
    assert_eq!(listed(5, &[], &["consumer"]), None);

    let absent = Str::from("groups-absent");
    for version in 0..=6 {
        let answer =
            member.connection.call(version, &DescribeGroupsRequest { groups: vec![group.clone(), absent.clone()], ..Default::default() });
        let of = |name: &Str| answer.groups.iter().find(|described| described.group_id == *name).expect("an answer for each group");
        let here = of(&group);
        assert_eq!(
            (code(here.error_code), here.group_state.as_str(), here.protocol_type.as_str(), here.protocol_data.as_str()),
            (ErrorCode::None, "Stable", "consumer", "range")
        );
        let one = &here.members[0];
        assert_eq!((&one.member_id, one.client_id.as_str(), one.client_host.as_str()), (&member.id, "black-box", "/127.0.0.1"));
        assert_eq!((&one.member_metadata[..], &one.member_assignment[..]), (&b"subscription"[..], &b"mine"[..]));
        let expected = if version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
        assert_eq!((code(of(&absent).error_code), of(&absent).group_state.as_str()), (expected, "Dead"), "version {version}");
    }
}

fn groups_are_deleted_when_empty(broker: &Broker) {
    let mut member = Member::new(broker, "groups-deleted");
    member.connection.create_topic("groups-deleted", 1);
    member.lead_alone();
    assert_eq!(member.commit("groups-deleted", 0, 3), ErrorCode::None);
    let group = member.group.clone();
    let delete = |member: &mut Member| {
        let answer = member
            .connection
            .call(2, &DeleteGroupsRequest { groups_names: vec![group.clone(), Str::from("groups-absent")], ..Default::default() });
        let of = |name: &str| answer.results.iter().find(|result| result.group_id.as_str() == name).map(|result| code(result.error_code));
        (of("groups-deleted"), of("groups-absent"))
    };
    assert_eq!(delete(&mut member), (Some(ErrorCode::NonEmptyGroup), Some(ErrorCode::GroupIdNotFound)));
    assert_eq!(member.leave(), ErrorCode::None);
    assert_eq!(delete(&mut member), (Some(ErrorCode::None), Some(ErrorCode::GroupIdNotFound)));
    assert_eq!(member.committed("groups-deleted", 0), -1);
}

fn two_members(broker: &Broker, group: &str) -> (Member, Member) {
    let mut first = Member::new(broker, group);
    first.lead_alone();
    let mut second = Member::new(broker, group);
    let joining = second.start_to_join();
    wait::until("the first to hear of it", wait::PATIENCE, || (first.heartbeat() == ErrorCode::RebalanceInProgress).then_some(()));
    assert_eq!(first.join().members.len(), 2);
    assert_eq!(code(second.finish_to_join(joining).error_code), ErrorCode::None);
    first.sync(&[(&first.id.clone(), b"one"), (&second.id.clone(), b"two")]);
    assert_eq!(code(second.sync(&[]).error_code), ErrorCode::None);
    (first, second)
}

/// One member of a classic group, step by step.
pub struct Member {
    connection: Connection,
    pub group: Str,
    pub id: Str,
    pub instance: Option<Str>,
    pub generation: i32,
    protocol_type: Str,
    protocols: Vec<&'static str>,
    /// What it says about itself with each protocol.
    metadata: Bytes,
    session_timeout_ms: i32,
    /// Of JoinGroup; the other calls take the highest version that exists for both.
    version: i16,
}

impl Member {
    pub fn new(broker: &Broker, group: &str) -> Member {
        let mut connection = Connection::to(broker);
        connection.wait_for_coordinator(group);
        Member {
            connection,
            group: Str::from(group),
            id: Str::from(""),
            instance: None,
            generation: 0,
            protocol_type: Str::from("consumer"),
            protocols: vec!["range"],
            metadata: Bytes::from_static(b"subscription"),
            session_timeout_ms: 6_000,
            version: 9,
        }
    }

    /// Joins a group that has no other members, and assigns itself `mine`.
    pub fn lead_alone(&mut self) {
        let joined = self.join();
        assert_eq!(code(joined.error_code), ErrorCode::None);
        assert_eq!(joined.leader, self.id);
        assert_eq!(code(self.sync(&[(&self.id.clone(), b"mine")]).error_code), ErrorCode::None);
    }

    /// Joins, with the second request that a new member is asked for.
    pub fn join(&mut self) -> JoinGroupResponse {
        let mut joined = self.join_once();
        if code(joined.error_code) == ErrorCode::MemberIdRequired {
            self.id = joined.member_id;
            joined = self.join_once();
        }
        self.joined(joined)
    }

    fn joined(&mut self, joined: JoinGroupResponse) -> JoinGroupResponse {
        if joined.error_code == 0 {
            (self.id, self.generation) = (joined.member_id.clone(), joined.generation_id);
        }
        joined
    }

    fn join_once(&mut self) -> JoinGroupResponse {
        let request = self.join_request();
        self.connection.call(self.version, &request)
    }

    /// Sends the joining request of a member that has its id; the answer comes when all have joined.
    pub fn start_to_join(&mut self) -> i32 {
        let first = self.join_once();
        assert_eq!(code(first.error_code), ErrorCode::MemberIdRequired);
        self.id = first.member_id;
        let request = self.join_request();
        self.connection.send(self.version, &request).expect("the socket takes it")
    }

    pub fn finish_to_join(&mut self, correlation_id: i32) -> JoinGroupResponse {
        let joined = self.connection.receive::<JoinGroupRequest>(self.version, correlation_id).expect("an answer");
        self.joined(joined)
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol =
            |name: &&str| JoinGroupRequestProtocol { name: Str::from(*name), metadata: self.metadata.clone(), ..Default::default() };
        JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: 20_000,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: self.protocol_type.clone(),
            protocols: self.protocols.iter().map(protocol).collect(),
            ..Default::default()
        }
    }

    fn sync(&mut self, assignments: &[(&Str, &'static [u8])]) -> SyncGroupResponse {
        let syncing = self.start_to_sync(assignments);
        self.finish_to_sync(syncing)
    }

    fn start_to_sync(&mut self, assignments: &[(&Str, &'static [u8])]) -> i32 {
        let one = |(id, assignment): &(&Str, &'static [u8])| SyncGroupRequestAssignment {
            member_id: (*id).clone(),
            assignment: Bytes::from_static(assignment),
            ..Default::default()
        };
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            assignments: assignments.iter().map(one).collect(),
            ..Default::default()
        };
        self.connection.send(self.version.min(4), &request).expect("the socket takes it")
    }

    fn finish_to_sync(&mut self, correlation_id: i32) -> SyncGroupResponse {
        self.connection.receive::<SyncGroupRequest>(self.version.min(4), correlation_id).expect("an answer")
    }

    pub fn heartbeat(&mut self) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            ..Default::default()
        };
        code(self.connection.call(self.version.min(4), &request).error_code)
    }

    fn leave(&mut self) -> ErrorCode {
        let version = self.version.min(5);
        let mut request = LeaveGroupRequest { group_id: self.group.clone(), ..Default::default() };
        if version < 3 {
            request.member_id = self.id.clone();
        } else {
            request.members = vec![MemberIdentity { member_id: self.id.clone(), ..Default::default() }];
        }
        let answer = self.connection.call(version, &request);
        code(answer.members.first().map_or(answer.error_code, |member| member.error_code))
    }

    fn commit(&mut self, topic: &str, partition: i32, offset: i64) -> ErrorCode {
        self.commit_in(8, topic, partition, offset, "")
    }

    fn commit_in(&mut self, version: i16, topic: &str, partition_index: i32, committed_offset: i64, note: &str) -> ErrorCode {
        let partition = OffsetCommitRequestPartition {
            partition_index,
            committed_offset,
            committed_metadata: Some(Str::from(note)),
            ..Default::default()
        };
        let topic = OffsetCommitRequestTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        code(self.connection.call(version, &request).topics[0].partitions[0].error_code)
    }

    fn committed(&mut self, topic: &str, partition: i32) -> i64 {
        let place = OffsetFetchRequestTopic { name: Str::from(topic), partition_indexes: vec![partition], ..Default::default() };
        let answer =
            self.connection.call(5, &OffsetFetchRequest { group_id: self.group.clone(), topics: Some(vec![place]), ..Default::default() });
        answer.topics[0].partitions[0].committed_offset
    }
}
