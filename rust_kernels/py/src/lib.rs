//! The Python module `fsd_inference._kernels`: it borrows arrays, releases the GIL, calls the core and maps errors.

mod arrays;
mod codec;
mod layer;
mod rank;
mod serial;
mod services;

use pyo3::prelude::*;

#[pymodule]
fn _kernels(m: &Bound<'_, PyModule>) -> PyResult<()> {
    layer::register(m)?;
    serial::register(m)?;
    codec::register(m)?;
    rank::register(m)?;
    services::register(m)
}
