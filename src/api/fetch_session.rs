//! Incremental fetch sessions (KIP-227): what a consumer asked for last time, so that it need not say it again, and what it was told, so that it is not told again.
//!
//! One cache per shard; a session belongs to the shard of the connection that opened it. A client that comes back over a connection of another shard is told
//! FETCH_SESSION_ID_NOT_FOUND and starts anew, as after any eviction. The cache is bounded by `max.incremental.fetch.session.cache.slots`, shared out over the shards.

use std::hash::{Hash, Hasher};

use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use crate::wire::messages::FetchRequest;
use crate::wire::{ErrorCode, Str};

/// Epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request that wants none, and closes the one that it names.
pub(super) const FINAL_EPOCH: i32 = -1;
/// A session that nobody used for this long makes room for a new one.
const EVICTION_MS: i64 = 120_000;

/// A partition as the client names it: by name up to version 12, by id from 13 on.
#[derive(Clone, Debug, Eq)]
pub struct NamedPartition {
    /// The topic's name; empty when the client named the id.
    pub topic: Str,
    /// The topic's id; zero when the client gave the name.
    pub topic_id: Uuid,
    /// Index within the topic.
    pub partition: i32,
}

impl PartialEq for NamedPartition {
    fn eq(&self, other: &NamedPartition) -> bool {
        self.partition == other.partition && self.topic_id == other.topic_id && self.topic == other.topic
    }
}

impl Hash for NamedPartition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.topic_id.hash(state);
        self.topic.as_ref().hash(state);
        self.partition.hash(state);
    }
}

/// What a client wants of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPartition {
    /// Which one.
    pub name: NamedPartition,
    /// The leader epoch that the client knows, -1 if none.
    pub current_leader_epoch: i32,
    /// From which offset on.
    pub fetch_offset: i64,
    /// Epoch of the last record that the client holds, -1 if it does not say.
    pub last_fetched_epoch: i32,
    /// At most so many bytes, but for a first batch that is larger.
    pub max_bytes: i32,
}

/// What decides whether an incremental answer has to name a partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionOutcome {
    /// Records are in the answer.
    pub has_records: bool,
    /// The answer carries an error or a diverging epoch.
    pub must_tell: bool,
    /// The error, if any: the partition is told again when it goes away.
    pub error: ErrorCode,
    /// High watermark in the answer.
    pub high_watermark: i64,
    /// Log start offset in the answer.
    pub log_start_offset: i64,
}

/// How a fetch is to be answered.
#[derive(Debug)]
pub struct FetchContext {
    kind: Kind,
    /// What to read, in the order in which the byte limit is spent.
    pub partitions: Vec<WantedPartition>,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Sessionless,
    Full { uses_topic_ids: bool },
    Incremental { session_id: i32 },
}

struct Cached {
    wanted: WantedPartition,
    told_high_watermark: i64,
    told_log_start_offset: i64,
}

impl Cached {
    /// With a name of its own: that of the request would keep the whole frame for as long as the session lives.
    fn new(wanted: WantedPartition) -> Cached {
        let name = NamedPartition { topic: wanted.name.topic.detached(), ..wanted.name };
        Cached { wanted: WantedPartition { name, ..wanted }, told_high_watermark: -1, told_log_start_offset: -1 }
    }

    /// The client wants something else of the same partition.
    fn want(&mut self, wanted: WantedPartition) {
        let name = self.wanted.name.clone();
        self.wanted = WantedPartition { name, ..wanted };
    }

    /// Whether the client has to hear of `outcome`; remembers what it is told.
    fn update(&mut self, outcome: &PartitionOutcome) -> bool {
        let changed = outcome.high_watermark != self.told_high_watermark || outcome.log_start_offset != self.told_log_start_offset;
        // After an error the watermark counts as untold, so that its end is told even if nothing else changed.
        self.told_high_watermark = if outcome.error == ErrorCode::None { outcome.high_watermark } else { -1 };
        self.told_log_start_offset = outcome.log_start_offset;
        changed || outcome.has_records || outcome.must_tell || outcome.error != ErrorCode::None
    }
}

struct Session {
    epoch: i32,
    uses_topic_ids: bool,
    last_used_ms: i64,
    partitions: Vec<Cached>,
}

/// All sessions of one shard.
pub struct FetchSessions {
    slots: usize,
    sessions: HashMap<i32, Session>,
}

impl FetchSessions {
    /// A cache for at most `slots` sessions.
    pub fn new(slots: usize) -> FetchSessions {
        FetchSessions { slots, sessions: HashMap::new() }
    }

    /// Looks at the session part of `request`: what is to be read, or the top-level error.
    pub fn begin(&mut self, request: &FetchRequest, version: i16, now_ms: i64) -> Result<FetchContext, ErrorCode> {
        let uses_topic_ids = version >= 13;
        let (session_id, epoch) = if version >= 7 { (request.session_id, request.session_epoch) } else { (0, FINAL_EPOCH) };
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            self.sessions.remove(&session_id);
            let kind = if epoch == FINAL_EPOCH { Kind::Sessionless } else { Kind::Full { uses_topic_ids } };
            return Ok(FetchContext { kind, partitions: wanted_partitions(request) });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.change(request);
        session.epoch = next_epoch(epoch);
        session.last_used_ms = now_ms;
        let partitions: Vec<WantedPartition> = session.partitions.iter().map(|cached| cached.wanted.clone()).collect();
        if partitions.is_empty() {
            self.sessions.remove(&session_id);
            return Ok(FetchContext { kind: Kind::Sessionless, partitions });
        }
        Ok(FetchContext { kind: Kind::Incremental { session_id }, partitions })
    }

    /// Says which partitions the answer names and the session id that it carries (0: none). `outcomes` stand in the order of `context.partitions`; `new_id` is a random number.
    pub fn finish(
        &mut self,
        context: FetchContext,
        outcomes: &[PartitionOutcome],
        now_ms: i64,
        mut new_id: impl FnMut() -> i32,
    ) -> (i32, Vec<bool>) {
        match context.kind {
            Kind::Sessionless => (0, vec![true; outcomes.len()]),
            Kind::Full { uses_topic_ids } => {
                let session_id = if self.make_room(now_ms) { self.unused_id(&mut new_id) } else { 0 };
                if session_id != 0 {
                    let mut partitions: Vec<Cached> = context.partitions.into_iter().map(Cached::new).collect();
                    for (cached, outcome) in partitions.iter_mut().zip(outcomes) {
                        cached.update(outcome);
                    }
                    self.sessions
                        .insert(session_id, Session { epoch: next_epoch(INITIAL_EPOCH), uses_topic_ids, last_used_ms: now_ms, partitions });
                }
                (session_id, vec![true; outcomes.len()])
            }
            Kind::Incremental { session_id } => match self.sessions.get_mut(&session_id) {
                Some(session) if session.partitions.len() == outcomes.len() => (session_id, session.tell(outcomes)),
                // Closed by another request while this one waited.
                _ => (session_id, vec![true; outcomes.len()]),
            },
        }
    }

    fn make_room(&mut self, now_ms: i64) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.last_used_ms).map(|(id, session)| (*id, session.last_used_ms));
        match oldest {
            Some((id, last_used_ms)) if now_ms - last_used_ms > EVICTION_MS => self.sessions.remove(&id).is_some(),
            _ => false,
        }
    }

    fn unused_id(&self, new_id: &mut impl FnMut() -> i32) -> i32 {
        loop {
            let id = new_id() & i32::MAX;
            if id != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Session {
    /// Takes over what an incremental request adds, changes and forgets.
    fn change(&mut self, request: &FetchRequest) {
        let mut wanted: Vec<Option<WantedPartition>> = Vec::new();
        let mut places = HashMap::new();
        for one in wanted_partitions(request) {
            // Of a partition that is named twice the last counts.
            if let Some(former) = places.insert(one.name.clone(), wanted.len()) {
                wanted[former] = None;
            }
            wanted.push(Some(one));
        }
        for cached in &mut self.partitions {
            if let Some(wanted) = places.get(&cached.wanted.name).and_then(|place| wanted[*place].take()) {
                cached.want(wanted);
            }
        }
        self.partitions.extend(wanted.into_iter().flatten().map(Cached::new));
        let forgotten = forgotten_partitions(request);
        if !forgotten.is_empty() {
            self.partitions.retain(|cached| !forgotten.contains(&cached.wanted.name));
        }
    }

    /// Which partitions are told; those with records move to the end, so that every partition comes first now and then.
    fn tell(&mut self, outcomes: &[PartitionOutcome]) -> Vec<bool> {
        let told = self.partitions.iter_mut().zip(outcomes).map(|(cached, outcome)| cached.update(outcome)).collect();
        let mut with_records = Vec::new();
        let mut without = Vec::with_capacity(self.partitions.len());
        for (cached, outcome) in self.partitions.drain(..).zip(outcomes) {
            if outcome.has_records { with_records.push(cached) } else { without.push(cached) }
        }
        self.partitions = without;
        self.partitions.append(&mut with_records);
        told
    }
}

fn wanted_partitions(request: &FetchRequest) -> Vec<WantedPartition> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            wanted.push(WantedPartition {
                name: NamedPartition { topic: topic.topic.clone(), topic_id: topic.topic_id, partition: partition.partition },
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: partition.partition_max_bytes,
            });
        }
    }
    wanted
}

fn forgotten_partitions(request: &FetchRequest) -> HashSet<NamedPartition> {
    let mut forgotten = HashSet::new();
    for topic in &request.forgotten_topics_data {
        let name = |partition| NamedPartition { topic: topic.topic.clone(), topic_id: topic.topic_id, partition };
        forgotten.extend(topic.partitions.iter().copied().map(name));
    }
    forgotten
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
    use crate::wire::{Decoder, Encoder, Message};

    fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
        let partitions = partitions
            .iter()
            .map(|(partition, offset)| FetchPartition { partition: *partition, fetch_offset: *offset, ..Default::default() })
            .collect::<Vec<_>>();
        let topics = if partitions.is_empty() { vec![] } else { vec![FetchTopic { topic: "t".into(), partitions, ..Default::default() }] };
        FetchRequest { session_id, session_epoch, topics, ..Default::default() }
    }

    fn outcome(has_records: bool, high_watermark: i64) -> PartitionOutcome {
        PartitionOutcome { has_records, must_tell: false, error: ErrorCode::None, high_watermark, log_start_offset: 0 }
    }

    fn open(sessions: &mut FetchSessions, partitions: &[(i32, i64)]) -> i32 {
        let context = sessions.begin(&request(0, 0, partitions), 12, 0).unwrap();
        let outcomes = vec![outcome(false, 5); partitions.len()];
        sessions.finish(context, &outcomes, 0, || 7).0
    }

    /// An incremental fetch reads what the session remembers and tells only what changed since.
    #[test]
    fn incremental_answers_name_only_changes() {
        let mut sessions = FetchSessions::new(2);
        let id = open(&mut sessions, &[(0, 5), (1, 5)]);
        assert_eq!(id, 7);
        let context = sessions.begin(&request(id, 1, &[]), 12, 1).unwrap();
        assert_eq!(context.partitions.len(), 2);
        let (same, told) = sessions.finish(context, &[outcome(false, 5), outcome(false, 6)], 1, || 8);
        assert_eq!((same, told), (id, vec![false, true]));
    }

    /// A partition that returned records moves behind the others.
    #[test]
    fn partitions_with_records_move_to_the_end() {
        let mut sessions = FetchSessions::new(2);
        let id = open(&mut sessions, &[(0, 5), (1, 5)]);
        let context = sessions.begin(&request(id, 1, &[]), 12, 1).unwrap();
        sessions.finish(context, &[outcome(true, 6), outcome(false, 5)], 1, || 8);
        let context = sessions.begin(&request(id, 2, &[(0, 6)]), 12, 2).unwrap();
        let order: Vec<(i32, i64)> = context.partitions.iter().map(|wanted| (wanted.name.partition, wanted.fetch_offset)).collect();
        assert_eq!(order, [(1, 5), (0, 6)]);
    }

    /// Requests come in frames of up to 100 MiB, and a session may live for years.
    #[test]
    fn a_session_keeps_nothing_of_a_frame() {
        let mut sessions = FetchSessions::new(2);
        let mut begin = |request: &FetchRequest| {
            let mut encoder = Encoder::new();
            request.encode(&mut encoder, 12).unwrap();
            let frame = encoder.into_bytes();
            let received = FetchRequest::decode(&mut Decoder::new(frame.clone()), 12).unwrap();
            let context = sessions.begin(&received, 12, 0).unwrap();
            let outcomes = vec![outcome(false, 5); context.partitions.len()];
            let (id, _) = sessions.finish(context, &outcomes, 0, || 7);
            drop(received);
            assert!(frame.is_unique(), "only the test has it");
            id
        };
        let id = begin(&request(0, 0, &[(0, 5), (1, 5)]));
        assert_eq!(begin(&request(id, 1, &[(1, 6), (2, 0), (1, 7)])), id);
        let wanted = sessions.begin(&request(id, 2, &[]), 12, 1).unwrap().partitions;
        assert_eq!(wanted.iter().map(|wanted| (wanted.name.partition, wanted.fetch_offset)).collect::<Vec<_>>(), [(0, 5), (1, 7), (2, 0)]);
    }

    /// The end of an error is told although the watermark is what it was before.
    #[test]
    fn an_error_is_told_and_so_is_its_end() {
        let mut sessions = FetchSessions::new(2);
        let id = open(&mut sessions, &[(0, 5)]);
        let context = sessions.begin(&request(id, 1, &[]), 12, 1).unwrap();
        let failed =
            PartitionOutcome { error: ErrorCode::KafkaStorageError, high_watermark: -1, log_start_offset: -1, ..outcome(false, 5) };
        assert_eq!(sessions.finish(context, &[failed], 1, || 8).1, [true]);
        let context = sessions.begin(&request(id, 2, &[]), 12, 2).unwrap();
        assert_eq!(sessions.finish(context, &[outcome(false, 5)], 2, || 8).1, [true]);
    }

    /// Wrong ids, epochs and kinds of naming get their top-level errors.
    #[test]
    fn refuses_what_does_not_fit_the_session() {
        let mut sessions = FetchSessions::new(2);
        let id = open(&mut sessions, &[(0, 5)]);
        assert_eq!(sessions.begin(&request(id + 1, 1, &[]), 12, 1).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(sessions.begin(&request(id, 9, &[]), 12, 1).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(sessions.begin(&request(id, 1, &[]), 13, 1).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
    }

    /// A session emptied by forgetting is closed; epoch -1 closes one too.
    #[test]
    fn closes_sessions() {
        let mut sessions = FetchSessions::new(2);
        let id = open(&mut sessions, &[(0, 5)]);
        let mut forgetting = request(id, 1, &[]);
        forgetting.forgotten_topics_data = vec![ForgottenTopic { topic: "t".into(), partitions: vec![0], ..Default::default() }];
        let context = sessions.begin(&forgetting, 12, 1).unwrap();
        assert_eq!(sessions.finish(context, &[], 1, || 8), (0, vec![]));
        assert_eq!(sessions.begin(&request(id, 2, &[]), 12, 1).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        let id = open(&mut sessions, &[(0, 5)]);
        sessions.begin(&request(id, -1, &[(0, 5)]), 12, 1).unwrap();
        assert_eq!(sessions.begin(&request(id, 1, &[]), 12, 1).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    }

    /// A full cache gives no session until one has been unused for two minutes.
    #[test]
    fn evicts_only_what_is_unused() {
        let mut sessions = FetchSessions::new(1);
        assert_eq!(open(&mut sessions, &[(0, 5)]), 7);
        let context = sessions.begin(&request(0, 0, &[(0, 5)]), 12, 10).unwrap();
        assert_eq!(sessions.finish(context, &[outcome(false, 5)], 10, || 8).0, 0);
        let context = sessions.begin(&request(0, 0, &[(0, 5)]), 12, EVICTION_MS + 1).unwrap();
        assert_eq!(sessions.finish(context, &[outcome(false, 5)], EVICTION_MS + 1, || 8).0, 8);
    }
}
