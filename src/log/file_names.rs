//! How Kafka names the files and directories of a log. Offsets have twenty digits, so that names sort as the offsets do.

/// The files that belong to a segment, or to an offset of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogFileKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    /// Producer state as of the offset in its name.
    ProducerSnapshot,
}

pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
pub const PARTITION_METADATA: &str = "partition.metadata";
pub const META_PROPERTIES: &str = "meta.properties";
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub const RECOVERY_POINT_CHECKPOINT: &str = "recovery-point-offset-checkpoint";
pub const LOG_START_CHECKPOINT: &str = "log-start-offset-checkpoint";
pub const REPLICATION_CHECKPOINT: &str = "replication-offset-checkpoint";
pub const CLEANER_CHECKPOINT: &str = "cleaner-offset-checkpoint";

/// A file that is to be removed soon; Kafka removes any that it finds.
pub const DELETED_SUFFIX: &str = ".deleted";
/// Compaction's output, not yet whole.
pub const CLEANED_SUFFIX: &str = ".cleaned";
/// Compaction's output, whole, about to take its segments' place.
pub const SWAP_SUFFIX: &str = ".swap";

const DELETED_DIRECTORY_SUFFIX: &str = "-delete";
const FUTURE_DIRECTORY_SUFFIX: &str = "-future";
const STRAY_DIRECTORY_SUFFIX: &str = "-stray";
/// The longest name that common filesystems take.
const NAME_BYTES_MAX: usize = 255;

impl LogFileKind {
    pub const ALL: [LogFileKind; 5] = [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TransactionIndex, Self::ProducerSnapshot];

    pub const fn extension(self) -> &'static str {
        match self {
            LogFileKind::Log => "log",
            LogFileKind::OffsetIndex => "index",
            LogFileKind::TimeIndex => "timeindex",
            LogFileKind::TransactionIndex => "txnindex",
            LogFileKind::ProducerSnapshot => "snapshot",
        }
    }

    /// `00000000000000000120.log`
    pub fn name(self, offset: i64) -> String {
        format!("{offset:020}.{}", self.extension())
    }

    /// The inverse of `name`; none for any other file.
    pub fn parse(name: &str) -> Option<(LogFileKind, i64)> {
        let (digits, extension) = name.split_once('.')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some((kind, digits.parse().ok()?))
    }

    /// As `parse`, for a file that bears `suffix` behind its name.
    pub fn parse_with_suffix(name: &str, suffix: &str) -> Option<(LogFileKind, i64)> {
        Self::parse(name.strip_suffix(suffix)?)
    }
}

/// What a directory within a data directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionDirectory {
    /// `orders-3`
    Live {
        topic: String,
        partition: i32,
    },
    /// `orders-3.<32 hexadecimal digits>-delete`: a deleted partition whose files are still being removed.
    Deleted,
    /// A replica that was being moved from another data directory (`-future`), or one that the cluster knows nothing of (`-stray`).
    Future,
    Stray,
}

impl PartitionDirectory {
    /// None for a name that Kafka would not give; it refuses to start on such a directory.
    pub fn parse(name: &str) -> Option<PartitionDirectory> {
        for (suffix, directory) in [
            (DELETED_DIRECTORY_SUFFIX, PartitionDirectory::Deleted),
            (FUTURE_DIRECTORY_SUFFIX, PartitionDirectory::Future),
            (STRAY_DIRECTORY_SUFFIX, PartitionDirectory::Stray),
        ] {
            if let Some(rest) = name.strip_suffix(suffix)
                && let Some((live, unique)) = rest.rsplit_once('.')
                && unique.len() == 32
                && unique.bytes().all(|byte| byte.is_ascii_hexdigit())
            {
                return split_topic_partition(live).map(|_| directory);
            }
        }
        let (topic, partition) = split_topic_partition(name)?;
        Some(PartitionDirectory::Live { topic: topic.to_owned(), partition })
    }
}

fn split_topic_partition(name: &str) -> Option<(&str, i32)> {
    let (topic, digits) = name.rsplit_once('-')?;
    let partition = digits.parse().ok().filter(|&partition: &i32| partition >= 0)?;
    (!topic.is_empty()).then_some((topic, partition))
}

/// `orders-3`
pub fn partition_directory(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// The name of the directory in which a replica is copied that moves to another data directory. Kafka refuses to move one whose name would be too long (`is_movable`).
pub fn future_directory(topic: &str, partition: i32, unique: uuid::Uuid) -> String {
    format!("{topic}-{partition}.{}{FUTURE_DIRECTORY_SUFFIX}", unique.simple())
}

/// Whether the name of such a directory is a file name.
pub fn is_movable(topic: &str, partition: i32) -> bool {
    future_directory(topic, partition, uuid::Uuid::nil()).len() <= NAME_BYTES_MAX
}

/// The name of the partition that a future directory is of; none for any other name.
pub fn future_of(name: &str) -> Option<&str> {
    let is_future = PartitionDirectory::parse(name) == Some(PartitionDirectory::Future);
    let (live, _unique) = name.rsplit_once('.').filter(|_| is_future)?;
    Some(live)
}

/// The name under which a deleted partition's directory waits for its removal. A long topic name is cut so that the whole remains a file name.
pub fn deleted_directory(topic: &str, partition: i32, unique: uuid::Uuid) -> String {
    let suffix = format!("-{partition}.{}{DELETED_DIRECTORY_SUFFIX}", unique.simple());
    // Topic names are ASCII (Kafka's rule), so any byte is a border.
    let topic = &topic[..topic.len().min(NAME_BYTES_MAX - suffix.len())];
    format!("{topic}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_files_have_twenty_digits() {
        assert_eq!(LogFileKind::Log.name(120), "00000000000000000120.log");
        assert_eq!(LogFileKind::parse("00000000000000000120.timeindex"), Some((LogFileKind::TimeIndex, 120)));
        for other in ["leader-epoch-checkpoint", "00000000000000000120.log.deleted", ".log", "x.log", "-1.log", "partition.metadata"] {
            assert_eq!(LogFileKind::parse(other), None, "{other}");
        }
    }

    #[test]
    fn directories_are_told_apart_by_their_suffix() {
        let live = |topic: &str, partition| Some(PartitionDirectory::Live { topic: topic.into(), partition });
        assert_eq!(PartitionDirectory::parse("orders-3"), live("orders", 3));
        assert_eq!(PartitionDirectory::parse("a-b.c-0"), live("a-b.c", 0));
        assert_eq!(PartitionDirectory::parse("orders"), None);
        assert_eq!(PartitionDirectory::parse("orders-x"), None);
        assert_eq!(PartitionDirectory::parse("-1"), None);

        let unique = uuid::Uuid::from_u128(0xab);
        assert_eq!(deleted_directory("orders", 3, unique), "orders-3.000000000000000000000000000000ab-delete");
        let future = future_directory("orders", 3, unique);
        assert_eq!((future.as_str(), future_of(&future)), ("orders-3.000000000000000000000000000000ab-future", Some("orders-3")));
        assert_eq!((future_of("orders-3"), is_movable("orders", 3)), (None, true));
        assert!(is_movable(&"t".repeat(213), 3) && !is_movable(&"t".repeat(214), 3));
        let long = deleted_directory(&"t".repeat(249), 99_999, unique);
        assert_eq!(long.len(), 255);
        assert_eq!(PartitionDirectory::parse(&long), Some(PartitionDirectory::Deleted));
    }
}
