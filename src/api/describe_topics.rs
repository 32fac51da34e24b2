//! DescribeTopicPartitions (KIP-966): topics in the order of their names, so many partitions at a time, and a cursor to go on from.

use super::cluster_view::{ClusterView, TOPIC_OPERATIONS};
use crate::cluster::image::{NO_LEADER, PartitionImage, TopicImage};
use crate::cluster::is_internal_topic;
use crate::cluster::topic_name::check_topic_name;
use crate::wire::messages::describe_topic_partitions_request::{DescribeTopicPartitionsRequest, TopicRequest};
use crate::wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::wire::{ErrorCode, Str};

/// `limit` is `max.request.partition.size.limit`. No topic named means all.
pub(super) fn describe_topic_partitions(
    view: &ClusterView,
    request: &DescribeTopicPartitionsRequest,
    limit: i32,
) -> DescribeTopicPartitionsResponse {
    if !cursor_is_sound(request) {
        return refuse(request);
    }
    let from = request.cursor.as_ref().map_or("", |cursor| &*cursor.topic_name);
    let names: Vec<Str> = if request.topics.is_empty() {
        // One topic more than partitions that fit: the next cursor may have to name it.
        view.image.topics_from(from).take(limit.max(1) as usize + 1).map(|topic| Str::from(&*topic.name)).collect()
    } else {
        let mut names: Vec<Str> = request.topics.iter().map(|topic| topic.name.clone()).filter(|name| **name >= *from).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let mut page = Page {
        view,
        room: request.response_partition_limit.min(limit).max(1) as usize,
        response: DescribeTopicPartitionsResponse { next_cursor: None, ..Default::default() },
    };
    for name in names {
        let first = request.cursor.as_ref().filter(|cursor| cursor.topic_name == name).map_or(0, |cursor| cursor.partition_index as usize);
        if !page.add(&name, first) {
            break;
        }
    }
    page.response
}

/// A cursor names a topic of the request and a partition that can be.
fn cursor_is_sound(request: &DescribeTopicPartitionsRequest) -> bool {
    let Some(cursor) = &request.cursor else { return true };
    let is_named = request.topics.is_empty() || request.topics.iter().any(|topic| topic.name == cursor.topic_name);
    is_named && cursor.partition_index >= 0
}

fn refuse(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refused = |topic: &TopicRequest| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone()),
        ..Default::default()
    };
    DescribeTopicPartitionsResponse { topics: request.topics.iter().map(refused).collect(), next_cursor: None, ..Default::default() }
}

struct Page<'a> {
    view: &'a ClusterView<'a>,
    /// Partitions that still fit.
    room: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    /// Adds what fits of a topic from its partition `first` on; false when the page is full, and then the cursor says where to go on.
    fn add(&mut self, name: &Str, first: usize) -> bool {
        if self.room == 0 {
            self.go_on_from(name, first);
            return false;
        }
        let Some(topic) = self.view.image.topic(name) else {
            self.response.topics.push(unknown(name));
            return true;
        };
        let end = topic.partitions.len().min(first.saturating_add(self.room));
        let partitions: Vec<_> = (first..end).map(|index| describe_partition(self.view, index as i32, &topic.partitions[index])).collect();
        self.room -= partitions.len();
        self.response.topics.push(described(topic, partitions));
        if end < topic.partitions.len() {
            self.go_on_from(name, end);
            return false;
        }
        true
    }

    fn go_on_from(&mut self, name: &Str, partition: usize) {
        let cursor = Cursor { topic_name: name.clone(), partition_index: partition as i32, ..Default::default() };
        self.response.next_cursor = Some(cursor);
    }
}

fn unknown(name: &Str) -> DescribeTopicPartitionsResponseTopic {
    let error = if check_topic_name(name).is_ok() { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.clone()),
        is_internal: is_internal_topic(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn described(topic: &TopicImage, partitions: Vec<DescribeTopicPartitionsResponsePartition>) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        name: Some(Str::from(&*topic.name)),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions,
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn describe_partition(view: &ClusterView, partition_index: i32, partition: &PartitionImage) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        partition_index,
        leader_id: if view.has_endpoint(partition.leader) { partition.leader } else { NO_LEADER },
        leader_epoch: partition.leader_epoch,
        replica_nodes: partition.replicas.to_vec(),
        isr_nodes: partition.isr.to_vec(),
        eligible_leader_replicas: Some(partition.eligible_leader_replicas.to_vec()),
        last_known_elr: Some(partition.last_known_elr.to_vec()),
        offline_replicas: view.offline_replicas(partition),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cluster::{Image, MetadataRecord};
    use crate::wire::messages::describe_topic_partitions_request;
    use crate::wire::records::{PartitionRecord, TopicRecord};

    /// Topics with so many partitions each.
    fn image(topics: &[(&str, i32)]) -> Image {
        let mut image = Image::empty();
        for (number, (name, partitions)) in topics.iter().enumerate() {
            let topic_id = Uuid::from_u128(number as u128 + 1);
            let topic = TopicRecord { name: Str::from(*name), topic_id, ..Default::default() };
            image.apply(&MetadataRecord::from(topic)).expect("applies");
            for partition_id in 0..*partitions {
                let record = PartitionRecord { topic_id, partition_id, leader_epoch: 0, ..Default::default() };
                image.apply(&MetadataRecord::from(record)).expect("applies");
            }
        }
        image
    }

    fn ask(image: &Image, topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsResponse {
        let view = ClusterView { image, listener: "PLAINTEXT", node_id: 1, own_endpoint: (Str::from("h"), 1) };
        let request = DescribeTopicPartitionsRequest {
            topics: topics.iter().map(|name| TopicRequest { name: Str::from(*name), ..Default::default() }).collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| describe_topic_partitions_request::Cursor {
                topic_name: Str::from(name),
                partition_index,
                ..Default::default()
            }),
            ..Default::default()
        };
        describe_topic_partitions(&view, &request, 4)
    }

    /// `a:0,1 b:` and the cursor.
    fn told(response: &DescribeTopicPartitionsResponse) -> (String, Option<(String, i32)>) {
        let topic = |topic: &DescribeTopicPartitionsResponseTopic| {
            let indexes: Vec<String> = topic.partitions.iter().map(|partition| partition.partition_index.to_string()).collect();
            format!("{}:{}", topic.name.as_deref().unwrap_or_default(), indexes.join(","))
        };
        let topics: Vec<String> = response.topics.iter().map(topic).collect();
        (topics.join(" "), response.next_cursor.as_ref().map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index)))
    }

    /// Pages follow one another without gap or repetition, all topics or named ones.
    #[test]
    fn pages_follow_the_cursor() {
        let image = image(&[("b", 3), ("a", 2), ("c", 1)]);
        for topics in [&[][..], &["c", "a", "b"]] {
            assert_eq!(told(&ask(&image, topics, 2, None)), ("a:0,1".into(), Some(("b".into(), 0))));
            assert_eq!(told(&ask(&image, topics, 2, Some(("b", 0)))), ("b:0,1".into(), Some(("b".into(), 2))));
            assert_eq!(told(&ask(&image, topics, 2, Some(("b", 2)))), ("b:2 c:0".into(), None));
        }
        assert_eq!(told(&ask(&image, &[], 100, None)), ("a:0,1 b:0,1".into(), Some(("b".into(), 2))), "the broker's own limit");
        assert_eq!(told(&ask(&image, &[], 0, None)), ("a:0".into(), Some(("a".into(), 1))), "at least one");
    }

    #[test]
    fn unknown_topics_are_named_once() {
        let image = image(&[("a", 1)]);
        let response = ask(&image, &["nope", "a b", "a", "a"], 10, None);
        let codes: Vec<_> = response.topics.iter().map(|topic| (topic.name.as_deref().unwrap_or_default(), topic.error_code)).collect();
        let (unknown, invalid) = (ErrorCode::UnknownTopicOrPartition.code(), ErrorCode::InvalidTopicException.code());
        assert_eq!(codes, [("a", 0), ("a b", invalid), ("nope", unknown)]);
    }

    #[test]
    fn a_cursor_must_be_of_the_request() {
        let image = image(&[("a", 1), ("b", 1)]);
        for (topics, cursor) in [(&["a"][..], ("b", 0)), (&["a"][..], ("a", -1))] {
            assert_eq!(ask(&image, topics, 10, Some(cursor)).topics[0].error_code, ErrorCode::InvalidRequest.code());
        }
        assert_eq!(told(&ask(&image, &[], 10, Some(("aa", 0)))), ("b:0".into(), None), "a topic that has gone since");
    }
}
