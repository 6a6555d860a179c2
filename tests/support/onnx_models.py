"""ONNX models for tests, and the comparison of an import with the reference evaluator of onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError
from fsd_inference.network import Network, import_network
from tests.support.runs import dense

onnx: Any = pytest.importorskip("onnx", reason="no onnx: pip install 'fsd-inference[onnx]' to import ONNX models")
reference: Any = pytest.importorskip("onnx.reference")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

Array = NDArray[Any]


def matrix(rows: int, columns: int, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, columns)) * (random.random((rows, columns)) < 0.6)).astype(np.float32)


def model(
    nodes: list[Any],
    constants: dict[str, Array] | None = None,
    shape: tuple[Any, ...] = ("N", 4),
    opset: int = 21,
    **graph: Any,
) -> Any:
    """Return a model from x to the last node's first output."""
    output = nodes[-1].output[0]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        **graph,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="tests", producer_version="1.0")


def saved(folder: Path, proto: Any) -> Path:
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "model.onnx"


def outputs(network: Network, x: Array) -> Array:
    with fsd.Session(network, channel="serial") as session:
        return dense(session.infer(x).outputs)


def agrees(folder: Path, proto: Any, samples: int = 5, features: tuple[int, ...] = (4,)) -> Network:
    """Import a model, and compare its outputs with those of the reference evaluator."""
    network = import_network(saved(folder, proto))
    x = np.random.default_rng(7).standard_normal((samples, *features)).astype(np.float32)
    expected = reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(
        outputs(network, x.reshape(samples, -1)), expected.reshape(samples, -1), rtol=1e-4, atol=1e-5
    )
    return network


def refused(folder: Path, proto: Any) -> str:
    path = saved(folder, proto)
    with pytest.raises(FileFormatError) as caught:
        import_network(path)
    text = str(caught.value)
    assert text.startswith(f"{path}")
    assert "\n" not in text
    return text.removeprefix(f"{path}").removeprefix(": ")


def node(kind: str, *inputs: str, out: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [out], name=f"{out}_{kind}", **attributes)


LINEAR = node("MatMul", "x", "w", out="h")
W = {"w": matrix(4, 3)}
PER_OUTPUT = np.array([0.5, -2, 3], np.float32)
