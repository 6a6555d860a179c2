//! Fuzz targets for everything in Rust that reads bytes from elsewhere. A target takes any bytes and panics if what reads
//! them breaks a promise: an error instead of a panic, memory in proportion to what was read, the same values on all
//! kernel paths.
//!
//! `cargo fuzz run TARGET` lets libFuzzer search for such bytes; `tests/corpus.rs` tries the stored ones.

pub mod answers;
pub mod block;
pub mod frame;
pub mod inbox;
mod input;
pub mod memory;
pub mod packed;
pub mod rank;
pub mod restore;
pub mod seeds;
pub mod weights;

/// A target: its name, and what tries an input and returns whether it is valid.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets, by the names of their binaries and of the folders of their corpus.
pub const TARGETS: [Target; 8] = [
    ("answers", answers::run),
    ("block", block::run),
    ("frame", frame::run),
    ("inbox", inbox::run),
    ("packed", packed::run),
    ("rank", rank::run),
    ("restore", restore::run),
    ("weights", weights::run),
];
