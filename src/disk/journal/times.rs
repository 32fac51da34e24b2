//! When the latest groups went to the kernel and came back: kept only while requests are traced.

use std::collections::VecDeque;
use std::time::Instant;

use super::GroupSequence;
use crate::rt::stages::{Moment, Stages};

/// Groups remembered; who asks has just been told that his group is durable.
const REMEMBERED_MAX: usize = 64;

/// The moments of the latest groups, oldest first.
#[derive(Default)]
pub struct GroupTimes {
    latest: VecDeque<GroupTime>,
}

struct GroupTime {
    sequence: GroupSequence,
    submitted: Instant,
    durable: Option<Instant>,
}

impl GroupTimes {
    /// The group is handed to the kernel now.
    pub fn submitted(&mut self, sequence: GroupSequence) {
        if !Stages::are_traced() {
            return;
        }
        if self.latest.len() == REMEMBERED_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(GroupTime { sequence, submitted: Instant::now(), durable: None });
    }

    /// Everything up to this group is on stable storage now.
    pub fn durable(&mut self, sequence: GroupSequence) {
        if self.latest.is_empty() {
            return;
        }
        let now = Instant::now();
        let undone = self.latest.iter_mut().rev().skip_while(|time| time.sequence > sequence).take_while(|time| time.durable.is_none());
        undone.for_each(|time| time.durable = Some(now));
    }

    /// Marks both moments of a group.
    pub fn mark(&self, sequence: GroupSequence, stages: &Stages) {
        let Some(time) = self.latest.iter().rev().find(|time| time.sequence == sequence) else { return };
        stages.mark_at(Moment::Submitted, time.submitted);
        if let Some(durable) = time.durable {
            stages.mark_at(Moment::Durable, durable);
        }
    }
}
