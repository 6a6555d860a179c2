//! Transposed copies between samples, each a run of consecutive values, and panels, whose rows hold one value of each
//! sample. Zeros of either sign become +0.

use crate::isa::Path;
#[cfg(target_arch = "x86_64")]
use avx2::transpose;
#[cfg(target_arch = "aarch64")]
use neon::transpose;

/// The bits of -0.
const NEGATIVE_ZERO: u32 = 1 << 31;

/// Values of a sample that are copied before the next sample's: few enough that the panel's rows stay in the first
/// level of the cache until all samples have written theirs.
const BLOCK: usize = 64;

/// Writes sample `lane` of `samples` into lane `lane` of a panel, whose rows are `stride` floats apart.
///
/// # Panics
/// If samples differ in length, do not fit a row, or the panel is too short.
pub fn gather(samples: &[&[f32]], panel: &mut [f32], stride: usize, path: Path) {
    let rows = samples.first().map_or(0, |sample| sample.len());
    assert!(samples.iter().all(|sample| sample.len() == rows), "samples of one length");
    check(rows, samples.len(), panel.len(), stride);
    walk(rows, samples.len(), path, |lane, row, is_square| {
        if !is_square {
            panel[row * stride + lane] = positive(samples[lane][row]);
            return;
        }
        // SAFETY: only paths with vectors have squares; the square lies within samples and panel.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        unsafe {
            let from = std::array::from_fn(|k| samples.get_unchecked(lane + k).as_ptr().add(row));
            let to = std::array::from_fn(|k| panel.as_mut_ptr().add((row + k) * stride + lane));
            transpose(from, to);
        }
    });
}

/// Writes lane `lane` of a panel, whose rows are `stride` floats apart, into sample `lane` of `samples`.
///
/// # Panics
/// As `gather`.
pub fn scatter(panel: &[f32], stride: usize, samples: &mut [&mut [f32]], path: Path) {
    let rows = samples.first().map_or(0, |sample| sample.len());
    assert!(samples.iter().all(|sample| sample.len() == rows), "samples of one length");
    check(rows, samples.len(), panel.len(), stride);
    walk(rows, samples.len(), path, |lane, row, is_square| {
        if !is_square {
            samples[lane][row] = positive(panel[row * stride + lane]);
            return;
        }
        // SAFETY: as in `gather`.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        unsafe {
            let from = std::array::from_fn(|k| panel.as_ptr().add((row + k) * stride + lane));
            let to = std::array::from_fn(|k| samples.get_unchecked_mut(lane + k).as_mut_ptr().add(row));
            transpose(from, to);
        }
    });
}

/// Visits all lanes and rows, a block of rows after the other: squares of 8 x 8 by their first lane and row where the path
/// has them, and single values elsewhere. The last argument of `visit` says which.
#[inline(always)]
fn walk(rows: usize, samples: usize, path: Path, mut visit: impl FnMut(usize, usize, bool)) {
    let lanes = squares(path, samples);
    for start in (0..rows).step_by(BLOCK) {
        let end = (start + BLOCK).min(rows);
        let whole = start + squares(path, end - start);
        for lane in (0..lanes).step_by(8) {
            for row in (start..whole).step_by(8) {
                visit(lane, row, true);
            }
        }
        for lane in 0..samples {
            for row in (if lane < lanes { whole } else { start })..end {
                visit(lane, row, false);
            }
        }
    }
}

/// Copies values.
pub fn copy(source: &[f32], target: &mut [f32]) {
    target.iter_mut().zip(source).for_each(|(target, value)| *target = positive(*value));
}

/// Returns the value, or +0 for -0. Not by an addition, which may flush subnormals in the caller's thread.
fn positive(value: f32) -> f32 {
    if value.to_bits() == NEGATIVE_ZERO { 0.0 } else { value }
}

fn check(rows: usize, samples: usize, floats: usize, stride: usize) {
    let fits = rows == 0 || floats >= (rows - 1) * stride + samples;
    assert!(samples <= stride && fits, "a panel that holds the samples");
}

/// Returns how many of `count` lanes or rows are copied in squares of 8 x 8.
fn squares(path: Path, count: usize) -> usize {
    if path == Path::Portable { 0 } else { count & !7 }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::NEGATIVE_ZERO;

    /// Transposes a square of 8 x 8 floats.
    ///
    /// # Safety
    /// The processor supports AVX2; 8 floats can be read from each of `from` and written to each of `to`.
    #[target_feature(enable = "avx2")]
    pub unsafe fn transpose(from: [*const f32; 8], to: [*mut f32; 8]) {
        let zero = _mm256_set1_epi32(NEGATIVE_ZERO as i32);
        let load = |k: usize| {
            // SAFETY: promised by the caller.
            let bits = unsafe { _mm256_loadu_si256(from[k].cast()) };
            _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpeq_epi32(bits, zero), bits))
        };
        let rows: [__m256; 8] = [load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)];
        let low = |k: usize| _mm256_unpacklo_ps(rows[k], rows[k + 1]);
        let high = |k: usize| _mm256_unpackhi_ps(rows[k], rows[k + 1]);
        let pairs = [low(0), high(0), low(2), high(2), low(4), high(4), low(6), high(6)];
        let first = |k: usize| _mm256_shuffle_ps::<0x44>(pairs[k], pairs[k + 2]);
        let second = |k: usize| _mm256_shuffle_ps::<0xEE>(pairs[k], pairs[k + 2]);
        let fours = [first(0), second(0), first(1), second(1), first(4), second(4), first(5), second(5)];
        for k in 0..4 {
            // SAFETY: promised by the caller.
            unsafe {
                _mm256_storeu_ps(to[k], _mm256_permute2f128_ps::<0x20>(fours[k], fours[k + 4]));
                _mm256_storeu_ps(to[k + 4], _mm256_permute2f128_ps::<0x31>(fours[k], fours[k + 4]));
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::NEGATIVE_ZERO;

    /// Transposes a square of 8 x 8 floats, as four of 4 x 4.
    ///
    /// # Safety
    /// 8 floats can be read from each of `from` and written to each of `to`.
    pub unsafe fn transpose(from: [*const f32; 8], to: [*mut f32; 8]) {
        for (row, lane) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
            // SAFETY: promised by the caller.
            unsafe {
                let zero = vdupq_n_u32(NEGATIVE_ZERO);
                let load = |k: usize| {
                    let bits = vld1q_u32(from[row + k].add(lane).cast());
                    vbicq_u32(bits, vceqq_u32(bits, zero))
                };
                let (upper, lower) = (vtrnq_u32(load(0), load(1)), vtrnq_u32(load(2), load(3)));
                let pairs = [upper.0, upper.1, lower.0, lower.1].map(|pair| vreinterpretq_u64_u32(pair));
                let store = |k: usize, values| vst1q_u64(to[lane + k].add(row).cast(), values);
                store(0, vzip1q_u64(pairs[0], pairs[2]));
                store(1, vzip1q_u64(pairs[1], pairs[3]));
                store(2, vzip2q_u64(pairs[0], pairs[2]));
                store(3, vzip2q_u64(pairs[1], pairs[3]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn samples_come_back_from_a_panel(count in 0..40_usize, rows in 0..150_usize, padding in 0..9_usize) {
            let value = |lane: usize, row: usize| if (lane + row).is_multiple_of(5) { -0.0 } else { (lane * 1000 + row) as f32 };
            let samples: Vec<Vec<f32>> = (0..count).map(|lane| (0..rows).map(|row| value(lane, row)).collect()).collect();
            let stride = count + padding;
            for path in Path::available() {
                let mut panel = vec![f32::NAN; rows * stride];
                gather(&samples.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut panel, stride, path);
                for (row, values) in panel.chunks(stride.max(1)).enumerate() {
                    for (lane, found) in values.iter().enumerate() {
                        let expected = if lane < count { (value(lane, row) + 0.0).to_bits() } else { f32::NAN.to_bits() };
                        prop_assert_eq!(found.to_bits(), expected, "{}", path);
                    }
                }
                for zero in panel.iter_mut().filter(|value| **value == 0.0) {
                    *zero = -0.0;
                }
                let mut back = vec![vec![f32::NAN; rows]; count];
                scatter(&panel, stride, &mut back.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), path);
                for (found, sample) in back.iter().zip(&samples) {
                    for (found, value) in found.iter().zip(sample) {
                        prop_assert_eq!(found.to_bits(), (value + 0.0).to_bits(), "{}", path);
                    }
                }
            }
        }
    }
}
