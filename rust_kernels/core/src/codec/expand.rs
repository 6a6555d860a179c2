//! Expansion: a bitmap and the nonzeros become a row's values again.

use super::TABLE;
use super::bits::bits_at;
use super::lanes::{Lanes, MOST, on_path};
use crate::isa::Path;

/// The nonzeros of all rows of a block, as they are encoded.
#[derive(Clone, Copy)]
pub(super) enum Nonzeros<'a> {
    One(f32),
    Table {
        table: &'a [f32; TABLE],
        codes: &'a [u8],
    },
    /// Byte planes of the same length, the highest first, of bits that are rotated left by one.
    Planes([&'a [u8]; 4]),
}

/// Writes to `out` the values whose bits begin at position `first` of `bitmap`; the first nonzero is number `next`.
/// Returns the number of the nonzero that follows.
///
/// # Panics
/// If there are fewer nonzeros or bits.
pub(super) fn expand(
    bitmap: &[u8],
    first: usize,
    nonzeros: &Nonzeros<'_>,
    next: usize,
    out: &mut [f32],
    path: Path,
) -> usize {
    // SAFETY: a path is only chosen where it is supported.
    unsafe {
        on_path!(
            path,
            body(bitmap: &[u8], first: usize, nonzeros: &Nonzeros<'_>, next: usize, out: &mut [f32]) -> usize
        )
    }
}

/// # Safety
/// The processor supports the vectors.
#[inline(always)]
unsafe fn body<V: Lanes>(
    bitmap: &[u8],
    first: usize,
    nonzeros: &Nonzeros<'_>,
    mut next: usize,
    out: &mut [f32],
) -> usize {
    for at in (0..out.len()).step_by(V::COUNT) {
        let left = out.len() - at;
        let lanes = left.min(V::COUNT);
        let mask = (bits_at(bitmap, first + at) & ((1 << lanes) - 1)) as u32;
        // SAFETY: promised by the caller; whole vectors stay within `out`.
        unsafe {
            let values = fetch::<V>(nonzeros, next).expand(mask);
            if left >= V::COUNT {
                values.store(out.as_mut_ptr().add(at));
            } else {
                let mut padded = [0.0; MOST];
                values.store(padded.as_mut_ptr());
                out[at..].copy_from_slice(&padded[..left]);
            }
        }
        next += mask.count_ones() as usize;
    }
    next
}

/// Returns consecutive nonzeros, followed by anything if there are fewer than lanes.
///
/// # Safety
/// The processor supports the vectors.
#[inline(always)]
unsafe fn fetch<V: Lanes>(nonzeros: &Nonzeros<'_>, at: usize) -> V {
    // SAFETY: promised by the caller; a whole vector of bytes is there, or its copy is that long.
    unsafe {
        match *nonzeros {
            Nonzeros::One(value) => V::splat(value),
            Nonzeros::Table { table, codes } if at + V::COUNT <= codes.len() => {
                V::look_up(table.as_ptr(), codes.as_ptr().add(at))
            }
            Nonzeros::Table { table, codes } => V::look_up(table.as_ptr(), padded(codes, at).as_ptr()),
            Nonzeros::Planes(planes) if at + V::COUNT <= planes[3].len() => {
                V::join(planes.map(|plane| plane.as_ptr().add(at)))
            }
            Nonzeros::Planes(planes) => {
                let planes = planes.map(|plane| padded(plane, at));
                V::join([planes[0].as_ptr(), planes[1].as_ptr(), planes[2].as_ptr(), planes[3].as_ptr()])
            }
        }
    }
}

fn padded(bytes: &[u8], at: usize) -> [u8; MOST] {
    let mut padded = [0; MOST];
    padded.iter_mut().zip(&bytes[at..]).for_each(|(to, from)| *to = *from);
    padded
}
