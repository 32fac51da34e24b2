//! Journals without the file that says which of their content counts (`life`): somebody has removed it, or has put the journals where there was none.
//!
//! Two kinds of them are nobody's loss. Into some nothing was ever written. Others were emptied by a clean stop, which leaves that on record elsewhere, too: the data directories have
//! no link to journals any more and a clean marker each, and the last checkpoints say which data directories that concerns. Their partitions are then read from their files, as those
//! of another broker are. Of all others nobody can tell what they hold.

use std::collections::BTreeSet;
use std::path::Path;

use uuid::Uuid;

use super::life::Life;
use super::{RecoveryError, RecoveryOptions};
use crate::disk::checkpoint::slot::{self, Slot};
use crate::disk::directories::DataDirectory;
use crate::disk::journal::RingFile;
use crate::disk::journal::file::ring_path;
use crate::disk::journal::ring::RING_START;
use crate::log::file_names::CLEAN_SHUTDOWN;

/// For a start that finds no life, and no link to journals in any data directory. Returns whether there are journals that have been written into, of which nothing is needed; an error
/// where something may be.
pub fn are_journals_spent_blocking(options: &RecoveryOptions) -> Result<bool, RecoveryError> {
    let journals = (0..u16::MAX).take_while(|shard| ring_path(options.journal_directory, *shard).exists()).count() as u16;
    let mut are_used = false;
    for shard in 0..journals {
        are_used |= is_used(&ring_path(options.journal_directory, shard), options.direct)?;
    }
    if are_used {
        let refuse = |cause| RecoveryError::LifeMissing { path: Life::path(options.journal_directory), cause };
        let ids = directories_of(options.journal_directory, journals)?;
        check_marks(&ids, options.data_directories).map_err(refuse)?;
    }
    Ok(are_used)
}

fn is_used(ring: &Path, direct: bool) -> Result<bool, RecoveryError> {
    let first = RingFile::open_blocking(ring, direct)?.file.read_at_blocking(4096, RING_START)?;
    Ok(first.iter().any(|byte| *byte != 0))
}

/// The data directories that the checkpoints beside the journals name.
fn directories_of(journal_directory: &Path, journals: u16) -> Result<BTreeSet<Uuid>, RecoveryError> {
    let mut ids = BTreeSet::new();
    for shard in 0..journals {
        for slot in Slot::BOTH {
            let checkpoint = slot::read_blocking(&slot.path(journal_directory, shard))?;
            ids.extend(checkpoint.into_iter().flat_map(|checkpoint| checkpoint.records).map(|record| record.facts.home.directory_id));
        }
    }
    Ok(ids)
}

/// Whether each of the directories is there and says that it lacks nothing; if not, a sentence about the first that does not.
fn check_marks(ids: &BTreeSet<Uuid>, data_directories: &[DataDirectory]) -> Result<(), String> {
    if ids.is_empty() {
        return Err("no checkpoint says which data directories the journals beside it were used with".into());
    }
    for id in ids {
        let directory = data_directories.iter().find(|directory| directory.id == *id);
        let directory = directory
            .ok_or(format!("the journals beside it were used with the data directory of id {id}, which log.dirs does not name"))?;
        if directory.marker_blocking().is_none() {
            let path = directory.path.display();
            return Err(format!(
                "the journals beside it were used with {path}, in which no {CLEAN_SHUTDOWN} says that it lacks none of their records"
            ));
        }
    }
    Ok(())
}
