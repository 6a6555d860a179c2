//! The inference kernels: products of sparse layers and panels of activations, bit-identical for every kernel path,
//! thread count and panel width; the codec, frames and inbox that carry activations between ranks; and the state of
//! one rank in a run.

pub mod activation;
pub mod activations;
mod aligned;
mod blocks;
pub mod buffer;
pub mod codec;
pub mod compute;
pub mod csr;
pub mod digest;
mod elementary;
pub mod errors;
pub mod frame;
pub mod inbox;
pub mod isa;
pub mod layer;
mod lazy;
mod memory;
pub mod outbox;
pub mod rank;
pub mod serial;
mod shape;
pub mod shard;
mod slices;
pub mod spill;
pub mod spmm;
mod unpack;
mod varint;
