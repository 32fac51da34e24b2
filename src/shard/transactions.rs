//! What a shard does for transactions: guards before a first append, markers into its partitions, and the way of its coordinators to other shards.

use std::rc::Rc;

use super::message::{GuardItem, Guarding, Reply, Request};
use super::{Call, Shard};
use crate::cluster::TopicIdPartition;
use crate::drive::transactions::{Markers, TransactionSurroundings};
use crate::log::{EndMarker, Origin, ValidatedBatch, VerificationGuard};
use crate::partition::{GroupSequence, Partition};
use crate::rt::{self, ShardId};
use crate::wire::ErrorCode;

/// What the transaction coordinators of `shard` need of it and of the others.
pub(super) fn surroundings(shard: &Rc<Shard>) -> TransactionSurroundings {
    let (giving, writing) = (Rc::downgrade(shard), Rc::downgrade(shard));
    TransactionSurroundings {
        next_producer_id: Box::new(move || {
            let shard = giving.upgrade();
            Box::pin(async move {
                match shard {
                    Some(shard) => shard.next_producer_id().await,
                    None => Err(ErrorCode::CoordinatorNotAvailable),
                }
            })
        }),
        write_markers: Box::new(move |markers| {
            let shard = writing.upgrade();
            Box::pin(async move {
                match shard {
                    Some(shard) => shard.send_markers(markers).await,
                    None => vec![ErrorCode::NotLeaderOrFollower; markers.partitions.len()],
                }
            })
        }),
    }
}

impl Guarding {
    /// What the append is to be checked against.
    pub(super) fn guard(self) -> Option<VerificationGuard> {
        match self {
            Guarding::Open => None,
            Guarding::Guarded(guard) => Some(guard),
        }
    }
}

impl Shard {
    /// Ends a transaction in partitions of any shard: one call to each owner. One code for each partition, in order, when all are durable.
    pub async fn send_markers(self: &Rc<Shard>, markers: Markers) -> Vec<ErrorCode> {
        let mut by_owner: Vec<Vec<usize>> = vec![Vec::new(); usize::from(self.shards)];
        for (place, partition) in markers.partitions.iter().enumerate() {
            by_owner[usize::from(self.owner(partition).0)].push(place);
        }
        let mut calls: Vec<(Vec<usize>, Call)> = Vec::new();
        for (owner, places) in by_owner.into_iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let partitions = places.iter().map(|place| markers.partitions[*place]).collect();
            let part = Markers { partitions, ..markers.clone() };
            calls.push((places, self.call(ShardId(owner as u16), Request::WriteMarkers(part))));
        }
        let mut outcomes = vec![ErrorCode::None; markers.partitions.len()];
        for (places, call) in calls {
            let Reply::Markers(codes) = call.await else { unreachable!("markers are answered by codes") };
            for (place, code) in places.into_iter().zip(codes) {
                outcomes[place] = code;
            }
        }
        outcomes
    }

    /// A guard for the first batch of a transaction. A partition that is not here has none: its append says so.
    pub(super) fn guard(&self, item: &GuardItem) -> Guarding {
        let partition = self.partitions.get(&item.partition);
        match partition.and_then(|partition| partition.verification_guard(item.producer_id, item.producer_epoch)) {
            Some(guard) => Guarding::Guarded(guard),
            None => Guarding::Open,
        }
    }

    /// Appends the markers one behind the other, so that they share a group of the journal, and waits for all of them together.
    pub(super) async fn write_markers(&self, markers: &Markers) -> Vec<ErrorCode> {
        let marker = EndMarker { is_commit: markers.is_commit, coordinator_epoch: markers.coordinator_epoch };
        let batch = ValidatedBatch::internal(marker.build(markers.producer_id, markers.producer_epoch, rt::wall_clock_ms()));
        let mut appended = Vec::with_capacity(markers.partitions.len());
        for key in &markers.partitions {
            appended.push(self.write_marker(key, &batch, markers.transaction_version).await);
        }
        let mut outcomes = Vec::with_capacity(appended.len());
        for result in appended {
            outcomes.push(match result {
                Ok((partition, sequence)) => match partition.wait_durable(sequence).await {
                    Ok(()) => ErrorCode::None,
                    Err(error) => error.error_code(),
                },
                Err(code) => code,
            });
        }
        outcomes
    }

    async fn write_marker(
        &self,
        key: &TopicIdPartition,
        batch: &ValidatedBatch,
        transaction_version: i16,
    ) -> Result<(Rc<Partition>, GroupSequence), ErrorCode> {
        let partition = self.partitions.get(key).ok_or(ErrorCode::NotLeaderOrFollower)?;
        // Offsets that wait for the end of a transaction are their coordinator's, and so is the log that they lie in.
        if let Some(appended) = self.groups.end_transaction(key, batch, transaction_version).await {
            return appended.map(|sequence| (partition, sequence));
        }
        let origin = Origin::Coordinator { transaction_version };
        let appending = partition.append(batch, origin).await.map_err(|error| error.error_code())?;
        Ok((partition, appending.sequence))
    }
}
