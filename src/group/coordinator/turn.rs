//! One decision in the making.

use crate::cluster::{ConfigResourceType, Image};
use crate::group::call::{Reply, Step, Token};
use crate::group::timer::{Timer, TimerKey, Timers};
use crate::group::{GroupConfig, Now};
use crate::wire::messages::{JoinGroupResponse, SyncGroupResponse};

/// One decision in the making: what it may look at, and what it has come to so far.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a GroupConfig,
    pub(crate) image: &'a Image,
    /// Rises whenever topics may have changed.
    pub(crate) topics_version: u64,
    /// The metadata offset at which topics were made last.
    pub(crate) newest_topics: i64,
    pub(crate) timers: &'a mut Timers,
    pub(crate) step: &'a mut Step,
}

impl Turn<'_> {
    /// Sets a timer to `timeout_ms` from now.
    pub(crate) fn arm(&mut self, timer: &mut Timer, timeout_ms: i64, key: impl FnOnce() -> TimerKey) {
        self.timers.arm(timer, self.now.steady_ms.saturating_add(timeout_ms.max(0)), key);
    }

    /// Sets a timer that the queue keeps to `timeout_ms` from now.
    pub(crate) fn arm_kept(&mut self, key: TimerKey, timeout_ms: i64) {
        self.timers.arm_kept(key, self.now.steady_ms.saturating_add(timeout_ms.max(0)));
    }

    pub(crate) fn session_timeout_ms(&self, group_id: &str) -> i32 {
        self.group_setting(group_id, "consumer.session.timeout.ms").unwrap_or(self.config.consumer_session_timeout_ms)
    }

    pub(crate) fn heartbeat_interval_ms(&self, group_id: &str) -> i32 {
        self.group_setting(group_id, "consumer.heartbeat.interval.ms").unwrap_or(self.config.consumer_heartbeat_interval_ms)
    }

    pub(crate) fn assignment_interval_ms(&self, group_id: &str) -> i32 {
        self.group_setting(group_id, "consumer.assignment.interval.ms").unwrap_or(self.config.consumer_assignment_interval_ms)
    }

    /// What this group was given in the place of the broker's setting.
    fn group_setting(&self, group_id: &str, name: &str) -> Option<i32> {
        self.image.config(ConfigResourceType::Group, group_id)?.get(name)?.trim().parse().ok()
    }

    pub(crate) fn reply_join(&mut self, token: Token, response: JoinGroupResponse) {
        self.step.reply(token, Reply::Join(response));
    }

    pub(crate) fn reply_sync(&mut self, token: Token, response: SyncGroupResponse) {
        self.step.reply(token, Reply::Sync(response));
    }
}
