//! Where logs lie, when segments roll, go, are flushed and compacted: the defaults of the topic settings.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Partitions of a topic that is created without saying how many (automatically, or with -1).
    "num.partitions": Int = "1", AtLeast(1), ReadOnly, Works;

    /// The data directory when `log.dirs` is absent.
    "log.dir": List = "/tmp/kafka-logs", Items(NotEmpty), ReadOnly, Works;

    /// The data directories, separated by commas; topics lie directly in them. `--data-dir` sets the same.
    "log.dirs": List = null, Items(NotEmpty), ReadOnly, Works;

    /// Data directories that take no new replicas (KIP-1066); `*` means all. Needs metadata.version 4.3 or
    /// later.
    "cordoned.log.dirs": List = "", Items(MayBeEmpty), PerBroker, Later;

    /// Largest segment file; a full one is closed and the next begun.
    "log.segment.bytes": Int = "1073741824", AtLeast(MIB), Cluster, Works;

    /// Age at which a segment is closed even if it is not full; wins over `log.roll.hours`.
    "log.roll.ms": Long = null, Any, Cluster, Works;

    /// The same in hours, used while `log.roll.ms` is unset.
    "log.roll.hours": Int = "168", AtLeast(1), ReadOnly, Works;

    /// Largest random amount taken off the roll time, so that many logs do not roll at once; wins over
    /// `log.roll.jitter.hours`.
    "log.roll.jitter.ms": Long = null, Any, Cluster, Works;

    /// The same in hours, used while `log.roll.jitter.ms` is unset.
    "log.roll.jitter.hours": Int = "0", AtLeast(0), ReadOnly, Works;

    /// How long records are kept; -1 keeps them for ever. Wins over minutes and hours.
    "log.retention.ms": Long = null, Any, Cluster, Works;

    /// The same in minutes, used while `log.retention.ms` is unset; wins over hours.
    "log.retention.minutes": Int = null, Any, ReadOnly, Works;

    /// The same in hours, used while neither `log.retention.ms` nor `log.retention.minutes` is set.
    "log.retention.hours": Int = "168", Any, ReadOnly, Works;

    /// How large a partition may grow before its oldest segments go; -1 is no limit.
    "log.retention.bytes": Long = "-1", Any, Cluster, Works;

    /// How often logs are looked at for segments that may go.
    "log.retention.check.interval.ms": Long = "300000", AtLeast(1), ReadOnly, Works;

    /// What happens to old records: `delete`, `compact`, both, or empty (kept for ever).
    "log.cleanup.policy": List = "delete", ItemsOf(&["compact", "delete"], MayBeEmpty), Cluster, Works;

    /// Largest offset or time index file; a full index closes the segment.
    "log.index.size.max.bytes": Int = "10485760", AtLeast(4), Cluster, Works;

    /// Bytes of records between two index entries; fewer means faster seeks and larger indexes.
    "log.index.interval.bytes": Int = "4096", AtLeast(0), Cluster, Works;

    /// Records after which a log is flushed to stable storage. 1 (our default; Kafka's is never): every
    /// acknowledgement means on stable storage. Larger: acknowledged as soon as they survive the process, which a
    /// copy in the page cache does, and flushed after so many records, after `flush.ms`, or within seconds by the way.
    "log.flush.interval.messages": Long = "1", AtLeast(1), Cluster, Works;

    /// How long a deleted file stays on the disk under another name.
    "log.segment.delete.delay.ms": Long = "60000", AtLeast(0), Cluster, Works;

    /// Stands in for `log.flush.interval.ms` where that is unset. Nothing is looked at in intervals: what is due by
    /// time is flushed then.
    "log.flush.scheduler.interval.ms": Long = "9223372036854775807", Any, ReadOnly, Works;

    /// Age at which unflushed records are flushed; unset, `log.flush.scheduler.interval.ms` stands in. Without
    /// meaning where every record is flushed at once.
    "log.flush.interval.ms": Long = null, Any, Cluster, Works;

    /// How often the recovery points are written to their checkpoint file.
    "log.flush.offset.checkpoint.interval.ms": Int = "60000", AtLeast(0), ReadOnly, Later;

    /// How often the log start offsets are written to their checkpoint file.
    "log.flush.start.offset.checkpoint.interval.ms": Int = "60000", AtLeast(0), ReadOnly, Later;

    /// Reserve a segment's whole size on the disk when it is made.
    "log.preallocate": Boolean = "false", Any, Cluster, Later;

    /// Threads per data directory that load logs at the start and flush them at the end.
    "num.recovery.threads.per.data.dir": Int = "2", AtLeast(1), Cluster, Ignored;

    /// Make an unknown topic when a client asks for its metadata and allows it.
    "auto.create.topics.enable": Boolean = "true", Any, ReadOnly, Works;

    /// Replicas that must be in sync for a write with acks=all to be taken and for the high watermark to move.
    "min.insync.replicas": Int = "1", AtLeast(1), Cluster, Later;

    /// `CreateTime` keeps the producer's time, `LogAppendTime` replaces it by the broker's.
    "log.message.timestamp.type": String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), Cluster, Works;

    /// How far a record's CreateTime may lie in the past, else INVALID_TIMESTAMP.
    "log.message.timestamp.before.max.ms": Long = "9223372036854775807", AtLeast(0), Cluster, Works;

    /// How far a record's CreateTime may lie in the future, else INVALID_TIMESTAMP.
    "log.message.timestamp.after.max.ms": Long = "3600000", AtLeast(0), Cluster, Works;

    /// Java class that judges new topics. It cannot be loaded here, so setting it is refused.
    "create.topic.policy.class.name": Class = null, Any, ReadOnly, Refused;

    /// Java class that judges config changes. It cannot be loaded here, so setting it is refused.
    "alter.config.policy.class.name": Class = null, Any, ReadOnly, Refused;

    /// How long the broker may fail to tell the controller about a broken data directory before it stops.
    "log.dir.failure.timeout.ms": Long = "30000", AtLeast(1), ReadOnly, Later;

    /// 0 switches the compactor off; any other number is one compactor on each shard.
    "log.cleaner.threads": Int = "1", AtLeast(0), Cluster, Works;

    /// Bytes per second that compaction may read and write together.
    "log.cleaner.io.max.bytes.per.second": Double = "1.7976931348623157E308", Any, Cluster, Works;

    /// Memory of the compactor's key maps, all threads together.
    "log.cleaner.dedupe.buffer.size": Long = "134217728", Any, Cluster, Works;

    /// Memory of the compactor's read and write buffers, all threads together.
    "log.cleaner.io.buffer.size": Int = "524288", AtLeast(0), Cluster, Later;

    /// How full a key map may get; fuller compacts more at once with more collisions.
    "log.cleaner.io.buffer.load.factor": Double = "0.9", Any, Cluster, Works;

    /// How long the compactor sleeps when no log needs it.
    "log.cleaner.backoff.ms": Long = "15000", AtLeast(0), Cluster, Works;

    /// Share of a log not yet compacted that makes it worth compacting.
    "log.cleaner.min.cleanable.ratio": Double = "0.5", BetweenDecimals(0.0, 1.0), Cluster, Works;

    /// Deprecated switch of the compactor; leave it on.
    "log.cleaner.enable": Boolean = "true", Any, ReadOnly, Works;

    /// How long tombstones and transaction markers stay after their log was compacted.
    "log.cleaner.delete.retention.ms": Long = "86400000", AtLeast(0), Cluster, Works;

    /// Age that a record must reach before it may be compacted away.
    "log.cleaner.min.compaction.lag.ms": Long = "0", AtLeast(0), Cluster, Works;

    /// Age by which a record must have become eligible for compaction.
    "log.cleaner.max.compaction.lag.ms": Long = "9223372036854775807", AtLeast(1), Cluster, Works;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// How long after the start the first upkeep run waits.
    "log.initial.task.delay.ms": Long = "30000", AtLeast(0), ReadOnly, Works;
};
