//! A group of the classic protocol (KIP-62, 134, 345, 394): the members and what they agreed on.
//!
//! Two kinds of state live here. What a `GroupMetadataValue` record says (generation, protocol, leader, members and their assignments) is the group's durable side: it becomes true
//! by `replay`, and a restart rebuilds it by the same call. The rest (requests that wait, members that are about to join, deadlines, the generation that a rebalance is about to
//! give) is gone after a restart, by design: members notice and join again.
//!
//! The handlers stand in the files beside this one: `join`, `sync` (with heartbeat and leave), `rebalance` (the phases and their timers).

mod join;
mod member;
mod rebalance;
mod sync;

pub(crate) use join::{Joining, MEMBER_ID_REQUIRED_VERSION};
pub(crate) use member::{Member, Protocol};

use super::GroupType;
use super::coordinator::Turn;
use super::record::CoordinatorRecord;
use super::subscription::subscribed_topics;
use super::timer::{Timer, TimerKey, TimerOf};
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::messages::{JoinGroupResponse, SyncGroupResponse};
use crate::wire::records::group_coordinator::group_metadata_value::MemberMetadata;
use crate::wire::records::{GroupMetadataKey, GroupMetadataValue};
use crate::wire::{ErrorCode, Str};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The protocol type of ordinary consumers; only theirs has subscriptions that the coordinator can read.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Where a classic group stands. (Kafka's fifth state, Dead, is that of a group which is not there.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members: new, or only offsets are left, or only ever offsets were committed.
    Empty,
    /// Members are asked to join; their requests wait.
    PreparingRebalance,
    /// A generation is formed; its members wait for the leader's assignment.
    CompletingRebalance,
    /// Every member may have its assignment.
    Stable,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub(crate) struct ClassicGroup {
    id: Str,
    state: State,
    /// The state before; a rebalance that began from Empty is the group's initial one.
    previous_state: State,
    /// When the current state began; `None` when read from a record that predates the field.
    state_since_ms: Option<i64>,
    /// `None` until a first member brings one: such a group only stores offsets ("simple").
    protocol_type: Option<Str>,
    protocol: Option<Str>,
    generation: i32,
    leader: Option<Str>,
    /// By member id.
    members: BTreeMap<Str, Member>,
    /// Member ids by group instance id.
    static_members: BTreeMap<Str, Str>,
    /// Ids that were given out and have not come back (KIP-394), each with its patience.
    pending_joins: BTreeMap<Str, Timer>,
    /// Members of the generation that have not asked for their assignment yet.
    pending_syncs: BTreeSet<Str>,
    /// How many members' JoinGroup requests wait.
    awaiting_join: usize,
    /// How many members support each protocol.
    supporters: BTreeMap<Str, usize>,
    /// What the members subscribe to, where that is known.
    subscribed_topics: Option<BTreeSet<Str>>,
    join_phase: Timer,
    sync_phase: Timer,
    /// Set during an initial rebalance.
    initial_delay: Option<rebalance::InitialDelay>,
}

impl ClassicGroup {
    pub(crate) fn new(id: &str, now_ms: i64) -> ClassicGroup {
        ClassicGroup {
            id: Str::from(id),
            state: State::Empty,
            previous_state: State::Empty,
            state_since_ms: Some(now_ms),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            awaiting_join: 0,
            supporters: BTreeMap::new(),
            subscribed_topics: None,
            join_phase: Timer::off(),
            sync_phase: Timer::off(),
            initial_delay: None,
        }
    }

    // What the group is asked

    pub(crate) fn id(&self) -> &Str {
        &self.id
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn protocol(&self) -> Option<&Str> {
        self.protocol.as_ref()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether a member subscribes to the topic. Consumers whose subscription cannot be read are taken to subscribe to everything.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// From when the retention of the group's offsets counts.
    pub(crate) fn retention_base(&self) -> RetentionBase {
        match (&self.protocol_type, self.state) {
            (None, _) => RetentionBase::Commit,
            (Some(_), State::Empty) => self.state_since_ms.map_or(RetentionBase::Commit, RetentionBase::Since),
            (Some(_), State::Stable) if self.uses_consumer_protocol() && self.subscribed_topics.is_some() => RetentionBase::Commit,
            (Some(_), _) => RetentionBase::Forever,
        }
    }

    /// Whether this member, under this instance id, is who the group takes it for.
    pub(crate) fn validate_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if **current != *member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether offsets may be committed in this member's name. A commit from a member also shows that it lives.
    pub(crate) fn validate_commit(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.is_empty() {
            // From an admin client, or a consumer that assigns its partitions itself.
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.renew_session(turn, member_id);
        Ok(())
    }

    /// Whether a transaction may commit offsets in this member's name. Who names no member is a producer from before KIP-447, and is let through.
    pub(crate) fn validate_commit_in_transaction(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        let names_member = generation >= 0 || !member_id.is_empty() || instance_id.is_some();
        if (generation < 0 && self.is_empty()) || !names_member {
            return Ok(());
        }
        self.validate_member(member_id, instance_id)?;
        if generation == self.generation { Ok(()) } else { Err(ErrorCode::IllegalGeneration) }
    }

    /// Whether offsets of the group may be deleted.
    pub(crate) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() || self.uses_consumer_protocol() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }

    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: Str::from(self.state.name()),
            group_type: Str::from(GroupType::Classic.name()),
            ..Default::default()
        }
    }

    /// Protocol and members' metadata are only told while Stable: before that they are not agreed on.
    pub(crate) fn describe(&self) -> DescribedGroup {
        let protocol = match self.state {
            State::Stable => self.protocol.as_ref(),
            State::Empty | State::PreparingRebalance | State::CompletingRebalance => None,
        };
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Str::from(self.state.name()),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.cloned().unwrap_or_default(),
            members: self.members.values().map(|member| member.describe(protocol.map(|protocol| &**protocol))).collect(),
            ..Default::default()
        }
    }

    // The durable side

    /// The record of the group as it is, with each member's assignment as `assignment_of` has it.
    fn record(&self, assignment_of: impl Fn(&Member) -> Bytes) -> CoordinatorRecord {
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: self.protocol.as_deref().map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: assignment_of(member),
            ..Default::default()
        });
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: members.collect(),
            ..Default::default()
        };
        CoordinatorRecord::GroupMetadata { key: self.record_key(), value: Some(value) }
    }

    /// What the members take in a record, at most; each has `overhead` bytes beside what varies.
    pub(crate) fn members_bytes(&self, overhead: usize) -> usize {
        self.members.values().map(|member| overhead + member.recorded_bytes_max()).sum()
    }

    /// The record that makes a new group known, whoever is about to join it.
    pub(crate) fn creation_record(&self) -> CoordinatorRecord {
        let current_state_timestamp = self.state_since_ms.unwrap_or(-1);
        let value = GroupMetadataValue { protocol: None, leader: None, current_state_timestamp, ..Default::default() };
        CoordinatorRecord::GroupMetadata { key: self.record_key(), value: Some(value) }
    }

    pub(crate) fn tombstone(&self) -> CoordinatorRecord {
        CoordinatorRecord::GroupMetadata { key: self.record_key(), value: None }
    }

    fn record_key(&self) -> GroupMetadataKey {
        GroupMetadataKey { group: self.id.clone(), ..Default::default() }
    }

    /// The group is what this record says: on an ordinary day after its append, at a start from the log.
    ///
    /// What no record carries stays with the members that the record confirms: waiting requests, deadlines, the protocols beside the chosen one.
    pub(crate) fn replay(&mut self, value: &GroupMetadataValue) {
        if self.state == State::PreparingRebalance {
            // The record that opens a group is appended while its first members join already; it says nothing about them.
            assert!(value.members.is_empty(), "a generation is recorded while its successor is being formed");
            return;
        }
        self.protocol_type = Some(&value.protocol_type).filter(|name| !name.is_empty()).map(Str::detached);
        self.protocol = value.protocol.as_ref().map(Str::detached);
        self.generation = value.generation;
        self.state_since_ms = Some(value.current_state_timestamp).filter(|since_ms| *since_ms != -1);

        self.leader = value.leader.as_ref().map(Str::detached);

        let mut before = std::mem::take(&mut self.members);
        self.static_members.clear();
        self.supporters.clear();
        for recorded in &value.members {
            let known = before.remove(&recorded.member_id);
            let protocol = self.protocol.clone().unwrap_or_default();
            self.put_member(Member::recorded(known, recorded, protocol));
        }
        self.previous_state = self.state;
        self.state = if self.members.is_empty() { State::Empty } else { State::Stable };
        self.subscribed_topics = self.compute_subscribed_topics();
        assert!(self.awaiting_join == 0, "a group is recorded as agreed while members still wait to join");
    }

    // Members

    /// Puts a member in place, with everything that is counted over members.
    fn put_member(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            let previous = self.static_members.insert(instance_id.clone(), member.id.clone());
            assert!(previous.is_none(), "one instance id, two members");
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.count_supporters(&member.protocols);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        let previous = self.members.insert(member.id.clone(), member);
        assert!(previous.is_none(), "one member id, two members");
    }

    /// Takes a member, or an id given out, out of the group. Whoever still waits under that id is told that it is not known any more, so that a live client joins anew.
    fn remove_member(&mut self, turn: &mut Turn<'_>, member_id: &str) -> Option<Member> {
        self.answer_join(turn, member_id, refused_join(ErrorCode::UnknownMemberId));
        self.answer_sync(turn, member_id, refused_sync(ErrorCode::UnknownMemberId));
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.discount_supporters(&member.protocols);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn all_joined(&self) -> bool {
        self.awaiting_join == self.members.len() && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout among the members.
    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    fn renew_session(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            let timeout_ms = i64::from(member.session_timeout_ms);
            turn.arm(&mut member.session, timeout_ms, || session_key(&self.id, member_id));
        }
    }

    /// Answers the JoinGroup request of this member, if one waits.
    fn answer_join(&mut self, turn: &mut Turn<'_>, member_id: &str, response: JoinGroupResponse) -> bool {
        let Some(token) = self.members.get_mut(member_id).and_then(|member| member.awaiting_join.take()) else { return false };
        self.awaiting_join -= 1;
        turn.reply_join(token, response);
        true
    }

    /// Answers the SyncGroup request of this member, if one waits.
    fn answer_sync(&mut self, turn: &mut Turn<'_>, member_id: &str, response: SyncGroupResponse) -> bool {
        let Some(token) = self.members.get_mut(member_id).and_then(|member| member.awaiting_sync.take()) else { return false };
        turn.reply_sync(token, response);
        true
    }

    /// Answers everybody who waits. The coordinator is going, or the group with it.
    pub(crate) fn dismiss(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        let member_ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            self.answer_join(turn, member_id, JoinGroupResponse { member_id: member_id.clone(), ..refused_join(error) });
            self.answer_sync(turn, member_id, refused_sync(error));
        }
    }

    // Protocols

    /// Whether a member of this type, with these protocols, has a place among those that are here.
    fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|protocol| self.is_common(&protocol.name))
    }

    /// Whether every member supports the protocol.
    fn is_common(&self, protocol: &str) -> bool {
        self.supporters.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// The protocol of the next generation: each member votes for the first of its own that all support.
    fn select_protocol(&self) -> Str {
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|protocol| self.is_common(&protocol.name));
            *votes.entry(&vote.expect("members without a common protocol are not admitted").name).or_default() += 1;
        }
        let (protocol, _) = votes.into_iter().max_by_key(|(_, votes)| *votes).expect("only members vote");
        protocol.clone()
    }

    fn count_supporters(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.supporters.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn discount_supporters(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            let count = self.supporters.get_mut(&protocol.name).expect("a member's protocols were counted");
            *count -= 1;
            if *count == 0 {
                self.supporters.remove(&protocol.name);
            }
        }
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// The only way from state to state.
    fn transition(&mut self, now_ms: i64, next: State) {
        let legal = matches!(
            (self.state, next),
            (State::Empty | State::CompletingRebalance | State::Stable, State::PreparingRebalance)
                | (State::PreparingRebalance, State::CompletingRebalance | State::Empty)
        );
        // Stable is reached by replay alone.
        assert!(legal, "group {} goes from {:?} to {next:?}", self.id, self.state);
        self.previous_state = self.state;
        self.state = next;
        self.state_since_ms = Some(now_ms);
    }
}

/// From when an offset without an expiry of its own is kept for `offsets.retention.minutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetentionBase {
    /// Since the group lost its last member.
    Since(i64),
    /// Since the offset was committed.
    Commit,
    /// Not at all in this state.
    Forever,
}

fn session_key(group_id: &Str, member_id: &str) -> TimerKey {
    TimerKey { group_id: group_id.clone(), of: TimerOf::Session(Str::from(member_id)) }
}

fn refused_join(error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse { error_code: error.code(), ..Default::default() }
}

fn refused_sync(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: error.code(), ..Default::default() }
}

#[cfg(test)]
impl ClassicGroup {
    /// How many members have a request waiting.
    pub(crate) fn waits(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some() || member.awaiting_sync.is_some()).count()
    }

    pub(crate) fn current_record(&self) -> CoordinatorRecord {
        self.record(|member| member.assignment.clone())
    }

    /// Everything that is counted or indexed over members agrees with them.
    pub(crate) fn check(&self) {
        assert_eq!(self.awaiting_join, self.members.values().filter(|member| member.awaiting_join.is_some()).count());
        let mut supporters: BTreeMap<Str, usize> = BTreeMap::new();
        for protocol in self.members.values().flat_map(|member| &member.protocols) {
            *supporters.entry(protocol.name.clone()).or_default() += 1;
        }
        assert_eq!(self.supporters, supporters);
        let instances = self.members.values().filter_map(|member| Some((member.instance_id.clone()?, member.id.clone())));
        assert_eq!(self.static_members, instances.collect::<BTreeMap<Str, Str>>());
        assert!(self.members.iter().all(|(id, member)| *id == member.id));
        assert!(self.pending_joins.keys().all(|id| !self.members.contains_key(id)));
        assert!(self.pending_syncs.iter().all(|id| self.members.contains_key(id)));
        assert_eq!(
            self.is_empty() || self.state == State::PreparingRebalance,
            self.members.is_empty() || self.state == State::PreparingRebalance
        );
        if let Some(leader) = &self.leader {
            assert!(self.members.contains_key(leader));
        }
    }
}
