//! Consumers join, leave and are killed under traffic, and the broker is stopped and killed: every record that was acknowledged reaches every group, at least once.
//!
//! There is a group of the classic protocol and one of the consumer protocol. Members are processes (tests/harness/bin/member.rs) that print a record before they commit it. What
//! a group has committed has been read, every record of it, and never goes back. What members and coordinator say to each other is listened to (`observer`): no partition has two owners
//! in one generation or epoch (`owners`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
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

use super::observer::Observer;
use super::{Run, kill_and_restart};
use crate::writer::{Kind, Progress, StopAtEnd, Writer};

const TOPIC: &str = "traffic";
const PARTITIONS: i32 = 4;
const MEMBERS_MAX: usize = 3;

/// Less than this in a minute is not the traffic that is meant.
const ACKNOWLEDGED_MIN: u64 = 1_000;

/// When all faults are over: sessions of the killed have to end, and what is left has to be read.
const PATIENCE: Duration = Duration::from_secs(180);

/// The groups, and what their members are told beside bootstrap, group and topic.
const GROUPS: &[(&str, &[&str])] = &[
    ("soak-classic", &["group.protocol=classic", "session.timeout.ms=6000", "heartbeat.interval.ms=500"]),
    ("soak-consumer", &["group.protocol=consumer"]),
];

/// What happens to broker and members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    MemberJoins,
    MemberKilled,
    MemberLeaves,
    BrokerKilled,
    BrokerStopped,
}

impl Event {
    const ALL: [Event; 5] = [Event::MemberJoins, Event::MemberKilled, Event::MemberLeaves, Event::BrokerKilled, Event::BrokerStopped];

    /// What has not happened yet comes first; then by chance.
    fn next(run: &mut Run, happened: &Happened, members: usize) -> Option<Event> {
        let drawn = match run.below(10) {
            0 => Event::BrokerKilled,
            1 => Event::BrokerStopped,
            2..=3 => Event::MemberKilled,
            4..=5 => Event::MemberLeaves,
            _ => Event::MemberJoins,
        };
        let is_possible = |event: &Event| match event {
            Event::MemberJoins => members < MEMBERS_MAX,
            Event::MemberKilled | Event::MemberLeaves => members > 1,
            Event::BrokerKilled | Event::BrokerStopped => true,
        };
        let new = Event::ALL.into_iter().filter(|event| !happened.contains_key(event));
        new.chain([drawn, Event::MemberJoins]).find(is_possible)
    }
}

/// How often.
type Happened = BTreeMap<Event, u64>;

pub fn every_record_reaches_every_group() {
    let mut run = Run::begin();
    let observer = Observer::listen();
    let advertised = format!("PLAINTEXT://{}", observer.address());
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1).set("advertised.listeners", advertised));
    observer.lead_to(broker.address());
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, PARTITIONS);
    let mut writers: Vec<Writer> = (0..PARTITIONS).map(|partition| writer(partition, connection.producer_id())).collect();
    let mut groups: Vec<Group> = GROUPS.iter().map(|(id, settings)| Group::new(id, settings, observer.address())).collect();
    for group in &mut groups {
        connection.wait_for_coordinator(group.id);
        group.join();
    }
    let (progress, mut happened) = (Arc::new(Progress::default()), Happened::new());
    let address = broker.address();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        for writer in &mut writers {
            scope.spawn(|| writer.run(address, &progress));
        }
        while !run.is_over() {
            run.rest(500, 3_000);
            disturb(&mut run, &mut broker, &mut groups, &mut happened);
            observer.owners().check();
        }
    });
    let mut connection = Connection::to(&broker);
    let ends: Vec<i64> = (0..PARTITIONS).map(|partition| connection.end_offset(TOPIC, partition)).collect();
    writers.iter_mut().for_each(|writer| writer.verify(&mut connection));
    for group in &mut groups {
        if group.members.is_empty() {
            group.join();
        }
        wait::until(&format!("all records in {}", group.id), PATIENCE, || group.has_all(&ends).then_some(()));
        wait::until(&format!("the positions of {}", group.id), PATIENCE, || group.check_committed(&mut connection).then_some(()));
        let (generations, members) = observer.owners().seen(group.id);
        println!("{}: {} records came {} times", group.id, ends.iter().sum::<i64>(), group.deliveries());
        println!("{}: no partition had two owners in any of {generations} generations or epochs, with {members} members in all", group.id);
        assert!(generations > 1 && members > 1, "{} has hardly moved", group.id);
    }
    observer.owners().check();
    let acknowledged: u64 = writers.iter().map(Writer::promised).sum();
    println!("{happened:?}; {acknowledged} records acknowledged, every one read by every group");
    assert!(acknowledged >= ACKNOWLEDGED_MIN && Event::ALL.iter().all(|event| happened.contains_key(event)));
}

/// Its traffic goes on through the broker's ends, at a pace that members keep up with.
fn writer(partition: i32, producer_id: i64) -> Writer {
    Writer::new(TOPIC, partition, Kind::Idempotent, producer_id).resting(Duration::from_millis(20))
}

/// One thing happens, to one of the groups if it is about members.
fn disturb(run: &mut Run, broker: &mut Broker, groups: &mut [Group], happened: &mut Happened) {
    let index = run.below(groups.len() as u64) as usize;
    let group = &mut groups[index];
    let Some(event) = Event::next(run, happened, group.members.len()) else { return };
    match event {
        Event::MemberJoins => group.join(),
        Event::MemberKilled => group.take_member(run).kill(),
        Event::MemberLeaves => group.take_member(run).leave(),
        Event::BrokerKilled => kill_and_restart(broker),
        Event::BrokerStopped => {
            broker.terminate(Duration::from_secs(60));
            broker.restart();
        }
    }
    *happened.entry(event).or_default() += 1;
    let mut connection = Connection::to(broker);
    for group in groups {
        // A coordinator that loads says nothing; it is asked again after the next event.
        group.check_committed(&mut connection);
    }
}

/// How often each record came, by partition and offset.
type Delivered = Vec<Vec<u32>>;

struct Group {
    id: &'static str,
    settings: &'static [&'static str],
    /// Where its members find the broker.
    address: SocketAddr,
    members: Vec<Member>,
    delivered: Arc<Mutex<Delivered>>,
    /// What was committed when it was last asked for.
    committed: Vec<i64>,
}

impl Group {
    fn new(id: &'static str, settings: &'static [&'static str], address: SocketAddr) -> Group {
        let of_all = PARTITIONS as usize;
        let delivered = Arc::new(Mutex::new(vec![Vec::new(); of_all]));
        Group { id, settings, address, members: Vec::new(), delivered, committed: vec![-1; of_all] }
    }

    fn join(&mut self) {
        self.members.push(Member::start(self));
    }

    fn take_member(&mut self, run: &mut Run) -> Member {
        let member = run.below(self.members.len() as u64) as usize;
        self.members.remove(member)
    }

    fn has_all(&self, ends: &[i64]) -> bool {
        let delivered = self.delivered.lock().expect("nobody panics with it");
        let has_all = |(times, end): (&Vec<u32>, &i64)| times.len() as i64 == *end && times.iter().all(|times| *times > 0);
        delivered.iter().zip(ends).all(has_all)
    }

    fn deliveries(&self) -> u64 {
        self.delivered.lock().expect("nobody panics with it").iter().flatten().map(|times| u64::from(*times)).sum()
    }

    /// What is committed has been read, and is not less than before. Whether the coordinator told.
    fn check_committed(&mut self, connection: &mut Connection) -> bool {
        let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: (0..PARTITIONS).collect(), ..Default::default() };
        let request = OffsetFetchRequest { group_id: Str::from(self.id), topics: Some(vec![topic]), ..Default::default() };
        let answer = connection.call(5, &request);
        if answer.error_code != 0 {
            return false;
        }
        for partition in &answer.topics[0].partitions {
            let (index, offset) = (partition.partition_index as usize, partition.committed_offset);
            assert!(offset >= self.committed[index], "{}: partition {index} went from {} back to {offset}", self.id, self.committed[index]);
            self.committed[index] = offset;
            // A member says what it has read before it commits; that may still be on its way to us.
            wait::until(&format!("{} to have read partition {index} up to {offset}", self.id), wait::PATIENCE, || {
                (self.read_prefix(index) >= offset).then_some(())
            });
        }
        true
    }

    /// Up to where every record of the partition has been read.
    fn read_prefix(&self, partition: usize) -> i64 {
        let delivered = self.delivered.lock().expect("nobody panics with it");
        delivered[partition].iter().take_while(|times| **times > 0).count() as i64
    }
}

/// A process that reads for its group.
struct Member {
    process: Child,
}

impl Member {
    fn start(group: &Group) -> Member {
        let mut command = Command::new(env!("CARGO_BIN_EXE_member"));
        command.args([&group.address.to_string(), group.id, TOPIC]).args(group.settings);
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
