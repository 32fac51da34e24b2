//! A bare io_uring, blocking and without an executor, for what measures the machine beside the broker: `corelane-perf floor` and its probes. The broker does not use it; it lives here because
//! this room is the only one with `unsafe`.
//!
//! What an operation touches (descriptor, memory) goes into a slot of the ring and comes back with the completion, so nothing is freed under the kernel's hands.

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use slab::Slab;

use super::buffer::AlignedBuffer;

const SUBMISSION_ENTRIES: u32 = 256;
const COMPLETION_ENTRIES: u32 = 4096;
/// The kernel's RWF_DSYNC.
const DSYNC: i32 = 2;
const POLL_OUT: u32 = 4;
const INTERRUPTED: i32 = 4;
const TIME_OVER: i32 = 62;

/// Lives on the thread that made it.
pub struct Ring {
    io_uring: IoUring,
    slots: Slab<Slot>,
    durable_in_flight: usize,
}

struct Slot {
    token: u64,
    is_durable: bool,
    held: Held,
}

/// What the kernel may touch while an operation is under way; it comes back with the completion.
pub enum Held {
    Listener(Rc<TcpListener>),
    Socket(Rc<TcpStream>),
    Receive(Rc<TcpStream>, BytesMut),
    Disk(Rc<File>, AlignedBuffer),
    File(Rc<File>),
}

/// An operation that has ended. `result` is the kernel's: bytes or a descriptor, negative for an errno.
pub struct Completion {
    pub token: u64,
    pub result: i32,
    pub held: Held,
}

impl Ring {
    pub fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all().setup_cqsize(COMPLETION_ENTRIES);
        Ok(Self { io_uring: builder.build(SUBMISSION_ENTRIES)?, slots: Slab::new(), durable_in_flight: 0 })
    }

    /// Completes with the descriptor of one connection.
    pub fn accept(&mut self, token: u64, listener: &Rc<TcpListener>) {
        let entry = opcode::Accept::new(descriptor(listener.as_ref()), std::ptr::null_mut(), std::ptr::null_mut()).build();
        self.start(token, entry, Held::Listener(listener.clone()), false);
    }

    /// Completes with the bytes that were appended to `buffer`, which must have spare room; 0 at the end of the stream.
    pub fn receive(&mut self, token: u64, socket: &Rc<TcpStream>, mut buffer: BytesMut) {
        let spare = buffer.spare_capacity_mut();
        assert!(!spare.is_empty(), "there must be room to receive into");
        let entry = opcode::Recv::new(descriptor(socket.as_ref()), spare.as_mut_ptr().cast(), spare.len() as u32).build();
        self.start(token, entry, Held::Receive(socket.clone(), buffer), false);
    }

    /// Completes when the socket takes bytes again, or is broken.
    pub fn wait_for_room(&mut self, token: u64, socket: &Rc<TcpStream>) {
        let entry = opcode::PollAdd::new(descriptor(socket.as_ref()), POLL_OUT).build();
        self.start(token, entry, Held::Socket(socket.clone()), false);
    }

    /// Writes all of `buffer`; durable means RWF_DSYNC.
    pub fn write(&mut self, token: u64, file: &Rc<File>, buffer: AlignedBuffer, position: u64, is_durable: bool) {
        let flags = if is_durable { DSYNC } else { 0 };
        let entry = opcode::Write::new(descriptor(file.as_ref()), buffer.as_ptr(), buffer.len() as u32).offset(position).rw_flags(flags);
        self.start(token, entry.build(), Held::Disk(file.clone(), buffer), is_durable);
    }

    /// Reads as many bytes as `buffer` is long, over what it holds.
    pub fn read(&mut self, token: u64, file: &Rc<File>, mut buffer: AlignedBuffer, position: u64) {
        let entry = opcode::Read::new(descriptor(file.as_ref()), buffer.as_mut_ptr(), buffer.len() as u32).offset(position);
        self.start(token, entry.build(), Held::Disk(file.clone(), buffer), false);
    }

    /// fdatasync.
    pub fn sync(&mut self, token: u64, file: &Rc<File>) {
        let entry = opcode::Fsync::new(descriptor(file.as_ref())).flags(FsyncFlags::DATASYNC).build();
        self.start(token, entry, Held::File(file.clone()), true);
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Whether a durable write is under way, which needs a kernel thread on some core: who spins gives way to it.
    pub fn is_durable_in_flight(&self) -> bool {
        self.durable_in_flight > 0
    }

    /// Submits what is queued, and sleeps until something has completed or `longest` is over.
    pub fn sleep(&mut self, longest: Option<Duration>, into: &mut Vec<Completion>) {
        let queued = self.io_uring.submission().len() as u32;
        let time = longest.map(Timespec::from);
        let arguments = time.as_ref().map(|time| SubmitArgs::new().timespec(time));
        let mut flags = EnterFlags::GETEVENTS;
        flags.set(EnterFlags::EXT_ARG, arguments.is_some());
        // SAFETY: the arguments outlive the call, and what the queued entries point to is held by their slots.
        let entered = unsafe { self.io_uring.submitter().enter(queued, 1, flags.bits(), arguments.as_ref()) };
        if let Err(error) = entered {
            let is_passing = error.raw_os_error().is_some_and(|errno| [INTERRUPTED, TIME_OVER].contains(&errno));
            assert!(is_passing, "the ring cannot be entered: {error}");
        }
        self.collect(into);
    }

    /// Submits what is queued and collects what has completed, without waiting. Costs no system call where there is neither.
    pub fn look(&mut self, into: &mut Vec<Completion>) {
        let submission = self.io_uring.submission();
        let queued = submission.len() as u32;
        let needs_kernel = queued > 0 || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if needs_kernel {
            // SAFETY: no argument is passed, and what the queued entries point to is held by their slots.
            let entered = unsafe { self.io_uring.submitter().enter::<()>(queued, 0, EnterFlags::GETEVENTS.bits(), None) };
            if let Err(error) = entered {
                assert!(error.raw_os_error() == Some(INTERRUPTED), "the ring cannot be entered: {error}");
            }
        }
        self.collect(into);
    }

    fn start(&mut self, token: u64, entry: squeue::Entry, held: Held, is_durable: bool) {
        let key = self.slots.insert(Slot { token, is_durable, held });
        self.durable_in_flight += usize::from(is_durable);
        let entry = entry.user_data(key as u64);
        // SAFETY: the entry points into memory that the slot holds and that does not move with it (heap memory of a buffer), and names a descriptor that the slot keeps open.
        while unsafe { self.io_uring.submission().push(&entry) }.is_err() {
            self.io_uring.submit().unwrap_or_else(|error| panic!("the ring cannot be entered: {error}"));
        }
    }

    fn collect(&mut self, into: &mut Vec<Completion>) {
        for completion in self.io_uring.completion() {
            let Slot { token, is_durable, mut held } = self.slots.remove(completion.user_data() as usize);
            self.durable_in_flight -= usize::from(is_durable);
            let result = completion.result();
            if let Held::Receive(_, buffer) = &mut held
                && result > 0
            {
                // SAFETY: the kernel has written this many bytes behind those that the buffer had.
                unsafe { buffer.set_len(buffer.len() + result as usize) };
            }
            into.push(Completion { token, result, held });
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing the ring does not wait for what is under way: the memory that the kernel may still touch stays allocated.
        if !self.slots.is_empty() {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

/// A socket out of the result of `accept`.
pub fn accepted(result: i32) -> io::Result<TcpStream> {
    use std::os::fd::FromRawFd;
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { TcpStream::from_raw_fd(result as RawFd) })
}

fn descriptor(of: &impl AsRawFd) -> Fd {
    Fd(of.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A durable write and a read of it come back with their buffers, whoever asks in which order.
    #[test]
    fn what_was_written_is_read() {
        let path = std::env::temp_dir().join(format!("corelane-bare-ring-{}", std::process::id()));
        let file = Rc::new(File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap());
        let mut ring = Ring::new().unwrap();
        let mut buffer = AlignedBuffer::with_capacity(4096);
        buffer.extend_from_slice(&[7; 4096]);
        ring.write(1, &file, buffer, 0, true);
        assert!(ring.is_durable_in_flight());
        let mut completions = Vec::new();
        ring.sleep(None, &mut completions);
        assert_eq!((completions[0].token, completions[0].result), (1, 4096));
        ring.read(2, &file, AlignedBuffer::zeroed(4096), 0);
        completions.clear();
        while completions.is_empty() {
            ring.look(&mut completions);
        }
        let Held::Disk(_, read) = &completions[0].held else { panic!("a read gives its buffer back") };
        assert!(read.iter().all(|byte| *byte == 7));
        assert_eq!(ring.in_flight(), 0);
        std::fs::remove_file(path).unwrap();
    }
}
