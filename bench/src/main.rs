//! Measures any Kafka-compatible broker through its socket.
//!
//! Open loop: send times are fixed ahead, latency counts from the scheduled time, so a stall is charged to every record that it delayed. Every acknowledged record is read back
//! once, counted and compared; a run that misses one prints that first and fails.

mod connection;
mod cost;
mod produce;
mod read_back;
mod summary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "corelane-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Acknowledged latency of records sent at a fixed rate, or the highest rate.
    Produce(ProduceArguments),
}

/// What a produce run is made of; printed with its result.
#[derive(clap::Args, Clone, Debug)]
pub struct ProduceArguments {
    /// The broker.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: SocketAddr,
    /// A topic that does not exist yet; it is made for the run.
    #[arg(long)]
    pub topic: String,
    /// Its partitions; requests go round them.
    #[arg(long, default_value_t = 1)]
    pub partitions: i32,
    /// Settings of the topic, `key=value`.
    #[arg(long = "topic-config")]
    pub topic_configs: Vec<String>,
    /// Records a second; 0 keeps `--in-flight` requests under way instead (closed loop, labelled so).
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Bytes of a record's value, at least 8.
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records in one request.
    #[arg(long, default_value_t = 1)]
    pub records_per_request: usize,
    /// Requests under way at most; with a rate, one that finds so many is late, and counted as late.
    #[arg(long, default_value_t = 1000)]
    pub in_flight: usize,
    /// -1 or 1.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub acks: i16,
    /// Seconds that are not counted.
    #[arg(long, default_value_t = 3)]
    pub warm_up: u64,
    /// Seconds that are.
    #[arg(long, default_value_t = 15)]
    pub duration: u64,
    /// The core that the client spins on.
    #[arg(long)]
    pub core: Option<usize>,
    /// The broker's process, for what the run cost it.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Where to keep the latencies as an HdrHistogram log (`.hlog`) and percentiles (`.hgrm`): a path without ending.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
}

fn main() -> ExitCode {
    let Arguments { command: Command::Produce(arguments) } = Arguments::parse();
    match produce::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelane-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
