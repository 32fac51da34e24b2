//! The systems under test as processes: found, started on fresh data in a folder of their own, ended by their own process ids.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::startup::{StartUp, first_acknowledgement};
use super::suite::SystemName;
use crate::cores;
use crate::cost::{Watched, idle_share, resident_bytes};
use crate::failure::Failure;
use crate::workload::Class;

/// Kafka's own start script gives a gigabyte; the flags are those that its documentation recommends.
const JVM_FLAGS: [&str; 8] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:G1HeapRegionSize=16M",
    "-XX:MinMetaspaceFreeRatio=50",
    "-XX:MaxMetaspaceFreeRatio=80",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// What a floor's ring is written with before it is ready.
const FLOOR_RING_MIB: u32 = 256;

const STOP_MAX: Duration = Duration::from_secs(30);
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Where things are and who runs where: the same for every system.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// Every round's data lies in a folder in here.
    pub directory: PathBuf,
    pub broker_core: usize,
    pub client_core: usize,
    pub corelane: Option<PathBuf>,
    /// Settings for Corelane in every case.
    pub corelane_settings: BTreeMap<String, String>,
    /// A folder of jars.
    pub kafka: Option<PathBuf>,
    pub kafka_heap: String,
    /// `corelane-perf`.
    pub perf: Option<PathBuf>,
    /// One that runs already, and its process if it is of this machine.
    pub other: Option<SocketAddr>,
    pub other_pid: Option<u32>,
    pub congestion_control: String,
    /// Where latencies of every measurement are kept.
    pub keep: Option<PathBuf>,
}

/// What one start of a system is for; cases that want the same share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub system: SystemName,
    /// Of Corelane.
    pub shards: usize,
    pub settings: BTreeMap<String, String>,
    /// Of the floor, which knows one class at a time.
    pub class: Option<Class>,
    /// Of the floor, where Corelane does too.
    pub spins: bool,
    /// A case that wants a start for itself.
    pub alone: Option<String>,
}

/// A system that answers.
pub struct Running {
    pub shape: Shape,
    pub address: SocketAddr,
    pub start_up: Option<StartUp>,
    /// As typed, for the report.
    pub command: String,
    process: Option<Child>,
    pid: Option<u32>,
    folder: Option<PathBuf>,
}

impl Place {
    /// Whether the system can be started at all; otherwise why not.
    pub fn has(&self, system: SystemName) -> Result<(), String> {
        match system {
            SystemName::Corelane if self.corelane.is_none() => Err("no binary of it was found; --corelane names one".to_string()),
            SystemName::Kafka | SystemName::KafkaPinned if self.kafka.is_none() => {
                Err("no jars of it were found; --kafka names their folder".to_string())
            }
            SystemName::Floor if self.perf.is_none() => Err("no corelane-perf was found; --perf names it".to_string()),
            SystemName::Other if self.other.is_none() => Err("--against names its address".to_string()),
            _ => Ok(()),
        }
    }

    /// Starts it and waits for its first acknowledgement.
    pub fn start(&self, shape: &Shape, idle: Duration) -> Result<Running, Failure> {
        if let (SystemName::Other, Some(address)) = (shape.system, self.other) {
            let command = format!("already running at {address}");
            return Ok(Running {
                shape: shape.clone(),
                address,
                start_up: None,
                command,
                process: None,
                pid: self.other_pid,
                folder: None,
            });
        }
        let folder = self.directory.join(format!("{}-{}-{}", shape.system.name(), std::process::id(), free_port()?));
        fs::create_dir_all(&folder).map_err(Failure::machine(folder.display()))?;
        let named = |failure: Failure| match failure {
            Failure::Unreachable(why) => Failure::Unreachable(format!("{}: {why}\n{}", shape.system.name(), end_of(&folder.join("log")))),
            other => other,
        };
        let mut running = match shape.system {
            SystemName::Floor => self.start_floor(shape, &folder)?,
            SystemName::Corelane => {
                let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
                let mut command = (self.corelane_command(shape, &folder, address)?, address);
                self.start_broker(shape, &folder, &mut command).map_err(named)?
            }
            _ => {
                let mut command = self.kafka_command(&folder)?;
                self.start_broker(shape, &folder, &mut command).map_err(named)?
            }
        };
        if let (Some(start_up), Some(pid)) = (&mut running.start_up, running.pid) {
            std::thread::sleep(idle);
            start_up.idle_cpu = idle_share(pid, idle.max(Duration::from_millis(200))).unwrap_or(0.0);
        }
        Ok(running)
    }

    fn cores_of(&self, shape: &Shape) -> Vec<usize> {
        match shape.system {
            SystemName::Kafka => cores::of_process().to_vec(),
            SystemName::Corelane if shape.shards > 1 => cores::of_process().to_vec(),
            _ => vec![self.broker_core],
        }
    }

    fn start_broker(&self, shape: &Shape, folder: &Path, command: &mut (Command, SocketAddr)) -> Result<Running, Failure> {
        let (command, address) = command;
        let typed = typed(command, &self.cores_of(shape));
        let log = File::create(folder.join("log")).map_err(Failure::machine("the log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(Failure::machine("the log"))?).stderr(log);
        let exec = Instant::now();
        let process = spawn(command, &self.cores_of(shape))?;
        let pid = process.id();
        let mut running = Running {
            shape: shape.clone(),
            address: *address,
            start_up: None,
            command: typed,
            process: Some(process),
            pid: Some(pid),
            folder: Some(folder.to_path_buf()),
        };
        let (listening, first_ack) = first_acknowledgement(*address, exec, || running.is_alive())?;
        running.start_up = Some(StartUp {
            listening_ms: listening.as_secs_f64() * 1e3,
            first_ack_ms: first_ack.as_secs_f64() * 1e3,
            resident_mb: resident_bytes(pid).unwrap_or(0) as f64 / 1e6,
            idle_cpu: 0.0,
        });
        Ok(running)
    }

    fn corelane_command(&self, shape: &Shape, folder: &Path, address: SocketAddr) -> Result<Command, Failure> {
        let binary = self.corelane.as_ref().ok_or_else(|| Failure::Settings("there is no corelane binary".to_string()))?;
        let mut command = Command::new(binary);
        command.arg("--data-dir").arg(folder.join("data")).arg("--shards").arg(shape.shards.to_string());
        let own = [
            ("listeners".to_string(), format!("PLAINTEXT://{address}")),
            ("socket.tcp.congestion.control".to_string(), self.congestion_control.clone()),
            ("group.initial.rebalance.delay.ms".to_string(), "0".to_string()),
        ];
        let given = self.corelane_settings.iter().chain(&shape.settings);
        for (key, value) in own.iter().map(|(key, value)| (key, value)).chain(given) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.current_dir(folder);
        Ok(command)
    }

    fn kafka_command(&self, folder: &Path) -> Result<(Command, SocketAddr), Failure> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let controller = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let properties = folder.join("server.properties");
        fs::write(&properties, kafka_properties(address, controller, &folder.join("data")))
            .map_err(Failure::machine(properties.display()))?;
        let format = self.java()?.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties).output();
        let format = format.map_err(Failure::machine("java"))?;
        if !format.status.success() {
            return Err(Failure::Machine(format!("Kafka's storage tool: {}", String::from_utf8_lossy(&format.stderr).trim())));
        }
        Ok((self.formatted_kafka_command(folder)?, address))
    }

    /// On a folder that has its properties, and data.
    fn formatted_kafka_command(&self, folder: &Path) -> Result<Command, Failure> {
        let mut command = self.java()?;
        command.arg("kafka.Kafka").arg(folder.join("server.properties")).current_dir(folder);
        Ok(command)
    }

    /// Stops a broker as a person would and starts it on what it left; gives the time of its exec, and does not wait for it.
    pub fn restart(&self, running: &mut Running) -> Result<Instant, Failure> {
        let folder =
            running.folder.clone().ok_or_else(|| Failure::Settings("what was not started here is not started again".to_string()))?;
        let mut command = match running.shape.system {
            SystemName::Corelane => self.corelane_command(&running.shape, &folder, running.address)?,
            SystemName::Kafka | SystemName::KafkaPinned => self.formatted_kafka_command(&folder)?,
            SystemName::Floor | SystemName::Other => return Err(Failure::Settings("only brokers keep what they had".to_string())),
        };
        running.end();
        let log = File::options().append(true).open(folder.join("log")).map_err(Failure::machine("the log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(Failure::machine("the log"))?).stderr(log);
        let exec = Instant::now();
        let process = spawn(&mut command, &self.cores_of(&running.shape))?;
        running.pid = Some(process.id());
        running.process = Some(process);
        Ok(exec)
    }

    fn java(&self) -> Result<Command, Failure> {
        let jars = self.kafka.as_ref().ok_or_else(|| Failure::Settings("there are no jars of Kafka".to_string()))?;
        let mut command = Command::new("java");
        command.args([format!("-Xms{}", self.kafka_heap), format!("-Xmx{}", self.kafka_heap)]).args(JVM_FLAGS);
        command.args(["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]).arg(jars.join("*"));
        Ok(command)
    }

    fn start_floor(&self, shape: &Shape, folder: &Path) -> Result<Running, Failure> {
        let binary = self.perf.as_ref().ok_or_else(|| Failure::Settings("there is no corelane-perf".to_string()))?;
        let mut command = Command::new(binary);
        command.arg("floor").args([
            "--listen",
            "127.0.0.1:0",
            "--core",
            &self.broker_core.to_string(),
            "--ring-mib",
            &FLOOR_RING_MIB.to_string(),
        ]);
        match shape.class {
            Some(Class::A) => command.arg("--memory"),
            _ => command.arg("--directory").arg(folder.join("data")),
        };
        if shape.spins {
            command.arg("--spin");
        }
        let log = File::create(folder.join("log")).map_err(Failure::machine("the log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let typed = typed(&command, &[self.broker_core]);
        let mut process = spawn(&mut command, &[self.broker_core])?;
        let mut line = String::new();
        let out = process.stdout.take().expect("it is piped");
        let read = BufReader::new(out).read_line(&mut line);
        let pid = process.id();
        let mut running = Running {
            shape: shape.clone(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            start_up: None,
            command: typed,
            process: Some(process),
            pid: Some(pid),
            folder: Some(folder.to_path_buf()),
        };
        let address = read.ok().and_then(|_| line.trim().strip_prefix("ready ")?.parse().ok());
        running.address =
            address.ok_or_else(|| Failure::Unreachable(format!("the floor said {line:?}\n{}", end_of(&folder.join("log")))))?;
        Ok(running)
    }
}

impl Running {
    pub fn watched(&self) -> Vec<Watched> {
        self.pid.map(|pid| Watched { name: self.shape.system.name().to_string(), pid }).into_iter().collect()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| matches!(process.try_wait(), Ok(None)))
    }

    pub fn stop(mut self) {
        self.end();
    }

    /// SIGTERM, and what must be if that does not do.
    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            if let Some(pid) = Pid::from_raw(process.id() as i32) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let deadline = Instant::now() + STOP_MAX;
            while Instant::now() < deadline && matches!(process.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(folder) = self.folder.take() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn kafka_properties(address: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    [
        "process.roles=broker,controller".to_string(),
        "node.id=1".to_string(),
        format!("controller.quorum.voters=1@{controller}"),
        format!("listeners=PLAINTEXT://{address},CONTROLLER://{controller}"),
        "controller.listener.names=CONTROLLER".to_string(),
        format!("log.dirs={}", data.display()),
        "offsets.topic.replication.factor=1".to_string(),
        "transaction.state.log.replication.factor=1".to_string(),
        "transaction.state.log.min.isr=1".to_string(),
        "share.coordinator.state.topic.replication.factor=1".to_string(),
        "share.coordinator.state.topic.min.isr=1".to_string(),
        "group.initial.rebalance.delay.ms=0".to_string(),
    ]
    .join("\n")
        + "\n"
}

/// A child inherits the cores of the thread that starts it.
fn spawn(command: &mut Command, cores: &[usize]) -> Result<Child, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            cores::pin_this_thread(cores)?;
            command.spawn().map_err(Failure::machine(program))
        });
        starting.join().expect("starting a process does not panic")
    })
}

fn typed(command: &Command, cores: &[usize]) -> String {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy());
    format!("taskset -c {} {}", cores.join(","), words.collect::<Vec<_>>().join(" "))
}

/// A port that nobody listens on now. Another process may take it in between; the broker then says so.
fn free_port() -> Result<u16, Failure> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(Failure::machine("a free port"))
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
