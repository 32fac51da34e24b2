//! `corelane-perf`: answers why. `floor` is the least that a durable acknowledgement can take on a machine; probes measure one mechanism each, apart from the broker. What was found is kept, dated, in
//! `perf/results/`. How to run each: `perf/README.md`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod cpu;
mod device;
mod disk;
mod files;
mod flame;
mod floor;
mod journal;
mod machine;
mod mixed;
mod net;
mod pace;
mod quiet;
mod runtime;
mod tally;
mod trace;

/// As the broker: glibc pays a microsecond for memory that another core frees.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "corelane-perf", about = "What the machine allows, and where the broker's time goes")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Acknowledges Kafka's Produce as fast as this machine can, and does little else. Prints `ready HOST:PORT`, serves until it is ended.
    Floor(FloorArguments),
    /// Prints where acknowledgements spent their time, from what a broker wrote to `latency.trace.file`. See scripts/latency-trace.
    Trace(TraceArguments),
    /// Draws a flame graph (SVG, on the standard output) out of what `perf script` printed. See scripts/flame.
    Flame {
        /// The output of `perf script`.
        stacks: PathBuf,
    },
    /// Measures one mechanism by itself.
    #[command(subcommand)]
    Probe(Probe),
}

#[derive(Subcommand)]
enum Probe {
    /// The disk under a directory: durable writes, flushes, reads; what the device is; what acknowledgement it allows.
    Disk(DiskArguments),
    /// TCP over loopback: exchanges with the server parked and spinning, and bytes in one direction.
    Net(NetArguments),
    /// The shard's ring and runtime: wake-ups, hops to another shard, timers and durable writes, idle and beside a busy task; echo; what an idle shard costs.
    Ring(RingArguments),
    /// Prints the core that takes the disk's interrupts.
    Core,
    /// Checksum, copy, clock, system call, first touch of a page.
    Cpu(CpuArguments),
    /// The journal's shape: one ring against a file per partition, group sizes and depths, small records beside bulk.
    Journal(JournalArguments),
}

#[derive(Args)]
struct FloorArguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the ring file goes: class (b), acknowledged when on stable storage.
    #[arg(long, alias = "dir", required_unless_present = "memory", conflicts_with = "memory")]
    directory: Option<PathBuf>,
    /// Class (a): acknowledged from memory.
    #[arg(long)]
    memory: bool,
    /// MiB of the ring. What a run sends and reads back afterwards fits into it; each group takes at least 4 KiB.
    #[arg(long, default_value_t = 1024)]
    ring_mib: u64,
    /// The core; without it the one that takes the disk's interrupts.
    #[arg(long)]
    core: Option<usize>,
    /// Look at the ring all the time instead of sleeping in it.
    #[arg(long)]
    spin: bool,
    /// Compare with `probe disk` and `probe net` in turn, print whether the floor's p50 is at most theirs together plus 15 us, and end: exit code 0 for yes, 1 for no. With a thread that
    /// sleeps, as the probes' do: threads that spin would share one core.
    #[arg(long, conflicts_with = "spin")]
    check: bool,
    /// Rounds of the check, a second each.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// The check's result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct DiskArguments {
    /// The directory whose disk is measured.
    #[arg(long, alias = "dir")]
    directory: PathBuf,
    /// The core; without it the one that takes the disk's interrupts.
    #[arg(long)]
    core: Option<usize>,
    /// Fewer depths and one short round: under 15 seconds.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct NetArguments {
    /// The server's core; without it the one that takes the disk's interrupts. The client spins on another one.
    #[arg(long)]
    core: Option<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds of a round.
    #[arg(long, default_value_t = 500)]
    round_ms: u64,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TraceArguments {
    /// The file's name, as in the setting.
    file: PathBuf,
    /// Requests at the beginning that are left out.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// The result of `corelane-bench produce --json`, to be put beside.
    #[arg(long)]
    client: Option<PathBuf>,
    /// The same of the floor under the same load.
    #[arg(long)]
    floor: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CpuArguments {
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone)]
struct JournalArguments {
    /// Where the files go; the filesystem under it is what is measured.
    #[arg(long, alias = "dir")]
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
struct RingArguments {
    /// Where the file of the durable writes goes.
    #[arg(long, alias = "dir")]
    directory: PathBuf,
    /// The cores of the two shards; without it all that there are.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Microseconds that an idle shard goes on looking before it sleeps (the broker's `poll.idle.us`).
    #[arg(long, default_value_t = 0)]
    idle_poll_us: u64,
    /// Minutes to wait, in all, for moments in which nobody else uses the machine; afterwards every round counts.
    #[arg(long, default_value_t = 10)]
    patience_min: u64,
}

fn main() -> ExitCode {
    let allowed_cores = machine::ALLOWED_CORES.len();
    assert!(allowed_cores > 0, "a process runs on some core");
    match run(CommandLine::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("corelane-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False where a check has not held.
fn run(command: Command) -> io::Result<bool> {
    match command {
        Command::Floor(arguments) => return floor(arguments),
        Command::Probe(Probe::Disk(DiskArguments { directory, core, quick, json })) => {
            disk::probe(&disk::Plan { directory, core: or_disk_core(core), is_quick: quick, json })?;
        }
        Command::Probe(Probe::Net(NetArguments { core, rounds, round_ms, json })) => {
            net::probe(&net::Plan { core: or_disk_core(core), rounds, round: Duration::from_millis(round_ms), json })?;
        }
        Command::Trace(TraceArguments { file, skip, client, floor, json }) => {
            trace::print(&trace::Plan { file, skip, client, floor, json })?
        }
        Command::Flame { stacks } => flame::draw(&stacks)?,
        Command::Probe(Probe::Core) => println!("{}", machine::disk_interrupt_core()),
        Command::Probe(Probe::Cpu(CpuArguments { core, json })) => cpu::probe(&cpu::Plan { core, json })?,
        Command::Probe(Probe::Journal(arguments)) => journal::probe(journal::Plan {
            directory: arguments.directory,
            core: or_disk_core(arguments.core),
            rounds: arguments.rounds,
            case: Duration::from_millis(arguments.case_ms),
            patience: Duration::from_secs(60 * arguments.patience_min),
        }),
        Command::Probe(Probe::Ring(arguments)) => runtime::probe(runtime::Plan {
            directory: arguments.directory,
            cores: if arguments.cores.is_empty() { machine::ALLOWED_CORES.clone() } else { arguments.cores },
            rounds: arguments.rounds,
            idle_poll: Duration::from_micros(arguments.idle_poll_us),
            patience: Duration::from_secs(60 * arguments.patience_min),
        }),
    }
    Ok(true)
}

fn floor(arguments: FloorArguments) -> io::Result<bool> {
    let FloorArguments { listen, directory, ring_mib, core, spin, check, rounds, json, .. } = arguments;
    let plan = floor::Plan { listen, directory, ring_bytes: ring_mib << 20, core: or_disk_core(core), spins: spin };
    if check { floor::check::run(plan, &floor::check::Check { rounds, json }) } else { floor::run(&plan).map(|()| true) }
}

fn or_disk_core(core: Option<usize>) -> usize {
    core.unwrap_or_else(machine::disk_interrupt_core)
}
