//! Requests about transactions: beginning, growing and ending them, and what operators ask about them.
//!
//! Each is handed to the coordinator of its transactional id, on the shard that owns the id's partition of `__transaction_state`. What belongs to a version of a request is settled
//! here; the coordinator knows one shape of each.

mod describe;
mod markers;
mod offsets;
mod verification;

use std::time::Duration;

pub use self::describe::{handle_describe_transactions, handle_list_transactions};
pub use self::markers::handle_write_txn_markers;
pub use self::offsets::{handle_add_offsets_to_txn, handle_txn_offset_commit};
pub(super) use self::verification::{FirstAppend, Protocol, Verifier};
use super::RequestContext;
use crate::cluster::{Image, TopicIdPartition};
use crate::drive::transactions::{Coordinators, TransactionRequest};
use crate::group::partition_for;
use crate::shard::message::{Reply as ShardReply, Request};
use crate::txn::{Call, EPOCH_BUMP_VERSION, Producer, Reply, TRANSACTIONS_TOPIC, TopicPartition};
use crate::wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use crate::wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use crate::wire::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
};
use crate::wire::{ErrorCode, Str};

/// From here on InitProducerId knows PRODUCER_FENCED.
const INITIALISE_FENCED_VERSION: i16 = 4;
/// From here on the other requests do.
const FENCED_VERSION: i16 = 2;
/// From here on brokers register or verify partitions for several transactions at once (KIP-890).
const ADD_TOGETHER_VERSION: i16 = 4;
/// From here on EndTxn and AddPartitionsToTxn are those of transaction version 2.
const VERSION_2_FROM: i16 = 5;

/// How long a client's request to begin the next transaction waits for the end of the one before. Its answer would be to ask again; the end is mostly a millisecond away.
const PATIENCE_WITH_THE_END: Duration = Duration::from_millis(50);

/// InitProducerId: an id of its own for an idempotent producer, the id's next epoch for a transactional one.
pub async fn handle_init_producer_id(context: &RequestContext, request: InitProducerIdRequest, version: i16) -> InitProducerIdResponse {
    match initialise(context, request).await {
        Ok(producer) => InitProducerIdResponse { producer_id: producer.id, producer_epoch: producer.epoch, ..Default::default() },
        Err(error) => InitProducerIdResponse {
            error_code: fenced_in_version(error, version, INITIALISE_FENCED_VERSION).code(),
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        },
    }
}

async fn initialise(context: &RequestContext, request: InitProducerIdRequest) -> Result<Producer, ErrorCode> {
    let Producer { id, epoch } = Producer { id: request.producer_id, epoch: request.producer_epoch };
    if (id == -1) != (epoch == -1) {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(transactional_id) = request.transactional_id else {
        // Ids are unique in the cluster, taken from the controller in blocks, one block at a time on each shard.
        return context.shard.next_producer_id().await.map(|id| Producer { id, epoch: 0 });
    };
    if transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let expected = (id != -1).then_some(Producer { id, epoch });
    let call = Call::Initialise { transactional_id: transactional_id.clone(), timeout_ms: request.transaction_timeout_ms, expected };
    match ask(context, &transactional_id, call, Duration::ZERO).await {
        Reply::Producer(outcome) => outcome,
        other => unreachable!("InitProducerId is answered with a producer, not {other:?}"),
    }
}

/// AddPartitionsToTxn: of one transaction by its client, of several by brokers.
pub async fn handle_add_partitions_to_txn(
    context: &RequestContext,
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> AddPartitionsToTxnResponse {
    if version < ADD_TOGETHER_VERSION {
        let producer = Producer { id: request.v3_and_below_producer_id, epoch: request.v3_and_below_producer_epoch };
        let id = request.v3_and_below_transactional_id;
        let results = add_partitions(context, &id, producer, &request.v3_and_below_topics, version).await;
        return AddPartitionsToTxnResponse { results_by_topic_v3_and_below: results, ..Default::default() };
    }
    let mut response = AddPartitionsToTxnResponse::default();
    for transaction in request.transactions {
        let producer = Producer { id: transaction.producer_id, epoch: transaction.producer_epoch };
        let id = transaction.transactional_id;
        let topic_results = if transaction.verify_only {
            verify_partitions(context, &id, producer, &transaction.topics).await
        } else {
            add_partitions(context, &id, producer, &transaction.topics, version).await
        };
        response.results_by_transaction.push(AddPartitionsToTxnResult { transactional_id: id, topic_results, ..Default::default() });
    }
    response
}

/// All or nothing: one partition that is not there keeps the others out.
async fn add_partitions(
    context: &RequestContext,
    transactional_id: &Str,
    producer: Producer,
    topics: &[AddPartitionsToTxnTopic],
    version: i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let image = context.shard.image();
    let exists = |topic: &str, partition: i32| image.topic(topic).is_some_and(|topic| topic.partition(partition).is_some());
    if partitions_of(topics).any(|(topic, partition)| !exists(&topic, partition)) {
        return results(topics, |topic, partition| {
            if exists(topic, partition) { ErrorCode::OperationNotAttempted } else { ErrorCode::UnknownTopicOrPartition }
        });
    }
    let call = Call::AddPartitions {
        transactional_id: transactional_id.clone(),
        producer,
        partitions: partitions_of(topics).collect(),
        client_version: if version >= VERSION_2_FROM { EPOCH_BUMP_VERSION } else { 0 },
    };
    let Reply::Added(added) = ask(context, transactional_id, call, PATIENCE_WITH_THE_END).await else {
        unreachable!("AddPartitionsToTxn is answered by its own reply")
    };
    let error = fenced_in_version(added.err().unwrap_or(ErrorCode::None), version, FENCED_VERSION);
    results(topics, |_, _| error)
}

async fn verify_partitions(
    context: &RequestContext,
    transactional_id: &Str,
    producer: Producer,
    topics: &[AddPartitionsToTxnTopic],
) -> Vec<AddPartitionsToTxnTopicResult> {
    let call = Call::Verify { transactional_id: transactional_id.clone(), producer, partitions: partitions_of(topics).collect() };
    let Reply::Verified(verified) = ask(context, transactional_id, call, Duration::ZERO).await else {
        unreachable!("a verification is answered by its own reply")
    };
    match verified {
        Err(error) => results(topics, |_, _| error),
        Ok(codes) => {
            let mut codes = codes.into_iter();
            results(topics, |_, _| codes.next().expect("one code for each partition"))
        }
    }
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> impl Iterator<Item = TopicPartition> + '_ {
    topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.clone(), *partition)))
}

fn results(topics: &[AddPartitionsToTxnTopic], mut code: impl FnMut(&str, i32) -> ErrorCode) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut results = Vec::with_capacity(topics.len());
    for topic in topics {
        let of_partition = |partition: &i32| AddPartitionsToTxnPartitionResult {
            partition_index: *partition,
            partition_error_code: code(&topic.name, *partition).code(),
            ..Default::default()
        };
        let results_by_partition = topic.partitions.iter().map(of_partition).collect();
        results.push(AddPartitionsToTxnTopicResult { name: topic.name.clone(), results_by_partition, ..Default::default() });
    }
    results
}

/// EndTxn: the decision. What comes after it is the coordinator's.
pub async fn handle_end_txn(context: &RequestContext, request: EndTxnRequest, version: i16) -> EndTxnResponse {
    let call = Call::End {
        transactional_id: request.transactional_id.clone(),
        producer: Producer { id: request.producer_id, epoch: request.producer_epoch },
        is_commit: request.committed,
        client_version: if version >= VERSION_2_FROM { EPOCH_BUMP_VERSION } else { 0 },
    };
    let patience = if version >= VERSION_2_FROM { PATIENCE_WITH_THE_END } else { Duration::ZERO };
    match ask(context, &request.transactional_id, call, patience).await {
        Reply::Producer(Ok(producer)) if version >= VERSION_2_FROM => {
            EndTxnResponse { producer_id: producer.id, producer_epoch: producer.epoch, ..Default::default() }
        }
        Reply::Producer(outcome) => {
            let error = fenced_in_version(outcome.err().unwrap_or(ErrorCode::None), version, FENCED_VERSION);
            EndTxnResponse { error_code: error.code(), ..Default::default() }
        }
        other => unreachable!("EndTxn is answered with a producer, not {other:?}"),
    }
}

// The way to the coordinators

/// Asks the coordinator of one transactional id.
async fn ask(context: &RequestContext, transactional_id: &str, call: Call, patience: Duration) -> Reply {
    if transactional_id.is_empty() {
        return call.refuse(ErrorCode::InvalidRequest);
    }
    match coordinator_of(&context.shard.image(), transactional_id, context.shard.config().node_id()) {
        Ok(partition) => {
            let request = TransactionRequest { to: Coordinators::Of(partition), call, patience };
            match context.shard.call(context.shard.owner(&partition), Request::Transaction(request)).await {
                ShardReply::Transaction(reply) => reply,
                other => unreachable!("a transaction coordinator answers with its own reply, not {other:?}"),
            }
        }
        Err(error) => call.refuse(error),
    }
}

/// The partition of the transactions' topic that an id belongs to, if this broker leads it.
fn coordinator_of(image: &Image, transactional_id: &str, node_id: i32) -> Result<TopicIdPartition, ErrorCode> {
    let topic = image.topic(TRANSACTIONS_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
    let index = partition_for(transactional_id, topic.partition_count());
    let is_led_here = topic.partition(index).is_some_and(|partition| partition.leader == node_id);
    if is_led_here { Ok(TopicIdPartition { topic_id: topic.id, partition: index }) } else { Err(ErrorCode::NotCoordinator) }
}

/// Older clients know a fenced producer by the older name only (KIP-588).
fn fenced_in_version(error: ErrorCode, version: i16, known_from: i16) -> ErrorCode {
    if error == ErrorCode::ProducerFenced && version < known_from { ErrorCode::InvalidProducerEpoch } else { error }
}
