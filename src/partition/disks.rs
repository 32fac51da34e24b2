//! The data directories that a shard's partitions lie in, as far as they matter to appends: whether there is room, and whether they work.
//!
//! A directory without room takes no more from clients, before a byte of it is in the journal: what the journal holds already must still find its place. Reads, deletes and retention
//! go on, coordinators and metadata have what is left (but no new topics), and clients are let in again when there is room. Those who wait for room in the ring when their directory
//! becomes full are told at once. A directory in which a write or flush has failed takes nothing more until a restart; other directories are none of its business.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use uuid::Uuid;

use crate::disk::journal::{Journal, JournalError};
use crate::disk::slow;
use crate::rt;
use crate::rt::sync::Notify;

/// Room that is left to coordinators, metadata, indexes and checkpoints, beside what the journal still has to place.
pub(super) const RESERVE_BYTES: u64 = 8 << 20;
/// With less than this it is looked at more often.
const SCARCE_BYTES: u64 = 2 << 30;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_INTERVAL_SCARCE: Duration = Duration::from_millis(100);

/// One data directory.
pub(super) struct Disk {
    id: Uuid,
    path: PathBuf,
    is_full: Cell<bool>,
    /// What clients may still append before the next look.
    left_bytes: Cell<u64>,
    failure: RefCell<Option<JournalError>>,
    refuses: Notify,
}

impl Disk {
    /// Whether clients may append to what lies here.
    pub fn takes_records(&self) -> bool {
        self.has_room() && !self.has_failed()
    }

    pub fn has_room(&self) -> bool {
        !self.is_full.get()
    }

    pub fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// A write or flush has failed. The first reason counts.
    pub fn fail(&self, error: &JournalError) {
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            tracing::error!(path = %self.path.display(), %error, "the data directory takes no more records until a restart");
            *failure = Some(error.clone());
            drop(failure);
            self.refuses.notify_all();
        }
    }

    /// Rung when it stops taking records.
    pub fn refuses(&self) -> &Notify {
        &self.refuses
    }

    /// A write found no room.
    pub fn ran_full(&self) {
        if !self.is_full.replace(true) {
            tracing::error!(path = %self.path.display(), "the data directory is full: producing is refused until there is room");
            self.refuses.notify_all();
        }
    }

    /// A client has appended so much. Between two looks more could come than there is room for.
    pub fn took(&self, bytes: usize) {
        let left_bytes = self.left_bytes.get().saturating_sub(bytes as u64);
        self.left_bytes.set(left_bytes);
        if left_bytes == 0 {
            self.ran_full();
        }
    }

    fn look(&self, usable_bytes: u64, waiting_bytes: u64) {
        let needed_bytes = waiting_bytes + RESERVE_BYTES;
        self.left_bytes.set(usable_bytes.saturating_sub(needed_bytes));
        if usable_bytes < needed_bytes {
            self.ran_full();
        } else if self.is_full.get() && usable_bytes > needed_bytes + RESERVE_BYTES {
            self.is_full.set(false);
            tracing::info!(path = %self.path.display(), usable_bytes, "the data directory has room again");
        }
    }
}

/// Those of a shard.
#[derive(Default)]
pub(super) struct Disks {
    disks: RefCell<Vec<Rc<Disk>>>,
}

impl Disks {
    /// The disk of a data directory; `partition_directory` lies in it.
    pub fn of(&self, id: Uuid, partition_directory: &Path) -> Rc<Disk> {
        let mut disks = self.disks.borrow_mut();
        if let Some(disk) = disks.iter().find(|disk| disk.id == id) {
            return disk.clone();
        }
        let path = partition_directory.parent().unwrap_or(partition_directory).to_path_buf();
        let disk = Rc::new(Disk {
            id,
            path,
            is_full: Cell::new(false),
            left_bytes: Cell::new(u64::MAX),
            failure: RefCell::default(),
            refuses: Notify::new(),
        });
        disks.push(disk.clone());
        disk
    }

    /// Asks every filesystem how much room there is; what the journal holds for it has to find its place there. The least of them.
    async fn look(&self, journal: &Journal) -> u64 {
        let disks = self.disks.borrow().clone();
        let mut least = u64::MAX;
        for disk in disks {
            match rt::file::space(disk.path.clone()).await {
                Ok(space) => {
                    disk.look(space.usable_bytes, journal.waiting_bytes_in(&disk.path));
                    least = least.min(space.usable_bytes);
                }
                Err(error) => tracing::warn!(%error, "cannot tell how much room there is"),
            }
        }
        least
    }
}

/// The task of a shard that looks for room, and for a journal's disk that does not answer, as long as there are partitions.
pub(super) async fn watch(disks: Weak<Disks>, journal: Weak<Journal>) {
    loop {
        let (Some(disks), Some(journal)) = (disks.upgrade(), journal.upgrade()) else { return };
        if journal.failure().is_some() {
            return;
        }
        if let Some(waiting) = journal.waits_for_disk() {
            slow::note(journal.path(), "write to the journal, still under way", waiting);
        }
        let least = disks.look(&journal).await;
        drop((disks, journal));
        rt::sleep(if least < SCARCE_BYTES { LOOK_INTERVAL_SCARCE } else { LOOK_INTERVAL }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_directory_takes_records_again_when_there_is_room_and_a_failed_one_does_not() {
        let disks = Disks::default();
        let disk = disks.of(Uuid::from_u128(1), Path::new("/data/orders-0"));
        assert!(Rc::ptr_eq(&disk, &disks.of(Uuid::from_u128(1), Path::new("/data/orders-1"))) && disk.path == Path::new("/data"));
        disk.look(RESERVE_BYTES + 99, 100);
        assert!(!disk.takes_records());
        disk.look(RESERVE_BYTES + 101, 100);
        assert!(!disk.takes_records(), "not for a moment only");
        disk.look(2 * RESERVE_BYTES + 101, 100);
        assert!(disk.takes_records());
        disk.ran_full();
        assert!(!disk.takes_records());
        // Much comes between two looks.
        disk.look(2 * RESERVE_BYTES + 101, 100);
        disk.took(RESERVE_BYTES as usize);
        assert!(disk.takes_records());
        disk.took(10);
        assert!(!disk.takes_records());
        disk.look(u64::MAX, 100);
        disk.fail(&JournalError::Failed { path: "/data".into(), cause: "no".into() });
        disk.look(u64::MAX, 100);
        assert!(!disk.takes_records() && disk.has_failed());
        assert!(disks.of(Uuid::from_u128(2), Path::new("/other/orders-0")).takes_records());
    }
}
