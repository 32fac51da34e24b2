//! `range`: of each topic, every subscriber gets a run of neighbouring partitions, in the order of the members.
//!
//! When topics have as many partitions as each other and all members subscribe to all of them, a member has the same numbers of each: what a join of two topics asks for. Static
//! members come first, by their instance ids, so that they keep their runs when they come back under new ids.

use super::{MemberSpec, TopicSpec};
use crate::group::consumer::member::Assignment;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How far a topic has been dealt out.
struct Deal {
    next: i32,
    quota: i32,
    /// So many members get one more.
    extra: i32,
}

pub(super) fn assign(members: &[MemberSpec<'_>], topics: &BTreeMap<Uuid, TopicSpec>) -> Vec<Assignment> {
    let mut in_order: Vec<(usize, &MemberSpec<'_>)> = members.iter().enumerate().collect();
    in_order.sort_by_key(|(_, member)| (member.instance_id.is_none(), member.instance_id, member.id));

    let mut subscribers: BTreeMap<Uuid, i32> = BTreeMap::new();
    for topic_id in members.iter().flat_map(|member| member.topics.iter()) {
        *subscribers.entry(*topic_id).or_default() += 1;
    }
    let deal = |(topic_id, members): (Uuid, i32)| {
        let partitions = topics[&topic_id].partition_count;
        (topic_id, Deal { next: 0, quota: partitions / members, extra: partitions % members })
    };
    let mut deals: BTreeMap<Uuid, Deal> = subscribers.into_iter().map(deal).collect();

    let mut targets = vec![Assignment::new(); members.len()];
    for (place, member) in in_order {
        for topic_id in member.topics.iter() {
            let deal = deals.get_mut(topic_id).expect("every topic subscribed to is dealt out");
            let count = deal.quota + i32::from(deal.extra > 0);
            deal.extra = (deal.extra - 1).max(0);
            if count > 0 {
                targets[place].insert(*topic_id, (deal.next..deal.next + count).collect());
                deal.next += count;
            }
        }
    }
    targets
}
