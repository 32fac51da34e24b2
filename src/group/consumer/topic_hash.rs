//! A number for all that an assignment rests on about topics: when it changes, the group is assigned anew.
//!
//! It is recorded with the group's epoch, so it has to be the number that Kafka reckons (hash4j's XXH3-64 over a stream of little-endian numbers, and of strings as UTF-16 units
//! followed by their count): a broker that took over a directory would otherwise assign every group anew.

use crate::cluster::{Image, TopicImage};
use twox_hash::XxHash3_64;

/// Stands before everything else, should the way of reckoning ever change.
const MAGIC: u8 = 0;

/// The hash of the topics with these names, in the order of the names; 0 when none of them is there.
pub(super) fn metadata_hash<'a>(names: impl Iterator<Item = &'a str>, image: &Image) -> i64 {
    let hashes: Vec<u8> = names.filter_map(|name| image.topic(name)).flat_map(|topic| topic_hash(topic, image).to_le_bytes()).collect();
    if hashes.is_empty() { 0 } else { XxHash3_64::oneshot(&hashes) as i64 }
}

fn topic_hash(topic: &TopicImage, image: &Image) -> u64 {
    let mut bytes = vec![MAGIC];
    let (most, least) = topic.id.as_u64_pair();
    bytes.extend(most.to_le_bytes());
    bytes.extend(least.to_le_bytes());
    push_text(&mut bytes, &topic.name);
    bytes.extend(topic.partition_count().to_le_bytes());
    for (index, partition) in (0i32..).zip(&topic.partitions) {
        bytes.extend(index.to_le_bytes());
        let broker_racks = partition.replicas.iter().filter_map(|id| image.broker(*id)?.rack.as_deref());
        let mut racks: Vec<&str> = broker_racks.collect();
        racks.sort_unstable();
        for rack in racks {
            bytes.extend((rack.encode_utf16().count() as i32).to_le_bytes());
            push_text(&mut bytes, rack);
        }
    }
    XxHash3_64::oneshot(&bytes)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let mut units = 0i32;
    for unit in text.encode_utf16() {
        bytes.extend(unit.to_le_bytes());
        units += 1;
    }
    bytes.extend(units.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetadataRecord;
    use crate::log::directory_files::decode_uuid;
    use crate::wire::Str;
    use crate::wire::records::{PartitionRecord, TopicRecord};

    /// The numbers that a Kafka 4.4.0 broker recorded for groups on these topics.
    #[test]
    fn the_hash_is_the_one_that_kafka_records() {
        let mut image = Image::empty();
        let mut apply = |record: MetadataRecord| image.apply(&record).unwrap();
        for (name, id, partitions) in [("tt", "4UetlGnNQdGOLiLgN80MRg", 3), ("u.x", "DaWtdxCkQ7qsLddOrT41sg", 1)] {
            let topic_id = decode_uuid(id).unwrap();
            apply(TopicRecord { name: Str::from(name), topic_id, ..Default::default() }.into());
            for partition_id in 0..partitions {
                apply(PartitionRecord { partition_id, topic_id, replicas: vec![1], isr: vec![1], leader: 1, ..Default::default() }.into());
            }
        }
        let hash = |names: &[&'static str]| metadata_hash(names.iter().copied(), &image);
        assert_eq!(hash(&["tt"]), -5_189_841_515_504_945_609);
        assert_eq!(hash(&["u.x"]), -5_574_534_644_604_162_634);
        assert_eq!(hash(&["not-there", "tt", "u.x"]), -276_524_451_432_942_089);
        assert_eq!(hash(&["not-there"]), 0);
    }
}
