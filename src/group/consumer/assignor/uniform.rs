//! `uniform`: every member gets as many partitions as the others, give or take one, and keeps what it has as far as that allows.
//!
//! Where members say which rack they are in, what nobody keeps goes first to members in a rack that holds a replica.

use super::{MemberSpec, TopicSpec, is_homogeneous};
use crate::group::consumer::member::Assignment;
use crate::wire::Str;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use uuid::Uuid;

type TopicPartition = (Uuid, i32);

pub(super) fn assign(members: &[MemberSpec<'_>], topics: &BTreeMap<Uuid, TopicSpec>) -> BTreeMap<Str, Assignment> {
    let targets = match members {
        [] => Vec::new(),
        members if is_homogeneous(members) => assign_alike(members, topics),
        members => assign_each(members, topics),
    };
    members.iter().map(|member| member.id.clone()).zip(targets).collect()
}

/// All members subscribe to the same topics: each has a quota, keeps of its last target what fits into that, and takes from what is left over.
fn assign_alike(members: &[MemberSpec<'_>], topics: &BTreeMap<Uuid, TopicSpec>) -> Vec<Assignment> {
    let total: usize = topics.values().map(|topic| topic.partition_count as usize).sum();
    let quota = total / members.len();
    let mut extras = total % members.len();

    let mut taken: HashSet<TopicPartition, foldhash::fast::RandomState> = HashSet::default();
    let mut targets = Vec::with_capacity(members.len());
    let mut wanting = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let members_left = members.len() - index;
        let may_have_extra = extras > 0;
        let mut room = quota + usize::from(may_have_extra);
        let mut target = Assignment::new();
        for partition in kept(member, topics) {
            if room > 0 && taken.insert(partition) {
                room -= 1;
                target.entry(partition.0).or_default().insert(partition.1);
            }
        }
        // The extra one is left for a member that already has it, as long as enough members follow.
        let gives_extra_up = may_have_extra && room > 0 && members_left > extras;
        if gives_extra_up {
            room -= 1;
        } else if may_have_extra {
            extras -= 1;
        }
        if room > 0 {
            wanting.push((index, room));
        }
        targets.push(target);
    }

    let mut free: BTreeSet<TopicPartition> = all_partitions(topics).filter(|partition| !taken.contains(partition)).collect();
    hand_out_within_racks(members, topics, &mut wanting, &mut free, &mut targets);
    let mut free = free.into_iter();
    for (index, room) in wanting {
        for (topic_id, partition) in free.by_ref().take(room) {
            targets[index].entry(topic_id).or_default().insert(partition);
        }
    }
    assert!(free.next().is_none(), "the quotas add up to all partitions");
    targets
}

fn hand_out_within_racks(
    members: &[MemberSpec<'_>],
    topics: &BTreeMap<Uuid, TopicSpec>,
    wanting: &mut [(usize, usize)],
    free: &mut BTreeSet<TopicPartition>,
    targets: &mut [Assignment],
) {
    for (index, room) in wanting {
        let Some(rack) = members[*index].rack_id else { continue };
        let near: Vec<TopicPartition> =
            free.iter().filter(|(topic_id, partition)| topics[topic_id].is_in_rack(*partition, rack)).take(*room).copied().collect();
        *room -= near.len();
        for (topic_id, partition) in near {
            free.remove(&(topic_id, partition));
            targets[*index].entry(topic_id).or_default().insert(partition);
        }
    }
}

/// What the member's last target gave it and it may keep: topics that it still subscribes to, partitions that are there.
fn kept<'a>(member: &'a MemberSpec<'_>, topics: &'a BTreeMap<Uuid, TopicSpec>) -> impl Iterator<Item = TopicPartition> + 'a {
    let is_subscribed = |topic_id: &Uuid| member.topics.binary_search(topic_id).is_ok();
    member.target.iter().filter(move |(topic_id, _)| is_subscribed(topic_id)).flat_map(|(topic_id, partitions)| {
        let partition_count = topics[topic_id].partition_count;
        partitions.iter().filter(move |partition| **partition < partition_count).map(|partition| (*topic_id, *partition))
    })
}

fn all_partitions(topics: &BTreeMap<Uuid, TopicSpec>) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|(topic_id, topic)| (0..topic.partition_count).map(|partition| (*topic_id, partition)))
}

/// How often the loads are evened out at most. Each round about halves what is left of the differences.
const ROUNDS_MAX: usize = 16;

/// Members subscribe to different topics: everybody keeps what it has, what is free goes to the subscriber with the least, and then partitions move from members with more to
/// members with less until no move makes it more even.
fn assign_each(members: &[MemberSpec<'_>], topics: &BTreeMap<Uuid, TopicSpec>) -> Vec<Assignment> {
    let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        member.topics.iter().for_each(|topic_id| subscribers.entry(*topic_id).or_default().push(index));
    }
    // Topics with the most partitions for each subscriber are the hardest to place, so they come first.
    let mut in_order: Vec<Uuid> = subscribers.keys().copied().collect();
    in_order.sort_by(|one, other| {
        let load = |topic_id: &Uuid| f64::from(topics[topic_id].partition_count) / subscribers[topic_id].len() as f64;
        load(other).total_cmp(&load(one)).then_with(|| subscribers[one].len().cmp(&subscribers[other].len())).then_with(|| one.cmp(other))
    });

    let mut owners: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    let mut loads = vec![0usize; members.len()];
    for (index, member) in members.iter().enumerate() {
        for partition in kept(member, topics) {
            owners.entry(partition).or_insert_with(|| {
                loads[index] += 1;
                index
            });
        }
    }
    for topic_id in &in_order {
        place_free(*topic_id, members, &topics[topic_id], &subscribers[topic_id], &mut owners, &mut loads);
    }
    for _ in 0..ROUNDS_MAX {
        let moves = in_order.iter().map(|topic_id| even_out(*topic_id, &subscribers[topic_id], &mut owners, &mut loads));
        if moves.sum::<usize>() == 0 {
            break;
        }
    }

    let mut targets = vec![Assignment::new(); members.len()];
    for ((topic_id, partition), index) in owners {
        targets[index].entry(topic_id).or_default().insert(partition);
    }
    targets
}

/// Gives what nobody has of a topic to its subscribers with the least.
fn place_free(
    topic_id: Uuid,
    members: &[MemberSpec<'_>],
    topic: &TopicSpec,
    subscribers: &[usize],
    owners: &mut BTreeMap<TopicPartition, usize>,
    loads: &mut [usize],
) {
    let mut by_load: BTreeSet<(usize, usize)> = subscribers.iter().map(|index| (loads[*index], *index)).collect();
    for partition in (0..topic.partition_count).filter(|partition| !owners.contains_key(&(topic_id, *partition))).collect::<Vec<_>>() {
        let (least, first) = *by_load.first().expect("a topic has subscribers");
        let is_near = |(_, index): &&(usize, usize)| members[*index].rack_id.is_some_and(|rack| topic.is_in_rack(partition, rack));
        let index = by_load.range(..(least + 1, 0)).find(is_near).map_or(first, |(_, index)| *index);
        by_load.remove(&(loads[index], index));
        loads[index] += 1;
        by_load.insert((loads[index], index));
        owners.insert((topic_id, partition), index);
    }
}

/// Moves partitions of a topic from its subscribers with more to those with less, as long as that evens their loads out. Gives the number of moves.
fn even_out(topic_id: Uuid, subscribers: &[usize], owners: &mut BTreeMap<TopicPartition, usize>, loads: &mut [usize]) -> usize {
    let mut partitions_of: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
    for ((_, partition), index) in owners.range((topic_id, 0)..=(topic_id, i32::MAX)) {
        partitions_of.entry(*index).or_default().push(*partition);
    }
    let mut takers: BTreeSet<(usize, usize)> = subscribers.iter().map(|index| (loads[*index], *index)).collect();
    let mut givers: BTreeSet<(usize, Reverse<usize>)> = partitions_of.keys().map(|index| (loads[*index], Reverse(*index))).collect();
    let mut moves = 0;
    while let (Some(&(most, Reverse(from))), Some(&(least, to))) = (givers.last(), takers.first()) {
        if most <= least + 1 {
            break;
        }
        let partition = partitions_of.get_mut(&from).and_then(Vec::pop).expect("a giver has a partition of the topic");
        owners.insert((topic_id, partition), to);
        moves += 1;
        for (index, change) in [(from, -1isize), (to, 1)] {
            takers.remove(&(loads[index], index));
            givers.remove(&(loads[index], Reverse(index)));
            loads[index] = loads[index].checked_add_signed(change).expect("a giver has a load");
            takers.insert((loads[index], index));
        }
        partitions_of.entry(to).or_default().push(partition);
        for index in [from, to] {
            if partitions_of.get(&index).is_some_and(|partitions| !partitions.is_empty()) {
                givers.insert((loads[index], Reverse(index)));
            }
        }
    }
    moves
}
