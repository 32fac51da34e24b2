//! Transactions by hand, by both protocols: states and error codes, what readers of committed records see, fencing, markers, offsets.

use std::time::Duration;

use corelane_wire::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use corelane_wire::messages::describe_producers_request::TopicRequest;
use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use corelane_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use corelane_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest, EndTxnRequest,
    EndTxnResponse, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, ListTransactionsRequest, OffsetFetchRequest,
    ProduceRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{self, ATTRIBUTE_TRANSACTIONAL, Batch, record};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, code, fetch_request, records_of};
use harness::suite::Case;
use harness::wait;

use ErrorCode::{
    ConcurrentTransactions, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState, OutOfOrderSequenceNumber, ProducerFenced,
    TransactionAbortable, UnstableOffsetCommit,
};

pub const CASES: &[Case] = cases![
    version_1_commits_and_aborts,
    version_2_registers_partitions_and_raises_the_epoch,
    transactions_of_version_2_follow_each_other_at_once,
    an_append_outside_of_a_transaction_is_refused,
    an_append_after_the_marker_is_refused,
    two_producers_in_one_request_are_refused,
    zombies_are_fenced,
    a_new_instance_aborts_the_open_transaction,
    a_producer_recovers_by_its_id_and_epoch,
    requests_are_checked,
    partitions_join_all_or_none,
    brokers_verify_and_add_together,
    the_same_end_again_by_version_1,
    the_same_end_again_by_version_2,
    an_abort_without_a_partition,
    markers_are_checked,
    an_operator_ends_a_hanging_transaction,
    offsets_count_with_the_commit,
    offsets_of_version_2_register_their_partition,
    late_transactions_are_aborted,
    transactions_are_described_and_listed,
    aborted_transactions_are_told_to_readers,
    a_commit_ends_the_wait_of_a_reader,
];

/// The newest versions of transaction version 1, and those of version 2.
const PRODUCE_1: i16 = 11;
const PRODUCE_2: i16 = 12;
const END_1: i16 = 4;
const END_2: i16 = 5;

/// One producer of one transactional id, on a topic of two partitions.
struct Test {
    connection: Connection,
    topic: String,
    id: String,
    producer_id: i64,
    epoch: i16,
}

impl Test {
    fn new(broker: &Broker, name: &str) -> Test {
        let mut connection = Connection::to(broker);
        connection.create_topic(name, 2);
        let mut test = Test { connection, topic: name.to_string(), id: format!("{name}-id"), producer_id: -1, epoch: -1 };
        test.initialise();
        test
    }

    /// Gets the next epoch, as soon as there is a coordinator and the transaction before is at its end.
    fn initialise(&mut self) {
        let (producer_id, epoch) = settled(|| {
            let find = FindCoordinatorRequest { key: Str::from(self.id.as_str()), key_type: 1, ..Default::default() };
            self.connection.call(2, &find);
            self.initialise_once(4, -1, -1)
        })
        .expect("a producer");
        (self.producer_id, self.epoch) = (producer_id, epoch);
    }

    fn initialise_once(&mut self, version: i16, producer_id: i64, epoch: i16) -> Result<(i64, i16), ErrorCode> {
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(self.id.as_str())),
            transaction_timeout_ms: 60_000,
            producer_id,
            producer_epoch: epoch,
            ..Default::default()
        };
        let response = self.connection.call(version, &request);
        outcome(response.error_code, (response.producer_id, response.producer_epoch))
    }

    fn add(&mut self, version: i16, partitions: &[i32]) -> Vec<ErrorCode> {
        let topic = AddPartitionsToTxnTopic { name: Str::from(self.topic.as_str()), partitions: partitions.to_vec(), ..Default::default() };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Str::from(self.id.as_str()),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        let mut response = self.connection.call(version, &request);
        let mut results = response.results_by_topic_v3_and_below.remove(0).results_by_partition;
        results.sort_by_key(|result| result.partition_index);
        results.iter().map(|result| code(result.partition_error_code)).collect()
    }

    /// Adds a partition once the transaction before is at its end.
    fn join(&mut self, partition: i32) {
        settled(|| self.add(3, &[partition])[0].into_result()).expect("a partition joins");
    }

    fn produce(&mut self, version: i16, partition: i32, sequence: i32) -> Result<i64, ErrorCode> {
        let batch = Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(vec![record("k", format!("{sequence}"))]) };
        let batch = batch.producer(self.producer_id, self.epoch, sequence);
        self.produce_batch(version, partition, &batch)
    }

    fn produce_batch(&mut self, version: i16, partition: i32, batch: &Batch) -> Result<i64, ErrorCode> {
        let request = produce_request(&self.id, &self.topic, &[(partition, batch)]);
        let response = self.connection.call(version, &request);
        let partition = &response.responses[0].partition_responses[0];
        outcome(partition.error_code, partition.base_offset)
    }

    /// As `produce`, once the transaction before is at its end.
    fn write(&mut self, version: i16, partition: i32, sequence: i32) -> i64 {
        settled(|| self.produce(version, partition, sequence)).expect("a record is taken")
    }

    fn end_once(&mut self, version: i16, is_commit: bool) -> EndTxnResponse {
        let request = EndTxnRequest {
            transactional_id: Str::from(self.id.as_str()),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: is_commit,
            ..Default::default()
        };
        self.connection.call(version, &request)
    }

    fn try_end(&mut self, version: i16, is_commit: bool) -> Result<(i64, i16), ErrorCode> {
        let response = self.end_once(version, is_commit);
        outcome(response.error_code, (response.producer_id, response.producer_epoch))
    }

    /// Ends the transaction, goes on with the producer that the answer names, and waits for the markers.
    fn end(&mut self, version: i16, is_commit: bool) {
        let told = settled(|| self.try_end(version, is_commit)).expect("the end is taken");
        if version >= END_2 {
            (self.producer_id, self.epoch) = told;
        }
        self.wait_for(if is_commit { "CompleteCommit" } else { "CompleteAbort" });
    }

    fn state(&mut self) -> Result<String, ErrorCode> {
        let request = DescribeTransactionsRequest { transactional_ids: vec![Str::from(self.id.as_str())], ..Default::default() };
        let described = self.connection.call(0, &request).transaction_states.remove(0);
        outcome(described.error_code, described.transaction_state.to_string())
    }

    fn wait_for(&mut self, state: &str) {
        wait::until(&format!("{} to be {state}", self.id), wait::PATIENCE, || (self.state().as_deref() == Ok(state)).then_some(()));
    }

    /// The end of what a reader sees: of all records, and of committed ones.
    fn ends(&mut self, partition: i32) -> (i64, i64) {
        let mut end = |isolation_level| {
            let target = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp: -1, ..Default::default() };
            let topic = ListOffsetsTopic { name: Str::from(self.topic.as_str()), partitions: vec![target], ..Default::default() };
            let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics: vec![topic], ..Default::default() };
            self.connection.call(7, &request).topics[0].partitions[0].offset
        };
        (end(0), end(1))
    }

    /// What a reader of committed records gets from `offset` on: offsets of the batches, last stable offset, aborted transactions.
    fn read_committed(&mut self, partition: i32, offset: i64) -> (Vec<i64>, i64, Vec<(i64, i64)>) {
        let request = corelane_wire::messages::FetchRequest {
            isolation_level: 1,
            max_wait_ms: 0,
            ..fetch_request(&[(&self.topic, partition, offset)])
        };
        let data = self.connection.call(11, &request).responses.remove(0).partitions.remove(0);
        assert_eq!(code(data.error_code), ErrorCode::None);
        let batches = batch::read_batches(&records_of(&data)).iter().map(|batch| batch.base_offset).collect();
        let aborted = data.aborted_transactions.expect("a list, if an empty one");
        let mut aborted: Vec<(i64, i64)> = aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect();
        aborted.sort_unstable();
        (batches, data.last_stable_offset, aborted)
    }

    fn marker(&self, version: i8, epoch: i16, coordinator_epoch: i32, is_commit: bool, partitions: &[i32]) -> WriteTxnMarkersRequest {
        let topic =
            WritableTxnMarkerTopic { name: Str::from(self.topic.as_str()), partition_indexes: partitions.to_vec(), ..Default::default() };
        let marker = WritableTxnMarker {
            producer_id: self.producer_id,
            producer_epoch: epoch,
            transaction_result: is_commit,
            topics: vec![topic],
            coordinator_epoch,
            transaction_version: version,
            ..Default::default()
        };
        WriteTxnMarkersRequest { markers: vec![marker], ..Default::default() }
    }

    fn write_marker(&mut self, version: i8, epoch: i16, coordinator_epoch: i32, is_commit: bool, partitions: &[i32]) -> Vec<ErrorCode> {
        let request = self.marker(version, epoch, coordinator_epoch, is_commit, partitions);
        let response = self.connection.call(if version >= 2 { 2 } else { 1 }, &request);
        response.markers[0].topics[0].partitions.iter().map(|partition| code(partition.error_code)).collect()
    }

    /// Epoch, coordinator's epoch and beginning of the open transaction, as DescribeProducers shows this producer.
    fn described_producer(&mut self, partition: i32) -> Option<(i32, i32, i64)> {
        let topic = TopicRequest { name: Str::from(self.topic.as_str()), partition_indexes: vec![partition], ..Default::default() };
        let answer = self.connection.call(0, &DescribeProducersRequest { topics: vec![topic], ..Default::default() });
        let producers = &answer.topics[0].partitions[0].active_producers;
        let producer = producers.iter().find(|producer| producer.producer_id == self.producer_id)?;
        Some((producer.producer_epoch, producer.coordinator_epoch, producer.current_txn_start_offset))
    }
}

/// Repeats what coordinators ask to repeat: while they load, or while the transaction before is not at its end.
fn settled<T>(mut ask: impl FnMut() -> Result<T, ErrorCode>) -> Result<T, ErrorCode> {
    wait::until("a coordinator that is ready", wait::PATIENCE, || match ask() {
        Err(
            ErrorCode::ConcurrentTransactions
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotLeaderOrFollower,
        ) => None,
        outcome => Some(outcome),
    })
}

fn outcome<T>(error_code: i16, value: T) -> Result<T, ErrorCode> {
    code(error_code).into_result().map(|()| value)
}

trait IntoResult {
    fn into_result(self) -> Result<(), ErrorCode>;
}

impl IntoResult for ErrorCode {
    fn into_result(self) -> Result<(), ErrorCode> {
        if self.is_none() { Ok(()) } else { Err(self) }
    }
}

fn produce_request(transactional_id: &str, topic: &str, batches: &[(i32, &Batch)]) -> ProduceRequest {
    let partition = |(index, batch): &(i32, &Batch)| PartitionProduceData {
        index: *index,
        records: Some(Records::from(batch.encode())),
        ..Default::default()
    };
    let topic = TopicProduceData { name: Str::from(topic), partition_data: batches.iter().map(partition).collect(), ..Default::default() };
    ProduceRequest {
        transactional_id: Some(Str::from(transactional_id)),
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

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

fn an_operator_ends_a_hanging_transaction(broker: &Broker) {
    let mut test = Test::new(broker, "txn-hanging");
    test.join(0);
    test.write(PRODUCE_1, 0, 0);
    let (epoch, _, start) = test.described_producer(0).expect("known");
    assert_eq!(start, 0);
    let coordinator_epoch = 1_000;
    assert_eq!(test.write_marker(0, epoch as i16, coordinator_epoch, false, &[0]), [ErrorCode::None]);
    assert_eq!(test.described_producer(0), Some((epoch, coordinator_epoch, -1)));
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0), (vec![0, 1], 2, vec![(producer_id, 0)]));
}

/// Committed offset of the test's partition 0, and the partition's code.
fn fetch_offset(test: &mut Test, group: &str, require_stable: bool) -> (i64, ErrorCode) {
    let topic = OffsetFetchRequestTopic { name: Str::from(test.topic.as_str()), partition_indexes: vec![0], ..Default::default() };
    let request = OffsetFetchRequest { group_id: Str::from(group), topics: Some(vec![topic]), require_stable, ..Default::default() };
    let response = test.connection.call(7, &request);
    let partition = &response.topics[0].partitions[0];
    (partition.committed_offset, code(partition.error_code))
}

fn commit_offset(test: &mut Test, version: i16, group: &str, offset: i64, generation: i32) -> Result<(), ErrorCode> {
    let partition = TxnOffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_metadata: Some(Str::from("m")),
        ..Default::default()
    };
    let topic = TxnOffsetCommitRequestTopic { name: Str::from(test.topic.as_str()), partitions: vec![partition], ..Default::default() };
    let request = TxnOffsetCommitRequest {
        transactional_id: Str::from(test.id.as_str()),
        group_id: Str::from(group),
        producer_id: test.producer_id,
        producer_epoch: test.epoch,
        generation_id_or_member_epoch: generation,
        topics: vec![topic],
        ..Default::default()
    };
    let response = test.connection.call(version, &request);
    code(response.topics[0].partitions[0].error_code).into_result()
}

fn offsets_count_with_the_commit(broker: &Broker) {
    let mut test = Test::new(broker, "txn-offsets");
    let group = "txn-offsets-group";
    test.connection.wait_for_coordinator(group);
    assert_eq!(settled(|| commit_offset(&mut test, 3, group, 5, -1)), Err(InvalidTxnState), "the group's partition has not joined");
    assert_eq!(settled(|| commit_offset(&mut test, 4, group, 5, -1)), Err(TransactionAbortable));
    let add = |test: &mut Test| {
        let request = AddOffsetsToTxnRequest {
            transactional_id: Str::from(test.id.as_str()),
            producer_id: test.producer_id,
            producer_epoch: test.epoch,
            group_id: Str::from(group),
            ..Default::default()
        };
        let response = settled(|| outcome(test.connection.call(3, &request).error_code, ()));
        response.expect("the group's partition joins");
    };
    add(&mut test);
    assert_eq!(settled(|| commit_offset(&mut test, 3, group, 5, -1)), Ok(()));
    assert_eq!(fetch_offset(&mut test, group, false), (-1, ErrorCode::None));
    assert_eq!(fetch_offset(&mut test, group, true), (-1, UnstableOffsetCommit));
    test.end(END_1, true);
    assert_eq!(fetch_offset(&mut test, group, true), (5, ErrorCode::None));

    add(&mut test);
    assert_eq!(settled(|| commit_offset(&mut test, 3, group, 9, -1)), Ok(()));
    test.end(END_1, false);
    assert_eq!(fetch_offset(&mut test, group, true), (5, ErrorCode::None), "aborted");

    add(&mut test);
    assert_eq!(
        settled(|| commit_offset(&mut test, 3, group, 9, 4)),
        Err(ErrorCode::UnknownMemberId),
        "a member that nobody knows (KIP-447)"
    );
    assert!(settled(|| commit_offset(&mut test, 3, "txn-offsets-nobody", 9, 4)).is_err());
    test.end(END_1, false);
}

fn offsets_of_version_2_register_their_partition(broker: &Broker) {
    let mut test = Test::new(broker, "txn-offsets-2");
    let group = "txn-offsets-2-group";
    test.connection.wait_for_coordinator(group);
    assert_eq!(settled(|| commit_offset(&mut test, 5, group, 7, -1)), Ok(()));
    assert_eq!(fetch_offset(&mut test, group, true), (-1, UnstableOffsetCommit));
    let old = test.epoch;
    test.end(END_2, true);
    assert_eq!(fetch_offset(&mut test, group, true), (7, ErrorCode::None));
    test.epoch = old;
    assert_eq!(settled(|| commit_offset(&mut test, 5, group, 1, -1)), Err(InvalidProducerEpoch), "a zombie's offsets");
    assert_eq!(fetch_offset(&mut test, group, true), (7, ErrorCode::None));
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

fn transactions_are_described_and_listed(broker: &Broker) {
    let mut test = Test::new(broker, "txn-describe");
    test.join(1);
    let unknown = Str::from("txn-describe-unknown");
    let request =
        DescribeTransactionsRequest { transactional_ids: vec![Str::from(test.id.as_str()), unknown, Str::from("")], ..Default::default() };
    let response = test.connection.call(0, &request);
    let codes: Vec<ErrorCode> = response.transaction_states.iter().map(|state| code(state.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::TransactionalIdNotFound, ErrorCode::InvalidRequest]);
    let described = &response.transaction_states[0];
    assert_eq!((&*described.transaction_state, described.transaction_timeout_ms), ("Ongoing", 60_000));
    assert_eq!((described.producer_id, described.producer_epoch), (test.producer_id, test.epoch));
    assert_eq!((&*described.topics[0].topic, &described.topics[0].partitions[..]), ("txn-describe", &[1][..]));

    let id = test.id.clone();
    let producer_id = test.producer_id;
    let mut list = |states: &[&str], producer_ids: &[i64], duration_ms: i64, pattern: Option<&str>| {
        let request = ListTransactionsRequest {
            state_filters: states.iter().map(|state| Str::from(*state)).collect(),
            producer_id_filters: producer_ids.to_vec(),
            duration_filter: duration_ms,
            transactional_id_pattern: pattern.map(Str::from),
            ..Default::default()
        };
        let response = settled(|| {
            let response = test.connection.call(2, &request);
            match code(response.error_code) {
                ErrorCode::CoordinatorLoadInProgress => Err(ErrorCode::CoordinatorLoadInProgress),
                _ => Ok(response),
            }
        });
        let response = response.expect("a list");
        let is_listed = response.transaction_states.iter().any(|state| *state.transactional_id == *id && state.producer_id == producer_id);
        let unknown: Vec<String> = response.unknown_state_filters.iter().map(ToString::to_string).collect();
        (code(response.error_code), is_listed, unknown)
    };
    let found = (ErrorCode::None, true, vec![]);
    let not_found = (ErrorCode::None, false, vec![]);
    assert_eq!(list(&[], &[], -1, None), found);
    assert_eq!(list(&["Ongoing"], &[producer_id], 0, Some("txn-desc.*")), found);
    assert_eq!(list(&["Empty"], &[], -1, None), not_found);
    assert_eq!(list(&[], &[producer_id + 100_000], -1, None), not_found);
    assert_eq!(list(&[], &[], 3_600_000, None), not_found);
    assert_eq!(list(&[], &[], -1, Some("txn-desc")), not_found, "a pattern fits the whole id");
    assert_eq!(list(&[], &[], -1, Some("(")).0, ErrorCode::InvalidRegularExpression);
    assert_eq!(list(&["Sleeping"], &[], -1, None), (ErrorCode::None, false, vec!["Sleeping".to_string()]));
    assert_eq!(list(&["Sleeping", "Ongoing"], &[], -1, None), (ErrorCode::None, true, vec!["Sleeping".to_string()]));
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
    let began = std::time::Instant::now();
    test.end(END_2, true);
    let data =
        reader.receive::<corelane_wire::messages::FetchRequest>(11, sent).expect("an answer").responses.remove(0).partitions.remove(0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!batch::read_batches(&records_of(&data)).is_empty());
}
