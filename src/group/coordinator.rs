//! The coordinator of one partition of `__consumer_offsets`: its groups and their offsets.
//!
//! Life: made empty, fed the partition's log through `replay` and `replay_end_transaction`, told `on_loaded`; from then on `handle`, `tick` and `on_topic_deleted` decide, and the
//! driver appends and replays what each decision says before it asks for the next one. `dismiss` ends it and answers whoever still waits.

use super::any::Group;
use super::call::{Call, Caller, OpenTransaction, Reply, Step, Token, Undo, coordinator_error};
use super::classic::{ClassicGroup, Joining};
use super::consumer::{ConsumerGroup, Resolving, calls};
use super::offsets::{Offsets, Retention};
use super::record::CoordinatorRecord;
use super::timer::{Look, Timer, TimerKey, TimerOf, Timers};
use super::{GroupConfig, Now};
use crate::cluster::{ConfigResourceType, Image};
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
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

/// No metadata has been seen yet.
const NO_TOPICS_YET: i64 = -1;

/// The bytes of an OffsetCommit or GroupMetadata record beside its strings and its members, with some to spare.
const RECORD_BYTES: usize = 200;

/// One decision in the making: what it may look at, and what it has come to so far.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a GroupConfig,
    pub(crate) image: &'a Image,
    /// Rises whenever topics may have changed.
    pub(crate) topics_version: u64,
    /// The metadata offset at which topics were made last.
    pub(crate) newest_topics: i64,
    pub(crate) timers: &'a mut Timers,
    pub(crate) step: &'a mut Step,
}

#[derive(Debug)]
pub struct Coordinator {
    config: GroupConfig,
    image: Arc<Image>,
    topics_version: u64,
    newest_topics: i64,
    groups: HashMap<Str, Group, foldhash::fast::RandomState>,
    offsets: Offsets,
    timers: Timers,
    /// Set while the log is being read: nothing is decided then.
    is_loading: bool,
    next_sweep_ms: i64,
    /// Works that take several steps, the first one first.
    works: VecDeque<Work>,
    /// Regular expressions that are being resolved, at most once for each group.
    pub(crate) resolving: VecDeque<Resolving>,
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
            image: Arc::new(Image::empty()),
            topics_version: 0,
            newest_topics: NO_TOPICS_YET,
            groups: HashMap::default(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            is_loading: true,
            next_sweep_ms: i64::MAX,
            works: VecDeque::new(),
            resolving: VecDeque::new(),
        }
    }

    /// The limits have been altered; they count from the next decision on.
    pub fn on_config(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// The cluster's metadata has changed. Groups look at their topics with the next heartbeat.
    pub fn on_image(&mut self, image: &Arc<Image>) {
        let former = std::mem::replace(&mut self.image, Arc::clone(image));
        if former.may_differ_in_topics(image) {
            self.topics_version += 1;
        }
        if self.newest_topics == NO_TOPICS_YET || image.has_topics_beyond(&former) {
            self.newest_topics = image.offset();
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
                if !matches!(self.groups.get(&key.group), Some(Group::Classic(_))) {
                    self.groups.remove(&key.group);
                    self.add_classic(&key.group, now);
                }
                let Some(Group::Classic(group)) = self.groups.get_mut(&key.group) else { unreachable!("it was just added") };
                group.replay(value);
            }
            CoordinatorRecord::GroupMetadata { key, value: None } => {
                // Of a classic group; one of another type that took its place stays.
                if let Some(Group::Classic(_)) = self.groups.get(&key.group) {
                    self.groups.remove(&key.group);
                }
            }
            CoordinatorRecord::ConsumerGroupMetadata { key, value: Some(value) } => self.consumer(&key.group_id).replay_epoch(value),
            CoordinatorRecord::ConsumerGroupMetadata { key, value: None } => {
                if let Some(Group::Consumer(_)) = self.groups.get(&key.group_id) {
                    self.groups.remove(&key.group_id);
                }
            }
            CoordinatorRecord::ConsumerGroupPartitionMetadata { key, value } => {
                if let Some(group) = self.consumer_if(&key.group_id, value.is_some()) {
                    group.replay_partition_metadata(value.is_some());
                }
            }
            CoordinatorRecord::ConsumerGroupMemberMetadata { key, value } => {
                if let Some(group) = self.consumer_if(&key.group_id, value.is_some()) {
                    group.replay_member(&key.member_id, value.as_ref());
                }
            }
            CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata { key, value } => {
                if let Some(group) = self.consumer_if(&key.group_id, value.is_some()) {
                    group.replay_target_epoch(value.as_ref());
                }
            }
            CoordinatorRecord::ConsumerGroupTargetAssignmentMember { key, value } => {
                if let Some(group) = self.consumer_if(&key.group_id, value.is_some()) {
                    group.replay_target(&key.member_id, value.as_ref());
                }
            }
            CoordinatorRecord::ConsumerGroupCurrentMemberAssignment { key, value } => {
                if let Some(group) = self.consumer_if(&key.group_id, value.is_some()) {
                    group.replay_assignment(&key.member_id, value.as_ref());
                }
            }
            CoordinatorRecord::ConsumerGroupRegularExpression { key, value } => {
                if let Some(group) = self.consumer_if(&key.group_id, value.is_some()) {
                    group.replay_regex(&key.regular_expression, value.as_ref());
                }
            }
        }
    }

    /// The consumer group of this id, made if there is none. It takes the place of a group that only held offsets, and of any other whose tombstone compaction has taken away.
    fn consumer(&mut self, group_id: &Str) -> &mut ConsumerGroup {
        if !matches!(self.groups.get(group_id), Some(Group::Consumer(_))) {
            self.groups.insert(group_id.detached(), Group::Consumer(Box::new(ConsumerGroup::new(group_id))));
        }
        match self.groups.get_mut(group_id) {
            Some(Group::Consumer(group)) => group,
            _ => unreachable!("it was just added"),
        }
    }

    /// The consumer group of this id. A tombstone makes none.
    fn consumer_if(&mut self, group_id: &Str, makes_one: bool) -> Option<&mut ConsumerGroup> {
        let is_there = matches!(self.groups.get(group_id), Some(Group::Consumer(_)));
        (is_there || makes_one).then(|| self.consumer(group_id))
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
        let mut turn = Turn {
            now,
            config: &self.config,
            image: &self.image,
            topics_version: self.topics_version,
            newest_topics: self.newest_topics,
            timers: &mut self.timers,
            step: &mut step,
        };
        for group in self.groups.values_mut() {
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
            Call::ConsumerHeartbeat(request) => self.heartbeat_bytes(request),
            Call::Heartbeat(_)
            | Call::FetchOffsets { .. }
            | Call::DescribeGroups(_)
            | Call::DescribeConsumerGroups(_)
            | Call::ListGroups { .. } => 0,
        }
    }

    fn group_bytes(&self, group_id: &str) -> usize {
        self.groups.get(group_id).map_or(0, |group| group.recorded_bytes(RECORD_BYTES))
    }

    /// A heartbeat that says nothing new appends at most what its member may have come to.
    fn heartbeat_bytes(&self, request: &ConsumerGroupHeartbeatRequest) -> usize {
        let names: usize = request.subscribed_topic_names.iter().flatten().map(|name| name.len()).sum();
        let may_assign = match self.groups.get(&request.group_id) {
            Some(Group::Consumer(group)) => request.member_epoch <= 0 || names > 0 || group.awaits_target(),
            _ => true,
        };
        let whole = if may_assign { 2 * self.group_bytes(&request.group_id) } else { 0 };
        4 * RECORD_BYTES + names + whole
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
            Call::ConsumerHeartbeat(request) => self.consumer_heartbeat(now, token, caller, request, &mut step),
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
            Call::DescribeConsumerGroups(group_ids) => {
                let groups = group_ids.iter().map(|group_id| self.describe_consumer(group_id)).collect();
                step.reply(token, Reply::DescribeConsumerGroups(groups));
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

    fn sync(&mut self, now: Now, token: Token, request: &SyncGroupRequest, step: &mut Step) {
        if request.group_id.is_empty() {
            return step.reply(token, refuse_sync(ErrorCode::InvalidGroupId));
        }
        match self.turn(now, &request.group_id, step) {
            (Some(Group::Classic(group)), mut turn) if !group.is_empty() => group.sync(&mut turn, token, request),
            (Some(Group::Consumer(group)), mut turn) => calls::sync(group, &mut turn, token, request),
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
            (Some(Group::Consumer(group)), mut turn) => calls::heartbeat(group, &mut turn, token, request),
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
            (Some(Group::Consumer(group)), mut turn) => calls::leave(group, &mut turn, token, request),
            (None, _) => step.reply(token, refuse(ErrorCode::UnknownMemberId)),
        }
    }

    fn commit_offsets(&mut self, now: Now, token: Token, caller: &Caller, request: &OffsetCommitRequest, step: &mut Step) {
        let generation = request.generation_id_or_member_epoch;
        let verdict = match self.turn(now, &request.group_id, step) {
            (Some(group), mut turn) => group.validate_commit(&mut turn, caller, request),
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
        let verdict = match self.groups.get(&request.group_id) {
            Some(group) => group.validate_commit_in_transaction(caller, request),
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
        let group = self.groups.get(&request.group_id);
        let reply = match group.map_or(Ok(()), |group| group.validate_fetch(request)) {
            Ok(()) => Reply::FetchOffsets(self.offsets.fetch(request, group.is_some(), require_stable)),
            Err(error) => Call::FetchOffsets { group: request.clone(), require_stable }.refuse(error),
        };
        step.reply(token, reply);
    }

    fn delete_offsets(&mut self, token: Token, request: &OffsetDeleteRequest, step: &mut Step) {
        let refuse = |error: ErrorCode| OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
        let response = match self.groups.get(&request.group_id) {
            _ if request.group_id.is_empty() => refuse(ErrorCode::InvalidGroupId),
            None => refuse(ErrorCode::GroupIdNotFound),
            Some(group) => match group.validate_offset_delete() {
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
        let message = match self.groups.get(group_id) {
            Some(_) => format!("Group {group_id} is not a classic group."),
            None => format!("Group {group_id} not found."),
        };
        let absent = DescribedGroup { group_id: group_id.clone(), group_state: Str::from("Dead"), ..Default::default() };
        if version < DESCRIBE_GROUP_NOT_FOUND_VERSION {
            return absent;
        }
        DescribedGroup { error_code: ErrorCode::GroupIdNotFound.code(), error_message: Some(Str::from(message)), ..absent }
    }

    fn list(&self, states: &[Str], types: &[Str]) -> Vec<ListedGroup> {
        let passes =
            |filters: &[Str], value: &str| filters.is_empty() || filters.iter().any(|filter| filter.trim().eq_ignore_ascii_case(value));
        let groups = self.groups.values().filter(|group| passes(types, group.group_type().name()) && passes(states, group.state_name()));
        groups.map(Group::list).collect()
    }

    fn delete_groups(&mut self, token: Token, group_ids: &[Str], step: &mut Step) {
        step.divisible = true;
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let error = match self.groups.get(group_id) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) => match group.validate_delete() {
                    Err(error) => error,
                    Ok(()) => {
                        self.offsets.delete_of_group(group_id, step);
                        step.records.extend(group.tombstones());
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
        if !self.works.is_empty() || !self.resolving.is_empty() {
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
            self.on_timer(now, entry_ms, key, &mut step);
            if !step.is_empty() {
                return Some(step);
            }
        }
        if let Some(step) = self.go_on_resolving(now) {
            return Some(step);
        }
        if self.next_sweep_ms <= now.steady_ms {
            self.next_sweep_ms = now.steady_ms.saturating_add(self.config.offsets_retention_check_interval_ms);
            self.begin(WorkKind::Expire);
        }
        self.work_on(now)
    }

    fn on_timer(&mut self, now: Now, entry_ms: i64, key: TimerKey, step: &mut Step) {
        let kept = self.timers.look_kept(entry_ms, now.steady_ms, &key);
        match (self.turn(now, &key.group_id.clone(), step), kept, &key.of) {
            (_, Some(Look::NotDue), _) => {}
            ((Some(Group::Consumer(group)), mut turn), Some(Look::Due), of) => group.on_timer(&mut turn, of),
            ((Some(Group::Classic(group)), mut turn), Some(Look::Due), TimerOf::Converted { rebalances }) => {
                group.on_converted(&mut turn, *rebalances);
            }
            ((Some(Group::Classic(group)), mut turn), None, _) => group.on_timer(&mut turn, entry_ms, key),
            // The group has gone, or changed its type.
            _ => {}
        }
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
                let Some(group) = self.groups.get(group_id) else { return };
                let is_subscribed_to = |topic: &str| group.is_subscribed_to(topic);
                let retention = Retention { now_ms: now.wall_ms, kept_ms: self.config.offsets_retention_ms, base: group.retention_base() };
                let nothing_is_left = self.offsets.expire(group_id, retention, is_subscribed_to, OFFSETS_PER_STEP, step);
                if nothing_is_left && group.is_empty() {
                    step.records.extend(group.tombstones());
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
                self.forget(now, &group_id, append_error, &mut after);
            }
            Undo::PutBack { group_id, before } => {
                self.forget(now, &group_id, append_error, &mut after);
                self.groups.insert(before.id().clone(), before);
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

    /// The group was never made.
    fn forget(&mut self, now: Now, group_id: &str, append_error: ErrorCode, after: &mut Step) {
        if let (Some(group), mut turn) = self.turn(now, group_id, after) {
            group.dismiss(&mut turn, coordinator_error(append_error));
        }
        self.groups.remove(group_id);
    }

    /// Answers everybody who waits: this coordinator's time is over.
    pub fn dismiss(mut self, error: ErrorCode) -> Vec<(Token, Reply)> {
        let mut step = Step::default();
        for mut group in std::mem::take(&mut self.groups).into_values() {
            let (_, mut turn) = self.turn(Now::default(), "", &mut step);
            group.dismiss(&mut turn, error);
        }
        step.replies
    }

    // Below the decisions

    fn add_classic(&mut self, group_id: &Str, now: Now) {
        let group = Group::Classic(Box::new(ClassicGroup::new(group_id, now.wall_ms)));
        self.groups.entry(group_id.detached()).or_insert(group);
    }

    pub(crate) fn config(&self) -> &GroupConfig {
        &self.config
    }

    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    pub(crate) fn group(&self, group_id: &str) -> Option<&Group> {
        self.groups.get(group_id)
    }

    /// The group, if it is there, and a turn to decide with.
    pub(crate) fn turn<'a>(&'a mut self, now: Now, group_id: &str, step: &'a mut Step) -> (Option<&'a mut Group>, Turn<'a>) {
        let turn = Turn {
            now,
            config: &self.config,
            image: &self.image,
            topics_version: self.topics_version,
            newest_topics: self.newest_topics,
            timers: &mut self.timers,
            step,
        };
        (self.groups.get_mut(group_id), turn)
    }

    #[cfg(test)]
    pub(crate) fn classic(&self, group_id: &str) -> Option<&ClassicGroup> {
        match self.groups.get(group_id)? {
            Group::Classic(group) => Some(group),
            Group::Consumer(_) => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn consumer_group(&self, group_id: &str) -> Option<&ConsumerGroup> {
        match self.groups.get(group_id)? {
            Group::Consumer(group) => Some(group),
            Group::Classic(_) => None,
        }
    }
}

impl Turn<'_> {
    /// Sets a timer to `timeout_ms` from now.
    pub(crate) fn arm(&mut self, timer: &mut Timer, timeout_ms: i64, key: impl FnOnce() -> TimerKey) {
        self.timers.arm(timer, self.now.steady_ms.saturating_add(timeout_ms.max(0)), key);
    }

    /// Sets a timer that the queue keeps to `timeout_ms` from now.
    pub(crate) fn arm_kept(&mut self, key: TimerKey, timeout_ms: i64) {
        self.timers.arm_kept(key, self.now.steady_ms.saturating_add(timeout_ms.max(0)));
    }

    pub(crate) fn session_timeout_ms(&self, group_id: &str) -> i32 {
        self.group_setting(group_id, "consumer.session.timeout.ms").unwrap_or(self.config.consumer_session_timeout_ms)
    }

    pub(crate) fn heartbeat_interval_ms(&self, group_id: &str) -> i32 {
        self.group_setting(group_id, "consumer.heartbeat.interval.ms").unwrap_or(self.config.consumer_heartbeat_interval_ms)
    }

    pub(crate) fn assignment_interval_ms(&self, group_id: &str) -> i32 {
        self.group_setting(group_id, "consumer.assignment.interval.ms").unwrap_or(self.config.consumer_assignment_interval_ms)
    }

    /// What this group was given in the place of the broker's setting.
    fn group_setting(&self, group_id: &str, name: &str) -> Option<i32> {
        self.image.config(ConfigResourceType::Group, group_id)?.get(name)?.trim().parse().ok()
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
