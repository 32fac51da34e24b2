//! Record batches of format v2, written and read by a few lines of the tests' own.
//!
//! Independent of the broker's codec on purpose: a mistake made there is not repeated here. And the writer can lie, field by field, where no proper client would.

use std::io::{Read, Write};

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a batch before its records; the batch's length field counts from behind the first twelve.
pub const HEADER_BYTES: usize = 61;
const LENGTH_COUNTS_FROM: usize = 12;
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

pub const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
pub const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
pub const ATTRIBUTE_CONTROL: i16 = 1 << 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    /// As Java writes it: xerial's framing.
    Snappy,
    /// As other clients write it: one raw block.
    RawSnappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 6] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::RawSnappy, Codec::Lz4, Codec::Zstd];

    /// The number in the batch's attributes.
    pub fn number(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy | Codec::RawSnappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    pub fn compress(self, plain: &[u8]) -> Vec<u8> {
        match self {
            Codec::None => plain.to_vec(),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory takes every write")
            }
            Codec::RawSnappy => snap::raw::Encoder::new().compress_vec(plain).expect("within snappy's bound"),
            Codec::Snappy => xerial(plain),
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(plain).expect("memory takes every write");
                encoder.finish().expect("memory takes every write")
            }
            Codec::Zstd => zstd::encode_all(plain, 3).expect("memory takes every write"),
        }
    }
}

const XERIAL_HEADER: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

fn xerial(plain: &[u8]) -> Vec<u8> {
    let mut framed = XERIAL_HEADER.to_vec();
    for block in plain.chunks(32 * 1024) {
        let compressed = snap::raw::Encoder::new().compress_vec(block).expect("within snappy's bound");
        framed.put_u32(compressed.len() as u32);
        framed.extend_from_slice(&compressed);
    }
    framed
}

fn decompress(number: i16, compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match number {
        0 => plain.extend_from_slice(compressed),
        1 => drop(flate2::read::MultiGzDecoder::new(compressed).read_to_end(&mut plain).expect("gzip")),
        2 if compressed.starts_with(&XERIAL_HEADER[..8]) => {
            let mut rest = &compressed[XERIAL_HEADER.len()..];
            while !rest.is_empty() {
                let length = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
                plain.extend(snap::raw::Decoder::new().decompress_vec(&rest[4..4 + length]).expect("snappy"));
                rest = &rest[4 + length..];
            }
        }
        2 => plain = snap::raw::Decoder::new().decompress_vec(compressed).expect("snappy"),
        3 => drop(lz4_flex::frame::FrameDecoder::new(compressed).read_to_end(&mut plain).expect("lz4")),
        4 => plain = zstd::decode_all(compressed).expect("zstd"),
        other => panic!("no codec has the number {other}"),
    }
    plain
}

/// One record, with its absolute timestamp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: i64,
}

pub fn record(key: &str, value: impl AsRef<[u8]>) -> Record {
    Record { key: Some(key.into()), value: Some(value.as_ref().to_vec()), headers: Vec::new(), timestamp: now_ms() }
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    since.as_millis() as i64
}

/// A batch to be written. Fields that are usually derived from the records can be set to something else, and then the batch lies.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: Vec<Record>,
    pub codec: Codec,
    pub base_offset: i64,
    pub magic: i8,
    /// Set in addition to the codec.
    pub attributes: i16,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: Option<i32>,
    pub last_offset_delta: Option<i32>,
    pub max_timestamp: Option<i64>,
    /// Offset deltas of the records, if not 0, 1, 2 and so on.
    pub offset_deltas: Option<Vec<i32>>,
}

impl Batch {
    pub fn of(records: Vec<Record>) -> Batch {
        Batch {
            records,
            codec: Codec::None,
            base_offset: 0,
            magic: 2,
            attributes: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: None,
            last_offset_delta: None,
            max_timestamp: None,
            offset_deltas: None,
        }
    }

    pub fn codec(self, codec: Codec) -> Batch {
        Batch { codec, ..self }
    }

    pub fn producer(self, id: i64, epoch: i16, base_sequence: i32) -> Batch {
        Batch { producer_id: id, producer_epoch: epoch, base_sequence, ..self }
    }

    /// The batch as it goes over the wire.
    pub fn encode(&self) -> Bytes {
        let payload = self.codec.compress(&self.plain_records());
        self.encode_with(&payload)
    }

    /// The batch with something else where its records should be.
    pub fn encode_with(&self, payload: &[u8]) -> Bytes {
        let records = self.records.len() as i32;
        let base_timestamp = self.records.first().map_or(-1, |record| record.timestamp);
        let max_timestamp = self.max_timestamp.unwrap_or_else(|| self.records.iter().map(|record| record.timestamp).max().unwrap_or(-1));
        let mut batch = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        batch.put_i64(self.base_offset);
        batch.put_i32((HEADER_BYTES - LENGTH_COUNTS_FROM + payload.len()) as i32);
        batch.put_i32(-1);
        batch.put_i8(self.magic);
        batch.put_u32(0);
        batch.put_i16(self.attributes | self.codec.number());
        batch.put_i32(self.last_offset_delta.unwrap_or(records - 1));
        batch.put_i64(base_timestamp);
        batch.put_i64(max_timestamp);
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(self.count.unwrap_or(records));
        batch.put_slice(payload);
        seal(&mut batch);
        batch.freeze()
    }

    fn plain_records(&self) -> Vec<u8> {
        let base_timestamp = self.records.first().map_or(-1, |record| record.timestamp);
        let mut plain = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let offset_delta = self.offset_deltas.as_ref().map_or(index as i32, |deltas| deltas[index]);
            let body = record_body(record, record.timestamp - base_timestamp, offset_delta);
            put_varint(&mut plain, body.len() as i64);
            plain.extend_from_slice(&body);
        }
        plain
    }
}

/// Writes the CRC over what it covers.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_COVERS_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

fn record_body(record: &Record, timestamp_delta: i64, offset_delta: i32) -> Vec<u8> {
    let mut body = vec![0];
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, offset_delta.into());
    put_bytes(&mut body, record.key.as_deref());
    put_bytes(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    for (name, content) in &record.headers {
        put_bytes(&mut body, Some(name.as_bytes()));
        put_bytes(&mut body, content.as_deref());
    }
    body
}

fn put_bytes(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(to, bytes.map_or(-1, |bytes| bytes.len() as i64));
    to.extend_from_slice(bytes.unwrap_or_default());
}

fn put_varint(to: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        to.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    to.push(zigzag as u8);
}

/// A batch as it was read.
#[derive(Clone, Debug)]
pub struct ReadBatch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// Each with its offset.
    pub records: Vec<(i64, Record)>,
    pub bytes: Bytes,
}

impl ReadBatch {
    pub fn codec_number(&self) -> i16 {
        self.attributes & 7
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }
}

/// Reads the whole batches of a fetch, each with its CRC checked; a part of one at the end is left out, as clients do.
pub fn read_batches(bytes: &Bytes) -> Vec<ReadBatch> {
    let mut batches = Vec::new();
    let mut rest = bytes.clone();
    while rest.len() > LENGTH_COUNTS_FROM {
        let length = LENGTH_COUNTS_FROM + int32(&rest, 8) as usize;
        if rest.len() < length {
            break;
        }
        batches.push(read_batch(rest.split_to(length)));
    }
    batches
}

/// The records of a fetch with their offsets.
pub fn read_records(bytes: &Bytes) -> Vec<(i64, Record)> {
    read_batches(bytes).into_iter().flat_map(|batch| batch.records).collect()
}

fn read_batch(bytes: Bytes) -> ReadBatch {
    assert_eq!(bytes[16], 2, "a batch of format v2");
    let crc = u32::from_be_bytes(bytes[CRC_AT..CRC_AT + 4].try_into().expect("four bytes"));
    assert_eq!(crc, crc32c::crc32c(&bytes[CRC_COVERS_FROM..]), "the CRC of the batch at offset {}", int64(&bytes, 0));
    let mut batch = ReadBatch {
        base_offset: int64(&bytes, 0),
        leader_epoch: int32(&bytes, 12),
        attributes: int16(&bytes, 21),
        last_offset_delta: int32(&bytes, 23),
        base_timestamp: int64(&bytes, 27),
        max_timestamp: int64(&bytes, 35),
        producer_id: int64(&bytes, 43),
        producer_epoch: int16(&bytes, 51),
        base_sequence: int32(&bytes, 53),
        records: Vec::new(),
        bytes: bytes.clone(),
    };
    let plain = decompress(batch.codec_number(), &bytes[HEADER_BYTES..]);
    let mut reader = Reader { bytes: &plain, at: 0 };
    for _ in 0..int32(&bytes, 57) {
        let (offset_delta, record) = reader.record(batch.base_timestamp);
        batch.records.push((batch.base_offset + offset_delta, record));
    }
    assert_eq!(reader.at, plain.len(), "bytes behind the last record");
    batch
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn record(&mut self, base_timestamp: i64) -> (i64, Record) {
        let length = self.varint() as usize;
        let end = self.at + length;
        self.at += 1;
        let timestamp = base_timestamp + self.varint();
        let offset_delta = self.varint();
        let (key, value) = (self.nullable_bytes(), self.nullable_bytes());
        let headers = (0..self.varint())
            .map(|_| (String::from_utf8(self.nullable_bytes().expect("a header has a key")).expect("UTF-8"), self.nullable_bytes()))
            .collect();
        assert_eq!(self.at, end, "a record ends where its length says");
        (offset_delta, Record { key, value, headers, timestamp })
    }

    fn nullable_bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.varint()).ok()?;
        let bytes = self.bytes[self.at..self.at + length].to_vec();
        self.at += length;
        Some(bytes)
    }

    fn varint(&mut self) -> i64 {
        let mut zigzag = 0u64;
        for shift in (0..).step_by(7) {
            let byte = self.bytes[self.at];
            self.at += 1;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
    }
}

fn int16(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn int32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn int64(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read again, with every codec.
    #[test]
    fn batches_survive() {
        let mut records: Vec<Record> = (0..20).map(|index| record(&format!("key-{index}"), vec![index as u8; index * 50])).collect();
        records[3].value = None;
        records[4].key = None;
        records[5].headers = vec![("a".into(), Some(vec![1])), ("b".into(), None)];
        records[6].timestamp -= 5_000;
        for codec in Codec::ALL {
            let written = Batch::of(records.clone()).codec(codec).producer(7, 1, 40).encode();
            let two = Bytes::from([written.clone(), written.clone(), written.slice(..30)].concat());
            let read = read_batches(&two);
            assert_eq!(read.len(), 2);
            assert_eq!(
                read[1].records,
                records.iter().cloned().enumerate().map(|(offset, record)| (offset as i64, record)).collect::<Vec<_>>()
            );
            assert_eq!((read[0].producer_id, read[0].producer_epoch, read[0].base_sequence), (7, 1, 40));
        }
    }
}
