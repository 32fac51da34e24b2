//! What the ring holds and the segment files do not, partition by partition, in the order in which it was appended. Plain values, no I/O.
//!
//! The journal enters every append and truncation here; placement takes what is durable, writes it, and strikes it off. The bytes are slices of the journal's own groups.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{PlacementTarget, data_directory_of};
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::PlacedEnd;
use crate::disk::journal::entry::ENTRY_HEADER_BYTES;
use crate::disk::journal::group::BLOCK_BYTES;
use crate::disk::journal::{EntryHeader, GroupSequence, JournalError};

/// Changes of one partition that a round takes: they are copied, planned and struck off in one go each, a tenth of a microsecond a change.
pub const CHANGES_AT_ONCE: usize = 2_000;

/// All partitions of a shard, with what waits for placement.
#[derive(Default)]
pub struct Backlog {
    sites: HashMap<TopicIdPartition, Site, foldhash::fast::RandomState>,
    /// The data directories that partitions lie in.
    directories: Vec<DirectoryLoad>,
    /// Bytes that wait for files that take none at present, as of the last look, and the most that one change has of them.
    stuck_bytes: u64,
    stuck_change_bytes_max: u64,
}

/// What the ring holds for one data directory.
struct DirectoryLoad {
    path: PathBuf,
    waiting_bytes: u64,
    /// The most that one change has had of it since there was none.
    change_bytes_max: u64,
}

/// One of the data directories, by its place among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryIndex(pub usize);

/// A partition as placement sees it.
pub struct Site {
    pub target: Rc<dyn PlacementTarget>,
    pub directory: Rc<Path>,
    data_directory: DirectoryIndex,
    /// Up to where the segment files hold the log, flushed.
    pub placed: PlacedEnd,
    /// Its files failed: nothing more is placed, what waits stays in the ring for the next start.
    failure: Option<JournalError>,
    /// It has failed, or there is no room in its directory: what waits may do so for long.
    is_stuck: bool,
    /// Zeros may lie behind the last byte of its live file.
    is_padded: bool,
    items: VecDeque<Item>,
    /// Numbers of items count since registration.
    next_number: u64,
    pins: Vec<Pin>,
    /// Pins count since registration, too.
    next_pin: u64,
}

struct Item {
    number: u64,
    /// The group of the ring that keeps it for a restart. None where a restart can do without: checkpoints know of it.
    sequence: Option<GroupSequence>,
    change: Change,
}

/// An entry that a restart has to see, though no placement is to come of it.
struct Pin {
    number: u64,
    /// The group that it was in when it was entered: by this it is let go of.
    entered: Option<GroupSequence>,
    /// The group that keeps it now. None where it is still to be written.
    sequence: Option<GroupSequence>,
    header: EntryHeader,
    payload: Bytes,
}

/// What keeps groups in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    Item(u64),
    Pin(u64),
}

/// Something that waits for files that take nothing at present, and is to be written into the ring once more.
#[derive(Clone, Debug)]
pub struct Carry {
    pub partition: TopicIdPartition,
    pub keeper: Keeper,
    /// None where checkpoints know of it by now: then nothing has to be written.
    pub entry: Option<(EntryHeader, Bytes)>,
}

/// One change of a partition's segment files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes that belong at `position`; `end_offset` is the next offset after them.
    Write { segment_base: i64, position: u32, end_offset: i64, bytes: Bytes },
    /// A segment without a byte begins at the log's end.
    Roll { segment_base: i64 },
    /// What lies behind the log's new end, in that segment and in later ones, goes.
    Cut(Cut),
}

/// The log ends at `position` of the segment; the next offset is `end_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub segment_base: i64,
    pub position: u32,
    pub end_offset: i64,
}

/// What was to be carried is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Change {
    /// The entry by which a restart knows of it, once checkpoints know the log that it made. None where these tell all.
    fn as_kept(&self, partition: TopicIdPartition) -> Option<(EntryHeader, Bytes)> {
        match self {
            Self::Write { segment_base, position, bytes, .. } => {
                Some((EntryHeader::block_prefix(partition, *segment_base, *position), bytes.clone()))
            }
            Self::Roll { .. } => None,
            Self::Cut(cut) => Some((EntryHeader::cut_before(partition, cut.segment_base, cut.position), Bytes::new())),
        }
    }

    /// Segment and position compare as the log's bytes follow each other.
    fn place(&self) -> (i64, u32) {
        match self {
            Self::Write { segment_base, position, .. } => (*segment_base, *position),
            Self::Roll { segment_base } => (*segment_base, 0),
            Self::Cut(cut) => (cut.segment_base, cut.position),
        }
    }

    /// Bytes of the entry in which the ring holds it.
    fn kept_bytes(&self) -> u64 {
        let payload_bytes = if let Self::Write { bytes, .. } = self { bytes.len() } else { 0 };
        (payload_bytes + ENTRY_HEADER_BYTES) as u64
    }

    /// Takes away what lies behind a later cut. Returns whether anything is left to do; an earlier cut always is, because a round may have written behind it.
    fn cut_at(&mut self, cut: &Cut) -> bool {
        let is_before = self.place() < (cut.segment_base, cut.position);
        let Self::Write { segment_base, position, end_offset, bytes } = self else { return is_before || matches!(self, Self::Cut(_)) };
        if is_before && *segment_base == cut.segment_base && *position as usize + bytes.len() > cut.position as usize {
            bytes.truncate((cut.position - *position) as usize);
            *end_offset = cut.end_offset;
        }
        is_before
    }
}

/// A partition that has something for a round of placement.
pub struct Waiting {
    pub partition: TopicIdPartition,
    pub directory: Rc<Path>,
    /// The group with its oldest change.
    oldest_sequence: Option<GroupSequence>,
}

/// The changes of one partition that a round of placement carries out.
pub struct PlacementWork {
    pub partition: TopicIdPartition,
    pub directory: Rc<Path>,
    pub placed: PlacedEnd,
    pub changes: Vec<Change>,
    /// Number of the last change; what comes later waits for another round.
    pub last_number: u64,
    /// More is durable than one round takes.
    pub has_more: bool,
}

impl Backlog {
    pub fn register(&mut self, partition: TopicIdPartition, target: Rc<dyn PlacementTarget>, directory: Rc<Path>, placed: PlacedEnd) {
        let is_padded = !(placed.size_bytes as usize).is_multiple_of(BLOCK_BYTES);
        let data_directory = self.index_of(data_directory_of(&directory));
        let site = Site {
            target,
            directory,
            data_directory,
            placed,
            failure: None,
            is_stuck: false,
            is_padded,
            items: VecDeque::new(),
            next_number: 0,
            pins: Vec::new(),
            next_pin: 0,
        };
        let previous = self.sites.insert(partition, site);
        assert!(previous.is_none(), "partition {partition} is registered once");
    }

    /// Forgets a partition; returns the groups that no longer wait for it.
    pub fn unregister(&mut self, partition: &TopicIdPartition) -> Vec<GroupSequence> {
        let Some(site) = self.sites.remove(partition) else { return Vec::new() };
        self.directories[site.data_directory.0].leaves(site.waiting_bytes());
        let items = site.items.iter().filter_map(|item| item.sequence);
        items.chain(site.pins.iter().filter_map(|pin| pin.sequence)).collect()
    }

    /// A partition's files are in another directory from now on, and what waits for them goes there.
    pub fn relocate(&mut self, partition: &TopicIdPartition, directory: Rc<Path>) {
        let to = self.index_of(data_directory_of(&directory));
        let Some(site) = self.sites.get_mut(partition) else { return };
        let from = std::mem::replace(&mut site.data_directory, to);
        site.directory = directory;
        self.directories[from.0].leaves(site.waiting_bytes());
        site.kept_bytes().for_each(|bytes| self.directories[to.0].comes(bytes));
    }

    /// Several data directories share the ring.
    pub fn is_shared(&self) -> bool {
        self.directories.len() > 1
    }

    /// The directory for which changes of that partition wait. Those of one that is not registered wait for none.
    pub fn directory_of(&self, partition: &TopicIdPartition) -> DirectoryIndex {
        if !self.is_shared() {
            return DirectoryIndex(0);
        }
        self.sites.get(partition).map_or(DirectoryIndex(0), |site| site.data_directory)
    }

    /// Bytes that the ring holds for that directory.
    pub fn waiting_bytes(&self, directory: DirectoryIndex) -> u64 {
        self.directories.get(directory.0).map_or(0, |load| load.waiting_bytes)
    }

    /// As `waiting_bytes`, of a data directory by its path.
    pub fn waiting_bytes_in(&self, data_directory: &Path) -> u64 {
        self.directories.iter().find(|load| load.path == data_directory).map_or(0, |load| load.waiting_bytes)
    }

    /// The most that a change has of what waits, or more.
    pub fn change_bytes_max(&self) -> u64 {
        self.directories.iter().map(|load| load.change_bytes_max).max().unwrap_or(0)
    }

    fn index_of(&mut self, data_directory: &Path) -> DirectoryIndex {
        let known = self.directories.iter().position(|load| load.path == data_directory);
        DirectoryIndex(known.unwrap_or_else(|| {
            self.directories.push(DirectoryLoad { path: data_directory.to_path_buf(), waiting_bytes: 0, change_bytes_max: 0 });
            self.directories.len() - 1
        }))
    }

    pub fn get(&self, partition: &TopicIdPartition) -> Option<&Site> {
        self.sites.get(partition)
    }

    pub fn partitions(&self) -> Vec<TopicIdPartition> {
        self.sites.keys().copied().collect()
    }

    /// Enters a change of a registered partition. Returns the groups of earlier changes that a cut has made needless.
    pub fn push(&mut self, partition: &TopicIdPartition, sequence: GroupSequence, change: Change) -> Vec<GroupSequence> {
        let site = self.sites.get_mut(partition).unwrap_or_else(|| panic!("partition {partition} is registered before it appends"));
        let load = &mut self.directories[site.data_directory.0];
        let mut needless = Vec::new();
        if let Change::Cut(cut) = &change {
            site.items.retain_mut(|item| {
                load.leaves(item.change.kept_bytes());
                let keeps = item.change.cut_at(cut);
                if keeps {
                    load.comes(item.change.kept_bytes());
                } else {
                    needless.extend(item.sequence);
                }
                keeps
            });
        }
        load.comes(change.kept_bytes());
        site.items.push_back(Item { number: site.next_number, sequence: Some(sequence), change });
        site.next_number += 1;
        needless
    }

    /// All partitions that have durable changes, those that wait longest first.
    pub fn durable(&self, durable: GroupSequence) -> Vec<Waiting> {
        let waiting = self.sites.iter().filter(|(_, site)| site.failure.is_none()).filter_map(|(partition, site)| {
            let oldest_sequence = site.items.front()?.sequence;
            let is_durable = oldest_sequence <= Some(durable);
            is_durable.then(|| Waiting { partition: *partition, directory: site.directory.clone(), oldest_sequence })
        });
        let mut waiting: Vec<Waiting> = waiting.collect();
        waiting.sort_unstable_by_key(|waiting| waiting.oldest_sequence);
        waiting
    }

    /// The first durable changes of a partition, no more than `CHANGES_AT_ONCE`.
    pub fn durable_work(&self, partition: &TopicIdPartition, durable: GroupSequence) -> Option<PlacementWork> {
        let site = self.sites.get(partition).filter(|site| site.failure.is_none())?;
        site.durable_work(*partition, durable)
    }

    /// Strikes off what a round has placed, up to and with the change of that number. Returns the groups that no longer wait for it; none if the partition is gone.
    pub fn strike_off(&mut self, partition: &TopicIdPartition, last_number: u64, placed: PlacedEnd) -> Vec<GroupSequence> {
        let Some(site) = self.sites.get_mut(partition) else { return Vec::new() };
        site.placed = placed;
        site.is_padded = !(placed.size_bytes as usize).is_multiple_of(BLOCK_BYTES);
        let load = &mut self.directories[site.data_directory.0];
        let count = site.items.iter().take_while(|item| item.number <= last_number).count();
        let placed = site.items.drain(..count).inspect(|item| load.leaves(item.change.kept_bytes()));
        placed.filter_map(|item| item.sequence).collect()
    }

    /// An entry of a registered partition that a restart has to see until it is let go of. False where there is no such partition any more.
    pub fn pin(&mut self, sequence: GroupSequence, header: EntryHeader, payload: Bytes) -> bool {
        let Some(site) = self.sites.get_mut(&header.partition) else { return false };
        self.directories[site.data_directory.0].comes(kept_bytes_of(&payload));
        site.add_pin(Some(sequence), header, payload);
        true
    }

    /// A restart need not see the entry any more that was entered in that group. Returns the group that has kept it.
    pub fn unpin(&mut self, partition: &TopicIdPartition, entered: GroupSequence) -> Option<GroupSequence> {
        let site = self.sites.get_mut(partition)?;
        let index = site.pins.iter().position(|pin| pin.entered == Some(entered))?;
        let pin = site.pins.swap_remove(index);
        self.directories[site.data_directory.0].leaves(kept_bytes_of(&pin.payload));
        pin.sequence
    }

    /// The files of a partition failed. `torn` is what a write that failed may have destroyed: it is to be kept until the next start.
    pub fn fail(
        &mut self,
        partition: &TopicIdPartition,
        error: &JournalError,
        torn: Vec<(EntryHeader, Bytes)>,
    ) -> Option<Rc<dyn PlacementTarget>> {
        let site = self.sites.get_mut(partition)?;
        site.failure.get_or_insert_with(|| error.clone());
        let was_stuck = std::mem::replace(&mut site.is_stuck, true);
        for (header, payload) in torn {
            self.directories[site.data_directory.0].comes(kept_bytes_of(&payload));
            site.add_pin(None, header, payload);
        }
        if !was_stuck {
            // At once: clients may fill the ring before the next round looks, and then nothing could be carried.
            for bytes in site.kept_bytes() {
                self.stuck_bytes += bytes;
                self.stuck_change_bytes_max = self.stuck_change_bytes_max.max(bytes);
            }
        }
        Some(site.target.clone())
    }

    /// Looks which partitions' files take nothing at present: those that failed, and those in directories that `is_full` names.
    pub fn note_stuck(&mut self, is_full: impl Fn(&Path) -> bool) {
        (self.stuck_bytes, self.stuck_change_bytes_max) = (0, 0);
        for site in self.sites.values_mut() {
            site.is_stuck = site.failure.is_some() || is_full(&site.directory);
            if site.is_stuck {
                for bytes in site.kept_bytes() {
                    self.stuck_bytes += bytes;
                    self.stuck_change_bytes_max = self.stuck_change_bytes_max.max(bytes);
                }
            }
        }
    }

    /// Bytes that wait for files that take none at present, as of the last look.
    pub fn stuck_bytes(&self) -> u64 {
        self.stuck_bytes
    }

    /// The most that one change has of them.
    pub fn stuck_change_bytes_max(&self) -> u64 {
        self.stuck_change_bytes_max
    }

    /// Partitions whose files take nothing at present.
    pub fn stuck(&self) -> Vec<TopicIdPartition> {
        self.sites.iter().filter(|(_, site)| site.is_stuck).map(|(partition, _)| *partition).collect()
    }

    /// Why the files of a partition take nothing any more, if there is such a one.
    pub fn failure(&self) -> Option<JournalError> {
        self.sites.values().find_map(|site| site.failure.clone())
    }

    /// Whether anything waits for files that take what is written to them.
    pub fn has_others_waiting(&self) -> bool {
        self.sites.values().any(|site| !site.is_stuck && !site.items.is_empty())
    }

    /// Whether something that a restart has to see is still to be written.
    pub fn has_unwritten_pins(&self) -> bool {
        self.sites.values().any(|site| site.failure.is_some() && site.pins.iter().any(|pin| pin.sequence.is_none()))
    }

    /// What groups before `end` keep of a partition, and what is still to be written. Looks at no more than `count_max` changes from that index on; where to go on, if there are more.
    pub fn to_carry(
        &self,
        partition: &TopicIdPartition,
        end: GroupSequence,
        from: usize,
        count_max: usize,
        carries: &mut Vec<Carry>,
    ) -> Option<usize> {
        let site = self.sites.get(partition)?;
        if from == 0 {
            let pins = site.pins.iter().filter(|pin| pin.sequence < Some(end));
            carries.extend(pins.map(|pin| Carry {
                partition: *partition,
                keeper: Keeper::Pin(pin.number),
                entry: Some((pin.header, pin.payload.clone())),
            }));
        }
        let items = site.items.iter().skip(from).take(count_max).filter(|item| item.sequence.is_some_and(|sequence| sequence < end));
        carries.extend(items.map(|item| Carry {
            partition: *partition,
            keeper: Keeper::Item(item.number),
            entry: item.change.as_kept(*partition),
        }));
        Some(from + count_max).filter(|next| *next < site.items.len())
    }

    /// Whether it still has to be carried.
    pub fn is_kept(&self, partition: &TopicIdPartition, keeper: Keeper) -> bool {
        self.sites.get(partition).is_some_and(|site| match keeper {
            Keeper::Item(number) => site.item_index(number).is_some(),
            Keeper::Pin(number) => site.pins.iter().any(|pin| pin.number == number),
        })
    }

    /// It is kept by another group now, or by checkpoints. Returns the group that has kept it; an error if it is gone.
    pub fn carried(
        &mut self,
        partition: &TopicIdPartition,
        keeper: Keeper,
        sequence: Option<GroupSequence>,
    ) -> Result<Option<GroupSequence>, Gone> {
        let site = self.sites.get_mut(partition).ok_or(Gone)?;
        let kept_by = match keeper {
            Keeper::Item(number) => site.item_index(number).map(|index| &mut site.items[index].sequence),
            Keeper::Pin(number) => site.pins.iter_mut().find(|pin| pin.number == number).map(|pin| &mut pin.sequence),
        };
        kept_by.map(|kept_by| std::mem::replace(kept_by, sequence)).ok_or(Gone)
    }

    /// Directories and ends of the live files behind whose last byte zeros may lie.
    pub fn padded_ends(&self) -> Vec<(Rc<Path>, PlacedEnd)> {
        self.sites.values().filter(|site| site.is_padded).map(|site| (site.directory.clone(), site.placed)).collect()
    }

    /// Changes of all partitions that wait, and entries that a restart has to see.
    pub fn waiting_count(&self) -> usize {
        self.sites.values().map(|site| site.items.len() + site.pins.len()).sum()
    }
}

impl DirectoryLoad {
    fn comes(&mut self, bytes: u64) {
        self.waiting_bytes += bytes;
        self.change_bytes_max = self.change_bytes_max.max(bytes);
    }

    fn leaves(&mut self, bytes: u64) {
        self.waiting_bytes = self.waiting_bytes.checked_sub(bytes).expect("only what came leaves");
        if self.waiting_bytes == 0 {
            self.change_bytes_max = 0;
        }
    }
}

/// Bytes of an entry that the ring holds.
fn kept_bytes_of(payload: &Bytes) -> u64 {
    (payload.len() + ENTRY_HEADER_BYTES) as u64
}

impl Site {
    fn item_index(&self, number: u64) -> Option<usize> {
        self.items.binary_search_by_key(&number, |item| item.number).ok()
    }

    fn add_pin(&mut self, sequence: Option<GroupSequence>, header: EntryHeader, payload: Bytes) {
        self.pins.push(Pin { number: self.next_pin, entered: sequence, sequence, header, payload });
        self.next_pin += 1;
    }

    /// Bytes of the entries that the ring holds for it.
    fn kept_bytes(&self) -> impl Iterator<Item = u64> {
        self.items.iter().map(|item| item.change.kept_bytes()).chain(self.pins.iter().map(|pin| kept_bytes_of(&pin.payload)))
    }

    fn waiting_bytes(&self) -> u64 {
        self.kept_bytes().sum()
    }

    /// Up to where readers may read the files: what is placed, but for what a cut that still waits takes away again.
    pub fn readable(&self) -> PlacedEnd {
        let cuts = self.items.iter().filter_map(|item| if let Change::Cut(cut) = &item.change { Some(cut) } else { None });
        cuts.fold(self.placed, |end, cut| {
            let is_behind = (end.segment_base, end.size_bytes) > (cut.segment_base, cut.position);
            if is_behind { PlacedEnd { segment_base: cut.segment_base, size_bytes: cut.position, end_offset: cut.end_offset } } else { end }
        })
    }

    fn durable_work(&self, partition: TopicIdPartition, durable: GroupSequence) -> Option<PlacementWork> {
        // A cut is looked at first in its round or not at all: what is written after it may begin in a block that only exists once all before is done.
        let is_ready =
            |(index, item): &(usize, &Item)| item.sequence <= Some(durable) && (*index == 0 || !matches!(item.change, Change::Cut(_)));
        let mut durable_items = self.items.iter().enumerate().take_while(is_ready).map(|(_, item)| item);
        let mut last_number = None;
        let taken = durable_items.by_ref().take(CHANGES_AT_ONCE);
        let changes = taken.inspect(|item| last_number = Some(item.number)).map(|item| item.change.clone()).collect();
        let has_more = durable_items.next().is_some();
        Some(PlacementWork {
            partition,
            directory: self.directory.clone(),
            placed: self.placed,
            changes,
            last_number: last_number?,
            has_more,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::disk::testing::Nobody;

    const PLACED: PlacedEnd = PlacedEnd { segment_base: 0, size_bytes: 0, end_offset: 0 };

    fn partition(number: i32) -> TopicIdPartition {
        TopicIdPartition::new(Uuid::from_u128(1), number)
    }

    fn backlog(partitions: i32) -> Backlog {
        let mut backlog = Backlog::default();
        for number in 0..partitions {
            backlog.register(partition(number), Rc::new(Nobody), Rc::from(Path::new("/data")), PLACED);
        }
        backlog
    }

    /// What a round would take.
    fn works(backlog: &Backlog, durable: GroupSequence) -> Vec<PlacementWork> {
        backlog.durable(durable).iter().filter_map(|waiting| backlog.durable_work(&waiting.partition, durable)).collect()
    }

    fn write(position: u32) -> Change {
        Change::Write { segment_base: 0, position, end_offset: i64::from(position) + 1, bytes: Bytes::from_static(b"batch") }
    }

    #[test]
    fn only_durable_changes_are_taken_and_the_longest_waiting_come_first() {
        let mut backlog = backlog(3);
        backlog.push(&partition(1), GroupSequence(1), write(0));
        backlog.push(&partition(0), GroupSequence(2), write(0));
        backlog.push(&partition(1), GroupSequence(3), write(5));
        backlog.push(&partition(2), GroupSequence(3), write(0));
        let taken_works = works(&backlog, GroupSequence(2));
        let taken: Vec<_> = taken_works.iter().map(|work| (work.partition.partition, work.changes.len())).collect();
        assert_eq!(taken, vec![(1, 1), (0, 1)]);
        let end = PlacedEnd { size_bytes: 5, end_offset: 1, ..PLACED };
        assert_eq!(backlog.strike_off(&partition(1), taken_works[0].last_number, end), vec![GroupSequence(1)]);
        assert_eq!(works(&backlog, GroupSequence(3)).len(), 3);
        assert_eq!(backlog.unregister(&partition(1)), vec![GroupSequence(3)]);
    }

    #[test]
    fn a_cut_makes_what_lies_behind_it_needless_and_keeps_its_place_in_the_order() {
        let mut backlog = backlog(1);
        backlog.push(&partition(0), GroupSequence(1), write(0));
        backlog.push(&partition(0), GroupSequence(2), write(5));
        let taken = works(&backlog, GroupSequence(2)).remove(0);
        let cut = Change::Cut(Cut { segment_base: 0, position: 5, end_offset: 1 });
        assert_eq!(backlog.push(&partition(0), GroupSequence(3), cut.clone()), vec![GroupSequence(2)]);
        backlog.push(&partition(0), GroupSequence(4), write(5));
        // The round that was under way has written what the cut takes away; its end stands, and the cut comes next.
        let end = PlacedEnd { size_bytes: 10, end_offset: 2, ..PLACED };
        assert_eq!(backlog.strike_off(&partition(0), taken.last_number, end), vec![GroupSequence(1)]);
        assert_eq!(backlog.get(&partition(0)).unwrap().readable(), PlacedEnd { size_bytes: 5, end_offset: 1, ..PLACED });
        assert_eq!(works(&backlog, GroupSequence(4)).remove(0).changes, vec![cut.clone(), write(5)]);
    }

    #[test]
    fn a_cut_through_the_middle_of_a_write_keeps_its_first_part() {
        let mut backlog = backlog(1);
        backlog.push(&partition(0), GroupSequence(1), write(0));
        let cut = Change::Cut(Cut { segment_base: 0, position: 2, end_offset: 1 });
        assert_eq!(backlog.push(&partition(0), GroupSequence(2), cut.clone()), vec![]);
        let kept = Change::Write { segment_base: 0, position: 0, end_offset: 1, bytes: Bytes::from_static(b"ba") };
        let first = works(&backlog, GroupSequence(2)).remove(0);
        assert_eq!(first.changes, vec![kept]);
        backlog.strike_off(&partition(0), first.last_number, PlacedEnd { size_bytes: 2, end_offset: 1, ..PLACED });
        assert_eq!(works(&backlog, GroupSequence(2)).remove(0).changes, vec![cut], "a cut begins a round");
    }

    /// Whatever comes, goes, is cut, fails or moves: a directory's bytes are those of what waits for it.
    #[test]
    fn what_waits_is_counted_for_each_data_directory() {
        let mut backlog = Backlog::default();
        for (number, directory) in [(0, "/a/orders-0"), (1, "/a/orders-1"), (2, "/b/orders-2")] {
            backlog.register(partition(number), Rc::new(Nobody), Rc::from(Path::new(directory)), PLACED);
        }
        let check = |backlog: &Backlog, in_a: u64, in_b: u64| {
            let entries = |path| backlog.waiting_bytes_in(Path::new(path)) / ENTRY_HEADER_BYTES as u64;
            assert_eq!((entries("/a"), entries("/b")), (in_a, in_b));
            for (index, load) in backlog.directories.iter().enumerate() {
                let sites = backlog.sites.values().filter(|site| site.data_directory == DirectoryIndex(index));
                assert_eq!(sites.map(Site::waiting_bytes).sum::<u64>(), load.waiting_bytes);
            }
        };
        for number in 0..3 {
            backlog.push(&partition(number), GroupSequence(1), write(0));
            backlog.push(&partition(number), GroupSequence(2), write(5));
        }
        check(&backlog, 4, 2);
        backlog.push(&partition(0), GroupSequence(3), Change::Cut(Cut { segment_base: 0, position: 2, end_offset: 1 }));
        check(&backlog, 4, 2);
        let header = EntryHeader::moved(partition(1));
        backlog.pin(GroupSequence(4), header, Bytes::from_static(b"home"));
        check(&backlog, 5, 2);
        backlog.relocate(&partition(1), Rc::from(Path::new("/b/orders-1")));
        check(&backlog, 2, 5);
        backlog.unpin(&partition(1), GroupSequence(4));
        let error = JournalError::Failed { path: "/b".into(), cause: "of the test".into() };
        backlog.fail(&partition(2), &error, vec![(header, Bytes::new())]);
        check(&backlog, 2, 5);
        backlog.strike_off(&partition(1), 0, PLACED);
        check(&backlog, 2, 4);
        assert_eq!(backlog.change_bytes_max(), 5 + ENTRY_HEADER_BYTES as u64);
        (0..3).for_each(|number| drop(backlog.unregister(&partition(number))));
        check(&backlog, 0, 0);
        assert_eq!(backlog.change_bytes_max(), 0);
    }

    #[test]
    fn a_round_takes_so_many_changes_and_says_that_there_are_more() {
        let mut backlog = backlog(1);
        let count = CHANGES_AT_ONCE + 5;
        for number in 0..count {
            backlog.push(&partition(0), GroupSequence(1 + number as u64), write(number as u32 * 5));
        }
        let durable = GroupSequence(count as u64 - 1);
        let first = works(&backlog, durable).remove(0);
        assert_eq!((first.changes.len(), first.has_more), (CHANGES_AT_ONCE, true));
        let end = PlacedEnd { size_bytes: CHANGES_AT_ONCE as u32 * 5, end_offset: 1, ..PLACED };
        assert_eq!(backlog.strike_off(&partition(0), first.last_number, end).len(), CHANGES_AT_ONCE);
        let rest = works(&backlog, durable).remove(0);
        assert_eq!((rest.changes.len(), rest.has_more), (4, false), "the last is not durable");
    }
}
