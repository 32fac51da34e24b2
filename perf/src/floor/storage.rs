//! Where the floor keeps what it acknowledges: a file that was written once in full, or memory. Either is a ring; positions count on for ever and fall on the ring by its size.
//!
//! In the file, all that arrives while a write is under way becomes one group, and a group is one direct write with RWF_DSYNC: the broker's own rule (one under way, a second only
//! when a full group waits), without headers, checksums or anything to recover from. In memory a batch is safe as soon as it is copied.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use corelane::rt::buffer::AlignedBuffer;

use crate::files;
use corelane::rt::bare_ring::Ring;

const BLOCK_BYTES: u64 = 4096;
/// As in the broker: `perf/results/2026-11-21-journal.md`.
const GROUP_BYTES_MAX: u64 = 512 << 10;
const GROUPS_IN_FLIGHT_MAX: usize = 2;
/// Read at once when what was acknowledged is read back.
const WINDOW_BYTES: u64 = 1 << 20;
const READER_LEADER_EPOCH: i32 = 0;

/// A batch that was taken: safe, and to be acknowledged, when the group is.
#[derive(Clone, Copy)]
pub struct Taken {
    pub group: u64,
    pub position: u64,
}

pub enum Storage {
    File(Disk),
    Memory(Memory),
}

impl Storage {
    /// A ring in a file of `directory`, which is written in full now unless it is there already.
    pub fn in_file(directory: &Path, ring_bytes: u64) -> io::Result<Self> {
        Ok(Self::File(Disk::new(files::written_file(&directory.join("corelane-floor-ring"), ring_bytes)?, ring_bytes)))
    }

    pub fn in_memory(ring_bytes: u64) -> Self {
        // Written once, so that no acknowledgement waits for the kernel to find a page.
        Self::Memory(Memory { bytes: vec![1; ring_bytes as usize], next: 0 })
    }

    /// Whether batches of so many bytes together would be taken now.
    pub fn has_room(&self, bytes: u64) -> bool {
        match self {
            Self::File(disk) => disk.has_room(bytes),
            Self::Memory(_) => true,
        }
    }

    /// The largest request that is ever taken.
    pub fn bytes_max(&self) -> u64 {
        match self {
            Self::File(disk) => disk.ring_bytes / 4,
            Self::Memory(memory) => memory.bytes.len() as u64 / 4,
        }
    }

    /// Takes a batch whose first record has `base_offset`. There is room.
    pub fn append(&mut self, ring: &mut Ring, base_offset: i64, batch: &[u8]) -> Taken {
        let parts = [&base_offset.to_be_bytes()[..], &batch[8..12], &READER_LEADER_EPOCH.to_be_bytes(), &batch[16..]];
        match self {
            Self::File(disk) => disk.append(ring, parts, batch.len() as u64),
            Self::Memory(memory) => memory.append(parts, batch.len() as u64),
        }
    }

    /// Has what waits written, if its turn has come.
    pub fn submit(&mut self, ring: &mut Ring) {
        if let Self::File(disk) = self {
            disk.submit(ring);
        }
    }

    /// A write has come back.
    pub fn written(&mut self, group: u64, result: i32, buffer: AlignedBuffer) {
        match self {
            Self::File(disk) => disk.written(group, result, buffer),
            Self::Memory(_) => unreachable!("memory is not written to a disk"),
        }
    }

    /// Everything up to this group is safe.
    pub fn safe_group(&self) -> u64 {
        match self {
            Self::File(disk) => disk.safe_group,
            Self::Memory(_) => 0,
        }
    }

    /// Nothing before this position can be read any more.
    pub fn oldest(&self) -> u64 {
        match self {
            Self::File(disk) => disk.oldest(),
            Self::Memory(memory) => memory.next.saturating_sub(memory.bytes.len() as u64),
        }
    }

    /// Appends a safe batch to `to`, out of the file or of memory.
    pub fn read(&mut self, position: u64, bytes: u32, to: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::File(disk) => disk.read(position, u64::from(bytes), to),
            Self::Memory(memory) => {
                let start = (position % memory.bytes.len() as u64) as usize;
                to.extend_from_slice(&memory.bytes[start..start + bytes as usize]);
                Ok(())
            }
        }
    }
}

pub struct Disk {
    file: Rc<File>,
    ring_bytes: u64,
    open: Option<Group>,
    in_flight: VecDeque<InFlight>,
    spare: Vec<AlignedBuffer>,
    next_group: u64,
    next_position: u64,
    safe_group: u64,
    /// Position behind the last safe group.
    safe_end: u64,
    window: Window,
}

struct Group {
    number: u64,
    position: u64,
    buffer: AlignedBuffer,
}

struct InFlight {
    number: u64,
    end: u64,
    is_complete: bool,
}

/// A part of the file as it was read last.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Disk {
    fn new(file: File, ring_bytes: u64) -> Self {
        let spare = (0..=GROUPS_IN_FLIGHT_MAX).map(|_| touched_buffer()).collect();
        Self {
            file: Rc::new(file),
            ring_bytes,
            open: None,
            in_flight: VecDeque::new(),
            spare,
            next_group: 1,
            next_position: 0,
            safe_group: 0,
            safe_end: 0,
            window: Window::default(),
        }
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.open.as_ref().is_none_or(|open| open.takes(bytes)) || self.in_flight.len() < GROUPS_IN_FLIGHT_MAX
    }

    fn append<const N: usize>(&mut self, ring: &mut Ring, parts: [&[u8]; N], bytes: u64) -> Taken {
        if self.open.as_ref().is_some_and(|open| !open.takes(bytes)) {
            self.write_open(ring);
        }
        if self.open.is_none() {
            self.open = Some(self.begin(bytes));
        }
        let open = self.open.as_mut().expect("just made");
        let taken = Taken { group: open.number, position: open.position + open.buffer.len() as u64 };
        parts.iter().for_each(|part| open.buffer.extend_from_slice(part));
        taken
    }

    /// A group that may grow to its limit, or holds one larger batch.
    fn begin(&mut self, bytes: u64) -> Group {
        let reserved = bytes.max(GROUP_BYTES_MAX).next_multiple_of(BLOCK_BYTES);
        let left_in_lap = self.ring_bytes - self.next_position % self.ring_bytes;
        if reserved > left_in_lap {
            self.next_position += left_in_lap;
        }
        let number = self.next_group;
        self.next_group += 1;
        Group { number, position: self.next_position, buffer: self.spare.pop().unwrap_or_else(touched_buffer) }
    }

    fn submit(&mut self, ring: &mut Ring) {
        if self.in_flight.is_empty() && self.open.is_some() {
            self.write_open(ring);
        }
    }

    fn write_open(&mut self, ring: &mut Ring) {
        let Group { number, position, mut buffer } = self.open.take().expect("a group is open");
        buffer.pad_to(BLOCK_BYTES as usize);
        let end = position + buffer.len() as u64;
        self.next_position = end;
        self.in_flight.push_back(InFlight { number, end, is_complete: false });
        ring.write(number, &self.file, buffer, position % self.ring_bytes, true);
    }

    fn written(&mut self, number: u64, result: i32, mut buffer: AlignedBuffer) {
        assert!(result as usize == buffer.len(), "the ring file cannot be written: {result} of {} bytes (negative: errno)", buffer.len());
        buffer.clear();
        self.spare.push(buffer);
        self.in_flight.iter_mut().filter(|group| group.number == number).for_each(|group| group.is_complete = true);
        while self.in_flight.front().is_some_and(|group| group.is_complete) {
            let group = self.in_flight.pop_front().expect("there is a first one");
            (self.safe_group, self.safe_end) = (group.number, group.end);
        }
    }

    fn oldest(&self) -> u64 {
        (self.next_position + 2 * GROUP_BYTES_MAX).saturating_sub(self.ring_bytes)
    }

    fn read(&mut self, position: u64, bytes: u64, to: &mut Vec<u8>) -> io::Result<()> {
        let is_there = position >= self.window.start && position + bytes <= self.window.start + self.window.bytes.len() as u64;
        if !is_there {
            self.fill_window(position, bytes)?;
        }
        let start = (position - self.window.start) as usize;
        to.extend_from_slice(&self.window.bytes[start..start + bytes as usize]);
        Ok(())
    }

    /// Only what is safe by now goes into the window: what comes later is not in the file yet.
    fn fill_window(&mut self, position: u64, bytes: u64) -> io::Result<()> {
        let start = position - position % BLOCK_BYTES;
        let lap_end = start - start % self.ring_bytes + self.ring_bytes;
        let end = (start + WINDOW_BYTES).max(position + bytes).min(lap_end).min(self.safe_end);
        let mut buffer = AlignedBuffer::zeroed((end - start) as usize);
        self.file.read_exact_at(&mut buffer, start % self.ring_bytes)?;
        self.window = Window { start, bytes: buffer.to_vec() };
        Ok(())
    }
}

impl Group {
    fn takes(&self, bytes: u64) -> bool {
        self.buffer.len() as u64 + bytes <= GROUP_BYTES_MAX
    }
}

fn touched_buffer() -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(GROUP_BYTES_MAX as usize);
    buffer.fill(1);
    buffer.clear();
    buffer
}

pub struct Memory {
    bytes: Vec<u8>,
    next: u64,
}

impl Memory {
    fn append<const N: usize>(&mut self, parts: [&[u8]; N], bytes: u64) -> Taken {
        let ring_bytes = self.bytes.len() as u64;
        let left_in_lap = ring_bytes - self.next % ring_bytes;
        if bytes > left_in_lap {
            self.next += left_in_lap;
        }
        let position = self.next;
        let mut at = (position % ring_bytes) as usize;
        for part in parts {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.next += bytes;
        Taken { group: 0, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(fill: u8, bytes: usize) -> Vec<u8> {
        vec![fill; bytes]
    }

    /// Batches of several groups and laps come out of the file as they went in, with their offsets; what the ring has overwritten is named as gone.
    #[test]
    fn the_file_gives_back_what_it_took() {
        let directory = std::env::temp_dir().join(format!("corelane-floor-storage-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut storage = Storage::in_file(&directory, 4 << 20).unwrap();
        let mut ring = Ring::new().unwrap();
        let mut taken = Vec::new();
        for number in 0..40u8 {
            let bytes = 100 + usize::from(number) * 6_000;
            while !storage.has_room(bytes as u64) {
                wait_for_writes(&mut storage, &mut ring);
            }
            taken.push((storage.append(&mut ring, i64::from(number), &batch(number, bytes)), number, bytes));
            storage.submit(&mut ring);
        }
        while storage.safe_group() < taken.last().unwrap().0.group {
            storage.submit(&mut ring);
            wait_for_writes(&mut storage, &mut ring);
        }
        let readable: Vec<_> = taken.iter().filter(|(taken, ..)| taken.position >= storage.oldest()).collect();
        assert!(readable.len() > 5 && readable.len() < 40);
        for (taken, number, bytes) in readable {
            let mut read = Vec::new();
            storage.read(taken.position, *bytes as u32, &mut read).unwrap();
            assert_eq!(read[..8], i64::from(*number).to_be_bytes());
            assert!(read[16..].iter().all(|byte| byte == number) && read.len() == *bytes);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn wait_for_writes(storage: &mut Storage, ring: &mut Ring) {
        let mut completions = Vec::new();
        ring.sleep(None, &mut completions);
        for completion in completions {
            let corelane::rt::bare_ring::Held::Disk(_, buffer) = completion.held else { unreachable!("only writes are under way") };
            storage.written(completion.token, completion.result, buffer);
        }
    }

    #[test]
    fn memory_goes_round() {
        let mut memory = Storage::in_memory(10_000);
        let mut ring = Ring::new().unwrap();
        let positions: Vec<u64> = (0..9).map(|number| memory.append(&mut ring, number, &batch(number as u8, 3_000)).position).collect();
        assert_eq!(positions[..4], [0, 3_000, 6_000, 10_000]);
        let mut read = Vec::new();
        memory.read(positions[8], 3_000, &mut read).unwrap();
        assert_eq!(read[..8], 8i64.to_be_bytes());
        assert!(memory.oldest() > positions[2]);
    }
}
