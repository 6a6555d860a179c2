//! The encoder of blocks.

use super::bits::{self, BitWriter};
use super::compact::{compact, split};
use super::rows::{Groups, Rows};
use super::*;
use crate::compute::Compute;
use crate::isa::Path;
use crate::varint;

/// Values that one task packs, which stay in the cache of a core.
const TASK: usize = 1 << 16;

/// A block and its live samples.
pub struct Packed {
    pub block: Vec<u8>,
    pub live: Vec<u32>,
}

/// Encodes `rows` rows as a block. `live` are the samples (ascending, below `samples`) that may have nonzeros; the rows
/// of `source` have a value for each of them. `known` are, for a block in frames, numbered lists of samples that all
/// receivers have; `None` for a block that stands alone.
pub fn encode(
    rows: usize,
    samples: usize,
    live: &[u32],
    source: &impl Rows,
    known: Option<&[(u32, &[u32])]>,
    compute: &Compute,
) -> Packed {
    assert!(rows <= MAX_ROWS && u32::try_from(samples).is_ok(), "a block has at most 2^24 rows and 2^32 - 1 samples");
    let groups = if live.is_empty() { Groups::default() } else { Groups::of(rows, source, compute) };
    let tasks: Vec<&[usize]> = groups.distinct.chunks(TASK.div_ceil(live.len().max(1))).collect();
    let packed = compute.map(tasks.len(), |task| pack(tasks[task], live.len(), source, compute.path()));
    let (bitmaps, nonzeros): (Vec<_>, Vec<_>) = packed.into_iter().unzip();
    let (live, bitmaps) = without_dead(live, &bitmaps, compute.path());
    let mut front = vec![0];
    let mut flags = live::put(&mut front, samples, &live, known.unwrap_or_default());
    if groups.distinct.len() < rows && !live.is_empty() {
        flags |= REPEATS;
        varint::put(&mut front, groups.distinct.len() as u32);
        if known.is_none() || groups.distinct.len() > 1 {
            groups.repeats.iter().for_each(|&repeat| varint::put(&mut front, repeat));
        }
    }
    let is_full = nonzeros.iter().map(Vec::len).sum::<usize>() == groups.distinct.len() * live.len();
    let leaves_out = known.is_some() && is_full && !live.is_empty();
    flags |= if leaves_out { FULL } else { 0 };
    let mut parts = vec![Vec::new(), if leaves_out { Vec::new() } else { bitmaps }];
    flags |= put_values(&mut parts, &nonzeros, compute);
    front[0] = flags;
    parts[0] = front;
    let mut block = Vec::new();
    varint::put(&mut block, rows as u32);
    varint::put(&mut block, samples as u32);
    pieces::put(&mut block, parts, compute);
    Packed { block, live }
}

/// Returns the bitmaps of rows over all of `columns` samples, and their nonzeros.
fn pack(rows: &[usize], columns: usize, source: &impl Rows, path: Path) -> (Vec<u8>, Vec<f32>) {
    let mut bitmaps = BitWriter::with_capacity(rows.len() * columns.div_ceil(8) + 8);
    let (mut nonzeros, mut scratch) = (Vec::with_capacity(rows.len() * columns + lanes::MOST), Vec::new());
    for row in rows {
        source.visit(*row, &mut scratch, |values| {
            compact(values, &mut bitmaps, &mut nonzeros, path);
            true
        });
        bitmaps.end_row();
    }
    (bitmaps.into_bytes(), nonzeros)
}

/// Returns those of the `live` samples that have a nonzero in any row, and the bitmaps over them.
fn without_dead(live: &[u32], bitmaps: &[Vec<u8>], path: Path) -> (Vec<u32>, Vec<u8>) {
    let stride = live.len().div_ceil(8);
    let mut alive = vec![0; stride];
    for bitmap in bitmaps.iter().flat_map(|bitmaps| bitmaps.chunks_exact(stride.max(1))) {
        alive.iter_mut().zip(bitmap).for_each(|(alive, bits)| *alive |= bits);
    }
    if bits::ones(&alive, live.len()) == live.len() {
        return (live.to_vec(), bitmaps.concat());
    }
    let is_alive = |slot: usize| alive[slot / 8] >> (slot % 8) & 1 == 1;
    let kept = live.iter().enumerate().filter_map(|(slot, id)| is_alive(slot).then_some(*id)).collect();
    let mut dense = BitWriter::default();
    for bitmap in bitmaps.iter().flat_map(|bitmaps| bitmaps.chunks_exact(stride)) {
        bits::extract(bitmap, &alive, &mut dense, path);
    }
    (kept, dense.into_bytes())
}

/// Appends the nonzeros, which come in several lists, to the parts of the body.
fn put_values(parts: &mut Vec<Vec<u8>>, nonzeros: &[Vec<f32>], compute: &Compute) -> u8 {
    let count: usize = nonzeros.iter().map(Vec::len).sum();
    let floats = |table: Vec<u32>| table.into_iter().flat_map(u32::to_le_bytes);
    match tabulate(nonzeros) {
        Some((table, _)) if table.len() <= 1 => {
            parts.push(floats(table).collect());
            VALUES_ONE
        }
        Some((table, codes)) if 1 + 4 * table.len() + codes.len() < 4 * count => {
            parts.push([(table.len() - 1) as u8].into_iter().chain(floats(table)).collect());
            parts.push(codes);
            VALUES_TABLE
        }
        _ => {
            parts.extend(planes(nonzeros, count, compute));
            VALUES_PLANES
        }
    }
}

fn planes(nonzeros: &[Vec<f32>], count: usize, compute: &Compute) -> [Vec<u8>; 4] {
    let mut planes = [(); 4].map(|()| Vec::with_capacity(count));
    let mut rest = planes.each_mut().map(|plane| &mut plane.spare_capacity_mut()[..count]);
    let mut tasks = Vec::with_capacity(nonzeros.len());
    for values in nonzeros {
        let cut = rest.map(|rest| rest.split_at_mut(values.len()));
        let [(a, e), (b, f), (c, g), (d, h)] = cut;
        tasks.push((&values[..], [a, b, c, d]));
        rest = [e, f, g, h];
    }
    compute.for_each(tasks, |_, (values, planes)| split(values, planes, compute.path()));
    for plane in &mut planes {
        // SAFETY: the tasks have written a byte for each of the nonzeros, of which there are `count`.
        unsafe { plane.set_len(count) };
    }
    planes
}

/// Returns the distinct values (as bits) and each value's code, or `None` if there are too many for a table.
fn tabulate(values: &[Vec<f32>]) -> Option<(Vec<u32>, Vec<u8>)> {
    const SLOTS: usize = 4 * TABLE;
    let mut slots = [0u16; SLOTS];
    let (mut table, mut codes) = (Vec::new(), Vec::new());
    for value in values.iter().flatten() {
        let bits = value.to_bits();
        let mut slot = (bits.wrapping_mul(0x9e37_79b1) >> 22) as usize;
        let code = loop {
            match slots[slot] {
                0 if table.len() == TABLE => return None,
                0 => {
                    table.push(bits);
                    slots[slot] = table.len() as u16;
                    break table.len() - 1;
                }
                code if table[usize::from(code) - 1] == bits => break usize::from(code) - 1,
                _ => slot = (slot + 1) % SLOTS,
            }
        };
        codes.push(code as u8);
    }
    Some((table, codes))
}
