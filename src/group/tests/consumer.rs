//! The consumer protocol (KIP-848), scene by scene: joining, reconciliation, fencing, static members, regular expressions, commits.

use super::*;
use crate::cluster::{Image, MetadataRecord};
use crate::group::consumer::Member;
use crate::wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use crate::wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use crate::wire::records::{ConfigRecord, PartitionRecord, RemoveTopicRecord, TopicRecord};
use std::sync::Arc;

pub(super) fn topic_id(name: &str) -> Uuid {
    Uuid::from_u128(1_000 + name.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte)))
}

/// A cluster's metadata that tests change by the records that would.
pub(super) struct Metadata(Image);

impl Metadata {
    pub(super) fn new() -> Metadata {
        Metadata(Image::empty())
    }

    fn apply(&mut self, record: impl Into<MetadataRecord>) {
        self.0.apply(&record.into()).expect("it fits");
        self.0.advance(self.0.offset() + 1, 1);
    }

    pub(super) fn topic(&mut self, name: &str, partitions: i32) {
        let id = topic_id(name);
        if self.0.topic(name).is_none() {
            self.apply(TopicRecord { name: Str::from(name), topic_id: id, ..Default::default() });
        }
        for partition_id in self.0.topic(name).map_or(0, |topic| topic.partition_count())..partitions {
            self.apply(PartitionRecord { partition_id, topic_id: id, replicas: vec![1], isr: vec![1], leader: 1, ..Default::default() });
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.apply(RemoveTopicRecord { topic_id: topic_id(name), ..Default::default() });
    }

    pub(super) fn group_setting(&mut self, group: &str, name: &str, value: &str) {
        self.apply(ConfigRecord {
            resource_type: 32,
            resource_name: Str::from(group),
            name: Str::from(name),
            value: Some(Str::from(value)),
            ..Default::default()
        });
    }
}

impl Stage {
    pub(super) fn see(&mut self, metadata: &Metadata) {
        self.image = Arc::new(metadata.0.clone());
        self.coordinator.on_image(&self.image);
        self.run_what_is_due();
    }

    pub(super) fn beat(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let token = self.send(1, Call::ConsumerHeartbeat(request));
        match &self.replies[&token] {
            Reply::ConsumerHeartbeat(response) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn consumer_member(&self, member: &str) -> Member {
        let group = self.coordinator.consumer_group("g").expect("the group is there");
        group.member(member).expect("the member is there").clone()
    }

    fn consumer_state(&self) -> &'static str {
        self.coordinator.consumer_group("g").map_or("Dead", |group| group.state().name())
    }

    /// A member that subscribes to `t` and has heard what it is to have.
    fn joined_consumer(&mut self, member: &str) -> i32 {
        let response = self.beat(first(member).topics(&["t"]).0);
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        response.member_epoch
    }
}

/// A heartbeat, to be changed where a scene needs it.
#[derive(Clone)]
pub(super) struct Beat(pub(super) ConsumerGroupHeartbeatRequest);

/// What a member says to join.
pub(super) fn first(member: &str) -> Beat {
    Beat(ConsumerGroupHeartbeatRequest {
        group_id: Str::from("g"),
        member_id: Str::from(member),
        member_epoch: 0,
        rebalance_timeout_ms: REBALANCE_MS,
        subscribed_topic_names: Some(Vec::new()),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    })
}

/// What a member says when nothing is new.
pub(super) fn again(member: &str, epoch: i32) -> Beat {
    Beat(ConsumerGroupHeartbeatRequest {
        group_id: Str::from("g"),
        member_id: Str::from(member),
        member_epoch: epoch,
        ..Default::default()
    })
}

impl Beat {
    pub(super) fn topics(mut self, names: &[&str]) -> Beat {
        self.0.subscribed_topic_names = Some(names.iter().map(|name| Str::from(*name)).collect());
        self
    }

    pub(super) fn regex(mut self, regex: &str) -> Beat {
        self.0.subscribed_topic_regex = Some(Str::from(regex));
        self
    }

    pub(super) fn instance(mut self, instance: &str) -> Beat {
        self.0.instance_id = Some(Str::from(instance));
        self
    }

    fn assignor(mut self, name: &str) -> Beat {
        self.0.server_assignor = Some(Str::from(name));
        self
    }

    /// Says that it has these partitions of `t`.
    pub(super) fn owns(mut self, partitions: &[i32]) -> Beat {
        let topic = TopicPartitions { topic_id: topic_id("t"), partitions: partitions.to_vec(), ..Default::default() };
        self.0.topic_partitions = Some(if partitions.is_empty() { Vec::new() } else { vec![topic] });
        self
    }
}

/// The partitions of a topic that an answer assigns; `None` when it says nothing about assignments.
pub(super) fn assigned(response: &ConsumerGroupHeartbeatResponse, topic: &str) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    let of_topic = assignment.topic_partitions.iter().filter(|one| one.topic_id == topic_id(topic));
    Some(of_topic.flat_map(|one| one.partitions.clone()).collect())
}

fn stage_with(partitions: i32) -> (Stage, Metadata) {
    let config = GroupConfig { consumer_assignment_interval_ms: 0, ..GroupConfig::default() };
    let mut stage = Stage::with(config);
    let mut metadata = Metadata::new();
    metadata.topic("t", partitions);
    stage.see(&metadata);
    (stage, metadata)
}

#[test]
fn the_first_member_gets_everything_with_its_first_answer() {
    let (mut stage, _) = stage_with(3);
    let response = stage.beat(first("a").topics(&["t"]).0);
    assert_eq!((response.error_code, response.member_epoch, response.heartbeat_interval_ms), (0, 2, 5_000));
    assert_eq!(assigned(&response, "t"), Some(vec![0, 1, 2]));
    assert_eq!(stage.consumer_state(), "Stable");
    // Nothing is new, so nothing is said and nothing is recorded.
    let records = stage.log.len();
    assert_eq!(assigned(&stage.beat(again("a", 2).0), "t"), None);
    assert_eq!(stage.log.len(), records);
}

/// As a second member joins, the first gives up, says so, and only then does the second get.
#[test]
fn a_partition_is_handed_over_only_when_it_was_given_up() {
    let (mut stage, _) = stage_with(2);
    stage.joined_consumer("a");
    let joined = stage.beat(first("b").topics(&["t"]).0);
    assert_eq!((joined.member_epoch, assigned(&joined, "t")), (3, Some(vec![])));
    assert_eq!(stage.consumer_state(), "Reconciling");

    let told = stage.beat(again("a", 2).0);
    let kept = assigned(&told, "t").expect("it hears what it keeps");
    assert_eq!((told.member_epoch, kept.len()), (2, 1));
    // It still has both; the other waits.
    assert_eq!(stage.beat(again("a", 2).owns(&[0, 1]).0).member_epoch, 2);
    assert_eq!(assigned(&stage.beat(again("b", 3).0), "t"), None);

    assert_eq!(stage.beat(again("a", 2).owns(&kept).0).member_epoch, 3);
    let given = assigned(&stage.beat(again("b", 3).0), "t").expect("it hears what it gets");
    assert_eq!(given, [1 - kept[0]]);
    assert_eq!(stage.consumer_state(), "Stable");
}

#[test]
fn epochs_that_are_not_the_members_fence_it_but_for_a_lost_answer() {
    let (mut stage, _) = stage_with(2);
    stage.joined_consumer("a");
    assert_eq!(stage.beat(again("a", 3).0).error_code, code(ErrorCode::FencedMemberEpoch));
    assert_eq!(stage.beat(again("z", 2).0).error_code, code(ErrorCode::UnknownMemberId));
    stage.joined_consumer("b");
    let kept = assigned(&stage.beat(again("a", 2).0), "t").unwrap();
    assert_eq!(stage.beat(again("a", 2).owns(&kept).0).member_epoch, 3);
    // The answer with epoch 2 was lost: said again with what it has, epoch 1 is taken.
    assert_eq!(stage.beat(again("a", 2).owns(&kept).0).error_code, 0);
    assert_eq!(stage.beat(again("a", 2).owns(&[0, 1]).0).error_code, code(ErrorCode::FencedMemberEpoch));
    assert_eq!(stage.beat(again("a", 2).0).error_code, code(ErrorCode::FencedMemberEpoch));
}

#[test]
fn a_member_not_heard_of_is_out_and_its_partitions_are_free() {
    let (mut stage, _) = stage_with(2);
    stage.joined_consumer("a");
    stage.joined_consumer("b");
    let kept = assigned(&stage.beat(again("a", 2).0), "t").unwrap();
    stage.beat(again("a", 2).owns(&kept).0);
    stage.wait(44_000);
    stage.beat(again("b", 3).0);
    stage.wait(2_000);
    assert_eq!(stage.beat(again("a", 3).0).error_code, code(ErrorCode::UnknownMemberId));
    let response = stage.beat(again("b", 3).0);
    assert_eq!((response.member_epoch, assigned(&response, "t")), (4, Some(vec![0, 1])));
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_out() {
    let (mut stage, _) = stage_with(2);
    stage.joined_consumer("a");
    stage.joined_consumer("b");
    stage.beat(again("a", 2).0);
    for _ in 0..REBALANCE_MS / 10_000 {
        stage.wait(10_000);
        let error = stage.beat(again("a", 2).owns(&[0, 1]).0).error_code;
        stage.beat(again("b", stage.consumer_member("b").epoch).0);
        assert!(error == 0 || error == code(ErrorCode::UnknownMemberId));
    }
    assert_eq!(stage.beat(again("a", 2).owns(&[0, 1]).0).error_code, code(ErrorCode::UnknownMemberId));
    stage.beat(again("b", stage.consumer_member("b").epoch).0);
    assert_eq!(stage.consumer_member("b").assigned[&topic_id("t")].len(), 2);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let (mut stage, _) = stage_with(2);
    let token = stage.beat(first("a").instance("i").topics(&["t"]).0);
    assert_eq!(token.error_code, 0);
    let taken = stage.beat(first("b").instance("i").topics(&["t"]).0);
    assert_eq!(taken.error_code, code(ErrorCode::UnreleasedInstanceId));
    assert_eq!(stage.beat(again("b", 2).instance("i").0).error_code, code(ErrorCode::FencedInstanceId));

    let left = stage.beat(again("a", -2).instance("i").0);
    assert_eq!((left.error_code, left.member_epoch), (0, -2));
    let back = stage.beat(first("b").instance("i").topics(&["t"]).0);
    assert_eq!((back.error_code, back.member_epoch, assigned(&back, "t")), (0, 2, Some(vec![0, 1])));
    assert_eq!(stage.beat(again("a", 2).instance("i").0).error_code, code(ErrorCode::FencedInstanceId));
    assert_eq!(stage.beat(again("b", -1).instance("i").0).error_code, 0);
    assert_eq!(stage.consumer_state(), "Empty");
}

#[test]
fn a_static_member_that_stays_away_loses_its_partitions_with_its_session() {
    let (mut stage, _) = stage_with(2);
    stage.beat(first("a").instance("i").topics(&["t"]).0);
    stage.beat(again("a", -2).instance("i").0);
    stage.wait(44_000);
    assert_eq!(stage.consumer_state(), "Reconciling");
    stage.wait(2_000);
    assert_eq!(stage.consumer_state(), "Empty");
}

#[test]
fn partitions_that_are_added_and_topics_that_go_call_for_another_assignment() {
    let (mut stage, mut metadata) = stage_with(1);
    stage.joined_consumer("a");
    metadata.topic("t", 3);
    stage.see(&metadata);
    let response = stage.beat(again("a", 2).0);
    assert_eq!((response.member_epoch, assigned(&response, "t")), (3, Some(vec![0, 1, 2])));
    metadata.remove("t");
    stage.see(&metadata);
    let response = stage.beat(again("a", 3).0);
    assert_eq!((response.member_epoch, assigned(&response, "t")), (3, Some(vec![])));
    assert_eq!(stage.beat(again("a", 3).owns(&[]).0).member_epoch, 4);
}

#[test]
fn a_regular_expression_is_resolved_and_looked_at_again() {
    let (mut stage, mut metadata) = stage_with(1);
    let response = stage.beat(first("a").regex("t.*").0);
    assert_eq!((response.error_code, assigned(&response, "t")), (0, Some(vec![])));
    let response = stage.beat(again("a", 1).0);
    assert_eq!(assigned(&response, "t"), Some(vec![0]));
    metadata.topic("t2", 2);
    stage.see(&metadata);
    let epoch = response.member_epoch;
    assert_eq!(assigned(&stage.beat(again("a", epoch).0), "t2"), None, "it was looked at a moment ago");
    stage.wait(10_001);
    assert_eq!(assigned(&stage.beat(again("a", epoch).0), "t2"), None);
    assert_eq!(assigned(&stage.beat(again("a", epoch).0), "t2"), Some(vec![0, 1]));

    let refused = stage.beat(first("b").regex("(").0);
    assert_eq!(refused.error_code, code(ErrorCode::InvalidRegularExpression));
    assert!(stage.coordinator.consumer_group("g").unwrap().member("b").is_err());
}

#[test]
fn names_and_a_regular_expression_add_up() {
    let (mut stage, mut metadata) = stage_with(1);
    metadata.topic("u", 1);
    stage.see(&metadata);
    stage.beat(first("a").topics(&["t"]).regex("u").0);
    let response = stage.beat(again("a", 2).0);
    assert_eq!((assigned(&response, "t"), assigned(&response, "u")), (Some(vec![0]), Some(vec![0])));
}

#[test]
fn the_next_target_waits_for_the_interval() {
    let mut stage = Stage::with(GroupConfig::default());
    let mut metadata = Metadata::new();
    metadata.topic("t", 2);
    stage.see(&metadata);
    stage.joined_consumer("a");
    assert_eq!(stage.joined_consumer("b"), 2, "the target is younger than a second");
    assert_eq!(stage.consumer_state(), "Assigning");
    stage.wait(1_000);
    assert_eq!(stage.beat(again("b", 2).0).member_epoch, 3);
}

#[test]
fn a_group_has_settings_of_its_own() {
    let (mut stage, mut metadata) = stage_with(2);
    metadata.group_setting("g", "consumer.heartbeat.interval.ms", "7000");
    metadata.group_setting("g", "consumer.session.timeout.ms", "50000");
    stage.see(&metadata);
    assert_eq!(stage.beat(first("a").topics(&["t"]).0).heartbeat_interval_ms, 7_000);
    stage.wait(49_000);
    assert_eq!(stage.consumer_state(), "Stable");
    stage.wait(2_000);
    assert_eq!(stage.consumer_state(), "Empty");
}

#[test]
fn the_assignor_that_most_members_wish_for_is_taken() {
    let (mut stage, mut metadata) = stage_with(3);
    metadata.topic("u", 3);
    stage.see(&metadata);
    stage.beat(first("a").topics(&["t", "u"]).assignor("range").0);
    stage.beat(first("b").topics(&["t", "u"]).0);
    // Range lines the two topics up: two of each for the first, one of each for the second.
    let kept = stage.beat(again("a", 2).0);
    assert_eq!((assigned(&kept, "t"), assigned(&kept, "u")), (Some(vec![0, 1]), Some(vec![0, 1])));
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut stage = Stage::with(GroupConfig { consumer_max_size: 1, ..GroupConfig::default() });
    let mut metadata = Metadata::new();
    metadata.topic("t", 2);
    stage.see(&metadata);
    stage.joined_consumer("a");
    assert_eq!(stage.beat(first("b").topics(&["t"]).0).error_code, code(ErrorCode::GroupMaxSizeReached));
    assert_eq!(stage.beat(again("a", 2).0).error_code, 0);
}

#[test]
fn commits_count_for_the_epoch_and_for_what_was_assigned_before() {
    let (mut stage, _) = stage_with(1);
    stage.joined_consumer("a");
    let commit = |epoch: i32, offset: i64| {
        let mut request = commit_of("a", epoch, "t", offset);
        request.topics[0].topic_id = topic_id("t");
        request
    };
    assert_eq!(stage.commit_request(9, commit(2, 5)), ErrorCode::None);
    assert_eq!(stage.commit_request(8, commit(2, 6)), ErrorCode::UnsupportedVersion);
    assert_eq!(stage.commit_request(9, commit(3, 6)), ErrorCode::StaleMemberEpoch);
    assert_eq!(stage.commit_request(9, commit(0, 6)), ErrorCode::StaleMemberEpoch);
    assert_eq!(stage.commit_request(9, commit_of("z", 2, "t", 6)), ErrorCode::UnknownMemberId);
    // A new epoch in which it keeps the partition: the old one still counts.
    stage.joined_consumer("b");
    stage.beat(again("a", 2).owns(&[0]).0);
    assert_eq!(stage.consumer_member("a").epoch, 3);
    assert_eq!(stage.commit_request(9, commit(2, 7)), ErrorCode::None);
    assert_eq!(stage.fetch_of("t", topic_id("t")), 7);
}

#[test]
fn offsets_are_read_in_the_members_epoch() {
    let (mut stage, _) = stage_with(1);
    stage.joined_consumer("a");
    let mut fetch = |member: Option<&str>, epoch| {
        let group = OffsetFetchRequestGroup {
            group_id: Str::from("g"),
            member_id: member.map(Str::from),
            member_epoch: epoch,
            topics: None,
            ..Default::default()
        };
        let token = stage.send(9, Call::FetchOffsets { group, require_stable: false });
        let Reply::FetchOffsets(group) = &stage.replies[&token] else { panic!() };
        ErrorCode::try_from(group.error_code).unwrap()
    };
    assert_eq!(fetch(Some("a"), 2), ErrorCode::None);
    assert_eq!(fetch(Some("a"), 0), ErrorCode::StaleMemberEpoch);
    assert_eq!(fetch(Some("z"), 1), ErrorCode::UnknownMemberId);
    assert_eq!(fetch(None, -1), ErrorCode::None);
}

#[test]
fn a_restart_finds_the_group_as_it_was() {
    let (mut stage, _) = stage_with(4);
    stage.joined_consumer("a");
    stage.beat(first("b").instance("i").topics(&["t"]).regex("t|u").0);
    stage.beat(again("a", 2).0);
    let before = format!("{:?}", stage.coordinator.consumer_group("g").unwrap().durable());
    stage.restart();
    let group = stage.coordinator.consumer_group("g").unwrap();
    group.check();
    assert_eq!(format!("{:?}", group.durable()), before);
    // Both go on where they were.
    assert_eq!(stage.beat(again("b", stage.consumer_member("b").epoch).instance("i").0).error_code, 0);
    stage.wait(46_000);
    assert_eq!(stage.consumer_state(), "Empty");
}

#[test]
fn what_was_refused_has_not_happened() {
    let (mut stage, _) = stage_with(2);
    stage.refuse_next = Some(ErrorCode::NotEnoughReplicas);
    assert_eq!(stage.beat(first("a").topics(&["t"]).0).error_code, code(ErrorCode::CoordinatorNotAvailable));
    assert!(stage.coordinator.consumer_group("g").is_none());
    assert_eq!(stage.joined_consumer("a"), 2);
}

#[test]
fn an_empty_group_changes_its_type_with_the_next_member() {
    let (mut stage, _) = stage_with(2);
    stage.commit(2, "", -1, 5);
    stage.joined_consumer("a");
    assert_eq!(stage.fetch(), 5, "offsets stay");
    assert!(stage.coordinator.classic("g").is_none());
    assert_eq!(stage.beat(again("a", -1).0).error_code, 0);
    // Refused, it is the consumer group that it was.
    stage.refuse_next = Some(ErrorCode::NotEnoughReplicas);
    let token = stage.send(3, join().call());
    assert_eq!(stage.joined(token).error_code, code(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(stage.consumer_state(), "Empty");
    let token = stage.send(3, join().call());
    stage.wait(INITIAL_DELAY_MS);
    assert_eq!(stage.joined(token).generation_id, 1);
    assert_eq!(stage.state(), "CompletingRebalance");
    stage.restart();
    assert_eq!((stage.state(), stage.fetch()), ("Empty", 5));
}

#[test]
fn groups_are_listed_and_described_by_their_type() {
    let (mut stage, _) = stage_with(2);
    stage.joined_consumer("a");
    let mut list = |states: &[&str], types: &[&str]| {
        let filter = |words: &[&str]| words.iter().map(|word| Str::from(*word)).collect();
        let token = stage.send(5, Call::ListGroups { states: filter(states), types: filter(types) });
        let Reply::ListGroups(Ok(groups)) = &stage.replies[&token] else { panic!() };
        groups.iter().map(|group| (group.group_state.to_string(), group.group_type.to_string())).collect::<Vec<_>>()
    };
    let it = [("Stable".to_string(), "consumer".to_string())];
    assert_eq!(list(&[], &[]), it);
    assert_eq!(list(&["stable"], &["Consumer"]), it);
    assert_eq!(list(&["Empty"], &[]), []);
    assert_eq!(list(&[], &["classic"]), []);

    let token = stage.send(6, Call::DescribeGroups(vec![Str::from("g")]));
    let Reply::DescribeGroups(groups) = &stage.replies[&token] else { panic!() };
    assert_eq!(groups[0].error_code, code(ErrorCode::GroupIdNotFound));
    let token = stage.send(1, Call::DescribeConsumerGroups(vec![Str::from("g"), Str::from("h")]));
    let Reply::DescribeConsumerGroups(groups) = &stage.replies[&token] else { panic!() };
    assert_eq!((groups[0].error_code, &*groups[0].assignor_name, groups[0].group_epoch, groups[0].assignment_epoch), (0, "uniform", 2, 2));
    let member = &groups[0].members[0];
    assert_eq!((&*member.assignment.topic_partitions[0].topic_name, member.member_type), ("t", 1));
    assert_eq!(member.assignment, member.target_assignment);
    assert_eq!(groups[1].error_code, code(ErrorCode::GroupIdNotFound));
}

#[test]
fn only_an_empty_group_can_be_deleted() {
    let (mut stage, _) = stage_with(2);
    stage.joined_consumer("a");
    let delete = |stage: &mut Stage| {
        let token = stage.send(2, Call::DeleteGroups(vec![Str::from("g")]));
        let Reply::DeleteGroups(results) = &stage.replies[&token] else { panic!() };
        ErrorCode::try_from(results[0].error_code).unwrap()
    };
    assert_eq!(delete(&mut stage), ErrorCode::NonEmptyGroup);
    stage.beat(again("a", -1).0);
    assert_eq!(delete(&mut stage), ErrorCode::None);
    assert_eq!(delete(&mut stage), ErrorCode::GroupIdNotFound);
    stage.restart();
    assert_eq!(stage.coordinator.group_count(), 0);
}

#[test]
fn heartbeats_are_held_against_what_they_must_say() {
    let config = GroupConfig::default();
    let error = |version, beat: &Beat| validate_heartbeat(&beat.0, version, &config).err().map(|(error, _)| error);
    assert_eq!(error(1, &first("a")), None);
    assert_eq!(error(0, &first("")), None);
    assert_eq!(error(1, &first("")), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(0, &again("", 1)), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(1, &first("a").instance("")), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(1, &first("a").owns(&[1])), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(1, &again("a", 0)), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(1, &again("a", -2)), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(1, &again("a", -2).instance("i")), None);
    assert_eq!(error(1, &again("a", -3)), Some(ErrorCode::InvalidRequest));
    assert_eq!(error(1, &first("a").assignor("tea")), Some(ErrorCode::UnsupportedAssignor));
}
