//! The frames of one step of a rank, before they are written.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::codec::Packed;
use crate::frame::{self, Header};

/// The packed rows of a step, as the frames that carry them, in the order of edges.
pub struct Outbox<'a> {
    edges: Vec<(&'a [u16], Packed)>,
    /// The header of each frame, and what it carries of its edge's block.
    frames: Vec<(Header, Range<usize>)>,
}

impl<'a> Outbox<'a> {
    pub(crate) fn new(edges: Vec<(&'a [u16], Packed)>, frames: Vec<(Header, Range<usize>)>) -> Self {
        Self { edges, frames }
    }

    /// Returns the number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the targets of a frame.
    pub fn targets(&self, index: usize) -> &[u16] {
        self.edges[self.frames[index].0.edge as usize].0
    }

    /// Returns the size of a frame in bytes.
    pub fn bytes(&self, index: usize) -> usize {
        frame::overhead(self.targets(index).len()) + self.frames[index].1.len()
    }

    /// Writes a frame to all bytes of `to`.
    ///
    /// # Panics
    /// If `to` is not as long as the frame.
    pub fn write(&self, index: usize, to: &mut [MaybeUninit<u8>]) {
        let (header, range) = &self.frames[index];
        let (targets, packed) = &self.edges[header.edge as usize];
        frame::write(header, targets, &packed.parts(range.clone()), to);
    }
}
