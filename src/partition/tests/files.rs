//! What lies in a partition's directory after placement, rolls, deletion and a clean stop.

use super::*;
use crate::log::file_names::LogFileKind;
use crate::log::offset_index::OffsetIndex;
use crate::log::producer_snapshot;
use crate::log::time_index::TimeIndex;

fn read_file(partition: &Partition, name: &str) -> Vec<u8> {
    std::fs::read(partition.directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every index entry points at the batch that it names, the time index ends with the largest timestamp, every segment with its last batch, and nothing else lies about.
pub fn check_files(partition: &Partition) {
    let books: Vec<_> = partition.log.borrow().segments().iter().copied().collect();
    for book in books.iter().filter(|book| book.size_bytes > 0) {
        check_segment(partition, book.base_offset, book.max_timestamp.unwrap().timestamp);
    }
    let end_offset = partition.log_end_offset();
    for name in names(&partition.directory()) {
        if let Some((kind, offset)) = LogFileKind::parse(&name) {
            let belongs = books.iter().any(|book| book.base_offset == offset);
            assert!(belongs || kind == LogFileKind::ProducerSnapshot && offset == end_offset, "{name} lies about");
        }
    }
}

fn check_segment(partition: &Partition, base_offset: i64, max_timestamp: i64) {
    let log = read_file(partition, &LogFileKind::Log.name(base_offset));
    let mut batches = Vec::new();
    let mut at = 0;
    while at < log.len() {
        let info = BatchInfo::decode(&log[at..]).expect("batches up to the last byte");
        assert!(info.is_intact(&log[at..]));
        batches.push((at as u32, info.last_offset()));
        at += info.size_bytes as usize;
    }
    let index_bytes = read_file(partition, &LogFileKind::OffsetIndex.name(base_offset));
    let index = OffsetIndex::checked(base_offset, &index_bytes, log.len() as u32);
    assert_eq!(index.bytes().len(), index_bytes.len(), "nothing but entries");
    let interval_bytes = partition.log.borrow().rules().index_interval_bytes as u32;
    let mut last_position = 0;
    for number in 0..index.len() {
        let entry = index.entry(number);
        assert!(batches.contains(&(entry.position, entry.offset)), "{entry:?}");
        let largest_batch = batches.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0);
        assert!(entry.position - last_position <= interval_bytes + 2 * largest_batch, "no gap before {entry:?}");
        last_position = entry.position;
    }
    let time_bytes = read_file(partition, &LogFileKind::TimeIndex.name(base_offset));
    let times = TimeIndex::checked(base_offset, &time_bytes);
    assert_eq!((times.bytes().len(), times.last().unwrap().timestamp), (time_bytes.len(), max_timestamp));
}

#[test]
fn a_clean_stop_leaves_the_files_that_kafka_expects() {
    let settings = TopicSettings { internal_segment_bytes: Some(9_000), index_interval_bytes: 1_000, ..TopicSettings::default() };
    with_settings(settings, PartitionsOptions::default(), |place, partition| async move {
        let empty = place.partition(1, &TopicSettings::default()).await;
        for number in 0..25 {
            let options = BatchOptions { producer_id: 3, producer_epoch: 0, base_sequence: number, ..BatchOptions::default() };
            append_durably(&partition, &timed_batch(&[i64::from(number) * 10], 800, options)).await;
        }
        place.partitions.shut_down().await.unwrap();

        let bases: Vec<i64> = partition.log.borrow().segments().iter().map(|book| book.base_offset).collect();
        assert_eq!(bases, [0, 10, 20]);
        check_files(&partition);
        let snapshot = producer_snapshot::decode(&read_file(&partition, "00000000000000000025.snapshot")).unwrap();
        assert_eq!(snapshot.get(&3).unwrap().last_sequence(), 24);
        assert_eq!(read_file(&partition, "leader-epoch-checkpoint"), b"0\n1\n5 0\n");
        let expected = "00000000000000000000.index 00000000000000000000.log 00000000000000000000.timeindex \
                        00000000000000000010.index 00000000000000000010.log 00000000000000000010.snapshot 00000000000000000010.timeindex \
                        00000000000000000020.index 00000000000000000020.log 00000000000000000020.snapshot 00000000000000000020.timeindex \
                        00000000000000000025.snapshot leader-epoch-checkpoint partition.metadata";
        assert_eq!(names(&partition.directory()).join(" "), expected);
        assert_eq!(names(&empty.directory()), ["partition.metadata"]);
        let refused = partition.append(&batch(1, 1), CLIENT).await;
        assert_eq!(refused, Err(crate::log::AppendError::NotLeader));
        assert_eq!(offsets(&partition, 3, 1).await, [3], "reads go on");
    });
}

/// Index entries of a busy partition leave memory in blocks, and reads find them in the file.
#[test]
fn index_entries_move_from_memory_to_the_file() {
    let settings = TopicSettings { index_interval_bytes: 1, ..TopicSettings::default() };
    let options = PartitionsOptions { tail_bytes_max: 0, ..PartitionsOptions::default() };
    with_settings(settings, options, |place, partition| async move {
        for _ in 0..600 {
            partition.append(&batch(1, 10), CLIENT).await.unwrap();
        }
        place.place_everything().await;
        let in_memory = || partition.log.borrow().indexes().offset_index.unwritten().len();
        for _ in 0..200 {
            if in_memory() < 4096 {
                break;
            }
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(partition.log.borrow().indexes().offset_index.file_entries(), 599);
        assert_eq!(read_file(&partition, "00000000000000000000.index").len(), 599 * 8);
        for from in [0, 1, 300, 598, 599] {
            assert_eq!(offsets(&partition, from, 1).await, [from]);
        }
        append_durably(&partition, &batch(1, 10)).await;
        assert_eq!(offsets(&partition, 600, 1).await, [600]);
    });
}

#[test]
fn a_deleted_partition_frees_its_name_at_once_and_its_files_after_their_delay() {
    let settings = TopicSettings { file_delete_delay_ms: 20, ..TopicSettings::default() };
    with_settings(settings, PartitionsOptions::default(), |place, partition| async move {
        append_durably(&partition, &idempotent(0, 1)).await;
        place.place_everything().await;
        assert_eq!(partition.producers().await.len(), 1);
        place.partitions.delete(&partition.id()).await.unwrap();
        assert!(partition.producers().await.is_empty(), "its producers went aside, not with the last who knows the partition");
        assert!(place.partitions.get(&partition.id()).is_none());
        assert!(!partition.directory().exists());

        let again = NewPartition {
            id: TopicIdPartition::new(Uuid::from_u128(78), 0),
            topic: Arc::from("orders"),
            data_directory: place.path().into(),
            directory_id: Uuid::from_u128(1),
        };
        let again = place.partitions.create(again, &TopicSettings::default()).await.unwrap();
        again.become_leader(0);
        append_durably(&again, &batch(2, 10)).await;
        assert_eq!((again.high_watermark(), again.directory()), (2, partition.directory()));
        for _ in 0..200 {
            if !names(place.path()).iter().any(|name| name.ends_with("-delete")) {
                break;
            }
            rt::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(!names(place.path()).iter().any(|name| name.ends_with("-delete")));
        place.placement.place_now().await.unwrap();
        assert_eq!(names(&again.directory()), ["00000000000000000000.log", "partition.metadata"]);
    });
}
