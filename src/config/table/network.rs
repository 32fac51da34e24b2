//! Listeners, connections, requests, and what the broker does to batches on their way in.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Deprecated name of `node.id`; if both are given they must be equal.
    "broker.id": Int = "-1", Any, ReadOnly, Works;

    /// Largest record batch, after compression, else MESSAGE_TOO_LARGE.
    "message.max.bytes": Int = "1048588", AtLeast(0), Cluster, Works;

    /// Largest size to which a compressed batch may unpack, a bound against compression bombs.
    "max.decompressed.message.bytes": Int = "2147483639", Between(1, 2_147_483_639), Cluster, Works;

    /// Request threads. Here a shard is a core (`shards`), so this only stands for compatibility.
    "num.io.threads": Int = "8", AtLeast(1), Cluster, Ignored;

    /// Threads that move replicas between data directories.
    "num.replica.alter.log.dirs.threads": Int = null, Any, ReadOnly, Ignored;

    /// Upkeep threads.
    "background.threads": Int = "10", AtLeast(1), Cluster, Ignored;

    /// How long the broker waits for the answer to a request that it sends.
    "request.timeout.ms": Int = "30000", Any, ReadOnly, Later;

    /// First time limit of an outgoing connect.
    "socket.connection.setup.timeout.ms": Long = "10000", Any, ReadOnly, Later;

    /// Largest time limit of an outgoing connect after repeated failures.
    "socket.connection.setup.timeout.max.ms": Long = "30000", Any, ReadOnly, Later;

    /// Names of config providers for `${provider:path:key}` values. Not built yet, so setting it is refused.
    "config.providers": List = "", Items(MayBeEmpty), Cluster, Refused;

    /// Authoriser. Access control is not built yet, and starting without it would open what was closed, so
    /// setting it is refused.
    "authorizer.class.name": String = "", Any, ReadOnly, Refused;

    /// Listeners opened before the authoriser is ready.
    "early.start.listeners": List = null, Items(MayBeEmpty), ReadOnly, Later;

    /// Rack of this broker; placement of replicas and reads from the nearest replica depend on it.
    "broker.rack": String = null, Any, ReadOnly, Works;

    /// Hand leaderships to other brokers before stopping.
    "controlled.shutdown.enable": Boolean = "true", Any, ReadOnly, Later;

    /// False makes DeleteTopics fail with TOPIC_DELETION_DISABLED.
    "delete.topic.enable": Boolean = "true", Any, ReadOnly, Works;

    /// `producer` keeps what the producer chose; any other (`uncompressed`, `gzip`, `snappy`, `lz4`, `zstd`)
    /// recompresses.
    "compression.type": String = "producer", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Cluster, Works;

    /// gzip level when the broker compresses: 1 to 9, or -1 for the usual one.
    "compression.gzip.level": Int = "-1", MinusOneOr(1, 9), Cluster, Works;

    /// lz4 level when the broker compresses.
    "compression.lz4.level": Int = "9", Between(1, 17), Cluster, Later;

    /// zstd level when the broker compresses; negative ones are faster.
    "compression.zstd.level": Int = "3", Between(-131_072, 22), Cluster, Works;

    /// Incremental fetch sessions kept at a time (KIP-227).
    "max.incremental.fetch.session.cache.slots": Int = "1000", AtLeast(0), ReadOnly, Works;

    /// Upper bound of the size of any fetch answer; one batch is always returned.
    "fetch.max.bytes": Int = "57671680", AtLeast(1024), ReadOnly, Works;

    /// Most partitions in one DescribeTopicPartitions answer.
    "max.request.partition.size.limit": Int = "2000", AtLeast(1), ReadOnly, Works;

    /// Addresses to bind, `NAME://host:port`. An empty host is every interface, port 0 a free one.
    "listeners": List = "PLAINTEXT://:9092", Items(NotEmpty), PerBroker, Works;

    /// Addresses told to clients, per listener. Absent: a client is told the address that it dialled.
    "advertised.listeners": List = null, Items(NotEmpty), ReadOnly, Works;

    /// Listener name to PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    "listener.security.protocol.map": String = "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", Any, PerBroker, Works;

    /// SO_SNDBUF of client connections; -1 leaves it to the kernel.
    "socket.send.buffer.bytes": Int = "102400", Any, ReadOnly, Works;

    /// SO_RCVBUF of client connections; -1 leaves it to the kernel.
    "socket.receive.buffer.bytes": Int = "102400", Any, ReadOnly, Works;

    /// Largest request frame; a larger size prefix closes the connection.
    "socket.request.max.bytes": Int = "104857600", AtLeast(1), ReadOnly, Works;

    /// Connections that the kernel holds until we accept them.
    "socket.listen.backlog.size": Int = "50", AtLeast(1), ReadOnly, Works;

    /// Connections from one address; 0 only together with exceptions.
    "max.connections.per.ip": Int = "2147483647", AtLeast(0), Cluster, Works;

    /// Exceptions to `max.connections.per.ip`: `host:count`, separated by commas.
    "max.connections.per.ip.overrides": String = "", Any, Cluster, Works;

    /// Connections to this broker; with a listener prefix, to that listener. Beyond, clients wait until one has
    /// gone.
    "max.connections": Int = "2147483647", AtLeast(0), Cluster, Works;

    /// New connections per second; with a listener prefix, of that listener.
    "max.connection.creation.rate": Int = "2147483647", AtLeast(0), Cluster, Later;

    /// A connection without traffic for so long is closed.
    "connections.max.idle.ms": Long = "600000", Any, ReadOnly, Works;

    /// How long the answer to a failed authentication is held back.
    "connection.failed.authentication.delay.ms": Int = "100", AtLeast(0), ReadOnly, Later;

    /// Requests waiting for a thread before connections are no longer read. Shards have no such queue.
    "queued.max.requests": Int = "500", AtLeast(1), ReadOnly, Ignored;

    /// Memory of requests that are read but not answered, whole process; -1 is no limit but each connection's
    /// own.
    "queued.max.request.bytes": Long = "-1", Any, ReadOnly, Works;

    /// Network threads per listener. Every shard serves its own connections, so this only stands for
    /// compatibility.
    "num.network.threads": Int = "3", AtLeast(1), Cluster, Ignored;
};

/// Not listed by DescribeConfigs until somebody sets them.
pub(super) const INTERNAL: &[Setting] = internal_settings! {
    /// Advertise API versions that are not released yet.
    "unstable.api.versions.enable": Boolean = "false", Any, ReadOnly, Ignored;

    /// Allow feature levels that are not released yet.
    "unstable.feature.versions.enable": Boolean = "false", Any, ReadOnly, Ignored;
};
