//! The fused product of a sparse layer and panels of activations.
//!
//! For every row and sample: acc = +0; acc = fma(w, x, acc) over the row's connections in ascending column order;
//! z = acc + bias; y = activation(z), with -0 stored as +0. A row that is a maximum takes the largest x as acc. The
//! order is fixed and every step rounds once, so panels, threads, lanes and the number of rows processed at once do not
//! change the result.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocked;
mod body;
mod few;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::ops::Range;

use crate::activation::Activation;
use crate::activations::{PanelMut, Panels, Span, WIDTHS};
use crate::blocks::Tile;
use crate::compute::Compute;
use crate::csr::Indices;
use crate::errors::NonFinite;
use crate::isa::Path;
use crate::layer::Layer;
use blocked::TileJob;
use body::{Finish, Job, Work};
pub(crate) use few::shares_few;

/// The rows of a layer to compute.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    All,
    /// These rows, ascending.
    Selected(&'a [u32]),
}

/// Minimum width of panels for which column blocks pay.
const WIDE: usize = 16;

/// Minimum number of fused multiply-adds that make a task worth handing to another thread.
const SMALLEST_TASK: usize = 1 << 17;

/// Computes rows of `output` = activation(weights * `input` + bias) for all live samples of `input`.
///
/// The other rows of `output` are left unchanged, so that disjoint selections can fill the same panels.
///
/// # Panics
/// If shapes or samples do not match, or selected rows do not ascend strictly.
pub fn spmm(
    layer: &Layer,
    rows: Rows<'_>,
    input: &Panels,
    output: &mut Panels,
    compute: &Compute,
) -> Result<(), NonFinite> {
    assert_eq!(input.rows(), layer.columns(), "the input has a row for each column of the layer");
    assert_eq!(output.rows(), layer.rows(), "the output has a row for each row of the layer");
    assert!(input.samples() == output.samples() && input.spans().len() == output.spans().len(), "the same samples");
    let count = match rows {
        Rows::All => layer.rows(),
        Rows::Selected(rows) => {
            assert!(rows.is_sorted_by(|a, b| a < b), "selected rows must ascend strictly");
            assert!(rows.last().is_none_or(|last| (*last as usize) < layer.rows()), "a selected row is not there");
            rows.len()
        }
    };
    if matches!(rows, Rows::All)
        && input.width() == 1
        && let Some(slices) = layer.slices(input.samples().len(), compute.path())
    {
        assert_eq!(output.width(), 1, "the same panels");
        // SAFETY: the slices are the layer's, shapes and samples were checked above.
        if unsafe { few::product(layer, slices, input, output, compute) } {
            return Ok(());
        }
    }
    let panels: Vec<Panel> =
        output.panels_mut().iter_mut().enumerate().map(|(index, output)| Panel::new(input, index, output)).collect();
    let product = |panel: &Panel, block| {
        // SAFETY: rows and columns are within the panels (checked above); blocks, tiles and panels are disjoint, so no two
        // tasks write the same row of the same panel.
        unsafe { panel.product(layer, rows, block, compute.path()) }
    };
    let blocked = layer.blocked().filter(|_| input.width() >= WIDE);
    let finite = if let (Rows::All, Some(tiles)) = (rows, blocked) {
        let tiles = tiles.tiles();
        compute.map(panels.len() * tiles.len(), |task| {
            // SAFETY: as above.
            unsafe { panels[task / tiles.len()].tile(layer, &tiles[task % tiles.len()], compute.path()) }
        })
    } else {
        let blocks = row_blocks(layer, count, input.samples().len(), input.spans().len(), compute.threads());
        compute.map(panels.len() * blocks.len(), |task| {
            product(&panels[task / blocks.len()], blocks[task % blocks.len()].clone())
        })
    };
    if finite.into_iter().all(|finite| finite) {
        return Ok(());
    }
    let finite =
        |at: &usize| !compute.map(panels.len(), |index| product(&panels[index], *at..*at + 1)).contains(&false);
    Err(NonFinite { row: rows.get(first_failure(count, finite)) })
}

/// Announces to layers that they are going to be applied to samples in panels of this width.
pub(crate) fn prepare(layers: &[&Layer], samples: usize, width: usize, compute: &Compute) {
    if width >= WIDE {
        layers.iter().for_each(|layer| layer.prepare(samples.div_ceil(width), compute));
    }
}

/// Computes all rows for one panel: `input` is columns x `stride`, `output` is rows x `stride`, and the first `count`
/// floats of each row are samples.
pub(crate) fn spmm_panel(
    layer: &Layer,
    input: &[f32],
    output: &mut [f32],
    (stride, count): (usize, usize),
    path: Path,
) -> Result<(), NonFinite> {
    assert!(WIDTHS.contains(&stride) && path.supported(), "a width and a path that there are");
    assert!(input.len() >= layer.columns() * stride && output.len() >= layer.rows() * stride, "panels of that layer");
    let panel = Panel { input: input.as_ptr(), output: output.as_mut_ptr(), stride, count };
    // SAFETY: checked above, and this thread has both slices.
    let product = |block| unsafe { panel.product(layer, Rows::All, block, path) };
    let finite = match layer.blocked().filter(|_| stride >= WIDE) {
        // SAFETY: as above.
        Some(tiles) => {
            tiles.tiles().iter().fold(true, |finite, tile| finite & unsafe { panel.tile(layer, tile, path) })
        }
        None => product(0..layer.rows()),
    };
    if finite {
        return Ok(());
    }
    Err(NonFinite { row: first_failure(layer.rows(), |row| product(*row..*row + 1)) })
}

/// Returns the first of `count` rows that is not finite when it is computed alone.
fn first_failure(count: usize, finite: impl Fn(&usize) -> bool) -> usize {
    (0..count).find(|at| !finite(at)).expect("a row that failed among others fails alone")
}

impl Rows<'_> {
    #[inline(always)]
    fn get(&self, at: usize) -> usize {
        match self {
            Rows::All => at,
            // SAFETY: positions come from ranges within the selection.
            Rows::Selected(rows) => unsafe { *rows.get_unchecked(at) as usize },
        }
    }
}

/// Cuts `count` rows into blocks such that all threads have work and no task is too small.
fn row_blocks(layer: &Layer, count: usize, samples: usize, panels: usize, threads: usize) -> Vec<Range<usize>> {
    let wanted = if panels >= 4 * threads { 1 } else { (2 * threads).div_ceil(panels.max(1)) };
    let worth = layer.weights().connections().saturating_mul(samples.max(1)) / panels.max(1) / SMALLEST_TASK;
    let blocks = if threads == 1 { 1 } else { wanted.min(worth).max(1) };
    let size = count.div_ceil(blocks).max(1);
    (0..count).step_by(size).map(|start| start..count.min(start + size)).collect()
}

/// Pointers to one panel of the input, and to the same panel of the output.
struct Panel {
    input: *const f32,
    output: *mut f32,
    stride: usize,
    count: usize,
}

// SAFETY: tasks read the input only, and write rows of the output that no other task touches.
unsafe impl Send for Panel {}
// SAFETY: as above.
unsafe impl Sync for Panel {}

impl Panel {
    /// Points to panel `index` of the input, and to `output`. All panels of the output are borrowed at once, since a later
    /// borrow of the whole would invalidate pointers to its parts.
    fn new(input: &Panels, index: usize, output: &mut PanelMut<'_>) -> Self {
        let Span { stride, count, .. } = input.spans()[index];
        assert_eq!(output.span().stride, stride, "the same panels");
        Self { input: input.panel(index).as_ptr(), output: output.data_mut().as_mut_ptr(), stride, count }
    }

    /// Computes the rows at positions `block` of `rows`; false if any is not finite.
    ///
    /// # Safety
    /// The panels must have the layer's columns and rows, the path be supported, and nothing else access these rows.
    unsafe fn product(&self, layer: &Layer, rows: Rows<'_>, block: Range<usize>, path: Path) -> bool {
        let mut finite = true;
        for (part, group) in layer.grouped(block.clone(), |at| rows.get(at)) {
            // SAFETY: the caller upholds the same conditions; each part is within the block.
            unsafe {
                finite &= match layer.weights().indices() {
                    Indices::U16(indices) => {
                        let job = Job::new(layer, group, indices, (rows, part.clone()), self.input, self.output);
                        run(&job, self.stride, path)
                    }
                    Indices::U32(indices) => {
                        let job = Job::new(layer, group, indices, (rows, part.clone()), self.input, self.output);
                        run(&job, self.stride, path)
                    }
                };
                finite &= self.complete(layer, group.activation, part.map(|at| rows.get(at)), path);
            }
        }
        finite
    }

    /// Computes the rows of a tile of the layer; false if any is not finite.
    ///
    /// # Safety
    /// As `product`.
    unsafe fn tile(&self, layer: &Layer, tile: &Tile, path: Path) -> bool {
        let one = layer.weights().one_value().then(|| layer.weights().values()[0]);
        let finish = Finish::new(layer, tile.group);
        let job = TileJob { tile, one, finish, input: self.input, output: self.output };
        // SAFETY: the caller upholds the same conditions.
        unsafe {
            let finite = run(&job, self.stride, path);
            finite & self.complete(layer, tile.group.activation, tile.rows.clone(), path)
        }
    }

    /// Applies what the product has left to do for rows of a group, and sets their padding to zero again; false if a
    /// sample's activation is not finite.
    ///
    /// # Safety
    /// As `product`.
    unsafe fn complete(
        &self,
        layer: &Layer,
        activation: Activation,
        rows: impl Iterator<Item = usize> + Clone,
        path: Path,
    ) -> bool {
        let mut finite = true;
        // SAFETY: the caller upholds the same conditions.
        unsafe {
            if activation.bounds().is_none() {
                finite = self.activate(layer, activation, rows.clone(), path);
            }
            if self.count < self.stride && !layer.zero_preserving() {
                self.clear_padding(rows);
            }
        }
        finite
    }

    /// Replaces pre-activations of rows by activations; false if a sample's is not finite.
    ///
    /// # Safety
    /// As `product`.
    unsafe fn activate(
        &self,
        layer: &Layer,
        activation: Activation,
        rows: impl Iterator<Item = usize>,
        path: Path,
    ) -> bool {
        rows.fold(true, |finite, row| {
            // SAFETY: the caller upholds the same conditions, so this thread alone has the row.
            let values = unsafe { std::slice::from_raw_parts_mut(self.output.add(row * self.stride), self.stride) };
            activation.apply(values, layer.slope(row), path);
            finite & values[..self.count].iter().all(|value| value.is_finite())
        })
    }

    /// Sets the padding of these rows to zero again: a bias would turn it into an extra sample, whose values might grow
    /// from layer to layer until they are not finite.
    ///
    /// # Safety
    /// As `product`.
    unsafe fn clear_padding(&self, rows: impl Iterator<Item = usize>) {
        for row in rows {
            // SAFETY: the caller upholds the same conditions.
            unsafe { self.output.add(row * self.stride + self.count).write_bytes(0, self.stride - self.count) };
        }
    }
}

/// # Safety
/// As `Panel::product`.
unsafe fn run(work: &impl Work, stride: usize, path: Path) -> bool {
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        match path {
            Path::Portable => portable::run(work, stride),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => avx2::run(work, stride),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => avx512::run(work, stride),
            #[cfg(target_arch = "aarch64")]
            Path::Neon => neon::run(work, stride),
            _ => unreachable!("not supported on this processor"),
        }
    }
}
