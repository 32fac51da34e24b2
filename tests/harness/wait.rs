//! Waiting for a condition. A test that sleeps for a while and then looks is wrong twice: too slow on a fast machine, and a lie on a slow one.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that works, on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, and panics with `what` was awaited when `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(LOOK_INTERVAL);
    }
}
