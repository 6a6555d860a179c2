//! The vectors of the AVX2 path: 8 lanes, which tables of permutations move.

use std::arch::x86_64::*;

use super::Lanes;

/// For each mask the lanes that it keeps, one a byte, lowest first.
static KEPT: [u64; 256] = orders(true);
/// For each mask and each of its lanes, one a byte, how many kept lanes precede it.
static PLACE: [u64; 256] = orders(false);

/// Returns, for each mask, its lanes at the places that they move to (`kept`), or those places at the lanes.
const fn orders(kept: bool) -> [u64; 256] {
    let mut table = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask] |= if kept { lane << (8 * next) } else { next << (8 * lane) };
                next += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
}

#[derive(Clone, Copy)]
pub(crate) struct Vector(__m256i);

impl Vector {
    /// Returns the eight bytes as lanes.
    #[inline(always)]
    unsafe fn widen(bytes: *const u8) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.cast())) }
    }

    /// Returns the lanes in the order that an entry of a table says.
    #[inline(always)]
    unsafe fn permute(self, order: &u64) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_permutevar8x32_epi32(self.0, Self::widen(std::ptr::from_ref(order).cast())) }
    }
}

impl Lanes for Vector {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { _mm256_set1_epi32(value.to_bits() as i32) })
    }

    #[inline(always)]
    unsafe fn join(planes: [*const u8; 4]) -> Self {
        // SAFETY: promised by the caller.
        unsafe {
            let [a, b, c, d] = planes.map(|plane| Self::widen(plane));
            let high = _mm256_or_si256(_mm256_slli_epi32::<24>(a), _mm256_slli_epi32::<16>(b));
            let all = _mm256_or_si256(high, _mm256_or_si256(_mm256_slli_epi32::<8>(c), d));
            Self(_mm256_or_si256(_mm256_srli_epi32::<1>(all), _mm256_slli_epi32::<31>(all)))
        }
    }

    #[inline(always)]
    unsafe fn look_up(table: *const f32, codes: *const u8) -> Self {
        // SAFETY: promised by the caller; a code is below 256.
        unsafe { Self(_mm256_i32gather_epi32::<4>(table.cast(), Self::widen(codes))) }
    }

    #[inline(always)]
    unsafe fn nonzero(self) -> u32 {
        // SAFETY: promised by the caller.
        let zero = unsafe { _mm256_cmpeq_epi32(self.0, _mm256_setzero_si256()) };
        // SAFETY: as above.
        0xff ^ unsafe { _mm256_movemask_ps(_mm256_castsi256_ps(zero)) } as u32
    }

    #[inline(always)]
    unsafe fn compact(self, mask: u32, to: *mut f32) {
        // SAFETY: promised by the caller; a mask has 8 bits.
        unsafe { _mm256_storeu_si256(to.cast(), self.permute(&KEPT[mask as usize & 0xff])) };
    }

    #[inline(always)]
    unsafe fn expand(self, mask: u32) -> Self {
        // SAFETY: promised by the caller; a mask has 8 bits.
        unsafe {
            let lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let kept = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask as i32), lanes), lanes);
            Self(_mm256_and_si256(self.permute(&PLACE[mask as usize & 0xff]), kept))
        }
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
