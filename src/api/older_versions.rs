//! OffsetCommit 1 and ListOffsets 0, which Kafka 4 gave up (KIP-896). They cost little, and librdkafka 0.11 and sarama 1.27 to 1.40 cannot do without them.
//!
//! Neither is in the schemas. A commit is read into the form of version 2, whose answer looks the same; its timestamps are not heeded, as Kafka's own documentation allowed. Offsets are
//! looked up as in version 1 and told as a list of at most one: version 0 spoke of segments, and its clients only ask for an end of the log.

use bytes::Bytes;

use super::response::{Answer, CloseReason, Response};
use super::{Request, RequestContext, groups, offsets};
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::wire::messages::{ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest};
use crate::wire::{ApiKey, Chunk, DecodeError, Decoder, Encoder, Str};

pub const OFFSET_COMMIT: i16 = 1;
pub const LIST_OFFSETS: i16 = 0;

/// The version that an older commit is answered as.
const COMMIT_ANSWER_VERSION: i16 = 2;
/// The version that an older look-up is made as.
const LOOK_UP_VERSION: i16 = 1;

pub async fn offset_commit(request: Request) -> Answer {
    let Request { context, mut body } = request;
    match read_offset_commit(&mut body) {
        Ok(commit) => {
            let response = groups::handle_offset_commit(&context, commit, OFFSET_COMMIT).await;
            Response::answer(ApiKey::OffsetCommit, COMMIT_ANSWER_VERSION, context.correlation_id, &response, Default::default())
        }
        Err(error) => malformed(&context, &error),
    }
}

pub async fn list_offsets(request: Request) -> Answer {
    let Request { context, mut body } = request;
    match read_list_offsets(&mut body) {
        Ok(asked) => {
            let response = offsets::list_offsets(&context, asked, LOOK_UP_VERSION).await;
            let chunks = vec![Chunk::Memory(tell_offsets(context.correlation_id, &response))];
            Answer::Send(Response { chunks, ..Default::default() })
        }
        Err(error) => malformed(&context, &error),
    }
}

fn malformed(context: &RequestContext, error: &DecodeError) -> Answer {
    Answer::Close(CloseReason::Malformed(format!("{} version {}: {error}", context.api_key.name(), context.api_version)))
}

fn read_offset_commit(body: &mut Decoder) -> Result<OffsetCommitRequest, DecodeError> {
    let group_id = read_text(body)?.unwrap_or_default();
    let generation_id_or_member_epoch = body.int32()?;
    let member_id = read_text(body)?.unwrap_or_default();
    let topics = read_list(body, |body| {
        let name = read_text(body)?.unwrap_or_default();
        let partitions = read_list(body, |body| {
            let (partition_index, committed_offset) = (body.int32()?, body.int64()?);
            let _timestamp = body.int64()?;
            let committed_metadata = read_text(body)?;
            Ok(OffsetCommitRequestPartition { partition_index, committed_offset, committed_metadata, ..Default::default() })
        })?;
        Ok(OffsetCommitRequestTopic { name, partitions, ..Default::default() })
    })?;
    Ok(OffsetCommitRequest { group_id, generation_id_or_member_epoch, member_id, topics, ..Default::default() })
}

fn read_list_offsets(body: &mut Decoder) -> Result<ListOffsetsRequest, DecodeError> {
    let replica_id = body.int32()?;
    let topics = read_list(body, |body| {
        let name = read_text(body)?.unwrap_or_default();
        let partitions = read_list(body, |body| {
            let (partition_index, timestamp) = (body.int32()?, body.int64()?);
            let _offsets_max = body.int32()?;
            Ok(ListOffsetsPartition { partition_index, timestamp, ..Default::default() })
        })?;
        Ok(ListOffsetsTopic { name, partitions, ..Default::default() })
    })?;
    Ok(ListOffsetsRequest { replica_id, topics, ..Default::default() })
}

/// The whole frame: size, correlation id, and a list of offsets for each partition.
fn tell_offsets(correlation_id: i32, response: &ListOffsetsResponse) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.int32(correlation_id);
    encoder.int32(response.topics.len() as i32);
    for topic in &response.topics {
        encoder.int16(topic.name.len() as i16);
        encoder.raw(topic.name.as_bytes());
        encoder.int32(topic.partitions.len() as i32);
        for partition in &topic.partitions {
            encoder.int32(partition.partition_index);
            encoder.int16(partition.error_code);
            let found = Some(partition.offset).filter(|offset| *offset >= 0);
            encoder.int32(i32::from(found.is_some()));
            found.into_iter().for_each(|offset| encoder.int64(offset));
        }
    }
    let answer = encoder.into_bytes();
    let mut frame = Encoder::new();
    frame.int32(answer.len() as i32);
    frame.raw(&answer);
    frame.into_bytes()
}

/// A string, or none where its length is below zero.
fn read_text(body: &mut Decoder) -> Result<Option<Str>, DecodeError> {
    let Ok(length) = usize::try_from(body.int16()?) else { return Ok(None) };
    let bytes = body.slice(length)?;
    Ok(Some(Str::from_utf8(bytes).unwrap_or_default()))
}

/// A list; its count is not trusted with memory.
fn read_list<T>(body: &mut Decoder, mut one: impl FnMut(&mut Decoder) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
    let count = body.int32()?;
    let mut list = Vec::new();
    for _ in 0..count.max(0) {
        list.push(one(body)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};

    #[test]
    fn a_commit_of_version_1_is_read() {
        let bytes =
            b"\0\x01g\0\0\0\x05\0\x01m\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        let commit = read_offset_commit(&mut Decoder::new(Bytes::from_static(bytes))).unwrap();
        assert_eq!((&*commit.group_id, commit.generation_id_or_member_epoch, &*commit.member_id), ("g", 5, "m"));
        let partition = &commit.topics[0].partitions[0];
        assert_eq!((&*commit.topics[0].name, partition.partition_index, partition.committed_offset), ("t", 2, 7));
        assert_eq!(partition.committed_metadata, None);
        for length in 0..bytes.len() {
            assert!(read_offset_commit(&mut Decoder::new(Bytes::copy_from_slice(&bytes[..length]))).is_err());
        }
    }

    #[test]
    fn offsets_are_told_as_lists() {
        let partition = |offset| ListOffsetsPartitionResponse { partition_index: 3, offset, ..Default::default() };
        let topic = ListOffsetsTopicResponse { name: Str::from("t"), partitions: vec![partition(9), partition(-1)], ..Default::default() };
        let frame = tell_offsets(1, &ListOffsetsResponse { topics: vec![topic], ..Default::default() });
        let expected = b"\0\0\0\x2f\0\0\0\x01\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\x03\0\0\0\0\0\x01\0\0\0\0\0\0\0\x09\0\0\0\x03\0\0\0\0\0\0";
        assert_eq!(&frame[4..], &expected[4..]);
        assert_eq!(frame.len() - 4, i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize);
    }
}
