//! `probe net`: what TCP over loopback takes by itself. Exchanges of small messages with the serving thread parked in the kernel or spinning, and bytes in one direction, out of memory and by
//! `sendfile` out of the page cache.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_tcp_congestion;
use serde_json::json;

use crate::machine;
use crate::pace::Pace;
use crate::tally::{Tally, heading, row};

/// What a thread does that has nothing to read.
#[derive(Clone, Copy, PartialEq)]
pub enum Idle {
    Park,
    Spin,
}

pub struct Plan {
    /// The serving thread's core.
    pub core: usize,
    pub rounds: usize,
    pub round: Duration,
    pub json: bool,
}

/// Bytes of a question and of its answer, and questions a second: 0 asks again at once.
const CASES: [(usize, usize, u64); 4] = [(100, 100, 0), (100, 100, 1000), (1200, 60, 1000), (65_536, 60, 1000)];
const BULK_WRITE_BYTES: usize = 64 << 10;
/// As a broker does: bytes of one `sendfile`, and a file that the page cache holds.
const SENDFILE_BYTES: usize = 256 << 10;
const SENT_FILE_BYTES: usize = 256 << 20;

pub fn probe(plan: &Plan) -> io::Result<()> {
    let client_core = machine::other_core(plan.core);
    machine::pin_to(client_core)?;
    let mut rows = Vec::new();
    for idle in [Idle::Park, Idle::Spin] {
        let echo = Echo::start(plan.core, idle)?;
        for (ask_bytes, answer_bytes, rate) in CASES {
            let mut tally = Tally::new();
            for _ in 0..plan.rounds {
                let pace = if rate == 0 { Pace::new(20_000, plan.round) } else { Pace::new(rate, plan.round) };
                let latencies = if rate == 0 {
                    exchange_at_once(echo.address, ask_bytes, answer_bytes, plan.round)?
                } else {
                    exchange(echo.address, ask_bytes, answer_bytes, &pace)?
                };
                latencies.iter().for_each(|latency| tally.record(*latency));
                tally.end_round();
            }
            rows.push((idle, ask_bytes, answer_bytes, rate, tally));
        }
    }
    let bulk_megabytes = bulk(plan.core, plan.round)?;
    let mut sendfile_megabytes = Vec::new();
    for _ in 0..plan.rounds.max(1) {
        sendfile_megabytes.push(bulk_sendfile(plan.core, plan.round)?);
    }
    sendfile_megabytes.sort_by(f64::total_cmp);
    let sendfile_megabytes = sendfile_megabytes[sendfile_megabytes.len() / 2];
    if plan.json {
        let exchanges: Vec<_> = rows
            .iter()
            .map(|(idle, ask, answer, rate, tally)| {
                json!({"server": if *idle == Idle::Park { "parked" } else { "spinning" }, "ask_bytes": ask, "answer_bytes": answer, "rate": rate, "us": tally.json()})
            })
            .collect();
        println!(
            "{}",
            json!({
                "exchanges": exchanges,
                "bulk_megabytes_per_second": bulk_megabytes,
                "sendfile_megabytes_per_second": sendfile_megabytes,
            })
        );
        return Ok(());
    }
    println!(
        "Exchanges over loopback (cubic), server on core {}, client spinning on core {client_core}; us from the scheduled time.\n",
        plan.core
    );
    heading(&["server", "question", "answer", "a second", "p50", "p99", "p99.9"]);
    for (idle, ask_bytes, answer_bytes, rate, tally) in &rows {
        row(&[
            if *idle == Idle::Park { "parked" } else { "spinning" }.to_string(),
            ask_bytes.to_string(),
            answer_bytes.to_string(),
            if *rate == 0 { "one after the other".to_string() } else { rate.to_string() },
            tally.p50(),
            tally.quantile(0.99),
            tally.quantile(0.999),
        ]);
    }
    println!("\nOne direction, {} KiB a write: {bulk_megabytes:.0} MB/s.", BULK_WRITE_BYTES >> 10);
    println!("From the server by sendfile out of the page cache, {} KiB a call: {sendfile_megabytes:.0} MB/s.", SENDFILE_BYTES >> 10);
    Ok(())
}

/// A thread that answers questions, for as long as the process lives. A question begins with its own size and its answer's, so that one server serves all cases.
pub struct Echo {
    pub address: SocketAddr,
}

impl Echo {
    pub fn start(core: usize, idle: Idle) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        set_tcp_congestion(&listener, "cubic")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            machine::pin_to(core).expect("the core is there");
            for stream in listener.incoming() {
                // The client went away: the next one, please.
                let _ended = stream.and_then(|stream| answer_all(stream, idle));
            }
        });
        Ok(Self { address })
    }
}

fn answer_all(mut stream: TcpStream, idle: Idle) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(idle == Idle::Spin)?;
    let mut received = vec![0; 256 << 10];
    let answer = vec![2; 256 << 10];
    let mut have = 0;
    loop {
        have += read_spinning(&mut stream, &mut received[have..])?;
        if have < 8 {
            continue;
        }
        let size = |at: usize| u32::from_le_bytes(received[at..at + 4].try_into().expect("four bytes")) as usize;
        let (ask_bytes, answer_bytes) = (size(0), size(4));
        if have == ask_bytes {
            stream.write_all(&answer[..answer_bytes])?;
            have = 0;
        }
    }
}

/// Asks at the pace's times, one question at a time.
pub fn exchange(address: SocketAddr, ask_bytes: usize, answer_bytes: usize, pace: &Pace) -> io::Result<Vec<Duration>> {
    let mut asker = Asker::new(address, ask_bytes, answer_bytes)?;
    pace.run(|| asker.ask())
}

fn exchange_at_once(address: SocketAddr, ask_bytes: usize, answer_bytes: usize, time: Duration) -> io::Result<Vec<Duration>> {
    let mut asker = Asker::new(address, ask_bytes, answer_bytes)?;
    let (begun, mut latencies) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let asked = Instant::now();
        asker.ask()?;
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}

struct Asker {
    stream: TcpStream,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Asker {
    fn new(address: SocketAddr, ask_bytes: usize, answer_bytes: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut question = vec![1; ask_bytes];
        question[..4].copy_from_slice(&(ask_bytes as u32).to_le_bytes());
        question[4..8].copy_from_slice(&(answer_bytes as u32).to_le_bytes());
        Ok(Self { stream, question, answer: vec![0; answer_bytes] })
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.question.len() {
            match self.stream.write(&self.question[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let mut received = 0;
        while received < self.answer.len() {
            received += read_spinning(&mut self.stream, &mut self.answer[received..])?;
        }
        Ok(())
    }
}

/// Reads at least a byte, asking again and again where the stream does not block.
pub fn read_spinning(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(into) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            done => return done,
        }
    }
}

fn bulk(server_core: usize, time: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    set_tcp_congestion(&listener, "cubic")?;
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || {
        machine::pin_to(server_core)?;
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total, begun) = (vec![0; 256 << 10], 0, Instant::now());
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok::<f64, io::Error>(total as f64 / begun.elapsed().as_secs_f64() / 1e6),
                bytes => total += bytes,
            }
        }
    });
    let mut stream = TcpStream::connect(address)?;
    set_tcp_congestion(&stream, "cubic")?;
    let (bytes, begun) = (vec![3; BULK_WRITE_BYTES], Instant::now());
    while begun.elapsed() < time {
        stream.write_all(&bytes)?;
    }
    drop(stream);
    receiver.join().expect("no panic")
}

/// What a server sends with `sendfile` and a client reads and forgets: no fetch is faster.
fn bulk_sendfile(server_core: usize, time: Duration) -> io::Result<f64> {
    let file = cached_file()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    set_tcp_congestion(&listener, "cubic")?;
    let address = listener.local_addr()?;
    let sender = thread::spawn(move || {
        machine::pin_to(server_core)?;
        let (stream, _) = listener.accept()?;
        let begun = Instant::now();
        let mut position = 0;
        while begun.elapsed() < time {
            rustix::fs::sendfile(&stream, &file, Some(&mut position), SENDFILE_BYTES)?;
            if position == SENT_FILE_BYTES as u64 {
                position = 0;
            }
        }
        Ok::<(), io::Error>(())
    });
    let mut stream = TcpStream::connect(address)?;
    set_tcp_congestion(&stream, "cubic")?;
    let (mut buffer, mut total, begun) = (vec![0; 1 << 20], 0, Instant::now());
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            bytes => total += bytes,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    sender.join().expect("no panic")?;
    Ok(total as f64 / seconds / 1e6)
}

/// A file without a name whose every page has just been written.
fn cached_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("corelane-perf-{}", std::process::id()));
    let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.write_all(&vec![7; SENT_FILE_BYTES])?;
    Ok(file)
}
