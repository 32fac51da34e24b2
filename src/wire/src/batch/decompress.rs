//! Decompression that stops after every slice and at a bound.

use std::fmt;
use std::io::{self, Read};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};

use super::header::Compression;
use super::snappy::SnappyStream;
use super::{Progress, SLICE_BYTES};

/// The records of a compressed batch, slice by slice, as large as the bound at most.
///
/// Each [`step`](Decompressor::step) gives at most [`SLICE_BYTES`]. What it holds besides: the window of gzip (32 KiB) or zstd (as the frame asks, up to 128 MiB, and only the
/// part that was written is backed by memory), a block of lz4 (decoded whole: 64 KiB from most producers, 4 MiB at most), or the block of snappy that is under way.
pub struct Decompressor {
    stream: Stream,
    output_bytes: usize,
    output_bytes_max: usize,
}

enum Stream {
    None(Bytes),
    Gzip(Gzip),
    Snappy(SnappyStream),
    Lz4(Box<lz4_flex::frame::FrameDecoder<Reader<Bytes>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Reader<Bytes>>>),
    Ended,
}

/// A gzip member under way, or what lies behind the last one.
enum Gzip {
    Member(Box<flate2::bufread::GzDecoder<Reader<Bytes>>>),
    Between(Bytes),
}

impl Decompressor {
    /// `input` is what lies behind the batch's header. More than `output_bytes_max` decompressed bytes are an error.
    pub fn new(compression: Compression, input: Bytes, output_bytes_max: usize) -> Result<Decompressor, DecompressError> {
        let stream = match compression {
            Compression::None => Stream::None(input),
            Compression::Gzip => Stream::Gzip(Gzip::Between(input)),
            Compression::Snappy => Stream::Snappy(SnappyStream::new(input)),
            Compression::Lz4 => Stream::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(input.reader()))),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input.reader()).map_err(|_| DecompressError::NoMemory)?;
                Stream::Zstd(Box::new(decoder))
            }
        };
        Ok(Decompressor { stream, output_bytes: 0, output_bytes_max })
    }

    /// Bytes given out so far.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// Replaces the content of `output` by the next slice. It may be empty although more follows.
    pub fn step(&mut self, output: &mut Vec<u8>) -> Result<Progress, DecompressError> {
        output.clear();
        let left = self.output_bytes_max - self.output_bytes;
        let more = match &mut self.stream {
            Stream::None(input) => {
                let slice = input.split_to(input.len().min(SLICE_BYTES));
                output.extend_from_slice(&slice);
                !input.is_empty()
            }
            Stream::Gzip(gzip) => gzip.step(output)?,
            Stream::Snappy(stream) => stream.step(output, left)?,
            Stream::Lz4(decoder) => read_slice(decoder, output)?,
            Stream::Zstd(decoder) => read_slice(decoder, output)?,
            Stream::Ended => false,
        };
        if output.len() > left {
            self.stream = Stream::Ended;
            return Err(DecompressError::TooLarge);
        }
        self.output_bytes += output.len();
        if more {
            return Ok(Progress::More);
        }
        // What the codec holds is let go at once, not when the caller is done.
        self.stream = Stream::Ended;
        Ok(Progress::Done)
    }
}

impl Gzip {
    /// Members may be concatenated. A step ends with the member, so that a batch of thousands of empty members is no long step.
    fn step(&mut self, output: &mut Vec<u8>) -> Result<bool, DecompressError> {
        match self {
            Gzip::Between(input) if input.is_empty() => Ok(false),
            Gzip::Between(input) => {
                *self = Gzip::Member(Box::new(flate2::bufread::GzDecoder::new(std::mem::take(input).reader())));
                Ok(true)
            }
            Gzip::Member(decoder) => {
                if !read_slice(decoder, output)? {
                    let behind = std::mem::take(decoder.get_mut().get_mut());
                    *self = Gzip::Between(behind);
                }
                Ok(true)
            }
        }
    }
}

/// Fills `output` up to a slice; false at the end of the stream.
fn read_slice(decoder: &mut impl Read, output: &mut Vec<u8>) -> Result<bool, DecompressError> {
    output.resize(SLICE_BYTES, 0);
    let result = decoder.read(output);
    output.truncate(*result.as_ref().unwrap_or(&0));
    match result {
        Ok(length) => Ok(length > 0),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(DecompressError::NoMemory),
        Err(_) => Err(DecompressError::Corrupt("the codec refuses the bytes")),
    }
}

/// What a [`Decompressor`] of `input` may hold at a time, by what the codec's own headers ask for; `input` need not be sound.
pub fn working_memory_bytes(compression: Compression, input: &[u8]) -> usize {
    match compression {
        Compression::None => 0,
        Compression::Gzip => GZIP_MEMORY_BYTES,
        // A block is decoded as a stream over the input.
        Compression::Snappy => SLICE_BYTES,
        Compression::Lz4 => lz4_block_bytes(input),
        Compression::Zstd => zstd_window_bytes(input),
    }
}

/// The largest block that an lz4 frame says it has, as it comes and as it is decoded (LZ4 frame format, block descriptor).
fn lz4_block_bytes(input: &[u8]) -> usize {
    const DESCRIPTOR: usize = 5;
    const BLOCK_BYTES_MAX: usize = 4 << 20;
    let size_class = input.get(DESCRIPTOR).map_or(7, |descriptor| (descriptor >> 4) & 7);
    2 * (1usize << (2 * u32::from(size_class) + 8)).min(BLOCK_BYTES_MAX)
}

/// The largest window of the input's zstd frames; the largest that is allowed where there are many frames, or where one is not sound.
fn zstd_window_bytes(input: &[u8]) -> usize {
    let mut largest = 0;
    let mut rest = input;
    for _ in 0..ZSTD_FRAMES_LOOKED_AT {
        if rest.is_empty() {
            return largest;
        }
        let (Some(window), Ok(frame_bytes)) = (zstd_frame_window_bytes(rest), zstd::zstd_safe::find_frame_compressed_size(rest)) else {
            return ZSTD_WINDOW_BYTES_MAX;
        };
        largest = largest.max(window);
        rest = &rest[frame_bytes..];
    }
    ZSTD_WINDOW_BYTES_MAX
}

/// RFC 8878, 3.1.1.1: the window descriptor, or the content's size where a frame is a single segment.
fn zstd_frame_window_bytes(frame: &[u8]) -> Option<usize> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let header = frame.strip_prefix(&MAGIC)?;
    let (descriptor, header) = header.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *header.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return usize::try_from(base + base / 8 * u64::from(window & 7)).ok();
    }
    let dictionary_id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = header.get(dictionary_id_bytes..dictionary_id_bytes + size_bytes)?;
    let size = field.iter().rev().fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    usize::try_from(if size_bytes == 2 { size + 256 } else { size }).ok()
}

/// Window and tables of one gzip member.
const GZIP_MEMORY_BYTES: usize = 64 << 10;

/// What the decoder allows a frame to ask for, as Kafka's does.
const ZSTD_WINDOW_BYTES_MAX: usize = 128 << 20;

/// Frames are few where a producer has made them.
const ZSTD_FRAMES_LOOKED_AT: usize = 16;

/// Everything at once, for batches of our own and for tests: a shard that serves others decompresses in steps.
pub fn decompress_all(compression: Compression, input: Bytes, output_bytes_max: usize) -> Result<Bytes, DecompressError> {
    if compression == Compression::None {
        return if input.len() <= output_bytes_max { Ok(input) } else { Err(DecompressError::TooLarge) };
    }
    let mut decompressor = Decompressor::new(compression, input, output_bytes_max)?;
    let mut slice = Vec::new();
    let mut output = Vec::new();
    loop {
        let progress = decompressor.step(&mut slice)?;
        output.extend_from_slice(&slice);
        if progress == Progress::Done {
            return Ok(Bytes::from(output));
        }
    }
}

/// Why a batch does not decompress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecompressError {
    /// More than the bound that was given.
    TooLarge,
    /// Not what the codec writes.
    Corrupt(&'static str),
    /// The codec could not get the memory for its window.
    NoMemory,
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecompressError::TooLarge => f.write_str("larger than allowed when decompressed"),
            DecompressError::Corrupt(what) => f.write_str(what),
            DecompressError::NoMemory => f.write_str("no memory to decompress"),
        }
    }
}

impl std::error::Error for DecompressError {}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("output_bytes", &self.output_bytes).field("output_bytes_max", &self.output_bytes_max).finish()
    }
}
