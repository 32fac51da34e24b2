//! What a panic on a shard means: our own promise is broken, and what is in memory cannot be trusted. The process ends at once with a last line that says so; durable state is recovered at the
//! next start. Tests let the panic travel to whoever joins the shard instead.

use std::cell::Cell;
use std::io::Write;
use std::panic;
use std::process;
use std::sync::Once;

/// What happens when a thread of the runtime panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnPanic {
    Abort,
    Propagate,
}

thread_local! {
    static ABORTS_AS: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Sets what a panic of the calling thread does; `who` names it in the last line.
pub(super) fn set_policy(who: &'static str, on_panic: OnPanic) {
    if on_panic == OnPanic::Abort {
        install_hook();
        ABORTS_AS.set(Some(who));
    }
}

/// Adds our last line after whatever hook there is. For a binary built with `panic = "abort"` as for one that unwinds.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let former = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            former(info);
            if let Some(who) = ABORTS_AS.get() {
                let thread = std::thread::current();
                // Straight to the descriptor: a test harness that captures output would swallow the reason.
                let _ = writeln!(
                    std::io::stderr(),
                    "corelane: {who} ({}) panicked: {info}. Nothing goes on half alive: the process ends here; acknowledged records are recovered at the next start.",
                    thread.name().unwrap_or("unnamed")
                );
                process::abort();
            }
        }));
    });
}
