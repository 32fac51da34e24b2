//! Kafka's error codes: one row per code, from which the enum, the names and the texts follow. A code never changes its meaning, and a client that does not know a code reads
//! it as UNKNOWN_SERVER_ERROR, so an old request version is never answered with a newer code.

use std::fmt;

macro_rules! error_codes {
    ($($code:literal $variant:ident $name:literal $meaning:literal;)*) => {
        /// A Kafka error code, the int16 of nearly every response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant = $code,)*
        }

        impl ErrorCode {
            /// Every code, in order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// Kafka's own name of the code, as tools print it: `NOT_LEADER_OR_FOLLOWER`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $name,)*
                }
            }

            /// What the code means, in a sentence that may go to a person.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $meaning,)*
                }
            }
        }

        impl TryFrom<i16> for ErrorCode {
            type Error = UnknownErrorCode;

            fn try_from(code: i16) -> Result<ErrorCode, UnknownErrorCode> {
                match code {
                    $($code => Ok(ErrorCode::$variant),)*
                    other => Err(UnknownErrorCode(other)),
                }
            }
        }
    };
}

impl ErrorCode {
    /// The code as it stands in a response.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// No error: code 0.
    pub fn is_none(self) -> bool {
        self == ErrorCode::None
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that is no error code of ours: an answer of a newer broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownErrorCode(pub i16);

impl fmt::Display for UnknownErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown error code {}", self.0)
    }
}

impl std::error::Error for UnknownErrorCode {}

error_codes! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR" "Unexpected failure inside the broker.";
    0 None "NONE" "Success.";
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" "Fetch or list position outside [log start, log end]; consumer applies auto.offset.reset; also DeleteRecords beyond the high watermark.";
    2 CorruptMessage "CORRUPT_MESSAGE" "CRC mismatch or malformed batch.";
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" "Topic or partition not known to this broker (yet).";
    4 InvalidFetchSize "INVALID_FETCH_SIZE" "Negative or silly fetch size (legacy).";
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" "No leader right now, or leader's listener unknown; also topic just created.";
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" "This broker is not the leader (or holds no replica).";
    7 RequestTimedOut "REQUEST_TIMED_OUT" "Replication or controller operation did not finish in time.";
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" "Legacy.";
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" "Replica not present; AlterReplicaLogDirs for a partition not hosted here.";
    10 MessageTooLarge "MESSAGE_TOO_LARGE" "Batch larger than max.message.bytes.";
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" "Legacy controller epoch check.";
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" "Commit metadata longer than offset.metadata.max.bytes.";
    13 NetworkException "NETWORK_EXCEPTION" "Client-side disconnect code, also used between brokers.";
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" "Coordinator still loading its partition.";
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" "Coordinator unknown: internal topic missing, being created or leaderless.";
    16 NotCoordinator "NOT_COORDINATOR" "Another broker coordinates this group or transactional id.";
    17 InvalidTopicException "INVALID_TOPIC_EXCEPTION" "Illegal topic name, or writing to an internal topic.";
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" "Batch larger than segment.bytes.";
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" "acks=all and ISR smaller than min.insync.replicas; nothing was written. Also the disguise of a retriable verification failure for old producers.";
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" "Written, then the ISR shrank below the minimum before replication finished.";
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" "acks not in -1, 0, 1.";
    22 IllegalGeneration "ILLEGAL_GENERATION" "Classic generation mismatch.";
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" "Protocol type or protocol set does not fit the group; also SyncGroup v5 without them.";
    24 InvalidGroupId "INVALID_GROUP_ID" "Empty or illegal group id.";
    25 UnknownMemberId "UNKNOWN_MEMBER_ID" "Member id not in the group.";
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" "Session timeout outside group.min/max.session.timeout.ms.";
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS" "Rejoin: classic rebalance running.";
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" "Legacy.";
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" "No ACL for the topic (also hides existence).";
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" "No ACL for the group.";
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" "No ACL for the cluster operation.";
    32 InvalidTimestamp "INVALID_TIMESTAMP" "Timestamp outside before/after limits, or the batch claims LogAppendTime.";
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" "Mechanism not enabled; reply lists enabled ones.";
    34 IllegalSaslState "ILLEGAL_SASL_STATE" "SASL request out of order.";
    35 UnsupportedVersion "UNSUPPORTED_VERSION" "Version or feature not supported here (inside replies; otherwise the connection closes).";
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" "CreateTopics of an existing name.";
    37 InvalidPartitions "INVALID_PARTITIONS" "Partition count not positive, or not an increase.";
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" "Replication factor 0 / below -1, or more than the usable brokers.";
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" "Bad manual assignment (unknown, duplicate, fenced brokers; gaps; uneven).";
    40 InvalidConfig "INVALID_CONFIG" "Unknown key or bad value.";
    41 NotController "NOT_CONTROLLER" "Request reached a non-active controller.";
    42 InvalidRequest "INVALID_REQUEST" "Well-formed bytes, impossible content.";
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" "Old record format with idempotence/transactions (legacy).";
    44 PolicyViolation "POLICY_VIOLATION" "Create/alter policy refused; DeleteRecords on a compact-only topic; more than 10000 partitions in one request.";
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" "Sequence gap.";
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" "Sequence older than the five remembered batches (current brokers answer out-of-order or success instead).";
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" "Older producer epoch than the log or coordinator knows; aborts the transaction on the client.";
    48 InvalidTxnState "INVALID_TXN_STATE" "Operation not legal in this transaction state.";
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" "Transactional id unknown or bound to another producer id.";
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" "Timeout above transaction.max.timeout.ms or not positive.";
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" "Previous commit/abort of this id still running.";
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" "Marker from an old transaction coordinator.";
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" "No ACL for the transactional id, or 2PC not allowed.";
    54 SecurityDisabled "SECURITY_DISABLED" "No authorizer configured.";
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" "Skipped because another item of the same request failed.";
    56 KafkaStorageError "KAFKA_STORAGE_ERROR" "Disk failure on the log directory.";
    57 LogDirNotFound "LOG_DIR_NOT_FOUND" "Unknown log directory.";
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" "Credentials wrong.";
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID" "No state for the producer id (4.x brokers no longer produce it on append).";
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" "A reassignment is running.";
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" "Delegation tokens not configured.";
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" "Token unknown.";
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" "Caller may not renew/expire the token.";
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" "Token requests over this channel are refused (plaintext, or authenticated by token).";
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" "May not create tokens for that owner.";
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" "Token expired.";
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" "Renewer principal type is not User.";
    68 NonEmptyGroup "NON_EMPTY_GROUP" "Group has members.";
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND" "Group does not exist (or has another type).";
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" "Unknown fetch session.";
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" "Fetch session epoch does not match.";
    72 ListenerNotFound "LISTENER_NOT_FOUND" "Leader has no such listener (Metadata v6+).";
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" "Delete.topic.enable is false.";
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" "Leader epoch in the request is older than the broker's.";
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" "Leader epoch in the request is newer than the broker's.";
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" "Zstd with Produce below v7 (4.x no longer checks Fetch); unknown telemetry compression.";
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH" "Broker epoch from an older incarnation.";
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" "Leader just elected, high watermark not yet past its epoch start (ListOffsets v5+).";
    79 MemberIdRequired "MEMBER_ID_REQUIRED" "Rejoin with the member id in this reply (KIP-394).";
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" "Preferred replica not in sync / not alive.";
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" "Group.max.size (or the type's own limit) reached.";
    82 FencedInstanceId "FENCED_INSTANCE_ID" "Another member took over the group instance id.";
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" "No replica may become leader.";
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED" "Leader is already the desired one.";
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" "Nothing to cancel.";
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" "OffsetDelete for a topic the group is subscribed to.";
    87 InvalidRecord "INVALID_RECORD" "Record-level validation failed; details in RecordErrors.";
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" "Pending transactional offsets and require-stable was asked.";
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" "Controller mutation quota; honour ThrottleTimeMs.";
    90 ProducerFenced "PRODUCER_FENCED" "A newer producer with the same transactional id exists.";
    91 ResourceNotFound "RESOURCE_NOT_FOUND" "Quota entity, SCRAM user or similar does not exist.";
    92 DuplicateResource "DUPLICATE_RESOURCE" "Same item twice in one request.";
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" "SCRAM iterations, salt or name refused.";
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" "Raft voter sets differ.";
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" "Partition epoch behind (AlterPartition).";
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" "Feature level cannot be applied.";
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" "Envelope principal unreadable.";
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" "Raft snapshot gone.";
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE" "Raft snapshot position too high.";
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" "Topic id unknown to this broker (yet).";
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" "Broker id in use by a live incarnation.";
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" "Broker id not registered.";
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" "Topic id in the session differs from the log's.";
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" "Cluster id does not match.";
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" "Transactional id unknown (Describe, forced terminate).";
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" "Session mixes topic names and ids.";
    107 IneligibleReplica "INELIGIBLE_REPLICA" "Proposed ISR member is fenced, shutting down or of an old epoch.";
    108 NewLeaderElected "NEW_LEADER_ELECTED" "ISR change accepted, but this broker lost leadership by it.";
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" "Offset only in tiered storage (followers).";
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" "Member epoch unknown: drop everything and rejoin with epoch 0.";
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" "Static instance id still held by another member.";
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" "Server-side assignor unknown.";
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" "Member epoch too old or new for the commit/fetch.";
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" "Asked a broker for controllers or the reverse.";
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" "Endpoint type unknown.";
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" "Controller id unknown.";
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" "Telemetry subscription id outdated.";
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" "Telemetry payload above telemetry.max.bytes.";
    119 InvalidRegistration "INVALID_REGISTRATION" "Broker registration refused.";
    120 TransactionAbortable "TRANSACTION_ABORTABLE" "Abort the transaction and start again (TV2, KIP-890).";
    121 InvalidRecordState "INVALID_RECORD_STATE" "Share record not acquired by this member, or already settled.";
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" "Unknown share session.";
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" "Share session epoch does not match.";
    124 FencedStateEpoch "FENCED_STATE_EPOCH" "Share-partition state epoch does not match.";
    125 InvalidVoterKey "INVALID_VOTER_KEY" "Raft voter key mismatch.";
    126 DuplicateVoter "DUPLICATE_VOTER" "Already a voter.";
    127 VoterNotFound "VOTER_NOT_FOUND" "Not a voter.";
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" "RE2J expression does not compile.";
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" "Client must re-bootstrap (KIP-1102, KIP-1242).";
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" "Streams topology invalid.";
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" "Streams topology epoch invalid (not sent by 4.4 heartbeats).";
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" "Streams topology epoch outdated (not sent by 4.4 heartbeats).";
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" "No room for another share session.";
    134 GroupDeletionFailed "GROUP_DELETION_FAILED" "Group deletion hook failed (4.4).";
    135 StreamsTopologyDescriptionUpdateFailed "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED" "Topology description not stored (4.4).";
    136 ControllerIdNotRegistered "CONTROLLER_ID_NOT_REGISTERED" "Controller not registered (4.4).";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes run from -1 without a gap, and each finds its way back.
    #[test]
    fn codes_are_dense_and_convert_back() {
        for (index, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(i32::from(error.code()), index as i32 - 1);
            assert_eq!(ErrorCode::try_from(error.code()), Ok(*error));
        }
        assert_eq!(ErrorCode::try_from(137), Err(UnknownErrorCode(137)));
        assert_eq!(ErrorCode::NotLeaderOrFollower.name(), "NOT_LEADER_OR_FOLLOWER");
    }
}
