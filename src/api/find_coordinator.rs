//! FindCoordinator: which broker coordinates a group or a transactional id, with the topic behind it made on first use.

use super::RequestContext;
use super::topics::tell_unmade;
use crate::cluster::{Image, TopicImage};
use crate::config::Config;
use crate::drive::controller::{ControllerReply, ControllerRequest};
use crate::group::{OFFSETS_TOPIC, partition_for};
use crate::txn::TRANSACTIONS_TOPIC;
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::wire::messages::find_coordinator_response::Coordinator;
use crate::wire::messages::{CreateTopicsRequest, CreateTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::{ErrorCode, Str};

/// From here on several keys are asked for at once (KIP-699).
const BATCH_VERSION: i16 = 4;
/// From here on share coordinators are asked for (KIP-932).
const SHARE_VERSION: i16 = 6;

const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;
const SHARE_KEY: i8 = 2;

/// How long the making of a topic may take.
const CREATION_TIMEOUT_MS: i32 = 30_000;

/// Where a coordinator is to be reached.
struct Endpoint {
    node_id: i32,
    host: Str,
    port: i32,
}

/// Answers for one key or for several, each on its own.
pub async fn handle_find_coordinator(context: &RequestContext, request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    if version < BATCH_VERSION {
        let found = find(context, request.key_type, &request.key, version).await;
        return respond_alone(found);
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in request.coordinator_keys {
        let found = find(context, request.key_type, &key, version).await;
        coordinators.push(respond_among_others(key, found));
    }
    FindCoordinatorResponse { coordinators, ..Default::default() }
}

fn respond_alone(found: Result<Endpoint, ErrorCode>) -> FindCoordinatorResponse {
    let error = found.as_ref().err().copied().unwrap_or(ErrorCode::None);
    let endpoint = found.unwrap_or_else(|_| Endpoint::nowhere());
    FindCoordinatorResponse {
        error_code: error.code(),
        // Kafka says "NONE" where nothing is wrong, too.
        error_message: Some(Str::from(error.name())),
        node_id: endpoint.node_id,
        host: endpoint.host,
        port: endpoint.port,
        ..Default::default()
    }
}

fn respond_among_others(key: Str, found: Result<Endpoint, ErrorCode>) -> Coordinator {
    let error = found.as_ref().err().copied().unwrap_or(ErrorCode::None);
    let endpoint = found.unwrap_or_else(|_| Endpoint::nowhere());
    Coordinator { key, node_id: endpoint.node_id, host: endpoint.host, port: endpoint.port, error_code: error.code(), ..Default::default() }
}

async fn find(context: &RequestContext, key_type: i8, key: &str, version: i16) -> Result<Endpoint, ErrorCode> {
    match key_type {
        GROUP_KEY => find_coordinator(context, OFFSETS_TOPIC, offsets_topic, key).await,
        TRANSACTION_KEY => find_coordinator(context, TRANSACTIONS_TOPIC, transactions_topic, key).await,
        // Not served yet; the answer is the one for a coordinator that is nowhere at the moment.
        SHARE_KEY if version >= SHARE_VERSION => Err(ErrorCode::CoordinatorNotAvailable),
        _ => Err(ErrorCode::InvalidRequest),
    }
}

async fn find_coordinator(
    context: &RequestContext,
    name: &str,
    settings: fn(&Config) -> CreatableTopic,
    key: &str,
) -> Result<Endpoint, ErrorCode> {
    let image = context.shard.image();
    if let Some(topic) = image.topic(name) {
        return leader_endpoint(context, &image, topic, key);
    }
    // Kafka answers COORDINATOR_NOT_AVAILABLE here and makes the topic behind the client's back; once it is made, there is no reason to send the client round again.
    create_topic(context, settings(&context.shard.config())).await?;
    let image = context.shard.image();
    let topic = image.topic(name).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    leader_endpoint(context, &image, topic, key)
}

fn leader_endpoint(context: &RequestContext, image: &Image, topic: &TopicImage, key: &str) -> Result<Endpoint, ErrorCode> {
    let index = partition_for(key, topic.partition_count());
    let leader = topic.partition(index).ok_or(ErrorCode::CoordinatorNotAvailable)?.leader;
    if leader == context.shard.config().node_id() {
        let (node_id, host, port) = context.advertised_endpoint();
        return Ok(Endpoint { node_id, host, port });
    }
    let endpoint =
        image.broker(leader).filter(|broker| !broker.fenced).and_then(|broker| broker.endpoint(&context.connection.listener.name));
    let endpoint = endpoint.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok(Endpoint { node_id: leader, host: Str::from(&*endpoint.host), port: i32::from(endpoint.port) })
}

fn offsets_topic(config: &Config) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(OFFSETS_TOPIC),
        num_partitions: config.offsets_topic_num_partitions(),
        replication_factor: config.offsets_topic_replication_factor(),
        configs: vec![
            setting("cleanup.policy", "compact".into()),
            setting("compression.type", "producer".into()),
            setting("segment.bytes", config.offsets_topic_segment_bytes().to_string()),
        ],
        ..Default::default()
    }
}

fn transactions_topic(config: &Config) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(TRANSACTIONS_TOPIC),
        num_partitions: config.transaction_state_log_num_partitions(),
        replication_factor: config.transaction_state_log_replication_factor(),
        configs: vec![
            setting("cleanup.policy", "compact".into()),
            setting("compression.type", "uncompressed".into()),
            setting("min.insync.replicas", config.transaction_state_log_min_isr().to_string()),
            setting("segment.bytes", config.transaction_state_log_segment_bytes().to_string()),
            setting("unclean.leader.election.enable", "false".into()),
        ],
        ..Default::default()
    }
}

fn setting(name: &str, value: String) -> CreatableTopicConfig {
    CreatableTopicConfig { name: Str::from(name), value: Some(Str::from(value)), ..Default::default() }
}

/// Has the controller make the topic. Somebody else may have done so in the meantime.
async fn create_topic(context: &RequestContext, topic: CreatableTopic) -> Result<(), ErrorCode> {
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: CREATION_TIMEOUT_MS, ..Default::default() };
    match context.shard.controller(ControllerRequest::CreateTopics(request)).await {
        ControllerReply::CreateTopics(response) => creation_outcome(&response),
        other => unreachable!("CreateTopics is answered by its own reply, not {other:?}"),
    }
}

fn creation_outcome(response: &CreateTopicsResponse) -> Result<(), ErrorCode> {
    let result = response.topics.first().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let exists = [ErrorCode::None, ErrorCode::TopicAlreadyExists].iter().any(|fine| fine.code() == result.error_code);
    if exists {
        return Ok(());
    }
    tell_unmade(result);
    Err(ErrorCode::CoordinatorNotAvailable)
}

impl Endpoint {
    fn nowhere() -> Endpoint {
        Endpoint { node_id: -1, host: Str::default(), port: -1 }
    }
}
