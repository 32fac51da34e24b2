//! CreateTopics: which of the topics may be made, with which partitions on which brokers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::cluster::image::{ConfigMap, ConfigResourceType, Image, PartitionImage, ReplicaSet};
use crate::cluster::placement::{Randomness, place};
use crate::cluster::record::MetadataRecord;
use crate::cluster::topic_name::{check_topic_name, collision_key};
use crate::cluster::{METADATA_TOPIC, MetadataVersion};
use crate::wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use crate::wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse};
use crate::wire::records::{ConfigRecord, TopicRecord};
use crate::wire::{ErrorCode, Str};

use super::{Decision, RECORDS_PER_REQUEST_MAX, Refusal, SettingRules, too_many_records};

/// New partitions in one request (KAFKA-13747).
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;
/// The longest value that a setting may have: it must fit into a string of the classic encoding.
pub(super) const CONFIG_VALUE_LENGTH_MAX: usize = i16::MAX as usize;

/// Decides about each topic for itself; what concerns the request as a whole refuses all of them. With `validate_only` the same is answered and nothing written.
pub fn create_topics(
    image: &Image,
    request: &CreateTopicsRequest,
    rules: &dyn SettingRules,
    random: &mut dyn Randomness,
) -> Decision<CreateTopicsResponse> {
    let duplicates = duplicate_names(request);
    let candidates: Vec<&CreatableTopic> =
        request.topics.iter().filter(|topic| !duplicates.contains(&*topic.name) && topic.name != METADATA_TOPIC).collect();
    let (records, mut results) = create_candidates(image, &candidates, rules, random)
        .unwrap_or_else(|refusal| (Vec::new(), candidates.iter().map(|topic| refused(&topic.name, &refusal)).collect()));
    results.extend(refused_names(request, &duplicates));
    let reply = CreateTopicsResponse { topics: results, ..Default::default() };
    Decision { records: if request.validate_only { Vec::new() } else { records }, reply }
}

/// The answer when nothing can be made at all.
pub fn refuse_creation(request: &CreateTopicsRequest, refusal: &Refusal) -> CreateTopicsResponse {
    CreateTopicsResponse { topics: request.topics.iter().map(|topic| refused(&topic.name, refusal)).collect(), ..Default::default() }
}

/// Names that stand in the request more than once: none of them is made.
fn duplicate_names(request: &CreateTopicsRequest) -> HashSet<&str> {
    let mut seen = HashSet::new();
    request.topics.iter().map(|topic| &*topic.name).filter(|name| !seen.insert(*name)).collect()
}

fn refused_names(request: &CreateTopicsRequest, duplicates: &HashSet<&str>) -> Vec<CreatableTopicResult> {
    let duplicate = Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
    let mut results: Vec<_> = duplicates.iter().map(|name| refused(&Str::from(*name), &duplicate)).collect();
    results.sort_by(|a, b| a.name.cmp(&b.name));
    if request.topics.iter().any(|topic| topic.name == METADATA_TOPIC) && !duplicates.contains(METADATA_TOPIC) {
        let prohibited = Refusal::new(ErrorCode::InvalidRequest, format!("Creation of internal topic {METADATA_TOPIC} is prohibited."));
        results.push(refused(&Str::from(METADATA_TOPIC), &prohibited));
    }
    results
}

fn refused(name: &Str, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.clone(),
        error_code: refusal.code.code(),
        error_message: refusal.message.as_deref().map(Str::from),
        ..Default::default()
    }
}

fn create_candidates(
    image: &Image,
    candidates: &[&CreatableTopic],
    rules: &dyn SettingRules,
    random: &mut dyn Randomness,
) -> Result<(Vec<MetadataRecord>, Vec<CreatableTopicResult>), Refusal> {
    check_partition_total(candidates, rules)?;
    let names = ExistingNames::new(image, candidates);
    let level = image.metadata_version().expect("topics are made after the first start");
    let mut records = Vec::new();
    let mut results = Vec::with_capacity(candidates.len());
    for topic in candidates {
        let created = names.check(&topic.name).and_then(|()| plan_topic(image, topic, rules, random));
        match created {
            Ok(plan) => {
                if records.len() + plan.record_count() > RECORDS_PER_REQUEST_MAX {
                    return Err(too_many_records());
                }
                results.push(plan.result(image, rules));
                plan.push_records(level, &mut records);
            }
            Err(refusal) => results.push(refused(&topic.name, &refusal)),
        }
    }
    Ok((records, results))
}

fn check_partition_total(candidates: &[&CreatableTopic], rules: &dyn SettingRules) -> Result<(), Refusal> {
    let partitions_of = |topic: &&CreatableTopic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len() as i64,
        -1 => i64::from(rules.partitions_default()),
        count => i64::from(count.max(0)),
    };
    if candidates.iter().map(partitions_of).sum::<i64>() > PARTITIONS_PER_REQUEST_MAX {
        return Err(Refusal::new(ErrorCode::PolicyViolation, "Excessively large number of partitions per request."));
    }
    Ok(())
}

/// Names that are taken, and names that a new one would be confused with in metrics.
struct ExistingNames<'image> {
    image: &'image Image,
    colliding: HashMap<String, Arc<str>>,
}

impl<'image> ExistingNames<'image> {
    /// Walks all topics only if one of the candidates can collide at all.
    fn new(image: &'image Image, candidates: &[&CreatableTopic]) -> Self {
        let can_collide = candidates.iter().any(|topic| collision_key(&topic.name).is_some());
        let colliding = if can_collide {
            image.topics().filter_map(|topic| Some((collision_key(&topic.name)?, topic.name.clone()))).collect()
        } else {
            HashMap::new()
        };
        Self { image, colliding }
    }

    fn check(&self, name: &str) -> Result<(), Refusal> {
        if self.image.topic(name).is_some() {
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        if let Some(existing) = collision_key(name).and_then(|key| self.colliding.get(&key)) {
            let message = format!("Topic '{name}' collides with existing topic: {existing}");
            return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
        }
        check_topic_name(name).map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))
    }
}

/// A topic that will be made.
struct TopicPlan {
    name: Str,
    id: Uuid,
    overrides: ConfigMap,
    partitions: Vec<PartitionImage>,
}

fn plan_topic(image: &Image, topic: &CreatableTopic, rules: &dyn SettingRules, random: &mut dyn Randomness) -> Result<TopicPlan, Refusal> {
    let overrides = check_overrides(topic, rules)?;
    let partitions = if topic.assignments.is_empty() { plan_placed(image, topic, rules, random)? } else { plan_assigned(image, topic)? };
    Ok(TopicPlan { name: topic.name.clone(), id: random.uuid(), overrides, partitions })
}

fn check_overrides(topic: &CreatableTopic, rules: &dyn SettingRules) -> Result<ConfigMap, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidConfig, message);
    let without_value: Vec<&str> = topic.configs.iter().filter(|config| config.value.is_none()).map(|config| &*config.name).collect();
    if !without_value.is_empty() {
        return Err(invalid(format!("Null value not supported for topic configs: {}", without_value.join(","))));
    }
    let mut overrides = ConfigMap::new();
    for config in &topic.configs {
        let value = config.value.as_deref().expect("checked above");
        check_value_length(value)?;
        overrides.insert(Arc::from(&*config.name), Arc::from(value));
    }
    if !overrides.is_empty() {
        rules.check(ConfigResourceType::Topic, &overrides).map_err(invalid)?;
    }
    Ok(overrides)
}

pub(super) fn check_value_length(value: &str) -> Result<(), Refusal> {
    if value.encode_utf16().count() > CONFIG_VALUE_LENGTH_MAX {
        let message = format!(
            "The configuration value cannot be added because it exceeds the maximum value size of {CONFIG_VALUE_LENGTH_MAX} bytes."
        );
        return Err(Refusal::new(ErrorCode::InvalidConfig, message));
    }
    Ok(())
}

/// Partitions as the client assigns them.
fn plan_assigned(image: &Image, topic: &CreatableTopic) -> Result<Vec<PartitionImage>, Refusal> {
    let must_be_unset = |what: &str| {
        Refusal::new(ErrorCode::InvalidRequest, format!("A manual partition assignment was specified, but {what} was not set to -1."))
    };
    if topic.replication_factor != -1 {
        return Err(must_be_unset("replication factor"));
    }
    if topic.num_partitions != -1 {
        return Err(must_be_unset("numPartitions"));
    }
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidReplicaAssignment, message);
    let mut factor = None;
    let mut planned: HashMap<i32, PartitionImage> = HashMap::with_capacity(topic.assignments.len());
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if planned.contains_key(&index) {
            return Err(invalid(format!("Found multiple manual partition assignments for partition {index}")));
        }
        check_assignment(image, &assignment.broker_ids, factor)?;
        factor = Some(assignment.broker_ids.len());
        planned.insert(index, new_assigned_partition(image, index, &assignment.broker_ids)?);
    }
    (0..planned.len() as i32)
        .map(|index| planned.remove(&index))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| invalid("partitions should be a consecutive 0-based integer sequence".to_owned()))
}

/// The replicas that a client wants for one partition: brokers that are there, each once, as many as in the other partitions.
pub(super) fn check_assignment(image: &Image, broker_ids: &[i32], factor: Option<usize>) -> Result<(), Refusal> {
    let invalid =
        |what: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, format!("The manual partition assignment includes {what}")));
    if broker_ids.is_empty() {
        return invalid("an empty replica list.".to_owned());
    }
    let mut sorted = broker_ids.to_vec();
    sorted.sort_unstable();
    let mut previous = None;
    for id in sorted {
        match image.broker(id) {
            None => return invalid(format!("broker {id}, but no such broker is registered.")),
            Some(broker) if !broker.has_usable_directory() => {
                return invalid(format!("broker {id}, but all its log directories are cordoned."));
            }
            Some(_) if previous == Some(id) => return invalid(format!("the broker {id} more than once.")),
            Some(_) => previous = Some(id),
        }
    }
    match factor {
        Some(factor) if factor != broker_ids.len() => invalid(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have {factor} replica(s).",
            broker_ids.len()
        )),
        _ => Ok(()),
    }
}

/// A new partition on brokers that the client chose.
pub(super) fn new_assigned_partition(image: &Image, index: i32, broker_ids: &[i32]) -> Result<PartitionImage, Refusal> {
    new_partition(image, ReplicaSet::from_slice(broker_ids)).ok_or_else(|| {
        let message =
            format!("All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled shutdown.");
        Refusal::new(ErrorCode::InvalidReplicaAssignment, message)
    })
}

/// Partitions that the broker places.
fn plan_placed(
    image: &Image,
    topic: &CreatableTopic,
    rules: &dyn SettingRules,
    random: &mut dyn Randomness,
) -> Result<Vec<PartitionImage>, Refusal> {
    let factor = match topic.replication_factor {
        -1 => rules.replication_factor_default(),
        factor if factor > 0 => factor,
        _ => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
        }
    };
    let count = match topic.num_partitions {
        -1 => rules.partitions_default(),
        count if count > 0 => count,
        _ => return Err(Refusal::new(ErrorCode::InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")),
    };
    let unable = |reason: &str| {
        Refusal::new(ErrorCode::InvalidReplicationFactor, format!("Unable to replicate the partition {factor} time(s): {reason}"))
    };
    let sets = place(image, count as usize, factor, random).map_err(|reason| unable(&reason))?;
    sets.into_iter()
        .map(|replicas| new_partition(image, replicas))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| unable("All brokers are currently fenced or in controlled shutdown."))
}

/// A new partition: those of its replicas that serve are in sync, the first of them leads. None where none serves.
pub(super) fn new_partition(image: &Image, replicas: ReplicaSet) -> Option<PartitionImage> {
    let isr: ReplicaSet = replicas.iter().copied().filter(|id| image.broker(*id).is_some_and(|broker| broker.is_active())).collect();
    let leader = *isr.first()?;
    let directories = replicas.iter().filter_map(|id| image.broker(*id)).map(|broker| broker.directory_for_new_replica()).collect();
    Some(PartitionImage { replicas, isr, leader, leader_epoch: 0, partition_epoch: 0, directories, ..PartitionImage::unknown() })
}

impl TopicPlan {
    fn record_count(&self) -> usize {
        1 + self.overrides.len() + self.partitions.len()
    }

    /// The topic, its settings, its partitions: readers meet a partition with its settings known.
    fn push_records(&self, level: MetadataVersion, records: &mut Vec<MetadataRecord>) {
        records.push(TopicRecord { name: self.name.detached(), topic_id: self.id, ..Default::default() }.into());
        records.extend(self.overrides.iter().map(|(key, value)| {
            MetadataRecord::from(ConfigRecord {
                resource_type: ConfigResourceType::Topic.code(),
                resource_name: self.name.detached(),
                name: Str::from(&**key),
                value: Some(Str::from(&**value)),
                ..Default::default()
            })
        }));
        records.extend((0..).zip(&self.partitions).map(|(index, partition)| partition.to_record(self.id, index, level).into()));
    }

    fn result(&self, image: &Image, rules: &dyn SettingRules) -> CreatableTopicResult {
        let configs = rules
            .effective_topic_settings(image, &self.overrides)
            .into_iter()
            .map(|setting| CreatableTopicConfigs {
                name: Str::from(setting.name),
                value: setting.value.map(Str::from),
                read_only: setting.is_read_only,
                config_source: setting.source,
                is_sensitive: setting.is_sensitive,
                ..Default::default()
            })
            .collect();
        CreatableTopicResult {
            name: self.name.clone(),
            topic_id: self.id,
            error_message: None,
            num_partitions: self.partitions.len() as i32,
            replication_factor: self.partitions[0].replicas.len() as i16,
            configs: Some(configs),
            ..Default::default()
        }
    }
}
