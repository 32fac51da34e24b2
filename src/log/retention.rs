//! Retention: which segments a log lets go of, and where it begins then.
//!
//! Kafka's rules (UnifiedLog.deleteOldSegments): whole segments go, the oldest first, and only what lies below the high watermark. By size while what remains is no less than
//! `retention.bytes`, by time once the largest timestamp of a segment is older than `retention.ms`; a record from the future holds its segment, and all later ones, until its time
//! has passed. The active segment ages too: when all of it has expired, a new one is begun and it goes. An empty active segment stays.

use super::segments::{SegmentBook, Segments};

/// What a topic wants to keep. From its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionRules {
    /// `cleanup.policy` holds `delete`; otherwise only what lies below the log's start goes.
    pub deletes: bool,
    /// `retention.ms`; negative: no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no limit.
    pub retention_bytes: i64,
}

/// A log as retention sees it.
#[derive(Clone, Copy, Debug)]
pub struct RetentionView<'a> {
    pub segments: &'a Segments,
    pub log_start_offset: i64,
    pub log_end_offset: i64,
    pub high_watermark: i64,
}

/// Segments that have served their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Where the log begins without them.
    pub log_start_offset: i64,
    /// The active segment is among them: another has to begin first, at the log's end.
    pub rolls: bool,
    pub segments: usize,
    pub size_bytes: u64,
    /// Of `segments`, those that went by size rather than by time.
    pub by_size: usize,
}

/// What is to go now. `modified_ms` says when a segment whose records bear no timestamps was last written to; what cannot be said has not expired.
pub fn expired(
    view: &RetentionView,
    rules: &RetentionRules,
    now_ms: i64,
    modified_ms: impl Fn(&SegmentBook) -> Option<i64>,
) -> Option<Expired> {
    if !rules.deletes {
        return None;
    }
    let books = living(view);
    let end_of = |index: usize| books.get(index + 1).map_or(view.log_end_offset, |next| next.base_offset);
    let is_deletable = |index: usize| {
        let is_empty_active = index + 1 == books.len() && books[index].size_bytes == 0;
        end_of(index) <= view.high_watermark && !is_empty_active
    };
    let deletable = (0..books.len()).take_while(|&index| is_deletable(index)).count();
    let by_size = too_many(&books[..deletable], &books, rules.retention_bytes);
    let by_time = books[by_size..deletable].iter().take_while(|book| is_too_old(book, rules.retention_ms, now_ms, &modified_ms)).count();
    let segments = by_size + by_time;
    let last = segments.checked_sub(1)?;
    Some(Expired {
        log_start_offset: end_of(last),
        rolls: segments == books.len(),
        segments,
        size_bytes: size_bytes(&books[..segments]),
        by_size,
    })
}

/// Segments whose age only their files can tell: no record of them bears a timestamp. Mostly none.
pub fn without_timestamps(view: &RetentionView, rules: &RetentionRules) -> Vec<i64> {
    if !rules.deletes || rules.retention_ms < 0 {
        return Vec::new();
    }
    living(view).iter().filter(|book| book.size_bytes > 0 && book.max_timestamp.is_none()).map(|book| book.base_offset).collect()
}

/// Without those that lie below the log's start: they are on their way out already.
fn living(view: &RetentionView) -> Vec<SegmentBook> {
    let books: Vec<SegmentBook> = view.segments.iter().copied().collect();
    let first = books.partition_point(|book| book.base_offset <= view.log_start_offset).saturating_sub(1);
    books[first..].to_vec()
}

fn size_bytes(books: &[SegmentBook]) -> u64 {
    books.iter().map(|book| u64::from(book.size_bytes)).sum()
}

/// How many of the oldest may go so that no less than `retention_bytes` remains.
fn too_many(deletable: &[SegmentBook], all: &[SegmentBook], retention_bytes: i64) -> usize {
    let Ok(retention_bytes) = u64::try_from(retention_bytes) else { return 0 };
    let Some(mut excess_bytes) = size_bytes(all).checked_sub(retention_bytes) else { return 0 };
    let fits = |book: &&SegmentBook| {
        let left = excess_bytes.checked_sub(u64::from(book.size_bytes));
        excess_bytes = left.unwrap_or(excess_bytes);
        left.is_some()
    };
    deletable.iter().take_while(fits).count()
}

fn is_too_old(book: &SegmentBook, retention_ms: i64, now_ms: i64, modified_ms: impl Fn(&SegmentBook) -> Option<i64>) -> bool {
    if retention_ms < 0 {
        return false;
    }
    let largest = book.max_timestamp.map(|max| max.timestamp).or_else(|| modified_ms(book));
    largest.is_some_and(|largest| now_ms.saturating_sub(largest) > retention_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::time_index::TimeEntry;

    /// A segment for each (base offset, bytes, largest timestamp).
    fn segments(books: &[(i64, u32, Option<i64>)]) -> Segments {
        let book = |&(base_offset, size_bytes, timestamp): &(i64, u32, Option<i64>)| SegmentBook {
            size_bytes,
            max_timestamp: timestamp.map(|timestamp| TimeEntry { timestamp, offset: base_offset }),
            ..SegmentBook::empty(base_offset, 0)
        };
        Segments::new(books.iter().map(book).collect(), 0)
    }

    fn rules(retention_ms: i64, retention_bytes: i64) -> RetentionRules {
        RetentionRules { deletes: true, retention_ms, retention_bytes }
    }

    /// New start, whether it rolls, segments; the log ends at 40, all of it below the high watermark.
    fn found(segments: &Segments, rules: RetentionRules, now_ms: i64) -> Option<(i64, bool, usize)> {
        let view = RetentionView { segments, log_start_offset: 0, log_end_offset: 40, high_watermark: 40 };
        expired(&view, &rules, now_ms, |_| None).map(|expired| (expired.log_start_offset, expired.rolls, expired.segments))
    }

    #[test]
    fn time_takes_the_oldest_until_one_is_young_and_the_active_one_last_of_all() {
        let log = segments(&[(0, 100, Some(50)), (10, 100, Some(90)), (20, 100, Some(70)), (30, 100, Some(100))]);
        assert_eq!(found(&log, rules(50, -1), 100), None, "exactly as old as allowed");
        assert_eq!(found(&log, rules(50, -1), 101), Some((10, false, 1)));
        assert_eq!(found(&log, rules(25, -1), 100), Some((10, false, 1)), "the third is old, but behind a young one");
        assert_eq!(found(&log, rules(0, -1), 101), Some((40, true, 4)));
        assert_eq!(found(&log, rules(-1, -1), i64::MAX), None);
        let empty_active = segments(&[(0, 100, Some(50)), (40, 0, None)]);
        assert_eq!(found(&empty_active, rules(0, 0), 101), Some((40, false, 1)));
        assert_eq!(found(&segments(&[(40, 0, None)]), rules(0, 0), 101), None);
    }

    #[test]
    fn a_record_from_the_future_holds_what_follows() {
        let log = segments(&[(0, 100, Some(5_000)), (10, 100, Some(1)), (20, 100, Some(1))]);
        assert_eq!(found(&log, rules(10, -1), 1_000), None);
        assert_eq!(found(&log, rules(10, -1), 5_011), Some((40, true, 3)));
    }

    #[test]
    fn size_leaves_no_less_than_it_was_told_to() {
        let log = segments(&[(0, 100, Some(1)), (10, 100, Some(1)), (20, 100, Some(1)), (30, 50, Some(1))]);
        assert_eq!(found(&log, rules(-1, 350), 9), None);
        assert_eq!(found(&log, rules(-1, 251), 9), None, "299 would be too many, 250 too few");
        assert_eq!(found(&log, rules(-1, 250), 9), Some((10, false, 1)));
        assert_eq!(found(&log, rules(-1, 149), 9), Some((20, false, 2)));
        assert_eq!(found(&log, rules(-1, 0), 9), Some((40, true, 4)));
        assert_eq!(found(&log, RetentionRules { deletes: false, ..rules(0, 0) }, 9), None);
    }

    #[test]
    fn nothing_at_or_above_the_high_watermark_goes() {
        let log = segments(&[(0, 100, Some(1)), (10, 100, Some(1)), (20, 100, Some(1))]);
        let view = RetentionView { segments: &log, log_start_offset: 0, log_end_offset: 40, high_watermark: 19 };
        assert_eq!(expired(&view, &rules(0, 0), 9, |_| None).unwrap().log_start_offset, 10);
        let view = RetentionView { high_watermark: 20, ..view };
        assert_eq!(expired(&view, &rules(0, 0), 9, |_| None).unwrap().log_start_offset, 20);
    }

    #[test]
    fn without_timestamps_the_file_s_own_time_counts() {
        let log = segments(&[(0, 100, None), (10, 100, Some(1)), (20, 0, None)]);
        let view = RetentionView { segments: &log, log_start_offset: 0, log_end_offset: 20, high_watermark: 20 };
        assert_eq!(without_timestamps(&view, &rules(5, -1)), [0]);
        assert_eq!(expired(&view, &rules(5, -1), 100, |_| None), None);
        assert_eq!(expired(&view, &rules(5, -1), 100, |_| Some(96)), None);
        assert_eq!(expired(&view, &rules(5, -1), 100, |_| Some(94)).unwrap().segments, 2);
    }

    proptest! {
        /// What goes is a run of the oldest segments below the high watermark; a second look at what is left finds nothing more.
        #[test]
        fn what_is_left_stays(
            sizes in proptest::collection::vec((1..200u32, 0..100i64), 1..12),
            watermark in 0..130i64, retention_ms in -1..120i64, retention_bytes in -1..1_500i64,
        ) {
            let books: Vec<_> = sizes.iter().enumerate().map(|(index, (size, time))| (index as i64 * 10, *size, Some(*time))).collect();
            let end = books.len() as i64 * 10;
            let rules = rules(retention_ms, retention_bytes);
            let all = segments(&books);
            let view = RetentionView { segments: &all, log_start_offset: 0, log_end_offset: end, high_watermark: watermark.min(end) };
            if let Some(expired) = expired(&view, &rules, 100, |_| None) {
                prop_assert!(expired.log_start_offset <= view.high_watermark);
                prop_assert_eq!(expired.rolls, expired.log_start_offset == end);
                let mut left = books[expired.segments..].to_vec();
                if expired.rolls {
                    left.push((end, 0, None));
                }
                let left = segments(&left);
                let view = RetentionView { segments: &left, log_start_offset: expired.log_start_offset, ..view };
                prop_assert_eq!(super::expired(&view, &rules, 100, |_| None), None);
                if expired.by_size > 0 && retention_bytes >= 0 {
                    let remaining = size_bytes(&all.iter().copied().skip(expired.by_size).collect::<Vec<_>>());
                    prop_assert!(remaining >= retention_bytes as u64);
                }
            }
        }
    }
}
