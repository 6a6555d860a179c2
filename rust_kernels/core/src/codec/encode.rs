//! The encoder of blocks.

use std::ops::Range;

use super::bits::{self, BitWriter};
use super::compact::{compact, split};
use super::pieces::Chunk;
use super::rows::{Groups, Rows};
use super::*;
use crate::compute::Compute;
use crate::isa::Path;
use crate::varint;

/// Values that one task packs, which stay in the cache of a core.
const TASK: usize = 1 << 16;

/// A block, in chunks, and its live samples.
pub struct Packed {
    pub chunks: Vec<Chunk>,
    pub live: Vec<u32>,
}

impl Packed {
    /// Returns the size of the block in bytes.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes().len()).sum()
    }

    /// Returns a range of the block's bytes, as runs of consecutive ones.
    pub fn parts(&self, range: Range<usize>) -> Vec<&[u8]> {
        let (mut start, mut parts) = (0, Vec::with_capacity(self.chunks.len()));
        for bytes in self.chunks.iter().map(Chunk::bytes) {
            let end = start + bytes.len();
            if range.start < end && start < range.end {
                parts.push(&bytes[range.start.max(start) - start..range.end.min(end) - start]);
            }
            start = end;
        }
        parts
    }

    /// Returns the block in one piece.
    pub fn block(&self) -> Vec<u8> {
        self.parts(0..self.bytes()).concat()
    }
}

/// What readers of a block have, and what its bytes cost.
#[derive(Clone, Copy, Default)]
pub struct Framed<'a> {
    /// Numbered lists of samples that all receivers have.
    pub known: &'a [(u32, &'a [u32])],
    /// Whether bytes cost so little that only those are saved that take next to no time.
    pub fast: bool,
}

/// Encodes `rows` rows as a block. `live` are the samples (ascending, below `samples`) that may have nonzeros; the rows
/// of `source` have a value for each of them. `framed` is `None` for a block that stands alone.
pub fn encode(
    rows: usize,
    samples: usize,
    live: &[u32],
    source: &impl Rows,
    framed: Option<Framed<'_>>,
    compute: &Compute,
) -> Packed {
    assert!(rows <= MAX_ROWS && u32::try_from(samples).is_ok(), "a block has at most 2^24 rows and 2^32 - 1 samples");
    let groups = if live.is_empty() { Groups::default() } else { Groups::of(rows, source, compute) };
    let tasks: Vec<&[usize]> = groups.distinct.chunks(TASK.div_ceil(live.len().max(1))).collect();
    let packed = compute.map(tasks.len(), |task| pack(tasks[task], live.len(), source, compute.path()));
    let (bitmaps, nonzeros): (Vec<_>, Vec<_>) = packed.into_iter().unzip();
    let (live, bitmaps) = without_dead(live, &bitmaps, compute.path());
    let mut front = vec![0];
    let mut flags = live::put(&mut front, samples, &live, framed.unwrap_or_default().known);
    if groups.distinct.len() < rows && !live.is_empty() {
        flags |= REPEATS;
        varint::put(&mut front, groups.distinct.len() as u32);
        if framed.is_none() || groups.distinct.len() > 1 {
            groups.repeats.iter().for_each(|&repeat| varint::put(&mut front, repeat));
        }
    }
    let is_full = nonzeros.iter().map(Vec::len).sum::<usize>() == groups.distinct.len() * live.len();
    let leaves_out = framed.is_some() && is_full && !live.is_empty();
    flags |= if leaves_out { FULL } else { 0 };
    let mut parts = vec![Vec::new(), if leaves_out { Vec::new() } else { bitmaps }];
    let mut floats = Vec::new();
    if framed.is_some_and(|framed| framed.fast) && hardly_compress(&nonzeros, compute) {
        flags |= VALUES_FLOATS;
        floats = nonzeros;
    } else {
        flags |= put_values(&mut parts, &nonzeros, compute);
    }
    front[0] = flags;
    parts[0] = front;
    let mut head = Vec::new();
    varint::put(&mut head, rows as u32);
    varint::put(&mut head, samples as u32);
    let mut chunks = vec![Chunk::Bytes(head)];
    pieces::put(&mut chunks, parts, floats, compute);
    Packed { chunks, live }
}

/// Returns whether there are many nonzeros, and a sample of them shows that no encoding makes them much smaller.
fn hardly_compress(nonzeros: &[Vec<f32>], compute: &Compute) -> bool {
    let count: usize = nonzeros.iter().map(Vec::len).sum();
    if count <= pieces::SAMPLED || count > LARGEST_PIECE / size_of::<f32>() {
        return false;
    }
    let lists = (0..pieces::SAMPLES).map(|index| &nonzeros[index * nonzeros.len() / pieces::SAMPLES]);
    let sample: Vec<f32> = lists.flat_map(|list| &list[..list.len().min(pieces::SAMPLE)]).copied().collect();
    let sample = std::slice::from_ref(&sample);
    tabulate(sample).is_none() && !pieces::saves_much(&planes(sample, sample[0].len(), compute))
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
