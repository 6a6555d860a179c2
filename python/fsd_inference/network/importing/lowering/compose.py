"""Composition of affine maps, in float64: neurons that others can compute directly from what they read are removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.activation import IDENTITY, Activation
from fsd_inference.network.importing.lowering.blocks import Block, Refs, over_sources


def composed(blocks: list[Block], outputs: Refs, count: int) -> tuple[list[Block], NDArray[np.int64]]:
    """Return blocks without removed and unread neurons, and the level of each neuron: 1 + the highest that it reads.

    A block takes over the block whose neurons it activates, one to one, if nothing else reads them. It computes neurons
    that are sums without an activation itself, if that does not add connections: each of them reads one value, or is
    read once.

    Parameters
    ----------
    blocks : list of Block
        In an order in which each reads earlier ones; the list is emptied, to free memory as early as possible.
    outputs : ndarray of int64
        The references that must remain.
    count : int
        Number of input features and neurons.
    """
    return _Composition(_only_read(blocks, outputs, count), outputs, count).run()


def _only_read(blocks: list[Block], outputs: Refs, count: int) -> list[Block]:
    """Return the blocks without neurons that neither a neuron that remains nor the output reads."""
    read = np.zeros(count, bool)
    read[outputs] = True
    kept = []
    while blocks:
        last = blocks.pop()
        block = last.rows(read[last.refs])
        if block.refs.size:
            read[block.sources] = True
            kept.append(block)
    return kept[::-1]


class _Composition:
    def __init__(self, blocks: list[Block], outputs: Refs, count: int) -> None:
        self.blocks = blocks
        self.outputs = outputs
        self.uses = np.bincount(outputs, minlength=count)
        self.levels = np.zeros(count, np.int64)
        self.owners = np.full(count, -1)
        for number, block in enumerate(blocks):
            self.uses[block.sources] += block.readers()
            self.owners[block.refs] = number

    def run(self) -> tuple[list[Block], NDArray[np.int64]]:
        for number, block in enumerate(self.blocks):
            combined = self._takes_over(block) or self._absorbs(block)
            self.blocks[number] = combined
            self.levels[combined.refs] = _levels(combined, self.levels)
        return _only_read(self.blocks, self.outputs, self.uses.size), self.levels

    def _takes_over(self, block: Block) -> Block | None:
        """Return a block that also computes what it activates; None if it does not activate a block of its own."""
        if not block.is_selection or block.reduce != "sum" or (self.uses[block.sources] != 1).any():
            return None
        first = self._single_owner(block)
        activation = None if first is None else _in_turn(first.activation, block.activation)
        if first is None or activation is None or first.slopes is not None:
            return None
        chosen = np.searchsorted(first.refs, block.sources)[block.matrix.indices]
        taken = first.rows(chosen)
        self.uses[block.sources] = 0
        return replace(taken, refs=block.refs, nodes=_both(first, block), activation=activation, slopes=block.slopes)

    def _single_owner(self, block: Block) -> Block | None:
        owners = self.owners[block.sources]
        return self.blocks[owners[0]] if owners.size and owners[0] >= 0 and (owners == owners[0]).all() else None

    def _absorbs(self, block: Block) -> Block:
        """Return the block with the sums that it reads replaced by what these read, where that adds no connections."""
        if block.reduce != "sum" or not block.sources.size:
            return block
        owners = self.owners[block.sources]
        chosen = [number for number in np.unique(owners[owners >= 0]) if self._is_absorbable(block, number, owners)]
        if not chosen:
            return block
        columns = ~np.isin(owners, chosen)
        matrices, sources = [block.matrix[:, columns]], [block.sources[columns]]
        bias = block.bias.copy()
        nodes = block.nodes
        for number in chosen:
            columns = owners == number
            first = self.blocks[number]
            rows = np.searchsorted(first.refs, block.sources[columns])
            factors = sparse.csr_array(block.matrix[:, columns]).astype(np.float64)  # as products are summed in it
            bias += factors @ first.bias[rows]
            part = first.rows(rows)
            matrices.append(factors @ part.matrix)
            sources.append(part.sources)
            nodes = (*first.nodes, *nodes)
            self._read_less(first, rows, np.bincount(factors.indices, minlength=rows.size))
        for refs, made in zip(sources[1:], matrices[1:], strict=True):
            self.uses[refs] += np.bincount(made.indices, minlength=refs.size)
        if not sources[0].size:
            del matrices[0], sources[0]
        combined = sparse.hstack(matrices, format="csr") if len(matrices) > 1 else matrices[0]
        matrix, distinct = over_sources(sparse.csr_array(combined), np.concatenate(sources))
        return replace(block, matrix=matrix, sources=distinct, bias=bias, nodes=tuple(dict.fromkeys(nodes)))

    def _is_absorbable(self, block: Block, number: int, owners: NDArray[Any]) -> bool:
        first = self.blocks[number]
        columns = owners == number
        read = block.sources[columns]
        if not first.is_affine:
            return False
        rows = np.searchsorted(first.refs, read)
        single = first.connections_of_rows()[rows] <= 1
        if not (single | (self.uses[read] == 1)).all():
            return False
        if single.all():
            return True
        # Otherwise the sources of the sums, not the sums, are carried to the level of what else the block reads.
        top = self.levels[block.sources].max()
        lowers = self.levels[block.sources[~columns]].max(initial=0) < top
        return bool(lowers or first.rows(rows).sources.size <= rows.size)

    def _read_less(self, first: Block, rows: NDArray[Any], times: NDArray[Any]) -> None:
        """Note that rows of a block are read fewer times, and what only they read not at all."""
        refs = first.refs[rows]
        self.uses[refs] -= times
        unread = first.rows(rows[self.uses[refs] == 0])
        self.uses[unread.sources] -= unread.readers()


def _levels(block: Block, levels: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.ones(block.refs.size, np.int64)
    starts = block.matrix.indptr[:-1]
    filled = block.connections_of_rows() > 0
    if filled.any():
        read = levels[block.sources]
        if (read == read[0]).all():
            found[filled] += read[0]
        else:
            found[filled] += np.maximum.reduceat(read[block.matrix.indices], starts[filled])
    return found


def _in_turn(first: Activation, second: Activation) -> Activation | None:
    """Return one activation that computes `second` of `first`, or None."""
    if IDENTITY in (first, second):
        return second if first == IDENTITY else first
    bounds, limits = _bounds(first), _bounds(second)
    if bounds is None or limits is None:
        return None
    lower, upper = np.clip(bounds, *limits).tolist()
    return clamp(lower, upper)


def _bounds(activation: Activation) -> tuple[float, float] | None:
    """Return the range to which an activation limits a value, if it does nothing else."""
    if activation.kind == "clip":
        lower, upper = activation.parameters
        return lower, upper
    if activation.kind in {"relu", "clipped_relu"}:
        return 0.0, activation.parameters[0] if activation.parameters else float("inf")
    return None


def _both(first: Block, second: Block) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first.nodes, *second.nodes)))


def clamp(lower: float, upper: float) -> Activation:
    """Return the simplest activation that limits a value to a range; an infinite bound is none."""
    largest = float(np.finfo(np.float32).max)
    if lower == 0 and upper >= largest:
        return Activation("relu")
    if lower == 0 and upper > 0:
        return Activation("clipped_relu", upper)
    return Activation("clip", max(lower, -largest), min(upper, largest))
