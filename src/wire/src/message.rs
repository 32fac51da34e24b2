//! What every generated message can do.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::decoder::{DecodeError, DecodeProblem, Decoder};
use crate::encoder::{EncodeError, Encoder};
use crate::value::Wire;

/// A structure that stands on its own: a request, a response, a header, a record's key or value.
pub trait Message: Wire + Default + Clone + PartialEq + std::fmt::Debug {
    /// The schema's name: `ProduceRequest`.
    const NAME: &'static str;
    /// Versions that exist. What a broker advertises is a choice of [`ApiKey`].
    const VERSIONS: RangeInclusive<i16>;

    /// Whether lengths are compact and structures end with a tag buffer (KIP-482). Defined beyond the known versions, as headers need it there.
    fn is_flexible(version: i16) -> bool;

    /// Reads the message; what follows it stays in the decoder.
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError { message: Self::NAME, ..decoder.error(DecodeProblem::UnsupportedVersion { version }) });
        }
        Self::read(decoder, version, Self::is_flexible(version)).map_err(|error| DecodeError { message: Self::NAME, ..error })
    }

    /// Writes the message. A field that differs from its default although the version does not know it is an error, unless the schema lets it be dropped.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        self.write(encoder, version, Self::is_flexible(version))
    }

    /// The message alone in memory of its own, without header or length.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut encoder = Encoder::new();
        self.encode(&mut encoder, version)?;
        Ok(encoder.into_bytes())
    }
}

/// A request, with the response that answers it.
pub trait Request: Message {
    const API_KEY: ApiKey;
    type Response: Message;
}

/// A record of the metadata log, or the key or the value of a coordinator's record. A key's type says which value belongs to it: they share the number.
pub trait Record: Message {
    const TYPE: i16;
}

/// A tagged field that the schema does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTaggedField {
    pub tag: u32,
    pub data: Bytes,
}
