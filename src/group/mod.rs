//! Group coordinators as pure machines: decisions return records and a reply, replaying a record changes the state.
//!
//! A `Coordinator` is the state of one partition of `__consumer_offsets`: the groups whose ids hash to it, and their committed offsets. It lives on the shard that owns the partition,
//! where `drive::groups` loads it, appends what it decides, and carries its replies. Everything is synchronous; time and randomness come in with each call.
//!
//! Groups are of several types, each a variant of `any::Group` with record types, timers and calls of its own: `classic`, and `consumer` (KIP-848). Share and streams groups join in
//! the same way. Offsets, expiry and the step protocol are common to all.

mod any;
mod call;
mod classic;
mod consumer;
mod coordinator;
mod offsets;
mod record;
mod subscription;
#[cfg(test)]
mod tests;
mod timer;

pub use call::{Call, Caller, OpenTransaction, Reply, Step, Token, coordinator_error};
pub use consumer::validate_heartbeat;
pub use coordinator::Coordinator;
pub use record::{CoordinatorRecord, RecordError, unserved_group};

use bytes::Bytes;

/// The topic that holds groups and committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How long a new member's JoinGroup request may wait before the member is let go of. Kafka knows no setting for it.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// The limits that a coordinator keeps, from the broker's settings.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`, `group.max.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i64,
    /// `group.max.size`
    pub max_size: usize,
    /// `offset.metadata.max.bytes`, which Kafka counts in UTF-16 units.
    pub offset_metadata_units_max: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `group.consumer.session.timeout.ms`, unless a group has its own.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`, unless a group has its own.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.assignment.interval.ms`, unless a group has its own.
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.max.size`
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`, the default first.
    pub consumer_assignors: Vec<String>,
    /// `group.consumer.regex.refresh.interval.ms`
    pub regex_refresh_interval_ms: i64,
    /// `group.consumer.migration.policy`
    pub migration_policy: MigrationPolicy,
}

/// Which groups may change their protocol while they have members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    Disabled,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    Bidirectional,
}

impl MigrationPolicy {
    /// By the name that the setting has for it, in any case.
    pub fn named(name: &str) -> Option<MigrationPolicy> {
        let policies = [
            ("disabled", MigrationPolicy::Disabled),
            ("upgrade", MigrationPolicy::Upgrade),
            ("downgrade", MigrationPolicy::Downgrade),
            ("bidirectional", MigrationPolicy::Bidirectional),
        ];
        policies.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, policy)| policy)
    }
}

impl GroupConfig {
    /// The assignor of groups whose members wish for none.
    pub(crate) fn default_assignor(&self) -> &str {
        self.consumer_assignors.first().map_or("uniform", |name| name)
    }
}

impl Default for GroupConfig {
    /// Kafka's defaults.
    fn default() -> GroupConfig {
        GroupConfig {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            offset_metadata_units_max: 4_096,
            offsets_retention_ms: 10_080 * 60 * 1000,
            offsets_retention_check_interval_ms: 600_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_assignment_interval_ms: 1_000,
            consumer_max_size: i32::MAX as usize,
            consumer_assignors: consumer::ASSIGNORS.map(String::from).into(),
            regex_refresh_interval_ms: 600_000,
            migration_policy: MigrationPolicy::Bidirectional,
        }
    }
}

/// A moment, by the two clocks that a coordinator needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970: what is recorded, and what recorded times are held against.
    pub wall_ms: i64,
    /// Milliseconds since some moment before all others: what sessions and phases run by, so that setting the machine's clock ends none of them.
    pub steady_ms: i64,
}

/// The kinds of groups that there are, by the names that ListGroups knows them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupType {
    Classic,
    Consumer,
    Share,
    Streams,
}

impl GroupType {
    pub fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
            GroupType::Share => "share",
            GroupType::Streams => "streams",
        }
    }
}

/// The partition of `__consumer_offsets` that holds a group: Java's hash of the id, as every Kafka broker reckons it.
pub fn partition_for(group_id: &str, partition_count: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The one value without a positive counterpart goes to 0.
    hash.checked_abs().unwrap_or(0) % partition_count
}

/// A copy that owns just its bytes, as `Str::detached`. What a coordinator keeps for days must not hold on to the frame or the log block that it was read from.
pub(crate) fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
