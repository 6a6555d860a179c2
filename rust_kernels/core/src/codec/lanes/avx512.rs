//! The vectors of the AVX-512 path: 16 lanes.

use std::arch::x86_64::*;

use super::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Vector(__m512i);

impl Lanes for Vector {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { _mm512_loadu_epi32(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { _mm512_storeu_epi32(to.cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { _mm512_set1_epi32(value.to_bits() as i32) })
    }

    #[inline(always)]
    unsafe fn join(planes: [*const u8; 4]) -> Self {
        // SAFETY: promised by the caller.
        unsafe {
            let [a, b, c, d] = planes.map(|plane| _mm512_cvtepu8_epi32(_mm_loadu_si128(plane.cast())));
            let high = _mm512_or_epi32(_mm512_slli_epi32::<24>(a), _mm512_slli_epi32::<16>(b));
            let low = _mm512_or_epi32(_mm512_slli_epi32::<8>(c), d);
            Self(_mm512_ror_epi32::<1>(_mm512_or_epi32(high, low)))
        }
    }

    #[inline(always)]
    unsafe fn look_up(table: *const f32, codes: *const u8) -> Self {
        // SAFETY: promised by the caller; a code is below 256.
        unsafe { Self(_mm512_i32gather_epi32::<4>(_mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast())), table.cast())) }
    }

    #[inline(always)]
    unsafe fn nonzero(self) -> u32 {
        // SAFETY: promised by the caller.
        u32::from(unsafe { _mm512_test_epi32_mask(self.0, self.0) })
    }

    #[inline(always)]
    unsafe fn compact(self, mask: u32, to: *mut f32) {
        // Compressing into memory directly is slow on some processors.
        // SAFETY: promised by the caller.
        unsafe { _mm512_storeu_epi32(to.cast(), _mm512_maskz_compress_epi32(mask as u16, self.0)) };
    }

    #[inline(always)]
    unsafe fn expand(self, mask: u32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { _mm512_maskz_expand_epi32(mask as u16, self.0) })
    }

    #[inline(always)]
    unsafe fn extract(word: u64, mask: u64) -> u64 {
        // SAFETY: promised by the caller.
        unsafe { _pext_u64(word, mask) }
    }

    #[inline(always)]
    unsafe fn deposit(word: u64, mask: u64) -> u64 {
        // SAFETY: promised by the caller.
        unsafe { _pdep_u64(word, mask) }
    }
}
