"""What is refused of ONNX models, and why; all problems at once, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cli import fsd_in
from tests.support.onnx_models import (
    LINEAR,
    PER_OUTPUT,
    TensorProto,
    W,
    matrix,
    model,
    node,
    refused,
    saved,
)

SCALAR = np.array(1, np.float32)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([LINEAR, node("LSTM", "h", "w", "w")], "node 'y_LSTM' (LSTM) is recurrent; only feed-forward graphs can be"),
        ([LINEAR, node("LayerNormalization", "h", "c")], "(LayerNormalization) divides by a statistic of each sample"),
        ([LINEAR, node("Sin", "h")], "(Sin) is not supported; replace it by operators that are, before exporting"),
        ([LINEAR, node("Erf", "h")], "node 'y_Erf' (Erf) is not supported, except as part of gelu, gelu_tanh, silu"),
        ([LINEAR, node("Erf", "h", out="e"), node("MatMul", "e", "w")], "node 'e_Erf' (Erf) is not supported, except"),
        ([LINEAR, node("QuantizeLinear", "h", "one")], "(QuantizeLinear) rounds values between layers to integers"),
        ([LINEAR, node("Mul", "x", "x", out="s"), node("MatMul", "s", "w")], "node 's_Mul' (Mul) combines two tensors"),
        (
            [LINEAR, node("MatMul", "x", "h")],
            "(MatMul) multiplies two tensors that depend on the samples, as attention",
        ),
        ([LINEAR, node("Softmax", "h", out="s"), node("Relu", "s")], "(Relu) follows softmax, which is supported at"),
        ([LINEAR, node("ArgMax", "h", out="s", axis=1), node("Softmax", "s")], "(Softmax) follows argmax, which is"),
        ([LINEAR, node("Softmax", "h", axis=0)], "(Softmax) is not over all outputs of each sample"),
        ([LINEAR, node("TopK", "h", "ten")], "(TopK) does not choose 1 to 3 outputs in descending order"),
        ([node("MatMul", "w", "x")], "(MatMul) has the constant matrix on the left"),
        ([node("Gemm", "x", "w", transC=1)], "(Gemm) has the attribute 'transC', which opset 21 does not define"),
        ([node("Gemm", "x", "w", transA=1)], "(Gemm) transposes its samples (transA)"),
        ([LINEAR, node("MatMul", "h", "w")], "(MatMul) takes 4 features, but the node before it makes 3"),
        ([LINEAR, node("Div", "c", "h")], "(Div) divides a constant by the samples"),
        (
            [LINEAR, node("Add", "h", "four")],
            "(Add) has a constant (4, float32) that does not fit floats of one sample (3)",
        ),
        ([LINEAR, node("Add", "h", "x")], "(Add) has inputs whose shapes do not fit each other"),
        ([LINEAR, node("Clip", "h", "one", "one")], "(Clip) makes all values the same"),
        ([LINEAR, node("Cast", "h", to=TensorProto.INT64)], "(Cast) casts to another type than FLOAT, FLOAT16"),
        (
            [LINEAR, node("Softmax", "h", out="p"), node("Cast", "p", to=TensorProto.INT64)],
            "(Cast) casts what softmax m",
        ),
        (
            [LINEAR, node("ArgMax", "h", axis=1, out="a"), node("Cast", "a", to=TensorProto.BOOL)],
            "(Cast) casts what argmax makes to BOOL, which changes it; leave it out",
        ),
        ([LINEAR, node("Celu", "h", alpha=0.0)], "(Celu) has the alpha 0, which must be positive"),
        ([LINEAR, node("Elu", "h", alpha=np.inf)], "(Elu) cannot be imported: the alpha of elu must be finite"),
        ([LINEAR, node("Max", "h", "cube")], "(Max) has a constant (1 x 1 x 1, float32) that does not fit floats of"),
        ([LINEAR, node("Exp", "h", out="e"), node("Add", "e", "cube")], "(Add) has a constant (1 x 1 x 1, float32)"),
        ([LINEAR, node("Dropout", "h", "one", "on")], "(Dropout) is in training mode; export the model for inference"),
        (
            [LINEAR, node("BatchNormalization", "h", *"cccc", training_mode=1)],
            "(BatchNormalization) is in training mode",
        ),
        ([LINEAR, node("Flatten", "h", axis=0)], "(Flatten) would mix samples or change their number"),
        ([LINEAR, node("Reshape", "h", "flat")], "(Reshape) would mix samples or change their number"),
        ([LINEAR, node("Transpose", "h", perm=[1, 0])], "(Transpose) would mix samples or change their number"),
        ([LINEAR, node("ReduceSum", "h", keepdims=0)], "(ReduceSum) would mix samples or change their number"),
        ([LINEAR, node("Concat", "h", "h", axis=0)], "(Concat) would mix samples or change their number"),
        ([LINEAR, node("Conv", "h", "w")], "(Conv) has filters that do not fit its input"),
        ([LINEAR, node("Relu", "later")], "(Relu) takes 'later', which no node before it makes; sort the nodes"),
        ([LINEAR, node("Relu", "h", out="h")], "(Relu) makes 'h', which is there already"),
        ([LINEAR, node("Relu", "h", domain="my.own")], "(Relu) is of the domain 'my.own', which is not supported"),
        ([node("Identity", "w")], "the model has an output that does not depend on its input"),
        ([node("Det", "w", out="n"), node("Add", "x", "n")], "(Det) is not supported on constants; fold"),
        (
            [node("Tile", "c", "most", out="n"), node("Add", "x", "n")],
            "(Tile) makes a constant of more than 67,108,864",
        ),
        ([LINEAR, node("Gemm", "h")], "(Gemm) does not have a matrix of floats on the right"),
    ],
)
def test_each_refusal(tmp_path: Path, nodes: list[Any], said: str) -> None:
    constants = W | {"c": PER_OUTPUT, "one": SCALAR, "four": np.ones(4, np.float32), "ten": np.array([10])}
    constants |= {
        "cube": np.ones((1, 1, 1), np.float32),
        "flat": np.array([-1]),
        "on": np.array(True),
        "most": np.array([2**40]),
    }
    assert said in refused(tmp_path, model(nodes, constants))


def test_all_problems_are_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [
        node("Conv", "x", "w", out=f"t{k}") if k == 0 else node("Sin", f"t{k - 1}", out=f"t{k}") for k in range(14)
    ]
    nodes += [node("MatMul", "x", "w", out="b"), node("Add", "b", "four")]
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
