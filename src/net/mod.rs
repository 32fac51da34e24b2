//! Listeners and connections: frames in, responses out in order, everything bounded.

mod connection;
pub mod limits;
pub mod listener;
mod pipeline;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use self::connection::{Activity, Ended};
use self::limits::Limits;
use crate::api::{ConnectionContext, Departure, FetchSessions, Traffic};
use crate::config::{Config, Listener as ListenerSettings};
use crate::rt::net::{SocketOptions, Stream};
use crate::rt::{self, ShardId};
use crate::shard::message::NewConnection;
use crate::shard::{ClientHandler, Served, Shard};

/// How often the connections of a shard are looked through for idle and stuck ones.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that are looked at before others have a turn: a look may be a system call.
const REAPED_AT_ONCE: usize = 256;

/// A client that has been silent for so long, and waits for an answer, is looked at: nobody reads its socket meanwhile, so nobody would notice that it has gone.
const DEPARTURE_LOOK: Duration = Duration::from_secs(2);

/// How long requests under way may take to finish at a clean stop.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Lines about clients' mistakes that one shard writes in a second; more are counted and told in the next second.
const CLIENT_ERROR_LINES_PER_SECOND: u32 = 5;

/// The connections of one shard.
pub struct Net {
    shard: Weak<Shard>,
    listeners: Vec<Arc<ListenerSettings>>,
    limits: RefCell<Rc<Limits>>,
    socket_options: SocketOptions,
    open: RefCell<Slab<Open>>,
    client_errors: RateLimitedLines,
    stopping: Cell<bool>,
    fetch_sessions: Rc<RefCell<FetchSessions>>,
}

struct Open {
    stream: Rc<Stream>,
    activity: Rc<Activity>,
    context: Rc<ConnectionContext>,
}

impl Net {
    /// The books of `shard`, which serves `listeners`.
    pub fn new(
        shard: &Rc<Shard>,
        listeners: Vec<Arc<ListenerSettings>>,
        socket_options: SocketOptions,
        fetch_sessions: FetchSessions,
    ) -> Rc<Net> {
        Rc::new(Net {
            shard: Rc::downgrade(shard),
            listeners,
            limits: RefCell::new(Rc::new(Limits::new(&shard.config()))),
            socket_options,
            open: RefCell::default(),
            client_errors: RateLimitedLines::default(),
            stopping: Cell::new(false),
            fetch_sessions: Rc::new(RefCell::new(fetch_sessions)),
        })
    }

    /// Serves a connection that the acceptor or another shard handed over, until it ends or goes on elsewhere.
    async fn serve_client(&self, new: NewConnection) -> Option<(ShardId, NewConnection)> {
        let shard = self.shard.upgrade().filter(|_| !self.stopping.get())?;
        let NewConnection { descriptor, peer_address, listener_index, unread, moved_at } = new;
        let stream = match Stream::from_fd(descriptor, &self.socket_options) {
            Ok(stream) => Rc::new(stream),
            Err(error) => {
                tracing::debug!(peer = %peer_address, %error, "the connection went away before it was set up");
                return None;
            }
        };
        let activity = Rc::new(Activity {
            last: Cell::new(Instant::now()),
            frame_since: Cell::new(None),
            busy: Cell::new(0),
            is_sending: Cell::new(false),
        });
        let context = Rc::new(ConnectionContext {
            listener: Arc::clone(&self.listeners[listener_index]),
            local_address: stream.local_addr(),
            peer_address,
            fetch_sessions: Rc::clone(&self.fetch_sessions),
            traffic: Traffic::new(shard.id(), shard.shards(), moved_at, !shard.config().connection_move_enable()),
            departure: Departure::default(),
        });
        let open = Open { stream: Rc::clone(&stream), activity: Rc::clone(&activity), context: Rc::clone(&context) };
        let place = self.open.borrow_mut().insert(open);
        let ended = connection::serve(shard, Rc::clone(&stream), context, self.limits(), activity, unread).await;
        drop(self.open.borrow_mut().remove(place));
        match ended {
            Ended::Leaving { to, unread } => {
                tracing::debug!(peer = %peer_address, shard = to.0, "the connection moves to the shard of its partitions");
                let stream = Rc::try_unwrap(stream).expect("both halves of the connection have ended");
                // Whatever the ring still watches of this socket is cancelled, and that has been seen, before another shard has it.
                let descriptor = stream.into_fd().await;
                Some((to, NewConnection { descriptor, peer_address, listener_index, unread, moved_at: Some(Instant::now()) }))
            }
            ended => {
                self.tell(peer_address, &ended);
                None
            }
        }
    }

    /// Closes idle and stuck connections, for ever.
    pub async fn reap(self: Rc<Net>) {
        loop {
            rt::sleep(REAP_INTERVAL).await;
            self.client_errors.next_second();
            let (now, limits) = (Instant::now(), self.limits());
            let mut next = 0;
            while next < self.open.borrow().capacity() {
                for place in next..next + REAPED_AT_ONCE {
                    if let Some(open) = self.open.borrow().get(place) {
                        open.end_if_idle_or_stuck(now, &limits);
                    }
                }
                next += REAPED_AT_ONCE;
                rt::yield_now().await;
            }
        }
    }

    /// Lets requests under way finish for a while, takes no new ones, then closes everything.
    async fn let_go(&self) {
        self.stopping.set(true);
        for (_, open) in self.open.borrow().iter() {
            let _already_gone = open.stream.shutdown(Shutdown::Read);
        }
        let end = Instant::now() + STOP_GRACE;
        while !self.open.borrow().is_empty() && Instant::now() < end {
            rt::sleep(Duration::from_millis(2)).await;
        }
        for (_, open) in self.open.borrow().iter() {
            let _already_gone = open.stream.shutdown(Shutdown::Both);
        }
    }

    fn limits(&self) -> Rc<Limits> {
        Rc::clone(&self.limits.borrow())
    }

    fn tell(&self, peer: SocketAddr, ended: &Ended) {
        match ended {
            Ended::ByClient | Ended::Leaving { .. } => {}
            Ended::Broken(error) => tracing::debug!(%peer, %error, "connection broken"),
            Ended::FrameSize(bytes) => {
                self.client_errors.line(|| tracing::warn!(%peer, bytes, "closed: size of a frame outside 0 to socket.request.max.bytes"))
            }
            Ended::Refused(reason) => self.client_errors.line(|| tracing::warn!(%peer, "closed: {reason}")),
        }
    }
}

impl ClientHandler for Rc<Net> {
    fn serve(&self, new: NewConnection) -> Served {
        let net = Rc::clone(self);
        Box::pin(async move { net.serve_client(new).await })
    }

    /// Open connections keep the bounds that they began with, but for the time that they may be idle.
    fn settings_changed(&self, config: &Config) {
        self.limits.replace(Rc::new(Limits::new(config)));
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let net = Rc::clone(self);
        Box::pin(async move { net.let_go().await })
    }
}

impl Open {
    fn end_if_idle_or_stuck(&self, now: Instant, limits: &Limits) {
        let is_busy = self.activity.busy.get() > 0;
        let stuck = self.activity.frame_since.get().is_some_and(|since| now.duration_since(since) > limits.frame_time_max);
        // Who is sent an answer and does not read it has requests under way, and is waited for all the same.
        let is_waited_for = !is_busy || self.activity.is_sending.get();
        let idle = is_waited_for && now.duration_since(self.activity.last.get().max(self.stream.last_room())) > limits.idle_max;
        if stuck || idle {
            let _already_gone = self.stream.shutdown(Shutdown::Both);
        } else if is_busy && now.duration_since(self.activity.last.get()) > DEPARTURE_LOOK && self.stream.is_left_by_peer() {
            self.context.departure.announce();
        }
    }
}

/// Lets a few lines a second through.
#[derive(Default)]
struct RateLimitedLines {
    this_second: Cell<u32>,
}

impl RateLimitedLines {
    fn line(&self, write: impl FnOnce()) {
        self.this_second.set(self.this_second.get() + 1);
        if self.this_second.get() <= CLIENT_ERROR_LINES_PER_SECOND {
            write();
        }
    }

    fn next_second(&self) {
        let suppressed = self.this_second.replace(0).saturating_sub(CLIENT_ERROR_LINES_PER_SECOND);
        if suppressed > 0 {
            tracing::warn!(suppressed, "more connections closed for clients' mistakes");
        }
    }
}
