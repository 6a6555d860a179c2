//! Slices whose inputs are loaded one by one.

use super::{Job, Sums, finite};
use crate::csr::Index;
use crate::isa::Path;
use crate::slices::{Gathered, LANES};
use crate::spmm::body::Lanes;

/// A vector with a lane for each row of a slice.
///
/// # Safety
/// As `Lanes`; columns are positions of `input`.
trait Rows: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: &Sums) -> Self;
    unsafe fn gather<I: Columns>(input: *const f32, columns: &[I; LANES]) -> Self;
    /// Returns self * x + acc.
    unsafe fn fma(self, x: Self, acc: Self) -> Self;
    unsafe fn sums(self) -> Sums;
}

/// Column indices that are read four at a time.
pub(super) trait Columns: Index {
    fn four(columns: &[Self; 4]) -> [usize; 4];
}

impl Columns for u16 {
    /// Loads all four at once: loads, not arithmetic, limit the loop.
    #[inline(always)]
    fn four(columns: &[Self; 4]) -> [usize; 4] {
        // SAFETY: four 16-bit integers have the bytes of one of 64 bits.
        let packed = u64::from_le(unsafe { columns.as_ptr().cast::<u64>().read_unaligned() });
        [packed & 0xFFFF, packed >> 16 & 0xFFFF, packed >> 32 & 0xFFFF, packed >> 48].map(|column| column as usize)
    }
}

impl Columns for u32 {
    #[inline(always)]
    fn four(columns: &[Self; 4]) -> [usize; 4] {
        columns.map(Index::get)
    }
}

/// # Safety
/// As `Job::run`.
pub(super) unsafe fn run<I: Columns>(job: &Job<'_>, form: &Gathered<I>) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match job.path {
            Path::Portable => slices::<Sums, I>(job, form),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 | Path::Avx512 => x86::run(job, form),
            #[cfg(target_arch = "aarch64")]
            Path::Neon => slices::<neon::Four, I>(job, form),
            _ => unreachable!("not supported on this processor"),
        }
    }
}

/// # Safety
/// As `run`; the processor supports `V`.
#[inline(always)]
unsafe fn slices<V: Rows, I: Columns>(job: &Job<'_>, form: &Gathered<I>) -> bool {
    let mut errors = [0.0; LANES];
    // SAFETY: the columns of slices are columns of the layer, and the input has all of them.
    unsafe {
        let one = V::splat(job.layer.weights().values().first().copied().unwrap_or(0.0));
        for slice in job.slices {
            let steps = form.columns.get_unchecked(slice.steps.clone());
            let (even, rest) = steps.split_at_unchecked(slice.even);
            let weights = form.weights.get_unchecked(slice.weights..slice.weights + rest.len());
            for sample in job.samples {
                let mut sums = V::splat(0.0);
                for columns in even {
                    sums = one.fma(V::gather(sample.input, columns), sums);
                }
                for (columns, weights) in rest.iter().zip(weights) {
                    sums = V::load(weights).fma(V::gather(sample.input, columns), sums);
                }
                job.finish(slice, sample, sums.sums(), &mut errors);
            }
        }
    }
    finite(&errors)
}

impl Rows for Sums {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: &Sums) -> Self {
        *from
    }

    #[inline(always)]
    unsafe fn gather<I: Columns>(input: *const f32, columns: &[I; LANES]) -> Self {
        let (parts, _) = columns.as_chunks::<4>();
        let mut x = [0.0; LANES];
        for (x, column) in x.iter_mut().zip(parts.iter().flat_map(I::four)) {
            // SAFETY: the caller upholds the same conditions.
            *x = unsafe { *input.add(column) };
        }
        x
    }

    #[inline(always)]
    unsafe fn fma(self, x: Self, acc: Self) -> Self {
        // SAFETY: plain arithmetic.
        unsafe { Lanes::fma(self, x, acc) }
    }

    #[inline(always)]
    unsafe fn sums(self) -> Sums {
        self
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Columns, Gathered, Job, LANES, Rows, Sums, slices};

    /// # Safety
    /// As `super::run`; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn run<I: Columns>(job: &Job<'_>, form: &Gathered<I>) -> bool {
        // SAFETY: the caller upholds the same conditions.
        unsafe { slices::<Two, I>(job, form) }
    }

    #[derive(Clone, Copy)]
    struct Two(__m256, __m256);

    // SAFETY (of every block in here): the caller has the instructions, and pointers reach all lanes.
    impl Rows for Two {
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: &Sums) -> Self {
            unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }

        /// Inserts loaded floats: on processors whose gather instruction is slow this takes half its time.
        #[inline(always)]
        unsafe fn gather<I: Columns>(input: *const f32, columns: &[I; LANES]) -> Self {
            unsafe {
                let at = |part: usize| {
                    let [a, b, c, d] = I::four(&*columns.as_ptr().add(4 * part).cast());
                    let x = _mm_load_ss(input.add(a));
                    let x = _mm_insert_ps::<0x10>(x, _mm_load_ss(input.add(b)));
                    let x = _mm_insert_ps::<0x20>(x, _mm_load_ss(input.add(c)));
                    _mm_insert_ps::<0x30>(x, _mm_load_ss(input.add(d)))
                };
                Self(_mm256_set_m128(at(1), at(0)), _mm256_set_m128(at(3), at(2)))
            }
        }

        #[inline(always)]
        unsafe fn fma(self, x: Self, acc: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, x.0, acc.0), _mm256_fmadd_ps(self.1, x.1, acc.1)) }
        }

        #[inline(always)]
        unsafe fn sums(self) -> Sums {
            let mut sums = [0.0; LANES];
            unsafe {
                _mm256_storeu_ps(sums.as_mut_ptr(), self.0);
                _mm256_storeu_ps(sums.as_mut_ptr().add(8), self.1);
            }
            sums
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Columns, LANES, Rows, Sums};

    #[derive(Clone, Copy)]
    pub struct Four([float32x4_t; 4]);

    // SAFETY (of every block in here): the processor has the instructions, and pointers reach all lanes.
    impl Rows for Four {
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self([unsafe { vdupq_n_f32(value) }; 4])
        }

        #[inline(always)]
        unsafe fn load(from: &Sums) -> Self {
            Self(std::array::from_fn(|part| unsafe { vld1q_f32(from.as_ptr().add(4 * part)) }))
        }

        #[inline(always)]
        unsafe fn gather<I: Columns>(input: *const f32, columns: &[I; LANES]) -> Self {
            let at = |part: usize| unsafe {
                let [a, b, c, d] = I::four(&*columns.as_ptr().add(4 * part).cast());
                let x = vsetq_lane_f32::<0>(*input.add(a), vdupq_n_f32(0.0));
                let x = vld1q_lane_f32::<1>(input.add(b), x);
                let x = vld1q_lane_f32::<2>(input.add(c), x);
                vld1q_lane_f32::<3>(input.add(d), x)
            };
            Self(std::array::from_fn(at))
        }

        #[inline(always)]
        unsafe fn fma(self, x: Self, acc: Self) -> Self {
            Self(std::array::from_fn(|part| unsafe { vfmaq_f32(acc.0[part], self.0[part], x.0[part]) }))
        }

        #[inline(always)]
        unsafe fn sums(self) -> Sums {
            let mut sums = [0.0; LANES];
            for (sums, part) in sums.chunks_exact_mut(4).zip(self.0) {
                unsafe { vst1q_f32(sums.as_mut_ptr(), part) };
            }
            sums
        }
    }
}
