//! The one match from API key to handler, and what surrounds every handler: decoding the body, encoding the answer.

use super::{Answer, CloseReason, Request, RequestContext, Response};
use super::{
    api_versions, configs, describe_cluster, fetch, find_coordinator, groups, log_dirs, metadata, offsets, older_versions, reassignments,
    sasl, topics, transactions,
};
use crate::rt;
use crate::wire::{ApiKey, Message, Request as WireRequest};

/// A body of this size is decoded in a few hundred microseconds at most.
const DECODED_HERE_BYTES_MAX: usize = 64 << 10;

/// Decodes the body, calls the handler, encodes what it says.
pub async fn answer(request: Request) -> Answer {
    use ApiKey::*;
    match request.context.api_key {
        ApiVersions => api_versions::answer(request),
        Fetch => match decode(request).await {
            Ok((context, body)) => fetch::handle(&context, body).await,
            Err(reason) => Answer::Close(reason),
        },
        SaslHandshake => with(request, sasl::handle_sasl_handshake).await,
        SaslAuthenticate => with(request, sasl::handle_sasl_authenticate).await,
        ListOffsets if request.context.api_version == older_versions::LIST_OFFSETS => older_versions::list_offsets(request).await,
        ListOffsets => with(request, offsets::list_offsets).await,
        OffsetForLeaderEpoch => with(request, offsets::offset_for_leader_epoch).await,
        DeleteRecords => with(request, offsets::delete_records).await,
        DescribeProducers => match decode(request).await {
            Ok((context, body)) => offsets::describe_producers(&context, body).await,
            Err(reason) => Answer::Close(reason),
        },
        InitProducerId => with(request, transactions::handle_init_producer_id).await,
        AddPartitionsToTxn => with(request, transactions::handle_add_partitions_to_txn).await,
        AddOffsetsToTxn => with(request, transactions::handle_add_offsets_to_txn).await,
        EndTxn => with(request, transactions::handle_end_txn).await,
        WriteTxnMarkers => with(request, transactions::handle_write_txn_markers).await,
        TxnOffsetCommit => with(request, transactions::handle_txn_offset_commit).await,
        DescribeTransactions => with(request, transactions::handle_describe_transactions).await,
        ListTransactions => with(request, transactions::handle_list_transactions).await,
        AlterReplicaLogDirs => with(request, log_dirs::alter_replica_log_dirs).await,
        AlterPartitionReassignments => with(request, reassignments::alter_partition_reassignments).await,
        ListPartitionReassignments => with(request, reassignments::list_partition_reassignments).await,
        DescribeLogDirs => with(request, log_dirs::describe_log_dirs).await,
        Metadata => with(request, metadata::handle_metadata).await,
        DescribeCluster => with(request, describe_cluster::handle_describe_cluster).await,
        DescribeTopicPartitions => with(request, metadata::handle_describe_topic_partitions).await,
        CreateTopics => with(request, topics::handle_create_topics).await,
        DeleteTopics => with(request, topics::handle_delete_topics).await,
        CreatePartitions => with(request, topics::handle_create_partitions).await,
        DescribeConfigs => with(request, configs::handle_describe_configs).await,
        AlterConfigs => with(request, configs::handle_alter_configs).await,
        IncrementalAlterConfigs => with(request, configs::handle_incremental_alter_configs).await,
        ListConfigResources => with(request, configs::handle_list_config_resources).await,
        FindCoordinator => with(request, find_coordinator::handle_find_coordinator).await,
        JoinGroup => with(request, groups::handle_join_group).await,
        SyncGroup => with(request, groups::handle_sync_group).await,
        Heartbeat => with(request, groups::handle_heartbeat).await,
        LeaveGroup => with(request, groups::handle_leave_group).await,
        OffsetCommit if request.context.api_version == older_versions::OFFSET_COMMIT => older_versions::offset_commit(request).await,
        OffsetCommit => with(request, groups::handle_offset_commit).await,
        OffsetFetch => with(request, groups::handle_offset_fetch).await,
        OffsetDelete => with(request, groups::handle_offset_delete).await,
        ListGroups => with(request, groups::handle_list_groups).await,
        DescribeGroups => with(request, groups::handle_describe_groups).await,
        DeleteGroups => with(request, groups::handle_delete_groups).await,
        ConsumerGroupHeartbeat => with(request, groups::handle_consumer_group_heartbeat).await,
        ConsumerGroupDescribe => with(request, groups::handle_consumer_group_describe).await,
        // Begun by `produce::begin`, never answered here.
        Produce
        // Not served yet: no version of these is advertised, and none gets this far.
        | LeaderAndIsr | StopReplica | UpdateMetadata | ControlledShutdown
        | DescribeAcls | CreateAcls | DeleteAcls | CreateDelegationToken | RenewDelegationToken
        | ExpireDelegationToken | DescribeDelegationToken | ElectLeaders | DescribeClientQuotas
        | AlterClientQuotas | DescribeUserScramCredentials | AlterUserScramCredentials | Vote | BeginQuorumEpoch | EndQuorumEpoch | DescribeQuorum
        | AlterPartition | UpdateFeatures | Envelope | FetchSnapshot | BrokerRegistration | BrokerHeartbeat | UnregisterBroker
        | AllocateProducerIds | ControllerRegistration | GetTelemetrySubscriptions
        | PushTelemetry | AssignReplicasToDirs | ShareGroupHeartbeat | ShareGroupDescribe | ShareFetch | ShareAcknowledge | AddRaftVoter | RemoveRaftVoter
        | UpdateRaftVoter | InitializeShareGroupState | ReadShareGroupState | WriteShareGroupState | DeleteShareGroupState | ReadShareGroupStateSummary
        | StreamsGroupHeartbeat | StreamsGroupDescribe | DescribeShareGroupOffsets | AlterShareGroupOffsets | DeleteShareGroupOffsets
        | StreamsGroupTopologyDescriptionUpdate | UnregisterController => Answer::Close(CloseReason::Unsupported {
            api_key: request.context.api_key as i16,
            api_version: request.context.api_version,
        }),
    }
}

async fn with<R: WireRequest + Send + 'static>(
    request: Request,
    handler: impl AsyncFnOnce(&RequestContext, R, i16) -> R::Response,
) -> Answer {
    match decode::<R>(request).await {
        Ok((context, body)) => {
            let response = handler(&context, body, context.api_version).await;
            Response::answer(context.api_key, context.api_version, context.correlation_id, &response, Default::default())
        }
        Err(reason) => Answer::Close(reason),
    }
}

/// A large body is decoded aside: one full of small things takes this core tens of milliseconds.
async fn decode<R: Message + Send + 'static>(request: Request) -> Result<(RequestContext, R), CloseReason> {
    let Request { context, mut body } = request;
    let RequestContext { api_key, api_version, .. } = context;
    let decoded = if body.remaining() > DECODED_HERE_BYTES_MAX {
        rt::blocking(move || R::decode(&mut body, api_version)).await
    } else {
        R::decode(&mut body, api_version)
    };
    match decoded {
        Ok(body) => Ok((context, body)),
        Err(error) => Err(CloseReason::Malformed(format!("{} version {api_version}: {error}", api_key.name()))),
    }
}
