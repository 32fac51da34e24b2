//! Open files of segments, for readers: kept open while they are used, closed when others need their place.
//!
//! A file that is dropped here stays open for those who hold it (a send under way, say) and closes after them. Files are found by partition and base offset, not by path, so that a
//! directory may get another name meanwhile.

use std::cell::{Cell, RefCell};
use std::path::Path;

use hashbrown::{HashMap, HashSet};

use crate::cluster::TopicIdPartition;
use crate::log::file_names::{LogFileKind, SWAP_SUFFIX};
use crate::rt::file::{File, OpenMode, Result};

/// Whose file it is, and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentFileKey {
    pub partition: TopicIdPartition,
    pub base_offset: i64,
    /// See `SegmentView::layout`.
    pub layout: u32,
    /// Past the page cache.
    pub direct: bool,
}

/// The open files of a shard.
#[derive(Debug)]
pub struct SegmentFiles {
    open_max: usize,
    files: RefCell<HashMap<SegmentFileKey, Open, foldhash::fast::RandomState>>,
    /// Segments whose files are about to lose `.swap` from their names.
    swapping: RefCell<HashSet<(TopicIdPartition, i64), foldhash::fast::RandomState>>,
    /// Counts uses; tells who was used longest ago.
    clock: Cell<u64>,
}

#[derive(Debug)]
struct Open {
    file: File,
    used: u64,
}

impl SegmentFiles {
    pub fn new(open_max: usize) -> Self {
        Self { open_max: open_max.max(1), files: RefCell::default(), swapping: RefCell::default(), clock: Cell::new(0) }
    }

    /// The file, opened on a helper thread if it is not open yet.
    pub async fn open(&self, key: SegmentFileKey, directory: &Path) -> Result<File> {
        if let Some(file) = self.get(&key) {
            return Ok(file);
        }
        let (name, mode) = (LogFileKind::Log.name(key.base_offset), OpenMode::READ.direct(key.direct));
        let is_swapping = self.is_swapping(&key.partition, key.base_offset);
        let swap = if is_swapping { Some(File::open(directory.join(format!("{name}{SWAP_SUFFIX}")), mode).await) } else { None };
        let file = match swap {
            Some(Ok(file)) => file,
            Some(Err(error)) if !error.is_not_found() => return Err(error),
            // It has its name already.
            _ => File::open(directory.join(name), mode).await?,
        };
        if !key.direct {
            // The kernel must not read ahead on its own into blocks that placement has yet to write; readers ask for exact ranges.
            file.advise_random()?;
        }
        self.insert(key, file.clone());
        Ok(file)
    }

    pub fn begin_swap(&self, partition: &TopicIdPartition, base_offset: i64) {
        self.swapping.borrow_mut().insert((*partition, base_offset));
    }

    pub fn end_swap(&self, partition: &TopicIdPartition, base_offset: i64) {
        self.swapping.borrow_mut().remove(&(*partition, base_offset));
    }

    pub fn is_swapping(&self, partition: &TopicIdPartition, base_offset: i64) -> bool {
        self.swapping.borrow().contains(&(*partition, base_offset))
    }

    /// Closes what belongs to a partition, or to one segment of it.
    pub fn forget(&self, partition: &TopicIdPartition, base_offset: Option<i64>) {
        let is_meant =
            |key: &SegmentFileKey| key.partition == *partition && base_offset.is_none_or(|base_offset| key.base_offset == base_offset);
        self.files.borrow_mut().retain(|key, _| !is_meant(key));
    }

    pub fn open_count(&self) -> usize {
        self.files.borrow().len()
    }

    fn get(&self, key: &SegmentFileKey) -> Option<File> {
        let mut files = self.files.borrow_mut();
        let open = files.get_mut(key)?;
        open.used = self.tick();
        Some(open.file.clone())
    }

    fn insert(&self, key: SegmentFileKey, file: File) {
        let mut files = self.files.borrow_mut();
        if files.len() >= self.open_max {
            close_longest_unused(&mut files);
        }
        files.insert(key, Open { file, used: self.tick() });
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
}

/// Closes an eighth at once, so that looking for them is paid for rarely.
fn close_longest_unused(files: &mut HashMap<SegmentFileKey, Open, foldhash::fast::RandomState>) {
    let mut uses: Vec<u64> = files.values().map(|open| open.used).collect();
    let count = (uses.len() / 8).max(1);
    let (_, &mut newest_to_close, _) = uses.select_nth_unstable(count - 1);
    files.retain(|_, open| open.used > newest_to_close);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::rt;

    #[test]
    fn the_longest_unused_are_closed_first() {
        rt::run(|| async {
            let directory = tempfile::tempdir().unwrap();
            let partition = TopicIdPartition::new(Uuid::from_u128(1), 0);
            let key = |base_offset| SegmentFileKey { partition, base_offset, layout: 0, direct: false };
            for base_offset in 0..4 {
                std::fs::write(directory.path().join(LogFileKind::Log.name(base_offset)), b"x").unwrap();
            }
            let files = SegmentFiles::new(3);
            for base_offset in [0, 1, 2, 0, 3] {
                files.open(key(base_offset), directory.path()).await.unwrap();
            }
            assert_eq!(files.open_count(), 3);
            assert!(files.get(&key(1)).is_none() && files.get(&key(0)).is_some());
            files.forget(&partition, Some(0));
            assert_eq!(files.open_count(), 2);
            files.forget(&partition, None);
            assert_eq!(files.open_count(), 0);
        });
    }
}
