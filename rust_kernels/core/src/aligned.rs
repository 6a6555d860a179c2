//! A zero-initialized float buffer that is aligned to cache lines.

use std::ops::{Deref, DerefMut};

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
    pub fn zeroed(len: usize) -> Self {
        let spare = LINE / size_of::<f32>() - 1;
        let data = vec![0.0; len.checked_add(spare).expect("more activations than an address can name")];
        let start = data.as_ptr().align_offset(LINE);
        Self { data, start, len }
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

impl Clone for Aligned {
    fn clone(&self) -> Self {
        Self::from(&self[..])
    }
}

impl From<&[f32]> for Aligned {
    fn from(values: &[f32]) -> Self {
        let mut copy = Self::zeroed(values.len());
        copy.copy_from_slice(values);
        copy
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
            let mut one = Aligned::zeroed(len);
            assert_eq!(one.len(), len);
            assert_eq!(one.as_ptr() as usize % LINE, 0);
            assert!(one.iter().all(|&value| value == 0.0));
            one.iter_mut().enumerate().for_each(|(index, value)| *value = index as f32);
            let copy = one.clone();
            assert_eq!(copy[..], one[..]);
            assert_eq!(copy.as_ptr() as usize % LINE, 0);
        }
    }

    #[test]
    fn memory_that_is_too_small_or_much_too_large_is_not_used_for_other_floats() {
        let length = |len| Aligned::zeroed(1000).resized(len).map(|floats| floats.len());
        assert_eq!([length(1000), length(600)], [Some(1000), Some(600)]);
        assert_eq!([length(1100), length(400)], [None, None]);
    }
}
