//! The last offset of each key, in memory of a fixed size: Kafka's SkimpyOffsetMap.
//!
//! An entry is a hash of the key and an offset, 24 bytes; keys themselves are not kept. Two keys of one hash would cost a record its life, so the hash has 128 bits of two SipHashes
//! whose keys are drawn at random: nobody can choose keys that collide. Open addressing; the map takes as many entries as its load factor allows and no more.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Bytes of an entry.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// Two words of hash, and the offset plus one: 0 there is a slot that is free. So fresh memory, which the system gives as zeros and only when it is touched, is an empty map.
type Slot = [u64; 3];

const FREE: Slot = [0; 3];

#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    count: usize,
    count_max: usize,
    latest_offset: i64,
    hashers: [RandomState; 2],
}

impl OffsetMap {
    /// A map within `memory_bytes`, smaller where no more than `records_max` can come. `load_factor` is how full it may get.
    pub fn new(memory_bytes: usize, load_factor: f64, records_max: usize, hashers: [RandomState; 2]) -> Self {
        let load_factor = load_factor.clamp(0.01, 0.95);
        let wanted = (records_max as f64 / load_factor) as usize + 2;
        let slots = (memory_bytes / SLOT_BYTES).min(wanted).max(2);
        let count_max = ((slots as f64 * load_factor) as usize).clamp(1, slots - 1);
        Self { slots: vec![FREE; slots], count: 0, count_max, latest_offset: -1, hashers }
    }

    /// Notes that `key` is at `offset`, which is above every offset noted before. Returns false if there is no room for another key; then nothing has changed.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let slot = self.slot_of(hash);
        if self.slots[slot][2] == 0 {
            if self.count == self.count_max {
                return false;
            }
            self.count += 1;
        }
        self.slots[slot] = [hash[0], hash[1], offset as u64 + 1];
        true
    }

    /// The last offset of the key.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = self.slots[self.slot_of(self.hash(key))];
        slot[2].checked_sub(1).map(|offset| offset as i64)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Up to this offset, inclusive, all records are noted.
    pub fn latest_offset(&self) -> i64 {
        self.latest_offset
    }

    pub fn reached(&mut self, offset: i64) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.hashers.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            hasher.write(key);
            hasher.finish()
        })
    }

    /// The slot with that hash, or the free one where it belongs. One is free always.
    fn slot_of(&self, hash: [u64; 2]) -> usize {
        let mut slot = (hash[0] % self.slots.len() as u64) as usize;
        loop {
            let found = &self.slots[slot];
            if found[2] == 0 || found[..2] == hash {
                return slot;
            }
            slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashers() -> [RandomState; 2] {
        [RandomState::new(), RandomState::new()]
    }

    #[test]
    fn it_is_full_at_its_load_factor_and_takes_known_keys_then_too() {
        let mut map = OffsetMap::new(SLOT_BYTES * 10, 0.9, 1_000, hashers());
        let taken = (0..20u8).take_while(|key| map.put(&[*key], i64::from(*key))).count();
        assert_eq!((taken, map.count(), map.memory_bytes()), (9, 9, 240));
        assert!(map.put(&[3], 99));
        assert_eq!((map.get(&[3]), map.get(&[8]), map.get(&[9]), map.get(b"")), (Some(99), Some(8), None, None));
        assert!(OffsetMap::new(1 << 30, 0.9, 100, hashers()).memory_bytes() < 4096, "no more than can come");
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map_of_keys(keys in proptest::collection::vec(0..40u32, 0..200)) {
            let mut map = OffsetMap::new(SLOT_BYTES * 64, 0.75, 1_000, hashers());
            let mut model = std::collections::BTreeMap::new();
            for (offset, key) in keys.into_iter().enumerate() {
                prop_assert!(map.put(&key.to_be_bytes(), offset as i64));
                model.insert(key, offset as i64);
            }
            for key in 0..41u32 {
                prop_assert_eq!(map.get(&key.to_be_bytes()), model.get(&key).copied());
            }
        }
    }
}
