"""Pruning by magnitude: exact counts, the right connections, and what stays as it was."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError, SettingError
from fsd_inference.network import IDENTITY, RELU, Activation, Layer, Network, RowGroup
from fsd_inference.network.pruning import prune

Matrix = NDArray[np.float32]

# Many equal magnitudes and zeros, so that ties occur.
WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5]), st.floats(-4, 4, width=32))
SPARSITIES = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.29]), st.floats(0, 1, exclude_max=True))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    layers = []
    for inputs, outputs in pairwise(widths):
        weights = draw(hnp.arrays(np.float32, (outputs, inputs), elements=WEIGHTS))
        bias = draw(hnp.arrays(np.float32, outputs, elements=st.floats(-1, 1, width=32)))
        layers.append(Layer(weights, bias, draw(st.sampled_from([RELU, Activation("clipped_relu", 4)]))))
    return Network(layers)


def dense(network: Network) -> list[Matrix]:
    return [layer.weights.toarray() for layer in network]


def magnitudes(matrices: list[Matrix], masks: list[NDArray[np.bool_]]) -> list[float]:
    return [float(abs(w)) for matrix, mask in zip(matrices, masks, strict=True) for w in matrix[mask]]


def check_kept(before: list[Matrix], after: list[Matrix]) -> None:
    """Assert that weights are kept with all bits or cut, and that no cut one is larger than a kept one."""
    kept, cut = [a != 0 for a in after], [(b != 0) & (a == 0) for b, a in zip(before, after, strict=True)]
    for b, a, mask in zip(before, after, kept, strict=True):
        assert a[mask].tobytes() == b[mask].tobytes()
    assert max(magnitudes(before, cut), default=0) <= min(magnitudes(before, kept), default=np.inf)


@given(networks(), SPARSITIES)
def test_by_layer_the_largest_weights_of_each_layer_are_left(network: Network, sparsity: float) -> None:
    pruned = prune(network, sparsity)
    for layer, left in zip(network, pruned, strict=True):
        positions = layer.shape[0] * layer.shape[1]
        assert left.connections == min(layer.connections, positions - round(sparsity * positions))
        check_kept([layer.weights.toarray()], [left.weights.toarray()])
        assert (left.bias.tobytes(), left.activation) == (layer.bias.tobytes(), layer.activation)


@given(networks(), SPARSITIES)
def test_globally_the_largest_weights_of_all_layers_are_left(network: Network, sparsity: float) -> None:
    pruned = prune(network, sparsity, by="global")
    positions = sum(inputs * outputs for inputs, outputs in pairwise(network.widths))
    assert pruned.connections == min(network.connections, positions - round(sparsity * positions))
    check_kept(dense(network), dense(pruned))


@given(networks(), st.integers(1, 4), st.integers(0, 4))
def test_n_of_every_m_inputs_are_left(network: Network, kept: int, more: int) -> None:
    group = kept + more
    for before, after in zip(dense(network), dense(prune(network, by=f"{kept}:{group}")), strict=True):
        for row, left in zip(before, after, strict=True):
            for start in range(0, len(row), group):
                part, remains = row[start : start + group], left[start : start + group]
                assert np.count_nonzero(remains) == min(kept, np.count_nonzero(part))
                check_kept([part], [remains])


@given(networks(), SPARSITIES, SPARSITIES, st.sampled_from(["layer", "global"]))
def test_a_sparser_network_has_no_other_connections(network: Network, one: float, other: float, by: str) -> None:
    more, less = (dense(prune(network, sparsity, by=by)) for sparsity in sorted([one, other]))
    assert all(((b != 0) <= (a != 0)).all() for a, b in zip(more, less, strict=True))


@given(networks())
def test_nothing_is_cut_at_sparsity_0(network: Network) -> None:
    for by in ("layer", "global"):
        assert prune(network, 0, by=by).digest == network.digest
        assert prune(network, 0.0, by=by, x=np.ones((3, network.widths[0]))).digest == network.digest


def test_of_equal_weights_the_first_are_kept() -> None:
    network = Network.from_matrices([[[1, -1, 1, 1], [-1, 1, 1, 1]], [[1, 1]]])
    assert dense(prune(network, 0.25))[0].tolist() == [[1, -1, 1, 1], [-1, 1, 0, 0]]
    assert dense(prune(network, 0.6, by="global"))[0].tolist() == [[1, -1, 1, 1], [0, 0, 0, 0]]
    assert dense(prune(network, by="1:3"))[0].tolist() == [[1, 0, 0, 1], [-1, 0, 0, 1]]


def test_stored_zeros_are_the_first_to_go() -> None:
    stored = sparse.csr_array((np.array([0, 2, 0, 1], np.float32), [0, 1, 2, 3], [0, 4]), shape=(1, 4))
    network = Network([Layer(stored, 0)])
    assert prune(network, 0.25).layer(0).connections == 3
    assert prune(network, 0.5).layer(0).weights.indices.tolist() == [1, 3]


def carrying() -> tuple[Network, list[int]]:
    """Return a network whose rows 1 and 3 carry an input on; rows 0 and 4 nearly do."""
    weights = np.array([[0, 1, 0], [0, 1, 0], [0.5, 0.25, 0.125], [0, 0, 1], [0, 0.5, 0]], np.float32)
    return Network([Layer(weights, [0.5, 0, 0, 0, 0], IDENTITY)]), [1, 3]


@pytest.mark.parametrize("x", [None, np.eye(3) + 0.1])
def test_carried_values_are_not_cut_and_do_not_count(x: Any) -> None:
    network, carried = carrying()
    (before,) = dense(network)
    for sparsity, left in ((5 / 9, 4), (7 / 9, 2), (0.99, 0)):
        for by in ("layer", "global"):
            (after,) = dense(prune(network, sparsity, by=by, x=x))
            assert (after[carried] == before[carried]).all()
            assert np.count_nonzero(np.delete(after, carried, axis=0)) == left
    (after,) = dense(prune(network, by="1:3", x=x))
    assert np.count_nonzero(after, axis=1).tolist() == [1] * 5


def test_name_labels_and_origin_stay() -> None:
    network = Network.from_matrices([np.eye(4)], name="eye", labels=["a", "b", "c", "d"])
    once = prune(network, 0.9)
    assert (once.name, once.origin) == ("eye", "pruned to 90% by layer")
    assert once.labels is not None
    assert once.labels.tolist() == ["a", "b", "c", "d"]
    assert prune(once, 0.999, by="global").origin == "pruned to 90% by layer; pruned to 99.9% globally"
    twice = prune(once, by="2:4", x=np.ones((1000, 4)))
    assert twice.origin == "pruned to 90% by layer; pruned by 2:4, calibrated on 1,000 samples"


def test_progress_is_told_by_layer() -> None:
    network = Network.from_matrices([np.eye(4)] * 3)
    for x in (None, np.ones((1, 4))):
        told: list[int] = []
        prune(network, 0.9, x=x, progress=told.append)
        assert told == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sparsity": 1}, "from 0 to below 1, not 1"),
        ({"sparsity": -0.1}, "from 0 to below 1, not -0.1"),
        ({"sparsity": float("nan")}, "from 0 to below 1, not nan"),
        ({"sparsity": "0.9"}, "from 0 to below 1, not '0.9'"),
        ({"sparsity": True}, "from 0 to below 1, not True"),
        ({}, "needs a sparsity, such as 0.9"),
        ({"by": "global"}, "by global needs a sparsity"),
        ({"sparsity": 0.5, "by": "row"}, "by layer, global or n:m such as 2:4, not by 'row'"),
        ({"sparsity": 0.5, "by": None}, "not by None"),
        ({"sparsity": 0.5, "by": [2, 4]}, "not by \\[2, 4\\]"),
        ({"by": "4:2"}, "would keep 4 of every 2 inputs"),
        ({"by": "0:2"}, "not by '0:2'"),
        ({"by": "2:4", "sparsity": 0.5}, "omit sparsity"),
    ],
)
def test_wrong_settings(arguments: Any, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        prune(Network.from_matrices([np.eye(4)]), **arguments)


def test_wrong_inputs() -> None:
    network = Network.from_matrices([np.full((2, 3), 3e38)])
    with pytest.raises(InputError, match="the calibration input"):
        prune(network, 0.5, x=np.ones((2, 4)))
    with pytest.raises(InputError, match="layer 0 overflows float32 on the calibration input \\(neuron 0\\)"):
        prune(network, 0.05, x=np.ones((2, 3)))


@pytest.mark.parametrize("x", [None, np.random.default_rng(1).random((20, 6))])
def test_maxima_slopes_and_groups_of_activations_stay(x: Any) -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((7, 6)).astype(np.float32)
    weights[2:4] = [[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    weights[4] = [0, 0, 1, 0, 0, 0]
    groups = [
        RowGroup(2, Activation("prelu")),
        RowGroup(2, IDENTITY, "max"),
        RowGroup(2, IDENTITY),
        RowGroup(1, Activation("tanh")),
    ]
    bias = np.array([0.1, 0.2, 0.3, 0, 0, 0.5, 0.6], np.float32)
    layer = Layer(weights, bias, groups, slopes=np.arange(7) / 10)
    network = Network([layer, Layer(rng.standard_normal((3, 7)), 0.0)])
    left = prune(network, 0.75, x=x).layer(0)
    assert left.groups == layer.groups
    assert left.slopes is not None
    assert layer.slopes is not None
    assert left.slopes.tobytes() == layer.slopes.tobytes()
    kept = left.weights.toarray()
    assert kept[2:5].tobytes() == weights[2:5].tobytes()
    assert np.count_nonzero(np.delete(kept, [2, 3, 4], axis=0)) == 24 - round(0.75 * 24)
