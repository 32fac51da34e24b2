//! The controller, on shard 0: the only writer of the metadata log.
//!
//! Requests wait in one queue. A single task takes what is there, decides each over the picture that the ones before it leave (`cluster::decide`), writes the records of all
//! of them as one batch each, waits once until they are durable, hands the new picture to all shards, and only then answers. So an answer is never ahead of the disk nor of what any
//! shard knows, and many requests share one commit.
//!
//! A quorum of one: what is durable is committed. A start is an election that this node wins by itself: a new epoch, noted in `quorum-state` before the first record is written
//! in it, and then a leader change as the first record (KIP-595).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::metadata_files::{MetadataFiles, StartRefused, begin_replay, finish_replay};
use crate::cluster::decide::configs::{ResourceChange, alter_configs};
use crate::cluster::decide::create_topics::{create_topics, refuse_creation};
use crate::cluster::decide::partitions::{create_partitions, refuse_growth};
use crate::cluster::decide::producer_ids::allocate_producer_ids;
use crate::cluster::decide::start::{Registration, abort_record, bootstrap_records, registration_records, shutdown_records};
use crate::cluster::decide::topics::{delete_topics, refuse_deletion};
use crate::cluster::decide::{Decision, Refusal, SettingRules};
use crate::cluster::kraft::batches::{BatchPlace, control_batch, metadata_batch};
use crate::cluster::kraft::control::ControlRecord;
use crate::cluster::kraft::quorum_state::QuorumState;
use crate::cluster::kraft::replay::Replayed;
use crate::cluster::kraft::snapshot::{QuorumFacts, SnapshotId, snapshot_batches};
use crate::cluster::placement::Randomness;
use crate::cluster::{Image, METADATA_VERSION_LATEST, MetadataRecord};
use crate::config::Config;
use crate::rt;
use crate::rt::sync::{Notify, Sender, oneshot};
use crate::wire::ErrorCode;
use crate::wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

/// Records of a start or a stop in one batch: they need not be atomic, and a batch has to fit into a group of the journal.
const RECORDS_PER_BATCH_MAX: usize = 5_000;
/// Bytes of batches that share one commit; the request that passes it is still in.
const COMMIT_BYTES_MAX: usize = 1 << 20;
/// How often the age of the last snapshot is looked at, at most.
const SNAPSHOT_AGE_CHECK_MAX: Duration = Duration::from_secs(60);

pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The rooms around the controller, as calls: the log's partition and the other shards belong to rooms above or beside this one.
pub struct Surroundings {
    /// Whole batches of the metadata log from the one that holds the offset on, some at a time; empty at the end.
    pub read: Box<dyn Fn(i64) -> LocalFuture<Result<Bytes, String>>>,
    /// Appends batches in this order, as leader of this epoch; resolves when all are durable.
    pub append: Box<dyn Fn(Append) -> LocalFuture<Result<(), AppendFailure>>>,
    /// Resolves when every shard answers by the picture, its partitions made or let go.
    pub publish: Box<dyn Fn(Arc<Image>) -> LocalFuture<()>>,
    /// Whether the disks have room for new partitions; for what makes room or says where it may be made there always is some.
    pub has_room: Box<dyn Fn() -> bool>,
}

/// Why batches are not in the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendFailure {
    /// There was no room for too long. Nothing of them was appended.
    NoRoom,
    /// The log takes no more writes, for this reason.
    Failed(String),
}

/// Batches for the end of the metadata log; their base offsets and epochs are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub base_offset: i64,
    pub epoch: i32,
    pub batches: Vec<Bytes>,
}

/// What can be asked of the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum ControllerRequest {
    CreateTopics(CreateTopicsRequest),
    DeleteTopics {
        request: DeleteTopicsRequest,
        /// Of the request: the refusal depends on it.
        version: i16,
    },
    CreatePartitions(CreatePartitionsRequest),
    AlterConfigs {
        changes: Vec<ResourceChange>,
        validate_only: bool,
    },
    AllocateProducerIds,
}

/// The answer, once durable and published.
#[derive(Clone, Debug, PartialEq)]
pub enum ControllerReply {
    CreateTopics(CreateTopicsResponse),
    DeleteTopics(DeleteTopicsResponse),
    CreatePartitions(CreatePartitionsResponse),
    /// One for each resource, in order.
    AlterConfigs(Vec<Result<(), Refusal>>),
    /// The block that now belongs to the caller.
    AllocateProducerIds(Result<Range<i64>, Refusal>),
}

/// The controller of this node. Its task runs until [`Controller::stop`].
pub struct Controller {
    surroundings: Surroundings,
    files: MetadataFiles,
    node_id: i32,
    state: RefCell<State>,
    queue: RefCell<VecDeque<Job>>,
    queued: Notify,
    is_writing_snapshot: Cell<bool>,
}

/// What is committed, and what follows from it.
struct State {
    image: Arc<Image>,
    /// The broker's settings as the picture alters them.
    config: Arc<Config>,
    facts: QuorumFacts,
    next_offset: i64,
    epoch: i32,
    last_timestamp_ms: i64,
    bytes_since_snapshot: u64,
    /// When the last snapshot was taken, or this life began.
    snapshot_taken_ms: i64,
    /// Why nothing is taken any more.
    closed: Option<Refusal>,
}

enum Job {
    Request { request: ControllerRequest, answer: Sender<ControllerReply> },
    Stop { done: Sender<Result<i64, Refusal>> },
}

/// Records that are decided but not yet written, and the picture that they leave.
struct Draft {
    image: Image,
    base_offset: i64,
    next_offset: i64,
    epoch: i32,
    now_ms: i64,
    batches: Vec<Bytes>,
    bytes: usize,
}

impl Controller {
    /// Reads the metadata log, begins a new epoch, registers this node and raises every leader epoch. When this returns, all shards have the picture.
    pub async fn start(
        surroundings: Surroundings,
        files: MetadataFiles,
        config: Arc<Config>,
        registration: &Registration,
    ) -> Result<Rc<Controller>, StartRefused> {
        let node_id = registration.node_id;
        let start = read_start(&files).await?;
        let mut replay = begin_replay(&start)?;
        loop {
            let batches = (surroundings.read)(replay.next_offset()).await.map_err(StartRefused::Storage)?;
            if batches.is_empty() {
                break;
            }
            replay.read(batches)?;
            rt::yield_now().await;
        }
        let replayed = finish_replay(replay, &start, node_id, &registration.directories)?;

        let former_epoch = start.quorum_state.map_or(0, |state| state.leader_epoch);
        let epoch = former_epoch.max(replayed.epoch) + 1;
        note_epoch(&files, QuorumState::leading_alone(node_id, epoch, replayed.facts.kraft_version)).await?;
        let (facts, snapshot_offset) = (replayed.facts.clone(), start.snapshot.map_or(0, |(id, _)| id.end_offset));
        let draft = first_draft(replayed, &start.bootstrap, registration, &config, epoch);
        (surroundings.append)(draft.append()).await.map_err(|failure| StartRefused::Storage(failure.to_string()))?;

        let now_ms = rt::wall_clock_ms();
        let state = State {
            config: follow(&config, &draft.image),
            image: Arc::new(draft.image),
            facts,
            next_offset: draft.next_offset,
            epoch,
            last_timestamp_ms: draft.now_ms,
            // What lies behind the last snapshot counts from the first life that finds it; bytes are not known for it, so records stand for them.
            bytes_since_snapshot: (draft.next_offset - snapshot_offset).max(0) as u64 * RECORD_BYTES_TYPICAL,
            snapshot_taken_ms: now_ms,
            closed: None,
        };
        let controller = Rc::new(Controller {
            surroundings,
            files,
            node_id,
            state: RefCell::new(state),
            queue: RefCell::default(),
            queued: Notify::new(),
            is_writing_snapshot: Cell::new(false),
        });
        (controller.surroundings.publish)(controller.image()).await;
        rt::spawn(Rc::clone(&controller).run()).detach();
        rt::spawn_background(watch_snapshot_age(Rc::downgrade(&controller))).detach();
        Ok(controller)
    }

    /// Answers when what was decided is durable and every shard knows it. A caller that goes away does not undo it.
    pub async fn handle(&self, request: ControllerRequest) -> ControllerReply {
        let closed = self.state.borrow().closed.clone();
        if let Some(refusal) = closed.or_else(|| self.lack_of_room(&request)) {
            return refused(&request, &refusal);
        }
        let (answer, reply) = oneshot();
        self.queue.borrow_mut().push_back(Job::Request { request, answer });
        self.queued.notify_all();
        reply.await.expect("the controller answers every request that it takes")
    }

    /// A full disk takes no new partitions: their directories and first entries would use up what deletions need.
    fn lack_of_room(&self, request: &ControllerRequest) -> Option<Refusal> {
        let makes_partitions = matches!(request, ControllerRequest::CreateTopics(_) | ControllerRequest::CreatePartitions(_));
        let is_lacking = makes_partitions && !(self.surroundings.has_room)();
        is_lacking.then(|| Refusal::new(ErrorCode::KafkaStorageError, "The data directory is full."))
    }

    /// The picture that is committed.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.state.borrow().image)
    }

    /// A clean stop: what was asked before is answered, then the partitions are handed back and the node is fenced, durably. Returns the broker's epoch, which the marker of a
    /// clean stop carries. The other shards keep the picture that they have.
    pub async fn stop(&self) -> Result<i64, Refusal> {
        let closed = self.state.borrow().closed.clone();
        if let Some(refusal) = closed {
            return Err(refusal);
        }
        let (done, result) = oneshot();
        self.queue.borrow_mut().push_back(Job::Stop { done });
        self.queued.notify_all();
        result.await.expect("the controller answers the stop")
    }

    async fn run(self: Rc<Self>) {
        loop {
            let queued = self.queued.notified();
            if self.queue.borrow().is_empty() {
                queued.await;
                continue;
            }
            if self.serve_queue().await {
                return;
            }
        }
    }

    /// One commit: decides what waits, writes, publishes, answers. True when the controller has stopped.
    async fn serve_queue(self: &Rc<Self>) -> bool {
        let mut draft = self.draft();
        let mut answers = Vec::new();
        let mut stop = None;
        while draft.bytes < COMMIT_BYTES_MAX {
            let Some(job) = self.queue.borrow_mut().pop_front() else { break };
            match job {
                Job::Request { request, answer } => {
                    let reply = self.decide(&mut draft, &request);
                    answers.push((request, answer, reply));
                }
                Job::Stop { done } => {
                    draft.push_in_pieces(shutdown_records(&draft.image, self.node_id));
                    stop = Some(done);
                    break;
                }
            }
        }
        let committed = self.commit(draft, stop.is_none()).await;
        for (request, answer, reply) in answers {
            let reply = match &committed {
                Ok(()) => reply,
                Err(refusal) => refused(&request, refusal),
            };
            // Who asked may have gone; what was decided stays.
            let _gone = answer.send(reply);
        }
        if let Some(done) = stop {
            let broker_epoch = self.image().broker(self.node_id).map_or(-1, |broker| broker.epoch);
            self.close(Refusal::new(ErrorCode::BrokerNotAvailable, "The broker is stopping."));
            let _gone = done.send(committed.map(|()| broker_epoch));
            return true;
        }
        if self.state.borrow().closed.is_some() {
            return true;
        }
        self.snapshot_if_due();
        false
    }

    fn draft(&self) -> Draft {
        let state = self.state.borrow();
        Draft::new((*state.image).clone(), state.next_offset, state.epoch)
    }

    fn decide(&self, draft: &mut Draft, request: &ControllerRequest) -> ControllerReply {
        let config = Arc::clone(&self.state.borrow().config);
        let rules: &dyn SettingRules = &*config;
        let mut random = KernelRandomness;
        match request {
            ControllerRequest::CreateTopics(request) => {
                let decision = create_topics(&draft.image, request, rules, &mut random);
                ControllerReply::CreateTopics(draft.take(decision))
            }
            ControllerRequest::DeleteTopics { request, version } => {
                let decision = delete_topics(&draft.image, request, *version, rules);
                ControllerReply::DeleteTopics(draft.take(decision))
            }
            ControllerRequest::CreatePartitions(request) => {
                let decision = create_partitions(&draft.image, request, &mut random);
                ControllerReply::CreatePartitions(draft.take(decision))
            }
            ControllerRequest::AlterConfigs { changes, validate_only } => {
                let mut decision = alter_configs(&draft.image, changes, rules);
                if *validate_only {
                    decision.records.clear();
                }
                ControllerReply::AlterConfigs(draft.take(decision))
            }
            ControllerRequest::AllocateProducerIds => {
                let decision = allocate_producer_ids(&draft.image, self.node_id);
                ControllerReply::AllocateProducerIds(draft.take(decision))
            }
        }
    }

    /// Makes a draft durable, then everybody's. Without room for it, it is as if it had never been. After a failure nothing is taken any more: what the disk holds is known only after a restart.
    async fn commit(&self, draft: Draft, publish: bool) -> Result<(), Refusal> {
        if draft.batches.is_empty() {
            return Ok(());
        }
        match (self.surroundings.append)(draft.append()).await {
            Ok(()) => {}
            Err(failure @ AppendFailure::NoRoom) => return Err(Refusal::new(ErrorCode::KafkaStorageError, failure.to_string())),
            Err(AppendFailure::Failed(error)) => {
                tracing::error!(%error, "the metadata log has failed: topics and settings cannot be changed until a restart");
                let refusal = Refusal::new(ErrorCode::KafkaStorageError, format!("The metadata log has failed: {error}"));
                self.close(refusal.clone());
                return Err(refusal);
            }
        }
        let image = Arc::new(draft.image);
        {
            let mut state = self.state.borrow_mut();
            state.config = follow(&state.config, &image);
            state.image = Arc::clone(&image);
            state.next_offset = draft.next_offset;
            state.last_timestamp_ms = draft.now_ms;
            state.bytes_since_snapshot += draft.bytes as u64;
        }
        if publish {
            (self.surroundings.publish)(image).await;
        }
        Ok(())
    }

    /// From now on everything is refused, also what waits already.
    fn close(&self, refusal: Refusal) {
        let waiting = self.queue.take();
        for job in waiting {
            match job {
                Job::Request { request, answer } => drop(answer.send(refused(&request, &refusal))),
                Job::Stop { done } => drop(done.send(Err(refusal.clone()))),
            }
        }
        self.state.borrow_mut().closed.get_or_insert(refusal);
    }

    /// Kafka's thresholds: so many bytes, or so much time with something new.
    fn snapshot_if_due(self: &Rc<Self>) {
        let now_ms = rt::wall_clock_ms();
        let is_due = {
            let state = self.state.borrow();
            let bytes_max = state.config.metadata_log_max_record_bytes_between_snapshots();
            let age_ms_max = state.config.metadata_log_max_snapshot_interval_ms();
            let is_old = age_ms_max > 0 && now_ms - state.snapshot_taken_ms >= age_ms_max;
            state.bytes_since_snapshot >= bytes_max.max(1) as u64 || (is_old && state.bytes_since_snapshot > 0)
        };
        if is_due && !self.is_writing_snapshot.replace(true) {
            rt::spawn_background(Rc::clone(self).write_snapshot()).detach();
        }
    }

    async fn write_snapshot(self: Rc<Self>) {
        let (image, facts, id, last_timestamp_ms) = {
            let mut state = self.state.borrow_mut();
            state.bytes_since_snapshot = 0;
            state.snapshot_taken_ms = rt::wall_clock_ms();
            let id = SnapshotId { end_offset: state.next_offset, epoch: state.image.epoch() };
            (Arc::clone(&state.image), state.facts.clone(), id, state.last_timestamp_ms)
        };
        let batches = snapshot_batches(&image, id.epoch, &facts, last_timestamp_ms, rt::wall_clock_ms());
        match self.files.write_snapshot(id, batches).await {
            Ok(bytes) => tracing::info!(snapshot = id.file_name(), bytes, "metadata snapshot written"),
            // The log still holds everything; the next threshold tries again.
            Err(error) => tracing::warn!(snapshot = id.file_name(), %error, "metadata snapshot failed"),
        }
        self.is_writing_snapshot.set(false);
    }
}

/// What a metadata record takes, roughly, where only their number is known.
const RECORD_BYTES_TYPICAL: u64 = 60;

async fn watch_snapshot_age(controller: std::rc::Weak<Controller>) {
    while let Some(controller) = controller.upgrade() {
        let (is_closed, age_ms_max) = {
            let state = controller.state.borrow();
            (state.closed.is_some(), state.config.metadata_log_max_snapshot_interval_ms())
        };
        if is_closed {
            return;
        }
        controller.snapshot_if_due();
        drop(controller);
        let age_max = if age_ms_max > 0 { Duration::from_millis(age_ms_max as u64) } else { SNAPSHOT_AGE_CHECK_MAX };
        rt::sleep(age_max.min(SNAPSHOT_AGE_CHECK_MAX)).await;
    }
}

async fn read_start(files: &MetadataFiles) -> Result<super::metadata_files::StartingPoint, StartRefused> {
    let files = files.clone();
    let start = rt::blocking(move || {
        files.remove_partial_blocking()?;
        files.read_start_blocking()
    });
    Ok(start.await?)
}

async fn note_epoch(files: &MetadataFiles, state: QuorumState) -> Result<(), StartRefused> {
    let files = files.clone();
    Ok(rt::blocking(move || files.write_quorum_state_blocking(&state)).await?)
}

/// The records with which a life begins: the leader change, what an empty or broken-off log needs, and the registration.
fn first_draft(replayed: Replayed, bootstrap: &[MetadataRecord], registration: &Registration, config: &Arc<Config>, epoch: i32) -> Draft {
    let is_empty = replayed.end_offset == 0;
    let mut draft = Draft::new(replayed.image, replayed.end_offset, epoch);
    let node_id = registration.node_id;
    let change = ControlRecord::LeaderChange { leader_id: node_id, voters: vec![node_id], granting_voters: vec![node_id] };
    // What the formatter said about the quorum has to stand in the log before anything depends on it.
    let facts = if is_empty { replayed.facts.records() } else { Vec::new() };
    draft.push_control(&std::iter::once(change).chain(facts).collect::<Vec<_>>());
    if replayed.transaction_is_open {
        draft.push(vec![abort_record()]);
    }
    if draft.image.metadata_version().is_none() {
        draft.push(bootstrap_records(bootstrap, config.min_insync_replicas_default()));
    }
    let registered = registration_records(&draft.image, registration, draft.next_offset);
    draft.push_in_pieces(registered);
    draft
}

/// The settings as a picture alters them.
fn follow(config: &Arc<Config>, image: &Image) -> Arc<Config> {
    let Some((altered, rejected)) = config.following(image) else { return Arc::clone(config) };
    for sentence in rejected {
        tracing::warn!(reason = sentence, "a setting in the metadata does not count here");
    }
    Arc::new(altered)
}

impl Draft {
    fn new(image: Image, next_offset: i64, epoch: i32) -> Self {
        Self { image, base_offset: next_offset, next_offset, epoch, now_ms: rt::wall_clock_ms(), batches: Vec::new(), bytes: 0 }
    }

    fn place(&self) -> BatchPlace {
        BatchPlace { base_offset: self.next_offset, epoch: self.epoch, timestamp_ms: self.now_ms }
    }

    /// Takes a decision in: its records become one batch, its reply comes back to wait for it.
    fn take<R>(&mut self, decision: Decision<R>) -> R {
        self.push(decision.records);
        decision.reply
    }

    fn push(&mut self, records: Vec<MetadataRecord>) {
        if records.is_empty() {
            return;
        }
        for record in &records {
            self.image.apply(record).unwrap_or_else(|error| panic!("a {} that was just decided {error}", record.name()));
        }
        let level = self.image.metadata_version().unwrap_or(METADATA_VERSION_LATEST);
        let batch = metadata_batch(&records, level, self.place()).expect("what is decided can be written in the level that is finalised");
        self.push_batch(batch, records.len());
    }

    fn push_in_pieces(&mut self, records: Vec<MetadataRecord>) {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            self.push(records.by_ref().take(RECORDS_PER_BATCH_MAX).collect());
        }
    }

    fn push_control(&mut self, records: &[ControlRecord]) {
        let batch = control_batch(records, self.place()).expect("control records have one version");
        self.push_batch(batch, records.len());
    }

    fn push_batch(&mut self, batch: Bytes, records: usize) {
        self.bytes += batch.len();
        self.batches.push(batch);
        self.next_offset += records as i64;
        self.image.advance(self.next_offset - 1, self.epoch);
    }

    fn append(&self) -> Append {
        Append { base_offset: self.base_offset, epoch: self.epoch, batches: self.batches.clone() }
    }
}

impl std::fmt::Display for AppendFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AppendFailure::NoRoom => formatter.write_str("There is no room for more in the journal at present."),
            AppendFailure::Failed(error) => formatter.write_str(error),
        }
    }
}

/// The answer to a request of which nothing is done.
fn refused(request: &ControllerRequest, refusal: &Refusal) -> ControllerReply {
    match request {
        ControllerRequest::CreateTopics(request) => ControllerReply::CreateTopics(refuse_creation(request, refusal)),
        ControllerRequest::DeleteTopics { request, .. } => ControllerReply::DeleteTopics(refuse_deletion(request, refusal)),
        ControllerRequest::CreatePartitions(request) => ControllerReply::CreatePartitions(refuse_growth(request, refusal)),
        ControllerRequest::AlterConfigs { changes, .. } => {
            ControllerReply::AlterConfigs(changes.iter().map(|_| Err(refusal.clone())).collect())
        }
        ControllerRequest::AllocateProducerIds => ControllerReply::AllocateProducerIds(Err(refusal.clone())),
    }
}

/// Chance from the kernel.
struct KernelRandomness;

impl Randomness for KernelRandomness {
    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        rt::random_bytes(&mut bytes);
        // The remainder's bias is below one in 2^40 for any cluster there is.
        (u64::from_ne_bytes(bytes) % bound as u64) as usize
    }

    fn uuid(&mut self) -> Uuid {
        rt::random_uuid()
    }
}
