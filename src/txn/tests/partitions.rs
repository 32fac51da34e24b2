//! Partitions that join a transaction, and the question whether they have.

use super::*;

#[test]
fn the_first_partition_opens_the_transaction() {
    let (mut world, producer) = World::in_state(State::Empty, TV1);
    world.add("a", producer, &[0, 2], TV1).unwrap();
    let known = world.coordinator.get("a").unwrap();
    assert_eq!((known.state, known.started_ms, known.partitions.len()), (State::Ongoing, 1_000_000, 2));
    let records = world.log.len();
    world.now_ms += 10;
    assert_eq!(world.add("a", producer, &[2], TV1), Ok(()));
    assert_eq!(world.log.len(), records, "what is known is not written again");
    world.add("a", producer, &[3], TV1).unwrap();
    let known = world.coordinator.get("a").unwrap();
    assert_eq!((known.started_ms, known.updated_ms, known.partitions.len()), (1_000_000, 1_000_010, 3));
}

#[test]
fn refusals() {
    let (mut world, producer) = World::in_state(State::Empty, TV1);
    let stranger = Producer { id: 7, ..producer };
    assert_eq!(world.add("", producer, &[0], TV1), Err(ErrorCode::InvalidRequest));
    assert_eq!(world.add("b", producer, &[0], TV1), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(world.add("a", stranger, &[0], TV1), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(world.add("a", next_epoch(producer), &[0], TV1), Err(ErrorCode::ProducerFenced));
    for state in [State::PrepareCommit, State::PrepareAbort] {
        let (mut world, producer) = World::in_state(state, TV1);
        assert_eq!(world.add("a", producer, &[0], TV1), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(world.verify("a", producer, &[0]), Err(ErrorCode::ConcurrentTransactions));
    }
}

#[test]
fn a_complete_transaction_gives_way_to_the_next() {
    for state in [State::CompleteCommit, State::CompleteAbort] {
        let (mut world, producer) = World::in_state(state, TV1);
        world.now_ms += 5;
        world.add("a", producer, &[7], TV1).unwrap();
        let known = world.coordinator.get("a").unwrap();
        assert_eq!((known.state, known.started_ms, known.partitions.len()), (State::Ongoing, 1_000_005, 1));
    }
}

/// KIP-890: what a broker asks before the first append of a transaction.
#[test]
fn only_partitions_of_the_open_transaction_are_verified() {
    let (mut world, producer) = World::in_state(State::Ongoing, TV1);
    assert_eq!(world.verify("a", producer, &[0, 1]), Ok(vec![ErrorCode::None, ErrorCode::TransactionAbortable]));
    assert_eq!(world.verify("", producer, &[0]), Err(ErrorCode::InvalidRequest));
    assert_eq!(world.verify("b", producer, &[0]), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(world.verify("a", Producer { id: 7, ..producer }, &[0]), Err(ErrorCode::InvalidProducerIdMapping));
    world.end("a", producer, true, TV1).unwrap();
    world.complete("a");
    assert_eq!(world.verify("a", producer, &[0]), Ok(vec![ErrorCode::TransactionAbortable]), "late, after the marker");
}

/// Under version 2 the next transaction's first append may come while the markers of the last are on their way: the answer is to wait, whichever id it brings.
#[test]
fn the_next_epoch_waits_for_the_end_of_the_last() {
    let (mut world, producer) = World::in_state(State::PrepareCommit, TV2);
    assert_eq!(world.add("a", next_epoch(producer), &[1], TV2), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(world.add("a", producer, &[1], TV2), Err(ErrorCode::ProducerFenced));

    let (mut world, _) = World::in_state(State::Empty, TV2);
    let last = world.set_epoch(i16::MAX - 1);
    world.add("a", last, &[0], TV2).unwrap();
    let next = world.end("a", last, true, TV2).unwrap();
    assert_eq!(world.add("a", next, &[1], TV2), Err(ErrorCode::ConcurrentTransactions));
    world.complete("a");
    assert_eq!(world.add("a", next, &[1], TV2), Ok(()));
}

#[test]
fn descriptions_and_lists() {
    let (mut world, producer) = World::in_state(State::Ongoing, TV1);
    world.initialise("b").unwrap();
    let Reply::Described(described) = world.call(Call::Describe { transactional_id: Str::from("a") }) else { panic!() };
    assert_eq!((&*described.transaction_state, described.producer_id, described.transaction_timeout_ms), ("Ongoing", producer.id, 60_000));
    assert_eq!((&*described.topics[0].topic, &described.topics[0].partitions[..]), ("t", &[0][..]));
    for (id, error) in [("c", ErrorCode::TransactionalIdNotFound), ("", ErrorCode::InvalidRequest)] {
        let Reply::Described(described) = world.call(Call::Describe { transactional_id: Str::from(id) }) else { panic!() };
        assert_eq!(described.error_code, error.code());
    }
    world.now_ms += 500;
    let mut listed = |states: &[State], producer_ids: &[i64], duration_ms| {
        let call = Call::List { states: states.to_vec(), producer_ids: producer_ids.to_vec(), duration_ms };
        let Reply::Listed(Ok(listed)) = world.call(call) else { panic!() };
        listed.iter().map(|line| line.transactional_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[], &[], -1), ["a", "b"]);
    assert_eq!(listed(&[State::Empty], &[], -1), ["b"]);
    assert_eq!(listed(&[], &[producer.id], -1), ["a"]);
    assert_eq!(listed(&[State::Ongoing], &[], 499), ["a"]);
    assert_eq!(listed(&[State::Ongoing], &[], 500), Vec::<String>::new());
}
