//! The journal of a shard: the one durable door. Formats of entries and groups; the driver over the ring file follows.
//!
//! What callers will see of the driver, all on the shard's own thread:
//! ```ignore
//! journal.check_room(payload_bytes) -> Result<(), JournalError>            // before assigning offsets; an append straight after it cannot be refused
//! journal.append(&EntryHeader, &[&[u8]]) -> Result<Written, JournalError>  // synchronous; Written { sequence: GroupSequence, bytes: Bytes }
//! journal.wait_for_room(payload_bytes).await -> Result<Room, JournalError> // first in, first out; then room.enter(|| partition.append(..)), without an await between
//! journal.durable_sequence() -> GroupSequence                              // everything up to here is on stable storage
//! journal.wait_durable(sequence).await -> Result<(), JournalError>
//! journal.on_durable(Box<dyn FnMut(GroupSequence)>)                        // called in order, once for each advance, before the waiters of that sequence run
//! ```

use std::fmt;
use std::path::PathBuf;

pub mod entry;
pub mod group;
pub mod replay;
pub mod ring;

use bytes::Bytes;

pub use entry::{Entry, EntryHeader, EntryKind};
pub use group::GroupSequence;

/// An entry that was taken into the open group: durable once the journal's durable sequence has reached its group.
#[derive(Clone, Debug)]
pub struct Written {
    pub sequence: GroupSequence,
    /// The payload in the group's own memory; tail cache, sends and placement share it.
    pub bytes: Bytes,
}

/// Why the journal did not take an entry, or does not make it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The ring is full until placement has emptied a part of it, or others wait before the caller. Nothing was taken; `wait_for_room` says when to come again.
    Full,
    /// The payload can never fit into the ring. Nothing was taken.
    TooLarge { payload_bytes: usize, payload_bytes_max: usize },
    /// A write or flush failed earlier; it is not retried, and nothing more is taken or acknowledged until a restart has recovered.
    Failed { path: PathBuf, cause: String },
}

impl fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(formatter, "the journal is full until placement has emptied a part of it"),
            Self::TooLarge { payload_bytes, payload_bytes_max } => {
                write!(formatter, "{payload_bytes} bytes do not fit into the journal, which takes at most {payload_bytes_max} at once")
            }
            Self::Failed { path, cause } => write!(formatter, "{} takes no more writes until a restart: {cause}", path.display()),
        }
    }
}

impl std::error::Error for JournalError {}
