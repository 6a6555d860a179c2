"""Reader of ONNX files: the model, its constant tensors, and the attributes of its nodes."""

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
from fsd_inference.network.importing.lowering import MAX_FEATURES
from fsd_inference.network.importing.onnx_file import Place, without_values
from fsd_inference.network.importing.problems import UnsupportedError, listed
from fsd_inference.network.importing.tensor_files import shape_text
from fsd_inference.network.readers.libraries import library

Constant: TypeAlias = "NDArray[Any] | sparse.csr_array"

FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")

_TYPES = (*FLOATS, "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "BOOL")
_FILE_BYTES = (1 << 31) - 1  # the most that Protocol Buffers can hold
_OLDEST_OPSET = 7  # before, operators broadcast by attributes


class OnnxModel:
    """An ONNX model whose versions are known to be supported.

    Parameters
    ----------
    path : Path
        The file.
    outputs : sequence of str, optional
        Names of the tensors that are wanted instead of its outputs.

    Attributes
    ----------
    graph : onnx.GraphProto
        Its graph.
    outputs : list of str
        Names of its outputs, or of the tensors that are wanted.
    chosen : bool
        Whether these were given.
    opset : int
        Version of the standard operators.
    producer : str
        The program that wrote the model, and its version; may be empty.

    Raises
    ------
    SettingError
        If onnx is not installed.
    FileFormatError
        If the file cannot be read, is damaged or of an unknown version, or no node makes a tensor that is wanted.
    """

    def __init__(self, path: Path, outputs: Sequence[str] | None = None) -> None:
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
        self._dense = {
            tensor.name: (tensor, place) for tensor, place in zip(self.graph.initializer, self._places, strict=True)
        }
        own = [value.name for value in self.graph.output]
        self.chosen = outputs is not None
        self.outputs = own if outputs is None else list(outputs)
        made = {name for node in self.graph.node for name in node.output if name}
        missing = [name for name in self.outputs if self.chosen and name not in made]
        if self.chosen and not self.outputs:
            raise FileFormatError(f"{path} cannot be imported without outputs; choose at least one tensor")
        if missing:
            raise FileFormatError(
                f"{path} has no tensor {', '.join(map(shown, missing))} that a node makes; choose among its outputs "
                f"({listed([shown(name) for name in own])}) or the outputs of its nodes"
            )
        self._sparse = {tensor.values.name: tensor for tensor in self.graph.sparse_initializer}

    def _parsed(self) -> Any:
        error_kind: type[Exception] = library("google.protobuf.message", str(self.path)).DecodeError
        try:
            if self.path.stat().st_size > _FILE_BYTES:
                raise FileFormatError(f"{self.path} is larger than any ONNX file; it is something else")
            with self.path.open("rb") as stream:
                small, self._places = without_values(stream, self.path.stat().st_size)
            model = self.onnx.ModelProto.FromString(small)
        except OSError as error:
            raise FileFormatError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except (error_kind, ValueError) as error:
            raise FileFormatError(f"{self.path} is truncated, damaged or not an ONNX model") from error
        if not model.HasField("graph") or not model.graph.node:
            raise FileFormatError(f"{self.path} is truncated or not an ONNX model: it has no graph of nodes")
        return model

    def nodes(self) -> list[tuple[int, Any]]:
        """Return the nodes and their positions; if tensors were given, only those that these depend on."""
        every = list(enumerate(self.graph.node))
        if not self.chosen:
            return every
        wanted, kept = set(self.outputs), []
        for index, node in reversed(every):
            if not wanted.isdisjoint(filter(None, node.output)):
                wanted.update(node.input)
                kept.append((index, node))
        return kept[::-1]

    def is_initializer(self, name: str) -> bool:
        """Return whether the graph has a constant of this name."""
        return name in self._dense or name in self._sparse

    def initializer(self, name: str) -> Constant:
        """Read an initializer; raise UnsupportedError if it cannot be read."""
        return self.sparse(self._sparse[name]) if name in self._sparse else self.dense(*self._dense[name])

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return the attributes of a node and their defaults by name; UnsupportedError for an unknown one."""
        defs, value_of = self.onnx.defs, self.onnx.helper.get_attribute_value
        found = {attribute.name: value_of(attribute) for attribute in node.attribute}
        try:
            known = defs.get_schema(node.op_type, self.opset).attributes
        except defs.SchemaError as error:
            raise UnsupportedError(f"is not an operator of opset {self.opset}; export the model again") from error
        unknown = [name for name in found if name not in known]
        if unknown:
            raise UnsupportedError(
                f"has the attribute {shown(unknown[0])}, which opset {self.opset} does not define; export the model "
                "again"
            )
        defaults = {name: entry.default_value for name, entry in known.items() if entry.default_value.name}
        return {name: value_of(value) for name, value in defaults.items()} | found

    def type_name(self, number: int) -> str:
        """Return the name of a type of tensors, such as "FLOAT"."""
        names = {value: key for key, value in self.onnx.TensorProto.DataType.items()}
        return str(names.get(number, number))

    def dense(self, tensor: Any, place: Place | None = None) -> NDArray[Any]:
        """Read a TensorProto; bfloat16, which NumPy lacks, is converted to float32, which is exact.

        Parameters
        ----------
        tensor : onnx.TensorProto
            The tensor.
        place : Place, optional
            Where its values are in the model's file, if the tensor does not have them.
        """
        what = f"the constant {shown(tensor.name)}"
        kind = self.type_name(tensor.data_type)
        if kind not in _TYPES:
            raise UnsupportedError(f"{what} is of type {kind}, but only {', '.join(_TYPES)} are read; convert it")
        if min(tensor.dims, default=1) < 0:
            raise UnsupportedError(f"{what} has a negative dimension; export the model again")
        dtype = self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        try:
            if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
                array = self._external(tensor, dtype, what)
            elif place is not None:
                if place.length != math.prod(tensor.dims) * dtype.itemsize:
                    raise ValueError
                array = np.fromfile(self.path, dtype, math.prod(tensor.dims), offset=place.offset)
            else:
                array = self.onnx.numpy_helper.to_array(tensor)
            array = array.reshape(tuple(tensor.dims))
        except (TypeError, ValueError, OverflowError) as error:
            raise UnsupportedError(
                f"the stored values of {what} do not fill its shape, {shape_text(tuple(tensor.dims))}; the file is "
                "damaged, export the model again"
            ) from error
        return array.astype(np.float32) if kind == "BFLOAT16" else array

    def _external(self, tensor: Any, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
        """Read the values of a tensor from the file beside the model that holds it."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        folder = self.path.absolute().parent.resolve()
        try:
            file = (folder / location).resolve()
            offset, length = int(entries.get("offset", 0)), entries.get("length")
            count = math.prod(tensor.dims)
            wanted = count * dtype.itemsize
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
            return np.fromfile(file, dtype, count, offset=offset)
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
        if (places[1:] <= places[:-1]).any():
            raise UnsupportedError(f"{what} has indices that do not ascend; export the model again")
        if len(dims) == 1:
            vector = np.zeros(dims)
            vector[places] = values
            return vector
        rows, columns = np.divmod(places, dims[1])
        return sparse.csr_array((values.astype(np.float64), (rows, columns)), shape=dims)


def is_standard(domain: str) -> bool:
    """Return whether a domain of operators is that of ONNX itself."""
    return domain in {"", "ai.onnx"}


def dense(value: Constant) -> NDArray[Any]:
    """Return a constant that must be dense."""
    if isinstance(value, sparse.csr_array):
        raise UnsupportedError("has a sparse constant, which can only be the matrix of Gemm or MatMul; store it dense")
    return value
