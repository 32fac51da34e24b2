//! The controller's decisions, pure: a picture and a request in, records and a reply out.
//!
//! A decision changes nothing. Its records are written, applied once durable (`Image::apply`), and only then does the reply go out (drive::controller). So what a client was
//! told is in the log, and a refusal has written nothing. The order of checks and the sentences are those of Kafka 4.4.0: clients print them, and some read them.

pub mod configs;
pub mod create_topics;
pub mod partitions;
pub mod producer_ids;
pub mod reassignments;
pub mod start;
#[cfg(test)]
mod tests;
pub mod topics;

use std::fmt;

use crate::wire::ErrorCode;

use super::image::{ConfigMap, ConfigResourceType, Image};
use super::record::MetadataRecord;

/// Records that one user request may make (Kafka's bound): one request is one batch, and one batch is one group of the journal.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// What is to be written, and what to answer once it is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<R> {
    pub records: Vec<MetadataRecord>,
    pub reply: R,
}

/// A request, or a part of it, that is refused: nothing of it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    /// None where Kafka lets the code speak for itself.
    pub message: Option<String>,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }

    pub fn bare(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(formatter, "{}: {message}", self.code),
            None => write!(formatter, "{}", self.code),
        }
    }
}

impl std::error::Error for Refusal {}

/// What the decisions must know of settings. The table of settings answers; tests answer with less.
pub trait SettingRules {
    /// `num.partitions`.
    fn partitions_default(&self) -> i32;
    /// `default.replication.factor`.
    fn replication_factor_default(&self) -> i16;
    /// `delete.topic.enable`.
    fn topics_may_be_deleted(&self) -> bool;
    /// `min.insync.replicas` as the broker was started with.
    fn min_insync_replicas_default(&self) -> i32;
    /// Whether all settings of a resource are valid together; the error is the sentence that INVALID_CONFIG carries.
    fn check(&self, kind: ConfigResourceType, settings: &ConfigMap) -> Result<(), String>;
    /// Whether a setting is a list, which can be appended to and subtracted from.
    fn is_list(&self, kind: ConfigResourceType, key: &str) -> bool;
    /// The value of a setting that nobody set.
    fn default_text(&self, kind: ConfigResourceType, key: &str) -> Option<String>;
    /// All settings of a topic with these overrides as they would take effect, in the order of their names.
    fn effective_topic_settings(&self, image: &Image, overrides: &ConfigMap) -> Vec<EffectiveSetting>;
}

/// A setting with the value that takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    pub name: String,
    /// None also for a sensitive value.
    pub value: Option<String>,
    /// Where the value comes from, in the numbers of DescribeConfigs.
    pub source: i8,
    pub is_sensitive: bool,
    pub is_read_only: bool,
}

/// The refusal of a request whose records would be too many for one batch.
fn too_many_records() -> Refusal {
    Refusal::new(ErrorCode::PolicyViolation, "Unable to perform excessively large batch operation.")
}
