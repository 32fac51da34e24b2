//! When a group is assigned anew, and what comes out: the group epoch, the metadata hash, the target assignment.

use super::assignor::{self, MemberSpec, TopicSpec};
use super::member::{Assignment, Member};
use super::topic_hash::metadata_hash;
use super::{ConsumerGroup, count, discount};
use crate::cluster::Image;
use crate::group::coordinator::Turn;
use crate::wire::Str;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A member as it is and as it is to become; both are `None` when nobody in particular changes.
#[derive(Clone, Copy, Default)]
pub(super) struct Change<'a> {
    pub(super) before: Option<&'a Member>,
    pub(super) after: Option<&'a Member>,
}

impl ConsumerGroup {
    /// The topics subscribed to without some members and with one more, by name or by a regular expression that is resolved.
    pub(super) fn subscribed_names<'a>(&self, without: impl IntoIterator<Item = &'a Member>, with: Option<&Member>) -> BTreeSet<Str> {
        let mut named = self.named_topics.clone();
        let mut regexes = self.regex_subscribers.clone();
        for before in without {
            before.topic_names.iter().for_each(|name| discount(&mut named, name));
            before.regex().into_iter().for_each(|regex| discount(&mut regexes, regex));
        }
        if let Some(after) = with {
            after.topic_names.iter().for_each(|name| count(&mut named, name));
            after.regex().into_iter().for_each(|regex| count(&mut regexes, regex));
        }
        let mut names: BTreeSet<Str> = named.into_keys().collect();
        let resolved = self.regexes.iter().filter(|(regex, _)| regexes.contains_key(*regex));
        names.extend(resolved.flat_map(|(_, resolved)| resolved.topics.iter().cloned()));
        names
    }

    /// Whether the topics may have changed since the group looked at them last.
    pub(super) fn is_metadata_due(&self, turn: &Turn<'_>) -> bool {
        // A hash of an epoch that was never recorded counts for nothing.
        !self.hashed.get().is_some_and(|(version, epoch)| version == turn.topics_version && epoch <= self.epoch)
    }

    /// Raises the group epoch if it has to rise, or if the topics that are subscribed to have changed. Gives the epoch after.
    pub(super) fn refresh_epoch(&self, turn: &mut Turn<'_>, change: Change<'_>, has_to_rise: bool) -> i32 {
        let names = self.subscribed_names(change.before, change.after);
        // A look at every partition is only for topics that are not those of before.
        let is_reckoned = !self.is_metadata_due(turn) && names == self.subscribed_names([], None);
        let hash = if is_reckoned { self.metadata_hash } else { metadata_hash(names.iter().map(|name| &**name), turn.image) };
        let rises = has_to_rise || hash != self.metadata_hash;
        let epoch = if rises { self.epoch + 1 } else { self.epoch };
        if rises {
            turn.step.records.push(self.epoch_record(epoch, hash));
            tracing::debug!(group = %self.id, epoch, "the epoch of a consumer group rises");
        }
        self.hashed.set(Some((turn.topics_version, epoch)));
        if self.has_partition_metadata {
            turn.step.records.push(self.partition_metadata_tombstone());
        }
        epoch
    }

    /// The target for this member once the change is made: a new one if the group's epoch calls for it and the last one is old enough, else the last one.
    pub(super) fn target_for(&self, turn: &mut Turn<'_>, epoch: i32, change: Change<'_>) -> (i32, Assignment) {
        let member = change.after.expect("a target is looked up for a member");
        let is_rested = self.assigned_at_ms == 0 || {
            let interval_ms = i64::from(turn.assignment_interval_ms(&self.id));
            interval_ms == 0 || turn.now.wall_ms >= self.assigned_at_ms.saturating_add(interval_ms)
        };
        if self.assignment_epoch >= epoch || !is_rested {
            return (self.assignment_epoch, self.target_of(&member.id, member.instance_id.as_deref()));
        }
        (epoch, self.assign(turn, epoch, change, &member.id))
    }

    /// Assigns everybody anew, and records what is not as it was. Gives the target of one of them.
    fn assign(&self, turn: &mut Turn<'_>, epoch: i32, change: Change<'_>, member_id: &Str) -> Assignment {
        let name = self.preferred_assignor(change.before, change.after);
        let name = name.as_deref().unwrap_or_else(|| turn.config.default_assignor());
        let members = self.members_after(change);
        let (specs, recorded) = self.specs(&members, turn.image);
        let targets = assignor::assign(name, &specs, &topics_of(&specs, turn.image));
        for ((member, recorded), target) in members.iter().zip(recorded).zip(&targets) {
            let stands = recorded.is_some_and(|recorded| std::ptr::eq(recorded, &**target) || *recorded == **target);
            if !stands {
                turn.step.records.push(self.target_record(&member.id, target));
            }
        }
        turn.step.records.push(self.target_epoch_record(epoch, turn.now.wall_ms));
        tracing::debug!(group = %self.id, epoch, assignor = name, members = members.len(), "assigned a consumer group anew");
        let place = members.iter().position(|member| member.id == *member_id);
        place.map(|place| targets[place].clone().into_owned()).unwrap_or_default()
    }

    /// The members once the change is made, in the order of their ids. A static member's new self stands in the place of its old one.
    fn members_after<'a>(&'a self, change: Change<'a>) -> Vec<&'a Member> {
        let Some(after) = change.after else { return self.members.values().collect() };
        let replaced = after.instance_id.as_deref().and_then(|instance_id| self.static_member(instance_id)).map(|replaced| &replaced.id);
        let stays = |member: &&Member| member.id != after.id && Some(&member.id) != replaced;
        let mut members: Vec<&Member> = self.members.values().filter(stays).collect();
        members.insert(members.partition_point(|member| member.id < after.id), after);
        members
    }

    /// What an assignor has to know of each member; and what is recorded as its target, if anything is.
    fn specs<'a>(&'a self, members: &[&'a Member], image: &Image) -> (Vec<MemberSpec<'a>>, Vec<Option<&'a Assignment>>) {
        let none: &'static Assignment = const { &Assignment::new() };
        let mut specs: Vec<MemberSpec<'a>> = Vec::with_capacity(members.len());
        let mut all_recorded = Vec::with_capacity(members.len());
        // Both are in the order of the members' ids.
        let mut targets = self.targets.iter().peekable();
        let mut last: Option<(&Member, std::rc::Rc<[Uuid]>)> = None;
        for member in members {
            // Most members subscribe to what the one before does; the lists are looked up once then.
            let topics = match &last {
                Some((other, topics)) if other.topic_names == member.topic_names && other.regex() == member.regex() => topics.clone(),
                _ => self.subscribed_topic_ids(member, image).into_iter().collect(),
            };
            last = Some((member, topics.clone()));
            while targets.next_if(|(member_id, _)| **member_id < member.id).is_some() {}
            let recorded = targets.next_if(|(member_id, _)| **member_id == member.id).map(|(_, target)| target);
            let former = member.instance_id.as_deref().and_then(|instance_id| self.static_member(instance_id));
            let target = match former {
                Some(former) if former.id != member.id => self.targets.get(&former.id),
                _ => recorded,
            };
            specs.push(MemberSpec {
                id: &member.id,
                instance_id: member.instance_id.as_ref(),
                rack_id: member.rack_id.as_deref(),
                topics,
                target: target.unwrap_or(none),
            });
            all_recorded.push(recorded);
        }
        (specs, all_recorded)
    }
}

fn topics_of(specs: &[MemberSpec<'_>], image: &Image) -> BTreeMap<Uuid, TopicSpec> {
    let has_racks = specs.iter().any(|member| member.rack_id.is_some());
    let mut topics = BTreeMap::new();
    for topic_id in specs.iter().flat_map(|member| member.topics.iter()) {
        topics.entry(*topic_id).or_insert_with(|| {
            let topic = image.topic_by_id(topic_id).expect("only topics that are there are subscribed to");
            let racks_of = |replicas: &[i32]| replicas.iter().filter_map(|id| image.broker(*id)?.rack.clone()).collect();
            let racks =
                if has_racks { topic.partitions.iter().map(|partition| racks_of(&partition.replicas)).collect() } else { Vec::new() };
            TopicSpec { partition_count: topic.partition_count(), racks }
        });
    }
    topics
}
