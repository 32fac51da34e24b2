//! Messages between shards: owned values through lock-free queues, one inbox per shard. Sending never waits and never fails; what finds the inbox full waits with its sender, first in, first
//! out, and goes as soon as the receiver has made room.
//!
//! From one shard to another messages arrive in the order in which they were sent. A receiver that sleeps is woken; a busy one finds them at its next look (see `reactor`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;

use super::ShardId;
use super::doorbell::Doorbell;
use super::reactor::{Port, current};

/// Messages that one look takes in from one mesh, so that tasks and the ring get their turn between.
const MESSAGES_PER_LOOK: usize = 256;

/// The ends of a mesh between `shards` shards, in their order. Any thread may make it; each end then goes to its shard. `capacity` messages fit into each shard's inbox.
pub fn mesh<M: Send>(shards: usize, capacity: usize) -> Vec<MeshEnd<M>> {
    let inboxes = (0..shards)
        .map(|_| Inbox {
            queue: ArrayQueue::new(capacity),
            owner: OnceLock::new(),
            senders_waiting: (0..shards).map(|_| AtomicBool::new(false)).collect(),
        })
        .collect();
    let lines: Arc<Lines<M>> = Arc::new(Lines { inboxes });
    let end = |number| MeshEnd {
        shard: ShardId(u16::try_from(number).expect("at most 65,536 shards")),
        lines: lines.clone(),
        backlogs: RefCell::new((0..shards).map(|_| VecDeque::new()).collect()),
        backlog_count: Cell::new(0),
    };
    (0..shards).map(end).collect()
}

/// One shard's end of a mesh. May be sent to its shard's thread, and stays there. Every end has to listen ([`MeshEnd::on_message`]), also one that only sends: listening is what serves its backlog.
pub struct MeshEnd<M> {
    shard: ShardId,
    lines: Arc<Lines<M>>,
    backlogs: RefCell<Vec<VecDeque<M>>>,
    backlog_count: Cell<usize>,
}

struct Lines<M> {
    inboxes: Vec<Inbox<M>>,
}

struct Inbox<M> {
    queue: ArrayQueue<(ShardId, M)>,
    /// Known once the shard listens; what comes before waits in the queue.
    owner: OnceLock<Arc<Doorbell>>,
    /// By sender: has a backlog for this inbox, and wants to be woken when there is room.
    senders_waiting: Vec<AtomicBool>,
}

impl<M: Send + 'static> MeshEnd<M> {
    /// The shard whose end this is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Number of shards in the mesh.
    pub fn shards(&self) -> usize {
        self.lines.inboxes.len()
    }

    /// Messages that wait here for room at their receivers: a measure of overload. Who sends much bounds what he has under way.
    pub fn backlog(&self) -> usize {
        self.backlog_count.get()
    }

    /// Sends; never waits. A message to the own shard comes with the next look, as from another one.
    pub fn send(&self, to: ShardId, message: M) {
        let inbox = &self.lines.inboxes[usize::from(to.0)];
        let backlog = &mut self.backlogs.borrow_mut()[usize::from(to.0)];
        if backlog.is_empty() {
            match inbox.queue.push((self.shard, message)) {
                Ok(()) => return self.announce(to),
                Err((_, returned)) => backlog.push_back(returned),
            }
        } else {
            backlog.push_back(message);
        }
        self.backlog_count.set(self.backlog_count.get() + 1);
        inbox.senders_waiting[usize::from(self.shard.0)].store(true, Ordering::Relaxed);
        // The receiver takes messages out first and then looks who waits. Did it do so just before the flag was set, there is room now.
        fence(Ordering::SeqCst);
        self.send_backlog(to, backlog);
    }

    /// Calls `handler` for every message that arrives from now on and for those that wait already. On the end's own shard, once. The handler must not block; it may send and spawn.
    pub fn on_message(self: &Rc<Self>, handler: Box<dyn FnMut(ShardId, M)>) {
        let reactor = current();
        let first = self.inbox().owner.set(reactor.doorbell().clone()).is_ok();
        assert!(first, "one handler per end of a mesh");
        // Whoever sent before the owner was known rang nobody.
        fence(Ordering::SeqCst);
        reactor.add_port(Rc::new(Listening { end: self.clone(), handler: RefCell::new(handler) }));
    }

    fn inbox(&self) -> &Inbox<M> {
        &self.lines.inboxes[usize::from(self.shard.0)]
    }

    fn announce(&self, to: ShardId) {
        if to == self.shard {
            return current().ring.call_watcher();
        }
        // Pairs with the one in `on_message`: either the owner is seen here, or the message there.
        fence(Ordering::SeqCst);
        if let Some(owner) = self.lines.inboxes[usize::from(to.0)].owner.get() {
            owner.ring_if_asleep();
        }
    }

    fn send_backlogs(&self) -> usize {
        if self.backlog_count.get() == 0 {
            return 0;
        }
        let mut backlogs = self.backlogs.borrow_mut();
        let sent = backlogs.iter_mut().enumerate().map(|(to, backlog)| self.send_backlog(ShardId(to as u16), backlog));
        sent.sum()
    }

    fn could_send_backlog(&self) -> bool {
        let backlogs = self.backlogs.borrow();
        self.backlog_count.get() > 0
            && self.lines.inboxes.iter().zip(backlogs.iter()).any(|(inbox, backlog)| !backlog.is_empty() && !inbox.queue.is_full())
    }

    fn send_backlog(&self, to: ShardId, backlog: &mut VecDeque<M>) -> usize {
        let inbox = &self.lines.inboxes[usize::from(to.0)];
        let mut sent = 0;
        while let Some(message) = backlog.pop_front() {
            if let Err((_, returned)) = inbox.queue.push((self.shard, message)) {
                backlog.push_front(returned);
                break;
            }
            sent += 1;
        }
        if backlog.is_empty() {
            inbox.senders_waiting[usize::from(self.shard.0)].store(false, Ordering::Relaxed);
        }
        if sent > 0 {
            self.backlog_count.set(self.backlog_count.get() - sent);
            self.announce(to);
        }
        sent
    }

    fn wake_waiting_senders(&self) {
        fence(Ordering::SeqCst);
        for (sender, waits) in self.inbox().senders_waiting.iter().enumerate() {
            if waits.load(Ordering::Relaxed)
                && let Some(owner) = self.lines.inboxes[sender].owner.get()
            {
                owner.ring_if_asleep();
            }
        }
    }
}

/// An end whose messages have somewhere to go.
struct Listening<M> {
    end: Rc<MeshEnd<M>>,
    handler: RefCell<Box<dyn FnMut(ShardId, M)>>,
}

impl<M: Send + 'static> Port for Listening<M> {
    fn serve(&self) -> usize {
        let sent = self.end.send_backlogs();
        let mut received = 0;
        while received < MESSAGES_PER_LOOK
            && let Some((from, message)) = self.end.inbox().queue.pop()
        {
            received += 1;
            (self.handler.borrow_mut())(from, message);
        }
        if received > 0 {
            self.end.wake_waiting_senders();
        }
        sent + received
    }

    fn has_mail(&self) -> bool {
        !self.end.inbox().queue.is_empty() || self.end.could_send_backlog()
    }
}
