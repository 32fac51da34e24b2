//! Whether every acknowledged record was read back: once, at the offset that its acknowledgement named, in the order in which its producer sent, unchanged. Pure book-keeping.
//!
//! The [`Ledger`] holds what was acknowledged, a [`Checker`] what one reader saw. Both keep a bit a record and one line for each run of neighbours, so that thirty million records fit.

use serde::Serialize;

use crate::payload::{Payload, RecordId};

/// What reading back found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Acknowledged, over all readers.
    pub acknowledged: u64,
    /// Read, over all readers; records whose acknowledgement never came may be among them.
    pub read: u64,
    pub missing: u64,
    pub twice: u64,
    pub out_of_order: u64,
    pub changed: u64,
    /// At another offset than acknowledged.
    pub misplaced: u64,
}

impl Verdict {
    pub fn is_whole(&self) -> bool {
        self.missing + self.twice + self.out_of_order + self.changed + self.misplaced == 0
    }

    pub fn add(&mut self, other: &Verdict) {
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.missing += other.missing;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
        self.changed += other.changed;
        self.misplaced += other.misplaced;
    }

    pub fn describe(&self) -> String {
        format!(
            "{} missing, {} twice, {} out of order, {} changed, {} at another offset, of {} acknowledged",
            self.missing, self.twice, self.out_of_order, self.changed, self.misplaced, self.acknowledged
        )
    }
}

/// Records with neighbouring ids at neighbouring offsets.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    offset: i64,
    id: u64,
    count: u64,
}

#[derive(Clone, Debug, Default)]
struct Places {
    runs: Vec<Run>,
}

impl Places {
    fn add(&mut self, offset: i64, id: RecordId, count: u64) {
        if let Some(last) = self.runs.last_mut()
            && last.offset + last.count as i64 == offset
            && last.id + last.count == id.0
        {
            last.count += count;
            return;
        }
        self.runs.push(Run { offset, id: id.0, count });
    }
}

#[derive(Clone, Debug, Default)]
struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    fn expect(&mut self, numbers: usize) {
        self.words.resize(self.words.len().max(numbers / 64 + 1), 0);
    }

    /// Sets it; whether it was set before.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize((word + 1).max(self.words.len() * 2), 0);
        }
        let was_set = self.words[word] & bit != 0;
        self.words[word] |= bit;
        self.count += u64::from(!was_set);
        was_set
    }

    fn missing_in(&self, other: &Bits) -> u64 {
        let other = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(other).map(|(mine, theirs)| u64::from((mine & !theirs).count_ones())).sum()
    }
}

/// Room for so many, in memory that the kernel has given already: the first touch of a page costs more than a microsecond.
fn reserve<T: Clone + Default>(list: &mut Vec<T>, count: usize) {
    if count > list.len() {
        let length = list.len();
        list.resize(count, T::default());
        list.truncate(length);
    }
}

/// For so many records in so many requests, as a schedule promises them; without one the books grow as they must.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    pub records: usize,
    pub requests: usize,
}

impl Expected {
    fn reserve(&self, by_producer: &mut [Bits], by_partition: &mut [Places]) {
        let producers = by_producer.len().max(1);
        by_producer.iter_mut().for_each(|bits| bits.expect(self.records.min(RESERVED_MAX) / producers));
        let partitions = by_partition.len().max(1);
        by_partition.iter_mut().for_each(|places| reserve(&mut places.runs, self.requests.min(RESERVED_MAX) / partitions + 1));
    }
}

/// Beyond it books grow: a run of hours need not begin with gigabytes.
const RESERVED_MAX: usize = 16 << 20;

/// What the broker has acknowledged.
#[derive(Clone, Debug)]
pub struct Ledger {
    by_producer: Vec<Bits>,
    by_partition: Vec<Places>,
}

impl Ledger {
    pub fn new(producers: usize, partitions: i32) -> Ledger {
        Ledger { by_producer: vec![Bits::default(); producers], by_partition: vec![Places::default(); partitions as usize] }
    }

    pub fn expect(&mut self, expected: Expected) {
        expected.reserve(&mut self.by_producer, &mut self.by_partition);
    }

    /// `count` records from `first` on were acknowledged, from `base_offset` on.
    pub fn acknowledge(&mut self, partition: i32, base_offset: i64, first: RecordId, count: u64) {
        for number in first.number()..first.number() + count {
            self.by_producer[first.producer()].set(number);
        }
        self.by_partition[partition as usize].add(base_offset, first, count);
    }

    /// Takes in what another part of the same run had acknowledged, from producers of other numbers.
    pub fn merge(&mut self, other: &Ledger) {
        for (mine, theirs) in self.by_producer.iter_mut().zip(&other.by_producer) {
            if mine.count == 0 {
                *mine = theirs.clone();
            }
        }
        for (mine, theirs) in self.by_partition.iter_mut().zip(&other.by_partition) {
            mine.runs.extend_from_slice(&theirs.runs);
        }
    }

    pub fn producers(&self) -> usize {
        self.by_producer.len()
    }

    pub fn records(&self) -> u64 {
        self.by_producer.iter().map(|bits| bits.count).sum()
    }
}

/// What one reader of all partitions has seen.
#[derive(Clone, Debug)]
pub struct Checker {
    payload: Payload,
    seen: Vec<Bits>,
    by_partition: Vec<Places>,
    /// By partition and producer: the number after the last one seen.
    next_number: Vec<Vec<u64>>,
    verdict: Verdict,
}

impl Checker {
    pub fn new(payload: &Payload, producers: usize, partitions: i32) -> Checker {
        Checker {
            payload: payload.clone(),
            seen: vec![Bits::default(); producers],
            by_partition: vec![Places::default(); partitions as usize],
            next_number: vec![vec![0; producers]; partitions as usize],
            verdict: Verdict::default(),
        }
    }

    pub fn expect(&mut self, expected: Expected) {
        expected.reserve(&mut self.seen, &mut self.by_partition);
    }

    /// Takes in a record; gives its due time if it is one of this run's, unchanged.
    pub fn see(&mut self, partition: i32, offset: i64, value: &[u8]) -> Option<u64> {
        self.verdict.read += 1;
        let known = self.payload.check(value).filter(|(id, _)| id.producer() < self.seen.len());
        let Some((id, due_ns)) = known else {
            self.verdict.changed += 1;
            return None;
        };
        if self.seen[id.producer()].set(id.number()) {
            self.verdict.twice += 1;
            return None;
        }
        let next_number = &mut self.next_number[partition as usize][id.producer()];
        if id.number() < *next_number {
            self.verdict.out_of_order += 1;
        }
        *next_number = (*next_number).max(id.number() + 1);
        self.by_partition[partition as usize].add(offset, id, 1);
        Some(due_ns)
    }

    /// Bytes that should have been records and are none.
    pub fn see_damage(&mut self) {
        self.verdict.changed += 1;
    }

    /// Whether everything acknowledged has been seen.
    pub fn has_all_of(&self, ledger: &Ledger) -> bool {
        ledger.by_producer.iter().zip(&self.seen).all(|(acknowledged, seen)| acknowledged.missing_in(seen) == 0)
    }

    /// Different records seen so far; cheap, for deciding when `has_all_of` is worth asking.
    pub fn distinct_records(&self) -> u64 {
        self.seen.iter().map(|bits| bits.count).sum()
    }

    pub fn verdict(&self, ledger: &Ledger) -> Verdict {
        let missing = ledger.by_producer.iter().zip(&self.seen).map(|(acknowledged, seen)| acknowledged.missing_in(seen)).sum();
        let misplaced = ledger.by_partition.iter().zip(&self.by_partition).map(|(acknowledged, seen)| misplaced(acknowledged, seen)).sum();
        Verdict { acknowledged: ledger.records(), missing, misplaced, ..self.verdict }
    }
}

/// Records that both know, at different offsets. A record that only one of them knows is the other counts' business.
fn misplaced(acknowledged: &Places, seen: &Places) -> u64 {
    let mut by_id = seen.runs.clone();
    by_id.sort_unstable_by_key(|run| run.id);
    let mut count = 0;
    for run in &acknowledged.runs {
        let mut at = by_id.partition_point(|seen| seen.id + seen.count <= run.id);
        while let Some(seen) = by_id.get(at).filter(|seen| seen.id < run.id + run.count) {
            let first = seen.id.max(run.id);
            let end = (seen.id + seen.count).min(run.id + run.count);
            let wanted = run.offset + (first - run.id) as i64;
            let found = seen.offset + (first - seen.id) as i64;
            count += if wanted == found { 0 } else { end - first };
            at += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two producers, two partitions, ten records each; what a reader was given is altered by `alter`.
    fn verdict_after(alter: impl FnOnce(&mut Vec<(i32, i64, Vec<u8>)>)) -> Verdict {
        let payload = Payload::new(64);
        let mut ledger = Ledger::new(2, 2);
        let mut log = Vec::new();
        for producer in 0..2 {
            ledger.acknowledge(producer as i32, 100, RecordId::new(producer, 0), 4);
            ledger.acknowledge(producer as i32, 104, RecordId::new(producer, 4), 6);
            for number in 0..10 {
                let mut value = vec![0; 64];
                payload.write(&mut value, RecordId::new(producer, number), number);
                log.push((producer as i32, 100 + number as i64, value));
            }
        }
        alter(&mut log);
        let mut checker = Checker::new(&payload, 2, 2);
        for (partition, offset, value) in &log {
            checker.see(*partition, *offset, value);
        }
        assert_eq!(checker.has_all_of(&ledger), checker.verdict(&ledger).missing == 0);
        checker.verdict(&ledger)
    }

    #[test]
    fn a_log_as_it_was_acknowledged_is_whole() {
        let verdict = verdict_after(|_| ());
        assert!(verdict.is_whole());
        assert_eq!((verdict.acknowledged, verdict.read), (20, 20));
    }

    #[test]
    fn one_missing_record_is_seen() {
        assert_eq!(verdict_after(|log| drop(log.remove(13))), Verdict { acknowledged: 20, read: 19, missing: 1, ..Verdict::default() });
        assert_eq!(verdict_after(|log| log.truncate(18)).missing, 2);
    }

    #[test]
    fn a_record_that_comes_twice_is_seen_wherever_it_lies() {
        let verdict = verdict_after(|log| log.push((1, 200, log[3].2.clone())));
        assert_eq!((verdict.twice, verdict.missing), (1, 0));
    }

    #[test]
    fn two_records_that_changed_places_are_seen() {
        let verdict = verdict_after(|log| {
            let third = log[2].2.clone();
            log[2].2 = log[3].2.clone();
            log[3].2 = third;
        });
        assert_eq!((verdict.out_of_order, verdict.misplaced, verdict.missing), (1, 2, 0));
    }

    #[test]
    fn a_changed_record_is_seen_and_is_missing() {
        let verdict = verdict_after(|log| log[5].2[40] ^= 0x10);
        assert_eq!((verdict.changed, verdict.missing), (1, 1));
        let strange = verdict_after(|log| log.push((0, 300, vec![7; 64])));
        assert_eq!((strange.changed, strange.missing), (1, 0));
    }

    #[test]
    fn offsets_other_than_acknowledged_are_seen() {
        let verdict = verdict_after(|log| log.iter_mut().for_each(|(_, offset, _)| *offset += 1));
        assert_eq!((verdict.misplaced, verdict.missing), (20, 0));
    }

    #[test]
    fn a_record_without_acknowledgement_may_be_there() {
        let verdict = verdict_after(|log| {
            let mut value = vec![0; 64];
            Payload::new(64).write(&mut value, RecordId::new(0, 10), 10);
            log.push((0, 110, value));
        });
        assert!(verdict.is_whole());
        assert_eq!(verdict.read, 21);
    }
}
