//! The pipeline of consecutive layers, which processes one panel at a time so that the panel stays in the cache.
//!
//! Before each layer samples are collected in a panel; once it is full the layer is applied to it, and the samples that
//! are still live go on to the next layer. If few have died, the panel goes on unchanged. So panels stay full even if
//! most samples die, and only one panel per layer is held.

use crate::activations::{copy_lanes, stride};
use crate::aligned::Aligned;
use crate::compute::Compute;
use crate::digest::LayerSums;
use crate::errors::{NoMemory, NonFinite};
use crate::isa::Path;
use crate::layer::Layer;
use crate::memory::{collected, copied, with_room};
use crate::spmm::spmm_panel;

use super::Failure;
use super::batches::{Batch, Batches};
use super::source::Source;

/// Applies `layers` to the samples `live` of `source`, and adds the digests of these layers to `sums`; returns the samples
/// that are live at the end, or the lowest layer and row that is not finite.
pub fn run(
    source: &impl Source,
    live: &[u32],
    width: usize,
    (layers, sums): (&[&Layer], Option<LayerSums<'_>>),
    compute: &Compute,
) -> Result<Batches, Failure> {
    let panels = live.len().div_ceil(width);
    let share = panels.div_ceil(compute.threads()).max(1) * width;
    let parts: Vec<&[u32]> = live.chunks(share).collect();
    let results = compute.map(parts.len(), |part| {
        let mut pass = Pass::new(layers, sums, width, compute.path());
        for ids in parts[part].chunks(width) {
            pass.begin(source, ids)?;
        }
        pass.finish()
    });
    let mut done = Vec::new();
    let mut failure = None;
    for result in results {
        match result {
            Ok(batches) => done.extend(batches),
            Err(error) => failure = failure.into_iter().chain([error]).min(),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(Batches::new(layers.last().map_or(0, |layer| layer.rows()), done)?),
    }
}

/// The panels that wait for a layer, or after the last one for the end of the pass.
#[derive(Default)]
struct Queue {
    ready: Vec<Batch>,
    filling: Option<Batch>,
}

impl Queue {
    fn push(&mut self, batch: Batch) -> Result<(), NoMemory> {
        self.ready.try_reserve(1).map_err(|_| NoMemory)?;
        self.ready.push(batch);
        Ok(())
    }
}

struct Pass<'a> {
    layers: &'a [&'a Layer],
    sums: Option<LayerSums<'a>>,
    /// For each layer, and the end, whether dead samples may be dropped before it.
    may_drop: Vec<bool>,
    width: usize,
    path: Path,
    floats: usize,
    /// One for each layer, and one for the end.
    queues: Vec<Queue>,
    spare: Vec<Aligned>,
    /// The lowest layer and row that is not finite.
    failure: Option<(usize, NonFinite)>,
}

impl<'a> Pass<'a> {
    fn new(layers: &'a [&'a Layer], sums: Option<LayerSums<'a>>, width: usize, path: Path) -> Self {
        let widest = layers.iter().map(|layer| layer.rows().max(layer.columns())).max().unwrap_or(0);
        // A dropped sample cannot come back, so all later layers must be zero-preserving.
        let last_needing_all = layers.iter().rposition(|layer| !layer.zero_preserving());
        Self {
            layers,
            sums,
            may_drop: (0..=layers.len()).map(|index| last_needing_all.is_none_or(|last| index > last)).collect(),
            width,
            path,
            floats: widest.saturating_mul(width),
            queues: (0..=layers.len()).map(|_| Queue::default()).collect(),
            spare: Vec::new(),
            failure: None,
        }
    }

    /// Loads the samples of one panel and applies all layers that it can go through now.
    fn begin(&mut self, source: &impl Source, ids: &[u32]) -> Result<(), NoMemory> {
        let stride = if ids.len() == self.width { self.width } else { stride(ids.len(), self.width) };
        for ids in ids.chunks(stride) {
            let mut data = self.buffer()?;
            source.load(ids, stride, &mut data);
            self.queues[0].push(Batch { ids: copied(ids)?, stride, data })?;
            self.drain(0)?;
        }
        Ok(())
    }

    /// Processes the samples that still wait, and returns all that are live at the end.
    fn finish(mut self) -> Result<Vec<Batch>, Failure> {
        for index in 0..self.layers.len() {
            if let Some(batch) = self.queues[index].filling.take() {
                self.split(index, batch)?;
            }
            self.drain(index)?;
        }
        let Queue { ready, filling } = self.queues.pop().expect("the end has a queue");
        match self.failure {
            Some((layer, error)) => Err(Failure::NonFinite(layer, error)),
            None => Ok(ready.into_iter().chain(filling).collect()),
        }
    }

    /// Processes all panels that are ready at layer `from` or later, the latest layer first.
    fn drain(&mut self, from: usize) -> Result<(), NoMemory> {
        let mut index = from;
        loop {
            if let Some(batch) = self.queues[..self.layers.len()].get_mut(index).and_then(|queue| queue.ready.pop()) {
                self.step(index, batch)?;
                index += 1;
            } else if index > from {
                index -= 1;
            } else {
                return Ok(());
            }
        }
    }

    /// Applies a layer to a batch and queues the live samples for the next layer.
    fn step(&mut self, index: usize, batch: Batch) -> Result<(), NoMemory> {
        let layer = self.layers[index];
        let Batch { mut ids, stride, data } = batch;
        let mut output = self.buffer()?;
        let result = spmm_panel(layer, &data, &mut output, (stride, ids.len()), self.path);
        self.keep(data)?;
        if let Err(error) = result {
            let error = (index, error);
            self.failure = Some(self.failure.map_or(error, |failure| failure.min(error)));
            return self.keep(output);
        }
        if let Some(sums) = self.sums {
            sums.add(index, &output[..layer.rows() * stride], stride, &ids);
        }
        let alive = if self.may_drop[index + 1] {
            alive_lanes(&output[..layer.rows() * stride], stride, ids.len())
        } else {
            ALL
        };
        let count = (alive & mask(ids.len())).count_ones() as usize;
        if count * 8 > ids.len() * 7 {
            let data =
                if index + 1 == self.layers.len() { self.fitted(output, layer.rows() * stride)? } else { output };
            self.queues[index + 1].push(Batch { ids, stride, data })?;
            return Ok(());
        }
        let mut lanes = with_room(count)?;
        lanes.extend((0..ids.len() as u32).filter(|lane| alive >> lane & 1 == 1));
        ids = collected(lanes.iter().map(|lane| ids[*lane as usize]))?;
        self.fill(index + 1, &ids, &lanes, (&output[..layer.rows() * stride], stride))?;
        self.keep(output)
    }

    /// Copies samples, given by their lanes of a panel, into the panel that is being filled for a layer.
    fn fill(
        &mut self,
        index: usize,
        mut ids: &[u32],
        mut lanes: &[u32],
        (panel, stride): (&[f32], usize),
    ) -> Result<(), NoMemory> {
        let rows = panel.len() / stride;
        while !ids.is_empty() {
            let mut batch = match self.queues[index].filling.take() {
                Some(batch) => batch,
                None => {
                    let is_end = index == self.layers.len();
                    let data = if is_end { Aligned::zeroed(rows * self.width)? } else { self.buffer()? };
                    Batch { ids: with_room(self.width)?, stride: self.width, data }
                }
            };
            let free = (self.width - batch.ids.len()).min(ids.len());
            let start = batch.ids.len() as u32;
            let pairs = collected((start..start + free as u32).zip(lanes[..free].iter().copied()))?;
            copy_lanes(panel, stride, &mut batch.data, self.width, &pairs);
            batch.ids.extend_from_slice(&ids[..free]);
            (ids, lanes) = (&ids[free..], &lanes[free..]);
            let queue = &mut self.queues[index];
            if batch.ids.len() == self.width { queue.push(batch)? } else { queue.filling = Some(batch) }
        }
        Ok(())
    }

    /// Moves a partly filled panel to the ready ones, split into panels no wider than necessary.
    fn split(&mut self, index: usize, batch: Batch) -> Result<(), NoMemory> {
        let rows = self.layers[index].columns();
        let mut first = 0;
        while first < batch.ids.len() {
            let left = batch.ids.len() - first;
            let stride = stride(left, self.width);
            let count = stride.min(left);
            let mut data = self.buffer()?;
            data[..rows * stride].fill(0.0);
            let pairs = collected((0..count as u32).map(|lane| (lane, first as u32 + lane)))?;
            copy_lanes(&batch.data[..rows * batch.stride], batch.stride, &mut data, stride, &pairs);
            self.queues[index].push(Batch { ids: copied(&batch.ids[first..first + count])?, stride, data })?;
            first += count;
        }
        self.keep(batch.data)
    }

    /// Returns the first `floats` floats of a buffer, without much unused memory.
    fn fitted(&mut self, data: Aligned, floats: usize) -> Result<Aligned, NoMemory> {
        if floats * 2 > self.floats {
            return Ok(data);
        }
        let copy = Aligned::copied(&data[..floats])?;
        self.keep(data)?;
        Ok(copy)
    }

    /// Keeps a buffer for the next panel.
    fn keep(&mut self, data: Aligned) -> Result<(), NoMemory> {
        self.spare.try_reserve(1).map_err(|_| NoMemory)?;
        self.spare.push(data);
        Ok(())
    }

    fn buffer(&mut self) -> Result<Aligned, NoMemory> {
        self.spare.pop().map_or_else(|| Aligned::zeroed(self.floats), Ok)
    }
}

const ALL: u128 = u128::MAX;

fn mask(lanes: usize) -> u128 {
    if lanes >= 128 { ALL } else { (1 << lanes) - 1 }
}

/// Returns a bit for each of the first `count` lanes, set if the lane has a value that is not zero.
fn alive_lanes(panel: &[f32], stride: usize, count: usize) -> u128 {
    let mut found = 0;
    // If all are live, a few rows usually show it.
    for rows in panel.chunks(64 * stride) {
        let mut bits = [0_u32; 128];
        for row in rows.chunks_exact(stride) {
            for (bits, value) in bits.iter_mut().zip(row) {
                *bits |= value.to_bits();
            }
        }
        for (lane, bits) in bits[..count].iter().enumerate() {
            found |= u128::from(*bits != 0) << lane;
        }
        if found == mask(count) {
            break;
        }
    }
    found
}
