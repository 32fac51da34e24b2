//! What one shard of the last life left behind: its last whole checkpoint, and what its journal holds since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::life::LifeJournal;
use super::redo::Redo;
use super::{RecoveryError, RecoveryOptions};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::slot::{self, Checkpoint, Slot};
use crate::disk::checkpoint::{PartitionHome, PartitionRecord};
use crate::disk::journal::file::{RingFileError, ring_path};
use crate::disk::journal::replay::{ReplayStart, read_groups};
use crate::disk::journal::shadow::{ShadowContent, shadow_path};
use crate::disk::journal::{Entry, EntryKind, RingFile};
use crate::disk::placement::CheckpointTurn;

pub struct Former {
    pub next_turn: CheckpointTurn,
    pub records: Vec<PartitionRecord>,
    /// Entries since the checkpoint's replay start, with their numbers.
    pub entries: Vec<(u64, Entry)>,
    ring_path: PathBuf,
}

/// Partitions to be brought up to date, and those of which the journal holds nothing new.
pub type ByPartition = (Vec<(TopicIdPartition, Redo)>, Vec<PartitionRecord>);

impl Former {
    pub fn read_blocking(options: &RecoveryOptions, shard: u16, journal: &LifeJournal, is_clean: bool) -> Result<Self, RecoveryError> {
        let ring_path = ring_path(options.journal_directory, shard);
        let (slot, checkpoint) = newest_checkpoint_blocking(options.journal_directory, shard, journal)?;
        let entries = if is_clean { Vec::new() } else { read_entries(options, shard, journal, &checkpoint)? };
        let next_turn = CheckpointTurn {
            journal_directory: options.journal_directory.into(),
            shard,
            number: checkpoint.header.number + 1,
            slot: slot.other(),
        };
        Ok(Self { next_turn, records: checkpoint.records, entries, ring_path })
    }

    /// Gives every entry to its partition, in order. `is_foreign` tells of records whose files somebody else has changed: they are not ours to know.
    pub fn by_partition(self, now_ms: i64, is_foreign: &dyn Fn(&PartitionRecord) -> bool) -> Result<ByPartition, RecoveryError> {
        let Self { records, entries, ring_path, .. } = self;
        // A deletion counts from the journal's first entry on: the checkpoint may have been written after it and before the replay start had passed the partition's last batches.
        let deleted: BTreeSet<TopicIdPartition> =
            entries.iter().filter(|(_, entry)| entry.header.kind == EntryKind::Deleted).map(|(_, entry)| entry.header.partition).collect();
        let records = records.into_iter().filter(|record| !is_foreign(record) && !deleted.contains(&record.facts.partition));
        let mut untouched: BTreeMap<TopicIdPartition, PartitionRecord> = records.map(|record| (record.facts.partition, record)).collect();
        let mut touched: BTreeMap<TopicIdPartition, Redo> = BTreeMap::new();
        let entries = entries.into_iter().filter(|(_, entry)| !deleted.contains(&entry.header.partition));
        for (number, entry) in entries {
            let partition = entry.header.partition;
            let mismatch =
                |name: &str, cause: String| RecoveryError::Mismatch { path: ring_path.clone(), partition, name: name.to_owned(), cause };
            if let Some(record) = untouched.remove(&partition) {
                let name = record.facts.home.name.clone();
                touched.insert(partition, Redo::from_record(record).map_err(|cause| mismatch(&name, cause))?);
            }
            match (entry.header.kind, touched.get_mut(&partition)) {
                (_, Some(redo)) => redo.take(number, entry).map_err(|cause| mismatch(&redo.home().name, cause))?,
                (EntryKind::Opened, None) => {
                    let home = PartitionHome::decode(entry.payload).map_err(|_| mismatch("", "its home is damaged".into()))?;
                    touched.insert(partition, Redo::opened(&entry.header, home, now_ms));
                }
                // Upkeep was at work when the partition was deleted, and the deletion is older than the replay start.
                (EntryKind::BlockPrefix | EntryKind::CutBefore | EntryKind::Swapped, None) => {}
                (_, None) => return Err(mismatch("", "no checkpoint knows it".into())),
            }
        }
        // Of files that failed the checkpoint may know a segment that they lack, though the journal holds nothing for it.
        let is_placed =
            |record: &PartitionRecord| record.facts.segments.last().is_none_or(|active| active.base_offset == record.placed.segment_base);
        let (untouched, unplaced): (Vec<_>, Vec<_>) = untouched.into_values().partition(is_placed);
        for record in unplaced {
            let (partition, name) = (record.facts.partition, record.facts.home.name.clone());
            let mismatch = |cause| RecoveryError::Mismatch { path: ring_path.clone(), partition, name, cause };
            touched.insert(partition, Redo::from_record(record).map_err(mismatch)?);
        }
        Ok((touched.into_iter().collect(), untouched))
    }
}

/// Of the two files, the one with the higher number that is whole and of this life.
pub fn newest_checkpoint_blocking(
    journal_directory: &Path,
    shard: u16,
    journal: &LifeJournal,
) -> Result<(Slot, Checkpoint), RecoveryError> {
    let paths = Slot::BOTH.map(|slot| slot.path(journal_directory, shard));
    let mut newest: Option<(Slot, Checkpoint)> = None;
    for (slot, path) in Slot::BOTH.into_iter().zip(&paths) {
        let Some(checkpoint) = slot::read_blocking(path)? else { continue };
        let is_ours = checkpoint.header.journal_id == journal.journal_id;
        if is_ours && newest.as_ref().is_none_or(|(_, other)| checkpoint.header.number > other.header.number) {
            newest = Some((slot, checkpoint));
        }
    }
    newest.ok_or(RecoveryError::CheckpointMissing { paths })
}

fn read_entries(
    options: &RecoveryOptions,
    shard: u16,
    journal: &LifeJournal,
    checkpoint: &Checkpoint,
) -> Result<Vec<(u64, Entry)>, RecoveryError> {
    let path = ring_path(options.journal_directory, shard);
    let replaced = || RecoveryError::RingReplaced { path: path.clone() };
    let ring = match RingFile::open_blocking(&path, options.direct) {
        Ok(ring) => ring,
        Err(RingFileError::File(error)) if error.is_not_found() => return Err(replaced()),
        Err(error) => return Err(error.into()),
    };
    if ring.ring_id != journal.ring_id {
        return Err(replaced());
    }
    let file = ring.read_blocking()?;
    let start = checkpoint.header.start;
    let start = ReplayStart { journal_id: journal.journal_id, sequence: start.sequence, position: start.position };
    let named = |error| RecoveryError::Replay { path: path.clone(), error };
    let shadow = ShadowContent::read_blocking(&shadow_path(options.journal_directory, shard))?;
    let mut entries = Vec::new();
    for group in read_groups(&file, &shadow, start).map_err(named)? {
        entries.extend(group.entries().map_err(named)?);
    }
    Ok(entries)
}
