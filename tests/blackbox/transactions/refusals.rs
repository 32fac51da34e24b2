//! What is refused, and with which code: appends that belong to no transaction, zombies, requests that make no sense, markers that come too late.

use corelane_wire::ErrorCode::{InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState, ProducerFenced, TransactionAbortable};
use corelane_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTransaction;
use harness::cases;
use harness::suite::Case;

use super::*;

pub const CASES: &[Case] = cases![
    an_append_outside_of_a_transaction_is_refused,
    an_append_after_the_marker_is_refused,
    two_producers_in_one_request_are_refused,
    zombies_are_fenced,
    requests_are_checked,
    partitions_join_all_or_none,
    brokers_verify_and_add_together,
    markers_are_checked,
];

fn an_append_outside_of_a_transaction_is_refused(broker: &Broker) {
    let mut test = Test::new(broker, "txn-outside");
    assert_eq!(settled(|| test.produce(PRODUCE_1, 0, 0)), Err(TransactionAbortable));
    assert_eq!(test.produce(10, 0, 0), Err(InvalidTxnState), "older clients do not know the newer code");
    test.join(1);
    assert_eq!(test.produce(PRODUCE_1, 0, 0), Err(TransactionAbortable), "another partition is in it");
    assert_eq!(test.write(PRODUCE_1, 1, 0), 0);
    let outside = Batch::of(vec![record("k", "v")]).producer(test.producer_id, test.epoch, 1);
    assert_eq!(test.produce_batch(PRODUCE_1, 1, &outside), Err(InvalidTxnState), "a plain batch while the transaction is open");
    assert_eq!(test.ends(0), (0, 0));
    let mut stranger = Test { id: "txn-outside-stranger".into(), ..test };
    for version in [PRODUCE_1, PRODUCE_2] {
        assert_eq!(settled(|| stranger.produce(version, 0, 0)), Err(InvalidProducerIdMapping));
    }
}

fn an_append_after_the_marker_is_refused(broker: &Broker) {
    let mut test = Test::new(broker, "txn-late");
    test.join(0);
    test.write(PRODUCE_1, 0, 0);
    test.end(END_1, true);
    assert_eq!(test.produce(PRODUCE_1, 0, 1), Err(TransactionAbortable));
    assert_eq!(test.ends(0), (2, 2), "nothing is left open");
}

fn two_producers_in_one_request_are_refused(broker: &Broker) {
    let mut test = Test::new(broker, "txn-two");
    test.join(0);
    test.join(1);
    let batch =
        |producer_id| Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(vec![record("k", "v")]) }.producer(producer_id, 0, 0);
    let (ours, other) = (batch(test.producer_id), batch(test.producer_id + 1));
    let response = test.connection.call(PRODUCE_1, &produce_request(&test.id, &test.topic, &[(0, &ours), (1, &other)]));
    let codes: Vec<ErrorCode> = response.responses[0].partition_responses.iter().map(|answer| code(answer.error_code)).collect();
    assert_eq!(codes, [InvalidProducerIdMapping, InvalidProducerIdMapping]);
}

fn zombies_are_fenced(broker: &Broker) {
    let mut test = Test::new(broker, "txn-zombie");
    let old = test.epoch;
    test.initialise();
    assert_eq!(test.epoch, old + 1);
    let newer = std::mem::replace(&mut test.epoch, old);
    for (version, expected) in [(1, InvalidProducerEpoch), (2, ProducerFenced), (3, ProducerFenced)] {
        assert_eq!(test.add(version, &[0]), [expected], "AddPartitionsToTxn {version}");
    }
    for (version, expected) in [(1, InvalidProducerEpoch), (END_1, ProducerFenced), (END_2, ProducerFenced)] {
        assert_eq!(test.try_end(version, true), Err(expected), "EndTxn {version}");
    }
    for version in [10, PRODUCE_1, PRODUCE_2] {
        assert_eq!(settled(|| test.produce(version, 0, 0)), Err(InvalidProducerEpoch), "Produce {version}");
    }
    test.epoch = newer;
    assert_eq!(test.write(PRODUCE_2, 0, 0), 0);
}

fn requests_are_checked(broker: &Broker) {
    let mut test = Test::new(broker, "txn-checks");
    let ask = |id: &str, timeout_ms, producer_id, producer_epoch| InitProducerIdRequest {
        transactional_id: Some(Str::from(id)),
        transaction_timeout_ms: timeout_ms,
        producer_id,
        producer_epoch,
        ..Default::default()
    };
    let id = test.id.clone();
    for (request, expected) in [
        (ask("", 1_000, -1, -1), ErrorCode::InvalidRequest),
        (ask(&id, 0, -1, -1), ErrorCode::InvalidTransactionTimeout),
        (ask(&id, 900_001, -1, -1), ErrorCode::InvalidTransactionTimeout),
        (ask(&id, 1_000, 5, -1), ErrorCode::InvalidRequest),
    ] {
        let response = test.connection.call(4, &request);
        assert_eq!((code(response.error_code), response.producer_id, response.producer_epoch), (expected, -1, -1), "{request:?}");
    }
    assert_eq!(test.try_end(END_1, true), Err(InvalidTxnState), "nothing was begun");
    assert_eq!(test.try_end(END_2, true), Err(InvalidTxnState));
    test.producer_id += 1_000;
    assert_eq!(test.try_end(END_1, true), Err(InvalidProducerIdMapping));
    assert_eq!(test.add(3, &[0]), [InvalidProducerIdMapping]);
}

fn partitions_join_all_or_none(broker: &Broker) {
    let mut test = Test::new(broker, "txn-join");
    let codes = test.add(3, &[0, 7]);
    assert_eq!(codes, [ErrorCode::OperationNotAttempted, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(test.state().as_deref(), Ok("Empty"));
    assert_eq!(test.add(3, &[0]), [ErrorCode::None]);
    assert_eq!(test.add(3, &[0]), [ErrorCode::None], "again");
}

fn brokers_verify_and_add_together(broker: &Broker) {
    let mut test = Test::new(broker, "txn-batched");
    test.join(0);
    let topic = |partitions: &[i32]| AddPartitionsToTxnTopic {
        name: Str::from(test.topic.as_str()),
        partitions: partitions.to_vec(),
        ..Default::default()
    };
    let transaction = |id: &str, verify_only, partitions: &[i32]| AddPartitionsToTxnTransaction {
        transactional_id: Str::from(id),
        producer_id: test.producer_id,
        producer_epoch: test.epoch,
        verify_only,
        topics: vec![topic(partitions)],
        ..Default::default()
    };
    let request = AddPartitionsToTxnRequest {
        transactions: vec![transaction(&test.id, true, &[0, 1]), transaction("txn-batched-unknown", true, &[0])],
        ..Default::default()
    };
    let adding = AddPartitionsToTxnRequest { transactions: vec![transaction(&test.id, false, &[1])], ..Default::default() };
    let mut codes = |request: &AddPartitionsToTxnRequest| {
        let response = test.connection.call(5, request);
        assert_eq!(code(response.error_code), ErrorCode::None);
        let mut results: Vec<(String, i32, ErrorCode)> = Vec::new();
        for transaction in &response.results_by_transaction {
            for partition in transaction.topic_results.iter().flat_map(|topic| &topic.results_by_partition) {
                let id = transaction.transactional_id.to_string();
                results.push((id, partition.partition_index, code(partition.partition_error_code)));
            }
        }
        results.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        results.into_iter().map(|(_, _, code)| code).collect::<Vec<_>>()
    };
    // The ids in their order: the one of the test ends in "-id".
    assert_eq!(codes(&request), [ErrorCode::None, TransactionAbortable, InvalidProducerIdMapping]);
    assert_eq!(codes(&adding), [ErrorCode::None]);
    assert_eq!(codes(&request), [ErrorCode::None, ErrorCode::None, InvalidProducerIdMapping]);
}

fn markers_are_checked(broker: &Broker) {
    let mut test = Test::new(broker, "txn-markers");
    test.join(0);
    test.write(PRODUCE_1, 0, 0);
    let epoch = test.epoch;
    assert_eq!(test.write_marker(0, epoch, 5, true, &[0, 9]), [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(test.ends(0), (2, 2));
    assert_eq!(test.write_marker(0, epoch, 5, true, &[0]), [ErrorCode::None], "a second one does no harm");
    assert_eq!(test.write_marker(0, epoch, 4, true, &[0]), [ErrorCode::TransactionCoordinatorFenced]);
    assert_eq!(test.write_marker(0, epoch + 3, 5, false, &[0]), [ErrorCode::None], "a fencing marker");
    assert_eq!(test.write_marker(0, epoch, 6, false, &[0]), [InvalidProducerEpoch]);
    assert_eq!(test.produce(PRODUCE_1, 0, 1), Err(InvalidProducerEpoch), "the log knows a newer epoch than the coordinator");

    // By the rules of version 2 the marker's epoch lies above that of the records, but for the same marker again.
    let mut test = Test::new(broker, "txn-markers-2");
    test.write(PRODUCE_2, 0, 0);
    let epoch = test.epoch;
    assert_eq!(test.write_marker(2, epoch, 0, true, &[0]), [InvalidProducerEpoch]);
    assert_eq!(test.write_marker(2, epoch + 1, 0, true, &[0]), [ErrorCode::None]);
    assert_eq!(test.write_marker(2, epoch + 1, 0, true, &[0]), [ErrorCode::None]);
}
