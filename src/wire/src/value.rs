//! How each type of the schema is encoded. Generated structures only name their fields in order; all knowledge about lengths, nulls and compact forms stands here.

use bytes::Bytes;
use uuid::Uuid;

use crate::decoder::{DecodeError, Decoder};
use crate::encoder::{EncodeError, Encoder};
use crate::records_field::Records;
use crate::string::Str;

/// A value that is never null. `flexible` is that of the message's version, or false for a field that is never compact.
pub trait Wire: Sized {
    /// A lower bound of the encoded size in every version, at least 1: by it a count is checked before anything is reserved.
    const ENCODED_BYTES_MIN: usize;

    fn read(decoder: &mut Decoder, version: i16, flexible: bool) -> Result<Self, DecodeError>;

    fn write(&self, encoder: &mut Encoder, version: i16, flexible: bool) -> Result<(), EncodeError>;
}

/// A value whose length can say that there is none. `allowed` says whether the version lets the field be null.
pub trait Nullable: Wire {
    fn read_nullable(decoder: &mut Decoder, version: i16, flexible: bool, allowed: bool) -> Result<Option<Self>, DecodeError>;

    fn write_null(encoder: &mut Encoder, flexible: bool) -> Result<(), EncodeError>;

    fn write_nullable(value: &Option<Self>, encoder: &mut Encoder, version: i16, flexible: bool, allowed: bool) -> Result<(), EncodeError> {
        match value {
            Some(value) => value.write(encoder, version, flexible),
            None if allowed => Self::write_null(encoder, flexible),
            None => Err(EncodeError::NullNotAllowed { version }),
        }
    }
}

/// A structure that may be null: an int8 before it, below zero for null.
pub(crate) fn read_nullable_structure<T: Wire>(
    decoder: &mut Decoder,
    version: i16,
    flexible: bool,
    allowed: bool,
) -> Result<Option<T>, DecodeError> {
    if allowed && decoder.int8()? < 0 {
        return Ok(None);
    }
    T::read(decoder, version, flexible).map(Some)
}

pub(crate) fn write_nullable_structure<T: Wire>(
    value: &Option<T>,
    encoder: &mut Encoder,
    version: i16,
    flexible: bool,
    allowed: bool,
) -> Result<(), EncodeError> {
    if allowed {
        encoder.int8(if value.is_some() { 1 } else { -1 });
    }
    match value {
        Some(value) => value.write(encoder, version, flexible),
        None if allowed => Ok(()),
        None => Err(EncodeError::NullNotAllowed { version }),
    }
}

/// A tagged structure that may be null: an unsigned varint before it, 0 for null.
pub(crate) fn read_nullable_tagged_structure<T: Wire>(
    decoder: &mut Decoder,
    version: i16,
    flexible: bool,
) -> Result<Option<T>, DecodeError> {
    if decoder.unsigned_varint()? == 0 {
        return Ok(None);
    }
    T::read(decoder, version, flexible).map(Some)
}

pub(crate) fn write_nullable_tagged_structure<T: Wire>(
    value: &Option<T>,
    encoder: &mut Encoder,
    version: i16,
    flexible: bool,
) -> Result<(), EncodeError> {
    encoder.unsigned_varint(u32::from(value.is_some()));
    match value {
        Some(value) => value.write(encoder, version, flexible),
        None => Ok(()),
    }
}

macro_rules! fixed_size {
    ($($type:ty: $method:ident, $bytes:literal;)*) => {$(
        impl Wire for $type {
            const ENCODED_BYTES_MIN: usize = $bytes;

            fn read(decoder: &mut Decoder, _version: i16, _flexible: bool) -> Result<Self, DecodeError> {
                decoder.$method()
            }

            fn write(&self, encoder: &mut Encoder, _version: i16, _flexible: bool) -> Result<(), EncodeError> {
                encoder.$method(*self);
                Ok(())
            }
        }
    )*};
}

fixed_size! {
    i8: int8, 1;
    i16: int16, 2;
    i32: int32, 4;
    i64: int64, 8;
    u16: uint16, 2;
    u32: uint32, 4;
    f64: float64, 8;
    Uuid: uuid, 16;
}

impl Wire for bool {
    const ENCODED_BYTES_MIN: usize = 1;

    fn read(decoder: &mut Decoder, _version: i16, _flexible: bool) -> Result<bool, DecodeError> {
        Ok(decoder.int8()? != 0)
    }

    fn write(&self, encoder: &mut Encoder, _version: i16, _flexible: bool) -> Result<(), EncodeError> {
        encoder.int8(i8::from(*self));
        Ok(())
    }
}

macro_rules! through_nullable {
    () => {
        fn read(decoder: &mut Decoder, version: i16, flexible: bool) -> Result<Self, DecodeError> {
            Self::read_nullable(decoder, version, flexible, false)?.ok_or_else(|| decoder.null_not_allowed())
        }
    };
}

impl Wire for Str {
    const ENCODED_BYTES_MIN: usize = 1;

    through_nullable!();

    fn write(&self, encoder: &mut Encoder, _version: i16, flexible: bool) -> Result<(), EncodeError> {
        encoder.string_length(Some(self.len()), flexible)?;
        encoder.raw(self.as_bytes());
        Ok(())
    }
}

impl Nullable for Str {
    fn read_nullable(decoder: &mut Decoder, _version: i16, flexible: bool, allowed: bool) -> Result<Option<Str>, DecodeError> {
        match decoder.string_length(flexible)? {
            Some(length) => decoder.string(length).map(Some),
            None if allowed => Ok(None),
            None => Err(decoder.null_not_allowed()),
        }
    }

    fn write_null(encoder: &mut Encoder, flexible: bool) -> Result<(), EncodeError> {
        encoder.string_length(None, flexible)
    }
}

impl Wire for Bytes {
    const ENCODED_BYTES_MIN: usize = 1;

    through_nullable!();

    fn write(&self, encoder: &mut Encoder, _version: i16, flexible: bool) -> Result<(), EncodeError> {
        encoder.write_length(Some(self.len()), flexible)?;
        encoder.raw(self);
        Ok(())
    }
}

impl Nullable for Bytes {
    fn read_nullable(decoder: &mut Decoder, _version: i16, flexible: bool, allowed: bool) -> Result<Option<Bytes>, DecodeError> {
        match decoder.length(flexible)? {
            Some(length) => decoder.slice(length).map(Some),
            None if allowed => Ok(None),
            None => Err(decoder.null_not_allowed()),
        }
    }

    fn write_null(encoder: &mut Encoder, flexible: bool) -> Result<(), EncodeError> {
        encoder.write_length(None, flexible)
    }
}

impl Wire for Records {
    const ENCODED_BYTES_MIN: usize = 1;

    through_nullable!();

    fn write(&self, encoder: &mut Encoder, _version: i16, flexible: bool) -> Result<(), EncodeError> {
        encoder.write_length(Some(self.length()), flexible)?;
        encoder.records(self);
        Ok(())
    }
}

impl Nullable for Records {
    fn read_nullable(decoder: &mut Decoder, version: i16, flexible: bool, allowed: bool) -> Result<Option<Records>, DecodeError> {
        Ok(Bytes::read_nullable(decoder, version, flexible, allowed)?.map(Records::from))
    }

    fn write_null(encoder: &mut Encoder, flexible: bool) -> Result<(), EncodeError> {
        encoder.write_length(None, flexible)
    }
}

impl<T: Wire> Wire for Vec<T> {
    const ENCODED_BYTES_MIN: usize = 1;

    through_nullable!();

    fn write(&self, encoder: &mut Encoder, version: i16, flexible: bool) -> Result<(), EncodeError> {
        encoder.write_length(Some(self.len()), flexible)?;
        for element in self {
            element.write(encoder, version, flexible)?;
        }
        Ok(())
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn read_nullable(decoder: &mut Decoder, version: i16, flexible: bool, allowed: bool) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = decoder.length(flexible)? else {
            return if allowed { Ok(None) } else { Err(decoder.null_not_allowed()) };
        };
        let mut elements = decoder.reserve(count, T::ENCODED_BYTES_MIN)?;
        for _ in 0..count {
            elements.push(T::read(decoder, version, flexible)?);
        }
        Ok(Some(elements))
    }

    fn write_null(encoder: &mut Encoder, flexible: bool) -> Result<(), EncodeError> {
        encoder.write_length(None, flexible)
    }
}
