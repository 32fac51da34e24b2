//! AlterPartitionReassignments and ListPartitionReassignments. `kafka-reassign-partitions` asks for both before and after it moves a replica between data directories.

use super::RequestContext;
use crate::cluster::decide::Refusal;
use crate::cluster::decide::reassignments::reassign;
use crate::rt::Pause;
use crate::wire::messages::alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse};
use crate::wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
};
use crate::wire::{ErrorCode, Str};

/// Each partition gets a code of its own.
pub async fn alter_partition_reassignments(
    context: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
    _version: i16,
) -> AlterPartitionReassignmentsResponse {
    let may_change_factor = request.allow_replication_factor_change;
    let image = context.shard.image();
    let mut responses = Vec::with_capacity(request.topics.len());
    let mut pause = Pause::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let outcome = reassign(&image, &topic.name, wanted.partition_index, wanted.replicas.as_deref(), may_change_factor);
            partitions.push(partition_response(wanted.partition_index, outcome));
            pause.step().await;
        }
        responses.push(ReassignableTopicResponse { name: topic.name, partitions, ..Default::default() });
    }
    AlterPartitionReassignmentsResponse { allow_replication_factor_change: may_change_factor, responses, ..Default::default() }
}

fn partition_response(partition_index: i32, outcome: Result<(), Refusal>) -> ReassignablePartitionResponse {
    let (code, message) = match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err(Refusal { code, message }) => (code, message),
    };
    ReassignablePartitionResponse { partition_index, error_code: code.code(), error_message: message.map(Str::from), ..Default::default() }
}

/// None is ever under way.
pub async fn list_partition_reassignments(
    _context: &RequestContext,
    _request: ListPartitionReassignmentsRequest,
    _version: i16,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
