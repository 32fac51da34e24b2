//! The settings of one topic, typed: what the log, the produce path and the upkeep read.
//!
//! The table (`table/topic.rs`) knows every key as text with its rule; here each has a Rust type. A topic that overrides nothing
//! takes the broker's synonym of each key, and where the broker says nothing either, Kafka's default. `flush.messages` alone differs:
//! 1 instead of "never", because an acknowledgement means "on stable storage" here (ARCHITECTURE.md, durability classes).

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
