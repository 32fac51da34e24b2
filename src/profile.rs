//! The broker samples itself, where `perf` is not at hand: only in builds with the feature `profile`, and only if `CORELANE_PROFILE` names the SVG that a clean stop writes. See scripts/flame.

use std::fs::File;
use std::path::PathBuf;

use pprof::{ProfilerGuard, ProfilerGuardBuilder};

const SAMPLES_PER_SECOND: i32 = 499;

/// Samples until it is dropped.
pub struct Profile {
    guard: ProfilerGuard<'static>,
    path: PathBuf,
}

impl Profile {
    /// None if nobody asked, or the kernel gives no timer.
    pub fn start() -> Option<Profile> {
        let path = PathBuf::from(std::env::var_os("CORELANE_PROFILE")?);
        // Unwinding is not safe inside these: the sample may have hit them.
        let guard = ProfilerGuardBuilder::default().frequency(SAMPLES_PER_SECOND).blocklist(&["libc", "libgcc", "pthread", "vdso"]).build();
        guard.map(|guard| Profile { guard, path }).map_err(|error| eprintln!("corelane: no profile: {error}")).ok()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let written = self.guard.report().build().map_err(|error| error.to_string()).and_then(|report| {
            let file = File::create(&self.path).map_err(|error| error.to_string())?;
            report.flamegraph(file).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            eprintln!("corelane: the profile cannot be written to {}: {error}", self.path.display());
        }
    }
}
