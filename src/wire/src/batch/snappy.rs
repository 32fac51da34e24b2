//! Snappy, in both shapes that producers send: one raw block (librdkafka, franz-go, Sarama's default), or the framing of xerial's snappy-java: a header of 16 bytes (magic,
//! version, lowest compatible version), then blocks with an int32 length before each.
//!
//! A raw block names its decompressed length and nothing else bounds it, so a large one is decoded by a machine that stops after every slice. Small blocks, as xerial's
//! framing has them, go through the `snap` crate at once.

use bytes::{Buf, Bytes};

use super::SLICE_BYTES;
use super::decompress::DecompressError;

/// Header of the xerial framing: magic, version 1, lowest compatible version 1.
pub(super) const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC_BYTES: usize = 8;
/// Uncompressed bytes of a block, as snappy-java cuts them.
pub(super) const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// The blocks of a snappy-compressed batch, one after the other.
#[derive(Debug)]
pub(super) struct SnappyStream {
    rest: Bytes,
    framed: bool,
    block: Option<Block>,
}

impl SnappyStream {
    pub(super) fn new(input: Bytes) -> SnappyStream {
        let framed = input.len() >= XERIAL_HEADER.len() && input[..XERIAL_MAGIC_BYTES] == XERIAL_HEADER[..XERIAL_MAGIC_BYTES];
        let mut rest = input;
        if framed {
            rest.advance(XERIAL_HEADER.len());
        }
        SnappyStream { rest, framed, block: None }
    }

    /// Appends the next slice to `output`; false at the end. A block that announces more than `output_bytes_max` is refused before it is decoded.
    pub(super) fn step(&mut self, output: &mut Vec<u8>, output_bytes_max: usize) -> Result<bool, DecompressError> {
        if self.block.is_none() {
            let Some(input) = self.next_block()? else { return Ok(false) };
            let decompressed_bytes = announced_length(&input)?;
            if decompressed_bytes > output_bytes_max {
                return Err(DecompressError::TooLarge);
            }
            if decompressed_bytes <= SLICE_BYTES {
                decompress_small(&input, decompressed_bytes, output)?;
                return Ok(true);
            }
            self.block = Some(Block::new(input)?);
        }
        if let Some(block) = &mut self.block
            && !block.step(output)?
        {
            self.block = None;
        }
        Ok(true)
    }

    fn next_block(&mut self) -> Result<Option<Bytes>, DecompressError> {
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.rest)).filter(|block| !block.is_empty()));
        }
        // Streams may be concatenated: then a header stands where a block's length is expected.
        if self.rest.len() >= XERIAL_HEADER.len() && self.rest.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
            self.rest.advance(XERIAL_HEADER.len());
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.rest.len() < 4 {
            return Err(DecompressError::Corrupt("snappy frame cut off"));
        }
        let length = self.rest.get_i32();
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(Some(self.rest.split_to(length))),
            _ => Err(DecompressError::Corrupt("snappy block longer than the batch")),
        }
    }
}

fn decompress_small(input: &[u8], decompressed_bytes: usize, output: &mut Vec<u8>) -> Result<(), DecompressError> {
    let start = output.len();
    output.resize(start + decompressed_bytes, 0);
    match snap::raw::Decoder::new().decompress(input, &mut output[start..]) {
        Ok(length) if length == decompressed_bytes => Ok(()),
        _ => Err(DecompressError::Corrupt("snappy block is damaged")),
    }
}

fn announced_length(block: &Bytes) -> Result<usize, DecompressError> {
    read_length(&mut block.clone())
}

/// One raw block under way.
#[derive(Debug)]
struct Block {
    input: Bytes,
    decompressed_bytes: usize,
    /// Everything decoded so far: copies may reach back to the block's first byte.
    history: Vec<u8>,
    given: usize,
    pending: Pending,
}

/// The rest of an element that did not fit into the slice.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Nothing,
    Literal { left: usize },
    Copy { distance: usize, left: usize },
}

impl Block {
    fn new(mut input: Bytes) -> Result<Block, DecompressError> {
        let decompressed_bytes = read_length(&mut input)?;
        Ok(Block { input, decompressed_bytes, history: Vec::new(), given: 0, pending: Pending::Nothing })
    }

    /// Appends the next slice; false once the block is complete.
    fn step(&mut self, output: &mut Vec<u8>) -> Result<bool, DecompressError> {
        let target = self.decompressed_bytes.min(self.given + SLICE_BYTES);
        while self.history.len() < target {
            self.element(target - self.history.len())?;
        }
        output.extend_from_slice(&self.history[self.given..]);
        self.given = self.history.len();
        if self.given < self.decompressed_bytes {
            return Ok(true);
        }
        match (self.pending, self.input.is_empty()) {
            (Pending::Nothing, true) => Ok(false),
            _ => Err(DecompressError::Corrupt("snappy block longer than announced")),
        }
    }

    /// Decodes one element, or as much of it as `room` allows.
    fn element(&mut self, room: usize) -> Result<(), DecompressError> {
        self.pending = match self.pending {
            Pending::Nothing => self.tag()?,
            Pending::Literal { left } => {
                let taken = left.min(room);
                if taken > self.input.len() {
                    return Err(DecompressError::Corrupt("snappy literal cut off"));
                }
                self.history.extend_from_slice(&self.input[..taken]);
                self.input.advance(taken);
                if taken < left { Pending::Literal { left: left - taken } } else { Pending::Nothing }
            }
            Pending::Copy { distance, left } => {
                // A copy may overlap what it writes: then it repeats its own output, `distance` bytes at a time.
                let taken = left.min(room).min(distance);
                let start = self.history.len() - distance;
                self.history.extend_from_within(start..start + taken);
                if taken < left { Pending::Copy { distance, left: left - taken } } else { Pending::Nothing }
            }
        };
        Ok(())
    }

    /// The next element: two bits of kind, then length and distance in one of four shapes.
    fn tag(&mut self) -> Result<Pending, DecompressError> {
        let cut_off = DecompressError::Corrupt("snappy block cut off");
        if self.input.is_empty() {
            return Err(cut_off);
        }
        let tag = usize::from(self.input.get_u8());
        let extra_bytes = match tag & 3 {
            0 => (tag >> 2).saturating_sub(59),
            1 => 1,
            2 => 2,
            _ => 4,
        };
        if self.input.len() < extra_bytes {
            return Err(cut_off);
        }
        let extra = if extra_bytes == 0 { 0 } else { self.input.get_uint_le(extra_bytes) as usize };
        let (distance, left) = match tag & 3 {
            0 if extra_bytes == 0 => return Ok(Pending::Literal { left: (tag >> 2) + 1 }),
            0 => return Ok(Pending::Literal { left: extra + 1 }),
            1 => ((tag >> 5) << 8 | extra, 4 + (tag >> 2 & 7)),
            _ => (extra, 1 + (tag >> 2)),
        };
        if distance == 0 || distance > self.history.len() {
            return Err(DecompressError::Corrupt("snappy copy from before the block"));
        }
        Ok(Pending::Copy { distance, left })
    }
}

/// The decompressed length in front of a raw block: an unsigned varint of at most 32 bits.
fn read_length(input: &mut Bytes) -> Result<usize, DecompressError> {
    let mut length = 0u64;
    for shift in (0..35).step_by(7) {
        if input.is_empty() {
            break;
        }
        let byte = input.get_u8();
        length |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let length = u32::try_from(length).map_err(|_| DecompressError::Corrupt("snappy length too long"))?;
            return Ok(length as usize);
        }
    }
    Err(DecompressError::Corrupt("snappy length cut off or too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(input: &[u8]) -> Result<Vec<u8>, DecompressError> {
        let mut stream = SnappyStream::new(Bytes::copy_from_slice(input));
        let mut output = Vec::new();
        while stream.step(&mut output, 1 << 24)? {}
        Ok(output)
    }

    /// Our own decoder, also for blocks that would go to the `snap` crate.
    fn decompress_in_slices(block: &[u8]) -> Result<Vec<u8>, DecompressError> {
        let mut block = Block::new(Bytes::copy_from_slice(block))?;
        let mut output = Vec::new();
        while block.step(&mut output)? {}
        Ok(output)
    }

    /// A raw block that ends exactly at, one below and one above a slice agrees with the reference implementation.
    #[test]
    fn large_blocks_come_out_in_slices() {
        for size in [0, 1, 60, 61, 300, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 5 * SLICE_BYTES + 7] {
            let text: Vec<u8> = (0..size).map(|index| (index * index / 977 % 251) as u8).collect();
            let block = snap::raw::Encoder::new().compress_vec(&text).unwrap();
            assert_eq!(decompress(&block).as_ref(), Ok(&text), "{size} bytes");
            assert_eq!(decompress_in_slices(&block), Ok(text), "{size} bytes");
        }
    }

    /// Framed blocks, and two streams one behind the other, as snappy-java reads them.
    #[test]
    fn xerial_streams_are_read() {
        let block = snap::raw::Encoder::new().compress_vec(b"hello").unwrap();
        let mut stream = XERIAL_HEADER.to_vec();
        stream.extend_from_slice(&(block.len() as i32).to_be_bytes());
        stream.extend_from_slice(&block);
        assert_eq!(decompress(&stream), Ok(b"hello".to_vec()));
        assert_eq!(decompress(&[stream.clone(), stream].concat()), Ok(b"hellohello".to_vec()));
        assert_eq!(decompress(&XERIAL_HEADER), Ok(Vec::new()));
    }

    /// Elements that no good encoder writes are refused, by our decoder as by the crate.
    #[test]
    fn broken_blocks_are_refused() {
        let cases: [(&[u8], &str); 5] = [
            (&[5, 0], "literal cut off"),
            (&[5, 240], "length of a literal cut off"),
            (&[4, 0, b'x', 1, 0], "distance 0"),
            (&[4, 0, b'x', 1, 9], "before the block"),
            (&[1, 4, b'x', b'y'], "more than announced"),
        ];
        for (block, what) in cases {
            assert!(decompress(block).is_err(), "{what}");
            assert!(decompress_in_slices(block).is_err(), "{what}");
        }
        assert_eq!(decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(DecompressError::TooLarge));
        assert!(decompress(&[0xff, 0xff, 0xff, 0xff, 0x1f]).is_err());
    }
}
