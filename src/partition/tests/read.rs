//! Plans from memory and from files: limits, the first batch, what is not durable stays unseen.

use proptest::prelude::*;

use super::*;

/// Small segments and dense indexes, so that a few records cross every border.
fn small_segments() -> TopicSettings {
    TopicSettings { internal_segment_bytes: Some(20_000), index_interval_bytes: 500, ..TopicSettings::default() }
}

#[test]
fn reads_cross_segments_files_and_memory() {
    with_settings(
        small_segments(),
        PartitionsOptions { tail_bytes_max: 0, ..PartitionsOptions::default() },
        |place, partition| async move {
            for round in 0..3 {
                for _ in 0..40 {
                    append_durably(&partition, &batch(1, 300 + round)).await;
                }
                if round < 2 {
                    place.place_everything().await;
                }
            }
            assert!(partition.log.borrow().segments().count() > 2);
            let all: Vec<i64> = (0..120).collect();
            assert_eq!(offsets(&partition, 0, 1 << 20).await, all);
            for from in [1, 39, 40, 79, 80, 81, 119] {
                assert_eq!(offsets(&partition, from, 1 << 20).await, all[from as usize..]);
            }
            assert_eq!(offsets(&partition, 120, 1 << 20).await, [0i64; 0]);
        },
    );
}

#[test]
fn offsets_outside_the_log_are_refused() {
    on_shard(|_place, partition| async move {
        append_durably(&partition, &batch(2, 10)).await;
        for offset in [-1, 3] {
            assert!(matches!(partition.read_batches(offset, 100).await, Err(Refusal::OffsetOutOfRange)));
        }
        // Appended but not durable: there is such an offset, and nothing to be seen.
        partition.try_append(&batch(1, 10), CLIENT).unwrap();
        assert_eq!(offsets(&partition, 3, 100).await, [0i64; 0]);
        let mut request = ReadRequest::new(0, 100, Isolation::ReadUncommitted);
        request.current_leader_epoch = 4;
        assert!(matches!(partition.plan_read(&request).await, Err(Refusal::FencedLeaderEpoch)));
        request.current_leader_epoch = 6;
        assert!(matches!(partition.plan_read(&request).await, Err(Refusal::UnknownLeaderEpoch)));
        request.current_leader_epoch = 5;
        assert_eq!(partition.plan_read(&request).await.unwrap().high_watermark, 2);
    });
}

#[test]
fn the_first_batch_comes_whole_and_the_limit_holds_for_the_rest() {
    let options = PartitionsOptions { tail_bytes_max: 0, ..PartitionsOptions::default() };
    with_settings(small_segments(), options, |place, partition| async move {
        for _ in 0..10 {
            append_durably(&partition, &batch(1, 1_000)).await;
        }
        let size = batch(1, 1_000).info.size_bytes as usize;
        for is_placed in [false, true] {
            if is_placed {
                place.place_everything().await;
                assert_eq!(partition.tail.first(), None, "everything comes from files now");
            }
            for (max_bytes, whole_first_batch, expected) in
                [(10, true, 1), (10, false, 0), (size, false, 1), (2 * size, true, 2), (2 * size + 5, true, 2), (3 * size - 1, true, 2)]
            {
                let request = ReadRequest { whole_first_batch, ..ReadRequest::new(2, max_bytes, Isolation::ReadUncommitted) };
                let plan = partition.plan_read(&request).await.unwrap();
                assert_eq!(plan.size_bytes, expected * size, "limit {max_bytes}");
            }
        }
    });
}

/// A follower's question: the epoch of its last record, and where it stands.
#[test]
fn a_diverging_epoch_is_told() {
    on_shard(|_place, partition| async move {
        append_durably(&partition, &batch(4, 10)).await;
        partition.become_leader(8);
        append_durably(&partition, &batch(2, 10)).await;
        let ask = async |epoch, offset| {
            let request = ReadRequest { last_fetched_epoch: epoch, ..ReadRequest::new(offset, 100, Isolation::ReadUncommitted) };
            partition.plan_read(&request).await.map(|plan| plan.diverging)
        };
        assert_eq!(ask(8, 6).await.unwrap(), None);
        assert_eq!(ask(5, 4).await.unwrap(), None);
        assert_eq!(ask(5, 6).await.unwrap(), Some((5, 4)), "the epoch ended here earlier");
        assert_eq!(ask(7, 6).await.unwrap(), Some((5, 4)), "an epoch that this log never had");
        assert!(matches!(ask(9, 6).await, Err(Refusal::OffsetOutOfRange)));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is placed, cached or only appended, every read gives the bytes that were appended, from the right batch on, whole, within its limit.
    #[test]
    fn reads_give_what_was_appended(
        steps in proptest::collection::vec((1..4usize, 1..3_000usize, 0..8u8), 1..60),
        tail_bytes_max in prop_oneof![Just(0), Just(40_000usize), Just(64 << 20)],
        reads in proptest::collection::vec((0.0..1.0f64, 1..20_000usize), 8),
    ) {
        let options = PartitionsOptions { tail_bytes_max, ..PartitionsOptions::default() };
        with_settings(small_segments(), options, move |place, partition| async move {
            let mut stored: Vec<(i64, usize)> = Vec::new();
            for (records, value_bytes, step) in steps {
                let batch = batch(records, value_bytes);
                let appending = append_durably(&partition, &batch).await;
                stored.push((appending.base_offset, batch.bytes.len()));
                if step == 0 {
                    place.place_everything().await;
                }
            }
            let end = partition.high_watermark();
            for (share, max_bytes) in reads {
                let from = (end as f64 * share) as i64;
                let plan = partition.plan_read(&ReadRequest::new(from, max_bytes, Isolation::ReadUncommitted)).await.unwrap();
                let mut rest = bytes_of(&plan).await;
                let first = stored.partition_point(|(base_offset, _)| *base_offset <= from) - 1;
                let mut expected = 0;
                for (number, (base_offset, size_bytes)) in stored[first..].iter().enumerate() {
                    if number > 0 && expected + size_bytes > max_bytes {
                        break;
                    }
                    expected += size_bytes;
                    let info = BatchInfo::decode(&rest).expect("a batch begins");
                    let bytes = rest.split_to(*size_bytes);
                    assert_eq!(info.base_offset, *base_offset);
                    assert!(info.is_intact(&bytes));
                    if number == 0 && *size_bytes > max_bytes {
                        break;
                    }
                }
                assert!(rest.is_empty(), "{} bytes more than expected from {from} with {max_bytes}", rest.len());
            }
        });
    }
}

/// Far more segments than files may be open: reading all of them, again and again, keeps to the bound.
#[test]
fn open_files_are_bounded() {
    const OPEN_MAX: usize = 8;
    let settings = TopicSettings { internal_segment_bytes: Some(2_000), ..TopicSettings::default() };
    let options = PartitionsOptions { tail_bytes_max: 0, index_bytes_max: 1_000, files_open_max: OPEN_MAX, ..PartitionsOptions::default() };
    with_settings(settings.clone(), options, move |place, _| async move {
        let mut partitions = Vec::new();
        for number in 1..=20 {
            let partition = place.partition(number, &settings).await;
            for _ in 0..3 {
                append_durably(&partition, &batch(1, 1_500)).await;
            }
            partitions.push(partition);
        }
        place.place_everything().await;
        for round in 0..2 {
            for partition in &partitions {
                for offset in 0..3 {
                    assert_eq!(offsets(partition, offset, 1).await, [offset]);
                }
                assert!(segments_open_below(place.path()) <= OPEN_MAX, "{} files are open", segments_open_below(place.path()));
            }
            assert!(segments_open_below(place.path()) > 1, "files stay open for the next reader, in round {round}");
        }
    });
}

/// Segment files that this process has open below a directory.
fn segments_open_below(directory: &Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    open.filter(|path| path.starts_with(directory) && path.extension().is_some_and(|extension| extension == "log")).count()
}
