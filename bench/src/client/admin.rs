//! What surrounds a run: what the broker speaks, a topic for the run, its offsets. Nothing here is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelane_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelane_wire::messages::describe_configs_request::DescribeConfigsResource;
use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelane_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelane_wire::messages::metadata_request::MetadataRequestTopic;
use corelane_wire::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest,
};
use corelane_wire::{ApiKey, ErrorCode, Str};

use super::connection::Connection;
use super::template::ProducerState;
use super::{
    API_VERSIONS_VERSION, CREATE_TOPICS_VERSION, DESCRIBE_CONFIGS_VERSION, FETCH_VERSION, INCREMENTAL_ALTER_CONFIGS_VERSION,
    INIT_PRODUCER_ID_VERSION, LIST_OFFSETS_VERSION, METADATA_VERSION, PRODUCE_VERSION,
};
use crate::failure::Failure;
use crate::workload::{Class, Workload};

const LATEST: i64 = -1;
const TOPIC_RESOURCE: i8 = 2;
const GROUP_RESOURCE: i8 = 32;
const SET: i8 = 0;
/// Apache Kafka takes more than a minute for a thousand partitions where others use the disk, too.
const LEADERS_MAX: Duration = Duration::from_secs(300);
const SETTING_MAX: Duration = Duration::from_secs(10);

pub struct Admin {
    connection: Connection,
    address: SocketAddr,
    speaks: BTreeSet<i16>,
}

impl Admin {
    /// Connects and asks what the broker speaks.
    pub fn connect(address: SocketAddr, congestion_control: Option<&str>) -> Result<Admin, Failure> {
        let unreachable = |error: std::io::Error| Failure::Unreachable(format!("{address}: {error}"));
        let mut connection = Connection::open(address, congestion_control).map_err(|error| Failure::Unreachable(error.to_string()))?;
        let request = ApiVersionsRequest {
            client_software_name: "corelane-bench".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let response = connection.ask(API_VERSIONS_VERSION, &request).map_err(unreachable)?;
        let wanted = [(ApiKey::Produce, PRODUCE_VERSION), (ApiKey::Fetch, FETCH_VERSION), (ApiKey::Metadata, METADATA_VERSION)];
        for (api_key, version) in wanted {
            let spoken = response.api_keys.iter().find(|spoken| spoken.api_key == api_key.code());
            if spoken.is_some_and(|spoken| !(spoken.min_version..=spoken.max_version).contains(&version)) {
                return Err(Failure::Settings(format!("the broker at {address} does not speak {api_key:?} version {version}")));
            }
        }
        let speaks = response.api_keys.iter().map(|spoken| spoken.api_key).collect();
        Ok(Admin { connection, address, speaks })
    }

    pub fn speaks(&self, api_key: ApiKey) -> bool {
        self.speaks.contains(&api_key.code())
    }

    /// The topic of the run, made if it is not there. One that is there must be as the workload wants it.
    pub fn prepare_topic(&mut self, workload: &Workload, topic: &str) -> Result<(), Failure> {
        if !self.speaks(ApiKey::CreateTopics) {
            // A floor that keeps no topics takes any name.
            return Ok(());
        }
        let settings = workload.settings_of_topic();
        match self.create(topic, workload.partitions, &settings)? {
            Created::New => self.wait_for_leaders(topic, workload.partitions),
            Created::WasThere => self.compare(topic, workload.partitions, &settings),
        }
    }

    fn create(&mut self, topic: &str, partitions: i32, settings: &BTreeMap<String, String>) -> Result<Created, Failure> {
        let configs = settings
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.as_str().into(),
                value: Some(value.as_str().into()),
                ..Default::default()
            })
            .collect();
        let wanted =
            CreatableTopic { name: Str::from(topic), num_partitions: partitions, replication_factor: 1, configs, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![wanted], timeout_ms: 60_000, ..Default::default() };
        let response = self.connection.ask(CREATE_TOPICS_VERSION, &request).map_err(|error| self.gone("making the topic", error))?;
        let result = response.topics.first().ok_or_else(|| Failure::Refused("CreateTopics answered nothing".to_string()))?;
        match result.error_code {
            0 => Ok(Created::New),
            code if code == ErrorCode::TopicAlreadyExists.code() => Ok(Created::WasThere),
            code => {
                let why = result.error_message.as_deref().unwrap_or("");
                Err(Failure::Refused(format!("topic {topic} cannot be made: {} {why}", error_name(code)).trim_end().to_string()))
            }
        }
    }

    /// Until each partition has a leader that answers.
    pub fn wait_for_leaders(&mut self, topic: &str, partitions: i32) -> Result<(), Failure> {
        let deadline = Instant::now() + LEADERS_MAX;
        while Instant::now() < deadline {
            if self.partitions_with_leader(topic)? == Some(partitions) {
                // Apache Kafka names a leader before its replica takes writes, so each is asked for something, too.
                match self.end_offsets(topic, partitions) {
                    Ok(_) => return Ok(()),
                    Err(Failure::Refused(_)) => (),
                    Err(other) => return Err(other),
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::Refused(format!("topic {topic} got no leaders in {} s", LEADERS_MAX.as_secs())))
    }

    fn partitions_with_leader(&mut self, topic: &str) -> Result<Option<i32>, Failure> {
        let name = MetadataRequestTopic { name: Some(Str::from(topic)), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![name]), allow_auto_topic_creation: false, ..Default::default() };
        let response = self.connection.ask(METADATA_VERSION, &request).map_err(|error| self.gone("asking for metadata", error))?;
        let known = response.topics.iter().find(|topic| topic.error_code == 0);
        Ok(known.map(|topic| topic.partitions.iter().filter(|partition| partition.leader_id >= 0).count() as i32))
    }

    fn compare(&mut self, topic: &str, partitions: i32, settings: &BTreeMap<String, String>) -> Result<(), Failure> {
        let present = self.partitions_with_leader(topic)?.unwrap_or(0);
        if present != partitions {
            return Err(Failure::TopicDiffers(format!("{topic} has {present} partitions, the workload wants {partitions}")));
        }
        let present = self.settings_of(topic, settings.keys().map(String::as_str))?;
        for (key, wanted) in settings {
            let value = present.get(key).map_or("(nothing)", String::as_str);
            if value != wanted {
                return Err(Failure::TopicDiffers(format!("{topic} has {key}={value}, the workload wants {wanted}")));
            }
        }
        Ok(())
    }

    fn settings_of<'a>(&mut self, topic: &str, keys: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>, Failure> {
        self.settings(TOPIC_RESOURCE, topic, keys)
    }

    fn settings<'a>(&mut self, kind: i8, name: &str, keys: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>, Failure> {
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: Str::from(name),
            configuration_keys: Some(keys.map(Str::from).collect()),
            ..Default::default()
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let response = self.connection.ask(DESCRIBE_CONFIGS_VERSION, &request).map_err(|error| self.gone("asking for settings", error))?;
        let configs = response.results.iter().flat_map(|result| &result.configs);
        Ok(configs.map(|config| (config.name.to_string(), config.value.as_deref().unwrap_or("").to_string())).collect())
    }

    /// What coordinators write is as durable as the class asks for: a topic of theirs, which is there by now, flushes before it acknowledges.
    pub fn prepare_coordinators(&mut self, topic: &str, class: Option<Class>) -> Result<(), Failure> {
        match class {
            Some(Class::B) => self.have(TOPIC_RESOURCE, topic, "flush.messages", "1"),
            _ => Ok(()),
        }
    }

    /// Gives a group a setting of its own, and waits until the broker has it.
    pub fn prepare_group(&mut self, group: &str, key: &str, value: &str) -> Result<(), Failure> {
        self.have(GROUP_RESOURCE, group, key, value)?;
        let deadline = Instant::now() + SETTING_MAX;
        while !self.has(GROUP_RESOURCE, group, key, value)? {
            if Instant::now() > deadline {
                return Err(Failure::Refused(format!("{key} of {group} is not {value}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn has(&mut self, kind: i8, name: &str, key: &str, value: &str) -> Result<bool, Failure> {
        Ok(self.settings(kind, name, [key].into_iter())?.get(key).is_some_and(|present| present == value))
    }

    /// Sets it unless it is so already.
    fn have(&mut self, kind: i8, name: &str, key: &str, value: &str) -> Result<(), Failure> {
        if self.has(kind, name, key, value)? {
            return Ok(());
        }
        let config = AlterableConfig { name: key.into(), config_operation: SET, value: Some(value.into()), ..Default::default() };
        let resource =
            AlterConfigsResource { resource_type: kind, resource_name: Str::from(name), configs: vec![config], ..Default::default() };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let response =
            self.connection.ask(INCREMENTAL_ALTER_CONFIGS_VERSION, &request).map_err(|error| self.gone("changing settings", error))?;
        match response.responses.iter().map(|result| result.error_code).find(|code| *code != 0) {
            Some(code) => Err(Failure::Refused(format!("{key} of {name} cannot be set: {}", error_name(code)))),
            None => Ok(()),
        }
    }

    /// Where each partition's log ends now. A broker without ListOffsets is taken to be empty.
    pub fn end_offsets(&mut self, topic: &str, partitions: i32) -> Result<Vec<i64>, Failure> {
        let mut ends = vec![0; partitions as usize];
        if !self.speaks(ApiKey::ListOffsets) {
            return Ok(ends);
        }
        let partitions =
            (0..partitions).map(|index| ListOffsetsPartition { partition_index: index, timestamp: LATEST, ..Default::default() }).collect();
        let topics = vec![ListOffsetsTopic { name: Str::from(topic), partitions, ..Default::default() }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let response = self.connection.ask(LIST_OFFSETS_VERSION, &request).map_err(|error| self.gone("asking for offsets", error))?;
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code != 0 {
                return Err(Failure::Refused(format!(
                    "ListOffsets for {topic}-{}: {}",
                    partition.partition_index,
                    error_name(partition.error_code)
                )));
            }
            if let Some(end) = ends.get_mut(partition.partition_index as usize) {
                *end = partition.offset;
            }
        }
        Ok(ends)
    }

    /// The state of a new idempotent producer.
    pub fn producer_state(&mut self) -> Result<ProducerState, Failure> {
        let deadline = Instant::now() + LEADERS_MAX;
        loop {
            let request = InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: 60_000, ..Default::default() };
            let response =
                self.connection.ask(INIT_PRODUCER_ID_VERSION, &request).map_err(|error| self.gone("asking for a producer id", error))?;
            match response.error_code {
                0 => return Ok(ProducerState { id: response.producer_id, epoch: response.producer_epoch, sequence: 0 }),
                // A broker that has just started has none yet.
                code if code == ErrorCode::CoordinatorLoadInProgress.code() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                code => return Err(Failure::Refused(format!("InitProducerId: {}", error_name(code)))),
            }
        }
    }

    fn gone(&self, doing: &str, error: std::io::Error) -> Failure {
        Failure::BrokerGone(format!("{}: {doing}: {error}", self.address))
    }
}

enum Created {
    New,
    WasThere,
}

pub fn error_name(code: i16) -> String {
    ErrorCode::try_from(code).map_or_else(|_| format!("error {code}"), |code| code.name().to_string())
}
