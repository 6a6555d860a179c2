"""Payload sizes predicted by sampling: a forward pass of sample inputs, in which the rows of edges are packed.

A block may state its live samples as changes of those that its targets received after the layer before, so the
activations of two layers determine a size.

If the sample is at least as large as a micro-batch, groups of a micro-batch's size are packed. Otherwise the size is
extrapolated: packed sizes grow nearly linearly with the samples, plus a constant header, so the whole sample and its
halves are packed and a line through both sizes gives that of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.numeric import overflow
from fsd_inference.engine.serial import serial_state
from fsd_inference.errors import InputError, SettingError
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.kernels import LayerKernel, NonFiniteError, SerialState, encode_block, read_only
from fsd_inference.network import Network
from fsd_inference.partitioning.plan import Edge, ExchangePlan
from fsd_inference.threads import ThreadPool

_MOST_GROUPS = 4
"""Maximum number of groups of samples that are packed; their mean size is used."""
_ALIKE = 0.05
"""Tolerance for reusing the sizes of an earlier layer, scaled: the relative difference of the numbers of nonzero
activations, and the fraction of activation values that repeat."""
_VALUES_COMPARED = 4096
"""About how many activation values are compared to find out whether values repeat."""

_Parts = dict[int, list[tuple[sparse.csr_array, sparse.csr_array]]]
"""By group size the activations of groups of samples, neurons x samples, after a layer and after the one before it."""


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
        Plans of this network; one forward pass serves all of them.
    x : csr_array of float32, samples x features
        A sample of the inputs, or all of them.
    samples, micro_batches : int
        Number of samples and of micro-batches of the predicted run.
    most_samples : int
        Maximum number of samples drawn from `x`. If few samples stay live, few contribute to the sizes: 30 of 1,000
        samples of which 3% are live.
    most_edges : int
        Maximum number of edges of each exchange that are packed; the sizes of the others are estimated by their rows.
    seed : int
        Seed of the random choice of samples and edges.

    Returns
    -------
    list of Payloads
        One for each plan.

    Raises
    ------
    InputError
        `x` has no samples, or its features do not fit the network.
    SettingError
        `samples` is below 1.
    """
    if x.shape[0] < 1 or x.shape[1] != network.widths[0]:
        raise InputError(
            f"a sample of inputs must have {network.widths[0]} features and at least one sample, not {x.shape}"
        )
    if samples < 1:
        raise SettingError(f"a run needs at least 1 sample, not {samples}")
    rng = np.random.default_rng(seed)
    if x.shape[0] > most_samples:
        x = x[np.sort(rng.choice(x.shape[0], most_samples, replace=False))]
    sizes = np.array(micro_batch_sizes(samples, micro_batches))
    probes = _probes(x.shape[0], int(sizes[-1]))
    exchanges: list[list[tuple[Future[NDArray[np.float64]], float]]] = [[] for _ in plans]  # (sizes, scale factor)
    live, density = [], []
    first, like = 0, x  # the reference layer, whose sizes later layers with similar activations reuse
    is_settled = False  # whether the layer before the reference layer was similar too
    before = x
    # A second thread packs a layer's rows while this one computes the next layer.
    with ThreadPool(1) as packer:
        for layer, active in enumerate(_activations(network, x)):
            if layer == len(network) - 1:
                break
            live.append(_live(active) / x.shape[0])
            density.append(active.nnz / (active.shape[0] * active.shape[1]))
            if layer == 0 or not _are_alike(active, like):
                first, like, is_settled = layer, active, False
            elif not is_settled:
                first, like, is_settled = layer, active, True
            parts: _Parts = {}
            for plan, found in zip(plans, exchanges, strict=True):
                edges = plan.exchanges[layer]
                earlier = plan.exchanges[layer - 1] if layer else ()
                if first < layer and _are_same(edges, plan.exchanges[first]) and _are_same(edges, earlier):
                    found.append((found[first][0], active.nnz / max(1, like.nnz)))
                    continue
                parts = parts or {
                    probe: [
                        (_by_neuron(active, start, start + probe), _by_neuron(before, start, start + probe))
                        for start in starts
                    ]
                    for probe, starts in probes.items()
                }
                picked = _picked(len(edges), most_edges, rng)
                found.append((packer.submit(_edge_bytes, edges, earlier, picked, parts, sizes), 1.0))
            before = active
            wait([found[-2][0] for found in exchanges if layer])  # back-pressure: hold activations of few layers
    whole, batch = _probes(x.shape[0], samples), serial_state(x)
    inputs = {probe: np.array([float(len(encode_input(batch, (probe,))))]) for probe in whole}
    input_bytes = float(_line(inputs, np.array([samples]))[0, 0])
    return [
        Payloads(
            tuple(int(size) for size in sizes),
            tuple(packed.result() * share for packed, share in found),
            input_bytes,
            tuple(live),
            tuple(density),
        )
        for found in exchanges
    ]


def _are_alike(active: sparse.csr_array, other: sparse.csr_array) -> bool:
    """Whether packed sizes are proportional: activations are equal, or similar in number and hard to compress."""
    if active.nnz == other.nnz and all(
        np.array_equal(getattr(active, part), getattr(other, part)) for part in ("data", "indices", "indptr")
    ):
        return True
    return (
        _live(active) == _live(other)
        and abs(active.nnz - other.nnz) <= _ALIKE * other.nnz
        and all(_hardly_repeats(each.data) for each in (active, other))
    )


def _live(active: sparse.csr_array) -> int:
    return int(np.count_nonzero(np.diff(active.indptr)))


def _hardly_repeats(values: NDArray[np.float32]) -> bool:
    some = values[:: max(1, values.size // _VALUES_COMPARED)]
    return np.unique(some).size > (1 - _ALIKE) * some.size


def _are_same(edges: Sequence[Edge], others: Sequence[Edge]) -> bool:
    return len(edges) == len(others) and all(one is other for one, other in zip(edges, others, strict=True))


def _activations(network: Network, x: sparse.csr_array) -> Iterator[sparse.csr_array]:
    """Yield the activations after each layer, samples x neurons."""
    indptr, indices = read_only(x.indptr.astype(np.int64)), read_only(x.indices.astype(np.int32))
    state = SerialState(indptr, indices, read_only(x.data.astype(np.float32)), x.shape[1], 1)
    for kernel in _kernels(network):
        try:
            state.apply([kernel])
        except NonFiniteError as error:
            _, number, neuron = error.args
            raise overflow(number, neuron) from error
        ends, neurons, values = state.result()
        yield sparse.csr_array((values, neurons, ends), shape=(x.shape[0], kernel.rows))


def _kernels(network: Network) -> Iterator[LayerKernel]:
    """Yield the kernels of all layers; a thread prefetches the next layer while the current one is in use."""

    def read(index: int) -> LayerKernel:
        return LayerKernel(*network.layer(index).kernel_arrays())

    with ThreadPool(1) as reader:
        coming = reader.submit(read, 0)
        for index in range(1, len(network) + 1):
            kernel = coming.result()
            if index < len(network):
                coming = reader.submit(read, index)
            yield kernel


def _by_neuron(by_sample: sparse.csr_array, start: int, end: int) -> sparse.csr_array:
    """Return the activations of the samples start..end (excluded), transposed to neurons x samples."""
    ends = by_sample.indptr[start : end + 1]
    part = slice(ends[0], ends[-1])
    shape = (end - start, by_sample.shape[1])
    return sparse.csr_array((by_sample.data[part], by_sample.indices[part], ends - ends[0]), shape=shape).T.tocsr()


def _probes(sampled: int, size: int) -> dict[int, list[int]]:
    """Return the sizes of the groups of samples to pack, each with the starts of its groups in the sample.

    `sampled` is the number of samples available, `size` that of a micro-batch.
    """
    taken = min(sampled, size)
    probes = (taken,) if taken in {size, 1} else (taken // 2, taken)
    return {probe: list(range(0, sampled - probe + 1, probe))[:_MOST_GROUPS] for probe in probes}


def _picked(edges: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the indices of the edges of an exchange that are packed."""
    return np.arange(edges) if edges <= most else np.sort(rng.choice(edges, most, replace=False))


def _edge_bytes(
    edges: Sequence[Edge],
    earlier: Sequence[Edge],
    packed: NDArray[np.int64],
    parts: _Parts,
    sizes: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the bytes of each edge's rows, edges x micro-batches.

    Only the edges `packed` are packed, from `parts`; `earlier` are the edges after the layer before, and `sizes` the
    numbers of samples in the micro-batches.
    """
    if not edges:
        return np.zeros((0, sizes.size))
    chosen = [edges[edge] for edge in packed.tolist()]
    shared = _shared_edges(chosen, earlier)
    found = {
        probe: np.mean([_packed(part, before, chosen, shared) for part, before in of_probe], axis=0)
        for probe, of_probe in parts.items()
    }
    of_sizes = _line(found, sizes)
    if packed.size == len(edges):
        return of_sizes
    rows = np.array([edge.rows.size for edge in edges], np.float64)
    everything: NDArray[np.float64]
    if np.ptp(rows[packed]) == 0:  # equal numbers of rows do not determine a line
        everything = np.outer(rows / rows[packed[0]], of_sizes.mean(axis=0))
        everything[packed] = of_sizes
        return everything
    slope, front = np.polyfit(rows[packed], of_sizes, 1)
    everything = np.maximum(np.outer(rows, slope) + front, of_sizes.min(axis=0))
    everything[packed] = of_sizes
    return everything


def _shared_edges(edges: Sequence[Edge], earlier: Sequence[Edge]) -> list[list[tuple[int, Edge]]]:
    """Return, for each edge, the edges of the layer before from its source to all its targets, with their numbers."""
    of_source: dict[int, list[Edge]] = {}
    for edge in earlier:
        of_source.setdefault(edge.source, []).append(edge)
    return [
        [
            (number, before)
            for number, before in enumerate(of_source.get(edge.source, []))
            if set(edge.targets) <= set(before.targets)
        ]
        for edge in edges
    ]


def _packed(
    activations: sparse.csr_array,
    before: sparse.csr_array,
    edges: Sequence[Edge],
    shared: Sequence[Sequence[tuple[int, Edge]]],
) -> NDArray[np.float64]:
    """Return the bytes of each edge's rows; `shared` are the edges to whose live samples each may refer."""
    samples = activations.shape[1]
    lists: dict[int, NDArray[np.uint32]] = {}

    def live(edge: Edge) -> NDArray[np.uint32]:
        if id(edge) not in lists:
            lists[id(edge)] = np.unique(before[edge.rows].indices).astype(np.uint32)
        return lists[id(edge)]

    found = np.zeros(len(edges))
    for index, (edge, known) in enumerate(zip(edges, shared, strict=True)):
        block = activations[edge.rows]
        indptr, indices = block.indptr.astype(np.int64), block.indices.astype(np.int32)
        given = [(number, live(other)) for number, other in known if live(other).size < samples]
        found[index] = len(encode_block(indptr, indices, block.data, samples, given))
    return found


def _line(found: Mapping[int, NDArray[np.float64]], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the bytes for each of `sizes` samples, extrapolated linearly from those `found` by number of samples."""
    last = max(found)
    if len(found) == 1:
        return np.outer(found[last], np.maximum(sizes, last) / last)
    first = min(found)
    slope = (found[last] - found[first]) / (last - first)
    return found[last][:, None] + np.outer(np.maximum(slope, 0.0), sizes - last)
