//! The shard's io_uring: operations go in, completions come out, and what the kernel may touch in between belongs to this file.
//!
//! Every operation has a slot that holds its descriptor and its memory until the kernel has answered. A future that asked is only a guest: dropped early, it leaves the slot behind, and
//! the answer frees it. So no buffer is ever freed under a write, and no descriptor closed (and its number given to another file) under an operation that was queued but not yet submitted.
//!
//! The ring is set up with SINGLE_ISSUER and DEFER_TASKRUN: completions are only carried out when this thread enters the kernel with GETEVENTS, so nothing interrupts a running task
//! (measured: 2.2 times less CPU for small messages). TASKRUN_FLAG shows in memory whether such work waits, so that a look at a quiet ring costs no system call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use slab::Slab;

use super::buffer::AlignedBuffer;
use super::cores;
use super::doorbell::Doorbell;
use super::file::{Durability, File};

/// Operations that may be queued between two entries into the kernel; more are submitted at once.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Completions that may wait; beyond it the kernel keeps them in a list of its own (FEAT_NODROP).
const COMPLETION_ENTRIES: u32 = 8192;
/// Marks operations whose answer nobody needs (cancellations).
const IGNORED: u64 = u64::MAX;
/// The kernel moves at most 2 GiB less a page at a time, and a length is 32 bits wide.
pub(super) const TRANSFER_BYTES_MAX: usize = 1 << 30;

/// One shard's ring. Made and used on the shard's thread only.
pub(super) struct Ring {
    io_uring: RefCell<IoUring>,
    slots: RefCell<Slab<Slot>>,
    /// Entries that found the submission queue full although the kernel was asked to take some. First in, first out.
    waiting: RefCell<VecDeque<squeue::Entry>>,
    /// Operations whose completion needs a kernel thread on some core (see [`Ring::needs_kernel_threads`]).
    durable_in_flight: Cell<usize>,
    /// The task that looks at the ring, while it waits for others to run.
    watcher: RefCell<Option<Waker>>,
    is_called: Cell<bool>,
    /// Whether a turn has left what is queued to the next one.
    is_submission_put_off: Cell<bool>,
    woken: RefCell<Vec<Waker>>,
    counters: Counters,
}

/// What the ring did since it was made.
#[derive(Default)]
struct Counters {
    entered: Cell<u64>,
    completed: Cell<u64>,
}

struct Slot {
    state: State,
    held: Held,
    durable: bool,
}

enum State {
    Pending(Option<Waker>),
    Complete(i32),
    /// Nobody waits any more; the slot lives only for the kernel.
    Abandoned,
}

/// What the kernel may still touch.
#[expect(dead_code, reason = "most of it is only held, never read")]
pub(super) enum Held {
    Socket(Rc<OwnedFd>),
    File(File),
    Write { file: File, data: Bytes },
    Read { file: File, buffer: AlignedBuffer },
    Doorbell { doorbell: Arc<Doorbell>, rings: Box<u64> },
}

/// An operation under way. Dropped before its end, the operation goes on, or is cancelled if it was started as cancellable; either way its slot stays until the kernel's answer.
pub(super) struct InFlight {
    ring: Rc<Ring>,
    key: usize,
    cancellable: bool,
    finished: bool,
}

impl Ring {
    /// `worker_cores`: where the kernel's helper threads for this ring may run; none leaves them where the shard runs.
    pub fn new(worker_cores: &[usize]) -> io::Result<Rc<Self>> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
        let io_uring = builder.setup_cqsize(COMPLETION_ENTRIES).build(SUBMISSION_ENTRIES)?;
        if !worker_cores.is_empty() {
            io_uring.submitter().register_iowq_aff(&cores::core_set(worker_cores))?;
        }
        Ok(Rc::new(Self {
            io_uring: RefCell::new(io_uring),
            slots: RefCell::default(),
            waiting: RefCell::default(),
            durable_in_flight: Cell::new(0),
            watcher: RefCell::default(),
            is_called: Cell::new(false),
            is_submission_put_off: Cell::new(false),
            woken: RefCell::default(),
            counters: Counters::default(),
        }))
    }

    /// Resolves when the socket is ready for one of `events` (POLLIN, POLLOUT), or broken.
    pub fn poll_socket(self: &Rc<Self>, socket: &Rc<OwnedFd>, events: i16) -> InFlight {
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events as u32).build();
        // SAFETY: the entry points to no memory; the slot keeps the descriptor open.
        unsafe { self.start(entry, Held::Socket(socket.clone()), false, true) }
    }

    /// Writes `data`; at most [`TRANSFER_BYTES_MAX`].
    pub fn write(self: &Rc<Self>, file: &File, data: Bytes, position: u64, durability: Durability) -> InFlight {
        assert!(data.len() <= TRANSFER_BYTES_MAX, "one write is at most 1 GiB");
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), data.as_ptr(), data.len() as u32)
            .offset(position)
            .rw_flags(durability.flags())
            .build();
        // SAFETY: the entry points into `data`, which never moves nor changes and which the slot holds; likewise the descriptor.
        unsafe { self.start(entry, Held::Write { file: file.clone(), data }, durability == Durability::Dsync, false) }
    }

    /// Reads `length` bytes to behind those that `buffer` has; there must be room for them.
    pub fn read(self: &Rc<Self>, file: &File, mut buffer: AlignedBuffer, length: usize, position: u64) -> InFlight {
        assert!(
            length <= TRANSFER_BYTES_MAX && length <= buffer.capacity() - buffer.len(),
            "one read is at most 1 GiB and fits its buffer"
        );
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), buffer.spare_pointer(), length as u32).offset(position).build();
        // SAFETY: the entry points into the allocation of `buffer`, which stays where it is when the buffer moves into the slot; nobody else can reach it until the operation is complete.
        unsafe { self.start(entry, Held::Read { file: file.clone(), buffer }, false, false) }
    }

    /// Flushes a file: its bytes and what leads to them, or everything.
    pub fn sync(self: &Rc<Self>, file: &File, data_only: bool) -> InFlight {
        let flags = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd())).flags(flags).build();
        // SAFETY: the entry points to no memory; the slot keeps the descriptor open.
        unsafe { self.start(entry, Held::File(file.clone()), true, false) }
    }

    /// Tells the kernel how a range will be used (`posix_fadvise`); the kernel carries it out on a thread of its own where it may wait.
    pub fn advise(self: &Rc<Self>, file: &File, position: u64, length: u32, advice: i32) -> InFlight {
        let entry = opcode::Fadvise::new(Fd(file.as_raw_fd()), i64::from(length), advice).offset(position).build();
        // SAFETY: the entry points to no memory; the slot keeps the descriptor open.
        unsafe { self.start(entry, Held::File(file.clone()), false, false) }
    }

    /// Carries out and collects what has completed, wakes who waited for it, and submits what is queued: not for its own sake at the first turn that finds it, because tasks that are ready now
    /// mostly add a durable write, which takes it along, or none is left and the sleep does (an acknowledgement of a resting shard costs a system call less). Returns how many operations
    /// completed.
    pub fn turn(&self) -> usize {
        self.move_waiting_entries();
        let mut io_uring = self.io_uring.borrow_mut();
        let submission = io_uring.submission();
        let has_waited = !submission.is_empty() && self.is_submission_put_off.replace(true);
        let must_enter = has_waited || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if must_enter {
            self.enter(&mut io_uring, EnterFlags::GETEVENTS);
        }
        let mut completed = 0;
        let mut unneeded = Vec::new();
        for completion in io_uring.completion() {
            if completion.user_data() != IGNORED {
                completed += 1;
                unneeded.extend(self.complete(completion.user_data() as usize, completion.result()));
            }
        }
        drop(io_uring);
        self.counters.completed.set(self.counters.completed.get() + completed as u64);
        // Only now, with nothing borrowed: dropping a buffer or waking a task may come back here.
        drop(unneeded);
        self.wake_the_woken();
        completed
    }

    /// Hands what is queued to the kernel without collecting anything.
    pub fn submit(&self) {
        self.move_waiting_entries();
        let mut io_uring = self.io_uring.borrow_mut();
        if !io_uring.submission().is_empty() {
            self.enter(&mut io_uring, EnterFlags::empty());
        }
    }

    /// Submits what is queued and lets the thread sleep until something completes, at most for `longest`.
    pub fn sleep(&self, longest: Duration) {
        self.move_waiting_entries();
        let mut io_uring = self.io_uring.borrow_mut();
        let queued = io_uring.submission().len() as u32;
        self.is_submission_put_off.set(false);
        let time = Timespec::from(longest);
        let arguments = SubmitArgs::new().timespec(&time);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        self.counters.entered.set(self.counters.entered.get() + 1);
        // SAFETY: the arguments outlive the call, and what the queued entries point to is held by their slots.
        if let Err(error) = unsafe { io_uring.submitter().enter(queued, 1, flags.bits(), Some(&arguments)) } {
            // The time was over, a signal came, or the kernel is short of memory: in each case the next look goes on.
            let passing = [libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY];
            assert!(error.raw_os_error().is_some_and(|errno| passing.contains(&errno)), "the ring cannot be entered: {error}");
        }
    }

    /// Completes when the doorbell was rung, and takes back all rings so far.
    pub fn listen(self: &Rc<Self>, doorbell: &Arc<Doorbell>) -> InFlight {
        let mut rings = Box::new(0u64);
        let entry = opcode::Read::new(Fd(doorbell.descriptor()), (&raw mut *rings).cast(), size_of::<u64>() as u32).build();
        // SAFETY: the entry points into the box, which the slot holds and which does not move; the slot keeps the descriptor open.
        unsafe { self.start(entry, Held::Doorbell { doorbell: doorbell.clone(), rings }, false, true) }
    }

    /// Asks the watcher to look soon: something was queued that must not wait for the end of a long round.
    pub fn call_watcher(&self) {
        self.is_called.set(true);
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// Whom the next call wakes.
    pub fn set_watcher(&self, watcher: &Waker) {
        let former = self.watcher.replace(Some(watcher.clone()));
        drop(former);
    }

    /// Whether the watcher was called since [`Ring::clear_call`].
    pub fn was_called(&self) -> bool {
        self.is_called.get()
    }

    pub fn clear_call(&self) {
        self.is_called.set(false);
    }

    /// Whether an operation is under way that a kernel thread has to finish: a busy core must let that thread run, or the write waits for the scheduler's tick.
    pub fn needs_kernel_threads(&self) -> bool {
        self.durable_in_flight.get() > 0
    }

    /// System calls into the ring and operations completed since it was made.
    pub fn counters(&self) -> (u64, u64) {
        (self.counters.entered.get(), self.counters.completed.get())
    }

    /// Ends the ring: cancels what can be cancelled and waits for the rest, at most for `patience`.
    pub fn wind_up(&self, patience: Duration) {
        let keys: Vec<usize> =
            self.slots.borrow().iter().filter(|(_, slot)| !matches!(slot.state, State::Complete(_))).map(|(key, _)| key).collect();
        let begun = Instant::now();
        for key in keys {
            let waker = match self.slots.borrow_mut().get_mut(key) {
                Some(Slot { state: State::Pending(waker), .. }) => waker.take(),
                _ => None,
            };
            drop(waker);
            self.cancel(key);
        }
        while self.is_any_pending() {
            if begun.elapsed() > patience {
                return;
            }
            if self.turn() == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn is_any_pending(&self) -> bool {
        self.slots.borrow().iter().any(|(_, slot)| !matches!(slot.state, State::Complete(_)))
    }

    /// # Safety
    /// Whatever memory `entry` points to is owned by `held`, does not move with it, and its descriptor is kept open by it.
    unsafe fn start(self: &Rc<Self>, entry: squeue::Entry, held: Held, durable: bool, cancellable: bool) -> InFlight {
        let key = self.slots.borrow_mut().insert(Slot { state: State::Pending(None), held, durable });
        // SAFETY: passed on from the caller; the slot just made holds it all until the answer.
        unsafe { self.push(entry.user_data(key as u64)) };
        if durable {
            self.durable_in_flight.set(self.durable_in_flight.get() + 1);
            // Somebody's acknowledgement waits for it: not even until the tasks that are ready now have run.
            self.submit();
        }
        InFlight { ring: self.clone(), key, cancellable, finished: false }
    }

    /// # Safety
    /// What the entry points to stays valid until its completion.
    unsafe fn push(&self, entry: squeue::Entry) {
        // SAFETY: passed on from the caller.
        let pushed = self.waiting.borrow().is_empty() && unsafe { self.io_uring.borrow_mut().submission().push(&entry) }.is_ok();
        if !pushed {
            self.waiting.borrow_mut().push_back(entry);
            self.submit();
        }
        self.call_watcher();
    }

    fn move_waiting_entries(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(entry) = waiting.front() {
            let mut io_uring = self.io_uring.borrow_mut();
            if io_uring.submission().is_full() {
                self.enter(&mut io_uring, EnterFlags::empty());
            }
            // SAFETY: `push` was promised that what the entry points to stays valid.
            if unsafe { io_uring.submission().push(entry) }.is_err() {
                return;
            }
            waiting.pop_front();
        }
    }

    fn enter(&self, io_uring: &mut IoUring, flags: EnterFlags) {
        let queued = io_uring.submission().len() as u32;
        self.is_submission_put_off.set(false);
        self.counters.entered.set(self.counters.entered.get() + 1);
        loop {
            // SAFETY: no argument is passed, and what the queued entries point to is held by their slots.
            match unsafe { io_uring.submitter().enter::<libc::sigset_t>(queued, 0, flags.bits(), None) } {
                Ok(_) => return,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // Short of memory, or too many completions wait to be collected: what was not taken stays queued and goes with the next turn.
                    Some(libc::EAGAIN | libc::EBUSY) => return,
                    _ => panic!("the ring cannot be entered: {error}"),
                },
            }
        }
    }

    /// Notes an answer. Gives back what a slot without a guest held.
    fn complete(&self, key: usize, result: i32) -> Option<Held> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key).expect("every answer belongs to a slot");
        if slot.durable {
            self.durable_in_flight.set(self.durable_in_flight.get() - 1);
        }
        match mem::replace(&mut slot.state, State::Complete(result)) {
            State::Pending(waker) => {
                self.woken.borrow_mut().extend(waker);
                None
            }
            State::Abandoned => Some(slots.remove(key).held),
            State::Complete(_) => panic!("the kernel answered an operation twice"),
        }
    }

    fn wake_the_woken(&self) {
        let mut woken = self.woken.take();
        for waker in woken.drain(..) {
            waker.wake();
        }
        // The vector goes back for its memory; nothing was put in meanwhile, since only `turn` does that and turns do not nest.
        *self.woken.borrow_mut() = woken;
    }

    fn cancel(&self, key: usize) {
        let entry = opcode::AsyncCancel::new(key as u64).build().user_data(IGNORED);
        // An operation that is complete by then is not found, which is fine. The key may even have a new owner by then, but not in the kernel: entries are submitted in order, and
        // the new owner's stands behind this one.
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing the ring does not wait for what is under way. What the kernel may still touch then stays allocated for ever: a shard that died with a write in flight must not
        // hand the bytes of that write to somebody else.
        if self.is_any_pending() {
            mem::forget(self.slots.take());
        }
    }
}

impl InFlight {
    /// Ready once with the kernel's result (negative: an errno) and what the operation held.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<(i32, Held)> {
        assert!(!self.finished, "polled after it was ready");
        let mut slots = self.ring.slots.borrow_mut();
        let former_waker = match &mut slots[self.key].state {
            State::Complete(result) => {
                let result = *result;
                self.finished = true;
                return Poll::Ready((result, slots.remove(self.key).held));
            }
            State::Pending(Some(waker)) if waker.will_wake(context.waker()) => None,
            State::Pending(waker) => waker.replace(context.waker().clone()),
            State::Abandoned => unreachable!("abandoned only by the drop of this very guest"),
        };
        // A waker may be the last hold on a task whose futures come back here when they are dropped: never drop one under a borrow.
        drop(slots);
        drop(former_waker);
        Poll::Pending
    }

    /// Ends a cancellable operation and waits until the kernel has let go of all it held.
    pub async fn cancel(self) {
        self.ring.cancel(self.key);
        self.await;
    }

    /// Whether the kernel has answered.
    pub fn is_complete(&self) -> bool {
        self.finished || matches!(self.ring.slots.borrow()[self.key].state, State::Complete(_))
    }
}

impl Future for InFlight {
    type Output = (i32, Held);

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        InFlight::poll(&mut self, context)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut slots = self.ring.slots.borrow_mut();
        let slot = &mut slots[self.key];
        match mem::replace(&mut slot.state, State::Abandoned) {
            State::Complete(_) => {
                let unneeded = slots.remove(self.key);
                drop(slots);
                drop(unneeded);
            }
            waiting => {
                drop(slots);
                drop(waiting);
                if self.cancellable {
                    self.ring.cancel(self.key);
                }
            }
        }
    }
}
