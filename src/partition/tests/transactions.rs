//! Open, committed and aborted transactions as readers of committed records see them: from memory, from files, and after a start.

use super::*;
use crate::disk::checkpoint::{PartitionRecord, PlacedEnd};
use crate::disk::recovery::RecoveredPartition;
use crate::log::transaction_index::AbortedTransaction;
use crate::log::{AppendError, EndMarker};

const MARKER: Origin = Origin::Coordinator { transaction_version: 0 };

async fn send(partition: &Partition, producer_id: i64, sequence: i32) -> i64 {
    let options = BatchOptions { producer_id, producer_epoch: 0, base_sequence: sequence, transactional: true, ..BatchOptions::default() };
    let guard = partition.verification_guard(producer_id, 0);
    let appending = partition.append_verified(&timed_batch(&[1_000], 500, options), CLIENT, guard).await.unwrap();
    partition.wait_durable(appending.sequence).await.unwrap();
    appending.base_offset
}

async fn end(partition: &Partition, producer_id: i64, is_commit: bool) {
    let marker = EndMarker { is_commit, coordinator_epoch: 1 }.build(producer_id, 0, 2_000);
    let appending = partition.append(&ValidatedBatch::internal(marker), MARKER).await.unwrap();
    partition.wait_durable(appending.sequence).await.unwrap();
}

/// Producers and first offsets of the aborted transactions that a reader of committed records is told of.
async fn aborted(partition: &Partition, from: i64, max_bytes: usize) -> Vec<(i64, i64)> {
    let plan = partition.plan_read(&ReadRequest::new(from, max_bytes, Isolation::ReadCommitted)).await.unwrap();
    plan.aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect()
}

#[test]
fn an_open_transaction_holds_the_readers_of_committed_records_back() {
    on_shard(|_place, partition| async move {
        append_durably(&partition, &batch(1, 10)).await;
        assert_eq!(send(&partition, 7, 0).await, 1);
        append_durably(&partition, &batch(1, 10)).await;
        assert_eq!((partition.high_watermark(), partition.last_stable_offset()), (3, 1));
        let plan = partition.plan_read(&ReadRequest::new(0, 10_000, Isolation::ReadCommitted)).await.unwrap();
        assert_eq!((plan.seen.visible_end, plan.last_stable_offset), (1, 1));
        let waiter = FetchWaiter::new(1_000_000);
        partition.watch(&waiter, &partition.sees(true));
        append_durably(&partition, &batch(1, 10)).await;
        assert!(!waiter.has_fired());
        end(&partition, 7, true).await;
        assert!(waiter.has_fired(), "everything behind the transaction is to be read now");
        assert_eq!(partition.last_stable_offset(), 5);
        assert_eq!(aborted(&partition, 0, 10_000).await, []);
    });
}

#[test]
fn a_batch_without_a_guard_is_refused() {
    on_shard(|_place, partition| async move {
        let options = BatchOptions { producer_id: 7, producer_epoch: 0, base_sequence: 0, transactional: true, ..BatchOptions::default() };
        let batch = timed_batch(&[1_000], 10, options);
        let refused = partition.append_verified(&batch, CLIENT, None).await;
        assert_eq!(refused, Err(AppendError::NotInTransaction { producer_id: 7 }));
        assert_eq!(partition.log_end_offset(), 0);
    });
}

/// Aborts are told from memory, from the index file, and by the next life, whether they were written before it or not.
#[test]
fn aborted_transactions_are_told_wherever_they_lie() {
    let settings = TopicSettings { internal_segment_bytes: Some(3_000), index_interval_bytes: 1, ..TopicSettings::default() };
    let options = PartitionsOptions { tail_bytes_max: 0, ..PartitionsOptions::default() };
    with_settings(settings.clone(), options, move |place, partition| async move {
        let mut expected = Vec::new();
        for number in 0..20 {
            let first = send(&partition, number, 0).await;
            append_durably(&partition, &batch(1, 10)).await;
            end(&partition, number, number % 3 != 0).await;
            if number % 3 == 0 {
                expected.push((number, first));
            }
        }
        assert_eq!(aborted(&partition, 0, 100_000).await, expected);
        assert_eq!(aborted(&partition, 0, 1).await, expected[..1], "only what overlaps the records that are read");
        place.place_everything().await;
        assert_eq!(aborted(&partition, 0, 100_000).await, expected);

        // A crash now: the facts of a checkpoint carry what no flushed index holds.
        let mut encoded = Vec::new();
        let placed = PlacedEnd { end_offset: partition.log_end_offset(), ..partition.placed.get() };
        PartitionRecord { facts: partition.facts(), placed, next_entry: 0 }.encode(&mut encoded);
        let facts = PartitionRecord::decode(&mut Bytes::from(encoded)).unwrap().facts;
        let directory = partition.directory().to_path_buf();
        let recovered =
            RecoveredPartition { facts, directory, placed, indexed_to: (placed.segment_base, placed.size_bytes), moving_to: None };
        let next_life = Place::new(4 << 20, options);
        let reopened = next_life.partitions.open(recovered, Arc::from("orders"), &settings);
        reopened.become_leader(6);
        assert_eq!(aborted(&reopened, 0, 100_000).await, expected);

        next_life.partitions.shut_down().await.unwrap();
        assert_eq!(reopened.aborted.borrow().len(), 0, "a clean stop leaves them in the index files");
        assert_eq!(aborted(&reopened, 0, 100_000).await, expected);
    });
}

/// A reader has read an index file, and upkeep moves the aborts from memory into that file before the reader goes on.
#[test]
fn aborted_transactions_are_told_to_a_reader_that_upkeep_overtakes() {
    let settings = TopicSettings { internal_segment_bytes: Some(3_000), ..TopicSettings::default() };
    with_settings(settings, PartitionsOptions::default(), |place, partition| async move {
        let mut expected = Vec::new();
        for number in 0..20 {
            expected.push((number, send(&partition, number, 0).await));
            end(&partition, number, false).await;
        }
        let bounds = (0, partition.last_stable_offset());
        let mut reading = std::pin::pin!(partition.aborted_between(bounds.0, bounds.1));
        let begun = std::future::poll_fn(|context| std::task::Poll::Ready(reading.as_mut().poll(context))).await;
        assert!(begun.is_pending(), "the file is being read");

        let first_segment = partition.aborted.borrow()[0].0;
        place.place_everything().await;
        while partition.aborted.borrow().iter().any(|(base, _)| *base == first_segment) {
            rt::sleep(std::time::Duration::from_millis(1)).await;
        }
        let told = |entries: Vec<AbortedTransaction>| -> Vec<(i64, i64)> {
            entries.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect()
        };
        assert_eq!(told(reading.await.unwrap()), expected);
        assert_eq!(told(partition.aborted_between(bounds.0, bounds.1).await.unwrap()), expected, "nothing old is kept");
    });
}

/// One durable write for all partitions of a transaction on this shard, not one for each.
#[test]
fn the_markers_of_a_transaction_share_a_group_of_the_journal() {
    on_shard(|place, _| async move {
        let mut partitions = Vec::new();
        for number in 1..=50 {
            partitions.push(place.partition(number, &TopicSettings::default()).await);
            send(partitions.last().unwrap(), 7, 0).await;
        }
        let marker = ValidatedBatch::internal(EndMarker { is_commit: true, coordinator_epoch: 1 }.build(7, 0, 2_000));
        let mut sequences = Vec::new();
        for partition in &partitions {
            sequences.push(partition.append(&marker, MARKER).await.unwrap().sequence);
        }
        assert!(sequences.iter().all(|sequence| *sequence == sequences[0]), "{sequences:?}");
        place.journal.wait_durable(sequences[0]).await.unwrap();
        assert!(partitions.iter().all(|partition| partition.last_stable_offset() == 2));
    });
}

/// Records of an open transaction that are deleted leave nothing below the log's start, for any reader.
#[test]
fn deleted_records_of_an_open_transaction_hold_nobody_below_the_start() {
    on_shard(|_place, partition| async move {
        send(&partition, 7, 0).await;
        append_durably(&partition, &batch(3, 10)).await;
        assert_eq!(partition.delete_records(2).await.unwrap(), 2);
        assert_eq!((partition.log_start_offset(), partition.last_stable_offset(), partition.high_watermark()), (2, 2, 4));
        end(&partition, 7, false).await;
        assert_eq!(partition.last_stable_offset(), 5);
    });
}
