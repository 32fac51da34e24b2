//! Reading a segment's batches one after the other, after a crash: which of them are the log, and where it ends.
//!
//! A machine over bytes: the caller hands over what it has read from the position that the scan stands at, and reads more when asked to. A batch belongs to the log if its
//! checksum holds, its base offset is the expected next one and its leader epoch does not fall; the checksum covers neither of these two, so a stale block of an earlier use
//! of the disk could bear a sound batch. Zeros are where the log was not written yet.

use super::batch::{BATCH_HEADER_BYTES, BatchInfo};

/// Why a scan ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// At the end of the bytes, or at zeros: nothing more was written.
    Clean,
    /// The last batch is cut short by the end of the file.
    Incomplete,
    /// Bytes that are no batch, or one with a wrong checksum.
    Damaged,
    /// A sound batch that does not belong here: not the next offset, or an earlier leader epoch.
    OutOfOrder { base_offset: i64, leader_epoch: i32 },
}

/// What the scan says of the bytes it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanStep {
    /// A batch of the log, `info.size_bytes` long. The scan stands behind it.
    Batch(BatchInfo),
    /// At least so many bytes from the scan's position on are needed.
    NeedBytes(usize),
    End(ScanEnd),
}

/// The state between two steps.
#[derive(Clone, Debug)]
pub struct SegmentScan {
    position: u32,
    next_offset: i64,
    leader_epoch: i32,
    gaps_allowed: bool,
}

impl SegmentScan {
    /// From `position` on, where the batch with `next_offset` is expected under `leader_epoch` or a later one (-1: any). `gaps_allowed` for segments that compaction has been
    /// through, here or at the leader: offsets still rise there, but not one by one.
    pub fn new(position: u32, next_offset: i64, leader_epoch: i32, gaps_allowed: bool) -> Self {
        Self { position, next_offset, leader_epoch, gaps_allowed }
    }

    /// Bytes of the segment that are the log, so far.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// The offset after the last batch.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Looks at the bytes from `position()` on. `bytes_left` is what the file has from there; `bytes` may be less of it.
    pub fn step(&mut self, bytes: &[u8], bytes_left: u64) -> ScanStep {
        if bytes_left == 0 {
            return ScanStep::End(ScanEnd::Clean);
        }
        if bytes_left < BATCH_HEADER_BYTES as u64 {
            return match bytes.len() as u64 == bytes_left {
                false => ScanStep::NeedBytes(bytes_left as usize),
                true if is_zero(bytes) => ScanStep::End(ScanEnd::Clean),
                true => ScanStep::End(ScanEnd::Incomplete),
            };
        }
        let Some(header) = bytes.get(..BATCH_HEADER_BYTES) else { return ScanStep::NeedBytes(BATCH_HEADER_BYTES) };
        let Some(info) = BatchInfo::decode(header) else {
            return ScanStep::End(if is_zero(header) { ScanEnd::Clean } else { ScanEnd::Damaged });
        };
        if u64::from(info.size_bytes) > bytes_left {
            return ScanStep::End(ScanEnd::Incomplete);
        }
        if bytes.len() < info.size_bytes as usize {
            return ScanStep::NeedBytes(info.size_bytes as usize);
        }
        if !info.is_intact(bytes) {
            return ScanStep::End(ScanEnd::Damaged);
        }
        if !self.continues_with(&info) {
            return ScanStep::End(ScanEnd::OutOfOrder { base_offset: info.base_offset, leader_epoch: info.leader_epoch });
        }
        self.position += info.size_bytes;
        self.next_offset = info.last_offset() + 1;
        self.leader_epoch = info.leader_epoch;
        ScanStep::Batch(info)
    }

    fn continues_with(&self, info: &BatchInfo) -> bool {
        let offset_follows = if self.gaps_allowed { info.base_offset >= self.next_offset } else { info.base_offset == self.next_offset };
        offset_follows && info.leader_epoch >= self.leader_epoch && self.position.checked_add(info.size_bytes).is_some()
    }
}

/// Reads past batches without believing or disbelieving their content: which batch holds an offset, where one begins. For segments that are known to be sound.
pub fn first_reaching(bytes: &[u8], offset: i64) -> Walk {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        if rest.len() < BATCH_HEADER_BYTES {
            return Walk::Beyond { length_bytes: at as u64 };
        }
        let Some(info) = BatchInfo::decode(rest) else { return Walk::NoBatch { at } };
        if info.last_offset() >= offset {
            return Walk::Found { at, info };
        }
        let Some(next) = at.checked_add(info.size_bytes as usize).filter(|&next| next <= bytes.len()) else {
            return Walk::Beyond { length_bytes: at as u64 + u64::from(info.size_bytes) };
        };
        at = next;
    }
}

/// Where a walk over batches ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The batch begins at this place of the bytes; they need not hold all of it.
    Found { at: usize, info: BatchInfo },
    /// Go on reading so many bytes behind the beginning; at least a header's length.
    Beyond { length_bytes: u64 },
    /// No batch begins where one should: the file is damaged here.
    NoBatch { at: usize },
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A batch without meaning in its records: right header, right checksum.
    pub fn encoded(base_offset: i64, leader_epoch: i32, count: i32, payload_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; BATCH_HEADER_BYTES];
        bytes.extend((0..payload_bytes).map(|index| index as u8 | 1));
        let length = (bytes.len() - 12) as i32;
        bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        bytes[16] = 2;
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[35..43].copy_from_slice(&(1_000 + base_offset).to_be_bytes());
        bytes[43..51].copy_from_slice(&(-1i64).to_be_bytes());
        bytes[51..53].copy_from_slice(&(-1i16).to_be_bytes());
        bytes[53..57].copy_from_slice(&(-1i32).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Feeds the scan as a reader would that gets `chunk` bytes at a time.
    fn scan(file: &[u8], mut scan: SegmentScan, chunk: usize) -> (Vec<i64>, SegmentScan, ScanEnd) {
        let mut offsets = Vec::new();
        let mut have = chunk;
        loop {
            let rest = &file[scan.position() as usize..];
            match scan.step(&rest[..have.min(rest.len())], rest.len() as u64) {
                ScanStep::Batch(info) => offsets.push(info.base_offset),
                ScanStep::NeedBytes(needed) => {
                    assert!(needed > have, "progress");
                    have = needed;
                }
                ScanStep::End(end) => return (offsets, scan, end),
            }
        }
    }

    #[test]
    fn the_log_ends_at_zeros_a_torn_batch_or_a_stranger() {
        let sound = [encoded(10, 1, 5, 100), encoded(15, 2, 1, 7)].concat();
        let begin = || SegmentScan::new(0, 10, 0, false);
        let ends = |tail: &[u8]| {
            let (offsets, scan, end) = scan(&[&sound, tail].concat(), begin(), 1);
            assert_eq!((offsets, scan.position() as usize, scan.next_offset(), scan.leader_epoch()), (vec![10, 15], sound.len(), 16, 2));
            end
        };
        let next = encoded(16, 2, 1, 50);
        let mut flipped = next.clone();
        flipped[80] ^= 1;
        assert_eq!(ends(&[]), ScanEnd::Clean);
        assert_eq!(ends(&[0; 20]), ScanEnd::Clean);
        assert_eq!(ends(&[0; 4096]), ScanEnd::Clean);
        assert_eq!(ends(&next[..20]), ScanEnd::Incomplete);
        assert_eq!(ends(&next[..90]), ScanEnd::Incomplete);
        assert_eq!(ends(&flipped), ScanEnd::Damaged);
        assert_eq!(ends(&[7; 100]), ScanEnd::Damaged);
        assert_eq!(ends(&encoded(17, 2, 1, 5)), ScanEnd::OutOfOrder { base_offset: 17, leader_epoch: 2 });
        assert_eq!(ends(&encoded(16, 1, 1, 5)), ScanEnd::OutOfOrder { base_offset: 16, leader_epoch: 1 });
    }

    #[test]
    fn compacted_segments_may_have_gaps_but_never_fall() {
        let file = [encoded(10, 1, 5, 10), encoded(40, 1, 1, 7), encoded(40, 1, 1, 7)].concat();
        let (offsets, _, end) = scan(&file, SegmentScan::new(0, 0, -1, true), 4096);
        assert_eq!((offsets, end), (vec![10, 40], ScanEnd::OutOfOrder { base_offset: 40, leader_epoch: 1 }));
    }

    #[test]
    fn a_walk_finds_the_batch_that_holds_an_offset() {
        let file = [encoded(10, 1, 5, 10), encoded(15, 1, 3, 1_000), encoded(18, 1, 1, 7)].concat();
        assert!(matches!(first_reaching(&file, 12), Walk::Found { at: 0, .. }));
        assert!(matches!(first_reaching(&file, 15), Walk::Found { at: 71, .. }));
        assert!(matches!(first_reaching(&file[..200], 17), Walk::Found { at: 71, .. }), "its header is enough");
        assert_eq!(first_reaching(&file[..200], 18), Walk::Beyond { length_bytes: 71 + 1_061 });
        assert_eq!(first_reaching(&file[..80], 18), Walk::Beyond { length_bytes: 71 });
        assert_eq!(first_reaching(&file, 19), Walk::Beyond { length_bytes: file.len() as u64 });
        assert_eq!(first_reaching(&[0; 100], 19), Walk::NoBatch { at: 0 });
    }

    proptest! {
        /// Whatever happens to one byte of the file, what the scan accepts is a prefix of what was written.
        #[test]
        fn damage_leaves_a_prefix(counts in proptest::collection::vec(1..5i32, 1..8), at in 0usize..2_000, flip in 1u8.., chunk in 1usize..500) {
            let mut next = 0;
            let mut file = Vec::new();
            let mut bases = Vec::new();
            for count in counts {
                bases.push(next);
                file.extend(encoded(next, 3, count, 40));
                next += i64::from(count);
            }
            let at = at % file.len();
            file[at] ^= flip;
            let (offsets, scan, _) = scan(&file, SegmentScan::new(0, 0, 0, false), chunk);
            let damaged_batch = at / 101;
            prop_assert!(offsets.len() >= damaged_batch.min(bases.len()));
            prop_assert_eq!(&offsets[..], &bases[..offsets.len()]);
            prop_assert!(scan.position() as usize <= file.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), offset in any::<i64>()) {
            scan(&bytes, SegmentScan::new(0, 0, -1, true), 16);
            first_reaching(&bytes, offset);
        }
    }
}
