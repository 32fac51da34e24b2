//! Apache Kafka's own TransactionalMessageCopier, three at a time: each reads a topic, writes what it read to another and commits its position, all in one transaction, and gives some
//! of them up. Copiers and broker are killed meanwhile. A reader of committed records finds the input in the output, every record once and in its order.
//!
//! Rounds change between copiers that have a partition each and copiers that share the topic as a group, where who was killed or has lost a partition must be fenced by the group's
//! generation (KIP-447).

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::batch::record;
use harness::broker::{Broker, BrokerOptions, java_with};
use harness::committed::CommittedReader;
use harness::places;
use harness::raw::Connection;

use super::{Run, kill_and_restart};

const COPIERS: usize = 3;
const RECORDS_PER_PARTITION: usize = 2_000;
const RECORDS_PER_TRANSACTION: usize = 5;

/// For one round, whatever is killed.
const ROUND_LIMIT: Duration = Duration::from_secs(300);

pub fn copies_hold_every_record_once() {
    let mut run = Run::begin();
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1));
    let mut round = 0;
    while round < 2 || !run.is_over() {
        let mut copying = Copying::begin(&broker, round);
        while !copying.is_complete(&broker) {
            // A copier that starts has a JVM to load; a group has the session of the killed to wait for, ten seconds.
            let (from_ms, to_ms) = if shares(round) { (8_000, 14_000) } else { (3_000, 6_000) };
            run.rest(from_ms, to_ms);
            copying.disturb(&mut run, &mut broker);
        }
        println!("round {round}: {copying}");
        round += 1;
    }
}

/// One round: a topic and its copy.
struct Copying {
    round: u64,
    began: Instant,
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
        Copying {
            round,
            began: Instant::now(),
            copiers: (0..COPIERS).map(|number| start_copier(broker, round, number)).collect(),
            readers: (0..COPIERS as i32).map(|partition| CommittedReader::new(&output(round), partition)).collect(),
            copied: vec![0; COPIERS],
            copier_kills: 0,
            broker_kills: 0,
        }
    }

    /// Whether the copy holds everything; what it holds so far is compared with the input.
    fn is_complete(&mut self, broker: &Broker) -> bool {
        assert!(self.began.elapsed() < ROUND_LIMIT, "{self} after {ROUND_LIMIT:?}");
        let mut connection = Connection::to(broker);
        for (partition, reader) in self.readers.iter_mut().enumerate() {
            loop {
                let before = reader.next_offset();
                for (offset, found) in reader.poll(&mut connection).expect("the broker is there").records {
                    let next = self.copied[partition];
                    assert!(next < RECORDS_PER_PARTITION, "partition {partition}: more than the input at offset {offset}: {found:?}");
                    let expected = numbered(next);
                    assert_eq!((&found.key, &found.value), (&expected.key, &expected.value), "partition {partition}, offset {offset}");
                    self.copied[partition] += 1;
                }
                if reader.next_offset() == before {
                    break;
                }
            }
        }
        self.copied.iter().all(|copied| *copied == RECORDS_PER_PARTITION)
    }

    /// Kills somebody. Copiers that have ended, by themselves or so, come back: there may be something left for them.
    fn disturb(&mut self, run: &mut Run, broker: &mut Broker) {
        match run.below(8) {
            0 => {
                kill_and_restart(broker);
                self.broker_kills += 1;
            }
            _ => {
                end(&mut self.copiers[run.below(COPIERS as u64) as usize]);
                self.copier_kills += 1;
            }
        }
        for (number, copier) in self.copiers.iter_mut().enumerate() {
            if copier.try_wait().expect("a child of ours can be awaited").is_some() {
                *copier = start_copier(broker, self.round, number);
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

fn start_copier(broker: &Broker, round: u64, number: usize) -> Child {
    let mut command = java_with("tools");
    command.arg("org.apache.kafka.tools.TransactionalMessageCopier").args(["--broker-list", &broker.bootstrap()]);
    command.args(["--input-topic", &input(round), "--input-partition", &number.to_string(), "--output-topic", &output(round)]);
    command.args(["--consumer-group", &format!("copiers-{round}"), "--transactional-id", &format!("copier-{round}-{number}")]);
    command.args(["--transaction-size", &RECORDS_PER_TRANSACTION.to_string(), "--transaction-timeout", "20000"]);
    command.args(["--enable-random-aborts", "--use-group-metadata"]);
    if shares(round) {
        command.arg("--group-mode");
    }
    let log = File::options().create(true).append(true).open(places::scratch().join("copiers.log")).expect("a log can be made");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("java")
}

/// `kill -9`, unless it has ended.
fn end(copier: &mut Child) {
    let _ended = copier.kill();
    copier.wait().expect("a child of ours can be awaited");
}
