//! The errors of layers and batches.

use thiserror::Error;

/// An invalid argument; the message says which one and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A neuron is not finite, before or after its activation; `row` is the lowest such row, in the layer's own numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("row {row} is not finite")]
pub struct NonFinite {
    pub row: usize,
}
