//! What was promised, and the comparison with what is there.
//!
//! Every record can be told from its index: key, value and timestamp follow from it, and a header names it. What a producer was told and what a reader has seen are one promise:
//! from then on that offset holds that record, until retention or compaction may take it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use harness::batch::{Batch, Codec, Record};
use harness::random::mix;

/// Keys of a compacted partition.
const KEYS: u64 = 16;

/// Batches that a producer sends before it hears of the oldest of them, as clients do: a broker remembers so many of each producer.
const IN_FLIGHT_MAX: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each batch is sent once: it may be there or not if nobody has answered.
    Plain,
    /// With sequences, and sent again until it is answered: nothing is missing and nothing is there twice.
    Idempotent,
    /// As `Plain`, small, and retention takes the oldest segments.
    Expiring,
    /// As `Expiring`, but records go only when somebody asks for it (DeleteRecords).
    Trimmed,
    /// As `Plain`, with keys that come back.
    Compacted,
    /// As `Plain`, in large batches.
    Bulk,
    /// As `Plain`, acknowledged before it is on stable storage: a cut may take the end of it that was not flushed, and nothing else.
    Weak,
}

/// A batch on its way.
#[derive(Clone)]
pub struct Sent {
    pub first: u64,
    pub count: u64,
    pub bytes: Bytes,
    /// On whichever connection.
    is_answered: bool,
}

/// One partition's past.
#[derive(Clone)]
pub struct History {
    pub topic: String,
    pub partition: i32,
    pub kind: Kind,
    seed: u64,
    producer_id: i64,
    /// Of record 0; the others follow by the millisecond. Near now: producers are forgotten, and records deleted, by the time that their batches carry.
    base_timestamp: i64,
    /// Index of the next record to be written for the first time.
    pub next: u64,
    /// In their order, those of which the producer has not heard itself: an answer to a repetition does not count, because the batch that was sent first may still be on its way.
    in_flight: VecDeque<Sent>,
    /// By offset, the record that was acknowledged or seen there.
    known: BTreeMap<i64, u64>,
    /// The log does not begin before the one offset, because somebody was told so, and not behind the other, because nobody has asked for more.
    start: (i64, i64),
    /// What a former start has found is on stable storage, also where acknowledgements do not say so.
    flushed_end: i64,
    /// Of the last start.
    leader_epoch: i32,
    pub acknowledged: u64,
    /// Records that cuts have taken from a partition that allows it.
    pub forgone: u64,
}

/// What a partition holds now.
pub struct Found {
    pub start: i64,
    pub end: i64,
    pub leader_epoch: i32,
    pub records: Vec<(i64, Record)>,
}

/// A promise that was not kept, in words.
pub type Broken = String;

type Outcome = Result<(), Broken>;

impl History {
    pub fn new(topic: &str, partition: i32, kind: Kind, seed: u64, producer_id: i64, base_timestamp: i64) -> History {
        History {
            topic: topic.into(),
            partition,
            kind,
            seed: mix(seed ^ (partition as u64) << 32 ^ topic.len() as u64),
            producer_id,
            base_timestamp,
            next: 0,
            in_flight: VecDeque::new(),
            known: BTreeMap::new(),
            start: (0, 0),
            flushed_end: 0,
            leader_epoch: -1,
            acknowledged: 0,
            forgone: 0,
        }
    }

    /// Whether a client would send another batch now. With more behind the oldest in flight the broker might forget that one, and refuse it as out of order when it comes at last.
    pub fn may_begin(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// What is sent again on another connection, oldest first.
    pub fn in_flight(&self) -> impl ExactSizeIterator<Item = &Sent> {
        self.in_flight.iter()
    }

    /// The next batch, taken into what is in flight.
    pub fn begin_batch(&mut self) -> Sent {
        let (first, count) = (self.next, self.count_of(self.next));
        let mut batch = Batch::of((first..first + count).map(|index| self.record(index)).collect()).codec(codec(first));
        if self.kind == Kind::Idempotent {
            batch = batch.producer(self.producer_id, 0, first as i32);
        }
        self.next += count;
        let sent = Sent { first, count, bytes: batch.encode(), is_answered: false };
        self.in_flight.push_back(sent.clone());
        sent
    }

    /// Somebody was told that the batch lies at that offset.
    pub fn acknowledge(&mut self, sent: &Sent, base_offset: i64) -> Outcome {
        for step in 0..sent.count {
            self.know(base_offset + step as i64, sent.first + step, "acknowledged")?;
        }
        if let Some(in_flight) = self.in_flight.iter_mut().find(|in_flight| in_flight.first == sent.first && !in_flight.is_answered) {
            in_flight.is_answered = true;
            self.acknowledged += sent.count;
        }
        Ok(())
    }

    /// The producer itself was told so.
    pub fn hear(&mut self, sent: &Sent, base_offset: i64) -> Outcome {
        self.acknowledge(sent, base_offset)?;
        self.in_flight.retain(|in_flight| in_flight.first != sent.first);
        Ok(())
    }

    /// A reader has got the record.
    pub fn see(&mut self, offset: i64, record: &Record) -> Outcome {
        let index = self.identify(offset, record)?;
        self.know(offset, index, "seen")
    }

    /// An offset to which the log may be trimmed: somewhere between its start and its end.
    pub fn ask_for_start(&mut self, random: u64) -> i64 {
        let (floor, asked) = self.start;
        let offset = floor + (random % (self.known_end() - floor + 1) as u64) as i64;
        self.start = (floor, offset.max(asked));
        offset
    }

    /// Somebody was told that the log begins there.
    pub fn see_start(&mut self, start: i64) {
        self.start.0 = start.max(self.start.0);
    }

    /// Nobody will hear any more what became of unanswered batches; an idempotent producer asks again.
    pub fn give_up(&mut self) {
        if self.kind != Kind::Idempotent {
            self.in_flight.clear();
        }
    }

    /// The offset behind everything that is known.
    pub fn known_end(&self) -> i64 {
        self.known.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }

    /// Compares with what the partition holds after a restart; what is found is known from then on.
    pub fn verify(&mut self, found: &Found) -> Outcome {
        let place = self.place();
        if found.leader_epoch <= self.leader_epoch {
            return Err(format!(
                "{place}: its leader's epoch is {} after a start, and was {} before",
                found.leader_epoch, self.leader_epoch
            ));
        }
        if self.kind == Kind::Weak && found.end >= self.flushed_end {
            self.forgone += self.known.split_off(&found.end).len() as u64;
        }
        if found.end < self.known_end() {
            let (offset, index) = self.known.last_key_value().expect("something is known");
            return Err(format!("{place}: record {index} at offset {offset} is lost; the log ends at {}", found.end));
        }
        let (floor, asked) = self.start;
        if found.start < floor || (self.kind != Kind::Expiring && found.start > asked) {
            return Err(format!("{place}: it begins at {}; {floor} was promised, {asked} was asked for", found.start));
        }
        let identified = |(offset, record): &(i64, Record)| Ok((*offset, self.identify(*offset, record)?));
        let indexes = found.records.iter().map(identified).collect::<Result<Vec<(i64, u64)>, Broken>>()?;
        self.verify_order(&indexes)?;
        match self.kind {
            Kind::Compacted => self.verify_latest(&indexes)?,
            _ => self.verify_all(found)?,
        }
        for (offset, index) in indexes {
            self.know(offset, index, "found")?;
        }
        (self.flushed_end, self.leader_epoch) = (found.end, found.leader_epoch);
        Ok(())
    }

    /// Offsets and indexes go up, so nothing is there twice.
    fn verify_order(&self, indexes: &[(i64, u64)]) -> Outcome {
        let follows = |pair: &&[(i64, u64)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
        match indexes.windows(2).find(|pair| !follows(pair)) {
            None => Ok(()),
            Some(pair) => {
                let [(last_offset, last_index), (offset, index)] = [pair[0], pair[1]];
                Err(format!("{}: record {index} at offset {offset} comes after record {last_index} at {last_offset}", self.place()))
            }
        }
    }

    /// Every offset from the start to the end has its record, and what is known is there.
    fn verify_all(&self, found: &Found) -> Outcome {
        let place = self.place();
        let offsets = found.records.iter().map(|(offset, _)| *offset);
        if !offsets.clone().eq(found.start..found.end) {
            let gap = offsets.zip(found.start..).find(|(offset, expected)| offset != expected);
            return Err(format!(
                "{place}: from {} to {} there are {} records, first gap {gap:?}",
                found.start,
                found.end,
                found.records.len()
            ));
        }
        // `know` compares what is there with what is known at each offset; no offset is missing.
        Ok(())
    }

    /// Of every key the newest record that is known, or a newer one.
    fn verify_latest(&self, indexes: &[(i64, u64)]) -> Outcome {
        let place = self.place();
        let latest: BTreeMap<u64, u64> = indexes.iter().map(|(_, index)| (self.key_of(*index), *index)).collect();
        let mut expected: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
        for (offset, index) in &self.known {
            let newest = expected.entry(self.key_of(*index)).or_insert((*index, *offset));
            *newest = (*index, *offset).max(*newest);
        }
        for (key, (index, offset)) in expected {
            match latest.get(&key) {
                Some(there) if *there >= index => {}
                None if self.is_tombstone(index) => {}
                there => {
                    return Err(format!("{place}: key {key} ends with record {there:?}, but record {index} at offset {offset} is known"));
                }
            }
        }
        Ok(())
    }

    fn know(&mut self, offset: i64, index: u64, how: &str) -> Outcome {
        if self.kind == Kind::Idempotent && offset != index as i64 {
            return Err(format!("{}: record {index} of the idempotent producer is {how} at offset {offset}", self.place()));
        }
        match self.known.insert(offset, index) {
            Some(before) if before != index => {
                Err(format!("{}: offset {offset} held record {before}, and now record {index} is {how} there", self.place()))
            }
            _ => Ok(()),
        }
    }

    /// The record's index, if its content is that of this index.
    fn identify(&self, offset: i64, record: &Record) -> Result<u64, Broken> {
        let named = record.headers.first().and_then(|(_, value)| String::from_utf8(value.clone()?).ok()?.parse().ok());
        let index: u64 = named.ok_or_else(|| format!("{}: the record at offset {offset} has no index", self.place()))?;
        if index >= self.next {
            return Err(format!("{}: record {index} at offset {offset} was never sent", self.place()));
        }
        if *record != self.record(index) {
            return Err(format!("{}: record {index} at offset {offset} has another content", self.place()));
        }
        Ok(index)
    }

    fn record(&self, index: u64) -> Record {
        let random = mix(index ^ self.seed);
        let key = if self.kind == Kind::Compacted { self.key_of(index) } else { index };
        let length = match self.kind {
            Kind::Bulk => 10_000 + random % 30_000,
            Kind::Plain | Kind::Idempotent | Kind::Weak if random.is_multiple_of(40) => 5_000 + random % 15_000,
            Kind::Compacted => random % 1_500,
            _ => random % 400,
        };
        let value = value(random, length as usize);
        Record {
            key: Some(key.to_string().into_bytes()),
            value: if self.is_tombstone(index) { None } else { Some(value) },
            headers: vec![("index".into(), Some(index.to_string().into_bytes()))],
            timestamp: self.base_timestamp + index as i64,
        }
    }

    fn count_of(&self, first: u64) -> u64 {
        match self.kind {
            Kind::Bulk => 3 + mix(first ^ self.seed) % 5,
            _ => 1 + mix(first ^ self.seed) % 8,
        }
    }

    fn key_of(&self, index: u64) -> u64 {
        mix(index ^ self.seed ^ 0x6b) % KEYS
    }

    fn is_tombstone(&self, index: u64) -> bool {
        self.kind == Kind::Compacted && mix(index ^ self.seed ^ 0x70).is_multiple_of(8)
    }

    /// What a failure says of where it is: also which batches are in flight.
    pub fn place(&self) -> String {
        let in_flight: Vec<u64> = self.in_flight.iter().map(|sent| sent.first).collect();
        format!("{}-{} ({:?}, known to {}, in flight {in_flight:?})", self.topic, self.partition, self.kind, self.known_end())
    }
}

/// Bytes of which a half can be compressed. There are many of them to make and to compare.
fn value(seed: u64, length: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(length + 16);
    for position in (0..length).step_by(16) {
        value.extend_from_slice(&mix(seed ^ position as u64).to_le_bytes());
        value.extend_from_slice(b"........");
    }
    value.truncate(length);
    value
}

fn codec(first: u64) -> Codec {
    match mix(first) % 10 {
        0 => Codec::Lz4,
        1 => Codec::Snappy,
        _ => Codec::None,
    }
}

pub mod cases {
    use super::*;

    /// All batches in flight are answered by way of their repetitions: the producer, which has heard of none, begins no further one, and sends all of them again.
    pub fn repetitions_make_no_room() {
        let mut history = History::new("idempotent", 0, Kind::Idempotent, 1, 7, 0);
        let sent: Vec<Sent> = (0..IN_FLIGHT_MAX).map(|_| history.begin_batch()).collect();
        for batch in &sent {
            history.acknowledge(batch, batch.first as i64).expect("as promised");
        }
        assert_eq!(history.acknowledged, history.next);
        assert!(!history.may_begin(), "the broker would forget the oldest");
        assert!(history.in_flight().map(|sent| sent.first).eq(sent.iter().map(|sent| sent.first)));
        history.hear(&sent[0], 0).expect("as promised");
        assert!(history.may_begin());
        assert_eq!(history.acknowledged, history.next, "nothing counts twice");
    }

    /// Of a partition of a weaker class a cut may take the end that no start has found yet. A start without a new epoch, a hole, another record in its place and the end that was
    /// found before are missed.
    pub fn only_an_unflushed_end_may_go() {
        let (mut history, end) = weak_history();
        history.verify(&found(&history, 0..end, 1)).expect("everything is there");
        let more = history.begin_batch();
        history.hear(&more, end).expect("as promised");
        for (what, wrong) in [
            ("an epoch that was there before", found(&history, 0..end, 1)),
            ("the end that a start has found", found(&history, 0..end - 1, 2)),
            (
                "a hole",
                Found {
                    records: found(&history, 0..end, 2).records.into_iter().filter(|(offset, _)| *offset != 1).collect(),
                    ..found(&history, 0..end, 2)
                },
            ),
            ("another record", Found { records: vec![(0, history.record(1))], end: 1, ..found(&history, 0..1, 2) }),
        ] {
            assert!(history.clone().verify(&wrong).is_err(), "{what}");
        }
        history.verify(&found(&history, 0..end, 2)).expect("an unflushed end");
        assert_eq!((history.forgone, history.known_end()), (more.count, end));
    }

    /// With some batches that are acknowledged; and the offset behind them.
    fn weak_history() -> (History, i64) {
        let mut history = History::new("written", 0, Kind::Weak, 1, 7, 0);
        for _ in 0..3 {
            let sent = history.begin_batch();
            history.hear(&sent, sent.first as i64).expect("as promised");
        }
        let end = history.known_end();
        (history, end)
    }

    /// Records whose indexes are their offsets.
    fn found(history: &History, offsets: std::ops::Range<i64>, leader_epoch: i32) -> Found {
        let records = offsets.clone().map(|offset| (offset, history.record(offset as u64))).collect();
        Found { start: 0, end: offsets.end, leader_epoch, records }
    }
}
