//! The errors of layers and batches.

use thiserror::Error;

/// An invalid argument; the message says which one and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// There is less memory than files, messages or arguments ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("it takes more memory than there is")]
pub struct NoMemory;

/// Why a layer or a batch cannot be made of arrays or bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Memory(#[from] NoMemory),
}

/// A neuron is not finite, before or after its activation; `row` is the lowest such row, in the layer's own numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("row {row} is not finite")]
pub struct NonFinite {
    pub row: usize,
}
