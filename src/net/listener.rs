//! Accepting: on shard 0, one task per listening socket; connections go round the shards.
//!
//! Connections are counted here and nowhere else. A client too many of one address is closed at once (`max.connections.per.ip` and its `.overrides`); beyond `max.connections`, of the broker or of one
//! listener (`listener.name.NAME.max.connections`), nothing is accepted until one has gone, so that clients wait in the kernel's queue as they do with Kafka.

use std::cell::{Cell, RefCell};
use std::hash::Hash;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::config::Config;
use crate::rt::sync::Notify;
use crate::rt::{self, ShardId, net::Listener};
use crate::shard::Shard;
use crate::shard::message::{NewConnection, Reply, Request};

/// After a failed accept (no descriptors left, say) the next try waits this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// While no connection may be accepted, the settings are looked at this often.
const LIMIT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The open connections of the process, as shard 0 counts them.
#[derive(Default)]
pub struct Connections {
    total: Cell<usize>,
    by_address: RefCell<HashMap<IpAddr, usize>>,
    /// By place among the configured listeners.
    by_listener: RefCell<HashMap<usize, usize>>,
    next_shard: Cell<u16>,
    fewer: Notify,
    stopped: Cell<bool>,
}

impl Connections {
    /// Nothing is accepted any more.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.fewer.notify_all();
    }

    /// A connection of `address` to that listener has ended.
    fn closed(&self, address: IpAddr, listener_index: usize) {
        self.total.set(self.total.get() - 1);
        one_fewer(&mut self.by_address.borrow_mut(), address);
        one_fewer(&mut self.by_listener.borrow_mut(), listener_index);
        self.fewer.notify_all();
    }

    /// Whether all places are taken, those of the broker or those of the listener.
    fn is_full(&self, limits: &Limits) -> bool {
        let of_listener = self.by_listener.borrow().get(&limits.listener_index).copied().unwrap_or(0);
        self.total.get() >= limits.connections_max() || of_listener >= limits.of_listener_max
    }

    /// Waits until one more may be served, following the settings meanwhile, or until nothing is accepted any more.
    async fn room(&self, shard: &Shard, mut limits: Limits) -> Limits {
        while self.is_full(&limits) && !self.stopped.get() {
            // Not for ever: a limit may be raised meanwhile.
            let _one_went = rt::timeout(LIMIT_CHECK_INTERVAL, self.fewer.notified()).await;
            limits = limits.following(shard).await;
        }
        limits
    }

    /// Counts one more, unless there are too many of its address.
    fn opened(&self, address: IpAddr, limits: &Limits) -> bool {
        let mut by_address = self.by_address.borrow_mut();
        let count = by_address.get(&address).copied().unwrap_or(0);
        if count >= limits.per_address_max(address) {
            return false;
        }
        by_address.insert(address, count + 1);
        *self.by_listener.borrow_mut().entry(limits.listener_index).or_insert(0) += 1;
        self.total.set(self.total.get() + 1);
        true
    }

    fn place(&self, shards: u16) -> ShardId {
        let shard = self.next_shard.get() % shards;
        self.next_shard.set((shard + 1) % shards);
        ShardId(shard)
    }
}

/// Counters are kept only of what there is.
fn one_fewer<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// How many connections there may be, as the settings have it, for those who come to one listener.
struct Limits {
    config: Arc<Config>,
    listener_index: usize,
    of_listener_max: usize,
    exceptions: HashMap<IpAddr, usize>,
}

impl Limits {
    /// Names among the exceptions are looked up now, off the core's way.
    async fn of(config: Arc<Config>, listener_index: usize) -> Limits {
        let of_listener_max = config.listener_connections_max(&config.listeners()[listener_index]) as usize;
        let named: Vec<(String, i32)> = config.connections_per_ip_exceptions().map(|(host, max)| (host.to_owned(), max)).collect();
        let exceptions = if named.is_empty() { HashMap::new() } else { rt::blocking(move || resolve(&named)).await };
        Limits { config, listener_index, of_listener_max, exceptions }
    }

    /// These, or new ones where the settings have been altered.
    async fn following(self, shard: &Shard) -> Limits {
        let config = shard.config();
        if Arc::ptr_eq(&config, &self.config) { self } else { Limits::of(config, self.listener_index).await }
    }

    fn connections_max(&self) -> usize {
        self.config.max_connections() as usize
    }

    fn per_address_max(&self, address: IpAddr) -> usize {
        let exception = self.exceptions.get(&address.to_canonical());
        exception.copied().unwrap_or(self.config.max_connections_per_ip() as usize)
    }
}

fn resolve(named: &[(String, i32)]) -> HashMap<IpAddr, usize> {
    let mut exceptions = HashMap::new();
    for (host, max) in named {
        match (host.as_str(), 0).to_socket_addrs() {
            Ok(addresses) => exceptions.extend(addresses.map(|address| (address.ip().to_canonical(), *max as usize))),
            Err(error) => tracing::warn!(host, %error, "an exception in max.connections.per.ip.overrides does not count: no such host"),
        }
    }
    exceptions
}

/// Accepts clients of one listening socket until the broker stops; `listener_index` is its place among the configured listeners.
pub async fn accept(shard: Rc<Shard>, listener: Listener, listener_index: usize, connections: Rc<Connections>) {
    let mut limits = Limits::of(shard.config(), listener_index).await;
    while !connections.stopped.get() {
        limits = connections.room(&shard, limits).await;
        let (descriptor, peer_address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                rt::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Another listener may have given the last place away meanwhile: then this client waits here.
        limits = connections.room(&shard, limits.following(&shard).await).await;
        if connections.stopped.get() {
            return;
        }
        let address = peer_address.ip();
        if !connections.opened(address, &limits) {
            tracing::debug!(peer = %peer_address, "too many connections of this address: closed");
            continue;
        }
        let to = connections.place(shard.shards());
        let new = NewConnection { descriptor, peer_address, listener_index, unread: Bytes::new(), moved_at: None };
        let (shard, connections) = (Rc::clone(&shard), Rc::clone(&connections));
        // The count follows the connection to its end, wherever that is.
        rt::spawn(async move {
            serve(&shard, to, new).await;
            connections.closed(address, listener_index);
        })
        .detach();
    }
}

/// Has a connection served, by one shard after the other where it moves, until it has ended.
async fn serve(shard: &Rc<Shard>, mut at: ShardId, mut connection: NewConnection) {
    while let Reply::Moved { to, connection: moved } = shard.call(at, Request::Connection(connection)).await {
        (at, connection) = (to, moved);
    }
}
