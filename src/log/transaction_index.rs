//! The transaction index of a segment: the aborted transactions whose marker lies in it. A read_committed fetch tells its client which records to leave out.
//!
//! Kafka's `.txnindex`: entries of 34 bytes, big-endian: version i16 (0), producer id, first offset, last offset (the marker's), and the last stable offset when the marker was
//! written. Entries are in the order of their markers. A segment without an abort has no file.

use bytes::{Buf, BufMut};

use super::producer_state::CompletedTransaction;

pub const ABORTED_TRANSACTION_BYTES: usize = 34;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The marker's offset.
    pub last_offset: i64,
    pub last_stable_offset: i64,
}

impl AbortedTransaction {
    pub fn from_completed(completed: &CompletedTransaction) -> Option<Self> {
        completed.is_aborted.then_some(Self {
            producer_id: completed.producer_id,
            first_offset: completed.first_offset,
            last_offset: completed.last_offset,
            last_stable_offset: completed.last_stable_offset,
        })
    }

    pub fn encode(&self, into: &mut Vec<u8>) {
        into.put_i16(0);
        into.put_i64(self.producer_id);
        into.put_i64(self.first_offset);
        into.put_i64(self.last_offset);
        into.put_i64(self.last_stable_offset);
    }

    /// Takes one entry off the front; None if it is cut or of an unknown version.
    pub fn decode(from: &mut impl Buf) -> Option<Self> {
        if from.remaining() < ABORTED_TRANSACTION_BYTES || from.get_i16() != 0 {
            return None;
        }
        Some(Self {
            producer_id: from.get_i64(),
            first_offset: from.get_i64(),
            last_offset: from.get_i64(),
            last_stable_offset: from.get_i64(),
        })
    }
}

/// The entries of a file, up to the first that is cut, of an unknown version or not behind the one before it.
pub fn decode(bytes: &[u8]) -> Vec<AbortedTransaction> {
    let mut entries: Vec<AbortedTransaction> = Vec::with_capacity(bytes.len() / ABORTED_TRANSACTION_BYTES);
    for mut entry in bytes.chunks_exact(ABORTED_TRANSACTION_BYTES) {
        match AbortedTransaction::decode(&mut entry) {
            Some(transaction) if entries.last().is_none_or(|last| last.last_offset < transaction.last_offset) => entries.push(transaction),
            _ => break,
        }
    }
    entries
}

/// The transactions of one segment that overlap [from, upper_bound), and whether no later segment can hold another one: every transaction that began below an entry's last
/// stable offset is decided at that entry.
pub fn overlapping(entries: &[AbortedTransaction], from: i64, upper_bound: i64) -> (Vec<AbortedTransaction>, bool) {
    let mut found = Vec::new();
    for entry in entries {
        if entry.last_offset >= from && entry.first_offset < upper_bound {
            found.push(*entry);
        }
        if entry.last_stable_offset >= upper_bound {
            return (found, true);
        }
    }
    (found, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64, last_stable_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset }
    }

    #[test]
    fn entries_read_back_up_to_the_first_damaged_one() {
        let mut bytes = Vec::new();
        let entries = [aborted(1, 0, 10, 5), aborted(2, 5, 20, 21)];
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        assert_eq!(bytes.len(), 68);
        bytes.extend_from_slice(&[0; 50]);
        assert_eq!(decode(&bytes), entries);
    }

    #[test]
    fn a_fetch_gets_the_aborts_that_overlap_it() {
        let entries = [aborted(1, 0, 10, 5), aborted(2, 5, 20, 21), aborted(3, 30, 40, 41)];
        assert_eq!(overlapping(&entries, 11, 15), (vec![entries[1]], true));
        assert_eq!(overlapping(&entries, 0, 6), (vec![entries[0], entries[1]], true));
        assert_eq!(overlapping(&entries, 25, 100), (vec![entries[2]], false));
    }
}
