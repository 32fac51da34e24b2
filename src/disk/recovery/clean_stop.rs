//! The note of a clean stop: journals hold nothing, and Kafka finds in the data directories what it expects.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::RecoveryError;
use super::data_directory::DataDirectory;
use super::former::newest_checkpoint_blocking;
use super::life::Life;
use super::text_file::replace_text_blocking;
use crate::disk::checkpoint::PartitionFacts;
use crate::log::checkpoint_file::encode_offsets;
use crate::log::file_names::{LOG_START_CHECKPOINT, RECOVERY_POINT_CHECKPOINT, REPLICATION_CHECKPOINT};

/// Called once every shard's `Placement::shut_down` has succeeded and partitions have written what Kafka reads of each: the next start reads no journal, and other brokers may open
/// the data directories.
pub fn mark_clean_blocking(journal_directory: &Path, data_directories: &[DataDirectory]) -> Result<(), RecoveryError> {
    let path = Life::path(journal_directory);
    let mut life = Life::read_blocking(journal_directory)?.ok_or(RecoveryError::LifeDamaged { path })?;
    let mut by_directory: BTreeMap<Uuid, Vec<PartitionFacts>> = BTreeMap::new();
    for (shard, journal) in life.journals.iter().enumerate() {
        let (_, checkpoint) = newest_checkpoint_blocking(journal_directory, shard as u16, journal)?;
        for record in checkpoint.records {
            by_directory.entry(record.facts.home.directory_id).or_default().push(record.facts);
        }
    }
    for directory in data_directories {
        let facts = by_directory.remove(&directory.directory_id).unwrap_or_default();
        write_offsets(directory, RECOVERY_POINT_CHECKPOINT, &facts, |facts| facts.end_offset)?;
        write_offsets(directory, LOG_START_CHECKPOINT, &facts, |facts| facts.log_start_offset)?;
        write_offsets(directory, REPLICATION_CHECKPOINT, &facts, |facts| facts.high_watermark)?;
    }
    life.markers = data_directories.iter().map(DataDirectory::write_marker_blocking).collect::<Result<_, _>>()?;
    life.is_clean = true;
    life.replace_blocking(journal_directory)?;
    data_directories.iter().try_for_each(DataDirectory::unlink_journals_blocking)
}

fn write_offsets(
    directory: &DataDirectory,
    name: &str,
    facts: &[PartitionFacts],
    offset: impl Fn(&PartitionFacts) -> i64,
) -> Result<(), RecoveryError> {
    let entries: Vec<(&str, i32, i64)> = facts
        .iter()
        .filter_map(|facts| {
            let (topic, _) = facts.home.name.rsplit_once('-')?;
            Some((topic, facts.partition.partition, offset(facts)))
        })
        .collect();
    Ok(replace_text_blocking(&directory.path.join(name), &encode_offsets(entries.into_iter()))?)
}
