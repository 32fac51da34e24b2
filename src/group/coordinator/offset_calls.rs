//! Calls about committed offsets: whether the group allows them is asked here, what they do to the offsets is in `group::offsets`.

use super::Coordinator;
use crate::group::Now;
use crate::group::call::{Call, Caller, OpenTransaction, Reply, Step, Token};
use crate::group::offsets::Offsets;
use crate::wire::ErrorCode;
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::{OffsetCommitRequest, OffsetDeleteRequest, OffsetDeleteResponse};

/// From here on a commit in a group that is not there is told so (KIP-848); before, its generation is called illegal.
const COMMIT_GROUP_NOT_FOUND_VERSION: i16 = 9;
/// As above, for TxnOffsetCommit.
const TRANSACTION_COMMIT_GROUP_NOT_FOUND_VERSION: i16 = 6;

impl Coordinator {
    pub(super) fn commit_offsets(&mut self, now: Now, token: Token, caller: &Caller, request: &OffsetCommitRequest, step: &mut Step) {
        let generation = request.generation_id_or_member_epoch;
        let verdict = match self.turn(now, &request.group_id, step) {
            (Some(group), mut turn) => group.validate_commit(&mut turn, caller, request),
            // Whoever assigns his partitions himself needs no group; the replay of his offsets makes one.
            (None, _) if generation < 0 => Ok(()),
            (None, _) if caller.version >= COMMIT_GROUP_NOT_FOUND_VERSION => Err(ErrorCode::GroupIdNotFound),
            (None, _) => Err(ErrorCode::IllegalGeneration),
        };
        let reply = match verdict {
            Ok(()) => Reply::CommitOffsets(Offsets::commit(&self.config, now.wall_ms, request, step)),
            Err(error) => Call::CommitOffsets(request.clone()).refuse(error),
        };
        step.reply(token, reply);
    }

    /// The member is checked as KIP-447 wants it; where the group is in a rebalance does not matter, because the transaction fences who must not commit.
    pub(super) fn commit_offsets_in_transaction(
        &mut self,
        now: Now,
        token: Token,
        caller: &Caller,
        request: &OffsetCommitRequest,
        transaction: OpenTransaction,
        step: &mut Step,
    ) {
        let generation = request.generation_id_or_member_epoch;
        let verdict = match self.groups.get(&request.group_id) {
            Some(group) => group.validate_commit_in_transaction(caller, request),
            None if generation < 0 => Ok(()),
            None if caller.version >= TRANSACTION_COMMIT_GROUP_NOT_FOUND_VERSION => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        };
        let reply = match verdict {
            Ok(()) => {
                step.transaction = Some(transaction);
                Reply::CommitOffsets(Offsets::commit(&self.config, now.wall_ms, request, step))
            }
            Err(error) => Call::CommitOffsets(request.clone()).refuse(error),
        };
        step.reply(token, reply);
    }

    pub(super) fn fetch_offsets(&mut self, token: Token, request: &OffsetFetchRequestGroup, require_stable: bool, step: &mut Step) {
        let group = self.groups.get(&request.group_id);
        let reply = match group.map_or(Ok(()), |group| group.validate_fetch(request)) {
            Ok(()) => Reply::FetchOffsets(self.offsets.fetch(request, group.is_some(), require_stable)),
            Err(error) => Call::FetchOffsets { group: request.clone(), require_stable }.refuse(error),
        };
        step.reply(token, reply);
    }

    pub(super) fn delete_offsets(&mut self, token: Token, request: &OffsetDeleteRequest, step: &mut Step) {
        let refuse = |error: ErrorCode| OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
        let response = match self.groups.get(&request.group_id) {
            _ if request.group_id.is_empty() => refuse(ErrorCode::InvalidGroupId),
            None => refuse(ErrorCode::GroupIdNotFound),
            Some(group) => match group.validate_offset_delete() {
                Err(error) => refuse(error),
                Ok(()) => {
                    step.divisible = true;
                    let topics = request
                        .topics
                        .iter()
                        .map(|topic| self.offsets.delete_of_topic(&request.group_id, topic, group.is_subscribed_to(&topic.name), step));
                    OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
                }
            },
        };
        step.reply(token, Reply::DeleteOffsets(response));
    }
}
