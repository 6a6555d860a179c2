//! Sparse weights in CSR format, validated once so that kernels can skip bounds checks.

use crate::buffer::Buffer;
use crate::errors::Invalid;

/// Column indices, stored in 16 bits if the number of columns allows it.
#[derive(Clone)]
pub enum Indices {
    U16(Buffer<u16>),
    U32(Buffer<u32>),
}

impl Indices {
    pub fn len(&self) -> usize {
        match self {
            Self::U16(indices) => indices.len(),
            Self::U32(indices) => indices.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A stored column index.
pub trait Index: Copy + Send + Sync + 'static {
    fn get(self) -> usize;
}

impl Index for u16 {
    #[inline(always)]
    fn get(self) -> usize {
        usize::from(self)
    }
}

impl Index for u32 {
    #[inline(always)]
    fn get(self) -> usize {
        self as usize
    }
}

/// A sparse matrix, rows x columns: `indptr` starts at 0, never decreases, and ends at the number of connections;
/// column indices ascend strictly within a row; values are finite, one per connection or one for all.
#[derive(Clone)]
pub struct Csr {
    columns: usize,
    indptr: Buffer<i64>,
    indices: Indices,
    values: Buffer<f32>,
}

impl Csr {
    pub fn new(indptr: Buffer<i64>, indices: Indices, values: Buffer<f32>, columns: usize) -> Result<Self, Invalid> {
        check_indptr(&indptr, indices.len())?;
        if u32::try_from(columns).is_err() {
            return Err(Invalid(format!("{columns} columns are more than 32-bit indices can name")));
        }
        match &indices {
            Indices::U16(indices) => check_columns(&indptr, indices, columns)?,
            Indices::U32(indices) => check_columns(&indptr, indices, columns)?,
        }
        if values.len() != indices.len() && values.len() != 1 {
            return Err(Invalid(format!(
                "{} values for {} connections; give one a connection, or one for all",
                values.len(),
                indices.len()
            )));
        }
        check_finite("value", &values)?;
        Ok(Self { columns, indptr, indices, values })
    }

    pub fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn connections(&self) -> usize {
        self.indices.len()
    }

    pub fn indptr(&self) -> &[i64] {
        &self.indptr
    }

    pub fn indices(&self) -> &Indices {
        &self.indices
    }

    /// Returns one value per connection, or exactly one for all.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns whether most rows have as many connections as the row before.
    pub(crate) fn is_regular(&self) -> bool {
        let changes = self.indptr.windows(3).filter(|ends| ends[1] - ends[0] != ends[2] - ends[1]).count();
        2 * changes <= self.rows()
    }

    /// Returns whether one stored value is the weight of all connections.
    pub fn one_value(&self) -> bool {
        self.values.len() == 1
    }
}

/// Checks that `indptr` starts at 0, never decreases, and ends at `connections`.
pub(crate) fn check_indptr(indptr: &[i64], connections: usize) -> Result<(), Invalid> {
    let (Some(&first), Some(&last)) = (indptr.first(), indptr.last()) else {
        return Err(Invalid("indptr is empty; it has one entry more than there are rows".into()));
    };
    if first != 0 || usize::try_from(last) != Ok(connections) {
        return Err(Invalid(format!("indptr runs from {first} to {last}; it must run from 0 to {connections}")));
    }
    match indptr.windows(2).position(|pair| pair[0] > pair[1]) {
        Some(row) => Err(Invalid(format!("indptr falls at row {row}: from {} to {}", indptr[row], indptr[row + 1]))),
        None => Ok(()),
    }
}

fn check_columns<I: Index>(indptr: &[i64], indices: &[I], columns: usize) -> Result<(), Invalid> {
    for (row, ends) in indptr.windows(2).enumerate() {
        let row_indices = &indices[ends[0] as usize..ends[1] as usize];
        if let Some(pair) = row_indices.windows(2).find(|pair| pair[0].get() >= pair[1].get()) {
            return Err(Invalid(format!(
                "the column indices of row {row} must ascend strictly: {} is followed by {}",
                pair[0].get(),
                pair[1].get()
            )));
        }
        // The indices ascend, so the last one is the largest.
        if let Some(last) = row_indices.last().filter(|last| last.get() >= columns) {
            return Err(Invalid(format!("row {row} has column index {}; there are {columns} columns", last.get())));
        }
    }
    Ok(())
}

pub(crate) fn check_finite(what: &str, values: &[f32]) -> Result<(), Invalid> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Invalid(format!("{what} {at} is {}; it must be finite", values[at]))),
        None => Ok(()),
    }
}
