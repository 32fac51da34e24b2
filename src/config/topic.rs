//! The settings of one topic, typed: what the log, the produce path and the upkeep read.
//!
//! The table (`table/topic.rs`) knows every key as text with its rule; here each has a Rust type. A topic that overrides nothing
//! takes the broker's synonym of each key, and where the broker says nothing either, Kafka's default. `flush.messages` alone differs:
//! 1 instead of "never", because an acknowledgement means "on stable storage" here (ARCHITECTURE.md, durability classes).

use super::broker::Config;
use super::table::{self, Scope};
use super::value::{self, Value};

/// Every topic setting of Kafka 4.4, and `write.caching`. Sizes are bytes, times milliseconds; -1 is "no limit" where Kafka has it so.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSettings {
    pub cleanup_policy: CleanupPolicy,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_type: CompressionType,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub errors_deadletterqueue_group_enable: bool,
    pub file_delete_delay_ms: i64,
    /// 1 = durable before the acknowledgement; more = flushed after this many records.
    pub flush_messages: i64,
    pub flush_ms: i64,
    /// `partition:broker` pairs, or `*`.
    pub follower_replication_throttled_replicas: Vec<String>,
    pub index_interval_bytes: i32,
    /// Kafka's override for its own tests: a segment size below 1 MiB. Wins over `segment_bytes`.
    pub internal_segment_bytes: Option<i32>,
    pub leader_replication_throttled_replicas: Vec<String>,
    pub local_retention_bytes: i64,
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub max_decompressed_message_bytes: i32,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub remote_copy_lag_bytes: i64,
    pub remote_copy_lag_ms: i64,
    pub remote_log_copy_disable: bool,
    pub remote_log_delete_on_disable: bool,
    pub remote_storage_enable: bool,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
    /// Redpanda's name: acknowledged from memory.
    pub write_caching: bool,
}

impl Default for TopicSettings {
    fn default() -> TopicSettings {
        TopicSettings {
            cleanup_policy: CleanupPolicy { compact: false, delete: true },
            compression_gzip_level: -1,
            compression_lz4_level: 9,
            compression_type: CompressionType::Producer,
            compression_zstd_level: 3,
            delete_retention_ms: 86_400_000,
            errors_deadletterqueue_group_enable: false,
            file_delete_delay_ms: 60_000,
            flush_messages: 1,
            flush_ms: i64::MAX,
            follower_replication_throttled_replicas: Vec::new(),
            index_interval_bytes: 4096,
            internal_segment_bytes: None,
            leader_replication_throttled_replicas: Vec::new(),
            local_retention_bytes: -2,
            local_retention_ms: -2,
            max_compaction_lag_ms: i64::MAX,
            max_decompressed_message_bytes: 2_147_483_639,
            max_message_bytes: 1_048_588,
            message_timestamp_after_max_ms: 3_600_000,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_type: TimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            min_insync_replicas: 1,
            preallocate: false,
            remote_copy_lag_bytes: -1,
            remote_copy_lag_ms: 0,
            remote_log_copy_disable: false,
            remote_log_delete_on_disable: false,
            remote_storage_enable: false,
            retention_bytes: -1,
            retention_ms: 604_800_000,
            segment_bytes: 1 << 30,
            segment_index_bytes: 10 << 20,
            segment_jitter_ms: 0,
            segment_ms: 604_800_000,
            unclean_leader_election_enable: false,
            write_caching: false,
        }
    }
}

impl TopicSettings {
    /// The settings of a topic: its overrides over what the broker says.
    pub fn resolve<'a>(overrides: impl IntoIterator<Item = (&'a str, &'a str)>, broker: &Config) -> Result<TopicSettings, InvalidConfig> {
        let mut settings = broker.topic_defaults().clone();
        for (name, text) in overrides {
            let setting = table::find(Scope::Topic, name).ok_or_else(|| unknown(name))?;
            settings.assign(setting.name, &value::parse(setting, text)?);
        }
        Ok(settings)
    }

    /// Whether a topic may have these overrides; the message is Kafka's. Names are checked before values, values in the order of the
    /// table, and last what they mean together.
    pub fn validate<'a>(
        overrides: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>,
        broker: &Config,
    ) -> Result<TopicSettings, InvalidConfig> {
        let overrides = overrides.into_iter();
        if let Some((name, _)) = overrides.clone().find(|(name, _)| table::find(Scope::Topic, name).is_none()) {
            return Err(unknown(name));
        }
        for setting in table::settings(Scope::Topic) {
            if let Some((_, text)) = overrides.clone().find(|(name, _)| *name == setting.name) {
                value::parse(setting, text)?;
            }
        }
        let settings = TopicSettings::resolve(overrides, broker)?;
        if settings.remote_storage_enable {
            let message = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.";
            return Err(InvalidConfig { message: message.into() });
        }
        if settings.min_compaction_lag_ms > settings.max_compaction_lag_ms {
            let message = format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                settings.min_compaction_lag_ms, settings.max_compaction_lag_ms
            );
            return Err(InvalidConfig { message });
        }
        Ok(settings)
    }

    /// Sets the field of a topic setting; its row decides which values there can be.
    pub(super) fn assign(&mut self, name: &str, value: &Value) {
        match name {
            "cleanup.policy" => {
                let policy = list(value);
                let says = |word: &str| policy.iter().any(|item| item == word);
                self.cleanup_policy = CleanupPolicy { compact: says("compact"), delete: says("delete") };
            }
            "compression.gzip.level" => self.compression_gzip_level = int(value),
            "compression.lz4.level" => self.compression_lz4_level = int(value),
            "compression.type" => self.compression_type = CompressionType::parse(text(value)),
            "compression.zstd.level" => self.compression_zstd_level = int(value),
            "delete.retention.ms" => self.delete_retention_ms = long(value),
            "errors.deadletterqueue.group.enable" => self.errors_deadletterqueue_group_enable = boolean(value),
            "file.delete.delay.ms" => self.file_delete_delay_ms = long(value),
            "flush.messages" => self.flush_messages = long(value),
            "flush.ms" => self.flush_ms = long(value),
            "follower.replication.throttled.replicas" => self.follower_replication_throttled_replicas = list(value).to_vec(),
            "index.interval.bytes" => self.index_interval_bytes = int(value),
            "internal.segment.bytes" => self.internal_segment_bytes = value.whole().map(|_| int(value)),
            "leader.replication.throttled.replicas" => self.leader_replication_throttled_replicas = list(value).to_vec(),
            "local.retention.bytes" => self.local_retention_bytes = long(value),
            "local.retention.ms" => self.local_retention_ms = long(value),
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = long(value),
            "max.decompressed.message.bytes" => self.max_decompressed_message_bytes = int(value),
            "max.message.bytes" => self.max_message_bytes = int(value),
            "message.timestamp.after.max.ms" => self.message_timestamp_after_max_ms = long(value),
            "message.timestamp.before.max.ms" => self.message_timestamp_before_max_ms = long(value),
            "message.timestamp.type" => self.message_timestamp_type = TimestampType::parse(text(value)),
            "min.cleanable.dirty.ratio" => self.min_cleanable_dirty_ratio = double(value),
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = long(value),
            "min.insync.replicas" => self.min_insync_replicas = int(value),
            "preallocate" => self.preallocate = boolean(value),
            "remote.copy.lag.bytes" => self.remote_copy_lag_bytes = long(value),
            "remote.copy.lag.ms" => self.remote_copy_lag_ms = long(value),
            "remote.log.copy.disable" => self.remote_log_copy_disable = boolean(value),
            "remote.log.delete.on.disable" => self.remote_log_delete_on_disable = boolean(value),
            "remote.storage.enable" => self.remote_storage_enable = boolean(value),
            "retention.bytes" => self.retention_bytes = long(value),
            "retention.ms" => self.retention_ms = long(value),
            "segment.bytes" => self.segment_bytes = int(value),
            "segment.index.bytes" => self.segment_index_bytes = int(value),
            "segment.jitter.ms" => self.segment_jitter_ms = long(value),
            "segment.ms" => self.segment_ms = long(value),
            "unclean.leader.election.enable" => self.unclean_leader_election_enable = boolean(value),
            "write.caching" => self.write_caching = boolean(value),
            other => unreachable!("the table has a topic setting {other} that has no field"),
        }
    }
}

/// `cleanup.policy`. Neither set: records stay for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub compact: bool,
    pub delete: bool,
}

/// `compression.type`: keep what the producer chose, or recompress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `message.timestamp.type`: the producer's time stays, or the broker's replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl CompressionType {
    fn parse(text: &str) -> CompressionType {
        match text {
            "producer" => CompressionType::Producer,
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            other => unreachable!("the rule of compression.type lets {other} through"),
        }
    }
}

impl TimestampType {
    fn parse(text: &str) -> TimestampType {
        match text {
            "CreateTime" => TimestampType::CreateTime,
            "LogAppendTime" => TimestampType::LogAppendTime,
            other => unreachable!("the rule of message.timestamp.type lets {other} through"),
        }
    }
}

fn boolean(value: &Value) -> bool {
    matches!(value, Value::Boolean(true))
}

fn int(value: &Value) -> i32 {
    i32::try_from(long(value)).expect("an int's row makes ints")
}

fn long(value: &Value) -> i64 {
    value.whole().expect("a number's row makes numbers")
}

fn double(value: &Value) -> f64 {
    match value {
        Value::Double(number) => *number,
        other => unreachable!("a double's row makes doubles, not {other:?}"),
    }
}

fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        other => unreachable!("a string's row makes strings, not {other:?}"),
    }
}

fn list(value: &Value) -> &[String] {
    match value {
        Value::List(items) => items,
        other => unreachable!("a list's row makes lists, not {other:?}"),
    }
}

fn unknown(name: &str) -> InvalidConfig {
    InvalidConfig { message: format!("Unknown topic config name: {name}") }
}

/// A value that a rule of the table forbids. `message` is worded as Kafka words it, for INVALID_CONFIG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    pub message: String,
}

impl std::fmt::Display for InvalidConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for InvalidConfig {}

#[cfg(test)]
mod tests {
    use super::super::sources::Sources;
    use super::super::table::settings;
    use super::*;

    fn broker(arguments: &[(&str, &str)]) -> Config {
        let arguments = arguments.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        Config::load(&Sources { arguments, ..Sources::default() }).unwrap().config
    }

    /// Every row of the table finds its field, and the defaults of the table are those of the struct.
    #[test]
    fn defaults_are_those_of_the_table() {
        let mut settings_of_table = TopicSettings { segment_bytes: 0, retention_ms: 0, ..TopicSettings::default() };
        for setting in settings(Scope::Topic) {
            settings_of_table.assign(setting.name, &value::default(setting));
        }
        assert_eq!(settings_of_table, TopicSettings::default());
        assert_eq!(broker(&[]).topic_defaults(), &TopicSettings::default());
    }

    #[test]
    fn the_brokers_setting_stands_in_for_a_topics() {
        let hours = broker(&[("log.retention.hours", "2"), ("log.roll.hours", "3"), ("log.flush.scheduler.interval.ms", "7")]);
        assert_eq!(hours.topic_defaults().retention_ms, 7_200_000);
        assert_eq!(hours.topic_defaults().segment_ms, 10_800_000);
        assert_eq!(hours.topic_defaults().flush_ms, 7);
        let minutes = broker(&[("log.retention.hours", "2"), ("log.retention.minutes", "5")]);
        assert_eq!(minutes.topic_defaults().retention_ms, 300_000);
        let unlimited = broker(&[("log.retention.ms", "-1"), ("log.retention.minutes", "5")]);
        assert_eq!(unlimited.topic_defaults().retention_ms, -1);
        let compacted = broker(&[("log.cleanup.policy", "compact"), ("compression.type", "zstd")]);
        let settings = TopicSettings::resolve([("compression.type", "lz4")], &compacted).unwrap();
        assert_eq!(settings.cleanup_policy, CleanupPolicy { compact: true, delete: false });
        assert_eq!(settings.compression_type, CompressionType::Lz4);
    }

    /// The messages are those of Apache Kafka 4.4.0.
    #[test]
    fn overrides_are_judged_name_by_name_then_value_by_value_then_together() {
        let broker = broker(&[]);
        for (overrides, message) in [
            (&[("retention.ms", "z"), ("flush.messages", "0"), ("foo", "1")][..], "Unknown topic config name: foo"),
            (
                &[("retention.ms", "z"), ("flush.messages", "0")],
                "Invalid value 0 for configuration flush.messages: Value must be at least 1",
            ),
            (
                &[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")],
                "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
            ),
            (
                &[("remote.storage.enable", "true")],
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
            ),
            (&[("message.format.version", "3.0")], "Unknown topic config name: message.format.version"),
        ] {
            assert_eq!(TopicSettings::validate(overrides.iter().copied(), &broker).unwrap_err().message, message);
        }
        let settings = TopicSettings::validate([("cleanup.policy", ""), ("write.caching", "true")], &broker).unwrap();
        assert_eq!(settings.cleanup_policy, CleanupPolicy { compact: false, delete: false });
        assert!(settings.write_caching);
    }
}
