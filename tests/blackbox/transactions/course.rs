//! The course of a transaction: it begins, is committed or aborted, the next one follows, and readers of committed records see what they are to see.

use std::time::{Duration, Instant};

use corelane_wire::ErrorCode::{ConcurrentTransactions, InvalidProducerEpoch, InvalidTxnState, OutOfOrderSequenceNumber, ProducerFenced};
use harness::cases;
use harness::suite::Case;

use super::*;

pub const CASES: &[Case] = cases![
    version_1_commits_and_aborts,
    version_2_registers_partitions_and_raises_the_epoch,
    transactions_of_version_2_follow_each_other_at_once,
    a_new_instance_aborts_the_open_transaction,
    a_producer_recovers_by_its_id_and_epoch,
    the_same_end_again_by_version_1,
    the_same_end_again_by_version_2,
    an_abort_without_a_partition,
    late_transactions_are_aborted,
    aborted_transactions_are_told_to_readers,
    a_commit_ends_the_wait_of_a_reader,
    a_commit_is_seen_once_the_older_transactions_have_ended,
    readers_of_committed_records_with_a_session,
];

fn version_1_commits_and_aborts(broker: &Broker) {
    let mut test = Test::new(broker, "txn-v1");
    assert_eq!(test.add(3, &[0, 1]), [ErrorCode::None, ErrorCode::None]);
    assert_eq!(test.state().as_deref(), Ok("Ongoing"));
    for partition in [0, 1] {
        assert_eq!(test.write(PRODUCE_1, partition, 0), 0);
    }
    assert_eq!(test.ends(0), (1, 0), "open: committed readers stop before it");
    assert_eq!(test.read_committed(0, 0), (vec![], 0, vec![]));
    test.end(END_1, true);
    for partition in [0, 1] {
        assert_eq!(test.ends(partition), (2, 2));
        assert_eq!(test.read_committed(partition, 0), (vec![0, 1], 2, vec![]), "the marker is sent, too");
    }

    test.join(0);
    assert_eq!(test.write(PRODUCE_1, 0, 1), 2, "version 1 goes on with the epoch and the sequence");
    test.end(END_1, false);
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0), (vec![0, 1, 2, 3], 4, vec![(producer_id, 2)]));
    assert_eq!(test.ends(1), (2, 2), "no marker where nothing was");
}

fn version_2_registers_partitions_and_raises_the_epoch(broker: &Broker) {
    let mut test = Test::new(broker, "txn-v2");
    let first = test.epoch;
    assert_eq!(test.write(PRODUCE_2, 0, 0), 0, "nobody has added the partition");
    assert_eq!(test.state().as_deref(), Ok("Ongoing"));
    assert_eq!(test.write(PRODUCE_2, 0, 1), 1);
    test.end(END_2, true);
    assert_eq!(test.epoch, first + 1);
    assert_eq!(test.described_producer(0).map(|(epoch, _, start)| (epoch, start)), Some((i32::from(first) + 1, -1)));
    assert_eq!(test.produce(PRODUCE_2, 0, 2), Err(OutOfOrderSequenceNumber), "a new epoch begins at 0");
    assert_eq!(test.write(PRODUCE_2, 0, 0), 3);
    test.epoch = first;
    assert_eq!(test.produce(PRODUCE_2, 0, 2), Err(InvalidProducerEpoch), "late, of the transaction before");
    assert_eq!(test.produce(PRODUCE_2, 1, 0), Err(InvalidProducerEpoch));
    test.epoch = first + 1;
    test.end(END_2, false);
    assert_eq!((test.epoch, test.ends(0)), (first + 2, (5, 5)));
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0).2, [(producer_id, 3)]);
}

/// The first append of the next transaction meets the markers of the last on their way: it waits, and is not taken for a late one.
fn transactions_of_version_2_follow_each_other_at_once(broker: &Broker) {
    let mut test = Test::new(broker, "txn-at-once");
    for number in 0..100 {
        for partition in [0, 1] {
            test.write(PRODUCE_2, partition, 0);
        }
        (test.producer_id, test.epoch) =
            settled(|| test.try_end(END_2, number % 4 != 0)).unwrap_or_else(|error| panic!("transaction {number}: {}", error.name()));
    }
    test.write(PRODUCE_2, 0, 0);
    assert_eq!(test.ends(0).0, 201, "a record and a marker of each, and the last record");
}

fn a_new_instance_aborts_the_open_transaction(broker: &Broker) {
    let mut test = Test::new(broker, "txn-takeover");
    let old = test.epoch;
    test.write(PRODUCE_2, 0, 0);
    assert_eq!(test.initialise_once(4, -1, -1), Err(ConcurrentTransactions));
    test.initialise();
    assert_eq!(test.epoch, old + 2, "one epoch fences, the next is given out");
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0), (vec![0, 1], 2, vec![(producer_id, 0)]));
    test.epoch = old;
    assert_eq!(test.produce(PRODUCE_2, 0, 1), Err(InvalidProducerEpoch));
}

fn a_producer_recovers_by_its_id_and_epoch(broker: &Broker) {
    let mut test = Test::new(broker, "txn-recover");
    let (id, epoch) = (test.producer_id, test.epoch);
    assert_eq!(settled(|| test.initialise_once(4, id, epoch)), Ok((id, epoch + 1)));
    assert_eq!(settled(|| test.initialise_once(4, id, epoch)), Ok((id, epoch + 1)), "the answer was lost");
    assert_eq!(settled(|| test.initialise_once(4, id, epoch + 5)), Err(ProducerFenced));
    assert_eq!(settled(|| test.initialise_once(3, id, epoch + 5)), Err(InvalidProducerEpoch));
    assert_eq!(settled(|| test.initialise_once(4, id + 999, 0)), Err(ProducerFenced));
    test.initialise();
    assert_eq!(settled(|| test.initialise_once(4, id, epoch)), Err(ProducerFenced), "somebody else has come between");
}

fn the_same_end_again_by_version_1(broker: &Broker) {
    for (is_commit, state) in [(true, "CompleteCommit"), (false, "CompleteAbort")] {
        let mut test = Test::new(broker, &format!("txn-again-1-{is_commit}"));
        test.join(0);
        test.write(PRODUCE_1, 0, 0);
        test.end(END_1, is_commit);
        assert_eq!(test.try_end(END_1, is_commit).map(drop), Ok(()));
        assert_eq!(test.try_end(END_1, !is_commit).map(drop), Err(InvalidTxnState));
        assert_eq!(test.state().as_deref(), Ok(state));
        assert_eq!(test.ends(0), (2, 2), "one marker");
    }
}

fn the_same_end_again_by_version_2(broker: &Broker) {
    for is_commit in [true, false] {
        let mut test = Test::new(broker, &format!("txn-again-2-{is_commit}"));
        let first = test.epoch;
        test.write(PRODUCE_2, 0, 0);
        test.end(END_2, is_commit);
        let told = (test.producer_id, test.epoch);
        test.epoch = first;
        assert_eq!(test.try_end(END_2, is_commit), Ok(told), "the answer was lost");
        assert!(test.try_end(END_2, !is_commit).is_err());
        test.epoch = first + 1;
        assert_eq!(test.try_end(END_2, true), Err(InvalidTxnState), "the next transaction has nothing to commit");
        test.epoch = first + 3;
        assert_eq!(test.try_end(END_2, is_commit), Err(ProducerFenced));
        assert_eq!(test.ends(0), (2, 2), "one marker");
    }
}

fn an_abort_without_a_partition(broker: &Broker) {
    let mut test = Test::new(broker, "txn-empty");
    let first = test.epoch;
    assert_eq!(test.try_end(END_1, false), Err(InvalidTxnState), "version 1 knows no such thing");
    test.end(END_2, false);
    assert_eq!(test.epoch, first + 1);
    test.end(END_2, false);
    assert_eq!(test.epoch, first + 2);
}

/// The suite's broker looks for them every second.
fn late_transactions_are_aborted(broker: &Broker) {
    for (produce, end) in [(PRODUCE_1, END_1), (PRODUCE_2, END_2)] {
        let mut test = Test::new(broker, &format!("txn-timeout-{produce}"));
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(test.id.as_str())),
            transaction_timeout_ms: 500,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let response = test.connection.call(4, &request);
        test.epoch = response.producer_epoch;
        if produce == PRODUCE_1 {
            test.join(0);
        }
        test.write(produce, 0, 0);
        test.wait_for("CompleteAbort");
        let producer_id = test.producer_id;
        assert_eq!(test.read_committed(0, 0), (vec![0, 1], 2, vec![(producer_id, 0)]));
        assert_eq!(test.produce(produce, 0, 1), Err(InvalidProducerEpoch));
        assert_eq!(test.try_end(END_1, true), Err(ProducerFenced));
        if end == END_2 {
            let raised = test.epoch + 1;
            assert_eq!(test.try_end(END_2, false), Ok((producer_id, raised)), "the abort that the client wants has happened");
        }
    }
}

fn aborted_transactions_are_told_to_readers(broker: &Broker) {
    let mut test = Test::new(broker, "txn-aborts");
    let mut expected = Vec::new();
    for number in 0..6 {
        let offset = test.write(PRODUCE_2, 0, 0);
        let producer_id = test.producer_id;
        test.end(END_2, number % 2 == 0);
        if number % 2 == 1 {
            expected.push((producer_id, offset));
        }
    }
    let (batches, last_stable, aborted) = test.read_committed(0, 0);
    assert_eq!((batches.len(), last_stable, aborted), (12, 12, expected.clone()));
    assert_eq!(test.read_committed(0, 4).2, expected[1..], "those before it are not told");
    assert_eq!(test.read_committed(0, 12), (vec![], 12, vec![]));
    let data = test.connection.fetch("txn-aborts", 0, 0);
    assert_eq!(data.aborted_transactions, None, "whoever reads everything gets no list");
}

fn a_commit_ends_the_wait_of_a_reader(broker: &Broker) {
    let mut test = Test::new(broker, "txn-wait");
    test.write(PRODUCE_2, 0, 0);
    let mut reader = Connection::to(broker);
    let request = corelane_wire::messages::FetchRequest {
        isolation_level: 1,
        max_wait_ms: 60_000,
        min_bytes: 100,
        ..fetch_request(&[("txn-wait", 0, 0)])
    };
    let sent = reader.send(11, &request).expect("sent");
    reader.assert_silent(Duration::from_millis(300));
    let began = Instant::now();
    test.end(END_2, true);
    let data =
        reader.receive::<corelane_wire::messages::FetchRequest>(11, sent).expect("an answer").responses.remove(0).partitions.remove(0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!batch::read_batches(&records_of(&data)).is_empty());
}

/// Whose records come later waits for those before: readers get everything in the order of the log, and nothing of what is undecided.
fn a_commit_is_seen_once_the_older_transactions_have_ended(broker: &Broker) {
    for is_commit in [true, false] {
        let mut older = Test::new(broker, &format!("txn-older-{is_commit}"));
        let mut newer = Test { id: format!("{}-newer", older.id), connection: Connection::to(broker), topic: older.topic.clone(), ..older };
        newer.initialise();
        assert_eq!((older.write(PRODUCE_2, 0, 0), newer.write(PRODUCE_2, 0, 0), older.write(PRODUCE_2, 0, 1)), (0, 1, 2));
        newer.end(END_2, true);
        assert_eq!((newer.ends(0), newer.read_committed(0, 0)), ((4, 0), (vec![], 0, vec![])));
        let producer_id = older.producer_id;
        older.end(END_2, is_commit);
        let aborted = if is_commit { vec![] } else { vec![(producer_id, 0)] };
        assert_eq!(newer.read_committed(0, 0), (vec![0, 1, 2, 3, 4], 5, aborted));
    }
}

/// A fetch session remembers where its reader is, and tells it what the end of a transaction has made visible, with what was aborted.
fn readers_of_committed_records_with_a_session(broker: &Broker) {
    let mut test = Test::new(broker, "txn-session");
    let topic = test.topic.clone();
    let first = FetchRequest { isolation_level: 1, max_wait_ms: 0, session_epoch: 0, ..fetch_request(&[(&topic, 0, 0), (&topic, 1, 0)]) };
    let mut reader = Connection::to(broker);
    let session_id = reader.call(11, &first).session_id;
    assert_ne!(session_id, 0);
    let mut epoch = 0;
    let mut next = |max_wait_ms| {
        epoch += 1;
        let request = FetchRequest { session_id, session_epoch: epoch, topics: Vec::new(), max_wait_ms, ..first.clone() };
        let response = reader.call(11, &request);
        assert_eq!(code(response.error_code), ErrorCode::None);
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let with_records = partitions.filter(|data| !records_of(data).is_empty());
        let told = with_records.map(|data| {
            let batches = batch::read_batches(&records_of(data)).len();
            let aborted = data.aborted_transactions.iter().flatten().map(|aborted| aborted.first_offset).collect::<Vec<_>>();
            (data.partition_index, batches, aborted)
        });
        told.collect::<Vec<_>>()
    };
    test.write(PRODUCE_2, 1, 0);
    assert_eq!(next(0), [], "nothing is decided");
    test.end(END_2, false);
    assert_eq!(next(10_000), [(1, 2, vec![0])]);
    test.write(PRODUCE_2, 0, 0);
    assert_eq!(next(0), [(1, 2, vec![0])], "the reader has not moved there, and nothing is decided here");
    test.end(END_2, true);
    let mut told = next(10_000);
    told.sort();
    assert_eq!(told, [(0, 2, vec![]), (1, 2, vec![0])]);
}
