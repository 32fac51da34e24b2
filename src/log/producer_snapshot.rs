//! Producer state as bytes: Kafka's `.snapshot` file, and the fuller form that goes into our checkpoint.
//!
//! Kafka's file `<offset>.snapshot` holds the state as of that offset: version i16 (1), CRC-32C u32 of all that follows it, a count i32, and 46 bytes for each producer, big-endian.
//! It keeps only the last batch of each. After a crash a client may send any of its five batches in flight again, so our own form keeps all that are remembered, and when the
//! producer was last heard of. `decode` takes either.

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;

use super::NO_OFFSET;
use super::producer_state::{BATCHES_REMEMBERED, ProducerState, ProducerStates, RememberedBatch};

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

/// The content of Kafka's `.snapshot` file.
pub fn encode_kafka(states: &ProducerStates) -> Bytes {
    let mut bytes = begin(KAFKA_VERSION, states.len() * KAFKA_ENTRY_BYTES);
    bytes.put_i32(states.len() as i32);
    for (producer_id, state) in in_order(states) {
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
    finish(bytes)
}

/// All that is remembered, for the checkpoint. Empty where there is nothing to remember.
pub fn encode(states: &ProducerStates) -> Bytes {
    if states.is_empty() {
        return Bytes::new();
    }
    let mut bytes = begin(OWN_VERSION, states.len() * (OWN_ENTRY_BYTES + OWN_BATCH_BYTES));
    bytes.put_i32(states.len() as i32);
    for (producer_id, state) in in_order(states) {
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
    finish(bytes)
}

/// The state as of `end_offset`, from either form; empty bytes are no producers.
pub fn decode(mut bytes: &[u8], end_offset: i64) -> Result<ProducerStates, SnapshotError> {
    let mut states = ProducerStates::new(end_offset);
    if bytes.is_empty() {
        return Ok(states);
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
        states.restore(producer_id, state);
    }
    Ok(states)
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

/// By producer id, so that equal states have equal bytes.
fn in_order(states: &ProducerStates) -> Vec<(i64, &ProducerState)> {
    let mut all: Vec<_> = states.iter().collect();
    all.sort_unstable_by_key(|&(producer_id, _)| producer_id);
    all
}

fn begin(version: i16, entries_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + 4 + entries_bytes);
    bytes.put_i16(version);
    bytes.put_u32(0);
    bytes
}

fn finish(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
    bytes[2..PREFIX_BYTES].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> ProducerStates {
        let mut states = ProducerStates::new(100);
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
        states.restore(11, state.clone());
        states.restore(4, ProducerState { transaction_first_offset: None, batches: SmallVec::new(), last_change_offset: 99, ..state });
        states
    }

    #[test]
    fn kafkas_file_has_its_layout_and_keeps_the_last_batch() {
        let bytes = encode_kafka(&sample());
        assert_eq!(bytes.len(), 2 + 4 + 4 + 2 * 46);
        assert_eq!(bytes[..2], [0, 1]);
        assert_eq!(bytes[6..18], [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4]);
        let read = decode(&bytes, 100).unwrap();
        let producer = read.get(11).unwrap();
        assert_eq!((producer.epoch, producer.last_sequence(), producer.batches.len(), producer.batches[0].base_offset()), (3, 8, 1, 93));
        assert_eq!(read.first_unstable_offset(), Some(40));
        assert!(read.get(4).unwrap().batches.is_empty());
    }

    #[test]
    fn our_form_keeps_everything() {
        let states = sample();
        let read = decode(&encode(&states), 100).unwrap();
        assert_eq!(read.get(11), states.get(11));
        assert_eq!(read.get(4), states.get(4));
        assert_eq!((read.end_offset(), read.len()), (100, 2));
        assert!(encode(&ProducerStates::new(5)).is_empty());
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        for bytes in [encode(&sample()), encode_kafka(&sample())] {
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&damaged, 0).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 6..200), version in prop_oneof![Just(KAFKA_VERSION), Just(OWN_VERSION)]) {
            bytes[..2].copy_from_slice(&version.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            let _ = decode(&bytes, 0);
        }
    }
}
