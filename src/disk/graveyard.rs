//! Files and directories on their way out: they bear the name of something deleted, and go when their time has come (`file.delete.delay.ms`), one after the other with a pause
//! between, so that removing a great many disturbs nobody.
//!
//! Nothing here is remembered beyond the process: a start removes what it finds under such names.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::rt;
use crate::rt::file::{FileError, list_directory_blocking, remove_blocking, remove_directory};
use crate::rt::sync::Notify;

/// Freeing a gigabyte takes a filesystem some milliseconds, in which others wait for its journal.
const PAUSE: Duration = Duration::from_millis(5);

/// What is buried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grave {
    File(PathBuf),
    Directory(PathBuf),
}

/// Everything of a shard that waits for its removal.
#[derive(Default)]
pub struct Graveyard {
    /// By the time at which it goes; the number keeps those of one moment apart.
    graves: RefCell<BTreeMap<(Instant, u64), Grave>>,
    next_number: Cell<u64>,
    bell: Notify,
    is_over: Cell<bool>,
}

impl Graveyard {
    /// Removes the graves' content after `delay`.
    pub fn bury(&self, graves: impl IntoIterator<Item = Grave>, delay: Duration) {
        // A delay without end is as good as the process's life; the next start removes what is left.
        let Some(due) = Instant::now().checked_add(delay) else { return };
        for grave in graves {
            let number = self.next_number.replace(self.next_number.get() + 1);
            self.graves.borrow_mut().insert((due, number), grave);
        }
        self.bell.notify_all();
    }

    /// Waiting.
    pub fn count(&self) -> usize {
        self.graves.borrow().len()
    }

    /// Ends the task of `run` once it has finished with what is at hand.
    pub fn end(&self) {
        self.is_over.set(true);
        self.bell.notify_all();
    }

    /// The task of a shard that removes what is due.
    pub async fn run(self: Rc<Self>) {
        while !self.is_over.get() {
            let rung = self.bell.notified();
            let first = self.graves.borrow().keys().next().copied();
            match first {
                None => rung.await,
                Some((due, _)) if due > Instant::now() => {
                    let _ = rt::timeout(due - Instant::now(), rung).await;
                }
                Some(key) => {
                    let grave = self.graves.borrow_mut().remove(&key).expect("looked at");
                    self.remove(grave).await;
                    rt::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn remove(&self, grave: Grave) {
        let removed = match grave {
            Grave::File(path) => rt::blocking(move || remove_blocking(path)).await,
            Grave::Directory(path) => self.remove_directory(path).await,
        };
        match removed {
            // Its directory went before it.
            Err(error) if !error.is_not_found() => tracing::warn!(%error, "a deleted file stays until the next start"),
            _ => {}
        }
    }

    async fn remove_directory(&self, path: PathBuf) -> Result<(), FileError> {
        let listed = path.clone();
        for name in rt::blocking(move || list_directory_blocking(listed)).await? {
            let file = path.join(name);
            match rt::blocking(move || remove_blocking(file)).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => rt::sleep(PAUSE).await,
            }
        }
        remove_directory(path).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_go_when_their_time_has_come() {
        rt::run(|| async {
            let place = tempfile::tempdir().unwrap();
            let path = |name: &str| place.path().join(name);
            std::fs::write(path("soon.deleted"), "x").unwrap();
            std::fs::write(path("late.deleted"), "x").unwrap();
            std::fs::create_dir(path("t-0.x-delete")).unwrap();
            std::fs::write(path("t-0.x-delete/a"), "x").unwrap();
            let graveyard = Rc::new(Graveyard::default());
            rt::spawn_background(graveyard.clone().run()).detach();
            graveyard.bury([Grave::File(path("late.deleted"))], Duration::from_secs(600));
            graveyard.bury([Grave::File(path("soon.deleted")), Grave::Directory(path("t-0.x-delete"))], Duration::from_millis(30));
            graveyard.bury([Grave::File(path("gone.deleted"))], Duration::ZERO);
            assert!(path("soon.deleted").exists() && path("t-0.x-delete").exists());
            for _ in 0..200 {
                if graveyard.count() == 1 && !path("t-0.x-delete").exists() {
                    break;
                }
                rt::sleep(Duration::from_millis(10)).await;
            }
            assert!(!path("soon.deleted").exists() && !path("t-0.x-delete").exists());
            assert!(path("late.deleted").exists());
            graveyard.end();
        });
    }
}
