"""Random graphs of operators, filled side by side with the values that their tensors have in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsd_inference.network import Activation
from fsd_inference.network.importing.lowering import Graph, Windows
from tests.support import graph_oracle as oracle

Array = NDArray[Any]

SAMPLES = 3


@dataclass
class Twin:
    """A graph, and the values of its tensors for a batch."""

    shape: tuple[int, ...]
    random: np.random.Generator
    graph: Graph = field(init=False)
    tensors: list[tuple[Array, Array]] = field(init=False)  # references, and values with samples first
    x: Array = field(init=False)
    nodes: int = 0

    def __post_init__(self) -> None:
        self.graph = Graph(int(np.prod(self.shape)))
        self.x = self.random.standard_normal((SAMPLES, *self.shape)).astype(np.float32).astype(np.float64)
        self.tensors = [(self.graph.inputs(self.shape), self.x)]

    def numbers(self, *shape: int) -> Array:
        """Return weights of which about a third is 0, exact in float32."""
        kept = self.random.random(shape) < 0.7
        return np.asarray(self.random.uniform(-1, 1, shape) * kept, np.float32).astype(np.float64)

    def add(self, refs: Array, values: Array) -> None:
        assert refs.shape == values.shape[1:]
        self.tensors.append((refs, values))

    def node(self) -> str:
        self.nodes += 1
        return f"node {self.nodes}"

    def expected(self) -> Array:
        """Return the last tensor of each sample, flattened."""
        return self.tensors[-1][1].reshape(SAMPLES, -1)

    def tolerance(self) -> float:
        """Return how far an output may be off: float32 rounds weights, sums and activations in at most 12 layers."""
        return 4e-5 * max(1.0, *(float(np.abs(values).max()) for _, values in self.tensors))


def linear(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    weights, bias = twin.numbers(draw(st.integers(1, 5)), refs.shape[-1]), twin.numbers(1)
    twin.add(twin.graph.product(weights, refs, bias, twin.node()), values @ weights.T + bias)


def activation(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    kind = draw(st.sampled_from([*oracle.ACTIVATIONS, "prelu"]))
    if kind == "prelu":
        slopes = twin.numbers(*refs.shape)
        made = twin.graph.activate(refs, Activation("prelu"), twin.node(), slopes=slopes)
        twin.add(made, np.where(values < 0, slopes * values, values))
        return
    parameters = {
        "clipped_relu": (0.75,),
        "clip": (-0.5, 0.25),
        "leaky_relu": (0.125,),
        "hard_sigmoid": (0.25, 0.5),
        "elu": (0.5,),
    }.get(kind, ())
    made = twin.graph.activate(refs, Activation(kind, *parameters), twin.node())
    twin.add(made, oracle.ACTIVATIONS[kind](values, *parameters))


def scaling(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    factor, shift = twin.numbers(*refs.shape), twin.numbers(*refs.shape[1:])
    twin.add(twin.graph.scale(refs, factor, shift, twin.node()), factor * values + shift)


def addition(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    other, others = draw(st.sampled_from([one for one in twin.tensors if one[0].shape == refs.shape]))
    if draw(st.booleans()):
        twin.add(twin.graph.combine([(1.0, refs), (-0.5, other)], twin.node()), values - 0.5 * others)
    else:
        twin.add(twin.graph.maximum([refs, other], twin.node()), np.maximum(values, others))


def concatenation(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    same = [one for one in twin.tensors if one[0].shape[1:] == refs.shape[1:] and one[0].size < 64]
    other, others = draw(st.sampled_from(same or [(refs, values)]))
    constant = twin.numbers(1, *refs.shape[1:])
    parts = [np.broadcast_to(constant, (SAMPLES, *constant.shape)), others, values]
    twin.add(
        np.concatenate([twin.graph.constant(constant), other, refs]),
        np.concatenate(parts, axis=1),
    )


def padding(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    pads = [(0, 0)] * (refs.ndim - 1) + [draw(st.tuples(st.integers(0, 2), st.integers(0, 1)))]
    fill = int(twin.graph.constant(-0.25))
    twin.add(np.pad(refs, pads, constant_values=fill), np.pad(values, [(0, 0), *pads], constant_values=-0.25))


def moving(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    if draw(st.booleans()):
        twin.add(refs.reshape(-1), values.reshape(SAMPLES, -1))
    elif draw(st.booleans()):
        twin.add(refs.T, np.moveaxis(values, range(1, values.ndim), range(values.ndim - 1, 0, -1)))
    else:
        twin.add(refs[..., ::2], values[..., ::2])


def convolution(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    if refs.ndim < 2 or 0 in refs.shape:
        return
    groups = draw(st.sampled_from([1, refs.shape[0]]))
    outputs = groups * draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, min(3, size))) for size in refs.shape[1:])
    strides = tuple(draw(st.integers(1, 2)) for _ in kernel)
    pads = tuple(draw(st.tuples(st.integers(0, 1), st.integers(0, 2))) for _ in kernel)
    dilations = tuple(2 if size > 2 * width else 1 for size, width in zip(refs.shape[1:], kernel, strict=True))
    weights, bias = twin.numbers(outputs, refs.shape[0] // groups, *kernel), twin.numbers(outputs)
    windows = Windows.of(kernel, strides, pads, dilations)
    made = twin.graph.convolve(refs, weights, bias, windows, twin.node(), groups=groups)
    twin.add(made, oracle.convolution(values, weights, bias, strides, dilations, pads, groups))


def pooling(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    if refs.ndim < 2:
        return
    kind = draw(st.sampled_from(["max", "mean"]))
    kernel = tuple(draw(st.integers(1, min(3, size))) for size in refs.shape[1:])
    strides = tuple(draw(st.integers(1, 2)) for _ in kernel)
    pads = tuple((width // 2, 0) for width in kernel)
    made = twin.graph.pool(refs, Windows.of(kernel, strides, pads), kind, twin.node())
    twin.add(made, oracle.pooling(values, kernel, strides, pads, mean=kind == "mean"))


def reduction(draw: Callable[[Any], Any], twin: Twin, refs: Array, values: Array) -> None:
    kind = draw(st.sampled_from(["max", "mean", "sum"]))
    axis = draw(st.integers(0, refs.ndim - 1))
    expected = getattr(np, kind)(values, axis=axis + 1, keepdims=True)
    twin.add(twin.graph.reduce(refs, (axis,), kind, twin.node()), expected)


OPERATORS = [linear, activation, activation, scaling, addition, addition, concatenation, padding, moving]
OPERATORS += [convolution, convolution, pooling, reduction]


@st.composite
def graphs(draw: st.DrawFn) -> Twin:
    """Draw a graph in which operators read any tensor before them, more often the last."""
    shape = draw(st.sampled_from([(4,), (2, 5), (2, 4, 3)]))
    twin = Twin(shape, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    for operator in draw(st.lists(st.sampled_from(OPERATORS), min_size=1, max_size=10)):
        small = [one for one in twin.tensors if one[0].size < 150]
        chosen = small[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(small))
        operator(draw, twin, *chosen)
    return twin
