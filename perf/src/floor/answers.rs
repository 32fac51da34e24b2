//! The little of Kafka's protocol that a client needs to make a topic, produce, and read back: decoded and encoded by corelane-wire, in any version that ApiVersions tells.
//!
//! What is not here is the point of the floor: no checks of batches, no producer state, no sessions, no coordinators, no other brokers.

use std::net::SocketAddr;

use bytes::Bytes;
use corelane_wire::messages::api_versions_response::ApiVersion;
use corelane_wire::messages::create_topics_response::CreatableTopicResult;
use corelane_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use corelane_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use corelane_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use corelane_wire::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use corelane_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use corelane_wire::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use corelane_wire::{ApiKey, Chunk, Decoder, ErrorCode, Message, Records, Str, encode_response};

use super::storage::Storage;
use super::topics::{Batch, Topics};
use corelane::rt::bare_ring::Ring;

const NODE_ID: i32 = 1;
/// Bytes of a batch before its records.
const BATCH_HEADER_BYTES: usize = 61;
const LATEST_TIMESTAMP: i64 = -1;

/// What ApiVersions tells.
const SERVED: [(ApiKey, i16, i16); 7] = [
    // From 0 on, as Kafka tells, without which librdkafka does not compress; below 3 nothing is served.
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 11),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::ApiVersions, 0, 5),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::InitProducerId, 0, 5),
];

/// A frame with its header read.
pub struct Request {
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub body: Bytes,
}

/// What becomes of a request.
pub enum Outcome {
    /// To be sent once this group is safe.
    Answer { group: u64, chunks: Vec<Chunk> },
    /// Produce with acks=0.
    Nothing,
    /// Storage takes it later.
    NoRoom,
    /// A fetch that found too little and may wait so long.
    Wait { ms_max: u64 },
}

pub struct State {
    pub address: SocketAddr,
    pub topics: Topics,
    pub storage: Storage,
    pub next_producer_id: i64,
}

impl Request {
    /// None if the frame is no request that is served here.
    pub fn read(frame: Bytes) -> Option<Self> {
        let mut decoder = Decoder::new(frame.clone());
        let (api_key, header) = corelane_wire::read_request_header(&mut decoder).ok()?;
        let body = frame.slice(frame.len() - decoder.remaining()..);
        Some(Self { api_key, version: header.request_api_version, correlation_id: header.correlation_id, body })
    }

    fn decode<M: Message>(&self) -> Option<M> {
        M::decode(&mut Decoder::new(self.body.clone()), self.version).ok()
    }

    fn respond<M: Message>(&self, group: u64, response: &M) -> Option<Outcome> {
        let chunks = encode_response(self.api_key, self.version, self.correlation_id, response).ok()?;
        Some(Outcome::Answer { group, chunks })
    }
}

impl State {
    /// None closes the connection. `may_wait` is false for a fetch whose time is over.
    pub fn answer(&mut self, ring: &mut Ring, request: &Request, may_wait: bool) -> Option<Outcome> {
        match request.api_key {
            ApiKey::Produce => self.produce(ring, request),
            ApiKey::Fetch => self.fetch(request, may_wait),
            ApiKey::ApiVersions => Self::api_versions(request),
            ApiKey::Metadata => self.metadata(request),
            ApiKey::CreateTopics => self.create_topics(request),
            ApiKey::ListOffsets => self.list_offsets(request),
            ApiKey::InitProducerId => {
                self.next_producer_id += 1;
                request.respond(0, &InitProducerIdResponse { producer_id: self.next_producer_id, ..Default::default() })
            }
            _ => None,
        }
    }

    fn produce(&mut self, ring: &mut Ring, request: &Request) -> Option<Outcome> {
        let produce: ProduceRequest = request.decode()?;
        let partitions = produce.topic_data.iter().flat_map(|topic| &topic.partition_data);
        let bytes = partitions.map(|data| data.records.as_ref().map_or(0, Records::length) as u64).sum();
        if bytes <= self.storage.bytes_max() && !self.storage.has_room(bytes) {
            return Some(Outcome::NoRoom);
        }
        let is_too_large = bytes > self.storage.bytes_max();
        let mut response = ProduceResponse::default();
        let mut last_group = 0;
        for topic in produce.topic_data {
            let mut answers = Vec::with_capacity(topic.partition_data.len());
            let mut found = self.topics.find(&topic.name, &topic.topic_id);
            for data in topic.partition_data {
                let mut answer = PartitionProduceResponse { index: data.index, base_offset: -1, ..Default::default() };
                let partition = found.as_mut().and_then(|topic| topic.partitions.get_mut(usize::try_from(data.index).ok()?));
                let batch = data.records.map(|records| records.to_bytes()).filter(|batch| batch.len() > BATCH_HEADER_BYTES);
                match (partition, batch) {
                    (None, _) => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    (_, None) => answer.error_code = ErrorCode::InvalidRecord.code(),
                    (Some(_), Some(_)) if is_too_large => answer.error_code = ErrorCode::MessageTooLarge.code(),
                    (Some(partition), Some(batch)) => {
                        let record_count = 1 + i64::from(i32::from_be_bytes(batch[23..27].try_into().expect("four bytes")));
                        let base_offset = partition.next_offset;
                        let taken = self.storage.append(ring, base_offset, &batch);
                        let entry = Batch { base_offset, bytes: batch.len() as u32, position: taken.position, group: taken.group };
                        partition.add(entry, record_count, self.storage.oldest());
                        last_group = taken.group;
                        answer.base_offset = base_offset;
                        answer.log_start_offset = 0;
                    }
                }
                answers.push(answer);
            }
            response.responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.topic_id,
                partition_responses: answers,
                ..Default::default()
            });
        }
        if produce.acks == 0 { Some(Outcome::Nothing) } else { request.respond(last_group, &response) }
    }

    fn fetch(&mut self, request: &Request, may_wait: bool) -> Option<Outcome> {
        let fetch: FetchRequest = request.decode()?;
        let mut left = fetch.max_bytes.max(0) as usize;
        let (mut found_bytes, mut has_error) = (0, false);
        let mut response = FetchResponse::default();
        for topic in &fetch.topics {
            let partitions = topic.partitions.iter().map(|wanted| {
                let data = self.read(topic, wanted, left);
                let bytes = data.records.as_ref().map_or(0, Records::length);
                has_error |= data.error_code != 0;
                left = left.saturating_sub(bytes);
                found_bytes += bytes;
                data
            });
            response.responses.push(FetchableTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions: partitions.collect(),
                ..Default::default()
            });
        }
        if may_wait && !has_error && found_bytes < fetch.min_bytes.max(0) as usize && fetch.max_wait_ms > 0 {
            return Some(Outcome::Wait { ms_max: fetch.max_wait_ms as u64 });
        }
        request.respond(0, &response)
    }

    fn read(&mut self, topic: &FetchTopic, wanted: &FetchPartition, left: usize) -> PartitionData {
        let mut data = PartitionData { partition_index: wanted.partition, high_watermark: -1, ..Default::default() };
        let safe_group = self.storage.safe_group();
        let found = self.topics.find(&topic.topic, &topic.topic_id);
        let partition = found.and_then(|topic| topic.partitions.get(usize::try_from(wanted.partition).ok()?));
        let Some(partition) = partition else {
            data.error_code = ErrorCode::UnknownTopicOrPartition.code();
            return data;
        };
        data.high_watermark = partition.high_watermark(safe_group);
        data.last_stable_offset = data.high_watermark;
        data.log_start_offset = partition.start_offset();
        if left == 0 {
            return data;
        }
        match partition.read(wanted.fetch_offset, safe_group, left.min(wanted.partition_max_bytes.max(0) as usize)) {
            None => data.error_code = ErrorCode::OffsetOutOfRange.code(),
            Some(batches) => {
                let mut records = Vec::with_capacity(batches.iter().map(|batch| batch.bytes as usize).sum());
                for batch in batches {
                    if let Err(error) = self.storage.read(batch.position, batch.bytes, &mut records) {
                        eprintln!("floor: reading back: {error}");
                        data.error_code = ErrorCode::KafkaStorageError.code();
                    }
                }
                data.records = Some(Records::from(Bytes::from(records)));
            }
        }
        data
    }

    fn api_versions(request: &Request) -> Option<Outcome> {
        let own = |(api_key, min_version, max_version): &(ApiKey, i16, i16)| ApiVersion {
            api_key: api_key.code(),
            min_version: *min_version,
            max_version: *max_version,
            ..Default::default()
        };
        let is_known = (0..=5).contains(&request.version);
        let response = ApiVersionsResponse {
            error_code: if is_known { 0 } else { ErrorCode::UnsupportedVersion.code() },
            api_keys: SERVED.iter().map(own).collect(),
            ..Default::default()
        };
        // A version that nobody knows is answered in version 0 (KIP-511).
        let version = if is_known { request.version } else { 0 };
        Request { version, body: Bytes::new(), ..*request }.respond(0, &response)
    }

    fn metadata(&mut self, request: &Request) -> Option<Outcome> {
        let metadata: MetadataRequest = request.decode()?;
        let all = metadata.topics.is_none() || (request.version == 0 && metadata.topics.as_ref().is_some_and(Vec::is_empty));
        let mut topics = Vec::new();
        if all {
            topics.extend(self.topics.all().map(|topic| described(&topic.name, topic.id, topic.partitions.len())));
        }
        for wanted in metadata.topics.unwrap_or_default() {
            let name = wanted.name.unwrap_or_default();
            if metadata.allow_auto_topic_creation && !name.is_empty() {
                self.topics.create(&name, 1);
            }
            topics.push(match self.topics.find(&name, &wanted.topic_id) {
                Some(topic) => described(&topic.name, topic.id, topic.partitions.len()),
                None => {
                    let error_code = ErrorCode::UnknownTopicOrPartition.code();
                    MetadataResponseTopic { error_code, name: Some(name), topic_id: wanted.topic_id, ..Default::default() }
                }
            });
        }
        let broker = MetadataResponseBroker {
            node_id: NODE_ID,
            host: Str::from(self.address.ip().to_string()),
            port: i32::from(self.address.port()),
            ..Default::default()
        };
        let response = MetadataResponse {
            brokers: vec![broker],
            cluster_id: Some(Str::from("floor")),
            controller_id: NODE_ID,
            topics,
            ..Default::default()
        };
        request.respond(0, &response)
    }

    fn create_topics(&mut self, request: &Request) -> Option<Outcome> {
        let create: CreateTopicsRequest = request.decode()?;
        let mut response = CreateTopicsResponse::default();
        for topic in create.topics {
            let is_new = create.validate_only || self.topics.create(&topic.name, topic.num_partitions);
            let made = self.topics.find(&topic.name, &uuid::Uuid::nil());
            response.topics.push(CreatableTopicResult {
                topic_id: made.as_ref().map_or(uuid::Uuid::nil(), |topic| topic.id),
                num_partitions: made.map_or(topic.num_partitions, |topic| topic.partitions.len() as i32),
                replication_factor: 1,
                error_code: if is_new { 0 } else { ErrorCode::TopicAlreadyExists.code() },
                name: topic.name,
                ..Default::default()
            });
        }
        request.respond(0, &response)
    }

    fn list_offsets(&mut self, request: &Request) -> Option<Outcome> {
        let list: ListOffsetsRequest = request.decode()?;
        let safe_group = self.storage.safe_group();
        let mut response = ListOffsetsResponse::default();
        for topic in list.topics {
            let found = self.topics.find(&topic.name, &uuid::Uuid::nil());
            let partitions = topic.partitions.iter().map(|wanted| {
                let mut answer = ListOffsetsPartitionResponse { partition_index: wanted.partition_index, ..Default::default() };
                match found.as_ref().and_then(|topic| topic.partitions.get(usize::try_from(wanted.partition_index).ok()?)) {
                    None => answer.error_code = ErrorCode::UnknownTopicOrPartition.code(),
                    Some(partition) if wanted.timestamp == LATEST_TIMESTAMP => answer.offset = partition.high_watermark(safe_group),
                    Some(partition) => answer.offset = partition.start_offset(),
                }
                answer
            });
            let partitions = partitions.collect();
            response.topics.push(ListOffsetsTopicResponse { name: topic.name, partitions, ..Default::default() });
        }
        request.respond(0, &response)
    }
}

fn described(name: &Str, id: uuid::Uuid, partitions: usize) -> MetadataResponseTopic {
    let partition = |index| MetadataResponsePartition {
        partition_index: index,
        leader_id: NODE_ID,
        leader_epoch: 0,
        replica_nodes: vec![NODE_ID],
        isr_nodes: vec![NODE_ID],
        ..Default::default()
    };
    MetadataResponseTopic {
        name: Some(name.clone()),
        topic_id: id,
        partitions: (0..partitions as i32).map(partition).collect(),
        ..Default::default()
    }
}
