"""The serial engine: runs the whole network in this process, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.engine.numeric import overflow
from fsd_inference.engine.output_forms import OutputForm, Rows, is_dense
from fsd_inference.engine.streaming import MOST_LAYERS
from fsd_inference.errors import InputError
from fsd_inference.kernels import LayerKernel, NonFiniteError, SerialState, read_only

if TYPE_CHECKING:
    from fsd_inference.network import Layer


@dataclass(frozen=True, slots=True)
class SerialRun:
    """The result of a serial run.

    Attributes
    ----------
    rows : csr_array or ndarray of float32, samples x neurons, optional
        Output activations; None if a summary was requested.
    summary : (ndarray of float32, ndarray of int32), optional
        For each sample its largest output and that neuron; None if rows were requested.
    load_s, compute_s : float
        Seconds spent reading layers, and computing.
    connections : int
        Connections of all layers.
    """

    rows: Rows | None
    summary: tuple[NDArray[np.float32], NDArray[np.int32]] | None
    load_s: float
    compute_s: float
    connections: int


def serial_state(x: sparse.csr_array | NDArray[np.float32], threads: int = 1, *, first_sample: int = 0) -> SerialState:
    """Return a batch as the kernels take it.

    Parameters
    ----------
    x : csr_array or ndarray of float32, samples x features
        The batch; an ndarray must be aligned, and must not change until its layers have been applied.
    threads : int
        Number of kernel threads.
    first_sample : int
        Number of the first sample in error messages.

    Raises
    ------
    InputError
        A dense value is not finite.
    """
    if isinstance(x, np.ndarray):
        try:
            # A slice of an array in Fortran order is in neither order.
            return SerialState.from_dense(read_only(x if x.flags.forc else np.ascontiguousarray(x)), threads)
        except ValueError:
            from fsd_inference.network.checks import rounded_float32  # noqa: PLC0415 - few batches are wrong

            rounded_float32(x, "the input", first_sample)  # names the value, if that is the reason
            raise
    indptr, indices, data = x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data
    return SerialState(read_only(indptr), read_only(indices), read_only(data), x.shape[1], threads)


def run_serial(
    layers: Iterable[LayerKernel],
    state: SerialState,
    *,
    output: str = "rows",
    form: OutputForm | None = "csr",
    at_once: int = MOST_LAYERS,
) -> SerialRun:
    """Compute the outputs of a batch.

    Parameters
    ----------
    layers : iterable of LayerKernel
        The network, first layer first; may be an iterator that reads files lazily.
    state : SerialState
        The batch, as `serial_state` returns it.
    output : {"rows", "argmax", "any"}
        "rows" returns all output activations; the others return each sample's largest output and its neuron.
    form : {"csr", "dense"}, optional
        The form of "rows"; None lets `is_dense` choose.
    at_once : int
        Layers handed to the kernel at once, and so held at the same time.

    Raises
    ------
    InputError
        The batch does not fit the first layer.
    NumericError
        A weighted sum is not finite.
    """
    load_s = compute_s = 0.0
    connections = 0
    source = iter(layers)
    while True:
        started = time.perf_counter()
        group = list(islice(source, at_once))
        load_s += time.perf_counter() - started
        if not group:
            break
        if group[0].columns != state.neurons:
            raise InputError(
                f"the batch has {state.neurons} features but the network takes {group[0].columns}; "
                "use inputs made for it"
            )
        connections += sum(layer.connections for layer in group)
        started = time.perf_counter()
        try:
            state.apply(group)
        except NonFiniteError as error:
            _, layer, neuron = error.args
            raise overflow(layer, neuron) from error
        group.clear()  # before the next layers are read
        compute_s += time.perf_counter() - started
    started = time.perf_counter()
    rows = state_rows(state, form) if output == "rows" else None
    summary = None if output == "rows" else state.reduce()
    compute_s += time.perf_counter() - started
    return SerialRun(rows, summary, load_s, compute_s, connections)


def serial_outputs(layers: Iterable[Layer], x: sparse.csr_array) -> sparse.csr_array:
    """Return the outputs of layers for a batch, samples x neurons; errors as of `run_serial`."""
    rows = run_serial((LayerKernel(*layer.kernel_arrays()) for layer in layers), serial_state(x)).rows
    assert isinstance(rows, sparse.csr_array)  # noqa: S101 - CSR rows are the default
    return rows


def state_rows(state: SerialState, form: OutputForm | None) -> Rows:
    """Return the activations of a batch, samples x neurons, in the form that `is_dense` chooses."""
    if is_dense(form, (state.samples, state.neurons), state.non_zeros):
        rows = np.empty((state.samples, state.neurons), np.float32)
        state.write(rows)
        return rows
    indptr, indices, data = state.result()
    return sparse.csr_array((data, indices, indptr), shape=(state.samples, state.neurons))
