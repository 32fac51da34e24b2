//! What the drivers of groups and of transactions share: which coordinators a shard has, and how one is loaded and loaded again.
//!
//! A topic holds what the coordinators of one kind know, and each partition of it has one coordinator, on the shard that owns the partition. They come and go with the metadata.
//! What a coordinator is, what it answers and when it has something to do is its driver's own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::groups::log::OffsetsLog;
use super::groups::partition_log::PartitionLog;
use crate::cluster::{Image, TopicIdPartition, TopicImage};
use crate::config::{Config, TopicSettings};
use crate::partition::Partitions;
use crate::rt::sync::{Budget, Permit};
use crate::rt::{self, Task};
use crate::wire::ErrorCode;

/// Which coordinators of the shard a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinators {
    /// That of one partition of the kind's topic, which this shard is believed to own.
    Of(TopicIdPartition),
    /// All of them; for lists alone.
    All,
}

/// Coordinators of a kind and shard that load at the same time: each holds a read's worth of memory meanwhile.
const LOADS_AT_ONCE: usize = 2;

/// The most that one read of a load may bring, whatever the setting for it says.
const LOAD_BYTES_MAX: usize = 1 << 20;

/// How long a coordinator whose log failed it rests before it is loaded again.
const RELOAD_PAUSE: Duration = Duration::from_secs(5);

/// Records that are replayed between two looks at what else the shard has to do.
pub(super) const RECORDS_PER_PAUSE: usize = 256;

/// One coordinator as it is driven.
pub(super) trait Hosts {
    /// Stops serving and tells everybody who waits to look elsewhere.
    fn dismiss(&self);

    /// Resolves when the coordinator does not serve any more because its log failed it.
    async fn failed(&self);
}

/// The coordinators of one kind that this shard has.
pub(super) struct Hosting<H> {
    topic: &'static str,
    partitions: Rc<Partitions>,
    hosted: RefCell<BTreeMap<TopicIdPartition, Hosted<H>>>,
    /// `max.message.bytes` of the topic.
    batch_bytes_max: Rc<Cell<usize>>,
    loads: Budget,
}

/// A coordinator, and the task that has it loaded; dropping it ends both.
struct Hosted<H> {
    host: Rc<H>,
    _supervisor: Task<()>,
}

/// How the coordinators of a kind read and write their logs.
pub(super) struct LogLimits {
    /// How much is read at a time while loading.
    pub(super) load_bytes: i32,
    /// How long a record may take to become durable before the client hears that the coordinator is not available.
    pub(super) commit_timeout: Duration,
}

impl<H: Hosts> Hosting<H> {
    /// Without a coordinator; `image_changed` brings them.
    pub(super) fn new(topic: &'static str, partitions: Rc<Partitions>) -> Hosting<H> {
        Hosting { topic, partitions, hosted: RefCell::default(), batch_bytes_max: Rc::default(), loads: Budget::new(LOADS_AT_ONCE) }
    }

    pub(super) fn host(&self, partition: &TopicIdPartition) -> Option<Rc<H>> {
        self.hosted.borrow().get(partition).map(|hosted| Rc::clone(&hosted.host))
    }

    pub(super) fn hosts(&self) -> Vec<Rc<H>> {
        self.hosted.borrow().values().map(|hosted| Rc::clone(&hosted.host)).collect()
    }

    /// The metadata has changed, and the partitions of this shard with it: coordinators come and go with theirs. `start` makes one over its log, and the task that has it loaded.
    pub(super) fn image_changed(
        &self,
        config: &Config,
        image: &Image,
        limits: &LogLimits,
        start: impl Fn(i32, PartitionLog) -> (Rc<H>, Task<()>),
    ) {
        let led = match image.topic(self.topic) {
            Some(topic) => {
                self.take_settings(config, image, topic);
                self.led_here(config, topic)
            }
            None => Vec::new(),
        };
        self.hosted.borrow_mut().retain(|partition, hosted| {
            let stays = led.contains(partition);
            if !stays {
                hosted.host.dismiss();
            }
            stays
        });
        for id in led {
            let is_hosted = self.hosted.borrow().contains_key(&id);
            if let Some(log) = self.log_of(&id, limits).filter(|_| !is_hosted) {
                let (host, supervisor) = start(id.partition, log);
                self.hosted.borrow_mut().insert(id, Hosted { host, _supervisor: supervisor });
            }
        }
    }

    fn take_settings(&self, config: &Config, image: &Image, topic: &TopicImage) {
        match TopicSettings::resolve(image.topic_overrides(&topic.name), config) {
            Ok(settings) => self.batch_bytes_max.set(settings.max_message_bytes as usize),
            Err(error) => tracing::error!(topic = self.topic, %error, "a setting of the topic is not valid; the one before stands"),
        }
    }

    fn led_here(&self, config: &Config, topic: &TopicImage) -> Vec<TopicIdPartition> {
        let keys = (0..topic.partition_count()).map(|index| TopicIdPartition { topic_id: topic.id, partition: index });
        let is_led = |key: &TopicIdPartition| topic.partition(key.partition).is_some_and(|partition| partition.leader == config.node_id());
        keys.filter(|key| is_led(key) && self.partitions.get(key).is_some()).collect()
    }

    fn log_of(&self, id: &TopicIdPartition, limits: &LogLimits) -> Option<PartitionLog> {
        Some(PartitionLog {
            partition: self.partitions.get(id)?,
            journal: Rc::clone(self.partitions.journal()),
            batch_bytes_max: Rc::clone(&self.batch_bytes_max),
            read_bytes: (limits.load_bytes as usize).min(LOAD_BYTES_MAX),
            commit_timeout: limits.commit_timeout,
        })
    }

    /// To be held while a coordinator loads.
    pub(super) async fn turn_to_load(&self) -> Permit {
        self.loads.acquire(1).await
    }

    /// Everybody who waits is told to look elsewhere; nothing is served any more.
    pub(super) fn dismiss_all(&self) {
        for hosted in std::mem::take(&mut *self.hosted.borrow_mut()).into_values() {
            hosted.host.dismiss();
        }
    }
}

/// Has a coordinator loaded, and again whenever its log has failed it, until `load` finds its driver gone and gives None.
pub(super) async fn supervise<H: Hosts>(host: Rc<H>, load: impl AsyncFn(&H) -> Option<()>) {
    while load(&host).await.is_some() {
        host.failed().await;
        rt::sleep(RELOAD_PAUSE).await;
    }
}

/// Reads a coordinator's log to its end. `replay` takes in the batch at or after an offset and gives the offset behind it; `pause` lets others run now and then.
pub(super) async fn replay_log<E: From<ErrorCode>>(
    log: &impl OffsetsLog,
    mut replay: impl AsyncFnMut(i64, &Bytes) -> Result<i64, E>,
    pause: &impl AsyncFn(),
) -> Result<(), E> {
    let (mut offset, mut records) = (0, 0_usize);
    loop {
        let batches = log.read(offset).await?;
        if batches.is_empty() {
            return Ok(());
        }
        for batch in &batches {
            let next = replay(offset, batch).await?;
            assert!(next > offset, "the log goes forward");
            // Most batches hold one record; a pause after each would be most of the work.
            records += (next - offset) as usize;
            offset = next;
            if records >= RECORDS_PER_PAUSE {
                records = 0;
                pause().await;
            }
        }
    }
}
