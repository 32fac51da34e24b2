//! One file in `journal.dir` says which journals and checkpoints belong together: the life. Replacing it is the one step by which a recovery counts.
//!
//! A life is what lies between two starts. Each shard's journal gets a new id in it, so that groups and checkpoints of the life before are nobody's from that step on; until then
//! they are all there, and a recovery that is cut short is simply done again. The file is text, so that a person can read it:
//!
//! ```text
//! version 1
//! set 6f9c...                     drawn when the first journals were made; each data directory names it while the journals may hold what it lacks
//! clean no                        yes from a clean stop to the next start: the journals hold nothing
//! journal 0 <ring id> <journal id>
//! marker <directory id> <nanoseconds>    when `.kafka_cleanshutdown` was written into that data directory at the last clean stop
//! crc 1c291ca3
//! ```

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{RecoveryError, read_text_blocking};
use crate::disk::directories::write_small_file_blocking;

const FILE_NAME: &str = "corelane-journals";
const VERSION: &str = "version 1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub set_id: Uuid,
    pub is_clean: bool,
    /// By shard.
    pub journals: Vec<LifeJournal>,
    pub markers: Vec<CleanMarker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeJournal {
    /// The ring file; nil where none is needed yet.
    pub ring_id: Uuid,
    pub journal_id: Uuid,
}

/// A `.kafka_cleanshutdown` of ours. If another broker works on the directory it removes the file, or leaves one with another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanMarker {
    pub directory_id: Uuid,
    pub modified_ns: i64,
}

impl Life {
    pub fn path(journal_directory: &Path) -> PathBuf {
        journal_directory.join(FILE_NAME)
    }

    /// None where there has been no life yet.
    pub fn read_blocking(journal_directory: &Path) -> Result<Option<Self>, RecoveryError> {
        let path = Self::path(journal_directory);
        match read_text_blocking(&path)? {
            None => Ok(None),
            Some(text) => Self::decode(&text).map(Some).ok_or(RecoveryError::LifeDamaged { path }),
        }
    }

    pub fn replace_blocking(&self, journal_directory: &Path) -> Result<(), RecoveryError> {
        Ok(write_small_file_blocking(journal_directory, FILE_NAME, &self.encode())?)
    }

    pub fn marker_of(&self, directory_id: Uuid) -> Option<CleanMarker> {
        self.markers.iter().copied().find(|marker| marker.directory_id == directory_id)
    }

    fn encode(&self) -> String {
        let mut text = format!("{VERSION}\nset {}\nclean {}\n", self.set_id, if self.is_clean { "yes" } else { "no" });
        for (shard, journal) in self.journals.iter().enumerate() {
            text.push_str(&format!("journal {shard} {} {}\n", journal.ring_id, journal.journal_id));
        }
        for marker in &self.markers {
            text.push_str(&format!("marker {} {}\n", marker.directory_id, marker.modified_ns));
        }
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("crc {crc:08x}\n"));
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let crc_at = text.rfind("crc ")?;
        let crc = u32::from_str_radix(text[crc_at + 4..].trim_end(), 16).ok()?;
        let body = &text[..crc_at];
        if crc != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let mut life = Self { set_id: Uuid::nil(), is_clean: false, journals: Vec::new(), markers: Vec::new() };
        for line in lines {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields[..] {
                ["set", id] => life.set_id = id.parse().ok()?,
                ["clean", answer] => life.is_clean = answer == "yes",
                ["journal", shard, ring_id, journal_id] => {
                    let is_next = shard.parse::<usize>().ok()? == life.journals.len();
                    let journal = LifeJournal { ring_id: ring_id.parse().ok()?, journal_id: journal_id.parse().ok()? };
                    is_next.then(|| life.journals.push(journal))?;
                }
                ["marker", directory_id, modified_ns] => {
                    life.markers.push(CleanMarker { directory_id: directory_id.parse().ok()?, modified_ns: modified_ns.parse().ok()? });
                }
                _ => return None,
            }
        }
        Some(life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_reads_back_and_any_changed_byte_is_seen() {
        let journal = |number| LifeJournal { ring_id: Uuid::from_u128(number), journal_id: Uuid::from_u128(number + 100) };
        let life = Life {
            set_id: Uuid::from_u128(1),
            is_clean: true,
            journals: vec![journal(2), journal(3)],
            markers: vec![CleanMarker { directory_id: Uuid::from_u128(9), modified_ns: 1_700_000_000_123_456_789 }],
        };
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Life::read_blocking(directory.path()).unwrap(), None);
        life.replace_blocking(directory.path()).unwrap();
        assert_eq!(Life::read_blocking(directory.path()).unwrap(), Some(life.clone()));

        let text = life.encode();
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let decoded = String::from_utf8(damaged).ok().and_then(|text| Life::decode(&text));
            assert_eq!(decoded, None, "byte {at}");
        }
    }
}
