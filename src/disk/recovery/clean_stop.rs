//! The note of a clean stop: journals hold nothing, and Kafka finds in the data directories what it expects.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::RecoveryError;
use super::former::newest_checkpoint_blocking;
use super::life::Life;
use crate::disk::checkpoint::PartitionFacts;
use crate::disk::directories::{CleanEnd, DataDirectory, write_clean_shutdown_blocking};

/// Called once every shard's `Placement::shut_down` has succeeded and partitions have written what Kafka reads of each: the next start reads no journal, and other brokers may open
/// the data directories.
pub fn mark_clean_blocking(journal_directory: &Path, data_directories: &[DataDirectory], broker_epoch: i64) -> Result<(), RecoveryError> {
    let path = Life::path(journal_directory);
    let mut life = Life::read_blocking(journal_directory)?.ok_or(RecoveryError::LifeDamaged { path })?;
    let mut ends: BTreeMap<Uuid, Vec<CleanEnd>> = BTreeMap::new();
    for (shard, journal) in life.journals.iter().enumerate() {
        let (_, checkpoint) = newest_checkpoint_blocking(journal_directory, shard as u16, journal)?;
        for record in checkpoint.records {
            let directory_id = record.facts.home.directory_id;
            ends.entry(directory_id).or_default().extend(clean_end(&record.facts));
        }
    }
    for directory in data_directories {
        write_clean_shutdown_blocking(&directory.path, ends.remove(&directory.id).unwrap_or_default(), broker_epoch)?;
    }
    life.markers = data_directories.iter().filter_map(DataDirectory::marker_blocking).collect();
    life.is_clean = true;
    life.replace_blocking(journal_directory)?;
    data_directories.iter().try_for_each(DataDirectory::unlink_journals_blocking)
}

fn clean_end(facts: &PartitionFacts) -> Option<CleanEnd> {
    let (topic, _) = facts.home.name.rsplit_once('-')?;
    Some(CleanEnd {
        topic: topic.to_owned(),
        partition: facts.partition.partition,
        log_start_offset: facts.log_start_offset,
        log_end_offset: facts.end_offset,
        high_watermark: facts.high_watermark,
        cleaned_to: facts.cleaned_to,
    })
}
