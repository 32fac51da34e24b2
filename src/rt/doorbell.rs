//! How other threads reach a shard: a flag that says whether it sleeps, and an eventfd that wakes it, because the shard's ring keeps a read of it under way.
//!
//! A message is put where the shard will look for it, and only then the flag is read; the shard sets the flag and only then looks once more before it sleeps. With a full barrier between
//! the two steps on either side at least one of the two sees the other (Dekker), so no message is left lying, and none to a busy shard costs a system call.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;

/// The part of a shard that other threads may touch.
pub(super) struct Doorbell {
    asleep: CachePadded<AtomicBool>,
    eventfd: OwnedFd,
    /// Results of helper threads, with the number under which the shard waits for each. Bounded by the helpers' queue.
    pub results: SegQueue<(usize, Box<dyn Any + Send>)>,
}

impl Doorbell {
    pub fn new() -> io::Result<Self> {
        // Not EFD_NONBLOCK: the ring answers EAGAIN for such descriptors instead of waiting.
        // SAFETY: a plain system call; the result is checked.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { asleep: CachePadded::new(AtomicBool::new(false)), eventfd, results: SegQueue::new() })
    }

    pub fn descriptor(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Any thread, after it has put something where the shard looks: wakes the shard if it sleeps.
    pub fn ring_if_asleep(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// The shard, before it looks for the last time and sleeps.
    pub fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard, when it looks again anyway.
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    fn ring(&self) {
        let one = 1u64;
        // It would wait only with the counter at 2^64 - 2.
        // SAFETY: `one` has the eight bytes that an eventfd takes.
        unsafe { libc::write(self.eventfd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}
