//! A data directory as a start finds it: whose it is (`meta.properties`), which partitions lie in it, and whether anybody else has worked on it since we left.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::RecoveryError;
use super::life::CleanMarker;
use super::read_text_blocking;
use crate::disk::directories::{
    DataDirectory, read_meta_properties_blocking, remove_file_blocking, write_meta_properties_blocking, write_small_file_blocking,
};
use crate::log::directory_files::{MetaProperties, encode_uuid};
use crate::log::file_names::{CLEAN_SHUTDOWN, META_PROPERTIES, PartitionDirectory};
use crate::rt;
use crate::rt::file::{create_directory_blocking, list_directory_blocking, sync_directory_blocking};

/// Names the journals that may hold what this data directory lacks, from a start to the next clean stop.
const JOURNAL_LINK: &str = "corelane-journal";

/// Whose the data directories of a broker are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: i32,
}

/// What lies in a data directory.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Names of partitions' directories.
    pub partitions: BTreeSet<String>,
    /// Directories that wait for their removal (`-delete`), with full paths.
    pub deleted: Vec<PathBuf>,
    /// Replicas under way from another data directory, which go on or go (`moves`), and strays, which are left alone.
    pub others: Vec<PathBuf>,
}

/// Opens all data directories of a broker, makes those that do not exist, and draws the ids that are missing.
///
/// `cluster_id` is what the settings ask for, if they do; otherwise what the directories say, or a new one where all are new.
pub fn open_blocking(paths: &[PathBuf], node_id: i32, cluster_id: Option<&str>) -> Result<(Identity, Vec<DataDirectory>), RecoveryError> {
    let mut found = Vec::new();
    for path in paths {
        create_directory_blocking(path)?;
        found.push(read_meta_properties_blocking(path)?);
    }
    let known_cluster_id = found.iter().flatten().map(|properties| properties.cluster_id.as_str()).next();
    let cluster_id = match cluster_id.or(known_cluster_id) {
        Some(cluster_id) => cluster_id.to_owned(),
        None => encode_uuid(rt::random_uuid()),
    };
    let identity = Identity { cluster_id, node_id };
    // All are looked at before any is written to.
    for (path, properties) in paths.iter().zip(&found) {
        check_owner(path, properties.as_ref(), &identity)?;
    }
    let directories =
        paths.iter().zip(found).map(|(path, properties)| adopt(path, properties, &identity)).collect::<Result<Vec<_>, _>>()?;
    let ids: BTreeSet<Uuid> = directories.iter().map(|directory| directory.id).collect();
    if ids.len() < directories.len() {
        return Err(RecoveryError::SameDirectoryId { paths: paths.to_vec() });
    }
    Ok((identity, directories))
}

fn check_owner(path: &Path, properties: Option<&MetaProperties>, identity: &Identity) -> Result<(), RecoveryError> {
    let refuse = |cause: String| Err(RecoveryError::MetaProperties { path: path.join(META_PROPERTIES), cause });
    match properties {
        Some(other) if other.cluster_id != identity.cluster_id => {
            refuse(format!("it belongs to cluster {}, this broker to {}", other.cluster_id, identity.cluster_id))
        }
        Some(other) if other.node_id != identity.node_id => {
            refuse(format!("it belongs to node {}, this broker is node {}", other.node_id, identity.node_id))
        }
        _ => Ok(()),
    }
}

fn adopt(path: &Path, properties: Option<MetaProperties>, identity: &Identity) -> Result<DataDirectory, RecoveryError> {
    let known = properties.and_then(|properties| properties.directory_id);
    let directory_id = known.unwrap_or_else(rt::random_uuid);
    if known.is_none() {
        let Identity { cluster_id, node_id } = identity.clone();
        let properties = MetaProperties { cluster_id, node_id, directory_id: Some(directory_id) };
        write_meta_properties_blocking(path, &properties)?;
    }
    Ok(DataDirectory { path: path.to_path_buf(), id: directory_id })
}

impl DataDirectory {
    pub fn inventory_blocking(&self) -> Result<Inventory, RecoveryError> {
        let mut inventory = Inventory::default();
        for name in list_directory_blocking(&self.path)? {
            let path = self.path.join(&name);
            match PartitionDirectory::parse(&name) {
                _ if !path.is_dir() => {}
                Some(PartitionDirectory::Live { .. }) => {
                    inventory.partitions.insert(name);
                }
                Some(PartitionDirectory::Deleted) => inventory.deleted.push(path),
                Some(PartitionDirectory::Future | PartitionDirectory::Stray) | None => inventory.others.push(path),
            }
        }
        Ok(inventory)
    }

    /// The clean marker in the directory, whoever wrote it.
    pub fn marker_blocking(&self) -> Option<CleanMarker> {
        let metadata = std::fs::metadata(self.path.join(CLEAN_SHUTDOWN)).ok()?;
        Some(CleanMarker { directory_id: self.id, modified_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() })
    }

    /// The set of journals that may hold what this directory lacks, and where it was.
    pub fn journal_link_blocking(&self) -> Result<Option<(Uuid, PathBuf)>, RecoveryError> {
        let path = self.path.join(JOURNAL_LINK);
        let Some(text) = read_text_blocking(&path)? else { return Ok(None) };
        let link = text.trim_end().split_once(' ').and_then(|(id, directory)| Some((id.parse().ok()?, PathBuf::from(directory))));
        link.map(Some).ok_or(RecoveryError::LifeDamaged { path })
    }

    pub fn link_journals_blocking(&self, set_id: Uuid, journal_directory: &Path) -> Result<(), RecoveryError> {
        if self.journal_link_blocking()?.is_some_and(|(id, directory)| id == set_id && directory == journal_directory) {
            return Ok(());
        }
        let text = format!("{set_id} {}\n", journal_directory.display());
        Ok(write_small_file_blocking(&self.path, JOURNAL_LINK, &text)?)
    }

    pub fn unlink_journals_blocking(&self) -> Result<(), RecoveryError> {
        remove_file_blocking(&self.path.join(JOURNAL_LINK))?;
        Ok(sync_directory_blocking(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::directories::write_clean_shutdown_blocking;

    #[test]
    fn new_directories_get_an_identity_that_they_keep() {
        let parent = tempfile::tempdir().unwrap();
        let paths = [parent.path().join("a"), parent.path().join("b")];
        let (identity, directories) = open_blocking(&paths[..1], 1, None).unwrap();
        let (again, both) = open_blocking(&paths, 1, None).unwrap();
        assert_eq!((&again, &both[0]), (&identity, &directories[0]));
        assert_ne!(both[1].id, both[0].id);
        assert_eq!(open_blocking(&paths, 1, Some(&identity.cluster_id)).unwrap().1, both);
    }

    #[test]
    fn a_directory_of_another_node_or_cluster_is_refused_untouched() {
        let parent = tempfile::tempdir().unwrap();
        let paths = [parent.path().join("a"), parent.path().join("new")];
        open_blocking(&paths[..1], 1, None).unwrap();
        for (node_id, cluster_id) in [(2, None), (1, Some("another"))] {
            let error = open_blocking(&paths, node_id, cluster_id).unwrap_err();
            assert!(matches!(&error, RecoveryError::MetaProperties { path, .. } if path.starts_with(&paths[0])), "{error}");
            assert!(list_directory_blocking(&paths[1]).unwrap().is_empty());
        }
    }

    #[test]
    fn two_copies_of_one_directory_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let paths = [parent.path().join("a"), parent.path().join("copy")];
        open_blocking(&paths[..1], 1, None).unwrap();
        std::fs::create_dir(&paths[1]).unwrap();
        std::fs::copy(paths[0].join(META_PROPERTIES), paths[1].join(META_PROPERTIES)).unwrap();
        assert!(matches!(open_blocking(&paths, 1, None), Err(RecoveryError::SameDirectoryId { .. })));
    }

    #[test]
    fn links_and_markers_come_and_go() {
        let parent = tempfile::tempdir().unwrap();
        let directory = open_blocking(&[parent.path().join("a")], 1, None).unwrap().1.remove(0);
        let set_id = Uuid::from_u128(5);
        assert_eq!(directory.journal_link_blocking().unwrap(), None);
        directory.link_journals_blocking(set_id, Path::new("/fast device/j")).unwrap();
        assert_eq!(directory.journal_link_blocking().unwrap(), Some((set_id, PathBuf::from("/fast device/j"))));
        directory.unlink_journals_blocking().unwrap();
        directory.unlink_journals_blocking().unwrap();
        assert_eq!(directory.journal_link_blocking().unwrap(), None);

        assert_eq!(directory.marker_blocking(), None);
        write_clean_shutdown_blocking(&directory.path, Vec::new(), -1).unwrap();
        assert!(directory.marker_blocking().is_some_and(|marker| marker.directory_id == directory.id));
    }
}
