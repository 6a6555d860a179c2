"""Import of tensors that are chosen instead of an ONNX model's outputs, and the check of such a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network import import_network
from tests.support.cli import fsd_in
from tests.support.onnx_models import LINEAR, TensorProto, W, helper, model, node, outputs, reference, refused, saved
from tests.support.small_onnx import small_onnx

X = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
# the tensor h, what may end a graph, what cannot be imported, and what does not depend on the samples
NODES = [
    LINEAR,
    node("Relu", "h", out="r"),
    node("Softmax", "h", out="p"),
    node("Sin", "r", out="s"),
    node("Erf", "r", out="e"),
    node("Neg", "w", out="c"),
]


def several() -> Any:
    proto = model(NODES, W)
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ps")
    return proto


@pytest.mark.parametrize("names", [["h"], ["r", "h"], ["h", "r", "h"]])
def test_the_tensors_are_side_by_side_in_the_order_given(tmp_path: Path, names: list[str]) -> None:
    path = saved(tmp_path, several())
    network = import_network(path, outputs=names)
    expected = np.concatenate(reference.ReferenceEvaluator(model(NODES[:2], W)).run(["h", "r"], {"x": X}), axis=1)
    columns = {"h": range(3), "r": range(3, 6)}
    chosen = [column for name in names for column in columns[name]]
    np.testing.assert_allclose(outputs(network, X), expected[:, chosen], rtol=1e-4, atol=1e-5)
    assert network.output is None
    assert str(network.origin).endswith(f"tensors {', '.join(names)}")
    assert fsd.check(network, path, X, outputs=names).agrees
    other = import_network(path, outputs=["h" if name == "r" else "r" for name in names])
    assert not fsd.check(other, path, X, outputs=names).agrees


def test_one_tensor_may_be_an_output_function(tmp_path: Path) -> None:
    path = saved(tmp_path, several())
    network = import_network(path, outputs=["p"])
    assert network.output == fsd.OutputFunction("softmax")
    assert fsd.check(network, path, X, outputs=["p"]).agrees


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["h", "q"], " has no tensor 'q' that a node makes; choose among its outputs ('p', 's')"),
        (["w"], " has no tensor 'w' that a node makes"),
        ([], "choose at least one tensor"),
        (["h", "p"], ": the tensor 'p' comes after softmax, which cannot be one of several outputs; choose the tensor"),
        (["h", "c"], ": the tensor 'c' does not depend on the samples; choose another"),
        (["h", "s"], ": node 's_Sin' (Sin) is not supported"),
        (["h", "e"], ": node 'e_Erf' (Erf) is not supported"),
    ],
)
def test_tensors_that_cannot_be_outputs(tmp_path: Path, names: list[str], said: str) -> None:
    path = saved(tmp_path, several())
    with pytest.raises(FileFormatError) as caught:
        import_network(path, outputs=names)
    assert said in str(caught.value)
    assert "problems" not in str(caught.value)


def test_a_model_of_several_outputs_says_which_can_be_chosen(tmp_path: Path) -> None:
    assert "the model has 2 outputs ('p', 's'), not one; choose some (--outputs)" in refused(tmp_path, several())


def test_other_sources_have_no_tensors_to_choose(tmp_path: Path) -> None:
    np.save(tmp_path / "layer-1.npy", np.eye(4))
    network = import_network(tmp_path)
    with pytest.raises(SettingError, match="outputs cannot be set for"):
        import_network(tmp_path, outputs=["h"])
    with pytest.raises(SettingError, match="outputs can be chosen for ONNX models only"):
        fsd.check(network, lambda x: x, X, outputs=["h"])
    with pytest.raises(InputError, match=r"outputs must be a list of names, such as \['h', 'r'\]"):
        import_network(tmp_path / "model.onnx", outputs="h,r")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    call = fsd_in(capsys)
    made = call("network", "import", path, "--outputs", "y,r", "-o", tmp_path / "net")
    assert made.code == 0
    assert "agrees with model.onnx" in made.stdout
    np.save(tmp_path / "x.npy", X[:, :3])
    checked = ("network", "check", tmp_path / "net", "--against", path, "--input", tmp_path / "x.npy", "--outputs")
    assert call(*checked, "y,r").code == 0
    assert call(*checked, "r,y").code == 1
