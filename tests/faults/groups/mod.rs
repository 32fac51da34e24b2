//! Groups over the ends of brokers: killed in any phase of a rebalance, and handed from one broker's implementation to the other's and back; and what settings mean for groups (`rules`).

mod classic;
mod rules;

use bytes::Bytes;
use corelane_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use corelane_wire::messages::join_group_request::JoinGroupRequestProtocol;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use corelane_wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, JoinGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places::Target;
use harness::raw::{Connection, code};
use harness::suite::OwnBrokerCase;
use harness::wait;
use std::time::Duration;
use uuid::Uuid;

use self::classic::a_coordinator_killed_in_any_phase_of_the_classic_protocol_settles;
use self::rules::{
    groups_have_a_largest_size, offsets_expire_by_what_their_group_does, policies_say_which_way_groups_may_go,
    the_consumer_protocol_can_be_switched_off,
};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    a_coordinator_killed_in_any_phase_settles,
    a_coordinator_killed_in_any_phase_of_the_classic_protocol_settles,
    groups_of_both_protocols_cross_to_kafka_and_back,
    groups_have_a_largest_size,
    policies_say_which_way_groups_may_go,
    offsets_expire_by_what_their_group_does,
    the_consumer_protocol_can_be_switched_off,
];

/// A member of a group of the consumer protocol, as far as its epoch and partitions go.
struct Member {
    id: &'static str,
    topic_id: Uuid,
    epoch: i32,
    owned: Vec<i32>,
}

const GROUP: &str = "modern";
const TOPIC: &str = "handed-over";
const PARTITIONS: i32 = 4;

impl Member {
    fn new(connection: &mut Connection, id: &'static str) -> Member {
        Member { id, topic_id: connection.topic_id(TOPIC), epoch: 0, owned: Vec::new() }
    }

    /// One heartbeat of a client that does what it is told. After a broker's end it says everything.
    fn beat(&mut self, connection: &mut Connection) -> ConsumerGroupHeartbeatResponse {
        let topic = TopicPartitions { topic_id: self.topic_id, partitions: self.owned.clone(), ..Default::default() };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Str::from(GROUP),
            member_id: Str::from(self.id),
            member_epoch: self.epoch,
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec![Str::from(TOPIC)]),
            topic_partitions: Some(if self.owned.is_empty() { Vec::new() } else { vec![topic] }),
            ..Default::default()
        };
        let response = connection.call(1, &request);
        match code(response.error_code) {
            ErrorCode::None => self.epoch = response.member_epoch,
            ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {}
            other => panic!("{other:?}: {:?}", response.error_message),
        }
        if let Some(assignment) = &response.assignment {
            self.owned = assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect();
        }
        response
    }
}

fn all_owned(members: &[Member]) -> Vec<i32> {
    let mut owned: Vec<i32> = members.iter().flat_map(|member| member.owned.clone()).collect();
    owned.sort_unstable();
    owned
}

fn prepare(broker: &Broker) -> Connection {
    let mut connection = Connection::to(broker);
    connection.create_topic(TOPIC, PARTITIONS);
    connection.wait_for_coordinator(GROUP);
    connection
}

/// Three members come one after the other, and the broker is killed after so many heartbeats: nobody is fenced, no partition has two owners, and all of them end with their share.
fn a_coordinator_killed_in_any_phase_settles() {
    let mut broker = Broker::start(BrokerOptions::default());
    prepare(&broker);
    for beats in 0..10 {
        let mut connection = Connection::to(&broker);
        let mut members = vec![Member::new(&mut connection, "a")];
        wait::until("the first", wait::PATIENCE, || (members[0].beat(&mut connection).member_epoch > 0).then_some(()));
        for id in ["b", "c"] {
            members.push(Member::new(&mut connection, id));
        }
        for beat in 0..beats {
            members[beat % 3].beat(&mut connection);
        }
        broker.kill();
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_coordinator(GROUP);
        wait::until("everybody's share", wait::PATIENCE, || {
            for member in &mut members {
                member.beat(&mut connection);
            }
            let owned = all_owned(&members);
            assert!(owned.windows(2).all(|pair| pair[0] != pair[1]), "two owners after {beats} heartbeats: {owned:?}");
            let is_even = members.iter().all(|member| !member.owned.is_empty());
            if !is_even {
                std::thread::sleep(Duration::from_millis(50));
            }
            (is_even && owned.len() == PARTITIONS as usize).then_some(())
        });
        for member in &mut members {
            let leave = ConsumerGroupHeartbeatRequest {
                group_id: Str::from(GROUP),
                member_id: Str::from(member.id),
                member_epoch: -1,
                ..Default::default()
            };
            assert_eq!(connection.call(1, &leave).error_code, 0);
        }
    }
}

/// Members of both protocols go on as if nothing had happened when Apache Kafka takes over the directory, and when it is handed back; what either recorded means the same to the other.
fn groups_of_both_protocols_cross_to_kafka_and_back() {
    let patient = |target| {
        let options = BrokerOptions::default().target(target).set("group.consumer.session.timeout.ms", 60_000);
        options.set("group.consumer.max.session.timeout.ms", 120_000)
    };
    let mut ours = Broker::start(patient(Target::Corelane));
    let mut connection = prepare(&ours);
    let mut members = vec![Member::new(&mut connection, "a")];
    members[0].beat(&mut connection);
    assert_eq!(members[0].owned.len(), PARTITIONS as usize);
    let classic = join_classic(&mut connection);
    for (group, member, epoch, offset) in [(GROUP, "a", members[0].epoch, 5), ("classic", &classic, 1, 7), ("simple", "", -1, 9)] {
        assert_eq!(commit(&mut connection, group, member, epoch, offset), ErrorCode::None, "{group}");
    }
    let epoch = describe(&mut connection).group_epoch;
    assert!(ours.terminate(Duration::from_secs(30)).success());

    let mut original = Broker::start_on(patient(Target::Kafka), ours.data());
    let mut connection = Connection::to(&original);
    verify(&mut connection, &classic, epoch, &mut members);
    // A second member comes while the original coordinates.
    members.push(Member::new(&mut connection, "b"));
    share(&mut connection, &mut members);
    let epoch = describe(&mut connection).group_epoch;
    original.terminate(Duration::from_secs(60));

    ours.restart();
    let mut connection = Connection::to(&ours);
    verify(&mut connection, &classic, epoch, &mut members);
    members.push(Member::new(&mut connection, "c"));
    share(&mut connection, &mut members);
    let members: Vec<i8> = describe(&mut connection).members.iter().map(|member| member.member_type).collect();
    assert_eq!(members, [1, 1, 1]);
}

/// Everybody is still a member, in the epoch of before, and what was committed is read.
fn verify(connection: &mut Connection, classic: &str, epoch: i32, members: &mut [Member]) {
    for group in [GROUP, "classic", "simple"] {
        connection.wait_for_coordinator(group);
    }
    for (group, offset) in [(GROUP, 5), ("classic", 7), ("simple", 9)] {
        assert_eq!(wait::until("the offset", wait::PATIENCE, || committed(connection, group)), offset, "{group}");
    }
    let before: Vec<(i32, Vec<i32>)> = members.iter().map(|member| (member.epoch, member.owned.clone())).collect();
    for (member, (epoch, owned)) in members.iter_mut().zip(before) {
        member.beat(connection);
        assert_eq!((member.epoch, &member.owned), (epoch, &owned), "{}", member.id);
    }
    assert_eq!(describe(connection).group_epoch, epoch, "the topics are the same to both");
    let heartbeat =
        HeartbeatRequest { group_id: Str::from("classic"), generation_id: 1, member_id: Str::from(classic), ..Default::default() };
    assert_eq!(code(connection.call(4, &heartbeat).error_code), ErrorCode::None);
}

/// Members beat until all partitions are shared out evenly.
fn share(connection: &mut Connection, members: &mut [Member]) {
    wait::until("an even share", wait::PATIENCE, || {
        for member in members.iter_mut() {
            member.beat(connection);
        }
        std::thread::sleep(Duration::from_millis(50));
        let is_even = members.iter().all(|member| !member.owned.is_empty());
        (is_even && all_owned(members).len() == PARTITIONS as usize).then_some(())
    });
}

/// One member of a classic group in generation 1; its id.
fn join_classic(connection: &mut Connection) -> String {
    connection.wait_for_coordinator("classic");
    let protocol = JoinGroupRequestProtocol { name: Str::from("range"), metadata: Bytes::from_static(b"me"), ..Default::default() };
    let request = JoinGroupRequest {
        group_id: Str::from("classic"),
        session_timeout_ms: 120_000,
        rebalance_timeout_ms: 120_000,
        protocol_type: Str::from("consumer"),
        protocols: vec![protocol],
        ..Default::default()
    };
    let joined = connection.call(3, &request);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let assignment =
        SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: Bytes::from_static(b"mine"), ..Default::default() };
    let request = SyncGroupRequest {
        group_id: Str::from("classic"),
        generation_id: 1,
        member_id: joined.member_id.clone(),
        assignments: vec![assignment],
        ..Default::default()
    };
    assert_eq!(connection.call(3, &request).error_code, 0);
    joined.member_id.to_string()
}

fn commit(connection: &mut Connection, group: &str, member: &str, epoch: i32, committed_offset: i64) -> ErrorCode {
    connection.wait_for_coordinator(group);
    let partition = OffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: Str::from(group),
        member_id: Str::from(member),
        generation_id_or_member_epoch: epoch,
        topics: vec![OffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    code(connection.call(9, &request).topics[0].partitions[0].error_code)
}

/// The offset committed for partition 0; `None` while the coordinator loads.
fn committed(connection: &mut Connection, group: &str) -> Option<i64> {
    let place = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![0], ..Default::default() };
    let request = OffsetFetchRequest { group_id: Str::from(group), topics: Some(vec![place]), ..Default::default() };
    let answer = connection.call(5, &request);
    (answer.error_code == 0).then(|| answer.topics[0].partitions[0].committed_offset)
}

fn describe(connection: &mut Connection) -> corelane_wire::messages::consumer_group_describe_response::DescribedGroup {
    let request = ConsumerGroupDescribeRequest { group_ids: vec![Str::from(GROUP)], ..Default::default() };
    let group = connection.call(1, &request).groups.remove(0);
    assert_eq!(code(group.error_code), ErrorCode::None);
    group
}
