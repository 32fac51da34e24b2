//! One table of settings: parser, DescribeConfigs and printed reference follow from it.

mod topic;

pub use topic::{CleanupPolicy, CompressionType, InvalidConfig, TimestampType, TopicSettings};
