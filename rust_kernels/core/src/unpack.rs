//! The assembly of a layer's input panels from rows of several suppliers.

use crate::activations::{PanelMut, Panels, panel_width, shared};
use crate::codec::{Block, Reader};
use crate::compute::Compute;
use crate::errors::NoMemory;
use crate::layer::Layer;
use crate::memory::{filled, with_room};

/// The rows from one supplier.
pub(crate) struct Supply<'a> {
    /// The (row, local column) pairs, by row.
    pairs: &'a [(u32, u32)],
    source: Source<'a>,
}

enum Source<'a> {
    Block(&'a Block<'a>),
    Panels(&'a Panels),
}

impl<'a> Supply<'a> {
    pub fn block(block: &'a Block<'a>, pairs: &'a [(u32, u32)]) -> Self {
        Self { pairs, source: Source::Block(block) }
    }

    pub fn panels(panels: &'a Panels, pairs: &'a [(u32, u32)]) -> Self {
        Self { pairs, source: Source::Panels(panels) }
    }

    /// Marks the samples that have a value that is not zero.
    fn mark(&self, present: &mut [bool]) {
        match self.source {
            Source::Block(block) => block.live().iter().for_each(|sample| present[*sample as usize] = true),
            Source::Panels(panels) => {
                for (sample, alive) in panels.samples().iter().zip(panels.alive()) {
                    present[*sample as usize] |= alive;
                }
            }
        }
    }
}

/// Returns the inputs of a layer, all of which are supplied, as panels, if possible in the memory of `spare` ones.
/// All-zero samples are left out if the layer is zero-preserving.
pub(crate) fn unpack(
    layer: &Layer,
    samples: usize,
    supplies: &[Supply<'_>],
    spare: Option<Panels>,
    compute: &Compute,
) -> Result<Panels, NoMemory> {
    let mut present = filled(samples, !layer.zero_preserving())?;
    for supply in supplies.iter().filter(|supply| layer.zero_preserving() && !supply.pairs.is_empty()) {
        supply.mark(&mut present);
    }
    let live = positions(&present)?;
    let width = panel_width([layer].into_iter(), live.len(), compute.path());
    fill(Panels::within(spare, layer.columns(), live, width)?, supplies, compute)
}

/// Returns `rows` rows of the samples that any supply has as panels of a width; rows that no supply has are zero.
pub(crate) fn join(
    rows: usize,
    samples: usize,
    width: usize,
    supplies: &[Supply<'_>],
    compute: &Compute,
) -> Result<Panels, NoMemory> {
    let mut present = filled(samples, false)?;
    supplies.iter().for_each(|supply| supply.mark(&mut present));
    fill(Panels::zeroed(rows, positions(&present)?, width)?, supplies, compute)
}

/// Returns the positions of what is true.
fn positions(present: &[bool]) -> Result<Vec<u32>, NoMemory> {
    let mut positions = with_room(present.iter().filter(|present| **present).count())?;
    positions.extend((0..).zip(present).filter_map(|(position, &present)| present.then_some(position)));
    Ok(positions)
}

/// Writes the rows of the supplies, of which no two have the same, into panels.
fn fill(mut panels: Panels, supplies: &[Supply<'_>], compute: &Compute) -> Result<Panels, NoMemory> {
    let plans = supplies.iter().map(|supply| Plan::new(supply, &panels, compute)).collect::<Result<Vec<_>, _>>()?;
    let mut parts = panels.panels_mut();
    // Each thread fills some consecutive panels.
    let share = parts.len().div_ceil(compute.threads()).max(1);
    let mut tasks = Vec::with_capacity(compute.threads());
    while !parts.is_empty() {
        let rest = parts.split_off(share.min(parts.len()));
        tasks.push(std::mem::replace(&mut parts, rest));
    }
    compute.for_each(tasks, |_, mut panels| plans.iter().for_each(|plan| plan.fill(&mut panels)));
    Ok(panels)
}

/// How the rows of a supplier get into the panels.
enum Plan<'a> {
    /// Rows of a block; a mask says which of the panels' samples it has, if not all of them.
    Block { reader: Reader<'a>, pairs: &'a [(u32, u32)], mask: Option<Vec<u8>> },
    /// Rows of panels with the same samples.
    Same { source: &'a Panels, pairs: &'a [(u32, u32)] },
    /// Rows of other panels: (position in the panels, position in the source) of the samples that both have.
    Other { source: &'a Panels, pairs: &'a [(u32, u32)], slots: Vec<(u32, u32)> },
}

impl<'a> Plan<'a> {
    fn new(supply: &Supply<'a>, panels: &Panels, compute: &Compute) -> Result<Self, NoMemory> {
        let pairs = supply.pairs;
        Ok(match supply.source {
            // Every live sample of a block is among those of the panels.
            Source::Block(block) => {
                let all = block.live() == panels.samples();
                let mask = if all { None } else { Some(mask(panels.samples(), block.live())?) };
                Self::Block { reader: block.reader(compute.path()), pairs, mask }
            }
            Source::Panels(source) if source.samples() == panels.samples() => Self::Same { source, pairs },
            Source::Panels(source) => Self::Other { source, pairs, slots: shared(panels.samples(), source.samples())? },
        })
    }

    /// Writes the rows into consecutive panels.
    fn fill(&self, panels: &mut [PanelMut<'_>]) {
        let Some(first) = panels.first().map(|panel| panel.span().first) else { return };
        match self {
            Self::Block { reader, pairs, mask } => {
                let mut over_panels = vec![0; mask.as_ref().map_or(0, Vec::len)];
                for &(row, column) in *pairs {
                    let bitmap = match mask {
                        None => reader.bitmap(row as usize),
                        Some(mask) => {
                            reader.deposit(row as usize, mask, &mut over_panels);
                            &over_panels
                        }
                    };
                    let mut next = reader.seek(row as usize, bitmap, first);
                    for panel in &mut *panels {
                        let slot = panel.span().first;
                        next = reader.expand(bitmap, slot, next, panel.row_mut(column as usize));
                    }
                }
            }
            Self::Same { source, pairs } => {
                for &(row, column) in *pairs {
                    for panel in &mut *panels {
                        let slot = panel.span().first;
                        source.read_slots(row as usize, slot, panel.row_mut(column as usize));
                    }
                }
            }
            Self::Other { source, pairs, slots } => {
                let before = |slot: usize| slots.partition_point(|(to, _)| (*to as usize) < slot);
                let part_of = |panel: &PanelMut<'_>| before(panel.span().first)..before(panel.span().slots().end);
                let parts: Vec<_> = panels.iter().map(|panel| &slots[part_of(panel)]).collect();
                let mut values = vec![0.0; source.samples().len()];
                for &(row, column) in *pairs {
                    source.read_row(row as usize, &mut values);
                    for (panel, part) in panels.iter_mut().zip(&parts) {
                        let slot = panel.span().first;
                        let out = panel.row_mut(column as usize);
                        out.fill(0.0);
                        part.iter().for_each(|&(to, from)| out[to as usize - slot] = values[from as usize]);
                    }
                }
            }
        }
    }
}

/// Returns a bitmap over `samples` of those that are among `some`; both ascend.
fn mask(samples: &[u32], some: &[u32]) -> Result<Vec<u8>, NoMemory> {
    let mut mask = filled(samples.len().div_ceil(8), 0)?;
    for (slot, _) in shared(samples, some)? {
        mask[slot as usize / 8] |= 1 << (slot % 8);
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Framed, PanelRows, encode};

    #[test]
    fn the_memory_of_other_panels_leaves_no_trace() {
        let compute = Compute::new(2).unwrap();
        let some: Vec<u32> = (0..150).filter(|id| id % 3 != 0).collect();
        let mut source = Panels::zeroed(5, some.clone(), 32).unwrap();
        for row in 0..5 {
            let values: Vec<f32> = some.iter().map(|id| (*id as usize * 10 + row) as f32 * (row % 2) as f32).collect();
            source.write_row(row, &values);
        }
        let framed = Some(Framed { known: &[], fast: true });
        let block = encode(5, 150, &some, &PanelRows::all(&source), framed, &compute).block();
        let block = Block::decode(&block, 5, 150, &|_| None, &compute).unwrap();
        let (own, other) = ([(0, 3), (1, 0), (4, 1)], [(0, 5), (1, 2), (3, 4)]);
        let supplies = [Supply::panels(&source, &own), Supply::block(&block, &other)];
        for samples in [(0..150).collect::<Vec<u32>>(), some] {
            let mut spare = Panels::zeroed(6, (0..190).collect(), 64).unwrap();
            spare.panels_mut().iter_mut().for_each(|panel| panel.data_mut().fill(f32::NAN));
            let place = spare.panel(0).as_ptr();
            let reused =
                fill(Panels::within(Some(spare), 6, samples.clone(), 64).unwrap(), &supplies, &compute).unwrap();
            assert_eq!(reused.panel(0).as_ptr(), place);
            let fresh = fill(Panels::zeroed(6, samples, 64).unwrap(), &supplies, &compute).unwrap();
            for index in 0..fresh.spans().len() {
                assert_eq!(reused.panel(index), fresh.panel(index));
            }
        }
    }
}
