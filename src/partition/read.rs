//! Reading: from an offset and a limit to a plan, pieces of memory and ranges of files that can be sent without the partition.
//!
//! What is in the tail cache comes from there; before it lie segment files, each up to where it is placed. A plan is made of short looks at the partition's state with reads of
//! indexes between them; no look is held across an await, and the state may have moved on at the next. That is harmless: what was visible stays so, and a segment that is deleted
//! meanwhile is either open already or gone below the log's start.

use bytes::{Bytes, BytesMut};

use super::plan::{FileRange, Piece};
use super::{Partition, Seen};
use crate::disk::journal::group::round_down_to_block;
use crate::disk::reader::{ReadError, SegmentView};
use crate::log::offset_index::OffsetIndexTail;
use crate::log::transaction_index::{self, AbortedTransaction};
use crate::log::{BatchInfo, NO_LEADER_EPOCH, NO_OFFSET, SegmentBook};
use crate::wire::ErrorCode;

/// Up to where a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, with the list of aborted transactions.
    ReadCommitted,
}

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: i64,
    /// Whole batches up to so many bytes.
    pub max_bytes: usize,
    pub isolation: Isolation,
    /// The first batch is given even if it is larger than `max_bytes` (KIP-74): for the first partition of a fetch that has anything.
    pub whole_first_batch: bool,
    /// The leader epoch that the reader knows, -1: no check.
    pub current_leader_epoch: i32,
    /// The epoch of the last record that the reader holds, -1: no check.
    pub last_fetched_epoch: i32,
}

impl ReadRequest {
    /// A read without any check of epochs.
    pub fn new(offset: i64, max_bytes: usize, isolation: Isolation) -> Self {
        Self { offset, max_bytes, isolation, whole_first_batch: true, current_leader_epoch: -1, last_fetched_epoch: -1 }
    }
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    /// Whole batches in the order of their offsets, beginning with the one that contains or follows the wanted offset.
    pub pieces: Vec<Piece>,
    pub size_bytes: usize,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    pub leader_epoch: i32,
    /// Epoch and its end offset here, where the reader's log parts from ours (KIP-595); then there are no pieces.
    pub diverging: Option<(i32, i64)>,
    /// Those that overlap the pieces; only for ReadCommitted.
    pub aborted: Vec<AbortedTransaction>,
    /// The pieces' records lie below this offset; at most what is visible.
    end_offset: i64,
    /// For `Partition::watch`, should this be too little.
    pub seen: Seen,
}

/// Why a reader gets nothing.
#[derive(Clone, Debug)]
pub enum Refusal {
    NotLeader,
    /// The reader's leader epoch is older than ours.
    FencedLeaderEpoch,
    /// It is newer: our metadata is behind.
    UnknownLeaderEpoch,
    OffsetOutOfRange,
    /// Not yet known after a change of leaders.
    OffsetNotAvailable,
    /// The files cannot be read, or a write that the answer depends on has failed. Logged where it happened.
    Storage,
}

impl Refusal {
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Refusal::NotLeader => ErrorCode::NotLeaderOrFollower,
            Refusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            Refusal::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
            Refusal::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
            Refusal::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
            Refusal::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

/// A segment that holds the next records in its file, as a look at the partition saw it.
struct FileSource {
    view: SegmentView,
    /// Index entries that are in memory only.
    recent: Option<OffsetIndexTail>,
    /// The offset at which the file's records end, exclusive.
    end_offset: i64,
}

/// Where the next records are.
enum Source {
    Memory,
    File(FileSource),
    Nowhere,
}

impl Partition {
    /// Whether the reader's picture of who leads fits ours.
    pub fn check_leader(&self, current_leader_epoch: i32) -> Result<(), Refusal> {
        if !self.is_leader() {
            return Err(Refusal::NotLeader);
        }
        match current_leader_epoch {
            NO_LEADER_EPOCH => Ok(()),
            older if older < self.leader_epoch() => Err(Refusal::FencedLeaderEpoch),
            newer if newer > self.leader_epoch() => Err(Refusal::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Plans a read. An empty plan means that there is nothing to be seen at the offset yet.
    pub async fn plan_read(&self, request: &ReadRequest) -> Result<ReadPlan, Refusal> {
        self.check_leader(request.current_leader_epoch)?;
        self.plan(request).await
    }

    /// The plan itself, whoever leads.
    async fn plan(&self, request: &ReadRequest) -> Result<ReadPlan, Refusal> {
        loop {
            let layout = self.layout.get();
            let planned = self.plan_in_one_layout(request).await;
            // Compaction has exchanged segments meanwhile: positions of the old ones mean nothing in the new ones.
            if self.layout.get() == layout {
                return planned;
            }
        }
    }

    async fn plan_in_one_layout(&self, request: &ReadRequest) -> Result<ReadPlan, Refusal> {
        let mut plan = self.empty_plan(request.isolation);
        if let Some(diverging) = self.diverging(request)? {
            plan.diverging = Some(diverging);
            return Ok(plan);
        }
        // The log's end bounds what may be asked for; the high watermark only what is seen.
        if request.offset < plan.log_start_offset || request.offset > self.log_end_offset() {
            return Err(Refusal::OffsetOutOfRange);
        }
        if let Err(error) = self.fill(&mut plan, request).await {
            let is_gone = request.offset < self.log_start_offset();
            return Err(if is_gone { Refusal::OffsetOutOfRange } else { self.unreadable(&error) });
        }
        if request.isolation == Isolation::ReadCommitted && plan.size_bytes > 0 {
            plan.aborted = self.aborted_between(request.offset, plan.end_offset).await.map_err(|error| self.unreadable(&error))?;
        }
        Ok(plan)
    }

    /// Reads whole batches into memory, one behind the other: for coordinators that load their partition, and for the controller, which does so before it leads. Empty where
    /// nothing is visible at the offset yet.
    pub async fn read(&self, offset: i64, max_bytes: usize) -> Result<Bytes, Refusal> {
        let plan = self.plan(&ReadRequest::new(offset, max_bytes, Isolation::ReadUncommitted)).await?;
        self.fetch_pieces(plan).await
    }

    /// As `read`, each batch with the facts of its header.
    pub async fn read_batches(&self, offset: i64, max_bytes: usize) -> Result<Vec<(BatchInfo, Bytes)>, Refusal> {
        let mut rest = self.read(offset, max_bytes).await?;
        let mut batches = Vec::new();
        while !rest.is_empty() {
            let info = BatchInfo::decode(&rest).filter(|info| info.size_bytes as usize <= rest.len());
            let Some(info) = info else {
                tracing::error!(topic = %self.topic, partition = self.id.partition, offset, "no batch where one should begin");
                return Err(Refusal::Storage);
            };
            let batch = rest.split_to(info.size_bytes as usize);
            batches.push((info, batch));
        }
        Ok(batches)
    }

    /// The pieces of a plan one behind the other: a piece from a file may end inside a batch that goes on in the next piece.
    async fn fetch_pieces(&self, mut plan: ReadPlan) -> Result<Bytes, Refusal> {
        if let [Piece::Memory(bytes)] = &mut plan.pieces[..] {
            return Ok(std::mem::take(bytes));
        }
        let mut joined = BytesMut::with_capacity(plan.size_bytes);
        for piece in plan.pieces {
            match piece {
                Piece::Memory(bytes) => joined.extend_from_slice(&bytes),
                Piece::File(range) => {
                    let read = range.file.read_at(range.length as usize, range.position).await;
                    joined.extend_from_slice(&read.map_err(|error| self.unreadable(&error.into()))?);
                }
            }
        }
        Ok(joined.freeze())
    }

    fn empty_plan(&self, isolation: Isolation) -> ReadPlan {
        ReadPlan {
            pieces: Vec::new(),
            size_bytes: 0,
            high_watermark: self.high_watermark(),
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log_start_offset(),
            leader_epoch: self.leader_epoch(),
            diverging: None,
            aborted: Vec::new(),
            end_offset: 0,
            seen: self.sees(isolation == Isolation::ReadCommitted),
        }
    }

    /// Where the reader's log parts from ours: its last epoch ended here earlier than it believes, or is unknown.
    fn diverging(&self, request: &ReadRequest) -> Result<Option<(i32, i64)>, Refusal> {
        if request.last_fetched_epoch < 0 {
            return Ok(None);
        }
        if request.offset < self.log_start_offset() {
            return Err(Refusal::OffsetOutOfRange);
        }
        let log = self.log.borrow();
        let (epoch, end_offset) = log.leader_epochs().end_offset_for(request.last_fetched_epoch, log.log_end_offset());
        if epoch == NO_LEADER_EPOCH || end_offset == NO_OFFSET {
            return Err(Refusal::OffsetOutOfRange);
        }
        let parts = epoch < request.last_fetched_epoch || end_offset < request.offset;
        Ok(parts.then_some((epoch, end_offset)))
    }

    async fn fill(&self, plan: &mut ReadPlan, request: &ReadRequest) -> Result<(), ReadError> {
        let limit = plan.seen.visible_end;
        let mut offset = request.offset;
        while offset < limit && plan.size_bytes < request.max_bytes.max(1) {
            match self.source(offset) {
                Source::Nowhere => return Ok(()),
                Source::Memory => return self.add_from_memory(plan, request, offset, limit),
                Source::File(source) => match self.add_from_file(plan, request, &source, offset, limit).await? {
                    // The file's end was reached within the limits: on to what follows it.
                    true => offset = source.end_offset,
                    false => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn source(&self, offset: i64) -> Source {
        let memory = self.tail.first();
        if memory.is_some_and(|(base_offset, ..)| base_offset <= offset) {
            return Source::Memory;
        }
        let log = self.log.borrow();
        let segments = log.segments();
        // Compaction may have removed the first records: then the first segment begins above the log's start.
        let Some(book) = segments.containing(offset).or_else(|| segments.iter().next()) else { return Source::Nowhere };
        let next_base = segments.end_offset(book.base_offset, log.log_end_offset());
        let (size_bytes, end_offset) = match memory {
            Some((base_offset, segment_base, position)) if segment_base == book.base_offset => (position, base_offset),
            _ => (book.size_bytes, next_base),
        };
        let recent = self.recent_offset_index(&log, book.base_offset);
        Source::File(FileSource { view: self.segment_view(book, size_bytes), recent, end_offset })
    }

    /// What may be read of a segment's file: nothing of it waits for placement any more.
    pub(super) fn segment_view(&self, book: &SegmentBook, size_bytes: u32) -> SegmentView {
        let placed = self.placed.get();
        let settled_bytes = match placed.segment_base.cmp(&book.base_offset) {
            std::cmp::Ordering::Greater => size_bytes,
            std::cmp::Ordering::Equal => size_bytes.min(round_down_to_block(u64::from(placed.size_bytes)) as u32),
            std::cmp::Ordering::Less => 0,
        };
        SegmentView {
            partition: self.id,
            directory: self.directory(),
            base_offset: book.base_offset,
            size_bytes,
            settled_bytes,
            layout: self.layout.get(),
        }
    }

    fn add_from_memory(&self, plan: &mut ReadPlan, request: &ReadRequest, offset: i64, limit: i64) -> Result<(), ReadError> {
        self.tail.visit_from(offset, |batch| {
            let fits = plan.size_bytes + batch.bytes.len() <= request.max_bytes;
            let comes_anyway = request.whole_first_batch && plan.pieces.is_empty();
            if batch.last_offset >= limit || !(fits || comes_anyway) {
                return false;
            }
            plan.size_bytes += batch.bytes.len();
            plan.end_offset = batch.last_offset + 1;
            plan.pieces.push(Piece::Memory(batch.bytes.clone()));
            true
        });
        Ok(())
    }

    /// Adds what a file has from `offset` on. Returns whether its end was reached, so that there may be more behind it.
    async fn add_from_file(
        &self,
        plan: &mut ReadPlan,
        request: &ReadRequest,
        source: &FileSource,
        offset: i64,
        limit: i64,
    ) -> Result<bool, ReadError> {
        let (reader, view) = (&self.environment.reader, &source.view);
        let recent = source.recent.as_ref().map(OffsetIndexTail::view);
        let Some(first) = reader.find_batch(view, recent, offset).await? else { return Ok(true) };
        if first.info.base_offset >= limit {
            return Ok(false);
        }
        let visible_end = if limit < source.end_offset {
            reader.find_batch(view, recent, limit).await?.map_or(view.size_bytes, |batch| batch.position)
        } else {
            view.size_bytes
        };
        let room_bytes = (request.max_bytes - plan.size_bytes.min(request.max_bytes)) as u64;
        let wanted_end = u64::from(first.position) + room_bytes;
        let end = if wanted_end >= u64::from(visible_end) {
            visible_end
        } else if u64::from(first.info.size_bytes) > room_bytes {
            let comes_anyway = request.whole_first_batch && plan.pieces.is_empty();
            if comes_anyway { first.position + first.info.size_bytes } else { return Ok(false) }
        } else {
            reader.find_end(view, recent, first.position, wanted_end as u32).await?
        };
        self.add_range(plan, view, first.position, end).await?;
        plan.end_offset = source.end_offset.min(limit);
        Ok(end == view.size_bytes)
    }

    /// Settled blocks go out from the file; what lies in a block that will be written again is read past the page cache.
    async fn add_range(&self, plan: &mut ReadPlan, view: &SegmentView, position: u32, end: u32) -> Result<(), ReadError> {
        let settled_end = end.min(view.settled_bytes.max(position));
        if settled_end > position {
            let file = self.environment.reader.log_file(view).await?;
            plan.pieces.push(Piece::File(FileRange { file, position: u64::from(position), length: settled_end - position }));
        }
        if end > settled_end {
            plan.pieces.push(Piece::Memory(self.environment.reader.read(view, settled_end, end - settled_end).await?));
        }
        plan.size_bytes += (end - position) as usize;
        Ok(())
    }

    /// The aborted transactions that have records in [from, upper_bound), in the order of their markers: what a reader leaves out and compaction may remove. Looks into the
    /// transaction indexes from the segment of `from` on.
    pub async fn aborted_between(&self, from: i64, upper_bound: i64) -> Result<Vec<AbortedTransaction>, ReadError> {
        let books: Vec<SegmentBook> = {
            let log = self.log.borrow();
            let segments = log.segments();
            let first = segments.containing(from).map_or(0, |book| book.base_offset);
            segments.iter().filter(|book| book.base_offset >= first).copied().collect()
        };
        let mut found = Vec::new();
        for book in books {
            // Before the file: upkeep takes entries from here to there, and may do so while the file is read.
            let in_memory = self.aborted_of(book.base_offset);
            let mut entries = self.environment.reader.aborted_transactions(&self.segment_view(&book, book.size_bytes)).await?;
            let last_in_file = entries.last().map_or(NO_OFFSET, |last| last.last_offset);
            entries.extend(in_memory.into_iter().filter(|entry| entry.last_offset > last_in_file));
            let (overlapping, is_complete) = transaction_index::overlapping(&entries, from, upper_bound);
            found.extend(overlapping);
            if is_complete {
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn unreadable(&self, error: &ReadError) -> Refusal {
        if self.is_deleted.get() {
            return Refusal::NotLeader;
        }
        tracing::error!(topic = %self.topic, partition = self.id.partition, %error, "a read failed");
        Refusal::Storage
    }
}
