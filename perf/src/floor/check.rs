//! `floor --check`: whether the floor is one. A durable write by itself, an exchange over TCP by itself, and an acknowledgement of the floor, in turn, at the same pace, on the same cores: the floor's
//! median may be 15 us above the other two together. Otherwise it is not the least, and no table may name it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use corelane_wire::batch::{BatchBuilder, BatchOptions};
use corelane_wire::messages::create_topics_request::CreatableTopic;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::{CreateTopicsRequest, ProduceRequest};
use corelane_wire::{Chunk, Records, Request, Str, encode_request};
use serde_json::json;

use super::{Plan, prepare};
use crate::disk::PacedWrites;
use crate::machine;
use crate::net::{self, Echo, Idle};
use crate::pace::Pace;
use crate::tally::{Tally, heading, row};

/// What the floor may take beyond its parts.
const ALLOWANCE: Duration = Duration::from_micros(15);
const RATE: u64 = 1000;
/// Of each of the three. Short, because what else uses the machine changes from second to second, and all three have to meet the same.
const ROUND: Duration = Duration::from_millis(333);
const RECORD_BYTES: usize = 1024;
/// A produce request of one such record, and its answer.
const ASK_BYTES: usize = 1200;
const ANSWER_BYTES: usize = 60;
const PRODUCE_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;

pub struct Check {
    pub rounds: usize,
    pub json: bool,
}

/// Whether the floor holds.
pub fn run(plan: Plan, check: &Check) -> io::Result<bool> {
    let client_core = machine::other_core(plan.core);
    let (core, directory) = (plan.core, plan.directory.clone());
    let address = serve_in_background(plan)?;
    let echo = Echo::start(core, Idle::Park)?;
    machine::pin_to(client_core)?;
    let (mut disk, mut net, mut floor) = (Tally::new(), Tally::new(), Tally::new());
    let mut client = Client::new(address)?;
    for _ in 0..check.rounds {
        if let Some(directory) = &directory {
            write_for_a_round(directory.clone(), core)?.iter().for_each(|latency| disk.record(*latency));
            disk.end_round();
        }
        net::exchange(echo.address, ASK_BYTES, ANSWER_BYTES, &Pace::new(RATE, ROUND))?.iter().for_each(|latency| net.record(*latency));
        net.end_round();
        Pace::new(RATE, ROUND).run(|| client.produce())?.iter().for_each(|latency| floor.record(*latency));
        floor.end_round();
    }
    let allowed = disk.median() + net.median() + ALLOWANCE;
    let holds = floor.median() <= allowed;
    if check.json {
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        println!(
            "{}",
            json!({"holds": holds, "disk_p50_us": micros(disk.median()), "net_p50_us": micros(net.median()), "floor_p50_us": micros(floor.median()), "allowed_p50_us": micros(allowed)})
        );
    } else {
        println!(
            "{RATE} a second, one at a time, {} rounds of {ROUND:?}; server on core {core}, client spinning on core {client_core}; us\n",
            check.rounds
        );
        heading(&["", "p10", "p50", "p99"]);
        for (name, tally) in
            [("durable 4 KiB write by itself", &disk), ("exchange over TCP by itself", &net), ("acknowledgement of the floor", &floor)]
        {
            row(&[name.to_string(), tally.quantile(0.1), tally.p50(), tally.quantile(0.99)]);
        }
        println!("\nfloor p50 {} us, allowed {} us: {}", floor.median().as_micros(), allowed.as_micros(), if holds { "yes" } else { "no" });
    }
    Ok(holds)
}

fn serve_in_background(plan: Plan) -> io::Result<SocketAddr> {
    let (sender, ready) = std::sync::mpsc::channel();
    thread::spawn(move || match prepare(&plan) {
        Ok(server) => {
            let _gone = sender.send(Ok(server.address()));
            server.run()
        }
        Err(error) => drop(sender.send(Err(error))),
    });
    ready.recv().map_err(io::Error::other)?
}

fn write_for_a_round(directory: PathBuf, core: usize) -> io::Result<Vec<Duration>> {
    let writer = thread::spawn(move || {
        machine::pin_to(core)?;
        PacedWrites::new(&directory)?.run(4096, false, &Pace::new(RATE, ROUND))
    });
    // The client spins there in the other two measurements, which a core that shares something with it feels.
    while !writer.is_finished() {
        std::hint::spin_loop();
    }
    writer.join().expect("no panic")
}

/// One record in each request, one request at a time.
struct Client {
    stream: TcpStream,
    frame: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let topic = CreatableTopic { name: Str::from("check"), num_partitions: 1, replication_factor: 1, ..Default::default() };
        let create = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        stream.write_all(&frame_of(CREATE_TOPICS_VERSION, &create))?;
        receive_blocking(&mut stream)?;
        stream.set_nonblocking(true)?;
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.push(None, Some(&[7; RECORD_BYTES]), 0, &[]);
        let records = batch.build().map_err(|error| io::Error::other(format!("{error:?}")))?;
        let data = PartitionProduceData { index: 0, records: Some(Records::from(records)), ..Default::default() };
        let topic = TopicProduceData { name: Str::from("check"), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        Ok(Self { stream, frame: frame_of(PRODUCE_VERSION, &request) })
    }

    fn produce(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.frame)?;
        let mut answer = [0; 256];
        let mut received = 0;
        while received < 4 || received < 4 + u32::from_be_bytes(answer[..4].try_into().expect("four bytes")) as usize {
            received += net::read_spinning(&mut self.stream, &mut answer[received..])?;
        }
        Ok(())
    }
}

fn receive_blocking(stream: &mut TcpStream) -> io::Result<()> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut body = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut body)
}

fn frame_of<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let chunks = encode_request(version, 1, Some(Str::from("floor-check")), request).expect("our own requests have an encoding");
    let memory = chunks.into_iter().map(|chunk| match chunk {
        Chunk::Memory(bytes) => bytes,
        Chunk::Deferred(_) => unreachable!("requests lie in memory"),
    });
    memory.flatten().collect()
}
