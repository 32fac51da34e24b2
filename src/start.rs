//! From settings to a serving broker, and from a signal to a clean end.
//!
//! Everything that can refuse a start does so before any shard runs: listeners, preflight, whose the data directories are, recovery. Then each shard builds what it owns; shard 0
//! brings the controller up, which hands the metadata to all, and opens the door to clients.

use std::fmt;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corelane::api::FetchSessions;
use corelane::cluster::METADATA_PARTITION;
use corelane::cluster::decide::start::Registration;
use corelane::cluster::image::Endpoint;
use corelane::config::{Config, Listener};
use corelane::disk::directories::DataDirectory;
use corelane::disk::journal::file::ring_path;
use corelane::disk::recovery::data_directory::{self, Identity};
use corelane::disk::recovery::{LeftAlone, Recovered, RecoveryOptions, RecoveryReport, ShardStart, mark_clean_blocking, recover_blocking};
use corelane::drive::controller::Controller;
use corelane::drive::groups::Groups;
use corelane::drive::metadata_files::{MetadataFiles, check_log_blocking, inspect_blocking};
use corelane::drive::producers::expire_producers;
use corelane::drive::transactions::Transactions;
use corelane::net::Net;
use corelane::net::listener::{self, Connections};
use corelane::partition::{CleanerOptions, Partitions, PartitionsOptions, RetentionTimes};
use corelane::rt::mesh::{MeshEnd, mesh};
use corelane::rt::net::{ListenOptions, SocketOptions};
use corelane::rt::preflight::{self, Passed};
use corelane::rt::signal::Termination;
use corelane::rt::{self, ShardId};
use corelane::shard::message::Message;
use corelane::shard::{Mesh, Parts, Shard};

/// Exit code of a start that the machine or the data directories refuse (EX_CONFIG of sysexits.h).
const REFUSED: u8 = preflight::EXIT_CODE as u8;

/// Descriptors with which the broker serves a few clients and partitions.
const DESCRIPTORS_MIN: u64 = 256;

/// Segment files are opened when they are read or placed, a bounded number of them; the rest is for clients.
const DESCRIPTORS_FOR_10_000_PARTITIONS: u64 = 16_384;

/// A port that is taken may become free for so long, looked at every so often.
const PORT_PATIENCE: Duration = Duration::from_millis(1500);
const PORT_RETRY: Duration = Duration::from_millis(25);

/// Messages that may wait for one shard before its senders keep them.
const MESH_CAPACITY: usize = 4096;

/// Starts the broker and serves until SIGTERM, SIGINT or SIGHUP.
pub fn run(config: Config, exit_when_ready: bool) -> ExitCode {
    let begun = Instant::now();
    match Ground::prepare(config) {
        Err(refusal) => {
            eprintln!("corelane: {refusal}");
            ExitCode::from(REFUSED)
        }
        Ok(ground) => serve(ground, begun, exit_when_ready),
    }
}

/// What stands between the settings and a start.
#[derive(Debug)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Turns any error into a refusal.
fn refuse(error: impl fmt::Display) -> Refusal {
    Refusal(error.to_string())
}

/// A listener with its sockets, one for each address of its host.
type BoundListener = (Arc<Listener>, Vec<TcpListener>);

/// Everything that shards need before they run.
struct Ground {
    config: Arc<Config>,
    cores: Vec<usize>,
    listeners: Vec<BoundListener>,
    identity: Identity,
    directories: Vec<DataDirectory>,
    recovered: Recovered,
    termination: Termination,
    /// Holds the locks of the directories until the process ends.
    passed: Passed,
}

impl Ground {
    fn prepare(config: Config) -> Result<Ground, Refusal> {
        let cores = cores(&config)?;
        let listeners = bind(&config)?;
        let passed = preflight(&config, cores.len())?;
        passed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut paths: Vec<PathBuf> = config.log_directories().to_vec();
        if !paths.iter().any(|path| path == config.metadata_log_directory()) {
            paths.push(config.metadata_log_directory().to_path_buf());
        }
        let (identity, directories) = data_directory::open_blocking(&paths, config.node_id(), None).map_err(refuse)?;
        inspect_blocking(config.metadata_log_directory(), config.node_id(), &directories).map_err(refuse)?;
        let recovered = recover(&config, cores.len(), &directories, passed.directories.iter().all(|directory| directory.is_direct))?;
        tell_recovery(&recovered.report);
        let metadata_log =
            recovered.shards.iter().flat_map(|shard| &shard.partitions).find(|found| found.facts.partition == METADATA_PARTITION);
        check_log_blocking(config.metadata_log_directory(), metadata_log).map_err(refuse)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            shards = cores.len(),
            node_id = identity.node_id,
            cluster_id = identity.cluster_id,
            data = %config.log_directories().iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(","),
            durability = durability_class(&config),
            "starting"
        );
        let termination = Termination::listen().map_err(refuse)?;
        Ok(Ground { config: Arc::new(config), cores, listeners, identity, directories, recovered, termination, passed })
    }
}

/// The first `shards` cores that the process may run on; all of them where the setting is absent.
fn cores(config: &Config) -> Result<Vec<usize>, Refusal> {
    let allowed = rt::allowed_cores();
    match config.shards() {
        None => Ok(allowed),
        Some(wanted) if wanted as usize <= allowed.len() => Ok(allowed[..wanted as usize].to_vec()),
        Some(wanted) => {
            Err(Refusal(format!("shards={wanted}: the process may run on {} cores only; ask for at most so many shards", allowed.len())))
        }
    }
}

/// Binds what clients will dial, so that a port that is taken is known before anything is written.
fn bind(config: &Config) -> Result<Vec<BoundListener>, Refusal> {
    let buffer = |bytes: i32| usize::try_from(bytes).ok();
    let options = ListenOptions {
        backlog: config.socket_listen_backlog_size(),
        receive_buffer_bytes: buffer(config.socket_receive_buffer_bytes()),
        send_buffer_bytes: buffer(config.socket_send_buffer_bytes()),
        congestion: config.socket_tcp_congestion_control().map(str::to_owned),
    };
    let mut bound = Vec::new();
    for listener in config.broker_listeners() {
        let sockets = addresses(listener)?
            .into_iter()
            .map(|address| bind_patiently(address, &options).map_err(refuse))
            .collect::<Result<Vec<_>, _>>()?;
        bound.push((Arc::new(listener.clone()), sockets));
    }
    Ok(bound)
}

/// A killed broker's sockets are closed by the kernel a moment after its process is gone (its rings are taken apart in the background), so a port that is taken is asked for again.
fn bind_patiently(address: SocketAddr, options: &ListenOptions) -> Result<TcpListener, rt::net::BindError> {
    let patience = Instant::now() + PORT_PATIENCE;
    loop {
        match rt::net::bind(address, options) {
            Err(error) if error.error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < patience => {
                std::thread::sleep(PORT_RETRY)
            }
            bound => return bound,
        }
    }
}

/// The addresses of a listener's host; an empty host is every interface, IPv4 and IPv6.
pub fn addresses(listener: &Listener) -> Result<Vec<SocketAddr>, Refusal> {
    if listener.host.is_empty() {
        return Ok(vec![SocketAddr::from(([0_u16; 8], listener.port))]);
    }
    let host = listener.host.trim_start_matches('[').trim_end_matches(']');
    let resolved = (host, listener.port).to_socket_addrs();
    let resolved: Vec<SocketAddr> =
        resolved.map_err(|error| Refusal(format!("listener {}: cannot resolve host {host}: {error}", listener.name)))?.collect();
    // With a free port asked for, one address: two would get two ports.
    Ok(if listener.port == 0 { resolved.into_iter().take(1).collect() } else { resolved })
}

/// What the machine has to give: kernel, rings, limits, directories and their room.
fn preflight(config: &Config, shards: usize) -> Result<Passed, Refusal> {
    let journals = (0..shards).map(|shard| (ring_path(config.journal_directory(), shard as u16), config.journal_bytes() as u64)).collect();
    let mut data_directories = config.log_directories().to_vec();
    let metadata = config.metadata_log_directory().to_path_buf();
    if !data_directories.contains(&metadata) {
        data_directories.push(metadata);
    }
    let plan = preflight::Plan {
        data_directories,
        reserved_files: journals,
        descriptors_min: DESCRIPTORS_MIN,
        descriptors_for_10_000_partitions: DESCRIPTORS_FOR_10_000_PARTITIONS,
    };
    preflight::check(&plan).map_err(refuse)
}

fn recover(config: &Config, shards: usize, directories: &[DataDirectory], direct: bool) -> Result<Recovered, Refusal> {
    let shards = shards as u16;
    let options = RecoveryOptions {
        data_directories: directories,
        journal_directory: config.journal_directory(),
        journal_bytes: config.journal_bytes() as u64,
        shards,
        owner: &|partition| corelane::shard::owner(partition, shards).0,
        direct,
        now_ms: rt::wall_clock_ms(),
    };
    recover_blocking(&options).map_err(refuse)
}

fn tell_recovery(report: &RecoveryReport) {
    let milliseconds = report.duration.as_millis() as u64;
    tracing::info!(
        clean = report.was_clean,
        partitions = report.partitions,
        journal_entries = report.entries,
        redone = report.redone,
        scanned = report.scanned,
        milliseconds,
        "storage recovered"
    );
    if let Some(path) = &report.life_lost {
        tracing::warn!(path = %path.display(), "missing; the data directories were stopped cleanly and need nothing of the journals beside it, which begin anew");
    }
    for LeftAlone { path, why } in &report.left_alone {
        tracing::warn!(path = %path.display(), why, "left alone: nothing of this directory is served");
    }
    for path in &report.set_aside {
        tracing::warn!(path = %path.display(), "set aside: its content does not follow from the log before it");
    }
}

fn durability_class(config: &Config) -> &'static str {
    let topic = config.topic_defaults();
    match () {
        _ if topic.write_caching => "topics are acknowledged from memory unless their own settings say otherwise",
        _ if topic.flush_messages > 1 => {
            "topics are acknowledged when they survive the process and flushed later, unless their own settings say otherwise"
        }
        _ => "every acknowledgement is on stable storage, but for topics whose own settings say otherwise",
    }
}

/// Runs the shards until the broker is told to stop.
fn serve(ground: Ground, begun: Instant, exit_when_ready: bool) -> ExitCode {
    let shards = ground.cores.len();
    let Ground { config, cores, listeners, identity, directories, recovered, termination, passed: _locks } = ground;
    let mut termination = Some(termination);
    let ends: Vec<MeshEnd<Message>> = mesh(shards, MESH_CAPACITY);
    let listener_settings: Vec<Arc<Listener>> = listeners.iter().map(|(listener, _)| Arc::clone(listener)).collect();
    let mut sockets = Some(listeners);
    let mut deleted = recovered.report.deleted;
    let mut plans = Vec::new();
    for (end, start) in ends.into_iter().zip(recovered.shards) {
        plans.push(Some(ShardPlan {
            config: Arc::clone(&config),
            shards: shards as u16,
            end,
            start,
            listeners: listener_settings.clone(),
            identity: identity.clone(),
            directories: directories.clone(),
            deleted: std::mem::take(&mut deleted),
            sockets: sockets.take().unwrap_or_default(),
            termination: termination.take(),
            begun,
            exit_when_ready,
        }));
    }
    let plans = Arc::new(Mutex::new(plans));
    let clean_epoch = Arc::new(Mutex::new(None));
    let outcome = Arc::clone(&clean_epoch);
    config.latency_trace_file().map(Path::new).into_iter().for_each(rt::stages::trace_to);
    let idle_poll = Duration::from_micros(config.poll_idle_us() as u64);
    let started = rt::Options::new(&cores).idle_poll(idle_poll).start(move |shard| {
        let plan = plans.lock().expect("no shard panics with the lock")[usize::from(shard.0)].take().expect("a shard starts once");
        let outcome = Arc::clone(&outcome);
        async move {
            if let Some(broker_epoch) = plan.live(shard).await {
                *outcome.lock().expect("no shard panics with the lock") = Some(broker_epoch);
            }
            if let Err(error) = rt::stages::write_trace(shard) {
                tracing::error!(%error, "the latency trace cannot be written");
            }
        }
    });
    match started {
        Err(error) => {
            eprintln!("corelane: {error}");
            ExitCode::from(REFUSED)
        }
        Ok(running) => {
            running.join();
            let clean_epoch = *clean_epoch.lock().expect("the shards have ended");
            finish(clean_epoch, &config, &directories)
        }
    }
}

/// The last step of a clean stop: the directories say that they are whole.
fn finish(clean_epoch: Option<i64>, config: &Config, directories: &[DataDirectory]) -> ExitCode {
    let Some(broker_epoch) = clean_epoch else {
        tracing::warn!("stopped; the next start recovers from the journals");
        return ExitCode::FAILURE;
    };
    match mark_clean_blocking(config.journal_directory(), directories, broker_epoch) {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "stopped, but the directories are not marked clean; the next start recovers from the journals");
            ExitCode::FAILURE
        }
    }
}

/// What one shard is made from, carried to its thread.
struct ShardPlan {
    config: Arc<Config>,
    shards: u16,
    end: MeshEnd<Message>,
    start: ShardStart,
    listeners: Vec<Arc<Listener>>,
    identity: Identity,
    directories: Vec<DataDirectory>,
    /// Directories of deleted partitions, for shard 0 to remove.
    deleted: Vec<PathBuf>,
    /// For shard 0, which accepts for all.
    sockets: Vec<BoundListener>,
    termination: Option<Termination>,
    begun: Instant,
    exit_when_ready: bool,
}

impl ShardPlan {
    /// The life of a shard. On shard 0 the answer is the broker's epoch if the stop was clean.
    async fn live(mut self, id: ShardId) -> Option<i64> {
        let sockets = std::mem::take(&mut self.sockets);
        let (begun, exit_when_ready) = (self.begun, self.exit_when_ready);
        let (identity, directories, listeners) = (self.identity.clone(), self.directories.clone(), self.listeners.clone());
        let ports: Vec<u16> = sockets.iter().map(|(_, bound)| bound[0].local_addr().map_or(0, |address| address.port())).collect();
        let termination = self.termination.take();
        let built = self.build(id);
        if id != ShardId(0) {
            built.shard.stopped().await;
            return None;
        }
        let connections: Rc<Connections> = Rc::default();
        let controller = match start_controller(&built.shard, &identity, &directories, &listeners, &ports).await {
            Ok(controller) => controller,
            Err(error) => {
                tracing::error!(%error, "the metadata cannot be served");
                eprintln!("corelane: {error}");
                built.shard.stop_all(None).await;
                return None;
            }
        };
        accept(&built, sockets, &connections);
        tracing::info!(milliseconds = begun.elapsed().as_millis() as u64, "ready");
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
        if let Some(termination) = termination.filter(|_| !exit_when_ready) {
            let signal = termination.wait().await;
            tracing::info!(?signal, "stopping");
        }
        connections.stop();
        built.shard.stop_all(Some(&controller)).await
    }
}

/// A shard whose rooms stand.
struct Built {
    shard: Rc<Shard>,
}

impl ShardPlan {
    fn build(self, id: ShardId) -> Built {
        let config = &self.config;
        let (journal, placement) = self.start.begin();
        let options = PartitionsOptions {
            tail_bytes_max: config.shard_tail_cache_bytes() as usize,
            retention: RetentionTimes {
                interval: Duration::from_millis(config.log_retention_check_interval_ms() as u64),
                initial_delay: Duration::from_millis(config.log_initial_task_delay_ms() as u64),
            },
            direct: self.start.direct,
            files_are_whole: self.start.files_are_whole,
            cleaner: CleanerOptions::new(config, self.shards),
            move_bytes_per_second: config.replica_alter_log_dirs_io_max_bytes_per_second() as f64 / f64::from(self.shards),
            ..PartitionsOptions::default()
        };
        let partitions = Partitions::new(journal, placement, options);
        partitions.remove_directories(self.deleted);
        let groups = Groups::new(Rc::clone(&partitions), Arc::clone(config));
        let transactions = Transactions::new(Rc::clone(&partitions), Arc::clone(config));
        let shard = Shard::new(Parts {
            id,
            shards: self.shards,
            config: Arc::clone(config),
            cluster_id: Arc::from(self.identity.cluster_id.as_str()),
            directories: self.directories,
            recovered: self.start.partitions,
            mesh: Mesh::new(self.end),
            partitions,
            groups,
            transactions,
        });
        let watched = Rc::downgrade(&shard);
        let settings = move || watched.upgrade().map(|shard| shard.config());
        rt::spawn_background(expire_producers(Rc::downgrade(shard.partitions()), settings)).detach();
        let sessions = config.max_incremental_fetch_session_cache_slots() as usize / usize::from(self.shards);
        let net = Net::new(&shard, self.listeners, socket_options(config), FetchSessions::new(sessions));
        shard.set_client_handler(Box::new(Rc::clone(&net)));
        rt::spawn_background(Rc::clone(&net).reap()).detach();
        Built { shard }
    }
}

/// Brings the metadata up on shard 0: its log first, then the controller, which hands the image to all shards before this returns.
async fn start_controller(
    shard: &Rc<Shard>,
    identity: &Identity,
    directories: &[DataDirectory],
    listeners: &[Arc<Listener>],
    ports: &[u16],
) -> Result<Rc<Controller>, Refusal> {
    let config = shard.config();
    let log = shard.open_metadata_log().await.map_err(refuse)?;
    let registration = Registration {
        node_id: identity.node_id,
        incarnation_id: rt::random_uuid(),
        endpoints: endpoints(listeners, ports),
        controller_endpoints: config
            .listeners()
            .iter()
            .filter(|listener| listener.controller)
            .map(|listener| endpoint(listener, listener.port))
            .collect(),
        rack: config.broker_rack().map(Arc::from),
        directories: directories.iter().map(|directory| directory.id).collect(),
    };
    let files = MetadataFiles::new(config.metadata_log_directory());
    let controller = Controller::start(shard.surroundings(log), files, Arc::clone(&config), &registration).await.map_err(refuse)?;
    shard.set_controller(Rc::clone(&controller));
    Ok(controller)
}

fn endpoints(listeners: &[Arc<Listener>], ports: &[u16]) -> Vec<Endpoint> {
    listeners.iter().zip(ports).map(|(listener, port)| endpoint(listener, *port)).collect()
}

fn endpoint(listener: &Listener, bound_port: u16) -> Endpoint {
    let (host, port) = match &listener.advertised {
        Some(told) => (told.host.as_str(), if told.port == 0 { bound_port } else { told.port }),
        None if listener.host.is_empty() => ("localhost", bound_port),
        None => (listener.host.as_str(), bound_port),
    };
    Endpoint { name: Arc::from(listener.name.as_str()), host: Arc::from(host), port, security_protocol: listener.protocol.code() }
}

fn socket_options(config: &Config) -> SocketOptions {
    SocketOptions {
        nodelay: true,
        keepalive: true,
        congestion: config.socket_tcp_congestion_control().map(str::to_owned),
        // The listening socket has them already; an accepted one inherits.
        receive_buffer_bytes: None,
        send_buffer_bytes: None,
    }
}

fn accept(built: &Built, sockets: Vec<BoundListener>, connections: &Rc<Connections>) {
    for (index, (_, bound)) in sockets.into_iter().enumerate() {
        for socket in bound {
            let listener = rt::net::Listener::from_std(socket).expect("a bound socket can be listened on");
            let accept = listener::accept(Rc::clone(&built.shard), listener, index, Rc::clone(connections));
            rt::spawn(accept).detach();
        }
    }
}
