//! `probe disk`: what the disk under a directory allows. Durable writes into blocks that are written, allocated or fresh, writes followed by fdatasync, and reads, each at several sizes and depths, through a
//! bare ring; how long a flush takes after much and after nothing; and a verdict in words.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use corelane::rt::buffer::AlignedBuffer;
use serde_json::json;

use crate::device::Device;
use crate::files;
use crate::machine::{self, Punts};
use crate::pace::Pace;
use crate::tally::{Tally, heading, row, size};
use corelane::rt::bare_ring::{Completion, Held, Ring};

pub struct Plan {
    pub directory: PathBuf,
    pub core: usize,
    pub is_quick: bool,
    pub json: bool,
}

const REGION_BYTES: u64 = 256 << 20;
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// The pace at which an acknowledgement is judged.
const RATE: u64 = 1000;
/// Unflushed before a flush is timed.
const UNFLUSHED_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Durable,
    WriteThenFlush,
    Read,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    Written,
    Allocated,
    Fresh,
}

struct Case {
    work: Work,
    blocks: Blocks,
    bytes: usize,
    depth: usize,
    tally: Tally,
    moved_bytes: u64,
    time: Duration,
}

pub fn probe(plan: &Plan) -> io::Result<()> {
    std::fs::create_dir_all(&plan.directory)?;
    machine::pin_to(plan.core)?;
    let device = Device::under(&plan.directory);
    let punts = Punts::watch_this_thread();
    let mut cases = cases(plan.is_quick);
    let (rounds, time) = if plan.is_quick { (1, Duration::from_millis(80)) } else { (3, Duration::from_millis(200)) };
    let mut files = Files::new(&plan.directory)?;
    for _ in 0..rounds {
        for case in &mut cases {
            case.run(&mut files, time, &punts)?;
        }
    }
    let mut paced = PacedWrites::new(&plan.directory)?;
    let pace = Pace::new(RATE, Duration::from_secs(if plan.is_quick { 1 } else { 5 }));
    let mut acknowledgements =
        [("asleep before, and until it is done", false, Tally::new()), ("looking all the time, giving way", true, Tally::new())];
    for (_, spins, tally) in &mut acknowledgements {
        paced.run(4096, *spins, &pace)?.iter().for_each(|latency| tally.record(*latency));
        tally.end_round();
    }
    let flush = Flush::measure(&files)?;
    files.remove();
    let verdict = verdict(&device, &cases, &acknowledgements[0].2, &flush);
    if plan.json {
        let cases: Vec<_> = cases.iter().map(Case::json).collect();
        let paced: Vec<_> = acknowledgements.iter().map(|(name, _, tally)| json!({"thread": name, "us": tally.json()})).collect();
        let flush_us = json!({"nothing_written": micros(flush.nothing_written), "block_written": micros(flush.block_written), "much_written": micros(flush.much_written)});
        println!(
            "{}",
            json!({"device": device.json(), "cases": cases, "durable_4k_at_1000_per_second": paced, "flush": flush_us, "verdict": verdict})
        );
        return Ok(());
    }
    for line in machine::describe(&plan.directory) {
        println!("- {line}");
    }
    println!("- this thread on core {}; the disk's interrupts on core {}", plan.core, machine::disk_interrupt_core());
    print_cases(&cases);
    println!(
        "\nDurable 4 KiB into written blocks, {RATE} a second, us (asleep: from waking; looking: from the scheduled time): what an acknowledgement waits for.\n"
    );
    heading(&["the thread is", "p50", "p90", "p99", "p99.9"]);
    for (name, _, tally) in &acknowledgements {
        row(&[name.to_string(), tally.p50(), tally.quantile(0.9), tally.quantile(0.99), tally.quantile(0.999)]);
    }
    println!(
        "\nfdatasync with nothing written before: {} us; after one block: {} us; after {}: {} us.\n",
        micros(flush.nothing_written),
        micros(flush.block_written),
        size(UNFLUSHED_BYTES as usize),
        micros(flush.much_written)
    );
    verdict.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn cases(is_quick: bool) -> Vec<Case> {
    let depths: &[usize] = if is_quick { &[1, 8, 32] } else { &[1, 2, 4, 8, 16, 32] };
    let kinds = [
        (Work::Durable, Blocks::Written, depths),
        (Work::Durable, Blocks::Allocated, depths),
        (Work::Durable, Blocks::Fresh, depths),
        (Work::WriteThenFlush, Blocks::Written, &[1]),
        (Work::WriteThenFlush, Blocks::Allocated, &[1]),
        (Work::WriteThenFlush, Blocks::Fresh, &[1]),
        (Work::Read, Blocks::Written, depths),
    ];
    let case = |work, blocks, bytes, depth| Case { work, blocks, bytes, depth, tally: Tally::new(), moved_bytes: 0, time: Duration::ZERO };
    let all = kinds.into_iter().flat_map(|(work, blocks, depths)| {
        SIZES.into_iter().flat_map(move |bytes| depths.iter().map(move |depth| case(work, blocks, bytes, *depth)))
    });
    all.collect()
}

/// The files of a probe: one whose blocks are written, and one that is made anew for each case that wants other blocks.
struct Files {
    written: Rc<File>,
    directory: PathBuf,
}

impl Files {
    fn new(directory: &Path) -> io::Result<Self> {
        let written = Rc::new(files::written_file(&directory.join("corelane-probe-written"), REGION_BYTES)?);
        Ok(Self { written, directory: directory.to_path_buf() })
    }

    fn of(&self, blocks: Blocks) -> io::Result<Rc<File>> {
        let path = self.directory.join("corelane-probe-new");
        Ok(match blocks {
            Blocks::Written => self.written.clone(),
            Blocks::Allocated => Rc::new(files::allocated_file(&path, REGION_BYTES)?),
            Blocks::Fresh => Rc::new(files::fresh_file(&path)?),
        })
    }

    fn remove(&self) {
        for name in ["corelane-probe-written", "corelane-probe-new"] {
            // It is only a probe's file: whoever wants the room finds it by its name.
            let _ = std::fs::remove_file(self.directory.join(name));
        }
    }
}

impl Case {
    fn run(&mut self, files: &mut Files, time: Duration, punts: &Punts) -> io::Result<()> {
        let file = files.of(self.blocks)?;
        let mut ring = Ring::new()?;
        let mut places =
            Places { next: 0, bytes: self.bytes as u64, is_endless: self.blocks == Blocks::Written, is_random: self.work == Work::Read };
        let mut begun_at = vec![Instant::now(); self.depth];
        let punts_before = punts.count().unwrap_or(0);
        let begun = Instant::now();
        for (slot, moment) in begun_at.iter_mut().enumerate() {
            *moment = Instant::now();
            self.start(&mut ring, slot, &file, filled(self.bytes), &mut places);
        }
        let mut completions = Vec::new();
        while ring.in_flight() > 0 {
            ring.sleep(None, &mut completions);
            for completion in completions.drain(..) {
                let slot = completion.token as usize;
                let buffer = match self.finish(completion, &mut ring, &file)? {
                    Some(buffer) => buffer,
                    None => continue,
                };
                self.tally.record(begun_at[slot].elapsed());
                self.moved_bytes += self.bytes as u64;
                if begun.elapsed() < time {
                    begun_at[slot] = Instant::now();
                    self.start(&mut ring, slot, &file, buffer, &mut places);
                }
            }
        }
        self.time += begun.elapsed();
        self.tally.punts += punts.count().unwrap_or(0) - punts_before;
        self.tally.end_round();
        Ok(())
    }

    fn start(&self, ring: &mut Ring, slot: usize, file: &Rc<File>, buffer: AlignedBuffer, places: &mut Places) {
        let Some(position) = places.take() else { return };
        match self.work {
            Work::Durable => ring.write(slot as u64, file, buffer, position, true),
            Work::WriteThenFlush => ring.write(slot as u64, file, buffer, position, false),
            Work::Read => ring.read(slot as u64, file, buffer, position),
        }
    }

    /// The buffer, once the whole operation is over: a write that is to be flushed goes on first.
    fn finish(&self, completion: Completion, ring: &mut Ring, file: &Rc<File>) -> io::Result<Option<AlignedBuffer>> {
        if completion.result < 0 {
            return Err(io::Error::from_raw_os_error(-completion.result));
        }
        match completion.held {
            Held::Disk(..) if self.work == Work::WriteThenFlush => {
                ring.sync(completion.token, file);
                Ok(None)
            }
            Held::Disk(_, buffer) => Ok(Some(buffer)),
            Held::File(_) => Ok(Some(filled(self.bytes))),
            _ => unreachable!("only files are measured"),
        }
    }

    fn name(&self) -> &'static str {
        match (self.work, self.blocks) {
            (Work::Durable, Blocks::Written) => "durable write, written blocks",
            (Work::Durable, Blocks::Allocated) => "durable write, allocated blocks",
            (Work::Durable, Blocks::Fresh) => "durable write, fresh blocks",
            (Work::WriteThenFlush, Blocks::Written) => "write + fdatasync, written blocks",
            (Work::WriteThenFlush, Blocks::Allocated) => "write + fdatasync, allocated blocks",
            (Work::WriteThenFlush, Blocks::Fresh) => "write + fdatasync, fresh blocks",
            (Work::Read, _) => "read",
        }
    }

    fn operations_per_second(&self) -> f64 {
        self.tally.samples() as f64 / self.time.as_secs_f64()
    }

    fn megabytes_per_second(&self) -> f64 {
        self.moved_bytes as f64 / self.time.as_secs_f64() / 1e6
    }

    fn punts(&self) -> f64 {
        self.tally.punts as f64 / self.tally.samples().max(1) as f64
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "work": self.name(), "bytes": self.bytes, "depth": self.depth, "us": self.tally.json(), "per_second": self.operations_per_second(),
            "megabytes_per_second": self.megabytes_per_second(), "punts_per_operation": self.punts(),
        })
    }
}

/// Where the next operation goes: one behind the other, or anywhere; none left at the end of a file that is filled once.
struct Places {
    next: u64,
    bytes: u64,
    is_endless: bool,
    is_random: bool,
}

impl Places {
    fn take(&mut self) -> Option<u64> {
        let places = REGION_BYTES / self.bytes;
        let number = self.next;
        self.next += 1;
        if self.is_random {
            // A step that is coprime to the number of places (a power of two) visits them all in an order that no read-ahead guesses.
            return Some(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % places * self.bytes);
        }
        (self.is_endless || number < places).then_some(number % places * self.bytes)
    }
}

/// Durable writes of one block at a pace, one at a time, into written blocks.
pub struct PacedWrites {
    file: Rc<File>,
    next: u64,
}

impl PacedWrites {
    const FILE_BYTES: u64 = 16 << 20;

    pub fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join("corelane-probe-paced");
        let file = files::written_file(&path, Self::FILE_BYTES)?;
        // Open is enough; nothing stays behind.
        std::fs::remove_file(path)?;
        Ok(Self { file: Rc::new(file), next: 0 })
    }

    /// `spins`: look for the completion all the time, giving way to the kernel's threads; otherwise sleep until it comes, and before, until the next write is due.
    pub fn run(&mut self, bytes: usize, spins: bool, pace: &Pace) -> io::Result<Vec<Duration>> {
        let (mut ring, mut buffer, mut completions) = (Ring::new()?, Some(filled(bytes)), Vec::new());
        let once = || {
            let position = self.next % Self::FILE_BYTES;
            self.next += bytes as u64;
            ring.write(0, &self.file, buffer.take().expect("it came back"), position, true);
            while completions.is_empty() {
                if spins {
                    std::thread::yield_now();
                    ring.look(&mut completions);
                } else {
                    ring.sleep(None, &mut completions);
                }
            }
            let completion = completions.pop().expect("one was under way");
            if completion.result < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result));
            }
            let Held::Disk(_, back) = completion.held else { unreachable!("only writes are under way") };
            buffer = Some(back);
            Ok(())
        };
        if spins { pace.run(once) } else { pace.run_asleep(once) }
    }
}

/// How long fdatasync takes.
struct Flush {
    nothing_written: Duration,
    block_written: Duration,
    much_written: Duration,
}

impl Flush {
    fn measure(files: &Files) -> io::Result<Self> {
        use std::os::unix::fs::FileExt;
        let file = &files.written;
        let (block, chunk) = (filled(4096), filled(1 << 20));
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        let timed = |write: &dyn Fn() -> io::Result<()>, count: usize| -> io::Result<Duration> {
            let times = (0..count).map(|_| {
                write()?;
                let begun = Instant::now();
                file.sync_data()?;
                Ok(begun.elapsed())
            });
            Ok(median(times.collect::<io::Result<_>>()?))
        };
        let much = || (0..UNFLUSHED_BYTES >> 20).try_for_each(|place| file.write_all_at(&chunk, place << 20));
        Ok(Self {
            nothing_written: timed(&|| Ok(()), 51)?,
            block_written: timed(&|| file.write_all_at(&block, 0), 51)?,
            much_written: timed(&much, 5)?,
        })
    }

    /// A flush that drains something takes longer when there is more.
    fn grows(&self) -> bool {
        self.much_written > 3 * self.block_written && self.much_written > Duration::from_millis(2)
    }
}

fn verdict(device: &Device, cases: &[Case], acknowledgement: &Tally, flush: &Flush) -> Vec<String> {
    let find = |work, blocks, bytes, depth| {
        cases
            .iter()
            .find(|case| (case.work, case.blocks, case.bytes, case.depth) == (work, blocks, bytes, depth))
            .expect("every probe has it")
    };
    let written = find(Work::Durable, Blocks::Written, SIZES[0], 1);
    let times_slower =
        |blocks| find(Work::Durable, blocks, SIZES[0], 1).tally.median().as_secs_f64() / written.tally.median().as_secs_f64();
    let punted =
        cases.iter().filter(|case| case.work == Work::Durable && case.blocks == Blocks::Written).map(Case::punts).fold(0.0, f64::max);
    let mut lines = vec![
        format!(
            "Verdict: an acknowledgement from stable storage takes at least {} us here (p50 of a durable 4 KiB write at {RATE} a second; p99 {}).",
            acknowledgement.p50(),
            acknowledgement.quantile(0.99)
        ),
        format!(
            "One write at a time gives {:.0} acknowledged groups a second; larger groups up to {:.0} MB/s (1 MiB each).",
            written.operations_per_second(),
            find(Work::Durable, Blocks::Written, SIZES[2], 1).megabytes_per_second()
        ),
        format!(
            "Blocks that are only allocated take {:.1} times as long, fresh ones {:.1} times: write the journal in full before it is used.",
            times_slower(Blocks::Allocated),
            times_slower(Blocks::Fresh)
        ),
    ];
    if punted > 0.01 {
        lines.push(format!("Up to {:.0} % of the writes into written blocks went to io-wq workers: this filesystem makes them wait (on XFS try the mount option lazytime).", punted * 100.0));
    }
    lines.push(match (device.has_write_cache(), flush.grows()) {
        (Some(false), _) => "The flush: none is sent, because the device says that a completed write is stable. Whether that is so, only its maker can say.".to_string(),
        (_, true) => format!("The flush looks honest: it takes longer when more was written before ({} us, {} us).", micros(flush.block_written), micros(flush.much_written)),
        (_, false) => format!(
            "The flush does not drain anything that could be seen: {} us after a block, {} us after {}. Either what is behind it is safe without power, or it does not do what it says; figures of this disk flatter whoever flushes.",
            micros(flush.block_written),
            micros(flush.much_written),
            size(UNFLUSHED_BYTES as usize)
        ),
    });
    lines
}

fn print_cases(cases: &[Case]) {
    let mut work = "";
    for case in cases {
        if case.name() != work {
            work = case.name();
            println!("\n{}; us of one operation, as many in flight as said\n", work);
            heading(&["bytes", "in flight", "p50", "p90", "p99", "p99.9", "a second", "MB/s", "punts each"]);
        }
        row(&[
            size(case.bytes),
            case.depth.to_string(),
            case.tally.p50(),
            case.tally.quantile(0.9),
            case.tally.quantile(0.99),
            case.tally.quantile(0.999),
            format!("{:.0}", case.operations_per_second()),
            format!("{:.0}", case.megabytes_per_second()),
            format!("{:.3}", case.punts()),
        ]);
    }
}

fn filled(bytes: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    buffer.resize(bytes, 0x5A);
    buffer
}

fn micros(time: Duration) -> f64 {
    (time.as_nanos() as f64 / 100.0).round() / 10.0
}
