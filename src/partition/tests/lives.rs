//! Lives of a broker's partitions over the same directories: each begins with recovery and ends by a clean stop or a crash. An idempotent producer keeps five batches in flight and
//! sends again what was not answered. Whatever happens, its records are there once, in order, all that was acknowledged.

use proptest::prelude::*;

use super::files::check_files;
use super::home::{Home, live_in};
use super::*;

const TOPIC_ID: Uuid = Uuid::from_u128(77);
const PARTITIONS: i32 = 3;
const PRODUCER_ID: i64 = 40;
const FIRST_TIMESTAMP: i64 = 1_000;

/// What happens in a life, one after the other.
#[derive(Clone, Debug)]
enum Step {
    /// The producer of a partition sends its next batch: so many records of so many bytes.
    Send(i32, usize, usize),
    /// All answers arrive.
    HearAll,
    /// Placement runs.
    Place,
    /// The log's start moves to this share of what is visible.
    DeleteRecords(i32, f64),
    /// Everything from this share of the log on is read.
    Read(i32, f64),
}

#[derive(Clone, Debug)]
struct LifePlan {
    steps: Vec<Step>,
    is_clean: bool,
}

/// What a producer knows of its partition.
#[derive(Clone, Debug, Default)]
struct Sent {
    /// First sequence number and number of records of each batch.
    batches: Vec<(i32, usize, usize)>,
    /// Batches that were answered.
    answered: usize,
    log_start_offset: i64,
    /// A start that was asked for and not answered.
    log_start_asked: i64,
}

impl Sent {
    fn end_offset(&self) -> i64 {
        self.batches.last().map_or(0, |(sequence, records, _)| i64::from(*sequence) + *records as i64)
    }

    fn answered_offset(&self) -> i64 {
        self.answered.checked_sub(1).map_or(0, |last| {
            let (sequence, records, _) = self.batches[last];
            i64::from(sequence) + records as i64
        })
    }

    fn batch(&self, index: usize) -> ValidatedBatch {
        let (base_sequence, records, value_bytes) = self.batches[index];
        let options = BatchOptions { producer_id: PRODUCER_ID, producer_epoch: 0, base_sequence, ..BatchOptions::default() };
        // Sequence numbers are offsets here, and timestamps follow from them: a record tells where it belongs.
        let timestamps: Vec<i64> = (0..records as i64).map(|record| FIRST_TIMESTAMP + i64::from(base_sequence) + record).collect();
        timed_batch(&timestamps, value_bytes, options)
    }
}

type AllSent = [Sent; PARTITIONS as usize];

/// One life. Returns what the producers know at its end.
fn live(parent: &Path, number: i32, plan: LifePlan, sent: AllSent) -> AllSent {
    let options = PartitionsOptions { tail_bytes_max: 50_000, index_bytes_max: 3_000, files_open_max: 3, ..PartitionsOptions::default() };
    live_in(parent, &["data"], 1 << 20, plan.is_clean, options, move |home| async move {
        let mut life = Life { home, sent, answers: Vec::new() };
        life.begin(number).await;
        for step in plan.steps {
            life.take(step).await;
        }
        if plan.is_clean {
            life.end_cleanly().await;
        }
        life.sent
    })
}

struct Life {
    home: Rc<Home>,
    sent: AllSent,
    /// Batches whose answers are awaited: partition, index of the batch, group.
    answers: Vec<(i32, usize, GroupSequence)>,
}

impl Life {
    async fn begin(&mut self, number: i32) {
        for partition in 0..PARTITIONS {
            self.home.create(TopicIdPartition::new(TOPIC_ID, partition)).await.become_leader(number);
        }
        for partition in 0..PARTITIONS {
            self.check(partition).await;
            self.send_again(partition).await;
        }
        self.hear_all().await;
        for partition in 0..PARTITIONS {
            self.check(partition).await;
            assert_eq!(self.get(partition).high_watermark(), self.sent[partition as usize].end_offset(), "everything is there once");
        }
    }

    fn get(&self, partition: i32) -> Rc<Partition> {
        self.home.partitions.get(&TopicIdPartition::new(TOPIC_ID, partition)).unwrap()
    }

    /// What was acknowledged is there, and all that is there was sent, in order.
    async fn check(&mut self, number: i32) {
        let partition = self.get(number);
        let sent = &mut self.sent[number as usize];
        let start = partition.log_start_offset();
        assert!(start == sent.log_start_offset || start == sent.log_start_asked, "{start}: {sent:?}");
        (sent.log_start_offset, sent.log_start_asked) = (start, start);
        assert!(partition.high_watermark() >= sent.answered_offset(), "{} of {sent:?}", partition.high_watermark());
        let sent = sent.clone();
        self.read_from(number, start, &sent).await;
    }

    async fn read_from(&self, number: i32, from: i64, sent: &Sent) {
        let partition = self.get(number);
        let end = partition.high_watermark();
        let mut next = from;
        while next < end {
            let batches = partition.read_batches(next, 6_000).await.unwrap_or_else(|error| panic!("{error:?} at {next}"));
            assert!(!batches.is_empty(), "nothing at {next} of {end}");
            for (info, bytes) in batches {
                let found = sent.batches.iter().find(|(sequence, ..)| i64::from(*sequence) == info.base_offset);
                let (_, records, _) = found.unwrap_or_else(|| panic!("no batch of {sent:?} begins at {}", info.base_offset));
                assert_eq!((info.record_count as usize, i64::from(info.base_sequence)), (*records, info.base_offset));
                assert!(info.base_offset <= next && info.last_offset() >= next && info.is_intact(&bytes));
                next = info.last_offset() + 1;
            }
        }
        assert!(next >= end, "more may have become durable meanwhile");
    }

    /// As a client does after a broken connection: all that was not answered, in order, from a batch on that may have been stored.
    async fn send_again(&mut self, number: i32) {
        let (answered, count) = (self.sent[number as usize].answered, self.sent[number as usize].batches.len());
        for index in answered..count {
            self.send(number, index).await;
        }
    }

    async fn send(&mut self, number: i32, index: usize) {
        let sent = &self.sent[number as usize];
        let offset = i64::from(sent.batches[index].0);
        let appending =
            self.get(number).append(&sent.batch(index), CLIENT).await.unwrap_or_else(|error| panic!("{error} for {index} of {sent:?}"));
        assert_eq!(appending.base_offset, offset, "the first offset, stored now or before");
        self.answers.push((number, index, appending.sequence));
    }

    async fn hear_all(&mut self) {
        for (number, index, sequence) in std::mem::take(&mut self.answers) {
            self.get(number).wait_durable(sequence).await.unwrap();
            self.sent[number as usize].answered = index + 1;
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Send(number, records, value_bytes) => {
                let sent = &mut self.sent[number as usize];
                if sent.batches.len() - sent.answered == 5 {
                    self.hear_all().await;
                }
                let sent = &mut self.sent[number as usize];
                sent.batches.push((sent.end_offset() as i32, records, value_bytes));
                let index = sent.batches.len() - 1;
                self.send(number, index).await;
            }
            Step::HearAll => self.hear_all().await,
            Step::Place => self.home.placement.place_now().await.unwrap(),
            Step::DeleteRecords(number, share) => {
                let partition = self.get(number);
                let start = partition.log_start_offset();
                let to = start + ((partition.high_watermark() - start) as f64 * share) as i64;
                self.sent[number as usize].log_start_asked = to;
                assert_eq!(partition.delete_records(to).await.unwrap(), to);
                self.sent[number as usize].log_start_offset = to;
            }
            Step::Read(number, share) => {
                let partition = self.get(number);
                let start = partition.log_start_offset();
                let from = start + ((partition.high_watermark() - start) as f64 * share) as i64;
                let sent = self.sent[number as usize].clone();
                self.read_from(number, from, &sent).await;
                let found =
                    partition.find_offset(OffsetTarget::Timestamp(FIRST_TIMESTAMP + from), Isolation::ReadUncommitted, -1).await.unwrap();
                let expected = if from < partition.high_watermark() { from } else { -1 };
                assert_eq!(found.offset, expected, "the record whose timestamp says so");
            }
        }
    }

    async fn end_cleanly(&mut self) {
        self.hear_all().await;
        self.home.partitions.shut_down().await.unwrap();
        for number in 0..PARTITIONS {
            check_files(&self.get(number));
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..PARTITIONS;
    prop_oneof![
        8 => (partition(), 1..6usize, prop_oneof![1..200usize, 1_000..3_900usize]).prop_map(|(number, records, bytes)| Step::Send(number, records, bytes)),
        2 => Just(Step::HearAll),
        1 => Just(Step::Place),
        1 => (partition(), 0.0..1.0f64).prop_map(|(number, share)| Step::DeleteRecords(number, share)),
        2 => (partition(), 0.0..1.0f64).prop_map(|(number, share)| Step::Read(number, share)),
    ]
}

fn life_plan() -> impl Strategy<Value = LifePlan> {
    (proptest::collection::vec(step(), 0..60), proptest::bool::weighted(0.3)).prop_map(|(steps, is_clean)| LifePlan { steps, is_clean })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_producer_s_records_are_there_once_whatever_happens(plans in proptest::collection::vec(life_plan(), 1..6)) {
        let parent = tempfile::tempdir().unwrap();
        let mut sent = AllSent::default();
        for (number, plan) in plans.into_iter().enumerate() {
            sent = live(parent.path(), number as i32, plan, sent);
        }
        live(parent.path(), 100, LifePlan { steps: Vec::new(), is_clean: true }, sent);
    }
}
