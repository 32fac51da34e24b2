//! The generated code alone: what it reads it writes again.

use bytes::Bytes;

use crate::values::{all_messages, default_message, describe, first_seed, random_message};

const SEEDS: u64 = 40;

/// Bytes written from the schema are read whole and come back byte for byte, also behind them what does not belong to the message stays unread.
#[test]
fn every_message_comes_back() {
    for (entry, schema) in all_messages() {
        for version in entry.versions.0..=entry.versions.1 {
            for seed in first_seed()..first_seed() + SEEDS {
                let bytes = random_message(&schema, version, seed);
                let what = describe(entry, version, seed);
                let followed = Bytes::from([&bytes[..], b"tail"].concat());
                let transcoded = (entry.transcode)(followed, version, version).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(transcoded.left_over, 4, "{what}");
                assert_eq!(transcoded.encoded.as_deref(), Ok(&bytes[..]), "{what}");
            }
        }
    }
}

/// A default message is what the schema's defaults say.
#[test]
fn defaults_are_the_schemas() {
    for (entry, schema) in all_messages() {
        for version in entry.versions.0..=entry.versions.1 {
            let encoded = (entry.encode_default)(version);
            assert_eq!(encoded.as_deref(), Ok(&default_message(&schema, version)[..]), "{}", describe(entry, version, 0));
        }
    }
}

/// What was read in one version is written in any other, or refused because that version has no place for a value. What is written can be read.
#[test]
fn versions_are_crossed_or_refused() {
    for (entry, schema) in all_messages() {
        for from in entry.versions.0..=entry.versions.1 {
            for to in entry.versions.0..=entry.versions.1 {
                for seed in first_seed()..first_seed() + 3 {
                    let bytes = Bytes::from(random_message(&schema, from, seed));
                    let what = describe(entry, from, seed);
                    let transcoded = (entry.transcode)(bytes, from, to).unwrap();
                    if let Ok(encoded) = transcoded.encoded {
                        let again = (entry.transcode)(encoded.clone(), to, to).unwrap_or_else(|error| panic!("{what} as {to}: {error}"));
                        assert_eq!((again.left_over, again.encoded), (0, Ok(encoded)), "{what} as {to}");
                    }
                }
            }
        }
    }
}

/// A version that does not exist is an error in both directions, not a panic.
#[test]
fn unknown_versions_are_refused() {
    for (entry, _) in all_messages() {
        for version in [entry.versions.0 - 1, entry.versions.1 + 1, i16::MIN, i16::MAX] {
            assert!((entry.transcode)(Bytes::from_static(&[0; 64]), version, version).is_err(), "{}", entry.name);
            assert!((entry.encode_default)(version).is_err(), "{}", entry.name);
        }
    }
}
