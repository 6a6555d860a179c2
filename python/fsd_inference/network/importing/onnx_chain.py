"""Import of ONNX models that are a chain of fully connected layers: which nodes they may have, and what these mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.onnx_layers import SHAPES, Affine, Features, Stack, reshaped
from fsd_inference.network.importing.onnx_tensors import (
    FLOATS,
    MAX_FEATURES,
    Constant,
    OnnxModel,
    UnsupportedError,
    dense,
    folded,
    is_standard,
)
from fsd_inference.network.importing.problems import listed, refuse
from fsd_inference.network.importing.tensor_files import shape_text
from fsd_inference.network.layer import RELU, Activation, Layer

_LEFT_OUT = ("Softmax", "LogSoftmax", "ArgMax")
_SAME = "export the model as a chain of fully connected layers"


def onnx_layers(path: Path) -> tuple[list[Layer], str]:
    """Read the layers of an ONNX model; also return what `Network.origin` says of it.

    Parameters
    ----------
    path : Path
        The model. Tensors in other files are read if these are in its folder.

    Raises
    ------
    SettingError
        If onnx is not installed.
    FileFormatError
        If the file cannot be read, or is not a chain of supported nodes; lists all problems.
    """
    model = OnnxModel(path)
    chain = _Chain(model)
    for index, node in enumerate(model.graph.node):
        chain.add(node, f"node {shown(node.name) if node.name else index}")
    chain.finish()
    layers: list[Layer] = []
    problems: list[str] = []
    for stage in chain.stack.maps:
        try:
            layers.append(stage.layer(str(path)))
        except InputError as error:
            problems.append(str(error))
    refuse(problems, FileFormatError)
    origin = f"ONNX {path.name}, opset {model.opset}, producer {model.producer or 'unknown'}"
    return layers, f"{origin}; left out: {', '.join(chain.left_out)}" if chain.left_out else origin


class _Chain:
    """The nodes seen so far.

    After a problem the features may be unknown (None): the nodes that follow are still checked, as far as possible.
    """

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.stack = Stack()
        self.left_out: list[str] = []
        self.constants: dict[str, Constant | None] = {}  # that nodes made; None after a problem
        self.problems: dict[str, list[str]] = {}  # the nodes that have each of them
        self.current = ""
        self.batch: int | None = None
        self.features: Features | None = None
        self.where = ""
        self.attributes: dict[str, Any] = {}
        self._start()
        self.made = {self.current}

    def _start(self) -> None:
        graph = self.model.graph
        inputs = [value for value in graph.input if not self.model.is_initializer(value.name)]
        if len(inputs) != 1 or len(graph.output) != 1:
            self._problem("the model", f"has {len(inputs)} inputs and {len(graph.output)} outputs, not one; {_SAME}")
        if len(inputs) != 1 or not inputs[0].name:
            self._problem("the model", "does not have one input with a name; export the model again")
            self._refuse_now()
        tensor = inputs[0].type.tensor_type
        kind = self.model.type_name(tensor.elem_type)
        where = f"its input {shown(inputs[0].name)}"
        if kind not in FLOATS:
            self._problem(where, f"is of type {kind}, not {', '.join(FLOATS)}; export the model with float inputs")
        sizes = [axis.dim_value for axis in tensor.shape.dim]
        if len(sizes) < 2 or min(sizes[1:]) < 1:
            self._problem(where, "does not have the shape samples x features; export it with fixed features")
        elif math.prod(sizes[1:]) > MAX_FEATURES:
            self._problem(where, f"has more than {MAX_FEATURES:,} features; {_SAME}")
        else:
            self.batch, self.features = sizes[0] or None, tuple(sizes[1:])
        self.current = inputs[0].name

    def add(self, node: Any, label: str) -> None:
        """Append a node, or note why it cannot be."""
        self.where = f"{label} ({shown(node.op_type)[1:-1]})"
        moving = [name for name in node.input if name in self.made]
        try:
            self._check_names(node)
            self.attributes = self.model.attributes(node)
            with np.errstate(all="ignore"):  # a layer refuses what is not finite, with its position
                if moving:
                    self._apply(node, moving)
                elif all(self.constants.get(name, 0) is not None for name in node.input):
                    inputs = [self._constant(name) for name in node.input]
                    self.constants[node.output[0]] = folded(self.model, node, self.attributes, inputs)
        except UnsupportedError as error:
            self._problem(self.where, str(error))
            self.features = None if moving else self.features
        except (TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError):
            self._problem(self.where, "has inputs or attributes that do not fit the operator; export the model again")
            self.features = None if moving else self.features
        if moving:
            self.made.update(filter(None, node.output))
            self.current = node.output[0] if node.output else self.current
        else:
            self.constants = dict.fromkeys(filter(None, node.output)) | self.constants

    def _check_names(self, node: Any) -> None:
        if not is_standard(node.domain):
            raise UnsupportedError(f"is of the domain {shown(node.domain)}, which is not supported; {_SAME}")
        for name in filter(None, node.input):
            if not self._exists(name):
                raise UnsupportedError(f"takes {shown(name)}, which no node before it makes; sort the nodes")
        for name in filter(None, node.output):
            if self._exists(name):
                raise UnsupportedError(f"makes {shown(name)}, which is there already; export the model again")

    def _exists(self, name: str) -> bool:
        return name in self.made or name in self.constants or self.model.is_initializer(name)

    def finish(self) -> None:
        """Raise FileFormatError with all problems, also of the whole chain."""
        if not self.problems:
            output = self.model.graph.output[0].name
            if self.current != output:
                self._problem(
                    "the model", f"ends with {shown(self.current)}, but its output is {shown(output)}; {_SAME}"
                )
            elif self.features is None or len(self.features) != 1:
                self._problem("the output", "does not have the shape samples x features; remove the last reshaping")
            elif not self.stack.maps:
                self._problem("the model", f"has no fully connected layer; {_SAME}")
        self._refuse_now()

    def _refuse_now(self) -> None:
        if self.problems:
            parts = [f"{', '.join(places)} {problem}" for problem, places in self.problems.items()]
            count = f"{len(parts)} problems: " if len(parts) > 1 else ""
            raise FileFormatError(f"{self.model.path}: {count}{listed(parts, '; ', most=len(parts))}")

    def _problem(self, where: str, problem: str) -> None:
        self.problems.setdefault(problem, []).append(where)

    def _constant(self, name: str) -> Constant | None:
        if not name:
            return None
        return self.constants[name] if name in self.constants else self.model.initializer(name)

    def _input(self, node: Any, index: int) -> NDArray[Any] | None:
        """Return an input as a dense constant; None if it is left out."""
        value = self._constant(node.input[index]) if index < len(node.input) else None
        return None if value is None else dense(value)

    def _apply(self, node: Any, moving: list[str]) -> None:
        """Append a node that depends on the samples."""
        kind = node.op_type
        apply = _NODES.get(kind)
        if apply is None and kind not in SHAPES and kind not in _LEFT_OUT:
            hint = "leave it out and apply it to the outputs" if kind == "Sigmoid" else _SAME
            raise UnsupportedError(f"is not supported; {hint}")
        if len(moving) > 1:
            raise UnsupportedError(f"combines two tensors that depend on the input; {_SAME}")
        if moving[0] != self.current:
            raise UnsupportedError(f"takes {shown(moving[0])}, which another node has taken already; {_SAME}")
        last = "ArgMax" in self.left_out
        if self.left_out and kind not in {"Identity", "Cast"} and (last or kind not in _LEFT_OUT):
            raise UnsupportedError(f"follows {self.left_out[-1]}, which is supported at the end only; {_SAME}")
        if any(name in self.constants and self.constants[name] is None for name in node.input):
            self.features = None  # depends on a constant that is a problem of its own
        elif apply is not None:
            apply(self, node)
        elif node.input[0] != self.current:
            raise UnsupportedError(f"does not take the samples as its first input; {_SAME}")
        elif kind in _LEFT_OUT:
            self._leave_out(kind)
        elif self.features is not None:
            self.features = reshaped(
                kind, self.batch, self.features, self.attributes, self._input(node, 1), self.model.opset
            )

    def _leave_out(self, kind: str) -> None:
        default = 0 if kind == "ArgMax" else 1 if self.model.opset < 13 else -1
        if self.attributes.get("axis", default) not in (1, -1) or self.attributes.get("select_last_index", 0):
            raise UnsupportedError("is not over the outputs of each sample; leave it out")
        if self.features is not None and len(self.features) != 1:
            raise UnsupportedError("does not take samples x features; flatten them first")
        self.left_out.append(kind)

    def keep(self, node: Any) -> None:
        """Append a node that changes nothing at inference."""
        kinds = (*FLOATS, "INT32", "INT64") if "ArgMax" in self.left_out else FLOATS
        if node.op_type == "Cast" and self.model.type_name(self.attributes["to"]) not in kinds:
            raise UnsupportedError(f"casts to another type than {', '.join(kinds)}; leave it out")
        if node.op_type == "Dropout":
            training = self._input(node, 2)
            if node.input[0] != self.current or (training is not None and training.any()):
                raise UnsupportedError("is in training mode; export the model for inference")

    def rectify(self, node: Any) -> None:
        """Append Relu, or Clip with the minimum 0."""
        bounds: list[float | None]
        if node.op_type == "Relu":
            bounds = [0.0, None]
        elif self.model.opset < 11:
            bounds = [self.attributes.get(name) for name in ("min", "max")]
        else:
            inputs = (self._input(node, 1), self._input(node, 2))
            bounds = [None if value is None else float(np.float32(value.item())) for value in inputs]
        low, high = bounds
        if node.input[0] != self.current or low != 0 or (high is not None and not high > 0):
            raise UnsupportedError("is supported with the minimum 0 and a positive maximum only; train it as a relu")
        bounded = high is not None and high < float(np.finfo(np.float32).max)
        if self.features is not None:
            activation = Activation("clipped_relu", high) if bounded and high is not None else RELU
            self.stack.activate(activation, math.prod(self.features), self.where)

    def linear(self, node: Any) -> None:
        """Append Gemm or MatMul with a constant matrix on the right."""
        if node.input[0] != self.current:
            raise UnsupportedError("has the constant matrix on the left; put it on the right, transposed")
        matrix = self._constant(node.input[1])
        if matrix is None or matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind != "f":
            raise UnsupportedError("does not have a matrix of floats on the right; export the layer as MatMul or Gemm")
        gemm, attributes = node.op_type == "Gemm", self.attributes
        if gemm and attributes.get("transA", 0):
            raise UnsupportedError("transposes its samples (transA); export it without")
        weights = sparse.csr_array(matrix).astype(np.float64)
        if not (gemm and attributes.get("transB", 0)):
            weights = sparse.csr_array(weights.T)
        outputs, inputs = weights.shape
        if self.features not in (None, (inputs,)):
            raise UnsupportedError(
                f"takes {inputs:,} features, but the node before it makes {shape_text(self.features or ())}; {_SAME}"
            )
        bias: NDArray[Any] = np.zeros(outputs)
        if gemm:
            weights = weights * float(attributes.get("alpha", 1.0))
            added = self._input(node, 2)
            if added is not None:
                bias = self._broadcast(added, (outputs,)).astype(np.float64) * float(attributes.get("beta", 1.0))
        self.stack.push(Affine(weights, bias, False, (self.where,)))
        self.features = (outputs,)

    def arithmetic(self, node: Any) -> None:
        """Append Add, Sub, Mul or Div of a constant."""
        on_right = node.input[0] == self.current
        value = self._input(node, 1 if on_right else 0)
        if value is None:
            raise UnsupportedError(f"has one input only; {_SAME}")
        if node.op_type == "Div" and not on_right:
            raise UnsupportedError(f"divides a constant by the samples; {_SAME}")
        if self.features is None:
            return
        constant = self._broadcast(value, self.features).astype(np.float64)
        ones, zeros = np.ones_like(constant), np.zeros_like(constant)
        scale, shift = {
            "Add": (ones, constant),
            "Sub": (ones, -constant) if on_right else (-ones, constant),
            "Mul": (constant, zeros),
            "Div": (1 / constant, zeros),
        }[node.op_type]
        self.stack.push(Affine.elementwise(scale, shift, self.where))

    def normalize(self, node: Any) -> None:
        """Append BatchNormalization with the statistics of the training."""
        if (
            self.attributes.get("training_mode", 0)
            or not self.attributes.get("spatial", 1)
            or len(list(filter(None, node.output))) != 1
        ):
            raise UnsupportedError("is in training mode, or not one value per channel; export it for inference")
        inputs = [self._input(node, k) for k in range(1, 5)]
        given = [value.astype(np.float64) for value in inputs if value is not None]
        if node.input[0] != self.current or len(given) != 4 or any(value.ndim != 1 for value in given):
            raise UnsupportedError("does not have scale, bias, mean and variance as vectors; export the model again")
        if self.features is None:
            return
        channel = (-1, *[1] * (len(self.features) - 1))
        scale, bias, mean, variance = (self._broadcast(value.reshape(channel), self.features) for value in given)
        factor = scale / np.sqrt(variance + float(self.attributes.get("epsilon", 1e-5)))
        shift = bias - mean * factor
        self.stack.push(Affine.elementwise(factor, shift, self.where))

    def _broadcast(self, value: NDArray[Any], features: Features) -> NDArray[Any]:
        """Return a constant as one value per feature, in the order in which they are flattened."""
        target = (1, *features)
        fits = all(size in (1, wanted) for size, wanted in zip(value.shape[::-1], target[::-1], strict=False))
        if value.dtype.kind != "f" or value.ndim > len(target) or not fits:
            raise UnsupportedError(
                f"has a constant ({shape_text(value.shape)}, {value.dtype}) that is not one float per feature "
                f"({shape_text(features)}); {_SAME}"
            )
        return np.broadcast_to(value, target).ravel()


_NODES: dict[str, Callable[[_Chain, Any], None]] = {
    **dict.fromkeys(("Gemm", "MatMul"), _Chain.linear),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _Chain.arithmetic),
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _Chain.keep),
    "BatchNormalization": _Chain.normalize,
    "Relu": _Chain.rectify,
    "Clip": _Chain.rectify,
}
