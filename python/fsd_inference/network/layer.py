"""One layer of a network: sparse weights, bias and activation, validated on creation and immutable."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network.checks import (
    MAX_WIDTH,
    check_real,
    check_unmasked,
    dense_array,
    nearest_float32,
    rounded_float32,
    shown,
    whole_number,
)
from fsd_inference.network.sparse_arrays import SparseParts, ascends_strictly, csr_from_dense

ActivationKind = Literal["identity", "relu", "clipped_relu"]
ACTIVATION_KINDS: tuple[ActivationKind, ...] = get_args(ActivationKind)

_U16_INPUTS = 2**16


@dataclass(frozen=True, slots=True)
class Activation:
    """The activation function of a layer, applied to the pre-activation z of each neuron.

    Attributes
    ----------
    kind : {"identity", "relu", "clipped_relu"}
        z, max(z, 0) or min(max(z, 0), clip), respectively.
    clip : float
        The upper bound of "clipped_relu", rounded to float32; 0 for the other kinds.

    Raises
    ------
    InputError
        If the kind is unknown, or the clip is not finite and positive (for "clipped_relu") or not 0 (for the others).

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.Activation("clipped_relu", 32.0)
    Activation(kind='clipped_relu', clip=32.0)
    """

    kind: ActivationKind
    clip: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in ACTIVATION_KINDS:
            raise InputError(f"an activation is one of {', '.join(ACTIVATION_KINDS)}, not {shown(self.kind)}")
        clip = nearest_float32(self.clip, "the clip of an activation")
        if self.kind != "clipped_relu" and clip != 0:
            raise InputError(f"the activation {self.kind} takes no clip, but {shown(self.clip)} is given")
        if self.kind == "clipped_relu" and not (math.isfinite(clip) and clip > 0):
            raise InputError(f"the clip of clipped_relu must be finite and positive in float32, not {shown(self.clip)}")
        object.__setattr__(self, "kind", str(self.kind))
        object.__setattr__(self, "clip", clip)

    def apply(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the activation to `z` elementwise, turning -0 into +0; a simple reference for the kernels."""
        if self.kind == "identity":
            return z + np.float32(0)
        positive = np.maximum(z, np.float32(0)) + np.float32(0)
        return np.minimum(positive, np.float32(self.clip)) if self.kind == "clipped_relu" else positive


IDENTITY = Activation("identity")
RELU = Activation("relu")


class KernelArrays(NamedTuple):
    """A layer in the form of the parameters of `kernels.LayerKernel`; arrays are contiguous and read-only.

    `values` has one entry per connection, or a single entry if all connections have the same weight.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint16] | NDArray[np.uint32]
    values: NDArray[np.float32]
    columns: int
    bias: NDArray[np.float32]
    activation: ActivationKind
    clip: float
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
    activation : Activation or {"identity", "relu"}, optional
        Activation function, relu by default.

    Raises
    ------
    InputError
        If shapes do not match, a dimension is empty, a value is masked or not a finite float32, or the activation is
        unknown.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.Layer([[0.5, 0.0], [1.0, -2.0]], bias=[0.0, -0.25], activation="relu")
    Layer(2 x 2, 3 connections, relu)
    """

    def __init__(
        self, weights: Any, bias: ArrayLike, activation: Activation | Literal["identity", "relu"] = RELU
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
        activation: Activation | Literal["identity", "relu"] = RELU,
    ) -> Layer:
        """Create a layer from arrays in the form of `KernelArrays`, without a copy; the arrays become read-only.

        Raises
        ------
        InputError
            If a type, shape or order differs from `KernelArrays`, or a value is not finite.
        """
        layer = cls.__new__(cls)
        layer._take(indptr, indices, values, columns, bias=bias, activation=activation)
        return layer

    def _take(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[Any],
        values: NDArray[np.float32],
        columns: int,
        *,
        bias: NDArray[np.float32],
        activation: Activation | Literal["identity", "relu"],
    ) -> None:
        activation = as_activation(activation)
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
        self._activation = activation

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
    def activation(self) -> Activation:
        """Activation function."""
        return self._activation

    @property
    def one_value(self) -> float | None:
        """Weight that all connections share bit for bit; None if they differ or there is no connection."""
        return float(self._values[0]) if self._values.size == 1 else None

    @cached_property
    def zero_preserving(self) -> bool:
        """Whether an all-zero sample stays all-zero: activation(bias) is 0 for every neuron."""
        return not self._activation.apply(self._bias).any()

    def kernel_arrays(self) -> KernelArrays:
        """Return the arrays that kernels borrow, without a copy: ``LayerKernel(*layer.kernel_arrays())``."""
        return KernelArrays(
            self._indptr,
            self._indices,
            self._values,
            self._columns,
            self._bias,
            self._activation.kind,
            self._activation.clip,
            self.zero_preserving,
        )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over shape, connections, weights, bias and activation."""
        hashed = hashlib.sha256(b"fsd-layer-1")
        sizes = (*self.shape, self.connections, self._values.size, self._bias.size)
        kind = ACTIVATION_KINDS.index(self._activation.kind)
        hashed.update(struct.pack("<5QBf", *sizes, kind, self._activation.clip))
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
        return f"Layer({outputs} x {inputs}, {self.connections} connections, {self._activation.kind})"


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


def as_activation(activation: object) -> Activation:
    """Return an activation that is given as itself or by a name that needs no number.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise InputError(f'a layer\'s activation must be an Activation, "identity" or "relu", not {shown(activation)}')
    if activation == "clipped_relu":
        raise InputError('clipped_relu needs its clip, such as Activation("clipped_relu", 32)')
    return Activation(cast("ActivationKind", activation))  # checks the name


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
