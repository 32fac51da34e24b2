//! Arguments. Those of a run are the workload's settings, each of which wins over the workload's file.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use corelane_bench::cost::Watched;
use corelane_bench::failure::Failure;
use corelane_bench::scenario::Target;
use corelane_bench::workload::{Class, ClientKind, Codec, GroupProtocol, Rate, Scenario, Workload};
use corelane_bench::{builtin, omb};

use crate::compare_command::CompareArguments;
use crate::start_command::StartArguments;

/// Measures any Kafka-compatible broker through its socket.
///
/// Exit codes: 0 done; 1 something of this machine; 2 arguments; 3 settings; 4 broker unreachable; 5 topic exists with other settings; 6 the client cannot keep the rate;
/// 7 the broker refused; 8 the broker is gone; 9 acknowledged records were not read back as sent; 10 the machine was disturbed; 11 a target was missed.
#[derive(Parser)]
#[command(name = "corelane-bench", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Acknowledged latency of records sent at a fixed rate, or the highest rate.
    Produce(RunArguments),
    /// The same, with consumers at the tail: latency from the schedule to the consumer.
    E2e(RunArguments),
    /// How fast consumers read a backlog.
    Consume(RunArguments),
    /// Readers of a backlog beside producers and tail consumers.
    Mixed(RunArguments),
    /// One request with records for every partition.
    Fanout(RunArguments),
    /// Many connections, idle or coming and going, beside a light load.
    Connections(RunArguments),
    /// Many members of many groups, which commit offsets.
    Groups(RunArguments),
    /// One transaction after another from each producer, each of `--batch-records` records.
    Transactions(RunArguments),
    /// What the workload's file says.
    Run(RunArguments),
    /// A workload's file of the OpenMessaging Benchmark.
    Omb(RunArguments),
    /// Systems side by side: Corelane, Apache Kafka, the floor of this machine, or any broker that is running.
    Compare(CompareArguments),
    /// How long a broker takes to serve the data that it has: time to each step, memory, open files. It is left running.
    Start(StartArguments),
    /// The client's own floor: against a process that answers at once.
    #[command(name = "self")]
    Own(SelfArguments),
    /// That process.
    #[command(hide = true)]
    Responder(ResponderArguments),
}

#[derive(Args)]
pub struct RunArguments {
    /// A workload's file, or the name of one that comes with this program.
    pub file: Option<PathBuf>,
    /// The broker.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    #[command(flatten)]
    settings: Settings,
    /// The core that the client spins on; take one that the broker does not need.
    #[arg(long)]
    core: Option<usize>,
    /// TCP congestion control of the client's sockets.
    #[arg(long)]
    congestion_control: Option<String>,
    /// A process under test, as PID or NAME=PID, for what the run cost it; may be repeated.
    #[arg(long = "pid")]
    watched: Vec<Watched>,
    /// Where to keep latencies, as PATH-NAME.hlog and PATH-NAME.hgrm.
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Write a page here.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Say nothing while it runs.
    #[arg(long)]
    quiet: bool,
    /// Print the workload as a file and do nothing.
    #[arg(long)]
    pub print_workload: bool,
}

/// One for each setting of a workload.
#[derive(Args)]
struct Settings {
    #[arg(long)]
    client: Option<ClientKind>,
    /// Durability: sets flush.messages.
    #[arg(long)]
    class: Option<Class>,
    /// Made for the run; without it one of its own name.
    #[arg(long)]
    topic: Option<String>,
    #[arg(long)]
    partitions: Option<i32>,
    /// A setting of the topic; may be repeated.
    #[arg(long = "topic-config", value_name = "KEY=VALUE")]
    topic_settings: Vec<String>,
    #[arg(long)]
    producers: Option<usize>,
    /// Each reads every record.
    #[arg(long)]
    subscriptions: Option<usize>,
    /// Of each subscription.
    #[arg(long)]
    consumers: Option<usize>,
    /// Records a second (of fanout requests, of groups commits, of transactions transactions), or `max`.
    #[arg(long)]
    rate: Option<Rate>,
    #[arg(long)]
    record_bytes: Option<usize>,
    /// Distinct keys; 0 for none.
    #[arg(long)]
    keys: Option<u32>,
    #[arg(long)]
    compression: Option<Codec>,
    /// Records of a request at most.
    #[arg(long)]
    batch_records: Option<usize>,
    /// How long the first record of a request waits for others.
    #[arg(long)]
    linger_ms: Option<f64>,
    /// Requests of a producer without an answer, at most.
    #[arg(long)]
    in_flight: Option<usize>,
    /// -1 or 1.
    #[arg(long, allow_negative_numbers = true)]
    acks: Option<i16>,
    #[arg(long)]
    idempotent: bool,
    /// The client sleeps between looks instead of spinning.
    #[arg(long)]
    parks: bool,
    /// Seconds that do not count.
    #[arg(long)]
    warm_up: Option<f64>,
    /// Seconds that do.
    #[arg(long)]
    duration: Option<f64>,
    /// Of consume and mixed: what lies there before.
    #[arg(long)]
    backlog_mib: Option<u64>,
    /// Of mixed.
    #[arg(long)]
    catch_up_readers: Option<usize>,
    /// Of consume: forget the page cache first.
    #[arg(long)]
    cold_cache: bool,
    #[arg(long)]
    fetch_max_bytes: Option<i32>,
    #[arg(long)]
    fetch_min_bytes: Option<i32>,
    #[arg(long)]
    fetch_max_wait_ms: Option<i32>,
    /// Of connections: how many are held.
    #[arg(long)]
    connections: Option<usize>,
    /// Of connections: how many more come and go each second.
    #[arg(long)]
    connections_per_second: Option<u64>,
    /// Of groups.
    #[arg(long)]
    groups: Option<usize>,
    /// Of groups: of each.
    #[arg(long)]
    members: Option<usize>,
    /// Of groups: all members join anew, again and again.
    #[arg(long)]
    rebalances: bool,
    /// Of groups with rebalances: classic, or consumer (KIP-848).
    #[arg(long)]
    group_protocol: Option<GroupProtocol>,
    /// Of groups of the consumer protocol: how long the coordinator rests between two assignments.
    #[arg(long)]
    assignment_interval_ms: Option<u32>,
    /// Of transactions: how many partitions each writes to.
    #[arg(long)]
    transaction_partitions: Option<usize>,
}

#[derive(Args)]
pub struct SelfArguments {
    /// The client's core; the responder takes another.
    #[arg(long)]
    pub core: Option<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    #[arg(long)]
    pub congestion_control: Option<String>,
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ResponderArguments {
    #[arg(long, default_value = "127.0.0.1:0")]
    pub address: SocketAddr,
    #[arg(long)]
    pub core: Option<usize>,
    /// Never sleep.
    #[arg(long)]
    pub spin: bool,
    /// Keep records, so that they can be read back.
    #[arg(long)]
    pub keep: bool,
}

impl RunArguments {
    /// The file's workload, or the default one, with the flags over it.
    pub fn workload(&self, scenario: Option<Scenario>) -> Result<Workload, Failure> {
        let mut workload = match &self.file {
            Some(file) => match builtin::workload(&file.to_string_lossy()) {
                Some(text) => Workload { name: file.to_string_lossy().into_owned(), ..Workload::parse(text).map_err(Failure::Settings)? },
                None => Workload::read(file)?,
            },
            None if scenario.is_none() => return Err(Failure::Settings("run: a workload's file is wanted".to_string())),
            None => Workload::default(),
        };
        if let Some(scenario) = scenario {
            workload.scenario = scenario;
        }
        self.settings.apply(&mut workload)?;
        workload.check()?;
        Ok(workload)
    }

    /// The same for a file of the OpenMessaging Benchmark, and what is to be known of it.
    pub fn omb_workload(&self) -> Result<omb::Converted, Failure> {
        let file = self.file.as_ref().ok_or_else(|| Failure::Settings("omb: a workload's file is wanted".to_string()))?;
        let mut converted = omb::read(file)?;
        self.settings.apply(&mut converted.workload)?;
        converted.workload.check()?;
        Ok(converted)
    }

    pub fn target(&self) -> Result<Target, Failure> {
        use std::io::IsTerminal;
        Ok(Target {
            address: resolve(&self.bootstrap)?,
            congestion_control: self.congestion_control.clone(),
            watched: self.watched.clone(),
            core: self.core,
            keep: self.keep.clone(),
            speak: !self.quiet && std::io::stderr().is_terminal(),
            reads_back: true,
        })
    }
}

pub fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let unknown = |why: String| Failure::Unreachable(format!("{address}: {why}"));
    let mut found = address.to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    found.next().ok_or_else(|| unknown("no address".to_string()))
}

impl Settings {
    fn apply(&self, workload: &mut Workload) -> Result<(), Failure> {
        fn set<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        set(&mut workload.client, &self.client);
        set(&mut workload.partitions, &self.partitions);
        set(&mut workload.producers, &self.producers);
        set(&mut workload.subscriptions, &self.subscriptions);
        set(&mut workload.consumers, &self.consumers);
        set(&mut workload.rate, &self.rate);
        set(&mut workload.record_bytes, &self.record_bytes);
        set(&mut workload.keys, &self.keys);
        set(&mut workload.compression, &self.compression);
        set(&mut workload.batch_records, &self.batch_records);
        set(&mut workload.in_flight, &self.in_flight);
        set(&mut workload.acks, &self.acks);
        set(&mut workload.warm_up_seconds, &self.warm_up);
        set(&mut workload.duration_seconds, &self.duration);
        set(&mut workload.backlog_mib, &self.backlog_mib);
        set(&mut workload.catch_up_readers, &self.catch_up_readers);
        set(&mut workload.fetch_max_bytes, &self.fetch_max_bytes);
        set(&mut workload.fetch_min_bytes, &self.fetch_min_bytes);
        set(&mut workload.fetch_max_wait_ms, &self.fetch_max_wait_ms);
        set(&mut workload.connections, &self.connections);
        set(&mut workload.connections_per_second, &self.connections_per_second);
        set(&mut workload.groups, &self.groups);
        set(&mut workload.members, &self.members);
        set(&mut workload.group_protocol, &self.group_protocol);
        set(&mut workload.transaction_partitions, &self.transaction_partitions);
        workload.class = self.class.or(workload.class);
        workload.topic = self.topic.clone().or(workload.topic.take());
        workload.linger_ms = self.linger_ms.or(workload.linger_ms);
        workload.assignment_interval_ms = self.assignment_interval_ms.or(workload.assignment_interval_ms);
        workload.idempotent |= self.idempotent;
        workload.parks |= self.parks;
        workload.rebalances |= self.rebalances;
        workload.cold_cache |= self.cold_cache;
        for pair in &self.topic_settings {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| Failure::Settings(format!("--topic-config {pair}: KEY=VALUE is wanted")))?;
            workload.topic_settings.insert(key.to_string(), value.to_string());
        }
        Ok(())
    }
}
