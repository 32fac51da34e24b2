//! JoinGroup: who is let in, under which id, and whether that calls for a rebalance.

use super::member::Protocol;
use super::{ClassicGroup, Member, State, refused_join, session_key};
use crate::group::call::{Caller, Token, Undo};
use crate::group::coordinator::Turn;
use crate::group::timer::Timer;
use crate::group::{NEW_MEMBER_JOIN_TIMEOUT_MS, detached};
use crate::wire::messages::join_group_response::JoinGroupResponseMember;
use crate::wire::messages::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::{ErrorCode, Str};
use bytes::Bytes;

/// From here on a dynamic member is given its id before it is let in, so that one that never gets the reply leaves no ghost behind (KIP-394).
pub(crate) const MEMBER_ID_REQUIRED_VERSION: i16 = 4;
/// From here on a leader can be told that the assignment stands (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

/// One JoinGroup request on its way through the group.
pub(crate) struct Joining<'a> {
    pub(crate) token: Token,
    pub(crate) caller: &'a Caller,
    pub(crate) member_id: Str,
    pub(crate) instance_id: Option<Str>,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocol_type: Str,
    pub(crate) protocols: Vec<Protocol>,
}

impl<'a> Joining<'a> {
    /// Takes what the group will keep out of the request, whose bytes belong to the frame it came in.
    pub(crate) fn new(token: Token, caller: &'a Caller, request: &JoinGroupRequest) -> Joining<'a> {
        let protocols = request.protocols.iter();
        Joining {
            token,
            caller,
            member_id: Str::detached(&request.member_id),
            instance_id: request.group_instance_id.as_ref().map(Str::detached),
            session_timeout_ms: request.session_timeout_ms,
            // Version 0 has no rebalance timeout.
            rebalance_timeout_ms: if caller.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms },
            protocol_type: Str::detached(&request.protocol_type),
            protocols: protocols
                .map(|protocol| Protocol { name: Str::detached(&protocol.name), metadata: detached(&protocol.metadata) })
                .collect(),
        }
    }
}

impl ClassicGroup {
    pub(crate) fn join(&mut self, turn: &mut Turn<'_>, joining: Joining<'_>) {
        if !self.has_room_for(&joining.member_id, turn.config.max_size) {
            self.remove_member(turn, &joining.member_id);
            turn.reply_join(joining.token, refused_join(ErrorCode::GroupMaxSizeReached));
        } else if !self.supports(&joining.protocol_type, &joining.protocols) {
            let response = JoinGroupResponse { member_id: joining.member_id.clone(), ..refused_join(ErrorCode::InconsistentGroupProtocol) };
            turn.reply_join(joining.token, response);
        } else if joining.member_id.is_empty() {
            self.join_without_id(turn, joining);
        } else {
            self.join_with_id(turn, joining);
        }
    }

    /// Whether the group takes the member under its size limit. While a rebalance gathers the members, those who joined first stay: so a group above a lowered limit sheds its
    /// last ones.
    fn has_room_for(&self, member_id: &str, max_size: usize) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => member.is_some_and(|member| member.awaiting_join.is_some()) || self.awaiting_join < max_size,
            State::CompletingRebalance | State::Stable => member.is_some() || self.members.len() < max_size,
        }
    }

    fn join_without_id(&mut self, turn: &mut Turn<'_>, joining: Joining<'_>) {
        let prefix = joining.instance_id.as_ref().unwrap_or(&joining.caller.client_id);
        let member_id = Str::from(format!("{}-{}", &**prefix, joining.caller.fresh_id));
        match &joining.instance_id {
            Some(instance_id) => match self.static_members.get(instance_id).cloned() {
                Some(old_member_id) => self.replace_static_member(turn, joining, &old_member_id, member_id),
                None => self.add_member(turn, joining, member_id),
            },
            None if joining.caller.version >= MEMBER_ID_REQUIRED_VERSION => self.give_member_id(turn, &joining, member_id),
            None => self.add_member(turn, joining, member_id),
        }
    }

    fn give_member_id(&mut self, turn: &mut Turn<'_>, joining: &Joining<'_>, member_id: Str) {
        let mut patience = Timer::off();
        turn.arm(&mut patience, i64::from(joining.session_timeout_ms), || session_key(&self.id, &member_id));
        self.pending_joins.insert(member_id.clone(), patience);
        turn.reply_join(joining.token, JoinGroupResponse { member_id, ..refused_join(ErrorCode::MemberIdRequired) });
    }

    fn join_with_id(&mut self, turn: &mut Turn<'_>, joining: Joining<'_>) {
        let member_id = joining.member_id.clone();
        // An id that was given out belongs to a dynamic member; with an instance id it is nobody's.
        if joining.instance_id.is_none() && self.pending_joins.remove(&member_id).is_some() {
            return self.add_member(turn, joining, member_id);
        }
        if let Err(error) = self.validate_member(&member_id, joining.instance_id.as_deref()) {
            return turn.reply_join(joining.token, JoinGroupResponse { member_id, ..refused_join(error) });
        }
        let is_unchanged = self.members[&member_id].protocols == joining.protocols;
        match self.state {
            State::PreparingRebalance => self.rejoin(turn, joining),
            // Most likely the reply got lost: it is said again.
            State::CompletingRebalance if is_unchanged => self.answer_with_generation(turn, &joining),
            State::CompletingRebalance => self.rejoin(turn, joining),
            // A leader joins again when what it assigns has changed, partitions for one, which no metadata shows.
            State::Stable if self.is_leader(&member_id) || !is_unchanged => self.rejoin(turn, joining),
            State::Stable => self.answer_with_generation(turn, &joining),
            State::Empty => unreachable!("an empty group has no members"),
        }
    }

    fn answer_with_generation(&self, turn: &mut Turn<'_>, joining: &Joining<'_>) {
        let is_told_members = self.state == State::CompletingRebalance && self.is_leader(&joining.member_id);
        turn.reply_join(joining.token, self.generation_for(&joining.member_id, is_told_members));
    }

    /// The reply that tells a member the current generation.
    pub(super) fn generation_for(&self, member_id: &str, is_told_members: bool) -> JoinGroupResponse {
        let members = if is_told_members { self.members_for_leader() } else { Vec::new() };
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: Str::from(member_id),
            members,
            ..Default::default()
        }
    }

    fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| JoinGroupResponseMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
            ..Default::default()
        });
        members.collect()
    }

    fn add_member(&mut self, turn: &mut Turn<'_>, joining: Joining<'_>, member_id: Str) {
        let mut member = Member {
            id: member_id.clone(),
            instance_id: joining.instance_id,
            client_id: joining.caller.client_id.detached(),
            client_host: joining.caller.client_host.clone(),
            rebalance_timeout_ms: joining.rebalance_timeout_ms,
            session_timeout_ms: joining.session_timeout_ms,
            protocols: joining.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(joining.token),
            awaiting_sync: None,
            is_new: true,
            session: Timer::off(),
        };
        // Clients that give up and try again in a long rebalance must not pile up: a request that waits for this long is let go of. A live client asks again.
        turn.arm(&mut member.session, NEW_MEMBER_JOIN_TIMEOUT_MS, || session_key(&self.id, &member_id));
        self.pending_joins.remove(&member_id);
        if self.members.is_empty() {
            self.protocol_type = Some(joining.protocol_type);
        }
        if let Some(initial_delay) = &mut self.initial_delay {
            initial_delay.new_member_added = true;
        }
        self.put_member(member);
        self.rebalance_or_complete_join(turn);
    }

    /// A known member joins: its offer is taken over, and its request waits.
    fn rejoin(&mut self, turn: &mut Turn<'_>, joining: Joining<'_>) {
        self.update_member(&joining.member_id, joining.protocols, joining.rebalance_timeout_ms, joining.session_timeout_ms);
        self.park_join(turn, &joining.member_id, joining.token);
        self.rebalance_or_complete_join(turn);
    }

    fn update_member(&mut self, member_id: &str, protocols: Vec<Protocol>, rebalance_timeout_ms: i32, session_timeout_ms: i32) {
        self.count_supporters(&protocols);
        let member = self.members.get_mut(member_id).expect("only members are updated");
        let before = std::mem::replace(&mut member.protocols, protocols);
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        self.discount_supporters(&before);
    }

    fn park_join(&mut self, turn: &mut Turn<'_>, member_id: &str, token: Token) {
        // Sent before on a connection that is gone, most likely; nobody may wait here for ever.
        self.answer_join(turn, member_id, refused_join(ErrorCode::RebalanceInProgress));
        self.awaiting_join += 1;
        self.members.get_mut(member_id).expect("only members wait").awaiting_join = Some(token);
    }

    /// A static member is back from a restart, without the id it had. It takes over the place of its old self, whose requests are fenced from now on.
    fn replace_static_member(&mut self, turn: &mut Turn<'_>, joining: Joining<'_>, old_member_id: &Str, member_id: Str) {
        let leader_before = self.leader.clone();
        let fenced = ErrorCode::FencedInstanceId;
        self.answer_join(turn, old_member_id, JoinGroupResponse { member_id: old_member_id.clone(), ..refused_join(fenced) });
        self.answer_sync(turn, old_member_id, super::refused_sync(fenced));
        let before = Box::new(self.members[old_member_id].clone());
        self.rename_member(old_member_id, &member_id);
        self.update_member(&member_id, joining.protocols, joining.rebalance_timeout_ms, joining.session_timeout_ms);
        self.renew_session(turn, &member_id);

        match self.state {
            State::Stable if self.protocol.as_ref() == Some(&self.select_protocol()) => {
                // Nothing that the assignment rests on has changed: it stands, the new id is recorded, and nobody else is disturbed.
                turn.step.records.push(self.record(|member| member.assignment.clone()));
                turn.step.if_refused = Undo::RestoreStaticMember { group_id: self.id.clone(), new_member_id: member_id.clone(), before };
                turn.reply_join(joining.token, self.standing_generation_for(&member_id, joining.caller.version, leader_before));
            }
            State::Stable => {
                self.park_join(turn, &member_id, joining.token);
                self.rebalance_or_complete_join(turn);
            }
            State::CompletingRebalance => {
                // The leader may be assigning to the old id at this moment: what it sends back would leave the new one without anything.
                self.park_join(turn, &member_id, joining.token);
                self.prepare_rebalance(turn);
            }
            State::PreparingRebalance => {
                self.park_join(turn, &member_id, joining.token);
                self.complete_join_if_all_are_here(turn);
            }
            State::Empty => unreachable!("an empty group has no members"),
        }
    }

    /// Tells a static member that its assignment stands. A leader too old to be told so is told that another leads, so that it does not assign.
    fn standing_generation_for(&self, member_id: &str, version: i16, leader_before: Option<Str>) -> JoinGroupResponse {
        let is_leader = self.is_leader(member_id);
        if version >= SKIP_ASSIGNMENT_VERSION {
            JoinGroupResponse { skip_assignment: is_leader, ..self.generation_for(member_id, is_leader) }
        } else {
            JoinGroupResponse { leader: leader_before.unwrap_or_default(), ..self.generation_for(member_id, false) }
        }
    }

    fn rename_member(&mut self, from: &Str, to: &Str) {
        let member = self.members.remove(from).expect("only members are renamed");
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), to.clone());
        }
        if self.is_leader(from) {
            self.leader = Some(to.clone());
        }
        if self.pending_syncs.remove(from) {
            self.pending_syncs.insert(to.clone());
        }
        // The old id's deadline finds nobody; the new one gets its own.
        self.members.insert(to.clone(), Member { id: to.clone(), session: Timer::off(), ..member });
    }

    /// The record of a static member's new id was refused: its old self is the member again.
    pub(crate) fn restore_static_member(&mut self, turn: &mut Turn<'_>, new_member_id: &Str, before: Member) {
        if !self.members.contains_key(new_member_id) {
            return;
        }
        let old_member_id = before.id.clone();
        self.rename_member(new_member_id, &old_member_id);
        self.update_member(&old_member_id, before.protocols, before.rebalance_timeout_ms, before.session_timeout_ms);
        self.renew_session(turn, &old_member_id);
    }
}
