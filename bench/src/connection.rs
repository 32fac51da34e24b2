//! One connection to a broker, non-blocking, its requests told apart by correlation id.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{Bytes, BytesMut};
use corelane_wire::{ApiKey, Chunk, Decoder, Request, encode_request, read_response_header};

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 256 * 1024;

pub struct Connection {
    stream: TcpStream,
    received: BytesMut,
    unsent: Vec<u8>,
    sent: usize,
    next_correlation_id: i32,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream =
            TcpStream::connect(address).map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {address}: {error}")))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, received: BytesMut::with_capacity(READ_BYTES), unsent: Vec::new(), sent: 0, next_correlation_id: 0 })
    }

    /// Sends a whole frame as far as the socket takes it; the rest goes with `flush`.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(frame);
        self.flush()
    }

    /// Goes on sending what the socket did not take.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// The next frame that has arrived whole, without its size.
    pub fn receive(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(frame) = self.take_frame() {
            return Ok(Some(frame));
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    if count < chunk.len() {
                        return Ok(self.take_frame());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.take_frame()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_frame(&mut self) -> Option<Bytes> {
        let size = i32::from_be_bytes(self.received.get(..4)?.try_into().ok()?) as usize;
        if self.received.len() < 4 + size {
            return None;
        }
        let mut frame = self.received.split_to(4 + size);
        Some(frame.split_off(4).freeze())
    }

    /// Asks and waits, spinning: for what surrounds a run.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        use corelane_wire::Message;
        self.next_correlation_id -= 1;
        let correlation_id = self.next_correlation_id;
        let frame = frame_of(version, correlation_id, request)?;
        self.send(&frame)?;
        loop {
            self.flush()?;
            if let Some(frame) = self.receive()? {
                let mut decoder = Decoder::new(frame);
                let answered = read_response_header(&mut decoder, R::API_KEY, version).map_err(invalid)?;
                if answered == correlation_id {
                    return R::Response::decode(&mut decoder, version).map_err(invalid);
                }
            }
            std::thread::yield_now();
        }
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

/// The correlation id and the body of a response to `api_key`.
pub fn read_response(frame: Bytes, api_key: ApiKey, version: i16) -> io::Result<(i32, Decoder)> {
    let mut decoder = Decoder::new(frame);
    let correlation_id = read_response_header(&mut decoder, api_key, version).map_err(invalid)?;
    Ok((correlation_id, decoder))
}

pub fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}
