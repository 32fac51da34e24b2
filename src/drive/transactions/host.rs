//! Drives one coordinator over its log: loads it, appends what it decides, replays it, and lets replies go when everything appended before them is durable; brings decided
//! transactions to their end.
//!
//! Deciding, appending and replaying happen in one go without an await, so decisions never overlap. The order of a commit is the whole of its safety: the decision is durable,
//! then markers are written, then the end is recorded. A crash anywhere between leaves a prepared transaction, whose markers are written again after the next load; a partition
//! that has its marker already takes the second one without harm.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;

use super::{Common, Markers};
use crate::drive::coordinators::{Hosts, replay_log};
use crate::drive::groups::log::OffsetsLog;
use crate::drive::groups::partition_log::PartitionLog;
use crate::group::coordinator_error;
use crate::partition::GroupSequence;
use crate::rt::sync::Notify;
use crate::rt::{self, Task};
use crate::txn::{Call, Completion, Coordinator, NeedsProducerId, RecordError, Reply, Step, TransactionConfig, TransactionRecord};
use crate::wire::batch::{BatchBuilder, BatchError, BatchHeader, BatchOptions, Compression, HEADER_BYTES, RecordIterator};
use crate::wire::{ErrorCode, Str};

/// What a transaction's record takes beside its strings, with some to spare.
const RECORD_BYTES: usize = 512;
/// Ids that one step of expiry looks at, and so the tombstones of one batch.
const EXPIRY_LOOKS: usize = 1_000;
/// Pauses between attempts to write markers that were not taken.
const MARKER_PAUSE_MIN: Duration = Duration::from_millis(20);
const MARKER_PAUSE_MAX: Duration = Duration::from_secs(1);

/// One coordinator with its log.
pub(super) struct Host {
    this: Weak<Host>,
    log: PartitionLog,
    common: Rc<Common>,
    life: RefCell<Life>,
    /// Everything appended so far.
    last_append: Cell<Option<GroupSequence>>,
    /// The tasks that bring decided transactions to their end.
    completing: RefCell<HashMap<Str, Task<()>>>,
    /// A transaction has come to its end.
    completed: Notify,
    has_failed: Notify,
}

enum Life {
    /// The log is being read.
    Loading,
    Serving(Box<Coordinator>),
    /// The log could not be read or written. Only loading anew helps.
    Failed,
}

/// What came of a look at the coordinator.
enum Taken {
    /// The reply, and what has to be durable before it may be told.
    Decided {
        reply: Reply,
        rests_on: Option<GroupSequence>,
    },
    NeedsProducerId,
}

impl Host {
    /// A host that answers COORDINATOR_LOAD_IN_PROGRESS until `load` is done.
    pub(super) fn new(log: PartitionLog, common: Rc<Common>) -> Rc<Host> {
        Rc::new_cyclic(|this| Host {
            this: this.clone(),
            log,
            common,
            life: RefCell::new(Life::Loading),
            last_append: Cell::new(None),
            completing: RefCell::default(),
            completed: Notify::new(),
            has_failed: Notify::new(),
        })
    }

    // Loading

    /// Reads the whole log and starts to serve; gives the number of ids. What was decided before is brought to its end from now on.
    pub(super) async fn load(&self, config: TransactionConfig) -> Result<usize, LoadError> {
        *self.life.borrow_mut() = Life::Loading;
        // What is read is durable; what was appended before and lost is nothing to wait for.
        self.last_append.set(None);
        let loaded = self.replay_log(config).await;
        let mut life = self.life.borrow_mut();
        // Dismissed meanwhile.
        if !matches!(&*life, Life::Loading) {
            return Ok(0);
        }
        match loaded {
            Ok(mut coordinator) => {
                for transactional_id in coordinator.on_loaded() {
                    self.begin_completion(&transactional_id, None);
                }
                let count = coordinator.count();
                *life = Life::Serving(Box::new(coordinator));
                Ok(count)
            }
            Err(error) => {
                *life = Life::Failed;
                Err(error)
            }
        }
    }

    async fn replay_log(&self, config: TransactionConfig) -> Result<Coordinator, LoadError> {
        let mut coordinator = Coordinator::new(config);
        let replay = async |_, batch: &Bytes| replay_batch(&mut coordinator, batch);
        replay_log(&self.log, replay, &async || rt::yield_now().await).await?;
        Ok(coordinator)
    }

    // Calls

    /// Answers one call. While the transaction before is not at its end, waits for that as long as `patience` lasts.
    pub(super) async fn call(&self, call: &Call, patience: Duration) -> Reply {
        let deadline = Instant::now() + patience;
        loop {
            let completed = self.completed.notified();
            let reply = self.call_once(call).await;
            let left = deadline.saturating_duration_since(Instant::now());
            if !reply.is_concurrent() || left.is_zero() || rt::timeout(left, completed).await.is_err() {
                return reply;
            }
        }
    }

    async fn call_once(&self, call: &Call) -> Reply {
        let mut fresh_producer_id = None;
        loop {
            let taken = self.log.with_room(room_for(call), || self.decide(call, fresh_producer_id)).await;
            match taken {
                Err(error) => return call.refuse(error),
                Ok(Taken::Decided { reply, rests_on }) => {
                    return match self.wait_durable(rests_on).await {
                        Ok(()) => reply,
                        Err(error) => call.refuse(error),
                    };
                }
                Ok(Taken::NeedsProducerId) => match (self.common.surroundings().next_producer_id)().await {
                    Ok(id) => fresh_producer_id = Some(id),
                    Err(error) => return call.refuse(error),
                },
            }
        }
    }

    fn decide(&self, call: &Call, fresh_producer_id: Option<i64>) -> Result<Taken, ErrorCode> {
        self.with_coordinator(|coordinator| {
            let decision = coordinator.handle(rt::wall_clock_ms(), self.common.transaction_version(), fresh_producer_id, call);
            let Step { record, reply } = match decision {
                Ok(step) => step,
                Err(NeedsProducerId) => return Ok(Taken::NeedsProducerId),
            };
            if let Some(record) = record {
                self.append(coordinator, std::slice::from_ref(&record))?;
                self.follow_up(&record);
            }
            Ok(Taken::Decided { reply, rests_on: self.last_append.get() })
        })?
    }

    fn with_coordinator<T>(&self, decide: impl FnOnce(&mut Coordinator) -> T) -> Result<T, ErrorCode> {
        match &mut *self.life.borrow_mut() {
            Life::Serving(coordinator) => Ok(decide(coordinator)),
            Life::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Life::Failed => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Appends records in one batch and replays them.
    fn append(&self, coordinator: &mut Coordinator, records: &[TransactionRecord]) -> Result<(), ErrorCode> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let (now_ms, version) = (rt::wall_clock_ms(), self.common.transaction_version());
        for record in records {
            let (key, value) = record.encode(version);
            builder.push(Some(&key), value.as_deref(), now_ms, &[]);
        }
        if builder.size_bytes() > self.log.batch_bytes_max() {
            return Err(ErrorCode::UnknownServerError);
        }
        let batch = builder.build().expect("nothing is compressed here");
        let (_, mark) = self.log.append(batch).map_err(coordinator_error)?;
        self.last_append.set(Some(mark));
        records.iter().for_each(|record| coordinator.replay(record));
        Ok(())
    }

    fn follow_up(&self, record: &TransactionRecord) {
        if record.transaction.as_ref().is_some_and(|transaction| transaction.state.is_prepared()) {
            self.begin_completion(&record.transactional_id, self.last_append.get());
        }
    }

    async fn wait_durable(&self, mark: Option<GroupSequence>) -> Result<(), ErrorCode> {
        let Some(mark) = mark else { return Ok(()) };
        self.log.committed(mark).await.map_err(|error| {
            // A wait that has taken too long says nothing about the log; everything else does.
            if error != ErrorCode::RequestTimedOut {
                self.fail(error);
            }
            coordinator_error(error)
        })
    }

    // The end of what is decided

    /// Has a prepared transaction brought to its end, whoever asked for it and whether they still listen.
    fn begin_completion(&self, transactional_id: &Str, decided: Option<GroupSequence>) {
        let (this, id) = (self.this.clone(), transactional_id.detached());
        let task = rt::spawn(async move {
            let Some(host) = this.upgrade() else { return };
            host.bring_to_end(&id, decided).await;
            if let Some(finished) = host.completing.borrow_mut().remove(&id) {
                finished.detach();
            }
        });
        let before = self.completing.borrow_mut().insert(transactional_id.detached(), task);
        debug_assert!(before.is_none(), "a transaction is brought to its end once");
    }

    async fn bring_to_end(&self, transactional_id: &Str, decided: Option<GroupSequence>) {
        if self.wait_durable(decided).await.is_err() {
            // Whether the decision is durable nobody knows; loading anew tells.
            return self.fail(ErrorCode::RequestTimedOut);
        }
        let Ok(Some(completion)) = self.with_coordinator(|coordinator| coordinator.completion(transactional_id)) else { return };
        if self.write_markers(transactional_id, &completion).await {
            self.record_end(transactional_id, &completion).await;
            self.completed.notify_all();
        }
    }

    /// Writes the markers, again and again where they are not taken. False if one of them will never be: then the transaction stays where it is.
    async fn write_markers(&self, transactional_id: &Str, completion: &Completion) -> bool {
        let mut left = self.common.resolve(&completion.partitions);
        let mut pause = MARKER_PAUSE_MIN;
        loop {
            if left.is_empty() {
                return true;
            }
            let markers = Markers {
                producer_id: completion.producer.id,
                producer_epoch: completion.producer.epoch,
                is_commit: completion.is_commit,
                coordinator_epoch: self.log.partition.leader_epoch(),
                transaction_version: completion.version,
                partitions: left.clone(),
            };
            let outcomes = (self.common.surroundings().write_markers)(markers).await;
            let mut not_taken = Vec::new();
            for (partition, outcome) in left.into_iter().zip(outcomes) {
                match outcome {
                    ErrorCode::None => {}
                    ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
                        tracing::error!(
                            %transactional_id, producer_id = completion.producer.id, %partition, error = outcome.name(),
                            "a marker is refused for good; the transaction stays prepared"
                        );
                        return false;
                    }
                    _ => not_taken.push(partition),
                }
            }
            // Topics may have been deleted meanwhile.
            let image = self.common.image();
            not_taken.retain(|partition| image.partition(partition).is_some());
            left = not_taken;
            if !left.is_empty() {
                rt::sleep(pause).await;
                pause = (pause * 2).min(MARKER_PAUSE_MAX);
            }
        }
    }

    async fn record_end(&self, transactional_id: &Str, completion: &Completion) {
        let mut pause = MARKER_PAUSE_MIN;
        loop {
            let appended = self.log.with_room(RECORD_BYTES + transactional_id.len(), || {
                self.with_coordinator(|coordinator| match coordinator.complete(rt::wall_clock_ms(), transactional_id, completion) {
                    Some(record) => self.append(coordinator, std::slice::from_ref(&record)),
                    None => Ok(()),
                })
            });
            match appended.await {
                Ok(Ok(())) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%transactional_id, error = error.name(), "the end of a transaction could not be recorded; it is tried again")
                }
            }
            rt::sleep(pause).await;
            pause = (pause * 2).min(MARKER_PAUSE_MAX);
        }
    }

    // Time

    /// Aborts the transactions that have taken longer than their producers said.
    pub(super) async fn abort_timed_out(&self) {
        let timed_out = self.with_coordinator(|coordinator| coordinator.timed_out(rt::wall_clock_ms()));
        for transactional_id in timed_out.unwrap_or_default() {
            let mut fresh_producer_id = None;
            while !self.log.with_room(RECORD_BYTES * 2, || self.abort_now(&transactional_id, fresh_producer_id)).await {
                match (self.common.surroundings().next_producer_id)().await {
                    Ok(id) => fresh_producer_id = Some(id),
                    Err(error) => {
                        tracing::warn!(%transactional_id, error = error.name(), "no producer id to abort a transaction with; later");
                        break;
                    }
                }
            }
            rt::yield_now().await;
        }
    }

    /// False if a producer id is needed first.
    fn abort_now(&self, transactional_id: &Str, fresh_producer_id: Option<i64>) -> bool {
        let aborted = self.with_coordinator(|coordinator| {
            let version = self.common.transaction_version();
            match coordinator.abort_timed_out(rt::wall_clock_ms(), version, fresh_producer_id, transactional_id) {
                None => Ok(true),
                Some(Err(_)) => Ok(false),
                Some(Ok(record)) => {
                    self.append(coordinator, std::slice::from_ref(&record))?;
                    self.follow_up(&record);
                    tracing::info!(%transactional_id, "aborted a transaction that took longer than its producer said");
                    Ok::<bool, ErrorCode>(true)
                }
            }
        });
        match aborted {
            Ok(Ok(is_done)) => is_done,
            Ok(Err(error)) => {
                tracing::warn!(%transactional_id, error = error.name(), "a transaction that timed out could not be aborted yet");
                true
            }
            Err(_) => true,
        }
    }

    /// Forgets the ids that nobody has used for long.
    pub(super) async fn expire(&self) {
        let mut after: Option<Str> = None;
        loop {
            let room_bytes = EXPIRY_LOOKS * RECORD_BYTES;
            let step = self.log.with_room(room_bytes, || {
                self.with_coordinator(|coordinator| {
                    let (records, next) = coordinator.expire(rt::wall_clock_ms(), after.as_ref(), EXPIRY_LOOKS);
                    if !records.is_empty() {
                        self.append(coordinator, &records)?;
                    }
                    Ok::<Option<Str>, ErrorCode>(next)
                })
            });
            match step.await {
                Ok(Ok(Some(next))) => after = Some(next),
                Ok(Ok(None)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = error.name(), "expired transactional ids could not be removed yet");
                    return;
                }
            }
            rt::yield_now().await;
        }
    }

    // What happens around it

    /// What was appended may not be durable: what this coordinator holds for true may not be.
    fn fail(&self, error: ErrorCode) {
        let is_serving = matches!(&*self.life.borrow(), Life::Serving(_));
        if is_serving {
            tracing::error!(
                error = error.name(),
                "a transaction coordinator's records did not become durable; it stops and is loaded anew"
            );
            *self.life.borrow_mut() = Life::Failed;
            // Their own tasks, one of which may be speaking here, end by themselves: nothing is served any more.
            for (_, task) in self.completing.borrow_mut().drain() {
                task.detach();
            }
            self.completed.notify_all();
            self.has_failed.notify_all();
        }
    }
}

impl Hosts for Host {
    fn dismiss(&self) {
        *self.life.borrow_mut() = Life::Failed;
        self.completing.borrow_mut().clear();
        self.completed.notify_all();
    }

    async fn failed(&self) {
        self.has_failed.until(|| matches!(&*self.life.borrow(), Life::Failed)).await;
    }
}

/// About how much the step of this call may append; 0 for calls that never append.
fn room_for(call: &Call) -> usize {
    match call {
        Call::Initialise { transactional_id, .. } | Call::End { transactional_id, .. } => RECORD_BYTES + transactional_id.len(),
        Call::AddPartitions { transactional_id, partitions, .. } => {
            RECORD_BYTES + transactional_id.len() + partitions.iter().map(|(topic, _)| topic.len() + 16).sum::<usize>()
        }
        Call::Verify { .. } | Call::Describe { .. } | Call::List { .. } => 0,
    }
}

/// Why a coordinator could not be loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    Read(ErrorCode),
    Batch(BatchError),
    /// Kafka writes this topic without compression, whatever its settings say.
    Compressed {
        offset: i64,
    },
    Records {
        offset: i64,
    },
    Record {
        offset: i64,
        error: RecordError,
    },
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Read(error) => write!(f, "the log cannot be read: {}", error.name()),
            LoadError::Batch(error) => write!(f, "a batch is damaged: {error}"),
            LoadError::Compressed { offset } => write!(f, "the batch at offset {offset} is compressed"),
            LoadError::Records { offset } => write!(f, "the records of the batch at offset {offset} are damaged"),
            LoadError::Record { offset, error } => write!(f, "offset {offset}: {error}"),
        }
    }
}

impl From<ErrorCode> for LoadError {
    fn from(error: ErrorCode) -> LoadError {
        LoadError::Read(error)
    }
}

/// Replays one batch of the log and gives the offset behind it.
fn replay_batch(coordinator: &mut Coordinator, batch: &Bytes) -> Result<i64, LoadError> {
    let header = BatchHeader::parse(batch).map_err(LoadError::Batch)?;
    header.check_crc(batch).map_err(LoadError::Batch)?;
    let base_offset = header.base_offset;
    if header.attributes.is_control() {
        return Ok(header.last_offset() + 1);
    }
    if header.compression().map_err(LoadError::Batch)? != Compression::None {
        return Err(LoadError::Compressed { offset: base_offset });
    }
    let records = batch.slice(HEADER_BYTES..);
    for record in RecordIterator::new(&records, header.record_count) {
        let record = record.map_err(|_| LoadError::Records { offset: base_offset })?;
        let offset = base_offset + i64::from(record.offset_delta);
        let key = record.key.map(|key| records.slice_ref(key));
        let value = record.value.map(|value| records.slice_ref(value));
        let decoded = TransactionRecord::decode(key.as_ref(), value.as_ref()).map_err(|error| LoadError::Record { offset, error })?;
        if let Some(record) = decoded {
            coordinator.replay(&record);
        }
    }
    Ok(header.last_offset() + 1)
}
