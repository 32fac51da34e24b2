//! What members of the classic protocol tell each other through the coordinator (Kafka's ConsumerProtocol): subscriptions and assignments.
//!
//! A coordinator of classic groups reads only which topics a consumer subscribes to. One that serves such members in a group of the consumer protocol reads and writes the rest, too.

use crate::wire::messages::consumer_protocol_assignment::TopicPartition;
use crate::wire::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use crate::wire::{Decoder, Message, Str, encode_versioned};
use bytes::Bytes;

/// The newest version of both structures.
const VERSION_MAX: i16 = 3;

/// The topics of a consumer's subscription; `None` when the metadata is not one.
///
/// Read as version 0 whatever version it says: each version starts with the fields of the one before, and clients may be newer than this broker.
pub(crate) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<Str>> {
    let mut decoder = Decoder::new(metadata.clone());
    let version = decoder.int16().ok()?;
    if version < 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut decoder, 0).ok()?;
    Some(subscription.topics.iter().map(Str::detached).collect())
}

/// The version and the whole subscription; `None` when the metadata is not one. Newer versions are read as the newest that is known.
pub(crate) fn subscription(metadata: &Bytes) -> Option<(i16, ConsumerProtocolSubscription)> {
    let mut decoder = Decoder::new(metadata.clone());
    let version = decoder.int16().ok().filter(|version| *version >= 0)?.min(VERSION_MAX);
    Some((version, ConsumerProtocolSubscription::decode(&mut decoder, version).ok()?))
}

/// What a leader assigned to a member; `None` when the bytes are not an assignment.
pub(crate) fn assignment(bytes: &Bytes) -> Option<ConsumerProtocolAssignment> {
    let mut decoder = Decoder::new(bytes.clone());
    let version = decoder.int16().ok().filter(|version| *version >= 0)?.min(VERSION_MAX);
    ConsumerProtocolAssignment::decode(&mut decoder, version).ok()
}

/// An assignment as a member reads it that subscribed in `version`.
pub(crate) fn encode_assignment(version: i16, topics: impl Iterator<Item = (Str, Vec<i32>)>) -> Bytes {
    let topic = |(topic, partitions)| TopicPartition { topic, partitions, ..Default::default() };
    let assignment = ConsumerProtocolAssignment { assigned_partitions: topics.map(topic).collect(), ..Default::default() };
    encode_versioned(version.clamp(0, VERSION_MAX), &assignment).expect("an assignment can be said in every version")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &'static [u8]) -> Option<Vec<String>> {
        subscribed_topics(&Bytes::from_static(metadata)).map(|topics| topics.iter().map(|topic| topic.to_string()).collect())
    }

    #[test]
    fn topics_are_read_from_any_version() {
        assert_eq!(topics(b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff"), Some(vec!["a".to_string()]));
        // Version 3 with owned partitions, a generation and a rack behind what version 0 has.
        let newer = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0\0\0\0\x05\xff\xff";
        assert_eq!(topics(newer), Some(vec!["a".to_string(), "bc".to_string()]));
    }

    #[test]
    fn metadata_of_other_protocols_is_no_subscription() {
        assert_eq!(topics(b""), None);
        assert_eq!(topics(b"\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(topics(b"\0\x01\0\0\0\x05\0\x01a"), None);
    }
}
