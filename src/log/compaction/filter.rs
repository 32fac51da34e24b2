//! What stays of a batch.

use bytes::Bytes;

use super::offset_map::OffsetMap;
use super::transactions::TransactionTracker;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{BatchInfo, EndMarker, Producers};
use crate::wire::batch::{BatchHeader, BatchRewriter, CompressError, Progress, RecordRef, SLICE_BYTES, Sealing, emptied_batch};

/// What a round knows and wants, for all its batches.
#[derive(Debug)]
pub struct BatchFilter<'a> {
    pub map: &'a OffsetMap,
    /// Those that the log remembers as the round begins: the last batch of each has to stay.
    pub producers: Producers,
    /// The end of what the round works on: the batch that ends there stays, so that the log's offsets remain known.
    pub round_end: i64,
    pub now_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
}

/// What the header of a batch says about its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// It stays even without a record.
    keeps_empty: bool,
    /// None of its records stays, whatever they are.
    discards_records: bool,
    /// A marker whose transaction has no records any more: from now on its time runs.
    is_marker_of_nothing: bool,
    /// To be written into the new segment's transaction index.
    pub kept_entry: Option<AbortedTransaction>,
}

impl Retention {
    /// Its records need not be looked at.
    pub fn discards_records(&self) -> bool {
        self.discards_records
    }
}

impl BatchFilter<'_> {
    /// Judges a batch by its header; `marker` is what it says if it is a control batch that ends a transaction.
    pub fn judge(
        &self,
        info: &BatchInfo,
        header: &BatchHeader,
        marker: Option<EndMarker>,
        transactions: &mut TransactionTracker,
    ) -> Retention {
        let (can_discard, kept_entry) = if info.is_control {
            let fate = transactions.on_control(info, marker);
            (fate.is_discardable, fate.kept_entry)
        } else {
            (transactions.on_batch(info), None)
        };
        // A marker that has nothing left to end waits for its time all the same: somebody may be reading just there.
        let is_time = delete_horizon_ms(header).is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
        let discards_records = can_discard && (!info.is_control || is_time);
        let keeps_empty = self.is_last_of_producer(info) || info.last_offset() + 1 == self.round_end;
        Retention { keeps_empty, discards_records, is_marker_of_nothing: can_discard && info.is_control, kept_entry }
    }

    /// Whether a record stays of a batch whose records are looked at.
    pub fn keeps(&self, info: &BatchInfo, header: &BatchHeader, record: &RecordRef) -> bool {
        let offset = info.base_offset + i64::from(record.offset_delta);
        if info.is_control || offset > self.map.latest_offset() {
            return true;
        }
        // A record without a key has no business here; the broker refuses it when it is produced.
        let Some(key) = record.key else { return false };
        let is_latest = self.map.get(key).is_none_or(|latest| offset >= latest);
        let keeps_tombstones = delete_horizon_ms(header).is_none_or(|horizon_ms| self.now_ms < horizon_ms);
        is_latest && (record.value.is_some() || keeps_tombstones)
    }

    /// What takes the place of `batch`. `kept` are the records that stay, of as many as `header` says.
    pub fn rewrite<'a>(
        &self,
        batch: &Bytes,
        header: &BatchHeader,
        retention: &Retention,
        kept: &'a [RecordRef<'a>],
    ) -> Result<Rewriting<'a>, CompressError> {
        if kept.is_empty() {
            return Ok(Rewriting::whole(retention.keeps_empty.then(|| emptied_batch(header))));
        }
        let has_tombstones = kept.iter().any(|record| record.value.is_none());
        let horizon_ms = delete_horizon_ms(header);
        let gets_horizon = horizon_ms.is_none() && (has_tombstones || retention.is_marker_of_nothing);
        if kept.len() == header.record_count as usize && !gets_horizon {
            return Ok(Rewriting::whole(Some(batch.clone())));
        }
        let horizon_ms = if gets_horizon { Some(self.now_ms.saturating_add(self.delete_retention_ms)) } else { horizon_ms };
        let rewriter = BatchRewriter::new(*header, horizon_ms)?;
        Ok(Rewriting { kept: kept.iter(), phase: Phase::Records(Box::new(rewriter)) })
    }

    /// The last batch of a producer that is known to the log tells its last sequence number; its marker, where there is no batch, its epoch.
    fn is_last_of_producer(&self, info: &BatchInfo) -> bool {
        let producer = self.producers.get(&info.producer_id).filter(|_| info.has_producer_id());
        producer.is_some_and(|producer| match producer.batches.last() {
            Some(last) => info.last_offset() == last.last_offset,
            None => info.is_control && info.producer_epoch == producer.epoch,
        })
    }
}

/// What takes the place of a batch, as far as it is made. It is stepped, each step doing a slice of work, so that a large batch delays nobody.
pub struct Rewriting<'a> {
    /// Records that are still to come.
    kept: std::slice::Iter<'a, RecordRef<'a>>,
    phase: Phase,
}

enum Phase {
    Records(Box<BatchRewriter>),
    Checksum(Sealing),
    Whole(Option<Bytes>),
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    More,
    /// None where nothing takes the place of the batch.
    Done(Option<Bytes>),
}

impl Rewriting<'_> {
    fn whole(left: Option<Bytes>) -> Self {
        Rewriting { kept: [].iter(), phase: Phase::Whole(left) }
    }

    /// Does at most a slice of work. Not to be called again after `Done`.
    pub fn step(&mut self) -> Result<Step, CompressError> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Whole(None)) {
            Phase::Records(mut rewriter) => {
                while !rewriter.has_a_step()
                    && let Some(record) = self.kept.next()
                {
                    rewriter.push(record);
                }
                match rewriter.pack()? {
                    Progress::Done if self.kept.len() == 0 => Phase::Checksum(rewriter.seal()?),
                    _ => Phase::Records(rewriter),
                }
            }
            Phase::Checksum(mut sealing) => {
                let mut work_bytes = SLICE_BYTES;
                match sealing.step(&mut work_bytes) {
                    Progress::More => Phase::Checksum(sealing),
                    Progress::Done => return Ok(Step::Done(Some(sealing.finish()))),
                }
            }
            Phase::Whole(left) => return Ok(Step::Done(left)),
        };
        Ok(Step::More)
    }
}

fn delete_horizon_ms(header: &BatchHeader) -> Option<i64> {
    header.attributes.has_delete_horizon().then_some(header.base_timestamp)
}
