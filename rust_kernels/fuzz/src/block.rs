//! Blocks of activations, as frames carry them and alone, with values of all kinds.

use fsd_core::codec::{BadBlock, Block, most_bytes};
use fsd_core::compute::Compute;
use fsd_core::isa::Path;

use crate::input::Input;
use crate::memory::bounded;

/// The shape of a block: up to 255 rows, and some more samples.
const MOST_SAMPLES: u16 = 2000;

/// Returns the most bytes that decoding a block takes: its body twice, the lists of samples and rows, and its pieces.
pub(crate) fn most(block: usize, rows: usize, samples: usize) -> usize {
    2 * most_bytes(rows, samples) as usize + 16 * (rows + samples) + 16 * block + (64 << 10)
}

/// Decodes a block and expands its rows on each kernel path.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (is_framed, rows, samples) = (input.byte() & 1 == 1, input.byte(), input.short() % MOST_SAMPLES);
    let (rows, samples) = (usize::from(rows), usize::from(samples));
    let block = input.0;
    let compute = Compute::with_path(Path::Portable, 1).expect("every processor has this path");
    let thirds: Vec<u32> = (0..samples as u32).step_by(3).collect();
    let known = |number| (number == 1).then_some(&thirds[..]);
    let decode = || -> Result<_, BadBlock> {
        if is_framed {
            return Block::decode(block, rows, samples, &known, &compute);
        }
        let (rows, samples) = Block::claimed_shape(block)?;
        // Readers know the shape that a block must have, and refuse others unread.
        if rows > 255 || samples >= MOST_SAMPLES.into() {
            return Err(BadBlock::MEMORY);
        }
        Block::decode_any(block, &compute)
    };
    let shape = if is_framed { (rows, samples) } else { Block::claimed_shape(block).unwrap_or_default() };
    let allowed = most(block.len(), shape.0.min(255), shape.1.min(MOST_SAMPLES.into()));
    let Ok(decoded) = bounded(allowed, decode) else { return false };
    assert_eq!(decoded.shape(), shape);
    assert!(decoded.live().is_sorted_by(|a, b| a < b));
    let expected = expanded(&decoded, Path::Portable);
    for path in Path::available() {
        assert!(expanded(&decoded, path) == expected, "the rows differ on path {path}");
    }
    let (indptr, indices, values) = decoded.csr(Path::Portable).expect("there is memory for a small matrix");
    let nonzeros = expected.iter().flatten().filter(|bits| **bits != 0).count();
    assert_eq!([indptr[shape.0] as usize, indices.len(), values.len()], [nonzeros; 3]);
    true
}

/// Returns the bits of the live samples of all rows.
fn expanded(block: &Block<'_>, path: Path) -> Vec<Vec<u32>> {
    let reader = block.reader(path);
    let live = block.live().len();
    let row = |row: usize| {
        let (mut values, bitmap) = (vec![f32::NAN; live], reader.bitmap(row));
        let first = reader.seek(row, bitmap, 0);
        assert_eq!(reader.expand(bitmap, 0, first, &mut values), first + block.nonzeros(row));
        // A part of the row, as a panel gets it.
        let slot = live / 2;
        let mut part = vec![f32::NAN; (live - slot).min(17)];
        reader.expand(bitmap, slot, reader.seek(row, bitmap, slot), &mut part);
        assert!(part.iter().zip(&values[slot..]).all(|(one, other)| one.to_bits() == other.to_bits()));
        values.iter().map(|value| value.to_bits()).collect()
    };
    (0..block.shape().0).map(row).collect()
}
