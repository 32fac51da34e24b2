//! The bytes of a file, in pages that copies share until one of them is written to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// Bytes and length. What was never written reads as zeros.
#[derive(Clone, Default)]
pub struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    length: u64,
}

impl Content {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Up to `count` bytes from `position` on; fewer only where the file ends.
    pub fn read(&self, position: u64, count: u64) -> Vec<u8> {
        let end = (position + count).min(self.length);
        let mut bytes = vec![0; end.saturating_sub(position) as usize];
        for (number, range, at) in pages_of(position, bytes.len()) {
            if let Some(page) = self.pages.get(&number) {
                let length = range.len();
                bytes[at..at + length].copy_from_slice(&page[range]);
            }
        }
        bytes
    }

    /// Puts bytes in their place; the file grows to cover them.
    pub fn write(&mut self, position: u64, bytes: &[u8]) {
        for (number, range, at) in pages_of(position, bytes.len()) {
            let page = Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize])));
            let length = range.len();
            page[range].copy_from_slice(&bytes[at..at + length]);
        }
        self.length = self.length.max(position + bytes.len() as u64);
    }

    /// Cuts, or extends with zeros.
    pub fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE_BYTES));
            let kept = (length % PAGE_BYTES) as usize;
            if let Some(page) = self.pages.get_mut(&(length / PAGE_BYTES)).filter(|_| kept > 0) {
                Arc::make_mut(page)[kept..].fill(0);
            }
        }
        self.length = length;
    }

    /// Turns one bit over; where.
    pub fn flip_bit(&mut self, random: u64) -> u64 {
        let position = random % self.length;
        let mut byte = self.read(position, 1);
        byte[0] ^= 1 << (random >> 32 & 7);
        self.write(position, &byte);
        position
    }
}

/// The pages that `count` bytes at `position` touch: number, range within the page, and where that range begins in the bytes.
fn pages_of(position: u64, count: usize) -> impl Iterator<Item = (u64, Range<usize>, usize)> {
    let end = position + count as u64;
    let numbers = if count == 0 { 0..0 } else { position / PAGE_BYTES..end.div_ceil(PAGE_BYTES) };
    numbers.map(move |number| {
        let start = position.max(number * PAGE_BYTES);
        let stop = end.min((number + 1) * PAGE_BYTES);
        let within = (start - number * PAGE_BYTES) as usize..(stop - number * PAGE_BYTES) as usize;
        (number, within, (start - position) as usize)
    })
}

pub mod cases {
    use super::*;

    /// What is written is read again, across pages; what a cut took away reads as zeros when the file grows again.
    pub fn bytes_come_back() {
        let mut content = Content::default();
        let bytes: Vec<u8> = (0..10_000u32).map(|number| number as u8 | 1).collect();
        content.write(3_000, &bytes);
        assert_eq!((content.length(), content.read(3_000, 10_000)), (13_000, bytes.clone()));
        assert_eq!(content.read(0, 3_000), vec![0; 3_000]);
        let copy = content.clone();
        content.set_length(5_000);
        content.set_length(20_000);
        assert_eq!(content.read(3_000, 2_000), bytes[..2_000]);
        assert_eq!(content.read(5_000, 20_000), vec![0; 15_000]);
        assert_eq!(copy.read(3_000, 20_000), bytes, "a copy has its own");
    }
}
