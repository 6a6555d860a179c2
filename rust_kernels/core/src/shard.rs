//! The shard of one rank: its part of each layer, and the rows that it receives from and sends to other ranks.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use crate::errors::{Invalid, LoadError};
use crate::frame;
use crate::inbox::Incoming;
use crate::layer::Layer;
use crate::memory::{filled, with_room};

/// An outgoing edge: rows that a rank sends after a layer to the same targets.
pub struct Outgoing {
    pub targets: Vec<u16>,
    /// Local rows, ascending.
    pub rows: Vec<u32>,
}

/// One rank's part of a layer.
pub struct ShardLayer {
    layer: Arc<Layer>,
    rows: Vec<u32>,
    receives: Vec<Incoming>,
    sends: Vec<Outgoing>,
    /// For each supplier, its (row of the supplier, local column) pairs, by row.
    supplies: Vec<Vec<(u32, u32)>>,
    boundary: Vec<u32>,
    interior: Vec<u32>,
}

fn ascends(values: &[u32]) -> bool {
    values.is_sorted_by(|a, b| a < b)
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid(otherwise())) }
}

impl ShardLayer {
    /// Validates one layer by itself. `rows` are the global neurons of the local rows; the `source` of a column is 0
    /// for the rank's own rows (for layer 0: the features of the input), and i for the rows of `receives[i - 1]`.
    pub fn new(
        layer: Arc<Layer>,
        rows: Vec<u32>,
        column_source: &[u32],
        column_row: &[u32],
        receives: Vec<Incoming>,
        sends: Vec<Outgoing>,
    ) -> Result<Self, LoadError> {
        let columns = layer.columns();
        check(rows.len() == layer.rows(), || format!("{} neurons are named for {} rows", rows.len(), layer.rows()))?;
        let named = rows.last().is_none_or(|&last| i32::try_from(last).is_ok());
        check(ascends(&rows) && named, || "the neurons of the rows must ascend strictly, below 2^31".into())?;
        check(column_source.len() == columns && column_row.len() == columns, || {
            format!("{} sources and {} rows are given for {columns} columns", column_source.len(), column_row.len())
        })?;
        let mut counts = filled(receives.len() + 1, 0_usize)?;
        for source in column_source {
            if let Some(count) = counts.get_mut(*source as usize) {
                *count += 1;
            }
        }
        let mut supplies = counts.into_iter().map(with_room).collect::<Result<Vec<_>, _>>()?;
        for (column, (&source, &row)) in (0u32..).zip(column_source.iter().zip(column_row)) {
            let supplier = supplies.get_mut(source as usize);
            let supplier = supplier
                .ok_or_else(|| Invalid(format!("column {column} names supplier {source} of {}", receives.len() + 1)))?;
            if let Some(edge) = (source as usize).checked_sub(1).map(|edge| &receives[edge]) {
                check((row as usize) < edge.rows, || {
                    format!("column {column} names row {row} of an edge of {} rows", edge.rows)
                })?;
            }
            supplier.push((row, column));
        }
        supplies.iter_mut().for_each(|pairs| pairs.sort_unstable());
        let mut sent = filled(rows.len(), false)?;
        for (number, edge) in sends.iter().enumerate() {
            check(!edge.targets.is_empty() && !edge.rows.is_empty(), || {
                format!("edge {number} has no target or no row; it should not be there")
            })?;
            check(ascends(&edge.rows), || format!("the rows of edge {number} must ascend strictly"))?;
            for &row in &edge.rows {
                let row_sent = sent.get_mut(row as usize);
                *row_sent.ok_or_else(|| Invalid(format!("edge {number} sends row {row} of {}", rows.len())))? = true;
            }
        }
        let boundary_rows = sent.iter().filter(|sent| **sent).count();
        let (mut boundary, mut interior) = (with_room(boundary_rows)?, with_room(rows.len() - boundary_rows)?);
        for (row, is_sent) in (0u32..).zip(sent) {
            if is_sent { &mut boundary } else { &mut interior }.push(row);
        }
        Ok(Self { layer, rows, receives, sends, supplies, boundary, interior })
    }

    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Returns the global neuron of each local row, ascending.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub fn receives(&self) -> &[Incoming] {
        &self.receives
    }

    pub fn sends(&self) -> &[Outgoing] {
        &self.sends
    }

    /// Returns, for each supplier, its (row of the supplier, local column) pairs, by row.
    pub fn supplies(&self) -> &[Vec<(u32, u32)>] {
        &self.supplies
    }

    /// Returns the local rows that other ranks need, ascending.
    pub fn boundary(&self) -> &[u32] {
        &self.boundary
    }

    /// Returns the local rows that no other rank needs, ascending.
    pub fn interior(&self) -> &[u32] {
        &self.interior
    }
}

/// One rank's part of the network. Its layers are added in order, while runs may compute the earlier ones.
pub struct Shard {
    rank: u16,
    workers: usize,
    receives: Vec<Vec<Incoming>>,
    layers: Vec<OnceLock<Arc<ShardLayer>>>,
}

impl Shard {
    /// Validates the edges that the rank receives before each layer, and that the ranks they name exist.
    pub fn new(rank: usize, workers: usize, receives: Vec<Vec<Incoming>>) -> Result<Self, Invalid> {
        check(rank < workers && workers <= usize::from(u16::MAX), || {
            format!("there is no rank {rank} among {workers} workers (of at most {})", u16::MAX)
        })?;
        check(!receives.is_empty(), || "a shard has at least one layer".into())?;
        check(receives.len() <= frame::MOST, || {
            format!("{} layers are more than frames can tell apart ({})", receives.len(), frame::MOST)
        })?;
        check(receives[0].is_empty(), || "layer 0 reads the input and receives nothing".into())?;
        let layers = receives.iter().map(|_| OnceLock::new()).collect();
        let shard = Self { rank: rank as u16, workers, receives, layers };
        for (k, incoming) in shard.receives.iter().enumerate() {
            let mut edges = HashSet::new();
            for edge in incoming {
                check(shard.other(edge.source) && edge.rows > 0 && edges.insert((edge.source, edge.edge)), || {
                    format!(
                        "layer {k}: edge {} of rank {} is empty, given twice, or not of another rank",
                        edge.edge, edge.source
                    )
                })?;
            }
        }
        Ok(shard)
    }

    /// Returns whether there is such a rank and it is not this one.
    fn other(&self, rank: u16) -> bool {
        rank != self.rank && usize::from(rank) < self.workers
    }

    /// Adds layer `index`, the next one, and validates that it matches the others.
    pub fn add(&self, index: usize, layer: Arc<ShardLayer>) -> Result<(), Invalid> {
        let before = index.checked_sub(1).and_then(|before| self.layer(before));
        let is_next = index < self.layers.len() && (index == 0 || before.is_some()) && self.layer(index).is_none();
        check(is_next, || format!("layer {index} is not the next layer of the shard"))?;
        check(layer.receives == self.receives[index], || {
            format!("layer {index}: its incoming edges are not those of the shard")
        })?;
        check(index + 1 < self.layers.len() || layer.sends.is_empty(), || {
            format!("layer {index} is the last and sends nothing")
        })?;
        for (number, edge) in layer.sends.iter().enumerate() {
            let fits = edge.targets.is_sorted_by(|a, b| a < b) && edge.targets.iter().all(|&target| self.other(target));
            check(fits, || format!("layer {index}: the targets of edge {number} must be other ranks, ascending"))?;
        }
        if let (Some(before), Some((row, column))) = (before, layer.supplies[0].last()) {
            let own = before.rows.len();
            check((*row as usize) < own, || format!("layer {index}: column {column} names own row {row} of {own}"))?;
        }
        self.layers[index].set(layer).map_err(|_| Invalid(format!("layer {index} was added by another thread")))
    }

    pub fn rank(&self) -> u16 {
        self.rank
    }

    /// Returns the rank as a list of targets.
    pub(crate) fn itself(&self) -> &[u16] {
        std::slice::from_ref(&self.rank)
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Returns the edges that arrive before each layer.
    pub fn receives(&self) -> &[Vec<Incoming>] {
        &self.receives
    }

    /// Returns a layer, or nothing if it was not added yet or does not exist.
    pub fn layer(&self, index: usize) -> Option<&ShardLayer> {
        self.layers.get(index)?.get().map(AsRef::as_ref)
    }
}
