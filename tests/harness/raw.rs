//! The protocol by hand: one socket, one request, its response, in a version of the test's choice. For error codes and edge cases that no client library provokes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use corelane_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelane_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use corelane_wire::messages::fetch_response::PartitionData;
use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use corelane_wire::messages::metadata_request::MetadataRequestTopic;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::produce_response::PartitionProduceResponse;
use corelane_wire::messages::{
    CreateTopicsRequest, DescribeGroupsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, MetadataResponse, ProduceRequest,
};
use corelane_wire::{Chunk, Decoder, ErrorCode, Message, Records, Request, Str, encode_request, read_response_header};

use crate::batch::{self, Batch, Record};
use crate::broker::Broker;
use crate::wait;

/// Longer than any wait that a test asks of the broker.
const READ_LIMIT: Duration = Duration::from_secs(90);

pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

pub struct Connection {
    stream: TcpStream,
    next_correlation_id: i32,
    pub client_id: Option<Str>,
}

impl Connection {
    pub fn to(broker: &Broker) -> Connection {
        Connection::open(broker.address()).expect("the broker accepts connections")
    }

    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(20))?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, next_correlation_id: 1, client_id: Some(Str::from("black-box")) })
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends a request and reads its response, whose correlation id must be the request's.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request).unwrap_or_else(|error| panic!("{} version {version}: {error}", R::NAME))
    }

    pub fn try_call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let correlation_id = self.send(version, request)?;
        self.receive::<R>(version, correlation_id)
    }

    /// Sends a request without waiting; gives the correlation id that its response will carry.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.stream.write_all(&frame_of(version, correlation_id, self.client_id.clone(), request))?;
        Ok(correlation_id)
    }

    pub fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> io::Result<R::Response> {
        let mut decoder = Decoder::new(self.read_frame()?);
        let answered = read_response_header(&mut decoder, R::API_KEY, version).map_err(io::Error::other)?;
        assert_eq!(answered, correlation_id, "responses come in the order of the requests");
        let response = R::Response::decode(&mut decoder, version).map_err(io::Error::other)?;
        assert_eq!(decoder.remaining(), 0, "{} version {version}: bytes behind the response", R::NAME);
        Ok(response)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // The broker may have closed in the middle of it, which is for the reader to notice.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame without its length.
    pub fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    /// Asserts that the broker closes the connection without another byte.
    pub fn assert_closed(&mut self, why: &str) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("{why}: the broker answered instead of closing"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{why}: {error} instead of the connection's end"),
        }
    }

    /// Asserts that nothing arrives within `period`, while the connection stays open.
    pub fn assert_silent(&mut self, period: Duration) {
        self.stream.set_read_timeout(Some(period)).expect("a period above zero");
        let outcome = self.stream.read(&mut [0]);
        self.stream.set_read_timeout(Some(READ_LIMIT)).expect("a period above zero");
        let kind = outcome.map(|length| format!("{length} bytes")).map_err(|error| error.kind());
        assert!(matches!(kind, Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)), "{kind:?} instead of silence");
    }
}

/// A whole request frame, ready for the socket.
pub fn frame_of<R: Request>(version: i16, correlation_id: i32, client_id: Option<Str>, request: &R) -> Vec<u8> {
    let chunks = encode_request(version, correlation_id, client_id, request)
        .unwrap_or_else(|error| panic!("{} version {version}: {error:?}", R::NAME));
    let mut frame = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Memory(bytes) => frame.extend_from_slice(&bytes),
            Chunk::Deferred(_) => unreachable!("tests send records from memory"),
        }
    }
    frame
}

/// The code as an enum: failures then print names.
pub fn code(code: i16) -> ErrorCode {
    ErrorCode::try_from(code).unwrap_or_else(|_| panic!("{code} is no error code"))
}

// What most tests need before they come to their point.

impl Connection {
    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// Makes the topic and waits until its partitions have leaders that take records.
    pub fn create_topic_with(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: Str::from(*name),
            value: Some(Str::from(*value)),
            ..Default::default()
        });
        let topic = CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let response = self.call(5, &CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() });
        assert_eq!(code(response.topics[0].error_code), ErrorCode::None, "creating {name}: {:?}", response.topics[0].error_message);
        self.wait_for_leaders(name, partitions);
    }

    /// The original answers CreateTopics and Metadata before the replica takes writes (shared notes of the oracle); every partition answers ListOffsets once it does.
    pub fn wait_for_leaders(&mut self, name: &str, partitions: i32) {
        wait::until(&format!("leaders of {name}"), wait::PATIENCE, || {
            (0..partitions).all(|partition| self.list_offset(name, partition, EARLIEST).error_code == 0).then_some(())
        });
    }

    pub fn metadata(&mut self, version: i16, topics: &[&str]) -> MetadataResponse {
        let topics = topics.iter().map(|name| MetadataRequestTopic { name: Some(Str::from(*name)), ..Default::default() }).collect();
        self.call(version, &MetadataRequest { topics: Some(topics), allow_auto_topic_creation: version < 4, ..Default::default() })
    }

    pub fn topic_id(&mut self, name: &str) -> uuid::Uuid {
        self.metadata(12, &[name]).topics[0].topic_id
    }

    /// Produces one batch with acks=-1; the partition's answer.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: &Batch) -> PartitionProduceResponse {
        self.produce_bytes(9, topic, partition, -1, batch.encode())
    }

    pub fn produce_bytes(&mut self, version: i16, topic: &str, partition: i32, acks: i16, records: Bytes) -> PartitionProduceResponse {
        let mut response = self.call(version, &produce_request(topic, partition, acks, records));
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces records and asserts that they were taken; the first one's offset.
    pub fn append(&mut self, topic: &str, partition: i32, records: Vec<Record>) -> i64 {
        let answer = self.produce(topic, partition, &Batch::of(records));
        assert_eq!(code(answer.error_code), ErrorCode::None, "producing to {topic}-{partition}: {:?}", answer.error_message);
        answer.base_offset
    }

    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> ListOffsetsPartitionResponse {
        self.list_offset_in(7, topic, partition, timestamp)
    }

    pub fn list_offset_in(&mut self, version: i16, topic: &str, partition: i32, timestamp: i64) -> ListOffsetsPartitionResponse {
        let partition = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp, ..Default::default() };
        let topic = ListOffsetsTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
        let mut response = self.call(version, &ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() });
        response.topics.remove(0).partitions.remove(0)
    }

    pub fn end_offset(&mut self, topic: &str, partition: i32) -> i64 {
        self.list_offset(topic, partition, LATEST).offset
    }

    /// Fetches one partition without a session, waiting at most a second for the first byte.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let mut response = self.call(11, &fetch_request(&[(topic, partition, offset)]));
        response.responses.remove(0).partitions.remove(0)
    }

    /// All records from `offset` to the end that the partition has now.
    pub fn read_all(&mut self, topic: &str, partition: i32, offset: i64) -> Vec<(i64, Record)> {
        let end = self.end_offset(topic, partition);
        let mut records: Vec<(i64, Record)> = Vec::new();
        let mut next = offset;
        while next < end {
            let data = self.fetch(topic, partition, next);
            assert_eq!(code(data.error_code), ErrorCode::None, "fetching {topic}-{partition} at {next}");
            let batches = batch::read_batches(&records_of(&data));
            let Some(last) = batches.last() else { continue };
            let from = next;
            next = last.last_offset() + 1;
            records.extend(batches.into_iter().flat_map(|batch| batch.records).filter(|(offset, _)| *offset >= from));
        }
        records
    }

    /// A fresh producer id; a broker that has only just started asks for patience while it fetches its first block of ids.
    pub fn producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: 60_000, ..Default::default() };
        wait::until("a producer id", wait::PATIENCE, || {
            let response = self.call(1, &request);
            let outcome = code(response.error_code);
            assert!(matches!(outcome, ErrorCode::None | ErrorCode::CoordinatorLoadInProgress), "{}", outcome.name());
            outcome.is_none().then_some(response.producer_id)
        })
    }

    /// Asks for the group's coordinator until there is one and it has read its partition: the first call makes the offsets topic.
    pub fn wait_for_coordinator(&mut self, group: &str) {
        wait::until("a group coordinator", wait::PATIENCE, || {
            let found = self.call(2, &FindCoordinatorRequest { key: Str::from(group), key_type: 0, ..Default::default() });
            let described = self.call(5, &DescribeGroupsRequest { groups: vec![Str::from(group)], ..Default::default() });
            (found.error_code == 0 && described.groups[0].error_code == 0).then_some(())
        });
    }
}

pub fn produce_request(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: partition, records: Some(Records::from(records)), ..Default::default() };
    let topic = TopicProduceData { name: Str::from(topic), partition_data: vec![partition], ..Default::default() };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// A full fetch without a session, of `(topic, partition, offset)` in this order, with the limits of an ordinary consumer.
pub fn fetch_request(places: &[(&str, i32, i64)]) -> FetchRequest {
    let topic = |&(topic, partition, offset): &(&str, i32, i64)| {
        let partition = FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
            current_leader_epoch: -1,
            ..Default::default()
        };
        FetchTopic { topic: Str::from(topic), partitions: vec![partition], ..Default::default() }
    };
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 1_000,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_id: 0,
        session_epoch: -1,
        topics: places.iter().map(topic).collect(),
        ..Default::default()
    }
}

pub fn records_of(data: &PartitionData) -> Bytes {
    data.records.as_ref().map(Records::to_bytes).unwrap_or_default()
}

/// The answers of a fetch by topic and partition.
pub fn partitions_of(response: &FetchResponse) -> Vec<(String, &PartitionData)> {
    let of = |topic: &'_ corelane_wire::messages::fetch_response::FetchableTopicResponse| topic.topic.to_string();
    response.responses.iter().flat_map(|topic| topic.partitions.iter().map(move |data| (of(topic), data))).collect()
}
