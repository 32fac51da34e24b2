//! One producer of one transactional id, by hand: for tests that leave a transaction in a certain state.

use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::{
    DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest,
};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{ATTRIBUTE_TRANSACTIONAL, Batch, Record};
use harness::broker::Broker;
use harness::raw::{Connection, code};
use harness::wait;

pub struct Producer {
    pub connection: Connection,
    pub id: String,
    pub producer_id: i64,
    pub epoch: i16,
}

impl Producer {
    /// A new instance of the id: what an older one left open is aborted.
    pub fn new(broker: &Broker, id: &str) -> Producer {
        let mut connection = Connection::to(broker);
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(id)),
            transaction_timeout_ms: 600_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let response = wait::until("a producer", wait::PATIENCE, || {
            connection.call(2, &FindCoordinatorRequest { key: Str::from(id), key_type: 1, ..Default::default() });
            Some(connection.call(4, &request)).filter(|response| response.error_code == 0)
        });
        Producer { connection, id: id.to_string(), producer_id: response.producer_id, epoch: response.producer_epoch }
    }

    /// The first record of a transaction in this partition, which has no other of the same producer and epoch.
    pub fn write(&mut self, version: i16, topic: &str, partition: i32, record: Record) {
        let batch = Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(vec![record]) }.producer(self.producer_id, self.epoch, 0);
        let data = PartitionProduceData { index: partition, records: Some(Records::from(batch.encode())), ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(Str::from(self.id.as_str())),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData { name: Str::from(topic), partition_data: vec![data], ..Default::default() }],
            ..Default::default()
        };
        wait::until("a record to be taken", wait::PATIENCE, || {
            let error = code(self.connection.call(version, &request).responses[0].partition_responses[0].error_code);
            let is_passing = matches!(error, ErrorCode::None | ErrorCode::ConcurrentTransactions | ErrorCode::NotEnoughReplicas);
            assert!(is_passing, "{}", error.name());
            error.is_none().then_some(())
        });
    }

    pub fn end_request(&self, is_commit: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: Str::from(self.id.as_str()),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: is_commit,
            ..Default::default()
        }
    }

    pub fn end(&mut self, is_commit: bool) {
        let request = self.end_request(is_commit);
        let answer = self.connection.call(5, &request);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        (self.producer_id, self.epoch) = (answer.producer_id, answer.producer_epoch);
        let state = if is_commit { "CompleteCommit" } else { "CompleteAbort" };
        wait::until(state, wait::PATIENCE, || (state_of(&mut self.connection, &self.id).as_deref() == Some(state)).then_some(()));
    }
}

/// None while the coordinator loads.
pub fn state_of(connection: &mut Connection, id: &str) -> Option<String> {
    let request = DescribeTransactionsRequest { transactional_ids: vec![Str::from(id)], ..Default::default() };
    let described = connection.call(0, &request).transaction_states.remove(0);
    (described.error_code == 0).then(|| described.transaction_state.to_string())
}

/// Where the log of a partition ends to those who read everything, and to those who read what is committed.
pub fn ends(connection: &mut Connection, topic: &str, partition: i32) -> (i64, i64) {
    let mut end = |isolation_level| {
        let target = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp: -1, ..Default::default() };
        let topic = ListOffsetsTopic { name: Str::from(topic), partitions: vec![target], ..Default::default() };
        let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics: vec![topic], ..Default::default() };
        connection.call(7, &request).topics[0].partitions[0].offset
    };
    (end(0), end(1))
}
