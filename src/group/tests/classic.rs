//! The classic protocol, scenario by scenario. What is expected is what Apache Kafka 4.4's `GroupMetadataManager` does.

use super::*;
use crate::wire::messages::describe_groups_response::DescribedGroup;

#[test]
fn a_first_member_is_given_an_id_waits_the_initial_delay_and_leads() {
    let mut stage = Stage::new();
    let first = stage.send(9, join().call());
    assert_eq!(stage.joined(first).error_code, code(ErrorCode::MemberIdRequired));
    let id = stage.joined(first).member_id.to_string();
    assert_eq!(id, format!("client-{}", Uuid::from_u128(0)));
    assert_eq!(stage.log.len(), 1, "the new group is recorded at once");

    let second = stage.send(9, join().id(&id).call());
    stage.wait(INITIAL_DELAY_MS - 1);
    assert!(stage.waits(second));
    stage.wait(1);
    let joined = stage.joined(second).clone();
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!((&*joined.leader, &*joined.member_id), (&*id, &*id));
    assert_eq!((joined.protocol_type.as_deref(), joined.protocol_name.as_deref()), (Some("consumer"), Some("range")));
    assert_eq!((joined.members.len(), joined.skip_assignment), (1, false));
    assert_eq!(stage.state(), "CompletingRebalance");

    let sync = stage.sync(&id, 1, &[(&id, "all")]);
    assert_eq!((stage.synced(sync).error_code, &stage.synced(sync).assignment[..]), (0, &b"all"[..]));
    assert_eq!(stage.heartbeat(&id, 1), ErrorCode::None);
    assert_eq!(stage.state(), "Stable");
}

#[test]
fn before_version_4_a_member_is_let_in_at_once() {
    let mut stage = Stage::new();
    let token = stage.send(3, join().call());
    assert!(stage.waits(token));
    stage.wait(INITIAL_DELAY_MS);
    assert_eq!(stage.joined(token).generation_id, 1);
}

#[test]
fn version_0_has_one_timeout_for_both() {
    let mut stage = Stage::new();
    stage.send(0, join().rebalance_ms(-1).session_ms(7_000).call());
    stage.wait(INITIAL_DELAY_MS);
    let member = stage.coordinator.classic("g").unwrap().members().next().unwrap();
    assert_eq!((member.session_timeout_ms, member.rebalance_timeout_ms), (7_000, 7_000));
}

#[test]
fn the_initial_delay_grows_while_members_come_but_not_beyond_the_rebalance_timeout() {
    let mut stage = Stage::new();
    let first = stage.send(3, join().rebalance_ms(10_000).call());
    for _ in 0..3 {
        stage.wait(2_000);
        stage.send(3, join().rebalance_ms(10_000).call());
    }
    stage.wait(3_900);
    assert!(stage.waits(first), "9.9 seconds have passed");
    stage.wait(200);
    assert!(!stage.waits(first), "10 seconds are the rebalance timeout");
    assert_eq!(stage.joined(first).members.len(), 4);
}

#[test]
fn a_delay_of_0_forms_the_first_generation_at_once() {
    let mut stage = Stage::with(GroupConfig { initial_rebalance_delay_ms: 0, ..Default::default() });
    let token = stage.send(3, join().call());
    assert_eq!(stage.joined(token).generation_id, 1);
}

#[test]
fn refusals_before_the_group_is_looked_at() {
    let mut stage = Stage::new();
    let mut nameless = join();
    nameless.0.group_id = Str::default();
    let cases = [
        (nameless, ErrorCode::InvalidGroupId),
        (join().session_ms(5_999), ErrorCode::InvalidSessionTimeout),
        (join().session_ms(1_800_001), ErrorCode::InvalidSessionTimeout),
        (join().id("stranger"), ErrorCode::UnknownMemberId),
    ];
    for (request, error) in cases {
        let member_id = request.0.member_id.clone();
        let token = stage.send(9, request.call());
        assert_eq!((stage.joined(token).error_code, &stage.joined(token).member_id), (code(error), &member_id));
    }
    assert_eq!(stage.coordinator.group_count(), 0);
}

#[test]
fn protocols_must_fit_the_group() {
    let mut stage = Stage::new();
    stage.stable_pair();
    for request in [join().protocol_type("connect"), join().protocols(&["roundrobin"]), join().protocols(&[])] {
        let token = stage.send(9, request.call());
        assert_eq!(stage.joined(token).error_code, code(ErrorCode::InconsistentGroupProtocol));
    }
    let mut empty = Stage::new();
    for request in [join().protocol_type(""), join().protocols(&[])] {
        let token = empty.send(9, request.call());
        assert_eq!(empty.joined(token).error_code, code(ErrorCode::InconsistentGroupProtocol));
    }
}

#[test]
fn the_protocol_is_elected_among_those_that_all_support() {
    let mut stage = Stage::new();
    let tokens =
        [&["a", "b", "c"][..], &["c", "b", "x"], &["b", "c"], &["c", "b"]].map(|names| stage.send(3, join().protocols(names).call()));
    stage.wait(2 * INITIAL_DELAY_MS);
    // a and x are not common. b gets the first and the third vote, c the second and the fourth.
    assert!(["b", "c"].contains(&stage.joined(tokens[0]).protocol_name.as_deref().unwrap()));
    let fifth = stage.send(3, join().protocols(&["c", "b"]).call());
    for token in tokens {
        let id = stage.joined(token).member_id.to_string();
        let names = stage.coordinator.classic("g").unwrap().members().find(|member| *member.id == *id).unwrap().protocols.clone();
        let names: Vec<&str> = names.iter().map(|protocol| &*protocol.name).collect();
        stage.send(3, join().id(&id).protocols(&names).call());
    }
    assert_eq!(stage.joined(fifth).protocol_name.as_deref(), Some("c"), "three votes of five");
}

#[test]
fn a_new_member_makes_everybody_join_again() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let new = stage.send(3, join().call());
    assert_eq!(stage.state(), "PreparingRebalance");
    assert_eq!(stage.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
    let sync = stage.sync(&leader, 1, &[]);
    assert_eq!(stage.synced(sync).error_code, code(ErrorCode::RebalanceInProgress));

    let again = [stage.send(9, join().id(&leader).call()), stage.send(9, join().id(&follower).call())];
    assert_eq!(stage.joined(new).generation_id, 2);
    assert_eq!(&*stage.joined(new).leader, &*leader, "the leader keeps leading");
    assert_eq!(stage.joined(again[0]).members.len(), 3);
    assert!(stage.joined(again[1]).members.is_empty(), "only the leader is told the members");
}

#[test]
fn dynamic_members_that_do_not_rejoin_are_dropped_and_a_new_leader_is_found() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let new = stage.send(3, join().call());
    let again = stage.send(9, join().id(&follower).call());
    // The old leader goes on beating but does not join.
    for _ in 0..9 {
        stage.wait(i64::from(REBALANCE_MS) / 10);
        assert_eq!(stage.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
    }
    assert!(stage.waits(again) && stage.waits(new));
    stage.wait(i64::from(REBALANCE_MS) / 10);
    assert_eq!(stage.heartbeat(&leader, 2), ErrorCode::UnknownMemberId);
    let new_leader = stage.joined(again).leader.clone();
    assert!(*new_leader == *follower || new_leader == stage.joined(new).member_id);
    assert_eq!(stage.joined(again).members.len() + stage.joined(new).members.len(), 2);
}

#[test]
fn a_lost_join_reply_is_said_again() {
    let mut stage = Stage::new();
    let tokens = [stage.send(3, join().call()), stage.send(3, join().call())];
    stage.wait(2 * INITIAL_DELAY_MS);
    let ids = tokens.map(|token| stage.joined(token).member_id.to_string());
    for (token, id) in tokens.into_iter().zip(&ids) {
        let again = stage.send(9, join().id(id).call());
        assert_eq!(stage.joined(again), stage.joined(token));
    }
    assert_eq!(stage.state(), "CompletingRebalance");
    let changed = stage.send(9, join().id(&ids[1]).topics(&["other"]).call());
    assert!(stage.waits(changed));
    assert_eq!(stage.state(), "PreparingRebalance");
}

#[test]
fn in_a_stable_group_only_the_leader_or_a_change_causes_a_rebalance() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let same = stage.send(9, join().id(&follower).call());
    assert_eq!((stage.joined(same).generation_id, stage.state()), (1, "Stable"));
    let leading = stage.send(9, join().id(&leader).call());
    assert!(stage.waits(leading));
    assert_eq!(stage.state(), "PreparingRebalance");

    let mut stage = Stage::new();
    let [_, follower] = stage.stable_pair();
    stage.send(9, join().id(&follower).topics(&["other"]).call());
    assert_eq!(stage.state(), "PreparingRebalance");
}

#[test]
fn sync_checks_who_asks_and_in_which_generation() {
    let mut stage = Stage::new();
    let [leader, _] = stage.stable_pair();
    let cases = [
        ("stranger", 1, ErrorCode::UnknownMemberId),
        (&*leader, 2, ErrorCode::IllegalGeneration),
        (&leader, 0, ErrorCode::IllegalGeneration),
    ];
    for (member, generation, error) in cases {
        let token = stage.sync(member, generation, &[]);
        assert_eq!(stage.synced(token).error_code, code(error));
        let token = stage.heartbeat(member, generation);
        assert_eq!(token, error);
    }
    let mut request = SyncGroupRequest { group_id: Str::from("g"), member_id: Str::from(&*leader), generation_id: 1, ..Default::default() };
    request.protocol_name = Some(Str::from("sticky"));
    let token = stage.send(5, Call::Sync(request.clone()));
    assert_eq!(stage.synced(token).error_code, code(ErrorCode::InconsistentGroupProtocol));
    request.group_id = Str::from("nowhere");
    let token = stage.send(5, Call::Sync(request));
    assert_eq!(stage.synced(token).error_code, code(ErrorCode::UnknownMemberId));
}

#[test]
fn followers_wait_for_the_leader_and_whom_it_forgets_gets_nothing() {
    let mut stage = Stage::new();
    let tokens = [stage.send(3, join().call()), stage.send(3, join().call())];
    stage.wait(2 * INITIAL_DELAY_MS);
    let [leader, follower] = tokens.map(|token| stage.joined(token).member_id.to_string());
    let waiting = stage.sync(&follower, 1, &[]);
    assert!(stage.waits(waiting));
    let records = stage.log.len();
    stage.sync(&leader, 1, &[(&leader, "everything"), ("somebody else", "?")]);
    assert_eq!(stage.log.len(), records + 1);
    assert_eq!((stage.synced(waiting).error_code, stage.synced(waiting).assignment.len()), (0, 0));
    assert_eq!(stage.synced(waiting).protocol_name.as_deref(), Some("range"));
}

#[test]
fn members_that_do_not_sync_in_time_are_out() {
    let mut stage = Stage::new();
    let tokens = [stage.send(3, join().rebalance_ms(8_000).call()), stage.send(3, join().rebalance_ms(8_000).call())];
    stage.wait(2 * INITIAL_DELAY_MS);
    let [leader, follower] = tokens.map(|token| stage.joined(token).member_id.to_string());
    stage.sync(&leader, 1, &[(&leader, "a"), (&follower, "b")]);
    assert_eq!(stage.state(), "Stable");
    for _ in 0..2 {
        stage.wait(3_900);
        stage.heartbeat(&leader, 1);
        stage.heartbeat(&follower, 1);
    }
    assert_eq!(stage.state(), "Stable");
    stage.wait(300);
    assert_eq!(stage.state(), "PreparingRebalance");
    assert_eq!(stage.heartbeat(&follower, 1), ErrorCode::UnknownMemberId);
    assert_eq!(stage.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
}

#[test]
fn sessions_end_without_heartbeats_and_an_empty_group_is_recorded() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    stage.wait(i64::from(SESSION_MS) - 1);
    assert_eq!(stage.heartbeat(&leader, 1), ErrorCode::None);
    stage.wait(1);
    assert_eq!(stage.heartbeat(&follower, 1), ErrorCode::UnknownMemberId);
    assert_eq!(stage.state(), "PreparingRebalance");
    stage.wait(i64::from(SESSION_MS));
    assert_eq!((stage.state(), stage.generation()), ("Empty", 2));
    stage.restart();
    assert_eq!((stage.state(), stage.generation()), ("Empty", 2));
}

#[test]
fn waiting_members_need_no_heartbeats_but_new_ones_do_not_wait_for_ever() {
    let mut stage = Stage::with(GroupConfig { initial_rebalance_delay_ms: 20 * 60 * 1000, ..Default::default() });
    let new = stage.send(3, join().rebalance_ms(30 * 60 * 1000).call());
    stage.wait(NEW_MEMBER_JOIN_TIMEOUT_MS - 1);
    assert!(stage.waits(new));
    stage.wait(1);
    assert_eq!(stage.joined(new).error_code, code(ErrorCode::UnknownMemberId));

    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let again = stage.send(9, join().id(&leader).call());
    // The follower keeps its session up; the leader's request waits far beyond its own.
    for _ in 0..5 {
        stage.wait(9_000);
        assert_eq!(stage.heartbeat(&follower, 1), ErrorCode::RebalanceInProgress);
    }
    assert!(stage.waits(again));
    stage.send(9, join().id(&follower).call());
    assert_eq!(stage.joined(again).generation_id, 2);
}

#[test]
fn an_id_given_out_is_kept_for_a_session_and_holds_a_rebalance_up_meanwhile() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let asked = stage.send(9, join().call());
    let id = stage.joined(asked).member_id.to_string();
    assert_eq!(stage.state(), "Stable");
    stage.wait(5_000);
    let again = [stage.send(9, join().id(&leader).call()), stage.send(9, join().id(&follower).call())];
    assert!(stage.waits(again[0]), "the one with the new id may come");
    stage.wait(5_000);
    assert_eq!(stage.joined(again[1]).generation_id, 2);
    let late = stage.send(9, join().id(&id).call());
    assert_eq!(stage.joined(late).error_code, code(ErrorCode::UnknownMemberId));
}

#[test]
fn a_full_group_turns_members_away() {
    let mut stage = Stage::with(GroupConfig { max_size: 2, ..Default::default() });
    let [leader, follower] = stage.stable_pair();
    let third = stage.send(3, join().call());
    assert_eq!((stage.joined(third).error_code, &*stage.joined(third).member_id), (code(ErrorCode::GroupMaxSizeReached), ""));
    assert_eq!(stage.state(), "Stable");

    // A group above a limit that was lowered is made to join again, and sheds its last members.
    stage.config.max_size = 1;
    stage.restart();
    assert_eq!(stage.state(), "PreparingRebalance");
    let kept = stage.send(9, join().id(&follower).call());
    let shed = stage.send(9, join().id(&leader).call());
    assert_eq!(stage.joined(shed).error_code, code(ErrorCode::GroupMaxSizeReached));
    stage.wait(i64::from(REBALANCE_MS));
    assert_eq!((stage.joined(kept).generation_id, stage.joined(kept).members.len()), (2, 1));
}

#[test]
fn leaving_members_are_answered_one_by_one() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let asked = stage.send(9, join().call());
    let pending = stage.joined(asked).member_id.to_string();
    let token = stage.leave(&[(&follower, None), ("stranger", None), ("", Some("nobody")), (&pending, None)]);
    let errors: Vec<i16> = stage.left(token).members.iter().map(|member| member.error_code).collect();
    let unknown = code(ErrorCode::UnknownMemberId);
    assert_eq!(errors, [0, unknown, unknown, 0]);
    assert_eq!(stage.state(), "PreparingRebalance");
    let again = stage.send(9, join().id(&leader).call());
    assert_eq!(stage.joined(again).generation_id, 2);
    stage.sync(&leader, 2, &[]);

    let token = stage.leave(&[(&leader, None)]);
    assert_eq!(stage.left(token).error_code, 0);
    assert_eq!((stage.state(), stage.generation()), ("Empty", 3));
    let token = stage.leave(&[(&leader, None)]);
    assert_eq!(stage.left(token).members[0].error_code, unknown);
    assert_eq!(stage.log.len(), 4, "created, generation 1, generation 2, empty");
}

/// A static member and a dynamic one, stable; the dynamic one or the static one leads.
fn static_pair(stage: &mut Stage, static_leads: bool) -> [String; 2] {
    let tokens = if static_leads {
        [stage.send(9, join().instance("i").call()), stage.send(3, join().call())]
    } else {
        let dynamic = stage.send(3, join().call());
        [stage.send(9, join().instance("i").call()), dynamic]
    };
    stage.wait(2 * INITIAL_DELAY_MS);
    let [fixed, dynamic] = tokens.map(|token| stage.joined(token).member_id.to_string());
    let leader = if static_leads { &fixed } else { &dynamic };
    stage.sync(leader, 1, &[(&fixed, "fixed"), (&dynamic, "dynamic")]);
    stage.sync(if static_leads { &dynamic } else { &fixed }, 1, &[]);
    assert_eq!(stage.state(), "Stable");
    [fixed, dynamic]
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    let mut stage = Stage::new();
    let [old, dynamic] = static_pair(&mut stage, false);
    assert!(old.starts_with("i-"));
    let token = stage.send(9, join().instance("i").call());
    let joined = stage.joined(token).clone();
    assert_eq!((joined.error_code, joined.generation_id, joined.skip_assignment), (0, 1, false));
    assert_eq!(&*joined.leader, &*dynamic);
    assert_ne!(&*joined.member_id, &*old);
    assert_eq!(stage.state(), "Stable");

    assert_eq!(stage.heartbeat_as(&old, Some("i"), 1), ErrorCode::FencedInstanceId);
    assert_eq!(stage.heartbeat(&old, 1), ErrorCode::UnknownMemberId);
    let rejoin = stage.send(9, join().id(&old).instance("i").call());
    assert_eq!(stage.joined(rejoin).error_code, code(ErrorCode::FencedInstanceId));
    let sync = stage.sync(&joined.member_id, 1, &[]);
    assert_eq!(&stage.synced(sync).assignment[..], b"fixed");

    stage.restart();
    assert_eq!(stage.heartbeat_as(&joined.member_id, Some("i"), 1), ErrorCode::None, "the new id is recorded");
}

#[test]
fn a_static_leader_that_comes_back_is_told_that_the_assignment_stands() {
    for (version, skips) in [(9, true), (8, false)] {
        let mut stage = Stage::new();
        let [old, _] = static_pair(&mut stage, true);
        let token = stage.send(version, join().instance("i").call());
        let joined = stage.joined(token);
        assert_eq!(joined.skip_assignment, skips);
        assert_eq!(joined.members.len(), if skips { 2 } else { 0 });
        // Too old to be told, it has to believe that another leads.
        assert_eq!(&*joined.leader, if skips { &*joined.member_id } else { &*old });
    }
}

#[test]
fn a_static_member_with_another_choice_of_protocol_causes_a_rebalance() {
    let mut stage = Stage::new();
    let tokens = [
        stage.send(9, join().instance("i").protocols(&["range", "sticky"]).call()),
        stage.send(9, join().instance("j").protocols(&["range", "sticky"]).call()),
    ];
    stage.wait(2 * INITIAL_DELAY_MS);
    let [first, _] = tokens.map(|token| stage.joined(token).member_id.to_string());
    stage.sync(&first, 1, &[]);
    let token = stage.send(9, join().instance("j").protocols(&["sticky"]).call());
    assert!(stage.waits(token));
    assert_eq!(stage.state(), "PreparingRebalance");
}

#[test]
fn a_static_member_that_comes_back_before_the_assignment_causes_a_rebalance() {
    let mut stage = Stage::new();
    let tokens = [stage.send(3, join().call()), stage.send(9, join().instance("i").call())];
    stage.wait(2 * INITIAL_DELAY_MS);
    let old = stage.joined(tokens[1]).member_id.to_string();
    let old_sync = stage.sync(&old, 1, &[]);
    let again = stage.send(9, join().instance("i").call());
    assert_eq!(stage.synced(old_sync).error_code, code(ErrorCode::FencedInstanceId));
    assert!(stage.waits(again));
    assert_eq!(stage.state(), "PreparingRebalance");
}

#[test]
fn a_static_member_that_joins_twice_fences_its_waiting_request() {
    let mut stage = Stage::new();
    let first = stage.send(9, join().instance("i").call());
    let second = stage.send(9, join().instance("i").call());
    assert_eq!(stage.joined(first).error_code, code(ErrorCode::FencedInstanceId));
    stage.wait(2 * INITIAL_DELAY_MS);
    assert_eq!((stage.joined(second).generation_id, stage.joined(second).members.len()), (1, 1));
}

#[test]
fn static_members_outlive_a_rebalance_and_are_removed_by_instance_id() {
    let mut stage = Stage::new();
    let [fixed, dynamic] = static_pair(&mut stage, false);
    let again = stage.send(9, join().id(&dynamic).session_ms(60_000).call());
    // The static member beats but does not join, for the whole rebalance timeout.
    for _ in 0..10 {
        stage.wait(6_000);
        stage.heartbeat_as(&fixed, Some("i"), 1);
    }
    assert_eq!(stage.joined(again).members.len(), 2, "the static member is still there");
    stage.sync(&dynamic, 2, &[]);
    let token = stage.leave(&[("", Some("i"))]);
    assert_eq!(stage.left(token).members[0].error_code, 0);
    assert_eq!(stage.state(), "PreparingRebalance");
    let again = stage.send(9, join().id(&dynamic).call());
    assert_eq!((stage.joined(again).generation_id, stage.joined(again).members.len()), (3, 1));
}

#[test]
fn a_generation_that_was_not_recorded_is_undone_by_a_restart() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    let again = [stage.send(9, join().id(&leader).call()), stage.send(9, join().id(&follower).call())];
    assert_eq!(stage.joined(again[0]).generation_id, 2);
    stage.restart();
    assert_eq!((stage.state(), stage.generation()), ("Stable", 1));
    assert_eq!(stage.heartbeat(&leader, 2), ErrorCode::IllegalGeneration);
    assert_eq!(stage.heartbeat(&leader, 1), ErrorCode::None);
    let sync = stage.sync(&follower, 1, &[]);
    assert_eq!(&stage.synced(sync).assignment[..], b"a1");
    stage.wait(i64::from(SESSION_MS));
    assert_eq!(stage.state(), "Empty", "sessions run from the restart on");
}

#[test]
fn an_assignment_that_cannot_be_stored_makes_everybody_join_again() {
    let mut stage = Stage::new();
    let tokens = [stage.send(3, join().call()), stage.send(3, join().call())];
    stage.wait(2 * INITIAL_DELAY_MS);
    let [leader, follower] = tokens.map(|token| stage.joined(token).member_id.to_string());
    let waiting = stage.sync(&follower, 1, &[]);
    stage.refuse_next = Some(ErrorCode::MessageTooLarge);
    let leading = stage.sync(&leader, 1, &[(&leader, "huge")]);
    for token in [waiting, leading] {
        assert_eq!((stage.synced(token).error_code, stage.synced(token).assignment.len()), (code(ErrorCode::UnknownServerError), 0));
    }
    assert_eq!(stage.state(), "PreparingRebalance");
    let again = [stage.send(9, join().id(&leader).call()), stage.send(9, join().id(&follower).call())];
    assert_eq!(stage.joined(again[1]).generation_id, 2);
}

#[test]
fn a_group_whose_creation_is_refused_is_not_there() {
    for version in [3, 9] {
        let mut stage = Stage::new();
        stage.refuse_next = Some(ErrorCode::NotEnoughReplicas);
        let token = stage.send(version, join().call());
        assert_eq!(stage.joined(token).error_code, code(ErrorCode::CoordinatorNotAvailable));
        assert_eq!(stage.coordinator.group_count(), 0);
        stage.wait(NEW_MEMBER_JOIN_TIMEOUT_MS);
    }
}

#[test]
fn a_static_member_whose_new_id_is_refused_keeps_its_old_one() {
    let mut stage = Stage::new();
    let [old, _] = static_pair(&mut stage, true);
    stage.refuse_next = Some(ErrorCode::KafkaStorageError);
    let token = stage.send(9, join().instance("i").call());
    assert_eq!(stage.joined(token).error_code, code(ErrorCode::NotCoordinator));
    assert_eq!(stage.heartbeat_as(&old, Some("i"), 1), ErrorCode::None);
    stage.wait(9_000);
    assert_eq!(stage.heartbeat_as(&old, Some("i"), 1), ErrorCode::None);
}

#[test]
fn when_the_coordinator_goes_everybody_who_waits_is_told() {
    let mut stage = Stage::new();
    let [leader, _] = stage.stable_pair();
    let waiting = stage.send(9, join().id(&leader).call());
    let replies = stage.coordinator.dismiss(ErrorCode::NotCoordinator);
    assert_eq!(replies.len(), 1);
    let Reply::Join(response) = &replies[0].1 else { panic!() };
    assert_eq!((replies[0].0, response.error_code, &*response.member_id), (waiting, code(ErrorCode::NotCoordinator), &*leader));
}

fn describe(stage: &mut Stage, version: i16, group: &str) -> DescribedGroup {
    let token = stage.send(version, Call::DescribeGroups(vec![Str::from(group)]));
    match &stage.replies[&token] {
        Reply::DescribeGroups(groups) => groups[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn groups_are_described() {
    let mut stage = Stage::new();
    let [leader, _] = stage.stable_pair();
    let group = describe(&mut stage, 6, "g");
    assert_eq!((&*group.group_state, &*group.protocol_type, &*group.protocol_data), ("Stable", "consumer", "range"));
    let member = group.members.iter().find(|member| *member.member_id == *leader).unwrap();
    assert_eq!((&*member.client_id, &*member.client_host), ("client", "/127.0.0.1"));
    assert_eq!((&member.member_metadata, &member.member_assignment[..]), (&subscription(&["t"]), &b"a0"[..]));

    stage.send(9, join().id(&leader).call());
    let group = describe(&mut stage, 6, "g");
    assert_eq!((&*group.group_state, &*group.protocol_data), ("PreparingRebalance", ""));
    assert!(group.members.iter().all(|member| member.member_metadata.is_empty()));

    let absent = describe(&mut stage, 5, "absent");
    assert_eq!((absent.error_code, &*absent.group_state, absent.error_message), (0, "Dead", None));
    let absent = describe(&mut stage, 6, "absent");
    assert_eq!((absent.error_code, &*absent.group_state), (code(ErrorCode::GroupIdNotFound), "Dead"));
    assert_eq!(absent.error_message.as_deref(), Some("Group absent not found."));
}

#[test]
fn groups_are_listed_through_filters() {
    let mut stage = Stage::new();
    stage.stable_pair();
    let mut simple = commit_of("", -1, "t", 1);
    simple.group_id = Str::from("simple");
    stage.commit_request(8, simple);
    let mut list = |states: &[&str], types: &[&str]| {
        let filters = |names: &[&str]| names.iter().map(|name| Str::from(*name)).collect();
        let token = stage.send(5, Call::ListGroups { states: filters(states), types: filters(types) });
        let Reply::ListGroups(Ok(groups)) = &stage.replies[&token] else { panic!() };
        let mut ids: Vec<String> =
            groups.iter().map(|group| format!("{}/{}/{}", group.group_id, group.group_state, group.protocol_type)).collect();
        assert!(groups.iter().all(|group| &*group.group_type == "classic"));
        ids.sort();
        ids
    };
    assert_eq!(list(&[], &[]), ["g/Stable/consumer", "simple/Empty/"]);
    assert_eq!(list(&["stable "], &["Classic"]), ["g/Stable/consumer"]);
    assert_eq!(list(&["EMPTY", "dead"], &[]), ["simple/Empty/"]);
    assert!(list(&[], &["consumer", "nonsense"]).is_empty());
}

/// Found by the model: the first record of a member stood against the later ones.
#[test]
fn a_restart_takes_the_latest_metadata_of_a_member() {
    let mut stage = Stage::new();
    let [leader, follower] = stage.stable_pair();
    stage.send(9, join().id(&leader).topics(&["other"]).session_ms(20_000).call());
    stage.send(9, join().id(&follower).call());
    stage.sync(&leader, 2, &[]);
    stage.restart();
    let member = stage.coordinator.classic("g").unwrap().members().find(|member| *member.id == *leader).unwrap();
    assert_eq!((member.metadata("range"), member.session_timeout_ms), (subscription(&["other"]), 20_000));
}
