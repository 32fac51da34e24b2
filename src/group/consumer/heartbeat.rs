//! ConsumerGroupHeartbeat: how members join, say what changed, and hear what they are to have.

use super::member::{LEFT_EPOCH, LEFT_FOR_A_WHILE_EPOCH, Member, MemberState};
use super::reconcile::Reconciliation;
use super::target::Change;
use super::{ConsumerGroup, Refusal};
use crate::group::GroupConfig;
use crate::group::call::Caller;
use crate::group::coordinator::Turn;
use crate::group::timer::TimerOf;
use crate::wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use crate::wire::messages::consumer_group_heartbeat_response::{Assignment as AssignmentToTell, TopicPartitions as PartitionsToTell};
use crate::wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use crate::wire::{ErrorCode, Str};

/// From here on a member chooses its id itself (KIP-1082).
const OWN_MEMBER_ID_VERSION: i16 = 1;

/// What can be said about a heartbeat without knowing the group.
pub fn validate_heartbeat(request: &ConsumerGroupHeartbeatRequest, version: i16, config: &GroupConfig) -> Result<(), (ErrorCode, Str)> {
    let invalid = |message: &'static str| Err((ErrorCode::InvalidRequest, Str::from_static(message)));
    let is_empty = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    let needs_id = version >= OWN_MEMBER_ID_VERSION || request.member_epoch > 0 || request.member_epoch == LEFT_EPOCH;
    if needs_id && request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if is_empty(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if is_empty(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    match request.member_epoch {
        0 if request.rebalance_timeout_ms == -1 => return invalid("RebalanceTimeoutMs must be provided in first request."),
        0 if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) => {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        0 if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() => {
            return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.");
        }
        LEFT_FOR_A_WHILE_EPOCH if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        epoch if epoch < LEFT_FOR_A_WHILE_EPOCH => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    match &request.server_assignor {
        Some(name) if !config.consumer_assignors.iter().any(|known| **known == **name) => {
            let known = config.consumer_assignors.join(", ");
            let message = format!("ServerAssignor {name} is not supported. Supported assignors: {known}.");
            Err((ErrorCode::UnsupportedAssignor, Str::from(message)))
        }
        _ => Ok(()),
    }
}

/// A heartbeat's answer, and the regular expressions that are to be resolved for the group, if it is time for that.
pub(super) type Beat = (ConsumerGroupHeartbeatResponse, Option<Vec<Str>>);

impl ConsumerGroup {
    /// Whether a heartbeat leaves the group for good or for a while.
    pub(super) fn is_leaving(request: &ConsumerGroupHeartbeatRequest) -> bool {
        matches!(request.member_epoch, LEFT_EPOCH | LEFT_FOR_A_WHILE_EPOCH)
    }

    /// A heartbeat of a member that stays: three steps, each with the records that make it true. The group is raised to a new epoch if the member brings something new, or its topics
    /// have changed; a new target is made if the epoch calls for it; the member goes one step towards the target.
    pub(super) fn heartbeat(&self, turn: &mut Turn<'_>, caller: &Caller, request: &ConsumerGroupHeartbeatRequest) -> Result<Beat, Refusal> {
        let member_id = match request.member_id.is_empty() {
            true => Str::from(caller.fresh_id_text()),
            false => request.member_id.clone(),
        };
        let instance_id = request.instance_id.as_deref();
        self.check_room_for(turn, &member_id, instance_id)?;
        let before = self.member_for(turn, request, &member_id)?;
        let after = updated(&before, caller, request);

        let names_changed = self.record_subscription(turn, &before, &after);
        let regex = self.update_regex(turn, &before, &after)?;
        let change = self.change(&before, &after);
        let default = turn.config.default_assignor();
        let assignor = |name: Option<Str>| name.map_or_else(|| default.to_string(), |name| name.to_string());
        let assignor_changed =
            assignor(self.preferred_assignor(None, None)) != assignor(self.preferred_assignor(change.before, change.after));

        let has_to_rise = names_changed || regex.is_resolved_anew || assignor_changed;
        let epoch = match has_to_rise || self.is_metadata_due(turn) {
            true => self.refresh_epoch(turn, change, has_to_rise),
            false => self.epoch,
        };
        let (target_epoch, target) = self.target_for(turn, epoch, change);
        let subscription_changed = names_changed || regex.has_changed;
        let owned = request.topic_partitions.as_deref();
        let after = self.reconcile(turn, &after, target_epoch, &target, subscription_changed, owned)?;

        let session_timeout_ms = turn.session_timeout_ms(&self.id);
        self.arm(turn, TimerOf::MemberSession(after.id.detached()), session_timeout_ms);
        let says_all = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
            && owned.is_some();
        let hears_assignment = request.member_epoch == 0 || says_all || before.assigned != after.assigned;
        let response = ConsumerGroupHeartbeatResponse {
            member_id: Some(after.id.clone()),
            member_epoch: after.epoch,
            heartbeat_interval_ms: turn.heartbeat_interval_ms(&self.id),
            assignment: hears_assignment.then(|| told(&after)),
            ..Default::default()
        };
        Ok((response, regex.to_resolve))
    }

    /// The member's change against what the group has counted: a new member replaces nobody, a static one under a new id its old self.
    pub(super) fn change<'a>(&'a self, before: &'a Member, after: &'a Member) -> Change<'a> {
        let counted = match &after.instance_id {
            Some(instance_id) => self.static_member(instance_id),
            None => self.members.get(&before.id),
        };
        Change { before: counted, after: Some(after) }
    }

    /// A static member that is there already takes no new place.
    pub(super) fn check_room_for(&self, turn: &Turn<'_>, member_id: &str, instance_id: Option<&str>) -> Result<(), Refusal> {
        let is_known = self.members.contains_key(member_id) || instance_id.is_some_and(|id| self.static_members.contains_key(id));
        let max_size = turn.config.consumer_max_size;
        if is_known || self.members.len() < max_size {
            return Ok(());
        }
        let message = format!("The consumer group has reached its maximum capacity of {max_size} members.");
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
    }

    /// The member that this heartbeat is about, as it is: known, new, or a static member's old self under its new id.
    fn member_for(&self, turn: &mut Turn<'_>, request: &ConsumerGroupHeartbeatRequest, member_id: &Str) -> Result<Member, Refusal> {
        let joins = request.member_epoch == 0;
        let Some(instance_id) = &request.instance_id else {
            let member = match self.members.get(member_id) {
                Some(member) => member.clone(),
                None if joins => Member::new(member_id),
                None => return Err(self.member(member_id).expect_err("it is not there")),
            };
            check_epoch(&member, request)?;
            return Ok(member);
        };
        match self.static_member(instance_id) {
            None if joins => Ok(Member::new(member_id)),
            None => Err(unknown_instance(instance_id)),
            Some(known) if joins => {
                let is_taken = !known.uses_classic_protocol() && known.epoch != LEFT_FOR_A_WHILE_EPOCH;
                if is_taken {
                    let owner = &known.id;
                    let message = format!(
                        "Static member {member_id} with instance id {instance_id} cannot join the group because the instance id is owned by {owner} member."
                    );
                    return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
                }
                Ok(self.replace_static_member(turn, known, member_id))
            }
            Some(known) => {
                check_instance(known, member_id, instance_id)?;
                check_epoch(known, request)?;
                Ok(known.clone())
            }
        }
    }

    /// The static member is back under a new id: it takes over everything from its old self.
    pub(super) fn replace_static_member(&self, turn: &mut Turn<'_>, known: &Member, member_id: &Str) -> Member {
        let member = Member { id: member_id.detached(), epoch: 0, previous_epoch: 0, ..known.clone() };
        let target = self.targets.get(&known.id).cloned().unwrap_or_default();
        turn.step.records.extend(self.member_tombstones(&known.id));
        turn.step.records.push(member.metadata_record(&self.id));
        turn.step.records.push(self.target_record(&member.id, &target));
        turn.step.records.push(member.assignment_record(&self.id));
        member
    }

    /// Records what is new about the member. True when it names other topics.
    pub(super) fn record_subscription(&self, turn: &mut Turn<'_>, before: &Member, after: &Member) -> bool {
        if before == after {
            return false;
        }
        turn.step.records.push(after.metadata_record(&self.id));
        before.topic_names != after.topic_names
    }

    /// One step of the member towards its target, recorded if it is one.
    pub(super) fn reconcile(
        &self,
        turn: &mut Turn<'_>,
        member: &Member,
        target_epoch: i32,
        target: &super::Assignment,
        subscription_changed: bool,
        owned: Option<&[TopicPartitions]>,
    ) -> Result<Member, Refusal> {
        if !subscription_changed && member.is_reconciled_to(target_epoch) {
            return Ok(member.clone());
        }
        let reconciliation = Reconciliation { group: self, image: turn.image, target_epoch, target, subscription_changed, owned };
        let after = reconciliation.step(member)?;
        if after == *member {
            return Ok(after);
        }
        turn.step.records.push(after.assignment_record(&self.id));
        // Classic members have other deadlines: for joining again, and for fetching what they were assigned.
        if !after.uses_classic_protocol() {
            let timer = TimerOf::MemberRebalance(after.id.clone());
            match after.state {
                MemberState::UnrevokedPartitions => self.arm(turn, timer, after.rebalance_timeout_ms),
                _ => self.disarm(turn, timer),
            }
        }
        Ok(after)
    }
}

/// The member with what the heartbeat says. What it does not say has not changed.
fn updated(before: &Member, caller: &Caller, request: &ConsumerGroupHeartbeatRequest) -> Member {
    let mut after = before.clone();
    let or_before = |said: &Option<Str>, before: &Option<Str>| said.clone().or_else(|| before.clone());
    after.instance_id = or_before(&request.instance_id, &before.instance_id);
    after.rack_id = or_before(&request.rack_id, &before.rack_id);
    after.topic_regex = or_before(&request.subscribed_topic_regex, &before.topic_regex);
    after.assignor = or_before(&request.server_assignor, &before.assignor);
    if request.rebalance_timeout_ms != -1 {
        after.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        after.topic_names = names.iter().cloned().collect();
    }
    after.client_id = caller.client_id.clone();
    after.client_host = caller.client_host.clone();
    after.classic = None;
    after
}

/// A member that speaks of an epoch which is not its own has missed something, and has to begin again. Only the epoch right before may be spoken of, by a member that did not hear of
/// the new one: it has nothing beyond what it was assigned.
fn check_epoch(member: &Member, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let said = request.member_epoch;
    let fenced = |which: &str| {
        let known = member.epoch;
        Err(Refusal::new(
            ErrorCode::FencedMemberEpoch,
            format!(
                "The consumer group member has a {which} member epoch ({said}) than the one known by the group coordinator ({known}). The member must abandon all its partitions and rejoin."
            ),
        ))
    };
    if said == 0 || said == member.epoch {
        return Ok(());
    }
    if said > member.epoch {
        return fenced("greater");
    }
    let has_only_its_own = request.topic_partitions.as_ref().is_some_and(|owned| {
        owned.iter().all(|topic| {
            let assigned = member.assigned.get(&topic.topic_id);
            assigned.is_some_and(|assigned| topic.partitions.iter().all(|partition| assigned.contains_key(partition)))
        })
    });
    if said == member.previous_epoch && has_only_its_own { Ok(()) } else { fenced("smaller") }
}

pub(super) fn unknown_instance(instance_id: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownMemberId, format!("Instance id {instance_id} is unknown."))
}

pub(super) fn check_instance(known: &Member, member_id: &str, instance_id: &str) -> Result<(), Refusal> {
    if *known.id == *member_id {
        return Ok(());
    }
    let message = format!("Static member {member_id} with instance id {instance_id} was fenced by member {}.", known.id);
    Err(Refusal::new(ErrorCode::FencedInstanceId, message))
}

fn told(member: &Member) -> AssignmentToTell {
    let topic = |(topic_id, partitions): (&uuid::Uuid, &std::collections::BTreeMap<i32, i32>)| PartitionsToTell {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        ..Default::default()
    };
    AssignmentToTell { topic_partitions: member.assigned.iter().map(topic).collect(), ..Default::default() }
}
