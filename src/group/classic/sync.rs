//! SyncGroup, Heartbeat and LeaveGroup: what members of a formed generation say.

use super::{ClassicGroup, State, refused_sync};
use crate::group::call::{Reply, Token, Undo};
use crate::group::coordinator::Turn;
use crate::group::detached;
use crate::wire::messages::leave_group_request::MemberIdentity;
use crate::wire::messages::leave_group_response::MemberResponse;
use crate::wire::messages::{
    HeartbeatRequest, HeartbeatResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};
use bytes::Bytes;
use std::collections::BTreeMap;

impl ClassicGroup {
    // SyncGroup

    pub(crate) fn sync(&mut self, turn: &mut Turn<'_>, token: Token, request: &SyncGroupRequest) {
        if let Err(error) = self.validate_sync(request) {
            return turn.reply_sync(token, refused_sync(error));
        }
        match self.state {
            State::Empty => unreachable!("an empty group has no members"),
            State::PreparingRebalance => turn.reply_sync(token, refused_sync(ErrorCode::RebalanceInProgress)),
            State::CompletingRebalance => {
                self.park_sync(turn, &request.member_id, token);
                if self.is_leader(&request.member_id) {
                    self.store_assignments(turn, request);
                }
            }
            State::Stable => {
                self.has_synced(&request.member_id);
                turn.reply_sync(token, self.assignment_for(self.members[&request.member_id].assignment.clone()));
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: &Option<Str>, ours: &Option<Str>| matches!((asked, ours), (Some(asked), Some(ours)) if asked != ours);
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn park_sync(&mut self, turn: &mut Turn<'_>, member_id: &Str, token: Token) {
        self.has_synced(member_id);
        // As in `park_join`: the request before was given up, most likely.
        self.answer_sync(turn, member_id, refused_sync(ErrorCode::RebalanceInProgress));
        self.members.get_mut(member_id).expect("only members wait").awaiting_sync = Some(token);
    }

    fn has_synced(&mut self, member_id: &Str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            self.sync_phase.disarm();
        }
    }

    /// The leader has assigned: the generation is recorded with it. Members that it left out get an empty assignment.
    ///
    /// The group becomes Stable with the replay of this record; the replies of those who wait go out with it.
    fn store_assignments(&mut self, turn: &mut Turn<'_>, request: &SyncGroupRequest) {
        let by_member = request.assignments.iter().map(|assigned| (&assigned.member_id, detached(&assigned.assignment)));
        let assignments: BTreeMap<&Str, Bytes> = by_member.collect();
        let assignment_of = |member_id: &Str| assignments.get(member_id).cloned().unwrap_or_default();

        turn.step.records.push(self.record(|member| assignment_of(&member.id)));
        turn.step.if_refused = Undo::RebalanceAgain { group_id: self.id.clone() };
        let member_ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            // The session of a member that waited may have ended unnoticed meanwhile, so it starts anew.
            if self.answer_sync(turn, member_id, self.assignment_for(assignment_of(member_id))) {
                self.renew_session(turn, member_id);
            }
        }
    }

    fn assignment_for(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment,
            ..Default::default()
        }
    }

    // Heartbeat

    pub(crate) fn heartbeat(&mut self, turn: &mut Turn<'_>, token: Token, request: &HeartbeatRequest) {
        let error = self.beat(turn, request).err().unwrap_or(ErrorCode::None);
        turn.step.reply(token, Reply::Heartbeat(HeartbeatResponse { error_code: error.code(), ..Default::default() }));
    }

    fn beat(&mut self, turn: &mut Turn<'_>, request: &HeartbeatRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.renew_session(turn, &request.member_id);
        match self.state {
            State::Empty => unreachable!("an empty group has no members"),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    // LeaveGroup

    pub(crate) fn leave(&mut self, turn: &mut Turn<'_>, token: Token, request: &LeaveGroupRequest) {
        let mut members = Vec::with_capacity(request.members.len());
        for leaving in &request.members {
            let error = self.leave_one(turn, leaving).err().unwrap_or(ErrorCode::None);
            members.push(MemberResponse {
                member_id: leaving.member_id.clone(),
                group_instance_id: leaving.group_instance_id.clone(),
                error_code: error.code(),
                ..Default::default()
            });
        }
        let has_lost_members = members.iter().any(|member| member.error_code == ErrorCode::None.code());
        turn.step.reply(token, Reply::Leave(LeaveGroupResponse { members, ..Default::default() }));
        match self.state {
            State::Stable | State::CompletingRebalance if has_lost_members => self.prepare_rebalance(turn),
            State::PreparingRebalance if has_lost_members => self.complete_join_if_all_are_here(turn),
            _ => {}
        }
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, leaving: &MemberIdentity) -> Result<(), ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        if leaving.member_id.is_empty() {
            // An administrator removes a static member, whose id nobody else knows.
            let member_id = instance_id.and_then(|instance_id| self.static_members.get(instance_id)).cloned();
            let member_id = member_id.ok_or(ErrorCode::UnknownMemberId)?;
            self.remove_member(turn, &member_id);
        } else if self.pending_joins.remove(&leaving.member_id).is_none() {
            self.validate_member(&leaving.member_id, instance_id)?;
            self.remove_member(turn, &leaving.member_id);
        }
        Ok(())
    }
}
