//! What records hold, so that a reader knows each one again: its id, the time at which it was due, and bytes that follow from its number.
//!
//! ```text
//! 0..8   id: producer in the upper 16 bits, its count of records in the lower 48
//! 8..16  due time, nanoseconds of the run's clock
//! 16..   text from a fixed pool, from a place that the number names: compressible about 2 to 1, and another for each record
//! ```

/// Bytes of a value that are not text.
pub const HEAD_BYTES: usize = 16;

/// Records begin at so many different places of the pool.
const PLACES: u64 = 4_093;

const NUMBER_BITS: u32 = 48;

/// Which record this is: the producer, and its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

impl RecordId {
    pub fn new(producer: usize, number: u64) -> RecordId {
        RecordId((producer as u64) << NUMBER_BITS | number)
    }

    pub fn producer(self) -> usize {
        (self.0 >> NUMBER_BITS) as usize
    }

    pub fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }
}

#[derive(Clone, Debug)]
pub struct Payload {
    pool: Vec<u8>,
    record_bytes: usize,
}

impl Payload {
    /// `record_bytes` is the size of a value, at least [`HEAD_BYTES`].
    pub fn new(record_bytes: usize) -> Payload {
        assert!(record_bytes >= HEAD_BYTES, "a value holds its id and its time");
        let words: Vec<String> = (0..64u64).map(|word| scramble(word).to_string()).collect();
        let mut pool = Vec::with_capacity(record_bytes + PLACES as usize + 32);
        let mut state = 1;
        while pool.len() < record_bytes + PLACES as usize {
            state = scramble(state);
            pool.extend_from_slice(words[(state % 64) as usize].as_bytes());
            pool.push(b' ');
        }
        Payload { pool, record_bytes }
    }

    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Writes the whole value.
    pub fn write(&self, value: &mut [u8], id: RecordId, due_ns: u64) {
        value[..8].copy_from_slice(&id.0.to_le_bytes());
        value[8..HEAD_BYTES].copy_from_slice(&due_ns.to_le_bytes());
        value[HEAD_BYTES..].copy_from_slice(self.text(id));
    }

    /// Id and due time of a value, if it is as it was written. (The due time has no second copy; the batch's checksum covers it.)
    pub fn check(&self, value: &[u8]) -> Option<(RecordId, u64)> {
        if value.len() != self.record_bytes {
            return None;
        }
        let id = RecordId(u64::from_le_bytes(value[..8].try_into().ok()?));
        let due_ns = u64::from_le_bytes(value[8..HEAD_BYTES].try_into().ok()?);
        (value[HEAD_BYTES..] == *self.text(id)).then_some((id, due_ns))
    }

    fn text(&self, id: RecordId) -> &[u8] {
        let place = (id.0.wrapping_mul(61) % PLACES) as usize;
        &self.pool[place..place + self.record_bytes - HEAD_BYTES]
    }
}

/// SplitMix64: numbers without pattern, the same in every run.
fn scramble(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Keys of a keyed topic: eight hexadecimal digits each, so that all have one length, and the partition that Kafka's default partitioner gives them.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    by_partition: Vec<Vec<u32>>,
}

pub const KEY_BYTES: usize = 8;

impl Keys {
    pub fn new(distinct: u32, partitions: i32) -> Keys {
        let mut by_partition = vec![Vec::new(); partitions as usize];
        for key in 0..distinct {
            by_partition[partition_of(&key_bytes(key), partitions) as usize].push(key);
        }
        Keys { by_partition }
    }

    /// The `count`-th key that goes to the partition; one is always found, if need be the partition's number itself.
    pub fn key(&self, partition: i32, count: u64) -> [u8; KEY_BYTES] {
        let keys = &self.by_partition[partition as usize];
        key_bytes(if keys.is_empty() { partition as u32 } else { keys[(count % keys.len() as u64) as usize] })
    }
}

fn key_bytes(key: u32) -> [u8; KEY_BYTES] {
    std::array::from_fn(|place| b"0123456789abcdef"[(key >> (28 - 4 * place)) as usize & 15])
}

fn partition_of(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX as u32) as i32 % partitions
}

/// Kafka's variant of MurmurHash 2, with its seed.
fn murmur2(key: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(MULTIPLIER);
        word = (word ^ (word >> 24)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash = rest.iter().enumerate().fold(hash, |hash, (place, byte)| hash ^ u32::from(*byte) << (8 * place)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_again_and_any_change_of_its_text_is_seen() {
        let payload = Payload::new(100);
        let id = RecordId::new(7, 123_456);
        assert_eq!((id.producer(), id.number()), (7, 123_456));
        let mut value = vec![0; 100];
        payload.write(&mut value, id, 42);
        assert_eq!(payload.check(&value), Some((id, 42)));
        for place in HEAD_BYTES..100 {
            let mut changed = value.clone();
            changed[place] ^= 1;
            assert_eq!(payload.check(&changed), None, "byte {place}");
        }
        assert_eq!(payload.check(&value[..99]), None);
    }

    #[test]
    fn neighbours_hold_other_text() {
        let payload = Payload::new(64);
        let (mut one, mut other) = (vec![0; 64], vec![0; 64]);
        payload.write(&mut one, RecordId::new(0, 1), 0);
        payload.write(&mut other, RecordId::new(0, 2), 0);
        assert_ne!(one[HEAD_BYTES..], other[HEAD_BYTES..]);
    }

    // The values of org.apache.kafka.common.utils.Utils.murmur2 for these strings, from Kafka's own tests.
    #[test]
    fn murmur2_is_kafkas() {
        for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn keys_go_where_the_partitioner_puts_them() {
        let keys = Keys::new(1_000, 10);
        for partition in 0..10 {
            assert_eq!(partition_of(&keys.key(partition, 5), 10), partition);
        }
        assert_eq!(&keys.key(0, 0).len(), &KEY_BYTES);
    }
}
