//! The coordinator's part of the calls of the consumer protocol: finding or making the group, running a decision, and what comes of it beyond records.

use super::heartbeat::Beat;
use super::{ConsumerGroup, Refusal, Resolving, convert};
use crate::group::Now;
use crate::group::any::Group;
use crate::group::call::{Caller, Reply, Step, Token};
use crate::group::coordinator::{Coordinator, Turn};
use crate::wire::messages::consumer_group_describe_response::DescribedGroup;
use crate::wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};

impl Coordinator {
    pub(crate) fn consumer_heartbeat(
        &mut self,
        now: Now,
        token: Token,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step,
    ) {
        let response = match self.beat(now, caller, request, step) {
            Ok((response, to_resolve)) => {
                if let Some(regexes) = to_resolve {
                    self.resolve(now, &request.group_id, regexes);
                }
                response
            }
            Err(refusal) => {
                step.records.clear();
                ConsumerGroupHeartbeatResponse {
                    error_code: refusal.error.code(),
                    error_message: Some(refusal.message),
                    ..Default::default()
                }
            }
        };
        step.reply(token, Reply::ConsumerHeartbeat(response));
    }

    fn beat(&mut self, now: Now, caller: &Caller, request: &ConsumerGroupHeartbeatRequest, step: &mut Step) -> Result<Beat, Refusal> {
        let group_id = &request.group_id;
        let joins = request.member_epoch == 0;
        let not_found = |what: &str| Err(Refusal::new(ErrorCode::GroupIdNotFound, what));
        let (group, mut turn) = self.turn(now, group_id, step);
        let made = match group {
            Some(Group::Consumer(group)) if ConsumerGroup::is_leaving(request) => {
                return Ok((group.leave(&mut turn, request)?, None));
            }
            Some(Group::Consumer(group)) => return group.heartbeat(&mut turn, caller, request),
            Some(Group::Classic(group)) if joins && group.is_empty() => {
                turn.step.records.push(group.tombstone());
                ConsumerGroup::new(group_id)
            }
            Some(Group::Classic(group)) if joins => convert::from_classic(&mut turn, group)?,
            Some(_) => return not_found(&format!("Group {group_id} is not a consumer group.")),
            None if joins => ConsumerGroup::new(group_id),
            None => return not_found(&format!("Group {group_id} not found.")),
        };
        // What is decided about the new group makes it, once it is replayed.
        made.heartbeat(&mut turn, caller, request)
    }

    pub(crate) fn describe_consumer(&self, group_id: &Str) -> DescribedGroup {
        let message = match self.group(group_id) {
            Some(Group::Consumer(group)) => return group.describe(self.image(), self.config().default_assignor()),
            Some(Group::Classic(_)) => format!("Group {group_id} is not a consumer group."),
            None => format!("Group {group_id} not found."),
        };
        DescribedGroup {
            group_id: group_id.clone(),
            error_code: ErrorCode::GroupIdNotFound.code(),
            error_message: Some(Str::from(message)),
            ..Default::default()
        }
    }

    /// Begins to resolve regular expressions, unless some of the group's are being resolved; the steps of `tick` go on with it.
    fn resolve(&mut self, now: Now, group_id: &Str, regexes: Vec<Str>) {
        if self.resolving.iter().all(|resolving| *resolving.group_id != **group_id) {
            let resolving = Resolving::new(now, group_id, regexes, self.image());
            self.resolving.push_back(resolving);
        }
    }

    /// Goes on with what is being resolved, for a bounded time. `None` when nothing is.
    pub(crate) fn go_on_resolving(&mut self, now: Now) -> Option<Step> {
        let mut resolving = self.resolving.pop_front()?;
        let mut step = Step::default();
        if !resolving.go_on() {
            // The others get their turn.
            self.resolving.push_back(resolving);
            return Some(step);
        }
        let group_id = resolving.group_id.clone();
        if let (Some(Group::Consumer(group)), mut turn) = self.turn(now, &group_id, &mut step) {
            group.resolved(&mut turn, resolving.into_results());
        }
        Some(step)
    }
}

// Requests of the classic protocol to a group that is not of it

pub(crate) fn join(group: &ConsumerGroup, turn: &mut Turn<'_>, token: Token, caller: &Caller, request: &JoinGroupRequest) {
    let response = group.join_classic(turn, token, caller, request).unwrap_or_else(|refusal| {
        turn.step.records.clear();
        JoinGroupResponse { member_id: request.member_id.clone(), error_code: refusal.error.code(), ..Default::default() }
    });
    turn.reply_join(token, response);
}

pub(crate) fn sync(group: &ConsumerGroup, turn: &mut Turn<'_>, token: Token, request: &SyncGroupRequest) {
    let refused = |refusal: Refusal| SyncGroupResponse { error_code: refusal.error.code(), ..Default::default() };
    let response = group.sync_classic(turn, request).unwrap_or_else(refused);
    turn.reply_sync(token, response);
}

pub(crate) fn heartbeat(group: &ConsumerGroup, turn: &mut Turn<'_>, token: Token, request: &HeartbeatRequest) {
    let error = group.beat_classic(turn, request).err().map_or(ErrorCode::None, |refusal| refusal.error);
    turn.step.reply(token, Reply::Heartbeat(HeartbeatResponse { error_code: error.code(), ..Default::default() }));
}

pub(crate) fn leave(group: &ConsumerGroup, turn: &mut Turn<'_>, token: Token, request: &LeaveGroupRequest) {
    let response = group.leave_classic(turn, request);
    turn.step.reply(token, Reply::Leave(response));
}
