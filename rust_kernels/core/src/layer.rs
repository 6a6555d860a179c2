//! A layer: weights, bias, and what its rows compute from their sums.

use std::ops::Range;

use crate::activation::Activation;
use crate::blocks::Blocked;
use crate::buffer::Buffer;
use crate::compute::Compute;
use crate::csr::{Csr, check_finite};
use crate::errors::Invalid;
use crate::isa::Path;
use crate::lazy::Lazy;
use crate::shape::{self, Caches, Size};
use crate::slices::{self, Slices};

/// What a row makes of its weighted inputs, before the bias is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// The largest; all weights are 1, and there is at least one.
    Max,
}

/// Consecutive rows that compute alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    pub rows: usize,
    pub reduce: Reduce,
    pub activation: Activation,
}

/// Number of wide panels after which laying out weights in column blocks has paid for itself.
const WORTH_BLOCKS: usize = 4;

/// A validated layer, or a subset of its rows.
pub struct Layer {
    weights: Csr,
    bias: Buffer<f32>,
    slopes: Buffer<f32>,
    groups: Vec<Group>,
    zero_preserving: bool,
    /// The weights in column blocks, for wide panels; they count as uses.
    blocked: Lazy<Blocked>,
    /// The weights in slices, for batches of a few samples; they count as uses.
    slices: Lazy<Slices>,
}

impl Layer {
    /// Validates a layer. `bias` has one entry per row or one for all; `slopes`, for `Activation::Prelu`, has one per
    /// row or is empty; `groups` together have all rows. `zero_preserving` says whether the whole layer, of which this
    /// may be a subset of rows, maps an all-zero sample to an all-zero sample.
    pub fn new(
        weights: Csr,
        bias: Buffer<f32>,
        slopes: Buffer<f32>,
        groups: Vec<Group>,
        zero_preserving: bool,
    ) -> Result<Self, Invalid> {
        let rows = weights.rows();
        if bias.len() != rows && bias.len() != 1 {
            return Err(Invalid(format!("{} biases for {rows} rows; give one a row, or one for all", bias.len())));
        }
        check_finite("bias", &bias)?;
        check_finite("slope", &slopes)?;
        let needs_slopes = groups.iter().any(|group| group.activation == Activation::Prelu);
        if slopes.len() != rows && (needs_slopes || !slopes.is_empty()) {
            return Err(Invalid(format!("{} slopes for {rows} rows; give one a row", slopes.len())));
        }
        let layer =
            Self { weights, bias, slopes, groups, zero_preserving, blocked: Lazy::default(), slices: Lazy::default() };
        let grouped = layer.groups.iter().try_fold(0_usize, |sum, group| sum.checked_add(group.rows));
        if grouped != Some(rows) {
            return Err(Invalid(format!("the groups of rows do not add up to {rows} rows")));
        }
        for (range, group) in layer.ranges() {
            if group.reduce == Reduce::Max {
                layer.check_max(range.clone())?;
            }
            let alike = layer.bias.len() == 1 && group.activation != Activation::Prelu;
            let tried = if alike { range.start..range.end.min(range.start + 1) } else { range.clone() };
            let breaks = |row: &usize| group.activation.value(layer.row_bias(*row), layer.slope(*row)) != 0.0;
            if zero_preserving && let Some(row) = tried.into_iter().find(breaks) {
                return Err(Invalid(format!(
                    "the layer is said to keep zeros, but bias {row} is {} and the activation {:?}",
                    layer.row_bias(row),
                    group.activation
                )));
            }
        }
        Ok(layer)
    }

    fn check_max(&self, rows: Range<usize>) -> Result<(), Invalid> {
        let (indptr, values) = (self.weights.indptr(), self.weights.values());
        for row in rows {
            let connections = indptr[row] as usize..indptr[row + 1] as usize;
            let weights = if values.len() == 1 { values } else { &values[connections.clone()] };
            if connections.is_empty() || weights.iter().any(|weight| *weight != 1.0) {
                return Err(Invalid(format!("row {row} is a maximum: it needs connections, all of weight 1")));
            }
        }
        Ok(())
    }

    /// Returns the groups with their rows.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Range<usize>, Group)> {
        self.groups.iter().scan(0, |next, group| {
            let first = *next;
            *next += group.rows;
            Some((first..*next, *group))
        })
    }

    /// Cuts the positions `block` of selected rows, where `row_at` ascends, at the ends of groups.
    pub(crate) fn grouped(
        &self,
        block: Range<usize>,
        row_at: impl Fn(usize) -> usize,
    ) -> impl Iterator<Item = (Range<usize>, Group)> {
        let mut at = block.start;
        self.ranges().filter_map(move |(rows, group)| {
            let start = at;
            // A binary search for the first position whose row is beyond the group.
            let (mut low, mut high) = (at, block.end);
            while low < high {
                let middle = low.midpoint(high);
                if row_at(middle) < rows.end { low = middle + 1 } else { high = middle }
            }
            at = low;
            (start < at).then_some((start..at, group))
        })
    }

    /// Announces that the layer is going to be applied to a number of wide panels: once it is worth the time, its weights
    /// are laid out in column blocks, a second copy of them.
    pub(crate) fn prepare(&self, panels: usize, compute: &Compute) {
        self.blocked.count(panels, WORTH_BLOCKS, || {
            let regular = self.weights.is_regular();
            let columns = shape::block_columns(self.size(), regular, compute.path(), Caches::here())?;
            Blocked::new(self, columns, compute)
        });
    }

    /// Lays out the weights in blocks of this many columns, whether or not that pays, unless they are laid out already;
    /// returns whether they are now.
    pub fn make_blocks(&self, columns: usize, compute: &Compute) -> bool {
        self.blocked.make(|| Blocked::new(self, columns, compute));
        self.blocked().is_some()
    }

    pub(crate) fn blocked(&self) -> Option<&Blocked> {
        self.blocked.get()
    }

    pub(crate) fn size(&self) -> Size {
        Size { rows: self.rows(), columns: self.columns(), connections: self.weights.connections() }
    }

    /// Counts a batch of a few samples; after several of them `slices` has a layout for such batches.
    pub(crate) fn count_few(&self, samples: usize, path: Path) {
        if samples <= slices::most_samples(self, path) {
            self.slices.count(1, slices::WORTH_SLICES, || Slices::new(self, path));
        }
    }

    /// Makes the layout for batches of a few samples, which takes about as much memory as the weights.
    pub fn make_slices(&self, path: Path) {
        self.slices.make(|| Slices::new(self, path));
    }

    /// Returns the layout for a few samples if it was made and is the fastest for this number of samples on this path.
    pub(crate) fn slices(&self, samples: usize, path: Path) -> Option<&Slices> {
        self.slices.get().filter(|slices| slices.serves(self, samples, path))
    }

    pub fn weights(&self) -> &Csr {
        &self.weights
    }

    /// Returns one bias per row, or exactly one for all.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    fn row_bias(&self, row: usize) -> f32 {
        self.bias[if self.bias.len() == 1 { 0 } else { row }]
    }

    /// Returns the slope of a row, which `Activation::Prelu` uses.
    pub(crate) fn slope(&self, row: usize) -> f32 {
        self.slopes.get(row).copied().unwrap_or(0.0)
    }

    pub fn zero_preserving(&self) -> bool {
        self.zero_preserving
    }

    pub fn rows(&self) -> usize {
        self.weights.rows()
    }

    pub fn columns(&self) -> usize {
        self.weights.columns()
    }
}
