"""A small ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

WEIGHTS = np.array([[0.5, 0.0, -1.0], [1.0, -2.0, 0.25]], np.float32)


def small_onnx(path: Path, bias: float = 0.0, batch: Any = "N", dtype: str = "FLOAT") -> Path:
    """Write a model of two layers, the first with the weights WEIGHTS, to a path; return the path."""
    onnx: Any = pytest.importorskip("onnx", reason="no onnx: pip install 'fsd-inference[onnx]' to import ONNX models")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, dtype)
    numpy_dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"w": WEIGHTS.T, "b": np.array([bias, 0.0]), "v": np.array([[1.0, 2.0], [3.0, -4.0]])}
    nodes = [("MatMul", ["x", "w"], "h"), ("Add", ["h", "b"], "z"), ("Relu", ["z"], "r"), ("MatMul", ["r", "v"], "y")]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], name=f"node_{out}") for kind, inputs, out in nodes],
        "graph",
        [helper.make_tensor_value_info("x", kind, [batch, 3])],
        [helper.make_tensor_value_info("y", kind, [batch, 2])],
        [onnx.numpy_helper.from_array(np.asarray(array, numpy_dtype), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path
