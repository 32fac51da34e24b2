//! Roles, the metadata quorum and its log.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Roles of this process. One node is `broker,controller`; that is also what an absent value means here.
    "process.roles": List = required, ItemsOf(&["broker", "controller"], NotEmpty), ReadOnly, Works;

    /// Unique id of the node, and the broker id that clients see.
    "node.id": Int = required, AtLeast(0), ReadOnly, Works;

    /// How long a starting broker tries to register with the controller before it gives up.
    "initial.broker.registration.timeout.ms": Int = "60000", Any, ReadOnly, Later;

    /// How often a broker tells the controller that it is alive.
    "broker.heartbeat.interval.ms": Int = "2000", Any, ReadOnly, Later;

    /// Silence after which the controller fences a broker.
    "broker.session.timeout.ms": Int = "9000", Any, ReadOnly, Later;

    /// Listeners of the controllers. A single node is its own controller and binds none of them.
    "controller.listener.names": List = required, Items(NotEmpty), ReadOnly, Works;

    /// SASL mechanism on connections to controllers.
    "sasl.mechanism.controller.protocol": String = "GSSAPI", Any, ReadOnly, Later;

    /// The voters as `id@host:port`. A single node lists itself alone.
    "controller.quorum.voters": List = "", Voters, ReadOnly, Works;

    /// Controllers to ask for the quorum when it is dynamic (KIP-853).
    "controller.quorum.bootstrap.servers": List = "", BootstrapServers, ReadOnly, Works;

    /// Time without a leader before a voter stands for election.
    "controller.quorum.election.timeout.ms": Int = "1000", AtLeast(0), ReadOnly, Later;

    /// Time without a successful fetch before a new election, and within which a leader must hear from its
    /// majority.
    "controller.quorum.fetch.timeout.ms": Int = "2000", AtLeast(0), ReadOnly, Later;

    /// Largest random pause before a voter stands again.
    "controller.quorum.election.backoff.max.ms": Int = "1000", AtLeast(0), ReadOnly, Later;

    /// How long the leader gathers appends before it flushes.
    "controller.quorum.append.linger.ms": Int = "25", AtLeast(0), ReadOnly, Later;

    /// Time limit of a request among voters.
    "controller.quorum.request.timeout.ms": Int = "2000", AtLeast(0), ReadOnly, Later;

    /// First pause before a request among voters is repeated.
    "controller.quorum.retry.backoff.ms": Int = "20", AtLeast(0), ReadOnly, Later;

    /// A controller adds itself to the voters when it starts. Refused while one node is the whole quorum.
    "controller.quorum.auto.join.enable": Boolean = "false", Any, ReadOnly, Refused;

    /// Largest piece of a snapshot in one answer.
    "controller.quorum.fetch.snapshot.max.bytes": Int = "1048576", AtLeast(1), ReadOnly, Later;

    /// Largest piece of the metadata log in one answer; one batch is always returned.
    "controller.quorum.fetch.max.bytes": Int = "1048576", AtLeast(1), ReadOnly, Later;

    /// Bytes of metadata records since the last snapshot that make a new one.
    "metadata.log.max.record.bytes.between.snapshots": Long = "20971520", AtLeast(1), ReadOnly, Works;

    /// Time since the last snapshot that makes a new one; 0 is off.
    "metadata.log.max.snapshot.interval.ms": Long = "3600000", AtLeast(0), ReadOnly, Works;

    /// Directory of the metadata log; absent, the first data directory.
    "metadata.log.dir": String = null, Any, ReadOnly, Works;

    /// Largest segment of the metadata log.
    "metadata.log.segment.bytes": Int = "1073741824", AtLeast(8 * MIB), ReadOnly, Works;

    /// Age at which a segment of the metadata log is closed.
    "metadata.log.segment.ms": Long = "604800000", Any, ReadOnly, Works;

    /// How large metadata log and snapshots may grow together before the oldest go.
    "metadata.max.retention.bytes": Long = "104857600", Any, ReadOnly, Later;

    /// How long metadata log and snapshots are kept.
    "metadata.max.retention.ms": Long = "604800000", Any, ReadOnly, Later;

    /// How often an idle controller writes an empty record.
    "metadata.max.idle.interval.ms": Int = "500", AtLeast(0), ReadOnly, Later;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// How often event times of the controller are logged.
    "controller.performance.sample.period.ms": Long = "60000", AtLeast(100), ReadOnly, Ignored;

    /// Event time of the controller that is always logged.
    "controller.performance.always.log.threshold.ms": Long = "2000", AtLeast(0), ReadOnly, Ignored;

    /// A start that takes longer is given up.
    "server.max.startup.time.ms": Long = "9223372036854775807", AtLeast(0), ReadOnly, Later;

    /// Segment size of the metadata log in Kafka's own tests.
    "internal.metadata.log.segment.bytes": Int = null, Any, ReadOnly, Ignored;

    /// Largest batch of the metadata log in Kafka's own tests.
    "internal.metadata.max.batch.size.in.bytes": Int = "8388608", Any, ReadOnly, Ignored;

    /// How long deleted metadata files stay on the disk.
    "internal.metadata.delete.delay.millis": Long = "60000", Any, ReadOnly, Ignored;
};
