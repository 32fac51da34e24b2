//! `probe ring`: the shard's runtime by itself. A hop to another shard and back, a timer, a durable write, each with the shard asleep between and beside a task that keeps it at 100 %; echo over
//! TCP from the second shard; and what a shard costs that has nothing to do.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use corelane::rt::buffer::AlignedBuffer;
use corelane::rt::file::{Durability, File, OpenMode};
use corelane::rt::mesh::{MeshEnd, mesh};
use corelane::rt::net::{ListenOptions, Listener, SocketOptions, Stream, bind, connect};
use corelane::rt::sync::Notify;
use corelane::rt::{self, ShardId};

use crate::machine::{self, CpuTime};
use crate::quiet::Quiet;
use crate::tally::{Tally, heading, row};

pub struct Plan {
    pub directory: PathBuf,
    pub cores: Vec<usize>,
    pub rounds: usize,
    pub idle_poll: Duration,
    pub patience: Duration,
}

const FIRST: ShardId = ShardId(0);
const SECOND: ShardId = ShardId(1);
const SAMPLES: usize = 500;
const ECHO_CASES: [(usize, usize); 3] = [(1, 100), (32, 100), (8, 64 << 10)];

/// What the first shard asks of the second.
enum Order {
    Echo(u64),
    Busy(bool),
    /// Exchange messages of so many bytes over so many connections until the time is over; answered by their count.
    Exchange {
        address: SocketAddr,
        connections: usize,
        bytes: usize,
        time: Duration,
    },
    Exchanged(u64),
    End,
}

pub fn probe(plan: Plan) {
    for line in machine::describe(&plan.directory) {
        println!("- {line}");
    }
    println!(
        "- shards on cores {:?}; the disk's interrupts on core {}; an idle shard polls for {:?}",
        plan.cores,
        machine::disk_interrupt_core(),
        plan.idle_poll
    );
    let ends: Arc<Mutex<Vec<Option<MeshEnd<Order>>>>> = Arc::new(Mutex::new(mesh(2, 1024).into_iter().map(Some).collect()));
    let (directory, rounds, patience) = (plan.directory.clone(), plan.rounds, plan.patience);
    let cores = [plan.cores[0], plan.cores[plan.cores.len() - 1]];
    let entry = move |shard: ShardId| {
        let (ends, directory) = (ends.clone(), directory.clone());
        async move {
            let end = Rc::new(ends.lock().expect("no panic")[usize::from(shard.0)].take().expect("once"));
            match shard {
                FIRST => measure(Peer::new(end), &directory, rounds, &Quiet::new(patience)).await,
                _ => serve(end).await,
            }
        }
    };
    rt::Options::new(&cores).idle_poll(plan.idle_poll).start(entry).unwrap_or_else(|error| panic!("{error}")).join();
}

async fn measure(peer: Peer, directory: &Path, rounds: usize, quiet: &Quiet) {
    let file = make_file(directory).await;
    let mut tallies: Vec<(&str, bool, Tally)> = Vec::new();
    for name in ["hop to the other shard and back", "timer of 5 ms, lateness", "durable 4 KiB write"] {
        tallies.extend([false, true].map(|busy| (name, busy, Tally::new())));
    }
    for _ in 0..rounds {
        for (index, (_, busy, tally)) in tallies.iter_mut().enumerate() {
            loop {
                let mark = quiet.wait().await;
                match index / 2 {
                    0 => hops(&peer, *busy, tally).await,
                    1 => beside(*busy, timers(tally)).await,
                    _ => beside(*busy, writes(&file, tally)).await,
                }
                if quiet.accepts(&mark) {
                    break;
                }
                tally.discard_round();
            }
            tally.end_round();
        }
    }
    println!();
    heading(&["us", "shard", "p50", "p99", "p99.9"]);
    for (name, busy, tally) in &tallies {
        let state = if *busy { "at 100 %" } else { "asleep between" };
        row(&[name.to_string(), state.to_string(), tally.p50(), tally.quantile(0.99), tally.quantile(0.999)]);
    }
    echo(&peer, rounds, quiet).await;
    idle(quiet).await;
    println!("\n{}.", quiet.report());
    peer.end.send(SECOND, Order::End);
    std::fs::remove_file(file.path()).unwrap_or_else(|error| panic!("{error}"));
}

async fn hops(peer: &Peer, busy: bool, tally: &mut Tally) {
    peer.end.send(SECOND, Order::Busy(busy));
    for number in 0..SAMPLES as u64 {
        // Long enough for both to fall asleep.
        rt::sleep(Duration::from_micros(300)).await;
        let begun = Instant::now();
        peer.ask(Order::Echo(number)).await;
        tally.record(begun.elapsed());
    }
    peer.end.send(SECOND, Order::Busy(false));
}

async fn timers(tally: &mut Tally) {
    const TIMER: Duration = Duration::from_millis(5);
    for _ in 0..SAMPLES / 5 {
        let begun = Instant::now();
        rt::sleep(TIMER).await;
        tally.record(begun.elapsed() - TIMER);
    }
}

async fn writes(file: &File, tally: &mut Tally) {
    let block = AlignedBuffer::zeroed(4096).freeze();
    for number in 0..SAMPLES as u64 {
        let begun = Instant::now();
        file.write_at(block.clone(), number * 4096, Durability::Dsync).await.unwrap_or_else(|error| panic!("{error}"));
        tally.record(begun.elapsed());
    }
}

async fn beside(busy: bool, work: impl Future<Output = ()>) {
    let load = busy.then(|| rt::spawn(spin()));
    work.await;
    drop(load);
}

/// Keeps the shard at 100 % in slices of 20 us, as a task should that has much to do.
async fn spin() {
    loop {
        let slice = Instant::now();
        while slice.elapsed() < Duration::from_micros(20) {
            std::hint::spin_loop();
        }
        rt::yield_now().await;
    }
}

async fn echo(peer: &Peer, rounds: usize, quiet: &Quiet) {
    const TIME: Duration = Duration::from_millis(500);
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &ListenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let listener = Listener::from_std(listener).expect("a listener");
    let mut results = vec![Vec::new(); ECHO_CASES.len()];
    let address = listener.local_addr();
    let accepting = rt::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            rt::spawn(echo_one(Stream::from_fd(socket, &socket_options()).expect("a stream"))).detach();
        }
    });
    for _ in 0..rounds {
        for ((connections, bytes), results) in ECHO_CASES.iter().zip(&mut results) {
            let result = loop {
                let mark = quiet.wait().await;
                let (begun, before, enters) = (Instant::now(), machine::thread_cpu("shard-0"), rt::statistics());
                let answer = peer.ask(Order::Exchange { address, connections: *connections, bytes: *bytes, time: TIME }).await;
                let Order::Exchanged(messages) = answer else { unreachable!("the second shard answers with a count") };
                let (seconds, cpu) = (begun.elapsed().as_secs_f64(), (machine::thread_cpu("shard-0") - before).as_secs_f64());
                let after = rt::statistics();
                let per_message = |count: u64| count as f64 / messages as f64;
                let result = (
                    messages as f64 / seconds,
                    cpu * 1e6 / messages as f64,
                    per_message(after.ring_enters - enters.ring_enters),
                    per_message(after.sleeps - enters.sleeps),
                );
                if quiet.accepts(&mark) {
                    break result;
                }
            };
            results.push(result);
        }
    }
    drop(accepting);
    println!("\nEcho between the two shards over loopback (cubic); CPU of the echoing shard.\n");
    heading(&["connections", "bytes", "messages a second", "CPU us a message", "ring enters a message", "sleeps a message"]);
    for ((connections, bytes), results) in ECHO_CASES.iter().zip(&mut results) {
        results.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (rate, cpu, enters, sleeps) = results[results.len() / 2];
        row(&[
            connections.to_string(),
            bytes.to_string(),
            format!("{rate:.0}"),
            format!("{cpu:.2}"),
            format!("{enters:.2}"),
            format!("{sleeps:.2}"),
        ]);
    }
}

async fn echo_one(stream: Stream) {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    while let Ok(1..) = stream.read(&mut buffer).await {
        if stream.write_all(vec![buffer.split().freeze()]).await.is_err() {
            return;
        }
    }
}

async fn idle(quiet: &Quiet) {
    const TIME: Duration = Duration::from_secs(5);
    quiet.wait().await;
    let (before, begun) = (CpuTime::now(), Instant::now());
    rt::sleep(TIME).await;
    let used = CpuTime::now().since(before).own.as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("\nTwo idle shards for {TIME:?}: {:.2} % of a core each.", used * 50.0);
}

/// The second shard.
async fn serve(end: Rc<MeshEnd<Order>>) {
    let over = Notify::new();
    let finished = over.notified();
    let busy: RefCell<Option<rt::Task<()>>> = RefCell::default();
    let answer = end.clone();
    end.on_message(Box::new(move |from, order| match order {
        Order::Echo(number) => answer.send(from, Order::Echo(number)),
        Order::Busy(on) => drop(busy.replace(on.then(|| rt::spawn(spin())))),
        Order::Exchange { address, connections, bytes, time } => {
            let answer = answer.clone();
            rt::spawn(async move { answer.send(from, Order::Exchanged(exchange(address, connections, bytes, time).await)) }).detach();
        }
        Order::Exchanged(_) => unreachable!("only asked for"),
        Order::End => over.notify_all(),
    }));
    finished.await;
}

async fn exchange(address: SocketAddr, connections: usize, bytes: usize, time: Duration) -> u64 {
    let begun = Instant::now();
    let message = Bytes::from(vec![1; bytes]);
    let tasks = (0..connections).map(|_| {
        let message = message.clone();
        rt::spawn(async move {
            let stream = Stream::from_fd(connect(address).await.expect("a connection"), &socket_options()).expect("a stream");
            let mut buffer = BytesMut::with_capacity(2 * bytes);
            let mut messages = 0;
            while begun.elapsed() < time {
                stream.write_all(vec![message.clone()]).await.expect("sent");
                buffer.clear();
                while buffer.len() < bytes {
                    assert!(stream.read(&mut buffer).await.expect("received") > 0);
                }
                messages += 1;
            }
            messages
        })
    });
    let mut messages = 0;
    for task in tasks.collect::<Vec<_>>() {
        messages += task.await;
    }
    messages
}

/// The first shard's way to ask the second and wait for its answer.
struct Peer {
    end: Rc<MeshEnd<Order>>,
    answered: Notify,
    answer: Rc<Cell<Option<Order>>>,
}

impl Peer {
    fn new(end: Rc<MeshEnd<Order>>) -> Self {
        let peer = Self { end, answered: Notify::new(), answer: Rc::default() };
        let (answered, answer) = (peer.answered.clone(), peer.answer.clone());
        peer.end.on_message(Box::new(move |_, order| {
            answer.set(Some(order));
            answered.notify_all();
        }));
        peer
    }

    async fn ask(&self, order: Order) -> Order {
        let answered = self.answered.notified();
        self.end.send(SECOND, order);
        answered.await;
        self.answer.take().expect("an answer has come")
    }
}

fn socket_options() -> SocketOptions {
    SocketOptions { nodelay: true, congestion: Some("cubic".to_string()), ..SocketOptions::default() }
}

async fn make_file(directory: &Path) -> File {
    let path = directory.join("corelane-perf-runtime");
    let file = File::open(&path, OpenMode::CREATE).await.unwrap_or_else(|error| panic!("{error}"));
    file.write_at(Bytes::from(vec![1; SAMPLES * 4096]), 0, Durability::Dsync).await.unwrap_or_else(|error| panic!("{error}"));
    File::open(&path, OpenMode::READ_WRITE.direct(true)).await.unwrap_or_else(|error| panic!("{error}"))
}
