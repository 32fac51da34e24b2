//! The coordinator of one partition of `__consumer_offsets`: its groups and their offsets.
//!
//! Life: made empty, fed the partition's log through `replay` and `replay_end_transaction`, told `on_loaded`; from then on `handle`, `tick` and `on_topic_deleted` decide, and the
//! driver appends and replays what each decision says before it asks for the next one. `dismiss` ends it and answers whoever still waits.
//!
//! What it does is cut by who asks: `membership` and `offset_calls` for clients, `admin` for administrators, `work` for the clock; calls of the consumer protocol are with
//! `group::consumer`. `turn` is what a decision has in hand, `replay` what comes of it.

mod admin;
mod membership;
mod offset_calls;
mod replay;
mod room;
mod turn;
mod work;

use self::work::Work;
use super::any::Group;
use super::call::{Call, Caller, Reply, Step, Token, Undo, coordinator_error};
#[cfg(test)]
use super::classic::ClassicGroup;
#[cfg(test)]
use super::consumer::ConsumerGroup;
use super::consumer::Resolving;
use super::offsets::Offsets;
use super::timer::Timers;
use super::{GroupConfig, Now};
use crate::cluster::Image;
use crate::wire::{ErrorCode, Str};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(crate) use self::turn::Turn;

/// No metadata has been seen yet.
const NO_TOPICS_YET: i64 = -1;

type Groups = HashMap<Str, Group, foldhash::fast::RandomState>;

#[derive(Debug)]
pub struct Coordinator {
    config: GroupConfig,
    image: Arc<Image>,
    topics_version: u64,
    newest_topics: i64,
    groups: Groups,
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

    /// The log has been read to its end. Sessions of the members found in it begin now.
    pub fn on_loaded(&mut self, now: Now) {
        assert!(self.is_loading);
        self.is_loading = false;
        self.next_sweep_ms = now.steady_ms.saturating_add(self.config.offsets_retention_check_interval_ms);
        let mut step = Step::default();
        let (groups, mut turn) = self.groups_and_turn(now, &mut step);
        for group in groups.values_mut() {
            group.on_loaded(&mut turn);
        }
        assert!(step.is_empty(), "nobody waits and nothing is decided while members may still show up");
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

    // What it holds

    pub fn group_count(&self) -> usize {
        self.groups.len()
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
        let (groups, turn) = self.groups_and_turn(now, step);
        (groups.get_mut(group_id), turn)
    }

    fn groups_and_turn<'a>(&'a mut self, now: Now, step: &'a mut Step) -> (&'a mut Groups, Turn<'a>) {
        let turn = Turn {
            now,
            config: &self.config,
            image: &self.image,
            topics_version: self.topics_version,
            newest_topics: self.newest_topics,
            timers: &mut self.timers,
            step,
        };
        (&mut self.groups, turn)
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
