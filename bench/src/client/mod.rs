//! The raw client: Kafka's protocol over sockets of our own, in one thread that spins.
//!
//! Nothing is allocated per record: requests are written into a frame that was encoded once ([`template`]), acknowledgements are read in place ([`answer`]), records of fetches are
//! slices of the answer. `rdkafka` has a room of its own, since it brings threads and queues of its own.

pub mod admin;
pub mod answer;
pub mod connection;
pub mod consumer;
pub mod readiness;
pub mod template;

/// Versions that the raw client speaks: all that Kafka 4.4 and Corelane share, before topics are named by id.
pub const PRODUCE_VERSION: i16 = 9;
pub const FETCH_VERSION: i16 = 11;
pub const METADATA_VERSION: i16 = 9;
pub const CREATE_TOPICS_VERSION: i16 = 5;
pub const LIST_OFFSETS_VERSION: i16 = 6;
pub const DESCRIBE_CONFIGS_VERSION: i16 = 4;
pub const INCREMENTAL_ALTER_CONFIGS_VERSION: i16 = 1;
pub const INIT_PRODUCER_ID_VERSION: i16 = 4;
pub const API_VERSIONS_VERSION: i16 = 3;
