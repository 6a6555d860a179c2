//! Serial inference: one batch through all layers in this process.

mod pipeline;
mod source;

use thiserror::Error;

use crate::activations::{Panels, panel_width};
use crate::compute::Compute;
use crate::errors::{Invalid, NonFinite};
use crate::layer::Layer;
use crate::slices::MOST_SAMPLES;
use crate::spmm::{Rows, prepare, shares_few, spmm};
pub use source::Samples;

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
}

/// The activations of one batch. Samples that are all zero are not stored.
pub struct Serial {
    samples: usize,
    neurons: usize,
    applied: usize,
    activations: Activations,
    compute: Compute,
}

enum Activations {
    Input(Samples),
    Panels(Panels),
}

/// Minimum number of consecutive zero-preserving layers for which dropping dead samples pays off although a later layer
/// needs all samples.
const WORTH_DROPPING: usize = 4;

impl Serial {
    pub fn new(input: Samples, compute: Compute) -> Self {
        Self {
            samples: input.len(),
            neurons: input.features(),
            applied: 0,
            activations: Activations::Input(input),
            compute,
        }
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
        let mut panels: Option<Panels> = None;
        let mut done = 0;
        for segment in segments(layers) {
            let next = match (&panels, &self.activations) {
                (Some(panels), _) | (None, Activations::Panels(panels)) => self.pass(panels, segment),
                (None, Activations::Input(input)) => self.pass(input, segment),
            };
            let first = self.applied + done;
            panels = Some(next.map_err(|(layer, NonFinite { row })| Overflow { layer: first + layer, row })?);
            done += segment.len();
        }
        if let Some(panels) = panels {
            self.activations = Activations::Panels(panels);
        }
        self.applied += layers.len();
        self.neurons = neurons;
        Ok(())
    }

    /// Applies one segment of layers to the samples of `source`.
    fn pass(&self, source: &impl source::Source, layers: &[&Layer]) -> Result<Panels, (usize, NonFinite)> {
        let all_needed = layers.iter().any(|layer| !layer.zero_preserving());
        let live = if all_needed { (0..self.samples as u32).collect() } else { source.live() };
        if self.few(live.len(), layers) {
            let shared = layers.iter().any(|layer| shares_few(layer, live.len()));
            let panels = source.panels(live, 1);
            let work = || self.pass_by_rows(panels, layers);
            return if shared { self.compute.within(work) } else { work() };
        }
        let width = panel_width(layers.iter().copied(), live.len(), self.compute.path());
        prepare(layers, live.len(), width, &self.compute);
        if live.len() <= width && self.compute.threads() > 1 {
            return self.pass_by_rows(source.panels(live, width), layers);
        }
        pipeline::run(source, &live, width, layers, &self.compute)
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
    fn pass_by_rows(&self, mut panels: Panels, layers: &[&Layer]) -> Result<Panels, (usize, NonFinite)> {
        for (index, layer) in layers.iter().enumerate() {
            let mut output = panels.like(layer.rows());
            spmm(layer, Rows::All, &panels, &mut output, &self.compute).map_err(|error| (index, error))?;
            panels = output;
        }
        let alive = panels.alive();
        let live = panels.samples().iter().zip(alive).filter_map(|(id, alive)| alive.then_some(*id)).collect();
        Ok(panels.repacked(live, panels.width()))
    }

    /// Returns the activations as CSR arrays (indptr, indices, data), samples x neurons, without stored zeros.
    pub fn result(&self) -> (Vec<i64>, Vec<i32>, Vec<f32>) {
        match &self.activations {
            Activations::Input(input) => input.without_zeros(),
            Activations::Panels(panels) => compress(panels, self.samples),
        }
    }

    /// Returns, for each sample, its largest activation and the lowest neuron that has it.
    ///
    /// Without neurons the activation is -inf and the neuron -1.
    pub fn reduce(&self) -> (Vec<f32>, Vec<i32>) {
        let none = if self.neurons == 0 { (f32::NEG_INFINITY, -1) } else { (0.0, 0) };
        let (mut best, mut neuron) = (vec![none.0; self.samples], vec![none.1; self.samples]);
        let converted;
        let panels = match &self.activations {
            Activations::Panels(panels) => panels,
            Activations::Input(input) => {
                converted = source::Source::panels(input, source::Source::live(input), 16);
                &converted
            }
        };
        for (index, span) in panels.spans().iter().enumerate() {
            for row in 0..panels.rows() {
                for (id, value) in panels.samples()[span.slots()].iter().zip(panels.panel_row(index, row)) {
                    let sample = *id as usize;
                    if row == 0 || *value > best[sample] {
                        best[sample] = *value;
                        neuron[sample] = row as i32;
                    }
                }
            }
        }
        (best, neuron)
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

fn compress(panels: &Panels, samples: usize) -> (Vec<i64>, Vec<i32>, Vec<f32>) {
    let mut indptr = vec![0; samples + 1];
    for (index, span) in panels.spans().iter().enumerate() {
        let ids = &panels.samples()[span.slots()];
        for row in 0..panels.rows() {
            for (id, value) in ids.iter().zip(panels.panel_row(index, row)) {
                indptr[*id as usize + 1] += i64::from(*value != 0.0);
            }
        }
    }
    for sample in 0..samples {
        indptr[sample + 1] += indptr[sample];
    }
    let entries = indptr[samples] as usize;
    let (mut indices, mut data) = (vec![0; entries], vec![0.0; entries]);
    for (index, span) in panels.spans().iter().enumerate() {
        let ids = &panels.samples()[span.slots()];
        let mut next: Vec<usize> = ids.iter().map(|id| indptr[*id as usize] as usize).collect();
        for row in 0..panels.rows() {
            for (next, value) in next.iter_mut().zip(panels.panel_row(index, row)) {
                if *value != 0.0 {
                    indices[*next] = row as i32;
                    data[*next] = *value;
                    *next += 1;
                }
            }
        }
    }
    (indptr, indices, data)
}
