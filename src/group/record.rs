//! The records of `__consumer_offsets` that this broker writes and reads: an enum over the wire's structures, one variant per record type.
//!
//! A key is an int16 record type and a structure of version 0, a value an int16 version and a structure; a null value is a tombstone (group-coordinator.txt, Kafka's
//! `GroupCoordinatorRecordSerde`). The value versions written are those of Kafka 4.4 (`GroupCoordinatorRecordHelpers`), so that either broker can take over the other's directory.

use crate::cluster::features::{SHARE_VERSION, STREAMS_VERSION};
use crate::wire::records::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey, ConsumerGroupMetadataValue, ConsumerGroupPartitionMetadataKey,
    ConsumerGroupPartitionMetadataValue, ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue, ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue, GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, LegacyOffsetCommitValue,
    OffsetCommitKey, OffsetCommitValue, ShareGroupMetadataKey, StreamsGroupMetadataKey,
};
use crate::wire::{
    DecodeError, Decoder, Message, Record, Str, decode_versioned, encode_record_key, encode_versioned, read_record_key_type,
};
use bytes::Bytes;

/// Written for an offset that outlives the general retention or not, as its committer asked (OffsetCommit v2-4). Later versions have no field for it.
const OFFSET_COMMIT_WITH_EXPIRY: i16 = 1;
const OFFSET_COMMIT_VALUE: i16 = 4;
const GROUP_METADATA_VALUE: i16 = 3;
/// The values of consumer groups have grown by tagged fields only.
const CONSUMER_GROUP_VALUE: i16 = 0;

/// One change of a coordinator's durable state; a value of `None` takes away what the key names.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorRecord {
    OffsetCommit {
        key: OffsetCommitKey,
        value: Option<OffsetCommitValue>,
    },
    GroupMetadata {
        key: GroupMetadataKey,
        value: Option<GroupMetadataValue>,
    },
    ConsumerGroupMetadata {
        key: ConsumerGroupMetadataKey,
        value: Option<ConsumerGroupMetadataValue>,
    },
    ConsumerGroupPartitionMetadata {
        key: ConsumerGroupPartitionMetadataKey,
        value: Option<ConsumerGroupPartitionMetadataValue>,
    },
    ConsumerGroupMemberMetadata {
        key: ConsumerGroupMemberMetadataKey,
        value: Option<ConsumerGroupMemberMetadataValue>,
    },
    ConsumerGroupTargetAssignmentMetadata {
        key: ConsumerGroupTargetAssignmentMetadataKey,
        value: Option<ConsumerGroupTargetAssignmentMetadataValue>,
    },
    ConsumerGroupTargetAssignmentMember {
        key: ConsumerGroupTargetAssignmentMemberKey,
        value: Option<ConsumerGroupTargetAssignmentMemberValue>,
    },
    ConsumerGroupCurrentMemberAssignment {
        key: ConsumerGroupCurrentMemberAssignmentKey,
        value: Option<ConsumerGroupCurrentMemberAssignmentValue>,
    },
    ConsumerGroupRegularExpression {
        key: ConsumerGroupRegularExpressionKey,
        value: Option<ConsumerGroupRegularExpressionValue>,
    },
}

/// The feature and the id of a group of a kind that is not served, if this key is that of its metadata.
pub fn unserved_group(key: &[u8]) -> Option<(&'static str, Str)> {
    let mut key = Decoder::new(Bytes::copy_from_slice(key));
    match read_record_key_type(&mut key).ok()? {
        ShareGroupMetadataKey::TYPE => Some((SHARE_VERSION, ShareGroupMetadataKey::decode(&mut key, 0).ok()?.group_id)),
        StreamsGroupMetadataKey::TYPE => Some((STREAMS_VERSION, StreamsGroupMetadataKey::decode(&mut key, 0).ok()?.group_id)),
        _ => None,
    }
}

/// Why a record of `__consumer_offsets` could not be read.
#[derive(Debug)]
pub enum RecordError {
    /// A record without a key, which no coordinator writes.
    NoKey,
    /// A key that is not what its type says.
    Key { error: DecodeError },
    /// A value that is not what its version says, or of a version that this broker does not know.
    Value { record_type: i16, error: DecodeError },
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::NoKey => write!(f, "a coordinator record has no key"),
            RecordError::Key { error } => write!(f, "the key of a coordinator record cannot be read: {error}"),
            RecordError::Value { record_type, error } => write!(f, "a coordinator record of type {record_type} cannot be read: {error}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl CoordinatorRecord {
    /// The key and the value as they go into a record batch.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            CoordinatorRecord::OffsetCommit { key, value } => {
                let version = value.as_ref().map_or(OFFSET_COMMIT_VALUE, offset_commit_version);
                encode(key, value.as_ref(), version)
            }
            CoordinatorRecord::GroupMetadata { key, value } => encode(key, value.as_ref(), GROUP_METADATA_VALUE),
            CoordinatorRecord::ConsumerGroupMetadata { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
            CoordinatorRecord::ConsumerGroupPartitionMetadata { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
            CoordinatorRecord::ConsumerGroupMemberMetadata { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
            CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
            CoordinatorRecord::ConsumerGroupTargetAssignmentMember { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
            CoordinatorRecord::ConsumerGroupCurrentMemberAssignment { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
            CoordinatorRecord::ConsumerGroupRegularExpression { key, value } => encode(key, value.as_ref(), CONSUMER_GROUP_VALUE),
        }
    }

    /// Reads one record; `Ok(None)` is a record of a type that this broker does not serve (yet), which is left alone.
    pub fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<CoordinatorRecord>, RecordError> {
        let mut key = Decoder::new(key.ok_or(RecordError::NoKey)?.clone());
        let key = &mut key;
        Ok(match read_record_key_type(key).map_err(|error| RecordError::Key { error })? {
            LegacyOffsetCommitKey::TYPE => Some(CoordinatorRecord::OffsetCommit {
                key: from_legacy_key(decode_key(key)?),
                value: decode_value(LegacyOffsetCommitKey::TYPE, value)?.map(from_legacy_value),
            }),
            OffsetCommitKey::TYPE => {
                Some(CoordinatorRecord::OffsetCommit { key: decode_key(key)?, value: decode_value(OffsetCommitKey::TYPE, value)? })
            }
            GroupMetadataKey::TYPE => {
                Some(CoordinatorRecord::GroupMetadata { key: decode_key(key)?, value: decode_value(GroupMetadataKey::TYPE, value)? })
            }
            ConsumerGroupMetadataKey::TYPE => Some(CoordinatorRecord::ConsumerGroupMetadata {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupMetadataKey::TYPE, value)?,
            }),
            ConsumerGroupPartitionMetadataKey::TYPE => Some(CoordinatorRecord::ConsumerGroupPartitionMetadata {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupPartitionMetadataKey::TYPE, value)?,
            }),
            ConsumerGroupMemberMetadataKey::TYPE => Some(CoordinatorRecord::ConsumerGroupMemberMetadata {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupMemberMetadataKey::TYPE, value)?,
            }),
            ConsumerGroupTargetAssignmentMetadataKey::TYPE => Some(CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupTargetAssignmentMetadataKey::TYPE, value)?,
            }),
            ConsumerGroupTargetAssignmentMemberKey::TYPE => Some(CoordinatorRecord::ConsumerGroupTargetAssignmentMember {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupTargetAssignmentMemberKey::TYPE, value)?,
            }),
            ConsumerGroupCurrentMemberAssignmentKey::TYPE => Some(CoordinatorRecord::ConsumerGroupCurrentMemberAssignment {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupCurrentMemberAssignmentKey::TYPE, value)?,
            }),
            ConsumerGroupRegularExpressionKey::TYPE => Some(CoordinatorRecord::ConsumerGroupRegularExpression {
                key: decode_key(key)?,
                value: decode_value(ConsumerGroupRegularExpressionKey::TYPE, value)?,
            }),
            _ => None,
        })
    }

    /// The group that the record is about; its hash decides the partition.
    pub fn group_id(&self) -> &str {
        match self {
            CoordinatorRecord::OffsetCommit { key, .. } => &key.group,
            CoordinatorRecord::GroupMetadata { key, .. } => &key.group,
            CoordinatorRecord::ConsumerGroupMetadata { key, .. } => &key.group_id,
            CoordinatorRecord::ConsumerGroupPartitionMetadata { key, .. } => &key.group_id,
            CoordinatorRecord::ConsumerGroupMemberMetadata { key, .. } => &key.group_id,
            CoordinatorRecord::ConsumerGroupTargetAssignmentMetadata { key, .. } => &key.group_id,
            CoordinatorRecord::ConsumerGroupTargetAssignmentMember { key, .. } => &key.group_id,
            CoordinatorRecord::ConsumerGroupCurrentMemberAssignment { key, .. } => &key.group_id,
            CoordinatorRecord::ConsumerGroupRegularExpression { key, .. } => &key.group_id,
        }
    }
}

fn encode<K: Record, V: Message>(key: &K, value: Option<&V>, version: i16) -> (Bytes, Option<Bytes>) {
    const WHY: &str = "a coordinator record holds nothing that its version lacks";
    let value = value.map(|value| encode_versioned(version, value).expect(WHY));
    (encode_record_key(key).expect(WHY), value)
}

fn offset_commit_version(value: &OffsetCommitValue) -> i16 {
    if value.expire_timestamp == -1 { OFFSET_COMMIT_VALUE } else { OFFSET_COMMIT_WITH_EXPIRY }
}

fn decode_key<K: Record>(decoder: &mut Decoder) -> Result<K, RecordError> {
    K::decode(decoder, 0).map_err(|error| RecordError::Key { error })
}

fn decode_value<V: Message>(record_type: i16, value: Option<&Bytes>) -> Result<Option<V>, RecordError> {
    value.map(|value| decode_versioned(value.clone()).map_err(|error| RecordError::Value { record_type, error })).transpose()
}

fn from_legacy_key(key: LegacyOffsetCommitKey) -> OffsetCommitKey {
    OffsetCommitKey { group: key.group, topic: key.topic, partition: key.partition, ..Default::default() }
}

fn from_legacy_value(value: LegacyOffsetCommitValue) -> OffsetCommitValue {
    OffsetCommitValue { offset: value.offset, metadata: value.metadata, commit_timestamp: value.commit_timestamp, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Str;
    use crate::wire::records::group_coordinator::group_metadata_value::MemberMetadata;

    fn offset_record(expire_timestamp: i64) -> CoordinatorRecord {
        CoordinatorRecord::OffsetCommit {
            key: OffsetCommitKey { group: Str::from("g"), topic: Str::from("t"), partition: 3, ..Default::default() },
            value: Some(OffsetCommitValue {
                offset: 42,
                leader_epoch: if expire_timestamp == -1 { 7 } else { -1 },
                metadata: Str::from("m"),
                commit_timestamp: 1000,
                expire_timestamp,
                ..Default::default()
            }),
        }
    }

    /// Kafka's bytes for the same record: `00 01` the key type, `00 04` the value version of 4.4 with the topic id as tagged field 0 (absent when zero).
    #[test]
    fn an_offset_is_written_as_kafka_4_4_writes_it() {
        let (key, value) = offset_record(-1).encode();
        assert_eq!(&key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        assert_eq!(&value.unwrap()[..], b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x07\x02m\0\0\0\0\0\0\x03\xe8\0");
    }

    #[test]
    fn an_offset_with_its_own_expiry_is_written_in_version_1() {
        let (_, value) = offset_record(2000).encode();
        assert_eq!(&value.unwrap()[..], b"\0\x01\0\0\0\0\0\0\0\x2a\0\x01m\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\x07\xd0");
    }

    #[test]
    fn records_and_tombstones_are_read_back() {
        let group = CoordinatorRecord::GroupMetadata {
            key: GroupMetadataKey { group: Str::from("g"), ..Default::default() },
            value: Some(GroupMetadataValue {
                protocol_type: Str::from("consumer"),
                generation: 5,
                protocol: Some(Str::from("range")),
                leader: Some(Str::from("m-1")),
                current_state_timestamp: 99,
                members: vec![MemberMetadata {
                    member_id: Str::from("m-1"),
                    group_instance_id: Some(Str::from("i")),
                    client_id: Str::from("c"),
                    client_host: Str::from("/127.0.0.1"),
                    rebalance_timeout: 10,
                    session_timeout: 20,
                    subscription: Bytes::from_static(b"s"),
                    assignment: Bytes::from_static(b"a"),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        };
        let tombstone =
            CoordinatorRecord::GroupMetadata { key: GroupMetadataKey { group: Str::from("g"), ..Default::default() }, value: None };
        for record in [offset_record(-1), offset_record(2000), group, tombstone] {
            let (key, value) = record.encode();
            assert_eq!(CoordinatorRecord::decode(Some(&key), value.as_ref()).unwrap(), Some(record));
        }
    }

    #[test]
    fn types_not_served_are_left_alone_and_damage_is_named() {
        assert!(matches!(CoordinatorRecord::decode(Some(&Bytes::from_static(b"\0\x0a\0\x01g")), None), Ok(None)));
        assert!(matches!(CoordinatorRecord::decode(None, None), Err(RecordError::NoKey)));
        assert!(matches!(CoordinatorRecord::decode(Some(&Bytes::from_static(b"\0")), None), Err(RecordError::Key { .. })));
        let unknown = CoordinatorRecord::decode(Some(&Bytes::from_static(b"\0\x02\0\x01g")), Some(&Bytes::from_static(b"\0\x63")));
        assert!(matches!(unknown, Err(RecordError::Value { record_type: 2, .. })));
    }
}
