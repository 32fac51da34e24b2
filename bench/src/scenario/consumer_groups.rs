//! `groups` with members of the consumer protocol (KIP-848): all members of a new group join at once, and again in another group as soon as they have left it. How long until each has come
//! to the epoch of all others, and every partition has its one owner.
//!
//! A member says at once that it took over what it was given, as clients do; else it sends a heartbeat every now and then, far more often than a client would, because how soon a
//! member asks is nothing that a broker can be measured by.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::SystemTime;

use bytes::Bytes;
use corelane_wire::messages::consumer_group_heartbeat_request::TopicPartitions;
use corelane_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use corelane_wire::{ApiKey, ErrorCode, Str};

use super::groups::{find_coordinator, group_name, is_passing, read};
use super::rebalances::Rebalances;
use super::{Target, facts};
use crate::client::admin::{Admin, error_name};
use crate::client::connection::{Connection, frame_of};
use crate::client::readiness::Readiness;
use crate::clock::{Clock, seconds_ns};
use crate::failure::Failure;
use crate::load::{ClientLag, Counts, Setup, gone};
use crate::outcome::Outcome;
use crate::progress::Monitor;
use crate::recorder::{LoopKind, Recorder, Window};

const HEARTBEAT_VERSION: i16 = 1;
const LEAVING_EPOCH: i32 = -1;

/// Between a member's heartbeats that have nothing to tell.
const BEAT_NS: u64 = 20_000_000;
const SETTLING_MAX_NS: u64 = 120_000_000_000;

pub fn run(setup: &Setup<'_>, target: &Target) -> Result<Outcome, Failure> {
    let workload = setup.workload;
    let began = SystemTime::now();
    let mut admin = Admin::connect(setup.address, setup.congestion_control)?;
    let mut crowd = Crowd::connect(setup, target)?;
    admin.prepare_coordinators("__consumer_offsets", workload.class)?;

    let start_ns = setup.clock.now_ns() + seconds_ns(workload.warm_up_seconds);
    let window = Window { start_ns, end_ns: start_ns + seconds_ns(workload.duration_seconds) };
    crowd.settled = Recorder::new("settled", LoopKind::Closed, window);
    let monitor = Monitor::start(setup.clock, &setup.counters, target.watched.clone(), Some(window), target);
    let stopped = crowd.rebalance(&mut admin, setup, window).err();
    let costs = monitor.finish();
    if let Some(path) = &target.keep {
        crowd.settled.keep(path, began).map_err(|error| Failure::Machine(error.to_string()))?;
    }
    let mut more = BTreeMap::from([("members".to_string(), crowd.members.len() as f64)]);
    more.extend(crowd.rebalances.figures());
    Ok(Outcome {
        workload: workload.clone(),
        client: facts(target),
        seconds: window.seconds(),
        records: 0,
        bytes: 0,
        counts: Counts::default(),
        client_lag: ClientLag::default(),
        latencies: vec![crowd.settled.finish()],
        costs,
        more,
        verdict: None,
        not_read_back: Some("members that only join and leave commit nothing".to_string()),
        partial: stopped.is_some(),
        failure: stopped,
    })
}

struct Member {
    connection: Connection,
    group: usize,
    id: Str,
    epoch: i32,
    owned: TopicPartitions,
    /// It has taken over something that the coordinator does not know of yet.
    has_news: bool,
    is_asking: bool,
    is_leaving: bool,
    beat_due_ns: u64,
}

struct Crowd {
    clock: Clock,
    topic: Str,
    prefix: String,
    members: Vec<Member>,
    per_group: usize,
    partitions: usize,
    /// Which group it is now; every one is new.
    round: usize,
    readiness: Readiness,
    rebalances: Rebalances,
    /// From the first join to the last member that is where it is to be.
    settled: Recorder,
    /// When the last member had its first answer.
    joined_ns: u64,
    /// Looked at every member then, for what is due.
    looked_ns: u64,
}

/// The loop looks at all members so often at most: each time takes a while.
const LOOK_NS: u64 = 500_000;

impl Crowd {
    fn connect(setup: &Setup<'_>, target: &Target) -> Result<Crowd, Failure> {
        let workload = setup.workload;
        let prefix = format!("{}-group", setup.topic);
        let mut members = Vec::new();
        super::connections::allow_descriptors((workload.groups * workload.members) as u64)?;
        for place in 0..workload.groups * workload.members {
            let mut connection = setup.connect()?;
            if place == 0 {
                find_coordinator(&mut connection, &prefix)?;
            }
            members.push(Member {
                connection,
                group: place / workload.members,
                id: Str::default(),
                epoch: 0,
                owned: TopicPartitions::default(),
                has_news: false,
                is_asking: false,
                is_leaving: false,
                beat_due_ns: u64::MAX,
            });
        }
        let readiness = Readiness::of(members.iter().map(|member| member.connection.as_fd())).map_err(Failure::machine("epoll"))?;
        let now_ns = setup.clock.now_ns();
        Ok(Crowd {
            clock: setup.clock,
            topic: Str::from(setup.topic),
            prefix,
            members,
            per_group: workload.members,
            partitions: workload.partitions as usize,
            round: 0,
            readiness,
            rebalances: Rebalances::watching(target),
            settled: Recorder::new("settled", LoopKind::Closed, Window { start_ns: now_ns, end_ns: now_ns + 1 }),
            joined_ns: 0,
            looked_ns: 0,
        })
    }

    /// Those that end after the window count as well, or a slow broker would have none.
    fn rebalance(&mut self, admin: &mut Admin, setup: &Setup<'_>, window: Window) -> Result<(), Failure> {
        while self.clock.now_ns() < window.end_ns {
            self.prepare(admin, setup)?;
            let before = self.rebalances.look();
            let began_ns = self.clock.now_ns();
            self.join(began_ns).map_err(|error| gone(&error))?;
            let settled_ns = self.settle(began_ns)? - began_ns;
            if began_ns >= window.start_ns {
                self.rebalances.count(before, settled_ns, self.joined_ns.saturating_sub(began_ns));
                self.settled.record(began_ns, settled_ns);
            }
            self.leave()?;
        }
        Ok(())
    }

    fn prepare(&mut self, admin: &mut Admin, setup: &Setup<'_>) -> Result<(), Failure> {
        self.round += 1;
        if let Some(interval_ms) = setup.workload.assignment_interval_ms {
            for group in 0..setup.workload.groups {
                admin.prepare_group(&self.group_id(group), "consumer.assignment.interval.ms", &interval_ms.to_string())?;
            }
        }
        Ok(())
    }

    fn group_id(&self, group: usize) -> Str {
        group_name(&format!("{}-{}", self.prefix, self.round), group)
    }

    fn join(&mut self, began_ns: u64) -> io::Result<()> {
        let mut frames = Vec::with_capacity(self.members.len());
        for place in 0..self.members.len() {
            let member = &mut self.members[place];
            member.id = Str::from(format!("member-{}-{place}", self.round));
            (member.epoch, member.has_news, member.is_leaving) = (0, false, false);
            member.owned.partitions.clear();
            frames.push(self.frame(place)?);
        }
        for (member, frame) in self.members.iter_mut().zip(&frames) {
            member.is_asking = true;
            member.connection.send(frame)?;
        }
        self.joined_ns = began_ns;
        Ok(())
    }

    /// A member's heartbeat, as it stands.
    fn frame(&self, place: usize) -> io::Result<Vec<u8>> {
        let member = &self.members[place];
        let joins = member.epoch == 0;
        let owned = || if member.owned.partitions.is_empty() { Vec::new() } else { vec![member.owned.clone()] };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group_id(member.group),
            member_id: member.id.clone(),
            member_epoch: member.epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![self.topic.clone()]),
            topic_partitions: (joins || member.has_news).then(owned),
            ..Default::default()
        };
        frame_of(HEARTBEAT_VERSION, 1, &request)
    }

    fn ask(&mut self, place: usize) -> io::Result<()> {
        let frame = self.frame(place)?;
        let member = &mut self.members[place];
        member.is_asking = true;
        member.connection.send(&frame)
    }

    /// Until every group is settled; gives when that was.
    fn settle(&mut self, began_ns: u64) -> Result<u64, Failure> {
        loop {
            let has_changed = self.round().map_err(|error| gone(&error))?;
            let now_ns = self.clock.now_ns();
            if has_changed && self.is_settled()? {
                return Ok(now_ns);
            }
            if now_ns > began_ns + SETTLING_MAX_NS {
                return Err(Failure::Refused(format!("the groups did not settle in {} s", SETTLING_MAX_NS / 1_000_000_000)));
            }
        }
    }

    /// All members of a group are in one epoch, and have all partitions between them, none more than its share: so it is the target that all of them were counted for.
    fn is_settled(&self) -> Result<bool, Failure> {
        let share = self.partitions.div_ceil(self.per_group);
        for group in self.members.chunks(self.per_group) {
            let epoch = group[0].epoch;
            if epoch == 0 || !group.iter().all(|member| member.epoch == epoch && member.owned.partitions.len() <= share) {
                return Ok(false);
            }
            let mut owned: Vec<i32> = group.iter().flat_map(|member| member.owned.partitions.iter().copied()).collect();
            owned.sort_unstable();
            if owned.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Failure::Refused(format!("a partition has two owners in epoch {epoch}")));
            }
            if owned.len() != self.partitions {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes what has come, and sends what is due; whether a member is not where it was.
    fn round(&mut self) -> io::Result<bool> {
        let ready: Vec<usize> = self.readiness.look()?.to_vec();
        let mut has_changed = false;
        for place in ready {
            has_changed |= self.receive(place)?;
        }
        let now_ns = self.clock.now_ns();
        if now_ns >= self.looked_ns + LOOK_NS {
            self.looked_ns = now_ns;
            for place in 0..self.members.len() {
                if !self.members[place].is_asking && now_ns >= self.members[place].beat_due_ns {
                    self.ask(place)?;
                }
            }
        }
        Ok(has_changed)
    }

    fn receive(&mut self, place: usize) -> io::Result<bool> {
        self.members[place].connection.flush()?;
        if !self.members[place].connection.receive()? {
            return Ok(false);
        }
        let now_ns = self.clock.now_ns();
        let mut has_changed = false;
        while let Some(frame) = self.members[place].connection.next_frame().map(Bytes::copy_from_slice) {
            let response: ConsumerGroupHeartbeatResponse = read(frame, ApiKey::ConsumerGroupHeartbeat, HEARTBEAT_VERSION)?;
            self.members[place].is_asking = false;
            has_changed |= self.hear(place, &response, now_ns)?;
            if self.members[place].has_news && response.error_code == 0 {
                self.ask(place)?;
            }
        }
        Ok(has_changed)
    }

    fn hear(&mut self, place: usize, response: &ConsumerGroupHeartbeatResponse, now_ns: u64) -> io::Result<bool> {
        let member = &mut self.members[place];
        member.beat_due_ns = now_ns + BEAT_NS;
        if response.error_code != 0 {
            if !is_passing(response.error_code) && response.error_code != ErrorCode::UnknownMemberId.code() {
                let why = response.error_message.as_deref().unwrap_or("");
                return Err(io::Error::other(format!("ConsumerGroupHeartbeat: {} {why}", error_name(response.error_code))));
            }
            return Ok(false);
        }
        if member.epoch == 0 {
            self.joined_ns = now_ns;
        }
        let mut has_changed = member.epoch != response.member_epoch;
        (member.epoch, member.has_news) = (response.member_epoch, false);
        if let Some(assignment) = &response.assignment {
            let mut given: Vec<i32> = assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.iter().copied()).collect();
            given.sort_unstable();
            if let Some(topic) = assignment.topic_partitions.first() {
                member.owned.topic_id = topic.topic_id;
            }
            member.has_news = given != member.owned.partitions;
            has_changed |= member.has_news;
            member.owned.partitions = given;
        }
        Ok(has_changed)
    }

    /// All of them, so that nobody's session ends in the middle of the next rebalance.
    fn leave(&mut self) -> Result<(), Failure> {
        let left = |crowd: &Crowd| crowd.members.iter().all(|member| member.epoch == LEAVING_EPOCH && !member.is_asking);
        let began_ns = self.clock.now_ns();
        while !left(self) {
            for place in 0..self.members.len() {
                let member = &mut self.members[place];
                if !member.is_asking && !member.is_leaving {
                    (member.is_leaving, member.epoch, member.has_news) = (true, LEAVING_EPOCH, false);
                    self.ask(place).map_err(|error| gone(&error))?;
                }
            }
            let ready: Vec<usize> = self.readiness.look().map_err(Failure::machine("epoll"))?.to_vec();
            for place in ready {
                self.receive(place).map_err(|error| gone(&error))?;
            }
            if self.clock.now_ns() > began_ns + SETTLING_MAX_NS {
                return Err(Failure::Refused("members could not leave".to_string()));
            }
        }
        Ok(())
    }
}
