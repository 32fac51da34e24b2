//! Writing values as the chunks of one frame.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::RawTaggedField;
use crate::records_field::{Records, RecordsPiece};

/// Bytes that are already in memory and at least this long become a chunk of their own instead of being copied.
const SHARED_BYTES_MIN: usize = 1024;

/// A part of an encoded frame, in the order in which the parts go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    Memory(Bytes),
    Deferred(DeferredRecords),
}

impl Chunk {
    pub fn length(&self) -> usize {
        match self {
            Chunk::Memory(bytes) => bytes.len(),
            Chunk::Deferred(records) => records.length as usize,
        }
    }
}

/// The place of records that are not in memory: whoever sends the frame puts `length` bytes here, and knows from `token` which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredRecords {
    pub token: u64,
    pub length: u32,
}

/// Collects a frame. Small values are written into one buffer; large bytes and deferred records are remembered with the position at which they belong.
#[derive(Debug, Default)]
pub struct Encoder {
    memory: BytesMut,
    /// What stands apart from `memory`, with its position in `memory`, in order.
    apart: Vec<(usize, Chunk)>,
    apart_bytes: usize,
    drops_unknown_fields: bool,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder::default()
    }

    pub fn with_capacity(bytes: usize) -> Encoder {
        Encoder { memory: BytesMut::with_capacity(bytes), ..Encoder::default() }
    }

    /// From now on a field that the version does not know is left out, whatever its value: for answers, which say to an old client what it can understand.
    pub fn drop_unknown_fields(mut self) -> Encoder {
        self.drops_unknown_fields = true;
        self
    }

    /// Called by generated code for a field with a value, in a version that does not know the field.
    pub(crate) fn field_not_in_version(&self, field: &'static str, version: i16) -> Result<(), EncodeError> {
        if self.drops_unknown_fields { Ok(()) } else { Err(EncodeError::FieldNotInVersion { field, version }) }
    }

    /// Bytes written so far, those of deferred records included.
    pub fn length(&self) -> usize {
        self.memory.len() + self.apart_bytes
    }

    pub fn int8(&mut self, value: i8) {
        self.memory.put_i8(value);
    }

    pub fn int16(&mut self, value: i16) {
        self.memory.put_i16(value);
    }

    pub fn int32(&mut self, value: i32) {
        self.memory.put_i32(value);
    }

    pub fn int64(&mut self, value: i64) {
        self.memory.put_i64(value);
    }

    pub fn uint16(&mut self, value: u16) {
        self.memory.put_u16(value);
    }

    pub fn uint32(&mut self, value: u32) {
        self.memory.put_u32(value);
    }

    pub fn float64(&mut self, value: f64) {
        self.memory.put_f64(value);
    }

    pub fn uuid(&mut self, value: uuid::Uuid) {
        self.memory.put_slice(value.as_bytes());
    }

    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.memory.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.memory.put_u8(value as u8);
    }

    /// Bytes without a length before them; copied when they are few.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            self.memory.put_slice(bytes);
        } else {
            self.set_apart(Chunk::Memory(bytes.clone()));
        }
    }

    /// The frame's chunks, none of them empty. Chunks that lie side by side in memory are one.
    pub fn finish(mut self) -> Vec<Chunk> {
        let mut chunks = Vec::with_capacity(2 * self.apart.len() + 1);
        let mut taken = 0;
        for (position, chunk) in self.apart {
            if position > taken {
                chunks.push(Chunk::Memory(self.memory.split_to(position - taken).freeze()));
                taken = position;
            }
            chunks.push(chunk);
        }
        if !self.memory.is_empty() {
            chunks.push(Chunk::Memory(self.memory.freeze()));
        }
        chunks
    }

    /// The frame's chunks, with its length in the first four bytes, which the caller left free for it.
    pub(crate) fn finish_frame(mut self) -> Result<Vec<Chunk>, EncodeError> {
        let length = i32::try_from(self.length() - 4).map_err(|_| EncodeError::TooLong { length: self.length() })?;
        self.memory[..4].copy_from_slice(&length.to_be_bytes());
        Ok(self.finish())
    }

    /// Everything in one piece of memory. Deferred records have no bytes and are left out.
    pub fn into_bytes(self) -> Bytes {
        if self.apart.is_empty() {
            return self.memory.freeze();
        }
        let mut joined = BytesMut::with_capacity(self.length());
        for chunk in self.finish() {
            if let Chunk::Memory(bytes) = chunk {
                joined.extend_from_slice(&bytes);
            }
        }
        joined.freeze()
    }

    /// The length of a string, or null.
    pub(crate) fn string_length(&mut self, length: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        let length = match length {
            None => -1,
            Some(length) => i16::try_from(length).map_err(|_| EncodeError::TooLong { length })?,
        };
        if flexible {
            self.unsigned_varint((i32::from(length) + 1) as u32);
        } else {
            self.int16(length);
        }
        Ok(())
    }

    /// The length of bytes or records, or the count of an array, or null.
    pub(crate) fn write_length(&mut self, length: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        let length = match length {
            None => -1,
            Some(length) => i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?,
        };
        if flexible {
            self.unsigned_varint((i64::from(length) + 1) as u32);
        } else {
            self.int32(length);
        }
        Ok(())
    }

    pub(crate) fn records(&mut self, records: &Records) {
        for piece in &records.pieces {
            match piece {
                RecordsPiece::Memory(bytes) => self.raw(bytes),
                RecordsPiece::Deferred { token, length } => {
                    self.set_apart(Chunk::Deferred(DeferredRecords { token: *token, length: *length }))
                }
            }
        }
    }

    /// The tag buffer of a structure that knows no tags.
    pub(crate) fn unknown_tagged_fields(&mut self, fields: &[RawTaggedField]) -> Result<(), EncodeError> {
        if fields.is_empty() {
            self.memory.put_u8(0);
            return Ok(());
        }
        TagBuffer::default().write(self, fields)
    }

    /// In a version without tag buffers there is no place for tagged fields.
    pub(crate) fn no_tagged_fields(&self, structure: &'static str, version: i16, fields: &[RawTaggedField]) -> Result<(), EncodeError> {
        if fields.is_empty() { Ok(()) } else { Err(EncodeError::TagsNotInVersion { structure, version }) }
    }

    fn set_apart(&mut self, chunk: Chunk) {
        self.apart_bytes += chunk.length();
        self.apart.push((self.memory.len(), chunk));
    }

    fn append(&mut self, other: Encoder) {
        let start = self.memory.len();
        self.memory.put_slice(&other.memory);
        self.apart.extend(other.apart.into_iter().map(|(position, chunk)| (start + position, chunk)));
        self.apart_bytes += other.apart_bytes;
    }
}

/// The tagged fields of a structure, each encoded on its own because its size stands before it. Empty, as it nearly always is, it allocates nothing.
#[derive(Default)]
pub(crate) struct TagBuffer {
    fields: Vec<(u32, Encoder)>,
}

impl TagBuffer {
    pub(crate) fn push(&mut self, tag: u32, write: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let mut encoder = Encoder::new();
        write(&mut encoder)?;
        self.fields.push((tag, encoder));
        Ok(())
    }

    /// Writes known and unknown fields together, in the order of their tags; each tag may stand once.
    pub(crate) fn write(mut self, encoder: &mut Encoder, unknown: &[RawTaggedField]) -> Result<(), EncodeError> {
        for field in unknown {
            self.push(field.tag, |encoder| {
                encoder.raw(&field.data);
                Ok(())
            })?;
        }
        self.fields.sort_by_key(|(tag, _)| *tag);
        if let Some(pair) = self.fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(EncodeError::TagTwice { tag: pair[0].0 });
        }
        encoder.unsigned_varint(self.fields.len() as u32);
        for (tag, content) in self.fields {
            let length = content.length();
            encoder.unsigned_varint(tag);
            encoder.unsigned_varint(u32::try_from(length).map_err(|_| EncodeError::TooLong { length })?);
            encoder.append(content);
        }
        Ok(())
    }
}

/// Why a value has no encoding: always a mistake of ours, since the value is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The message has no such version.
    UnsupportedVersion { message: &'static str, version: i16 },
    /// A field has a value although the version does not know the field, and the schema does not let it be dropped. `Structure.Field` in the schema's spelling.
    FieldNotInVersion { field: &'static str, version: i16 },
    /// A structure has unknown tagged fields in a version that has no tag buffers.
    TagsNotInVersion { structure: &'static str, version: i16 },
    /// Null in a field that cannot be null in this version.
    NullNotAllowed { version: i16 },
    /// A string of more than 32767 bytes, or anything else beyond 2 GiB.
    TooLong { length: usize },
    /// Two tagged fields with one tag.
    TagTwice { tag: u32 },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::UnsupportedVersion { message, version } => write!(f, "{message} has no version {version}"),
            EncodeError::FieldNotInVersion { field, version } => write!(f, "{field} has a value, but version {version} does not know it"),
            EncodeError::TagsNotInVersion { structure, version } => {
                write!(f, "{structure} has tagged fields, but version {version} has none")
            }
            EncodeError::NullNotAllowed { version } => write!(f, "null where version {version} allows none"),
            EncodeError::TooLong { length } => write!(f, "{length} bytes or elements are too many for the field"),
            EncodeError::TagTwice { tag } => write!(f, "tag {tag} is there twice"),
        }
    }
}

impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Large bytes and deferred records keep their place between small values, and nothing large is copied.
    #[test]
    fn chunks_keep_their_order_and_share_large_bytes() {
        let large = Bytes::from(vec![7u8; SHARED_BYTES_MIN]);
        let mut encoder = Encoder::new();
        encoder.int8(1);
        encoder.raw(&large);
        encoder.records(&Records { pieces: smallvec::smallvec![RecordsPiece::Deferred { token: 9, length: 100 }] });
        encoder.int8(2);
        assert_eq!(encoder.length(), 1 + SHARED_BYTES_MIN + 100 + 1);
        let chunks = encoder.finish();
        let deferred = Chunk::Deferred(DeferredRecords { token: 9, length: 100 });
        let expected =
            [Chunk::Memory(Bytes::from_static(&[1])), Chunk::Memory(large.clone()), deferred, Chunk::Memory(Bytes::from_static(&[2]))];
        assert_eq!(chunks, expected);
        let Chunk::Memory(shared) = &chunks[1] else { panic!("not in memory") };
        assert_eq!(shared.as_ptr(), large.as_ptr());
    }

    /// Unknown tagged fields go out in the order of their tags, between the known ones.
    #[test]
    fn tags_are_sorted_and_unique() {
        let raw = |tag| RawTaggedField { tag, data: Bytes::from_static(b"x") };
        let mut encoder = Encoder::new();
        let mut tags = TagBuffer::default();
        tags.push(1, |encoder| {
            encoder.int8(5);
            Ok(())
        })
        .unwrap();
        tags.write(&mut encoder, &[raw(2), raw(0)]).unwrap();
        assert_eq!(encoder.into_bytes().as_ref(), &[3, 0, 1, b'x', 1, 1, 5, 2, 1, b'x']);
        assert_eq!(TagBuffer::default().write(&mut Encoder::new(), &[raw(4), raw(4)]), Err(EncodeError::TagTwice { tag: 4 }));
    }
}
