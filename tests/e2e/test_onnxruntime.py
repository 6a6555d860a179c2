"""ONNX models are run by ONNX Runtime where it is installed, and by the reference evaluator with the same result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.network.originals.onnx_model import OnnxOriginal
from tests.support.small_onnx import small_onnx

runtime: Any = pytest.importorskip(
    "onnxruntime", reason="no onnxruntime: ONNX models are compared by the reference alone"
)

pytestmark = pytest.mark.frameworks

X = np.random.default_rng(3).standard_normal((40, 3)).astype(np.float32)


@pytest.mark.parametrize("batch", ["N", 7])
def test_both_return_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: Any) -> None:
    path = small_onnx(tmp_path / "model.onnx", 0.5, batch)
    quick = OnnxOriginal(path)
    assert quick.name == f"model.onnx (onnxruntime {runtime.__version__})"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    slow = OnnxOriginal(path)
    assert slow.name.startswith("model.onnx (onnx 1.")
    for names in (None, ["h", "r"]):
        for ours, theirs in zip(quick.outputs(X, names), slow.outputs(X, names), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert fsd.check(fsd.import_network(path), path, X).agrees


def test_a_model_that_it_does_not_run(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"Relu", b"Rolu"))
    with pytest.raises(fsd.InputError, match=r"ONNX Runtime cannot run .*model\.onnx"):
        OnnxOriginal(path)
