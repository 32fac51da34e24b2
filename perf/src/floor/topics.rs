//! The floor's books: topics, their partitions, and where each batch lies.

use std::collections::{HashMap, VecDeque};

use corelane_wire::Str;
use uuid::Uuid;

#[derive(Default)]
pub struct Topics {
    topics: Vec<Topic>,
    by_name: HashMap<Str, usize>,
}

pub struct Topic {
    pub name: Str,
    pub id: Uuid,
    pub partitions: Vec<Partition>,
}

/// The batches of a partition that can still be read, in the order of their offsets.
#[derive(Default)]
pub struct Partition {
    pub next_offset: i64,
    batches: VecDeque<Batch>,
}

#[derive(Clone, Copy)]
pub struct Batch {
    pub base_offset: i64,
    pub bytes: u32,
    pub position: u64,
    pub group: u64,
}

impl Topics {
    /// False if there is one of that name.
    pub fn create(&mut self, name: &Str, partitions: i32) -> bool {
        if self.by_name.contains_key(name) {
            return false;
        }
        let index = self.topics.len();
        // Kafka keeps the first ids for itself.
        let id = Uuid::from_u64_pair(0x636f_7265_6c61_6e65, index as u64 + 1);
        // The name is a slice of the request that brought it.
        let name = name.detached();
        self.by_name.insert(name.clone(), index);
        self.topics.push(Topic { name, id, partitions: (0..partitions.max(1)).map(|_| Partition::default()).collect() });
        true
    }

    /// By its name, or by its id where the request has no names.
    pub fn find(&mut self, name: &str, id: &Uuid) -> Option<&mut Topic> {
        let index = match name {
            "" => self.topics.iter().position(|topic| topic.id == *id)?,
            name => *self.by_name.get(name)?,
        };
        self.topics.get_mut(index)
    }

    pub fn all(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }
}

impl Partition {
    pub fn add(&mut self, batch: Batch, record_count: i64, oldest_position: u64) {
        self.next_offset = batch.base_offset + record_count;
        self.batches.push_back(batch);
        while self.batches.front().is_some_and(|batch| batch.position < oldest_position) {
            self.batches.pop_front();
        }
    }

    /// The first offset that can still be read.
    pub fn start_offset(&self) -> i64 {
        self.batches.front().map_or(self.next_offset, |batch| batch.base_offset)
    }

    /// The offset behind the last record that is safe.
    pub fn high_watermark(&self, safe_group: u64) -> i64 {
        let safe = self.batches.partition_point(|batch| batch.group <= safe_group);
        self.batches.get(safe).map_or(self.next_offset, |batch| batch.base_offset)
    }

    /// Safe batches from that of `offset` on: as many as fit into `bytes_max`, but at least one. None if the offset cannot be read.
    pub fn read(&self, offset: i64, safe_group: u64, bytes_max: usize) -> Option<Vec<Batch>> {
        if offset < self.start_offset() || offset > self.next_offset {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.base_offset <= offset).saturating_sub(1);
        let mut bytes = 0;
        let from_first = self.batches.range(first..).take_while(|batch| batch.group <= safe_group && offset < self.next_offset);
        let taken = from_first.take_while(|batch| {
            bytes += batch.bytes as usize;
            bytes <= bytes_max || bytes == batch.bytes as usize
        });
        Some(taken.copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_and_still_there_is_read() {
        let mut topics = Topics::default();
        assert!(topics.create(&Str::from("t"), 1) && !topics.create(&Str::from("t"), 1));
        let partition = &mut topics.find("t", &Uuid::nil()).unwrap().partitions[0];
        for number in 0..4 {
            let batch = Batch { base_offset: 10 * number, bytes: 100, position: 1000 * number as u64, group: number as u64 + 1 };
            partition.add(batch, 10, if number == 3 { 500 } else { 0 });
        }
        assert_eq!((partition.start_offset(), partition.next_offset), (10, 40));
        assert_eq!((partition.high_watermark(2), partition.high_watermark(4)), (20, 40));
        let offsets = |offset, safe_group, bytes_max| -> Option<Vec<i64>> {
            Some(partition.read(offset, safe_group, bytes_max)?.iter().map(|batch| batch.base_offset).collect())
        };
        assert_eq!(offsets(9, 4, 1000), None);
        assert_eq!(offsets(25, 4, 1000), Some(vec![20, 30]));
        assert_eq!(offsets(25, 4, 10), Some(vec![20]));
        assert_eq!(offsets(25, 2, 1000), Some(vec![]));
        assert_eq!(offsets(40, 4, 1000), Some(vec![]));
        assert_eq!(offsets(41, 4, 1000), None);
    }
}
