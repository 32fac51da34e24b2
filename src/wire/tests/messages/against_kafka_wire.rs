//! Our bytes through the `kafka-wire` crate: it must read what we write and write the same again.

use bytes::{Bytes, BytesMut};
use kafka_wire::KafkaMessage;
use kafka_wire_core::{ApiVersion, DecodeLimits};

use crate::values::{all_messages, describe, first_seed, random_message};

const SEEDS: u64 = 15;

/// The crate was made from a commit before this version got its last field, `AssignorName` (KIP-1357).
const OLDER_THERE: [(&str, i16); 1] = [("StreamsGroupDescribeResponse", 1)];

/// One message of theirs: its name, its versions, and a way through its decoder and encoder.
struct Theirs {
    name: &'static str,
    versions: (i16, i16),
    transcode: fn(&Bytes, i16) -> Result<BytesMut, String>,
}

#[test]
fn kafka_wire_agrees() {
    let theirs = all_of_theirs();
    let mut versions_compared = 0;
    for (entry, schema) in all_messages() {
        let Some(theirs) = theirs.iter().find(|message| message.name == entry.name) else { continue };
        for version in entry.versions.0.max(theirs.versions.0)..=entry.versions.1.min(theirs.versions.1) {
            if OLDER_THERE.contains(&(entry.name, version)) {
                continue;
            }
            versions_compared += 1;
            for seed in first_seed()..first_seed() + SEEDS {
                let bytes = Bytes::from(random_message(&schema, version, seed));
                let what = describe(entry, version, seed);
                let ours = (entry.transcode)(bytes, version, version).unwrap().encoded.unwrap();
                let theirs = (theirs.transcode)(&ours, version).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(theirs, ours, "{what}");
            }
        }
    }
    assert!(versions_compared > 500, "{versions_compared} versions of messages were compared");
}

fn theirs<M: KafkaMessage>() -> Theirs {
    let versions = (M::SUPPORTED_VERSIONS.min().value(), M::SUPPORTED_VERSIONS.max().value());
    Theirs { name: M::NAME, versions, transcode: transcode::<M> }
}

fn transcode<M: KafkaMessage>(bytes: &Bytes, version: i16) -> Result<BytesMut, String> {
    let version = ApiVersion::new(version);
    let message = M::decode_from_bytes(bytes.clone(), version, DecodeLimits::default()).map_err(|error| error.to_string())?;
    let mut out = BytesMut::new();
    message.encode_into(&mut out, version).map_err(|error| error.to_string())?;
    Ok(out)
}

macro_rules! all {
    ($($message:ident)*) => {
        fn all_of_theirs() -> Vec<Theirs> {
            vec![$(theirs::<kafka_wire::$message>()),*]
        }
    };
}

all! {
    AddOffsetsToTxnRequest AddOffsetsToTxnResponse AddPartitionsToTxnRequest AddPartitionsToTxnResponse AddRaftVoterRequest
    AddRaftVoterResponse AllocateProducerIdsRequest AllocateProducerIdsResponse AlterClientQuotasRequest AlterClientQuotasResponse
    AlterConfigsRequest AlterConfigsResponse AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
    AlterPartitionRequest AlterPartitionResponse AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse AlterShareGroupOffsetsRequest
    AlterShareGroupOffsetsResponse AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse ApiVersionsRequest
    ApiVersionsResponse AssignReplicasToDirsRequest AssignReplicasToDirsResponse BeginQuorumEpochRequest BeginQuorumEpochResponse
    BrokerHeartbeatRequest BrokerHeartbeatResponse BrokerRegistrationRequest BrokerRegistrationResponse ConsumerGroupDescribeRequest
    ConsumerGroupDescribeResponse ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse ControllerRegistrationRequest
    ControllerRegistrationResponse CreateAclsRequest CreateAclsResponse CreateDelegationTokenRequest CreateDelegationTokenResponse
    CreatePartitionsRequest CreatePartitionsResponse CreateTopicsRequest CreateTopicsResponse DeleteAclsRequest DeleteAclsResponse
    DeleteGroupsRequest DeleteGroupsResponse DeleteRecordsRequest DeleteRecordsResponse DeleteShareGroupOffsetsRequest
    DeleteShareGroupOffsetsResponse DeleteShareGroupStateRequest DeleteShareGroupStateResponse DeleteTopicsRequest DeleteTopicsResponse
    DescribeAclsRequest DescribeAclsResponse DescribeClientQuotasRequest DescribeClientQuotasResponse DescribeClusterRequest
    DescribeClusterResponse DescribeConfigsRequest DescribeConfigsResponse DescribeDelegationTokenRequest
    DescribeDelegationTokenResponse DescribeGroupsRequest DescribeGroupsResponse DescribeLogDirsRequest DescribeLogDirsResponse
    DescribeProducersRequest DescribeProducersResponse DescribeQuorumRequest DescribeQuorumResponse DescribeShareGroupOffsetsRequest
    DescribeShareGroupOffsetsResponse DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse DescribeTransactionsRequest
    DescribeTransactionsResponse DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse ElectLeadersRequest
    ElectLeadersResponse EndQuorumEpochRequest EndQuorumEpochResponse EndTxnRequest EndTxnResponse EnvelopeRequest EnvelopeResponse
    ExpireDelegationTokenRequest ExpireDelegationTokenResponse FetchRequest FetchResponse FetchSnapshotRequest FetchSnapshotResponse
    FindCoordinatorRequest FindCoordinatorResponse GetTelemetrySubscriptionsRequest GetTelemetrySubscriptionsResponse HeartbeatRequest
    HeartbeatResponse IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse InitProducerIdRequest InitProducerIdResponse
    InitializeShareGroupStateRequest InitializeShareGroupStateResponse JoinGroupRequest JoinGroupResponse LeaveGroupRequest
    LeaveGroupResponse ListConfigResourcesRequest ListConfigResourcesResponse ListGroupsRequest ListGroupsResponse ListOffsetsRequest
    ListOffsetsResponse ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse ListTransactionsRequest
    ListTransactionsResponse MetadataRequest MetadataResponse OffsetCommitRequest OffsetCommitResponse OffsetDeleteRequest
    OffsetDeleteResponse OffsetFetchRequest OffsetFetchResponse OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse ProduceRequest
    ProduceResponse PushTelemetryRequest PushTelemetryResponse ReadShareGroupStateRequest ReadShareGroupStateResponse
    ReadShareGroupStateSummaryRequest ReadShareGroupStateSummaryResponse RemoveRaftVoterRequest RemoveRaftVoterResponse
    RenewDelegationTokenRequest RenewDelegationTokenResponse SaslAuthenticateRequest SaslAuthenticateResponse SaslHandshakeRequest
    SaslHandshakeResponse ShareAcknowledgeRequest ShareAcknowledgeResponse ShareFetchRequest ShareFetchResponse
    ShareGroupDescribeRequest ShareGroupDescribeResponse ShareGroupHeartbeatRequest ShareGroupHeartbeatResponse
    StreamsGroupDescribeRequest StreamsGroupDescribeResponse StreamsGroupHeartbeatRequest StreamsGroupHeartbeatResponse
    StreamsGroupTopologyDescriptionUpdateRequest StreamsGroupTopologyDescriptionUpdateResponse SyncGroupRequest SyncGroupResponse
    TxnOffsetCommitRequest TxnOffsetCommitResponse UnregisterBrokerRequest UnregisterBrokerResponse UpdateFeaturesRequest
    UpdateFeaturesResponse UpdateRaftVoterRequest UpdateRaftVoterResponse VoteRequest VoteResponse WriteShareGroupStateRequest
    WriteShareGroupStateResponse WriteTxnMarkersRequest WriteTxnMarkersResponse ConsumerProtocolAssignment ConsumerProtocolSubscription
}
