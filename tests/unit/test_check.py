"""Comparison of networks with models: figures against an answer by hand, models of all kinds, storage and command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network import Network
from fsd_inference.network.fidelity import Check, compared
from fsd_inference.network.importing.tracing import NamedRefs, Traced, traced
from tests.support.cli import Fsd, fsd_in
from tests.support.small_onnx import WEIGHTS, small_onnx

X = np.random.default_rng(3).standard_normal((40, 3)).astype(np.float32)


@pytest.fixture
def network() -> Network:
    return Network.from_matrices([WEIGHTS])


def test_figures_by_hand() -> None:
    theirs = np.array([[1.0, 2.0], [3.0, -8.0], [0.0, 1.0]])
    ours = theirs + np.array([[0.0, 0.25], [0.0, 0.0], [1.5, 0.0]])
    found = compared(ours, theirs, "model", 0.1)
    assert (found.samples, found.largest, found.scale, found.bound) == (3, 1.5, 8.0, 0.1 * 8)
    assert found.mean == 1.75 / 6
    assert found.same_argmax == 2 / 3
    assert found.worst == ((2, 1.5), (0, 0.25))
    assert not found.agrees
    assert "DIFFERS from model on 3 samples" in str(found)
    assert compared(ours, theirs, "model", 0.1875).agrees  # 1.5 is exactly allowed


def test_small_outputs_have_an_absolute_bound() -> None:
    assert compared(np.array([[0.00005]]), np.array([[0.0]]), "model", 1e-4).agrees
    assert not compared(np.array([[0.0002]]), np.array([[0.0001]]), "model", 1e-5).agrees


def test_a_function(network: Network) -> None:
    found = fsd.check(network, lambda x: x @ WEIGHTS.T, X)
    assert found.agrees
    assert found.same_argmax == 1
    assert found.against == "the function <lambda>"
    shifted = fsd.check(network, lambda x: x @ WEIGHTS.T + [0, 1], X, tolerance=1e-3)
    assert not shifted.agrees
    assert shifted.largest == pytest.approx(1, abs=1e-6)
    assert shifted.mean == pytest.approx(0.5, abs=1e-6)
    assert fsd.check(network, lambda x: x @ WEIGHTS.T + [0, 1], X, tolerance=2).agrees


def test_samples_keep_their_shape_for_the_model_and_may_be_sparse(network: Network) -> None:
    seen: list[tuple[int, ...]] = []

    def model(x: Any) -> Any:
        seen.append(x.shape)
        return x.reshape(len(x), -1) @ WEIGHTS.T

    for given in (X.reshape(40, 1, 3), sparse.csr_array(X), X.tolist()):
        assert fsd.check(network, model, given).agrees
    assert seen == [(40, 1, 3), (40, 3), (40, 3)]


def test_models_that_cannot_be_compared(network: Network, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    for against, reason in [
        (3, "with a file, a module or a function, not with 3"),
        (tmp_path / "none.onnx", "cannot be read: No such file"),
        (tmp_path / "text.txt", "neither an ONNX model nor an exported program"),
        (lambda x: x, "has 2 outputs, but the function <lambda> returns 3"),
        (lambda x: x[:1], "an array of 1 x 3 for 40 samples"),
        (lambda x: 1 / 0, "cannot be run on this input of 40 x 3: division by zero"),
        (lambda x: x.astype(str), "returns values of type <U32; they must be real numbers"),
        (lambda x: x[:, :2] * np.where(np.arange(40) == 7, np.nan, 1)[:, None], "not finite for sample 7"),
    ]:
        with pytest.raises(InputError, match=reason):
            fsd.check(network, against, X)
    with pytest.raises(SettingError, match="the tolerance must be a number from 0, such as 1e-4, not nan"):
        fsd.check(network, lambda x: x[:, :2], X, tolerance=np.nan)
    with pytest.raises(InputError, match="must be samples x features"):
        fsd.check(network, lambda x: x, X[0])
    with pytest.raises(InputError, match="4 features per sample"):
        fsd.check(network, lambda x: x, np.zeros((2, 4)))


@pytest.mark.parametrize(("kind", "k"), [("softmax", None), ("log_softmax", None), ("argmax", None), ("top_k", 2)])
def test_output_functions(kind: Any, k: int | None) -> None:
    network = Network.from_matrices([WEIGHTS], output=fsd.OutputFunction(kind, k))
    scores = X.astype(np.float64) @ WEIGHTS.T
    powers = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = {
        "softmax": powers,
        "log_softmax": np.log(powers),
        "argmax": scores.argmax(axis=1),
        "top_k": np.argsort(-scores, axis=1)[:, :2],
    }[kind]
    assert fsd.check(network, lambda _: expected, X).agrees
    other = expected[::-1]
    found = fsd.check(network, lambda _: other, X)
    assert not found.agrees
    assert found.same_argmax < 1


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (np.zeros(40, int), "selects 2 outputs, but the function <lambda> returns 1 per sample"),
        (np.zeros((40, 3), int), "selects 2 outputs, but the function <lambda> returns 3 per sample"),
        (np.full((40, 2), 2), "selects output 2, but the network has outputs 0 to 1"),
        (np.full((40, 2), -1), "selects output -1, but the network has outputs 0 to 1"),
    ],
)
def test_selections_of_another_model(chosen: Any, reason: str) -> None:
    network = Network.from_matrices([WEIGHTS], output=fsd.OutputFunction("top_k", 2))
    with pytest.raises(InputError, match=reason):
        fsd.check(network, lambda _: chosen, X)


def test_a_model_that_cannot_be_loaded(network: Network, tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    onnx: Any = pytest.importorskip("onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "Unknown"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"cannot run .*model\.onnx: .*Unknown"):
        fsd.check(network, path, X)


def test_tensors_are_found_in_the_first_layer_that_holds_them() -> None:
    layers = [np.array([5, 4, 6]), np.array([7, 4]), np.array([9, 8])]
    tensors = {"a": [[4, 5]], "view": [4, 5], "b": [7], "both": [7, 4], "spread": [7, 5], "gone": [3], "c": [-1, 8]}
    named = [NamedRefs(name, name.upper(), np.array(refs)) for name, refs in tensors.items()]
    found = traced(layers, named)
    assert [(one.layer, one.name, one.label, one.neurons.tolist()) for one in found] == [
        (0, "a", "A", [1, 0]),
        (1, "b", "B", [0]),
        (1, "both", "BOTH", [0, 1]),
    ]
    assert isinstance(found[0], Traced)


def test_a_check_is_stored_with_the_network(network: Network, tmp_path: Path) -> None:
    assert network.checked is None
    found = fsd.check(network, lambda x: x @ WEIGHTS.T, X)
    network.save(tmp_path / "net", check=found)
    stored = Network.load(tmp_path / "net")
    assert stored.checked == found
    stored.save(tmp_path / "copy")
    assert Network.load(tmp_path / "copy").checked == found
    assert stored.digest == network.digest


@pytest.mark.parametrize(
    "change", [{"samples": "3"}, {"largest": None}, {"worst": [[1]]}, {"more": 1}, {"parts_at": 3}]
)
def test_a_damaged_check_is_refused(network: Network, tmp_path: Path, change: dict[str, Any]) -> None:
    network.save(tmp_path / "net", check=fsd.check(network, lambda x: x @ WEIGHTS.T, X))
    manifest = tmp_path / "net" / "network.json"
    content = json.loads(manifest.read_text())
    content["check"] |= change
    manifest.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match="'check' is missing or invalid"):
        Network.load(tmp_path / "net")


def test_a_check_survives_json() -> None:
    found = Check("model", 3, 0.5, 0.25, 1.0, 2.0, 1e-4, ((1, 0.5),), "layer 0, relu")
    assert Check.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.mark.parametrize("batch", ["N", 1, 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [("FLOAT", 1e-4), ("DOUBLE", 1e-4), ("FLOAT16", 0.05)])
def test_an_small_onnx(tmp_path: Path, batch: Any, dtype: str, tolerance: float) -> None:
    path = small_onnx(tmp_path / "model.onnx", 0.5, batch, dtype)
    network = fsd.import_network(path)
    found = fsd.check(network, path, X)
    assert found.agrees
    assert found.tolerance == tolerance
    assert found.against.startswith("model.onnx (onnx")
    other = fsd.check(network, small_onnx(tmp_path / "other.onnx", 1.5, batch, dtype), X)
    assert not other.agrees
    assert other.parts_at == "layer 0, node 'node_r' (Relu)"


@pytest.mark.parametrize("opset", [9, 13, 14, 21])
def test_models_in_onnx_normalize_by_the_stored_statistics(tmp_path: Path, opset: int) -> None:
    onnx_models = pytest.importorskip("tests.support.onnx_models")
    stored = np.array([0.5, -1.0, 2.0], np.float32)
    constants = {"scale": stored, "shift": stored[::-1], "mean": 3 * stored, "variance": stored**2}
    proto = onnx_models.model(
        [onnx_models.node("BatchNormalization", "x", *constants)], constants, shape=("N", 3), opset=opset
    )
    network = fsd.import_network(onnx_models.saved(tmp_path, proto))
    by_hand = (X - 3 * stored) / np.sqrt(stored**2 + 1e-5) * stored + stored[::-1]
    assert fsd.check(network, lambda _: by_hand, X).agrees
    assert fsd.check(network, tmp_path / "model.onnx", X).agrees


def test_import_compares_records_and_can_be_told_not_to(run: Fsd, tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    said = run("network", "import", path, "-o", tmp_path / "net")
    assert said.code == 0
    assert "agrees with model.onnx (onnx" in said.stdout
    assert "on 16 samples: largest difference" in said.stdout
    assert run("network", "info", tmp_path / "net", "--json").json()["check"]["samples"] == 16
    plain = run("network", "import", path, "-o", tmp_path / "plain", "--no-check", "--json")
    assert plain.json()["check"] is None
    np.save(tmp_path / "layer-1.npy", WEIGHTS)
    matrices = run("network", "import", tmp_path / "layer-1.npy", "-o", tmp_path / "matrices", "--json")
    assert matrices.json()["check"] is None


def test_import_says_why_there_is_no_comparison(run: Fsd, tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx", dtype="BFLOAT16")
    said = run("network", "import", path, "-o", tmp_path / "net")
    assert said.code == 0
    assert "not compared with the model: " in said.stderr
    assert "one input of FLOAT, FLOAT16, DOUBLE" in said.stderr
    assert Network.load(tmp_path / "net").checked is None


def test_the_command(run: Fsd, tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    fsd.import_network(path).save(tmp_path / "net")
    np.save(tmp_path / "x.npy", X)
    command = ("network", "check", tmp_path / "net", "--input", tmp_path / "x.npy", "--against")
    said = run(*command, path)
    assert (said.code, said.stderr) == (0, "")
    assert "they agree" in said.stdout
    other = small_onnx(tmp_path / "other.onnx", 0.5)
    differing = run(*command, other)
    assert (differing.code, differing.stderr) == (1, "")
    assert "THEY DIFFER" in differing.stdout
    assert "worst samples" in differing.stdout
    record = run(*command, other, "--json")
    assert record.code == 1
    assert record.json()["agrees"] is False
    assert len(record.json()["worst"]) == 5
    assert run(*command, other, "--tolerance", "9").code == 0
    assert "neither an ONNX model" in run(*command, tmp_path / "x.npy").error()


def test_a_library_that_cannot_be_loaded(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(fsd.SettingError, match=r"needs torch, which cannot be loaded: libcudart.*; install it again"):
        Network.from_torch(None, None)


def test_without_the_library_the_extra_is_named(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "model.pt2").write_bytes(b"PK\x03\x04")
    for call in (lambda: fsd.check(network, tmp_path / "model.pt2", X), lambda: Network.from_torch(None, None)):
        with pytest.raises(fsd.SettingError, match=r"needs torch, .* pip install 'fsd-inference\[torch\]'"):
            call()
