//! Share groups (KIP-932), their coordinator and their dead-letter topics.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Session timeout of a share-group member (KIP-932).
    "group.share.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Later;

    /// Smallest value that a group may give `share.session.timeout.ms`.
    "group.share.min.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Later;

    /// Largest value that a group may give `share.session.timeout.ms`.
    "group.share.max.session.timeout.ms": Int = "60000", AtLeast(1), ReadOnly, Later;

    /// Heartbeat interval told to a share-group member.
    "group.share.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Later;

    /// Smallest value that a group may give `share.heartbeat.interval.ms`.
    "group.share.min.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Later;

    /// Largest value that a group may give `share.heartbeat.interval.ms`.
    "group.share.max.heartbeat.interval.ms": Int = "15000", AtLeast(1), ReadOnly, Later;

    /// Members of a share group.
    "group.share.max.size": Int = "200", Between(1, 1000), ReadOnly, Later;

    /// The share assignor. Built in: `simple`.
    "group.share.assignors": List = "simple", Items(NotEmpty), ReadOnly, Later;

    /// Shortest time between two share assignments.
    "group.share.assignment.interval.ms": Int = "1000", AtLeast(0), Cluster, Later;

    /// Smallest value that a group may give `share.assignment.interval.ms`.
    "group.share.min.assignment.interval.ms": Int = "0", AtLeast(0), ReadOnly, Later;

    /// Largest value that a group may give `share.assignment.interval.ms`.
    "group.share.max.assignment.interval.ms": Int = "15000", AtLeast(0), ReadOnly, Later;

    /// Make a share group's dead-letter topic when it is missing (KIP-1191).
    "errors.deadletterqueue.auto.create.topics.enable": Boolean = "false", Any, Cluster, Later;

    /// How the name of a dead-letter topic must begin.
    "errors.deadletterqueue.topic.name.prefix": String = "dlq.", Any, Cluster, Later;

    /// Deliveries after which a record is archived.
    "group.share.delivery.count.limit": Int = "5", Between(2, 10), ReadOnly, Later;

    /// Largest value that a group may give `share.delivery.count.limit`.
    "group.share.max.delivery.count.limit": Int = "10", Between(5, 25), ReadOnly, Later;

    /// Smallest value that a group may give `share.delivery.count.limit`.
    "group.share.min.delivery.count.limit": Int = "2", Between(2, 5), ReadOnly, Later;

    /// How long an acquired record stays locked for its consumer.
    "group.share.record.lock.duration.ms": Int = "30000", Between(1000, 3_600_000), ReadOnly, Later;

    /// Smallest value that a group may give `share.record.lock.duration.ms`.
    "group.share.min.record.lock.duration.ms": Int = "15000", Between(1000, 30_000), ReadOnly, Later;

    /// Largest value that a group may give `share.record.lock.duration.ms`.
    "group.share.max.record.lock.duration.ms": Int = "60000", Between(30_000, 3_600_000), ReadOnly, Later;

    /// Records of one share-partition that may be in flight.
    "group.share.partition.max.record.locks": Int = "2000", Between(100, 10_000), ReadOnly, Later;

    /// Largest value that a group may give `share.partition.max.record.locks`.
    "group.share.max.partition.max.record.locks": Int = "4000", Between(2000, 10_000), ReadOnly, Later;

    /// Smallest value that a group may give `share.partition.max.record.locks`.
    "group.share.min.partition.max.record.locks": Int = "100", Between(100, 2000), ReadOnly, Later;

    /// Clean-up rhythm of waiting share fetches in Kafka.
    "share.fetch.purgatory.purge.interval.requests": Int = "1000", Any, ReadOnly, Ignored;

    /// Share sessions on this broker, else SHARE_SESSION_LIMIT_REACHED.
    "group.share.max.share.sessions": Int = "2000", AtLeast(1), ReadOnly, Later;

    /// Partitions of `__share_group_state`.
    "share.coordinator.state.topic.num.partitions": Int = "50", AtLeast(1), ReadOnly, Later;

    /// Replicas of `__share_group_state`.
    "share.coordinator.state.topic.replication.factor": Short = "3", AtLeast(1), ReadOnly, Later;

    /// `min.insync.replicas` of `__share_group_state`.
    "share.coordinator.state.topic.min.isr": Short = "2", AtLeast(1), ReadOnly, Later;

    /// Segment size of `__share_group_state`.
    "share.coordinator.state.topic.segment.bytes": Int = "104857600", AtLeast(1), ReadOnly, Later;

    /// Share-coordinator threads.
    "share.coordinator.threads": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Update records between two snapshot records of a share-partition.
    "share.coordinator.snapshot.update.records.per.snapshot": Int = "500", Between(0, 500), ReadOnly, Later;

    /// Bytes read at a time when the share coordinator loads its partition.
    "share.coordinator.load.buffer.size": Int = "5242880", AtLeast(1), ReadOnly, Later;

    /// Codec of the share coordinator's batches: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    "share.coordinator.state.topic.compression.codec": Int = "0", Any, ReadOnly, Later;

    /// How long the share coordinator gathers records for one write; -1 adapts.
    "share.coordinator.append.linger.ms": Int = "-1", AtLeast(-1), ReadOnly, Later;

    /// How long a write of share state may wait for replication.
    "share.coordinator.write.timeout.ms": Int = "5000", AtLeast(1), ReadOnly, Later;

    /// Largest write buffer that Kafka keeps for reuse.
    "share.coordinator.cached.buffer.max.bytes": Int = "1048588", AtLeast(512 * KIB), Cluster, Ignored;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Run the share assignor on a thread of its own.
    "group.share.assignor.offload.enable": Boolean = "true", Any, Cluster, Ignored;

    /// How often a failed initialisation of share state is tried again.
    "group.share.initialize.retry.interval.ms": Int = "30000", AtLeast(1), ReadOnly, Later;

    /// Java class that keeps share state.
    "group.share.persister.class.name": String = "org.apache.kafka.server.share.persister.DefaultStatePersister", Any, ReadOnly, Ignored;

    /// Java class that writes dead-letter topics.
    "group.share.dlq.manager.class.name": String = "org.apache.kafka.server.share.dlq.DefaultShareGroupDLQManager", Any, ReadOnly, Ignored;

    /// How often obsolete share-state records are deleted.
    "share.coordinator.state.topic.prune.interval.ms": Int = "300000", AtLeast(1), ReadOnly, Later;

    /// How often idle share-partitions get a snapshot.
    "share.coordinator.cold.partition.snapshot.interval.ms": Int = "300000", AtLeast(1), ReadOnly, Later;
};
