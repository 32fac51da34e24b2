//! Any message or record in any version: two bytes name it, one its version, the rest is its body. What is read is written, and what was written is a fixed point.

#![no_main]

use bytes::Bytes;
use corelane_wire::EncodeError;
use corelane_wire::batch::crc32c;
use corelane_wire::catalogue::{ENTRIES, Entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [first, second, version, body @ ..] = data else { return };
    let name = u16::from_be_bytes([*first, *second]);
    // By a hash of the name, so that a kept input means the same when messages are added.
    let Some(entry) = ENTRIES.iter().find(|entry| name_hash(entry) == name) else { return };
    let version = i16::from(*version);
    let Ok(read) = (entry.transcode)(Bytes::copy_from_slice(body), version, version) else { return };
    match read.encoded {
        Ok(written) => {
            let again = (entry.transcode)(written.clone(), version, version).expect("what was written can be read");
            assert_eq!((again.encoded, again.left_over), (Ok(written), 0));
        }
        Err(error) => assert!(matches!(error, EncodeError::TagTwice { .. }), "{}: {error}", entry.name),
    }
});

fn name_hash(entry: &Entry) -> u16 {
    crc32c(entry.name.as_bytes()) as u16
}
