//! The choice of panel width and column blocks by a model of the time that a product takes.
//!
//! A connection of a panel costs the scalar work for its index and weight, and for each cache line of the input row a load
//! and a fused multiply-add, more if the line is not in the first-level cache. A row of a block costs loading and storing
//! its sums. The costs are nanoseconds on one core of an AMD EPYC (Zen 4), fitted to layers of 1,024 to 16,384 neurons with
//! 16 to 820 connections a row; only their ratios matter. Nothing was measured on Arm: there the same costs are used with the
//! sizes of its caches.

use crate::aligned::LINE;
use crate::isa::{Path, cache_bytes};

/// Work for a connection, whatever the width of the panel.
const CONNECTION: f64 = 0.26;
/// Work for a line of an input row in the first-level cache.
const LINE_NEAR: f64 = 0.29;
/// Additional work for a line that comes from the second-level cache.
const LINE_L2: f64 = 0.42;
/// Additional work for a line that comes from beyond it.
const LINE_BEYOND: f64 = 0.55;
/// Least work for a connection: finding its weight and input row takes that long.
const LEAST: f64 = 0.85;
/// Work for a row of a block.
const ROW: f64 = 0.8;
/// Work for a line of the sums of a row in a block.
const SUM_LINE: f64 = 0.4;
/// Minimum connections of a row in a block, on average: shorter loops end unforeseen.
const FEWEST_CONNECTIONS: usize = 6;

/// Maximum columns of a block: an index within it has 16 bits.
pub(crate) const MOST_COLUMNS: usize = 1 << 16;

/// The sizes of the caches of a core in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caches {
    pub l1: usize,
    pub l2: usize,
}

impl Caches {
    pub fn here() -> Self {
        Self { l1: cache_bytes(1), l2: cache_bytes(2) }
    }
}

/// The dimensions of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub rows: usize,
    pub columns: usize,
    pub connections: usize,
}

/// The widths of full panels among which a path chooses.
pub(crate) fn widths(path: Path) -> &'static [usize] {
    match path {
        Path::Avx512 => &[16, 32, 64],
        Path::Avx2 | Path::Neon => &[32, 64],
        Path::Portable => &[32],
    }
}

/// Returns the time of a layer for one sample among those of a full panel, with columns in blocks of `block`.
fn cost(size: Size, block: usize, width: usize, caches: Caches) -> f64 {
    let lines = width as f64 * size_of::<f32>() as f64 / LINE as f64;
    let bytes = block.min(size.columns) as f64 * lines * LINE as f64;
    let missing = |cache: usize| (1.0 - cache as f64 / bytes).max(0.0);
    let line = LINE_NEAR + LINE_L2 * missing(caches.l1) + LINE_BEYOND * missing(caches.l2);
    let sums = (size.rows * size.columns.div_ceil(block)) as f64 * (ROW + SUM_LINE * lines);
    (size.connections as f64 * (CONNECTION + lines * line).max(LEAST) + sums) / width as f64
}

/// Returns the columns of a block and the time of a layer for panels of a given width; all columns if blocks do not pay.
fn best_block(size: Size, width: usize, caches: Caches) -> (usize, f64) {
    let enough = |block: usize| size.connections >= FEWEST_CONNECTIONS * size.rows * size.columns.div_ceil(block);
    let blocks = (5..)
        .map(|power| 1 << power)
        .take_while(|block| *block <= MOST_COLUMNS)
        .filter(|block| *block < size.columns && enough(*block));
    blocks
        .chain([size.columns.max(1)])
        .map(|block| (block, cost(size, block, width, caches)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .expect("there is at least one choice")
}

/// Returns the width of full panels that is best for layers applied one after the other.
pub(crate) fn best_width(layers: impl Iterator<Item = Size> + Clone, path: Path, caches: Caches) -> usize {
    let time = |width: usize| layers.clone().map(|size| best_block(size, width, caches).1).sum::<f64>();
    let widths = widths(path).iter().rev().map(|width| (*width, time(*width)));
    widths.min_by(|a, b| a.1.total_cmp(&b.1)).expect("each path has widths").0
}

/// Returns the columns of a block that is best for a layer in panels of its own best width; None if its rows are best
/// computed one after the other. One block of all columns puts rows with as many connections next to each other.
pub(crate) fn block_columns(size: Size, is_regular: bool, path: Path, caches: Caches) -> Option<usize> {
    let width = best_width([size].into_iter(), path, caches);
    let (block, _) = best_block(size, width, caches);
    (block < size.columns || !is_regular && block <= MOST_COLUMNS).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHES: Caches = Caches { l1: 32 << 10, l2: 1 << 20 };

    fn choice(neurons: usize, connections: usize, path: Path) -> (usize, Option<usize>) {
        let size = Size { rows: neurons, columns: neurons, connections: neurons * connections };
        (best_width([size].into_iter(), path, CACHES), block_columns(size, true, path, CACHES))
    }

    #[test]
    fn what_was_measured_to_be_best_is_chosen() {
        assert_eq!(choice(1024, 205, Path::Avx512), (64, Some(128)));
        assert_eq!(choice(4096, 819, Path::Avx512), (64, Some(128)));
        assert_eq!(choice(4096, 82, Path::Avx512), (32, Some(512)));
        assert_eq!(choice(16384, 5, Path::Avx512).1, None);
        let size = Size { rows: 10, columns: 300, connections: 40 };
        assert_eq!(block_columns(size, false, Path::Avx2, CACHES), Some(300));
    }

    #[test]
    fn layouts_for_neon_keep_to_the_caches_of_arm() {
        let caches = Caches { l1: 64 << 10, l2: 1 << 20 };
        for (neurons, connections) in [(1024, 205), (4096, 82), (4096, 819)] {
            let size = Size { rows: neurons, columns: neurons, connections: neurons * connections };
            let width = best_width([size].into_iter(), Path::Neon, caches);
            let block = block_columns(size, true, Path::Neon, caches).unwrap();
            assert!(widths(Path::Neon).contains(&width));
            assert!(block * width * size_of::<f32>() <= 2 * caches.l1, "{neurons} {connections}: {block} x {width}");
        }
    }

    #[test]
    fn layers_without_rows_columns_or_connections_have_a_choice() {
        for size in [(0, 0), (0, 5), (5, 0), (5, 5)].map(|(rows, columns)| Size { rows, columns, connections: 0 }) {
            assert_eq!(block_columns(size, true, Path::Portable, CACHES), None);
        }
        assert_eq!(best_width([].into_iter(), Path::Avx512, CACHES), 64);
    }
}
