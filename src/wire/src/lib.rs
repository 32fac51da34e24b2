//! Kafka's wire format: requests, responses and records generated at build from the schema files beside this crate, record batches by hand.
