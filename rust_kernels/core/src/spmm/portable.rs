//! The kernel path for any processor: plain floats and `f32::mul_add`.

use super::body::{Job, Lanes, product};
use crate::csr::Index;

impl<const N: usize> Lanes for [f32; N] {
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; N]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller upholds the same conditions; an array of floats is aligned like a float.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as `load`.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn fma(self, x: Self, acc: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(x[i], acc[i]))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }
}

/// # Safety
/// As `product`.
pub(super) unsafe fn run<I: Index>(job: &Job<'_, I>, stride: usize) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match stride {
            1 => width::<1, I, 1, 1, 4>(job),
            4 => width::<4, I, 4, 1, 2>(job),
            8 => width::<8, I, 8, 1, 1>(job),
            16 => width::<8, I, 16, 2, 1>(job),
            32 => width::<8, I, 32, 4, 1>(job),
            64 => width::<8, I, 64, 8, 1>(job),
            _ => width::<8, I, 128, 8, 1>(job),
        }
    }
}

/// # Safety
/// As `product`.
unsafe fn width<const N: usize, I: Index, const STRIDE: usize, const V: usize, const R: usize>(
    job: &Job<'_, I>,
) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        if job.one_value() {
            product::<[f32; N], I, true, STRIDE, V, R>(job)
        } else {
            product::<[f32; N], I, false, STRIDE, V, R>(job)
        }
    }
}
