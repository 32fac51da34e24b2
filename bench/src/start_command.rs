//! `corelane-bench start`: how long a broker takes to serve what it has already, from exec to each step. It is left running, for whoever wants to look on.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use corelane_bench::client::admin::Admin;
use corelane_bench::compare::startup::first_acknowledgement;
use corelane_bench::cost;
use corelane_bench::failure::Failure;
use serde_json::json;

use crate::arguments::resolve;

#[derive(Args)]
pub struct StartArguments {
    /// Where it will listen.
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// A topic that it has: each of its partitions has to say where it ends.
    #[arg(long, requires = "partitions")]
    topic: Option<String>,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// Forget the page cache, and with it directories and inodes, before. Needs root.
    #[arg(long)]
    cold_cache: bool,
    /// Where its output goes; to nobody without it.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The broker and its arguments, behind `--`.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(arguments: &StartArguments) -> Result<(), Failure> {
    let address = resolve(&arguments.bootstrap)?;
    if arguments.cold_cache {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(Failure::machine("/proc/sys/vm/drop_caches"))?;
    }
    let log = arguments.log.as_deref().unwrap_or(Path::new("/dev/null"));
    let output = File::create(log).map_err(Failure::machine(log.display()))?;
    let errors = output.try_clone().map_err(Failure::machine(log.display()))?;
    let program = PathBuf::from(&arguments.command[0]);
    let exec = Instant::now();
    let mut command = Command::new(&program);
    let mut broker = command
        .args(&arguments.command[1..])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(Failure::machine(program.display()))?;
    let pid = broker.id();
    let (listening, first_ack) = first_acknowledgement(address, exec, || broker.try_wait().is_ok_and(|ended| ended.is_none()))?;
    let all_partitions = match &arguments.topic {
        Some(topic) => {
            Admin::connect(address, None)?.wait_for_leaders(topic, arguments.partitions)?;
            Some(exec.elapsed())
        }
        None => None,
    };
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let open_files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let resident = cost::resident_bytes(pid).map_err(Failure::machine(pid))?;
    let found = json!({
        "pid": pid,
        "listening_ms": milliseconds(listening),
        "first_ack_ms": milliseconds(first_ack),
        "all_partitions_ms": all_partitions.map(milliseconds),
        "resident_mb": resident as f64 / 1e6,
        "open_files": open_files,
    });
    println!("{found}");
    Ok(())
}
