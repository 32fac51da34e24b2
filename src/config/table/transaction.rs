//! Transactions and idempotent producers.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// `min.insync.replicas` of `__transaction_state`.
    "transaction.state.log.min.isr": Int = "2", AtLeast(1), ReadOnly, Works;

    /// Bytes read at a time when a transaction coordinator loads its partition.
    "transaction.state.log.load.buffer.size": Int = "5242880", AtLeast(1), ReadOnly, Works;

    /// Replicas of `__transaction_state`; it cannot be made while there are fewer brokers.
    "transaction.state.log.replication.factor": Short = "3", AtLeast(1), ReadOnly, Works;

    /// Partitions of `__transaction_state`; a transactional id picks one, and its leader coordinates it. Never
    /// change it later.
    "transaction.state.log.num.partitions": Int = "50", AtLeast(1), ReadOnly, Works;

    /// Segment size of `__transaction_state`.
    "transaction.state.log.segment.bytes": Int = "104857600", AtLeast(1), ReadOnly, Works;

    /// Ask the coordinator whether a partition belongs to the transaction before appending to it (KIP-890).
    "transaction.partition.verification.enable": Boolean = "true", Any, Cluster, Works;

    /// Idle time after which a partition forgets an idempotent producer.
    "producer.id.expiration.ms": Int = "86400000", AtLeast(1), Cluster, Works;

    /// Idle time after which a transactional id is forgotten.
    "transactional.id.expiration.ms": Int = "604800000", AtLeast(1), ReadOnly, Works;

    /// Longest transaction timeout that a producer may ask for, else INVALID_TRANSACTION_TIMEOUT.
    "transaction.max.timeout.ms": Int = "900000", AtLeast(1), ReadOnly, Works;

    /// How often transactions that ran out of time are looked for and aborted.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": Int = "10000", AtLeast(1), ReadOnly, Works;

    /// How often expired transactional ids are removed.
    "transaction.remove.expired.transaction.cleanup.interval.ms": Int = "3600000", AtLeast(1), ReadOnly, Works;

    /// Let producers take part in two-phase commit (KIP-939). Not built yet, so switching it on is refused.
    "transaction.two.phase.commit.enable": Boolean = "false", Any, ReadOnly, Refused;

    /// How long the broker itself retries while a transaction is still completing.
    "add.partitions.to.txn.retry.backoff.max.ms": Int = "100", AtLeast(0), ReadOnly, Works;

    /// Pause between two such retries.
    "add.partitions.to.txn.retry.backoff.ms": Int = "20", AtLeast(1), ReadOnly, Ignored;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// How often forgotten producers are looked for.
    "producer.id.expiration.check.interval.ms": Int = "600000", AtLeast(1), ReadOnly, Works;
};
