//! Lists whose sizes come from files, messages or arguments: a lack of memory is an error, where a plain list would end
//! the process.

use std::alloc::{Layout, alloc_zeroed};

use crate::errors::NoMemory;

/// Returns an empty list with room for `count` items.
pub(crate) fn with_room<T>(count: usize) -> Result<Vec<T>, NoMemory> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| NoMemory)?;
    Ok(list)
}

/// Returns a list of one value.
pub(crate) fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>, NoMemory> {
    let mut list = with_room(count)?;
    list.resize(count, value);
    Ok(list)
}

/// Returns a copy of a list.
pub(crate) fn copied<T: Copy>(items: &[T]) -> Result<Vec<T>, NoMemory> {
    let mut list = with_room(items.len())?;
    list.extend_from_slice(items);
    Ok(list)
}

/// Returns a list of items, of which the iterator knows the exact number.
pub(crate) fn collected<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, NoMemory> {
    let mut list = with_room(items.len())?;
    list.extend(items);
    Ok(list)
}

/// Returns a list of floats that are 0, of which the system may hand out pages only once they are written.
pub(crate) fn zeros(count: usize) -> Result<Vec<f32>, NoMemory> {
    let layout = Layout::array::<f32>(count).map_err(|_| NoMemory)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout is that of a list of so many floats, and not empty.
    let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
    if start.is_null() {
        return Err(NoMemory);
    }
    // SAFETY: the allocator of lists allocated it with their layout, and zero bits are the float 0.
    Ok(unsafe { Vec::from_raw_parts(start, count, count) })
}

#[cfg(test)]
mod tests {
    use std::hint::black_box; // an allocation that is not used is left out

    use super::*;

    #[test]
    fn more_than_there_is_is_an_error_and_everything_else_a_list() {
        let huge = 1 << 60;
        assert_eq!(with_room::<u8>(huge).err(), Some(NoMemory));
        assert_eq!(filled(huge, 1_u8).err(), Some(NoMemory));
        assert_eq!(collected((0..huge).map(|_| 1_u8).rev()).err(), Some(NoMemory));
        let too_many = [huge, usize::MAX].map(|count| black_box(zeros(count)).err());
        assert_eq!(too_many, [Some(NoMemory); 2]);
        assert_eq!(filled(2, 7).unwrap(), [7, 7]);
        assert_eq!(copied(&[1, 2]).unwrap(), [1, 2]);
        assert_eq!(collected(0..3).unwrap(), [0, 1, 2]);
        assert_eq!([zeros(0).unwrap(), zeros(3).unwrap()], [vec![], vec![0.0; 3]]);
    }
}
