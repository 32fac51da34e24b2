//! One shard's place where everything arrives: completions of its ring, messages of other shards, results of helper threads, deadlines. `look` takes in all of them.
//!
//! Who looks: the watcher (see there) once per round of ready tasks, and every task that calls `yield_now`, because beside a task that stays ready glommio itself looks at nothing.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::ShardId;
use super::blocking::Helpers;
use super::doorbell::Doorbell;
use super::ring::{InFlight, Ring};
use super::wheel::{TimerKey, Wheel};

/// Length of a tick of the timer wheel: 2^17 ns = 131 us, so a timer fires at most that much late by rounding.
const TICK_SHIFT: u32 = 17;

thread_local! {
    static CURRENT: OnceCell<Rc<Reactor>> = const { OnceCell::new() };
}

/// The state of the shard that runs on this thread.
pub(super) struct Reactor {
    pub shard: ShardId,
    pub ring: Rc<Ring>,
    pub helpers: Arc<Helpers>,
    pub background: glommio::TaskQueueHandle,
    doorbell: Arc<Doorbell>,
    /// How long a shard with nothing to do goes on looking before it sleeps.
    pub idle_poll: Duration,
    wheel: RefCell<Wheel<Waker>>,
    base: Instant,
    listening: RefCell<Option<InFlight>>,
    ports: RefCell<Vec<Rc<dyn Port>>>,
    results: RefCell<Slab<Awaited>>,
    looking: Cell<bool>,
    /// Whether the thread has slept since the last look: the kernel's threads have had the core.
    has_slept: Cell<bool>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    looks: Cell<u64>,
    sleeps: Cell<u64>,
    gave_way: Cell<u64>,
}

/// Where messages of other shards arrive.
pub(super) trait Port {
    /// Sends what had to wait, takes in what has come; returns how many messages moved.
    fn serve(&self) -> usize;
    /// Whether something has come that `serve` would take in.
    fn has_mail(&self) -> bool;
}

/// A helper thread's result, or the task that waits for it.
enum Awaited {
    Pending(Option<Waker>),
    Ready(Box<dyn Any + Send>),
    Abandoned,
}

/// The reactor of this thread's shard.
///
/// # Panics
/// On a thread that is no shard.
pub(super) fn current() -> Rc<Reactor> {
    CURRENT.with(|current| current.get().cloned()).expect("this works only on the thread of a shard (rt::start or rt::run)")
}

impl Reactor {
    /// Makes the shard's state and binds it to this thread.
    pub fn install(shard: ShardId, helpers: Arc<Helpers>, worker_cores: &[usize], idle_poll: Duration) -> io::Result<Rc<Self>> {
        let doorbell = Arc::new(Doorbell::new()?);
        let reactor = Rc::new(Self {
            shard,
            ring: Ring::new(worker_cores)?,
            helpers,
            background: glommio::executor().create_task_queue(
                glommio::Shares::Static(BACKGROUND_SHARES),
                glommio::Latency::NotImportant,
                "background",
            ),
            doorbell,
            idle_poll,
            wheel: RefCell::new(Wheel::new()),
            base: Instant::now(),
            listening: RefCell::default(),
            ports: RefCell::default(),
            results: RefCell::default(),
            looking: Cell::new(false),
            has_slept: Cell::new(false),
            counters: Counters::default(),
        });
        let bound = CURRENT.with(|current| current.set(reactor.clone()));
        assert!(bound.is_ok(), "one shard per thread");
        Ok(reactor)
    }

    /// Takes in what has arrived, without waiting. True if there was anything. Calls from within a call (a message handler that yields) do nothing.
    pub fn look(&self) -> bool {
        if self.looking.replace(true) {
            return false;
        }
        self.counters.looks.set(self.counters.looks.get() + 1);
        // A durable write is finished by kernel threads on this very core; a core that never sleeps would let them wait for the scheduler's tick (4 ms instead of 0.1). After a sleep they have run,
        // and giving way would only let somebody else's process in front of what we were woken for.
        if self.ring.needs_kernel_threads() && !self.has_slept.replace(false) {
            self.counters.gave_way.set(self.counters.gave_way.get() + 1);
            std::thread::yield_now();
        }
        let arrived = self.ring.turn() + self.serve_ports() + self.take_results() + self.fire_timers();
        self.looking.set(false);
        arrived > 0
    }

    /// Lets the thread sleep until something arrives or a timer is due, at most for `longest`. Only when no task is ready.
    pub fn sleep(&self, longest: Duration) {
        let longest = self.time_to_next_timer().map_or(longest, |time| time.min(longest));
        self.listen_to_doorbell();
        // From here on who sends rings; what was sent before is seen by the last look.
        self.doorbell.fall_asleep();
        let has_mail = !self.doorbell.results.is_empty() || self.ports.borrow().iter().any(|port| port.has_mail());
        if !has_mail && !longest.is_zero() {
            self.counters.sleeps.set(self.counters.sleeps.get() + 1);
            self.ring.sleep(longest);
            self.has_slept.set(true);
        }
        self.doorbell.wake_up();
    }

    /// Adds a place where messages arrive; it stays for the shard's life.
    pub fn add_port(&self, port: Rc<dyn Port>) {
        self.ports.borrow_mut().push(port);
    }

    pub fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Wakes `waker` at `deadline` or up to a tick later.
    pub fn set_timer(&self, deadline: Instant, waker: Waker) -> TimerKey {
        let tick = self.tick_after(deadline);
        self.wheel.borrow_mut().insert(tick, waker)
    }

    /// Replaces the waker of a timer; false if it has fired.
    pub fn renew_timer(&self, key: TimerKey, waker: &Waker) -> bool {
        let mut wheel = self.wheel.borrow_mut();
        let Some(current) = wheel.get_mut(key) else { return false };
        let former = (!current.will_wake(waker)).then(|| std::mem::replace(current, waker.clone()));
        drop(wheel);
        drop(former);
        true
    }

    pub fn cancel_timer(&self, key: TimerKey) {
        let removed = self.wheel.borrow_mut().remove(key);
        drop(removed);
    }

    /// Opens a place for a helper thread's result.
    pub fn await_result(&self) -> usize {
        self.results.borrow_mut().insert(Awaited::Pending(None))
    }

    /// The result, or the waker noted for its arrival.
    pub fn poll_result(&self, key: usize, waker: &Waker) -> Poll<Box<dyn Any + Send>> {
        let mut results = self.results.borrow_mut();
        if let Awaited::Pending(noted) = &mut results[key] {
            let former = noted.replace(waker.clone());
            drop(results);
            drop(former);
            return Poll::Pending;
        }
        let Awaited::Ready(result) = results.remove(key) else { unreachable!("only its guest abandons a result") };
        Poll::Ready(result)
    }

    /// Nobody waits for the result any more.
    pub fn abandon_result(&self, key: usize) {
        let mut results = self.results.borrow_mut();
        // After `wind_up` no result is kept, and tasks that waited for one are dropped with the executor.
        let Some(awaited) = results.get_mut(key) else { return };
        let former = match std::mem::replace(awaited, Awaited::Abandoned) {
            Awaited::Ready(result) => {
                results.remove(key);
                Awaited::Ready(result)
            }
            pending => pending,
        };
        drop(results);
        drop(former);
    }

    /// Lets go of everything that other code may hold on to, and waits for the kernel to do likewise: the end of the shard.
    pub fn wind_up(&self) {
        drop(self.ports.take());
        drop(self.listening.take());
        drop(self.wheel.replace(Wheel::new()));
        drop(self.results.take());
        self.ring.wind_up(Duration::from_secs(10));
    }

    pub fn statistics(&self) -> super::Statistics {
        let (ring_enters, ring_completions) = self.ring.counters();
        super::Statistics {
            looks: self.counters.looks.get(),
            sleeps: self.counters.sleeps.get(),
            gave_way: self.counters.gave_way.get(),
            ring_enters,
            ring_completions,
            timers: self.wheel.borrow().len(),
        }
    }

    fn time_to_next_timer(&self) -> Option<Duration> {
        let tick = self.wheel.borrow().next_tick()?;
        Some(self.instant_of(tick).saturating_duration_since(Instant::now()))
    }

    /// Keeps one read of the doorbell in the ring.
    fn listen_to_doorbell(&self) {
        let mut listening = self.listening.borrow_mut();
        if listening.as_ref().is_none_or(InFlight::is_complete) {
            *listening = Some(self.ring.listen(&self.doorbell));
        }
    }

    fn serve_ports(&self) -> usize {
        let mut served = 0;
        for index in 0.. {
            // By index and not by iterator: a handler may add a port.
            let Some(port) = self.ports.borrow().get(index).cloned() else { break };
            served += port.serve();
        }
        served
    }

    fn take_results(&self) -> usize {
        let mut taken = 0;
        while let Some((key, result)) = self.doorbell.results.pop() {
            taken += 1;
            let mut results = self.results.borrow_mut();
            match std::mem::replace(&mut results[key], Awaited::Ready(result)) {
                Awaited::Pending(waker) => {
                    drop(results);
                    waker.into_iter().for_each(Waker::wake);
                }
                Awaited::Abandoned => {
                    let unneeded = results.remove(key);
                    drop(results);
                    drop(unneeded);
                }
                Awaited::Ready(_) => panic!("a helper answered twice"),
            }
        }
        taken
    }

    fn fire_timers(&self) -> usize {
        let now = self.tick_before(Instant::now());
        let mut wheel = self.wheel.borrow_mut();
        if wheel.next_tick().is_none_or(|tick| tick > now) {
            return 0;
        }
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        drop(wheel);
        let fired = due.len();
        due.into_iter().for_each(Waker::wake);
        fired
    }

    fn tick_after(&self, deadline: Instant) -> u64 {
        let nanos = deadline.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos.div_ceil(1 << TICK_SHIFT)).unwrap_or(u64::MAX)
    }

    fn tick_before(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.base).as_nanos() >> TICK_SHIFT) as u64
    }

    fn instant_of(&self, tick: u64) -> Instant {
        self.base + Duration::from_nanos(tick << TICK_SHIFT)
    }
}

/// Of a thousand for the clients' tasks: upkeep gets about a twentieth of a core that is wanted by both, all of it otherwise.
const BACKGROUND_SHARES: usize = 50;
