"""Networks from ONNX models, compared with ONNX's own reference evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError
from fsd_inference.network import Activation, import_network
from fsd_inference.network.output_function import OutputFunction, OutputKind
from tests.support.cli import fsd_in
from tests.support.onnx_models import (
    LINEAR,
    PER_OUTPUT,
    Array,
    TensorProto,
    W,
    agrees,
    helper,
    matrix,
    model,
    node,
    numpy_helper,
    outputs,
    reference,
    saved,
)


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
        [LINEAR, node("Clip", "h", "low", "half")],
        [LINEAR, node("Clip", "h", "", "half")],
        [LINEAR, node("Max", "h", "half", "low")],
        [LINEAR, node("Max", "h", "c")],
        [LINEAR, node("Min", "h", "c")],
        [LINEAR, node("LeakyRelu", "h", alpha=0.25)],
        [LINEAR, node("PRelu", "h", "c")],
        [LINEAR, node("Sigmoid", "h")],
        [LINEAR, node("Tanh", "h")],
        [LINEAR, node("Gelu", "h")],
        [LINEAR, node("Gelu", "h", approximate="tanh")],
        [LINEAR, node("Elu", "h", alpha=0.5)],
        [LINEAR, node("Selu", "h")],
        [LINEAR, node("Celu", "h", alpha=0.5)],
        [LINEAR, node("Softplus", "h")],
        [LINEAR, node("HardSwish", "h")],
        [LINEAR, node("HardSigmoid", "h", alpha=0.25)],
        [LINEAR, node("Abs", "h")],
        [LINEAR, node("Neg", "h")],
        [LINEAR, node("Relu", "h", out="r"), node("Add", "r", "h")],
        [LINEAR, node("Relu", "h", out="r"), node("Sub", "h", "r")],
        [LINEAR, node("Sum", "h", "c", "h")],
        [LINEAR, node("Mean", "h", "c")],
        [LINEAR, node("Relu", "h", out="r"), node("Concat", "r", "x", axis=-1)],
        [LINEAR, node("Gather", "h", "places", axis=1)],
        [LINEAR, node("Neg", "w", out="n"), node("MatMul", "x", "n")],
        [node("Identity", "x")],
    ],
)
def test_each_operator(tmp_path: Path, nodes: list[Any]) -> None:
    constants = W | {"c": PER_OUTPUT, "sizes": np.array([-1, 3]), "one": np.array([1])}
    constants |= {"ratio": np.array(0.5, np.float32), "off": np.array(False), "places": np.array([2, -3, 2])}
    constants |= {"low": np.array(-0.25, np.float32), "half": np.array(0.5, np.float32)}
    agrees(tmp_path, model(nodes, constants))


def test_neighbours_become_one_layer_without_zeros(tmp_path: Path) -> None:
    nodes = [node("Mul", "x", "s", out="m"), node("MatMul", "m", "w", out="h"), node("Add", "h", "c", out="a")]
    nodes += [node("Clip", "a", "low", "high", out="r"), node("Gemm", "r", "v")]
    constants = W | {"s": np.array([2, 0, 1, 1], np.float32), "c": PER_OUTPUT, "v": matrix(3, 2, 1)}
    constants |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    network = agrees(tmp_path, model(nodes, constants))
    assert network.widths == (4, 3, 2)
    assert [layer.activation for layer in network] == [Activation("clipped_relu", 6), Activation("identity")]
    assert network.layer(0).connections == np.count_nonzero(constants["w"][[0, 2, 3]])
    assert (network.name, network.origin) == ("model", "ONNX model.onnx, opset 21, producer tests 1.0")


def test_images_are_flattened_in_order(tmp_path: Path) -> None:
    nodes = [node("Mul", "x", "s", out="m"), node("Flatten", "m", out="f"), node("MatMul", "f", "w")]
    constants = {"s": np.array([[[2.0]], [[3.0]]], np.float32), "w": matrix(12, 3)}
    agrees(tmp_path, model(nodes, constants, ("N", 2, 2, 3)), features=(2, 2, 3))


FILTERS = np.random.default_rng(3).standard_normal((4, 2, 3, 2)).astype(np.float32)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", "x", "filters", "four")],
        [node("Conv", "x", "filters", pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])],
        [node("Conv", "x", "filters", auto_pad="SAME_UPPER", strides=[2, 2])],
        [node("Conv", "x", "filters", auto_pad="SAME_LOWER")],
        [node("Conv", "x", "each", group=2)],
        [node("MaxPool", "x", kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 1])],
        [node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 1])],
        [node("MaxPool", "x", kernel_shape=[4, 2], strides=[3, 3], ceil_mode=1)],
        [node("AveragePool", "x", kernel_shape=[2, 2], pads=[1, 1, 1, 1])],
        [node("AveragePool", "x", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)],
        [node("GlobalAveragePool", "x")],
        [node("GlobalMaxPool", "x", out="g"), node("Flatten", "g")],
        [node("ReduceMean", "x", "last", keepdims=0)],
        [node("ReduceSum", "x", "channel")],
        [node("ReduceMax", "x", "last")],
        [node("ReduceMin", "x", "last")],
        [node("BatchNormalization", "x", "pair", "pair", "pair", "pair")],
        [node("Transpose", "x", perm=[0, 3, 1, 2])],
        [node("Slice", "x", "starts", "ends", "channel", "steps")],
        [node("Pad", "x", "pads", "two")],
        [node("Pad", "x", "pads", "two", out="p"), node("MaxPool", "p", kernel_shape=[2, 2])],
        [node("Mul", "x", "maps", out="m"), node("Add", "m", "x")],
        [node("MatMul", "x", "square")],
        [node("MatMul", "rows", "x")],
        [node("Expand", "x", "wide")],
        [node("Tile", "x", "twice")],
        [node("Reshape", "x", "sizes", out="r"), node("Conv", "r", "line")],
        [
            node("Shape", "x", out="s"),
            node("Gather", "s", "first", out="n"),
            node("Concat", "n", "rest", out="t", axis=0),
            node("Reshape", "x", "t"),
        ],
    ],
)
def test_operators_on_images(tmp_path: Path, nodes: list[Any]) -> None:
    random = np.random.default_rng(5)
    constants = {"filters": FILTERS, "each": FILTERS[:, :1], "four": matrix(1, 4)[0], "two": np.array(2, np.float32)}
    constants |= {
        "pair": np.array([0.5, 2.0], np.float32),
        "maps": random.standard_normal((2, 1, 5)).astype(np.float32),
    }
    constants |= {"last": np.array([-1]), "channel": np.array([1]), "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2])}
    constants |= {"starts": np.array([-1]), "ends": np.array([-9]), "steps": np.array([-1])}
    constants |= {"square": matrix(5, 5), "rows": matrix(3, 6), "wide": np.array([1, 2, 6, 5]), "first": np.array([0])}
    constants |= {"sizes": np.array([0, 4, 15]), "line": random.standard_normal((2, 4, 3)).astype(np.float32)}
    constants |= {"rest": np.array([-1]), "twice": np.array([1, 2, 1, 2])}
    used = {name for one in nodes for name in one.input}
    kept = {name: value for name, value in constants.items() if name in used}
    agrees(tmp_path, model(nodes, kept, ("N", 2, 6, 5)), features=(2, 6, 5))


def test_each_part_of_a_split_is_imported(tmp_path: Path) -> None:
    split = helper.make_node("Split", ["h", "sizes"], ["a", "b"], axis=1)
    nodes = [LINEAR, split, node("Relu", "a", out="r"), node("Concat", "b", "r", axis=1)]
    agrees(tmp_path, model(nodes, W | {"sizes": np.array([1, 2])}))


GELU = [node("Div", "h", "root", out="d"), node("Erf", "d", out="e"), node("Add", "e", "one", out="a")]
CUBE = [node("Mul", "h", "h", out="s"), node("Mul", "s", "h", out="cube")]
TANH = [node("Mul", "cube", "small", out="k"), node("Add", "h", "k", out="j"), node("Mul", "j", "factor", out="t")]
TANH += [node("Tanh", "t", out="u"), node("Add", "u", "one", out="a")]


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ([*GELU, node("Mul", "h", "a", out="m"), node("Mul", "m", "half")], "gelu"),
        ([*GELU, node("Mul", "h", "half", out="m"), node("Mul", "m", "a")], "gelu"),
        ([*CUBE, *TANH, node("Mul", "h", "half", out="m"), node("Mul", "m", "a")], "gelu_tanh"),
        (
            [node("Pow", "h", "three", out="cube"), *TANH, node("Mul", "h", "a", out="m"), node("Mul", "m", "half")],
            "gelu_tanh",
        ),
        ([node("Sigmoid", "h", out="s"), node("Mul", "h", "s")], "silu"),
        ([node("Sigmoid", "h", out="s"), node("Mul", "s", "h")], "silu"),
        ([node("HardSigmoid", "h", out="s", alpha=1 / 6), node("Mul", "h", "s")], "hard_swish"),
        (
            [
                node("Add", "h", "three", out="p"),
                node("Clip", "p", "zero", "six", out="q"),
                node("Mul", "h", "q", out="m"),
                node("Div", "m", "six"),
            ],
            "hard_swish",
        ),
        (
            [
                node("Neg", "h", out="n"),
                node("Exp", "n", out="e"),
                node("Add", "e", "one", out="p"),
                node("Div", "h", "p"),
            ],
            "silu",
        ),
    ],
)
def test_activations_of_several_nodes_are_recognized(tmp_path: Path, nodes: list[Any], kind: str) -> None:
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5, "small": 0.044715, "factor": (2 / np.pi) ** 0.5, "three": 3}
    numbers |= {"zero": 0, "six": 6}
    used = {name for one in nodes for name in one.input}
    constants = W | {name: np.array(value, np.float32) for name, value in numbers.items() if name in used}
    network = agrees(tmp_path, model([LINEAR, *nodes], constants))
    assert {group.activation.kind for layer in network for group in layer.groups} <= {kind, "identity"}


def test_a_residual_network(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x", "stem", out="c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c", "n", "n", "n", "n", out="b"),
        node("Relu", "b", out="r"),
        node("Conv", "r", "f", out="d", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "d", "n", "n", "n", "n", out="e"),
        node("Add", "e", "r", out="s"),
        node("Relu", "s", out="t"),
        node("GlobalAveragePool", "t", out="g"),
        node("Flatten", "g", out="v"),
        node("Gemm", "v", "w"),
    ]
    random = np.random.default_rng(8)
    constants = {"stem": random.standard_normal((4, 1, 3, 3)), "f": random.standard_normal((4, 4, 3, 3))}
    constants |= {"n": np.array([0.5, 1, 1.5, 2]), "w": random.standard_normal((4, 3))}
    proto = model(nodes, {name: value.astype(np.float32) for name, value in constants.items()}, ("N", 1, 6, 6))
    network = agrees(tmp_path, proto, features=(1, 6, 6))
    assert network.widths == (36, 144, 144, 4, 3)


def test_connections_are_limited(tmp_path: Path) -> None:
    proto = model([node("Conv", "x", "f")], {"f": np.ones((2, 1, 3, 3), np.float32)}, ("N", 1, 6, 6))
    path = saved(tmp_path, proto)
    assert import_network(path, most_connections=288).connections == 288
    with pytest.raises(FileFormatError, match=r"\(Conv\) becomes 288 connections, .* may have 287"):
        import_network(path, most_connections=287)


def test_the_command_says_what_a_graph_becomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = model([node("Conv", "x", "f")], {"f": np.ones((2, 1, 3, 3), np.float32)}, ("N", 1, 6, 6))
    command = ("network", "import", saved(tmp_path, proto), "-o", tmp_path / "net", "--most-connections")
    assert fsd_in(capsys)(*command, 287).code == 2
    said = fsd_in(capsys)(*command, 288)
    assert said.code == 0
    assert "becomes 288 connections: 288 of node 'y_Conv' (Conv)" in said.stderr


def test_attributes_of_old_opsets(tmp_path: Path) -> None:
    nodes = [node("Unsqueeze", "x", out="u", axes=[1]), node("Squeeze", "u", out="s", axes=[1])]
    nodes += [node("MatMul", "s", "w", out="h"), node("Clip", "h", min=0.0, max=0.5)]
    agrees(tmp_path, model(nodes, W, opset=10))


@pytest.mark.parametrize(("kind", "name"), [("Softmax", "softmax"), ("LogSoftmax", "log_softmax")])
def test_a_softmax_at_the_end_is_the_output_function(tmp_path: Path, kind: str, name: OutputKind) -> None:
    network = agrees(tmp_path, model([LINEAR, node(kind, "h", out="p"), node("Identity", "p")], W))
    assert network.output == OutputFunction(name)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ArgMax", "h", axis=1)],
        [node("Softmax", "h", out="p"), node("ArgMax", "p", axis=-1, keepdims=0)],
        [node("ArgMax", "h", axis=1, keepdims=0, out="a"), node("Cast", "a", to=TensorProto.INT32)],
        [helper.make_node("TopK", ["h", "two"], ["values", "y"], name="top")],
    ],
)
def test_a_choice_of_outputs_is_the_output_function(tmp_path: Path, nodes: list[Any]) -> None:
    proto = model([LINEAR, *nodes], W | {"two": np.array([2])})
    proto.graph.output[0].name = "y"
    network = import_network(saved(tmp_path, proto))
    x = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    with fsd.Session(network, channel="serial") as session:
        found = session.infer(x).top
    expected = reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    assert found is not None
    assert np.array_equal(found, expected.reshape(9, -1))


def test_indices_that_become_floats_are_compared_as_indices(tmp_path: Path) -> None:
    nodes = [LINEAR, node("ArgMax", "h", axis=1, out="a"), node("Cast", "a", to=TensorProto.FLOAT)]
    path = saved(tmp_path, model(nodes, W))
    x = np.random.default_rng(2).standard_normal((9, 4))
    assert fsd.check(import_network(path), path, x).agrees
    turned = saved(tmp_path, model(nodes, {"w": W["w"][:, ::-1]}))
    assert not fsd.check(import_network(turned), saved(tmp_path, model(nodes, W)), x).agrees


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


@pytest.mark.parametrize(
    ("attributes", "shape", "expected"),
    [
        ({"kernel_shape": [3], "strides": [3], "ceil_mode": 1}, (7,), [[1, 2, 3], [4, 5, 6], [7]]),
        ({"kernel_shape": [2], "strides": [3], "auto_pad": "SAME_UPPER"}, (6,), [[1, 2], [4, 5]]),
        ({"kernel_shape": [2], "strides": [3], "auto_pad": "SAME_UPPER"}, (7,), [[1, 2], [4, 5], [7]]),
        (
            {"kernel_shape": [2, 2], "pads": [0, 1, 0, 1]},
            (3, 2),
            [[1, 3], [1, 2, 3, 4], [2, 4], [3, 5], [3, 4, 5, 6], [4, 6]],
        ),
    ],
)
def test_windows_of_pools(
    tmp_path: Path, attributes: dict[str, Any], shape: tuple[int, ...], expected: list[list[int]]
) -> None:
    """Expected by hand: the reference evaluator of onnx 1.23.2 and ONNX Runtime 1.32.0 are wrong or fail for some."""
    x = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(1, 1, *shape)
    for operator, reduce in (("MaxPool", np.max), ("AveragePool", np.mean)):
        proto = model([helper.make_node(operator, ["x"], ["y"], **attributes)], shape=("N", 1, *shape))
        found = outputs(import_network(saved(tmp_path, proto)), x.reshape(1, -1))[0]
        np.testing.assert_allclose(found, [reduce(window) for window in expected], rtol=1e-6)
