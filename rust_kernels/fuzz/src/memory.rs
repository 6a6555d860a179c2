//! An allocator that counts, to hold that what a few bytes claim takes no more memory than it may.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that this thread has allocated and not released, and the most of them since the last reset.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: all memory is the system's; counting changes none of it and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Runs `work` on this thread.
///
/// # Panics
/// If it takes more than `most` bytes at any time, beyond those that were there before.
pub fn bounded<R>(most: usize, work: impl FnOnce() -> R) -> R {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    let taken = (PEAK.get() - before) as usize;
    assert!(taken <= most, "{taken} bytes were taken where {most} are allowed");
    result
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn memory_is_counted_while_it_is_held() {
        assert_eq!(bounded(1000, || vec![1_u8; 1000].len()), 1000);
        bounded(1000, || (0..10).for_each(|_| drop(vec![1_u8; 900])));
        let both = || (vec![1_u8; 600], vec![1_u8; 600]);
        assert!(std::panic::catch_unwind(|| bounded(1000, both)).is_err());
    }
}
