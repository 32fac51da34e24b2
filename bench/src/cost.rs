//! What a run cost the processes under test, from /proc: CPU time, memory, bytes written to the device, context switches.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Clock ticks a second of /proc/PID/stat; Linux shows 100 to every program.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process under test, by the name that tables use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Watched, String> {
        let (name, pid) = text.split_once('=').unwrap_or(("broker", text));
        let pid = pid.parse().map_err(|_| format!("{text:?}: a process id, or NAME=PID, is wanted"))?;
        Ok(Watched { name: name.to_string(), pid })
    }
}

/// Of a process since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub written_bytes: u64,
    pub context_switches: u64,
}

impl Spent {
    pub fn of(pid: u32) -> io::Result<Spent> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))
        };
        let stat = read("stat")?;
        // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        // Needs the right to look into the process; without it nothing is said of writes.
        let written = read("io").unwrap_or_default();
        let switches = fs::read_dir(format!("/proc/{pid}/task"))?
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .map(|status| number_after(&status, "voluntary_ctxt_switches:") + number_after(&status, "nonvoluntary_ctxt_switches:"))
            .sum();
        Ok(Spent {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            resident_bytes: resident_bytes(pid)?,
            written_bytes: number_after(&written, "write_bytes:"),
            context_switches: switches,
        })
    }
}

pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    Ok(number_after(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:") * 1024)
}

/// CPU share of a process that has nothing to do, to the nanosecond: /proc/PID/stat counts only hundredths.
pub fn idle_share(pid: u32, length: Duration) -> io::Result<f64> {
    let began = Instant::now();
    let before = cpu_time(pid)?;
    std::thread::sleep(length);
    let spent = cpu_time(pid)?.saturating_sub(before);
    Ok(spent.as_secs_f64() / began.elapsed().as_secs_f64())
}

/// CPU time of all threads that there are now, to the nanosecond.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let nanos = tasks.flatten().filter_map(|task| {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(nanos.sum()))
}

/// What one process spent on a window's work.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub name: String,
    pub pid: u32,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub cpu_seconds_per_million_records: Option<f64>,
    pub resident_bytes: u64,
    pub resident_bytes_max: u64,
    pub written_bytes: u64,
    pub written_per_byte: Option<f64>,
    pub context_switches: u64,
}

impl Cost {
    /// Between two looks, for so many records and bytes of values in between.
    pub fn between(
        watched: &Watched,
        before: &Spent,
        after: &Spent,
        seconds: f64,
        resident_bytes_max: u64,
        records: u64,
        bytes: u64,
    ) -> Cost {
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        let written_bytes = after.written_bytes.saturating_sub(before.written_bytes);
        Cost {
            name: watched.name.clone(),
            pid: watched.pid,
            seconds,
            cpu_seconds,
            cpu_seconds_per_million_records: (records > 0).then(|| cpu_seconds * 1e6 / records as f64),
            resident_bytes: after.resident_bytes,
            resident_bytes_max: resident_bytes_max.max(after.resident_bytes),
            written_bytes,
            written_per_byte: (bytes > 0).then(|| written_bytes as f64 / bytes as f64),
            context_switches: after.context_switches.saturating_sub(before.context_switches),
        }
    }
}

fn number_after(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_spends_time_and_memory() {
        let pid = std::process::id();
        let before = Spent::of(pid).expect("own process");
        let end = Instant::now() + Duration::from_secs(30);
        let mut after = before;
        while after.cpu_seconds < before.cpu_seconds + 0.03 && Instant::now() < end {
            after = Spent::of(pid).expect("own process");
        }
        let watched: Watched = format!("me={pid}").parse().expect("valid");
        let cost = Cost::between(&watched, &before, &after, 0.05, 0, 1_000, 0);
        assert!(cost.cpu_seconds >= 0.02 && cost.resident_bytes > 100_000, "{cost:?}");
        assert!(cost.cpu_seconds_per_million_records.is_some_and(|cpu| cpu >= 20.0) && cost.written_per_byte.is_none());
    }

    #[test]
    fn a_watched_process_may_have_a_name() {
        assert_eq!("kafka=12".parse(), Ok(Watched { name: "kafka".to_string(), pid: 12 }));
        assert_eq!("12".parse(), Ok(Watched { name: "broker".to_string(), pid: 12 }));
        assert!("kafka".parse::<Watched>().is_err());
        assert!(Spent::of(u32::MAX).is_err());
    }
}
