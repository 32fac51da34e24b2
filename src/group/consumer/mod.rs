//! A group of the consumer protocol (KIP-848): the coordinator assigns, each member moves to its part of the target in its own time.
//!
//! Three epochs order everything. The *group epoch* rises with every change that calls for another assignment: members, subscriptions, the topics' partitions, the assignor. The
//! *assignment epoch* is the group epoch that the target assignment was made for. A *member epoch* says which target the member has come to.
//!
//! All of the state here is durable: it changes by `replay` of records alone, so that a restart ends where the last record left it. Deadlines lie with the coordinator's `Timers`,
//! under the member's id. Decisions take the group as it is and a member as it is to become; they are in the files beside this one: `heartbeat`, `target`, `reconcile`, `leave`,
//! `regex`, `classic` (members that speak the classic protocol) and `convert` (whole groups that change their protocol).

mod assignor;
pub(crate) mod calls;
mod classic;
mod convert;
mod describe;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
mod refusal;
mod regex;
mod target;
mod topic_hash;

pub(crate) use assignor::NAMES as ASSIGNORS;
pub use heartbeat::validate_heartbeat;
pub(crate) use member::{Assignment, Member};
pub(crate) use refusal::Refusal;
pub(crate) use regex::Resolving;

use self::member::{MemberState, assignment_key, metadata_key};
use super::coordinator::Turn;
use super::record::CoordinatorRecord;
use super::timer::{TimerKey, TimerOf};
use crate::cluster::Image;
use crate::wire::records::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey, ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey, ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
};
use crate::wire::{ErrorCode, Str};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Where a consumer group stands. (Kafka's fifth state, Dead, is that of a group which is not there.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    /// The target assignment is older than the group.
    Assigning,
    /// Some members have not come to the target yet.
    Reconciling,
    Stable,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

/// What a regular expression matched when it was last looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ResolvedRegex {
    pub(crate) topics: BTreeSet<Str>,
    /// The metadata that it was resolved against.
    pub(crate) version: i64,
    pub(crate) resolved_at_ms: i64,
}

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    pub(crate) id: Str,
    pub(crate) epoch: i32,
    /// Of the topics subscribed to, when the epoch was last raised.
    pub(crate) metadata_hash: i64,
    /// -1 once the target was taken away.
    pub(crate) assignment_epoch: i32,
    /// When the target was made; 0 when that does not matter any more.
    pub(crate) assigned_at_ms: i64,
    members: BTreeMap<Str, Member>,
    /// The target assignment by member id.
    targets: BTreeMap<Str, Assignment>,
    regexes: BTreeMap<Str, ResolvedRegex>,
    /// A record of Kafka before 4.1 that the next epoch's takes the place of.
    has_partition_metadata: bool,

    // Counted over members
    static_members: BTreeMap<Str, Str>,
    /// Who holds each partition.
    holders: HashMap<(Uuid, i32), Str, foldhash::fast::RandomState>,
    /// How many members name each topic.
    named_topics: BTreeMap<Str, usize>,
    /// How many members subscribe by each regular expression.
    regex_subscribers: BTreeMap<Str, usize>,
    /// How many members wish for each assignor.
    assignors: BTreeMap<Str, usize>,
    classic_members: usize,
    /// How many classic members know each protocol.
    classic_protocols: BTreeMap<Str, usize>,
    /// What the members and their targets take in records, about.
    members_bytes: usize,
    targets_bytes: usize,

    /// For which topics (a number that rises with every change of them) and in which epoch the metadata hash was last reckoned. Not recorded: once more does no harm.
    hashed: Cell<Option<(u64, i32)>>,
}

impl ConsumerGroup {
    pub(crate) fn new(id: &str) -> ConsumerGroup {
        ConsumerGroup {
            id: Str::from(id),
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            assignment_epoch: FIRST_EPOCH,
            assigned_at_ms: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            regexes: BTreeMap::new(),
            has_partition_metadata: false,
            static_members: BTreeMap::new(),
            holders: HashMap::default(),
            named_topics: BTreeMap::new(),
            regex_subscribers: BTreeMap::new(),
            assignors: BTreeMap::new(),
            classic_members: 0,
            classic_protocols: BTreeMap::new(),
            members_bytes: 0,
            targets_bytes: 0,
            hashed: Cell::new(None),
        }
    }

    // What the group is asked

    pub(crate) fn state(&self) -> State {
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.assignment_epoch {
            State::Assigning
        } else if self.members.values().any(|member| !member.is_reconciled_to(self.assignment_epoch)) {
            State::Reconciling
        } else {
            State::Stable
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn member(&self, member_id: &str) -> Result<&Member, Refusal> {
        self.members
            .get(member_id)
            .ok_or_else(|| Refusal::new(ErrorCode::UnknownMemberId, format!("Member {member_id} is not a member of group {}.", self.id)))
    }

    pub(crate) fn static_member(&self, instance_id: &str) -> Option<&Member> {
        self.static_members.get(instance_id).map(|member_id| &self.members[member_id])
    }

    /// The member's part of the target. A static member that is being replaced still stands under its old id.
    pub(crate) fn target_of(&self, member_id: &str, instance_id: Option<&str>) -> Assignment {
        let member_id = match instance_id {
            None => Some(member_id),
            Some(instance_id) => self.static_members.get(instance_id).map(|member_id| &**member_id),
        };
        member_id.and_then(|member_id| self.targets.get(member_id)).cloned().unwrap_or_default()
    }

    pub(crate) fn holder(&self, topic_id: &Uuid, partition: i32) -> Option<&Str> {
        self.holders.get(&(*topic_id, partition))
    }

    /// Whether a member subscribes to the topic, by name or by a regular expression.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.named_topics.contains_key(topic) || self.regexes.values().any(|resolved| resolved.topics.contains(topic))
    }

    /// The topics that the member subscribes to and that are there.
    pub(crate) fn subscribed_topic_ids(&self, member: &Member, image: &Image) -> BTreeSet<Uuid> {
        let by_regex = member.regex().and_then(|regex| self.regexes.get(regex)).map(|resolved| &resolved.topics);
        let names = member.topic_names.iter().chain(by_regex.into_iter().flatten());
        names.filter_map(|name| image.topic(name)).map(|topic| topic.id).collect()
    }

    /// The wish that most members have, if any has one. `replaced` is reckoned with as `replacement`.
    pub(crate) fn preferred_assignor(&self, replaced: Option<&Member>, replacement: Option<&Member>) -> Option<Str> {
        let mut wishes = self.assignors.clone();
        if let Some(name) = replaced.and_then(|member| member.assignor.as_ref()) {
            discount(&mut wishes, name);
        }
        if let Some(name) = replacement.and_then(|member| member.assignor.as_ref()) {
            count(&mut wishes, name);
        }
        wishes.into_iter().max_by_key(|(_, members)| *members).map(|(name, _)| name)
    }

    /// What its records take, about, when everybody is assigned anew; each has `overhead` bytes beside what varies.
    pub(crate) fn recorded_bytes(&self, overhead: usize) -> usize {
        3 * overhead * self.members.len() + self.members_bytes + 3 * self.targets_bytes
    }

    /// Whether a heartbeat may find something to do for more than one member.
    pub(crate) fn awaits_target(&self) -> bool {
        self.epoch > self.assignment_epoch
    }

    /// Whether offsets may be committed in this member's name for these partitions.
    ///
    /// A commit of an older epoch counts for what the member has had since then at the latest: its reply about the new epoch may be on its way (KIP-1251).
    pub(crate) fn validate_commit(
        &self,
        member_id: &str,
        epoch: i32,
        is_transactional: bool,
        version: i16,
        mut partitions: impl Iterator<Item = (Uuid, i32)>,
    ) -> Result<(), ErrorCode> {
        let is_nobodys = epoch < 0 && (self.is_empty() || (is_transactional && member_id.is_empty()));
        if is_nobodys {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !is_transactional && !member.uses_classic_protocol() && version < MEMBER_COMMIT_VERSION_MIN {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let stale = if member.uses_classic_protocol() { ErrorCode::IllegalGeneration } else { ErrorCode::StaleMemberEpoch };
        match epoch.cmp(&member.epoch) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(stale),
            std::cmp::Ordering::Less => {
                let is_covered = |(topic_id, partition): (Uuid, i32)| {
                    member.assignment_epoch(&topic_id, partition).is_some_and(|assigned_in| epoch >= assigned_in)
                };
                if partitions.all(is_covered) { Ok(()) } else { Err(stale) }
            }
        }
    }

    /// Whether this member may read the group's offsets. Nobody in particular may.
    pub(crate) fn validate_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(member_id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
        };
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        match (member.epoch == epoch, member.uses_classic_protocol()) {
            (true, _) => Ok(()),
            (false, true) => Err(ErrorCode::IllegalGeneration),
            (false, false) => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    // Records

    pub(crate) fn epoch_record(&self, epoch: i32, metadata_hash: i64) -> CoordinatorRecord {
        let value = ConsumerGroupMetadataValue { epoch, metadata_hash, ..Default::default() };
        CoordinatorRecord::ConsumerGroupMetadata { key: self.epoch_key(), value: Some(value) }
    }

    pub(crate) fn target_record(&self, member_id: &Str, target: &Assignment) -> CoordinatorRecord {
        use crate::wire::records::group_coordinator::consumer_group_target_assignment_member_value::TopicPartition;
        let topic = |(topic_id, partitions): (&Uuid, &BTreeSet<i32>)| TopicPartition {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
            ..Default::default()
        };
        CoordinatorRecord::ConsumerGroupTargetAssignmentMember {
            key: self.target_key(member_id),
            value: Some(ConsumerGroupTargetAssignmentMemberValue {
                topic_partitions: target.iter().map(topic).collect(),
                ..Default::default()
            }),
        }
    }

    pub(crate) fn target_epoch_record(&self, assignment_epoch: i32, assignment_timestamp: i64) -> CoordinatorRecord {
        CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata {
            key: self.target_epoch_key(),
            value: Some(ConsumerGroupTargetAssignmentMetadataValue { assignment_epoch, assignment_timestamp, ..Default::default() }),
        }
    }

    /// The tombstones of one member.
    pub(crate) fn member_tombstones(&self, member_id: &Str) -> [CoordinatorRecord; 3] {
        [
            CoordinatorRecord::ConsumerGroupCurrentMemberAssignment { key: assignment_key(&self.id, member_id), value: None },
            CoordinatorRecord::ConsumerGroupTargetAssignmentMember { key: self.target_key(member_id), value: None },
            CoordinatorRecord::ConsumerGroupMemberMetadata { key: metadata_key(&self.id, member_id), value: None },
        ]
    }

    /// The tombstones of the whole group. `member_ids` are the members that have records by then.
    pub(crate) fn tombstones(&self, member_ids: &[Str]) -> Vec<CoordinatorRecord> {
        let of_members: Vec<[CoordinatorRecord; 3]> = member_ids.iter().map(|member_id| self.member_tombstones(member_id)).collect();
        let nth = |index: usize| of_members.iter().map(move |records| records[index].clone());
        let mut records: Vec<CoordinatorRecord> = nth(0).chain(nth(1)).collect();
        records.push(CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata { key: self.target_epoch_key(), value: None });
        records.extend(nth(2));
        records.extend(self.regexes.keys().map(|regex| self.regex_tombstone(regex)));
        records.push(self.partition_metadata_tombstone());
        records.push(CoordinatorRecord::ConsumerGroupMetadata { key: self.epoch_key(), value: None });
        records
    }

    pub(crate) fn all_tombstones(&self) -> Vec<CoordinatorRecord> {
        self.tombstones(&self.members.keys().cloned().collect::<Vec<_>>())
    }

    fn regex_record(&self, regex: &Str, resolved: &ResolvedRegex) -> CoordinatorRecord {
        CoordinatorRecord::ConsumerGroupRegularExpression {
            key: self.regex_key(regex),
            value: Some(ConsumerGroupRegularExpressionValue {
                topics: resolved.topics.iter().cloned().collect(),
                version: resolved.version,
                timestamp: resolved.resolved_at_ms,
                ..Default::default()
            }),
        }
    }

    fn regex_tombstone(&self, regex: &Str) -> CoordinatorRecord {
        CoordinatorRecord::ConsumerGroupRegularExpression { key: self.regex_key(regex), value: None }
    }

    fn partition_metadata_tombstone(&self) -> CoordinatorRecord {
        let key = ConsumerGroupPartitionMetadataKey { group_id: self.id.clone(), ..Default::default() };
        CoordinatorRecord::ConsumerGroupPartitionMetadata { key, value: None }
    }

    fn epoch_key(&self) -> ConsumerGroupMetadataKey {
        ConsumerGroupMetadataKey { group_id: self.id.clone(), ..Default::default() }
    }

    fn target_key(&self, member_id: &Str) -> ConsumerGroupTargetAssignmentMemberKey {
        ConsumerGroupTargetAssignmentMemberKey { group_id: self.id.clone(), member_id: member_id.clone(), ..Default::default() }
    }

    fn target_epoch_key(&self) -> ConsumerGroupTargetAssignmentMetadataKey {
        ConsumerGroupTargetAssignmentMetadataKey { group_id: self.id.clone(), ..Default::default() }
    }

    fn regex_key(&self, regex: &Str) -> ConsumerGroupRegularExpressionKey {
        ConsumerGroupRegularExpressionKey { group_id: self.id.clone(), regular_expression: regex.clone(), ..Default::default() }
    }

    // Replay. Compaction may have taken away records that others refer to, so nothing is expected of the order.

    pub(crate) fn replay_epoch(&mut self, value: &ConsumerGroupMetadataValue) {
        self.epoch = value.epoch;
        self.metadata_hash = value.metadata_hash;
    }

    pub(crate) fn replay_partition_metadata(&mut self, is_there: bool) {
        self.has_partition_metadata = is_there;
    }

    pub(crate) fn replay_target_epoch(&mut self, value: Option<&ConsumerGroupTargetAssignmentMetadataValue>) {
        (self.assignment_epoch, self.assigned_at_ms) = value.map_or((-1, 0), |value| (value.assignment_epoch, value.assignment_timestamp));
    }

    pub(crate) fn replay_target(&mut self, member_id: &Str, value: Option<&ConsumerGroupTargetAssignmentMemberValue>) {
        match value {
            None => self.take_target(member_id),
            Some(value) => {
                let topics = value.topic_partitions.iter();
                let target = topics.map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect())).collect();
                self.put_target(member_id, target);
            }
        }
    }

    fn put_target(&mut self, member_id: &Str, target: Assignment) {
        self.take_target(member_id);
        self.targets_bytes += target_bytes(&target);
        self.targets.insert(member_id.detached(), target);
    }

    fn take_target(&mut self, member_id: &Str) {
        if let Some(target) = self.targets.remove(member_id) {
            self.targets_bytes -= target_bytes(&target);
        }
    }

    pub(crate) fn replay_regex(&mut self, regex: &Str, value: Option<&ConsumerGroupRegularExpressionValue>) {
        match value {
            None => {
                self.regexes.remove(regex);
            }
            Some(value) => {
                let topics = value.topics.iter().map(Str::detached).collect();
                let resolved = ResolvedRegex { topics, version: value.version, resolved_at_ms: value.timestamp };
                self.regexes.insert(regex.detached(), resolved);
            }
        }
    }

    pub(crate) fn replay_member(&mut self, member_id: &Str, value: Option<&ConsumerGroupMemberMetadataValue>) {
        let before = self.take_member(member_id);
        if let Some(value) = value {
            let mut member = before.unwrap_or_else(|| Member::new(member_id));
            member.replay_metadata(value);
            self.put_member(member);
        }
    }

    pub(crate) fn replay_assignment(&mut self, member_id: &Str, value: Option<&ConsumerGroupCurrentMemberAssignmentValue>) {
        let before = self.take_member(member_id);
        match (before, value) {
            (None, None) => {}
            (Some(mut member), None) => {
                member.replay_assignment_gone();
                self.put_member(member);
            }
            (before, Some(value)) => {
                let mut member = before.unwrap_or_else(|| Member::new(member_id));
                member.replay_assignment(value);
                self.put_member(member);
            }
        }
    }

    fn put_member(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        for partition in member.held() {
            self.holders.insert(partition, member.id.clone());
        }
        member.topic_names.iter().for_each(|name| count(&mut self.named_topics, name));
        member.regex().into_iter().for_each(|regex| count(&mut self.regex_subscribers, regex));
        member.assignor.iter().for_each(|assignor| count(&mut self.assignors, assignor));
        if let Some(classic) = &member.classic {
            self.classic_members += 1;
            classic.protocols.iter().for_each(|protocol| count(&mut self.classic_protocols, &protocol.name));
        }
        self.members_bytes += member.recorded_bytes();
        self.members.insert(member.id.clone(), member);
    }

    fn take_member(&mut self, member_id: &str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.members_bytes -= member.recorded_bytes();
        if let Some(instance_id) = &member.instance_id
            && self.static_members.get(instance_id) == Some(&member.id)
        {
            self.static_members.remove(instance_id);
        }
        for partition in member.held() {
            if self.holders.get(&partition) == Some(&member.id) {
                self.holders.remove(&partition);
            }
        }
        member.topic_names.iter().for_each(|name| discount(&mut self.named_topics, name));
        member.regex().into_iter().for_each(|regex| discount(&mut self.regex_subscribers, regex));
        member.assignor.iter().for_each(|assignor| discount(&mut self.assignors, assignor));
        if let Some(classic) = &member.classic {
            self.classic_members -= 1;
            classic.protocols.iter().for_each(|protocol| discount(&mut self.classic_protocols, &protocol.name));
        }
        Some(member)
    }

    // Time

    /// The group was read from the log: its members have one session's time to show up.
    pub(crate) fn on_loaded(&self, turn: &mut Turn<'_>) {
        let session_timeout_ms = turn.session_timeout_ms(&self.id);
        for member in self.members.values() {
            self.arm(turn, TimerOf::MemberSession(member.id.clone()), session_timeout_ms);
            if member.state == MemberState::UnrevokedPartitions {
                self.arm(turn, TimerOf::MemberRebalance(member.id.clone()), member.rebalance_timeout_ms);
            }
        }
    }

    fn arm(&self, turn: &mut Turn<'_>, of: TimerOf, timeout_ms: i32) {
        turn.arm_kept(TimerKey { group_id: self.id.clone(), of }, i64::from(timeout_ms));
    }

    fn disarm(&self, turn: &mut Turn<'_>, of: TimerOf) {
        turn.timers.disarm_kept(&TimerKey { group_id: self.id.clone(), of });
    }

    /// A deadline of one of its members has passed.
    pub(crate) fn on_timer(&self, turn: &mut Turn<'_>, of: &TimerOf) {
        let (member_id, reason) = match of {
            TimerOf::MemberSession(member_id) => (member_id, "its session ended"),
            TimerOf::MemberRebalance(member_id) => (member_id, "it did not give up its partitions in time"),
            TimerOf::MemberJoin(member_id) => (member_id, "it did not join again in time"),
            TimerOf::MemberSync(member_id) => (member_id, "it did not fetch its assignment in time"),
            TimerOf::JoinPhase | TimerOf::SyncPhase | TimerOf::Session(_) | TimerOf::Converted { .. } => return,
        };
        // Whoever has gone leaves its timers behind, also those of a protocol that it may speak no more when it comes back.
        let Some(member) = self.members.get(member_id) else { return };
        let is_meant = match of {
            TimerOf::MemberRebalance(_) => member.state == MemberState::UnrevokedPartitions,
            TimerOf::MemberJoin(_) | TimerOf::MemberSync(_) => member.uses_classic_protocol(),
            _ => true,
        };
        if is_meant {
            tracing::info!(group = %self.id, member = %member_id, reason, "removed a member of a consumer group");
            self.arm(turn, of.clone(), FENCE_AGAIN_MS);
            self.fence(turn, std::slice::from_ref(member_id));
        }
    }
}

/// When a member that could not be taken out, because the records of it were refused, is tried again.
const FENCE_AGAIN_MS: i32 = 500;

/// Where groups begin: with an empty target that nobody has to wait for, in an epoch that no member takes for the one in which members join.
const FIRST_EPOCH: i32 = 1;

/// Members of the consumer protocol may commit from this version of OffsetCommit on.
const MEMBER_COMMIT_VERSION_MIN: i16 = 9;

fn target_bytes(target: &Assignment) -> usize {
    target.values().map(|partitions| 20 + 4 * partitions.len()).sum()
}

fn count(counts: &mut BTreeMap<Str, usize>, name: &Str) {
    *counts.entry(name.clone()).or_default() += 1;
}

fn discount(counts: &mut BTreeMap<Str, usize>, name: &Str) {
    if let Some(members) = counts.get_mut(name) {
        *members -= 1;
        if *members == 0 {
            counts.remove(name);
        }
    }
}

#[cfg(test)]
impl ConsumerGroup {
    /// Everything that is counted or indexed over members agrees with them, and no partition has two holders.
    pub(crate) fn check(&self) {
        let mut again = ConsumerGroup::new(&self.id);
        for member in self.members.values() {
            for partition in member.held() {
                assert!(again.holder(&partition.0, partition.1).is_none(), "{partition:?} has two holders");
            }
            again.put_member(member.clone());
        }
        assert_eq!(self.holders, again.holders);
        assert_eq!(self.static_members, again.static_members);
        assert_eq!(self.named_topics, again.named_topics);
        assert_eq!(self.regex_subscribers, again.regex_subscribers);
        assert_eq!(self.assignors, again.assignors);
        assert_eq!((self.classic_members, &self.classic_protocols), (again.classic_members, &again.classic_protocols));
        assert_eq!(self.members_bytes, again.members_bytes);
        assert_eq!(self.targets_bytes, self.targets.values().map(target_bytes).sum::<usize>());
        assert!(self.members.values().all(|member| member.epoch <= self.epoch && member.epoch != member::LEFT_EPOCH));
        assert!(self.assignment_epoch <= self.epoch);
        assert!(self.targets.keys().all(|member_id| self.members.contains_key(member_id)));
    }

    /// What the log says about the group.
    pub(crate) fn durable(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        (
            (self.epoch, self.metadata_hash, self.assignment_epoch, self.assigned_at_ms),
            self.members.clone(),
            self.targets.clone(),
            self.regexes.clone(),
        )
    }
}
