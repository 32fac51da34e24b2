//! The group coordinator: committed offsets, classic groups, consumer-protocol groups.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Enabled group protocols; `classic` cannot be left out.
    "group.coordinator.rebalance.protocols": List = "classic,consumer,streams", ItemsOf(&["consumer", "classic", "share", "streams"], NotEmpty), ReadOnly, Works;

    /// Coordinator threads. Here groups are spread over the shards.
    "group.coordinator.threads": Int = "4", AtLeast(1), ReadOnly, Ignored;

    /// Threads for regular expressions and offloaded assignments.
    "group.coordinator.background.threads": Int = "2", AtLeast(1), ReadOnly, Ignored;

    /// How long the coordinator gathers records for one write; -1 adapts.
    "group.coordinator.append.linger.ms": Int = "-1", AtLeast(-1), ReadOnly, Later;

    /// How long a coordinator's write may wait for replication before REQUEST_TIMED_OUT.
    "offsets.commit.timeout.ms": Int = "5000", AtLeast(1), ReadOnly, Works;

    /// Bytes read at a time when a coordinator loads its partition.
    "offsets.load.buffer.size": Int = "5242880", AtLeast(1), ReadOnly, Works;

    /// Replicas of `__consumer_offsets`; it cannot be made while there are fewer brokers.
    "offsets.topic.replication.factor": Short = "3", AtLeast(1), ReadOnly, Works;

    /// Partitions of `__consumer_offsets`; a group's id picks one, and its leader coordinates the group. Never
    /// change it later.
    "offsets.topic.num.partitions": Int = "50", AtLeast(1), ReadOnly, Works;

    /// Segment size of `__consumer_offsets`; small, so that compaction and loading are quick.
    "offsets.topic.segment.bytes": Int = "104857600", AtLeast(1), ReadOnly, Works;

    /// Codec of the coordinator's batches: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    "offsets.topic.compression.codec": Int = "0", Any, ReadOnly, Later;

    /// Largest write buffer that Kafka keeps for reuse.
    "group.coordinator.cached.buffer.max.bytes": Int = "1048588", AtLeast(512 * KIB), Cluster, Ignored;

    /// Longest text with a committed offset, else OFFSET_METADATA_TOO_LARGE.
    "offset.metadata.max.bytes": Int = "4096", Any, ReadOnly, Works;

    /// How long the offsets of an empty group, or of a topic that its group left, are kept.
    "offsets.retention.minutes": Int = "10080", AtLeast(1), ReadOnly, Works;

    /// How often expired offsets are looked for.
    "offsets.retention.check.interval.ms": Long = "600000", AtLeast(1), ReadOnly, Works;

    /// Shortest session timeout in JoinGroup, else INVALID_SESSION_TIMEOUT.
    "group.min.session.timeout.ms": Int = "6000", Any, ReadOnly, Works;

    /// Longest session timeout in JoinGroup, else INVALID_SESSION_TIMEOUT.
    "group.max.session.timeout.ms": Int = "1800000", Any, ReadOnly, Works;

    /// How long a new classic group waits for more members before its first assignment.
    "group.initial.rebalance.delay.ms": Int = "3000", Any, ReadOnly, Works;

    /// Members of a classic group, else GROUP_MAX_SIZE_REACHED.
    "group.max.size": Int = "2147483647", AtLeast(1), ReadOnly, Works;

    /// Session timeout of a consumer-protocol member (KIP-848).
    "group.consumer.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Works;

    /// Smallest value that a group may give `consumer.session.timeout.ms`.
    "group.consumer.min.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Works;

    /// Largest value that a group may give `consumer.session.timeout.ms`.
    "group.consumer.max.session.timeout.ms": Int = "60000", AtLeast(1), ReadOnly, Works;

    /// Heartbeat interval told to a consumer-protocol member.
    "group.consumer.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Works;

    /// Smallest value that a group may give `consumer.heartbeat.interval.ms`.
    "group.consumer.min.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Works;

    /// Largest value that a group may give `consumer.heartbeat.interval.ms`.
    "group.consumer.max.heartbeat.interval.ms": Int = "15000", AtLeast(1), ReadOnly, Works;

    /// Members of a consumer-protocol group, else GROUP_MAX_SIZE_REACHED.
    "group.consumer.max.size": Int = "2147483647", AtLeast(1), ReadOnly, Works;

    /// Server-side assignors, the first is the default. Built in: `uniform`, `range`.
    "group.consumer.assignors": List = "uniform,range", Items(NotEmpty), ReadOnly, Works;

    /// Which conversions between classic and consumer groups are allowed: `disabled`, `upgrade`, `downgrade`,
    /// `bidirectional`.
    "group.consumer.migration.policy": String = "bidirectional", OneOfAnyCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), ReadOnly, Works;

    /// Shortest time between two target assignments (KIP-1263).
    "group.consumer.assignment.interval.ms": Int = "1000", AtLeast(0), Cluster, Works;

    /// Smallest value that a group may give `consumer.assignment.interval.ms`.
    "group.consumer.min.assignment.interval.ms": Int = "0", AtLeast(0), ReadOnly, Works;

    /// Largest value that a group may give `consumer.assignment.interval.ms`.
    "group.consumer.max.assignment.interval.ms": Int = "15000", AtLeast(0), ReadOnly, Works;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Run assignors on a thread of their own.
    "group.consumer.assignor.offload.enable": Boolean = "true", Any, Cluster, Ignored;

    /// How often subscribed regular expressions are resolved anew.
    "group.consumer.regex.refresh.interval.ms": Int = "600000", AtLeast(10_000), ReadOnly, Works;
};
