//! Drives one coordinator over its log: loads it, appends what it decides, replays it, and lets replies go when everything appended before them is committed.
//!
//! Deciding, appending and replaying happen in one go without an await, so decisions never overlap; only the waits for commitment do. No reply overtakes a record: what a reply
//! speaks of, be it a heartbeat's "all is well", rests on everything appended until then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use uuid::Uuid;

use super::log::{Batches, LoadError, OffsetsLog, replay_batch};
use crate::cluster::Image;
use crate::drive::coordinators::{Hosts, replay_log};
use crate::group::{Call, Caller, Coordinator, GroupConfig, Now, Reply, Step, Token};
use crate::log::ValidatedBatch;
use crate::rt::sync::{Notify, Receiver, Sender, oneshot};
use crate::wire::batch::NO_PRODUCER_ID;
use crate::wire::{ErrorCode, Str};

/// What one tick appends, but for group ids and topic names of unusual length: a thousand tombstones.
const TICK_BYTES_MAX: usize = 256 << 10;

/// Tells the time.
pub(super) type Clock = Rc<dyn Fn() -> Now>;

/// One coordinator with its log.
pub(super) struct Host<L: OffsetsLog> {
    log: L,
    clock: Clock,
    life: RefCell<Life>,
    /// Who waits, by the token that the coordinator knows him by.
    waiting: RefCell<HashMap<Token, Sender<Released<L::Mark>>>>,
    next_token: Cell<u64>,
    /// Everything appended so far.
    last_append: Cell<Option<L::Mark>>,
    has_failed: Notify,
}

enum Life {
    /// The log is being read. Topics deleted meanwhile are remembered.
    Loading {
        deleted_topics: Vec<(Str, Uuid)>,
    },
    Serving(Box<Coordinator>),
    /// The log could not be read or written. Only loading anew helps.
    Failed,
}

/// A reply, and what has to be committed before it may be told.
struct Released<M> {
    reply: Reply,
    rests_on: Option<M>,
}

impl<L: OffsetsLog> Host<L> {
    /// A host that answers COORDINATOR_LOAD_IN_PROGRESS until `load` is done.
    pub(super) fn new(log: L, clock: Clock) -> Host<L> {
        Host {
            log,
            clock,
            life: RefCell::new(Life::Loading { deleted_topics: Vec::new() }),
            waiting: RefCell::default(),
            next_token: Cell::new(0),
            last_append: Cell::new(None),
            has_failed: Notify::new(),
        }
    }

    // Loading

    /// Reads the whole log and starts to serve; gives the number of groups. `config` and `image` are as they are when they are asked for; the image tells topics that were deleted while nobody
    /// coordinated from those that are there.
    pub(super) async fn load(
        &self,
        config: impl Fn() -> GroupConfig,
        image: impl Fn() -> Arc<Image>,
        pause: impl AsyncFn(),
    ) -> Result<usize, LoadError> {
        *self.life.borrow_mut() = Life::Loading { deleted_topics: Vec::new() };
        // What is read is committed; what was appended before and lost is nothing to wait for.
        self.last_append.set(None);
        let loaded = self.replay_log(config(), &pause).await;
        let mut life = self.life.borrow_mut();
        // Dismissed meanwhile.
        let Life::Loading { deleted_topics } = &mut *life else { return Ok(0) };
        let deleted_topics = std::mem::take(deleted_topics);
        match loaded {
            Ok(mut coordinator) => {
                let image = image();
                coordinator.on_config(config());
                coordinator.on_image(&image);
                coordinator.on_loaded((self.clock)());
                for (name, id) in deleted_topics {
                    coordinator.on_topic_deleted(&name, id);
                }
                coordinator.forget_topics_unless(|id| image.topic_by_id(&id).is_some());
                let group_count = coordinator.group_count();
                *life = Life::Serving(Box::new(coordinator));
                Ok(group_count)
            }
            Err(error) => {
                *life = Life::Failed;
                Err(error)
            }
        }
    }

    async fn replay_log(&self, config: GroupConfig, pause: &impl AsyncFn()) -> Result<Coordinator, LoadError> {
        let mut coordinator = Coordinator::new(config);
        let replay = async |offset, batch: &Bytes| replay_batch(&mut coordinator, (self.clock)(), offset, batch, pause).await;
        replay_log(&self.log, replay, pause).await?;
        Ok(coordinator)
    }

    // Calls

    /// Answers one call. `decided` runs as soon as the coordinator has decided, before any wait.
    pub(super) async fn call(&self, caller: &Caller, call: &Call, decided: impl FnOnce()) -> Reply {
        let room_bytes = self.room_for(call);
        let mut waiting = match self.log.with_room(room_bytes, || self.decide(caller, call)).await {
            Ok(waiting) => waiting,
            Err(error) => return call.refuse(error),
        };
        decided();
        match (&mut waiting.receiver).await {
            Some(released) => self.tell_when_committed(released).await,
            None => call.refuse(ErrorCode::NotCoordinator),
        }
    }

    fn room_for(&self, call: &Call) -> usize {
        match &*self.life.borrow() {
            Life::Serving(coordinator) => coordinator.room_for(call),
            Life::Loading { .. } | Life::Failed => 0,
        }
    }

    fn decide(&self, caller: &Caller, call: &Call) -> Result<Waiting<'_, L>, ErrorCode> {
        let mut life = self.life.borrow_mut();
        let coordinator = match &mut *life {
            Life::Serving(coordinator) => coordinator,
            Life::Loading { .. } => return Err(ErrorCode::CoordinatorLoadInProgress),
            Life::Failed => return Err(ErrorCode::NotCoordinator),
        };
        let token = Token(self.next_token.replace(self.next_token.get() + 1));
        let (sender, receiver) = oneshot();
        self.waiting.borrow_mut().insert(token, sender);
        let step = coordinator.handle((self.clock)(), token, caller, call);
        self.carry_out(coordinator, step);
        Ok(Waiting { host: self, token, receiver })
    }

    async fn tell_when_committed(&self, released: Released<L::Mark>) -> Reply {
        let Some(mark) = released.rests_on else { return released.reply };
        match self.log.committed(mark).await {
            Ok(()) => released.reply,
            Err(error) => {
                // A wait that has taken too long says nothing about the log; everything else does.
                if error != ErrorCode::RequestTimedOut {
                    self.fail(error);
                }
                released.reply.refuse(error)
            }
        }
    }

    // Steps

    /// Appends a step's records, replays them, and lets its replies go.
    fn carry_out(&self, coordinator: &mut Coordinator, step: Step) {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            match self.append(coordinator, &step) {
                Ok(()) => self.release(step.replies),
                Err(error) => {
                    tracing::warn!(error = error.name(), records = step.records.len(), "a group coordinator's records were refused");
                    let after = coordinator.refused((self.clock)(), step, error);
                    assert!(after.records.is_empty(), "a refusal is not answered with more to append");
                    next = Some(after);
                }
            }
        }
    }

    fn append(&self, coordinator: &mut Coordinator, step: &Step) -> Result<(), ErrorCode> {
        if step.records.is_empty() {
            return Ok(());
        }
        let now = (self.clock)();
        let packed = Batches::pack(step, self.log.batch_bytes_max(), now.wall_ms)?;
        let producer_id = step.transaction.map_or(NO_PRODUCER_ID, |transaction| transaction.producer_id);
        for (range, batch) in packed.batches {
            let (base_offset, mark) = match &step.transaction {
                None => self.log.append(batch)?,
                Some(transaction) => self.log.append_in_transaction(batch, transaction.guard)?,
            };
            self.last_append.set(Some(mark));
            for (offset, record) in (base_offset..).zip(&step.records[range]) {
                coordinator.replay(now, offset, producer_id, record);
            }
        }
        Ok(())
    }

    /// Appends the marker that ends a producer's transaction: its offsets count now, or never. Gives what has to be durable before that may be told.
    pub(super) async fn end_transaction(&self, marker: &ValidatedBatch, transaction_version: i16) -> Result<L::Mark, ErrorCode> {
        let end = marker.end_marker.expect("a marker ends a transaction");
        let append = || match &mut *self.life.borrow_mut() {
            Life::Serving(coordinator) => {
                let mark = self.log.append_marker(marker, transaction_version)?;
                self.last_append.set(Some(mark));
                coordinator.replay_end_transaction(marker.info.producer_id, end.is_commit);
                Ok(mark)
            }
            Life::Loading { .. } => Err(ErrorCode::CoordinatorLoadInProgress),
            Life::Failed => Err(ErrorCode::NotCoordinator),
        };
        self.log.with_room(marker.bytes.len(), append).await
    }

    fn release(&self, replies: Vec<(Token, Reply)>) {
        let mut waiting = self.waiting.borrow_mut();
        for (token, reply) in replies {
            if let Some(sender) = waiting.remove(&token) {
                // Nobody listens any more where a connection has gone.
                let _unheard = sender.send(Released { reply, rests_on: self.last_append.get() });
            }
        }
    }

    // Time

    /// When `tick` is to be called at the latest, on the steady clock.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        match &*self.life.borrow() {
            Life::Serving(coordinator) => coordinator.next_deadline_ms(),
            Life::Loading { .. } | Life::Failed => None,
        }
    }

    /// Does one step of what is due. False when nothing is.
    pub(super) async fn tick(&self) -> bool {
        self.log.with_room(TICK_BYTES_MAX, || self.tick_now()).await
    }

    fn tick_now(&self) -> bool {
        let mut life = self.life.borrow_mut();
        let Life::Serving(coordinator) = &mut *life else { return false };
        let Some(step) = coordinator.tick((self.clock)()) else { return false };
        self.carry_out(coordinator, step);
        true
    }

    // What happens around it

    /// The cluster's metadata has changed.
    pub(super) fn on_image(&self, image: &Arc<Image>) {
        // While the log is read, nothing is decided; the newest image is asked for then.
        if let Life::Serving(coordinator) = &mut *self.life.borrow_mut() {
            coordinator.on_image(image);
        }
    }

    /// The limits of groups were altered.
    pub(super) fn on_config(&self, config: GroupConfig) {
        if let Life::Serving(coordinator) = &mut *self.life.borrow_mut() {
            coordinator.on_config(config);
        }
    }

    /// The topic is no more, and its offsets with it.
    pub(super) fn on_topic_deleted(&self, name: &str, id: Uuid) {
        match &mut *self.life.borrow_mut() {
            Life::Serving(coordinator) => coordinator.on_topic_deleted(name, id),
            Life::Loading { deleted_topics } => deleted_topics.push((Str::from(name), id)),
            Life::Failed => {}
        }
    }

    #[cfg(test)]
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// What was appended is not committed: what this coordinator holds for true may not be.
    fn fail(&self, error: ErrorCode) {
        let is_serving = matches!(&*self.life.borrow(), Life::Serving(_));
        if is_serving {
            tracing::error!(error = error.name(), "a group coordinator's records did not become durable; it stops and is loaded anew");
            self.dismiss();
            self.has_failed.notify_all();
        }
    }
}

impl<L: OffsetsLog> Hosts for Host<L> {
    fn dismiss(&self) {
        let before = std::mem::replace(&mut *self.life.borrow_mut(), Life::Failed);
        if let Life::Serving(coordinator) = before {
            let replies = coordinator.dismiss(ErrorCode::NotCoordinator);
            self.release(replies);
        }
        // Whoever else waits hears that nobody will answer.
        self.waiting.borrow_mut().clear();
    }

    async fn failed(&self) {
        self.has_failed.until(|| matches!(&*self.life.borrow(), Life::Failed)).await;
    }
}

/// A call that waits for its reply. When the caller gives up, nothing of it stays behind.
struct Waiting<'a, L: OffsetsLog> {
    host: &'a Host<L>,
    token: Token,
    receiver: Receiver<Released<L::Mark>>,
}

impl<L: OffsetsLog> Drop for Waiting<'_, L> {
    fn drop(&mut self) {
        self.host.waiting.borrow_mut().remove(&self.token);
    }
}
