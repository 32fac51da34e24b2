//! Journal, placement, checkpoint and recovery together, on real files: lives that end well or badly, and what the next one finds.

use std::rc::Rc;

use bytes::Bytes;

use super::checkpoint::slot::Slot;
use super::journal::{EntryHeader, JournalError};
use super::testing::{Broker, Random, World};
use crate::rt;

const RING_BYTES: u64 = 1 << 20;

#[test]
fn what_was_acknowledged_survives_a_crash_before_any_placement() {
    let mut world = World::new(RING_BYTES, 1 << 20);
    world.live(1, |broker| async move {
        for number in 0..5 {
            let partition = broker.create(number);
            for round in 0..10 {
                partition.append_durably(3, 100 * round).await;
            }
        }
    });
    let recovered = world.live(1, |_| async {});
    assert_eq!((recovered.report.redone, recovered.report.was_clean), (5, false));
    // Nothing is left in the journals of that life.
    let recovered = world.live(1, |_| async {});
    assert_eq!((recovered.report.redone, recovered.report.entries), (0, 0));
}

#[test]
fn a_clean_stop_leaves_files_that_end_with_their_last_byte_and_journals_that_nobody_reads() {
    let mut world = World::new(RING_BYTES, 10_000);
    world.live(2, |broker| async move {
        for number in 0..4 {
            let partition = broker.create(number);
            for round in 0..30 {
                partition.append_durably(1, 100 + 50 * round).await;
            }
        }
        broker.stop().await;
    });
    for number in 0..4 {
        for entry in std::fs::read_dir(world.data_path().join(format!("orders-{number}"))).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().ends_with(".log") {
                let bytes = std::fs::read(entry.path()).unwrap();
                assert!(!bytes.ends_with(&[0; 8]), "{} has zeros behind its last byte", entry.path().display());
            }
        }
    }
    let recovered = world.live(2, |_| async {});
    assert_eq!((recovered.report.was_clean, recovered.report.redone, recovered.report.scanned), (true, 0, 0));
}

/// After a clean stop nothing in the journals is needed, so the file that names them may be lost; but only where the data directory still says that it was stopped so.
#[test]
fn the_lost_name_of_the_journals_is_forgiven_after_a_clean_stop_only() {
    let mut world = World::new(RING_BYTES, 10_000);
    let append = |broker: Rc<Broker>, number: i32| async move {
        let partition = broker.create(number);
        for round in 0..30 {
            partition.append_durably(1, 100 + 50 * round).await;
        }
    };
    let life = world.journal_directory().join("corelane-journals");
    let marker = world.data_path().join(".kafka_cleanshutdown");
    let refusal = |world: &World| world.recover(2).map(|_| ()).unwrap_err().to_string();

    world.live(2, move |broker| async move {
        append(broker.clone(), 0).await;
        append(broker.clone(), 1).await;
        broker.stop().await;
    });
    std::fs::remove_file(&life).unwrap();
    let kept = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    let said = refusal(&world);
    assert!(said.contains("corelane-journals is missing") && said.contains("in which no .kafka_cleanshutdown says"), "{said}");
    std::fs::write(&marker, kept).unwrap();
    let recovered = world.live(2, move |broker| append(broker, 2));
    assert_eq!((recovered.report.life_lost.as_deref(), recovered.report.scanned), (Some(life.as_path()), 2));

    // That life has crashed: now the journals hold what the files lack.
    let kept = std::fs::read(&life).unwrap();
    std::fs::remove_file(&life).unwrap();
    let said = refusal(&world);
    assert!(said.contains("corelane-journals is missing") && said.contains("was not stopped cleanly"), "{said}");
    std::fs::write(&life, kept).unwrap();
    let recovered = world.live(2, |_| async {});
    assert_eq!((recovered.report.life_lost, recovered.report.redone), (None, 1));
}

/// Each directory that is passed over is named, with the reason; not what belongs to a filesystem.
#[test]
fn directories_that_are_no_partitions_of_ours_are_left_alone_and_named() {
    let world = World::new(RING_BYTES, 10_000);
    for name in ["no-metadata-0", "notes", "lost+found", "__cluster_metadata-0"] {
        std::fs::create_dir_all(world.data_path().join(name)).unwrap();
    }
    let (_, recovered) = world.recover(1).unwrap();
    let mut left: Vec<_> =
        recovered.report.left_alone.iter().map(|left| (left.path.file_name().unwrap().to_str().unwrap(), left.why)).collect();
    left.sort_unstable();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].0 == "no-metadata-0" && left[0].1.contains("partition.metadata"), "{left:?}");
    assert!(left[1].0 == "notes" && left[1].1.contains("name"), "{left:?}");
}

#[test]
fn many_laps_of_the_ring_go_through_placement() {
    let mut world = World::new(RING_BYTES, 200_000);
    world.live(1, |broker| async move {
        let partitions: Vec<_> = (0..8).map(|number| broker.create(number)).collect();
        let tasks = partitions.into_iter().enumerate().map(|(index, partition)| {
            rt::spawn(async move {
                for round in 0..300 {
                    partition.append_durably(2, (round * 97 + index * 1009) % 9000).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await;
        }
        let (journal, placement) = &broker.shards[0];
        assert!(journal.statistics().written_bytes > 8 * RING_BYTES);
        assert!(placement.statistics().checkpoints > 4);
    });
    world.live(1, |_| async {});
}

#[test]
fn another_number_of_shards_finds_everything() {
    let mut world = World::new(RING_BYTES, 100_000);
    for (life, shards) in [3u16, 1, 4, 2, 2].into_iter().enumerate() {
        world.live(shards, move |broker| async move {
            let number = life as i32 * 2;
            broker.create(number);
            broker.create(number + 1);
            let partitions: Vec<_> = broker.partitions.borrow().values().cloned().collect();
            for round in 0..40 {
                for partition in &partitions {
                    partition.append_patiently(1, 300 + round).await;
                }
                partitions[round % partitions.len()].append_durably(1, 10).await;
            }
            if life == 2 {
                broker.stop().await;
            }
        });
    }
    world.live(5, |_| async {});
}

/// A block that was partly filled, placed and checkpointed is rewritten with more behind; the rewrite is torn into garbage. The journal has all of it.
#[test]
fn a_torn_rewrite_of_a_partly_filled_block_loses_nothing() {
    let mut world = World::new(RING_BYTES, 1 << 20);
    world.live(1, |broker| async move {
        let partition = broker.create(0);
        partition.append_durably(1, 1000).await;
        broker.place_all().await;
        partition.append_durably(1, 500).await;
        assert!(partition.placed.get().size_bytes > 1000);
        // The next round: its block is kept in the journal, then the file is written. A crash comes before its checkpoint: the old one is put back.
        let both = ["a", "b"].map(|slot| broker.journal_directory.join(format!("corelane-checkpoint-0-{slot}")));
        let before: Vec<_> = both.iter().map(|path| std::fs::read(path).ok()).collect();
        broker.place_all().await;
        for (path, bytes) in both.iter().zip(before) {
            match bytes {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
    });
    let path = world.data_path().join("orders-0/00000000000000000000.log");
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    std::fs::write(&path, vec![0xee; length]).unwrap();
    world.live(1, |_| async {});
}

#[test]
fn a_torn_checkpoint_leaves_the_one_before() {
    for damaged in ["a", "b"] {
        let mut world = World::new(RING_BYTES, 50_000);
        world.live(1, |broker| async move {
            let partition = broker.create(0);
            for _ in 0..3 {
                partition.append_durably(1, 3000).await;
                broker.place_all().await;
            }
        });
        let path = world.journal_directory().join(format!("corelane-checkpoint-0-{damaged}"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        world.live(1, |_| async {});
    }
}

#[test]
fn truncation_deletion_and_a_raised_start_are_redone() {
    let mut world = World::new(RING_BYTES, 5000);
    world.live(1, |broker| async move {
        for number in 0..6 {
            let partition = broker.create(number);
            for _ in 0..20 {
                partition.append_durably(2, 700).await;
            }
        }
        broker.place_all().await;
        broker.delete(0).await;
        broker.partition(1).raise_log_start(10).await;
        // Into an earlier segment, with bytes placed and not placed behind it, and more after it.
        for number in [2, 3, 4] {
            let partition = broker.partition(number);
            partition.append_durably(1, 300).await;
            partition.truncate(7 + number as usize).await;
            partition.append_durably(1, 900).await;
        }
        broker.partition(4).truncate(2).await;
        for _ in 0..30 {
            broker.partition(4).append_durably(1, 900).await;
        }
        broker.partition(3).truncate(3).await;
    });
    world.live(2, |broker| async move {
        broker.partition(2).truncate(4).await;
        broker.place_all().await;
        broker.partition(3).append_durably(1, 10).await;
        broker.partition(5).truncate(1).await;
        broker.delete(1).await;
        broker.place_all().await;
        broker.partition(5).append_durably(1, 10).await;
    });
    world.live(1, |broker| async move { broker.stop().await });
    world.live(1, |_| async {});
}

/// The files of one partition fail: what it has acknowledged stays in the ring from lap to lap, the others go on, and a restart finds everything.
#[test]
fn a_partition_that_failed_leaves_the_ring_to_the_others() {
    let mut world = World::new(RING_BYTES, 1 << 20);
    let data = world.data_path();
    world.live(1, move |broker| async move {
        let (failing, well) = (broker.create(0), broker.create(1));
        for _ in 0..30 {
            failing.append_durably(1, 3000).await;
        }
        // A plain file where its directory was: everything that is opened in it fails.
        std::fs::rename(&failing.directory, data.join("kept")).unwrap();
        std::fs::write(&failing.directory, b"").unwrap();
        let mut laps = 0;
        while laps < 6 {
            well.append_durably(2, 9000).await;
            laps = broker.shards[0].0.statistics().written_bytes / RING_BYTES;
        }
        assert!(failing.failed.get() && !well.failed.get());
        assert_eq!(broker.shards[0].0.failure(), None);
        std::fs::remove_file(&failing.directory).unwrap();
        std::fs::rename(data.join("kept"), &failing.directory).unwrap();
    });
    world.live(1, |broker| async move {
        broker.partition(0).append_durably(1, 10).await;
        broker.stop().await;
    });
    world.live(1, |_| async {});
}

/// Files fail while a batch of several pieces, a segment that has just begun, a cut through an earlier segment and an exchange of segments wait for them. All of it goes round and round in the
/// ring with the others' traffic, and a restart finds everything.
#[test]
fn whatever_waits_for_failed_files_leaves_the_ring_to_the_others() {
    let mut world = World::new(RING_BYTES, 30_000);
    let data = world.data_path();
    world.live(1, move |broker| async move {
        let failing: Vec<_> = (0..4).map(|number| broker.create(number)).collect();
        let well = broker.create(4);
        for partition in &failing {
            for _ in 0..20 {
                partition.append_durably(2, 5000).await;
            }
        }
        broker.place_all().await;
        let journal = &broker.shards[0].0;
        let error = JournalError::Failed { path: data.clone(), cause: "of the test".into() };
        failing[1].expire(false).await;
        failing[2].truncate(8).await;
        failing[3].merge_segments(2, 2).await;
        failing[0].append_durably(1, 25_000).await;
        failing[0].append_durably(1, 150_000).await;
        failing[2].append_durably(1, 3000).await;
        for partition in &failing {
            journal.fail_partition(&partition.key, &error);
        }
        let mut laps = 0;
        while laps < 6 {
            well.append_durably(2, 9000).await;
            laps = journal.statistics().written_bytes / RING_BYTES;
        }
        assert!(failing.iter().all(|partition| partition.failed.get()) && !well.failed.get());
        assert_eq!(journal.failure(), None);
        let (waiting, (used, capacity)) = (journal.waiting_count(), journal.used_bytes());
        assert!(waiting >= 6 && used < capacity, "{waiting} wait, {used} of {capacity} bytes are used");
        assert!(broker.shards[0].1.shut_down().await.is_err(), "it cannot stop cleanly");
    });
    let count = |world: &World| std::fs::read_dir(world.data_path().join("orders-2")).unwrap().count();
    let before = count(&world);
    world.live(1, |broker| async move {
        for number in 0..5 {
            broker.partition(number).append_durably(1, 10).await;
        }
        broker.stop().await;
    });
    assert!(count(&world) < before, "files behind the cut are gone");
    world.live(1, |_| async {});
}

/// A write that fails may leave nothing of the block that it was about to write again, and of what was acknowledged in it long since.
#[test]
fn what_a_failed_write_may_have_torn_stays_in_the_ring() {
    let mut world = World::new(RING_BYTES, 1 << 20);
    world.live(1, |broker| async move {
        let (failing, well) = (broker.create(0), broker.create(1));
        failing.append_durably(1, 1000).await;
        broker.place_all().await;
        let segment = super::placement::segment::segment_path(&failing.directory, 0);
        let placed = Bytes::from(std::fs::read(&segment).unwrap()).slice(..failing.placed.get().size_bytes as usize);
        failing.append_durably(1, 500).await;
        let journal = &broker.shards[0].0;
        let error = JournalError::Failed { path: segment.clone(), cause: "of the test".into() };
        journal.fail_torn_partition(&failing.key, &error, vec![(EntryHeader::block_prefix(failing.key, 0, 0), placed)]);
        std::fs::write(&segment, [0xee; 4096]).unwrap();
        let mut laps = 0;
        while laps < 4 {
            well.append_durably(2, 9000).await;
            laps = journal.statistics().written_bytes / RING_BYTES;
        }
    });
    world.live(1, |_| async {});
}

/// A checkpoint in the second file frees the ring: were its name lost in a power failure, the first one would begin in what has been overwritten since.
#[test]
fn both_files_of_checkpoints_have_their_names_before_a_life_begins() {
    let world = World::new(RING_BYTES, 1 << 20);
    world.recover(2).unwrap();
    for shard in 0..2 {
        assert!(Slot::BOTH.iter().all(|slot| slot.path(&world.journal_directory(), shard).exists()), "shard {shard}");
    }
}

/// Compaction is cut short at each of its steps, with a checkpoint before, after or none, and with bytes of the replaced segments still in the ring.
#[test]
fn segments_that_change_places_are_whole_after_a_cut_at_any_step() {
    let mut world = World::new(RING_BYTES, 3000);
    world.live(2, |broker| async move {
        for number in 0..12 {
            let partition = broker.create(number);
            for _ in 0..12 {
                partition.append_durably(2, 700).await;
            }
        }
        broker.place_all().await;
        for number in 0..12 {
            let partition = broker.partition(number);
            let steps = 1 + number as usize % 5;
            if number >= 5 {
                // An earlier exchange of the same segment is whole, and still in the ring.
                partition.merge_segments(2, 5).await;
            }
            partition.merge_segments(3, steps).await;
            partition.append_durably(1, 100).await;
        }
        // Their checkpoint tells of exchanges that the files still lack.
        broker.place_all().await;
        for number in [4, 9] {
            broker.partition(number).merge_segments(2, 2).await;
        }
    });
    world.live(1, |broker| async move {
        for number in 0..12 {
            broker.partition(number).merge_segments(4, 5).await;
            broker.partition(number).append_durably(1, 1000).await;
        }
        broker.place_all().await;
        for number in 0..12 {
            broker.partition(number).merge_segments(9, 1 + number as usize % 5).await;
        }
    });
    world.live(2, |_| async {});
    world.live(1, |broker| async move { broker.stop().await });
    world.live(1, |_| async {});
}

/// All of a log has expired: its last segment is empty, and the files before it are there, or not any more, whatever the journal still holds of them.
#[test]
fn a_log_of_which_nothing_is_left_goes_on() {
    let mut world = World::new(RING_BYTES, 3000);
    world.live(1, |broker| async move {
        for number in 0..5 {
            let partition = broker.create(number);
            for _ in 0..8 {
                partition.append_durably(2, 700).await;
            }
        }
        broker.partition(0).expire(false).await;
        broker.place_all().await;
        broker.partition(1).expire(false).await;
        broker.place_all().await;
        broker.partition(2).expire(false).await;
        broker.place_all().await;
        for number in [0, 1, 2] {
            broker.partition(number).expire(number != 1).await;
        }
        broker.partition(2).append_durably(1, 100).await;
        broker.partition(3).append_durably(1, 100).await;
        broker.partition(3).expire(true).await;
        broker.partition(4).expire(true).await;
        broker.partition(4).append_durably(1, 100).await;
    });
    world.live(2, |broker| async move {
        for number in 0..5 {
            broker.partition(number).append_durably(1, 100).await;
            broker.partition(number).expire(true).await;
        }
        broker.place_all().await;
        broker.partition(0).expire(true).await;
    });
    world.live(1, |broker| async move {
        broker.partition(0).append_durably(1, 100).await;
        broker.stop().await;
    });
    world.live(1, |_| async {});
}

/// At every step of a life, the files as they are: a crash at that moment loses nothing that was acknowledged.
#[test]
fn a_crash_at_any_step_loses_nothing() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let mut world = World::new(RING_BYTES, 60_000);
        let shards = 1 + random.below(3) as u16;
        let (sender, receiver) = std::sync::mpsc::channel();
        let outline = World { parent: tempfile::tempdir().unwrap(), memory: Default::default(), ..world };
        let original = world.parent.path().to_path_buf();
        world.live(shards, move |broker| async move {
            for number in 0..4 {
                broker.create(number);
            }
            for step in 0..120 {
                random_step(&broker, &mut random).await;
                if step % 8 == 7 {
                    let copy = World { parent: tempfile::tempdir().unwrap(), memory: broker.memory(), ..outline };
                    super::testing::copy_tree(&original, copy.parent.path());
                    sender.send(copy).unwrap();
                }
            }
        });
        for mut copy in receiver {
            let shards = 1 + Random::new(seed + 100).below(3) as u16;
            copy.live(shards, |broker| async move {
                for number in 0..4 {
                    broker.partition(number).append_patiently(1, 100).await;
                }
            });
            copy.live(1, |_| async {});
        }
        world.live(1, |_| async {});
    }
}

async fn random_merge(partition: &super::testing::FakePartition, random: &mut Random) {
    partition.merge_segments(1 + random.below(3) as usize, 5).await;
}

async fn random_step(broker: &Rc<Broker>, random: &mut Random) {
    let partition = broker.partition(random.below(4) as i32);
    match random.below(13) {
        0..=3 => {
            let bytes = random.below(3000) as usize;
            partition.append_durably(1 + random.below(4) as i32, bytes).await
        }
        4..=6 => {
            for _ in 0..random.below(20) {
                partition.append_patiently(1, random.below(6000) as usize).await;
            }
        }
        7 => {
            let task = broker.clone();
            rt::spawn_background(async move { task.shards[0].1.place_now().await.unwrap() }).detach();
        }
        8 => broker.place_all().await,
        9 => {
            let count = partition.memory.borrow().batches.len() as u64;
            let start = partition.log.borrow().log_start_offset();
            let keep = count - random.below(count.min(4) + 1);
            let ends = partition.memory.borrow().ends.clone();
            if keep > 0 && ends[keep as usize - 1] >= start {
                partition.truncate(keep as usize).await;
            }
        }
        10 => {
            let (start, end) = (partition.log.borrow().log_start_offset(), partition.memory.borrow().acknowledged);
            if end > start && random.one_in(3) {
                let offset = start + 1 + random.below((end - start) as u64) as i64;
                partition.raise_log_start(offset).await;
            }
        }
        11 => random_merge(&partition, random).await,
        _ => rt::yield_now().await,
    }
}
