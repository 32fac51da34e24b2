//! What was written without RWF_DSYNC and is not durable yet: groups whose entries are all of topics that do not ask for more than a completed write.
//!
//! Groups stay in one order whatever their class. A group with an entry that must be durable is written with DSYNC, and counts as durable only when all before it are: where groups
//! of the weaker class lie before it, one flush of the ring makes them so. A flush comes when somebody waits for one of them, when a topic asks for it (`flush.messages`,
//! `flush.ms`), and before placement. So a hole that a power failure leaves among written groups never has an acknowledged group of the stronger class behind it, and replay needs to
//! know nothing of classes. A flush that fails is final, like a write.

use std::collections::VecDeque;

use super::{GroupSequence, Journal, JournalError};
use crate::disk::{slow, trace};
use crate::rt::file::Result;
use crate::rt::plant::{Plant, is_planted};

/// The order of what is written and not durable.
#[derive(Debug, Default)]
pub struct Unflushed {
    written: Option<GroupSequence>,
    /// Oldest first; each with whether its own write was durable.
    groups: VecDeque<(GroupSequence, bool)>,
    /// Somebody has asked that everything up to here be flushed, whether or not anybody waits for it. Of several requests the oldest, so that it does not wait for those after it,
    /// and the newest, which is left when the oldest is met.
    requested: Option<GroupSequence>,
    requested_newest: GroupSequence,
    is_flushing: bool,
}

impl Unflushed {
    /// Everything up to here is written.
    pub fn written_sequence(&self) -> GroupSequence {
        self.written.unwrap_or(GroupSequence(0))
    }

    /// The next group in order is written. Returns whether it is durable with that.
    pub fn written(&mut self, sequence: GroupSequence, is_durable: bool) -> bool {
        self.written = Some(sequence);
        if is_durable && self.groups.is_empty() {
            return true;
        }
        self.groups.push_back((sequence, is_durable));
        false
    }

    pub fn request(&mut self, sequence: GroupSequence) {
        self.requested.get_or_insert(sequence);
        self.requested_newest = self.requested_newest.max(sequence);
    }

    /// Begins a flush if somebody needs one of what is written; `first_waiter` is the oldest group that anybody waits for. The flush covers everything up to the group returned.
    pub fn begin(&mut self, first_waiter: Option<GroupSequence>) -> Option<GroupSequence> {
        let written = self.written.filter(|_| !self.is_flushing && !self.groups.is_empty())?;
        let held_back = self.groups.iter().find(|(_, is_durable)| *is_durable).map(|(sequence, _)| *sequence);
        let is_needed = [first_waiter, self.requested, held_back].into_iter().flatten().any(|needed| needed <= written);
        self.is_flushing = is_needed;
        is_needed.then_some(written)
    }

    /// A flush has covered everything up to `target`. Up to where all is durable now.
    pub fn flushed(&mut self, target: GroupSequence) -> GroupSequence {
        self.is_flushing = false;
        if self.requested.is_some_and(|requested| requested <= target) {
            self.requested = Some(self.requested_newest).filter(|newest| *newest > target);
        }
        let mut durable = target;
        while let Some((sequence, is_durable)) = self.groups.front().copied().filter(|group| group.0 <= target || group.1) {
            debug_assert!(sequence <= target || is_durable);
            durable = durable.max(sequence);
            self.groups.pop_front();
        }
        durable
    }
}

impl Journal {
    /// Everything up to here has reached the kernel: it survives the process, and not yet a power failure.
    pub fn written_sequence(&self) -> GroupSequence {
        self.state.borrow().unflushed.written_sequence()
    }

    /// Waits until the group, and with it all before it, has been written.
    pub async fn wait_written(&self, sequence: GroupSequence) -> std::result::Result<(), JournalError> {
        let written = {
            let mut state = self.state.borrow_mut();
            if state.unflushed.written_sequence() >= sequence {
                return Ok(());
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state.written_queue.push(sequence)
        };
        written.await.ok_or_else(|| self.failure().expect("only a failed journal sends its waiters away"))
    }

    /// Asks that everything up to the group be made durable soon; nobody need wait for it.
    pub fn request_flush(&self, sequence: GroupSequence) {
        {
            let mut state = self.state.borrow_mut();
            if state.durable >= sequence {
                return;
            }
            state.unflushed.request(sequence);
        }
        self.flush_if_needed();
    }

    /// Makes everything durable that is written now.
    pub async fn flush_written(&self) -> std::result::Result<(), JournalError> {
        self.wait_durable(self.written_sequence()).await
    }

    /// Calls `listener` whenever more has been written, in order, before those who wait for it go on.
    pub fn on_written(&self, listener: super::DurableListener) {
        self.written_listeners.borrow_mut().push(listener);
    }

    pub(super) fn flush_if_needed(&self) {
        let target = {
            let mut state = self.state.borrow_mut();
            if state.failure.is_some() {
                return;
            }
            let first_waiter = state.durable_queue.first();
            state.unflushed.begin(first_waiter)
        };
        let (Some(target), Some(journal)) = (target, self.this.upgrade()) else { return };
        crate::rt::spawn(async move {
            let result = journal.flush_ring().await;
            journal.flushed(target, result);
        })
        .detach();
    }

    async fn flush_ring(&self) -> Result<()> {
        if is_planted(Plant::NoFlush) {
            return Ok(());
        }
        slow::timed(&self.ring_file.file, "flush of the journal", self.ring_file.file.sync_data()).await
    }

    fn flushed(&self, target: GroupSequence, result: Result<()>) {
        if let Err(error) = result {
            return self.fail(JournalError::Failed { path: self.path().into(), cause: error.to_string() });
        }
        trace::flushed(self.journal_id, target);
        let durable = {
            let mut state = self.state.borrow_mut();
            if state.failure.is_some() {
                return;
            }
            state.statistics.flushes += 1;
            let durable = state.unflushed.flushed(target);
            state.became_durable(durable);
            durable
        };
        self.tell_durable(durable);
        self.flush_if_needed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn group(number: u64) -> GroupSequence {
        GroupSequence(number)
    }

    /// A request that comes while an earlier one is being met is met after it.
    #[test]
    fn no_request_is_lost() {
        let mut unflushed = Unflushed::default();
        for number in 1..=2 {
            assert!(!unflushed.written(group(number), false));
            unflushed.request(group(number));
            if number == 1 {
                assert_eq!(unflushed.begin(None), Some(group(1)));
            }
        }
        unflushed.request(group(4));
        assert_eq!(unflushed.flushed(group(1)), group(1));
        assert_eq!(unflushed.begin(None), None, "the newest is not written yet, and with it comes the second");
        for number in 3..=4 {
            assert!(!unflushed.written(group(number), false));
        }
        assert_eq!(unflushed.begin(None), Some(group(4)));
        assert_eq!((unflushed.flushed(group(4)), unflushed.requested), (group(4), None));
    }

    #[test]
    fn durable_groups_wait_for_the_weaker_ones_before_them() {
        let mut unflushed = Unflushed::default();
        assert!(unflushed.written(group(1), true));
        assert!(!unflushed.written(group(2), false));
        assert_eq!((unflushed.begin(None), unflushed.begin(Some(group(3)))), (None, None), "nobody needs what is written");
        assert!(!unflushed.written(group(3), true));
        assert_eq!(unflushed.begin(None), Some(group(3)), "the third is held back by the second");
        assert!(!unflushed.written(group(4), true) && !unflushed.written(group(5), false));
        assert_eq!(unflushed.begin(Some(group(4))), None, "one flush at a time");
        assert_eq!(unflushed.flushed(group(3)), group(4), "the fourth was durable by itself");
        assert_eq!(unflushed.begin(None), None);
        unflushed.request(group(6));
        assert_eq!(unflushed.begin(None), None, "not written yet");
        assert!(!unflushed.written(group(6), false));
        assert_eq!(unflushed.begin(None), Some(group(6)));
        assert_eq!(unflushed.flushed(group(6)), group(6));
        assert!(unflushed.written(group(7), true));
        assert_eq!((unflushed.requested, unflushed.written_sequence()), (None, group(7)));
    }
}
