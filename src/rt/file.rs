//! Files: positioned reads and writes through the shard's ring, and the same as blocking calls for what runs before any shard does (recovery, preflight).
//!
//! Nothing here retries: a write or a flush that failed, or that moved fewer bytes than it was given, is an error, and what rests on those bytes must not be believed any more
//! (after a failed flush the kernel may have dropped the dirty pages: "Can Applications Recover from fsync Failures?", Rebello et al., ATC 2020).

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::blocking::blocking;
use super::buffer::AlignedBuffer;
use super::plant::{Plant, is_planted};
use super::reactor::current;
use super::ring::{Held, TRANSFER_BYTES_MAX};

/// No device has a smaller block than this for direct I/O.
const DIRECT_BLOCK_BYTES_MIN: usize = 512;

/// An open file. Clones share one descriptor, which closes with the last of them; a clone may go to another shard.
#[derive(Clone, Debug)]
pub struct File {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    descriptor: OwnedFd,
    path: PathBuf,
    direct: bool,
}

/// How to open a file; all false is not allowed: `read` or `write` must be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    /// Make the file if it does not exist (mode 0644 under the process's umask).
    pub create: bool,
    /// Make the file; an existing one is an error (EEXIST).
    pub create_new: bool,
    /// Past the page cache (O_DIRECT): addresses, positions and lengths must be multiples of the device's logical block; 4096 always serves.
    pub direct: bool,
    /// Cut an existing file to nothing.
    pub truncate: bool,
}

impl OpenMode {
    /// Reading an existing file through the page cache.
    pub const READ: Self = Self { read: true, write: false, create: false, create_new: false, direct: false, truncate: false };
    /// Reading and writing an existing file through the page cache.
    pub const READ_WRITE: Self = Self { write: true, ..Self::READ };
    /// Reading and writing, made if missing.
    pub const CREATE: Self = Self { create: true, ..Self::READ_WRITE };

    /// The same past the page cache, if `direct`.
    pub const fn direct(self, direct: bool) -> Self {
        Self { direct, ..self }
    }
}

/// What a completed write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The kernel has the bytes: they survive this process, not the machine.
    None,
    /// The bytes, and what is needed to find them again, are on stable storage (RWF_DSYNC).
    Dsync,
}

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Open,
    Write,
    Read,
    SyncData,
    SyncAll,
    SetLength,
    Allocate,
    Length,
    ReadAhead,
    Rename,
    Remove,
    CreateDirectory,
    SyncDirectory,
    ListDirectory,
    Space,
    Map,
}

/// Why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileErrorCause {
    /// The kernel said no.
    Errno(i32),
    /// A write moved fewer bytes than it was given, which a full disk or a broken device does. How many is not to be relied upon.
    Short { expected: usize, actual: usize },
}

/// A disk's or a filesystem's failure, with all that a person needs to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub operation: Operation,
    pub path: PathBuf,
    /// Where in the file, for reads and writes.
    pub position: Option<u64>,
    pub cause: FileErrorCause,
}

pub type Result<T> = std::result::Result<T, FileError>;

impl File {
    /// Opens on a helper thread.
    pub async fn open(path: impl Into<PathBuf>, mode: OpenMode) -> Result<File> {
        let path = path.into();
        blocking(move || File::open_blocking(path, mode)).await
    }

    /// Writes all of `data` at `position` in one operation (at most 1 GiB). The bytes belong to the ring until it is complete, whether or not anybody still waits for it. A durable write is
    /// submitted at once, any other at the end of the present round of tasks.
    pub async fn write_at(&self, data: Bytes, position: u64, durability: Durability) -> Result<()> {
        let expected = data.len();
        let (result, _) = current().ring.write(self, data, position, durability).await;
        self.check_written(result, expected, position)
    }

    /// As `write_at`, into a file that grows. A write that took fewer bytes than it was given does not say why, so room for all of them is asked for, which tells of a full disk as
    /// such; where there is room, they are written once more.
    pub async fn write_growing_at(&self, data: Bytes, position: u64, durability: Durability) -> Result<()> {
        match self.write_at(data.clone(), position, durability).await {
            Err(error) if matches!(error.cause, FileErrorCause::Short { .. }) => match self.allocate(position, data.len() as u64).await {
                Ok(()) => self.write_at(data, position, durability).await,
                Err(refused) if refused.is_no_space() => Err(refused),
                // The filesystem cannot say.
                Err(_) => Err(error),
            },
            result => result,
        }
    }

    /// Reads up to `length` bytes at `position`; fewer only where the file ends.
    pub async fn read_at(&self, length: usize, position: u64) -> Result<AlignedBuffer> {
        let mut buffer = AlignedBuffer::with_capacity(length);
        let mut filled = 0;
        while filled < length {
            let at = position + filled as u64;
            let (result, held) = current().ring.read(self, buffer, length - filled, at).await;
            let Held::Read { buffer: returned, .. } = held else { unreachable!("a read holds its buffer") };
            buffer = returned;
            match result {
                0 => break,
                // SAFETY: the kernel has written this many bytes behind those that the buffer had.
                bytes if bytes > 0 => unsafe { buffer.assume_filled(bytes as usize) },
                errno => return Err(self.error(Operation::Read, Some(at), FileErrorCause::Errno(-errno))),
            }
            filled += result as usize;
            if self.has_met_the_end(filled) {
                break;
            }
        }
        Ok(buffer)
    }

    /// Flushes the bytes and what is needed to find them (fdatasync).
    pub async fn sync_data(&self) -> Result<()> {
        let (result, _) = current().ring.sync(self, true).await;
        self.check_result(Operation::SyncData, result)
    }

    /// Flushes bytes and all metadata (fsync).
    pub async fn sync_all(&self) -> Result<()> {
        let (result, _) = current().ring.sync(self, false).await;
        self.check_result(Operation::SyncAll, result)
    }

    /// Whether the first and the last byte of the range are in the page cache, so that sending the range will most likely not wait for the disk. False where the filesystem cannot say. Never
    /// waits (0.5 us); the kernel may begin to read ahead when the answer is no.
    pub fn is_cached(&self, position: u64, length: usize) -> bool {
        length == 0 || (self.is_byte_cached(position) && self.is_byte_cached(position + length as u64 - 1))
    }

    /// Has the range read into the page cache. The kernel is asked, not waited for: see [`File::is_cached`].
    pub async fn read_ahead(&self, position: u64, length: u32) -> Result<()> {
        let (result, _) = current().ring.advise(self, position, length, libc::POSIX_FADV_WILLNEED).await;
        self.check_result(Operation::ReadAhead, result)
    }

    /// Keeps the kernel from reading ahead on its own through this descriptor, so that no block gets into the page cache that was not asked for (one that is still to be written, say).
    pub fn advise_random(&self) -> Result<()> {
        // SAFETY: the descriptor is open.
        match unsafe { libc::posix_fadvise(self.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) } {
            0 => Ok(()),
            errno => Err(self.error(Operation::ReadAhead, None, FileErrorCause::Errno(errno))),
        }
    }

    /// Cuts or extends (with a hole) to `length` bytes.
    pub async fn set_len(&self, length: u64) -> Result<()> {
        let file = self.clone();
        blocking(move || file.set_len_blocking(length)).await
    }

    /// Reserves blocks for `length` bytes from `position` on; the file grows to cover them.
    pub async fn allocate(&self, position: u64, length: u64) -> Result<()> {
        let file = self.clone();
        blocking(move || file.allocate_blocking(position, length)).await
    }

    /// Bytes in the file now.
    pub fn length(&self) -> Result<u64> {
        // SAFETY: `stat` is plain data that fstat fills; the descriptor is open.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        self.check(Operation::Length, unsafe { libc::fstat(self.as_raw_fd(), &mut stat) })?;
        Ok(stat.st_size as u64)
    }

    /// Where it was opened; a rename since does not show.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether it goes past the page cache.
    pub fn is_direct(&self) -> bool {
        self.inner.direct
    }

    /// Opens on the calling thread.
    pub fn open_blocking(path: impl Into<PathBuf>, mode: OpenMode) -> Result<File> {
        let path = path.into();
        let fail =
            |errno| FileError { operation: Operation::Open, path: path.clone(), position: None, cause: FileErrorCause::Errno(errno) };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| fail(libc::EINVAL))?;
        // SAFETY: `name` is a terminated string that outlives the call.
        let descriptor = unsafe { libc::open(name.as_ptr(), mode.flags(), 0o644) };
        if descriptor < 0 {
            return Err(fail(last_errno()));
        }
        // SAFETY: just opened, owned by nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(File::from_descriptor(descriptor, path, mode))
    }

    /// A file that was opened elsewhere in this room.
    pub(super) fn from_descriptor(descriptor: OwnedFd, path: PathBuf, mode: OpenMode) -> File {
        File { inner: Arc::new(Inner { descriptor, path, direct: mode.direct }) }
    }

    /// [`File::write_at`] on the calling thread.
    pub fn write_at_blocking(&self, data: &[u8], position: u64, durability: Durability) -> Result<()> {
        let piece = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: data.len() };
        assert!(data.len() <= TRANSFER_BYTES_MAX, "one write is at most 1 GiB");
        // SAFETY: `piece` describes `data`, which outlives the call.
        let written = retry_interrupted(|| unsafe { libc::pwritev2(self.as_raw_fd(), &piece, 1, position as i64, durability.flags()) });
        self.check_written(written.map_or_else(|errno| -errno, |bytes| bytes as i32), data.len(), position)
    }

    /// [`File::read_at`] on the calling thread.
    pub fn read_at_blocking(&self, length: usize, position: u64) -> Result<AlignedBuffer> {
        let mut buffer = AlignedBuffer::with_capacity(length);
        while buffer.len() < length {
            let at = position + buffer.len() as u64;
            let rest = length - buffer.len();
            // SAFETY: there is room for the rest behind what the buffer has.
            let read = retry_interrupted(|| unsafe { libc::pread(self.as_raw_fd(), buffer.spare_pointer().cast(), rest, at as i64) });
            match read {
                Ok(0) => break,
                // SAFETY: the kernel has written this many bytes there.
                Ok(bytes) => unsafe { buffer.assume_filled(bytes as usize) },
                Err(errno) => return Err(self.error(Operation::Read, Some(at), FileErrorCause::Errno(errno))),
            }
            if self.has_met_the_end(buffer.len()) {
                break;
            }
        }
        Ok(buffer)
    }

    /// fdatasync on the calling thread.
    pub fn sync_data_blocking(&self) -> Result<()> {
        // SAFETY: the descriptor is open.
        self.check(Operation::SyncData, unsafe { libc::fdatasync(self.as_raw_fd()) })
    }

    /// fsync on the calling thread.
    pub fn sync_all_blocking(&self) -> Result<()> {
        // SAFETY: the descriptor is open.
        self.check(Operation::SyncAll, unsafe { libc::fsync(self.as_raw_fd()) })
    }

    /// ftruncate on the calling thread.
    pub fn set_len_blocking(&self, length: u64) -> Result<()> {
        // SAFETY: the descriptor is open.
        self.check(Operation::SetLength, unsafe { libc::ftruncate(self.as_raw_fd(), length as i64) })
    }

    /// fallocate on the calling thread.
    pub fn allocate_blocking(&self, position: u64, length: u64) -> Result<()> {
        // SAFETY: the descriptor is open.
        self.check(Operation::Allocate, unsafe { libc::fallocate(self.as_raw_fd(), 0, position as i64, length as i64) })
    }

    fn check(&self, operation: Operation, returned: i32) -> Result<()> {
        match returned {
            0 => Ok(()),
            _ => Err(self.error(operation, None, FileErrorCause::Errno(last_errno()))),
        }
    }

    /// For results in the ring's manner: negative is an errno.
    fn check_result(&self, operation: Operation, result: i32) -> Result<()> {
        match result {
            0.. => Ok(()),
            errno => Err(self.error(operation, None, FileErrorCause::Errno(-errno))),
        }
    }

    fn check_written(&self, result: i32, expected: usize, position: u64) -> Result<()> {
        match result {
            bytes if bytes >= 0 && bytes as usize == expected => Ok(()),
            bytes if bytes >= 0 => {
                Err(self.error(Operation::Write, Some(position), FileErrorCause::Short { expected, actual: bytes as usize }))
            }
            errno => Err(self.error(Operation::Write, Some(position), FileErrorCause::Errno(-errno))),
        }
    }

    /// Past the page cache a read that ends inside a block has met the end of the file, and the next one could not be aligned.
    fn has_met_the_end(&self, read_bytes: usize) -> bool {
        self.inner.direct && !read_bytes.is_multiple_of(DIRECT_BLOCK_BYTES_MIN)
    }

    fn is_byte_cached(&self, position: u64) -> bool {
        let mut byte = 0u8;
        let piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: `piece` describes one byte that outlives the call.
        unsafe { libc::preadv2(self.as_raw_fd(), &piece, 1, position as i64, libc::RWF_NOWAIT) == 1 }
    }

    fn error(&self, operation: Operation, position: Option<u64>, cause: FileErrorCause) -> FileError {
        FileError { operation, path: self.inner.path.clone(), position, cause }
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.descriptor.as_raw_fd()
    }
}

/// Makes the names in a directory durable: what was created, renamed or removed in it before.
pub async fn sync_directory(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    blocking(move || sync_directory_blocking(path)).await
}

/// [`sync_directory`] on the calling thread.
pub fn sync_directory_blocking(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    if is_planted(Plant::NoDirectoryFlush) {
        return Ok(());
    }
    let synced = File::open_blocking(&path, OpenMode::READ).and_then(|directory| directory.sync_all_blocking());
    synced.map_err(|error| FileError { operation: Operation::SyncDirectory, ..error })
}

/// Renames, replacing what stands at `to`. Durable only after [`sync_directory`] of the parent.
pub async fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Result<()> {
    let (from, to) = (from.into(), to.into());
    blocking(move || rename_blocking(from, to)).await
}

/// [`rename`] on the calling thread.
pub fn rename_blocking(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Result<()> {
    let from = from.into();
    std::fs::rename(&from, to.into()).map_err(|error| named(Operation::Rename, from, error))
}

/// Removes a file. Durable only after [`sync_directory`] of the parent.
pub async fn remove(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    blocking(move || remove_blocking(path)).await
}

/// [`remove`] on the calling thread.
pub fn remove_blocking(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    std::fs::remove_file(&path).map_err(|error| named(Operation::Remove, path, error))
}

/// Removes a directory with all that is in it.
pub async fn remove_directory(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    blocking(move || std::fs::remove_dir_all(&path).map_err(|error| named(Operation::Remove, path, error))).await
}

/// Makes a directory and those above it; one that exists is fine.
pub async fn create_directory(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    blocking(move || create_directory_blocking(path)).await
}

/// [`create_directory`] on the calling thread.
pub fn create_directory_blocking(path: impl Into<PathBuf>) -> Result<()> {
    let path = path.into();
    std::fs::create_dir_all(&path).map_err(|error| named(Operation::CreateDirectory, path, error))
}

/// The names in a directory, in no order; those that are not UTF-8 are none of ours and are left out.
pub fn list_directory_blocking(path: impl AsRef<Path>) -> Result<Vec<String>> {
    let path = path.as_ref();
    let fail = |error| named(Operation::ListDirectory, path.to_path_buf(), error);
    let entries = std::fs::read_dir(path).map_err(fail)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).map_err(fail));
    names.filter_map(Result::transpose).collect()
}

/// Room on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    /// What this process may still fill; less than what is free where some is reserved for root.
    pub usable_bytes: u64,
}

/// Room on the filesystem that holds `path`.
pub async fn space(path: impl Into<PathBuf>) -> Result<Space> {
    let path = path.into();
    blocking(move || space_blocking(path)).await
}

/// [`space`] on the calling thread.
pub fn space_blocking(path: impl Into<PathBuf>) -> Result<Space> {
    let path = path.into();
    let name = CString::new(path.as_os_str().as_bytes());
    // SAFETY: statvfs is plain data; all zeros is a valid value.
    let mut info: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the name is a terminated string that outlives the call, `info` is valid for writing.
    let is_known = name.is_ok_and(|name| unsafe { libc::statvfs(name.as_ptr(), &mut info) } == 0);
    if !is_known {
        return Err(named(Operation::Space, path, io::Error::last_os_error()));
    }
    // One that counts no blocks (ramfs) cannot say when it is full.
    let usable_bytes = if info.f_blocks == 0 { u64::MAX } else { info.f_bavail * info.f_frsize };
    Ok(Space { total_bytes: info.f_blocks * info.f_frsize, usable_bytes })
}

impl FileError {
    /// The kernel's number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self.cause {
            FileErrorCause::Errno(errno) => Some(errno),
            FileErrorCause::Short { .. } => None,
        }
    }

    /// Whether the file or one of its directories does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// Whether the filesystem has no room (or the quota is used up).
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOSPC | libc::EDQUOT))
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.operation {
            Operation::Open => "open",
            Operation::Write => "write to",
            Operation::Read => "read from",
            Operation::SyncData | Operation::SyncAll => "flush",
            Operation::SetLength => "set the length of",
            Operation::Allocate => "reserve room in",
            Operation::Length => "ask the length of",
            Operation::ReadAhead => "read ahead in",
            Operation::Rename => "rename",
            Operation::Remove => "remove",
            Operation::CreateDirectory => "make the directory",
            Operation::SyncDirectory => "flush the directory",
            Operation::ListDirectory => "list the directory",
            Operation::Map => "map",
            Operation::Space => "ask the room around",
        };
        write!(formatter, "cannot {step} {}", self.path.display())?;
        if let Some(position) = self.position {
            write!(formatter, " at byte {position}")?;
        }
        match self.cause {
            FileErrorCause::Errno(errno) => write!(formatter, ": {}", io::Error::from_raw_os_error(errno)),
            FileErrorCause::Short { expected, actual } => write!(formatter, ": only {actual} of {expected} bytes were taken"),
        }
    }
}

impl std::error::Error for FileError {}

impl OpenMode {
    fn flags(self) -> i32 {
        let access = match (self.read, self.write) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let flag = |set: bool, flag: i32| if set { flag } else { 0 };
        access
            | libc::O_CLOEXEC
            | flag(self.create || self.create_new, libc::O_CREAT)
            | flag(self.create_new, libc::O_EXCL)
            | flag(self.direct, libc::O_DIRECT)
            | flag(self.truncate, libc::O_TRUNC)
    }
}

impl Durability {
    pub(super) fn flags(self) -> i32 {
        match self {
            Durability::None => 0,
            Durability::Dsync => libc::RWF_DSYNC,
        }
    }
}

fn named(operation: Operation, path: PathBuf, error: io::Error) -> FileError {
    FileError { operation, path, position: None, cause: FileErrorCause::Errno(error.raw_os_error().unwrap_or(libc::EIO)) }
}

fn retry_interrupted(mut call: impl FnMut() -> isize) -> std::result::Result<isize, i32> {
    loop {
        match call() {
            returned if returned >= 0 => return Ok(returned),
            _ if last_errno() == libc::EINTR => continue,
            _ => return Err(last_errno()),
        }
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().expect("a system call has just failed")
}
