//! What the assignors promise, on small examples by hand and on random groups.

use super::*;
use proptest::prelude::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

type Racks = Vec<Vec<Arc<str>>>;

/// A group to be assigned: each member with its topics, by number, and its last target.
#[derive(Debug, Clone, Default)]
struct Group {
    members: Vec<(Str, Vec<Uuid>, Assignment)>,
    racks: BTreeMap<Str, String>,
    /// The number of partitions, and each one's racks.
    topics: BTreeMap<Uuid, (i32, Racks)>,
}

impl Group {
    fn new(topics: &[(u128, i32)]) -> Group {
        Group { topics: topics.iter().map(|(number, partitions)| (id(*number), (*partitions, Vec::new()))).collect(), ..Default::default() }
    }

    fn member(mut self, name: &str, topics: &[u128]) -> Group {
        self.members.push((Str::from(name), topics.iter().map(|number| id(*number)).collect(), Assignment::new()));
        self.members.sort();
        self
    }

    fn assign(&mut self, name: &str) -> BTreeMap<Str, Assignment> {
        let topics: BTreeMap<Uuid, TopicSpec> = self
            .topics
            .iter()
            .filter(|(topic_id, _)| self.members.iter().any(|(_, topics, _)| topics.contains(topic_id)))
            .map(|(topic_id, (partition_count, racks))| (*topic_id, TopicSpec { partition_count: *partition_count, racks: racks.clone() }))
            .collect();
        let specs: Vec<MemberSpec<'_>> = self
            .members
            .iter()
            .map(|(id, topics, target)| MemberSpec {
                id,
                instance_id: None,
                rack_id: self.racks.get(id).map(|rack| &**rack),
                topics: topics.iter().copied().collect(),
                target,
            })
            .collect();
        let targets: Vec<Assignment> = assign(name, &specs, &topics).into_iter().map(Cow::into_owned).collect();
        let targets: BTreeMap<Str, Assignment> = self.members.iter().map(|(id, _, _)| id.clone()).zip(targets).collect();
        for (id, _, target) in &mut self.members {
            *target = targets[id].clone();
        }
        targets
    }

    /// Every partition of every topic that is subscribed to has one owner, who subscribes to it.
    fn check(&self, targets: &BTreeMap<Str, Assignment>) {
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (id, topics, _) in &self.members {
            for (topic_id, partitions) in &targets[id] {
                assert!(topics.contains(topic_id), "{id} does not subscribe to {topic_id}");
                assert!(!partitions.is_empty());
                owned.entry(*topic_id).or_default().extend(partitions);
            }
        }
        for (topic_id, (partition_count, _)) in &self.topics {
            if *partition_count > 0 && self.members.iter().any(|(_, topics, _)| topics.contains(topic_id)) {
                let mut partitions = owned.remove(topic_id).unwrap_or_default();
                partitions.sort_unstable();
                assert_eq!(partitions, (0..*partition_count).collect::<Vec<_>>());
            }
        }
        assert!(owned.is_empty());
    }

    fn sizes(targets: &BTreeMap<Str, Assignment>) -> Vec<usize> {
        targets.values().map(|target| target.values().map(|partitions| partitions.len()).sum()).collect()
    }
}

fn numbers(target: &Assignment, topic: u128) -> Vec<i32> {
    target.get(&id(topic)).into_iter().flatten().copied().collect()
}

#[test]
fn range_gives_runs_that_line_up_between_topics() {
    let mut group = Group::new(&[(1, 5), (2, 5)]).member("a", &[1, 2]).member("b", &[1, 2]);
    let targets = group.assign("range");
    for topic in [1, 2] {
        assert_eq!(numbers(&targets["a"], topic), [0, 1, 2]);
        assert_eq!(numbers(&targets["b"], topic), [3, 4]);
    }
}

#[test]
fn range_leaves_members_beyond_the_partitions_without() {
    let mut group = Group::new(&[(1, 2)]).member("a", &[1]).member("b", &[1]).member("c", &[1]);
    let targets = group.assign("range");
    assert_eq!(Group::sizes(&targets), [1, 1, 0]);
    group.check(&targets);
}

#[test]
fn uniform_moves_only_what_a_new_member_is_due() {
    let mut group = Group::new(&[(1, 6)]).member("a", &[1]).member("b", &[1]);
    let before = group.assign("uniform");
    assert_eq!(Group::sizes(&before), [3, 3]);
    group = group.member("c", &[1]);
    let after = group.assign("uniform");
    assert_eq!(Group::sizes(&after), [2, 2, 2]);
    for name in ["a", "b"] {
        assert!(after[name][&id(1)].is_subset(&before[name][&id(1)]), "{name} was given something new");
    }
}

#[test]
fn uniform_leaves_the_odd_one_where_it_is() {
    // Three members with 3, 2 and 2 of seven: whoever has three keeps three, whatever the order of the names.
    let mut group = Group::new(&[(1, 7)]).member("a", &[1]).member("b", &[1]).member("c", &[1]);
    group.assign("uniform");
    group.members[0].2 = [(id(1), [0, 1].into())].into();
    group.members[1].2 = [(id(1), [2, 3].into())].into();
    group.members[2].2 = [(id(1), [4, 5, 6].into())].into();
    let before: Vec<Assignment> = group.members.iter().map(|(_, _, target)| target.clone()).collect();
    let after = group.assign("uniform");
    assert_eq!(after.into_values().collect::<Vec<_>>(), before);
}

#[test]
fn uniform_gives_partitions_to_members_in_their_rack_first() {
    let mut group = Group::new(&[(1, 4)]).member("a", &[1]).member("b", &[1]);
    group.topics.get_mut(&id(1)).unwrap().1 = ["x", "y", "x", "y"].map(|rack| vec![Arc::from(rack)]).into();
    group.racks = [(Str::from("a"), "y".to_string()), (Str::from("b"), "x".to_string())].into();
    let targets = group.assign("uniform");
    assert_eq!((numbers(&targets["a"], 1), numbers(&targets["b"], 1)), (vec![1, 3], vec![0, 2]));
}

#[test]
fn uniform_evens_out_members_with_different_subscriptions() {
    // Only `a` subscribes to topic 1, so `b` takes all of topic 2.
    let mut group = Group::new(&[(1, 4), (2, 4)]).member("a", &[1, 2]).member("b", &[2]);
    let targets = group.assign("uniform");
    group.check(&targets);
    assert_eq!(Group::sizes(&targets), [4, 4]);
}

prop_compose! {
    fn groups()(
        partition_counts in proptest::collection::vec(0..9i32, 1..5),
        subscriptions in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 4), 1..7),
        is_alike in any::<bool>(),
    ) -> Group {
        let topics: Vec<(u128, i32)> = (1..).zip(&partition_counts).map(|(number, count)| (number, *count)).collect();
        let mut group = Group::new(&topics);
        for (index, chosen) in subscriptions.iter().enumerate() {
            let chosen = if is_alike { &subscriptions[0] } else { chosen };
            let topics: Vec<u128> = topics.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|((number, _), _)| *number).collect();
            group = group.member(&format!("member-{index}"), &topics);
        }
        group
    }
}

proptest! {
    #[test]
    fn every_partition_has_one_owner_whoever_comes_and_goes(mut group in groups(), leaving in 0..7usize, growth in 0..4i32, name in prop_oneof![Just("uniform"), Just("range")]) {
        let targets = group.assign(name);
        group.check(&targets);
        let again = group.assign(name);
        prop_assert_eq!(&again, &targets, "what is even stays as it is");

        if group.members.len() > 1 {
            let leaving = leaving % group.members.len();
            group.members.remove(leaving);
        }
        group.topics.values_mut().for_each(|(partition_count, _)| *partition_count += growth);
        let targets = group.assign(name);
        group.check(&targets);
        let is_alike = group.members.windows(2).all(|pair| pair[0].1 == pair[1].1);
        if name == "uniform" && is_alike {
            let sizes = Group::sizes(&targets);
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }
}
