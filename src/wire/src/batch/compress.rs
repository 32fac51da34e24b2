//! Compression of records, fed slice by slice.

use std::fmt;
use std::io::{self, Write};

use super::header::Compression;
use super::snappy::{XERIAL_BLOCK_BYTES, XERIAL_HEADER};

/// Compresses what is written to it into one buffer, behind whatever that buffer held before (the place of a batch's header).
///
/// The formats are those that every client reads: gzip, snappy in xerial's framing with blocks of 32 KiB, lz4 frames of independent blocks of 64 KiB, zstd.
pub struct Compressor {
    stream: Stream,
}

enum Stream {
    None(Vec<u8>),
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Snappy(Box<Snappy>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

struct Snappy {
    output: Vec<u8>,
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl Compressor {
    /// `level` is that of the codec, `None` its default: gzip 1 to 9, zstd below 0 to 22. Snappy has none, and lz4 always compresses fast.
    pub fn new(compression: Compression, level: Option<i32>, output: Vec<u8>) -> Result<Compressor, CompressError> {
        let stream = match compression {
            Compression::None => Stream::None(output),
            Compression::Gzip => {
                let level =
                    level.and_then(|level| u32::try_from(level).ok()).map_or(flate2::Compression::default(), flate2::Compression::new);
                Stream::Gzip(Box::new(flate2::write::GzEncoder::new(output, level)))
            }
            Compression::Snappy => {
                let mut output = output;
                output.extend_from_slice(&XERIAL_HEADER);
                Stream::Snappy(Box::new(Snappy { output, block: Vec::new(), encoder: snap::raw::Encoder::new() }))
            }
            Compression::Lz4 => {
                let mut info = lz4_flex::frame::FrameInfo::new();
                info.block_size = lz4_flex::frame::BlockSize::Max64KB;
                info.block_mode = lz4_flex::frame::BlockMode::Independent;
                Stream::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(info, output)))
            }
            Compression::Zstd => {
                let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                Stream::Zstd(Box::new(zstd::stream::write::Encoder::new(output, level).map_err(CompressError)?))
            }
        };
        Ok(Compressor { stream })
    }

    /// Compresses the next slice.
    pub fn write(&mut self, slice: &[u8]) -> Result<(), CompressError> {
        match &mut self.stream {
            Stream::None(output) => {
                output.extend_from_slice(slice);
                Ok(())
            }
            Stream::Gzip(encoder) => encoder.write_all(slice).map_err(CompressError),
            Stream::Snappy(snappy) => snappy.write(slice),
            Stream::Lz4(encoder) => encoder.write_all(slice).map_err(CompressError),
            Stream::Zstd(encoder) => encoder.write_all(slice).map_err(CompressError),
        }
    }

    /// Bytes in the buffer so far; what the codec still holds back comes on top.
    pub fn output_bytes(&self) -> usize {
        match &self.stream {
            Stream::None(output) => output.len(),
            Stream::Gzip(encoder) => encoder.get_ref().len(),
            Stream::Snappy(snappy) => snappy.output.len(),
            Stream::Lz4(encoder) => encoder.get_ref().len(),
            Stream::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Ends the stream and gives the buffer back.
    pub fn finish(self) -> Result<Vec<u8>, CompressError> {
        match self.stream {
            Stream::None(output) => Ok(output),
            Stream::Gzip(encoder) => encoder.finish().map_err(CompressError),
            Stream::Snappy(mut snappy) => {
                if !snappy.block.is_empty() {
                    snappy.write_block()?;
                }
                Ok(snappy.output)
            }
            Stream::Lz4(encoder) => encoder.finish().map_err(|error| CompressError(io::Error::other(error))),
            Stream::Zstd(encoder) => encoder.finish().map_err(CompressError),
        }
    }
}

impl Snappy {
    fn write(&mut self, mut slice: &[u8]) -> Result<(), CompressError> {
        while !slice.is_empty() {
            let (part, rest) = slice.split_at(slice.len().min(XERIAL_BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(part);
            slice = rest;
            if self.block.len() == XERIAL_BLOCK_BYTES {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), CompressError> {
        let start = self.output.len() + 4;
        self.output.resize(start + snap::raw::max_compress_len(self.block.len()), 0);
        let length =
            self.encoder.compress(&self.block, &mut self.output[start..]).map_err(|error| CompressError(io::Error::other(error)))?;
        self.output.truncate(start + length);
        self.output[start - 4..start].copy_from_slice(&(length as i32).to_be_bytes());
        self.block.clear();
        Ok(())
    }
}

/// A codec failed: it had no memory, or was given a level that it does not know.
#[derive(Debug)]
pub struct CompressError(pub io::Error);

impl fmt::Display for CompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot compress: {}", self.0)
    }
}

impl std::error::Error for CompressError {}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}
