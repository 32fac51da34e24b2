//! The classic protocol against clients that behave like real ones in a bad world: replies get lost, members crash and come back, time jumps, the log refuses, the coordinator is
//! killed and loads again. Whatever the order of events:
//!
//! - in one generation a partition has one owner, whatever was answered before or after a restart;
//! - generations that members were given an assignment in never go back;
//! - a commit that was answered is read back;
//! - the coordinator that runs and the one that the log would give agree about every group that is not in the middle of a rebalance;
//! - nobody waits for ever.

use super::*;
use crate::group::classic::State;
use crate::wire::messages::join_group_response::JoinGroupResponseMember;
use proptest::prelude::*;
use std::collections::BTreeSet;

const CLIENTS: usize = 5;
const PARTITIONS: usize = 7;

#[derive(Debug, Clone)]
enum Event {
    /// The client does what is next for it: joins, fetches its assignment, or beats.
    Act(usize),
    /// The same, but the reply gets lost, should it come at once.
    ActInVain(usize),
    Commit(usize),
    Leave(usize),
    /// The client forgets who it was and starts again; a static one under the same instance id.
    Crash(usize),
    /// It will join with other metadata next time.
    Change(usize),
    /// An administrator removes a static member.
    Remove(usize),
    Wait(i64),
    RefuseNext(bool),
    RestartCoordinator,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let client = 0..CLIENTS;
    let event = prop_oneof![
        12 => client.clone().prop_map(Event::Act),
        2 => client.clone().prop_map(Event::ActInVain),
        3 => client.clone().prop_map(Event::Commit),
        1 => client.clone().prop_map(Event::Leave),
        1 => client.clone().prop_map(Event::Crash),
        1 => client.clone().prop_map(Event::Change),
        1 => client.prop_map(Event::Remove),
        4 => (0..8_000i64).prop_map(Event::Wait),
        1 => (0..90_000i64).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::RefuseNext),
        1 => Just(Event::RestartCoordinator),
    ];
    proptest::collection::vec(event, 1..250)
}

/// A consumer as clients implement it.
#[derive(Default)]
struct Client {
    instance: Option<String>,
    version: i16,
    member_id: String,
    /// The metadata it joins with; the number changes with `Change`.
    revision: u32,
    /// The generation it was told, and the members if it leads.
    generation: Option<i32>,
    to_assign: Option<Vec<JoinGroupResponseMember>>,
    has_assignment: bool,
    waiting: Option<(Token, Asked)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Join,
    Sync,
}

struct World {
    stage: Stage,
    clients: Vec<Client>,
    /// Who was given a partition in a generation: an instance id, or else a member id.
    owners: BTreeMap<(i32, usize), String>,
    highest_assigned: i32,
    committed: i64,
    next_offset: i64,
}

impl World {
    fn new(static_clients: usize) -> World {
        let client = |index: usize| Client {
            instance: (index < static_clients).then(|| format!("instance-{index}")),
            version: if index.is_multiple_of(2) {
                9
            } else if index < static_clients {
                5
            } else {
                3
            },
            ..Default::default()
        };
        World {
            stage: Stage::new(),
            clients: (0..CLIENTS).map(client).collect(),
            owners: BTreeMap::new(),
            highest_assigned: 0,
            committed: -1,
            next_offset: 0,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Act(index) => self.act(*index),
            Event::ActInVain(index) => {
                self.act(*index);
                self.clients[*index].waiting = None;
            }
            Event::Commit(index) => self.commit(*index),
            Event::Leave(index) => {
                let (id, instance) = (self.clients[*index].member_id.clone(), self.clients[*index].instance.clone());
                self.stage.leave(&[(&id, instance.as_deref())]);
                self.forget(*index);
            }
            Event::Crash(index) => self.forget(*index),
            Event::Change(index) => self.clients[*index].revision += 1,
            Event::Remove(index) => {
                if let Some(instance) = self.clients[*index].instance.clone() {
                    self.stage.leave(&[("", Some(&instance))]);
                }
            }
            Event::Wait(duration_ms) => self.stage.wait(*duration_ms),
            Event::RefuseNext(too_large) => {
                self.stage.refuse_next = Some(if *too_large { ErrorCode::MessageTooLarge } else { ErrorCode::NotEnoughReplicas });
            }
            Event::RestartCoordinator => {
                self.stage.restart();
                // Connections break: whoever waited asks again.
                self.clients.iter_mut().for_each(|client| client.waiting = None);
            }
        }
        self.hear();
        self.check();
    }

    fn forget(&mut self, index: usize) {
        let client = &mut self.clients[index];
        *client = Client { instance: client.instance.take(), version: client.version, revision: client.revision, ..Default::default() };
    }

    fn act(&mut self, index: usize) {
        let client = &self.clients[index];
        if client.waiting.is_some() {
            return;
        }
        match client.generation {
            None => self.join(index),
            Some(generation) if !client.has_assignment => self.sync(index, generation),
            Some(generation) => self.beat(index, generation),
        }
    }

    fn join(&mut self, index: usize) {
        let client = &self.clients[index];
        let mut request = join().id(&client.member_id).topics(&["t", &format!("revision-{}", client.revision)]);
        request.0.group_instance_id = client.instance.as_deref().map(Str::from);
        request.0.session_timeout_ms = 6_000 + 1_000 * index as i32;
        request.0.rebalance_timeout_ms = 10_000 + 5_000 * index as i32;
        let token = self.stage.send(client.version, request.call());
        self.clients[index].waiting = Some((token, Asked::Join));
    }

    fn sync(&mut self, index: usize, generation: i32) {
        let client = &self.clients[index];
        let mut request = SyncGroupRequest {
            group_id: Str::from("g"),
            member_id: Str::from(&*client.member_id),
            group_instance_id: client.instance.as_deref().map(Str::from),
            generation_id: generation,
            protocol_type: Some(Str::from("consumer")),
            protocol_name: Some(Str::from("range")),
            ..Default::default()
        };
        // The leader deals the partitions out, from a different member on each time.
        for (place, member) in client.to_assign.iter().flatten().enumerate() {
            let count = client.to_assign.as_ref().map_or(1, Vec::len);
            let partitions = (0..PARTITIONS).filter(|partition| (partition + generation as usize) % count == place);
            request.assignments.push(SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: partitions.map(|partition| partition as u8).collect(),
                ..Default::default()
            });
        }
        let token = self.stage.send(5, Call::Sync(request));
        self.clients[index].waiting = Some((token, Asked::Sync));
    }

    fn beat(&mut self, index: usize, generation: i32) {
        let (id, instance) = (self.clients[index].member_id.clone(), self.clients[index].instance.clone());
        match self.stage.heartbeat_as(&id, instance.as_deref(), generation) {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress => self.rejoin(index),
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::FencedInstanceId => self.forget(index),
            other => panic!("no heartbeat is answered with {other:?}"),
        }
    }

    fn rejoin(&mut self, index: usize) {
        let client = &mut self.clients[index];
        (client.generation, client.to_assign, client.has_assignment) = (None, None, false);
    }

    fn commit(&mut self, index: usize) {
        let client = &self.clients[index];
        let (id, generation) = (client.member_id.clone(), client.generation.unwrap_or(-1));
        let instance = client.instance.clone();
        self.next_offset += 1;
        let request = OffsetCommitRequest {
            group_instance_id: instance.as_deref().map(Str::from),
            ..commit_of(&id, generation, "t", self.next_offset)
        };
        if self.stage.commit_request(9, request) == ErrorCode::None {
            self.committed = self.next_offset;
        }
    }

    /// Clients take the replies that have come.
    fn hear(&mut self) {
        for index in 0..CLIENTS {
            let Some((token, asked)) = self.clients[index].waiting else { continue };
            if self.stage.waits(token) {
                continue;
            }
            self.clients[index].waiting = None;
            match asked {
                Asked::Join => self.hear_join(index, token),
                Asked::Sync => self.hear_sync(index, token),
            }
        }
    }

    fn hear_join(&mut self, index: usize, token: Token) {
        let response = self.stage.joined(token).clone();
        let client = &mut self.clients[index];
        match ErrorCode::try_from(response.error_code).unwrap() {
            ErrorCode::None => {
                let leads = response.leader == response.member_id;
                client.member_id = response.member_id.to_string();
                client.generation = Some(response.generation_id);
                client.to_assign = (leads && !response.skip_assignment).then_some(response.members);
                client.has_assignment = false;
            }
            ErrorCode::MemberIdRequired => client.member_id = response.member_id.to_string(),
            ErrorCode::RebalanceInProgress | ErrorCode::CoordinatorNotAvailable => {}
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId | ErrorCode::UnknownServerError => self.forget(index),
            other => panic!("no join is answered with {other:?}"),
        }
    }

    fn hear_sync(&mut self, index: usize, token: Token) {
        let response = self.stage.synced(token).clone();
        let client = &mut self.clients[index];
        match ErrorCode::try_from(response.error_code).unwrap() {
            ErrorCode::None => {
                client.has_assignment = true;
                let generation = client.generation.expect("it asked in a generation");
                let owner = client.instance.clone().unwrap_or_else(|| client.member_id.clone());
                self.own(generation, &owner, &response.assignment);
            }
            ErrorCode::RebalanceInProgress | ErrorCode::CoordinatorNotAvailable | ErrorCode::UnknownServerError => self.rejoin(index),
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::FencedInstanceId => self.forget(index),
            other => panic!("no sync is answered with {other:?}"),
        }
    }

    fn own(&mut self, generation: i32, owner: &str, partitions: &[u8]) {
        assert!(generation >= self.highest_assigned, "generation {generation} is assigned after {}", self.highest_assigned);
        self.highest_assigned = generation;
        for partition in partitions {
            let first = self.owners.entry((generation, usize::from(*partition))).or_insert_with(|| owner.to_string());
            assert_eq!(first, owner, "partition {partition} has two owners in generation {generation}");
        }
    }

    fn check(&mut self) {
        assert_eq!(self.stage.fetch(), self.committed);
        let Some(group) = self.stage.coordinator.classic("g") else { return };
        group.check();
        // That a group is empty need not be recorded: a restart finds its last members, and loses them again.
        let is_recorded = group.state() == State::Stable || (group.is_empty() && !self.stage.is_behind);
        if is_recorded {
            let recorded = self.stage.log.iter().rev().find_map(|(key, value)| {
                let record = CoordinatorRecord::decode(Some(key), value.as_ref()).unwrap().unwrap();
                matches!(record, CoordinatorRecord::GroupMetadata { .. }).then_some(record)
            });
            let CoordinatorRecord::GroupMetadata { value: Some(now), .. } = group.current_record() else { panic!() };
            match recorded {
                Some(CoordinatorRecord::GroupMetadata { value: Some(recorded), .. }) => assert_eq!(now, recorded),
                _ => assert_eq!((now.generation, now.members.len()), (0, 0), "only a simple group lives without a record"),
            }
        }
    }

    /// Everybody goes on acting in a good world, until all are in one generation with their assignments.
    fn settle(&mut self) {
        self.stage.refuse_next = None;
        for _ in 0..400 {
            if self.is_settled() {
                return;
            }
            for index in 0..CLIENTS {
                self.happen(&Event::Act(index));
            }
            self.happen(&Event::Wait(500));
        }
        panic!("200 seconds were not enough");
    }

    fn is_settled(&self) -> bool {
        let generations: BTreeSet<Option<i32>> = self.clients.iter().map(|client| client.generation).collect();
        // Members whose replies got lost before they knew their ids are still there until their sessions end.
        let members = self.stage.coordinator.classic("g").map_or(0, |group| group.members().count());
        let all_have_theirs = members == CLIENTS && self.clients.iter().all(|client| client.has_assignment);
        let is_settled = self.stage.state() == "Stable" && generations.len() == 1 && all_have_theirs;
        if is_settled {
            let generation = self.stage.generation();
            assert_eq!(generations, BTreeSet::from([Some(generation)]));
            assert!((0..PARTITIONS).all(|partition| self.owners.contains_key(&(generation, partition))), "every partition has an owner");
        }
        is_settled
    }
}

proptest! {
    #![proptest_config(histories())]

    #[test]
    fn the_group_settles_and_no_partition_has_two_owners(events in events(), static_clients in 0..=CLIENTS) {
        let mut world = World::new(static_clients);
        for event in &events {
            world.happen(event);
        }
        world.settle();
    }

    #[test]
    fn nobody_waits_for_ever(events in events(), static_clients in 0..=CLIENTS) {
        let mut world = World::new(static_clients);
        for event in &events {
            world.happen(event);
        }
        world.stage.wait(2 * NEW_MEMBER_JOIN_TIMEOUT_MS);
        world.hear();
        prop_assert!(world.clients.iter().all(|client| client.waiting.is_none()));
        prop_assert_eq!(world.stage.coordinator.classic("g").map_or(0, |group| group.waits()), 0);
    }
}
