//! Why a start cannot go on: each says which file, what is wrong with it, and what a person can do. Nothing was changed that a later start would miss.

use std::fmt;
use std::path::PathBuf;

use uuid::Uuid;

use crate::cluster::TopicIdPartition;
use crate::disk::directories::DirectoryError;
use crate::disk::journal::file::RingFileError;
use crate::disk::journal::replay::ReplayError;
use crate::rt::file::FileError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A file could not be read or written.
    File(FileError),
    /// A journal is damaged as a file.
    Ring(RingFileError),
    /// `meta.properties` or another small file of Kafka's is malformed, or says that the directory is not ours.
    MetaProperties { path: PathBuf, cause: String },
    /// Two data directories bear the same id: one is a copy of the other.
    SameDirectoryId { paths: Vec<PathBuf> },
    /// The file that names the journals of the last life, or a data directory's link to it, is damaged.
    LifeDamaged { path: PathBuf },
    /// There are journals, but not the file that says which of their content counts.
    LifeMissing { path: PathBuf, cause: String },
    /// A data directory was last used with journals elsewhere, and not stopped cleanly: they hold records that it lacks.
    JournalsElsewhere { data_directory: PathBuf, journal_directory: PathBuf, searched: PathBuf },
    /// The journal of a shard is missing, or another was put in its place.
    RingReplaced { path: PathBuf },
    /// Neither checkpoint of a shard is whole.
    CheckpointMissing { paths: [PathBuf; 2] },
    /// A journal lacks what was acknowledged.
    Replay { path: PathBuf, error: ReplayError },
    /// An entry of a journal does not follow from what is there.
    Mismatch { path: PathBuf, partition: TopicIdPartition, name: String, cause: String },
    /// A partition lies in a data directory that is not among the configured ones, or its directory is gone.
    DirectoryMissing { partition: TopicIdPartition, name: String, directory_id: Uuid },
    /// A segment's file is shorter than what was flushed into it.
    SegmentShort { path: PathBuf, expected: u64, actual: u64 },
    /// A segment's file is longer than any segment may be.
    SegmentLong { path: PathBuf, actual: u64 },
    /// Another broker has used the data directory since we stopped, while our journals still held records for it.
    UsedByAnother { path: PathBuf },
}

impl From<FileError> for RecoveryError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<DirectoryError> for RecoveryError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::File(error) => Self::File(error),
            DirectoryError::Content { path, cause } => Self::MetaProperties { path, cause: cause.to_string() },
            DirectoryError::OtherTopic { path, found, .. } => {
                Self::MetaProperties { path, cause: format!("it belongs to topic id {found}") }
            }
        }
    }
}

impl From<RingFileError> for RecoveryError {
    fn from(error: RingFileError) -> Self {
        Self::Ring(error)
    }
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(formatter),
            Self::Ring(error) => error.fmt(formatter),
            Self::MetaProperties { path, cause } => write!(formatter, "{}: {cause}", path.display()),
            Self::SameDirectoryId { paths } => {
                let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                write!(formatter, "two of the data directories {} have the same directory.id: one is a copy of the other", paths.join(", "))
            }
            Self::LifeDamaged { path } => write!(formatter, "{} is damaged; restore it before a start", path.display()),
            Self::LifeMissing { path, cause } => write!(
                formatter,
                "{} is missing, and {cause}. Restore it; if what was written last may be lost, move the files whose names begin with corelane- away, \
                 here and in every data directory",
                path.display()
            ),
            Self::JournalsElsewhere { data_directory, journal_directory, searched } => write!(
                formatter,
                "{} was not stopped cleanly and its latest records are in the journals in {}, not in {}: set journal.dir back for one start",
                data_directory.display(),
                journal_directory.display(),
                searched.display()
            ),
            Self::RingReplaced { path } => {
                write!(
                    formatter,
                    "{} is missing or is not the journal of the last run; the latest records are in the one that was",
                    path.display()
                )
            }
            Self::CheckpointMissing { paths: [first, second] } => {
                write!(formatter, "neither {} nor {} holds a whole checkpoint of the last run", first.display(), second.display())
            }
            Self::Replay { path, error } => write!(formatter, "{}: {error}", path.display()),
            Self::Mismatch { path, partition, name, cause } => {
                write!(formatter, "{}: partition {name} ({partition}): {cause}", path.display())
            }
            Self::DirectoryMissing { partition, name, directory_id } => write!(
                formatter,
                "partition {name} ({partition}) lies in the data directory with id {directory_id}, where it is not found: check log.dirs"
            ),
            Self::SegmentShort { path, expected, actual } => {
                write!(formatter, "{} has {actual} bytes, though {expected} were flushed into it", path.display())
            }
            Self::SegmentLong { path, actual } => write!(formatter, "{} has {actual} bytes, more than a segment may have", path.display()),
            Self::UsedByAnother { path } => write!(
                formatter,
                "{} was used by another broker after this one had stopped without placing all records; they cannot be put together any more",
                path.display()
            ),
        }
    }
}

impl std::error::Error for RecoveryError {}
