//! What another broker's unfinished work has left in a partition's directory, before the directory is read: deleted files, and compaction that was cut short. Kafka's LogLoader does
//! the same.

use std::path::Path;

use super::RecoveryError;
use crate::log::file_names::{CLEANED_SUFFIX, DELETED_SUFFIX, LogFileKind, SWAP_SUFFIX};
use crate::log::segment_scan::{ScanStep, SegmentScan};
use crate::rt::file::{File, FileError, OpenMode, list_directory_blocking, remove_blocking, rename_blocking, sync_directory_blocking};

/// Bytes of a segment read at once.
const READ_BYTES: usize = 1 << 20;

/// Deleted and half-written files go; whole ones that were about to take the place of segments take it.
pub fn settle_blocking(directory: &Path) -> Result<(), RecoveryError> {
    let names = list_directory_blocking(directory)?;
    let with_suffix = |suffix: &'static str| names.iter().filter(move |name| name.ends_with(suffix));
    let first_cleaned =
        with_suffix(CLEANED_SUFFIX).filter_map(|name| LogFileKind::parse_with_suffix(name, CLEANED_SUFFIX)).map(|(_, base)| base).min();
    // Where a segment was being split, its later parts are no good without the earlier ones.
    let is_void = |name: &str| {
        let swap = LogFileKind::parse_with_suffix(name, SWAP_SUFFIX);
        swap.is_some_and(|(_, base)| first_cleaned.is_some_and(|first| base >= first))
    };
    let mut has_changed = false;
    for name in with_suffix(DELETED_SUFFIX).chain(with_suffix(CLEANED_SUFFIX)).chain(with_suffix(SWAP_SUFFIX).filter(|name| is_void(name)))
    {
        remove_blocking(directory.join(name))?;
        has_changed = true;
    }
    let swaps: Vec<&String> = with_suffix(SWAP_SUFFIX).filter(|name| !is_void(name)).collect();
    let mut replaced: Option<(i64, i64)> = None;
    for name in &swaps {
        if let Some((LogFileKind::Log, base)) = LogFileKind::parse_with_suffix(name, SWAP_SUFFIX) {
            let end = end_offset(&directory.join(name), base)?;
            replaced = Some(replaced.map_or((base, end), |(first, last)| (first.min(base), last.max(end))));
        }
    }
    if let Some((first, end)) = replaced {
        let is_replaced = |name: &str| matches!(LogFileKind::parse(name), Some((_, base)) if base >= first && base < end);
        for name in names.iter().filter(|name| is_replaced(name)) {
            remove_blocking(directory.join(name))?;
        }
    }
    for name in &swaps {
        rename_blocking(directory.join(name), directory.join(name.trim_end_matches(SWAP_SUFFIX)))?;
        has_changed = true;
    }
    if has_changed {
        sync_directory_blocking(directory)?;
    }
    Ok(())
}

/// The offset behind the last batch of a segment's file.
fn end_offset(path: &Path, base_offset: i64) -> Result<i64, FileError> {
    let file = File::open_blocking(path, OpenMode::READ)?;
    let length = file.length()?;
    let mut scan = SegmentScan::new(0, base_offset, -1, true);
    let (mut window, mut window_start) = (Vec::new(), 0);
    loop {
        let position = u64::from(scan.position());
        let in_window = (position - window_start).min(window.len() as u64) as usize;
        match scan.step(&window[in_window..], length - position) {
            ScanStep::Batch(_) => {}
            ScanStep::NeedBytes(needed) => {
                window = file.read_at_blocking(needed.max(READ_BYTES), position)?.to_vec();
                window_start = position;
                if window.len() < needed {
                    return Ok(scan.next_offset());
                }
            }
            ScanStep::End(_) => return Ok(scan.next_offset()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment_scan::tests::encoded;

    fn names(directory: &Path) -> Vec<String> {
        let mut names = list_directory_blocking(directory).unwrap();
        names.sort();
        names
    }

    fn file(directory: &Path, base: i64, suffix: &str, content: &[u8]) {
        std::fs::write(directory.join(format!("{}{suffix}", LogFileKind::Log.name(base))), content).unwrap();
    }

    #[test]
    fn whole_work_is_finished_and_half_work_is_undone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        let compacted = [encoded(2, 0, 1, 10), encoded(25, 0, 3, 10)].concat();
        file(directory, 0, ".swap", &compacted);
        for base in [0, 10, 20, 28] {
            file(directory, base, "", b"old");
        }
        file(directory, 5, ".deleted", b"x");
        file(directory, 40, ".cleaned", b"x");
        file(directory, 50, ".swap", b"x");
        settle_blocking(directory).unwrap();
        assert_eq!(names(directory), ["00000000000000000000.log", "00000000000000000028.log"]);
        assert_eq!(std::fs::read(directory.join("00000000000000000000.log")).unwrap(), compacted);
        settle_blocking(directory).unwrap();
        assert_eq!(names(directory).len(), 2);
    }
}
