//! `quorum-state`: what a controller must not forget about elections, a line of JSON beside the metadata log (KIP-595, KIP-853).
//!
//! It is replaced, durably, before the first record of a new epoch is written: an epoch is never used twice.

use std::fmt;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::log::directory_files::{decode_uuid, encode_uuid};

/// Nobody: no leader known, no vote given.
pub const NOBODY: i32 = -1;

/// The file's content. `voters` are given only in version 0, where they come from the settings; from kraft.version 1 on they stand in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumState {
    pub leader_id: i32,
    pub leader_epoch: i32,
    pub voted_id: i32,
    /// Nil where nobody is voted for.
    pub voted_directory_id: Uuid,
    pub voters: Option<Vec<i32>>,
}

impl QuorumState {
    /// Before the first election.
    pub fn unelected() -> Self {
        Self { leader_id: NOBODY, leader_epoch: 0, voted_id: NOBODY, voted_directory_id: Uuid::nil(), voters: None }
    }

    /// A node that leads a quorum of one.
    pub fn leading_alone(node_id: i32, epoch: i32, kraft_version: i16) -> Self {
        let voters = (kraft_version == 0).then(|| vec![node_id]);
        Self { leader_id: node_id, leader_epoch: epoch, voters, ..Self::unelected() }
    }

    /// As Kafka writes it: version 0 with voters, version 1 without.
    pub fn encode(&self) -> String {
        let value = match &self.voters {
            Some(voters) => json!({
                "clusterId": "",
                "leaderId": self.leader_id,
                "leaderEpoch": self.leader_epoch,
                "votedId": self.voted_id,
                "appliedOffset": 0,
                "currentVoters": voters.iter().map(|id| json!({"voterId": id})).collect::<Vec<_>>(),
                "data_version": 0,
            }),
            None => json!({
                "leaderId": self.leader_id,
                "leaderEpoch": self.leader_epoch,
                "votedId": self.voted_id,
                "votedDirectoryId": encode_uuid(self.voted_directory_id),
                "data_version": 1,
            }),
        };
        value.to_string()
    }

    pub fn decode(text: &str) -> Result<Self, QuorumStateError> {
        let value: Value = serde_json::from_str(text).map_err(|error| QuorumStateError(error.to_string()))?;
        let number = |name: &str| {
            let number = value.get(name).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
            number.ok_or_else(|| QuorumStateError(format!("{name} is missing or no number")))
        };
        let version = number("data_version")?;
        if !(0..=1).contains(&version) {
            return Err(QuorumStateError(format!("data_version {version} is not known")));
        }
        let voted_directory_id = match value.get("votedDirectoryId").and_then(Value::as_str) {
            Some(text) => decode_uuid(text).ok_or_else(|| QuorumStateError(format!("votedDirectoryId {text} is no id")))?,
            None => Uuid::nil(),
        };
        let voters = value.get("currentVoters").and_then(Value::as_array).map(|voters| {
            let ids = voters.iter().map(|voter| voter.get("voterId").and_then(Value::as_i64).and_then(|id| i32::try_from(id).ok()));
            ids.collect::<Option<Vec<i32>>>().ok_or_else(|| QuorumStateError("a voter has no id".to_owned()))
        });
        Ok(Self {
            leader_id: number("leaderId")?,
            leader_epoch: number("leaderEpoch")?,
            voted_id: number("votedId")?,
            voted_directory_id,
            voters: voters.transpose()?,
        })
    }
}

/// Why the file says nothing to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumStateError(pub String);

impl fmt::Display for QuorumStateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "quorum-state cannot be read: {}", self.0)
    }
}

impl std::error::Error for QuorumStateError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both lines were written by Kafka 4.4.0.
    #[test]
    fn kafkas_files_are_read() {
        let of_settings = r#"{"clusterId":"","leaderId":1,"leaderEpoch":5,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#;
        assert_eq!(QuorumState::decode(of_settings), Ok(QuorumState::leading_alone(1, 5, 0)));
        let standalone = r#"{"leaderId":1,"leaderEpoch":2,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;
        assert_eq!(QuorumState::decode(standalone), Ok(QuorumState::leading_alone(1, 2, 1)));
    }

    #[test]
    fn files_round_trip() {
        for kraft_version in [0, 1] {
            let state = QuorumState { voted_id: 4, ..QuorumState::leading_alone(3, 9, kraft_version) };
            assert_eq!(QuorumState::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["", "{}", r#"{"data_version":2}"#, r#"{"leaderId":"x","leaderEpoch":1,"votedId":1,"data_version":1}"#] {
            assert!(QuorumState::decode(text).is_err(), "{text}");
        }
    }
}
