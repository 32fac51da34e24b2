//! The `records` field of Produce and Fetch: record batches that the codec neither looks into nor copies.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// A piece of a records field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordsPiece {
    Memory(Bytes),
    /// Bytes that are not in memory. The encoder counts their length and leaves a [`crate::Chunk::Deferred`] in their place; who sends the chunks knows what `token` means
    /// (a range of a segment file).
    Deferred {
        token: u64,
        length: u32,
    },
}

impl RecordsPiece {
    pub fn length(&self) -> usize {
        match self {
            RecordsPiece::Memory(bytes) => bytes.len(),
            RecordsPiece::Deferred { length, .. } => *length as usize,
        }
    }
}

/// The content of a `records` field, in pieces. Decoding gives exactly one piece in memory, a slice of the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub pieces: SmallVec<[RecordsPiece; 1]>,
}

impl Records {
    /// Bytes of all pieces together.
    pub fn length(&self) -> usize {
        self.pieces.iter().map(RecordsPiece::length).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.length() == 0
    }

    pub fn push(&mut self, piece: RecordsPiece) {
        self.pieces.push(piece);
    }

    /// What is in memory: the slice itself if it is one piece, else a copy. Deferred pieces are left out.
    pub fn to_bytes(&self) -> Bytes {
        if let [RecordsPiece::Memory(bytes)] = self.pieces.as_slice() {
            return bytes.clone();
        }
        let mut joined = BytesMut::new();
        for piece in &self.pieces {
            if let RecordsPiece::Memory(bytes) = piece {
                joined.extend_from_slice(bytes);
            }
        }
        joined.freeze()
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records { pieces: SmallVec::from_buf([RecordsPiece::Memory(bytes)]) }
    }
}
