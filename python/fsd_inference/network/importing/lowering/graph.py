"""The builder of a graph: each operator that computes adds a block of neurons, and returns references to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fsd_inference.network.activation import IDENTITY, Activation
from fsd_inference.network.importing.lowering.blocks import Block, Refs, over_sources, regular
from fsd_inference.network.importing.lowering.windows import Windows, convolution, convolution_connections, pooling
from fsd_inference.network.importing.problems import UnsupportedError

MOST_CONNECTIONS = 100_000_000
MAX_FEATURES = 1 << 24
"""Most input features: arrays of this length are made before a file has shown that it holds as many weights."""


class Graph:
    """A feed-forward graph of operators on one sample.

    Tensors are int64 arrays of references, with the shape of one sample: numbers from 0 on are input features and
    neurons, negative ones constants. Methods raise UnsupportedError for what cannot be lowered.

    Parameters
    ----------
    features : int
        Number of input features.
    most_connections : int, optional
        How many connections the operators may have in all.

    Attributes
    ----------
    blocks : list of Block
        What the operators have become, in order.
    features : int
        Number of input features.
    count : int
        Number of input features and neurons.
    connections : int
        Connections of all blocks that are not elementwise.
    """

    def __init__(self, features: int, *, most_connections: int = MOST_CONNECTIONS) -> None:
        self.blocks: list[Block] = []
        self.features = self.count = features
        self.connections = 0
        self.most_connections = most_connections
        self._constants = np.empty(0)
        self._activated: dict[int, tuple[Activation, Refs]] = {}

    def inputs(self, shape: Sequence[int]) -> Refs:
        """Return the input features in the shape of one sample."""
        return np.arange(self.features).reshape(tuple(shape))

    def constant(self, values: ArrayLike) -> Refs:
        """Return references to constants, of the same shape."""
        distinct, index = np.unique(np.asarray(values, np.float64), return_inverse=True)
        first = self._constants.size
        self._constants = np.concatenate([self._constants, distinct])
        return np.reshape(-1 - first - index, np.shape(values))

    def values(self, refs: Refs) -> NDArray[np.float64]:
        """Return the values of constants."""
        return self._constants[-1 - refs]

    def affine(self, matrix: Any, refs: Refs, bias: ArrayLike, node: str) -> Refs:
        """Add neurons that compute matrix @ values + bias.

        Parameters
        ----------
        matrix : sparse array or array_like, shape (n_out, refs.size)
            The weights; zeros are no connections.
        refs : ndarray of int64
            The tensor that is read, flattened.
        bias : array_like
            Broadcast to (n_out,).
        node : str
            The operator, for messages.

        Returns
        -------
        ndarray of int64, shape (n_out,)
        """
        is_sparse = bool(sparse.issparse(matrix))
        self.reserve(int(matrix.count_nonzero() if is_sparse else np.count_nonzero(matrix)))
        return self._counted(self._sum(sparse.csr_array(matrix), refs, bias, node))

    def product(self, weights: Any, refs: Refs, bias: ArrayLike, node: str) -> Refs:
        """Add neurons that compute weights @ x + bias for each vector x along the last axis.

        Parameters
        ----------
        weights : sparse array or array_like, shape (n_out, n_in)
            The weights.
        refs : ndarray of int64, shape (..., n_in)
            The tensor that is read.
        bias : array_like
            Broadcast to (n_out,).
        node : str
            The operator, for messages.

        Returns
        -------
        ndarray of int64, shape (..., n_out)
        """
        vectors = math.prod(refs.shape[:-1])
        matrix = weights
        if vectors > 1:
            compact = sparse.csr_array(weights)
            self.reserve(vectors * max(int(compact.count_nonzero()), weights.shape[0]))
            matrix = sparse.csr_array(sparse.kron(sparse.eye_array(vectors), compact, format="csr"))
        outputs = weights.shape[0]
        each = np.broadcast_to(np.asarray(bias, np.float64), (vectors, outputs)).ravel()
        return self.affine(matrix, refs, each, node).reshape(*refs.shape[:-1], outputs)

    def scale(self, refs: Refs, factor: ArrayLike, shift: ArrayLike, node: str) -> Refs:
        """Add neurons that compute factor * value + shift elementwise; both are broadcast to the shape of `refs`."""
        factors, shifts = (np.broadcast_to(np.asarray(x, np.float64), refs.shape).ravel() for x in (factor, shift))
        self.reserve(refs.size)
        columns = np.arange(refs.size).reshape(-1, 1)
        matrix = regular(columns, factors.reshape(-1, 1), refs.size)
        return self._sum(matrix, refs, shifts, node).reshape(refs.shape)

    def combine(self, terms: Sequence[tuple[float, Refs]], node: str) -> Refs:
        """Add neurons that compute the sum of coefficient * tensor over the terms; tensors are broadcast."""
        tensors = np.broadcast_arrays(*(refs for _, refs in terms))
        size = tensors[0].size
        self.reserve(size * len(terms))
        columns = np.arange(size)[:, None] + np.arange(len(terms)) * size
        matrix = regular(columns, np.array([coefficient for coefficient, _ in terms]), size * len(terms))
        read = np.concatenate([tensor.ravel() for tensor in tensors])
        return self._sum(matrix, read, 0.0, node).reshape(tensors[0].shape)

    def activate(self, refs: Refs, activation: Activation, node: str, *, slopes: ArrayLike | None = None) -> Refs:
        """Add neurons that compute an activation elementwise; `slopes` of prelu are broadcast to `refs`."""
        made = self.scale(refs, 1.0, 0.0, node)
        given = None if slopes is None else np.broadcast_to(np.asarray(slopes, np.float64), refs.shape).ravel()
        self.blocks[-1] = replace(self.blocks[-1], activation=activation, slopes=given)
        self._activated[int(self.blocks[-1].refs[0])] = activation, refs
        return made

    def activated(self, refs: Refs) -> tuple[Activation, Refs] | None:
        """Return the activation and its argument, if a tensor is what `activate` returned; otherwise None."""
        if not refs.size or int(refs.flat[0]) not in self._activated:
            return None
        activation, argument = self._activated[int(refs.flat[0])]
        whole = refs.shape == argument.shape and (np.diff(refs.ravel()) == 1).all()
        return (activation, argument) if whole else None

    def convolve(
        self, refs: Refs, weights: NDArray[Any], bias: ArrayLike, windows: Windows, node: str, *, groups: int = 1
    ) -> Refs:
        """Add the neurons of a convolution (cross-correlation) over any number of spatial axes.

        Parameters
        ----------
        refs : ndarray of int64, shape (channels, *spatial)
            The tensor that is read.
        weights : ndarray, shape (outputs, channels / groups, *kernel)
            The filters.
        bias : array_like
            Broadcast to (outputs,).
        windows : Windows
            Kernel, strides, dilations and padding.
        node : str
            The operator, for messages.
        groups : int, optional
            Number of groups of channels.

        Returns
        -------
        ndarray of int64, shape (outputs, *positions)
        """
        outputs = weights.shape[0]
        fits = weights.ndim == refs.ndim + 1 >= 3 and groups >= 1 and weights.shape[2:] == windows.kernel
        if not fits or outputs % groups or refs.shape[0] != weights.shape[1] * groups:
            raise UnsupportedError("has filters that do not fit its input; export the model again")
        positions = windows.outputs(refs.shape[1:])
        self.reserve(math.prod(positions) * max(math.prod(windows.kernel), outputs))
        self.reserve(convolution_connections(weights, refs.shape, windows))
        matrix = convolution(weights, refs.shape, windows, groups)
        each = np.repeat(np.broadcast_to(np.asarray(bias, np.float64), (outputs,)), math.prod(positions))
        return self._counted(self._sum(matrix, refs, each, node)).reshape(outputs, *positions)

    def pool(
        self, refs: Refs, windows: Windows, kind: Literal["max", "mean"], node: str, *, count_padding: bool = False
    ) -> Refs:
        """Add the neurons of max or average pooling.

        Parameters
        ----------
        refs : ndarray of int64, shape (channels, *spatial)
            The tensor that is read.
        windows : Windows
            Kernel, strides, dilations and padding, which is not read.
        kind : {"max", "mean"}
            What is computed over each window.
        node : str
            The operator, for messages.
        count_padding : bool, optional
            Whether the padding counts as zeros in a mean.

        Returns
        -------
        ndarray of int64, shape (channels, *positions)
        """
        positions = windows.outputs(refs.shape[1:])
        self.reserve(refs.shape[0] * math.prod(positions) * math.prod(windows.kernel))
        matrix = pooling(refs.shape, windows, mean=kind == "mean", count_padding=count_padding)
        made = self._max(matrix, refs, node) if kind == "max" else self._sum(matrix, refs, 0.0, node)
        return self._counted(made).reshape(refs.shape[0], *positions)

    def reduce(self, refs: Refs, axes: Sequence[int], kind: Literal["max", "mean", "sum"], node: str) -> Refs:
        """Add neurons that compute the largest value, the mean or the sum over axes, which remain with size 1."""
        moved = np.moveaxis(refs, tuple(axes), range(-len(axes), 0))
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(refs.shape))
        taps = math.prod(refs.shape[axis] for axis in axes)
        self.reserve(refs.size)
        matrix = regular(np.arange(refs.size).reshape(-1, taps), 1 / taps if kind == "mean" else 1.0, refs.size)
        made = self._max(matrix, moved, node) if kind == "max" else self._sum(matrix, moved, 0.0, node)
        return self._counted(made).reshape(shape)

    def maximum(self, tensors: Sequence[Refs], node: str) -> Refs:
        """Add neurons that compute the largest of several tensors elementwise; tensors are broadcast."""
        self.reserve(math.prod(np.broadcast_shapes(*(refs.shape for refs in tensors))) * len(tensors))
        stacked = np.stack(np.broadcast_arrays(*tensors))
        reduced: Refs = self.reduce(stacked, (0,), "max", node)[0]
        return reduced

    def reserve(self, connections: int) -> None:
        """Raise UnsupportedError if the graph would have too many connections, before memory is taken for them."""
        if self.connections + connections > self.most_connections:
            raise UnsupportedError(
                f"becomes {connections:,} connections, {self.connections + connections:,} with the nodes before it, "
                f"but a network may have {self.most_connections:,}; raise that number (--most-connections), or import "
                "a smaller model"
            )

    def _sum(self, matrix: sparse.csr_array, refs: Refs, bias: ArrayLike, node: str) -> Refs:
        read = refs.ravel()
        if matrix.shape[1] != read.size:
            raise UnsupportedError(
                f"takes {matrix.shape[1]:,} values, but its input has {read.size:,}; export the model again"
            )
        biases = np.broadcast_to(np.asarray(bias, np.float64), (matrix.shape[0],))
        is_constant = read < 0
        if is_constant.any():
            biases = biases + matrix[:, is_constant] @ self.values(read[is_constant])
            matrix, read = sparse.csr_array(matrix[:, ~is_constant]), read[~is_constant]
        return self._append(matrix, read, biases, node, "sum")

    def _max(self, matrix: sparse.csr_array, refs: Refs, node: str) -> Refs:
        read = refs.ravel()
        is_constant = read < 0
        if is_constant.any():  # a maximum has no bias to fold a constant into: it becomes a neuron without inputs
            distinct, index = np.unique(self.values(read[is_constant]), return_inverse=True)
            made = self._append(sparse.csr_array((distinct.size, 0)), read[:0], distinct, node, "sum")
            read = read.copy()
            read[is_constant] = made[index]
        # A maximum of one value is that value, which as a sum can be folded into other sums.
        kind: Literal["sum", "max"] = "max" if (np.diff(matrix.indptr) > 1).any() else "sum"
        return self._append(matrix, read, np.zeros(matrix.shape[0]), node, kind)

    def _append(
        self,
        matrix: sparse.csr_array,
        read: Refs,
        bias: NDArray[np.float64],
        node: str,
        kind: Literal["sum", "max"],
    ) -> Refs:
        if not matrix.shape[0]:
            raise UnsupportedError("makes a tensor without values; export the model again")
        matrix, sources = over_sources(matrix, read)
        if kind == "max":
            matrix.data = np.ones_like(matrix.data)  # duplicates were added up
        refs = np.arange(self.count, self.count + matrix.shape[0])
        self.blocks.append(Block(refs, matrix, sources, bias, (node,), IDENTITY, None, kind))
        self.count += refs.size
        return refs

    def _counted(self, refs: Refs) -> Refs:
        """Count the connections of the last block; elementwise blocks are not: most become part of others."""
        self.connections += self.blocks[-1].matrix.nnz
        return refs
