//! The vector operations of the codec for each kernel path; all give the same bytes.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;

/// Maximum number of lanes of any path.
pub(super) const MOST: usize = 16;

/// A vector of the bits of consecutive floats.
///
/// # Safety
/// The processor must support the type's instruction set, and pointers must be valid for `COUNT` elements; they need no
/// alignment.
pub(super) trait Lanes: Copy {
    const COUNT: usize;

    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(value: f32) -> Self;
    /// Joins byte planes, the highest first, of bits that are rotated left by one.
    unsafe fn join(planes: [*const u8; 4]) -> Self;
    /// Returns the entries of a table of 256 floats that the codes name.
    unsafe fn look_up(table: *const f32, codes: *const u8) -> Self;
    /// Returns a bit for each lane, set if the lane is not zero.
    unsafe fn nonzero(self) -> u32;
    /// Writes the lanes of `mask` one after the other, and anything after them up to `COUNT` floats.
    unsafe fn compact(self, mask: u32, to: *mut f32);
    /// Moves the first lanes to those of `mask`, in order; all other lanes become zero.
    unsafe fn expand(self, mask: u32) -> Self;

    /// Returns the bits of `word` at the ones of `mask`, next to each other.
    #[inline(always)]
    unsafe fn extract(word: u64, mut mask: u64) -> u64 {
        let (mut bits, mut next) = (0, 0);
        while mask != 0 {
            let (start, count, run) = lowest_run(mask);
            bits |= (word >> start & run) << next;
            next += count;
            mask ^= run << start;
        }
        bits
    }

    /// Moves the lowest bits of `word` to the ones of `mask`, in order.
    #[inline(always)]
    unsafe fn deposit(mut word: u64, mut mask: u64) -> u64 {
        let mut bits = 0;
        while mask != 0 {
            let (start, count, run) = lowest_run(mask);
            bits |= (word & run) << start;
            word = word.unbounded_shr(count);
            mask ^= run << start;
        }
        bits
    }
}

/// Returns the position and the number of the lowest ones of a mask that are next to each other, and as many low bits. Most
/// masks have few zeros, and so fewer runs than ones.
#[inline(always)]
fn lowest_run(mask: u64) -> (u32, u32, u64) {
    let start = mask.trailing_zeros();
    let count = (mask >> start).trailing_ones();
    (start, count, u64::MAX >> (64 - count))
}

/// The vectors of the portable path.
#[derive(Clone, Copy)]
pub(super) struct Portable([u32; 8]);

impl Lanes for Portable {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { from.cast::<[u32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { to.cast::<[u32; 8]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value.to_bits(); 8])
    }

    #[inline(always)]
    unsafe fn join(planes: [*const u8; 4]) -> Self {
        // SAFETY: promised by the caller.
        let [a, b, c, d] = planes.map(|plane| unsafe { plane.cast::<[u8; 8]>().read() });
        Self(std::array::from_fn(|lane| u32::from_be_bytes([a[lane], b[lane], c[lane], d[lane]]).rotate_right(1)))
    }

    #[inline(always)]
    unsafe fn look_up(table: *const f32, codes: *const u8) -> Self {
        // SAFETY: promised by the caller; a code is below 256.
        Self(std::array::from_fn(|lane| unsafe { (*table.add(usize::from(*codes.add(lane)))).to_bits() }))
    }

    #[inline(always)]
    unsafe fn nonzero(self) -> u32 {
        self.0.iter().rev().fold(0, |mask, bits| mask << 1 | u32::from(*bits != 0))
    }

    #[inline(always)]
    unsafe fn compact(self, mask: u32, to: *mut f32) {
        let mut next = 0;
        for (lane, bits) in self.0.into_iter().enumerate() {
            // SAFETY: `next` is at most the lane; the rest is promised by the caller.
            unsafe { to.add(next).write(f32::from_bits(bits)) };
            next += (mask >> lane & 1) as usize;
        }
    }

    #[inline(always)]
    unsafe fn expand(self, mask: u32) -> Self {
        let mut next = 0;
        Self(std::array::from_fn(|lane| {
            let keep = mask >> lane & 1;
            let bits = self.0[next & 7] * keep;
            next += keep as usize;
            bits
        }))
    }
}

/// Calls `body`, which is generic over `Lanes`, compiled for the instruction set of a path.
macro_rules! on_path {
    ($path:expr, $body:ident($($name:ident: $kind:ty),*) -> $result:ty) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi2,popcnt")]
        unsafe fn avx2($($name: $kind),*) -> $result {
            // SAFETY: promised by the caller.
            unsafe { $body::<$crate::codec::lanes::avx2::Vector>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx2,bmi2,popcnt")]
        unsafe fn avx512($($name: $kind),*) -> $result {
            // SAFETY: promised by the caller.
            unsafe { $body::<$crate::codec::lanes::avx512::Vector>($($name),*) }
        }
        match $path {
            Path::Portable => $body::<$crate::codec::lanes::Portable>($($name),*),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => avx2($($name),*),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => avx512($($name),*),
            #[cfg(target_arch = "aarch64")]
            Path::Neon => $body::<$crate::codec::lanes::neon::Vector>($($name),*),
            _ => unreachable!("not supported on this processor"),
        }
    }};
}
pub(super) use on_path;
