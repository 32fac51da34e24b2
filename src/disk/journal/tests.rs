//! The journal on a real ring file and a real shard: what is durable is in the file, in order; a full ring makes appenders wait in order; a failure is final.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use uuid::Uuid;

use super::replay::{ReplayError, ReplayStart, read_groups};
use super::shadow::{ShadowContent, make_shadow_blocking, shadow_path};
use super::*;
use crate::cluster::TopicIdPartition;
use crate::disk::checkpoint::PlacedEnd;
use crate::disk::testing::Nobody;
use crate::rt;
use crate::rt::file::{File, OpenMode};

const RING_BYTES: u64 = 1 << 20;
const LIFE: Uuid = Uuid::from_u128(42);
const PARTITION: TopicIdPartition = TopicIdPartition::new(Uuid::from_u128(9), 0);
const NOTHING_PLACED: PlacedEnd = PlacedEnd { segment_base: 0, size_bytes: 0, end_offset: 0 };

fn new_ring(directory: &Path) -> RingFile {
    RingFile::create_blocking(&file::ring_path(directory, 0), RING_BYTES, true).unwrap()
}

fn start(ring: RingFile) -> Rc<Journal> {
    let journal = Journal::start(ring, LIFE, Durability::Dsync);
    journal.register(PARTITION, Rc::new(Nobody), Rc::from(Path::new("/nowhere")), NOTHING_PLACED);
    journal
}

/// A journal on a ring of its own.
struct Place {
    journal: Rc<Journal>,
    ring: RingFile,
    directory: PathBuf,
}

/// Runs a test on a shard that has a new journal and nothing else.
fn with_journal<T: Future<Output = ()>>(test: impl FnOnce(Place) -> T + Send + 'static) {
    rt::run(move || async move {
        let directory = tempfile::tempdir().unwrap();
        let ring = new_ring(directory.path());
        test(Place { journal: start(ring.clone()), ring, directory: directory.path().into() }).await;
    });
}

/// Gives the journal a shadow; where that is.
fn shadow(journal: &Journal, directory: &Path) -> PathBuf {
    let path = shadow_path(directory, 0);
    journal.shadow_in(Shadow::new(&make_shadow_blocking(&path).unwrap()).unwrap());
    path
}

/// The nth record: its offset is n, its place in the segment does not matter here.
fn header(number: i64) -> EntryHeader {
    EntryHeader::append(PARTITION, 0, number as u32, number, number, 0)
}

fn payload(number: i64, bytes: usize) -> Vec<u8> {
    vec![number as u8; bytes]
}

/// Stands in for placement and its checkpoint: everything durable is placed, its space is free.
fn place_all(journal: &Journal) {
    while let Some(work) = journal.durable_work(&PARTITION) {
        journal.strike_off(&work.partition, work.last_number, NOTHING_PLACED);
    }
    journal.checkpointed(journal.replay_start());
}

/// Offsets that a restart finds in the ring.
fn replayed(ring: &RingFile, start: JournalStart) -> Vec<i64> {
    replayed_with(ring, &ShadowContent::default(), start)
}

/// Offsets that a restart finds in ring and shadow.
fn replayed_with(ring: &RingFile, shadow: &ShadowContent, start: JournalStart) -> Vec<i64> {
    let groups = read_groups(&ring.read_blocking().unwrap(), shadow, replay_start(start)).unwrap();
    let entries = groups.iter().flat_map(|group| group.entries().unwrap());
    entries
        .map(|(number, entry)| {
            assert!(entry.payload.iter().all(|byte| *byte == entry.header.base_offset as u8), "entry {number} holds its own bytes");
            entry.header.base_offset
        })
        .collect()
}

fn replay_start(start: JournalStart) -> ReplayStart {
    ReplayStart { journal_id: LIFE, sequence: start.sequence, position: start.position }
}

#[test]
fn what_is_durable_is_in_the_ring_in_order() {
    with_journal(|Place { journal, ring, .. }| async move {
        let mut last = GroupSequence(0);
        for number in 0..50 {
            let bytes = payload(number, 100 + number as usize * 50);
            let written = journal.append(&header(number), &[&bytes[..10], &bytes[10..]]).unwrap();
            assert_eq!(&written.bytes[..], &bytes[..]);
            assert!(written.sequence >= last);
            last = written.sequence;
        }
        journal.wait_durable(last).await.unwrap();
        assert!(journal.durable_sequence() >= last);
        assert_eq!(replayed(&ring, journal.replay_start()), (0..50).collect::<Vec<_>>());
        // All fifty were appended before the writer had its turn: they are one group.
        assert_eq!((journal.statistics().groups, journal.statistics().entries), (1, 50));
    });
}

#[test]
fn entries_that_arrive_during_a_write_share_the_next_group() {
    with_journal(|Place { journal, .. }| async move {
        let mut tasks = Vec::new();
        for task in 0..32 {
            let journal = journal.clone();
            tasks.push(rt::spawn(async move {
                for round in 0..20 {
                    let number = task * 20 + round;
                    let written = journal.append(&header(number), &[&payload(number, 200)]).unwrap();
                    journal.wait_durable(written.sequence).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await;
        }
        let statistics = journal.statistics();
        assert_eq!(statistics.entries, 640);
        assert!(statistics.groups < 320, "{} groups for 640 entries of 32 tasks", statistics.groups);
    });
}

#[test]
fn a_group_that_is_not_full_is_not_written_beside_another() {
    with_journal(|Place { journal, .. }| async move {
        let mut rounds_beside_a_write = 0;
        for round in 0..50 {
            let first = journal.append(&header(3 * round), &[&payload(3 * round, 200)]).unwrap();
            while journal.statistics().groups < first.sequence.0 {
                rt::yield_now().await;
            }
            let second = journal.append(&header(3 * round + 1), &[&payload(3 * round + 1, 200)]).unwrap();
            rt::yield_now().await;
            let third = journal.append(&header(3 * round + 2), &[&payload(3 * round + 2, 200)]).unwrap();
            if journal.durable_sequence() < first.sequence {
                rounds_beside_a_write += 1;
                assert_eq!(second.sequence, third.sequence, "the first group is under way, and there is room in the second");
            }
            journal.wait_durable(third.sequence).await.unwrap();
        }
        assert!(rounds_beside_a_write > 0, "no write took longer than a look at the ring");
    });
}

#[test]
fn listeners_hear_of_every_group_in_order_before_waiters_go_on() {
    with_journal(|Place { journal, .. }| async move {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ear = heard.clone();
        journal.on_durable(Box::new(move |sequence| ear.borrow_mut().push(sequence)));
        for number in 0..20 {
            let written = journal.append(&header(number), &[&payload(number, 5000)]).unwrap();
            if number % 3 == 0 {
                journal.wait_durable(written.sequence).await.unwrap();
                assert!(*heard.borrow().last().unwrap() >= written.sequence);
            }
        }
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        assert!(heard.borrow().is_sorted_by(|left, right| left < right));
    });
}

#[test]
fn a_group_closes_at_its_limit_and_a_larger_entry_is_a_group_of_its_own() {
    with_journal(|Place { journal, ring, .. }| async move {
        let sizes = [300 << 10, 300 << 10, 50 << 10];
        let sequences: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| journal.append(&header(number as i64), &[&payload(number as i64, *size)]).unwrap().sequence.0)
            .collect();
        assert_eq!(sequences, [1, 2, 2]);
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        place_all(&journal);
        let large = journal.append(&header(3), &[&payload(3, 700 << 10)]).unwrap();
        let start = journal.replay_start();
        journal.wait_durable(large.sequence).await.unwrap();
        assert_eq!(replayed(&ring, start), [3]);
    });
}

/// Many times the ring's size goes through it, each lap over the one before; what a crash would find is always what was not placed.
#[test]
fn many_laps_leave_only_what_is_needed() {
    with_journal(|Place { journal, ring, .. }| async move {
        let mut first_needed = 0;
        for number in 0..3000 {
            let bytes = payload(number, (number as usize * 7919) % 20_000);
            if journal.append(&header(number), &[&bytes]) == Err(JournalError::Full) {
                journal.wait_durable(journal.last_sequence()).await.unwrap();
                let start = journal.replay_start();
                assert_eq!(replayed(&ring, start), (first_needed..number).collect::<Vec<_>>());
                place_all(&journal);
                first_needed = number;
                journal.append(&header(number), &[&bytes]).unwrap();
            }
            if number % 10 == 0 {
                journal.wait_durable(journal.last_sequence()).await.unwrap();
            }
        }
        assert!(journal.statistics().written_bytes > 20 * RING_BYTES);
    });
}

#[test]
fn a_full_ring_lets_appenders_in_again_in_the_order_in_which_they_came() {
    with_journal(|Place { journal, .. }| async move {
        let mut number = 0;
        while journal.append(&header(number), &[&payload(number, 10_000)]).is_ok() {
            number += 1;
        }
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for waiter in 0..10 {
            let (journal, order) = (journal.clone(), order.clone());
            tasks.push(rt::spawn(async move {
                // The first asks for much, the others for little: they do not overtake it.
                let bytes = if waiter == 0 { 400_000 } else { 100 };
                let room = journal.wait_for_room(&PARTITION, bytes).await.unwrap();
                room.enter(|| journal.append(&header(0), &[&payload(0, bytes)]).unwrap());
                order.borrow_mut().push(waiter);
            }));
        }
        rt::yield_now().await;
        assert_eq!(journal.check_room(&PARTITION, 100), Err(JournalError::Full), "nobody overtakes those who wait");
        // One who gives up does not hold up the others.
        tasks.remove(4).cancel().await;
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        place_all(&journal);
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        journal.check_room(&PARTITION, 100).unwrap();
    });
}

/// Of two data directories neither fills the ring. Who waits for a share holds up nobody of the other; who waits for room does, and when there is some they come in turn.
#[test]
fn data_directories_share_the_ring() {
    let directory = tempfile::tempdir().unwrap();
    let ring = new_ring(directory.path());
    rt::run(move || async move {
        let journal = start(ring);
        let other = TopicIdPartition::new(Uuid::from_u128(9), 1);
        journal.register(other, Rc::new(Nobody), Rc::from(Path::new("/elsewhere/orders-1")), NOTHING_PLACED);
        let append = |partition, number: i64| {
            journal.append(&EntryHeader::append(partition, 0, number as u32, number, number, 0), &[&payload(number, 10_000)])
        };
        let taken = (0..100).take_while(|number| append(PARTITION, *number).is_ok()).count();
        assert!((20..40).contains(&taken), "{taken} of 10,000 bytes each in a ring of a megabyte");
        let waits_for_share = journal.wait_for_room(&PARTITION, 10_000);
        let mut waits_for_share = std::pin::pin!(waits_for_share);
        assert!(rt::timeout(std::time::Duration::ZERO, &mut waits_for_share).await.is_err());
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        let others = (100..200).take_while(|number| append(other, *number).is_ok()).count();
        assert!(others.abs_diff(taken) < 4, "{others} of the other directory, {taken} of the first");
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        assert!(rt::timeout(std::time::Duration::ZERO, &mut waits_for_share).await.is_err());

        place_all(&journal);
        let room = waits_for_share.await.unwrap();
        assert_eq!(journal.check_room(&other, 10_000), Err(JournalError::Full), "one comes after the other");
        room.enter(|| append(PARTITION, 200).unwrap());
        drop(room);
        assert_eq!(journal.check_room(&other, 10_000), Err(JournalError::Full), "nothing of it is placed");
        while let Some(work) = journal.durable_work(&other) {
            journal.strike_off(&work.partition, work.last_number, NOTHING_PLACED);
        }
        journal.check_room(&other, 10_000).unwrap();
        journal.append(&EntryHeader::deleted(other), &[]).unwrap();
        assert_eq!(journal.waiting_bytes_in(Path::new("/elsewhere")), 0);
    });
}

#[test]
fn upkeep_finds_room_in_a_ring_that_is_full_for_clients() {
    with_journal(|Place { journal, .. }| async move {
        let mut number = 0;
        while journal.append(&header(number), &[&payload(number, 10_000)]).is_ok() {
            number += 1;
        }
        let prefix = EntryHeader::block_prefix(PARTITION, 0, 0);
        let mut bytes = 0;
        while bytes < journal.upkeep_bytes_max() {
            bytes += 4000;
            journal.append_upkeep(&prefix, &[&[0; 4000]]).unwrap();
        }
    });
}

#[test]
fn a_payload_that_never_fits_is_refused_for_good() {
    with_journal(|Place { journal, .. }| async move {
        let Err(JournalError::TooLarge { payload_bytes_max, .. }) = journal.append(&header(0), &[&[0; 2 << 20]]) else {
            panic!("it has no room in a ring of 1 MiB")
        };
        assert!(journal.wait_for_room(&PARTITION, payload_bytes_max + 1).await.is_err());
        // One that just fits is taken wherever the ring stands, once it is empty.
        journal.append(&header(0), &[&[0; 300_000]]).unwrap();
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        place_all(&journal);
        let written = journal.append(&header(1), &[&vec![1; payload_bytes_max]]).unwrap();
        journal.wait_durable(written.sequence).await.unwrap();
    });
}

#[test]
fn a_failed_write_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let mut ring = new_ring(directory.path());
    // A descriptor that cannot write stands for a disk that does not.
    ring.file = File::open_blocking(ring.file.path(), OpenMode::READ.direct(true)).unwrap();
    rt::run(move || async move {
        let journal = start(ring);
        let written = journal.append(&header(0), &[b"lost"]).unwrap();
        let room = journal.wait_for_room(&PARTITION, 10).await.unwrap();
        let error = journal.wait_durable(written.sequence).await.unwrap_err();
        assert!(matches!(&error, JournalError::Failed { path, .. } if path == journal.path()));
        assert_eq!(journal.durable_sequence(), GroupSequence(0));
        assert_eq!(room.enter(|| journal.append(&header(1), &[b"refused"])).unwrap_err(), error);
        assert_eq!(journal.wait_for_room(&PARTITION, 10).await.err(), Some(error.clone()));
        assert_eq!(journal.wait_durable(written.sequence).await, Err(error));
    });
}

/// Entries that only have to be written are acknowledged without a flush, count as durable after one, and hold nothing back that must be durable.
#[test]
fn weaker_entries_share_the_order_and_not_the_flushes() {
    with_journal(|Place { journal, ring, .. }| async move {
        for number in 0..5 {
            let written = journal.append_weak(&header(number), &[&payload(number, 500)]).unwrap();
            journal.wait_written(written.sequence).await.unwrap();
            assert!(journal.durable_sequence() < written.sequence);
        }
        assert_eq!(journal.statistics().flushes, 0);
        assert_eq!(replayed(&ring, journal.replay_start()), (0..5).collect::<Vec<_>>(), "a killed process leaves them in the ring");
        assert!(journal.durable_work(&PARTITION).is_none(), "nothing of it is placed yet");

        let written = journal.append(&header(5), &[&payload(5, 500)]).unwrap();
        journal.wait_durable(written.sequence).await.unwrap();
        assert_eq!((journal.statistics().flushes, journal.durable_sequence()), (1, written.sequence));
        let written = journal.append(&header(6), &[&payload(6, 500)]).unwrap();
        journal.wait_durable(written.sequence).await.unwrap();
        assert_eq!(journal.statistics().flushes, 1, "nothing weaker lies before it");

        let written = journal.append_weak(&header(7), &[&payload(7, 500)]).unwrap();
        journal.request_flush(written.sequence);
        while journal.durable_sequence() < written.sequence {
            rt::sleep(std::time::Duration::from_millis(1)).await;
        }
        journal.append_weak(&header(8), &[&payload(8, 500)]).unwrap();
        journal.wait_durable(journal.last_sequence()).await.unwrap();
        assert_eq!(journal.statistics().flushes, 3);
        assert_eq!(replayed(&ring, journal.replay_start()), (0..9).collect::<Vec<_>>());
    });
}

/// What need not be durable is there for a restart before its write has even begun, and with it all that lies before it; what comes from the shadow is not there twice.
#[test]
fn weaker_entries_survive_the_process_before_they_are_written() {
    with_journal(|Place { journal, ring, directory }| async move {
        let path = shadow(&journal, &directory);
        let found = || replayed_with(&ring, &ShadowContent::read_blocking(&path).unwrap(), journal.replay_start());
        let mut number = 0;
        let mut next = || {
            number += 1;
            number - 1
        };
        let strong = next();
        assert!(!journal.append(&header(strong), &[&payload(strong, 500)]).unwrap().is_shadowed, "it waits for stable storage");
        assert_eq!(found(), Vec::<i64>::new());
        // Beside writes that come back whenever they like.
        for round in 0..60 {
            let weak = next();
            let written = journal.append_weak(&header(weak), &[&payload(weak, 500)]).unwrap();
            assert!(written.is_shadowed && journal.written_sequence() < written.sequence);
            assert_eq!(found(), (0..=weak).collect::<Vec<_>>());
            if round % 3 == 0 {
                let strong = next();
                journal.append(&header(strong), &[&payload(strong, 500)]).unwrap();
            }
            rt::yield_now().await;
        }
        let bulk = next();
        assert!(!journal.append_weak(&header(bulk), &[&payload(bulk, 100_000)]).unwrap().is_shadowed, "it counts when it is written");
        journal.wait_written(journal.last_sequence()).await.unwrap();
        assert_eq!((found(), replayed(&ring, journal.replay_start())), ((0..=bulk).collect(), (0..=bulk).collect()));
    });
}

/// A group of which the shadow has the first part was durable, and the ring has lost it: that is damage like any other, not the end of what there is.
#[test]
fn a_durable_group_is_not_replaced_by_the_part_that_the_shadow_has() {
    with_journal(|Place { journal, ring, directory }| async move {
        let path = shadow(&journal, &directory);
        let start = journal.replay_start();
        assert!(journal.append_weak(&header(0), &[&payload(0, 500)]).unwrap().is_shadowed);
        let mixed = journal.append(&header(1), &[&payload(1, 100_000)]).unwrap();
        journal.wait_durable(mixed.sequence).await.unwrap();
        let witness = journal.append(&header(2), &[&payload(2, 500)]).unwrap();
        journal.wait_durable(witness.sequence).await.unwrap();
        assert_eq!((mixed.sequence, witness.sequence), (GroupSequence(1), GroupSequence(2)));

        let damaged = File::open_blocking(ring.file.path(), OpenMode::READ_WRITE).unwrap();
        damaged.write_at_blocking(&[0xee; 512], start.position + 50_000, Durability::Dsync).unwrap();
        let shadow = ShadowContent::read_blocking(&path).unwrap();
        let read = read_groups(&ring.read_blocking().unwrap(), &shadow, replay_start(start));
        assert!(matches!(read, Err(ReplayError::Lost { sequence: GroupSequence(1), .. })), "{read:?}");
    });
}
