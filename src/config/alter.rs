//! Whether settings may be altered while the broker runs: the checks that a broker makes before the controller decides.
//!
//! The controller (`cluster::decide::configs`) decides what is written; what it must know of single settings it asks the table (`rules`).
//! Here stands what only the broker can judge: which of its own settings may change now, and how far. The sentences are Kafka's.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::broker::Config;
use super::check;
use super::table::{self, Change, Kind, Scope, Setting};
use super::topic::InvalidConfig;
use super::value;
use crate::cluster::decide::Refusal;
use crate::cluster::decide::configs::SettingChange;
use crate::cluster::image::ConfigMap;
use crate::wire::{ErrorCode, Str};

/// All settings of one resource by name, as they stand after a change.
pub type Proposed = BTreeMap<String, String>;

/// Thread counts that may at most be halved or doubled at a time.
const THREADS: [&str; 9] = [
    "num.io.threads",
    "num.network.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
    "remote.log.reader.threads",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.follower.thread.pool.size",
];

/// Settings that Kafka changes at run time and we cannot yet.
const NOT_YET: [&str; 2] = ["listeners", "listener.security.protocol.map"];

/// The settings of a listener that may be set for all brokers; every other one is a single broker's.
const CLUSTER_WIDE_OF_LISTENERS: [&str; 3] = ["max.connections", "max.connection.creation.rate", "num.network.threads"];

/// What a client metrics subscription may select clients by (KIP-714).
const CLIENT_SELECTORS: [&str; 6] =
    ["client_instance_id", "client_id", "client_software_name", "client_software_version", "client_source_address", "client_source_port"];

/// The settings of a broker, or of all of them, after these changes.
pub fn proposed(present: &ConfigMap, changes: &[(Str, SettingChange)]) -> Result<Proposed, Refusal> {
    let mut proposed: Proposed = present.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    for (name, change) in changes {
        match change {
            SettingChange::Set(value) => drop(proposed.insert(name.to_string(), value.to_string())),
            SettingChange::Delete => drop(proposed.remove(&**name)),
            SettingChange::Append(items) => {
                let mut list = list(name, "append", &proposed)?;
                list.extend(items.split(',').map(str::to_owned).filter(|item| !list.contains(item)).collect::<Vec<_>>());
                proposed.insert(name.to_string(), list.join(","));
            }
            SettingChange::Subtract(items) => {
                let mut list = list(name, "subtract", &proposed)?;
                list.retain(|present| !items.split(',').any(|item| item == present));
                proposed.insert(name.to_string(), list.join(","));
            }
        }
    }
    Ok(proposed)
}

fn list(name: &str, operation: &str, proposed: &Proposed) -> Result<Vec<String>, Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidConfig, message));
    match table::find(Scope::Broker, name) {
        None => refuse(format!("Unknown config name: {name}")),
        Some(setting) if setting.kind != Kind::List => refuse(format!("Config value {operation} is not allowed for config key: {name}")),
        Some(setting) => {
            let text = proposed.get(name).map(String::as_str).or(setting.default_text()).unwrap_or_default();
            Ok(text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }
    }
}

/// Whether a broker may run on with these alterations: `here` of itself, else of all brokers.
pub fn check_broker(config: &Config, here: bool, proposed: &Proposed) -> Result<(), Refusal> {
    check_changeable(here, proposed)?;
    for (name, text) in proposed {
        let setting = table::find(Scope::Broker, name).or_else(|| table::find_behind_listener(name));
        if let Some(setting) = setting {
            value::parse(setting, text).map_err(|error| invalid_request(error.message))?;
        }
    }
    check_threads(config, proposed)?;
    let pairs = || proposed.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    fn present(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
        map.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
    let candidate = match here {
        true => config.altered(present(config.altered_for_all()), pairs()).0,
        false => config.altered(pairs(), present(config.altered_here())).0,
    };
    let mut errors = Vec::new();
    check::check(&candidate, &mut errors, &mut Vec::new());
    match errors.into_iter().next() {
        Some(error) => Err(invalid_request(error)),
        None => Ok(()),
    }
}

fn check_changeable(here: bool, proposed: &Proposed) -> Result<(), Refusal> {
    let refuse = |rule: &str, names: BTreeSet<&str>| match names.is_empty() {
        true => Ok(()),
        false => Err(invalid_request(format!("{rule}: [{}]", names.into_iter().collect::<Vec<_>>().join(", ")))),
    };
    let names = |fits: &dyn Fn(&Setting) -> bool| -> BTreeSet<&str> {
        let known = |name: &&String| table::find(Scope::Broker, name).is_some_and(fits);
        proposed.keys().filter(known).map(String::as_str).collect()
    };
    refuse("Cannot update these configs dynamically", names(&|setting| setting.change == Change::ReadOnly))?;
    refuse(
        "These security configs can be dynamically updated only per-listener using the listener prefix",
        names(&|setting| is_key_material(setting.name)),
    )?;
    refuse("Corelane cannot update these configs dynamically yet", names(&|setting| NOT_YET.contains(&setting.name)))?;
    if here {
        return Ok(());
    }
    let mut single = names(&|setting| setting.change == Change::PerBroker);
    let of_listener =
        |name: &&String| table::find_behind_listener(name).is_some_and(|setting| !CLUSTER_WIDE_OF_LISTENERS.contains(&setting.name));
    single.extend(proposed.keys().filter(of_listener).map(String::as_str));
    refuse("Cannot update these configs at default cluster level, broker id must be specified", single)
}

/// Keys and certificates belong to one listener.
fn is_key_material(name: &str) -> bool {
    name.starts_with("ssl.keystore.") || name.starts_with("ssl.truststore.") || name == "ssl.key.password"
}

fn check_threads(config: &Config, proposed: &Proposed) -> Result<(), Refusal> {
    for (name, text) in proposed {
        let (Some(present), Ok(wanted)) = (config.value(name).whole(), text.trim().parse::<i64>()) else { continue };
        let refuse =
            |rule: String| Err(invalid_request(format!("Dynamic thread count update validation failed for {name}={wanted}, {rule}")));
        let is_threads = THREADS.contains(&name.as_str()) && wanted != present;
        if is_threads && wanted > present * 2 {
            return refuse(format!("value should not be greater than double the current value {present}"));
        }
        if is_threads && wanted < present / 2 {
            return refuse(format!("value should be at least half the current value {present}"));
        }
        if name == "log.cleaner.threads" && wanted != present {
            if wanted > present * 2 {
                let message = format!("Log cleaner threads cannot be increased to more than double the current value {present}");
                return Err(invalid_request(message));
            }
            if wanted < present / 2 {
                let message = format!("Log cleaner threads cannot be reduced to less than half the current value {present}");
                return Err(invalid_request(message));
            }
        }
    }
    Ok(())
}

/// Whether a group may have these overrides: each by its row, then within what the broker allows, then together.
pub fn check_group(config: &Config, overrides: &ConfigMap) -> Result<(), InvalidConfig> {
    let invalid = |message: String| Err(InvalidConfig { message });
    if let Some(name) = overrides.keys().find(|name| table::find(Scope::Group, name).is_none()) {
        return invalid(format!("Unknown group config name: {name}"));
    }
    let mut values = BTreeMap::new();
    for setting in table::settings(Scope::Group) {
        let value = match overrides.get(setting.name) {
            Some(text) => value::parse(setting, text)?,
            None => config.group_default(setting),
        };
        values.insert(setting.name, value);
    }
    let whole = |name: &str| values.get(name).and_then(value::Value::whole);
    for name in overrides.keys() {
        let Some(wanted) = whole(name) else { continue };
        let (family, rest) = name.split_once('.').expect("a group's settings have a family");
        let bound = |which: &str| config.value(&format!("group.{family}.{which}.{rest}")).whole();
        match (bound("min"), group_most(config, name).or(bound("max"))) {
            (Some(least), Some(most)) if !(least..=most).contains(&wanted) => {
                return invalid(format!("{name} must be in the range {least} to {most} inclusive."));
            }
            (None, Some(most)) if wanted > most => {
                return invalid(format!("{name} must be less than or equal to {most}"));
            }
            (Some(least), None) if wanted < least => {
                return invalid(format!("{name} must be greater than or equal to {least}"));
            }
            _ => {}
        }
    }
    for family in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (format!("{family}.session.timeout.ms"), format!("{family}.heartbeat.interval.ms"));
        if whole(&session) <= whole(&heartbeat) {
            return invalid(format!("{session} must be greater than {heartbeat}"));
        }
    }
    if let Some(assignor) = overrides.get("streams.assignor.name")
        && let value::Value::List(known) = config.value("group.streams.assignors")
        && !known.iter().any(|one| **one == **assignor)
    {
        let known = known.join(", ");
        return invalid(format!(
            "streams.assignor.name '{assignor}' is not a registered task assignor. Registered assignors are: [{known}]."
        ));
    }
    if let Some(tags) = overrides.get("streams.rack.aware.assignment.tags") {
        let mut seen = BTreeSet::new();
        if !tags.split(',').map(str::trim).all(|tag| seen.insert(tag)) {
            return invalid("streams.rack.aware.assignment.tags must not contain duplicate tag keys.".into());
        }
    }
    if overrides.get("errors.deadletterqueue.topic.name").is_some_and(|topic| topic.starts_with("__")) {
        return invalid("errors.deadletterqueue.topic.name: DLQ topic name must not start with '__'".into());
    }
    Ok(())
}

/// The two group settings whose largest value has a name of its own.
fn group_most(config: &Config, name: &str) -> Option<i64> {
    match name {
        "streams.num.standby.replicas" => config.value("group.streams.max.standby.replicas").whole(),
        "streams.num.warmup.replicas" => config.value("group.streams.max.warmup.replicas").whole(),
        _ => None,
    }
}

/// Whether a client metrics subscription may have these settings.
pub fn check_client_metrics<'a>(name: &str, settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(invalid_request("Subscription name can't be empty"));
    }
    for (key, text) in settings {
        let setting = table::find(Scope::ClientMetrics, key);
        let setting = setting.ok_or_else(|| invalid_request(format!("Unknown client metrics configuration: {key}")))?;
        let value = value::parse(setting, text).map_err(|error| Refusal::new(ErrorCode::InvalidConfig, error.message))?;
        match (key, value) {
            ("interval.ms", value) if !value.whole().is_some_and(|interval_ms| (100..=3_600_000).contains(&interval_ms)) => {
                return Err(invalid_request(format!(
                    "Invalid value {} for {key}, interval must be between 100 and 3600000 (1 hour)",
                    text.trim()
                )));
            }
            ("match", value::Value::List(patterns)) => patterns.iter().try_for_each(|pattern| check_selector(pattern))?,
            _ => {}
        }
    }
    Ok(())
}

fn check_selector(pattern: &str) -> Result<(), Refusal> {
    let legal = pattern
        .split_once('=')
        .is_some_and(|(selector, expression)| CLIENT_SELECTORS.contains(&selector.trim()) && Regex::new(expression.trim()).is_ok());
    match legal {
        true => Ok(()),
        false => Err(Refusal::new(ErrorCode::InvalidConfig, format!("Illegal client matching pattern: {pattern}"))),
    }
}

fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Sources;

    fn set(name: &str, text: &str) -> (Str, SettingChange) {
        (Str::from(name), SettingChange::Set(Str::from(text)))
    }

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, text)| (Arc::from(*name), Arc::from(*text))).collect()
    }

    fn judge(here: bool, changes: &[(Str, SettingChange)]) -> Result<(), String> {
        let arguments = vec![("num.io.threads".to_owned(), "4".to_owned())];
        let config = Config::load(&Sources { arguments, ..Sources::default() }).unwrap().config;
        let told = |refusal: Refusal| format!("{:?} {}", refusal.code, refusal.message.unwrap_or_default());
        check_broker(&config, here, &proposed(&ConfigMap::new(), changes).map_err(told)?).map_err(told)
    }

    /// The cases were played to Apache Kafka 4.4.0; `here` is broker 1, else the name was empty.
    #[test]
    fn broker_settings_change_as_kafka_lets_them() {
        for (here, name, text) in [
            (false, "message.max.bytes", "5"),
            (true, "unknown.key", "5"),
            (false, "num.io.threads", "8"),
            (true, "listener.name.plaintext.ssl.keystore.location", "/x"),
            (false, "listener.name.plaintext.max.connections", "5"),
            (false, "leader.replication.throttled.rate", "100"),
            (false, "min.insync.replicas", "2"),
        ] {
            assert_eq!(judge(here, &[set(name, text)]), Ok(()), "{name}");
        }
        for (here, name, text, refusal) in [
            (true, "node.id", "5", "InvalidRequest Cannot update these configs dynamically: [node.id]"),
            (
                false,
                "cordoned.log.dirs",
                "/x",
                "InvalidRequest Cannot update these configs at default cluster level, broker id must be specified: [cordoned.log.dirs]",
            ),
            (
                false,
                "message.max.bytes",
                "abc",
                "InvalidRequest Invalid value abc for configuration message.max.bytes: Not a number of type INT",
            ),
            (
                false,
                "num.io.threads",
                "100",
                "InvalidRequest Dynamic thread count update validation failed for num.io.threads=100, value should not be greater than \
                 double the current value 4",
            ),
            (
                false,
                "num.io.threads",
                "1",
                "InvalidRequest Dynamic thread count update validation failed for num.io.threads=1, value should be at least half the \
                 current value 4",
            ),
            (
                true,
                "ssl.keystore.location",
                "/x",
                "InvalidRequest These security configs can be dynamically updated only per-listener using the listener prefix: \
                 [ssl.keystore.location]",
            ),
            (
                false,
                "listener.name.plaintext.ssl.keystore.location",
                "/x",
                "InvalidRequest Cannot update these configs at default cluster level, broker id must be specified: \
                 [listener.name.plaintext.ssl.keystore.location]",
            ),
            (false, "log.retention.ms", "0", "InvalidRequest log.retention.ms=0 must be unlimited (-1) or at least 1"),
            (
                false,
                "max.connections.per.ip",
                "0",
                "InvalidRequest max.connections.per.ip=0 is allowed only together with max.connections.per.ip.overrides",
            ),
            (
                false,
                "group.consumer.assignment.interval.ms",
                "99999",
                "InvalidRequest group.consumer.assignment.interval.ms=99999 must not be more than \
                 group.consumer.max.assignment.interval.ms=15000",
            ),
            (
                false,
                "log.cleaner.threads",
                "50",
                "InvalidRequest Log cleaner threads cannot be increased to more than double the current value 1",
            ),
            (true, "listeners", "PLAINTEXT://:1", "InvalidRequest Corelane cannot update these configs dynamically yet: [listeners]"),
        ] {
            assert_eq!(judge(here, &[set(name, text)]), Err(refusal.to_owned()));
        }
    }

    #[test]
    fn only_lists_are_appended_to() {
        let change = |name: &str, change: SettingChange| proposed(&map(&[("log.cleanup.policy", "delete")]), &[(Str::from(name), change)]);
        let append = |items: &str| SettingChange::Append(Str::from(items));
        assert_eq!(change("log.cleanup.policy", append("compact,delete")).unwrap()["log.cleanup.policy"], "delete,compact");
        let gone = change("log.cleanup.policy", SettingChange::Subtract(Str::from("delete"))).unwrap();
        assert_eq!(gone["log.cleanup.policy"], "");
        let refusal = change("message.max.bytes", append("5")).unwrap_err();
        assert_eq!(refusal.message.unwrap(), "Config value append is not allowed for config key: message.max.bytes");
        assert_eq!(change("unknownlist", append("5")).unwrap_err().message.unwrap(), "Unknown config name: unknownlist");
    }

    /// The cases were played to Apache Kafka 4.4.0.
    #[test]
    fn groups_keep_within_what_the_broker_allows() {
        let config = Config::default();
        let judge = |name: &str, text: &str| check_group(&config, &map(&[(name, text)])).map_err(|error| error.message);
        assert_eq!(judge("consumer.session.timeout.ms", "50000"), Ok(()));
        assert_eq!(judge("streams.assignor.name", "sticky"), Ok(()));
        for (name, text, message) in [
            ("foo", "1", "Unknown group config name: foo"),
            ("consumer.session.timeout.ms", "1000", "consumer.session.timeout.ms must be in the range 45000 to 60000 inclusive."),
            ("share.delivery.count.limit", "50", "share.delivery.count.limit must be in the range 2 to 10 inclusive."),
            ("streams.num.standby.replicas", "5", "streams.num.standby.replicas must be less than or equal to 2"),
            (
                "streams.assignor.name",
                "x",
                "streams.assignor.name 'x' is not a registered task assignor. Registered assignors are: [sticky].",
            ),
            ("streams.rack.aware.assignment.tags", "a,a", "streams.rack.aware.assignment.tags must not contain duplicate tag keys."),
            (
                "consumer.heartbeat.interval.ms",
                "x",
                "Invalid value x for configuration consumer.heartbeat.interval.ms: Not a number of type INT",
            ),
            ("errors.deadletterqueue.topic.name", "__x", "errors.deadletterqueue.topic.name: DLQ topic name must not start with '__'"),
        ] {
            assert_eq!(judge(name, text), Err(message.to_owned()));
        }
    }

    /// The cases were played to Apache Kafka 4.4.0.
    #[test]
    fn subscriptions_are_judged_as_kafka_judges_them() {
        let judge = |name: &str, text: &str| {
            check_client_metrics("m", [(name, text)]).map_err(|refusal| format!("{:?} {}", refusal.code, refusal.message.unwrap()))
        };
        assert_eq!(judge("match", "client_id=a.*,client_software_name=x"), Ok(()));
        for (name, text, refusal) in [
            ("interval.ms", "5", "InvalidRequest Invalid value 5 for interval.ms, interval must be between 100 and 3600000 (1 hour)"),
            ("foo", "1", "InvalidRequest Unknown client metrics configuration: foo"),
            ("match", "foo=bar", "InvalidConfig Illegal client matching pattern: foo=bar"),
            ("match", "client_id=[", "InvalidConfig Illegal client matching pattern: client_id=["),
        ] {
            assert_eq!(judge(name, text), Err(refusal.to_owned()));
        }
        assert!(check_client_metrics("", []).is_err());
    }
}
