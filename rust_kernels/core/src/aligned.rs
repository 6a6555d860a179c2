//! A zero-initialized float buffer that is aligned to cache lines.

use std::ops::{Deref, DerefMut};

use crate::errors::NoMemory;
use crate::memory::zeros;

pub(crate) const LINE: usize = 64;

/// Floats that start at a cache line and are initially zero.
///
/// They lie within a plain vector that is one line longer. Before 2.38, glibc does not reuse freed memory that was
/// allocated with an alignment: a rank would grow by one panel per layer.
pub(crate) struct Aligned {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn zeroed(len: usize) -> Result<Self, NoMemory> {
        let spare = LINE / size_of::<f32>() - 1;
        let data = zeros(len.checked_add(spare).ok_or(NoMemory)?)?;
        let start = data.as_ptr().align_offset(LINE);
        Ok(Self { data, start, len })
    }

    pub fn copied(values: &[f32]) -> Result<Self, NoMemory> {
        let mut copy = Self::zeroed(values.len())?;
        copy.copy_from_slice(values);
        Ok(copy)
    }
}

impl Aligned {
    /// Returns the same memory for another number of floats, whose values are arbitrary; `None` if it has not enough room,
    /// or more than twice as much.
    pub fn resized(mut self, len: usize) -> Option<Self> {
        let room = self.data.len() - self.start;
        self.len = len;
        (len <= room && room / 2 <= len).then_some(self)
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_a_line_and_is_zero_and_a_copy_is_equal() {
        for len in (0..70).chain([1000, 1 << 20]) {
            let mut one = Aligned::zeroed(len).unwrap();
            assert_eq!(one.len(), len);
            assert_eq!(one.as_ptr() as usize % LINE, 0);
            assert!(one.iter().all(|&value| value == 0.0));
            one.iter_mut().enumerate().for_each(|(index, value)| *value = index as f32);
            let copy = Aligned::copied(&one).unwrap();
            assert_eq!(copy[..], one[..]);
            assert_eq!(copy.as_ptr() as usize % LINE, 0);
        }
    }

    #[test]
    fn more_floats_than_there_is_memory_for_are_an_error() {
        for len in [1 << 58, usize::MAX - 20, usize::MAX] {
            assert!(std::hint::black_box(Aligned::zeroed(len)).is_err());
        }
    }

    #[test]
    fn memory_that_is_too_small_or_much_too_large_is_not_used_for_other_floats() {
        let length = |len| Aligned::zeroed(1000).unwrap().resized(len).map(|floats| floats.len());
        assert_eq!([length(1000), length(600)], [Some(1000), Some(600)]);
        assert_eq!([length(1100), length(400)], [None, None]);
    }
}
