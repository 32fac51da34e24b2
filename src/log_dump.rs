//! `corelane log dump`: files of partitions as text, as kafka-dump-log prints them. Nothing is changed, and the broker may run.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use corelane::disk::journal::group::BLOCK_BYTES;
use corelane::log::dump::{self, DumpOptions};
use corelane::log::file_names::LogFileKind;
use corelane_wire::batch::{BatchHeader, HEADER_BYTES};

use crate::command::DumpArguments;
use crate::{log_journal, output};

/// A batch larger than this cannot be in a segment.
pub const BATCH_BYTES_MAX: usize = i32::MAX as usize;

/// Prints every file that is named; a file that cannot be read ends it.
pub fn run(arguments: &DumpArguments) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for path in arguments.paths() {
        let dumped = dump(&path, arguments, &mut out).and_then(|()| out.flush());
        match dumped {
            Ok(()) => {}
            // A reader that has seen enough (`| head`) is no failure.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => return output::refuse(&format!("{}: {error}", path.display())),
        }
    }
    ExitCode::SUCCESS
}

fn dump(path: &Path, arguments: &DumpArguments, out: &mut impl Write) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(shard) = log_journal::shard_of(&name) {
        writeln!(out, "Dumping {}", path.display())?;
        return log_journal::dump(path, shard, &arguments.options(), out);
    }
    let kind = kind_of(&name);
    let Some((kind, base_offset)) = kind else {
        return Err(io::Error::other("neither a segment nor an index, a producer snapshot, a metadata snapshot or a journal, by its name"));
    };
    writeln!(out, "Dumping {}", path.display())?;
    match kind {
        Kind::Batches => {
            writeln!(out, "Log starting offset: {base_offset}")?;
            dump_batches(path, arguments, out)
        }
        Kind::File(kind) => {
            let bytes = std::fs::read(path)?;
            let lines = match kind {
                LogFileKind::OffsetIndex => dump::offset_index_lines(base_offset, &bytes),
                LogFileKind::TimeIndex => dump::time_index_lines(base_offset, &bytes),
                LogFileKind::TransactionIndex => dump::transaction_index_lines(&bytes),
                _ => dump::snapshot_lines(&bytes).map_err(io::Error::other)?,
            };
            if lines.is_empty() && matches!(kind, LogFileKind::OffsetIndex | LogFileKind::TimeIndex) {
                writeln!(out, "{} is empty.", path.display())?;
            }
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))
        }
    }
}

enum Kind {
    Batches,
    File(LogFileKind),
}

/// A metadata snapshot `<offset>-<epoch>.checkpoint` holds batches as a segment does.
fn kind_of(name: &str) -> Option<(Kind, i64)> {
    if let Some(stem) = name.strip_suffix(".checkpoint") {
        let (offset, _epoch) = stem.split_once('-')?;
        return Some((Kind::Batches, offset.parse().ok()?));
    }
    let (kind, offset) = LogFileKind::parse(name)?;
    Some((if kind == LogFileKind::Log { Kind::Batches } else { Kind::File(kind) }, offset))
}

fn dump_batches(path: &Path, arguments: &DumpArguments, out: &mut impl Write) -> io::Result<()> {
    let options = arguments.options();
    let mut batches = Batches::open(path)?;
    while batches.position < arguments.max_bytes {
        let position = batches.position;
        match batches.read_next()? {
            Next::Batch(header, batch) => {
                writeln!(out, "{}", dump::batch_line(&header, position, header.check_crc(&batch).is_ok()))?;
                print_records(&header, &batch, &options, out)?;
            }
            Next::End { bytes_left: 0, .. } => return Ok(()),
            Next::End { bytes_left, reason, .. } => {
                return writeln!(out, "Found {bytes_left} invalid bytes at the end of {}: {reason}", path.display());
            }
        }
    }
    Ok(())
}

fn print_records(header: &BatchHeader, batch: &Bytes, options: &DumpOptions, out: &mut impl Write) -> io::Result<()> {
    if !options.records {
        return Ok(());
    }
    match dump::record_lines(header, batch, options) {
        Ok(lines) => lines.iter().try_for_each(|line| writeln!(out, "{line}")),
        Err(error) => writeln!(out, "| not readable: {error}"),
    }
}

/// The batches of a segment's file, one after the other.
pub struct Batches {
    reader: BufReader<File>,
    length: u64,
    /// Where the next batch begins.
    pub position: u64,
}

/// What a segment goes on with.
pub enum Next {
    Batch(BatchHeader, Bytes),
    /// No further batch; what is left of the file is none.
    End {
        bytes_left: u64,
        reason: String,
        /// As behind the last batch of a log that is written to: less than a block, and all of it zeros.
        is_prepared: bool,
    },
}

impl Batches {
    pub fn open(path: &Path) -> io::Result<Batches> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Batches { reader: BufReader::with_capacity(1 << 20, file), length, position: 0 })
    }

    pub fn read_next(&mut self) -> io::Result<Next> {
        let bytes_left = self.length - self.position;
        let end = |reason: String| Ok(Next::End { bytes_left, reason, is_prepared: false });
        if bytes_left == 0 {
            return end(String::new());
        }
        let mut head = vec![0; HEADER_BYTES.min(bytes_left as usize)];
        self.reader.read_exact(&mut head)?;
        if is_zero(&head) {
            return self.end_with_zeros(bytes_left);
        }
        let header = match BatchHeader::parse(&head) {
            Ok(header) => header,
            Err(error) => return end(error.to_string()),
        };
        let size_bytes = header.size_bytes();
        if size_bytes as u64 > bytes_left || size_bytes > BATCH_BYTES_MAX {
            return end(format!("a batch of {size_bytes} bytes is cut short"));
        }
        head.resize(size_bytes, 0);
        self.reader.read_exact(&mut head[HEADER_BYTES..])?;
        self.position += size_bytes as u64;
        Ok(Next::Batch(header, Bytes::from(head)))
    }

    /// What begins with zeros is the end of a log that is written to, or a hole in it.
    fn end_with_zeros(&mut self, bytes_left: u64) -> io::Result<Next> {
        let mut rest = Vec::new();
        let is_short = bytes_left < BLOCK_BYTES as u64;
        if is_short {
            self.reader.by_ref().take(bytes_left).read_to_end(&mut rest)?;
        }
        let is_prepared = is_short && is_zero(&rest);
        let reason = if is_prepared { "zeros, as behind the end of a log that is written to" } else { "zeros where a batch should be" };
        Ok(Next::End { bytes_left, reason: reason.to_owned(), is_prepared })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(content: &[u8]) -> (u64, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        match Batches::open(file.path()).unwrap().read_next().unwrap() {
            Next::End { bytes_left, is_prepared, .. } => (bytes_left, is_prepared),
            Next::Batch(..) => panic!("there is no batch"),
        }
    }

    /// Zeros end a log only where nothing comes after them, and where placement would have put them.
    #[test]
    fn a_hole_is_no_end() {
        assert_eq!(end_of(&[0; 40]), (40, true));
        assert_eq!(end_of(&[0; BLOCK_BYTES - 1]), (4095, true));
        assert_eq!(end_of(&[0; BLOCK_BYTES]), (4096, false));
        let mut hole = [0; 900];
        hole[899] = 1;
        assert_eq!(end_of(&hole), (900, false));
    }
}
