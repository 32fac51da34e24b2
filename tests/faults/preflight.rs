//! What a start finds of the machine: the cores that it may run on, and a filesystem without direct I/O.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::batch::record;
use harness::broker::{Broker, BrokerOptions, free_port};
use harness::own_broker_cases;
use harness::places;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;

use crate::process::{Process, corelane, corelane_by};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![one_pinned_thread_for_each_allowed_core, without_direct_io_it_warns_once_and_serves];

/// Also for a process that may not run everywhere, as in a container.
fn one_pinned_thread_for_each_allowed_core() {
    let allowed = allowed_cores();
    assert_eq!(shards_of(None), allowed, "a shard on each core");
    let last = allowed.last().expect("a process runs somewhere").clone();
    assert_eq!(shards_of(Some(&last)), vec![last], "one shard, on the core that is left");
}

/// The cores that the shards of a broker are pinned to, in the order of the shards. The broker may run on all, or on `core` only.
fn shards_of(core: Option<&str>) -> Vec<String> {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port());
    let arguments = ["--data-dir", "data", "--set", &listeners];
    let broker = Process::ready(match core {
        Some(core) => corelane_by(&["taskset", "--cpu-list", core], folder.path(), &arguments),
        None => corelane(folder.path(), &arguments),
    });
    let threads = fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("a running process has threads");
    let mut cores = BTreeMap::new();
    for thread in threads {
        let thread = thread.expect("an entry").path();
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        if let Some(shard) = name.trim().strip_prefix("shard-").and_then(|number| number.parse::<usize>().ok()) {
            let core = cores_of(thread);
            // Its executor has a thread for blocking calls, which inherits name and core.
            assert_eq!(cores.entry(shard).or_insert_with(|| core.clone()), &core, "two cores of shard {shard}");
        }
    }
    assert!(broker.log().contains(&format!("shards={}", cores.len())), "{}", broker.log());
    cores.into_values().collect()
}

/// Every core that this process may run on, by its number.
fn allowed_cores() -> Vec<String> {
    let ranges = cores_of(PathBuf::from("/proc/self"));
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let range = |range: &str| range.split_once('-').map_or_else(|| number(range)..=number(range), |(from, to)| number(from)..=number(to));
    ranges.split(',').flat_map(range).map(|core| core.to_string()).collect()
}

fn cores_of(task: PathBuf) -> String {
    let status = fs::read_to_string(task.join("status")).expect("a running thread has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a thread may run somewhere");
    line.trim().to_string()
}

/// Writes go through the page cache. That they are flushed there is shown by the power cuts (`life::seed_1_without_direct_io`).
fn without_direct_io_it_warns_once_and_serves() {
    let Some(memory) = Mounted::without_direct_io() else { return };
    let options = BrokerOptions::default().set("journal.bytes", 4 << 20).set("shards", 1);
    let mut broker = Broker::start_on(options, &memory.path.join("data"));
    let warnings = broker.log().lines().filter(|line| line.contains("direct I/O does not work")).count();
    assert_eq!(warnings, 1, "{}", broker.log());
    let mut connection = Connection::to(&broker);
    connection.create_topic("buffered", 2);
    for offset in 0..100 {
        assert_eq!(connection.append("buffered", 0, vec![record("key", vec![7; 10_000])]), offset);
    }
    for clean in [false, true] {
        if clean {
            assert!(broker.terminate(Duration::from_secs(60)).success());
        } else {
            broker.kill();
        }
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_leaders("buffered", 2);
        assert_eq!(connection.read_all("buffered", 0, 0).len(), 100);
    }
}

/// A filesystem that is mounted for the test.
struct Mounted {
    path: PathBuf,
    below: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// ramfs refuses O_DIRECT. An overlay over it does too, and is no filesystem that the broker knows to be memory.
    fn without_direct_io() -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() {
            println!("left out: mounting a filesystem needs root");
            return None;
        }
        let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let (path, below) = (folder.path().join("mounted"), folder.path().join("below"));
        fs::create_dir(&path).and_then(|()| fs::create_dir(&below)).expect("folders");
        if !run(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&below)) {
            println!("left out: a ramfs cannot be mounted here");
            return None;
        }
        let mounted = Mounted { path, below, _folder: folder };
        let parts = ["lower", "upper", "work"].map(|name| mounted.below.join(name));
        parts.iter().for_each(|part| fs::create_dir(part).expect("a folder"));
        let [lower, upper, work] = parts.map(|part| part.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        if !run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&mounted.path)) {
            println!("left out: an overlay cannot be mounted here");
            return None;
        }
        Some(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The broker has ended before: it was made after the filesystem.
        for path in [&self.path, &self.below] {
            run(Command::new("umount").arg("-l").arg(path));
        }
    }
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
