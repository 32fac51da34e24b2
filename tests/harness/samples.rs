//! What every client writes and must read again: the same sets in every language.

use crate::batch::Record;

/// Compressible and incompressible values from one byte to some KiB, each with a key and a header of its own.
pub fn records(count: usize) -> Vec<Record> {
    let one = |index: usize| {
        let mut value = format!("record {index} ").repeat(index % 7 * 40 + 1).into_bytes();
        value.extend((0..index % 5 * 50).map(|position| (index * 131 + position * 197 + position * position * 7) as u8));
        Record {
            key: Some(format!("key-{index}").into_bytes()),
            value: Some(value),
            headers: vec![("index".to_string(), Some(index.to_string().into_bytes()))],
            timestamp: crate::batch::now_ms(),
        }
    };
    (0..count).map(one).collect()
}

/// Tombstones, empty values, empty keys, no keys: none of them may turn into another.
pub fn odd_records() -> Vec<Record> {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let pairs = [
        (bytes("tombstone"), None),
        (bytes("empty value"), bytes("")),
        (bytes(""), bytes("empty key")),
        (None, bytes("no key")),
        (None, None),
        (bytes(""), bytes("")),
    ];
    pairs.into_iter().map(|(key, value)| Record { key, value, ..Record::default() }).collect()
}

/// Order and repetition count; an empty value is not a missing one; a key may hold any letter.
pub fn headers_of_every_kind() -> Vec<(String, Option<Vec<u8>>)> {
    let pairs = [
        ("a", Some(&b"1"[..])),
        ("a", Some(b"2")),
        ("empty", Some(b"")),
        ("missing", None),
        ("größe", Some(&[0, 127, 255])),
        ("a", Some(b"3")),
    ];
    pairs.into_iter().map(|(name, content)| (name.to_string(), content.map(<[u8]>::to_vec))).collect()
}

/// A value of 1 MiB that does not compress to nothing.
pub fn one_mib() -> Vec<u8> {
    (0..1usize << 20).map(|position| (position * 7919 % 251) as u8).collect()
}

/// Keys, values and headers are equal, record by record; timestamps are the client's own affair.
pub fn assert_same(got: &[Record], expected: &[Record]) {
    assert_eq!(got.len(), expected.len(), "records");
    for (position, (one, other)) in got.iter().zip(expected).enumerate() {
        assert!(one.key == other.key && one.value == other.value && one.headers == other.headers, "record {position} came back otherwise");
    }
}
