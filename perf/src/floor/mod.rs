//! `floor`: the least that a durable acknowledgement can take on this machine. One thread, one ring, one file that was written in full before, group commit, and as much of Kafka's protocol as a client
//! needs that sends records and reads them back. What a broker takes beyond it is the broker's own doing.
//!
//! Class (b), the default: acknowledged when the group is on stable storage (O_DIRECT, RWF_DSYNC). Class (a), `--memory`: acknowledged when copied. Records beyond the ring's size are
//! overwritten, so a run that is to be read back fits into it (`--ring-mib`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

mod answers;
pub mod check;
mod server;
mod storage;
mod topics;

use self::server::Server;
use self::storage::Storage;
use crate::machine;

pub struct Plan {
    pub listen: SocketAddr,
    /// Where the ring file goes; none keeps records in memory.
    pub directory: Option<PathBuf>,
    pub ring_bytes: u64,
    pub core: usize,
    pub spins: bool,
}

/// Serves until the process is ended.
pub fn run(plan: &Plan) -> io::Result<()> {
    let server = prepare(plan)?;
    println!("ready {}", server.address());
    server.run()
}

/// Binds, makes the ring, and stays on the plan's core from then on.
fn prepare(plan: &Plan) -> io::Result<Server> {
    let listener = TcpListener::bind(plan.listen)?;
    let storage = match &plan.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            Storage::in_file(directory, plan.ring_bytes)?
        }
        None => Storage::in_memory(plan.ring_bytes),
    };
    machine::pin_to(plan.core)?;
    Server::new(listener, storage, plan.spins)
}
