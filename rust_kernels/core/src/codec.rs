//! Blocks: rows x samples of floats, packed without loss.
//!
//! A block says which samples are alive (not zero in every row), sends equal rows once, and holds for each distinct row
//! a bitmap of its nonzeros over the live samples. The nonzeros follow in the cheapest of three ways: one value for all,
//! one-byte codes into a table of at most 256 values, or the floats themselves, byte plane by byte plane. Zstandard goes
//! over it all where that makes it smaller. Zero is the float of 32 zero bits: -0 is kept as a value.
//!
//! ```text
//! block  = packing (0 stored, 1 zstd), varint rows, varint samples, [zstd: varint bytes of the body], body
//! body   = flags, [some live: varint live count, live ids], [repeats: varint distinct rows, a varint each row],
//!          bitmaps (distinct rows x ceil(live / 8) bytes), values
//! flags  = live: 0 all, 1 bitmap, 2 varint gaps | repeats: 4 | values: 0 one, 8 table, 16 planes
//! repeat = 0 for a row not seen before, else 1 + the number of the distinct row that it equals
//! values = one: the float, if there is a nonzero | table: count - 1, floats, a code each nonzero
//!        | planes: the floats' bits rotated left by one (so that the exponent fills a byte), high bytes first
//! ```

use std::cell::RefCell;
use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};

use crate::varint;

const LEVEL: i32 = 1;
/// More rows than any layer has: a bound on what a few bytes can claim.
const MAX_ROWS: usize = 1 << 24;
/// A Zstandard block takes at least 4 bytes and gives at most 128 KiB.
const ZSTD_BLOCK: (usize, usize) = (4, 128 << 10);
const TABLE: usize = 256;

const LIVE: u8 = 0b11;
const LIVE_ALL: u8 = 0;
const LIVE_BITMAP: u8 = 1;
const LIVE_GAPS: u8 = 2;
const REPEATS: u8 = 4;
const VALUES: u8 = 0b11000;
const VALUES_ONE: u8 = 0;
const VALUES_TABLE: u8 = 8;
const VALUES_PLANES: u8 = 16;

thread_local! {
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(LEVEL).expect("Zstandard has this level"));
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("Zstandard needs no dictionary"));
}

/// The bytes are not a block, or not one of the expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid block of activations: {0}")]
pub struct BadBlock(&'static str);

/// The most bytes that a block of this shape can take.
pub fn most_bytes(rows: usize, samples: usize) -> u64 {
    const HEAD: u64 = 1 + 3 * 5;
    HEAD.saturating_add(most_body(rows, samples))
}

fn most_body(rows: usize, samples: usize) -> u64 {
    const HEAD: u64 = 1 + 2 * 5 + 4;
    let (rows, bitmap, samples) = (rows as u64, samples.div_ceil(8) as u64, samples as u64);
    let row = samples.saturating_mul(4).saturating_add(bitmap + 5);
    rows.saturating_mul(row).saturating_add(HEAD + bitmap)
}

/// Pack `rows` rows. `live` are the samples (ascending, below `samples`) that can have nonzeros, and `fill(row, out)`
/// writes a row's value for each of them.
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
    let nonzeros = put_bitmaps(&mut body, live.len(), &survey, &fill);
    flags |= put_values(&mut body, &nonzeros);
    body[0] = flags;
    pack(rows, samples, &body)
}

/// What a first look at the rows tells.
struct Survey {
    /// Positions (among the samples the caller calls live) of the samples that really are.
    kept: Vec<u32>,
    /// The first row of each kind.
    distinct: Vec<usize>,
    /// For each row 0 if it is the first of its kind, else 1 + its kind.
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
    // SAFETY: every byte of a float is initialised, bytes need no alignment, and the borrow is the same.
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

/// Append the bitmaps of the distinct rows and return their nonzeros.
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

fn put_values(body: &mut Vec<u8>, nonzeros: &[f32]) -> u8 {
    let Some((table, codes)) = tabulate(nonzeros) else {
        for byte in (0..4).rev() {
            body.extend(nonzeros.iter().map(|value| (value.to_bits().rotate_left(1) >> (8 * byte)) as u8));
        }
        return VALUES_PLANES;
    };
    if table.len() > 1 {
        body.push((table.len() - 1) as u8);
    }
    table.iter().for_each(|bits| body.extend_from_slice(&bits.to_le_bytes()));
    if table.len() <= 1 {
        return VALUES_ONE;
    }
    body.extend_from_slice(&codes);
    VALUES_TABLE
}

/// The distinct values (as bits) and the code of each, if they are few enough.
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

fn pack(rows: usize, samples: usize, body: &[u8]) -> Vec<u8> {
    let mut block = vec![1];
    varint::put(&mut block, rows as u32);
    varint::put(&mut block, samples as u32);
    let head = block.len();
    if let Ok(length) = u32::try_from(body.len()) {
        varint::put(&mut block, length);
        let packed = COMPRESSOR.with_borrow_mut(|zstd| zstd.compress(body)).unwrap_or_else(|_| body.to_vec());
        if block.len() + packed.len() < head + body.len() {
            block.extend_from_slice(&packed);
            return block;
        }
    }
    block[0] = 0;
    block.truncate(head);
    block.extend_from_slice(body);
    block
}

/// A checked block, whose rows can be expanded in any order.
pub struct Block {
    rows: usize,
    samples: usize,
    live: Vec<u32>,
    body: Vec<u8>,
    /// The distinct row of each row; empty if all are distinct.
    kinds: Vec<u32>,
    bitmaps: usize,
    /// Where the nonzeros of each distinct row begin, and where the last ones end.
    starts: Vec<usize>,
    values: Values,
}

enum Values {
    One(f32),
    Table { table: Box<[f32; TABLE]>, codes: usize },
    Planes(usize),
}

impl Block {
    /// Check and unpack a block of a known shape.
    pub fn decode(block: &[u8], rows: usize, samples: usize) -> Result<Self, BadBlock> {
        Self::decode_if(block, |shape| shape == (rows, samples))
    }

    /// Check and unpack a block of any shape.
    pub fn decode_any(block: &[u8]) -> Result<Self, BadBlock> {
        Self::decode_if(block, |_| true)
    }

    fn decode_if(mut block: &[u8], fits: impl Fn((usize, usize)) -> bool) -> Result<Self, BadBlock> {
        const CUT: BadBlock = BadBlock("it ends too early");
        let (&packing, rest) = block.split_first().ok_or(CUT)?;
        block = rest;
        let rows = varint::take(&mut block).ok_or(CUT)? as usize;
        let samples = varint::take(&mut block).ok_or(CUT)? as usize;
        if !fits((rows, samples)) || rows > MAX_ROWS {
            return Err(BadBlock("it has another shape"));
        }
        let body = match packing {
            0 => block.to_vec(),
            1 => {
                let length = varint::take(&mut block).ok_or(CUT)? as usize;
                if length as u64 > most_body(rows, samples) || length / ZSTD_BLOCK.1 > block.len() / ZSTD_BLOCK.0 {
                    return Err(BadBlock("it claims to be larger than it can be"));
                }
                let body = DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress(block, length));
                body.ok().filter(|body| body.len() == length).ok_or(BadBlock("its compressed part is damaged"))?
            }
            _ => return Err(BadBlock("its packing is unknown")),
        };
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

    /// Rows and samples.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.samples)
    }

    /// The samples that have nonzeros, ascending.
    pub fn live(&self) -> &[u32] {
        &self.live
    }

    /// The number of nonzeros of a row.
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

    /// Write a row's value for each live sample.
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
        // The nonzeros are put at the end first; spreading them then never overtakes what is still to be read.
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

    /// Copy the nonzeros `start..end`.
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

/// Where the nonzeros of each row begin, if no bit lies beyond the columns.
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

/// Check that the values are exactly the rest of a body of `end` bytes, and read what is needed to find them.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of bits, some equal, with samples that are zero throughout; values few, one, or any.
    fn rows() -> impl Strategy<Value = (usize, Vec<Vec<u32>>)> {
        let value = prop_oneof![
            Just(prop_oneof![Just(0u32), Just(32f32.to_bits())].boxed()),
            Just((0u32..9).prop_map(|value| (value as f32).to_bits()).boxed()),
            Just((0u32..400).prop_map(|value| (value as f32).to_bits()).boxed()),
            Just(any::<u32>().boxed()),
            Just(prop_oneof![Just(0u32), Just(1u32 << 31), any::<u32>()].boxed()),
        ];
        (0usize..40, 0usize..100, value).prop_flat_map(|(rows, samples, value)| {
            let mask = prop::collection::vec(any::<bool>(), samples);
            let row = prop::collection::vec(value, samples);
            let pick = prop::collection::vec(any::<prop::sample::Index>(), rows);
            (prop::collection::vec(row, 1..20), pick, mask).prop_map(move |(kinds, pick, mask)| {
                let mut kinds = kinds;
                for kind in &mut kinds {
                    kind.iter_mut().zip(&mask).for_each(|(bits, keep)| *bits *= u32::from(*keep));
                }
                (samples, pick.iter().map(|index| index.get(&kinds).clone()).collect())
            })
        })
    }

    fn encoded(samples: usize, rows: &[Vec<u32>]) -> Vec<u8> {
        let all: Vec<u32> = (0..samples as u32).collect();
        encode(rows.len(), samples, &all, |row, out| {
            out.iter_mut().zip(&rows[row]).for_each(|(out, bits)| *out = f32::from_bits(*bits));
        })
    }

    fn expanded(block: &Block) -> Vec<Vec<u32>> {
        let (rows, samples) = block.shape();
        let mut values = vec![0.0; block.live().len()];
        let expand = |row| {
            block.expand(row, &mut values);
            let mut bits = vec![0; samples];
            block.live().iter().zip(&values).for_each(|(&sample, value)| bits[sample as usize] = value.to_bits());
            bits
        };
        (0..rows).map(expand).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn blocks_come_back_bit_for_bit((samples, rows) in rows()) {
            let block = encoded(samples, &rows);
            prop_assert!(block.len() as u64 <= most_bytes(rows.len(), samples));
            prop_assert_eq!(&expanded(&Block::decode(&block, rows.len(), samples).unwrap()), &rows);
            let decoded = Block::decode_any(&block).unwrap();
            prop_assert_eq!(&expanded(&decoded), &rows);
            for (index, row) in rows.iter().enumerate() {
                prop_assert_eq!(decoded.nonzeros(index), row.iter().filter(|bits| **bits != 0).count());
            }
            prop_assert!(Block::decode(&block, rows.len() + 1, samples).is_err());
            prop_assert!(Block::decode(&block, rows.len(), samples + 1).is_err());
        }

        #[test]
        fn samples_that_the_caller_leaves_out_are_zero(
            live in prop::collection::btree_set(0u32..200, 0..60), rows in 0usize..5,
        ) {
            let live: Vec<u32> = live.into_iter().collect();
            let value = |row: usize, sample: u32| if sample % 3 == 0 { 0.0 } else { (row * 7) as f32 + sample as f32 };
            let block = encode(rows, 200, &live, |row, out| {
                out.iter_mut().zip(&live).for_each(|(out, &sample)| *out = value(row, sample));
            });
            let found = expanded(&Block::decode(&block, rows, 200).unwrap());
            for (row, found) in found.iter().enumerate() {
                for (sample, bits) in (0u32..).zip(found) {
                    let expected = if live.contains(&sample) { value(row, sample) } else { 0.0 };
                    prop_assert_eq!(*bits, expected.to_bits());
                }
            }
        }

        #[test]
        fn damaged_blocks_never_panic(
            (samples, rows) in rows(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            store in any::<bool>(),
        ) {
            let mut block = encoded(samples, &rows);
            if store && block[0] == 1 {
                // As if it had not been compressed, so that the changes reach the body.
                let whole = Block::decode_any(&block).unwrap();
                block = vec![0];
                varint::put(&mut block, rows.len() as u32);
                varint::put(&mut block, samples as u32);
                block.extend_from_slice(&whole.body);
            }
            for (at, byte) in changes {
                let at = at.index(block.len());
                block[at] = byte;
            }
            for bytes in [&block[..], &block[..cut.index(block.len())]] {
                for block in [Block::decode(bytes, rows.len(), samples), Block::decode_any(bytes)].into_iter().flatten() {
                    if block.samples <= 1000 {
                        expanded(&block);
                    }
                }
            }
        }

        #[test]
        fn strange_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Block::decode_any(&bytes);
        }
    }

    #[test]
    fn large_claims_take_no_memory() {
        let head = |rows, samples| {
            let mut block = vec![0];
            varint::put(&mut block, rows);
            varint::put(&mut block, samples);
            block
        };
        for flags in [LIVE_ALL, LIVE_BITMAP, LIVE_GAPS, LIVE_ALL | REPEATS, VALUES_PLANES, VALUES_TABLE] {
            let mut block = head(1 << 24, u32::MAX);
            block.extend_from_slice(&[flags, 0xff, 0xff, 0xff, 0xff, 0x0f]);
            assert!(Block::decode_any(&block).is_err());
        }
        assert!(Block::decode_any(&head(u32::MAX, 1)).is_err());
    }
}
