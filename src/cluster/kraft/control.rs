//! Control records: what the quorum itself writes between the records of the metadata.
//!
//! The key of a control record is a version and a type; its value begins with a version of its own.

use bytes::Bytes;
use uuid::Uuid;

use crate::wire::messages::{
    ControlRecordTypeSchema, KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
    leader_change_message, voters_record,
};
use crate::wire::{DecodeError, Decoder, EncodeError, Message, Str};

/// The version of keys and of all values that are written; Kafka 4.4 writes no other.
const VERSION: i16 = 0;

mod types {
    pub const LEADER_CHANGE: i16 = 2;
    pub const SNAPSHOT_HEADER: i16 = 3;
    pub const SNAPSHOT_FOOTER: i16 = 4;
    pub const KRAFT_VERSION: i16 = 5;
    pub const VOTERS: i16 = 6;
}

#[derive(Clone, Debug, PartialEq)]
pub enum ControlRecord {
    /// The first record of an epoch.
    LeaderChange { leader_id: i32, voters: Vec<i32>, granting_voters: Vec<i32> },
    /// The first record of a snapshot, with the time of the last record that it contains.
    SnapshotHeader { last_contained_timestamp_ms: i64 },
    /// The last record of a snapshot: without it the file is cut off.
    SnapshotFooter,
    /// kraft.version, which is not a record of the metadata: the quorum must know it before it can read them (KIP-853).
    KRaftVersion(i16),
    /// Who votes, from kraft.version 1 on.
    Voters(Vec<Voter>),
    /// A type that Kafka 4.4 does not know; it concerns only those who know it.
    Unknown { record_type: i16 },
}

/// A voter with the directory that holds its log, and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: i32,
    pub directory_id: Uuid,
    pub endpoints: Vec<VoterEndpoint>,
    /// Lowest and highest kraft.version that it can work with.
    pub kraft_versions: (i16, i16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterEndpoint {
    pub name: Str,
    pub host: Str,
    pub port: u16,
}

impl ControlRecord {
    /// Key and value.
    pub fn encode(&self) -> Result<(Bytes, Bytes), EncodeError> {
        match self {
            Self::LeaderChange { leader_id, voters, granting_voters } => {
                let voter = |id: &i32| leader_change_message::Voter { voter_id: *id, ..Default::default() };
                let value = LeaderChangeMessage {
                    version: VERSION,
                    leader_id: *leader_id,
                    voters: voters.iter().map(voter).collect(),
                    granting_voters: granting_voters.iter().map(voter).collect(),
                    ..Default::default()
                };
                key_and_value(types::LEADER_CHANGE, &value)
            }
            Self::SnapshotHeader { last_contained_timestamp_ms } => {
                let value = SnapshotHeaderRecord { last_contained_log_timestamp: *last_contained_timestamp_ms, ..Default::default() };
                key_and_value(types::SNAPSHOT_HEADER, &value)
            }
            Self::SnapshotFooter => key_and_value(types::SNAPSHOT_FOOTER, &SnapshotFooterRecord::default()),
            Self::KRaftVersion(version) => {
                key_and_value(types::KRAFT_VERSION, &KRaftVersionRecord { k_raft_version: *version, ..Default::default() })
            }
            Self::Voters(voters) => {
                let value = VotersRecord { voters: voters.iter().map(Voter::to_wire).collect(), ..Default::default() };
                key_and_value(types::VOTERS, &value)
            }
            Self::Unknown { record_type } => unreachable!("a control record of unknown type {record_type} is never written"),
        }
    }

    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let mut key = Decoder::new(Bytes::copy_from_slice(key));
        let _version = key.int16()?;
        let record_type = ControlRecordTypeSchema::decode(&mut key, VERSION)?.r#type;
        let value = Bytes::copy_from_slice(value);
        Ok(match record_type {
            types::LEADER_CHANGE => {
                let message: LeaderChangeMessage = decode_value(value)?;
                let ids = |voters: Vec<leader_change_message::Voter>| voters.into_iter().map(|voter| voter.voter_id).collect();
                Self::LeaderChange {
                    leader_id: message.leader_id,
                    voters: ids(message.voters),
                    granting_voters: ids(message.granting_voters),
                }
            }
            types::SNAPSHOT_HEADER => {
                let header: SnapshotHeaderRecord = decode_value(value)?;
                Self::SnapshotHeader { last_contained_timestamp_ms: header.last_contained_log_timestamp }
            }
            types::SNAPSHOT_FOOTER => Self::SnapshotFooter,
            types::KRAFT_VERSION => Self::KRaftVersion(decode_value::<KRaftVersionRecord>(value)?.k_raft_version),
            types::VOTERS => {
                let record: VotersRecord = decode_value(value)?;
                Self::Voters(record.voters.into_iter().map(Voter::from_wire).collect())
            }
            _ => Self::Unknown { record_type },
        })
    }
}

fn key_and_value(record_type: i16, value: &impl Message) -> Result<(Bytes, Bytes), EncodeError> {
    let mut key = crate::wire::Encoder::new();
    key.int16(VERSION);
    key.int16(record_type);
    Ok((key.into_bytes(), value.to_bytes(VERSION)?))
}

/// The version stands at the front of the value, as its first field, and says how to read it.
fn decode_value<M: Message>(value: Bytes) -> Result<M, DecodeError> {
    let version = Decoder::new(value.clone()).int16()?;
    M::decode(&mut Decoder::new(value), version)
}

impl Voter {
    fn to_wire(&self) -> voters_record::Voter {
        let endpoint = |endpoint: &VoterEndpoint| voters_record::Endpoint {
            name: endpoint.name.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            ..Default::default()
        };
        voters_record::Voter {
            voter_id: self.id,
            voter_directory_id: self.directory_id,
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            k_raft_version_feature: voters_record::KRaftVersionFeature {
                min_supported_version: self.kraft_versions.0,
                max_supported_version: self.kraft_versions.1,
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn from_wire(voter: voters_record::Voter) -> Self {
        let feature = voter.k_raft_version_feature;
        Self {
            id: voter.voter_id,
            directory_id: voter.voter_directory_id,
            endpoints: voter
                .endpoints
                .into_iter()
                .map(|endpoint| VoterEndpoint { name: endpoint.name, host: endpoint.host, port: endpoint.port })
                .collect(),
            kraft_versions: (feature.min_supported_version, feature.max_supported_version),
        }
    }
}
