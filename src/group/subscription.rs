//! The one part of the members' metadata that a coordinator of classic groups reads: which topics a consumer subscribes to.

use crate::wire::messages::ConsumerProtocolSubscription;
use crate::wire::{Decoder, Message, Str};
use bytes::Bytes;

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
