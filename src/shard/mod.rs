//! The state of one core: what it owns, what it knows of the cluster, and the only door to other cores.
//!
//! A shard is one thread; everything here is `Rc` and `RefCell`, nothing is shared or locked. No borrow lives across an await.

mod append;
mod mesh;
pub mod message;
mod metadata_log;
mod publish;
mod route;
mod serve;
mod stop;
mod transactions;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hashbrown::HashMap;
use uuid::Uuid;

pub use self::append::Append;
pub use self::mesh::Mesh;
use self::message::{NewConnection, Reply, Request};
pub use self::route::owner;
use crate::cluster::{Image, TopicIdPartition, TopicImage};
use crate::config::{Config, TopicSettings};
use crate::disk::directories::DataDirectory;
use crate::disk::recovery::RecoveredPartition;
use crate::drive::controller::{Controller, ControllerReply, ControllerRequest};
use crate::drive::groups::Groups;
use crate::drive::transactions::Transactions;
use crate::partition::Partitions;
use crate::rt::sync::{Budget, Notify, Permit};
use crate::rt::{self, ShardId, Task};
use crate::wire::ErrorCode;

/// Bytes that decompression and recompression of clients' batches may hold at a time on one shard; a batch that needs more than all of it waits until it is alone.
const VALIDATION_MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// A client while it is served; in the end it has gone, or is to be served by that shard.
pub type Served = Pin<Box<dyn Future<Output = Option<(ShardId, NewConnection)>>>>;

/// Who serves the clients of a shard: `net`, which this room does not name.
pub trait ClientHandler {
    /// Serves a client until it has gone, or until it is to be served by another shard.
    fn serve(&self, new: NewConnection) -> Served;

    /// The broker's settings were altered.
    fn settings_changed(&self, config: &Config);

    /// Answers what is under way, takes nothing new, and lets go of all clients.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// One core of the broker.
pub struct Shard {
    id: ShardId,
    shards: u16,
    config: RefCell<Arc<Config>>,
    cluster_id: Arc<str>,
    mesh: Rc<Mesh>,
    image: RefCell<Arc<Image>>,
    topic_settings: RefCell<HashMap<Uuid, Rc<TopicSettings>>>,
    directories: Vec<DataDirectory>,
    /// What recovery found, until the first image says what it belongs to.
    recovered: RefCell<HashMap<TopicIdPartition, RecoveredPartition>>,
    partitions: Rc<Partitions>,
    groups: Rc<Groups>,
    transactions: Rc<Transactions>,
    controller: OnceCell<Rc<Controller>>,
    client_handler: OnceCell<Box<dyn ClientHandler>>,
    /// Appends are admitted one after the other, also while one of them waits for room in the journal.
    admission: Budget,
    request_memory: Budget,
    arriving_memory: Budget,
    validation_memory: Budget,
    image_changed: Notify,
    producer_ids: ProducerIds,
    stopping: Cell<bool>,
    stopped: Notify,
}

/// What a shard is made of.
pub struct Parts {
    /// Which one.
    pub id: ShardId,
    /// Of how many.
    pub shards: u16,
    /// The settings of the broker.
    pub config: Arc<Config>,
    /// Which cluster this broker belongs to, as meta.properties says.
    pub cluster_id: Arc<str>,
    /// Where partitions lie; new ones go into the first.
    pub directories: Vec<DataDirectory>,
    /// What recovery found of this shard's partitions.
    pub recovered: Vec<RecoveredPartition>,
    /// The door to the others.
    pub mesh: Rc<Mesh>,
    /// The replicas of this shard.
    pub partitions: Rc<Partitions>,
    /// Its group coordinators.
    pub groups: Rc<Groups>,
    /// Its transaction coordinators.
    pub transactions: Rc<Transactions>,
}

impl Shard {
    /// Puts the parts together and opens the door to the other shards.
    pub fn new(parts: Parts) -> Rc<Shard> {
        let request_memory_bytes = request_memory_bytes(&parts.config, parts.shards);
        parts.directories.iter().for_each(|directory| parts.partitions.look_after(directory));
        let shard = Rc::new(Shard {
            id: parts.id,
            shards: parts.shards,
            config: RefCell::new(parts.config),
            cluster_id: parts.cluster_id,
            mesh: parts.mesh,
            image: RefCell::new(Arc::new(Image::empty())),
            topic_settings: RefCell::default(),
            directories: parts.directories,
            recovered: RefCell::new(parts.recovered.into_iter().map(|partition| (partition.facts.partition, partition)).collect()),
            partitions: parts.partitions,
            groups: parts.groups,
            transactions: parts.transactions,
            controller: OnceCell::new(),
            client_handler: OnceCell::new(),
            admission: Budget::new(1),
            producer_ids: ProducerIds::default(),
            stopped: Notify::new(),
            request_memory: Budget::new(request_memory_bytes - request_memory_bytes / 2),
            arriving_memory: Budget::new(request_memory_bytes / 2),
            validation_memory: Budget::new(VALIDATION_MEMORY_BYTES),
            image_changed: Notify::new(),
            stopping: Cell::new(false),
        });
        shard.transactions.set_surroundings(transactions::surroundings(&shard));
        shard.mesh.listen(&shard);
        shard
    }

    /// Makes this shard the one of the controller.
    pub fn set_controller(&self, controller: Rc<Controller>) {
        assert!(self.id == ShardId(0), "the controller lives on shard 0");
        assert!(self.controller.set(controller).is_ok(), "a shard gets its controller once");
    }

    /// Says who serves clients.
    pub fn set_client_handler(&self, handler: Box<dyn ClientHandler>) {
        assert!(self.client_handler.set(handler).is_ok(), "a shard gets its client handler once");
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// How many there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The settings of the broker, as the metadata alters them.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Which cluster this broker belongs to.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Where partitions lie; new ones go into the first.
    pub fn directories(&self) -> &[DataDirectory] {
        &self.directories
    }

    /// What this shard knows of the cluster.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// Fires when the image has changed.
    pub fn image_changed(&self) -> &Notify {
        &self.image_changed
    }

    /// The replicas of this shard.
    pub fn partitions(&self) -> &Rc<Partitions> {
        &self.partitions
    }

    /// The group coordinators of this shard.
    pub fn groups(&self) -> &Rc<Groups> {
        &self.groups
    }

    /// Who owns a partition.
    pub fn owner(&self, partition: &TopicIdPartition) -> ShardId {
        route::owner(partition, self.shards)
    }

    /// The settings of a topic, resolved once for each image that changes them.
    pub fn topic_settings(&self, topic: &TopicImage) -> Rc<TopicSettings> {
        if let Some(settings) = self.topic_settings.borrow().get(&topic.id) {
            return Rc::clone(settings);
        }
        let settings = Rc::new(self.resolve_settings(&self.image(), topic));
        self.topic_settings.borrow_mut().insert(topic.id, Rc::clone(&settings));
        settings
    }

    /// Room for the bytes of a request that is there, until it is answered or waits for other clients: half of what requests may hold (`shard.queued.bytes.max`, `queued.max.request.bytes`).
    pub fn request_memory(&self) -> &Budget {
        &self.request_memory
    }

    /// Room for the bytes of a large request that is still arriving: the other half, so that clients that send slowly hold back nobody who does not send as much himself.
    pub fn arriving_memory(&self) -> &Budget {
        &self.arriving_memory
    }

    /// Room for what the validation of a batch may hold, which is `bytes` at a time.
    pub async fn validation_memory(&self, bytes: usize) -> Permit {
        self.validation_memory.acquire(bytes.min(VALIDATION_MEMORY_BYTES)).await
    }

    /// Asks the shard `to`, which may be this one. The request leaves now, in the order of the calls, but for one to a group coordinator of this shard, which begins with the first look at
    /// the answer; the future waits for the answer, and cancels the request when dropped.
    pub fn call(self: &Rc<Shard>, to: ShardId, request: Request) -> Call {
        if to != self.id {
            return Call::Remote(self.mesh.call(to, request));
        }
        let shard = Rc::clone(self);
        match request {
            Request::Append(append) => self.append_here(append),
            // Decided as soon as it is waited for. What waits for a whole group is kept in as little memory as that takes.
            Request::Group(request) => Call::Waiting(Box::pin(async move { Reply::Group(shard.groups.handle(request).await) })),
            request => Call::Local(rt::spawn(async move { shard.serve(request).await })),
        }
    }

    /// Asks the controller.
    pub async fn controller(self: &Rc<Shard>, request: ControllerRequest) -> ControllerReply {
        match self.call(ShardId(0), Request::Controller(request)).await {
            Reply::Controller(reply) => reply,
            other => unreachable!("the controller answers with its own reply, not {other:?}"),
        }
    }

    /// A producer id that nobody else has (KIP-730).
    pub async fn next_producer_id(self: &Rc<Shard>) -> Result<i64, ErrorCode> {
        loop {
            if let Some(id) = self.producer_ids.take() {
                return Ok(id);
            }
            // Several requests may ask for a block at once; the rest of one that is replaced is lost, which costs ids and nothing else.
            match self.controller(ControllerRequest::AllocateProducerIds).await {
                ControllerReply::AllocateProducerIds(Ok(block)) => self.producer_ids.refill(block),
                ControllerReply::AllocateProducerIds(Err(refusal)) => return Err(refusal.code),
                other => unreachable!("ids are answered by ids, not {other:?}"),
            }
        }
    }

    /// Whether the broker is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}

/// `shard.queued.bytes.max`, or this shard's part of `queued.max.request.bytes` where that is given and less.
fn request_memory_bytes(config: &Config, shards: u16) -> usize {
    let own = config.shard_queued_bytes_max();
    let shared = match config.queued_max_request_bytes() {
        none if none <= 0 => own,
        all => all / i64::from(shards),
    };
    own.min(shared) as usize
}

/// An answer on its way, from this shard or another.
pub enum Call {
    /// What is left of it is a wait.
    Waiting(Pin<Box<dyn Future<Output = Reply>>>),
    /// A task of this shard.
    Local(Task<Reply>),
    /// A message to another shard.
    Remote(mesh::RemoteCall),
}

impl Future for Call {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        match self.get_mut() {
            Call::Waiting(wait) => wait.as_mut().poll(context),
            Call::Local(task) => Pin::new(task).poll(context),
            Call::Remote(call) => Pin::new(call).poll(context),
        }
    }
}

/// The rest of a block of producer ids.
#[derive(Default)]
struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        let id = self.next.get();
        (id < self.end.get()).then(|| {
            self.next.set(id + 1);
            id
        })
    }

    fn refill(&self, block: std::ops::Range<i64>) {
        self.next.set(block.start);
        self.end.set(block.end);
    }
}
