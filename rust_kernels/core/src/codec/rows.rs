//! The rows that are encoded, and which of them are equal.

use std::collections::HashMap;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::activations::Panels;
use crate::compute::Compute;

/// Rows of activations, with one value for each sample that may have nonzeros.
pub trait Rows: Sync {
    /// Passes the consecutive parts of a row to `visit` until it returns false. `scratch` may be used for a row.
    fn visit(&self, row: usize, scratch: &mut Vec<f32>, visit: impl FnMut(&[f32]) -> bool);
}

/// Rows of panels.
pub struct PanelRows<'a> {
    panels: &'a Panels,
    /// The rows to encode; all if there is no list.
    selected: Option<&'a [u32]>,
}

impl<'a> PanelRows<'a> {
    pub fn all(panels: &'a Panels) -> Self {
        Self { panels, selected: None }
    }

    pub fn selected(panels: &'a Panels, rows: &'a [u32]) -> Self {
        Self { panels, selected: Some(rows) }
    }
}

impl Rows for PanelRows<'_> {
    fn visit(&self, row: usize, _scratch: &mut Vec<f32>, mut visit: impl FnMut(&[f32]) -> bool) {
        let row = self.selected.map_or(row, |rows| rows[row] as usize);
        for index in 0..self.panels.spans().len() {
            if !visit(self.panels.panel_row(index, row)) {
                break;
            }
        }
    }
}

/// The groups of equal rows.
#[derive(Default)]
pub(super) struct Groups {
    /// The first row of each group.
    pub distinct: Vec<usize>,
    /// For each row 0 if it is the first of its group, else 1 + the number of its group.
    pub repeats: Vec<u32>,
}

/// Values of a row that are hashed first.
const HEAD: usize = 64;
/// Rows that one task reads.
const ROWS: usize = 64;

impl Groups {
    /// Finds equal rows. Only rows whose first values equal those of another one are read whole.
    pub fn of(rows: usize, source: &impl Rows, compute: &Compute) -> Self {
        let mut scratch = Vec::new();
        let mut head = |row| {
            let mut hash = 0;
            source.visit(row, &mut scratch, |values| {
                hash = xxh3_64(bytes_of(&values[..values.len().min(HEAD)]));
                false
            });
            hash
        };
        let heads: Vec<u64> = (0..rows).map(&mut head).collect();
        let mut counts = HashMap::with_capacity(rows);
        heads.iter().for_each(|head| *counts.entry(*head).or_insert(0) += 1);
        if counts.len() == rows {
            return Self { distinct: (0..rows).collect(), repeats: vec![0; rows] };
        }
        let alike: Vec<usize> = (0..rows).filter(|row| counts[&heads[*row]] > 1).collect();
        let tasks: Vec<&[usize]> = alike.chunks(ROWS).collect();
        let hashes = compute.map(tasks.len(), |task| hashes(tasks[task], source));
        let mut hash_of = alike.iter().zip(hashes.iter().flatten()).peekable();
        let mut groups = Self { distinct: Vec::new(), repeats: Vec::with_capacity(rows) };
        let mut kinds = HashMap::with_capacity(alike.len());
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let next = groups.distinct.len() as u32;
            if let Some((_, hash)) = hash_of.next_if(|(alike, _)| **alike == row) {
                let kind: u32 = *kinds.entry(*hash).or_insert(next);
                if kind < next {
                    read(source, row, &mut one);
                    read(source, groups.distinct[kind as usize], &mut other);
                    if bytes_of(&one) == bytes_of(&other) {
                        groups.repeats.push(kind + 1);
                        continue;
                    }
                }
            }
            groups.distinct.push(row);
            groups.repeats.push(0);
        }
        groups
    }
}

fn hashes(rows: &[usize], source: &impl Rows) -> Vec<u64> {
    let (mut scratch, mut hasher) = (Vec::new(), Xxh3::new());
    let hash = |row: &usize| {
        hasher.reset();
        source.visit(*row, &mut scratch, |values| {
            hasher.update(bytes_of(values));
            true
        });
        hasher.digest()
    };
    rows.iter().map(hash).collect()
}

fn read(source: &impl Rows, row: usize, out: &mut Vec<f32>) {
    let mut scratch = Vec::new();
    out.clear();
    source.visit(row, &mut scratch, |values| {
        out.extend_from_slice(values);
        true
    });
}

/// Returns the bytes of floats, which are little-endian in blocks.
pub(super) fn bytes_of(row: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "blocks are written from memory") };
    // SAFETY: every byte of a float is initialized, bytes need no alignment, and the borrow is the same.
    unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), size_of_val(row)) }
}
