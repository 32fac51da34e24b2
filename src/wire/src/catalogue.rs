//! All messages and records in one table, for tests and fuzz targets that walk over every one of them in every version.

use bytes::Bytes;

use crate::decoder::{DecodeError, Decoder};
use crate::encoder::EncodeError;
use crate::message::Message;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    Header,
    Data,
    Metadata,
    CoordinatorKey,
    CoordinatorValue,
}

#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    /// `messages`, or the schema file of a record without `.txt`.
    pub file: &'static str,
    pub kind: Kind,
    /// API key or record type.
    pub api: Option<i16>,
    /// First and last version.
    pub versions: (i16, i16),
    /// Decodes bytes, drops the message and gives the number of bytes behind it.
    pub decode: fn(Bytes, i16) -> Result<usize, DecodeError>,
    /// Decodes bytes in one version and encodes what came out in another.
    pub transcode: fn(Bytes, i16, i16) -> Result<Transcoded, DecodeError>,
    /// The default value's bytes.
    pub encode_default: fn(i16) -> Result<Bytes, EncodeError>,
}

#[derive(Debug)]
pub struct Transcoded {
    pub encoded: Result<Bytes, EncodeError>,
    /// Bytes behind the message.
    pub left_over: usize,
}

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<usize, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    M::decode(&mut decoder, version)?;
    Ok(decoder.remaining())
}

fn transcode<M: Message>(bytes: Bytes, from_version: i16, to_version: i16) -> Result<Transcoded, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let message = M::decode(&mut decoder, from_version)?;
    Ok(Transcoded { encoded: message.to_bytes(to_version), left_over: decoder.remaining() })
}

fn encode_default<M: Message>(version: i16) -> Result<Bytes, EncodeError> {
    M::default().to_bytes(version)
}
