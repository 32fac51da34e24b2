//! Accepting: on shard 0, one task per listening socket; connections go round the shards.
//!
//! Connections are counted here and nowhere else. A client too many of one address is closed at once (`max.connections.per.ip`); beyond `max.connections` nothing is accepted until
//! one has gone, so that clients wait in the kernel's queue as they do with Kafka.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use super::limits::Limits;
use crate::rt::sync::Notify;
use crate::rt::{self, ShardId, net::Listener};
use crate::shard::Shard;
use crate::shard::message::{NewConnection, Request};

/// After a failed accept (no descriptors left, say) the next try waits this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

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

/// Accepts clients of one listening socket until the broker stops; `listener_index` is its place among the configured listeners.
pub async fn accept(shard: Rc<Shard>, listener: Listener, listener_index: usize, connections: Rc<Connections>, limits: Rc<Limits>) {
    while !connections.stopped.get() {
        while connections.total.get() >= limits.connections_max && !connections.stopped.get() {
            connections.fewer.notified().await;
        }
        let (descriptor, peer_address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                rt::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if connections.stopped.get() {
            return;
        }
        let address = peer_address.ip();
        if !connections.opened(address, limits.connections_per_ip_max) {
            tracing::debug!(peer = %peer_address, "too many connections of this address: closed");
            continue;
        }
        let to = connections.place(shard.shards());
        let request = Request::Connection(NewConnection { descriptor, peer_address, listener_index });
        // The call ends when the connection does; the count follows it.
        let call = shard.call(to, request);
        let connections = Rc::clone(&connections);
        rt::spawn(async move {
            call.await;
            connections.closed(address);
        })
        .detach();
    }
}
