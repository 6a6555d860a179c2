//! Weights in column blocks: the order in which wide panels are computed fastest.
//!
//! A product reads a row of the input panel for every connection. Computed row by row, the rows of a wide panel come from
//! the second-level cache or beyond. Here, the rows of a tile first take all their connections in the first block of
//! columns, whose input rows stay in the first-level cache, then those in the second block, and so on; in between their
//! sums are kept in the output. Within a block, rows with as many connections follow each other, so that the processor
//! foresees where their loops end. Each row still adds its connections in ascending column order.

use std::ops::Range;

use crate::compute::Compute;
use crate::csr::{Csr, Index, Indices};
use crate::errors::NoMemory;
use crate::layer::{Group, Layer, Reduce};
use crate::memory::with_room;
use crate::shape::MOST_COLUMNS;

/// Maximum rows of a tile: enough to read the input block often, few enough that their sums stay in the cache.
const TILE_ROWS: usize = 512;

/// The rows of a layer, in column blocks.
pub(crate) struct Blocked {
    tiles: Vec<Tile>,
}

/// Consecutive rows of one group, in column blocks.
pub(crate) struct Tile {
    pub group: Group,
    pub rows: Range<usize>,
    pub blocks: Vec<Block>,
    pub runs: Vec<Run>,
    /// The rows of the runs, one after the other.
    pub order: Vec<u32>,
    /// The columns of the connections, counted from the first one of their block.
    pub indices: Vec<u16>,
    /// The weights of the connections; empty if the layer has one value for all.
    pub values: Vec<f32>,
}

/// Consecutive columns.
pub(crate) struct Block {
    pub first_column: usize,
    /// The positions of its runs.
    pub runs: Range<usize>,
}

/// Consecutive rows with equally many connections in a block.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub connections: u32,
    pub rows: u32,
}

impl Blocked {
    /// Cuts the columns of a layer into blocks of `width` (at most `MOST_COLUMNS`); None if it has rows that are maxima, or there is
    /// not enough memory for a second copy of its weights.
    pub fn new(layer: &Layer, width: usize, compute: &Compute) -> Option<Self> {
        assert!((1..=MOST_COLUMNS).contains(&width), "an index within a block has 16 bits");
        if layer.ranges().any(|(_, group)| group.reduce == Reduce::Max) {
            return None;
        }
        let weights = layer.weights();
        let cut = |(rows, group): (Range<usize>, Group)| {
            let end = rows.end;
            rows.step_by(TILE_ROWS).map(move |start| (start..end.min(start + TILE_ROWS), group))
        };
        let tiles: Vec<(Range<usize>, Group)> = layer.ranges().flat_map(cut).collect();
        let tile = |index: usize| {
            let (rows, group) = tiles[index].clone();
            match weights.indices() {
                Indices::U16(indices) => Tile::new(weights, indices, group, rows, width),
                Indices::U32(indices) => Tile::new(weights, indices, group, rows, width),
            }
        };
        let tiles = compute.map(tiles.len(), tile).into_iter().collect::<Result<_, _>>().ok()?;
        Some(Self { tiles })
    }

    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }
}

impl Tile {
    fn new<I: Index>(
        weights: &Csr,
        indices: &[I],
        group: Group,
        rows: Range<usize>,
        width: usize,
    ) -> Result<Self, NoMemory> {
        let indptr = weights.indptr();
        // The first connection of each row that is not in a block yet.
        let mut next: Vec<usize> = indptr[rows.clone()].iter().map(|start| *start as usize).collect();
        let ends = &indptr[rows.start + 1..=rows.end];
        let connections = (indptr[rows.end] - indptr[rows.start]) as usize;
        let weighted = if weights.one_value() { 0 } else { connections };
        let mut tile = Self {
            group,
            rows: rows.clone(),
            blocks: Vec::new(),
            runs: Vec::new(),
            order: Vec::new(),
            indices: with_room(connections)?,
            values: with_room(weighted)?,
        };
        let blocks = weights.columns().div_ceil(width).max(1);
        for block in 0..blocks {
            let (first_column, after) = (block * width, (block + 1) * width);
            let first_run = tile.runs.len();
            let count = |(at, (next, end)): (usize, (&usize, &i64))| {
                let columns = &indices[*next..*end as usize];
                (columns.iter().take_while(|column| column.get() < after).count(), at)
            };
            let mut by_count: Vec<(usize, usize)> = next.iter().zip(ends).enumerate().map(count).collect();
            by_count.sort_unstable();
            tile.order.try_reserve(by_count.len()).map_err(|_| NoMemory)?;
            tile.runs.try_reserve(by_count.len()).map_err(|_| NoMemory)?;
            for group in by_count.chunk_by(|a, b| a.0 == b.0) {
                let count = group[0].0;
                if count == 0 && 0 < block && block + 1 < blocks {
                    // Neither the first block, which starts the sums, nor the last one, which finishes them.
                    continue;
                }
                tile.runs.push(Run { connections: count as u32, rows: group.len() as u32 });
                for &(_, at) in group {
                    let range = next[at]..next[at] + count;
                    tile.order.push((rows.start + at) as u32);
                    tile.indices
                        .extend(indices[range.clone()].iter().map(|column| (column.get() - first_column) as u16));
                    if !weights.one_value() {
                        tile.values.extend_from_slice(&weights.values()[range.clone()]);
                    }
                    next[at] = range.end;
                }
            }
            tile.blocks.try_reserve(1).map_err(|_| NoMemory)?;
            tile.blocks.push(Block { first_column, runs: first_run..tile.runs.len() });
        }
        Ok(tile)
    }
}
