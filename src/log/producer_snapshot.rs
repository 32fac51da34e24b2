//! Producer state as bytes: Kafka's `.snapshot` file, and the fuller form that goes into our checkpoint.
//!
//! Kafka's file `<offset>.snapshot` holds the state as of that offset: version i16 (1), CRC-32C u32 of all that follows it, a count i32, and 46 bytes for each producer, big-endian.
//! It keeps only the last batch of each. After a crash a client may send any of its five batches in flight again, so our own form keeps all that are remembered, and when the
//! producer was last heard of. `decode` takes either.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;

use super::NO_OFFSET;
use super::producer_state::{BATCHES_REMEMBERED, PRODUCERS_PER_STEP, ProducerState, Producers, RememberedBatch, some_producers};

/// Version of Kafka's file (storage.txt, ProducerSnapshot).
const KAFKA_VERSION: i16 = 1;
/// Our form: a number that Kafka will not use, and the form's own version beside it.
const OWN_VERSION: i16 = 0x4c01;
/// Version and CRC.
const PREFIX_BYTES: usize = 6;
const KAFKA_ENTRY_BYTES: usize = 46;
const OWN_ENTRY_BYTES: usize = 47;
const OWN_BATCH_BYTES: usize = 24;

/// The bytes are not a snapshot, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    UnknownVersion(i16),
    Checksum { stored: u32, computed: u32 },
    Truncated,
}

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotError::UnknownVersion(version) => write!(formatter, "producer snapshot of unknown version {version}"),
            SnapshotError::Checksum { stored, computed } => {
                write!(formatter, "producer snapshot has checksum {computed:08x}, {stored:08x} was written")
            }
            SnapshotError::Truncated => write!(formatter, "producer snapshot ends too early"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl From<bytes::TryGetError> for SnapshotError {
    fn from(_: bytes::TryGetError) -> Self {
        SnapshotError::Truncated
    }
}

/// Encodes the producers of one moment, some at a time.
pub struct Encoder {
    form: Form,
    producers: Producers,
    /// The producer that was encoded last.
    after: Option<i64>,
    pieces: Vec<Bytes>,
    crc: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Kafka,
    Own,
}

/// A snapshot in pieces, to be written one after the other.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    pub pieces: Vec<Bytes>,
}

impl Encoder {
    /// For Kafka's `.snapshot` file.
    pub fn kafka(producers: Producers) -> Encoder {
        Encoder::new(Form::Kafka, producers)
    }

    /// All that is remembered, for the checkpoint. Nothing where there is nothing to remember.
    pub fn own(producers: Producers) -> Encoder {
        Encoder::new(Form::Own, producers)
    }

    fn new(form: Form, producers: Producers) -> Encoder {
        let crc = crc32c::crc32c(&(producers.len() as i32).to_be_bytes());
        // The first piece has the checksum in it, and so is made last.
        Encoder { form, producers, after: None, pieces: vec![Bytes::new()], crc }
    }

    /// Encodes some more producers; false when all are.
    pub fn step(&mut self) -> bool {
        let entry_bytes = match self.form {
            Form::Kafka => KAFKA_ENTRY_BYTES,
            Form::Own => OWN_ENTRY_BYTES + OWN_BATCH_BYTES,
        };
        let mut piece = Vec::with_capacity(self.producers.len().min(PRODUCERS_PER_STEP) * entry_bytes);
        let mut last = None;
        for (producer_id, state) in some_producers(&self.producers, self.after) {
            match self.form {
                Form::Kafka => put_kafka(&mut piece, producer_id, state),
                Form::Own => put_own(&mut piece, producer_id, state),
            }
            last = Some(producer_id);
        }
        if last.is_none() {
            return false;
        }
        self.crc = crc32c::crc32c_append(self.crc, &piece);
        self.pieces.push(Bytes::from(piece));
        self.after = last;
        true
    }

    /// The snapshot, once `step` has nothing left.
    pub fn finish(mut self) -> Encoded {
        assert!(some_producers(&self.producers, self.after).next().is_none(), "all producers are encoded");
        if self.form == Form::Own && self.producers.is_empty() {
            return Encoded::default();
        }
        let mut first = Vec::with_capacity(PREFIX_BYTES + 4);
        first.put_i16(if self.form == Form::Kafka { KAFKA_VERSION } else { OWN_VERSION });
        first.put_u32(self.crc);
        first.put_i32(self.producers.len() as i32);
        self.pieces[0] = Bytes::from(first);
        Encoded { pieces: self.pieces }
    }
}

impl Encoded {
    pub fn size_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// The same in one go, for callers that nobody waits for.
pub fn encode(producers: &Producers) -> Encoded {
    let mut encoder = Encoder::own(producers.clone());
    while encoder.step() {}
    encoder.finish()
}

fn put_kafka(bytes: &mut Vec<u8>, producer_id: i64, state: &ProducerState) {
    let last = state.batches.last();
    bytes.put_i64(producer_id);
    bytes.put_i16(state.epoch);
    bytes.put_i32(state.last_sequence());
    bytes.put_i64(last.map_or(NO_OFFSET, |batch| batch.last_offset));
    bytes.put_i32(last.map_or(0, |batch| batch.offset_delta));
    bytes.put_i64(state.last_timestamp);
    bytes.put_i32(state.coordinator_epoch);
    bytes.put_i64(state.transaction_first_offset.unwrap_or(NO_OFFSET));
}

fn put_own(bytes: &mut Vec<u8>, producer_id: i64, state: &ProducerState) {
    bytes.put_i64(producer_id);
    bytes.put_i16(state.epoch);
    bytes.put_i32(state.coordinator_epoch);
    bytes.put_i64(state.last_timestamp);
    bytes.put_i64(state.last_append_ms);
    bytes.put_i64(state.transaction_first_offset.unwrap_or(NO_OFFSET));
    bytes.put_i64(state.last_change_offset);
    bytes.put_u8(state.batches.len() as u8);
    for batch in &state.batches {
        bytes.put_i32(batch.last_sequence);
        bytes.put_i64(batch.last_offset);
        bytes.put_i32(batch.offset_delta);
        bytes.put_i64(batch.timestamp);
    }
}

/// The producers of either form; empty bytes are none.
pub fn decode(mut bytes: &[u8]) -> Result<Producers, SnapshotError> {
    let mut producers = Producers::new();
    if bytes.is_empty() {
        return Ok(producers);
    }
    let version = bytes.try_get_i16()?;
    if ![KAFKA_VERSION, OWN_VERSION].contains(&version) {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let stored = bytes.try_get_u32()?;
    let computed = crc32c::crc32c(bytes);
    if stored != computed {
        return Err(SnapshotError::Checksum { stored, computed });
    }
    for _ in 0..bytes.try_get_i32()? {
        let (producer_id, state) = if version == KAFKA_VERSION { take_kafka(&mut bytes)? } else { take_own(&mut bytes)? };
        producers.insert(producer_id, Arc::new(state));
    }
    Ok(producers)
}

fn take_kafka(bytes: &mut &[u8]) -> Result<(i64, ProducerState), SnapshotError> {
    let producer_id = bytes.try_get_i64()?;
    let epoch = bytes.try_get_i16()?;
    let last_sequence = bytes.try_get_i32()?;
    let last_offset = bytes.try_get_i64()?;
    let offset_delta = bytes.try_get_i32()?;
    let timestamp = bytes.try_get_i64()?;
    let coordinator_epoch = bytes.try_get_i32()?;
    let transaction_first_offset = offset_if_any(bytes.try_get_i64()?);
    let batches = if last_offset >= 0 {
        SmallVec::from_slice(&[RememberedBatch { last_sequence, last_offset, offset_delta: offset_delta.max(0), timestamp }])
    } else {
        SmallVec::new()
    };
    let state = ProducerState {
        epoch,
        coordinator_epoch,
        last_timestamp: timestamp,
        last_append_ms: timestamp,
        transaction_first_offset,
        batches,
        last_change_offset: last_offset,
        last_marker_offset: NO_OFFSET,
    };
    Ok((producer_id, state))
}

fn take_own(bytes: &mut &[u8]) -> Result<(i64, ProducerState), SnapshotError> {
    let producer_id = bytes.try_get_i64()?;
    let mut state = ProducerState {
        epoch: bytes.try_get_i16()?,
        coordinator_epoch: bytes.try_get_i32()?,
        last_timestamp: bytes.try_get_i64()?,
        last_append_ms: bytes.try_get_i64()?,
        transaction_first_offset: offset_if_any(bytes.try_get_i64()?),
        last_change_offset: bytes.try_get_i64()?,
        last_marker_offset: NO_OFFSET,
        batches: SmallVec::new(),
    };
    let batch_count = usize::from(bytes.try_get_u8()?);
    if batch_count > BATCHES_REMEMBERED {
        return Err(SnapshotError::Truncated);
    }
    for _ in 0..batch_count {
        state.batches.push(RememberedBatch {
            last_sequence: bytes.try_get_i32()?,
            last_offset: bytes.try_get_i64()?,
            offset_delta: bytes.try_get_i32()?,
            timestamp: bytes.try_get_i64()?,
        });
    }
    Ok((producer_id, state))
}

fn offset_if_any(offset: i64) -> Option<i64> {
    (offset >= 0).then_some(offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::ProducerStates;

    fn sample() -> Producers {
        let batch = |last_sequence, last_offset| RememberedBatch { last_sequence, last_offset, offset_delta: 2, timestamp: 77 };
        let state = ProducerState {
            epoch: 3,
            coordinator_epoch: 9,
            last_timestamp: 77,
            last_append_ms: 78,
            transaction_first_offset: Some(40),
            batches: SmallVec::from_slice(&[batch(5, 90), batch(8, 95)]),
            last_change_offset: 95,
            last_marker_offset: NO_OFFSET,
        };
        let other = ProducerState { transaction_first_offset: None, batches: SmallVec::new(), last_change_offset: 99, ..state.clone() };
        [(11, Arc::new(state)), (4, Arc::new(other))].into_iter().collect()
    }

    fn encode_kafka(producers: &Producers) -> Vec<u8> {
        let mut encoder = Encoder::kafka(producers.clone());
        while encoder.step() {}
        encoder.finish().to_vec()
    }

    #[test]
    fn kafkas_file_has_its_layout_and_keeps_the_last_batch() {
        let bytes = encode_kafka(&sample());
        assert_eq!(bytes.len(), 2 + 4 + 4 + 2 * 46);
        assert_eq!(bytes[..2], [0, 1]);
        assert_eq!(bytes[6..18], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4]);
        let read = ProducerStates::of(decode(&bytes).unwrap(), 100);
        let producer = read.get(11).unwrap();
        assert_eq!((producer.epoch, producer.last_sequence(), producer.batches.len(), producer.batches[0].base_offset()), (3, 8, 1, 93));
        assert_eq!(read.first_unstable_offset(), Some(40));
        assert!(read.get(4).unwrap().batches.is_empty());
    }

    #[test]
    fn our_form_keeps_everything() {
        assert_eq!(decode(&encode(&sample()).to_vec()), Ok(sample()));
        assert_eq!(encode(&Producers::new()).size_bytes(), 0);
        assert_eq!(decode(&[]), Ok(Producers::new()));
    }

    /// The log goes on while its producers are written down: what is written is the moment in which that began.
    #[test]
    fn a_snapshot_in_steps_is_of_one_moment() {
        let (_, state) = sample().get_min().cloned().unwrap();
        let mut producers: Producers = (0..3 * PRODUCERS_PER_STEP as i64).map(|id| (id * 2, state.clone())).collect();
        let then = producers.clone();
        let mut encoder = Encoder::own(producers.clone());
        let mut steps = 0;
        while encoder.step() {
            steps += 1;
            producers.insert(steps * 2 + 1, state.clone());
            producers.remove(&(4 * PRODUCERS_PER_STEP as i64));
            Arc::make_mut(producers.get_mut(&2).unwrap()).epoch += 1;
        }
        assert_eq!(steps, 3);
        assert_eq!(decode(&encoder.finish().to_vec()), Ok(then));
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        for bytes in [encode(&sample()).to_vec(), encode_kafka(&sample())] {
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&damaged).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 6..200), version in prop_oneof![Just(KAFKA_VERSION), Just(OWN_VERSION)]) {
            bytes[..2].copy_from_slice(&version.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            let _ = decode(&bytes);
        }
    }
}
