//! What reaches storage: journal, placement, checkpoint, recovery, tail cache, reader, files and directories.

pub mod checkpoint;
pub mod journal;
pub mod placement;
pub mod recovery;
