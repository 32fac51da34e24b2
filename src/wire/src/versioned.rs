//! Structures that carry their version (and type) in front: coordinator records, assignments, metadata records.

use bytes::Bytes;

use crate::decoder::{DecodeError, DecodeProblem, Decoder};
use crate::encoder::{EncodeError, Encoder};
use crate::message::{Message, Record};

/// An int16 version and the structure: the value of a coordinator record, and what group members exchange (ConsumerProtocolSubscription, ConsumerProtocolAssignment).
pub fn encode_versioned<M: Message>(version: i16, message: &M) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    encoder.int16(version);
    message.encode(&mut encoder, version)?;
    Ok(encoder.into_bytes())
}

/// The counterpart of [`encode_versioned`]. An unknown version is an error; bytes behind the structure are ignored.
pub fn decode_versioned<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let version = decoder.int16()?;
    M::decode(&mut decoder, version)
}

/// An int16 record type and the structure in version 0: the key of a coordinator record. A key's type plays the part of its version.
pub fn encode_record_key<K: Record>(key: &K) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    encoder.int16(K::TYPE);
    key.encode(&mut encoder, 0)?;
    Ok(encoder.into_bytes())
}

/// The record type of a coordinator record's key; the decoder then stands at the structure, to be read in version 0.
pub fn read_record_key_type(decoder: &mut Decoder) -> Result<i16, DecodeError> {
    decoder.int16()
}

/// What stands before every record of the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataFrame {
    /// [`Record::TYPE`] of the record that follows.
    pub record_type: i16,
    pub version: i16,
}

/// The only frame version there is.
const FRAME_VERSION: u32 = 1;

/// Frame version, type and version as varints, then the structure: a record of the metadata log.
pub fn encode_metadata_record<R: Record>(version: i16, record: &R) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    encoder.unsigned_varint(FRAME_VERSION);
    encoder.unsigned_varint(R::TYPE as u32);
    encoder.unsigned_varint(version as u32);
    record.encode(&mut encoder, version)?;
    Ok(encoder.into_bytes())
}

/// Reads the frame; the decoder then stands at the structure.
pub fn read_metadata_frame(decoder: &mut Decoder) -> Result<MetadataFrame, DecodeError> {
    let frame_version = decoder.unsigned_varint()?;
    if frame_version != FRAME_VERSION {
        return Err(decoder.error(DecodeProblem::FrameVersion { version: frame_version }));
    }
    let record_type = read_int16_varint(decoder)?;
    let version = read_int16_varint(decoder)?;
    Ok(MetadataFrame { record_type, version })
}

fn read_int16_varint(decoder: &mut Decoder) -> Result<i16, DecodeError> {
    let value = decoder.unsigned_varint()?;
    i16::try_from(value).map_err(|_| decoder.error(DecodeProblem::VarintTooLong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{OffsetCommitKey, OffsetCommitValue, TopicRecord};
    use crate::string::Str;

    /// An offset commit as Kafka's tools print it from the log: type 1 before the key, the version before the value.
    #[test]
    fn coordinator_records_carry_type_and_version() {
        let key = OffsetCommitKey { group: Str::from("g"), topic: Str::from("t"), partition: 2, ..Default::default() };
        let bytes = encode_record_key(&key).unwrap();
        assert_eq!(bytes.as_ref(), b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x02");
        let mut decoder = Decoder::new(bytes);
        assert_eq!(read_record_key_type(&mut decoder), Ok(OffsetCommitKey::TYPE));
        assert_eq!(OffsetCommitKey::decode(&mut decoder, 0), Ok(key));

        let value = OffsetCommitValue { offset: 5, leader_epoch: 1, commit_timestamp: 7, ..Default::default() };
        let bytes = encode_versioned(3, &value).unwrap();
        assert_eq!(bytes[..2], [0, 3]);
        assert_eq!(decode_versioned(bytes), Ok(value));
        let unknown = decode_versioned::<OffsetCommitValue>(Bytes::from_static(&[0, 99])).unwrap_err();
        assert_eq!(unknown.problem, DecodeProblem::UnsupportedVersion { version: 99 });
    }

    /// A metadata record: frame version 1, type 2, version 0, then the flexible structure.
    #[test]
    fn metadata_records_are_framed() {
        let record = TopicRecord { name: Str::from("t"), topic_id: uuid::Uuid::from_u128(1), ..Default::default() };
        let bytes = encode_metadata_record(0, &record).unwrap();
        assert_eq!(bytes.as_ref(), b"\x01\x02\x00\x02t\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00");
        let mut decoder = Decoder::new(bytes);
        assert_eq!(read_metadata_frame(&mut decoder), Ok(MetadataFrame { record_type: 2, version: 0 }));
        assert_eq!(TopicRecord::decode(&mut decoder, 0), Ok(record));
        assert!(read_metadata_frame(&mut Decoder::new(Bytes::from_static(&[2, 2, 0]))).is_err());
    }
}
