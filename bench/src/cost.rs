//! What a run cost the broker, from /proc: CPU time, memory, bytes written to the device, context switches.

use std::{fs, io};

/// Clock ticks a second of /proc/PID/stat; Linux shows 100 to every program.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone)]
pub struct Cost {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub written_bytes: u64,
    pub context_switches: u64,
}

impl Cost {
    /// Of process `pid` so far.
    pub fn of(pid: u32) -> io::Result<Cost> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))
        };
        let stat = read("stat")?;
        // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let status = read("status")?;
        let written = read("io").unwrap_or_default();
        let switches = fs::read_dir(format!("/proc/{pid}/task"))?
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .map(|status| number_after(&status, "voluntary_ctxt_switches:") + number_after(&status, "nonvoluntary_ctxt_switches:"))
            .sum();
        Ok(Cost {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            resident_bytes: number_after(&status, "VmRSS:") * 1024,
            written_bytes: number_after(&written, "write_bytes:"),
            context_switches: switches,
        })
    }

    /// What came after `before`; memory is what is there now.
    pub fn since(&self, before: &Cost) -> Cost {
        Cost {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            resident_bytes: self.resident_bytes,
            written_bytes: self.written_bytes - before.written_bytes,
            context_switches: self.context_switches.saturating_sub(before.context_switches),
        }
    }
}

fn number_after(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
