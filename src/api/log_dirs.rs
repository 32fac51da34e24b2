//! DescribeLogDirs: how much of each data directory every partition takes.

use hashbrown::HashMap;
use uuid::Uuid;

use super::RequestContext;
use crate::cluster::{METADATA_PARTITION, TopicIdPartition};
use crate::rt::{self, ShardId};
use crate::shard::message::{Reply, Request};
use crate::wire::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use crate::wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use crate::wire::{ErrorCode, Str};

/// Every partition (topics null) or those that are named; partitions that do not exist are left out, as Kafka does.
pub async fn describe_log_dirs(context: &RequestContext, request: DescribeLogDirsRequest, _version: i16) -> DescribeLogDirsResponse {
    let only = request.topics.as_ref().map(|topics| {
        let image = context.shard.image();
        let mut keys = Vec::new();
        for topic in topics {
            if let Some(found) = image.topic(&topic.topic) {
                keys.extend(topic.partitions.iter().map(|partition| TopicIdPartition { topic_id: found.id, partition: *partition }));
            }
        }
        keys
    });
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
            log_dir: Str::from(directory.path.display().to_string()),
            topics: by_topic(context, sizes.iter().filter(|(_, id, _)| *id == directory.id)),
            total_bytes,
            usable_bytes,
            ..Default::default()
        });
    }
    DescribeLogDirsResponse { results, ..Default::default() }
}

fn by_topic<'sizes>(
    context: &RequestContext,
    sizes: impl Iterator<Item = &'sizes (TopicIdPartition, Uuid, i64)>,
) -> Vec<DescribeLogDirsTopic> {
    let image = context.shard.image();
    let mut topics: HashMap<Str, Vec<DescribeLogDirsPartition>> = HashMap::new();
    for (key, _, size_bytes) in sizes {
        let Some(topic) = image.topic_by_id(&key.topic_id) else { continue };
        debug_assert!(*key != METADATA_PARTITION, "the metadata log is not a topic");
        let partition = DescribeLogDirsPartition { partition_index: key.partition, partition_size: *size_bytes, ..Default::default() };
        topics.entry(Str::from(&*topic.name)).or_default().push(partition);
    }
    let mut topics: Vec<DescribeLogDirsTopic> =
        topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic { name, partitions, ..Default::default() }).collect();
    topics.sort_by(|left, right| left.name.cmp(&right.name));
    topics
}
