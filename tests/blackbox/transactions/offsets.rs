//! Offsets that are committed in a transaction: they count when it does, and for whom they may be committed (KIP-447, KIP-890).

use corelane_wire::ErrorCode::{
    FencedInstanceId, IllegalGeneration, InvalidProducerEpoch, InvalidTxnState, TransactionAbortable, UnknownMemberId, UnstableOffsetCommit,
};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use corelane_wire::messages::{AddOffsetsToTxnRequest, OffsetFetchRequest, TxnOffsetCommitRequest};
use harness::cases;
use harness::suite::Case;

use super::*;
use crate::groups::Member;

pub const CASES: &[Case] = cases![
    offsets_count_with_the_commit,
    offsets_of_version_2_register_their_partition,
    offsets_are_held_against_the_member,
    offsets_of_a_group_by_the_topics_id,
    offsets_of_a_member_of_the_consumer_protocol,
];

/// Committed offset of the test's partition 0, and the partition's code.
pub(super) fn fetch_offset(test: &mut Test, group: &str, require_stable: bool) -> (i64, ErrorCode) {
    let topic = OffsetFetchRequestTopic { name: Str::from(test.topic.as_str()), partition_indexes: vec![0], ..Default::default() };
    let request = OffsetFetchRequest { group_id: Str::from(group), topics: Some(vec![topic]), require_stable, ..Default::default() };
    let response = test.connection.call(7, &request);
    let partition = &response.topics[0].partitions[0];
    (partition.committed_offset, code(partition.error_code))
}

fn commit_request(test: &Test, group: &str, offset: i64, generation: i32) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_metadata: Some(Str::from("m")),
        ..Default::default()
    };
    let topic = TxnOffsetCommitRequestTopic { name: Str::from(test.topic.as_str()), partitions: vec![partition], ..Default::default() };
    TxnOffsetCommitRequest {
        transactional_id: Str::from(test.id.as_str()),
        group_id: Str::from(group),
        producer_id: test.producer_id,
        producer_epoch: test.epoch,
        generation_id_or_member_epoch: generation,
        topics: vec![topic],
        ..Default::default()
    }
}

fn commit(test: &mut Test, version: i16, request: &TxnOffsetCommitRequest) -> Result<(), ErrorCode> {
    let response = test.connection.call(version, request);
    code(response.topics[0].partitions[0].error_code).into_result()
}

pub(super) fn commit_offset(test: &mut Test, version: i16, group: &str, offset: i64, generation: i32) -> Result<(), ErrorCode> {
    let request = commit_request(test, group, offset, generation);
    commit(test, version, &request)
}

fn offsets_count_with_the_commit(broker: &Broker) {
    let mut test = Test::new(broker, "txn-offsets");
    let group = "txn-offsets-group";
    test.connection.wait_for_coordinator(group);
    assert_eq!(settled(|| commit_offset(&mut test, 3, group, 5, -1)), Err(InvalidTxnState), "the group's partition has not joined");
    assert_eq!(settled(|| commit_offset(&mut test, 4, group, 5, -1)), Err(TransactionAbortable));
    let add = |test: &mut Test| {
        let request = AddOffsetsToTxnRequest {
            transactional_id: Str::from(test.id.as_str()),
            producer_id: test.producer_id,
            producer_epoch: test.epoch,
            group_id: Str::from(group),
            ..Default::default()
        };
        let response = settled(|| outcome(test.connection.call(3, &request).error_code, ()));
        response.expect("the group's partition joins");
    };
    add(&mut test);
    assert_eq!(settled(|| commit_offset(&mut test, 3, group, 5, -1)), Ok(()));
    assert_eq!(fetch_offset(&mut test, group, false), (-1, ErrorCode::None));
    assert_eq!(fetch_offset(&mut test, group, true), (-1, UnstableOffsetCommit));
    test.end(END_1, true);
    assert_eq!(fetch_offset(&mut test, group, true), (5, ErrorCode::None));

    add(&mut test);
    assert_eq!(settled(|| commit_offset(&mut test, 3, group, 9, -1)), Ok(()));
    test.end(END_1, false);
    assert_eq!(fetch_offset(&mut test, group, true), (5, ErrorCode::None), "aborted");

    add(&mut test);
    assert_eq!(
        settled(|| commit_offset(&mut test, 3, group, 9, 4)),
        Err(ErrorCode::UnknownMemberId),
        "a member that nobody knows (KIP-447)"
    );
    assert!(settled(|| commit_offset(&mut test, 3, "txn-offsets-nobody", 9, 4)).is_err());
    test.end(END_1, false);
}

fn offsets_of_version_2_register_their_partition(broker: &Broker) {
    let mut test = Test::new(broker, "txn-offsets-2");
    let group = "txn-offsets-2-group";
    test.connection.wait_for_coordinator(group);
    assert_eq!(settled(|| commit_offset(&mut test, 5, group, 7, -1)), Ok(()));
    assert_eq!(fetch_offset(&mut test, group, true), (-1, UnstableOffsetCommit));
    let old = test.epoch;
    test.end(END_2, true);
    assert_eq!(fetch_offset(&mut test, group, true), (7, ErrorCode::None));
    test.epoch = old;
    assert_eq!(settled(|| commit_offset(&mut test, 5, group, 1, -1)), Err(InvalidProducerEpoch), "a zombie's offsets");
    assert_eq!(fetch_offset(&mut test, group, true), (7, ErrorCode::None));
}

/// One commit by version 5, as this member says it is.
fn commit_as(test: &mut Test, member: &Member, generation: i32, member_id: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
    let mut request = commit_request(test, member.group.as_str(), 1, generation);
    (request.member_id, request.group_instance_id) = (Str::from(member_id), instance.map(Str::from));
    settled(|| commit(test, 5, &request))
}

/// Who has lost its partitions to somebody else commits nothing any more, whatever its transaction. That the group is in a rebalance is no reason to refuse: the transaction fences.
fn offsets_are_held_against_the_member(broker: &Broker) {
    let mut test = Test::new(broker, "txn-members");
    let mut member = Member::new(broker, "txn-members-group");
    member.instance = Some(Str::from("one"));
    member.lead_alone();
    let (id, generation) = (member.id.to_string(), member.generation);
    assert_eq!(commit_as(&mut test, &member, generation, &id, None), Ok(()));
    assert_eq!(commit_as(&mut test, &member, generation, &id, Some("one")), Ok(()));
    assert_eq!(commit_as(&mut test, &member, generation + 1, &id, None), Err(IllegalGeneration));
    assert_eq!(commit_as(&mut test, &member, generation - 1, &id, None), Err(IllegalGeneration));
    assert_eq!(commit_as(&mut test, &member, generation, "nobody", None), Err(UnknownMemberId));
    assert_eq!(commit_as(&mut test, &member, generation, "nobody", Some("one")), Err(FencedInstanceId));
    assert_eq!(commit_as(&mut test, &member, generation, &id, Some("two")), Err(UnknownMemberId));
    assert_eq!(commit_as(&mut test, &member, -1, "", None), Ok(()), "a producer from before KIP-447");

    let mut second = Member::new(broker, "txn-members-group");
    let joining = second.start_to_join();
    wait::until("a rebalance", wait::PATIENCE, || (member.heartbeat() == ErrorCode::RebalanceInProgress).then_some(()));
    assert_eq!(commit_as(&mut test, &member, generation, &id, None), Ok(()), "while the members meet");
    assert_eq!(code(member.join().error_code), ErrorCode::None);
    assert_eq!(code(second.finish_to_join(joining).error_code), ErrorCode::None);
    assert_eq!(commit_as(&mut test, &member, generation, &id, None), Err(IllegalGeneration));
    assert_eq!(commit_as(&mut test, &member, generation + 1, &id, None), Ok(()), "before the assignment");
    test.end(END_2, true);
    assert_eq!(fetch_offset(&mut test, "txn-members-group", true), (1, ErrorCode::None));
}

/// From version 6 on topics are named by their ids, and a group that is not there is told so.
fn offsets_of_a_group_by_the_topics_id(broker: &Broker) {
    let mut test = Test::new(broker, "txn-by-id");
    let group = "txn-by-id-group";
    test.connection.wait_for_coordinator(group);
    let topic = test.topic.clone();
    let topic_id = test.connection.topic_id(&topic);
    let by_id = |test: &Test, group: &str, topic_id, generation| {
        let mut request = commit_request(test, group, 8, generation);
        request.topics[0].topic_id = topic_id;
        request
    };
    let request = by_id(&test, group, topic_id, -1);
    assert_eq!(settled(|| commit(&mut test, 6, &request)), Ok(()));
    let request = by_id(&test, group, uuid::Uuid::from_u128(7), -1);
    assert_eq!(settled(|| commit(&mut test, 6, &request)), Err(ErrorCode::UnknownTopicId));
    let nowhere = "txn-by-id-nowhere";
    test.connection.wait_for_coordinator(nowhere);
    let request = by_id(&test, nowhere, topic_id, 4);
    assert_eq!(settled(|| commit(&mut test, 6, &request)), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(settled(|| commit(&mut test, 5, &request)), Err(IllegalGeneration), "older clients do not know the newer code");
    test.end(END_2, true);
    assert_eq!(fetch_offset(&mut test, group, true), (8, ErrorCode::None));
}

fn offsets_of_a_member_of_the_consumer_protocol(broker: &Broker) {
    let mut test = Test::new(broker, "txn-modern");
    let topic = test.topic.clone();
    let topic_id = test.connection.topic_id(&topic);
    let mut member = crate::consumer_groups::Member::new(broker, "txn-modern-group", "a");
    member.join(&topic);
    let mut commit_in = |version, epoch, member_id: &str| {
        let mut request = commit_request(&test, "txn-modern-group", 3, epoch);
        request.member_id = Str::from(member_id);
        if version >= 6 {
            request.topics[0].topic_id = topic_id;
        }
        settled(|| commit(&mut test, version, &request))
    };
    let epoch = member.epoch;
    for version in [5, 6] {
        assert_eq!(commit_in(version, epoch, "a"), Ok(()), "version {version}");
        assert_eq!(commit_in(version, epoch, "z"), Err(UnknownMemberId), "version {version}");
    }
    assert_eq!(commit_in(6, epoch + 1, "a"), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit_in(6, epoch - 1, "a"), Err(ErrorCode::StaleMemberEpoch), "from before the partition was its own");
    assert_eq!(commit_in(5, epoch + 1, "a"), Err(IllegalGeneration), "older clients do not know the newer code");
    test.end(END_2, true);
    assert_eq!(fetch_offset(&mut test, "txn-modern-group", true), (3, ErrorCode::None));
}
