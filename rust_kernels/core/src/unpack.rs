//! The assembly of a layer's input panels from rows of several suppliers.

use crate::activations::{Panels, panel_width};
use crate::codec::Block;
use crate::isa::Path;
use crate::layer::Layer;

const ABSENT: u32 = u32::MAX;

/// The rows from one supplier.
pub(crate) struct Supply<'a> {
    /// The samples for which it has values.
    samples: &'a [u32],
    /// For each of these samples, whether it has a value that is not zero.
    alive: Vec<bool>,
    /// The (row, local column) pairs, by row.
    pairs: &'a [(u32, u32)],
    source: Source<'a>,
}

enum Source<'a> {
    Block(&'a Block),
    Panels(&'a Panels),
}

impl<'a> Supply<'a> {
    pub fn block(block: &'a Block, pairs: &'a [(u32, u32)]) -> Self {
        Self { samples: block.live(), alive: vec![true; block.live().len()], pairs, source: Source::Block(block) }
    }

    pub fn panels(panels: &'a Panels, pairs: &'a [(u32, u32)]) -> Self {
        Self { samples: panels.samples(), alive: panels.alive(), pairs, source: Source::Panels(panels) }
    }

    fn read(&self, row: u32, out: &mut [f32]) {
        match self.source {
            Source::Block(block) => block.expand(row as usize, out),
            Source::Panels(panels) => panels.read_row(row as usize, out),
        }
    }
}

/// Returns the inputs of a layer as panels. All-zero samples are left out if the layer is zero-preserving.
pub(crate) fn unpack(layer: &Layer, samples: usize, supplies: &[Supply<'_>], path: Path) -> Panels {
    let mut present = vec![!layer.zero_preserving(); samples];
    for supply in supplies.iter().filter(|supply| !supply.pairs.is_empty()) {
        for (&sample, &alive) in supply.samples.iter().zip(&supply.alive) {
            present[sample as usize] |= alive;
        }
    }
    let live: Vec<u32> = (0..).zip(&present).filter_map(|(sample, &present)| present.then_some(sample)).collect();
    let mut slot_of = vec![ABSENT; samples];
    (0..).zip(&live).for_each(|(slot, &sample)| slot_of[sample as usize] = slot);
    let width = panel_width([layer].into_iter(), live.len(), path);
    let mut panels = Panels::zeroed(layer.columns(), live, width);
    for supply in supplies {
        place(supply, &slot_of, &mut panels);
    }
    panels
}

fn place(supply: &Supply<'_>, slot_of: &[u32], panels: &mut Panels) {
    let slots: Vec<u32> = supply.samples.iter().map(|&sample| slot_of[sample as usize]).collect();
    let aligned = supply.samples == panels.samples();
    let mut values = vec![0.0; slots.len()];
    let mut row = vec![0.0; panels.samples().len()];
    for &(from, column) in supply.pairs {
        supply.read(from, if aligned { &mut row } else { &mut values });
        if !aligned {
            for (&slot, &value) in slots.iter().zip(&values).filter(|(slot, _)| **slot != ABSENT) {
                row[slot as usize] = value;
            }
        }
        panels.write_row(column as usize, &row);
    }
}
