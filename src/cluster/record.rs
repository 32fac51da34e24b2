//! A record of the metadata log: one enum over all that Kafka 4.4 can write, and the frame in which they stand in the log.
//!
//! A record carries no version of its own here. The version is chosen when it is written, from what it says and from the finalised metadata.version ([`MetadataVersion`]), as
//! Kafka does; when it is read, the frame says it. What an older version cannot hold must not be in a record that is written at that level: encoding fails rather than
//! drop it.

use std::fmt;

use bytes::Bytes;

use crate::wire::records::{
    AbortTransactionRecord, AccessControlEntryRecord, BeginTransactionRecord, BrokerRegistrationChangeRecord, ClearElrRecord,
    ClientQuotaRecord, ConfigRecord, DelegationTokenRecord, EndTransactionRecord, FeatureLevelRecord, FenceBrokerRecord, NoOpRecord,
    PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RegisterControllerRecord,
    RemoveAccessControlEntryRecord, RemoveDelegationTokenRecord, RemoveTopicRecord, RemoveUserScramCredentialRecord, TopicRecord,
    UnfenceBrokerRecord, UnregisterBrokerRecord, UnregisterControllerRecord, UserScramCredentialRecord, ZkMigrationStateRecord,
};
use crate::wire::{DecodeError, Decoder, EncodeError, Message, Record, encode_metadata_record, read_metadata_frame};

use super::features::MetadataVersion;

/// Declares the enum and what goes through all of its variants, so that a record type is named once.
macro_rules! metadata_records {
    ($($variant:ident($record:ident)),* $(,)?) => {
        /// One record of the metadata log.
        #[derive(Clone, Debug, PartialEq)]
        pub enum MetadataRecord {
            $($variant($record),)*
        }

        $(impl From<$record> for MetadataRecord {
            fn from(record: $record) -> Self {
                Self::$variant(record)
            }
        })*

        impl MetadataRecord {
            /// The record's name in Kafka's schema.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$record as Message>::NAME,)*
                }
            }

            /// Frame and structure, as the value of a record in the log.
            pub fn encode(&self, level: MetadataVersion) -> Result<Bytes, EncodeError> {
                let version = self.version_at(level);
                match self {
                    $(Self::$variant(record) => encode_metadata_record(version, record),)*
                }
            }

            /// The counterpart of [`Self::encode`], for the value of a record in the log.
            pub fn decode(value: Bytes) -> Result<Self, RecordError> {
                let mut decoder = Decoder::new(value);
                let frame = read_metadata_frame(&mut decoder)?;
                $(if frame.record_type == <$record as Record>::TYPE {
                    return Ok(Self::$variant(<$record>::decode(&mut decoder, frame.version)?));
                })*
                Err(RecordError::UnknownType { record_type: frame.record_type, version: frame.version })
            }
        }
    };
}

metadata_records! {
    RegisterBroker(RegisterBrokerRecord),
    UnregisterBroker(UnregisterBrokerRecord),
    Topic(TopicRecord),
    Partition(PartitionRecord),
    Config(ConfigRecord),
    PartitionChange(PartitionChangeRecord),
    FenceBroker(FenceBrokerRecord),
    UnfenceBroker(UnfenceBrokerRecord),
    RemoveTopic(RemoveTopicRecord),
    DelegationToken(DelegationTokenRecord),
    UserScramCredential(UserScramCredentialRecord),
    FeatureLevel(FeatureLevelRecord),
    ClientQuota(ClientQuotaRecord),
    ProducerIds(ProducerIdsRecord),
    BrokerRegistrationChange(BrokerRegistrationChangeRecord),
    AccessControlEntry(AccessControlEntryRecord),
    RemoveAccessControlEntry(RemoveAccessControlEntryRecord),
    NoOp(NoOpRecord),
    ZkMigrationState(ZkMigrationStateRecord),
    RemoveUserScramCredential(RemoveUserScramCredentialRecord),
    BeginTransaction(BeginTransactionRecord),
    EndTransaction(EndTransactionRecord),
    AbortTransaction(AbortTransactionRecord),
    RemoveDelegationToken(RemoveDelegationTokenRecord),
    RegisterController(RegisterControllerRecord),
    ClearElr(ClearElrRecord),
    UnregisterController(UnregisterControllerRecord),
}

impl MetadataRecord {
    /// The version in which Kafka writes the record at a metadata.version.
    fn version_at(&self, level: MetadataVersion) -> i16 {
        match self {
            Self::RegisterBroker(_) => level.register_broker_record_version(),
            Self::Partition(_) | Self::PartitionChange(_) => level.partition_record_version(),
            Self::BrokerRegistrationChange(change) => registration_change_version(change),
            _ => 0,
        }
    }
}

/// The lowest version that can say what the change says.
fn registration_change_version(change: &BrokerRegistrationChangeRecord) -> i16 {
    if change.cordoned_log_dirs.is_some() {
        3
    } else if !change.log_dirs.is_empty() {
        2
    } else if change.in_controlled_shutdown != 0 {
        1
    } else {
        0
    }
}

/// A record that cannot be read. The directory is then refused: what it says would be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A type that Kafka 4.4 does not know: a newer release has written it.
    UnknownType { record_type: i16, version: i16 },
    /// A version that is not known, or bytes that do not hold what the frame says.
    Undecodable(DecodeError),
}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        Self::Undecodable(error)
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType { record_type, version } => {
                write!(
                    formatter,
                    "metadata record of unknown type {record_type} (version {version}): written by a newer release than Kafka 4.4"
                )
            }
            Self::Undecodable(error) => write!(formatter, "metadata record cannot be read: {error}"),
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cluster::features::METADATA_VERSION_LATEST;
    use crate::wire::Str;

    /// Every record type round-trips through its frame in the version of the newest level.
    #[test]
    fn frames_round_trip() {
        let records: Vec<MetadataRecord> = vec![
            TopicRecord { name: Str::from("t"), topic_id: Uuid::from_u128(7), ..Default::default() }.into(),
            PartitionRecord { topic_id: Uuid::from_u128(7), directories: vec![Uuid::from_u128(9)], ..Default::default() }.into(),
            ConfigRecord { resource_type: 2, name: Str::from("k"), value: None, ..Default::default() }.into(),
            NoOpRecord::default().into(),
            UnregisterControllerRecord { controller_id: 4, ..Default::default() }.into(),
        ];
        for record in records {
            let value = record.encode(METADATA_VERSION_LATEST).expect("encodes");
            assert_eq!(MetadataRecord::decode(value), Ok(record));
        }
    }

    /// The bytes of a record that Kafka 4.4.0 wrote (`kafka-storage format`): the feature level of metadata.version.
    #[test]
    fn bytes_are_kafkas() {
        let record =
            MetadataRecord::from(FeatureLevelRecord { name: Str::from("metadata.version"), feature_level: 33, ..Default::default() });
        let value = record.encode(METADATA_VERSION_LATEST).expect("encodes");
        assert_eq!(&value[..], b"\x01\x0c\x00\x11metadata.version\x00\x21\x00");
    }

    /// The version of a registration's change is the lowest that holds it, as Kafka chooses it.
    #[test]
    fn registration_changes_choose_the_lowest_version() {
        let fenced = BrokerRegistrationChangeRecord { fenced: -1, ..Default::default() };
        assert_eq!(registration_change_version(&fenced), 0);
        let stopping = BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..Default::default() };
        assert_eq!(registration_change_version(&stopping), 1);
        let directories = BrokerRegistrationChangeRecord { log_dirs: vec![Uuid::from_u128(1)], ..Default::default() };
        assert_eq!(registration_change_version(&directories), 2);
        let cordoned = BrokerRegistrationChangeRecord { cordoned_log_dirs: Some(Vec::new()), ..Default::default() };
        assert_eq!(registration_change_version(&cordoned), 3);
    }

    /// A level that knows no directories refuses a record that names one, instead of dropping it.
    #[test]
    fn nothing_is_dropped_for_an_older_level() {
        let record = MetadataRecord::from(PartitionRecord { directories: vec![Uuid::from_u128(9)], ..Default::default() });
        assert!(record.encode(MetadataVersion(16)).is_err());
        assert!(record.encode(MetadataVersion(17)).is_ok());
    }

    #[test]
    fn unknown_types_are_named() {
        let error = MetadataRecord::decode(Bytes::from_static(&[1, 90, 0])).expect_err("no such type");
        assert_eq!(error, RecordError::UnknownType { record_type: 90, version: 0 });
    }
}
