//! The class `SerialState`: serial inference of one batch in this process.

use std::sync::{Arc, Mutex, PoisonError};

use fsd_core::compute::Compute;
use fsd_core::layer::Layer;
use fsd_core::serial::{ApplyError, Dense, Part, Samples, Serial};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::{borrow_bytes, borrow_matrix, borrow_or_copy};
use crate::layer::{LayerKernel, load_error, memory_error, non_finite, value_error};

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<SerialState>()
}

type Array<'py, T> = Bound<'py, PyArray1<T>>;

/// The activations of one batch, to which layers are applied in this process.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct SerialState {
    serial: Mutex<Serial>,
}

impl SerialState {
    /// Runs `work` on the state without the GIL; concurrent calls are serialized.
    fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Serial) -> R + Send) -> R {
        py.detach(|| work(&mut self.serial.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl SerialState {
    #[new]
    fn new(
        py: Python<'_>,
        indptr: Array<'_, i64>,
        indices: Array<'_, i32>,
        data: Array<'_, f32>,
        features: usize,
        threads: usize,
    ) -> PyResult<Self> {
        let (indptr, indices, data) = (borrow_or_copy(&indptr)?, borrow_or_copy(&indices)?, borrow_or_copy(&data)?);
        let serial = py.detach(|| {
            let input = Samples::new(indptr, indices, data, features)?;
            Ok(Serial::csr(input, Compute::new(threads)?))
        });
        Ok(Self { serial: Mutex::new(serial.map_err(value_error)?) })
    }

    /// Load a dense batch, samples x features, in C or Fortran order.
    #[staticmethod]
    fn from_dense(py: Python<'_>, x: Bound<'_, PyArray2<f32>>, threads: usize) -> PyResult<Self> {
        let (values, shape, order) = borrow_matrix("the array", &x)?;
        let serial = py.detach(|| {
            let compute = Compute::new(threads)?;
            Ok(Serial::dense(Dense::new(values, shape, order, &compute)?, compute))
        });
        Ok(Self { serial: Mutex::new(serial.map_err(load_error)?) })
    }

    /// Load a batch from blocks of some neurons each: (block, first sample, end of the samples, neurons of its rows).
    #[staticmethod]
    fn from_blocks(
        py: Python<'_>,
        samples: usize,
        neurons: usize,
        parts: Vec<(Bound<'_, PyAny>, usize, usize, PyReadonlyArray1<'_, u32>)>,
        threads: usize,
    ) -> PyResult<Self> {
        let borrow = |(block, first, end, rows): &(Bound<'_, PyAny>, usize, usize, PyReadonlyArray1<'_, u32>)| {
            Ok((borrow_bytes(block)?, *first..*end, rows.as_slice()?.to_vec()))
        };
        let borrowed = parts.iter().map(borrow).collect::<PyResult<Vec<_>>>()?;
        let serial = py.detach(|| {
            let parts =
                borrowed.iter().map(|(block, samples, neurons)| Part { block, samples: samples.clone(), neurons });
            Serial::unpacked(samples, neurons, &parts.collect::<Vec<_>>(), Compute::new(threads)?)
        });
        Ok(Self { serial: Mutex::new(serial.map_err(load_error)?) })
    }

    #[getter]
    fn samples(&self, py: Python<'_>) -> usize {
        self.with(py, |serial| serial.samples())
    }

    #[getter]
    fn neurons(&self, py: Python<'_>) -> usize {
        self.with(py, |serial| serial.neurons())
    }

    /// Have digests taken of the batch, whose first sample has the number `first_sample`, and of all layers.
    fn keep_digests(&self, py: Python<'_>, first_sample: u32) -> PyResult<()> {
        self.with(py, |serial| serial.keep_digests(first_sample.into())).map_err(load_error)
    }

    /// Return the digests of the batch and of each layer that was applied; none if they are not kept.
    fn digests(&self, py: Python<'_>) -> Vec<u64> {
        self.with(py, |serial| serial.digests())
    }

    /// Apply consecutive layers to the batch. NonFiniteError counts layers from the first one ever applied.
    fn apply(&self, py: Python<'_>, layers: Vec<PyRef<'_, LayerKernel>>) -> PyResult<()> {
        let layers: Vec<Arc<Layer>> = layers.iter().map(|kernel| kernel.layer.clone()).collect();
        let result = self.with(py, |serial| {
            let layers: Vec<&Layer> = layers.iter().map(AsRef::as_ref).collect();
            serial.apply(&layers)
        });
        result.map_err(|error| match error {
            ApplyError::Invalid(error) => value_error(error),
            ApplyError::Overflow(error) => non_finite(error.layer, error.row),
            ApplyError::Memory(error) => memory_error(error),
        })
    }

    /// Return the activations as CSR arrays (indptr, indices, data), samples x neurons, without stored zeros.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<(Array<'py, i64>, Array<'py, i32>, Array<'py, f32>)> {
        let (indptr, indices, data) = self.with(py, |serial| serial.result()).map_err(memory_error)?;
        Ok((indptr.into_pyarray(py), indices.into_pyarray(py), data.into_pyarray(py)))
    }

    /// Return the number of activations that are not zero.
    fn non_zeros(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |serial| serial.non_zeros()).map_err(memory_error)
    }

    /// Write the activations to a C-contiguous array, samples x neurons.
    fn write(&self, py: Python<'_>, out: Bound<'_, PyArray2<f32>>) -> PyResult<()> {
        if !out.is_c_contiguous() {
            return Err(PyValueError::new_err("the array for the activations is not C-contiguous"));
        }
        let mut array = out.try_readwrite()?;
        let shape = out.dims();
        let out = array.as_slice_mut()?;
        self.with(py, |serial| {
            if (shape[0], shape[1]) != (serial.samples(), serial.neurons()) {
                let (samples, neurons) = (serial.samples(), serial.neurons());
                return Err(PyValueError::new_err(format!(
                    "the activations are {samples} x {neurons}, the array is {} x {}",
                    shape[0], shape[1]
                )));
            }
            serial.write(out).map_err(memory_error)
        })
    }

    /// Return the activations of consecutive samples as blocks, one for every `count` neurons.
    fn blocks<'py>(
        &self,
        py: Python<'py>,
        first: usize,
        end: usize,
        count: usize,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let blocks = self.with(py, |serial| {
            let samples = serial.samples();
            if first > end || end > samples || count == 0 {
                let message =
                    format!("{count} neurons of samples {first} to {end} cannot be cut from {samples} samples");
                return Err(PyValueError::new_err(message));
            }
            serial.blocks(first..end, count).map_err(memory_error)
        });
        Ok(blocks?.iter().map(|block| PyBytes::new(py, block)).collect())
    }

    /// Return, for each sample, its largest activation and the lowest neuron that has it.
    fn reduce<'py>(&self, py: Python<'py>) -> PyResult<(Array<'py, f32>, Array<'py, i32>)> {
        let (best, neuron) = self.with(py, |serial| serial.reduce()).map_err(memory_error)?;
        Ok((best.into_pyarray(py), neuron.into_pyarray(py)))
    }
}
