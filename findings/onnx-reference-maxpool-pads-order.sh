#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator reads the pads of MaxPool in another order than ONNX defines, and pads the wrong axis.
#
# pads = [0, 1, 0, 1] adds a column on the left and one on the right. With a 2 x 2 kernel and stride 1, 7 x 6 values become
# 6 x 7 in shape inference and in ONNX Runtime 1.32.0. The evaluator takes the four numbers as begin and end of the rows, then
# of the columns, so it pads below and on the right and makes 7 x 6. AveragePool with the same pads is right.
#
# Seen: what is printed. Fails if the evaluator's MaxPool gets the shape right, or any of the others wrong.
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
from onnx import TensorProto, helper, shape_inference
from onnx.reference import ReferenceEvaluator

for operator in ("MaxPool", "AveragePool"):
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=[2, 2], strides=[1, 1], pads=[0, 1, 0, 1])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 7, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])
    model = helper.make_model(
        helper.make_graph([node], "graph", [x], [y]), opset_imports=[helper.make_opsetid("", 19)], ir_version=9
    )
    onnx.checker.check_model(model, full_check=True)
    shape = shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    inferred = tuple(axis.dim_value for axis in shape.dim)
    values = {"x": np.arange(42, dtype=np.float32).reshape(1, 1, 7, 6)}
    reference = ReferenceEvaluator(model).run(None, values)[0].shape
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runtime = session.run(None, values)[0].shape
    print(f"{operator}: reference evaluator {reference}, ONNX Runtime {runtime}, shape inference {inferred}")
    assert runtime == (1, 1, 6, 7), runtime
    assert inferred == (1, 1, 6, 7), inferred
    assert reference == ((1, 1, 7, 6) if operator == "MaxPool" else (1, 1, 6, 7)), reference
PYTHON
