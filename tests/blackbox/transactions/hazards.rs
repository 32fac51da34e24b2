//! Hazards of Kafka's transactions that others have found in brokers and clients, in Jepsen's reports above all, each where it can be seen by hand.
//!
//! What takes many clients, kills and cuts to see is looked for over minutes by `faults::soak::transactions`, whose checker proves itself on each: lost writes, duplicates, aborted and
//! intermediate reads, reordering, polls that go back. Offsets and records that do not agree after a kill: `faults::transactions`. That an aborted transaction leaves the committed
//! position where it was, while the consumer's own has moved on, is in `offsets`.

use corelane_wire::ErrorCode::{InvalidProducerEpoch, ProducerFenced};
use corelane_wire::messages::DeleteTopicsRequest;
use harness::suite::Case;
use harness::{cases, differences};

use super::offsets::{commit_offset, fetch_offset};
use super::*;

pub const CASES: &[Case] = cases![
    a_late_end_does_not_reach_the_next_transaction,
    by_version_1_a_late_end_is_taken_for_the_next_ones,
    late_records_and_offsets_do_not_reach_the_next_transaction,
    an_old_instance_does_not_touch_the_new_ones_transaction,
    what_was_aborted_for_its_producer_is_not_committed_by_it,
    a_topic_that_is_made_again_ends_no_transaction_early,
];

/// The retry of an EndTxn that arrives when the next transaction is open (KAFKA-17754): it would commit what is to be aborted, or abort what its producer goes on with.
fn a_late_end_does_not_reach_the_next_transaction(broker: &Broker) {
    for is_commit in [true, false] {
        let mut test = Test::new(broker, &format!("txn-late-end-{is_commit}"));
        let first = test.epoch;
        test.write(PRODUCE_2, 0, 0);
        test.end(END_2, is_commit);
        let next = test.epoch;
        test.write(PRODUCE_2, 0, 0);
        test.epoch = first;
        for version in [END_1, END_2] {
            for late in [true, false] {
                assert_eq!(test.try_end(version, late), Err(ProducerFenced), "EndTxn {version}, commit {late}");
            }
        }
        assert_eq!((test.state().as_deref(), test.ends(0)), (Ok("Ongoing"), (3, 2)));
        test.epoch = next;
        test.end(END_2, !is_commit);
        let producer_id = test.producer_id;
        let aborted_at = if is_commit { 2 } else { 0 };
        assert_eq!(test.read_committed(0, 0), (vec![0, 1, 2, 3], 4, vec![(producer_id, aborted_at)]));
    }
}

/// What version 2 is there for: by version 1 all transactions of an instance have one epoch, and nothing tells a late request from the next one's own.
fn by_version_1_a_late_end_is_taken_for_the_next_ones(broker: &Broker) {
    let mut test = Test::new(broker, "txn-late-end-1");
    for sequence in [0, 1] {
        test.join(0);
        test.write(PRODUCE_1, 0, sequence);
        // The second time it is the retry of the first one's.
        test.end(END_1, true);
    }
    assert_eq!(test.read_committed(0, 0), (vec![0, 1, 2, 3], 4, vec![]));
}

fn late_records_and_offsets_do_not_reach_the_next_transaction(broker: &Broker) {
    let mut test = Test::new(broker, "txn-late-records");
    let group = "txn-late-records-group";
    test.connection.wait_for_coordinator(group);
    let first = test.epoch;
    test.write(PRODUCE_2, 0, 0);
    assert_eq!(settled(|| commit_offset(&mut test, 5, group, 1, -1)), Ok(()));
    test.end(END_2, true);
    let next = test.epoch;
    test.write(PRODUCE_2, 0, 0);
    assert_eq!(settled(|| commit_offset(&mut test, 5, group, 2, -1)), Ok(()));
    test.epoch = first;
    for (partition, sequence) in [(0, 1), (1, 0)] {
        for version in [PRODUCE_1, PRODUCE_2] {
            assert_eq!(
                settled(|| test.produce(version, partition, sequence)),
                Err(InvalidProducerEpoch),
                "Produce {version} to {partition}"
            );
        }
    }
    for version in [3, 4, 5] {
        assert_eq!(settled(|| commit_offset(&mut test, version, group, 9, -1)), Err(InvalidProducerEpoch), "TxnOffsetCommit {version}");
    }
    test.epoch = next;
    test.end(END_2, true);
    assert_eq!(test.read_committed(0, 0), (vec![0, 1, 2, 3], 4, vec![]));
    assert_eq!((test.ends(1), fetch_offset(&mut test, group, true)), ((0, 0), (2, ErrorCode::None)));
}

/// Two instances of one id, the older one in the belief that it still has the id.
fn an_old_instance_does_not_touch_the_new_ones_transaction(broker: &Broker) {
    let mut test = Test::new(broker, "txn-two-instances");
    let old = test.epoch;
    test.write(PRODUCE_2, 0, 0);
    test.initialise();
    let new = test.epoch;
    test.write(PRODUCE_2, 0, 0);
    test.epoch = old;
    for version in [END_1, END_2] {
        for is_commit in [true, false] {
            assert_eq!(test.try_end(version, is_commit), Err(ProducerFenced), "EndTxn {version}, commit {is_commit}");
        }
    }
    assert_eq!(test.add(3, &[1]), [ProducerFenced]);
    assert_eq!(settled(|| test.produce(PRODUCE_2, 0, 1)), Err(InvalidProducerEpoch));
    assert_eq!(test.state().as_deref(), Ok("Ongoing"));
    test.epoch = new;
    test.end(END_2, true);
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0), (vec![0, 1, 2, 3], 4, vec![(producer_id, 0)]), "the old one's was aborted");
}

/// A transaction that took too long was aborted by the coordinator, and its producer commits (KAFKA-20785): to be told that this has worked would be a lost write.
fn what_was_aborted_for_its_producer_is_not_committed_by_it(broker: &Broker) {
    let mut test = Test::new(broker, "txn-too-late");
    let request = InitProducerIdRequest {
        transactional_id: Some(Str::from(test.id.as_str())),
        transaction_timeout_ms: 300,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    test.epoch = test.connection.call(4, &request).producer_epoch;
    test.write(PRODUCE_2, 0, 0);
    test.wait_for("CompleteAbort");
    for _ in 0..2 {
        let refused = test.try_end(END_2, true).map_err(|error| error.name());
        assert_eq!(refused, Err(differences::expected("commit-of-what-was-aborted")));
    }
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0), (vec![0, 1], 2, vec![(producer_id, 0)]));
}

/// A topic of the same name in the middle of a transaction: what is in the new one was not in the transaction, and nobody waits there for its end.
fn a_topic_that_is_made_again_ends_no_transaction_early(broker: &Broker) {
    let mut test = Test::new(broker, "txn-made-again");
    let other = "txn-made-again-beside";
    test.connection.create_topic(other, 1);
    test.write(PRODUCE_2, 0, 0);
    let topic = std::mem::replace(&mut test.topic, other.to_string());
    test.write(PRODUCE_2, 0, 0);
    let request = DeleteTopicsRequest { topic_names: vec![Str::from(topic.as_str())], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(code(test.connection.call(3, &request).responses[0].error_code), ErrorCode::None);
    wait::until("the topic to be gone", wait::PATIENCE, || {
        (code(test.connection.metadata(9, &[&topic]).topics[0].error_code) == ErrorCode::UnknownTopicOrPartition).then_some(())
    });
    test.connection.create_topic(&topic, 1);
    assert_eq!((test.state().as_deref(), test.ends(0)), (Ok("Ongoing"), (1, 0)));
    test.connection.append(&topic, 0, vec![record("k", "v")]);
    test.end(END_2, true);
    assert_eq!(test.read_committed(0, 0), (vec![0, 1], 2, vec![]));
    test.topic = topic;
    let (end, stable_end) = test.ends(0);
    assert_eq!(end, stable_end);
    assert_eq!(test.read_committed(0, 0).0[0], 0);
}
