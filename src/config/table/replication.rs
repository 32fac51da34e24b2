//! Followers, leader elections and the connections among brokers.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Time limit of a request to the controller.
    "controller.socket.timeout.ms": Int = "30000", Any, ReadOnly, Later;

    /// Replicas of a topic that is created without saying how many (automatically, or with -1).
    "default.replication.factor": Int = "1", Any, ReadOnly, Works;

    /// How long a follower may stay behind the log end before it leaves the ISR.
    "replica.lag.time.max.ms": Long = "30000", Any, ReadOnly, Later;

    /// Time limit of a follower's fetch on the socket; at least `replica.fetch.wait.max.ms`.
    "replica.socket.timeout.ms": Int = "30000", Any, ReadOnly, Later;

    /// SO_RCVBUF of follower connections.
    "replica.socket.receive.buffer.bytes": Int = "65536", Any, ReadOnly, Later;

    /// Bytes per partition in a follower's fetch; one batch is always returned.
    "replica.fetch.max.bytes": Int = "1048576", AtLeast(0), ReadOnly, Later;

    /// Longest wait of a follower's fetch; at most `replica.lag.time.max.ms`.
    "replica.fetch.wait.max.ms": Int = "500", Any, ReadOnly, Later;

    /// Pause of a follower after a failed fetch.
    "replica.fetch.backoff.ms": Int = "1000", AtLeast(0), ReadOnly, Later;

    /// Bytes for which a follower's fetch waits.
    "replica.fetch.min.bytes": Int = "1", Any, ReadOnly, Later;

    /// Bytes of a whole answer to a follower's fetch; one batch is always returned.
    "replica.fetch.response.max.bytes": Int = "10485760", AtLeast(0), ReadOnly, Later;

    /// Fetch threads per leader from which this broker replicates.
    "num.replica.fetchers": Int = "1", AtLeast(1), Cluster, Later;

    /// How often high watermarks are written to their checkpoint file.
    "replica.high.watermark.checkpoint.interval.ms": Long = "5000", Any, ReadOnly, Later;

    /// Clean-up rhythm of waiting fetches in Kafka.
    "fetch.purgatory.purge.interval.requests": Int = "1000", Any, ReadOnly, Ignored;

    /// Clean-up rhythm of waiting produces in Kafka.
    "producer.purgatory.purge.interval.requests": Int = "1000", Any, ReadOnly, Ignored;

    /// Clean-up rhythm of waiting DeleteRecords in Kafka.
    "delete.records.purgatory.purge.interval.requests": Int = "1", Any, ReadOnly, Ignored;

    /// Give leadership back to preferred replicas from time to time.
    "auto.leader.rebalance.enable": Boolean = "true", Any, ReadOnly, Later;

    /// How often leaderships are compared with the preferred ones.
    "leader.imbalance.check.interval.seconds": Long = "300", AtLeast(1), ReadOnly, Later;

    /// Let a replica that is not in sync become leader when no other is left; acknowledged records may be lost.
    "unclean.leader.election.enable": Boolean = "false", Any, Cluster, Later;

    /// Security protocol among brokers when `inter.broker.listener.name` is unset.
    "security.inter.broker.protocol": String = "PLAINTEXT", OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), ReadOnly, Later;

    /// Listener that brokers use among themselves; excludes `security.inter.broker.protocol`.
    "inter.broker.listener.name": String = null, Any, ReadOnly, Later;

    /// Who may be read from: unset, the leader alone;
    /// `org.apache.kafka.common.replica.RackAwareReplicaSelector`, the nearest replica.
    "replica.selector.class": String = null, Any, ReadOnly, Later;

    /// A new follower of a tiered topic begins at the earliest offset not yet uploaded.
    "follower.fetch.last.tiered.offset.enable": Boolean = "false", Any, Cluster, Later;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// How often partitions without a leader are looked at for an unclean election.
    "unclean.leader.election.interval.ms": Long = "300000", AtLeast(1), ReadOnly, Later;
};
