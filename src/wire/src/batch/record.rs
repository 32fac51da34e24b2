//! The records of a batch that lie in memory uncompressed, borrowed from it.
//!
//! A record: length, attributes (int8, unused), timestamp delta, offset delta, key length and key, value length and value, header count, headers (key length and key, value
//! length and value). All integers but the attributes are zig-zag varints; a length of -1 is null.

use std::fmt;

use super::varint::{VarintError, read_varint, read_varlong};

/// One record, borrowed from the bytes of its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// To be added to the batch's base offset.
    pub offset_delta: i32,
    /// To be added to the batch's base timestamp, unless the broker set the time.
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub header_count: i32,
    pub(super) headers: &'a [u8],
}

impl<'a> RecordRef<'a> {
    pub fn headers(&self) -> HeaderIterator<'a> {
        HeaderIterator { rest: self.headers, left: self.header_count }
    }
}

/// A record's header: a name and a value that may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// The headers of a record; they were checked when the record was read.
#[derive(Clone, Debug)]
pub struct HeaderIterator<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Iterator for HeaderIterator<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let mut reader = Reader { rest: self.rest };
        let header = reader.header().ok()?;
        self.rest = reader.rest;
        Some(header)
    }
}

/// Walks over the records of an uncompressed batch. Gives an error, and then nothing, where the bytes are no records or hold fewer or more than announced.
#[derive(Clone, Debug)]
pub struct RecordIterator<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> RecordIterator<'a> {
    /// `records` is what lies behind the batch's header, decompressed; `record_count` is the header's.
    pub fn new(records: &'a [u8], record_count: i32) -> RecordIterator<'a> {
        RecordIterator { rest: records, left: record_count }
    }
}

impl<'a> Iterator for RecordIterator<'a> {
    type Item = Result<RecordRef<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let left_over = std::mem::take(&mut self.rest);
            return (!left_over.is_empty()).then_some(Err(RecordError::MoreThanAnnounced));
        }
        self.left -= 1;
        let mut reader = Reader { rest: self.rest };
        let record = reader.record();
        match record {
            Ok(_) => self.rest = reader.rest,
            Err(_) => (self.rest, self.left) = (&[], 0),
        }
        Some(record)
    }
}

/// Why bytes are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The bytes end inside a record.
    Truncated,
    /// An integer with more bits than its type.
    VarintTooLong,
    /// A length below zero where null is not possible, or below -1.
    NegativeLength(i32),
    /// The fields of a record take more or fewer bytes than its length says.
    WrongLength,
    /// The batch announces more records than there are.
    FewerThanAnnounced { announced: i32, present: i32 },
    /// Bytes follow the last record.
    MoreThanAnnounced,
    /// A record is larger than the scanner was told to accept.
    TooLarge { bytes: usize, bytes_max: usize },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Truncated => f.write_str("the batch ends inside a record"),
            RecordError::VarintTooLong => f.write_str("integer too long"),
            RecordError::NegativeLength(length) => write!(f, "length {length}"),
            RecordError::WrongLength => f.write_str("the record's fields do not fill its length"),
            RecordError::FewerThanAnnounced { announced, present } => write!(f, "{announced} records announced, {present} present"),
            RecordError::MoreThanAnnounced => f.write_str("bytes after the last record"),
            RecordError::TooLarge { bytes, bytes_max } => write!(f, "record of {bytes} bytes, at most {bytes_max} are allowed"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<VarintError> for RecordError {
    fn from(error: VarintError) -> RecordError {
        match error {
            VarintError::Truncated => RecordError::Truncated,
            VarintError::TooLong => RecordError::VarintTooLong,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn record(&mut self) -> Result<RecordRef<'a>, RecordError> {
        let length = self.length()?;
        let mut fields = Reader { rest: self.take(length)? };
        let record = fields.fields().map_err(|error| match error {
            // The record's own length cut it off.
            RecordError::Truncated => RecordError::WrongLength,
            other => other,
        })?;
        if fields.rest.is_empty() { Ok(record) } else { Err(RecordError::WrongLength) }
    }

    fn fields(&mut self) -> Result<RecordRef<'a>, RecordError> {
        self.take(1)?;
        let timestamp_delta = self.varlong()?;
        let offset_delta = self.varint()?;
        let key = self.nullable_bytes()?;
        let value = self.nullable_bytes()?;
        let header_count = self.varint()?;
        if header_count < 0 {
            return Err(RecordError::NegativeLength(header_count));
        }
        let headers_and_rest = self.rest;
        for _ in 0..header_count {
            self.header()?;
        }
        let headers = &headers_and_rest[..headers_and_rest.len() - self.rest.len()];
        Ok(RecordRef { offset_delta, timestamp_delta, key, value, header_count, headers })
    }

    fn header(&mut self) -> Result<RecordHeader<'a>, RecordError> {
        let length = self.length()?;
        let key = self.take(length)?;
        let value = self.nullable_bytes()?;
        Ok(RecordHeader { key, value })
    }

    fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, RecordError> {
        match self.varint()? {
            -1 => Ok(None),
            length if length < 0 => Err(RecordError::NegativeLength(length)),
            length => self.take(length as usize).map(Some),
        }
    }

    fn length(&mut self) -> Result<usize, RecordError> {
        let length = self.varint()?;
        usize::try_from(length).map_err(|_| RecordError::NegativeLength(length))
    }

    fn varint(&mut self) -> Result<i32, RecordError> {
        let (value, length) = read_varint(self.rest)?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, RecordError> {
        let (value, length) = read_varlong(self.rest)?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}
