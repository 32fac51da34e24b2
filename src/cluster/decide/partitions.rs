//! CreatePartitions: a topic grows; it never shrinks.

use std::collections::HashSet;

use crate::cluster::image::{Image, PartitionImage, TopicImage};
use crate::cluster::placement::{Randomness, place};
use crate::wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::create_partitions_response::{CreatePartitionsResponse, CreatePartitionsTopicResult};
use crate::wire::{ErrorCode, Str};

use super::create_topics::{check_assignment, new_assigned_partition, new_partition};
use super::{Decision, RECORDS_PER_REQUEST_MAX, Refusal, too_many_records};

/// New partitions of all topics of a request.
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// Decides about each topic for itself; a request that asks for too much is refused whole.
pub fn create_partitions(
    image: &Image,
    request: &CreatePartitionsRequest,
    random: &mut dyn Randomness,
) -> Decision<CreatePartitionsResponse> {
    let (topics, duplicates) = split_duplicates(request);
    let mut results: Vec<CreatePartitionsTopicResult> =
        duplicates.into_iter().map(|name| result(name, Err(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.")))).collect();
    let mut records = Vec::new();
    match grow_all(image, &topics, random) {
        Ok(grown) => {
            let level = image.metadata_version().expect("topics grow after the first start");
            for (topic, outcome) in topics.iter().zip(grown) {
                results.push(result(&topic.name, outcome.as_ref().map(drop).map_err(Clone::clone)));
                let Ok((existing, partitions)) = outcome else { continue };
                let first = existing.partition_count();
                records.extend((first..).zip(&partitions).map(|(index, partition)| partition.to_record(existing.id, index, level).into()));
            }
        }
        Err(refusal) => results.extend(topics.iter().map(|topic| result(&topic.name, Err(refusal.clone())))),
    }
    if request.validate_only {
        records.clear();
    }
    Decision { records, reply: CreatePartitionsResponse { results, ..Default::default() } }
}

/// The answer when nothing can grow at all.
pub fn refuse_growth(request: &CreatePartitionsRequest, refusal: &Refusal) -> CreatePartitionsResponse {
    let results = request.topics.iter().map(|topic| result(&topic.name, Err(refusal.clone()))).collect();
    CreatePartitionsResponse { results, ..Default::default() }
}

/// Topics that stand in the request once, and the names of those that do not.
fn split_duplicates(request: &CreatePartitionsRequest) -> (Vec<&CreatePartitionsTopic>, Vec<&Str>) {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    let names = request.topics.iter().map(|topic| &topic.name);
    let duplicates: Vec<&Str> = names.filter(|name| !seen.insert(*name) && twice.insert(*name)).collect();
    (request.topics.iter().filter(|topic| !twice.contains(&topic.name)).collect(), duplicates)
}

fn result(name: &Str, outcome: Result<(), Refusal>) -> CreatePartitionsTopicResult {
    let (code, message) = outcome.map_or_else(|refusal| (refusal.code, refusal.message), |()| (ErrorCode::None, None));
    CreatePartitionsTopicResult { name: name.clone(), error_code: code.code(), error_message: message.map(Str::from), ..Default::default() }
}

type Grown<'image> = Result<(&'image TopicImage, Vec<PartitionImage>), Refusal>;

/// Each topic's outcome; the error concerns the whole request.
fn grow_all<'image>(
    image: &'image Image,
    topics: &[&CreatePartitionsTopic],
    random: &mut dyn Randomness,
) -> Result<Vec<Grown<'image>>, Refusal> {
    let additional = |topic: &&CreatePartitionsTopic| {
        let present = image.topic(&topic.name).map_or(0, |existing| existing.partition_count());
        i64::from(topic.count.saturating_sub(present).max(0))
    };
    if topics.iter().map(additional).sum::<i64>() > PARTITIONS_PER_REQUEST_MAX {
        return Err(Refusal::new(ErrorCode::PolicyViolation, "Excessively large number of additional partitions per request."));
    }
    let grown: Vec<Grown> = topics.iter().map(|topic| grow(image, topic, random)).collect();
    let record_count: usize = grown.iter().flatten().map(|(_, partitions)| partitions.len()).sum();
    if record_count > RECORDS_PER_REQUEST_MAX {
        return Err(too_many_records());
    }
    Ok(grown)
}

fn grow<'image>(image: &'image Image, topic: &CreatePartitionsTopic, random: &mut dyn Randomness) -> Grown<'image> {
    let existing = image.topic(&topic.name).ok_or_else(|| Refusal::bare(ErrorCode::UnknownTopicOrPartition))?;
    let present = existing.partition_count();
    if topic.count == present {
        return Err(Refusal::new(ErrorCode::InvalidPartitions, format!("Topic already has {present} partition(s).")));
    }
    if topic.count < present {
        let message = format!("The topic {} currently has {present} partition(s); {} would not be an increase.", topic.name, topic.count);
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    let additional = (topic.count - present) as usize;
    let factor = existing.partitions[0].replicas.len();
    let partitions = match &topic.assignments {
        None => grow_placed(image, additional, factor as i16, random)?,
        Some(assignments) if assignments.len() != additional => {
            let message = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        Some(assignments) => (present..)
            .zip(assignments)
            .map(|(index, assignment)| {
                check_assignment(image, &assignment.broker_ids, Some(factor))?;
                new_assigned_partition(image, index, &assignment.broker_ids)
            })
            .collect::<Result<_, _>>()?,
    };
    Ok((existing, partitions))
}

fn grow_placed(image: &Image, additional: usize, factor: i16, random: &mut dyn Randomness) -> Result<Vec<PartitionImage>, Refusal> {
    let refuse = |message: String| Refusal::new(ErrorCode::InvalidReplicationFactor, message);
    let sets = place(image, additional, factor, random).map_err(refuse)?;
    sets.into_iter().map(|replicas| new_partition(image, replicas)).collect::<Option<Vec<_>>>().ok_or_else(|| {
        refuse(format!("Unable to replicate the partition {factor} time(s): All brokers are currently fenced or in controlled shutdown."))
    })
}
