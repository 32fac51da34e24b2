//! Preflight of a directory: that it is there or can be made, that it is ours alone, which filesystem it is on, whether direct I/O works there, and whether there is room.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Findings, Plan, Problem};
use crate::rt::buffer::AlignedBuffer;
use crate::rt::file::{Durability, File, OpenMode, sync_directory_blocking};

/// Kafka's name for the same purpose.
const LOCK_FILE: &str = ".lock";
/// Exists for a moment, and only where files need a name.
const PROBE_FILE: &str = ".corelane-probe";
const PROBE_BYTES: usize = 4096;
/// What the broker needs beside its journals to get anywhere.
const SPARE_BYTES: u64 = 32 << 20;
/// What it needs where it has been before: checkpoints and the like, so that it can let go of records on a disk that is full of them.
const SPARE_BYTES_AGAIN: u64 = 1 << 20;

/// A directory that is there, and ours until this is dropped.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    /// `ext4`, `xfs`, `tmpfs`, ...
    pub filesystem: String,
    /// Whether direct I/O works there.
    pub is_direct: bool,
    /// The directories that were made for it, outermost first.
    made: Vec<PathBuf>,
    made_lock_file: bool,
    _lock: OwnedFd,
}

/// What was seen of a directory that may not exist yet.
pub struct Survey {
    path: PathBuf,
    /// The directory itself, or the nearest one above it that exists.
    existing: PathBuf,
    filesystem: String,
    device: u64,
    free_bytes: u64,
    is_direct: bool,
    /// Taken already where the lock file exists.
    lock: Option<OwnedFd>,
}

/// Looks without changing anything. None if the directory cannot be used, which is then among the findings.
pub fn survey(path: &Path, findings: &mut Findings) -> Option<Survey> {
    match try_survey(path) {
        Ok(survey) => Some(survey),
        Err(problem) => {
            findings.problems.push(problem);
            None
        }
    }
}

fn try_survey(path: &Path) -> Result<Survey, Problem> {
    let existing = nearest_existing(path)?;
    let metadata = fs::metadata(&existing).map_err(|error| cannot("look at", &existing, &error))?;
    if !metadata.is_dir() {
        return Err(Problem {
            cause: format!("{} is not a directory", existing.display()),
            remedy: "name another directory in log.dirs or journal.dir".to_string(),
        });
    }
    check_access(&existing)?;
    let lock = if existing == path { lock_if_there(path)? } else { None };
    let (filesystem, free_bytes) = filesystem_of(&existing)?;
    let is_direct = is_direct_io_possible(&existing);
    Ok(Survey { path: path.to_path_buf(), existing, filesystem, device: metadata.dev(), free_bytes, is_direct, lock })
}

/// Whether each filesystem has room for all the reserved files that will lie on it.
pub fn check_room(surveys: &[Option<Survey>], plan: &Plan, findings: &mut Findings) {
    let surveys: Vec<&Survey> = surveys.iter().flatten().collect();
    let mut devices: Vec<u64> = surveys.iter().map(|survey| survey.device).collect();
    devices.sort_unstable();
    devices.dedup();
    for device in devices {
        let here: Vec<&&Survey> = surveys.iter().filter(|survey| survey.device == device).collect();
        let is_here = |file: &Path| here.iter().any(|survey| file.parent() == Some(&survey.path));
        let missing_bytes: u64 = plan
            .reserved_files
            .iter()
            .filter(|(file, _)| is_here(file))
            .map(|(file, bytes)| bytes.saturating_sub(allocated_bytes(file)))
            .sum();
        let (existing, free_bytes) = (here[0].existing.display(), here[0].free_bytes);
        // A lock file is there: a broker has been.
        let is_in_use = missing_bytes == 0 && here.iter().all(|survey| survey.lock.is_some());
        let needed_bytes = missing_bytes + if is_in_use { SPARE_BYTES_AGAIN } else { SPARE_BYTES };
        let free = format!("{existing} has {} MiB free", free_bytes >> 20);
        if free_bytes < needed_bytes {
            let (needed, remedy) = match missing_bytes {
                0 => (String::new(), "make room, or name another directory in log.dirs"),
                _ => (
                    format!(", {} of them for the journals", missing_bytes >> 20),
                    "make room, name another directory in journal.dir or log.dirs, or lower journal.bytes",
                ),
            };
            findings.problem(format!("{free}; {} MiB are needed{needed}", needed_bytes >> 20), remedy);
        } else if free_bytes < missing_bytes + SPARE_BYTES {
            findings
                .warnings
                .push(format!("{free}: it is as good as full, and takes records again when retention, a deletion or you have made room"));
        }
    }
}

impl Survey {
    pub fn warning(&self) -> Option<String> {
        let path = self.path.display();
        match (self.filesystem.as_str(), self.is_direct) {
            ("tmpfs" | "ramfs", _) => {
                Some(format!("{path} is on {}: it is lost when the machine stops, whatever is acknowledged", self.filesystem))
            }
            (filesystem, false) => Some(format!(
                "{path} is on {filesystem}, where direct I/O does not work: writes go through the page cache and are flushed there, which is slower. Use a local ext4 or XFS"
            )),
            _ => None,
        }
    }

    /// Makes what is missing and locks it.
    pub fn take_possession(self) -> Result<Directory, Problem> {
        let made = missing_directories(&self.path, &self.existing);
        fs::create_dir_all(&self.path).map_err(|error| cannot("make", &self.path, &error))?;
        for directory in &made {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_directory_blocking(parent).map_err(|error| Problem {
                cause: error.to_string(),
                remedy: "see the kernel's log for errors of the device".to_string(),
            })?;
        }
        let (lock, made_lock_file) = match self.lock {
            Some(lock) => (lock, false),
            None => (make_lock(&self.path)?, true),
        };
        Ok(Directory { path: self.path, filesystem: self.filesystem, is_direct: self.is_direct, made, made_lock_file, _lock: lock })
    }
}

impl Directory {
    /// Takes back what was made, since the start is refused after all.
    pub fn undo(self) {
        if self.made_lock_file {
            let _ = fs::remove_file(self.path.join(LOCK_FILE));
        }
        for directory in self.made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn nearest_existing(path: &Path) -> Result<PathBuf, Problem> {
    let mut candidate = path;
    loop {
        let look_at = if candidate.as_os_str().is_empty() { Path::new(".") } else { candidate };
        match fs::symlink_metadata(look_at) {
            Ok(_) => return Ok(look_at.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => candidate = candidate.parent().unwrap_or(Path::new("/")),
            Err(error) => return Err(cannot("reach", candidate, &error)),
        }
    }
}

fn missing_directories(path: &Path, existing: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().take_while(|ancestor| *ancestor != existing && !ancestor.as_os_str().is_empty()).map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

fn check_access(directory: &Path) -> Result<(), Problem> {
    let name = c_path(directory)?;
    // SAFETY: `name` is a terminated string that outlives the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::R_OK | libc::W_OK | libc::X_OK, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(cannot("write to", directory, &io::Error::last_os_error())),
    }
}

/// Takes the lock of a directory that has a lock file already; without one nobody holds the directory.
pub fn lock_if_there(directory: &Path) -> Result<Option<OwnedFd>, Problem> {
    match fs::OpenOptions::new().read(true).write(true).open(directory.join(LOCK_FILE)) {
        Ok(file) => lock(directory, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("open the lock file of", directory, &error)),
    }
}

fn make_lock(directory: &Path) -> Result<OwnedFd, Problem> {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(directory.join(LOCK_FILE));
    lock(directory, file.map_err(|error| cannot("make the lock file of", directory, &error))?)
}

/// An fcntl lock on the whole file, which is what Java takes: so a Kafka broker and one of ours exclude each other too. Of the open-file-description kind, which belongs to the descriptor and not to
/// the process, so that it also excludes a second broker within one process and is not lost when somebody else here closes the file.
fn lock(directory: &Path, file: fs::File) -> Result<OwnedFd, Problem> {
    let whole_file = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: `whole_file` outlives the call and the descriptor is open.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &whole_file) } == 0 {
        return Ok(file.into());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Err(Problem {
            cause: format!("{} is in use: another broker holds the lock on {LOCK_FILE} in it", directory.display()),
            remedy: format!(
                "stop the other broker (fuser {} names it), or name another directory in log.dirs",
                directory.join(LOCK_FILE).display()
            ),
        }),
        _ => Err(cannot("lock", directory, &error)),
    }
}

fn filesystem_of(directory: &Path) -> Result<(String, u64), Problem> {
    let name = c_path(directory)?;
    // SAFETY: statfs is plain data; all zeros is a valid value.
    let mut info: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a terminated string, `info` is valid for writing.
    if unsafe { libc::statfs(name.as_ptr(), &mut info) } != 0 {
        return Err(cannot("ask the filesystem of", directory, &io::Error::last_os_error()));
    }
    // One that counts no blocks (ramfs) cannot say how much room there is.
    let free_bytes = if info.f_blocks == 0 { u64::MAX } else { info.f_bavail * info.f_bsize as u64 };
    Ok((filesystem_name(info.f_type as i64), free_bytes))
}

/// By statfs(2). ext2, ext3 and ext4 share a number.
fn filesystem_name(magic: i64) -> String {
    let names = [
        (0xEF53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683E, "btrfs"),
        (0x2FC1_2FC1, "zfs"),
        (0xF2F5_2010, "f2fs"),
        (0x0102_1994, "tmpfs"),
        (0x8584_58F6, "ramfs"),
        (0x794C_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0xFF53_4D42, "cifs"),
        (0x6573_5546, "fuse"),
        (0x0102_1997, "9p"),
        (0xCA45_1A4E, "bcachefs"),
    ];
    names
        .iter()
        .find(|(known, _)| *known == magic & 0xFFFF_FFFF)
        .map_or_else(|| format!("a filesystem of type {magic:#x}"), |(_, name)| name.to_string())
}

/// Writes a block past the page cache into a file without a name, of which nothing remains.
fn is_direct_io_possible(directory: &Path) -> bool {
    let Some(descriptor) = open_nameless(directory) else { return false };
    let file = File::from_descriptor(descriptor, directory.to_path_buf(), OpenMode::READ_WRITE.direct(true));
    file.write_at_blocking(&AlignedBuffer::zeroed(PROBE_BYTES), 0, Durability::Dsync).is_ok()
}

/// Where the filesystem does not make files without a name (FUSE, some network filesystems), one that loses its name at once.
fn open_nameless(directory: &Path) -> Option<OwnedFd> {
    let open = |path: &Path, flags: i32| {
        let name = c_path(path).ok()?;
        // SAFETY: `name` is a terminated string that outlives the call.
        let descriptor = unsafe { libc::open(name.as_ptr(), flags | libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC, 0o600) };
        // SAFETY: just opened, owned by nobody else.
        (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    open(directory, libc::O_TMPFILE).or_else(|| {
        let probe = directory.join(PROBE_FILE);
        let descriptor = open(&probe, libc::O_CREAT);
        let _ = fs::remove_file(&probe);
        descriptor
    })
}

fn allocated_bytes(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.blocks() * 512)
}

fn c_path(path: &Path) -> Result<CString, Problem> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Problem { cause: format!("{} contains a zero byte", path.display()), remedy: "name another directory".to_string() })
}

fn cannot(step: &str, path: &Path, error: &io::Error) -> Problem {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give the broker's user the rights to it (chown, or the volume's fsGroup), or name another directory".to_string()
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount the filesystem for writing, or name another directory".to_string(),
        _ => "name another directory in log.dirs or journal.dir".to_string(),
    };
    Problem { cause: format!("cannot {step} {}: {error}", path.display()), remedy }
}
