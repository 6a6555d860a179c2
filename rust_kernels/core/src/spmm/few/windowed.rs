//! Slices whose inputs are looked up in vectors that hold a window of columns.

use std::arch::x86_64::*;

use super::{Job, Sample, finite};
use crate::slices::{LANES, STEPS, Slice, Windowed, is_far};

/// Bytes of weights that are fetched ahead, about the time that a line takes from memory.
const AHEAD: usize = 1024;

/// # Safety
/// As `Job::run`; the processor has AVX-512 F, BW and VL.
pub(super) unsafe fn run(job: &Job<'_>, form: &Windowed) -> bool {
    // Fetching ahead costs time where the weights stay in a cache.
    let far = is_far(job.layer.weights());
    // SAFETY: the caller upholds the same conditions.
    job.samples.chunks(4).fold(true, |all, samples| unsafe {
        all & match samples.len() {
            1 => slices::<1>(job, form, samples, far),
            2 => slices::<2>(job, form, samples, far),
            3 => slices::<3>(job, form, samples, far),
            _ => slices::<4>(job, form, samples, far),
        }
    })
}

/// Computes the slices for `C` samples.
///
/// # Safety
/// As `run`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,popcnt")]
unsafe fn slices<const C: usize>(job: &Job<'_>, form: &Windowed, samples: &[Sample], far: bool) -> bool {
    let mut errors = [0.0; LANES];
    let inputs: [*const f32; C] = std::array::from_fn(|sample| samples[sample].input);
    let one = job.layer.weights().one_value().then(|| job.layer.weights().values()[0]);
    for slice in job.slices {
        // SAFETY: the caller upholds the same conditions.
        unsafe {
            let sums = match one {
                Some(one) => {
                    sums::<C, _>(form, slice, &inputs, |active| _mm512_maskz_mov_ps(active, _mm512_set1_ps(one)))
                }
                None => {
                    let mut next = form.weights.as_ptr().add(slice.weights);
                    sums::<C, _>(form, slice, &inputs, |active| {
                        if far {
                            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_byte_add(AHEAD).cast());
                        }
                        let weights = _mm512_maskz_expandloadu_ps(active, next);
                        next = next.add(active.count_ones() as usize);
                        weights
                    })
                }
            };
            for (sample, sums) in samples.iter().zip(sums) {
                let mut lanes = [0.0; LANES];
                _mm512_storeu_ps(lanes.as_mut_ptr(), sums);
                job.finish(slice, sample, lanes, &mut errors);
            }
        }
    }
    finite(&errors)
}

/// Returns the weighted sums of one slice for each sample; `weights` is called once for each step with its active
/// lanes, and returns their weights and 0 in the others.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn sums<const C: usize, W: FnMut(__mmask16) -> __m512>(
    form: &Windowed,
    slice: &Slice,
    inputs: &[*const f32; C],
    mut weights: W,
) -> [__m512; C] {
    // SAFETY: windows end at or before the last column, and inputs have all columns.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); C];
        let upper_half = _mm512_set1_epi32(32);
        for window in slice.steps.clone() {
            let start = *form.starts.get_unchecked(window) as usize;
            let marks = form.marks.get_unchecked(window).0.as_ptr();
            let tables = inputs.map(|input| {
                let from = input.add(start);
                [0, 16, 32, 48].map(|column| _mm512_loadu_ps(from.add(column)))
            });
            for step in 0..STEPS {
                let marks = _mm_load_si128(marks.add(step * LANES).cast());
                let weights = weights(_mm_movepi8_mask(marks));
                // Looking up uses the low five bits only.
                let columns = _mm512_cvtepu8_epi32(marks);
                let upper = _mm512_test_epi32_mask(columns, upper_half);
                for (sums, [a, b, c, d]) in sums.iter_mut().zip(tables) {
                    let low = _mm512_permutex2var_ps(a, columns, b);
                    let high = _mm512_permutex2var_ps(c, columns, d);
                    *sums = _mm512_fmadd_ps(weights, _mm512_mask_blend_ps(upper, low, high), *sums);
                }
            }
        }
        sums
    }
}
