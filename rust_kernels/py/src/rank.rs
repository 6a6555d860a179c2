//! The classes of one rank of a run: `Shard`, `ShardLayer`, `RankState` and `Accepted`.

use std::path::PathBuf;
use std::sync::Arc;

use fsd_core::compute::Compute;
use fsd_core::frame::Attempt;
use fsd_core::inbox::{Incoming, Status};
use fsd_core::rank::{Phase, Rank, RankError};
use fsd_core::shard::{self, Outgoing};
use fsd_core::spill::Budget;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyArithmeticError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::{borrow_bytes, new_bytes};
use crate::codec::{name16, named_wire};
use crate::layer::{LayerKernel, load_error, memory_error, non_finite, value_error};

pyo3::create_exception!(
    fsd_inference._kernels,
    WireRangeError,
    PyArithmeticError,
    "A value does not fit the number format in which it is sent: args are (message, layer, local row)."
);

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("WireRangeError", m.py().get_type::<WireRangeError>())?;
    m.add_class::<ShardLayer>()?;
    m.add_class::<Shard>()?;
    m.add_class::<Accepted>()?;
    m.add_class::<RankState>()
}

fn error(error: RankError) -> PyErr {
    match error {
        RankError::Invalid(error) => value_error(error),
        RankError::NonFinite { layer, row } => non_finite(layer, row),
        RankError::TooLarge { layer, row } => WireRangeError::new_err((error.to_string(), layer, row)),
        RankError::Order { .. } => PyRuntimeError::new_err(error.to_string()),
        RankError::Memory(error) => memory_error(error),
        RankError::Spill(_) => PyOSError::new_err(error.to_string()),
    }
}

/// Bytes of a body from which on it is kept where Python has it; smaller ones are copied, as returning them takes longer.
const KEPT: usize = 64 << 10;

type Array<'py, T> = Bound<'py, PyArray1<T>>;

/// Source rank, edge number and number of rows of each edge.
type Edges = Vec<(u16, u32, usize)>;

fn incoming(edges: Edges) -> Vec<Incoming> {
    edges.into_iter().map(|(source, edge, rows)| Incoming { source, edge, rows }).collect()
}

/// One rank's part of a layer, with the sources of its columns and the targets of its rows.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct ShardLayer {
    layer: Arc<shard::ShardLayer>,
}

#[pymethods]
impl ShardLayer {
    #[new]
    fn new(
        kernel: &LayerKernel,
        rows: PyReadonlyArray1<'_, u32>,
        column_source: PyReadonlyArray1<'_, u32>,
        column_row: PyReadonlyArray1<'_, u32>,
        receives: Edges,
        sends: Vec<(Vec<u16>, PyReadonlyArray1<'_, u32>)>,
    ) -> PyResult<Self> {
        let receives = incoming(receives);
        let send = |(targets, rows): (_, PyReadonlyArray1<'_, u32>)| -> PyResult<_> {
            Ok(Outgoing { targets, rows: rows.as_slice()?.to_vec() })
        };
        let sends = sends.into_iter().map(send).collect::<PyResult<_>>()?;
        let (source, row) = (column_source.as_slice()?, column_row.as_slice()?);
        let rows = rows.as_slice()?.to_vec();
        let layer = shard::ShardLayer::new(kernel.layer.clone(), rows, source, row, receives, sends);
        Ok(Self { layer: Arc::new(layer.map_err(load_error)?) })
    }
}

/// One rank's part of the network, to which layers are added in order; cached between runs.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct Shard {
    shard: Arc<shard::Shard>,
}

#[pymethods]
impl Shard {
    #[new]
    fn new(rank: usize, workers: usize, receives: Vec<Edges>) -> PyResult<Self> {
        let receives = receives.into_iter().map(incoming).collect();
        Ok(Self { shard: Arc::new(shard::Shard::new(rank, workers, receives).map_err(value_error)?) })
    }

    /// Add layer `index`, the next one.
    fn add(&self, index: usize, layer: &ShardLayer) -> PyResult<()> {
        self.shard.add(index, layer.layer.clone()).map_err(value_error)
    }

    /// Return the global neuron of a local row of a layer that was added.
    fn neuron(&self, layer: usize, row: usize) -> PyResult<u32> {
        let neuron = self.shard.layer(layer).and_then(|part| part.rows().get(row));
        neuron.copied().ok_or_else(|| PyValueError::new_err(format!("layer {layer} has no row {row}")))
    }
}

/// The inbox's classification of a body; header fields are None if the body could not be parsed.
#[pyclass(frozen, get_all, module = "fsd_inference._kernels")]
struct Accepted {
    status: &'static str,
    kind: Option<u32>,
    layer: Option<u16>,
    micro_batch: Option<u16>,
    source: Option<u16>,
    edge: Option<u32>,
    /// Whether this body was the last missing part of its edge in the step, or of its control message.
    complete: bool,
    /// The payload of a control message (gather or abort) that is now complete; data stays in Rust.
    payload: Option<Py<PyBytes>>,
}

/// One rank's inbox and activations in one attempt of a run. All methods release the GIL and are thread-safe.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct RankState {
    rank: Rank,
}

#[pymethods]
impl RankState {
    #[new]
    #[pyo3(signature = (shard, run, attempt, plan, samples, threads, spill_dir=None, spill_bytes=1 << 62, wire="float32"))]
    #[expect(clippy::too_many_arguments, reason = "all parameters of an attempt")]
    fn new(
        py: Python<'_>,
        shard: &Shard,
        run: &[u8],
        attempt: u32,
        plan: &[u8],
        samples: Vec<usize>,
        threads: usize,
        spill_dir: Option<PathBuf>,
        spill_bytes: u64,
        wire: &str,
    ) -> PyResult<Self> {
        let attempt = Attempt::new(name16("run", run)?, attempt, name16("plan", plan)?);
        let budget = Budget::new(spill_dir, spill_bytes);
        let wire = named_wire(wire)?;
        let rank = py.detach(|| Rank::new(shard.shard.clone(), attempt, samples, wire, Compute::new(threads)?, budget));
        Ok(Self { rank: rank.map_err(value_error)? })
    }

    /// Add input rows: features from `first_feature` x samples of the micro-batch, encoded by encode_block.
    fn put_input(&self, py: Python<'_>, micro_batch: usize, first_feature: usize, payload: &[u8]) -> PyResult<()> {
        py.detach(|| self.rank.put_input(micro_batch, first_feature, payload)).map_err(error)
    }

    /// Classify a body and keep it if it is new. Thread-safe; whatever read-only bytes are, only a lack of memory raises.
    fn accept(&self, py: Python<'_>, body: &Bound<'_, PyAny>) -> PyResult<Accepted> {
        let body = borrow_bytes(body)?;
        let accepted =
            py.detach(move || self.rank.accept(&if body.len() < KEPT { body.to_vec().into() } else { body }));
        let accepted = accepted.map_err(memory_error)?;
        let header = accepted.header.as_ref();
        Ok(Accepted {
            status: match accepted.status {
                Status::New => "new",
                Status::Duplicate => "duplicate",
                Status::Stale => "stale",
                Status::Foreign => "foreign",
                Status::Corrupt => "corrupt",
            },
            kind: header.map(|header| header.kind as u32),
            layer: header.map(|header| header.layer),
            micro_batch: header.map(|header| header.micro_batch),
            source: header.map(|header| header.source),
            edge: header.map(|header| header.edge),
            complete: accepted.is_complete,
            payload: accepted.payload.map(|payload| PyBytes::new(py, &payload).unbind()),
        })
    }

    /// Return whether all rows that the step needs from other ranks have arrived.
    fn ready(&self, py: Python<'_>, layer: usize, micro_batch: usize) -> PyResult<bool> {
        py.detach(|| self.rank.is_ready(layer, micro_batch)).map_err(value_error)
    }

    /// Unpack the step's inputs into panels, and release the stored frames.
    fn assemble(&self, py: Python<'_>, layer: usize, micro_batch: usize) -> PyResult<()> {
        py.detach(|| self.rank.assemble(layer, micro_batch)).map_err(error)
    }

    /// Compute the rows that other ranks need, the rest, or all; release the inputs once all rows are computed.
    fn compute(&self, py: Python<'_>, layer: usize, micro_batch: usize, phase: &str) -> PyResult<()> {
        let phase = match phase {
            "boundary" => Phase::Boundary,
            "interior" => Phase::Interior,
            "all" => Phase::All,
            other => {
                let message = format!("the phase is \"{other}\"; it must be boundary, interior or all");
                return Err(PyValueError::new_err(message));
            }
        };
        py.detach(|| self.rank.compute(layer, micro_batch, phase)).map_err(error)
    }

    /// Return the digest of the rank's rows of a layer; the micro-batch's first sample has the number `first_sample`.
    fn digest(&self, py: Python<'_>, layer: usize, micro_batch: usize, first_sample: u32) -> PyResult<u64> {
        py.detach(|| self.rank.digest(layer, micro_batch, first_sample.into())).map_err(error)
    }

    /// Pack the boundary rows into sealed frames of at most `limit` bytes each: (targets, body), in edge order. If `fast`,
    /// bytes are only saved where that takes next to no time.
    #[pyo3(signature = (layer, micro_batch, limit, fast=false))]
    fn frames<'py>(
        &self,
        py: Python<'py>,
        layer: usize,
        micro_batch: usize,
        limit: usize,
        fast: bool,
    ) -> PyResult<Vec<(Vec<u16>, Bound<'py, PyBytes>)>> {
        let outbox = py.detach(|| self.rank.frames(layer, micro_batch, limit, fast)).map_err(error)?;
        let seal = |index| {
            let body = new_bytes(py, outbox.bytes(index), |to| outbox.write(index, to))?;
            Ok((outbox.targets(index).to_vec(), body))
        };
        (0..outbox.len()).map(seal).collect()
    }

    /// Pack all rows of a layer, which are computed, as they are into one sealed frame. `fast` as for `frames`.
    #[pyo3(signature = (layer, micro_batch, fast=false))]
    fn rows<'py>(
        &self,
        py: Python<'py>,
        layer: usize,
        micro_batch: usize,
        fast: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let outbox = py.detach(|| self.rank.rows(layer, micro_batch, fast)).map_err(error)?;
        new_bytes(py, outbox.bytes(0), |to| outbox.write(0, to))
    }

    /// Put rows back that `rows` returned in an attempt of this run; the micro-batch goes on after their layer.
    fn restore(&self, py: Python<'_>, layer: usize, micro_batch: usize, body: &[u8]) -> PyResult<()> {
        py.detach(|| self.rank.restore(layer, micro_batch, body)).map_err(error)
    }

    /// Return the last layer's rows as a block (local rows x samples of the micro-batch), and release them.
    fn output<'py>(&self, py: Python<'py>, micro_batch: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &py.detach(|| self.rank.output(micro_batch)).map_err(error)?))
    }

    /// Return each sample's largest output and the lowest global neuron that has it; -inf and -1 without rows.
    fn reduce<'py>(&self, py: Python<'py>, micro_batch: usize) -> PyResult<(Array<'py, f32>, Array<'py, i32>)> {
        let (largest, neuron) = py.detach(|| self.rank.reduce(micro_batch)).map_err(error)?;
        Ok((largest.into_pyarray(py), neuron.into_pyarray(py)))
    }

    /// Return the bytes that panels and stored frames currently hold.
    fn resident_bytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.rank.resident_bytes())
    }
}
