#!/usr/bin/env bash
# ONNX Runtime 1.32.0: MaxPool with auto_pad = SAME_UPPER fails when run if windows do not touch; AveragePool works.
#
# 7 values, kernel 2, stride 3: ceil(7 / 3) = 3 windows cover 8 values, so one is padded on the right. With 6 values two windows
# cover 5 of them, and no padding is needed. onnx 1.23.2 finds all four models valid. The session of MaxPool over 6 values is
# made without a complaint, and running it raises an error about negative padding.
#
# Seen: what is printed. Fails if that MaxPool runs, or any other does not.
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

onnxruntime.set_default_logger_severity(4)
outcomes = {}
for operator in ("MaxPool", "AveragePool"):
    for size in (7, 6):
        node = helper.make_node(operator, ["x"], ["y"], kernel_shape=[2], strides=[3], auto_pad="SAME_UPPER")
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, size])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "w"])
        model = helper.make_model(
            helper.make_graph([node], "graph", [x], [y]), opset_imports=[helper.make_opsetid("", 19)], ir_version=9
        )
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        values = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, size)
        try:
            outcomes[operator, size] = session.run(None, {"x": values})[0].ravel().tolist()
        except Exception as error:
            outcomes[operator, size] = type(error).__name__
        print(operator, "of", size, "values:", outcomes[operator, size])
assert isinstance(outcomes.pop(("MaxPool", 6)), str), outcomes
assert all(isinstance(outcome, list) for outcome in outcomes.values()), outcomes
PYTHON
