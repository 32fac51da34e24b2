//! Changes of settings: incremental ones (KIP-339) and whole replacements, of topics, brokers, groups and subscriptions.
//!
//! Each resource is decided for itself and changes whole or not at all. Who asked, and whether a broker may change a key while it runs, has been judged before
//! (api::configs); here stands what the cluster as a whole requires.

use std::sync::Arc;

use crate::cluster::features::ELR_VERSION;
use crate::cluster::image::{ConfigMap, ConfigResourceType, Image};
use crate::cluster::record::MetadataRecord;
use crate::cluster::topic_name::check_topic_name;
use crate::wire::records::{ClearElrRecord, ConfigRecord};
use crate::wire::{ErrorCode, Str};

use super::create_topics::check_value_length;
use super::{Decision, RECORDS_PER_REQUEST_MAX, Refusal, SettingRules, too_many_records};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";

/// What is to happen to the settings of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceChange {
    pub kind: ConfigResourceType,
    /// A topic, a broker id (empty: all brokers), a group, a subscription.
    pub name: Str,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Key by key; each key at most once.
    Incremental(Vec<(Str, SettingChange)>),
    /// These settings and no others (AlterConfigs before KIP-339).
    Replacement(Vec<(Str, Str)>),
}

/// What is to happen to one setting, in the order of the operation numbers of IncrementalAlterConfigs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingChange {
    Set(Str),
    Delete,
    /// Items, separated by commas, that a list shall hold.
    Append(Str),
    /// Items, separated by commas, that a list shall not hold.
    Subtract(Str),
}

/// One outcome per resource, in the order of the request.
pub fn alter_configs(image: &Image, changes: &[ResourceChange], rules: &dyn SettingRules) -> Decision<Vec<Result<(), Refusal>>> {
    let planned: Vec<Result<Vec<ConfigRecord>, Refusal>> = changes.iter().map(|change| plan(image, change, rules)).collect();
    let mut records: Vec<MetadataRecord> = planned.iter().flatten().flatten().cloned().map(MetadataRecord::from).collect();
    if image.feature_level(ELR_VERSION) > 0 {
        let cleared: Vec<MetadataRecord> = planned.iter().flatten().flatten().filter_map(elr_clearing).collect();
        records.extend(cleared);
    }
    if records.len() > RECORDS_PER_REQUEST_MAX {
        return Decision { records: Vec::new(), reply: changes.iter().map(|_| Err(too_many_records())).collect() };
    }
    Decision { records, reply: planned.into_iter().map(|plan| plan.map(drop)).collect() }
}

/// Another minimum of in-sync replicas makes what was kept about eligible leaders void (KIP-966).
fn elr_clearing(record: &ConfigRecord) -> Option<MetadataRecord> {
    let is_topic = record.resource_type == ConfigResourceType::Topic.code();
    let topic_name = if is_topic { record.resource_name.clone() } else { Str::default() };
    (record.name == MIN_INSYNC_REPLICAS).then(|| ClearElrRecord { topic_name, ..Default::default() }.into())
}

/// The records of one resource, in the order of the request; implied deletions last.
fn plan(image: &Image, resource: &ResourceChange, rules: &dyn SettingRules) -> Result<Vec<ConfigRecord>, Refusal> {
    let empty = Arc::default();
    let present: &Arc<ConfigMap> = image.config(resource.kind, &resource.name).unwrap_or(&empty);
    let changed = match &resource.change {
        Change::Incremental(changes) => {
            changes.iter().map(|(key, change)| Ok((key.clone(), new_value(resource.kind, key, change, present, rules)?))).collect()
        }
        Change::Replacement(settings) => Ok(replacement(settings, present)),
    }?;
    let mut settings = (**present).clone();
    for (key, value) in &changed {
        check_setting(image, resource, key, value.as_deref())?;
        match value {
            Some(value) => drop(settings.insert(Arc::from(&**key), Arc::from(&**value))),
            None => drop(settings.remove(&**key)),
        }
    }
    check_resource(image, resource, &settings, rules)?;
    // A broker's value is written even when it stays, because that makes brokers read it again (KAFKA-14136).
    let writes = |key: &Str, value: &Option<Str>| {
        resource.kind == ConfigResourceType::Broker || present.get(&**key).map(|present| &**present) != value.as_deref()
    };
    let record = |(key, value): (Str, Option<Str>)| ConfigRecord {
        resource_type: resource.kind.code(),
        resource_name: resource.name.detached(),
        name: key.detached(),
        value: value.map(|value| value.detached()),
        ..Default::default()
    };
    Ok(changed.into_iter().filter(|(key, value)| writes(key, value)).map(record).collect())
}

/// What was named, then what was not named and therefore goes.
fn replacement(settings: &[(Str, Str)], present: &ConfigMap) -> Vec<(Str, Option<Str>)> {
    let named = settings.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
    let gone = present.keys().filter(|key| !settings.iter().any(|(named, _)| **named == ***key)).map(|key| (Str::from(&**key), None));
    named.chain(gone).collect()
}

fn new_value(
    kind: ConfigResourceType,
    key: &Str,
    change: &SettingChange,
    present: &ConfigMap,
    rules: &dyn SettingRules,
) -> Result<Option<Str>, Refusal> {
    let (items, operation) = match change {
        SettingChange::Set(value) => return Ok(Some(value.clone())),
        SettingChange::Delete => return Ok(None),
        SettingChange::Append(items) => (items, "APPEND"),
        SettingChange::Subtract(items) => (items, "SUBTRACT"),
    };
    if !rules.is_list(kind, key) {
        let message = format!("Can't {operation} to key {key} because its type is not LIST.");
        return Err(Refusal::new(ErrorCode::InvalidConfig, message));
    }
    let value = present.get(&**key).map(|value| value.to_string()).or_else(|| rules.default_text(kind, key)).unwrap_or_default();
    let mut list: Vec<&str> = value.split(',').filter(|item| !item.is_empty()).collect();
    for item in items.split(',') {
        let position = list.iter().position(|present| *present == item);
        match (change, position) {
            (SettingChange::Append(_), None) => list.push(item),
            (SettingChange::Subtract(_), Some(position)) => drop(list.remove(position)),
            _ => {}
        }
    }
    Ok(Some(Str::from(list.join(","))))
}

/// What holds for single settings whatever their table says.
fn check_setting(image: &Image, resource: &ResourceChange, key: &str, value: Option<&str>) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidConfig, message));
    let is_broker = resource.kind == ConfigResourceType::Broker;
    if is_broker && key == MIN_INSYNC_REPLICAS && image.feature_level(ELR_VERSION) > 0 {
        if !resource.name.is_empty() {
            return invalid("Broker-level min.insync.replicas cannot be altered while ELR is enabled.");
        }
        if value.is_none() {
            return invalid("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.");
        }
    }
    let can_cordon = image.metadata_version().is_some_and(|level| level.has_cordoned_directories());
    if is_broker && key == CORDONED_LOG_DIRS && !can_cordon {
        return invalid("The cordoned.log.dirs configuration value cannot be set because it requires metadata.version >= 4.3-IV0");
    }
    value.map_or(Ok(()), check_value_length)
}

/// The resource is there, and its settings are valid together.
fn check_resource(image: &Image, resource: &ResourceChange, settings: &ConfigMap, rules: &dyn SettingRules) -> Result<(), Refusal> {
    let invalid_request = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    match resource.kind {
        ConfigResourceType::Topic => {
            if resource.name.is_empty() {
                return invalid_request("Default topic resources are not allowed.");
            }
            check_topic_name(&resource.name).map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))?;
        }
        ConfigResourceType::Broker if resource.name.is_empty() => {}
        ConfigResourceType::Broker => match resource.name.parse::<i32>() {
            Err(_) => return invalid_request("Unable to parse broker name as a base 10 number."),
            Ok(id) if id < 0 => return invalid_request("Invalid negative broker ID."),
            Ok(id) if image.broker(id).is_none() => {
                return Err(Refusal::new(ErrorCode::BrokerIdNotRegistered, format!("No node with id {id} found.")));
            }
            Ok(_) => {}
        },
        ConfigResourceType::Group if resource.name.is_empty() => return invalid_request("Default group resources are not allowed."),
        ConfigResourceType::BrokerLogger => return invalid_request("Unknown resource type BROKER_LOGGER"),
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => {}
    }
    rules.check(resource.kind, settings).map_err(|message| Refusal::new(ErrorCode::InvalidConfig, message))?;
    if resource.kind == ConfigResourceType::Topic && image.topic(&resource.name).is_none() {
        let message = format!("The topic '{}' does not exist.", resource.name);
        return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
    }
    Ok(())
}
