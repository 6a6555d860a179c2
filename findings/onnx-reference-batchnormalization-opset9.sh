#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator normalizes by the batch, not by the stored statistics, for BatchNormalization of opsets 9 to 13.
#
# In these opsets the operator is in inference mode when only its first output is asked for: y = (x - mean) / sqrt(var + epsilon)
# with the stored mean and variance. With mean 0 and variance 1 the output is the input, which ONNX Runtime 1.32.0 returns. The
# evaluator mixes in the mean and the variance of the batch. At opset 15, which says training_mode = 0, it is right.
#
# Seen: what is printed. Fails if the evaluator returns the input at opset 9 or does not at 15, or ONNX Runtime does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

constants = {"scale": [1], "bias": [0], "mean": [0], "var": [1]}
x = np.array([[[1], [2]], [[3], [10]]], np.float32).transpose(0, 2, 1)
correct = {}
for opset in (9, 15):
    node = helper.make_node("BatchNormalization", ["x", *constants], ["y"], epsilon=0.0)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runtime = session.run(None, {"x": x})[0]
    print(f"opset {opset}: input {x.ravel().tolist()}")
    print(f"  reference evaluator: {np.round(reference, 4).ravel().tolist()}")
    print(f"  ONNX Runtime:        {np.round(runtime, 4).ravel().tolist()}")
    assert np.allclose(runtime, x, atol=1e-4), runtime
    correct[opset] = np.allclose(reference, x, atol=1e-4)
assert correct == {9: False, 15: True}, correct
PYTHON
