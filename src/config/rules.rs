//! The table of settings as the controller's decisions ask for it, and the broker's settings as the cluster's metadata changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alter;
use super::broker::Config;
use super::describe;
use super::table::{self, Kind, Scope};
use super::topic::TopicSettings;
use super::value::Value;
use crate::cluster::decide::{EffectiveSetting, SettingRules};
use crate::cluster::image::{ConfigMap, ConfigResourceType, Image};

impl Config {
    /// This configuration as the metadata alters it, for all brokers and for this one. None: it already is.
    ///
    /// What the metadata holds and may not count here is left out, and said in the second part.
    pub fn following(&self, image: &Image) -> Option<(Config, Vec<String>)> {
        let none = Arc::default();
        let altered = |name: &str| image.config(ConfigResourceType::Broker, name).unwrap_or(&none).clone();
        let (for_all, here) = (altered(""), altered(&self.node_id().to_string()));
        if same(&for_all, self.altered_for_all()) && same(&here, self.altered_here()) {
            return None;
        }
        Some(self.altered(pairs(&for_all), pairs(&here)))
    }
}

fn same(wanted: &ConfigMap, present: &BTreeMap<String, String>) -> bool {
    pairs(wanted).eq(present.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

fn pairs(map: &ConfigMap) -> impl Iterator<Item = (&str, &str)> + Clone {
    map.iter().map(|(name, text)| (&**name, &**text))
}

fn scope(kind: ConfigResourceType) -> Option<Scope> {
    match kind {
        ConfigResourceType::Topic => Some(Scope::Topic),
        ConfigResourceType::Broker => Some(Scope::Broker),
        ConfigResourceType::Group => Some(Scope::Group),
        ConfigResourceType::ClientMetrics => Some(Scope::ClientMetrics),
        ConfigResourceType::BrokerLogger => None,
    }
}

impl SettingRules for Config {
    fn partitions_default(&self) -> i32 {
        self.num_partitions()
    }

    fn replication_factor_default(&self) -> i16 {
        i16::try_from(self.default_replication_factor()).unwrap_or(i16::MAX)
    }

    fn topics_may_be_deleted(&self) -> bool {
        self.delete_topic_enable()
    }

    fn min_insync_replicas_default(&self) -> i32 {
        let given = self.given().get("min.insync.replicas").and_then(|given| given.value.trim().parse().ok());
        given.unwrap_or(TopicSettings::default().min_insync_replicas)
    }

    fn check(&self, kind: ConfigResourceType, settings: &ConfigMap) -> Result<(), String> {
        match kind {
            ConfigResourceType::Topic => TopicSettings::validate(pairs(settings), self).map(drop).map_err(|error| error.message),
            ConfigResourceType::Group => alter::check_group(self, settings).map_err(|error| error.message),
            // A broker judges its own settings, and a subscription's, before it asks the controller (api::configs).
            ConfigResourceType::Broker | ConfigResourceType::BrokerLogger | ConfigResourceType::ClientMetrics => Ok(()),
        }
    }

    /// Lists of groups and subscriptions cannot be appended to in Kafka 4.4.
    fn is_list(&self, kind: ConfigResourceType, key: &str) -> bool {
        let kind_has_lists = matches!(kind, ConfigResourceType::Topic | ConfigResourceType::Broker);
        let setting = scope(kind).and_then(|scope| table::find(scope, key));
        kind_has_lists && setting.is_some_and(|setting| setting.kind == Kind::List)
    }

    fn default_text(&self, kind: ConfigResourceType, key: &str) -> Option<String> {
        let setting = table::find(scope(kind)?, key)?;
        let value: Value = match kind {
            ConfigResourceType::Topic => self.topic_default(setting),
            ConfigResourceType::Group => self.group_default(setting),
            _ => return setting.default_text().map(str::to_owned),
        };
        value.text()
    }

    fn effective_topic_settings(&self, image: &Image, overrides: &ConfigMap) -> Vec<EffectiveSetting> {
        let entries = match self.following(image) {
            Some((config, _)) => describe::topic(&config, overrides),
            None => describe::topic(self, overrides),
        };
        let effective = |entry: describe::Entry| EffectiveSetting {
            source: entry.source.code(),
            is_sensitive: entry.sensitive,
            is_read_only: entry.read_only,
            name: entry.name,
            value: entry.value,
        };
        entries.into_iter().map(effective).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetadataRecord;
    use crate::wire::Str;
    use crate::wire::records::ConfigRecord;

    fn image(broker: &str, name: &str, text: &str) -> Image {
        let mut image = Image::empty();
        let record = ConfigRecord {
            resource_type: ConfigResourceType::Broker.code(),
            resource_name: Str::from(broker),
            name: Str::from(name),
            value: Some(Str::from(text)),
            ..Default::default()
        };
        image.apply(&MetadataRecord::from(record)).expect("applies");
        image
    }

    #[test]
    fn a_broker_follows_the_metadata() {
        let config = Config::default();
        assert!(config.following(&Image::empty()).is_none());
        let all = image("", "message.max.bytes", "5000");
        let (altered, rejected) = config.following(&all).unwrap();
        assert_eq!((altered.message_max_bytes(), altered.topic_defaults().max_message_bytes, rejected.len()), (5000, 5000, 0));
        assert!(altered.following(&all).is_none());
        let (here, _) = altered.following(&image("1", "message.max.bytes", "6000")).unwrap();
        assert_eq!(here.message_max_bytes(), 6000);
        assert!(config.following(&image("2", "message.max.bytes", "6000")).is_none(), "another broker's");
        let (unmoved, rejected) = config.following(&image("", "node.id", "9")).unwrap();
        assert_eq!((unmoved.node_id(), rejected), (1, vec!["node.id may not be altered at run time".to_owned()]));
    }

    #[test]
    fn the_controller_hears_what_the_table_says() {
        let config = Config::default();
        let policy = ConfigMap::from([(Arc::from("cleanup.policy"), Arc::from("foo"))]);
        let message = "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete";
        assert_eq!(config.check(ConfigResourceType::Topic, &policy), Err(message.to_owned()));
        assert!(config.is_list(ConfigResourceType::Topic, "cleanup.policy") && !config.is_list(ConfigResourceType::Topic, "foo"));
        assert!(!config.is_list(ConfigResourceType::Group, "streams.rack.aware.assignment.tags"));
        assert_eq!(config.default_text(ConfigResourceType::Topic, "cleanup.policy").as_deref(), Some("delete"));
        let settings = config.effective_topic_settings(&image("", "message.max.bytes", "5000"), &ConfigMap::new());
        let size = settings.iter().find(|setting| setting.name == "max.message.bytes").unwrap();
        assert_eq!((size.value.as_deref(), size.source), (Some("5000"), 3));
    }
}
