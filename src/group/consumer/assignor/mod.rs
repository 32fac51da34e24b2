//! The server-side assignors: pure functions from members and topics to a target for each member.

mod range;
mod uniform;

use super::member::Assignment;
use crate::wire::Str;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use uuid::Uuid;

/// The assignors that there are, by the names that members wish for them by.
pub(crate) const NAMES: [&str; 2] = ["uniform", "range"];

/// A member as an assignor sees it.
pub(crate) struct MemberSpec<'a> {
    pub(crate) id: &'a Str,
    pub(crate) instance_id: Option<&'a Str>,
    pub(crate) rack_id: Option<&'a str>,
    /// What it subscribes to and what is there, in order.
    pub(crate) topics: Rc<[Uuid]>,
    /// What the last target gave it.
    pub(crate) target: &'a Assignment,
}

/// A topic as an assignor sees it.
pub(crate) struct TopicSpec {
    pub(crate) partition_count: i32,
    /// The racks of each partition's replicas; empty when no member says where it is.
    pub(crate) racks: Vec<Vec<Arc<str>>>,
}

impl TopicSpec {
    fn is_in_rack(&self, partition: i32, rack: &str) -> bool {
        self.racks.get(partition as usize).is_some_and(|racks| racks.iter().any(|one| **one == *rack))
    }
}

/// A target for every member in its place, by the assignor of this name; borrowed where the last one stands. Every partition of a topic that somebody subscribes to goes to exactly one of its
/// subscribers.
pub(crate) fn assign<'a>(name: &str, members: &[MemberSpec<'a>], topics: &BTreeMap<Uuid, TopicSpec>) -> Vec<Cow<'a, Assignment>> {
    match name {
        "range" => range::assign(members, topics).into_iter().map(Cow::Owned).collect(),
        _ => uniform::assign(members, topics),
    }
}

/// Whether all members subscribe to the same topics.
fn is_homogeneous(members: &[MemberSpec<'_>]) -> bool {
    members.windows(2).all(|pair| Rc::ptr_eq(&pair[0].topics, &pair[1].topics) || pair[0].topics == pair[1].topics)
}

#[cfg(test)]
mod tests;
