//! Layouts of a layer that are made once they have been of use often enough.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A second layout of a layer, if it has any yet, and how often it would have been of use.
pub(crate) struct Lazy<T> {
    uses: AtomicUsize,
    made: OnceLock<Option<T>>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { uses: AtomicUsize::new(0), made: OnceLock::new() }
    }
}

impl<T> Lazy<T> {
    /// Counts uses; once there were `enough`, makes the layout, or None if the layer is better off without it.
    pub fn count(&self, uses: usize, enough: usize, make: impl FnOnce() -> Option<T>) {
        if self.made.get().is_none() && self.uses.fetch_add(uses, Ordering::Relaxed).saturating_add(uses) >= enough {
            self.make(make);
        }
    }

    /// Makes the layout, unless it was made before.
    pub fn make(&self, make: impl FnOnce() -> Option<T>) {
        self.made.get_or_init(make);
    }

    pub fn get(&self) -> Option<&T> {
        self.made.get()?.as_ref()
    }
}
