//! Committed offsets: who may commit, what is read back, what is kept for how long.

use super::*;
use crate::wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use crate::wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use crate::wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::wire::records::{OffsetCommitKey, OffsetCommitValue};

const RETENTION_MS: i64 = 1_000_000;
const CHECK_MS: i64 = 10_000;

fn stage() -> Stage {
    Stage::with(GroupConfig { offsets_retention_ms: RETENTION_MS, offsets_retention_check_interval_ms: CHECK_MS, ..Default::default() })
}

fn topic_id(id: u128) -> Uuid {
    Uuid::from_u128(id)
}

#[test]
fn anybody_may_commit_in_a_group_without_members() {
    let mut stage = stage();
    assert_eq!(stage.fetch(), -1);
    assert_eq!(stage.commit(8, "", -1, 42), ErrorCode::None);
    assert_eq!((stage.fetch(), stage.state()), (42, "Empty"));
    assert_eq!(stage.commit(8, "somebody", -1, 43), ErrorCode::None);
    stage.restart();
    assert_eq!((stage.fetch(), stage.state()), (43, "Empty"));
}

#[test]
fn a_generation_of_a_group_that_is_not_there_is_refused() {
    let mut stage = stage();
    assert_eq!(stage.commit(8, "m", 1, 42), ErrorCode::IllegalGeneration);
    assert_eq!(stage.commit(9, "m", 1, 42), ErrorCode::GroupIdNotFound);
    assert_eq!(stage.coordinator.group_count(), 0);
}

#[test]
fn members_commit_in_their_generation() {
    let mut stage = stage();
    let [leader, follower] = stage.stable_pair();
    assert_eq!(stage.commit(9, &leader, 1, 10), ErrorCode::None);
    assert_eq!(stage.commit(9, &leader, 2, 11), ErrorCode::IllegalGeneration);
    assert_eq!(stage.commit(9, &leader, 0, 11), ErrorCode::IllegalGeneration);
    assert_eq!(stage.commit(9, "stranger", 1, 11), ErrorCode::UnknownMemberId);
    assert_eq!(stage.commit(9, "", -1, 11), ErrorCode::UnknownMemberId);
    assert_eq!(stage.fetch(), 10);

    // During the join phase those of the old generation may still commit what they have done; while the new one is formed, nobody may.
    stage.send(9, join().id(&leader).call());
    assert_eq!(stage.commit(9, &follower, 1, 12), ErrorCode::None);
    stage.send(9, join().id(&follower).call());
    assert_eq!(stage.commit(9, &follower, 2, 13), ErrorCode::RebalanceInProgress);
    assert_eq!(stage.commit(9, &follower, 1, 13), ErrorCode::IllegalGeneration);
    assert_eq!(stage.fetch(), 12);
}

#[test]
fn a_fenced_instance_does_not_commit() {
    let mut stage = stage();
    let first = stage.send(9, join().instance("i").call());
    stage.wait(2 * INITIAL_DELAY_MS);
    let old = stage.joined(first).member_id.to_string();
    stage.sync(&old, 1, &[]);
    let second = stage.send(9, join().instance("i").call());
    let new = stage.joined(second).member_id.to_string();
    for (member, error) in [(old, ErrorCode::FencedInstanceId), (new, ErrorCode::None)] {
        let request = OffsetCommitRequest { group_instance_id: Some(Str::from("i")), ..commit_of(&member, 1, "t", 1) };
        assert_eq!(stage.commit_request(9, request), error);
    }
}

#[test]
fn a_commit_keeps_the_session() {
    let mut stage = stage();
    let [leader, follower] = stage.stable_pair();
    for _ in 0..5 {
        stage.wait(9_000);
        assert_eq!(stage.commit(9, &leader, 1, 1), ErrorCode::None);
        assert_eq!(stage.heartbeat(&follower, 1), ErrorCode::None);
    }
}

#[test]
fn metadata_is_measured_in_utf_16_units_and_refused_alone() {
    let mut stage = Stage::with(GroupConfig { offset_metadata_units_max: 4, ..Default::default() });
    let mut request = commit_of("", -1, "t", 1);
    let partitions = &mut request.topics[0].partitions;
    for (index, metadata) in [(1, Some("\u{1F600}\u{1F600}")), (2, Some("\u{1F600}\u{1F600}x")), (3, None)] {
        let metadata = metadata.map(Str::from);
        partitions.push(OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: 1,
            committed_metadata: metadata,
            ..Default::default()
        });
    }
    let token = stage.send(9, Call::CommitOffsets(request));
    let Reply::CommitOffsets(response) = &stage.replies[&token] else { panic!() };
    let errors: Vec<i16> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(errors, [0, 0, code(ErrorCode::OffsetMetadataTooLarge), 0]);
    assert_eq!(stage.log.len(), 3);
}

#[test]
fn everything_committed_is_told_when_no_topics_are_named() {
    let mut stage = stage();
    let mut request = commit_of("", -1, "t", 7);
    request.topics[0].topic_id = topic_id(1);
    request.topics[0].partitions[0].committed_leader_epoch = 3;
    request.topics[0].partitions[0].committed_metadata = Some(Str::from("here"));
    stage.commit_request(9, request);
    let group = fetch_all(&mut stage, "g", false);
    let partition = &group.topics[0].partitions[0];
    assert_eq!((&*group.topics[0].name, partition.committed_offset, partition.committed_leader_epoch), ("t", 7, 3));
    assert_eq!(partition.metadata.as_deref(), Some("here"));
    assert!(fetch_all(&mut stage, "absent", false).topics.is_empty());
}

fn fetch_all(stage: &mut Stage, group: &str, require_stable: bool) -> OffsetFetchResponseGroup {
    let group = OffsetFetchRequestGroup { group_id: Str::from(group), topics: None, ..Default::default() };
    let token = stage.send(8, Call::FetchOffsets { group, require_stable });
    match &stage.replies[&token] {
        Reply::FetchOffsets(group) => group.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_of_another_topic_of_the_same_name_are_not_given() {
    let mut stage = stage();
    let mut request = commit_of("", -1, "t", 7);
    request.topics[0].topic_id = topic_id(1);
    stage.commit_request(10, request);
    assert_eq!(stage.fetch_of("t", topic_id(1)), 7);
    assert_eq!(stage.fetch_of("t", topic_id(2)), -1);
    assert_eq!(stage.fetch_of("t", Uuid::nil()), 7);
}

#[test]
fn a_simple_groups_offsets_expire_by_their_commit_and_the_group_after_them() {
    let mut stage = stage();
    stage.commit(9, "", -1, 1);
    stage.wait(RETENTION_MS / 2);
    stage.commit_request(9, commit_of("", -1, "u", 2));
    stage.wait(RETENTION_MS / 2 + CHECK_MS);
    assert_eq!((stage.fetch(), stage.fetch_of("u", Uuid::nil()), stage.state()), (-1, 2, "Empty"));
    stage.wait(RETENTION_MS / 2);
    assert_eq!(stage.state(), "Dead");
    stage.restart();
    assert_eq!(stage.coordinator.group_count(), 0);
}

#[test]
fn an_expiry_asked_for_stands_above_the_retention() {
    let mut stage = stage();
    stage.commit_request(4, OffsetCommitRequest { retention_time_ms: 5 * RETENTION_MS, ..commit_of("", -1, "t", 1) });
    stage.commit_request(4, OffsetCommitRequest { retention_time_ms: 1_000, ..commit_of("", -1, "u", 2) });
    stage.restart();
    stage.wait(CHECK_MS);
    assert_eq!((stage.fetch(), stage.fetch_of("u", Uuid::nil())), (1, -1));
    stage.wait(4 * RETENTION_MS);
    assert_eq!(stage.fetch(), 1);
    stage.wait(RETENTION_MS);
    assert_eq!(stage.state(), "Dead");
}

#[test]
fn a_group_keeps_what_its_members_subscribe_to_and_everything_for_the_retention_once_they_left() {
    let mut stage = stage();
    let [leader, follower] = stage.stable_pair();
    stage.commit(9, &leader, 1, 1);
    stage.commit_request(9, commit_of(&leader, 1, "unsubscribed", 2));
    let beat_for = |stage: &mut Stage, duration_ms: i64| {
        for _ in 0..duration_ms / 5_000 {
            stage.wait(5_000);
            stage.heartbeat(&leader, 1);
            stage.heartbeat(&follower, 1);
        }
    };
    beat_for(&mut stage, RETENTION_MS + 2 * CHECK_MS);
    assert_eq!((stage.fetch(), stage.fetch_of("unsubscribed", Uuid::nil())), (1, -1));

    stage.leave(&[(&leader, None), (&follower, None)]);
    assert_eq!(stage.state(), "Empty");
    stage.wait(RETENTION_MS - CHECK_MS);
    stage.restart();
    assert_eq!(stage.fetch(), 1, "the commit is older than the retention, but the group has been empty for less");
    stage.wait(2 * CHECK_MS);
    assert_eq!((stage.fetch(), stage.state()), (-1, "Dead"));
}

#[test]
fn a_group_that_never_came_to_anything_is_swept_away() {
    let mut stage = stage();
    stage.send(9, join().call());
    assert_eq!(stage.state(), "Empty");
    stage.wait(SESSION_MS as i64 + CHECK_MS);
    assert_eq!(stage.state(), "Dead");
}

#[test]
fn a_sweep_over_many_groups_takes_many_small_steps() {
    let mut stage = stage();
    for index in 0..1_000 {
        let group_id = Str::from(format!("g{index}"));
        stage.commit_request(9, OffsetCommitRequest { group_id, ..commit_of("", -1, "t", 1) });
    }
    stage.move_to(stage.now.steady_ms + RETENTION_MS + CHECK_MS);
    let mut steps = 0;
    while let Some(step) = stage.coordinator.tick(stage.now) {
        assert!(step.records.len() <= 400, "an offset and a group for each of 200");
        stage.carry_out(step);
        steps += 1;
    }
    assert_eq!((steps, stage.coordinator.group_count()), (5, 0));
}

fn delete_offsets(stage: &mut Stage, topics: &[&str]) -> OffsetDeleteResponse {
    let topics = topics.iter().map(|topic| OffsetDeleteRequestTopic {
        name: Str::from(*topic),
        partitions: vec![OffsetDeleteRequestPartition::default()],
        ..Default::default()
    });
    let request = OffsetDeleteRequest { group_id: Str::from("g"), topics: topics.collect(), ..Default::default() };
    let token = stage.send(0, Call::DeleteOffsets(request));
    match &stage.replies[&token] {
        Reply::DeleteOffsets(response) => response.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_are_deleted_unless_their_topic_is_subscribed_to() {
    let mut stage = stage();
    assert_eq!(delete_offsets(&mut stage, &["t"]).error_code, code(ErrorCode::GroupIdNotFound));
    let [leader, _] = stage.stable_pair();
    stage.commit(9, &leader, 1, 1);
    stage.commit_request(9, commit_of(&leader, 1, "u", 2));
    let response = delete_offsets(&mut stage, &["t", "u", "v"]);
    let errors: Vec<i16> = response.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
    assert_eq!((response.error_code, errors), (0, vec![code(ErrorCode::GroupSubscribedToTopic), 0, 0]));
    stage.restart();
    assert_eq!((stage.fetch(), stage.fetch_of("u", Uuid::nil())), (1, -1));

    let mut stage = self::stage();
    let token = stage.send(3, join().protocol_type("connect").call());
    stage.wait(2 * INITIAL_DELAY_MS);
    assert_eq!(stage.joined(token).error_code, 0);
    assert_eq!(delete_offsets(&mut stage, &["t"]).error_code, code(ErrorCode::NonEmptyGroup));
}

#[test]
fn groups_are_deleted_when_nobody_is_in_them() {
    let mut stage = stage();
    let delete = |stage: &mut Stage| {
        let token = stage.send(3, Call::DeleteGroups(vec![Str::from("g"), Str::from("absent")]));
        match &stage.replies[&token] {
            Reply::DeleteGroups(results) => results.iter().map(|result| result.error_code).collect::<Vec<i16>>(),
            other => panic!("{other:?}"),
        }
    };
    let [leader, follower] = stage.stable_pair();
    stage.commit(9, &leader, 1, 1);
    let absent = code(ErrorCode::GroupIdNotFound);
    assert_eq!(delete(&mut stage), [code(ErrorCode::NonEmptyGroup), absent]);
    stage.leave(&[(&leader, None), (&follower, None)]);
    assert_eq!(delete(&mut stage), [0, absent]);
    assert_eq!((stage.fetch(), stage.state()), (-1, "Dead"));
    stage.restart();
    assert_eq!((stage.fetch(), stage.state()), (-1, "Dead"));
}

#[test]
fn offsets_go_with_their_topic_but_not_with_another_of_its_name() {
    let mut stage = stage();
    for (topic, id) in [("t", 1), ("u", 2)] {
        let mut request = commit_of("", -1, topic, 7);
        request.topics[0].topic_id = topic_id(id);
        stage.commit_request(10, request);
    }
    stage.coordinator.on_topic_deleted("t", topic_id(99));
    assert_eq!(stage.coordinator.tick(stage.now).map(|step| step.records.len()), None, "no offset was ever committed for that topic");
    stage.coordinator.on_topic_deleted("t", topic_id(1));
    stage.run_what_is_due();
    assert_eq!((stage.fetch(), stage.fetch_of("u", Uuid::nil())), (-1, 7));

    // Deleted while no coordinator was there.
    stage.restart();
    stage.coordinator.forget_topics_unless(|id| id != topic_id(2));
    stage.run_what_is_due();
    assert_eq!(stage.fetch_of("u", Uuid::nil()), -1);
}

/// Puts an offset of a transaction into the coordinator, as its log would.
fn commit_in_transaction(stage: &mut Stage, producer_id: i64, topic: &str, offset: i64) {
    let record = CoordinatorRecord::OffsetCommit {
        key: OffsetCommitKey { group: Str::from("g"), topic: Str::from(topic), partition: 0, ..Default::default() },
        value: Some(OffsetCommitValue { offset, commit_timestamp: stage.now.wall_ms, ..Default::default() }),
    };
    let (key, value) = record.encode();
    stage.coordinator.replay(stage.now, stage.log.len() as i64, producer_id, &record);
    stage.log.push((key, value));
}

#[test]
fn offsets_of_a_transaction_count_once_it_commits() {
    let mut stage = stage();
    stage.commit(9, "", -1, 1);
    commit_in_transaction(&mut stage, 100, "t", 2);
    commit_in_transaction(&mut stage, 200, "u", 3);
    assert_eq!(stage.fetch(), 1);
    let group = fetch_all(&mut stage, "g", true);
    assert_eq!(group.topics[0].partitions[0].error_code, code(ErrorCode::UnstableOffsetCommit));
    assert_eq!(group.topics[0].partitions[0].committed_offset, -1);

    stage.coordinator.replay_end_transaction(100, true);
    stage.coordinator.replay_end_transaction(200, false);
    assert_eq!((stage.fetch(), stage.fetch_of("u", Uuid::nil())), (2, -1));
    assert_eq!(fetch_all(&mut stage, "g", true).topics[0].partitions[0].error_code, 0);
}

#[test]
fn a_later_plain_commit_is_not_undone_by_a_transaction() {
    let mut stage = stage();
    commit_in_transaction(&mut stage, 100, "t", 2);
    stage.commit(9, "", -1, 9);
    stage.coordinator.replay_end_transaction(100, true);
    assert_eq!(stage.fetch(), 9);
}

#[test]
fn open_transactions_keep_their_group_and_a_deletion_ends_them_for_it() {
    let mut stage = stage();
    commit_in_transaction(&mut stage, 100, "t", 2);
    stage.wait(2 * RETENTION_MS);
    assert_eq!(stage.state(), "Empty");
    delete_offsets(&mut stage, &["t"]);
    stage.coordinator.replay_end_transaction(100, true);
    assert_eq!(stage.fetch(), -1);
    stage.wait(2 * CHECK_MS);
    assert_eq!(stage.state(), "Dead");
}

#[test]
fn errors_of_the_log_are_translated_as_for_every_group_api() {
    let mut stage = stage();
    for (append_error, error) in [
        (ErrorCode::UnknownTopicOrPartition, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::NotEnoughReplicas, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::RequestTimedOut, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator),
        (ErrorCode::KafkaStorageError, ErrorCode::NotCoordinator),
        (ErrorCode::MessageTooLarge, ErrorCode::UnknownServerError),
        (ErrorCode::RecordListTooLarge, ErrorCode::UnknownServerError),
        (ErrorCode::NetworkException, ErrorCode::CoordinatorLoadInProgress),
    ] {
        stage.refuse_next = Some(append_error);
        assert_eq!(stage.commit(9, "", -1, 1), error);
    }
    assert_eq!((stage.fetch(), stage.coordinator.group_count()), (-1, 0));
    let fetched = Reply::FetchOffsets(OffsetFetchResponseGroup::default());
    let Reply::FetchOffsets(group) = fetched.refuse(ErrorCode::RequestTimedOut) else { panic!() };
    assert_eq!(group.error_code, code(ErrorCode::NotCoordinator));
}
