//! What may cross from one core to another: one typed request per family, one reply for each, and the cancellation of a call whose caller has gone.
//!
//! Everything here owns its data (`Bytes`, file handles, plain values); nothing borrowed and nothing counted without atomics may stand in it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;

use super::append::Append;
use crate::cluster::{Image, TopicIdPartition};
use crate::disk::directories::DataDirectory;
use crate::drive::controller::{ControllerReply, ControllerRequest};
use crate::drive::groups::{GroupReply, GroupRequest};
use crate::drive::transactions::{Markers, TransactionRequest};
use crate::log::{ProducerView, ValidatedBatch, VerificationGuard};
use crate::partition::{Piece, Seen};
use crate::rt::ShardId;
use crate::txn::Reply as TransactionReply;
use crate::wire::ErrorCode;

/// A message between two shards. `call` is chosen by the caller and unique among its own calls.
#[derive(Debug)]
pub enum Message {
    /// Please do this and answer under the same number.
    Request { call: u64, request: Box<Request> },
    /// The answer.
    Reply { call: u64, reply: Box<Reply> },
    /// Nobody waits for the answer any more; the work may stop where it stands.
    Cancel { call: u64 },
}

/// What one shard asks of another. It travels in a box; on its own shard it goes straight into the task that serves it.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Request {
    /// Append batches to partitions of this shard. Answered by `Reply::Append` when durable, or at once if nobody waits.
    Append(Append),
    /// Take guards for the first batches of transactions. Answered by `Reply::Guards`.
    Guards { items: Vec<GuardItem> },
    /// End a transaction in partitions of this shard. Answered by `Reply::Markers` when durable.
    WriteMarkers(Markers),
    /// Plan a read of partitions of this shard. Answered by `Reply::Read`.
    Read { items: Vec<ReadItem>, max_bytes: usize },
    /// Answered by `Reply::Done` once these partitions together have so many more bytes to tell, or one of them anything else.
    Watch { items: Vec<WatchItem>, missing_bytes: u64 },
    /// Find offsets. Answered by `Reply::Offsets`.
    Offsets { items: Vec<OffsetItem> },
    /// Find where leader epochs end. Answered by `Reply::EpochEnds`.
    EpochEnds { items: Vec<EpochEndItem> },
    /// Move log starts up. Answered by `Reply::Deleted` when durable.
    DeleteRecords { items: Vec<(TopicIdPartition, i64)> },
    /// List the producers of partitions. Answered by `Reply::Producers`.
    Producers { items: Vec<TopicIdPartition> },
    /// Sizes of every partition of this shard, or of these. Answered by `Reply::Sizes`.
    Sizes { only: Option<Vec<TopicIdPartition>> },
    /// Move partitions of this shard to another data directory. Answered by `Reply::MovesBegun` when the moves have begun.
    MoveReplicas { items: Vec<TopicIdPartition>, directory: DataDirectory },
    /// For a group coordinator of this shard.
    Group(GroupRequest),
    /// For a transaction coordinator of this shard.
    Transaction(TransactionRequest),
    /// For the controller, on shard 0.
    Controller(ControllerRequest),
    /// The metadata has changed. Answered by `Reply::Done`.
    Image { image: Arc<Image>, step: PublishStep },
    /// Serve this client. Answered by `Reply::Done` when it has gone, by `Reply::Moved` when it is to go on elsewhere.
    Connection(NewConnection),
    /// Go a step towards the end. Answered by `Reply::Stopped`.
    Stop(StopStep),
}

/// A new image reaches the shards in two steps, so that nobody sees a partition whose owner does not have it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishStep {
    /// Owners make new partitions and take over new leader epochs.
    Prepare,
    /// Everybody sees the image; owners let go of what is deleted.
    Adopt,
}

/// The end of a shard, in steps that all shards take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopStep {
    /// Answer what is under way, then let go of the clients.
    Clients,
    /// Place everything and close the journal; the shard ends afterwards.
    Storage,
}

/// What comes back.
#[derive(Debug)]
pub enum Reply {
    /// One for each item, in order.
    Append(Vec<AppendResult>),
    /// One for each item, in order.
    Read(Vec<ReadResult>),
    /// One for each item, in order.
    Offsets(Vec<Result<OffsetAnswer, ErrorCode>>),
    /// Epoch and end offset (-1, -1: unknown), one for each item, in order.
    EpochEnds(Vec<Result<(i32, i64), ErrorCode>>),
    /// The new log start, one for each item, in order.
    Deleted(Vec<Result<i64, ErrorCode>>),
    /// One for each item, in order.
    Producers(Vec<Result<Vec<ProducerView>, ErrorCode>>),
    /// Each replica found; one that moves is found twice.
    Sizes(Vec<ReplicaSize>),
    /// One for each partition, in order.
    MovesBegun(Vec<ErrorCode>),
    /// One for each item, in order.
    Guards(Vec<Guarding>),
    /// One for each partition, in order.
    Markers(Vec<ErrorCode>),
    /// From a group coordinator.
    Group(GroupReply),
    /// From a transaction coordinator.
    Transaction(TransactionReply),
    /// From the controller.
    Controller(ControllerReply),
    /// The step is taken; whether cleanly.
    Stopped(bool),
    /// The client is to be served by that shard from now on.
    Moved {
        /// Where most of what it asks for lies.
        to: ShardId,
        /// The client.
        connection: NewConnection,
    },
    /// Done.
    Done,
}

/// One batch for one partition.
#[derive(Debug)]
pub struct AppendItem {
    /// Where it goes.
    pub partition: TopicIdPartition,
    /// What goes there, checked.
    pub batch: ValidatedBatch,
    /// Whether the batch may be appended only as part of an open transaction.
    pub guarding: Option<Guarding>,
}

/// A partition that a producer wants to append a transactional batch to.
#[derive(Clone, Copy, Debug)]
pub struct GuardItem {
    /// Which one.
    pub partition: TopicIdPartition,
    /// Of the batch.
    pub producer_id: i64,
    /// Of the batch.
    pub producer_epoch: i16,
}

/// What a partition knows of a producer's transaction before its coordinator is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarding {
    /// It is open here: the coordinator need not be asked.
    Open,
    /// It is not; the guard shows whether it still is so when the batch arrives.
    Guarded(VerificationGuard),
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub struct AppendResult {
    /// None, or why it was not appended.
    pub error: ErrorCode,
    /// A sentence for the client.
    pub message: Option<String>,
    /// Offset of its first record, -1 on errors.
    pub base_offset: i64,
    /// Offset of its last record, -1 on errors.
    pub last_offset: i64,
    /// The broker's time stamp, -1 unless the topic asks for it.
    pub log_append_time_ms: i64,
    /// Where the log begins, -1 if unknown.
    pub log_start_offset: i64,
}

/// One partition to read.
#[derive(Clone, Debug)]
pub struct ReadItem {
    /// Which one.
    pub partition: TopicIdPartition,
    /// From which offset on.
    pub fetch_offset: i64,
    /// The leader epoch that the client knows, -1: no check.
    pub current_leader_epoch: i32,
    /// Epoch of the last record that the client holds, -1: no check.
    pub last_fetched_epoch: i32,
    /// Bytes at most, but for a first batch that is larger.
    pub max_bytes: usize,
    /// Only up to the last stable offset.
    pub read_committed: bool,
}

/// What a partition has to tell a reader.
#[derive(Debug)]
pub struct ReadResult {
    /// None, or why there is nothing.
    pub error: ErrorCode,
    /// -1 on errors.
    pub high_watermark: i64,
    /// -1 on errors.
    pub last_stable_offset: i64,
    /// -1 on errors.
    pub log_start_offset: i64,
    /// Epoch and end offset where the reader's log parts from ours (KIP-595).
    pub diverging: Option<(i32, i64)>,
    /// Producer id and first offset of aborted transactions that overlap the records.
    pub aborted: Vec<(i64, i64)>,
    /// The records, whole batches in order.
    pub pieces: Vec<Piece>,
    /// Who leads, for the hints on errors 6 and 74.
    pub leader_id: i32,
    /// In which epoch.
    pub leader_epoch: i32,
    /// What the reader knows now, should it wait for more.
    pub seen: Option<Seen>,
}

impl ReadResult {
    /// Nothing but `error`.
    pub fn failed(error: ErrorCode) -> ReadResult {
        ReadResult {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            aborted: Vec::new(),
            pieces: Vec::new(),
            leader_id: -1,
            leader_epoch: -1,
            seen: None,
        }
    }

    /// Bytes of records.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(Piece::length).sum()
    }
}

/// A partition whose reader waits, and what it has been told already.
#[derive(Debug)]
pub struct WatchItem {
    /// Which one.
    pub partition: TopicIdPartition,
    /// What it was told.
    pub seen: Seen,
}

/// An offset to be found.
#[derive(Clone, Debug)]
pub struct OffsetItem {
    /// In which partition.
    pub partition: TopicIdPartition,
    /// A time in ms, or one of Kafka's special values.
    pub timestamp: i64,
    /// The leader epoch that the client knows, -1: no check.
    pub current_leader_epoch: i32,
    /// Latest means the last stable offset.
    pub read_committed: bool,
}

/// An offset found; -1 and -1 when no record fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// The offset.
    pub offset: i64,
    /// The record's time stamp in ms, -1 for special values.
    pub timestamp: i64,
    /// The epoch that the record belongs to, -1 if unknown.
    pub leader_epoch: i32,
}

/// A leader epoch whose end is asked for.
#[derive(Clone, Debug)]
pub struct EpochEndItem {
    /// In which partition.
    pub partition: TopicIdPartition,
    /// The epoch.
    pub leader_epoch: i32,
    /// The leader epoch that the client knows, -1: no check.
    pub current_leader_epoch: i32,
}

/// A replica on disk, or the copy of one that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaSize {
    /// Of which partition.
    pub partition: TopicIdPartition,
    /// The data directory that it lies in.
    pub directory_id: Uuid,
    /// Bytes of its segments.
    pub size_bytes: i64,
    /// Offsets that it is behind.
    pub offset_lag: i64,
    /// It is a copy that has not taken the replica's place yet.
    pub is_future: bool,
}

/// A client that a shard is to serve: just accepted, or on its way from another shard.
#[derive(Debug)]
pub struct NewConnection {
    /// Its socket.
    pub descriptor: OwnedFd,
    /// Its address.
    pub peer_address: SocketAddr,
    /// Which listener it dialled.
    pub listener_index: usize,
    /// Bytes that were read from it and not looked at.
    pub unread: Bytes,
    /// When it last came from another shard.
    pub moved_at: Option<Instant>,
}
