//! Reading values from the bytes of one frame.
//!
//! Three rules keep a stranger's bytes harmless. A length is compared with the bytes that are left before anything is sliced. A count is compared with the bytes that its
//! elements need at least. And what is allocated for arrays is charged to an allowance of the frame, because an empty string takes one byte on the wire and 32 in memory.

use std::fmt;

use bytes::{Buf, Bytes};

use crate::message::RawTaggedField;
use crate::string::Str;

/// Memory that arrays of one frame may take: this many times the frame's bytes, plus [`ALLOWANCE_BYTES_BASE`]. Real requests stay far below it: a topic's name of three
/// letters is 5 bytes on the wire and 72 in the widest structure that holds little else.
const ALLOWANCE_PER_BYTE: usize = 16;
const ALLOWANCE_BYTES_BASE: usize = 1 << 20;

/// Kafka's bound on strings, which holds for compact ones too.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// A cursor over a frame. Strings, bytes and records that it gives out are slices of the frame.
///
/// What is left after a message was decoded is the caller's: Kafka ignores trailing bytes of a request, so [`crate::Message::decode`] does as well.
#[derive(Debug)]
pub struct Decoder {
    rest: Bytes,
    frame_bytes: usize,
    allowance_bytes: usize,
}

impl Decoder {
    pub fn new(frame: Bytes) -> Decoder {
        let allowance_bytes = frame.len().saturating_mul(ALLOWANCE_PER_BYTE).saturating_add(ALLOWANCE_BYTES_BASE);
        Decoder { frame_bytes: frame.len(), rest: frame, allowance_bytes }
    }

    /// Bytes that were not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.frame_bytes - self.rest.len()
    }

    /// Everything that was not read yet.
    pub fn into_rest(self) -> Bytes {
        self.rest
    }

    pub fn int8(&mut self) -> Result<i8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_i8())
    }

    pub fn int16(&mut self) -> Result<i16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_i16())
    }

    pub fn int32(&mut self) -> Result<i32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_i32())
    }

    pub fn int64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_i64())
    }

    pub fn uint16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    pub fn uint32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    pub fn float64(&mut self) -> Result<f64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_f64())
    }

    pub fn uuid(&mut self) -> Result<uuid::Uuid, DecodeError> {
        self.need(16)?;
        Ok(uuid::Uuid::from_u128(self.rest.get_u128()))
    }

    /// Seven bits a byte, lowest first; at most five bytes and 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.int8()? as u8;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(self.error(DecodeProblem::VarintTooLong));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(DecodeProblem::VarintTooLong))
    }

    /// The next `length` bytes as a slice of the frame.
    pub fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.need(length)?;
        Ok(self.rest.split_to(length))
    }

    /// The next two int16 without reading them.
    pub(crate) fn peek_int16_pair(&self) -> Result<(i16, i16), DecodeError> {
        self.need(4)?;
        Ok((i16::from_be_bytes([self.rest[0], self.rest[1]]), i16::from_be_bytes([self.rest[2], self.rest[3]])))
    }

    /// Length of a string, `None` for null.
    pub(crate) fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return self.compact_length();
        }
        let length = self.int16()?;
        Ok(usize::try_from(length).ok())
    }

    /// Length of bytes or records, or count of an array; `None` for null.
    pub(crate) fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return self.compact_length();
        }
        let length = self.int32()?;
        Ok(usize::try_from(length).ok())
    }

    pub(crate) fn string(&mut self, length: usize) -> Result<Str, DecodeError> {
        if length > STRING_BYTES_MAX {
            return Err(self.error(DecodeProblem::StringTooLong { length }));
        }
        let bytes = self.slice(length)?;
        Str::from_utf8(bytes).map_err(|_| self.error(DecodeProblem::StringNotUtf8))
    }

    /// An empty vector with room for `count` elements, after the count was found plausible and its memory was charged.
    pub(crate) fn reserve<T>(&mut self, count: usize, element_bytes_min: usize) -> Result<Vec<T>, DecodeError> {
        if count > self.remaining() / element_bytes_min {
            return Err(self.error(DecodeProblem::CountTooLarge { count, remaining: self.remaining() }));
        }
        self.charge(count * size_of::<T>())?;
        Ok(Vec::with_capacity(count))
    }

    /// The tag buffer that ends a structure of a flexible version.
    pub(crate) fn tags(&mut self) -> Result<Tags, DecodeError> {
        Ok(Tags { left: self.unsigned_varint()? })
    }

    pub(crate) fn raw_tagged_field(&mut self, tag: &Tag) -> Result<RawTaggedField, DecodeError> {
        // They are pushed one by one, onto a vector that doubles.
        self.charge(2 * size_of::<RawTaggedField>())?;
        Ok(RawTaggedField { tag: tag.number, data: self.slice(tag.bytes)? })
    }

    pub(crate) fn null_not_allowed(&self) -> DecodeError {
        self.error(DecodeProblem::NullNotAllowed)
    }

    pub(crate) fn tag_not_in_version(&self, tag: u32, version: i16) -> DecodeError {
        self.error(DecodeProblem::TagNotInVersion { tag, version })
    }

    pub(crate) fn error(&self, problem: DecodeProblem) -> DecodeError {
        DecodeError { message: "", position: self.position(), problem }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.unsigned_varint()?.checked_sub(1).map(|length| length as usize))
    }

    fn need(&self, bytes: usize) -> Result<(), DecodeError> {
        if self.rest.len() < bytes {
            return Err(self.error(DecodeProblem::Truncated { needed: bytes, remaining: self.rest.len() }));
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.allowance_bytes.checked_sub(bytes) {
            Some(left) => {
                self.allowance_bytes = left;
                Ok(())
            }
            None => Err(self.error(DecodeProblem::OutOfProportion)),
        }
    }
}

/// The tagged fields that are still to be read.
pub(crate) struct Tags {
    left: u32,
}

/// One tagged field: its number, the size that was announced, and how many bytes must be left after it.
pub(crate) struct Tag {
    pub(crate) number: u32,
    bytes: usize,
    remaining_after: usize,
}

impl Tags {
    pub(crate) fn next(&mut self, decoder: &mut Decoder) -> Result<Option<Tag>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let number = decoder.unsigned_varint()?;
        let bytes = decoder.unsigned_varint()? as usize;
        decoder.need(bytes)?;
        Ok(Some(Tag { number, bytes, remaining_after: decoder.remaining() - bytes }))
    }

    /// A field that took more or less than it announced would shift everything behind it.
    pub(crate) fn end(&self, tag: &Tag, decoder: &Decoder) -> Result<(), DecodeError> {
        if decoder.remaining() != tag.remaining_after {
            return Err(decoder.error(DecodeProblem::TagSize { tag: tag.number }));
        }
        Ok(())
    }
}

/// Why bytes are not the message that they were taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The message that was being read, empty where only a part of one was.
    pub message: &'static str,
    /// Bytes of the frame that were read before.
    pub position: usize,
    pub problem: DecodeProblem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeProblem {
    /// The message has no such version.
    UnsupportedVersion { version: i16 },
    /// The frame ends before the value does.
    Truncated { needed: usize, remaining: usize },
    /// A varint of more than 32 (or 64) bits.
    VarintTooLong,
    /// Null in a field that cannot be null in this version.
    NullNotAllowed,
    /// A string of more than 32767 bytes.
    StringTooLong { length: usize },
    /// A string that is not UTF-8.
    StringNotUtf8,
    /// An array announces more elements than the bytes that are left can hold.
    CountTooLarge { count: usize, remaining: usize },
    /// The frame would take many times its size in memory.
    OutOfProportion,
    /// A tagged field that this version does not have.
    TagNotInVersion { tag: u32, version: i16 },
    /// A tagged field whose content has another size than it announced.
    TagSize { tag: u32 },
    /// A metadata record's frame version is not 1.
    FrameVersion { version: u32 },
    /// A record of another type than the one asked for.
    RecordType { expected: i16, found: i16 },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.message.is_empty() {
            write!(f, "{}: ", self.message)?;
        }
        write!(f, "at byte {}: ", self.position)?;
        match &self.problem {
            DecodeProblem::UnsupportedVersion { version } => write!(f, "version {version} does not exist"),
            DecodeProblem::Truncated { needed, remaining } => write!(f, "{needed} bytes needed, {remaining} left"),
            DecodeProblem::VarintTooLong => f.write_str("varint too long"),
            DecodeProblem::NullNotAllowed => f.write_str("null where the version allows none"),
            DecodeProblem::StringTooLong { length } => write!(f, "string of {length} bytes"),
            DecodeProblem::StringNotUtf8 => f.write_str("string is not UTF-8"),
            DecodeProblem::CountTooLarge { count, remaining } => write!(f, "{count} elements announced, {remaining} bytes left"),
            DecodeProblem::OutOfProportion => f.write_str("would take many times its size in memory"),
            DecodeProblem::TagNotInVersion { tag, version } => write!(f, "tag {tag} is not valid in version {version}"),
            DecodeProblem::TagSize { tag } => write!(f, "tagged field {tag} has another size than announced"),
            DecodeProblem::FrameVersion { version } => write!(f, "metadata record with frame version {version}"),
            DecodeProblem::RecordType { expected, found } => write!(f, "record of type {found} instead of {expected}"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(bytes: &[u8]) -> Decoder {
        Decoder::new(Bytes::copy_from_slice(bytes))
    }

    /// The longest varint is five bytes with four bits in the last; one bit more, or a sixth byte, is refused.
    #[test]
    fn varints_end_at_32_bits() {
        assert_eq!(decoder(&[0x00]).unsigned_varint(), Ok(0));
        assert_eq!(decoder(&[0x80, 0x01]).unsigned_varint(), Ok(128));
        assert_eq!(decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unsigned_varint(), Ok(u32::MAX));
        let too_long = decoder(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint().unwrap_err();
        assert_eq!(too_long.problem, DecodeProblem::VarintTooLong);
        let too_long = decoder(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).unsigned_varint().unwrap_err();
        assert_eq!(too_long.problem, DecodeProblem::VarintTooLong);
        let truncated = decoder(&[0x80]).unsigned_varint().unwrap_err();
        assert_eq!(truncated.problem, DecodeProblem::Truncated { needed: 1, remaining: 0 });
    }

    /// Four bytes cannot announce two billion elements, and many small elements cannot take a hundred times the frame.
    #[test]
    fn counts_are_checked_before_memory_is_taken() {
        let refused = decoder(&[0; 4]).reserve::<u64>(2_000_000_000, 2).unwrap_err();
        assert_eq!(refused.problem, DecodeProblem::CountTooLarge { count: 2_000_000_000, remaining: 4 });
        let frame = vec![0u8; 1 << 20];
        let refused = decoder(&frame).reserve::<[u8; 128]>(1 << 20, 1).unwrap_err();
        assert_eq!(refused.problem, DecodeProblem::OutOfProportion);
        assert!(decoder(&frame).reserve::<[u8; 16]>(1 << 20, 1).is_ok());
    }
}
