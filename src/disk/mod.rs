//! What reaches storage: journal, placement, checkpoint, recovery, tail cache, reader, files and directories.
