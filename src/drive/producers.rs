//! Producers that have been idle for long are forgotten, partition by partition, in the background (`producer.id.expiration.ms`).

use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::partition::Partitions;
use crate::rt::{self, Pause};

/// Partitions that are looked at between two looks at what else the shard has to do.
const PARTITIONS_AT_ONCE: usize = 16;

/// Looks through the partitions of a shard every `producer.id.expiration.check.interval.ms`, until they are gone. `config` gives the settings of the moment.
pub async fn expire_producers(partitions: Weak<Partitions>, config: impl Fn() -> Option<Arc<Config>>) {
    while let Some(settings) = config() {
        rt::sleep(Duration::from_millis(settings.producer_id_expiration_check_interval_ms().max(1) as u64)).await;
        let (Some(partitions), Some(settings)) = (partitions.upgrade(), config()) else { return };
        let (all, expiration_ms) = (partitions.all(), i64::from(settings.producer_id_expiration_ms()));
        drop(partitions);
        let mut pause = Pause::every(PARTITIONS_AT_ONCE);
        for partition in all {
            pause.step().await;
            let mut after = partition.expire_producers(rt::wall_clock_ms(), expiration_ms, None);
            while after.is_some() {
                rt::yield_now().await;
                after = partition.expire_producers(rt::wall_clock_ms(), expiration_ms, after);
            }
        }
    }
}
