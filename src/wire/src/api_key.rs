//! The API keys: which requests there are, in which versions, on which listeners, and which header each version has.

use std::fmt;
use std::ops::RangeInclusive;

include!(concat!(env!("OUT_DIR"), "/api_key.rs"));

/// One row of the table behind [`ApiKey`], from the first line of the request's schema.
struct ApiFacts {
    name: &'static str,
    versions: (i16, i16),
    flexible_from: i16,
    latest_unstable: bool,
    on_broker: bool,
    on_controller: bool,
}

impl ApiKey {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name: `Produce`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// All versions that exist, the unstable one included; `None` for keys that are only reserved (LeaderAndIsr, StopReplica, UpdateMetadata, ControlledShutdown).
    pub fn valid_versions(self) -> Option<RangeInclusive<i16>> {
        let (first, last) = self.facts().versions;
        (first <= last).then_some(first..=last)
    }

    /// The versions that a broker may advertise: without the top version where that is unstable (InitProducerId 6). Produce is advertised from 0 all the same (KAFKA-18659);
    /// that is the answer's business, since versions 0 to 2 stay refused.
    pub fn stable_versions(self) -> Option<RangeInclusive<i16>> {
        let versions = self.valid_versions()?;
        let last = versions.end() - i16::from(self.facts().latest_unstable);
        (*versions.start() <= last).then_some(*versions.start()..=last)
    }

    /// Whether a broker's listener serves it.
    pub fn on_broker(self) -> bool {
        self.facts().on_broker
    }

    /// Whether a controller's listener serves it.
    pub fn on_controller(self) -> bool {
        self.facts().on_controller
    }

    /// Whether this version has compact lengths and tag buffers. Defined for versions that we do not know, because the header of an ApiVersions request of the future must be
    /// read.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.facts().flexible_from
    }

    /// 2 with tagged fields, 1 without.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// 1 with tagged fields, 0 without. An ApiVersions response has 0 in every version: a client must be able to read it before it knows what the broker speaks (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        if self != ApiKey::ApiVersions && self.is_flexible(version) { 1 } else { 0 }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that is no API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownApiKey(pub i16);

impl fmt::Display for UnknownApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown api key {}", self.0)
    }
}

impl std::error::Error for UnknownApiKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dense_and_convert_back() {
        for (index, key) in ApiKey::ALL.iter().enumerate() {
            assert_eq!(key.code() as usize, index);
            assert_eq!(ApiKey::try_from(key.code()), Ok(*key));
        }
        assert_eq!(ApiKey::try_from(95), Err(UnknownApiKey(95)));
        assert_eq!(ApiKey::try_from(-1), Err(UnknownApiKey(-1)));
    }

    #[test]
    fn versions_and_headers_follow_kafka() {
        assert_eq!(ApiKey::Produce.valid_versions(), Some(3..=13));
        assert_eq!(ApiKey::LeaderAndIsr.valid_versions(), None);
        assert_eq!(ApiKey::InitProducerId.valid_versions(), Some(0..=6));
        assert_eq!(ApiKey::InitProducerId.stable_versions(), Some(0..=5));
        assert_eq!((ApiKey::Produce.request_header_version(8), ApiKey::Produce.response_header_version(8)), (1, 0));
        assert_eq!((ApiKey::Produce.request_header_version(9), ApiKey::Produce.response_header_version(9)), (2, 1));
        assert_eq!((ApiKey::ApiVersions.request_header_version(99), ApiKey::ApiVersions.response_header_version(99)), (2, 0));
        assert_eq!((ApiKey::SaslHandshake.request_header_version(1), ApiKey::SaslHandshake.response_header_version(1)), (1, 0));
    }
}
