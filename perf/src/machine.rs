//! What was measured on: the machine in a few lines, the CPU time of this process's threads, and the operations that the kernel handed to its io-wq workers. All from /proc, /sys and tracefs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::device::Device;

/// The lines that make a result comparable: kernel, processor, memory, load, filesystem and disk.
pub fn describe(directory: &Path) -> Vec<String> {
    let first_line = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_string();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':']))
        .to_string();
    let mut lines = vec![
        format!("kernel {}", first_line("/proc/sys/kernel/osrelease")),
        format!("{} cores of {processor}", ALLOWED_CORES.len()),
        first_line("/proc/meminfo"),
        format!("load {}", first_line("/proc/loadavg")),
    ];
    lines.extend(Device::under(directory).lines());
    lines
}

/// The core that took most of the interrupts of a disk's request queue so far; 0 where none shows.
pub fn disk_interrupt_core() -> usize {
    let mut by_core = BTreeMap::<usize, u64>::new();
    for line in fs::read_to_string("/proc/interrupts").unwrap_or_default().lines() {
        let is_disk = ["-req", "nvme", "ahci", "sata", "scsi"].iter().any(|word| line.contains(word));
        let counts = line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
        if is_disk {
            counts.enumerate().for_each(|(core, count)| *by_core.entry(core).or_default() += count);
        }
    }
    by_core.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(core, _)| core)
}

/// Keeps the calling thread on a core.
pub fn pin_to(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// A core beside `core`, or that one where there is no other.
pub fn other_core(core: usize) -> usize {
    ALLOWED_CORES.iter().copied().find(|other| *other != core).unwrap_or(core)
}

/// The cores that this process may use, as they were before any thread was pinned.
pub static ALLOWED_CORES: LazyLock<Vec<usize>> = LazyLock::new(corelane::rt::allowed_cores);

/// CPU time of this process: its own threads, and apart from them the io-wq workers that the kernel made for it.
#[derive(Clone, Copy, Default)]
pub struct CpuTime {
    pub own: Duration,
    pub workers: Duration,
}

impl CpuTime {
    pub fn now() -> Self {
        let mut time = Self::default();
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let nanos = read("schedstat").split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let is_worker = read("comm").starts_with("iou-wrk-");
            *(if is_worker { &mut time.workers } else { &mut time.own }) += Duration::from_nanos(nanos);
        }
        time
    }

    pub fn since(self, earlier: Self) -> Self {
        Self { own: self.own.saturating_sub(earlier.own), workers: self.workers.saturating_sub(earlier.workers) }
    }
}

/// Counts operations of the calling thread's rings that the kernel handed to an io-wq worker: by the tracepoint `io_uring:io_uring_queue_async_work`, in a trace instance of its own.
/// Needs root and a mounted tracefs; otherwise there is no count.
pub struct Punts {
    instance: Option<PathBuf>,
}

impl Punts {
    pub fn watch_this_thread() -> Self {
        Self { instance: Self::make_instance() }
    }

    /// Operations handed over so far.
    pub fn count(&self) -> Option<u64> {
        let per_core = fs::read_dir(self.instance.as_ref()?.join("per_cpu")).ok()?;
        let counted = ["entries: ", "overrun: ", "read events: "];
        let stats = per_core.flatten().filter_map(|core| fs::read_to_string(core.path().join("stats")).ok());
        Some(
            stats
                .flat_map(|stats| {
                    stats
                        .lines()
                        .filter_map(|line| counted.iter().find_map(|name| line.strip_prefix(name)?.trim().parse::<u64>().ok()))
                        .collect::<Vec<_>>()
                })
                .sum(),
        )
    }

    fn make_instance() -> Option<PathBuf> {
        let task = fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.to_string();
        let instance = Path::new("/sys/kernel/tracing/instances").join(format!("corelane-perf-{task}"));
        fs::create_dir(&instance).ok()?;
        let event = instance.join("events/io_uring/io_uring_queue_async_work");
        let armed = fs::write(event.join("filter"), format!("common_pid == {task}")).and_then(|()| fs::write(event.join("enable"), "1"));
        armed.ok().map(|()| instance)
    }
}

impl Drop for Punts {
    fn drop(&mut self) {
        if let Some(instance) = &self.instance {
            let _ = fs::remove_dir(instance);
        }
    }
}

/// CPU time so far of this process's thread of that name.
pub fn thread_cpu(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = |task: &fs::DirEntry, file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
    let nanos = tasks
        .filter(|task| read(task, "comm").trim() == name)
        .filter_map(|task| read(&task, "schedstat").split_whitespace().next()?.parse::<u64>().ok());
    Duration::from_nanos(nanos.sum())
}
