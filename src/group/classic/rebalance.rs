//! The phases of a rebalance and their timers: from "everybody join" over a formed generation to the wait for the assignment.

use super::{ClassicGroup, State, refused_sync};
use crate::group::coordinator::Turn;
use crate::group::timer::{Look, TimerKey, TimerOf};
use crate::wire::{ErrorCode, Str};

/// How an initial rebalance waits for the other members of a group that is being started: in rounds of `group.initial.rebalance.delay.ms`, as long as each round brought somebody new
/// and the largest rebalance timeout is not used up (KIP-134).
#[derive(Debug)]
pub(super) struct InitialDelay {
    round_ms: i64,
    remaining_ms: i64,
    pub(super) new_member_added: bool,
}

impl ClassicGroup {
    /// What a change among the members leads to: a rebalance, or a step further in the one under way.
    pub(super) fn rebalance_or_complete_join(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(turn),
            State::PreparingRebalance => self.complete_join_if_all_are_here(turn),
        }
    }

    /// Asks every member to join anew.
    pub(crate) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::CompletingRebalance {
            self.withdraw_assignments(turn, ErrorCode::RebalanceInProgress);
        }
        self.pending_syncs.clear();
        self.sync_phase.disarm();

        let is_initial = self.state == State::Empty;
        self.transition(turn.now.wall_ms, State::PreparingRebalance);
        if is_initial {
            let round_ms = turn.config.initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - round_ms).max(0);
            self.initial_delay = Some(InitialDelay { round_ms, remaining_ms, new_member_added: false });
            self.wait_for_joins(turn, round_ms);
        } else if self.all_joined() {
            self.complete_join(turn);
        } else {
            self.wait_for_joins(turn, self.rebalance_timeout_ms());
        }
    }

    fn wait_for_joins(&mut self, turn: &mut Turn<'_>, timeout_ms: i64) {
        turn.arm(&mut self.join_phase, timeout_ms, || TimerKey { group_id: self.id.clone(), of: TimerOf::JoinPhase });
    }

    /// No assignment is valid any more; whoever waits for his is told why.
    fn withdraw_assignments(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        let member_ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            if self.answer_sync(turn, member_id, refused_sync(error)) {
                self.renew_session(turn, member_id);
            }
        }
        for member in self.members.values_mut() {
            member.assignment.clear();
        }
    }

    /// An initial rebalance always waits its time; others end with the last member's join.
    pub(super) fn complete_join_if_all_are_here(&mut self, turn: &mut Turn<'_>) {
        let is_gathering = self.state == State::PreparingRebalance && self.previous_state != State::Empty;
        if is_gathering && self.all_joined() {
            self.complete_join(turn);
        }
    }

    /// Ends the join phase with those who are here.
    pub(super) fn complete_join(&mut self, turn: &mut Turn<'_>) {
        self.join_phase.disarm();
        self.initial_delay = None;
        self.drop_absent_dynamic_members(turn);
        if !self.members.is_empty() && !self.elect_leader_among_joined() {
            // Only static members are left and none of them is here: they are given more time, until their sessions end or one of them joins.
            return self.wait_for_joins(turn, self.rebalance_timeout_ms());
        }
        self.generation = self.generation.wrapping_add(1);
        if self.members.is_empty() { self.become_empty(turn) } else { self.form_generation(turn) }
    }

    fn drop_absent_dynamic_members(&mut self, turn: &mut Turn<'_>) {
        let is_absent_dynamic = |member: &&super::Member| member.awaiting_join.is_none() && member.instance_id.is_none();
        let absent: Vec<Str> = self.members.values().filter(is_absent_dynamic).map(|member| member.id.clone()).collect();
        for member_id in &absent {
            self.remove_member(turn, member_id);
        }
        if !absent.is_empty() {
            tracing::info!(group = %self.id, members = absent.len(), "removed dynamic members that did not rejoin in time");
        }
    }

    /// The leader stays if it joined; else the first of those who did takes over. False when nobody did.
    fn elect_leader_among_joined(&mut self) -> bool {
        let has_joined = |member_id: &Str| self.members.get(member_id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let joined = self.members.values().find(|member| member.awaiting_join.is_some());
        let Some(leader) = joined.map(|member| member.id.clone()) else { return false };
        self.leader = Some(leader);
        true
    }

    fn become_empty(&mut self, turn: &mut Turn<'_>) {
        self.protocol = None;
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition(turn.now.wall_ms, State::Empty);
        tracing::info!(group = %self.id, generation = self.generation, "group is empty");
        // Should this be refused, the generation before comes back with a restart, and its members' sessions end once more.
        turn.step.records.push(self.record(|member| member.assignment.clone()));
    }

    fn form_generation(&mut self, turn: &mut Turn<'_>) {
        self.protocol = Some(self.select_protocol());
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition(turn.now.wall_ms, State::CompletingRebalance);
        self.pending_syncs = self.members.keys().cloned().collect();
        let member_ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            let response = self.generation_for(member_id, self.is_leader(member_id));
            self.answer_join(turn, member_id, response);
            self.renew_session(turn, member_id);
        }
        for member in self.members.values_mut() {
            member.is_new = false;
        }
        let timeout_ms = self.rebalance_timeout_ms();
        turn.arm(&mut self.sync_phase, timeout_ms, || TimerKey { group_id: self.id.clone(), of: TimerOf::SyncPhase });
        tracing::info!(group = %self.id, generation = self.generation, members = self.members.len(), "formed a generation");
    }

    // Timers

    /// A deadline of this group may have passed.
    pub(crate) fn on_timer(&mut self, turn: &mut Turn<'_>, entry_ms: i64, key: TimerKey) {
        let of = key.of.clone();
        let timer = match &of {
            TimerOf::JoinPhase => Some(&mut self.join_phase),
            TimerOf::SyncPhase => Some(&mut self.sync_phase),
            TimerOf::Session(member_id) => {
                self.members.get_mut(member_id).map(|member| &mut member.session).or_else(|| self.pending_joins.get_mut(member_id))
            }
            // Of other types of groups.
            _ => None,
        };
        let Some(timer) = timer else { return };
        if turn.timers.look(timer, entry_ms, turn.now.steady_ms, key) == Look::NotDue {
            return;
        }
        match of {
            TimerOf::JoinPhase => self.join_phase_over(turn),
            TimerOf::SyncPhase => self.sync_phase_over(turn),
            TimerOf::Session(member_id) => self.session_over(turn, &member_id),
            _ => unreachable!("no such timer was found"),
        }
    }

    fn join_phase_over(&mut self, turn: &mut Turn<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match &mut self.initial_delay {
            Some(delay) if delay.new_member_added && delay.remaining_ms > 0 => {
                let spent_ms = delay.round_ms;
                delay.new_member_added = false;
                delay.round_ms = turn.config.initial_rebalance_delay_ms.min(delay.remaining_ms);
                delay.remaining_ms = (delay.remaining_ms - spent_ms).max(0);
                let round_ms = delay.round_ms;
                self.wait_for_joins(turn, round_ms);
            }
            _ => self.complete_join(turn),
        }
    }

    /// Members of a generation that never asked for their assignment are out (KIP-345's sibling for the second phase, KAFKA-13435).
    fn sync_phase_over(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_syncs.is_empty() {
            return;
        }
        let missing = std::mem::take(&mut self.pending_syncs);
        for member_id in &missing {
            self.remove_member(turn, member_id);
        }
        tracing::info!(group = %self.id, members = missing.len(), "removed members that did not sync in time");
        self.prepare_rebalance(turn);
    }

    fn session_over(&mut self, turn: &mut Turn<'_>, member_id: &Str) {
        let Some(member) = self.members.get(member_id) else {
            // The id was given out and never came back.
            self.pending_joins.remove(member_id);
            if self.state == State::PreparingRebalance && self.all_joined() {
                self.complete_join(turn);
            }
            return;
        };
        if !member.is_expected_to_beat() {
            return;
        }
        tracing::info!(group = %self.id, member = %member_id, "removed a member whose session ended");
        self.remove_member(turn, member_id);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(turn),
            State::PreparingRebalance if self.all_joined() => self.complete_join(turn),
            State::PreparingRebalance | State::Empty => {}
        }
    }

    /// The leader's assignment could not be stored: everybody joins again.
    pub(crate) fn rebalance_after_refusal(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::CompletingRebalance {
            self.prepare_rebalance(turn);
        }
    }

    /// The group was one of the consumer protocol a moment ago: its members' sessions begin, and they have to meet if their assignments do not stand any more.
    pub(crate) fn on_converted(&mut self, turn: &mut Turn<'_>, rebalances: bool) {
        let member_ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            self.renew_session(turn, member_id);
        }
        if rebalances && self.state == State::Stable {
            self.prepare_rebalance(turn);
        }
    }

    /// The group was read from the log: its members have one session's time to show up. More members than are allowed now are made to join anew, and the last ones are turned away.
    pub(crate) fn on_loaded(&mut self, turn: &mut Turn<'_>) {
        let member_ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            self.renew_session(turn, member_id);
        }
        if self.members.len() > turn.config.max_size {
            self.prepare_rebalance(turn);
        }
    }
}
