//! The signals that ask the broker to end, as a future of a shard.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

use super::reactor::current;

/// What was asked for; all mean an orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Interrupt,
    /// The terminal was closed.
    HangUp,
}

/// Catches SIGTERM, SIGINT and SIGHUP from its making on. Any thread may make it; one shard waits.
pub struct Termination {
    rang: OwnedFd,
    which: Arc<AtomicUsize>,
}

impl Termination {
    /// Installs the handlers. A second SIGINT ends the process at once (exit code 130): somebody at the keyboard does not want to wait.
    /// Who was started to outlive its terminal (`nohup`) goes on ignoring SIGHUP.
    pub fn listen() -> io::Result<Self> {
        let (rang, ring) = UnixStream::pair()?;
        rang.set_nonblocking(true)?;
        let (which, was_interrupted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        // Handlers of one signal run in this order: the second SIGINT meets the flag that the first has set.
        flag::register_conditional_shutdown(SIGINT, 130, was_interrupted.clone())?;
        flag::register(SIGINT, was_interrupted)?;
        for signal in [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)) {
            flag::register_usize(signal, which.clone(), signal as usize)?;
            pipe::register(signal, ring.try_clone()?)?;
        }
        Ok(Self { rang: rang.into(), which })
    }

    /// Resolves at the first signal since [`Termination::listen`].
    pub async fn wait(self) -> Signal {
        let rang = Rc::new(self.rang);
        current().ring.poll_socket(&rang, libc::POLLIN).await;
        match self.which.load(Ordering::SeqCst) as i32 {
            SIGINT => Signal::Interrupt,
            SIGHUP => Signal::HangUp,
            _ => Signal::Terminate,
        }
    }
}

/// Whether this process was told to ignore that signal by whoever started it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
