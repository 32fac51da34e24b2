//! InitProducerId for idempotent producers: ids are unique in the cluster, taken from the controller in blocks, one block at a time on each shard.

use super::RequestContext;
use crate::wire::ErrorCode;
use crate::wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

/// Gives a producer its id, epoch 0.
pub async fn init_producer_id(context: &RequestContext, request: InitProducerIdRequest, _version: i16) -> InitProducerIdResponse {
    let refused = match &request.transactional_id {
        Some(id) if id.is_empty() => Some(ErrorCode::InvalidRequest),
        // Transactions are not served yet, so no shard coordinates any transactional id; clients retry and then say so.
        Some(_) => Some(ErrorCode::CoordinatorNotAvailable),
        None if (request.producer_id == -1) != (request.producer_epoch == -1) => Some(ErrorCode::InvalidRequest),
        None => None,
    };
    let given = match refused {
        Some(error) => Err(error),
        None => context.shard.next_producer_id().await,
    };
    match given {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(error) => InitProducerIdResponse { error_code: error.code(), producer_id: -1, producer_epoch: -1, ..Default::default() },
    }
}
