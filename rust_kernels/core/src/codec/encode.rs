//! The encoder of blocks.

use std::cell::RefCell;
use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::Compressor;

use super::*;
use crate::varint;

const LEVEL: i32 = 1;
/// Minimum bytes of a piece that is compressed separately.
const SMALL: usize = 200;

thread_local! {
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(LEVEL).expect("Zstandard has this level"));
}

/// Encodes `rows` rows as a block. `live` are the samples (ascending, below `samples`) that may have nonzeros, and
/// `fill(row, out)` writes a row's value for each of them.
pub fn encode(rows: usize, samples: usize, live: &[u32], fill: impl Fn(usize, &mut [f32])) -> Vec<u8> {
    assert!(rows <= MAX_ROWS && u32::try_from(samples).is_ok(), "a block has at most 2^24 rows and 2^32 - 1 samples");
    let survey = Survey::of(rows, live.len(), &fill);
    let mut body = vec![0];
    let mut flags = put_live(&mut body, samples, survey.kept.iter().map(|&slot| live[slot as usize]));
    if survey.distinct.len() < rows && !survey.kept.is_empty() {
        flags |= REPEATS;
        varint::put(&mut body, survey.distinct.len() as u32);
        survey.repeats.iter().for_each(|&repeat| varint::put(&mut body, repeat));
    }
    let mut ends = vec![body.len()];
    let nonzeros = put_bitmaps(&mut body, live.len(), &survey, &fill);
    ends.push(body.len());
    flags |= put_values(&mut body, &nonzeros, &mut ends);
    body[0] = flags;
    pack(rows, samples, &body, &ends)
}

/// The result of a first pass over the rows: live samples and repeated rows.
struct Survey {
    /// Positions, among the samples that may have nonzeros, of those that do.
    kept: Vec<u32>,
    /// The first row of each group of equal rows.
    distinct: Vec<usize>,
    /// For each row 0 if it is the first of its group, else 1 + the number of its group.
    repeats: Vec<u32>,
}

impl Survey {
    fn of(rows: usize, columns: usize, fill: &impl Fn(usize, &mut [f32])) -> Self {
        let mut alive = vec![0u32; columns];
        let (mut row, mut other) = (vec![0.0; columns], vec![0.0; columns]);
        let (mut distinct, mut repeats) = (Vec::new(), Vec::with_capacity(rows));
        let mut kinds = HashMap::with_capacity(rows);
        for index in 0..rows {
            fill(index, &mut row);
            let kind: u32 = *kinds.entry(xxh3_64(bytes_of(&row))).or_insert(distinct.len() as u32);
            if let Some(&first) = distinct.get(kind as usize) {
                fill(first, &mut other);
                if bytes_of(&row) == bytes_of(&other) {
                    repeats.push(kind + 1);
                    continue;
                }
            }
            distinct.push(index);
            repeats.push(0);
            alive.iter_mut().zip(&row).for_each(|(alive, value)| *alive |= value.to_bits());
        }
        let kept = (0..).zip(&alive).filter_map(|(slot, &bits)| (bits != 0).then_some(slot)).collect();
        Self { kept, distinct, repeats }
    }
}

fn bytes_of(row: &[f32]) -> &[u8] {
    // SAFETY: every byte of a float is initialized, bytes need no alignment, and the borrow is the same.
    unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), size_of_val(row)) }
}

fn put_live(body: &mut Vec<u8>, samples: usize, live: impl ExactSizeIterator<Item = u32> + Clone) -> u8 {
    if live.len() == samples {
        return LIVE_ALL;
    }
    varint::put(body, live.len() as u32);
    let start = body.len();
    let mut next = 0;
    for id in live.clone() {
        varint::put(body, id - next);
        next = id + 1;
    }
    let bitmap = samples.div_ceil(8);
    if body.len() - start <= bitmap {
        return LIVE_GAPS;
    }
    body.truncate(start);
    body.resize(start + bitmap, 0);
    for id in live {
        body[start + id as usize / 8] |= 1 << (id % 8);
    }
    LIVE_BITMAP
}

/// Appends the bitmaps of the distinct rows and returns their nonzeros.
fn put_bitmaps(body: &mut Vec<u8>, columns: usize, survey: &Survey, fill: &impl Fn(usize, &mut [f32])) -> Vec<f32> {
    let kept = &survey.kept;
    let mut row = vec![0.0; columns];
    let mut nonzeros = Vec::new();
    for &index in &survey.distinct {
        fill(index, &mut row);
        if kept.len() < columns {
            for (to, &from) in kept.iter().enumerate() {
                row[to] = row[from as usize];
            }
        }
        let mut end = nonzeros.len();
        nonzeros.resize(end + kept.len(), 0.0);
        for values in row[..kept.len()].chunks(8) {
            let mut bits = 0;
            for (bit, value) in values.iter().enumerate() {
                let nonzero = value.to_bits() != 0;
                bits |= u8::from(nonzero) << bit;
                nonzeros[end] = *value;
                end += usize::from(nonzero);
            }
            body.push(bits);
        }
        nonzeros.truncate(end);
    }
    nonzeros
}

/// Appends the nonzeros to the body, and the end of each kind of bytes to `ends`.
fn put_values(body: &mut Vec<u8>, nonzeros: &[f32], ends: &mut Vec<usize>) -> u8 {
    let flags = match tabulate(nonzeros) {
        Some((table, _)) if table.len() <= 1 => {
            table.iter().for_each(|bits| body.extend_from_slice(&bits.to_le_bytes()));
            VALUES_ONE
        }
        Some((table, codes)) if 1 + 4 * table.len() + codes.len() < 4 * nonzeros.len() => {
            body.push((table.len() - 1) as u8);
            table.iter().for_each(|bits| body.extend_from_slice(&bits.to_le_bytes()));
            ends.push(body.len());
            body.extend_from_slice(&codes);
            VALUES_TABLE
        }
        _ => {
            for byte in (0..4).rev() {
                body.extend(nonzeros.iter().map(|value| (value.to_bits().rotate_left(1) >> (8 * byte)) as u8));
                ends.push(body.len());
            }
            VALUES_PLANES
        }
    };
    ends.push(body.len());
    flags
}

/// Returns the distinct values (as bits) and each value's code, or `None` if there are too many for a table.
fn tabulate(values: &[f32]) -> Option<(Vec<u32>, Vec<u8>)> {
    const SLOTS: usize = 4 * TABLE;
    let mut slots = [0u16; SLOTS];
    let (mut table, mut codes) = (Vec::new(), Vec::with_capacity(values.len()));
    for value in values {
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

/// Compresses the kinds of bytes, which `ends` separates, piece by piece, as each kind has its own statistics.
fn pack(rows: usize, samples: usize, body: &[u8], ends: &[usize]) -> Vec<u8> {
    let mut block = Vec::new();
    varint::put(&mut block, rows as u32);
    varint::put(&mut block, samples as u32);
    let mut start = 0;
    for &end in ends {
        // A small piece is merged with the next one, as each piece has some bytes of overhead.
        if end - start < SMALL && end < body.len() {
            continue;
        }
        body[start..end].chunks(LARGEST_PIECE).for_each(|piece| put_piece(&mut block, piece));
        start = end;
    }
    block
}

fn put_piece(block: &mut Vec<u8>, piece: &[u8]) {
    let length = piece.len() as u32;
    let packed = COMPRESSOR.with_borrow_mut(|zstd| zstd.compress(piece));
    if let Ok(packed) = packed
        && packed.len() + 5 < piece.len()
    {
        varint::put(block, length << 1 | 1);
        varint::put(block, packed.len() as u32);
        block.extend_from_slice(&packed);
    } else {
        varint::put(block, length << 1);
        block.extend_from_slice(piece);
    }
}
