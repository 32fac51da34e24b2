//! `corelane-bench self`: the client against a process that answers at once. What comes out is the client, the loopback and the kernel; no broker can look faster than this.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::cores;
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::scenario::{Target, run};
use crate::workload::{Rate, Workload};

/// A responder in the process next door, ended with this.
pub struct NextDoor {
    child: Child,
    pub address: SocketAddr,
}

impl NextDoor {
    /// On a core of its own where there is one.
    pub fn start(core: Option<usize>, spin: bool) -> Result<NextDoor, Failure> {
        let program = std::env::current_exe().map_err(Failure::machine("own path"))?;
        let mut command = Command::new(program);
        command.arg("responder").stdin(Stdio::null()).stdout(Stdio::piped());
        if spin {
            command.arg("--spin");
        }
        if let Some(core) = core {
            command.arg("--core").arg(core.to_string());
        }
        let mut child = command.spawn().map_err(Failure::machine("the responder"))?;
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).map_err(Failure::machine("the responder"))?;
        let address = line.trim().strip_prefix("ready ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| Failure::Machine(format!("the responder said {line:?}")))?;
        Ok(NextDoor { child, address })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for NextDoor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rates, then as fast as it goes; against a responder that sleeps between requests, and one that never does.
pub fn measure(workload: &Workload, target: &Target) -> Result<Vec<(String, Outcome)>, Failure> {
    let others: Vec<usize> = cores::of_process().iter().copied().filter(|core| Some(*core) != target.core).collect();
    let mut outcomes = Vec::new();
    for (name, spin) in [("the responder sleeps", false), ("the responder spins", true)] {
        let next_door = NextDoor::start(others.last().copied(), spin)?;
        for rate in [Rate::PerSecond(1_000), Rate::PerSecond(20_000), Rate::Max] {
            let batch_records = if rate == Rate::Max { 100 } else { 1 };
            let in_flight = if rate == Rate::Max { 5 } else { workload.in_flight };
            let workload = Workload { rate, batch_records, in_flight, ..workload.clone() };
            let target = Target { address: next_door.address, ..target.clone() };
            outcomes.push((name.to_string(), run(&workload, &target)?));
        }
    }
    Ok(outcomes)
}
