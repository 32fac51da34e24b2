//! Every message in every version: against bytes written from the schema by another encoder, and against two other implementations of Kafka's protocol.
//!
//! `CORELANE_TEST_SEED` sets the first seed, for runs over other values than the suite's.

mod against_kafka_protocol;
mod against_kafka_wire;
mod fuzz_seeds;
mod round_trip;
mod values;
