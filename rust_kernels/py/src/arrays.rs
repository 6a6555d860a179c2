//! Borrowing of NumPy arrays by the core's buffers.

use std::sync::Arc;

use fsd_core::buffer::Buffer;
use fsd_core::serial::Order;
use numpy::ndarray::Dimension;
use numpy::npyffi::flags::{NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_ARRAY_WRITEABLE};
use numpy::{Element, PyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Borrows an array that is contiguous (in C or Fortran order) and not writeable, and keeps it alive.
pub fn borrow<T: Element + 'static, D: Dimension + 'static>(
    name: &str,
    array: &Bound<'_, PyArray<T, D>>,
) -> PyResult<Buffer<T>> {
    let flags = flags(array);
    if flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS) == 0 || flags & NPY_ARRAY_ALIGNED == 0 {
        return Err(PyValueError::new_err(format!("{name} is not contiguous and aligned; copy it first")));
    }
    if flags & NPY_ARRAY_WRITEABLE != 0 {
        return Err(PyValueError::new_err(format!("{name} is writeable; call {name}.setflags(write=False) first")));
    }
    let readonly = array.try_readonly()?;
    let slice = readonly.as_slice()?;
    // SAFETY: the owner holds a reference to the array, so its memory stays valid; it is not writeable, and the caller
    // who made it read-only for this module promises not to write to it through another array.
    Ok(unsafe { Buffer::borrowed(slice, Arc::new(array.clone().unbind())) })
}

/// Borrows an array like `borrow` if possible, and copies it otherwise.
pub fn borrow_or_copy<T: Element + Copy + 'static>(array: &Bound<'_, PyArray1<T>>) -> PyResult<Buffer<T>> {
    let lasting = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
    if flags(array) & (lasting | NPY_ARRAY_WRITEABLE) == lasting {
        return borrow("array", array);
    }
    Ok(array.try_readonly()?.as_array().iter().copied().collect::<Vec<T>>().into())
}

/// Borrows a matrix like `borrow`; returns it with its shape and order.
pub fn borrow_matrix(name: &str, array: &Bound<'_, PyArray2<f32>>) -> PyResult<(Buffer<f32>, (usize, usize), Order)> {
    let order = if array.is_c_contiguous() { Order::C } else { Order::Fortran };
    Ok((borrow(name, array)?, (array.dims()[0], array.dims()[1]), order))
}

fn flags<T: Element, D: Dimension>(array: &Bound<'_, PyArray<T, D>>) -> i32 {
    // SAFETY: flags are a field of every NumPy array.
    unsafe { (*array.as_array_ptr()).fields.flags }
}
