//! The decoder of blocks.

use std::cell::RefCell;

use zstd::bulk::Decompressor;

use super::*;
use crate::varint;

/// Sizes of a Zstandard block: at least 4 bytes compressed, at most 128 KiB decompressed.
const ZSTD_BLOCK: (usize, usize) = (4, 128 << 10);

thread_local! {
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("Zstandard needs no dictionary"));
}

/// A validated block, whose rows can be expanded in any order.
pub struct Block {
    rows: usize,
    samples: usize,
    live: Vec<u32>,
    body: Vec<u8>,
    /// The number of the distinct row that each row equals; empty if all rows are distinct.
    kinds: Vec<u32>,
    bitmaps: usize,
    /// Start of each distinct row's nonzeros, and the end of the last ones.
    starts: Vec<usize>,
    values: Values,
}

enum Values {
    One(f32),
    Table { table: Box<[f32; TABLE]>, codes: usize },
    Planes(usize),
}

impl Block {
    /// Validates and decompresses a block of a known shape.
    pub fn decode(block: &[u8], rows: usize, samples: usize) -> Result<Self, BadBlock> {
        Self::decode_if(block, |shape| shape == (rows, samples))
    }

    /// Validates and decompresses a block of any shape.
    pub fn decode_any(block: &[u8]) -> Result<Self, BadBlock> {
        Self::decode_if(block, |_| true)
    }

    fn decode_if(mut block: &[u8], fits: impl Fn((usize, usize)) -> bool) -> Result<Self, BadBlock> {
        const CUT: BadBlock = BadBlock("it ends too early");
        let rows = varint::take(&mut block).ok_or(CUT)? as usize;
        let samples = varint::take(&mut block).ok_or(CUT)? as usize;
        if !fits((rows, samples)) || rows > MAX_ROWS {
            return Err(BadBlock("it has another shape"));
        }
        let mut body = Vec::new();
        while !block.is_empty() {
            let head = varint::take(&mut block).ok_or(CUT)?;
            let length = (head >> 1) as usize;
            if (body.len() + length) as u64 > most_body(rows, samples) || length > LARGEST_PIECE {
                return Err(BadBlock("it claims to be larger than it can be"));
            }
            let packed = if head & 1 == 0 { length } else { varint::take(&mut block).ok_or(CUT)? as usize };
            let (piece, rest) = block.split_at_checked(packed).ok_or(CUT)?;
            block = rest;
            if head & 1 == 0 {
                body.extend_from_slice(piece);
                continue;
            }
            if length / ZSTD_BLOCK.1 > packed / ZSTD_BLOCK.0 {
                return Err(BadBlock("it claims to be larger than it can be"));
            }
            let piece = DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress(piece, length));
            let piece = piece.ok().filter(|piece| piece.len() == length);
            body.extend_from_slice(&piece.ok_or(BadBlock("a compressed piece is damaged"))?);
        }
        Self::read(rows, samples, body)
    }

    fn read(rows: usize, samples: usize, body: Vec<u8>) -> Result<Self, BadBlock> {
        const CUT: BadBlock = BadBlock("its body ends too early");
        let mut rest = &body[..];
        let (&flags, after) = rest.split_first().ok_or(CUT)?;
        rest = after;
        let live = take_live(&mut rest, flags & LIVE, samples).ok_or(BadBlock("its live samples are not valid"))?;
        let mut distinct = if live.is_empty() { 0 } else { rows };
        let mut kinds = Vec::new();
        if flags & REPEATS != 0 {
            distinct = varint::take(&mut rest).ok_or(CUT)? as usize;
            kinds = take_kinds(&mut rest, rows, distinct).ok_or(BadBlock("its repeated rows are not valid"))?;
        }
        let stride = live.len().div_ceil(8);
        let length = distinct.checked_mul(stride).filter(|&length| length <= rest.len()).ok_or(CUT)?;
        let bitmaps = body.len() - rest.len();
        let (maps, after) = rest.split_at(length);
        rest = after;
        let starts = count(maps, stride, live.len()).ok_or(BadBlock("its bitmaps are not valid"))?;
        let values = take_values(rest, flags & VALUES, starts[starts.len() - 1], body.len());
        let values = values.ok_or(BadBlock("its values are not valid"))?;
        Ok(Self { rows, samples, live, kinds, bitmaps, starts, values, body })
    }

    /// Returns the decompressed body.
    #[cfg(test)]
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the numbers of rows and samples.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.samples)
    }

    /// Returns the samples that have nonzeros, ascending.
    pub fn live(&self) -> &[u32] {
        &self.live
    }

    /// Returns the number of nonzeros in a row.
    pub fn nonzeros(&self, row: usize) -> usize {
        if self.live.is_empty() {
            return 0;
        }
        let kind = self.kind(row);
        self.starts[kind + 1] - self.starts[kind]
    }

    fn kind(&self, row: usize) -> usize {
        if self.kinds.is_empty() { row } else { self.kinds[row] as usize }
    }

    /// Writes a row to `out`: one value for each live sample.
    pub fn expand(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.rows && out.len() == self.live.len(),
            "one value for each live sample of a row of the block"
        );
        if out.is_empty() {
            return;
        }
        let kind = self.kind(row);
        let (start, end) = (self.starts[kind], self.starts[kind + 1]);
        // The nonzeros are first copied to the end of `out`, so that spreading them never overwrites unread ones.
        let first = out.len() - (end - start);
        self.copy_values(start, end, &mut out[first..]);
        if first == 0 {
            return;
        }
        let stride = out.len().div_ceil(8);
        let bitmap = &self.body[self.bitmaps + kind * stride..][..stride];
        let (mut next, last) = (first, out.len() - 1);
        for (byte, &bits) in bitmap.iter().enumerate() {
            let at = 8 * byte;
            for (bit, slot) in (at..out.len().min(at + 8)).enumerate() {
                let keep = (bits >> bit) & 1;
                let value = out[next.min(last)];
                out[slot] = if keep == 1 { value } else { 0.0 };
                next += usize::from(keep);
            }
        }
    }

    /// Copies the nonzeros `start..end` to `out`.
    fn copy_values(&self, start: usize, end: usize, out: &mut [f32]) {
        match &self.values {
            Values::One(value) => out.fill(*value),
            Values::Table { table, codes } => {
                let codes = &self.body[codes + start..codes + end];
                out.iter_mut().zip(codes).for_each(|(out, &code)| *out = table[usize::from(code)]);
            }
            Values::Planes(at) => {
                let all = self.starts[self.starts.len() - 1];
                let [a, b, c, d] = [0, 1, 2, 3].map(|plane| &self.body[at + plane * all..][start..end]);
                for ((((out, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *out = f32::from_bits(u32::from_be_bytes([a, b, c, d]).rotate_right(1));
                }
            }
        }
    }
}

fn take_live(rest: &mut &[u8], how: u8, samples: usize) -> Option<Vec<u32>> {
    if how == LIVE_ALL {
        return (samples <= 8 * rest.len()).then(|| (0..samples as u32).collect());
    }
    let count = varint::take(rest)? as usize;
    let mut live = Vec::new();
    match how {
        LIVE_BITMAP => {
            let (bitmap, after) = rest.split_at_checked(samples.div_ceil(8))?;
            *rest = after;
            for (byte, &bits) in (0u32..).zip(bitmap) {
                live.extend((0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| 8 * byte + bit));
            }
        }
        LIVE_GAPS if count <= rest.len() => {
            let mut next = 0u32;
            for _ in 0..count {
                let id = next.checked_add(varint::take(rest)?)?;
                live.push(id);
                next = id.checked_add(1)?;
            }
        }
        _ => return None,
    }
    (live.len() == count && live.last().is_none_or(|&id| (id as usize) < samples)).then_some(live)
}

fn take_kinds(rest: &mut &[u8], rows: usize, distinct: usize) -> Option<Vec<u32>> {
    if rows > rest.len() {
        return None;
    }
    let (mut kinds, mut seen) = (Vec::with_capacity(rows), 0);
    for _ in 0..rows {
        kinds.push(match varint::take(rest)? {
            0 => {
                seen += 1;
                seen - 1
            }
            kind if kind <= seen => kind - 1,
            _ => return None,
        });
    }
    (seen as usize == distinct).then_some(kinds)
}

/// Returns the start of each row's nonzeros, or `None` if a bit lies beyond the columns.
fn count(bitmaps: &[u8], stride: usize, columns: usize) -> Option<Vec<usize>> {
    let mut starts = vec![0];
    let mut total = 0;
    for bitmap in bitmaps.chunks_exact(stride.max(1)) {
        let used = columns - 8 * (stride - 1);
        if u32::from(bitmap[stride - 1]) >> used != 0 {
            return None;
        }
        let (words, bytes) = bitmap.as_chunks::<8>();
        total += words.iter().map(|word| u64::from_le_bytes(*word).count_ones() as usize).sum::<usize>();
        total += bytes.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
        starts.push(total);
    }
    Some(starts)
}

/// Checks that the values fill exactly the rest of a body of `end` bytes, and returns their encoding and position.
fn take_values(rest: &[u8], how: u8, nonzeros: usize, end: usize) -> Option<Values> {
    let float = |bytes: &[u8; 4]| f32::from_bits(u32::from_le_bytes(*bytes));
    match how {
        VALUES_ONE if nonzeros == 0 => rest.is_empty().then_some(Values::One(0.0)),
        VALUES_ONE => <&[u8; 4]>::try_from(rest).ok().map(|bytes| Values::One(float(bytes))),
        VALUES_TABLE => {
            let (&last, rest) = rest.split_first()?;
            let (floats, codes) = rest.split_at_checked(4 * (usize::from(last) + 1))?;
            let mut table = Box::new([0.0; TABLE]);
            table.iter_mut().zip(floats.as_chunks::<4>().0).for_each(|(value, bytes)| *value = float(bytes));
            let valid = codes.len() == nonzeros && codes.iter().max().is_none_or(|&code| code <= last);
            valid.then(|| Values::Table { table, codes: end - nonzeros })
        }
        VALUES_PLANES => (nonzeros.checked_mul(4)? == rest.len()).then(|| Values::Planes(end - rest.len())),
        _ => None,
    }
}
