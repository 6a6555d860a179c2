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

/// A product for one panel.
pub(super) trait Work {
    /// Returns whether all weights have the same value.
    fn one_value(&self) -> bool;

    /// Computes panels that are `STRIDE` floats wide, `R` rows of `V` vectors at once; returns false if a pre-activation
    /// is not finite. `ONE` says that all weights have the same value.
    ///
    /// # Safety
    /// The panels must have the layer's columns and rows, and `S` must be supported.
    unsafe fn product<S: Lanes, const ONE: bool, const STRIDE: usize, const V: usize, const R: usize>(&self) -> bool;
}

/// What a row makes of its sum: it adds the bias, and clamps.
pub(super) struct Finish<'a> {
    pub bias: &'a [f32],
    pub bounds: (f32, f32),
}

impl<'a> Finish<'a> {
    /// Describes rows of one group; functions that are not clamps are left to be applied afterwards.
    pub fn new(layer: &'a Layer, group: Group) -> Self {
        let bounds = group.activation.bounds().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        Self { bias: layer.bias(), bounds }
    }

    /// Stores the vectors of a row at `to`; sets `errors` to NaN if a pre-activation is not finite.
    ///
    /// # Safety
    /// The layer has this row, and `to` has room for `V` vectors.
    #[inline(always)]
    pub unsafe fn store<S: Lanes, const V: usize>(&self, row: usize, acc: [S; V], to: *mut f32, mut errors: S) -> S {
        // SAFETY: the caller upholds the same conditions.
        unsafe {
            let (zero, low, high) = (S::splat(0.0), S::splat(self.bounds.0), S::splat(self.bounds.1));
            let bias = S::splat(if self.bias.len() == 1 { self.bias[0] } else { *self.bias.get_unchecked(row) });
            for (v, acc) in acc.iter().enumerate() {
                let z = acc.add(bias);
                errors = z.fma(zero, errors);
                // Adding +0 turns -0 into +0.
                z.max(low).min(high).add(zero).store(to.add(v * S::LANES));
            }
            errors
        }
    }
}

/// Returns whether no lane is NaN.
///
/// # Safety
/// As for `Lanes`.
#[inline(always)]
pub(super) unsafe fn all_finite<S: Lanes>(errors: S) -> bool {
    let mut lanes = [0.0; 16];
    // SAFETY: no vector has more lanes.
    unsafe { errors.store(lanes.as_mut_ptr()) };
    !lanes.iter().any(|error| error.is_nan())
}

/// The rows of a layer to compute for one panel, in CSR order.
pub(super) struct Job<'a, I> {
    indptr: &'a [i64],
    indices: &'a [I],
    values: &'a [f32],
    /// Whether rows are the largest of their inputs.
    max: bool,
    finish: Finish<'a>,
    rows: Rows<'a>,
    block: Range<usize>,
    input: *const f32,
    output: *mut f32,
}

impl<'a, I: Index> Job<'a, I> {
    /// Describes rows of one group.
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
            max: group.reduce == Reduce::Max,
            finish: Finish::new(layer, group),
            rows,
            block,
            input,
            output,
        }
    }
}

impl<I: Index> Work for Job<'_, I> {
    fn one_value(&self) -> bool {
        self.values.len() == 1
    }

    #[inline(always)]
    unsafe fn product<S: Lanes, const ONE: bool, const STRIDE: usize, const V: usize, const R: usize>(&self) -> bool {
        const { assert!(STRIDE.is_multiple_of(V * S::LANES)) };
        // SAFETY: the caller upholds the same conditions; passes cover each row's stride.
        unsafe {
            let mut errors = S::splat(0.0);
            for pass in (0..STRIDE).step_by(V * S::LANES) {
                let Range { start: mut at, end } = self.block;
                if self.max {
                    for at in at..end {
                        errors = largest::<S, I, STRIDE, V>(self, at, pass, errors);
                    }
                    continue;
                }
                while at + R <= end {
                    errors = rows::<S, I, ONE, STRIDE, V, R>(self, at, pass, errors);
                    at += R;
                }
                while at < end {
                    errors = rows::<S, I, ONE, STRIDE, V, 1>(self, at, pass, errors);
                    at += 1;
                }
            }
            all_finite(errors)
        }
    }
}

/// Computes `R` rows from position `at`, in each `V` vectors from float `pass`; sets `errors` to NaN if a
/// pre-activation is not finite.
///
/// # Safety
/// As `Work::product`.
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
            errors = job.finish.store(row[r], acc[r], job.output.add(row[r] * STRIDE + pass), errors);
        }
        errors
    }
}

/// Computes one row that is the largest of its inputs, as `rows` does sums.
///
/// # Safety
/// As `Work::product`.
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
        job.finish.store(row, acc, job.output.add(row * STRIDE + pass), errors)
    }
}
