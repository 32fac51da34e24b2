//! Quotas: windows of measurement and replication throttles.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Samples over which client quotas are measured.
    "quota.window.num": Int = "11", AtLeast(1), ReadOnly, Later;

    /// Samples over which replication quotas are measured.
    "replication.quota.window.num": Int = "11", AtLeast(1), ReadOnly, Later;

    /// Samples over which moves between data directories are measured.
    "alter.log.dirs.replication.quota.window.num": Int = "11", AtLeast(1), ReadOnly, Later;

    /// Samples over which controller mutations are measured.
    "controller.quota.window.num": Int = "11", AtLeast(1), ReadOnly, Later;

    /// Length of one sample of client quotas.
    "quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Length of one sample of replication quotas.
    "replication.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Length of one sample of moves between data directories.
    "alter.log.dirs.replication.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Length of one sample of controller mutations.
    "controller.quota.window.size.seconds": Int = "1", AtLeast(1), ReadOnly, Later;

    /// Java class that decides quotas. It cannot be loaded here, so setting it is refused.
    "client.quota.callback.class": Class = null, Any, ReadOnly, Refused;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Bytes per second that a leader sends to throttled replicas.
    "leader.replication.throttled.rate": Long = "9223372036854775807", AtLeast(0), Cluster, Later;

    /// Bytes per second that a follower fetches for throttled replicas.
    "follower.replication.throttled.rate": Long = "9223372036854775807", AtLeast(0), Cluster, Later;

    /// Bytes per second of moves between data directories.
    "replica.alter.log.dirs.io.max.bytes.per.second": Long = "9223372036854775807", AtLeast(0), Cluster, Works;
};
