//! EndTxn by both protocols, in every state, first and again.

use super::*;

use ErrorCode::{ConcurrentTransactions, InvalidTxnState, ProducerFenced};
use State::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};

/// The columns: commit, abort.
#[test]
fn version_1_in_every_state() {
    let done = |producer: Producer| Ok(producer);
    type Expected = fn(Producer) -> Result<Producer, ErrorCode>;
    let table: [(State, Expected, Expected); 6] = [
        (Empty, |_| Err(InvalidTxnState), |_| Err(InvalidTxnState)),
        (Ongoing, done, done),
        (PrepareCommit, |_| Err(ConcurrentTransactions), |_| Err(InvalidTxnState)),
        (PrepareAbort, |_| Err(InvalidTxnState), |_| Err(ConcurrentTransactions)),
        (CompleteCommit, done, |_| Err(InvalidTxnState)),
        (CompleteAbort, |_| Err(InvalidTxnState), done),
    ];
    for (state, commit, abort) in table {
        for (is_commit, expected) in [(true, commit), (false, abort)] {
            let (mut world, producer) = World::in_state(state, TV1);
            assert_eq!(world.end("a", producer, is_commit, TV1), expected(producer), "{state:?}, commit {is_commit}");
        }
    }
}

/// Under version 2 a request with the epoch of the transaction that has ended is the same one again, and one with the next epoch belongs to the next transaction.
#[test]
fn version_2_in_every_state() {
    type Expected = Result<i16, ErrorCode>;
    // State; same request again: commit, abort; next epoch: commit, abort. What succeeds tells the epoch to go on with.
    let table: [(State, [Expected; 2], [Expected; 2]); 6] = [
        (Empty, [Err(InvalidTxnState), Ok(1)], [Err(ProducerFenced), Err(ProducerFenced)]),
        (Ongoing, [Ok(1), Ok(1)], [Err(ProducerFenced), Err(ProducerFenced)]),
        (PrepareCommit, [Err(ConcurrentTransactions), Err(InvalidTxnState)], [Err(ConcurrentTransactions), Err(ConcurrentTransactions)]),
        (PrepareAbort, [Err(InvalidTxnState), Err(ConcurrentTransactions)], [Err(ConcurrentTransactions), Err(ConcurrentTransactions)]),
        (CompleteCommit, [Ok(1), Err(InvalidTxnState)], [Err(InvalidTxnState), Ok(2)]),
        (CompleteAbort, [Err(ProducerFenced), Ok(1)], [Err(InvalidTxnState), Ok(2)]),
    ];
    for (state, again, next) in table {
        for (epoch, expected) in [(0, again), (1, next)] {
            for (is_commit, expected) in [(true, expected[0]), (false, expected[1])] {
                let (mut world, producer) = World::in_state(state, TV2);
                let ended = world.end("a", Producer { epoch, ..producer }, is_commit, TV2);
                assert_eq!(ended.map(|producer| producer.epoch), expected, "{state:?}, epoch {epoch}, commit {is_commit}");
            }
        }
    }
}

#[test]
fn strangers_end_nothing() {
    for version in [TV1, TV2] {
        let (mut world, producer) = World::in_state(Ongoing, version);
        assert_eq!(world.end("", producer, true, version), Err(ErrorCode::InvalidRequest));
        assert_eq!(world.end("b", producer, true, version), Err(ErrorCode::InvalidProducerIdMapping));
        assert_eq!(world.end("a", Producer { id: 7, ..producer }, true, version), Err(ErrorCode::InvalidProducerIdMapping));
        assert_eq!(world.end("a", Producer { epoch: 9, ..producer }, true, version), Err(ProducerFenced));
        assert_eq!(world.state("a"), Ongoing);
    }
}

#[test]
fn markers_carry_the_epoch_of_their_protocol() {
    let (world, producer) = World::in_state(PrepareCommit, TV1);
    let completion = world.coordinator.completion("a").unwrap();
    assert_eq!((completion.producer, completion.version, completion.is_commit), (producer, TV1, true));
    assert_eq!(completion.partitions, [(Str::from("t"), 0)]);

    let (mut world, producer) = World::in_state(PrepareAbort, TV2);
    let completion = world.coordinator.completion("a").unwrap();
    assert_eq!((completion.producer, completion.version, completion.is_commit), (next_epoch(producer), TV2, false));
    world.complete("a");
    assert_eq!(world.coordinator.completion("a"), None);
    assert_eq!(world.coordinator.complete(world.now_ms, "a", &completion), None, "a second end of the same is none");
    assert!(world.coordinator.get("a").unwrap().partitions.is_empty());
}

#[test]
fn an_exhausted_epoch_ends_with_a_new_id_and_the_retry_hears_of_it() {
    let (mut world, _) = World::in_state(Empty, TV2);
    let last = world.set_epoch(i16::MAX - 1);
    world.add("a", last, &[0], TV2).unwrap();
    let next = world.end("a", last, true, TV2).unwrap();
    assert_eq!(next.epoch, 0);
    assert_ne!(next.id, last.id);
    assert_eq!(world.coordinator.completion("a").unwrap().producer, Producer { epoch: i16::MAX, ..last });
    assert_eq!(world.end("a", last, true, TV2), Err(ConcurrentTransactions));
    assert_eq!(world.restart(), [Str::from("a")]);
    world.complete("a");
    assert_eq!(world.end("a", last, true, TV2), Ok(next));
    assert_eq!(world.end("a", last, false, TV2), Err(InvalidTxnState));
    assert_eq!(world.add("a", next, &[0], TV2), Ok(()));
}

/// The transaction is decided; a crash comes before its markers. The next life brings exactly this decision to its end.
#[test]
fn a_restart_finds_what_is_decided() {
    for (state, version) in [(PrepareCommit, TV1), (PrepareAbort, TV1), (PrepareCommit, TV2), (PrepareAbort, TV2)] {
        let (mut world, _) = World::in_state(state, version);
        let before = world.coordinator.completion("a");
        assert_eq!(world.restart(), [Str::from("a")]);
        assert_eq!(world.coordinator.completion("a"), before);
        world.complete("a");
        assert_eq!(world.restart(), Vec::<Str>::new());
    }
}
