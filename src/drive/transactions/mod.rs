//! The transaction coordinators of a shard: one for each partition of `__transaction_state` that it owns.
//!
//! A call finds its coordinator by the partition that the transactional id hashes to; the caller has done the hashing and asked the owner's shard. Each coordinator is driven by
//! a `host`; this file knows which there are, has them loaded, aborts what takes too long, and forgets ids that nobody uses.

mod host;
#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::host::Host;
use super::coordinators::{Hosting, LogLimits, supervise};
use crate::cluster::features::TRANSACTION_VERSION;
use crate::cluster::{Image, TopicIdPartition};
use crate::config::Config;
use crate::drive::groups::partition_log::PartitionLog;
use crate::partition::Partitions;
use crate::rt::{self, Task};
use crate::txn::{Call, Reply, TRANSACTIONS_TOPIC, TransactionConfig};
use crate::wire::{ErrorCode, Str};

pub use super::coordinators::Coordinators;

/// A call for the transaction coordinators of one shard.
#[derive(Debug)]
pub struct TransactionRequest {
    pub to: Coordinators,
    pub call: Call,
    /// How long the broker itself waits for the end of the transaction before, instead of answering CONCURRENT_TRANSACTIONS at once.
    pub patience: Duration,
}

/// The end of a transaction in some partitions, to be written by their owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub is_commit: bool,
    pub coordinator_epoch: i32,
    /// The level of transaction.version by whose rules the epoch is checked.
    pub transaction_version: i16,
    pub partitions: Vec<TopicIdPartition>,
}

pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The rooms around the coordinators, as calls: other shards and the controller belong to a room above.
pub struct TransactionSurroundings {
    /// A producer id that nobody else has.
    pub next_producer_id: Box<dyn Fn() -> LocalFuture<Result<i64, ErrorCode>>>,
    /// Writes markers at the owners of the partitions; one code for each, in order, when all are durable.
    pub write_markers: Box<dyn Fn(Markers) -> LocalFuture<Vec<ErrorCode>>>,
}

/// How long a record may take to become durable before the client hears that the coordinator is not available. Kafka takes `request.timeout.ms`, 30 seconds by default.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The transaction coordinators of this shard.
pub struct Transactions {
    hosting: Hosting<Host>,
    config: Arc<Config>,
    common: Rc<Common>,
    keeper: RefCell<Option<Task<()>>>,
}

/// What every host needs of the world.
struct Common {
    surroundings: OnceCell<TransactionSurroundings>,
    image: RefCell<Arc<Image>>,
}

impl Transactions {
    /// Without a coordinator; `image_changed` brings them, after `set_surroundings`.
    pub fn new(partitions: Rc<Partitions>, config: Arc<Config>) -> Rc<Transactions> {
        let transactions = Rc::new(Transactions {
            hosting: Hosting::new(TRANSACTIONS_TOPIC, partitions),
            config,
            common: Rc::new(Common { surroundings: OnceCell::new(), image: RefCell::new(Arc::new(Image::empty())) }),
            keeper: RefCell::default(),
        });
        let keeper = rt::spawn_background(keep_time(Rc::downgrade(&transactions)));
        transactions.keeper.replace(Some(keeper));
        transactions
    }

    /// Says how the coordinators reach the rest of the broker.
    pub fn set_surroundings(&self, surroundings: TransactionSurroundings) {
        assert!(self.common.surroundings.set(surroundings).is_ok(), "coordinators get their surroundings once");
    }

    // Calls

    /// Answers a call, when what the answer rests on is durable.
    pub async fn handle(&self, request: TransactionRequest) -> Reply {
        let TransactionRequest { to, call, patience } = request;
        match to {
            Coordinators::Of(partition) => match self.hosting.host(&partition) {
                Some(host) => host.call(&call, patience).await,
                None => call.refuse(ErrorCode::NotCoordinator),
            },
            Coordinators::All => self.list(&call).await,
        }
    }

    /// The transactions of all coordinators. One that is not up does not have its ids here; one that loads makes the list incomplete.
    async fn list(&self, call: &Call) -> Reply {
        assert!(matches!(call, Call::List { .. }), "only lists are asked of all coordinators");
        let mut listed = Vec::new();
        for host in self.hosting.hosts() {
            match host.call(call, Duration::ZERO).await {
                Reply::Listed(Ok(transactions)) => listed.extend(transactions),
                Reply::Listed(Err(ErrorCode::NotCoordinator)) => {}
                refusal => return refusal,
            }
        }
        Reply::Listed(Ok(listed))
    }

    // Which coordinators there are

    /// The metadata has changed, and the partitions of this shard with it: coordinators come and go with theirs.
    pub fn image_changed(self: &Rc<Self>, image: &Arc<Image>) {
        self.common.image.replace(Arc::clone(image));
        let limits = LogLimits { load_bytes: self.config.transaction_state_log_load_buffer_size(), commit_timeout: COMMIT_TIMEOUT };
        self.hosting.image_changed(&self.config, image, &limits, |index, log| self.start(index, log));
    }

    fn start(self: &Rc<Self>, index: i32, log: PartitionLog) -> (Rc<Host>, Task<()>) {
        let host = Host::new(log, Rc::clone(&self.common));
        let transactions = Rc::downgrade(self);
        let load = async move |host: &Host| {
            load(&*transactions.upgrade()?, host, index).await;
            Some(())
        };
        (Rc::clone(&host), rt::spawn(supervise(host, load)))
    }

    /// Everybody who waits is told to look elsewhere; nothing is served any more. What was answered is durable, and what is decided comes to its end at the next start.
    pub async fn stop(&self) {
        self.keeper.replace(None);
        self.hosting.dismiss_all();
    }
}

impl Common {
    fn surroundings(&self) -> &TransactionSurroundings {
        self.surroundings.get().expect("coordinators come after their surroundings")
    }

    fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// The finalised level of transaction.version.
    fn transaction_version(&self) -> i16 {
        self.image.borrow().feature_level(TRANSACTION_VERSION)
    }

    /// Where markers go: the partitions that are still there. Nobody can read those of a deleted topic.
    fn resolve(&self, partitions: &[(Str, i32)]) -> Vec<TopicIdPartition> {
        let image = self.image();
        let key = |(topic, partition): &(Str, i32)| {
            let topic = image.topic(topic)?;
            topic.partition(*partition).map(|_| TopicIdPartition { topic_id: topic.id, partition: *partition })
        };
        partitions.iter().filter_map(key).collect()
    }
}

fn transaction_config(config: &Config) -> TransactionConfig {
    TransactionConfig {
        timeout_ms_max: config.transaction_max_timeout_ms(),
        id_expiration_ms: i64::from(config.transactional_id_expiration_ms()),
    }
}

async fn load(transactions: &Transactions, host: &Host, index: i32) {
    let _turn = transactions.hosting.turn_to_load().await;
    let began = Instant::now();
    match host.load(transaction_config(&transactions.config)).await {
        Ok(count) => tracing::debug!(
            partition = index,
            transactional_ids = count,
            ms = began.elapsed().as_millis() as u64,
            "loaded a transaction coordinator"
        ),
        Err(error) => tracing::error!(partition = index, %error, "a transaction coordinator cannot be loaded; its ids are not served"),
    }
}

/// Aborts what takes too long and forgets what nobody uses, at the intervals of Kafka's settings.
async fn keep_time(transactions: Weak<Transactions>) {
    let Some((abort_interval, expiry_interval)) = transactions.upgrade().map(|transactions| {
        let config = &transactions.config;
        let milliseconds = |interval: i32| Duration::from_millis(interval.max(1) as u64);
        (
            milliseconds(config.transaction_abort_timed_out_transaction_cleanup_interval_ms()),
            milliseconds(config.transaction_remove_expired_transaction_cleanup_interval_ms()),
        )
    }) else {
        return;
    };
    let mut next_expiry = Instant::now() + expiry_interval;
    let mut next_abort = Instant::now() + abort_interval;
    loop {
        rt::sleep_until(next_abort.min(next_expiry)).await;
        let Some(transactions) = transactions.upgrade() else { return };
        if Instant::now() >= next_abort {
            for host in transactions.hosting.hosts() {
                host.abort_timed_out().await;
            }
            next_abort = Instant::now() + abort_interval;
        }
        if Instant::now() >= next_expiry {
            for host in transactions.hosting.hosts() {
                host.expire().await;
            }
            next_expiry = Instant::now() + expiry_interval;
        }
    }
}
