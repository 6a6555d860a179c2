//! Sparse layers over panels of samples, bit-identical on every path, thread count and panel width; their packing,
//! framing and judging on the way between ranks; and what one rank of a run holds.

pub mod activations;
mod aligned;
pub mod buffer;
pub mod codec;
pub mod compute;
pub mod csr;
pub mod errors;
pub mod frame;
pub mod inbox;
pub mod isa;
pub mod layer;
pub mod rank;
pub mod serial;
pub mod shard;
pub mod spill;
pub mod spmm;
mod unpack;
mod varint;
