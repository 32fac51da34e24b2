//! Where the fuzzers begin: a message of each kind and version, and batches of each codec. `scripts/fuzz --seeds` runs this; the corpus in the tree is what fuzzing made of it.

use std::fs;
use std::path::{Path, PathBuf};

use corelane_wire::batch::{BatchBuilder, BatchOptions, Compression, HEADER_BYTES, crc32c};
use corelane_wire::catalogue::Kind;
use corelane_wire::{ApiKey, Chunk, Encoder, Message, Str, messages::RequestHeader};

use crate::values::{all_messages, first_seed, random_message};

/// Without a folder that wants them the seeds go into one that is thrown away: that all of them can be made is a test of its own.
#[test]
fn write_fuzz_seeds() {
    let thrown_away = std::env::temp_dir().join(format!("corelane-fuzz-seeds-{}", std::process::id()));
    let directory = std::env::var_os("CORELANE_FUZZ_SEEDS").map_or(thrown_away.clone(), PathBuf::from);
    for (entry, schema) in all_messages() {
        for version in entry.versions.0..=entry.versions.1 {
            let body = random_message(&schema, version, first_seed());
            let named = [&(crc32c(entry.name.as_bytes()) as u16).to_be_bytes()[..], &[version as u8], &body].concat();
            write(&directory, "request", &format!("{}-{version}", entry.name), &named);
            if entry.kind == Kind::Request {
                let api_key = ApiKey::try_from(entry.api.unwrap()).unwrap();
                let frame = [header(api_key, version), body].concat();
                write(&directory, "frame", &format!("{}-{version}", entry.name), &frame);
            }
        }
    }
    for (mode, compression) in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd].into_iter().enumerate()
    {
        let batch = batch(compression);
        write(&directory, "batch", &format!("whole-{}", compression.name()), &[&[5], &batch[..], &batch[..]].concat());
        write(&directory, "batch", &format!("records-{}", compression.name()), &[&[mode as u8, 3], &batch[HEADER_BYTES..]].concat());
    }
    for target in ["request", "frame", "batch"] {
        assert!(fs::read_dir(directory.join(target)).unwrap().next().is_some(), "{target} has nothing to begin with");
    }
    if thrown_away.exists() {
        fs::remove_dir_all(thrown_away).unwrap();
    }
}

fn header(api_key: ApiKey, version: i16) -> Vec<u8> {
    let header = RequestHeader {
        request_api_key: api_key.code(),
        request_api_version: version,
        correlation_id: 1,
        client_id: Some(Str::from_static("c")),
        ..RequestHeader::default()
    };
    let mut encoder = Encoder::new();
    header.encode(&mut encoder, api_key.request_header_version(version)).unwrap();
    let [Chunk::Memory(bytes)] = &encoder.finish()[..] else { panic!("a header is one chunk") };
    bytes.to_vec()
}

fn batch(compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    builder.push(Some(b"key"), Some(b"value value value value"), 1, &[("header", Some(b"x")), ("null", None)]);
    builder.push(None, Some(b"value value value value"), 2, &[]);
    builder.push(Some(b"key"), None, 3, &[]);
    builder.build().unwrap().to_vec()
}

fn write(directory: &Path, target: &str, name: &str, bytes: &[u8]) {
    let directory = directory.join(target);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), bytes).unwrap();
}
