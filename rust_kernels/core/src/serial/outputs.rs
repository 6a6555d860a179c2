//! The activations of a batch in the forms that are returned: dense, CSR, or the largest of each sample.

use std::sync::atomic::{AtomicBool, Ordering};

use super::batches::{Batch, Batches};
use super::source::Source as _;
use super::transpose::scatter;
use crate::compute::Compute;
use crate::errors::NoMemory;
use crate::memory::{filled, zeros};

/// A sparse matrix, samples x neurons, as CSR arrays (indptr, indices, data).
pub type Csr = (Vec<i64>, Vec<i32>, Vec<f32>);

/// Samples of a panel that are made dense at a time.
const DENSE_LANES: usize = 8;

impl Batches {
    /// Returns the number of activations that are not zero.
    pub fn non_zeros(&self, compute: &Compute) -> usize {
        compute
            .map(self.list().len(), |index| {
                let panel = self.panel(&self.list()[index]);
                panel.iter().map(|value| usize::from(*value != 0.0)).sum::<usize>() // padding is zero
            })
            .into_iter()
            .sum()
    }

    /// Writes the activations to `out`, samples x neurons.
    pub fn write(&self, out: &mut [f32], compute: &Compute) -> Result<(), NoMemory> {
        if out.is_empty() {
            return Ok(());
        }
        let (held, others) = self.distributed(out.chunks_exact_mut(self.rows()))?;
        others.into_iter().for_each(|sample| sample.fill(0.0));
        compute.for_each(held, |index, mut samples| {
            let batch = &self.list()[index];
            scatter(self.panel(batch), batch.stride, &mut samples, compute.path());
        });
        Ok(())
    }

    /// Returns the activations of `samples` samples without stored zeros.
    pub fn csr(&self, samples: usize, compute: &Compute) -> Result<Csr, NoMemory> {
        let counts = compute.map(self.list().len(), |index| self.counts(&self.list()[index]));
        let mut indptr = filled(samples + 1, 0)?;
        for (batch, counts) in self.list().iter().zip(counts) {
            batch.ids.iter().zip(counts).for_each(|(id, count)| indptr[*id as usize + 1] = i64::from(count));
        }
        for sample in 0..samples {
            indptr[sample + 1] += indptr[sample];
        }
        let entries = indptr[samples] as usize;
        let (mut indices, mut data) = (filled(entries, 0)?, zeros(entries)?);
        let (mut indices_left, mut data_left) = (&mut indices[..], &mut data[..]);
        let parts = indptr.windows(2).map(|ends| {
            let count = (ends[1] - ends[0]) as usize;
            let parts = (indices_left.split_off_mut(..count), data_left.split_off_mut(..count));
            (parts.0.expect("counted"), parts.1.expect("counted"))
        });
        let (held, _) = self.distributed(parts)?;
        let fits = AtomicBool::new(true);
        compute.for_each(held, |index, parts| {
            if self.compress(&self.list()[index], parts, compute).is_err() {
                fits.store(false, Ordering::Relaxed);
            }
        });
        if fits.into_inner() { Ok((indptr, indices, data)) } else { Err(NoMemory) }
    }

    /// Returns, for each sample of a panel, the number of its activations that are not zero.
    fn counts(&self, batch: &Batch) -> Vec<u32> {
        let mut counts = vec![0; batch.ids.len()];
        for row in self.panel(batch).chunks_exact(batch.stride) {
            counts.iter_mut().zip(row).for_each(|(count, value)| *count += u32::from(*value != 0.0));
        }
        counts
    }

    /// Writes the activations of each sample of a panel that are not zero, and their neurons, to (indices, data).
    fn compress(
        &self,
        batch: &Batch,
        mut parts: Vec<(&mut [i32], &mut [f32])>,
        compute: &Compute,
    ) -> Result<(), NoMemory> {
        let neurons = self.rows();
        let mut dense = zeros(DENSE_LANES * neurons)?;
        for (group, parts) in parts.chunks_mut(DENSE_LANES).enumerate() {
            let panel = &self.panel(batch)[(group * DENSE_LANES).min(neurons * batch.stride)..];
            let mut samples: Vec<&mut [f32]> = dense.chunks_exact_mut(neurons.max(1)).take(parts.len()).collect();
            scatter(panel, batch.stride, &mut samples, compute.path());
            for ((indices, data), sample) in parts.iter_mut().zip(samples) {
                let mut count = 0;
                for (neuron, value) in sample.iter().enumerate() {
                    // Without a branch that depends on the value: a zero is overwritten by what follows it.
                    if let (Some(index), Some(kept)) = (indices.get_mut(count), data.get_mut(count)) {
                        (*index, *kept) = (neuron as i32, *value);
                    }
                    count += usize::from(*value != 0.0);
                }
            }
        }
        Ok(())
    }

    /// Returns, for each sample, its largest activation and the lowest neuron that has it.
    ///
    /// Without neurons the activation is -inf and the neuron -1.
    pub fn reduce(&self, samples: usize) -> Result<(Vec<f32>, Vec<i32>), NoMemory> {
        let none = if self.rows() == 0 { (f32::NEG_INFINITY, -1) } else { (0.0, 0) };
        let (mut best, mut neuron) = (filled(samples, none.0)?, filled(samples, none.1)?);
        for batch in self.list() {
            for (row, values) in self.panel(batch).chunks_exact(batch.stride).enumerate() {
                for (id, value) in batch.ids.iter().zip(values) {
                    let sample = *id as usize;
                    if row == 0 || *value > best[sample] {
                        (best[sample], neuron[sample]) = (*value, row as i32);
                    }
                }
            }
        }
        Ok((best, neuron))
    }
}
