//! Apache Kafka's own TransactionalMessageCopier, three at a time: each reads a topic, writes what it read to another and commits its position, all in one transaction, and gives some
//! of them up. Copiers and broker are killed meanwhile. A reader of committed records finds the input in the output, every record once and in its order.
//!
//! Rounds change between copiers that have a partition each and copiers that share the topic as a group, where who was killed or has lost a partition must be fenced by the group's
//! generation (KIP-447).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::batch::record;
use harness::broker::{Broker, BrokerOptions, java_with};
use harness::committed::CommittedReader;
use harness::raw::Connection;
use harness::wait;

use super::{Run, kill_and_restart};

const COPIERS: usize = 3;
const RECORDS_PER_PARTITION: usize = 2_000;
const RECORDS_PER_TRANSACTION: usize = 5;

/// Longer than this a copy does not stand still, whatever is killed.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(300);

/// For copiers that are left alone: they may have a JVM to load, and the sessions of the killed to wait for.
const ENDING_LIMIT: Duration = Duration::from_secs(60);

pub fn copies_hold_every_record_once() {
    let mut run = Run::begin();
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1));
    let mut round = 0;
    while round < 2 || !run.is_over() {
        let mut copying = Copying::begin(&broker, round);
        while !copying.is_complete(&broker) {
            // A copier that starts has a JVM to load; a group has the session of the killed to wait for, ten seconds.
            let (from_ms, to_ms) = if shares(round) { (8_000, 14_000) } else { (3_000, 6_000) };
            // On a busy machine a JVM takes its time; one that is always killed before it begins copies nothing.
            let start_ms = copying.start_up.as_millis() as u64;
            run.rest(from_ms + start_ms, to_ms + start_ms);
            copying.disturb(&mut run, &mut broker);
        }
        copying.finish(&broker);
        println!("round {round}: {copying}");
        round += 1;
    }
}

/// One round: a topic and its copy.
struct Copying {
    round: u64,
    /// Of the copiers; goes with the broker's folder.
    log: PathBuf,
    began: Instant,
    /// From the start of the copiers to the first record of the copy.
    start_up: Duration,
    /// When there was something new in the copy.
    moved_at: Instant,
    copiers: Vec<Child>,
    readers: Vec<CommittedReader>,
    /// How many records of each partition's copy were found to be right.
    copied: Vec<usize>,
    copier_kills: u64,
    broker_kills: u64,
}

impl Copying {
    fn begin(broker: &Broker, round: u64) -> Copying {
        let mut connection = Connection::to(broker);
        for topic in [input(round), output(round)] {
            connection.create_topic(&topic, COPIERS as i32);
        }
        for partition in 0..COPIERS {
            let numbers: Vec<usize> = (0..RECORDS_PER_PARTITION).collect();
            for chunk in numbers.chunks(500) {
                connection.append(&input(round), partition as i32, chunk.iter().map(|number| numbered(*number)).collect());
            }
        }
        let log = broker.data().with_file_name("copiers.log");
        let mut copying = Copying {
            round,
            began: Instant::now(),
            start_up: Duration::ZERO,
            moved_at: Instant::now(),
            copiers: (0..COPIERS).map(|number| start_copier(broker, round, number, &log)).collect(),
            log,
            readers: (0..COPIERS as i32).map(|partition| CommittedReader::new(&output(round), partition)).collect(),
            copied: vec![0; COPIERS],
            copier_kills: 0,
            broker_kills: 0,
        };
        wait::until("the first records of the copy", STANDSTILL_LIMIT, || {
            copying.read_on(broker);
            copying.copied.iter().any(|copied| *copied > 0).then_some(())
        });
        copying.start_up = copying.began.elapsed();
        copying
    }

    /// Whether the copy holds everything; what it holds so far is compared with the input. Each kind of kill has come by then.
    fn is_complete(&mut self, broker: &Broker) -> bool {
        self.read_on(broker);
        assert!(self.moved_at.elapsed() < STANDSTILL_LIMIT, "{self}, and nothing in the last {STANDSTILL_LIMIT:?}");
        let is_copied = self.copied.iter().all(|copied| *copied == RECORDS_PER_PARTITION);
        is_copied && self.copier_kills > 0 && self.broker_kills > 0
    }

    /// Reads the copy up to where nothing comes at present; whether that is its end, with everything before it decided.
    fn read_on(&mut self, broker: &Broker) -> bool {
        let mut connection = Connection::to(broker);
        let mut is_end = true;
        for (partition, reader) in self.readers.iter_mut().enumerate() {
            loop {
                let before = reader.next_offset();
                let poll = reader.poll(&mut connection).expect("the broker is there");
                for (offset, found) in poll.records {
                    let next = self.copied[partition];
                    assert!(next < RECORDS_PER_PARTITION, "partition {partition}: more than the input at offset {offset}: {found:?}");
                    let expected = numbered(next);
                    assert_eq!((&found.key, &found.value), (&expected.key, &expected.value), "partition {partition}, offset {offset}");
                    self.copied[partition] += 1;
                    self.moved_at = Instant::now();
                }
                if reader.next_offset() == before {
                    is_end &= before > 0 && before == poll.last_stable_offset && before == poll.high_watermark;
                    break;
                }
            }
        }
        is_end
    }

    /// Lets the copiers come to their ends, and once more from what was committed: one that copies again what is copied already would do it now. Then nothing but the input may be
    /// there.
    fn finish(&mut self, broker: &Broker) {
        self.wait_for_ends();
        self.copiers = (0..COPIERS).map(|number| start_copier(broker, self.round, number, &self.log)).collect();
        self.wait_for_ends();
        wait::until("the end of the copy", wait::PATIENCE, || self.read_on(broker).then_some(()));
        assert_eq!(self.copied, [RECORDS_PER_PARTITION; COPIERS]);
    }

    /// A copier that finds nothing more ends by itself; one that still waits for something then has had its time.
    fn wait_for_ends(&mut self) {
        let began = Instant::now();
        let is_over = |copier: &mut Child| copier.try_wait().expect("a child of ours can be awaited").is_some();
        while !self.copiers.iter_mut().all(is_over) && began.elapsed() < ENDING_LIMIT {
            thread::sleep(Duration::from_millis(100));
        }
        self.copiers.iter_mut().for_each(end);
    }

    /// Kills somebody: first a copier, then the broker, then by chance. Copiers that have ended, by themselves or so, come back: there may be something left for them.
    fn disturb(&mut self, run: &mut Run, broker: &mut Broker) {
        let is_brokers_turn = match (self.copier_kills, self.broker_kills) {
            (0, _) => false,
            (_, 0) => true,
            _ => run.below(8) == 0,
        };
        if is_brokers_turn {
            kill_and_restart(broker);
            self.broker_kills += 1;
        } else {
            end(&mut self.copiers[run.below(COPIERS as u64) as usize]);
            self.copier_kills += 1;
        }
        for (number, copier) in self.copiers.iter_mut().enumerate() {
            if copier.try_wait().expect("a child of ours can be awaited").is_some() {
                *copier = start_copier(broker, self.round, number, &self.log);
            }
        }
    }
}

impl std::fmt::Display for Copying {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Copying { copied, copier_kills, broker_kills, began, .. } = self;
        let how = if shares(self.round) { "as a group" } else { "with a partition each" };
        let seconds = began.elapsed().as_secs();
        write!(formatter, "{copied:?} records copied {how} in {seconds} s, {copier_kills} kills of copiers, {broker_kills} of the broker")
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.copiers.iter_mut().for_each(end);
    }
}

/// Whether the copiers of this round share the topic as a group.
fn shares(round: u64) -> bool {
    !round.is_multiple_of(2)
}

fn input(round: u64) -> String {
    format!("copier-input-{round}")
}

fn output(round: u64) -> String {
    format!("copier-output-{round}")
}

fn numbered(number: usize) -> harness::batch::Record {
    record(&format!("key-{number}"), number.to_string())
}

fn start_copier(broker: &Broker, round: u64, number: usize, log: &Path) -> Child {
    let mut command = java_with("tools");
    command.arg("org.apache.kafka.tools.TransactionalMessageCopier").args(["--broker-list", &broker.bootstrap()]);
    command.args(["--input-topic", &input(round), "--input-partition", &number.to_string(), "--output-topic", &output(round)]);
    command.args(["--consumer-group", &format!("copiers-{round}"), "--transactional-id", &format!("copier-{round}-{number}")]);
    command.args(["--transaction-size", &RECORDS_PER_TRANSACTION.to_string(), "--transaction-timeout", "20000"]);
    command.args(["--enable-random-aborts", "--use-group-metadata"]);
    if shares(round) {
        command.arg("--group-mode");
    }
    let log = File::options().create(true).append(true).open(log).expect("a log can be made");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("java")
}

/// `kill -9`, unless it has ended.
fn end(copier: &mut Child) {
    let _ended = copier.kill();
    copier.wait().expect("a child of ours can be awaited");
}
