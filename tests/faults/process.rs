//! The binary as a person starts it, with nothing but the arguments and variables of the test: for cases about arguments, sources, listeners and output, which `Broker` settles by itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use harness::places;
use harness::wait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Exit code of a start that the machine or its state forbids.
pub const CANNOT_START: i32 = 78;

/// The binary in that folder, with no settings from the environment.
pub fn corelane(folder: &Path, arguments: &[&str]) -> Command {
    through(Command::new(places::corelane_binary()), folder, arguments)
}

/// The same, started by another program that becomes it: `taskset -c 0`.
pub fn corelane_by(program: &[&str], folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(places::corelane_binary());
    through(command, folder, arguments)
}

fn through(mut command: Command, folder: &Path, arguments: &[&str]) -> Command {
    // Both are settings to the broker; those that are about the tests are not for it.
    let is_setting = |name: &str| name.starts_with("CORELANE_") || name.starts_with("KAFKA_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(folder);
    command
}

/// A process of it; ended with this value.
pub struct Process {
    child: Child,
    printed: TempDir,
    /// Where its data is, unless a test keeps that itself.
    folder: Option<TempDir>,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        let printed = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let file = |name| File::create(printed.path().join(name)).expect("a file");
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, printed, folder: None }
    }

    /// Starts it and waits until clients can be served.
    pub fn ready(command: Command) -> Process {
        let mut process = Process::start(command);
        wait::until("the broker to be ready", wait::PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("it ended with {status}: {}", process.said());
            }
            process.log().lines().any(is_ready_line).then_some(())
        });
        process
    }

    /// A broker with these settings on data of its own, ready.
    pub fn with_settings(settings: &[&str]) -> Process {
        let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
        let mut arguments = vec!["--data-dir", "data"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", *setting]));
        let mut process = Process::ready(corelane(folder.path(), &arguments));
        process.folder = Some(folder);
        process
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours can be awaited")
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait::until("the broker to end by itself", wait::PATIENCE, || self.ended())
    }

    /// SIGTERM, and its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process id is not 0");
        kill_process(pid, signal).expect("a child of ours takes signals");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        text(self.printed.path().join("out"))
    }

    /// Everything that it has printed.
    pub fn said(&self) -> String {
        self.log() + &text(self.printed.path().join("err"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fine if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("\nthe broker said:\n{}", self.said());
        }
    }
}

/// Whether that line of the log, plain or JSON, says that clients can be served.
pub fn is_ready_line(line: &str) -> bool {
    line.contains(": ready ") || line.contains("\"message\":\"ready\"")
}

/// How a process ended, and what it had printed.
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
}

/// Runs it until it ends by itself.
pub fn run(command: Command) -> Ended {
    let mut process = Process::start(command);
    let status = process.wait_for_end();
    Ended { status, said: process.said() }
}

fn text(file: PathBuf) -> String {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
