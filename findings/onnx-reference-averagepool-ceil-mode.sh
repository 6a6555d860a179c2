#!/usr/bin/env bash
# onnx 1.23.2: with ceil_mode=1 the reference evaluator shifts the windows of AveragePool, so that even complete ones differ.
#
# Of 1..7 with kernel 3, stride 3 and no padding the windows are 1 2 3, 4 5 6 and 7, with the means 2, 5 and 7, which ONNX
# Runtime 1.32.0 computes. The evaluator divides what the last window lacks between both ends, and computes 1.5, 4 and 6.
#
# Seen: what is printed. Fails if the two agree, or if either computes something else.
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
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[3], ceil_mode=1)
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 7])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 3])
model = helper.make_model(
    helper.make_graph([node], "graph", [x], [y]), opset_imports=[helper.make_opsetid("", 19)], ir_version=9
)
onnx.checker.check_model(model, full_check=True)
values = {"x": np.arange(1, 8, dtype=np.float32).reshape(1, 1, 7)}
reference = ReferenceEvaluator(model).run(None, values)[0].ravel().tolist()
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
runtime = session.run(None, values)[0].ravel().tolist()
print("reference evaluator:", reference)
print("ONNX Runtime:       ", runtime)
assert runtime == [2, 5, 7], runtime
assert reference == [1.5, 4, 6], reference
PYTHON
