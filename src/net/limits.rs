//! The bounds of `net` on one connection: what it may hold at a time, and for how long. How many there may be is the business of `listener`.

use std::time::Duration;

use crate::config::Config;

/// Frames grow in steps of this size while they arrive: a size field alone reserves no more.
pub const FRAME_STEP_BYTES: usize = 256 * 1024;

/// The bounds, as the settings have them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// `connection.frame.timeout.ms`: a frame that has begun has to be whole within this time.
    pub frame_time_max: Duration,
    /// `connection.produce.inflight.max`: produce requests of a connection that wait for durability at a time.
    pub overlapping_requests_max: usize,
    /// `connection.queued.bytes.max`: bytes of such requests; a single larger one is taken alone.
    pub overlapping_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_max: Duration,
}

impl Limits {
    /// As `config` says.
    pub fn new(config: &Config) -> Limits {
        Limits {
            frame_bytes_max: config.socket_request_max_bytes() as usize,
            frame_time_max: Duration::from_millis(config.connection_frame_timeout_ms() as u64),
            overlapping_requests_max: config.connection_produce_inflight_max() as usize,
            overlapping_bytes_max: config.connection_queued_bytes_max() as usize,
            idle_max: u64::try_from(config.connections_max_idle_ms()).map_or(Duration::MAX, Duration::from_millis),
        }
    }
}
