//! Bitmaps, in which the first bit is the lowest one of the first byte.

use super::lanes::{Lanes, on_path};
use crate::isa::Path;

/// A writer of consecutive bits; each row begins with a new byte.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// The last `count` bits (less than 64), which are not among the bytes yet.
    word: u64,
    count: u32,
}

impl BitWriter {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Appends the lowest `count` (at most 64) bits of `bits`, which has no others.
    #[inline(always)]
    pub fn push(&mut self, bits: u64, count: u32) {
        self.word |= bits << self.count;
        let all = self.count + count;
        if all < 64 {
            self.count = all;
            return;
        }
        self.bytes.extend_from_slice(&self.word.to_le_bytes());
        self.word = bits.checked_shr(64 - self.count).unwrap_or(0);
        self.count = all - 64;
    }

    /// Fills the last byte with zeros.
    pub fn end_row(&mut self) {
        let bytes = self.count.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.word.to_le_bytes()[..bytes]);
        (self.word, self.count) = (0, 0);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns at least 57 bits from position `bit` on, or all that there are, followed by zeros.
#[inline(always)]
pub(super) fn bits_at(bitmap: &[u8], bit: usize) -> u64 {
    let bytes = &bitmap[bit / 8..];
    let word = match bytes.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    word >> (bit % 8)
}

/// Returns the 64 bits from a byte on; those beyond the end are zero.
#[inline(always)]
fn word_at(bitmap: &[u8], byte: usize) -> u64 {
    bits_at(bitmap, 8 * byte)
}

/// Returns the number of ones among the first `count` bits.
pub(super) fn ones(bitmap: &[u8], count: usize) -> usize {
    let (words, _) = bitmap[..count / 8].as_chunks::<8>();
    let start = 8 * words.len();
    let rest = count - 8 * start;
    let last = if rest == 0 { 0 } else { word_at(bitmap, start) & ((1 << rest) - 1) };
    words.iter().map(|word| u64::from_le_bytes(*word).count_ones() as usize).sum::<usize>() + last.count_ones() as usize
}

/// Appends the bits of `row` at the ones of `mask`, a bitmap of the same length.
pub(super) fn extract(row: &[u8], mask: &[u8], out: &mut BitWriter, path: Path) {
    #[inline(always)]
    unsafe fn body<V: Lanes>(row: &[u8], mask: &[u8], out: &mut BitWriter) {
        for byte in (0..mask.len()).step_by(8) {
            let mask = word_at(mask, byte);
            // SAFETY: promised by the caller.
            out.push(unsafe { V::extract(word_at(row, byte), mask) }, mask.count_ones());
        }
        out.end_row();
    }
    // SAFETY: a path is only chosen where it is supported.
    unsafe { on_path!(path, body(row: &[u8], mask: &[u8], out: &mut BitWriter) -> ()) }
}

/// Writes the bits of `row`, in order, to the ones of `mask`, a bitmap as long as `out`; other bits become zero.
pub(super) fn deposit(row: &[u8], mask: &[u8], out: &mut [u8], path: Path) {
    #[inline(always)]
    unsafe fn body<V: Lanes>(row: &[u8], mask: &[u8], out: &mut [u8]) {
        let mut next = 0;
        for (byte, out) in (0..).step_by(8).zip(out.chunks_mut(8)) {
            let mask = word_at(mask, byte);
            let count = mask.count_ones() as usize;
            // At most 57 bits come with one read.
            let mut bits = if count == 0 { 0 } else { bits_at(row, next) };
            if count > 57 {
                bits = bits & ((1 << 57) - 1) | bits_at(row, next + 57) << 57;
            }
            next += count;
            // SAFETY: promised by the caller.
            let word = unsafe { V::deposit(bits, mask) };
            out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
        }
    }
    // SAFETY: a path is only chosen where it is supported.
    unsafe { on_path!(path, body(row: &[u8], mask: &[u8], out: &mut [u8]) -> ()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bitmap(bits: &[bool]) -> Vec<u8> {
        bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }

    proptest! {
        #[test]
        fn bits_move_between_a_row_and_the_ones_of_a_mask(
            bits in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.8)), 0..300), cut in any::<prop::sample::Index>(),
        ) {
            let (row, mask): (Vec<bool>, Vec<bool>) = bits.iter().copied().unzip();
            let kept: Vec<bool> = bits.iter().filter(|(_, keep)| *keep).map(|(bit, _)| *bit).collect();
            let masked: Vec<bool> = bits.iter().map(|(bit, keep)| *bit && *keep).collect();
            for path in Path::available() {
                let mut found = BitWriter::default();
                extract(&bitmap(&row), &bitmap(&mask), &mut found, path);
                prop_assert_eq!(found.into_bytes(), bitmap(&kept));
                let mut out = vec![0xff; bits.len().div_ceil(8)];
                deposit(&bitmap(&kept), &bitmap(&mask), &mut out, path);
                prop_assert_eq!(out, bitmap(&masked));
            }
            let cut = cut.index(bits.len() + 1);
            prop_assert_eq!(ones(&bitmap(&row), cut), row[..cut].iter().filter(|bit| **bit).count());
        }

        #[test]
        fn what_is_pushed_is_written(parts in prop::collection::vec((any::<u64>(), 0..=64_u32), 0..20)) {
            let mut writer = BitWriter::default();
            let mut expected = Vec::new();
            for (bits, count) in parts {
                let bits = if count == 64 { bits } else { bits & ((1 << count) - 1) };
                writer.push(bits, count);
                expected.extend((0..count).map(|bit| bits >> bit & 1 == 1));
            }
            writer.end_row();
            prop_assert_eq!(writer.into_bytes(), bitmap(&expected));
        }
    }
}
