//! The state of one core: what it owns, what it knows of the cluster, and the only door to other cores.
//!
//! A shard is one thread; everything here is `Rc` and `RefCell`, nothing is shared or locked. No borrow lives across an await.

mod mesh;
pub mod message;
mod route;
mod serve;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hashbrown::HashMap;
use uuid::Uuid;

pub use self::mesh::Mesh;
use self::message::{NewConnection, Reply, Request};
use crate::cluster::{Image, TopicIdPartition, TopicImage};
use crate::config::{Config, TopicSettings};
use crate::drive::controller::{ControllerReply, ControllerRequest};
use crate::rt::sync::{Budget, Notify, Permit};
use crate::rt::{self, ShardId, Task};

/// Bytes that decompression and recompression of clients' batches may hold at a time on one shard; a batch that needs more than all of it waits until it is alone.
const VALIDATION_MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// How a shard serves a client that the acceptor hands over; `net` says it.
pub type ConnectionHandler = Box<dyn Fn(NewConnection) -> Pin<Box<dyn Future<Output = ()>>>>;

/// One core of the broker.
pub struct Shard {
    id: ShardId,
    shards: u16,
    config: Arc<Config>,
    cluster_id: Arc<str>,
    data_directory: PathBuf,
    mesh: Rc<Mesh>,
    image: RefCell<Arc<Image>>,
    topic_settings: RefCell<HashMap<Uuid, Rc<TopicSettings>>>,
    connection_handler: OnceCell<ConnectionHandler>,
    request_memory: Budget,
    validation_memory: Budget,
    image_changed: Notify,
    stopping: Cell<bool>,
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
    /// Where partitions lie.
    pub data_directory: PathBuf,
    /// The door to the others.
    pub mesh: Rc<Mesh>,
}

impl Shard {
    /// Puts the parts together and opens the door to the other shards.
    pub fn new(parts: Parts) -> Rc<Shard> {
        let request_memory_bytes = request_memory_bytes(&parts.config, parts.shards);
        let shard = Rc::new(Shard {
            id: parts.id,
            shards: parts.shards,
            config: parts.config,
            cluster_id: parts.cluster_id,
            data_directory: parts.data_directory,
            mesh: parts.mesh,
            image: RefCell::new(Arc::new(Image::empty())),
            topic_settings: RefCell::default(),
            connection_handler: OnceCell::new(),
            request_memory: Budget::new(request_memory_bytes),
            validation_memory: Budget::new(VALIDATION_MEMORY_BYTES),
            image_changed: Notify::new(),
            stopping: Cell::new(false),
        });
        shard.mesh.listen(&shard);
        shard
    }

    /// Says how clients are served.
    pub fn set_connection_handler(&self, handler: ConnectionHandler) {
        assert!(self.connection_handler.set(handler).is_ok(), "a shard gets its connection handler once");
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// How many there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The settings that the broker was started with.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Which cluster this broker belongs to.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Where partitions lie.
    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    /// What this shard knows of the cluster.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// Fires when the image has changed.
    pub fn image_changed(&self) -> &Notify {
        &self.image_changed
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
        let settings = Rc::new(
            TopicSettings::resolve(self.image().topic_overrides(&topic.name), &self.config)
                .unwrap_or_else(|_| self.config.topic_defaults().clone()),
        );
        self.topic_settings.borrow_mut().insert(topic.id, Rc::clone(&settings));
        settings
    }

    /// Room for the bytes of a request while it is read and answered (`queued.max.request.bytes`).
    pub fn request_memory(&self) -> &Budget {
        &self.request_memory
    }

    /// Room for what the validation of `batch` may decompress.
    pub async fn validation_memory(&self, batch: &Bytes) -> Permit {
        self.validation_memory.acquire(batch.len().min(VALIDATION_MEMORY_BYTES)).await
    }

    /// Asks the shard `to`, which may be this one. The request leaves now, in the order of the calls; the future waits for the answer, and cancels the request when dropped.
    pub fn call(self: &Rc<Shard>, to: ShardId, request: Request) -> Call {
        if to == self.id {
            let shard = Rc::clone(self);
            Call::Local(rt::spawn(async move { shard.serve(request).await }))
        } else {
            Call::Remote(self.mesh.call(to, request))
        }
    }

    /// Asks the controller.
    pub async fn controller(self: &Rc<Shard>, request: ControllerRequest) -> ControllerReply {
        match self.call(ShardId(0), Request::Controller(request)).await {
            Reply::Controller(reply) => reply,
            other => unreachable!("the controller answers with its own reply, not {other:?}"),
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
    /// A task of this shard.
    Local(Task<Reply>),
    /// A message to another shard.
    Remote(mesh::RemoteCall),
}

impl Future for Call {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        match self.get_mut() {
            Call::Local(task) => Pin::new(task).poll(context),
            Call::Remote(call) => Pin::new(call).poll(context),
        }
    }
}
