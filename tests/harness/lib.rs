//! What every black-box test stands on: a broker started as a person would start it, and the ways to talk to it.
//!
//! The broker is Corelane, or Apache Kafka itself when `CORELANE_TEST_AGAINST=kafka` (`scripts/test --against-kafka`): what the tests expect is proven on the original
//! first, and the few permitted differences stand in `tests/differences.toml`, each with its reason. Tests wait for conditions (`wait`), never for time.

pub mod batch;
pub mod broker;
pub mod committed;
pub mod differences;
pub mod places;
pub mod random;
pub mod raw;
pub mod runner;
pub mod samples;
pub mod suite;
pub mod wait;
