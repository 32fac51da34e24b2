//! `corelane-perf`: answers why. Probes measure one mechanism each, apart from the broker, through the same runtime (`corelane::rt`); what they found is kept, dated, in `perf/results/`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod journal;
mod machine;
mod mixed;
mod quiet;
mod runtime;
mod tally;

/// As the broker: glibc pays a microsecond for memory that another core frees.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "corelane-perf", about = "Probes of the mechanisms under Corelane")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures one mechanism and prints tables in Markdown.
    #[command(subcommand)]
    Probe(Probe),
}

#[derive(Subcommand)]
enum Probe {
    /// Durable writes: one journal ring against a file per partition, group sizes and depths, small records beside bulk.
    Journal(JournalArguments),
    /// The shard's runtime: hops, timers and durable writes, idle and beside a busy task; echo; what an idle shard costs.
    Runtime(RuntimeArguments),
}

#[derive(Args, Clone)]
struct JournalArguments {
    /// Where the files go; the filesystem under it is what is measured.
    #[arg(long)]
    directory: PathBuf,
    /// The shard's core; without it the one that takes the disk's interrupts.
    #[arg(long)]
    core: Option<usize>,
    /// Times that every case is measured, in turn with all others.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 200)]
    case_ms: u64,
    /// Minutes to wait, in all, for moments in which nobody else uses the machine; afterwards every round counts.
    #[arg(long, default_value_t = 10)]
    patience_min: u64,
}

#[derive(Args, Clone)]
struct RuntimeArguments {
    /// Where the file of the durable writes goes.
    #[arg(long)]
    directory: PathBuf,
    /// The cores of the two shards; without it all that there are.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Microseconds that an idle shard goes on looking before it sleeps.
    #[arg(long, default_value_t = 0)]
    idle_poll_us: u64,
    /// Minutes to wait, in all, for moments in which nobody else uses the machine; afterwards every round counts.
    #[arg(long, default_value_t = 10)]
    patience_min: u64,
}

fn main() {
    match CommandLine::parse().command {
        Command::Probe(Probe::Journal(arguments)) => journal::probe(journal::Plan {
            directory: arguments.directory,
            core: arguments.core.unwrap_or_else(machine::disk_interrupt_core),
            rounds: arguments.rounds,
            case: Duration::from_millis(arguments.case_ms),
            patience: Duration::from_secs(60 * arguments.patience_min),
        }),
        Command::Probe(Probe::Runtime(arguments)) => runtime::probe(runtime::Plan {
            directory: arguments.directory,
            cores: if arguments.cores.is_empty() { corelane::rt::allowed_cores() } else { arguments.cores },
            rounds: arguments.rounds,
            idle_poll: Duration::from_micros(arguments.idle_poll_us),
            patience: Duration::from_secs(60 * arguments.patience_min),
        }),
    }
}
