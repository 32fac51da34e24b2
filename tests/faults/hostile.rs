//! Clients that mean harm, or behave as if: beside them an ordinary producer and consumer lose nothing and hardly notice, and afterwards everything is as before.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::messages::{ApiVersionsRequest, FetchRequest, JoinGroupRequest, MetadataRequest};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{self, Batch, Codec, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places::Target;
use harness::raw::{Connection, code, fetch_request, frame_of, produce_request, records_of};
use harness::suite::OwnBrokerCase;
use harness::wait;
use hdrhistogram::Histogram;

use crate::writer::{StopAtEnd, mix};

pub const CASES: &[OwnBrokerCase] =
    own_broker_cases![healthy_clients_hardly_notice, bombs_are_bounded, readers_that_do_not_read_hold_back_only_themselves];

const TOPIC: &str = "hostile";

/// What a healthy acknowledgement may take at the 99th percentile while it goes on, on two cores that the attackers and the clients share with the broker.
const P99_BOUND: Duration = Duration::from_millis(750);

/// What a broker may keep more after the attack than before it; the allocator gives back late.
const KEPT_BYTES_MAX: u64 = 96 << 20;

/// Some thousand connections that send garbage, lie about sizes, mutate proper requests, stop in the middle, hang up, or drip single bytes.
fn healthy_clients_hardly_notice() {
    let broker = Broker::start(BrokerOptions::default());
    Connection::to(&broker).create_topic(TOPIC, 2);
    let healthy = Healthy::default();
    let before = broker.resident_bytes();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&healthy.stop);
        scope.spawn(|| healthy.produce(&broker));
        scope.spawn(|| healthy.consume(&broker));
        healthy.wait_for(200);
        let calm = healthy.take_latencies();
        let attackers: Vec<_> =
            ATTACKS.iter().map(|(name, attack, times)| (name, scope.spawn(|| attack(broker.address(), *times)))).collect();
        for (name, attacker) in attackers {
            attacker.join().unwrap_or_else(|_| panic!("the attack `{name}` itself failed"));
        }
        let attacked = healthy.take_latencies();
        healthy.wait_for(200);
        report("calm", &calm);
        report("attacked", &attacked);
        assert!(
            attacked.value_at_quantile(0.99) < P99_BOUND.as_micros() as u64,
            "p99 {} us while attacked",
            attacked.value_at_quantile(0.99)
        );
    });
    healthy.assert_nothing_lost();
    assert_as_before(broker, before);
}

type Attack = fn(SocketAddr, u64);

const ATTACKS: &[(&str, Attack, u64)] = &[
    ("garbage", garbage, 1_000),
    ("lies about sizes", lies_about_sizes, 600),
    ("mutated requests", mutated_requests, 2_000),
    ("broken off", broken_off, 600),
    ("half closed", half_closed, 300),
    ("dripping", dripping, 100),
];

fn garbage(address: SocketAddr, times: u64) {
    for index in 0..times {
        let bytes: Vec<u8> = (0..mix(index) % 2_000).map(|position| mix(index << 16 | position) as u8).collect();
        send_and_listen(address, &bytes);
    }
}

fn lies_about_sizes(address: SocketAddr, times: u64) {
    for index in 0..times {
        let size = [i32::MAX, -1, i32::MIN, 104_857_600, 104_857_599, 0, 1, 50_000_000][index as usize % 8];
        let mut bytes = size.to_be_bytes().to_vec();
        bytes.extend((0..mix(index) % 5_000).map(|position| position as u8));
        send_and_listen(address, &bytes);
    }
}

/// Proper requests with a few bits turned: counts and lengths that promise what is not there, keys and versions that do not exist.
fn mutated_requests(address: SocketAddr, times: u64) {
    let frames = proper_frames();
    for index in 0..times {
        let mut frame = frames[index as usize % frames.len()].clone();
        for turn in 0..1 + mix(index) % 4 {
            let random = mix(index << 8 | turn);
            // The length stays true, or most would only wait for bytes that never come.
            let at = 4 + (random >> 8) as usize % (frame.len() - 4);
            frame[at] ^= 1 << (random % 8);
        }
        send_and_listen(address, &frame);
    }
}

fn proper_frames() -> Vec<Vec<u8>> {
    let records = |codec| Batch::of((0..20).map(|index| record("key", format!("value {index}"))).collect()).codec(codec).encode();
    let id = || Some(Str::from("hostile"));
    let mut frames: Vec<Vec<u8>> =
        Codec::ALL.iter().map(|codec| frame_of(9, 1, id(), &produce_request("hostile-other", 0, -1, records(*codec)))).collect();
    let mut fetch = fetch_request(&[("hostile-other", 0, 0)]);
    fetch.max_wait_ms = 10;
    frames.push(frame_of(11, 2, id(), &fetch));
    frames.push(frame_of(9, 3, id(), &MetadataRequest { topics: None, ..Default::default() }));
    frames.push(frame_of(3, 4, id(), &ApiVersionsRequest::default()));
    let join = JoinGroupRequest {
        group_id: Str::from("hostile-group"),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 6_000,
        protocol_type: Str::from("consumer"),
        ..Default::default()
    };
    frames.push(frame_of(9, 5, id(), &join));
    frames
}

/// Begins a request and goes away.
fn broken_off(address: SocketAddr, times: u64) {
    let frames = proper_frames();
    for index in 0..times {
        let frame = &frames[index as usize % frames.len()];
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(&frame[..mix(index) as usize % frame.len()]);
        }
    }
}

/// Sends a request, closes its own side, and still wants the answer; every other one resets instead.
fn half_closed(address: SocketAddr, times: u64) {
    let frame = frame_of(9, 1, None, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
    for index in 0..times {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.write_all(&frame);
        if index % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

/// A hundred connections at once that send a request byte by byte and never finish it.
fn dripping(address: SocketAddr, connections: u64) {
    let frame = frame_of(9, 1, None, &produce_request("hostile-other", 0, -1, Batch::of(vec![record("k", vec![1; 5_000])]).encode()));
    let mut streams: Vec<TcpStream> = (0..connections).filter_map(|_| TcpStream::connect(address).ok()).collect();
    for byte in &frame[..60] {
        for stream in &mut streams {
            let _ = stream.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn send_and_listen(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 1024]);
}

/// Batches of some hundred KiB that decompress to a quarter of a GiB: refused or taken, they cost neither memory nor the others' time.
fn bombs_are_bounded() {
    let broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 2);
    let healthy = Healthy::default();
    let bombs: Vec<Bytes> = [Codec::Gzip, Codec::Lz4, Codec::Zstd].into_iter().map(bomb).collect();
    let before = broker.resident_bytes();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&healthy.stop);
        scope.spawn(|| healthy.produce(&broker));
        scope.spawn(|| healthy.consume(&broker));
        healthy.wait_for(50);
        let throwers: Vec<_> = (0..3)
            .map(|thrower: usize| {
                let (bombs, broker) = (&bombs, &broker);
                scope.spawn(move || {
                    for bomb in bombs.iter().cycle().skip(thrower).take(3) {
                        // An answer or a closed connection are both in order.
                        let _ = Connection::to(broker).try_call(9, &produce_request(TOPIC, 1, -1, bomb.clone()));
                    }
                })
            })
            .collect();
        throwers.into_iter().for_each(|thrower| thrower.join().expect("the thrower itself does not fail"));
        healthy.wait_for(50);
    });
    report("with bombs", &healthy.take_latencies());
    healthy.assert_nothing_lost();
    assert_as_before(broker, before);
}

/// One record whose value is a quarter of a GiB of zeros, compressed to below what a topic takes.
fn bomb(codec: Codec) -> Bytes {
    let mut record = vec![0, 0, 0, 1];
    let length: u64 = 256 << 20;
    let mut zigzag = length << 1;
    while zigzag >= 0x80 {
        record.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    record.push(zigzag as u8);
    record.resize(record.len() + length as usize, 0);
    record.push(0);
    let mut plain = Vec::new();
    let mut zigzag = (record.len() as u64) << 1;
    while zigzag >= 0x80 {
        plain.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    plain.push(zigzag as u8);
    plain.append(&mut record);
    Batch::of(vec![batch::record("", "")]).codec(codec).encode_with(&codec.compress(&plain))
}

/// They ask for records again and again and never read an answer: their own connection stands still, the memory of the broker does not grow with what they asked for.
fn readers_that_do_not_read_hold_back_only_themselves() {
    let broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 2);
    for _ in 0..20 {
        connection.append(TOPIC, 1, vec![record("k", vec![7; 500_000])]);
    }
    let healthy = Healthy::default();
    let before = broker.resident_bytes();
    let frame = frame_of(11, 1, None, &fetch_request(&[(TOPIC, 1, 0)]));
    thread::scope(|scope| {
        let _ending = StopAtEnd(&healthy.stop);
        scope.spawn(|| healthy.produce(&broker));
        scope.spawn(|| healthy.consume(&broker));
        let mut lazy: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(broker.address()).expect("a connection")).collect();
        for stream in &mut lazy {
            stream.set_nonblocking(true).expect("a socket");
            for _ in 0..200 {
                // What does not fit into the socket any more is not sent.
                if stream.write(&frame).is_err() {
                    break;
                }
            }
        }
        healthy.wait_for(300);
        if broker.target() == Target::Corelane {
            let more = broker.resident_bytes().saturating_sub(before);
            assert!(more < 256 << 20, "{} MiB more while 50 connections want 10 MB 200 times each", more >> 20);
        }
        drop(lazy);
    });
    report("beside lazy readers", &healthy.take_latencies());
    healthy.assert_nothing_lost();
    assert_as_before(broker, before);
}

/// An ordinary producer and an ordinary consumer of partition 0.
struct Healthy {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    read: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Default for Healthy {
    fn default() -> Healthy {
        Healthy {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            read: AtomicU64::new(0),
            latencies: Mutex::new(latencies()),
        }
    }
}

impl Healthy {
    fn produce(&self, broker: &Broker) {
        let mut connection = Connection::to(broker);
        for index in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let started = Instant::now();
            let answer = connection.produce_bytes(9, TOPIC, 0, -1, Batch::of(vec![record(&index.to_string(), vec![1; 200])]).encode());
            self.latencies.lock().expect("no holder panics").record(started.elapsed().as_micros() as u64).expect("within a minute");
            assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, index), "the healthy producer");
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Reads until it has seen what was acknowledged, also after the producer has stopped.
    fn consume(&self, broker: &Broker) {
        let mut connection = Connection::to(broker);
        let mut next = 0;
        while !self.stop.load(Ordering::Relaxed) || next < self.acknowledged.load(Ordering::Relaxed) as i64 {
            let answer = connection.call::<FetchRequest>(11, &fetch_request(&[(TOPIC, 0, next)]));
            let data = &answer.responses[0].partitions[0];
            assert_eq!(code(data.error_code), ErrorCode::None, "the healthy consumer");
            let from = next;
            for (offset, found) in batch::read_records(&records_of(data)).into_iter().filter(|(offset, _)| *offset >= from) {
                assert_eq!((offset, found.key), (next, Some(next.to_string().into_bytes())), "the healthy consumer");
                next += 1;
            }
            self.read.store(next as u64, Ordering::Relaxed);
        }
    }

    fn wait_for(&self, more: u64) {
        let (acknowledged, read) = (self.acknowledged.load(Ordering::Relaxed) + more, self.read.load(Ordering::Relaxed) + more);
        wait::until("healthy clients to go on", Duration::from_secs(120), || {
            (self.acknowledged.load(Ordering::Relaxed) >= acknowledged && self.read.load(Ordering::Relaxed) >= read).then_some(())
        });
    }

    fn take_latencies(&self) -> Histogram<u64> {
        std::mem::replace(&mut self.latencies.lock().expect("no holder panics"), latencies())
    }

    fn assert_nothing_lost(&self) {
        let (acknowledged, read) = (self.acknowledged.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed));
        assert!(acknowledged > 0 && read >= acknowledged, "{acknowledged} acknowledged, {read} read");
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds in order")
}

fn report(name: &str, latencies: &Histogram<u64>) {
    let at = |quantile| latencies.value_at_quantile(quantile);
    println!("{name}: {} acknowledgements, p50 {} us, p99 {} us, max {} us", latencies.len(), at(0.5), at(0.99), latencies.max());
}

/// The broker lives, serves a new client, and its memory has come back.
fn assert_as_before(mut broker: Broker, before: u64) {
    assert!(broker.is_running());
    assert_eq!(Connection::to(&broker).metadata(9, &[TOPIC]).topics[0].partitions.len(), 2);
    if broker.target() == Target::Corelane {
        println!("resident: {} MiB before, {} MiB after", before >> 20, broker.resident_bytes() >> 20);
        wait::until("the memory to come back", Duration::from_secs(60), || {
            (broker.resident_bytes() < before + KEPT_BYTES_MAX).then_some(())
        });
    }
}
