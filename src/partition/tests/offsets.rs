//! Look-ups by time and epoch, and DeleteRecords.

use super::*;
use crate::wire::batch::Compression;

async fn at(partition: &Partition, timestamp: i64) -> (i64, i64, i32) {
    let target = OffsetTarget::from_timestamp(timestamp).unwrap();
    let found = partition.find_offset(target, Isolation::ReadUncommitted, -1).await.unwrap();
    (found.offset, found.timestamp, found.leader_epoch)
}

#[test]
fn offsets_are_found_by_time_inside_compressed_batches() {
    let settings = TopicSettings { internal_segment_bytes: Some(4_000), index_interval_bytes: 300, ..TopicSettings::default() };
    let options = PartitionsOptions { tail_bytes_max: 0, ..PartitionsOptions::default() };
    with_settings(settings, options, |place, partition| async move {
        assert_eq!((at(&partition, 0).await, at(&partition, -3).await), ((-1, -1, -1), (-1, -1, -1)));
        for (round, compression) in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd].into_iter().enumerate()
        {
            let begin = round as i64 * 100;
            for step in [0, 30, 60] {
                let timestamps = [begin + step, begin + step + 20, begin + step + 10];
                append_durably(&partition, &timed_batch(&timestamps, 400, BatchOptions { compression, ..BatchOptions::default() })).await;
            }
            if round == 2 {
                place.place_everything().await;
            }
        }
        assert_eq!(at(&partition, 0).await, (0, 0, 5));
        assert_eq!(at(&partition, 15).await, (1, 20, 5), "the first in the order of offsets");
        assert_eq!(at(&partition, 135).await, (13, 150, 5));
        assert_eq!(at(&partition, 441).await, (40, 450, 5));
        assert_eq!(at(&partition, 480).await, (43, 480, 5));
        assert_eq!(at(&partition, 481).await, (-1, -1, -1));
        assert_eq!(at(&partition, -3).await, (43, 480, 5));
        assert_eq!(at(&partition, -1).await, (45, -1, 5));
        assert_eq!(at(&partition, -2).await, (0, -1, 5));
        assert_eq!(at(&partition, -4).await, (0, -1, 5));
        assert_eq!(at(&partition, -5).await, (-1, -1, -1));
        assert_eq!(OffsetTarget::from_timestamp(-7), None);
    });
}

#[test]
fn the_broker_s_time_stamp_is_that_of_every_record_of_its_batch() {
    on_shard(|_place, partition| async move {
        let options = BatchOptions { timestamp_type: crate::wire::batch::TimestampType::LogAppendTime, ..BatchOptions::default() };
        append_durably(&partition, &timed_batch(&[5, 9], 10, options)).await;
        assert_eq!(at(&partition, 7).await, (0, 9, 5));
    });
}

#[test]
fn deleted_records_are_gone_for_readers_and_their_segments_from_the_disk() {
    let settings = TopicSettings { internal_segment_bytes: Some(1_000), ..TopicSettings::default() };
    with_settings(settings, PartitionsOptions::default(), |place, partition| async move {
        for _ in 0..10 {
            append_durably(&partition, &batch(2, 350)).await;
        }
        place.place_everything().await;
        assert!(matches!(partition.delete_records(21).await, Err(Refusal::OffsetOutOfRange)));
        assert!(matches!(partition.delete_records(-2).await, Err(Refusal::OffsetOutOfRange)));
        assert_eq!(partition.delete_records(7).await.unwrap(), 7);
        assert_eq!(partition.delete_records(3).await.unwrap(), 7, "it never goes back");
        assert_eq!((partition.log_start_offset(), at(&partition, -2).await.0), (7, 7));
        assert!(matches!(partition.read_batches(6, 100).await, Err(Refusal::OffsetOutOfRange)));
        assert_eq!(offsets(&partition, 7, 100).await, [6], "the batch that holds it");
        let segments = || {
            let names = std::fs::read_dir(partition.directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut logs: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
            logs.sort();
            logs
        };
        for _ in 0..200 {
            if segments().len() == 7 {
                break;
            }
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!((segments().len(), segments()[0].as_str()), (7, "00000000000000000006.log"));
        assert_eq!(partition.delete_records(-1).await.unwrap(), 20);
        assert_eq!(offsets(&partition, 20, 100).await, [0i64; 0]);
        append_durably(&partition, &batch(1, 10)).await;
        assert_eq!(offsets(&partition, 20, 100).await, [20]);
    });
}

#[test]
fn epochs_end_where_the_next_begins() {
    on_shard(|_place, partition| async move {
        append_durably(&partition, &batch(3, 10)).await;
        partition.become_leader(6);
        partition.become_leader(9);
        append_durably(&partition, &batch(2, 10)).await;
        let end = |epoch| partition.epoch_end(epoch, -1).map(|end| (end.leader_epoch, end.end_offset)).unwrap();
        assert_eq!((end(5), end(6), end(9), end(10), end(4)), ((5, 3), (5, 3), (9, 5), (-1, -1), (4, 0)));
        partition.try_append(&batch(2, 10), CLIENT).unwrap();
        assert_eq!(end(9), (9, 5), "what is not durable does not count");
        assert!(matches!(partition.epoch_end(9, 8), Err(Refusal::FencedLeaderEpoch)));
    });
}
