//! The loop that all kernel paths share, generic over vectors of floats.

use std::ops::Range;

use super::Rows;
use crate::csr::Index;
use crate::layer::{Group, Layer, Reduce};

/// A vector of floats. All operations work lane by lane and round once, to nearest.
///
/// # Safety
/// The processor must support the type's instruction set, and pointers must be valid for `LANES` floats.
pub(super) trait Lanes: Copy {
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Returns self * x + acc.
    unsafe fn fma(self, x: Self, acc: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// Returns the larger value; `other` if both are zero.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
}

/// The rows of a layer to compute for one panel.
pub(super) struct Job<'a, I> {
    indptr: &'a [i64],
    indices: &'a [I],
    values: &'a [f32],
    bias: &'a [f32],
    /// Whether rows are the largest of their inputs.
    max: bool,
    bounds: (f32, f32),
    rows: Rows<'a>,
    block: Range<usize>,
    input: *const f32,
    output: *mut f32,
}

impl<'a, I: Index> Job<'a, I> {
    /// Describes rows of one group; functions that are not clamps are left to be applied afterwards.
    pub fn new(
        layer: &'a Layer,
        group: Group,
        indices: &'a [I],
        (rows, block): (Rows<'a>, Range<usize>),
        input: *const f32,
        output: *mut f32,
    ) -> Self {
        Self {
            indptr: layer.weights().indptr(),
            indices,
            values: layer.weights().values(),
            bias: layer.bias(),
            max: group.reduce == Reduce::Max,
            bounds: group.activation.bounds().unwrap_or((f32::NEG_INFINITY, f32::INFINITY)),
            rows,
            block,
            input,
            output,
        }
    }

    pub fn one_value(&self) -> bool {
        self.values.len() == 1
    }
}

/// Computes a job whose panel is `STRIDE` floats wide, `R` rows of `V` vectors at once; returns false if a
/// pre-activation is not finite. `ONE` says that all weights have the same value.
///
/// # Safety
/// The panels must have the layer's columns and rows, and `S` must be supported.
#[inline(always)]
pub(super) unsafe fn product<
    S: Lanes,
    I: Index,
    const ONE: bool,
    const STRIDE: usize,
    const V: usize,
    const R: usize,
>(
    job: &Job<'_, I>,
) -> bool {
    const { assert!(STRIDE.is_multiple_of(V * S::LANES)) };
    // SAFETY: the caller upholds the same conditions; passes cover each row's stride.
    unsafe {
        let mut errors = S::splat(0.0);
        for pass in (0..STRIDE).step_by(V * S::LANES) {
            let Range { start: mut at, end } = job.block;
            if job.max {
                for at in at..end {
                    errors = largest::<S, I, STRIDE, V>(job, at, pass, errors);
                }
                continue;
            }
            while at + R <= end {
                errors = rows::<S, I, ONE, STRIDE, V, R>(job, at, pass, errors);
                at += R;
            }
            while at < end {
                errors = rows::<S, I, ONE, STRIDE, V, 1>(job, at, pass, errors);
                at += 1;
            }
        }
        let mut lanes = [0.0; 16];
        errors.store(lanes.as_mut_ptr());
        !lanes.iter().any(|error| error.is_nan())
    }
}

/// Computes `R` rows from position `at`, in each `V` vectors from float `pass`; sets `errors` to NaN if a
/// pre-activation is not finite.
///
/// # Safety
/// As `product`.
#[inline(always)]
unsafe fn rows<S: Lanes, I: Index, const ONE: bool, const STRIDE: usize, const V: usize, const R: usize>(
    job: &Job<'_, I>,
    at: usize,
    pass: usize,
    mut errors: S,
) -> S {
    // SAFETY: the CSR was checked: every position is below the number of connections, every index names an input row.
    unsafe {
        let input = job.input.add(pass);
        let indices = job.indices.as_ptr();
        let one = S::splat(if ONE { job.values[0] } else { 0.0 });
        let connect = |acc: &mut [S; V], at: usize| {
            let weight = if ONE { one } else { S::splat(*job.values.as_ptr().add(at)) };
            let from = input.add((*indices.add(at)).get() * STRIDE);
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = weight.fma(S::load(from.add(v * S::LANES)), *acc);
            }
        };
        let mut row = [0; R];
        let mut next = [0; R];
        let mut left = [0; R];
        for r in 0..R {
            row[r] = job.rows.get(at + r);
            next[r] = *job.indptr.get_unchecked(row[r]) as usize;
            left[r] = *job.indptr.get_unchecked(row[r] + 1) as usize - next[r];
        }
        let mut acc = [[S::splat(0.0); V]; R];
        let common = left.into_iter().min().unwrap_or(0);
        for _ in 0..common {
            for r in 0..R {
                connect(&mut acc[r], next[r]);
                next[r] += 1;
            }
        }
        if R > 1 {
            for r in 0..R {
                for at in next[r]..next[r] + (left[r] - common) {
                    connect(&mut acc[r], at);
                }
            }
        }
        for r in 0..R {
            errors = finish(job, row[r], STRIDE, pass, acc[r], errors);
        }
        errors
    }
}

/// Computes one row that is the largest of its inputs, as `rows` does sums.
///
/// # Safety
/// As `product`.
#[inline(always)]
unsafe fn largest<S: Lanes, I: Index, const STRIDE: usize, const V: usize>(
    job: &Job<'_, I>,
    at: usize,
    pass: usize,
    errors: S,
) -> S {
    // SAFETY: as in `rows`; such a row has at least one connection.
    unsafe {
        let row = job.rows.get(at);
        let connections = *job.indptr.get_unchecked(row) as usize..*job.indptr.get_unchecked(row + 1) as usize;
        let mut acc = [S::splat(f32::NEG_INFINITY); V];
        for at in connections {
            let from = job.input.add(job.indices.get_unchecked(at).get() * STRIDE + pass);
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = S::load(from.add(v * S::LANES)).max(*acc);
            }
        }
        finish(job, row, STRIDE, pass, acc, errors)
    }
}

/// Adds the bias to a row, clamps it and stores it.
///
/// # Safety
/// As `product`.
#[inline(always)]
unsafe fn finish<S: Lanes, I: Index, const V: usize>(
    job: &Job<'_, I>,
    row: usize,
    stride: usize,
    pass: usize,
    acc: [S; V],
    mut errors: S,
) -> S {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        let (zero, low, high) = (S::splat(0.0), S::splat(job.bounds.0), S::splat(job.bounds.1));
        let bias = S::splat(if job.bias.len() == 1 { job.bias[0] } else { *job.bias.get_unchecked(row) });
        let to = job.output.add(row * stride + pass);
        for (v, acc) in acc.iter().enumerate() {
            let z = acc.add(bias);
            errors = z.fma(zero, errors);
            // Adding +0 turns -0 into +0.
            z.max(low).min(high).add(zero).store(to.add(v * S::LANES));
        }
        errors
    }
}
