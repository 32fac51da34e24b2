//! Snapshots (KIP-630): a picture of the metadata as a file of its own, `<end offset>-<epoch>.checkpoint`, in the batches of a log.
//!
//! The offsets inside count from 0 and mean nothing; the name says up to which offset of the log, that one excluded, the picture goes. A header stands at the front, a footer
//! at the end: a file without its footer was cut off and is not used. The first of all, `0-0`, is what the formatter leaves: the records with which the log shall begin.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::cluster::features::MetadataVersion;
use crate::cluster::image::Image;
use crate::cluster::record::MetadataRecord;
use crate::wire::EncodeError;
use crate::wire::batch::BatchIterator;

use super::batches::{BatchPlace, BatchReadError, LogRecord, control_batch, metadata_batch, read_batch};
use super::control::{ControlRecord, Voter};

/// Records in a batch of a snapshot, as Kafka writes them.
const BATCH_RECORDS_MAX: usize = 1024;

pub const SNAPSHOT_SUFFIX: &str = ".checkpoint";
/// A file that is still being written; what is left of one is removed at the next start.
pub const PARTIAL_SUFFIX: &str = ".checkpoint.part";

/// Up to where a snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The first offset that it does not contain.
    pub end_offset: i64,
    /// The epoch of the last record that it contains.
    pub epoch: i32,
}

impl SnapshotId {
    /// What the formatter leaves.
    pub const BOOTSTRAP: Self = Self { end_offset: 0, epoch: 0 };

    pub fn file_name(&self) -> String {
        format!("{:020}-{:010}{SNAPSHOT_SUFFIX}", self.end_offset, self.epoch)
    }

    pub fn partial_file_name(&self) -> String {
        format!("{:020}-{:010}{PARTIAL_SUFFIX}", self.end_offset, self.epoch)
    }

    /// None for a name of something else.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (end_offset, epoch) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
        let is_number = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(end_offset, 20) || !is_number(epoch, 10) {
            return None;
        }
        Some(Self { end_offset: end_offset.parse().ok()?, epoch: epoch.parse().ok()? })
    }
}

/// What the quorum has agreed on about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuorumFacts {
    pub kraft_version: i16,
    /// None while the settings name them.
    pub voters: Option<Vec<Voter>>,
}

impl QuorumFacts {
    /// The control records that say it; none for kraft.version 0, as Kafka writes it.
    pub fn records(&self) -> Vec<ControlRecord> {
        let version = (self.kraft_version > 0).then_some(ControlRecord::KRaftVersion(self.kraft_version));
        version.into_iter().chain(self.voters.clone().map(ControlRecord::Voters)).collect()
    }
}

/// The batches of a snapshot, in order and lazily, so that the writer can give way between them.
pub fn snapshot_batches<'image>(
    image: &'image Image,
    epoch: i32,
    facts: &QuorumFacts,
    last_contained_timestamp_ms: i64,
    now_ms: i64,
) -> impl Iterator<Item = Result<Bytes, EncodeError>> + use<'image> {
    let level = image.metadata_version().expect("a snapshot is taken after the first start");
    SnapshotBatches {
        header: Some(std::iter::once(ControlRecord::SnapshotHeader { last_contained_timestamp_ms }).chain(facts.records()).collect()),
        records: Some(image.records(level)),
        level,
        place: BatchPlace { base_offset: 0, epoch, timestamp_ms: now_ms },
    }
}

/// The file that a formatter leaves for the first start: these records, and who votes.
pub fn bootstrap_snapshot(
    records: &[MetadataRecord],
    level: MetadataVersion,
    facts: &QuorumFacts,
    now_ms: i64,
) -> Result<Bytes, EncodeError> {
    let batches = SnapshotBatches {
        header: Some(
            std::iter::once(ControlRecord::SnapshotHeader { last_contained_timestamp_ms: now_ms }).chain(facts.records()).collect(),
        ),
        records: Some(records.iter().cloned()),
        level,
        place: BatchPlace { base_offset: 0, epoch: 0, timestamp_ms: now_ms },
    };
    Ok(Bytes::from(batches.collect::<Result<Vec<Bytes>, _>>()?.concat()))
}

/// First the header, then the records while there are any, then the footer.
struct SnapshotBatches<I> {
    header: Option<Vec<ControlRecord>>,
    records: Option<I>,
    level: MetadataVersion,
    place: BatchPlace,
}

impl<I: Iterator<Item = MetadataRecord>> Iterator for SnapshotBatches<I> {
    type Item = Result<Bytes, EncodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.place;
        if let Some(header) = self.header.take() {
            self.place.base_offset += header.len() as i64;
            return Some(control_batch(&header, place));
        }
        let records: Vec<MetadataRecord> = self.records.as_mut()?.by_ref().take(BATCH_RECORDS_MAX).collect();
        if records.is_empty() {
            self.records = None;
            return Some(control_batch(&[ControlRecord::SnapshotFooter], place));
        }
        self.place.base_offset += records.len() as i64;
        Some(metadata_batch(&records, self.level, place))
    }
}

/// What a snapshot file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotContent {
    pub records: Vec<MetadataRecord>,
    pub facts: QuorumFacts,
    pub last_contained_timestamp_ms: i64,
}

/// Reads a snapshot whole.
pub fn read_snapshot(bytes: Bytes) -> Result<SnapshotContent, SnapshotError> {
    let mut content = SnapshotContent::default();
    let mut seen: Range<bool> = false..false;
    let mut position = 0;
    for batch in BatchIterator::new(bytes) {
        let (header, batch) = batch.map_err(|error| SnapshotError::Unreadable { position, error: error.into() })?;
        let records = read_batch(&header, &batch).map_err(|error| SnapshotError::Unreadable { position, error })?;
        for (_, record) in records {
            if seen.end {
                return Err(SnapshotError::BehindFooter { position });
            }
            match record {
                LogRecord::Control(ControlRecord::SnapshotHeader { last_contained_timestamp_ms }) => {
                    content.last_contained_timestamp_ms = last_contained_timestamp_ms;
                    seen.start = true;
                }
                _ if !seen.start => return Err(SnapshotError::NoHeader),
                LogRecord::Control(ControlRecord::SnapshotFooter) => seen.end = true,
                LogRecord::Control(ControlRecord::KRaftVersion(version)) => content.facts.kraft_version = version,
                LogRecord::Control(ControlRecord::Voters(voters)) => content.facts.voters = Some(voters),
                LogRecord::Control(ControlRecord::LeaderChange { .. } | ControlRecord::Unknown { .. }) => {}
                LogRecord::Metadata(record) => content.records.push(record),
            }
        }
        position += batch.len() as u64;
    }
    match seen {
        Range { start: true, end: true } => Ok(content),
        Range { start: true, end: false } => Err(SnapshotError::NoFooter),
        Range { .. } => Err(SnapshotError::NoHeader),
    }
}

/// Why a file is no snapshot that we can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    NoHeader,
    /// Cut off.
    NoFooter,
    BehindFooter {
        position: u64,
    },
    /// The batch at this position of the file.
    Unreadable {
        position: u64,
        error: BatchReadError,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => write!(formatter, "it does not begin with a snapshot header"),
            Self::NoFooter => write!(formatter, "it is cut off: the snapshot footer is missing"),
            Self::BehindFooter { position } => write!(formatter, "records follow the snapshot footer, at byte {position}"),
            Self::Unreadable { position, error } => write!(formatter, "the batch at byte {position} cannot be read: {error}"),
        }
    }
}

impl std::error::Error for SnapshotError {}
