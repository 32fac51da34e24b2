//! Fetch: the session, one plan from each owner, the long poll, and an answer made of memory and file ranges (semantics of KafkaApis.handleFetchRequest and DelayedFetch).

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::fetch_session::{FINAL_EPOCH, FetchContext, NamedPartition, PartitionOutcome, WantedPartition};
use super::{Answer, Departure, RequestContext, Response};
use crate::cluster::TopicIdPartition;
use crate::partition::{FileRange, Piece};
use crate::rt::{self, Pause, ShardId};
use crate::shard::Call;
use crate::shard::message::{ReadItem, ReadResult, Reply, Request as ShardRequest, WatchItem};
use crate::wire::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::wire::messages::{FetchRequest, FetchResponse};
use crate::wire::{ErrorCode, Records, RecordsPiece};

/// Fetch `isolation.level` of consumers that want committed data only.
const READ_COMMITTED: i8 = 1;

/// Answers a fetch, at once or when there is something to tell.
pub async fn handle(context: &RequestContext, request: FetchRequest) -> Answer {
    let now_ms = rt::wall_clock_ms();
    let session = context.connection.fetch_sessions.borrow_mut().begin(&request, context.api_version, now_ms);
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            let response = FetchResponse { error_code: error.code(), ..Default::default() };
            return respond(context, &response, SmallVec::new());
        }
    };
    let fetch = Fetch::new(context, &request, &session).await;
    if request.session_epoch == FINAL_EPOCH {
        fetch.by_owner().iter().for_each(|(owner, _)| context.connection.traffic.note(*owner));
    } else {
        // The session lies on this shard.
        context.connection.traffic.note(context.shard.id());
    }
    let results = fetch.read_until_satisfied().await;
    let (response, files) = fetch.response(session, results);
    respond(context, &response, files)
}

fn respond(context: &RequestContext, response: &FetchResponse, files: SmallVec<[FileRange; 1]>) -> Answer {
    Response::answer(context.api_key, context.api_version, context.correlation_id, response, files)
}

/// The request, its partitions resolved.
struct Fetch<'a> {
    context: &'a RequestContext,
    targets: Vec<Result<ReadItem, ErrorCode>>,
    max_bytes: usize,
    min_bytes: usize,
    max_wait: Duration,
    read_committed: bool,
}

impl<'a> Fetch<'a> {
    async fn new(context: &'a RequestContext, request: &FetchRequest, session: &FetchContext) -> Fetch<'a> {
        let replica_id = if context.api_version >= 15 { request.replica_state.replica_id } else { request.replica_id };
        let read_committed = request.isolation_level == READ_COMMITTED;
        let max_bytes = request.max_bytes.clamp(0, context.shard.config().fetch_max_bytes()) as usize;
        let mut targets = Vec::with_capacity(session.partitions.len());
        let mut pause = Pause::default();
        for wanted in &session.partitions {
            pause.step().await;
            targets.push(target(context, wanted, replica_id, read_committed));
        }
        Fetch {
            context,
            targets,
            max_bytes,
            min_bytes: (request.min_bytes.max(0) as usize).min(max_bytes),
            max_wait: Duration::from_millis(request.max_wait_ms.max(0) as u64),
            read_committed,
        }
    }

    async fn read_until_satisfied(&self) -> Vec<ReadResult> {
        let deadline = Instant::now() + self.max_wait;
        loop {
            let results = self.read().await;
            let bytes: usize = results.iter().map(ReadResult::bytes).sum();
            let must_tell = results.iter().any(|result| result.error != ErrorCode::None || result.diverging.is_some());
            if results.is_empty() || must_tell || bytes >= self.min_bytes || Instant::now() >= deadline {
                return results;
            }
            if !self.wait_for_change(&results, deadline).await {
                return self.read().await;
            }
        }
    }

    /// A plan of every owner, put back into request order and cut to the byte limit of the request.
    async fn read(&self) -> Vec<ReadResult> {
        let mut results: Vec<Option<ReadResult>> =
            self.targets.iter().map(|target| target.as_ref().err().map(|error| ReadResult::failed(*error))).collect();
        let mut calls = Vec::new();
        for (owner, places) in self.by_owner() {
            let items = places.iter().filter_map(|place| self.targets[*place].as_ref().ok().cloned()).collect();
            calls.push((places, self.context.shard.call(owner, ShardRequest::Read { items, max_bytes: self.max_bytes })));
        }
        let several_owners = calls.len() > 1;
        for (places, call) in calls {
            let Reply::Read(answers) = call.await else { unreachable!("a read is answered by read results") };
            for (place, answer) in places.into_iter().zip(answers) {
                results[place] = Some(answer);
            }
        }
        let mut results: Vec<ReadResult> =
            results.into_iter().map(|result| result.expect("every partition has an owner or an error")).collect();
        if several_owners {
            let partition_max = |place: usize| self.targets[place].as_ref().map_or(0, |item| item.max_bytes);
            cut(&mut results, self.max_bytes, partition_max);
        }
        results
    }

    fn by_owner(&self) -> Vec<(ShardId, Vec<usize>)> {
        let mut by_owner: SmallVec<[Vec<usize>; 8]> = SmallVec::from_elem(Vec::new(), usize::from(self.context.shard.shards()));
        for (place, target) in self.targets.iter().enumerate() {
            if let Ok(item) = target {
                by_owner[usize::from(self.context.shard.owner(&item.partition).0)].push(place);
            }
        }
        by_owner
            .into_iter()
            .enumerate()
            .filter(|(_, places)| !places.is_empty())
            .map(|(owner, places)| (ShardId(owner as u16), places))
            .collect()
    }

    /// Waits until a partition has more to tell than `seen`; false when the time is over, or nobody waits any more.
    async fn wait_for_change(&self, seen: &[ReadResult], deadline: Instant) -> bool {
        let missing_bytes = self.min_bytes.saturating_sub(seen.iter().map(ReadResult::bytes).sum()) as u64;
        let by_owner = self.by_owner();
        // Bytes of several owners cannot be added up where they arrive: then every change is looked at.
        let missing_bytes = if by_owner.len() > 1 { 1 } else { missing_bytes };
        let mut watches: Vec<Call> = Vec::new();
        for (owner, places) in by_owner {
            let item = |place: usize| Some(WatchItem { partition: self.targets[place].as_ref().ok()?.partition, seen: seen[place].seen? });
            let items = places.into_iter().filter_map(item).collect();
            watches.push(self.context.shard.call(owner, ShardRequest::Watch { items, missing_bytes }));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        rt::timeout(left, first(&mut watches, &self.context.connection.departure)).await.is_ok_and(|has_changed| has_changed)
    }

    fn response(&self, session: FetchContext, results: Vec<ReadResult>) -> (FetchResponse, SmallVec<[FileRange; 1]>) {
        let outcomes: Vec<PartitionOutcome> = results.iter().map(outcome).collect();
        let names: Vec<NamedPartition> = session.partitions.iter().map(|wanted| wanted.name.clone()).collect();
        let (session_id, told) =
            self.context.connection.fetch_sessions.borrow_mut().finish(session, &outcomes, rt::wall_clock_ms(), random_id);

        let mut files = SmallVec::new();
        let mut response = FetchResponse { session_id, ..Default::default() };
        for ((name, result), _) in names.into_iter().zip(results).zip(told).filter(|(_, told)| *told) {
            if self.context.api_version >= 16 && names_leader(result.error) {
                let (node_id, host, port) = self.context.advertised_endpoint();
                response.node_endpoints = vec![NodeEndpoint { node_id, host, port, ..Default::default() }];
            }
            let data = self.partition_data(&name, result, &mut files);
            match response.responses.last_mut() {
                Some(last) if last.topic == name.topic && last.topic_id == name.topic_id => last.partitions.push(data),
                _ => response.responses.push(FetchableTopicResponse {
                    topic: name.topic,
                    topic_id: name.topic_id,
                    partitions: vec![data],
                    ..Default::default()
                }),
            }
        }
        (response, files)
    }

    fn partition_data(&self, name: &NamedPartition, result: ReadResult, files: &mut SmallVec<[FileRange; 1]>) -> PartitionData {
        let mut data = PartitionData {
            partition_index: name.partition,
            error_code: self.error_for_version(result.error).code(),
            high_watermark: result.high_watermark,
            last_stable_offset: result.last_stable_offset,
            log_start_offset: result.log_start_offset,
            ..Default::default()
        };
        data.aborted_transactions = (self.read_committed && result.error == ErrorCode::None).then(|| {
            let aborted = |(producer_id, first_offset): &(i64, i64)| AbortedTransaction {
                producer_id: *producer_id,
                first_offset: *first_offset,
                ..Default::default()
            };
            result.aborted.iter().map(aborted).collect()
        });
        if let Some((epoch, end_offset)) = result.diverging {
            data.diverging_epoch = EpochEndOffset { epoch, end_offset, ..Default::default() };
        }
        if self.context.api_version >= 16 && names_leader(result.error) {
            data.current_leader = LeaderIdAndEpoch { leader_id: result.leader_id, leader_epoch: result.leader_epoch, ..Default::default() };
        }
        data.records = Some(records(result.pieces, files));
        data
    }

    /// Before version 6 a client does not know storage errors.
    fn error_for_version(&self, error: ErrorCode) -> ErrorCode {
        if error == ErrorCode::KafkaStorageError && self.context.api_version <= 5 { ErrorCode::NotLeaderOrFollower } else { error }
    }
}

fn random_id() -> i32 {
    let mut bytes = [0; 4];
    rt::random_bytes(&mut bytes);
    i32::from_ne_bytes(bytes)
}

fn names_leader(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch)
}

fn target(context: &RequestContext, wanted: &WantedPartition, replica_id: i32, read_committed: bool) -> Result<ReadItem, ErrorCode> {
    let image = context.shard.image();
    let by_id = context.api_version >= 13;
    let topic = if by_id {
        image.topic_by_id(&wanted.name.topic_id).ok_or(ErrorCode::UnknownTopicId)?
    } else {
        image.topic(&wanted.name.topic).ok_or(ErrorCode::UnknownTopicOrPartition)?
    };
    let partition = topic.partition(wanted.name.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if replica_id >= 0 && !partition.replicas.contains(&replica_id) {
        // A follower that knows an epoch waits for newer metadata; one that does not looks for the leader again.
        return Err(if wanted.current_leader_epoch >= 0 { ErrorCode::UnknownLeaderEpoch } else { ErrorCode::NotLeaderOrFollower });
    }
    Ok(ReadItem {
        partition: TopicIdPartition { topic_id: topic.id, partition: wanted.name.partition },
        fetch_offset: wanted.fetch_offset,
        current_leader_epoch: wanted.current_leader_epoch,
        last_fetched_epoch: wanted.last_fetched_epoch,
        max_bytes: wanted.max_bytes.max(0) as usize,
        read_committed,
    })
}

/// Owners plan without knowing of each other, so the sum may be too large, and each gives a whole batch at least: the first partition with records keeps them, a later one only
/// if they fit into what is left and into its own limit.
fn cut(results: &mut [ReadResult], max_bytes: usize, partition_max: impl Fn(usize) -> usize) {
    let mut left = max_bytes;
    let mut first = true;
    for (place, result) in results.iter_mut().enumerate() {
        let bytes = result.bytes();
        if bytes == 0 {
            continue;
        }
        if bytes > left.min(partition_max(place)) && !first {
            result.pieces.clear();
            continue;
        }
        first = false;
        left = left.saturating_sub(bytes);
    }
}

fn outcome(result: &ReadResult) -> PartitionOutcome {
    PartitionOutcome {
        has_records: !result.pieces.is_empty(),
        must_tell: result.diverging.is_some(),
        error: result.error,
        high_watermark: result.high_watermark,
        log_start_offset: result.log_start_offset,
    }
}

fn records(pieces: Vec<Piece>, files: &mut SmallVec<[FileRange; 1]>) -> Records {
    let mut records = Records::default();
    for piece in pieces {
        records.push(match piece {
            Piece::Memory(bytes) => RecordsPiece::Memory(bytes),
            Piece::File(range) => {
                let token = files.len() as u64;
                let length = range.length;
                files.push(range);
                RecordsPiece::Deferred { token, length }
            }
        });
    }
    records
}

/// Waits for the first of `calls` to be answered; false if the client has gone before.
async fn first(calls: &mut [Call], departure: &Departure) -> bool {
    let mut departed = pin!(departure.announced());
    poll_fn(|context| {
        for call in calls.iter_mut() {
            if Pin::new(call).poll(context).is_ready() {
                return Poll::Ready(true);
            }
        }
        departed.as_mut().poll(context).map(|()| false)
    })
    .await
}
