//! The kernel path for x86 with AVX2 and FMA: 8 lanes, or fewer for narrow panels.

use std::arch::x86_64::*;

use super::body::{Lanes, Work};

/// Defines a vector type of floats from the names of its intrinsics.
macro_rules! lanes {
    ($name:ident, $vector:ty, $count:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $max:ident, $min:ident) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name($vector);

        // SAFETY (of every block in here): the caller has the instructions, and pointers reach all lanes.
        impl Lanes for $name {
            const LANES: usize = $count;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                Self(unsafe { $load(from) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            unsafe fn fma(self, x: Self, acc: Self) -> Self {
                Self(unsafe { $fma(self.0, x.0, acc.0) })
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                Self(unsafe { $max(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                Self(unsafe { $min(self.0, other.0) })
            }
        }
    };
}
pub(super) use lanes;

lanes!(X1, __m128, 1, _mm_set_ss, _mm_load_ss, _mm_store_ss, _mm_fmadd_ss, _mm_add_ss, _mm_max_ss, _mm_min_ss);
lanes!(X4, __m128, 4, _mm_set1_ps, _mm_loadu_ps, _mm_storeu_ps, _mm_fmadd_ps, _mm_add_ps, _mm_max_ps, _mm_min_ps);
lanes!(
    X8,
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_max_ps,
    _mm256_min_ps
);

/// # Safety
/// As `Work::product`; the processor has AVX2 and FMA.
pub(super) unsafe fn run<W: Work>(work: &W, stride: usize) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match stride {
            1 => width::<X1, W, 1, 1, 6, 8>(work),
            4 => width::<X4, W, 4, 1, 6, 8>(work),
            8 => width::<X8, W, 8, 1, 6, 8>(work),
            16 => width::<X8, W, 16, 2, 2, 2>(work),
            32 => width::<X8, W, 32, 4, 1, 1>(work),
            64 => width::<X8, W, 64, 8, 1, 1>(work),
            _ => width::<X8, W, 128, 8, 1, 1>(work),
        }
    }
}

/// Processes `R` rows at once, as many as keep the adders busy without needing more addresses than there are registers;
/// or `ONE` rows for a one-value layer, whose weights need no address.
///
/// # Safety
/// As `run`.
#[target_feature(enable = "avx2,fma")]
unsafe fn width<S: Lanes, W: Work, const STRIDE: usize, const V: usize, const R: usize, const ONE: usize>(
    work: &W,
) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        if work.one_value() {
            work.product::<S, true, STRIDE, V, ONE>()
        } else {
            work.product::<S, false, STRIDE, V, R>()
        }
    }
}
