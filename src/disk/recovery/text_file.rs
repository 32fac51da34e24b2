//! Small text files that are replaced whole, as Kafka does: written under a passing name, flushed, renamed, and the directory flushed.

use std::path::Path;

use crate::rt::file::{Durability, File, FileError, OpenMode, rename_blocking, sync_directory_blocking};

/// The whole file; none where it does not exist. Bytes that are not UTF-8 become replacement characters, which no parser of ours takes.
pub fn read_text_blocking(path: &Path) -> Result<Option<String>, FileError> {
    let file = match File::open_blocking(path, OpenMode::READ) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.read_at_blocking(file.length()? as usize, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// After a crash at any moment the file has its old content or the new one.
pub fn replace_text_blocking(path: &Path, text: &str) -> Result<(), FileError> {
    let mut passing = path.as_os_str().to_owned();
    passing.push(".tmp");
    let file = File::open_blocking(&passing, OpenMode { truncate: true, ..OpenMode::CREATE })?;
    file.write_at_blocking(text.as_bytes(), 0, Durability::None)?;
    file.sync_all_blocking()?;
    rename_blocking(&passing, path)?;
    sync_directory_blocking(path.parent().expect("a file lies in a directory"))
}
