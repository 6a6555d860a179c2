//! Serial inference: one batch through all layers in this process.

mod batches;
mod dense;
mod outputs;
mod packed;
mod pipeline;
mod source;
mod transpose;

use std::sync::atomic::AtomicU64;

use thiserror::Error;

use crate::activations::{Panels, panel_width};
use crate::compute::Compute;
use crate::digest::{self, LayerSums};
use crate::errors::{Invalid, LoadError, NoMemory, NonFinite};
use crate::layer::Layer;
use crate::memory::collected;
use crate::slices::MOST_SAMPLES;
use crate::spmm::{Rows, prepare, shares_few, spmm};
use batches::Batches;
pub use dense::{Dense, Order};
pub use outputs::Csr;
pub use packed::Part;
pub use source::Samples;
pub(crate) use source::Source;

/// A neuron is not finite; `layer` counts from the first layer applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("layer {layer}: row {row} is not finite")]
pub struct Overflow {
    pub layer: usize,
    pub row: usize,
}

/// An error of `Serial::apply`, which leaves the activations unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Overflow(#[from] Overflow),
    #[error(transparent)]
    Memory(#[from] NoMemory),
}

/// Why a pass has no result; the least one is reported.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Failure {
    Memory(NoMemory),
    /// The layer, counted from the first one of the pass.
    NonFinite(usize, NonFinite),
}

impl From<NoMemory> for Failure {
    fn from(error: NoMemory) -> Self {
        Self::Memory(error)
    }
}

/// The activations of one batch. Samples that are all zero are not stored.
pub struct Serial {
    samples: usize,
    neurons: usize,
    applied: usize,
    activations: Activations,
    digests: Option<Digests>,
    compute: Compute,
}

/// The digests of the batch, and of the layers that were applied to it; its samples are numbered from `first_sample`.
struct Digests {
    first_sample: u64,
    batch: u64,
    layers: Vec<u64>,
}

enum Activations {
    Csr(Samples),
    Dense(Dense),
    Batches(Batches),
}

/// Minimum number of consecutive zero-preserving layers for which dropping dead samples pays off although a later layer
/// needs all samples.
const WORTH_DROPPING: usize = 4;

impl Serial {
    /// Takes a batch in CSR.
    pub fn csr(input: Samples, compute: Compute) -> Self {
        Self::new(input.len(), input.features(), Activations::Csr(input), compute)
    }

    /// Takes a dense batch.
    pub fn dense(input: Dense, compute: Compute) -> Self {
        Self::new(input.len(), input.rows(), Activations::Dense(input), compute)
    }

    fn new(samples: usize, neurons: usize, activations: Activations, compute: Compute) -> Self {
        Self { samples, neurons, applied: 0, activations, digests: None, compute }
    }

    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Returns the number of activations of a sample.
    pub fn neurons(&self) -> usize {
        self.neurons
    }

    /// Has digests taken of the batch and of all layers, if none was applied yet. The first sample has the number
    /// `first_sample` in the batch of which this one may be a part.
    pub fn keep_digests(&mut self, first_sample: u64) -> Result<(), LoadError> {
        if self.applied > 0 {
            let text = format!("{} layers were applied before digests were asked for", self.applied);
            return Err(Invalid(text).into());
        }
        let batch = match &self.activations {
            Activations::Csr(input) => digest::of_batch(input, first_sample, &self.compute)?,
            Activations::Dense(input) => digest::of_batch(input, first_sample, &self.compute)?,
            Activations::Batches(batches) => digest::of_batch(batches, first_sample, &self.compute)?,
        };
        self.digests = Some(Digests { first_sample, batch, layers: Vec::new() });
        Ok(())
    }

    /// Returns the digests of the batch and of each layer that was applied; none if they are not kept.
    pub fn digests(&self) -> Vec<u64> {
        let kept = self.digests.iter();
        kept.flat_map(|kept| std::iter::once(kept.batch).chain(kept.layers.iter().copied())).collect()
    }

    /// Applies consecutive layers to the batch.
    pub fn apply(&mut self, layers: &[&Layer]) -> Result<(), ApplyError> {
        let mut neurons = self.neurons;
        for (index, layer) in layers.iter().enumerate() {
            if layer.columns() != neurons {
                let (layer, columns) = (self.applied + index, layer.columns());
                return Err(Invalid(format!("layer {layer} has {columns} columns for {neurons} inputs")).into());
            }
            neurons = layer.rows();
        }
        let sums: Vec<AtomicU64> = layers.iter().map(|_| AtomicU64::new(0)).collect();
        let kept = self.digests.as_ref();
        let sums_of = |first: usize| {
            let all = |kept: &Digests| LayerSums {
                first_layer: self.applied,
                first_sample: kept.first_sample,
                path: self.compute.path(),
                sums: &sums,
            };
            kept.map(|kept| all(kept).after(first))
        };
        let mut batches: Option<Batches> = None;
        let mut done = 0;
        for segment in segments(layers) {
            let next = match (&batches, &self.activations) {
                (Some(batches), _) | (None, Activations::Batches(batches)) => {
                    self.pass(batches, segment, sums_of(done))
                }
                (None, Activations::Csr(input)) => self.pass(input, segment, sums_of(done)),
                (None, Activations::Dense(input)) => self.pass(input, segment, sums_of(done)),
            };
            let first = self.applied + done;
            batches = Some(next.map_err(|failure| match failure {
                Failure::Memory(error) => ApplyError::from(error),
                Failure::NonFinite(layer, NonFinite { row }) => Overflow { layer: first + layer, row }.into(),
            })?);
            done += segment.len();
        }
        if let Some(batches) = batches {
            self.activations = Activations::Batches(batches);
        }
        if let Some(kept) = &mut self.digests {
            kept.layers.extend(sums.into_iter().map(AtomicU64::into_inner));
        }
        self.applied += layers.len();
        self.neurons = neurons;
        Ok(())
    }

    /// Applies one segment of layers to the samples of `source`, and adds the digests of these layers to `sums`.
    fn pass(&self, source: &impl Source, layers: &[&Layer], sums: Option<LayerSums<'_>>) -> Result<Batches, Failure> {
        let all_needed = layers.iter().any(|layer| !layer.zero_preserving());
        let live = if all_needed { collected(0..self.samples as u32)? } else { source.live()? };
        if self.few(live.len(), layers) {
            let shared = layers.iter().any(|layer| shares_few(layer, live.len()));
            let panels = source.panels(live, 1)?;
            let work = || self.pass_by_rows(panels, layers, sums);
            return if shared { self.compute.within(work) } else { work() };
        }
        let width = panel_width(layers.iter().copied(), live.len(), self.compute.path());
        prepare(layers, live.len(), width, &self.compute);
        if live.len() <= width && self.compute.threads() > 1 {
            let panels = source.panels(live, width)?;
            return self.compute.within(|| self.pass_by_rows(panels, layers, sums));
        }
        pipeline::run(source, &live, width, (layers, sums), &self.compute)
    }

    /// Returns whether the slices of most connections serve this number of samples; counts a batch that is small.
    fn few(&self, samples: usize, layers: &[&Layer]) -> bool {
        if !(1..=MOST_SAMPLES).contains(&samples) {
            return false;
        }
        let path = self.compute.path();
        let served = |layer: &&&Layer| {
            layer.count_few(samples, path);
            layer.slices(samples, path).is_some()
        };
        let connections = |layer: &&Layer| layer.weights().connections();
        let all: usize = layers.iter().map(connections).sum();
        2 * layers.iter().filter(served).map(connections).sum::<usize>() > all
    }

    /// Applies layers one by one with the threads sharing the rows, for batches with too few panels for all threads.
    fn pass_by_rows(
        &self,
        mut panels: Panels,
        layers: &[&Layer],
        sums: Option<LayerSums<'_>>,
    ) -> Result<Batches, Failure> {
        for (index, layer) in layers.iter().enumerate() {
            let mut output = panels.like(layer.rows())?;
            spmm(layer, Rows::All, &panels, &mut output, &self.compute)
                .map_err(|error| Failure::NonFinite(index, error))?;
            if let Some(sums) = sums {
                sums.add_panels(index, &output, &self.compute);
            }
            panels = output;
        }
        Ok(Batches::of(&panels, &self.compute)?)
    }

    /// Returns the number of activations that are not zero.
    pub fn non_zeros(&self) -> Result<usize, NoMemory> {
        self.read(|batches| Ok(batches.non_zeros(&self.compute)))
    }

    /// Returns the activations as CSR arrays, samples x neurons, without stored zeros.
    pub fn result(&self) -> Result<Csr, NoMemory> {
        self.read(|batches| batches.csr(self.samples, &self.compute))
    }

    /// Writes the activations to `out`, samples x neurons.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn write(&self, out: &mut [f32]) -> Result<(), NoMemory> {
        assert_eq!(Some(out.len()), self.samples.checked_mul(self.neurons), "a place for each activation");
        self.read(|batches| batches.write(out, &self.compute))
    }

    /// Returns, for each sample, its largest activation and the lowest neuron that has it.
    ///
    /// Without neurons the activation is -inf and the neuron -1.
    pub fn reduce(&self) -> Result<(Vec<f32>, Vec<i32>), NoMemory> {
        self.read(|batches| batches.reduce(self.samples))
    }

    fn read<R>(&self, work: impl FnOnce(&Batches) -> Result<R, NoMemory>) -> Result<R, NoMemory> {
        match &self.activations {
            Activations::Batches(batches) => work(batches),
            Activations::Csr(input) => work(&self.loaded(input)?),
            Activations::Dense(input) => work(&self.loaded(input)?),
        }
    }

    /// Returns the samples of an input to which no layer was applied.
    fn loaded(&self, source: &impl Source) -> Result<Batches, NoMemory> {
        Batches::of(&source.panels(source.live()?, 16)?, &self.compute)
    }
}

/// Cuts layers into segments within which dropped samples are never needed again.
///
/// A segment ends before a layer that is not zero-preserving if at least `WORTH_DROPPING` zero-preserving layers
/// directly precede it. After fewer there is no cut, and no sample is dropped there.
fn segments<'a, 'b>(layers: &'a [&'b Layer]) -> Vec<&'a [&'b Layer]> {
    let mut segments = Vec::new();
    let (mut start, mut keeping) = (0, 0);
    for (index, layer) in layers.iter().enumerate() {
        if layer.zero_preserving() {
            keeping += 1;
            continue;
        }
        if keeping >= WORTH_DROPPING {
            segments.push(&layers[start..index]);
            start = index;
        }
        keeping = 0;
    }
    if start < layers.len() {
        segments.push(&layers[start..]);
    }
    segments
}
