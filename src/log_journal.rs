//! `corelane log dump` of a journal's file: the groups that it holds and the entries in them. Nothing is changed, and the broker may run.
//!
//! A ring holds groups of several laps and lives. What counts is what belongs to the present life, which a file beside the journals names; of the rest only the number is told,
//! unless nothing names a life: then everything is printed.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use corelane::disk::checkpoint::{PartitionHome, ReplicaMove};
use corelane::disk::journal::group::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader};
use corelane::disk::journal::ring::RING_START;
use corelane::disk::journal::{Entry, EntryHeader, EntryKind};
use corelane::disk::recovery::life::Life;
use corelane::log::directory_files::encode_uuid;
use corelane::log::dump::{self, DumpOptions};
use corelane_wire::batch::BatchIterator;
use uuid::Uuid;

/// The names of journals: this, and the number of the shard.
const NAME_PREFIX: &str = "corelane-journal-";

/// The shard whose journal has that name.
pub fn shard_of(name: &str) -> Option<u16> {
    name.strip_prefix(NAME_PREFIX)?.parse().ok()
}

/// A group that was found, wherever in the ring and of whatever life.
struct Found {
    position: u64,
    header: GroupHeader,
}

pub fn dump(path: &Path, shard: u16, options: &DumpOptions, out: &mut impl Write) -> io::Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let present = present_life(path, shard)?;
    let mut groups = find_groups(&file, length)?;
    let found = groups.len();
    if let Some(present) = present {
        groups.retain(|group| group.header.journal_id == present);
    }
    groups.sort_by_key(|group| (group.header.journal_id, group.header.sequence));
    let life = present.map_or("not named by any file".to_owned(), |life| life.to_string());
    writeln!(
        out,
        "Journal of shard {shard}: {length} bytes, life {life}, {} groups, {} of other lives",
        groups.len(),
        found - groups.len()
    )?;
    groups.iter().try_for_each(|group| dump_group(&file, group, options, out))
}

fn present_life(path: &Path, shard: u16) -> io::Result<Option<Uuid>> {
    let life = Life::read_blocking(path.parent().unwrap_or(path)).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(life.and_then(|life| life.journals.get(usize::from(shard)).map(|journal| journal.journal_id)))
}

/// Groups begin with blocks, and their headers have checksums of their own.
fn find_groups(file: &File, length: u64) -> io::Result<Vec<Found>> {
    let mut groups = Vec::new();
    let mut head = [0; GROUP_HEADER_BYTES];
    for position in (RING_START..length).step_by(BLOCK_BYTES) {
        if length - position >= GROUP_HEADER_BYTES as u64 {
            file.read_exact_at(&mut head, position)?;
            groups.extend(GroupHeader::decode(&head).map(|header| Found { position, header }));
        }
    }
    Ok(groups)
}

fn dump_group(file: &File, group: &Found, options: &DumpOptions, out: &mut impl Write) -> io::Result<()> {
    let header = &group.header;
    let body = read_body(file, group)?;
    writeln!(
        out,
        "group: {} position: {} journalId: {} entries: {} firstEntry: {} durableBefore: {} bodyBytes: {} isvalid: {}",
        header.sequence,
        group.position,
        header.journal_id,
        header.entry_count,
        header.first_entry,
        header.durable_before,
        header.body_bytes,
        body.is_some(),
    )?;
    let Some(mut body) = body else { return Ok(()) };
    for number in header.first_entry..header.first_entry + u64::from(header.entry_count) {
        match Entry::decode(&mut body) {
            Ok(entry) => dump_entry(number, &entry, options, out)?,
            Err(error) => return writeln!(out, "| entry: {number} cannot be read: {error:?}"),
        }
    }
    Ok(())
}

/// None if what follows the header is not the group's: it was torn, or another lap has begun to overwrite it.
fn read_body(file: &File, group: &Found) -> io::Result<Option<Bytes>> {
    let mut body = vec![0; group.header.body_bytes as usize];
    match file.read_exact_at(&mut body, group.position + GROUP_HEADER_BYTES as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    Ok((crc32c::crc32c(&body) == group.header.body_crc).then(|| Bytes::from(body)))
}

fn dump_entry(number: u64, entry: &Entry, options: &DumpOptions, out: &mut impl Write) -> io::Result<()> {
    let EntryHeader { kind, partition, leader_epoch, segment_base, base_offset, last_offset, position } = entry.header;
    let topic_id = encode_uuid(partition.topic_id);
    write!(out, "| entry: {number} kind: {kind:?} topicId: {topic_id} partition: {}", partition.partition)?;
    let payload = entry.payload.clone();
    match kind {
        EntryKind::Append => write!(
            out,
            " baseOffset: {base_offset} lastOffset: {last_offset} partitionLeaderEpoch: {leader_epoch} segment: {segment_base} position: {position} size: {}",
            payload.len()
        )?,
        EntryKind::BlockPrefix => write!(out, " segment: {segment_base} position: {position} size: {}", payload.len())?,
        EntryKind::Truncate => write!(out, " endOffset: {base_offset} segment: {segment_base} position: {position}")?,
        EntryKind::CutBefore => write!(out, " segment: {segment_base} position: {position}")?,
        EntryKind::LogStart => write!(out, " logStartOffset: {base_offset}")?,
        EntryKind::Roll => write!(out, " segment: {base_offset}")?,
        EntryKind::Swap => write!(out, " segments: {segment_base} to {base_offset}")?,
        EntryKind::Swapped => write!(out, " segment: {segment_base}")?,
        EntryKind::Deleted => {}
        EntryKind::Opened => match PartitionHome::decode(payload) {
            Ok(home) => write!(out, " directoryId: {} name: {}", encode_uuid(home.directory_id), home.name)?,
            Err(_) => write!(out, " its home cannot be read")?,
        },
        EntryKind::Moved => match ReplicaMove::decode(payload) {
            Ok(moved) => {
                write!(out, " from: {} to: {} name: {}", encode_uuid(moved.from), encode_uuid(moved.to.directory_id), moved.to.name)?
            }
            Err(_) => write!(out, " its places cannot be read")?,
        },
    }
    writeln!(out)?;
    if kind == EntryKind::Append && options.records { dump_batches(&entry.payload, u64::from(position), options, out) } else { Ok(()) }
}

/// The batches of an entry as they will lie in their segment.
fn dump_batches(payload: &Bytes, mut position: u64, options: &DumpOptions, out: &mut impl Write) -> io::Result<()> {
    for batch in BatchIterator::new(payload.clone()) {
        let Ok((header, batch)) = batch else { return writeln!(out, "|| what follows is no batch") };
        writeln!(out, "|| {}", dump::batch_line(&header, position, header.check_crc(&batch).is_ok()))?;
        match dump::record_lines(&header, &batch, options) {
            Ok(lines) => lines.iter().try_for_each(|line| writeln!(out, "||{line}"))?,
            Err(error) => writeln!(out, "|| not readable: {error}")?,
        }
        position += batch.len() as u64;
    }
    Ok(())
}
