//! One step of a member towards its target assignment (KIP-848).
//!
//! What the member has and is not to have, it gives up first, in its present epoch. Then it moves to the target's epoch with what nobody else holds; what others still hold comes to
//! it as they give it up. A partition so has one owner at any time: it is handed out only when no member's record holds it.

use super::ConsumerGroup;
use super::member::{Assigned, Assignment, Member, MemberState};
use super::refusal::Refusal;
use crate::cluster::Image;
use crate::wire::ErrorCode;
use crate::wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use std::collections::BTreeSet;
use uuid::Uuid;

/// What the step rests on.
pub(super) struct Reconciliation<'a> {
    pub(super) group: &'a ConsumerGroup,
    pub(super) image: &'a Image,
    pub(super) target_epoch: i32,
    pub(super) target: &'a Assignment,
    /// The member changed what it subscribes to: what it does not subscribe to any more goes at once.
    pub(super) subscription_changed: bool,
    /// What the member says it has; `None` when it says nothing about it.
    pub(super) owned: Option<&'a [TopicPartitions]>,
}

impl Reconciliation<'_> {
    /// The member after the step, which may be the member as it is.
    pub(super) fn step(&self, member: &Member) -> Result<Member, Refusal> {
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => Ok(self.next(member, member.epoch)),
            MemberState::Stable if self.subscription_changed => Ok(self.shed_unsubscribed(member)),
            MemberState::Stable => Ok(member.clone()),
            MemberState::UnrevokedPartitions if !self.still_owns(&member.revoking) => Ok(self.next(member, member.epoch)),
            MemberState::UnrevokedPartitions if self.subscription_changed => Ok(self.shed_unsubscribed(member)),
            MemberState::UnrevokedPartitions => Ok(member.clone()),
            MemberState::UnreleasedPartitions => Ok(self.next(member, member.epoch)),
            // A newer broker was here. From a member without partitions everything can begin again.
            MemberState::Unknown if self.owned.is_some_and(<[TopicPartitions]>::is_empty) => Ok(self.next(member, self.target_epoch)),
            MemberState::Unknown => Err(Refusal::new(
                ErrorCode::FencedMemberEpoch,
                "The consumer group member is in a unknown state. The member must abandon all its partitions and rejoin.",
            )),
        }
    }

    /// Whether the member says that it has one of these, or says nothing.
    fn still_owns(&self, partitions: &Assigned) -> bool {
        let Some(owned) = self.owned else { return true };
        let is_owned = |topic: &TopicPartitions| {
            let of_topic = partitions.get(&topic.topic_id);
            of_topic.is_some_and(|of_topic| topic.partitions.iter().any(|partition| of_topic.contains_key(partition)))
        };
        owned.iter().any(is_owned)
    }

    /// Takes away what the member does not subscribe to any more; the rest waits for the next target.
    fn shed_unsubscribed(&self, member: &Member) -> Member {
        let subscribed = self.group.subscribed_topic_ids(member, self.image);
        let shed: Vec<Uuid> = member.assigned.keys().filter(|topic_id| !subscribed.contains(topic_id)).copied().collect();
        if shed.is_empty() {
            return member.clone();
        }
        let mut next = Member { previous_epoch: member.epoch, ..member.clone() };
        let mut revoking = member.revoking.clone();
        for topic_id in shed {
            let partitions = next.assigned.remove(&topic_id).expect("it was just found there");
            revoking.entry(topic_id).or_default().extend(partitions);
        }
        if self.still_owns(&revoking) {
            next.state = MemberState::UnrevokedPartitions;
            next.revoking = revoking;
        }
        next
    }

    /// The step towards the target itself, from `epoch`.
    fn next(&self, member: &Member, epoch: i32) -> Member {
        let subscribed = self.group.subscribed_topic_ids(member, self.image);
        let none = BTreeSet::new();
        let mut kept = Assigned::new();
        let mut revoking = Assigned::new();
        let mut is_waiting = false;
        let mut free: Vec<(Uuid, i32)> = Vec::new();

        let topic_ids: BTreeSet<&Uuid> = self.target.keys().chain(member.assigned.keys()).collect();
        for topic_id in topic_ids {
            let target = self.target.get(topic_id).filter(|_| subscribed.contains(topic_id)).unwrap_or(&none);
            let has = member.assigned.get(topic_id);
            for (partition, since) in has.into_iter().flatten() {
                let side = if target.contains(partition) { &mut kept } else { &mut revoking };
                side.entry(*topic_id).or_default().insert(*partition, *since);
            }
            for partition in target.iter().filter(|partition| !has.is_some_and(|has| has.contains_key(partition))) {
                // What the member itself was giving up is as good as free.
                let is_free = self.group.holder(topic_id, *partition).is_none() || is_in(&member.revoking, topic_id, *partition);
                if is_free {
                    free.push((*topic_id, *partition));
                } else {
                    is_waiting = true;
                }
            }
        }

        if !revoking.is_empty() && self.still_owns(&revoking) {
            return Member {
                state: MemberState::UnrevokedPartitions,
                previous_epoch: member.epoch,
                epoch,
                assigned: kept,
                revoking,
                ..member.clone()
            };
        }
        for (topic_id, partition) in free {
            kept.entry(topic_id).or_default().insert(partition, self.target_epoch);
        }
        Member {
            state: if is_waiting { MemberState::UnreleasedPartitions } else { MemberState::Stable },
            previous_epoch: member.epoch,
            epoch: self.target_epoch,
            assigned: kept,
            revoking: Assigned::new(),
            ..member.clone()
        }
    }
}

fn is_in(assigned: &Assigned, topic_id: &Uuid, partition: i32) -> bool {
    assigned.get(topic_id).is_some_and(|partitions| partitions.contains_key(&partition))
}
