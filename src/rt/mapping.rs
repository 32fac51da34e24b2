//! A small file mapped into memory and shared with the page cache: what is stored has left the process with the store itself, without a system call.

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use super::file::{File, FileError, FileErrorCause, Operation, Result};

/// A mapping of a whole file, of one length for its life. Written by one shard and read by nobody while it lives: a later process reads the file.
#[derive(Debug)]
pub struct SharedMapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and memory that is mapped has no tie to the thread that mapped it.
unsafe impl Send for SharedMapping {}

impl SharedMapping {
    /// Maps the whole file, which is open for reading and writing and which nobody cuts: a store behind its end would end the process (SIGBUS). A filesystem that shares no
    /// mappings says ENODEV.
    pub fn new(file: &File) -> Result<Self> {
        let length = file.length()? as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a fresh range, so no memory of ours is touched; the descriptor is open.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED) {
            Some(base) => Ok(Self { base, length }),
            None => {
                let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
                Err(FileError { operation: Operation::Map, path: file.path().into(), position: None, cause: FileErrorCause::Errno(errno) })
            }
        }
    }

    /// Stores bytes. A process that is killed between two stores has done the first, whole, before any of the second.
    ///
    /// The first store into a page after the kernel has written that page to the disk waits for the filesystem (a few microseconds as a rule).
    pub fn store(&mut self, bytes: &[u8], position: usize) {
        assert!(position.checked_add(bytes.len()).is_some_and(|end| end <= self.length), "a store lies in the mapping");
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the range was just checked to lie in the mapping, which lives as long as `self`; `bytes` is memory of Rust's and no part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(position), bytes.len()) }
        compiler_fence(Ordering::SeqCst);
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this address and length, unmapped once; nothing refers to the memory any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::OpenMode;
    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::open_blocking(directory.path().join("mapped"), OpenMode::CREATE).unwrap();
        file.set_len_blocking(8192).unwrap();
        let mut mapping = SharedMapping::new(&file).unwrap();
        mapping.store(b"across two pages", 4090);
        assert_eq!(&file.read_at_blocking(8192, 0).unwrap()[4090..4106], b"across two pages");
        drop(mapping);
        assert_eq!(&file.read_at_blocking(8192, 0).unwrap()[4090..4106], b"across two pages");
    }

    #[test]
    #[should_panic(expected = "a store lies in the mapping")]
    fn a_store_behind_the_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::open_blocking(directory.path().join("mapped"), OpenMode::CREATE).unwrap();
        file.set_len_blocking(4096).unwrap();
        SharedMapping::new(&file).unwrap().store(b"ab", 4095);
    }
}
