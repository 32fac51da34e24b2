//! Files that are measured: opened past the page cache, their blocks written, allocated or absent.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use corelane::rt::buffer::AlignedBuffer;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

const CHUNK_BYTES: u64 = 1 << 20;

/// Opens past the page cache (O_DIRECT) to read and write.
pub fn open_direct(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).custom_flags(OFlags::DIRECT.bits() as i32).open(path)
}

/// A file of that size, every block of it written once and flushed. One that an earlier call has finished is taken as it is.
pub fn written_file(path: &Path, bytes: u64) -> io::Result<File> {
    if !path.metadata().is_ok_and(|metadata| metadata.len() == bytes) {
        let unfinished = path.with_extension("unfinished");
        let file = open_direct(&unfinished)?;
        file.set_len(0)?;
        write_in_full(&file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
    }
    open_direct(path)
}

/// A file of that size whose blocks belong to it but were never written.
pub fn allocated_file(path: &Path, bytes: u64) -> io::Result<File> {
    let file = fresh_file(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// A file without any block.
pub fn fresh_file(path: &Path) -> io::Result<File> {
    let file = open_direct(path)?;
    file.set_len(0)?;
    file.sync_all()?;
    Ok(file)
}

fn write_in_full(file: &File, bytes: u64) -> io::Result<()> {
    let mut chunk = AlignedBuffer::zeroed(CHUNK_BYTES as usize);
    chunk.fill(0x5A);
    for position in (0..bytes).step_by(CHUNK_BYTES as usize) {
        file.write_all_at(&chunk[..CHUNK_BYTES.min(bytes - position) as usize], position)?;
    }
    Ok(())
}
