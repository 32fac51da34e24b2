//! What a shard does for others and for itself: each request family goes to the partition, coordinator or controller that it names.

use std::rc::Rc;

use super::Shard;
use super::message::{EpochEndItem, OffsetAnswer, OffsetItem, ReadItem, ReadResult, ReplicaSize, Reply, Request, WatchItem};
use crate::cluster::{METADATA_PARTITION, TopicIdPartition};
use crate::disk::directories::DataDirectory;
use crate::log::ProducerView;
use crate::partition::{FetchWaiter, Isolation, MoveRefusal, OffsetTarget, Partition, ReadRequest, Refusal};
use crate::rt::Pause;
use crate::wire::ErrorCode;

/// Partitions that are planned between two looks at what else the shard has to do.
const PLANS_AT_ONCE: usize = 64;

impl Shard {
    /// Does what `request` asks of this shard.
    pub(super) async fn serve(self: &Rc<Shard>, request: Request) -> Reply {
        match request {
            Request::Append(append) => Reply::Append(self.append(append).await),
            Request::Guards { items } => Reply::Guards(in_turns(items, |item| self.guard(&item)).await),
            Request::WriteMarkers(markers) => Reply::Markers(self.write_markers(&markers).await),
            Request::Read { items, max_bytes } => Reply::Read(self.read(items, max_bytes).await),
            Request::Watch { items, missing_bytes } => {
                self.watch(items, missing_bytes).await;
                Reply::Done
            }
            Request::Offsets { items } => Reply::Offsets(self.offsets(items).await),
            Request::EpochEnds { items } => Reply::EpochEnds(in_turns(items, |item| self.epoch_end(&item)).await),
            Request::DeleteRecords { items } => Reply::Deleted(self.delete_records(items).await),
            Request::Producers { items } => Reply::Producers(self.producers(items).await),
            Request::Sizes { only } => Reply::Sizes(self.sizes(only).await),
            Request::MoveReplicas { items, directory } => Reply::MovesBegun(self.move_replicas(items, &directory).await),
            Request::Group(request) => Reply::Group(self.groups.handle(request).await),
            Request::Transaction(request) => Reply::Transaction(self.transactions.handle(request).await),
            Request::Controller(request) => {
                let controller = Rc::clone(self.controller.get().expect("controller requests go to shard 0 once it has started"));
                Reply::Controller(controller.handle(request).await)
            }
            Request::Image { image, step } => {
                self.take_image(image, step).await;
                Reply::Done
            }
            Request::Connection(new) => {
                let handler = self.client_handler.get().expect("connections come once net has started");
                match handler.serve(new).await {
                    None => Reply::Done,
                    Some((to, connection)) => Reply::Moved { to, connection },
                }
            }
            Request::Stop(step) => Reply::Stopped(self.stop(step).await),
        }
    }

    /// Plans in request order; what one partition takes is not there for the next, but the first with records gives at least a batch.
    async fn read(&self, items: Vec<ReadItem>, max_bytes: usize) -> Vec<ReadResult> {
        let mut left = max_bytes;
        let mut nothing_yet = true;
        let mut results = Vec::with_capacity(items.len());
        let mut pause = Pause::every(PLANS_AT_ONCE);
        for item in items {
            pause.step().await;
            let result = self.read_one(&item, left, nothing_yet).await;
            let bytes = result.bytes();
            left = left.saturating_sub(bytes);
            nothing_yet &= bytes == 0;
            results.push(result);
        }
        results
    }

    async fn read_one(&self, item: &ReadItem, left: usize, nothing_yet: bool) -> ReadResult {
        let Some(partition) = self.partitions.get(&item.partition) else { return ReadResult::failed(ErrorCode::NotLeaderOrFollower) };
        let request = ReadRequest {
            offset: item.fetch_offset,
            max_bytes: item.max_bytes.min(left),
            isolation: if item.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
            whole_first_batch: nothing_yet,
            current_leader_epoch: item.current_leader_epoch,
            last_fetched_epoch: item.last_fetched_epoch,
        };
        match partition.plan_read(&request).await {
            Ok(plan) => ReadResult {
                error: ErrorCode::None,
                high_watermark: plan.high_watermark,
                last_stable_offset: plan.last_stable_offset,
                log_start_offset: plan.log_start_offset,
                diverging: plan.diverging,
                aborted: plan.aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect(),
                pieces: plan.pieces,
                leader_id: self.config().node_id(),
                leader_epoch: plan.leader_epoch,
                seen: Some(plan.seen),
            },
            Err(refusal) => {
                let failed = ReadResult::failed(refusal.error_code());
                ReadResult { leader_id: self.config().node_id(), leader_epoch: partition.leader_epoch(), ..failed }
            }
        }
    }

    async fn watch(&self, items: Vec<WatchItem>, missing_bytes: u64) {
        let waiter = FetchWaiter::new(missing_bytes);
        for item in &items {
            match self.partitions.get(&item.partition) {
                Some(partition) => partition.watch(&waiter, &item.seen),
                None => waiter.fire(),
            }
        }
        waiter.fired().await;
    }

    async fn offsets(&self, items: Vec<OffsetItem>) -> Vec<Result<OffsetAnswer, ErrorCode>> {
        let mut answers = Vec::with_capacity(items.len());
        let mut pause = Pause::default();
        for item in items {
            pause.step().await;
            answers.push(self.offset(&item).await.map_err(|refusal| refusal.error_code()));
        }
        answers
    }

    async fn offset(&self, item: &OffsetItem) -> Result<OffsetAnswer, Refusal> {
        let partition = self.led(&item.partition)?;
        let isolation = if item.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let target = OffsetTarget::from_timestamp(item.timestamp).expect("the request's timestamps are checked where it arrives");
        let found = partition.find_offset(target, isolation, item.current_leader_epoch).await?;
        Ok(OffsetAnswer { offset: found.offset, timestamp: found.timestamp, leader_epoch: found.leader_epoch })
    }

    fn epoch_end(&self, item: &EpochEndItem) -> Result<(i32, i64), ErrorCode> {
        let end = self.led(&item.partition).and_then(|partition| partition.epoch_end(item.leader_epoch, item.current_leader_epoch));
        end.map(|end| (end.leader_epoch, end.end_offset)).map_err(|refusal| refusal.error_code())
    }

    async fn delete_records(&self, items: Vec<(TopicIdPartition, i64)>) -> Vec<Result<i64, ErrorCode>> {
        let mut answers = Vec::with_capacity(items.len());
        for (key, offset) in items {
            answers.push(match self.led(&key) {
                Ok(partition) => partition.delete_records(offset).await.map_err(|refusal| refusal.error_code()),
                Err(refusal) => Err(refusal.error_code()),
            });
        }
        answers
    }

    async fn producers(&self, items: Vec<TopicIdPartition>) -> Vec<Result<Vec<ProducerView>, ErrorCode>> {
        let mut answers = Vec::with_capacity(items.len());
        for key in items {
            answers.push(match self.led(&key) {
                Ok(partition) => Ok(partition.producers().await),
                Err(refusal) => Err(refusal.error_code()),
            });
        }
        answers
    }

    async fn sizes(&self, only: Option<Vec<TopicIdPartition>>) -> Vec<ReplicaSize> {
        let keys = only.unwrap_or_else(|| self.partitions.all().iter().map(|partition| partition.id()).collect());
        let mut sizes = Vec::new();
        let mut pause = Pause::default();
        for key in keys.into_iter().filter(|key| *key != METADATA_PARTITION) {
            pause.step().await;
            let Some(partition) = self.partitions.get(&key) else { continue };
            let here = ReplicaSize {
                partition: partition.id(),
                directory_id: partition.directory_id(),
                size_bytes: partition.size_bytes() as i64,
                offset_lag: 0,
                is_future: false,
            };
            sizes.push(here);
            sizes.extend(partition.future_replica().map(|future| ReplicaSize {
                directory_id: future.directory_id,
                size_bytes: future.size_bytes as i64,
                offset_lag: future.offset_lag,
                is_future: true,
                ..here
            }));
        }
        sizes
    }

    /// What a broker does not have it cannot move; Kafka keeps an old code for that.
    async fn move_replicas(&self, items: Vec<TopicIdPartition>, directory: &DataDirectory) -> Vec<ErrorCode> {
        let mut outcomes = Vec::with_capacity(items.len());
        for key in items {
            outcomes.push(match self.partitions.move_replica(&key, directory).await {
                Ok(()) => ErrorCode::None,
                Err(MoveRefusal::NotHere) => ErrorCode::ReplicaNotAvailable,
                Err(MoveRefusal::Storage) => ErrorCode::KafkaStorageError,
            });
        }
        outcomes
    }

    fn led(&self, key: &TopicIdPartition) -> Result<Rc<Partition>, Refusal> {
        self.partitions.get(key).ok_or(Refusal::NotLeader)
    }
}

/// An answer for each item, with turns for others between.
async fn in_turns<Item, Answer>(items: Vec<Item>, answer: impl Fn(Item) -> Answer) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(items.len());
    let mut pause = Pause::default();
    for item in items {
        pause.step().await;
        answers.push(answer(item));
    }
    answers
}
