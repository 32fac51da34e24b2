//! The lying disk where a broker can use it: a FUSE filesystem over `Disk`.
//!
//! Files are opened past the page cache (FOPEN_DIRECT_IO), so that every write arrives by itself, with O_DSYNC in its flags where it was made with RWF_DSYNC. What asks for
//! durability is answered by a thread of its own, after a while and in any order, as a device would; so a cut finds writes under way. A power cut has two steps: `freeze` (or the
//! operation at which it was to happen) after which nothing is answered any more, and, when the broker is dead, `power_off`, which gives the disk back.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use harness::random::Random;
use rustix::fs::OFlags;
use rustix::mount::{UnmountFlags, unmount};

use crate::content::PAGE_BYTES;
use crate::disk::{ChangeNumber, Disk, DiskError, NodeId, ROOT};
use crate::folder::Folder;

/// Nothing changes behind the kernel's back while the disk is mounted.
const CACHED: Duration = Duration::from_secs(3600);

/// Larger than the journal's largest group, so that a group mostly arrives in one piece.
const WRITE_BYTES_MAX: u32 = 1 << 20;

const NAME_BYTES_MAX: u32 = 255;

/// A disk at a mount point.
pub struct Mounted {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    device: Option<JoinHandle<()>>,
    mount_point: PathBuf,
}

/// What goes wrong while the disk is in use.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Writes and durable writes from the n-th on, to files whose names end so, fail; how many of them.
    pub failing_writes: Option<Failing>,
    /// The same with flushes of files and directories.
    pub failing_flushes: Option<Failing>,
    /// Nothing becomes durable before this moment.
    pub stalled_until: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct Failing {
    pub name_end: &'static str,
    pub skip: u64,
    pub count: u64,
}

impl Failing {
    fn strikes(&mut self, name: &str) -> bool {
        if !name.ends_with(self.name_end) || self.count == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.count -= 1;
        true
    }
}

/// Whether a filesystem of ours can be mounted and unmounted here; otherwise why not. An empty disk shows it: who may open /dev/fuse may still not be allowed to do either.
pub fn availability() -> Result<(), String> {
    let folder = Folder::new();
    let mounted = Mounted::mount(Disk::new(PAGE_BYTES), &folder.disk(), Random::from_seed(0), 0)
        .map_err(|error| format!("a filesystem of ours cannot be mounted: {error}"))?;
    mounted.take_out().map(drop).map_err(|error| format!("a filesystem of ours cannot be unmounted: {error}"))
}

struct Shared {
    state: Mutex<State>,
    /// Rung when something is due for the device's thread, and when the power fails.
    bell: Condvar,
}

struct State {
    disk: Disk,
    power: Power,
    /// Operations that change something, so far.
    operations: u64,
    /// The one at which the power fails.
    last_operation: Option<u64>,
    /// A rename to a name that ends so is the last, too.
    last_rename: Option<&'static str>,
    under_way: Vec<UnderWay>,
    /// Asked when the power was gone already: answered when the broker is.
    unanswered: Vec<Refusal>,
    random: Random,
    latency_us_max: u64,
    faults: Faults,
    refuses_direct_io: bool,
    /// What files are called, for faults that look for them.
    names: std::collections::HashMap<NodeId, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing is done and nothing answered any more.
    Gone,
    /// The broker is dead: whoever still asks hears of an error.
    Dead,
}

/// Something that the device was asked to make durable.
struct UnderWay {
    due: Instant,
    request: Durable,
    answer: Answer,
}

enum Durable {
    Write(NodeId, ChangeNumber),
    File(NodeId, ChangeNumber),
    Directory(NodeId, ChangeNumber),
}

enum Answer {
    Written(ReplyWrite, u32),
    Done(ReplyEmpty),
}

type Refusal = Box<dyn FnOnce() + Send>;

impl Mounted {
    /// Mounts the disk on an empty directory. Whatever is to be durable takes up to `latency_us_max`.
    pub fn mount(disk: Disk, mount_point: &Path, mut random: Random, latency_us_max: u64) -> io::Result<Mounted> {
        let state = State {
            disk,
            power: Power::On,
            operations: 0,
            last_operation: None,
            last_rename: None,
            under_way: Vec::new(),
            unanswered: Vec::new(),
            random: random.split(),
            latency_us_max,
            faults: Faults::default(),
            refuses_direct_io: false,
            names: Default::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), bell: Condvar::new() });
        let mut options = Config::default();
        options.mount_options = vec![MountOption::FSName("lying-disk".into()), MountOption::NoAtime];
        let session = fuser::spawn_mount(LyingFilesystem(shared.clone()), mount_point, &options)?;
        let of_device = shared.clone();
        let device = thread::spawn(move || of_device.complete_what_is_due());
        Ok(Mounted { shared, session: Some(session), device: Some(device), mount_point: mount_point.into() })
    }

    /// Operations that changed something, so far.
    pub fn operations(&self) -> u64 {
        self.shared.lock().operations
    }

    /// The power is to fail at the n-th operation from now; None takes that back.
    pub fn freeze_after(&self, operations: Option<u64>) {
        let mut state = self.shared.lock();
        state.last_operation = operations.map(|more| state.operations + more);
    }

    /// The power is to fail at a rename to a name that ends so.
    pub fn freeze_at_rename(&self, name_end: &'static str) {
        self.shared.lock().last_rename = Some(name_end);
    }

    pub fn freeze(&self) {
        self.shared.lock().power = Power::Gone;
        self.shared.bell.notify_all();
    }

    pub fn is_frozen(&self) -> bool {
        self.shared.lock().power != Power::On
    }

    /// Waits until the power has failed; false if it has not within `limit`.
    pub fn wait_frozen(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let (state, _) = self.shared.bell.wait_timeout_while(state, limit, |state| state.power == Power::On).expect("no panic in the disk");
        state.power != Power::On
    }

    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
        self.shared.bell.notify_all();
    }

    /// No file is opened with O_DIRECT from now on.
    pub fn refuse_direct_io(&self) {
        self.shared.lock().refuses_direct_io = true;
    }

    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.shared.lock().disk.capacity_bytes = capacity_bytes;
    }

    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().disk.used_bytes()
    }

    /// Lets those go who still wait for an answer: to be called when the broker is being killed, which otherwise cannot end.
    pub fn let_go(&self) {
        self.shared.lock().let_go();
        self.shared.bell.notify_all();
    }

    /// Takes the disk out, as it stands: with everything that was not flushed still in doubt. Whoever used it has ended.
    pub fn power_off(self) -> Disk {
        self.take_out().expect("what was mounted can be unmounted")
    }

    fn take_out(mut self) -> io::Result<Disk> {
        self.detach()?;
        if let Some(session) = self.session.take() {
            session.join().expect("the filesystem's thread ends with its mount");
        }
        if let Some(device) = self.device.take() {
            device.join().expect("the device's thread ends with the power");
        }
        Ok(std::mem::replace(&mut self.shared.lock().disk, Disk::new(0)))
    }

    /// Rings of a killed process are torn down a little later than the process: detached, the mount ends with the last of them.
    fn detach(&mut self) -> io::Result<()> {
        self.let_go();
        Ok(unmount(&self.mount_point, UnmountFlags::DETACH)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A failure somewhere else, which is the one to hear of: the broker may still be there, and is not waited for.
        if self.session.is_some() {
            let _ = self.detach();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic in the disk")
    }

    /// The device's thread: makes durable what is due, and says so.
    fn complete_what_is_due(&self) {
        let mut state = self.lock();
        while state.power != Power::Dead {
            let now = Instant::now();
            let stalled_until = state.faults.stalled_until.filter(|until| *until > now);
            let next =
                state.under_way.iter().enumerate().min_by_key(|(_, request)| request.due).map(|(index, request)| (index, request.due));
            state = match (state.power, next) {
                (Power::On, Some((index, due))) if due <= now && stalled_until.is_none() => {
                    let request = state.under_way.swap_remove(index);
                    state.complete(request);
                    state
                }
                (Power::On, Some((_, due))) => {
                    let wake = stalled_until.map_or(due, |until| until.max(due));
                    self.bell.wait_timeout(state, wake.saturating_duration_since(now)).expect("no panic in the disk").0
                }
                _ => self.bell.wait(state).expect("no panic in the disk"),
            };
        }
    }
}

impl State {
    /// Counts an operation that has just changed something. Whether the power is still there to answer it.
    fn count(&mut self, bell: &Condvar) -> bool {
        self.operations += 1;
        if self.last_operation.is_some_and(|last| self.operations >= last) {
            self.power = Power::Gone;
            bell.notify_all();
        }
        self.power == Power::On
    }

    /// Whether a file is not opened with these flags.
    fn refuses(&self, flags: i32) -> bool {
        self.refuses_direct_io && flags & OFlags::DIRECT.bits() as i32 != 0
    }

    fn begin(&mut self, request: Durable, answer: Answer, bell: &Condvar) {
        let latency_us = if self.latency_us_max == 0 { 0 } else { self.random.below(self.latency_us_max) };
        self.under_way.push(UnderWay { due: Instant::now() + Duration::from_micros(latency_us), request, answer });
        bell.notify_all();
    }

    fn complete(&mut self, UnderWay { request, answer, .. }: UnderWay) {
        match request {
            Durable::Write(node, number) => self.disk.settle(node, number),
            Durable::File(node, through) => self.disk.flush(node, through),
            Durable::Directory(node, through) => self.disk.flush_directory(node, through),
        }
        answer.succeed();
    }

    fn let_go(&mut self) {
        self.power = Power::Dead;
        self.under_way.drain(..).for_each(|under_way| under_way.answer.refuse());
        self.unanswered.drain(..).for_each(|refusal| refusal());
    }

    /// Keeps a request that came when the power was gone.
    fn refuse(&mut self, refusal: Refusal) {
        if self.power == Power::Dead { refusal() } else { self.unanswered.push(refusal) }
    }

    fn attributes(&self, node: NodeId) -> Result<FileAttr, DiskError> {
        let (length, is_directory) = self.disk.stat(node)?;
        let time = SystemTime::now().max(UNIX_EPOCH);
        Ok(FileAttr {
            ino: INodeNo(node),
            size: length,
            blocks: length.next_multiple_of(PAGE_BYTES) / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if is_directory { FileType::Directory } else { FileType::RegularFile },
            perm: if is_directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: PAGE_BYTES as u32,
            flags: 0,
        })
    }
}

impl Answer {
    fn succeed(self) {
        match self {
            Answer::Written(reply, bytes) => reply.written(bytes),
            Answer::Done(reply) => reply.ok(),
        }
    }

    fn refuse(self) {
        match self {
            Answer::Written(reply, _) => reply.error(Errno::EIO),
            Answer::Done(reply) => reply.error(Errno::EIO),
        }
    }
}

/// The side of the kernel.
struct LyingFilesystem(Arc<Shared>);

/// Takes the state, or keeps the request for later where the power is gone.
macro_rules! state_or_keep {
    ($filesystem:ident, $reply:ident) => {{
        let mut state = $filesystem.0.lock();
        if state.power != Power::On {
            return state.refuse(Box::new(move || $reply.error(Errno::EIO)));
        }
        state
    }};
}

/// What an operation gave, or its error as the answer.
macro_rules! or_error {
    ($outcome:expr, $reply:ident) => {
        match $outcome {
            Ok(outcome) => outcome,
            Err(error) => return $reply.error(errno(error)),
        }
    };
}

/// Counts a change; where that was the last, its answer is kept.
macro_rules! count_or_keep {
    ($filesystem:ident, $state:ident, $reply:ident) => {
        if !$state.count(&$filesystem.0.bell) {
            return $state.refuse(Box::new(move || $reply.error(Errno::EIO)));
        }
    };
}

impl Filesystem for LyingFilesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Where the kernel allows less, it is less.
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO | InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = state_or_keep!(self, reply);
        let node = or_error!(state.disk.lookup(parent.0, &text(name)), reply);
        state.names.insert(node, text(name));
        let attributes = or_error!(state.attributes(node), reply);
        reply.entry(&CACHED, &attributes, Generation(0));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let state = state_or_keep!(self, reply);
        let attributes = or_error!(state.attributes(node.0), reply);
        reply.attr(&CACHED, &attributes);
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = state_or_keep!(self, reply);
        if let Some(length) = size {
            or_error!(state.disk.set_length(node.0, length), reply);
            count_or_keep!(self, state, reply);
        }
        let attributes = or_error!(state.attributes(node.0), reply);
        reply.attr(&CACHED, &attributes);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut state = state_or_keep!(self, reply);
        let node = or_error!(state.disk.create_directory(parent.0, &text(name)), reply);
        count_or_keep!(self, state, reply);
        let attributes = or_error!(state.attributes(node), reply);
        reply.entry(&CACHED, &attributes, Generation(0));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = state_or_keep!(self, reply);
        or_error!(state.disk.remove(parent.0, &text(name), false), reply);
        count_or_keep!(self, state, reply);
        reply.ok();
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = state_or_keep!(self, reply);
        or_error!(state.disk.remove(parent.0, &text(name), true), reply);
        count_or_keep!(self, state, reply);
        reply.ok();
    }

    fn rename(&self, _: &Request, parent: INodeNo, name: &OsStr, to: INodeNo, to_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        let mut state = state_or_keep!(self, reply);
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        or_error!(state.disk.rename((parent.0, &text(name)), (to.0, &text(to_name))), reply);
        if let Ok(node) = state.disk.lookup(to.0, &text(to_name)) {
            state.names.insert(node, text(to_name));
        }
        if state.last_rename.is_some_and(|name_end| text(to_name).ends_with(name_end)) {
            state.last_operation = Some(0);
        }
        count_or_keep!(self, state, reply);
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let state = state_or_keep!(self, reply);
        if state.refuses(flags.0) {
            return reply.error(Errno::EINVAL);
        }
        reply.opened(FileHandle(0), opened());
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let mut state = state_or_keep!(self, reply);
        if state.refuses(flags) {
            return reply.error(Errno::EINVAL);
        }
        let node = or_error!(state.disk.create_file(parent.0, &text(name)), reply);
        state.names.insert(node, text(name));
        count_or_keep!(self, state, reply);
        let attributes = or_error!(state.attributes(node), reply);
        reply.created(&CACHED, &attributes, Generation(0), FileHandle(0), opened());
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        position: u64,
        count: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = state_or_keep!(self, reply);
        let bytes = or_error!(state.disk.read(node.0, position, count.into()), reply);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        position: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = state_or_keep!(self, reply);
        let name = state.names.get(&node.0).cloned().unwrap_or_default();
        if state.faults.failing_writes.as_mut().is_some_and(|failing| failing.strikes(&name)) {
            return reply.error(Errno::EIO);
        }
        let number = or_error!(state.disk.write(node.0, position, bytes), reply);
        count_or_keep!(self, state, reply);
        let count = bytes.len() as u32;
        if flags.0 & OFlags::DSYNC.bits() as i32 == 0 {
            return reply.written(count);
        }
        state.begin(Durable::Write(node.0, number), Answer::Written(reply, count), &self.0.bell);
    }

    fn fallocate(&self, _: &Request, node: INodeNo, _: FileHandle, position: u64, count: u64, mode: i32, reply: ReplyEmpty) {
        let mut state = state_or_keep!(self, reply);
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        or_error!(state.disk.allocate(node.0, position + count), reply);
        count_or_keep!(self, state, reply);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = state_or_keep!(self, reply);
        let name = state.names.get(&node.0).cloned().unwrap_or_default();
        if state.faults.failing_flushes.as_mut().is_some_and(|failing| failing.strikes(&name)) {
            return reply.error(Errno::EIO);
        }
        count_or_keep!(self, state, reply);
        let through = state.disk.last_change();
        state.begin(Durable::File(node.0, through), Answer::Done(reply), &self.0.bell);
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = state_or_keep!(self, reply);
        count_or_keep!(self, state, reply);
        let through = state.disk.last_change();
        state.begin(Durable::Directory(node.0, through), Answer::Done(reply), &self.0.bell);
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, from: u64, mut reply: ReplyDirectory) {
        let state = state_or_keep!(self, reply);
        let entries = or_error!(state.disk.list(node.0), reply);
        let dots = [(".".to_string(), node.0), ("..".to_string(), ROOT)];
        for (index, (name, node)) in dots.into_iter().chain(entries).enumerate().skip(from as usize) {
            let is_directory = state.disk.stat(node).is_ok_and(|(_, is_directory)| is_directory);
            let kind = if is_directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(node), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = state_or_keep!(self, reply);
        let capacity = state.disk.capacity_bytes / PAGE_BYTES;
        let free = capacity.saturating_sub(state.disk.used_bytes() / PAGE_BYTES);
        let block_bytes = PAGE_BYTES as u32;
        reply.statfs(capacity, free, free, 1 << 20, 1 << 20, block_bytes, NAME_BYTES_MAX, block_bytes);
    }
}

/// Past the page cache, and several writes of one file at once.
fn opened() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn errno(error: DiskError) -> Errno {
    match error {
        DiskError::NotFound => Errno::ENOENT,
        DiskError::Exists => Errno::EEXIST,
        DiskError::NotDirectory => Errno::ENOTDIR,
        DiskError::IsDirectory => Errno::EISDIR,
        DiskError::NotEmpty => Errno::ENOTEMPTY,
        DiskError::Full => Errno::ENOSPC,
    }
}
