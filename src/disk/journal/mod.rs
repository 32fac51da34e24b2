//! The journal of a shard: the one durable door. Every change of durable state is an entry here before it is acknowledged.
//!
//! A ring of blocks in one file. Entries that arrive while earlier writes are under way become one group, and a group is one direct write with RWF_DSYNC from a fresh block on:
//! no timer, no block written twice, memory under a write never changes. Groups become durable in order, whatever the order in which their writes complete. What a group holds
//! stays in the ring until placement has brought it into its segment files and a checkpoint says so.
//!
//! Where to begin: `Journal::append` (synchronous: it copies the payload once and gives it back as shared memory), then `wait_durable`. A ring that is full refuses with
//! `JournalError::Full`; `wait_for_room` lets appenders in again one by one, in the order in which they came. A write that fails is not tried again: from then on nothing is taken
//! and nothing more becomes durable, until a restart has recovered.
//!
//! Below: `entry` and `group` are the format, `ring` keeps account of the room, `collector` lays groups out in memory, `shadow` copies those that need not be durable to where they
//! survive the process, `writer` writes them, `file` makes the ring, `replay` reads it back. Lives on its shard's thread and nowhere else.

pub mod collector;
pub mod entry;
pub mod file;
mod flush;
pub mod group;
pub mod replay;
pub mod ring;
pub mod shadow;
mod times;
mod upkeep;
mod waiting;
mod writer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use self::collector::{Collector, SealedGroup, entry_bytes};
use self::flush::Unflushed;
use self::group::{BLOCK_BYTES, GROUP_HEADER_BYTES, round_up_to_block};
use self::ring::Ring;
use self::shadow::Shadow;
use self::times::GroupTimes;
use self::waiting::{DurableQueue, RoomQueue};
use crate::cluster::TopicIdPartition;
use crate::disk::placement::backlog::{Backlog, Change, Cut};
use crate::disk::trace;
use crate::rt::file::{Durability, FileError};
use crate::rt::stages::Stages;
use crate::rt::sync::Notify;

pub use self::entry::{Entry, EntryHeader, EntryKind};
pub use self::file::RingFile;
pub use self::group::GroupSequence;
pub use self::waiting::Room;

/// A group closes at this size, so that a small record waits behind one bounded write at most; an entry that is larger is a group of its own.
pub const GROUP_BYTES_MAX: u64 = 512 << 10;

/// Groups whose writes may be under way at once: the second only if it is full. An open group that is written beside another splits what the next write would carry in one piece, and
/// what a small record waits beside bulk is what is in flight (perf/results/2026-11-21-journal.md).
pub const GROUPS_IN_FLIGHT_MAX: usize = 2;

/// Placement begins when this part of the ring is in use: early enough that it ends before the ring is full, late enough that it has much to write in one piece.
const PLACEMENT_SHARE: u64 = 4;

/// The same where files take nothing at present: this part of what they leave of the ring. What waits for them is written once more whenever the ring's room is to be taken again, so
/// that is done less often.
const PLACEMENT_SHARE_IN_TROUBLE: u64 = 2;

/// This part of the ring is kept for placement's own entries (`BlockPrefix`), without which a full ring could not be emptied.
const RESERVE_SHARE: u64 = 8;

/// An entry that was taken into the open group: durable once the journal's durable sequence has reached its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub sequence: GroupSequence,
    /// The payload in the group's own memory; tail cache, sends and placement share it.
    pub bytes: Bytes,
    /// It survives this process already, before its group is written.
    pub is_shadowed: bool,
}

/// Why the journal did not take an entry, or does not make it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The ring is full until placement has emptied a part of it, or others wait before the caller. Nothing was taken; `wait_for_room` says when to come again.
    Full,
    /// The payload can never fit into the ring. Nothing was taken.
    TooLarge { payload_bytes: usize, payload_bytes_max: usize },
    /// A write or flush failed earlier; it is not retried, and nothing more is taken or acknowledged until a restart has recovered.
    Failed { path: PathBuf, cause: String },
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStatistics {
    pub groups: u64,
    pub entries: u64,
    /// Payloads of all entries.
    pub payload_bytes: u64,
    /// Bytes written into the ring, headers and padding included.
    pub written_bytes: u64,
    /// Flushes of what was written without DSYNC.
    pub flushes: u64,
    /// Appends that found no room.
    pub refusals: u64,
}

/// What a checkpoint says of the journal: replay begins at this group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStart {
    pub sequence: GroupSequence,
    pub position: u64,
}

/// Hears up to where everything is durable now.
pub type DurableListener = Box<dyn FnMut(GroupSequence)>;

/// The journal of this shard.
pub struct Journal {
    ring_file: RingFile,
    journal_id: Uuid,
    durability: Durability,
    state: RefCell<State>,
    /// Wakes the writer when there is something to write and it has nothing under way that would wake it anyway.
    writer: Cell<Option<Waker>>,
    pressure: Notify,
    listeners: RefCell<Vec<DurableListener>>,
    written_listeners: RefCell<Vec<DurableListener>>,
    this: Weak<Journal>,
}

struct State {
    ring: Ring,
    collector: Collector,
    backlog: Backlog,
    /// Closed, not yet handed to the kernel.
    sealed: VecDeque<SealedGroup>,
    in_flight: VecDeque<InFlight>,
    durable: GroupSequence,
    durable_queue: DurableQueue,
    written_queue: DurableQueue,
    unflushed: Unflushed,
    shadow: Option<Shadow>,
    room_queue: RoomQueue,
    failure: Option<JournalError>,
    is_closed: bool,
    statistics: JournalStatistics,
    times: GroupTimes,
}

struct InFlight {
    sequence: GroupSequence,
    submitted: Instant,
    is_strong: bool,
    is_complete: bool,
}

/// Who appends: clients leave the reserve to the others, and what lets go of records leaves half of it to placement, without which nothing is ever freed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Appender {
    Client,
    Release,
    Upkeep,
    /// As `Upkeep`, with what the ring holds already.
    Carry,
}

impl Journal {
    /// Begins a new life in a ring whose old content is not needed any more, and starts the writer on this shard.
    ///
    /// A checkpoint on stable storage names `journal_id` already: otherwise a crash would find entries of a life that nobody knows. `durability` is `Dsync`; a test that wants to
    /// see the difference takes it away.
    pub fn start(ring_file: RingFile, journal_id: Uuid, durability: Durability) -> Rc<Self> {
        let state = State {
            ring: Ring::new(ring_file.size_bytes),
            collector: Collector::new(journal_id),
            backlog: Backlog::default(),
            sealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            durable: GroupSequence(0),
            durable_queue: DurableQueue::default(),
            written_queue: DurableQueue::default(),
            unflushed: Unflushed::default(),
            shadow: None,
            room_queue: RoomQueue::default(),
            failure: None,
            is_closed: false,
            statistics: JournalStatistics::default(),
            times: GroupTimes::default(),
        };
        let journal = Rc::new_cyclic(|this| Self {
            ring_file,
            journal_id,
            durability,
            state: RefCell::new(state),
            writer: Cell::new(None),
            pressure: Notify::new(),
            listeners: RefCell::default(),
            written_listeners: RefCell::default(),
            this: this.clone(),
        });
        crate::rt::spawn(writer::write_groups(journal.clone())).detach();
        journal
    }

    /// From now on entries that need not be durable are copied there, as long as they are few.
    pub fn shadow_in(&self, shadow: Shadow) {
        self.state.borrow_mut().shadow = Some(shadow);
    }

    /// Takes an entry into the open group: durable when the group is. The partition of an append or truncation is registered; its `Deleted` entry ends that.
    pub fn append(&self, header: &EntryHeader, payload: &[&[u8]]) -> Result<Written, JournalError> {
        self.append_as(Appender::Client, header, payload, true)
    }

    /// As `append`, for an entry that counts when it survives the process: at once if it `is_shadowed`, else when it is written. It becomes durable later (see `flush`).
    pub fn append_weak(&self, header: &EntryHeader, payload: &[&[u8]]) -> Result<Written, JournalError> {
        self.append_as(Appender::Client, header, payload, false)
    }

    /// Whether an append of a payload of that size would be taken now. An append straight after it, without an await between, is not refused.
    pub fn check_room(&self, partition: &TopicIdPartition, payload_bytes: usize) -> Result<(), JournalError> {
        self.admit(Appender::Client, partition, payload_bytes)
    }

    /// Waits, first come first served among those of a data directory, until a payload of that size finds room.
    pub async fn wait_for_room(&self, partition: &TopicIdPartition, payload_bytes: usize) -> Result<Room, JournalError> {
        let turn = {
            let mut state = self.state.borrow_mut();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state.check_size(payload_bytes)?;
            let directory = state.backlog.directory_of(partition);
            state.room_queue.push(directory, payload_bytes)
        };
        self.pressure.notify_all();
        self.grant_room();
        turn.await.ok_or_else(|| self.failure().expect("only a failed journal sends its waiters away"))
    }

    /// For whoever was let in and did not find room after all: waits on, still before all others.
    pub async fn wait_longer(&self, room: Room, payload_bytes: usize) -> Result<Room, JournalError> {
        let turn = self.state.borrow_mut().room_queue.push_first(room.directory, payload_bytes);
        self.pressure.notify_all();
        drop(room);
        turn.await.ok_or_else(|| self.failure().expect("only a failed journal sends its waiters away"))
    }

    /// Everything up to here is on stable storage.
    pub fn durable_sequence(&self) -> GroupSequence {
        self.state.borrow().durable
    }

    /// Waits until the group, and with it all before it, is durable.
    pub async fn wait_durable(&self, sequence: GroupSequence) -> Result<(), JournalError> {
        let durable = {
            let mut state = self.state.borrow_mut();
            if state.durable >= sequence {
                return Ok(());
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state.durable_queue.push(sequence)
        };
        self.flush_if_needed();
        match durable.await {
            Some(()) => Ok(()),
            None => Err(self.failure().expect("only a failed journal sends its waiters away")),
        }
    }

    /// Calls `listener` whenever more has become durable, in order, before those who wait for it go on. It may append.
    pub fn on_durable(&self, listener: DurableListener) {
        self.listeners.borrow_mut().push(listener);
    }

    /// Everything that was appended so far is durable when this group is.
    pub fn last_sequence(&self) -> GroupSequence {
        self.state.borrow().last_sequence()
    }

    /// Notes on the way of a traced request when its group, which is durable, went to the kernel and came back.
    pub fn mark_group(&self, sequence: GroupSequence, stages: &Stages) {
        self.state.borrow().times.mark(sequence, stages);
    }

    /// Why nothing is taken any more, if so.
    pub fn failure(&self) -> Option<JournalError> {
        self.state.borrow().failure.clone()
    }

    pub fn statistics(&self) -> JournalStatistics {
        self.state.borrow().statistics
    }

    /// Bytes of the ring that hold what is still needed, and all bytes that groups may take.
    pub fn used_bytes(&self) -> (u64, u64) {
        let state = self.state.borrow();
        (state.ring.used_bytes(), state.ring.capacity_bytes())
    }

    /// How long the oldest write that has not come back has been under way.
    pub fn waits_for_disk(&self) -> Option<Duration> {
        let state = self.state.borrow();
        state.in_flight.iter().find(|group| !group.is_complete).map(|group| group.submitted.elapsed())
    }

    pub fn journal_id(&self) -> Uuid {
        self.journal_id
    }

    pub fn path(&self) -> &Path {
        self.ring_file.file.path()
    }

    /// Ends the writer. Whoever still waits for something to become durable is told that the journal takes no more.
    pub fn close(&self) {
        self.fail(JournalError::Failed { path: self.path().into(), cause: "it was closed".into() });
        self.state.borrow_mut().is_closed = true;
        self.wake_writer();
    }
}

impl Journal {
    /// From now on the journal takes nothing and nothing more becomes durable. The first reason counts.
    pub fn fail(&self, failure: JournalError) {
        let (durable, rooms) = {
            let mut state = self.state.borrow_mut();
            if state.failure.is_some() {
                return;
            }
            state.failure = Some(failure);
            let queues = (std::mem::take(&mut state.durable_queue), std::mem::take(&mut state.written_queue));
            (queues, std::mem::take(&mut state.room_queue))
        };
        // Dropped without the borrow: what waits learns of it by its sender's end.
        drop((durable, rooms));
        self.pressure.notify_all();
    }

    fn append_as(&self, appender: Appender, header: &EntryHeader, payload: &[&[u8]], is_strong: bool) -> Result<Written, JournalError> {
        let payload_bytes = payload.iter().map(|part| part.len()).sum();
        self.admit(appender, &header.partition, payload_bytes)?;
        let (written, is_under_pressure) = {
            let mut state = self.state.borrow_mut();
            (state.put(appender, header, payload, payload_bytes, is_strong), state.is_under_pressure())
        };
        trace::appended(self.journal_id, written.sequence, header);
        if written.is_shadowed {
            trace::shadowed(self.journal_id, written.sequence);
        }
        self.wake_writer();
        if is_under_pressure {
            self.pressure.notify_all();
        }
        if matches!(header.kind, EntryKind::Deleted | EntryKind::Truncate) {
            // What waited and is not wanted any more leaves its share to others.
            self.grant_room();
        }
        Ok(written)
    }

    fn admit(&self, appender: Appender, partition: &TopicIdPartition, payload_bytes: usize) -> Result<(), JournalError> {
        let mut state = self.state.borrow_mut();
        let admitted = state.admit(appender, partition, payload_bytes);
        if admitted == Err(JournalError::Full) {
            state.statistics.refusals += 1;
            drop(state);
            self.pressure.notify_all();
        }
        admitted
    }

    /// Lets the first waiter in if its payload fits now. One at a time: the next comes when it has left. Who gives up waiting calls it for the next.
    pub fn grant_room(&self) {
        let (turn, directory) = {
            let mut state = self.state.borrow_mut();
            let next = state.room_queue.next_in_line(|directory, payload_bytes| state.has_share(directory, payload_bytes));
            let Some((directory, payload_bytes)) = next else { return };
            if state.failure.is_some() || !state.has_room(Appender::Client, payload_bytes) {
                return;
            }
            (state.room_queue.grant(directory), directory)
        };
        let journal = self.this.upgrade().expect("called on a living journal");
        turn.send(Room::new(journal, directory)).unwrap_or_else(|_| unreachable!("who waits no longer was passed over"));
    }

    /// Called when whoever was let in has appended, or has given up.
    fn room_left(&self) {
        self.state.borrow_mut().room_queue.left();
        self.grant_room();
    }

    fn set_turn(&self, is_turn: bool) {
        self.state.borrow_mut().room_queue.is_turn = is_turn;
    }

    fn wake_writer(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// The next group to write: the oldest that is full, or what was collected so far if nothing is under way.
    fn next_group(&self) -> Option<SealedGroup> {
        let mut state = self.state.borrow_mut();
        if state.failure.is_some() {
            return None;
        }
        if state.sealed.is_empty() && state.in_flight.is_empty() && state.collector.is_open() {
            state.seal_open();
        }
        let group = state.sealed.pop_front()?;
        state.in_flight.push_back(InFlight {
            sequence: group.sequence,
            submitted: Instant::now(),
            is_strong: group.is_strong,
            is_complete: false,
        });
        state.times.submitted(group.sequence);
        Some(group)
    }

    /// A group's write has come back. Groups count as durable in order: one that overtook another waits for it.
    fn group_written(&self, sequence: GroupSequence, result: Result<(), FileError>) {
        if let Err(error) = result {
            return self.fail(JournalError::Failed { path: self.path().into(), cause: error.to_string() });
        }
        let (written, durable) = self.state.borrow_mut().complete(sequence);
        if let Some(written) = written {
            tell_listeners(&self.written_listeners, written);
            let waiters = self.state.borrow_mut().written_queue.take_through(written);
            for waiter in waiters {
                let _ = waiter.send(());
            }
        }
        if let Some(durable) = durable {
            self.tell_durable(durable);
        }
        self.flush_if_needed();
    }

    fn tell_durable(&self, durable: GroupSequence) {
        tell_listeners(&self.listeners, durable);
        let waiters = self.state.borrow_mut().durable_queue.take_through(durable);
        for waiter in waiters {
            // Nobody waits any more: fine.
            let _ = waiter.send(());
        }
    }

    fn is_closed(&self) -> bool {
        self.state.borrow().is_closed
    }
}

impl State {
    fn admit(&self, appender: Appender, partition: &TopicIdPartition, payload_bytes: usize) -> Result<(), JournalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.check_size(payload_bytes)?;
        if !self.has_room(appender, payload_bytes) || (appender == Appender::Client && !self.lets_in(partition, payload_bytes)) {
            return Err(JournalError::Full);
        }
        Ok(())
    }

    /// Whether it is a client's turn, as far as others who wait and the shares of data directories are concerned.
    fn lets_in(&self, partition: &TopicIdPartition, payload_bytes: usize) -> bool {
        let directory = self.backlog.directory_of(partition);
        let has_share = |directory, payload_bytes| self.has_share(directory, payload_bytes);
        let others_first = !self.room_queue.is_turn && self.room_queue.is_waiting_before(directory, has_share);
        !others_first && self.has_share(directory, payload_bytes)
    }

    fn check_size(&self, payload_bytes: usize) -> Result<(), JournalError> {
        let overhead = (GROUP_HEADER_BYTES + entry_bytes(0)) as u64;
        let payload_bytes_max = (self.ring.capacity_bytes() - self.reserve_bytes() - overhead) as usize;
        if payload_bytes > payload_bytes_max {
            return Err(JournalError::TooLarge { payload_bytes, payload_bytes_max });
        }
        Ok(())
    }

    fn has_room(&self, appender: Appender, payload_bytes: usize) -> bool {
        let reserve_bytes = match appender {
            // What has to be carried forward must find room in one piece, beside what is carried before it.
            Appender::Client => self.reserve_bytes() + self.bytes_kept_for_carrying(payload_bytes),
            Appender::Release => self.reserve_bytes() / 2,
            Appender::Upkeep | Appender::Carry => 0,
        };
        let entry_bytes = entry_bytes(payload_bytes);
        if self.open_group_takes(entry_bytes) {
            self.ring.has_room_to_grow(self.grown_bytes(entry_bytes), reserve_bytes)
        } else {
            self.ring.has_room_for_group(fresh_bytes(entry_bytes), reserve_bytes)
        }
    }

    /// Copies an admitted entry into the open group, or into a new one where it does not fit any more.
    fn put(&mut self, appender: Appender, header: &EntryHeader, payload: &[&[u8]], payload_bytes: usize, is_strong: bool) -> Written {
        let entry_bytes = entry_bytes(payload_bytes);
        if self.open_group_takes(entry_bytes) {
            self.ring.grow(self.grown_bytes(entry_bytes));
        } else {
            if self.collector.is_open() {
                self.seal_open();
            }
            let place = self.ring.begin(fresh_bytes(entry_bytes));
            self.collector.begin(place, entry_bytes);
        }
        let sequence = self.ring.open_sequence();
        let bytes = self.collector.add(header, payload, is_strong);
        if appender != Appender::Carry {
            self.enter_backlog(header, sequence, &bytes);
        }
        self.statistics.entries += 1;
        self.statistics.payload_bytes += payload_bytes as u64;
        let is_shadowed = !is_strong && self.shadow_open();
        Written { sequence, bytes, is_shadowed }
    }

    /// Whether the open group, and all before it, would be there for a restart if the process ended now.
    fn shadow_open(&mut self) -> bool {
        let written = self.unflushed.written_sequence();
        self.shadow.as_mut().is_some_and(|shadow| shadow.keep(&self.collector, self.durable, written))
    }

    /// What changes segment files waits for placement, and holds its group in the ring until then.
    fn enter_backlog(&mut self, header: &EntryHeader, sequence: GroupSequence, bytes: &Bytes) {
        let EntryHeader { segment_base, position, base_offset, last_offset, .. } = *header;
        let change = match header.kind {
            EntryKind::Append => Change::Write { segment_base, position, end_offset: last_offset + 1, bytes: bytes.clone() },
            EntryKind::Truncate => Change::Cut(Cut { segment_base, position, end_offset: base_offset }),
            EntryKind::Roll => Change::Roll { segment_base: base_offset },
            EntryKind::Deleted => {
                // In the same step: no later checkpoint may know a partition whose end lies before its replay.
                let groups = self.backlog.unregister(&header.partition);
                return self.count_placed(groups);
            }
            // Held until whoever exchanges or moves the files says that it is done, see `let_go_of`.
            EntryKind::Swap | EntryKind::Moved => {
                if self.backlog.pin(sequence, *header, bytes.clone()) {
                    self.ring.count_unplaced();
                }
                return;
            }
            EntryKind::BlockPrefix | EntryKind::LogStart | EntryKind::Opened | EntryKind::Swapped | EntryKind::CutBefore => return,
        };
        self.ring.count_unplaced();
        let needless = self.backlog.push(&header.partition, sequence, change);
        self.count_placed(needless);
    }

    fn open_group_takes(&self, entry_bytes: usize) -> bool {
        self.collector.is_open()
            && self.collector.open_bytes() + entry_bytes as u64 <= GROUP_BYTES_MAX
            && self.collector.has_memory_to_grow(entry_bytes)
            && self.ring.can_grow_in_lap(self.grown_bytes(entry_bytes))
    }

    fn grown_bytes(&self, entry_bytes: usize) -> u64 {
        round_up_to_block(self.collector.open_bytes() + entry_bytes as u64)
    }

    fn seal_open(&mut self) {
        if let Some(shadow) = &mut self.shadow {
            shadow.seal(&self.collector, self.durable, self.unflushed.written_sequence());
        }
        let group = self.collector.seal(self.durable);
        self.ring.seal();
        self.statistics.groups += 1;
        self.statistics.written_bytes += group.bytes.len() as u64;
        self.sealed.push_back(group);
    }

    /// A group's write has come back. Up to where everything is written now, and durable, if that has moved.
    fn complete(&mut self, sequence: GroupSequence) -> (Option<GroupSequence>, Option<GroupSequence>) {
        let group = self.in_flight.iter_mut().find(|group| group.sequence == sequence).expect("only groups in flight complete");
        group.is_complete = true;
        let (mut written, mut durable) = (None, None);
        while self.in_flight.front().is_some_and(|group| group.is_complete) {
            let group = self.in_flight.pop_front().expect("looked at");
            written = Some(group.sequence);
            if self.unflushed.written(group.sequence, group.is_strong) {
                durable = written;
            }
        }
        if let Some(durable) = durable {
            self.became_durable(durable);
        }
        (written, durable)
    }

    fn became_durable(&mut self, durable: GroupSequence) {
        assert!(durable > self.durable, "what is durable never shrinks");
        self.durable = durable;
        self.times.durable(durable);
    }

    fn count_placed(&mut self, groups: impl IntoIterator<Item = GroupSequence>) {
        for sequence in groups {
            self.ring.count_placed(sequence);
        }
    }

    fn last_sequence(&self) -> GroupSequence {
        if self.collector.is_open() { self.ring.open_sequence() } else { GroupSequence(self.ring.open_sequence().0 - 1) }
    }

    fn reserve_bytes(&self) -> u64 {
        round_up_to_block(self.ring.capacity_bytes() / RESERVE_SHARE)
    }

    fn is_under_pressure(&self) -> bool {
        self.room_queue.is_waiting() || self.ring.used_bytes() >= self.pressure_bytes()
    }

    fn pressure_bytes(&self) -> u64 {
        let (capacity_bytes, stuck_bytes) = (self.ring.capacity_bytes(), self.backlog.stuck_bytes());
        match stuck_bytes {
            0 => capacity_bytes / PLACEMENT_SHARE,
            _ => stuck_bytes + capacity_bytes.saturating_sub(stuck_bytes) / PLACEMENT_SHARE_IN_TROUBLE,
        }
    }
}

fn tell_listeners(told: &RefCell<Vec<DurableListener>>, sequence: GroupSequence) {
    let mut listeners = told.take();
    for listener in &mut listeners {
        listener(sequence);
    }
    // A listener may have added one.
    let added = told.replace(listeners);
    told.borrow_mut().extend(added);
}

fn fresh_bytes(entry_bytes: usize) -> u64 {
    round_up_to_block((GROUP_HEADER_BYTES + entry_bytes) as u64)
}

const _: () = assert!(GROUP_BYTES_MAX.is_multiple_of(BLOCK_BYTES as u64), "a full group leaves no block half used");

impl fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(formatter, "the journal is full until placement has emptied a part of it"),
            Self::TooLarge { payload_bytes, payload_bytes_max } => {
                write!(formatter, "{payload_bytes} bytes do not fit into the journal, which takes at most {payload_bytes_max} at once")
            }
            Self::Failed { path, cause } => write!(formatter, "{} takes no more writes until a restart: {cause}", path.display()),
        }
    }
}

impl std::error::Error for JournalError {}

#[cfg(test)]
mod tests;
