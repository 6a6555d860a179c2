"""Networks from ONNX models, compared with ONNX's own reference evaluator; and everything that is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.network import Network, import_network
from fsd_inference.network.importing.onnx_tensors import is_onnx
from tests.support.cli import fsd_in

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
        rows = session.infer(x).outputs
    assert rows is not None
    return np.asarray(rows.toarray())


def agrees(folder: Path, proto: Any, samples: int = 5, features: tuple[int, ...] = (4,)) -> Network:
    """Import a model, and compare its outputs with those of the reference evaluator."""
    network = import_network(saved(folder, proto))
    x = np.random.default_rng(7).standard_normal((samples, *features)).astype(np.float32)
    expected = reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(outputs(network, x.reshape(samples, -1)), expected, rtol=1e-4, atol=1e-5)
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


@st.composite
def chains(draw: st.DrawFn) -> Any:
    """Draw a chain of linear, elementwise and rectifying nodes."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes: list[Any] = []
    constants: dict[str, Array] = {}
    width, current = 4, "x"

    def constant(*shape: int) -> str:
        constants[f"c{len(constants)}"] = np.asarray(random.uniform(0.5, 2, shape) * random.choice([-1, 1]), np.float32)
        return f"c{len(constants) - 1}"

    kinds = ["Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Relu", "Clip", "BatchNormalization", "Identity", "Dropout"]
    for k, kind in enumerate([*draw(st.lists(st.sampled_from(kinds), max_size=7)), "Gemm"]):
        inputs, attributes = [current], {}
        if kind == "Gemm":
            outputs, turned = draw(st.integers(1, 5)), draw(st.booleans())
            inputs.append(constant(*((outputs, width) if turned else (width, outputs))))
            if draw(st.booleans()):
                inputs.append(constant(*draw(st.sampled_from([(), (1,), (outputs,), (1, outputs), (1, 1)]))))
            attributes = {"transB": int(turned), "alpha": 0.5, "beta": -1.5}
            width = outputs
        elif kind == "MatMul":
            outputs = draw(st.integers(1, 5))
            inputs.append(constant(width, outputs))
            width = outputs
        elif kind in {"Add", "Sub", "Mul", "Div"}:
            inputs.append(constant(*draw(st.sampled_from([(), (1,), (width,), (1, width)]))))
            if kind != "Div" and draw(st.booleans()):
                inputs.reverse()
        elif kind == "Clip":
            constants |= {"low": np.array(0, np.float32), "high": np.array(1.5, np.float32)}
            inputs += ["low", "high"] if draw(st.booleans()) else ["low"]
        elif kind == "BatchNormalization":
            inputs += [constant(width) for _ in range(3)]
            constants[f"v{k}"] = random.uniform(0.5, 2, width).astype(np.float32)
            inputs.append(f"v{k}")
        nodes.append(node(kind, *inputs, out=f"t{k}", **attributes))
        current = f"t{k}"
    return model(nodes, constants)


@given(chains())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chains_compute_what_the_reference_computes(tmp_path: Path, proto: Any) -> None:
    agrees(tmp_path, proto)


@pytest.mark.parametrize(
    "nodes",
    [
        [LINEAR],
        [LINEAR, node("Relu", "h")],
        [LINEAR, node("Identity", "h")],
        [node("Cast", "x", out="d", to=TensorProto.FLOAT), node("MatMul", "d", "w")],
        [LINEAR, node("Dropout", "h", "ratio", "off")],
        [LINEAR, node("Mul", "h", "c")],
        [LINEAR, node("Sub", "c", "h")],
        [LINEAR, node("Relu", "h", out="r"), node("Add", "r", "c")],
        [LINEAR, node("Relu", "h", out="r"), node("Mul", "r", "c", out="m"), node("Relu", "m")],
        [LINEAR, node("Flatten", "h")],
        [LINEAR, node("Reshape", "h", "sizes")],
        [LINEAR, node("Unsqueeze", "h", "one", out="u"), node("Squeeze", "u", "one")],
    ],
)
def test_each_operator(tmp_path: Path, nodes: list[Any]) -> None:
    constants = W | {"c": PER_OUTPUT, "sizes": np.array([-1, 3]), "one": np.array([1])}
    constants |= {"ratio": np.array(0.5, np.float32), "off": np.array(False)}
    agrees(tmp_path, model(nodes, constants))


def test_neighbours_become_one_layer_without_zeros(tmp_path: Path) -> None:
    nodes = [node("Mul", "x", "s", out="m"), node("MatMul", "m", "w", out="h"), node("Add", "h", "c", out="a")]
    nodes += [node("Clip", "a", "low", "high", out="r"), node("Gemm", "r", "v")]
    constants = W | {"s": np.array([2, 0, 1, 1], np.float32), "c": PER_OUTPUT, "v": matrix(3, 2, 1)}
    constants |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    network = agrees(tmp_path, model(nodes, constants))
    assert network.widths == (4, 3, 2)
    assert [(layer.activation.kind, layer.activation.clip) for layer in network] == [
        ("clipped_relu", 6),
        ("identity", 0),
    ]
    assert network.layer(0).connections == np.count_nonzero(constants["w"][[0, 2, 3]])
    assert (network.name, network.origin) == ("model", "ONNX model.onnx, opset 21, producer tests 1.0")


def test_images_are_flattened_in_order(tmp_path: Path) -> None:
    nodes = [node("Mul", "x", "s", out="m"), node("Flatten", "m", out="f"), node("MatMul", "f", "w")]
    constants = {"s": np.array([[[2.0]], [[3.0]]], np.float32), "w": matrix(12, 3)}
    agrees(tmp_path, model(nodes, constants, ("N", 2, 2, 3)), features=(2, 2, 3))


def test_attributes_of_old_opsets(tmp_path: Path) -> None:
    nodes = [node("Unsqueeze", "x", out="u", axes=[1]), node("Squeeze", "u", out="s", axes=[1])]
    nodes += [node("MatMul", "s", "w", out="h"), node("Clip", "h", min=0.0, max=0.5)]
    agrees(tmp_path, model(nodes, W, opset=10))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_left_out(tmp_path: Path, kind: str) -> None:
    proto = model([LINEAR, node(kind, "h", out="p"), node("ArgMax", "p", axis=1)], W)
    network = import_network(saved(tmp_path, proto))
    x = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    expected = reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    assert np.array_equal(outputs(network, x).argmax(axis=1), expected.ravel())
    assert network.origin is not None
    assert network.origin.endswith(f"; left out: {kind}, ArgMax")


@pytest.mark.parametrize("number", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_weights_of_each_float_type(tmp_path: Path, number: int) -> None:
    exact = np.round(matrix(4, 3) * 4) / 4
    weight = helper.make_tensor("raw", number, (4, 3), exact.ravel())
    proto = model([node("Cast", "raw", out="w", to=TensorProto.FLOAT), LINEAR])
    proto.graph.initializer.append(weight)
    network = agrees(tmp_path, proto)
    assert np.array_equal(network.layer(0).weights.toarray(), exact.T)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantized_weights(tmp_path: Path, axis: int | None) -> None:
    size = () if axis is None else ((4,), (3,))[axis]
    constants: dict[str, Array] = {
        "q": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
        "scale": np.full(size, 0.3, np.float32),
        "zero": np.full(size, 2, np.int8),
    }
    attributes = {} if axis is None else {"axis": axis}
    agrees(tmp_path, model([node("DequantizeLinear", "q", "scale", "zero", out="w", **attributes), LINEAR], constants))


def test_constants_are_folded(tmp_path: Path) -> None:
    value = numpy_helper.from_array(matrix(12, 1))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=value),
        node("Reshape", "k", "sizes", out="r"),
        node("Transpose", "r", out="t", perm=[1, 0]),
        node("Mul", "t", "c", out="m"),
        node("Add", "m", "c", out="w"),
        LINEAR,
    ]
    agrees(tmp_path, model(nodes, {"sizes": np.array([3, -1]), "c": PER_OUTPUT}))


@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_initializers(tmp_path: Path, coordinates: bool) -> None:
    dense = W["w"]
    places = np.argwhere(dense) if coordinates else np.flatnonzero(dense)
    values = numpy_helper.from_array(dense[dense != 0], "w")
    tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "i"), [4, 3])
    network = import_network(saved(tmp_path, model([LINEAR], sparse_initializer=[tensor])))
    assert np.array_equal(network.layer(0).weights.toarray(), dense.T)
    turned = [node("Transpose", "w", out="t"), node("Gemm", "x", "t", transB=1, alpha=2.0)]
    network = import_network(saved(tmp_path, model(turned, sparse_initializer=[tensor])))
    assert np.array_equal(network.layer(0).weights.toarray(), 2 * dense.T)
    tensor.dims[0] = 3 if coordinates else 1
    assert "has indices that do not match" in refused(tmp_path, model([LINEAR], sparse_initializer=[tensor]))
    tensor.dims[0] = 2**40
    assert "is not a vector or matrix of up to" in refused(tmp_path, model([LINEAR], sparse_initializer=[tensor]))


def external(folder: Path, location: str, **entries: int) -> Any:
    proto = model([LINEAR], W)
    weight = proto.graph.initializer[0]
    (folder / "w.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return proto


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    network = import_network(saved(folder, external(folder, "w.bin", offset=0, length=48)))
    assert np.array_equal(network.layer(0).weights.toarray(), W["w"].T)
    (tmp_path / "out.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    for location in ["../out.bin", str(tmp_path / "out.bin"), "link.bin"]:
        assert "outside the model's folder; move it into that folder" in refused(folder, external(folder, location))
    assert "'none.bin', which is missing" in refused(folder, external(folder, "none.bin"))
    assert "needs 48 bytes at 4 in 'w.bin'" in refused(folder, external(folder, "w.bin", offset=4))
    assert "does not hold them" in refused(folder, external(folder, "w.bin", length=47))


SCALAR = np.array(1, np.float32)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([LINEAR, node("Sigmoid", "h")], "node 'y_Sigmoid' (Sigmoid) is not supported; leave it out and apply it"),
        ([LINEAR, node("Tanh", "h")], "node 'y_Tanh' (Tanh) is not supported; export the model as a chain"),
        ([LINEAR, node("Softmax", "h", out="s"), node("Relu", "s")], "(Relu) follows Softmax, which is supported at"),
        ([LINEAR, node("ArgMax", "h", out="s", axis=1), node("Softmax", "s")], "(Softmax) follows ArgMax"),
        ([LINEAR, node("Softmax", "h", axis=0)], "(Softmax) is not over the outputs of each sample"),
        ([LINEAR, node("Add", "h", "h")], "(Add) combines two tensors that depend on the input"),
        ([LINEAR, node("MatMul", "x", "w")], "(MatMul) takes 'x', which another node has taken already"),
        ([node("MatMul", "w", "x")], "(MatMul) has the constant matrix on the left"),
        ([node("Gemm", "x", "w", transC=1)], "(Gemm) has the attribute 'transC', which opset 21 does not define"),
        ([node("Gemm", "x", "w", transA=1)], "(Gemm) transposes its samples (transA)"),
        ([LINEAR, node("MatMul", "h", "w")], "(MatMul) takes 4 features, but the node before it makes 3"),
        ([LINEAR, node("Div", "c", "h")], "(Div) divides a constant by the samples"),
        ([LINEAR, node("Add", "h", "four")], "(Add) has a constant (4, float32) that is not one float per feature (3)"),
        (
            [LINEAR, node("Clip", "h", "one", "one")],
            "(Clip) is supported with the minimum 0 and a positive maximum only",
        ),
        ([LINEAR, node("Clip", "h")], "(Clip) is supported with the minimum 0 and a positive maximum only"),
        ([LINEAR, node("Cast", "h", to=TensorProto.INT64)], "(Cast) casts to another type than FLOAT, FLOAT16"),
        ([LINEAR, node("Dropout", "h", "one", "on")], "(Dropout) is in training mode; export the model for inference"),
        (
            [LINEAR, node("BatchNormalization", "h", *"cccc", training_mode=1)],
            "(BatchNormalization) is in training mode",
        ),
        ([LINEAR, node("Flatten", "h", axis=0)], "(Flatten) does not leave samples x features"),
        ([LINEAR, node("Reshape", "h", "flat")], "(Reshape) does not leave samples x features"),
        ([LINEAR, node("Unsqueeze", "h", "axis")], "the output does not have the shape samples x features"),
        ([LINEAR, node("Relu", "later")], "(Relu) takes 'later', which no node before it makes; sort the nodes"),
        ([LINEAR, node("Relu", "h", out="h")], "(Relu) makes 'h', which is there already"),
        ([LINEAR, node("Relu", "h", domain="my.own")], "(Relu) is of the domain 'my.own', which is not supported"),
        ([node("Identity", "x")], "the model has no fully connected layer"),
        ([node("Neg", "w", out="n"), node("MatMul", "x", "n")], "(Neg) is not supported on constants; fold"),
        ([LINEAR, node("Gemm", "h")], "(Gemm) has inputs or attributes that do not fit the operator"),
    ],
)
def test_each_refusal(tmp_path: Path, nodes: list[Any], said: str) -> None:
    constants = W | {"c": PER_OUTPUT, "one": SCALAR, "four": np.ones(4, np.float32)}
    constants |= {"flat": np.array([-1]), "axis": np.array([1]), "on": np.array(True)}
    assert said in refused(tmp_path, model(nodes, constants))


def test_all_problems_are_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [
        node("Conv", "x", "w", out=f"t{k}") if k == 0 else node("Tanh", f"t{k - 1}", out=f"t{k}") for k in range(14)
    ]
    nodes += [node("Clip", "t13", "one", out="a"), node("MatMul", "a", "w", out="b"), node("Add", "b", "four")]
    proto = model(nodes, W | {"one": SCALAR, "four": np.ones(4, np.float32)})
    proto.graph.output.add(name="t3")
    path = saved(tmp_path, proto)
    said = fsd_in(capsys)("network", "import", path, "-o", tmp_path / "net")
    text = said.error()
    assert said.code == 2
    assert all(
        f"'{made.output[0]}_{made.op_type}' ({made.op_type})" in text for made in nodes if made.name != "b_MatMul"
    )
    assert "4 problems" in text
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    weight = matrix(4, 3).astype(np.float64)
    weight[2, 1] = value
    assert "node 'h_MatMul' (MatMul): the weight of output 1 and input 2 (counted" in refused(
        tmp_path, model([LINEAR], {"w": weight})
    )


def changed(change: Callable[[Any], object]) -> Any:
    proto = model([LINEAR], W)
    change(proto)
    return proto


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m, "ir_version", 999), " has the ONNX IR version 999, but the installed onnx reads"),
        (lambda m: setattr(m.opset_import[0], "version", 999), " has the ONNX opset 999, but 7 to"),
        (lambda m: setattr(m.opset_import[0], "version", 6), " has the ONNX opset 6, but 7 to"),
        (lambda m: m.ClearField("opset_import"), " has the ONNX opset none, but 7 to"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40), "do not fill its shape, 1099511627776 x 3"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -4), "has a negative dimension"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 8), "is of type STRING"),
        (lambda m: m.graph.input.add(name="z"), "the model has 2 inputs and 1 outputs, not one"),
        (lambda m: m.graph.output.add(name="z"), "the model has 1 inputs and 2 outputs, not one"),
        (lambda m: setattr(m.graph.output[0], "name", "z"), "ends with 'h', but its output is 'z'"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 7), "its input 'x' is of type INT64"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**40), "more than 16,777,216"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop(), "does not have the shape samples x features"),
    ],
)
def test_models_that_cannot_be_read(tmp_path: Path, change: Callable[[Any], object], said: str) -> None:
    assert said in refused(tmp_path, changed(change))


def test_truncated_files(tmp_path: Path) -> None:
    data = model([LINEAR, node("Relu", "h")], W | {"c": PER_OUTPUT}).SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(0, len(data) - 8, 7):  # the last bytes are the opset
        path.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match=r"model\.onnx"):
            import_network(path)


def test_a_safetensors_file_whose_length_looks_like_a_model() -> None:
    length = (0x120108).to_bytes(8, "little")
    assert is_onnx(Path("model"), length + b"x")
    assert not is_onnx(Path("model"), length + b"{")


def test_settings_of_other_formats_and_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, model([LINEAR], W))
    with pytest.raises(SettingError, match=r"transpose cannot be set for .*, which is an ONNX model; leave it out"):
        import_network(path, transpose=True)
    renamed = path.rename(tmp_path / "model")
    assert import_network(renamed).widths == (4, 3)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingError) as caught:
        import_network(renamed)
    assert str(caught.value) == f"{renamed} needs onnx, which is not installed: pip install 'fsd-inference[onnx]'"
