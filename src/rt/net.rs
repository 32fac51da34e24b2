//! TCP: listeners, and streams whose waiting goes through the shard's ring.
//!
//! A stream waits by a poll in the ring and then calls recv, sendmsg or sendfile itself, non-blocking. Measured equal to having the ring receive and send (175 k messages a second on one core
//! both ways), and the kernel owns no buffers meanwhile, so that an idle connection costs a few hundred bytes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::file::File;
use super::reactor::current;
use super::ring::InFlight;
use super::yield_now;

/// Pieces of one vectored send; longer lists take several calls.
const PIECES_PER_SEND: usize = 64;
/// A sendfile from the page cache copies at 8 GB/s or so: this much takes 30 us, then others get their turn.
const SEND_FILE_BYTES_MAX: usize = 256 << 10;
/// What a stream may move without waiting before it lets others run.
const BYTES_BEFORE_YIELD: usize = 256 << 10;
/// Room that `read` makes when the caller's buffer has none.
const READ_BYTES_MIN: usize = 4 << 10;

/// How to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that the kernel completes before we accept them (`socket.listen.backlog.size`; the kernel's `somaxconn` caps it).
    pub backlog: i32,
    /// Receive buffer of accepted connections; none leaves it to the kernel.
    pub receive_buffer_bytes: Option<usize>,
    /// Send buffer of accepted connections; none leaves it to the kernel.
    pub send_buffer_bytes: Option<usize>,
    /// Congestion control of accepted connections, by name (`cubic`); none leaves the system's choice. A name that the kernel does not have is an error here, before anybody connects.
    pub congestion: Option<String>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 1024, receive_buffer_bytes: None, send_buffer_bytes: None, congestion: None }
    }
}

/// Binds and listens; any thread, before the shards start. A port that anybody listens on already is an error (no SO_REUSEPORT). `[::]` takes IPv4 as well, as Java does.
pub fn bind(address: SocketAddr, options: &ListenOptions) -> Result<TcpListener, BindError> {
    let fail = |step, error| BindError { address, step, error };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))
        .map_err(|error| fail("make a socket for", error))?;
    // Only lets us have the port while connections of a former life linger in TIME_WAIT.
    socket.set_reuse_address(true).map_err(|error| fail("set SO_REUSEADDR on", error))?;
    if address.is_ipv6() {
        let takes_ipv4 = address.ip().is_unspecified();
        socket.set_only_v6(!takes_ipv4).map_err(|error| fail("set IPV6_V6ONLY on", error))?;
    }
    // Before listening: an accepted socket inherits them, and the window scale is fixed in its handshake.
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes).map_err(|error| fail("set the receive buffer of", error))?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes).map_err(|error| fail("set the send buffer of", error))?;
    }
    if let Some(name) = &options.congestion {
        socket.set_tcp_congestion(name.as_bytes()).map_err(|error| fail("set the congestion control of", error))?;
    }
    socket.bind(&address.into()).map_err(|error| fail("bind", error))?;
    socket.listen(options.backlog).map_err(|error| fail("listen on", error))?;
    Ok(socket.into())
}

/// An end of a TCP connection. A socket that takes both families shows IPv4 as a part of IPv6; here it is what the client dialled, and the same client on every listener.
fn plain(address: &SockAddr) -> io::Result<SocketAddr> {
    let address = address.as_socket().ok_or_else(|| io::Error::other("a TCP peer has an IP address"))?;
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Ok(SocketAddr::from((ip, address.port()))),
        IpAddr::V6(_) => Ok(address),
    }
}

/// A listener that could not be had.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    pub step: &'static str,
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {} {}: {}", self.step, self.address, self.error)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                formatter.write_str(". Another process listens there: stop it, or choose another port in listeners")
            }
            io::ErrorKind::AddrNotAvailable => formatter.write_str(". This machine has no such address"),
            io::ErrorKind::NotFound => formatter.write_str(". The kernel does not have it: see net.ipv4.tcp_available_congestion_control"),
            io::ErrorKind::PermissionDenied => formatter.write_str(". Ports below 1024 need CAP_NET_BIND_SERVICE"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {}

/// A listening socket on one shard. Several shards may each have one of the same socket.
pub struct Listener {
    socket: Rc<OwnedFd>,
    local_address: SocketAddr,
    incoming: Readiness,
}

impl Listener {
    /// Takes over a socket that listens; the shard that calls accepts.
    pub fn from_std(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local_address = listener.local_addr()?;
        Ok(Self { socket: Rc::new(listener.into()), local_address, incoming: Readiness::new(libc::POLLIN) })
    }

    /// The next connection. It is not tied to this shard yet: [`Stream::from_fd`] does that, on whichever shard.
    ///
    /// Errors of a connection that died in the queue are passed over; what remains is ours (out of descriptors, out of memory): wait a little before trying again.
    pub async fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        loop {
            match self.try_accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.incoming.wait(&self.socket).await,
                Err(error) if is_of_one_connection(&error) => continue,
                done => return done,
            }
        }
    }

    /// The address that it listens on, with the port that the kernel chose where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    fn try_accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let (socket, address) = SockRef::from(&self.socket).accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?;
        Ok((socket.into(), plain(&address)?))
    }
}

/// How a connection behaves.
#[derive(Clone, Debug, Default)]
pub struct SocketOptions {
    /// Send at once instead of waiting for more (TCP_NODELAY).
    pub nodelay: bool,
    /// Ask silent peers whether they live (SO_KEEPALIVE, by the kernel's times).
    pub keepalive: bool,
    /// Congestion control by name (`cubic`); none leaves what the listener or the system chose.
    pub congestion: Option<String>,
    pub receive_buffer_bytes: Option<usize>,
    pub send_buffer_bytes: Option<usize>,
}

/// One TCP connection on one shard. Reading and writing may go on at once, from one task each.
pub struct Stream {
    socket: Rc<OwnedFd>,
    local_address: SocketAddr,
    peer_address: SocketAddr,
    input: Readiness,
    output: Readiness,
    /// Whether asking the socket at once may give bytes: not after a read that left room, so that a request costs one recv and no vain one.
    may_have_input: Cell<bool>,
    /// Bytes moved since the stream last waited or yielded.
    moved_bytes: Cell<usize>,
    last_room: Cell<Instant>,
}

impl Stream {
    /// Takes over a connected socket on the shard that calls.
    pub fn from_fd(socket: OwnedFd, options: &SocketOptions) -> io::Result<Self> {
        let reference = SockRef::from(&socket);
        reference.set_nonblocking(true)?;
        reference.set_tcp_nodelay(options.nodelay)?;
        reference.set_keepalive(options.keepalive)?;
        if let Some(name) = &options.congestion {
            reference.set_tcp_congestion(name.as_bytes())?;
        }
        if let Some(bytes) = options.receive_buffer_bytes {
            reference.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = options.send_buffer_bytes {
            reference.set_send_buffer_size(bytes)?;
        }
        let (local_address, peer_address) = (plain(&reference.local_addr()?)?, plain(&reference.peer_addr()?)?);
        Ok(Self {
            socket: Rc::new(socket),
            local_address,
            peer_address,
            input: Readiness::new(libc::POLLIN),
            output: Readiness::new(libc::POLLOUT),
            may_have_input: Cell::new(true),
            moved_bytes: Cell::new(0),
            last_room: Cell::new(Instant::now()),
        })
    }

    /// When the peer last made room for more after none was left; when the stream was made, if that has not happened.
    pub fn last_room(&self) -> Instant {
        self.last_room.get()
    }

    /// Whether the peer has ended its direction, or the connection is broken, whatever is left to be read.
    pub fn is_left_by_peer(&self) -> bool {
        let mut entry = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one entry that outlives the call, which does not wait.
        let count = unsafe { libc::poll(&mut entry, 1, 0) };
        count == 1 && entry.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    /// Appends what has arrived, at least one byte, at most the buffer's spare capacity (4 KiB is made if there is none). 0 means that the peer has ended its direction. Dropping the future
    /// loses nothing.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(READ_BYTES_MIN);
        }
        self.give_way().await;
        loop {
            if self.may_have_input.get() {
                match self.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.may_have_input.set(false),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    done => return done,
                }
            }
            self.input.wait(&self.socket).await;
            self.moved_bytes.set(0);
            self.may_have_input.set(true);
        }
    }

    /// Sends all pieces one behind the other. Dropping the future may leave a part of them sent: only closing the connection is right then.
    pub async fn write_all(&self, pieces: Vec<Bytes>) -> io::Result<()> {
        let mut pieces = VecDeque::from(pieces);
        loop {
            while pieces.front().is_some_and(Bytes::is_empty) {
                pieces.pop_front();
            }
            if pieces.is_empty() {
                return Ok(());
            }
            self.give_way().await;
            match self.try_write(&pieces) {
                Ok(sent) => advance(&mut pieces, sent),
                Err(error) => self.wait_for_room(error).await?,
            }
        }
    }

    /// Sends a range of a file from the page cache. Where the range is not cached this waits for the disk with the whole shard: ask [`File::is_cached`] first. A file that ends before the range
    /// does is an error (`UnexpectedEof`).
    pub async fn send_file(&self, file: &File, position: u64, length: usize) -> io::Result<()> {
        let mut sent_bytes = 0;
        while sent_bytes < length {
            self.give_way().await;
            match self.try_send_file(file, position + sent_bytes as u64, (length - sent_bytes).min(SEND_FILE_BYTES_MAX)) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("{} ends before the range to send", file.path().display()),
                    ));
                }
                Ok(sent) => sent_bytes += sent,
                Err(error) => self.wait_for_room(error).await?,
            }
        }
        Ok(())
    }

    /// Ends one direction or both; what was written before still goes out.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&self.socket).shutdown(how)
    }

    /// The connection without the shard, to be given to another one. Waits until the ring has let go of it.
    pub async fn into_fd(self) -> OwnedFd {
        let Self { socket, input, output, .. } = self;
        for readiness in [input, output] {
            if let Some(poll) = readiness.poll.into_inner() {
                poll.cancel().await;
            }
        }
        Rc::try_unwrap(socket).expect("only the polls shared the socket")
    }

    /// Our end: the address that the peer dialled.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// The peer's end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_address
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.spare_capacity_mut();
        let room_bytes = room.len();
        let received = SockRef::from(&self.socket).recv_with_flags(room, libc::MSG_DONTWAIT)?;
        // SAFETY: the kernel has filled this many bytes of the spare capacity.
        unsafe { buffer.set_len(buffer.len() + received) };
        self.may_have_input.set(received == room_bytes || received == 0);
        self.moved_bytes.set(self.moved_bytes.get() + received);
        Ok(received)
    }

    fn try_write(&self, pieces: &VecDeque<Bytes>) -> io::Result<usize> {
        let slices: SmallVec<[IoSlice<'_>; 16]> = pieces.iter().take(PIECES_PER_SEND).map(|piece| IoSlice::new(piece)).collect();
        let sent = SockRef::from(&self.socket).send_vectored_with_flags(&slices, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)?;
        self.moved_bytes.set(self.moved_bytes.get() + sent);
        Ok(sent)
    }

    fn try_send_file(&self, file: &File, position: u64, length: usize) -> io::Result<usize> {
        let mut offset = position as i64;
        // SAFETY: both descriptors are open and `offset` is valid for writing.
        let sent = unsafe { libc::sendfile(self.socket.as_raw_fd(), file.as_raw_fd(), &mut offset, length) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        self.moved_bytes.set(self.moved_bytes.get() + sent as usize);
        Ok(sent as usize)
    }

    async fn wait_for_room(&self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.output.wait(&self.socket).await;
                self.last_room.set(Instant::now());
            }
            io::ErrorKind::Interrupted => return Ok(()),
            _ => return Err(error),
        }
        self.moved_bytes.set(0);
        Ok(())
    }

    /// A peer that is always ready must not keep the shard to itself.
    async fn give_way(&self) {
        if self.moved_bytes.get() >= BYTES_BEFORE_YIELD {
            self.moved_bytes.set(0);
            yield_now().await;
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stream").field("local", &self.local_address).field("peer", &self.peer_address).finish()
    }
}

/// Connects to a peer.
pub async fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let descriptor: Rc<OwnedFd> = Rc::new(socket.into());
    Readiness::new(libc::POLLOUT).wait(&descriptor).await;
    if let Some(error) = SockRef::from(&descriptor).take_error()? {
        return Err(error);
    }
    Ok(Rc::try_unwrap(descriptor).expect("the poll that shared it is complete"))
}

/// One direction of a socket: at most one poll in the ring, which stays there when the future that waits is dropped (a loop that also waits for something else drops it at each turn) and ends
/// with the socket.
struct Readiness {
    events: i16,
    poll: RefCell<Option<InFlight>>,
}

impl Readiness {
    fn new(events: i16) -> Self {
        Self { events, poll: RefCell::new(None) }
    }

    async fn wait(&self, socket: &Rc<OwnedFd>) {
        poll_fn(|context| {
            let mut poll = self.poll.borrow_mut();
            let ready = poll.get_or_insert_with(|| current().ring.poll_socket(socket, self.events)).poll(context);
            ready.map(|_| *poll = None)
        })
        .await
    }
}

fn advance(pieces: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(first) = pieces.front_mut() {
        if sent < first.len() {
            first.advance(sent);
            return;
        }
        sent -= first.len();
        pieces.pop_front();
    }
    assert_eq!(sent, 0, "the kernel sent more than it was given");
}

/// Whether an accept failed because of the connection that was to come and not because of us (accept(2) names these).
fn is_of_one_connection(error: &io::Error) -> bool {
    use libc::{ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO};
    let passing = [ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}
