//! Replicas that were on their way from one data directory to another when the last life ended (partition::moving).
//!
//! Where the journal says that the new place counts, what is left is done: the copy gets its name, and the directory that the replica has left is put aside. Where there is only a
//! copy under way, it is begun anew once the partition is open; a copy that nobody waits for goes.

use std::path::PathBuf;

use uuid::Uuid;

use super::redo::Redo;
use super::{LeftAlone, Recovery, RecoveryError};
use crate::disk::directories::{read_partition_metadata_blocking, retire_partition_blocking};
use crate::log::file_names::future_of;
use crate::rt::file::{rename_blocking, sync_directory_blocking};

/// The directory into which a replica is copied that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FutureDirectory {
    /// The data directory that it lies in.
    pub directory_id: Uuid,
    /// Its full path.
    pub path: PathBuf,
}

impl Recovery<'_> {
    /// Does what the entries of the journal say that is not done yet. A start that is cut short here does it again.
    pub(super) fn finish_moves(&mut self, redo: &Redo) -> Result<(), RecoveryError> {
        let home = redo.home();
        for moved in redo.moves().iter().filter(|moved| moved.to == *home) {
            let Some(index) = self.directory_index(&home.directory_id) else { continue };
            let directory = &self.options.data_directories[index].path;
            let copy = directory.join(&moved.future_name);
            let inventory = &mut self.inventories[index];
            if !inventory.partitions.contains(&home.name) && inventory.others.contains(&copy) {
                rename_blocking(&copy, directory.join(&home.name))?;
                sync_directory_blocking(directory)?;
                inventory.partitions.insert(home.name.clone());
                inventory.others.retain(|other| *other != copy);
            }
        }
        for moved in redo.moves().iter().filter(|moved| moved.from != home.directory_id) {
            let Some(index) = self.directory_index(&moved.from) else { continue };
            let left = self.options.data_directories[index].path.join(&home.name);
            let partition = redo.partition();
            let is_ours = self.inventories[index].partitions.contains(&home.name)
                && read_partition_metadata_blocking(&left)?.is_some_and(|topic_id| topic_id == partition.topic_id);
            if is_ours {
                let topic = home.name.rsplit_once('-').map_or(home.name.as_str(), |(topic, _)| topic);
                self.report.deleted.push(retire_partition_blocking(&left, topic, partition.partition)?);
                self.inventories[index].partitions.remove(&home.name);
            }
        }
        Ok(())
    }

    /// Takes the directories of copies under way out of the inventories.
    pub(super) fn take_future_directories(&mut self) -> Vec<FutureDirectory> {
        let mut future = Vec::new();
        for (directory, inventory) in self.options.data_directories.iter().zip(&mut self.inventories) {
            let others = std::mem::take(&mut inventory.others);
            let (taken, left): (Vec<PathBuf>, Vec<PathBuf>) = others.into_iter().partition(|path| future_of(&name_of(path)).is_some());
            future.extend(taken.into_iter().map(|path| FutureDirectory { directory_id: directory.id, path }));
            inventory.others = left;
        }
        future
    }

    /// Tells each partition where it was going. Copies that are of no use any more go with the directories of deleted partitions; those of partitions that are not there are left alone.
    pub(super) fn resume_moves(&mut self, future: Vec<FutureDirectory>) {
        for copy in future {
            let name = name_of(&copy.path);
            match self.partitions.values_mut().find(|recovered| future_of(&name) == Some(recovered.facts.home.name.as_str())) {
                Some(recovered) if recovered.facts.home.directory_id != copy.directory_id && recovered.moving_to.is_none() => {
                    recovered.moving_to = Some(copy);
                }
                Some(_) => self.report.deleted.push(copy.path),
                None => {
                    self.report.left_alone.push(LeftAlone { path: copy.path, why: "it is a copy of a replica that is not there" });
                }
            }
        }
    }

    fn directory_index(&self, id: &Uuid) -> Option<usize> {
        self.options.data_directories.iter().position(|directory| directory.id == *id)
    }
}

fn name_of(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
