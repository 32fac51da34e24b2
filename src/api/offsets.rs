//! Requests about positions in a log, answered by the partition's owner: ListOffsets, OffsetForLeaderEpoch, DeleteRecords, DescribeProducers.

use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::HashSet;

use super::{Answer, RequestContext, Response};
use crate::cluster::{TopicIdPartition, is_internal_topic};
use crate::log::ProducerView;
use crate::rt::{self, Pause, ShardId};
use crate::shard::message::{EpochEndItem, OffsetAnswer, OffsetItem, Reply, Request};
use crate::wire::ErrorCode;
use crate::wire::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use crate::wire::messages::describe_producers_request::TopicRequest;
use crate::wire::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use crate::wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use crate::wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use crate::wire::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, DescribeProducersRequest, DescribeProducersResponse, ListOffsetsRequest,
    ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

/// `isolation.level` of consumers that want committed data only.
const READ_COMMITTED: i8 = 1;

/// Producers whose answer is made here and now.
const PRODUCERS_AT_ONCE: usize = 500;

/// The special timestamps of ListOffsets, with the first version that knows each.
const SPECIAL_TIMESTAMPS: [(i64, i16); 6] = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)];

/// ListOffsets: special values, or the first record at or after a time.
pub async fn list_offsets(context: &RequestContext, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let read_committed = request.isolation_level == READ_COMMITTED;
    let mut pause = Pause::default();
    let (mut named, mut twice) = (HashSet::new(), HashSet::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            pause.step().await;
            let name = (topic.name.clone(), partition.partition_index);
            if !named.insert(name.clone()) {
                twice.insert(name);
            }
        }
    }
    let mut wanted = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            pause.step().await;
            let item = if twice.contains(&(topic.name.clone(), partition.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else if !knows_timestamp(partition.timestamp, version) {
                Err(ErrorCode::UnsupportedVersion)
            } else {
                resolve(context, &topic.name, partition.partition_index).map(|key| OffsetItem {
                    partition: key,
                    timestamp: partition.timestamp,
                    current_leader_epoch: partition.current_leader_epoch,
                    read_committed,
                })
            };
            wanted.push(item);
        }
    }
    let gathered = gather(
        context,
        wanted,
        |item| item.partition,
        |items| Request::Offsets { items },
        |reply| match reply {
            Reply::Offsets(answers) => answers,
            _ => unreachable!("offsets are answered by offsets"),
        },
    );
    let mut answers = gathered.await.into_iter();

    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut result = ListOffsetsTopicResponse { name: topic.name, ..Default::default() };
        for partition in topic.partitions {
            pause.step().await;
            let answer = answers.next().expect("one answer for each partition");
            result.partitions.push(listed_offset(partition.partition_index, answer, version));
        }
        response.topics.push(result);
    }
    response
}

fn knows_timestamp(timestamp: i64, version: i16) -> bool {
    timestamp >= 0 || SPECIAL_TIMESTAMPS.iter().any(|(special, since)| *special == timestamp && version >= *since)
}

fn listed_offset(partition_index: i32, answer: Result<OffsetAnswer, ErrorCode>, version: i16) -> ListOffsetsPartitionResponse {
    let mut result = ListOffsetsPartitionResponse { partition_index, ..Default::default() };
    match answer {
        Ok(found) => {
            result.offset = found.offset;
            result.timestamp = found.timestamp;
            result.leader_epoch = found.leader_epoch;
        }
        Err(ErrorCode::OffsetNotAvailable) if version < 5 => result.error_code = ErrorCode::LeaderNotAvailable.code(),
        Err(error) => result.error_code = error.code(),
    }
    result
}

/// OffsetForLeaderEpoch: where an epoch ends in our log (KIP-320).
pub async fn offset_for_leader_epoch(
    context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
    _version: i16,
) -> OffsetForLeaderEpochResponse {
    let mut wanted = Vec::new();
    let mut pause = Pause::default();
    for topic in &request.topics {
        for partition in &topic.partitions {
            pause.step().await;
            wanted.push(resolve(context, &topic.topic, partition.partition).map(|key| EpochEndItem {
                partition: key,
                leader_epoch: partition.leader_epoch,
                current_leader_epoch: partition.current_leader_epoch,
            }));
        }
    }
    let gathered = gather(
        context,
        wanted,
        |item| item.partition,
        |items| Request::EpochEnds { items },
        |reply| match reply {
            Reply::EpochEnds(answers) => answers,
            _ => unreachable!("epoch ends are answered by epoch ends"),
        },
    );
    let mut answers = gathered.await.into_iter();

    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in request.topics {
        let mut result = OffsetForLeaderTopicResult { topic: topic.topic, ..Default::default() };
        for partition in topic.partitions {
            pause.step().await;
            let mut end = EpochEndOffset { partition: partition.partition, ..Default::default() };
            match answers.next().expect("one answer for each partition") {
                Ok((leader_epoch, end_offset)) => (end.leader_epoch, end.end_offset) = (leader_epoch, end_offset),
                Err(error) => end.error_code = error.code(),
            }
            result.partitions.push(end);
        }
        response.topics.push(result);
    }
    response
}

/// DeleteRecords: moves log starts up, for good.
pub async fn delete_records(context: &RequestContext, request: DeleteRecordsRequest, _version: i16) -> DeleteRecordsResponse {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let refused = if is_internal_topic(&topic.name) { Some(ErrorCode::InvalidTopicException) } else { None };
        for partition in &topic.partitions {
            let item = match refused {
                Some(error) => Err(error),
                None => resolve(context, &topic.name, partition.partition_index).and_then(|key| deletable(context, key, partition.offset)),
            };
            wanted.push(item);
        }
    }
    let gathered = gather(
        context,
        wanted,
        |(key, _)| *key,
        |items| Request::DeleteRecords { items },
        |reply| match reply {
            Reply::Deleted(answers) => answers,
            _ => unreachable!("deletions are answered by log starts"),
        },
    );
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let count: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let answers = rt::timeout(timeout, gathered).await.unwrap_or_else(|_| vec![Err(ErrorCode::RequestTimedOut); count]);
    let mut answers = answers.into_iter();

    let mut response = DeleteRecordsResponse::default();
    for topic in request.topics {
        let mut result = DeleteRecordsTopicResult { name: topic.name, ..Default::default() };
        for partition in topic.partitions {
            let (low_watermark, error) = match answers.next().expect("one answer for each partition") {
                Ok(log_start) => (log_start, ErrorCode::None),
                Err(error) => (-1, error),
            };
            let partition_index = partition.partition_index;
            result.partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark,
                error_code: error.code(),
                ..Default::default()
            });
        }
        response.topics.push(result);
    }
    response
}

/// A topic that is only compacted keeps its records (Kafka: POLICY_VIOLATION).
fn deletable(context: &RequestContext, key: TopicIdPartition, offset: i64) -> Result<(TopicIdPartition, i64), ErrorCode> {
    let image = context.shard.image();
    let topic = image.topic_by_id(&key.topic_id).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let policy = context.shard.topic_settings(topic).cleanup_policy;
    if policy.compact && !policy.delete { Err(ErrorCode::PolicyViolation) } else { Ok((key, offset)) }
}

/// DescribeProducers: who has written to a partition lately. There may be a million of them, so their answer is written aside.
pub async fn describe_producers(context: &RequestContext, request: DescribeProducersRequest) -> Answer {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partition_indexes {
            wanted.push(resolve(context, &topic.name, *partition));
        }
    }
    let gathered = gather(
        context,
        wanted,
        |key| *key,
        |items| Request::Producers { items },
        |reply| match reply {
            Reply::Producers(answers) => answers,
            _ => unreachable!("producers are answered by producers"),
        },
    );
    let answers = gathered.await;
    let producers: usize = answers.iter().flatten().map(Vec::len).sum();
    let RequestContext { api_key, api_version, correlation_id, .. } = *context;
    if producers <= PRODUCERS_AT_ONCE {
        let response = producers_response(request.topics, answers);
        Response::answer(api_key, api_version, correlation_id, &response, Default::default())
    } else {
        Response::answer_aside(api_key, api_version, correlation_id, || producers_response(request.topics, answers)).await
    }
}

/// One of `answers` for each partition of `topics`.
fn producers_response(topics: Vec<TopicRequest>, answers: Vec<Result<Vec<ProducerView>, ErrorCode>>) -> DescribeProducersResponse {
    let mut answers = answers.into_iter();
    let mut response = DescribeProducersResponse::default();
    for topic in topics {
        let mut result = TopicResponse { name: topic.name, ..Default::default() };
        for partition_index in topic.partition_indexes {
            let mut partition = PartitionResponse { partition_index, ..Default::default() };
            match answers.next().expect("one answer for each partition") {
                Ok(producers) => partition.active_producers = producers.into_iter().map(producer_state).collect(),
                Err(error) => partition.error_code = error.code(),
            }
            result.partitions.push(partition);
        }
        response.topics.push(result);
    }
    response
}

fn producer_state(producer: ProducerView) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_first_offset,
        ..Default::default()
    }
}

fn resolve(context: &RequestContext, topic: &str, partition: i32) -> Result<TopicIdPartition, ErrorCode> {
    let image = context.shard.image();
    let topic = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(TopicIdPartition { topic_id: topic.id, partition })
}

/// Asks every owner once for its items and puts the answers back into the order of `wanted`.
async fn gather<Item: Clone, Answer>(
    context: &RequestContext,
    wanted: Vec<Result<Item, ErrorCode>>,
    key: impl Fn(&Item) -> TopicIdPartition,
    ask: impl Fn(Vec<Item>) -> Request,
    answers: impl Fn(Reply) -> Vec<Result<Answer, ErrorCode>>,
) -> Vec<Result<Answer, ErrorCode>> {
    let mut by_owner: HashMap<u16, Vec<usize>> = HashMap::new();
    let mut results: Vec<Option<Result<Answer, ErrorCode>>> = Vec::with_capacity(wanted.len());
    let mut pause = Pause::default();
    for (place, item) in wanted.iter().enumerate() {
        pause.step().await;
        match item {
            Ok(item) => {
                by_owner.entry(context.shard.owner(&key(item)).0).or_default().push(place);
                results.push(None);
            }
            Err(error) => results.push(Some(Err(*error))),
        }
    }
    let mut calls = Vec::new();
    for (owner, places) in by_owner {
        let items = places.iter().filter_map(|place| wanted[*place].as_ref().ok().cloned()).collect();
        calls.push((places, context.shard.call(ShardId(owner), ask(items))));
    }
    for (places, call) in calls {
        for (place, answer) in places.into_iter().zip(answers(call.await)) {
            results[place] = Some(answer);
        }
    }
    results.into_iter().map(|result| result.expect("every item is answered or refused")).collect()
}
