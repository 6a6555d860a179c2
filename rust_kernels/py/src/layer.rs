//! The class `LayerKernel`, and the functions that report kernel paths.

use std::sync::Arc;

use fsd_core::activation::Activation;
use fsd_core::csr::{Csr, Indices};
use fsd_core::errors::{Invalid, LoadError, NoMemory};
use fsd_core::isa::{FloatState, Path};
use fsd_core::layer::{Group, Layer, Reduce};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyArithmeticError, PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::arrays::borrow;

pyo3::create_exception!(
    fsd_inference._kernels,
    NonFiniteError,
    PyArithmeticError,
    "A neuron is not finite: args are (message, layer, local row)."
);

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("NonFiniteError", m.py().get_type::<NonFiniteError>())?;
    m.add_function(wrap_pyfunction!(simd_path, m)?)?;
    m.add_function(wrap_pyfunction!(simd_paths, m)?)?;
    m.add_function(wrap_pyfunction!(activate, m)?)?;
    m.add_class::<LayerKernel>()
}

pub fn value_error(error: Invalid) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub fn memory_error(error: NoMemory) -> PyErr {
    PyMemoryError::new_err(error.to_string())
}

pub fn load_error(error: LoadError) -> PyErr {
    match error {
        LoadError::Invalid(error) => value_error(error),
        LoadError::Memory(error) => memory_error(error),
    }
}

pub fn non_finite(layer: usize, row: usize) -> PyErr {
    let message = format!("layer {layer}: row {row} is not finite");
    NonFiniteError::new_err((message, layer, row))
}

/// Return the kernel path in use; FSD_KERNEL forces one, and an unknown or unsupported one raises ValueError.
#[pyfunction]
fn simd_path() -> PyResult<&'static str> {
    Path::current().map(Path::name).map_err(value_error)
}

/// Return the names of the kernel paths that this processor supports.
#[pyfunction]
fn simd_paths() -> Vec<&'static str> {
    Path::available().into_iter().map(Path::name).collect()
}

/// Return the activations of pre-activations on a kernel path, the one in use by default.
#[pyfunction]
#[pyo3(signature = (kind, parameters, values, slope=0.0, path=None))]
fn activate<'py>(
    py: Python<'py>,
    kind: &str,
    parameters: Vec<f32>,
    values: PyReadonlyArray1<'py, f32>,
    slope: f32,
    path: Option<&str>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let activation = Activation::named(kind, &parameters).map_err(value_error)?;
    let path = path.map_or_else(Path::current, str::parse).map_err(value_error)?;
    if !path.supported() {
        return Err(PyValueError::new_err(format!("this processor does not support the kernel path {path}")));
    }
    let mut values = values.as_array().to_vec();
    let _state = FloatState::standard();
    activation.apply(&mut values, slope, path);
    Ok(PyArray1::from_vec(py, values))
}

/// Consecutive rows of a layer: their number, "sum" or "max", and name and parameters of their activation.
type RowGroup = (usize, String, String, Vec<f32>);

fn group((rows, reduce, kind, parameters): RowGroup) -> Result<Group, Invalid> {
    let reduce = match reduce.as_str() {
        "sum" => Reduce::Sum,
        "max" => Reduce::Max,
        other => return Err(Invalid(format!("rows reduce by sum or max, not \"{other}\""))),
    };
    Ok(Group { rows, reduce, activation: Activation::named(&kind, &parameters)? })
}

/// One layer's weights (rows x columns, CSR), bias and activations, validated; NumPy buffers are borrowed.
#[pyclass(frozen, module = "fsd_inference._kernels")]
pub struct LayerKernel {
    pub layer: Arc<Layer>,
}

#[derive(FromPyObject)]
enum ColumnIndices<'py> {
    U16(Bound<'py, PyArray1<u16>>),
    U32(Bound<'py, PyArray1<u32>>),
}

#[pymethods]
impl LayerKernel {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "one parameter for each part of a layer")]
    fn new(
        py: Python<'_>,
        indptr: Bound<'_, PyArray1<i64>>,
        indices: ColumnIndices<'_>,
        values: Bound<'_, PyArray1<f32>>,
        columns: usize,
        bias: Bound<'_, PyArray1<f32>>,
        groups: Vec<RowGroup>,
        slopes: Bound<'_, PyArray1<f32>>,
        zero_preserving: bool,
    ) -> PyResult<Self> {
        let groups = groups.into_iter().map(group).collect::<Result<Vec<_>, _>>().map_err(value_error)?;
        let indptr = borrow("indptr", &indptr)?;
        let indices = match indices {
            ColumnIndices::U16(indices) => Indices::U16(borrow("indices", &indices)?),
            ColumnIndices::U32(indices) => Indices::U32(borrow("indices", &indices)?),
        };
        let values = borrow("values", &values)?;
        let bias = borrow("bias", &bias)?;
        let slopes = borrow("slopes", &slopes)?;
        let layer = py.detach(|| {
            let weights = Csr::new(indptr, indices, values, columns)?;
            Layer::new(weights, bias, slopes, groups, zero_preserving)
        });
        Ok(Self { layer: Arc::new(layer.map_err(value_error)?) })
    }

    #[getter]
    fn rows(&self) -> usize {
        self.layer.rows()
    }

    #[getter]
    fn columns(&self) -> usize {
        self.layer.columns()
    }

    #[getter]
    fn connections(&self) -> usize {
        self.layer.weights().connections()
    }
}
