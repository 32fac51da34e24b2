//! Tests of the reader: what it finds in a segment is what a plain scan finds, with right, sparse and wrong indexes.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::disk::journal::group::BLOCK_BYTES;
use crate::log::offset_index::OffsetIndexTail;
use crate::log::segment_scan::tests::encoded;
use crate::rt;

/// Batches of `counts` records; every third is large, so that walks have to pass over some.
fn segment(counts: &[i32]) -> (Vec<u8>, Vec<FoundBatch>) {
    let (mut file, mut batches, mut offset) = (Vec::new(), Vec::new(), 1_000);
    for (index, &count) in counts.iter().enumerate() {
        let payload_bytes = if index % 3 == 2 { 20_000 } else { 40 + index };
        let position = file.len() as u32;
        file.extend(encoded(offset, 1, count, payload_bytes));
        batches.push(FoundBatch { position, info: BatchInfo::decode(&file[position as usize..]).unwrap() });
        offset += i64::from(count);
    }
    (file, batches)
}

struct Place {
    _directory: tempfile::TempDir,
    view: SegmentView,
}

fn place(file: &[u8], index: &[u8], is_active: bool) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let mut padded = file.to_vec();
    padded.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
    std::fs::write(directory.path().join(LogFileKind::Log.name(1_000)), &padded).unwrap();
    std::fs::write(directory.path().join(LogFileKind::OffsetIndex.name(1_000)), index).unwrap();
    let partition = TopicIdPartition::new(Uuid::from_u128(1), 0);
    let view = SegmentView::new(partition, Rc::from(directory.path()), 1_000, file.len() as u32, is_active);
    Place { _directory: directory, view }
}

/// Index entries for the batches that `chosen` picks.
fn index(batches: &[FoundBatch], chosen: impl Fn(usize) -> bool) -> OffsetIndexTail {
    let mut tail = OffsetIndexTail::new(1_000, 0);
    let is_indexed = |(number, batch): &(usize, &FoundBatch)| chosen(*number) && batch.position > 0;
    for (_, batch) in batches.iter().enumerate().filter(is_indexed) {
        tail.push(OffsetEntry { offset: batch.info.last_offset(), position: batch.position });
    }
    tail
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever entries the index has (all, some, none, in the file or in memory), the batch with an offset is found, and so is the last border before a limit.
    #[test]
    fn batches_are_found_with_any_index(counts in proptest::collection::vec(1..4i32, 1..60), mask in any::<u64>(), in_memory in 0..60usize, is_active in any::<bool>()) {
        rt::run(move || async move {
            let (file, batches) = segment(&counts);
            let in_file = index(&batches, |number| number < in_memory && mask >> number & 1 == 1);
            let recent = index(&batches, |number| number >= in_memory && mask >> number & 1 == 1);
            let place = place(&file, in_file.unwritten(), is_active);
            let reader = Reader::new(4, 1 << 20, true);
            for batch in &batches {
                for offset in [batch.info.base_offset, batch.info.last_offset()] {
                    let found = reader.find_batch(&place.view, Some(recent.view()), offset).await.unwrap();
                    assert_eq!(found.as_ref(), Some(batch));
                }
            }
            assert_eq!(reader.find_batch(&place.view, None, batches.last().unwrap().info.last_offset() + 1).await.unwrap(), None);
            for (start, limit) in [(0, 0), (0, 150), (0, file.len() / 2), (0, file.len()), (0, usize::MAX >> 33)] {
                let end = reader.find_end(&place.view, Some(recent.view()), start, limit as u32).await.unwrap();
                let borders = batches.iter().map(|batch| batch.position).chain([file.len() as u32]);
                assert_eq!(Some(end), borders.filter(|&border| border as usize <= limit).max());
            }
        });
    }
}

/// What was read before a change must not stay for those who read after it, and another segment's change is none.
#[test]
fn an_index_that_changes_while_it_is_read_is_read_again() {
    let partition = TopicIdPartition::new(Uuid::from_u128(1), 0);
    let key = |base_offset| IndexKey { partition, base_offset, layout: 0, kind: LogFileKind::TransactionIndex };
    let cache = IndexCache::new(1 << 20);
    let (changing, resting) = (cache.begin_read(key(0)), cache.begin_read(key(100)));
    cache.forget(&partition, Some(0));
    changing.finish(Rc::new(vec![1]));
    resting.finish(Rc::new(vec![2]));
    assert_eq!((cache.get(&key(0)), cache.get(&key(100))), (None, Some(Rc::new(vec![2]))));

    cache.begin_read(key(0)).finish(Rc::new(vec![3]));
    assert_eq!(cache.get(&key(0)), Some(Rc::new(vec![3])));
    drop(cache.begin_read(key(0)));
    assert!(cache.reads.borrow().is_empty(), "one that nobody waits for any more costs nothing");
}

#[test]
fn a_wrong_index_entry_misleads_nobody() {
    rt::run(|| async {
        let (file, batches) = segment(&[2; 30]);
        let mut wrong = OffsetIndexTail::new(1_000, 0);
        wrong.push(OffsetEntry { offset: 1_005, position: 3 });
        wrong.push(OffsetEntry { offset: 1_009, position: batches[7].position });
        let place = place(&file, wrong.unwritten(), false);
        let reader = Reader::new(4, 1 << 20, true);
        for batch in &batches {
            assert_eq!(reader.find_batch(&place.view, None, batch.info.last_offset()).await.unwrap().as_ref(), Some(batch));
        }
        let end = reader.find_end(&place.view, None, 0, batches[20].position + 5).await.unwrap();
        assert_eq!(end, batches[20].position);
    });
}

#[test]
fn the_last_block_of_an_active_segment_stays_out_of_the_page_cache() {
    rt::run(|| async {
        let (file, batches) = segment(&[1; 300]);
        let place = place(&file, &[], true);
        let reader = Reader::new(4, 1 << 20, true);
        assert!(place.view.settled_bytes.is_multiple_of(4096) && place.view.settled_bytes < place.view.size_bytes);
        let last = batches.last().unwrap();
        let bytes = reader.read(&place.view, last.position, last.info.size_bytes).await.unwrap();
        assert_eq!(bytes[..], file[last.position as usize..]);
        let across = reader.read(&place.view, place.view.settled_bytes - 10, 20).await.unwrap();
        assert_eq!(across[..], file[place.view.settled_bytes as usize - 10..][..20]);
        let beyond = reader.read(&place.view, place.view.size_bytes - 4, 4096).await.unwrap();
        assert_eq!(beyond[..], file[file.len() - 4..]);
    });
}

#[test]
fn damage_is_named() {
    rt::run(|| async {
        let (mut file, batches) = segment(&[1; 5]);
        file[batches[1].position as usize + 16] = 9;
        let place = place(&file, &[], false);
        let error = Reader::new(4, 1 << 20, true).find_batch(&place.view, None, 1_004).await.unwrap_err();
        assert!(matches!(error, ReadError::Damaged { position, .. } if position == batches[1].position), "{error}");
    });
}
