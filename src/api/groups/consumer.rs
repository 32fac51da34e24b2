//! Requests of the consumer protocol (KIP-848): ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use super::{GROUP_OPERATIONS, ask, ask_each_coordinator, caller};
use crate::api::RequestContext;
use crate::cluster::features::GROUP_VERSION;
use crate::drive::groups::{GroupReply, group_config};
use crate::group::{Call, Caller, validate_heartbeat};
use crate::rt;
use crate::wire::messages::consumer_group_describe_response::DescribedGroup;
use crate::wire::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::wire::{ErrorCode, Str};

pub async fn handle_consumer_group_heartbeat(
    context: &RequestContext,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
) -> ConsumerGroupHeartbeatResponse {
    let refuse =
        |error: ErrorCode, error_message| ConsumerGroupHeartbeatResponse { error_code: error.code(), error_message, ..Default::default() };
    if !is_enabled(context) {
        return refuse(ErrorCode::UnsupportedVersion, None);
    }
    if let Err((error, message)) = validate_heartbeat(&request, version, &group_config(&context.shard.config())) {
        return refuse(error, Some(message));
    }
    let group_id = request.group_id.clone();
    let caller = Caller { fresh_id: rt::random_uuid(), ..caller(context) };
    let GroupReply::ConsumerHeartbeat(response) = ask(context, &group_id, caller, Call::ConsumerHeartbeat(request)).await else {
        unreachable!()
    };
    response
}

pub async fn handle_consumer_group_describe(
    context: &RequestContext,
    request: ConsumerGroupDescribeRequest,
    _version: i16,
) -> ConsumerGroupDescribeResponse {
    let refused = |group_id: Str, error: ErrorCode| DescribedGroup { group_id, error_code: error.code(), ..Default::default() };
    if !is_enabled(context) {
        let groups = request.group_ids.into_iter().map(|group_id| refused(group_id, ErrorCode::UnsupportedVersion));
        return ConsumerGroupDescribeResponse { groups: groups.collect(), ..Default::default() };
    }
    let (nameless, group_ids): (Vec<Str>, Vec<Str>) = request.group_ids.into_iter().partition(|group_id| group_id.is_empty());
    let mut groups: Vec<DescribedGroup> = nameless.into_iter().map(|group_id| refused(group_id, ErrorCode::InvalidGroupId)).collect();
    for reply in ask_each_coordinator(context, group_ids, Call::DescribeConsumerGroups).await {
        let GroupReply::DescribeConsumerGroups(described) = reply else { unreachable!() };
        groups.extend(described);
    }
    for group in groups.iter_mut().filter(|group| request.include_authorized_operations && group.error_code == 0) {
        group.authorized_operations = GROUP_OPERATIONS;
    }
    ConsumerGroupDescribeResponse { groups, ..Default::default() }
}

/// The cluster has to have finalised the protocol, and this broker must not have it switched off.
fn is_enabled(context: &RequestContext) -> bool {
    let config = context.shard.config();
    let is_switched_on = config.group_coordinator_rebalance_protocols().iter().any(|protocol| protocol == "consumer");
    is_switched_on && context.shard.image().feature_level(GROUP_VERSION) >= 1
}
