//! A group of the classic protocol whose coordinator is killed in each phase of a rebalance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::messages::join_group_request::JoinGroupRequestProtocol;
use corelane_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use corelane_wire::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use corelane_wire::{ErrorCode, Str, encode_versioned};
use harness::broker::{Broker, BrokerOptions};
use harness::raw::{Connection, code};
use harness::wait;

use super::{PARTITIONS, TOPIC, commit, committed, prepare};

const GROUP: &str = "met-by-hand";
const MEMBERS: usize = 3;
const JOIN_VERSION: i16 = 9;
const SYNC_VERSION: i16 = 4;

/// How far a rebalance has come when the broker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Members wait for others to join.
    Joining,
    /// They are a generation, and the leader has not assigned.
    Joined,
    /// The others wait for its assignment.
    Waiting,
    /// It has assigned, and was told that this is stored.
    Assigned,
    Stable,
}

const PHASES: [Phase; 5] = [Phase::Joining, Phase::Joined, Phase::Waiting, Phase::Assigned, Phase::Stable];

/// Whoever was a member settles with the others in one generation again; none in which somebody was assigned partitions comes twice, and what was committed is still there.
pub fn a_coordinator_killed_in_any_phase_of_the_classic_protocol_settles() {
    let mut broker = Broker::start(BrokerOptions::default());
    prepare(&broker).wait_for_coordinator(GROUP);
    let mut members: Vec<Member> = (0..MEMBERS).map(|_| Member::default()).collect();
    let mut generation = settle(broker.address(), &mut members);
    for (phase, offset) in PHASES.into_iter().zip(1..) {
        let leader = members.iter().find(|member| member.leads).expect("one of them").id.to_string();
        let commit = || commit(&mut Connection::to(&broker), GROUP, &leader, generation, offset);
        wait::until("a commit", wait::PATIENCE, || (commit() == ErrorCode::None).then_some(()));
        let assigned = begin_rebalance(&broker, &mut members, phase).max(generation);
        broker.kill();
        broker.restart();
        generation = settle(broker.address(), &mut members);
        println!("{phase:?}: generation {generation} after {assigned}");
        assert!(generation >= assigned, "{phase:?}: from generation {assigned} back to {generation}");
        let mut connection = Connection::to(&broker);
        let found = wait::until("the offset", wait::PATIENCE, || committed(&mut connection, GROUP));
        assert_eq!(found, offset, "{phase:?}");
    }
}

/// Leads the members, who are settled, into a rebalance as far as `phase`. Gives the newest generation in which somebody was assigned partitions, 0 if none was in this rebalance.
fn begin_rebalance(broker: &Broker, members: &mut [Member], phase: Phase) -> i32 {
    if phase == Phase::Stable {
        return 0;
    }
    // The leader's joining makes everybody meet again; so it comes first.
    members.sort_by_key(|member| !member.leads);
    let mut connections: Vec<Connection> = members.iter().map(|_| Connection::to(broker)).collect();
    let leaders = connections[0].send(JOIN_VERSION, &members[0].join_request()).expect("the broker is there");
    wait::until("the rebalance", wait::PATIENCE, || (members[1].beat(&mut connections[1]) == ErrorCode::RebalanceInProgress).then_some(()));
    if phase == Phase::Joining {
        return 0;
    }
    let mut joining = vec![leaders];
    for (member, connection) in members.iter().zip(&mut connections).skip(1) {
        joining.push(connection.send(JOIN_VERSION, &member.join_request()).expect("the broker is there"));
    }
    let mut joined: Vec<JoinGroupResponse> = Vec::new();
    for (connection, correlation_id) in connections.iter_mut().zip(joining) {
        joined.push(connection.receive::<JoinGroupRequest>(JOIN_VERSION, correlation_id).expect("an answer"));
    }
    assert!(joined.iter().all(|joined| joined.error_code == 0), "{joined:?}");
    for (member, joined) in members.iter_mut().zip(&joined) {
        member.hear_join(joined);
    }
    if phase == Phase::Joined {
        return 0;
    }
    let mut requests = members.iter().zip(&joined).map(|(member, joined)| member.sync_request(joined));
    let of_leader = requests.next().expect("the leader's");
    for (connection, request) in connections.iter_mut().skip(1).zip(requests) {
        connection.send(SYNC_VERSION, &request).expect("the broker is there");
    }
    if phase == Phase::Waiting {
        return 0;
    }
    assert_eq!(code(connections[0].call(SYNC_VERSION, &of_leader).error_code), ErrorCode::None);
    joined[0].generation_id
}

/// Lets members do what clients do, each in a thread of its own, until all are in one generation with all partitions between them. Gives the generation.
fn settle(address: SocketAddr, members: &mut [Member]) -> i32 {
    let settled: Mutex<BTreeMap<usize, (i32, Vec<u8>)>> = Mutex::new(BTreeMap::new());
    let deadline = Instant::now() + wait::PATIENCE;
    thread::scope(|scope| {
        for (number, member) in members.iter_mut().enumerate() {
            let settled = &settled;
            scope.spawn(move || member.take_part(address, number, settled, deadline));
        }
    });
    let settled = settled.into_inner().expect("nobody panicked");
    let generation = generation_of_all(&settled).expect("one generation");
    let mut owned: Vec<u8> = settled.into_values().flat_map(|(_, owned)| owned).collect();
    owned.sort_unstable();
    assert_eq!(owned, (0..PARTITIONS as u8).collect::<Vec<_>>(), "each partition has one owner in generation {generation}");
    generation
}

fn generation_of_all(settled: &BTreeMap<usize, (i32, Vec<u8>)>) -> Option<i32> {
    let generation = settled.values().next()?.0;
    (settled.len() == MEMBERS && settled.values().all(|(other, _)| *other == generation)).then_some(generation)
}

/// A member as a client implements it.
#[derive(Default)]
struct Member {
    id: Str,
    generation: i32,
    leads: bool,
}

impl Member {
    /// Joins, fetches its assignment and beats, and begins again when it is told to, until all have come to the same generation.
    fn take_part(&mut self, address: SocketAddr, number: usize, settled: &Mutex<BTreeMap<usize, (i32, Vec<u8>)>>, deadline: Instant) {
        let mut connection = Connection::open(address).expect("the broker is there");
        while Instant::now() < deadline {
            if let Some(assignment) = self.join(&mut connection) {
                lock(settled).insert(number, (self.generation, assignment.to_vec()));
                while self.beat(&mut connection) == ErrorCode::None {
                    if generation_of_all(&lock(settled)).is_some() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                // Nobody may leave who believes that this one is still where it was.
                if generation_of_all(&lock(settled)).is_some() {
                    return;
                }
                lock(settled).remove(&number);
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("member {number} did not settle");
    }

    /// One attempt; the assignment, if it comes to one.
    fn join(&mut self, connection: &mut Connection) -> Option<Bytes> {
        let joined = connection.call(JOIN_VERSION, &self.join_request());
        self.hear_join(&joined);
        if joined.error_code != 0 {
            return None;
        }
        let synced: SyncGroupResponse = connection.call(SYNC_VERSION, &self.sync_request(&joined));
        self.hear(code(synced.error_code));
        (synced.error_code == 0).then_some(synced.assignment)
    }

    fn hear_join(&mut self, joined: &JoinGroupResponse) {
        match code(joined.error_code) {
            ErrorCode::None => {
                (self.id, self.generation) = (joined.member_id.clone(), joined.generation_id);
                self.leads = joined.leader == joined.member_id;
            }
            ErrorCode::MemberIdRequired => self.id = joined.member_id.clone(),
            other => self.hear(other),
        }
    }

    fn hear(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::None
            | ErrorCode::RebalanceInProgress
            | ErrorCode::IllegalGeneration
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator => {}
            ErrorCode::UnknownMemberId => self.id = Str::default(),
            other => panic!("no member is told {}", other.name()),
        }
    }

    fn beat(&mut self, connection: &mut Connection) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: Str::from(GROUP),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..Default::default()
        };
        let error = code(connection.call(4, &request).error_code);
        self.hear(error);
        error
    }

    fn join_request(&self) -> JoinGroupRequest {
        JoinGroupRequest { session_timeout_ms: 10_000, rebalance_timeout_ms: 20_000, ..join_request(GROUP, &self.id) }
    }

    /// The leader deals the partitions out; here an assignment is their numbers.
    fn sync_request(&self, joined: &JoinGroupResponse) -> SyncGroupRequest {
        let count = joined.members.len();
        let assignments = joined.members.iter().enumerate().map(|(place, member)| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: (place as u8..PARTITIONS as u8).step_by(count).collect(),
            ..Default::default()
        });
        SyncGroupRequest {
            group_id: Str::from(GROUP),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            assignments: assignments.collect(),
            ..Default::default()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

/// What a consumer of the topic sends that has so much time that nothing ends by it; a new member has no id.
pub fn join_request(group: &str, member: &str) -> JoinGroupRequest {
    let subscription = ConsumerProtocolSubscription { topics: vec![Str::from(TOPIC)], ..Default::default() };
    let metadata = encode_versioned(1, &subscription).expect("valid");
    JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: Str::from(member),
        protocol_type: Str::from("consumer"),
        protocols: vec![JoinGroupRequestProtocol { name: Str::from("range"), metadata, ..Default::default() }],
        ..Default::default()
    }
}
