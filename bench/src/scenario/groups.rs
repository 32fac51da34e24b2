//! `groups`: many consumers in many groups. They join, are assigned, send heartbeats, and commit offsets on a schedule; at the end every group is asked for what it has committed. Or
//! they do nothing but join anew, all at once, with another subscription each time: how long until each has its partitions again.
//!
//! A member is a state machine over a connection of its own; the thread goes round them as in every scenario. The classic protocol, since every client speaks it; the consumer protocol
//! is in `consumer_groups`.
//!
//! A rebalance is over in some ten microseconds for each member, so the client does then only what has to be done then: requests that are known before are encoded before, and a look
//! at every member with every answer is none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use corelane_wire::messages::join_group_request::JoinGroupRequestProtocol;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use corelane_wire::messages::{
    FindCoordinatorRequest, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
};
use corelane_wire::{ApiKey, Decoder, ErrorCode, Message, Request, Str, read_response_header};

use super::rebalances::Rebalances;
use super::{Target, conclude, facts};
use crate::client::admin::{Admin, error_name};
use crate::client::connection::{Connection, frame_of, invalid};
use crate::client::readiness::Readiness;
use crate::clock::{Clock, seconds_ns};
use crate::failure::Failure;
use crate::load::{ClientLag, Counts, Setup, gone};
use crate::outcome::Outcome;
use crate::progress::{Counters, Monitor};
use crate::recorder::{LoopKind, Recorder, Window};
use crate::schedule::Schedule;
use crate::verify::Verdict;
use crate::workload::Rate;

const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const HEARTBEAT_VERSION: i16 = 3;
pub(super) const COMMIT_VERSION: i16 = 7;
pub(super) const OFFSET_FETCH_VERSION: i16 = 7;
const FIND_COORDINATOR_VERSION: i16 = 2;

/// While groups form, members look often whether they are to join again; a real consumer's interval would only make the forming longer.
const FORMING_HEARTBEAT_NS: u64 = 200_000_000;
/// When a member that still waits for an answer is looked at again.
const HELD_BACK_NS: u64 = 1_000_000;
const HEARTBEAT_NS: u64 = 1_000_000_000;
const FORMING_MAX_NS: u64 = 120_000_000_000;
const LAST_ANSWER_MAX_NS: u64 = 15_000_000_000;

pub fn run(setup: &Setup<'_>, target: &Target) -> Result<Outcome, Failure> {
    let workload = setup.workload;
    let began = SystemTime::now();
    let mut crowd = Crowd::connect(setup, target)?;
    Admin::connect(setup.address, setup.congestion_control)?.prepare_coordinators("__consumer_offsets", workload.class)?;
    let forming_ns = crowd.form()?;
    crowd.drain()?;

    let start_ns = setup.clock.now_ns() + 10_000_000;
    let window_start_ns = start_ns + seconds_ns(workload.warm_up_seconds);
    let window = Window { start_ns: window_start_ns, end_ns: window_start_ns + seconds_ns(workload.duration_seconds) };
    crowd.begin(start_ns, window);
    let monitor = Monitor::start(setup.clock, &setup.counters, target.watched.clone(), Some(window), target);
    let stopped = if workload.rebalances { crowd.rebalance() } else { crowd.commit(setup) }.err();
    let costs = monitor.finish();
    crowd.close();
    let verdict = if stopped.is_none() { Some(crowd.verify(setup)?) } else { None };

    let recorders = [&crowd.committed, &crowd.heartbeat, &crowd.joined];
    if let Some(path) = &target.keep {
        for recorder in recorders {
            recorder.keep(path, began).map_err(|error| Failure::Machine(error.to_string()))?;
        }
    }
    let refused = crowd
        .counts
        .first_error
        .as_ref()
        .map(|error| Failure::Refused(format!("{} commits or heartbeats, first {error}", crowd.counts.failed)));
    let mut more =
        BTreeMap::from([("forming_ms".to_string(), forming_ns as f64 / 1e6), ("members".to_string(), crowd.members.len() as f64)]);
    more.extend(crowd.rebalances.figures());
    let outcome = Outcome {
        workload: workload.clone(),
        client: facts(target),
        seconds: window.seconds(),
        records: crowd.counts.arrived,
        bytes: 0,
        counts: crowd.counts.clone(),
        client_lag: ClientLag::default(),
        latencies: recorders.iter().map(|recorder| recorder.finish()).collect(),
        costs,
        more,
        verdict: None,
        not_read_back: None,
        partial: stopped.is_some(),
        failure: stopped.or(refused),
    };
    Ok(conclude(outcome, verdict))
}

/// What a member waits for.
#[derive(Clone, Copy)]
enum Asked {
    Join,
    Sync,
    Heartbeat { due_ns: u64 },
    Commit { due_ns: u64, offset: i64 },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    Joining,
    Stable,
}

struct Member {
    connection: Connection,
    group: usize,
    /// The partition whose offsets it commits.
    partition: i32,
    id: Str,
    generation: i32,
    state: State,
    joining_since_ns: u64,
    heartbeat_due_ns: u64,
    commits: u64,
    acknowledged: Option<i64>,
    /// How many partitions its assignment has.
    assigned: usize,
    asked: VecDeque<Asked>,
}

struct Crowd {
    clock: Clock,
    topic: Str,
    prefix: String,
    members: Vec<Member>,
    per_group: usize,
    partitions: usize,
    /// How often all have joined; a part of what members subscribe with, so that another number makes another generation.
    joins: u32,
    rebalances: Rebalances,
    /// Members without an assignment of the generation that forms.
    unsettled: usize,
    /// When the last JoinGroup was answered.
    joined_ns: u64,
    /// Who is to send a heartbeat when; what does not agree with the member is an old entry.
    beats: BinaryHeap<Reverse<(u64, usize)>>,
    /// What the leader of a group in which all members are here gives to each.
    assignments: Vec<Bytes>,
    readiness: Readiness,
    counters: Arc<Counters>,
    schedule: Option<Schedule>,
    window: Window,
    heartbeat_ns: u64,
    counts: Counts,
    /// From the time when a commit was due to its answer.
    committed: Recorder,
    heartbeat: Recorder,
    /// From the first question of a member to its assignment.
    joined: Recorder,
}

impl Crowd {
    fn connect(setup: &Setup<'_>, target: &Target) -> Result<Crowd, Failure> {
        let workload = setup.workload;
        let prefix = format!("{}-group", setup.topic);
        let mut members = Vec::new();
        super::connections::allow_descriptors((workload.groups * workload.members) as u64)?;
        for group in 0..workload.groups {
            for member in 0..workload.members {
                let mut connection = setup.connect()?;
                if member == 0 {
                    find_coordinator(&mut connection, &format!("{prefix}-{group}"))?;
                }
                members.push(Member {
                    connection,
                    group,
                    partition: member as i32 % workload.partitions,
                    id: Str::default(),
                    generation: -1,
                    state: State::Outside,
                    joining_since_ns: 0,
                    heartbeat_due_ns: u64::MAX,
                    commits: 0,
                    acknowledged: None,
                    assigned: 0,
                    asked: VecDeque::new(),
                });
            }
        }
        let readiness = Readiness::of(members.iter().map(|member| member.connection.as_fd())).map_err(Failure::machine("epoll"))?;
        let now_ns = setup.clock.now_ns();
        let forming = Window { start_ns: now_ns, end_ns: now_ns + FORMING_MAX_NS };
        Ok(Crowd {
            clock: setup.clock,
            topic: Str::from(setup.topic),
            prefix,
            members,
            per_group: workload.members,
            partitions: workload.partitions as usize,
            joins: 0,
            rebalances: Rebalances::watching(target),
            unsettled: 0,
            joined_ns: 0,
            beats: BinaryHeap::new(),
            assignments: deal(&Str::from(setup.topic), workload.members, workload.partitions as usize),
            readiness,
            counters: setup.counters.clone(),
            schedule: None,
            window: forming,
            heartbeat_ns: FORMING_HEARTBEAT_NS,
            counts: Counts::default(),
            committed: Recorder::new("committed", LoopKind::Open, forming),
            heartbeat: Recorder::new("heartbeat", LoopKind::Open, forming),
            joined: Recorder::new("joined", LoopKind::Closed, forming),
        })
    }

    /// All members join at once; done when every group has one generation that all its members are in, and every partition has its member. Gives how long that took.
    fn form(&mut self) -> Result<u64, Failure> {
        self.joins += 1;
        let frames: Vec<Vec<u8>> =
            (0..self.members.len()).map(|place| self.join_frame(place)).collect::<io::Result<_>>().map_err(|error| gone(&error))?;
        let began_ns = self.clock.now_ns();
        for (place, frame) in frames.iter().enumerate() {
            self.members[place].joining_since_ns = began_ns;
            self.send_join(place, frame).map_err(|error| gone(&error))?;
        }
        while !self.is_formed() {
            self.round()?;
            if self.clock.now_ns() > began_ns + FORMING_MAX_NS {
                return Err(Failure::Refused(format!("the groups did not form in {} s", Duration::from_nanos(FORMING_MAX_NS).as_secs())));
            }
        }
        Ok(self.clock.now_ns() - began_ns)
    }

    /// Until nothing is under way, so that the window begins with what is due in it.
    fn drain(&mut self) -> Result<(), Failure> {
        let began_ns = self.clock.now_ns();
        self.members.iter_mut().for_each(|member| member.heartbeat_due_ns = u64::MAX);
        while self.members.iter().any(|member| !member.asked.is_empty()) && self.clock.now_ns() < began_ns + LAST_ANSWER_MAX_NS {
            self.round()?;
        }
        Ok(())
    }

    fn is_formed(&self) -> bool {
        if self.unsettled > 0 {
            return false;
        }
        self.members.chunks(self.per_group).all(|group| {
            group.iter().all(|member| member.state == State::Stable && member.generation == group[0].generation)
                && group.iter().map(|member| member.assigned).sum::<usize>() == self.partitions
        })
    }

    /// The window: one rebalance after another. Those that end after it count as well, or a slow broker would have none.
    fn rebalance(&mut self) -> Result<(), Failure> {
        self.heartbeat_ns = FORMING_HEARTBEAT_NS;
        while self.clock.now_ns() < self.window.end_ns {
            let before = self.rebalances.look();
            let settled_ns = self.form()?;
            let ended_ns = self.clock.now_ns();
            if ended_ns - settled_ns >= self.window.start_ns {
                let joined_ns = (self.joined_ns + settled_ns).saturating_sub(ended_ns);
                self.rebalances.count(before, settled_ns, joined_ns);
            }
        }
        Ok(())
    }

    fn begin(&mut self, start_ns: u64, window: Window) {
        self.window = window;
        self.committed = Recorder::new("committed", LoopKind::Open, window);
        self.heartbeat = Recorder::new("heartbeat", LoopKind::Open, window);
        self.heartbeat_ns = HEARTBEAT_NS;
        let count = self.members.len() as u64;
        // Evenly over the interval, as they would be by chance.
        for place in 0..self.members.len() {
            self.beat_at(place, start_ns + place as u64 * HEARTBEAT_NS / count);
        }
    }

    fn beat_at(&mut self, place: usize, due_ns: u64) {
        self.members[place].heartbeat_due_ns = due_ns;
        self.beats.push(Reverse((due_ns, place)));
    }

    /// The window: commits on the schedule, heartbeats in between.
    fn commit(&mut self, setup: &Setup<'_>) -> Result<(), Failure> {
        self.schedule = schedule_of(setup, self.window, self.members.len());
        let mut over_ns = None;
        loop {
            let now_ns = self.clock.now_ns();
            let is_over = now_ns >= self.window.end_ns;
            if !is_over {
                self.send_due(now_ns)?;
            }
            self.round()?;
            if is_over {
                let over_ns = *over_ns.get_or_insert(now_ns);
                if self.members.iter().all(|member| member.asked.is_empty()) || now_ns > over_ns + LAST_ANSWER_MAX_NS {
                    return Ok(());
                }
            }
        }
    }

    fn send_due(&mut self, now_ns: u64) -> Result<(), Failure> {
        let Some(schedule) = self.schedule.clone() else { return Ok(()) };
        for place in 0..self.members.len() {
            let due_ns = schedule.record_due_ns(place, self.members[place].commits);
            if due_ns <= now_ns && due_ns < self.window.end_ns && self.members[place].state == State::Stable {
                let offset = self.members[place].commits as i64;
                self.members[place].commits += 1;
                self.ask_commit(place, due_ns, offset).map_err(|error| gone(&error))?;
            }
        }
        Ok(())
    }

    /// Takes what has come, and sends heartbeats that are due.
    fn round(&mut self) -> Result<(), Failure> {
        let ready: Vec<usize> = self.readiness.look().map_err(Failure::machine("epoll"))?.to_vec();
        for place in ready {
            self.receive(place).map_err(|error| gone(&error))?;
        }
        let now_ns = self.clock.now_ns();
        while now_ns < self.window.end_ns
            && let Some(Reverse((due_ns, place))) = self.beats.peek().copied().filter(|Reverse((due_ns, _))| *due_ns <= now_ns)
        {
            self.beats.pop();
            self.beat(place, due_ns, now_ns).map_err(|error| gone(&error))?;
        }
        Ok(())
    }

    fn beat(&mut self, place: usize, due_ns: u64, now_ns: u64) -> io::Result<()> {
        let member = &mut self.members[place];
        if member.state != State::Stable || member.heartbeat_due_ns != due_ns {
            return Ok(());
        }
        // While groups form, a heartbeat is only a question whether to join again: one at a time, or ten thousand members ask more than anybody can answer.
        if self.heartbeat_ns < HEARTBEAT_NS && !member.asked.is_empty() {
            self.beat_at(place, now_ns + HELD_BACK_NS);
            return Ok(());
        }
        let request = HeartbeatRequest {
            group_id: group_name(&self.prefix, member.group),
            generation_id: member.generation,
            member_id: member.id.clone(),
            ..Default::default()
        };
        member.ask(HEARTBEAT_VERSION, &request, Asked::Heartbeat { due_ns })?;
        self.beat_at(place, due_ns + self.heartbeat_ns);
        Ok(())
    }

    fn receive(&mut self, place: usize) -> io::Result<()> {
        self.members[place].connection.flush()?;
        if !self.members[place].connection.receive()? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        while let Some(frame) = self.members[place].connection.next_frame().map(Bytes::copy_from_slice) {
            let asked = self.members[place].asked.pop_front().ok_or_else(|| invalid("an answer that nobody asked for"))?;
            match asked {
                Asked::Join => {
                    self.joined_ns = now_ns;
                    self.on_join(place, read(frame, ApiKey::JoinGroup, JOIN_VERSION)?)?;
                }
                Asked::Sync => self.on_sync(place, &read(frame, ApiKey::SyncGroup, SYNC_VERSION)?, now_ns)?,
                Asked::Heartbeat { due_ns } => {
                    let response: HeartbeatResponse = read(frame, ApiKey::Heartbeat, HEARTBEAT_VERSION)?;
                    self.heartbeat.record(due_ns, now_ns.saturating_sub(due_ns));
                    self.on_error(place, response.error_code)?;
                }
                Asked::Commit { due_ns, offset } => {
                    let response: OffsetCommitResponse = read(frame, ApiKey::OffsetCommit, COMMIT_VERSION)?;
                    let code = response
                        .topics
                        .iter()
                        .flat_map(|topic| &topic.partitions)
                        .map(|partition| partition.error_code)
                        .find(|code| *code != 0);
                    self.on_commit(place, due_ns, offset, code, now_ns)?;
                }
            }
        }
        Ok(())
    }

    fn join(&mut self, place: usize) -> io::Result<()> {
        let frame = self.join_frame(place)?;
        self.send_join(place, &frame)
    }

    fn join_frame(&self, place: usize) -> io::Result<Vec<u8>> {
        let member = &self.members[place];
        let protocol =
            JoinGroupRequestProtocol { name: "range".into(), metadata: subscription(&self.topic, self.joins), ..Default::default() };
        let request = JoinGroupRequest {
            group_id: group_name(&self.prefix, member.group),
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 60_000,
            member_id: member.id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        };
        frame_of(JOIN_VERSION, 1, &request)
    }

    fn send_join(&mut self, place: usize, frame: &[u8]) -> io::Result<()> {
        let member = &mut self.members[place];
        if member.state != State::Joining {
            member.state = State::Joining;
            self.unsettled += 1;
        }
        member.asked.push_back(Asked::Join);
        member.connection.send(frame)
    }

    fn on_join(&mut self, place: usize, response: JoinGroupResponse) -> io::Result<()> {
        let member = &mut self.members[place];
        if response.error_code != 0 {
            if response.error_code == ErrorCode::MemberIdRequired.code() {
                member.id = response.member_id.detached();
            } else if response.error_code == ErrorCode::UnknownMemberId.code() {
                member.id = Str::default();
            } else if !is_passing(response.error_code) {
                return Err(io::Error::other(format!("JoinGroup: {}", error_name(response.error_code))));
            }
            return self.join(place);
        }
        member.id = response.member_id.detached();
        member.generation = response.generation_id;
        // The leader deals out the partitions, one to each in turn.
        let is_leader = response.leader == response.member_id;
        let members = if is_leader { response.members.as_slice() } else { &[] };
        let fewer = (members.len() != self.assignments.len()).then(|| deal(&self.topic, members.len(), self.partitions));
        let shares = fewer.as_ref().unwrap_or(&self.assignments);
        let assignments = members.iter().zip(shares).map(|(other, share)| SyncGroupRequestAssignment {
            member_id: other.member_id.clone(),
            assignment: share.clone(),
            ..Default::default()
        });
        let request = SyncGroupRequest {
            group_id: group_name(&self.prefix, member.group),
            generation_id: member.generation,
            member_id: member.id.clone(),
            assignments: assignments.collect(),
            ..Default::default()
        };
        member.ask(SYNC_VERSION, &request, Asked::Sync)
    }

    fn on_sync(&mut self, place: usize, response: &SyncGroupResponse, now_ns: u64) -> io::Result<()> {
        if response.error_code != 0 {
            return self.on_error(place, response.error_code);
        }
        let member = &mut self.members[place];
        // It was not counted twice: a member asks for one thing at a time while it joins.
        self.unsettled -= usize::from(member.state == State::Joining);
        member.state = State::Stable;
        member.assigned = assigned_partitions(&response.assignment);
        self.joined.record(member.joining_since_ns, now_ns - member.joining_since_ns);
        self.beat_at(place, now_ns + self.heartbeat_ns);
        Ok(())
    }

    fn on_commit(&mut self, place: usize, due_ns: u64, offset: i64, code: Option<i16>, now_ns: u64) -> io::Result<()> {
        if let Some(code) = code {
            self.counts.failed += u64::from(self.window.contains(due_ns));
            self.counts.first_error.get_or_insert_with(|| error_name(code));
            return self.on_error(place, code);
        }
        self.members[place].acknowledged = Some(offset);
        self.committed.record(due_ns, now_ns.saturating_sub(due_ns));
        self.counters.count(1, 0, now_ns.saturating_sub(due_ns));
        self.counts.acknowledged += u64::from(self.window.contains(due_ns));
        self.counts.arrived += u64::from(self.window.contains(now_ns));
        Ok(())
    }

    /// A member that is told so joins again; anything else is told to the reader.
    fn on_error(&mut self, place: usize, code: i16) -> io::Result<()> {
        if code == 0
            || self.members[place].state == State::Joining && self.members[place].asked.iter().any(|asked| matches!(asked, Asked::Join))
        {
            return Ok(());
        }
        if code == ErrorCode::UnknownMemberId.code() {
            self.members[place].id = Str::default();
        } else if !is_passing(code) {
            return Err(io::Error::other(error_name(code)));
        }
        self.members[place].joining_since_ns = self.clock.now_ns();
        self.join(place)
    }

    fn ask_commit(&mut self, place: usize, due_ns: u64, offset: i64) -> io::Result<()> {
        let member = &mut self.members[place];
        let partition = OffsetCommitRequestPartition { partition_index: member.partition, committed_offset: offset, ..Default::default() };
        let topic = OffsetCommitRequestTopic { name: self.topic.clone(), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: group_name(&self.prefix, member.group),
            generation_id_or_member_epoch: member.generation,
            member_id: member.id.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        member.ask(COMMIT_VERSION, &request, Asked::Commit { due_ns, offset })
    }

    /// Charges commits without an answer.
    fn close(&mut self) {
        let now_ns = self.clock.now_ns();
        for member in &self.members {
            for asked in &member.asked {
                if let Asked::Commit { due_ns, .. } = asked {
                    self.committed.record_unfinished(*due_ns, now_ns.saturating_sub(*due_ns));
                    self.counts.unfinished += u64::from(self.window.contains(*due_ns));
                }
            }
        }
        self.counts.scheduled = self.counts.acknowledged + self.counts.failed + self.counts.unfinished;
    }

    /// Every group is asked for its offsets: each partition's must be the last one acknowledged to any member of it, or a later one.
    fn verify(&mut self, setup: &Setup<'_>) -> Result<Verdict, Failure> {
        let mut verdict = Verdict { acknowledged: self.counts.acknowledged, ..Verdict::default() };
        let mut connection = Connection::open(setup.address, setup.congestion_control).map_err(|error| gone(&error))?;
        for group in self.members.chunks(self.per_group) {
            let mut indexes: Vec<i32> = group.iter().map(|member| member.partition).collect();
            indexes.sort_unstable();
            indexes.dedup();
            let topic = OffsetFetchRequestTopic { name: self.topic.clone(), partition_indexes: indexes, ..Default::default() };
            let request =
                OffsetFetchRequest { group_id: group_name(&self.prefix, group[0].group), topics: Some(vec![topic]), ..Default::default() };
            let response = connection.ask(OFFSET_FETCH_VERSION, &request).map_err(|error| gone(&error))?;
            for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
                let mine = group.iter().filter(|member| member.partition == partition.partition_index);
                // Members that share a partition overwrite each other: the least of their last ones must be there.
                let least = mine.filter_map(|member| member.acknowledged).min();
                verdict.read += 1;
                verdict.missing += u64::from(least.is_some_and(|least| partition.committed_offset < least));
            }
        }
        Ok(verdict)
    }
}

/// Of commits: one after another from all members in turn.
fn schedule_of(setup: &Setup<'_>, window: Window, members: usize) -> Option<Schedule> {
    let start_ns = window.start_ns - seconds_ns(setup.workload.warm_up_seconds);
    match setup.workload.rate {
        Rate::PerSecond(rate) => Some(Schedule::new(start_ns, rate, members, 1, None)),
        Rate::Max | Rate::ShareOfMax(_) => None,
    }
}

impl Member {
    fn ask<R: Request>(&mut self, version: i16, request: &R, asked: Asked) -> io::Result<()> {
        self.asked.push_back(asked);
        self.connection.send(&frame_of(version, 1, request)?)
    }
}

/// Answers after which a member only has to join again, or to ask once more.
pub(super) fn is_passing(code: i16) -> bool {
    [
        ErrorCode::RebalanceInProgress,
        ErrorCode::IllegalGeneration,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
    ]
    .iter()
    .any(|passing| passing.code() == code)
}

/// Until it is there: a broker makes the offsets' topic when it is first asked.
pub(super) fn find_coordinator(connection: &mut Connection, group: &str) -> Result<(), Failure> {
    let mut code = 0;
    for _ in 0..300 {
        let request = FindCoordinatorRequest { key: Str::from(group), key_type: 0, ..Default::default() };
        code = connection.ask(FIND_COORDINATOR_VERSION, &request).map_err(|error| gone(&error))?.error_code;
        if code == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::Refused(format!("no coordinator for {group}: {}", error_name(code))))
}

pub(super) fn group_name(prefix: &str, group: usize) -> Str {
    Str::from(format!("{prefix}-{group}").as_str())
}

/// A consumer's subscription, version 0: the topic, and what assignors would remember, here only a number.
fn subscription(topic: &Str, number: u32) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(topic.as_str().len() as i16);
    bytes.put_slice(topic.as_str().as_bytes());
    bytes.put_i32(4);
    bytes.put_u32(number);
    bytes.freeze()
}

/// The partitions dealt out to so many members, one to each in turn.
fn deal(topic: &Str, members: usize, partitions: usize) -> Vec<Bytes> {
    (0..members).map(|number| assignment(topic, (number..partitions).step_by(members))).collect()
}

/// A consumer's assignment, version 0: the topic with these partitions, no user data.
fn assignment(topic: &Str, partitions: impl ExactSizeIterator<Item = usize>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(topic.as_str().len() as i16);
    bytes.put_slice(topic.as_str().as_bytes());
    bytes.put_i32(partitions.len() as i32);
    partitions.for_each(|partition| bytes.put_i32(partition as i32));
    bytes.put_i32(-1);
    bytes.freeze()
}

/// How many there are in an assignment of [`assignment`]; none in an empty one.
fn assigned_partitions(assignment: &Bytes) -> usize {
    let name_bytes = assignment.get(6..8).map_or(0, |length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    assignment.get(8 + name_bytes..12 + name_bytes).map_or(0, |count| u32::from_be_bytes(count.try_into().expect("four bytes")) as usize)
}

pub(super) fn read<M: Message>(frame: Bytes, api_key: ApiKey, version: i16) -> io::Result<M> {
    let mut decoder = Decoder::new(frame);
    read_response_header(&mut decoder, api_key, version).map_err(invalid)?;
    M::decode(&mut decoder, version).map_err(invalid)
}
