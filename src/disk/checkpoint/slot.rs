//! The two files of a shard's checkpoints. Each new checkpoint overwrites the older one, so that a torn write leaves the other whole.
//!
//! Block 0 of a file is its header, the body (a `PartitionRecord` for each partition) follows from block 1 on. Header and body have a checksum each. A checkpoint counts when both
//! hold and it belongs to the present life of the journal; of two such the one with the higher number.
//!
//! Header, little-endian: magic `CLCP`, version u32, number u64, journal id, replay start (sequence u64, position u64), partition count u32, body bytes u64, CRC-32C of the body
//! u32, CRC-32C of the header u32.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use super::facts::PartitionRecord;
use crate::disk::journal::group::BLOCK_BYTES;
use crate::disk::journal::{GroupSequence, JournalStart};
use crate::disk::{producers, slow};
use crate::rt;
use crate::rt::buffer::AlignedBuffer;
use crate::rt::file::{Durability, File, FileError, OpenMode};

const MAGIC: [u8; 4] = *b"CLCP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 68;

/// Bytes of the body that are encoded and written at a time.
const SLICE_BYTES: usize = 128 << 10;

/// Of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub const BOTH: [Slot; 2] = [Slot::A, Slot::B];

    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The file in `journal.dir`.
    pub fn path(self, journal_directory: &Path, shard: u16) -> PathBuf {
        let letter = match self {
            Self::A => 'a',
            Self::B => 'b',
        };
        journal_directory.join(format!("corelane-checkpoint-{shard}-{letter}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// One more than that of the checkpoint before it.
    pub number: u64,
    pub journal_id: Uuid,
    pub start: JournalStart,
    pub partition_count: u32,
    body_bytes: u64,
    body_crc: u32,
}

/// A checkpoint that was read back whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub header: CheckpointHeader,
    pub records: Vec<PartitionRecord>,
}

/// Writes one checkpoint, record by record; it counts once `finish` has returned.
pub struct CheckpointWriter {
    file: File,
    slice: Vec<u8>,
    /// Bytes of the body that are in the file.
    written_bytes: u64,
    body_crc: u32,
    partition_count: u32,
}

impl CheckpointWriter {
    pub async fn begin(path: PathBuf, direct: bool) -> Result<Self, FileError> {
        let file = File::open(path, OpenMode::CREATE.direct(direct)).await?;
        Ok(Self { file, slice: Vec::new(), written_bytes: 0, body_crc: 0, partition_count: 0 })
    }

    /// Takes no longer than a fraction of a millisecond between two looks at what else the shard has to do, however many producers the partition knows.
    pub async fn add(&mut self, record: &PartitionRecord) -> Result<(), FileError> {
        let producers = producers::encode_own(record.facts.producers.clone()).await;
        record.encode_head(producers.size_bytes(), &mut self.slice);
        for piece in producers.pieces {
            self.slice.extend_from_slice(&piece);
            self.write_full_slices().await?;
        }
        record.encode_tail(&mut self.slice);
        self.partition_count += 1;
        self.write_full_slices().await
    }

    async fn write_full_slices(&mut self) -> Result<(), FileError> {
        while self.slice.len() >= SLICE_BYTES {
            self.write_slice().await?;
            rt::yield_now().await;
        }
        Ok(())
    }

    /// Writes the rest and, last, the header that makes the checkpoint count. Whatever the records tell of is durable by now.
    pub async fn finish(mut self, number: u64, journal_id: Uuid, start: JournalStart) -> Result<(), FileError> {
        let is_small = self.written_bytes == 0;
        if !is_small {
            if !self.slice.is_empty() {
                self.write_slice().await?;
            }
            slow::timed(&self.file, "flush of a checkpoint", self.file.sync_data()).await?;
        }
        let body_crc = crc32c::crc32c_append(self.body_crc, if is_small { &self.slice } else { &[] });
        let body_bytes = self.written_bytes + if is_small { self.slice.len() as u64 } else { 0 };
        let header = CheckpointHeader { number, journal_id, start, partition_count: self.partition_count, body_bytes, body_crc };
        let mut bytes = header.encode();
        if is_small {
            // Header and body in one write: torn, one of the checksums tells.
            bytes.extend_from_slice(&self.slice);
            bytes.pad_to(BLOCK_BYTES);
        }
        self.write(bytes, 0, Durability::Dsync).await
    }

    async fn write_slice(&mut self) -> Result<(), FileError> {
        let length = self.slice.len().min(SLICE_BYTES);
        let mut bytes = AlignedBuffer::with_capacity(length);
        bytes.extend_from_slice(&self.slice[..length]);
        self.slice.drain(..length);
        self.body_crc = crc32c::crc32c_append(self.body_crc, &bytes);
        bytes.pad_to(BLOCK_BYTES);
        self.write(bytes, BLOCK_BYTES as u64 + self.written_bytes, Durability::None).await?;
        self.written_bytes += length as u64;
        Ok(())
    }

    async fn write(&self, bytes: AlignedBuffer, position: u64, durability: Durability) -> Result<(), FileError> {
        slow::timed(&self.file, "write of a checkpoint", self.file.write_growing_at(bytes.freeze(), position, durability)).await
    }
}

/// Writes a checkpoint on the calling thread, flushed.
pub fn write_blocking(
    path: &Path,
    number: u64,
    journal_id: Uuid,
    start: JournalStart,
    records: &[PartitionRecord],
) -> Result<(), FileError> {
    let mut body = Vec::new();
    records.iter().for_each(|record| record.encode(&mut body));
    let header = CheckpointHeader {
        number,
        journal_id,
        start,
        partition_count: records.len() as u32,
        body_bytes: body.len() as u64,
        body_crc: crc32c::crc32c(&body),
    };
    let mut bytes = header.encode();
    bytes.extend_from_slice(&body);
    let file = File::open_blocking(path, OpenMode::CREATE)?;
    for (index, piece) in bytes.chunks(1 << 20).enumerate() {
        file.write_at_blocking(piece, (index as u64) << 20, Durability::None)?;
    }
    file.sync_all_blocking()
}

/// Reads a file; none where there is no whole checkpoint in it.
pub fn read_blocking(path: &Path) -> Result<Option<Checkpoint>, FileError> {
    let file = match File::open_blocking(path, OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.read_at_blocking(file.length()? as usize, 0)?.freeze();
    Ok(decode(&bytes))
}

fn decode(file: &Bytes) -> Option<Checkpoint> {
    let header = CheckpointHeader::decode(file)?;
    let body_end = (BLOCK_BYTES as u64).checked_add(header.body_bytes).filter(|end| *end <= file.len() as u64)? as usize;
    let mut body = file.slice(BLOCK_BYTES..body_end);
    if crc32c::crc32c(&body) != header.body_crc {
        return None;
    }
    let records: Vec<_> = (0..header.partition_count).map(|_| PartitionRecord::decode(&mut body).ok()).collect::<Option<_>>()?;
    body.is_empty().then_some(Checkpoint { header, records })
}

impl CheckpointHeader {
    fn encode(&self) -> AlignedBuffer {
        let mut block = AlignedBuffer::with_capacity(BLOCK_BYTES);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&self.number.to_le_bytes());
        block.extend_from_slice(self.journal_id.as_bytes());
        block.extend_from_slice(&self.start.sequence.0.to_le_bytes());
        block.extend_from_slice(&self.start.position.to_le_bytes());
        block.extend_from_slice(&self.partition_count.to_le_bytes());
        block.extend_from_slice(&self.body_bytes.to_le_bytes());
        block.extend_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&block);
        block.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(block.len(), HEADER_BYTES);
        block.pad_to(BLOCK_BYTES);
        block
    }

    fn decode(file: &[u8]) -> Option<Self> {
        let header = file.get(..BLOCK_BYTES)?;
        let int = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let crc_at = HEADER_BYTES - 4;
        if header[0..4] != MAGIC || int(4) != VERSION || int(crc_at) != crc32c::crc32c(&header[..crc_at]) {
            return None;
        }
        Some(Self {
            number: long(8),
            journal_id: Uuid::from_slice(&header[16..32]).expect("sixteen bytes"),
            start: JournalStart { sequence: GroupSequence(long(32)), position: long(40) },
            partition_count: int(48),
            body_bytes: long(52),
            body_crc: int(60),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::facts::tests::sample;
    use super::*;

    const LIFE: Uuid = Uuid::from_u128(2);
    const START: JournalStart = JournalStart { sequence: GroupSequence(7), position: 8192 };

    async fn write(path: &Path, number: u64, partitions: i32) {
        let mut writer = CheckpointWriter::begin(path.into(), true).await.unwrap();
        for partition in 0..partitions {
            writer.add(&sample(partition)).await.unwrap();
        }
        writer.finish(number, LIFE, START).await.unwrap();
    }

    fn check(checkpoint: &Checkpoint, number: u64, partitions: i32) {
        let header = &checkpoint.header;
        assert_eq!((header.number, header.journal_id, header.start), (number, LIFE, START));
        assert_eq!(checkpoint.records, (0..partitions).map(sample).collect::<Vec<_>>());
    }

    #[test]
    fn checkpoints_of_any_size_read_back_also_over_longer_ones() {
        let directory = tempfile::tempdir().unwrap();
        let path = Slot::A.path(directory.path(), 0);
        assert_eq!(read_blocking(&path).unwrap(), None);
        for (number, partitions) in [(1, 0), (2, 3), (3, 5000), (4, 700), (5, 1)] {
            let to = path.clone();
            rt::run(move || async move { write(&to, number, partitions).await });
            check(&read_blocking(&path).unwrap().unwrap(), number, partitions);
        }
    }

    #[test]
    fn the_blocking_way_writes_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = Slot::B.path(directory.path(), 3);
        let records: Vec<_> = (0..9000).map(sample).collect();
        write_blocking(&path, 6, LIFE, START, &records).unwrap();
        check(&read_blocking(&path).unwrap().unwrap(), 6, 9000);
    }

    fn file_of(partitions: i32) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = Slot::A.path(directory.path(), 0);
        let records: Vec<_> = (0..partitions).map(sample).collect();
        write_blocking(&path, 1, LIFE, START, &records).unwrap();
        std::fs::read(path).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A checkpoint that was cut anywhere, or has a flipped bit in its header or body, does not count.
        #[test]
        fn a_torn_checkpoint_does_not_count(at in any::<proptest::sample::Index>(), bit in 0u32..8, cut in any::<bool>()) {
            let mut file = file_of(40);
            // The rest of block 0 is padding, covered by nothing.
            let covered: Vec<usize> = (0..HEADER_BYTES).chain(BLOCK_BYTES..file.len()).collect();
            let at = *at.get(&covered);
            if cut {
                file.truncate(at);
            } else {
                file[at] ^= 1 << bit;
            }
            prop_assert_eq!(decode(&Bytes::from(file)), None);
        }
    }
}
