//! Activations: neurons x samples, stored as panels of samples that fit the cache.
//!
//! A panel holds all rows of a few samples, row-major, so a product reads one short run of floats per connection.
//! Runs are 1, 4, 8, 16, 32, 64 or 128 floats long; the floats of a run beyond the panel's samples are padding and stay
//! zero.

use crate::aligned::{Aligned, LINE};
use crate::errors::NoMemory;
use crate::isa::Path;
use crate::layer::Layer;
use crate::memory::{copied, with_room};
use crate::shape::{self, Caches};

/// The allowed panel widths.
pub const WIDTHS: [usize; 7] = [1, 4, 8, 16, 32, 64, 128];

/// Returns the width of panels for `samples` samples that go through these layers: the best for full panels, but not much
/// more than there are samples.
pub fn panel_width<'a>(layers: impl Iterator<Item = &'a Layer> + Clone, samples: usize, path: Path) -> usize {
    let best = shape::best_width(layers.map(Layer::size), path, Caches::here());
    best.min(stride(samples, best))
}

/// The position of a panel: it holds the live samples `first .. first + count`, and its rows are `stride` floats apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: usize,
    pub count: usize,
    pub stride: usize,
    offset: usize,
}

impl Span {
    /// Returns the positions of this panel's samples in the list of live samples.
    pub fn slots(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }
}

/// One panel for writing.
pub(crate) struct PanelMut<'a> {
    span: Span,
    data: &'a mut [f32],
}

impl PanelMut<'_> {
    pub fn span(&self) -> Span {
        self.span
    }

    /// Returns all rows, with their padding.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.data
    }

    /// Returns one row without padding.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.span.stride..][..self.span.count]
    }
}

/// The activations of the live samples; all other samples are zero in every row.
pub struct Panels {
    rows: usize,
    width: usize,
    samples: Vec<u32>,
    spans: Vec<Span>,
    data: Aligned,
}

impl Panels {
    /// Returns panels of zeros. `samples` are the ids of the live samples, strictly ascending; `width`, one of
    /// `WIDTHS`, is the number of samples in a full panel (the last ones may be narrower).
    ///
    /// # Panics
    /// If the ids do not ascend strictly or the width is not one of `WIDTHS`.
    pub fn zeroed(rows: usize, samples: Vec<u32>, width: usize) -> Result<Self, NoMemory> {
        Self::within(None, rows, samples, width)
    }

    /// Returns panels in the memory of `spare` ones if that is about as large as needed, otherwise in memory of their own.
    /// Their values are arbitrary and must all be written; their padding is zero.
    ///
    /// # Panics
    /// As `zeroed`.
    pub(crate) fn within(spare: Option<Self>, rows: usize, samples: Vec<u32>, width: usize) -> Result<Self, NoMemory> {
        assert!(samples.is_sorted_by(|a, b| a < b), "sample ids must ascend strictly");
        let (spans, len) = lay_out(rows, samples.len(), width)?;
        let Some(data) = spare.and_then(|spare| spare.data.resized(len)) else {
            return Ok(Self { rows, width, samples, spans, data: Aligned::zeroed(len)? });
        };
        let mut panels = Self { rows, width, samples, spans, data };
        for index in 0..panels.spans.len() {
            let Span { count, stride, .. } = panels.spans[index];
            if count < stride {
                panels.panel_mut(index).chunks_exact_mut(stride).for_each(|row| row[count..].fill(0.0));
            }
        }
        Ok(panels)
    }

    /// Returns panels of zeros with the samples and widths of `self` but another number of rows.
    pub fn like(&self, rows: usize) -> Result<Self, NoMemory> {
        Self::zeroed(rows, copied(&self.samples)?, self.width)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the ids of the live samples, ascending.
    pub fn samples(&self) -> &[u32] {
        &self.samples
    }

    /// Returns the positions of the panels, in the order of their samples.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Returns the size of the panels in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.data)
    }

    /// Returns one panel: rows x stride, row-major.
    pub fn panel(&self, index: usize) -> &[f32] {
        let span = &self.spans[index];
        &self.data[span.offset..span.offset + self.rows * span.stride]
    }

    /// Returns one panel for writing; its padding must stay zero.
    pub fn panel_mut(&mut self, index: usize) -> &mut [f32] {
        let span = &self.spans[index];
        &mut self.data[span.offset..span.offset + self.rows * span.stride]
    }

    /// Returns one row of one panel without padding: one value for each of `spans()[index].slots()`.
    pub fn panel_row(&self, index: usize, row: usize) -> &[f32] {
        let span = &self.spans[index];
        &self.panel(index)[row * span.stride..][..span.count]
    }

    /// Returns the same as `panel_row`, for writing.
    pub fn panel_row_mut(&mut self, index: usize, row: usize) -> &mut [f32] {
        let span = self.spans[index];
        &mut self.panel_mut(index)[row * span.stride..][..span.count]
    }

    /// Returns all panels for writing, so that threads can share them.
    pub(crate) fn panels_mut(&mut self) -> Vec<PanelMut<'_>> {
        let mut rest = &mut self.data[..];
        let mut taken = 0;
        let mut panels = Vec::with_capacity(self.spans.len());
        for span in &self.spans {
            let (data, after) = std::mem::take(&mut rest)[span.offset - taken..].split_at_mut(self.rows * span.stride);
            taken = span.offset + data.len();
            rest = after;
            panels.push(PanelMut { span: *span, data });
        }
        panels
    }

    /// Copies the values of a row from position `first` in the list of live samples on to `out`.
    pub(crate) fn read_slots(&self, row: usize, first: usize, out: &mut [f32]) {
        let mut index = self.spans.partition_point(|span| span.slots().end <= first);
        let mut done = 0;
        while done < out.len() {
            let from = &self.panel_row(index, row)[first + done - self.spans[index].first..];
            let count = from.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&from[..count]);
            (index, done) = (index + 1, done + count);
        }
    }

    /// Copies a row to `out`: one value for each live sample.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.samples.len(), "one value for each live sample");
        for (index, span) in self.spans.iter().enumerate() {
            out[span.slots()].copy_from_slice(self.panel_row(index, row));
        }
    }

    /// Sets a row from `values`: one value for each live sample.
    pub fn write_row(&mut self, row: usize, values: &[f32]) {
        assert_eq!(values.len(), self.samples.len(), "one value for each live sample");
        for index in 0..self.spans.len() {
            let slots = self.spans[index].slots();
            self.panel_row_mut(index, row).copy_from_slice(&values[slots]);
        }
    }

    /// Returns, for each live sample, whether any of its values is not zero.
    pub fn alive(&self) -> Vec<bool> {
        let mut alive = vec![false; self.samples.len()];
        for (index, span) in self.spans.iter().enumerate() {
            let alive = &mut alive[span.slots()];
            for row in 0..self.rows {
                for (alive, value) in alive.iter_mut().zip(self.panel_row(index, row)) {
                    *alive |= *value != 0.0;
                }
                // If all are live, a few rows usually show it.
                if row % 64 == 63 && alive.iter().all(|alive| *alive) {
                    break;
                }
            }
        }
        alive
    }

    /// Returns the same activations for another list of live samples: missing ones are dropped, new ones are zero.
    pub fn repacked(&self, samples: Vec<u32>, width: usize) -> Result<Self, NoMemory> {
        let mut packed = Self::zeroed(self.rows, samples, width)?;
        packed.copy_samples(self)?;
        Ok(packed)
    }

    /// Copies from `source` the samples that both have.
    ///
    /// # Panics
    /// If the numbers of rows differ.
    pub fn copy_samples(&mut self, source: &Self) -> Result<(), NoMemory> {
        assert_eq!(self.rows, source.rows, "both must have the same rows");
        for index in 0..self.spans.len() {
            let to = self.spans[index];
            for (from, span) in source.spans.iter().enumerate() {
                let lanes = shared(&self.samples[to.slots()], &source.samples[span.slots()])?;
                copy_lanes(source.panel(from), span.stride, self.panel_mut(index), to.stride, &lanes);
            }
        }
        Ok(())
    }
}

/// Copies lanes, given as (to, from) pairs, of every row of a panel into another panel.
pub(crate) fn copy_lanes(
    source: &[f32],
    source_stride: usize,
    target: &mut [f32],
    target_stride: usize,
    lanes: &[(u32, u32)],
) {
    let Some(&(to, from)) = lanes.first() else { return };
    let (to, from, count) = (to as usize, from as usize, lanes.len());
    let rows = target.chunks_exact_mut(target_stride).zip(source.chunks_exact(source_stride));
    if lanes.windows(2).all(|pair| pair[1] == (pair[0].0 + 1, pair[0].1 + 1)) {
        rows.for_each(|(target, source)| target[to..to + count].copy_from_slice(&source[from..from + count]));
    } else {
        for (target, source) in rows {
            for &(to, from) in lanes {
                target[to as usize] = source[from as usize];
            }
        }
    }
}

/// Returns the positions (in `a`, in `b`) of the ids that two ascending lists share.
pub(crate) fn shared(a: &[u32], b: &[u32]) -> Result<Vec<(u32, u32)>, NoMemory> {
    let (Some(first), Some(last)) = (b.first(), b.last()) else { return Ok(Vec::new()) };
    let range = a.partition_point(|id| id < first)..a.partition_point(|id| id <= last);
    let position = |at: usize| b.binary_search(&a[at]).ok().map(|found| (at as u32, found as u32));
    let mut shared = with_room(range.len().min(b.len()))?;
    shared.extend(range.filter_map(position));
    Ok(shared)
}

/// Returns the panels for a number of samples, and the number of floats that they take.
fn lay_out(rows: usize, samples: usize, width: usize) -> Result<(Vec<Span>, usize), NoMemory> {
    assert!(WIDTHS.contains(&width), "a panel cannot be {width} samples wide");
    let mut spans = with_room(samples / width + 4)?;
    let (mut first, mut offset) = (0, 0_usize);
    while first < samples {
        let stride = stride(samples - first, width);
        let count = stride.min(samples - first);
        spans.push(Span { first, count, stride, offset });
        first += count;
        let floats =
            rows.checked_mul(stride).and_then(|floats| floats.checked_next_multiple_of(LINE / size_of::<f32>()));
        offset = floats.and_then(|floats| offset.checked_add(floats)).ok_or(NoMemory)?;
    }
    Ok((spans, offset))
}

/// Returns the stride of the next panel for the remaining samples: the widest of which at most a quarter is padding.
pub(crate) fn stride(left: usize, width: usize) -> usize {
    let fits = |stride: &&usize| **stride <= width && left * 4 >= **stride * 3;
    *WIDTHS.iter().rev().find(fits).unwrap_or(&1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn narrow_panels_take_the_rest() {
        let strides = |samples, width| -> Vec<_> {
            lay_out(3, samples, width).unwrap().0.iter().map(|span| (span.stride, span.count)).collect()
        };
        assert_eq!(strides(40, 32), [(32, 32), (8, 8)]);
        assert_eq!(strides(31, 32), [(32, 31)]);
        assert_eq!(strides(3, 128), [(4, 3)]);
        assert_eq!(strides(2, 128), [(1, 1), (1, 1)]);
        assert_eq!(strides(0, 8), []);
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in 0..5_usize, ids in prop::collection::btree_set(0..300_u32, 0..200), width in 0..7_usize) {
            let samples: Vec<u32> = ids.into_iter().collect();
            let mut panels = Panels::zeroed(rows, samples.clone(), WIDTHS[width]).unwrap();
            let value = |row: usize, sample: u32| (row * 1000) as f32 + sample as f32 + 1.0;
            for row in 0..rows {
                let values: Vec<f32> = samples.iter().map(|&sample| value(row, sample)).collect();
                panels.write_row(row, &values);
            }
            prop_assert!(rows == 0 || panels.alive().iter().all(|alive| *alive));
            let other: Vec<u32> = (0..300).filter(|sample| sample % 3 != 0).collect();
            let packed = panels.repacked(other.clone(), WIDTHS[6 - width]).unwrap();
            let mut out = vec![f32::NAN; other.len()];
            for row in 0..rows {
                packed.read_row(row, &mut out);
                for (slot, sample) in other.iter().enumerate() {
                    let expected = if samples.contains(sample) { value(row, *sample) } else { 0.0 };
                    prop_assert_eq!(out[slot], expected);
                }
            }
        }
    }
}
