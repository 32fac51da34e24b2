//! Members of the classic protocol in a group of the consumer protocol, while a fleet moves from one to the other (KIP-848).
//!
//! The coordinator assigns them as all others. A heartbeat tells such a member to join again whenever there is a step for it to take; JoinGroup takes that step, SyncGroup hands out
//! the outcome. Its generation is its member epoch, and it never leads.

use super::heartbeat::{check_instance, unknown_instance};
use super::member::{Assigned, ClassicSide, Member, MemberState};
use super::{ConsumerGroup, Refusal};
use crate::cluster::Image;
use crate::group::MigrationPolicy;
use crate::group::call::{Caller, Token};
use crate::group::classic::{CONSUMER_PROTOCOL_TYPE, MEMBER_ID_REQUIRED_VERSION, Protocol};
use crate::group::coordinator::Turn;
use crate::group::subscription;
use crate::group::timer::TimerOf;
use crate::wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use crate::wire::messages::leave_group_request::MemberIdentity;
use crate::wire::messages::leave_group_response::MemberResponse;
use crate::wire::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};
use std::collections::BTreeMap;
use uuid::Uuid;

impl ConsumerGroup {
    // JoinGroup

    /// Answers at once; the answer of a join without an id may only be that id.
    pub(super) fn join_classic(
        &self,
        turn: &mut Turn<'_>,
        token: Token,
        caller: &Caller,
        request: &JoinGroupRequest,
    ) -> Result<JoinGroupResponse, Refusal> {
        if turn.config.migration_policy == MigrationPolicy::Disabled {
            return Err(inconsistent("the migration of groups is disabled"));
        }
        let is_new = request.member_id.is_empty();
        let member_id = if is_new { Str::from(caller.fresh_id_text()) } else { request.member_id.clone() };
        self.check_room_for(turn, &member_id, request.group_instance_id.as_deref())?;
        self.check_protocols(request)?;
        if is_new && request.group_instance_id.is_none() && caller.version >= MEMBER_ID_REQUIRED_VERSION {
            return Ok(JoinGroupResponse { member_id, error_code: ErrorCode::MemberIdRequired.code(), ..Default::default() });
        }
        let said = request.protocols.first().and_then(|protocol| subscription::subscription(&protocol.metadata));
        let (_, said) = said.ok_or_else(|| inconsistent("the subscription is malformed"))?;

        let before = self.classic_member_for(turn, request, &member_id, is_new)?;
        let after = updated(&before, caller, request, &said);
        let replaced = request.group_instance_id.as_deref().and_then(|instance_id| self.static_member(instance_id));
        let downgrades = replaced.is_some_and(|replaced| self.may_become_classic_with(turn, replaced));

        let names_changed = self.record_subscription(turn, &before, &after);
        let regex = self.update_regex(turn, &before, &after)?;
        let has_to_rise = names_changed || regex.has_changed;
        let change = self.change(&before, &after);
        let epoch = match has_to_rise || self.is_metadata_due(turn) {
            true => self.refresh_epoch(turn, change, has_to_rise),
            false => self.epoch,
        };
        let owned = owned_partitions(&said, turn.image);
        let after = if downgrades {
            let rebalances = self.assignment_epoch < epoch;
            let after = match rebalances {
                // Everybody will be assigned anew by their leader.
                true => after,
                false => {
                    let target = self.target_of(&after.id, after.instance_id.as_deref());
                    self.reconcile(turn, &after, self.assignment_epoch, &target, has_to_rise, Some(&owned))?
                }
            };
            self.become_classic(turn, &[], Some(&after), rebalances);
            after
        } else {
            let (target_epoch, target) = self.target_for(turn, epoch, change);
            let after = self.reconcile(turn, &after, target_epoch, &target, has_to_rise, Some(&owned))?;
            self.disarm(turn, TimerOf::MemberJoin(after.id.clone()));
            self.arm(turn, TimerOf::MemberSession(after.id.clone()), request.session_timeout_ms);
            self.arm(turn, TimerOf::MemberSync(after.id.clone()), after.rebalance_timeout_ms);
            after
        };
        tracing::debug!(group = %self.id, member = %after.id, epoch = after.epoch, token = token.0, "a classic member joined a consumer group");
        Ok(JoinGroupResponse {
            generation_id: after.epoch,
            protocol_type: Some(Str::from_static(CONSUMER_PROTOCOL_TYPE)),
            protocol_name: request.protocols.first().map(|protocol| protocol.name.clone()),
            member_id: after.id,
            ..Default::default()
        })
    }

    fn check_protocols(&self, request: &JoinGroupRequest) -> Result<(), Refusal> {
        let is_common = |name: &Str| self.classic_protocols.get(name).copied().unwrap_or(0) == self.classic_members;
        let is_supported =
            *request.protocol_type == *CONSUMER_PROTOCOL_TYPE && request.protocols.iter().any(|protocol| is_common(&protocol.name));
        if is_supported { Ok(()) } else { Err(inconsistent("the member's protocols are not supported")) }
    }

    fn classic_member_for(
        &self,
        turn: &mut Turn<'_>,
        request: &JoinGroupRequest,
        member_id: &Str,
        is_new: bool,
    ) -> Result<Member, Refusal> {
        let Some(instance_id) = &request.group_instance_id else {
            return Ok(self.members.get(member_id).cloned().unwrap_or_else(|| Member::new(member_id)));
        };
        match self.static_member(instance_id) {
            None if is_new => Ok(Member::new(member_id)),
            None => Err(unknown_instance(instance_id)),
            Some(known) if is_new => Ok(self.replace_static_member(turn, known, member_id)),
            Some(known) => check_instance(known, member_id, instance_id).map(|()| known.clone()),
        }
    }

    // SyncGroup

    pub(super) fn sync_classic(&self, turn: &mut Turn<'_>, request: &SyncGroupRequest) -> Result<SyncGroupResponse, Refusal> {
        let (member, classic) = self.classic_member(&request.member_id, request.group_instance_id.as_deref())?;
        check_generation(member, request.generation_id)?;
        let protocol_name = classic.protocols.first().map(|protocol| &protocol.name);
        let is_other_type = request.protocol_type.as_ref().is_some_and(|said| **said != *CONSUMER_PROTOCOL_TYPE);
        if is_other_type || request.protocol_name.as_ref().is_some_and(|said| Some(said) != protocol_name) {
            return Err(inconsistent("the protocol is not the one of the join"));
        }
        // Once it has begun to give partitions up, it finishes that before it joins again.
        if self.assignment_epoch > member.epoch && member.state != MemberState::UnrevokedPartitions {
            self.expect_join(turn, member);
            return Err(Refusal::new(
                ErrorCode::RebalanceInProgress,
                "A new rebalance is triggered; the member should rejoin to catch up.",
            ));
        }
        self.disarm(turn, TimerOf::MemberSync(member.id.clone()));
        self.arm(turn, TimerOf::MemberSession(member.id.clone()), classic.session_timeout_ms);
        Ok(SyncGroupResponse {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: encoded_assignment(classic, &member.assigned, turn.image),
            ..Default::default()
        })
    }

    // Heartbeat

    pub(super) fn beat_classic(&self, turn: &mut Turn<'_>, request: &HeartbeatRequest) -> Result<(), Refusal> {
        let (member, classic) = self.classic_member(&request.member_id, request.group_instance_id.as_deref())?;
        check_generation(member, request.generation_id)?;
        self.arm(turn, TimerOf::MemberSession(member.id.clone()), classic.session_timeout_ms);
        let has_a_step_to_take = member.epoch < self.assignment_epoch
            || member.state == MemberState::UnrevokedPartitions
            || (member.state == MemberState::UnreleasedPartitions && !self.waits_for_others(member));
        if has_a_step_to_take {
            self.expect_join(turn, member);
            return Err(Refusal::new(ErrorCode::RebalanceInProgress, "The member should rejoin."));
        }
        Ok(())
    }

    fn expect_join(&self, turn: &mut Turn<'_>, member: &Member) {
        let key = crate::group::timer::TimerKey { group_id: self.id.clone(), of: TimerOf::MemberJoin(member.id.clone()) };
        if !turn.timers.is_kept(&key) {
            turn.arm_kept(key, i64::from(member.rebalance_timeout_ms));
        }
    }

    /// Whether something that the member is to have is still held by others.
    fn waits_for_others(&self, member: &Member) -> bool {
        let has = |topic_id: &Uuid, partition: i32| member.assigned.get(topic_id).is_some_and(|has| has.contains_key(&partition));
        let target = self.targets.get(&member.id).into_iter().flatten();
        target
            .flat_map(|(topic_id, partitions)| partitions.iter().map(move |partition| (topic_id, *partition)))
            .any(|(topic_id, partition)| !has(topic_id, partition) && self.holder(topic_id, partition).is_some())
    }

    // LeaveGroup

    pub(super) fn leave_classic(&self, turn: &mut Turn<'_>, request: &LeaveGroupRequest) -> LeaveGroupResponse {
        let mut leaving: Vec<Str> = Vec::new();
        let mut members = Vec::with_capacity(request.members.len());
        for identity in &request.members {
            let outcome = self.identify(identity);
            members.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: outcome.as_ref().err().map_or(ErrorCode::None, |refusal| refusal.error).code(),
                ..Default::default()
            });
            if let Ok(member_id) = outcome
                && !leaving.contains(&member_id)
            {
                leaving.push(member_id);
            }
        }
        self.fence(turn, &leaving);
        LeaveGroupResponse { members, ..Default::default() }
    }

    /// The id of the member meant. An administrator names a static member by its instance alone.
    fn identify(&self, identity: &MemberIdentity) -> Result<Str, Refusal> {
        let Some(instance_id) = &identity.group_instance_id else {
            return self.member(&identity.member_id).map(|member| member.id.clone());
        };
        let member = self.static_member(instance_id).ok_or_else(|| unknown_instance(instance_id))?;
        if !identity.member_id.is_empty() {
            check_instance(member, &identity.member_id, instance_id)?;
        }
        Ok(member.id.clone())
    }

    /// The member that a request of the classic protocol speaks for.
    fn classic_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(&Member, &ClassicSide), Refusal> {
        let member = match instance_id {
            None => self.member(member_id)?,
            Some(instance_id) => {
                let member = self.static_member(instance_id).ok_or_else(|| unknown_instance(instance_id))?;
                check_instance(member, member_id, instance_id)?;
                member
            }
        };
        let classic = member
            .classic
            .as_ref()
            .ok_or_else(|| Refusal::new(ErrorCode::UnknownMemberId, format!("Member {member_id} does not use the classic protocol.")))?;
        Ok((member, classic))
    }
}

fn updated(before: &Member, caller: &Caller, request: &JoinGroupRequest, said: &ConsumerProtocolSubscription) -> Member {
    let protocol = |protocol: &crate::wire::messages::join_group_request::JoinGroupRequestProtocol| Protocol {
        name: protocol.name.clone(),
        metadata: protocol.metadata.clone(),
    };
    Member {
        instance_id: request.group_instance_id.clone().or_else(|| before.instance_id.clone()),
        rack_id: said.rack_id.clone().filter(|rack| !rack.is_empty()).or_else(|| before.rack_id.clone()),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            // JoinGroup 0 has no rebalance timeout.
            -1 if caller.version == 0 => request.session_timeout_ms,
            -1 => before.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        topic_names: said.topics.iter().cloned().collect(),
        // Its patterns are resolved by the client.
        topic_regex: Some(Str::default()),
        client_id: caller.client_id.clone(),
        client_host: caller.client_host.clone(),
        classic: Some(ClassicSide {
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols.iter().map(protocol).collect(),
        }),
        ..before.clone()
    }
}

fn check_generation(member: &Member, generation: i32) -> Result<(), Refusal> {
    if member.epoch == generation {
        return Ok(());
    }
    let message =
        format!("The request generation id {generation} is not equal to the member epoch {} of member {}.", member.epoch, member.id);
    Err(Refusal::new(ErrorCode::IllegalGeneration, message))
}

fn inconsistent(why: &str) -> Refusal {
    Refusal::new(ErrorCode::InconsistentGroupProtocol, format!("Cannot join the consumer group: {why}."))
}

/// What the member says it has, by topic id. A topic that is not there any more is nothing that it could have.
fn owned_partitions(said: &ConsumerProtocolSubscription, image: &Image) -> Vec<TopicPartitions> {
    let known = said.owned_partitions.iter().filter_map(|topic| {
        let topic_id = image.topic(&topic.topic)?.id;
        Some(TopicPartitions { topic_id, partitions: topic.partitions.clone(), ..Default::default() })
    });
    known.collect()
}

/// The member's partitions as it reads them.
pub(super) fn encoded_assignment(classic: &ClassicSide, assigned: &Assigned, image: &Image) -> bytes::Bytes {
    let topics = assigned.iter().map(|(topic_id, partitions)| (*topic_id, partitions.keys().copied().collect()));
    encode(classic, topics.collect(), image)
}

pub(super) fn encode(classic: &ClassicSide, topics: BTreeMap<Uuid, Vec<i32>>, image: &Image) -> bytes::Bytes {
    let version =
        classic.protocols.first().and_then(|protocol| subscription::subscription(&protocol.metadata)).map_or(0, |(version, _)| version);
    let named = topics.into_iter().filter_map(|(topic_id, partitions)| {
        let topic = image.topic_by_id(&topic_id)?;
        Some((Str::from(&*topic.name), partitions))
    });
    subscription::encode_assignment(version, named)
}
