//! What reaches storage: journal, placement, checkpoint, recovery, tail cache, reader, files and directories.

pub mod checkpoint;
pub mod compacted_segment;
pub mod directories;
pub mod graveyard;
pub mod index_files;
pub mod journal;
pub mod placement;
pub mod producers;
pub mod reader;
pub mod recovery;
pub mod segment_files;
pub mod slow;
pub mod tail;
pub mod trace;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
