//! A small file mapped into memory and shared with the page cache: what is stored has left the process with the store itself, without a system call.
//!
//! Where a page cannot be had (a filesystem that failed and was shut down, a disk that is full under a file with holes, a file that somebody cut) the kernel sends SIGBUS to the thread
//! that stores, which ends the process unless somebody catches it. So a store says to the handler of this file which mapping it is in; the handler puts memory of nobody's in the
//! mapping's place, the store goes on into that, and fails. The signal anywhere else means what it always did.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

use super::file::{File, FileError, FileErrorCause, Operation, Result};

/// A mapping of a whole file, of one length for its life. Written by one shard and read by nobody while it lives: a later process reads the file.
#[derive(Debug)]
pub struct SharedMapping {
    /// Keeps the path for errors; the mapping itself needs no descriptor.
    file: File,
    base: NonNull<u8>,
    length: usize,
    /// A store found no page: the file gets nothing more.
    is_lost: bool,
}

// SAFETY: the mapping belongs to this value alone, and memory that is mapped has no tie to the thread that mapped it.
unsafe impl Send for SharedMapping {}

impl SharedMapping {
    /// Maps the whole file, which is open for reading and writing. A filesystem that shares no mappings says ENODEV.
    pub fn new(file: &File) -> Result<Self> {
        catch_missing_pages();
        let length = file.length()? as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a fresh range, so no memory of ours is touched; the descriptor is open.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        let file = file.clone();
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(base) => Ok(Self { file, base, length, is_lost: false }),
            None => Err(map_error(&file, std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// Stores bytes. A process that is killed between two stores has done the first, whole, before any of the second.
    ///
    /// The first store into a page after the kernel has written that page to the disk waits for the filesystem (a few microseconds as a rule). A store that finds no page fails, and
    /// with it all that follow.
    pub fn store(&mut self, bytes: &[u8], position: usize) -> Result<()> {
        assert!(position.checked_add(bytes.len()).is_some_and(|end| end <= self.length), "a store lies in the mapping");
        if !self.is_lost {
            STORED_INTO.with(|stored_into| stored_into.set(self.base.as_ptr() as usize, self.length));
            compiler_fence(Ordering::SeqCst);
            // SAFETY: the range was just checked to lie in the mapping, which lives as long as `self`; `bytes` is memory of Rust's and no part of it.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(position), bytes.len()) }
            compiler_fence(Ordering::SeqCst);
            // The handler takes away what it has replaced.
            self.is_lost = STORED_INTO.with(|stored_into| stored_into.base.swap(0, Ordering::Relaxed) == 0);
        }
        if self.is_lost { Err(map_error(&self.file, libc::EIO)) } else { Ok(()) }
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, or by the handler, with this address and length, unmapped once; nothing refers to the memory any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

fn map_error(file: &File, errno: i32) -> FileError {
    FileError { operation: Operation::Map, path: file.path().into(), position: None, cause: FileErrorCause::Errno(errno) }
}

/// The mapping that a thread stores into at the moment; atomic because a signal handler looks at it.
struct StoredInto {
    /// 0 while there is none.
    base: AtomicUsize,
    length: AtomicUsize,
}

thread_local! {
    // Without a destructor and never made late, as a signal handler needs it.
    static STORED_INTO: StoredInto = const { StoredInto { base: AtomicUsize::new(0), length: AtomicUsize::new(0) } };
}

impl StoredInto {
    fn set(&self, base: usize, length: usize) {
        self.base.store(base, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
    }

    /// Puts fresh memory in the place of the mapping if the address lies in it.
    fn replace_around(&self, address: usize) -> bool {
        let (base, length) = (self.base.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed));
        if base == 0 || !(base..base + length).contains(&address) {
            return false;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the range is that of a mapping whose owner is storing into it on this very thread, and to which nobody has a reference.
        let replaced = unsafe { libc::mmap(base as *mut libc::c_void, length, protection, flags, -1, 0) } != libc::MAP_FAILED;
        if replaced {
            self.base.store(0, Ordering::Relaxed);
        }
        replaced
    }
}

/// What the signal meant before: Rust's own handler, which tells of a stack that has overflowed, or the end of the process.
static FORMER_ACTION: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once in the life of the process.
fn catch_missing_pages() {
    FORMER_ACTION.get_or_init(|| {
        let mut former = MaybeUninit::uninit();
        // SAFETY: null asks only; the kernel fills `former` whole where it returns 0, and a signal that exists cannot be refused.
        let former = unsafe {
            assert_eq!(libc::sigaction(libc::SIGBUS, std::ptr::null(), former.as_mut_ptr()), 0, "SIGBUS is a signal");
            former.assume_init()
        };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_missing_page;
        // SAFETY: an all-zero sigaction is one with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler is of the kind that SA_SIGINFO says, and does nothing that a handler may not.
        let returned = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
        assert_eq!(returned, 0, "SIGBUS can be caught");
        former
    });
}

/// The thread has touched memory behind which there is no page. Takes no lock and no memory.
extern "C" fn on_missing_page(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid description to a handler of this kind; for SIGBUS it holds the address.
    let address = unsafe { (*info).si_addr() } as usize;
    if STORED_INTO.with(|stored_into| stored_into.replace_around(address)) {
        return;
    }
    // Not ours: what caused the signal causes it again, and finds whoever was there before us. The handler may run before `get_or_init` has returned: then nobody else is known.
    if let Some(former) = FORMER_ACTION.get() {
        // SAFETY: it was the action of this signal before.
        unsafe { libc::sigaction(libc::SIGBUS, former, std::ptr::null_mut()) };
    } else {
        // SAFETY: the default action is valid for any signal.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::OpenMode;
    use super::*;

    /// A file of two pages and its mapping.
    fn mapped(directory: &tempfile::TempDir, name: &str) -> (File, SharedMapping) {
        let file = File::open_blocking(directory.path().join(name), OpenMode::CREATE).unwrap();
        file.set_len_blocking(8192).unwrap();
        let mapping = SharedMapping::new(&file).unwrap();
        (file, mapping)
    }

    #[test]
    fn what_is_stored_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (file, mut mapping) = mapped(&directory, "mapped");
        mapping.store(b"across two pages", 4090).unwrap();
        assert_eq!(&file.read_at_blocking(8192, 0).unwrap()[4090..4106], b"across two pages");
        drop(mapping);
        assert_eq!(&file.read_at_blocking(8192, 0).unwrap()[4090..4106], b"across two pages");
    }

    /// A file that was cut stands for a filesystem that has no page: the kernel says it in the same way.
    #[test]
    fn a_store_that_finds_no_page_fails_and_the_process_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let ((cut, mut lost), (whole, mut kept)) = (mapped(&directory, "cut"), mapped(&directory, "whole"));
        cut.set_len_blocking(4096).unwrap();
        let error = lost.store(b"across two pages", 4090).unwrap_err();
        assert_eq!((error.operation, &*error.path), (Operation::Map, cut.path()));
        assert_eq!(lost.store(b"the first page is there", 0), Err(error), "what was lost stays lost");
        kept.store(b"of another file", 0).unwrap();
        assert_eq!(&whole.read_at_blocking(15, 0).unwrap()[..], b"of another file");
        whole.set_len_blocking(0).unwrap();
        kept.store(b"the next is caught as well", 0).unwrap_err();
    }

    #[test]
    #[should_panic(expected = "a store lies in the mapping")]
    fn a_store_behind_the_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _ = mapped(&directory, "mapped").1.store(b"ab", 8191);
    }
}
