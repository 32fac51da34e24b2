//! One member of a classic group.

use super::super::timer::Timer;
use super::super::{Token, detached};
use crate::wire::Str;
use crate::wire::messages::describe_groups_response::DescribedGroupMember;
use crate::wire::records::group_coordinator::group_metadata_value::MemberMetadata;
use bytes::Bytes;

/// A way to share out the work that a member offers, with what the leader needs to know about the member for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: Str,
    pub(crate) metadata: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// Set for a static member (KIP-345).
    pub(crate) instance_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In the member's order of preference. After a restart only the chosen one is known.
    pub(crate) protocols: Vec<Protocol>,
    /// What the leader gave it in the recorded generation.
    pub(crate) assignment: Bytes,
    pub(crate) awaiting_join: Option<Token>,
    pub(crate) awaiting_sync: Option<Token>,
    /// Has not been through a completed join phase yet. Such a member cannot send heartbeats, so it may run out of time although its request waits.
    pub(crate) is_new: bool,
    pub(crate) session: Timer,
}

impl Member {
    /// The member as recorded; `known` is the same member before the record, with all that a record does not carry.
    pub(crate) fn recorded(known: Option<Member>, recorded: &MemberMetadata, protocol: Str) -> Member {
        let chosen = Protocol { name: protocol, metadata: detached(&recorded.subscription) };
        // The one that was chosen among the protocols known is the one recorded, unless a record came between.
        let protocols = match &known {
            Some(known) if known.protocols.contains(&chosen) => known.protocols.clone(),
            _ => vec![chosen],
        };
        Member {
            id: recorded.member_id.detached(),
            instance_id: recorded.group_instance_id.as_ref().map(Str::detached),
            client_id: recorded.client_id.detached(),
            client_host: recorded.client_host.detached(),
            // Version 0 of the record had one timeout for both.
            rebalance_timeout_ms: if recorded.rebalance_timeout == -1 { recorded.session_timeout } else { recorded.rebalance_timeout },
            session_timeout_ms: recorded.session_timeout,
            protocols,
            assignment: detached(&recorded.assignment),
            awaiting_join: known.as_ref().and_then(|known| known.awaiting_join),
            awaiting_sync: known.as_ref().and_then(|known| known.awaiting_sync),
            is_new: known.as_ref().is_some_and(|known| known.is_new),
            session: known.map_or_else(Timer::off, |known| known.session),
        }
    }

    /// The metadata that the member gave for a protocol it supports.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let supported = self.protocols.iter().find(|supported| &*supported.name == protocol);
        supported.expect("the chosen protocol is supported by every member").metadata.clone()
    }

    /// The bytes of what varies in its part of a record, at most.
    pub(crate) fn recorded_bytes_max(&self) -> usize {
        let subscription = self.protocols.iter().map(|protocol| protocol.metadata.len()).max().unwrap_or(0);
        let instance_id = self.instance_id.as_ref().map_or(0, |instance_id| instance_id.len());
        self.id.len() + instance_id + self.client_id.len() + self.client_host.len() + subscription + self.assignment.len()
    }

    /// Whether the end of its session says anything: a member whose request waits here has no need of heartbeats.
    pub(crate) fn is_expected_to_beat(&self) -> bool {
        self.is_new || (self.awaiting_join.is_none() && self.awaiting_sync.is_none())
    }

    pub(crate) fn describe(&self, protocol: Option<&str>) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: protocol.map(|protocol| self.metadata(protocol)).unwrap_or_default(),
            member_assignment: self.assignment.clone(),
            ..Default::default()
        }
    }
}
