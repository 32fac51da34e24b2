//! Streams groups (KIP-1071).

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Session timeout of a streams-group member (KIP-1071).
    "group.streams.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Later;

    /// Smallest value that a group may give `streams.session.timeout.ms`.
    "group.streams.min.session.timeout.ms": Int = "45000", AtLeast(1), ReadOnly, Later;

    /// Largest value that a group may give `streams.session.timeout.ms`.
    "group.streams.max.session.timeout.ms": Int = "60000", AtLeast(1), ReadOnly, Later;

    /// Heartbeat interval told to a streams-group member.
    "group.streams.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Later;

    /// Smallest value that a group may give `streams.heartbeat.interval.ms`.
    "group.streams.min.heartbeat.interval.ms": Int = "5000", AtLeast(1), ReadOnly, Later;

    /// Largest value that a group may give `streams.heartbeat.interval.ms`.
    "group.streams.max.heartbeat.interval.ms": Int = "15000", AtLeast(1), ReadOnly, Later;

    /// Members of a streams group.
    "group.streams.max.size": Int = "2147483647", AtLeast(1), ReadOnly, Later;

    /// Standby copies of each stateful task.
    "group.streams.num.standby.replicas": Int = "0", AtLeast(0), ReadOnly, Later;

    /// Largest value that a group may give `streams.num.standby.replicas`.
    "group.streams.max.standby.replicas": Int = "2", AtLeast(0), ReadOnly, Later;

    /// How long a new streams group waits for more members before its first assignment.
    "group.streams.initial.rebalance.delay.ms": Int = "3000", AtLeast(0), ReadOnly, Later;

    /// Shortest time between two streams assignments.
    "group.streams.assignment.interval.ms": Int = "1000", AtLeast(0), Cluster, Later;

    /// Smallest value that a group may give `streams.assignment.interval.ms`.
    "group.streams.min.assignment.interval.ms": Int = "0", AtLeast(0), ReadOnly, Later;

    /// Largest value that a group may give `streams.assignment.interval.ms`.
    "group.streams.max.assignment.interval.ms": Int = "15000", AtLeast(0), ReadOnly, Later;

    /// Task assignors, the first is the default. Built in: `sticky`.
    "group.streams.assignors": List = "sticky", Items(NotEmpty), ReadOnly, Later;

    /// Client tags over which standby tasks are spread.
    "group.streams.rack.aware.assignment.tags": List = "", Items(MayBeEmpty), ReadOnly, Later;

    /// Java class that keeps topology descriptions (KIP-1331). It cannot be loaded here, so setting it is
    /// refused.
    "group.streams.topology.description.plugin.class": Class = null, Any, ReadOnly, Refused;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Run task assignors on a thread of their own.
    "group.streams.assignor.offload.enable": Boolean = "true", Any, Cluster, Ignored;

    /// How often members report the changelog offsets of their tasks.
    "group.streams.task.offset.interval.ms": Int = "60000", AtLeast(1), ReadOnly, Later;

    /// Smallest value that a group may give `streams.task.offset.interval.ms`.
    "group.streams.min.task.offset.interval.ms": Int = "15000", AtLeast(1), ReadOnly, Later;

    /// Most tasks that warm up on another member at a time.
    "group.streams.num.warmup.replicas": Int = "2", AtLeast(0), ReadOnly, Later;

    /// Largest value that a group may give `streams.num.warmup.replicas`.
    "group.streams.max.warmup.replicas": Int = "20", AtLeast(0), ReadOnly, Later;

    /// Changelog lag below which a task counts as caught up.
    "group.streams.acceptable.recovery.lag": Long = "10000", AtLeast(0), ReadOnly, Later;
};
