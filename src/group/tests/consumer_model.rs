//! The consumer protocol against clients that behave like real ones in a bad world: answers get lost, members crash and come back, subscriptions and partitions change, the log
//! refuses, the coordinator is killed and loads again. Whatever the order of events:
//!
//! - in one epoch a partition has one owner, and at any time one holder;
//! - epochs only rise, the group's and each member's;
//! - a commit that was answered is read back;
//! - the coordinator that runs and the one that the log would give are the same;
//! - left in peace, the group settles, and every partition that somebody subscribes to has an owner.

use super::consumer::{Beat, Metadata, again, first, topic_id};
use super::*;
use crate::wire::messages::ConsumerGroupHeartbeatResponse;
use crate::wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use proptest::prelude::*;
use std::collections::BTreeSet;

const CLIENTS: usize = 5;
const TOPICS: [&str; 2] = ["t", "u"];
const REGEX: &str = "t|u";

#[derive(Debug, Clone)]
enum Event {
    Beat(usize),
    /// The answer gets lost.
    BeatInVain(usize),
    Commit(usize),
    /// For good, or for a while if the client is static.
    Leave(usize),
    /// The client starts again under a new id; a static one under the same instance id.
    Crash(usize),
    /// It subscribes to other topics from now on: none, one, both, or by a regular expression.
    Subscribe(usize, u8),
    Grow(usize),
    Wait(i64),
    RefuseNext,
    RestartCoordinator,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let client = 0..CLIENTS;
    let event = prop_oneof![
        16 => client.clone().prop_map(Event::Beat),
        3 => client.clone().prop_map(Event::BeatInVain),
        3 => client.clone().prop_map(Event::Commit),
        1 => client.clone().prop_map(Event::Leave),
        1 => client.clone().prop_map(Event::Crash),
        1 => (client, 0..4u8).prop_map(|(client, which)| Event::Subscribe(client, which)),
        1 => (0..TOPICS.len()).prop_map(Event::Grow),
        4 => (0..6_000i64).prop_map(Event::Wait),
        1 => (0..90_000i64).prop_map(Event::Wait),
        1 => Just(Event::RefuseNext),
        1 => Just(Event::RestartCoordinator),
    ];
    proptest::collection::vec(event, 1..200)
}

type Partition = (Uuid, i32);

/// A consumer as clients implement it.
struct Client {
    instance: Option<String>,
    lives: u32,
    epoch: i32,
    owned: BTreeSet<Partition>,
    /// Which subscription it wants, and which it has told.
    wants: u8,
    has_told: bool,
    is_gone: bool,
}

impl Client {
    fn id(&self, index: usize) -> String {
        format!("client-{index}-{}", self.lives)
    }

    /// A client that starts again.
    fn restart(&mut self) {
        self.lives += 1;
        self.forget();
    }

    /// It is told that it is not a member: it lets go of everything and joins.
    fn forget(&mut self) {
        (self.epoch, self.has_told, self.is_gone) = (0, false, false);
        self.owned.clear();
    }
}

struct World {
    stage: Stage,
    metadata: Metadata,
    partitions: [i32; 2],
    clients: Vec<Client>,
    /// Who was assigned a partition in an epoch: an instance id, or else a member id.
    owners: BTreeMap<(i32, Partition), String>,
    member_epochs: BTreeMap<String, i32>,
    group_epoch: i32,
    committed: i64,
    next_offset: i64,
}

impl World {
    fn new(static_clients: usize) -> World {
        let client = |index: usize| Client {
            instance: (index < static_clients).then(|| format!("instance-{index}")),
            lives: 0,
            epoch: 0,
            owned: BTreeSet::new(),
            wants: 2,
            has_told: false,
            is_gone: false,
        };
        let mut world = World {
            stage: Stage::new(),
            metadata: Metadata::new(),
            partitions: [4, 2],
            clients: (0..CLIENTS).map(client).collect(),
            owners: BTreeMap::new(),
            member_epochs: BTreeMap::new(),
            group_epoch: 0,
            committed: -1,
            next_offset: 0,
        };
        world.show_topics();
        world
    }

    fn show_topics(&mut self) {
        for (name, partitions) in TOPICS.iter().zip(self.partitions) {
            self.metadata.topic(name, partitions);
        }
        self.stage.see(&self.metadata);
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Beat(index) => self.beat(*index, true),
            Event::BeatInVain(index) => self.beat(*index, false),
            Event::Commit(index) => self.commit(*index),
            Event::Leave(index) => self.leave(*index),
            Event::Crash(index) => self.clients[*index].restart(),
            Event::Subscribe(index, which) => {
                self.clients[*index].wants = *which;
                self.clients[*index].has_told = false;
            }
            Event::Grow(topic) if self.partitions[*topic] < 8 => {
                self.partitions[*topic] += 1;
                self.show_topics();
            }
            Event::Grow(_) => {}
            Event::Wait(duration_ms) => self.stage.wait(*duration_ms),
            Event::RefuseNext => self.stage.refuse_next = Some(ErrorCode::NotEnoughReplicas),
            Event::RestartCoordinator => {
                let before = self.durable();
                self.stage.restart();
                assert_eq!(self.durable(), before, "the log says what was");
            }
        }
        self.check();
    }

    fn durable(&self) -> Option<String> {
        self.stage.coordinator.consumer_group("g").map(|group| format!("{:?}", group.durable()))
    }

    fn request(&self, index: usize) -> Beat {
        let client = &self.clients[index];
        let id = client.id(index);
        let joins = client.epoch == 0;
        let mut beat = if joins { first(&id) } else { again(&id, client.epoch) };
        if joins || !client.has_told {
            beat.0.rebalance_timeout_ms = REBALANCE_MS;
            let topics: &[&str] = match client.wants {
                1 => &TOPICS[..1],
                2 => &TOPICS,
                _ => &[],
            };
            beat = beat.topics(topics).regex(if client.wants == 3 { REGEX } else { "" });
        }
        if let Some(instance) = &client.instance {
            beat = beat.instance(instance);
        }
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        client.owned.iter().for_each(|(topic_id, partition)| owned.entry(*topic_id).or_default().push(*partition));
        let topic = |(topic_id, partitions)| TopicPartitions { topic_id, partitions, ..Default::default() };
        beat.0.topic_partitions = Some(owned.into_iter().map(topic).collect());
        beat
    }

    fn beat(&mut self, index: usize, is_heard: bool) {
        if self.clients[index].is_gone {
            self.clients[index].restart();
        }
        let request = self.request(index).0;
        let response = self.stage.beat(request);
        if response.error_code == 0 {
            self.own(index, &response);
        }
        if !is_heard {
            // After anything that went wrong a client says everything once more, and so hears its assignment.
            self.clients[index].has_told = false;
            return;
        }
        let client = &mut self.clients[index];
        match ErrorCode::try_from(response.error_code).unwrap() {
            ErrorCode::None => {
                client.epoch = response.member_epoch;
                client.has_told = true;
                if let Some(assignment) = response.assignment {
                    let of_topic = |topic: crate::wire::messages::consumer_group_heartbeat_response::TopicPartitions| {
                        let topic_id = topic.topic_id;
                        topic.partitions.into_iter().map(move |partition| (topic_id, partition))
                    };
                    client.owned = assignment.topic_partitions.into_iter().flat_map(of_topic).collect();
                }
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch | ErrorCode::GroupIdNotFound => client.forget(),
            ErrorCode::FencedInstanceId => client.restart(),
            // Another try, until the old self's session is over.
            ErrorCode::UnreleasedInstanceId | ErrorCode::CoordinatorNotAvailable => client.has_told = false,
            other => panic!("no heartbeat is answered with {other:?}: {:?}", response.error_message),
        }
    }

    /// What was answered is true, whether anybody hears it or not.
    fn own(&mut self, index: usize, response: &ConsumerGroupHeartbeatResponse) {
        let client = &self.clients[index];
        let (id, epoch) = (client.id(index), response.member_epoch);
        let before = self.member_epochs.insert(id.clone(), epoch);
        assert!(before.is_none_or(|before| before <= epoch || client.epoch == 0), "the epoch of {id} went from {before:?} to {epoch}");
        let owner = client.instance.clone().unwrap_or(id);
        for topic in response.assignment.iter().flat_map(|assignment| &assignment.topic_partitions) {
            for partition in &topic.partitions {
                let first = self.owners.entry((epoch, (topic.topic_id, *partition))).or_insert_with(|| owner.clone());
                assert_eq!(*first, owner, "partition {partition} has two owners in epoch {epoch}");
            }
        }
    }

    /// Commits for partition 0 of `t`, if it has it: one number tells what was committed last.
    fn commit(&mut self, index: usize) {
        let client = &self.clients[index];
        if client.epoch == 0 || !client.owned.contains(&(topic_id("t"), 0)) {
            return;
        }
        self.next_offset += 1;
        let mut request = commit_of(&client.id(index), client.epoch, "t", self.next_offset);
        request.topics[0].topic_id = topic_id("t");
        if self.stage.commit_request(9, request) == ErrorCode::None {
            self.committed = self.next_offset;
        }
    }

    fn leave(&mut self, index: usize) {
        let client = &self.clients[index];
        if client.is_gone || client.epoch == 0 {
            return;
        }
        let epoch = if client.instance.is_some() { -2 } else { -1 };
        let mut request = again(&client.id(index), epoch);
        request.0.instance_id = client.instance.as_deref().map(Str::from);
        self.stage.beat(request.0);
        self.clients[index].is_gone = true;
        self.clients[index].owned.clear();
    }

    fn check(&mut self) {
        assert_eq!(self.stage.fetch_of("t", topic_id("t")), self.committed);
        let Some(group) = self.stage.coordinator.consumer_group("g") else { return };
        group.check();
        assert!(group.epoch >= self.group_epoch, "the group's epoch fell");
        self.group_epoch = group.epoch;
    }

    /// Everybody goes on in a good world, until all have what they are to have.
    fn settle(&mut self) {
        self.stage.refuse_next = None;
        for _ in 0..200 {
            for index in 0..CLIENTS {
                self.happen(&Event::Beat(index));
            }
            self.happen(&Event::Wait(1_000));
            if self.is_settled() {
                return;
            }
        }
        panic!("200 seconds were not enough: {:#?}", self.stage.coordinator.consumer_group("g"));
    }

    fn is_settled(&self) -> bool {
        let group = self.stage.coordinator.consumer_group("g").expect("it has members");
        if group.state().name() != "Stable" || group.members().count() != CLIENTS {
            return false;
        }
        let mut owned: Vec<Partition> = self.clients.iter().flat_map(|client| client.owned.iter().copied()).collect();
        owned.sort_unstable();
        let is_wanted =
            |topic: usize| self.clients.iter().any(|client| client.wants == 2 || client.wants == 3 || (client.wants == 1 && topic == 0));
        let mut all: Vec<Partition> = Vec::new();
        for (topic, name) in TOPICS.iter().enumerate().filter(|(topic, _)| is_wanted(*topic)) {
            all.extend((0..self.partitions[topic]).map(|partition| (topic_id(name), partition)));
        }
        all.sort_unstable();
        owned == all
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
        world.happen(&Event::RestartCoordinator);
    }
}
