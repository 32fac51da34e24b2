//! The coordinator of one partition of `__consumer_offsets`: its groups and their offsets.
//!
//! Life: made empty, fed the partition's log through `replay` and `replay_end_transaction`, told `on_loaded`; from then on `handle`, `tick` and `on_topic_deleted` decide, and the
//! driver appends and replays what each decision says before it asks for the next one. `dismiss` ends it and answers whoever still waits.

use super::call::{Call, Caller, OpenTransaction, Reply, Step, Token, Undo, coordinator_error};
use super::classic::{ClassicGroup, Joining, State};
use super::offsets::{Offsets, Retention};
use super::record::CoordinatorRecord;
use super::timer::{Timer, TimerKey, Timers};
use super::{GroupConfig, GroupType, Now};
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;

/// From here on a commit in a group that is not there is told so (KIP-848); before, its generation is called illegal.
const COMMIT_GROUP_NOT_FOUND_VERSION: i16 = 9;
/// As above, for TxnOffsetCommit.
const TRANSACTION_COMMIT_GROUP_NOT_FOUND_VERSION: i16 = 6;
/// From here on DescribeGroups says that a group is not there; before, it shows a dead one.
const DESCRIBE_GROUP_NOT_FOUND_VERSION: i16 = 6;

/// How many offsets one step of a longer work looks at, but for a group that has more, and how many it takes away. So a step is short, whatever there is to do.
const OFFSETS_PER_STEP: usize = 1_000;
/// How many groups one step of a longer work looks at.
const GROUPS_PER_STEP: usize = 200;

/// The bytes of an OffsetCommit or GroupMetadata record beside its strings and its members, with some to spare.
const RECORD_BYTES: usize = 200;

/// What a group of any type is to its coordinator.
#[derive(Debug)]
pub(crate) enum Group {
    Classic(Box<ClassicGroup>),
}

/// One decision in the making: what it may look at, and what it has come to so far.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a GroupConfig,
    pub(crate) timers: &'a mut Timers,
    pub(crate) step: &'a mut Step,
}

#[derive(Debug)]
pub struct Coordinator {
    config: GroupConfig,
    groups: HashMap<Str, Group, foldhash::fast::RandomState>,
    offsets: Offsets,
    timers: Timers,
    /// Set while the log is being read: nothing is decided then.
    is_loading: bool,
    next_sweep_ms: i64,
    /// Works that take several steps, the first one first.
    works: VecDeque<Work>,
}

/// A work over all groups that is done a few groups at a time.
#[derive(Debug)]
struct Work {
    kind: WorkKind,
    remaining: Vec<Str>,
}

#[derive(Debug, Clone)]
enum WorkKind {
    /// Offsets that are kept no longer, and groups that have nothing left.
    Expire,
    /// Offsets of a topic that is no more.
    ForgetTopic { name: Str, id: Uuid },
}

impl Coordinator {
    /// An empty coordinator that waits for its log.
    pub fn new(config: GroupConfig) -> Coordinator {
        Coordinator {
            config,
            groups: HashMap::default(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            is_loading: true,
            next_sweep_ms: i64::MAX,
            works: VecDeque::new(),
        }
    }

    // Durable state: what the log says

    /// Takes in one record that stands at `record_offset` of the log; `producer_id` is that of the transaction it belongs to, or -1.
    pub fn replay(&mut self, now: Now, record_offset: i64, producer_id: i64, record: &CoordinatorRecord) {
        match record {
            CoordinatorRecord::OffsetCommit { key, value } => {
                if value.is_some() && !self.groups.contains_key(&key.group) {
                    // Offsets without members make a simple group.
                    self.add_classic(&key.group, now);
                }
                self.offsets.replay(record_offset, producer_id, key, value.as_ref());
            }
            CoordinatorRecord::GroupMetadata { key, value: Some(value) } => {
                let Group::Classic(group) = match self.groups.contains_key(&key.group) {
                    true => self.groups.get_mut(&key.group).expect("just looked up"),
                    false => self.add_classic(&key.group, now),
                };
                group.replay(value);
            }
            CoordinatorRecord::GroupMetadata { key, value: None } => {
                self.groups.remove(&key.group);
            }
        }
    }

    /// Takes in the marker that ends a producer's transaction.
    pub fn replay_end_transaction(&mut self, producer_id: i64, is_committed: bool) {
        self.offsets.replay_end_transaction(producer_id, is_committed);
    }

    /// The log has been read to its end. Sessions of the members found in it begin now.
    pub fn on_loaded(&mut self, now: Now) {
        assert!(self.is_loading);
        self.is_loading = false;
        self.next_sweep_ms = now.steady_ms.saturating_add(self.config.offsets_retention_check_interval_ms);
        let mut step = Step::default();
        let mut turn = Turn { now, config: &self.config, timers: &mut self.timers, step: &mut step };
        for Group::Classic(group) in self.groups.values_mut() {
            group.on_loaded(&mut turn);
        }
        assert!(step.is_empty(), "nobody waits and nothing is decided while members may still show up");
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    // Decisions

    /// How many bytes the step of this call may append, about: an upper bound unless the group changes in between. 0 for calls that never append.
    pub fn room_for(&self, call: &Call) -> usize {
        match call {
            Call::Join(request) => RECORD_BYTES + request.group_id.len() + self.group_bytes(&request.group_id),
            Call::Sync(request) => {
                let assignments = request.assignments.iter().map(|assigned| assigned.assignment.len());
                RECORD_BYTES + request.group_id.len() + self.group_bytes(&request.group_id) + assignments.sum::<usize>()
            }
            Call::Leave(request) => RECORD_BYTES + request.group_id.len(),
            Call::CommitOffsets(request) | Call::CommitOffsetsInTransaction { request, .. } => Offsets::commit_bytes(request, RECORD_BYTES),
            Call::DeleteOffsets(request) => {
                let of_topic =
                    |topic: &OffsetDeleteRequestTopic| topic.partitions.len() * (RECORD_BYTES + topic.name.len() + request.group_id.len());
                request.topics.iter().map(of_topic).sum()
            }
            Call::DeleteGroups(group_ids) => {
                let of_group = |group_id: &Str| (1 + self.offsets.count_of_group(group_id)) * (RECORD_BYTES + group_id.len());
                group_ids.iter().map(of_group).sum()
            }
            Call::Heartbeat(_) | Call::FetchOffsets { .. } | Call::DescribeGroups(_) | Call::ListGroups { .. } => 0,
        }
    }

    fn group_bytes(&self, group_id: &str) -> usize {
        self.groups.get(group_id).map_or(0, |Group::Classic(group)| group.members_bytes(RECORD_BYTES))
    }

    /// Decides about one call. The reply comes with this step or a later one.
    pub fn handle(&mut self, now: Now, token: Token, caller: &Caller, call: &Call) -> Step {
        assert!(!self.is_loading, "a coordinator that has not read its log knows nothing");
        let mut step = Step::default();
        match call {
            Call::Join(request) => self.join(now, token, caller, request, &mut step),
            Call::Sync(request) => self.sync(now, token, request, &mut step),
            Call::Heartbeat(request) => self.heartbeat(now, token, request, &mut step),
            Call::Leave(request) => self.leave(now, token, request, &mut step),
            Call::CommitOffsets(request) => self.commit_offsets(now, token, caller, request, &mut step),
            Call::CommitOffsetsInTransaction { request, transaction } => {
                self.commit_offsets_in_transaction(now, token, caller, request, *transaction, &mut step);
            }
            Call::FetchOffsets { group, require_stable } => self.fetch_offsets(token, group, *require_stable, &mut step),
            Call::DeleteOffsets(request) => self.delete_offsets(token, request, &mut step),
            Call::DescribeGroups(group_ids) => {
                let groups = group_ids.iter().map(|group_id| self.describe(group_id, caller.version)).collect();
                step.reply(token, Reply::DescribeGroups(groups));
            }
            Call::ListGroups { states, types } => step.reply(token, Reply::ListGroups(Ok(self.list(states, types)))),
            Call::DeleteGroups(group_ids) => self.delete_groups(token, group_ids, &mut step),
        }
        step
    }

    fn join(&mut self, now: Now, token: Token, caller: &Caller, request: &JoinGroupRequest, step: &mut Step) {
        let session_timeouts_ms = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        let refusal = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !session_timeouts_ms.contains(&request.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if !self.groups.contains_key(&request.group_id) && !request.member_id.is_empty() {
            Some(ErrorCode::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = refusal {
            return step.reply(token, refuse_join(request, error));
        }

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
            step.if_refused = Undo::ForgetGroup { group_id: request.group_id.clone() };
        }
    }

    fn sync(&mut self, now: Now, token: Token, request: &SyncGroupRequest, step: &mut Step) {
        if request.group_id.is_empty() {
            return step.reply(token, refuse_sync(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) if !group.is_empty() => group.sync(&mut turn, token, request),
            _ => step.reply(token, refuse_sync(ErrorCode::UnknownMemberId)),
        }
    }

    fn heartbeat(&mut self, now: Now, token: Token, request: &HeartbeatRequest, step: &mut Step) {
        let refuse = |error| Call::Heartbeat(HeartbeatRequest::default()).refuse(error);
        if request.group_id.is_empty() {
            return step.reply(token, refuse(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) => group.heartbeat(&mut turn, token, request),
            (None, _) => step.reply(token, refuse(ErrorCode::UnknownMemberId)),
        }
    }

    fn leave(&mut self, now: Now, token: Token, request: &LeaveGroupRequest, step: &mut Step) {
        let refuse = |error| Call::Leave(request.clone()).refuse(error);
        if request.group_id.is_empty() {
            return step.reply(token, refuse(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) => group.leave(&mut turn, token, request),
            (None, _) => step.reply(token, refuse(ErrorCode::UnknownMemberId)),
        }
    }

    fn commit_offsets(&mut self, now: Now, token: Token, caller: &Caller, request: &OffsetCommitRequest, step: &mut Step) {
        let generation = request.generation_id_or_member_epoch;
        let instance_id = request.group_instance_id.as_deref();
        let verdict = match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) => group.validate_commit(&mut turn, &request.member_id, instance_id, generation),
            // Whoever assigns his partitions himself needs no group; the replay of his offsets makes one.
            (None, _) if generation < 0 => Ok(()),
            (None, _) if caller.version >= COMMIT_GROUP_NOT_FOUND_VERSION => Err(ErrorCode::GroupIdNotFound),
            (None, _) => Err(ErrorCode::IllegalGeneration),
        };
        let reply = match verdict {
            Ok(()) => Reply::CommitOffsets(Offsets::commit(&self.config, now.wall_ms, request, step)),
            Err(error) => Call::CommitOffsets(request.clone()).refuse(error),
        };
        step.reply(token, reply);
    }

    /// The member is checked as KIP-447 wants it; where the group is in a rebalance does not matter, because the transaction fences who must not commit.
    fn commit_offsets_in_transaction(
        &mut self,
        now: Now,
        token: Token,
        caller: &Caller,
        request: &OffsetCommitRequest,
        transaction: OpenTransaction,
        step: &mut Step,
    ) {
        let generation = request.generation_id_or_member_epoch;
        let instance_id = request.group_instance_id.as_deref();
        let verdict = match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) => group.validate_commit_in_transaction(&request.member_id, instance_id, generation),
            None if generation < 0 => Ok(()),
            None if caller.version >= TRANSACTION_COMMIT_GROUP_NOT_FOUND_VERSION => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        };
        let reply = match verdict {
            Ok(()) => {
                step.transaction = Some(transaction);
                Reply::CommitOffsets(Offsets::commit(&self.config, now.wall_ms, request, step))
            }
            Err(error) => Call::CommitOffsets(request.clone()).refuse(error),
        };
        step.reply(token, reply);
    }

    fn fetch_offsets(&mut self, token: Token, request: &OffsetFetchRequestGroup, require_stable: bool, step: &mut Step) {
        let is_known = self.groups.contains_key(&request.group_id);
        step.reply(token, Reply::FetchOffsets(self.offsets.fetch(request, is_known, require_stable)));
    }

    fn delete_offsets(&mut self, token: Token, request: &OffsetDeleteRequest, step: &mut Step) {
        let refuse = |error: ErrorCode| OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
        let response = match self.groups.get(&request.group_id) {
            _ if request.group_id.is_empty() => refuse(ErrorCode::InvalidGroupId),
            None => refuse(ErrorCode::GroupIdNotFound),
            Some(Group::Classic(group)) => match group.validate_offset_delete() {
                Err(error) => refuse(error),
                Ok(()) => {
                    step.divisible = true;
                    let topics = request
                        .topics
                        .iter()
                        .map(|topic| self.offsets.delete_of_topic(&request.group_id, topic, group.is_subscribed_to(&topic.name), step));
                    OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
                }
            },
        };
        step.reply(token, Reply::DeleteOffsets(response));
    }

    fn describe(&self, group_id: &Str, version: i16) -> DescribedGroup {
        if let Some(Group::Classic(group)) = self.groups.get(group_id) {
            return group.describe();
        }
        let absent = DescribedGroup { group_id: group_id.clone(), group_state: Str::from("Dead"), ..Default::default() };
        if version < DESCRIBE_GROUP_NOT_FOUND_VERSION {
            return absent;
        }
        DescribedGroup {
            error_code: ErrorCode::GroupIdNotFound.code(),
            error_message: Some(Str::from(format!("Group {group_id} not found."))),
            ..absent
        }
    }

    fn list(&self, states: &[Str], types: &[Str]) -> Vec<ListedGroup> {
        let passes =
            |filters: &[Str], value: &str| filters.is_empty() || filters.iter().any(|filter| filter.trim().eq_ignore_ascii_case(value));
        if !passes(types, GroupType::Classic.name()) {
            return Vec::new();
        }
        let groups = self.groups.values().map(|Group::Classic(group)| group);
        groups.filter(|group| passes(states, group.state().name())).map(|group| group.list()).collect()
    }

    fn delete_groups(&mut self, token: Token, group_ids: &[Str], step: &mut Step) {
        step.divisible = true;
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let error = match self.groups.get(group_id) {
                None => ErrorCode::GroupIdNotFound,
                Some(Group::Classic(group)) => match group.validate_delete() {
                    Err(error) => error,
                    Ok(()) => {
                        self.offsets.delete_of_group(group_id, step);
                        step.records.push(group.tombstone());
                        ErrorCode::None
                    }
                },
            };
            results.push(DeletableGroupResult { group_id: group_id.clone(), error_code: error.code(), ..Default::default() });
        }
        step.reply(token, Reply::DeleteGroups(results));
    }

    // Time, and work that takes several steps

    /// When `tick` is to be called at the latest.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        if self.is_loading {
            return None;
        }
        if !self.works.is_empty() {
            return Some(i64::MIN);
        }
        let sweep_ms = (self.next_sweep_ms != i64::MAX).then_some(self.next_sweep_ms);
        self.timers.next_look_ms().into_iter().chain(sweep_ms).min()
    }

    /// Does what is due, one step at a time: to be called again until it returns `None`, with others let in between, and each step appended and replayed before.
    pub fn tick(&mut self, now: Now) -> Option<Step> {
        assert!(!self.is_loading);
        while let Some((entry_ms, key)) = self.timers.pop(now.steady_ms) {
            let mut step = Step::default();
            if let (Some(Group::Classic(group)), mut turn) = self.turn(now, &key.group_id.clone(), &mut step) {
                group.on_timer(&mut turn, entry_ms, key);
            }
            if !step.is_empty() {
                return Some(step);
            }
        }
        if self.next_sweep_ms <= now.steady_ms {
            self.next_sweep_ms = now.steady_ms.saturating_add(self.config.offsets_retention_check_interval_ms);
            self.begin(WorkKind::Expire);
        }
        self.work_on(now)
    }

    /// The topic is no more: its offsets go with it, in the steps of `tick`.
    pub fn on_topic_deleted(&mut self, name: &str, id: Uuid) {
        if self.offsets.may_hold_topic(id) {
            self.begin(WorkKind::ForgetTopic { name: Str::from(name), id });
        }
    }

    /// Topics that were deleted while nobody coordinated here: to be asked once after loading.
    pub fn forget_topics_unless(&mut self, exists: impl Fn(Uuid) -> bool) {
        for (id, name) in self.offsets.topics_unless(exists) {
            self.on_topic_deleted(&name, id);
        }
    }

    fn begin(&mut self, kind: WorkKind) {
        let mut remaining: Vec<Str> = match kind {
            WorkKind::Expire => self.groups.keys().cloned().collect(),
            WorkKind::ForgetTopic { .. } => self.offsets.group_ids().cloned().collect(),
        };
        // In order from the end, so that two runs over the same groups write the same records.
        remaining.sort_unstable_by(|one, other| other.cmp(one));
        remaining.dedup();
        self.works.push_back(Work { kind, remaining });
    }

    /// One step of the first work; `None` when none is left.
    fn work_on(&mut self, now: Now) -> Option<Step> {
        let mut step = Step { divisible: true, ..Step::default() };
        let (mut groups, mut offsets) = (0, 0);
        while let Some(mut work) = self.works.pop_front() {
            while let Some(group_id) = work.remaining.pop() {
                (groups, offsets) = (groups + 1, offsets + self.offsets.count_of_group(&group_id));
                self.work_on_group(now, &work.kind, &group_id, &mut step);
                let has_more = step.records.len() >= OFFSETS_PER_STEP;
                if has_more {
                    // Its turn comes again, when what was taken away is gone.
                    work.remaining.push(group_id);
                }
                if has_more || groups >= GROUPS_PER_STEP || offsets >= OFFSETS_PER_STEP {
                    self.works.push_front(work);
                    return Some(step);
                }
            }
            if let WorkKind::ForgetTopic { id, .. } = &work.kind {
                self.offsets.forget_topic(*id);
            }
        }
        (!step.is_empty()).then_some(step)
    }

    fn work_on_group(&mut self, now: Now, kind: &WorkKind, group_id: &Str, step: &mut Step) {
        match kind {
            WorkKind::ForgetTopic { name, id } => self.offsets.delete_of_deleted_topic(group_id, name, *id, OFFSETS_PER_STEP, step),
            WorkKind::Expire => {
                let Some(Group::Classic(group)) = self.groups.get(group_id) else { return };
                let is_subscribed_to = |topic: &str| group.is_subscribed_to(topic);
                let retention = Retention { now_ms: now.wall_ms, kept_ms: self.config.offsets_retention_ms, base: group.retention_base() };
                let nothing_is_left = self.offsets.expire(group_id, retention, is_subscribed_to, OFFSETS_PER_STEP, step);
                if nothing_is_left && group.state() == State::Empty {
                    step.records.push(group.tombstone());
                }
            }
        }
    }

    // When things go wrong

    /// The step's records could not be appended: nothing of it has happened. Gives back what to tell those who waited for it, and puts right what the step had prepared.
    pub fn refused(&mut self, now: Now, step: Step, append_error: ErrorCode) -> Step {
        let mut after = Step::default();
        after.replies.extend(step.replies.into_iter().map(|(token, reply)| (token, reply.refuse(append_error))));
        match step.if_refused {
            Undo::Nothing => {}
            Undo::ForgetGroup { group_id } => {
                if let (Some(Group::Classic(group)), mut turn) = self.turn(now, &group_id, &mut after) {
                    group.dismiss(&mut turn, coordinator_error(append_error));
                }
                self.groups.remove(&group_id);
            }
            Undo::RebalanceAgain { group_id } => {
                if let (Some(Group::Classic(group)), mut turn) = self.turn(now, &group_id, &mut after) {
                    group.rebalance_after_refusal(&mut turn);
                }
            }
            Undo::RestoreStaticMember { group_id, new_member_id, before } => {
                if let (Some(Group::Classic(group)), mut turn) = self.turn(now, &group_id, &mut after) {
                    group.restore_static_member(&mut turn, &new_member_id, *before);
                }
            }
        }
        after
    }

    /// Answers everybody who waits: this coordinator's time is over.
    pub fn dismiss(mut self, error: ErrorCode) -> Vec<(Token, Reply)> {
        let mut step = Step::default();
        let mut turn = Turn { now: Now::default(), config: &self.config, timers: &mut self.timers, step: &mut step };
        for Group::Classic(group) in self.groups.values_mut() {
            group.dismiss(&mut turn, error);
        }
        step.replies
    }

    // Below the decisions

    fn add_classic(&mut self, group_id: &Str, now: Now) -> &mut Group {
        let group = Group::Classic(Box::new(ClassicGroup::new(group_id, now.wall_ms)));
        self.groups.entry(group_id.detached()).or_insert(group)
    }

    /// The group, if it is there, and a turn to decide with.
    fn turn<'a>(&'a mut self, now: Now, group_id: &str, step: &'a mut Step) -> (Option<&'a mut Group>, Turn<'a>) {
        let turn = Turn { now, config: &self.config, timers: &mut self.timers, step };
        (self.groups.get_mut(group_id), turn)
    }

    #[cfg(test)]
    pub(crate) fn classic(&self, group_id: &str) -> Option<&ClassicGroup> {
        self.groups.get(group_id).map(|Group::Classic(group)| &**group)
    }
}

impl Turn<'_> {
    /// Sets a timer to `timeout_ms` from now.
    pub(crate) fn arm(&mut self, timer: &mut Timer, timeout_ms: i64, key: impl FnOnce() -> TimerKey) {
        self.timers.arm(timer, self.now.steady_ms.saturating_add(timeout_ms.max(0)), key);
    }

    pub(crate) fn reply_join(&mut self, token: Token, response: JoinGroupResponse) {
        self.step.reply(token, Reply::Join(response));
    }

    pub(crate) fn reply_sync(&mut self, token: Token, response: SyncGroupResponse) {
        self.step.reply(token, Reply::Sync(response));
    }
}

fn refuse_join(request: &JoinGroupRequest, error: ErrorCode) -> Reply {
    Reply::Join(JoinGroupResponse { member_id: request.member_id.clone(), error_code: error.code(), ..Default::default() })
}

fn refuse_sync(error: ErrorCode) -> Reply {
    Reply::Sync(SyncGroupResponse { error_code: error.code(), ..Default::default() })
}
