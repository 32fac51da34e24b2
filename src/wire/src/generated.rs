//! Where the generated code lives, and what it sees: one import list for all of its modules.

pub(crate) use std::ops::RangeInclusive;

pub(crate) use bytes::Bytes;
pub(crate) use uuid::Uuid;

pub(crate) use crate::decoder::{DecodeError, Decoder};
pub(crate) use crate::encoder::{EncodeError, Encoder, TagBuffer};
pub(crate) use crate::message::{Message, RawTaggedField, Record, Request};
pub(crate) use crate::records_field::Records;
pub(crate) use crate::string::Str;
pub(crate) use crate::value::{
    Nullable, Wire, read_nullable_structure, read_nullable_tagged_structure, write_nullable_structure, write_nullable_tagged_structure,
};

/// Requests, responses, headers and the structures that records carry as plain bytes (assignments, control records): one module each.
///
/// Fields have the schema's names in snake case. A field that a version does not know keeps its default when read; writing another value for it is an error unless Kafka
/// lets a sender drop it. A nullable field without a null default starts out empty (`Some(..)`), as in Kafka.
#[allow(clippy::all, unused_imports)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// Keys and values of the coordinators' logs, the metadata log's records, and the structures of files: one module per schema file, one module per structure in it.
#[allow(clippy::all, unused_imports)]
pub mod records {
    include!(concat!(env!("OUT_DIR"), "/records.rs"));
}
