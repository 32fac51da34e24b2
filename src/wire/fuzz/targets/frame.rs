//! A frame as it comes off a socket, without its length: header, then the body that key and version announce.

#![no_main]

use bytes::Bytes;
use corelane_wire::catalogue::{ENTRIES, Kind};
use corelane_wire::{Decoder, read_request_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(Bytes::copy_from_slice(data));
    let Ok((api_key, header)) = read_request_header(&mut decoder) else { return };
    let version = header.request_api_version;
    // ApiVersions is answered in any version; of all others only what exists is read.
    if !api_key.valid_versions().is_some_and(|versions| versions.contains(&version)) {
        return;
    }
    let entry = ENTRIES.iter().find(|entry| entry.kind == Kind::Request && entry.api == Some(api_key.code())).expect("it has versions");
    let _ = (entry.decode)(decoder.into_rest(), version);
});
