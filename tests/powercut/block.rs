//! The second rig: a real filesystem on a loop device over an image on the lying disk, so that the power fails at the level of blocks and the filesystem's own journal has its say.
//!
//! Writes of the loop device reach the image past the page cache, its flushes as fsync; what no flush has covered survives in part, in sectors, in any order. Needs root, `losetup`,
//! `mkfs.ext4` or `mkfs.xfs`, and a kernel that knows both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// XFS makes none smaller.
pub const IMAGE_BYTES: u64 = 320 << 20;

pub const IMAGE: &str = "image";

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

    /// Whether it can be made and mounted here; otherwise why not.
    pub fn availability(self) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("loop devices are for root".into());
        }
        run("losetup", &["--find"])?;
        run(&format!("mkfs.{}", self.name()), &["-V"])?;
        Ok(())
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

/// A filesystem on a loop device, mounted.
pub struct Attached {
    device: String,
    mount_point: PathBuf,
}

impl Attached {
    /// Puts a loop device over the image and mounts it; a fresh image gets its filesystem first.
    pub fn attach(image: &Path, mount_point: &Path, filesystem: Filesystem, is_fresh: bool) -> Result<Attached, String> {
        fs::create_dir_all(mount_point).map_err(|error| format!("{}: {error}", mount_point.display()))?;
        let image = image.to_str().expect("our own path");
        let device = run("losetup", &["--find", "--show", "--direct-io=on", image])?.trim().to_string();
        let attached = Attached { device, mount_point: mount_point.into() };
        if is_fresh {
            filesystem.make(&attached.device)?;
        }
        mount(&attached.device, mount_point, filesystem.name(), MountFlags::NOATIME, None)
            .map_err(|error| format!("the {} that the power cut left cannot be mounted: {error}", filesystem.name()))?;
        Ok(attached)
    }
}

impl Drop for Attached {
    /// By now its disk answers with errors, so that nothing more of what the kernel holds is written.
    fn drop(&mut self) {
        let _ = unmount(&self.mount_point, UnmountFlags::DETACH);
        let _ = run("losetup", &["--detach", &self.device]);
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
