"""How large frames will be: a sample of the inputs is pushed through the network, and each edge's rows are packed.

Where the sample is no smaller than a micro-batch, as many of its samples are packed as a micro-batch has. Otherwise
packed sizes grow nearly linearly, from what a block has in front: all of the sample and its halves are packed, and a
line through both gives the size of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.cost.frames import Payloads
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.numeric import overflow
from fsd_inference.errors import InputError, SettingError
from fsd_inference.kernels import LayerKernel, NonFiniteError, SerialState, encode_block, read_only
from fsd_inference.network import Network
from fsd_inference.partition.plan import Edge, ExchangePlan

_MOST_GROUPS = 4
"""Groups of samples that are packed: their mean is taken."""


def sample_payloads(
    network: Network,
    plans: Sequence[ExchangePlan],
    x: sparse.csr_array,
    *,
    samples: int,
    micro_batches: int = 1,
    most_samples: int = 1024,
    most_edges: int = 256,
    seed: int = 0,
) -> list[Payloads]:
    """Predict the sizes of what each plan's edges carry, from a sample of the inputs.

    Parameters
    ----------
    network : Network
    plans : sequence of ExchangePlan
        Of this network; the sample is pushed through it once for all of them.
    x : csr_array of float32, samples x features
        A sample of the inputs, or all of them.
    samples, micro_batches : int
        Of the run that is predicted.
    most_samples : int
        Of `x`, as many are drawn at most. Where few samples live long, few tell how large frames are: of 1,000 samples
        of which 3% live, 30 do.
    most_edges : int
        Of an exchange, as many edges are packed at most; the sizes of others follow from their rows.
    seed : int
        Of the draws.

    Raises
    ------
    InputError
        There is no sample, or it does not fit the network.
    SettingError
        The run has no samples.
    """
    if x.shape[0] < 1 or x.shape[1] != network.widths[0]:
        raise InputError(
            f"a sample of inputs must have {network.widths[0]} features and at least one sample, not {x.shape}"
        )
    if samples < 1:
        raise SettingError(f"a run has at least 1 sample, not {samples}")
    rng = np.random.default_rng(seed)
    if x.shape[0] > most_samples:
        x = x[np.sort(rng.choice(x.shape[0], most_samples, replace=False))]
    sizes = np.array(micro_batch_sizes(samples, micro_batches))
    probes = _probes(x.shape[0], int(sizes[-1]))
    exchanges: list[list[NDArray[np.float64]]] = [[] for _ in plans]
    live, density = [], []
    for layer, active in enumerate(_activations(network, x)):
        if layer == len(network) - 1:
            break
        live.append(np.count_nonzero(np.diff(active.indptr)) / x.shape[0])
        density.append(active.nnz / (active.shape[0] * active.shape[1]))
        parts = {
            probe: [_by_neuron(active[start : start + probe]) for start in starts] for probe, starts in probes.items()
        }
        for plan, found in zip(plans, exchanges, strict=True):
            found.append(_edge_bytes(plan.exchanges[layer], parts, sizes, most_edges, rng))
    whole = _probes(x.shape[0], samples)
    inputs = {probe: np.array([float(len(encode_input(x[:probe], (probe,))))]) for probe in whole}
    input_bytes = float(_line(inputs, np.array([samples]))[0, 0])
    return [
        Payloads(tuple(int(size) for size in sizes), tuple(found), input_bytes, tuple(live), tuple(density))
        for found in exchanges
    ]


def _activations(network: Network, x: sparse.csr_array) -> Iterator[sparse.csr_array]:
    """Yield the activations after each layer, samples x neurons."""
    indptr, indices = read_only(x.indptr.astype(np.int64)), read_only(x.indices.astype(np.int32))
    state = SerialState(indptr, indices, read_only(x.data.astype(np.float32)), x.shape[1], 1)
    for layer in network:
        kernel = LayerKernel(*layer.kernel_arrays())
        try:
            state.apply([kernel])
        except NonFiniteError as error:
            _, number, neuron = error.args
            raise overflow(number, neuron) from error
        ends, neurons, values = state.result()
        yield sparse.csr_array((values, neurons, ends), shape=(x.shape[0], kernel.rows))


def _by_neuron(by_sample: sparse.csr_array) -> sparse.csr_array:
    return by_sample.T.tocsr()


def _probes(sampled: int, size: int) -> dict[int, list[int]]:
    """Return how many samples are packed together, with where each such group starts in the sample."""
    taken = min(sampled, size)
    probes = (taken,) if taken in {size, 1} else (taken // 2, taken)
    return {probe: list(range(0, sampled - probe + 1, probe))[:_MOST_GROUPS] for probe in probes}


def _edge_bytes(
    edges: Sequence[Edge],
    parts: Mapping[int, Sequence[sparse.csr_array]],
    sizes: NDArray[np.int64],
    most_edges: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the bytes of each edge's rows for each micro-batch; `parts` are activations by their number of samples."""
    if not edges:
        return np.zeros((0, sizes.size))
    packed: NDArray[np.int64] = np.arange(len(edges))
    if len(edges) > most_edges:
        packed = np.sort(rng.choice(len(edges), most_edges, replace=False))
    rows_of = [edges[edge].rows for edge in packed.tolist()]
    found = {
        probe: np.array([np.mean([_packed(part, rows) for part in of_probe]) for rows in rows_of])
        for probe, of_probe in parts.items()
    }
    of_sizes = _line(found, sizes)
    if packed.size == len(edges):
        return of_sizes
    rows = np.array([edge.rows.size for edge in edges], np.float64)
    everything: NDArray[np.float64]
    if np.ptp(rows[packed]) == 0:  # no line through them
        everything = np.outer(rows / rows[packed[0]], of_sizes.mean(axis=0))
        everything[packed] = of_sizes
        return everything
    slope, front = np.polyfit(rows[packed], of_sizes, 1)
    everything = np.maximum(np.outer(rows, slope) + front, of_sizes.min(axis=0))
    everything[packed] = of_sizes
    return everything


def _packed(activations: sparse.csr_array, rows: NDArray[np.int32]) -> int:
    block = activations[rows]
    block.sort_indices()
    indptr, indices = block.indptr.astype(np.int64), block.indices.astype(np.int32)
    return len(encode_block(indptr, indices, block.data, activations.shape[1]))


def _line(found: Mapping[int, NDArray[np.float64]], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the bytes at each of `sizes` on the line through what was `found` by number of samples."""
    last = max(found)
    if len(found) == 1:
        return np.outer(found[last], np.maximum(sizes, last) / last)
    first = min(found)
    slope = (found[last] - found[first]) / (last - first)
    return found[last][:, None] + np.outer(np.maximum(slope, 0.0), sizes - last)
