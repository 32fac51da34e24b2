//! Whole groups that change their protocol while their members go on (KIP-848): up when the first member of the consumer protocol joins a classic group, down when the last one has
//! left. `group.consumer.migration.policy` says which of the two is allowed.

use super::classic::encode;
use super::member::{Assigned, ClassicSide, Member, MemberState};
use super::topic_hash::metadata_hash;
use super::{ConsumerGroup, Refusal};
use crate::cluster::Image;
use crate::group::MigrationPolicy;
use crate::group::classic::{self, CONSUMER_PROTOCOL_TYPE, ClassicGroup};
use crate::group::coordinator::Turn;
use crate::group::record::CoordinatorRecord;
use crate::group::subscription;
use crate::group::timer::{TimerKey, TimerOf};
use crate::wire::records::group_coordinator::group_metadata_value::MemberMetadata;
use crate::wire::records::{GroupMetadataKey, GroupMetadataValue};
use crate::wire::{ErrorCode, Str};
use std::collections::BTreeMap;
use uuid::Uuid;

// Up

/// The classic group as one of the consumer protocol, with the records that make it so. Each member stands with what its leader last gave it, in an epoch that is its generation; the
/// member that causes the change raises the epoch further. Who waits for a join or an assignment is told to join again.
pub(super) fn from_classic(turn: &mut Turn<'_>, group: &mut ClassicGroup) -> Result<ConsumerGroup, Refusal> {
    check_upgrade(turn, group)?;
    let generation = group.generation();
    let mut upgraded = ConsumerGroup::new(group.id());
    upgraded.epoch = generation;
    upgraded.assignment_epoch = generation;
    for member in group.members() {
        let upgraded_member = upgraded_member(turn.image, group, member)?;
        let target = upgraded_member.assigned.iter().map(|(topic_id, partitions)| (*topic_id, partitions.keys().copied().collect()));
        upgraded.put_target(&upgraded_member.id, target.collect());
        upgraded.put_member(upgraded_member);
    }
    let names = upgraded.subscribed_names([], None);
    upgraded.metadata_hash = metadata_hash(names.iter().map(|name| &**name), turn.image);

    turn.step.records.push(group.tombstone());
    turn.step.records.extend(upgraded.creation_records());
    for member in upgraded.members() {
        let session_timeout_ms = member.classic.as_ref().map_or(0, |classic| classic.session_timeout_ms);
        upgraded.arm(turn, TimerOf::MemberSession(member.id.clone()), session_timeout_ms);
    }
    group.dismiss(turn, ErrorCode::RebalanceInProgress);
    tracing::info!(group = %upgraded.id, epoch = generation, members = upgraded.members.len(), "a classic group becomes a consumer group");
    Ok(upgraded)
}

fn check_upgrade(turn: &Turn<'_>, group: &ClassicGroup) -> Result<(), Refusal> {
    let why = if !turn.config.migration_policy.allows_upgrade() {
        "online upgrade is disabled"
    } else if !group.uses_consumer_protocol() {
        "the group does not use the consumer embedded protocol"
    } else if group.members().count() > turn.config.consumer_max_size {
        "the group size exceeds the consumer group maximum size"
    } else {
        return Ok(());
    };
    Err(cannot_upgrade(group.id(), why))
}

fn cannot_upgrade(group_id: &str, why: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Cannot upgrade classic group {group_id} to consumer group because {why}."))
}

fn upgraded_member(image: &Image, group: &ClassicGroup, member: &classic::Member) -> Result<Member, Refusal> {
    const MALFORMED: &str = "the embedded consumer protocol is malformed";
    let refuse = |why| cannot_upgrade(group.id(), why);
    // Before the first generation there is no protocol that all agreed on; every one has a subscription.
    let chosen = member.protocols.iter().find(|protocol| Some(&protocol.name) == group.protocol()).or(member.protocols.first());
    let said = chosen.and_then(|protocol| subscription::subscription(&protocol.metadata));
    let (_, said) = said.ok_or_else(|| refuse(MALFORMED))?;
    let generation = group.generation();
    let mut assigned = Assigned::new();
    if !member.assignment.is_empty() {
        let given = subscription::assignment(&member.assignment).ok_or_else(|| refuse(MALFORMED))?;
        if given.user_data.as_ref().is_some_and(|data| !data.is_empty()) {
            return Err(refuse("an unsupported custom assignor is in use"));
        }
        for topic in &given.assigned_partitions {
            if let Some(known) = image.topic(&topic.topic) {
                assigned.entry(known.id).or_default().extend(topic.partitions.iter().map(|partition| (*partition, generation)));
            }
        }
    }
    Ok(Member {
        instance_id: member.instance_id.clone(),
        rack_id: said.rack_id.as_ref().filter(|rack| !rack.is_empty()).map(Str::detached),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        topic_names: said.topics.iter().map(Str::detached).collect(),
        classic: Some(ClassicSide { session_timeout_ms: member.session_timeout_ms, protocols: member.protocols.clone() }),
        epoch: generation,
        previous_epoch: generation,
        state: MemberState::Stable,
        assigned,
        ..Member::new(&member.id)
    })
}

impl ConsumerGroup {
    /// Everything about the group, in Kafka's order: no record refers to one that comes later.
    fn creation_records(&self) -> Vec<CoordinatorRecord> {
        let mut records: Vec<_> = self.members.values().map(|member| member.metadata_record(&self.id)).collect();
        records.push(self.epoch_record(self.epoch, self.metadata_hash));
        records.extend(self.targets.iter().map(|(member_id, target)| self.target_record(member_id, target)));
        records.push(self.target_epoch_record(self.assignment_epoch, self.assigned_at_ms));
        records.extend(self.members.values().map(|member| member.assignment_record(&self.id)));
        records
    }

    // Down

    /// Whether the group becomes a classic one when these members leave.
    pub(super) fn may_become_classic(&self, turn: &Turn<'_>, leaving: &[Str]) -> bool {
        let leaving_classic = leaving.iter().filter(|member_id| self.members[*member_id].uses_classic_protocol()).count();
        let remaining = self.members.len() - leaving.len();
        remaining > 0 && self.classic_members - leaving_classic == remaining && Self::allows_downgrade(turn, remaining)
    }

    /// Whether the group becomes a classic one when this static member comes back as a classic one.
    pub(super) fn may_become_classic_with(&self, turn: &Turn<'_>, replaced: &Member) -> bool {
        let is_the_last = !replaced.uses_classic_protocol() && self.classic_members == self.members.len() - 1;
        is_the_last && Self::allows_downgrade(turn, self.members.len())
    }

    fn allows_downgrade(turn: &Turn<'_>, members: usize) -> bool {
        turn.config.migration_policy.allows_downgrade() && members <= turn.config.max_size
    }

    /// Records the group as a classic one: its members with their targets as the last generation's assignments. `joining` has been recorded in the place of its old self.
    pub(super) fn become_classic(&self, turn: &mut Turn<'_>, leaving: &[Str], joining: Option<&Member>, rebalances: bool) {
        let replaced = joining.and_then(|joining| joining.instance_id.as_deref()).and_then(|instance_id| self.static_member(instance_id));
        let old_id = replaced.map(|replaced| &replaced.id);
        let is_replaced = |member_id: &Str| Some(member_id) == old_id;
        let recorded_id = |member_id: &Str| match joining {
            Some(joining) if is_replaced(member_id) => joining.id.clone(),
            _ => member_id.clone(),
        };
        let recorded_ids: Vec<Str> = self.members.keys().map(recorded_id).collect();
        turn.step.records.extend(self.tombstones(&recorded_ids));

        let staying = self.members.values().filter(|member| !leaving.contains(&member.id) && !is_replaced(&member.id));
        let members: BTreeMap<&Str, &Member> = staying.chain(joining).map(|member| (&member.id, member)).collect();
        let protocol = common_protocol(&members);
        let recorded = members.values().map(|member| {
            let classic = member.classic.as_ref().expect("only classic members are left");
            let subscription = classic.protocols.iter().find(|offered| offered.name == protocol);
            let target = self.target_of(&member.id, member.instance_id.as_deref());
            let topics: BTreeMap<Uuid, Vec<i32>> =
                target.into_iter().map(|(topic_id, partitions)| (topic_id, partitions.into_iter().collect())).collect();
            MemberMetadata {
                member_id: member.id.clone(),
                group_instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: member.rebalance_timeout_ms,
                session_timeout: classic.session_timeout_ms,
                subscription: subscription.map(|offered| offered.metadata.clone()).unwrap_or_default(),
                assignment: encode(classic, topics, turn.image),
                ..Default::default()
            }
        });
        let value = GroupMetadataValue {
            protocol_type: Str::from_static(CONSUMER_PROTOCOL_TYPE),
            generation: self.epoch,
            protocol: Some(protocol.clone()),
            leader: members.keys().next().map(|member_id| (*member_id).clone()),
            current_state_timestamp: turn.now.wall_ms,
            members: recorded.collect(),
            ..Default::default()
        };
        let key = GroupMetadataKey { group: self.id.clone(), ..Default::default() };
        turn.step.records.push(CoordinatorRecord::GroupMetadata { key, value: Some(value) });
        // Once that is replayed, there is a classic group whose sessions begin.
        turn.arm_kept(TimerKey { group_id: self.id.clone(), of: TimerOf::Converted { rebalances } }, 0);
        tracing::info!(group = %self.id, members = members.len(), "a consumer group becomes a classic group");
    }
}

/// The protocol that most members prefer among those that all know.
fn common_protocol(members: &BTreeMap<&Str, &Member>) -> Str {
    let offers = || members.values().filter_map(|member| member.classic.as_ref());
    let is_common = |name: &Str| offers().all(|classic| classic.protocols.iter().any(|protocol| protocol.name == *name));
    let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
    for classic in offers() {
        if let Some(vote) = classic.protocols.iter().find(|protocol| is_common(&protocol.name)) {
            *votes.entry(&vote.name).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.clone()).unwrap_or_default()
}

impl MigrationPolicy {
    pub(crate) fn allows_upgrade(self) -> bool {
        matches!(self, MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional)
    }

    pub(crate) fn allows_downgrade(self) -> bool {
        matches!(self, MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional)
    }
}
