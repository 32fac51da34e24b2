//! Bytes from strangers: nothing panics, and nothing takes memory out of proportion to what was sent. Every allocation is counted, freed or not.

#[path = "../messages/values.rs"]
#[allow(dead_code)]
mod values;

use std::alloc::System;
use std::sync::Mutex;

use bytes::Bytes;
use corelane_wire::batch::{
    BatchBuilder, BatchHeader, BatchIterator, BatchOptions, Compression, Decompressor, HEADER_BYTES, Progress, RecordIterator,
    RecordScanner, SLICE_BYTES,
};
use corelane_wire::{Decoder, read_request_header};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use values::{Random, all_messages, describe, first_seed, random_message};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The counters belong to the whole process, so only one test runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Small frames: an empty string takes one byte on the wire and a structure of several strings in memory. The widest ratio of the schema stays below this.
const SMALL_FRAME_RATIO: usize = 120;
/// Large frames, from about 64 KiB on, are held to the decoder's allowance: 16 times the frame and 1 MiB.
const LARGE_FRAME_RATIO: usize = 16;
const LARGE_FRAME_BYTES_BASE: usize = 1 << 20;
/// What a decoder or an error takes in any case.
const BYTES_BASE: usize = 1024;

fn allocated_by(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    region.change().bytes_allocated
}

fn assert_in_proportion(allocated_bytes: usize, frame_bytes: usize, what: &str) {
    let small = SMALL_FRAME_RATIO * frame_bytes + BYTES_BASE;
    let large = LARGE_FRAME_RATIO * frame_bytes + LARGE_FRAME_BYTES_BASE + BYTES_BASE;
    assert!(allocated_bytes <= small.min(large), "{what}: {allocated_bytes} bytes taken for a frame of {frame_bytes}");
}

/// Good messages, cut off and changed at random.
#[test]
fn changed_messages_do_no_harm() {
    let _guard = ONE_AT_A_TIME.lock();
    for (entry, schema) in all_messages() {
        for version in entry.versions.0..=entry.versions.1 {
            for seed in first_seed()..first_seed() + 8 {
                let what = describe(entry, version, seed);
                let mut random = Random::new(seed, version, "changes");
                let good = random_message(&schema, version, seed);
                for _ in 0..12 {
                    let bytes = Bytes::from(change(&good, &mut random));
                    let allocated_bytes = allocated_by(|| drop((entry.decode)(bytes.clone(), version)));
                    assert_in_proportion(allocated_bytes, bytes.len(), &what);
                    // What is accepted after all can be written again, or has no place in the version (a tag twice).
                    let _ = (entry.transcode)(bytes, version, version);
                }
            }
        }
    }
}

/// Every prefix of a good message is refused, unless it is the whole.
#[test]
fn prefixes_are_refused() {
    let _guard = ONE_AT_A_TIME.lock();
    for (entry, schema) in all_messages() {
        for version in entry.versions.0..=entry.versions.1 {
            let good = Bytes::from(random_message(&schema, version, first_seed()));
            for length in 0..good.len() {
                let what = describe(entry, version, first_seed());
                assert!((entry.decode)(good.slice(..length), version).is_err(), "{what} cut to {length}");
            }
        }
    }
}

/// One byte over and over is the densest way to announce counts within counts. Read by every decoder, small and large.
#[test]
fn repeated_bytes_do_no_harm() {
    let _guard = ONE_AT_A_TIME.lock();
    for byte in [0x00, 0x01, 0x02, 0x03, 0x05, 0x10, 0x7f, 0x80, 0xff] {
        for length in [0, 1, 7, 64, 1000, 70_000] {
            let frame = Bytes::from(vec![byte; length]);
            for (entry, _) in all_messages_once() {
                for version in entry.versions.0..=entry.versions.1 {
                    let frame = frame.clone();
                    let allocated_bytes = allocated_by(|| drop((entry.decode)(frame, version)));
                    assert_in_proportion(allocated_bytes, length, &describe(entry, version, u64::from(byte)));
                }
            }
        }
    }
}

/// The largest counts that a frame can back with bytes: a count of elements of one byte each that fills the frame. The decoder's allowance stops it.
#[test]
fn large_counts_are_held_to_the_allowance() {
    let _guard = ONE_AT_A_TIME.lock();
    for length in [1 << 20, 8 << 20] {
        for (entry, schema) in all_messages_once() {
            let version = entry.versions.1;
            for prefix in 0..6 {
                // Some bytes of fixed fields, then an array's count in either form, then empty elements.
                let mut frame = vec![0; length];
                frame[prefix..prefix + 4].copy_from_slice(&(length as i32 - 64).to_be_bytes());
                if schema.flexible.first <= version {
                    frame[prefix..prefix + 4].copy_from_slice(&[0xff, 0xff, 0x3f, 0x01]);
                }
                let frame = Bytes::from(frame);
                let allocated_bytes = allocated_by(|| drop((entry.decode)(frame, version)));
                assert_in_proportion(allocated_bytes, length, &describe(entry, version, prefix as u64));
            }
        }
    }
}

/// Random headers: a key, a version, a client id.
#[test]
fn random_headers_do_no_harm() {
    let _guard = ONE_AT_A_TIME.lock();
    let mut random = Random::new(first_seed(), 0, "headers");
    for _ in 0..20_000 {
        let mut frame: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        if random.chance(2) && frame.len() > 4 {
            frame[..4].copy_from_slice(&[0, random.below(96) as u8, 0, random.below(20) as u8]);
        }
        let length = frame.len();
        let frame = Bytes::from(frame);
        let allocated_bytes = allocated_by(|| drop(read_request_header(&mut Decoder::new(frame))));
        assert_in_proportion(allocated_bytes, length, "header");
    }
}

/// Batches of every codec, cut off and changed: parsed, decompressed within a bound, scanned and iterated. Of our own memory only slices and snappy's block are taken.
#[test]
fn changed_batches_do_no_harm() {
    let _guard = ONE_AT_A_TIME.lock();
    let mut random = Random::new(first_seed(), 0, "batches");
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
        for index in 0..50 {
            builder.push(
                Some(b"key"),
                Some(format!("value {index} value {index}").as_bytes()),
                index,
                &[("header", Some(b"x")), ("null", None)],
            );
        }
        let good = builder.build().unwrap();
        for _ in 0..2000 {
            let bytes = Bytes::from(change(&good, &mut random));
            let allocated_bytes = allocated_by(|| read_batches(bytes));
            // lz4 asks for its largest block and the like before it looks at the input: at most some 16 MiB in all, whatever the input claims.
            assert!(allocated_bytes < 32 << 20, "{compression:?}: {allocated_bytes} bytes taken");
        }
    }
}

fn read_batches(bytes: Bytes) {
    const OUTPUT_BYTES_MAX: usize = 1 << 20;
    for batch in BatchIterator::new(bytes) {
        let Ok((header, batch)) = batch else { return };
        let _ = header.check_crc(&batch);
        let Ok(compression) = header.compression() else { continue };
        for record in RecordIterator::new(&batch[HEADER_BYTES..], header.record_count).flatten() {
            let _ = record.headers().count();
        }
        let Ok(mut decompressor) = Decompressor::new(compression, batch.slice(HEADER_BYTES..), OUTPUT_BYTES_MAX) else { continue };
        let mut scanner = RecordScanner::new(header.record_count);
        let mut slice = Vec::new();
        while let Ok(progress) = decompressor.step(&mut slice) {
            assert!(slice.len() <= SLICE_BYTES && decompressor.output_bytes() <= OUTPUT_BYTES_MAX);
            if scanner.scan(&slice, &mut |_| ()).is_err() || progress == Progress::Done {
                break;
            }
        }
    }
}

/// A header that promises 2 GiB costs nothing to refuse.
#[test]
fn promised_sizes_are_not_believed() {
    let _guard = ONE_AT_A_TIME.lock();
    let mut header = BatchBuilder::new(BatchOptions::default()).build().unwrap().to_vec();
    header[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    header[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let header = Bytes::from(header);
    let allocated_bytes = allocated_by(|| {
        assert!(BatchHeader::parse(&header).is_ok());
        assert!(BatchIterator::new(header.clone()).all(|batch| batch.is_err()));
        // A raw block of snappy that announces 4 GiB.
        let announced = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
        let mut decompressor = Decompressor::new(Compression::Snappy, announced, i32::MAX as usize).unwrap();
        assert!(decompressor.step(&mut Vec::new()).is_err());
    });
    assert!(allocated_bytes < BYTES_BASE, "{allocated_bytes}");
}

/// A good message with a few bytes set to telling values, cut off or with bytes put in.
fn change(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    if bytes.is_empty() {
        return bytes;
    }
    for _ in 0..1 + random.below(4) {
        let place = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[place] = random.next() as u8,
            1 => bytes[place] = [0x00, 0x01, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes.truncate(place + 1),
            3 => {
                let end = bytes.len().min(place + 4);
                bytes[place..end].fill([0x00, 0x7f, 0xff][random.below(3)]);
            }
            _ => bytes.insert(place, random.next() as u8),
        }
    }
    bytes
}

/// The schema files are read once for all tests that do not change them.
fn all_messages_once() -> impl Iterator<Item = (&'static corelane_wire::catalogue::Entry, &'static values::parse::Message)> {
    static MESSAGES: std::sync::OnceLock<Vec<(&'static corelane_wire::catalogue::Entry, values::parse::Message)>> =
        std::sync::OnceLock::new();
    MESSAGES.get_or_init(all_messages).iter().map(|(entry, schema)| (*entry, schema))
}
