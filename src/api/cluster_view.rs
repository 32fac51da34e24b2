//! The cluster as one client sees it: brokers by the listener that the client came in on.
//!
//! This node is told by what the listener advertises, and where it advertises nothing, by the address that the client dialled; other nodes by what they registered.

use crate::cluster::Image;
use crate::cluster::image::{BrokerImage, PartitionImage};
use crate::wire::Str;

use super::RequestContext;

/// Bits of the operations that a resource knows, by their codes in AclOperation. Without an authorizer everybody may do them all.
const fn bits(operations: &[u32]) -> i32 {
    let mut bits = 0;
    let mut index = 0;
    while index < operations.len() {
        bits |= 1 << operations[index];
        index += 1;
    }
    bits
}

/// Read, write, create, delete, alter, describe, describe and alter configs.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// Create, alter, describe, cluster action, describe and alter configs, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// What stands where operations were not asked for.
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

pub(super) struct ClusterView<'a> {
    pub image: &'a Image,
    /// The listener that the client came in on.
    pub listener: &'a str,
    pub node_id: i32,
    /// Where this client reaches this node.
    pub own_endpoint: (Str, i32),
}

/// A broker as a client reaches it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reachable {
    pub id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
    pub is_fenced: bool,
}

impl<'a> ClusterView<'a> {
    pub fn new(context: &'a RequestContext, image: &'a Image) -> Self {
        let (node_id, host, port) = context.advertised_endpoint();
        Self { image, listener: &context.connection.listener.name, node_id, own_endpoint: (host, port) }
    }

    /// Registered brokers with an endpoint on the listener, fenced ones too, in the order of their ids.
    pub fn registered(&self) -> impl Iterator<Item = Reachable> {
        self.image.brokers().filter_map(|broker| self.reach(broker))
    }

    /// Those that serve.
    pub fn alive(&self) -> impl Iterator<Item = Reachable> {
        self.registered().filter(|broker| !broker.is_fenced)
    }

    /// The broker that administrative requests are to be sent to. Every broker hands them on, so this one does as well as any; -1 while it does not serve.
    pub fn controller_id(&self) -> i32 {
        self.alive().map(|broker| broker.id).find(|id| *id == self.node_id).unwrap_or(-1)
    }

    /// Whether a broker is registered with an endpoint on the listener.
    pub fn has_endpoint(&self, id: i32) -> bool {
        self.image.broker(id).is_some_and(|broker| self.reach(broker).is_some())
    }

    fn reach(&self, broker: &BrokerImage) -> Option<Reachable> {
        let (host, port) = if broker.id == self.node_id {
            self.own_endpoint.clone()
        } else {
            let endpoint = broker.endpoint(self.listener)?;
            (Str::from(&*endpoint.host), i32::from(endpoint.port))
        };
        Some(Reachable { id: broker.id, host, port, rack: broker.rack.as_deref().map(Str::from), is_fenced: broker.fenced })
    }

    /// Replicas that cannot be reached: their broker is gone, fenced or not on the listener, or their directory is lost.
    pub fn offline_replicas(&self, partition: &PartitionImage) -> Vec<i32> {
        let is_offline = |(place, id): &(usize, &i32)| {
            let Some(broker) = self.image.broker(**id) else { return true };
            let is_in_lost_directory = partition.directories.get(*place).is_some_and(|directory| !broker.has_directory_online(directory));
            broker.fenced || self.reach(broker).is_none() || is_in_lost_directory
        };
        partition.replicas.iter().enumerate().filter(is_offline).map(|(_, id)| *id).collect()
    }
}
