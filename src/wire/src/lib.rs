//! Kafka's wire format: requests, responses and records generated at build from the schema files beside this crate, record batches by hand.
//!
//! Pure: bytes in, values out, and back. Nothing here knows sockets, files or time. Bytes come from strangers, so every length and count is checked against the bytes that
//! are left before anything is reserved, and what a decoder allocates is bounded by a small multiple of what it was given ([`Decoder`]). Records are sliced, never copied.

mod api_key;
pub mod batch;
mod decoder;
pub mod describe;
mod encoder;
mod error_code;
mod frame;
mod generated;
mod message;
mod records_field;
mod string;
mod value;
mod versioned;

#[doc(hidden)]
pub mod catalogue;

pub use api_key::{ApiKey, UnknownApiKey};
pub use decoder::{DecodeError, DecodeProblem, Decoder};
pub use encoder::{Chunk, DeferredRecords, EncodeError, Encoder};
pub use error_code::{ErrorCode, UnknownErrorCode};
pub use frame::{HeaderError, encode_request, encode_response, read_request_header, read_response_header};
pub use generated::{messages, records};
pub use message::{Message, RawTaggedField, Record, Request};
pub use records_field::{Records, RecordsPiece};
pub use string::Str;
pub use versioned::{
    MetadataFrame, decode_versioned, encode_metadata_record, encode_record_key, encode_versioned, read_metadata_frame, read_record_key_type,
};
