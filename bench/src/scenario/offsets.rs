//! `offsets`: how long a coordinator takes to know again what was committed. Every group commits an offset for every partition; the broker is stopped and started, which only `compare`
//! can do; then every group is asked for one of its offsets until it tells it, and at the end for all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::{OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse};
use corelane_wire::{ApiKey, Str};

use super::groups::{COMMIT_VERSION, OFFSET_FETCH_VERSION, find_coordinator, group_name, is_passing, read};
use super::{Target, conclude, facts, topic_of};
use crate::client::admin::{Admin, error_name};
use crate::client::connection::{Connection, frame_of};
use crate::failure::Failure;
use crate::load::{ClientLag, Counts, gone};
use crate::outcome::Outcome;
use crate::verify::Verdict;
use crate::workload::Workload;

/// Requests without an answer while offsets are committed.
const IN_FLIGHT: usize = 16;
const AGAIN: Duration = Duration::from_millis(1);
/// Asking takes time itself.
const GROUPS_ASKED_MAX: usize = 1_000;
const LOADING_MAX: Duration = Duration::from_secs(180);

/// Offsets that are committed, and have to be told again.
pub struct Committed<'a> {
    workload: &'a Workload,
    target: &'a Target,
    topic: Str,
    seconds: f64,
}

/// When a broker that was started again had what.
pub struct Again {
    /// Its new life's beginning.
    pub exec: Instant,
    /// Its new process may listen elsewhere.
    pub target: Target,
}

impl Committed<'_> {
    /// Commits an offset of every partition in every group.
    pub fn commit<'a>(workload: &'a Workload, target: &'a Target) -> Result<Committed<'a>, Failure> {
        workload.check()?;
        let mut admin = Admin::connect(target.address, target.congestion_control.as_deref())?;
        let topic = topic_of(workload);
        admin.prepare_topic(workload, &topic)?;
        let mut committed = Committed { workload, target, topic: Str::from(topic.as_str()), seconds: 0.0 };
        let mut connection = committed.connect(target)?;
        for group in 0..workload.groups {
            find_coordinator(&mut connection, committed.group(group).as_str())?;
        }
        admin.prepare_coordinators("__consumer_offsets", workload.class)?;
        let began = Instant::now();
        committed.commit_all(connection).map_err(|error| gone(&error))?;
        committed.seconds = began.elapsed().as_secs_f64();
        Ok(committed)
    }

    fn commit_all(&self, mut connection: Connection) -> io::Result<()> {
        let mut under_way = VecDeque::new();
        for group in 0..self.workload.groups {
            connection.send(&frame_of(COMMIT_VERSION, 1, &self.commit_of(group))?)?;
            under_way.push_back(group);
            while under_way.len() >= IN_FLIGHT {
                self.take_answer(&mut connection, &mut under_way)?;
            }
        }
        while !under_way.is_empty() {
            self.take_answer(&mut connection, &mut under_way)?;
        }
        Ok(())
    }

    fn take_answer(&self, connection: &mut Connection, under_way: &mut VecDeque<usize>) -> io::Result<()> {
        let response: OffsetCommitResponse = read(next_frame(connection)?, ApiKey::OffsetCommit, COMMIT_VERSION)?;
        let group = under_way.pop_front().ok_or_else(|| io::Error::other("an answer that nobody asked for"))?;
        match response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).find(|code| *code != 0) {
            Some(code) if is_passing(code) => {
                connection.send(&frame_of(COMMIT_VERSION, 1, &self.commit_of(group))?)?;
                under_way.push_back(group);
                Ok(())
            }
            Some(code) => Err(io::Error::other(format!("OffsetCommit: {}", error_name(code)))),
            None => Ok(()),
        }
    }

    /// What came of it after the restart.
    pub fn load(self, again: &Again) -> Result<Outcome, Failure> {
        let (connection, listening) = self.reach(again)?;
        let loaded = self.wait_until_loaded(connection, again)?;
        let verdict = self.verify(again)?;
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let offsets = (self.workload.groups * self.workload.partitions as usize) as u64;
        let more = BTreeMap::from([
            ("offsets".to_string(), offsets as f64),
            ("commit_seconds".to_string(), self.seconds),
            ("restart_to_listening_ms".to_string(), ms(listening)),
            ("restart_to_loaded_ms".to_string(), ms(loaded)),
            ("listening_to_loaded_ms".to_string(), ms(loaded.saturating_sub(listening))),
        ]);
        let outcome = Outcome {
            workload: self.workload.clone(),
            client: facts(self.target),
            seconds: loaded.as_secs_f64(),
            records: offsets,
            bytes: 0,
            counts: Counts::default(),
            client_lag: ClientLag::default(),
            latencies: Vec::new(),
            costs: Vec::new(),
            more,
            verdict: None,
            not_read_back: None,
            partial: false,
            failure: None,
        };
        Ok(conclude(outcome, Some(verdict)))
    }

    fn reach(&self, again: &Again) -> Result<(Connection, Duration), Failure> {
        loop {
            match self.connect(&again.target) {
                Ok(connection) => return Ok((connection, again.exec.elapsed())),
                Err(failure) if again.exec.elapsed() > LOADING_MAX => return Err(failure),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// A thousand of the groups, which are of every partition of the offsets topic, tell the offset of their last partition.
    fn wait_until_loaded(&self, mut connection: Connection, again: &Again) -> Result<Duration, Failure> {
        for group in (0..self.workload.groups).step_by(self.workload.groups.div_ceil(GROUPS_ASKED_MAX)) {
            let last = self.workload.partitions - 1;
            loop {
                // A broker takes connections before it takes requests.
                let asked = connection.ask(OFFSET_FETCH_VERSION, &self.fetch_of(group, last..last + 1));
                match asked.as_ref().map(|response| response.error_code) {
                    Ok(0) => break,
                    Ok(code) if !is_passing(code) => return Err(Failure::Refused(format!("OffsetFetch: {}", error_name(code)))),
                    Ok(_) => std::thread::sleep(AGAIN),
                    Err(_) => connection = self.reach(again)?.0,
                }
                if again.exec.elapsed() > LOADING_MAX {
                    return Err(Failure::Refused(format!("not loaded in {} s", LOADING_MAX.as_secs())));
                }
            }
        }
        Ok(again.exec.elapsed())
    }

    fn verify(&self, again: &Again) -> Result<Verdict, Failure> {
        let mut connection = self.connect(&again.target)?;
        let mut verdict = Verdict::default();
        for group in 0..self.workload.groups {
            let request = self.fetch_of(group, 0..self.workload.partitions);
            let response: OffsetFetchResponse = connection.ask(OFFSET_FETCH_VERSION, &request).map_err(|error| gone(&error))?;
            for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
                verdict.read += 1;
                let is_there = partition.error_code == 0 && partition.committed_offset == offset_of(group, partition.partition_index);
                verdict.missing += u64::from(!is_there);
            }
            verdict.acknowledged += self.workload.partitions as u64;
        }
        verdict.missing += verdict.acknowledged.saturating_sub(verdict.read);
        Ok(verdict)
    }

    fn connect(&self, target: &Target) -> Result<Connection, Failure> {
        Connection::open(target.address, target.congestion_control.as_deref()).map_err(|error| Failure::Unreachable(error.to_string()))
    }

    fn group(&self, group: usize) -> Str {
        group_name(&format!("{}-group", self.topic.as_str()), group)
    }

    /// As a client that is no member of the group.
    fn commit_of(&self, group: usize) -> OffsetCommitRequest {
        let partition = |index| OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: offset_of(group, index),
            ..Default::default()
        };
        let partitions = (0..self.workload.partitions).map(partition).collect();
        let topic = OffsetCommitRequestTopic { name: self.topic.clone(), partitions, ..Default::default() };
        OffsetCommitRequest { group_id: self.group(group), generation_id_or_member_epoch: -1, topics: vec![topic], ..Default::default() }
    }

    fn fetch_of(&self, group: usize, partitions: std::ops::Range<i32>) -> OffsetFetchRequest {
        let topic = OffsetFetchRequestTopic { name: self.topic.clone(), partition_indexes: partitions.collect(), ..Default::default() };
        OffsetFetchRequest { group_id: self.group(group), topics: Some(vec![topic]), ..Default::default() }
    }
}

/// Told apart, so that one in another's place is seen.
fn offset_of(group: usize, partition: i32) -> i64 {
    group as i64 * 1_000_000 + i64::from(partition)
}

fn next_frame(connection: &mut Connection) -> io::Result<Bytes> {
    loop {
        if let Some(frame) = connection.next_frame().map(Bytes::copy_from_slice) {
            return Ok(frame);
        }
        connection.flush()?;
        if !connection.receive()? {
            std::thread::yield_now();
        }
    }
}
