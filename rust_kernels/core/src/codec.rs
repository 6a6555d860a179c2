//! The lossless codec of blocks, which are float matrices of rows x samples.
//!
//! A block lists the live samples (those that are not zero in every row), stores equal rows once, and has, for each
//! distinct row, a bitmap of its nonzeros over the live samples. The nonzeros follow in the smallest of three
//! encodings: one value for all, one-byte codes into a table of at most 256 values, or the floats themselves, byte
//! plane by byte plane. Each kind of bytes is compressed separately with Zstandard if that makes it smaller; of large
//! ones a sample decides. Where bytes cost next to nothing, floats that could hardly be compressed are left as they are.
//! Only the float of 32 zero bits is a zero; -0 is kept as a value.
//!
//! ```text
//! block  = [alone: varint rows, varint samples], pieces of the body
//! piece  = varint 2 x length, bytes | varint 2 x length + 1, varint packed length, packed bytes;
//!          at most 16, and one for every 200 bytes of the body
//! body   = flags, [live], [repeats: varint distinct rows, one varint per row],
//!          [not full: bitmaps (distinct rows x ceil(live / 8) bytes)], values
//! flags  = live: 0 all, 1 bitmap, 2 varint gaps, 3 changes | repeats: 4 | values: 0 one, 8 table, 16 planes,
//!          24 floats | full: 32
//! live   = varint live count, bitmap or gaps | changes: varint number of a list that the reader has,
//!          varint 2 x gone, gaps of their positions in that list (or + 1, bitmap), varint new, gaps of their ids
//! repeat = 0 for a row not seen before, else 1 + the number of the distinct row that it equals
//! values = one: the float, if there is a nonzero | table: count - 1, floats, one code per nonzero
//!        | planes: the floats' bits rotated left by one (so that the exponent fills a byte), high bytes first | floats
//! ```
//!
//! Only blocks in frames, whose readers know the shape, leave it out, have changes and full bitmaps, and no list of repeats
//! if all rows are equal: elsewhere a few bytes could claim to be a block of any size. Only they have values as floats.

mod bits;
mod compact;
mod csr;
mod decode;
mod encode;
mod expand;
mod lanes;
mod live;
mod pieces;
mod rows;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt::Display;

use crate::errors::{Invalid, LoadError, NoMemory};
use crate::memory::{filled, with_room};

pub use csr::encode_csr;
pub use decode::{Block, Reader};
pub use encode::{Framed, Packed, encode};
pub use live::Known;
pub use pieces::Chunk;
pub use rows::{PanelRows, Rows};
pub use wire::Wire;

/// An upper bound on the rows of any layer, which limits the memory that a damaged block can request.
const MAX_ROWS: usize = 1 << 24;
/// The maximum length of a piece in bytes; longer ones are cut so that lengths fit their fields.
const LARGEST_PIECE: usize = 1 << 30;
const TABLE: usize = 256;

const LIVE: u8 = 0b11;
const LIVE_ALL: u8 = 0;
const LIVE_BITMAP: u8 = 1;
const LIVE_GAPS: u8 = 2;
const LIVE_CHANGES: u8 = 3;
const REPEATS: u8 = 4;
const VALUES: u8 = 0b11000;
const VALUES_ONE: u8 = 0;
const VALUES_TABLE: u8 = 8;
const VALUES_PLANES: u8 = 16;
const VALUES_FLOATS: u8 = 24;
const FULL: u8 = 32;

/// The bytes are not a valid block, or not one of the expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid block of activations: {0}")]
pub struct BadBlock(&'static str);

impl BadBlock {
    /// The block may be valid, but there is no memory to decode it.
    pub const MEMORY: Self = Self("it takes more memory than there is");

    /// Returns the error of a reader, with `what` it read.
    pub(crate) fn of(self, what: impl Display) -> LoadError {
        if self == Self::MEMORY { NoMemory.into() } else { Invalid(format!("{what}{self}")).into() }
    }
}

impl From<NoMemory> for BadBlock {
    fn from(_: NoMemory) -> Self {
        Self::MEMORY
    }
}

/// Returns the maximum size of a block of this shape in bytes.
pub fn most_bytes(rows: usize, samples: usize) -> u64 {
    // Two varints in front, and one before each piece.
    const HEAD: u64 = 2 * 5 + 8 * 5;
    let body = most_body(rows, samples);
    body.saturating_add(HEAD + body / LARGEST_PIECE as u64 * 5)
}

fn most_body(rows: usize, samples: usize) -> u64 {
    const HEAD: u64 = 1 + 2 * 5 + 4;
    let (rows, bitmap, samples) = (rows as u64, samples.div_ceil(8) as u64, samples as u64);
    let row = samples.saturating_mul(4).saturating_add(bitmap + 5);
    rows.saturating_mul(row).saturating_add(HEAD + bitmap)
}
