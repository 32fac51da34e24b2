//! Calls of administrators: what groups there are, what they look like, and their end.

use super::Coordinator;
use crate::group::any::Group;
use crate::group::call::{Reply, Step, Token};
use crate::wire::messages::delete_groups_response::DeletableGroupResult;
use crate::wire::messages::describe_groups_response::DescribedGroup;
use crate::wire::messages::list_groups_response::ListedGroup;
use crate::wire::{ErrorCode, Str};

/// From here on DescribeGroups says that a group is not there; before, it shows a dead one.
const DESCRIBE_GROUP_NOT_FOUND_VERSION: i16 = 6;

impl Coordinator {
    pub(super) fn describe(&self, group_id: &Str, version: i16) -> DescribedGroup {
        if let Some(Group::Classic(group)) = self.groups.get(group_id) {
            return group.describe();
        }
        let message = match self.groups.get(group_id) {
            Some(_) => format!("Group {group_id} is not a classic group."),
            None => format!("Group {group_id} not found."),
        };
        let absent = DescribedGroup { group_id: group_id.clone(), group_state: Str::from("Dead"), ..Default::default() };
        if version < DESCRIBE_GROUP_NOT_FOUND_VERSION {
            return absent;
        }
        DescribedGroup { error_code: ErrorCode::GroupIdNotFound.code(), error_message: Some(Str::from(message)), ..absent }
    }

    pub(super) fn list(&self, states: &[Str], types: &[Str]) -> Vec<ListedGroup> {
        let passes =
            |filters: &[Str], value: &str| filters.is_empty() || filters.iter().any(|filter| filter.trim().eq_ignore_ascii_case(value));
        let groups = self.groups.values().filter(|group| passes(types, group.group_type().name()) && passes(states, group.state_name()));
        groups.map(Group::list).collect()
    }

    pub(super) fn delete_groups(&mut self, token: Token, group_ids: &[Str], step: &mut Step) {
        step.divisible = true;
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let error = match self.groups.get(group_id) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) => match group.validate_delete() {
                    Err(error) => error,
                    Ok(()) => {
                        self.offsets.delete_of_group(group_id, step);
                        step.records.extend(group.tombstones());
                        ErrorCode::None
                    }
                },
            };
            results.push(DeletableGroupResult { group_id: group_id.clone(), error_code: error.code(), ..Default::default() });
        }
        step.reply(token, Reply::DeleteGroups(results));
    }
}
