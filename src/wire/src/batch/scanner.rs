//! Takes the facts of each record from a stream of slices, without keys and values and without holding more than one unfinished integer: how a broker checks a compressed
//! batch of any size in constant memory.

use super::record::RecordError;
use super::varint::{VarintError, read_varint, read_varlong};

/// What a broker wants to know of a record before it stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFacts {
    /// The record's place in the batch, from 0.
    pub index: i32,
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub has_key: bool,
    /// False for a tombstone.
    pub has_value: bool,
}

/// A machine that is fed the bytes of the records in order, in slices of any size.
#[derive(Debug)]
pub struct RecordScanner {
    announced: i32,
    record_bytes_max: usize,
    state: State,
    /// Bytes that the record under way still has.
    record_left: usize,
    headers_left: i32,
    facts: RecordFacts,
    /// The first bytes of an integer that the last slice cut in two.
    carry: [u8; 10],
    carry_length: usize,
}

/// The field that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    Attributes,
    TimestampDelta,
    OffsetDelta,
    KeyLength,
    ValueLength,
    HeaderCount,
    HeaderKeyLength,
    HeaderValueLength,
    /// Bytes to pass over, then `Next`.
    Skip {
        left: usize,
        next: Next,
    },
}

/// What follows bytes that were passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    ValueLength,
    HeaderCount,
    HeaderValueLength,
    Header,
}

impl RecordScanner {
    pub fn new(record_count: i32) -> RecordScanner {
        let facts = RecordFacts { index: 0, offset_delta: 0, timestamp_delta: 0, has_key: false, has_value: false };
        RecordScanner {
            announced: record_count,
            record_bytes_max: usize::MAX,
            state: State::Length,
            record_left: 0,
            headers_left: 0,
            facts,
            carry: [0; 10],
            carry_length: 0,
        }
    }

    /// Refuses records of more bytes (`max.decompressed.message.bytes`), as soon as one announces them.
    pub fn with_record_bytes_max(self, record_bytes_max: usize) -> RecordScanner {
        RecordScanner { record_bytes_max, ..self }
    }

    /// Records that were seen whole.
    pub fn records_seen(&self) -> i32 {
        self.facts.index
    }

    /// Takes the next slice and calls `visit` for every record that ends in it.
    pub fn scan(&mut self, mut input: &[u8], visit: &mut impl FnMut(RecordFacts)) -> Result<(), RecordError> {
        while !input.is_empty() {
            if self.state == State::Length && self.carry_length == 0 && self.facts.index >= self.announced {
                return Err(RecordError::MoreThanAnnounced);
            }
            match self.state {
                State::Skip { left, next } => {
                    let passed = left.min(input.len());
                    input = &input[passed..];
                    self.state = State::Skip { left: left - passed, next };
                    if passed == left {
                        self.after(next, visit)?;
                    }
                }
                State::Attributes => {
                    self.consume(1)?;
                    input = &input[1..];
                    self.state = State::TimestampDelta;
                }
                _ => {
                    let Some(value) = self.integer(&mut input)? else { return Ok(()) };
                    self.field(value, visit)?;
                }
            }
        }
        Ok(())
    }

    /// To be called after the last slice: the batch must end with its last record.
    pub fn finish(&self) -> Result<(), RecordError> {
        if self.state != State::Length || self.carry_length > 0 {
            return Err(RecordError::Truncated);
        }
        if self.facts.index < self.announced {
            return Err(RecordError::FewerThanAnnounced { announced: self.announced, present: self.facts.index });
        }
        Ok(())
    }

    /// The integer at the front of `input`, which may have begun in the slice before; `None` if it goes on in the next one.
    fn integer(&mut self, input: &mut &[u8]) -> Result<Option<i64>, RecordError> {
        let is_long = self.state == State::TimestampDelta;
        let carried = self.carry_length;
        let read = if carried == 0 {
            read_integer(input, is_long)
        } else {
            let end = self.carry.len().min(carried + input.len());
            self.carry[carried..end].copy_from_slice(&input[..end - carried]);
            self.carry_length = end;
            read_integer(&self.carry[..end], is_long)
        };
        match read {
            Ok((value, length)) => {
                *input = &input[length - carried..];
                self.carry_length = 0;
                if self.state != State::Length {
                    self.consume(length)?;
                }
                Ok(Some(value))
            }
            // An unfinished integer has at most nine bytes.
            Err(VarintError::Truncated) => {
                if carried == 0 {
                    self.carry[..input.len()].copy_from_slice(input);
                    self.carry_length = input.len();
                }
                Ok(None)
            }
            Err(too_long) => Err(too_long.into()),
        }
    }

    fn field(&mut self, value: i64, visit: &mut impl FnMut(RecordFacts)) -> Result<(), RecordError> {
        match self.state {
            State::Length => {
                self.record_left = length(value)?;
                self.state = State::Attributes;
                if self.record_left == 0 {
                    return Err(RecordError::WrongLength);
                }
                if self.record_left > self.record_bytes_max {
                    return Err(RecordError::TooLarge { bytes: self.record_left, bytes_max: self.record_bytes_max });
                }
            }
            State::TimestampDelta => {
                self.facts.timestamp_delta = value;
                self.state = State::OffsetDelta;
            }
            State::OffsetDelta => {
                self.facts.offset_delta = value as i32;
                self.state = State::KeyLength;
            }
            State::KeyLength => {
                self.facts.has_key = value != -1;
                self.skip(value, Next::ValueLength, visit)?;
            }
            State::ValueLength => {
                self.facts.has_value = value != -1;
                self.skip(value, Next::HeaderCount, visit)?;
            }
            State::HeaderCount => {
                self.headers_left = length(value)? as i32;
                self.after(Next::Header, visit)?;
            }
            State::HeaderKeyLength => {
                length(value)?;
                self.skip(value, Next::HeaderValueLength, visit)?;
            }
            State::HeaderValueLength => self.skip(value, Next::Header, visit)?,
            State::Attributes | State::Skip { .. } => unreachable!("no integers"),
        }
        Ok(())
    }

    /// Passes over `length` bytes (-1 is null), then goes on with `next`.
    fn skip(&mut self, length_or_null: i64, next: Next, visit: &mut impl FnMut(RecordFacts)) -> Result<(), RecordError> {
        if length_or_null <= 0 {
            if length_or_null < -1 {
                return Err(RecordError::NegativeLength(length_or_null as i32));
            }
            return self.after(next, visit);
        }
        let left = length_or_null as usize;
        self.consume(left)?;
        self.state = State::Skip { left, next };
        Ok(())
    }

    fn after(&mut self, next: Next, visit: &mut impl FnMut(RecordFacts)) -> Result<(), RecordError> {
        self.state = match next {
            Next::ValueLength => State::ValueLength,
            Next::HeaderCount => State::HeaderCount,
            Next::HeaderValueLength => State::HeaderValueLength,
            Next::Header if self.headers_left > 0 => {
                self.headers_left -= 1;
                State::HeaderKeyLength
            }
            Next::Header => {
                if self.record_left > 0 {
                    return Err(RecordError::WrongLength);
                }
                visit(self.facts);
                self.facts.index += 1;
                State::Length
            }
        };
        Ok(())
    }

    /// Takes `bytes` from what the record's length promised.
    fn consume(&mut self, bytes: usize) -> Result<(), RecordError> {
        self.record_left = self.record_left.checked_sub(bytes).ok_or(RecordError::WrongLength)?;
        Ok(())
    }
}

fn read_integer(bytes: &[u8], is_long: bool) -> Result<(i64, usize), VarintError> {
    if is_long { read_varlong(bytes) } else { read_varint(bytes).map(|(value, length)| (i64::from(value), length)) }
}

fn length(value: i64) -> Result<usize, RecordError> {
    usize::try_from(value).map_err(|_| RecordError::NegativeLength(value as i32))
}
