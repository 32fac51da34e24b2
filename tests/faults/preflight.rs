//! What a start finds of the machine: the cores that it may run on, a filesystem without direct I/O, and who forbids what it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::batch::record;
use harness::broker::{Broker, BrokerOptions, free_port};
use harness::own_broker_cases;
use harness::places;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;

use crate::process::{self, CANNOT_START, Ended, Process, corelane, corelane_by};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    one_pinned_thread_for_each_allowed_core,
    without_direct_io_it_warns_once_and_serves,
    a_filter_that_forbids_io_uring_is_named,
    a_sysctl_that_forbids_io_uring_is_named,
    too_little_locked_memory_is_named,
];

/// The number of the call, the same on every architecture that we build for.
const IO_URING_SETUP: i64 = 425;

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

/// As container engines do by default.
fn a_filter_that_forbids_io_uring_is_named() {
    let started = Start::prepare(corelane);
    // A filter holds for the thread that asked for it, and for what that starts.
    let ended = thread::spawn(|| {
        forbid_io_uring();
        started.run()
    });
    ended.join().expect("a start").assert_refused(&[
        "io_uring is not available",
        "a seccomp filter forbids it",
        "start the container with a seccomp profile",
    ]);
}

/// The sysctl itself is the whole machine's. So the broker sees a file in its place, in a mount namespace of its own, and the kernel's refusal is that of a filter.
fn a_sysctl_that_forbids_io_uring_is_named() {
    const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";
    if !Path::new(SYSCTL).exists() || !run_command(Command::new("unshare").args(["--map-root-user", "--mount", "true"])) {
        println!("left out: no such sysctl, or no mount namespace can be made here");
        return;
    }
    for (level, told) in [("1", "unprivileged processes outside the group"), ("2", "which forbids it to everyone")] {
        let mount = format!("mount --bind sysctl {SYSCTL} && exec \"$@\"");
        let namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
        let started = Start::prepare(|folder, arguments| corelane_by(&namespace, folder, arguments));
        fs::write(started.folder.path().join("sysctl"), level).expect("a file");
        let ended = thread::spawn(|| {
            forbid_io_uring();
            started.run()
        });
        let cause = format!("the sysctl kernel.io_uring_disabled is {level}");
        ended.join().expect("a start").assert_refused(&[&cause, told, "sysctl -w kernel.io_uring_disabled=0"]);
    }
}

/// In a user namespace even root is nobody in particular, so that its limit counts.
fn too_little_locked_memory_is_named() {
    if !run_command(Command::new("unshare").args(["--user", "true"])) {
        println!("left out: no user namespace can be made here");
        return;
    }
    let limited = ["prlimit", "--memlock=65536:65536", "unshare", "--user"];
    let started = Start::prepare(|folder, arguments| corelane_by(&limited, folder, arguments));
    started.run().assert_refused(&["this process may lock 64 KiB of memory", "512 KiB are needed", "LimitMEMLOCK"]);
}

/// A start that is refused by the machine.
struct Start {
    folder: TempDir,
    command: Command,
}

struct Refused {
    ended: Ended,
    folder: TempDir,
}

impl Start {
    fn prepare(by: impl Fn(&Path, &[&str]) -> Command) -> Start {
        let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{}", free_port());
        let command = by(folder.path(), &["--data-dir", "data", "--exit-when-ready", "--set", &listeners]);
        Start { folder, command }
    }

    fn run(self) -> Refused {
        Refused { ended: process::run(self.command), folder: self.folder }
    }
}

impl Refused {
    /// One message with cause and remedy, and nothing written.
    fn assert_refused(&self, told: &[&str]) {
        let said = &self.ended.said;
        assert_eq!(self.ended.status.code(), Some(CANNOT_START), "{said}");
        assert!(told.iter().all(|part| said.contains(part)), "not all of {told:?} in: {said}");
        assert_eq!(said.matches("cause:").count(), 1, "{said}");
        assert!(!self.folder.path().join("data").exists(), "something was written");
    }
}

/// From now on this thread, and what it starts, may not make a ring.
fn forbid_io_uring() {
    let made = SeccompFilter::new(
        [(IO_URING_SETUP, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error() as u32),
        std::env::consts::ARCH.try_into().expect("an architecture with filters"),
    );
    let program: BpfProgram = made.and_then(BpfProgram::try_from).expect("a filter");
    seccompiler::apply_filter(&program).expect("a process may forbid itself calls");
}

/// A filesystem that is mounted for the test.
struct Mounted {
    path: PathBuf,
    below: PathBuf,
    _folder: TempDir,
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
        if !run_command(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&below)) {
            println!("left out: a ramfs cannot be mounted here");
            return None;
        }
        let mounted = Mounted { path, below, _folder: folder };
        let parts = ["lower", "upper", "work"].map(|name| mounted.below.join(name));
        parts.iter().for_each(|part| fs::create_dir(part).expect("a folder"));
        let [lower, upper, work] = parts.map(|part| part.display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        if !run_command(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&mounted.path)) {
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
            run_command(Command::new("umount").arg("-l").arg(path));
        }
    }
}

fn run_command(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
