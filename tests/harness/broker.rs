//! One broker process: started on a free loopback port in a folder of its own, spoken to through its socket, ended by its own process id.
//!
//! The same settings, in Kafka's words, go to either broker: to Corelane as `--set key=value`, to the original as its `server.properties`. The folder with data and log is
//! removed when the broker has ended and nothing failed; otherwise it stays and the log's end is printed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::places::{self, Target};
use crate::wait;

/// Any id will do, as long as a directory meets the same one again.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The original's heap: the machine is shared.
const KAFKA_HEAP: &str = "-Xmx512m";

/// Settings of every test broker: one node, small internal topics, groups that do not wait for members that may still come, and short intervals for members of the consumer
/// protocol, which are told theirs by the broker.
const COMMON_SETTINGS: &[(&str, &str)] = &[
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "8"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
    ("group.consumer.heartbeat.interval.ms", "300"),
    ("group.consumer.min.session.timeout.ms", "5000"),
    ("group.consumer.session.timeout.ms", "10000"),
    ("group.consumer.assignment.interval.ms", "100"),
];

/// A broker that takes longer to answer is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How to start a broker; `Default` is the broker at hand with the common settings.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    pub target: Target,
    /// More settings in Kafka's words; they win over the common ones.
    pub settings: Vec<(String, String)>,
    /// Further arguments for Corelane only.
    pub arguments: Vec<String>,
    /// More environment for the process.
    pub environment: Vec<(String, String)>,
    /// Features that the original's directory is formatted without, where it is to be opened by a broker that does not serve them.
    pub features_left_out: Vec<String>,
    /// Corelane with its own witness of durability, instead of the binary under test.
    pub is_traced: bool,
    /// Data directories beside the first: its path with -1, -2 and so on behind it.
    pub more_directories: usize,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            target: places::target(),
            settings: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            features_left_out: Vec::new(),
            is_traced: false,
            more_directories: 0,
        }
    }
}

impl BrokerOptions {
    pub fn set(mut self, key: &str, value: impl ToString) -> BrokerOptions {
        self.settings.push((key.to_string(), value.to_string()));
        self
    }

    pub fn traced(mut self) -> BrokerOptions {
        self.is_traced = true;
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> BrokerOptions {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    pub fn without_features(mut self, features: &[&str]) -> BrokerOptions {
        self.features_left_out = features.iter().map(|feature| feature.to_string()).collect();
        self
    }

    pub fn target(mut self, target: Target) -> BrokerOptions {
        self.target = target;
        self
    }
}

pub struct Broker {
    options: BrokerOptions,
    folder: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    controller_port: u16,
    process: Option<Child>,
    /// Set by a test that wants the folder to survive the broker.
    keep_folder: bool,
}

impl Broker {
    /// Starts a broker on fresh data and returns when it answers.
    pub fn start(options: BrokerOptions) -> Broker {
        let folder = new_folder();
        let data = folder.join("data");
        let mut broker = Broker::prepared(options, folder, data);
        broker.launch();
        broker
    }

    /// Starts a broker on the data that another, which has ended, left behind.
    pub fn start_on(options: BrokerOptions, data: &Path) -> Broker {
        let mut broker = Broker::prepared(options, new_folder(), data.to_path_buf());
        broker.launch();
        broker
    }

    /// A broker on that data that is not started yet: see `begin`.
    pub fn prepare_on(options: BrokerOptions, data: &Path) -> Broker {
        Broker::prepared(options, new_folder(), data.to_path_buf())
    }

    fn prepared(options: BrokerOptions, folder: PathBuf, data: PathBuf) -> Broker {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Broker { options, folder, data, address, controller_port: free_port(), process: None, keep_folder: false }
    }

    /// Starts the process again on the same port and data; it must have ended.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        self.launch();
    }

    /// A setting from the next start on.
    pub fn change_setting(&mut self, key: &str, value: &str) {
        self.options.settings.retain(|(known, _)| known != key);
        self.options.settings.push((key.to_string(), value.to_string()));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn target(&self) -> Target {
        self.options.target
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the broker runs").id()
    }

    /// `kill -9`, and its end awaited.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        process.kill().expect("a child of ours can be killed");
        process.wait().expect("a child of ours can be awaited");
    }

    /// `kill -9` where something keeps the process from ending: `release` lets go of it once the signal is on its way. Fine if it has ended already.
    pub fn kill_while(&mut self, release: impl FnOnce()) {
        let process = self.process.take();
        let process = process.map(|mut process| {
            process.kill().expect("a child of ours can be killed");
            process
        });
        release();
        process.map(|mut process| process.wait().expect("a child of ours can be awaited"));
    }

    /// SIGTERM; the way it ended, which must be within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let process = self.process.as_mut().expect("the broker runs");
        let status = wait::until("the broker to end after SIGTERM", limit, || process.try_wait().expect("a child of ours can be awaited"));
        self.process = None;
        status
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process id is not 0");
        kill_process(pid, signal).expect("a child of ours takes signals");
    }

    /// Everything that this broker has printed since its first start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process has a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has resident memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("VmRSS is a number of KiB") * 1024
    }

    /// CPU time used so far, over all threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a running process has a stat");
        let after_name = stat.rsplit_once(')').expect("the name stands in parentheses").1;
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
        // The kernel reports hundredths of a second on every architecture that we build for.
        Duration::from_millis(ticks * 10)
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().expect("a child of ours can be awaited").is_none())
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|process| process.try_wait().expect("a child of ours can be awaited"))
    }

    /// Whether it answers now.
    pub fn is_ready(&self) -> bool {
        self.is_ready_within(ANSWER_LIMIT)
    }

    /// Whether it answers within that time, where who asks has something else to look at.
    pub fn is_ready_within(&self, limit: Duration) -> bool {
        answers_api_versions(self.address, limit)
    }

    /// The last lines that it has printed.
    pub fn end_of_log(&self) -> String {
        end_of(&self.log_path())
    }

    /// How the process ended by itself, within `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("the broker runs");
        let status = wait::until("the broker to end by itself", limit, || process.try_wait().expect("a child of ours can be awaited"));
        self.process = None;
        status
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    fn launch(&mut self) {
        self.begin();
        self.wait_until_ready();
    }

    /// Starts the process and does not wait for it.
    pub fn begin(&mut self) {
        let mut command = match self.options.target {
            Target::Corelane => self.corelane_command(),
            Target::Kafka => self.kafka_command(),
        };
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log can be opened");
        // CORELANE_... variables are settings to the broker; those that are about the tests are not for it.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORELANE_")) {
            command.env_remove(name);
        }
        command.envs(self.options.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        self.process = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    fn wait_until_ready(&mut self) {
        let address = self.address;
        let process = self.process.as_mut().expect("just started");
        let log = self.folder.join("broker.log");
        wait::until("the broker to answer ApiVersions", Duration::from_secs(120), || {
            if let Some(status) = process.try_wait().expect("a child of ours can be awaited") {
                panic!("the broker ended with {status} before it was ready:\n{}", end_of(&log));
            }
            answers_api_versions(address, ANSWER_LIMIT).then_some(())
        });
    }

    /// All data directories.
    pub fn data_directories(&self) -> Vec<String> {
        let more = (1..=self.options.more_directories).map(|number| format!("{}-{number}", self.data.display()));
        std::iter::once(self.data.display().to_string()).chain(more).collect()
    }

    fn settings(&self) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = COMMON_SETTINGS.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        for (key, value) in &self.options.settings {
            settings.retain(|(known, _)| known != key);
            settings.push((key.clone(), value.clone()));
        }
        settings
    }

    fn corelane_command(&self) -> Command {
        let mut command = Command::new(if self.options.is_traced { places::traced_binary() } else { places::corelane_binary() });
        command.arg("--data-dir").arg(self.data_directories().join(","));
        let listeners = ("listeners".to_string(), format!("PLAINTEXT://{}", self.address));
        for (key, value) in self.settings().into_iter().chain([listeners]) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.args(&self.options.arguments).current_dir(&self.folder);
        command
    }

    fn kafka_command(&self) -> Command {
        let properties = self.folder.join("server.properties");
        fs::write(&properties, self.kafka_properties()).expect("a file can be written");
        if !self.data.join("meta.properties").exists() {
            let mut format = java();
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
            for feature in &self.options.features_left_out {
                format.arg("--feature").arg(format!("{feature}=0"));
            }
            let status = format.output().expect("java");
            assert!(status.status.success(), "formatting failed: {}{}", text(&status.stdout), text(&status.stderr));
        }
        let mut command = java();
        command.arg("kafka.Kafka").arg(&properties);
        command
    }

    fn kafka_properties(&self) -> String {
        let mut lines = vec![
            "process.roles=broker,controller".to_string(),
            "node.id=1".to_string(),
            format!("controller.quorum.voters=1@127.0.0.1:{}", self.controller_port),
            format!("listeners=PLAINTEXT://{},CONTROLLER://127.0.0.1:{}", self.address, self.controller_port),
            "controller.listener.names=CONTROLLER".to_string(),
            format!("log.dirs={}", self.data_directories().join(",")),
        ];
        lines.extend(self.settings().iter().map(|(key, value)| format!("{key}={value}")));
        lines.join("\n") + "\n"
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Nobody looks at this broker any more.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() || self.keep_folder {
            eprintln!("\nbroker folder kept: {}\n{}", self.folder.display(), end_of(&self.log_path()));
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Broker {
    /// Keeps data and log beyond the broker's end, and prints where they are.
    pub fn keep_folder(&mut self) {
        self.keep_folder = true;
    }
}

/// A port that nobody listens on now, below those that the kernel gives to clients: a broker that is down for a moment does not lose it to a connection. Another process may take
/// it in between; the broker then says so and the test fails with its message.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let of_process = std::process::id().wrapping_mul(97);
    let candidates = std::iter::repeat_with(|| FIRST + of_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut free = candidates.map(|port| port as u16).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("candidates have no end")
}

fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = places::scratch().join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// A JVM with the original's jars and its modest heap.
pub fn java() -> Command {
    java_with("lib")
}

/// A JVM with one folder of the original's jars (`places::kafka`).
pub fn java_with(jars: &str) -> Command {
    java_on(&places::kafka().join(jars).join("*").display().to_string())
}

/// The same, with the classes of `tests/java` before them.
pub fn java_with_our_classes(jars: &str) -> Command {
    java_on(&format!("{}:{}/*", places::tools().join("java").display(), places::kafka().join(jars).display()))
}

fn java_on(class_path: &str) -> Command {
    let mut command = Command::new("java");
    command.args([KAFKA_HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.arg("-cp").arg(class_path);
    command
}

/// Asks by hand, so that starting a broker depends on nothing else: ApiVersions version 0, correlation id 1, no client id.
fn answers_api_versions(address: SocketAddr, limit: Duration) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff])?;
        let mut head = [0; 10];
        stream.read_exact(&mut head)?;
        Ok(head[4..8] == [0, 0, 0, 1] && head[8..10] == [0, 0])
    };
    ask().unwrap_or(false)
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
