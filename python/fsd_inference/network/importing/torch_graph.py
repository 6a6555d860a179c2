"""Lowering of exported programs of PyTorch to layers, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.importing.lowering import MAX_FEATURES, Graph, Refs
from fsd_inference.network.importing.problems import UnsupportedError, refuse
from fsd_inference.network.importing.torch_call import MIXES, Call, arguments_of, unknown
from fsd_inference.network.importing.torch_operators import OPERATORS
from fsd_inference.network.importing.torch_program import Program
from fsd_inference.network.importing.tracing import NamedRefs
from fsd_inference.network.output_function import OutputFunction, OutputKind

_IGNORED = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")
_ENDS = ("_softmax", "_log_softmax", "argmax", "topk")
_SHAPES = ("view", "squeeze", "unsqueeze", "clone", "alias", "_to_copy")
_AT_THE_END = "is allowed at the end only, over all outputs of each sample"


@dataclass(frozen=True, slots=True)
class TorchGraph:
    """What a program computes.

    Attributes
    ----------
    graph : Graph
        Its operators.
    outputs : ndarray of int64
        The output tensor of one sample.
    output : OutputFunction or None
        The function of all outputs at the end.
    tensors : list of NamedRefs
        The tensors that nodes make for one sample.
    """

    graph: Graph
    outputs: Refs
    output: OutputFunction | None
    tensors: list[NamedRefs]


@dataclass(frozen=True, slots=True)
class _Ended:
    """What a function over all outputs of a sample has made."""

    scores: Refs
    output: OutputFunction


class _Unknown:
    """What a node has made that cannot be imported."""


class _Samples:
    """The number of samples, or a number that is computed from it."""


def torch_graph(program: Program, where: str, *, most_connections: int) -> TorchGraph:
    """Return the graph of operators of a program.

    Parameters
    ----------
    program : Program
        The program.
    where : str
        Name of the model, for messages.
    most_connections : int
        How many connections the operators may have in all.

    Raises
    ------
    FileFormatError
        If it has operators that cannot be imported; lists all of them.
    """
    walk = _Walk(program, where, most_connections)
    for node in program.program.graph.nodes:
        walk.visit(node)
    walk.finish()
    scores, output = walk.result
    return TorchGraph(walk.graph, scores, output, walk.tensors)


@dataclass(slots=True)
class _Walk:
    program: Program
    where: str
    most_connections: int
    graph: Graph = field(init=False)
    values: dict[Any, Any] = field(default_factory=dict)
    tensors: list[NamedRefs] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    result: tuple[Refs, OutputFunction | None] = field(init=False)

    def __post_init__(self) -> None:
        _, *shape = self.program.shape
        features = int(np.prod(shape, dtype=object))
        is_float = self.program.input.meta["val"].dtype.is_floating_point
        if not all(isinstance(size, int) and size > 0 for size in shape) or features > MAX_FEATURES or not is_float:
            raise FileFormatError(
                f"{self.where}: its input must be floats of samples x features, with a fixed shape of one sample and "
                f"up to {MAX_FEATURES:,} features; export it with such an example"
            )
        self.graph = Graph(features, most_connections=self.most_connections)
        self.values[self.program.input] = self.graph.inputs(shape)

    def visit(self, node: Any) -> None:
        """Add a node, or note why it cannot be."""
        if node.op == "output":
            self._output(node)
        elif node.op == "placeholder":
            if node is not self.program.input:
                self.values[node] = self.program.constants.get(node.name, _Unknown())
        elif node.op == "get_attr":
            self.values[node] = getattr(self.program.program.graph_module, node.target)
        else:
            self.values[node] = self._called(node)
            if isinstance(self.values[node], np.ndarray):
                made_by = node.args[0] if _name(node) == "getitem" else node
                self.tensors.append(NamedRefs(node.name, _label(made_by, _name(made_by)), self.values[node]))

    def finish(self) -> None:
        """Raise FileFormatError if there were problems."""
        refuse([f"{self.where}: {problem}" for problem in dict.fromkeys(self.problems)], FileFormatError)

    def _called(self, node: Any) -> Any:
        name = _name(node)
        label = _label(node, name)
        args, kwargs = (self._resolved(value) for value in (node.args, node.kwargs))
        given = list(_flat([args, kwargs]))
        if any(isinstance(value, _Unknown) for value in given):
            if name not in {*OPERATORS, *_ENDS, *_IGNORED, "getitem"}:
                self.problems.append(f"{label} {unknown(name)}")
            return _Unknown()
        if name in _IGNORED or _is_size(node):
            return _Samples()
        if not any(isinstance(value, np.ndarray | _Ended | _Samples) for value in given):
            return node.target(*args, **kwargs)
        try:
            return self._applied(node, name, label, args, kwargs)
        except UnsupportedError as error:
            self.problems.append(f"{label} {error}")
        except InputError as error:  # of an activation
            self.problems.append(f"{label} cannot be imported: {error}; replace it")
        except (TypeError, ValueError, IndexError, KeyError, ArithmeticError, AttributeError, RuntimeError) as error:
            text = " ".join(str(error).split())[:80]
            self.problems.append(f"{label} has arguments that cannot be imported ({text}); replace it by another")
        return _after_problem(self._sizes(node))

    def _applied(self, node: Any, name: str, label: str, args: Any, kwargs: Any) -> Any:
        if name == "getitem":
            return args[0] if isinstance(args[0], _Ended) else args[0][args[1]]
        arguments = arguments_of(node.target._schema, args, kwargs)
        ended = [value for value in _flat(list(arguments.values())) if isinstance(value, _Ended)]
        if ended and name in _SHAPES:
            _check_type(node.meta["val"].dtype, ended[0].output)
            return ended[0]
        if name in _ENDS:
            return _ended(name, arguments)
        if ended:
            raise UnsupportedError(f"follows {ended[0].output.kind}, which {_AT_THE_END}")
        if name not in OPERATORS:
            raise unknown(name)
        shapes = self._sizes(node)
        if shapes is None:
            raise UnsupportedError(MIXES)
        dtype = next(_flat(node.meta["val"])).dtype
        if not dtype.is_floating_point:
            raise UnsupportedError(
                f"makes values of type {str(dtype).removeprefix('torch.')}; only floats are imported"
            )
        made = OPERATORS[name](Call(self.graph, name, label, arguments, shapes))
        first, *_ = made if isinstance(made, tuple) else (made,)
        if first.shape != shapes[0]:
            raise UnsupportedError(MIXES)
        return made

    def _sizes(self, node: Any) -> tuple[tuple[int, ...], ...] | None:
        """Return the shape of one sample of each result of a node; None if one has no first axis of samples."""
        value = node.meta.get("val")
        tensors = value if isinstance(value, tuple | list) else (value,)
        samples = str(self.program.shape[0])
        sizes = [tuple(tensor.shape) for tensor in tensors if hasattr(tensor, "shape")]
        if not sizes or not sizes[0] or str(sizes[0][0]) != samples:
            return None
        return tuple(size[1:] for size in sizes)

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._resolved(one) for one in value]
        if isinstance(value, Mapping):
            return {key: self._resolved(one) for key, one in value.items()}
        return self.values[value] if hasattr(value, "op") and value in self.values else value

    def _output(self, node: Any) -> None:
        values = list(_flat([self._resolved(node.args[0])]))
        if any(isinstance(value, _Unknown) for value in values):
            return
        first = values[0] if values else None
        if isinstance(first, _Ended) and all(value is first for value in values):
            self.result = first.scores, first.output
        elif len(values) == 1 and isinstance(first, np.ndarray):
            self.result = first, None
        else:
            self.problems.append(f"has {len(values)} outputs, or one that is constant; return one tensor")


def _ended(name: str, arguments: Mapping[str, Any]) -> _Ended:
    """Return what softmax, argmax or topk make of all outputs of a sample."""
    given, dim = arguments["self"], arguments["dim"]
    scores = given.scores if isinstance(given, _Ended) else given
    whole = (
        isinstance(dim, int) and dim % (scores.ndim + 1) and scores.shape[dim % (scores.ndim + 1) - 1] == scores.size
    )
    if not whole or (isinstance(given, _Ended) and (given.output.selects or name not in {"argmax", "topk"})):
        raise UnsupportedError(_AT_THE_END)
    if name == "topk" and not arguments["largest"]:
        raise UnsupportedError("selects the smallest values; only the largest can be selected")
    kinds: dict[str, OutputKind] = {"_softmax": "softmax", "_log_softmax": "log_softmax", "argmax": "argmax"}
    made = OutputFunction("top_k", int(arguments["k"])) if name == "topk" else OutputFunction(kinds[name])
    return _Ended(scores, made)


def _check_type(dtype: Any, output: OutputFunction) -> None:
    """Check that a value at the end is not converted to a type that changes it."""
    name = str(dtype).removeprefix("torch.")
    if not (dtype.is_floating_point or (output.selects and name in {"int32", "int64"})):
        raise UnsupportedError(f"converts what {output.kind} makes to {name}, which changes it; leave it out")


def _name(node: Any) -> str:
    """Return the name of an operator, without that of its namespace if it is PyTorch's own."""
    namespace, _, rest = str(getattr(node.target, "name", lambda: "")()).partition("::")
    return rest.partition(".")[0] if namespace == "aten" else rest or str(getattr(node.target, "__name__", node.target))


def _label(node: Any, name: str) -> str:
    """Return an operator and its place in the module, for messages."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    place = str(stack[-1][0]) if stack and isinstance(stack[-1], tuple) else ""
    return f"{place} ({name})" if place else f"{node.name} ({name})"


def _is_size(node: Any) -> bool:
    """Return whether a node makes a number, not tensors."""
    value = node.meta.get("val")
    return value is not None and not hasattr(value, "shape") and not isinstance(value, tuple | list)


def _after_problem(shapes: tuple[tuple[int, ...], ...] | None) -> Any:
    """Return a stand-in for the result of an operator, so that those that follow are looked at as well."""
    if shapes is None or not all(isinstance(size, int) for shape in shapes for size in shape):
        return _Unknown()
    made = tuple(np.zeros(shape, np.int64) for shape in shapes)
    return made[0] if len(made) == 1 else made


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, Mapping):
        yield from _flat(list(value.values()))
    else:
        yield value
