//! Sparse layers over panels of samples, bit-identical on every path, thread count and panel width.

pub mod activations;
mod aligned;
pub mod buffer;
pub mod compute;
pub mod csr;
pub mod errors;
pub mod isa;
pub mod layer;
pub mod spmm;
