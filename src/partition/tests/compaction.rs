//! Rounds of compaction over real segments: files exchanged under readers, producers and transactions, codecs, retention beside it, leftovers.

use std::collections::BTreeMap;

use super::*;
use crate::config::CleanupPolicy;
use crate::log::file_names::LogFileKind;
use crate::wire::batch::{BatchHeader, Compression, HEADER_BYTES, RecordIterator, decompress_all};

/// Small segments, compacted whenever anything is dirty.
fn settings() -> TopicSettings {
    TopicSettings {
        internal_segment_bytes: Some(2_000),
        index_interval_bytes: 300,
        cleanup_policy: CleanupPolicy { compact: true, delete: false },
        min_cleanable_dirty_ratio: 0.0,
        file_delete_delay_ms: 0,
        delete_retention_ms: 1_000,
        ..TopicSettings::default()
    }
}

/// The shard's own task rests; tests call for rounds.
fn resting() -> PartitionsOptions {
    let cleaner = CleanerOptions { backoff: std::time::Duration::from_secs(3_600), ..CleanerOptions::default() };
    PartitionsOptions { tail_bytes_max: 0, cleaner, ..PartitionsOptions::default() }
}

async fn put(partition: &Partition, records: &[(&str, Option<&str>)], options: BatchOptions) {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        let value = value.map(|value| value.repeat(100));
        builder.push(Some(key.as_bytes()), value.as_deref().map(str::as_bytes), 1_000, &[]);
    }
    append_durably(partition, &ValidatedBatch::internal(builder.build().unwrap())).await;
}

/// Every record: offset, key, value. Reads to the end through plans, as a client does.
async fn records(partition: &Partition) -> Vec<(i64, String, Option<String>)> {
    let mut all = Vec::new();
    let mut offset = partition.log_start_offset();
    while offset < partition.high_watermark() {
        let batches = partition.read_batches(offset, 3_000).await.unwrap();
        let Some((last, _)) = batches.last() else { break };
        offset = last.last_offset() + 1;
        for (info, batch) in &batches {
            let header = BatchHeader::parse(batch).unwrap();
            header.check_crc(batch).unwrap();
            let unpacked = decompress_all(header.compression().unwrap(), batch.slice(HEADER_BYTES..), 1 << 20).unwrap();
            for record in RecordIterator::new(&unpacked, header.record_count) {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                all.push((info.base_offset + i64::from(record.offset_delta), text(record.key.unwrap()), record.value.map(text)));
            }
        }
    }
    all
}

/// Places everything, waits until closed segments are written out, and compacts as often as there is something to do.
async fn compact(place: &Place, partition: &Partition, now_ms: i64) {
    place.place_everything().await;
    for _ in 0..300 {
        if partition.oldest_unwritten_segment() == i64::MAX {
            break;
        }
        rt::sleep(std::time::Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        place.partitions.compact_one(now_ms).await;
    }
}

#[test]
fn one_record_of_each_key_stays_in_every_codec_and_readers_find_it() {
    with_settings(settings(), resting(), |place, partition| async move {
        let mut expected = BTreeMap::new();
        for round in 0..40 {
            for (index, compression) in
                [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd].into_iter().enumerate()
            {
                let (key, value) = (format!("key-{}", (round * 5 + index) % 12), format!("value-{round}-{index}"));
                put(&partition, &[(&key, Some(&value)), ("shared", Some("x"))], BatchOptions { compression, ..Default::default() }).await;
                expected.insert(key, value.repeat(100));
            }
        }
        let before = partition.size_bytes();
        let active = partition.log.borrow().segments().active().base_offset;
        compact(&place, &partition, 5_000).await;
        assert!(partition.size_bytes() < before / 4, "{} of {before} bytes are left", partition.size_bytes());
        assert_eq!(partition.cleaning.cleaned_to.get(), Some(active));

        let left = records(&partition).await;
        let mut table = BTreeMap::new();
        for (_, key, value) in &left {
            table.insert(key.clone(), value.clone().unwrap());
        }
        assert_eq!(table.remove("shared"), Some("x".repeat(100)));
        assert_eq!(table, expected);
        assert!(left.is_sorted_by_key(|(offset, ..)| *offset) && left.last().unwrap().0 == 399);
        for (offset, ..) in &left {
            assert!(offsets(&partition, *offset, 1).await[0] <= *offset, "every record is found by its offset");
        }
        assert!(offsets(&partition, 1, 1).await[0] > 1, "what went is passed over");
        let names: Vec<String> =
            std::fs::read_dir(partition.directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|name| name.ends_with("cleaned") || name.ends_with("swap")), "{names:?}");

        // Nothing is dirty any more; with more to do it goes on.
        let layout = partition.layout.get();
        compact(&place, &partition, 5_000).await;
        assert_eq!(partition.layout.get(), layout);
        for _ in 0..20 {
            put(&partition, &[("shared", Some("y"))], BatchOptions::default()).await;
        }
        compact(&place, &partition, 5_000).await;
        assert!(partition.layout.get() > layout);
        assert_eq!(records(&partition).await.last().unwrap().2, Some("y".repeat(100)));
    });
}

/// A log that waits for its move to another data directory is compacted; only one whose files are on their way is let in peace.
#[test]
fn a_move_that_waits_does_not_keep_a_log_from_being_compacted() {
    with_settings(settings(), resting(), |place, partition| async move {
        let other = tempfile::tempdir().unwrap();
        let target = crate::disk::directories::DataDirectory { id: Uuid::from_u128(2), path: other.path().to_path_buf() };
        for is_held in [false, true] {
            let turn = place.partitions.move_turn().acquire(1).await;
            place.partitions.move_replica(&partition.id(), &target).await.unwrap();
            for _ in 0..30 {
                put(&partition, &[("same", Some("x"))], BatchOptions::default()).await;
            }
            let layout = partition.layout.get();
            partition.cleaning.is_held.set(is_held);
            compact(&place, &partition, 5_000).await;
            assert_eq!(partition.layout.get() == layout, is_held);
            partition.stop_moving().await;
            drop(turn);
        }
    });
}

/// A plan that was made before the exchange still reads its own bytes, and look-ups by time and offset work on the new segments.
#[test]
fn readers_under_way_keep_what_they_have() {
    with_settings(settings(), resting(), |place, partition| async move {
        for number in 0..30 {
            put(&partition, &[("same", Some(&format!("{number}")))], BatchOptions::default()).await;
        }
        place.place_everything().await;
        let plan = partition.plan_read(&ReadRequest::new(0, 4_000, Isolation::ReadUncommitted)).await.unwrap();
        let before = bytes_of(&plan).await;
        compact(&place, &partition, 5_000).await;
        assert_eq!(bytes_of(&plan).await, before);
        let found = partition.find_offset(OffsetTarget::Timestamp(1_000), Isolation::ReadUncommitted, -1).await.unwrap();
        assert_eq!(found.offset, records(&partition).await[0].0);
        assert_eq!(partition.find_offset(OffsetTarget::Earliest, Isolation::ReadUncommitted, -1).await.unwrap().offset, 0);
    });
}

/// Memory holds batches that are gone from the segments: nobody is shown them.
#[test]
fn the_tail_cache_forgets_what_was_compacted() {
    with_settings(settings(), PartitionsOptions { tail_bytes_max: 64 << 20, ..resting() }, |place, partition| async move {
        for number in 0..30 {
            put(&partition, &[("same", Some(&format!("{number}")))], BatchOptions::default()).await;
        }
        let active = partition.log.borrow().segments().active().base_offset;
        compact(&place, &partition, 5_000).await;
        let left = records(&partition).await;
        assert_eq!((left[0].0, left.len() as i64), (active - 1, 31 - active));
        put(&partition, &[("same", Some("more"))], BatchOptions::default()).await;
        assert_eq!(records(&partition).await.last().unwrap().0, 30);
    });
}

#[test]
fn tombstones_go_in_time_and_producers_are_remembered() {
    with_settings(settings(), resting(), |place, partition| async move {
        let producer = |sequence| BatchOptions { producer_id: 9, producer_epoch: 0, base_sequence: sequence, ..Default::default() };
        put(&partition, &[("gone", Some("1"))], producer(0)).await;
        put(&partition, &[("gone", None)], BatchOptions::default()).await;
        for number in 0..30 {
            put(&partition, &[("filler", Some(&format!("{number}")))], BatchOptions::default()).await;
        }
        compact(&place, &partition, 5_000).await;
        assert_eq!(records(&partition).await[0], (1, "gone".into(), None));
        for number in 0..30 {
            put(&partition, &[("filler", Some(&format!("{number}")))], BatchOptions::default()).await;
        }
        compact(&place, &partition, 6_000).await;
        assert!(records(&partition).await.iter().all(|(_, key, _)| key != "gone"));
        let first = partition.read_batches(0, 100).await.unwrap().remove(0).0;
        assert_eq!((first.base_offset, first.record_count, first.producer_id, first.last_sequence()), (0, 0, 9, 0));
        let batch = timed_batch(&[1_000], 10, producer(0));
        assert!(append_durably(&partition, &batch).await.is_duplicate);
    });
}

/// compact,delete: both at once; and a raised start while segments are exchanged harms neither.
#[test]
fn retention_and_compaction_share_a_log() {
    let both = TopicSettings { cleanup_policy: CleanupPolicy { compact: true, delete: true }, retention_ms: 1_000, ..settings() };
    with_settings(both, resting(), |place, partition| async move {
        for number in 0..40 {
            put(&partition, &[("a", Some("1")), (&format!("b{}", number % 3), Some("2"))], BatchOptions::default()).await;
        }
        compact(&place, &partition, 1_500).await;
        let left = records(&partition).await;
        assert!(left.len() < 20);
        partition.delete_records(70).await.unwrap();
        compact(&place, &partition, 1_600).await;
        assert!(records(&partition).await.iter().all(|(offset, ..)| *offset >= 68));
        place.partitions.let_go(3_000).await;
        assert_eq!(partition.log_start_offset(), partition.log_end_offset());
        put(&partition, &[("a", Some("3"))], BatchOptions::default()).await;
        assert_eq!(records(&partition).await.len(), 1);
    });
}

#[test]
fn a_damaged_batch_stops_the_compaction_of_its_log_alone() {
    with_settings(settings(), resting(), |place, partition| async move {
        for number in 0..30 {
            put(&partition, &[("a", Some(&format!("{number}")))], BatchOptions::default()).await;
        }
        compact_only_placement(&place, &partition).await;
        let path = partition.directory().join(LogFileKind::Log.name(0));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let size_bytes = partition.size_bytes();
        place.partitions.compact_one(5_000).await;
        assert_eq!(partition.cleaning.not_before_ms.get(), i64::MAX, "damage stays");
        assert_eq!(partition.size_bytes(), size_bytes);
        assert!(!place.partitions.compact_one(5_000).await);
        put(&partition, &[("a", Some("it goes on"))], BatchOptions::default()).await;
    });
}

async fn compact_only_placement(place: &Place, partition: &Partition) {
    place.place_everything().await;
    for _ in 0..300 {
        if partition.oldest_unwritten_segment() == i64::MAX {
            return;
        }
        rt::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Something stands where an index is to be written: the round fails, leaves nothing behind, and the next one, a minute later, does its work. Damage is not tried again.
#[test]
fn a_round_that_failed_is_tried_again_later() {
    with_settings(settings(), resting(), |place, partition| async move {
        for round in 0..60 {
            put(&partition, &[("key", Some(&round.to_string()))], BatchOptions::default()).await;
        }
        let obstacle = partition.directory().join("00000000000000000000.timeindex.cleaned");
        std::fs::create_dir(&obstacle).unwrap();
        let before = records(&partition).await;
        compact(&place, &partition, 5_000).await;
        assert_eq!((partition.cleaning.cleaned_to.get(), records(&partition).await), (None, before));
        std::fs::remove_dir(&obstacle).unwrap();
        let names: Vec<String> = crate::rt::file::list_directory_blocking(partition.directory()).unwrap();
        assert!(!names.iter().any(|name| name.ends_with("cleaned") || name.ends_with("swap")), "{names:?}");
        compact(&place, &partition, 64_999).await;
        assert_eq!(partition.cleaning.cleaned_to.get(), None, "not yet");
        compact(&place, &partition, 65_000).await;
        assert!(partition.cleaning.cleaned_to.get().is_some());
        let left = records(&partition).await;
        assert!(left.len() < 60 && left.last().unwrap().0 == 59);
    });
}
