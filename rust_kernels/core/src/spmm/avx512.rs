//! The kernel path for x86 with AVX-512: 16 lanes; narrow panels use the AVX2 path.

use std::arch::x86_64::*;

use super::avx2::{self, lanes};
use super::body::{Lanes, Work};

lanes!(
    X16,
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_max_ps,
    _mm512_min_ps
);

/// # Safety
/// As `Work::product`; the processor has AVX-512F, AVX2 and FMA.
pub(super) unsafe fn run<W: Work>(work: &W, stride: usize) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match stride {
            16 => width::<W, 16, 1, 4>(work),
            32 => width::<W, 32, 2, 2>(work),
            64 => width::<W, 64, 4, 1>(work),
            128 => width::<W, 128, 8, 1>(work),
            _ => avx2::run(work, stride),
        }
    }
}

/// # Safety
/// As `run`.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn width<W: Work, const STRIDE: usize, const V: usize, const R: usize>(work: &W) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        if work.one_value() {
            work.product::<X16, true, STRIDE, V, R>()
        } else {
            work.product::<X16, false, STRIDE, V, R>()
        }
    }
}
