//! The parts of `batch` against each other: what is built is parsed, iterated, scanned in slices of any size, compressed and decompressed.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const COMPRESSIONS: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A record as a test writes it.
#[derive(Clone, Debug, PartialEq)]
struct TestRecord {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn test_record() -> impl Strategy<Value = TestRecord> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    let headers = prop::collection::vec(("[a-z]{0,5}", bytes()), 0..3);
    (bytes(), bytes(), 0..i64::MAX / 2, headers).prop_map(|(key, value, timestamp, headers)| TestRecord { key, value, timestamp, headers })
}

fn build(records: &[TestRecord], options: BatchOptions) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let headers: Vec<(&str, Option<&[u8]>)> = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.push(record.key.as_deref(), record.value.as_deref(), record.timestamp, &headers);
    }
    builder.build().unwrap()
}

fn read(batch: &Bytes) -> Vec<TestRecord> {
    let header = BatchHeader::parse(batch).unwrap();
    assert_eq!(header.size_bytes(), batch.len());
    header.check_crc(batch).unwrap();
    let records = decompress_all(header.compression().unwrap(), batch.slice(HEADER_BYTES..), usize::MAX).unwrap();
    let owned = |record: RecordRef<'_>| TestRecord {
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        timestamp: header.base_timestamp + record.timestamp_delta,
        headers: record
            .headers()
            .map(|header| (String::from_utf8(header.key.to_vec()).unwrap(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    };
    RecordIterator::new(&records, header.record_count).map(|record| owned(record.unwrap())).collect()
}

fn scan(records: &[u8], announced: i32, slice_bytes: usize) -> Result<Vec<RecordFacts>, RecordError> {
    let mut scanner = RecordScanner::new(announced);
    let mut facts = Vec::new();
    for slice in records.chunks(slice_bytes) {
        scanner.scan(slice, &mut |record| facts.push(record))?;
    }
    scanner.finish()?;
    Ok(facts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Records come back from a batch of every codec as they were put in.
    #[test]
    fn batches_come_back(records in prop::collection::vec(test_record(), 1..20)) {
        for compression in COMPRESSIONS {
            let batch = build(&records, BatchOptions { compression, ..BatchOptions::default() });
            prop_assert_eq!(&read(&batch), &records);
        }
    }

    /// The scanner sees in slices of any size what the iterator sees in the whole.
    #[test]
    fn scanner_agrees_with_iterator(records in prop::collection::vec(test_record(), 1..10), slice_bytes in 1usize..40) {
        let batch = build(&records, BatchOptions::default());
        let header = BatchHeader::parse(&batch).unwrap();
        let facts = scan(&batch[HEADER_BYTES..], header.record_count, slice_bytes).unwrap();
        prop_assert_eq!(facts.len(), records.len());
        for (index, (facts, record)) in facts.iter().zip(&records).enumerate() {
            let expected = RecordFacts {
                index: index as i32,
                offset_delta: index as i32,
                timestamp_delta: record.timestamp - records[0].timestamp,
                has_key: record.key.is_some(),
                has_value: record.value.is_some(),
            };
            prop_assert_eq!(*facts, expected);
        }
    }

    /// On bytes that were changed, iterator and scanner accept the same batches.
    #[test]
    fn scanner_refuses_what_the_iterator_refuses(
        records in prop::collection::vec(test_record(), 1..5),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        announced in 0i32..6,
        slice_bytes in 1usize..20,
    ) {
        let batch = build(&records, BatchOptions::default());
        let mut bytes = batch[HEADER_BYTES..].to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let iterated = RecordIterator::new(&bytes, announced).collect::<Result<Vec<_>, _>>().map(|records| records.len());
        let scanned = scan(&bytes, announced, slice_bytes).map(|facts| facts.len());
        prop_assert_eq!(iterated.is_ok(), scanned.is_ok(), "{:?} {:?}", iterated, scanned);
        if let (Ok(iterated), Ok(scanned)) = (iterated, scanned) {
            prop_assert_eq!(iterated, scanned);
        }
    }
}

/// Bytes that compress, so that a small input becomes many slices.
fn text(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index / 7 % 61) as u8 ^ (index / 4099) as u8).collect()
}

fn compress(compression: Compression, text: &[u8]) -> Bytes {
    let mut compressor = Compressor::new(compression, None, b"prefix".to_vec()).unwrap();
    for slice in text.chunks(SLICE_BYTES) {
        compressor.write(slice).unwrap();
    }
    let compressed = Bytes::from(compressor.finish().unwrap());
    assert_eq!(&compressed[..6], b"prefix");
    compressed.slice(6..)
}

/// Each codec gives slices of at most 64 KiB, and together what went in.
#[test]
fn decompression_comes_in_slices() {
    let text = text(1_000_003);
    for compression in COMPRESSIONS {
        let mut decompressor = Decompressor::new(compression, compress(compression, &text), text.len()).unwrap();
        let mut slice = Vec::new();
        let mut output = Vec::new();
        loop {
            let progress = decompressor.step(&mut slice).unwrap();
            assert!(slice.len() <= SLICE_BYTES);
            output.extend_from_slice(&slice);
            if progress == Progress::Done {
                break;
            }
        }
        assert!(output == text, "{compression:?}");
        assert_eq!(decompressor.step(&mut slice), Ok(Progress::Done), "the end is final");
        assert!(slice.is_empty());
    }
}

/// A bound of one byte less is an error, also for a single raw block of snappy.
#[test]
fn decompression_is_bounded() {
    let text = text(300_000);
    let raw_snappy = Bytes::from(snap::raw::Encoder::new().compress_vec(&text).unwrap());
    let inputs = COMPRESSIONS.map(|compression| (compression, compress(compression, &text)));
    for (compression, input) in inputs.into_iter().chain([(Compression::Snappy, raw_snappy)]) {
        assert!(decompress_all(compression, input.clone(), text.len()).unwrap() == text, "{compression:?}");
        assert_eq!(decompress_all(compression, input, text.len() - 1), Err(DecompressError::TooLarge), "{compression:?}");
    }
}

/// Garbage and cut-off streams end in an error or in fewer bytes, never in a panic or a wrong text.
#[test]
fn broken_streams_are_noticed_or_short() {
    let text = text(100_000);
    for compression in COMPRESSIONS {
        let whole = compress(compression, &text);
        for cut in [0, 1, 5, 17, whole.len() / 2, whole.len() - 1] {
            if let Ok(output) = decompress_all(compression, whole.slice(..cut), usize::MAX) {
                assert!(text.starts_with(&output), "{compression:?} cut at {cut}");
            }
        }
    }
    for compression in &COMPRESSIONS[1..] {
        assert!(decompress_all(*compression, Bytes::from_static(b"no codec wrote these bytes"), 1000).is_err(), "{compression:?}");
    }
}

/// Several gzip members are one stream, as Java reads them.
#[test]
fn what_a_codec_will_hold_is_known_before() {
    let text = text(300_000);
    let held = |compression| working_memory_bytes(compression, &compress(compression, &text));
    assert_eq!(held(Compression::None), 0);
    assert!((32 << 10..1 << 20).contains(&held(Compression::Gzip)));
    assert!((64 << 10..16 << 20).contains(&held(Compression::Lz4)));
    assert!((64 << 10..16 << 20).contains(&held(Compression::Zstd)));
    // A frame that asks for 128 MiB: window descriptor 17 << 3, then one raw block of a byte, the last.
    let large_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x09, 0x00, 0x00, b'x'];
    assert_eq!(working_memory_bytes(Compression::Zstd, &large_window), 128 << 20);
    let behind_a_small_one = [&compress(Compression::Zstd, b"small")[..], &large_window[..]].concat();
    assert_eq!(working_memory_bytes(Compression::Zstd, &behind_a_small_one), 128 << 20);
    assert_eq!(working_memory_bytes(Compression::Zstd, b"no zstd at all"), 128 << 20);
}

#[test]
fn gzip_members_are_joined() {
    let joined = [compress(Compression::Gzip, b"one "), compress(Compression::Gzip, b""), compress(Compression::Gzip, b"two")].concat();
    assert_eq!(decompress_all(Compression::Gzip, Bytes::from(joined), 100).unwrap(), "one two");
}

/// Header fields, attributes and checksum; the records byte by byte as Kafka's format has them.
#[test]
fn header_is_read_and_written() {
    let options = BatchOptions {
        base_offset: 7,
        partition_leader_epoch: 3,
        producer_id: 1000,
        producer_epoch: 2,
        base_sequence: i32::MAX,
        transactional: true,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    builder.push(Some(b"k"), None, 100, &[]);
    builder.push(None, Some(b"v"), 90, &[("h", None)]);
    let batch = builder.build().unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.base_offset, header.last_offset(), header.record_count), (7, 8, 2));
    assert_eq!((header.base_timestamp, header.max_timestamp), (100, 100));
    assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (1000, 2, 0));
    assert!(header.attributes.is_transactional() && !header.attributes.is_control() && !header.attributes.has_delete_horizon());
    assert_eq!(&batch[HEADER_BYTES..], b"\x0e\x00\x00\x00\x02k\x01\x00\x14\x00\x13\x02\x01\x02v\x02\x02h\x01");

    let mut changed = batch.to_vec();
    set_base_offset(&mut changed, 50);
    set_partition_leader_epoch(&mut changed, 4);
    let header = BatchHeader::parse(&changed).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (50, 4));
    header.check_crc(&changed).unwrap();
    set_max_timestamp(&mut changed, TimestampType::LogAppendTime, 5000);
    let header = BatchHeader::parse(&changed).unwrap();
    assert_eq!((header.attributes.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, 5000));
    assert!(matches!(header.check_crc(&changed), Err(BatchError::CrcMismatch { .. })));
    let crc = crc32c(&changed[header.crc_range()]);
    set_crc(&mut changed, crc);
    BatchHeader::parse(&changed).unwrap().check_crc(&changed).unwrap();
}

/// Old formats, torn batches and impossible lengths are told apart.
#[test]
fn unreadable_headers_are_named() {
    let batch = build(&[TestRecord { key: None, value: None, timestamp: 0, headers: Vec::new() }], BatchOptions::default());
    assert!(matches!(BatchHeader::parse(&batch[..60]), Err(BatchError::Truncated { .. })));
    let mut old = batch.to_vec();
    old[16] = 1;
    assert_eq!(BatchHeader::parse(&old), Err(BatchError::UnsupportedMagic(1)));
    let mut short = batch.to_vec();
    short[8..12].copy_from_slice(&48i32.to_be_bytes());
    assert_eq!(BatchHeader::parse(&short), Err(BatchError::InvalidLength(48)));
    assert_eq!(Attributes(5).compression(), Err(BatchError::UnknownCompression(5)));

    let two_and_a_half = [&batch[..], &batch[..], &batch[..30]].concat();
    let batches: Vec<_> = BatchIterator::new(Bytes::from(two_and_a_half)).collect();
    assert_eq!(batches.len(), 3);
    assert!(batches[0].is_ok() && batches[1].is_ok());
    assert!(matches!(batches[2], Err(BatchError::Truncated { .. })));
}
