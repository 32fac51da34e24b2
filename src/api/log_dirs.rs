//! The data directories: how much of each every partition takes (DescribeLogDirs), and the moves of replicas between them (AlterReplicaLogDirs).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use uuid::Uuid;

use super::RequestContext;
use crate::cluster::{METADATA_PARTITION, TopicIdPartition};
use crate::disk::directories::DataDirectory;
use crate::log::file_names::is_movable;
use crate::rt::{self, Pause, ShardId};
use crate::shard::message::{ReplicaSize, Reply, Request};
use crate::wire::messages::alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult};
use crate::wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use crate::wire::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use crate::wire::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse};
use crate::wire::{ErrorCode, Str};

/// Every partition (topics null) or those that are named; partitions that do not exist are left out, as Kafka does.
pub async fn describe_log_dirs(context: &RequestContext, request: DescribeLogDirsRequest, _version: i16) -> DescribeLogDirsResponse {
    let only = match &request.topics {
        Some(topics) => Some(existing(context, topics).await),
        None => None,
    };
    let calls: Vec<_> =
        (0..context.shard.shards()).map(|shard| context.shard.call(ShardId(shard), Request::Sizes { only: only.clone() })).collect();
    let mut sizes = Vec::new();
    for call in calls {
        let Reply::Sizes(found) = call.await else { unreachable!("sizes are answered by sizes") };
        sizes.extend(found);
    }
    let mut results = Vec::new();
    for directory in context.shard.directories() {
        let space = rt::file::space(directory.path.clone()).await;
        let (total_bytes, usable_bytes) = space.map_or((-1, -1), |space| (space.total_bytes as i64, space.usable_bytes as i64));
        results.push(DescribeLogDirsResult {
            error_code: ErrorCode::None.code(),
            log_dir: Str::from(absolute(&directory.path).display().to_string()),
            topics: by_topic(context, sizes.iter().filter(|size| size.directory_id == directory.id)).await,
            total_bytes,
            usable_bytes,
            ..Default::default()
        });
    }
    DescribeLogDirsResponse { results, ..Default::default() }
}

async fn existing(context: &RequestContext, topics: &[DescribableLogDirTopic]) -> Vec<TopicIdPartition> {
    let image = context.shard.image();
    let mut pause = Pause::default();
    let mut keys = Vec::new();
    for topic in topics {
        pause.step().await;
        let Some(found) = image.topic(&topic.topic) else { continue };
        for partition in topic.partitions.iter().copied() {
            pause.step().await;
            if found.partition(partition).is_some() {
                keys.push(TopicIdPartition { topic_id: found.id, partition });
            }
        }
    }
    keys
}

async fn by_topic<'sizes>(context: &RequestContext, sizes: impl Iterator<Item = &'sizes ReplicaSize>) -> Vec<DescribeLogDirsTopic> {
    let image = context.shard.image();
    let mut pause = Pause::default();
    let mut topics: HashMap<Str, Vec<DescribeLogDirsPartition>> = HashMap::new();
    for size in sizes {
        pause.step().await;
        let Some(topic) = image.topic_by_id(&size.partition.topic_id) else { continue };
        debug_assert!(size.partition != METADATA_PARTITION, "the metadata log is not a topic");
        let partition = DescribeLogDirsPartition {
            partition_index: size.partition.partition,
            partition_size: size.size_bytes,
            offset_lag: size.offset_lag,
            is_future_key: size.is_future,
            ..Default::default()
        };
        topics.entry(Str::from(&*topic.name)).or_default().push(partition);
    }
    let mut topics: Vec<DescribeLogDirsTopic> =
        topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic { name, partitions, ..Default::default() }).collect();
    topics.sort_by(|left, right| left.name.cmp(&right.name));
    topics
}

/// One partition of a topic.
type Wish = (Str, i32);

/// What one shard is to move to one directory.
struct Moves {
    directory: DataDirectory,
    wishes: Vec<Wish>,
    keys: Vec<TopicIdPartition>,
}

/// What is asked for. A frame has room for millions of partition numbers: those that the topic does not have are answered at once.
#[derive(Default)]
struct Asked {
    /// Partitions that exist, and where they are to go.
    wishes: BTreeMap<Wish, Result<(DataDirectory, TopicIdPartition), ErrorCode>>,
    answered: BTreeMap<Str, Vec<AlterReplicaLogDirPartitionResult>>,
}

/// Begins the moves that are asked for. Each partition gets a code of its own; a partition that is named twice goes where it was named last.
pub async fn alter_replica_log_dirs(
    context: &RequestContext,
    request: AlterReplicaLogDirsRequest,
    _version: i16,
) -> AlterReplicaLogDirsResponse {
    let Asked { wishes, mut answered } = look_at(context, &request).await;
    let mut pause = Pause::default();
    let mut moves: HashMap<(ShardId, Uuid), Moves> = HashMap::new();
    for (wish, checked) in wishes {
        pause.step().await;
        match checked {
            Ok((directory, key)) => {
                let group = (context.shard.owner(&key), directory.id);
                let together = moves.entry(group).or_insert_with(|| Moves { directory, wishes: Vec::new(), keys: Vec::new() });
                together.wishes.push(wish);
                together.keys.push(key);
            }
            Err(error) => answer(&mut answered, wish, error),
        }
    }
    let mut calls = Vec::new();
    for ((owner, _), Moves { directory, wishes, keys }) in moves {
        calls.push((wishes, context.shard.call(owner, Request::MoveReplicas { items: keys, directory })));
    }
    for (wishes, call) in calls {
        let Reply::MovesBegun(codes) = call.await else { unreachable!("moves are answered by codes") };
        for (wish, code) in wishes.into_iter().zip(codes) {
            pause.step().await;
            answer(&mut answered, wish, code);
        }
    }
    let topics = answered.into_iter();
    let results = topics.map(|(topic_name, partitions)| AlterReplicaLogDirTopicResult { topic_name, partitions, ..Default::default() });
    AlterReplicaLogDirsResponse { results: results.collect(), ..Default::default() }
}

/// In the order in which Kafka looks at a wish: the name, the directory, the partition.
async fn look_at(context: &RequestContext, request: &AlterReplicaLogDirsRequest) -> Asked {
    let image = context.shard.image();
    let directories: Vec<(PathBuf, &DataDirectory)> =
        context.shard.directories().iter().map(|directory| (absolute(&directory.path), directory)).collect();
    let mut asked = Asked::default();
    let mut pause = Pause::default();
    for wanted in &request.dirs {
        pause.step().await;
        let directory = directories.iter().find(|(path, _)| path == Path::new(&*wanted.path)).map(|(_, directory)| *directory);
        for topic in &wanted.topics {
            pause.step().await;
            let found = image.topic(&topic.name);
            // The longest number decides for nearly all topics.
            let is_always_movable = is_movable(&topic.name, i32::MIN);
            for partition in topic.partitions.iter().copied() {
                pause.step().await;
                let place = if is_always_movable || is_movable(&topic.name, partition) {
                    directory.ok_or(ErrorCode::LogDirNotFound)
                } else {
                    Err(ErrorCode::InvalidTopicException)
                };
                let wish = (topic.name.clone(), partition);
                match found.filter(|topic| topic.partition(partition).is_some()) {
                    Some(topic) => {
                        let checked = place.map(|directory| (directory.clone(), TopicIdPartition::new(topic.id, partition)));
                        asked.wishes.insert(wish, checked);
                    }
                    None => answer(&mut asked.answered, wish, place.err().unwrap_or(ErrorCode::UnknownTopicOrPartition)),
                }
            }
        }
    }
    asked
}

fn answer(answered: &mut BTreeMap<Str, Vec<AlterReplicaLogDirPartitionResult>>, (topic, partition_index): Wish, error: ErrorCode) {
    let result = AlterReplicaLogDirPartitionResult { partition_index, error_code: error.code(), ..Default::default() };
    answered.entry(topic).or_default().push(result);
}

/// The path as Kafka tells it and compares it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
