//! CreateTopics, DeleteTopics and CreatePartitions, which the controller decides; and topics that are made because they are needed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::RequestContext;
use crate::config::Config;
use crate::drive::controller::{ControllerReply, ControllerRequest};
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::wire::messages::create_topics_response::CreatableTopicResult;
use crate::wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::wire::{ErrorCode, Str};

/// Where committed offsets and group metadata lie.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// Where transactions lie.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";

/// A topic that cannot be made is told of this often,
const TOLD_INTERVAL: Duration = Duration::from_secs(60);
/// and so many of them in that time.
const TOPICS_TOLD_MAX: usize = 100;

/// Answers CreateTopics once the topics are durable and every shard has their partitions.
pub async fn handle_create_topics(context: &RequestContext, request: CreateTopicsRequest, _version: i16) -> CreateTopicsResponse {
    create(context, request).await
}

async fn create(context: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    match context.shard.controller(ControllerRequest::CreateTopics(request)).await {
        ControllerReply::CreateTopics(response) => response,
        other => unreachable!("a creation is answered by a creation, not {other:?}"),
    }
}

/// Answers DeleteTopics once the deletion is durable and no shard shows the topics any more.
pub async fn handle_delete_topics(context: &RequestContext, request: DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    match context.shard.controller(ControllerRequest::DeleteTopics { request, version }).await {
        ControllerReply::DeleteTopics(response) => response,
        other => unreachable!("a deletion is answered by a deletion, not {other:?}"),
    }
}

/// Answers CreatePartitions once the partitions are durable and every shard has them.
pub async fn handle_create_partitions(
    context: &RequestContext,
    request: CreatePartitionsRequest,
    _version: i16,
) -> CreatePartitionsResponse {
    match context.shard.controller(ControllerRequest::CreatePartitions(request)).await {
        ControllerReply::CreatePartitions(response) => response,
        other => unreachable!("growth is answered by growth, not {other:?}"),
    }
}

/// Makes topics that are missing, internal ones with their own settings. A name that somebody else has made meanwhile is no failure; what cannot be made stays missing, with a
/// line in the log. When this returns, every shard has what was made.
pub async fn create_missing(context: &RequestContext, names: &[Str]) {
    if names.is_empty() {
        return;
    }
    let config = context.shard.config();
    let topics = names.iter().map(|name| missing_topic(&config, name)).collect();
    let response = create(context, CreateTopicsRequest { topics, ..Default::default() }).await;
    for topic in response.topics {
        if topic.error_code != ErrorCode::None.code() && topic.error_code != ErrorCode::TopicAlreadyExists.code() {
            tell_unmade(&topic);
        }
    }
}

/// Clients ask for a missing topic again and again, each about once a second, and nothing may be able to change that soon (a full disk): told at once when it begins, then once in
/// a minute for each shard.
pub fn tell_unmade(topic: &CreatableTopicResult) {
    if UNMADE.with_borrow_mut(|unmade| unmade.is_news(&topic.name, topic.error_code, Instant::now())) {
        let error = ErrorCode::try_from(topic.error_code).map_or("unknown", ErrorCode::name);
        let message = topic.error_message.as_deref().unwrap_or_default();
        tracing::warn!(topic = &*topic.name, error, message, "a missing topic cannot be made");
    }
}

thread_local! {
    static UNMADE: RefCell<UnmadeTopics> = RefCell::default();
}

/// Topics that could not be made within the last minute, with the error that was told.
#[derive(Default)]
struct UnmadeTopics {
    told: BTreeMap<String, (i16, Instant)>,
}

impl UnmadeTopics {
    fn is_news(&mut self, topic: &str, error_code: i16, now: Instant) -> bool {
        self.told.retain(|_, (_, at)| now.saturating_duration_since(*at) < TOLD_INTERVAL);
        let is_told = self.told.get(topic).is_some_and(|(told, _)| *told == error_code);
        // Names are the clients' to choose.
        let is_flood = self.told.len() >= TOPICS_TOLD_MAX && !self.told.contains_key(topic);
        if is_told || is_flood {
            return false;
        }
        self.told.insert(topic.to_owned(), (error_code, now));
        true
    }
}

/// A topic as it is made when somebody asks for one that is not there.
fn missing_topic(config: &Config, name: &Str) -> CreatableTopic {
    let (num_partitions, replication_factor, settings) = match &**name {
        GROUP_METADATA_TOPIC => (
            config.offsets_topic_num_partitions(),
            config.offsets_topic_replication_factor(),
            vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "producer".to_owned()),
                ("segment.bytes", config.offsets_topic_segment_bytes().to_string()),
            ],
        ),
        TRANSACTION_STATE_TOPIC => (
            config.transaction_state_log_num_partitions(),
            config.transaction_state_log_replication_factor(),
            vec![
                ("cleanup.policy", "compact".to_owned()),
                ("compression.type", "uncompressed".to_owned()),
                ("min.insync.replicas", config.transaction_state_log_min_isr().to_string()),
                ("segment.bytes", config.transaction_state_log_segment_bytes().to_string()),
                ("unclean.leader.election.enable", "false".to_owned()),
            ],
        ),
        _ => (-1, -1, Vec::new()),
    };
    let config =
        |(name, value): (&str, String)| CreatableTopicConfig { name: Str::from(name), value: Some(Str::from(value)), ..Default::default() };
    CreatableTopic {
        name: name.clone(),
        num_partitions,
        replication_factor,
        configs: settings.into_iter().map(config).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::decide::SettingRules;
    use crate::cluster::image::{ConfigMap, ConfigResourceType};

    /// Internal topics have the settings of their coordinators, valid ones; any other takes the defaults.
    #[test]
    fn missing_topics_have_their_settings() {
        let config = Config::default();
        let offsets = missing_topic(&config, &Str::from(GROUP_METADATA_TOPIC));
        assert_eq!((offsets.num_partitions, offsets.replication_factor), (50, 1));
        let transactions = missing_topic(&config, &Str::from(TRANSACTION_STATE_TOPIC));
        assert_eq!(transactions.num_partitions, 50);
        for topic in [offsets, transactions] {
            let value =
                |config: CreatableTopicConfig| (std::sync::Arc::from(&*config.name), std::sync::Arc::from(&*config.value.expect("set")));
            let overrides: ConfigMap = topic.configs.into_iter().map(value).collect();
            assert_eq!(overrides.get("cleanup.policy").map(|value| &**value), Some("compact"));
            assert_eq!(config.check(ConfigResourceType::Topic, &overrides), Ok(()));
        }
        let other = missing_topic(&config, &Str::from("t"));
        assert_eq!((other.num_partitions, other.replication_factor, other.configs.len()), (-1, -1, 0));
    }

    #[test]
    fn a_topic_that_cannot_be_made_is_told_of_when_that_begins_and_then_seldom() {
        let (mut unmade, begun) = (UnmadeTopics::default(), Instant::now());
        let told: Vec<u64> = (0..130).filter(|second| unmade.is_news("a", 56, begun + Duration::from_secs(*second))).collect();
        assert_eq!(told, [0, 60, 120]);
        let now = begun + Duration::from_secs(130);
        assert!(unmade.is_news("b", 56, now) && unmade.is_news("a", 38, now), "another topic and another error are news");
        let flood = (0..1_000).filter(|number| unmade.is_news(&number.to_string(), 56, now)).count();
        assert_eq!((flood, unmade.told.len()), (TOPICS_TOLD_MAX - 2, TOPICS_TOLD_MAX));
    }
}
