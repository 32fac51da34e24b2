//! Time, and work that takes several steps: each is short, whatever there is to do.

use super::Coordinator;
use crate::group::Now;
use crate::group::any::Group;
use crate::group::call::Step;
use crate::group::offsets::Retention;
use crate::group::timer::{Look, TimerKey, TimerOf};
use crate::wire::Str;
use uuid::Uuid;

/// How many offsets one step of a longer work looks at, but for a group that has more, and how many it takes away. So a step is short, whatever there is to do.
const OFFSETS_PER_STEP: usize = 1_000;
/// How many groups one step of a longer work looks at.
const GROUPS_PER_STEP: usize = 200;

/// A work over all groups that is done a few groups at a time.
#[derive(Debug)]
pub(super) struct Work {
    kind: WorkKind,
    remaining: Vec<Str>,
}

#[derive(Debug, Clone)]
pub(super) enum WorkKind {
    /// Offsets that are kept no longer, and groups that have nothing left.
    Expire,
    /// Offsets of a topic that is no more.
    ForgetTopic { name: Str, id: Uuid },
}

impl Coordinator {
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
}
