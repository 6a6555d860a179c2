"""Import of ONNX models that are feed-forward graphs: the walk over their nodes, and what may end them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.imported import Imported
from fsd_inference.network.importing.lowering import MAX_FEATURES, MOST_CONNECTIONS, Graph, lower
from fsd_inference.network.importing.onnx_constants import FOLDED, folded
from fsd_inference.network.importing.onnx_elementwise import ELEMENTWISE
from fsd_inference.network.importing.onnx_node import AGAIN, Node, NoLayerError, Tensor, Value, read
from fsd_inference.network.importing.onnx_shapes import SHAPES
from fsd_inference.network.importing.onnx_sums import SUMS
from fsd_inference.network.importing.onnx_tensors import FLOATS, OnnxModel, is_standard
from fsd_inference.network.importing.problems import UnsupportedError, listed
from fsd_inference.network.importing.tensor_files import shape_text
from fsd_inference.network.importing.tracing import NamedRefs, traced
from fsd_inference.network.output_function import OutputFunction, OutputKind

_SAME = "replace it by operators that are, before exporting"
_KINDS = ELEMENTWISE | SUMS | SHAPES
_STATISTICS = "divides by a statistic of each sample, which no layer of weights does; train with BatchNormalization"
_RECURRENT = "is recurrent; only feed-forward graphs can be imported"
_CONTROL = "is control flow; export the model without"
_QUANTIZED = "rounds values between layers to integers; export the model without quantized activations"
_REASONS = {
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "LpNormalization", "LRN"), _STATISTICS),
    **dict.fromkeys(("GroupNormalization", "RMSNormalization", "MeanVarianceNormalization"), _STATISTICS),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
    **dict.fromkeys(("If", "Loop", "Scan"), _CONTROL),
    **dict.fromkeys(("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"), _QUANTIZED),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"), _QUANTIZED),
}
_ENDS = ("Softmax", "LogSoftmax", "ArgMax", "TopK")
OPERATORS = (*_KINDS, *_ENDS)
"""The operators that are supported on values that depend on the input."""
_AFTER_ENDS = ("Identity", "Cast")
_INDICES = ("INT32", "INT64")


@dataclass(eq=False)
class _Ended:
    """The output of a function that may only end a graph."""

    tensor: Tensor
    function: OutputFunction


def onnx_network(
    path: Path, *, outputs: Sequence[str] | None = None, most_connections: int = MOST_CONNECTIONS
) -> Imported:
    """Read an ONNX model that is a feed-forward graph of supported operators.

    Parameters
    ----------
    path : Path
        The model. Tensors in other files are read if these are in its folder.
    outputs : sequence of str, optional
        Names of the tensors to compute, side by side, instead of the model's outputs.
    most_connections : int, optional
        How many connections it may become.

    Raises
    ------
    SettingError
        If onnx is not installed.
    FileFormatError
        If the file cannot be read, or has nodes that are not supported or too many connections; lists all problems.
    """
    model = OnnxModel(path, outputs)
    walk = _Walk(model, most_connections)
    for index, node in model.nodes():
        walk.add(node, f"node {shown(node.name) if node.name else index} ({shown(node.op_type)[1:-1]})")
    tensor, function = walk.finish()
    origin = f"ONNX {path.name}, opset {model.opset}, producer {model.producer or 'unknown'}"
    graph, ends, tensors = walk.graph, read(tensor), walk.tensors
    if outputs is not None:
        origin += f"; tensors {', '.join(outputs)}"
    if ends.ndim > 1:
        origin += f"; outputs {shape_text(ends.shape)}"
    del model, walk  # their constants, before the layers are made
    layers, facts = lower(graph, ends, str(path))
    return Imported(layers, function, origin, facts, traced(facts.neurons, tensors))


class _Walk:
    """The values seen so far; those that depend on a problem are None, and nodes that read them checked in part."""

    def __init__(self, model: OnnxModel, most_connections: int) -> None:
        self.model = model
        self.problems: dict[str, list[str]] = {}  # the nodes that have each of them
        self.values: dict[str, Value | _Ended] = {}
        self.tensors: list[NamedRefs] = []
        self.readers = Counter(name for node in model.graph.node for name in node.input)
        self.batch: int | None = None
        self.graph = Graph(0, most_connections=most_connections)
        self._start()

    def _start(self) -> None:
        graph = self.model.graph
        inputs = [value for value in graph.input if not self.model.is_initializer(value.name)]
        if len(inputs) != 1:
            self._problem("the model", f"has {len(inputs)} inputs, not one; {AGAIN} with one")
            self.values |= {value.name: None for value in inputs}
            return
        if not inputs[0].name:
            self._problem("the model", "has an input without a name; export the model again")
            return
        tensor = inputs[0].type.tensor_type
        kind = self.model.type_name(tensor.elem_type)
        where = f"its input {shown(inputs[0].name)}"
        self.values[inputs[0].name] = None
        if kind not in FLOATS:
            self._problem(where, f"is of type {kind}, not {', '.join(FLOATS)}; export the model with float inputs")
        sizes = [axis.dim_value for axis in tensor.shape.dim]
        if len(sizes) < 2:
            self._problem(where, "does not have the shape samples x features; export it with fixed features")
        elif min(sizes[1:]) < 1:
            text = " x ".join(["samples", *(str(size) if size > 0 else "?" for size in sizes[1:])])
            self._problem(where, f"leaves sizes of a sample open ({text}); export it with fixed ones")
        elif math.prod(sizes[1:]) > MAX_FEATURES:
            self._problem(where, f"has more than {MAX_FEATURES:,} features; import a smaller model")
        else:
            self.batch = sizes[0] or None
            self.graph = Graph(math.prod(sizes[1:]), most_connections=self.graph.most_connections)
            self.values[inputs[0].name] = Tensor(self.graph.inputs(sizes[1:]))

    def add(self, node: Any, label: str) -> None:
        """Add a node, or note why it cannot be."""
        made: Sequence[Value | _Ended] = ()
        try:
            self._check_names(node)
            attributes = self.model.attributes(node)
            with np.errstate(all="ignore"):  # what is not finite is refused with its position
                made = self._results(node, attributes, label)
        except UnsupportedError as error:
            self._problem(label, str(error))
        except NoLayerError as error:
            self._problem(error.where, error.reason)
        except InputError as error:  # of an activation
            self._problem(label, f"cannot be imported: {error}; replace it")
        except (TypeError, ValueError, IndexError, KeyError, ArithmeticError, AttributeError):
            self._problem(label, "has inputs or attributes that do not fit the operator; export the model again")
        for index, name in enumerate(node.output):
            if name and not self._exists(name):
                value = made[index] if index < len(made) else None
                self.values[name] = value
                if isinstance(value, Tensor) and value.refs is not None:
                    self.tensors.append(NamedRefs(name, label, value.refs))
        self.readers.subtract(node.input)
        for name in node.input:
            if name in self.values and not self.readers[name] and not isinstance(self.values[name], Tensor | _Ended):
                self.values[name] = None  # a constant, which can be large

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
        return name in self.values or self.model.is_initializer(name)

    def _value(self, name: str) -> Value | _Ended:
        if not name:
            return None
        return self.values[name] if name in self.values else self.model.initializer(name)

    def _results(self, node: Any, attributes: dict[str, Any], label: str) -> Sequence[Value | _Ended]:
        kind = node.op_type
        inputs = [self._value(name) for name in node.input]
        unknown = any(name and value is None for name, value in zip(node.input, inputs, strict=True))
        moving = unknown or any(isinstance(value, Tensor | _Ended) for value in inputs)
        if not moving:
            return folded(self.model, node, attributes, [v for v in inputs if not isinstance(v, Tensor | _Ended)])
        if kind not in OPERATORS and kind != "Shape" and not (unknown and kind in FOLDED):
            raise UnsupportedError(_REASONS.get(kind, f"is not supported; {_SAME}"))
        if unknown:
            return ()
        if kind == "Cast":
            attributes["to"] = self.model.type_name(attributes["to"])
        ended = next((value for value in inputs if isinstance(value, _Ended)), None)
        if ended is not None and kind not in _ENDS:
            if kind not in _AFTER_ENDS:
                raise UnsupportedError(f"follows {ended.function.kind}, which is supported at the end only; {_SAME}")
            if kind == "Cast" and attributes["to"] not in (*FLOATS, *(_INDICES if ended.function.selects else ())):
                raise UnsupportedError(
                    f"casts what {ended.function.kind} makes to {attributes['to']}, which changes it; leave it out"
                )
            return [ended]
        given = [value.tensor if isinstance(value, _Ended) else value for value in inputs]
        outputs = len(list(filter(None, node.output)))
        use = Node(kind, label, given, outputs, attributes, self.model.opset, self.batch, self.graph)
        if kind in _ENDS:
            return [_ended(use, ended)] * len(node.output)
        return [_shape(use)] if kind == "Shape" else _KINDS[kind](use)

    def finish(self) -> tuple[Tensor, OutputFunction | None]:
        """Return the output; raise FileFormatError with all problems, also of the whole graph."""
        names = self.model.outputs
        found = [self.values.get(name) for name in names]
        result = found[0] if found else None
        if self.model.chosen and len(found) > 1:
            result = self._side_by_side(found)
        elif len(found) != 1 and not (isinstance(result, _Ended) and all(value is result for value in found)):
            shown_names = f" ({listed([shown(name) for name in names])})" if names else ""
            self._problem("the model", f"has {len(found)} outputs{shown_names}, not one; choose some (--outputs)")
        elif result is None and not self.problems:
            self._problem("the model", f"has the output {shown(names[0])}, which no node makes; export the model again")
        tensor, function = (result.tensor, result.function) if isinstance(result, _Ended) else (result, None)
        if isinstance(tensor, Tensor) and tensor.refs is None:
            self._problem(*tensor.unsupported)
        elif result is not None and not isinstance(tensor, Tensor):
            self._problem("the model", f"has an output that does not depend on its input; {AGAIN}")
        if self.problems or not isinstance(tensor, Tensor):
            parts = [f"{', '.join(places)} {problem}" for problem, places in self.problems.items()]
            count = f"{len(parts)} problems: " if len(parts) > 1 else ""
            raise FileFormatError(f"{self.model.path}: {count}{listed(parts, '; ', most=len(parts))}")
        return tensor, function

    def _side_by_side(self, found: Sequence[Value | _Ended]) -> Tensor | None:
        """Return one tensor of all values of several; None, and note why, if one is not the output of a layer."""
        parts = []
        for name, value in zip(self.model.outputs, found, strict=True):
            if isinstance(value, _Ended):
                reason = f"comes after {value.function.kind}, which cannot be one of several outputs"
                self._problem(f"the tensor {shown(name)}", f"{reason}; choose the tensor before it (--outputs)")
            elif not isinstance(value, Tensor):
                if value is None and self.problems:
                    continue  # it depends on one of them
                self._problem(f"the tensor {shown(name)}", "does not depend on the samples; choose another (--outputs)")
            elif value.refs is None:
                self._problem(*value.unsupported)
            else:
                parts.append(value.refs.ravel())
        return Tensor(np.concatenate(parts)) if len(parts) == len(found) else None

    def _problem(self, where: str, problem: str) -> None:
        places = self.problems.setdefault(problem, [])
        if where not in places:
            places.append(where)


def _shape(node: Node) -> Value:
    """Return the shape of samples; a number of samples that is not fixed is 0, which Reshape takes for "as it is"."""
    sizes = [node.batch or 0, *node.refs().shape]
    return np.array(sizes[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)


def _ended(node: Node, before: _Ended | None) -> _Ended:
    """Return the function that ends the graph; `before` may only be one that does not change its result."""
    refs = node.refs()
    axis = node.attributes["axis"]
    flat = node.kind in {"Softmax", "LogSoftmax"} and node.opset < 13 and axis == 1
    position = axis % (refs.ndim + 1)
    if not flat and (position == 0 or refs.shape[position - 1] != refs.size):
        raise UnsupportedError("is not over all outputs of each sample; flatten them first")
    if before is not None and (node.kind != "ArgMax" or before.function.kind not in {"softmax", "log_softmax"}):
        raise UnsupportedError(
            f"follows {before.function.kind}, which is supported at the end only; leave one of them out"
        )
    if node.attributes.get("select_last_index", 0) or not node.attributes.get("largest", 1):
        raise UnsupportedError("does not choose the first of the largest outputs; leave it out")
    if node.kind == "TopK":
        counts = [node.attributes["k"]] if node.opset < 10 else node.whole_numbers(1) or []
        if len(counts) != 1 or not 0 < counts[0] <= refs.size or not node.attributes.get("sorted", 1):
            raise UnsupportedError(f"does not choose 1 to {refs.size:,} outputs in descending order; {AGAIN}")
        return _Ended(node.tensor(), OutputFunction("top_k", counts[0]))
    kinds: dict[str, OutputKind] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "ArgMax": "argmax"}
    return _Ended(node.tensor(), OutputFunction(kinds[node.kind]))
