//! One table of settings: parser, DescribeConfigs and printed reference follow from it.
//!
//! Pure: what a start was given comes in as text (`Sources`), a checked `Config` goes out. Topics have their own typed settings
//! (`TopicSettings`), resolved over the broker's.

pub mod alter;
mod broker;
mod check;
pub mod describe;
mod getters;
pub mod listener;
pub mod print;
mod rules;
pub mod sources;
pub mod table;
mod topic;
mod value;

pub use broker::{Config, ConfigErrors, Effective, Loaded};
pub use listener::{Advertised, Listener, SecurityProtocol};
pub use sources::Sources;
pub use topic::{CleanupPolicy, CompressionType, InvalidConfig, TimestampType, TopicSettings};
pub use value::Value;
