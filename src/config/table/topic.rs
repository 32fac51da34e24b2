//! Settings of a topic, in the order in which Kafka checks them, each with the broker setting that it overrides.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Largest segment file; a full one is closed and the next begun.
    "segment.bytes": Int = "1073741824", AtLeast(MIB), Overrides("log.segment.bytes"), Works;

    /// Age, by the time of its records, at which a segment is closed even if it is not full.
    "segment.ms": Long = "604800000", AtLeast(1), Overrides("log.roll.ms"), Works;

    /// Largest random amount taken off `segment.ms`, so that many logs do not roll at once.
    "segment.jitter.ms": Long = "0", AtLeast(0), Overrides("log.roll.jitter.ms"), Works;

    /// Largest offset or time index file; a full index closes the segment.
    "segment.index.bytes": Int = "10485760", AtLeast(4), Overrides("log.index.size.max.bytes"), Works;

    /// Records after which the log is flushed to stable storage. 1 (our default; Kafka's is never): every
    /// acknowledgement means on stable storage. Larger: acknowledged as soon as they survive the process, which a
    /// copy in the page cache does, and flushed after so many records, after `flush.ms`, or within seconds by the way.
    "flush.messages": Long = "1", AtLeast(1), Overrides("log.flush.interval.messages"), Works;

    /// Age at which unflushed records are flushed. Without meaning where every record is flushed at once.
    "flush.ms": Long = "9223372036854775807", AtLeast(0), Overrides("log.flush.interval.ms"), Works;

    /// How large a partition may grow before its oldest segments go; -1 is no limit.
    "retention.bytes": Long = "-1", Any, Overrides("log.retention.bytes"), Works;

    /// How long records are kept; -1 keeps them for ever.
    "retention.ms": Long = "604800000", AtLeast(-1), Overrides("log.retention.ms"), Works;

    /// Largest record batch, after compression, else MESSAGE_TOO_LARGE.
    "max.message.bytes": Int = "1048588", AtLeast(0), Overrides("message.max.bytes"), Works;

    /// Largest size to which a compressed batch may unpack, a bound against compression bombs.
    "max.decompressed.message.bytes": Int = "2147483639", Between(1, 2_147_483_639), Overrides("max.decompressed.message.bytes"), Works;

    /// Bytes of records between two index entries; fewer means faster seeks and larger indexes.
    "index.interval.bytes": Int = "4096", AtLeast(0), Overrides("log.index.interval.bytes"), Works;

    /// How long tombstones and transaction markers stay after their log was compacted.
    "delete.retention.ms": Long = "86400000", AtLeast(0), Overrides("log.cleaner.delete.retention.ms"), Works;

    /// Age that a record must reach before it may be compacted away.
    "min.compaction.lag.ms": Long = "0", AtLeast(0), Overrides("log.cleaner.min.compaction.lag.ms"), Works;

    /// Age by which a record must have become eligible for compaction; also shortens the roll time.
    "max.compaction.lag.ms": Long = "9223372036854775807", AtLeast(1), Overrides("log.cleaner.max.compaction.lag.ms"), Works;

    /// How long a deleted file stays on the disk under another name.
    "file.delete.delay.ms": Long = "60000", AtLeast(0), Overrides("log.segment.delete.delay.ms"), Works;

    /// Share of a log not yet compacted that makes it worth compacting.
    "min.cleanable.dirty.ratio": Double = "0.5", BetweenDecimals(0.0, 1.0), Overrides("log.cleaner.min.cleanable.ratio"), Works;

    /// What happens to old records: `delete`, `compact`, both, or empty (kept for ever).
    "cleanup.policy": List = "delete", ItemsOf(&["compact", "delete"], MayBeEmpty), Overrides("log.cleanup.policy"), Works;

    /// Let a replica that is not in sync become leader when no other is left; acknowledged records may be lost.
    "unclean.leader.election.enable": Boolean = "false", Any, Overrides("unclean.leader.election.enable"), Later;

    /// Replicas that must be in sync for a write with acks=all to be taken and for the high watermark to move.
    "min.insync.replicas": Int = "1", AtLeast(1), Overrides("min.insync.replicas"), Later;

    /// `producer` keeps what the producer chose; any other (`uncompressed`, `gzip`, `snappy`, `lz4`, `zstd`)
    /// recompresses.
    "compression.type": String = "producer", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Overrides("compression.type"), Works;

    /// gzip level when the broker compresses: 1 to 9, or -1 for the usual one.
    "compression.gzip.level": Int = "-1", MinusOneOr(1, 9), Overrides("compression.gzip.level"), Works;

    /// lz4 level when the broker compresses.
    "compression.lz4.level": Int = "9", Between(1, 17), Overrides("compression.lz4.level"), Later;

    /// zstd level when the broker compresses; negative ones are faster.
    "compression.zstd.level": Int = "3", Between(-131_072, 22), Overrides("compression.zstd.level"), Works;

    /// Reserve a segment's whole size on the disk when it is made.
    "preallocate": Boolean = "false", Any, Overrides("log.preallocate"), Later;

    /// `CreateTime` keeps the producer's time, `LogAppendTime` replaces it by the broker's.
    "message.timestamp.type": String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), Overrides("log.message.timestamp.type"), Works;

    /// How far a record's CreateTime may lie in the past, else INVALID_TIMESTAMP.
    "message.timestamp.before.max.ms": Long = "9223372036854775807", AtLeast(0), Overrides("log.message.timestamp.before.max.ms"), Works;

    /// How far a record's CreateTime may lie in the future, else INVALID_TIMESTAMP.
    "message.timestamp.after.max.ms": Long = "3600000", AtLeast(0), Overrides("log.message.timestamp.after.max.ms"), Works;

    /// Replicas that the leader serves at the throttled rate: `partition:broker`, or `*`. Reassignment tools
    /// set it.
    "leader.replication.throttled.replicas": List = "", ThrottledReplicas, Alone, Later;

    /// Replicas that fetch at the throttled rate: `partition:broker`, or `*`. Reassignment tools set it.
    "follower.replication.throttled.replicas": List = "", ThrottledReplicas, Alone, Later;

    /// Tier this topic.
    "remote.storage.enable": Boolean = "false", Any, Alone, Later;

    /// How long uploaded segments also stay on the local disk; -2 is as long as `retention.ms`.
    "local.retention.ms": Long = "-2", AtLeast(-2), Overrides("log.local.retention.ms"), Later;

    /// How large the local part of a tiered partition may grow; -2 is as large as `retention.bytes`.
    "local.retention.bytes": Long = "-2", AtLeast(-2), Overrides("log.local.retention.bytes"), Later;

    /// Upload nothing more; what is uploaded stays readable.
    "remote.log.copy.disable": Boolean = "false", Any, Alone, Later;

    /// Age that a segment must reach before it is uploaded (KIP-1241).
    "remote.copy.lag.ms": Long = "0", AtLeast(-1), Overrides("log.remote.copy.lag.ms"), Later;

    /// Distance from the log's end that a segment must have before it is uploaded.
    "remote.copy.lag.bytes": Long = "-1", AtLeast(-1), Overrides("log.remote.copy.lag.bytes"), Later;

    /// Delete what is uploaded when tiering is switched off.
    "remote.log.delete.on.disable": Boolean = "false", Any, Alone, Later;

    /// This topic may be the dead-letter topic of a share group.
    "errors.deadletterqueue.group.enable": Boolean = "false", Any, Alone, Later;

    /// Acknowledge from memory, before anything has left the process (Redpanda's name): a crash of the broker loses what
    /// was not written yet, whatever `flush.messages` says. Ours, not Kafka's.
    "write.caching": Boolean = "false", Any, Alone, Works;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Segment size below 1 MiB, for tests; wins over `segment.bytes`.
    "internal.segment.bytes": Int = null, Any, Alone, Works;
};
