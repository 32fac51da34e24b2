//! Which part of a log is to be compacted, whether it is worth it, and which segments become one.

use crate::log::segments::{SegmentBook, Segments};

/// What a topic wants of compaction. From its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionRules {
    /// `cleanup.policy` holds `compact`.
    pub compacts: bool,
    /// `min.cleanable.dirty.ratio`
    pub min_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_lag_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
}

/// A log as compaction sees it.
#[derive(Clone, Copy, Debug)]
pub struct CompactionView<'a> {
    pub segments: &'a Segments,
    pub log_start_offset: i64,
    pub log_end_offset: i64,
    /// The last stable offset, which is no higher than the high watermark.
    pub last_stable_offset: i64,
    /// Up to where earlier rounds came.
    pub cleaned_to: Option<i64>,
    /// Segments from this base on are still being written, or something about them is.
    pub unsettled_from: i64,
}

/// The part of a log that a round may work on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Below this offset every key is there once at most.
    pub first_dirty: i64,
    /// Base of the first segment that is left alone.
    pub first_uncleanable: i64,
    pub clean_bytes: u64,
    pub cleanable_bytes: u64,
    /// A record has waited longer than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Choice {
    /// What a round could do for the log now.
    pub fn of(view: &CompactionView, rules: &CompactionRules, now_ms: i64) -> Choice {
        let books: Vec<SegmentBook> = view.segments.iter().copied().collect();
        let active_base = view.segments.active().base_offset;
        let first_dirty = match view.cleaned_to {
            Some(offset) if (view.log_start_offset..=view.log_end_offset).contains(&offset) => offset,
            _ => view.log_start_offset,
        };
        let dirty = segments_from(&books, first_dirty, active_base);
        let too_young = |book: &&SegmentBook| book.max_timestamp.is_some_and(|max| max.timestamp > now_ms.saturating_sub(rules.min_lag_ms));
        let young_base = if rules.min_lag_ms > 0 { dirty.iter().find(too_young).map(|book| book.base_offset) } else { None };
        let limit = view.last_stable_offset.min(active_base).min(view.unsettled_from).min(young_base.unwrap_or(i64::MAX)).max(first_dirty);
        // Only whole segments: the one that holds the limit is left alone.
        let first_uncleanable = segments_from(&books, limit, active_base).first().map_or(active_base, |book| book.base_offset);
        let size = |books: &[SegmentBook]| books.iter().map(|book| u64::from(book.size_bytes)).sum();
        let is_overdue = {
            let first_timestamps = dirty.iter().filter_map(|book| book.first_timestamp).filter(|timestamp| *timestamp > 0);
            first_timestamps.min().is_some_and(|earliest| earliest < now_ms.saturating_sub(rules.max_lag_ms.max(0)))
        };
        Choice {
            first_dirty,
            first_uncleanable,
            clean_bytes: size(segments_below(&books, first_dirty)),
            cleanable_bytes: size(segments_from(&books, first_dirty.min(first_uncleanable), first_uncleanable)),
            is_overdue,
        }
    }

    /// How much of what could be compacted has not been.
    pub fn dirty_ratio(&self) -> f64 {
        let total_bytes = self.clean_bytes + self.cleanable_bytes;
        if total_bytes == 0 { 0.0 } else { self.cleanable_bytes as f64 / total_bytes as f64 }
    }

    pub fn is_due(&self, rules: &CompactionRules) -> bool {
        rules.compacts && ((self.is_overdue && self.cleanable_bytes > 0) || self.dirty_ratio() > rules.min_dirty_ratio)
    }
}

/// Segments that hold offsets in [from, to): from the one in which `from` lies.
fn segments_from(books: &[SegmentBook], from: i64, to: i64) -> &[SegmentBook] {
    let first = books.partition_point(|book| book.base_offset <= from).saturating_sub(1);
    let end = books.partition_point(|book| book.base_offset < to);
    &books[first.min(end)..end]
}

/// Segments before the one in which `offset` lies, and that one as far as it begins below.
fn segments_below(books: &[SegmentBook], offset: i64) -> &[SegmentBook] {
    &books[..books.partition_point(|book| book.base_offset < offset)]
}

/// The segments below `end_offset` in groups that fit into one segment each. `first_uncleanable` is the base of the segment behind the last one that may be compacted.
pub fn groups(
    segments: &Segments,
    end_offset: i64,
    first_uncleanable: i64,
    segment_bytes: u64,
    index_bytes: impl Fn(&SegmentBook) -> u64,
    index_bytes_max: u64,
) -> Vec<Vec<SegmentBook>> {
    let mut groups: Vec<Vec<SegmentBook>> = Vec::new();
    let (mut size_bytes, mut group_index_bytes) = (0, 0);
    for book in segments.iter().take_while(|book| book.base_offset < end_offset.min(first_uncleanable)) {
        let last_offset = segments.end_offset(book.base_offset, first_uncleanable) - 1;
        let fits = groups.last().is_some_and(|group| {
            size_bytes + u64::from(book.size_bytes) <= segment_bytes
                && group_index_bytes + index_bytes(book) <= index_bytes_max
                && (book.size_bytes == 0 || last_offset - group[0].base_offset <= i64::from(i32::MAX))
        });
        if !fits {
            groups.push(Vec::new());
            (size_bytes, group_index_bytes) = (0, 0);
        }
        groups.last_mut().expect("there is one").push(*book);
        size_bytes += u64::from(book.size_bytes);
        group_index_bytes += index_bytes(book);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::time_index::TimeEntry;

    const RULES: CompactionRules =
        CompactionRules { compacts: true, min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 0 };

    /// Segments of ten offsets; each of these sizes, and timestamps as offsets.
    fn segments(sizes: &[u32]) -> Segments {
        let book = |(index, &size_bytes): (usize, &u32)| SegmentBook {
            size_bytes,
            first_timestamp: (size_bytes > 0).then_some(index as i64 * 10),
            max_timestamp: (size_bytes > 0).then_some(TimeEntry { timestamp: index as i64 * 10 + 9, offset: index as i64 * 10 + 9 }),
            ..SegmentBook::empty(index as i64 * 10, 0)
        };
        Segments::new(sizes.iter().enumerate().map(book).collect(), 0)
    }

    fn view(segments: &Segments) -> CompactionView<'_> {
        let end = segments.active().base_offset + 5;
        CompactionView {
            segments,
            log_start_offset: 0,
            log_end_offset: end,
            last_stable_offset: end,
            cleaned_to: None,
            unsettled_from: i64::MAX,
        }
    }

    fn found(view: &CompactionView, rules: &CompactionRules, now_ms: i64) -> (i64, i64, u64, u64) {
        let choice = Choice::of(view, rules, now_ms);
        (choice.first_dirty, choice.first_uncleanable, choice.clean_bytes, choice.cleanable_bytes)
    }

    #[test]
    fn whole_segments_below_the_active_one_are_cleanable() {
        let log = segments(&[100, 200, 300, 400]);
        let all = view(&log);
        assert_eq!(found(&all, &RULES, 0), (0, 30, 0, 600));
        assert_eq!(found(&CompactionView { cleaned_to: Some(20), ..all }, &RULES, 0), (20, 30, 300, 300));
        assert_eq!(found(&CompactionView { cleaned_to: Some(30), ..all }, &RULES, 0), (30, 30, 600, 0));
        assert_eq!(found(&CompactionView { last_stable_offset: 25, ..all }, &RULES, 0), (0, 20, 0, 300), "a transaction is open");
        assert_eq!(found(&CompactionView { unsettled_from: 10, ..all }, &RULES, 0), (0, 10, 0, 100));
        assert_eq!(found(&CompactionView { cleaned_to: Some(5), log_start_offset: 12, ..all }, &RULES, 0).0, 12);
        assert_eq!(found(&CompactionView { cleaned_to: Some(99), ..all }, &RULES, 0).0, 0, "it came from a log that was longer");
        let alone = segments(&[100]);
        assert_eq!(found(&view(&alone), &RULES, 0), (0, 0, 0, 0));
    }

    #[test]
    fn young_segments_wait_and_old_ones_do_not_wait_for_ever() {
        let log = segments(&[100, 200, 300, 400]);
        let lagging = CompactionRules { min_lag_ms: 50, ..RULES };
        assert_eq!(found(&view(&log), &lagging, 60), (0, 10, 0, 100), "the second segment is younger than 50 ms at 60");
        assert_eq!(found(&view(&log), &lagging, 1_000), (0, 30, 0, 600));

        let cleaned = CompactionView { cleaned_to: Some(20), ..view(&log) };
        let rules = CompactionRules { min_dirty_ratio: 0.9, max_lag_ms: 100, ..RULES };
        assert!(!Choice::of(&cleaned, &rules, 120).is_due(&rules));
        assert!(Choice::of(&cleaned, &rules, 121).is_due(&rules));
        assert!(!Choice::of(&cleaned, &rules, 121).is_due(&CompactionRules { compacts: false, ..rules }));
        assert_eq!(Choice::of(&cleaned, &RULES, 0).dirty_ratio(), 0.5);
        assert!(!Choice::of(&cleaned, &RULES, 0).is_due(&RULES), "more than the ratio, not as much");
    }

    #[test]
    fn small_segments_become_one_as_far_as_they_fit() {
        let log = segments(&[100, 200, 300, 0, 400, 50]);
        let bases = |segment_bytes, index_bytes_max| -> Vec<Vec<i64>> {
            let groups = groups(&log, 50, 50, segment_bytes, |book| u64::from(book.size_bytes) / 10, index_bytes_max);
            groups.iter().map(|group| group.iter().map(|book| book.base_offset).collect()).collect()
        };
        assert_eq!(bases(10_000, 1_000), [vec![0, 10, 20, 30, 40]]);
        assert_eq!(bases(300, 1_000), [vec![0, 10], vec![20, 30], vec![40]]);
        assert_eq!(bases(10_000, 50), [vec![0, 10], vec![20, 30], vec![40]]);
        assert_eq!(groups(&log, 11, 50, 10_000, |_| 0, 0).concat().len(), 2, "no further than the map reaches");
        let far = Segments::new(
            [(0, 1), (10, 1), (3_000_000_000, 1), (3_000_000_001, 0)]
                .map(|(base, size_bytes)| SegmentBook { size_bytes, ..SegmentBook::empty(base, 0) })
                .to_vec(),
            0,
        );
        assert_eq!(groups(&far, i64::MAX, 3_000_000_001, 100, |_| 0, 0).len(), 3, "relative offsets must fit into 31 bits");
    }
}
