//! What goes into a coordinator and what comes out: calls, replies, and the step between them. Plain values that may cross cores.

use super::any::Group;
use super::classic::Member;
use super::record::CoordinatorRecord;
use crate::log::VerificationGuard;
use crate::log::directory_files::encode_uuid;
use crate::wire::messages::consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup;
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::leave_group_response::MemberResponse;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use crate::wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use crate::wire::{ErrorCode, Str};
use uuid::Uuid;

/// Names a request that waits for its reply. The driver chooses it and gets it back, at once or many steps later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Who calls, as far as a coordinator is concerned.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Version of the request; it decides about error codes and member ids, never about the shape of the call.
    pub version: i16,
    /// Empty when the client sent none.
    pub client_id: Str,
    /// The client's address as Kafka prints it, `/192.0.2.1`.
    pub client_host: Str,
    /// Randomness for a member id, should one be given out.
    pub fresh_id: Uuid,
}

/// The transaction that a step's records belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Taken before the transaction's coordinator was asked; None if the transaction was open in the log already.
    pub guard: Option<VerificationGuard>,
}

impl Caller {
    /// The id as Kafka prints one.
    pub(crate) fn fresh_id_text(&self) -> String {
        encode_uuid(self.fresh_id)
    }
}

/// A request to the coordinator of a group. Topics carry their name and their id as far as both are known, whatever the version of the request.
#[derive(Debug, Clone)]
pub enum Call {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    /// In the form of v3: the members that leave are in `members`.
    Leave(LeaveGroupRequest),
    /// One that `validate_heartbeat` has nothing against.
    ConsumerHeartbeat(ConsumerGroupHeartbeatRequest),
    CommitOffsets(OffsetCommitRequest),
    /// TxnOffsetCommit, in the form of OffsetCommit: offsets that count when the transaction is committed. Answered as `CommitOffsets`.
    CommitOffsetsInTransaction {
        request: OffsetCommitRequest,
        transaction: OpenTransaction,
    },
    /// Topics of `None` ask for all offsets of the group.
    FetchOffsets {
        group: OffsetFetchRequestGroup,
        require_stable: bool,
    },
    DeleteOffsets(OffsetDeleteRequest),
    DescribeGroups(Vec<Str>),
    DescribeConsumerGroups(Vec<Str>),
    /// Empty filters let everything pass.
    ListGroups {
        states: Vec<Str>,
        types: Vec<Str>,
    },
    DeleteGroups(Vec<Str>),
}

/// The answer to the call of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    CommitOffsets(OffsetCommitResponse),
    FetchOffsets(OffsetFetchResponseGroup),
    DeleteOffsets(OffsetDeleteResponse),
    DescribeGroups(Vec<DescribedGroup>),
    DescribeConsumerGroups(Vec<DescribedConsumerGroup>),
    /// The groups, or why not all of them can be listed.
    ListGroups(Result<Vec<ListedGroup>, ErrorCode>),
    DeleteGroups(Vec<DeletableGroupResult>),
}

/// A decision: what is to be appended, and who is to be told once that is committed.
///
/// The driver appends the records, replays each of them into the coordinator with the offset it got, and lets the replies go when everything appended so far is committed. When the
/// records cannot be appended at all, it hands the step back to `Coordinator::refused` instead.
#[derive(Debug, Default)]
#[must_use]
pub struct Step {
    pub records: Vec<CoordinatorRecord>,
    /// The records may be spread over several batches: each says the same alone as together with the others.
    pub divisible: bool,
    /// The records count only when this transaction is committed.
    pub transaction: Option<OpenTransaction>,
    pub replies: Vec<(Token, Reply)>,
    pub(crate) if_refused: Undo,
}

/// What a refused step leaves to be put right, beyond its replies.
#[derive(Debug, Default)]
pub(crate) enum Undo {
    #[default]
    Nothing,
    /// The group was new.
    ForgetGroup { group_id: Str },
    /// An empty group of another type made room for this one.
    PutBack { group_id: Str, before: Group },
    /// The leader's assignment could not be stored: the members have to meet again.
    RebalanceAgain { group_id: Str },
    /// A static member came back under a new id.
    RestoreStaticMember { group_id: Str, new_member_id: Str, before: Box<Member> },
}

impl Step {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.replies.is_empty()
    }

    pub(crate) fn reply(&mut self, token: Token, reply: Reply) {
        self.replies.push((token, reply));
    }
}

impl Call {
    /// The reply when the coordinator cannot take the call at all.
    ///
    /// A heartbeat to a coordinator that is still loading is answered without an error: the member has done its part, and its session starts anew with the loaded group.
    pub fn refuse(&self, error: ErrorCode) -> Reply {
        let error_code = error.code();
        match self {
            Call::Join(request) => Reply::Join(JoinGroupResponse { member_id: request.member_id.clone(), ..refused_join(error) }),
            Call::Sync(_) => Reply::Sync(SyncGroupResponse { error_code, ..Default::default() }),
            Call::Heartbeat(_) if error == ErrorCode::CoordinatorLoadInProgress => Reply::Heartbeat(HeartbeatResponse::default()),
            Call::Heartbeat(_) => Reply::Heartbeat(HeartbeatResponse { error_code, ..Default::default() }),
            Call::Leave(request) if error == ErrorCode::UnknownMemberId => {
                let members = request.members.iter().map(|member| MemberResponse {
                    member_id: member.member_id.clone(),
                    group_instance_id: member.group_instance_id.clone(),
                    error_code,
                    ..Default::default()
                });
                Reply::Leave(LeaveGroupResponse { members: members.collect(), ..Default::default() })
            }
            Call::Leave(_) => Reply::Leave(LeaveGroupResponse { error_code, ..Default::default() }),
            Call::ConsumerHeartbeat(_) => Reply::ConsumerHeartbeat(ConsumerGroupHeartbeatResponse { error_code, ..Default::default() }),
            Call::CommitOffsets(request) | Call::CommitOffsetsInTransaction { request, .. } => {
                Reply::CommitOffsets(refused_commit(request, error))
            }
            Call::FetchOffsets { group, .. } => Reply::FetchOffsets(refused_fetch(&group.group_id, error)),
            Call::DeleteOffsets(_) => Reply::DeleteOffsets(OffsetDeleteResponse { error_code, ..Default::default() }),
            Call::DescribeGroups(group_ids) => {
                let refused = |group_id: &Str| DescribedGroup { group_id: group_id.clone(), error_code, ..Default::default() };
                Reply::DescribeGroups(group_ids.iter().map(refused).collect())
            }
            Call::DescribeConsumerGroups(group_ids) => {
                let refused = |group_id: &Str| DescribedConsumerGroup { group_id: group_id.clone(), error_code, ..Default::default() };
                Reply::DescribeConsumerGroups(group_ids.iter().map(refused).collect())
            }
            Call::ListGroups { .. } => Reply::ListGroups(Err(error)),
            Call::DeleteGroups(group_ids) => {
                let refused = |group_id: &Str| DeletableGroupResult { group_id: group_id.clone(), error_code, ..Default::default() };
                Reply::DeleteGroups(group_ids.iter().map(refused).collect())
            }
        }
    }
}

impl Reply {
    /// What to say instead of this reply when the records that it speaks of did not become durable.
    ///
    /// `append_error` is what the append said; it is translated as for every group API (Kafka's `CoordinatorOperationExceptionHelper`).
    pub fn refuse(self, append_error: ErrorCode) -> Reply {
        let error = coordinator_error(append_error);
        let error_code = error.code();
        match self {
            // A client that keeps the id it was just given would be taken for a stranger.
            Reply::Join(_) => Reply::Join(refused_join(error)),
            Reply::Sync(_) => Reply::Sync(SyncGroupResponse { error_code, ..Default::default() }),
            Reply::Heartbeat(_) => Reply::Heartbeat(HeartbeatResponse { error_code, ..Default::default() }),
            Reply::Leave(_) => Reply::Leave(LeaveGroupResponse { error_code, ..Default::default() }),
            Reply::ConsumerHeartbeat(_) => Reply::ConsumerHeartbeat(ConsumerGroupHeartbeatResponse { error_code, ..Default::default() }),
            Reply::CommitOffsets(mut response) => {
                for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.error_code = error_code;
                }
                Reply::CommitOffsets(response)
            }
            Reply::FetchOffsets(group) => Reply::FetchOffsets(refused_fetch(&group.group_id, fetch_error(append_error))),
            Reply::DeleteOffsets(_) => Reply::DeleteOffsets(OffsetDeleteResponse { error_code, ..Default::default() }),
            Reply::DescribeGroups(groups) => Reply::DescribeGroups(
                groups.into_iter().map(|group| DescribedGroup { group_id: group.group_id, error_code, ..Default::default() }).collect(),
            ),
            Reply::DescribeConsumerGroups(groups) => Reply::DescribeConsumerGroups(
                groups
                    .into_iter()
                    .map(|group| DescribedConsumerGroup { group_id: group.group_id, error_code, ..Default::default() })
                    .collect(),
            ),
            Reply::ListGroups(_) => Reply::ListGroups(Err(error)),
            Reply::DeleteGroups(results) => {
                Reply::DeleteGroups(results.into_iter().map(|result| DeletableGroupResult { error_code, ..result }).collect())
            }
        }
    }
}

/// The code that a client of a group API sees for a failed write of the coordinator.
pub fn coordinator_error(append_error: ErrorCode) -> ErrorCode {
    match append_error {
        ErrorCode::NetworkException => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        other => other,
    }
}

/// As `coordinator_error`, for OffsetFetch: consumers before 3.9 neither retry a time-out nor look for another coordinator on COORDINATOR_NOT_AVAILABLE.
fn fetch_error(append_error: ErrorCode) -> ErrorCode {
    match append_error {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => ErrorCode::NotCoordinator,
        other => coordinator_error(other),
    }
}

fn refused_join(error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse { error_code: error.code(), ..Default::default() }
}

fn refused_fetch(group_id: &Str, error: ErrorCode) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup { group_id: group_id.clone(), error_code: error.code(), ..Default::default() }
}

fn refused_commit(request: &OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.code(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}
