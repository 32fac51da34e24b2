//! Tests of what a partition remembers of its producers: sequences, duplicates, epochs, expiry.

use proptest::prelude::*;

use super::*;

const CLIENT: Origin = Origin::Client { transaction_version: 0 };

/// A batch of `count` records of producer 7.
fn batch(base_offset: i64, epoch: i16, base_sequence: i32, count: i32) -> BatchInfo {
    BatchInfo {
        base_offset,
        leader_epoch: 0,
        size_bytes: 100,
        last_offset_delta: count - 1,
        max_timestamp: 1_000,
        is_log_append_time: false,
        producer_id: 7,
        producer_epoch: epoch,
        base_sequence,
        is_transactional: false,
        is_control: false,
        record_count: count,
    }
}

fn transactional(info: BatchInfo) -> BatchInfo {
    BatchInfo { is_transactional: true, ..info }
}

fn marker(base_offset: i64, epoch: i16) -> BatchInfo {
    BatchInfo { is_transactional: true, is_control: true, base_sequence: NO_SEQUENCE, ..batch(base_offset, epoch, 0, 1) }
}

fn applied(batches: &[BatchInfo]) -> ProducerStates {
    let mut states = ProducerStates::new(0);
    for info in batches {
        states.apply(info, None, 1_000);
    }
    states
}

#[test]
fn a_batch_sent_again_is_found_with_its_first_offset() {
    let states = applied(&[batch(10, 0, 0, 3), batch(13, 0, 3, 2)]);
    let again = states.check(&batch(0, 0, 0, 3), None, CLIENT).unwrap();
    assert!(matches!(again, ProducerCheck::Duplicate(original) if original.base_offset() == 10 && original.last_offset == 12));
    assert_eq!(states.check(&batch(0, 0, 5, 1), None, CLIENT), Ok(ProducerCheck::Accept));
    assert!(
        matches!(states.check(&batch(0, 0, 0, 2), None, CLIENT), Err(AppendError::OutOfOrderSequence { .. })),
        "a part of one is not it"
    );
}

#[test]
fn only_five_batches_are_remembered() {
    let all: Vec<_> = (0..6).map(|index| batch(index.into(), 0, index, 1)).collect();
    let states = applied(&all);
    assert!(matches!(states.check(&all[0], None, CLIENT), Err(AppendError::OutOfOrderSequence { last_sequence: 5, .. })));
    assert!(matches!(states.check(&all[1], None, CLIENT), Ok(ProducerCheck::Duplicate(_))));
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let states = applied(&[batch(0, 0, i32::MAX - 1, 2)]);
    assert_eq!(states.check(&batch(0, 0, 0, 1), None, CLIENT), Ok(ProducerCheck::Accept));
    // A batch may itself span the end: sequences 2^31-1 and 0.
    let states = applied(&[batch(0, 0, i32::MAX, 2)]);
    assert_eq!(states.get(7).unwrap().last_sequence(), 0);
    assert!(matches!(states.check(&batch(0, 0, i32::MAX, 2), None, CLIENT), Ok(ProducerCheck::Duplicate(_))));
    assert_eq!(states.check(&batch(0, 0, 1, 1), None, CLIENT), Ok(ProducerCheck::Accept));
}

#[test]
fn epochs_only_rise_and_begin_at_sequence_zero() {
    let states = applied(&[batch(0, 3, 0, 1)]);
    assert!(matches!(states.check(&batch(0, 2, 1, 1), None, CLIENT), Err(AppendError::StaleProducerEpoch { current_epoch: 3, .. })));
    assert!(matches!(states.check(&batch(0, 4, 1, 1), None, CLIENT), Err(AppendError::SequenceMustBeginAtZero { .. })));
    assert_eq!(states.check(&batch(0, 4, 0, 1), None, CLIENT), Ok(ProducerCheck::Accept));
}

#[test]
fn an_unknown_producer_may_begin_anywhere_but_not_in_a_transaction_of_version_2() {
    let states = ProducerStates::new(0);
    assert_eq!(states.check(&batch(0, 5, 99, 1), None, CLIENT), Ok(ProducerCheck::Accept));
    let version_2 = Origin::Client { transaction_version: 2 };
    assert!(matches!(states.check(&transactional(batch(0, 5, 99, 1)), None, version_2), Err(AppendError::SequenceMustBeginAtZero { .. })));
    assert_eq!(states.check(&transactional(batch(0, 5, 0, 1)), None, version_2), Ok(ProducerCheck::Accept));
}

#[test]
fn a_transaction_holds_the_stable_offset_until_its_marker_is_below_the_high_watermark() {
    let mut states = applied(&[batch(0, 0, 0, 5), transactional(batch(5, 0, 5, 5))]);
    assert_eq!(states.first_unstable_offset(), Some(5));
    assert!(states.has_open_transaction(7, 0));
    assert!(matches!(states.check(&batch(0, 0, 10, 1), None, CLIENT), Err(AppendError::ExpectedTransactionalBatch { .. })));

    let abort = EndMarker { is_commit: false, coordinator_epoch: 2 };
    let coordinator = Origin::Coordinator { transaction_version: 0 };
    assert_eq!(states.check(&marker(10, 0), Some(&abort), coordinator), Ok(ProducerCheck::Accept));
    let completed = states.apply(&marker(10, 0), Some(&abort), 1_000).unwrap();
    assert_eq!((completed.first_offset, completed.last_offset, completed.is_aborted, completed.last_stable_offset), (5, 10, true, 11));
    states.high_watermark_moved(10);
    assert_eq!(states.first_unstable_offset(), Some(5), "decided, but its marker is not visible yet");
    states.high_watermark_moved(11);
    assert_eq!(states.first_unstable_offset(), None);

    let zombie = EndMarker { is_commit: true, coordinator_epoch: 1 };
    assert!(matches!(states.check(&marker(11, 0), Some(&zombie), coordinator), Err(AppendError::StaleCoordinator { .. })));
}

#[test]
fn under_version_2_a_marker_of_the_same_epoch_is_only_accepted_again() {
    let version_2 = Origin::Coordinator { transaction_version: 2 };
    let commit = EndMarker { is_commit: true, coordinator_epoch: 0 };
    let mut states = applied(&[transactional(batch(0, 4, 0, 1))]);
    assert!(matches!(states.check(&marker(1, 4), Some(&commit), version_2), Err(AppendError::StaleProducerEpoch { .. })));
    assert_eq!(states.check(&marker(1, 5), Some(&commit), version_2), Ok(ProducerCheck::Accept));
    states.apply(&marker(1, 5), Some(&commit), 1_000);
    assert_eq!(states.check(&marker(2, 5), Some(&commit), version_2), Ok(ProducerCheck::Accept));
}

#[test]
fn idle_producers_expire_unless_a_transaction_is_open() {
    let mut states = applied(&[batch(0, 0, 0, 1)]);
    let other = BatchInfo { producer_id: 8, ..transactional(batch(1, 0, 0, 1)) };
    states.apply(&other, None, 1_000);
    assert_eq!((states.expire(1_999, 1_000, None), states.len()), (None, 2));
    assert_eq!((states.expire(2_000, 1_000, None), states.len()), (None, 1));
    assert!(states.get(7).is_none() && states.get(8).is_some());
}

#[test]
fn views_show_nothing_above_the_high_watermark() {
    let states = applied(&[batch(0, 0, 0, 2), transactional(batch(2, 0, 2, 2))]);
    assert_eq!(views(&states, 1), vec![]);
    let view = views(&states, 2)[0];
    assert_eq!((view.last_sequence, view.transaction_first_offset), (1, -1));
    let view = views(&states, 4)[0];
    assert_eq!((view.last_sequence, view.transaction_first_offset), (3, 2));
}

proptest! {
    /// A producer with up to five batches in flight over a line that loses answers: it sends again what was not answered, from any of the five on. Whatever the order of
    /// losses, the log holds each batch once and each answer names the offset at which it really lies.
    #[test]
    fn retries_store_each_batch_once(sizes in proptest::collection::vec(1..4i32, 1..40), resend_from in proptest::collection::vec(0..5usize, 0..20), first in prop_oneof![Just(0), Just(i32::MAX - 7)]) {
        let mut states = ProducerStates::new(0);
        let mut log: Vec<BatchInfo> = Vec::new();
        let mut sent: Vec<BatchInfo> = Vec::new();
        let mut sequence = first;
        let mut resend = resend_from.into_iter();
        for count in sizes {
            let next = batch(0, 0, sequence, count);
            sequence = crate::log::batch::sequence_plus(sequence, count);
            sent.push(next);
            let again = resend.next().unwrap_or(0).min(sent.len() - 1);
            let from = sent.len() - 1 - again;
            for info in &sent[from..] {
                match states.check(info, None, CLIENT) {
                    Ok(ProducerCheck::Accept) => {
                        let base_offset = states.end_offset();
                        let stored = BatchInfo { base_offset, ..info.clone() };
                        states.apply(&stored, None, 0);
                        log.push(stored);
                    }
                    Ok(ProducerCheck::Duplicate(original)) => {
                        let stored = log.iter().rev().find(|stored| stored.base_sequence == info.base_sequence).unwrap();
                        prop_assert_eq!(stored.base_offset, original.base_offset());
                    }
                    Err(error) => prop_assert!(false, "refused: {error}"),
                }
            }
        }
        prop_assert_eq!(log.len(), sent.len());
    }
}

/// The race that hanging transactions came from: a batch is on its way, the transaction is aborted, the batch arrives (KIP-890).
#[test]
fn a_marker_that_slips_in_makes_a_guard_worthless() {
    let mut states = ProducerStates::new(0);
    let first = transactional(batch(0, 0, 0, 1));
    assert!(matches!(states.check_guard(&first, None), Err(AppendError::NotInTransaction { producer_id: 7 })), "nobody was asked");
    let guard = states.guard(7, 0);
    assert_eq!(states.check_guard(&first, guard), Ok(()));
    states.apply(&marker(0, 0), Some(&EndMarker { is_commit: false, coordinator_epoch: 0 }), 1_000);
    assert!(matches!(states.check_guard(&first, guard), Err(AppendError::NotInTransaction { .. })));
    assert_eq!(states.check_guard(&first, states.guard(7, 0)), Ok(()), "one who asks again knows better");
}

#[test]
fn an_open_transaction_needs_no_guard_until_it_ends() {
    let mut states = ProducerStates::new(0);
    states.apply(&transactional(batch(0, 2, 0, 1)), None, 1_000);
    assert_eq!(states.guard(7, 2), None);
    assert_eq!(states.check_guard(&transactional(batch(0, 2, 1, 1)), None), Ok(()));
    assert!(states.guard(7, 3).is_some(), "a newer epoch is another transaction");
    states.apply(&marker(1, 3), Some(&EndMarker { is_commit: true, coordinator_epoch: 0 }), 1_000);
    assert!(states.check_guard(&transactional(batch(0, 2, 1, 1)), None).is_err(), "it has ended since the answer");
}

/// A million idle producers in one log take about 160 MB: 128 bytes each with its counts of holders, and its place in the map. They are forgotten a few at a time.
#[test]
fn a_producer_of_little_takes_little() {
    assert!(size_of::<ProducerState>() + 2 * size_of::<usize>() <= 128, "{}", size_of::<ProducerState>());
    let mut states = ProducerStates::new(0);
    for producer_id in 0..10_000 {
        states.apply(&BatchInfo { producer_id, ..batch(producer_id, 0, 0, 1) }, None, 1_000);
    }
    let expire_all = |states: &mut ProducerStates, now_ms| {
        let (mut steps, mut after) = (1, states.expire(now_ms, 100, None));
        while after.is_some() {
            (steps, after) = (steps + 1, states.expire(now_ms, 100, after));
        }
        (steps, states.len())
    };
    let steps = 10_000 / PRODUCERS_PER_STEP + 1;
    assert_eq!(expire_all(&mut states, 1_000 + 99), (steps, 10_000));
    assert_eq!(expire_all(&mut states, 1_000 + 100), (steps, 0));
}

/// All that a client may see, step by step.
fn views(states: &ProducerStates, high_watermark: i64) -> Vec<ProducerView> {
    let mut views = Vec::new();
    let mut after = view_some(states.producers(), high_watermark, None, &mut views);
    while after.is_some() {
        after = view_some(states.producers(), high_watermark, after, &mut views);
    }
    views
}

/// However many there are, a step sees a bounded number, and all steps together each producer once, in the order of the ids.
#[test]
fn many_producers_are_viewed_in_steps() {
    let state = Arc::new(ProducerState { last_change_offset: 0, ..ProducerState::empty() });
    let count = 3 * PRODUCERS_PER_STEP as i64 + 7;
    let states = ProducerStates::of((0..count).map(|producer_id| (producer_id, Arc::clone(&state))).collect(), 1);
    let mut first = Vec::new();
    let after = view_some(states.producers(), 1, None, &mut first);
    assert_eq!((first.len(), after), (PRODUCERS_PER_STEP, Some(PRODUCERS_PER_STEP as i64 - 1)));
    assert!(views(&states, 1).iter().map(|view| view.producer_id).eq(0..count));
}
