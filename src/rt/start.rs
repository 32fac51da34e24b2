//! Starting shards: one pinned thread each, with its executor, its ring and its watcher, before the first line of anybody's work runs on any of them.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::blocking::Helpers;
use super::panic::{self, OnPanic};
use super::reactor::Reactor;
use super::watcher::{counted, watch};
use super::{ShardId, cores};

/// The watcher lets glommio never park, but glommio 0.12.0 parks with ready tasks when its preempt timer (100 ms) has expired at the wrong moment, as after a stop of the process; a timer of its
/// own that is always armed bounds that sleep. It costs nothing while the shard sleeps in its own ring.
const HEARTBEAT: Duration = Duration::from_millis(10);
/// Memory that glommio keeps for its own file operations, of which we use none.
const GLOMMIO_IO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of each of glommio's rings, which carry its timers and one poll.
const GLOMMIO_RING_ENTRIES: usize = 32;

/// How to start shards.
#[derive(Clone, Debug)]
pub struct Options {
    cores: Vec<usize>,
    idle_poll: Duration,
}

impl Options {
    /// A shard on each of these cores.
    pub fn new(cores: &[usize]) -> Self {
        Self { cores: cores.to_vec(), idle_poll: Duration::ZERO }
    }

    /// How long a shard with nothing to do goes on looking before it sleeps (`poll.idle.us`). Saves about 25 us at each end of a message to a sleeping shard, for a core that never rests. 0 by default.
    pub fn idle_poll(self, idle_poll: Duration) -> Self {
        Self { idle_poll, ..self }
    }

    /// Starts the shards; `entry` is called once on each and its future is the shard's life: when it ends, the shard ends with all its tasks.
    ///
    /// Fails without a trace if any shard cannot be made. A panic on any of them ends the process.
    pub fn start<F, L>(self, entry: F) -> Result<Shards, StartError>
    where
        F: Fn(ShardId) -> L + Send + Clone + 'static,
        L: Future<Output = ()> + 'static,
    {
        assert!(!self.cores.is_empty(), "a broker has at least one shard");
        let spare_cores = spare_cores(&self.cores);
        let helpers = Helpers::start(&spare_cores, OnPanic::Abort).map_err(|error| StartError {
            shard: ShardId(0),
            step: "start the helper threads",
            error,
        })?;
        let mut starting = Vec::with_capacity(self.cores.len());
        for (number, core) in self.cores.iter().enumerate() {
            let shard = ShardId(u16::try_from(number).expect("at most 65,536 shards"));
            let plan = Plan {
                shard,
                core: Some(*core),
                worker_cores: spare_cores.clone(),
                idle_poll: self.idle_poll,
                helpers: helpers.clone(),
                on_panic: OnPanic::Abort,
            };
            let entry = entry.clone();
            starting.push(Starting::spawn(plan, move || entry(shard))?);
        }
        // Dropping the rest on a failure tells those threads to end.
        for shard in &starting {
            shard.wait_until_made()?;
        }
        Ok(Shards { threads: starting.into_iter().map(Starting::release).collect() })
    }
}

/// Starts a shard on each of `cores`. See [`Options`].
pub fn start<F, L>(cores: &[usize], entry: F) -> Result<Shards, StartError>
where
    F: Fn(ShardId) -> L + Send + Clone + 'static,
    L: Future<Output = ()> + 'static,
{
    Options::new(cores).start(entry)
}

/// Runs one future on a shard of its own, pinned nowhere, and returns its output: for tests and tools. A panic inside comes out here.
pub fn run<T, L>(entry: impl FnOnce() -> L + Send + 'static) -> T
where
    T: Send + 'static,
    L: Future<Output = T> + 'static,
{
    let helpers = Helpers::start(&[], OnPanic::Propagate).expect("helper threads can be started");
    let plan =
        Plan { shard: ShardId(0), core: None, worker_cores: Vec::new(), idle_poll: Duration::ZERO, helpers, on_panic: OnPanic::Propagate };
    let shard =
        Starting::spawn(plan, entry).and_then(|shard| shard.wait_until_made().map(|()| shard)).unwrap_or_else(|error| panic!("{error}"));
    match shard.release().join() {
        Ok(output) => output.expect("the shard was made and told to go"),
        Err(panic) => resume_unwind(panic),
    }
}

/// Shards that run.
pub struct Shards {
    threads: Vec<thread::JoinHandle<Option<()>>>,
}

impl Shards {
    /// Waits until the entry of every shard has ended.
    pub fn join(self) {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    }
}

/// A shard could not be made: the kernel refused a thread, an executor or a ring. Preflight finds most causes earlier and names their remedies.
#[derive(Debug)]
pub struct StartError {
    pub shard: ShardId,
    pub step: &'static str,
    pub error: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shard {}: cannot {}: {}", self.shard, self.step, self.error)
    }
}

impl std::error::Error for StartError {}

struct Plan {
    shard: ShardId,
    core: Option<usize>,
    worker_cores: Vec<usize>,
    idle_poll: Duration,
    helpers: Arc<Helpers>,
    on_panic: OnPanic,
}

/// A shard's thread that has been asked to make its executor and ring, and that waits for the word to go on.
struct Starting<T> {
    thread: thread::JoinHandle<Option<T>>,
    made: mpsc::Receiver<Result<(), StartError>>,
    go: mpsc::Sender<()>,
}

impl<T: Send + 'static> Starting<T> {
    fn spawn<L: Future<Output = T> + 'static>(plan: Plan, entry: impl FnOnce() -> L + Send + 'static) -> Result<Self, StartError> {
        let (made_sender, made) = mpsc::channel();
        let (go, go_receiver) = mpsc::channel();
        let shard = plan.shard;
        let thread = thread::Builder::new()
            .name(format!("shard-{shard}"))
            .spawn(move || run_shard(plan, made_sender, go_receiver, entry))
            .map_err(|error| StartError { shard, step: "start its thread", error })?;
        Ok(Self { thread, made, go })
    }

    fn wait_until_made(&self) -> Result<(), StartError> {
        self.made.recv().expect("a shard's thread says how its start went")
    }

    fn release(self) -> thread::JoinHandle<Option<T>> {
        self.go.send(()).expect("a shard that was made waits for the word");
        self.thread
    }
}

/// A shard's thread from beginning to end. None if it could not be made or was not told to go.
fn run_shard<T, L>(plan: Plan, made: mpsc::Sender<Result<(), StartError>>, go: mpsc::Receiver<()>, entry: impl FnOnce() -> L) -> Option<T>
where
    L: Future<Output = T> + 'static,
    T: 'static,
{
    let shard = plan.shard;
    panic::set_policy("a shard", plan.on_panic);
    let executor = match make_executor(&plan) {
        Ok(executor) => executor,
        Err(error) => {
            let _ = made.send(Err(StartError { shard, step: "make its executor", error }));
            return None;
        }
    };
    let life = async move {
        let reactor = match Reactor::install(shard, plan.helpers, &plan.worker_cores, plan.idle_poll) {
            Ok(reactor) => reactor,
            Err(error) => {
                let _ = made.send(Err(StartError { shard, step: "make its ring", error }));
                return None;
            }
        };
        cores::wake_on_time();
        let _ = made.send(Ok(()));
        go.recv().ok()?;
        let watcher = glommio::spawn_local(watch(reactor.clone()));
        let heartbeat = glommio::spawn_local(async {
            loop {
                glommio::timer::sleep(HEARTBEAT).await;
            }
        });
        let output = entry().await;
        heartbeat.cancel().await;
        watcher.cancel().await;
        reactor.wind_up();
        Some(output)
    };
    executor.run(counted(life))
}

fn make_executor(plan: &Plan) -> io::Result<LocalExecutor> {
    let placement = plan.core.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement).io_memory(GLOMMIO_IO_MEMORY_BYTES).ring_depth(GLOMMIO_RING_ENTRIES);
    builder.make().map_err(io::Error::other)
}

/// Cores that the process may use and that carry no shard.
fn spare_cores(taken: &[usize]) -> Vec<usize> {
    cores::allowed_cores().into_iter().filter(|core| !taken.contains(core)).collect()
}
