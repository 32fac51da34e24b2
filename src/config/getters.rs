//! The broker's settings with a Rust type, for those that read them. A setting gets its line here when somebody needs it.

use super::broker::Config;
use super::table::broker_position;
use super::value::Value;

/// A line of getters: `name: type = "setting";`. A wrong name is a compile error, a wrong type fails the test below.
macro_rules! getters {
    ($($name:ident: $type:ty = $key:literal;)*) => {
        impl Config {
            $(
                #[doc = concat!("`", $key, "`")]
                pub fn $name(&self) -> $type {
                    const POSITION: usize = broker_position($key);
                    FromValue::from_value(&self.values[POSITION])
                }
            )*

            #[cfg(test)]
            fn call_every_getter(&self) {
                $(let _ = self.$name();)*
            }
        }
    };
}

getters! {
    advertised_listeners: &[String] = "advertised.listeners";
    auto_create_topics_enable: bool = "auto.create.topics.enable";
    bound_listeners: &[String] = "listeners";
    broker_rack: Option<&str> = "broker.rack";
    connection_frame_timeout_ms: i32 = "connection.frame.timeout.ms";
    connection_move_enable: bool = "connection.move.enable";
    connection_produce_inflight_max: i32 = "connection.produce.inflight.max";
    connection_queued_bytes_max: i64 = "connection.queued.bytes.max";
    connections_max_idle_ms: i64 = "connections.max.idle.ms";
    controller_listener_names: &[String] = "controller.listener.names";
    controller_quorum_bootstrap_servers: &[String] = "controller.quorum.bootstrap.servers";
    controller_quorum_voters: &[String] = "controller.quorum.voters";
    default_replication_factor: i32 = "default.replication.factor";
    delete_topic_enable: bool = "delete.topic.enable";
    fetch_max_bytes: i32 = "fetch.max.bytes";
    group_consumer_assignment_interval_ms: i32 = "group.consumer.assignment.interval.ms";
    group_consumer_assignors: &[String] = "group.consumer.assignors";
    group_consumer_heartbeat_interval_ms: i32 = "group.consumer.heartbeat.interval.ms";
    group_consumer_max_size: i32 = "group.consumer.max.size";
    group_consumer_migration_policy: &str = "group.consumer.migration.policy";
    group_consumer_regex_refresh_interval_ms: i32 = "group.consumer.regex.refresh.interval.ms";
    group_consumer_session_timeout_ms: i32 = "group.consumer.session.timeout.ms";
    group_coordinator_rebalance_protocols: &[String] = "group.coordinator.rebalance.protocols";
    group_initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms";
    group_max_session_timeout_ms: i32 = "group.max.session.timeout.ms";
    group_max_size: i32 = "group.max.size";
    group_min_session_timeout_ms: i32 = "group.min.session.timeout.ms";
    journal_bytes: i64 = "journal.bytes";
    journal_dir: Option<&str> = "journal.dir";
    latency_trace_file: Option<&str> = "latency.trace.file";
    listener_security_protocol_map: &str = "listener.security.protocol.map";
    log_cleaner_backoff_ms: i64 = "log.cleaner.backoff.ms";
    log_cleaner_dedupe_buffer_size: i64 = "log.cleaner.dedupe.buffer.size";
    log_cleaner_enable: bool = "log.cleaner.enable";
    log_cleaner_io_buffer_load_factor: f64 = "log.cleaner.io.buffer.load.factor";
    log_cleaner_io_max_bytes_per_second: f64 = "log.cleaner.io.max.bytes.per.second";
    log_cleaner_threads: i32 = "log.cleaner.threads";
    log_flush_offset_checkpoint_interval_ms: i32 = "log.flush.offset.checkpoint.interval.ms";
    log_flush_start_offset_checkpoint_interval_ms: i32 = "log.flush.start.offset.checkpoint.interval.ms";
    log_format: &str = "log.format";
    log_initial_task_delay_ms: i64 = "log.initial.task.delay.ms";
    log_level: &str = "log.level";
    log_retention_check_interval_ms: i64 = "log.retention.check.interval.ms";
    max_connection_creation_rate: i32 = "max.connection.creation.rate";
    max_connections: i32 = "max.connections";
    max_connections_per_ip: i32 = "max.connections.per.ip";
    max_decompressed_message_bytes: i32 = "max.decompressed.message.bytes";
    max_incremental_fetch_session_cache_slots: i32 = "max.incremental.fetch.session.cache.slots";
    max_request_partition_size_limit: i32 = "max.request.partition.size.limit";
    message_max_bytes: i32 = "message.max.bytes";
    metadata_log_dir: Option<&str> = "metadata.log.dir";
    metadata_log_max_record_bytes_between_snapshots: i64 = "metadata.log.max.record.bytes.between.snapshots";
    metadata_log_max_snapshot_interval_ms: i64 = "metadata.log.max.snapshot.interval.ms";
    metadata_log_segment_bytes: i32 = "metadata.log.segment.bytes";
    metadata_log_segment_ms: i64 = "metadata.log.segment.ms";
    metadata_max_retention_bytes: i64 = "metadata.max.retention.bytes";
    metadata_max_retention_ms: i64 = "metadata.max.retention.ms";
    min_insync_replicas: i32 = "min.insync.replicas";
    node_id: i32 = "node.id";
    num_partitions: i32 = "num.partitions";
    offset_metadata_max_bytes: i32 = "offset.metadata.max.bytes";
    offsets_commit_timeout_ms: i32 = "offsets.commit.timeout.ms";
    offsets_load_buffer_size: i32 = "offsets.load.buffer.size";
    offsets_retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms";
    offsets_retention_minutes: i32 = "offsets.retention.minutes";
    offsets_topic_compression_codec: i32 = "offsets.topic.compression.codec";
    offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions";
    offsets_topic_replication_factor: i16 = "offsets.topic.replication.factor";
    offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes";
    poll_idle_us: i32 = "poll.idle.us";
    process_roles: &[String] = "process.roles";
    producer_id_expiration_check_interval_ms: i32 = "producer.id.expiration.check.interval.ms";
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms";
    queued_max_request_bytes: i64 = "queued.max.request.bytes";
    replica_alter_log_dirs_io_max_bytes_per_second: i64 = "replica.alter.log.dirs.io.max.bytes.per.second";
    replica_high_watermark_checkpoint_interval_ms: i64 = "replica.high.watermark.checkpoint.interval.ms";
    shard_queued_bytes_max: i64 = "shard.queued.bytes.max";
    shard_tail_cache_bytes: i64 = "shard.tail.cache.bytes";
    shards: Option<i32> = "shards";
    socket_listen_backlog_size: i32 = "socket.listen.backlog.size";
    socket_receive_buffer_bytes: i32 = "socket.receive.buffer.bytes";
    socket_request_max_bytes: i32 = "socket.request.max.bytes";
    socket_send_buffer_bytes: i32 = "socket.send.buffer.bytes";
    socket_tcp_congestion_control: Option<&str> = "socket.tcp.congestion.control";
    add_partitions_to_txn_retry_backoff_max_ms: i32 = "add.partitions.to.txn.retry.backoff.max.ms";
    transaction_abort_timed_out_transaction_cleanup_interval_ms: i32 =
        "transaction.abort.timed.out.transaction.cleanup.interval.ms";
    transaction_max_timeout_ms: i32 = "transaction.max.timeout.ms";
    transaction_partition_verification_enable: bool = "transaction.partition.verification.enable";
    transaction_remove_expired_transaction_cleanup_interval_ms: i32 =
        "transaction.remove.expired.transaction.cleanup.interval.ms";
    transaction_state_log_load_buffer_size: i32 = "transaction.state.log.load.buffer.size";
    transaction_state_log_min_isr: i32 = "transaction.state.log.min.isr";
    transaction_state_log_num_partitions: i32 = "transaction.state.log.num.partitions";
    transaction_state_log_replication_factor: i16 = "transaction.state.log.replication.factor";
    transaction_state_log_segment_bytes: i32 = "transaction.state.log.segment.bytes";
    transactional_id_expiration_ms: i32 = "transactional.id.expiration.ms";
}

/// A value as the type of its getter. The row's type decides which values there can be.
trait FromValue<'a> {
    fn from_value(value: &'a Value) -> Self;
}

macro_rules! from_value {
    ($($variant:ident: $type:ty;)*) => {
        $(
            impl<'a> FromValue<'a> for $type {
                fn from_value(value: &'a Value) -> $type {
                    match value {
                        Value::$variant(value) => *value,
                        other => unreachable!("a getter's type is not its row's: {other:?}"),
                    }
                }
            }
        )*
    };
}

from_value! {
    Boolean: bool;
    Int: i32;
    Short: i16;
    Long: i64;
    Double: f64;
}

impl<'a> FromValue<'a> for &'a str {
    fn from_value(value: &'a Value) -> &'a str {
        match value {
            Value::Text(text) => text,
            other => unreachable!("a getter's type is not its row's: {other:?}"),
        }
    }
}

/// An absent list is an empty one.
impl<'a> FromValue<'a> for &'a [String] {
    fn from_value(value: &'a Value) -> &'a [String] {
        match value {
            Value::List(items) => items,
            Value::Null => &[],
            other => unreachable!("a getter's type is not its row's: {other:?}"),
        }
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(value: &'a Value) -> Option<T> {
        match value {
            Value::Null => None,
            value => Some(T::from_value(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_getter_has_the_type_of_its_row() {
        Config::default().call_every_getter();
    }
}
