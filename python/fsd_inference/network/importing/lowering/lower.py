"""From the blocks of a graph to layers: values that a later layer reads are carried by rows of weight 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.activation import IDENTITY, Activation, RowGroup
from fsd_inference.network.importing.lowering.blocks import Block, Refs
from fsd_inference.network.importing.lowering.compose import composed
from fsd_inference.network.importing.lowering.facts import Carried, Facts
from fsd_inference.network.importing.lowering.graph import Graph
from fsd_inference.network.importing.problems import NOT_FINITE, refuse
from fsd_inference.network.layer import Layer, index_dtype

_Key: TypeAlias = "tuple[Activation, Literal['sum', 'max']]"


def lower(graph: Graph, outputs: Refs, where: str) -> tuple[list[Layer], Facts]:
    """Return the layers that compute a graph.

    Each neuron is in the layer after the last one that it reads; those on which no output depends are left out.

    Parameters
    ----------
    graph : Graph
        The graph; its blocks are used up.
    outputs : ndarray of int64
        The output tensor; flattened, it is the order of the last layer's neurons.
    where : str
        Name of the model, for messages.

    Raises
    ------
    FileFormatError
        If a weight or bias is not a finite float32, or there are more connections than the graph may have; lists all
        problems.
    """
    wanted = outputs.ravel()
    if (wanted < 0).any() or np.unique(wanted).size < wanted.size:  # each output needs a neuron of its own
        wanted = graph.scale(wanted, 1.0, 0.0, "the output")
    blocks, levels = composed(graph.blocks, wanted, graph.count)
    refuse([f"{where}: {problem}" for block in blocks if (problem := _not_finite(block))], FileFormatError)
    schedule = _Schedule(blocks, levels, wanted, graph.features)
    facts = schedule.facts()
    if facts.total > graph.most_connections:
        raise FileFormatError(
            f"{where}: becomes {facts.total:,} connections, {facts.carrying:,} of which carry values past layers, and "
            f"may have {graph.most_connections:,}; raise that number (--most-connections), or import a smaller model"
        )
    layers = schedule.layers()
    return layers, replace(facts, neurons=tuple(schedule.neurons))


class _Part(NamedTuple):
    """Rows of a layer with one activation."""

    key: _Key
    refs: Refs
    matrix: sparse.csr_array
    bias: NDArray[np.float64]
    slopes: NDArray[np.float64] | None = None


def _layer(parts: Sequence[_Part], order: NDArray[Any] | None) -> Layer:
    """Return the layer of all rows of some parts, or of those that `order` chooses."""
    matrices = [part.matrix for part in parts]
    matrix = matrices[0] if len(matrices) == 1 else sparse.csr_array(sparse.vstack(matrices, format="csr"))
    bias = np.concatenate([part.bias for part in parts]).astype(np.float32)
    slopes = np.concatenate([np.zeros(part.refs.size) if part.slopes is None else part.slopes for part in parts])
    keys = list(dict.fromkeys(part.key for part in parts))
    codes = np.repeat([keys.index(part.key) for part in parts], [part.refs.size for part in parts])
    if order is not None:
        matrix, bias, slopes, codes = sparse.csr_array(matrix[order]), bias[order], slopes[order], codes[order]
    matrix.sort_indices()
    ends = np.flatnonzero(np.diff(codes, append=-1))
    columns = matrix.shape[1]
    return Layer.from_arrays(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(index_dtype(columns)),
        matrix.data,
        columns,
        bias=bias,
        activation=[
            RowGroup(int(rows), *keys[codes[end]]) for rows, end in zip(np.diff(ends, prepend=-1), ends, strict=True)
        ],
        slopes=slopes.astype(np.float32) if any(part.slopes is not None for part in parts) else None,
    )


class _Schedule:
    """In which layer each neuron is, and up to which layer it is read."""

    def __init__(self, blocks: list[Block], levels: NDArray[np.int64], outputs: Refs, features: int) -> None:
        self.blocks = blocks
        self.levels = levels
        self.outputs = outputs
        self.features = features
        self.neurons: list[Refs] = []
        self.depth = max(1, int(levels[outputs].max()))
        self.last = np.zeros(levels.size, np.int64)
        self.last[outputs] = self.depth + 1
        first = np.where(self.last > 0, self.last, self.depth + 1)
        for block in blocks:
            for level in np.unique(levels[block.refs]).tolist():
                read = block.rows(levels[block.refs] == level).sources
                self.last[read] = np.maximum(self.last[read], level)
                first[read] = np.minimum(first[read], level)
        for block in blocks:  # a neuron without inputs need not be carried to where it is read
            single = block.refs[block.connections_of_rows() == 0]
            levels[single] = first[single] - 1

    def facts(self) -> Facts:
        """Return the sizes of the layers."""
        spans = self.last - self.levels - 1
        made = [((), np.arange(self.features)), *((block.nodes, block.refs) for block in self.blocks)]
        carried = []
        for nodes, refs in made:
            each = np.maximum(spans[refs], 0)
            if each.any():
                carried.append(Carried(nodes, int(np.count_nonzero(each)), int(each.max()), int(each.sum())))
        carried.sort(key=lambda one: -one.connections)
        connections = tuple((block.nodes, int(block.matrix.nnz)) for block in self.blocks)
        total = sum(count for _, count in connections) + sum(one.connections for one in carried)
        return Facts(connections, tuple(carried), total)

    def layers(self) -> list[Layer]:
        """Return the layers, and note the references to the neurons of each."""
        layers = []
        before = np.arange(self.features)
        places = np.full(self.levels.size, -1, np.int32)
        for level in range(1, self.depth + 1):
            places[before] = np.arange(before.size)
            parts = self._parts(level, before, places)
            keys = [part.key for part in parts]
            parts.sort(key=lambda part: keys.index(part.key))  # equal activations side by side
            refs = np.concatenate([part.refs for part in parts])
            order = None
            if level == self.depth:
                ascending = np.argsort(refs)
                order = ascending[np.searchsorted(refs[ascending], self.outputs)]
            layers.append(_layer(parts, order))
            self.neurons.append(refs if order is None else refs[order])
            before = refs
        return layers

    def _parts(self, level: int, before: Refs, places: NDArray[np.int32]) -> list[_Part]:
        """Return the rows of a layer, over the rows of the layer before it."""
        parts = []
        for block in self.blocks:
            here = self.levels[block.refs] == level
            if not here.any():
                continue
            part = block.rows(here)
            columns = places[part.sources][part.matrix.indices]
            shape = (part.refs.size, before.size)
            matrix = sparse.csr_array((part.matrix.data.astype(np.float32), columns, part.matrix.indptr), shape=shape)
            matrix.eliminate_zeros()  # of what float32 rounds to zero
            parts.append(_Part((part.activation, part.reduce), part.refs, matrix, part.bias, part.slopes))
        passed = np.flatnonzero(self.last[before] > level)
        if passed.size:
            ones, ends = np.ones(passed.size, np.float32), np.arange(passed.size + 1)
            matrix = sparse.csr_array((ones, passed, ends), shape=(passed.size, before.size))
            parts.append(_Part((IDENTITY, "sum"), before[passed], matrix, np.zeros(passed.size)))
        return parts


def _not_finite(block: Block) -> str | None:
    """Return a message about the first weight or bias that is not finite in float32, or None."""
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.isfinite(block.matrix.data.astype(np.float32))
        biases = np.isfinite(block.bias.astype(np.float32))
    if not weights.all():
        entry = int(np.argmin(weights))
        row = int(np.searchsorted(block.matrix.indptr, entry, side="right")) - 1
        place = f"the weight of output {row} and input {block.matrix.indices[entry]}"
    elif not biases.all():
        place = f"the bias of output {int(np.argmin(biases))}"
    else:
        return None
    return f"{', '.join(block.nodes)}: {place} (counted from 0) {NOT_FINITE}"
