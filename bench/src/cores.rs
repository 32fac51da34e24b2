//! Which core does what, and who comes first on it.

use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thread_priority::ThreadPriority;
use thread_priority::unix::{RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id};

use crate::failure::Failure;

/// Keeps the calling thread, and what it starts, on these cores.
pub fn pin_this_thread(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(Failure::Settings(format!("core {core} does not exist")));
        }
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| Failure::Settings(format!("cores {cores:?} cannot be used: {error}")))
}

/// The cores that the calling thread may use.
pub fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// The cores that the process was given, from before any thread was pinned.
pub fn of_process() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(allowed)
}

/// Moves the calling thread, which may have inherited the core of a client that spins, to all others.
pub fn keep_off(core: Option<usize>) {
    let others: Vec<usize> = of_process().iter().copied().filter(|other| Some(*other) != core).collect();
    if core.is_some() && !others.is_empty() {
        // What is not allowed leaves the thread where it is.
        let _ = pin_this_thread(&others);
    }
}

/// The core that took most of the interrupts of a disk's request queue so far; the last where none shows.
pub fn disk_interrupt_core() -> usize {
    let interrupts = std::fs::read_to_string("/proc/interrupts").unwrap_or_default();
    busiest(&interrupts).unwrap_or_else(|| allowed().last().copied().unwrap_or(0))
}

fn busiest(interrupts: &str) -> Option<usize> {
    let mut by_core: Vec<u64> = Vec::new();
    for line in interrupts.lines() {
        let is_disk = ["-req", "nvme", "ahci", "sata", "scsi"].iter().any(|word| line.contains(word));
        let counts = line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).filter(|_| is_disk);
        for (core, count) in counts.enumerate() {
            by_core.resize(by_core.len().max(core + 1), 0);
            by_core[core] += count;
        }
    }
    let most = by_core.iter().copied().max().filter(|most| *most > 0)?;
    by_core.iter().position(|count| *count == most)
}

/// Puts the calling thread before all ordinary ones, so that it runs as soon as its time has come whatever the load; false where that is not allowed.
pub fn run_first() -> bool {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, fifo).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_core_is_the_one_with_most_of_its_interrupts() {
        let interrupts = "           CPU0       CPU1\n  1:  900000  0  IO-APIC  timer\n 25:  10  4000  PCI-MSI  virtio0-req.0\n 26:  20  30  PCI-MSI  virtio0-req.1\n";
        assert_eq!(busiest(interrupts), Some(1));
        assert_eq!(busiest("CPU0\n 1: 5 IO-APIC timer\n"), None);
    }

    #[test]
    fn a_thread_stays_on_its_core() {
        let core = allowed()[0];
        std::thread::spawn(move || {
            pin_this_thread(&[core]).expect("an allowed core");
            assert_eq!(allowed(), [core]);
        })
        .join()
        .expect("pinned");
        assert!(pin_this_thread(&[1 << 20]).is_err());
    }
}
