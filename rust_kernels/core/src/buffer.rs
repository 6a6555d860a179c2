//! Shared immutable arrays, either owned or borrowed from an owner that they keep alive.

use std::any::Any;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// An immutable slice together with its owner, which it keeps alive; clones share both.
#[derive(Clone)]
pub struct Buffer<T> {
    slice: NonNull<[T]>,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the slice is never written through a buffer, and its owner is Send + Sync.
unsafe impl<T: Send + Sync> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Buffer<T> {}

impl<T> Buffer<T> {
    /// Wraps a slice that lives as long as `owner`.
    ///
    /// # Safety
    /// Until `owner` is dropped the memory of `slice` must stay where it is and must not be written.
    pub unsafe fn borrowed(slice: &[T], owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { slice: NonNull::from(slice), _owner: owner }
    }
}

impl<T> Buffer<T> {
    /// Returns a part of the slice, with the same owner.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn part(&self, range: Range<usize>) -> Self {
        Self { slice: NonNull::from(&self[range]), _owner: self._owner.clone() }
    }
}

impl<T: Send + Sync + 'static> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        let owner = Arc::new(values);
        let slice = NonNull::from(owner.as_slice());
        Self { slice, _owner: owner }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the owner keeps the slice alive and unchanged (`From<Vec>`, or promised to `borrowed`).
        unsafe { self.slice.as_ref() }
    }
}
