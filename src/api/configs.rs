//! DescribeConfigs, IncrementalAlterConfigs, AlterConfigs and ListConfigResources.
//!
//! Each resource of a request is answered for itself. What this broker must judge, its own settings and its log levels, is judged here; the rest goes to the controller in one
//! request, and the answers come back in the order of the client's request.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;

use super::RequestContext;
use crate::cluster::decide::Refusal;
use crate::cluster::decide::configs::{Change, ResourceChange, SettingChange};
use crate::cluster::image::{ConfigMap, ConfigResourceType, Image};
use crate::cluster::topic_name::check_topic_name;
use crate::config::{Config, alter, describe};
use crate::drive::controller::{ControllerReply, ControllerRequest};
use crate::logging;
use crate::wire::messages::describe_configs_request::DescribeConfigsResource;
use crate::wire::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym};
use crate::wire::messages::incremental_alter_configs_request::AlterConfigsResource as IncrementalResource;
use crate::wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, ListConfigResourcesRequest, ListConfigResourcesResponse, alter_configs_request,
    alter_configs_response, incremental_alter_configs_response, list_config_resources_response,
};
use crate::wire::{ErrorCode, Str};

/// The source of a log level, in the numbers of DescribeConfigs.
const DYNAMIC_BROKER_LOGGER_CONFIG: i8 = 6;

/// What this broker knows when it answers: its settings as the metadata alters them, and that metadata.
struct View {
    config: Arc<Config>,
    image: Arc<Image>,
}

/// A change of one resource that this broker lets through.
enum Admitted {
    /// The controller decides.
    Decided(ResourceChange),
    /// Levels of loggers, set here.
    Levels(Vec<(Str, SettingChange)>),
}

/// Answers DescribeConfigs.
pub async fn handle_describe_configs(context: &RequestContext, request: DescribeConfigsRequest, _version: i16) -> DescribeConfigsResponse {
    let view = View::of(context);
    let results = request
        .resources
        .iter()
        .map(|resource| {
            let described = view.describe(resource, request.include_synonyms, request.include_documentation);
            let (error_code, error_message, configs) = match described {
                Ok(configs) => (ErrorCode::None.code(), None, configs),
                Err(Refusal { code, message }) => (code.code(), message.map(Str::from), Vec::new()),
            };
            DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs,
                ..Default::default()
            }
        })
        .collect();
    DescribeConfigsResponse { results, ..Default::default() }
}

/// Answers IncrementalAlterConfigs once what was let through is durable and every shard knows it (KIP-339).
pub async fn handle_incremental_alter_configs(
    context: &RequestContext,
    request: IncrementalAlterConfigsRequest,
    _version: i16,
) -> IncrementalAlterConfigsResponse {
    let view = View::of(context);
    let names: Vec<(i8, &str)> = request.resources.iter().map(|one| (one.resource_type, &*one.resource_name)).collect();
    let admitted = request.resources.iter().map(|resource| match appears_once(&names, resource.resource_type, &resource.resource_name) {
        true => view.admit_incremental(resource),
        false => Err(each_once()),
    });
    let outcomes = alter(context, admitted.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(outcomes).map(|(resource, outcome)| {
        let (error_code, error_message) = told(outcome);
        incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// Answers AlterConfigs, which replaces all settings of a resource, once that is durable and every shard knows it.
pub async fn handle_alter_configs(context: &RequestContext, request: AlterConfigsRequest, _version: i16) -> AlterConfigsResponse {
    let view = View::of(context);
    let names: Vec<(i8, &str)> = request.resources.iter().map(|one| (one.resource_type, &*one.resource_name)).collect();
    let admitted = request.resources.iter().map(|resource| match appears_once(&names, resource.resource_type, &resource.resource_name) {
        true => view.admit_replacement(resource),
        false => Err(each_once()),
    });
    let outcomes = alter(context, admitted.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(outcomes).map(|(resource, outcome)| {
        let (error_code, error_message) = told(outcome);
        alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        }
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// Answers ListConfigResources: which resources have settings, or could (KIP-1142). Version 0 knows only client metrics subscriptions.
pub async fn handle_list_config_resources(
    context: &RequestContext,
    request: ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    View::of(context).list(&request.resource_types, version)
}

/// Carries out what was let through, all of the controller's part in one request, and gives an outcome for each resource.
async fn alter(context: &RequestContext, admitted: Vec<Result<Admitted, Refusal>>, validate_only: bool) -> Vec<Result<(), Refusal>> {
    let decided = admitted.iter().filter_map(|one| match one {
        Ok(Admitted::Decided(change)) => Some(change.clone()),
        _ => None,
    });
    let changes: Vec<ResourceChange> = decided.collect();
    let mut replies = match changes.is_empty() {
        true => Vec::new(),
        false => match context.shard.controller(ControllerRequest::AlterConfigs { changes, validate_only }).await {
            ControllerReply::AlterConfigs(replies) => replies,
            other => unreachable!("an alteration is answered by an alteration, not {other:?}"),
        },
    }
    .into_iter();
    let outcome = |admitted: Result<Admitted, Refusal>| match admitted? {
        Admitted::Decided(_) => replies.next().expect("the controller answers for every resource"),
        Admitted::Levels(changes) if !validate_only => {
            set_levels(&changes);
            Ok(())
        }
        Admitted::Levels(_) => Ok(()),
    };
    admitted.into_iter().map(outcome).collect()
}

impl View {
    fn of(context: &RequestContext) -> View {
        View { config: context.shard.config(), image: context.shard.image() }
    }

    fn describe(
        &self,
        resource: &DescribeConfigsResource,
        with_synonyms: bool,
        with_documentation: bool,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let name = &*resource.resource_name;
        let none = Arc::default();
        let overrides = |kind| self.image.config(kind, name).unwrap_or(&none);
        let entries = match ConfigResourceType::try_from(resource.resource_type) {
            Ok(ConfigResourceType::Topic) => {
                check_topic_name(name).map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))?;
                if self.image.topic(name).is_none() {
                    return Err(Refusal::bare(ErrorCode::UnknownTopicOrPartition));
                }
                describe::topic(&self.config, &**overrides(ConfigResourceType::Topic))
            }
            Ok(ConfigResourceType::Broker) if name.is_empty() => describe::cluster_default(&self.config),
            Ok(ConfigResourceType::Broker) => {
                let expected = format!("{} or empty string,", self.config.node_id());
                self.check_own_id(name, "Broker", &expected)?;
                describe::broker(&self.config)
            }
            Ok(ConfigResourceType::BrokerLogger) => {
                if name.is_empty() {
                    return Err(invalid_request("Broker id must not be empty"));
                }
                self.check_own_id(name, "Broker", &self.config.node_id().to_string())?;
                return Ok(described_levels(wanted(resource)));
            }
            Ok(ConfigResourceType::ClientMetrics) if name.is_empty() => {
                return Err(invalid_request("Client metrics subscription name must not be empty"));
            }
            Ok(ConfigResourceType::ClientMetrics) => describe::client_metrics(&**overrides(ConfigResourceType::ClientMetrics)),
            Ok(ConfigResourceType::Group) if name.is_empty() => return Err(invalid_request("Group name must not be empty")),
            Ok(ConfigResourceType::Group) => describe::group(&self.config, &**overrides(ConfigResourceType::Group)),
            Err(_) => return Err(invalid_request("Unsupported resource type: UNKNOWN")),
        };
        let wanted = wanted(resource);
        let entries = entries.into_iter().filter(|entry| wanted(&entry.name));
        Ok(entries.map(|entry| result(entry, with_synonyms, with_documentation)).collect())
    }

    fn admit_incremental(&self, resource: &IncrementalResource) -> Result<Admitted, Refusal> {
        let keys: Vec<&str> = resource.configs.iter().map(|config| &*config.name).collect();
        check_keys_differ(&keys)?;
        let without_value = resource.configs.iter().filter(|config| config.value.is_none() && config.config_operation != 1);
        check_no_nulls(without_value.map(|config| &*config.name).collect())?;
        let change = |config: &crate::wire::messages::incremental_alter_configs_request::AlterableConfig| {
            let value = || config.value.clone().unwrap_or_default();
            let change = match config.config_operation {
                0 => SettingChange::Set(value()),
                1 => SettingChange::Delete,
                2 => SettingChange::Append(value()),
                3 => SettingChange::Subtract(value()),
                other => return Err(invalid_request(format!("Unknown operations type {other}"))),
            };
            Ok((config.name.clone(), change))
        };
        let changes = resource.configs.iter().map(change).collect::<Result<Vec<_>, Refusal>>()?;
        self.admit(resource.resource_type, &resource.resource_name, Change::Incremental(changes))
    }

    fn admit_replacement(&self, resource: &alter_configs_request::AlterConfigsResource) -> Result<Admitted, Refusal> {
        let keys: Vec<&str> = resource.configs.iter().map(|config| &*config.name).collect();
        check_keys_differ(&keys)?;
        let without_value = resource.configs.iter().filter(|config| config.value.is_none());
        check_no_nulls(without_value.map(|config| &*config.name).collect())?;
        if resource.resource_type == ConfigResourceType::BrokerLogger.code() {
            return Err(invalid_request(format!("Unknown resource type {}", resource.resource_type)));
        }
        let setting = |config: &alter_configs_request::AlterableConfig| (config.name.clone(), config.value.clone().unwrap_or_default());
        let settings = resource.configs.iter().map(setting).collect();
        self.admit(resource.resource_type, &resource.resource_name, Change::Replacement(settings))
    }

    /// What this broker has to say about a change, before the controller decides it.
    fn admit(&self, resource_type: i8, name: &Str, change: Change) -> Result<Admitted, Refusal> {
        let kind =
            ConfigResourceType::try_from(resource_type).map_err(|_| invalid_request(format!("Unknown resource type {resource_type}")))?;
        let none = Arc::default();
        let present: &Arc<ConfigMap> = self.image.config(kind, name).unwrap_or(&none);
        match (kind, &change) {
            (ConfigResourceType::BrokerLogger, Change::Incremental(changes)) => {
                self.check_own_node(name, "Unexpected node id. Expected")?;
                changes.iter().try_for_each(|(logger, change)| check_level(logger, change))?;
                return Ok(Admitted::Levels(changes.clone()));
            }
            (ConfigResourceType::Broker, _) => {
                if !name.is_empty() {
                    self.check_own_node(name, "Unexpected broker id, expected")?;
                }
                alter::check_broker(&self.config, !name.is_empty(), &proposed(present, &change)?)?;
            }
            (ConfigResourceType::ClientMetrics, _) if has_no_list_changes(&change) => {
                let proposed = proposed(present, &change)?;
                alter::check_client_metrics(name, proposed.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
            }
            _ => {}
        }
        Ok(Admitted::Decided(ResourceChange { kind, name: name.clone(), change }))
    }

    fn check_own_id(&self, name: &str, what: &str, expected: &str) -> Result<(), Refusal> {
        match name.parse::<i32>() {
            Err(_) => Err(invalid_request(format!("{what} id must be an integer, but it is: {name}"))),
            Ok(id) if id == self.config.node_id() => Ok(()),
            Ok(_) => Err(invalid_request(format!("Unexpected broker id, expected {expected} but received {name}"))),
        }
    }

    fn check_own_node(&self, name: &str, unexpected: &str) -> Result<(), Refusal> {
        match name.parse::<i32>() {
            Err(_) => Err(invalid_request(format!("Node id must be an integer, but it is: {name}"))),
            Ok(id) if id == self.config.node_id() => Ok(()),
            Ok(_) => Err(invalid_request(format!("{unexpected} {}, but received {name}", self.config.node_id()))),
        }
    }

    fn list(&self, wanted: &[i8], version: i16) -> ListConfigResourcesResponse {
        const ALL: [ConfigResourceType; 5] = [
            ConfigResourceType::Topic,
            ConfigResourceType::Broker,
            ConfigResourceType::BrokerLogger,
            ConfigResourceType::ClientMetrics,
            ConfigResourceType::Group,
        ];
        let kinds: Vec<ConfigResourceType> = match (version, wanted) {
            (0, _) => vec![ConfigResourceType::ClientMetrics],
            (_, []) => ALL.to_vec(),
            (_, wanted) => match wanted.iter().map(|code| ConfigResourceType::try_from(*code)).collect::<Result<_, _>>() {
                Ok(kinds) => kinds,
                Err(_) => {
                    return ListConfigResourcesResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..Default::default() };
                }
            },
        };
        let resource = |kind: ConfigResourceType, name: Str| list_config_resources_response::ConfigResource {
            resource_name: name,
            resource_type: kind.code(),
            ..Default::default()
        };
        let mut config_resources = Vec::new();
        for kind in ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            config_resources.extend(self.names_of(kind).into_iter().map(|name| resource(kind, name)));
        }
        ListConfigResourcesResponse { config_resources, ..Default::default() }
    }

    /// Topics and brokers are there by themselves, groups and subscriptions by their settings.
    fn names_of(&self, kind: ConfigResourceType) -> Vec<Str> {
        match kind {
            ConfigResourceType::Topic => self.image.topics().map(|topic| Str::from(&*topic.name)).collect(),
            ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
                let alive = self.image.brokers().filter(|broker| !broker.fenced);
                alive.map(|broker| Str::from(broker.id.to_string())).collect()
            }
            ConfigResourceType::ClientMetrics | ConfigResourceType::Group => self.image.configured_resources(kind).map(Str::from).collect(),
        }
    }
}

/// Which settings were asked for; none named means all.
fn wanted(resource: &DescribeConfigsResource) -> impl Fn(&str) -> bool {
    let keys: HashSet<&str> = resource.configuration_keys.iter().flatten().map(|key| &**key).collect();
    move |name| keys.is_empty() || keys.contains(name)
}

fn result(entry: describe::Entry, with_synonyms: bool, with_documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = |synonym: describe::Synonym| DescribeConfigsSynonym {
        name: Str::from(synonym.name),
        value: synonym.value.map(Str::from),
        source: synonym.source.code(),
        ..Default::default()
    };
    DescribeConfigsResourceResult {
        name: Str::from(entry.name),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: if with_synonyms { entry.synonyms.into_iter().map(synonym).collect() } else { Vec::new() },
        config_type: entry.kind_code,
        documentation: with_documentation.then(|| Str::from(entry.documentation)),
        ..Default::default()
    }
}

fn described_levels(wanted: impl Fn(&str) -> bool) -> Vec<DescribeConfigsResourceResult> {
    let levels = logging::levels().into_iter().filter(|(logger, ..)| wanted(logger));
    let described = |(logger, level, _)| DescribeConfigsResourceResult {
        name: Str::from(logger),
        value: Some(Str::from(level)),
        config_source: DYNAMIC_BROKER_LOGGER_CONFIG,
        ..Default::default()
    };
    levels.map(described).collect()
}

/// The rules of KIP-412, in Kafka's words.
fn check_level(logger: &str, change: &SettingChange) -> Result<(), Refusal> {
    let known = logging::levels().iter().any(|(known, ..)| *known == logger);
    let invalid = |message: String| Err(Refusal::new(ErrorCode::InvalidConfig, message));
    match change {
        SettingChange::Append(_) => Err(invalid_request("APPEND operation is not allowed for the BROKER_LOGGER resource")),
        SettingChange::Subtract(_) => Err(invalid_request("SUBTRACT operation is not allowed for the BROKER_LOGGER resource")),
        SettingChange::Set(_) | SettingChange::Delete if !known => invalid(format!("Logger {logger} does not exist!")),
        SettingChange::Delete if logger == logging::ROOT => {
            Err(invalid_request("Removing the log level of the root logger is not allowed"))
        }
        SettingChange::Set(level) if logging::level_of(level).is_none() => invalid(format!(
            "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, \
             INFO, TRACE, WARN"
        )),
        SettingChange::Set(_) | SettingChange::Delete => Ok(()),
    }
}

fn set_levels(changes: &[(Str, SettingChange)]) {
    for (logger, change) in changes {
        match change {
            SettingChange::Set(level) => logging::set_level(logger, logging::level_of(level)),
            _ => logging::set_level(logger, None),
        }
    }
}

/// All settings of a resource as a change would leave them.
fn proposed(present: &ConfigMap, change: &Change) -> Result<alter::Proposed, Refusal> {
    match change {
        Change::Incremental(changes) => alter::proposed(present, changes),
        Change::Replacement(settings) => Ok(settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()),
    }
}

/// What would be appended to a list is refused by the controller, before the values are looked at.
fn has_no_list_changes(change: &Change) -> bool {
    match change {
        Change::Incremental(changes) => changes.iter().all(|(_, change)| matches!(change, SettingChange::Set(_) | SettingChange::Delete)),
        Change::Replacement(_) => true,
    }
}

fn appears_once(names: &[(i8, &str)], resource_type: i8, name: &str) -> bool {
    names.iter().filter(|known| **known == (resource_type, name)).count() == 1
}

fn check_keys_differ(keys: &[&str]) -> Result<(), Refusal> {
    let different: BTreeMap<&str, ()> = keys.iter().map(|key| (*key, ())).collect();
    match different.len() == keys.len() {
        true => Ok(()),
        false => Err(invalid_request("Error due to duplicate config keys")),
    }
}

fn check_no_nulls(without_value: Vec<&str>) -> Result<(), Refusal> {
    match without_value.is_empty() {
        true => Ok(()),
        false => Err(invalid_request(format!("Null value not supported for : {}", without_value.join(", ")))),
    }
}

fn each_once() -> Refusal {
    invalid_request("Each resource must appear at most once.")
}

fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

fn told(outcome: Result<(), Refusal>) -> (i16, Option<Str>) {
    match outcome {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(Refusal { code, message }) => (code.code(), message.map(Str::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetadataRecord;
    use crate::wire::messages::incremental_alter_configs_request::AlterableConfig;
    use crate::wire::records::{ConfigRecord, TopicRecord};

    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;
    const BROKER_LOGGER: i8 = 8;
    const CLIENT_METRICS: i8 = 16;
    const GROUP: i8 = 32;

    fn view() -> View {
        let mut image = Image::empty();
        let topic = TopicRecord { name: Str::from("t"), topic_id: uuid::Uuid::from_u128(1), ..Default::default() };
        image.apply(&MetadataRecord::from(topic)).expect("applies");
        for (kind, name, key, text) in [
            (TOPIC, "t", "retention.ms", "5"),
            (BROKER, "", "message.max.bytes", "7"),
            (GROUP, "g", "share.isolation.level", "read_committed"),
        ] {
            let record = ConfigRecord {
                resource_type: kind,
                resource_name: Str::from(name),
                name: Str::from(key),
                value: Some(Str::from(text)),
                ..Default::default()
            };
            image.apply(&MetadataRecord::from(record)).expect("applies");
        }
        let config = Config::default().following(&image).expect("altered").0;
        View { config: Arc::new(config), image: Arc::new(image) }
    }

    fn describe(kind: i8, name: &str, keys: Option<&[&str]>) -> Result<Vec<DescribeConfigsResourceResult>, String> {
        let configuration_keys = keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect());
        let resource =
            DescribeConfigsResource { resource_type: kind, resource_name: Str::from(name), configuration_keys, ..Default::default() };
        view().describe(&resource, true, true).map_err(|refusal| format!("{:?} {}", refusal.code, refusal.message.unwrap_or_default()))
    }

    #[test]
    fn resources_are_described_with_what_was_asked_for() {
        let one = describe(TOPIC, "t", Some(&["retention.ms"])).unwrap();
        assert_eq!((one.len(), one[0].value.as_deref(), one[0].config_source, one[0].config_type), (1, Some("5"), 1, 5));
        assert!(one[0].documentation.as_deref().is_some_and(|text| text.starts_with("How long records are kept")));
        assert_eq!(describe(TOPIC, "t", None).unwrap().len(), 38);
        let size = describe(TOPIC, "t", Some(&["max.message.bytes"])).unwrap();
        let synonyms: Vec<_> = size[0].synonyms.iter().map(|one| (&*one.name, one.source)).collect();
        assert_eq!(synonyms, [("message.max.bytes", 3), ("message.max.bytes", 5)]);
        let default = describe(BROKER, "", None).unwrap();
        assert_eq!((default.len(), &*default[0].name), (1, "message.max.bytes"));
        assert!(describe(BROKER, "1", Some(&[])).unwrap().len() > 350);
        assert_eq!(describe(GROUP, "g", Some(&["share.isolation.level"])).unwrap()[0].config_source, 8);
        assert_eq!(describe(CLIENT_METRICS, "m", None).unwrap().len(), 3);
        for (kind, name, refusal) in [
            (TOPIC, "nope", "UnknownTopicOrPartition "),
            (TOPIC, "", "InvalidTopicException Topic name is invalid: the empty string is not allowed"),
            (BROKER, "2", "InvalidRequest Unexpected broker id, expected 1 or empty string, but received 2"),
            (BROKER, "x", "InvalidRequest Broker id must be an integer, but it is: x"),
            (BROKER_LOGGER, "", "InvalidRequest Broker id must not be empty"),
            (BROKER_LOGGER, "2", "InvalidRequest Unexpected broker id, expected 1 but received 2"),
            (GROUP, "", "InvalidRequest Group name must not be empty"),
            (CLIENT_METRICS, "", "InvalidRequest Client metrics subscription name must not be empty"),
            (99, "x", "InvalidRequest Unsupported resource type: UNKNOWN"),
        ] {
            assert_eq!(describe(kind, name, None).unwrap_err(), refusal);
        }
    }

    /// What never reaches the controller, with Kafka's codes and words.
    #[test]
    fn changes_are_judged_before_the_controller_hears_of_them() {
        let admit = |kind: i8, name: &str, settings: &[(&str, i8, Option<&str>)]| {
            let configs = settings.iter().map(|(name, operation, value)| AlterableConfig {
                name: Str::from(*name),
                config_operation: *operation,
                value: value.map(Str::from),
                ..Default::default()
            });
            let resource = IncrementalResource {
                resource_type: kind,
                resource_name: Str::from(name),
                configs: configs.collect(),
                ..Default::default()
            };
            let admitted = view().admit_incremental(&resource);
            admitted.map(drop).map_err(|refusal| format!("{:?} {}", refusal.code, refusal.message.unwrap_or_default()))
        };
        for (kind, name, settings) in [
            (TOPIC, "t", &[("retention.ms", 0, Some("x")), ("foo", 1, None)][..]),
            (BROKER, "", &[("message.max.bytes", 0, Some("5"))]),
            (BROKER, "1", &[("log.cleanup.policy", 2, Some("compact"))]),
            (GROUP, "g", &[("foo", 0, Some("1"))]),
            (CLIENT_METRICS, "m", &[("metrics", 2, Some("x"))]),
            (CLIENT_METRICS, "m", &[("interval.ms", 0, Some("5000"))]),
        ] {
            assert_eq!(admit(kind, name, settings), Ok(()));
        }
        for (kind, name, settings, refusal) in [
            (TOPIC, "t", &[("a", 0, Some("1")), ("a", 1, None)][..], "InvalidRequest Error due to duplicate config keys"),
            (TOPIC, "t", &[("a", 0, None), ("b", 2, None), ("c", 1, None)], "InvalidRequest Null value not supported for : a, b"),
            (TOPIC, "t", &[("a", 7, Some("1"))], "InvalidRequest Unknown operations type 7"),
            (99, "t", &[("a", 0, Some("1"))], "InvalidRequest Unknown resource type 99"),
            (BROKER, "2", &[], "InvalidRequest Unexpected broker id, expected 1, but received 2"),
            (BROKER, "x", &[], "InvalidRequest Node id must be an integer, but it is: x"),
            (BROKER, "1", &[("node.id", 0, Some("5"))], "InvalidRequest Cannot update these configs dynamically: [node.id]"),
            (CLIENT_METRICS, "m", &[("foo", 0, Some("1"))], "InvalidRequest Unknown client metrics configuration: foo"),
            (BROKER_LOGGER, "2", &[], "InvalidRequest Unexpected node id. Expected 1, but received 2"),
            (BROKER_LOGGER, "1", &[("foo", 0, Some("INFO"))], "InvalidConfig Logger foo does not exist!"),
            (
                BROKER_LOGGER,
                "1",
                &[("root", 2, Some("INFO"))],
                "InvalidRequest APPEND operation is not allowed for the BROKER_LOGGER resource",
            ),
        ] {
            assert_eq!(admit(kind, name, settings), Err(refusal.to_owned()));
        }
        let names = [(TOPIC, "t"), (TOPIC, "t"), (GROUP, "t")];
        assert!(!appears_once(&names, TOPIC, "t") && appears_once(&names, GROUP, "t"));
    }

    #[test]
    fn resources_are_listed_by_type() {
        let listed = |types: &[i8], version| {
            let response = view().list(types, version);
            let resources = response.config_resources.iter().map(|one| (one.resource_type, one.resource_name.to_string()));
            (response.error_code, resources.collect::<Vec<_>>())
        };
        assert_eq!(listed(&[], 1), (0, vec![(TOPIC, "t".into()), (GROUP, "g".into())]));
        assert_eq!(listed(&[TOPIC], 1), (0, vec![(TOPIC, "t".into())]));
        assert_eq!(listed(&[], 0), (0, vec![]));
        assert_eq!(listed(&[3], 1), (ErrorCode::UnsupportedVersion.code(), vec![]));
    }
}
