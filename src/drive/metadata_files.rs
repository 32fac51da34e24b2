//! The small files beside the metadata log: the quorum's state, snapshots, and what a formatter leaves for the first start.
//!
//! They lie in `__cluster_metadata-0`, whose log is an ordinary partition of shard 0. Calls named `_blocking` run before the shards start or on a helper thread.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::unserved_groups::reasons_against_groups_blocking;
use crate::cluster::Image;
use crate::cluster::MetadataRecord;
use crate::cluster::decide::start::unservable;
use crate::cluster::kraft::control::Voter;
use crate::cluster::kraft::quorum_state::{QuorumState, QuorumStateError};
use crate::cluster::kraft::replay::{Replay, ReplayError, Replayed};
use crate::cluster::kraft::snapshot::{PARTIAL_SUFFIX, QuorumFacts, SnapshotContent, SnapshotError, SnapshotId, read_snapshot};
use crate::disk::directories::{DataDirectory, DirectoryError, write_small_file_blocking};
use crate::disk::recovery::RecoveredPartition;
use crate::log::file_names::{LogFileKind, PARTITION_METADATA};
use crate::rt;
use crate::rt::file::{
    Durability, File, FileError, OpenMode, create_directory_blocking, list_directory_blocking, remove, remove_blocking, rename,
    sync_directory, sync_directory_blocking,
};

/// The directory of the metadata log below `metadata.log.dir`.
pub const METADATA_DIRECTORY: &str = "__cluster_metadata-0";
const QUORUM_STATE: &str = "quorum-state";
/// Where formatters before Kafka 4.2 left the records of the first start, beside the directory of the metadata log.
const BOOTSTRAP_CHECKPOINT: &str = "bootstrap.checkpoint";
const LOG_SUFFIX: &str = ".log";
/// Snapshots that are kept besides the formatter's: one more than needed, for the day on which the newest cannot be read.
const SNAPSHOTS_KEPT: usize = 2;

/// The files of one metadata log.
#[derive(Clone, Debug)]
pub struct MetadataFiles {
    /// `metadata.log.dir`.
    parent: PathBuf,
    directory: PathBuf,
}

/// Where a replay begins.
#[derive(Debug, Default)]
pub struct StartingPoint {
    /// The newest snapshot that can be read.
    pub snapshot: Option<(SnapshotId, SnapshotContent)>,
    /// Records with which an empty log shall begin, as a formatter left them.
    pub bootstrap: Vec<MetadataRecord>,
    /// What elections left; none before the first.
    pub quorum_state: Option<QuorumState>,
}

impl MetadataFiles {
    /// `parent` is `metadata.log.dir`, by default the first data directory.
    pub fn new(parent: &Path) -> Self {
        Self { parent: parent.to_owned(), directory: parent.join(METADATA_DIRECTORY) }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the quorum's state and the newest snapshot. A snapshot that cannot be read is passed over with a warning: an older one or the log itself holds what it held. The
    /// formatter's is not, because nothing else says what is in it.
    pub fn read_start_blocking(&self) -> Result<StartingPoint, MetadataFilesError> {
        let mut start = StartingPoint::default();
        if let Some(bytes) = read_file_blocking(&self.directory.join(QUORUM_STATE))? {
            start.quorum_state = Some(QuorumState::decode(&String::from_utf8_lossy(&bytes))?);
        }
        for id in self.snapshots_blocking()?.into_iter().rev() {
            let path = self.directory.join(id.file_name());
            match read_snapshot(read_file_blocking(&path)?.unwrap_or_default()) {
                Ok(content) if id == SnapshotId::BOOTSTRAP => {
                    start.bootstrap = content.records.clone();
                    start.snapshot.get_or_insert((id, content));
                }
                Ok(content) => drop(start.snapshot.get_or_insert((id, content))),
                Err(error) if id == SnapshotId::BOOTSTRAP => return Err(MetadataFilesError::Snapshot { path, error }),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a metadata snapshot cannot be read"),
            }
        }
        if start.bootstrap.is_empty()
            && let Some(bytes) = read_file_blocking(&self.parent.join(BOOTSTRAP_CHECKPOINT))?
        {
            let path = self.parent.join(BOOTSTRAP_CHECKPOINT);
            start.bootstrap = read_snapshot(bytes).map_err(|error| MetadataFilesError::Snapshot { path, error })?.records;
        }
        Ok(start)
    }

    /// Ids of all snapshots, oldest first.
    fn snapshots_blocking(&self) -> Result<Vec<SnapshotId>, MetadataFilesError> {
        let names = match list_directory_blocking(&self.directory) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            names => names?,
        };
        let mut ids: Vec<SnapshotId> = names.iter().filter_map(|name| SnapshotId::from_file_name(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes what an earlier life did not finish writing.
    pub fn remove_partial_blocking(&self) -> Result<(), MetadataFilesError> {
        let names = match list_directory_blocking(&self.directory) {
            Err(error) if error.is_not_found() => return Ok(()),
            names => names?,
        };
        for name in names.iter().filter(|name| name.ends_with(PARTIAL_SUFFIX)) {
            remove_blocking(self.directory.join(name))?;
        }
        Ok(())
    }

    /// Replaces the quorum's state; durable when this returns.
    pub fn write_quorum_state_blocking(&self, state: &QuorumState) -> Result<(), MetadataFilesError> {
        self.make_directory_blocking()?;
        Ok(write_small_file_blocking(&self.directory, QUORUM_STATE, &state.encode())?)
    }

    fn make_directory_blocking(&self) -> Result<(), MetadataFilesError> {
        if !self.directory.exists() {
            create_directory_blocking(&self.directory)?;
            sync_directory_blocking(&self.parent)?;
        }
        Ok(())
    }

    /// Writes a snapshot, gives way between its batches, and lets go of old ones. The file has its name only once it is whole and on stable storage.
    pub async fn write_snapshot(
        &self,
        id: SnapshotId,
        batches: impl Iterator<Item = Result<Bytes, crate::wire::EncodeError>>,
    ) -> Result<u64, MetadataFilesError> {
        let partial = self.directory.join(id.partial_file_name());
        let file = File::open(&partial, OpenMode { truncate: true, ..OpenMode::CREATE }).await?;
        let mut position = 0;
        for batch in batches {
            let batch = batch.expect("what was read or decided can be written in the level that is finalised");
            let length = batch.len() as u64;
            file.write_at(batch, position, Durability::None).await?;
            position += length;
            rt::yield_now().await;
        }
        file.sync_all().await?;
        rename(&partial, self.directory.join(id.file_name())).await?;
        sync_directory(&self.directory).await?;
        self.remove_old_snapshots().await?;
        Ok(position)
    }

    /// The log still holds all that they hold.
    async fn remove_old_snapshots(&self) -> Result<(), MetadataFilesError> {
        let files = self.clone();
        let ids = rt::blocking(move || files.snapshots_blocking()).await?;
        let replaced: Vec<SnapshotId> = ids.into_iter().filter(|id| *id != SnapshotId::BOOTSTRAP).rev().skip(SNAPSHOTS_KEPT).collect();
        for id in replaced {
            remove(self.directory.join(id.file_name())).await?;
        }
        Ok(())
    }
}

/// Whether this node can serve what a metadata log holds, looked at before anything is written: a directory that we cannot serve stays as it is.
///
/// Reads the segment files themselves. What a journal of ours still holds beyond them was decided by us, so that it needs no looking at; a last batch that is cut off is not
/// there yet.
pub fn inspect_blocking(parent: &Path, node_id: i32, directories: &[DataDirectory]) -> Result<(), StartRefused> {
    let (paths, ids): (Vec<PathBuf>, Vec<uuid::Uuid>) = directories.iter().map(|directory| (directory.path.clone(), directory.id)).unzip();
    let (_, reasons) = look_blocking(parent, node_id, &ids, &paths)?;
    if reasons.is_empty() { Ok(()) } else { Err(StartRefused::Unservable(reasons)) }
}

/// Whether the log's files are as recovery knows them, as far as a replay reads them; `recovered` is none if recovery has found no metadata log. Without these records nobody knows which
/// topics there are, so a log that has lost some is not begun anew.
pub fn check_log_blocking(parent: &Path, recovered: Option<&RecoveredPartition>) -> Result<(), StartRefused> {
    let files = MetadataFiles::new(parent);
    let Some(log) = recovered else {
        let unnamed = segments_from_blocking(files.directory(), 0)?.into_iter().next();
        return unnamed.map_or(Ok(()), |path| Err(StartRefused::LogFile { path, cause: format!("has no {PARTITION_METADATA} beside it") }));
    };
    let replayed_from = begin_replay(&files.read_start_blocking()?)?.next_offset();
    let ends = log.facts.segments.iter().skip(1).map(|later| later.base_offset).chain([log.facts.end_offset]);
    for (book, end_offset) in log.facts.segments.iter().zip(ends) {
        let path = log.directory.join(LogFileKind::Log.name(book.base_offset));
        let length = match File::open_blocking(&path, OpenMode::READ) {
            Err(error) if error.is_not_found() => None,
            file => Some(file?.length()?),
        };
        let is_needed = end_offset > replayed_from && book.size_bytes > 0;
        if is_needed && length.is_none_or(|length| length < u64::from(book.size_bytes)) {
            let is = length.map_or("is missing".into(), |length| format!("has {length} bytes"));
            return Err(StartRefused::LogFile { path, cause: format!("{is}, though {} were flushed into it", book.size_bytes) });
        }
    }
    Ok(())
}

/// What a metadata log holds, and every reason why this node cannot serve it.
pub fn look_blocking(
    parent: &Path,
    node_id: i32,
    directory_ids: &[uuid::Uuid],
    directories: &[PathBuf],
) -> Result<(Image, Vec<String>), StartRefused> {
    let files = MetadataFiles::new(parent);
    let start = files.read_start_blocking()?;
    let mut replay = begin_replay(&start)?;
    for segment in segments_from_blocking(files.directory(), replay.next_offset())? {
        let bytes = read_file_blocking(&segment)?.unwrap_or_default();
        let whole = whole_batches(&bytes);
        replay.read(bytes.slice(..whole))?;
    }
    let replayed = replay.finish()?;
    let mut image = replayed.image.clone();
    if image.metadata_version().is_none() {
        // Records of the formatter that the first start will write.
        for record in &start.bootstrap {
            image.apply(record).map_err(|error| StartRefused::Unservable(vec![format!("the formatter's {} {error}", record.name())]))?;
        }
    }
    let mut reasons = reasons_against(&image, &replayed.facts, start.quorum_state.as_ref(), node_id, directory_ids);
    reasons.extend(reasons_against_groups_blocking(&image, directories)?);
    Ok((image, reasons))
}

/// Segment files of the log that may hold `offset` or later ones, oldest first.
pub(super) fn segments_from_blocking(directory: &Path, offset: i64) -> Result<Vec<PathBuf>, MetadataFilesError> {
    let mut names = match list_directory_blocking(directory) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        names => names?,
    };
    names.retain(|name| name.ends_with(LOG_SUFFIX));
    names.sort_unstable();
    let base_offset = |name: &String| name.strip_suffix(LOG_SUFFIX).and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(0);
    let passed = names.iter().skip(1).filter(|name| base_offset(name) <= offset).count();
    Ok(names.into_iter().skip(passed).map(|name| directory.join(name)).collect())
}

/// A whole file; None if there is none.
pub(super) fn read_file_blocking(path: &Path) -> Result<Option<Bytes>, MetadataFilesError> {
    let file = match File::open_blocking(path, OpenMode::READ) {
        Err(error) if error.is_not_found() => return Ok(None),
        file => file?,
    };
    let bytes = file.read_at_blocking(file.length()? as usize, 0)?;
    Ok(Some(bytes.freeze()))
}

/// Bytes of the batches at the front that are whole; behind them lie zeros, or a batch that was being written.
fn whole_batches(bytes: &Bytes) -> usize {
    crate::wire::batch::BatchIterator::new(bytes.clone())
        .map_while(|batch| batch.ok().filter(|(header, batch)| header.check_crc(batch).is_ok()))
        .map(|(_, batch)| batch.len())
        .sum()
}

/// A replay that begins where the files say.
pub(super) fn begin_replay(start: &StartingPoint) -> Result<Replay, ReplayError> {
    match &start.snapshot {
        Some((id, content)) => Replay::from_snapshot(*id, content.clone()),
        None => Ok(Replay::from_start()),
    }
}

/// Whether this node alone is the quorum and the cluster, at levels that it serves.
pub(super) fn check_servable(
    image: &Image,
    facts: &QuorumFacts,
    quorum_state: Option<&QuorumState>,
    node_id: i32,
    directory_ids: &[uuid::Uuid],
) -> Result<(), StartRefused> {
    let reasons = reasons_against(image, facts, quorum_state, node_id, directory_ids);
    if reasons.is_empty() { Ok(()) } else { Err(StartRefused::Unservable(reasons)) }
}

fn reasons_against(
    image: &Image,
    facts: &QuorumFacts,
    quorum_state: Option<&QuorumState>,
    node_id: i32,
    directory_ids: &[uuid::Uuid],
) -> Vec<String> {
    let mut reasons = unservable(image, node_id);
    if !(0..=1).contains(&facts.kraft_version) {
        reasons.push(format!("feature kraft.version is finalised at {}, this broker serves 0 to 1", facts.kraft_version));
    }
    let static_voters = quorum_state.and_then(|state| state.voters.as_deref()).filter(|_| facts.voters.is_none());
    if let Some(voters) = static_voters.filter(|voters| *voters != [node_id]) {
        reasons.push(format!("the quorum's voters are {voters:?}, this node is {node_id}"));
    }
    let is_self = |voter: &Voter| voter.id == node_id && directory_ids.contains(&voter.directory_id);
    if let Some(voters) = facts.voters.as_deref().filter(|voters| voters.len() != 1 || !is_self(&voters[0])) {
        let named: Vec<String> = voters.iter().map(|voter| format!("{} in directory {}", voter.id, voter.directory_id)).collect();
        reasons.push(format!("the quorum's voters are {}, this node is {node_id}", named.join(", ")));
    }
    reasons
}

/// The end of a log that is given out in pieces, with what it adds up to checked.
pub(super) fn finish_replay(
    replay: Replay,
    start: &StartingPoint,
    node_id: i32,
    directory_ids: &[uuid::Uuid],
) -> Result<Replayed, StartRefused> {
    let replayed = replay.finish()?;
    check_servable(&replayed.image, &replayed.facts, start.quorum_state.as_ref(), node_id, directory_ids)?;
    Ok(replayed)
}

/// One of the files cannot be read or written.
#[derive(Debug)]
pub enum MetadataFilesError {
    File(FileError),
    Directory(DirectoryError),
    QuorumState(QuorumStateError),
    Snapshot { path: PathBuf, error: SnapshotError },
}

impl From<FileError> for MetadataFilesError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<DirectoryError> for MetadataFilesError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

impl From<QuorumStateError> for MetadataFilesError {
    fn from(error: QuorumStateError) -> Self {
        Self::QuorumState(error)
    }
}

impl fmt::Display for MetadataFilesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(formatter),
            Self::Directory(error) => error.fmt(formatter),
            Self::QuorumState(error) => error.fmt(formatter),
            Self::Snapshot { path, error } => write!(formatter, "metadata snapshot {} cannot be used: {error}", path.display()),
        }
    }
}

impl std::error::Error for MetadataFilesError {}

/// Why a node does not start on the metadata that it found. Nothing was written unless said otherwise.
#[derive(Debug)]
pub enum StartRefused {
    /// Features, partitions or voters that this node cannot serve, one sentence each.
    Unservable(Vec<String>),
    Files(MetadataFilesError),
    Log(ReplayError),
    /// A file of the log is not what it was. The journals have begun anew by then, which changes nothing for the next start.
    LogFile {
        path: PathBuf,
        cause: String,
    },
    /// The log could not be read, or the first records of this life not be written.
    Storage(String),
}

impl<E: Into<MetadataFilesError>> From<E> for StartRefused {
    fn from(error: E) -> Self {
        Self::Files(error.into())
    }
}

impl From<ReplayError> for StartRefused {
    fn from(error: ReplayError) -> Self {
        Self::Log(error)
    }
}

impl fmt::Display for StartRefused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unservable(reasons) => write!(formatter, "this directory cannot be served by this broker: {}", reasons.join("; ")),
            Self::Files(error) => error.fmt(formatter),
            Self::Log(error) => write!(formatter, "the metadata log cannot be used: {error}"),
            Self::LogFile { path, cause } => write!(
                formatter,
                "{}, a file of the metadata log, {cause}: put it back, or restore the data directories from a backup; without it the topics are not known",
                path.display()
            ),
            Self::Storage(error) => write!(formatter, "the metadata log: {error}"),
        }
    }
}

impl std::error::Error for StartRefused {}
