//! Calls of members by the classic protocol: in groups of their own type, and in those of the consumer protocol that they take part in.

use super::Coordinator;
use crate::group::Now;
use crate::group::any::Group;
use crate::group::call::{Call, Caller, Reply, Step, Token, Undo};
use crate::group::classic::Joining;
use crate::group::consumer::calls;
use crate::wire::ErrorCode;
use crate::wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
};

impl Coordinator {
    pub(super) fn join(&mut self, now: Now, token: Token, caller: &Caller, request: &JoinGroupRequest, step: &mut Step) {
        let session_timeouts_ms = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        let refusal = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !session_timeouts_ms.contains(&request.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if self.has_no_member_for(&request.group_id) && !request.member_id.is_empty() {
            Some(ErrorCode::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = refusal {
            return step.reply(token, refuse_join(request, error));
        }

        if let (Some(Group::Consumer(group)), mut turn) = self.turn(now, &request.group_id, step)
            && !group.is_empty()
        {
            return calls::join(group, &mut turn, token, caller, request);
        }

        let before = self.make_room_for_classic(request, step);
        let is_new = !self.groups.contains_key(&request.group_id);
        if is_new {
            self.add_classic(&request.group_id, now);
        }
        let (Some(Group::Classic(group)), mut turn) = self.turn(now, &request.group_id, step) else { unreachable!("it was just added") };
        group.join(&mut turn, Joining::new(token, caller, request));
        if is_new {
            // From here on the group is listed and described, so it has to be there after a restart, too.
            let creation = group.creation_record();
            step.records.push(creation);
            let group_id = request.group_id.clone();
            step.if_refused = match before {
                Some(before) => Undo::PutBack { group_id, before },
                None => Undo::ForgetGroup { group_id },
            };
        }
    }

    /// Whether the group would have to be made anew for a member of the classic protocol.
    fn has_no_member_for(&self, group_id: &str) -> bool {
        match self.groups.get(group_id) {
            None => true,
            Some(Group::Classic(_)) => false,
            Some(other) => other.is_empty(),
        }
    }

    /// An empty group of another type gives its id away.
    fn make_room_for_classic(&mut self, request: &JoinGroupRequest, step: &mut Step) -> Option<Group> {
        if matches!(self.groups.get(&request.group_id)?, Group::Classic(_)) {
            return None;
        }
        let before = self.groups.remove(&request.group_id)?;
        step.records.extend(before.tombstones());
        Some(before)
    }

    pub(super) fn sync(&mut self, now: Now, token: Token, request: &SyncGroupRequest, step: &mut Step) {
        if request.group_id.is_empty() {
            return step.reply(token, refuse_sync(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) if !group.is_empty() => group.sync(&mut turn, token, request),
            (Some(Group::Consumer(group)), mut turn) => calls::sync(group, &mut turn, token, request),
            _ => step.reply(token, refuse_sync(ErrorCode::UnknownMemberId)),
        }
    }

    pub(super) fn heartbeat(&mut self, now: Now, token: Token, request: &HeartbeatRequest, step: &mut Step) {
        let refuse = |error| Call::Heartbeat(HeartbeatRequest::default()).refuse(error);
        if request.group_id.is_empty() {
            return step.reply(token, refuse(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) => group.heartbeat(&mut turn, token, request),
            (Some(Group::Consumer(group)), mut turn) => calls::heartbeat(group, &mut turn, token, request),
            (None, _) => step.reply(token, refuse(ErrorCode::UnknownMemberId)),
        }
    }

    pub(super) fn leave(&mut self, now: Now, token: Token, request: &LeaveGroupRequest, step: &mut Step) {
        let refuse = |error| Call::Leave(request.clone()).refuse(error);
        if request.group_id.is_empty() {
            return step.reply(token, refuse(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) => group.leave(&mut turn, token, request),
            (Some(Group::Consumer(group)), mut turn) => calls::leave(group, &mut turn, token, request),
            (None, _) => step.reply(token, refuse(ErrorCode::UnknownMemberId)),
        }
    }
}

fn refuse_join(request: &JoinGroupRequest, error: ErrorCode) -> Reply {
    Reply::Join(JoinGroupResponse { member_id: request.member_id.clone(), error_code: error.code(), ..Default::default() })
}

fn refuse_sync(error: ErrorCode) -> Reply {
    Reply::Sync(SyncGroupResponse { error_code: error.code(), ..Default::default() })
}
