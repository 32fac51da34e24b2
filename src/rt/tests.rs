//! The runtime as its users see it: real executors on threads, real sockets and files, other processes where a process is what has to die. Bounds on time are wide, since the machines that run
//! these tests are shared; precise figures belong to perf/.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::buffer::AlignedBuffer;
use super::file::{Durability, File, FileErrorCause, OpenMode, Operation};
use super::mesh::{MeshEnd, mesh};
use super::net::{ListenOptions, Listener, SocketOptions, Stream, bind};
use super::sync::{Notify, oneshot};
use super::*;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// What a step may take before the test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

fn nodelay() -> SocketOptions {
    SocketOptions { nodelay: true, ..SocketOptions::default() }
}

/// A task that keeps the shard at 100 % and yields as it should, until the flag is set.
fn keep_busy(stop: Rc<Cell<bool>>) -> Task<()> {
    spawn(async move {
        while !stop.get() {
            let slice = Instant::now();
            while slice.elapsed() < Duration::from_micros(20) {}
            yield_now().await;
        }
    })
}

fn percentile(sorted: &mut [Duration], per_mille: usize) -> Duration {
    sorted.sort();
    sorted[(sorted.len() - 1) * per_mille / 1000]
}

/// Bytes come back in order, in pieces larger than any socket buffer, and the end of the peer's direction shows.
#[test]
fn a_stream_echoes() {
    let listener = bind(ANY_PORT, &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut peer = TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..3 << 20).map(|index| (index / 7) as u8).collect();
        let mut writer = peer.try_clone().unwrap();
        let to_send = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&to_send).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent);
    });
    run(move || async move {
        let listener = Listener::from_std(listener).unwrap();
        let (descriptor, peer) = listener.accept().await.unwrap();
        let stream = Stream::from_fd(descriptor, &nodelay()).unwrap();
        assert_eq!((stream.peer_addr(), stream.local_addr()), (peer, address));
        let mut buffer = BytesMut::new();
        while stream.read(&mut buffer).await.unwrap() > 0 {
            let first = buffer.split_to(buffer.len() / 2).freeze();
            stream.write_all(vec![Bytes::new(), first, buffer.split().freeze()]).await.unwrap();
        }
    });
    client.join().unwrap();
}

/// A read that is given up many times loses no byte and leaves nothing behind in the ring; the connection can then move to another shard.
#[test]
fn a_dropped_read_loses_nothing_and_the_stream_can_move() {
    run(|| async {
        let listener = bind(ANY_PORT, &ListenOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::from_std(listener).unwrap();
        let near = Stream::from_fd(net::connect(address).await.unwrap(), &nodelay()).unwrap();
        let far = Stream::from_fd(listener.accept().await.unwrap().0, &nodelay()).unwrap();
        let mut buffer = BytesMut::new();
        for _ in 0..100 {
            assert!(timeout(Duration::from_micros(300), near.read(&mut buffer)).await.is_err());
        }
        far.write_all(vec![Bytes::from_static(b"hello")]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 5);

        assert!(timeout(Duration::from_millis(1), near.read(&mut buffer)).await.is_err(), "a poll is in the ring");
        let moved = Stream::from_fd(near.into_fd().await, &nodelay()).unwrap();
        far.write_all(vec![Bytes::from_static(b" world")]).await.unwrap();
        assert_eq!(moved.read(&mut buffer).await.unwrap(), 6);
        assert_eq!(&buffer[..], b"hello world");

        // The end of a stream reaches its peer although a poll is still in the ring.
        assert!(timeout(Duration::from_millis(1), moved.read(&mut buffer)).await.is_err());
        drop(moved);
        assert_eq!(timeout(PATIENCE, far.read(&mut buffer)).await.unwrap().unwrap(), 0);
    });
}
