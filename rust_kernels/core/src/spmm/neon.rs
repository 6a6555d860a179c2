//! The kernel path for 64-bit Arm with NEON: 4 lanes in each of 32 registers.

use std::arch::aarch64::*;

use super::body::{Lanes, Work};

#[derive(Clone, Copy)]
struct X4(float32x4_t);

// SAFETY (of every block in here): the processor has the instructions, and pointers reach all lanes.
impl Lanes for X4 {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, x: Self, acc: Self) -> Self {
        Self(unsafe { vfmaq_f32(acc.0, self.0, x.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    /// Compares and selects: the instruction for a maximum takes +0 as larger than -0, and passes NaN on.
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(unsafe { vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0) })
    }
}

/// Processes as many rows and vectors at once as fill 16 registers with sums, where there are so many: each sum waits for
/// its last addition, for which two to four adders of a core take 8 to 16 independent ones. Inputs and weights have the
/// other registers.
///
/// # Safety
/// As `Work::product`.
pub(super) unsafe fn run<W: Work>(work: &W, stride: usize) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match stride {
            1 => width::<[f32; 1], W, 1, 1, 8>(work),
            4 => width::<X4, W, 4, 1, 8>(work),
            8 => width::<X4, W, 8, 2, 8>(work),
            16 => width::<X4, W, 16, 4, 4>(work),
            32 => width::<X4, W, 32, 8, 2>(work),
            64 => width::<X4, W, 64, 16, 1>(work),
            _ => width::<X4, W, 128, 16, 1>(work),
        }
    }
}

/// # Safety
/// As `Work::product`.
unsafe fn width<S: Lanes, W: Work, const STRIDE: usize, const V: usize, const R: usize>(work: &W) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        if work.one_value() {
            work.product::<S, true, STRIDE, V, R>()
        } else {
            work.product::<S, false, STRIDE, V, R>()
        }
    }
}
