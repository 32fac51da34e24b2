//! How members go: by saying so, for a while, or because they were not heard of.

use super::heartbeat::{check_instance, unknown_instance};
use super::member::{LEFT_FOR_A_WHILE_EPOCH, Member};
use super::topic_hash::metadata_hash;
use super::{ConsumerGroup, Refusal};
use crate::group::coordinator::Turn;
use crate::wire::Str;
use crate::wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use std::collections::BTreeMap;

impl ConsumerGroup {
    /// A heartbeat that says good-bye.
    pub(super) fn leave(
        &self,
        turn: &mut Turn<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let member = match &request.instance_id {
            None => self.member(&request.member_id)?,
            Some(instance_id) => {
                let member = self.static_member(instance_id).ok_or_else(|| unknown_instance(instance_id))?;
                check_instance(member, &request.member_id, instance_id)?;
                member
            }
        };
        match &request.instance_id {
            Some(_) if request.member_epoch == LEFT_FOR_A_WHILE_EPOCH => self.leave_for_a_while(turn, member),
            _ => self.fence(turn, std::slice::from_ref(&member.id)),
        }
        Ok(ConsumerGroupHeartbeatResponse { member_id: Some(member.id.clone()), member_epoch: request.member_epoch, ..Default::default() })
    }

    /// A static member keeps its partitions until its session ends. Whoever comes back in its place has them from epoch 0 on, so that its commits count.
    fn leave_for_a_while(&self, turn: &mut Turn<'_>, member: &Member) {
        let mut leaving = Member { epoch: LEFT_FOR_A_WHILE_EPOCH, ..member.clone() };
        leaving.revoking.clear();
        leaving.assigned.values_mut().flat_map(BTreeMap::values_mut).for_each(|epoch| *epoch = 0);
        turn.step.records.push(leaving.assignment_record(&self.id));
    }

    /// Takes members out. What they had is free; a new target is due.
    pub(super) fn fence(&self, turn: &mut Turn<'_>, member_ids: &[Str]) {
        if member_ids.is_empty() {
            return;
        }
        if self.may_become_classic(turn, member_ids) {
            return self.become_classic(turn, member_ids, None, true);
        }
        let leaving: Vec<&Member> = member_ids.iter().map(|member_id| &self.members[member_id]).collect();
        for member in &leaving {
            turn.step.records.extend(self.member_tombstones(&member.id));
        }
        self.drop_regexes_of(turn, &leaving);

        let names = self.subscribed_names(leaving.iter().copied(), None);
        let hash = metadata_hash(names.iter().map(|name| &**name), turn.image);
        turn.step.records.push(self.epoch_record(self.epoch + 1, hash));
        if leaving.len() == self.members.len() {
            // Nobody is left to assign to. The next member need not wait for the assignment interval.
            turn.step.records.push(self.target_epoch_record(self.epoch + 1, 0));
        }
        // Their timers stay, in case this is refused; they find nobody otherwise.
    }

    /// What only these members subscribed by need not be resolved any more.
    fn drop_regexes_of(&self, turn: &mut Turn<'_>, leaving: &[&Member]) {
        let mut subscribers: BTreeMap<&Str, usize> = BTreeMap::new();
        for regex in leaving.iter().filter_map(|member| member.regex()) {
            *subscribers.entry(regex).or_default() += 1;
        }
        for (regex, count) in subscribers {
            if self.regex_subscribers.get(regex) == Some(&count) {
                turn.step.records.push(self.regex_tombstone(regex));
            }
        }
    }
}
