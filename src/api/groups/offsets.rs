//! Requests about committed offsets: OffsetCommit, OffsetFetch, OffsetDelete.
//!
//! Topics are looked up here, by name or by id as the version has it (KIP-848); what is not there is answered here, and the coordinator hears of the rest with both.

use uuid::Uuid;

use super::{ask, begin, caller, coordinator_of, reply_of};
use crate::api::RequestContext;
use crate::cluster::{Image, TopicImage};
use crate::drive::groups::GroupReply;
use crate::group::{Call, OpenTransaction};
use crate::wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use crate::wire::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use crate::wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use crate::wire::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use crate::wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use crate::wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use crate::wire::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use crate::wire::{ErrorCode, Str};

/// From here on topics go by their ids.
const TOPIC_ID_VERSION: i16 = 10;
/// From here on OffsetFetch asks for several groups.
const FETCH_GROUPS_VERSION: i16 = 8;
/// From here on OffsetFetch has an error of its own; before, each partition says it.
const FETCH_ERROR_VERSION: i16 = 2;

// OffsetCommit

pub async fn handle_offset_commit(context: &RequestContext, mut request: OffsetCommitRequest, version: i16) -> OffsetCommitResponse {
    let image = context.shard.image();
    let topics = std::mem::take(&mut request.topics);
    let (mut response, known) = sort_commits(&image, topics, version >= TOPIC_ID_VERSION);
    if known.is_empty() {
        return response;
    }
    request.topics = known;
    let group_id = request.group_id.clone();
    let GroupReply::CommitOffsets(committed) = ask(context, &group_id, caller(context), Call::CommitOffsets(request)).await else {
        unreachable!()
    };
    merge_commits(&mut response, committed);
    response
}

/// TxnOffsetCommit in the form of OffsetCommit. `verify` has the transaction's coordinator asked, once there is anything to commit.
pub async fn commit_in_transaction(
    context: &RequestContext,
    mut request: OffsetCommitRequest,
    by_id: bool,
    verify: impl AsyncFnOnce() -> Result<OpenTransaction, ErrorCode>,
) -> OffsetCommitResponse {
    let image = context.shard.image();
    let topics = std::mem::take(&mut request.topics);
    let (mut response, known) = sort_commits(&image, topics, by_id);
    if known.is_empty() {
        return response;
    }
    request.topics = known;
    let group_id = request.group_id.clone();
    let reply = match verify().await {
        Ok(transaction) => ask(context, &group_id, caller(context), Call::CommitOffsetsInTransaction { request, transaction }).await,
        Err(error) => Call::CommitOffsets(request).refuse(error),
    };
    let GroupReply::CommitOffsets(committed) = reply else { unreachable!("a commit is answered by a commit") };
    merge_commits(&mut response, committed);
    response
}

/// Marks a partition whose outcome the coordinator will say.
const UNDECIDED: i16 = i16::MIN;

/// The response with every partition asked for, those that are not there decided, and the commits that remain for the coordinator, in the same order.
fn sort_commits(
    image: &Image,
    topics: Vec<OffsetCommitRequestTopic>,
    by_id: bool,
) -> (OffsetCommitResponse, Vec<OffsetCommitRequestTopic>) {
    let mut response = OffsetCommitResponse::default();
    let mut known = Vec::with_capacity(topics.len());
    for topic in topics {
        let found = if by_id { image.topic_by_id(&topic.topic_id) } else { image.topic(&topic.name) };
        let absent = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        let error_of = |index: i32| match found {
            None => absent.code(),
            Some(found) if !has_leader(found, index) => ErrorCode::UnknownTopicOrPartition.code(),
            Some(_) => UNDECIDED,
        };
        let answered = topic.partitions.iter().map(|partition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: error_of(partition.partition_index),
            ..Default::default()
        });
        response.topics.push(OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: answered.collect(),
            ..Default::default()
        });
        if let Some(found) = found {
            let mut partitions = topic.partitions;
            partitions.retain(|partition| error_of(partition.partition_index) == UNDECIDED);
            if !partitions.is_empty() {
                let name = Str::from(&*found.name);
                known.push(OffsetCommitRequestTopic { name, topic_id: found.id, partitions, ..Default::default() });
            }
        }
    }
    (response, known)
}

fn merge_commits(response: &mut OffsetCommitResponse, committed: OffsetCommitResponse) {
    let mut outcomes = committed.topics.into_iter().flat_map(|topic| topic.partitions);
    for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code == UNDECIDED {
            let outcome = outcomes.next().expect("the coordinator answers for every partition");
            assert!(outcome.partition_index == partition.partition_index);
            partition.error_code = outcome.error_code;
        }
    }
}

/// Whether the partition is one of the topic's.
fn has_leader(topic: &TopicImage, index: i32) -> bool {
    topic.partition(index).is_some_and(|partition| partition.is_known())
}

// OffsetFetch

pub async fn handle_offset_fetch(context: &RequestContext, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    let image = context.shard.image();
    let mut asked = Vec::new();
    for mut group in groups_asked_for(request, version) {
        let unknown = if version >= TOPIC_ID_VERSION { take_unknown_topics(&image, &mut group) } else { Vec::new() };
        let group_id = group.group_id.clone();
        let pieces = group.topics.clone();
        let call = Call::FetchOffsets { group, require_stable };
        let answer = match coordinator_of(context, &group_id) {
            Ok(partition) => Ok(begin(context, partition, caller(context), call)),
            Err(error) => Err(call.refuse(error)),
        };
        asked.push((answer, unknown, pieces));
    }

    let mut groups = Vec::with_capacity(asked.len());
    for (answer, unknown, pieces) in asked {
        let reply = match answer {
            Ok(call) => reply_of(call.await),
            Err(refusal) => refusal,
        };
        let GroupReply::FetchOffsets(mut group) = reply else { unreachable!() };
        if group.error_code == 0 {
            if version >= TOPIC_ID_VERSION {
                identify_topics(&image, &mut group);
            }
            group.topics.extend(unknown);
        }
        groups.push((group, pieces));
    }
    respond_in_version(groups, version)
}

/// The groups asked for, in the shape of the versions that ask for several.
fn groups_asked_for(request: OffsetFetchRequest, version: i16) -> Vec<OffsetFetchRequestGroup> {
    if version >= FETCH_GROUPS_VERSION {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let topic = |topic: crate::wire::messages::offset_fetch_request::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        };
        topics.into_iter().map(topic).collect()
    });
    vec![OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() }]
}

/// Gives each topic asked for by id its name, and takes those out that there are none for, answered.
fn take_unknown_topics(image: &Image, group: &mut OffsetFetchRequestGroup) -> Vec<OffsetFetchResponseTopics> {
    let mut unknown = Vec::new();
    let Some(topics) = &mut group.topics else { return unknown };
    topics.retain_mut(|topic| match image.topic_by_id(&topic.topic_id) {
        Some(found) => {
            topic.name = Str::from(&*found.name);
            true
        }
        None => {
            let partitions = topic.partition_indexes.iter().map(|index| OffsetFetchResponsePartitions {
                partition_index: *index,
                committed_offset: -1,
                error_code: ErrorCode::UnknownTopicId.code(),
                ..Default::default()
            });
            unknown.push(OffsetFetchResponseTopics { topic_id: topic.topic_id, partitions: partitions.collect(), ..Default::default() });
            false
        }
    });
    unknown
}

/// When all offsets were asked for, topics come by name; those without an id cannot be told.
fn identify_topics(image: &Image, group: &mut OffsetFetchResponseGroup) {
    group.topics.retain_mut(|topic| {
        if topic.topic_id.is_nil() {
            topic.topic_id = image.topic(&topic.name).map_or(Uuid::nil(), |found| found.id);
        }
        !topic.topic_id.is_nil()
    });
}

/// The groups' answers, each with the topics that had been asked for, in the shape of the version.
fn respond_in_version(groups: Vec<(OffsetFetchResponseGroup, Option<Vec<OffsetFetchRequestTopics>>)>, version: i16) -> OffsetFetchResponse {
    if version >= FETCH_GROUPS_VERSION {
        return OffsetFetchResponse { groups: groups.into_iter().map(|(group, _)| group).collect(), ..Default::default() };
    }
    let Some((group, asked)) = groups.into_iter().next() else { return OffsetFetchResponse::default() };
    if version < FETCH_ERROR_VERSION && group.error_code != 0 {
        return OffsetFetchResponse { topics: each_with_error(asked.unwrap_or_default(), group.error_code), ..Default::default() };
    }
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(older_partition).collect(),
        ..Default::default()
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}

fn older_partition(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..Default::default()
    }
}

fn each_with_error(topics: Vec<OffsetFetchRequestTopics>, error_code: i16) -> Vec<OffsetFetchResponseTopic> {
    let topics = topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partition_indexes
            .into_iter()
            .map(|partition_index| OffsetFetchResponsePartition { partition_index, committed_offset: -1, error_code, ..Default::default() })
            .collect(),
        ..Default::default()
    });
    topics.collect()
}

// OffsetDelete

pub async fn handle_offset_delete(context: &RequestContext, mut request: OffsetDeleteRequest, _version: i16) -> OffsetDeleteResponse {
    let image = context.shard.image();
    let topics = std::mem::take(&mut request.topics);
    let (unknown, known) = sort_deletions(&image, topics);
    request.topics = known;
    let group_id = request.group_id.clone();
    let GroupReply::DeleteOffsets(mut response) = ask(context, &group_id, caller(context), Call::DeleteOffsets(request)).await else {
        unreachable!()
    };
    if response.error_code == 0 {
        merge_deletions(&mut response, unknown);
    }
    response
}

/// The partitions that are not there, answered, and those that are.
fn sort_deletions(image: &Image, topics: Vec<OffsetDeleteRequestTopic>) -> (Vec<OffsetDeleteResponseTopic>, Vec<OffsetDeleteRequestTopic>) {
    let (mut unknown, mut known) = (Vec::new(), Vec::new());
    for topic in topics {
        let found = image.topic(&topic.name);
        let is_there = |index: i32| found.is_some_and(|found| has_leader(found, index));
        let (there, absent): (Vec<_>, Vec<_>) = topic.partitions.into_iter().partition(|partition| is_there(partition.partition_index));
        if !absent.is_empty() {
            let error_code = ErrorCode::UnknownTopicOrPartition.code();
            let partitions = absent.iter().map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code,
                ..Default::default()
            });
            unknown.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect(), ..Default::default() });
        }
        if !there.is_empty() {
            known.push(OffsetDeleteRequestTopic { name: topic.name, partitions: there, ..Default::default() });
        }
    }
    (unknown, known)
}

/// A topic stands once in the response: its name is the key.
fn merge_deletions(response: &mut OffsetDeleteResponse, unknown: Vec<OffsetDeleteResponseTopic>) {
    for topic in unknown {
        match response.topics.iter_mut().find(|answered| answered.name == topic.name) {
            Some(answered) => answered.partitions.extend(topic.partitions),
            None => response.topics.push(topic),
        }
    }
}
