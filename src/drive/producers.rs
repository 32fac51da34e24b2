//! Producers that have been idle for long are forgotten, partition by partition, in the background (`producer.id.expiration.ms`).

use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::partition::Partitions;
use crate::rt;

/// Partitions that are looked at between two looks at what else the shard has to do.
const PARTITIONS_AT_ONCE: usize = 16;

/// Looks through the partitions of a shard every `producer.id.expiration.check.interval.ms`, until they are gone.
pub async fn expire_producers(partitions: Weak<Partitions>, config: Arc<Config>) {
    let interval = Duration::from_millis(config.producer_id_expiration_check_interval_ms().max(1) as u64);
    loop {
        rt::sleep(interval).await;
        let Some(all) = partitions.upgrade().map(|partitions| partitions.all()) else { return };
        for (index, partition) in all.iter().enumerate() {
            partition.expire_producers(rt::wall_clock_ms(), i64::from(config.producer_id_expiration_ms()));
            if index % PARTITIONS_AT_ONCE == PARTITIONS_AT_ONCE - 1 {
                rt::yield_now().await;
            }
        }
    }
}
