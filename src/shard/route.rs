//! The only "who owns it": which shard holds a partition.
//!
//! The answer depends on the partition and the number of shards alone, never on where its directory lies, so that another number of cores at the next start moves no data.

use crate::cluster::{METADATA_PARTITION, TopicIdPartition};
use crate::rt::ShardId;

/// The shard that owns `partition` when there are `shards` of them. The metadata log lives on shard 0, beside the controller.
///
/// Consecutive partitions of a topic go to consecutive shards, and topics start at different ones, so that a topic with few partitions still uses several cores.
pub fn owner(partition: &TopicIdPartition, shards: u16) -> ShardId {
    if *partition == METADATA_PARTITION {
        return ShardId(0);
    }
    let first = (partition.topic_id.as_u128() ^ (partition.topic_id.as_u128() >> 64)) as u64;
    // Topic ids are random (version 4) but for six fixed bits; multiplying spreads what is left over the high half.
    let spread = first.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ShardId(((spread + partition.partition as u64) % u64::from(shards)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    /// Neighbouring partitions of one topic alternate between two shards; the metadata log stays on shard 0 whatever their number.
    #[test]
    fn spreads_a_topic_over_shards() {
        let topic_id = Uuid::new_v4();
        let owners: Vec<u16> = (0..4).map(|partition| owner(&TopicIdPartition { topic_id, partition }, 2).0).collect();
        assert_eq!(owners[0], owners[2]);
        assert_eq!(owners[1], owners[3]);
        assert_ne!(owners[0], owners[1]);
        for shards in 1..9 {
            assert_eq!(owner(&METADATA_PARTITION, shards), ShardId(0));
        }
    }
}
