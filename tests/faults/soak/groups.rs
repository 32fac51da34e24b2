//! Consumers join, leave and are killed under traffic, and the broker is stopped and killed: every record that was acknowledged reaches every group, at least once.
//!
//! There is a group of the classic protocol and one of the consumer protocol. Members are processes (tests/harness/bin/group-member.rs) that print a record before they commit it. What
//! a group has committed never goes back.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use corelane_wire::Str;
use corelane_wire::messages::OffsetFetchRequest;
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use harness::broker::{Broker, BrokerOptions};
use harness::raw::Connection;
use harness::wait;
use rustix::process::{Pid, Signal, kill_process};

use super::{Run, kill_and_restart};
use crate::writer::{Kind, Progress, StopAtEnd, Writer};

const TOPIC: &str = "traffic";
const PARTITIONS: i32 = 4;
const MEMBERS_MAX: usize = 3;

/// When all faults are over: sessions of the killed have to end, and what is left has to be read.
const PATIENCE: Duration = Duration::from_secs(180);

/// The groups, and what their members are told beside bootstrap, group and topic.
const GROUPS: &[(&str, &[&str])] = &[
    ("soak-classic", &["group.protocol=classic", "session.timeout.ms=6000", "heartbeat.interval.ms=500"]),
    ("soak-consumer", &["group.protocol=consumer"]),
];

pub fn every_record_reaches_every_group() {
    let mut run = Run::begin();
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1));
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, PARTITIONS);
    let mut writers: Vec<Writer> = (0..PARTITIONS).map(|partition| writer(partition, connection.producer_id())).collect();
    let mut groups: Vec<Group> = GROUPS.iter().map(|(id, settings)| Group::new(id, settings)).collect();
    for group in &mut groups {
        connection.wait_for_coordinator(group.id);
        group.join(&broker);
    }
    let (progress, mut events) = (Arc::new(Progress::default()), BTreeMap::<&str, u64>::new());
    let address = broker.address();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        for writer in &mut writers {
            scope.spawn(|| writer.run(address, &progress));
        }
        while !run.is_over() {
            run.rest(500, 3_000);
            let event = disturb(&mut run, &mut broker, &mut groups);
            *events.entry(event).or_default() += 1;
        }
    });
    let mut connection = Connection::to(&broker);
    let ends: Vec<i64> = (0..PARTITIONS).map(|partition| connection.end_offset(TOPIC, partition)).collect();
    writers.iter_mut().for_each(|writer| writer.verify(&mut connection));
    for group in &mut groups {
        if group.members.is_empty() {
            group.join(&broker);
        }
        wait::until(&format!("all records in {}", group.id), PATIENCE, || group.has_all(&ends).then_some(()));
        group.check_committed(&mut connection);
        println!("{}: {} records came {} times", group.id, ends.iter().sum::<i64>(), group.deliveries());
    }
    println!("{events:?}; {} records acknowledged, every one read by every group", writers.iter().map(Writer::promised).sum::<u64>());
}

/// Its traffic goes on through the broker's ends, at a pace that members keep up with.
fn writer(partition: i32, producer_id: i64) -> Writer {
    Writer::new(TOPIC, partition, Kind::Idempotent, producer_id).resting(Duration::from_millis(20))
}

/// One thing happens; which.
fn disturb(run: &mut Run, broker: &mut Broker, groups: &mut [Group]) -> &'static str {
    let index = run.below(groups.len() as u64) as usize;
    let event = run.below(10);
    let group = &mut groups[index];
    let event = match (event, group.members.len()) {
        (0, _) => {
            kill_and_restart(broker);
            "the broker is killed"
        }
        (1, _) => {
            broker.terminate(Duration::from_secs(60));
            broker.restart();
            "the broker is stopped"
        }
        (2..=3, count) if count > 1 => {
            let member = run.below(group.members.len() as u64) as usize;
            group.members.remove(member).kill();
            "a member is killed"
        }
        (4..=5, count) if count > 1 => {
            let member = run.below(group.members.len() as u64) as usize;
            group.members.remove(member).leave();
            "a member leaves"
        }
        (_, count) if count < MEMBERS_MAX => {
            group.join(broker);
            "a member joins"
        }
        _ => "nothing",
    };
    let mut connection = Connection::to(broker);
    groups.iter_mut().for_each(|group| group.check_committed(&mut connection));
    event
}

/// How often each record came, by partition and offset.
type Delivered = Vec<Vec<u32>>;

struct Group {
    id: &'static str,
    settings: &'static [&'static str],
    members: Vec<Member>,
    delivered: Arc<Mutex<Delivered>>,
    /// What was committed when it was last asked for.
    committed: Vec<i64>,
}

impl Group {
    fn new(id: &'static str, settings: &'static [&'static str]) -> Group {
        let of_all = PARTITIONS as usize;
        Group { id, settings, members: Vec::new(), delivered: Arc::new(Mutex::new(vec![Vec::new(); of_all])), committed: vec![-1; of_all] }
    }

    fn join(&mut self, broker: &Broker) {
        self.members.push(Member::start(broker, self));
    }

    fn has_all(&self, ends: &[i64]) -> bool {
        let delivered = self.delivered.lock().expect("nobody panics with it");
        let has_all = |(times, end): (&Vec<u32>, &i64)| times.len() as i64 == *end && times.iter().all(|times| *times > 0);
        delivered.iter().zip(ends).all(has_all)
    }

    fn deliveries(&self) -> u64 {
        self.delivered.lock().expect("nobody panics with it").iter().flatten().map(|times| u64::from(*times)).sum()
    }

    /// What is committed has been read, and is not less than before. A coordinator that loads says nothing.
    fn check_committed(&mut self, connection: &mut Connection) {
        let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: (0..PARTITIONS).collect(), ..Default::default() };
        let request = OffsetFetchRequest { group_id: Str::from(self.id), topics: Some(vec![topic]), ..Default::default() };
        let answer = connection.call(5, &request);
        if answer.error_code != 0 {
            return;
        }
        for partition in &answer.topics[0].partitions {
            let (index, offset) = (partition.partition_index as usize, partition.committed_offset);
            assert!(offset >= self.committed[index], "{}: partition {index} went from {} back to {offset}", self.id, self.committed[index]);
            self.committed[index] = offset;
        }
    }
}

/// A process that reads for its group.
struct Member {
    process: Child,
}

impl Member {
    fn start(broker: &Broker, group: &Group) -> Member {
        let mut command = Command::new(env::var("CARGO_BIN_EXE_group-member").expect("cargo runs the tests"));
        command.args([&broker.bootstrap(), group.id, TOPIC]).args(group.settings);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a member can be started");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let delivered = Arc::clone(&group.delivered);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                note(&mut delivered.lock().expect("nobody panics with it"), &line);
            }
        });
        Member { process }
    }

    fn kill(mut self) {
        self.process.kill().expect("a child of ours can be killed");
        self.process.wait().expect("a child of ours can be awaited");
    }

    fn leave(mut self) {
        let pid = Pid::from_raw(self.process.id() as i32).expect("a process id is not 0");
        kill_process(pid, Signal::TERM).expect("a child of ours takes signals");
        wait::until("a member to leave", wait::PATIENCE, || self.process.try_wait().expect("a child of ours can be awaited"));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn note(delivered: &mut Delivered, line: &str) {
    let (partition, offset) = line.split_once(' ').expect("a partition and an offset");
    let (partition, offset): (usize, usize) = (partition.parse().expect("a number"), offset.parse().expect("a number"));
    let times = &mut delivered[partition];
    if times.len() <= offset {
        times.resize(offset + 1, 0);
    }
    times[offset] += 1;
}
