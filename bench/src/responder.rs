//! A broker that does nothing: one thread that answers as soon as it can, keeping records in memory or dropping them.
//!
//! `corelane-bench self` measures the client against it, so that nobody mistakes the client for a broker. The tests of bad input make it misbehave on purpose ([`Faults`]).

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::batch::set_base_offset;
use corelane_wire::messages::api_versions_response::ApiVersion;
use corelane_wire::messages::create_topics_response::CreatableTopicResult;
use corelane_wire::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use corelane_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use corelane_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use corelane_wire::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use corelane_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use corelane_wire::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse, FetchRequest,
    FetchResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse,
};
use corelane_wire::{ApiKey, Chunk, Decoder, ErrorCode, Message, Records, encode_response, read_request_header};
use rustix::event::{Timespec, epoll};

use crate::client;
use crate::client::connection::{Connection, invalid};

/// What the tests ask for; counted in Produce requests from 1 on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// From this one on every Produce is answered with this error.
    pub refuse: Option<(u64, i16)>,
    /// Nothing is answered for so long, once.
    pub stall: Option<(u64, Duration)>,
    /// All connections are closed, and no new one is taken.
    pub die: Option<u64>,
    /// What becomes of this one's records although they are acknowledged.
    pub spoil: Option<(u64, Spoil)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    Lose,
    Twice,
    Change,
    /// Kept after the next one's.
    Later,
}

pub struct Responder {
    listener: TcpListener,
    epoll: std::os::fd::OwnedFd,
    connections: Vec<Option<Connection>>,
    topics: BTreeMap<String, Topic>,
    waiting: Vec<Waiting>,
    keep: bool,
    spin: bool,
    faults: Faults,
    produced: u64,
}

#[derive(Default)]
struct Topic {
    settings: BTreeMap<String, String>,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    end: i64,
    /// Base offset, records, batch.
    batches: Vec<(i64, i64, Bytes)>,
    held_back: Option<Bytes>,
}

struct Waiting {
    place: usize,
    correlation_id: i32,
    request: FetchRequest,
    deadline: Instant,
}

const LISTENER: u64 = u64::MAX;

impl Responder {
    /// `keep`: records can be read back. `spin`: never sleeps.
    pub fn bind(address: SocketAddr, keep: bool, spin: bool, faults: Faults) -> io::Result<Responder> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Responder {
            listener,
            epoll,
            connections: Vec::new(),
            topics: BTreeMap::new(),
            waiting: Vec::new(),
            keep,
            spin,
            faults,
            produced: 0,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends, or a fault ends it.
    pub fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            let owing = !self.waiting.is_empty() || self.connections.iter().flatten().any(Connection::has_unsent);
            let wait = if self.spin { Some(Duration::ZERO) } else { owing.then_some(Duration::from_millis(1)) };
            let wait = wait.map(|wait| Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as _ });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    place => {
                        if self.serve(place as usize).is_err() {
                            self.connections[place as usize] = None;
                        }
                    }
                }
            }
            if self.faults.die.is_some_and(|at| self.produced >= at) {
                return Ok(());
            }
            self.answer_waiting();
            self.flush();
        }
    }

    /// Answers larger than a socket's buffer go in pieces.
    fn flush(&mut self) {
        for connection in &mut self.connections {
            if connection.as_mut().is_some_and(|connection| connection.flush().is_err()) {
                *connection = None;
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            self.take(stream)?;
        }
        Ok(())
    }

    fn take(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let connection = Connection::over(stream)?;
        let place = self.connections.len();
        epoll::add(&self.epoll, connection.as_fd(), epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)?;
        self.connections.push(Some(connection));
        Ok(())
    }

    fn serve(&mut self, place: usize) -> io::Result<()> {
        loop {
            let Some(connection) = &mut self.connections[place] else { return Ok(()) };
            connection.flush()?;
            let busy = connection.receive()?;
            while let Some(frame) =
                self.connections[place].as_mut().and_then(|connection| connection.next_frame().map(Bytes::copy_from_slice))
            {
                if let Some(answer) = self.answer(place, frame)? {
                    let connection = self.connections[place].as_mut().expect("it has just been read");
                    connection.send(&answer)?;
                }
            }
            if !busy || !self.spin {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, place: usize, frame: Bytes) -> io::Result<Option<Vec<u8>>> {
        let mut decoder = Decoder::new(frame);
        let (api_key, header) = read_request_header(&mut decoder).map_err(|error| invalid(format!("{error:?}")))?;
        let (version, id) = (header.request_api_version, header.correlation_id);
        macro_rules! request {
            ($type:ty) => {
                <$type>::decode(&mut decoder, version).map_err(invalid)?
            };
        }
        let answer = match api_key {
            ApiKey::Produce => {
                let request = request!(ProduceRequest);
                match self.produce(&request) {
                    Some(response) => frame_of(api_key, version, id, &response)?,
                    None => return Ok(None),
                }
            }
            ApiKey::Fetch => {
                let request = request!(FetchRequest);
                let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms.max(0) as u64);
                self.waiting.push(Waiting { place, correlation_id: id, request, deadline });
                return Ok(None);
            }
            ApiKey::ApiVersions => frame_of(api_key, version, id, &self.api_versions())?,
            ApiKey::Metadata => frame_of(api_key, version, id, &self.metadata(&request!(MetadataRequest)))?,
            ApiKey::CreateTopics => frame_of(api_key, version, id, &self.create_topics(&request!(CreateTopicsRequest)))?,
            ApiKey::DescribeConfigs => frame_of(api_key, version, id, &self.describe_configs(&request!(DescribeConfigsRequest)))?,
            ApiKey::ListOffsets => frame_of(api_key, version, id, &self.list_offsets(&request!(ListOffsetsRequest)))?,
            ApiKey::InitProducerId => frame_of(api_key, version, id, &InitProducerIdResponse { producer_id: 1, ..Default::default() })?,
            other => return Err(invalid(format!("{other:?} is not answered here"))),
        };
        Ok(Some(answer))
    }

    fn api_versions(&self) -> ApiVersionsResponse {
        let mut spoken = vec![
            (ApiKey::Produce, client::PRODUCE_VERSION),
            (ApiKey::Metadata, client::METADATA_VERSION),
            (ApiKey::ApiVersions, client::API_VERSIONS_VERSION),
            (ApiKey::InitProducerId, client::INIT_PRODUCER_ID_VERSION),
        ];
        if self.keep {
            spoken.extend([
                (ApiKey::Fetch, client::FETCH_VERSION),
                (ApiKey::CreateTopics, client::CREATE_TOPICS_VERSION),
                (ApiKey::ListOffsets, client::LIST_OFFSETS_VERSION),
                (ApiKey::DescribeConfigs, client::DESCRIBE_CONFIGS_VERSION),
            ]);
        }
        let api_keys = spoken
            .into_iter()
            .map(|(api_key, version)| ApiVersion {
                api_key: api_key.code(),
                min_version: version,
                max_version: version,
                ..Default::default()
            })
            .collect();
        ApiVersionsResponse { api_keys, ..Default::default() }
    }

    fn create_topics(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let topics = request.topics.iter().map(|wanted| {
            let name = wanted.name.as_str().to_string();
            let error_code = if self.topics.contains_key(&name) { ErrorCode::TopicAlreadyExists.code() } else { 0 };
            self.topics.entry(name).or_insert_with(|| Topic {
                settings: wanted
                    .configs
                    .iter()
                    .map(|config| (config.name.to_string(), config.value.as_deref().unwrap_or("").to_string()))
                    .collect(),
                partitions: (0..wanted.num_partitions).map(|_| Partition::default()).collect(),
            });
            CreatableTopicResult { name: wanted.name.clone(), error_code, ..Default::default() }
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let names = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
        let topics = names.map(|name| {
            let count = self.topics.get(name.as_str()).map_or(0, |topic| topic.partitions.len());
            let partitions =
                (0..count).map(|index| MetadataResponsePartition { partition_index: index as i32, leader_id: 1, ..Default::default() });
            let error_code = if count == 0 { ErrorCode::UnknownTopicOrPartition.code() } else { 0 };
            MetadataResponseTopic { error_code, name: Some(name), partitions: partitions.collect(), ..Default::default() }
        });
        let brokers = vec![MetadataResponseBroker { node_id: 1, ..Default::default() }];
        MetadataResponse { brokers, topics: topics.collect(), ..Default::default() }
    }

    fn describe_configs(&self, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
        let results = request.resources.iter().map(|resource| {
            let settings = self.topics.get(resource.resource_name.as_str()).map(|topic| topic.settings.clone()).unwrap_or_default();
            let configs = settings.into_iter().map(|(name, value)| DescribeConfigsResourceResult {
                name: name.as_str().into(),
                value: Some(value.as_str().into()),
                ..Default::default()
            });
            DescribeConfigsResult { resource_name: resource.resource_name.clone(), configs: configs.collect(), ..Default::default() }
        });
        DescribeConfigsResponse { results: results.collect(), ..Default::default() }
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = request.topics.iter().map(|wanted| {
            let partitions = wanted.partitions.iter().map(|partition| {
                let known =
                    self.topics.get(wanted.name.as_str()).and_then(|topic| topic.partitions.get(partition.partition_index as usize));
                let offset = known.map_or(0, |partition| partition.end);
                ListOffsetsPartitionResponse { partition_index: partition.partition_index, offset, ..Default::default() }
            });
            ListOffsetsTopicResponse { name: wanted.name.clone(), partitions: partitions.collect(), ..Default::default() }
        });
        ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
    }

    fn produce(&mut self, request: &ProduceRequest) -> Option<ProduceResponse> {
        self.produced += 1;
        if let Some((_, length)) = self.faults.stall.filter(|(at, _)| *at == self.produced) {
            std::thread::sleep(length);
        }
        if self.faults.die.is_some_and(|at| self.produced >= at) {
            return None;
        }
        let refused = self.faults.refuse.filter(|(at, _)| self.produced >= *at).map(|(_, code)| code);
        let spoil = self.faults.spoil.filter(|(at, _)| *at == self.produced).map(|(_, spoil)| spoil);
        let mut responses = Vec::with_capacity(request.topic_data.len());
        for data in &request.topic_data {
            let topic = self.topics.entry(data.name.as_str().to_string()).or_default();
            let mut answers = Vec::with_capacity(data.partition_data.len());
            for partition in &data.partition_data {
                let index = partition.index as usize;
                if topic.partitions.len() <= index {
                    topic.partitions.resize_with(index + 1, Partition::default);
                }
                let mut answer = PartitionProduceResponse { index: partition.index, base_offset: -1, ..Default::default() };
                match refused {
                    Some(code) => answer.error_code = code,
                    None => answer.base_offset = topic.partitions[index].append(partition.records.as_ref(), self.keep, spoil),
                }
                answers.push(answer);
            }
            responses.push(TopicProduceResponse { name: data.name.clone(), partition_responses: answers, ..Default::default() });
        }
        Some(ProduceResponse { responses, ..Default::default() })
    }

    /// Answers the fetches that have something to tell, or have waited long enough.
    fn answer_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for fetch in waiting {
            let response = self.fetch(&fetch.request);
            if response.is_none() && Instant::now() < fetch.deadline {
                self.waiting.push(fetch);
                continue;
            }
            let frame = frame_of(ApiKey::Fetch, client::FETCH_VERSION, fetch.correlation_id, &response.unwrap_or_default());
            let Some(connection) = &mut self.connections[fetch.place] else { continue };
            if frame.and_then(|frame| connection.send(&frame)).is_err() {
                self.connections[fetch.place] = None;
            }
        }
    }

    /// Without sessions, as a broker may: every fetch names all of its partitions.
    fn fetch(&self, request: &FetchRequest) -> Option<FetchResponse> {
        let mut found = false;
        let mut left = request.max_bytes.max(1) as usize;
        let responses = request.topics.iter().map(|wanted| {
            let partitions = wanted.partitions.iter().map(|partition| {
                let known = self.topics.get(wanted.topic.as_str()).and_then(|topic| topic.partitions.get(partition.partition as usize));
                let records = known.map_or_else(Vec::new, |known| known.read(partition.fetch_offset, &mut left));
                found |= !records.is_empty();
                PartitionData {
                    partition_index: partition.partition,
                    records: Some(Records::from(Bytes::from(records))),
                    ..Default::default()
                }
            });
            FetchableTopicResponse { topic: wanted.topic.clone(), partitions: partitions.collect(), ..Default::default() }
        });
        let responses = responses.collect();
        found.then(|| FetchResponse { responses, ..Default::default() })
    }
}

impl Partition {
    fn append(&mut self, records: Option<&Records>, keep: bool, spoil: Option<Spoil>) -> i64 {
        let base_offset = self.end;
        let mut batch = records.map(|records| records.to_bytes().to_vec()).unwrap_or_default();
        let count = batch.get(57..61).map_or(1, |count| i64::from(i32::from_be_bytes(count.try_into().expect("four bytes"))));
        if spoil != Some(Spoil::Lose) {
            self.end += count;
        }
        if !keep || spoil == Some(Spoil::Lose) {
            return base_offset;
        }
        if spoil == Some(Spoil::Change) {
            let last = batch.len() - 2;
            batch[last] ^= 1;
        }
        if spoil == Some(Spoil::Later) {
            self.held_back = Some(Bytes::from(batch));
            return base_offset;
        }
        // One that was held back changes places with this one.
        let held_back = self.held_back.take();
        let place = if held_back.is_some() { base_offset - count } else { base_offset };
        self.put(place, count, batch);
        if let Some(batch) = held_back {
            self.put(base_offset, count, batch.to_vec());
        } else if spoil == Some(Spoil::Twice) {
            let again = self.batches.last().expect("just put").2.to_vec();
            self.put(self.end, count, again);
            self.end += count;
        }
        base_offset
    }

    fn put(&mut self, base_offset: i64, count: i64, mut batch: Vec<u8>) {
        set_base_offset(&mut batch, base_offset);
        self.batches.push((base_offset, count, Bytes::from(batch)));
    }

    fn read(&self, offset: i64, left: &mut usize) -> Vec<u8> {
        let first = self.batches.partition_point(|(base_offset, count, _)| base_offset + count <= offset);
        let mut records = Vec::new();
        for (_, _, batch) in &self.batches[first..] {
            if *left == 0 {
                break;
            }
            records.extend_from_slice(batch);
            *left = left.saturating_sub(batch.len());
        }
        records
    }
}

fn frame_of<M: Message>(api_key: ApiKey, version: i16, correlation_id: i32, response: &M) -> io::Result<Vec<u8>> {
    let chunks = encode_response(api_key, version, correlation_id, response).map_err(invalid)?;
    let mut frame = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Memory(bytes) => frame.extend_from_slice(&bytes),
            Chunk::Deferred(_) => unreachable!("everything lies in memory"),
        }
    }
    Ok(frame)
}
