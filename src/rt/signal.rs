//! The signals that ask the broker to end, as a future of a shard.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

use super::reactor::current;

/// What was asked for; both mean an orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Interrupt,
}

/// Catches SIGTERM and SIGINT from its making on. Any thread may make it; one shard waits.
pub struct Termination {
    rang: OwnedFd,
    which: Arc<AtomicUsize>,
}

impl Termination {
    /// Installs the handlers. A second SIGINT ends the process at once (exit code 130): somebody at the keyboard does not want to wait.
    pub fn listen() -> io::Result<Self> {
        let (rang, ring) = UnixStream::pair()?;
        rang.set_nonblocking(true)?;
        let (which, was_interrupted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        // Handlers of one signal run in this order: the second SIGINT meets the flag that the first has set.
        flag::register_conditional_shutdown(SIGINT, 130, was_interrupted.clone())?;
        flag::register(SIGINT, was_interrupted)?;
        for signal in [SIGTERM, SIGINT] {
            flag::register_usize(signal, which.clone(), signal as usize)?;
            pipe::register(signal, ring.try_clone()?)?;
        }
        Ok(Self { rang: rang.into(), which })
    }

    /// Resolves at the first signal since [`Termination::listen`].
    pub async fn wait(self) -> Signal {
        let rang = Rc::new(self.rang);
        current().ring.poll_socket(&rang, libc::POLLIN).await;
        if self.which.load(Ordering::SeqCst) == SIGINT as usize { Signal::Interrupt } else { Signal::Terminate }
    }
}
