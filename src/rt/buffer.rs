//! Memory for direct I/O: buffers that begin on a 4 KiB border, as O_DIRECT asks, and that turn into `Bytes` without a copy.
//!
//! A buffer is filled by its one owner, then frozen; what is frozen never changes, so the ring, the tail cache and any number of sends may hold it at once, on any core.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytes::Bytes;

/// Border on which every buffer begins and to whose multiple its capacity is rounded. Direct I/O wants the logical block of the device, 512 or 4096 bytes; 4096 serves both and is the page size.
pub const ALIGNMENT_BYTES: usize = 4096;

/// Growable bytes whose first byte lies on a 4 KiB border.
///
/// Bytes between the length and the capacity are always initialised (zero until written), so that growing by `resize` costs only what it fills. Lives anywhere: it is `Send`.
pub struct AlignedBuffer {
    pointer: NonNull<u8>,
    capacity: usize,
    length: usize,
}

// SAFETY: the buffer owns its allocation alone; nothing else holds the pointer, and bytes have no tie to a thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// An empty buffer with room for at least `bytes`, rounded up to a multiple of 4 KiB. No memory is taken for 0.
    pub fn with_capacity(bytes: usize) -> Self {
        let capacity = bytes.next_multiple_of(ALIGNMENT_BYTES);
        Self { pointer: allocate(capacity), capacity, length: 0 }
    }

    /// A buffer of `length` zero bytes.
    pub fn zeroed(length: usize) -> Self {
        let mut buffer = Self::with_capacity(length);
        buffer.length = length;
        buffer
    }

    /// Bytes that fit before the buffer has to move.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends; moves to an allocation of at least twice the size when the room is used up.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.length;
        self.reserve(bytes.len());
        self.length += bytes.len();
        self[start..].copy_from_slice(bytes);
    }

    /// Makes room for `additional` more bytes.
    pub fn reserve(&mut self, additional: usize) {
        let needed = self.length.checked_add(additional).expect("a buffer's length fits in usize");
        if needed <= self.capacity {
            return;
        }
        let mut larger = Self::with_capacity(needed.max(self.capacity * 2));
        larger.length = self.length;
        larger.copy_from_slice(self);
        *self = larger;
    }

    /// Cuts to `length`, or grows to it with `fill`.
    pub fn resize(&mut self, length: usize, fill: u8) {
        let start = self.length;
        if length > start {
            self.reserve(length - start);
            self.length = length;
            self[start..].fill(fill);
        } else {
            self.length = length;
        }
    }

    /// Cuts to `length`; a longer one changes nothing.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Forgets the bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Grows with zeros to the next multiple of `border` bytes and says how many were added.
    pub fn pad_to(&mut self, border: usize) -> usize {
        let padded = self.length.next_multiple_of(border);
        let added = padded - self.length;
        self.resize(padded, 0);
        added
    }

    /// The bytes as they are now, for ever; no copy. The first byte keeps its border.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `capacity` initialised bytes (allocated zeroed) and `length <= capacity`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated in `allocate` with this very layout, freed once.
            unsafe { dealloc(self.pointer.as_ptr(), layout(self.capacity)) }
        }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AlignedBuffer").field("length", &self.length).field("capacity", &self.capacity).finish()
    }
}

fn allocate(capacity: usize) -> NonNull<u8> {
    if capacity == 0 {
        return NonNull::<Page>::dangling().cast();
    }
    // SAFETY: the layout's size is not zero.
    let pointer = unsafe { alloc_zeroed(layout(capacity)) };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout(capacity)))
}

/// Lends its alignment to the pointer of a buffer that owns no memory yet.
#[repr(align(4096))]
struct Page;

const _: () = assert!(align_of::<Page>() == ALIGNMENT_BYTES);

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT_BYTES).expect("a buffer is smaller than half the address space")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Growth keeps the bytes and the border, and what is frozen is the same memory.
    #[test]
    fn a_buffer_grows_aligned_and_freezes_in_place() {
        let mut buffer = AlignedBuffer::with_capacity(1);
        assert_eq!(buffer.capacity(), 4096);
        buffer.extend_from_slice(&[7; 4096]);
        buffer.extend_from_slice(b"x");
        assert_eq!((buffer.len(), buffer.capacity()), (4097, 8192));
        assert_eq!(buffer.pad_to(4096), 4095);
        assert_eq!(buffer[4096..4099], [b'x', 0, 0]);
        let address = buffer.as_ptr();
        assert_eq!(address as usize % ALIGNMENT_BYTES, 0);

        let bytes = buffer.freeze();
        assert_eq!(bytes.as_ptr(), address);
        assert_eq!(bytes.slice(4096..).as_ptr() as usize % ALIGNMENT_BYTES, 0);
    }

    /// A buffer that was cut and grown again shows the fill, not what stood there before.
    #[test]
    fn growing_after_a_cut_does_not_bring_old_bytes_back() {
        let mut buffer = AlignedBuffer::zeroed(8);
        buffer.fill(9);
        buffer.truncate(2);
        buffer.resize(6, 1);
        assert_eq!(&buffer[..], [9, 9, 1, 1, 1, 1]);
        assert!(AlignedBuffer::with_capacity(0).freeze().is_empty());
    }
}
