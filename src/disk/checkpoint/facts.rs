//! What a checkpoint keeps of one partition, and its encoding.
//!
//! Facts are taken from a partition between two of its appends, so they tell of all its entries so far and of none after; the checkpoint that holds them becomes valid only
//! when those entries are durable. Replay therefore redoes the bytes of every entry in the ring, but counts only those after the facts into offsets, epochs and producer state.
//!
//! Encoding, little-endian: a length, then the fields in the order of the struct; strings, lists and bytes with a four byte count before them. Readers ignore what follows the
//! fields they know, so that a later version may add some.

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::cluster::TopicIdPartition;
use crate::log::time_index::TimeEntry;
use crate::log::transaction_index::{ABORTED_TRANSACTION_BYTES, AbortedTransaction};
use crate::log::{EpochEntry, NO_OFFSET, Producers, SegmentBook, producer_snapshot};

/// Where a partition lives: the id of a data directory (`directory.id` of its meta.properties, so that a mount point may move) and the name of the directory in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionHome {
    pub directory_id: Uuid,
    /// Kafka's `<topic>-<partition>`.
    pub name: String,
}

/// A replica that changes its data directory: the payload of the journal's `Moved` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMove {
    /// The data directory that it leaves.
    pub from: Uuid,
    /// The name of its copy there where it goes, as long as that is not `to.name`.
    pub future_name: String,
    pub to: PartitionHome,
}

/// Up to where the segment files hold the log, flushed: all segments before this one whole and cut to their last byte, this one up to `size_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedEnd {
    pub segment_base: i64,
    pub size_bytes: u32,
    /// The next offset after what is placed.
    pub end_offset: i64,
}

/// One partition between two of its appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    pub partition: TopicIdPartition,
    pub home: PartitionHome,
    pub log_start_offset: i64,
    /// The next offset to be assigned.
    pub end_offset: i64,
    pub high_watermark: i64,
    /// Oldest first, the last one takes appends; at least one. Kept here in full so that a start reads no file of a partition.
    pub segments: Vec<SegmentBook>,
    pub leader_epochs: Vec<EpochEntry>,
    /// Producers as of `end_offset`. In the file they are a snapshot (log::producer_snapshot), empty where none is known.
    pub producers: Producers,
    /// Aborted transactions that are not in a flushed transaction index yet, each with the segment that holds its marker. Without them a reader of committed records would be
    /// given aborted ones after a crash.
    pub aborted: Vec<(i64, AbortedTransaction)>,
    /// Up to where compaction has been through the log, if ever. An older value costs another round, nothing else.
    pub cleaned_to: Option<i64>,
}

/// What a checkpoint holds for one partition: its facts, what placement knows, and which entries the facts tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    pub facts: PartitionFacts,
    pub placed: PlacedEnd,
    /// Number of the first entry of this journal's life that the facts do not tell of.
    pub next_entry: u64,
}

/// The body of a checkpoint does not hold what its checksum promised; only a defect or a newer, incompatible version leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactsError;

impl PartitionHome {
    /// The payload of the journal's `Opened` entry.
    pub fn encode(&self) -> Vec<u8> {
        [self.directory_id.as_bytes(), self.name.as_bytes()].concat()
    }

    pub fn decode(mut payload: Bytes) -> Result<Self, FactsError> {
        let directory_id = take_uuid(&mut payload)?;
        let name = String::from_utf8(payload.to_vec()).map_err(|_| FactsError)?;
        Ok(Self { directory_id, name })
    }
}

impl PartitionRecord {
    /// The whole record. Producers may be many: who must not block takes it in parts, `encode_head`, the producers, `encode_tail`.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let producers = producer_snapshot::encode(&self.facts.producers);
        self.encode_head(producers.size_bytes(), into);
        producers.pieces.iter().for_each(|piece| into.put_slice(piece));
        self.encode_tail(into);
    }

    /// What stands before the producers, whose snapshot has this size.
    pub fn encode_head(&self, producers_bytes: usize, into: &mut Vec<u8>) {
        let start = into.len();
        into.put_u32_le(0);
        self.put_before_producers(into);
        into.put_u32_le(u32::try_from(producers_bytes).expect("smaller than 4 GiB"));
        let tail_bytes = TAIL_BYTES + self.facts.aborted.len() * ABORTED_BYTES;
        let length = u32::try_from(into.len() - start - 4 + producers_bytes + tail_bytes);
        into[start..start + 4].copy_from_slice(&length.expect("the facts of a partition are smaller than 4 GiB").to_le_bytes());
    }

    fn put_before_producers(&self, into: &mut Vec<u8>) {
        let facts = &self.facts;
        into.put_slice(facts.partition.topic_id.as_bytes());
        into.put_i32_le(facts.partition.partition);
        into.put_slice(facts.home.directory_id.as_bytes());
        put_bytes(into, facts.home.name.as_bytes());
        into.put_i64_le(facts.log_start_offset);
        into.put_i64_le(facts.end_offset);
        into.put_i64_le(facts.high_watermark);
        into.put_u32_le(u32::try_from(facts.segments.len()).expect("fewer than 4 G segments"));
        facts.segments.iter().for_each(|segment| put_segment(into, segment));
        into.put_u32_le(u32::try_from(facts.leader_epochs.len()).expect("fewer than 4 G epochs"));
        for entry in &facts.leader_epochs {
            into.put_i32_le(entry.epoch);
            into.put_i64_le(entry.start_offset);
        }
    }

    /// What stands behind the producers.
    pub fn encode_tail(&self, into: &mut Vec<u8>) {
        let (facts, start) = (&self.facts, into.len());
        into.put_i64_le(self.placed.segment_base);
        into.put_u32_le(self.placed.size_bytes);
        into.put_i64_le(self.placed.end_offset);
        into.put_u64_le(self.next_entry);
        into.put_u32_le(u32::try_from(facts.aborted.len()).expect("fewer than 4 G aborted transactions"));
        for (segment_base, aborted) in &facts.aborted {
            into.put_i64_le(*segment_base);
            aborted.encode(into);
        }
        into.put_i64_le(facts.cleaned_to.unwrap_or(NO_OFFSET));
        assert_eq!(into.len() - start, TAIL_BYTES + facts.aborted.len() * ABORTED_BYTES, "the record's length was told before");
    }

    /// Takes the next record off the front of a checkpoint's body.
    pub fn decode(body: &mut Bytes) -> Result<Self, FactsError> {
        let mut fields = take_bytes(body)?;
        let fields = &mut fields;
        let topic_id = take_uuid(fields)?;
        let partition = TopicIdPartition::new(topic_id, fields.try_get_i32_le()?);
        let directory_id = take_uuid(fields)?;
        let name = String::from_utf8(take_bytes(fields)?.to_vec()).map_err(|_| FactsError)?;
        let home = PartitionHome { directory_id, name };
        let log_start_offset = fields.try_get_i64_le()?;
        let end_offset = fields.try_get_i64_le()?;
        let high_watermark = fields.try_get_i64_le()?;
        let segments = take_list(fields, SEGMENT_BYTES, take_segment)?;
        let leader_epochs = take_list(fields, EPOCH_BYTES, take_epoch)?;
        let producers = producer_snapshot::decode(&take_bytes(fields)?).map_err(|_| FactsError)?;
        let placed = PlacedEnd {
            segment_base: fields.try_get_i64_le()?,
            size_bytes: fields.try_get_u32_le()?,
            end_offset: fields.try_get_i64_le()?,
        };
        let next_entry = fields.try_get_u64_le()?;
        // Records of the first version end here.
        let aborted = if fields.is_empty() { Vec::new() } else { take_list(fields, ABORTED_BYTES, take_aborted)? };
        let cleaned_to = if fields.is_empty() { None } else { Some(fields.try_get_i64_le()?).filter(|offset| *offset >= 0) };
        let facts = PartitionFacts {
            partition,
            home,
            log_start_offset,
            end_offset,
            high_watermark,
            segments,
            leader_epochs,
            producers,
            aborted,
            cleaned_to,
        };
        Ok(Self { facts, placed, next_entry })
    }
}

impl From<bytes::TryGetError> for FactsError {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    into.put_u32_le(u32::try_from(bytes.len()).expect("smaller than 4 GiB"));
    into.put_slice(bytes);
}

fn take_bytes(from: &mut Bytes) -> Result<Bytes, FactsError> {
    let length = from.try_get_u32_le()? as usize;
    if length > from.len() {
        return Err(FactsError);
    }
    Ok(from.split_to(length))
}

impl ReplicaMove {
    /// The id of the directory that is left, the length of the copy's name, that name, the home.
    pub fn encode(&self) -> Vec<u8> {
        let name_bytes = (self.future_name.len() as u32).to_le_bytes();
        [self.from.as_bytes(), &name_bytes[..], self.future_name.as_bytes(), &self.to.encode()].concat()
    }

    pub fn decode(mut payload: Bytes) -> Result<Self, FactsError> {
        let from = take_uuid(&mut payload)?;
        let name_bytes = payload.try_get_u32_le()? as usize;
        if name_bytes > payload.len() {
            return Err(FactsError);
        }
        let future_name = String::from_utf8(payload.split_to(name_bytes).to_vec()).map_err(|_| FactsError)?;
        Ok(Self { from, future_name, to: PartitionHome::decode(payload)? })
    }
}

fn take_uuid(from: &mut Bytes) -> Result<Uuid, FactsError> {
    let mut bytes = [0; 16];
    from.try_copy_to_slice(&mut bytes)?;
    Ok(Uuid::from_bytes(bytes))
}

const SEGMENT_BYTES: usize = 46;
const EPOCH_BYTES: usize = 12;
const ABORTED_BYTES: usize = 8 + ABORTED_TRANSACTION_BYTES;
/// What stands behind the producers, without the aborted transactions: the placed end, the next entry, a count, and how far compaction has come.
const TAIL_BYTES: usize = 20 + 8 + 4 + 8;

/// The payload of the journal's `Swap` entry.
pub fn encode_segment(segment: &SegmentBook) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_BYTES);
    put_segment(&mut bytes, segment);
    bytes
}

pub fn decode_segment(mut payload: Bytes) -> Result<SegmentBook, FactsError> {
    take_segment(&mut payload)
}

/// Values that may be absent have a byte before them that says so.
fn put_segment(into: &mut Vec<u8>, segment: &SegmentBook) {
    into.put_i64_le(segment.base_offset);
    into.put_u32_le(segment.size_bytes);
    into.put_u8(segment.max_timestamp.is_some() as u8);
    into.put_i64_le(segment.max_timestamp.map_or(0, |max| max.timestamp));
    into.put_i64_le(segment.max_timestamp.map_or(0, |max| max.offset));
    into.put_u8(segment.first_timestamp.is_some() as u8);
    into.put_i64_le(segment.first_timestamp.unwrap_or(0));
    into.put_i64_le(segment.created_ms);
}

fn take_segment(from: &mut Bytes) -> Result<SegmentBook, FactsError> {
    let base_offset = from.try_get_i64_le()?;
    let size_bytes = from.try_get_u32_le()?;
    let has_max_timestamp = from.try_get_u8()? != 0;
    let max_timestamp = TimeEntry { timestamp: from.try_get_i64_le()?, offset: from.try_get_i64_le()? };
    let has_first_timestamp = from.try_get_u8()? != 0;
    let first_timestamp = from.try_get_i64_le()?;
    Ok(SegmentBook {
        base_offset,
        size_bytes,
        max_timestamp: has_max_timestamp.then_some(max_timestamp),
        first_timestamp: has_first_timestamp.then_some(first_timestamp),
        created_ms: from.try_get_i64_le()?,
    })
}

fn take_epoch(from: &mut Bytes) -> Result<EpochEntry, FactsError> {
    Ok(EpochEntry { epoch: from.try_get_i32_le()?, start_offset: from.try_get_i64_le()? })
}

fn take_aborted(from: &mut Bytes) -> Result<(i64, AbortedTransaction), FactsError> {
    let segment_base = from.try_get_i64_le()?;
    let aborted = AbortedTransaction::decode(from).ok_or(FactsError)?;
    Ok((segment_base, aborted))
}

/// A counted list; the count is checked against the bytes that are left before anything is reserved for it.
fn take_list<T>(from: &mut Bytes, item_bytes: usize, take: fn(&mut Bytes) -> Result<T, FactsError>) -> Result<Vec<T>, FactsError> {
    let count = from.try_get_u32_le()? as usize;
    if count > from.len() / item_bytes {
        return Err(FactsError);
    }
    (0..count).map(|_| take(from)).collect()
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::{BatchInfo, ProducerStates};

    pub fn sample(partition: i32) -> PartitionRecord {
        let facts = PartitionFacts {
            partition: TopicIdPartition::new(Uuid::from_u128(77), partition),
            home: PartitionHome { directory_id: Uuid::from_u128(5), name: format!("orders-{partition}") },
            log_start_offset: 10,
            end_offset: 500,
            high_watermark: 480,
            segments: vec![
                SegmentBook { size_bytes: 4711, ..SegmentBook::empty(0, 1_600_000_000_000) },
                SegmentBook {
                    base_offset: 300,
                    size_bytes: 70_000,
                    max_timestamp: Some(TimeEntry { timestamp: 9, offset: 499 }),
                    first_timestamp: Some(1),
                    created_ms: 1_700_000_000_000,
                },
            ],
            leader_epochs: vec![EpochEntry { epoch: 0, start_offset: 0 }, EpochEntry { epoch: 3, start_offset: 400 }],
            producers: producers(),
            aborted: vec![(300, AbortedTransaction { producer_id: 9, first_offset: 401, last_offset: 420, last_stable_offset: 421 })],
            cleaned_to: Some(300),
        };
        let placed = PlacedEnd { segment_base: 300, size_bytes: 65_000, end_offset: 470 };
        PartitionRecord { facts, placed, next_entry: 12 }
    }

    fn producers() -> Producers {
        let mut states = ProducerStates::new(0);
        for (producer_id, base_offset) in [(9, 100), (7, 101), (9, 102)] {
            let info = BatchInfo {
                base_offset,
                leader_epoch: 0,
                size_bytes: 100,
                last_offset_delta: 0,
                max_timestamp: 1_000,
                is_log_append_time: false,
                producer_id,
                producer_epoch: 0,
                base_sequence: base_offset as i32 - 100,
                is_transactional: true,
                is_control: false,
                record_count: 1,
            };
            states.apply(&info, None, 1_000);
        }
        states.producers().clone()
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let mut bytes = Vec::new();
        sample(0).encode(&mut bytes);
        sample(1).encode(&mut bytes);
        let mut body = Bytes::from(bytes);
        assert_eq!(PartitionRecord::decode(&mut body), Ok(sample(0)));
        assert_eq!(PartitionRecord::decode(&mut body), Ok(sample(1)));
        assert!(body.is_empty());
    }

    #[test]
    fn a_move_reads_back() {
        let home = PartitionHome { directory_id: Uuid::from_u128(5), name: "orders-3".into() };
        let moved = ReplicaMove { from: Uuid::from_u128(4), future_name: "orders-3.ab-future".into(), to: home };
        let bytes = Bytes::from(moved.encode());
        assert_eq!(ReplicaMove::decode(bytes.clone()), Ok(moved));
        for length in 0..16 + 4 + 18 + 16 {
            assert_eq!(ReplicaMove::decode(bytes.slice(..length)), Err(FactsError), "{length} bytes");
        }
    }

    proptest! {
        /// Damaged facts are an error or other facts, never a panic and never a reservation beyond their own size.
        #[test]
        fn damage_never_panics(at in 0usize..200, byte in any::<u8>(), cut in 0usize..200) {
            let mut bytes = Vec::new();
            sample(0).encode(&mut bytes);
            let length = bytes.len();
            bytes[at % length] ^= byte;
            bytes.truncate(length - cut % length);
            let _ = PartitionRecord::decode(&mut Bytes::from(bytes));
        }
    }
}
