//! What can go wrong in a layer or a batch.

use thiserror::Error;

/// What was handed in cannot be used; the sentence says what and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A pre-activation is not finite; the lowest such row of the layer, as the layer numbers its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
#[error("the pre-activation of row {row} is not finite")]
pub struct NonFinite {
    pub row: usize,
}
