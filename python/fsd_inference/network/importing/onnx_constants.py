"""Folding of ONNX nodes whose inputs are constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.importing.onnx_tensors import Constant, OnnxModel, dense
from fsd_inference.network.importing.problems import UnsupportedError
from fsd_inference.network.readers.libraries import library

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}
_CASTS = {
    "FLOAT": np.float32,
    "FLOAT16": np.float16,
    "DOUBLE": np.float64,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_MOST_VALUES = 1 << 26  # of a constant that is made from smaller ones

# Evaluated by the reference implementation of onnx; none makes more values than it takes, but for those in _SIZES.
_ELEMENTWISE = (
    *("Abs", "And", "Ceil", "Clip", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log"),
    *("Max", "Min", "Mod", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Softplus"),
    *("Sqrt", "Tanh", "Where", "Xor", *ARITHMETIC),
)
_MOVING = ("Concat", "Flatten", "Shape", "Size", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
_REDUCING = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")

_SIZES: dict[str, Callable[[Sequence[NDArray[Any]]], float]] = {
    "ConstantOfShape": lambda x: math.prod(x[0].tolist()),
    "Expand": lambda x: math.prod(np.broadcast_shapes(x[0].shape, tuple(x[1].tolist()))),
    "Gather": lambda x: x[0].size * x[1].size,
    "MatMul": lambda x: x[0].size * x[1].shape[-1],
    "Range": lambda x: float(abs((x[1] - x[0]) / x[2])),
    "Tile": lambda x: x[0].size * math.prod(x[1].tolist()),
    **dict.fromkeys(_ELEMENTWISE, lambda x: math.prod(np.broadcast_shapes(*(one.shape for one in x)))),
    **dict.fromkeys((*_MOVING, *_REDUCING), lambda x: sum(one.size for one in x)),
}

FOLDED = (*_SIZES, "Cast", "Constant", "DequantizeLinear", "Identity", "Reshape")
"""The operators that are computed if all inputs are constants."""


def folded(
    model: OnnxModel, node: Any, attributes: dict[str, Any], inputs: Sequence[Constant | None]
) -> Sequence[Constant]:
    """Return the outputs of a node whose inputs are constants; arithmetic on floats is in float64.

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
    if kind not in FOLDED:
        raise UnsupportedError("is not supported on constants; fold the constants before exporting")
    if kind == "Constant":
        return [_constant(model, attributes)]
    if kind == "Cast":
        return [_cast(_given(inputs, 0), model.type_name(attributes["to"]))]
    if kind == "DequantizeLinear":
        return [_dequantized([None if value is None else dense(value) for value in inputs], attributes)]
    if kind in {"Identity", "Transpose", "Reshape"}:
        return [_moved(kind, inputs, attributes)]
    arrays = [dense(value) for value in inputs if value is not None]
    if _SIZES[kind](arrays) > _MOST_VALUES:
        raise UnsupportedError(f"makes a constant of more than {_MOST_VALUES:,} values; fold it before exporting")
    if kind in ARITHMETIC and all(value.dtype.kind == "f" for value in arrays):
        left, right = (value.astype(np.float64) for value in arrays)
        return [ARITHMETIC[kind](left, right)]
    return _evaluated(model, node, [None if value is None else dense(value) for value in inputs])


def _evaluated(model: OnnxModel, node: Any, inputs: Sequence[NDArray[Any] | None]) -> list[Constant]:
    """Compute a node by the reference implementation of its operator."""
    helper = model.onnx.helper
    reference = library("onnx.reference", str(model.path))
    given = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    graph = helper.make_graph(
        [node],
        "constants",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in given.items()
        ],
        [helper.make_tensor_value_info(name, 0, None) for name in node.output if name],
    )
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", model.opset)])
    try:
        outputs = reference.ReferenceEvaluator(single).run(None, given)
    except RuntimeError as error:
        raise UnsupportedError("cannot be computed from its constants; fold them before exporting") from error
    return [np.asarray(output) for output in outputs]


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
