//! A disk with a filesystem on it that promises no more than POSIX: what was flushed is durable, of everything else any part may survive a power cut, torn and in any order.
//!
//! Pure: the mount calls it, the cut takes it apart. Two states are kept. Of a file, the content that is durable, the content that reads show, and the list of changes between
//! them, each with its number; of the directories likewise, names that are durable, names that lookups show, and the changes between. Flushing a file does not make its name
//! durable, flushing a directory says nothing of the files in it, and a durable write (O_DSYNC) covers its own bytes and the length that they need. What one inode's own
//! metadata says keeps its order, as in any journalled filesystem: a length that is lost takes the later ones with it.

use std::collections::{BTreeMap, HashMap, HashSet};

use harness::random::Random;

use crate::content::{Content, PAGE_BYTES};

pub type NodeId = u64;

pub const ROOT: NodeId = 1;

/// In the names of the broker's journals.
const JOURNAL_NAME: &str = "corelane-journal-";

/// Position of a change in the order of all changes.
pub type ChangeNumber = u64;

/// Why the disk does not do what it is asked; the mount gives each its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    Full,
}

type Result<T> = std::result::Result<T, DiskError>;

/// Names and contents, durable and not.
pub struct Disk {
    nodes: HashMap<NodeId, Node>,
    /// Removed, and perhaps still open.
    nameless: HashSet<NodeId>,
    next_node: NodeId,
    next_change: ChangeNumber,
    /// Changes of names that no flush of a directory has covered.
    names: Vec<NameChange>,
    pub capacity_bytes: u64,
}

#[derive(Clone)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Default)]
struct File {
    durable: Content,
    current: Content,
    /// In their order.
    changes: Vec<(ChangeNumber, Change)>,
}

#[derive(Clone)]
enum Change {
    Write { position: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Default)]
struct Directory {
    durable: BTreeMap<String, NodeId>,
    current: BTreeMap<String, NodeId>,
}

/// Edits that survive together or not at all.
#[derive(Clone)]
struct NameChange {
    number: ChangeNumber,
    edits: Vec<Edit>,
}

#[derive(Clone)]
struct Edit {
    directory: NodeId,
    name: String,
    node: NodeId,
    is_put: bool,
}

/// What a power cut spares of that which was not flushed.
#[derive(Clone, Copy, Debug)]
pub struct CutRules {
    /// Writes and lengths that survive, in percent.
    pub writes_percent: u64,
    /// Writes that survive in part, in percent of those that survive.
    pub torn_percent: u64,
    /// What is torn is torn here.
    pub sector_bytes: u64,
    /// Sectors of a journal that were to be written and did not survive, and hold noise, in percent.
    pub noise_percent: u64,
    /// Changes of names that survive, in percent.
    pub names_percent: u64,
    /// Names survive up to a moment, as where metadata goes through a journal; otherwise each by itself.
    pub names_in_order: bool,
}

impl CutRules {
    pub fn draw(random: &mut Random) -> CutRules {
        CutRules {
            writes_percent: random.one_of(&[0, 10, 50, 90, 100]),
            torn_percent: random.one_of(&[0, 30, 100]),
            sector_bytes: random.one_of(&[512, 4096]),
            noise_percent: 0,
            names_percent: random.one_of(&[0, 50, 90, 100]),
            names_in_order: random.is_below_percent(50),
        }
    }
}

impl Disk {
    pub fn new(capacity_bytes: u64) -> Disk {
        let root = Node::Directory(Directory::default());
        Disk {
            nodes: HashMap::from([(ROOT, root)]),
            nameless: HashSet::new(),
            next_node: ROOT + 1,
            next_change: 1,
            names: Vec::new(),
            capacity_bytes,
        }
    }

    /// A disk with one file on it, durably: the image of another.
    pub fn with_file(capacity_bytes: u64, name: &str, length: u64) -> Disk {
        let mut disk = Disk::new(capacity_bytes);
        let node = disk.create_file(ROOT, name).expect("an empty disk");
        disk.set_length(node, length).expect("within the capacity");
        disk.flush(node, ChangeNumber::MAX);
        disk.flush_directory(ROOT, ChangeNumber::MAX);
        disk
    }

    pub fn lookup(&self, directory: NodeId, name: &str) -> Result<NodeId> {
        self.directory(directory)?.current.get(name).copied().ok_or(DiskError::NotFound)
    }

    /// Length, and whether it is a directory.
    pub fn stat(&self, node: NodeId) -> Result<(u64, bool)> {
        match self.nodes.get(&node).ok_or(DiskError::NotFound)? {
            Node::File(file) => Ok((file.current.length(), false)),
            Node::Directory(_) => Ok((PAGE_BYTES, true)),
        }
    }

    pub fn list(&self, directory: NodeId) -> Result<Vec<(String, NodeId)>> {
        Ok(self.directory(directory)?.current.iter().map(|(name, node)| (name.clone(), *node)).collect())
    }

    pub fn read(&self, node: NodeId, position: u64, count: u64) -> Result<Vec<u8>> {
        match self.nodes.get(&node).ok_or(DiskError::NotFound)? {
            Node::File(file) => Ok(file.current.read(position, count)),
            Node::Directory(_) => Err(DiskError::IsDirectory),
        }
    }

    /// Of everything that has a name.
    pub fn used_bytes(&self) -> u64 {
        let bytes = |node: &Node| match node {
            Node::File(file) => file.current.length().next_multiple_of(PAGE_BYTES),
            Node::Directory(_) => PAGE_BYTES,
        };
        self.nodes.iter().filter(|(node, _)| !self.nameless.contains(node)).map(|(_, node)| bytes(node)).sum()
    }

    /// The number of the latest change.
    pub fn last_change(&self) -> ChangeNumber {
        self.next_change - 1
    }

    /// Changes that a cut could take away.
    pub fn unflushed_count(&self) -> usize {
        let of = |node: &Node| if let Node::File(file) = node { file.changes.len() } else { 0 };
        self.names.len() + self.nodes.values().map(of).sum::<usize>()
    }

    pub fn create_file(&mut self, directory: NodeId, name: &str) -> Result<NodeId> {
        self.create(directory, name, Node::File(File::default()))
    }

    pub fn create_directory(&mut self, directory: NodeId, name: &str) -> Result<NodeId> {
        self.create(directory, name, Node::Directory(Directory::default()))
    }

    fn create(&mut self, directory: NodeId, name: &str, node: Node) -> Result<NodeId> {
        if self.directory(directory)?.current.contains_key(name) {
            return Err(DiskError::Exists);
        }
        if self.used_bytes() + PAGE_BYTES > self.capacity_bytes {
            return Err(DiskError::Full);
        }
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        self.change_names(vec![Edit { directory, name: name.into(), node: id, is_put: true }]);
        Ok(id)
    }

    /// Removes a name; a directory must be empty.
    pub fn remove(&mut self, directory: NodeId, name: &str, is_directory: bool) -> Result<()> {
        let node = self.lookup(directory, name)?;
        match (&self.nodes[&node], is_directory) {
            (Node::Directory(_), false) => return Err(DiskError::IsDirectory),
            (Node::File(_), true) => return Err(DiskError::NotDirectory),
            (Node::Directory(inner), true) if !inner.current.is_empty() => return Err(DiskError::NotEmpty),
            _ => {}
        }
        self.change_names(vec![Edit { directory, name: name.into(), node, is_put: false }]);
        Ok(())
    }

    /// Gives a node another name, in one step; what has the name goes.
    pub fn rename(&mut self, from: (NodeId, &str), to: (NodeId, &str)) -> Result<()> {
        let node = self.lookup(from.0, from.1)?;
        let mut edits = vec![Edit { directory: from.0, name: from.1.into(), node, is_put: false }];
        if let Ok(there) = self.lookup(to.0, to.1) {
            if there == node {
                return Ok(());
            }
            if let Node::Directory(inner) = &self.nodes[&there]
                && !inner.current.is_empty()
            {
                return Err(DiskError::NotEmpty);
            }
            edits.push(Edit { directory: to.0, name: to.1.into(), node: there, is_put: false });
        }
        edits.push(Edit { directory: to.0, name: to.1.into(), node, is_put: true });
        self.change_names(edits);
        Ok(())
    }

    /// Writes; not durable yet. The change's number is what makes it so, see `settle`.
    pub fn write(&mut self, node: NodeId, position: u64, bytes: &[u8]) -> Result<ChangeNumber> {
        self.check_growth(node, position + bytes.len() as u64)?;
        let number = self.number();
        let file = self.file_mut(node)?;
        file.current.write(position, bytes);
        file.changes.push((number, Change::Write { position, bytes: bytes.to_vec() }));
        Ok(number)
    }

    pub fn set_length(&mut self, node: NodeId, length: u64) -> Result<()> {
        self.check_growth(node, length)?;
        let number = self.number();
        let file = self.file_mut(node)?;
        file.current.set_length(length);
        file.changes.push((number, Change::Length(length)));
        Ok(())
    }

    /// fallocate: the file covers that many bytes from then on.
    pub fn allocate(&mut self, node: NodeId, length: u64) -> Result<()> {
        if self.stat(node)?.0 < length { self.set_length(node, length) } else { Ok(()) }
    }

    /// What O_DSYNC promises: the bytes of this one write are durable, and the length that they need.
    pub fn settle(&mut self, node: NodeId, number: ChangeNumber) {
        let Ok(file) = self.file_mut(node) else { return };
        // A flush may have covered it meanwhile.
        let Some(index) = file.changes.iter().position(|(known, _)| *known == number) else { return };
        file.settle_lengths_before(index);
        let index = file.changes.iter().position(|(known, _)| *known == number).expect("lengths alone have gone");
        let (_, change) = file.changes.remove(index);
        let Change::Write { position, bytes } = change else { unreachable!("only writes are settled") };
        file.durable.write(position, &bytes);
        // What lies in the same place and is older cannot come back.
        let end = position + bytes.len() as u64;
        let newer = file.changes.split_off(index);
        let older = std::mem::take(&mut file.changes);
        file.changes = older
            .into_iter()
            .flat_map(|(number, change)| change.without(position, end).into_iter().map(move |rest| (number, rest)))
            .collect();
        file.changes.extend(newer);
    }

    /// What fsync and fdatasync promise: everything that was asked of the file up to that change.
    pub fn flush(&mut self, node: NodeId, through: ChangeNumber) {
        let Ok(file) = self.file_mut(node) else { return };
        let count = file.changes.iter().take_while(|(number, _)| *number <= through).count();
        for (_, change) in file.changes.drain(..count) {
            match change {
                Change::Write { position, bytes } => file.durable.write(position, &bytes),
                Change::Length(length) => file.durable.set_length(length),
            }
        }
    }

    /// What fsync of a directory promises: its names as they were at that change. A rename out of it or into it is one step, so the other directory's names up to there go with it.
    pub fn flush_directory(&mut self, directory: NodeId, through: ChangeNumber) {
        let mut flushed = HashSet::from([directory]);
        let mut durable = Vec::new();
        for index in (0..self.names.len()).rev() {
            let change = &self.names[index];
            if change.number <= through && change.edits.iter().any(|edit| flushed.contains(&edit.directory)) {
                flushed.extend(change.edits.iter().map(|edit| edit.directory));
                durable.push(self.names.remove(index));
            }
        }
        for change in durable.into_iter().rev() {
            self.apply_durably(&change);
        }
    }

    /// The disk after a power cut.
    pub fn cut(mut self, rules: CutRules, random: &mut Random) -> Disk {
        self.spare_names(rules, random);
        let journals = self.files_named(JOURNAL_NAME);
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.sort_unstable();
        for node in nodes {
            let noise_percent = if journals.contains(&node) { rules.noise_percent } else { 0 };
            if let Some(Node::File(file)) = self.nodes.get_mut(&node) {
                file.spare(CutRules { noise_percent, ..rules }, random);
            }
        }
        self.forget_unreachable();
        self
    }

    /// Makes everything durable, as time does.
    pub fn flush_everything(&mut self) {
        for change in std::mem::take(&mut self.names) {
            self.apply_durably(&change);
        }
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.flush(node, ChangeNumber::MAX));
    }

    /// Damages one bit of a file in a directory of that name; which file and where, if there is one that is not empty.
    pub fn flip_bit(&mut self, directory: &str, name_end: &str, random: &mut Random) -> Option<(String, u64)> {
        let directories =
            self.nodes.values().filter_map(|node| if let Node::Directory(inner) = node { Some(&inner.current) } else { None });
        let node = directories.filter_map(|names| names.get(directory)).next().copied()?;
        let mut files = self.list(node).ok()?;
        files.retain(|(name, node)| name.ends_with(name_end) && self.stat(*node).is_ok_and(|(length, _)| length > 0));
        let (name, node) = files.get(random.below(files.len().max(1) as u64) as usize)?.clone();
        let file = self.file_mut(node).ok()?;
        let position = file.durable.flip_bit(random.draw());
        file.current = file.durable.clone();
        Some((name, position))
    }

    /// Files with a name that contains this.
    fn files_named(&self, part: &str) -> HashSet<NodeId> {
        let directories =
            self.nodes.values().filter_map(|node| if let Node::Directory(inner) = node { Some(&inner.current) } else { None });
        directories.flatten().filter(|(name, _)| name.contains(part)).map(|(_, node)| *node).collect()
    }

    fn spare_names(&mut self, rules: CutRules, random: &mut Random) {
        let changes = std::mem::take(&mut self.names);
        let through = changes.len() as u64 * rules.names_percent / 100;
        let reached = random.below(through + 1);
        for (index, change) in changes.into_iter().enumerate() {
            let is_spared = if rules.names_in_order { (index as u64) < reached } else { random.is_below_percent(rules.names_percent) };
            if is_spared {
                self.apply_durably(&change);
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::Directory(directory) = node {
                directory.current = directory.durable.clone();
            }
        }
    }

    fn forget_unreachable(&mut self) {
        let mut reached = HashSet::new();
        let mut next = vec![ROOT];
        while let Some(node) = next.pop() {
            // A directory that a lost rename left in two places keeps the first that is met.
            if !reached.insert(node) {
                continue;
            }
            if let Node::Directory(directory) = &self.nodes[&node] {
                next.extend(directory.current.values().copied());
            }
        }
        self.nodes.retain(|node, _| reached.contains(node));
        self.nameless.clear();
    }

    fn change_names(&mut self, edits: Vec<Edit>) {
        for edit in &edits {
            edit.apply(&mut self.directory_mut(edit.directory).current);
            if edit.is_put {
                self.nameless.remove(&edit.node)
            } else {
                self.nameless.insert(edit.node)
            };
        }
        let number = self.number();
        self.names.push(NameChange { number, edits });
    }

    fn apply_durably(&mut self, change: &NameChange) {
        for edit in &change.edits {
            edit.apply(&mut self.directory_mut(edit.directory).durable);
        }
    }

    fn check_growth(&self, node: NodeId, end: u64) -> Result<()> {
        let (length, _) = self.stat(node)?;
        let more = end.next_multiple_of(PAGE_BYTES).saturating_sub(length.next_multiple_of(PAGE_BYTES));
        if more > 0 && self.used_bytes() + more > self.capacity_bytes { Err(DiskError::Full) } else { Ok(()) }
    }

    fn number(&mut self) -> ChangeNumber {
        self.next_change += 1;
        self.next_change - 1
    }

    fn directory(&self, node: NodeId) -> Result<&Directory> {
        match self.nodes.get(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(DiskError::NotDirectory),
            None => Err(DiskError::NotFound),
        }
    }

    fn directory_mut(&mut self, node: NodeId) -> &mut Directory {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => directory,
            _ => unreachable!("names are changed in directories"),
        }
    }

    fn file_mut(&mut self, node: NodeId) -> Result<&mut File> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(DiskError::IsDirectory),
            None => Err(DiskError::NotFound),
        }
    }
}

impl File {
    /// A durable write behind changes of the length brings these along, and nothing of what was written before: what lay behind a cut is gone, the rest is as doubtful as it was.
    fn settle_lengths_before(&mut self, index: usize) {
        let later = self.changes.split_off(index);
        let mut kept: Vec<(ChangeNumber, Change)> = Vec::new();
        for (number, change) in std::mem::take(&mut self.changes) {
            match change {
                Change::Length(length) => {
                    self.durable.set_length(length);
                    kept = kept
                        .into_iter()
                        .flat_map(|(number, change)| change.without(length, u64::MAX).into_iter().map(move |rest| (number, rest)))
                        .collect();
                }
                write => kept.push((number, write)),
            }
        }
        self.changes = kept;
        self.changes.extend(later);
    }

    /// What a cut leaves.
    fn spare(&mut self, rules: CutRules, random: &mut Random) {
        // Behind this byte a cut that was lost left the old content in its blocks; what was written there since went into blocks that nobody knows.
        let mut unknown_from = u64::MAX;
        let mut are_lengths_lost = false;
        for (_, change) in std::mem::take(&mut self.changes) {
            let is_spared = random.is_below_percent(rules.writes_percent);
            match change {
                Change::Length(length) => {
                    are_lengths_lost |= !is_spared;
                    if are_lengths_lost {
                        unknown_from = unknown_from.min(length);
                    } else {
                        self.durable.set_length(length);
                    }
                }
                Change::Write { position, bytes } if !is_spared => {
                    self.write_noise(position, bytes.len() as u64, rules, random);
                }
                Change::Write { position, mut bytes } => {
                    bytes.truncate(unknown_from.saturating_sub(position) as usize);
                    if random.is_below_percent(rules.torn_percent) {
                        self.write_noise(position, bytes.len() as u64, rules, random);
                        self.write_torn(position, &bytes, rules.sector_bytes, random);
                    } else if !bytes.is_empty() {
                        self.durable.write(position, &bytes);
                    }
                }
            }
        }
        self.current = self.durable.clone();
    }

    /// A sector that the device was about to write holds what it holds.
    fn write_noise(&mut self, position: u64, count: u64, rules: CutRules, random: &mut Random) {
        let sectors = (position / rules.sector_bytes)..(position + count).div_ceil(rules.sector_bytes);
        for sector in sectors.filter(|_| rules.noise_percent > 0) {
            if random.is_below_percent(rules.noise_percent) {
                let start = (sector * rules.sector_bytes).max(position);
                let end = ((sector + 1) * rules.sector_bytes).min(position + count).min(self.durable.length());
                let noise: Vec<u8> = (start..end).step_by(8).flat_map(|_| random.draw().to_le_bytes()).collect();
                self.durable.write(start, &noise[..end.saturating_sub(start) as usize]);
            }
        }
    }

    /// Each sector makes it or does not.
    fn write_torn(&mut self, position: u64, bytes: &[u8], sector_bytes: u64, random: &mut Random) {
        let end = position + bytes.len() as u64;
        let mut at = position;
        while at < end {
            let next = ((at / sector_bytes + 1) * sector_bytes).min(end);
            if random.is_below_percent(50) {
                self.durable.write(at, &bytes[(at - position) as usize..(next - position) as usize]);
            }
            at = next;
        }
    }
}

impl Change {
    /// What is left of a write when a range of bytes is taken out of it; lengths are left alone.
    fn without(self, start: u64, end: u64) -> Vec<Change> {
        let Change::Write { position, bytes } = self else { return vec![self] };
        let write_end = position + bytes.len() as u64;
        if end <= position || write_end <= start {
            return vec![Change::Write { position, bytes }];
        }
        let mut rest = Vec::new();
        if position < start {
            rest.push(Change::Write { position, bytes: bytes[..(start - position) as usize].to_vec() });
        }
        if end < write_end {
            rest.push(Change::Write { position: end, bytes: bytes[(end - position) as usize..].to_vec() });
        }
        rest
    }
}

impl Edit {
    fn apply(&self, names: &mut BTreeMap<String, NodeId>) {
        if self.is_put {
            names.insert(self.name.clone(), self.node);
        } else if names.get(&self.name) == Some(&self.node) {
            names.remove(&self.name);
        }
    }
}
