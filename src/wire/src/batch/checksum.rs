//! CRC-32C, the checksum of record batches.

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// A CRC-32C that is computed slice by slice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crc32c {
    value: u32,
}

impl Crc32c {
    pub fn new() -> Crc32c {
        Crc32c::default()
    }

    pub fn update(&mut self, slice: &[u8]) {
        self.value = crc32c::crc32c_append(self.value, slice);
    }

    pub fn value(self) -> u32 {
        self.value
    }
}
