//! The last step of whoever writes a batch anew: its header, and the checksum over all of it, slice by slice.

use bytes::Bytes;

use super::Progress;
use super::checksum::Crc32c;
use super::header::{BatchHeader, HEADER_BYTES, set_crc};

/// A batch whose header is new, and with it the checksum; its records may be new as well.
#[derive(Debug)]
pub struct Sealing {
    header: BatchHeader,
    /// The new batch as far as it is written; whole if the records are new.
    bytes: Vec<u8>,
    /// The batch as it came, for records that are only copied.
    source: Bytes,
    summed_to: usize,
    crc: Crc32c,
}

impl Sealing {
    /// `bytes` begins with the place of the header; what it lacks of the batch is at the same place in `source`.
    pub fn new(header: BatchHeader, mut bytes: Vec<u8>, source: Bytes) -> Sealing {
        header.write(&mut bytes[..HEADER_BYTES]);
        Sealing { summed_to: header.crc_range().start, header, bytes, source, crc: Crc32c::new() }
    }

    /// Copies and sums at most `work_bytes`, and takes off what it has done.
    pub fn step(&mut self, work_bytes: &mut usize) -> Progress {
        let size_bytes = self.header.size_bytes();
        let end = size_bytes.min(self.summed_to + *work_bytes);
        if self.bytes.len() < end {
            self.bytes.extend_from_slice(&self.source[self.bytes.len()..end]);
        }
        self.crc.update(&self.bytes[self.summed_to..end]);
        *work_bytes -= end - self.summed_to;
        self.summed_to = end;
        if end < size_bytes { Progress::More } else { Progress::Done }
    }

    /// The batch, when all steps are done.
    pub fn finish(mut self) -> Bytes {
        assert_eq!(self.summed_to, self.header.size_bytes(), "a checksum covers the whole batch");
        set_crc(&mut self.bytes, self.crc.value());
        Bytes::from(self.bytes)
    }

    /// All steps at once, for small batches and where nobody waits.
    pub fn run(mut self) -> Bytes {
        let mut work_bytes = self.header.size_bytes();
        assert_eq!(self.step(&mut work_bytes), Progress::Done);
        self.finish()
    }
}
