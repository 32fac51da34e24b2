//! Appends on a real shard and journal: offsets, duplicates, order while the journal is full.

use super::*;
use crate::log::AppendError;

#[test]
fn nothing_is_visible_before_it_is_durable() {
    on_shard(|_place, partition| async move {
        let appending = partition.try_append(&batch(3, 10), CLIENT).unwrap();
        assert_eq!((appending.base_offset, appending.last_offset, partition.log_end_offset()), (0, 2, 3));
        assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (0, 0));
        assert_eq!(offsets(&partition, 0, 1 << 20).await, [0i64; 0]);
        assert_eq!(partition.find_offset(OffsetTarget::Latest, Isolation::ReadUncommitted, -1).await.unwrap().offset, 0);
        assert_eq!(partition.find_offset(OffsetTarget::LargestTimestamp, Isolation::ReadUncommitted, -1).await.unwrap().offset, -1);

        partition.wait_durable(appending.sequence).await.unwrap();
        assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (3, 3), "visible before the producer hears of it");
        assert_eq!(offsets(&partition, 0, 1 << 20).await, [0]);
    });
}

#[test]
fn the_stored_batch_has_its_offset_and_epoch_and_a_right_checksum() {
    on_shard(|_place, partition| async move {
        append_durably(&partition, &batch(3, 10)).await;
        append_durably(&partition, &batch(1, 2_000)).await;
        let batches = partition.read_batches(3, 1 << 20).await.unwrap();
        let (info, bytes) = &batches[0];
        assert_eq!((info.base_offset, info.leader_epoch, info.record_count), (3, 5, 1));
        assert!(info.is_intact(bytes));
    });
}

#[test]
fn a_duplicate_is_answered_with_the_original_once_that_is_durable() {
    on_shard(|_place, partition| async move {
        append_durably(&partition, &batch(4, 10)).await;
        let original = partition.try_append(&idempotent(0, 2), CLIENT).unwrap();
        let again = partition.try_append(&idempotent(0, 2), CLIENT).unwrap();
        assert_eq!((again.base_offset, again.is_duplicate, again.sequence), (4, true, original.sequence));
        assert!(partition.producers().await.is_empty(), "a producer that nobody may see yet");
        partition.wait_durable(again.sequence).await.unwrap();
        assert_eq!((partition.high_watermark(), partition.log_end_offset()), (6, 6));
        let view = partition.producers().await[0];
        assert_eq!((view.producer_id, view.last_sequence), (9, 1));

        let late = partition.try_append(&idempotent(0, 2), CLIENT).unwrap();
        partition.wait_durable(late.sequence).await.unwrap();
        let gap = partition.try_append(&idempotent(5, 1), CLIENT);
        assert!(matches!(gap, Err(TryAppendError::Refused(AppendError::OutOfOrderSequence { .. }))));
    });
}

#[test]
fn only_a_leader_takes_appends() {
    on_shard(|_place, partition| async move {
        partition.resign(6);
        assert_eq!(partition.append(&batch(1, 1), CLIENT).await, Err(AppendError::NotLeader));
        partition.become_leader(7);
        append_durably(&partition, &batch(1, 1)).await;
        assert_eq!(partition.epoch_end(7, -1).unwrap(), EpochEnd { leader_epoch: 7, end_offset: 1 });
    });
}

/// A ring of a megabyte and far more to append than it holds: producers wait, in order, and nothing is lost.
#[test]
fn a_full_journal_makes_producers_wait_in_order() {
    rt::run(|| async {
        let place = Place::new(1 << 20, PartitionsOptions { tail_bytes_max: 256 << 10, ..PartitionsOptions::default() });
        let partition = place.partition(0, &TopicSettings::default()).await;
        let order = Rc::new(RefCell::new(Vec::new()));
        let producers = (0..64).map(|number| {
            let (partition, order) = (partition.clone(), order.clone());
            rt::spawn(async move {
                let appending = partition.append(&batch(1, 60_000), CLIENT).await.unwrap();
                order.borrow_mut().push((number, appending.base_offset));
                partition.wait_durable(appending.sequence).await.unwrap();
            })
        });
        let producers: Vec<_> = producers.collect();
        rt::sync::join_all(producers).await;
        let order = order.take();
        assert!(order.iter().all(|(number, offset)| number == offset), "{order:?}");
        assert!(place.journal.statistics().refusals > 0, "the ring was full");
        let mut next = 0;
        while next < 64 {
            let found = offsets(&partition, next, 1 << 20).await;
            assert!(found.iter().copied().eq(next..next + found.len() as i64), "{found:?} from {next}");
            next += found.len() as i64;
        }
    });
}

/// The ring is full and nothing is placed. When the directory becomes full as well, who waits is told at once; what makes room need not wait, and with room everything goes on.
#[test]
fn a_full_directory_sends_those_away_who_wait_for_room() {
    rt::run(|| async {
        let place = Place::new(1 << 20, PartitionsOptions::default());
        let partition = place.partition(0, &TopicSettings::default()).await;
        let held = place.placement.hold().await;
        let producers: Vec<_> = (0..40)
            .map(|_| {
                let partition = partition.clone();
                rt::spawn(async move { partition.append(&batch(1, 60_000), CLIENT).await })
            })
            .collect();
        rt::sleep(std::time::Duration::from_millis(50)).await;
        partition.disk().ran_full();
        let answers = rt::sync::join_all(producers).await;
        let taken = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(taken > 5 && taken < 20, "{taken} found room");
        assert!(answers.iter().skip(taken).all(|answer| *answer == Err(AppendError::Storage)), "{answers:?}");
        assert_eq!(partition.append(&batch(1, 10), CLIENT).await, Err(AppendError::Storage));

        assert_eq!(place.journal.check_room(&partition.id(), 60_000), Err(crate::disk::journal::JournalError::Full));
        assert_eq!(partition.delete_records(3).await.unwrap(), 3);
        // The controller waits for a new partition, and deletions wait for the controller.
        let settings = TopicSettings::default();
        rt::timeout(std::time::Duration::from_secs(5), place.partition(1, &settings)).await.expect("made without waiting for room");
        drop(held);
        place.place_everything().await;
        for _ in 0..300 {
            if partition.disk().takes_records() {
                break;
            }
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        let appending = append_durably(&partition, &batch(1, 10)).await;
        assert_eq!(appending.base_offset, taken as i64, "nothing of what was refused is in the log");
    });
}

/// As much of the ring waits for one of two directories as may, when that fails. The other's partitions have not waited for it before and go on now, lap after lap of the ring; who waits for
/// the failed one is told.
#[test]
fn a_directory_that_fails_with_its_share_of_the_ring_leaves_the_rest_to_the_others() {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
    rt::run(|| async {
        let place = Place::new(4 << 20, PartitionsOptions::default());
        let [bad, good] = ["bad", "good"].map(|name| place.path().join(name));
        [&bad, &good].iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let failing = place.partition_in((&bad, 1), 0, &TopicSettings::default()).await;
        let well = place.partition_in((&good, 2), 1, &TopicSettings::default()).await;
        let held = place.placement.hold().await;
        let producers: Vec<_> = (0..80)
            .map(|_| {
                let partition = failing.clone();
                rt::spawn(async move { partition.append(&batch(1, 60_000), CLIENT).await })
            })
            .collect();
        while place.journal.statistics().refusals == 0 {
            rt::yield_now().await;
        }
        rt::timeout(LIMIT, append_durably(&well, &batch(1, 60_000))).await.expect("there is room for the other directory");
        let waiting = [&bad, &good].map(|path| place.journal.waiting_bytes_in(path));
        assert!(waiting[0] > 1 << 20 && waiting[0] < 2 << 20 && waiting[1] < 100_000, "{waiting:?} bytes wait");

        // A plain file where its directory was: everything that is opened in it fails.
        std::fs::rename(failing.directory(), place.path().join("kept")).unwrap();
        std::fs::write(failing.directory(), b"").unwrap();
        drop(held);
        let laps = async {
            while place.journal.statistics().written_bytes < 6 * (4 << 20) {
                append_durably(&well, &batch(1, 60_000)).await;
            }
        };
        rt::timeout(LIMIT, laps).await.expect("the ring goes round");
        assert!(failing.failure.borrow().is_some() && well.failure.borrow().is_none() && place.journal.failure().is_none());
        let answers = rt::sync::join_all(producers).await;
        let taken = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(answers.iter().skip(taken).all(|answer| *answer == Err(AppendError::Storage)), "{answers:?}");
        assert_eq!(offsets(&failing, 0, 8 << 20).await.len(), taken, "what is durable is read from memory");
    });
}

#[test]
fn a_batch_that_no_ring_can_hold_is_refused() {
    rt::run(|| async {
        let place = Place::new(1 << 20, PartitionsOptions::default());
        let partition = place.partition(0, &TopicSettings::default()).await;
        let refused = partition.append(&batch(1, 2 << 20), CLIENT).await;
        assert!(matches!(refused, Err(AppendError::BatchLargerThanJournal { .. })));
        append_durably(&partition, &batch(1, 10)).await;
    });
}
