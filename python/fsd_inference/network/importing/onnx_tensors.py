"""Reader of ONNX files: the model, its constant tensors, and the nodes that depend on constants alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.tensor_files import shape_text
from fsd_inference.network.readers.libraries import library

Constant: TypeAlias = "NDArray[Any] | sparse.csr_array"

FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
MAX_FEATURES = 1 << 24  # arrays of this length are made before the file has shown that it holds as many weights

_TYPES = (*FLOATS, "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "BOOL")
_FILE_BYTES = (1 << 31) - 1  # the most that Protocol Buffers can hold
_OLDEST_OPSET = 7  # before, operators broadcast by attributes
_MAGIC = b"\x08"  # the field of the IR version, the first one
_SECOND_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
_ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
_CASTS = {"FLOAT": np.float32, "FLOAT16": np.float16, "DOUBLE": np.float64, "INT32": np.int32, "INT64": np.int64}
_MOST_VALUES = 1 << 26  # of a constant that broadcasting makes from smaller ones


class UnsupportedError(Exception):
    """A node or tensor that cannot be imported; the message is the reason."""


def is_onnx(path: Path, head: bytes) -> bool:
    """Return whether a file with these first bytes is an ONNX model, by its content or its name."""
    starts = len(head) > 8 and head.startswith(_MAGIC) and 0 < head[1] < 0x80 and head[2] in _SECOND_FIELDS
    is_safetensors = head[8:9] == b"{"  # its length can look like these fields
    return (starts and not is_safetensors) or path.suffix.lower() == ".onnx"


class OnnxModel:
    """An ONNX model whose versions are known to be supported.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    graph : onnx.GraphProto
        Its graph.
    opset : int
        Version of the standard operators.
    producer : str
        The program that wrote the model, and its version; may be empty.

    Raises
    ------
    SettingError
        If onnx is not installed.
    FileFormatError
        If the file cannot be read, is damaged or of an unknown version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.onnx = library("onnx", str(path))
        model = self._parsed()
        self.graph: Any = model.graph
        newest = int(self.onnx.IR_VERSION)
        if not 0 < model.ir_version <= newest:
            raise FileFormatError(
                f"{path} has the ONNX IR version {model.ir_version}, but the installed onnx reads 1 to {newest}; "
                "update onnx, or export the model for an older version"
            )
        opsets = [entry.version for entry in model.opset_import if is_standard(entry.domain)]
        newest = int(self.onnx.defs.onnx_opset_version())
        if len(opsets) != 1 or not _OLDEST_OPSET <= opsets[0] <= newest:
            raise FileFormatError(
                f"{path} has the ONNX opset {', '.join(map(str, opsets)) or 'none'}, but {_OLDEST_OPSET} to {newest} "
                "are read; convert it with onnx.version_converter, or export it for one of these"
            )
        self.opset = int(opsets[0])
        self.producer = " ".join(f"{model.producer_name} {model.producer_version}".split())[:60]
        self._dense = {tensor.name: tensor for tensor in self.graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in self.graph.sparse_initializer}

    def _parsed(self) -> Any:
        error_kind: type[Exception] = library("google.protobuf.message", str(self.path)).DecodeError
        try:
            if self.path.stat().st_size > _FILE_BYTES:
                raise FileFormatError(f"{self.path} is larger than any ONNX file; it is something else")
            model = self.onnx.ModelProto.FromString(self.path.read_bytes())
        except OSError as error:
            raise FileFormatError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except (error_kind, ValueError) as error:
            raise FileFormatError(f"{self.path} is truncated, damaged or not an ONNX model") from error
        if not model.HasField("graph") or not model.graph.node:
            raise FileFormatError(f"{self.path} is truncated or not an ONNX model: it has no graph of nodes")
        return model

    def is_initializer(self, name: str) -> bool:
        """Return whether the graph has a constant of this name."""
        return name in self._dense or name in self._sparse

    def initializer(self, name: str) -> Constant:
        """Read an initializer; raise UnsupportedError if it cannot be read."""
        return self.sparse(self._sparse[name]) if name in self._sparse else self.dense(self._dense[name])

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return the attributes of a node by name; raise UnsupportedError for one that its operator does not have."""
        defs = self.onnx.defs
        found = {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        try:
            unknown = [name for name in found if name not in defs.get_schema(node.op_type, self.opset).attributes]
        except defs.SchemaError as error:
            raise UnsupportedError(f"is not an operator of opset {self.opset}; export the model again") from error
        if unknown:
            raise UnsupportedError(
                f"has the attribute {shown(unknown[0])}, which opset {self.opset} does not define; export the model "
                "again"
            )
        return found

    def type_name(self, number: int) -> str:
        """Return the name of a type of tensors, such as "FLOAT"."""
        names = {value: key for key, value in self.onnx.TensorProto.DataType.items()}
        return str(names.get(number, number))

    def dense(self, tensor: Any) -> NDArray[Any]:
        """Read a TensorProto; bfloat16, which NumPy lacks, is converted to float32, which is exact."""
        what = f"the constant {shown(tensor.name)}"
        kind = self.type_name(tensor.data_type)
        if kind not in _TYPES:
            raise UnsupportedError(f"{what} is of type {kind}, but only {', '.join(_TYPES)} are read; convert it")
        if min(tensor.dims, default=1) < 0:
            raise UnsupportedError(f"{what} has a negative dimension; export the model again")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            raw = self._external(tensor, what)
            tensor = self.onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)
        try:
            array: NDArray[Any] = self.onnx.numpy_helper.to_array(tensor)
        except (TypeError, ValueError, OverflowError) as error:
            raise UnsupportedError(
                f"the stored values of {what} do not fill its shape, {shape_text(tuple(tensor.dims))}; the file is "
                "damaged, export the model again"
            ) from error
        return array.astype(np.float32) if kind == "BFLOAT16" else array

    def _external(self, tensor: Any, what: str) -> bytes:
        """Read the bytes of a tensor from the file beside the model that holds it."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        folder = self.path.absolute().parent.resolve()
        try:
            file = (folder / location).resolve()
            offset, length = int(entries.get("offset", 0)), entries.get("length")
            dtype = self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            wanted: int = math.prod(tensor.dims) * int(dtype.itemsize)
            if not file.is_relative_to(folder):
                raise UnsupportedError(
                    f"{what} is in {shown(location)}, outside the model's folder; move it into that folder"
                )
            if not file.is_file():
                raise UnsupportedError(
                    f"{what} is in {shown(location)}, which is missing; put that file beside the model"
                )
            if offset < 0 or offset + wanted > file.stat().st_size or (length is not None and int(length) != wanted):
                raise UnsupportedError(
                    f"{what} needs {wanted:,} bytes at {offset:,} in {shown(location)}, which does not hold them; "
                    "export the model again"
                )
            with file.open("rb") as stream:
                stream.seek(offset)
                data: bytes = stream.read(wanted)
                return data
        except (OSError, ValueError, RuntimeError) as error:
            raise UnsupportedError(f"{what} cannot be read from {shown(location)}: {error}") from error

    def sparse(self, tensor: Any) -> Constant:
        """Read a SparseTensorProto with linear indices or coordinates: a matrix as CSR in float64, a vector dense."""
        what = f"the sparse constant {shown(tensor.values.name)}"
        dims = tuple(tensor.dims)
        if len(dims) not in (1, 2) or not all(0 < size <= MAX_FEATURES for size in dims):
            raise UnsupportedError(
                f"{what} ({shape_text(dims)}) is not a vector or matrix of up to {MAX_FEATURES:,} in each dimension"
            )
        values, indices = self.dense(tensor.values), self.dense(tensor.indices)
        coordinates = indices.ndim == 2
        fits = values.ndim == 1 and indices.dtype == np.int64
        fits = fits and indices.shape in ((values.size,), (values.size, len(dims)))
        if not fits or (indices < 0).any() or (indices >= (dims if coordinates else math.prod(dims))).any():
            raise UnsupportedError(f"{what} has indices that do not match its values or shape; export the model again")
        places = np.ravel_multi_index(tuple(indices.T), dims) if coordinates else indices
        if np.unique(places).size != places.size:
            raise UnsupportedError(f"{what} has two values at the same index; export the model again")
        if len(dims) == 1:
            vector = np.zeros(dims)
            vector[places] = values
            return vector
        rows, columns = np.divmod(places, dims[1])
        return sparse.csr_array((values.astype(np.float64), (rows, columns)), shape=dims)


def is_standard(domain: str) -> bool:
    """Return whether a domain of operators is that of ONNX itself."""
    return domain in {"", "ai.onnx"}


def folded(model: OnnxModel, node: Any, attributes: dict[str, Any], inputs: Sequence[Constant | None]) -> Constant:
    """Return the output of a node whose inputs are constants; arithmetic is in float64.

    Parameters
    ----------
    model : OnnxModel
        Reads the tensors of Constant nodes.
    node : onnx.NodeProto
        The node.
    attributes : dict
        Its attributes, by name.
    inputs : sequence of ndarray, sparse matrix or None
        Its inputs; None for an optional one that is left out.

    Raises
    ------
    UnsupportedError
        If the operator or the form in which it is used is not supported.
    """
    kind = node.op_type
    if kind == "Constant":
        return _constant(model, attributes)
    if kind == "Cast":
        return _cast(_given(inputs, 0), model.type_name(attributes["to"]))
    if kind == "DequantizeLinear":
        return _dequantized([None if value is None else dense(value) for value in inputs], attributes)
    if kind in _ARITHMETIC:
        return _arithmetic(kind, dense(_given(inputs, 0)), dense(_given(inputs, 1)))
    if kind in {"Identity", "Transpose", "Reshape"}:
        return _moved(kind, inputs, attributes)
    raise UnsupportedError("is not supported on constants; fold the constants before exporting")


def dense(value: Constant) -> NDArray[Any]:
    """Return a constant that must be dense."""
    if isinstance(value, sparse.csr_array):
        raise UnsupportedError("has a sparse constant, which can only be the matrix of Gemm or MatMul; store it dense")
    return value


def _given(inputs: Sequence[Constant | None], index: int) -> Constant:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise UnsupportedError(f"has no input {index}; export the model again")
    return value


def _moved(kind: str, inputs: Sequence[Constant | None], attributes: dict[str, Any]) -> Constant:
    value = _given(inputs, 0)
    if kind == "Transpose":
        order = attributes.get("perm")
        if not isinstance(value, sparse.csr_array):
            return np.transpose(value, order)
        return value if order == [0, 1] else sparse.csr_array(value.T)
    if kind == "Reshape":
        array = dense(value)
        sizes = [int(size) for size in dense(_given(inputs, 1))]
        if not attributes.get("allowzero", 0):
            sizes = [array.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
        return array.reshape(sizes)
    return value


def _constant(model: OnnxModel, attributes: dict[str, Any]) -> Constant:
    for name, value in attributes.items():
        if name == "value":
            return model.dense(value)
        if name == "sparse_value":
            return model.sparse(value)
        if name in {"value_float", "value_floats"}:
            return np.asarray(value, np.float32)
        if name in {"value_int", "value_ints"}:
            return np.asarray(value, np.int64)
    raise UnsupportedError("does not hold numbers; export the model with constants as tensors")


def _cast(value: Constant, target: str) -> Constant:
    if target not in _CASTS:
        raise UnsupportedError(
            f"casts a constant to {target}, but only {', '.join(_CASTS)} are supported; store it in that type"
        )
    if isinstance(value, sparse.csr_array):
        converted = value.copy()
        converted.data = value.data.astype(_CASTS[target]).astype(np.float64)
        return converted
    return value.astype(_CASTS[target])


def _dequantized(inputs: Sequence[NDArray[Any] | None], attributes: dict[str, Any]) -> NDArray[Any]:
    values, scale, *zero = inputs
    if values is None or scale is None:
        raise UnsupportedError("has no values or no scale; export the model again")
    offset = zero[0] if zero and zero[0] is not None else np.zeros_like(scale)
    if attributes.get("block_size", 0) or scale.ndim > 1 or offset.shape != scale.shape:
        raise UnsupportedError("has neither one scale nor one for each index of an axis; store the weights dequantized")
    if scale.ndim == 1 and (scale.size > 1 or values.ndim > 1):
        sizes = [1] * values.ndim
        sizes[attributes.get("axis", 1)] = scale.size
        scale, offset = scale.reshape(sizes), offset.reshape(sizes)
        if np.broadcast_shapes(values.shape, scale.shape) != values.shape:
            raise UnsupportedError("has scales that do not match the axis of its values; export the model again")
    return (values.astype(np.float64) - offset.astype(np.float64)) * scale.astype(np.float64)


def _arithmetic(kind: str, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        raise UnsupportedError("has constants that are not floats; fold the constants before exporting")
    shape = np.broadcast_shapes(left.shape, right.shape)
    if math.prod(shape) > _MOST_VALUES:
        raise UnsupportedError(f"makes a constant of more than {_MOST_VALUES:,} values; fold it before exporting")
    result: NDArray[Any] = _ARITHMETIC[kind](left.astype(np.float64), right.astype(np.float64))
    return result
