//! The vectors of the NEON path: 8 lanes in two registers, whose bytes are moved by tables.

use std::arch::aarch64::*;

use super::Lanes;

/// For each mask of four lanes the bytes that it keeps, lowest first; then indices beyond any table, which look up zero.
static KEPT: [[u8; 16]; 16] = orders(true);
/// For each mask the bytes of each lane that it has, at the places of those that precede it; none for other lanes.
static PLACE: [[u8; 16]; 16] = orders(false);

/// An index beyond any table, also after lanes were added to it.
const NONE: u8 = 0x80;

/// Returns, for each mask, the bytes of its lanes at the places that they move to (`kept`), or those places at the lanes.
const fn orders(kept: bool) -> [[u8; 16]; 16] {
    let mut table = [[NONE; 16]; 16];
    let mut mask = 0;
    while mask < 16 {
        let (mut lane, mut next) = (0, 0);
        while lane < 4 {
            if mask >> lane & 1 == 1 {
                let (to, from) = if kept { (next, lane) } else { (lane, next) };
                let mut byte = 0;
                while byte < 4 {
                    table[mask][4 * to + byte] = (4 * from + byte) as u8;
                    byte += 1;
                }
                next += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
}

#[derive(Clone, Copy)]
pub(crate) struct Vector(uint32x4_t, uint32x4_t);

impl Lanes for Vector {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        unsafe { Self(vld1q_u32(from.cast()), vld1q_u32(from.add(4).cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe {
            vst1q_u32(to.cast(), self.0);
            vst1q_u32(to.add(4).cast(), self.1);
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: promised by the caller.
        unsafe { Self(vdupq_n_u32(value.to_bits()), vdupq_n_u32(value.to_bits())) }
    }

    #[inline(always)]
    unsafe fn join(planes: [*const u8; 4]) -> Self {
        // SAFETY: promised by the caller.
        unsafe {
            let [a, b, c, d] = planes.map(|plane| vld1_u8(plane));
            let (low, high) = (vzip_u8(d, c), vzip_u8(b, a));
            let half = |low, high| {
                let (low, high) = (vreinterpret_u16_u8(low), vreinterpret_u16_u8(high));
                let all = vreinterpretq_u32_u16(vcombine_u16(vzip1_u16(low, high), vzip2_u16(low, high)));
                vsriq_n_u32::<1>(vshlq_n_u32::<31>(all), all)
            };
            Self(half(low.0, high.0), half(low.1, high.1))
        }
    }

    #[inline(always)]
    unsafe fn look_up(table: *const f32, codes: *const u8) -> Self {
        // SAFETY: promised by the caller; a code is below 256.
        let values: [f32; 8] = std::array::from_fn(|lane| unsafe { *table.add(usize::from(*codes.add(lane))) });
        // SAFETY: the array has all lanes.
        unsafe { Self::load(values.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn nonzero(self) -> u32 {
        const LOW: [u32; 4] = [1, 2, 4, 8];
        const HIGH: [u32; 4] = [16, 32, 64, 128];
        // SAFETY: promised by the caller.
        unsafe {
            let low = vandq_u32(vtstq_u32(self.0, self.0), vld1q_u32(LOW.as_ptr()));
            let high = vandq_u32(vtstq_u32(self.1, self.1), vld1q_u32(HIGH.as_ptr()));
            vaddvq_u32(vorrq_u32(low, high))
        }
    }

    #[inline(always)]
    unsafe fn compact(self, mask: u32, to: *mut f32) {
        let (low, high) = (mask as usize & 15, mask as usize >> 4 & 15);
        // SAFETY: promised by the caller; the second half ends within `COUNT` floats.
        unsafe {
            vst1q_u8(to.cast(), vqtbl1q_u8(vreinterpretq_u8_u32(self.0), vld1q_u8(KEPT[low].as_ptr())));
            let to = to.add(low.count_ones() as usize);
            vst1q_u8(to.cast(), vqtbl1q_u8(vreinterpretq_u8_u32(self.1), vld1q_u8(KEPT[high].as_ptr())));
        }
    }

    #[inline(always)]
    unsafe fn expand(self, mask: u32) -> Self {
        let (low, high) = (mask as usize & 15, mask as usize >> 4 & 15);
        // SAFETY: promised by the caller.
        unsafe {
            let bytes = uint8x16x2_t(vreinterpretq_u8_u32(self.0), vreinterpretq_u8_u32(self.1));
            let first = vld1q_u8(PLACE[low].as_ptr());
            let skipped = vdupq_n_u8(4 * low.count_ones() as u8);
            let second = vaddq_u8(vld1q_u8(PLACE[high].as_ptr()), skipped);
            Self(vreinterpretq_u32_u8(vqtbl1q_u8(bytes.0, first)), vreinterpretq_u32_u8(vqtbl2q_u8(bytes, second)))
        }
    }
}
