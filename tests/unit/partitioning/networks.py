"""Hypothesis strategies of networks, partitions and plans, and simple reference implementations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.kernels import KernelGroup
from fsd_inference.network import IDENTITY, RELU, Activation, Layer, Network, RowGroup
from fsd_inference.partitioning import Edge, ExchangePlan, Partition, RankShard, ShardPart


def make_network(widths: list[int], *, seed: int, density: float = 0.3, one_value: bool = False) -> Network:
    random = np.random.default_rng(seed)
    layers = []
    for k, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        mask = random.random((outputs, inputs)) < density
        values = np.full(mask.shape, 0.5) if one_value else random.standard_normal(mask.shape)
        slopes = random.standard_normal(outputs).astype(np.float32)
        bias = random.standard_normal(outputs if k % 2 else 1).astype(np.float32)
        layers.append(
            Layer(sparse.csr_array((mask * values).astype(np.float32)), bias, _groups(k, outputs), slopes=slopes)
        )
    return Network(layers)


def _groups(k: int, outputs: int) -> list[RowGroup]:
    """Return one group, or one for each of several activations."""
    kinds = (RELU, IDENTITY, Activation("clipped_relu", 3.0), Activation("prelu"), Activation("tanh"))
    if k % 2:
        return [RowGroup(outputs, kinds[k % 3])]
    cuts = sorted({0, outputs, *(outputs * cut // 5 for cut in range(1, 5))})
    return [RowGroup(stop - start, kinds[at]) for at, (start, stop) in enumerate(itertools.pairwise(cuts))]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 24), min_size=2, max_size=6))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    return make_network(widths, seed=draw(st.integers(0, 2**32 - 1)), density=density, one_value=draw(st.booleans()))


@st.composite
def cut_networks(draw: st.DrawFn) -> tuple[Network, Partition]:
    """Draw a network and any partition of it, balanced or not."""
    network = draw(networks())
    workers = draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    owners = tuple(random.integers(0, workers, width, np.int32) for width in network.widths[1:])
    return network, Partition(workers, owners)


def merged(plan: ExchangePlan) -> ExchangePlan:
    """Return the plan in which every rank sends one edge with all rows to all its targets."""
    exchanges = []
    for exchange in plan.exchanges:
        edges = []
        for source in sorted({edge.source for edge in exchange}):
            mine = [edge for edge in exchange if edge.source == source]
            targets = tuple(sorted({target for edge in mine for target in edge.targets}))
            edges.append(Edge(source, targets, np.unique(np.concatenate([edge.rows for edge in mine]))))
        exchanges.append(tuple(edges))
    return ExchangePlan(plan.workers, tuple(exchanges))


def activated(
    groups: tuple[KernelGroup, ...], slopes: NDArray[np.float32], z: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Apply the activations of groups of rows to pre-activations, rows x samples."""
    y, start = np.empty_like(z), 0
    for rows, reduce, kind, parameters in groups:
        assert reduce == "sum"
        for row in range(start, start + rows):
            slope = float(slopes[row]) if slopes.size else 0.0
            y[row] = Activation(kind, *parameters).apply(z[row], slope)  # type: ignore[arg-type]
        start += rows
    assert start == len(z)
    return y


def serial(network: Network, x: NDArray[Any]) -> NDArray[Any]:
    """Compute the network with SciPy, features x samples."""
    for layer in network:
        z = layer.weights @ x + layer.bias.reshape(-1, 1)
        arrays = layer.kernel_arrays()
        x = activated(arrays.groups, arrays.slopes, z.astype(np.float32))
    return x


def distributed(shards: list[RankShard], x: NDArray[Any], width: int) -> NDArray[Any]:
    """Compute the network as ranks that know nothing but their shards and what is sent to them."""
    own: list[NDArray[Any]] = [x] * len(shards)
    sent: dict[tuple[int, int, int], NDArray[Any]] = {}
    for k in range(len(shards[0].parts)):
        following, outputs = {}, []
        for shard in shards:
            part = shard.parts[k]
            suppliers = [own[shard.rank], *(sent[source, edge, shard.rank] for source, edge, _ in part.receives)]
            assert [rows for _, _, rows in part.receives] == [len(rows) for rows in suppliers[1:]]
            columns = np.zeros((part.columns, x.shape[1]), np.float32)
            for column, (supplier, row) in enumerate(zip(part.column_source, part.column_row, strict=True)):
                columns[column] = suppliers[supplier][row]
            y = local_weights(part) @ columns + (part.bias.reshape(-1, 1) if part.rows.size else np.float32(0))
            y = activated(part.groups, part.slopes, y.astype(np.float32))
            for edge, (targets, rows) in enumerate(part.sends):
                following.update({(shard.rank, edge, target): y[rows] for target in targets})
            outputs.append(y)
        own, sent = outputs, following
    result = np.full((width, x.shape[1]), np.nan, np.float32)
    for shard, y in zip(shards, own, strict=True):
        result[shard.parts[-1].rows] = y
    return result


def local_weights(part: ShardPart) -> sparse.csr_array:
    """Return a part's weights, local rows x local columns."""
    values = part.values if part.values.size == part.indices.size else np.repeat(part.values, part.indices.size)
    dense = np.zeros((part.rows.size, part.columns), np.float32)
    dense[np.repeat(np.arange(part.rows.size), np.diff(part.indptr)), part.indices] = values
    return sparse.csr_array(dense)
