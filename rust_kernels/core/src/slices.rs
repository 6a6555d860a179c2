//! A second layout of a layer's weights, for batches of a few samples: sliced ELLPACK.
//!
//! With one sample a connection of a CSR row is one multiply-add, so vectors must hold different rows. Rows of similar
//! length are grouped by 16 into slices, one row a lane. A step takes the next connection of each row, so every row
//! still adds its terms in ascending column order and the result has the same bits.
//!
//! Inputs are fetched in one of two ways:
//!
//! - `Gathered`: a step has 16 column indices, and the inputs are loaded one by one. Rows that have ended are padded
//!   with weight 0.
//! - `Windowed`, for layers that are dense enough: in four consecutive steps all rows take connections to the same 64
//!   columns, whose inputs are held in four vectors and looked up there. A row whose next connection lies beyond this
//!   window pauses; the next window starts at the lowest column that any row needs next, so rows may run ahead of each
//!   other and few lanes are idle. A lane's mark is one byte, and weights are stored for active lanes only.

use std::cmp::Reverse;
use std::ops::Range;

use crate::csr::{Csr, Index, Indices};
use crate::errors::NoMemory;
use crate::isa::{Path, cache_bytes};
use crate::layer::{Group, Layer, Reduce};
use crate::memory::{collected, with_room};

/// The most samples for which slices are of use; with more, rows of samples fill vectors.
pub(crate) const MOST_SAMPLES: usize = 4;
/// The most samples for slices whose inputs are loaded, and for layers of which fewer than one weight in `DENSE` (or
/// `DENSE_IF_FAR`, where windows save memory traffic) is a connection.
const MOST_IF_SPARSE: usize = 2;
const DENSE: usize = 12;
const DENSE_IF_FAR: usize = 25;
/// Rows of a slice.
pub(crate) const LANES: usize = 16;
/// Columns of a window.
pub(crate) const WINDOW: usize = 64;
/// Steps of a window.
pub(crate) const STEPS: usize = 4;
/// Set in the mark of a lane that has a connection in this step; the other bits are its column within the window.
pub(crate) const ACTIVE: u8 = 0x80;

/// The part of lanes that must be active in windows: with fewer, looking inputs up takes longer than loading them.
const WORTH_WINDOWS: f64 = 0.5;
/// Slices that are tried to find out how many lanes would be active.
const TRIED: usize = 8;

/// Batches of a few samples after which a layer gets slices: making them takes as long as several products.
pub(crate) const WORTH_SLICES: usize = 8;

/// The rows of a layer by slices.
pub(crate) struct Slices {
    pub slices: Vec<Slice>,
    pub form: Form,
}

pub(crate) enum Form {
    Gathered16(Gathered<u16>),
    Gathered32(Gathered<u32>),
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only kernels for x86 read it"))]
    Windowed(Windowed),
}

/// Up to 16 rows of one group.
pub(crate) struct Slice {
    /// The row of each lane; only the first `lanes` are rows.
    pub rows: [u32; LANES],
    pub lanes: usize,
    pub group: Group,
    /// Steps (`Gathered`) or windows (`Windowed`).
    pub steps: Range<usize>,
    /// The number of first steps in which all rows have a connection with the one value of the layer, so that no
    /// weights are stored (`Gathered`).
    pub even: usize,
    /// The position of the first stored weight (`Windowed`), or of the first step that has weights (`Gathered`).
    pub weights: usize,
}

pub(crate) struct Gathered<I> {
    pub columns: Vec<[I; LANES]>,
    pub weights: Vec<[f32; LANES]>,
}

/// The marks of a window's lanes, step by step.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Marks(pub [u8; STEPS * LANES]);

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only kernels for x86 read it"))]
pub(crate) struct Windowed {
    /// The first column of each window; a window never reaches beyond the last column.
    pub starts: Vec<u32>,
    pub marks: Vec<Marks>,
    /// The weights of active lanes, step by step; empty if the layer has one value.
    pub weights: Vec<f32>,
}

impl Slices {
    /// Lays out the rows of a layer for a kernel path; None if the layer has rows that are maxima, or there is not
    /// enough memory for them.
    pub fn new(layer: &Layer, path: Path) -> Option<Self> {
        match layer.weights().indices() {
            Indices::U16(indices) => Self::of(layer, indices, path, Form::Gathered16),
            Indices::U32(indices) => Self::of(layer, indices, path, Form::Gathered32),
        }
    }

    fn of<I: Index + Default>(layer: &Layer, indices: &[I], path: Path, form: fn(Gathered<I>) -> Form) -> Option<Self> {
        let mut slices = Vec::new();
        let indptr = layer.weights().indptr();
        for (rows, group) in layer.ranges() {
            if group.reduce == Reduce::Max {
                return None;
            }
            let mut rows = collected(rows.start as u32..rows.end as u32).ok()?;
            rows.sort_unstable_by_key(|row| (Reverse(indptr[*row as usize + 1] - indptr[*row as usize]), *row));
            slices.try_reserve(rows.len().div_ceil(LANES)).ok()?;
            slices.extend(rows.chunks(LANES).map(|rows| {
                let lanes = rows.len();
                let rows = std::array::from_fn(|lane| rows.get(lane).copied().unwrap_or(0));
                Slice { rows, lanes, group, steps: 0..0, even: 0, weights: 0 }
            }));
        }
        let form = if worth_windows(layer.weights(), indices, &slices, path) {
            Form::Windowed(windowed(layer.weights(), indices, &mut slices).ok()?)
        } else {
            form(gathered(layer.weights(), indices, &mut slices).ok()?)
        };
        Some(Self { slices, form })
    }

    /// Returns whether this layout is the fastest on a path for a number of samples of its layer.
    pub fn serves(&self, layer: &Layer, samples: usize, path: Path) -> bool {
        match self.form {
            Form::Gathered16(_) | Form::Gathered32(_) => samples <= MOST_IF_SPARSE,
            Form::Windowed(_) => looks_up(path) && samples <= most_samples(layer, path),
        }
    }
}

/// Returns the most samples for which slices of a layer may be the fastest layout.
pub(crate) fn most_samples(layer: &Layer, path: Path) -> usize {
    let weights = layer.weights();
    let least = if is_far(weights) { DENSE_IF_FAR } else { DENSE };
    let dense = weights.connections().saturating_mul(least) >= weights.rows().saturating_mul(weights.columns());
    if looks_up(path) && dense { MOST_SAMPLES } else { MOST_IF_SPARSE }
}

/// Returns whether the weights are so many that they come from beyond a core's own caches.
pub(crate) fn is_far(weights: &Csr) -> bool {
    size_of_val(weights.values()) > 2 * cache_bytes(2)
}

/// Returns whether the kernels of a path can look inputs up in vectors, on this processor.
fn looks_up(path: Path) -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = path == Path::Avx512 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    let found = {
        let _ = path;
        false
    };
    found
}

/// The next connection of each row of a slice, and the end of the row.
struct Cursor<'a, I> {
    indices: &'a [I],
    next: [usize; LANES],
    end: [usize; LANES],
}

impl<'a, I: Index> Cursor<'a, I> {
    /// Starts at the first connections; lanes without a row have none.
    fn new(indptr: &[i64], indices: &'a [I], slice: &Slice) -> Self {
        let (mut next, mut end) = ([0; LANES], [0; LANES]);
        for (lane, row) in slice.rows[..slice.lanes].iter().enumerate() {
            (next[lane], end[lane]) = (indptr[*row as usize] as usize, indptr[*row as usize + 1] as usize);
        }
        Self { indices, next, end }
    }

    /// Returns the numbers of connections of the shortest and of the longest of the first `lanes` rows.
    fn extent(&self, lanes: usize) -> (usize, usize) {
        let lengths = (0..lanes).map(|lane| self.end[lane] - self.next[lane]);
        (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0))
    }

    /// Moves over one window and calls `take` with each connection in it, step by step; returns the window's first
    /// column and marks, or None at the end of all rows.
    fn window(&mut self, columns: usize, mut take: impl FnMut(usize)) -> Option<(u32, Marks)> {
        let left = (0..LANES).filter(|lane| self.next[*lane] < self.end[*lane]);
        let start = left.map(|lane| self.indices[self.next[lane]].get()).min()?.min(columns - WINDOW);
        let mut marks = Marks([0; STEPS * LANES]);
        for (at, mark) in marks.0.iter_mut().enumerate() {
            let next = &mut self.next[at % LANES];
            if *next < self.end[at % LANES] && self.indices[*next].get() < start + WINDOW {
                *mark = ACTIVE | (self.indices[*next].get() - start) as u8;
                take(*next);
                *next += 1;
            }
        }
        Some((start as u32, marks))
    }
}

fn worth_windows<I: Index>(weights: &Csr, indices: &[I], slices: &[Slice], path: Path) -> bool {
    if !looks_up(path) || weights.columns() < WINDOW {
        return false;
    }
    let (mut active, mut windows) = (0, 0);
    for slice in slices.iter().step_by(slices.len().div_ceil(TRIED).max(1)) {
        let mut cursor = Cursor::new(weights.indptr(), indices, slice);
        while cursor.window(weights.columns(), |_| active += 1).is_some() {
            windows += 1;
        }
    }
    active as f64 >= WORTH_WINDOWS * (windows * STEPS * LANES) as f64
}

fn windowed<I: Index>(weights: &Csr, indices: &[I], slices: &mut [Slice]) -> Result<Windowed, NoMemory> {
    let (mut starts, mut marks) = (Vec::new(), Vec::new());
    let one = weights.one_value();
    let mut kept = with_room(if one { 0 } else { weights.connections() })?;
    let mut taken = 0;
    for slice in slices {
        let mut cursor = Cursor::new(weights.indptr(), indices, slice);
        let first = starts.len();
        slice.weights = taken;
        let mut take = |at: usize| {
            taken += 1;
            if !one {
                kept.push(weights.values()[at]);
            }
        };
        while let Some((start, lanes)) = cursor.window(weights.columns(), &mut take) {
            starts.try_reserve(1).map_err(|_| NoMemory)?;
            marks.try_reserve(1).map_err(|_| NoMemory)?;
            starts.push(start);
            marks.push(lanes);
        }
        slice.steps = first..starts.len();
    }
    Ok(Windowed { starts, marks, weights: kept })
}

fn gathered<I: Index + Default>(weights: &Csr, indices: &[I], slices: &mut [Slice]) -> Result<Gathered<I>, NoMemory> {
    let (mut columns, mut kept) = (Vec::new(), Vec::new());
    let one = weights.one_value();
    for slice in slices {
        let Cursor { next, end, .. } = Cursor::new(weights.indptr(), indices, slice);
        let (shortest, longest) = Cursor::new(weights.indptr(), indices, slice).extent(slice.lanes);
        slice.steps = columns.len()..columns.len() + longest;
        slice.weights = kept.len();
        slice.even = if one { shortest } else { 0 };
        let connection = |lane: usize, step: usize| (step < end[lane] - next[lane]).then(|| next[lane] + step);
        columns.try_reserve(longest).map_err(|_| NoMemory)?;
        kept.try_reserve(longest - slice.even).map_err(|_| NoMemory)?;
        for step in 0..longest {
            columns.push(std::array::from_fn(|lane| connection(lane, step).map_or(I::default(), |at| indices[at])));
            if step >= slice.even {
                let value = |at: usize| weights.values()[if one { 0 } else { at }];
                kept.push(std::array::from_fn(|lane| connection(lane, step).map_or(0.0, value)));
            }
        }
    }
    Ok(Gathered { columns, weights: kept })
}
