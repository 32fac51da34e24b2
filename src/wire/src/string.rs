//! `Str`: a string that is a slice of the bytes it came in.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use bytes::Bytes;
use bytestring::ByteString;

/// An immutable UTF-8 string backed by [`Bytes`]: cloning counts a reference, decoding copies nothing.
///
/// A decoded `Str` keeps the whole frame alive that it was read from. Whatever outlives its request (a group's member id, a topic's name) is stored as [`Str::detached`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(ByteString);

impl Str {
    pub const fn from_static(text: &'static str) -> Str {
        Str(ByteString::from_static(text))
    }

    pub fn from_utf8(bytes: Bytes) -> Result<Str, Utf8Error> {
        ByteString::try_from(bytes).map(Str)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy in memory of its own, which lets go of the frame.
    pub fn detached(&self) -> Str {
        Str::from(self.as_str())
    }

    pub fn as_bytes(&self) -> &Bytes {
        self.0.as_bytes()
    }

    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str(ByteString::from(text))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str(ByteString::from(text))
    }
}

impl From<&String> for Str {
    fn from(text: &String) -> Str {
        Str::from(text.as_str())
    }
}

impl From<Str> for String {
    fn from(text: Str) -> String {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Str {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A map keyed by `Str` is asked with a `&str`: both hash and order alike.
    #[test]
    fn strings_are_found_by_str() {
        let frame = Bytes::from_static(b"\x03one");
        let one = Str::from_utf8(frame.slice(1..)).unwrap();
        let map = HashMap::from([(one.clone(), 1)]);
        assert_eq!(map.get("one"), Some(&1));
        assert_eq!(one, "one");
        let (a, b) = (Str::from("a"), Str::from_static("b"));
        assert!(a < b);
        assert_eq!((format!("{one}"), format!("{one:?}")), ("one".to_owned(), "\"one\"".to_owned()));
    }

    /// A detached string lies elsewhere; bytes that are no UTF-8 are no string.
    #[test]
    fn strings_are_slices_until_detached() {
        let frame = Bytes::from(b"some frame".to_vec());
        let slice = Str::from_utf8(frame.slice(5..)).unwrap();
        assert_eq!(slice.as_ptr(), frame[5..].as_ptr());
        assert_eq!(slice.detached(), slice);
        assert_ne!(slice.detached().as_ptr(), slice.as_ptr());
        assert!(Str::from_utf8(Bytes::from_static(&[0xff])).is_err());
    }
}
