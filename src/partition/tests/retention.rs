//! Segments that have served their time, by age and by size; the active one too; files on their way out.

use std::time::Duration;

use super::*;
use crate::config::CleanupPolicy;
use crate::log::file_names::{DELETED_SUFFIX, LogFileKind};

/// Segments of two batches each; nothing is kept by time beyond 1,000 ms.
fn settings() -> TopicSettings {
    TopicSettings { internal_segment_bytes: Some(1_000), retention_ms: 1_000, file_delete_delay_ms: 0, ..TopicSettings::default() }
}

/// Ten batches of one record each, with timestamps 0, 100, 200 and so on.
async fn fill(place: &Place, partition: &Partition) {
    for number in 0..10 {
        append_durably(partition, &timed_batch(&[number * 100], 400, BatchOptions::default())).await;
    }
    place.place_everything().await;
}

fn files(partition: &Partition, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let names = std::fs::read_dir(partition.directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| is_meant(name)).collect();
    names.sort();
    names
}

fn bases(partition: &Partition) -> Vec<i64> {
    files(partition, |name| name.ends_with(".log")).iter().map(|name| LogFileKind::parse(name).unwrap().1).collect()
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..300 {
        if what() {
            return;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not happen");
}

#[test]
fn segments_go_by_age_and_the_active_one_last() {
    with_settings(settings(), PartitionsOptions::default(), |place, partition| async move {
        fill(&place, &partition).await;
        assert_eq!(bases(&partition), [0, 2, 4, 6, 8]);
        place.partitions.let_go(1_300).await;
        assert_eq!(partition.log_start_offset(), 2, "the second segment's youngest is exactly as old as is allowed");
        until(|| bases(&partition) == [2, 4, 6, 8]).await;
        place.partitions.let_go(1_700).await;
        assert_eq!(partition.log_start_offset(), 6);
        assert!(matches!(partition.read_batches(5, 100).await, Err(Refusal::OffsetOutOfRange)));
        assert_eq!(offsets(&partition, 6, 10_000).await, [6, 7, 8, 9]);

        place.partitions.let_go(10_000).await;
        assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (10, 10), "records of any age go when all have expired");
        place.place_everything().await;
        until(|| bases(&partition) == [10]).await;
        append_durably(&partition, &batch(1, 10)).await;
        assert_eq!(offsets(&partition, 10, 100).await, [10]);
        place.partitions.let_go(1_000).await;
        assert_eq!(partition.log_start_offset(), 10);
        place.place_everything().await;
        assert_eq!(bases(&partition), [10], "the new segment is where the log goes on");
    });
}

#[test]
fn segments_go_by_size_and_settings_change_while_it_runs() {
    with_settings(TopicSettings { retention_ms: -1, ..settings() }, PartitionsOptions::default(), |place, partition| async move {
        fill(&place, &partition).await;
        place.partitions.let_go(1 << 60).await;
        assert_eq!(partition.log_start_offset(), 0);
        let size_bytes = partition.size_bytes() as i64;
        let changed = |retention_bytes| TopicSettings { retention_ms: -1, retention_bytes, ..settings() };
        partition.apply_settings(&changed(size_bytes * 3 / 5 - 1));
        place.partitions.let_go(0).await;
        assert_eq!(partition.log_start_offset(), 4);
        let compacted = CleanupPolicy { compact: true, delete: false };
        partition.apply_settings(&TopicSettings { cleanup_policy: compacted, ..changed(0) });
        place.partitions.let_go(0).await;
        assert_eq!(partition.log_start_offset(), 4, "a compacted topic keeps its keys");
    });
}

#[test]
fn files_bear_the_name_of_deleted_ones_until_their_delay_is_over() {
    with_settings(TopicSettings { file_delete_delay_ms: 300, ..settings() }, PartitionsOptions::default(), |place, partition| async move {
        fill(&place, &partition).await;
        place.partitions.let_go(1_300).await;
        until(|| bases(&partition) == [2, 4, 6, 8]).await;
        let deleted = files(&partition, |name| name.ends_with(DELETED_SUFFIX));
        assert!(deleted.contains(&"00000000000000000000.log.deleted".to_owned()), "{deleted:?}");
        until(|| files(&partition, |name| name.ends_with(DELETED_SUFFIX)).is_empty()).await;
    });
}

/// Records without timestamps age by their file.
#[test]
fn without_timestamps_a_segment_is_as_old_as_its_file() {
    with_settings(settings(), PartitionsOptions::default(), |place, partition| async move {
        for _ in 0..4 {
            append_durably(&partition, &timed_batch(&[-1], 400, BatchOptions::default())).await;
        }
        place.partitions.let_go(1 << 60).await;
        assert_eq!(partition.log_start_offset(), 0, "nothing is in a file yet");
        place.place_everything().await;
        place.partitions.let_go(rt::wall_clock_ms()).await;
        assert_eq!(partition.log_start_offset(), 0);
        place.partitions.let_go(rt::wall_clock_ms() + 60_000).await;
        assert_eq!(partition.log_start_offset(), 4);
    });
}

/// The task of the shard does it by itself, and what an earlier life has left behind goes with it.
#[test]
fn the_shard_looks_by_itself() {
    let moment = Duration::from_millis(20);
    let options =
        PartitionsOptions { retention: RetentionTimes { interval: moment, initial_delay: moment }, ..PartitionsOptions::default() };
    with_settings(settings(), options, |place, partition| async move {
        partition.is_swept.set(false);
        for leftover in ["00000000000000000009.log.deleted", "00000000000000000003.timeindex.cleaned", "00000000000000000003.log.swap"] {
            std::fs::write(partition.directory().join(leftover), "x").unwrap();
        }
        fill(&place, &partition).await;
        until(|| partition.log_start_offset() == 10).await;
        place.place_everything().await;
        until(|| bases(&partition) == [10]).await;
        until(|| files(&partition, |name| name.ends_with("deleted") || name.ends_with("cleaned") || name.ends_with("swap")).is_empty())
            .await;
    });
}
