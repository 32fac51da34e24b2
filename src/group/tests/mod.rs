//! The coordinator on a stage: calls go in, steps are appended to a log that is a vector, replayed, and their replies kept by token. A restart reads that log's bytes.

mod classic;
mod consumer;
mod consumer_model;
mod migration;
mod model;
mod offsets;

use super::*;
use crate::cluster::Image;
use crate::wire::messages::join_group_request::JoinGroupRequestProtocol;
use crate::wire::messages::leave_group_request::MemberIdentity;
use crate::wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use crate::wire::messages::sync_group_request::SyncGroupRequestAssignment;
use crate::wire::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str, encode_versioned};
use proptest::prelude::ProptestConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;
const INITIAL_DELAY_MS: i64 = 3_000;

struct Stage {
    coordinator: Coordinator,
    config: GroupConfig,
    image: Arc<Image>,
    now: Now,
    log: Vec<(Bytes, Option<Bytes>)>,
    replies: BTreeMap<Token, Reply>,
    next_token: u64,
    /// What the log says to the next step that has records, instead of taking it.
    refuse_next: Option<ErrorCode>,
    /// A group record was refused, and none was taken since.
    is_behind: bool,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(GroupConfig::default())
    }

    fn with(config: GroupConfig) -> Stage {
        let mut stage = Stage {
            coordinator: Coordinator::new(config.clone()),
            config,
            image: Arc::new(Image::empty()),
            // The two clocks are kept apart, so that a mix-up shows.
            now: Now { wall_ms: 1_700_000_000_000, steady_ms: 5_000 },
            log: Vec::new(),
            replies: BTreeMap::new(),
            next_token: 0,
            refuse_next: None,
            is_behind: false,
        };
        stage.coordinator.on_loaded(stage.now);
        stage
    }

    /// Sends a call in a version of its request; the reply, if there is one yet, is under the token.
    fn send(&mut self, version: i16, call: Call) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let caller = Caller {
            version,
            client_id: Str::from("client"),
            client_host: Str::from("/127.0.0.1"),
            fresh_id: Uuid::from_u128(u128::from(token.0)),
        };
        let room_bytes = self.coordinator.room_for(&call);
        let step = self.coordinator.handle(self.now, token, &caller, &call);
        assert!(bytes_of(&step) <= room_bytes, "{} bytes, and room for {room_bytes}: {call:?}", bytes_of(&step));
        self.carry_out(step);
        self.run_what_is_due();
        token
    }

    fn carry_out(&mut self, step: Step) {
        let is_of_group = step.records.iter().any(|record| matches!(record, CoordinatorRecord::GroupMetadata { .. }));
        if !step.records.is_empty()
            && let Some(error) = self.refuse_next.take()
        {
            self.is_behind |= is_of_group;
            let after = self.coordinator.refused(self.now, step, error);
            return self.carry_out(after);
        }
        self.is_behind &= !is_of_group;
        for record in &step.records {
            let (key, value) = record.encode();
            let as_read = CoordinatorRecord::decode(Some(&key), value.as_ref()).unwrap().unwrap();
            assert_eq!(as_read, *record, "a record says the same after the log");
            self.coordinator.replay(self.now, self.log.len() as i64, -1, record);
            self.log.push((key, value));
        }
        for (token, reply) in step.replies {
            assert!(self.replies.insert(token, reply).is_none(), "one call, two replies");
        }
    }

    fn run_what_is_due(&mut self) {
        while let Some(step) = self.coordinator.tick(self.now) {
            self.carry_out(step);
        }
    }

    /// Lets time pass, stopping at each deadline on the way.
    fn wait(&mut self, duration_ms: i64) {
        let end_ms = self.now.steady_ms + duration_ms;
        while let Some(deadline_ms) = self.coordinator.next_deadline_ms().filter(|deadline_ms| *deadline_ms <= end_ms) {
            self.move_to(deadline_ms.max(self.now.steady_ms));
            self.run_what_is_due();
        }
        self.move_to(end_ms);
        self.run_what_is_due();
    }

    fn move_to(&mut self, steady_ms: i64) {
        self.now.wall_ms += steady_ms - self.now.steady_ms;
        self.now.steady_ms = steady_ms;
    }

    /// Ends the coordinator as a kill would, and loads another from the log.
    fn restart(&mut self) {
        self.coordinator = Coordinator::new(self.config.clone());
        for (offset, (key, value)) in self.log.iter().enumerate() {
            let record = CoordinatorRecord::decode(Some(key), value.as_ref()).unwrap().unwrap();
            self.coordinator.replay(self.now, offset as i64, -1, &record);
        }
        self.coordinator.on_image(&self.image);
        self.coordinator.on_loaded(self.now);
    }

    fn waits(&self, token: Token) -> bool {
        !self.replies.contains_key(&token)
    }

    fn joined(&self, token: Token) -> &JoinGroupResponse {
        match &self.replies[&token] {
            Reply::Join(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn synced(&self, token: Token) -> &SyncGroupResponse {
        match &self.replies[&token] {
            Reply::Sync(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn left(&self, token: Token) -> &LeaveGroupResponse {
        match &self.replies[&token] {
            Reply::Leave(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        self.heartbeat_as(member, None, generation)
    }

    fn heartbeat_as(&mut self, member: &str, instance: Option<&str>, generation: i32) -> ErrorCode {
        let token = self.send(
            4,
            Call::Heartbeat(HeartbeatRequest {
                group_id: Str::from("g"),
                member_id: Str::from(member),
                group_instance_id: instance.map(Str::from),
                generation_id: generation,
                ..Default::default()
            }),
        );
        match &self.replies[&token] {
            Reply::Heartbeat(response) => ErrorCode::try_from(response.error_code).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> Token {
        self.send(
            5,
            Call::Sync(SyncGroupRequest {
                group_id: Str::from("g"),
                member_id: Str::from(member),
                generation_id: generation,
                protocol_type: Some(Str::from("consumer")),
                protocol_name: Some(Str::from("range")),
                assignments: assignments
                    .iter()
                    .map(|(member, assignment)| SyncGroupRequestAssignment {
                        member_id: Str::from(*member),
                        assignment: Bytes::copy_from_slice(assignment.as_bytes()),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }),
        )
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Token {
        let members = members.iter().map(|(member, instance)| MemberIdentity {
            member_id: Str::from(*member),
            group_instance_id: instance.map(Str::from),
            ..Default::default()
        });
        self.send(5, Call::Leave(LeaveGroupRequest { group_id: Str::from("g"), members: members.collect(), ..Default::default() }))
    }

    /// Commits an offset for partition 0 of topic `t`.
    fn commit(&mut self, version: i16, member: &str, generation: i32, offset: i64) -> ErrorCode {
        self.commit_request(version, commit_of(member, generation, "t", offset))
    }

    fn commit_request(&mut self, version: i16, request: OffsetCommitRequest) -> ErrorCode {
        let token = self.send(version, Call::CommitOffsets(request));
        match &self.replies[&token] {
            Reply::CommitOffsets(response) => ErrorCode::try_from(response.topics[0].partitions[0].error_code).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The offset committed for partition 0 of topic `t`, -1 when there is none.
    fn fetch(&mut self) -> i64 {
        self.fetch_of("t", Uuid::nil())
    }

    fn fetch_of(&mut self, topic: &str, topic_id: Uuid) -> i64 {
        let topics = vec![OffsetFetchRequestTopics { name: Str::from(topic), topic_id, partition_indexes: vec![0], ..Default::default() }];
        let group = OffsetFetchRequestGroup { group_id: Str::from("g"), topics: Some(topics), ..Default::default() };
        let token = self.send(8, Call::FetchOffsets { group, require_stable: false });
        match &self.replies[&token] {
            Reply::FetchOffsets(group) => {
                let partition = &group.topics[0].partitions[0];
                assert_eq!((group.error_code, partition.error_code), (0, 0));
                partition.committed_offset
            }
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> &'static str {
        self.coordinator.classic("g").map_or("Dead", |group| group.state().name())
    }

    fn generation(&self) -> i32 {
        self.coordinator.classic("g").expect("the group is there").generation()
    }

    /// Two members of generation 1 with their assignments, the leader first.
    fn stable_pair(&mut self) -> [String; 2] {
        let tokens = [self.send(3, join().call()), self.send(3, join().call())];
        self.wait(2 * INITIAL_DELAY_MS);
        let ids = tokens.map(|token| self.joined(token).member_id.to_string());
        let sync = self.sync(&ids[0], 1, &[(&ids[0], "a0"), (&ids[1], "a1")]);
        assert_eq!(&self.synced(sync).assignment[..], b"a0");
        let sync = self.sync(&ids[1], 1, &[]);
        assert_eq!(&self.synced(sync).assignment[..], b"a1");
        assert_eq!(self.state(), "Stable");
        ids
    }
}

/// A JoinGroup request of a consumer, to be changed where a scenario needs it.
#[derive(Clone)]
struct Join(JoinGroupRequest);

fn join() -> Join {
    Join(JoinGroupRequest {
        group_id: Str::from("g"),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: Str::from("consumer"),
        protocols: protocols(&["range"]),
        ..Default::default()
    })
}

impl Join {
    fn id(mut self, member: &str) -> Join {
        self.0.member_id = Str::from(member);
        self
    }

    fn instance(mut self, instance: &str) -> Join {
        self.0.group_instance_id = Some(Str::from(instance));
        self
    }

    fn protocols(mut self, names: &[&str]) -> Join {
        self.0.protocols = protocols(names);
        self
    }

    fn protocol_type(mut self, name: &str) -> Join {
        self.0.protocol_type = Str::from(name);
        self
    }

    fn topics(mut self, topics: &[&str]) -> Join {
        self.0.protocols[0].metadata = subscription(topics);
        self
    }

    fn session_ms(mut self, timeout_ms: i32) -> Join {
        self.0.session_timeout_ms = timeout_ms;
        self
    }

    fn rebalance_ms(mut self, timeout_ms: i32) -> Join {
        self.0.rebalance_timeout_ms = timeout_ms;
        self
    }

    fn call(self) -> Call {
        Call::Join(self.0)
    }
}

fn protocols(names: &[&str]) -> Vec<JoinGroupRequestProtocol> {
    let protocol = |name: &&str| JoinGroupRequestProtocol { name: Str::from(*name), metadata: subscription(&["t"]), ..Default::default() };
    names.iter().map(protocol).collect()
}

fn subscription(topics: &[&str]) -> Bytes {
    let topics = topics.iter().map(|topic| Str::from(*topic)).collect();
    encode_versioned(1, &ConsumerProtocolSubscription { topics, ..Default::default() }).unwrap()
}

fn commit_of(member: &str, generation: i32, topic: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: Str::from("g"),
        member_id: Str::from(member),
        generation_id_or_member_epoch: generation,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from(topic),
            partitions: vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A few dozen histories in the suite; `PROPTEST_CASES` asks for thousands.
fn histories() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn code(error: ErrorCode) -> i16 {
    error.code()
}

/// What a step's records take, beside the few bytes that a batch has around each.
fn bytes_of(step: &Step) -> usize {
    let of_record = |record: &CoordinatorRecord| {
        let (key, value) = record.encode();
        key.len() + value.map_or(0, |value| value.len())
    };
    step.records.iter().map(of_record).sum()
}

#[test]
fn groups_hash_to_partitions_as_in_kafka() {
    // Java: "console-consumer-1".hashCode() and so on, through Utils.abs, modulo 50.
    assert_eq!(partition_for("", 50), 0);
    assert_eq!(partition_for("a", 50), 97 % 50);
    assert_eq!(partition_for("ab", 50), (97 * 31 + 98) % 50);
    // "polygenelubricants".hashCode() is Integer.MIN_VALUE.
    assert_eq!(partition_for("polygenelubricants", 50), 0);
    // U+1F600 is two UTF-16 units, D83D DE00.
    assert_eq!(partition_for("\u{1F600}", 1000), (0xD83D * 31 + 0xDE00) % 1000);
}
