//! What lies under a directory: filesystem, mount options, and what the kernel knows of the block device. From /proc and /sys.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub struct Device {
    pub filesystem: String,
    pub mount_point: String,
    pub mount_options: String,
    pub source: String,
    /// Its request queue under /sys; none for what has no block device (tmpfs, network).
    queue: Option<PathBuf>,
    /// A loop device's file, a mapper's devices.
    pub rests_on: Option<String>,
}

impl Device {
    pub fn under(directory: &Path) -> Self {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = mounts
            .lines()
            .filter_map(Mount::parse)
            .filter(|mount| directory.starts_with(mount.point))
            .max_by_key(|mount| mount.point.len());
        let Some(mount) = mount else {
            let unknown = || "unknown".to_string();
            let (filesystem, mount_point, mount_options, source) = (unknown(), unknown(), unknown(), unknown());
            return Self { filesystem, mount_point, mount_options, source, queue: None, rests_on: None };
        };
        let block = disk_of(&Path::new("/sys/dev/block").join(mount.number));
        Self {
            filesystem: mount.filesystem.to_string(),
            mount_point: mount.point.to_string(),
            mount_options: format!("{},{}", mount.options, mount.filesystem_options),
            source: mount.source.to_string(),
            queue: block.as_ref().map(|block| block.join("queue")).filter(|queue| queue.exists()),
            rests_on: block.as_deref().and_then(rests_on),
        }
    }

    /// A file of the request queue: `write_cache`, `fua`, `scheduler`, `logical_block_size`.
    pub fn queue(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.queue.as_ref()?.join(name)).ok().map(|text| text.trim().to_string())
    }

    pub fn has_write_cache(&self) -> Option<bool> {
        self.queue("write_cache").map(|kind| kind == "write back")
    }

    pub fn has_fua(&self) -> Option<bool> {
        self.queue("fua").map(|fua| fua == "1")
    }

    /// What a durable write is made of.
    pub fn durable_write(&self) -> &'static str {
        match (self.has_write_cache(), self.has_fua()) {
            (Some(false), _) => "one command: the device says that it has no volatile write cache, so the kernel sends no flush",
            (Some(true), Some(true)) => "one command with FUA (into blocks that are written already; otherwise a flush follows)",
            (Some(true), _) => "a write, then a flush sent by a kernel worker: the device has a volatile write cache and no FUA",
            (None, _) => "unknown: there is no block device under this filesystem",
        }
    }

    pub fn lines(&self) -> Vec<String> {
        let queue = |name: &str| self.queue(name).unwrap_or_else(|| "unknown".to_string());
        let rests_on = self.rests_on.as_ref().map_or(String::new(), |below| format!(", on {below}"));
        vec![
            format!(
                "filesystem {} on {}{rests_on}, mounted at {} ({})",
                self.filesystem, self.source, self.mount_point, self.mount_options
            ),
            format!(
                "device: write cache {}, FUA {}, scheduler {}, logical block {} B, {} requests queued at most",
                queue("write_cache"),
                queue("fua"),
                queue("scheduler"),
                queue("logical_block_size"),
                queue("nr_requests")
            ),
            format!("a durable write is {}", self.durable_write()),
        ]
    }

    pub fn json(&self) -> Value {
        json!({
            "filesystem": self.filesystem, "source": self.source, "mount_point": self.mount_point, "mount_options": self.mount_options, "rests_on": self.rests_on,
            "write_cache": self.queue("write_cache"), "fua": self.has_fua(), "scheduler": self.queue("scheduler"),
            "logical_block_bytes": self.queue("logical_block_size"), "durable_write": self.durable_write(),
        })
    }
}

/// A line of /proc/self/mountinfo (proc(5)).
struct Mount<'a> {
    number: &'a str,
    point: &'a str,
    options: &'a str,
    filesystem: &'a str,
    source: &'a str,
    filesystem_options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Optional fields of any number stand before the dash.
        let (first, second) = line.split_once(" - ")?;
        let first: Vec<&str> = first.split(' ').collect();
        let second: Vec<&str> = second.split(' ').collect();
        Some(Self {
            number: first.get(2)?,
            point: first.get(4)?,
            options: first.get(5)?,
            filesystem: second.first()?,
            source: second.get(1)?,
            filesystem_options: second.get(2)?,
        })
    }
}

/// The disk of a partition: only a disk has a request queue.
fn disk_of(block: &Path) -> Option<PathBuf> {
    let block = block.canonicalize().ok()?;
    if block.join("partition").exists() { Some(block.parent()?.to_path_buf()) } else { Some(block) }
}

fn rests_on(block: &Path) -> Option<String> {
    if let Ok(file) = fs::read_to_string(block.join("loop/backing_file")) {
        return Some(format!("the file {}", file.trim()));
    }
    let names: Vec<String> =
        fs::read_dir(block.join("slaves")).ok()?.flatten().map(|device| device.file_name().to_string_lossy().into_owned()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo() {
        let mount = Mount::parse("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue").unwrap();
        assert_eq!((mount.number, mount.point, mount.options), ("98:0", "/mnt2", "rw,noatime"));
        assert_eq!((mount.filesystem, mount.source, mount.filesystem_options), ("ext3", "/dev/root", "rw,errors=continue"));
    }
}
