//! Settings that Kafka does not have. All are read once, at the start.

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Shards: threads, each pinned to a core of its own. Absent: one for every core that the process may use.
    "shards": Int = null, Between(1, 1024), ReadOnly, Works;

    /// How long an idle shard spins before it sleeps, in microseconds. 0 suits shared hosts; on a dedicated one
    /// a few hundred save the wake-up on the way of a request, at the price of a core that never rests.
    "poll.idle.us": Int = "0", Between(0, 1_000_000), ReadOnly, Works;

    /// Directory of the journals; absent, the first data directory. Every acknowledgement waits for a write into
    /// the journal, so a faster device here makes every acknowledgement faster. Beside each journal lies a file of
    /// half a MiB, by which records that only have to survive the process do so before they are written.
    "journal.dir": String = null, NonEmpty, ReadOnly, Works;

    /// Size of each shard's journal, a ring that is written in full when it is made. A larger ring lets a shard
    /// take a longer burst at the journal's speed before producers are slowed down to the speed of the segment
    /// files, and writes their blocks in fewer and larger pieces; it costs its size on the disk and makes a restart
    /// after a crash, which replays at most one ring, as much longer.
    "journal.bytes": Long = "67108864", Between(4 * MIB, 1 << 40), ReadOnly, Works;

    /// TCP congestion control of client connections, a name that the kernel knows (`cubic`, `bbr`, ...). Absent:
    /// the kernel's choice.
    "socket.tcp.congestion.control": String = null, NonEmpty, ReadOnly, Works;

    /// A client that has begun to send a request must have sent all of it within so long, else it is disconnected.
    "connection.frame.timeout.ms": Int = "60000", AtLeast(1), ReadOnly, Works;

    /// Whether a connection whose requests go almost wholly to one other shard moves to that shard: within a second,
    /// and then not again for a minute. Takes the hop between two cores off its way.
    "connection.move.enable": Boolean = "true", Any, ReadOnly, Works;

    /// Produce requests of one connection that may wait for durability at a time. The next is not read before one
    /// of them is answered.
    "connection.produce.inflight.max": Int = "32", Between(1, 10_000), ReadOnly, Works;

    /// Bytes of those produce requests. The next is not read before they take less; a single larger one is taken
    /// alone.
    "connection.queued.bytes.max": Long = "4194304", AtLeast(64 * KIB), ReadOnly, Works;

    /// Bytes of requests that all connections of one shard may hold together, unless `queued.max.request.bytes` says
    /// less: half of it those that are there and not answered yet, half of it those of more than 256 KiB that are still
    /// arriving. Beyond, requests wait to be read until others are answered. Those of no more than 64 KiB that wait
    /// for other clients (a fetch at the end, a member for its group) do not count meanwhile.
    "shard.queued.bytes.max": Long = "134217728", AtLeast(MIB), ReadOnly, Works;

    /// Memory of one shard for recently written records, from which consumers at the tail are served.
    "shard.tail.cache.bytes": Long = "16777216", AtLeast(MIB), ReadOnly, Works;

    /// Traces where acknowledgements spend their time: every Produce request's stages, kept in memory (the last
    /// 600,000 of each shard) and written to this file, with the shard's number behind its name, at a clean stop.
    /// For `scripts/latency-trace`; absent, nothing is traced.
    "latency.trace.file": String = null, NonEmpty, ReadOnly, Works;

    /// Form of the log lines: `plain`, or `json`, an object a line.
    "log.format": String = "plain", OneOf(&["plain", "json"]), ReadOnly, Works;

    /// Least important log lines that are written: `error`, `warn`, `info`, `debug`, `trace`.
    "log.level": String = "info", OneOf(&["error", "warn", "info", "debug", "trace"]), ReadOnly, Works;
};
