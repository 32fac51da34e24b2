//! What ConsumerGroupDescribe and ListGroups tell about a consumer group.

use super::ConsumerGroup;
use super::member::{Assigned, Member};
use crate::cluster::Image;
use crate::group::GroupType;
use crate::group::classic::CONSUMER_PROTOCOL_TYPE;
use crate::wire::Str;
use crate::wire::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions};
use crate::wire::messages::list_groups_response::ListedGroup;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Which protocol a member speaks, in ConsumerGroupDescribe.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerGroup {
    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: Str::from_static(CONSUMER_PROTOCOL_TYPE),
            group_state: Str::from_static(self.state().name()),
            group_type: Str::from_static(GroupType::Consumer.name()),
            ..Default::default()
        }
    }

    pub(crate) fn describe(&self, image: &Image, default_assignor: &str) -> DescribedGroup {
        let assignor = self.preferred_assignor(None, None);
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from_static(self.state().name()),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: assignor.unwrap_or_else(|| Str::from(default_assignor)),
            members: self.members.values().map(|member| self.describe_member(member, image)).collect(),
            ..Default::default()
        }
    }

    fn describe_member(&self, member: &Member, image: &Image) -> DescribedMember {
        // It answers for what it is still giving up, too.
        let mut has: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        let mut add = |assigned: &Assigned| {
            for (topic_id, partitions) in assigned {
                has.entry(*topic_id).or_default().extend(partitions.keys());
            }
        };
        add(&member.assigned);
        add(&member.revoking);
        let target = self.targets.get(&member.id).into_iter().flatten();
        let target = target.map(|(topic_id, partitions)| (*topic_id, partitions.iter().copied().collect()));
        DescribedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_topic_names: member.topic_names.iter().cloned().collect(),
            subscribed_topic_regex: member.topic_regex.clone(),
            assignment: named(has.into_iter(), image),
            target_assignment: named(target, image),
            member_type: if member.uses_classic_protocol() { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
            ..Default::default()
        }
    }
}

/// The topics that are there, with their names.
fn named(topics: impl Iterator<Item = (Uuid, Vec<i32>)>, image: &Image) -> Assignment {
    let topic_partitions = topics.filter_map(|(topic_id, partitions)| {
        let topic_name = Str::from(&*image.topic_by_id(&topic_id)?.name);
        Some(TopicPartitions { topic_id, topic_name, partitions, ..Default::default() })
    });
    Assignment { topic_partitions: topic_partitions.collect(), ..Default::default() }
}
