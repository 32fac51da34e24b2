//! Promises other than records: topics that were made or deleted, offsets that a group has committed, record deletions, producer ids that were given.

use std::collections::BTreeSet;
use std::io;

use corelane_wire::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use corelane_wire::messages::create_topics_request::CreatableTopic;
use corelane_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::{
    AlterReplicaLogDirsRequest, CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest,
};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{Batch, record};
use harness::random::Random;
use harness::raw::{Connection, code, produce_request};
use harness::wait;
use uuid::Uuid;

use crate::history::Broken;
use crate::load::Round;

pub const GROUP: &str = "group";

/// Topics whose replicas move, and how many partitions each has.
const MOVING_TOPICS: &[(&str, u64)] = &[("plain", 2), ("idempotent", 2), ("compacted", 1), ("bulk", 1), ("written", 2), ("transfers", 3)];

/// Where the group commits.
const COMMITTED_TOPIC: &str = "plain";

/// What the broker's other clients were told.
#[derive(Default)]
pub struct Affairs {
    /// Data directories of the broker, between which replicas move if there is more than one.
    directories: Vec<String>,
    topics: Vec<Topic>,
    next_topic: u64,
    commits: Commits,
    producer_ids: BTreeSet<i64>,
}

/// One offset, which only goes up.
#[derive(Default)]
struct Commits {
    acknowledged: i64,
    sent: i64,
}

struct Topic {
    name: String,
    id: Option<Uuid>,
    stage: Stage,
    /// Records that were acknowledged.
    records: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Asked for; nobody has answered.
    Asked,
    Made,
    /// Its deletion was asked for; nobody has answered.
    Doomed,
    Deleted,
}

impl Affairs {
    /// Of a broker with these data directories.
    pub fn of(directories: Vec<String>) -> Affairs {
        Affairs { directories, ..Affairs::default() }
    }

    /// One step of business after the other, until the broker is dead.
    pub fn go_on(&mut self, round: &Round, connection: &mut Connection, mut random: Random) -> io::Result<()> {
        while !round.is_over() {
            match random.below(10) {
                0 => self.make_topic(connection)?,
                1 => self.delete_topic(connection, &mut random)?,
                2 => self.take_producer_id(round, connection)?,
                3 | 4 => self.fill_topic(connection, &mut random)?,
                5 if self.directories.len() > 1 => self.move_replica(connection, &mut random)?,
                _ => self.commit(connection)?,
            }
            std::thread::sleep(std::time::Duration::from_micros(random.below(3_000)));
        }
        Ok(())
    }

    fn make_topic(&mut self, connection: &mut Connection) -> io::Result<()> {
        if self.topics.iter().filter(|topic| topic.stage == Stage::Made).count() > 8 {
            return Ok(());
        }
        let name = format!("made-{}", self.next_topic);
        self.next_topic += 1;
        self.topics.push(Topic { name: name.clone(), id: None, stage: Stage::Asked, records: 0 });
        let topic = CreatableTopic { name: Str::from(name.as_str()), num_partitions: 2, replication_factor: 1, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = connection.try_call(7, &request)?;
        let made = self.topics.last_mut().expect("just pushed");
        if code(answer.topics[0].error_code).is_none() {
            made.stage = Stage::Made;
            made.id = Some(answer.topics[0].topic_id);
        }
        Ok(())
    }

    fn delete_topic(&mut self, connection: &mut Connection, random: &mut Random) -> io::Result<()> {
        let made: Vec<usize> = (0..self.topics.len()).filter(|index| self.topics[*index].stage == Stage::Made).collect();
        if made.len() < 2 {
            return Ok(());
        }
        let topic = &mut self.topics[random.one_of(&made)];
        topic.stage = Stage::Doomed;
        let request = DeleteTopicsRequest { topic_names: vec![Str::from(topic.name.as_str())], timeout_ms: 30_000, ..Default::default() };
        let answer = connection.try_call(5, &request)?;
        if code(answer.responses[0].error_code).is_none() {
            topic.stage = Stage::Deleted;
        }
        Ok(())
    }

    fn fill_topic(&mut self, connection: &mut Connection, random: &mut Random) -> io::Result<()> {
        let made: Vec<usize> = (0..self.topics.len()).filter(|index| self.topics[*index].stage == Stage::Made).collect();
        if made.is_empty() {
            return Ok(());
        }
        let topic = &mut self.topics[random.one_of(&made)];
        let batch = Batch::of(vec![record("key", topic.name.as_bytes())]).encode();
        let answer = connection.try_call::<ProduceRequest>(9, &produce_request(&topic.name, 0, -1, batch))?;
        let partition = &answer.responses[0].partition_responses[0];
        if code(partition.error_code).is_none() {
            topic.records = partition.base_offset + 1;
        }
        Ok(())
    }

    /// Asks for a replica to lie in some data directory. Whether it gets there is not promised; that its records stay is.
    fn move_replica(&self, connection: &mut Connection, random: &mut Random) -> io::Result<()> {
        let (topic, partitions) = random.one_of(MOVING_TOPICS);
        let partition = random.below(partitions) as i32;
        let index = random.below(self.directories.len() as u64) as usize;
        let topic = AlterReplicaLogDirTopic { name: Str::from(topic), partitions: vec![partition], ..Default::default() };
        let directory = AlterReplicaLogDir { path: Str::from(self.directories[index].as_str()), topics: vec![topic], ..Default::default() };
        connection.try_call(2, &AlterReplicaLogDirsRequest { dirs: vec![directory], ..Default::default() }).map(drop)
    }

    fn take_producer_id(&mut self, round: &Round, connection: &mut Connection) -> io::Result<()> {
        let request = InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: 60_000, ..Default::default() };
        let answer = connection.try_call(1, &request)?;
        if code(answer.error_code).is_none() && !self.producer_ids.insert(answer.producer_id) {
            round.check(Err(format!("the producer id {} was given twice", answer.producer_id)));
        }
        Ok(())
    }

    fn commit(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.commits.sent += 1;
        let committed_offset = self.commits.sent;
        let partition =
            OffsetCommitRequestPartition { partition_index: 0, committed_offset, committed_metadata: None, ..Default::default() };
        let topic = OffsetCommitRequestTopic { name: Str::from(COMMITTED_TOPIC), partitions: vec![partition], ..Default::default() };
        let answer =
            connection.try_call(7, &OffsetCommitRequest { group_id: Str::from(GROUP), topics: vec![topic], ..Default::default() })?;
        if code(answer.topics[0].partitions[0].error_code).is_none() {
            self.commits.acknowledged = committed_offset;
        }
        Ok(())
    }

    /// Compares with what the broker says after a restart; what was in doubt is not any more.
    pub fn verify(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        self.verify_topics(connection)?;
        self.verify_commits(connection)
    }

    fn verify_topics(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        for topic in &mut self.topics {
            let described = connection.metadata(12, &[&topic.name]).topics.remove(0);
            let id = (code(described.error_code) != ErrorCode::UnknownTopicOrPartition).then_some(described.topic_id);
            match (topic.stage, id) {
                (Stage::Made, Some(id)) if topic.id == Some(id) => {}
                (Stage::Asked, Some(id)) => (topic.stage, topic.id) = (Stage::Made, Some(id)),
                (Stage::Doomed, Some(id)) if topic.id == Some(id) => topic.stage = Stage::Made,
                (Stage::Asked | Stage::Doomed | Stage::Deleted, None) => topic.stage = Stage::Deleted,
                (stage, id) => return Err(format!("topic {} was {stage:?} with id {:?}, and now its id is {id:?}", topic.name, topic.id)),
            }
            if topic.stage == Stage::Made {
                connection.wait_for_leaders(&topic.name, 2);
                let end = connection.end_offset(&topic.name, 0);
                if end < topic.records {
                    return Err(format!("topic {} has {end} records, {} were acknowledged", topic.name, topic.records));
                }
                let read = connection.read_all(&topic.name, 0, 0);
                if read.iter().any(|(_, record)| record.value.as_deref() != Some(topic.name.as_bytes())) {
                    return Err(format!("topic {} has records of another", topic.name));
                }
                topic.records = end;
            }
        }
        self.topics.retain(|topic| topic.stage == Stage::Made);
        Ok(())
    }

    fn verify_commits(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        connection.wait_for_coordinator(GROUP);
        let place = OffsetFetchRequestTopic { name: Str::from(COMMITTED_TOPIC), partition_indexes: vec![0], ..Default::default() };
        let request = OffsetFetchRequest { group_id: Str::from(GROUP), topics: Some(vec![place]), ..Default::default() };
        let committed = wait::until("committed offsets", wait::PATIENCE, || {
            let answer = connection.call(5, &request);
            code(answer.error_code).is_none().then(|| answer.topics[0].partitions[0].committed_offset)
        });
        let Commits { acknowledged, sent } = self.commits;
        if committed.max(0) < acknowledged || committed > sent {
            return Err(format!("the group's offset is {committed}; {acknowledged} was acknowledged and {sent} sent"));
        }
        self.commits.acknowledged = committed.max(0);
        Ok(())
    }
}
