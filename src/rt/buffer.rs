//! Memory for direct I/O: buffers that begin on a 4 KiB border, as O_DIRECT asks, and that turn into `Bytes` without a copy.
//!
//! A buffer is filled by its one owner, then frozen; what is frozen never changes, so the ring, the tail cache and any number of sends may hold it at once, on any core.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;

/// Border on which every buffer begins and to whose multiple its capacity is rounded. Direct I/O wants the logical block of the device, 512 or 4096 bytes; 4096 serves both and is the page size.
pub const ALIGNMENT_BYTES: usize = 4096;

/// Growable bytes whose first byte lies on a 4 KiB border.
///
/// The memory behind the length is not initialised: a large buffer that is about to be filled costs no zeroing. Lives anywhere: it is `Send`.
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
        Self { pointer: allocate(capacity, false), capacity, length: 0 }
    }

    /// A buffer of `length` zero bytes.
    pub fn zeroed(length: usize) -> Self {
        let capacity = length.next_multiple_of(ALIGNMENT_BYTES);
        Self { pointer: allocate(capacity, true), capacity, length }
    }

    /// Bytes that fit before the buffer has to move.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends; moves to an allocation of at least twice the size when the room is used up.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        // SAFETY: the room behind the length was just made, and a borrowed slice cannot lie in a buffer that is borrowed mutably.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.spare_pointer(), bytes.len()) };
        self.length += bytes.len();
    }

    /// Makes room for `additional` more bytes.
    pub fn reserve(&mut self, additional: usize) {
        let needed = self.length.checked_add(additional).expect("a buffer's length fits in usize");
        if needed <= self.capacity {
            return;
        }
        let mut larger = Self::with_capacity(needed.max(self.capacity * 2));
        larger.extend_from_slice(self);
        *self = larger;
    }

    /// Cuts to `length`, or grows to it with `fill`.
    pub fn resize(&mut self, length: usize, fill: u8) {
        let start = self.length;
        if length > start {
            self.reserve(length - start);
            // SAFETY: the room behind the length was just made.
            unsafe { self.spare_pointer().write_bytes(fill, length - start) };
        }
        self.length = length;
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

    /// Where the next byte would go; room for `capacity - len` of them.
    pub(super) fn spare_pointer(&mut self) -> *mut u8 {
        // SAFETY: `length <= capacity`, so this is inside the allocation or one past its end.
        unsafe { self.pointer.as_ptr().add(self.length) }
    }

    /// Counts `bytes` more as filled.
    ///
    /// # Safety
    /// They have been written, from `spare_pointer` on, and fit into the capacity.
    pub(super) unsafe fn assume_filled(&mut self, bytes: usize) {
        assert!(bytes <= self.capacity - self.length, "more was filled than there is room");
        self.length += bytes;
    }

    /// The bytes as they are now, for ever; no copy. The first byte keeps its border.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `capacity` bytes, of which `length` are initialised: the length only grows over bytes that were written.
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

fn allocate(capacity: usize, zeroed: bool) -> NonNull<u8> {
    if capacity == 0 {
        return NonNull::<Page>::dangling().cast();
    }
    // SAFETY: the layout's size is not zero.
    let pointer = unsafe { if zeroed { alloc_zeroed(layout(capacity)) } else { alloc(layout(capacity)) } };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout(capacity)))
}

/// Lends its alignment to the pointer of a buffer that owns no memory yet.
#[repr(align(4096))]
struct Page;

const _: () = assert!(align_of::<Page>() == ALIGNMENT_BYTES);

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT_BYTES).expect("a buffer is smaller than half the address space")
}

/// Memory that is written from front to back once, while what is written already is shared: the journal collects a group in it, and the tail cache holds its batches before the
/// group is complete.
///
/// Fixed in size, begins on a 4 KiB border, is not cleared when made. One place at a time may be left open (`append_hole`) and filled later; nothing that touches it can be shared
/// until then. Lives where its owner lives; what it shares is `Bytes` and goes anywhere.
pub struct AppendBuffer {
    memory: Arc<SharedMemory>,
    length: usize,
    hole: Option<Range<usize>>,
}

/// Written by the one `AppendBuffer`, read through `SharedPart`s.
struct SharedMemory {
    pointer: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the allocation belongs to this value alone and bytes have no tie to a thread. Who writes and who reads is settled in `AppendBuffer`: never the same bytes.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

/// A range that will not be written again.
struct SharedPart {
    memory: Arc<SharedMemory>,
    range: Range<usize>,
}

impl AppendBuffer {
    /// An empty buffer of at least `bytes`, rounded up to a multiple of 4 KiB.
    pub fn with_capacity(bytes: usize) -> Self {
        let capacity = bytes.max(1).next_multiple_of(ALIGNMENT_BYTES);
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc(layout(capacity)) };
        let pointer = NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout(capacity)));
        Self { memory: Arc::new(SharedMemory { pointer, capacity }), length: 0, hole: None }
    }

    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Bytes written so far, an open hole included.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that can still be appended.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.length
    }

    /// Appends; panics where they do not fit, which the caller has asked before.
    pub fn append(&mut self, bytes: &[u8]) {
        let start = self.advance(bytes.len());
        // SAFETY: `advance` has checked that `start..start + bytes.len()` lies in the allocation. It lies behind all that was written before, so no `SharedPart` covers it; and
        // `bytes` cannot overlap it, because only written bytes can be borrowed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.pointer.as_ptr().add(start), bytes.len()) }
    }

    /// Leaves `length` bytes to be filled later. One hole at a time.
    pub fn append_hole(&mut self, length: usize) {
        assert!(self.hole.is_none(), "the hole before is filled first");
        let start = self.advance(length);
        self.hole = Some(start..start + length);
    }

    /// Fills the hole; `bytes` have its length.
    pub fn fill_hole(&mut self, bytes: &[u8]) {
        let hole = self.hole.take().expect("a hole is open");
        assert_eq!(bytes.len(), hole.len(), "a hole is filled in one piece");
        // SAFETY: the hole lies in the allocation, and `share` hands out nothing that touches it before this call, so nobody reads it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.pointer.as_ptr().add(hole.start), bytes.len()) }
    }

    /// Appends zeros up to the next multiple of `border` bytes.
    pub fn pad_to(&mut self, border: usize) {
        let padding = self.length.next_multiple_of(border) - self.length;
        let start = self.advance(padding);
        // SAFETY: as in `append`.
        unsafe { std::ptr::write_bytes(self.memory.pointer.as_ptr().add(start), 0, padding) }
    }

    /// What was written in `range`, without a copy; it keeps the whole buffer's memory.
    pub fn share(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.length, "only written bytes are shared");
        let touches_hole = self.hole.as_ref().is_some_and(|hole| range.start < hole.end && hole.start < range.end);
        assert!(!touches_hole, "a hole is filled before it is shared");
        Bytes::from_owner(SharedPart { memory: self.memory.clone(), range })
    }

    /// What was written in `range`, to look at. A hole in it is not to be looked at before it is filled.
    pub fn get(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.length, "only written bytes are looked at");
        let touches_hole = self.hole.as_ref().is_some_and(|hole| range.start < hole.end && hole.start < range.end);
        assert!(!touches_hole, "a hole is filled before it is looked at");
        // SAFETY: the range is written and inside the allocation; appends and fills, which touch other bytes only, need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.pointer.as_ptr().add(range.start), range.len()) }
    }

    fn advance(&mut self, bytes: usize) -> usize {
        assert!(bytes <= self.remaining(), "room was asked for first");
        let start = self.length;
        self.length += bytes;
        start
    }
}

impl AsRef<[u8]> for SharedPart {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `AppendBuffer::share` gives out only ranges inside the allocation that are written and that no later append or fill touches; the memory lives as long as its Arc.
        unsafe { std::slice::from_raw_parts(self.memory.pointer.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout in `with_capacity`, freed once, when nobody refers to it any more.
        unsafe { dealloc(self.pointer.as_ptr(), layout(self.capacity)) }
    }
}

impl fmt::Debug for AppendBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AppendBuffer").field("length", &self.length).field("capacity", &self.capacity()).finish()
    }
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

    /// Parts that were shared early stay as they are while the buffer grows, and its group is one piece of aligned memory at the end.
    #[test]
    fn an_append_buffer_shares_what_is_written_while_it_grows() {
        let mut buffer = AppendBuffer::with_capacity(5000);
        assert_eq!(buffer.capacity(), 8192);
        buffer.append_hole(4);
        buffer.append(b"one");
        let first = buffer.share(4..7);
        buffer.append(b"two");
        let second = buffer.share(7..10);
        buffer.fill_hole(b"head");
        buffer.pad_to(4096);
        let whole = buffer.share(0..4096);
        drop(buffer);
        assert_eq!((&first[..], &second[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(&whole[..12], b"headonetwo\0\0");
        assert_eq!(whole.as_ptr() as usize % ALIGNMENT_BYTES, 0);
        assert_eq!(first.as_ptr(), whole[4..].as_ptr());
    }

    #[test]
    #[should_panic(expected = "filled before it is shared")]
    fn an_open_hole_is_not_shared() {
        let mut buffer = AppendBuffer::with_capacity(4096);
        buffer.append_hole(4);
        buffer.append(b"one");
        buffer.share(0..7);
    }
}
