//! Data directories and the directories of partitions in them: made, found, retired, and the small files that describe them.
//!
//! Everything here blocks: it runs before the shards start, or on a helper thread (`rt::blocking`). What must outlive a power failure is flushed, file first, then the directory
//! that names it. Layout and names are Kafka's (log::file_names), so that either broker opens what the other left.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::log::checkpoint_file;
use crate::log::directory_files::{self, DirectoryFileError, MetaProperties};
use crate::log::file_names::{
    CLEAN_SHUTDOWN, CLEANER_CHECKPOINT, LOG_START_CHECKPOINT, META_PROPERTIES, PARTITION_METADATA, PartitionDirectory,
    RECOVERY_POINT_CHECKPOINT, REPLICATION_CHECKPOINT, deleted_directory, partition_directory,
};
use crate::rt::file::{
    Durability, File, FileError, OpenMode, create_directory_blocking, list_directory_blocking, remove_blocking, rename_blocking,
    sync_directory_blocking,
};

/// One of the broker's data directories (`log.dirs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirectory {
    /// `directory.id` of its meta.properties: survives a change of the mount point.
    pub id: Uuid,
    pub path: PathBuf,
}

/// A directory whose content cannot be used as it is; a person has to look.
#[derive(Debug)]
pub enum DirectoryError {
    File(FileError),
    /// One of the small files says what we cannot read.
    Content {
        path: PathBuf,
        cause: DirectoryFileError,
    },
    /// The partition's directory belongs to another topic of that name.
    OtherTopic {
        path: PathBuf,
        found: Uuid,
        expected: Uuid,
    },
}

impl std::fmt::Display for DirectoryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DirectoryError::File(error) => error.fmt(formatter),
            DirectoryError::Content { path, cause } => write!(formatter, "{}: {cause}", path.display()),
            DirectoryError::OtherTopic { path, found, expected } => {
                write!(formatter, "{} belongs to topic id {found}, not to {expected}", path.display())
            }
        }
    }
}

impl std::error::Error for DirectoryError {}

impl From<FileError> for DirectoryError {
    fn from(error: FileError) -> Self {
        DirectoryError::File(error)
    }
}

type Result<T> = std::result::Result<T, DirectoryError>;

/// A partition's directory as a walk through a data directory finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    pub topic: String,
    pub partition: i32,
    pub path: PathBuf,
    /// From its partition.metadata; None if it has none yet.
    pub topic_id: Option<Uuid>,
}

/// All subdirectories of a data directory, by what their names say.
#[derive(Debug, Default)]
pub struct FoundDirectories {
    pub partitions: Vec<FoundPartition>,
    /// Deleted partitions whose files are still to be removed.
    pub retired: Vec<PathBuf>,
    /// Directories that Kafka would not know either, and moves between data directories that were not finished.
    pub others: Vec<PathBuf>,
}

/// What meta.properties says; None in a directory that has none.
pub fn read_meta_properties_blocking(directory: &Path) -> Result<Option<MetaProperties>> {
    read_small_file(&directory.join(META_PROPERTIES), MetaProperties::decode)
}

pub fn write_meta_properties_blocking(directory: &Path, properties: &MetaProperties) -> Result<()> {
    write_small_file_blocking(directory, META_PROPERTIES, &properties.encode())
}

/// Walks through a data directory. Plain files in it are nobody's business here.
pub fn find_partitions_blocking(directory: &Path) -> Result<FoundDirectories> {
    let mut found = FoundDirectories::default();
    for name in list_directory_blocking(directory)? {
        let path = directory.join(&name);
        if !path.is_dir() {
            continue;
        }
        match PartitionDirectory::parse(&name) {
            Some(PartitionDirectory::Live { topic, partition }) => {
                let topic_id = read_small_file(&path.join(PARTITION_METADATA), directory_files::decode_partition_metadata)?;
                found.partitions.push(FoundPartition { topic, partition, path, topic_id });
            }
            Some(PartitionDirectory::Deleted) => found.retired.push(path),
            Some(PartitionDirectory::Future | PartitionDirectory::Stray) | None => found.others.push(path),
        }
    }
    Ok(found)
}

/// Makes a partition's directory and says in it whose it is. An existing one of the same topic id is taken as it is, so that an interrupted creation can be repeated.
pub fn create_partition_blocking(directory: &Path, topic: &str, partition: i32, topic_id: Uuid) -> Result<PathBuf> {
    let path = directory.join(partition_directory(topic, partition));
    match read_small_file(&path.join(PARTITION_METADATA), directory_files::decode_partition_metadata)? {
        Some(found) if found == topic_id => return Ok(path),
        Some(found) => return Err(DirectoryError::OtherTopic { path, found, expected: topic_id }),
        None => create_directory_blocking(&path)?,
    }
    write_partition_metadata_blocking(&path, topic_id)?;
    sync_directory_blocking(directory)?;
    Ok(path)
}

/// Says in a partition's directory whose it is.
pub fn write_partition_metadata_blocking(path: &Path, topic_id: Uuid) -> Result<()> {
    write_small_file_blocking(path, PARTITION_METADATA, &directory_files::encode_partition_metadata(topic_id))
}

/// Whose a partition's directory is; None where it does not say.
pub fn read_partition_metadata_blocking(path: &Path) -> Result<Option<Uuid>> {
    read_small_file(&path.join(PARTITION_METADATA), directory_files::decode_partition_metadata)
}

/// Gives the directory of a deleted partition a name that marks it so, whatever else happens. Returns the new path; its files may be removed at leisure.
pub fn retire_partition_blocking(path: &Path, topic: &str, partition: i32) -> Result<PathBuf> {
    let parent = path.parent().expect("a partition's directory lies in a data directory");
    let retired = parent.join(deleted_directory(topic, partition, crate::rt::random_uuid()));
    rename_blocking(path, &retired)?;
    sync_directory_blocking(parent)?;
    Ok(retired)
}

/// Removes a file; one that is gone already is fine.
pub fn remove_file_blocking(path: &Path) -> Result<()> {
    match remove_blocking(path) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Where a partition stands at a clean stop, for the checkpoints that Kafka reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanEnd {
    pub topic: String,
    pub partition: i32,
    pub log_start_offset: i64,
    pub log_end_offset: i64,
    pub high_watermark: i64,
    /// Up to where compaction has been through it.
    pub cleaned_to: Option<i64>,
}

/// Says that everything in this data directory is in its files and flushed: Kafka's four checkpoints, then the marker. `ends` are those of all shards, sorted here.
pub fn write_clean_shutdown_blocking(directory: &Path, mut ends: Vec<CleanEnd>, broker_epoch: i64) -> Result<()> {
    ends.sort_unstable_by(|left, right| (&left.topic, left.partition).cmp(&(&right.topic, right.partition)));
    let checkpoint = |name: &str, offset: fn(&CleanEnd) -> i64| {
        let text = checkpoint_file::encode_offsets(ends.iter().map(|end| (end.topic.as_str(), end.partition, offset(end))));
        write_small_file_blocking(directory, name, &text)
    };
    checkpoint(RECOVERY_POINT_CHECKPOINT, |end| end.log_end_offset)?;
    checkpoint(REPLICATION_CHECKPOINT, |end| end.high_watermark)?;
    // Kafka lists only logs whose start differs from their first segment's; more is allowed.
    checkpoint(LOG_START_CHECKPOINT, |end| end.log_start_offset)?;
    let cleaned: Vec<_> = ends.iter().filter_map(|end| Some((end.topic.as_str(), end.partition, end.cleaned_to?))).collect();
    write_small_file_blocking(directory, CLEANER_CHECKPOINT, &checkpoint_file::encode_offsets(cleaned.into_iter()))?;
    write_small_file_blocking(directory, CLEAN_SHUTDOWN, &directory_files::encode_clean_shutdown(broker_epoch))
}

/// To be called before the first write after a start: from then on the marker would lie. Returns whether there was one.
pub fn forget_clean_shutdown_blocking(directory: &Path) -> Result<bool> {
    let marker = directory.join(CLEAN_SHUTDOWN);
    if !marker.exists() {
        return Ok(false);
    }
    remove_file_blocking(&marker)?;
    sync_directory_blocking(directory)?;
    Ok(true)
}

/// Puts `text` in the place of the file in one step: a reader finds the old content or the new one, and the new one is on stable storage when this returns.
pub fn write_small_file_blocking(directory: &Path, name: &str, text: &str) -> Result<()> {
    replace_file(directory, name, text.as_bytes(), true)
}

/// As `write_small_file_blocking` for what can be made again from the log: nothing is flushed.
pub fn write_hint_blocking(directory: &Path, name: &str, content: &[u8]) -> Result<()> {
    replace_file(directory, name, content, false)
}

fn replace_file(directory: &Path, name: &str, content: &[u8], flush: bool) -> Result<()> {
    let (path, temporary) = (directory.join(name), directory.join(format!("{name}.tmp")));
    let file = File::open_blocking(&temporary, OpenMode { truncate: true, ..OpenMode::CREATE })?;
    file.write_at_blocking(content, 0, Durability::None)?;
    if flush {
        file.sync_all_blocking()?;
    }
    rename_blocking(&temporary, &path)?;
    if flush {
        sync_directory_blocking(directory)?;
    }
    Ok(())
}

fn read_small_file<T>(path: &Path, decode: impl Fn(&str) -> std::result::Result<T, DirectoryFileError>) -> Result<Option<T>> {
    let file = match File::open_blocking(path, OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = file.read_at_blocking(file.length()? as usize, 0)?;
    decode(&String::from_utf8_lossy(&bytes)).map(Some).map_err(|cause| DirectoryError::Content { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_made_found_and_retired() {
        let directory = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(9);
        let path = create_partition_blocking(directory.path(), "orders", 3, id).unwrap();
        assert_eq!(create_partition_blocking(directory.path(), "orders", 3, id).unwrap(), path, "again is fine");
        let other = create_partition_blocking(directory.path(), "orders", 3, Uuid::from_u128(1));
        assert!(matches!(other, Err(DirectoryError::OtherTopic { .. })));
        std::fs::create_dir(directory.path().join("lost+found")).unwrap();
        std::fs::write(directory.path().join("a-plain-file-0"), "x").unwrap();

        let found = find_partitions_blocking(directory.path()).unwrap();
        let expected = FoundPartition { topic: "orders".into(), partition: 3, path: path.clone(), topic_id: Some(id) };
        assert_eq!((found.partitions, found.retired.len(), found.others.len()), (vec![expected], 0, 1));

        let retired = retire_partition_blocking(&path, "orders", 3).unwrap();
        assert_eq!(find_partitions_blocking(directory.path()).unwrap().retired, std::slice::from_ref(&retired));
    }

    #[test]
    fn a_clean_stop_leaves_kafkas_checkpoints_and_marker() {
        let directory = tempfile::tempdir().unwrap();
        let end = |topic: &str, partition| CleanEnd {
            topic: topic.into(),
            partition,
            log_start_offset: 1,
            log_end_offset: 3,
            high_watermark: 2,
            cleaned_to: (partition == 9).then_some(2),
        };
        write_clean_shutdown_blocking(directory.path(), vec![end("b", 0), end("a", 10), end("a", 9)], 5).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("recovery-point-offset-checkpoint"), "0\n3\na 9 3\na 10 3\nb 0 3\n");
        assert_eq!(read("replication-offset-checkpoint"), "0\n3\na 9 2\na 10 2\nb 0 2\n");
        assert_eq!(read("log-start-offset-checkpoint"), "0\n3\na 9 1\na 10 1\nb 0 1\n");
        assert_eq!(read("cleaner-offset-checkpoint"), "0\n1\na 9 2\n");
        assert_eq!(read(".kafka_cleanshutdown"), "{\"version\":0,\"brokerEpoch\":5}");
        assert!(forget_clean_shutdown_blocking(directory.path()).unwrap());
        assert!(!forget_clean_shutdown_blocking(directory.path()).unwrap());
    }

    #[test]
    fn meta_properties_come_back() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_meta_properties_blocking(directory.path()).unwrap(), None);
        let properties = MetaProperties { cluster_id: "c".into(), node_id: 1, directory_id: Some(Uuid::from_u128(3)) };
        write_meta_properties_blocking(directory.path(), &properties).unwrap();
        assert_eq!(read_meta_properties_blocking(directory.path()).unwrap(), Some(properties));
        std::fs::write(directory.path().join("meta.properties"), "version=7\n").unwrap();
        assert!(matches!(read_meta_properties_blocking(directory.path()), Err(DirectoryError::Content { .. })));
    }
}
