//! InitProducerId: new ids, fencing, recovery, exhausted epochs.

use super::*;

#[test]
fn a_new_id_gets_a_producer_of_its_own_and_each_call_fences_the_one_before() {
    let mut world = World::new();
    let first = world.initialise("a").unwrap();
    assert_eq!(first.epoch, 0);
    assert_ne!(world.initialise("b").unwrap().id, first.id);
    let second = world.initialise("a").unwrap();
    assert_eq!(second, next_epoch(first));
    assert_eq!(world.add("a", first, &[0], TV1), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.end("a", first, true, TV1), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.end("a", first, true, TV2), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.verify("a", first, &[0]), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.add("a", second, &[0], TV1), Ok(()));
}

#[test]
fn limits_of_the_request() {
    let mut world = World::new();
    assert_eq!(world.initialise(""), Err(ErrorCode::InvalidRequest));
    for timeout_ms in [0, -1, 900_001] {
        let call = Call::Initialise { transactional_id: Str::from("a"), timeout_ms, expected: None };
        assert_eq!(producer_of(world.call(call)), Err(ErrorCode::InvalidTransactionTimeout));
    }
    assert_eq!(world.coordinator.count(), 0);
}

#[test]
fn an_open_transaction_is_aborted_first_and_its_producer_fenced() {
    for version in [TV1, TV2] {
        let (mut world, producer) = World::in_state(State::Ongoing, version);
        assert_eq!(world.initialise("a"), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(world.state("a"), State::PrepareAbort);
        let completion = world.coordinator.completion("a").unwrap();
        assert_eq!((completion.producer, completion.is_commit), (next_epoch(producer), false), "raised once, not twice (KAFKA-19367)");
        assert_eq!(world.initialise("a"), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(world.add("a", producer, &[1], version), Err(ErrorCode::ProducerFenced));
        world.complete("a");
        assert_eq!(world.initialise("a"), Ok(next_epoch(next_epoch(producer))));
    }
}

#[test]
fn a_server_of_version_1_fences_without_raising_the_protocol() {
    let (mut world, producer) = World::in_state(State::Ongoing, TV1);
    world.server_version = 1;
    assert_eq!(world.initialise("a"), Err(ErrorCode::ConcurrentTransactions));
    let completion = world.coordinator.completion("a").unwrap();
    assert_eq!((completion.producer, completion.version), (next_epoch(producer), 1));
}

/// KIP-360: a producer that says who it believes to be goes on with the next epoch, and its retry gets the same answer.
#[test]
fn a_producer_recovers_by_its_id_and_epoch() {
    let mut world = World::new();
    let first = world.initialise("a").unwrap();
    let second = world.initialise_as("a", Some(first)).unwrap();
    assert_eq!(second, next_epoch(first));
    assert_eq!(world.initialise_as("a", Some(first)), Ok(second), "the answer was lost");
    assert_eq!(world.initialise_as("a", Some(Producer { epoch: 7, ..first })), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.initialise_as("a", Some(Producer { id: 1, epoch: 0 })), Err(ErrorCode::ProducerFenced));
    let third = world.initialise("a").unwrap();
    assert_eq!(world.initialise_as("a", Some(first)), Err(ErrorCode::ProducerFenced), "another instance has come between");
    assert_eq!(world.initialise_as("a", Some(second)), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.initialise_as("a", Some(third)), Ok(next_epoch(third)));
}

#[test]
fn an_id_that_expired_begins_anew_for_who_comes_back() {
    let mut world = World::new();
    let producer = Producer { id: 7, epoch: 3 };
    assert_eq!(world.add("a", producer, &[0], TV1), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(world.initialise_as("a", Some(producer)).unwrap().epoch, 0);
}

#[test]
fn an_exhausted_epoch_brings_a_new_id() {
    let mut world = World::new();
    world.initialise("a").unwrap();
    let last = world.set_epoch(i16::MAX - 1);
    let next = world.initialise("a").unwrap();
    assert_eq!(next.epoch, 0);
    assert_ne!(next.id, last.id);

    // With the producer's own word it is told the same again when the answer was lost.
    let last = world.set_epoch(i16::MAX - 1);
    let next = world.initialise_as("a", Some(last)).unwrap();
    assert_ne!(next.id, last.id);
    assert_eq!(world.initialise_as("a", Some(last)), Ok(next));
}

#[test]
fn fencing_at_the_last_epoch_leads_to_a_new_id() {
    for server_version in [TV1, TV2] {
        let mut world = World::new();
        world.server_version = server_version;
        world.initialise("a").unwrap();
        let last = world.set_epoch(i16::MAX - 1);
        world.add("a", last, &[0], server_version).unwrap();
        assert_eq!(world.initialise("a"), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(world.coordinator.completion("a").unwrap().producer, Producer { epoch: i16::MAX, ..last });
        world.complete("a");
        let next = world.initialise("a").unwrap();
        assert_ne!(next.id, last.id);
        assert!((0..=1).contains(&next.epoch));
    }
}

#[test]
fn idle_states_go_to_empty_and_prepared_ones_wait() {
    for state in [State::Empty, State::CompleteCommit, State::CompleteAbort] {
        let (mut world, _) = World::in_state(state, TV2);
        world.initialise("a").unwrap();
        assert_eq!(world.state("a"), State::Empty);
    }
    for state in [State::PrepareCommit, State::PrepareAbort] {
        let (mut world, producer) = World::in_state(state, TV2);
        assert_eq!(world.initialise("a"), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(world.initialise_as("a", Some(producer)), Err(ErrorCode::ConcurrentTransactions));
    }
}
