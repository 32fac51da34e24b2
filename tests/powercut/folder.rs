//! A folder for each life, with its mount points; and an end to those that killed runs have left, with whatever is mounted there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use harness::places;
use rustix::mount::{UnmountFlags, unmount};

use crate::block;

/// The rest of the name is the process id and a number.
const NAME_START: &str = "power-cut-";

/// Mount points in it.
const DISK: &str = "disk";
const FILESYSTEM: &str = "filesystem";

/// Removed when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{NAME_START}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(places::scratch().join(name));
        for mount_point in [folder.disk(), folder.filesystem()] {
            fs::create_dir_all(&mount_point).unwrap_or_else(|error| panic!("{}: {error}", mount_point.display()));
        }
        folder
    }

    /// Where the lying disk is mounted.
    pub fn disk(&self) -> PathBuf {
        self.0.join(DISK)
    }

    /// Where the filesystem on it is mounted, if there is one.
    pub fn filesystem(&self) -> PathBuf {
        self.0.join(FILESYSTEM)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Clears what runs have left that were killed: folder, mounts and loop devices. Those whose process is still there are not touched.
pub fn clear_leftovers() {
    let Ok(entries) = fs::read_dir(places::scratch()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process_id = name.to_str().and_then(|name| name.strip_prefix(NAME_START)?.split('-').next()?.parse::<u32>().ok());
        if process_id.is_some_and(|process_id| !Path::new(&format!("/proc/{process_id}")).exists()) {
            clear(&entry.path());
        }
    }
}

/// From the top down. The disk's process is gone, so that it answers with errors and nobody waits for it.
fn clear(folder: &Path) {
    println!("a killed run has left {}: it goes", folder.display());
    // Either may not be mounted.
    let _ = unmount(folder.join(FILESYSTEM), UnmountFlags::DETACH);
    // A device's backing file has its path only as long as the disk is mounted.
    block::detach_devices_over(folder);
    let _ = unmount(folder.join(DISK), UnmountFlags::DETACH);
    if let Err(error) = fs::remove_dir_all(folder) {
        println!("{} stays: {error}", folder.display());
    }
}
