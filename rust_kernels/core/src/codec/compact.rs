//! Compaction: a row's values become a bitmap of its nonzeros, and the nonzeros themselves.

use std::mem::MaybeUninit;

use super::bits::BitWriter;
use super::lanes::{Lanes, MOST, on_path};
use crate::isa::Path;

/// Appends a bit for each of the values, set unless all bits of the value are zero, and the nonzeros.
pub(super) fn compact(values: &[f32], bitmap: &mut BitWriter, nonzeros: &mut Vec<f32>, path: Path) {
    #[inline(always)]
    unsafe fn body<V: Lanes>(values: &[f32], bitmap: &mut BitWriter, nonzeros: &mut Vec<f32>) {
        nonzeros.reserve(values.len() + MOST);
        let start = nonzeros.len();
        // SAFETY: the reserved part is longer than all values and one vector.
        let mut next = unsafe { nonzeros.as_mut_ptr().add(start) };
        for part in values.chunks(64) {
            let (mut bits, mut at) = (0_u64, 0);
            while at < part.len() {
                let left = part.len() - at;
                // SAFETY: a whole vector is left, or its copy is that long.
                let vector = unsafe {
                    if left >= V::COUNT {
                        V::load(part.as_ptr().add(at))
                    } else {
                        let mut padded = [0.0; MOST];
                        padded[..left].copy_from_slice(&part[at..]);
                        V::load(padded.as_ptr())
                    }
                };
                // SAFETY: no more nonzeros than values were written before, and a vector fits behind those.
                unsafe {
                    let mask = vector.nonzero();
                    vector.compact(mask, next);
                    next = next.add(mask.count_ones() as usize);
                    bits |= u64::from(mask) << at;
                }
                at += V::COUNT;
            }
            bitmap.push(bits, part.len() as u32);
        }
        // SAFETY: the nonzeros up to `next` are written.
        unsafe { nonzeros.set_len(next.offset_from_unsigned(nonzeros.as_ptr())) };
    }
    // SAFETY: a path is only chosen where it is supported.
    unsafe { on_path!(path, body(values: &[f32], bitmap: &mut BitWriter, nonzeros: &mut Vec<f32>) -> ()) }
}

/// Writes all bytes of the values' planes, which are as long as the values: the highest byte first, of bits rotated left
/// by one, so that the exponent fills a byte.
pub(super) fn split(values: &[f32], planes: [&mut [MaybeUninit<u8>]; 4], path: Path) {
    assert!(planes.iter().all(|plane| plane.len() == values.len()), "a byte of each plane for each value");
    // The compiler turns this loop into the narrowing instructions of each path.
    #[inline(always)]
    unsafe fn body<V: Lanes>(values: &[f32], [a, b, c, d]: [&mut [MaybeUninit<u8>]; 4]) {
        for ((((value, a), b), c), d) in values.iter().zip(a).zip(b).zip(c).zip(d) {
            let bits = value.to_bits().rotate_left(1);
            let [d_bits, c_bits, b_bits, a_bits] = bits.to_le_bytes();
            a.write(a_bits);
            b.write(b_bits);
            c.write(c_bits);
            d.write(d_bits);
        }
    }
    // SAFETY: a path is only chosen where it is supported.
    unsafe { on_path!(path, body(values: &[f32], planes: [&mut [MaybeUninit<u8>]; 4]) -> ()) }
}
