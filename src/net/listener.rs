//! Accepting: on shard 0, one task per listening socket; connections go round the shards.
//!
//! Connections are counted here and nowhere else. A client too many of one address is closed at once (`max.connections.per.ip` and its `.overrides`); beyond `max.connections` nothing is accepted until
//! one has gone, so that clients wait in the kernel's queue as they do with Kafka.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

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

    /// A connection of `address` has ended.
    pub fn closed(&self, address: IpAddr) {
        self.total.set(self.total.get() - 1);
        let mut by_address = self.by_address.borrow_mut();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
        self.fewer.notify_all();
    }

    /// Waits until one more may be served, following the settings meanwhile, or until nothing is accepted any more.
    async fn room(&self, shard: &Shard, mut limits: Limits) -> Limits {
        while self.total.get() >= limits.connections_max() && !self.stopped.get() {
            // Not for ever: the limit may be raised meanwhile.
            let _one_went = rt::timeout(LIMIT_CHECK_INTERVAL, self.fewer.notified()).await;
            limits = limits.following(shard).await;
        }
        limits
    }

    fn opened(&self, address: IpAddr, per_address_max: usize) -> bool {
        let mut by_address = self.by_address.borrow_mut();
        let count = by_address.entry(address).or_insert(0);
        if *count >= per_address_max {
            return false;
        }
        *count += 1;
        self.total.set(self.total.get() + 1);
        true
    }

    fn place(&self, shards: u16) -> ShardId {
        let shard = self.next_shard.get() % shards;
        self.next_shard.set((shard + 1) % shards);
        ShardId(shard)
    }
}

/// How many connections there may be, as the settings have it.
struct Limits {
    config: Arc<Config>,
    exceptions: HashMap<IpAddr, usize>,
}

impl Limits {
    /// Names among the exceptions are looked up now, off the core's way.
    async fn of(config: Arc<Config>) -> Limits {
        let named: Vec<(String, i32)> = config.connections_per_ip_exceptions().map(|(host, max)| (host.to_owned(), max)).collect();
        let exceptions = if named.is_empty() { HashMap::new() } else { rt::blocking(move || resolve(&named)).await };
        Limits { config, exceptions }
    }

    /// These, or new ones where the settings have been altered.
    async fn following(self, shard: &Shard) -> Limits {
        let config = shard.config();
        if Arc::ptr_eq(&config, &self.config) { self } else { Limits::of(config).await }
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
    let mut limits = Limits::of(shard.config()).await;
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
        if !connections.opened(address, limits.per_address_max(address)) {
            tracing::debug!(peer = %peer_address, "too many connections of this address: closed");
            continue;
        }
        let to = connections.place(shard.shards());
        let new = NewConnection { descriptor, peer_address, listener_index, unread: Bytes::new(), moved_at: None };
        let (shard, connections) = (Rc::clone(&shard), Rc::clone(&connections));
        // The count follows the connection to its end, wherever that is.
        rt::spawn(async move {
            serve(&shard, to, new).await;
            connections.closed(address);
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
