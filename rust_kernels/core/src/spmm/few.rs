//! The product of a layer and a few samples, by slices of rows.

mod gathered;
#[cfg(target_arch = "x86_64")]
mod windowed;

use std::ops::Range;

use super::body::Lanes;
use crate::activation::Activation;
use crate::activations::{PanelMut, Panels};
use crate::compute::Compute;
use crate::isa::Path;
use crate::layer::Layer;
use crate::slices::{Form, LANES, Slice, Slices};

/// Minimum number of fused multiply-adds that make a task worth handing to another thread.
const SMALLEST_TASK: usize = 1 << 15;

/// The floats of a slice: one for each row.
type Sums = [f32; LANES];

/// Computes all rows for panels of one sample from the layer's slices; false if any is not finite.
///
/// # Safety
/// The slices must be the layer's, and panels have its columns and rows and the same samples.
pub(super) unsafe fn product(
    layer: &Layer,
    slices: &Slices,
    input: &Panels,
    output: &mut Panels,
    compute: &Compute,
) -> bool {
    let mut outputs = output.panels_mut();
    let pointers = |(index, output): (usize, &mut PanelMut<'_>)| Sample {
        input: input.panel(index).as_ptr(),
        output: output.data_mut().as_mut_ptr(),
    };
    let samples: Vec<Sample> = outputs.iter_mut().enumerate().map(pointers).collect();
    let tasks = tasks(layer, &slices.slices, samples.len(), compute.threads());
    let finite = compute.map(tasks.len(), |task| {
        let job = Job { layer, slices: &slices.slices[tasks[task].clone()], samples: &samples, path: compute.path() };
        // SAFETY: the caller upholds the same conditions, and no two tasks have a row in common.
        unsafe { job.run(&slices.form) }
    });
    finite.into_iter().all(|finite| finite)
}

/// Returns whether a layer is large enough for threads to share its product with a few samples.
pub(crate) fn shares_few(layer: &Layer, samples: usize) -> bool {
    worth(layer, samples) > 1
}

/// Returns the number of tasks for which a layer's product has enough work.
fn worth(layer: &Layer, samples: usize) -> usize {
    layer.weights().connections().saturating_mul(samples) / SMALLEST_TASK
}

/// Cuts the slices into parts with about the same number of steps, such that all threads have work and none too little.
fn tasks(layer: &Layer, slices: &[Slice], samples: usize, threads: usize) -> Vec<Range<usize>> {
    let count = if threads == 1 { 1 } else { worth(layer, samples).clamp(1, 2 * threads) };
    let steps = slices.last().map_or(0, |slice| slice.steps.end);
    let cut = |task: usize| match task {
        0 => 0,
        _ if task == count => slices.len(),
        _ => slices.partition_point(|slice| slice.steps.start < steps * task / count),
    };
    (0..count).map(|task| cut(task)..cut(task + 1)).collect()
}

/// The inputs and outputs of one sample: one float for each neuron.
struct Sample {
    input: *const f32,
    output: *mut f32,
}

// SAFETY: tasks read the input only, and write rows of the output that no other task touches.
unsafe impl Send for Sample {}
// SAFETY: as above.
unsafe impl Sync for Sample {}

/// The slices to compute for all samples.
struct Job<'a> {
    layer: &'a Layer,
    slices: &'a [Slice],
    samples: &'a [Sample],
    path: Path,
}

impl Job<'_> {
    /// Computes the slices; false if any of their rows is not finite.
    ///
    /// # Safety
    /// The samples must have the layer's columns and rows, `form` be the layer's for this path, and nothing else access
    /// these rows.
    unsafe fn run(&self, form: &Form) -> bool {
        // SAFETY: the caller upholds the same conditions.
        unsafe {
            match form {
                Form::Gathered16(form) => gathered::run(self, form),
                Form::Gathered32(form) => gathered::run(self, form),
                #[cfg(target_arch = "x86_64")]
                Form::Windowed(form) => windowed::run(self, form),
                #[cfg(not(target_arch = "x86_64"))]
                Form::Windowed(_) => unreachable!("not made for this processor"),
            }
        }
    }

    /// Adds the biases to the sums of a slice, applies the activation and stores the results; sets `errors` to NaN in
    /// lanes whose result is not finite.
    ///
    /// # Safety
    /// As `run`.
    #[inline(always)]
    unsafe fn finish(&self, slice: &Slice, sample: &Sample, sums: Sums, errors: &mut Sums) {
        // SAFETY: slices have rows of the layer only, and the output has all of them.
        unsafe {
            let bias = self.layer.bias();
            let biases = if bias.len() == 1 {
                Sums::splat(bias[0])
            } else {
                slice.rows.map(|row| *bias.get_unchecked(row as usize))
            };
            let mut z = sums.add(biases);
            if slice.lanes < LANES {
                z[slice.lanes..].fill(0.0);
            }
            *errors = z.fma(Sums::splat(0.0), *errors);
            let values = match slice.group.activation.bounds() {
                // Adding +0 turns -0 into +0.
                Some((low, high)) => z.max(Sums::splat(low)).min(Sums::splat(high)).add(Sums::splat(0.0)),
                None => {
                    self.activate(slice, &mut z);
                    *errors = z.fma(Sums::splat(0.0), *errors);
                    z
                }
            };
            for (row, value) in slice.rows[..slice.lanes].iter().zip(values) {
                *sample.output.add(*row as usize) = value;
            }
        }
    }

    #[inline(never)]
    fn activate(&self, slice: &Slice, z: &mut Sums) {
        let activation = slice.group.activation;
        if activation == Activation::Prelu {
            for (row, z) in slice.rows.iter().zip(&mut z[..slice.lanes]) {
                activation.apply(std::slice::from_mut(z), self.layer.slope(*row as usize), self.path);
            }
        } else {
            activation.apply(&mut z[..slice.lanes], 0.0, self.path);
        }
    }
}

/// Returns whether no lane of `errors` is NaN.
fn finite(errors: &Sums) -> bool {
    !errors.iter().any(|error| error.is_nan())
}
