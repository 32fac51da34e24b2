//! Requests: one exhaustive match from API key to handler, a file per family: authorise, split by owner, call, gather.
//!
//! A frame is begun by `begin`. Produce is admitted there and then and only its wait for durability goes on; every other request is handed back to the connection, which answers it
//! when all before it are answered.

pub mod api_versions;
mod cluster_view;
pub mod configs;
pub mod describe_cluster;
mod describe_topics;
pub mod fetch;
mod fetch_session;
pub mod metadata;
pub mod offsets;
mod response;
pub mod topics;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

pub use self::fetch_session::FetchSessions;
pub use self::response::{Answer, CloseReason, Response};
use crate::config::Listener;
use crate::shard::Shard;
use crate::wire::{ApiKey, Decoder, Str};

/// What a connection knows of itself.
pub struct ConnectionContext {
    /// The listener that the client came in on.
    pub listener: Arc<Listener>,
    /// The address that the client dialled.
    pub local_address: SocketAddr,
    /// The client's own address.
    pub peer_address: SocketAddr,
    /// The fetch sessions of the shard.
    pub fetch_sessions: Rc<RefCell<FetchSessions>>,
}

impl ConnectionContext {
    /// Host and port that clients of this listener are told: what is advertised, else the address that this client dialled.
    pub fn advertised(&self) -> (Str, i32) {
        match &self.listener.advertised {
            Some(told) => {
                let port = if told.port == 0 { self.local_address.port() } else { told.port };
                (Str::from(told.host.as_str()), i32::from(port))
            }
            None => (Str::from(self.local_address.ip().to_string()), i32::from(self.local_address.port())),
        }
    }
}

/// One request on its way through a handler.
#[derive(Clone)]
pub struct RequestContext {
    /// The shard of the connection.
    pub shard: Rc<Shard>,
    /// The connection.
    pub connection: Rc<ConnectionContext>,
    /// What is asked.
    pub api_key: ApiKey,
    /// In which version.
    pub api_version: i16,
    /// The number that the answer repeats.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

impl RequestContext {
    /// Node id, host and port of this broker, as clients of this listener reach it.
    pub fn advertised_endpoint(&self) -> (i32, Str, i32) {
        let (host, port) = self.connection.advertised();
        (self.shard.config().node_id(), host, port)
    }
}

/// A request that has been begun.
pub enum Begun {
    /// Admitted; requests after it may begin while it waits.
    Overlapping(Pin<Box<dyn Future<Output = Answer>>>),
    /// To be answered when all requests before it are.
    Alone(Request),
}

/// A request with its header read and its body still encoded.
pub struct Request {
    pub(crate) context: RequestContext,
    pub(crate) body: Decoder,
}
