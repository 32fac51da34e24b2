//! The only door between cores: calls to other shards, and their answers by value.
//!
//! A call is sent in the moment it is made, so that calls to one shard arrive in the order in which they were made; only the wait for the answer overlaps. A call whose future
//! is dropped is cancelled on the other side. A call to the own shard is a task of its own and never enters a queue between cores.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use hashbrown::HashMap;

use super::Shard;
use super::message::{Message, Reply, Request};
use crate::rt::mesh::MeshEnd;
use crate::rt::sync::{self, oneshot};
use crate::rt::{self, ShardId, Task};

/// The shard's end of the mesh: what it has asked of others, and what it is doing for them.
pub struct Mesh {
    end: Rc<MeshEnd<Message>>,
    next_call: Cell<u64>,
    waiting: RefCell<HashMap<u64, sync::Sender<Reply>>>,
    serving: RefCell<HashMap<(u16, u64), Task<()>>>,
}

impl Mesh {
    /// Wraps `end`; messages are looked at once `listen` has been called.
    pub fn new(end: MeshEnd<Message>) -> Rc<Mesh> {
        Rc::new(Mesh { end: Rc::new(end), next_call: Cell::new(0), waiting: RefCell::default(), serving: RefCell::default() })
    }

    /// From now on, answers what other shards ask with `shard`.
    pub fn listen(self: &Rc<Mesh>, shard: &Rc<Shard>) {
        let mesh = Rc::downgrade(self);
        let shard = Rc::downgrade(shard);
        self.end.on_message(Box::new(move |from, message| {
            if let (Some(mesh), Some(shard)) = (mesh.upgrade(), shard.upgrade()) {
                mesh.receive(&shard, from, message);
            }
        }));
    }

    /// Asks shard `to`. The request leaves now; the future waits for the answer and cancels the call when dropped.
    pub fn call(self: &Rc<Mesh>, to: ShardId, request: Request) -> RemoteCall {
        let call = self.next_call.get();
        self.next_call.set(call + 1);
        let (sender, receiver) = oneshot();
        self.waiting.borrow_mut().insert(call, sender);
        self.end.send(to, Message::Request { call, request: Box::new(request) });
        RemoteCall { mesh: Rc::downgrade(self), to, call, receiver, answered: false }
    }

    fn receive(self: &Rc<Mesh>, shard: &Rc<Shard>, from: ShardId, message: Message) {
        match message {
            Message::Request { call, request } => self.serve(shard, from, call, request),
            Message::Reply { call, reply } => {
                if let Some(sender) = self.waiting.borrow_mut().remove(&call) {
                    let _gone = sender.send(*reply);
                }
            }
            Message::Cancel { call } => {
                let cancelled = self.serving.borrow_mut().remove(&(from.0, call));
                drop(cancelled);
            }
        }
    }

    fn serve(self: &Rc<Mesh>, shard: &Rc<Shard>, from: ShardId, call: u64, request: Box<Request>) {
        let mesh = Rc::clone(self);
        let shard = Rc::clone(shard);
        // The task is known under its number before it first runs, so that its own removal at the end always finds it.
        let task = rt::spawn(async move {
            let reply = shard.serve(*request).await;
            mesh.end.send(from, Message::Reply { call, reply: Box::new(reply) });
            if let Some(finished) = mesh.serving.borrow_mut().remove(&(from.0, call)) {
                finished.detach();
            }
        });
        self.serving.borrow_mut().insert((from.0, call), task);
    }
}

/// An answer on its way from another shard.
pub struct RemoteCall {
    mesh: Weak<Mesh>,
    to: ShardId,
    call: u64,
    receiver: sync::Receiver<Reply>,
    answered: bool,
}

impl Future for RemoteCall {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        match Pin::new(&mut self.receiver).poll(context) {
            Poll::Ready(reply) => {
                self.answered = true;
                // The sender lives in `waiting` until the answer is there, and this future is its only other owner.
                Poll::Ready(reply.expect("a shard answers every call"))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for RemoteCall {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if let Some(mesh) = self.mesh.upgrade() {
            mesh.waiting.borrow_mut().remove(&self.call);
            mesh.end.send(self.to, Message::Cancel { call: self.call });
        }
    }
}
