//! Batches as clients send them, good and bad, through the whole validation.

use proptest::prelude::*;

use super::*;
use crate::wire::batch::{BatchBuilder, BatchOptions, NO_PRODUCER_ID, RecordIterator, crc32c, decompress_all, set_crc};

const NOW_MS: i64 = 1_700_000_000_000;
const COMPRESSIONS: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn rules() -> ValidationRules {
    ValidationRules::new(&TopicSettings::default(), 13)
}

fn builder(options: BatchOptions) -> BatchBuilder {
    BatchBuilder::new(options)
}

/// Three records with keys, one millisecond apart.
fn three_records(compression: Compression) -> Bytes {
    let mut builder = builder(BatchOptions { compression, ..BatchOptions::default() });
    for index in 0..3 {
        builder.push(Some(b"key"), Some(b"some value that may compress, some value"), NOW_MS + index, &[("h", None)]);
    }
    builder.build().unwrap()
}

/// A batch of about `size_bytes`, of records of 1 KiB that compress to a third or so.
fn large_batch(compression: Compression, size_bytes: usize) -> Bytes {
    let mut builder = builder(BatchOptions { compression, ..BatchOptions::default() });
    let mut value = Vec::new();
    while builder.size_bytes() < size_bytes {
        value.clear();
        let seed = builder.record_count() as u32;
        value.extend((0..1024u32).map(|index| (seed.wrapping_mul(2_654_435_761).wrapping_add(index * index) >> 13) as u8 & 0x1f));
        builder.push(Some(b"key"), Some(&value), NOW_MS, &[]);
    }
    builder.build().unwrap()
}

/// Changes the batch and makes its checksum right again.
fn changed(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let crc = crc32c(&bytes[21..]);
    set_crc(&mut bytes, crc);
    Bytes::from(bytes)
}

fn run(batch: &Bytes, rules: &ValidationRules) -> Result<ValidatedBatch, Rejected> {
    Validation::new(batch.clone(), rules.clone(), NOW_MS).run()
}

fn error(batch: &Bytes, rules: &ValidationRules) -> ErrorCode {
    run(batch, rules).unwrap_err().error
}

fn records(batch: &Bytes) -> Bytes {
    let header = BatchHeader::parse(batch).unwrap();
    header.check_crc(batch).unwrap();
    decompress_all(header.compression().unwrap(), batch.slice(HEADER_BYTES..), usize::MAX).unwrap()
}

/// What is right already is passed on without a copy, in every codec.
#[test]
fn good_batches_are_taken_as_they_are() {
    for compression in COMPRESSIONS {
        let batch = three_records(compression);
        let validated = run(&batch, &rules()).unwrap();
        assert_eq!(validated.bytes.as_ptr(), batch.as_ptr());
        assert_eq!(validated.bytes.len(), batch.len());
        assert_eq!((validated.info.record_count, validated.info.last_offset_delta, validated.info.max_timestamp), (3, 2, NOW_MS + 2));
        assert_eq!((validated.info.producer_id, validated.log_append_time_ms), (NO_PRODUCER_ID, -1));
    }
}

/// Bytes after the batch that are no whole batch are cut off, as Kafka does; a whole one is refused.
#[test]
fn exactly_one_batch_is_taken() {
    let batch = three_records(Compression::None);
    let with_half = Bytes::from([&batch[..], &batch[..40]].concat());
    assert_eq!(run(&with_half, &rules()).unwrap().bytes, batch);
    let twice = Bytes::from([&batch[..], &batch[..]].concat());
    assert_eq!(error(&twice, &rules()), ErrorCode::InvalidRecord);
    assert_eq!(error(&Bytes::new(), &rules()), ErrorCode::InvalidRecord);
    assert_eq!(error(&batch.slice(..batch.len() - 1), &rules()), ErrorCode::InvalidRecord);
}

/// Each lie in the header has Kafka's code.
#[test]
fn wrong_headers_are_refused() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, ErrorCode, Change); 13] = [
        ("length below any overhead", ErrorCode::CorruptMessage, |bytes| bytes[8..12].copy_from_slice(&13i32.to_be_bytes())),
        ("length below the header", ErrorCode::CorruptMessage, |bytes| bytes[8..12].copy_from_slice(&48i32.to_be_bytes())),
        ("magic of the future", ErrorCode::CorruptMessage, |bytes| bytes[16] = 3),
        ("magic of the past", ErrorCode::InvalidRecord, |bytes| bytes[16] = 1),
        ("unknown codec", ErrorCode::UnsupportedCompressionType, |bytes| bytes[22] |= 7),
        ("base offset", ErrorCode::InvalidRecord, |bytes| bytes[7] = 1),
        ("last offset delta below zero", ErrorCode::InvalidRecord, |bytes| bytes[23..27].copy_from_slice(&(-1i32).to_be_bytes())),
        ("last offset delta and count", ErrorCode::InvalidRecord, |bytes| bytes[26] = 5),
        ("no records", ErrorCode::InvalidRecord, |bytes| bytes[57..61].copy_from_slice(&0i32.to_be_bytes())),
        ("more records than there are", ErrorCode::InvalidRecord, |bytes| (bytes[26], bytes[60]) = (3, 4)),
        ("fewer records than there are", ErrorCode::InvalidRecord, |bytes| (bytes[26], bytes[60]) = (1, 2)),
        ("control batch", ErrorCode::InvalidRecord, |bytes| bytes[22] |= 0x20),
        ("sequence missing", ErrorCode::InvalidRecord, |bytes| bytes[43..51].copy_from_slice(&7i64.to_be_bytes())),
    ];
    let batch = three_records(Compression::None);
    for (what, expected, change) in cases {
        assert_eq!(error(&changed(&batch, change), &rules()), expected, "{what}");
    }
    let mut flipped = batch.to_vec();
    flipped[70] ^= 1;
    assert_eq!(error(&Bytes::from(flipped), &rules()), ErrorCode::CorruptMessage, "checksum");
}

#[test]
fn records_that_are_no_records_are_refused() {
    let batch = three_records(Compression::None);
    assert_eq!(error(&changed(&batch, |bytes| bytes[HEADER_BYTES] += 2), &rules()), ErrorCode::InvalidRecord, "record length");
    // length, attributes, timestamp delta, offset delta of the first record.
    let wrong_delta = changed(&batch, |bytes| bytes[HEADER_BYTES + 3] = 2);
    assert_eq!(error(&wrong_delta, &rules()), ErrorCode::InvalidRecord, "offset delta");
    for compression in &COMPRESSIONS[1..] {
        let garbage = changed(&three_records(*compression), |bytes| bytes[HEADER_BYTES..].fill(0x55));
        assert_eq!(error(&garbage, &rules()), ErrorCode::InvalidRecord, "{compression:?}");
    }
}

/// zstd came with Produce 7.
#[test]
fn old_producers_may_not_send_zstd() {
    let batch = three_records(Compression::Zstd);
    let version = |produce_version| ValidationRules { produce_version, ..rules() };
    assert_eq!(error(&batch, &version(6)), ErrorCode::UnsupportedCompressionType);
    assert!(run(&batch, &version(7)).is_ok());
}

/// The bound holds for the batch as it comes, and again for what a change of codec makes of it.
#[test]
fn large_batches_are_refused() {
    let batch = large_batch(Compression::Zstd, 300_000);
    let bound = |max_message_bytes| ValidationRules { max_message_bytes, ..rules() };
    assert_eq!(error(&batch, &bound(batch.len() as i32 - 1)), ErrorCode::MessageTooLarge);
    assert!(run(&batch, &bound(batch.len() as i32)).is_ok());
    let uncompressed = ValidationRules { compression_type: CompressionType::Uncompressed, ..bound(batch.len() as i32) };
    assert_eq!(error(&batch, &uncompressed), ErrorCode::MessageTooLarge);
}

/// `max.decompressed.message.bytes` is about one record of a compressed batch: not about their sum, not about uncompressed ones.
#[test]
fn large_records_are_refused_once_decompressed() {
    let bound = |max_decompressed_message_bytes| ValidationRules { max_decompressed_message_bytes, ..rules() };
    for compression in &COMPRESSIONS[1..] {
        let batch = large_batch(*compression, 100_000);
        assert!(run(&batch, &bound(1100)).is_ok());
        assert_eq!(error(&batch, &bound(1024)), ErrorCode::InvalidRecord);
    }
    assert!(run(&large_batch(Compression::None, 100_000), &bound(1024)).is_ok());
}

/// The broker's time replaces the producer's: type, maximum and checksum change, the records do not.
#[test]
fn log_append_time_is_stamped() {
    let rules = ValidationRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    for compression in COMPRESSIONS {
        let batch = three_records(compression);
        let validated = run(&batch, &rules).unwrap();
        let header = BatchHeader::parse(&validated.bytes).unwrap();
        assert_eq!((header.attributes.timestamp_type(), header.max_timestamp), (batch::TimestampType::LogAppendTime, NOW_MS));
        assert_eq!((validated.log_append_time_ms, validated.info.max_timestamp), (NOW_MS, NOW_MS));
        assert_eq!(validated.bytes.len(), batch.len());
        assert_eq!(records(&validated.bytes), records(&batch));
    }
    let claimed = changed(&three_records(Compression::None), |bytes| bytes[22] |= 8);
    let rejected = run(&claimed, &rules).unwrap_err();
    assert_eq!((rejected.error, rejected.record_errors.len()), (ErrorCode::InvalidTimestamp, 3));
}

/// On a topic of create time Kafka 4.4.0 takes a batch that claims log append time, as long as that time is in range, and clears the claim.
#[test]
fn a_claim_of_log_append_time_is_cleared() {
    for compression in COMPRESSIONS {
        let batch = three_records(compression);
        let validated = run(&changed(&batch, |bytes| bytes[22] |= 8), &rules()).unwrap();
        assert_eq!(validated.bytes, batch);
        assert!(!validated.info.is_log_append_time);
        let far_off = |bytes: &mut Vec<u8>| {
            bytes[22] |= 8;
            bytes[35..43].copy_from_slice(&(NOW_MS + 7_200_000).to_be_bytes());
        };
        assert_eq!(error(&changed(&batch, far_off), &rules()), ErrorCode::InvalidTimestamp);
    }
}

/// A maximum timestamp that the records do not bear out is put right.
#[test]
fn max_timestamp_is_corrected() {
    let batch = changed(&three_records(Compression::Lz4), |bytes| bytes[35..43].copy_from_slice(&(NOW_MS + 999).to_be_bytes()));
    let validated = run(&batch, &rules()).unwrap();
    assert_eq!(validated.info.max_timestamp, NOW_MS + 2);
    assert_eq!(BatchHeader::parse(&validated.bytes).unwrap().max_timestamp, NOW_MS + 2);
    assert_eq!(records(&validated.bytes), records(&batch));
}

/// Each bad record is listed with its index; one bad timestamp makes that the error of all.
#[test]
fn bad_records_are_listed() {
    let settings = ValidationRules { compacted: true, timestamp_before_max_ms: 1000, timestamp_after_max_ms: 500, ..rules() };
    let batch = |timestamps: [i64; 4]| {
        let mut builder = builder(BatchOptions::default());
        for (index, timestamp) in timestamps.into_iter().enumerate() {
            let key: Option<&[u8]> = if index == 1 { None } else { Some(b"k") };
            builder.push(key, Some(b"v"), timestamp, &[]);
        }
        builder.build().unwrap()
    };
    let indexes = |rejected: &Rejected| rejected.record_errors.iter().map(|(index, _)| *index).collect::<Vec<_>>();

    let keyless = run(&batch([NOW_MS - 1000, NOW_MS, NOW_MS + 500, NO_TIMESTAMP]), &settings).unwrap_err();
    assert_eq!((keyless.error, indexes(&keyless)), (ErrorCode::InvalidRecord, vec![1]));
    let out_of_range = run(&batch([NOW_MS - 1001, NOW_MS, NOW_MS + 501, NOW_MS]), &settings).unwrap_err();
    assert_eq!((out_of_range.error, indexes(&out_of_range)), (ErrorCode::InvalidTimestamp, vec![0, 1, 2]));
    assert!(out_of_range.message.is_some());
}

/// From every codec to every other: the same records, a right checksum, the target's attributes.
#[test]
fn batches_change_their_codec() {
    let targets = [
        (CompressionType::Uncompressed, Compression::None),
        (CompressionType::Gzip, Compression::Gzip),
        (CompressionType::Snappy, Compression::Snappy),
        (CompressionType::Lz4, Compression::Lz4),
        (CompressionType::Zstd, Compression::Zstd),
    ];
    let options = BatchOptions { producer_id: 5, producer_epoch: 1, base_sequence: 40, transactional: true, ..BatchOptions::default() };
    for source in COMPRESSIONS {
        let mut builder = builder(BatchOptions { compression: source, ..options });
        for index in 0..200 {
            builder.push(Some(b"key"), Some(format!("value {index}").as_bytes()), NOW_MS + index, &[]);
        }
        let batch = builder.build().unwrap();
        for (compression_type, target) in targets {
            let validated = run(&batch, &ValidationRules { compression_type, ..rules() }).unwrap();
            let header = BatchHeader::parse(&validated.bytes).unwrap();
            assert_eq!(header.compression(), Ok(target));
            assert_eq!(header.size_bytes(), validated.bytes.len());
            assert_eq!(records(&validated.bytes), records(&batch), "{source:?} to {target:?}");
            assert_eq!(RecordIterator::new(&records(&validated.bytes), header.record_count).count(), 200);
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (5, 1, 40));
            assert!(header.attributes.is_transactional());
            assert_eq!((validated.info.size_bytes as usize, validated.info.max_timestamp), (validated.bytes.len(), NOW_MS + 199));
        }
    }
}

/// A megabyte takes many steps, a small batch one.
#[test]
fn large_batches_take_many_steps() {
    let steps = |batch: Bytes, rules: ValidationRules| {
        let mut validation = Validation::new(batch, rules, NOW_MS);
        let mut steps = 1;
        loop {
            match validation.step() {
                Step::More => steps += 1,
                Step::Done(result) => {
                    result.unwrap();
                    return steps;
                }
            }
        }
    };
    assert_eq!(steps(three_records(Compression::None), rules()), 1);
    let large = large_batch(Compression::None, 1_000_000);
    let slices = large.len() / SLICE_BYTES;
    assert!(steps(large.clone(), rules()) >= 2 * slices, "checksum and walk");
    let stamped = ValidationRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    assert!(steps(large, stamped) >= 3 * slices, "checksum, walk and rewriting");
}

/// A bomb of many equal records is refused in constant memory, and lists only so many of them.
#[test]
fn bombs_are_walked_in_slices() {
    let mut builder = builder(BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() });
    for _ in 0..200_000 {
        builder.push(None, None, NOW_MS, &[]);
    }
    let bomb = builder.build().unwrap();
    assert!(bomb.len() < 600_000);
    let rejected = run(&bomb, &ValidationRules { compacted: true, ..rules() }).unwrap_err();
    assert_eq!((rejected.error, rejected.record_errors.len()), (ErrorCode::InvalidRecord, RECORD_ERRORS_MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever one changes in a batch, with or without a right checksum, the end is a verdict.
    #[test]
    fn every_batch_gets_a_verdict(
        codec in 0usize..5,
        target in 0usize..3,
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        with_checksum in any::<bool>(),
    ) {
        let batch = three_records(COMPRESSIONS[codec]);
        let change = |bytes: &mut Vec<u8>| {
            for (place, byte) in &places {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
        };
        let bytes = if with_checksum { changed(&batch, change) } else {
            let mut bytes = batch.to_vec();
            change(&mut bytes);
            bytes.truncate(cut.index(bytes.len()) + 1);
            Bytes::from(bytes)
        };
        let compression_type = [CompressionType::Producer, CompressionType::Uncompressed, CompressionType::Zstd][target];
        if let Ok(validated) = run(&bytes, &ValidationRules { compression_type, ..rules() }) {
            let header = BatchHeader::parse(&validated.bytes).unwrap();
            prop_assert!(header.check_crc(&validated.bytes).is_ok());
            let records = records(&validated.bytes);
            prop_assert!(RecordIterator::new(&records, header.record_count).all(|record| record.is_ok()));
        }
    }
}
