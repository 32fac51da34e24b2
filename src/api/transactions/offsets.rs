//! Offsets that are committed with a transaction: AddOffsetsToTxn and TxnOffsetCommit (KIP-98, KIP-447, KIP-890).

use super::verification::{FirstAppend, Protocol, Verifier};
use super::{FENCED_VERSION, PATIENCE_WITH_THE_END, ask, fenced_in_version};
use crate::api::RequestContext;
use crate::api::groups::commit_in_transaction;
use crate::cluster::TopicIdPartition;
use crate::group::{OFFSETS_TOPIC, OpenTransaction, partition_for};
use crate::shard::message::Guarding;
use crate::txn::{Call, Producer, Reply};
use crate::wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use crate::wire::messages::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use crate::wire::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use crate::wire::{ErrorCode, Str};

/// Before this, a coordinator that loads says that it is not available.
const LOADING_VERSION: i16 = 2;
/// From here on the client knows TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 4;
/// From here on the broker registers the group's partition itself (KIP-890).
const REGISTERS_VERSION: i16 = 5;

/// AddOffsetsToTxn: the partition in which the group's offsets lie becomes part of the transaction.
pub async fn handle_add_offsets_to_txn(context: &RequestContext, request: AddOffsetsToTxnRequest, version: i16) -> AddOffsetsToTxnResponse {
    let refuse = |error: ErrorCode| AddOffsetsToTxnResponse { error_code: error.code(), ..Default::default() };
    // The topic may come later, with the first look for the group's coordinator; its partitions are counted already.
    let image = context.shard.image();
    let count =
        image.topic(OFFSETS_TOPIC).map_or_else(|| context.shard.config().offsets_topic_num_partitions(), |topic| topic.partition_count());
    let name = (Str::from_static(OFFSETS_TOPIC), partition_for(&request.group_id, count));
    let call = Call::AddPartitions {
        transactional_id: request.transactional_id.clone(),
        producer: Producer { id: request.producer_id, epoch: request.producer_epoch },
        partitions: vec![name],
        client_version: 0,
    };
    match ask(context, &request.transactional_id, call, PATIENCE_WITH_THE_END).await {
        Reply::Added(Ok(())) => AddOffsetsToTxnResponse::default(),
        Reply::Added(Err(error)) => refuse(fenced_in_version(error, version, FENCED_VERSION)),
        other => unreachable!("partitions are added by their own reply, not {other:?}"),
    }
}

/// TxnOffsetCommit: offsets that count when the transaction is committed.
pub async fn handle_txn_offset_commit(
    context: &RequestContext,
    mut request: TxnOffsetCommitRequest,
    version: i16,
) -> TxnOffsetCommitResponse {
    let topics = std::mem::take(&mut request.topics);
    let commit = OffsetCommitRequest {
        group_id: request.group_id.clone(),
        generation_id_or_member_epoch: request.generation_id_or_member_epoch,
        member_id: request.member_id.clone(),
        group_instance_id: request.group_instance_id.clone(),
        topics: topics.into_iter().map(topic_to_commit).collect(),
        ..Default::default()
    };
    let by_id = version >= 6;
    let committed = commit_in_transaction(context, commit, by_id, async || verify(context, &request, version).await).await;
    respond(committed, version)
}

/// Sees to it that the transaction's coordinator knows of the group's partition.
async fn verify(context: &RequestContext, request: &TxnOffsetCommitRequest, version: i16) -> Result<OpenTransaction, ErrorCode> {
    let producer = Producer { id: request.producer_id, epoch: request.producer_epoch };
    let (key, name) = offsets_partition(context, &request.group_id).ok_or(ErrorCode::NotCoordinator)?;
    let protocol = Protocol { registers: version >= REGISTERS_VERSION, knows_abortable: version >= ABORTABLE_VERSION };
    let verifier = Verifier { context, transactional_id: &request.transactional_id, producer, protocol };
    let verified = verifier.verify(&[FirstAppend { key, name }]).await.remove(0);
    let guarding = match verified {
        Err(ErrorCode::NotEnoughReplicas) => return Err(ErrorCode::CoordinatorLoadInProgress),
        Err(error) => return Err(error),
        Ok(Some(guarding)) => guarding,
        // Nothing is verified: the guard of this moment is as good as any.
        Ok(None) => verifier.guard_of(key).await,
    };
    let guard = match guarding {
        Guarding::Open => None,
        Guarding::Guarded(guard) => Some(guard),
    };
    Ok(OpenTransaction { producer_id: producer.id, producer_epoch: producer.epoch, guard })
}

/// The partition of `__consumer_offsets` that a group belongs to, and its name.
fn offsets_partition(context: &RequestContext, group_id: &str) -> Option<(TopicIdPartition, (Str, i32))> {
    let image = context.shard.image();
    let topic = image.topic(OFFSETS_TOPIC)?;
    let partition = partition_for(group_id, topic.partition_count());
    Some((TopicIdPartition { topic_id: topic.id, partition }, (Str::from_static(OFFSETS_TOPIC), partition)))
}

fn topic_to_commit(topic: TxnOffsetCommitRequestTopic) -> OffsetCommitRequestTopic {
    let partition = |partition: TxnOffsetCommitRequestPartition| OffsetCommitRequestPartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        committed_metadata: partition.committed_metadata,
        ..Default::default()
    };
    OffsetCommitRequestTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..Default::default()
    }
}

fn respond(committed: OffsetCommitResponse, version: i16) -> TxnOffsetCommitResponse {
    let code = |code: i16| {
        let is_loading = code == ErrorCode::CoordinatorLoadInProgress.code();
        if is_loading && version < LOADING_VERSION { ErrorCode::CoordinatorNotAvailable.code() } else { code }
    };
    let mut response = TxnOffsetCommitResponse::default();
    for topic in committed.topics {
        let partitions = topic.partitions.iter().map(|partition| TxnOffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code(partition.error_code),
            ..Default::default()
        });
        response.topics.push(TxnOffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
            ..Default::default()
        });
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};

    #[test]
    fn a_coordinator_that_loads_is_not_available_to_old_clients() {
        let told = |error: ErrorCode, version| {
            let partitions = vec![OffsetCommitResponsePartition { error_code: error.code(), ..Default::default() }];
            let topics = vec![OffsetCommitResponseTopic { partitions, ..Default::default() }];
            respond(OffsetCommitResponse { topics, ..Default::default() }, version).topics[0].partitions[0].error_code
        };
        assert_eq!(told(ErrorCode::CoordinatorLoadInProgress, 1), ErrorCode::CoordinatorNotAvailable.code());
        assert_eq!(told(ErrorCode::CoordinatorLoadInProgress, 2), ErrorCode::CoordinatorLoadInProgress.code());
        assert_eq!(told(ErrorCode::FencedInstanceId, 1), ErrorCode::FencedInstanceId.code());
    }
}
