//! From the log to the picture: snapshot first, then every batch behind it, in order.
//!
//! Records between the begin and the end of a metadata transaction (KIP-868) count only once its end is read: an aborted one leaves nothing. A log that ends inside one is
//! answered with the picture before it; whoever leads next writes the abort.

use std::fmt;

use bytes::Bytes;

use crate::cluster::apply::ApplyError;
use crate::cluster::image::{Image, PartitionImage};
use crate::cluster::record::MetadataRecord;
use crate::wire::batch::{BatchHeader, BatchIterator};

use super::batches::{BatchReadError, LogRecord, read_batch};
use super::control::ControlRecord;
use super::snapshot::{QuorumFacts, SnapshotContent, SnapshotId};

/// The replay of one log.
pub struct Replay {
    image: Image,
    /// The picture before the transaction that is open.
    before_transaction: Option<Image>,
    facts: QuorumFacts,
    /// The next offset to be read.
    next_offset: i64,
    epoch: i32,
    last_timestamp_ms: i64,
}

/// What a log adds up to.
#[derive(Debug)]
pub struct Replayed {
    pub image: Image,
    pub facts: QuorumFacts,
    /// Where the log ends.
    pub end_offset: i64,
    /// The epoch of its last record, 0 where there is none.
    pub epoch: i32,
    pub last_timestamp_ms: i64,
    /// The log ends inside a transaction, which is not in the picture and must be aborted.
    pub transaction_is_open: bool,
}

impl Replay {
    /// Begins before the first record.
    pub fn from_start() -> Self {
        Self {
            image: Image::empty(),
            before_transaction: None,
            facts: QuorumFacts::default(),
            next_offset: 0,
            epoch: 0,
            last_timestamp_ms: -1,
        }
    }

    /// Begins with a snapshot. That of the formatter ([`SnapshotId::BOOTSTRAP`]) says only who votes: its other records shall be written into the log and count from there.
    pub fn from_snapshot(id: SnapshotId, content: SnapshotContent) -> Result<Self, ReplayError> {
        let mut replay = Self::from_start();
        replay.facts = content.facts;
        if id == SnapshotId::BOOTSTRAP {
            return Ok(replay);
        }
        for record in &content.records {
            replay.image.apply(record).map_err(|error| ReplayError::in_snapshot(id, record, error))?;
        }
        replay.image.advance(id.end_offset - 1, id.epoch);
        replay.next_offset = id.end_offset;
        replay.epoch = id.epoch;
        replay.last_timestamp_ms = content.last_contained_timestamp_ms;
        Ok(replay)
    }

    /// The first offset that is still to be read.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Goes through batches that lie one behind another. What the snapshot holds already is passed over.
    pub fn read(&mut self, batches: Bytes) -> Result<(), ReplayError> {
        for batch in BatchIterator::new(batches) {
            let (header, batch) = batch.map_err(|error| self.unreadable(error.into()))?;
            if header.last_offset() >= self.next_offset {
                self.read_batch(&header, &batch)?;
            }
        }
        Ok(())
    }

    fn read_batch(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<(), ReplayError> {
        if header.base_offset > self.next_offset {
            return Err(ReplayError::Gap { expected: self.next_offset, found: header.base_offset });
        }
        let records = read_batch(header, batch).map_err(|error| self.unreadable(error))?;
        let epoch = header.partition_leader_epoch;
        if epoch < self.epoch {
            return Err(ReplayError::EpochFell { offset: header.base_offset, from: self.epoch, to: epoch });
        }
        for (offset, record) in records {
            if offset < self.next_offset {
                continue;
            }
            match record {
                LogRecord::Metadata(record) => self.apply(offset, &record)?,
                LogRecord::Control(record) => self.note(record),
            }
            self.image.advance(offset, epoch);
        }
        self.next_offset = header.last_offset() + 1;
        self.epoch = epoch;
        self.last_timestamp_ms = header.max_timestamp;
        Ok(())
    }

    fn apply(&mut self, offset: i64, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::BeginTransaction(_) => match self.before_transaction {
                None => self.before_transaction = Some(self.image.clone()),
                Some(_) => return Err(ReplayError::Transaction { offset, what: "begins inside another" }),
            },
            MetadataRecord::EndTransaction(_) => {
                self.before_transaction.take().ok_or(ReplayError::Transaction { offset, what: "ends without a beginning" })?;
            }
            MetadataRecord::AbortTransaction(_) => {
                let before = self.before_transaction.take();
                self.image = before.ok_or(ReplayError::Transaction { offset, what: "is aborted without a beginning" })?;
            }
            record => self.image.apply(record).map_err(|error| ReplayError::DoesNotFit { offset, record: record.name(), error })?,
        }
        Ok(())
    }

    fn note(&mut self, record: ControlRecord) {
        match record {
            ControlRecord::KRaftVersion(version) => self.facts.kraft_version = version,
            ControlRecord::Voters(voters) => self.facts.voters = Some(voters),
            ControlRecord::LeaderChange { .. }
            | ControlRecord::SnapshotHeader { .. }
            | ControlRecord::SnapshotFooter
            | ControlRecord::Unknown { .. } => {}
        }
    }

    /// The end of the log. Every topic must be whole.
    pub fn finish(self) -> Result<Replayed, ReplayError> {
        let transaction_is_open = self.before_transaction.is_some();
        let mut image = self.before_transaction.unwrap_or(self.image);
        if self.next_offset > 0 {
            image.advance(self.next_offset - 1, self.epoch);
        }
        if let Some(topic) = image.topics().find(|topic| !topic.partitions.iter().all(PartitionImage::is_known)) {
            return Err(ReplayError::IncompleteTopic { name: topic.name.to_string() });
        }
        Ok(Replayed {
            image,
            facts: self.facts,
            end_offset: self.next_offset,
            epoch: self.epoch,
            last_timestamp_ms: self.last_timestamp_ms,
            transaction_is_open,
        })
    }

    fn unreadable(&self, error: BatchReadError) -> ReplayError {
        ReplayError::Unreadable { offset: self.next_offset, error }
    }
}

/// Why a log adds up to nothing that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// The batch that should begin here.
    Unreadable {
        offset: i64,
        error: BatchReadError,
    },
    Gap {
        expected: i64,
        found: i64,
    },
    EpochFell {
        offset: i64,
        from: i32,
        to: i32,
    },
    DoesNotFit {
        offset: i64,
        record: &'static str,
        error: ApplyError,
    },
    SnapshotDoesNotFit {
        id: SnapshotId,
        record: &'static str,
        error: ApplyError,
    },
    Transaction {
        offset: i64,
        what: &'static str,
    },
    IncompleteTopic {
        name: String,
    },
}

impl ReplayError {
    fn in_snapshot(id: SnapshotId, record: &MetadataRecord, error: ApplyError) -> Self {
        Self::SnapshotDoesNotFit { id, record: record.name(), error }
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { offset, error } => write!(formatter, "at offset {offset}: {error}"),
            Self::Gap { expected, found } => write!(formatter, "offsets {expected} to {} are missing", found - 1),
            Self::EpochFell { offset, from, to } => write!(formatter, "at offset {offset} the leader epoch falls from {from} to {to}"),
            Self::DoesNotFit { offset, record, error } => write!(formatter, "the {record} at offset {offset} {error}"),
            Self::SnapshotDoesNotFit { id, record, error } => write!(formatter, "a {record} in the snapshot {} {error}", id.file_name()),
            Self::Transaction { offset, what } => write!(formatter, "the transaction at offset {offset} {what}"),
            Self::IncompleteTopic { name } => write!(formatter, "a partition of the topic {name} is missing"),
        }
    }
}

impl std::error::Error for ReplayError {}
