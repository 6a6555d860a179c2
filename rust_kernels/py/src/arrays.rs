//! Borrowing of NumPy arrays and bytes by the core's buffers.

use std::mem::MaybeUninit;
use std::sync::Arc;

use fsd_core::buffer::Buffer;
use fsd_core::serial::Order;
use numpy::ndarray::Dimension;
use numpy::npyffi::flags::{NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_ARRAY_WRITEABLE};
use numpy::{Element, PyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

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

/// Borrows bytes, or a contiguous read-only view of bytes, and keeps them alive.
pub fn borrow_bytes(object: &Bound<'_, PyAny>) -> PyResult<Buffer<u8>> {
    let bytes = PyBuffer::<u8>::get(object)?;
    if !bytes.readonly() || !bytes.is_c_contiguous() {
        return Err(PyValueError::new_err("the bytes must be contiguous and read-only; copy them first"));
    }
    if bytes.len_bytes() == 0 {
        return Ok(Vec::new().into());
    }
    // SAFETY: there are so many bytes, which stay where they are until the buffer is released.
    let slice = unsafe { std::slice::from_raw_parts(bytes.buf_ptr().cast::<u8>(), bytes.len_bytes()) };
    // SAFETY: the owner is that buffer; whoever made a read-only view for this module promises not to write to its memory.
    Ok(unsafe { Buffer::borrowed(slice, Arc::new(bytes)) })
}

/// Returns new bytes, all of which `fill` writes without the GIL.
pub fn new_bytes<'py>(
    py: Python<'py>,
    length: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: without a source Python makes an object of so many bytes, to which nothing else has a reference yet.
    unsafe {
        let made = ffi::PyBytes_FromStringAndSize(std::ptr::null(), isize::try_from(length)?);
        let bytes = Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked::<PyBytes>();
        let place = std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(made).cast::<MaybeUninit<u8>>(), length);
        py.detach(|| fill(place));
        Ok(bytes)
    }
}

fn flags<T: Element, D: Dimension>(array: &Bound<'_, PyArray<T, D>>) -> i32 {
    // SAFETY: flags are a field of every NumPy array.
    unsafe { (*array.as_array_ptr()).fields.flags }
}
