//! Deadlines as data. A timer lies within the thing that it watches (a member's session, a group's join phase); this file keeps the queue that says which of them to look at next.
//!
//! A heartbeat moves a deadline into the future, thousands of times a second, so moving one later costs nothing here: the timer's own field changes, and the entry already queued
//! stays where it is. When that entry comes up, it finds that its timer is not due yet and is queued again for the right moment. An entry whose timer has gone finds nothing.

use crate::wire::Str;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A moment that never comes.
const NEVER: i64 = i64::MAX;

/// One deadline, in milliseconds of the steady clock, kept by what it watches.
///
/// Invariant: while a deadline is set, the queue holds an entry for this timer that is not later than it.
#[derive(Debug, Clone)]
pub(crate) struct Timer {
    deadline_ms: i64,
    /// The earliest entry of this timer in the queue; every other entry of it is stale.
    queued_ms: i64,
}

impl Timer {
    pub(crate) fn off() -> Timer {
        Timer { deadline_ms: NEVER, queued_ms: NEVER }
    }

    pub(crate) fn disarm(&mut self) {
        self.deadline_ms = NEVER;
    }
}

/// Which timer of which group an entry of the queue stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerKey {
    pub(crate) group_id: Str,
    pub(crate) of: TimerOf,
}

/// The kinds of timers that a group has. Further group types add theirs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TimerOf {
    /// The wait for the members of a classic group to join.
    JoinPhase,
    /// The wait for the members of a classic group to fetch their assignment.
    SyncPhase,
    /// The session of the member with this id, or the patience with one that was given this id and has not come back with it.
    Session(Str),

    // Kept by the queue itself, see `Timers::arm_kept`
    /// The session of a member of a consumer group.
    MemberSession(Str),
    /// The wait for a member of a consumer group to give its partitions up.
    MemberRebalance(Str),
    /// The wait for a classic member of a consumer group to join again.
    MemberJoin(Str),
    /// The wait for a classic member of a consumer group to fetch its assignment.
    MemberSync(Str),
    /// A consumer group has become a classic one; its members may have to meet.
    Converted { rebalances: bool },
}

/// What an entry that came up found at its timer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The deadline has passed; the timer is off now.
    Due,
    /// Nothing to do: moved, switched off, or a stale entry.
    NotDue,
}

/// The queue over all timers of one coordinator.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BinaryHeap<Reverse<(i64, TimerKey)>>,
    /// Timers of what only replaying a record makes or changes: a decision sets them before that.
    kept: HashMap<TimerKey, Timer, foldhash::fast::RandomState>,
}

impl Timers {
    /// Sets `timer` to go off at `deadline_ms`, replacing what it was set to before.
    pub(crate) fn arm(&mut self, timer: &mut Timer, deadline_ms: i64, key: impl FnOnce() -> TimerKey) {
        timer.deadline_ms = deadline_ms;
        if deadline_ms < timer.queued_ms {
            timer.queued_ms = deadline_ms;
            self.queue.push(Reverse((deadline_ms, key())));
        }
    }

    /// Sets the timer of this name, which the queue keeps, to go off at `deadline_ms`. It goes off once, whether what it stands for is still there or not.
    pub(crate) fn arm_kept(&mut self, key: TimerKey, deadline_ms: i64) {
        let timer = self.kept.entry(key.clone()).or_insert_with(Timer::off);
        timer.deadline_ms = deadline_ms;
        if deadline_ms < timer.queued_ms {
            timer.queued_ms = deadline_ms;
            self.queue.push(Reverse((deadline_ms, key)));
        }
    }

    pub(crate) fn disarm_kept(&mut self, key: &TimerKey) {
        self.kept.remove(key);
    }

    pub(crate) fn is_kept(&self, key: &TimerKey) -> bool {
        self.kept.contains_key(key)
    }

    /// Holds an entry that was popped against the timers kept here. `None` for an entry of any other timer.
    pub(crate) fn look_kept(&mut self, entry_ms: i64, now_ms: i64, key: &TimerKey) -> Option<Look> {
        let is_kept = matches!(
            key.of,
            TimerOf::MemberSession(_)
                | TimerOf::MemberRebalance(_)
                | TimerOf::MemberJoin(_)
                | TimerOf::MemberSync(_)
                | TimerOf::Converted { .. }
        );
        if !is_kept {
            return None;
        }
        let Some(mut timer) = self.kept.remove(key) else { return Some(Look::NotDue) };
        let look = self.look(&mut timer, entry_ms, now_ms, key.clone());
        if look == Look::NotDue {
            self.kept.insert(key.clone(), timer);
        }
        Some(look)
    }

    /// The moment of the next look. A timer may turn out not to be due then; none is due before.
    pub(crate) fn next_look_ms(&self) -> Option<i64> {
        self.queue.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Takes the next entry whose moment has come.
    pub(crate) fn pop(&mut self, now_ms: i64) -> Option<(i64, TimerKey)> {
        if self.next_look_ms()? > now_ms {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| entry)
    }

    /// Holds an entry that was popped against the timer it stands for.
    pub(crate) fn look(&mut self, timer: &mut Timer, entry_ms: i64, now_ms: i64, key: TimerKey) -> Look {
        if timer.queued_ms != entry_ms {
            return Look::NotDue;
        }
        timer.queued_ms = NEVER;
        if timer.deadline_ms == NEVER {
            return Look::NotDue;
        }
        if timer.deadline_ms > now_ms {
            let deadline_ms = timer.deadline_ms;
            self.arm(timer, deadline_ms, || key);
            return Look::NotDue;
        }
        timer.disarm();
        Look::Due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TimerKey {
        TimerKey { group_id: Str::from("g"), of: TimerOf::JoinPhase }
    }

    fn look_at(timers: &mut Timers, timer: &mut Timer, now_ms: i64) -> Vec<Look> {
        let mut looks = Vec::new();
        while let Some((entry_ms, key)) = timers.pop(now_ms) {
            looks.push(timers.look(timer, entry_ms, now_ms, key));
        }
        looks
    }

    #[test]
    fn a_deadline_moved_later_keeps_one_entry_and_goes_off_once() {
        let (mut timers, mut timer) = (Timers::default(), Timer::off());
        for deadline_ms in 10..1000 {
            timers.arm(&mut timer, deadline_ms, key);
        }
        assert_eq!(timers.queue.len(), 1);
        assert_eq!(look_at(&mut timers, &mut timer, 500), [Look::NotDue]);
        assert_eq!(timers.next_look_ms(), Some(999));
        assert_eq!(look_at(&mut timers, &mut timer, 999), [Look::Due]);
        assert_eq!(timers.next_look_ms(), None);
    }

    #[test]
    fn a_deadline_moved_earlier_goes_off_early_and_its_old_entry_is_stale() {
        let (mut timers, mut timer) = (Timers::default(), Timer::off());
        timers.arm(&mut timer, 100, key);
        timers.arm(&mut timer, 10, key);
        assert_eq!(look_at(&mut timers, &mut timer, 10), [Look::Due]);
        assert_eq!(look_at(&mut timers, &mut timer, 100), [Look::NotDue]);
    }

    #[test]
    fn a_kept_timer_goes_off_once_at_its_last_deadline_unless_it_was_switched_off() {
        let mut timers = Timers::default();
        let key = TimerKey { group_id: Str::from("g"), of: TimerOf::MemberSession(Str::from("m")) };
        let look_at = |timers: &mut Timers, now_ms| {
            let mut due = 0;
            while let Some((entry_ms, key)) = timers.pop(now_ms) {
                due += i32::from(timers.look_kept(entry_ms, now_ms, &key) == Some(Look::Due));
            }
            due
        };
        timers.arm_kept(key.clone(), 10);
        timers.arm_kept(key.clone(), 30);
        assert_eq!((look_at(&mut timers, 20), look_at(&mut timers, 30), look_at(&mut timers, 40)), (0, 1, 0));
        timers.arm_kept(key.clone(), 50);
        timers.disarm_kept(&key);
        timers.arm_kept(key.clone(), 60);
        assert_eq!((look_at(&mut timers, 55), look_at(&mut timers, 60)), (0, 1));
        assert!(!timers.is_kept(&key));
    }

    #[test]
    fn a_timer_switched_off_and_on_again_holds_to_the_new_deadline() {
        let (mut timers, mut timer) = (Timers::default(), Timer::off());
        timers.arm(&mut timer, 10, key);
        timer.disarm();
        assert_eq!(look_at(&mut timers, &mut timer, 10), [Look::NotDue]);
        timers.arm(&mut timer, 30, key);
        assert_eq!(look_at(&mut timers, &mut timer, 20), []);
        assert_eq!(look_at(&mut timers, &mut timer, 30), [Look::Due]);
    }
}
