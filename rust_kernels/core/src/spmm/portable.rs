//! The kernel path for any processor: plain floats and `f32::mul_add`.

use super::body::{Lanes, Work};

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
/// As `Work::product`.
pub(super) unsafe fn run<W: Work>(work: &W, stride: usize) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match stride {
            1 => width::<1, W, 1, 1, 4>(work),
            4 => width::<4, W, 4, 1, 2>(work),
            8 => width::<8, W, 8, 1, 1>(work),
            16 => width::<8, W, 16, 2, 1>(work),
            32 => width::<8, W, 32, 4, 1>(work),
            64 => width::<8, W, 64, 8, 1>(work),
            _ => width::<8, W, 128, 8, 1>(work),
        }
    }
}

/// # Safety
/// As `Work::product`.
unsafe fn width<const N: usize, W: Work, const STRIDE: usize, const V: usize, const R: usize>(work: &W) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        if work.one_value() {
            work.product::<[f32; N], true, STRIDE, V, R>()
        } else {
            work.product::<[f32; N], false, STRIDE, V, R>()
        }
    }
}
