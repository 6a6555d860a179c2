"""Graphs lowered to layers, compared with the same operators in float64; and how few neurons and layers they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError
from fsd_inference.network import Activation, Layer, Network
from fsd_inference.network.importing.lowering import Graph, Windows, lower
from fsd_inference.network.importing.problems import UnsupportedError
from tests.support.random_graphs import Twin, graphs
from tests.support.runs import dense

Array = NDArray[Any]

RELU = Activation("relu")


def run(layers: list[Layer], x: Array, **settings_: Any) -> Array:
    with fsd.Session(Network(layers, name="lowered"), **({"channel": "serial"} | settings_)) as session:
        return dense(session.infer(x.reshape(len(x), -1).astype(np.float32)).outputs)


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_graphs_compute_what_their_operators_compute(twin: Twin) -> None:
    layers, facts = lower(twin.graph, twin.tensors[-1][0], "a model")
    assert facts.total == sum(layer.connections for layer in layers)
    assert np.abs(run(layers, twin.x) - twin.expected()).max() <= twin.tolerance()


@given(graphs(), st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_cuts_of_graphs_give_the_same_bits(twin: Twin, workers: int) -> None:
    layers, _ = lower(twin.graph, twin.tensors[-1][0], "a model")
    serial = run(layers, twin.x)
    assert np.array_equal(run(layers, twin.x, channel="local", workers=workers), serial)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0.1, 1, shape)


def kinds(layer: Layer) -> list[tuple[int, str, str]]:
    return [(group.rows, group.activation.kind, group.reduce) for group in layer.groups]


def test_scaling_and_activations_are_part_of_the_layer_before() -> None:
    graph = Graph(2 * 5 * 5)
    made = graph.convolve(graph.inputs((2, 5, 5)), random(3, 2, 3, 3), 0.0, Windows.of((3, 3)), "conv")
    made = graph.scale(made, random(3, 1, 1), random(3, 1, 1, seed=1), "norm")
    made = graph.activate(made, RELU, "relu")
    made = graph.scale(made, 2.0, 1.0, "scale")
    made = graph.affine(random(4, 27), made, 0.5, "dense")
    layers, facts = lower(graph, made, "a model")
    assert [layer.shape for layer in layers] == [(27, 50), (4, 27)]
    assert facts.connections == ((("conv", "norm", "relu"), 27 * 18), (("scale", "dense"), 4 * 27))
    assert kinds(layers[0]) == [(27, "relu", "sum")]
    assert facts.carried == ()
    assert facts.warning() is None


def test_a_residual_addition_takes_no_layer_of_its_own() -> None:
    graph = Graph(6)
    x = graph.inputs((6,))
    hidden = graph.activate(graph.affine(random(6, 6), x, 0.0, "a"), RELU, "relu")
    added = graph.combine([(1.0, graph.affine(random(6, 6), hidden, 0.0, "b")), (1.0, x)], "add")
    layers, facts = lower(graph, graph.activate(added, RELU, "relu 2"), "a model")
    assert [layer.shape for layer in layers] == [(12, 6), (6, 12)]
    assert kinds(layers[0]) == [(6, "relu", "sum"), (6, "identity", "sum")]
    assert kinds(layers[1]) == [(6, "relu", "sum")]
    assert facts.total == 36 + 6 + 36 + 6
    (carried,) = facts.carried
    assert (carried.nodes, carried.values, carried.layers, carried.connections) == ((), 6, 1, 6)


def test_values_are_carried_only_as_far_as_they_are_read() -> None:
    graph = Graph(3)
    x = graph.inputs((3,))
    tensors = [x]
    for k in range(6):
        tensors.append(graph.activate(graph.affine(random(3, 3, seed=k), tensors[-1], 0.0, f"dense {k}"), RELU, "relu"))
    late = graph.combine([(1.0, tensors[-1]), (1.0, tensors[2])], "add")
    layers, facts = lower(graph, late, "a model")
    assert [layer.shape[0] for layer in layers] == [3, 3, 6, 6, 6, 6, 3]
    (carried,) = facts.carried
    assert carried.nodes == ("dense 1", "relu")
    assert (carried.values, carried.layers, carried.connections) == (3, 4, 12)
    warning = facts.warning()
    assert warning is not None
    assert "12 of 72 connections carry values" in warning
    assert "the output of dense 1, relu (3 values over 4 layers)" in warning


def test_neurons_that_nothing_reads_are_left_out() -> None:
    graph = Graph(4)
    hidden = graph.activate(graph.affine(random(5, 4), graph.inputs((4,)), 0.0, "a"), RELU, "relu")
    graph.affine(random(2, 5), hidden, 0.0, "unread")
    layers, facts = lower(graph, graph.affine(random(2, 3), hidden[1:4], 0.0, "b"), "a model")
    assert [layer.shape for layer in layers] == [(3, 4), (2, 3)]
    assert facts.total == 12 + 6


def test_sums_are_composed_as_a_whole_or_not_at_all() -> None:
    """A hidden neuron that is read once is not computed by its reader if others remain: its inputs would be carried."""
    graph = Graph(20)
    hidden = graph.affine(random(3, 20), graph.inputs((20,)), 0.0, "a")
    read_once = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    layers, facts = lower(graph, graph.affine(read_once, hidden, 0.0, "b"), "a model")
    assert [layer.shape for layer in layers] == [(3, 20), (2, 3)]
    assert facts.carried == ()


def test_limits_in_turn_become_one() -> None:
    graph = Graph(4)
    made = graph.activate(graph.scale(graph.inputs((4,)), 2.0, 0.0, "scale"), RELU, "relu")
    made = graph.activate(made, Activation("clip", -1.0, 6.0), "clip")
    (layer,), _ = lower(graph, made, "a model")
    assert layer.activation == Activation("clipped_relu", 6.0)


def test_padding_of_a_maximum_is_a_neuron_without_inputs() -> None:
    graph = Graph(3)
    padded = np.pad(graph.inputs((1, 3)), [(0, 0), (1, 1)], constant_values=int(graph.constant(0.25)))
    layers, _ = lower(graph, graph.pool(padded, Windows.of((3,)), "max", "pool"), "a model")
    assert [layer.shape for layer in layers] == [(5, 3), (3, 5)]
    assert kinds(layers[1]) == [(1, "identity", "max"), (1, "identity", "sum"), (1, "identity", "max")]
    x = np.array([[-1.0, -2.0, 0.0]])
    assert run(layers, x).tolist() == [[0.25, 0.0, 0.25]]


def test_outputs_are_in_their_order_even_if_they_are_inputs_or_constants() -> None:
    graph = Graph(3)
    x = graph.inputs((3,))
    outputs = np.concatenate([x[::-1], graph.constant([2.5]), x[:1]])
    layers, _ = lower(graph, outputs, "a model")
    assert run(layers, np.array([[1.0, 2.0, 3.0]])).tolist() == [[3.0, 2.0, 1.0, 2.5, 1.0]]


def test_more_connections_than_allowed_are_refused_before_they_are_made() -> None:
    graph = Graph(1 << 20, most_connections=1000)
    with pytest.raises(UnsupportedError, match=r"becomes 9,400,356 connections, .* may have 1,000; raise that"):
        graph.convolve(graph.inputs((1, 1024, 1024)), np.ones((1, 1, 3, 3)), 0.0, Windows.of((3, 3)), "conv")
    assert graph.connections == 0


def test_broadcasting_is_refused_before_memory_is_taken() -> None:
    graph = Graph(1 << 20)
    x = graph.inputs((1 << 20,))
    for make in (graph.maximum, lambda tensors, node: graph.combine([(1.0, refs) for refs in tensors], node)):
        with pytest.raises(UnsupportedError, match=r"becomes 2,199,023,255,552 connections"):
            make([x[None], x[:, None]], "pairs")
    with pytest.raises(UnsupportedError, match=r"becomes 1,048,576,000 connections"):
        graph.product(np.eye(1000, 1), x[:, None], 0.0, "repeat")


def test_carried_values_count_as_connections() -> None:
    graph = Graph(3, most_connections=40)
    x = graph.inputs((3,))
    hidden = x
    for k in range(3):
        hidden = graph.activate(graph.affine(random(3, 3, seed=k), hidden, 0.0, f"dense {k}"), RELU, "relu")
    with pytest.raises(FileFormatError, match=r"a model: becomes 42 connections, 9 of which carry values past layers"):
        lower(graph, graph.combine([(1.0, hidden), (1.0, x)], "add"), "a model")


def test_weights_that_are_not_finite_are_listed() -> None:
    graph = Graph(2)
    made = graph.affine([[1.0, np.nan], [0.0, 1.0]], graph.inputs((2,)), 0.0, "a")
    made = graph.affine(random(2, 2), graph.activate(made, RELU, "relu"), [0.0, 1e39], "b")
    with pytest.raises(FileFormatError) as caught:
        lower(graph, made, "a model")
    text = str(caught.value)
    assert "a, relu: the weight of output 0 and input 1 (counted from 0) is NaN, infinite or too large" in text
    assert "b: the bias of output 1" in text


def test_cuts_of_a_convolutional_network_give_the_same_bits() -> None:
    graph = Graph(2 * 4 * 4)
    x = graph.inputs((2, 4, 4))
    made = graph.convolve(x, random(2, 2, 3, 3), -1.0, Windows.of((3, 3), pads=[(1, 1)] * 2), "conv")
    made = graph.activate(graph.combine([(1.0, made), (1.0, x)], "add"), Activation("silu"), "silu")
    made = graph.pool(np.concatenate([made, x]), Windows.of((2, 2), (2, 2)), "max", "pool")
    made = graph.affine(random(5, 16) - 0.5, made, 0.0, "dense")
    layers, _ = lower(graph, made, "a model")
    samples = np.random.default_rng(1).standard_normal((4, 32))
    serial = run(layers, samples)
    assert np.array_equal(run(layers, samples, channel="local", workers=3), serial)


def test_weights_in_float32_are_composed_in_float64() -> None:
    random = np.random.default_rng(5)
    first, second = (random.standard_normal(shape).astype(np.float32) for shape in ((2000, 4), (1, 2000)))
    graph = Graph(4)
    middle = graph.affine(first, graph.inputs((4,)), 0.0, "first")
    layers, _ = lower(graph, graph.affine(second, middle, 0.0, "second"), "model")
    expected = (second.astype(np.float64) @ first.astype(np.float64)).astype(np.float32)
    assert [layer.weights.toarray().tolist() for layer in layers] == [expected.tolist()]
