//! Digests of layers: sums, modulo 2^64, of a hash of each activation that is not zero.
//!
//! A hash depends on layer, neuron, sample and the bits of the value, and a sum does not depend on its order. So the
//! digests of all parts of a layer add up to that of the layer, however neurons and samples are divided.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::activations::Panels;
use crate::compute::Compute;
use crate::errors::NoMemory;
use crate::isa::Path;
use crate::serial::Source;

/// The level of the batch itself; that of the outputs of layer k is k + 1.
const BATCH: u32 = 0;

/// Rows of a panel that a thread takes at a time.
const ROWS: usize = 1024;

/// Samples of a batch that are read at a time.
const SAMPLES: usize = 64;

/// Returns the output of the generator `SplitMix64` for a state: a bijection of which each input bit changes each output
/// bit with a probability of about one half.
#[inline(always)]
fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns the level of the outputs of a layer.
fn level(layer: usize) -> u32 {
    u32::try_from(layer + 1).expect("a network has fewer layers than 32 bits can number")
}

/// Returns what the hashes of a sample's values differ in from those of other samples.
fn key(sample: u64) -> u64 {
    sample << 32
}

/// Returns the digest of rows of a panel, `stride` floats apart, of which the first `keys.len()` floats count.
fn rows(
    level: u32,
    neurons: impl Iterator<Item = u32>,
    (panel, stride): (&[f32], usize),
    keys: &[u64],
    path: Path,
) -> u64 {
    match path {
        // SAFETY: paths are only used where the processor supports them.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { rows_avx2(level, neurons, panel, stride, keys) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { rows_avx512(level, neurons, panel, stride, keys) },
        _ => rows_inline(level, neurons, panel, stride, keys),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn rows_avx2(level: u32, neurons: impl Iterator<Item = u32>, panel: &[f32], stride: usize, keys: &[u64]) -> u64 {
    rows_inline(level, neurons, panel, stride, keys)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn rows_avx512(level: u32, neurons: impl Iterator<Item = u32>, panel: &[f32], stride: usize, keys: &[u64]) -> u64 {
    rows_inline(level, neurons, panel, stride, keys)
}

#[inline(always)]
fn rows_inline(level: u32, neurons: impl Iterator<Item = u32>, panel: &[f32], stride: usize, keys: &[u64]) -> u64 {
    let mut sum = 0_u64;
    for (neuron, row) in neurons.zip(panel.chunks_exact(stride)) {
        let neuron = splitmix64(u64::from(level) << 32 | u64::from(neuron));
        for (value, key) in row.iter().zip(keys) {
            let bits = value.to_bits();
            let hash = splitmix64(neuron.wrapping_add(key | u64::from(bits)));
            sum = sum.wrapping_add(if bits << 1 == 0 { 0 } else { hash });
        }
    }
    sum
}

/// Returns the digest of the outputs of a layer, whose rows are those of `neurons`; the samples are numbered from
/// `first_sample`.
pub fn of_panels(panels: &Panels, layer: usize, neurons: &[u32], first_sample: u64, compute: &Compute) -> u64 {
    let neuron = |row: usize| neurons[row];
    sum_of_panels(panels, level(layer), &neuron, first_sample, compute)
}

fn sum_of_panels(
    panels: &Panels,
    level: u32,
    neuron: &(impl Fn(usize) -> u32 + Sync),
    first_sample: u64,
    compute: &Compute,
) -> u64 {
    let pieces = panels.rows().div_ceil(ROWS);
    let piece = |index: usize| {
        let (span, start) = (panels.spans()[index / pieces], index % pieces * ROWS);
        let end = panels.rows().min(start + ROWS);
        let keys: Vec<u64> =
            panels.samples()[span.slots()].iter().map(|id| key(first_sample + u64::from(*id))).collect();
        let data = &panels.panel(index / pieces)[start * span.stride..end * span.stride];
        rows(level, (start..end).map(neuron), (data, span.stride), &keys, compute.path())
    };
    compute.map(panels.spans().len() * pieces, piece).into_iter().fold(0, u64::wrapping_add)
}

/// Returns the digest of a batch.
pub(crate) fn of_batch(source: &impl Source, first_sample: u64, compute: &Compute) -> Result<u64, NoMemory> {
    // One panel after the other, whose rows the threads share: no more of the batch is dense at a time.
    source.live()?.chunks(SAMPLES).try_fold(0_u64, |sum, ids| {
        let panels = source.panels(ids.to_vec(), SAMPLES)?;
        Ok(sum.wrapping_add(sum_of_panels(&panels, BATCH, &|row| row as u32, first_sample, compute)))
    })
}

/// The digests of consecutive layers, to which threads add those of panels that hold all neurons.
#[derive(Clone, Copy)]
pub(crate) struct LayerSums<'a> {
    pub first_layer: usize,
    pub first_sample: u64,
    pub path: Path,
    pub sums: &'a [AtomicU64],
}

impl<'a> LayerSums<'a> {
    /// Returns the same without the first `count` layers.
    pub fn after(self, count: usize) -> Self {
        Self { first_layer: self.first_layer + count, sums: &self.sums[count..], ..self }
    }

    /// Adds the samples `ids` of a panel: the outputs of layer `index`, from 0.
    pub fn add(&self, index: usize, panel: &[f32], stride: usize, ids: &[u32]) {
        let keys: Vec<u64> = ids.iter().map(|id| key(self.first_sample + u64::from(*id))).collect();
        self.add_sum(index, rows(level(self.first_layer + index), 0.., (panel, stride), &keys, self.path));
    }

    /// Adds panels: the outputs of layer `index`, from 0.
    pub fn add_panels(&self, index: usize, panels: &Panels, compute: &Compute) {
        let level = level(self.first_layer + index);
        self.add_sum(index, sum_of_panels(panels, level, &|row| row as u32, self.first_sample, compute));
    }

    fn add_sum(&self, index: usize, sum: u64) {
        self.sums[index].fetch_add(sum, Ordering::Relaxed); // wraps around
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::WIDTHS;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_splitmix64() {
        // The first outputs of the reference implementation (Vigna, 2015) with the seed 1234567.
        let gamma = 0x9E37_79B9_7F4A_7C15_u64;
        let states = (0..3_u64).map(|step| 1_234_567_u64.wrapping_add(step.wrapping_mul(gamma)));
        let outputs: Vec<u64> = states.map(splitmix64).collect();
        assert_eq!(outputs, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    proptest! {
        #[test]
        fn parts_add_up_on_every_path(
            values in prop::collection::vec(prop_oneof![Just(0.0), Just(-0.0), -9.0..9.0_f32], 12 * 50),
            cut in 0..=12_usize, split in 0..=50_usize, width in 0..7_usize, threads in 1..3_usize,
        ) {
            let mut expected = 0_u64;
            for (at, value) in values.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                let row = splitmix64((4 << 32) + at as u64 / 50);
                let hash = splitmix64(row.wrapping_add(((at as u64 % 50) << 32) + u64::from(value.to_bits())));
                expected = expected.wrapping_add(hash);
            }
            for path in Path::available() {
                let compute = Compute::with_path(path, threads).unwrap();
                let digest = |neurons: std::ops::Range<usize>, samples: std::ops::Range<usize>, width: usize| {
                    let mut panels = Panels::zeroed(neurons.len(), (0..samples.len() as u32).collect(), width).unwrap();
                    for (row, neuron) in neurons.clone().enumerate() {
                        panels.write_row(row, &values[neuron * 50..][samples.clone()]);
                    }
                    let ids: Vec<u32> = neurons.map(|neuron| neuron as u32).collect();
                    of_panels(&panels, 3, &ids, samples.start as u64, &compute)
                };
                let parts = [
                    digest(0..cut, 0..split, 8), digest(cut..12, 0..split, 4),
                    digest(0..cut, split..50, 32), digest(cut..12, split..50, 1),
                ];
                prop_assert_eq!(digest(0..12, 0..50, WIDTHS[width]), expected, "{}", path);
                prop_assert_eq!(parts.into_iter().fold(0, u64::wrapping_add), expected, "{}", path);
            }
        }
    }
}
