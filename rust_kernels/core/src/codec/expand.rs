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
    /// Floats, little-endian.
    Floats(&'a [u8]),
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
unsafe fn body<V: Lanes>(bitmap: &[u8], first: usize, nonzeros: &Nonzeros<'_>, next: usize, out: &mut [f32]) -> usize {
    // Each kind of nonzeros gets a loop of its own.
    // SAFETY: promised by the caller.
    unsafe {
        match *nonzeros {
            Nonzeros::One(value) => spread::<V>(bitmap, first, One(value), next, out),
            Nonzeros::Table { table, codes } => spread::<V>(bitmap, first, Table { table, codes }, next, out),
            Nonzeros::Planes(planes) => spread::<V>(bitmap, first, Planes(planes), next, out),
            Nonzeros::Floats(floats) => spread::<V>(bitmap, first, Floats(floats), next, out),
        }
    }
}

/// Nonzeros of one encoding.
trait Fetch {
    /// Returns consecutive nonzeros, followed by anything if there are fewer than lanes.
    ///
    /// # Safety
    /// The processor supports the vectors.
    unsafe fn fetch<V: Lanes>(&self, at: usize) -> V;
}

/// # Safety
/// The processor supports the vectors.
#[inline(always)]
unsafe fn spread<V: Lanes>(
    bitmap: &[u8],
    first: usize,
    nonzeros: impl Fetch,
    mut next: usize,
    out: &mut [f32],
) -> usize {
    for at in (0..out.len()).step_by(V::COUNT) {
        let left = out.len() - at;
        let lanes = left.min(V::COUNT);
        let mask = (bits_at(bitmap, first + at) & ((1 << lanes) - 1)) as u32;
        // SAFETY: promised by the caller; whole vectors stay within `out`.
        unsafe {
            let values = nonzeros.fetch::<V>(next).expand(mask);
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

struct One(f32);

impl Fetch for One {
    #[inline(always)]
    unsafe fn fetch<V: Lanes>(&self, _at: usize) -> V {
        // SAFETY: promised by the caller.
        unsafe { V::splat(self.0) }
    }
}

struct Table<'a> {
    table: &'a [f32; TABLE],
    codes: &'a [u8],
}

impl Fetch for Table<'_> {
    #[inline(always)]
    unsafe fn fetch<V: Lanes>(&self, at: usize) -> V {
        // SAFETY: promised by the caller; a whole vector of codes is there, or their copy is that long.
        unsafe {
            if at + V::COUNT <= self.codes.len() {
                V::look_up(self.table.as_ptr(), self.codes.as_ptr().add(at))
            } else {
                V::look_up(self.table.as_ptr(), padded::<MOST>(self.codes, at).as_ptr())
            }
        }
    }
}

struct Planes<'a>([&'a [u8]; 4]);

impl Fetch for Planes<'_> {
    #[inline(always)]
    unsafe fn fetch<V: Lanes>(&self, at: usize) -> V {
        // SAFETY: promised by the caller; the planes are of one length, and a whole vector is there, or their copies are
        // that long.
        unsafe {
            if at + V::COUNT <= self.0[3].len() {
                V::join(self.0.map(|plane| plane.as_ptr().add(at)))
            } else {
                let planes = self.0.map(|plane| padded::<MOST>(plane, at));
                V::join([planes[0].as_ptr(), planes[1].as_ptr(), planes[2].as_ptr(), planes[3].as_ptr()])
            }
        }
    }
}

struct Floats<'a>(&'a [u8]);

impl Fetch for Floats<'_> {
    #[inline(always)]
    unsafe fn fetch<V: Lanes>(&self, at: usize) -> V {
        const SIZE: usize = size_of::<f32>();
        // SAFETY: promised by the caller; a whole vector is there, or its copy is that long.
        unsafe {
            if SIZE * (at + V::COUNT) <= self.0.len() {
                V::load(self.0.as_ptr().add(SIZE * at).cast())
            } else {
                V::load(padded::<{ SIZE * MOST }>(self.0, SIZE * at).as_ptr().cast())
            }
        }
    }
}

fn padded<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(&bytes[at..]).for_each(|(to, from)| *to = *from);
    padded
}
