//! Tiered storage.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Tiered storage. Not built yet, so switching it on is refused.
    "remote.log.storage.system.enable": Boolean = "false", Any, ReadOnly, Refused;

    /// How the properties of the storage plug-in begin.
    "remote.log.storage.manager.impl.prefix": String = "rsm.config.", NonEmpty, ReadOnly, Ignored;

    /// How the properties of the metadata plug-in begin.
    "remote.log.metadata.manager.impl.prefix": String = "rlmm.config.", NonEmpty, ReadOnly, Ignored;

    /// Java class of the storage plug-in.
    "remote.log.storage.manager.class.name": String = null, NonEmpty, ReadOnly, Ignored;

    /// Class path of the storage plug-in.
    "remote.log.storage.manager.class.path": String = null, Any, ReadOnly, Ignored;

    /// Java class of the metadata plug-in.
    "remote.log.metadata.manager.class.name": String = "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager", NonEmpty, ReadOnly, Ignored;

    /// Class path of the metadata plug-in.
    "remote.log.metadata.manager.class.path": String = null, Any, ReadOnly, Ignored;

    /// Listener through which the metadata of remote segments is read and written.
    "remote.log.metadata.manager.listener.name": String = null, NonEmpty, ReadOnly, Later;

    /// Largest custom metadata of a remote segment.
    "remote.log.metadata.custom.metadata.max.bytes": Int = "128", AtLeast(0), ReadOnly, Later;

    /// Disk space for index files of remote segments.
    "remote.log.index.file.cache.total.size.bytes": Long = "1073741824", AtLeast(1), Cluster, Later;

    /// Deprecated name of `remote.log.manager.follower.thread.pool.size`.
    "remote.log.manager.thread.pool.size": Int = "2", AtLeast(1), ReadOnly, Ignored;

    /// Threads that upload segments.
    "remote.log.manager.copier.thread.pool.size": Int = "10", AtLeast(1), Cluster, Later;

    /// Threads that delete remote segments.
    "remote.log.manager.expiration.thread.pool.size": Int = "10", AtLeast(1), Cluster, Later;

    /// Threads that follow the leader's remote segments.
    "remote.log.manager.follower.thread.pool.size": Int = "2", AtLeast(1), Cluster, Later;

    /// How often segments are looked at for upload and deletion.
    "remote.log.manager.task.interval.ms": Long = "30000", AtLeast(1), ReadOnly, Later;

    /// Threads that read remote segments.
    "remote.log.reader.threads": Int = "10", AtLeast(1), Cluster, Later;

    /// Remote reads that may wait; one more fails its fetch.
    "remote.log.reader.max.pending.tasks": Int = "100", AtLeast(1), ReadOnly, Later;

    /// How long uploaded segments also stay on the local disk; -2 is as long as `log.retention.ms`.
    "log.local.retention.ms": Long = "-2", AtLeast(-2), Cluster, Later;

    /// How large the local part of a tiered partition may grow; -2 is as large as `log.retention.bytes`.
    "log.local.retention.bytes": Long = "-2", AtLeast(-2), Cluster, Later;

    /// Age that a segment must reach before it is uploaded (KIP-1241).
    "log.remote.copy.lag.ms": Long = "0", AtLeast(-1), Cluster, Later;

    /// Distance from the log's end that a segment must have before it is uploaded.
    "log.remote.copy.lag.bytes": Long = "-1", AtLeast(-1), Cluster, Later;

    /// Bytes per second of uploads.
    "remote.log.manager.copy.max.bytes.per.second": Long = "9223372036854775807", AtLeast(1), Cluster, Later;

    /// Samples over which uploads are measured.
    "remote.log.manager.copy.quota.window.num": Int = "11", AtLeast(1), ReadOnly, Later;

    /// Length of one sample of uploads.
    "remote.log.manager.copy.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Bytes per second of remote reads.
    "remote.log.manager.fetch.max.bytes.per.second": Long = "9223372036854775807", AtLeast(1), Cluster, Later;

    /// Samples over which remote reads are measured.
    "remote.log.manager.fetch.quota.window.num": Int = "11", AtLeast(1), ReadOnly, Later;

    /// Length of one sample of remote reads.
    "remote.log.manager.fetch.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Longest wait of a fetch that needs a remote segment.
    "remote.fetch.max.wait.ms": Int = "500", AtLeast(1), Cluster, Later;

    /// Longest wait of a ListOffsets that needs a remote segment.
    "remote.list.offsets.request.timeout.ms": Long = "30000", AtLeast(1), Cluster, Later;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Idle time after which a cached index file of a remote segment goes.
    "remote.log.index.file.cache.ttl.ms": Long = "900000", AtLeast(-1), ReadOnly, Later;

    /// First pause between two tries of an upload or deletion.
    "remote.log.manager.task.retry.backoff.ms": Long = "500", AtLeast(1), ReadOnly, Later;

    /// Longest pause between two tries of an upload or deletion.
    "remote.log.manager.task.retry.backoff.max.ms": Long = "30000", AtLeast(1), ReadOnly, Later;

    /// Random share added to that pause.
    "remote.log.manager.task.retry.jitter": Double = "0.2", BetweenDecimals(0.0, 0.5), ReadOnly, Later;
};
