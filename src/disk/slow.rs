//! A disk that answers, but late, is a fault that nobody else names: whoever waits for a write, a flush or a read says how long it took, and what took too long is told of with its
//! directory, at most once in ten seconds for each directory and shard.
//!
//! What is still under way after that time is told of by those who look after it (`Journal::waits_for_disk`). The count lives on the shard's thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::log::file_names::PartitionDirectory;
use crate::rt::file::File;

/// One operation that takes this long is slow on any disk that one would put a log on.
pub const SLOW: Duration = Duration::from_millis(500);

const TOLD_INTERVAL: Duration = Duration::from_secs(10);

thread_local! {
    static DISKS: RefCell<SlowDisks> = RefCell::default();
}

/// Waits for an operation on a file, and notes it if it is slow.
pub async fn timed<T>(file: &File, what: &'static str, operation: impl Future<Output = T>) -> T {
    timed_at(file.path(), what, operation).await
}

/// The same of work on several files of a partition's directory.
pub async fn timed_in<T>(partition_directory: &Path, what: &'static str, operation: impl Future<Output = T>) -> T {
    // Any file in it will do.
    timed_at(&partition_directory.join("files"), what, operation).await
}

async fn timed_at<T>(path: &Path, what: &'static str, operation: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let output = operation.await;
    note(path, what, begun.elapsed());
    output
}

/// An operation on a file took, or has been waiting for, that long.
pub fn note(path: &Path, what: &'static str, took: Duration) {
    if took < SLOW {
        return;
    }
    let line = DISKS.with_borrow_mut(|disks| disks.note(data_directory_of(path), what, took, Instant::now()));
    if let Some((directory, told)) = line {
        tracing::warn!(
            directory = %directory.display(),
            operation = told.what,
            longest_milliseconds = told.longest.as_millis() as u64,
            slow_operations = told.count,
            "the disk is slow"
        );
    }
}

/// The data or journal directory that a file lies in.
fn data_directory_of(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(path);
    let name = parent.file_name().unwrap_or_default().to_string_lossy();
    if PartitionDirectory::parse(&name).is_some() { parent.parent().unwrap_or(parent) } else { parent }
}

/// What was slow since the last line, by directory.
#[derive(Default)]
struct SlowDisks {
    disks: BTreeMap<PathBuf, SlowDisk>,
}

#[derive(Default)]
struct SlowDisk {
    told_at: Option<Instant>,
    since: Told,
}

/// What one line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    count: u64,
    longest: Duration,
    /// The operation that took longest.
    what: &'static str,
}

impl SlowDisks {
    /// Counts a slow operation. The line to write, if it is time for one.
    fn note(&mut self, directory: &Path, what: &'static str, took: Duration, now: Instant) -> Option<(PathBuf, Told)> {
        let disk = self.disks.entry(directory.to_path_buf()).or_default();
        disk.since.count += 1;
        if took > disk.since.longest {
            disk.since.longest = took;
            disk.since.what = what;
        }
        let is_time = disk.told_at.is_none_or(|told_at| now.saturating_duration_since(told_at) >= TOLD_INTERVAL);
        is_time.then(|| {
            disk.told_at = Some(now);
            (directory.to_path_buf(), std::mem::take(&mut disk.since))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_told_of_at_once_and_then_now_and_then() {
        let mut disks = SlowDisks::default();
        let begun = Instant::now();
        let mut note = |directory: &str, what, milliseconds, seconds| {
            let took = Duration::from_millis(milliseconds);
            disks.note(Path::new(directory), what, took, begun + Duration::from_secs(seconds)).map(|(_, told)| told)
        };
        let told = |count, milliseconds, what| Some(Told { count, longest: Duration::from_millis(milliseconds), what });
        assert_eq!(note("/a", "write", 600, 0), told(1, 600, "write"));
        assert_eq!(note("/a", "flush", 900, 1), None);
        assert_eq!(note("/b", "read", 700, 1), told(1, 700, "read"), "each directory has its own line");
        assert_eq!(note("/a", "write", 800, 9), None);
        assert_eq!(note("/a", "write", 650, 10), told(3, 900, "flush"));
        assert_eq!(note("/a", "write", 500, 30), told(1, 500, "write"));
    }

    #[test]
    fn the_directory_of_a_partition_is_not_the_disk() {
        assert_eq!(data_directory_of(Path::new("/data/orders-0/00000000000000000000.log")), Path::new("/data"));
        assert_eq!(data_directory_of(Path::new("/data/corelane-journal-0")), Path::new("/data"));
        let future = Path::new("/data/orders-0.0123456789abcdef0123456789abcdef-future/files");
        assert_eq!(data_directory_of(future), Path::new("/data"), "nor is that of one on its way");
    }
}
