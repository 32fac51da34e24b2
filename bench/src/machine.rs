//! What was measured on: the machine in a few lines, its disk as `corelane-perf` sees it, and the congestion control that all sockets get.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::cores;

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Everything that makes a result comparable.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub lines: Vec<String>,
    /// `corelane-perf probe disk --json`, as it printed it.
    pub disk_probe: Option<serde_json::Value>,
    pub disk_probe_missing: Option<String>,
    /// `corelane-perf floor --check --json`: whether the floor is one.
    pub floor_check: Option<serde_json::Value>,
}

impl Machine {
    /// With the disk under `directory`; `perf` is `corelane-perf`, if there is one.
    pub fn look(directory: &Path, perf: Option<&Path>) -> Machine {
        let (disk_probe, disk_probe_missing) =
            match perf.ok_or_else(|| "no corelane-perf was found".to_string()).and_then(|perf| probe(perf, directory)) {
                Ok(probe) => (Some(probe), None),
                Err(why) => (None, Some(why)),
            };
        Machine { lines: describe(directory), disk_probe, disk_probe_missing, floor_check: None }
    }
}

/// Whether a write and an exchange by themselves take about as long as the floor. Otherwise it is not the least that there is, and no table may name it.
pub fn check_floor(perf: &Path, directory: &Path, core: usize) -> Result<serde_json::Value, String> {
    let directory = directory.join("floor-check");
    let mut command = Command::new(perf);
    command.args(["floor", "--check", "--json", "--ring-mib", "64", "--core", &core.to_string(), "--directory"]).arg(&directory);
    let output = command.output().map_err(|error| format!("{}: {error}", perf.display()));
    let _ = fs::remove_dir_all(&directory);
    let output = output?;
    let check: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        format!("its check failed: {}", String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it said nothing"))
    })?;
    let us = |name: &str| check[name].as_f64().unwrap_or(0.0);
    if check["holds"] != true {
        let (floor, allowed) = (us("floor_p50_us"), us("allowed_p50_us"));
        return Err(format!(
            "its p50 of {floor:.0} us is above the {allowed:.0} us that its parts allow, so it is not the least that there is"
        ));
    }
    Ok(check)
}

fn describe(directory: &Path) -> Vec<String> {
    let first_line = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_string();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':']));
    vec![
        format!("kernel {}", first_line("/proc/sys/kernel/osrelease")),
        format!("{} cores of {processor}; the disk's interrupts go to core {}", cores::of_process().len(), cores::disk_interrupt_core()),
        first_line("/proc/meminfo"),
        format!("data on {}", mount_of(directory)),
        format!("TCP congestion control {}", first_line(CONGESTION_CONTROL)),
        format!("load {}", first_line("/proc/loadavg")),
    ]
}

fn probe(perf: &Path, directory: &Path) -> Result<serde_json::Value, String> {
    let output = Command::new(perf).args(["probe", "disk", "--quick", "--json", "--directory"]).arg(directory).output();
    let output = output.map_err(|error| format!("{}: {error}", perf.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{} probe disk: {}",
            perf.display(),
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it failed")
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{} probe disk: {error}", perf.display()))
}

/// Filesystem, device and options of the mount that holds `directory`.
fn mount_of(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && directory.starts_with(fields[1]));
    let nearest = fields.max_by_key(|fields| fields[1].len());
    nearest.map_or("an unknown filesystem".to_string(), |fields| format!("{} ({}, {})", fields[2], fields[0], fields[3]))
}

/// The system's congestion control while a comparison runs: a broker that cannot choose its own takes this one. Put back at the end.
pub struct CongestionControl {
    before: Option<String>,
}

impl CongestionControl {
    /// Says why not, if not.
    pub fn set(name: &str) -> Result<CongestionControl, String> {
        let before = fs::read_to_string(CONGESTION_CONTROL).map_err(|error| error.to_string())?.trim().to_string();
        if before == name {
            return Ok(CongestionControl { before: None });
        }
        fs::write(CONGESTION_CONTROL, name).map_err(|error| format!("{CONGESTION_CONTROL} stays {before}: {error}"))?;
        Ok(CongestionControl { before: Some(before) })
    }
}

impl Drop for CongestionControl {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Whoever may set it may set it back.
            let _ = fs::write(CONGESTION_CONTROL, before);
        }
    }
}
