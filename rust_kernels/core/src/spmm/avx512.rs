//! The kernel path for x86 with AVX-512: 16 lanes; narrow panels use the AVX2 path.

use std::arch::x86_64::*;

use super::avx2::{self, lanes};
use super::body::{Job, Lanes, product};
use crate::csr::Index;

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
/// As `product`; the processor has AVX-512F, AVX2 and FMA.
pub(super) unsafe fn run<I: Index>(job: &Job<'_, I>, stride: usize) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match stride {
            16 => width::<I, 16, 1, 4>(job),
            32 => width::<I, 32, 2, 2>(job),
            64 => width::<I, 64, 4, 1>(job),
            128 => width::<I, 128, 8, 1>(job),
            _ => avx2::run(job, stride),
        }
    }
}

/// # Safety
/// As `run`.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn width<I: Index, const STRIDE: usize, const V: usize, const R: usize>(job: &Job<'_, I>) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        if job.one_value() {
            product::<X16, I, true, STRIDE, V, R>(job)
        } else {
            product::<X16, I, false, STRIDE, V, R>(job)
        }
    }
}
