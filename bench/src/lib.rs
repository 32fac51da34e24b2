//! Measures any Kafka-compatible broker through its socket.
//!
//! The way of a run: a [`workload`] says what is asked of the broker; a [`scenario`] sets its parts up and goes round them in one thread that spins: [`load`] (producers on a
//! [`schedule`]), [`readers`] (consumers), all over the raw [`client`]; [`recorder`]s count latencies, [`verify`] keeps what was acknowledged and what was read; [`progress`] looks at the
//! processes' [`cost`] from a thread beside; the [`outcome`] becomes a [`table`], JSON or an HTML page.
//!
//! Open loop: due times are fixed ahead, latency counts from them, so a stall is charged to every record that it delayed. Every acknowledged record is read back; a run that misses one
//! prints that first and fails.

pub mod builtin;
pub mod client;
pub mod clock;
pub mod compare;
pub mod control;
pub mod cores;
pub mod cost;
pub mod failure;
pub mod floor_of_client;
pub mod load;
pub mod machine;
pub mod omb;
pub mod outcome;
pub mod payload;
pub mod percentile;
pub mod progress;
pub mod rdkafka_client;
pub mod readers;
pub mod recorder;
pub mod report;
pub mod responder;
pub mod scenario;
pub mod schedule;
pub mod table;
pub mod verify;
pub mod workload;
