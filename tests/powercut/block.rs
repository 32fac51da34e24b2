//! The second rig: a real filesystem on a loop device over an image on the lying disk, so that the power fails at the level of blocks and the filesystem's own journal has its say.
//!
//! Writes of the loop device reach the image past the page cache, its flushes as fsync; what no flush has covered survives in part, in sectors, in any order. Needs root, `losetup`,
//! `mkfs.ext4` or `mkfs.xfs`, and a kernel that knows both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use harness::random::Random;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disk::Disk;
use crate::folder::Folder;
use crate::mount::Mounted;

/// XFS makes none smaller.
const IMAGE_BYTES: u64 = 320 << 20;

const IMAGE: &str = "image";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    Ext4,
    Xfs,
}

impl Filesystem {
    pub fn name(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
        }
    }

    /// What is torn is torn in pieces of this size or larger. The superblocks of ext4 and of its journal are two sectors of 512 bytes under one checksum and are written in place: torn
    /// between them it cannot be mounted without its fsck, whatever is in its files.
    pub fn sector_bytes_min(self) -> u64 {
        match self {
            Filesystem::Ext4 => 4096,
            Filesystem::Xfs => 512,
        }
    }

    /// Whether it can be made and mounted on the lying disk here; otherwise why not. It is tried once.
    pub fn availability(self) -> Result<(), String> {
        static TRIALS: [OnceLock<Result<(), String>>; 2] = [const { OnceLock::new() }; 2];
        TRIALS[self as usize].get_or_init(|| self.try_out()).clone()
    }

    fn try_out(self) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("loop devices are for root".into());
        }
        let folder = Folder::new();
        let mounted = Mounted::mount(disk_with_image(2 * IMAGE_BYTES), &folder.disk(), Random::from_seed(0), 0)
            .map_err(|error| format!("the disk cannot be mounted: {error}"))?;
        let outcome = Attached::attach(&mounted, &folder, self, true).map(drop);
        drop(mounted.power_off());
        outcome
    }

    fn make(self, device: &str) -> Result<(), String> {
        // Nothing is discarded: the image is empty.
        let options: &[&str] = match self {
            Filesystem::Ext4 => &["-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
            Filesystem::Xfs => &["-q", "-K"],
        };
        run(&format!("mkfs.{}", self.name()), &[options, &[device]].concat()).map(drop)
    }
}

/// A disk on which `Attached` finds its place.
pub fn disk_with_image(capacity_bytes: u64) -> Disk {
    Disk::with_file(capacity_bytes, IMAGE, IMAGE_BYTES)
}

/// A filesystem on a loop device, mounted.
pub struct Attached<'a> {
    disk: &'a Mounted,
    device: String,
    mount_point: PathBuf,
}

impl Attached<'_> {
    /// Puts a loop device over the disk's image and mounts it; a fresh image gets its filesystem first.
    pub fn attach<'a>(disk: &'a Mounted, folder: &Folder, filesystem: Filesystem, is_fresh: bool) -> Result<Attached<'a>, String> {
        let (image, mount_point) = (folder.disk().join(IMAGE), folder.filesystem());
        let image = image.to_str().expect("our own path");
        let device = run("losetup", &["--find", "--show", "--direct-io=on", image])?.trim().to_string();
        let attached = Attached { disk, device, mount_point };
        if is_fresh {
            filesystem.make(&attached.device)?;
        }
        mount(&attached.device, &attached.mount_point, filesystem.name(), MountFlags::NOATIME, None)
            .map_err(|error| format!("{} cannot be mounted: {error}", filesystem.name()))?;
        Ok(attached)
    }
}

impl Drop for Attached<'_> {
    /// The disk answers with errors from here on: nothing more of what the kernel holds is written, and nobody waits for a power that is gone.
    fn drop(&mut self) {
        self.disk.let_go();
        let _ = unmount(&self.mount_point, UnmountFlags::DETACH);
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

/// Takes away loop devices whose backing file lies in the folder.
pub fn detach_devices_over(folder: &Path) {
    let (Ok(folder), Ok(devices)) = (std::path::absolute(folder), fs::read_dir("/sys/block")) else { return };
    for device in devices.flatten() {
        let backing_file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing_file.trim_end()).starts_with(&folder) {
            // Only root can, and only root has made them.
            let _ = run("losetup", &["--detach", &format!("/dev/{}", device.file_name().to_string_lossy())]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program} cannot be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{program} {arguments:?}: {}", text(&output.stderr).trim()))
    }
}
