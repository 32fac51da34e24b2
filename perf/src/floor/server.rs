//! The floor's one thread: it looks at its ring, takes what has come, has the next group written, and answers what is safe.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use corelane_wire::Chunk;
use slab::Slab;

use super::answers::{Outcome, Request, State};
use super::storage::Storage;
use super::topics::Topics;
use corelane::rt::bare_ring::{Completion, Held, Ring, accepted};

/// Tokens of the ring: what an operation is, and for which connection or group.
const ACCEPT: u64 = u64::MAX;
const RECEIVE: u64 = 1 << 62;
const ROOM_TO_SEND: u64 = 1 << 61;

const RECEIVE_BYTES: usize = 64 << 10;
const FRAME_BYTES_MAX: usize = 100 << 20;
/// A connection that does not take its answers is not read from any more.
const UNSENT_BYTES_MAX: usize = 64 << 20;

pub struct Server {
    ring: Ring,
    listener: Rc<TcpListener>,
    connections: Slab<Connection>,
    state: State,
    spins: bool,
}

struct Connection {
    socket: Rc<TcpStream>,
    /// Empty while the ring has it.
    received: BytesMut,
    is_receiving: bool,
    is_waiting_to_send: bool,
    is_over: bool,
    held_back: Option<HeldBack>,
    owed: VecDeque<(u64, Vec<Chunk>)>,
    unsent: BytesMut,
}

/// A request that cannot be answered yet; what the connection sends behind it waits.
struct HeldBack {
    request: Request,
    /// A fetch is answered with what there is when this time has come.
    until: Option<Instant>,
}

impl Server {
    /// `spins`: look at the ring all the time instead of sleeping in it.
    pub fn new(listener: TcpListener, storage: Storage, spins: bool) -> io::Result<Self> {
        rustix::net::sockopt::set_tcp_congestion(&listener, "cubic")?;
        let address = listener.local_addr()?;
        let state = State { address, topics: Topics::default(), storage, next_producer_id: 0 };
        Ok(Self { ring: Ring::new()?, listener: Rc::new(listener), connections: Slab::new(), state, spins })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// Serves for ever.
    pub fn run(mut self) -> ! {
        self.ring.accept(ACCEPT, &self.listener);
        let mut completions = Vec::new();
        loop {
            self.wait(&mut completions);
            for completion in completions.drain(..) {
                self.take(completion);
            }
            self.begin_requests();
            self.state.storage.submit(&mut self.ring);
            self.send();
            // Last, because the kernel works through the queue in its order, and a write is what somebody waits for.
            self.receive();
        }
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) {
        let deadline = self.connections.iter().filter_map(|(_, connection)| connection.held_back.as_ref()?.until).min();
        if !self.spins {
            let longest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(100));
            return self.ring.sleep(longest, completions);
        }
        while completions.is_empty() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            // A durable write is finished by a kernel thread, which may need this very core.
            if self.ring.is_durable_in_flight() {
                std::thread::yield_now();
            }
            self.ring.look(completions);
        }
    }

    fn take(&mut self, completion: Completion) {
        match completion {
            Completion { token: ACCEPT, result, .. } => self.accept(result),
            Completion { token, result, held: Held::Receive(_, buffer) } => self.received((token & !RECEIVE) as usize, result, buffer),
            Completion { token, held: Held::Socket(_), .. } => {
                self.connections[(token & !ROOM_TO_SEND) as usize].is_waiting_to_send = false;
            }
            Completion { token, result, held: Held::Disk(_, buffer) } => self.state.storage.written(token, result, buffer),
            Completion { held: Held::Listener(_) | Held::File(_), .. } => unreachable!("nothing else is under way"),
        }
    }

    fn accept(&mut self, result: i32) {
        self.ring.accept(ACCEPT, &self.listener);
        let ready = accepted(result).and_then(|socket| {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match ready {
            Ok(socket) => {
                self.connections.insert(Connection::new(socket));
            }
            Err(error) => eprintln!("floor: a connection was lost: {error}"),
        }
    }

    fn received(&mut self, key: usize, result: i32, buffer: BytesMut) {
        let connection = &mut self.connections[key];
        connection.is_receiving = false;
        connection.received = buffer;
        connection.is_over |= result <= 0;
    }

    /// Every connection goes on with its requests as far as it can.
    fn begin_requests(&mut self) {
        let Self { ring, connections, state, .. } = self;
        for (_, connection) in connections {
            while !connection.is_over && connection.unsent.len() < UNSENT_BYTES_MAX {
                let Some(request) = connection.next_request() else { break };
                connection.begin(request, state, ring);
                if connection.held_back.is_some() {
                    break;
                }
            }
        }
    }

    /// More is received for those that have room for it; those that are over go.
    fn receive(&mut self) {
        let Self { ring, connections, .. } = self;
        connections.retain(|key, connection| {
            if connection.wants_bytes() {
                connection.receive(RECEIVE | key as u64, ring);
            }
            !connection.is_over || connection.is_receiving || connection.is_waiting_to_send
        });
    }

    fn send(&mut self) {
        let safe_group = self.state.storage.safe_group();
        for (key, connection) in &mut self.connections {
            connection.collect_answers(safe_group);
            if !connection.is_waiting_to_send && !connection.send() {
                connection.is_waiting_to_send = true;
                self.ring.wait_for_room(ROOM_TO_SEND | key as u64, &connection.socket);
            }
        }
    }
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket: Rc::new(socket),
            received: BytesMut::with_capacity(RECEIVE_BYTES),
            is_receiving: false,
            is_waiting_to_send: false,
            is_over: false,
            held_back: None,
            owed: VecDeque::new(),
            unsent: BytesMut::new(),
        }
    }

    fn wants_bytes(&self) -> bool {
        !self.is_over && !self.is_receiving && self.held_back.is_none() && self.unsent.len() < UNSENT_BYTES_MAX
    }

    /// The request that was held back, or the next whole frame.
    fn next_request(&mut self) -> Option<HeldBack> {
        if let Some(held_back) = self.held_back.take() {
            return Some(held_back);
        }
        let size = u32::from_be_bytes(self.received.get(..4)?.try_into().expect("four bytes")) as usize;
        self.is_over |= size > FRAME_BYTES_MAX;
        if self.is_over || self.received.len() < 4 + size {
            return None;
        }
        self.received.advance(4);
        let frame = self.received.split_to(size).freeze();
        let request = Request::read(frame);
        self.is_over |= request.is_none();
        request.map(|request| HeldBack { request, until: None })
    }

    fn begin(&mut self, HeldBack { request, until }: HeldBack, state: &mut State, ring: &mut Ring) {
        let may_wait = until.is_none_or(|until| Instant::now() < until);
        match state.answer(ring, &request, may_wait) {
            Some(Outcome::Answer { group, chunks }) => self.owed.push_back((group, chunks)),
            Some(Outcome::Nothing) => {}
            Some(Outcome::NoRoom) => self.held_back = Some(HeldBack { request, until }),
            Some(Outcome::Wait { ms_max }) => {
                let until = until.unwrap_or_else(|| Instant::now() + Duration::from_millis(ms_max));
                self.held_back = Some(HeldBack { request, until: Some(until) });
            }
            None => self.is_over = true,
        }
    }

    fn receive(&mut self, token: u64, ring: &mut Ring) {
        let mut buffer = std::mem::take(&mut self.received);
        let expected = buffer.get(..4).map_or(0, |size| 4 + u32::from_be_bytes(size.try_into().expect("four bytes")) as usize);
        buffer.reserve(expected.saturating_sub(buffer.len()).max(RECEIVE_BYTES));
        self.is_receiving = true;
        ring.receive(token, &self.socket, buffer);
    }

    /// Answers leave in the order of the requests, each when its group is safe.
    fn collect_answers(&mut self, safe_group: u64) {
        while self.owed.front().is_some_and(|(group, _)| *group <= safe_group) {
            let (_, chunks) = self.owed.pop_front().expect("there is a first one");
            for chunk in chunks {
                let Chunk::Memory(bytes) = chunk else { unreachable!("answers lie in memory") };
                self.unsent.extend_from_slice(&bytes);
            }
        }
    }

    /// False if the socket takes no more now.
    fn send(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match (&*self.socket).write(&self.unsent) {
                Ok(sent) => self.unsent.advance(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.unsent.clear();
                    self.is_over = true;
                    // What the ring still waits for on this socket ends with it.
                    let _already_gone = self.socket.shutdown(std::net::Shutdown::Both);
                }
            }
        }
        true
    }
}
