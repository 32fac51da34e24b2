//! Histories of one log against a model that knows only which batches it has taken: idempotent producers that send again or out of turn, transactions, deleted records, rolls, and crashes
//! between any two steps, of which any part of what was not durable survives.
//!
//! A log that lives on appends, one that was put together from a checkpoint and what the journal holds behind it, and one that read everything from its beginning keep the same books.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

use crate::log::producer_snapshot::{Encoder, decode};
use crate::log::producer_state::{BATCHES_REMEMBERED, ProducerState};
use crate::log::segments::SegmentBook;
use crate::log::time_index::TimeEntry;
use crate::log::{NO_OFFSET, NO_TIMESTAMP};

/// Those with the higher ids write in transactions.
const PRODUCERS: i64 = 4;
const FIRST_TRANSACTIONAL: i64 = 2;

#[derive(Clone, Debug)]
enum Step {
    /// The next batch of a producer, or one without a producer.
    Send {
        producer: Option<i64>,
        records: i32,
        size_bytes: u32,
    },
    /// A batch comes once more: so many were sent after it.
    SendAgain {
        producer: i64,
        sent_after: usize,
    },
    /// A batch in front of which others are missing.
    SendTooEarly {
        producer: i64,
    },
    EndTransaction {
        producer: i64,
        is_commit: bool,
    },
    /// The log's start moves to this share of what is visible.
    DeleteRecords(f64),
    /// So many more entries of the journal become durable.
    Harden(usize),
    /// All becomes durable, and is written down.
    Checkpoint,
    /// Of what was not durable, some survives.
    Crash {
        survives: Index,
    },
}

/// What the journal holds of the log.
#[derive(Clone, Debug)]
enum Entry {
    Append { info: BatchInfo, end_marker: Option<EndMarker>, segment_base: i64, position: u32 },
    LogStart(i64),
}

/// What a producer's batch must be met with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Append,
    Duplicate { base_offset: i64, last_offset: i64 },
    OutOfOrder,
}

struct History {
    log: Log,
    /// All that the log consists of, from its beginning.
    journal: Vec<Entry>,
    durable_entries: usize,
    checkpoint: LogStart,
    checkpoint_entries: usize,
    leader_epoch: i32,
    timestamp: i64,
    /// The last stable offset that somebody may have read up to.
    seen_offset: i64,
}

impl History {
    fn begin() -> History {
        let checkpoint = LogStart::empty(0, 0, 1);
        History {
            log: Log::new(checkpoint.clone(), rules()),
            journal: Vec::new(),
            durable_entries: 0,
            checkpoint,
            checkpoint_entries: 0,
            leader_epoch: 0,
            timestamp: 1_000,
            seen_offset: 0,
        }
    }

    fn take(&mut self, step: Step) {
        self.timestamp += 1;
        match step {
            Step::Send { producer, records, size_bytes } => {
                let sequence = producer.map_or(-1, |producer| self.next_sequence(producer));
                self.send(producer.unwrap_or(-1), sequence, records, size_bytes);
            }
            Step::SendAgain { producer, sent_after } => {
                let again =
                    self.sent_by(producer).rev().nth(sent_after).map(|info| (info.base_sequence, info.record_count, info.size_bytes));
                if let Some((sequence, records, size_bytes)) = again {
                    self.send(producer, sequence, records, size_bytes);
                }
            }
            Step::SendTooEarly { producer } => self.send(producer, self.next_sequence(producer) + 3, 1, 100),
            Step::EndTransaction { producer, is_commit } => self.end_transaction(producer, is_commit),
            Step::DeleteRecords(share) => self.delete_records(share),
            Step::Harden(entries) => self.harden(self.durable_entries + entries),
            Step::Checkpoint => self.write_checkpoint(),
            Step::Crash { survives } => self.crash(survives),
        }
        self.check_stable_offset();
    }

    fn send(&mut self, producer: i64, sequence: i32, records: i32, size_bytes: u32) {
        let epoch = if producer < 0 { -1 } else { 0 };
        let mut batch = batch(producer, epoch, records, size_bytes, self.timestamp);
        batch.info.base_sequence = sequence;
        batch.info.is_transactional = producer >= FIRST_TRANSACTIONAL;
        let answer = match self.log.check(&batch, Origin::Client { transaction_version: 0 }) {
            Ok(Admission::Append) => Answer::Append,
            Ok(Admission::Duplicate { base_offset, last_offset, .. }) => Answer::Duplicate { base_offset, last_offset },
            Err(AppendError::OutOfOrderSequence { .. }) => Answer::OutOfOrder,
            Err(error) => panic!("{error:?} for {:?}", batch.info),
        };
        assert_eq!(answer, self.right_answer(&batch.info), "{:?}", batch.info);
        if answer == Answer::Append {
            self.append(&batch, Origin::Client { transaction_version: 0 });
        }
    }

    fn end_transaction(&mut self, producer: i64, is_commit: bool) {
        let origin = Origin::Coordinator { transaction_version: 0 };
        let mut marker = batch(producer, 0, 1, 78, self.timestamp);
        marker.info.is_control = true;
        marker.info.is_transactional = true;
        marker.end_marker = Some(EndMarker { is_commit, coordinator_epoch: 0 });
        assert_eq!(self.log.check(&marker, origin), Ok(Admission::Append));
        self.append(&marker, origin);
    }

    fn append(&mut self, batch: &ValidatedBatch, origin: Origin) {
        let placed = self.log.place(batch, origin, 0);
        assert_eq!(placed.base_offset, self.end_offset(self.journal.len()), "offsets have no gaps");
        self.log.append(batch, &placed, self.leader_epoch, batch.info.max_timestamp);
        let info = BatchInfo { base_offset: placed.base_offset, leader_epoch: self.leader_epoch, ..batch.info.clone() };
        let Placed { segment_base, position, .. } = placed;
        self.journal.push(Entry::Append { info, end_marker: batch.end_marker, segment_base, position });
    }

    fn delete_records(&mut self, share: f64) {
        let (start, end) = (self.log.log_start_offset(), self.high_watermark());
        let to = start + ((end - start) as f64 * share) as i64;
        if self.log.raise_log_start(to) {
            self.journal.push(Entry::LogStart(to));
        }
    }

    fn harden(&mut self, entries: usize) {
        self.durable_entries = entries.min(self.journal.len());
        self.log.high_watermark_moved(self.high_watermark());
    }

    /// Producers and epochs go through the forms in which they are written down.
    fn write_checkpoint(&mut self) {
        self.harden(self.journal.len());
        let mut encoder = Encoder::own(self.log.producers().producers().clone());
        while encoder.step() {}
        let producers = decode(&encoder.finish().to_vec()).expect("what was encoded");
        self.checkpoint_entries = self.journal.len();
        self.checkpoint = LogStart {
            log_start_offset: self.log.log_start_offset(),
            log_end_offset: self.log.log_end_offset(),
            segments: self.log.segments().clone(),
            indexes: self.log.indexes().clone(),
            leader_epochs: LeaderEpochs::from_entries(self.log.leader_epochs().entries().iter().copied()),
            producers: ProducerStates::of(producers, self.log.log_end_offset()),
        };
    }

    fn crash(&mut self, survives: Index) {
        let lost_at_most = self.journal.len() - self.durable_entries;
        self.journal.truncate(self.durable_entries + survives.index(lost_at_most + 1));
        self.durable_entries = self.journal.len();
        self.leader_epoch += 1;
        self.log = self.restart(self.checkpoint.clone(), self.checkpoint_entries);
        let read_from_its_beginning = self.restart(LogStart::empty(0, 0, 1), 0);
        assert_eq!(Books::of(&self.log), Books::of(&read_from_its_beginning));
        assert_eq!(self.log.log_end_offset(), self.end_offset(self.journal.len()));
    }

    fn restart(&self, start: LogStart, entries_known: usize) -> Log {
        let mut log = Log::new(start, rules());
        for entry in &self.journal[entries_known..] {
            match entry {
                Entry::Append { info, end_marker, segment_base, position } => {
                    log.replay(info, end_marker.as_ref(), *segment_base, *position);
                }
                Entry::LogStart(offset) => {
                    log.raise_log_start(*offset);
                }
            }
        }
        log.begin_leader_epoch(self.leader_epoch);
        log.high_watermark_moved(self.high_watermark());
        log
    }

    /// What readers of committed records get: it is where the model says, and never goes back, whatever happens.
    fn check_stable_offset(&mut self) {
        let stable = self.log.last_stable_offset(self.high_watermark());
        assert_eq!(stable, self.right_stable_offset());
        assert!(stable >= self.seen_offset, "stable up to {stable}, and before it was up to {}", self.seen_offset);
        // Below the log's start nobody reads anything, and a start that is not durable yet may be lost.
        if stable > self.log.log_start_offset() {
            self.seen_offset = stable;
        }
    }

    fn right_answer(&self, info: &BatchInfo) -> Answer {
        let producer = info.producer_id;
        let is_known = self.appends().any(|(known, _)| known.producer_id == producer);
        let known = self
            .sent_by(producer)
            .rev()
            .take(BATCHES_REMEMBERED)
            .find(|known| (known.base_sequence, known.record_count) == (info.base_sequence, info.record_count));
        match known {
            _ if producer < 0 => Answer::Append,
            Some(known) => Answer::Duplicate { base_offset: known.base_offset, last_offset: known.last_offset() },
            None if !is_known || info.base_sequence == self.next_sequence(producer) => Answer::Append,
            None => Answer::OutOfOrder,
        }
    }

    fn right_stable_offset(&self) -> i64 {
        let high_watermark = self.high_watermark();
        let mut first_offsets = [None; PRODUCERS as usize];
        let mut unstable = high_watermark;
        for (info, end_marker) in self.appends().filter(|(info, _)| info.is_transactional) {
            let first_offset = &mut first_offsets[info.producer_id as usize];
            match (end_marker, *first_offset) {
                (None, None) => *first_offset = Some(info.base_offset),
                (Some(_), Some(first)) => {
                    *first_offset = None;
                    if info.base_offset >= high_watermark {
                        unstable = unstable.min(first);
                    }
                }
                _ => {}
            }
        }
        first_offsets.into_iter().flatten().fold(unstable, i64::min).max(self.log.log_start_offset()).min(high_watermark)
    }

    fn high_watermark(&self) -> i64 {
        self.end_offset(self.durable_entries)
    }

    fn end_offset(&self, entries: usize) -> i64 {
        let ends = self.journal[..entries].iter().rev().find_map(|entry| match entry {
            Entry::Append { info, .. } => Some(info.last_offset() + 1),
            Entry::LogStart(_) => None,
        });
        ends.unwrap_or(0)
    }

    fn appends(&self) -> impl DoubleEndedIterator<Item = (&BatchInfo, &Option<EndMarker>)> {
        self.journal.iter().filter_map(|entry| match entry {
            Entry::Append { info, end_marker, .. } => Some((info, end_marker)),
            Entry::LogStart(_) => None,
        })
    }

    fn sent_by(&self, producer: i64) -> impl DoubleEndedIterator<Item = &BatchInfo> {
        self.appends().filter(move |(info, end_marker)| info.producer_id == producer && end_marker.is_none()).map(|(info, _)| info)
    }

    fn next_sequence(&self, producer: i64) -> i32 {
        self.sent_by(producer).next_back().map_or(0, |info| info.last_sequence() + 1)
    }
}

/// What a log knows, but for what no restart remembers: when something was appended, and the markers of this process.
#[derive(Debug, PartialEq)]
struct Books {
    offsets: (i64, i64),
    segments: Vec<(i64, u32, Option<TimeEntry>, Option<i64>)>,
    offset_index: Vec<OffsetEntry>,
    time_index: Vec<TimeEntry>,
    leader_epochs: LeaderEpochs,
    producers: Vec<(i64, ProducerState)>,
    first_unstable_offset: Option<i64>,
}

impl Books {
    fn of(log: &Log) -> Books {
        let segment = |book: &SegmentBook| (book.base_offset, book.size_bytes, book.max_timestamp, book.first_timestamp);
        let producer = |(id, state): (&i64, &std::sync::Arc<ProducerState>)| {
            (*id, ProducerState { last_append_ms: NO_TIMESTAMP, last_marker_offset: NO_OFFSET, ..(**state).clone() })
        };
        let (offsets, times) = (log.indexes().offset_index.view(), log.indexes().time_index.view());
        Books {
            offsets: (log.log_start_offset(), log.log_end_offset()),
            segments: log.segments().iter().map(segment).collect(),
            offset_index: (0..offsets.len()).map(|index| offsets.entry(index)).collect(),
            time_index: (0..times.len()).map(|index| times.entry(index)).collect(),
            leader_epochs: log.leader_epochs().clone(),
            producers: log.producers().producers().iter().map(producer).collect(),
            first_unstable_offset: log.producers().first_unstable_offset(),
        }
    }
}

fn rules() -> RollRules {
    RollRules { segment_bytes: 2_000, index_interval_bytes: 300, ..RollRules::default() }
}

fn batch(producer_id: i64, producer_epoch: i16, records: i32, size_bytes: u32, timestamp: i64) -> ValidatedBatch {
    let info = BatchInfo {
        base_offset: 0,
        leader_epoch: -1,
        size_bytes,
        last_offset_delta: records - 1,
        max_timestamp: timestamp,
        is_log_append_time: false,
        producer_id,
        producer_epoch,
        base_sequence: -1,
        is_transactional: false,
        is_control: false,
        record_count: records,
    };
    ValidatedBatch { info, bytes: bytes::Bytes::new(), end_marker: None, log_append_time_ms: -1 }
}

fn a_step() -> impl Strategy<Value = Step> {
    let producer = 0..PRODUCERS;
    prop_oneof![
        8 => (proptest::option::weighted(0.9, producer.clone()), 1..5i32, 70..700u32)
            .prop_map(|(producer, records, size_bytes)| Step::Send { producer, records, size_bytes }),
        3 => (producer.clone(), 0..8usize).prop_map(|(producer, sent_after)| Step::SendAgain { producer, sent_after }),
        1 => producer.clone().prop_map(|producer| Step::SendTooEarly { producer }),
        2 => (FIRST_TRANSACTIONAL..PRODUCERS, any::<bool>()).prop_map(|(producer, is_commit)| Step::EndTransaction { producer, is_commit }),
        1 => (0.0..=1.0f64).prop_map(Step::DeleteRecords),
        4 => (1..5usize).prop_map(Step::Harden),
        1 => Just(Step::Checkpoint),
        1 => any::<Index>().prop_map(|survives| Step::Crash { survives }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_the_books_are_those_of_what_survived(steps in proptest::collection::vec(a_step(), 1..80), survives in any::<Index>()) {
        let mut history = History::begin();
        for step in steps {
            history.take(step);
        }
        history.crash(survives);
        history.check_stable_offset();
    }
}
