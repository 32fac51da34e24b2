//! Whole frames: a length, a header, a message.

use std::fmt;

use crate::api_key::{ApiKey, UnknownApiKey};
use crate::decoder::{DecodeError, Decoder};
use crate::encoder::{Chunk, EncodeError, Encoder};
use crate::message::{Message, Request};
use crate::messages::{RequestHeader, ResponseHeader};
use crate::string::Str;

/// A request's header could not be read. Either way the connection closes without an answer (semantics of Kafka's SocketServer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    UnknownApiKey(UnknownApiKey),
    Decode(DecodeError),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::UnknownApiKey(error) => error.fmt(f),
            HeaderError::Decode(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<DecodeError> for HeaderError {
    fn from(error: DecodeError) -> HeaderError {
        HeaderError::Decode(error)
    }
}

/// Reads the header of a frame (without its length), leaving the decoder at the body. The request's version is not checked: ApiVersions is answered in any version.
pub fn read_request_header(decoder: &mut Decoder) -> Result<(ApiKey, RequestHeader), HeaderError> {
    // Key and version stand first in every header version, and say which one it is.
    let (key, version) = decoder.peek_int16_pair()?;
    let api_key = ApiKey::try_from(key).map_err(HeaderError::UnknownApiKey)?;
    let header = RequestHeader::decode(decoder, api_key.request_header_version(version))?;
    Ok((api_key, header))
}

/// Reads the header of a response frame (without its length) and gives the correlation id.
pub fn read_response_header(decoder: &mut Decoder, api_key: ApiKey, version: i16) -> Result<i32, DecodeError> {
    ResponseHeader::decode(decoder, api_key.response_header_version(version)).map(|header| header.correlation_id)
}

/// The chunks of a whole response frame: length, header, message. Fields that the version does not know are left out.
pub fn encode_response<M: Message>(api_key: ApiKey, version: i16, correlation_id: i32, response: &M) -> Result<Vec<Chunk>, EncodeError> {
    let mut encoder = Encoder::with_capacity(256).drop_unknown_fields();
    encoder.int32(0);
    let header = ResponseHeader { correlation_id, ..ResponseHeader::default() };
    header.encode(&mut encoder, api_key.response_header_version(version))?;
    response.encode(&mut encoder, version)?;
    encoder.finish_frame()
}

/// The chunks of a whole request frame: length, header, message.
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<Str>,
    request: &R,
) -> Result<Vec<Chunk>, EncodeError> {
    let mut encoder = Encoder::with_capacity(256);
    encoder.int32(0);
    let header = RequestHeader {
        request_api_key: R::API_KEY.code(),
        request_api_version: version,
        correlation_id,
        client_id,
        ..RequestHeader::default()
    };
    header.encode(&mut encoder, R::API_KEY.request_header_version(version))?;
    request.encode(&mut encoder, version)?;
    encoder.finish_frame()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use crate::messages::{ApiVersionsResponse, ProduceRequest};
    use crate::records_field::{Records, RecordsPiece};

    fn produce_request(records: Records) -> ProduceRequest {
        let partition = PartitionProduceData { index: 3, records: Some(records), ..Default::default() };
        let topic = TopicProduceData { name: Str::from("orders"), partition_data: vec![partition], ..Default::default() };
        ProduceRequest { acks: -1, timeout_ms: 1500, topic_data: vec![topic], ..Default::default() }
    }

    fn joined(chunks: Vec<Chunk>) -> Bytes {
        let memory = chunks.iter().map(|chunk| match chunk {
            Chunk::Memory(bytes) => bytes.as_ref(),
            Chunk::Deferred(_) => panic!("deferred"),
        });
        Bytes::from(memory.collect::<Vec<_>>().concat())
    }

    /// A request comes out of its frame as it went in, in a plain and in a flexible version, and its records are a slice of the frame.
    #[test]
    fn requests_survive_their_frame() {
        for version in [3, 9] {
            let request = produce_request(Records::from(Bytes::from_static(b"batch")));
            let frame = joined(encode_request(version, 7, Some(Str::from("me")), &request).unwrap());
            let length = i32::from_be_bytes(frame[..4].try_into().unwrap());
            assert_eq!(length as usize, frame.len() - 4);
            let mut decoder = Decoder::new(frame.slice(4..));
            let (api_key, header) = read_request_header(&mut decoder).unwrap();
            assert_eq!(api_key, ApiKey::Produce);
            assert_eq!((header.request_api_version, header.correlation_id), (version, 7));
            assert_eq!(header.client_id.as_deref(), Some("me"));
            let decoded = ProduceRequest::decode(&mut decoder, version).unwrap();
            assert_eq!(decoded, request);
            assert_eq!(decoder.remaining(), 0);
            let records = decoded.topic_data[0].partition_data[0].records.as_ref().unwrap().to_bytes();
            assert!(frame.as_ptr_range().contains(&records.as_ptr()));
        }
    }

    /// The plain encoding, byte by byte.
    #[test]
    fn produce_version_3_is_as_kafka_writes_it() {
        let request = produce_request(Records::from(Bytes::from_static(b"batch")));
        let expected =
            b"\xff\xff\xff\xff\x00\x00\x05\xdc\x00\x00\x00\x01\x00\x06orders\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00\x05batch";
        assert_eq!(request.to_bytes(3).unwrap().as_ref(), expected);
    }

    /// Kafka lets the topic's name be dropped where the id takes its place, but not a transactional id in a version without one.
    #[test]
    fn unknown_fields_are_dropped_or_refused() {
        let request = produce_request(Records::default());
        assert!(request.to_bytes(13).is_ok());
        assert_eq!(request.to_bytes(2), Err(EncodeError::UnsupportedVersion { message: "ProduceRequest", version: 2 }));
        let heartbeat = crate::messages::HeartbeatRequest { group_instance_id: Some(Str::from("i")), ..Default::default() };
        let refused = EncodeError::FieldNotInVersion { field: "HeartbeatRequest.GroupInstanceId", version: 2 };
        assert_eq!(heartbeat.to_bytes(2), Err(refused));
        assert!(heartbeat.to_bytes(3).is_ok());
    }

    /// Records that are not in memory count in every length and stand as a chunk of their own.
    #[test]
    fn deferred_records_are_counted() {
        let mut records = Records::from(Bytes::from_static(b"hot"));
        records.push(RecordsPiece::Deferred { token: 4, length: 1000 });
        let chunks = encode_request(3, 7, None, &produce_request(records)).unwrap();
        let total: usize = chunks.iter().map(Chunk::length).sum();
        let Chunk::Memory(first) = &chunks[0] else { panic!("the header is in memory") };
        assert_eq!(i32::from_be_bytes(first[..4].try_into().unwrap()) as usize, total - 4);
        assert_eq!(first[first.len() - 7..], *b"\x00\x00\x03\xebhot");
        assert!(matches!(chunks[1], Chunk::Deferred(_)));
    }

    /// A client that speaks a version of the future reads the answer, because its header never has tags.
    #[test]
    fn api_versions_is_answered_with_a_plain_header() {
        let frame = joined(encode_response(ApiKey::ApiVersions, 3, 9, &ApiVersionsResponse::default()).unwrap());
        assert_eq!(frame[4..10], [0, 0, 0, 9, 0, 0]);
        let mut decoder = Decoder::new(Bytes::from_static(b"\x00\x12\x00\x63\x00\x00\x00\x09\xff\xff\x00"));
        let (api_key, header) = read_request_header(&mut decoder).unwrap();
        assert_eq!((api_key, header.request_api_version), (ApiKey::ApiVersions, 99));
        assert_eq!(decoder.remaining(), 0);
    }

    #[test]
    fn unknown_keys_are_refused_by_number() {
        let mut decoder = Decoder::new(Bytes::from_static(b"\x03\xe8\x00\x00\x00\x00\x00\x09\xff\xff"));
        assert_eq!(read_request_header(&mut decoder), Err(HeaderError::UnknownApiKey(UnknownApiKey(1000))));
    }
}
