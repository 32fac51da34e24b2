//! `uniform`: every member gets as many partitions as the others, give or take one, and keeps what it has as far as that allows.
//!
//! Where members say which rack they are in, what nobody keeps goes first to members in a rack that holds a replica.

use super::{MemberSpec, TopicSpec, is_homogeneous};
use crate::group::consumer::member::Assignment;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

type TopicPartition = (Uuid, i32);

pub(super) fn assign<'a>(members: &[MemberSpec<'a>], topics: &BTreeMap<Uuid, TopicSpec>) -> Vec<Cow<'a, Assignment>> {
    match members {
        [] => Vec::new(),
        members if is_homogeneous(members) => assign_alike(members, topics),
        members => assign_each(members, topics).into_iter().map(Cow::Owned).collect(),
    }
}

/// All members subscribe to the same topics: each has a quota, keeps of its last target what fits into that, and takes from what is left over.
fn assign_alike<'a>(members: &[MemberSpec<'a>], topics: &BTreeMap<Uuid, TopicSpec>) -> Vec<Cow<'a, Assignment>> {
    let total: usize = topics.values().map(|topic| topic.partition_count as usize).sum();
    let quota = total / members.len();
    let mut extras = total % members.len();

    let mut taken = Taken::none_of(topics);
    let mut targets = Vec::with_capacity(members.len());
    let mut wanting = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let members_left = members.len() - index;
        let may_have_extra = extras > 0;
        let allowed = quota + usize::from(may_have_extra);
        let (target, count) = taken.keep(member, allowed);
        let mut room = allowed - count;
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

    let mut free: Vec<TopicPartition> = taken.left_over();
    if wanting.iter().any(|(index, _)| members[*index].rack_id.is_some()) {
        let mut left: BTreeSet<TopicPartition> = free.into_iter().collect();
        hand_out_within_racks(members, topics, &mut wanting, &mut left, &mut targets);
        free = left.into_iter().collect();
    }
    let mut free = free.into_iter();
    for (index, room) in wanting {
        for (topic_id, partition) in free.by_ref().take(room) {
            targets[index].to_mut().entry(topic_id).or_default().insert(partition);
        }
    }
    assert!(free.next().is_none(), "the quotas add up to all partitions");
    targets
}

/// Which partitions somebody has already.
struct Taken(BTreeMap<Uuid, Vec<bool>>);

impl Taken {
    fn none_of(topics: &BTreeMap<Uuid, TopicSpec>) -> Taken {
        Taken(topics.iter().map(|(topic_id, topic)| (*topic_id, vec![false; topic.partition_count as usize])).collect())
    }

    /// Takes of the member's last target what it may keep, at most so many; gives that and its number. Most members keep all that they have, and then nothing is copied.
    fn keep<'a>(&mut self, member: &MemberSpec<'a>, allowed: usize) -> (Cow<'a, Assignment>, usize) {
        let mut count = 0;
        let mut lost: Vec<TopicPartition> = Vec::new();
        for (topic_id, partitions) in member.target {
            let mut of_topic = self.0.get_mut(topic_id);
            for partition in partitions {
                match of_topic.as_deref_mut().and_then(|taken| taken.get_mut(*partition as usize)) {
                    Some(is_taken) if !*is_taken && count < allowed => {
                        *is_taken = true;
                        count += 1;
                    }
                    _ => lost.push((*topic_id, *partition)),
                }
            }
        }
        if lost.is_empty() {
            return (Cow::Borrowed(member.target), count);
        }
        let mut kept = member.target.clone();
        for (topic_id, partition) in lost {
            let of_topic = kept.get_mut(&topic_id).expect("it was just found there");
            of_topic.remove(&partition);
            if of_topic.is_empty() {
                kept.remove(&topic_id);
            }
        }
        (Cow::Owned(kept), count)
    }

    fn left_over(&self) -> Vec<TopicPartition> {
        let of_topic = |(topic_id, taken): (&Uuid, &Vec<bool>)| {
            let topic_id = *topic_id;
            let free = (0i32..).zip(taken).filter(|(_, is_taken)| !**is_taken);
            free.map(move |(partition, _)| (topic_id, partition)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_topic).collect()
    }
}

fn hand_out_within_racks(
    members: &[MemberSpec<'_>],
    topics: &BTreeMap<Uuid, TopicSpec>,
    wanting: &mut [(usize, usize)],
    free: &mut BTreeSet<TopicPartition>,
    targets: &mut [Cow<'_, Assignment>],
) {
    for (index, room) in wanting {
        let Some(rack) = members[*index].rack_id else { continue };
        let near: Vec<TopicPartition> =
            free.iter().filter(|(topic_id, partition)| topics[topic_id].is_in_rack(*partition, rack)).take(*room).copied().collect();
        *room -= near.len();
        for (topic_id, partition) in near {
            free.remove(&(topic_id, partition));
            targets[*index].to_mut().entry(topic_id).or_default().insert(partition);
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
