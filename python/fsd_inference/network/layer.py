"""One layer of a network: sparse weights, bias and activations, validated on creation and immutable."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.kernels import ActivationName, KernelGroup
from fsd_inference.network.activation import RELU, Activation, RowGroup, kernel_groups, row_groups
from fsd_inference.network.checks import (
    MAX_WIDTH,
    check_real,
    check_unmasked,
    dense_array,
    rounded_float32,
    shown,
    whole_number,
)
from fsd_inference.network.sparse_arrays import SparseParts, ascends_strictly, csr_from_dense

Activations: TypeAlias = Activation | ActivationName | Sequence[RowGroup]

_U16_INPUTS = 2**16
_SLOPES = "a layer's slopes"
_FIRST_KINDS = ("identity", "relu", "clipped_relu")


class KernelArrays(NamedTuple):
    """A layer in the form of the parameters of `kernels.LayerKernel`; arrays are contiguous and read-only.

    `values` has one entry per connection, or a single entry if all connections have the same weight; `slopes` is empty
    unless rows are "prelu".
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint16] | NDArray[np.uint32]
    values: NDArray[np.float32]
    columns: int
    bias: NDArray[np.float32]
    groups: tuple[KernelGroup, ...]
    slopes: NDArray[np.float32]
    zero_preserving: bool


class Layer:
    """A sparse layer that computes activation(weights @ x + bias).

    It is stored in the format of the kernels: int64 row starts, uint16 column indices for up to 65,536 inputs (uint32
    for more), and a single value if all weights are equal.

    Parameters
    ----------
    weights : sparse array or array_like, shape (n_out, n_in)
        Values of any real type; copied and rounded to float32. Columns are sorted and duplicates summed; explicitly
        stored zeros of a sparse array remain connections.
    bias : array_like, shape (n_out,), (1,) or ()
        One bias per neuron, or one for all neurons.
    activation : Activation, str or sequence of RowGroup, optional
        Activation function of all rows (a name if it takes no parameters), relu by default; or groups of rows that
        together have all rows.
    slopes : array_like, shape (n_out,), optional
        The slope of each neuron whose activation is "prelu"; ignored for others.

    Raises
    ------
    InputError
        If shapes do not match, a dimension is empty, a value is masked or not a finite float32, the activation is
        unknown, or a row is a maximum but has a weight other than 1.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.Layer([[0.5, 0.0], [1.0, -2.0]], bias=[0.0, -0.25], activation="relu")
    Layer(2 x 2, 3 connections, relu)
    """

    def __init__(
        self, weights: Any, bias: ArrayLike, activation: Activations = RELU, *, slopes: ArrayLike | None = None
    ) -> None:
        csr = _as_csr(weights)
        inputs = csr.shape[1]
        biases = dense_array(bias, "a layer's bias")
        self._take(
            csr.indptr.astype(np.int64, copy=False),
            csr.indices.astype(index_dtype(inputs)),
            csr.data,
            inputs,
            bias=rounded_float32(np.array(biases, ndmin=1), "a layer's bias"),
            activation=activation,
            slopes=None if slopes is None else rounded_float32(dense_array(slopes, _SLOPES), _SLOPES),
        )

    @classmethod
    def from_arrays(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint16] | NDArray[np.uint32],
        values: NDArray[np.float32],
        columns: int,
        *,
        bias: NDArray[np.float32],
        activation: Activations = RELU,
        slopes: NDArray[np.float32] | None = None,
    ) -> Layer:
        """Create a layer from arrays in the form of `KernelArrays`, without a copy; the arrays become read-only.

        Raises
        ------
        InputError
            If a type, shape or order differs from `KernelArrays`, or a value is not finite.
        """
        layer = cls.__new__(cls)
        layer._take(indptr, indices, values, columns, bias=bias, activation=activation, slopes=slopes)
        return layer

    def _take(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[Any],
        values: NDArray[np.float32],
        columns: int,
        *,
        bias: NDArray[np.float32],
        activation: Activations,
        slopes: NDArray[np.float32] | None,
    ) -> None:
        columns = whole_number(columns, "the number of a layer's inputs")
        outputs = np.size(indptr) - 1
        if not (1 <= columns <= MAX_WIDTH and 1 <= outputs <= MAX_WIDTH):
            raise InputError(f"a layer needs 1 to {MAX_WIDTH} inputs and outputs, not {columns} and {outputs}")
        _check_types(
            ("row starts", indptr, np.dtype(np.int64)),
            ("column indices", indices, index_dtype(columns)),
            ("weights", values, np.dtype(np.float32)),
            ("bias", bias, np.dtype(np.float32)),
        )
        if bias.size not in (1, outputs):
            raise InputError(f"a layer of {outputs} neurons needs {outputs} biases or one, not {bias.size}")
        _check_structure(indptr, indices, columns)
        connections = indices.size
        if values.size != connections and not (values.size == 1 and connections):
            raise InputError(f"a layer of {connections} connections needs as many weights or one, not {values.size}")
        if not np.isfinite(values).all():
            raise InputError("a weight is not finite; weights must be finite float32 numbers")
        if not np.isfinite(bias).all():
            raise InputError("a bias is not finite; biases must be finite float32 numbers")
        if values.size > 1:
            bits = values.view(np.uint32)
            if (bits == bits[0]).all():
                values = values[:1].copy()
        self._indptr, self._indices, self._values, self._bias = (
            _frozen(array) for array in (indptr, indices, values, bias)
        )
        self._columns = columns
        self._groups = row_groups(activation, outputs)
        self._slopes = self._checked_slopes(slopes)
        self._check_maxima()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights, (n_out, n_in)."""
        return self._indptr.size - 1, self._columns

    @property
    def connections(self) -> int:
        """Number of connections, the entries of the sparse weight matrix."""
        return self._indices.size

    @property
    def stored_weights(self) -> int:
        """Number of weights that are stored: one per connection, or one if all are equal."""
        return self._values.size

    @property
    def weights(self) -> sparse.csr_array:
        """Weights as float32 CSR, shape (n_out, n_in), with sorted columns; built anew on each access."""
        index = np.int32 if self.connections <= MAX_WIDTH else np.int64
        values = self._values if self._values.size == self.connections else np.repeat(self._values, self.connections)
        csr = sparse.csr_array((values, self._indices.astype(index), self._indptr.astype(index)), shape=self.shape)
        csr.has_canonical_format = True
        return csr

    @property
    def bias(self) -> NDArray[np.float32]:
        """Bias, shape (n_out,) or (1,), read-only."""
        return self._bias

    @property
    def activation(self) -> Activation | None:
        """Activation function of all neurons; None if they differ, or if any is a maximum of its inputs."""
        first = self._groups[0]
        return first.activation if len(self._groups) == 1 and first.reduce == "sum" else None

    @property
    def groups(self) -> tuple[RowGroup, ...]:
        """Groups of consecutive rows that compute alike; neighbours differ."""
        return self._groups

    @property
    def slopes(self) -> NDArray[np.float32] | None:
        """Slope of each neuron, shape (n_out,), read-only; 0 where it is not "prelu", None if none is."""
        return self._slopes if self._slopes.size else None

    @property
    def one_value(self) -> float | None:
        """Weight that all connections share bit for bit; None if they differ or there is no connection."""
        return float(self._values[0]) if self._values.size == 1 else None

    @cached_property
    def zero_preserving(self) -> bool:
        """Whether an all-zero sample stays all-zero: activation(bias) is 0 for every neuron."""
        bias = np.broadcast_to(self._bias, self.shape[0])
        for rows, group in self._ranges():
            activation = group.activation
            if activation.kind == "prelu":  # 0 for 0 only, unless a negative product is rounded to 0
                of_bias = np.where(bias[rows] < 0, bias[rows] * self._slopes[rows], bias[rows])
            else:
                of_bias = activation.apply(bias[rows][:1] if self._bias.size == 1 else bias[rows])
            if of_bias.any():
                return False
        return True

    def _ranges(self) -> Iterator[tuple[slice, RowGroup]]:
        start = 0
        for group in self._groups:
            yield slice(start, start + group.rows), group
            start += group.rows

    def _checked_slopes(self, slopes: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the slopes of "prelu" rows, 0 for others; empty if there are none."""
        kinds = [(rows, group) for rows, group in self._ranges() if group.activation.kind == "prelu"]
        if not kinds:
            return _frozen(np.empty(0, np.float32))
        if slopes is None:
            raise InputError("a layer with the activation prelu needs slopes, one a neuron")
        _check_types(("slopes", slopes, np.dtype(np.float32)))
        if slopes.size != self.shape[0]:
            raise InputError(f"a layer of {self.shape[0]} neurons needs as many slopes, not {slopes.size}")
        if not np.isfinite(slopes).all():
            raise InputError("a slope is not finite; slopes must be finite float32 numbers")
        used = np.zeros_like(slopes)
        for rows, _ in kinds:
            used[rows] = slopes[rows]
        return _frozen(used)

    def _check_maxima(self) -> None:
        for rows, group in self._ranges():
            if group.reduce == "sum":
                continue
            starts = self._indptr[rows.start : rows.stop + 1]
            if (np.diff(starts) == 0).any():
                row = rows.start + int(np.argmax(np.diff(starts) == 0))
                raise InputError(f"neuron {row} is the largest of its inputs but has none; connect it, or sum")
            weights = self._values if self._values.size == 1 else self._values[starts[0] : starts[-1]]
            if (weights != 1).any():
                raise InputError("the weights of a neuron that is the largest of its inputs must all be 1")

    def kernel_arrays(self) -> KernelArrays:
        """Return the arrays that kernels borrow, without a copy: ``LayerKernel(*layer.kernel_arrays())``."""
        return KernelArrays(
            self._indptr,
            self._indices,
            self._values,
            self._columns,
            self._bias,
            kernel_groups(self._groups),
            self._slopes,
            self.zero_preserving,
        )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over shape, connections, weights, bias and activations."""
        sizes = (*self.shape, self.connections, self._values.size, self._bias.size)
        if self.activation is not None and self.activation.kind in _FIRST_KINDS:  # as before there were others
            clip = self.activation.parameters[0] if self.activation.parameters else 0.0
            head = struct.pack("<5QBf", *sizes, _FIRST_KINDS.index(self.activation.kind), clip)
            hashed = hashlib.sha256(b"fsd-layer-1" + head)
        else:
            groups = json.dumps(kernel_groups(self._groups)).encode()
            hashed = hashlib.sha256(b"fsd-layer-2" + struct.pack("<6Q", *sizes, len(groups)) + groups)
            hashed.update(self._slopes.data)
        for array in (self._indptr, self._indices, self._values, self._bias):
            hashed.update(array.data)
        return hashed.digest()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)  # which copies and pickles of arrays lose

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Layer) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        outputs, inputs = self.shape
        return f"Layer({outputs} x {inputs}, {self.connections} connections, {self.described_activations})"

    @property
    def described_activations(self) -> str:
        """The activations of the layer as text, such as "relu" or "3 tanh, 5 max identity", with the number of rows."""
        if self.activation is not None:
            return str(self.activation)
        rows: Counter[str] = Counter()
        for group in self._groups:
            rows[f"max {group.activation}" if group.reduce == "max" else str(group.activation)] += group.rows
        return ", ".join(f"{count:,} {name}" for name, count in rows.items())


def index_dtype(inputs: int) -> np.dtype[Any]:
    """Return the type of the column indices of a layer with a number of inputs."""
    return np.dtype(np.uint16 if inputs <= _U16_INPUTS else np.uint32)


def _as_csr(weights: Any) -> sparse.csr_array:
    """Return a copy of `weights` as float32 CSR with sorted columns and duplicates summed."""
    what = "a layer's weights"
    is_sparse = bool(sparse.issparse(weights))  # in a variable, so that the type checker keeps weights as Any
    if not is_sparse:
        weights = dense_array(weights, what)
    if weights.ndim != 2:
        raise InputError(f"{what} must be 2-D (outputs x inputs), not {weights.ndim}-D")
    outputs, inputs = weights.shape
    if not (1 <= inputs <= MAX_WIDTH and 1 <= outputs <= MAX_WIDTH):
        raise InputError(f"a layer needs 1 to {MAX_WIDTH} inputs and outputs, not {inputs} and {outputs}")
    if is_sparse:
        return SparseParts.of(weights, what).to_csr(what)
    check_real(weights.dtype, what)
    return csr_from_dense(weights, what)


def _check_types(*named: tuple[str, object, np.dtype[Any]]) -> None:
    for name, array, dtype in named:
        if not isinstance(array, np.ndarray):
            raise InputError(f"a layer's {name} must be a NumPy array, not {shown(array)}")
        check_unmasked(array, f"a layer's {name}")
        if array.ndim != 1 or array.dtype != dtype:
            raise InputError(
                f"a layer's {name} must be a 1-D array of {dtype}, not a {array.ndim}-D one of {array.dtype}"
            )


def _check_structure(indptr: NDArray[np.int64], indices: NDArray[Any], columns: int) -> None:
    """Check that row starts and column indices form a CSR structure with strictly ascending columns."""
    if indptr[0] != 0 or indptr[-1] != indices.size or (indptr[1:] < indptr[:-1]).any():
        raise InputError(f"a layer's row starts must ascend from 0 to its {indices.size} connections")
    if indices.size == 0:
        return
    if int(indices.max()) >= columns:
        raise InputError(f"a layer of {columns} inputs has a connection to input {int(indices.max())} (counted from 0)")
    if not ascends_strictly(indptr, indices):
        raise InputError("a layer's column indices must ascend strictly within each row")


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array
