//! Transactions by hand, by both protocols: their course, what is refused, offsets, what operators ask and do, and the hazards that others have met. What all of them need is here: one
//! producer of one transactional id, step by step.

pub mod course;
pub mod hazards;
pub mod offsets;
pub mod operators;
pub mod refusals;

use corelane_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use corelane_wire::messages::describe_producers_request::TopicRequest;
use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use corelane_wire::messages::{
    AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest, EndTxnRequest, EndTxnResponse, FetchRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest, WriteTxnMarkersRequest,
};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{self, ATTRIBUTE_TRANSACTIONAL, Batch, record};
use harness::broker::Broker;
use harness::raw::{Connection, code, fetch_request, records_of};
use harness::wait;

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
        let request = FetchRequest { isolation_level: 1, max_wait_ms: 0, ..fetch_request(&[(&self.topic, partition, offset)]) };
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
