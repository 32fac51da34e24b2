//! Settings of one group (resource type GROUP), each with the broker setting that it overrides.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Session timeout of this group's members.
    "consumer.session.timeout.ms": Int = "45000", AtLeast(1), Overrides("group.consumer.session.timeout.ms"), Works;

    /// Heartbeat interval of this group's members.
    "consumer.heartbeat.interval.ms": Int = "5000", AtLeast(1), Overrides("group.consumer.heartbeat.interval.ms"), Works;

    /// Shortest time between two target assignments of this group.
    "consumer.assignment.interval.ms": Int = "1000", AtLeast(0), Overrides("group.consumer.assignment.interval.ms"), Works;

    /// Session timeout of this share group's members.
    "share.session.timeout.ms": Int = "45000", AtLeast(1), Overrides("group.share.session.timeout.ms"), Later;

    /// Heartbeat interval of this share group's members.
    "share.heartbeat.interval.ms": Int = "5000", AtLeast(1), Overrides("group.share.heartbeat.interval.ms"), Later;

    /// How long an acquired record stays locked for its consumer.
    "share.record.lock.duration.ms": Int = "30000", AtLeast(1000), Overrides("group.share.record.lock.duration.ms"), Later;

    /// Deliveries after which a record is archived.
    "share.delivery.count.limit": Int = "5", AtLeast(2), Overrides("group.share.delivery.count.limit"), Later;

    /// Records of one share-partition that may be in flight.
    "share.partition.max.record.locks": Int = "2000", AtLeast(100), Overrides("group.share.partition.max.record.locks"), Later;

    /// Where a new share-partition begins: `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    "share.auto.offset.reset": String = "latest", OffsetReset, Alone, Later;

    /// What the whole share group sees: `read_uncommitted` or `read_committed`.
    "share.isolation.level": String = "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]), Alone, Later;

    /// Allow a consumer to renew its lock (KIP-1222).
    "share.renew.acknowledge.enable": Boolean = "true", Any, Alone, Later;

    /// Shortest time between two assignments of this share group.
    "share.assignment.interval.ms": Int = "1000", AtLeast(0), Overrides("group.share.assignment.interval.ms"), Later;

    /// Session timeout of this streams group's members.
    "streams.session.timeout.ms": Int = "45000", AtLeast(1), Overrides("group.streams.session.timeout.ms"), Later;

    /// Heartbeat interval of this streams group's members.
    "streams.heartbeat.interval.ms": Int = "5000", AtLeast(1), Overrides("group.streams.heartbeat.interval.ms"), Later;

    /// Standby copies of each stateful task.
    "streams.num.standby.replicas": Int = "0", AtLeast(0), Overrides("group.streams.num.standby.replicas"), Later;

    /// How long this group, when new, waits for more members before its first assignment.
    "streams.initial.rebalance.delay.ms": Int = "3000", AtLeast(0), Overrides("group.streams.initial.rebalance.delay.ms"), Later;

    /// Shortest time between two assignments of this streams group.
    "streams.assignment.interval.ms": Int = "1000", AtLeast(0), Overrides("group.streams.assignment.interval.ms"), Later;

    /// Client tags over which standby tasks are spread.
    "streams.rack.aware.assignment.tags": List = "", Items(MayBeEmpty), Overrides("group.streams.rack.aware.assignment.tags"), Later;

    /// Task assignor of this group.
    "streams.assignor.name": String = null, Any, Overrides("group.streams.assignors"), Later;

    /// Dead-letter topic of this share group; empty is none.
    "errors.deadletterqueue.topic.name": String = "", Any, Alone, Later;

    /// Copy the whole record into the dead-letter topic, not only where it came from.
    "errors.deadletterqueue.copy.record.enable": Boolean = "false", Any, Alone, Later;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Run this group's assignor on a thread of its own.
    "consumer.assignor.offload.enable": Boolean = "true", Any, Overrides("group.consumer.assignor.offload.enable"), Ignored;

    /// Run this share group's assignor on a thread of its own.
    "share.assignor.offload.enable": Boolean = "true", Any, Overrides("group.share.assignor.offload.enable"), Ignored;

    /// Run this streams group's assignor on a thread of its own.
    "streams.assignor.offload.enable": Boolean = "true", Any, Overrides("group.streams.assignor.offload.enable"), Ignored;

    /// How often members report the changelog offsets of their tasks.
    "streams.task.offset.interval.ms": Int = "60000", AtLeast(1), Overrides("group.streams.task.offset.interval.ms"), Later;

    /// Most tasks that warm up on another member at a time.
    "streams.num.warmup.replicas": Int = "2", AtLeast(0), Overrides("group.streams.num.warmup.replicas"), Later;

    /// Changelog lag below which a task counts as caught up.
    "streams.acceptable.recovery.lag": Long = "10000", AtLeast(0), Overrides("group.streams.acceptable.recovery.lag"), Later;
};
