//! Requests: one exhaustive match from API key to handler, a file per family: authorise, split by owner, call, gather.
//!
//! A frame is begun by `begin`. Produce is admitted there and then and only its wait for durability goes on; every other request is handed back to the connection, which answers it
//! when all before it are answered.

mod answer;
pub mod api_versions;
mod cluster_view;
pub mod configs;
pub mod describe_cluster;
mod describe_topics;
pub mod fetch;
mod fetch_session;
pub mod find_coordinator;
pub mod groups;
pub mod log_dirs;
pub mod metadata;
pub mod offsets;
mod older_versions;
pub mod produce;
pub mod reassignments;
mod response;
mod sasl;
pub mod topics;
pub mod traffic;
pub mod transactions;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

pub use self::fetch_session::FetchSessions;
pub use self::response::{Answer, CloseReason, Response};
pub use self::traffic::Traffic;
use crate::config::Listener;
use crate::rt::stages::Stages;
use crate::rt::sync::Notify;
use crate::shard::Shard;
use crate::wire::messages::RequestHeader;
use crate::wire::{ApiKey, Decoder, Message, Str};

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
    /// Which shards its requests go to.
    pub traffic: Traffic,
    /// Whether the client has gone, or at least sends nothing more.
    pub departure: Departure,
}

/// Tells a request that waits for something to happen that nobody may be there any more to hear of it.
#[derive(Default)]
pub struct Departure {
    is_over: Cell<bool>,
    bell: Notify,
}

impl Departure {
    /// The client has gone.
    pub fn announce(&self) {
        self.is_over.set(true);
        self.bell.notify_all();
    }

    /// Resolves when it has.
    pub async fn announced(&self) {
        self.bell.until(|| self.is_over.get()).await;
    }
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
    /// Its way so far.
    pub stages: Stages,
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

impl Request {
    /// Whether the answer may have to wait for what other clients do: for their records, or for all members of a group.
    pub fn waits_for_others(&self) -> bool {
        matches!(self.context.api_key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup)
    }

    /// Works out the answer.
    pub async fn answer(self) -> Answer {
        answer::answer(self).await
    }
}

/// Reads the header of `frame` and begins the request. An error closes the connection: it has no answer (semantics of Kafka's SocketServer).
pub async fn begin(shard: &Rc<Shard>, connection: &Rc<ConnectionContext>, frame: Bytes, stages: Stages) -> Result<Begun, CloseReason> {
    let request = read_header(shard, connection, frame, stages)?;
    if request.context.api_key == ApiKey::Produce {
        produce::begin(request).await.map(Begun::Overlapping)
    } else {
        Ok(Begun::Alone(request))
    }
}

fn read_header(shard: &Rc<Shard>, connection: &Rc<ConnectionContext>, frame: Bytes, stages: Stages) -> Result<Request, CloseReason> {
    if frame.len() < 8 {
        return Err(CloseReason::Malformed(format!("a frame of {} bytes holds no request header", frame.len())));
    }
    let sent_key = i16::from_be_bytes([frame[0], frame[1]]);
    let api_version = i16::from_be_bytes([frame[2], frame[3]]);
    let unsupported = CloseReason::Unsupported { api_key: sent_key, api_version };
    let Ok(api_key) = ApiKey::try_from(sent_key) else { return Err(unsupported) };
    let is_served = api_versions::served_versions(api_key).is_some_and(|served| served.contains(&api_version));
    // An ApiVersions of a version that we do not know is answered in version 0 without its body being read.
    let header_version = match (is_served, api_key) {
        (true, _) => api_key.request_header_version(api_version),
        (false, ApiKey::ApiVersions) => 1,
        (false, _) => return Err(unsupported),
    };
    let mut body = Decoder::new(frame);
    let header =
        RequestHeader::decode(&mut body, header_version).map_err(|error| CloseReason::Malformed(format!("request header: {error}")))?;
    let context = RequestContext {
        shard: Rc::clone(shard),
        connection: Rc::clone(connection),
        api_key,
        api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        stages,
    };
    Ok(Request { context, body })
}
