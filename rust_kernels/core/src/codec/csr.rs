//! Conversion between blocks and CSR, the format of Python's sparse matrices.

use super::*;
use crate::compute::Compute;
use crate::csr::check_indptr;
use crate::errors::Invalid;
use crate::isa::Path;

/// Encodes a CSR matrix, rows x `samples`, as a block; column indices must ascend strictly within a row. `framed` as for
/// `encode`.
pub fn encode_csr(
    indptr: &[i64],
    indices: &[i32],
    data: &[f32],
    samples: usize,
    framed: Option<Framed<'_>>,
    compute: &Compute,
) -> Result<Vec<u8>, Invalid> {
    check_indptr(indptr, indices.len())?;
    let rows = indptr.len() - 1;
    if data.len() != indices.len() {
        return Err(Invalid(format!("{} values for {} indices; give one an index", data.len(), indices.len())));
    }
    if rows > MAX_ROWS || i32::try_from(samples).is_err() {
        return Err(Invalid(format!("{rows} rows x {samples} samples are too many for one block")));
    }
    let range = |row: usize| indptr[row] as usize..indptr[row + 1] as usize;
    let mut slots = vec![None; samples];
    for row in 0..rows {
        let columns = &indices[range(row)];
        if !columns.is_sorted_by(|a, b| a < b) {
            return Err(Invalid(format!("the column indices of row {row} must ascend strictly")));
        }
        for &column in columns {
            let slot = usize::try_from(column).ok().and_then(|column| slots.get_mut(column));
            *slot.ok_or_else(|| {
                Invalid(format!("row {row} has column index {column}; there are {samples} samples"))
            })? = Some(0);
        }
    }
    let mut live = Vec::new();
    for (sample, slot) in (0u32..).zip(&mut slots).filter(|(_, slot)| slot.is_some()) {
        *slot = Some(live.len());
        live.push(sample);
    }
    let source = CsrRows { indptr, indices, data, slots: &slots, live: live.len() };
    Ok(encode(rows, samples, &live, &source, framed, compute).block())
}

/// The rows of a CSR matrix over its live columns.
struct CsrRows<'a> {
    indptr: &'a [i64],
    indices: &'a [i32],
    data: &'a [f32],
    /// The position of each column among the live ones.
    slots: &'a [Option<usize>],
    live: usize,
}

impl Rows for CsrRows<'_> {
    fn visit(&self, row: usize, scratch: &mut Vec<f32>, mut visit: impl FnMut(&[f32]) -> bool) {
        let range = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        scratch.clear();
        scratch.resize(self.live, 0.0);
        for (&column, &value) in self.indices[range.clone()].iter().zip(&self.data[range]) {
            if let Some(slot) = self.slots[column as usize] {
                scratch[slot] = value;
            }
        }
        visit(scratch);
    }
}

/// The CSR arrays (indptr, indices, data).
pub type Csr = (Vec<i64>, Vec<i32>, Vec<f32>);

impl Block<'_> {
    /// Returns the block as CSR, without stored zeros.
    pub fn csr(&self, path: Path) -> Result<Csr, BadBlock> {
        const LARGE: BadBlock = BadBlock("it is too large for 32-bit indices");
        let (rows, samples) = self.shape();
        i32::try_from(samples).map_err(|_| LARGE)?;
        let nonzeros = (0..rows).try_fold(0usize, |sum, row| sum.checked_add(self.nonzeros(row))).ok_or(LARGE)?;
        let (mut indptr, mut indices, mut data) = (with_room(rows + 1)?, with_room(nonzeros)?, with_room(nonzeros)?);
        indptr.push(0);
        let reader = self.reader(path);
        let mut values = filled(self.live().len(), 0.0)?;
        for row in 0..rows {
            let bitmap = reader.bitmap(row);
            reader.expand(bitmap, 0, reader.seek(row, bitmap, 0), &mut values);
            for (&sample, &value) in self.live().iter().zip(&values).filter(|(_, value)| value.to_bits() != 0) {
                indices.push(sample as i32);
                data.push(value);
            }
            indptr.push(data.len() as i64);
        }
        Ok((indptr, indices, data))
    }
}
