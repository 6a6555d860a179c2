//! The decoder of blocks.

use std::borrow::Cow;
use std::ops::Range;

use super::bits;
use super::expand::{Nonzeros, expand};
use super::*;
use crate::compute::Compute;
use crate::isa::Path;
use crate::varint;

/// A validated block, whose rows can be expanded in any order.
pub struct Block<'a> {
    rows: usize,
    samples: usize,
    /// The body, as runs of consecutive bytes.
    runs: Vec<Cow<'a, [u8]>>,
    layout: Layout,
}

/// What a body consists of.
struct Layout {
    live: Vec<u32>,
    /// The number of the distinct row that each row equals; empty if all rows are distinct.
    kinds: Vec<u32>,
    /// The bitmap of every row, if none has a zero and there are no bitmaps.
    full: Vec<u8>,
    bitmaps: Section,
    /// Start of each distinct row's nonzeros, and the end of the last ones.
    starts: Vec<usize>,
    values: Values,
}

/// Consecutive bytes of one run.
#[derive(Clone, Copy)]
struct Section {
    run: usize,
    start: usize,
    end: usize,
}

enum Values {
    One(f32),
    Table { table: Box<[f32; TABLE]>, codes: Section },
    Planes([Section; 4]),
    Floats(Section),
}

impl<'a> Block<'a> {
    /// Validates and decompresses a block of a frame, which does not say its shape; `known` are the lists to which it may
    /// refer.
    pub fn decode(
        block: &'a [u8],
        rows: usize,
        samples: usize,
        known: Known<'_>,
        compute: &Compute,
    ) -> Result<Self, BadBlock> {
        Self::decode_body(block, rows, samples, Some(known), compute)
    }

    /// Validates and decompresses a block that stands alone, of any shape.
    pub fn decode_any(block: &'a [u8], compute: &Compute) -> Result<Self, BadBlock> {
        let ((rows, samples), body) = take_shape(block)?;
        Self::decode_body(body, rows, samples, None, compute)
    }

    /// Returns the numbers of rows and samples that a block that stands alone claims to have, so that a reader who knows
    /// them can refuse it before it takes memory.
    pub fn claimed_shape(block: &[u8]) -> Result<(usize, usize), BadBlock> {
        take_shape(block).map(|(shape, _)| shape)
    }

    fn decode_body(
        block: &'a [u8],
        rows: usize,
        samples: usize,
        known: Option<Known<'_>>,
        compute: &Compute,
    ) -> Result<Self, BadBlock> {
        if rows > MAX_ROWS {
            return Err(BadBlock("it has more rows than any layer"));
        }
        let mut runs = pieces::take(block, most_body(rows, samples), compute)?;
        let mut layout = Layout::read(rows, samples, &runs, known);
        if layout.is_err() && runs.len() > 1 {
            // Other encoders may cut the body anywhere.
            let mut whole = with_room(runs.iter().map(|run| run.len()).sum())?;
            runs.iter().for_each(|run| whole.extend_from_slice(run));
            runs = vec![Cow::Owned(whole)];
            layout = Layout::read(rows, samples, &runs, known);
        }
        Ok(Self { rows, samples, runs, layout: layout? })
    }

    /// Returns the decompressed body.
    #[cfg(test)]
    pub(super) fn body(&self) -> Vec<u8> {
        self.runs.concat()
    }

    /// Returns the numbers of rows and samples.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.samples)
    }

    /// Returns the samples that have nonzeros, ascending.
    pub fn live(&self) -> &[u32] {
        &self.layout.live
    }

    /// Returns the samples that have nonzeros, and releases everything else.
    pub fn into_live(self) -> Vec<u32> {
        self.layout.live
    }

    /// Returns the positions of a row's nonzeros among those of all rows.
    fn range(&self, row: usize) -> Range<usize> {
        if self.live().is_empty() {
            return 0..0;
        }
        let kind = self.kind(row);
        self.layout.starts[kind]..self.layout.starts[kind + 1]
    }

    /// Returns the number of nonzeros in a row.
    pub fn nonzeros(&self, row: usize) -> usize {
        self.range(row).len()
    }

    fn kind(&self, row: usize) -> usize {
        if self.layout.kinds.is_empty() { row } else { self.layout.kinds[row] as usize }
    }

    fn bytes(&self, section: Section) -> &[u8] {
        self.runs.get(section.run).map_or(&[], |run| &run[section.start..section.end])
    }

    /// Returns a view for expanding rows.
    pub fn reader(&self, path: Path) -> Reader<'_> {
        let nonzeros = match &self.layout.values {
            Values::One(value) => Nonzeros::One(*value),
            Values::Table { table, codes } => Nonzeros::Table { table, codes: self.bytes(*codes) },
            Values::Planes(planes) => Nonzeros::Planes(planes.map(|plane| self.bytes(plane))),
            Values::Floats(floats) => Nonzeros::Floats(self.bytes(*floats)),
        };
        Reader { block: self, bitmaps: self.bytes(self.layout.bitmaps), nonzeros, path }
    }
}

/// A view of a block's rows.
pub struct Reader<'b> {
    block: &'b Block<'b>,
    bitmaps: &'b [u8],
    nonzeros: Nonzeros<'b>,
    path: Path,
}

impl<'b> Reader<'b> {
    /// Returns a row's bitmap over the live samples.
    pub fn bitmap(&self, row: usize) -> &'b [u8] {
        if !self.block.layout.full.is_empty() {
            return &self.block.layout.full;
        }
        let stride = self.block.live().len().div_ceil(8);
        if stride == 0 { &[] } else { &self.bitmaps[self.block.kind(row) * stride..][..stride] }
    }

    /// Returns the number of the first nonzero of a row that lies at position `slot` or behind it; `bitmap` is the row's,
    /// over any samples that include the live ones.
    pub fn seek(&self, row: usize, bitmap: &[u8], slot: usize) -> usize {
        self.block.range(row).start + bits::ones(bitmap, slot)
    }

    /// Writes the values at positions `slot..` of a row to `out`, given its bitmap and the number of the first nonzero;
    /// returns that of the next one.
    pub fn expand(&self, bitmap: &[u8], slot: usize, next: usize, out: &mut [f32]) -> usize {
        expand(bitmap, slot, &self.nonzeros, next, out, self.path)
    }

    /// Writes the bitmap of a row over other samples to `out`; `mask` has the live samples among those.
    pub fn deposit(&self, row: usize, mask: &[u8], out: &mut [u8]) {
        bits::deposit(self.bitmap(row), mask, out, self.path);
    }
}

/// Returns the shape in front of a block that stands alone, and its body.
fn take_shape(mut block: &[u8]) -> Result<((usize, usize), &[u8]), BadBlock> {
    const CUT: BadBlock = BadBlock("it ends too early");
    let rows = varint::take(&mut block).ok_or(CUT)? as usize;
    let samples = varint::take(&mut block).ok_or(CUT)? as usize;
    Ok(((rows, samples), block))
}

impl Layout {
    fn read(rows: usize, samples: usize, runs: &[Cow<'_, [u8]>], known: Option<Known<'_>>) -> Result<Self, BadBlock> {
        const CUT: BadBlock = BadBlock("its body ends too early");
        let mut body = Body { runs, run: 0, at: 0 };
        let flags = body.read(|rest| rest.split_off_first().copied()).ok_or(CUT)?;
        let allowed = LIVE | REPEATS | VALUES | if known.is_some() { FULL } else { 0 };
        if flags & !allowed != 0 || flags & VALUES == VALUES_FLOATS && known.is_none() {
            return Err(BadBlock("it has flags that are not known here"));
        }
        let room = body.left();
        let live = body.read(|rest| live::take(rest, flags & LIVE, samples, room, known));
        let live = live?;
        let mut distinct = if live.is_empty() { 0 } else { rows };
        let mut kinds = Vec::new();
        if flags & REPEATS != 0 {
            distinct = body.read(varint::take).ok_or(CUT)? as usize;
            kinds = match (known, distinct) {
                (Some(_), 1) => filled(rows, 0)?,
                _ => body.read(|rest| take_kinds(rest, rows, distinct))?,
            };
        }
        let stride = live.len().div_ceil(8);
        let full = if flags & FULL != 0 { ones(live.len())? } else { Vec::new() };
        let bytes = if full.is_empty() { distinct.checked_mul(stride) } else { Some(0) };
        let (bitmaps, maps) = bytes.and_then(|bytes| body.section(bytes)).ok_or(CUT)?;
        let starts = if full.is_empty() {
            count(maps, stride, live.len())?
        } else {
            let mut starts = with_room(distinct + 1)?;
            starts.extend((0..=distinct).map(|row| row * live.len()));
            starts
        };
        let values = take_values(&mut body, flags & VALUES, starts[starts.len() - 1]);
        let values = values.filter(|_| body.left() == 0).ok_or(BadBlock("its values are not valid"))?;
        Ok(Self { live, kinds, full, bitmaps, starts, values })
    }
}

/// A position in the runs of a body.
struct Body<'r, 'a> {
    runs: &'r [Cow<'a, [u8]>],
    run: usize,
    at: usize,
}

impl<'r> Body<'r, '_> {
    fn rest(&self) -> &'r [u8] {
        self.runs.get(self.run).map_or(&[], |run| &run[self.at..])
    }

    /// Applies a function that removes bytes from the front of the rest of a run.
    fn read<T>(&mut self, take: impl FnOnce(&mut &[u8]) -> T) -> T {
        let mut rest = self.rest();
        let found = take(&mut rest);
        self.skip(self.rest().len() - rest.len());
        found
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
        if self.rest().is_empty() {
            (self.run, self.at) = (self.run + 1, 0);
        }
    }

    /// Takes a section, which must lie within one run.
    fn section(&mut self, bytes: usize) -> Option<(Section, &'r [u8])> {
        let found = self.rest().get(..bytes)?;
        let section = Section { run: self.run, start: self.at, end: self.at + bytes };
        self.skip(bytes);
        Some((section, found))
    }

    /// Returns the number of bytes that are left, in all runs.
    fn left(&self) -> usize {
        let later = self.runs.iter().skip(self.run + 1).map(|run| run.len()).sum::<usize>();
        self.rest().len() + later
    }
}

/// Returns a bitmap of ones.
fn ones(count: usize) -> Result<Vec<u8>, BadBlock> {
    let mut bitmap = filled(count.div_ceil(8), 0xff)?;
    if let Some(last) = bitmap.last_mut() {
        *last >>= (8 - count % 8) % 8;
    }
    Ok(bitmap)
}

fn take_kinds(rest: &mut &[u8], rows: usize, distinct: usize) -> Result<Vec<u32>, BadBlock> {
    const INVALID: BadBlock = BadBlock("its repeated rows are not valid");
    if rows > rest.len() {
        return Err(INVALID);
    }
    let (mut kinds, mut seen) = (with_room(rows)?, 0);
    for _ in 0..rows {
        kinds.push(match varint::take(rest).ok_or(INVALID)? {
            0 => {
                seen += 1;
                seen - 1
            }
            kind if kind <= seen => kind - 1,
            _ => return Err(INVALID),
        });
    }
    if seen as usize == distinct { Ok(kinds) } else { Err(INVALID) }
}

/// Returns the start of each row's nonzeros; no bit may lie beyond the columns.
fn count(bitmaps: &[u8], stride: usize, columns: usize) -> Result<Vec<usize>, BadBlock> {
    let mut starts = with_room(bitmaps.len() / stride.max(1) + 1)?;
    starts.push(0);
    let mut total = 0;
    for bitmap in bitmaps.chunks_exact(stride.max(1)) {
        let used = columns - 8 * (stride - 1);
        if u32::from(bitmap[stride - 1]) >> used != 0 {
            return Err(BadBlock("its bitmaps are not valid"));
        }
        total += bits::ones(bitmap, columns);
        starts.push(total);
    }
    Ok(starts)
}

/// Takes the encoded values of so many nonzeros.
fn take_values(body: &mut Body<'_, '_>, how: u8, nonzeros: usize) -> Option<Values> {
    match how {
        VALUES_ONE if nonzeros == 0 => Some(Values::One(0.0)),
        VALUES_ONE => body.read(take_float).map(Values::One),
        VALUES_TABLE => {
            let last = body.read(|rest| rest.split_off_first().copied())?;
            let mut table = Box::new([0.0; TABLE]);
            for value in &mut table[..=usize::from(last)] {
                *value = body.read(take_float)?;
            }
            let (codes, bytes) = body.section(nonzeros)?;
            let largest = bytes.iter().fold(0, |largest, code| largest.max(*code));
            (largest <= last).then_some(Values::Table { table, codes })
        }
        VALUES_PLANES => {
            let mut plane = || body.section(nonzeros).map(|(section, _)| section);
            Some(Values::Planes([plane()?, plane()?, plane()?, plane()?]))
        }
        VALUES_FLOATS => {
            let (floats, _) = body.section(nonzeros.checked_mul(size_of::<f32>())?)?;
            Some(Values::Floats(floats))
        }
        _ => None,
    }
}

fn take_float(rest: &mut &[u8]) -> Option<f32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(f32::from_bits(u32::from_le_bytes(*bytes)))
}
