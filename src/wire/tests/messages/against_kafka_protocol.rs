//! Our bytes through the `kafka-protocol` crate: it must read what we write and write the same again.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};

use crate::values::{all_messages, describe, first_seed, is_response, random_message};

const SEEDS: u64 = 15;

/// Versions that the crate lists for the API although its message does not know them.
const MISSING_THERE: [(&str, i16); 3] = [("OffsetCommitRequest", 10), ("OffsetFetchRequest", 10), ("InitProducerIdRequest", 6)];

#[test]
fn kafka_protocol_agrees() {
    let mut versions_compared = 0;
    for (entry, schema) in all_messages() {
        let Some(is_response) = is_response(&schema) else { continue };
        let Ok(api_key) = ApiKey::try_from(entry.api.unwrap()) else { continue };
        let shared = api_key.valid_versions();
        for version in entry.versions.0.max(shared.min)..=entry.versions.1.min(shared.max) {
            if MISSING_THERE.contains(&(entry.name, version)) {
                continue;
            }
            versions_compared += 1;
            for seed in first_seed()..first_seed() + SEEDS {
                let bytes = Bytes::from(random_message(&schema, version, seed));
                let what = describe(entry, version, seed);
                let ours = (entry.transcode)(bytes, version, version).unwrap().encoded.unwrap();
                let theirs = if is_response { response(api_key, &ours, version) } else { request(api_key, &ours, version) };
                assert_eq!(theirs.unwrap_or_else(|error| panic!("{what}: {error:?}")), ours, "{what}");
            }
        }
    }
    assert!(versions_compared > 500, "{versions_compared} versions of messages were compared");
}

fn request(api_key: ApiKey, bytes: &Bytes, version: i16) -> anyhow::Result<BytesMut> {
    let mut rest = bytes.clone();
    let request = RequestKind::decode(api_key, &mut rest, version)?;
    anyhow::ensure!(rest.is_empty(), "{} bytes left", rest.len());
    let mut out = BytesMut::new();
    request.encode(&mut out, version)?;
    Ok(out)
}

fn response(api_key: ApiKey, bytes: &Bytes, version: i16) -> anyhow::Result<BytesMut> {
    let mut rest = bytes.clone();
    let response = ResponseKind::decode(api_key, &mut rest, version)?;
    anyhow::ensure!(rest.is_empty(), "{} bytes left", rest.len());
    let mut out = BytesMut::new();
    response.encode(&mut out, version)?;
    Ok(out)
}
