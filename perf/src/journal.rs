//! `probe journal`: what the shape of the durable path costs on a filesystem. Three questions, each with all of its cases measured in turn, round after round:
//!
//! 1. One small record for each of N partitions: a DSYNC write into each partition's file, or one into a ring that all share? (Why there is a journal.)
//! 2. Groups of 4 KiB to 4 MiB, 1 to 8 of them in flight: what does the device give? (What a group may be.)
//! 3. Small records beside bulk, by the group's size limit and the groups in flight: what does bulk cost a small record? (`mixed`; what a group should be.)
//!
//! Files are written once in full before, as the journal is: no write allocates or changes a size.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane::rt;
use corelane::rt::buffer::AlignedBuffer;
use corelane::rt::file::{Durability, File, OpenMode};
use corelane::rt::sync::Notify;

use crate::machine::{self, CpuTime, Punts};
use crate::mixed;
use crate::quiet::Quiet;
use crate::tally::{Tally, heading, row, size};

pub struct Plan {
    pub directory: PathBuf,
    pub core: usize,
    pub rounds: usize,
    pub case: Duration,
    pub patience: Duration,
}

pub const BLOCK_BYTES: usize = 4096;
/// A client's record with its batch header.
pub const RECORD_BYTES: usize = 1024;
const RING_BYTES: u64 = 256 << 20;
const PARTITION_FILE_BYTES: u64 = 256 << 10;
const PARTITION_COUNTS: [usize; 4] = [1, 10, 100, 1000];
const GROUP_SIZES: [usize; 7] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20];
const DEPTHS: [usize; 4] = [1, 2, 4, 8];

pub fn probe(plan: Plan) {
    let directory = plan.directory.join("corelane-perf-journal");
    std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
    for line in machine::describe(&directory) {
        println!("- {line}");
    }
    println!("- the shard on core {}; the disk's interrupts on core {}", plan.core, machine::disk_interrupt_core());
    println!("- {} rounds, {} ms a case, all cases in turn", plan.rounds, plan.case.as_millis());
    let (cores, plan) = ([plan.core], Rc::new(plan));
    let (rounds, case, patience, within) = (plan.rounds, plan.case, plan.patience, directory.clone());
    let shards = rt::start(&cores, move |_| measure(within.clone(), Rounds { count: rounds, case }, patience))
        .unwrap_or_else(|error| panic!("{error}"));
    shards.join();
    std::fs::remove_dir_all(&directory).unwrap_or_else(|error| panic!("cannot clean {}: {error}", directory.display()));
}

/// How often and how long every case is measured.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub count: usize,
    pub case: Duration,
}

async fn measure(directory: PathBuf, rounds: Rounds, patience: Duration) {
    let (punts, quiet) = (Punts::watch_this_thread(), Quiet::new(patience));
    let ring = Rc::new(Ring::make(&directory.join("ring"), RING_BYTES).await);
    let partitions = make_partitions(&directory, *PARTITION_COUNTS.last().expect("not empty")).await;

    println!("\nOne {RECORD_BYTES}-byte record for each of N partitions, durable; us from the first write to the last acknowledgement.\n");
    compare_ring_with_files(&ring, &partitions, rounds, &punts, &quiet).await;

    println!(
        "\nGroups of one size, a fixed number in flight, direct DSYNC writes into the ring; us of one write. CPU: this process and its io-wq workers.\n"
    );
    measure_groups(&ring, rounds, &punts, &quiet).await;

    mixed::measure(&ring, rounds, &punts, &quiet).await;
    println!("\n{}.", quiet.report());
}

async fn compare_ring_with_files(ring: &Rc<Ring>, partitions: &[File], rounds: Rounds, punts: &Punts, quiet: &Quiet) {
    let mut tallies: Vec<(usize, Tally, Tally)> = PARTITION_COUNTS.iter().map(|count| (*count, Tally::new(), Tally::new())).collect();
    for _ in 0..rounds.count {
        for (count, files, one_ring) in &mut tallies {
            loop {
                let mark = quiet.wait().await;
                let (files_punts, ring_punts) = alternate(ring, &partitions[..*count], rounds.case, punts, files, one_ring).await;
                if quiet.accepts(&mark) {
                    files.punts += files_punts;
                    one_ring.punts += ring_punts;
                    break;
                }
                files.discard_round();
                one_ring.discard_round();
            }
            files.end_round();
            one_ring.end_round();
        }
    }
    heading(&["N", "files p50", "p99", "p99.9", "punts per record", "ring p50", "p99", "p99.9", "punts per write"]);
    for (count, files, ring) in &tallies {
        let per = |punts: u64, operations: u64| format!("{:.3}", punts as f64 / operations.max(1) as f64);
        row(&[
            count.to_string(),
            files.p50(),
            files.quantile(0.99),
            files.quantile(0.999),
            per(files.punts, files.samples() * *count as u64),
            ring.p50(),
            ring.quantile(0.99),
            ring.quantile(0.999),
            per(ring.punts, ring.samples()),
        ]);
    }
}

/// Both ways in turn within a case, so that what disturbs one disturbs the other. Returns the punts of each.
async fn alternate(
    ring: &Rc<Ring>,
    partitions: &[File],
    time: Duration,
    punts: &Punts,
    files: &mut Tally,
    one_ring: &mut Tally,
) -> (u64, u64) {
    let (mut files_punts, mut ring_punts) = (0, 0);
    let begun = Instant::now();
    let mut position = 0;
    while begun.elapsed() < time {
        let before = punts.count();
        let started = Instant::now();
        write_into_files(partitions, position).await;
        files.record(started.elapsed());
        files_punts += grown(before, punts.count());

        let before = punts.count();
        let started = Instant::now();
        write_into_ring(ring, partitions.len() * RECORD_BYTES).await;
        one_ring.record(started.elapsed());
        ring_punts += grown(before, punts.count());
        position = (position + BLOCK_BYTES as u64) % PARTITION_FILE_BYTES;
    }
    (files_punts, ring_punts)
}

async fn measure_groups(ring: &Rc<Ring>, rounds: Rounds, punts: &Punts, quiet: &Quiet) {
    let cases = GROUP_SIZES.iter().flat_map(|size| DEPTHS.iter().map(move |depth| (*size, *depth)));
    let mut tallies: Vec<(usize, usize, Tally, Duration)> =
        cases.map(|(size, depth)| (size, depth, Tally::new(), Duration::ZERO)).collect();
    for _ in 0..rounds.count {
        for (group_bytes, depth, tally, cpu) in &mut tallies {
            loop {
                let mark = quiet.wait().await;
                let (before, cpu_before, begun) = (punts.count(), CpuTime::now(), Instant::now());
                let written = keep_in_flight(ring, *group_bytes, *depth, rounds.case, tally).await;
                if quiet.accepts(&mark) {
                    tally.rates.push((written * *group_bytes) as f64 / begun.elapsed().as_secs_f64() / 1e6);
                    tally.punts += grown(before, punts.count());
                    let used = CpuTime::now().since(cpu_before);
                    *cpu += used.own + used.workers;
                    break;
                }
                tally.discard_round();
            }
            tally.end_round();
        }
    }
    heading(&["group", "in flight", "p50", "p99", "p99.9", "MB/s", "CPU us per write", "punts per write"]);
    for (group_bytes, depth, tally, cpu) in &tallies {
        row(&[
            size(*group_bytes),
            depth.to_string(),
            tally.p50(),
            tally.quantile(0.99),
            tally.quantile(0.999),
            format!("{:.0}", tally.rate()),
            format!("{:.1}", cpu.as_secs_f64() * 1e6 / tally.samples().max(1) as f64),
            format!("{:.3}", tally.punts as f64 / tally.samples().max(1) as f64),
        ]);
    }
}

/// Each of `depth` tasks writes one group after the other for the time of a case. Returns the number of groups.
async fn keep_in_flight(ring: &Rc<Ring>, group_bytes: usize, depth: usize, case: Duration, tally: &mut Tally) -> usize {
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let group = filled(group_bytes);
    let begun = Instant::now();
    let writers = (0..depth).map(|_| {
        let (ring, group, latencies) = (ring.clone(), group.clone(), latencies.clone());
        rt::spawn(async move {
            while begun.elapsed() < case {
                let started = Instant::now();
                ring.write(group.clone()).await;
                latencies.borrow_mut().push(started.elapsed());
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await;
    }
    let latencies = latencies.take();
    latencies.iter().for_each(|latency| tally.record(*latency));
    latencies.len()
}

async fn write_into_files(partitions: &[File], position: u64) {
    let (left, done) = (Rc::new(Cell::new(partitions.len())), Notify::new());
    let all = done.notified();
    for file in partitions {
        let (file, left, done) = (file.clone(), left.clone(), done.clone());
        rt::spawn(async move {
            let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
            block[..RECORD_BYTES].fill(1);
            file.write_at(block.freeze(), position, Durability::Dsync).await.unwrap_or_else(|error| panic!("{error}"));
            left.set(left.get() - 1);
            if left.get() == 0 {
                done.notify_all();
            }
        })
        .detach();
    }
    all.await;
}

async fn write_into_ring(ring: &Rc<Ring>, bytes: usize) {
    let mut group = AlignedBuffer::with_capacity(bytes);
    for _ in 0..bytes / RECORD_BYTES {
        group.extend_from_slice(&[1; RECORD_BYTES]);
    }
    group.pad_to(BLOCK_BYTES);
    ring.write(group.freeze()).await;
}

/// A file that is written once in full, and then over and over from the beginning.
pub struct Ring {
    file: File,
    bytes: u64,
    next: Cell<u64>,
}

impl Ring {
    pub async fn make(path: &Path, bytes: u64) -> Self {
        write_in_full(path, bytes).await;
        Self { file: open(path).await, bytes, next: Cell::new(0) }
    }

    /// Takes the next place at once and resolves when the group is durable there.
    pub async fn write(&self, group: Bytes) {
        let length = group.len() as u64;
        let position = if self.next.get() + length > self.bytes { 0 } else { self.next.get() };
        self.next.set(position + length);
        self.file.write_at(group, position, Durability::Dsync).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

async fn make_partitions(directory: &Path, count: usize) -> Vec<File> {
    let mut partitions = Vec::with_capacity(count);
    for number in 0..count {
        let path = directory.join(format!("partition-{number}"));
        write_in_full(&path, PARTITION_FILE_BYTES).await;
        partitions.push(open(&path).await);
    }
    partitions
}

async fn write_in_full(path: &Path, bytes: u64) {
    const CHUNK_BYTES: u64 = 1 << 20;
    let file = File::open(path, OpenMode::CREATE).await.unwrap_or_else(|error| panic!("{error}"));
    for position in (0..bytes).step_by(CHUNK_BYTES as usize) {
        let chunk = filled(CHUNK_BYTES.min(bytes - position) as usize);
        file.write_at(chunk, position, Durability::None).await.unwrap_or_else(|error| panic!("{error}"));
    }
    file.sync_all().await.unwrap_or_else(|error| panic!("{error}"));
}

async fn open(path: &Path) -> File {
    File::open(path, OpenMode::READ_WRITE.direct(true)).await.unwrap_or_else(|error| panic!("{error}"))
}

pub fn filled(bytes: usize) -> Bytes {
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    buffer.resize(bytes, 0x5A);
    buffer.freeze()
}

pub fn grown(before: Option<u64>, after: Option<u64>) -> u64 {
    after.unwrap_or(0) - before.unwrap_or(0)
}
