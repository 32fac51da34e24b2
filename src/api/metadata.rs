//! Metadata and DescribeTopicPartitions: brokers, topics, who leads; and topics that come into being because somebody asks for them.

use hashbrown::HashSet;

use super::cluster_view::{CLUSTER_OPERATIONS, ClusterView, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS};
use super::topics::create_missing;
use super::{RequestContext, describe_topics};
use crate::cluster::image::{NO_LEADER, PartitionImage, TopicImage};
use crate::cluster::is_internal_topic;
use crate::cluster::topic_name::check_topic_name;
use crate::rt;
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use crate::wire::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, MetadataRequest, MetadataResponse};
use crate::wire::{ErrorCode, Str};

/// Partitions that are described between two looks at what else the shard has to do.
const PARTITIONS_AT_ONCE: usize = 2_000;

/// Topics may be named by id from here on; versions 10 and 11 have the field and refuse its use.
const VERSION_WITH_IDS: i16 = 12;

/// Answers Metadata. A topic that is missing and may be made is there, with its leaders, when the answer goes out.
pub async fn handle_metadata(context: &RequestContext, request: MetadataRequest, version: i16) -> MetadataResponse {
    if let Some(refused) = refuse_ids(&request, version) {
        return refused;
    }
    let wanted = Wanted::new(&request, version);
    if let Wanted::Names(names) = &wanted
        && request.allow_auto_topic_creation
        && context.shard.config().auto_create_topics_enable()
    {
        let image = context.shard.image();
        let missing: Vec<Str> =
            names.iter().filter(|name| image.topic(name).is_none() && check_topic_name(name).is_ok()).cloned().collect();
        create_missing(context, &missing).await;
    }
    let image = context.shard.image();
    let view = ClusterView::new(context, &image);
    let topics = describe(&view, &wanted, &request, version).await;
    MetadataResponse {
        brokers: view
            .alive()
            .map(|broker| MetadataResponseBroker {
                node_id: broker.id,
                host: broker.host,
                port: broker.port,
                rack: broker.rack,
                ..Default::default()
            })
            .collect(),
        cluster_id: Some(Str::from(context.shard.cluster_id())),
        controller_id: view.controller_id(),
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        },
        ..Default::default()
    }
}

/// Which topics a request wants, each once.
#[derive(Debug, PartialEq)]
enum Wanted {
    All,
    Names(Vec<Str>),
    /// Names beside ids are not looked at.
    Ids(Vec<uuid::Uuid>),
}

impl Wanted {
    fn new(request: &MetadataRequest, version: i16) -> Self {
        let Some(topics) = request.topics.as_deref().filter(|topics| version > 0 || !topics.is_empty()) else { return Self::All };
        let mut seen = HashSet::new();
        let ids: Vec<uuid::Uuid> = topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil() && seen.insert(*id)).collect();
        if !ids.is_empty() {
            return Self::Ids(ids);
        }
        let mut seen = HashSet::new();
        Self::Names(topics.iter().filter_map(|topic| topic.name.clone()).filter(|name| seen.insert(name.clone())).collect())
    }
}

/// The answer to a request that uses ids in a version that does not have them yet.
fn refuse_ids(request: &MetadataRequest, version: i16) -> Option<MetadataResponse> {
    let topics = request.topics.as_deref().unwrap_or_default();
    let uses_ids = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
    if version >= VERSION_WITH_IDS || !topics.iter().any(uses_ids) {
        return None;
    }
    let refused = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    };
    Some(MetadataResponse {
        topics: topics.iter().map(refused).collect(),
        error_code: ErrorCode::InvalidRequest.code(),
        ..Default::default()
    })
}

async fn describe(view: &ClusterView<'_>, wanted: &Wanted, request: &MetadataRequest, version: i16) -> Vec<MetadataResponseTopic> {
    let found: Box<dyn Iterator<Item = Result<&TopicImage, MetadataResponseTopic>> + '_> = match wanted {
        Wanted::All => Box::new(view.image.topics().map(|topic| Ok(&**topic))),
        Wanted::Names(names) => {
            Box::new(names.iter().map(|name| view.image.topic(name).map(|topic| &**topic).ok_or_else(|| unknown_name(name))))
        }
        Wanted::Ids(ids) => Box::new(ids.iter().map(|id| view.image.topic_by_id(id).map(|topic| &**topic).ok_or_else(|| unknown_id(*id)))),
    };
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    let mut described = Vec::new();
    let mut partitions = 0;
    for topic in found {
        let topic = topic.map_or_else(|unknown| unknown, |topic| describe_topic(view, topic, version));
        // Topics that do not exist cost something, too.
        partitions += 1 + topic.partitions.len();
        described.push(MetadataResponseTopic { topic_authorized_operations: operations, ..topic });
        if partitions >= PARTITIONS_AT_ONCE {
            partitions = 0;
            rt::yield_now().await;
        }
    }
    described
}

fn unknown_name(name: &Str) -> MetadataResponseTopic {
    let error = if check_topic_name(name).is_ok() { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
    MetadataResponseTopic { error_code: error.code(), name: Some(name.clone()), is_internal: is_internal_topic(name), ..Default::default() }
}

fn unknown_id(topic_id: uuid::Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code: ErrorCode::UnknownTopicId.code(), name: None, topic_id, ..Default::default() }
}

fn describe_topic(view: &ClusterView, topic: &TopicImage, version: i16) -> MetadataResponseTopic {
    MetadataResponseTopic {
        name: Some(Str::from(&*topic.name)),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: (0..).zip(&topic.partitions).map(|(index, partition)| describe_partition(view, index, partition, version)).collect(),
        ..Default::default()
    }
}

/// Version 0 leaves replicas out that cannot be reached, and says so; before version 6 a leader that is not on the listener is one that is not there.
fn describe_partition(view: &ClusterView, partition_index: i32, partition: &PartitionImage, version: i16) -> MetadataResponsePartition {
    let shown = |ids: &[i32]| -> Vec<i32> {
        let is_alive = |id: &i32| view.has_endpoint(*id) && view.image.broker(*id).is_some_and(|broker| !broker.fenced);
        ids.iter().copied().filter(|id| version > 0 || is_alive(id)).collect()
    };
    let (replica_nodes, isr_nodes) = (shown(&partition.replicas), shown(&partition.isr));
    let is_cut = replica_nodes.len() < partition.replicas.len() || isr_nodes.len() < partition.isr.len();
    let (leader_id, error) = match partition.leader {
        leader if view.has_endpoint(leader) && is_cut => (leader, ErrorCode::ReplicaNotAvailable),
        leader if view.has_endpoint(leader) => (leader, ErrorCode::None),
        leader if version >= 6 && view.image.broker(leader).is_some() => (NO_LEADER, ErrorCode::ListenerNotFound),
        _ => (NO_LEADER, ErrorCode::LeaderNotAvailable),
    };
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index,
        leader_id,
        leader_epoch: partition.leader_epoch,
        replica_nodes,
        isr_nodes,
        offline_replicas: view.offline_replicas(partition),
        ..Default::default()
    }
}

/// Answers DescribeTopicPartitions.
pub async fn handle_describe_topic_partitions(
    context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
    _version: i16,
) -> DescribeTopicPartitionsResponse {
    let image = context.shard.image();
    let limit = context.shard.config().max_request_partition_size_limit();
    describe_topics::describe_topic_partitions(&ClusterView::new(context, &image), &request, limit)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cluster::{Image, MetadataRecord};
    use crate::wire::records::metadata::register_broker_record::BrokerEndpoint;
    use crate::wire::records::{BrokerRegistrationChangeRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord};

    const TOPIC: Uuid = Uuid::from_u128(7);

    /// Brokers 1 (this one) and 2, which is on no listener of the client's; a topic with a partition on each and one without leader.
    fn image() -> Image {
        let broker = |broker_id, listener: &str| {
            let endpoint = BrokerEndpoint { name: Str::from(listener), host: Str::from("h"), port: 9, ..Default::default() };
            MetadataRecord::from(RegisterBrokerRecord { broker_id, end_points: vec![endpoint], fenced: false, ..Default::default() })
        };
        let partition = |partition_id, leader: i32, replicas: &[i32]| {
            let (replicas, isr) = (replicas.to_vec(), replicas.to_vec());
            let record = PartitionRecord { topic_id: TOPIC, partition_id, leader, replicas, isr, leader_epoch: 3, ..Default::default() };
            MetadataRecord::from(record)
        };
        let mut image = Image::empty();
        for record in [
            broker(1, "PLAINTEXT"),
            broker(2, "OTHER"),
            TopicRecord { name: Str::from("t"), topic_id: TOPIC, ..Default::default() }.into(),
            partition(0, 1, &[1, 2]),
            partition(1, 2, &[2]),
            partition(2, NO_LEADER, &[1]),
        ] {
            image.apply(&record).expect("applies");
        }
        image
    }

    fn view(image: &Image) -> ClusterView<'_> {
        ClusterView { image, listener: "PLAINTEXT", node_id: 1, own_endpoint: (Str::from("dialled"), 1234) }
    }

    fn partitions(version: i16) -> Vec<(i16, i32, Vec<i32>, Vec<i32>)> {
        let image = image();
        let topic = describe_topic(&view(&image), image.topic("t").expect("there"), version);
        let facts = |partition: MetadataResponsePartition| {
            (partition.error_code, partition.leader_id, partition.replica_nodes, partition.offline_replicas)
        };
        topic.partitions.into_iter().map(facts).collect()
    }

    #[test]
    fn leaders_are_told_by_the_listener() {
        let (none, listener, leader) = (0, ErrorCode::ListenerNotFound.code(), ErrorCode::LeaderNotAvailable.code());
        assert_eq!(partitions(6), [(none, 1, vec![1, 2], vec![2]), (listener, -1, vec![2], vec![2]), (leader, -1, vec![1], vec![])]);
        assert_eq!(partitions(5)[1].0, leader, "before version 6");
        let cut = ErrorCode::ReplicaNotAvailable.code();
        assert_eq!(partitions(0), [(cut, 1, vec![1], vec![2]), (leader, -1, vec![], vec![2]), (leader, -1, vec![1], vec![])]);
    }

    /// This node is told as the client reached it, the other not at all; a fenced one is not told either.
    #[test]
    fn brokers_are_told_by_the_listener() {
        let mut image = image();
        let told: Vec<_> = view(&image).alive().map(|broker| (broker.id, broker.host.to_string(), broker.port)).collect();
        assert_eq!(told, [(1, "dialled".to_owned(), 1234)]);
        assert_eq!(view(&image).controller_id(), 1);
        image.apply(&BrokerRegistrationChangeRecord { broker_id: 1, fenced: 1, ..Default::default() }.into()).expect("applies");
        assert_eq!((view(&image).alive().count(), view(&image).controller_id()), (0, -1));
    }

    fn named(name: Option<&str>, topic_id: Uuid) -> MetadataRequestTopic {
        MetadataRequestTopic { name: name.map(Str::from), topic_id, ..Default::default() }
    }

    #[test]
    fn what_is_wanted() {
        let wanted =
            |topics: Option<Vec<MetadataRequestTopic>>, version| Wanted::new(&MetadataRequest { topics, ..Default::default() }, version);
        assert_eq!(wanted(Some(vec![]), 0), Wanted::All);
        assert_eq!(wanted(Some(vec![]), 1), Wanted::Names(vec![]));
        assert_eq!(wanted(None, 1), Wanted::All);
        let twice = vec![named(Some("a"), Uuid::nil()), named(Some("b"), Uuid::nil()), named(Some("a"), Uuid::nil())];
        assert_eq!(wanted(Some(twice), 9), Wanted::Names(vec![Str::from("a"), Str::from("b")]));
        let mixed = vec![named(Some("a"), Uuid::nil()), named(None, TOPIC), named(None, TOPIC)];
        assert_eq!(wanted(Some(mixed), 12), Wanted::Ids(vec![TOPIC]));
    }

    #[test]
    fn ids_are_refused_before_version_12() {
        let request = MetadataRequest { topics: Some(vec![named(None, TOPIC), named(Some("t"), Uuid::nil())]), ..Default::default() };
        let refused = refuse_ids(&request, 11).expect("refused");
        assert!(refused.topics.iter().all(|topic| topic.error_code == ErrorCode::InvalidRequest.code()));
        assert_eq!((refused.topics[0].name.as_deref(), refused.topics[0].topic_id), (Some(""), TOPIC));
        assert!(refuse_ids(&request, 12).is_none());
    }

    #[test]
    fn unknown_topics_say_what_they_are() {
        assert_eq!(unknown_name(&Str::from("nope")).error_code, ErrorCode::UnknownTopicOrPartition.code());
        assert_eq!(unknown_name(&Str::from("a b")).error_code, ErrorCode::InvalidTopicException.code());
        let id = unknown_id(Uuid::from_u128(1));
        assert_eq!((id.error_code, id.name, id.topic_id), (ErrorCode::UnknownTopicId.code(), None, Uuid::from_u128(1)));
    }
}
