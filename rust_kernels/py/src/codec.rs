//! The functions with which Python encodes and decodes blocks and builds control frames.

use fsd_core::codec::{self, BadBlock, Block, Framed, Wire};
use fsd_core::compute::Compute;
use fsd_core::frame::{self, Attempt, Header, Kind};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::new_bytes;

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(encode_block, m)?)?;
    m.add_function(wrap_pyfunction!(decode_block, m)?)?;
    m.add_function(wrap_pyfunction!(block_shape, m)?)?;
    m.add_function(wrap_pyfunction!(round_to_wire, m)?)?;
    m.add_function(wrap_pyfunction!(seal, m)?)
}

fn invalid(message: impl ToString) -> PyErr {
    PyValueError::new_err(message.to_string())
}

/// Converts a run id or plan digest, which must have 16 bytes.
pub fn name16(what: &str, bytes: &[u8]) -> PyResult<[u8; 16]> {
    bytes.try_into().map_err(|_| invalid(format!("{what} has {} bytes; it must have 16", bytes.len())))
}

/// Converts the name of a number format.
pub fn named_wire(name: &str) -> PyResult<Wire> {
    let unknown = || invalid(format!("the wire format is \"{name}\"; it must be float32, bfloat16 or float16"));
    Wire::from_name(name).ok_or_else(unknown)
}

/// Return values rounded to a number format as those that ranks send; the format must hold them.
#[pyfunction]
fn round_to_wire<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, f32>,
    wire: &str,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (values, wire) = (values.as_slice()?, named_wire(wire)?);
    let rounded = py.detach(|| {
        let compute = Compute::new(1)?;
        let round = |_| {
            let mut out = vec![0.0; values.len()];
            wire.round(values, &mut out, compute.path());
            out
        };
        Ok(compute.map(1, round).remove(0))
    });
    Ok(rounded.map_err(|error: fsd_core::errors::Invalid| invalid(error))?.into_pyarray(py))
}

/// Encode a CSR matrix (rows x samples) as a block, losslessly: one that stands alone, or with `known`, numbered lists
/// of samples that all receivers have, as in frames.
#[pyfunction]
#[pyo3(signature = (indptr, indices, data, samples, known=None))]
fn encode_block<'py>(
    py: Python<'py>,
    indptr: PyReadonlyArray1<'py, i64>,
    indices: PyReadonlyArray1<'py, i32>,
    data: PyReadonlyArray1<'py, f32>,
    samples: usize,
    known: Option<Vec<(u32, PyReadonlyArray1<'py, u32>)>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let list = |(number, list): &'_ (u32, PyReadonlyArray1<'py, u32>)| Ok((*number, list.as_slice()?.to_vec()));
    let lists = known.map(|known| known.iter().map(list).collect::<PyResult<Vec<_>>>()).transpose()?;
    let known: Option<Vec<_>> = lists.as_ref().map(|lists| lists.iter().map(|(n, list)| (*n, &list[..])).collect());
    let framed = known.as_ref().map(|known| Framed { known, fast: false });
    let (indptr, indices, data) = (indptr.as_slice()?, indices.as_slice()?, data.as_slice()?);
    let block = py.detach(|| codec::encode_csr(indptr, indices, data, samples, framed, &Compute::new(1)?));
    Ok(PyBytes::new(py, &block.map_err(invalid)?))
}

type Csr<'py> = (usize, usize, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>);

fn bad_block(error: BadBlock) -> PyErr {
    if error == BadBlock::MEMORY { PyMemoryError::new_err(error.to_string()) } else { invalid(error) }
}

/// Decode a block into (rows, samples, indptr, indices, data) in CSR format; an invalid block raises ValueError, one that
/// takes more memory than there is MemoryError.
#[pyfunction]
fn decode_block<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Csr<'py>> {
    let unpacked = py.detach(|| {
        let compute = Compute::new(1).map_err(invalid)?;
        let block = Block::decode_any(payload, &compute).map_err(bad_block)?;
        let (indptr, indices, data) = block.csr(compute.path()).map_err(bad_block)?;
        Ok::<_, PyErr>((block.shape(), indptr, indices, data))
    });
    let ((rows, samples), indptr, indices, data) = unpacked?;
    Ok((rows, samples, indptr.into_pyarray(py), indices.into_pyarray(py), data.into_pyarray(py)))
}

/// Return the numbers of rows and samples that a block that stands alone claims to have.
#[pyfunction]
fn block_shape(payload: &[u8]) -> PyResult<(usize, usize)> {
    Block::claimed_shape(payload).map_err(bad_block)
}

/// Build a control frame (gather or abort) that carries part `part` of `parts`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one parameter for each field of the header")]
fn seal<'py>(
    py: Python<'py>,
    run: &[u8],
    attempt: u32,
    plan: &[u8],
    source: u16,
    kind: u32,
    layer: u16,
    targets: Vec<u16>,
    part: u16,
    parts: u16,
    payload: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let kind = Kind::from_number(kind).filter(|kind| *kind != Kind::Data);
    let kind = kind.ok_or_else(|| invalid("only control frames (1 to 3) are made here"))?;
    if part >= parts {
        return Err(invalid(format!("there is no part {part} of {parts}; parts are counted from 0")));
    }
    let attempt = Attempt::new(name16("run", run)?, attempt, name16("plan", plan)?);
    let header = Header { kind, attempt, layer, micro_batch: 0, source, edge: 0, part, parts };
    let length = frame::overhead(&header, &targets) + payload.len();
    new_bytes(py, length, |to| frame::write(&header, &targets, &[payload], to))
}
