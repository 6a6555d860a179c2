"""Layers and networks in memory: validation and derived properties."""

import copy
import pickle
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.kernels import LayerKernel
from fsd_inference.network import IDENTITY, RELU, Activation, Layer, Network, digits, graph_challenge, random_network

CLIPPED = Activation("clipped_relu", 32)
SMALL = st.integers(1, 6)
FLOATS = st.one_of(st.just(0.0), st.just(-0.0), st.floats(-4, 4, width=32))


def f32(values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def u16(values: list[int]) -> NDArray[np.uint16]:
    return np.array(values, np.uint16)


def i64(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


@st.composite
def dense_layers(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], Activation]:
    outputs, inputs = draw(SMALL), draw(SMALL)
    weights = draw(hnp.arrays(np.float32, (outputs, inputs), elements=FLOATS))
    bias = draw(hnp.arrays(np.float32, draw(st.sampled_from([1, outputs])), elements=FLOATS))
    return weights, bias, draw(st.sampled_from([IDENTITY, RELU, CLIPPED, Activation("clipped_relu", 0.1)]))


@given(dense_layers())
def test_a_layer_is_what_it_was_made_of(parts: tuple[NDArray[np.float32], NDArray[np.float32], Activation]) -> None:
    weights, bias, activation = parts
    layer = Layer(weights, bias, activation)
    np.testing.assert_array_equal(layer.weights.toarray(), weights)
    np.testing.assert_array_equal(layer.bias, bias)
    assert layer.shape == weights.shape
    assert layer.connections == np.count_nonzero(weights)
    zero = np.zeros((weights.shape[1], 1), np.float32)
    alive = activation.apply(weights @ zero + bias[:, None])
    assert layer.zero_preserving == (not alive.any())
    distinct = {value.tobytes() for value in weights[weights != 0]}
    assert (layer.one_value is not None) == (len(distinct) == 1)

    arrays = layer.kernel_arrays()
    for array in (arrays.indptr, arrays.indices, arrays.values, arrays.bias):
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert arrays.indices.dtype == np.uint16
    same = Layer.from_arrays(*arrays[:4], bias=arrays.bias, activation=activation)
    assert same == layer
    assert hash(same) == hash(layer)


def test_kernel_arrays_are_borrowed_not_copied() -> None:
    layer = Layer(np.eye(3), 0.5)
    first, second = layer.kernel_arrays(), layer.kernel_arrays()
    assert first.indices is second.indices
    indices = u16([1, 0])
    taken = Layer.from_arrays(i64([0, 1, 2]), indices, f32([1, 2]), 2, bias=f32([0]))
    assert np.shares_memory(taken.kernel_arrays().indices, indices)


def test_the_users_arrays_stay_their_own() -> None:
    weights = sparse.csr_array(np.eye(2, dtype=np.float32))
    bias = np.zeros(2, np.float32)
    layer = Layer(weights, bias)
    weights.data[:] = 7
    bias[:] = 7
    assert layer.one_value == 1.0
    assert not layer.bias.any()


@pytest.mark.parametrize("copied", [lambda layer: pickle.loads(pickle.dumps(layer)), copy.deepcopy])
def test_copies_are_as_immutable(copied: Any) -> None:
    layer = Layer([[1, 0], [2, 3]], [0, 1])
    again = copied(layer)
    assert again == layer
    assert not any(array.flags.writeable for array in again.kernel_arrays()[:3])
    LayerKernel(*again.kernel_arrays())


def test_columns_are_sorted_and_duplicates_summed() -> None:
    unsorted = sparse.csr_array((f32([1, 2, 3]), [2, 0, 2], [0, 3]), shape=(1, 3))
    layer = Layer(unsorted, 0)
    assert layer.kernel_arrays().indices.tolist() == [0, 2]
    assert layer.weights.toarray().tolist() == [[2, 0, 4]]


def test_stored_zeros_stay_connections() -> None:
    stored = sparse.csr_array((f32([0, 0]), [0, 1], [0, 2]), shape=(1, 2))
    layer = Layer(stored, 0)
    assert layer.connections == 2
    assert layer.one_value == 0.0
    signed = sparse.csr_array((f32([0, -0.0]), [0, 1], [0, 2]), shape=(1, 2))
    assert Layer(signed, 0).one_value is None


def test_a_layer_without_connections_has_no_one_value() -> None:
    layer = Layer(np.zeros((2, 3)), [1, -1])
    assert layer.connections == 0
    assert layer.one_value is None
    assert not layer.zero_preserving


@pytest.mark.parametrize(("inputs", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_indices_are_u16_as_long_as_they_fit(inputs: int, dtype: type) -> None:
    last = sparse.csr_array((f32([2]), [inputs - 1], [0, 1]), shape=(1, inputs))
    layer = Layer(last, 0)
    assert layer.kernel_arrays().indices.dtype == dtype
    assert layer.kernel_arrays().indices.tolist() == [inputs - 1]


@pytest.mark.parametrize(
    ("bias", "activation", "expected"),
    [
        ([0, 0], IDENTITY, True),
        ([0, -1], IDENTITY, False),
        ([0, -1], RELU, True),
        ([-0.0, -1], RELU, True),
        ([-1, 1e-30], RELU, False),
        (-0.3, CLIPPED, True),
        (0.3, CLIPPED, False),
    ],
)
def test_zero_preserving_is_a_fact_of_bias_and_activation(bias: Any, activation: Activation, expected: bool) -> None:
    assert Layer(np.ones((2, 2)), bias, activation).zero_preserving is expected


@pytest.mark.parametrize(("name", "activation"), [("identity", IDENTITY), ("relu", RELU)])
def test_activations_that_need_no_number_may_be_named(name: Any, activation: Activation) -> None:
    layer = Layer([[1, -1]], 0.0, name)
    assert layer.activation == activation
    assert layer == Layer([[1, -1]], 0.0, activation)
    arrays = layer.kernel_arrays()
    assert Layer.from_arrays(*arrays[:4], bias=arrays.bias, activation=name) == layer


def test_equal_activations_make_equal_layers() -> None:
    assert Activation("clipped_relu", 0.1) == Activation("clipped_relu", float(np.float32(0.1)))
    assert Layer([[1]], 0, Activation("relu")).digest == Layer([[1]], 0, RELU).digest
    assert type(Activation(np.str_("relu")).kind) is str  # type: ignore[arg-type]


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Activation("cosine"), "identity, relu, clipped_relu"),  # type: ignore[arg-type]
        (lambda: Activation("relu", 3), "takes no parameters"),
        (lambda: Activation("clipped_relu"), 'takes its upper, such as Activation\\("clipped_relu", 32\\)'),
        (lambda: Activation("clipped_relu", float("nan")), "finite"),
        (lambda: Activation("clipped_relu", 1e300), "finite"),
        (lambda: Activation("clipped_relu", 10**400), "finite"),
        (lambda: Activation("clipped_relu", 1e-60), "positive"),
        (lambda: Activation("clipped_relu", "32"), "upper of clipped_relu must be a number, not '32'"),  # type: ignore[arg-type]
        (lambda: Activation("clipped_relu", True), "upper of clipped_relu must be a number, not True"),
        (lambda: Activation("clipped_relu", None), "upper of clipped_relu must be a number, not None"),  # type: ignore[arg-type]
        (lambda: Activation("clipped_relu", np.ones((9, 9))), "upper of clipped_relu must be a number, not array"),  # type: ignore[arg-type]
        (lambda: Activation("relu", float("nan")), "takes no parameters"),
        (lambda: Activation(None), "identity, relu, clipped_relu"),  # type: ignore[arg-type]
        (lambda: Activation(np.ones((9, 9))), "identity, relu, clipped_relu"),  # type: ignore[arg-type]
        (lambda: Layer([[1]], 0, "cosine"), "identity, relu, clipped_relu"),  # type: ignore[arg-type]
        (lambda: Layer([[1]], 0, "ReLU"), "identity, relu, clipped_relu"),  # type: ignore[arg-type]
        (lambda: Layer([[1]], 0, "clipped_relu"), "takes its upper"),
        (lambda: Layer([[1]], 0, None), "must be an Activation"),  # type: ignore[arg-type]
        (lambda: Layer([[1]], 0, Activation), "must be an Activation"),  # type: ignore[arg-type]
        (lambda: Layer([[1]], 0, np.maximum), "must be an Activation"),  # type: ignore[arg-type]
        (lambda: Layer([[1]], 0, 32.0), "must be an Activation"),  # type: ignore[arg-type]
        (lambda: Layer(np.ones((0, 3)), 0), "1 to"),
        (lambda: Layer(np.ones((3, 0)), 0), "1 to"),
        (lambda: Layer(np.ones(3), 0), "2-D"),
        (lambda: Layer("weights", 0), "2-D"),
        (lambda: Layer([[1], [2, 3]], 0), "cannot be read as an array"),
        (lambda: Layer([[1]], [[1], [2, 3]]), "a layer's bias cannot be read as an array"),
        (lambda: Layer([[1]], sparse.csr_array([[1.0]])), "a layer's bias must be real numbers"),  # type: ignore[arg-type]
        (lambda: Layer([[1j]], 0), "real numbers"),
        (lambda: Layer([[np.nan]], 0), "finite"),
        (lambda: Layer([[1e300]], 0), "float32"),
        (lambda: Layer([[1]], np.inf), "finite"),
        (lambda: Layer([[1]], "a"), "real numbers"),
        (lambda: Layer(np.ones((3, 1)), [1, 2]), "3 biases or one, not 2"),
        (lambda: Layer(np.ones((1, 1)), [[1]]), "1-D"),
        (lambda: Layer(sparse.csr_array((f32([3e38, 3e38]), [0, 0], [0, 2]), shape=(1, 1)), 0), "finite"),
        (lambda: Layer.from_arrays(i64([0, 2]), u16([1, 0]), f32([1, 2]), 2, bias=ONE), "ascend strictly"),
        (lambda: Layer.from_arrays(i64([0, 2]), u16([1, 1]), f32([1, 2]), 2, bias=ONE), "ascend strictly"),
        (lambda: Layer.from_arrays(i64([0, 1]), u16([2]), ONE, 2, bias=ONE), "input 2"),
        (lambda: Layer.from_arrays(i64([0, 2, 1]), u16([1]), ONE, 2, bias=ONE), "row starts"),
        (lambda: Layer.from_arrays(i64([1, 1]), u16([1]), ONE, 2, bias=ONE), "row starts"),
        (lambda: Layer.from_arrays(i64([0, 2]), u16([1]), ONE, 2, bias=ONE), "row starts"),
        (lambda: Layer.from_arrays(i64([0]), u16([]), ONE[:0], 2, bias=ONE), "1 to"),
        (lambda: Layer.from_arrays(i64([]), u16([]), ONE[:0], 2, bias=ONE), "1 to"),
        (
            lambda: Layer.from_arrays(i64([0, 3]), u16([0, 1, 2]), f32([1, 2]), 3, bias=ONE),
            "weights or one",
        ),
        (lambda: Layer.from_arrays(i64([0, 0]), u16([]), ONE, 3, bias=ONE), "weights or one"),
        (lambda: Layer.from_arrays(i64([0, 1]), np.zeros(1, np.uint32), ONE, 3, bias=ONE), "uint16"),
        (lambda: Layer.from_arrays([0, 1], u16([0]), ONE, 3, bias=ONE), "row starts must be a NumPy array"),  # type: ignore[arg-type]
        (
            lambda: Layer.from_arrays(i64([0, 1]), u16([0]), ONE, 3.0, bias=ONE),  # type: ignore[arg-type]
            "inputs must be a whole number, not 3.0",
        ),
        (lambda: Layer.from_arrays(i64([0, 1]), u16([0]), ONE, True, bias=ONE), "whole number, not True"),
        (lambda: Layer.from_arrays(i64([0, 1]), u16([0]), ONE, "3", bias=ONE), "whole number, not '3'"),  # type: ignore[arg-type]
        (lambda: random_network((3.5, 2), 1), "width of a layer must be a whole number, not 3.5"),  # type: ignore[arg-type]
        (lambda: random_network((3, 2), 1.0), "connections of a neuron must be a whole number"),  # type: ignore[arg-type]
        (lambda: random_network((3, 2), 1, seed=None), "seed must be a whole number"),  # type: ignore[arg-type]
        (lambda: graph_challenge(1024.0, 2), "neurons of a layer must be a whole number"),  # type: ignore[arg-type]
        (lambda: graph_challenge(1024, "2"), "number of layers must be a whole number"),  # type: ignore[arg-type]
        (lambda: digits(64.0, 2), "neurons of digits must be a whole number"),  # type: ignore[arg-type]
        (lambda: digits(64, np.float64(2)), "number of samples must be a whole number"),  # type: ignore[arg-type]
        (lambda: Network([]), "at least one layer"),
        (lambda: Network(None), "made of layers"),  # type: ignore[arg-type]
        (lambda: Network(Layer([[1]], 0)), "made of layers"),  # type: ignore[arg-type]
        (lambda: Network([Layer([[1]], 0), np.ones((1, 1))]), "layer 1 of a network must be a Layer, not array"),  # type: ignore[list-item]
        (lambda: Network.from_source([]), "must be a LayerSource, not"),  # type: ignore[arg-type]
        (lambda: Network("net"), "layer 0 of a network must be a Layer, not 'n'"),  # type: ignore[arg-type]
        (lambda: Network([Layer([[1]], 0)], name=5), "name of a network must be text, not 5"),  # type: ignore[arg-type]
        (
            lambda: Network([Layer(np.ones((2, 3)), 0), Layer(np.ones((2, 3)), 0)]),
            "layer 1 takes 3 inputs, but layer 0",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_last_of_a_row_may_exceed_the_first_of_the_next() -> None:
    layer = Layer.from_arrays(i64([0, 0, 1, 1, 2, 2]), u16([5, 0]), f32([1, 2]), 6, bias=np.zeros(1, np.float32))
    assert layer.weights.toarray()[[1, 3], [5, 0]].tolist() == [1, 2]


def test_a_network_knows_its_layers() -> None:
    layers = [Layer(np.ones((2, 3)), 0), Layer(np.eye(2), [1, 2])]
    network = Network(layers, name="two")
    assert len(network) == 2
    assert network.widths == (3, 2, 2)
    assert network.connections == 8
    assert list(network) == layers
    assert network.layer(1) is layers[1]
    assert network.name == "two"
    for index in (-1, 2):
        with pytest.raises(IndexError, match="layers 0 to 1"):
            network.layer(index)


def test_the_digest_is_of_the_content_alone() -> None:
    layers = [Layer(np.ones((2, 3)), 0), Layer(np.eye(2), [1, 2])]
    digest = Network(layers).digest
    assert len(digest) == 16
    assert Network(layers, name="other").digest == digest
    for other in (
        layers[:1],
        [layers[0], Layer(np.eye(2), [1, 3])],
        [layers[0], Layer(np.eye(2), [1, 2], IDENTITY)],
        [layers[0], Layer(2 * np.eye(2), [1, 2])],
        [layers[0], Layer(np.eye(2)[::-1], [1, 2])],
        [Layer(np.ones((2, 4)), 0), layers[1]],
    ):
        assert Network(other).digest != digest
