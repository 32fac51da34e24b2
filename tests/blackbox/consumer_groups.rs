//! Groups of the consumer protocol by hand (KIP-848): heartbeats, epochs, reconciliation, and what operators see of it.

use corelane_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use corelane_wire::messages::create_partitions_request::CreatePartitionsTopic;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use corelane_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, CreatePartitionsRequest,
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, code};
use harness::suite::Case;
use harness::wait;
use uuid::Uuid;

pub const CASES: &[Case] = cases![
    heartbeats_are_checked,
    a_member_without_an_id_is_given_one_in_version_0,
    partitions_are_handed_over_when_they_were_given_up,
    epochs_fence,
    static_members_come_back,
    a_regular_expression_is_resolved,
    commits_are_held_against_the_epoch,
    a_group_is_listed_described_and_deleted,
    a_member_of_another_group_type_is_told_so,
    partitions_that_are_added_are_assigned,
    a_topic_made_again_is_assigned_anew,
];

pub struct Member {
    connection: Connection,
    id: String,
    group: String,
    topic_id: Uuid,
    pub epoch: i32,
    version: i16,
}

impl Member {
    pub fn new(broker: &Broker, group: &str, id: &str) -> Member {
        let mut connection = Connection::to(broker);
        connection.wait_for_coordinator(group);
        Member { connection, id: id.to_string(), group: group.to_string(), topic_id: Uuid::nil(), epoch: 0, version: 1 }
    }

    /// What a member says to join.
    fn first(&self, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(topics.iter().map(|topic| Str::from(*topic)).collect()),
            topic_partitions: Some(Vec::new()),
            ..self.again(0)
        }
    }

    /// What a member says when nothing is new.
    fn again(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: Str::from(&*self.group),
            member_id: Str::from(&*self.id),
            member_epoch: epoch,
            ..Default::default()
        }
    }

    fn beat(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let response = self.connection.call(self.version, &request);
        if response.error_code == 0 {
            self.epoch = response.member_epoch;
        }
        response
    }

    fn error(&mut self, request: ConsumerGroupHeartbeatRequest) -> ErrorCode {
        code(self.beat(request).error_code)
    }

    pub fn join(&mut self, topic: &str) -> ConsumerGroupHeartbeatResponse {
        self.topic_id = self.connection.topic_id(topic);
        let request = self.first(&[topic]);
        let response = self.beat(request);
        assert_eq!(code(response.error_code), ErrorCode::None, "{:?}", response.error_message);
        response
    }

    /// Beats until an answer assigns so many partitions; says each time that it has what it was given last.
    fn until_it_has(&mut self, count: usize) -> Vec<i32> {
        let mut owned: Option<Vec<i32>> = None;
        wait::until("the assignment", wait::PATIENCE, || {
            let mut request = self.again(self.epoch);
            request.topic_partitions = owned.as_ref().map(|owned| self.owning(owned));
            if let Some(given) = partitions(&self.beat(request)) {
                owned = Some(given);
            }
            owned.clone().filter(|owned| owned.len() == count)
        })
    }

    fn owning(&self, owned: &[i32]) -> Vec<TopicPartitions> {
        let topic = TopicPartitions { topic_id: self.topic_id, partitions: owned.to_vec(), ..Default::default() };
        if owned.is_empty() { Vec::new() } else { vec![topic] }
    }

    fn commit(&mut self, version: i16, topic: &str, epoch: i32, committed_offset: i64) -> ErrorCode {
        let partition = OffsetCommitRequestPartition { committed_offset, ..Default::default() };
        let topic = OffsetCommitRequestTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: Str::from(&*self.group),
            member_id: Str::from(&*self.id),
            generation_id_or_member_epoch: epoch,
            topics: vec![topic],
            ..Default::default()
        };
        code(self.connection.call(version, &request).topics[0].partitions[0].error_code)
    }
}

/// What an answer assigns; `None` when it says nothing about that.
fn partitions(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    let mut partitions: Vec<i32> = assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect();
    partitions.sort_unstable();
    Some(partitions)
}

fn heartbeats_are_checked(broker: &Broker) {
    let mut member = Member::new(broker, "modern-checks", "m");
    let invalid = ErrorCode::InvalidRequest;
    let first = member.first(&[]);
    let broken: Vec<(&str, ConsumerGroupHeartbeatRequest)> = vec![
        ("no group", ConsumerGroupHeartbeatRequest { group_id: Str::from(""), ..first.clone() }),
        ("no id", ConsumerGroupHeartbeatRequest { member_id: Str::from(""), ..first.clone() }),
        ("an empty instance", ConsumerGroupHeartbeatRequest { instance_id: Some(Str::from("")), ..first.clone() }),
        ("an empty rack", ConsumerGroupHeartbeatRequest { rack_id: Some(Str::from("")), ..first.clone() }),
        ("no rebalance timeout", ConsumerGroupHeartbeatRequest { rebalance_timeout_ms: -1, ..first.clone() }),
        ("no list of what it owns", ConsumerGroupHeartbeatRequest { topic_partitions: None, ..first.clone() }),
        ("no subscription", ConsumerGroupHeartbeatRequest { subscribed_topic_names: None, ..first.clone() }),
        ("away without an instance", member.again(-2)),
        ("an epoch that there is not", member.again(-3)),
    ];
    for (what, request) in broken {
        assert_eq!(member.error(request), invalid, "{what}");
    }
    let unknown = ConsumerGroupHeartbeatRequest { server_assignor: Some(Str::from("tea")), ..first.clone() };
    assert_eq!(member.error(unknown), ErrorCode::UnsupportedAssignor);
    assert_eq!(member.error(member.again(1)), ErrorCode::GroupIdNotFound);
    assert_eq!(member.error(member.again(-1)), ErrorCode::GroupIdNotFound);
    // Subscribed to nothing, it is a member all the same.
    let joined = member.beat(first);
    assert_eq!((joined.error_code, joined.member_epoch, joined.heartbeat_interval_ms, partitions(&joined)), (0, 1, 300, Some(vec![])));
    assert_eq!(member.error(member.again(-1)), ErrorCode::None);
}

fn a_member_without_an_id_is_given_one_in_version_0(broker: &Broker) {
    let mut member = Member::new(broker, "modern-version-0", "");
    member.version = 0;
    let joined = member.beat(member.first(&[]));
    assert_eq!(joined.error_code, 0);
    let id = joined.member_id.expect("an id");
    assert_eq!(id.len(), 22, "as Kafka prints an id: {}", id.as_str());
    member.id = id.to_string();
    assert_eq!(member.error(member.again(1)), ErrorCode::None);
}

fn partitions_are_handed_over_when_they_were_given_up(broker: &Broker) {
    let mut first = Member::new(broker, "modern-two", "a");
    first.connection.create_topic("modern-two", 2);
    let joined = first.join("modern-two");
    assert_eq!((joined.member_epoch, partitions(&joined)), (2, Some(vec![0, 1])));

    let mut second = Member::new(broker, "modern-two", "b");
    assert_eq!(partitions(&second.join("modern-two")), Some(vec![]));
    let kept = wait::until("the first to hear what it keeps", wait::PATIENCE, || {
        second.beat(second.again(second.epoch));
        partitions(&first.beat(first.again(first.epoch)))
    });
    assert_eq!((kept.len(), first.epoch), (1, 2));
    // As long as the first says that it has both, the second waits.
    for _ in 0..3 {
        let mut request = first.again(first.epoch);
        request.topic_partitions = Some(first.owning(&[0, 1]));
        assert_eq!(first.beat(request).member_epoch, 2);
        assert!(partitions(&second.beat(second.again(second.epoch))).is_none_or(|given| given.is_empty()));
    }
    let mut request = first.again(first.epoch);
    request.topic_partitions = Some(first.owning(&kept));
    assert_eq!(first.beat(request).member_epoch, 3);
    assert_eq!(second.until_it_has(1), [1 - kept[0]]);

    // The first leaves; the second hears of all.
    assert_eq!(first.error(first.again(-1)), ErrorCode::None);
    assert_eq!(second.until_it_has(2), [0, 1]);
}

fn epochs_fence(broker: &Broker) {
    let mut member = Member::new(broker, "modern-epochs", "a");
    member.connection.create_topic("modern-epochs", 1);
    member.join("modern-epochs");
    assert_eq!(member.error(member.again(3)), ErrorCode::FencedMemberEpoch);
    assert_eq!(member.error(member.again(1)), ErrorCode::FencedMemberEpoch);
    let stranger = ConsumerGroupHeartbeatRequest { member_id: Str::from("z"), ..member.again(2) };
    assert_eq!(member.error(stranger), ErrorCode::UnknownMemberId);
    let response = member.beat(member.again(2));
    assert_eq!((response.error_code, response.member_epoch, partitions(&response)), (0, 2, None));
    // A full heartbeat hears everything once more; joining anew with the same id, too.
    let full =
        ConsumerGroupHeartbeatRequest { member_epoch: 2, topic_partitions: Some(member.owning(&[0])), ..member.first(&["modern-epochs"]) };
    assert_eq!(partitions(&member.beat(full)), Some(vec![0]));
    let rejoined = member.join("modern-epochs");
    assert_eq!((rejoined.member_epoch, partitions(&rejoined)), (2, Some(vec![0])));
}

fn static_members_come_back(broker: &Broker) {
    let mut member = Member::new(broker, "modern-static", "a");
    member.connection.create_topic("modern-static", 2);
    let named = |request: ConsumerGroupHeartbeatRequest| ConsumerGroupHeartbeatRequest { instance_id: Some(Str::from("i")), ..request };
    let first = named(member.first(&["modern-static"]));
    assert_eq!(partitions(&member.beat(first)), Some(vec![0, 1]));

    let mut other = Member::new(broker, "modern-static", "b");
    let first = named(other.first(&["modern-static"]));
    assert_eq!(other.error(first.clone()), ErrorCode::UnreleasedInstanceId);
    assert_eq!(other.error(named(other.again(2))), ErrorCode::FencedInstanceId);
    let nobody = ConsumerGroupHeartbeatRequest { instance_id: Some(Str::from("nobody")), ..other.again(2) };
    assert_eq!(other.error(nobody), ErrorCode::UnknownMemberId);

    let left = member.beat(named(member.again(-2)));
    assert_eq!((left.error_code, left.member_epoch), (0, -2));
    let back = other.beat(first);
    assert_eq!((back.error_code, back.member_epoch, partitions(&back)), (0, 2, Some(vec![0, 1])));
    assert_eq!(member.error(named(member.again(2))), ErrorCode::FencedInstanceId);
    assert_eq!(other.error(named(other.again(-1))), ErrorCode::None);
}

fn a_regular_expression_is_resolved(broker: &Broker) {
    let mut member = Member::new(broker, "modern-regex", "a");
    member.connection.create_topic("modern-regex-one", 2);
    let by = |member: &Member, regex: &str| ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some(Str::from(regex)),
        subscribed_topic_names: None,
        ..member.first(&[])
    };
    for refused in ["(", "a(?=b)", "[z-a]", "(a)\\1"] {
        assert_eq!(member.error(by(&member, refused)), ErrorCode::InvalidRegularExpression, "{refused}");
    }
    let joined = member.beat(by(&member, "modern-regex-(one|t[w]o)"));
    assert_eq!((joined.error_code, partitions(&joined)), (0, Some(vec![])), "it is resolved behind the answer");
    assert_eq!(member.until_it_has(2), [0, 1]);
}

fn commits_are_held_against_the_epoch(broker: &Broker) {
    let topic = "modern-commits";
    let mut member = Member::new(broker, topic, "a");
    member.connection.create_topic(topic, 1);
    member.join(topic);
    assert_eq!(member.commit(9, topic, 2, 5), ErrorCode::None);
    assert_eq!(member.commit(8, topic, 2, 6), ErrorCode::UnsupportedVersion);
    assert_eq!(member.commit(9, topic, 3, 6), ErrorCode::StaleMemberEpoch);
    assert_eq!(member.commit(9, topic, 1, 6), ErrorCode::StaleMemberEpoch);
    member.id = "z".to_string();
    assert_eq!(member.commit(9, topic, 2, 6), ErrorCode::UnknownMemberId);
    assert_eq!(member.commit(9, topic, -1, 6), ErrorCode::UnknownMemberId);

    let mut fetched = |member_id: Option<&str>, member_epoch: i32| {
        let group = OffsetFetchRequestGroup {
            group_id: Str::from(topic),
            member_id: member_id.map(Str::from),
            member_epoch,
            topics: None,
            ..Default::default()
        };
        let answer = member.connection.call(9, &OffsetFetchRequest { groups: vec![group], ..Default::default() });
        let group = &answer.groups[0];
        (code(group.error_code), group.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset))
    };
    assert_eq!(fetched(Some("a"), 2), (ErrorCode::None, 5));
    assert_eq!(fetched(None, -1), (ErrorCode::None, 5));
    assert_eq!(fetched(Some("a"), 1).0, ErrorCode::StaleMemberEpoch);
    assert_eq!(fetched(Some("z"), 2).0, ErrorCode::UnknownMemberId);
}

fn a_group_is_listed_described_and_deleted(broker: &Broker) {
    let topic = "modern-described";
    let mut member = Member::new(broker, topic, "a");
    member.connection.create_topic(topic, 1);
    member.join(topic);
    let mut listed = |states: &[&str], types: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|word| Str::from(*word)).collect();
        let request = ListGroupsRequest { states_filter: words(states), types_filter: words(types), ..Default::default() };
        let groups = member.connection.call(5, &request).groups;
        let found = groups.iter().find(|group| *group.group_id == *topic);
        found.map(|group| (group.protocol_type.to_string(), group.group_state.to_string(), group.group_type.to_string()))
    };
    let it = Some(("consumer".to_string(), "Stable".to_string(), "consumer".to_string()));
    assert_eq!(listed(&[], &[]), it);
    assert_eq!(listed(&["STABLE", "empty"], &["Consumer"]), it);
    assert_eq!(listed(&["Empty"], &[]), None);
    assert_eq!(listed(&[], &["classic", "share"]), None);

    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![Str::from(topic), Str::from("modern-nobody"), Str::from("")],
        include_authorized_operations: true,
        ..Default::default()
    };
    // The original describes what is committed, a moment behind its answers.
    let groups = wait::until("the description", wait::PATIENCE, || {
        let mut groups = member.connection.call(1, &request).groups;
        groups.sort_by(|one, other| one.group_id.cmp(&other.group_id));
        let is_whole = groups[1].members.first().is_some_and(|member| !member.assignment.topic_partitions.is_empty());
        is_whole.then_some(groups)
    });
    assert_eq!(code(groups[0].error_code), ErrorCode::InvalidGroupId);
    let group = &groups[1];
    assert_eq!((group.error_code, &*group.group_state, &*group.assignor_name), (0, "Stable", "uniform"));
    assert_eq!((group.group_epoch, group.assignment_epoch), (2, 2));
    assert_ne!(group.authorized_operations, i32::MIN);
    let described = &group.members[0];
    assert_eq!((&*described.member_id, described.member_epoch, described.member_type), ("a", 2, 1));
    assert_eq!((&*described.client_id, &*described.client_host), ("black-box", "/127.0.0.1"));
    assert_eq!(described.subscribed_topic_names, [Str::from(topic)]);
    assert_eq!(
        (&*described.assignment.topic_partitions[0].topic_name, &described.assignment.topic_partitions[0].partitions[..]),
        (topic, &[0][..])
    );
    assert_eq!(described.assignment, described.target_assignment);
    assert_eq!(code(groups[2].error_code), ErrorCode::GroupIdNotFound);

    let classic = |connection: &mut Connection, version| {
        let request = DescribeGroupsRequest { groups: vec![Str::from(topic)], ..Default::default() };
        let group = connection.call(version, &request).groups.remove(0);
        (code(group.error_code), group.group_state.to_string())
    };
    assert_eq!(classic(&mut member.connection, 6).0, ErrorCode::GroupIdNotFound);
    assert_eq!(classic(&mut member.connection, 5), (ErrorCode::None, "Dead".to_string()));

    let delete = |connection: &mut Connection| {
        let request = DeleteGroupsRequest { groups_names: vec![Str::from(topic)], ..Default::default() };
        code(connection.call(2, &request).results[0].error_code)
    };
    assert_eq!(delete(&mut member.connection), ErrorCode::NonEmptyGroup);
    assert_eq!(member.error(member.again(-1)), ErrorCode::None);
    assert_eq!(delete(&mut member.connection), ErrorCode::None);
    assert_eq!(delete(&mut member.connection), ErrorCode::GroupIdNotFound);
}

/// Somebody's simple group has only offsets: it gives way to members of either protocol. A group of another kind of members does not.
fn a_member_of_another_group_type_is_told_so(broker: &Broker) {
    let topic = "modern-simple";
    let mut member = Member::new(broker, topic, "");
    member.connection.create_topic(topic, 1);
    assert_eq!(member.commit(9, topic, -1, 7), ErrorCode::None);
    assert_eq!(describe_error(&mut member.connection, topic), ErrorCode::GroupIdNotFound);
    member.id = "a".to_string();
    assert_eq!(member.error(member.again(1)), ErrorCode::GroupIdNotFound);
    member.join(topic);
    assert_eq!(describe_error(&mut member.connection, topic), ErrorCode::None);
}

fn describe_error(connection: &mut Connection, group: &str) -> ErrorCode {
    let request = ConsumerGroupDescribeRequest { group_ids: vec![Str::from(group)], ..Default::default() };
    code(connection.call(1, &request).groups[0].error_code)
}

/// Nobody says anything new; the next heartbeats bring what was added.
fn partitions_that_are_added_are_assigned(broker: &Broker) {
    let topic = "modern-grown";
    let mut member = Member::new(broker, topic, "a");
    member.connection.create_topic(topic, 1);
    assert_eq!(partitions(&member.join(topic)), Some(vec![0]));
    let wanted = CreatePartitionsTopic { name: Str::from(topic), count: 3, assignments: None, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![wanted], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(code(member.connection.call(2, &request).results[0].error_code), ErrorCode::None);
    let epoch = member.epoch;
    assert_eq!(member.until_it_has(3), [0, 1, 2]);
    assert!(member.epoch > epoch);
}

/// A topic of the same name has another id: what the member had is gone, and what it is given is the new one's.
fn a_topic_made_again_is_assigned_anew(broker: &Broker) {
    let topic = "modern-made-again";
    let mut member = Member::new(broker, topic, "a");
    member.connection.create_topic(topic, 2);
    member.join(topic);
    let former = member.topic_id;
    assert_eq!(member.commit(9, topic, member.epoch, 5), ErrorCode::None);
    let request = DeleteTopicsRequest { topic_names: vec![Str::from(topic)], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(code(member.connection.call(3, &request).responses[0].error_code), ErrorCode::None);
    wait::until("the topic to be gone", wait::PATIENCE, || {
        (code(member.connection.metadata(9, &[topic]).topics[0].error_code) == ErrorCode::UnknownTopicOrPartition).then_some(())
    });
    member.connection.create_topic(topic, 1);
    member.topic_id = member.connection.topic_id(topic);
    assert_ne!(member.topic_id, former);
    // It gives up what it had as soon as it is told so, and says what it has now.
    let mut owned: Vec<TopicPartitions> = Vec::new();
    let given = wait::until("the new topic's partition", wait::PATIENCE, || {
        let request = ConsumerGroupHeartbeatRequest { topic_partitions: Some(owned.clone()), ..member.again(member.epoch) };
        let response = member.beat(request);
        assert_eq!(code(response.error_code), ErrorCode::None, "{:?}", response.error_message);
        let given = response.assignment?.topic_partitions;
        owned = given
            .iter()
            .map(|topic| TopicPartitions { topic_id: topic.topic_id, partitions: topic.partitions.clone(), ..Default::default() })
            .collect();
        given.iter().any(|topic| topic.topic_id == member.topic_id).then_some(given)
    });
    assert_eq!((given.len(), &given[0].partitions[..]), (1, &[0][..]));
    let group = OffsetFetchRequestGroup { group_id: Str::from(topic), member_epoch: -1, topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    wait::until("the offset to be gone", wait::PATIENCE, || member.connection.call(9, &request).groups[0].topics.is_empty().then_some(()));
}
