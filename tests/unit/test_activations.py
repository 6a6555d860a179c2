"""Activation functions against 64-bit references of SciPy, and layers whose rows differ in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fsd_inference as fsd
from fsd_inference import kernels
from fsd_inference.network.activation import ACTIVATION_KINDS, parsed_activation
from tests.support.reference import FUNCTIONS, PARAMETERS, layer_output, ulps
from tests.support.runs import dense

ONE = fsd.Activation("identity")
BOUND = 0.501
"""Largest error in units in the last place: what rounding once to 32-bit leaves of a 64-bit result."""


def activation(kind: Any) -> fsd.Activation:
    return fsd.Activation(kind, *PARAMETERS.get(kind, []))


def sample() -> NDArray[np.float32]:
    """Return every 30,011th finite float32, and others near 0 and where functions bend."""
    bits = np.arange(0, 2**32, 30_011, dtype=np.uint64).astype(np.uint32)
    everywhere = bits.view(np.float32)
    near = np.linspace(-20, 20, 100_001).astype(np.float32)
    zeros = np.array([0.0, -0.0], np.float32)
    return np.concatenate([everywhere[np.isfinite(everywhere)], near, zeros])


@pytest.mark.parametrize("kind", [kind for kind in ACTIVATION_KINDS if kind != "prelu"])
def test_values_are_those_of_a_64_bit_reference_rounded_once(kind: str) -> None:
    z = sample()
    found = activation(kind).apply(z)
    with np.errstate(over="ignore", under="ignore"):
        expected = FUNCTIONS[kind](z.astype(np.float64), *activation(kind).parameters)
    assert ulps(found, expected).max() < BOUND
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("kind", ACTIVATION_KINDS)
def test_all_paths_give_the_same_bits(kind: str) -> None:
    z, parameters = sample()[::3], PARAMETERS.get(kind, [])
    found = [kernels.activate(kind, parameters, z, -0.75, path).tobytes() for path in kernels.simd_paths()]
    found.append(b"".join(kernels.activate(kind, parameters, part, -0.75).tobytes() for part in np.array_split(z, 7)))
    assert len(set(found)) == 1


def test_slopes_of_prelu() -> None:
    z = sample()
    found = fsd.Activation("prelu").apply(z, 0.3)
    np.testing.assert_array_equal(found, fsd.Activation("leaky_relu", 0.3).apply(z))
    np.testing.assert_array_equal(found, np.where(z < 0, np.float32(0.3) * z, z))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relu", fsd.Activation("relu")),
        ("clipped_relu:32", fsd.Activation("clipped_relu", 32)),
        ("clip:-1:0.5", fsd.Activation("clip", -1, 0.5)),
    ],
)
def test_activations_are_written_as_text(text: str, expected: fsd.Activation) -> None:
    assert parsed_activation(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("elu", "the activation elu takes its alpha, such as elu:1; 0 are given"),
        ("clip:1", "takes its lower and upper, such as clip:-1:1; 1 are given"),
        ("tanh:1", "the activation tanh takes no parameters; 1 are given"),
        ("prelu", "make its layers in Python"),
        ("elu:x", "'elu:x' is not an activation with numbers"),
        ("swish:1", "an activation is one of identity, relu"),
    ],
)
def test_texts_that_are_no_activation(text: str, says: str) -> None:
    with pytest.raises(fsd.InputError) as error:
        parsed_activation(text)
    assert says in str(error.value)


def test_a_layer_names_its_activations_with_their_rows() -> None:
    groups = [fsd.RowGroup(1, ONE), fsd.RowGroup(1, fsd.Activation("tanh"), "max"), fsd.RowGroup(2, ONE)]
    assert fsd.Layer(np.ones((4, 2)), 0.0, groups).described_activations == "3 identity, 1 max tanh"


@st.composite
def layers(draw: st.DrawFn) -> fsd.Layer:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    outputs, inputs = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    weights = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < 0.6)
    groups, at = [], 0
    while at < outputs:
        rows = draw(st.integers(1, outputs - at))
        reduce: Any = draw(st.sampled_from(["sum", "max"]))
        if reduce == "max":
            weights[at : at + rows] = weights[at : at + rows] != 0
            weights[at : at + rows, rng.integers(inputs)] = 1
        groups.append(fsd.RowGroup(rows, activation(draw(st.sampled_from(ACTIVATION_KINDS))), reduce))
        at += rows
    bias = rng.normal(size=outputs) * draw(st.sampled_from([0.0, 1.0]))
    return fsd.Layer(weights, bias, groups, slopes=rng.normal(size=outputs))


@given(layers(), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_layers_of_groups_are_computed_group_by_group(layer: fsd.Layer, seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, layer.shape[1])).astype(np.float32)
    x[rng.random(samples) < 0.3] = 0
    with fsd.Session(fsd.Network([layer])) as session:
        outputs = session.infer(x).outputs
    np.testing.assert_allclose(dense(outputs), layer_output(layer, x.T).T, rtol=1e-5, atol=1e-6)
    of_zeros = layer_output(layer, np.zeros((layer.shape[1], 1)))
    assert layer.zero_preserving == (not of_zeros.astype(np.float32).any())


def test_carried_values_are_copied() -> None:
    x = sample()[:, None]
    branches = fsd.Layer([[1], [1]], 0.0, [fsd.RowGroup(1, ONE), fsd.RowGroup(1, fsd.Activation("tanh"))])
    with fsd.Session(fsd.Network([branches, fsd.Layer([[1, 0]], 0.0, ONE)])) as session:
        outputs = session.infer(x).outputs
    np.testing.assert_array_equal(dense(outputs), x)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fsd.Layer([[1, 2]], 0, [fsd.RowGroup(1, ONE, "max")]), "must all be 1"),
        (lambda: fsd.Layer([[1, 2], [0, 0]], 0, [fsd.RowGroup(1, ONE), fsd.RowGroup(1, ONE, "max")]), "neuron 1 is"),
        (lambda: fsd.Layer([[1]], 0, [fsd.RowGroup(2, ONE)]), "the groups have 2 rows, but the layer has 1"),
        (lambda: fsd.Layer([[1]], 0, [fsd.RowGroup(-1, ONE), fsd.RowGroup(2, ONE)]), "a group of -1 rows"),
        (lambda: fsd.Layer([[1]], 0, [fsd.RowGroup(1, ONE, "mean")]), "reduce by 'mean'"),  # type: ignore[arg-type]
        (lambda: fsd.Layer([[1]], 0, ["relu"]), "must be RowGroups, not 'relu'"),  # type: ignore[list-item]
        (lambda: fsd.Layer([[1]], 0, "prelu"), "needs slopes"),
        (lambda: fsd.Layer([[1]], 0, "prelu", slopes=[1, 2]), "of 1 neurons needs as many slopes, not 2"),
        (lambda: fsd.Layer([[1]], 0, "prelu", slopes=[np.nan]), "slopes, entry 0"),
        (lambda: fsd.Activation("clip", 2, 1), "the bounds of clip must ascend"),
        (lambda: fsd.Activation("elu"), 'takes its alpha, such as Activation("elu", 1)'),
        (lambda: fsd.Activation("elu", 1, 2), "2 are given"),
        (lambda: fsd.Activation("relu").apply(["a"]), "the pre-activations must be real numbers"),  # type: ignore[list-item]
        (lambda: fsd.Activation("leaky_relu", float("inf")), "the slope of leaky_relu must be finite"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, says: str) -> None:
    with pytest.raises(fsd.InputError) as error:
        make()
    assert says in str(error.value)


def test_a_slope_that_overflows_is_an_error() -> None:
    layer = fsd.Layer([[1]], 0, fsd.Activation("leaky_relu", 1e30))
    with fsd.Session(fsd.Network([layer])) as session, pytest.raises(fsd.NumericError, match="layer 0"):
        session.infer([[-1e30]])
