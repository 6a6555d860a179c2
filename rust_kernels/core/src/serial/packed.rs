//! The activations of a batch as blocks: those that ranks have packed as outputs, and those that they get as inputs.

use std::ops::Range;

use super::batches::{Batches, copies};
use super::source::Source;
use super::{Activations, Serial};
use crate::activations::{PanelMut, Panels};
use crate::codec::{self, BadBlock, Block, PanelRows};
use crate::compute::Compute;
use crate::errors::{Invalid, LoadError, NoMemory};
use crate::memory::collected;
use crate::unpack::{Supply, join};

/// Width of the panels between blocks, whose rows are samples of one neuron, and samples.
const WIDTH: usize = 64;

/// Some neurons of consecutive samples.
pub struct Part<'a> {
    /// A block that stands alone, with a row for each neuron.
    pub block: &'a [u8],
    pub samples: Range<usize>,
    /// The neurons of the rows, ascending.
    pub neurons: &'a [u32],
}

impl Serial {
    /// Takes a batch of which parts are packed; neurons that no part has are zero.
    pub fn unpacked(samples: usize, neurons: usize, parts: &[Part<'_>], compute: Compute) -> Result<Self, LoadError> {
        if u32::try_from(samples.max(neurons)).is_err() {
            return Err(
                Invalid(format!("{samples} samples x {neurons} neurons are more than 32-bit ids can name")).into()
            );
        }
        if let Some(part) = parts.iter().find(|part| part.samples.end > samples || !are_rows(part.neurons, neurons)) {
            let (ends, count) = (&part.samples, part.neurons.len());
            return Err(Invalid(format!(
                "{count} neurons of samples {} to {} are not, in ascending order, among {neurons} of {samples} samples",
                ends.start, ends.end
            ))
            .into());
        }
        let groups = groups(parts)?;
        let decoded = compute.map(parts.len(), |index| {
            let part = &parts[index];
            let bad = |error: BadBlock| error.of("");
            let found = Block::claimed_shape(part.block).map_err(bad)?;
            let expected = (part.neurons.len(), part.samples.len());
            if found != expected {
                let ((rows, columns), (neurons, samples)) = (found, expected);
                return Err(Invalid(format!("a block is {rows} x {columns} instead of {neurons} x {samples}")).into());
            }
            Block::decode_any(part.block, &compute).map_err(bad)
        });
        let blocks = decoded.into_iter().collect::<Result<Vec<_>, _>>()?;
        let pairs =
            parts.iter().map(|part| collected((0..part.neurons.len() as u32).zip(part.neurons.iter().copied())));
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let mut batches = Vec::new();
        for here in groups {
            let supplies: Vec<_> = here.iter().map(|index| Supply::block(&blocks[*index], &pairs[*index])).collect();
            let samples = &parts[here[0]].samples;
            let panels = join(neurons, samples.len(), WIDTH, &supplies, &compute)?;
            batches.extend(copies(&panels, samples.start, &compute)?);
        }
        Ok(Self::new(samples, neurons, Activations::Batches(Batches::new(neurons, batches)?), compute))
    }

    /// Returns the activations of consecutive samples as blocks that stand alone, one for every `neurons` neurons.
    ///
    /// # Panics
    /// If there are no such samples, or `neurons` is 0.
    pub fn blocks(&self, samples: Range<usize>, neurons: usize) -> Result<Vec<Vec<u8>>, NoMemory> {
        assert!(samples.end <= self.samples, "the batch has these samples");
        match &self.activations {
            Activations::Csr(source) => blocks(source, samples, neurons, &self.compute),
            Activations::Dense(source) => blocks(source, samples, neurons, &self.compute),
            Activations::Batches(source) => blocks(source, samples, neurons, &self.compute),
        }
    }
}

/// Returns the positions of the parts with the same samples, which those of other parts must not overlap.
fn groups(parts: &[Part<'_>]) -> Result<Vec<Vec<usize>>, Invalid> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| (parts[*index].samples.start, parts[*index].samples.end));
    let groups = order.chunk_by(|a, b| parts[*a].samples == parts[*b].samples);
    let groups: Vec<Vec<usize>> = groups.map(<[usize]>::to_vec).collect();
    let overlap = |pair: &[Vec<usize>]| parts[pair[0][0]].samples.end > parts[pair[1][0]].samples.start;
    if groups.windows(2).any(overlap) {
        return Err(Invalid("parts of different samples overlap".into()));
    }
    Ok(groups)
}

/// Returns whether ids ascend strictly and are below `count`.
fn are_rows(ids: &[u32], count: usize) -> bool {
    ids.is_sorted_by(|a, b| a < b) && ids.last().is_none_or(|last| (*last as usize) < count)
}

fn blocks(
    source: &impl Source,
    samples: Range<usize>,
    neurons: usize,
    compute: &Compute,
) -> Result<Vec<Vec<u8>>, NoMemory> {
    let ids: Vec<u32> = source.live()?.into_iter().filter(|id| samples.contains(&(*id as usize))).collect();
    let here = collected(ids.iter().map(|id| id - samples.start as u32))?;
    let mut panels = Panels::zeroed(source.rows(), here, WIDTH)?;
    let load = |_, mut panel: PanelMut<'_>| {
        let span = panel.span();
        source.load(&ids[span.slots()], span.stride, panel.data_mut());
    };
    compute.for_each(panels.panels_mut(), load);
    let rows: Vec<u32> = (0..panels.rows() as u32).collect();
    let rows: Vec<&[u32]> = rows.chunks(neurons).collect();
    Ok(compute.map(rows.len(), |index| {
        let rows = rows[index];
        let source = PanelRows::selected(&panels, rows);
        codec::encode(rows.len(), samples.len(), panels.samples(), &source, None, compute).block()
    }))
}
