//! Idempotent producers: sequences, duplicates, epochs, and what the broker keeps of them.

use corelane_wire::messages::describe_producers_request::TopicRequest;
use corelane_wire::messages::{DescribeProducersRequest, InitProducerIdRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, record};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, code, produce_request};
use harness::suite::Case;

pub const CASES: &[Case] = cases![
    producer_ids_are_unique,
    producer_id_requests_are_checked,
    sequences_follow_each_other,
    the_last_five_batches_are_known_again,
    a_gap_is_refused,
    a_higher_epoch_starts_at_zero_and_fences_the_lower,
    sequences_wrap_around,
    an_unknown_producer_may_begin_anywhere,
    duplicates_in_flight_get_the_same_answer,
    describe_producers_shows_the_state,
];

fn producer_ids_are_unique(broker: &Broker) {
    let mut ids: Vec<i64> = (0..4)
        .flat_map(|_| {
            let mut connection = Connection::to(broker);
            (0..5).map(move |_| connection.producer_id()).collect::<Vec<_>>()
        })
        .collect();
    assert!(ids.iter().all(|id| *id >= 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

fn producer_id_requests_are_checked(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let ask = |producer_id, producer_epoch| InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 1,
        producer_id,
        producer_epoch,
        ..Default::default()
    };
    let fresh = connection.call(4, &ask(-1, -1));
    assert_eq!((code(fresh.error_code), fresh.producer_epoch), (ErrorCode::None, 0));
    for (id, epoch) in [(5, -1), (-1, 5)] {
        assert_eq!(code(connection.call(4, &ask(id, epoch)).error_code), ErrorCode::InvalidRequest, "id {id}, epoch {epoch}");
    }
}

fn sequences_follow_each_other(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-sequences");
    for (sequence, count, offset) in [(0, 3, 0), (3, 1, 3), (4, 10, 4)] {
        assert_eq!(test.produce(0, sequence, count), (ErrorCode::None, offset), "sequence {sequence}");
    }
}

/// A duplicate gets the original's offset and nothing is written; beyond five batches back it is out of order.
fn the_last_five_batches_are_known_again(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-duplicates");
    for index in 0..7 {
        assert_eq!(test.produce(0, index * 2, 2), (ErrorCode::None, i64::from(index) * 2));
    }
    for index in (2..7).rev() {
        assert_eq!(test.produce(0, index * 2, 2), (ErrorCode::None, i64::from(index) * 2), "batch {index} again");
    }
    for index in [0, 1] {
        assert_eq!(test.produce(0, index * 2, 2).0, ErrorCode::OutOfOrderSequenceNumber, "batch {index} again");
    }
    assert_eq!(test.produce(0, 12, 1).0, ErrorCode::OutOfOrderSequenceNumber, "half of a known batch");
    assert_eq!(test.connection.end_offset(&test.topic, 0), 14);
}

fn a_gap_is_refused(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-gap");
    assert_eq!(test.produce(0, 0, 1), (ErrorCode::None, 0));
    assert_eq!(test.produce(0, 2, 1).0, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(test.produce(0, 1, 1), (ErrorCode::None, 1), "the missing one heals it");
    assert_eq!(test.produce(0, 2, 1), (ErrorCode::None, 2));
}

fn a_higher_epoch_starts_at_zero_and_fences_the_lower(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-epoch");
    assert_eq!(test.produce(0, 0, 2), (ErrorCode::None, 0));
    assert_eq!(test.produce(1, 2, 1).0, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(test.produce(1, 0, 1), (ErrorCode::None, 2));
    assert_eq!(test.produce(0, 2, 1).0, ErrorCode::InvalidProducerEpoch);
    assert_eq!(test.produce(1, 1, 1), (ErrorCode::None, 3));
}

fn sequences_wrap_around(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-wrap");
    assert_eq!(test.produce(0, i32::MAX - 1, 1), (ErrorCode::None, 0));
    assert_eq!(test.produce(0, i32::MAX, 1), (ErrorCode::None, 1));
    assert_eq!(test.produce(0, 0, 3), (ErrorCode::None, 2));
    assert_eq!(test.produce(0, i32::MAX, 1), (ErrorCode::None, 1), "a duplicate from before the turn");
    assert_eq!(test.produce(0, 3, 1), (ErrorCode::None, 5));
    // A batch may itself run over the turn.
    let mut test = Test::new(broker, "idempotence-wrap-inside");
    assert_eq!(test.produce(0, i32::MAX - 1, 5), (ErrorCode::None, 0));
    assert_eq!(test.produce(0, 3, 1), (ErrorCode::None, 5));
}

/// Its state may have expired; refusing would lose records.
fn an_unknown_producer_may_begin_anywhere(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-unknown");
    assert_eq!(test.produce(3, 1234, 1), (ErrorCode::None, 0));
    assert_eq!(test.produce(3, 1235, 1), (ErrorCode::None, 1));
}

/// The duplicate is sent before the original is answered, as a client does that lost its connection.
fn duplicates_in_flight_get_the_same_answer(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-in-flight");
    let batch = test.batch(0, 0, 3).encode();
    let sent: Vec<i32> = (0..4)
        .map(|_| test.connection.send(9, &produce_request(&test.topic, 0, -1, batch.clone())).expect("the socket takes it"))
        .collect();
    for correlation_id in sent {
        let answer = test.connection.receive::<corelane_wire::messages::ProduceRequest>(9, correlation_id).expect("an answer");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((code(partition.error_code), partition.base_offset), (ErrorCode::None, 0));
    }
    assert_eq!(test.connection.end_offset(&test.topic, 0), 3);
}

fn describe_producers_shows_the_state(broker: &Broker) {
    let mut test = Test::new(broker, "idempotence-describe");
    test.produce(2, 0, 5);
    test.produce(2, 5, 3);
    let topic = TopicRequest { name: Str::from(test.topic.as_str()), partition_indexes: vec![0, 7], ..Default::default() };
    let answer = test.connection.call(0, &DescribeProducersRequest { topics: vec![topic], ..Default::default() });
    let partitions = &answer.topics[0].partitions;
    let of = |index| partitions.iter().find(|partition| partition.partition_index == index).expect("an answer for each partition");
    assert_eq!(code(of(7).error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(of(0).error_code), ErrorCode::None);
    let producers: Vec<_> =
        of(0).active_producers.iter().map(|producer| (producer.producer_id, producer.producer_epoch, producer.last_sequence)).collect();
    assert_eq!(producers, [(test.producer_id, 2, 7)]);
    assert_eq!(of(0).active_producers[0].current_txn_start_offset, -1);
}

/// One producer on one partition of a fresh topic.
struct Test {
    connection: Connection,
    topic: String,
    producer_id: i64,
}

impl Test {
    fn new(broker: &Broker, topic: &str) -> Test {
        let mut connection = Connection::to(broker);
        connection.create_topic(topic, 1);
        let producer_id = connection.producer_id();
        Test { connection, topic: topic.to_string(), producer_id }
    }

    fn batch(&self, epoch: i16, sequence: i32, count: i32) -> Batch {
        Batch::of((0..count).map(|index| record("k", format!("{sequence}+{index}"))).collect()).producer(self.producer_id, epoch, sequence)
    }

    fn produce(&mut self, epoch: i16, sequence: i32, count: i32) -> (ErrorCode, i64) {
        let batch = self.batch(epoch, sequence, count);
        let answer = self.connection.produce(&self.topic, 0, &batch);
        (code(answer.error_code), answer.base_offset)
    }
}
