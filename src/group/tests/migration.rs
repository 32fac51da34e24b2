//! Groups on their way between the two protocols: classic members in a consumer group, and whole groups that change their type while their members go on.

use super::consumer::{Metadata, again, assigned, first};
use super::*;
use crate::group::subscription;

const TOPIC_PARTITIONS: i32 = 4;

fn stage(policy: MigrationPolicy) -> Stage {
    let config = GroupConfig { consumer_assignment_interval_ms: 0, migration_policy: policy, ..GroupConfig::default() };
    let mut stage = Stage::with(config);
    let mut metadata = Metadata::new();
    metadata.topic("t", TOPIC_PARTITIONS);
    stage.see(&metadata);
    stage
}

fn assignment_of(partitions: &[i32]) -> Bytes {
    subscription::encode_assignment(1, [(Str::from("t"), partitions.to_vec())].into_iter())
}

/// The partitions of `t` that a SyncGroup hands out.
fn partitions(assignment: &Bytes) -> Vec<i32> {
    let topics = subscription::assignment(assignment).expect("an assignment").assigned_partitions;
    topics.into_iter().flat_map(|topic| topic.partitions).collect()
}

/// What a classic member says about itself: it subscribes to `t` and owns these partitions of it.
fn owning(partitions: &[i32]) -> Bytes {
    use crate::wire::messages::consumer_protocol_subscription::TopicPartition;
    let owned = TopicPartition { topic: Str::from("t"), partitions: partitions.to_vec(), ..Default::default() };
    let subscription = ConsumerProtocolSubscription { topics: vec![Str::from("t")], owned_partitions: vec![owned], ..Default::default() };
    encode_versioned(1, &subscription).unwrap()
}

impl Stage {
    /// A member joins as a classic one would that already knows its id; gives its generation.
    fn join_classic(&mut self, member: &str, owned: &[i32]) -> i32 {
        let mut request = join().id(member);
        request.0.protocols[0].metadata = owning(owned);
        let token = self.send(9, request.call());
        assert_eq!(self.joined(token).error_code, 0);
        self.joined(token).generation_id
    }

    fn synced_partitions(&mut self, member: &str, generation: i32) -> Vec<i32> {
        let token = self.sync(member, generation, &[]);
        assert_eq!(self.synced(token).error_code, 0);
        partitions(&self.synced(token).assignment.clone())
    }

    /// Two classic members of generation 1 that share `t`.
    fn classic_pair(&mut self) -> [String; 2] {
        let tokens = [self.send(3, join().call()), self.send(3, join().call())];
        self.wait(2 * INITIAL_DELAY_MS);
        let ids = tokens.map(|token| self.joined(token).member_id.to_string());
        let assignments = [(&ids[0], assignment_of(&[0, 1])), (&ids[1], assignment_of(&[2, 3]))];
        let mut request =
            SyncGroupRequest { group_id: Str::from("g"), member_id: Str::from(&*ids[0]), generation_id: 1, ..Default::default() };
        request.assignments = assignments
            .iter()
            .map(|(member, assignment)| SyncGroupRequestAssignment {
                member_id: Str::from(&***member),
                assignment: assignment.clone(),
                ..Default::default()
            })
            .collect();
        self.send(5, Call::Sync(request));
        self.sync(&ids[1], 1, &[]);
        assert_eq!(self.state(), "Stable");
        ids
    }
}

#[test]
fn a_classic_member_takes_part_in_a_consumer_group() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    assert_eq!(stage.beat(first("a").topics(&["t"]).0).member_epoch, 2);
    // As everywhere, an id comes first.
    let token = stage.send(9, join().call());
    assert_eq!(stage.joined(token).error_code, code(ErrorCode::MemberIdRequired));
    let id = stage.joined(token).member_id.to_string();
    let generation = stage.join_classic(&id, &[]);
    assert_eq!(generation, 3);
    assert_eq!(stage.synced_partitions(&id, generation), Vec::<i32>::new());
    assert_eq!(stage.heartbeat(&id, generation), ErrorCode::None, "what it is to have is not free yet");

    let kept = assigned(&stage.beat(again("a", 2).0), "t").unwrap();
    assert_eq!(stage.beat(again("a", 2).owns(&kept).0).member_epoch, 3);
    assert_eq!(stage.heartbeat(&id, generation), ErrorCode::RebalanceInProgress, "there is something for it");
    let generation = stage.join_classic(&id, &[]);
    let given = stage.synced_partitions(&id, generation);
    assert_eq!((kept.len(), given.len()), (2, 2));
    assert!(given.iter().all(|partition| !kept.contains(partition)));
    assert_eq!(stage.heartbeat(&id, generation), ErrorCode::None);
    assert_eq!(stage.commit(9, &id, generation, 5), ErrorCode::None);
    assert_eq!(stage.heartbeat(&id, generation + 1), ErrorCode::IllegalGeneration);
    stage.coordinator.consumer_group("g").unwrap().check();
}

#[test]
fn a_classic_member_that_does_not_join_again_in_time_is_out() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    stage.beat(first("a").topics(&["t"]).0);
    let generation = stage.join_classic("c", &[]);
    stage.synced_partitions("c", generation);
    stage.beat(first("b").topics(&["t"]).0);
    for _ in 0..9 {
        stage.wait(9_000);
        stage.heartbeat("c", generation);
        for member in ["a", "b"] {
            let epoch = stage.coordinator.consumer_group("g").unwrap().member(member).unwrap().epoch;
            stage.beat(again(member, epoch).owns(&[]).0);
        }
    }
    assert_eq!(stage.heartbeat("c", generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_classic_group_becomes_a_consumer_group_with_its_members() {
    let mut stage = stage(MigrationPolicy::Upgrade);
    let ids = stage.classic_pair();
    let joined = stage.beat(first("new").topics(&["t"]).0);
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2), "{:?}", joined.error_message);
    assert!(stage.coordinator.classic("g").is_none());
    let group = stage.coordinator.consumer_group("g").unwrap();
    group.check();
    assert_eq!((group.members().count(), group.epoch), (3, 2));
    // The classic members go on where they were, and hear that there is something to do.
    assert_eq!(stage.commit(5, &ids[0], 1, 7), ErrorCode::None);
    assert_eq!(stage.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    stage.restart();
    assert_eq!(stage.heartbeat(&ids[1], 1), ErrorCode::RebalanceInProgress);

    // One partition moves: its owner gives it up in one join and goes on in the next.
    let mut all: Vec<i32> = Vec::new();
    for (id, owned) in ids.iter().zip([[0, 1], [2, 3]]) {
        let mut generation = stage.join_classic(id, &owned);
        let mut has = stage.synced_partitions(id, generation);
        while stage.heartbeat(id, generation) == ErrorCode::RebalanceInProgress {
            generation = stage.join_classic(id, &has);
            has = stage.synced_partitions(id, generation);
        }
        all.extend(has);
    }
    all.extend(assigned(&stage.beat(again("new", 2).0), "t").expect("its share is free"));
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(stage.fetch(), 7);
}

#[test]
fn members_that_wait_for_a_rebalance_hear_of_the_upgrade() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    let ids = stage.classic_pair();
    let waiting = stage.send(3, join().id(&ids[0]).topics(&["t", "u"]).call());
    assert!(stage.waits(waiting));
    assert_eq!(stage.beat(first("new").topics(&["t"]).0).error_code, 0);
    assert_eq!(stage.joined(waiting).error_code, code(ErrorCode::RebalanceInProgress));
}

#[test]
fn a_refused_upgrade_leaves_the_classic_group() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    let ids = stage.classic_pair();
    stage.refuse_next = Some(ErrorCode::NotEnoughReplicas);
    assert_eq!(stage.beat(first("new").topics(&["t"]).0).error_code, code(ErrorCode::CoordinatorNotAvailable));
    assert_eq!((stage.state(), stage.heartbeat(&ids[0], 1)), ("Stable", ErrorCode::None));
}

#[test]
fn a_consumer_group_becomes_a_classic_group_when_the_last_consumer_leaves() {
    let mut stage = stage(MigrationPolicy::Downgrade);
    stage.beat(first("a").topics(&["t"]).0);
    let generation = stage.join_classic("c", &[]);
    stage.synced_partitions("c", generation);
    assert_eq!(stage.beat(again("a", -1).0).error_code, 0);
    assert!(stage.coordinator.consumer_group("g").is_none());
    assert_eq!((stage.state(), stage.generation()), ("PreparingRebalance", generation));
    assert_eq!(stage.heartbeat("c", generation), ErrorCode::RebalanceInProgress);
    let token = stage.send(9, join().id("c").call());
    assert_eq!((stage.joined(token).error_code, stage.joined(token).generation_id), (0, generation + 1));
    assert_eq!(*stage.joined(token).leader, *"c", "it leads, and assigns itself");
    let token = stage.sync("c", generation + 1, &[("c", "mine")]);
    assert_eq!(&stage.synced(token).assignment[..], b"mine");
    stage.restart();
    assert_eq!((stage.state(), stage.generation()), ("Stable", generation + 1));
}

#[test]
fn a_restart_in_the_middle_of_a_downgrade_finds_a_classic_group() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    stage.beat(first("a").topics(&["t"]).0);
    let generation = stage.join_classic("c", &[]);
    stage.beat(again("a", -1).0);
    stage.restart();
    assert_eq!((stage.state(), stage.generation()), ("Stable", generation));
    assert_eq!(stage.heartbeat("c", generation), ErrorCode::None);
}

#[test]
fn a_static_member_takes_its_place_along_when_it_changes_the_protocol() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    // Down: the only member comes back as a classic one.
    stage.beat(first("a").instance("i").topics(&["t"]).0);
    stage.beat(again("a", -2).instance("i").0);
    let mut request = join().instance("i");
    request.0.protocols[0].metadata = owning(&[]);
    let token = stage.send(9, request.call());
    let (error, member, generation) = {
        let joined = stage.joined(token);
        (joined.error_code, joined.member_id.to_string(), joined.generation_id)
    };
    assert_eq!((error, stage.state(), generation), (0, "Stable", 2));
    let token = stage.send(
        5,
        Call::Sync(SyncGroupRequest {
            group_id: Str::from("g"),
            member_id: Str::from(&*member),
            group_instance_id: Some(Str::from("i")),
            generation_id: generation,
            ..Default::default()
        }),
    );
    assert_eq!(partitions(&stage.synced(token).assignment.clone()), [0, 1, 2, 3]);
    // Up again: it keeps what it had.
    let back = stage.beat(first("b").instance("i").topics(&["t"]).0);
    assert_eq!((back.error_code, assigned(&back, "t")), (0, Some(vec![0, 1, 2, 3])), "{:?}", back.error_message);
    assert_eq!(stage.heartbeat_as(&member, Some("i"), generation), ErrorCode::FencedInstanceId);
}

/// What each policy lets happen: a consumer joins a classic group, a classic member joins a consumer group, the last consumer leaves one.
#[test]
fn policies_say_which_way_groups_may_go() {
    let upgraded = |policy| {
        let mut stage = stage(policy);
        stage.classic_pair();
        stage.beat(first("new").topics(&["t"]).0).error_code
    };
    let mixed = |policy| {
        let mut stage = stage(policy);
        stage.beat(first("a").topics(&["t"]).0);
        let token = stage.send(9, join().id("c").call());
        let error = stage.joined(token).error_code;
        stage.beat(again("a", -1).0);
        (error, stage.coordinator.classic("g").is_some())
    };
    let (refused, inconsistent) = (code(ErrorCode::GroupIdNotFound), code(ErrorCode::InconsistentGroupProtocol));
    for (policy, up, down) in [
        (MigrationPolicy::Bidirectional, 0, (0, true)),
        (MigrationPolicy::Upgrade, 0, (0, false)),
        (MigrationPolicy::Downgrade, refused, (0, true)),
        (MigrationPolicy::Disabled, refused, (inconsistent, false)),
    ] {
        assert_eq!((upgraded(policy), mixed(policy)), (up, down), "{policy:?}");
    }
}

#[test]
fn groups_that_are_not_of_consumers_are_not_upgraded() {
    let mut stage = stage(MigrationPolicy::Bidirectional);
    let token = stage.send(3, join().protocol_type("connect").call());
    stage.wait(INITIAL_DELAY_MS);
    assert_eq!(stage.joined(token).error_code, 0);
    assert_eq!(stage.beat(first("new").topics(&["t"]).0).error_code, code(ErrorCode::GroupIdNotFound));
    assert!(stage.coordinator.classic("g").is_some());
}
