//! One connection to a broker, non-blocking, its requests told apart by correlation id.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::{Chunk, Decoder, Message, Request, encode_request, read_response_header};

/// Bytes taken from the socket at a time: a bulky answer must not keep the thread from looking at the clock.
const READ_BYTES: usize = 128 * 1024;

/// An answer that does not come in this time is not coming.
const ANSWER_MAX: Duration = Duration::from_secs(60);

pub struct Connection {
    stream: TcpStream,
    /// Received bytes lie in `start..end`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    unsent: Vec<u8>,
    sent: usize,
    next_correlation_id: i32,
}

impl Connection {
    pub fn open(address: SocketAddr, congestion_control: Option<&str>) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {address}: {error}")))?;
        stream.set_nodelay(true)?;
        if let Some(name) = congestion_control {
            rustix::net::sockopt::set_tcp_congestion(&stream, name)
                .map_err(|error| io::Error::new(error.kind(), format!("TCP congestion control {name}: {error}")))?;
        }
        Connection::over(stream)
    }

    /// Over a stream that is connected or about to be.
    pub fn over(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, input: vec![0; 16 * 1024], start: 0, end: 0, unsent: Vec::new(), sent: 0, next_correlation_id: 0 })
    }

    /// Sends a whole frame as far as the socket takes it; the rest goes with `flush`.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.has_unsent() {
            self.unsent.extend_from_slice(frame);
            return self.flush();
        }
        let count = self.write(frame)?;
        self.unsent.extend_from_slice(&frame[count..]);
        Ok(())
    }

    /// Goes on sending what the socket did not take.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.has_unsent() {
            let unsent = std::mem::take(&mut self.unsent);
            let written = self.write(&unsent[self.sent..]);
            self.unsent = unsent;
            self.sent += written?;
            if self.sent == self.unsent.len() {
                self.unsent.clear();
                self.sent = 0;
            }
        }
        Ok(())
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Takes what has arrived, at most [`READ_BYTES`]; whether there was anything.
    pub fn receive(&mut self) -> io::Result<bool> {
        self.make_room();
        let end = self.input.len().min(self.end + READ_BYTES);
        match self.stream.read(&mut self.input[self.end..end]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
            Ok(count) => {
                self.end += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves what is left to the front when it is little, and grows once for a frame larger than ever.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let wanted = self.frame_bytes().map_or(4, |size| size + 4).max(4 * 1024);
        if self.start + wanted > self.input.len() || self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if wanted > self.input.len() || self.end == self.input.len() {
                self.input.resize((wanted + 4 * 1024).max(2 * self.end), 0);
            }
        }
    }

    fn frame_bytes(&self) -> Option<usize> {
        let size = self.input[self.start..self.end].first_chunk::<4>()?;
        Some(i32::from_be_bytes(*size).max(0) as usize)
    }

    /// The next frame that has arrived whole, without its size.
    pub fn next_frame(&mut self) -> Option<&[u8]> {
        let size = self.frame_bytes()?;
        if self.end - self.start < 4 + size {
            return None;
        }
        let frame = self.start + 4..self.start + 4 + size;
        self.start = frame.end;
        Some(&self.input[frame])
    }

    /// Asks and waits: for what surrounds a run. Answers to other requests that come in between are dropped.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        // Below zero, where the load's own ids never are.
        self.next_correlation_id -= 1;
        let correlation_id = self.next_correlation_id;
        self.send(&frame_of(version, correlation_id, request)?)?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            self.flush()?;
            if !self.receive()? {
                if Instant::now() > deadline {
                    return Err(io::Error::new(
                        ErrorKind::TimedOut,
                        format!("no answer to {:?} in {} s", R::API_KEY, ANSWER_MAX.as_secs()),
                    ));
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            while let Some(frame) = self.next_frame() {
                let mut decoder = Decoder::new(Bytes::copy_from_slice(frame));
                if read_response_header(&mut decoder, R::API_KEY, version).map_err(invalid)? == correlation_id {
                    return R::Response::decode(&mut decoder, version).map_err(invalid);
                }
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A whole request frame in one piece.
pub fn frame_of<R: Request>(version: i16, correlation_id: i32, request: &R) -> io::Result<Vec<u8>> {
    let chunks = encode_request(version, correlation_id, Some("corelane-bench".into()), request).map_err(invalid)?;
    let mut frame = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Memory(bytes) => frame.extend_from_slice(&bytes),
            Chunk::Deferred(_) => unreachable!("requests lie in memory"),
        }
    }
    Ok(frame)
}

pub fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}
