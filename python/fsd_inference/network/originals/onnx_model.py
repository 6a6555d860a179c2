"""ONNX models, run by ONNX Runtime, or by ONNX's reference evaluator where that is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.importing.onnx_graph import onnx_network
from fsd_inference.network.importing.onnx_tensors import OnnxModel
from fsd_inference.network.importing.tracing import Traced
from fsd_inference.network.originals.original import Array, Original
from fsd_inference.network.readers.libraries import library

_MODE_IS_GIVEN = 14  # the first opset whose BatchNormalization says whether it trains
_DTYPES = {"FLOAT": np.float32, "FLOAT16": np.float16, "DOUBLE": np.float64}


class OnnxOriginal(Original):
    """The model of an ONNX file.

    Parameters
    ----------
    path : Path
        The file.
    outputs : sequence of str, optional
        Names of the tensors that are its outputs, side by side.

    Raises
    ------
    SettingError
        If onnx is not installed.
    FileFormatError
        If the file is not a model of one input of floats and of known shape.
    """

    def __init__(self, path: Path, outputs: Sequence[str] | None = None) -> None:
        self._model, self._outputs = OnnxModel(path, outputs), outputs
        graph = self._model.graph
        inputs = [value for value in graph.input if not self._model.is_initializer(value.name)]
        tensor = inputs[0].type.tensor_type if len(inputs) == 1 else None
        dtype = None if tensor is None else _DTYPES.get(self._model.type_name(tensor.elem_type))
        sizes = [] if tensor is None else [axis.dim_value for axis in tensor.shape.dim]
        if dtype is None or len(sizes) < 2 or min(sizes[1:]) < 1:
            raise FileFormatError(
                f"{path} cannot be run: it must have one input of {', '.join(_DTYPES)}, of samples x features with "
                "fixed features"
            )
        self._path, self._input, self._dtype = path, inputs[0].name, dtype
        self.batch, self.shape, self.in_16_bits = sizes[0] or None, tuple(sizes[1:]), dtype == np.float16
        try:
            self._runtime: Any = import_module("onnxruntime")
        except ImportError:
            self._runtime = None
        runner = self._runtime or self._model.onnx
        self.name = f"{path.name} ({runner.__name__} {runner.__version__})"
        self._run = self._runner(outputs)

    def run(self, x: Array, names: Sequence[str] | None = None) -> list[Array]:
        """Return the outputs, or the named tensors."""
        run = self._run if names is None else self._runner(names)
        found = run({self._input: x.astype(self._dtype)})
        if names is not None or self._outputs is None:
            return found
        return [np.concatenate([array.reshape(len(x), -1) for array in found], axis=1)]

    def trace(self) -> tuple[Sequence[int], Sequence[Traced]] | None:
        """See `Original.trace`."""
        found = onnx_network(self._path, outputs=self._outputs, most_connections=sys.maxsize)
        return [layer.shape[0] for layer in found.layers], found.trace

    def _proto(self, names: Sequence[str] | None) -> Any:
        """Return the model with the named tensors as its outputs."""
        onnx = self._model.onnx
        model = onnx.load(str(self._path))
        if names is not None:
            del model.graph.output[:]
            model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        return model

    def _runner(self, names: Sequence[str] | None) -> Callable[[dict[str, Array]], list[Array]]:
        if self._runtime is None:
            runner = library("onnx.reference", str(self._path)).ReferenceEvaluator
            with self._loading("ONNX's reference evaluator"):
                model = self._proto(names)
                if self._model.opset < _MODE_IS_GIVEN:
                    _normalize_as_stored(model, self._model.onnx.helper)
                evaluator = runner(model)
            return lambda inputs: list(evaluator.run(None, inputs))
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4  # what matters is raised
        with self._loading("ONNX Runtime"):
            given = str(self._path) if names is None else self._proto(names).SerializeToString()
            session = self._runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        return lambda inputs: list(session.run(None, inputs))

    @contextmanager
    def _loading(self, runner: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # both raise kinds of their own
            text = " ".join(str(error).split())[:200]
            raise InputError(f"{runner} cannot run {self._path}: {text}") from error


def _normalize_as_stored(model: Any, helper: Any) -> None:
    """Keep ONNX's reference evaluator from mixing statistics of the batch, times 1 - momentum, into the stored ones."""
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            others = [attribute for attribute in node.attribute if attribute.name != "momentum"]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute("momentum", 1.0)])
